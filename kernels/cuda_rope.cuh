/* A head's pairs (j, j + d_head/2) over the lanes of a warp: what the kernels of rope_kv and of its gradient share.
 *
 * Pair p of a lane is column nt_rope_column<TWO>(p) of the lower half and the same of the upper. TWO, for halves of an
 * even number of columns (d_head % 4 == 0, every real model): neighbours lie in pairs p, p + 1 of a lane, so that loads
 * are 8 bytes. No state. */
#ifndef NT_CUDA_ROPE_CUH
#define NT_CUDA_ROPE_CUH

#include "cuda_common.cuh"
#include "rope_cuda.h"

static_assert(NT_ROPE_CUDA_MAX_D <= 512, "a lane holds 8 pairs: 8 * 32 >= d_head / 2");
enum { NT_ROPE_PAIRS = NT_ROPE_CUDA_MAX_D / 2 / NT_WARP };

template <bool TWO> NT_DEVICE int32_t nt_rope_column(int p) {
    return TWO ? (p / 2) * 2 * NT_WARP + 2 * nt_lane() + p % 2 : p * NT_WARP + nt_lane();
}

/* Elements j and, when TWO, j + 1. */
template <bool TWO> NT_DEVICE float2 nt_rope_load(const float *from, int32_t j) {
    return TWO ? *(const float2 *)(from + j) : make_float2(from[j], 0);
}

/* x at column j as bf16 and, when TWO, y at j + 1. */
template <bool TWO> NT_DEVICE void nt_rope_store(nt_bf16 *to, int32_t j, float x, float y) {
    if (TWO)
        *(uint32_t *)(to + j) = nt_bf16_pack(x, y);
    else
        to[j] = nt_dev_to_bf16(x);
}

#endif
