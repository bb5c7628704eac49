/* The self-tests of the backward ops: see ops_selftest.h. */
#include "ops_selftest.h"
#include "ops_bwd.h"
#include <math.h>

nt_status nt_selftest_rmsnorm_bwd(struct nt_selftest *t) {
    enum { TOK = 37 };
    const int32_t d = t->width > 0 ? t->width : 112;
    nt_bf16 *dx16 = NT_TAKE(&t->arena, nt_bf16, TOK * d);
    const struct nt_rmsnorm_bwd_args a = {.x = nt_selftest_floats(t, TOK * d, 4),
                                          .w = nt_selftest_floats(t, d, 1),
                                          .dy = nt_selftest_floats(t, TOK * d, 1),
                                          .dx = nt_selftest_floats(t, TOK * d, 1),
                                          .dx16 = dx16,
                                          .dw = nt_selftest_floats(t, d, 1),
                                          .eps = 1e-5f,
                                          .n_tok = TOK,
                                          .d_model = d};
    NT_TRY(t->ops.rmsnorm_bwd(t->be, &a));
    nt_selftest_keep_f32(t, a.dx, TOK * d);
    nt_selftest_keep_bf16(t, dx16, TOK * d);
    nt_selftest_keep_f32(t, a.dw, d);
    return NT_OK;
}

nt_status nt_selftest_glu_bwd(struct nt_selftest *t) {
    enum { TOK = 11, N = 5 * NT_PANEL / 2 };
    for (int gelu = 0; gelu < 2; gelu++) {
        nt_bf16 *dpre = NT_TAKE(&t->arena, nt_bf16, TOK * 2 * N), *y = NT_TAKE(&t->arena, nt_bf16, TOK * N);
        const struct nt_glu_bwd_args a = {.pre = nt_selftest_halves(t, TOK * 2 * N, 6),
                                          .dy = nt_selftest_floats(t, TOK * N, 1),
                                          .dpre = dpre,
                                          .y = y,
                                          .ldpre = 2 * N,
                                          .lddy = N,
                                          .ldy = N,
                                          .n_tok = TOK,
                                          .n = N,
                                          .gelu = gelu == 1};
        NT_TRY(t->ops.glu_bwd(t->be, &a));
        nt_selftest_keep_bf16(t, dpre, TOK * 2 * N);
        nt_selftest_keep_bf16(t, y, TOK * N);
    }
    return NT_OK;
}

/* Two sequences, one of more than a page, over scattered pages. */
enum { HEADS = 4, KV_HEADS = 2, FIRST = 100, SECOND = 9, TOKENS = FIRST + SECOND, PAGES = 4 };

struct paged {
    struct nt_kv_layer kv;
    struct nt_attn_seq seqs[2];
    int32_t pages[PAGES], kv_of_head[HEADS];
};

static int32_t d_head_of(const struct nt_selftest *t) {
    return t->width > 0 ? t->width : 32;
}

static struct paged *make_paged(struct nt_selftest *t) {
    struct paged *p = NT_TAKE(&t->arena, struct paged, 1);
    const int64_t stride = KV_HEADS * nt_kv_head_elems(NT_KV_PAIRED, d_head_of(t));
    *p = (struct paged){
        .pages = {2, 0, 3, 1},
          .kv_of_head = {0, 0, 1, 1}
    };
    p->kv = (struct nt_kv_layer){.base = nt_selftest_halves(t, PAGES * stride, 1),
                                 .page_stride = stride,
                                 .n_kv = KV_HEADS,
                                 .d_head = d_head_of(t)};
    p->seqs[0] = (struct nt_attn_seq){.q_row = 0, .n_q = FIRST, .pages = p->pages};
    p->seqs[1] = (struct nt_attn_seq){.q_row = FIRST, .n_q = SECOND, .pages = p->pages + 3};
    return p;
}

nt_status nt_selftest_attention_bwd(struct nt_selftest *t) {
    static const int32_t windows[] = {0, 70};
    const int32_t d = d_head_of(t), width = (HEADS + 2 * KV_HEADS) * d;
    struct paged *p = make_paged(t);
    for (int i = 0; i < 2; i++) {
        nt_bf16 *out = NT_TAKE(&t->arena, nt_bf16, TOKENS * HEADS * d);
        float *lse = NT_TAKE(&t->arena, float, TOKENS *HEADS);
        const struct nt_attention_args forward = {.q = nt_selftest_halves(t, TOKENS * HEADS * nt_d_pad(d), 1),
                                                  .kv = &p->kv,
                                                  .seqs = p->seqs,
                                                  .kv_of_head = p->kv_of_head,
                                                  .out = out,
                                                  .lse = lse,
                                                  .ldo = HEADS * d,
                                                  .scale = 2.8f / sqrtf((float)d),
                                                  .window = windows[i],
                                                  .n_seq = 2,
                                                  .n_tok = TOKENS,
                                                  .n_head = HEADS,
                                                  .max_q = FIRST,
                                                  .max_pos = FIRST};
        NT_TRY(t->ops.attention(t->be, &forward));
        const struct nt_attention_bwd_args a = {.q = forward.q,
                                                .kv = &p->kv,
                                                .seqs = p->seqs,
                                                .kv_of_head = p->kv_of_head,
                                                .out = out,
                                                .lse = lse,
                                                .dout = nt_selftest_floats(t, TOKENS * HEADS * d, 1),
                                                .dqkv = nt_selftest_floats(t, TOKENS * width, 1),
                                                .ldo = forward.ldo,
                                                .lddo = HEADS * d,
                                                .scale = forward.scale,
                                                .window = windows[i],
                                                .n_seq = 2,
                                                .n_tok = TOKENS,
                                                .n_head = HEADS,
                                                .max_q = FIRST};
        NT_TRY(t->ops.attention_bwd(t->be, &a));
        nt_selftest_keep_f32(t, a.dqkv, TOKENS * width);
    }
    return NT_OK;
}

nt_status nt_selftest_rope_bwd(struct nt_selftest *t) {
    const int32_t d = d_head_of(t), width = (HEADS + 2 * KV_HEADS) * d;
    struct paged *p = make_paged(t);
    nt_bf16 *dqkv16 = NT_TAKE(&t->arena, nt_bf16, TOKENS * width);
    const struct nt_rope_bwd_args a = {.dqkv = nt_selftest_floats(t, TOKENS * width, 1),
                                       .qkv = nt_selftest_floats(t, TOKENS * width, 2),
                                       .dqkv16 = dqkv16,
                                       .seqs = p->seqs,
                                       .cos = nt_selftest_floats(t, FIRST * d / 2, 1),
                                       .sin = nt_selftest_floats(t, FIRST * d / 2, 1),
                                       .q_norm = nt_selftest_floats(t, d, 1),
                                       .k_norm = nt_selftest_floats(t, d, 1),
                                       .dq_norm = nt_selftest_floats(t, d, 1),
                                       .dk_norm = nt_selftest_floats(t, d, 1),
                                       .eps = 1e-6f,
                                       .n_seq = 2,
                                       .n_tok = TOKENS,
                                       .n_head = HEADS,
                                       .n_kv = KV_HEADS,
                                       .d_head = d,
                                       .max_q = FIRST};
    NT_TRY(t->ops.rope_bwd(t->be, &a));
    nt_selftest_keep_bf16(t, dqkv16, TOKENS * width);
    nt_selftest_keep_f32(t, a.dq_norm, d);
    nt_selftest_keep_f32(t, a.dk_norm, d);
    return NT_OK;
}

nt_status nt_selftest_logit_bwd(struct nt_selftest *t) {
    enum { ROWS = 3, VOCAB = 1003 };
    static const int32_t target[ROWS] = {0, VOCAB - 1, VOCAB}; /* the last: of another shard */
    static const float max[ROWS] = {9, 9, 9}, sum_exp[ROWS] = {70, 60, 90}, coef[ROWS] = {-1, 0.25f, -0.01f};
    nt_bf16 *d = NT_TAKE(&t->arena, nt_bf16, ROWS * VOCAB);
    const struct nt_logit_bwd_args a = {.logits = nt_selftest_floats(t, ROWS * VOCAB, 9),
                                        .ld = VOCAB,
                                        .target = target,
                                        .max = max,
                                        .sum_exp = sum_exp,
                                        .coef = coef,
                                        .dlogits = d,
                                        .lddl = VOCAB,
                                        .n_row = ROWS,
                                        .n_vocab = VOCAB};
    NT_TRY(t->ops.logit_bwd(t->be, &a));
    nt_selftest_keep_bf16(t, d, ROWS * VOCAB);
    return NT_OK;
}

nt_status nt_selftest_embed_bwd(struct nt_selftest *t) {
    enum { TOK = 12, ROWS = 20, D = 96 };
    int32_t *ids = NT_TAKE(&t->arena, int32_t, TOK);
    for (int32_t i = 0; i < TOK; i++) ids[i] = 5 * (i % 8); /* some twice, some of other shards */
    float *table = nt_selftest_floats(t, ROWS * D, 1);
    const struct nt_embed_bwd_args a = {.ids = ids,
                                        .dx = nt_selftest_floats(t, TOK * D, 1),
                                        .dtable = table,
                                        .scale = 3,
                                        .n_tok = TOK,
                                        .d_model = D,
                                        .first = 8,
                                        .n_rows = ROWS};
    NT_TRY(t->ops.embed_bwd(t->be, &a));
    nt_selftest_keep_f32(t, table, ROWS * D);
    return NT_OK;
}

nt_status nt_selftest_scatter(struct nt_selftest *t) {
    enum { ROWS = 3, TO = 8, WIDE = 33 };
    static const int32_t rows[ROWS] = {1, 4, 7};
    float *to = nt_selftest_floats(t, TO * WIDE, 1);
    const struct nt_scatter_args a = {.from = nt_selftest_floats(t, ROWS * WIDE, 1),
                                      .to = to,
                                      .rows = rows,
                                      .bytes = WIDE * sizeof *to,
                                      .n_rows = ROWS,
                                      .n_to = TO};
    NT_TRY(t->ops.scatter(t->be, &a));
    nt_selftest_keep_f32(t, to, TO * WIDE);
    return NT_OK;
}

nt_status nt_selftest_dropout(struct nt_selftest *t) {
    enum { ROWS = 3, COLS = 203 };
    static const uint64_t stream[ROWS] = {7, 1, (uint64_t)1 << 40};
    nt_bf16 *y = nt_selftest_halves(t, ROWS * COLS, 1);
    float *sum = nt_selftest_floats(t, ROWS * COLS, 1);
    struct nt_dropout_args a = {.x = nt_selftest_halves(t, ROWS * COLS, 1),
                                .y = y,
                                .ldx = COLS,
                                .ldy = COLS,
                                .seed = 3,
                                .stream = stream,
                                .p = 0.3f,
                                .n_row = ROWS,
                                .n_col = COLS};
    NT_TRY(t->ops.dropout(t->be, &a));
    a.x = nt_selftest_floats(t, ROWS * COLS, 1);
    a.y = sum;
    a.add = true;
    NT_TRY(t->ops.dropout(t->be, &a));
    nt_selftest_keep_bf16(t, y, ROWS * COLS);
    nt_selftest_keep_f32(t, sum, ROWS * COLS);
    return NT_OK;
}

nt_status nt_selftest_adamw(struct nt_selftest *t) {
    enum { N = 1003 };
    struct nt_adamw_args a = {.p = nt_selftest_floats(t, N, 1),
                              .m = nt_selftest_floats(t, N, 0.1f),
                              .v = nt_selftest_floats(t, N, 0.01f),
                              .grad = nt_selftest_floats(t, N, 1),
                              .grad_scale = 0.5,
                              .lr = 1e-3,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .eps = 1e-8,
                              .decay = 0.1,
                              .bias1 = 0.271,
                              .bias2 = 0.002997001,
                              .n = N};
    for (int i = 0; i < N; i++) a.v[i] = fabsf(a.v[i]);
    NT_TRY(t->ops.adamw(t->be, &a));
    nt_selftest_keep_f32(t, a.p, N);
    nt_selftest_keep_f32(t, a.m, N);
    nt_selftest_keep_f32(t, a.v, N);
    return NT_OK;
}

nt_status nt_selftest_sum_squares(struct nt_selftest *t) {
    enum { N = 2 * NT_SUM_BLOCK + 77 };
    double sum = 0;
    const struct nt_sum_squares_args a = {.x = nt_selftest_floats(t, N, 1), .sum = &sum, .n = N};
    NT_TRY(t->ops.sum_squares(t->be, &a));
    nt_selftest_keep(t, (float)sum);
    return NT_OK;
}

nt_status nt_selftest_sum_parts(struct nt_selftest *t) {
    enum { PARTS = 5, N = 1004 };
    const struct nt_sum_parts_args a = {
        .x = nt_selftest_floats(t, PARTS * N, 1), .y = nt_selftest_floats(t, N, 1), .n = N, .n_part = PARTS};
    NT_TRY(t->ops.sum_parts(t->be, &a));
    nt_selftest_keep_f32(t, a.y, N);
    return NT_OK;
}

/* Turned into a fused half at odd columns, rows with a table, and a fused pair's bias. */
nt_status nt_selftest_pack(struct nt_selftest *t) {
    enum { N = 100, K = 70, ROWS = 8 * NT_PANEL, COL0 = 3, COLS = K + COL0 + 1 };
    nt_bf16 *data = nt_selftest_halves(t, (int64_t)nt_packed_bytes(NT_WEIGHT_BF16, ROWS, COLS) / 2, 1);
    nt_bf16 *table = nt_selftest_halves(t, N * K, 1), values[COLS];
    const struct nt_packed w = {.format = NT_WEIGHT_BF16, .n = ROWS, .k = COLS, .data = data};
    struct nt_pack_args a = {.x = nt_selftest_floats(t, N * K, 1),
                             .w = &w,
                             .scale = 0.7f,
                             .n = N,
                             .k = K,
                             .col0 = COL0,
                             .row0 = NT_PANEL / 2,
                             .run = NT_PANEL / 2,
                             .turned = true};
    NT_TRY(t->ops.pack(t->be, &a));
    a.turned = false;
    a.row0 = 0;
    a.table = table;
    NT_TRY(t->ops.pack(t->be, &a));
    float *bias = nt_selftest_floats(t, ROWS, 1);
    const struct nt_pack_args vector = {.x = a.x, .vector = bias, .scale = 1, .n = N, .k = 1, .run = a.run};
    NT_TRY(t->ops.pack(t->be, &vector));
    for (int32_t r = 0; r < ROWS; r++) nt_selftest_keep(t, bias[r]);
    nt_selftest_keep_bf16(t, table, N * K);
    for (int32_t r = 0; r < ROWS; r++) {
        nt_unpack_row(&w, r, values);
        nt_selftest_keep_bf16(t, values, COLS);
    }
    return NT_OK;
}
