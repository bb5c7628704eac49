#include "cuda_bench_calls.h"

#include "gemm_cublaslt.h"
#include "ops_bwd.h"
#include "rng.h"
#include <math.h>
#include <string.h>

/* ---- operands ---- */

static void *next(struct nt_cuda_call *c, struct nt_cuda_pool *pool, int64_t bytes) {
    const size_t n = ((size_t)bytes + 255) / 256 * 256;
    if (n > pool->bytes) {
        c->too_large = true;
        return pool->base;
    }
    if (pool->at + n > pool->bytes) pool->at = 0;
    void *p = pool->base + pool->at;
    pool->at += n;
    return p;
}

static void *in(struct nt_cuda_call *c, int64_t count, size_t element) {
    return next(c, c->in, count * (int64_t)element);
}
static void *out(struct nt_cuda_call *c, int64_t count, size_t element) {
    return next(c, c->out, count * (int64_t)element);
}

/* Costs read what lies behind host pointers, so the sequences of a counted call are the host's. */
static const struct nt_cuda_call_inputs *inputs(const struct nt_cuda_call *c) {
    return c->counting ? &c->host : &c->device;
}

#define FINISH(c, op, args)                                                                                            \
    do {                                                                                                               \
        if ((c)->counting) {                                                                                           \
            (c)->cost = nt_op_cost_##op(args);                                                                         \
            return NT_OK;                                                                                              \
        }                                                                                                              \
        return (c)->be->ops.op((c)->be, (args));                                                                       \
    } while (0)

/* ---- the ops of a block ---- */

static nt_status call_embed(struct nt_cuda_call *c) {
    const struct nt_cuda_dims *d = c->dims;
    const struct nt_embed_args a = {.ids = inputs(c)->ids,
                                    .table = in(c, (int64_t)d->n_vocab * d->d_model, sizeof(nt_bf16)),
                                    .x = out(c, (int64_t)c->n_tok * d->d_model, sizeof(float)),
                                    .scale = 1,
                                    .n_tok = c->n_tok,
                                    .d_model = d->d_model,
                                    .n_rows = d->n_vocab};
    FINISH(c, embed, &a);
}

static nt_status call_rmsnorm(struct nt_cuda_call *c) {
    const int32_t d = c->dims->d_model;
    const struct nt_rmsnorm_args a = {.x = in(c, (int64_t)c->n_tok * d, sizeof(float)), /* not written without delta */
                                      .w = in(c, d, sizeof(float)),
                                      .y = out(c, (int64_t)c->n_tok * d, sizeof(nt_bf16)),
                                      .eps = 1e-5f,
                                      .n_rows = c->n_tok,
                                      .d_model = d,
                                      .ldy = d};
    FINISH(c, rmsnorm, &a);
}

static nt_status call_gemm(struct nt_cuda_call *c, int32_t n, int32_t k, enum nt_gemm_out how,
                           enum nt_weight_format format) {
    const bool gated = how == NT_GEMM_SWIGLU_BF16, f32 = how == NT_GEMM_STORE_F32 || how == NT_GEMM_ADD_F32;
    struct nt_packed w = {.format = format, .n = n, .k = k};
    w.data = in(c, (int64_t)nt_packed_bytes(w.format, n, k), 1);
    struct nt_gemm_args a = {.x = in(c, (int64_t)c->n_tok * k, sizeof(nt_bf16)),
                             .ldx = k,
                             .w = &w,
                             .ldy = gated && !c->by_blaslt ? n / 2 : n,
                             .n_tok = c->n_tok,
                             .out = gated && c->by_blaslt ? NT_GEMM_STORE_BF16 : how};
    a.y = out(c, (int64_t)c->n_tok * a.ldy, f32 ? sizeof(float) : sizeof(nt_bf16));
    c->n = n;
    c->k = k;
    if (!c->by_blaslt) FINISH(c, gemm, &a);
    if (!nt_cublaslt_takes(c->be, &a)) return NT_FAIL(NT_E_UNSUPPORTED, "cuBLASLt does not take n %d, k %d", n, k);
    return nt_cublaslt_gemm(c->be, &a);
}

static nt_status qkv(struct nt_cuda_call *c, enum nt_weight_format format) {
    const struct nt_cuda_dims *d = c->dims;
    return call_gemm(c, (d->n_head + 2 * d->n_kv) * d->d_head, d->d_model, NT_GEMM_STORE_F32, format);
}
static nt_status o(struct nt_cuda_call *c, enum nt_weight_format format) {
    return call_gemm(c, c->dims->d_model, c->dims->n_head * c->dims->d_head, NT_GEMM_ADD_F32, format);
}
static nt_status gate_up(struct nt_cuda_call *c, enum nt_weight_format format) {
    return call_gemm(c, 2 * c->dims->d_ff, c->dims->d_model, NT_GEMM_SWIGLU_BF16, format);
}
static nt_status down(struct nt_cuda_call *c, enum nt_weight_format format) {
    return call_gemm(c, c->dims->d_model, c->dims->d_ff, NT_GEMM_ADD_F32, format);
}

static nt_status call_qkv(struct nt_cuda_call *c) {
    return qkv(c, NT_WEIGHT_BF16_ROWS);
}
static nt_status call_o(struct nt_cuda_call *c) {
    return o(c, NT_WEIGHT_BF16_ROWS);
}
static nt_status call_gate_up(struct nt_cuda_call *c) {
    return gate_up(c, NT_WEIGHT_BF16_ROWS);
}
static nt_status call_down(struct nt_cuda_call *c) {
    return down(c, NT_WEIGHT_BF16_ROWS);
}
static nt_status call_qkv_int4(struct nt_cuda_call *c) {
    return qkv(c, NT_WEIGHT_INT4);
}
static nt_status call_qkv_int8(struct nt_cuda_call *c) {
    return qkv(c, NT_WEIGHT_INT8);
}
static nt_status call_o_int4(struct nt_cuda_call *c) {
    return o(c, NT_WEIGHT_INT4);
}
static nt_status call_o_int8(struct nt_cuda_call *c) {
    return o(c, NT_WEIGHT_INT8);
}
static nt_status call_gate_up_int4(struct nt_cuda_call *c) {
    return gate_up(c, NT_WEIGHT_INT4);
}
static nt_status call_gate_up_int8(struct nt_cuda_call *c) {
    return gate_up(c, NT_WEIGHT_INT8);
}
static nt_status call_down_int4(struct nt_cuda_call *c) {
    return down(c, NT_WEIGHT_INT4);
}
static nt_status call_down_int8(struct nt_cuda_call *c) {
    return down(c, NT_WEIGHT_INT8);
}
static nt_status call_head(struct nt_cuda_call *c) {
    return call_gemm(c, c->dims->n_vocab, c->dims->d_model, NT_GEMM_STORE_F32, NT_WEIGHT_BF16_ROWS);
}

static struct nt_kv_layer cache(struct nt_cuda_call *c, bool written, enum nt_kv_format format) {
    const struct nt_cuda_dims *d = c->dims;
    struct nt_kv_layer kv = {.n_kv = d->n_kv, .d_head = d->d_head, .format = format};
    kv.page_stride = d->n_kv * nt_kv_head_elems(format, d->d_head);
    kv.base = written ? out(c, c->n_pages * kv.page_stride, sizeof(nt_bf16))
                      : in(c, c->n_pages * kv.page_stride, sizeof(nt_bf16));
    return kv;
}

static nt_status call_rope(struct nt_cuda_call *c, enum nt_kv_format format) {
    const struct nt_cuda_dims *d = c->dims;
    const struct nt_kv_layer kv = cache(c, true, format);
    const int64_t width = (int64_t)(d->n_head + 2 * d->n_kv) * d->d_head, table = (int64_t)c->max_pos * d->d_head / 2;
    const struct nt_rope_kv_args a = {.qkv = in(c, c->n_tok * width, sizeof(float)),
                                      .q = out(c, (int64_t)c->n_tok * d->n_head * nt_d_pad(d->d_head), sizeof(nt_bf16)),
                                      .kv = &kv,
                                      .seqs = inputs(c)->seqs,
                                      .cos = in(c, table, sizeof(float)),
                                      .sin = in(c, table, sizeof(float)),
                                      .n_seq = c->n_seq,
                                      .n_tok = c->n_tok,
                                      .n_head = d->n_head,
                                      .max_q = c->max_q};
    FINISH(c, rope_kv, &a);
}

static nt_status call_rope_bf16(struct nt_cuda_call *c) {
    return call_rope(c, NT_KV_ROWS);
}
static nt_status call_rope_int8(struct nt_cuda_call *c) {
    return call_rope(c, NT_KV_ROWS_INT8);
}

static nt_status call_attention(struct nt_cuda_call *c, enum nt_kv_format format) {
    const struct nt_cuda_dims *d = c->dims;
    const struct nt_kv_layer kv = cache(c, false, format);
    const int64_t rows = (int64_t)c->n_tok * d->n_head;
    const struct nt_attention_args a = {.q = in(c, rows * nt_d_pad(d->d_head), sizeof(nt_bf16)),
                                        .kv = &kv,
                                        .seqs = inputs(c)->seqs,
                                        .kv_of_head = inputs(c)->kv_of_head,
                                        .out = out(c, rows * d->d_head, sizeof(nt_bf16)),
                                        .ldo = (int64_t)d->n_head * d->d_head,
                                        .scale = 1 / sqrtf((float)d->d_head),
                                        .n_seq = c->n_seq,
                                        .n_tok = c->n_tok,
                                        .n_head = d->n_head,
                                        .max_q = c->max_q,
                                        .max_pos = c->max_pos,
                                        .min_q = c->max_q,
                                        .max_group = d->n_head / d->n_kv};
    FINISH(c, attention, &a);
}

static nt_status call_attention_bf16(struct nt_cuda_call *c) {
    return call_attention(c, NT_KV_ROWS);
}
static nt_status call_attention_int8(struct nt_cuda_call *c) {
    return call_attention(c, NT_KV_ROWS_INT8);
}

static nt_status call_gather(struct nt_cuda_call *c) {
    const int64_t d = c->dims->d_model;
    const struct nt_gather_args a = {.from = in(c, c->n_tok * d, sizeof(float)),
                                     .to = out(c, c->n_tok * d, sizeof(float)),
                                     .rows = inputs(c)->rows,
                                     .bytes = d * (int64_t)sizeof(float),
                                     .n_rows = c->n_tok};
    FINISH(c, gather, &a);
}

/* ---- the ops on logits ---- */

enum { TOP = 20, EDITS = 16, SEEN = 256 };

static int64_t ld_of(const struct nt_cuda_call *c) {
    return ((int64_t)c->dims->n_vocab + 15) / 16 * 16;
}

static const float *logits(struct nt_cuda_call *c) {
    return in(c, c->n_tok * ld_of(c), sizeof(float));
}

static nt_status call_stats(struct nt_cuda_call *c) {
    const struct nt_logit_stats_args a = {.logits = logits(c),
                                          .ld = ld_of(c),
                                          .max = out(c, c->n_tok, sizeof(float)),
                                          .sum_exp = out(c, c->n_tok, sizeof(float)),
                                          .argmax = out(c, c->n_tok, sizeof(int32_t)),
                                          .n_row = c->n_tok,
                                          .n_vocab = c->dims->n_vocab};
    FINISH(c, logit_stats, &a);
}

static nt_status call_topk(struct nt_cuda_call *c) {
    const struct nt_logit_topk_args a = {.logits = logits(c),
                                         .ld = ld_of(c),
                                         .value = out(c, c->n_tok * TOP, sizeof(float)),
                                         .index = out(c, c->n_tok * TOP, sizeof(int32_t)),
                                         .n_row = c->n_tok,
                                         .n_vocab = c->dims->n_vocab,
                                         .k = TOP};
    FINISH(c, logit_topk, &a);
}

static nt_status call_gumbel(struct nt_cuda_call *c) {
    const struct nt_logit_gumbel_args a = {.logits = logits(c),
                                           .ld = ld_of(c),
                                           .inv_temp = inputs(c)->ones,
                                           .seed = inputs(c)->seeds,
                                           .stream = inputs(c)->seeds,
                                           .value = out(c, c->n_tok, sizeof(float)),
                                           .index = out(c, c->n_tok, sizeof(int32_t)),
                                           .n_row = c->n_tok,
                                           .n_vocab = c->dims->n_vocab};
    FINISH(c, logit_gumbel, &a);
}

static nt_status call_edit(struct nt_cuda_call *c) {
    const struct nt_logit_edit_args a = {.logits = out(c, c->n_tok * ld_of(c), sizeof(float)),
                                         .ld = ld_of(c),
                                         .edits = inputs(c)->edits,
                                         .n_row = c->n_tok,
                                         .n_vocab = c->dims->n_vocab,
                                         .n_edit = c->n_tok * EDITS};
    FINISH(c, logit_edit, &a);
}

static nt_status call_penalty(struct nt_cuda_call *c) {
    const struct nt_logit_penalty_args a = {.logits = out(c, c->n_tok * ld_of(c), sizeof(float)),
                                            .ld = ld_of(c),
                                            .seen = inputs(c)->seen,
                                            .begin = inputs(c)->seen_begin,
                                            .last = inputs(c)->ids,
                                            .last_row = inputs(c)->rows,
                                            .repetition = inputs(c)->ones,
                                            .presence = inputs(c)->ones,
                                            .frequency = inputs(c)->ones,
                                            .n_row = c->n_tok,
                                            .n_vocab = c->dims->n_vocab,
                                            .n_seen = (int64_t)c->n_tok * SEEN};
    FINISH(c, logit_penalty, &a);
}

static nt_status call_pick(struct nt_cuda_call *c) {
    const struct nt_logit_pick_args a = {.logits = logits(c),
                                         .ld = ld_of(c),
                                         .id = inputs(c)->ids,
                                         .value = out(c, c->n_tok, sizeof(float)),
                                         .n_row = c->n_tok,
                                         .n_vocab = c->dims->n_vocab};
    FINISH(c, logit_pick, &a);
}

static nt_status call_sample(struct nt_cuda_call *c) {
    const struct nt_logit_sample_args a = {.logits = logits(c),
                                           .ld = ld_of(c),
                                           .inv_temp = inputs(c)->ones,
                                           .top_p = inputs(c)->top_p,
                                           .min_p = inputs(c)->min_p,
                                           .top_k = inputs(c)->top_k,
                                           .seed = inputs(c)->seeds,
                                           .stream = inputs(c)->seeds,
                                           .index = out(c, c->n_tok, sizeof(int32_t)),
                                           .n_row = c->n_tok,
                                           .n_vocab = c->dims->n_vocab};
    FINISH(c, logit_sample, &a);
}

static nt_status call_head_argmax(struct nt_cuda_call *c) {
    struct nt_packed w = {.format = NT_WEIGHT_BF16_ROWS, .n = c->dims->n_vocab, .k = c->dims->d_model};
    w.data = in(c, (int64_t)nt_packed_bytes(w.format, w.n, w.k), 1);
    const struct nt_head_argmax_args a = {.x = in(c, (int64_t)c->n_tok * w.k, sizeof(nt_bf16)),
                                          .ldx = w.k,
                                          .w = &w,
                                          .inv_temp = inputs(c)->ones,
                                          .seed = inputs(c)->seeds,
                                          .stream = inputs(c)->seeds,
                                          .value = out(c, c->n_tok, sizeof(float)),
                                          .index = out(c, c->n_tok, sizeof(int32_t)),
                                          .n_row = c->n_tok,
                                          .n_vocab = w.n};
    c->n = w.n;
    c->k = w.k;
    FINISH(c, head_argmax, &a);
}

/* ---- training: whole sequences ---- */

enum { RANK = 16 }; /* of an adapter */

static nt_status call_attention_bwd(struct nt_cuda_call *c) {
    const struct nt_cuda_dims *d = c->dims;
    const struct nt_kv_layer kv = cache(c, false, NT_KV_ROWS);
    const int64_t rows = (int64_t)c->n_tok * d->n_head, heads = d->n_head + 2 * d->n_kv;
    const struct nt_attention_bwd_args a = {.q = in(c, rows * nt_d_pad(d->d_head), sizeof(nt_bf16)),
                                            .kv = &kv,
                                            .seqs = inputs(c)->seqs,
                                            .kv_of_head = inputs(c)->kv_of_head,
                                            .out = in(c, rows * d->d_head, sizeof(nt_bf16)),
                                            .lse = in(c, rows, sizeof(float)),
                                            .dout = in(c, rows * d->d_head, sizeof(float)),
                                            .dqkv = out(c, c->n_tok * heads * d->d_head, sizeof(float)),
                                            .ldo = (int64_t)d->n_head * d->d_head,
                                            .lddo = (int64_t)d->n_head * d->d_head,
                                            .scale = 1 / sqrtf((float)d->d_head),
                                            .n_seq = c->n_seq,
                                            .n_tok = c->n_tok,
                                            .n_head = d->n_head,
                                            .max_q = c->max_q,
                                            .max_group = d->n_head / d->n_kv};
    FINISH(c, attention_bwd, &a);
}

/* With norms, as all parameters of Qwen 3 are trained: the most work. */
static nt_status call_rope_bwd(struct nt_cuda_call *c) {
    const struct nt_cuda_dims *d = c->dims;
    const int64_t count = (int64_t)c->n_tok * (d->n_head + 2 * d->n_kv) * d->d_head;
    const int64_t table = (int64_t)c->max_pos * d->d_head / 2;
    const struct nt_rope_bwd_args a = {.dqkv = in(c, count, sizeof(float)),
                                       .qkv = in(c, count, sizeof(float)),
                                       .dqkv16 = out(c, count, sizeof(nt_bf16)),
                                       .seqs = inputs(c)->seqs,
                                       .cos = in(c, table, sizeof(float)),
                                       .sin = in(c, table, sizeof(float)),
                                       .q_norm = in(c, d->d_head, sizeof(float)),
                                       .k_norm = in(c, d->d_head, sizeof(float)),
                                       .dq_norm = out(c, d->d_head, sizeof(float)),
                                       .dk_norm = out(c, d->d_head, sizeof(float)),
                                       .eps = 1e-6f,
                                       .n_seq = c->n_seq,
                                       .n_tok = c->n_tok,
                                       .n_head = d->n_head,
                                       .n_kv = d->n_kv,
                                       .d_head = d->d_head,
                                       .max_q = c->max_q};
    FINISH(c, rope_bwd, &a);
}

/* dx of a product of n outputs, an adapter behind it. */
static nt_status call_dgrad(struct nt_cuda_call *c, int32_t n, int32_t k, enum nt_weight_format format) {
    struct nt_packed w = {.format = format, .n = n, .k = k};
    struct nt_packed w2 = {.format = NT_WEIGHT_BF16_ROWS, .n = RANK, .k = k};
    w.data = in(c, (int64_t)nt_packed_bytes(w.format, n, k), 1);
    w2.data = in(c, (int64_t)nt_packed_bytes(w2.format, RANK, k), 1);
    const struct nt_gemm_dgrad_args a = {.dy = in(c, (int64_t)c->n_tok * n, sizeof(nt_bf16)),
                                         .lddy = n,
                                         .w = &w,
                                         .dy2 = in(c, (int64_t)c->n_tok * RANK, sizeof(nt_bf16)),
                                         .lddy2 = RANK,
                                         .w2 = &w2,
                                         .dx = out(c, (int64_t)c->n_tok * k, sizeof(float)),
                                         .lddx = k,
                                         .n_tok = c->n_tok,
                                         .out = NT_GEMM_STORE_F32};
    c->n = n;
    c->k = k;
    FINISH(c, gemm_dgrad, &a);
}

/* Of the adapter's own product: few columns. */
static nt_status call_dgrad_rank(struct nt_cuda_call *c) {
    struct nt_packed w = {.format = NT_WEIGHT_BF16_ROWS, .n = 2 * c->dims->d_ff, .k = RANK};
    w.data = in(c, (int64_t)nt_packed_bytes(w.format, w.n, w.k), 1);
    const struct nt_gemm_dgrad_args a = {.dy = in(c, (int64_t)c->n_tok * w.n, sizeof(nt_bf16)),
                                         .lddy = w.n,
                                         .w = &w,
                                         .dx = out(c, (int64_t)c->n_tok * RANK, sizeof(nt_bf16)),
                                         .lddx = RANK,
                                         .n_tok = c->n_tok,
                                         .out = NT_GEMM_STORE_BF16};
    c->n = w.n;
    c->k = RANK;
    FINISH(c, gemm_dgrad, &a);
}

static nt_status call_wgrad(struct nt_cuda_call *c, int32_t m, int32_t n, int32_t b_run) {
    const int32_t ldb = b_run > 0 ? 2 * n : n;
    const struct nt_gemm_wgrad_args a = {.a = in(c, (int64_t)c->n_tok * m, sizeof(nt_bf16)),
                                         .b = in(c, (int64_t)c->n_tok * ldb, sizeof(nt_bf16)),
                                         .lda = m,
                                         .ldb = ldb,
                                         .dw = out(c, (int64_t)m * n, sizeof(float)),
                                         .lddw = n,
                                         .alpha = 1,
                                         .n_tok = c->n_tok,
                                         .m = m,
                                         .n = n,
                                         .b_run = b_run};
    c->n = n;
    c->k = m;
    FINISH(c, gemm_wgrad, &a);
}

static nt_status call_dgrad_gate_up(struct nt_cuda_call *c) {
    return call_dgrad(c, 2 * c->dims->d_ff, c->dims->d_model, NT_WEIGHT_BF16_ROWS);
}
static nt_status call_dgrad_down(struct nt_cuda_call *c) {
    return call_dgrad(c, c->dims->d_model, c->dims->d_ff, NT_WEIGHT_BF16_ROWS);
}
static nt_status call_dgrad_gate_up_int4(struct nt_cuda_call *c) {
    return call_dgrad(c, 2 * c->dims->d_ff, c->dims->d_model, NT_WEIGHT_INT4);
}
static nt_status call_dgrad_gate_up_int8(struct nt_cuda_call *c) {
    return call_dgrad(c, 2 * c->dims->d_ff, c->dims->d_model, NT_WEIGHT_INT8);
}
static nt_status call_wgrad_down(struct nt_cuda_call *c) {
    return call_wgrad(c, c->dims->d_ff, c->dims->d_model, 0);
}
static nt_status call_wgrad_gate(struct nt_cuda_call *c) {
    return call_wgrad(c, c->dims->d_model, c->dims->d_ff, NT_PANEL / 2);
}
static nt_status call_wgrad_rank(struct nt_cuda_call *c) {
    return call_wgrad(c, RANK, c->dims->d_ff, 0);
}

static nt_status call_rmsnorm_bwd(struct nt_cuda_call *c) {
    const int32_t d = c->dims->d_model;
    const int64_t count = (int64_t)c->n_tok * d;
    const struct nt_rmsnorm_bwd_args a = {.x = in(c, count, sizeof(float)),
                                          .w = in(c, d, sizeof(float)),
                                          .dy = in(c, count, sizeof(float)),
                                          .dx = out(c, count, sizeof(float)),
                                          .dx16 = out(c, count, sizeof(nt_bf16)),
                                          .dw = out(c, d, sizeof(float)),
                                          .eps = 1e-5f,
                                          .n_tok = c->n_tok,
                                          .d_model = d};
    FINISH(c, rmsnorm_bwd, &a);
}

/* As training calls it: dpre takes the place of pre. */
static nt_status call_glu_bwd(struct nt_cuda_call *c) {
    const int32_t n = c->dims->d_ff / (NT_PANEL / 2) * (NT_PANEL / 2);
    nt_bf16 *pre = out(c, (int64_t)c->n_tok * 2 * n, sizeof *pre);
    const struct nt_glu_bwd_args a = {.pre = pre,
                                      .dy = in(c, (int64_t)c->n_tok * n, sizeof(float)),
                                      .dpre = pre,
                                      .ldpre = 2 * n,
                                      .lddy = n,
                                      .n_tok = c->n_tok,
                                      .n = n};
    FINISH(c, glu_bwd, &a);
}

/* Rows whose loss counts: an eighth. */
static nt_status call_logit_bwd(struct nt_cuda_call *c) {
    const int32_t n_row = (c->n_tok + 7) / 8;
    const int64_t count = n_row * ld_of(c);
    const struct nt_logit_bwd_args a = {.logits = in(c, count, sizeof(float)),
                                        .ld = ld_of(c),
                                        .target = inputs(c)->ids,
                                        .max = inputs(c)->ones,
                                        .sum_exp = inputs(c)->ones,
                                        .coef = inputs(c)->ones,
                                        .dlogits = out(c, count, sizeof(nt_bf16)),
                                        .lddl = ld_of(c),
                                        .n_row = n_row,
                                        .n_vocab = c->dims->n_vocab};
    FINISH(c, logit_bwd, &a);
}

static nt_status call_embed_bwd(struct nt_cuda_call *c) {
    const struct nt_cuda_dims *d = c->dims;
    const struct nt_embed_bwd_args a = {.ids = inputs(c)->ids,
                                        .dx = in(c, (int64_t)c->n_tok * d->d_model, sizeof(float)),
                                        .dtable = out(c, (int64_t)d->n_vocab * d->d_model, sizeof(float)),
                                        .scale = 1,
                                        .n_tok = c->n_tok,
                                        .d_model = d->d_model,
                                        .n_rows = d->n_vocab};
    FINISH(c, embed_bwd, &a);
}

/* Half of the rows come back to their places. */
static nt_status call_scatter(struct nt_cuda_call *c) {
    const int64_t d = c->dims->d_model;
    const struct nt_scatter_args a = {.from = in(c, c->n_tok * d, sizeof(float)),
                                      .to = out(c, c->n_tok * d, sizeof(float)),
                                      .rows = inputs(c)->rows,
                                      .bytes = d * (int64_t)sizeof(float),
                                      .n_rows = c->n_tok / 2,
                                      .n_to = c->n_tok};
    FINISH(c, scatter, &a);
}

static nt_status dropout(struct nt_cuda_call *c, bool add) {
    const int64_t count = (int64_t)c->n_tok * c->dims->d_model;
    const size_t element = add ? sizeof(float) : sizeof(nt_bf16);
    const struct nt_dropout_args a = {.x = in(c, count, element),
                                      .y = out(c, count, element),
                                      .ldx = c->dims->d_model,
                                      .ldy = c->dims->d_model,
                                      .seed = 1,
                                      .stream = inputs(c)->seeds,
                                      .p = 0.05f,
                                      .n_row = c->n_tok,
                                      .n_col = c->dims->d_model,
                                      .add = add};
    FINISH(c, dropout, &a);
}

static nt_status call_dropout(struct nt_cuda_call *c) {
    return dropout(c, false);
}
static nt_status call_dropout_add(struct nt_cuda_call *c) {
    return dropout(c, true);
}

/* As many parameters as the prompt has activations. */
static nt_status call_adamw(struct nt_cuda_call *c) {
    const int64_t n = (int64_t)c->n_tok * c->dims->d_model;
    const struct nt_adamw_args a = {.p = out(c, n, sizeof(float)),
                                    .m = out(c, n, sizeof(float)),
                                    .v = out(c, n, sizeof(float)),
                                    .grad = in(c, n, sizeof(float)),
                                    .grad_scale = 1,
                                    .lr = 1e-4,
                                    .beta1 = 0.9,
                                    .beta2 = 0.999,
                                    .eps = 1e-8,
                                    .bias1 = 0.1,
                                    .bias2 = 0.001,
                                    .n = n};
    FINISH(c, adamw, &a);
}

static nt_status call_sum_squares(struct nt_cuda_call *c) {
    const int64_t n = (int64_t)c->n_tok * c->dims->d_model;
    const struct nt_sum_squares_args a = {.x = in(c, n, sizeof(float)), .sum = out(c, 1, sizeof(double)), .n = n};
    FINISH(c, sum_squares, &a);
}

/* Of four ranks. */
static nt_status call_sum_parts(struct nt_cuda_call *c) {
    const int64_t n = (int64_t)c->n_tok * c->dims->d_model;
    const struct nt_sum_parts_args a = {
        .x = in(c, 4 * n, sizeof(float)), .y = out(c, n, sizeof(float)), .n = n, .n_part = 4};
    FINISH(c, sum_parts, &a);
}

/* The down projection, as training has it; and rows that a table and a head share, of its size. */
static nt_status call_pack_turned(struct nt_cuda_call *c) {
    struct nt_packed w = {.format = NT_WEIGHT_BF16_ROWS, .n = c->dims->d_model, .k = c->dims->d_ff};
    w.data = out(c, (int64_t)nt_packed_bytes(w.format, w.n, w.k), 1);
    const struct nt_pack_args a = {
        .x = in(c, (int64_t)w.n * w.k, sizeof(float)), .w = &w, .scale = 1, .n = w.n, .k = w.k, .turned = true};
    FINISH(c, pack, &a);
}
static nt_status call_pack_rows(struct nt_cuda_call *c) {
    struct nt_packed w = {.format = NT_WEIGHT_BF16_ROWS, .n = c->dims->d_ff, .k = c->dims->d_model};
    w.data = out(c, (int64_t)nt_packed_bytes(w.format, w.n, w.k), 1);
    const struct nt_pack_args a = {.x = in(c, (int64_t)w.n * w.k, sizeof(float)),
                                   .w = &w,
                                   .table = out(c, (int64_t)w.n * w.k, sizeof(nt_bf16)),
                                   .scale = 1,
                                   .n = w.n,
                                   .k = w.k};
    FINISH(c, pack, &a);
}

static const struct nt_cuda_call_row call_rows[] = {
    {NT_OP_embed,         "embed",               call_embed,              NT_CALL_ALWAYS, false},
    {NT_OP_rmsnorm,       "rmsnorm",             call_rmsnorm,            NT_CALL_ALWAYS, false},
    {NT_OP_gemm,          "gemm qkv",            call_qkv,                NT_CALL_ALWAYS, true },
    {NT_OP_rope_kv,       "rope_kv bf16",        call_rope_bf16,          NT_CALL_ALWAYS, false},
    {NT_OP_rope_kv,       "rope_kv int8",        call_rope_int8,          NT_CALL_ALWAYS, false},
    {NT_OP_attention,     "attention bf16",      call_attention_bf16,     NT_CALL_ALWAYS, false},
    {NT_OP_attention,     "attention int8",      call_attention_int8,     NT_CALL_ALWAYS, false},
    {NT_OP_attention_bwd, "attention_bwd",       call_attention_bwd,      NT_CALL_PROMPT, false},
    {NT_OP_rope_bwd,      "rope_bwd",            call_rope_bwd,           NT_CALL_PROMPT, false},
    {NT_OP_gemm_dgrad,    "dgrad gate_up",       call_dgrad_gate_up,      NT_CALL_PROMPT, false},
    {NT_OP_gemm_dgrad,    "dgrad down",          call_dgrad_down,         NT_CALL_PROMPT, false},
    {NT_OP_gemm_dgrad,    "dgrad gate_up, int4", call_dgrad_gate_up_int4, NT_CALL_PROMPT, false},
    {NT_OP_gemm_dgrad,    "dgrad gate_up, int8", call_dgrad_gate_up_int8, NT_CALL_PROMPT, false},
    {NT_OP_gemm_dgrad,    "dgrad to rank 16",    call_dgrad_rank,         NT_CALL_PROMPT, false},
    {NT_OP_gemm_wgrad,    "wgrad down",          call_wgrad_down,         NT_CALL_PROMPT, false},
    {NT_OP_gemm_wgrad,    "wgrad gate",          call_wgrad_gate,         NT_CALL_PROMPT, false},
    {NT_OP_gemm_wgrad,    "wgrad rank 16, down", call_wgrad_rank,         NT_CALL_PROMPT, false},
    {NT_OP_rmsnorm_bwd,   "rmsnorm_bwd",         call_rmsnorm_bwd,        NT_CALL_PROMPT, false},
    {NT_OP_glu_bwd,       "glu_bwd",             call_glu_bwd,            NT_CALL_PROMPT, false},
    {NT_OP_logit_bwd,     "logit_bwd",           call_logit_bwd,          NT_CALL_PROMPT, false},
    {NT_OP_embed_bwd,     "embed_bwd",           call_embed_bwd,          NT_CALL_PROMPT, false},
    {NT_OP_scatter,       "scatter",             call_scatter,            NT_CALL_PROMPT, false},
    {NT_OP_dropout,       "dropout",             call_dropout,            NT_CALL_PROMPT, false},
    {NT_OP_dropout,       "dropout, added",      call_dropout_add,        NT_CALL_PROMPT, false},
    {NT_OP_adamw,         "adamw",               call_adamw,              NT_CALL_PROMPT, false},
    {NT_OP_sum_squares,   "sum_squares",         call_sum_squares,        NT_CALL_PROMPT, false},
    {NT_OP_sum_parts,     "sum_parts, 4 ranks",  call_sum_parts,          NT_CALL_PROMPT, false},
    {NT_OP_pack,          "pack, turned",        call_pack_turned,        NT_CALL_PROMPT, false},
    {NT_OP_pack,          "pack, and a table",   call_pack_rows,          NT_CALL_PROMPT, false},
    {NT_OP_gather,        "gather",              call_gather,             NT_CALL_DECODE, false},
    {NT_OP_gemm,          "gemm o",              call_o,                  NT_CALL_ALWAYS, true },
    {NT_OP_gemm,          "gemm gate_up",        call_gate_up,            NT_CALL_ALWAYS, true },
    {NT_OP_gemm,          "gemm down",           call_down,               NT_CALL_ALWAYS, true },
    {NT_OP_gemm,          "gemm head",           call_head,               NT_CALL_DECODE, true },
    {NT_OP_gemm,          "gemm qkv, int4",      call_qkv_int4,           NT_CALL_ALWAYS, false},
    {NT_OP_gemm,          "gemm qkv, int8",      call_qkv_int8,           NT_CALL_ALWAYS, false},
    {NT_OP_gemm,          "gemm o, int4",        call_o_int4,             NT_CALL_ALWAYS, false},
    {NT_OP_gemm,          "gemm o, int8",        call_o_int8,             NT_CALL_ALWAYS, false},
    {NT_OP_gemm,          "gemm gate_up, int4",  call_gate_up_int4,       NT_CALL_ALWAYS, false},
    {NT_OP_gemm,          "gemm gate_up, int8",  call_gate_up_int8,       NT_CALL_ALWAYS, false},
    {NT_OP_gemm,          "gemm down, int4",     call_down_int4,          NT_CALL_ALWAYS, false},
    {NT_OP_gemm,          "gemm down, int8",     call_down_int8,          NT_CALL_ALWAYS, false},
    {NT_OP_head_argmax,   "head_argmax",         call_head_argmax,        NT_CALL_DECODE, false},
    {NT_OP_logit_stats,   "logit_stats",         call_stats,              NT_CALL_DECODE, false},
    {NT_OP_logit_topk,    "logit_topk 20",       call_topk,               NT_CALL_DECODE, false},
    {NT_OP_logit_gumbel,  "logit_gumbel",        call_gumbel,             NT_CALL_DECODE, false},
    {NT_OP_logit_edit,    "logit_edit 16",       call_edit,               NT_CALL_DECODE, false},
    {NT_OP_logit_penalty, "logit_penalty 256",   call_penalty,            NT_CALL_DECODE, false},
    {NT_OP_logit_pick,    "logit_pick",          call_pick,               NT_CALL_DECODE, false},
    {NT_OP_logit_sample,  "logit_sample",        call_sample,             NT_CALL_DECODE, false},
};

const struct nt_cuda_call_row *nt_cuda_call_rows(int32_t *n) {
    *n = (int32_t)(sizeof call_rows / sizeof call_rows[0]);
    return call_rows;
}

/* ---- what the host prepares ---- */

/* Room for count elements; the device's address of it. */
static void *put(struct nt_cuda_call_memory *m, int64_t count, size_t element, const void **device) {
    const size_t bytes = ((size_t)count * element + 255) / 256 * 256;
    NT_CHECK(m->used + bytes <= m->bytes);
    void *p = m->host + m->used;
    *device = m->device + m->used;
    m->used += bytes;
    return p;
}

#define PUT(field, type, count)                                                                                        \
    type *field = put(m, (count), sizeof(type), &device);                                                              \
    c->host.field = field;                                                                                             \
    c->device.field = device

static void put_parameters(struct nt_cuda_call *c, struct nt_cuda_call_memory *m) {
    const void *device;
    const int32_t n = c->n_tok;
    PUT(ids, int32_t, n);
    PUT(rows, int32_t, n);
    PUT(top_k, int32_t, n);
    PUT(ones, float, n);
    PUT(top_p, float, n);
    PUT(min_p, float, n);
    PUT(seeds, uint64_t, n);
    PUT(kv_of_head, int32_t, c->dims->n_head);
    for (int32_t i = 0; i < n; i++) {
        uint32_t word[4];
        nt_philox(3, 1, (uint64_t)i, word);
        ids[i] = (int32_t)(word[0] % (uint32_t)c->dims->n_vocab);
        rows[i] = i;
        top_k[i] = 50;
        ones[i] = 1;
        top_p[i] = 0.9f;
        min_p[i] = 0.05f;
        seeds[i] = (uint64_t)i + 1;
    }
    for (int32_t h = 0; h < c->dims->n_head; h++) kv_of_head[h] = h / (c->dims->n_head / c->dims->n_kv);
}

static void put_edits(struct nt_cuda_call *c, struct nt_cuda_call_memory *m) {
    const void *device;
    PUT(edits, struct nt_logit_edit, c->n_tok * EDITS);
    const int32_t apart = c->dims->n_vocab / EDITS;
    for (int32_t i = 0; i < c->n_tok * EDITS; i++)
        edits[i] = (struct nt_logit_edit){i / EDITS, i % EDITS * apart + 1, 0.25f, 1.1f, 0.5f};
}

static void put_seen(struct nt_cuda_call *c, struct nt_cuda_call_memory *m) {
    const void *device;
    PUT(seen, struct nt_seen, (int64_t)c->n_tok * SEEN);
    PUT(seen_begin, int32_t, c->n_tok + 1);
    for (int32_t i = 0; i <= c->n_tok; i++) seen_begin[i] = i * SEEN;
    for (int32_t i = 0; i < c->n_tok * SEEN; i++)
        seen[i] = (struct nt_seen){(int32_t)((int64_t)i % SEEN * c->dims->n_vocab / SEEN), i % 3};
}

static void put_sequences(struct nt_cuda_call *c, struct nt_cuda_call_memory *m, int32_t pos0) {
    const void *device;
    const int32_t each = (c->max_pos + NT_KV_PAGE - 1) / NT_KV_PAGE;
    c->n_pages = each * c->n_seq;
    PUT(pages, int32_t, c->n_pages);
    PUT(seqs, struct nt_attn_seq, c->n_seq);
    for (int32_t i = 0; i < c->n_pages; i++) pages[i] = (int32_t)((int64_t)i * 7919 % c->n_pages); /* a prime: all */
    for (int32_t i = 0; i < c->n_seq; i++)
        seqs[i] = (struct nt_attn_seq){
            .q_row = i * c->max_q, .n_q = c->max_q, .pos0 = pos0, .pages = c->device.pages + (int64_t)i * each};
}

nt_status nt_cuda_calls_begin(struct nt_cuda_call *c, struct nt_cuda_call_memory *m, int32_t n_tok, bool prefill,
                              int32_t context) {
    c->n_tok = n_tok;
    c->n_seq = prefill ? 1 : n_tok;
    c->max_q = prefill ? n_tok : 1;
    c->max_pos = prefill ? n_tok : context;
    m->used = 0;
    put_parameters(c, m);
    if (!prefill) put_edits(c, m);
    if (!prefill) put_seen(c, m);
    put_sequences(c, m, prefill ? 0 : context - 1);
    return c->be->memory->upload(c->be, m->device, m->host, m->used);
}
