#include "ops_cost.h"
#include "attention_cuda.h"
#include "cuda_backend.h"
#include "launch_places.h"
#include "ops_bwd.h"

/* One row per op; the count is compared with ops.def, so a new op has to say what it is. */
#define COST_ROWS(X)                                                                                                   \
    X(embed, PASS)                                                                                                     \
    X(rmsnorm, PASS)                                                                                                   \
    X(gemm, PRODUCT)                                                                                                   \
    X(rope_kv, PASS)                                                                                                   \
    X(attention, ATTENTION)                                                                                            \
    X(logit_stats, PASS)                                                                                               \
    X(logit_topk, PASS)                                                                                                \
    X(logit_gumbel, PASS)                                                                                              \
    X(logit_edit, PASS)                                                                                                \
    X(logit_penalty, PASS)                                                                                             \
    X(logit_pick, PASS)                                                                                                \
    X(gather, PASS)                                                                                                    \
    X(logit_sample, PASS)                                                                                              \
    X(head_argmax, PRODUCT)                                                                                            \
    X(gemm_dgrad, PRODUCT)                                                                                             \
    X(gemm_wgrad, PRODUCT)                                                                                             \
    X(rmsnorm_bwd, PASS)                                                                                               \
    X(glu_bwd, PASS)                                                                                                   \
    X(attention_bwd, ATTENTION)                                                                                        \
    X(rope_bwd, PASS)                                                                                                  \
    X(logit_bwd, PASS)                                                                                                 \
    X(embed_bwd, PASS)                                                                                                 \
    X(scatter, PASS)                                                                                                   \
    X(dropout, PASS)                                                                                                   \
    X(adamw, PASS)                                                                                                     \
    X(sum_squares, PASS)                                                                                               \
    X(sum_parts, PASS)                                                                                                 \
    X(pack, PASS)

#define COUNT(name, kind) +1
enum { N_ROWS = 0 COST_ROWS(COUNT) };
_Static_assert((int)N_ROWS == (int)NT_OP_COUNT, "every op of ops.def has a row in COST_ROWS and a cost below");

static const enum nt_op_kind kinds[] = {
#define ROW(name, kind) [NT_OP_##name] = NT_OP_KIND_##kind,
    COST_ROWS(ROW)
#undef ROW
};

enum nt_op_kind nt_op_kind(enum nt_op op) {
    return kinds[op];
}

enum { F32 = 4, BF16 = 2, I32 = 4 };

/* Rows of d_model bf16 out of the table; f32 rows written. 1 multiplication per element (the scale). */
struct nt_cost nt_op_cost_embed(const struct nt_embed_args *a) {
    const double n = (double)a->n_tok * a->d_model;
    return (struct nt_cost){.flops = n,
                            .read_bytes = n * BF16 + (double)a->n_tok * I32,
                            .write_bytes = n * F32,
                            .stored_bytes = n * BF16,
                            .launches = 1};
}

/* Square and sum, times rsqrt, times w: 4 per element, 1 more with delta. x read, and written back with delta, and
 * once more where it is kept. */
struct nt_cost nt_op_cost_rmsnorm(const struct nt_rmsnorm_args *a) {
    const double n = (double)a->n_rows * a->d_model, w = (double)a->d_model * F32;
    return (struct nt_cost){.flops = n * (a->delta ? 5 : 4),
                            .read_bytes = n * F32 * (a->delta ? 2 : 1) + w + (a->rows ? (double)a->n_rows * I32 : 0),
                            .write_bytes = n * BF16 + (a->delta ? n * F32 : 0) + (a->keep ? n * F32 : 0),
                            .stored_bytes = w,
                            .launches = 1};
}

static double packed_bytes(const struct nt_packed *w) {
    return (double)nt_packed_bytes(w->format, w->n, w->k);
}

/* 2 n_tok n k (performance tables: 2 N per token). Weights once, activations in and out once; a gated epilogue writes
 * half as many columns. */
struct nt_cost nt_op_cost_gemm(const struct nt_gemm_args *a) {
    const bool gated = a->out == NT_GEMM_SWIGLU_BF16 || a->out == NT_GEMM_GEGLU_BF16;
    const bool f32 = a->out == NT_GEMM_STORE_F32 || a->out == NT_GEMM_ADD_F32;
    const double n_tok = a->n_tok, n = a->w->n, k = a->w->k;
    const double stored = packed_bytes(a->w) + (a->bias ? n * F32 : 0);
    const double out = n_tok * (gated ? n / 2 : n) * (f32 ? F32 : BF16);
    const double k2 = a->w2 ? a->w2->k : 0, stored2 = a->w2 ? packed_bytes(a->w2) : 0;
    return (struct nt_cost){.flops = 2 * n_tok * n * (k + k2),
                            .read_bytes =
                                stored + stored2 + n_tok * (k + k2) * BF16 + (a->out == NT_GEMM_ADD_F32 ? out : 0),
                            .write_bytes = out + (a->pre ? n_tok * n * BF16 : 0),
                            .stored_bytes = stored + stored2,
                            .launches = n_tok > 0};
}

double nt_kv_position_bytes(const struct nt_kv_layer *kv) {
    return (double)kv->n_kv * (double)nt_kv_head_elems(kv->format, kv->d_head) * sizeof(nt_bf16) / NT_KV_PAGE;
}

/* Rotation of q and k: 3 per element (two products, one sum); the norm 4 per element where there is one. qkv in, q
 * padded to d_pad and one cache position per token out. */
struct nt_cost nt_op_cost_rope_kv(const struct nt_rope_kv_args *a) {
    const double n_tok = a->n_tok, n_head = a->n_head, n_kv = a->kv->n_kv, d_head = a->kv->d_head;
    const double q = n_tok * n_head * d_head, k = n_tok * n_kv * d_head;
    const double cache = n_tok * nt_kv_position_bytes(a->kv);
    return (struct nt_cost){.flops = (a->cos ? 3 * (q + k) : 0) + (a->q_norm ? 4 * q : 0) + (a->k_norm ? 4 * k : 0),
                            .read_bytes = (q + 2 * k) * F32 + (a->cos ? n_tok * d_head * F32 : 0),
                            .write_bytes = n_tok * n_head * nt_d_pad(a->kv->d_head) * BF16 + cache,
                            .stored_bytes = cache,
                            .launches = 1};
}

/* Sum over the n_q tokens from pos0 of the positions each of them sees: pos + 1, or the window if that is less. */
double nt_visible_pairs(const struct nt_attn_seq *s, int32_t window) {
    const double n = s->n_q, first = (double)s->pos0 + 1;
    if (window <= 0 || (double)s->pos0 + n <= window) return n * first + n * (n - 1) / 2;
    double growing = window - first; /* tokens that see less than the window */
    if (growing < 0) growing = 0;
    return growing * first + growing * (growing - 1) / 2 + (n - growing) * window;
}

static double visible_positions(const struct nt_attn_seq *s, int32_t window) {
    const double all = (double)s->pos0 + s->n_q;
    const double hidden = window > 0 ? (double)s->pos0 + 1 - window : 0; /* before the first token's window */
    return hidden > 0 ? all - hidden : all;
}

/* q k^T and p v: 4 d_head per query head and visible position (performance tables: 4 h hd ctx per layer); the softmax
 * runs beside the matrix units and is not counted. The cache of all visible positions once per sequence, q in, out and
 * lse once. */
static struct nt_cost sequence_cost(const struct nt_attention_args *a, const struct nt_attn_seq *s) {
    const double n_head = a->n_head, d_head = a->kv->d_head, rows = (double)s->n_q * n_head;
    const double cache = visible_positions(s, a->window) * nt_kv_position_bytes(a->kv);
    return (struct nt_cost){.flops = nt_visible_pairs(s, a->window) * n_head * 4 * d_head,
                            .read_bytes = cache + rows * nt_d_pad(a->kv->d_head) * BF16,
                            .write_bytes = rows * (d_head * BF16 + (a->lse ? F32 : 0)),
                            .stored_bytes = cache};
}

/* Launches over n rows of which one has so many bytes in the workspace. */
static int64_t launches_of(int32_t n_row, size_t place) {
    const int64_t most = nt_places(NT_CUDA_WORKSPACE_BYTES, place, n_row);
    return (n_row + most - 1) / most;
}

/* On a GPU one kernel for longer chunks and one for short ones, each where the bounds of the lengths allow any; where a
 * sequence may have several splits, a third merges those of the short ones. */
static void add_launches(const struct nt_attention_args *a, struct nt_attention_cost *c) {
    const struct nt_attn_short cut = nt_attn_short_cut(a, NT_CUDA_WORKSPACE_BYTES);
    const int32_t tokens = nt_attn_prefill_tokens(a, NT_CUDA_WORKSPACE_BYTES);
    if (a->min_q <= NT_ATTN_DECODE_Q)
        c->decode.launches = (a->n_seq + cut.n_seq - 1) / cut.n_seq * (1 + (cut.n_split > 1));
    if (a->max_q > NT_ATTN_DECODE_Q) c->prefill.launches = (a->n_tok + tokens - 1) / tokens;
}

struct nt_attention_cost nt_attention_cost(const struct nt_attention_args *a) {
    struct nt_attention_cost c = {0};
    for (int32_t i = 0; i < a->n_seq; i++) {
        const struct nt_attn_seq *s = &a->seqs[i];
        if (s->n_q > 0) nt_cost_add(s->n_q == 1 ? &c.decode : &c.prefill, sequence_cost(a, s));
    }
    if (a->n_seq > 0 && a->n_tok > 0) add_launches(a, &c);
    return c;
}

struct nt_cost nt_op_cost_attention(const struct nt_attention_args *a) {
    struct nt_attention_cost c = nt_attention_cost(a);
    nt_cost_add(&c.decode, c.prefill);
    return c.decode;
}

/* A pass over logits: compare, subtract, exponential, sum. Two kernels: chunks of rows, then their joining. */
struct nt_cost nt_op_cost_logit_stats(const struct nt_logit_stats_args *a) {
    const double n = (double)a->n_row * a->n_vocab;
    return (struct nt_cost){.flops = n * (a->sum_exp ? 4 : 1),
                            .read_bytes = n * F32,
                            .write_bytes = (double)a->n_row * (F32 + (a->sum_exp ? F32 : 0) + (a->argmax ? I32 : 0)),
                            .launches = 2};
}

/* One comparison per logit; the k kept ones cost less than the pass. Two kernels: maxima of groups, then the k. */
struct nt_cost nt_op_cost_logit_topk(const struct nt_logit_topk_args *a) {
    const double n = (double)a->n_row * a->n_vocab;
    return (struct nt_cost){.flops = n,
                            .read_bytes = n * F32,
                            .write_bytes = (double)a->n_row * a->k * (F32 + I32),
                            .launches = 2 * launches_of(a->n_row, nt_logit_topk_place(a->n_vocab))};
}

/* Scale, two logarithms, sum, compare; the random word (a quarter of a Philox block per logit, 10 rounds of 2 products
 * on 4 words) counts as 10. Two kernels as for the statistics. */
struct nt_cost nt_op_cost_logit_gumbel(const struct nt_logit_gumbel_args *a) {
    const double n = (double)a->n_row * a->n_vocab;
    return (struct nt_cost){.flops = 15 * n,
                            .read_bytes = n * F32 + (double)a->n_row * (F32 + 2 * 8),
                            .write_bytes = (double)a->n_row * (F32 + I32),
                            .launches = 2};
}

/* Each edit: itself and its logit, read and written. The scale is a pass over all rows (those of scale 1 too). */
struct nt_cost nt_op_cost_logit_edit(const struct nt_logit_edit_args *a) {
    const double edits = a->n_edit, n = a->scale ? (double)a->n_row * a->n_vocab : 0;
    return (struct nt_cost){.flops = 3 * edits + n,
                            .read_bytes = edits * ((double)sizeof(struct nt_logit_edit) + F32) + n * F32 +
                                          (a->scale ? (double)a->n_row * F32 : 0),
                            .write_bytes = edits * F32 + n * F32,
                            .launches = (a->n_edit > 0) + (a->scale != NULL)};
}

/* Each token named: itself and its logit, read and written; a row's newest one counts as one more. */
struct nt_cost nt_op_cost_logit_penalty(const struct nt_logit_penalty_args *a) {
    const double rows = a->n_row, named = (double)a->n_seen + (a->last ? rows : 0);
    return (struct nt_cost){.flops = 4 * named,
                            .read_bytes = (double)a->n_seen * (double)sizeof(struct nt_seen) + named * F32 +
                                          rows * (3 * F32 + 2 * I32) + (a->last ? rows * I32 : 0),
                            .write_bytes = named * F32,
                            .launches = a->n_row > 0};
}

struct nt_cost nt_op_cost_logit_pick(const struct nt_logit_pick_args *a) {
    const double rows = a->n_row;
    return (struct nt_cost){.read_bytes = rows * (I32 + F32), .write_bytes = rows * F32, .launches = 1};
}

struct nt_cost nt_op_cost_gather(const struct nt_gather_args *a) {
    const double bytes = (double)a->n_rows * (double)a->bytes;
    return (struct nt_cost){
        .read_bytes = bytes + (double)a->n_rows * I32, .write_bytes = bytes, .launches = a->n_rows > 0};
}

/* Scale, exponential, sum, and the maxima of groups; draws touch the few kept logits only. */
struct nt_cost nt_op_cost_logit_sample(const struct nt_logit_sample_args *a) {
    const double n = (double)a->n_row * a->n_vocab;
    return (struct nt_cost){.flops = 5 * n,
                            .read_bytes = n * F32 + (double)a->n_row * (4 * F32 + 2 * 8),
                            .write_bytes = (double)a->n_row * I32,
                            .launches = 2 * launches_of(a->n_row, nt_logit_sample_place(a->n_vocab))};
}

/* The product of gemm, 15 more per logit for a draw; pairs out. */
struct nt_cost nt_op_cost_head_argmax(const struct nt_head_argmax_args *a) {
    const double n_row = a->n_row, stored = packed_bytes(a->w);
    return (struct nt_cost){.flops = n_row * a->w->n * (2.0 * a->w->k + (a->inv_temp ? 15 : 1)),
                            .read_bytes = stored + n_row * a->w->k * BF16,
                            .write_bytes = n_row * (F32 + I32),
                            .stored_bytes = stored,
                            .launches = 2 * launches_of(a->n_row, nt_head_argmax_place(a->n_vocab))};
}

/* The forward's products; dx is read too where it is added to. */
struct nt_cost nt_op_cost_gemm_dgrad(const struct nt_gemm_dgrad_args *a) {
    const double n_tok = a->n_tok, n = a->w->n, k = a->w->k, n2 = a->w2 ? a->w2->n : 0;
    const double stored = packed_bytes(a->w) + (a->w2 ? packed_bytes(a->w2) : 0);
    const double out = n_tok * k * (a->out == NT_GEMM_STORE_BF16 ? BF16 : F32);
    return (struct nt_cost){.flops = 2 * n_tok * (n + n2) * k,
                            .read_bytes = stored + n_tok * (n + n2) * BF16 + (a->out == NT_GEMM_ADD_F32 ? out : 0),
                            .write_bytes = out,
                            .stored_bytes = stored,
                            .launches = n_tok > 0};
}

/* dw is read, scaled and written; gradients are as large as their weights and are no activations. Two kernels where
 * blocks of tokens leave their sums. */
struct nt_cost nt_op_cost_gemm_wgrad(const struct nt_gemm_wgrad_args *a) {
    const int64_t step = nt_wgrad_cut(a, NT_CUDA_WORKSPACE_BYTES).n_block * NT_WGRAD_TOKENS;
    const double n_tok = a->n_tok, m = a->m, n = a->n;
    return (struct nt_cost){.flops = 2 * n_tok * m * n + 2 * m * n,
                            .read_bytes = n_tok * (m + n) * BF16 + m * n * F32,
                            .write_bytes = m * n * F32,
                            .stored_bytes = 2 * m * n * F32,
                            .launches = step > 0 ? 2 * ((a->n_tok + step - 1) / step) : n_tok > 0};
}
