/* bf16 and f16 to f32 and back, round to nearest even; NaN stays NaN. For the CPU stand-ins of cuBLASLt and NCCL. */
#pragma once
#include <stdint.h>
#include <string.h>

static inline float half_bits_to_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t half_float_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float half_from_bf16(uint16_t h) {
    return half_bits_to_float((uint32_t)h << 16);
}

static inline uint16_t half_to_bf16(float f) {
    const uint32_t bits = half_float_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static inline float half_from_f16(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return half_bits_to_float(sign | 0x7f800000u | fraction << 13);
    if (exponent != 0) return half_bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
    const float tiny = (float)fraction * 0x1p-24f;
    return sign != 0 ? -tiny : tiny;
}

static inline uint16_t half_to_f16(float f) {
    const uint32_t bits = half_float_bits(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7fff;
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); // rounds to infinity
    if (magnitude >= 0x38800000u) {
        const uint32_t rebased = magnitude - (112u << 23);
        return (uint16_t)(sign | (rebased + 0xfffu + (rebased >> 13 & 1)) >> 13);
    }
    const float scaled = half_bits_to_float(magnitude) + 0.5f; // adding 2^-1 leaves multiples of 2^-24, rounded to even
    return (uint16_t)(sign | (half_float_bits(scaled) - 0x3f000000u));
}
