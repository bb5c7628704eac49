/* What becomes of the sums of a product: bias, gate, conversion, store. Shared by all gemm kernels; spec: ops.h.
 *
 * A warp's sums go through lines of shared memory (cuda_lines.cuh), 16 rows at a time; a lane then has 8 neighbouring
 * columns, of a gated product the 8 of gate and the 8 of up, and stores them in one piece. Rows that are not aligned for
 * that, and the last columns of a ragged n, are stored one by one. Columns at or after n are not stored. */
#ifndef NT_GEMM_EPILOGUE_CUH
#define NT_GEMM_EPILOGUE_CUH

#include "cuda_lines.cuh"
#include "gemm_cuda.h"

/* The quotients are approximate (2 ulp): exact ones with their branches were a third of a gated epilogue. */
NT_DEVICE float nt_silu(float x) {
    return __fdividef(x, 1.0f + expf(-x));
}
/* As gemm_cpu.c. */
NT_DEVICE float nt_gelu_tanh(float x) {
    const float two_u = 1.5957691216f * (x + 0.044715f * x * x * x);
    return __fdividef(x, 1.0f + expf(-two_u));
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
#pragma unroll 1
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
#pragma unroll 1
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

/* 16 rows by 8 N columns of sums as mma and wgmma leave them to a warp, at row tok0, column n0 of y. `lines`: this warp's
 * 16 NT_LINE(8 N) floats of shared memory. All lanes come. */
template <int N>
NT_DEVICE void nt_gemm_store_rows(const struct nt_gemm_cuda *a, const struct nt_gemm_adapter *second, float *lines,
                                  const float *acc, int32_t tok0, int32_t n0) {
    __syncwarp(); /* the rows before these have been read */
    nt_lines_put<N, 8 * N>(lines, acc);
    nt_lines_put<N, 8 * N>(lines + 8 * NT_LINE(8 * N), acc + 2);
    __syncwarp();
    nt_gemm_store_lines<16, 8 * N>(a, second, lines, tok0, n0);
}

/* This warp's part of the tile at row m0, column n0. All threads; the lines lie where the stages were. */
template <class T>
NT_DEVICE void nt_gemm_store_tile(const struct nt_gemm_cuda *a, const struct nt_gemm_adapter *second, char *stages,
                                  float acc[T::M][T::N][4], int32_t m0, int32_t n0) {
    enum { LINES = 16 * NT_LINE(T::WARP_COLS) }; /* floats of a warp */
    static_assert(T::THREADS / NT_WARP * LINES * 4 <= T::STAGES * T::STAGE_BYTES, "the lines find room");
    const int32_t row0 = m0 + nt_warp() % T::WARPS_M * T::WARP_ROWS, col0 = n0 + nt_warp() / T::WARPS_M * T::WARP_COLS;
    float *lines = (float *)stages + nt_warp() * LINES;
    __syncthreads(); /* nobody reads stages any more */
#pragma unroll
    for (int m = 0; m < T::M; m++) nt_gemm_store_rows<T::N>(a, second, lines, &acc[m][0][0], row0 + 16 * m, col0);
}

#endif
