#include "cuda_bodies.h"

static const struct nt_ops bodies = {
    .embed = nt_embed_cuda,
    .rmsnorm = nt_rmsnorm_cuda,
    .gemm = nt_gemm_cuda,
    .gemm_dgrad = nt_gemm_dgrad_cuda,
    .gemm_wgrad = nt_gemm_wgrad_cuda,
    .rope_kv = nt_rope_kv_cuda,
    .attention = nt_attention_cuda,
    .logit_stats = nt_logit_stats_cuda,
    .logit_topk = nt_logit_topk_cuda,
    .logit_gumbel = nt_logit_gumbel_cuda,
    .logit_edit = nt_logit_edit_cuda,
    .logit_penalty = nt_logit_penalty_cuda,
    .logit_pick = nt_logit_pick_cuda,
    .gather = nt_gather_cuda,
    .logit_sample = nt_logit_sample_cuda,
    .head_argmax = nt_head_argmax_cuda,
    .attention_bwd = nt_attention_bwd_cuda,
    .rope_bwd = nt_rope_bwd_cuda,
    .rmsnorm_bwd = nt_rmsnorm_bwd_cuda,
    .glu_bwd = nt_glu_bwd_cuda,
    .logit_bwd = nt_logit_bwd_cuda,
    .embed_bwd = nt_embed_bwd_cuda,
    .scatter = nt_scatter_cuda,
    .dropout = nt_dropout_cuda,
    .adamw = nt_adamw_cuda,
    .sum_squares = nt_sum_squares_cuda,
    .sum_parts = nt_sum_parts_cuda,
    .pack = nt_pack_cuda,
};

const struct nt_ops *nt_cuda_bodies(void) {
    return &bodies;
}
