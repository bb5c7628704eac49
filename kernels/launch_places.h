/* What ops leave in the backend's workspace for a row, and so how many rows a launch of theirs takes.
 *
 * The launchers ask with the workspace they have, the cost of an op (ops_cost.h) with the one a backend opens with, so
 * both count the same launches. A place is what one row or token needs; what lies in it is said where its kernel's
 * struct is (attention_cuda.h, topk_cuda.h, sample_cuda.h, head_cuda.h, gemm_bwd_cuda.h). No ownership, no state, no
 * errors, any thread. */
#ifndef NT_LAUNCH_PLACES_H
#define NT_LAUNCH_PLACES_H

#include "ops_bwd.h"

/* How many of n places of `bytes` each there is room for; at least 1, which nt_cuda_workspace refuses where not even
 * that fits. */
int64_t nt_places(size_t workspace, size_t bytes, int64_t n);

/* Bytes of the place of a row with n_vocab columns. */
size_t nt_logit_topk_place(int32_t n_vocab);
size_t nt_logit_sample_place(int32_t n_vocab);
size_t nt_head_argmax_place(int32_t n_vocab);

/* Bytes of a state of attention: an accumulator with its maximum and sum. */
size_t nt_attn_place(const struct nt_attention_args *a);
/* Rows of a tile of the kernel for longer chunks, d_tile the width of its heads; tokens a launch of it takes. */
int32_t nt_attn_prefill_rows(int32_t d_tile);
int32_t nt_attn_prefill_tokens(const struct nt_attention_args *a, size_t workspace);
/* The kernel for short chunks: splits of a sequence at most, places of one, sequences a launch takes. */
struct nt_attn_short {
    int32_t n_split, n_seq;
    int64_t per_seq;
};
struct nt_attn_short nt_attn_short_cut(const struct nt_attention_args *a, size_t workspace);

/* gemm_wgrad: bytes of the sum of one block of tokens, blocks that a launch takes; 0: all of them in order, no place.
 */
struct nt_wgrad_cut {
    size_t place;
    int64_t n_block;
};
struct nt_wgrad_cut nt_wgrad_cut(const struct nt_gemm_wgrad_args *a, size_t workspace);

#endif
