/* Launches of rmsnorm_bwd. */
#include "norm_bwd_cuda.h"
#include "cuda_bodies.h"

/* The tokens of the args; the sums for dw fit the workspace. */
static nt_status launch(struct nt_backend *be, struct nt_rmsnorm_bwd_cuda *a) {
    const int32_t d = a->op.d_model, narrow = 32 * 4 * NT_NORM_BWD_NARROW_QUADS;
    const int32_t threads = d % 4 == 0 ? nt_norm_threads(d) : (d + narrow - 1) / narrow * 32;
    const size_t shared = sizeof(float) * (NT_NORM_BWD_SCRATCH + (a->part ? ((size_t)d + 3) / 4 * 4 : 0));
    a->n_block = (int32_t)(((int64_t)a->op.n_tok + a->each - 1) / a->each);
    if (d <= NT_NORM_WARP_MAX)
        NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_rmsnorm_bwd_warp, a->n_block, 1, 1, 32 * NT_NORM_WARP_ROWS, 0, a));
    else
        NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_rmsnorm_bwd_block, a->n_block, 1, 1, threads, shared, a));
    if (!a->part || a->n_block == 0) return NT_OK;
    const int32_t blocks = (d + NT_NORM_BWD_JOIN_THREADS - 1) / NT_NORM_BWD_JOIN_THREADS;
    return NT_CUDA_LAUNCH(be, NT_CUDA_rmsnorm_bwd_join, blocks, 1, 1, NT_NORM_BWD_JOIN_THREADS, 0, a);
}

nt_status nt_rmsnorm_bwd_cuda(struct nt_backend *be, const struct nt_rmsnorm_bwd_args *args) {
    const int32_t d = args->d_model, widest = d % 4 == 0 ? NT_NORM_BLOCK_MAX : NT_NORM_BWD_NARROW_MAX;
    struct nt_rmsnorm_bwd_cuda a = {.op = *args, .each = d <= NT_NORM_WARP_MAX ? NT_NORM_WARP_ROWS : 1};
    if (d > widest)
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "rmsnorm_bwd on CUDA needs a d_model of at most %d, %d where 4 does not divide it, not %d",
                       NT_NORM_BLOCK_MAX, NT_NORM_BWD_NARROW_MAX, d);
    if (!args->dw) return launch(be, &a);
    a.each = NT_NORM_BWD_TOKENS;
    const size_t place = (size_t)d * sizeof *a.part;
    const int64_t most = nt_cuda_places(be, place, ((int64_t)args->n_tok + a.each - 1) / a.each);
    void *memory;
    NT_TRY(nt_cuda_workspace(be, (size_t)most * place, "rmsnorm_bwd", &memory));
    a.part = memory;
    for (int64_t first = 0, left = args->n_tok; left > 0; left -= a.op.n_tok, first += a.op.n_tok) {
        a.op.n_tok = (int32_t)(left < most * a.each ? left : most * a.each);
        a.op.x = args->x + first * d;
        a.op.dy = args->dy + first * d;
        a.op.dx = args->dx + first * d;
        if (args->dx16) a.op.dx16 = args->dx16 + first * d;
        NT_TRY(launch(be, &a));
    }
    return NT_OK;
}
