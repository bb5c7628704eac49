/* Residual add + RMS norm: x[t] += delta[t]; y[r] = bf16(x[t] * rsqrt(mean(x[t]^2) + eps) * w), t = rows ? rows[r] : r;
 * keep[r] = x[t] where a training forward wants it.
 *
 * nt_rmsnorm_warp: one warp per row, d_model <= 1024; nt_rmsnorm_block: one block per row, up to 16384. Both hold
 * the row in registers between the sum and the scaling, so x is read once; both need d_model % 4 == 0.
 * nt_rmsnorm_any: every other width, element by element, the row read again from L1.
 * Order of the sum: cuda_norm.cuh; it depends on d_model alone.
 * Layout: x and delta [n_tok, d_model] f32, w [d_model] f32, y [n_rows, ldy] bf16.
 * Roofline: bandwidth, 14 bytes per element with delta (x and delta read, x and y written), 6 without (w stays in
 * L1/L2), 4 more with keep; ~4 FLOP per element. Expected 85-90 % of copy bandwidth from about 8 MiB; a decode step of 64 x 4096 (3.7 MB)
 * is 64 blocks on 132 multiprocessors and bound by two round trips to L2 plus the launch, 3-4 us. */
#include "norm_cuda.h"
#include "cuda_norm.cuh"
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(NT_WARP *NT_NORM_WARP_ROWS)
    nt_rmsnorm_warp(const struct nt_rmsnorm_args a) {
    nt_launch_begin();
    const int64_t r = (int64_t)blockIdx.x * NT_NORM_WARP_ROWS + nt_warp();
    if (r < a.n_rows)
        nt_norm_row<NT_NORM_WARP_QUADS, 1>(&a, &a.delta, a.delta != NULL, r, nt_lane(), NT_WARP, NULL);
}

extern "C" __global__ void __launch_bounds__(1024) nt_rmsnorm_block(const struct nt_rmsnorm_args a) {
    nt_launch_begin();
    __shared__ float scratch[NT_MAX_WARPS];
    nt_norm_row<NT_NORM_BLOCK_QUADS, 1>(&a, &a.delta, a.delta != NULL, blockIdx.x, (int32_t)threadIdx.x,
                                        (int32_t)blockDim.x, scratch);
}

extern "C" __global__ void __launch_bounds__(NT_NORM_ANY_THREADS) nt_rmsnorm_any(const struct nt_rmsnorm_args a) {
    nt_launch_begin();
    __shared__ float scratch[NT_MAX_WARPS];
    const int64_t r = blockIdx.x, t = a.rows ? a.rows[r] : r;
    float *x = a.x + t * a.d_model;
    float sum = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < a.d_model; i += NT_NORM_ANY_THREADS) {
        float v = x[i];
        if (a.delta) x[i] = v = v + a.delta[t * a.d_model + i];
        sum = fmaf(v, v, sum);
    }
    const float s = nt_rms_scale(nt_block_sum(sum, scratch), a.d_model, a.eps);
    for (int32_t i = (int32_t)threadIdx.x; i < a.d_model; i += NT_NORM_ANY_THREADS) { /* its own elements again */
        a.y[r * a.ldy + i] = nt_dev_to_bf16(x[i] * s * a.w[i]);
        if (a.keep) a.keep[r * a.d_model + i] = x[i];
    }
}
