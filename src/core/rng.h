/* Philox4x32-10 counter based random numbers (Salmon et al., SC 2011, "Parallel random numbers: as easy as 1, 2, 3").
 *
 * A number is a pure function of (seed, stream, index): the same for any batch, thread count or rank count. The tests
 * compare it with the known answers of the authors' Random123 package.
 * No state, no ownership, no errors. Threading: any. */
#ifndef NT_RNG_H
#define NT_RNG_H

#include <stdint.h>

/* Four 32-bit words for counter (index, stream) and key seed. */
void nt_philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]);
/* Word -> (0, 1): never 0, never 1. 23 bits and the half are exact in a float; 24 would round up to 1. */
static inline float nt_unit_float(uint32_t w) {
    return ((float)(w >> 9) + 0.5f) * (1.0f / 8388608.0f);
}

#endif
