/* Gradient of the gated activation: dgate = (dy up) act'(gate), dup = dy act(gate), and y = act(gate) up again.
 *
 * A warp takes 256 columns of a token's n, a lane twice four of them: gates and ups are 8 bytes each, dy 16. Every
 * element is read before its place is written, by the same lane, so dpre may be pre. The exponential is that of the CPU
 * bodies; only exp of a negative number is taken, so that neither act' nor 1 - act' cancels (glu_bwd_cpu.c has the
 * formula). Layout: pre, dpre [n_tok, ldpre] bf16, gates and ups in half panels of 16; dy [n_tok, lddy] f32, y [n_tok,
 * ldy] bf16; rows that do not begin at whole quads go element by element. Roofline: bandwidth, 12 bytes per column (pre
 * 4 and dy 4 read, dpre 4 written), y 2 more, y alone 6. About 20 FLOP in 60 instructions a column, half the issue rate
 * of that bandwidth on H100. Expected 80-85 % of copy bandwidth. */
#include "glu_bwd_cuda.h"
#include "cuda_rows.cuh"
#include "ptx.cuh"

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

/* What a lane has of columns j .. j + 3 of token t. */
struct quad {
    float4 gate, up, dy;
};

template <bool WIDE> NT_DEVICE struct quad load(const struct nt_glu_bwd_args *a, int64_t t, int32_t j) {
    const int32_t left = a->n - j; /* a multiple of 16 */
    const nt_bf16 *pre = a->pre + t * a->ldpre + j / HALF * NT_PANEL + j % HALF;
    struct quad x;
    x.gate = nt_load_quad_bf16<WIDE>(pre, left);
    x.up = nt_load_quad_bf16<WIDE>(pre + HALF, left);
    x.dy = nt_load_quad<WIDE>(a->dy + t * a->lddy + j, a->dy ? left : 0);
    return x;
}

template <bool GELU, bool WIDE>
NT_DEVICE void finish(const struct nt_glu_bwd_args *a, int64_t t, int32_t j, const struct quad *x) {
    const int32_t left = a->n - j;
    const float gate[4] = {x->gate.x, x->gate.y, x->gate.z, x->gate.w}, up[4] = {x->up.x, x->up.y, x->up.z, x->up.w};
    const float dy[4] = {x->dy.x, x->dy.y, x->dy.z, x->dy.w};
    float y[4], dgate[4], dup[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float slope;
        const float value = activate<GELU>(gate[i], &slope);
        y[i] = value * up[i];
        dgate[i] = dy[i] * up[i] * slope;
        dup[i] = dy[i] * value;
    }
    if (a->y) nt_store_quad_bf16<WIDE>(a->y + t * a->ldy + j, left, make_float4(y[0], y[1], y[2], y[3]));
    if (!a->dy) return;
    nt_bf16 *dpre = a->dpre + t * a->ldpre + j / HALF * NT_PANEL + j % HALF;
    nt_store_quad_bf16<WIDE>(dpre, left, make_float4(dgate[0], dgate[1], dgate[2], dgate[3]));
    nt_store_quad_bf16<WIDE>(dpre + HALF, left, make_float4(dup[0], dup[1], dup[2], dup[3]));
}

template <bool GELU, bool WIDE> NT_DEVICE void quads(const struct nt_glu_bwd_args *a, int64_t t, int32_t j) {
    struct quad x[NT_GLU_BWD_QUADS];
#pragma unroll
    for (int q = 0; q < NT_GLU_BWD_QUADS; q++) x[q] = load<WIDE>(a, t, j + 4 * NT_WARP * q);
#pragma unroll
    for (int q = 0; q < NT_GLU_BWD_QUADS; q++) finish<GELU, WIDE>(a, t, j + 4 * NT_WARP * q, &x[q]);
}

extern "C" __global__ void __launch_bounds__(NT_WARP *NT_GLU_BWD_WARPS) nt_glu_bwd(const struct nt_glu_bwd_args a) {
    nt_launch_begin();
    const int32_t pieces = (a.n + NT_GLU_BWD_PIECE - 1) / NT_GLU_BWD_PIECE;
    const int64_t piece = (int64_t)blockIdx.x * NT_GLU_BWD_WARPS + nt_warp(), t = piece / pieces;
    const int32_t j = (int32_t)(piece - t * pieces) * NT_GLU_BWD_PIECE + 4 * nt_lane();
    if (t >= a.n_tok || j >= a.n) return;
    const int64_t half = sizeof(nt_bf16), whole = sizeof(float);
    const bool wide = nt_rows_aligned(a.pre, a.ldpre, half) && nt_rows_aligned(a.dpre, 0, half) &&
                      nt_rows_aligned(a.dy, a.dy ? a.lddy : 0, whole) && nt_rows_aligned(a.y, a.y ? a.ldy : 0, half);
    if (a.gelu && wide)
        quads<true, true>(&a, t, j);
    else if (a.gelu)
        quads<true, false>(&a, t, j);
    else if (wide)
        quads<false, true>(&a, t, j);
    else
        quads<false, false>(&a, t, j);
}
