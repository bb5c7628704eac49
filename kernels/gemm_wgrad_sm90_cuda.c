/* Launches of gemm_wgrad_sm90. */
#include "gemm_wgrad_sm90_cuda.h"

#include "cuda_bodies.h"
#include "cuda_granted.h"
#include "gpu_api.h"

#define TILE(rows, cols, stages, blocks)                                                                               \
    {NT_CUDA_gemm_wgrad_sm90_##rows##x##cols,      (rows), (cols), (blocks), NT_GEMM_SM90_THREADS(rows, cols),         \
     NT_GEMM_WGRAD_SM90_SHARED(rows, cols, stages)},
static const struct nt_sm90_tile_row tiles[] = {NT_GEMM_WGRAD_SM90_TILES(TILE)};
enum { N_TILES = sizeof tiles / sizeof tiles[0] };

#define CHECK(rows, cols, stages, blocks)                                                                              \
    _Static_assert(nt_granted_gemm_wgrad_sm90_##rows##x##cols == NT_GEMM_WGRAD_SM90_SHARED(rows, cols, stages),        \
                   "cuda_kernels.def");                                                                                \
    _Static_assert(NT_SM90_FIT_BYTES(NT_GEMM_WGRAD_SM90_SHARED(rows, cols, stages), blocks), "blocks do not fit");
NT_GEMM_WGRAD_SM90_TILES(CHECK)

bool nt_gemm_wgrad_sm90_takes(const struct nt_backend *be, const struct nt_gemm_wgrad_args *args) {
    enum { ROWS = 64 };
    return nt_sm90_has(be, tiles[0].kernel) && args->m >= ROWS && nt_sm90_is_copied(args->a, args->lda) &&
           nt_sm90_is_copied(args->b, args->ldb);
}

const struct nt_sm90_tile_row *nt_gemm_wgrad_sm90_tile(const struct nt_gemm_wgrad_args *args, int64_t times,
                                                       int32_t n_sm) {
    return nt_sm90_choose(tiles, N_TILES, args->m, args->n, times, n_sm);
}

/* Up to the last column that is b's; what lies between the runs is in no box. */
static nt_status encode_runs(const struct nt_backend *be, const struct nt_gemm_wgrad_cuda *w,
                             struct nt_tensor_map *out) {
    const struct nt_gemm_wgrad_args runs = {.b_run = w->b_run};
    const struct nt_sm90_tensor t = {
        .data = w->b,
        .type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        .rank = 2,
        .dim = {(uint64_t)nt_gemm_wgrad_column(&runs, w->n - 1) + 1, (uint64_t)w->n_tok},
        .stride = {(uint64_t)w->ldb * sizeof(nt_bf16)                                   },
        .box = {NT_WGRAD_SM90_RUN,                    NT_GEMM_SM90_DEPTH               },
        .swizzle = CU_TENSOR_MAP_SWIZZLE_32B,
    };
    return nt_sm90_encode_tensor(be, &t, out);
}

nt_status nt_gemm_wgrad_sm90(struct nt_backend *be, const struct nt_sm90_tile_row *tile, int64_t n_block,
                             const struct nt_gemm_wgrad_cuda *w) {
    struct nt_gemm_wgrad_sm90 a = {.w = *w};
    NT_TRY(nt_sm90_encode_rows(be, w->a, w->n_tok, w->m, w->lda, NT_GEMM_SM90_DEPTH, &a.a));
    if (w->b_run > 0)
        NT_TRY(encode_runs(be, w, &a.b));
    else
        NT_TRY(nt_sm90_encode_rows(be, w->b, w->n_tok, w->n, w->ldb, NT_GEMM_SM90_DEPTH, &a.b));
    return NT_CUDA_LAUNCH(be, tile->kernel, (int64_t)w->row_tiles * w->col_tiles, n_block, 1, tile->threads,
                          tile->shared, &a);
}
