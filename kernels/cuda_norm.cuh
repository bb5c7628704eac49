/* One row of residual add + RMS norm, held in registers; shared by rmsnorm and the all-reduce fused with it.
 *
 * Order of the sum: thread i adds the squares of quads i, i + threads, ... ascending, then the butterflies of
 * cuda_common.cuh: it depends on d_model and the thread count. Additions to the residual are summed first, in their
 * order (ranks ascending), then added: the bits of an all-reduce followed by rmsnorm. d_model % 4 == 0. No state. */
#ifndef NT_CUDA_NORM_CUH
#define NT_CUDA_NORM_CUH

#include "cuda_common.cuh"
#include "ops.h"

NT_DEVICE float nt_rms_scale(float sum, int32_t d, float eps) {
    return __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float)d), eps)));
}

/* y[r] and keep[r] of the args from row t of x, QUADS float4 in each of `threads` threads. delta: the first n_delta <= MAX_DELTA of
 * these, each [n_tok, d_model], are summed into x. scratch [NT_MAX_WARPS] of the block's sum; NULL: one warp. */
template <int QUADS, int MAX_DELTA>
NT_DEVICE void nt_norm_row(const struct nt_rmsnorm_args *a, const float *const *delta, int32_t n_delta, int64_t r,
                           int32_t thread, int32_t threads, float *scratch) {
    const int64_t t = a->rows ? a->rows[r] : r;
    float *x = a->x + t * a->d_model;
    float4 v[QUADS];
    float sum = 0;
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        const int32_t i = 4 * (thread + q * threads);
        v[q] = i < a->d_model ? nt_load_f4(x + i) : make_float4(0, 0, 0, 0);
    }
    if (n_delta > 0) {
#pragma unroll
        for (int q = 0; q < QUADS; q++) {
            const int32_t i = 4 * (thread + q * threads);
            if (i >= a->d_model) continue;
            float4 add = nt_load_f4_once(delta[0] + t * a->d_model + i);
#pragma unroll
            for (int k = 1; k < MAX_DELTA; k++) {
                if (k >= n_delta) continue;
                const float4 d = nt_load_f4_once(delta[k] + t * a->d_model + i);
                add = make_float4(add.x + d.x, add.y + d.y, add.z + d.z, add.w + d.w);
            }
            v[q] = make_float4(v[q].x + add.x, v[q].y + add.y, v[q].z + add.z, v[q].w + add.w);
            nt_store_f4(x + i, v[q]);
        }
    }
#pragma unroll
    for (int q = 0; q < QUADS; q++)
        sum = fmaf(v[q].w, v[q].w, fmaf(v[q].z, v[q].z, fmaf(v[q].y, v[q].y, fmaf(v[q].x, v[q].x, sum))));
    const float s = nt_rms_scale(scratch ? nt_block_sum(sum, scratch) : nt_warp_sum(sum), a->d_model, a->eps);
    nt_bf16 *y = a->y + r * a->ldy;
    float *keep = a->keep ? a->keep + r * a->d_model : NULL;
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        const int32_t i = 4 * (thread + q * threads);
        if (i >= a->d_model) continue;
        if (keep) nt_store_f4(keep + i, v[q]);
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

#endif
