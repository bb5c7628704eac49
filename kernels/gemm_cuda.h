/* What gemm.cu and gemm_cuda.c agree on: the tiles, and the kernels' struct.
 *
 * NT_GEMM_TILES has a row per kernel nt_gemm_<rows>x<cols>: tile of y, k of a stage, stages in shared memory, warps
 * along the rows and along the columns. NT_GEMM_ADAPTER_TILES are those nt_gemm_adapter_<rows>x<cols>, which go on with
 * an adapter's product and keep pre-activations. The choice of a tile never changes a bit: every element is one chain
 * of mma over k in steps of 16, ascending from zero, then over the adapter's rank, in all of them. Pointers are device
 * memory. No state; errors are the launcher's. */
#ifndef NT_GEMM_CUDA_H
#define NT_GEMM_CUDA_H

#include "ops.h"

/* X(rows, cols, depth, stages, warps_m, warps_n) */
#define NT_GEMM_TILES(X)                                                                                               \
    X(16, 32, 64, 6, 1, 1)                                                                                             \
    X(16, 128, 64, 4, 1, 4)                                                                                            \
    X(32, 32, 64, 4, 2, 1)                                                                                             \
    X(32, 64, 64, 4, 1, 2)                                                                                             \
    X(64, 32, 64, 4, 4, 1)                                                                                             \
    X(64, 64, 64, 4, 2, 2)                                                                                             \
    X(64, 128, 64, 3, 2, 2)                                                                                            \
    X(128, 128, 32, 4, 2, 2)                                                                                           \
    X(128, 256, 32, 4, 2, 4)

#define NT_GEMM_ADAPTER_TILES(X)                                                                                       \
    X(16, 32, 64, 6, 1, 1)                                                                                             \
    X(32, 32, 64, 4, 2, 1)                                                                                             \
    X(64, 64, 64, 4, 2, 2)                                                                                             \
    X(128, 128, 32, 4, 2, 2)

#define NT_GEMM_SHARED(rows, cols, depth, stages) ((stages) * ((rows) + (cols)) * (depth)*2)

enum { NT_GEMM_GROUP = 8 }; /* row tiles that pass over the columns together and share weights and x in L2 */

struct nt_gemm_cuda {
    const nt_bf16 *x;  // [n_tok, k]
    const nt_bf16 *w;  // [n_pad, k_pad], padding is 0
    const float *bias; // [n] or NULL
    void *y;           // [n_tok, n or n/2]
    int64_t ldx, ldy;
    int32_t n_tok, n, n_pad, k, k_pad;
    int32_t row_tiles, col_tiles;
    int32_t out; /* enum nt_gemm_out */
};
/* Apart, so that the parameters of the kernels without it stay few. */
struct nt_gemm_adapter {
    const nt_bf16 *x; // [n_tok, k]
    const nt_bf16 *w; // [n_pad, k_pad]
    nt_bf16 *pre;     // [n_tok, n] or NULL
    int64_t ldx, ldpre;
    int32_t k, k_pad; /* 0: no second product */
};
struct nt_gemm_adapted {
    struct nt_gemm_cuda g;
    struct nt_gemm_adapter second;
};

#ifndef __CUDACC__
#include "cuda_launch.h"

/* A kernel that computes tiles of rows x cols. */
struct nt_gemm_tile_row {
    enum nt_cuda_kernel kernel;
    int32_t rows, cols, threads;
    size_t shared;
};
static inline int64_t nt_gemm_blocks(int32_t rows, int32_t cols, int32_t n_tok, int32_t n) {
    return nt_ceil_div(n_tok, rows) * nt_ceil_div(n, cols);
}
/* Of `count` kernels with the same bits, the one that is expected to take least for `times` n_tok x n results. */
const struct nt_gemm_tile_row *nt_gemm_choose(const struct nt_gemm_tile_row *from, int count, int32_t n_tok, int32_t n,
                                              int64_t times, int32_t n_sm);

/* What no kernel of gemm takes: NT_E_UNSUPPORTED with a sentence. */
NT_MUST nt_status nt_gemm_cuda_check(const struct nt_gemm_args *args);
/* What the kernels with an adapter are for. */
static inline bool nt_gemm_cuda_adapts(const struct nt_gemm_args *args) {
    return args->w2 || args->pre;
}
/* The struct of a launch in tiles of rows x cols over the first n columns. */
struct nt_gemm_cuda nt_gemm_cuda_of(const struct nt_gemm_args *args, int32_t n, int32_t rows, int32_t cols);
struct nt_gemm_adapter nt_gemm_adapter_of(const struct nt_gemm_args *args);
/* bf16 weights, on any device that has the kernels; shapes as nt_gemm_cuda_check has checked them. */
NT_MUST nt_status nt_gemm_mma(struct nt_backend *be, const struct nt_gemm_args *args);
#endif

#endif
