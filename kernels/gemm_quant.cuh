/* Weights of integers with scales (NT_WEIGHT_INT4, NT_WEIGHT_INT8) from shared memory to registers of bf16 pairs.
 *
 * A struct per format is both its constants and the registers of one load; functions are overloaded on it, so that a
 * kernel is written once with the format as a template parameter. A load is of half a block: 32 rows by 64 of k, HALF
 * bytes at `from`, put there chunk by chunk of 16 bytes at nt_quant_chunk_at.
 * Registers hold 64ths, q / 64, and scales are 64 times theirs: powers of two, so every sum is the same, up to weights of
 * 2^120. Subnormal bf16 and their first binade are 8 bits times 2^-133, so bits need no exponent of their own.
 * INT4: a block has the order of fragments (pack.c); a word of 8 weights becomes 4 registers in 9 instructions: a mask
 * leaves q + 8 in each half, at bit 0 or bit 4, and one fma gives it its size and takes 8 / 64 off, exactly.
 * INT8: a block is lines of 32 pairs of k. A pair is 16 bits, so ldmatrix.trans gives a lane pairs of one row: with lines
 * t and t + 4 of 8 next to each other in the order of its addresses, the four bytes are both registers of an mma's step.
 * Two and a half instructions a pair (cuda_int8.cuh).
 * Chunks are swizzled for it (nt_gemm_chunk_at): the 8 lines of a matrix touch all banks once. */
#ifndef NT_GEMM_QUANT_CUH
#define NT_GEMM_QUANT_CUH

#include "cuda_int8.cuh"
#include "gemm_quant_cuda.h"
#include "gemm_tile.cuh"

struct nt_quant_int4 {
    enum { BLOCK = NT_INT4_BLOCK, HALF = nt_quant_half_int4, SWIZZLED = 0 };
    uint32_t word[4][2];
};
struct nt_quant_int8 {
    enum { BLOCK = NT_INT8_BLOCK, HALF = nt_quant_half_int8, SWIZZLED = 1, LINE = 2 * NT_PANEL, CHUNKS = LINE / 16 };
    uint32_t four[4];
};
static_assert(2 * nt_quant_half_int4 + 2 * NT_PANEL == NT_INT4_BLOCK, "two halves and the scales");
static_assert(2 * nt_quant_half_int8 + 2 * NT_PANEL == NT_INT8_BLOCK, "two halves and the scales");

/* Register i (0..3) of a word of 8 4-bit weights (pack.c): q / 64 of nibbles i and i + 4. */
NT_DEVICE uint32_t nt_int4_pair(uint32_t word, int i) {
    const uint32_t bits = (i < 2 ? word : word >> 8) & (i & 1 ? 0x00f000f0u : 0x000f000fu);
    return nt_fma_bf16x2(bits, i & 1 ? 0x7d007d00u : 0x7f007f00u, 0xbe00be00u); /* * 2^123 or 2^127 - 8 / 64 */
}
/* q / 64 of two of the four bytes, in the place of the even and the odd k. */
NT_DEVICE uint32_t nt_int8_pair(uint32_t biased, int i) {
    return nt_int8_64ths(biased, i ? 0x4342 : 0x4140);
}
/* 64 times the scale of a row. */
NT_DEVICE float nt_quant_scale(const char *scales, int32_t row) {
    return 64.0f * nt_dev_to_f32(*(const nt_bf16 *)(scales + 2 * row));
}

/* Where chunk c of a half, or of the halves and scales of a block, lies in shared memory. */
template <class W> NT_DEVICE uint32_t nt_quant_chunk_at(int32_t c) {
    if constexpr (W::SWIZZLED)
        return nt_gemm_chunk_at<W>(c / W::CHUNKS, c % W::CHUNKS);
    else
        return 16 * (uint32_t)c;
}

/* The lane's line of a matrix of ldmatrix: 8 lines of pairs from 8 octet on, 8 rows from 8 rows on. */
NT_DEVICE uint32_t nt_quant_line_at(int32_t octet, int32_t rows) {
    const int32_t i = nt_lane() & 7;
    return nt_gemm_chunk_at<nt_quant_int8>(8 * octet + (i >> 1) + 4 * (i & 1), rows);
}

/* For all 32 rows, 16 of k: step 0 to 3 of the half, ascending. The first step of INT4 loads them all. */
NT_DEVICE void nt_quant_load_step(struct nt_quant_int4 *w, const char *from, int step) {
    if (step > 0) return;
    const char *at = from + 16 * nt_lane();
    const uint4 low = nt_load128(at), high = nt_load128(at + nt_quant_int4::HALF / 2);
    const uint32_t all[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; i++) w->word[i / 2][i % 2] = all[i];
}
NT_DEVICE void nt_quant_load_step(struct nt_quant_int8 *w, const char *from, int step) {
    nt_ldmatrix_x4_trans(w->four, nt_shared_address(from) + nt_quant_line_at(step, nt_lane() / 8));
#pragma unroll
    for (int i = 0; i < 4; i++) w->four[i] = nt_int8_biased(w->four[i]);
}
/* Register i (0, 1) of that step for rows 8 n .. 8 n + 7: of a B fragment, or 2 i + n % 2 of an A fragment of 16 rows. */
NT_DEVICE uint32_t nt_quant_step_pair(const struct nt_quant_int4 *w, int n, int step, int i) {
    return nt_int4_pair(w->word[n][step / 2], 2 * (step % 2) + i);
}
NT_DEVICE uint32_t nt_quant_step_pair(const struct nt_quant_int8 *w, int n, int, int i) {
    return nt_int8_pair(w->four[n], i);
}

/* For 8 rows from 8 rows on, all 64 of k. */
NT_DEVICE void nt_quant_load_rows(struct nt_quant_int4 *w, const char *from, int32_t rows) {
    const uint2 two =
        *(const uint2 *)(from + rows / 2 * (nt_quant_int4::HALF / 2) + 16 * nt_lane() + 8 * (rows % 2));
    w->word[0][0] = two.x;
    w->word[0][1] = two.y;
}
NT_DEVICE void nt_quant_load_rows(struct nt_quant_int8 *w, const char *from, int32_t rows) {
    nt_ldmatrix_x4_trans(w->four, nt_shared_address(from) + nt_quant_line_at(nt_lane() / 8, rows));
#pragma unroll
    for (int i = 0; i < 4; i++) w->four[i] = nt_int8_biased(w->four[i]);
}
/* The pair of row lane / 4 at k 8 c + 2 (lane % 4), 64ths as well. */
NT_DEVICE uint32_t nt_quant_row_pair(const struct nt_quant_int4 *w, int c) {
    return nt_int4_pair(w->word[0][c / 4], c % 4);
}
NT_DEVICE uint32_t nt_quant_row_pair(const struct nt_quant_int8 *w, int c) {
    return nt_int8_pair(w->four[c / 2], c % 2);
}

/* For 16 rows, the A operand of a product (ptx.cuh): 8 steps of 16 of k, whole blocks of a group of each panel one behind
 * the other, chunk by chunk where nt_quant_chunk_at says, counted from the first panel's first.
 * Where the lane's part of rows 16 `half` .. of a panel begins, for the loads of all steps. */
template <class W> NT_DEVICE uint32_t nt_quant_rows16_at(int32_t panel, int32_t half) {
    if constexpr (W::SWIZZLED) {
        const int32_t i = nt_lane() & 7, line = panel * (W::BLOCK / W::LINE) + 8 * (nt_lane() / 16);
        return nt_gemm_chunk_at<W>(line + (i >> 1) + 4 * (i & 1), 2 * half + (nt_lane() / 8 & 1));
    } else {
        return (uint32_t)(panel * W::BLOCK + half * (W::HALF / 2) + 16 * nt_lane());
    }
}
/* Where the scale of its row lane / 4 lies; that of the row 8 further: ^ 16. */
template <class W> NT_DEVICE uint32_t nt_quant_scale_at(int32_t panel, int32_t half) {
    const int32_t chunk = (panel * W::BLOCK + 2 * W::HALF) / 16 + 2 * half;
    return nt_quant_chunk_at<W>(chunk) + 2 * (uint32_t)(nt_lane() / 4);
}
/* Before step 0 to 7 is unpacked: one load for 4 steps, for 2 of INT8 (16 of k are 8 lines). */
NT_DEVICE void nt_quant_load_rows16(struct nt_quant_int4 *w, const char *from, int step) {
    if (step % 4 > 0) return;
    const uint4 all = nt_load128(from + step / 4 * nt_quant_int4::HALF);
    w->word[0][0] = all.x;
    w->word[0][1] = all.y;
    w->word[1][0] = all.z;
    w->word[1][1] = all.w;
}
NT_DEVICE void nt_quant_load_rows16(struct nt_quant_int8 *w, const char *from, int step) {
    if (step % 2 == 0) nt_ldmatrix_x4_trans(w->four, nt_shared_address(from) + (uint32_t)(8 * step * nt_quant_int8::LINE));
}
/* The fragment of a step. */
NT_DEVICE void nt_quant_fragment(const struct nt_quant_int4 *w, int step, uint32_t a[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = nt_int4_pair(w->word[i % 2][step % 4 / 2], 2 * (step % 2) + i / 2);
}
NT_DEVICE void nt_quant_fragment(const struct nt_quant_int8 *w, int step, uint32_t a[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = nt_int8_pair(nt_int8_biased(w->four[2 * (step % 2) + i % 2]), i / 2);
}

/* Groups of a part of k (gemm_quant_cuda.h), but for the last part, which may have fewer. */
NT_DEVICE int32_t nt_quant_part_groups(int32_t n_group) {
    return (n_group + NT_GEMM_QUANT_PARTS - 1) / NT_GEMM_QUANT_PARTS;
}

/* The pair of bf16 at an even column. */
NT_DEVICE uint32_t nt_pair_at(const nt_bf16 *matrix, int64_t ld, int32_t row, int32_t rows, int32_t col, int32_t cols) {
    return row < rows && col < cols ? *(const uint32_t *)(matrix + row * ld + col) : 0;
}

/* part = an adapter's product: 16 M rows of w from n0 on, 8 N tokens from m0 on; 4 numbers for each of them, as mma leaves
 * them. Ranks are small, so the fragments come straight from memory. */
template <int M, int N>
NT_DEVICE void nt_quant_sum_adapter(const struct nt_gemm_adapter *b, int32_t n_tok, int32_t n_pad, int32_t m0,
                                    int32_t n0, float *part) {
    const int32_t row = nt_lane() / 4, pair = 2 * (nt_lane() & 3);
#pragma unroll
    for (int i = 0; i < 4 * M * N; i++) part[i] = 0;
#pragma unroll 1
    for (int32_t step = 0; step < b->k; step += 16) {
        const int32_t k = step + pair;
        uint32_t w[M][4];
#pragma unroll
        for (int i = 0; i < 4 * M; i++)
            w[i / 4][i % 4] =
                nt_pair_at(b->w, b->k_pad, n0 + i / 4 * 16 + i % 2 * 8 + row, n_pad, k + i / 2 % 2 * 8, b->k);
#pragma unroll
        for (int n = 0; n < N; n++) {
            const uint32_t x0 = nt_pair_at(b->x, b->ldx, m0 + 8 * n + row, n_tok, k, b->k);
            const uint32_t x1 = nt_pair_at(b->x, b->ldx, m0 + 8 * n + row, n_tok, k + 8, b->k);
#pragma unroll
            for (int m = 0; m < M; m++) nt_mma_bf16(part + 4 * (m * N + n), w[m], x0, x1);
        }
    }
}

#endif
