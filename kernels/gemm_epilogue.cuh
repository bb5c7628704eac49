/* What becomes of the sums of a product: bias, gate, conversion, store. Shared by all gemm kernels; spec: ops.h.
 *
 * A warp's sums go through lines of shared memory (cuda_lines.cuh), 16 rows at a time; a lane then has 4 neighbouring
 * columns, of a gated product the 4 of gate and the 4 of up, and stores them in one piece. Rows that are not aligned for
 * that, and the last columns of a ragged n, are stored one by one. Columns at or after n are not stored. */
#ifndef NT_GEMM_EPILOGUE_CUH
#define NT_GEMM_EPILOGUE_CUH

#include "cuda_lines.cuh"
#include "gemm_cuda.h"

/* The quotients are approximate, 2 ulp, and 0 behind a denominator beyond 2^126: an exact one brings a branch. */
NT_DEVICE float nt_silu(float x) {
    return __fdividef(x, 1.0f + expf(-x));
}
/* As gemm_cpu.c. */
NT_DEVICE float nt_gelu_tanh(float x) {
    const float two_u = 1.5957691216f * (x + 0.044715f * x * x * x);
    return __fdividef(x, 1.0f + expf(-two_u));
}

/* Columns col to col + 3 of a row of y [n], in one piece where there are all and the rows allow it (`whole`). */
NT_DEVICE void nt_store4_f32(float *row, int32_t col, int32_t n, float4 v, bool whole, bool add) {
    if (whole && col + 4 <= n) {
        const float4 old = add ? nt_load_f4(row + col) : make_float4(0, 0, 0, 0);
        nt_store_f4_whole(row + col, add ? make_float4(old.x + v.x, old.y + v.y, old.z + v.z, old.w + v.w) : v);
        return;
    }
    const float x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (col + i < n) row[col + i] = add ? row[col + i] + x[i] : x[i];
}
NT_DEVICE void nt_store4_bf16(nt_bf16 *row, int32_t col, int32_t n, float4 v, bool whole) {
    if (whole && col + 4 <= n) {
        __stwb((uint2 *)(row + col), make_uint2(nt_bf16_pack(v.x, v.y), nt_bf16_pack(v.z, v.w)));
        return;
    }
    const float x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (col + i < n) row[col + i] = nt_dev_to_bf16(x[i]);
}

NT_DEVICE float nt_biased(const struct nt_gemm_cuda *a, float x, int32_t col) {
    return col < a->n ? x + a->bias[col] : x;
}
/* 4 columns of a line, with their biases. */
NT_DEVICE float4 nt_line_load4(const struct nt_gemm_cuda *a, const float *line, int32_t at, int32_t n0) {
    const float4 x = nt_load_f4(line + at);
    const int32_t col = n0 + at;
    if (!a->bias) return x;
    return make_float4(nt_biased(a, x.x, col), nt_biased(a, x.y, col + 1), nt_biased(a, x.z, col + 2),
                       nt_biased(a, x.w, col + 3));
}

/* ROWS lines of a warp as they are, row 0 of them row tok0 of y, as bf16 or f32. */
template <int ROWS, int COLS>
NT_DEVICE void nt_lines_store(const struct nt_gemm_cuda *a, const float *lines, int32_t tok0, int32_t n0, void *y,
                              int64_t ldy, bool bf16) {
    enum { PER_ROW = COLS / 4 };
    const bool whole = ((uintptr_t)y & (bf16 ? 7 : 15)) == 0 && ldy % 4 == 0;
    const int32_t rows = min(ROWS, a->n_tok - tok0);
#pragma unroll 1
    for (int32_t i = nt_lane(); i < rows * PER_ROW; i += NT_WARP) {
        const int32_t row = i / PER_ROW, at = i % PER_ROW * 4;
        const float4 v = nt_line_load4(a, lines + row * NT_LINE(COLS), at, n0);
        const int64_t begin = (tok0 + row) * ldy;
        if (bf16)
            nt_store4_bf16((nt_bf16 *)y + begin, n0 + at, a->n, v, whole);
        else
            nt_store4_f32((float *)y + begin, n0 + at, a->n, v, whole, a->out == NT_GEMM_ADD_F32);
    }
}

/* The same gated: of each panel the first half gates the second; n is whole panels. Lanes of every second panel load
 * the second half first: 8 lanes in turn touch all banks. */
template <int ROWS, int COLS>
NT_DEVICE void nt_lines_store_gated(const struct nt_gemm_cuda *a, const float *lines, int32_t tok0, int32_t n0) {
    enum { HALF = NT_PANEL / 2, PER_ROW = COLS / 8 };
    const bool whole = ((uintptr_t)a->y & 7) == 0 && a->ldy % 4 == 0, silu = a->out == NT_GEMM_SWIGLU_BF16;
    const int32_t rows = min(ROWS, a->n_tok - tok0);
#pragma unroll 1
    for (int32_t i = nt_lane(); i < rows * PER_ROW; i += NT_WARP) {
        const int32_t row = i / PER_ROW, at = i % PER_ROW * 4, gate_at = at / HALF * NT_PANEL + at % HALF;
        const int32_t turn = at / HALF % 2 * HALF;
        const float4 x = nt_line_load4(a, lines + row * NT_LINE(COLS), gate_at + turn, n0);
        const float4 y = nt_line_load4(a, lines + row * NT_LINE(COLS), gate_at + HALF - turn, n0);
        const float4 gate = turn ? y : x, up = turn ? x : y;
        const float4 v = silu ? make_float4(nt_silu(gate.x) * up.x, nt_silu(gate.y) * up.y, nt_silu(gate.z) * up.z,
                                            nt_silu(gate.w) * up.w)
                              : make_float4(nt_gelu_tanh(gate.x) * up.x, nt_gelu_tanh(gate.y) * up.y,
                                            nt_gelu_tanh(gate.z) * up.z, nt_gelu_tanh(gate.w) * up.w);
        nt_store4_bf16((nt_bf16 *)a->y + (tok0 + row) * a->ldy, n0 / 2 + at, a->n / 2, v, whole);
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
