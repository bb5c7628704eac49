/* What head.cu and head_cuda.c agree on: the tile, and the kernels' struct.
 *
 * The best pair of each row of each tile lies in the backend's workspace until the joining kernel has read it.
 * Pointers are device memory. Three stages of 24 KiB leave room for two blocks on a multiprocessor of every device from
 * sm_80. No state; any thread; errors are the launcher's (kernels/head_cuda.c). */
#ifndef NT_HEAD_CUDA_H
#define NT_HEAD_CUDA_H

#include "ops.h"

enum {
    NT_HEAD_ROWS = 64,  /* of x in a tile */
    NT_HEAD_COLS = 128, /* of the vocabulary in a tile */
    NT_HEAD_DEPTH = 64, /* of k in a stage: 128 bytes, a swizzled line */
    NT_HEAD_STAGES = 3, /* two in flight */
    NT_HEAD_THREADS = 128,
    NT_HEAD_STAGE_BYTES = (NT_HEAD_ROWS + NT_HEAD_COLS) * NT_HEAD_DEPTH * 2,
    NT_HEAD_SHARED = NT_HEAD_STAGES * NT_HEAD_STAGE_BYTES,
    NT_HEAD_JOIN_THREADS = 128,
};

struct nt_head_pair {
    float value;
    int32_t index;
};

struct nt_head_cuda {
    const nt_bf16 *x; // [n_row, k]
    const nt_bf16 *w; // [n, k_pad], columns k .. k_pad - 1 are 0
    int64_t ldx;
    const float *inv_temp; // [n_row] or NULL
    const uint64_t *seed, *stream;
    float *value;              // [n_row]
    int32_t *index;            // [n_row]
    struct nt_head_pair *part; // [n_row, n_tile]
    int32_t n_row, n_vocab, first, k, k_pad, n_tile;
};

#endif
