/* Launches of gemm with 4-bit weights: which tile takes which shape. */
#include "gemm_int4_cuda.h"
#include "cuda_bodies.h"

struct tile {
    enum nt_cuda_kernel kernel;
    int32_t rows, cols, threads;
    size_t shared;
};

#define TILE(rows, cols, stages)                                                                                       \
    {NT_CUDA_gemm_int4_##rows##x##cols, (rows), (cols), NT_GEMM_INT4_THREADS(cols),                                    \
     NT_GEMM_INT4_SHARED(rows, cols, stages)},
static const struct tile tiles[] = {NT_GEMM_INT4_TILES(TILE)};
#undef TILE
enum { N_TILES = sizeof tiles / sizeof tiles[0] };

/* The dynamic shared memory that cuda_kernels.def grants; an A100 has 163 KiB a block. */
#define NT_CUDA_KERNEL(image, name, max_dynamic_shared) enum { granted_##name = (max_dynamic_shared) };
#include "cuda_kernels.def"
#undef NT_CUDA_KERNEL
#define CHECK(rows, cols, stages)                                                                                      \
    _Static_assert(granted_gemm_int4_##rows##x##cols == NT_GEMM_INT4_SHARED(rows, cols, stages), "cuda_kernels.def");  \
    _Static_assert(NT_GEMM_INT4_SHARED(rows, cols, stages) <= 163 * 1024, "more than an A100 has");
NT_GEMM_INT4_TILES(CHECK)
#undef CHECK

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t blocks_of(const struct tile *tile, int32_t n_tok, int32_t n) {
    return ceil_div(n_tok, tile->rows) * ceil_div(n, tile->cols);
}

/* The fewest rows that hold n_tok; of those the most columns, which share x, that leave no multiprocessor without a
 * block. Only time depends on it. */
static const struct tile *choose(int32_t n_tok, int32_t n, int32_t n_sm) {
    const struct tile *best = &tiles[0];
    for (int i = 1; i < N_TILES; i++) {
        const bool taller = tiles[i].rows > best->rows;
        if (taller ? n_tok > best->rows : tiles[i].rows == best->rows && blocks_of(&tiles[i], n_tok, n) >= n_sm)
            best = &tiles[i];
    }
    return best;
}

nt_status nt_gemm_int4(struct nt_backend *be, const struct nt_gemm_args *args) {
    const struct nt_packed *w = args->w;
    const struct tile *tile = choose(args->n_tok, w->n, be->cuda->facts.n_sm);
    const struct nt_gemm_int4 a = {
        .g = {.x = args->x,
              .bias = args->bias,
              .y = args->y,
              .ldx = args->ldx,
              .ldy = args->ldy,
              .n_tok = args->n_tok,
              .n = w->n,
              .k = w->k,
              .row_tiles = (int32_t)ceil_div(args->n_tok, tile->rows),
              .col_tiles = (int32_t)ceil_div(w->n, tile->cols),
              .out = (int32_t)args->out},
        .data = w->data,
        .n_panel = (int32_t)ceil_div(w->n, NT_PANEL),
        .n_group = (int32_t)ceil_div(w->k, NT_INT4_GROUP)
    };
    return NT_CUDA_LAUNCH(be, tile->kernel, blocks_of(tile, args->n_tok, w->n), 1, 1, tile->threads, tile->shared, &a);
}
