/* Data types of weights and activations, and bf16 <-> f32.
 *
 * bf16 is the upper half of an IEEE binary32; conversion rounds to nearest even and keeps NaN a NaN (quiet).
 * Denormals are kept in both directions (some vector instructions flush them; the tolerances of ops.h allow that).
 * Usable from C and CUDA; no state. */
#ifndef NT_DTYPE_H
#define NT_DTYPE_H

#include <stdint.h>
#include <string.h>

typedef uint16_t nt_bf16; /* storage only; arithmetic is in float */

static inline float nt_bf16_to_f32(nt_bf16 h) {
    const uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline nt_bf16 nt_f32_to_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (nt_bf16)((bits >> 16) | 0x40u);
    return (nt_bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#endif
