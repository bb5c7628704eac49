/* Launches of the draw from all ranks' pairs. */
#include "draw_pairs_cuda.h"
#include "cuda_bodies.h"

nt_status nt_draw_pairs_cuda(struct nt_backend *be, const struct nt_draw_pairs_args *args) {
    if (args->size > NT_P2P_RANKS || args->k > NT_DRAW_K)
        return NT_FAIL(NT_E_UNSUPPORTED, "tokens are drawn from lists of %d ranks and %d pairs at most, not %d and %d",
                       (int)NT_P2P_RANKS, (int)NT_DRAW_K, args->size, args->k);
    for (int32_t r = 0; r < args->size; r++) NT_CHECK(args->have[r] >= 0 && args->have[r] <= args->k);
    return NT_CUDA_LAUNCH(be, NT_CUDA_draw_pairs, args->n_row, 1, 1, NT_DRAW_THREADS, 0, args);
}
