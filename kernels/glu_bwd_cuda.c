/* Launches of glu_bwd. */
#include "glu_bwd_cuda.h"
#include "cuda_bodies.h"

nt_status nt_glu_bwd_cuda(struct nt_backend *be, const struct nt_glu_bwd_args *args) {
    if (args->n % (NT_PANEL / 2) != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "glu_bwd on CUDA takes a multiple of %d columns, not %d", NT_PANEL / 2,
                       args->n);
    NT_CHECK(!args->dy == !args->dpre); /* both or neither, on any backend */
    const int64_t pieces = ((int64_t)args->n + NT_GLU_BWD_PIECE - 1) / NT_GLU_BWD_PIECE;
    const int64_t blocks = (args->n_tok * pieces + NT_GLU_BWD_WARPS - 1) / NT_GLU_BWD_WARPS;
    return NT_CUDA_LAUNCH(be, NT_CUDA_glu_bwd, blocks, 1, 1, 32 * NT_GLU_BWD_WARPS, 0, args);
}
