/* The self-test of doctor: the bodies this machine would use against the portable ones. */
#include "ops_selftest.h"
#include "ops_bwd.h"
#include <math.h>

enum { ARENA_BYTES = 32 << 20 };

static nt_status test_embed(struct nt_selftest *t) {
    enum { TOK = 9, ROWS = 20, D = 96 };
    int32_t *ids = NT_TAKE(&t->arena, int32_t, TOK);
    for (int32_t i = 0; i < TOK; i++) ids[i] = 4 * i;
    float *x = nt_selftest_floats(t, TOK * D, 1);
    const struct nt_embed_args a = {.ids = ids,
                                    .table = nt_selftest_halves(t, ROWS * D, 1),
                                    .x = x,
                                    .scale = 3,
                                    .n_tok = TOK,
                                    .d_model = D,
                                    .first = 8,
                                    .n_rows = ROWS};
    NT_TRY(t->ops.embed(t->be, &a));
    nt_selftest_keep_f32(t, x, TOK * D);
    return NT_OK;
}

static nt_status test_rmsnorm(struct nt_selftest *t) {
    enum { TOK = 7 };
    const int32_t d = t->width > 0 ? t->width : 112;
    nt_bf16 *y = NT_TAKE(&t->arena, nt_bf16, TOK * d);
    struct nt_rmsnorm_args a = {.x = nt_selftest_floats(t, TOK * d, 4),
                                .delta = nt_selftest_floats(t, TOK * d, 1),
                                .w = nt_selftest_floats(t, d, 1),
                                .y = y,
                                .eps = 1e-5f,
                                .n_rows = TOK,
                                .d_model = d,
                                .ldy = d};
    NT_TRY(t->ops.rmsnorm(t->be, &a));
    nt_selftest_keep_f32(t, a.x, TOK * d);
    nt_selftest_keep_bf16(t, y, TOK * d);
    return NT_OK;
}

static nt_status test_gemm(struct nt_selftest *t) {
    enum { TOK = 19, N = 96, K = 88 };
    struct nt_packed w = {.format = NT_WEIGHT_BF16, .n = N, .k = K};
    void *data = nt_arena_take(&t->arena, nt_packed_bytes(w.format, N, K), 1);
    for (int32_t r = 0; r < N; r++) nt_pack_row(&w, data, r, nt_selftest_halves(t, K, 0.2f));
    w.data = data;
    for (int out = 0; out < NT_GEMM_OUT_COUNT; out++) {
        const bool f32 = out == NT_GEMM_STORE_F32 || out == NT_GEMM_ADD_F32;
        void *y = f32 ? (void *)nt_selftest_floats(t, TOK * N, 1) : (void *)nt_selftest_halves(t, TOK * N, 1);
        const struct nt_gemm_args a = {.x = nt_selftest_halves(t, TOK * K, 1),
                                       .ldx = K,
                                       .w = &w,
                                       .bias = nt_selftest_floats(t, N, 1),
                                       .y = y,
                                       .ldy = N,
                                       .n_tok = TOK,
                                       .out = (enum nt_gemm_out)out};
        NT_TRY(t->ops.gemm(t->be, &a));
        if (f32)
            nt_selftest_keep_f32(t, y, TOK * N);
        else
            nt_selftest_keep_bf16(t, y, TOK * N);
    }
    return NT_OK;
}

/* Two sequences over a cache: a prompt of 70 tokens, and one token at position 600, whose keys a body may sum in two
 * parts. */
enum { SEQS = 2, PROMPT = 70, TOKENS = PROMPT + 1, FAR = 600, HEADS = 4, KV_HEADS = 2 };
enum { FAR_PAGES = FAR / NT_KV_PAGE + 1, PROMPT_PAGES = 2, PAGES = FAR_PAGES + PROMPT_PAGES };

struct paged {
    struct nt_kv_layer kv;
    struct nt_attn_seq seqs[SEQS];
    int32_t pages[PAGES], kv_of_head[HEADS];
};

static int32_t d_head_of(const struct nt_selftest *t) {
    return t->width > 0 ? t->width : 32;
}

static int64_t cache_elems(const struct nt_selftest *t) {
    return PAGES * KV_HEADS * nt_kv_head_elems(NT_KV_PAIRED, d_head_of(t));
}

static struct paged *make_paged(struct nt_selftest *t) {
    struct paged *p = NT_TAKE(&t->arena, struct paged, 1);
    const int32_t d = d_head_of(t);
    *p = (struct paged){
        .kv_of_head = {0, 0, 1, 1}
    };
    for (int32_t i = 0; i < PAGES; i++) p->pages[i] = (5 * i + 2) % PAGES; /* all of them, out of order */
    _Static_assert(PAGES % 5 != 0, "5 and the number of pages have no common divisor");
    p->kv = (struct nt_kv_layer){.base = nt_selftest_halves(t, cache_elems(t), 1),
                                 .page_stride = KV_HEADS * nt_kv_head_elems(NT_KV_PAIRED, d),
                                 .n_kv = KV_HEADS,
                                 .d_head = d};
    p->seqs[0] = (struct nt_attn_seq){.q_row = 0, .n_q = PROMPT, .pos0 = 0, .pages = p->pages};
    p->seqs[1] = (struct nt_attn_seq){.q_row = PROMPT, .n_q = 1, .pos0 = FAR, .pages = p->pages + PROMPT_PAGES};
    return p;
}

static nt_status test_rope_kv(struct nt_selftest *t) {
    const int32_t d = d_head_of(t), width = (HEADS + 2 * KV_HEADS) * d;
    struct paged *p = make_paged(t);
    nt_bf16 *q = NT_TAKE(&t->arena, nt_bf16, TOKENS * HEADS * d);
    const struct nt_rope_kv_args a = {.qkv = nt_selftest_floats(t, TOKENS * width, 1),
                                      .q = q,
                                      .kv = &p->kv,
                                      .seqs = p->seqs,
                                      .cos = nt_selftest_floats(t, (FAR + 1) * d / 2, 1),
                                      .sin = nt_selftest_floats(t, (FAR + 1) * d / 2, 1),
                                      .q_norm = nt_selftest_floats(t, d, 1),
                                      .k_norm = nt_selftest_floats(t, d, 1),
                                      .eps = 1e-6f,
                                      .n_seq = SEQS,
                                      .n_tok = TOKENS,
                                      .n_head = HEADS};
    NT_TRY(t->ops.rope_kv(t->be, &a));
    nt_selftest_keep_bf16(t, q, TOKENS * HEADS * d);
    nt_selftest_keep_bf16(t, p->kv.base, cache_elems(t));
    return NT_OK;
}

static nt_status test_attention(struct nt_selftest *t) {
    const int32_t d = d_head_of(t), width = HEADS * d;
    struct paged *p = make_paged(t);
    nt_bf16 *out = NT_TAKE(&t->arena, nt_bf16, TOKENS * width);
    float *lse = NT_TAKE(&t->arena, float, TOKENS *HEADS);
    const struct nt_attention_args a = {.q = nt_selftest_halves(t, TOKENS * width, 1),
                                        .kv = &p->kv,
                                        .seqs = p->seqs,
                                        .kv_of_head = p->kv_of_head,
                                        .out = out,
                                        .lse = lse,
                                        .ldo = width,
                                        .scale = 2.8f / sqrtf((float)d),
                                        .n_seq = SEQS,
                                        .n_tok = TOKENS,
                                        .n_head = HEADS};
    NT_TRY(t->ops.attention(t->be, &a));
    nt_selftest_keep_bf16(t, out, TOKENS * width);
    nt_selftest_keep_f32(t, lse, TOKENS * HEADS);
    return NT_OK;
}

enum { ROWS = 3, VOCAB = 1003, TOP = 20 };

static nt_status test_logit_stats(struct nt_selftest *t) {
    float max[ROWS], sum[ROWS];
    int32_t argmax[ROWS];
    const struct nt_logit_stats_args a = {.logits = nt_selftest_floats(t, ROWS * VOCAB, 9),
                                          .ld = VOCAB,
                                          .max = max,
                                          .sum_exp = sum,
                                          .argmax = argmax,
                                          .n_row = ROWS,
                                          .n_vocab = VOCAB};
    NT_TRY(t->ops.logit_stats(t->be, &a));
    nt_selftest_keep_f32(t, max, ROWS);
    nt_selftest_keep_f32(t, sum, ROWS);
    nt_selftest_keep_i32(t, argmax, ROWS);
    return NT_OK;
}

static nt_status test_logit_topk(struct nt_selftest *t) {
    float value[ROWS * TOP];
    int32_t index[ROWS * TOP];
    const struct nt_logit_topk_args a = {.logits = nt_selftest_floats(t, ROWS * VOCAB, 9),
                                         .ld = VOCAB,
                                         .value = value,
                                         .index = index,
                                         .n_row = ROWS,
                                         .n_vocab = VOCAB,
                                         .k = TOP};
    NT_TRY(t->ops.logit_topk(t->be, &a));
    nt_selftest_keep_f32(t, value, ROWS * TOP);
    nt_selftest_keep_i32(t, index, ROWS * TOP);
    return NT_OK;
}

static nt_status test_logit_gumbel(struct nt_selftest *t) {
    static const uint64_t seed[ROWS] = {1, 2, 3}, stream[ROWS] = {7, 8, 9};
    static const float inv_temp[ROWS] = {1, 2, 0.5f};
    float value[ROWS];
    int32_t index[ROWS];
    const struct nt_logit_gumbel_args a = {.logits = nt_selftest_floats(t, ROWS * VOCAB, 3),
                                           .ld = VOCAB,
                                           .inv_temp = inv_temp,
                                           .seed = seed,
                                           .stream = stream,
                                           .value = value,
                                           .index = index,
                                           .n_row = ROWS,
                                           .n_vocab = VOCAB,
                                           .first = 5};
    NT_TRY(t->ops.logit_gumbel(t->be, &a));
    nt_selftest_keep_f32(t, value, ROWS);
    nt_selftest_keep_i32(t, index, ROWS);
    return NT_OK;
}

static nt_status test_logit_edit(struct nt_selftest *t) {
    static const struct nt_logit_edit edits[] = {
        {0, 5,     0.5f, 1.25f, 0.75f   },
        {0, 6,     0,    1,     INFINITY},
        {2, 1002,  -1,   2,     0       },
        {1, VOCAB, 1,    1,     0       }
    };
    static const float scale[ROWS] = {2, 1, 0.7f};
    float *logits = nt_selftest_floats(t, ROWS * VOCAB, 3);
    const struct nt_logit_edit_args a = {.logits = logits,
                                         .ld = VOCAB,
                                         .edits = edits,
                                         .scale = scale,
                                         .n_row = ROWS,
                                         .n_vocab = VOCAB,
                                         .n_edit = sizeof edits / sizeof edits[0]};
    NT_TRY(t->ops.logit_edit(t->be, &a));
    logits[6] = logits[6] == -INFINITY ? 99 : 0; /* masked: the comparison wants finite values */
    nt_selftest_keep_f32(t, logits, ROWS * VOCAB);
    return NT_OK;
}

static nt_status test_logit_penalty(struct nt_selftest *t) {
    static const struct nt_seen seen[] = {
        {8,    0},
        {5,    2},
        {1003, 1}
    };
    static const int32_t begin[ROWS + 1] = {0, 2, 3, 3}, last[2] = {VOCAB + 2, 5}, last_row[ROWS] = {1, -1, 0};
    static const float repetition[ROWS] = {1.25f, 1, 2}, presence[ROWS] = {0.5f, 1, 0.25f};
    static const float frequency[ROWS] = {0.75f, 0, 0.5f};
    float *logits = nt_selftest_floats(t, ROWS * VOCAB, 3);
    const struct nt_logit_penalty_args a = {.logits = logits,
                                            .ld = VOCAB,
                                            .seen = seen,
                                            .begin = begin,
                                            .last = last,
                                            .last_row = last_row,
                                            .repetition = repetition,
                                            .presence = presence,
                                            .frequency = frequency,
                                            .n_row = ROWS,
                                            .n_vocab = VOCAB,
                                            .first = 3,
                                            .n_seen = sizeof seen / sizeof seen[0]};
    NT_TRY(t->ops.logit_penalty(t->be, &a));
    nt_selftest_keep_f32(t, logits, ROWS * VOCAB);
    return NT_OK;
}

static nt_status test_logit_pick(struct nt_selftest *t) {
    static const int32_t id[ROWS] = {0, 17, VOCAB - 1};
    float value[ROWS];
    const struct nt_logit_pick_args a = {.logits = nt_selftest_floats(t, ROWS * VOCAB, 3),
                                         .ld = VOCAB,
                                         .id = id,
                                         .value = value,
                                         .n_row = ROWS,
                                         .n_vocab = VOCAB};
    NT_TRY(t->ops.logit_pick(t->be, &a));
    nt_selftest_keep_f32(t, value, ROWS);
    return NT_OK;
}

static nt_status test_gather(struct nt_selftest *t) {
    static const int32_t rows[ROWS] = {1, 4, 6};
    enum { WIDE = 33 };
    float to[ROWS * WIDE];
    const struct nt_gather_args a = {
        .from = nt_selftest_floats(t, 7 * WIDE, 1), .to = to, .rows = rows, .bytes = WIDE * sizeof *to, .n_rows = ROWS};
    NT_TRY(t->ops.gather(t->be, &a));
    nt_selftest_keep_f32(t, to, ROWS * WIDE);
    return NT_OK;
}

/* Greedy; top-k with top-p; min-p; top-p of the whole row; a plain draw. */
static nt_status test_logit_sample(struct nt_selftest *t) {
    enum { RULES = 5 };
    static const float inv_temp[RULES] = {0, 1, 0.5f, 1.5f, 1}, top_p[RULES] = {1, 0.9f, 1, 0.8f, 1};
    static const float min_p[RULES] = {0, 0, 0.2f, 0, 0};
    static const int32_t top_k[RULES] = {0, 40, 0, 0, 0};
    static const uint64_t seed[RULES] = {1, 2, 3, 4, 5}, stream[RULES] = {6, 7, 8, 9, 10};
    int32_t index[RULES];
    const struct nt_logit_sample_args a = {.logits = nt_selftest_floats(t, RULES * VOCAB, 6),
                                           .ld = VOCAB,
                                           .inv_temp = inv_temp,
                                           .top_p = top_p,
                                           .min_p = min_p,
                                           .top_k = top_k,
                                           .seed = seed,
                                           .stream = stream,
                                           .index = index,
                                           .n_row = RULES,
                                           .n_vocab = VOCAB};
    NT_TRY(t->ops.logit_sample(t->be, &a));
    nt_selftest_keep_i32(t, index, RULES);
    return NT_OK;
}

/* Whole multiples of 1/64: the sums are exact in any order, so the values and the choice are the same bits. Rows of x
 * are a multiple of 16 bytes apart, and are not: devices have kernels of their own for either. */
static nt_status test_head_argmax(struct nt_selftest *t) {
    enum { K = 64, N = 300, APART = K + 2, MANY = 80 };
    const int32_t n_row = t->width > 0 ? t->width : ROWS;
    NT_CHECK(n_row <= MANY);
    struct nt_packed w = {.format = NT_WEIGHT_BF16, .n = N, .k = K};
    const size_t bytes = nt_packed_bytes(w.format, N, K);
    void *data = NT_TAKE(&t->arena, char, bytes);
    memset(data, 0, bytes);
    w.data = data;
    nt_bf16 *x = nt_selftest_halves(t, n_row * APART, 8), row[K];
    float inv_temp[MANY], value[MANY];
    uint64_t seed[MANY], stream[MANY];
    int32_t index[MANY];
    for (int32_t i = 0; i < n_row * APART; i++) x[i] = nt_f32_to_bf16(rintf(nt_bf16_to_f32(x[i])));
    for (int32_t n = 0; n < N; n++) {
        for (int32_t i = 0; i < K; i++) row[i] = nt_f32_to_bf16(rintf(8 * nt_selftest_random(t)) / 64);
        nt_pack_row(&w, data, n, row);
    }
    for (int32_t i = 0; i < n_row; i++) {
        inv_temp[i] = (float)(i % 3) / 2; /* every third is greedy */
        seed[i] = (uint64_t)i + 1;
        stream[i] = (uint64_t)i + 4;
    }
    for (int64_t ldx = K; ldx <= APART; ldx += APART - K) {
        const struct nt_head_argmax_args a = {.x = x,
                                              .ldx = ldx,
                                              .w = &w,
                                              .inv_temp = inv_temp,
                                              .seed = seed,
                                              .stream = stream,
                                              .value = value,
                                              .index = index,
                                              .n_row = n_row,
                                              .n_vocab = N - 3,
                                              .first = 5};
        NT_TRY(t->ops.head_argmax(t->be, &a));
        nt_selftest_keep_f32(t, value, n_row);
        nt_selftest_keep_i32(t, index, n_row);
    }
    return NT_OK;
}

static struct nt_packed random_weights(struct nt_selftest *t, enum nt_weight_format format, int32_t n, int32_t k) {
    struct nt_packed w = {.format = format, .n = n, .k = k};
    const size_t bytes = nt_packed_bytes(format, n, k);
    void *data = NT_TAKE(&t->arena, char, bytes);
    memset(data, 0, bytes);
    for (int32_t r = 0; r < n; r++) nt_pack_row(&w, data, r, nt_selftest_halves(t, k, 0.2f));
    w.data = data;
    return w;
}

/* Some rows of a result, all of a small one. */
static void keep_rows(struct nt_selftest *t, const float *v, int32_t rows, int32_t cols) {
    const int32_t step = rows / 64 + 1;
    for (int32_t r = 0; r < rows; r += step) nt_selftest_keep_f32(t, v + (int64_t)r * cols, cols);
}

/* The products of a training step with an adapter: forward with its second product and the pre-activations, backward
 * through both; once with rows of dy2 that are whole 16 bytes, which other kernels take. */
static nt_status test_gemm_dgrad(struct nt_selftest *t) {
    enum { N = 96, RANK = 10, WHOLE = 16, OUTS = NT_GEMM_STORE_BF16 + 1 };
    const int32_t n_tok = t->width > 0 ? t->width : 19, k = t->width > 0 ? 576 : 152;
    const struct nt_packed up = random_weights(t, NT_WEIGHT_BF16, N, RANK);
    const struct nt_packed down = random_weights(t, NT_WEIGHT_BF16, RANK, k);
    static const struct {
        enum nt_weight_format format;
        int32_t lddy2;
    } ways[] = {
        {NT_WEIGHT_BF16, RANK },
        {NT_WEIGHT_BF16, WHOLE},
        {NT_WEIGHT_INT4, RANK },
        {NT_WEIGHT_INT8, RANK },
    };
    const int n_way = sizeof ways / sizeof ways[0];
    for (int i = 0; i < n_way * (t->width > 0 ? 1 : OUTS); i++) {
        const int32_t lddy2 = ways[i % n_way].lddy2;
        const struct nt_packed w = random_weights(t, ways[i % n_way].format, N, k);
        float *dx = nt_selftest_floats(t, n_tok * k, 1);
        nt_bf16 *pre = nt_selftest_halves(t, n_tok * N, 0), *y = nt_selftest_halves(t, n_tok * N / 2, 0);
        const struct nt_gemm_args forward = {.x = nt_selftest_halves(t, n_tok * k, 1),
                                             .ldx = k,
                                             .w = &w,
                                             .y = y,
                                             .ldy = N / 2,
                                             .n_tok = n_tok,
                                             .out = NT_GEMM_SWIGLU_BF16,
                                             .x2 = nt_selftest_halves(t, n_tok * RANK, 1),
                                             .ldx2 = RANK,
                                             .w2 = &up,
                                             .pre = pre,
                                             .ldpre = N};
        const struct nt_gemm_dgrad_args a = {.dy = pre,
                                             .lddy = N,
                                             .w = &w,
                                             .dy2 = nt_selftest_halves(t, n_tok * lddy2, 1),
                                             .lddy2 = lddy2,
                                             .w2 = &down,
                                             .dx = dx,
                                             .lddx = k,
                                             .n_tok = n_tok,
                                             .out = (enum nt_gemm_out)(i / n_way)};
        NT_TRY(t->ops.gemm(t->be, &forward));
        NT_TRY(t->ops.gemm_dgrad(t->be, &a));
        nt_selftest_keep_bf16(t, y, n_tok * N / 2);
        nt_selftest_keep_bf16(t, pre, n_tok * N);
        if (a.out == NT_GEMM_STORE_BF16)
            nt_selftest_keep_bf16(t, (const nt_bf16 *)(const void *)dx, n_tok * k);
        else
            keep_rows(t, dx, n_tok, k);
    }
    return NT_OK;
}

/* Rows of a that are whole 16 bytes and rows that are not, which other kernels take, and columns of b in runs, one
 * added to the other. Without a width the tokens are two blocks of NT_WGRAD_TOKENS. */
static nt_status test_gemm_wgrad(struct nt_selftest *t) {
    const bool wide = t->width > 0;
    const int32_t n_tok = wide ? 75 : NT_WGRAD_TOKENS + 75, m = wide ? t->width : 72, n = wide ? 576 : 104;
    static const struct {
        int32_t pad, b_run;
    } ways[] = {
        {0, 0           },
        {1, 0           },
        {0, NT_PANEL / 2}
    };
    float *dw = nt_selftest_floats(t, m * n, 1);
    for (int i = 0; i < (int)(sizeof ways / sizeof ways[0]); i++) {
        const int32_t lda = m + ways[i].pad, ldb = ways[i].b_run > 0 ? 2 * n : n;
        const struct nt_gemm_wgrad_args a = {.a = nt_selftest_halves(t, n_tok * lda, 1),
                                             .b = nt_selftest_halves(t, n_tok * ldb, 1),
                                             .lda = lda,
                                             .ldb = ldb,
                                             .dw = dw,
                                             .lddw = n,
                                             .alpha = 0.3f,
                                             .n_tok = n_tok,
                                             .m = m,
                                             .n = n,
                                             .b_run = ways[i].b_run};
        NT_TRY(t->ops.gemm_wgrad(t->be, &a));
    }
    keep_rows(t, dw, m, n);
    return NT_OK;
}

/* limit: normalized mean squared difference of the two bodies, each within the tolerance of ops.h; 0: the same bits. */
static const struct {
    nt_status (*run)(struct nt_selftest *t);
    double limit;
} tests[] = {
    [NT_OP_embed] = {test_embed,                0    },
    [NT_OP_rmsnorm] = {test_rmsnorm,              2e-5 },
    [NT_OP_gemm] = {test_gemm,                 2e-5 },
    [NT_OP_rope_kv] = {test_rope_kv,              2e-5 },
    [NT_OP_attention] = {test_attention,            2e-4 },
    [NT_OP_logit_stats] = {test_logit_stats,          1e-11},
    [NT_OP_logit_topk] = {test_logit_topk,           0    },
    [NT_OP_logit_gumbel] = {test_logit_gumbel,         0    },
    [NT_OP_logit_edit] = {test_logit_edit,           0    },
    [NT_OP_logit_penalty] = {test_logit_penalty,        0    },
    [NT_OP_logit_pick] = {test_logit_pick,           0    },
    [NT_OP_gather] = {test_gather,               0    },
    [NT_OP_logit_sample] = {test_logit_sample,         0    },
    [NT_OP_head_argmax] = {test_head_argmax,          0    },
    [NT_OP_gemm_dgrad] = {test_gemm_dgrad,           2e-5 },
    [NT_OP_gemm_wgrad] = {test_gemm_wgrad,           2e-6 },
    [NT_OP_rmsnorm_bwd] = {nt_selftest_rmsnorm_bwd,   2e-5 },
    [NT_OP_glu_bwd] = {nt_selftest_glu_bwd,       2e-5 },
    [NT_OP_attention_bwd] = {nt_selftest_attention_bwd, 2e-4 },
    [NT_OP_rope_bwd] = {nt_selftest_rope_bwd,      2e-5 },
    [NT_OP_logit_bwd] = {nt_selftest_logit_bwd,     2e-5 },
    [NT_OP_embed_bwd] = {nt_selftest_embed_bwd,     0    },
    [NT_OP_scatter] = {nt_selftest_scatter,       0    },
    [NT_OP_dropout] = {nt_selftest_dropout,       0    },
    [NT_OP_adamw] = {nt_selftest_adamw,         2e-10},
    [NT_OP_sum_squares] = {nt_selftest_sum_squares,   1e-11},
    [NT_OP_sum_parts] = {nt_selftest_sum_parts,     0    },
    [NT_OP_pack] = {nt_selftest_pack,          0    },
};
_Static_assert(sizeof tests / sizeof tests[0] == NT_OP_COUNT, "one test per op");

/* Infinity when a value is not finite or the counts differ: no limit admits that. */
static double difference(const float *a, int64_t n_a, const float *b, int64_t n_b) {
    double square = 0, error = 0;
    if (n_a != n_b || n_a == 0) return INFINITY;
    for (int64_t i = 0; i < n_a; i++) {
        const double d = (double)b[i] - (double)a[i];
        if (!isfinite(d)) return INFINITY;
        square += (double)a[i] * (double)a[i];
        error += d * d;
    }
    return error == 0 ? 0 : error / square;
}

static nt_status run_side(struct nt_selftest *t, const struct nt_ops *ops, enum nt_op op, float *values) {
    nt_arena_reset(&t->arena);
    t->values = values;
    t->n_values = 0;
    t->index = 0;
    t->seed = (uint64_t)op + 1;
    t->ops = *ops;
    return tests[op].run(t);
}

static nt_status run_both(struct nt_selftest *t, enum nt_op op, float *want, float *got, struct nt_selftest_row *row) {
    NT_TRY(run_side(t, nt_cpu_bodies(NT_ISA_PORTABLE), op, want));
    const int64_t n_want = t->n_values;
    NT_TRY(run_side(t, &t->be->ops, op, got));
    row->difference = difference(want, n_want, got, t->n_values);
    row->ok = row->difference <= row->limit;
    return NT_OK;
}

nt_status nt_ops_selftest_op(struct nt_backend *be, enum nt_op op, int32_t width, struct nt_selftest_row *row) {
    struct nt_selftest t = {.be = be, .width = width};
    struct nt_arena results;
    *row = (struct nt_selftest_row){.difference = INFINITY, .limit = tests[op].limit};
    nt_arena_init(&t.arena, "kernel self-test");
    (void)nt_arena_take(&t.arena, ARENA_BYTES, 1);
    nt_arena_init(&results, "kernel self-test results");
    (void)nt_arena_take(&results, 2 * NT_SELFTEST_VALUES, sizeof(float));
    nt_status st = NT_OK;
    NT_TRY_GOTO(st, release, nt_arena_bind(&t.arena));
    NT_TRY_GOTO(st, release, nt_arena_bind(&results));
    float *values = NT_TAKE(&results, float, 2 * NT_SELFTEST_VALUES);
    NT_TRY_GOTO(st, release, run_both(&t, op, values, values + NT_SELFTEST_VALUES, row));
release:
    nt_arena_release(&results);
    nt_arena_release(&t.arena);
    return st;
}

nt_status nt_ops_selftest(struct nt_backend *be, struct nt_strbuf *report) {
    struct nt_strbuf bad = NT_STRBUF_INIT;
    nt_status st = NT_OK;
    for (int i = 0; i < NT_OP_COUNT && st == NT_OK; i++) {
        const enum nt_op op = (enum nt_op)i;
        const char *isa = nt_isa_name(be->body_isa[op]);
        struct nt_selftest_row row;
        st = nt_ops_selftest_op(be, op, 0, &row);
        if (st != NT_OK) break;
        nt_strbuf_addf(report, "op %-12s %-8s difference to portable %.1e, limit %.0e: %s\n", nt_op_name(op), isa,
                       row.difference, row.limit, row.ok ? "ok" : "FAILED");
        if (!row.ok) nt_strbuf_addf(&bad, " %s (%s)", nt_op_name(op), isa);
    }
    if (st == NT_OK && bad.len > 0)
        st = NT_FAIL(NT_E_INTERNAL, "kernel self-test: outside tolerance on this CPU:%s; set run.isa to a lower level",
                     nt_strbuf_cstr(&bad));
    nt_strbuf_release(&bad);
    return st;
}
