/* The optimizer's ops on flat arrays: nt_adamw (a step), nt_sum_squares and nt_sum_squares_join (for the clipping),
 * nt_sum_parts (gradients of the ranks).
 *
 * AdamW: four neighbouring elements a thread, 16 bytes of each array where all four begin alike; every operation rounds
 * once, in the order of the CPU bodies, so the bits are theirs.
 * Sum of squares: a block of 256 threads per NT_SUM_BLOCK values, f32 squared exactly in double. Order: a thread adds
 * quads i, i + 256, ... ascending, the warp's butterfly, the warps'; the join adds blocks ascending, one thread, 256
 * fetched ahead into shared memory. It depends on n alone.
 * Sum of parts: a quad of y a thread; parts are fetched four at a time and added in their order.
 * Layout: p, m, v, grad, x [n] f32; part [n_block] f64 in the workspace; x of the parts [n_part, n], y [n] f32.
 * Roofline: bandwidth. AdamW 28 bytes per element (4 read, 3 written), 15 FLOP and about 60 instructions with two
 * divisions and a root: expected 85 % of copy bandwidth. Sum of squares 4 bytes and 2 FLOP in double per element:
 * expected 85 % (data-centre devices run doubles at half or the full rate). The join is one chain of additions, about
 * 10 ns a block by estimate, as long as the pass over the block's 16 KB takes on A100: 2.5 ms for 10^9 values, beside a
 * step of seconds; adapters (10^7) take 25 us. Sum of parts 4 (n_part + 1) bytes and n_part - 1 FLOP per element:
 * expected 85 %. */
#include "optim_cuda.h"
#include "cuda_rows.cuh"
#include "ptx.cuh"

/* ---- adamw ---- */

/* Elements i .. i + 3, of which `left` are there. */
template <bool WIDE> NT_DEVICE void adamw_quad(const struct nt_adamw_cuda *a, int64_t i, int32_t left) {
    const struct nt_adamw_factors f = a->f;
    const float4 p4 = nt_load_quad<WIDE>(a->p + i, left), m4 = nt_load_quad<WIDE>(a->m + i, left);
    const float4 v4 = nt_load_quad<WIDE>(a->v + i, left), g4 = nt_load_quad<WIDE>(a->grad + i, left);
    float p[4] = {p4.x, p4.y, p4.z, p4.w}, m[4] = {m4.x, m4.y, m4.z, m4.w}, v[4] = {v4.x, v4.y, v4.z, v4.w};
    const float grad[4] = {g4.x, g4.y, g4.z, g4.w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const float g = __fmul_rn(grad[k], f.scale);
        m[k] = __fadd_rn(__fmul_rn(f.beta1, m[k]), __fmul_rn(f.new1, g));
        v[k] = __fadd_rn(__fmul_rn(f.beta2, v[k]), __fmul_rn(f.new2, __fmul_rn(g, g)));
        const float below = __fadd_rn(__fdiv_rn(__fsqrt_rn(v[k]), f.root), f.eps);
        p[k] = __fsub_rn(__fmul_rn(p[k], f.keep), __fdiv_rn(__fmul_rn(f.step, m[k]), below));
    }
    nt_store_quad<WIDE>(a->m + i, left, make_float4(m[0], m[1], m[2], m[3]));
    nt_store_quad<WIDE>(a->v + i, left, make_float4(v[0], v[1], v[2], v[3]));
    nt_store_quad<WIDE>(a->p + i, left, make_float4(p[0], p[1], p[2], p[3]));
}

extern "C" __global__ void __launch_bounds__(NT_ADAMW_THREADS) nt_adamw(const struct nt_adamw_cuda a) {
    nt_launch_begin();
    const int64_t first = a.lead > 0 ? a.lead - 4 : 0; /* of the first quad */
    const int64_t i = first + 4 * ((int64_t)blockIdx.x * NT_ADAMW_THREADS + threadIdx.x);
    const int64_t begin = max(i, (int64_t)0), end = min(i + 4, a.n);
    if (a.lead >= 0 && begin == i && end == i + 4)
        adamw_quad<true>(&a, i, 4);
    else if (begin < end)
        adamw_quad<false>(&a, begin, (int32_t)(end - begin));
}

/* ---- sum_squares ---- */

NT_DEVICE double warp_sum(double v) {
#pragma unroll
    for (int d = NT_WARP / 2; d; d /= 2) v = __dadd_rn(v, __shfl_xor_sync(NT_ALL_LANES, v, d));
    return v;
}

extern "C" __global__ void __launch_bounds__(NT_SQUARES_THREADS) nt_sum_squares(const struct nt_sum_squares_cuda a) {
    nt_launch_begin();
    enum { QUADS = NT_SUM_BLOCK / 4 / NT_SQUARES_THREADS, WARPS = NT_SQUARES_THREADS / NT_WARP };
    static_assert(QUADS * 4 * NT_SQUARES_THREADS == NT_SUM_BLOCK, "a thread has whole quads");
    __shared__ double of_warp[WARPS];
    const int64_t begin = (int64_t)blockIdx.x * NT_SUM_BLOCK;
    const int32_t left = (int32_t)min((int64_t)NT_SUM_BLOCK, a.n - begin);
    const bool wide = left == NT_SUM_BLOCK && nt_is_aligned16(a.x);
    float4 x[QUADS];
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        const int32_t i = 4 * ((int32_t)threadIdx.x + q * NT_SQUARES_THREADS);
        const float *p = a.x + begin + i;
        x[q] = wide ? nt_load_quad<true>(p, 4) : nt_load_quad<false>(p, left - i);
    }
    double sum = 0;
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        const float v[4] = {x[q].x, x[q].y, x[q].z, x[q].w};
#pragma unroll
        for (int k = 0; k < 4; k++) sum = fma((double)v[k], (double)v[k], sum);
    }
    sum = warp_sum(sum);
    if (nt_lane() == 0) of_warp[nt_warp()] = sum;
    __syncthreads();
    if (nt_warp() > 0) return;
    sum = warp_sum(nt_lane() < WARPS ? of_warp[nt_lane()] : 0);
    if (nt_lane() == 0) a.part[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(NT_SQUARES_JOIN_THREADS)
    nt_sum_squares_join(const struct nt_sum_squares_cuda a) {
    nt_launch_begin();
    enum { CHUNK = NT_SQUARES_JOIN_THREADS };
    __shared__ double chunk[CHUNK];
    double sum = a.add ? *a.sum : 0;
    for (int64_t b0 = -CHUNK; b0 < a.n_block; b0 += CHUNK) { /* fetches a chunk while the one before is added */
        const int64_t b = b0 + CHUNK + threadIdx.x;
        const double next = b < a.n_block ? a.part[b] : 0;
        if (threadIdx.x == 0 && b0 >= 0) {
            const int32_t n = (int32_t)min((int64_t)CHUNK, a.n_block - b0);
#pragma unroll 8
            for (int32_t i = 0; i < n; i++) sum = __dadd_rn(sum, chunk[i]);
        }
        __syncthreads();
        chunk[threadIdx.x] = next;
        __syncthreads();
    }
    if (threadIdx.x == 0) *a.sum = sum;
}

/* ---- sum_parts ---- */

NT_DEVICE float4 add_quads(float4 a, float4 b) {
    return make_float4(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w));
}

template <bool WIDE> NT_DEVICE void sum_quad(const struct nt_sum_parts_cuda *a, int64_t i) {
    const int32_t left = (int32_t)min((int64_t)4, a->n - i);
    float4 sum = nt_load_quad<WIDE>(a->x + i, left);
    for (int32_t r = 1; r < a->n_part; r += NT_PARTS_AHEAD) {
        float4 part[NT_PARTS_AHEAD];
#pragma unroll
        for (int32_t k = 0; k < NT_PARTS_AHEAD; k++)
            part[k] = nt_load_quad<WIDE>(a->x + (r + k) * a->n + i, r + k < a->n_part ? left : 0);
#pragma unroll
        for (int32_t k = 0; k < NT_PARTS_AHEAD; k++)
            if (r + k < a->n_part) sum = add_quads(sum, part[k]); /* + 0 would lose the sign of -0 */
    }
    nt_store_quad<WIDE>(a->y + i, left, sum);
}

extern "C" __global__ void __launch_bounds__(NT_PARTS_THREADS) nt_sum_parts(const struct nt_sum_parts_cuda a) {
    nt_launch_begin();
    const int64_t i = 4 * ((int64_t)blockIdx.x * NT_PARTS_THREADS + threadIdx.x);
    if (i >= a.n) return;
    if (a.wide)
        sum_quad<true>(&a, i);
    else
        sum_quad<false>(&a, i);
}
