/* What becomes of the sums of a product: bias, gate, conversion, store. Shared by all gemm kernels; spec: ops.h.
 *
 * A thread brings the elements of one row that mma leaves it: of every 8 columns two neighbours (fragment layout:
 * ptx.cuh), 32 columns (a panel) at a time, so that gate and up of a gated product are in the same thread. A quad of
 * lanes holds 8 neighbouring columns: f32 stores fill whole sectors; bf16 words change lanes first, so that theirs do.
 * Rows that are not aligned for that are stored in pairs or one by one. Columns at or after n are not stored. */
#ifndef NT_GEMM_EPILOGUE_CUH
#define NT_GEMM_EPILOGUE_CUH

#include "cuda_lines.cuh"
#include "gemm_cuda.h"

NT_DEVICE float nt_silu(float x) {
    return x / (1.0f + expf(-x));
}
/* As gemm_cpu.c. */
NT_DEVICE float nt_gelu_tanh(float x) {
    const float two_u = 1.5957691216f * (x + 0.044715f * x * x * x);
    return x / (1.0f + expf(-two_u));
}

/* v0, v1 at columns col, col + 1 (col even) of y's row. */
NT_DEVICE void nt_store_pair_f32(float *row, int32_t col, int32_t n, float v0, float v1, bool add) {
    if (col + 1 < n && ((uintptr_t)row & 7) == 0) {
        float2 *at = (float2 *)(row + col);
        float2 v = make_float2(v0, v1);
        if (add) {
            const float2 old = *at;
            v.x = old.x + v.x;
            v.y = old.y + v.y;
        }
        *at = v;
        return;
    }
    if (col < n) row[col] = add ? row[col] + v0 : v0;
    if (col + 1 < n) row[col + 1] = add ? row[col + 1] + v1 : v1;
}
/* What nt_store_pair_f32 would add to; 0 at and after n. */
NT_DEVICE float2 nt_load_pair_f32(const float *row, int32_t col, int32_t n) {
    if (col + 1 < n && ((uintptr_t)row & 7) == 0) return *(const float2 *)(row + col);
    return make_float2(col < n ? row[col] : 0.0f, col + 1 < n ? row[col + 1] : 0.0f);
}
NT_DEVICE void nt_store_pair_bf16(nt_bf16 *row, int32_t col, int32_t n, float v0, float v1) {
    if (col + 1 < n && ((uintptr_t)row & 3) == 0) {
        *(uint32_t *)(row + col) = nt_bf16_pack(v0, v1);
        return;
    }
    if (col < n) row[col] = nt_dev_to_bf16(v0);
    if (col + 1 < n) row[col + 1] = nt_dev_to_bf16(v1);
}

/* The lanes of a quad hold one row: lane t word i of column group i, columns 2 t, 2 t + 1 of its 8. Afterwards lane t
 * holds the four words of group t. */
NT_DEVICE void nt_quad_transpose(uint32_t w[4]) {
#pragma unroll
    for (int d = 1; d < 4; d *= 2) {
        const bool upper = nt_lane() & d;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & d) continue;
            const uint32_t got = __shfl_xor_sync(NT_ALL_LANES, upper ? w[i] : w[i + d], d);
            if (upper)
                w[i] = got;
            else
                w[i + d] = got;
        }
    }
}

/* Two groups of 8 columns: afterwards lane t holds words 2 t and 2 t + 1 of the 8. */
NT_DEVICE uint2 nt_quad_pairs(uint32_t first, uint32_t second) {
    const bool upper = nt_lane() & 2, odd = nt_lane() & 1;
    const uint32_t other = __shfl_xor_sync(NT_ALL_LANES, upper ? first : second, 2);
    /* words t % 2 and t % 2 + 2 of the group that this lane ends with */
    const uint32_t low = upper ? other : first, high = upper ? second : other;
    const uint32_t got = __shfl_xor_sync(NT_ALL_LANES, odd ? low : high, 1);
    return odd ? make_uint2(got, high) : make_uint2(low, got);
}

/* The 32 columns of row tok of y from n0 on; v as below. */
NT_DEVICE void nt_store_panel_bf16(const struct nt_gemm_cuda *a, nt_bf16 *y, int64_t ldy, int32_t tok, int32_t n0,
                                   const float v[8]) {
    nt_bf16 *row = y + tok * ldy;
    if (n0 + NT_PANEL <= a->n && ldy % 8 == 0 && nt_is_aligned16(y)) {
        uint32_t w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) w[i] = nt_bf16_pack(v[2 * i], v[2 * i + 1]);
        nt_quad_transpose(w);
        if (tok < a->n_tok) nt_store128_whole(row + n0 + 8 * (nt_lane() & 3), make_uint4(w[0], w[1], w[2], w[3]));
        return;
    }
    if (tok >= a->n_tok) return;
#pragma unroll
    for (int i = 0; i < 4; i++)
        nt_store_pair_bf16(row, n0 + 8 * i + 2 * (nt_lane() & 3), a->n, v[2 * i], v[2 * i + 1]);
}

/* The 16 columns of row tok from n0 on, of which there are always all; v as below, two groups. */
NT_DEVICE void nt_store_gated_bf16(const struct nt_gemm_cuda *a, int32_t tok, int32_t n0, const float v[4]) {
    nt_bf16 *row = (nt_bf16 *)a->y + tok * a->ldy;
    if (a->ldy % 4 == 0 && ((uintptr_t)a->y & 7) == 0) {
        const uint2 four = nt_quad_pairs(nt_bf16_pack(v[0], v[1]), nt_bf16_pack(v[2], v[3]));
        if (tok < a->n_tok) *(uint2 *)(row + n0 + 4 * (nt_lane() & 3)) = four;
        return;
    }
    if (tok >= a->n_tok) return;
#pragma unroll
    for (int i = 0; i < 2; i++)
        nt_store_pair_bf16(row, n0 + 8 * i + 2 * (nt_lane() & 3), n0 + NT_PANEL / 2, v[2 * i], v[2 * i + 1]);
}

/* One row's part of a panel: v[j] and v[j + 1], j = 2 i, at columns n0 + 8 i + 2 (lane % 4), + 1. All lanes
 * of a warp come together, with the same n0; rows at or after n_tok are not stored. */
NT_DEVICE void nt_gemm_store_panel(const struct nt_gemm_cuda *a, float v[8], int32_t tok, int32_t n0,
                                   const struct nt_gemm_adapter *second = NULL) {
    const int32_t c0 = 2 * (nt_lane() & 3);
    if (a->bias) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int32_t col = n0 + 8 * i + c0;
            if (col < a->n) v[2 * i] += a->bias[col];
            if (col + 1 < a->n) v[2 * i + 1] += a->bias[col + 1];
        }
    }
    if (a->out == NT_GEMM_STORE_F32 || a->out == NT_GEMM_ADD_F32) {
        float *row = (float *)a->y + tok * a->ldy;
        if (tok >= a->n_tok) return;
#pragma unroll
        for (int i = 0; i < 4; i++)
            nt_store_pair_f32(row, n0 + 8 * i + c0, a->n, v[2 * i], v[2 * i + 1], a->out == NT_GEMM_ADD_F32);
        return;
    }
    if (a->out == NT_GEMM_STORE_BF16) {
        nt_store_panel_bf16(a, (nt_bf16 *)a->y, a->ldy, tok, n0, v);
        return;
    }
    if (n0 >= a->n) return;
    if (second && second->pre) nt_store_panel_bf16(a, second->pre, second->ldpre, tok, n0, v);
    const bool silu = a->out == NT_GEMM_SWIGLU_BF16;
    float gated[4];
#pragma unroll
    for (int i = 0; i < 4; i++) gated[i] = (silu ? nt_silu(v[i]) : nt_gelu_tanh(v[i])) * v[i + 4]; /* gate, up */
    nt_store_gated_bf16(a, tok, n0 / 2, gated);
}

/* ---- from lines of shared memory ---- */

/* Columns col to col + 7 of a row of y [n], in one piece where there are all and the rows allow it (`whole`). */
NT_DEVICE void nt_store8_f32(float *row, int32_t col, int32_t n, const float v[8], bool whole, bool add) {
    if (whole && col + 8 <= n) {
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            const float4 old = add ? nt_load_f4(row + col + i) : make_float4(0, 0, 0, 0);
            const float4 new4 = make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
            nt_store_f4(row + col + i, add ? make_float4(old.x + new4.x, old.y + new4.y, old.z + new4.z, old.w + new4.w)
                                           : new4);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (col + i < n) row[col + i] = add ? row[col + i] + v[i] : v[i];
}
NT_DEVICE void nt_store8_bf16(nt_bf16 *row, int32_t col, int32_t n, const float v[8], bool whole) {
    if (whole && col + 8 <= n) {
        nt_store128_whole(row + col, nt_bf16_pack8(v));
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (col + i < n) row[col + i] = nt_dev_to_bf16(v[i]);
}

/* 8 columns of a line, with their biases. */
NT_DEVICE void nt_line_load8(const struct nt_gemm_cuda *a, const float *line, int32_t at, int32_t n0, float v[8]) {
    const float4 low = nt_load_f4(line + at), high = nt_load_f4(line + at + 4);
    const float x[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = a->bias && n0 + at + i < a->n ? x[i] + a->bias[n0 + at + i] : x[i];
}

/* ROWS lines of a warp as they are, row 0 of them row tok0 of y, as bf16 or f32. */
template <int ROWS, int COLS>
NT_DEVICE void nt_lines_store(const struct nt_gemm_cuda *a, const float *lines, int32_t tok0, int32_t n0, void *y,
                              int64_t ldy, bool bf16) {
    const bool whole = nt_is_aligned16(y) && ldy % (bf16 ? 8 : 4) == 0;
    const int32_t rows = min(ROWS, a->n_tok - tok0);
    for (int32_t i = nt_lane(); i < rows * (COLS / 8); i += NT_WARP) {
        const int32_t row = i / (COLS / 8), at = i % (COLS / 8) * 8;
        float v[8];
        nt_line_load8(a, lines + row * NT_LINE(COLS), at, n0, v);
        const int64_t begin = (tok0 + row) * ldy;
        if (bf16)
            nt_store8_bf16((nt_bf16 *)y + begin, n0 + at, a->n, v, whole);
        else
            nt_store8_f32((float *)y + begin, n0 + at, a->n, v, whole, a->out == NT_GEMM_ADD_F32);
    }
}

/* The same gated: of each panel the first half gates the second; n is whole panels. */
template <int ROWS, int COLS>
NT_DEVICE void nt_lines_store_gated(const struct nt_gemm_cuda *a, const float *lines, int32_t tok0, int32_t n0) {
    enum { HALF = NT_PANEL / 2, PER_ROW = COLS / 16 };
    const bool whole = nt_is_aligned16(a->y) && a->ldy % 8 == 0, silu = a->out == NT_GEMM_SWIGLU_BF16;
    const int32_t rows = min(ROWS, a->n_tok - tok0);
    for (int32_t i = nt_lane(); i < rows * PER_ROW; i += NT_WARP) {
        const int32_t row = i / PER_ROW, at = i % PER_ROW * 8, gate_at = at / HALF * NT_PANEL + at % HALF;
        float gate[8], up[8];
        nt_line_load8(a, lines + row * NT_LINE(COLS), gate_at, n0, gate);
        nt_line_load8(a, lines + row * NT_LINE(COLS), gate_at + HALF, n0, up);
#pragma unroll
        for (int j = 0; j < 8; j++) gate[j] = (silu ? nt_silu(gate[j]) : nt_gelu_tanh(gate[j])) * up[j];
        nt_store8_bf16((nt_bf16 *)a->y + (tok0 + row) * a->ldy, n0 / 2 + at, a->n / 2, gate, whole);
    }
}

/* ROWS lines of COLS sums of a warp, at row tok0, column n0 of y. */
template <int ROWS, int COLS>
NT_DEVICE void nt_gemm_store_lines(const struct nt_gemm_cuda *a, const struct nt_gemm_adapter *second,
                                   const float *lines, int32_t tok0, int32_t n0) {
    const bool gated = a->out == NT_GEMM_SWIGLU_BF16 || a->out == NT_GEMM_GEGLU_BF16;
    if (gated && second && second->pre)
        nt_lines_store<ROWS, COLS>(a, lines, tok0, n0, second->pre, second->ldpre, true);
    if (gated)
        nt_lines_store_gated<ROWS, COLS>(a, lines, tok0, n0);
    else
        nt_lines_store<ROWS, COLS>(a, lines, tok0, n0, a->y, a->ldy, a->out == NT_GEMM_STORE_BF16);
}

/* ---- from registers ---- */

/* This warp's part of the tile at row m0, column n0, from accumulators as mma leaves them. */
template <class T>
NT_DEVICE void nt_gemm_store_tile(const struct nt_gemm_cuda *a, const struct nt_gemm_adapter *second,
                                  float acc[T::M][T::N][4], int32_t m0, int32_t n0) {
    const int32_t row0 = m0 + nt_warp() % T::WARPS_M * T::WARP_ROWS + nt_lane() / 4;
    const int32_t col0 = n0 + nt_warp() / T::WARPS_M * T::WARP_COLS;
#pragma unroll
    for (int m = 0; m < T::M; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int32_t row = row0 + 16 * m + 8 * half;
#pragma unroll
            for (int p = 0; p < T::N / 4; p++) {
                float v[8];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    v[2 * i] = acc[m][4 * p + i][2 * half];
                    v[2 * i + 1] = acc[m][4 * p + i][2 * half + 1];
                }
                nt_gemm_store_panel(a, v, row, col0 + NT_PANEL * p, second);
            }
        }
    }
}

#endif
