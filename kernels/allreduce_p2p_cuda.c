/* Launches of the kernels that read the peers' memory. */
#include "allreduce_p2p_cuda.h"
#include "cuda_bodies.h"

static nt_status check_group(const struct nt_p2p_group *g, int64_t bytes) {
    if (g->size > NT_P2P_RANKS)
        return NT_FAIL(NT_E_UNSUPPORTED, "the kernels that read peer memory are for up to %d ranks, not %d",
                       (int)NT_P2P_RANKS, g->size);
    NT_CHECK(g->rank >= 0 && g->rank < g->size); /* as the group was made */
    if (bytes > NT_P2P_MAX_BYTES)
        return NT_FAIL(NT_E_UNSUPPORTED, "the kernels that read peer memory take up to %d bytes, not %lld",
                       (int)NT_P2P_MAX_BYTES, (long long)bytes);
    return NT_OK;
}

nt_status nt_allreduce_p2p_cuda(struct nt_backend *be, const struct nt_allreduce_p2p_args *args) {
    if (args->count % 4 != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "the all-reduce over peer memory sums a multiple of 4 numbers, not %lld",
                       (long long)args->count);
    NT_TRY(check_group(&args->group, args->count * (int64_t)sizeof(float)));
    const int64_t quads = args->count / 4, full = (quads + NT_P2P_THREADS - 1) / NT_P2P_THREADS;
    return NT_CUDA_LAUNCH(be, NT_CUDA_allreduce_p2p, full < NT_P2P_BLOCKS ? full : NT_P2P_BLOCKS, 1, 1, NT_P2P_THREADS,
                          0, args);
}

/* The threads of rmsnorm for the width, so that the bits are those of all-reduce and rmsnorm one after the other. */
nt_status nt_allreduce_norm_p2p_cuda(struct nt_backend *be, const struct nt_allreduce_norm_p2p_args *args) {
    const struct nt_rmsnorm_args *n = &args->norm;
    NT_CHECK(!n->rows && !n->delta); /* of the op, not of a shape: such a norm is never fused */
    NT_TRY(check_group(&args->group, (int64_t)n->n_rows * n->d_model * (int64_t)sizeof(float)));
    if (!nt_allreduce_norm_p2p_takes(n->d_model))
        return NT_FAIL(NT_E_UNSUPPORTED, "the all-reduce fused with RMS norm takes rows of a multiple of 4, up to %d",
                       (int)NT_NORM_BLOCK_MAX);
    return NT_CUDA_LAUNCH(be, NT_CUDA_allreduce_norm_p2p, n->n_rows < NT_P2P_BLOCKS ? n->n_rows : NT_P2P_BLOCKS, 1, 1,
                          nt_norm_threads(n->d_model), 0, args);
}

nt_status nt_best_pairs_cuda(struct nt_backend *be, const struct nt_best_pairs_args *args) {
    NT_TRY(check_group(&args->group, args->gathered ? 0 : 2 * (int64_t)args->n_row * (int64_t)sizeof(float)));
    return NT_CUDA_LAUNCH(be, NT_CUDA_best_pairs, args->n_row > 0, 1, 1, NT_BEST_THREADS, 0, args);
}
