/* The cost of the backward ops: ops_cost.h. */
#include "ops_bwd.h"
#include "ops_cost.h"

enum { F32 = 4, BF16 = 2, I32 = 4, F64 = 8 };

/* Two sums over the row and dx: 10 per element, 3 more for dw. x, dy and dx read, dx written. */
struct nt_cost nt_op_cost_rmsnorm_bwd(const struct nt_rmsnorm_bwd_args *a) {
    const double n = (double)a->n_tok * a->d_model, w = (double)a->d_model * F32;
    return (struct nt_cost){.flops = n * (a->dw ? 13 : 10),
                            .read_bytes = 3 * n * F32 + w + (a->dw ? w : 0),
                            .write_bytes = n * (F32 + (a->dx16 ? BF16 : 0)) + (a->dw ? w : 0),
                            .stored_bytes = w * (a->dw ? 3 : 1),
                            .launches = a->n_tok > 0 ? 1 + (a->dw != NULL) : 0};
}

/* The activation and its slope: about 16 per gate. */
struct nt_cost nt_op_cost_glu_bwd(const struct nt_glu_bwd_args *a) {
    const double n = (double)a->n_tok * a->n;
    return (struct nt_cost){.flops = n * 16,
                            .read_bytes = n * (2 * BF16 + (a->dy ? F32 : 0)),
                            .write_bytes = n * ((a->dy ? 2 * BF16 : 0) + (a->y ? BF16 : 0)),
                            .launches = n > 0};
}

/* Five products of the visible pairs: scores, dP, dq, dk, dv. The cache, q, out, lse and dout in, dqkv out; nothing of
 * it has to leave a cache between two kernels: all is of this step. */
struct nt_cost nt_op_cost_attention_bwd(const struct nt_attention_bwd_args *a) {
    const double n_head = a->n_head, n_kv = a->kv->n_kv, d = a->kv->d_head, d_pad = nt_d_pad(a->kv->d_head);
    double pairs = 0, tokens = 0;
    for (int32_t i = 0; i < a->n_seq; i++) {
        pairs += a->seqs[i].n_q > 0 ? nt_visible_pairs(&a->seqs[i], a->window) : 0;
        tokens += a->seqs[i].n_q;
    }
    return (struct nt_cost){
        .flops = pairs * n_head * 10 * d,
        .read_bytes = tokens * (nt_kv_position_bytes(a->kv) + n_head * (d_pad * BF16 + d * BF16 + F32 + d * F32)),
        .write_bytes = tokens * (n_head + 2 * n_kv) * d * F32,
        .launches = tokens > 0 ? 3 : 0};
}

/* Rotation 3 per element, the norm 10 more. */
struct nt_cost nt_op_cost_rope_bwd(const struct nt_rope_bwd_args *a) {
    const double n_tok = a->n_tok, q = n_tok * a->n_head * a->d_head, k = n_tok * a->n_kv * a->d_head;
    const double norms = (a->q_norm ? 1 : 0) + (a->k_norm ? 1 : 0), w = norms * a->d_head * F32;
    return (struct nt_cost){.flops = (a->cos ? 3 * (q + k) : 0) + (a->q_norm ? 10 * q : 0) + (a->k_norm ? 10 * k : 0),
                            .read_bytes = (q + 2 * k) * F32 + (a->q_norm ? q * F32 : 0) + (a->k_norm ? k * F32 : 0) +
                                          (a->cos ? n_tok * a->d_head * F32 : 0) + 2 * w,
                            .write_bytes = (q + 2 * k) * BF16 + w,
                            .stored_bytes = 3 * w,
                            .launches = n_tok > 0 ? 1 + (a->dq_norm || a->dk_norm) : 0};
}

/* Subtract, exponential, product. */
struct nt_cost nt_op_cost_logit_bwd(const struct nt_logit_bwd_args *a) {
    const double n = (double)a->n_row * a->n_vocab;
    return (struct nt_cost){.flops = 4 * n,
                            .read_bytes = n * F32 + (double)a->n_row * (3 * F32 + I32),
                            .write_bytes = n * BF16,
                            .launches = n > 0};
}

/* Rows of the table read, added to and written. */
struct nt_cost nt_op_cost_embed_bwd(const struct nt_embed_bwd_args *a) {
    const double n = (double)a->n_tok * a->d_model;
    return (struct nt_cost){.flops = 2 * n,
                            .read_bytes = 2 * n * F32 + (double)a->n_tok * I32,
                            .write_bytes = n * F32,
                            .stored_bytes = 2 * n * F32,
                            .launches = n > 0};
}

struct nt_cost nt_op_cost_scatter(const struct nt_scatter_args *a) {
    const double row = (double)a->bytes;
    return (struct nt_cost){
        .read_bytes = a->n_rows * (row + I32), .write_bytes = a->n_to * row, .launches = a->n_to > 0};
}

/* A quarter of a Philox block counts as 10, as for logit_gumbel. */
struct nt_cost nt_op_cost_dropout(const struct nt_dropout_args *a) {
    const double n = (double)a->n_row * a->n_col;
    return (struct nt_cost){.flops = 12 * n,
                            .read_bytes = n * (a->add ? 2 * F32 : BF16) + (double)a->n_row * F64,
                            .write_bytes = n * (a->add ? F32 : BF16),
                            .launches = n > 0};
}

/* Parameters and both moments read and written, the gradient read: all of it lives from step to step. */
struct nt_cost nt_op_cost_adamw(const struct nt_adamw_args *a) {
    const double n = (double)a->n;
    return (struct nt_cost){.flops = 15 * n,
                            .read_bytes = 4 * n * F32,
                            .write_bytes = 3 * n * F32,
                            .stored_bytes = 7 * n * F32,
                            .launches = n > 0};
}

struct nt_cost nt_op_cost_sum_squares(const struct nt_sum_squares_args *a) {
    const double n = (double)a->n;
    return (struct nt_cost){
        .flops = 2 * n, .read_bytes = n * F32, .write_bytes = F64, .stored_bytes = n * F32, .launches = 2};
}

/* Parts and sum are longer than a cache. */
struct nt_cost nt_op_cost_sum_parts(const struct nt_sum_parts_args *a) {
    const double n = (double)a->n;
    return (struct nt_cost){.flops = n * (a->n_part - 1),
                            .read_bytes = n * a->n_part * F32,
                            .write_bytes = n * F32,
                            .stored_bytes = n * (a->n_part + 1) * F32,
                            .launches = n > 0};
}

/* A product and a rounding per number; all of it lives from step to step. */
struct nt_cost nt_op_cost_pack(const struct nt_pack_args *a) {
    const double n = (double)a->n * a->k, out = (a->w ? BF16 : 0) + (a->table ? BF16 : 0) + (a->vector ? F32 : 0);
    return (struct nt_cost){.flops = n * (a->vector ? 0 : 1),
                            .read_bytes = n * F32,
                            .write_bytes = n * out,
                            .stored_bytes = n * (F32 + out),
                            .launches = n > 0};
}
