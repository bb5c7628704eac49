/* gemm_wgrad by TMA and wgmma on compute capability 9.0: what gemm_wgrad_sm90.cu and its launcher agree on.
 *
 * NT_GEMM_WGRAD_SM90_TILES has a row per kernel nt_gemm_wgrad_sm90_<rows>x<cols>. Bits: those of gemm_wgrad.cu in every
 * tile, one chain of m64nNk16 over NT_WGRAD_TOKENS tokens, ascending from zero, then dw + alpha chain, two roundings.
 * nt_gemm_wgrad_sm90_takes: rows of a and b that the copy engine takes; 64 rows of dw at least, which a warpgroup has
 * (an adapter's few rows are bound by bytes, and gemm_wgrad.cu has tiles for them). Errors: NT_E_UNSUPPORTED with the
 * driver's word when it refuses a tensor map. */
#ifndef NT_GEMM_WGRAD_SM90_CUDA_H
#define NT_GEMM_WGRAD_SM90_CUDA_H

#include "gemm_bwd_cuda.h"
#include "gemm_sm90_cuda.h"

/* X(rows, cols, stages, blocks of a multiprocessor): m x n. */
#define NT_GEMM_WGRAD_SM90_TILES(X)                                                                                    \
    X(64, 128, 3, 2)                                                                                                   \
    X(128, 128, 6, 1)                                                                                                  \
    X(128, 256, 4, 1)

enum {
    NT_WGRAD_SM90_RUN = NT_PANEL / 2, /* columns of a box of b where b has runs, which are multiples of them */
    NT_WGRAD_SM90_PIECE_ROWS = 8,     /* of sums on their way out */
    NT_WGRAD_SM90_PIECE_COLS = 128,
    NT_WGRAD_SM90_LINES = NT_WGRAD_SM90_PIECE_ROWS * (NT_WGRAD_SM90_PIECE_COLS + 8) /* floats of a warp: NT_LINE */
};
/* Beside the ring, which goes on while sums leave. */
#define NT_GEMM_WGRAD_SM90_SHARED(rows, cols, stages)                                                                  \
    (NT_GEMM_SM90_SHARED(rows, cols, stages) + (rows) / 16 * NT_WGRAD_SM90_LINES * 4)

struct nt_gemm_wgrad_sm90 {
    struct nt_tensor_map a, b;   /* boxes of DEPTH tokens by DEPTH columns; of b in runs: by RUN columns */
    struct nt_gemm_wgrad_cuda w; /* a and b unused */
};

#ifndef __CUDACC__
bool nt_gemm_wgrad_sm90_takes(const struct nt_backend *be, const struct nt_gemm_wgrad_args *args);
/* The tile for `times` blocks of tokens beside each other. */
const struct nt_sm90_tile_row *nt_gemm_wgrad_sm90_tile(const struct nt_gemm_wgrad_args *args, int64_t times,
                                                       int32_t n_sm);
/* n_block: the grid's second dimension. Only what nt_gemm_wgrad_sm90_takes. */
NT_MUST nt_status nt_gemm_wgrad_sm90(struct nt_backend *be, const struct nt_sm90_tile_row *tile, int64_t n_block,
                                     const struct nt_gemm_wgrad_cuda *w);
#endif

#endif
