/* test_ops count: every op once on the emulated device at fixed, aligned shapes, as models have them; the emulator's
 * counters of the run (NT_EMU=count=FILE) are what tests/gpuemu/counts.py compares. Results are not looked at here. */
#include "draw_pairs_cuda.h"
#include "ops_bwd.h"
#include "test_ops.h"
#include <stdio.h>
#include <stdlib.h>

/* Operands of one op, freed together. */
struct operands {
    void *memory[24];
    int n;
    uint64_t seed;
};

static void *take(struct operands *o, size_t bytes) {
    NT_CHECK(o->n < (int)(sizeof o->memory / sizeof o->memory[0]));
    return o->memory[o->n++] = op_alloc(bytes);
}

static float *take_f32(struct operands *o, int64_t count, float scale) {
    float *x = take(o, (size_t)count * sizeof *x);
    op_random_f32(&o->seed, x, count, scale);
    return x;
}

static nt_bf16 *take_bf16(struct operands *o, int64_t count, float scale) {
    nt_bf16 *x = take(o, (size_t)count * sizeof *x);
    op_random_bf16(&o->seed, x, count, scale);
    return x;
}

/* first, first + step, ... */
static int32_t *take_ids(struct operands *o, int32_t count, int32_t first, int32_t step) {
    int32_t *x = take(o, (size_t)count * sizeof *x);
    for (int32_t i = 0; i < count; i++) x[i] = first + i * step;
    return x;
}

static uint64_t *take_seeds(struct operands *o, int32_t count) {
    uint64_t *x = take(o, (size_t)count * sizeof *x);
    for (int32_t i = 0; i < count; i++) x[i] = 1000 + (uint64_t)i;
    return x;
}

static int end(struct operands *o, const char *what, nt_status st) {
    for (int i = 0; i < o->n; i++) free(o->memory[i]);
    o->n = 0;
    printf("%-4s %s%s%s\n", st == NT_OK ? "ok" : "FAIL", what, st == NT_OK ? "" : ": ",
           st == NT_OK ? "" : nt_error_last()->text);
    return st != NT_OK;
}

static int count_rows(struct nt_backend *be) {
    struct operands o = {.seed = 1};
    struct nt_embed_args embed = {.scale = 2, .n_tok = 32, .d_model = 1024, .n_rows = 96};
    embed.ids = take_ids(&o, embed.n_tok, 0, 3);
    embed.table = take_bf16(&o, (int64_t)embed.n_rows * embed.d_model, 1);
    embed.x = take_f32(&o, (int64_t)embed.n_tok * embed.d_model, 1);
    int failed = end(&o, "embed", be->ops.embed(be, &embed));
    struct nt_gather_args gather = {.bytes = 4096, .n_rows = 16};
    gather.from = take_f32(&o, 32 * 1024, 1);
    gather.to = take_f32(&o, 16 * 1024, 1);
    gather.rows = take_ids(&o, gather.n_rows, 0, 2);
    failed += end(&o, "gather", be->ops.gather(be, &gather));
    static const int32_t widths[] = {576, 4096, 1022}; /* a kernel each */
    for (int i = 0; i < 3; i++) {
        const int32_t d = widths[i];
        struct nt_rmsnorm_args norm = {.eps = 1e-5f, .n_rows = 16, .d_model = d, .ldy = d};
        norm.x = take_f32(&o, (int64_t)norm.n_rows * d, 1);
        norm.delta = take_f32(&o, (int64_t)norm.n_rows * d, 1);
        norm.w = take_f32(&o, d, 1);
        norm.y = take_bf16(&o, (int64_t)norm.n_rows * d, 1);
        failed += end(&o, "rmsnorm", be->ops.rmsnorm(be, &norm));
    }
    return failed;
}

static struct nt_packed take_weights(struct operands *o, enum nt_weight_format format, int32_t n, int32_t k) {
    struct nt_packed w = {.format = format, .n = n, .k = k};
    void *packed = take(o, nt_packed_bytes(format, n, k));
    nt_bf16 *row = take_bf16(o, k, 0.05f);
    for (int32_t r = 0; r < n; r++) nt_pack_row(&w, packed, r, row);
    w.data = packed;
    return w;
}

/* Of weights, each with kernels of its own. */
static const enum nt_weight_format counted[] = {NT_WEIGHT_BF16, NT_WEIGHT_INT4, NT_WEIGHT_INT8};
enum { N_COUNTED = sizeof counted / sizeof counted[0] };

/* rank > 0: with an adapter, and gated products keep their pre-activations. */
static int count_gemm(struct nt_backend *be, enum nt_weight_format format, int32_t n_tok, int32_t n, int32_t k,
                      int32_t rank, enum nt_gemm_out out) {
    struct operands o = {.seed = 2};
    const struct nt_packed w = take_weights(&o, format, n, k);
    struct nt_packed w2;
    const bool f32 = out == NT_GEMM_STORE_F32 || out == NT_GEMM_ADD_F32;
    char what[64];
    struct nt_gemm_args a = {.ldx = k, .w = &w, .ldy = n, .n_tok = n_tok, .out = out};
    if (rank > 0) {
        w2 = take_weights(&o, NT_WEIGHT_BF16, n, rank);
        a.x2 = take_bf16(&o, (int64_t)n_tok * rank, 1);
        a.ldx2 = rank;
        a.w2 = &w2;
        a.ldpre = n;
        if (out == NT_GEMM_SWIGLU_BF16) a.pre = take_bf16(&o, (int64_t)n_tok * n, 1);
    }
    a.x = take_bf16(&o, (int64_t)n_tok * k, 1);
    a.y = f32 ? (void *)take_f32(&o, (int64_t)n_tok * n, 1) : (void *)take_bf16(&o, (int64_t)n_tok * n, 1);
    snprintf(what, sizeof what, "gemm format %d n_tok %d n %d k %d rank %d", (int)format, n_tok, n, k, rank);
    return end(&o, what, be->ops.gemm(be, &a));
}

static int count_dgrad(struct nt_backend *be, enum nt_weight_format format, int32_t n_tok, int32_t n, int32_t k) {
    enum { RANK = 16 };
    struct operands o = {.seed = 10};
    const struct nt_packed w = take_weights(&o, format, n, k), w2 = take_weights(&o, NT_WEIGHT_BF16, RANK, k);
    struct nt_gemm_dgrad_args a = {.lddy = n, .w = &w, .lddy2 = RANK, .w2 = &w2, .lddx = k, .n_tok = n_tok};
    char what[64];
    a.dy = take_bf16(&o, (int64_t)n_tok * n, 1);
    a.dy2 = take_bf16(&o, (int64_t)n_tok * RANK, 1);
    a.dx = take_f32(&o, (int64_t)n_tok * k, 1);
    a.out = NT_GEMM_STORE_F32;
    snprintf(what, sizeof what, "gemm_dgrad format %d n_tok %d n %d k %d", (int)format, n_tok, n, k);
    return end(&o, what, be->ops.gemm_dgrad(be, &a));
}

static int count_wgrad(struct nt_backend *be, int32_t n_tok, int32_t m, int32_t n, int32_t b_run) {
    struct operands o = {.seed = 11};
    const int32_t ldb = b_run > 0 ? 2 * n : n;
    struct nt_gemm_wgrad_args a = {
        .lda = m, .ldb = ldb, .lddw = n, .alpha = 1, .n_tok = n_tok, .m = m, .n = n, .b_run = b_run};
    char what[64];
    a.a = take_bf16(&o, (int64_t)n_tok * m, 1);
    a.b = take_bf16(&o, (int64_t)n_tok * ldb, 1);
    a.dw = take_f32(&o, (int64_t)m * n, 1);
    snprintf(what, sizeof what, "gemm_wgrad n_tok %d m %d n %d run %d", n_tok, m, n, b_run);
    return end(&o, what, be->ops.gemm_wgrad(be, &a));
}

/* A kernel each, on the emulated devices. */
static int count_gradients(struct nt_backend *be) {
    static const int32_t dgrad[][2] = {
        {16,   576 },
        {32,   4096},
        {576,  576 },
        {2048, 576 }
    };
    static const int32_t only_bf16[][2] = {
  /* tiles of compute capability 9.0 */
        {1088, 576 },
        {512,  4352}
    };
    static const int32_t wgrad[][2] = {
        {16,   576},
        {128,  576},
        {256,  576},
        {576,  576},
        {2048, 576}
    };
    enum { TOKENS = NT_WGRAD_TOKENS + 128 }; /* two blocks, and their join */
    int failed = 0;
    for (size_t i = 0; i < sizeof dgrad / sizeof dgrad[0]; i++) {
        for (int f = 0; f < N_COUNTED; f++) failed += count_dgrad(be, counted[f], dgrad[i][0], 128, dgrad[i][1]);
    }
    for (size_t i = 0; i < sizeof only_bf16 / sizeof only_bf16[0]; i++)
        failed += count_dgrad(be, NT_WEIGHT_BF16, only_bf16[i][0], 128, only_bf16[i][1]);
    for (size_t i = 0; i < sizeof wgrad / sizeof wgrad[0]; i++)
        failed += count_wgrad(be, 128, wgrad[i][0], wgrad[i][1], 0);
    failed += count_wgrad(be, 128, 512, 4352, 0) + count_wgrad(be, 128, 512, 576, 16);
    return failed + count_wgrad(be, TOKENS, 16, 192, 0);
}

struct product {
    int32_t n_tok, n, k;
    enum nt_gemm_out out;
};

static int count_products(struct nt_backend *be) {
    static const struct product adapted[] = {
        {1,   1536,  576, NT_GEMM_ADD_F32    },
        {32,  3072,  256, NT_GEMM_SWIGLU_BF16},
        {64,  6144,  128, NT_GEMM_STORE_BF16 },
        {256, 6144,  64,  NT_GEMM_STORE_F32  },
        {128, 20480, 32,  NT_GEMM_STORE_BF16 },
    };
    static const struct product shapes[] = {
        {1,   1536,  576, NT_GEMM_ADD_F32    },
        {32,  3072,  256, NT_GEMM_SWIGLU_BF16},
        {64,  6144,  128, NT_GEMM_STORE_BF16 },
        {256, 3072,  128, NT_GEMM_STORE_F32  },
        {512, 3072,  64,  NT_GEMM_SWIGLU_BF16},
        {128, 27648, 32,  NT_GEMM_STORE_BF16 },
        {60,  27648, 32,  NT_GEMM_STORE_BF16 },
        {30,  27648, 32,  NT_GEMM_STORE_BF16 },
        {30,  9216,  32,  NT_GEMM_STORE_BF16 },
        {1,   27648, 32,  NT_GEMM_STORE_BF16 },
        {12,  27648, 32,  NT_GEMM_STORE_BF16 },
        {12,  1536,  576, NT_GEMM_ADD_F32    },
        {250, 6144,  32,  NT_GEMM_ADD_F32    },
        {50,  3072,  64,  NT_GEMM_ADD_F32    },
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (int f = 0; f < N_COUNTED; f++)
            failed += count_gemm(be, counted[f], shapes[i].n_tok, shapes[i].n, shapes[i].k, 0, shapes[i].out);
    }
    for (size_t i = 0; i < sizeof adapted / sizeof adapted[0]; i++)
        for (int f = 0; f < N_COUNTED; f++)
            failed += count_gemm(be, counted[f], adapted[i].n_tok, adapted[i].n, adapted[i].k, 16, adapted[i].out);
    struct operands o = {.seed = 3};
    const struct nt_packed w = take_weights(&o, NT_WEIGHT_BF16, 1024, 256);
    struct nt_head_argmax_args head = {.ldx = w.k, .w = &w, .n_row = 72, .n_vocab = w.n};
    head.x = take_bf16(&o, (int64_t)head.n_row * w.k, 1);
    float *inv_temp = take_f32(&o, head.n_row, 0);
    for (int32_t r = 0; r < head.n_row; r += 2) inv_temp[r] = 1;
    head.inv_temp = inv_temp;
    head.seed = head.stream = take_seeds(&o, head.n_row);
    head.value = take_f32(&o, head.n_row, 1);
    head.index = take_ids(&o, head.n_row, 0, 0);
    nt_status st = be->ops.head_argmax(be, &head);
    for (int32_t rows = 64; rows > 0 && st == NT_OK; rows -= 56) { /* 64, 8: other tiles */
        head.n_row = rows;
        st = be->ops.head_argmax(be, &head);
    }
    return failed + end(&o, "head_argmax", st);
}

/* An empty cache of n_seq sequences that are filled up to pos0 + n_q. */
static struct nt_attn_seq *take_cache(struct operands *o, struct nt_kv_layer *kv, int32_t n_seq, int32_t n_q,
                                      int32_t pos0) {
    const int32_t n_page = (pos0 + n_q + NT_KV_PAGE - 1) / NT_KV_PAGE;
    struct nt_attn_seq *seqs = take(o, (size_t)n_seq * sizeof *seqs);
    int32_t *pages = take_ids(o, n_seq * n_page, 0, 1);
    kv->page_stride = kv->n_kv * nt_kv_head_elems(kv->format, kv->d_head);
    kv->base = take(o, (size_t)(n_seq * n_page * kv->page_stride) * sizeof(nt_bf16));
    for (int32_t s = 0; s < n_seq; s++) seqs[s] = (struct nt_attn_seq){s * n_q, n_q, pos0, pages + s * n_page};
    return seqs;
}

static int count_attention(struct nt_backend *be, enum nt_kv_format format, int32_t d, int32_t n_seq, int32_t n_q,
                           int32_t pos0) {
    enum { N_HEAD = 8, N_KV = 2 };
    struct operands o = {.seed = 4};
    struct nt_kv_layer kv = {.n_kv = N_KV, .d_head = d, .format = format};
    struct nt_attention_args a = {.kv = &kv, .ldo = N_HEAD * d, .scale = 0.1f, .n_seq = n_seq, .n_tok = n_seq * n_q};
    char what[64];
    a.n_head = N_HEAD;
    a.max_q = n_q;
    a.max_pos = pos0 + n_q;
    a.seqs = take_cache(&o, &kv, n_seq, n_q, pos0);
    int32_t *kv_of_head = take_ids(&o, N_HEAD, 0, 1);
    for (int32_t h = 0; h < N_HEAD; h++) kv_of_head[h] = h * N_KV / N_HEAD;
    a.kv_of_head = kv_of_head;
    a.q = take_bf16(&o, (int64_t)a.n_tok * N_HEAD * d, 1);
    a.out = take_bf16(&o, (int64_t)a.n_tok * N_HEAD * d, 1);
    snprintf(what, sizeof what, "attention format %d d %d n_q %d pos0 %d", (int)format, d, n_q, pos0);
    return end(&o, what, be->ops.attention(be, &a));
}

static int count_rope(struct nt_backend *be, enum nt_kv_format format, int32_t d) {
    enum { N_HEAD = 8, N_KV = 2, POS0 = 60, N_Q = 16 };
    struct operands o = {.seed = 5};
    struct nt_kv_layer kv = {.n_kv = N_KV, .d_head = d, .format = format};
    struct nt_rope_kv_args a = {.kv = &kv, .eps = 1e-6f, .n_seq = 2, .n_tok = 2 * N_Q, .n_head = N_HEAD, .max_q = N_Q};
    a.seqs = take_cache(&o, &kv, a.n_seq, N_Q, POS0);
    a.qkv = take_f32(&o, (int64_t)a.n_tok * (N_HEAD + 2 * N_KV) * d, 1);
    a.q = take_bf16(&o, (int64_t)a.n_tok * N_HEAD * d, 1);
    a.cos = take_f32(&o, (POS0 + N_Q) * d / 2, 1);
    a.sin = take_f32(&o, (POS0 + N_Q) * d / 2, 1);
    a.q_norm = take_f32(&o, d, 1);
    a.k_norm = take_f32(&o, d, 1);
    return end(&o, "rope_kv", be->ops.rope_kv(be, &a));
}

/* One whole sequence of two pages. */
static int count_attention_bwd(struct nt_backend *be, int32_t d) {
    enum { N_HEAD = 4, N_KV = 2, N_Q = 96 };
    struct operands o = {.seed = 8};
    struct nt_kv_layer kv = {.n_kv = N_KV, .d_head = d, .format = NT_KV_ROWS};
    struct nt_attention_bwd_args a = {.kv = &kv, .ldo = N_HEAD * d, .lddo = N_HEAD * d, .scale = 0.1f, .n_seq = 1};
    char what[64];
    a.n_tok = a.max_q = N_Q;
    a.n_head = N_HEAD;
    a.seqs = take_cache(&o, &kv, 1, N_Q, 0);
    int32_t *kv_of_head = take_ids(&o, N_HEAD, 0, 1);
    for (int32_t h = 0; h < N_HEAD; h++) kv_of_head[h] = h * N_KV / N_HEAD;
    a.kv_of_head = kv_of_head;
    a.q = take_bf16(&o, (int64_t)N_Q * N_HEAD * d, 1);
    a.out = take_bf16(&o, (int64_t)N_Q * N_HEAD * d, 1);
    a.lse = take_f32(&o, N_Q * N_HEAD, 1);
    a.dout = take_f32(&o, (int64_t)N_Q * N_HEAD * d, 1);
    a.dqkv = take_f32(&o, (int64_t)N_Q * (N_HEAD + 2 * N_KV) * d, 1);
    snprintf(what, sizeof what, "attention_bwd d %d", d);
    return end(&o, what, be->ops.attention_bwd(be, &a));
}

static int count_rope_bwd(struct nt_backend *be, int32_t d) {
    enum { N_HEAD = 4, N_KV = 2, N_Q = 80 };
    const int64_t count = (int64_t)N_Q * (N_HEAD + 2 * N_KV) * d;
    struct operands o = {.seed = 9};
    struct nt_rope_bwd_args a = {.eps = 1e-6f, .n_seq = 1, .n_tok = N_Q, .n_head = N_HEAD, .n_kv = N_KV, .d_head = d};
    struct nt_attn_seq *seq = take(&o, sizeof *seq);
    seq->n_q = a.max_q = N_Q;
    a.seqs = seq;
    a.dqkv = take_f32(&o, count, 1);
    a.qkv = take_f32(&o, count, 1);
    a.dqkv16 = take_bf16(&o, count, 1);
    a.cos = take_f32(&o, N_Q * d / 2, 1);
    a.sin = take_f32(&o, N_Q * d / 2, 1);
    a.q_norm = take_f32(&o, d, 1);
    a.k_norm = take_f32(&o, d, 1);
    a.dq_norm = take_f32(&o, d, 1);
    a.dk_norm = take_f32(&o, d, 1);
    return end(&o, "rope_bwd", be->ops.rope_bwd(be, &a));
}

static int count_rmsnorm_bwd(struct nt_backend *be, int32_t d) {
    enum { TOK = 40 };
    struct operands o = {.seed = 10};
    struct nt_rmsnorm_bwd_args a = {.eps = 1e-5f, .n_tok = TOK, .d_model = d};
    a.x = take_f32(&o, TOK * d, 1);
    a.w = take_f32(&o, d, 1);
    a.dy = take_f32(&o, TOK * d, 1);
    a.dx = take_f32(&o, TOK * d, 1);
    a.dx16 = take_bf16(&o, TOK * d, 1);
    a.dw = take_f32(&o, d, 1);
    return end(&o, "rmsnorm_bwd", be->ops.rmsnorm_bwd(be, &a));
}

static int count_pointwise_bwd(struct nt_backend *be) {
    enum { TOK = 16, N = 1536, ROWS = 4, VOCAB = 16384, D = 576 };
    struct operands o = {.seed = 11};
    struct nt_glu_bwd_args glu = {.ldpre = 2 * N, .lddy = N, .ldy = N, .n_tok = TOK, .n = N};
    glu.pre = glu.dpre = take_bf16(&o, TOK * 2 * N, 1);
    glu.dy = take_f32(&o, TOK * N, 1);
    glu.y = take_bf16(&o, TOK * N, 1);
    struct nt_logit_bwd_args logit = {.ld = VOCAB, .lddl = VOCAB, .n_row = ROWS, .n_vocab = VOCAB};
    logit.logits = take_f32(&o, ROWS * VOCAB, 1);
    logit.dlogits = take_bf16(&o, ROWS * VOCAB, 1);
    logit.target = take_ids(&o, ROWS, 5, 100);
    logit.max = logit.sum_exp = logit.coef = take_f32(&o, ROWS, 1);
    struct nt_dropout_args drop = {.ldx = D, .ldy = D, .seed = 1, .p = 0.1f, .n_row = TOK, .n_col = D};
    drop.x = drop.y = take_bf16(&o, TOK * D, 1);
    drop.stream = take_seeds(&o, TOK);
    nt_status st = be->ops.glu_bwd(be, &glu);
    if (st == NT_OK) st = be->ops.logit_bwd(be, &logit);
    if (st == NT_OK) st = be->ops.dropout(be, &drop);
    drop.add = true;
    drop.x = take_f32(&o, TOK * D, 1);
    drop.y = take_f32(&o, TOK * D, 1);
    if (st == NT_OK) st = be->ops.dropout(be, &drop);
    return end(&o, "glu_bwd, logit_bwd, dropout", st);
}

static int count_rows_bwd(struct nt_backend *be) {
    enum { TOK = 64, D = 1024, TABLE = 40, PART = 16 };
    struct operands o = {.seed = 12};
    struct nt_embed_bwd_args embed = {.scale = 1, .n_tok = TOK, .d_model = D, .n_rows = TABLE};
    int32_t *ids = take_ids(&o, TOK, 0, 1);
    for (int32_t t = 0; t < TOK; t++) ids[t] %= TABLE; /* some twice */
    embed.ids = ids;
    embed.dx = take_f32(&o, TOK * D, 1);
    embed.dtable = take_f32(&o, TABLE * D, 1);
    struct nt_scatter_args scatter = {.bytes = D * sizeof(float), .n_rows = PART, .n_to = TOK};
    scatter.from = take_f32(&o, PART * D, 1);
    scatter.to = take_f32(&o, TOK * D, 1);
    scatter.rows = take_ids(&o, PART, 1, 4);
    nt_status st = be->ops.embed_bwd(be, &embed);
    if (st == NT_OK) st = be->ops.scatter(be, &scatter);
    return end(&o, "embed_bwd, scatter", st);
}

static int count_optim(struct nt_backend *be) {
    enum { N = 20 * NT_SUM_BLOCK };
    struct operands o = {.seed = 13};
    double sum;
    struct nt_adamw_args step = {.grad_scale = 1, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .n = N};
    step.bias1 = step.bias2 = 1;
    step.p = take_f32(&o, N, 1);
    step.m = take_f32(&o, N, 1);
    step.v = take_f32(&o, N, 0);
    step.grad = take_f32(&o, N, 1);
    const struct nt_sum_squares_args squares = {step.grad, &sum, N};
    nt_status st = be->ops.adamw(be, &step);
    if (st == NT_OK) st = be->ops.sum_squares(be, &squares);
    enum { PARTS = 4 };
    const struct nt_sum_parts_args parts = {step.grad, step.p, N / PARTS, PARTS};
    if (st == NT_OK) st = be->ops.sum_parts(be, &parts);
    return end(&o, "adamw, sum_squares, sum_parts", st);
}

static int count_pack(struct nt_backend *be) {
    enum { N = 192, K = 256 };
    struct operands o = {.seed = 14};
    const struct nt_packed w = take_weights(&o, NT_WEIGHT_BF16, N, K);
    struct nt_pack_args pack = {.x = take_f32(&o, N * K, 1), .w = &w, .scale = 1, .n = N, .k = K, .turned = true};
    nt_status st = be->ops.pack(be, &pack);
    pack.turned = false;
    pack.table = take_bf16(&o, N * K, 1);
    if (st == NT_OK) st = be->ops.pack(be, &pack);
    const struct nt_pack_args bias = {.x = pack.x, .vector = take_f32(&o, N, 1), .scale = 1, .n = N, .k = 1};
    if (st == NT_OK) st = be->ops.pack(be, &bias);
    return end(&o, "pack", st);
}

static int count_training(struct nt_backend *be) {
    return count_rmsnorm_bwd(be, 576) + count_rmsnorm_bwd(be, 4096) + count_pointwise_bwd(be) + count_rows_bwd(be) +
           count_optim(be) + count_pack(be);
}

static int count_cache(struct nt_backend *be) {
    static const enum nt_kv_format formats[] = {NT_KV_ROWS, NT_KV_ROWS_INT8};
    static const int32_t widths[] = {64, 96, 128, 256};
    int failed = 0;
    for (int f = 0; f < 2; f++) {
        failed += count_rope(be, formats[f], 64) + count_rope(be, formats[f], 128);
        for (int w = 0; w < 4; w++) {
            failed += count_attention(be, formats[f], widths[w], 1, 24, 40);
            failed += count_attention(be, formats[f], widths[w], 2, 1, 600);
        }
    }
    for (int w = 0; w < 4; w++)
        failed += count_attention(be, NT_KV_ROWS, widths[w], 1, 24, 424); /* a loop over pages */
    for (int w = 0; w < 4; w++) failed += count_attention_bwd(be, widths[w]) + count_rope_bwd(be, widths[w]);
    return failed;
}

static int count_logits(struct nt_backend *be) {
    enum { ROWS = 4, VOCAB = 16384, K = 64, EDITS = 40 };
    struct operands o = {.seed = 6};
    float *logits = take_f32(&o, (int64_t)ROWS * VOCAB, 3), *value = take_f32(&o, ROWS * K, 1);
    int32_t *index = take_ids(&o, ROWS * K, 0, 1);
    const uint64_t *seeds = take_seeds(&o, ROWS);
    float *inv_temp = take_f32(&o, ROWS, 0), *top_p = take_f32(&o, ROWS, 0), *min_p = take_f32(&o, ROWS, 0);
    int32_t *top_k = take_ids(&o, ROWS, 0, 0);
    for (int r = 0; r < ROWS; r++) { /* greedy, a plain draw, truncated ones */
        inv_temp[r] = r > 0 ? 1 : 0;
        top_p[r] = r > 1 ? 0.9f : 1;
        top_k[r] = r > 2 ? 50 : 0;
    }
    struct nt_logit_edit *edits = take(&o, EDITS * sizeof *edits);
    for (int i = 0; i < EDITS; i++) edits[i] = (struct nt_logit_edit){i % ROWS, 17 * i, 0.5f, 1.5f, 0};
    float *twos = take_f32(&o, ROWS, 0);
    for (int r = 0; r < ROWS; r++) twos[r] = 2;
    const struct nt_logit_stats_args stats = {logits, VOCAB, value, value + ROWS, index, ROWS, VOCAB};
    const struct nt_logit_topk_args topk = {logits, VOCAB, value, index, ROWS, VOCAB, K};
    const struct nt_logit_gumbel_args gumbel = {logits, VOCAB, twos, seeds, seeds, value, index, ROWS, VOCAB, 0};
    const struct nt_logit_sample_args sample = {logits, VOCAB, inv_temp, top_p, min_p, top_k,
                                                seeds,  seeds, index,    ROWS,  VOCAB};
    const struct nt_logit_edit_args edit = {logits, VOCAB, edits, twos, ROWS, VOCAB, EDITS};
    struct nt_seen *seen = take(&o, EDITS * sizeof *seen);
    int32_t *begin = take_ids(&o, ROWS + 1, 0, 1);
    for (int i = 0; i < EDITS; i++) seen[i] = (struct nt_seen){17 * i, i % 2};
    for (int r = 0; r <= ROWS; r++) begin[r] = r * EDITS / ROWS;
    const int32_t *rows = take_ids(&o, ROWS, 0, 1);
    const struct nt_logit_penalty_args penalty = {logits, VOCAB, seen, begin, rows, rows, twos,
                                                  twos,   twos,  ROWS, VOCAB, 0,    EDITS};
    const struct nt_logit_pick_args pick = {logits, VOCAB, index, value, ROWS, VOCAB, 0};
    nt_status st = be->ops.logit_stats(be, &stats);
    if (st == NT_OK) st = be->ops.logit_topk(be, &topk);
    if (st == NT_OK) st = be->ops.logit_gumbel(be, &gumbel);
    if (st == NT_OK) st = be->ops.logit_sample(be, &sample);
    if (st == NT_OK) st = be->ops.logit_edit(be, &edit);
    if (st == NT_OK) st = be->ops.logit_penalty(be, &penalty);
    if (st == NT_OK) st = be->ops.logit_pick(be, &pick);
    return end(&o, "logit ops", st);
}

/* No op, so on the device itself: what eight ranks gathered. */
static int count_pairs(struct nt_backend *be) {
    enum { ROWS = 64, SIZE = 8 };
    struct operands o = {0};
    struct nt_backend *cuda = be->watch_arg; /* cuda_staged.h */
    const size_t bytes = SIZE * 2 * ROWS * sizeof(float);
    void *pairs = NULL, *token = NULL;
    nt_status st = cuda->memory->take(cuda, bytes, "pairs", &pairs);
    if (st == NT_OK) st = cuda->memory->take(cuda, ROWS * sizeof(int32_t), "tokens", &token);
    const struct nt_best_pairs_args a = {
        .group = {.size = SIZE}, .gathered = pairs, .stride = 2 * ROWS, .token = token, .n_row = ROWS};
    if (st == NT_OK) st = cuda->peer_ops->best(cuda, &a);
    if (st == NT_OK) st = cuda->memory->wait(cuda);
    cuda->memory->give(cuda, pairs, bytes);
    cuda->memory->give(cuda, token, ROWS * sizeof(int32_t));
    return end(&o, "best pairs", st);
}

/* Truncated rows from the lists of eight ranks. */
static int count_draws(struct nt_backend *be) {
    enum { ROWS = 16, SIZE = 8, K = 64, STRIDE = ROWS * (2 * K + 4) };
    struct device {
        float parts[SIZE * STRIDE], top_p[ROWS], min_p[ROWS];
        uint64_t seed[ROWS];
        int32_t kind[ROWS], top_k[ROWS], token[ROWS];
    } *d = NULL, *host = calloc(1, sizeof *host);
    struct operands o = {.seed = 9};
    struct nt_backend *cuda = be->watch_arg;
    void *memory = NULL;
    if (!host) return end(&o, "draws from pairs", NT_FAIL(NT_E_NOMEM, "no memory for lists of pairs"));
    for (int p = 0; p < SIZE; p++)
        for (int i = 0; i < ROWS * K; i++) {
            host->parts[p * STRIDE + i] = (float)(-i % K) - 0.1f * (float)p;
            ((int32_t *)(void *)host->parts)[p * STRIDE + ROWS * K + i] = i % K;
        }
    for (int p = 0; p < SIZE; p++)
        for (int r = 0; r < ROWS; r++) host->parts[p * STRIDE + ROWS * (2 * K + 3) + r] = 2;
    for (int r = 0; r < ROWS; r++) {
        host->kind[r] = NT_DRAW_TRUNCATED;
        host->top_p[r] = 0.9f;
        host->top_k[r] = 40;
    }
    nt_status st = cuda->memory->take(cuda, sizeof *d, "lists of pairs", &memory);
    if (st == NT_OK) st = cuda->memory->upload(cuda, memory, host, sizeof *host);
    d = memory;
    struct nt_draw_pairs_args a = {.stride = STRIDE, .size = SIZE, .n_row = ROWS, .k = K};
    for (int p = 0; p < SIZE; p++) {
        a.have[p] = K;
        a.first[p] = 1000 * p;
    }
    if (d) {
        a.gathered = d->parts;
        a.kind = d->kind;
        a.top_p = d->top_p;
        a.min_p = d->min_p;
        a.top_k = d->top_k;
        a.seed = a.stream = d->seed;
        a.token = d->token;
    }
    if (st == NT_OK) st = cuda->peer_ops->draw(cuda, &a);
    if (st == NT_OK) st = cuda->memory->wait(cuda);
    cuda->memory->give(cuda, memory, sizeof *d);
    free(host);
    return end(&o, "draws from pairs", st);
}

/* The sums over peer memory, of one rank: what it reads of each, its flags and its result. */
static int count_sums(struct nt_backend *be) {
    enum { ROWS = 16, D = 4096 };
    struct device {
        float from[ROWS * D], x[ROWS * D], w[D];
        nt_bf16 y[ROWS * D];
        uint32_t flags[NT_P2P_FLAGS], epoch[NT_P2P_BLOCKS];
    } *d = NULL;
    struct operands o = {0};
    struct nt_backend *cuda = be->watch_arg;
    void *memory = NULL;
    nt_status st = cuda->memory->take(cuda, sizeof *d, "sums", &memory);
    if (st != NT_OK) return end(&o, "sums over peer memory", st);
    d = memory;
    struct nt_allreduce_p2p_args sum = {.group = {.size = 1}};
    sum.group.from[0] = d->from;
    sum.group.flags[0] = d->flags;
    sum.group.epoch = d->epoch;
    sum.out = d->x;
    sum.count = ROWS * D;
    const struct nt_allreduce_norm_p2p_args norm = {
        .group = sum.group,
        .norm = {.x = d->x, .w = d->w, .y = d->y, .eps = 1e-5f, .n_rows = ROWS, .d_model = D, .ldy = D}
    };
    st = cuda->peer_ops->sum(cuda, &sum);
    if (st == NT_OK) st = cuda->peer_ops->norm(cuda, &norm);
    if (st == NT_OK) st = cuda->memory->wait(cuda);
    cuda->memory->give(cuda, memory, sizeof *d);
    return end(&o, "sums over peer memory", st);
}

int op_count_all(struct nt_backend *be) {
    return count_rows(be) + count_products(be) + count_gradients(be) + count_cache(be) + count_training(be) +
           count_logits(be) + count_pairs(be) + count_draws(be) + count_sums(be);
}
