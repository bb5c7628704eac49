/* Launches of rope_bwd. */
#include "rope_bwd_cuda.h"
#include "cuda_bodies.h"

nt_status nt_rope_bwd_cuda(struct nt_backend *be, const struct nt_rope_bwd_args *args) {
    const int32_t d = args->d_head, n_qk = args->n_head + args->n_kv;
    if (d % 2 != 0 || d > NT_ROPE_CUDA_MAX_D)
        return NT_FAIL(NT_E_UNSUPPORTED, "rope_bwd on CUDA needs an even d_head of at most %d, not %d",
                       NT_ROPE_CUDA_MAX_D, d);
    NT_CHECK(args->qkv || (!args->q_norm && !args->k_norm)); /* what was normed is needed again */
    if (args->n_seq == 0 || args->n_tok == 0) return NT_OK;
    struct nt_rope_bwd_cuda a = {.args = *args};
    const int64_t n_block = ((int64_t)args->n_tok + NT_ROPE_BLOCK - 1) / NT_ROPE_BLOCK;
    const size_t place = (size_t)n_qk * (size_t)d * sizeof *a.parts;
    const bool sums = (args->q_norm && args->dq_norm) || (args->k_norm && args->dk_norm);
    const int64_t most = sums ? nt_cuda_places(be, place, n_block) : n_block;
    if (sums) {
        void *memory;
        NT_TRY(nt_cuda_workspace(be, (size_t)most * place, "rope_bwd", &memory));
        a.parts = memory;
    }
    for (int64_t first = 0; first < n_block; first += most) {
        a.first_block = (int32_t)first;
        a.n_block = (int32_t)(n_block - first < most ? n_block - first : most);
        NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_rope_bwd, a.n_block, n_qk + args->n_kv, 1, 32 * NT_ROPE_WARPS, 0, &a));
        if (!sums) continue;
        NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_rope_bwd_join, (d + 31) / 32, 2, 1, 32 * NT_ROPE_JOIN_WARPS, 0, &a));
    }
    return NT_OK;
}
