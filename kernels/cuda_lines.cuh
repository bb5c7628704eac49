/* Accumulators on their way out: a warp's fragments become lines of shared memory, which are read in order.
 *
 * What follows a product (gates, conversions, noise) is then a loop over lines with whole stores, and its code is short:
 * unrolled over the fragments of a 128 x 256 tile it was 130 KB, and its misses of the instruction cache took a quarter
 * of a gated product's time (H200). No state. */
#ifndef NT_CUDA_LINES_CUH
#define NT_CUDA_LINES_CUH

#include "cuda_common.cuh"

/* Floats from one line to the next: the pieces of 4 rows, 32 bytes each, lie in different banks. */
#define NT_LINE(cols) ((cols) + 8)

/* 8 rows of a warp, row lane / 4 by this lane; v as mma and wgmma leave it: two neighbours of each of N groups of 8
 * columns, v[4 i] and v[4 i + 1] of group i. `lines`: the first column of the first row. */
template <int N, int COLS> NT_DEVICE void nt_lines_put(float *lines, const float *v) {
    float *to = lines + nt_lane() / 4 * NT_LINE(COLS) + 2 * (nt_lane() & 3);
#pragma unroll
    for (int i = 0; i < N; i++) *(float2 *)(to + 8 * i) = make_float2(v[4 * i], v[4 * i + 1]);
}

#endif
