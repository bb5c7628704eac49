/* Launches of gemm_dgrad_sm90. */
#include "gemm_dgrad_sm90_cuda.h"

#include "cuda_bodies.h"
#include "cuda_granted.h"
#include "gpu_api.h"

#define TILE(rows, cols, stages, blocks)                                                                               \
    {NT_CUDA_gemm_dgrad_sm90_##rows##x##cols,      (rows), (cols), (blocks), NT_GEMM_SM90_THREADS(rows, cols),         \
     NT_GEMM_SM90_BLOCK_SHARED(rows, cols, stages)},
static const struct nt_sm90_tile_row tiles[] = {NT_GEMM_DGRAD_SM90_TILES(TILE)};
enum { N_TILES = sizeof tiles / sizeof tiles[0] };

#define CHECK(rows, cols, stages, blocks)                                                                              \
    _Static_assert(nt_granted_gemm_dgrad_sm90_##rows##x##cols == NT_GEMM_SM90_BLOCK_SHARED(rows, cols, stages),        \
                   "cuda_kernels.def");                                                                                \
    _Static_assert(NT_SM90_FIT(rows, cols, stages, blocks), "blocks do not fit");
NT_GEMM_DGRAD_SM90_TILES(CHECK)

bool nt_gemm_dgrad_sm90_takes(const struct nt_backend *be, const struct nt_gemm_dgrad_args *args) {
    return nt_sm90_has(be, tiles[0].kernel) && args->w->format == NT_WEIGHT_BF16_ROWS &&
           nt_sm90_is_copied(args->dy, args->lddy) && (!args->w2 || nt_sm90_is_copied(args->dy2, args->lddy2));
}

static nt_status encode(const struct nt_backend *be, const nt_bf16 *dy, int64_t lddy, const struct nt_packed *w,
                        int32_t n_tok, int32_t rows, struct nt_sm90_operands *out) {
    NT_TRY(nt_sm90_encode_x(be, dy, n_tok, w->n, lddy, rows, out));
    return nt_sm90_encode_rows(be, w->data, w->n, w->k, nt_ceil_div(w->k, 8) * 8, NT_GEMM_SM90_DEPTH, &out->w);
}

const struct nt_sm90_tile_row *nt_gemm_dgrad_sm90_tile(const struct nt_gemm_dgrad_args *args, int32_t n_sm) {
    return nt_sm90_choose(tiles, N_TILES, args->n_tok, args->w->k, 1, n_sm);
}

nt_status nt_gemm_dgrad_sm90(struct nt_backend *be, const struct nt_gemm_dgrad_args *args,
                             const struct nt_sm90_tile_row *tile, const struct nt_gemm_cuda *g) {
    struct nt_gemm_dgrad_sm90 a = {.g = *g, .k2 = args->w2 ? args->w2->n : 0};
    NT_TRY(encode(be, args->dy, args->lddy, args->w, args->n_tok, tile->rows, &a.own));
    if (args->w2) NT_TRY(encode(be, args->dy2, args->lddy2, args->w2, args->n_tok, tile->rows, &a.behind));
    const int64_t blocks = nt_sm90_blocks(tile, (int64_t)a.g.row_tiles * a.g.col_tiles, be->cuda->facts.n_sm);
    return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a);
}
