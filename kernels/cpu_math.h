/* exp2, exp and log of the CPU bodies: polynomials, the same operations in scalar form here and in vectors in
 * cpu_vec.h.
 *
 * No state; any thread. Multiplications and additions are never fused (-ffp-contract=off), so every instruction set
 * gives the same bits; libm is not used because its last bit differs between versions. exp2: x = n + f, n nearest
 * integer, |f| <= 1/2, polynomial of degree 5 with constant term 1, relative error 1.8e-7. log: x = m 2^e with
 * sqrt(1/2) <= m < sqrt(2), f = m - 1, log m = f - f^2/2 + f^3 q(f), relative error 1.5e-7, also near 1. The
 * coefficients were fitted for this file (weighted least squares on Chebyshev nodes, reweighted towards the minimum of
 * the largest relative error). */
#ifndef NT_CPU_MATH_H
#define NT_CPU_MATH_H

#include <stdint.h>
#include <string.h>

#define NT_LOG2E   1.44269504f

#define NT_EXP2_C1 0.6931469776f
#define NT_EXP2_C2 0.2402224209f
#define NT_EXP2_C3 0.0555073374f
#define NT_EXP2_C4 0.0096715126f
#define NT_EXP2_C5 0.0013264727f

#define NT_LOG_Q0  0.3333391074f
#define NT_LOG_Q1  -0.2500133704f
#define NT_LOG_Q2  0.1996306378f
#define NT_LOG_Q3  -0.1657758470f
#define NT_LOG_Q4  0.1491476823f
#define NT_LOG_Q5  -0.1426748678f
#define NT_LOG_Q6  0.0870043453f
/* ln 2 in two parts; the first has 9 bits, so that e * hi is exact. */
#define NT_LN2_HI 0.693359375f
#define NT_LN2_LO -2.12194440e-4f

/* Adding and taking away 1.5 * 2^23 rounds |x| < 2^22 to the nearest integer. */
#define NT_ROUND_MAGIC 12582912.0f

static inline float nt_float_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t nt_bits_of_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* 2^x for x <= 0 (a softmax exponent): 0 below -126, 1 exactly at 0, NaN for NaN. */
static inline float nt_exp2_neg(float x) {
    if (x < -126.0f) return 0.0f;
    if (!(x <= 0.0f)) return x - x + nt_float_of_bits(0x7fc00000u); /* positive or NaN: the maximum was not finite */
    const float n = (x + NT_ROUND_MAGIC) - NT_ROUND_MAGIC, f = x - n;
    float p = NT_EXP2_C5;
    p = p * f + NT_EXP2_C4;
    p = p * f + NT_EXP2_C3;
    p = p * f + NT_EXP2_C2;
    p = p * f + NT_EXP2_C1;
    p = p * f + 1.0f;
    return p * nt_float_of_bits((uint32_t)((int32_t)n + 127) << 23);
}

/* Natural logarithm of a normal positive x. */
static inline float nt_log_pos(float x) {
    const uint32_t bits =
        nt_bits_of_float(x) - 0x3f3504f3u; /* minus sqrt(1/2): the exponent field then counts from there */
    const float e = (float)((int32_t)bits >> 23);
    const float f = nt_float_of_bits((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float q = NT_LOG_Q6;
    q = q * f + NT_LOG_Q5;
    q = q * f + NT_LOG_Q4;
    q = q * f + NT_LOG_Q3;
    q = q * f + NT_LOG_Q2;
    q = q * f + NT_LOG_Q1;
    q = q * f + NT_LOG_Q0;
    const float f2 = f * f;
    const float r = e * NT_LN2_LO + f * f2 * q;
    return e * NT_LN2_HI + (f + (r - 0.5f * f2));
}

#endif
