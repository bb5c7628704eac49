/* Launches of rmsnorm. */
#include "norm_cuda.h"
#include "cuda_bodies.h"

nt_status nt_rmsnorm_cuda(struct nt_backend *be, const struct nt_rmsnorm_args *args) {
    NT_CHECK(!(args->rows && args->delta)); /* rows are read, a sum is written back: never both */
    const int32_t d = args->d_model;
    if (d % 4 != 0 || d > NT_NORM_BLOCK_MAX)
        return NT_CUDA_LAUNCH(be, NT_CUDA_rmsnorm_any, args->n_rows, 1, 1, NT_NORM_ANY_THREADS, 0, args);
    if (d <= NT_NORM_WARP_MAX) {
        const int32_t blocks = (args->n_rows + NT_NORM_WARP_ROWS - 1) / NT_NORM_WARP_ROWS;
        return NT_CUDA_LAUNCH(be, NT_CUDA_rmsnorm_warp, blocks, 1, 1, 32 * NT_NORM_WARP_ROWS, 0, args);
    }
    return NT_CUDA_LAUNCH(be, NT_CUDA_rmsnorm_block, args->n_rows, 1, 1, nt_norm_threads(d), 0, args);
}
