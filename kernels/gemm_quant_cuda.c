/* Launches of gemm with 4-bit and 8-bit weights: which tile takes which shape. */
#include "gemm_quant_cuda.h"
#include "cuda_bodies.h"
#include "cuda_granted.h"

#define TILE(kernel, type, rows, cols, slots, stages, together)                                                        \
    {                                                                                                                  \
        NT_CUDA_gemm_##kernel##_##rows##x##cols, (rows), (cols), NT_GEMM_QUANT_THREADS(cols, slots),                   \
            NT_GEMM_QUANT_SHARED(type, rows, cols, slots, stages, together)                                            \
    }
#define OWN(type, rows, cols, slots, stages, together, blocks) TILE(type, type, rows, cols, slots, stages, together),
#define ADAPTER(type, rows, cols, slots, stages, together, blocks)                                                     \
    TILE(type##_adapter, type, rows, cols, slots, stages, together),
static const struct nt_gemm_tile_row int4_tiles[] = {NT_GEMM_INT4_TILES(OWN)};
static const struct nt_gemm_tile_row int8_tiles[] = {NT_GEMM_INT8_TILES(OWN)};
static const struct nt_gemm_tile_row int4_adapter_tiles[] = {NT_GEMM_INT4_ADAPTER_TILES(ADAPTER)};
static const struct nt_gemm_tile_row int8_adapter_tiles[] = {NT_GEMM_INT8_ADAPTER_TILES(ADAPTER)};

#define GRANTED(name, bytes)                                                                                           \
    _Static_assert(nt_granted_##name == (bytes), "as cuda_kernels.def");                                               \
    _Static_assert((bytes) <= NT_A100_SHARED, "more than an A100 has");
#define CHECK(type, rows, cols, slots, stages, together, blocks)                                                       \
    GRANTED(gemm_##type##_##rows##x##cols, NT_GEMM_QUANT_SHARED(type, rows, cols, slots, stages, together))
#define CHECK_ADAPTER(type, rows, cols, slots, stages, together, blocks)                                               \
    GRANTED(gemm_##type##_adapter_##rows##x##cols, NT_GEMM_QUANT_SHARED(type, rows, cols, slots, stages, together))
NT_GEMM_INT4_TILES(CHECK)
NT_GEMM_INT8_TILES(CHECK)
NT_GEMM_INT4_ADAPTER_TILES(CHECK_ADAPTER)
NT_GEMM_INT8_ADAPTER_TILES(CHECK_ADAPTER)

struct tile_rows {
    const struct nt_gemm_tile_row *row;
    int count;
};
#define ROWS(list)                                                                                                     \
    { (list), sizeof(list) / sizeof(list)[0] }
static const struct tile_rows tiles[NT_WEIGHT_FORMAT_COUNT][2] = {
    [NT_WEIGHT_INT4] = {ROWS(int4_tiles), ROWS(int4_adapter_tiles)},
    [NT_WEIGHT_INT8] = {ROWS(int8_tiles), ROWS(int8_adapter_tiles)},
};

/* The fewest rows that hold n_tok; of those the most columns, which share x, that leave no multiprocessor without a
 * block; of what fits into the device's shared memory (99 KiB on compute capability 8.6 and 8.9). Only time depends on
 * it. */
static const struct nt_gemm_tile_row *choose(const struct nt_cuda *cuda, struct tile_rows from, int32_t n_tok,
                                             int32_t n) {
    const struct nt_gemm_tile_row *best = &from.row[0];
    for (int i = 1; i < from.count; i++) {
        const struct nt_gemm_tile_row *row = &from.row[i];
        const bool taller = row->rows > best->rows;
        if (row->shared > (size_t)cuda->facts.max_shared) continue;
        if (taller ? n_tok > best->rows
                   : row->rows == best->rows && nt_gemm_blocks(row->rows, row->cols, n_tok, n) >= cuda->facts.n_sm)
            best = row;
    }
    return best;
}

nt_status nt_gemm_quant(struct nt_backend *be, const struct nt_gemm_args *args) {
    const struct nt_packed *w = args->w;
    const bool adapts = nt_gemm_cuda_adapts(args);
    const struct nt_gemm_tile_row *tile = choose(be->cuda, tiles[w->format][adapts], args->n_tok, w->n);
    const struct nt_gemm_quant_adapted a = {
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
