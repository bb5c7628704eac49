/* The kernel contract: one args struct per op, shared by every backend and instruction set.
 *
 * Rules for all ops
 *  - Shapes stand in trailing comments, row-major; strides ("ld") count elements. Pointers are 64-byte aligned and
 * never alias unless said. The caller validated shapes; a body may NT_CHECK but reports no user errors.
 *  - Batch invariance: the result of a row (token, sequence) depends only on that row's inputs: every sum has one fixed
 *    order that does not depend on n_tok, on tile position, on the thread count or on its neighbours. Bodies of
 * different ISAs may differ within the tolerance; one body never differs from itself.
 *  - Portable C bodies (*_cpu.c) are the specification; tuned bodies override their row (cpu_backend.c).
 *  - Inputs that hold NaN or Inf give NaN or Inf at the positions IEEE arithmetic gives them.
 *  - Every pointer inside an args struct is in the memory of the backend that runs it (backend.h), but for the structs
 * nt_packed and nt_kv_layer themselves. A body may run later than it returns, in order with the others of its backend.
 * Tolerances are normalized mean squared errors against a double-precision reference on the same bf16 inputs. */
#ifndef NT_OPS_H
#define NT_OPS_H

#include "dtype.h"
#include "status.h"
#include <stdbool.h>
#include <stdint.h>

struct nt_backend;

/* ---- packed weights -------------------------------------------------------------------------------------------- */

/* BF16: panels of NT_PANEL output rows for CPUs, [n_pad/NT_PANEL][k_pad/2][NT_PANEL][2], n padded to NT_PANEL and k to
 * 2 with zeros: one (panel, k pair) is two 64-byte lines, read front to back. BF16_ROWS: row-major for GPUs,
 * [n_pad][k_pad], n padded to NT_PANEL and k to 8 (16-byte loads) with zeros. A backend says which one it reads.
 * INT4 (every backend): w[n, k] = scale * q, q an integer in [-7, 7], one scale for a row's NT_INT4_GROUP k: scale =
 * bf16(max|w| / 7) (NaN where one is not finite), q = round-to-nearest-even(w / scale), 0 where scale is 0 or NaN.
 * [n_pad/NT_PANEL][n_group][NT_INT4_BLOCK bytes]: a block holds q + 8 of NT_PANEL rows by one group in 4 bits each, in
 * the order in which a warp feeds mma.m16n8k16 (pack.c), then NT_PANEL bf16 scales.
 * INT8 (every backend): the same with q in [-127, 127] and scale = bf16(max|w| / 127), in the same groups: one outlier
 * spoils 128 numbers and not a row, for 1.6 % more bytes. A block holds q as the pairs of a BF16 panel,
 * [NT_INT4_GROUP/2][NT_PANEL][2] int8, then the scales. */
enum {
    NT_PANEL = 32,
    NT_INT4_GROUP = 128, /* of INT8 too */
    NT_INT4_BLOCK = NT_PANEL * NT_INT4_GROUP / 2 + 2 * NT_PANEL,
    NT_INT8_BLOCK = NT_PANEL * NT_INT4_GROUP + 2 * NT_PANEL
};
enum nt_weight_format { NT_WEIGHT_BF16, NT_WEIGHT_BF16_ROWS, NT_WEIGHT_INT4, NT_WEIGHT_INT8, NT_WEIGHT_FORMAT_COUNT };
/* Integers with scales. */
static inline bool nt_weight_is_quantized(enum nt_weight_format format) {
    return format == NT_WEIGHT_INT4 || format == NT_WEIGHT_INT8;
}

/* Rows that have numbers in k columns and zeros in all others: those of one adapter of several in a matrix. */
struct nt_packed_part {
    int32_t row0, n;
    int32_t run; /* row j is row0 + j; or NT_PANEL / 2: row0 + j / run * 2 run + j % run, as gate or up have them */
    int32_t k;   /* even; the columns follow those of the part before */
};
enum { NT_PACKED_PARTS = 3 };

struct nt_packed {
    enum nt_weight_format format;
    int32_t n, k; /* logical: y[n] = sum over k; k is even */
    const void *data;
    /* 0, or the matrix is zero outside these parts, which have all columns. A body may leave out products with such
     * zeros, or not: a NaN or Inf of x reaches the rows of its column's part, and maybe others. */
    int32_t n_part;
    struct nt_packed_part part[NT_PACKED_PARTS];
};

const char *nt_weight_format_name(enum nt_weight_format format);            /* as model.weight_dtype has it */
void nt_packed_check_parts(const struct nt_packed *w);                      /* that they are as said above */
size_t nt_packed_bytes(enum nt_weight_format format, int32_t n, int32_t k); /* data, 64-byte multiple */
/* Writes row `row` (already permuted for its epilogue) of a packed matrix; values [k] bf16. Rows >= n and the k padding
 * must have been zeroed by the caller (fresh arena memory is). Rows of different panels may be packed by different
 * threads. */
void nt_pack_row(const struct nt_packed *w, void *data, int32_t row, const nt_bf16 *values);
/* The values [k] of a row of a BF16 or BF16_ROWS matrix. */
void nt_unpack_row(const struct nt_packed *w, int32_t row, nt_bf16 *values);
/* Where a block of a quantized matrix lies, and how long it is. */
const unsigned char *nt_packed_block(const struct nt_packed *w, int32_t panel, int32_t group);
int32_t nt_packed_block_bytes(enum nt_weight_format format);
/* The numbers of a block: q [k in the group][row in the panel], scale [row]. */
void nt_unpack_block(const struct nt_packed *w, int32_t panel, int32_t group, int8_t q[NT_INT4_GROUP][NT_PANEL],
                     float scale[NT_PANEL]);
/* bf16(scale * q) of a block, as a BF16 panel has them: [NT_INT4_GROUP/2][NT_PANEL][2]. */
void nt_unpack_pairs(const struct nt_packed *w, int32_t panel, int32_t group, nt_bf16 *to);
/* For NT_GEMM_SWIGLU/GEGLU: packed row of gate row j and up row j; gate and up alternate in half panels of NT_PANEL/2.
 * The matrix has n = 2 * round_up(d_ff, NT_PANEL/2). */
int32_t nt_packed_gate_row(int32_t j);
int32_t nt_packed_up_row(int32_t j);

/* ---- ops ------------------------------------------------------------------------------------------------------- */

/* x[t, :] = table[ids[t] - first, :] * scale for ids in [first, first + n_rows), else 0 (another rank's shard). Exact.
 */
struct nt_embed_args {
    const int32_t *ids;   // [n_tok]
    const nt_bf16 *table; // [n_rows, d_model]
    float *x;             // [n_tok, d_model]
    float scale;          /* 1, or sqrt(d_model) for Gemma */
    int32_t n_tok, d_model, first, n_rows;
};

/* For each output row r, t = rows ? rows[r] : r:  if (delta) x[t] += delta[t];  y[r] = bf16(x[t] * rsqrt(mean(x[t]^2) +
 * eps) * w);  if (keep) keep[r] = x[t]. With rows, delta must be NULL. x f32 in place. (Zhang & Sennrich 2019,
 * RMSNorm.) Tolerance 1e-5 (bf16 output rounding). */
struct nt_rmsnorm_args {
    float *x;            // [n_tok, d_model]
    const float *delta;  // [n_tok, d_model] or NULL
    const float *w;      // [d_model]
    nt_bf16 *y;          // [n_rows, ldy]
    float *keep;         // [n_rows, d_model] or NULL: a training forward's copy of what was normalized
    const int32_t *rows; // [n_rows] or NULL
    float eps;
    int32_t n_rows, d_model;
    int64_t ldy; /* >= d_model; columns d_model..ldy-1 are not touched */
};

/* acc[t, n] = sum_k x[t, k] * w[n, k] in f32, k pairs in ascending order from zero, then + bias[n], then the epilogue:
 *   STORE_F32  y = acc            ADD_F32  y += acc           STORE_BF16  y = bf16(acc)
 *   SWIGLU_BF16  y[t, j] = bf16(silu(gate) * up),  GEGLU_BF16  y[t, j] = bf16(gelu_tanh(gate) * up), rows packed by
 *   nt_packed_gate_row/up_row; y has n/2 columns.
 * Products are exact bf16 x bf16; within a k pair the order of the two products is the body's choice. With INT4 and
 * INT8 weights CPUs take bf16(scale * q), as gemm_dgrad does, so the backward is that of the function computed; CUDA
 * takes acc = sum over groups of scale * (sum over the group of x q), the order of the groups being the body's fixed
 * choice. An adapter's second product goes on in the same chain: after k, acc continues with sum_j x2[t, j] * w2[n, j],
 * then the bias (CUDA with integers: in the body's fixed order, too). w2 is BF16 or BF16_ROWS whatever w is, and may
 * have parts. With pre, the gated epilogues also store bf16(acc) of all n packed columns: what the backward needs.
 * Tolerance 1e-6 (f32 output), 1e-5 (bf16 output). Weights [n, k] packed. */
/* Elements from row to row where rows of n are stored for a product to read: rows a multiple of 2 KiB apart share few
 * sets of an L1, so that a body would have to copy them apart. */
static inline int64_t nt_row_ld(int64_t n) {
    return n % 1024 == 0 ? n + 32 : n;
}
enum nt_gemm_out {
    NT_GEMM_STORE_F32,
    NT_GEMM_ADD_F32,
    NT_GEMM_STORE_BF16,
    NT_GEMM_SWIGLU_BF16,
    NT_GEMM_GEGLU_BF16,
    NT_GEMM_OUT_COUNT
};
struct nt_gemm_args {
    const nt_bf16 *x; // [n_tok, k]
    int64_t ldx;
    const struct nt_packed *w;
    const float *bias; // [n] in packed row order, or NULL
    void *y;           // [n_tok, n or n/2] f32 or bf16
    int64_t ldy;
    int32_t n_tok;
    enum nt_gemm_out out;
    const nt_bf16 *x2; // [n_tok, w2->k] or NULL
    int64_t ldx2;
    const struct nt_packed *w2; // [n, w2->k] or NULL
    nt_bf16 *pre;               // [n_tok, n] or NULL, and NULL unless gated
    int64_t ldpre;
};

/* The paged KV cache of one layer. A page holds NT_KV_PAGE positions of every local KV head; page p of this layer
 * starts at base + p * page_stride; KV head h of a page at h * nt_kv_head_elems; d_pad = round_up(d_head, 16).
 *   PAIRED (CPUs)      K [d_pad/2][NT_KV_PAGE][2] (d pairs outer: a position is one column), V [NT_KV_PAGE/2][d_pad][2]
 *                      (position pairs outer). Whoever hands out a page zeroes it first: unwritten slots are 0.
 *   ROWS (GPUs)        K [NT_KV_PAGE][d_pad], V [NT_KV_PAGE][d_pad], padding columns written as 0; slots not yet
 *                      written hold anything and are never used.
 *   ROWS_INT8 (GPUs)   K and V as ROWS in int8, then two float [NT_KV_PAGE]: the scales of K and of V, one per head and
 *                      position: scale = max|x| / 127 (1 where that is 0, NaN for a row with a NaN),
 *                      int8 = round-to-nearest-even(x / scale).
 * Position pos of a sequence lies in pages[pos / NT_KV_PAGE], slot pos % NT_KV_PAGE. */
enum { NT_KV_PAGE = 64 };
enum nt_kv_format { NT_KV_PAIRED, NT_KV_ROWS, NT_KV_ROWS_INT8, NT_KV_FORMAT_COUNT };
struct nt_kv_layer {
    nt_bf16 *base;
    int64_t page_stride; /* in units of nt_bf16 */
    int32_t n_kv, d_head;
    enum nt_kv_format format;
};
static inline int32_t nt_d_pad(int32_t d_head) {
    return (d_head + 15) & ~15;
}
/* Units of nt_bf16 of one KV head in one page. */
static inline int64_t nt_kv_head_elems(enum nt_kv_format format, int32_t d_head) {
    const int64_t both = (int64_t)2 * NT_KV_PAGE * nt_d_pad(d_head);
    return format == NT_KV_ROWS_INT8 ? both / 2 + 4 * NT_KV_PAGE : both;
}

/* A sequence's tokens of this step: n_q consecutive tokens from row q_row, at positions pos0 .. pos0 + n_q - 1. A
 * sequence with n_q 0 is skipped (the unused places of a captured step). */
struct nt_attn_seq {
    int32_t q_row, n_q, pos0;
    const int32_t *pages; // [ceil((pos0 + n_q) / NT_KV_PAGE)] page numbers
};

/* qkv row t: [n_head * d_head] q, then [n_kv * d_head] k, then v. For each q and k head: optional RMS norm over d_head
 * with q_norm/k_norm, then rotate-half RoPE (Su et al. 2021): pairs (j, j + d_head/2) with cos/sin[pos, j]. q goes to
 * bf16 [n_tok, n_head, d_pad] with zeroed padding; k and v go to the cache as bf16. rope NULL table rows are not
 * allowed; a layer without rotation (NoPE) passes cos = NULL. Tolerance 1e-5. */
struct nt_rope_kv_args {
    const float *qkv; // [n_tok, (n_head + 2 n_kv) * d_head]
    nt_bf16 *q;       // [n_tok, n_head, d_pad]
    const struct nt_kv_layer *kv;
    const struct nt_attn_seq *seqs; // [n_seq]
    const float *cos, *sin;         // [max_pos, d_head/2]
    const float *q_norm, *k_norm;   // [d_head] or NULL
    float eps;
    int32_t n_seq, n_tok, n_head;
    int32_t max_q; /* no n_q is larger; a bound for launches, CPUs ignore it */
};

/* out[t, h, :] = sum over visible positions p of softmax_p(scale * q[t, h] . k[p, h / (n_head/n_kv)]) * v[p].
 * Visible: p <= pos(t) and, with window > 0, p > pos(t) - window. Head h uses KV head kv_of_head[h].
 * Fixed order: pages in ascending order, each page of NT_KV_PAGE keys as one block of an online softmax (Milakov &
 * Gimelshein 2018; Dao et al. 2022) with running maximum and sum in f32; probabilities are rounded to bf16 for the
 * product with V, the sum uses the unrounded f32 values; a page without visible keys leaves the row's state unchanged.
 * A body may begin a new state at fixed positions and merge the states in ascending order (CUDA: every 512).
 * Therefore the result does not depend on how a prompt is cut into chunks. int8: score = q . k8 * (k_scale * scale);
 * probabilities become bf16(p * v_scale), 0 where p is 0, for the product with v8. Tolerance 1e-4 (bf16 probabilities
 * and output). out bf16, padding columns are not written. lse[t, h] = log2 of the sum over visible positions of
 * exp(score), which attention_bwd asks for; NaN where no score is finite, or one is NaN or Inf. Tolerance 1e-5. */
struct nt_attention_args {
    const nt_bf16 *q; // [n_tok, n_head, d_pad]
    const struct nt_kv_layer *kv;
    const struct nt_attn_seq *seqs; // [n_seq]
    const int32_t *kv_of_head;      // [n_head] local KV head of each local query head, non-decreasing
    nt_bf16 *out;                   // [n_tok, ldo], head h at column h * d_head
    float *lse;                     // [n_tok, n_head] or NULL: not wanted
    int64_t ldo;
    float scale;
    int32_t window; /* 0: all */
    int32_t n_seq, n_tok, n_head;
    int32_t max_q, max_pos; /* no n_q and no pos0 + n_q is larger; bounds for launches, CPUs ignore them */
    int32_t min_q;          /* no n_q but 0 is smaller; another such bound, 0 where nobody knows */
    int32_t max_group;      /* no KV head has more query heads; likewise */
};

/* Per row r: max[r], argmax[r] (lowest index among equals), sum_exp[r] = sum exp(x - max) in f32 with a fixed order.
 * NaN logits: max is NaN and argmax the first NaN. Tolerance 1e-6 relative. */
struct nt_logit_stats_args {
    const float *logits; // [n_row, n_vocab]
    int64_t ld;
    float *max, *sum_exp; // [n_row]; sum_exp may be NULL
    int32_t *argmax;      // [n_row], may be NULL
    int32_t n_row, n_vocab;
};

/* Per row: the k largest logits, best first, ties by lower index. Exact. 1 <= k <= n_vocab. */
struct nt_logit_topk_args {
    const float *logits; // [n_row, n_vocab]
    int64_t ld;
    float *value;   // [n_row, k]
    int32_t *index; // [n_row, k]
    int32_t n_row, n_vocab, k;
};

/* Per row: argmax over v of logits[r, v] * inv_temp[r] + g(v), g(v) = -log(-log(u)), u = nt_unit_float of word (first +
 * v) & 3 of nt_philox(seed[r], stream[r], (first + v) >> 2); `first` is the shard's first vocabulary index, so the
 * noise of a token does not depend on the sharding. A row with inv_temp 0 is skipped. value[r]: the winning sum. log by
 * the polynomial of cpu_math (same bits for every ISA is required here: portable and tuned bodies evaluate the same
 * operations in the same order). */
struct nt_logit_gumbel_args {
    const float *logits; // [n_row, n_vocab]
    int64_t ld;
    const float *inv_temp;         // [n_row]
    const uint64_t *seed, *stream; // [n_row]
    float *value;                  // [n_row]
    int32_t *index;                // [n_row], in the shard
    int32_t n_row, n_vocab, first;
};

/* Per row one token, drawn after truncation without sorting the row. y[v] = logits[r, v] * inv_temp[r] in f32 (inv_temp
 * 0: the token is the argmax, nothing is drawn). Better: larger y, then lower v; m = y of the best. e(v) = floor(2^40 *
 * exp(y[v] - m)), exp as cpu_math: integers, so that sums do not depend on an order.
 *   K = the top_k[r] best; all when top_k[r] <= 0 or >= n_vocab
 *   S = sum of e over K; where K is all: sum over blocks b of NT_SAMPLE_BLOCK logits of floor(S_b * e(b) / 2^40), S_b
 *       the block's sum relative to its own best and e(b) the e of that best (so the row is read once)
 *   P = the shortest prefix of K, best first, with sum of e >= max(1, floor(top_p[r] * S)), the product in f64; K when
 *       there is none or top_p[r] >= 1
 *   M = the members of P with y >= m + log(min_p[r]), and > -infinity; min_p[r] <= 0: no such limit; the best always
 * index[r] = argmax over M of y[v] + g(v), g as logit_gumbel with first 0; -1 when m is not finite. Exact: the same
 * bits on every backend. (Gumbel-max as in Kool et al. 2019; selection by threshold as in FlashInfer 2025.) */
enum { NT_SAMPLE_BLOCK = 4096 };
struct nt_logit_sample_args {
    const float *logits; // [n_row, n_vocab], the whole vocabulary
    int64_t ld;
    const float *inv_temp, *top_p, *min_p; // [n_row]
    const int32_t *top_k;                  // [n_row]
    const uint64_t *seed, *stream;         // [n_row]
    int32_t *index;                        // [n_row]
    int32_t n_row, n_vocab;
};

/* The vocabulary head fused with the choice of a token: acc[r, v] as gemm, never stored (on a device with the bits of
 * its gemm, so that a row may go either way); per row the best v of acc (inv_temp NULL or inv_temp[r] 0), or of acc *
 * inv_temp[r] + g(first + v) as logit_gumbel. Only v < n_vocab <= w->n (padding rows) take part. NaN and ties as
 * logit_stats; n_vocab 0: value -infinity. index[r] = first + v; -1 where value is not finite, as logit_sample. value
 * tolerance 1e-10; the index may differ from a reference where two values do not differ by more. */
struct nt_head_argmax_args {
    const nt_bf16 *x; // [n_row, k]
    int64_t ldx;
    const struct nt_packed *w;     // [n_vocab local, k]
    const float *inv_temp;         // [n_row] or NULL
    const uint64_t *seed, *stream; // [n_row], read where inv_temp is not 0
    float *value;                  // [n_row]
    int32_t *index;                // [n_row]
    int32_t n_row, n_vocab, first;
};

/* Rows: to[i, :] = from[rows[i], :], bytes each, a multiple of 4. `to` may be `from` where rows ascend, on
 * CPUs only. Exact. */
struct nt_gather_args {
    const void *from;    // [*, bytes]
    void *to;            // [n_rows, bytes]
    const int32_t *rows; // [n_rows]
    int64_t bytes;
    int32_t n_rows;
};

/* In place, for each edit: v = x[row, id] + bias; v = v > 0 ? v / divide : v * divide; x[row, id] = v - minus. No two
 * edits of one call name the same element; id is an index in the shard and is skipped outside [0, n_vocab). Then, with
 * scale, x[r, :] *= scale[r] for rows whose scale is not 1. (Logit bias of the sampler; minus = infinity masks.) Exact
 * in f32. */
struct nt_logit_edit {
    int32_t row, id;
    float bias, divide, minus;
};
struct nt_logit_edit_args {
    float *logits; // [n_row, n_vocab]
    int64_t ld;
    const struct nt_logit_edit *edits; // [n_edit]
    const float *scale;                // [n_row] or NULL
    int32_t n_row, n_vocab, n_edit;
};

/* In place, for each token a row's sequence has said: x = x > 0 ? x / repetition[r] : x * repetition[r] (Keskar et al.
 * 2019, CTRL), then, where its count in the answer is above 0, x -= presence[r] + frequency[r] * count (OpenAI API; the
 * sum first). What was said: seen[begin[r] .. begin[r + 1]), distinct ids of the whole vocabulary, prompts' with count
 * 0; and, where last_row[r] >= 0, one time more last[last_row[r]], which need not be among them and is nothing below 0:
 * the token of a step that the host has not seen yet. Ids outside the shard [first, first + n_vocab) are skipped. Each
 * operation rounds once, so the bits are the same everywhere. */
struct nt_seen {
    int32_t id, count;
};
struct nt_logit_penalty_args {
    float *logits; // [n_row, n_vocab]
    int64_t ld;
    const struct nt_seen *seen;                     // [begin[n_row]]
    const int32_t *begin;                           // [n_row + 1]
    const int32_t *last;                            // [*]; NULL: no row has one
    const int32_t *last_row;                        // [n_row]
    const float *repetition, *presence, *frequency; // [n_row]
    int32_t n_row, n_vocab, first;
    int64_t n_seen; /* begin[n_row] */
};

/* value[r] = logits[r, id[r] - first], or -infinity when that is outside [0, n_vocab). Exact. */
struct nt_logit_pick_args {
    const float *logits; // [n_row, n_vocab]
    int64_t ld;
    const int32_t *id; // [n_row], in the whole vocabulary
    float *value;      // [n_row]
    int32_t n_row, n_vocab, first;
};

/* ---- the table -------------------------------------------------------------------------------------------------- */

enum nt_op {
#define NT_OP(name, doc) NT_OP_##name,
#include "ops.def"
#undef NT_OP
    NT_OP_COUNT
};

/* The args of the backward ops are in ops_bwd.h. */
#define NT_OP(name, doc) struct nt_##name##_args;
#include "ops.def"
#undef NT_OP

/* Filled once at start; a slot is never NULL. */
struct nt_ops {
#define NT_OP(name, doc) nt_status (*name)(struct nt_backend * be, const struct nt_##name##_args *args);
#include "ops.def"
#undef NT_OP
};

const char *nt_op_name(enum nt_op op);
const char *nt_op_doc(enum nt_op op);

#endif
