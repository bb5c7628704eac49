/* Launches of head_argmax: the kernels of the device that gemm runs on, and the join. */
#include "head_cuda.h"
#include "cuda_bodies.h"
#include "cuda_granted.h"
#include "launch_places.h"

struct tile {
    enum nt_cuda_kernel kernel;
    int32_t rows, cols, threads;
    size_t shared;
};

#define TILE(rows, cols, depth, stages, warps_m, warps_n)                                                              \
    {NT_CUDA_head_##rows##x##cols, (rows), (cols), 32 * (warps_m) * (warps_n),                                         \
     NT_GEMM_SHARED(rows, cols, depth, stages)},
static const struct tile tiles[] = {NT_HEAD_TILES(TILE)};
#undef TILE
#define TILE(rows, cols, stages, blocks)                                                                               \
    {NT_CUDA_head_sm90_##rows##x##cols, (rows), (cols), NT_GEMM_SM90_THREADS(rows, cols),                              \
     NT_GEMM_SM90_SHARED(rows, cols, stages)},
static const struct tile sm90_tiles[] = {NT_HEAD_SM90_TILES(TILE)};
#undef TILE
enum { N_TILES = sizeof tiles / sizeof tiles[0], N_SM90_TILES = sizeof sm90_tiles / sizeof sm90_tiles[0] };

#define CHECK(rows, cols, depth, stages, warps_m, warps_n)                                                             \
    _Static_assert(nt_granted_head_##rows##x##cols == NT_GEMM_SHARED(rows, cols, depth, stages),                       \
                   "as cuda_kernels.def");                                                                             \
    _Static_assert((cols) == NT_HEAD_COLS, "one part a tile");
NT_HEAD_TILES(CHECK)
#undef CHECK
#define CHECK(rows, cols, stages, blocks)                                                                              \
    _Static_assert(nt_granted_head_sm90_##rows##x##cols == NT_GEMM_SM90_SHARED(rows, cols, stages),                    \
                   "cuda_kernels.def");                                                                                \
    _Static_assert((cols) % NT_HEAD_COLS == 0, "whole parts");
NT_HEAD_SM90_TILES(CHECK)
#undef CHECK

/* The smallest that holds all rows, or the largest. */
static const struct tile *choose(const struct tile *from, int count, int32_t n_row) {
    int i = 0;
    while (i < count - 1 && from[i].rows < n_row) i++;
    return &from[i];
}

static nt_status multiply(struct nt_backend *be, const struct nt_gemm_args *product, const struct tile *tile,
                          const struct nt_head_cuda *h, bool sm90) {
    const int64_t blocks = (int64_t)h->g.row_tiles * h->g.col_tiles;
    if (!sm90) return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, h);
    struct nt_head_sm90 a = {.h = *h};
    NT_TRY(nt_sm90_encode(be, product, tile->rows, tile->cols, &a.operands));
    return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a);
}

static struct nt_gemm_args product_of(const struct nt_head_argmax_args *args) {
    return (struct nt_gemm_args){.x = args->x, .ldx = args->ldx, .w = args->w, .n_tok = args->n_row};
}

/* As many rows as the workspace has places for. */
static nt_status launch(struct nt_backend *be, const struct nt_head_argmax_args *args) {
    const struct nt_gemm_args product = product_of(args);
    const bool sm90 = nt_gemm_sm90_takes(be, &product);
    const struct tile *tile =
        sm90 ? choose(sm90_tiles, N_SM90_TILES, args->n_row) : choose(tiles, N_TILES, args->n_row);
    struct nt_head_cuda h = {.g = nt_gemm_cuda_of(&product, args->n_vocab, tile->rows, tile->cols),
                             .inv_temp = args->inv_temp,
                             .seed = args->seed,
                             .stream = args->stream,
                             .value = args->value,
                             .index = args->index,
                             .first = args->first,
                             .n_part = (int32_t)nt_ceil_div(args->n_vocab, NT_HEAD_COLS)};
    void *memory = NULL;
    const size_t parts = (size_t)args->n_row * (size_t)h.n_part;
    NT_TRY(nt_cuda_workspace(be, parts * sizeof *h.part, "head_argmax", &memory));
    h.part = memory;
    if (parts > 0) NT_TRY(multiply(be, &product, tile, &h, sm90));
    return NT_CUDA_LAUNCH(be, NT_CUDA_head_join, args->n_row, 1, 1, NT_HEAD_JOIN_THREADS, 0, &h);
}

static struct nt_head_argmax_args rows_of(const struct nt_head_argmax_args *args, int64_t first, int64_t n) {
    struct nt_head_argmax_args a = *args;
    a.x += first * args->ldx;
    if (args->inv_temp) { /* without it nothing is drawn */
        a.inv_temp += first;
        a.seed += first;
        a.stream += first;
    }
    a.value += first;
    a.index += first;
    a.n_row = (int32_t)n;
    return a;
}

nt_status nt_head_argmax_cuda(struct nt_backend *be, const struct nt_head_argmax_args *args) {
    const struct nt_gemm_args product = product_of(args);
    NT_CHECK(args->n_vocab >= 0 && args->n_vocab <= args->w->n); /* columns that w has, on any backend */
    if (args->w->format != NT_WEIGHT_BF16_ROWS)
        return NT_FAIL(NT_E_UNSUPPORTED, "head_argmax on CUDA reads bf16 rows, not format %d", (int)args->w->format);
    NT_TRY(nt_gemm_cuda_check(&product));
    const int64_t most = nt_cuda_places(be, nt_head_argmax_place(args->n_vocab), args->n_row);
    for (int64_t first = 0; first < args->n_row; first += most) {
        const struct nt_head_argmax_args a =
            rows_of(args, first, args->n_row - first < most ? args->n_row - first : most);
        NT_TRY(launch(be, &a));
    }
    return NT_OK;
}
