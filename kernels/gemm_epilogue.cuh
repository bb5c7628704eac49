/* What becomes of the sums of a product: bias, gate, conversion, store. Shared by all gemm kernels; spec: ops.h.
 *
 * A thread brings the elements of one row that mma leaves it: of every 8 columns two neighbours (fragment layout:
 * ptx.cuh), 32 columns (a panel) at a time, so that gate and up of a gated product are in the same thread. A quad of
 * lanes holds 8 neighbouring columns: f32 stores fill whole sectors. Columns at or after n are not stored. */
#ifndef NT_GEMM_EPILOGUE_CUH
#define NT_GEMM_EPILOGUE_CUH

#include "cuda_common.cuh"
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
NT_DEVICE void nt_store_pair_bf16(nt_bf16 *row, int32_t col, int32_t n, float v0, float v1) {
    if (col + 1 < n && ((uintptr_t)row & 3) == 0) {
        *(uint32_t *)(row + col) = nt_bf16_pack(v0, v1);
        return;
    }
    if (col < n) row[col] = nt_dev_to_bf16(v0);
    if (col + 1 < n) row[col + 1] = nt_dev_to_bf16(v1);
}

/* One row's part of a panel: v[j] and v[j + 1], j = 2 i, at columns n0 + 8 i + 2 (lane % 4), + 1. */
NT_DEVICE void nt_gemm_store_panel(const struct nt_gemm_cuda *a, float v[8], int32_t tok, int32_t n0) {
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
#pragma unroll
        for (int i = 0; i < 4; i++)
            nt_store_pair_f32(row, n0 + 8 * i + c0, a->n, v[2 * i], v[2 * i + 1], a->out == NT_GEMM_ADD_F32);
        return;
    }
    nt_bf16 *row = (nt_bf16 *)a->y + tok * a->ldy;
    if (a->out == NT_GEMM_STORE_BF16) {
#pragma unroll
        for (int i = 0; i < 4; i++) nt_store_pair_bf16(row, n0 + 8 * i + c0, a->n, v[2 * i], v[2 * i + 1]);
        return;
    }
    const bool silu = a->out == NT_GEMM_SWIGLU_BF16;
#pragma unroll
    for (int i = 0; i < 2; i++) { /* columns i of the gate, i + 2 of up */
        const float g0 = v[2 * i], g1 = v[2 * i + 1], u0 = v[2 * i + 4], u1 = v[2 * i + 5];
        const float y0 = (silu ? nt_silu(g0) : nt_gelu_tanh(g0)) * u0, y1 = (silu ? nt_silu(g1) : nt_gelu_tanh(g1)) * u1;
        nt_store_pair_bf16(row, n0 / 2 + 8 * i + c0, a->n / 2, y0, y1);
    }
}

#endif
