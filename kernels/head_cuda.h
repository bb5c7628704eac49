/* What head.cu, head_sm90.cu and head_cuda.c agree on: the tiles, and the kernels' structs.
 *
 * A product runs in the tiles and with the loop of gemm (gemm_tile.cuh, gemm_sm90_tile.cuh), so that its sums have
 * gemm's bits on every device; only what becomes of them differs. NT_HEAD_TILES has a row per kernel
 * nt_head_<rows>x<cols>, NT_HEAD_SM90_TILES those of compute capability 9.0. The best pair of each row of each tile
 * lies in the backend's workspace until the joining kernel has read it. Pointers are device memory. No state; any
 * thread; errors are the launcher's (kernels/head_cuda.c). */
#ifndef NT_HEAD_CUDA_H
#define NT_HEAD_CUDA_H

#include "gemm_sm90_cuda.h"

/* X(rows, cols, depth, stages, warps_m, warps_n): two blocks share a multiprocessor of every device from sm_80. */
#define NT_HEAD_TILES(X)                                                                                               \
    X(16, 128, 64, 4, 1, 4)                                                                                            \
    X(64, 128, 64, 3, 2, 2)
/* X(rows, cols, stages, blocks of a multiprocessor) */
#define NT_HEAD_SM90_TILES(X)                                                                                          \
    X(64, 128, 4, 2)                                                                                                   \
    X(128, 256, 4, 1)

enum {
    NT_HEAD_COLS = 128, /* of the vocabulary in a part of a row, which does not depend on the tile */
    NT_HEAD_JOIN_THREADS = 128,
};

struct nt_head_pair {
    float value;
    int32_t index; /* in the shard; INT32_MAX: none */
};

struct nt_head_cuda {
    struct nt_gemm_cuda g; /* the product; n is the vocabulary that takes part, nothing is stored */
    const float *inv_temp; // [n_tok] or NULL
    const uint64_t *seed, *stream;
    float *value;              // [n_tok]
    int32_t *index;            // [n_tok]
    struct nt_head_pair *part; // [n_tok, n_part]
    int32_t first, n_part;
};

struct nt_head_sm90 {
    struct nt_sm90_operands operands;
    struct nt_head_cuda h;
};

#endif
