/* The cost of ops against counting them out, and the ledger that adds it up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gpu_table.h"
#include "ledger_backend.h"
#include "ops_bwd.h"
#include <string.h>

/* Queries and positions one by one. */
static void count_out(const struct nt_attn_seq *s, int32_t window, double *pairs, double *positions) {
    bool seen[4096] = {false};
    *pairs = *positions = 0;
    for (int32_t pos = s->pos0; pos < s->pos0 + s->n_q; pos++) {
        for (int32_t p = 0; p <= pos; p++) {
            if (window > 0 && p <= pos - window) continue;
            (*pairs)++;
            if (!seen[p]) (*positions)++;
            seen[p] = true;
        }
    }
}

static void test_attention(void **state) {
    (void)state;
    static const int32_t windows[] = {0, 1, 5, 64, 4000};
    static const struct nt_attn_seq seqs[] = {
        {.n_q = 1,   .pos0 = 0  },
        {.n_q = 1,   .pos0 = 999},
        {.n_q = 7,   .pos0 = 0  },
        {.n_q = 64,  .pos0 = 3  },
        {.n_q = 300, .pos0 = 61 },
        {.n_q = 0,   .pos0 = 12 },
    };
    enum { N = sizeof seqs / sizeof seqs[0] };
    for (int f = NT_KV_ROWS; f <= NT_KV_ROWS_INT8; f++) {
        const struct nt_kv_layer kv = {.n_kv = 3, .d_head = 20, .format = (enum nt_kv_format)f};
        /* 20 padded to 32: values of K and V, and with int8 a scale each */
        const double position = 3 * (f == NT_KV_ROWS ? 2 * 32 * 2.0 : 2 * 32 + 2 * 4);
        assert_true(nt_kv_position_bytes(&kv) == position);
        for (size_t w = 0; w < sizeof windows / sizeof windows[0]; w++) {
            struct nt_attention_args a = {.kv = &kv, .seqs = seqs, .n_seq = N, .n_head = 9, .window = windows[w]};
            double flops = 0, stored = 0, decode = 0;
            for (int i = 0; i < N; i++) {
                double pairs, positions;
                count_out(&seqs[i], windows[w], &pairs, &positions);
                flops += pairs * 9 * 4 * 20;
                stored += positions * position;
                if (seqs[i].n_q > a.max_q) a.max_q = seqs[i].n_q;
                if (seqs[i].pos0 + seqs[i].n_q > a.max_pos) a.max_pos = seqs[i].pos0 + seqs[i].n_q;
                if (seqs[i].n_q == 1) decode += pairs * 9 * 4 * 20;
                a.n_tok += seqs[i].n_q;
            }
            const struct nt_cost c = nt_op_cost_attention(&a);
            assert_true(c.flops == flops && c.stored_bytes == stored);
            assert_true(c.read_bytes == stored + a.n_tok * 9.0 * 32 * 2 && c.write_bytes == a.n_tok * 9.0 * 20 * 2);
            assert_true(nt_attention_cost(&a).decode.flops == decode);
            assert_int_equal(c.launches, 3);
        }
    }
}

static void test_gemm(void **state) {
    (void)state;
    struct nt_packed w = {.format = NT_WEIGHT_BF16_ROWS, .n = 96, .k = 256};
    struct nt_gemm_args a = {.w = &w, .n_tok = 5, .out = NT_GEMM_STORE_F32};
    struct nt_cost c = nt_op_cost_gemm(&a);
    assert_true(c.flops == 2.0 * 5 * 96 * 256 && c.stored_bytes == 96.0 * 256 * 2);
    assert_true(c.read_bytes == c.stored_bytes + 5 * 256 * 2 && c.write_bytes == 5 * 96 * 4);
    a.out = NT_GEMM_ADD_F32; /* y is read too */
    assert_true(nt_op_cost_gemm(&a).read_bytes == c.read_bytes + 5 * 96 * 4);
    a.out = NT_GEMM_SWIGLU_BF16; /* half the columns, half the size */
    assert_true(nt_op_cost_gemm(&a).write_bytes == 5 * 48 * 2);
    w.format = NT_WEIGHT_INT4; /* 4 bits and a scale per 128 */
    c = nt_op_cost_gemm(&a);
    assert_true(c.stored_bytes == 96 * 256 / 2 + 96 * 2 * 2);
    w.format = NT_WEIGHT_INT8;
    assert_true(nt_op_cost_gemm(&a).stored_bytes == 96 * 256 + 96 * 2 * 2);
    w.format = NT_WEIGHT_INT4;
    w.k = 200; /* a last group that is not whole is stored whole */
    assert_true(nt_op_cost_gemm(&a).stored_bytes == c.stored_bytes);
    a.n_tok = 0;
    c = nt_op_cost_gemm(&a);
    assert_true(c.flops == 0 && c.launches == 0);
}

static void test_passes(void **state) {
    (void)state;
    const float one[1] = {0};
    struct nt_rmsnorm_args norm = {.n_rows = 3, .d_model = 64};
    struct nt_cost c = nt_op_cost_rmsnorm(&norm);
    assert_true(c.read_bytes == 3 * 64 * 4 + 64 * 4 && c.write_bytes == 3 * 64 * 2 && c.stored_bytes == 64 * 4);
    norm.delta = one; /* read, and x written back */
    c = nt_op_cost_rmsnorm(&norm);
    assert_true(c.read_bytes == 2 * 3 * 64 * 4 + 64 * 4 && c.write_bytes == 3 * 64 * 6);
    float kept[1];
    norm.keep = kept;
    c = nt_op_cost_rmsnorm(&norm);
    assert_true(c.read_bytes == 2 * 3 * 64 * 4 + 64 * 4 && c.write_bytes == 3 * 64 * 10);
    const struct nt_embed_args embed = {.n_tok = 7, .d_model = 32};
    c = nt_op_cost_embed(&embed);
    assert_true(c.stored_bytes == 7 * 32 * 2 && c.read_bytes == 7 * 32 * 2 + 7 * 4 && c.write_bytes == 7 * 32 * 4);
    const struct nt_kv_layer kv = {.n_kv = 2, .d_head = 16, .format = NT_KV_ROWS};
    const struct nt_rope_kv_args rope = {.kv = &kv, .n_tok = 5, .n_head = 4, .cos = one, .sin = one};
    c = nt_op_cost_rope_kv(&rope);
    assert_true(c.stored_bytes == 5 * 2 * 16 * 2 * 2 && c.flops == 3.0 * 5 * 6 * 16);
    assert_true(c.read_bytes == 5 * 8 * 16 * 4 + 5 * 16 * 4 && c.write_bytes == 5 * 4 * 16 * 2 + c.stored_bytes);
    const struct nt_gather_args gather = {.bytes = 100, .n_rows = 3};
    c = nt_op_cost_gather(&gather);
    assert_true(c.read_bytes == 312 && c.write_bytes == 300 && c.flops == 0);
    const struct nt_logit_edit_args none = {.n_row = 2, .n_vocab = 10};
    assert_int_equal(nt_op_cost_logit_edit(&none).launches, 0);
    const struct nt_logit_penalty_args penalty = {.n_row = 2, .n_vocab = 10, .n_seen = 7};
    c = nt_op_cost_logit_penalty(&penalty);
    assert_true(c.read_bytes == 7 * 12 + 2 * 20 && c.write_bytes == 28 && c.launches == 1);
}

/* Rows of which not all find room in the workspace of 64 MiB take more launches: 32 chunks of a vocabulary of 128256
 * leave 128 keys of 4 bytes each, the draw 24 bytes more; a decode step of 256 sequences has 80 splits of 130 floats
 * for 32 heads; a gradient of 512 x 2048 has room for the sums of 16 blocks of tokens. */
static void test_many_rows(void **state) {
    (void)state;
    struct nt_logit_topk_args topk = {.n_row = 4096, .n_vocab = 128256, .k = 20};
    assert_int_equal(nt_op_cost_logit_topk(&topk).launches, 2);
    topk.n_row++;
    assert_int_equal(nt_op_cost_logit_topk(&topk).launches, 4);
    struct nt_logit_sample_args sample = {.n_row = 3912, .n_vocab = 128256};
    assert_int_equal(nt_op_cost_logit_sample(&sample).launches, 2);
    sample.n_row = 3 * 3912;
    assert_int_equal(nt_op_cost_logit_sample(&sample).launches, 6);
    sample.n_row = 0;
    assert_int_equal(nt_op_cost_logit_sample(&sample).launches, 0);
    const struct nt_kv_layer kv = {.n_kv = 8, .d_head = 128, .format = NT_KV_ROWS};
    static const struct nt_attn_seq none[51];
    struct nt_attention_args a = {
        .kv = &kv, .seqs = none, .n_seq = 50, .n_tok = 50, .n_head = 32, .max_q = 1, .max_pos = 40960};
    assert_int_equal(nt_op_cost_attention(&a).launches, 2);
    a.n_seq = a.n_tok = 51;
    assert_int_equal(nt_op_cost_attention(&a).launches, 4);
    a.window = 512; /* touches two splits at most */
    assert_int_equal(nt_op_cost_attention(&a).launches, 2);
    struct nt_gemm_wgrad_args wgrad = {.n_tok = 16 * NT_WGRAD_TOKENS, .m = 512, .n = 2048};
    assert_int_equal(nt_op_cost_gemm_wgrad(&wgrad).launches, 2);
    wgrad.n_tok++;
    assert_int_equal(nt_op_cost_gemm_wgrad(&wgrad).launches, 4);
    wgrad.m = 1024; /* enough tiles */
    assert_int_equal(nt_op_cost_gemm_wgrad(&wgrad).launches, 1);
    wgrad.n_tok = 0;
    assert_int_equal(nt_op_cost_gemm_wgrad(&wgrad).launches, 0);
}

/* Whatever the op, an empty or a small call costs a finite amount, and its parts add up. */
static void check_sane(struct nt_cost c) {
    assert_true(c.flops >= 0 && c.stored_bytes >= 0 && c.stored_bytes <= c.read_bytes + c.write_bytes);
    assert_true(c.launches >= 0 && c.launches <= 3);
}

static void test_ledger(void **state) {
    (void)state;
    struct nt_ledger_backend l;
    nt_ledger_open(&l, NT_WEIGHT_BF16_ROWS, NT_KV_ROWS_INT8, 1000, NULL);
    struct nt_backend *be = &l.be;
    assert_true(nt_backend_is_host(be));
    assert_int_equal(be->memory->available(be), 1000);
    void *huge = NULL; /* more than any machine has: addresses only */
    assert_int_equal(be->memory->take(be, (size_t)1 << 43, "a plan", &huge), NT_OK);
    assert_true(huge && (uintptr_t)huge % 256 == 0);
    assert_int_equal(be->memory->upload(be, huge, NULL, 100), NT_OK);
    assert_int_equal(be->memory->zero(be, huge, (size_t)1 << 43), NT_OK);
    assert_int_equal(be->memory->wait(be), NT_OK);

    const struct nt_packed w = {.format = NT_WEIGHT_BF16_ROWS, .n = 64, .k = 64, .data = huge};
    const struct nt_gemm_args gemm = {.x = huge, .w = &w, .y = huge, .n_tok = 2, .out = NT_GEMM_STORE_F32};
    assert_int_equal(be->ops.gemm(be, &gemm), NT_OK);
    assert_int_equal(be->ops.gemm(be, &gemm), NT_OK);
    const struct nt_kv_layer kv = {.base = huge, .n_kv = 1, .d_head = 16, .format = NT_KV_ROWS_INT8};
    const struct nt_attn_seq seqs[] = {
        {.n_q = 1, .pos0 = 9 },
        {.n_q = 4, .q_row = 1}
    };
    const struct nt_attention_args attention = {
        .q = huge, .kv = &kv, .seqs = seqs, .out = huge, .n_seq = 2, .n_tok = 5, .n_head = 2};
    assert_int_equal(be->ops.attention(be, &attention), NT_OK);
    assert_true(l.sums.op[NT_OP_gemm].flops == 2 * 2.0 * 2 * 64 * 64);
    assert_int_equal(l.sums.op[NT_OP_gemm].launches, 2);
    assert_true(l.sums.decode_attention.flops == 10 * 2 * 4 * 16);
    assert_true(l.sums.op[NT_OP_attention].flops == (10 + 1 + 2 + 3 + 4) * 2 * 4 * 16);
    struct nt_cost sum = nt_ledger_total(&l.sums);
    assert_true(sum.flops == l.sums.op[NT_OP_gemm].flops + l.sums.op[NT_OP_attention].flops);
    assert_int_equal(sum.launches, 2 + 1); /* short sequences of one split */
    for (int i = 0; i < NT_OP_COUNT; i++) check_sane(l.sums.op[i]);
    be->memory->give(be, huge, (size_t)1 << 43);
    nt_ledger_close(&l);
}

static void test_gpus(void **state) {
    (void)state;
    int32_t n = 0;
    const struct nt_gpu *table = nt_gpu_table(&n);
    assert_true(n >= 6);
    for (int32_t i = 0; i < n; i++) {
        const struct nt_gpu *g = &table[i];
        assert_ptr_equal(nt_gpu_find(g->name), g);
        assert_true(g->cc >= 80 && g->cc <= 120);
        assert_true(g->flops > 1e14 && g->flops < 1e16 && g->bandwidth > 5e11 && g->bandwidth < 2e13);
        assert_true(g->memory >= 24e9 && g->memory < 1e12 && g->link >= 16e9 && g->link_delay > 0);
        assert_true(g->compute_factor < 1 && g->memory_factor < 1 && g->link_factor < 1);
    }
    assert_null(nt_gpu_find("h10"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention), cmocka_unit_test(test_gemm),      cmocka_unit_test(test_passes),
        cmocka_unit_test(test_ledger),    cmocka_unit_test(test_many_rows), cmocka_unit_test(test_gpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
