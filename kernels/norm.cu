/* Residual add + RMS norm: x[t] += delta[t]; y[r] = bf16(x[t] * rsqrt(mean(x[t]^2) + eps) * w), t = rows ? rows[r] : r.
 *
 * nt_rmsnorm_warp: one warp per row, d_model <= 1024; nt_rmsnorm_block: one block per row, up to 16384. Both hold
 * the row in registers between the sum and the scaling, so x is read once; both need d_model % 4 == 0.
 * nt_rmsnorm_any: every other width, element by element, the row read again from L1.
 * Order of the sum: thread i adds the squares of quads i, i + threads, ... in ascending order, then the butterflies of
 * cuda_common.cuh. It depends on d_model alone.
 * Roofline: bandwidth, 14 bytes per element with delta (x and delta read, x and y written), 6 without (w stays in
 * L1/L2); ~4 FLOP per element. Expected 85-90 % of copy bandwidth from about 8 MiB; a decode step of 64 x 4096 (3.7 MB)
 * is 64 blocks on 132 multiprocessors and bound by two round trips to L2 plus the launch, 3-4 us. */
#include "norm_cuda.h"
#include "cuda_common.cuh"

NT_DEVICE float rms_scale(float sum, const struct nt_rmsnorm_args *a) {
    return __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float)a->d_model), a->eps)));
}

/* One row by `threads` threads, each with `QUADS` quads in registers. scratch: of the block's sum; NULL: one warp. */
template <int QUADS>
NT_DEVICE void norm_row(const struct nt_rmsnorm_args *a, int64_t r, int32_t thread, int32_t threads, float *scratch) {
    const int64_t t = a->rows ? a->rows[r] : r;
    float *x = a->x + t * a->d_model;
    float4 v[QUADS];
    float sum = 0;
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        const int32_t i = 4 * (thread + q * threads);
        v[q] = i < a->d_model ? nt_load_f4(x + i) : make_float4(0, 0, 0, 0);
    }
    if (a->delta) {
        const float *delta = a->delta + t * a->d_model;
#pragma unroll
        for (int q = 0; q < QUADS; q++) {
            const int32_t i = 4 * (thread + q * threads);
            if (i >= a->d_model) continue;
            const float4 d = nt_load_f4_once(delta + i);
            v[q] = make_float4(v[q].x + d.x, v[q].y + d.y, v[q].z + d.z, v[q].w + d.w);
            nt_store_f4(x + i, v[q]);
        }
    }
#pragma unroll
    for (int q = 0; q < QUADS; q++)
        sum = fmaf(v[q].w, v[q].w, fmaf(v[q].z, v[q].z, fmaf(v[q].y, v[q].y, fmaf(v[q].x, v[q].x, sum))));
    const float s = rms_scale(scratch ? nt_block_sum(sum, scratch) : nt_warp_sum(sum), a);
    nt_bf16 *y = a->y + r * a->ldy;
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        const int32_t i = 4 * (thread + q * threads);
        if (i >= a->d_model) continue;
        const float4 w = nt_load_f4(a->w + i);
        const uint2 pair = make_uint2(nt_bf16_pack(v[q].x * s * w.x, v[q].y * s * w.y),
                                      nt_bf16_pack(v[q].z * s * w.z, v[q].w * s * w.w));
        if (a->ldy % 4 == 0) {
            *(uint2 *)(y + i) = pair;
        } else {
            y[i] = (nt_bf16)pair.x;
            y[i + 1] = (nt_bf16)(pair.x >> 16);
            y[i + 2] = (nt_bf16)pair.y;
            y[i + 3] = (nt_bf16)(pair.y >> 16);
        }
    }
}

extern "C" __global__ void __launch_bounds__(NT_WARP *NT_NORM_WARP_ROWS)
    nt_rmsnorm_warp(const struct nt_rmsnorm_args a) {
    const int64_t r = (int64_t)blockIdx.x * NT_NORM_WARP_ROWS + nt_warp();
    if (r < a.n_rows) norm_row<NT_NORM_WARP_QUADS>(&a, r, nt_lane(), NT_WARP, NULL);
}

extern "C" __global__ void __launch_bounds__(1024) nt_rmsnorm_block(const struct nt_rmsnorm_args a) {
    __shared__ float scratch[NT_MAX_WARPS];
    norm_row<NT_NORM_BLOCK_QUADS>(&a, blockIdx.x, (int32_t)threadIdx.x, (int32_t)blockDim.x, scratch);
}

extern "C" __global__ void __launch_bounds__(NT_NORM_ANY_THREADS) nt_rmsnorm_any(const struct nt_rmsnorm_args a) {
    __shared__ float scratch[NT_MAX_WARPS];
    const int64_t r = blockIdx.x, t = a.rows ? a.rows[r] : r;
    float *x = a.x + t * a.d_model;
    float sum = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < a.d_model; i += NT_NORM_ANY_THREADS) {
        float v = x[i];
        if (a.delta) x[i] = v = v + a.delta[t * a.d_model + i];
        sum = fmaf(v, v, sum);
    }
    const float s = rms_scale(nt_block_sum(sum, scratch), &a);
    for (int32_t i = (int32_t)threadIdx.x; i < a.d_model; i += NT_NORM_ANY_THREADS) /* its own elements again */
        a.y[r * a.ldy + i] = nt_dev_to_bf16(x[i] * s * a.w[i]);
}
