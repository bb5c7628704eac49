/* The backward half of the kernel contract: one args struct per op, beside the forward of ops.h.
 *
 * The rules of ops.h hold: fixed order of every sum, whatever the thread count; pointers in the backend's memory; the
 * portable C body is the specification. A gradient is named d<tensor> and has its tensor's shape. Activations and their
 * gradients enter products as bf16 and are summed in f32; the residual stream and its gradient are f32; gradients of
 * weights are f32 and are added to (+=), so that a large batch may be cut into pieces. Sums over tokens ascend in
 * blocks of fixed size, so a body may sum blocks apart and add them in order.
 * With dx f32 in place a backward op adds its branch's gradient to the residual's.
 * Tolerances: normalized mean squared error against double on the same inputs. No errors but bugs of the caller. */
#ifndef NT_OPS_BWD_H
#define NT_OPS_BWD_H

#include "ops.h"

/* dx[t, k] = sum_n dy[t, n] w[n, k] (+ sum_j dy2[t, j] w2[j, k], more of the same sum): the gradient of a
 * product's input, from the weights as they are packed for the forward. out: STORE_F32, ADD_F32 or STORE_BF16. w may be
 * INT4 or INT8 (its numbers are those of nt_unpack_pairs), w2 is not. w may have parts. The padding columns of
 * dy beyond w->n are not read. n ascends in blocks of fixed size, of the matrix or of its parts. Tolerance 1e-6 (f32),
 * 1e-5 (bf16). */
struct nt_gemm_dgrad_args {
    const nt_bf16 *dy; // [n_tok, w->n]
    int64_t lddy;
    const struct nt_packed *w;
    const nt_bf16 *dy2; // [n_tok, w2->n] or NULL
    int64_t lddy2;
    const struct nt_packed *w2; // [w2->n, w->k]
    void *dx;                   // [n_tok, w->k] f32 or bf16
    int64_t lddx;
    int32_t n_tok;
    enum nt_gemm_out out;
};

/* dw[i, j] += alpha * sum_t a[t, i] b[t, j]: the gradient of weights. Tokens ascend in blocks of NT_WGRAD_TOKENS; the
 * sum of each block is complete before it is scaled and added, so calls for whole blocks give the bits of one call for
 * all. m is often small (the rank of an adapter). b_run: 0, or a multiple of NT_PANEL / 2, and column j of b is column
 * j / b_run * 2 b_run + j % b_run of the memory (gate or up of a fused pair). Tolerance 1e-6. */
enum { NT_WGRAD_TOKENS = 1024 };
struct nt_gemm_wgrad_args {
    const nt_bf16 *a; // [n_tok, m]
    const nt_bf16 *b; // [n_tok, n]
    int64_t lda, ldb;
    float *dw; // [m, n]
    int64_t lddw;
    float alpha;
    int32_t n_tok, m, n, b_run;
};
/* What every body asks of its args. */
void nt_gemm_dgrad_check(const struct nt_gemm_dgrad_args *args);
void nt_gemm_wgrad_check(const struct nt_gemm_wgrad_args *args);
/* Where column j of b lies. */
static inline int64_t nt_gemm_wgrad_column(const struct nt_gemm_wgrad_args *a, int32_t j) {
    return a->b_run == 0 ? j : (int64_t)(j / a->b_run) * 2 * a->b_run + j % a->b_run;
}

/* y = x w / rms(x) backward: g = dy w, s = rsqrt(mean(x^2) + eps); dx += s (g - x s^2 mean(g x)); dx16 = bf16(dx);
 * dw += sum_t dy x s. Tolerance 1e-6 (f32). */
struct nt_rmsnorm_bwd_args {
    const float *x;  // [n_tok, d_model], as the forward normalized it
    const float *w;  // [d_model]
    const float *dy; // [n_tok, d_model]
    float *dx;       // [n_tok, d_model]
    nt_bf16 *dx16;   // [n_tok, d_model] or NULL
    float *dw;       // [d_model] or NULL
    float eps;
    int32_t n_tok, d_model;
};

/* gate and up alternate in half panels as nt_packed_gate_row/up_row say, pre and dpre in that order:
 * dgate = (dy up) act'(gate), dup = dy act(gate); y = bf16(act(gate) up) again when asked for (recompute). silu' and
 * gelu_tanh' are the derivatives of what the forward computes, taken at the gate limited to +-64, where they are 0 and
 * 1. dy NULL: only y. Tolerance 1e-5 (bf16 output). */
struct nt_glu_bwd_args {
    const nt_bf16 *pre; // [n_tok, 2 n], before the activation
    const float *dy;    // [n_tok, n] or NULL
    nt_bf16 *dpre;      // [n_tok, 2 n] or NULL with dy; may be pre
    nt_bf16 *y;         // [n_tok, n] or NULL
    int64_t ldpre, lddy, ldy;
    int32_t n_tok, n; /* n: a multiple of NT_PANEL / 2 */
    bool gelu;
};

/* Gradient of nt_attention for whole sequences: pos0 is 0 everywhere, so every key is of this step. dout is rounded to
 * bf16 first. P = 2^(score log2(e) - lse), score from q and the cache again; delta[t, h] = out . dout, dP = dout V^T,
 * dS = scale P (dP - delta); dq = dS K, dk = dS^T q, dv = P^T dout, the last two summed over the heads of the group
 * (Dao et al. 2022, algorithm 4). dqkv rows as qkv of rope_kv, still rotated; dk and dv of a KV head without query
 * heads are 0, rows of no sequence are not touched. Products of bf16 operands, f32 sums; P and dS are rounded to bf16
 * for products. An element of dq sums key pages in ascending order, one of dk or dv query tokens in ascending order,
 * each in parts of fixed size. A NaN or Inf stands where IEEE arithmetic puts one, perhaps as NaN; it may make more NaN
 * among the gradients of its KV head and sequence (invisible keys are multiplied by 0), and none elsewhere. A bf16
 * cache alone: not ROWS_INT8. Tolerance 1e-4. */
struct nt_attention_bwd_args {
    const nt_bf16 *q; // [n_tok, n_head, d_pad]
    const struct nt_kv_layer *kv;
    const struct nt_attn_seq *seqs; // [n_seq]
    const int32_t *kv_of_head;      // [n_head] as in attention
    const nt_bf16 *out;             // [n_tok, ldo]
    const float *lse;               // [n_tok, n_head] as attention gave it
    const float *dout;              // [n_tok, lddo], head h at column h * d_head
    float *dqkv;                    // [n_tok, (n_head + 2 n_kv) * d_head]
    int64_t ldo, lddo;
    float scale;
    int32_t window;
    int32_t n_seq, n_tok, n_head;
    int32_t max_q;
    int32_t max_group; /* as in attention */
};

/* Gradient of rope_kv: rotates q and k back, then the backward of their norms where the forward had them (q_norm and
 * k_norm apart); v is only rounded. dq_norm, dk_norm += sums over tokens and heads: blocks of NT_ROPE_BLOCK tokens, in
 * the order of the sequences, each summed and then added. Rows of no sequence are not touched. Tolerance 1e-5 (bf16
 * output). */
enum { NT_ROPE_BLOCK = 64 };
struct nt_rope_bwd_args {
    const float *dqkv;              // [n_tok, (n_head + 2 n_kv) * d_head], from attention_bwd
    const float *qkv;               // the forward's input; NULL without norms
    nt_bf16 *dqkv16;                // [n_tok, (n_head + 2 n_kv) * d_head]
    const struct nt_attn_seq *seqs; // [n_seq]
    const float *cos, *sin;         // [max_pos, d_head/2] or NULL
    const float *q_norm, *k_norm;   // [d_head] or NULL
    float *dq_norm, *dk_norm;       // [d_head] or NULL
    float eps;
    int32_t n_seq, n_tok, n_head, n_kv, d_head;
    int32_t max_q;
};

/* Gradient of the target's log-probability: dlogits[r, v] = bf16(coef[r] (1[v = target[r]] - exp(logits[r, v] - max[r])
 * / sum_exp[r])), coef = d loss / d log p; the target's as (sum_exp - exp) / sum_exp, which does not cancel. max and
 * sum_exp are those of the whole vocabulary (all ranks'); a target outside [0, n_vocab) is another rank's. Columns
 * n_vocab .. lddl-1 are not touched. Tolerance 1e-5. */
struct nt_logit_bwd_args {
    const float *logits; // [n_row, n_vocab]
    int64_t ld;
    const int32_t *target;             // [n_row]
    const float *max, *sum_exp, *coef; // [n_row]
    nt_bf16 *dlogits;                  // [n_row, n_vocab]
    int64_t lddl;
    int32_t n_row, n_vocab;
};

/* dtable[ids[t] - first, :] += scale * dx[t, :] for ids of this shard, t ascending; the product is rounded, then the
 * sum. Exact. */
struct nt_embed_bwd_args {
    const int32_t *ids; // [n_tok]
    const float *dx;    // [n_tok, d_model]
    float *dtable;      // [n_rows, d_model]
    float scale;
    int32_t n_tok, d_model, first, n_rows;
};

/* The inverse of gather: to[rows[i], :] = from[i, :], every other row of the n_to rows is zero. rows ascend, none
 * twice. Exact. */
struct nt_scatter_args {
    const void *from;    // [n_rows, bytes]
    void *to;            // [n_to, bytes]
    const int32_t *rows; // [n_rows]
    int64_t bytes;       /* a multiple of 4 */
    int32_t n_rows, n_to;
};

/* y = x f where keep(t, c), else 0; f = 1 / (1 - p) in f32, 0 <= p < 1. keep(t, c) when nt_unit_float of word c & 3 of
 * nt_philox(seed, stream[t], (first + c) / 4) is >= p; the stream names the row wherever it lies in a batch, first the
 * column at which a shard begins. x and y bf16 (y may be x), or with add: f32 y += x f where keep(t, c), the product
 * rounded first (the backward: the same mask). (Hinton et al. 2012.) Exact. */
struct nt_dropout_args {
    const void *x; // [n_row, n_col] bf16, f32 with add
    void *y;       // [n_row, n_col]
    int64_t ldx, ldy;
    uint64_t seed;
    const uint64_t *stream; // [n_row]
    float p;
    int32_t n_row, n_col;
    int32_t first; /* a multiple of 4, first + n_col below 2^31 */
    bool add;
};

/* AdamW with decoupled decay (Loshchilov & Hutter 2019), the factors in the order torch.optim.AdamW applies them:
 *   g = grad * grad_scale; p *= 1 - lr decay; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
 *   p -= lr / bias1 * m / (sqrt(v) / sqrt(bias2) + eps),   bias_i = 1 - beta_i^step.
 * Elements are f32 and each operation rounds; the scalars are combined in double (1 - 0.999 has no digits to spare) and
 * then rounded to f32: grad_scale, 1 - lr decay, beta_i, 1 - beta_i, lr / bias1, sqrt(bias2), eps. Tolerance 1e-10. */
struct nt_adamw_args {
    float *p, *m, *v;  // [n]
    const float *grad; // [n]
    double grad_scale, lr, beta1, beta2, eps, decay, bias1, bias2;
    int64_t n;
};

/* *sum = sum of squares in double: blocks of NT_SUM_BLOCK summed apart and added in ascending order; within a block the
 * order is the body's. NaN and Inf stay. sum is one double in the backend's memory. Tolerance 1e-12 relative. */
enum { NT_SUM_BLOCK = 4096 };
struct nt_sum_squares_args {
    const float *x; // [n]
    double *sum;
    int64_t n;
};

/* y[i] = (x[0, i] + x[1, i]) + x[2, i] ..., each sum rounded to f32: parts of a gradient, in the order of their ranks.
 * x and y do not overlap. Exact. */
struct nt_sum_parts_args {
    const float *x; // [n_part, n]
    float *y;       // [n]
    int64_t n;
    int32_t n_part; /* >= 1 */
};

/* Trained numbers into the weights that other ops read. x has n outputs of k inputs, [n, k], or turned, [k, n]. Input i
 * of output j, times scale and then rounded to bf16, goes to column col0 + i of row nt_pack_place(j) of w (BF16 or
 * BF16_ROWS, as the backend's products read it; its data is written), and to table[j, i]. vector takes number
 * nt_pack_place(j) in f32 as it is; k is 1. Those that are NULL are not wanted; table not with turned, vector alone.
 * Nothing else is touched: padding, and what other calls write, stays. Exact; a NaN stays one. */
struct nt_pack_args {
    const float *x;            // [n, k], turned: [k, n]
    const struct nt_packed *w; // [> nt_pack_place(n - 1), >= col0 + k] or NULL
    nt_bf16 *table;            // [n, k] or NULL
    float *vector;             // [> nt_pack_place(n - 1)] or NULL
    float scale;
    int32_t n, k, col0;
    int32_t row0, run; /* run 0, or that many rows alternate with another matrix's: gate or up of a fused pair */
    bool turned;
};
/* What every body asks of its args. */
void nt_pack_check(const struct nt_pack_args *args);
static inline int64_t nt_pack_place(const struct nt_pack_args *a, int32_t j) {
    return a->row0 + (a->run == 0 ? j : (int64_t)(j / a->run) * 2 * a->run + j % a->run);
}

#endif
