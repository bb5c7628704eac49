/* Launches of gemm with 4-bit weights: which tile takes which shape. */
#include "gemm_int4_cuda.h"
#include "cuda_bodies.h"
#include "cuda_granted.h"

#define TILE(rows, cols, stages)                                                                                       \
    {NT_CUDA_gemm_int4_##rows##x##cols, (rows), (cols), NT_GEMM_INT4_THREADS(cols),                                    \
     NT_GEMM_INT4_SHARED(rows, cols, stages)},
static const struct nt_gemm_tile_row tiles[] = {NT_GEMM_INT4_TILES(TILE)};
#undef TILE
#define TILE(rows, cols, stages)                                                                                       \
    {NT_CUDA_gemm_int4_adapter_##rows##x##cols, (rows), (cols), NT_GEMM_INT4_THREADS(cols),                            \
     NT_GEMM_INT4_SHARED(rows, cols, stages)},
static const struct nt_gemm_tile_row adapter_tiles[] = {NT_GEMM_INT4_ADAPTER_TILES(TILE)};
#undef TILE
enum { N_TILES = sizeof tiles / sizeof tiles[0], N_ADAPTER_TILES = sizeof adapter_tiles / sizeof adapter_tiles[0] };

#define CHECK(rows, cols, stages)                                                                                      \
    _Static_assert(nt_granted_gemm_int4_##rows##x##cols == NT_GEMM_INT4_SHARED(rows, cols, stages),                    \
                   "cuda_kernels.def");                                                                                \
    _Static_assert(NT_GEMM_INT4_SHARED(rows, cols, stages) <= NT_A100_SHARED, "more than an A100 has");
NT_GEMM_INT4_TILES(CHECK)
#undef CHECK
#define CHECK(rows, cols, stages)                                                                                      \
    _Static_assert(nt_granted_gemm_int4_adapter_##rows##x##cols == NT_GEMM_INT4_SHARED(rows, cols, stages),            \
                   "cuda_kernels.def");
NT_GEMM_INT4_ADAPTER_TILES(CHECK)
#undef CHECK

/* The fewest rows that hold n_tok; of those the most columns, which share x, that leave no multiprocessor without a
 * block. Only time depends on it. */
static const struct nt_gemm_tile_row *choose(const struct nt_gemm_tile_row *from, int count, int32_t n_tok, int32_t n,
                                             int32_t n_sm) {
    const struct nt_gemm_tile_row *best = &from[0];
    for (int i = 1; i < count; i++) {
        const bool taller = from[i].rows > best->rows;
        if (taller ? n_tok > best->rows
                   : from[i].rows == best->rows && nt_gemm_blocks(from[i].rows, from[i].cols, n_tok, n) >= n_sm)
            best = &from[i];
    }
    return best;
}

nt_status nt_gemm_int4(struct nt_backend *be, const struct nt_gemm_args *args) {
    const struct nt_packed *w = args->w;
    const bool adapts = nt_gemm_cuda_adapts(args);
    const struct nt_gemm_tile_row *tile = choose(adapts ? adapter_tiles : tiles, adapts ? N_ADAPTER_TILES : N_TILES,
                                                 args->n_tok, w->n, be->cuda->facts.n_sm);
    const struct nt_gemm_int4_adapted a = {
        .own = {.g = nt_gemm_cuda_of(args, w->n, tile->rows, tile->cols),
                .data = w->data,
                .n_panel = (int32_t)nt_ceil_div(w->n, NT_PANEL),
                .n_group = (int32_t)nt_ceil_div(w->k, NT_INT4_GROUP)},
        .second = nt_gemm_adapter_of(args)
    };
    const int64_t blocks = nt_gemm_blocks(tile->rows, tile->cols, args->n_tok, w->n);
    if (adapts) return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a);
    return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a.own);
}
