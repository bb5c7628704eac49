/* Gradient of the gated activation: dgate = (dy up) act'(gate), dup = dy act(gate), and y = act(gate) up again.
 *
 * A warp takes 256 columns of a token's n, a lane eight of them: gates and ups are 16 bytes each, dy 32. Every element
 * is read before its place is written, by the same lane, so dpre may be pre. The exponential is that of the CPU bodies;
 * only exp of a negative number is taken, so that neither act' nor 1 - act' cancels (glu_bwd_cpu.c has the formula).
 * Layout: pre, dpre [n_tok, ldpre] bf16, gates and ups in half panels of 16; dy [n_tok, lddy] f32, y [n_tok, ldy] bf16;
 * strides that 16 bytes do not divide go element by element.
 * Roofline: bandwidth, 12 bytes per column (pre 4 and dy 4 read, dpre 4 written), y 2 more, y alone 6. About 20 FLOP in
 * 60 instructions a column, half the issue rate of that bandwidth on H100. Expected 80-85 % of copy bandwidth. */
#include "glu_bwd_cuda.h"
#include "cuda_rows.cuh"

enum { HALF = NT_PANEL / 2 };

/* act(x) and its derivative. */
template <bool GELU> NT_DEVICE float activate(float x, float *slope) {
    const float l = x > 64.0f ? 64.0f : x < -64.0f ? -64.0f : x; /* a NaN stays */
    const float v = GELU ? 1.5957691216f * (x + 0.044715f * x * x * x) : x;
    const float lv = GELU ? 1.5957691216f * (l + 0.134145f * l * l * l) : l;
    const float t = nt_dev_exp2_neg(-fabsf(v) * NT_LOG2E), large = __frcp_rn(1.0f + t), small = t * large;
    const float g = v < 0 ? small : large;
    *slope = g + lv * (large * small);
    return x * g;
}

/* Columns j .. j + 7 of token t. */
template <bool GELU, bool WIDE> NT_DEVICE void octet(const struct nt_glu_bwd_args *a, int64_t t, int32_t j) {
    const int64_t at = t * a->ldpre + j / HALF * NT_PANEL + j % HALF;
    float gate[8], up[8], y[8];
    nt_load_octet<WIDE>(a->pre + at, 8, gate);
    nt_load_octet<WIDE>(a->pre + at + HALF, 8, up);
    float4 d[2] = {make_float4(0, 0, 0, 0), make_float4(0, 0, 0, 0)};
    for (int q = 0; q < 2 && a->dy; q++) d[q] = nt_load_quad<WIDE>(a->dy + t * a->lddy + j + 4 * q, 4);
    const float dy[8] = {d[0].x, d[0].y, d[0].z, d[0].w, d[1].x, d[1].y, d[1].z, d[1].w};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float slope;
        const float value = activate<GELU>(gate[i], &slope);
        y[i] = value * up[i];
        gate[i] = dy[i] * up[i] * slope;
        up[i] = dy[i] * value;
    }
    if (a->y) nt_store_octet<WIDE>(a->y + t * a->ldy + j, 8, y);
    if (!a->dy) return;
    nt_store_octet<WIDE>(a->dpre + at, 8, gate);
    nt_store_octet<WIDE>(a->dpre + at + HALF, 8, up);
}

extern "C" __global__ void __launch_bounds__(NT_WARP *NT_GLU_BWD_WARPS) nt_glu_bwd(const struct nt_glu_bwd_args a) {
    const int32_t pieces = (a.n + NT_GLU_BWD_PIECE - 1) / NT_GLU_BWD_PIECE;
    const int64_t piece = (int64_t)blockIdx.x * NT_GLU_BWD_WARPS + nt_warp(), t = piece / pieces;
    const int32_t j = (int32_t)(piece - t * pieces) * NT_GLU_BWD_PIECE + 8 * nt_lane();
    if (t >= a.n_tok || j >= a.n) return;
    const int64_t half = sizeof(nt_bf16), whole = sizeof(float);
    const bool wide = nt_rows_aligned16(a.pre, a.ldpre * half) && nt_rows_aligned16(a.dpre, 0) &&
                      nt_rows_aligned16(a.dy, a.dy ? a.lddy * whole : 0) &&
                      nt_rows_aligned16(a.y, a.y ? a.ldy * half : 0);
    if (a.gelu && wide)
        octet<true, true>(&a, t, j);
    else if (a.gelu)
        octet<true, false>(&a, t, j);
    else if (wide)
        octet<false, true>(&a, t, j);
    else
        octet<false, false>(&a, t, j);
}
