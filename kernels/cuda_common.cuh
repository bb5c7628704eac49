/* Device helpers shared by all kernels: 128-bit memory access, bf16 pairs, reductions in a fixed order, the random
 * numbers and the polynomials of the CPU bodies.
 *
 * Order of sums: nt_warp_sum is the butterfly over lane distances 16, 8, 4, 2, 1, which gives every lane the same bits;
 * nt_block_sum adds the warps' sums by the same butterfly. Both depend on the thread count alone.
 * Bits: nt_dev_log_pos, nt_dev_exp2_neg and nt_dev_philox repeat cpu_math.h and core/rng.c operation for operation;
 * the _rn intrinsics keep nvcc from fusing a product with a sum, as -ffp-contract=off does on the host. Constants come
 * from cpu_math.h, so there is one copy of the coefficients.
 * bf16 conversions round to nearest even; a NaN stays a NaN (its payload is the hardware's).
 * Scratch in shared memory is passed in; who reuses it puts a barrier before. No state, no inline PTX (ptx.cuh). */
#ifndef NT_CUDA_COMMON_CUH
#define NT_CUDA_COMMON_CUH

#include "cpu_math.h"
#include "dtype.h"
#include <cuda_bf16.h>
#include <stdint.h>

#define NT_DEVICE static __device__ __forceinline__

enum { NT_WARP = 32, NT_MAX_WARPS = 32 };
#define NT_ALL_LANES 0xffffffffu
#define NT_INF       __int_as_float(0x7f800000)

NT_DEVICE int32_t nt_lane(void) {
    return (int32_t)(threadIdx.x & (NT_WARP - 1));
}
NT_DEVICE int32_t nt_warp(void) {
    return (int32_t)(threadIdx.x / NT_WARP);
}

/* ---- memory: 16 bytes at an address divisible by 16 ---- */

NT_DEVICE uint4 nt_load128(const void *p) {
    return *(const uint4 *)p;
}
NT_DEVICE float4 nt_load_f4(const float *p) {
    return *(const float4 *)p;
}
/* Read once: must not push reused lines out of L2. */
NT_DEVICE float4 nt_load_f4_once(const float *p) {
    return __ldcs((const float4 *)p);
}
NT_DEVICE void nt_store128(void *p, uint4 v) {
    *(uint4 *)p = v;
}
/* _whole: to global memory, as one store wherever it stands: nvcc may split an assignment whose words come from
 * branches. */
NT_DEVICE void nt_store128_whole(void *p, uint4 v) {
    __stwb((uint4 *)p, v);
}
NT_DEVICE void nt_store_f4(float *p, float4 v) {
    *(float4 *)p = v;
}
NT_DEVICE void nt_store_f4_whole(float *p, float4 v) {
    __stwb((float4 *)p, v);
}
NT_DEVICE bool nt_is_aligned16(const void *p) {
    return ((uintptr_t)p & 15) == 0;
}

/* ---- bf16 ---- */

NT_DEVICE float nt_dev_to_f32(nt_bf16 h) {
    return __uint_as_float((uint32_t)h << 16);
}
NT_DEVICE nt_bf16 nt_dev_to_bf16(float f) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(f));
}
/* A pair in one register, the first element in the low half. */
NT_DEVICE float nt_bf16_low(uint32_t pair) {
    return __uint_as_float(pair << 16);
}
NT_DEVICE float nt_bf16_high(uint32_t pair) {
    return __uint_as_float(pair & 0xffff0000u);
}
NT_DEVICE uint32_t nt_bf16_pack(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *(const uint32_t *)&pair;
}
/* Eight elements. */
NT_DEVICE uint4 nt_bf16_pack8(const float f[8]) {
    return make_uint4(nt_bf16_pack(f[0], f[1]), nt_bf16_pack(f[2], f[3]), nt_bf16_pack(f[4], f[5]),
                      nt_bf16_pack(f[6], f[7]));
}

/* ---- reductions ---- */

NT_DEVICE float nt_warp_sum(float v) {
#pragma unroll
    for (int d = NT_WARP / 2; d; d /= 2) v = __fadd_rn(v, __shfl_xor_sync(NT_ALL_LANES, v, d));
    return v;
}
NT_DEVICE float nt_warp_max(float v) { /* a NaN loses: nt_best keeps it */
#pragma unroll
    for (int d = NT_WARP / 2; d; d /= 2) v = fmaxf(v, __shfl_xor_sync(NT_ALL_LANES, v, d));
    return v;
}
/* Sum over the block (whole warps), in every thread. scratch [NT_MAX_WARPS]. */
NT_DEVICE float nt_block_sum(float v, float *scratch) {
    v = nt_warp_sum(v);
    if (nt_lane() == 0) scratch[nt_warp()] = v;
    __syncthreads();
    return nt_warp_sum(nt_lane() < (int32_t)(blockDim.x / NT_WARP) ? scratch[nt_lane()] : 0.0f);
}

NT_DEVICE uint64_t nt_warp_sum_u64(uint64_t v) {
#pragma unroll
    for (int d = NT_WARP / 2; d; d /= 2) v += __shfl_xor_sync(NT_ALL_LANES, v, d);
    return v;
}
/* As nt_block_sum. Integers: any order. scratch [NT_MAX_WARPS]. */
NT_DEVICE uint64_t nt_block_sum_u64(uint64_t v, uint64_t *scratch) {
    v = nt_warp_sum_u64(v);
    if (nt_lane() == 0) scratch[nt_warp()] = v;
    __syncthreads();
    return nt_warp_sum_u64(nt_lane() < (int32_t)(blockDim.x / NT_WARP) ? scratch[nt_lane()] : 0);
}

/* A logit and its index. The order is that of cpu_logits.h: NaN above every number, -0 equal to +0, then the lower
 * index. Index INT32_MAX with -inf is worse than every real pair. */
struct nt_best {
    float value;
    int32_t index;
};
NT_DEVICE struct nt_best nt_best_none(void) {
    struct nt_best b = {-NT_INF, INT32_MAX};
    return b;
}
NT_DEVICE bool nt_dev_finite(float x) {
    return fabsf(x) < NT_INF;
}
NT_DEVICE bool nt_dev_above(float a, float b) {
    return a > b || (isnan(a) && !isnan(b));
}
NT_DEVICE bool nt_dev_better(float a, int32_t ia, float b, int32_t ib) {
    return nt_dev_above(a, b) || (!nt_dev_above(b, a) && ia < ib);
}
NT_DEVICE struct nt_best nt_best_of(struct nt_best a, struct nt_best b) {
    return nt_dev_better(b.value, b.index, a.value, a.index) ? b : a;
}
/* A value as an integer of the same order. */
NT_DEVICE uint32_t nt_dev_rank(float v) {
    const uint32_t bits = __float_as_uint(__fadd_rn(v, 0.0f)); /* -0 becomes +0 */
    return isnan(v) ? UINT32_MAX : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
NT_DEVICE struct nt_best nt_warp_best(struct nt_best b) {
    const uint32_t rank = nt_dev_rank(b.value), top = __reduce_max_sync(NT_ALL_LANES, rank);
    const uint32_t index = rank == top ? (uint32_t)b.index : INT32_MAX;
    const uint32_t first = __reduce_min_sync(NT_ALL_LANES, index);
    const uint32_t who = __ballot_sync(NT_ALL_LANES, rank == top && index == first);
    b.value = __shfl_sync(NT_ALL_LANES, b.value, __ffs((int)who) - 1);
    b.index = (int32_t)first;
    return b;
}
/* In every thread. scratch [NT_MAX_WARPS]. */
NT_DEVICE struct nt_best nt_block_best(struct nt_best b, struct nt_best *scratch) {
    b = nt_warp_best(b);
    if (nt_lane() == 0) scratch[nt_warp()] = b;
    __syncthreads();
    return nt_warp_best(nt_lane() < (int32_t)(blockDim.x / NT_WARP) ? scratch[nt_lane()] : nt_best_none());
}

/* ---- as cpu_math.h ---- */

/* 2^x for x <= 0; 0 below -126, NaN for positive or NaN. */
NT_DEVICE float nt_dev_exp2_neg(float x) {
    if (x < -126.0f) return 0.0f;
    if (!(x <= 0.0f)) return __uint_as_float(0x7fc00000u);
    const float n = __fsub_rn(__fadd_rn(x, NT_ROUND_MAGIC), NT_ROUND_MAGIC), f = __fsub_rn(x, n);
    float p = NT_EXP2_C5;
    p = __fadd_rn(__fmul_rn(p, f), NT_EXP2_C4);
    p = __fadd_rn(__fmul_rn(p, f), NT_EXP2_C3);
    p = __fadd_rn(__fmul_rn(p, f), NT_EXP2_C2);
    p = __fadd_rn(__fmul_rn(p, f), NT_EXP2_C1);
    p = __fadd_rn(__fmul_rn(p, f), 1.0f);
    return __fmul_rn(p, __uint_as_float((uint32_t)((int32_t)n + 127) << 23));
}

/* Natural logarithm of a normal positive x. */
NT_DEVICE float nt_dev_log_pos(float x) {
    const uint32_t bits = __float_as_uint(x) - 0x3f3504f3u;
    const float e = (float)((int32_t)bits >> 23);
    const float f = __fsub_rn(__uint_as_float((bits & 0x007fffffu) + 0x3f3504f3u), 1.0f);
    float q = NT_LOG_Q6;
    q = __fadd_rn(__fmul_rn(q, f), NT_LOG_Q5);
    q = __fadd_rn(__fmul_rn(q, f), NT_LOG_Q4);
    q = __fadd_rn(__fmul_rn(q, f), NT_LOG_Q3);
    q = __fadd_rn(__fmul_rn(q, f), NT_LOG_Q2);
    q = __fadd_rn(__fmul_rn(q, f), NT_LOG_Q1);
    q = __fadd_rn(__fmul_rn(q, f), NT_LOG_Q0);
    const float f2 = __fmul_rn(f, f);
    const float r = __fadd_rn(__fmul_rn(e, NT_LN2_LO), __fmul_rn(__fmul_rn(f, f2), q));
    return __fadd_rn(__fmul_rn(e, NT_LN2_HI), __fadd_rn(f, __fsub_rn(r, __fmul_rn(0.5f, f2))));
}

/* ---- as core/rng ---- */

/* Philox4x32-10 (Salmon et al., SC 2011). */
NT_DEVICE uint4 nt_dev_philox(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint4 c = make_uint4((uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32));
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint32_t high0 = __umulhi(0xD2511F53u, c.x), low0 = 0xD2511F53u * c.x;
        const uint32_t high1 = __umulhi(0xCD9E8D57u, c.z), low1 = 0xCD9E8D57u * c.z;
        c = make_uint4(high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}
NT_DEVICE float nt_dev_unit_float(uint32_t w) {
    return __fmul_rn(__fadd_rn((float)(w >> 9), 0.5f), 1.0f / 8388608.0f);
}
/* log(-log(u)) of a random word: minus the Gumbel noise. */
NT_DEVICE float nt_dev_log_neg_log(uint32_t w) {
    return nt_dev_log_pos(-nt_dev_log_pos(nt_dev_unit_float(w)));
}

#endif
