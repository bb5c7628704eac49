/* Launches of gemm_quant_sm90: tensor maps, and which tile takes which shape. */
#include "gemm_quant_sm90_cuda.h"

#include "cuda_bodies.h"
#include "cuda_granted.h"
#include "gpu_api.h"

#define TILE(kernel, type, rows, stages)                                                                               \
    {                                                                                                                  \
        NT_CUDA_gemm_##kernel##_##rows##x128, (rows), NT_GEMM_QUANT_SM90_COLS, NT_GEMM_QUANT_SM90_THREADS,             \
            NT_GEMM_QUANT_SM90_SHARED(type, rows, stages)                                                              \
    }
#define PAIR(type, rows, stages) {TILE(type##_sm90, type, rows, stages), TILE(type##_adapter_sm90, type, rows, stages)},
#define CHECK(type, rows, stages)                                                                                      \
    _Static_assert(nt_granted_gemm_##type##_sm90_##rows##x128 == NT_GEMM_QUANT_SM90_SHARED(type, rows, stages) &&      \
                       nt_granted_gemm_##type##_adapter_sm90_##rows##x128 ==                                           \
                           NT_GEMM_QUANT_SM90_SHARED(type, rows, stages),                                              \
                   "as cuda_kernels.def");                                                                             \
    _Static_assert(NT_GEMM_QUANT_SM90_SHARED(type, rows, stages) + 1024 <= 228 * 1024, "more than an H100 has");
NT_GEMM_QUANT_SM90_TILES(CHECK)

/* [format's tiles in the order of the list][without, with an adapter] */
static const struct nt_gemm_tile_row tiles[][2] = {NT_GEMM_QUANT_SM90_TILES(PAIR)};
enum { N_TILES = sizeof tiles / sizeof tiles[0], N_OF_A_FORMAT = 2 };
_Static_assert(N_TILES == 2 * N_OF_A_FORMAT, "those of INT4, then those of INT8");

/* From MANY_ROWS on the tiles of gemm_quant.cu are bound by the rate of mma.sync (64 x 64 x 16 in 180 cycles of a
 * multiprocessor, measured on an H200), and a tile here takes less than half of that even half empty. From SOME_ROWS on
 * they fetch x more often than weights; tiles here do not, where there is one for every multiprocessor. */
enum { SOME_ROWS = 17, MANY_ROWS = 33 };

static bool has_rows(const struct nt_backend *be, const struct nt_gemm_args *args) {
    const bool wide = nt_ceil_div(args->w->n, NT_GEMM_QUANT_SM90_COLS) >= be->cuda->facts.n_sm;
    return args->n_tok >= (wide ? SOME_ROWS : MANY_ROWS);
}

bool nt_gemm_quant_sm90_takes(const struct nt_backend *be, const struct nt_gemm_args *args) {
    return has_rows(be, args) && nt_sm90_has(be, tiles[0][0].kernel) && nt_sm90_is_copied(args->x, args->ldx);
}

/* Cycles of the busiest multiprocessor per 16 of k, from the rates of an H100: it fetches about 40 bytes a cycle from
 * L2 and multiplies 64 x 8 x 16 in 4 cycles. All tiles have the same bits, so an estimate is good enough. */
static int64_t cycles_of(const struct nt_gemm_tile_row *tile, const struct nt_gemm_args *args, int32_t n_sm) {
    enum { FETCH = 40 };
    const int64_t blocks = nt_ceil_div(nt_gemm_blocks(tile->rows, tile->cols, args->n_tok, args->w->n), n_sm);
    const int64_t weights = tile->cols / NT_PANEL * nt_packed_block_bytes(args->w->format) * 16 / NT_INT4_GROUP;
    const int64_t fetch = (tile->rows * 16 * (int64_t)sizeof(nt_bf16) + weights) / FETCH;
    const int64_t multiply = (int64_t)tile->rows * tile->cols / (64 * 8) * 4;
    return blocks * (fetch > multiply ? fetch : multiply);
}

/* Ties go to the larger tile. */
static const struct nt_gemm_tile_row *choose(const struct nt_gemm_args *args, int32_t n_sm) {
    const int first = args->w->format == NT_WEIGHT_INT4 ? 0 : N_OF_A_FORMAT, adapts = nt_gemm_cuda_adapts(args);
    const struct nt_gemm_tile_row *best = &tiles[first][adapts];
    for (int i = first + 1; i < first + N_OF_A_FORMAT; i++)
        if (cycles_of(&tiles[i][adapts], args, n_sm) <= cycles_of(best, args, n_sm)) best = &tiles[i][adapts];
    return best;
}

/* Blocks are lines of 64 bytes: [panel][line][byte], in boxes of the lines of a block by the panels of a tile. INT8's
 * get the swizzle of nt_gemm_chunk_at; those of INT4 lie in the order of lanes. */
static nt_status encode_blocks(const struct nt_backend *be, const struct nt_packed *w, struct nt_tensor_map *out) {
    enum { LINE = NT_GEMM_QUANT_SM90_LINE, PANELS = NT_GEMM_QUANT_SM90_COLS / NT_PANEL };
    const uint64_t lines = (uint64_t)nt_packed_block_bytes(w->format) / LINE;
    const uint64_t groups = (uint64_t)nt_ceil_div(w->k, NT_INT4_GROUP), panels = (uint64_t)nt_ceil_div(w->n, NT_PANEL);
    const struct nt_sm90_tensor t = {
        .data = w->data,
        .type = CU_TENSOR_MAP_DATA_TYPE_UINT8,
        .rank = 3,
        .dim = {LINE,             lines * groups,        panels},
        .stride = {LINE,             LINE * lines * groups},
        .box = {LINE, (uint32_t)lines,                PANELS      },
        .swizzle = w->format == NT_WEIGHT_INT8 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_NONE,
    };
    return nt_sm90_encode_tensor(be, &t, out);
}

nt_status nt_gemm_quant_sm90(struct nt_backend *be, const struct nt_gemm_args *args) {
    const struct nt_packed *w = args->w;
    const struct nt_gemm_tile_row *tile = choose(args, be->cuda->facts.n_sm);
    struct nt_gemm_quant_sm90_adapted a = {
        .own = {.g = nt_gemm_cuda_of(args, w->n, tile->rows, tile->cols),
                .n_group = (int32_t)nt_ceil_div(w->k, NT_INT4_GROUP),
                .n_panel = (int32_t)nt_ceil_div(w->n, NT_PANEL)},
        .second = nt_gemm_adapter_of(args)
    };
    NT_TRY(nt_sm90_encode_rows(be, args->x, args->n_tok, w->k, args->ldx, tile->rows, &a.own.x));
    NT_TRY(encode_blocks(be, w, &a.own.w));
    const int64_t blocks = (int64_t)a.own.g.row_tiles * a.own.g.col_tiles;
    if (nt_gemm_cuda_adapts(args))
        return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a);
    return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a.own);
}
