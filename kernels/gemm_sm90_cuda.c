/* Launches of gemm_sm90: tensor maps, and which tile takes which shape. */
#include "gemm_sm90_cuda.h"

#include "cuda_bodies.h"
#include "cuda_granted.h"
#include "gpu_api.h"
#include <string.h>

_Static_assert(sizeof(struct nt_tensor_map) == sizeof(CUtensorMap), "as cuda.h has it");

#define TILE(rows, cols, stages, blocks)                                                                               \
    {NT_CUDA_gemm_sm90_##rows##x##cols,                                                                                \
     (rows),                                                                                                           \
     (cols),                                                                                                           \
     (blocks),                                                                                                         \
     NT_GEMM_SM90_THREADS(rows, cols),                                                                                 \
     NT_GEMM_SM90_BLOCK_SHARED(rows, cols, stages)},
static const struct nt_sm90_tile_row tiles[] = {NT_GEMM_SM90_TILES(TILE)};
#undef TILE
#define TILE(rows, cols, stages, blocks)                                                                               \
    {NT_CUDA_gemm_sm90_adapter_##rows##x##cols,    (rows), (cols), (blocks), NT_GEMM_SM90_THREADS(rows, cols),         \
     NT_GEMM_SM90_BLOCK_SHARED(rows, cols, stages)},
static const struct nt_sm90_tile_row adapter_tiles[] = {NT_GEMM_SM90_ADAPTER_TILES(TILE)};
#undef TILE
enum { N_TILES = sizeof tiles / sizeof tiles[0], N_ADAPTER_TILES = sizeof adapter_tiles / sizeof adapter_tiles[0] };

#define CHECK(rows, cols, stages, blocks)                                                                              \
    _Static_assert(nt_granted_gemm_sm90_##rows##x##cols == NT_GEMM_SM90_BLOCK_SHARED(rows, cols, stages),              \
                   "cuda_kernels.def");                                                                                \
    _Static_assert(NT_SM90_FIT(rows, cols, stages, blocks), "blocks do not fit");
NT_GEMM_SM90_TILES(CHECK)
#undef CHECK
#define CHECK(rows, cols, stages, blocks)                                                                              \
    _Static_assert(nt_granted_gemm_sm90_adapter_##rows##x##cols == NT_GEMM_SM90_BLOCK_SHARED(rows, cols, stages),      \
                   "cuda_kernels.def");
NT_GEMM_SM90_ADAPTER_TILES(CHECK)
#undef CHECK

/* Cycles of the busiest multiprocessor per 16 of k, from the rates of an H100: it fetches about 40 bytes a cycle from
 * L2 (rows beyond n_tok are not fetched), multiplies 64 x 8 x 16 in 4 cycles, and a block alone takes some 40 for the
 * four steps' waits and issues. Each kernel has the same bits, so an estimate is good enough. */
static int64_t cycles_of(const struct nt_sm90_tile_row *tile, int32_t n_tok, int32_t n, int64_t times, int32_t n_sm) {
    enum { FETCH = 40, ALONE = 40 };
    const int64_t blocks = nt_ceil_div(times * nt_gemm_blocks(tile->rows, tile->cols, n_tok, n), n_sm),
                  rows = n_tok < tile->rows ? n_tok : tile->rows;
    const int64_t fetch = (rows + tile->cols) * 16 * (int64_t)sizeof(nt_bf16) / FETCH;
    const int64_t multiply = (int64_t)tile->rows * tile->cols / (64 * 8) * 4;
    const int64_t busy = blocks * (fetch > multiply ? fetch : multiply);
    const int64_t alone = nt_ceil_div(blocks, tile->blocks) * ALONE;
    return busy > alone ? busy : alone;
}

const struct nt_sm90_tile_row *nt_sm90_choose(const struct nt_sm90_tile_row *from, int count, int32_t n_tok, int32_t n,
                                              int64_t times, int32_t n_sm) {
    const struct nt_sm90_tile_row *best = &from[0];
    int64_t least = INT64_MAX;
    for (int i = 0; i < count; i++) {
        const int64_t cycles = cycles_of(&from[i], n_tok, n, times, n_sm);
        if (cycles > least || (from[i].rows > 64 && n_tok <= 64)) continue;
        least = cycles;
        best = &from[i];
    }
    return best;
}

bool nt_sm90_has(const struct nt_backend *be, enum nt_cuda_kernel kernel) {
    return nt_cuda_has(be, kernel) && be->cuda->driver->cuTensorMapEncodeTiled;
}

bool nt_sm90_is_copied(const nt_bf16 *x, int64_t ldx) {
    return ((uintptr_t)x & 15) == 0 && ldx % 8 == 0;
}

bool nt_gemm_sm90_takes(const struct nt_backend *be, const struct nt_gemm_args *args) {
    return nt_sm90_has(be, tiles[0].kernel) && args->w->format == NT_WEIGHT_BF16_ROWS &&
           ((uintptr_t)args->w->data & 15) == 0 && nt_sm90_is_copied(args->x, args->ldx) &&
           (!args->w2 || nt_sm90_is_copied(args->x2, args->ldx2));
}

nt_status nt_sm90_encode_tensor(const struct nt_backend *be, const struct nt_sm90_tensor *t,
                                struct nt_tensor_map *out) {
    static const cuuint32_t element_strides[NT_SM90_RANK] = {1, 1, 1};
    cuuint64_t dims[NT_SM90_RANK], strides[NT_SM90_RANK - 1];
    cuuint32_t box[NT_SM90_RANK];
    CUtensorMap map;
    for (uint32_t i = 0; i < t->rank; i++) {
        dims[i] = t->dim[i];
        box[i] = t->box[i];
        if (i > 0) strides[i - 1] = t->stride[i - 1];
    }
    const CUresult result = be->cuda->driver->cuTensorMapEncodeTiled(
        &map, (CUtensorMapDataType)t->type, t->rank, (void *)(uintptr_t)t->data, dims, strides, box, element_strides,
        CU_TENSOR_MAP_INTERLEAVE_NONE, (CUtensorMapSwizzle)t->swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return nt_gpu_fail(be->cuda->driver, result, "cuTensorMapEncodeTiled", __FILE__, __LINE__);
    memcpy(out, &map, sizeof map);
    return NT_OK;
}

nt_status nt_sm90_encode_rows(const struct nt_backend *be, const void *data, int32_t rows, int32_t k, int64_t ld,
                              int32_t box_rows, struct nt_tensor_map *out) {
    const struct nt_sm90_tensor t = {
        .data = data,
        .type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        .rank = 2,
        .dim = {(uint64_t)k,                    (uint64_t)rows},
        .stride = {(uint64_t)ld * sizeof(nt_bf16)},
        .box = {NT_GEMM_SM90_DEPTH,            (uint32_t)box_rows              },
        .swizzle = CU_TENSOR_MAP_SWIZZLE_128B,
    };
    return nt_sm90_encode_tensor(be, &t, out);
}

nt_status nt_sm90_encode_x(const struct nt_backend *be, const nt_bf16 *x, int32_t n_tok, int32_t k, int64_t ldx,
                           int32_t rows, struct nt_sm90_operands *out) {
    out->x_rows = rows == 64 && n_tok < rows ? (int32_t)nt_ceil_div(n_tok, 8) * 8 : rows;
    return nt_sm90_encode_rows(be, x, n_tok, k, ldx, out->x_rows, &out->x);
}

nt_status nt_sm90_encode(const struct nt_backend *be, const struct nt_gemm_args *args, int32_t rows, int32_t cols,
                         struct nt_sm90_operands *out) {
    const struct nt_packed *w = args->w;
    const int32_t n_pad = (int32_t)nt_ceil_div(w->n, NT_PANEL) * NT_PANEL, k_pad = (int32_t)nt_ceil_div(w->k, 8) * 8;
    NT_TRY(nt_sm90_encode_x(be, args->x, args->n_tok, w->k, args->ldx, rows, out));
    return nt_sm90_encode_rows(be, w->data, n_pad, w->k, k_pad, cols, &out->w);
}

static nt_status with_adapter(struct nt_backend *be, const struct nt_gemm_args *args) {
    const struct nt_sm90_tile_row *tile =
        nt_sm90_choose(adapter_tiles, N_ADAPTER_TILES, args->n_tok, args->w->n, 1, be->cuda->facts.n_sm);
    struct nt_gemm_sm90_adapted a = {.own.g = nt_gemm_cuda_of(args, args->w->n, tile->rows, tile->cols),
                                     .second = nt_gemm_adapter_of(args)};
    const struct nt_gemm_args behind = {.x = args->x2, .ldx = args->ldx2, .w = args->w2, .n_tok = args->n_tok};
    NT_TRY(nt_sm90_encode(be, args, tile->rows, tile->cols, &a.own.operands));
    if (args->w2) NT_TRY(nt_sm90_encode(be, &behind, tile->rows, tile->cols, &a.behind));
    const int64_t blocks = nt_sm90_blocks(tile, (int64_t)a.own.g.row_tiles * a.own.g.col_tiles, be->cuda->facts.n_sm);
    return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a);
}

nt_status nt_gemm_sm90(struct nt_backend *be, const struct nt_gemm_args *args) {
    if (nt_gemm_cuda_adapts(args)) return with_adapter(be, args);
    const struct nt_sm90_tile_row *tile =
        nt_sm90_choose(tiles, N_TILES, args->n_tok, args->w->n, 1, be->cuda->facts.n_sm);
    struct nt_gemm_sm90 a = {.g = nt_gemm_cuda_of(args, args->w->n, tile->rows, tile->cols)};
    NT_TRY(nt_sm90_encode(be, args, tile->rows, tile->cols, &a.operands));
    const int64_t blocks = nt_sm90_blocks(tile, (int64_t)a.g.row_tiles * a.g.col_tiles, be->cuda->facts.n_sm);
    return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a);
}
