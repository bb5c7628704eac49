/* Philox (core/rng.h) for 16 counters at once with AVX-512, 8 with AVX2; included by *_avx512.c and *_avx2.c.
 *
 * The words of counters c0, c0 + 1 ... follow each other in out[0], out[1] ...: what a row of columns wants. Counters
 * stay below 2^32. unit: nt_unit_float of each word, the same bits. No state; any thread; no errors. (Salmon et al., SC
 * 2011.) */
#ifndef NT_CPU_PHILOX_H
#define NT_CPU_PHILOX_H

#include "cpu_vec.h"

#ifdef __AVX512BF16__

/* hi and lo of the 64-bit products of 16 words with one multiplier. */
static inline void nt_v16_mul_wide(__m512i c, uint32_t mul, __m512i *hi, __m512i *lo) {
    const __m512i m = _mm512_set1_epi32((int32_t)mul);
    const __m512i even = _mm512_mul_epu32(c, m), odd = _mm512_mul_epu32(_mm512_srli_epi64(c, 32), m);
    *hi = _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
    *lo = _mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
}

/* nt_philox (core/rng.h) for 16 counters below 2^32. Lane 4 L + j holds counter c0 + 4 j + L, so that the 4 x 4
 * transpose within 128-bit lanes leaves the words of counters c0 + 4 j ... c0 + 4 j + 3 in order in out[j]. */
static inline void nt_v16_philox(uint64_t seed, uint64_t stream, uint32_t c0, __m512i out[4]) {
    const __m512i place = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i w0 = _mm512_add_epi32(_mm512_set1_epi32((int32_t)c0), place), w1 = _mm512_setzero_si512();
    __m512i w2 = _mm512_set1_epi32((int32_t)stream), w3 = _mm512_set1_epi32((int32_t)(stream >> 32));
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        __m512i hi0, lo0, hi2, lo2;
        nt_v16_mul_wide(w0, 0xD2511F53u, &hi0, &lo0);
        nt_v16_mul_wide(w2, 0xCD9E8D57u, &hi2, &lo2);
        w0 = _mm512_xor_si512(_mm512_xor_si512(hi2, w1), _mm512_set1_epi32((int32_t)k0));
        w1 = lo2;
        w2 = _mm512_xor_si512(_mm512_xor_si512(hi0, w3), _mm512_set1_epi32((int32_t)k1));
        w3 = lo0;
    }
    const __m512i a = _mm512_unpacklo_epi32(w0, w1), b = _mm512_unpackhi_epi32(w0, w1);
    const __m512i c = _mm512_unpacklo_epi32(w2, w3), d = _mm512_unpackhi_epi32(w2, w3);
    out[0] = _mm512_unpacklo_epi64(a, c);
    out[1] = _mm512_unpackhi_epi64(a, c);
    out[2] = _mm512_unpacklo_epi64(b, d);
    out[3] = _mm512_unpackhi_epi64(b, d);
}

static inline __m512 nt_v16_unit(__m512i word) {
    const __m512 whole = _mm512_cvtepi32_ps(_mm512_srli_epi32(word, 9));
    return _mm512_mul_ps(_mm512_add_ps(whole, _mm512_set1_ps(0.5f)), _mm512_set1_ps(1.0f / 8388608.0f));
}

#endif

#ifdef __AVX2__

/* hi and lo of the 64-bit products of 8 words with one multiplier. */
static inline void nt_v8_mul_wide(__m256i c, uint32_t mul, __m256i *hi, __m256i *lo) {
    const __m256i m = _mm256_set1_epi32((int32_t)mul);
    const __m256i even = _mm256_mul_epu32(c, m), odd = _mm256_mul_epu32(_mm256_srli_epi64(c, 32), m);
    *hi = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    *lo = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}

/* nt_philox (core/rng.h) for 8 counters below 2^32. Lane 4 L + j holds counter c0 + 2 j + L, so that the 4 x 4
 * transpose within 128-bit lanes leaves the words of counters c0 + 2 j and c0 + 2 j + 1 in order in out[j]. */
static inline void nt_v8_philox(uint64_t seed, uint64_t stream, uint32_t c0, __m256i out[4]) {
    __m256i w0 = _mm256_add_epi32(_mm256_set1_epi32((int32_t)c0), _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    __m256i w1 = _mm256_setzero_si256();
    __m256i w2 = _mm256_set1_epi32((int32_t)stream), w3 = _mm256_set1_epi32((int32_t)(stream >> 32));
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        __m256i hi0, lo0, hi2, lo2;
        nt_v8_mul_wide(w0, 0xD2511F53u, &hi0, &lo0);
        nt_v8_mul_wide(w2, 0xCD9E8D57u, &hi2, &lo2);
        w0 = _mm256_xor_si256(_mm256_xor_si256(hi2, w1), _mm256_set1_epi32((int32_t)k0));
        w1 = lo2;
        w2 = _mm256_xor_si256(_mm256_xor_si256(hi0, w3), _mm256_set1_epi32((int32_t)k1));
        w3 = lo0;
    }
    const __m256i a = _mm256_unpacklo_epi32(w0, w1), b = _mm256_unpackhi_epi32(w0, w1);
    const __m256i c = _mm256_unpacklo_epi32(w2, w3), d = _mm256_unpackhi_epi32(w2, w3);
    out[0] = _mm256_unpacklo_epi64(a, c);
    out[1] = _mm256_unpackhi_epi64(a, c);
    out[2] = _mm256_unpacklo_epi64(b, d);
    out[3] = _mm256_unpackhi_epi64(b, d);
}

static inline __m256 nt_v8_unit(__m256i word) {
    const __m256 whole = _mm256_cvtepi32_ps(_mm256_srli_epi32(word, 9));
    return _mm256_mul_ps(_mm256_add_ps(whole, _mm256_set1_ps(0.5f)), _mm256_set1_ps(1.0f / 8388608.0f));
}

#endif
#endif
