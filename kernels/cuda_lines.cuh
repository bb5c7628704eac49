/* Accumulators on their way out: a warp's fragments become lines of shared memory, which are read in order.
 *
 * What follows a product (sums, noise) is then a loop over lines with whole stores, and its code is short: unrolled over
 * the fragments of a 128 x 256 tile, exact quotients with their branches among it, it was 130 KB, and its misses of the
 * instruction cache took a quarter of a gated product's time (H200). Gates of 8 instructions without a branch, 8 KB in
 * all, are with the fragments again (gemm_epilogue.cuh). No state. */
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

/* The transposed: 16 rows by 8 N columns of a warp become 16 columns of 8 N lines. v as above, v[4 i + 2] and v[4 i + 3] of
 * the row 8 further. `lines`: the first of the columns in the first line. Half of the lanes store the second of two
 * neighbours first: the lines of an instruction's eights of lanes lie in different banks. */
template <int N, int COLS> NT_DEVICE void nt_lines_put_turned(float *lines, const float *v) {
    const int32_t pair = nt_lane() & 3, odd = pair >> 1;
    float *first = lines + (2 * pair + odd) * NT_LINE(COLS) + nt_lane() / 4;
    float *second = first + (odd ? -NT_LINE(COLS) : NT_LINE(COLS));
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float even_line = v[4 * i + 2 * h], odd_line = v[4 * i + 2 * h + 1];
            first[8 * i * NT_LINE(COLS) + 8 * h] = odd ? odd_line : even_line;
            second[8 * i * NT_LINE(COLS) + 8 * h] = odd ? even_line : odd_line;
        }
}

#endif
