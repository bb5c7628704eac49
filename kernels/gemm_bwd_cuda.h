/* What the kernels of gemm's backward (gemm_dgrad.cu, gemm_wgrad.cu) and gemm_bwd_cuda.c agree on.
 *
 * A row of each list is a kernel nt_gemm_<op>_<rows>x<cols>: tile of the result, elements of the sum in a stage, stages
 * in shared memory, warps along the rows and along the columns. dgrad has another kernel a row for weights of
 * integers, nt_gemm_dgrad_<type>_<rows>x<cols>, the same but for the rings of packed blocks beside which it unpacks.
 * The choice of a tile never changes a bit: every element is one chain of mma in steps of 16, ascending from zero
 * (dgrad: over n, then over the second product's; wgrad: over the tokens of a block of NT_WGRAD_TOKENS). Pointers are
 * device memory. No state; errors are the launcher's. */
#ifndef NT_GEMM_BWD_CUDA_H
#define NT_GEMM_BWD_CUDA_H

#include "gemm_cuda.h"
#include "gemm_quant_cuda.h"
#include "ops_bwd.h"

/* X(rows, cols, depth, stages, warps_m, warps_n): n_tok x k. */
#define NT_GEMM_DGRAD_TILES(X)                                                                                         \
    X(16, 32, 64, 6, 1, 1)                                                                                             \
    X(32, 64, 64, 4, 1, 2)                                                                                             \
    X(64, 64, 64, 4, 2, 2)                                                                                             \
    X(128, 128, 32, 4, 2, 2)

/* X(type, ...); of 64 k or more: half a block of a panel. */
#define NT_GEMM_DGRAD_QUANT_TILES(X, type)                                                                             \
    X(type, 32, 64, 64, 4, 1, 2)                                                                                       \
    X(type, 64, 64, 64, 4, 2, 2)                                                                                       \
    X(type, 128, 128, 32, 4, 2, 4)

/* m x n. Small tiles have a warp for 16 columns or 16 x 32: few of them run at a time, so a warp's own instructions,
 * most of them its part of the copies, are what a stage takes. */
#define NT_GEMM_WGRAD_TILES(X)                                                                                         \
    X(16, 32, 64, 6, 1, 2)                                                                                             \
    X(16, 64, 64, 6, 1, 4)                                                                                             \
    X(32, 64, 64, 4, 2, 2)                                                                                             \
    X(64, 64, 64, 4, 2, 2)                                                                                             \
    X(128, 128, 32, 4, 2, 4)

/* Weights of a stage as they are packed: of each panel the integers of its columns, `half` bytes for 64, then its
 * scales. Whole lines. */
#define NT_GEMM_DGRAD_QUANT_RAW(half, cols, depth)                                                                     \
    (((depth) / NT_PANEL * ((cols) / 64 * (half) + 2 * NT_PANEL) + 127) / 128 * 128)
/* Rings of dy and of packed weights, and two stages of unpacked ones; at least what the second product's ring takes. */
#define NT_GEMM_DGRAD_QUANT_OWN(half, rows, cols, depth, stages)                                                       \
    ((stages) * ((rows) * (depth)*2 + NT_GEMM_DGRAD_QUANT_RAW(half, cols, depth)) + 2 * (cols) * (depth)*2)
#define NT_GEMM_DGRAD_QUANT_SHARED(type, rows, cols, depth, stages)                                                    \
    (NT_GEMM_DGRAD_QUANT_OWN(nt_quant_half_##type, rows, cols, depth, stages) >                                        \
             NT_GEMM_SHARED(rows, cols, depth, stages)                                                                 \
         ? NT_GEMM_DGRAD_QUANT_OWN(nt_quant_half_##type, rows, cols, depth, stages)                                    \
         : NT_GEMM_SHARED(rows, cols, depth, stages))

/* g: y = dx [n_tok, n = w->k], x = dy [n_tok, k = w->n]; w [k, n_pad], of integers unused; k_pad, bias none. */
struct nt_gemm_dgrad_cuda {
    struct nt_gemm_cuda g;
    struct nt_gemm_adapter second; /* x = dy2 [n_tok, k = w2->n], w = w2 [k, n_pad]; k 0: none */
};
struct nt_gemm_dgrad_quant_cuda {
    struct nt_gemm_dgrad_cuda d;
    const unsigned char *data; // [n_panel][n_group][bytes of a block]
    int32_t n_panel, n_group;
};

struct nt_gemm_wgrad_cuda {
    const nt_bf16 *a, *b; // [n_tok, m], [n_tok, n]
    float *dw;            // [m, n]
    int64_t lda, ldb, lddw;
    float *part; // [n_block, m, n], sums of blocks of NT_WGRAD_TOKENS tokens that the join adds; NULL: a tile is added
    float alpha;
    int32_t n_tok, m, n, b_run;
    int32_t row_tiles, col_tiles;
};
enum {
    NT_WGRAD_JOIN_THREADS = 128,
    NT_WGRAD_JOIN_AHEAD = 8, /* parts that a thread has under way */
};

#endif
