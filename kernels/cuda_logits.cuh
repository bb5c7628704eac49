/* Device helpers of the kernels on logit rows.
 *
 * Loads of four neighbouring logits whatever the alignment of the row, the order-preserving integer key of a logit,
 * and the key with its index in one word: among such words the larger one is the better logit (NaN above all, -0
 * equal to +0, ties to the lower index), and no two of a row are equal. No state. */
#ifndef NT_CUDA_LOGITS_CUH
#define NT_CUDA_LOGITS_CUH

#include "cuda_common.cuh"

/* Logits v .. v + 3 of a row of n; -inf outside. One 16-byte load where the address allows it. */
NT_DEVICE float4 nt_load_logits4(const float *row, int32_t v, int32_t n) {
    if (v >= 0 && v + 4 <= n && nt_is_aligned16(row + v)) return nt_load_f4(row + v);
    float x[4];
#pragma unroll
    for (int i = 0; i < 4; i++) x[i] = v + i >= 0 && v + i < n ? row[v + i] : -NT_INF;
    return make_float4(x[0], x[1], x[2], x[3]);
}

NT_DEVICE uint32_t nt_logit_key(float x) {
    if (isnan(x)) return 0xffffffffu;
    const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f)); /* -0 + 0 is +0 */
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
NT_DEVICE uint64_t nt_logit_word(float x, int32_t index) {
    return (uint64_t)nt_logit_key(x) << 32 | (uint32_t)~index;
}
NT_DEVICE float nt_word_logit(uint64_t word) {
    const uint32_t key = (uint32_t)(word >> 32);
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}
NT_DEVICE int32_t nt_word_index(uint64_t word) {
    return (int32_t)~(uint32_t)word;
}

/* What IEEE arithmetic on the host leaves of a NaN: its own bits, quiet. */
NT_DEVICE float nt_quiet(float nan) {
    return __uint_as_float(__float_as_uint(nan) | 0x00400000u);
}

/* exp(x - max) in (0, 1], as the CPU bodies; 0 for x far below. */
NT_DEVICE float nt_exp_below(float x, float max) {
    return nt_dev_exp2_neg(__fmul_rn(__fsub_rn(x, max), NT_LOG2E));
}

/* The mass of logit_sample: 2^40 exp(y - best), rounded down. */
NT_DEVICE uint64_t nt_mass_below(float y, float best) {
    return (uint64_t)__fmul_rn(nt_exp_below(y, best), 1099511627776.0f);
}

#endif
