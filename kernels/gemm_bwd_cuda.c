/* Launches of gemm's backward: which tile takes which shape. */
#include "gemm_bwd_cuda.h"
#include "cuda_bodies.h"
#include "cuda_granted.h"
#include "gemm_dgrad_sm90_cuda.h"
#include "gemm_wgrad_sm90_cuda.h"
#include "launch_places.h"

#define TILE(op, rows, cols, warps, shared)                                                                            \
    { NT_CUDA_gemm_##op##_##rows##x##cols, (rows), (cols), 32 * (warps), (shared) }
#define DGRAD(rows, cols, depth, stages, warps_m, warps_n)                                                             \
    TILE(dgrad, rows, cols, (warps_m) * (warps_n), NT_GEMM_SHARED(rows, cols, depth, stages)),
#define DGRAD_QUANT(type, rows, cols, depth, stages, warps_m, warps_n)                                                 \
    TILE(dgrad_##type, rows, cols, (warps_m) * (warps_n), NT_GEMM_DGRAD_QUANT_SHARED(type, rows, cols, depth, stages)),
#define WGRAD(rows, cols, depth, stages, warps_m, warps_n)                                                             \
    TILE(wgrad, rows, cols, (warps_m) * (warps_n), NT_GEMM_SHARED(rows, cols, depth, stages)),
static const struct nt_gemm_tile_row dgrad_tiles[] = {NT_GEMM_DGRAD_TILES(DGRAD)};
static const struct nt_gemm_tile_row dgrad_int4_tiles[] = {NT_GEMM_DGRAD_QUANT_TILES(DGRAD_QUANT, int4)};
static const struct nt_gemm_tile_row dgrad_int8_tiles[] = {NT_GEMM_DGRAD_QUANT_TILES(DGRAD_QUANT, int8)};
static const struct nt_gemm_tile_row wgrad_tiles[] = {NT_GEMM_WGRAD_TILES(WGRAD)};
enum { N_WGRAD = sizeof wgrad_tiles / sizeof wgrad_tiles[0] };

/* dgrad's, by the format of the weights. */
#define ROWS(list)                                                                                                     \
    { (list), sizeof(list) / sizeof(list)[0] }
static const struct {
    const struct nt_gemm_tile_row *row;
    int count;
} dgrad_of_format[NT_WEIGHT_FORMAT_COUNT] = {
    [NT_WEIGHT_BF16_ROWS] = ROWS(dgrad_tiles),
    [NT_WEIGHT_INT4] = ROWS(dgrad_int4_tiles),
    [NT_WEIGHT_INT8] = ROWS(dgrad_int8_tiles),
};

#define GRANTED(name, bytes)                                                                                           \
    _Static_assert(nt_granted_##name == (bytes), "as cuda_kernels.def");                                               \
    _Static_assert((bytes) <= NT_A100_SHARED, "more than an A100 has");
#define CHECK_DGRAD(rows, cols, depth, stages, warps_m, warps_n)                                                       \
    GRANTED(gemm_dgrad_##rows##x##cols, NT_GEMM_SHARED(rows, cols, depth, stages))
#define CHECK_DGRAD_QUANT(type, rows, cols, depth, stages, warps_m, warps_n)                                           \
    GRANTED(gemm_dgrad_##type##_##rows##x##cols, NT_GEMM_DGRAD_QUANT_SHARED(type, rows, cols, depth, stages))
#define CHECK_WGRAD(rows, cols, depth, stages, warps_m, warps_n)                                                       \
    GRANTED(gemm_wgrad_##rows##x##cols, NT_GEMM_SHARED(rows, cols, depth, stages))
NT_GEMM_DGRAD_TILES(CHECK_DGRAD)
NT_GEMM_DGRAD_QUANT_TILES(CHECK_DGRAD_QUANT, int4)
NT_GEMM_DGRAD_QUANT_TILES(CHECK_DGRAD_QUANT, int8)
NT_GEMM_WGRAD_TILES(CHECK_WGRAD)

static nt_status check_dgrad(const struct nt_gemm_dgrad_args *args) {
    const struct nt_packed *w = args->w, *w2 = args->w2;
    NT_CHECK(!w2 || w2->k == w->k);            /* an adapter was checked against its base when it was read */
    NT_CHECK(args->out <= NT_GEMM_STORE_BF16); /* of the op, on any backend: no gate in a gradient */
    if (!dgrad_of_format[w->format].row)
        return NT_FAIL(NT_E_UNSUPPORTED, "gemm_dgrad on CUDA reads weights as bf16 rows, int4 or int8, not format %d",
                       (int)w->format);
    if (w2 && w2->format != NT_WEIGHT_BF16_ROWS)
        return NT_FAIL(NT_E_UNSUPPORTED, "gemm_dgrad on CUDA reads an adapter as bf16 rows, not format %d",
                       (int)w2->format);
    if (((uintptr_t)w->data & 15) != 0 || (w2 && ((uintptr_t)w2->data & 15) != 0))
        return NT_FAIL(NT_E_UNSUPPORTED, "gemm_dgrad on CUDA: weights must begin at a multiple of 16 bytes");
    return NT_OK;
}

/* g of a launch in tiles of rows x cols. */
static struct nt_gemm_cuda product_of(const struct nt_gemm_dgrad_args *args, int32_t rows, int32_t cols) {
    const struct nt_packed *w = args->w;
    return (struct nt_gemm_cuda){.x = args->dy,
                                 .w = w->data,
                                 .y = args->dx,
                                 .ldx = args->lddy,
                                 .ldy = args->lddx,
                                 .n_tok = args->n_tok,
                                 .n = w->k,
                                 .n_pad = (int32_t)(nt_ceil_div(w->k, 8) * 8),
                                 .k = w->n,
                                 .row_tiles = (int32_t)nt_ceil_div(args->n_tok, rows),
                                 .col_tiles = (int32_t)nt_ceil_div(w->k, cols),
                                 .out = (int32_t)args->out};
}

static struct nt_gemm_dgrad_cuda dgrad_of(const struct nt_gemm_dgrad_args *args, const struct nt_gemm_tile_row *tile) {
    struct nt_gemm_dgrad_cuda a = {.g = product_of(args, tile->rows, tile->cols)};
    if (args->w2) {
        a.second.x = args->dy2;
        a.second.w = args->w2->data;
        a.second.ldx = args->lddy2;
        a.second.k = args->w2->n;
    }
    return a;
}

static nt_status dgrad_sm90(struct nt_backend *be, const struct nt_gemm_dgrad_args *args) {
    const struct nt_sm90_tile_row *tile = nt_gemm_dgrad_sm90_tile(args, be->cuda->facts.n_sm);
    const struct nt_gemm_cuda g = product_of(args, tile->rows, tile->cols);
    return nt_gemm_dgrad_sm90(be, args, tile, &g);
}

nt_status nt_gemm_dgrad_cuda(struct nt_backend *be, const struct nt_gemm_dgrad_args *args) {
    if (args->n_tok == 0) return NT_OK;
    NT_TRY(check_dgrad(args));
    if (nt_gemm_dgrad_sm90_takes(be, args)) return dgrad_sm90(be, args);
    const enum nt_weight_format format = args->w->format;
    const struct nt_gemm_tile_row *tile = nt_gemm_choose(dgrad_of_format[format].row, dgrad_of_format[format].count,
                                                         args->n_tok, args->w->k, 1, be->cuda->facts.n_sm);
    const struct nt_gemm_dgrad_quant_cuda a = {.d = dgrad_of(args, tile),
                                               .data = args->w->data,
                                               .n_panel = (int32_t)nt_ceil_div(args->w->n, NT_PANEL),
                                               .n_group = (int32_t)nt_ceil_div(args->w->k, NT_INT4_GROUP)};
    const int64_t blocks = (int64_t)a.d.g.row_tiles * a.d.g.col_tiles;
    if (nt_weight_is_quantized(format))
        return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a);
    return NT_CUDA_LAUNCH(be, tile->kernel, blocks, 1, 1, tile->threads, tile->shared, &a.d);
}

/* A tile of wgrad: sm90 where that takes the args, else row. */
struct wgrad_tile {
    const struct nt_sm90_tile_row *sm90;
    const struct nt_gemm_tile_row *row;
};
static struct wgrad_tile choose_wgrad(const struct nt_backend *be, const struct nt_gemm_wgrad_args *args,
                                      int64_t times) {
    const int32_t n_sm = be->cuda->facts.n_sm;
    if (nt_gemm_wgrad_sm90_takes(be, args))
        return (struct wgrad_tile){.sm90 = nt_gemm_wgrad_sm90_tile(args, times, n_sm)};
    return (struct wgrad_tile){.row = nt_gemm_choose(wgrad_tiles, N_WGRAD, args->m, args->n, times, n_sm)};
}

/* The tokens of a, in one launch, and the join where blocks of them leave their sums. */
static nt_status launch_wgrad(struct nt_backend *be, struct wgrad_tile tile, const struct nt_gemm_wgrad_cuda *a) {
    const int64_t blocks = (int64_t)a->row_tiles * a->col_tiles;
    const int64_t n_block = a->part ? nt_ceil_div(a->n_tok, NT_WGRAD_TOKENS) : 1;
    if (tile.sm90)
        NT_TRY(nt_gemm_wgrad_sm90(be, tile.sm90, n_block, a));
    else
        NT_TRY(NT_CUDA_LAUNCH(be, tile.row->kernel, blocks, n_block, 1, tile.row->threads, tile.row->shared, a));
    if (!a->part) return NT_OK;
    const int64_t joins = a->m * nt_ceil_div(a->n, NT_WGRAD_JOIN_THREADS);
    return NT_CUDA_LAUNCH(be, NT_CUDA_gemm_wgrad_join, joins, 1, 1, NT_WGRAD_JOIN_THREADS, 0, a);
}

nt_status nt_gemm_wgrad_cuda(struct nt_backend *be, const struct nt_gemm_wgrad_args *args) {
    nt_gemm_wgrad_check(args);
    if (args->n_tok == 0) return NT_OK;
    const struct nt_wgrad_cut cut = nt_wgrad_cut(args, be->cuda->workspace_bytes);
    const struct wgrad_tile tile = choose_wgrad(be, args, cut.n_block > 0 ? cut.n_block : 1);
    const int32_t rows = tile.sm90 ? tile.sm90->rows : tile.row->rows;
    const int32_t cols = tile.sm90 ? tile.sm90->cols : tile.row->cols;
    struct nt_gemm_wgrad_cuda a = {.dw = args->dw,
                                   .lda = args->lda,
                                   .ldb = args->ldb,
                                   .lddw = args->lddw,
                                   .alpha = args->alpha,
                                   .m = args->m,
                                   .n = args->n,
                                   .b_run = args->b_run,
                                   .row_tiles = (int32_t)nt_ceil_div(args->m, rows),
                                   .col_tiles = (int32_t)nt_ceil_div(args->n, cols)};
    if (cut.n_block > 0) {
        void *memory;
        NT_TRY(nt_cuda_workspace(be, (size_t)cut.n_block * cut.place, "gemm_wgrad", &memory));
        a.part = memory;
    }
    const int64_t most = a.part ? cut.n_block * NT_WGRAD_TOKENS : args->n_tok;
    for (int64_t first = 0; first < args->n_tok; first += most) {
        a.a = args->a + first * args->lda;
        a.b = args->b + first * args->ldb;
        a.n_tok = (int32_t)(args->n_tok - first < most ? args->n_tok - first : most);
        NT_TRY(launch_wgrad(be, tile, &a));
    }
    return NT_OK;
}
