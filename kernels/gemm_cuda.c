/* Launches of gemm's mma kernels: which tile takes which shape. */
#include "gemm_cuda.h"
#include "cuda_backend.h"
#include "cuda_granted.h"

#define TILE(rows, cols, depth, stages, warps_m, warps_n)                                                              \
    {NT_CUDA_gemm_##rows##x##cols, (rows), (cols), 32 * (warps_m) * (warps_n),                                         \
     NT_GEMM_SHARED(rows, cols, depth, stages)},
static const struct nt_gemm_tile_row tiles[] = {NT_GEMM_TILES(TILE)};
#undef TILE
#define TILE(rows, cols, depth, stages, warps_m, warps_n)                                                              \
    {NT_CUDA_gemm_adapter_##rows##x##cols, (rows), (cols), 32 * (warps_m) * (warps_n),                                 \
     NT_GEMM_SHARED(rows, cols, depth, stages)},
static const struct nt_gemm_tile_row adapter_tiles[] = {NT_GEMM_ADAPTER_TILES(TILE)};
#undef TILE
enum { N_TILES = sizeof tiles / sizeof tiles[0], N_ADAPTER_TILES = sizeof adapter_tiles / sizeof adapter_tiles[0] };

#define CHECK(rows, cols, depth, stages, warps_m, warps_n)                                                             \
    _Static_assert(nt_granted_gemm_##rows##x##cols == NT_GEMM_SHARED(rows, cols, depth, stages), "as "                 \
                                                                                                 "cuda_kernels.def");
NT_GEMM_TILES(CHECK)
#undef CHECK
#define CHECK(rows, cols, depth, stages, warps_m, warps_n)                                                             \
    _Static_assert(nt_granted_gemm_adapter_##rows##x##cols == NT_GEMM_SHARED(rows, cols, depth, stages),               \
                   "as cuda_kernels.def");
NT_GEMM_ADAPTER_TILES(CHECK)
#undef CHECK

/* Cycles of the busiest multiprocessor per 16 of k, from the rates of an H100: it fetches about 40 bytes a cycle from
 * L2, multiplies 16 x 8 x 16 in 2 cycles, and a chain of dependent mma with its loads takes 40 cycles a link whatever
 * the tile; four blocks hide each other's chains. Each kernel has the same bits, so an estimate is good enough. */
static int64_t cycles_of(const struct nt_gemm_tile_row *tile, int32_t n_tok, int32_t n, int64_t times, int32_t n_sm) {
    enum { FETCH = 40, CHAIN = 40, BLOCKS_TOGETHER = 4 };
    const int64_t blocks = nt_ceil_div(times * nt_gemm_blocks(tile->rows, tile->cols, n_tok, n), n_sm);
    const int64_t fetch = (tile->rows + tile->cols) * 16 * (int64_t)sizeof(nt_bf16) / FETCH;
    const int64_t multiply = (int64_t)tile->rows * tile->cols / (16 * 8) * 2;
    const int64_t busy = blocks * (fetch > multiply ? fetch : multiply);
    const int64_t chains = nt_ceil_div(blocks, BLOCKS_TOGETHER) * CHAIN;
    return busy > chains ? busy : chains;
}

const struct nt_gemm_tile_row *nt_gemm_choose(const struct nt_gemm_tile_row *from, int count, int32_t n_tok, int32_t n,
                                              int64_t times, int32_t n_sm) {
    const struct nt_gemm_tile_row *best = &from[0];
    int64_t least = INT64_MAX;
    for (int i = 0; i < count; i++) {
        const int64_t cycles = cycles_of(&from[i], n_tok, n, times, n_sm);
        if (cycles > least || (cycles == least && from[i].rows > best->rows && best->rows >= n_tok)) continue;
        least = cycles;
        best = &from[i];
    }
    return best;
}

static nt_status check_adapter(const struct nt_gemm_args *args) {
    const struct nt_packed *w2 = args->w2;
    NT_CHECK(w2->n == args->w->n); /* an adapter was checked against its base when it was read */
    if (w2->format != NT_WEIGHT_BF16_ROWS)
        return NT_FAIL(NT_E_UNSUPPORTED, "gemm on CUDA reads an adapter as bf16 rows, not format %d", (int)w2->format);
    if (w2->k % 2 != 0 || args->ldx2 % 2 != 0 || ((uintptr_t)args->x2 & 3) != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "gemm on CUDA loads pairs of x2: rank %d and ldx2 %lld must be even", w2->k,
                       (long long)args->ldx2);
    if (((uintptr_t)w2->data & 15) != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "gemm on CUDA: an adapter must begin at a multiple of 16 bytes");
    return NT_OK;
}

nt_status nt_gemm_cuda_check(const struct nt_gemm_args *args) {
    const struct nt_packed *w = args->w;
    if (w->format != NT_WEIGHT_BF16_ROWS && !nt_weight_is_quantized(w->format))
        return NT_FAIL(NT_E_UNSUPPORTED, "gemm on CUDA reads weights as bf16 rows, int4 or int8, not format %d",
                       (int)w->format);
    if (w->k % 2 != 0 || args->ldx % 2 != 0 || ((uintptr_t)args->x & 3) != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "gemm on CUDA loads pairs of x: k %d and ldx %lld must be even", w->k,
                       (long long)args->ldx);
    if (((uintptr_t)w->data & 15) != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "gemm on CUDA: weights must begin at a multiple of 16 bytes");
    const bool gated = args->out == NT_GEMM_SWIGLU_BF16 || args->out == NT_GEMM_GEGLU_BF16;
    if (gated && w->n % NT_PANEL != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "gemm on CUDA: %d gate and up rows are not whole panels of %d", w->n,
                       NT_PANEL);
    return args->w2 ? check_adapter(args) : NT_OK;
}

struct nt_gemm_cuda nt_gemm_cuda_of(const struct nt_gemm_args *args, int32_t n, int32_t rows, int32_t cols) {
    const struct nt_packed *w = args->w;
    return (struct nt_gemm_cuda){.x = args->x,
                                 .w = w->data,
                                 .bias = args->bias,
                                 .y = args->y,
                                 .ldx = args->ldx,
                                 .ldy = args->ldy,
                                 .n_tok = args->n_tok,
                                 .n = n,
                                 .n_pad = (int32_t)(nt_ceil_div(w->n, NT_PANEL) * NT_PANEL),
                                 .k = w->k,
                                 .k_pad = (int32_t)(nt_ceil_div(w->k, 8) * 8),
                                 .row_tiles = (int32_t)nt_ceil_div(args->n_tok, rows),
                                 .col_tiles = (int32_t)nt_ceil_div(n, cols),
                                 .out = (int32_t)args->out};
}

struct nt_gemm_adapter nt_gemm_adapter_of(const struct nt_gemm_args *args) {
    struct nt_gemm_adapter a = {.x = args->x2, .pre = args->pre, .ldx = args->ldx2, .ldpre = args->ldpre};
    if (!args->w2) return a;
    a.w = args->w2->data;
    a.k = args->w2->k;
    a.k_pad = (int32_t)(nt_ceil_div(a.k, 8) * 8);
    return a;
}

nt_status nt_gemm_mma(struct nt_backend *be, const struct nt_gemm_args *args) {
    const bool adapts = nt_gemm_cuda_adapts(args);
    const struct nt_gemm_tile_row *tile =
        nt_gemm_choose(adapts ? adapter_tiles : tiles, adapts ? N_ADAPTER_TILES : N_TILES, args->n_tok, args->w->n, 1,
                       be->cuda->facts.n_sm);
    const struct nt_gemm_adapted a = {nt_gemm_cuda_of(args, args->w->n, tile->rows, tile->cols),
                                      nt_gemm_adapter_of(args)};
    const int64_t blocks = (int64_t)a.g.row_tiles * a.g.col_tiles;
    if (adapts) return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a);
    return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a.g);
}
