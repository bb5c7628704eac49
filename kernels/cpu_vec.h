/* The vector primitives of the tuned CPU bodies: 16 floats with AVX-512, 8 with AVX2; included by *_avx512.c and
 * *_avx2.c.
 *
 * Each ISA's part exists only where the compiler targets it. No state; any thread.
 *  exp2_neg, log_pos: the polynomials of cpu_math.h (exp2 with fused multiply-add, log without: same bits as the
 * scalar). sum_lanes, max_lanes: one fixed tree (halves of the register, then quarters ...). bf16: rounding to nearest
 * even; the AVX-512 instruction flushes denormals, which the tolerances of ops.h allow. */
#ifndef NT_CPU_VEC_H
#define NT_CPU_VEC_H

#include "cpu_math.h"
#include "dtype.h"
#include <immintrin.h>

#ifdef __AVX512BF16__

static inline __mmask16 nt_v16_mask(int32_t n) {
    return _cvtu32_mask16(_bzhi_u32(0xffff, (uint32_t)(n < 0 ? 0 : n > 16 ? 16 : n)));
}

/* 2^x for x <= 0 or NaN. -Inf gives 0: the fraction is NaN then, and vscalefps by -Inf makes that 0. */
static inline __m512 nt_v16_exp2_neg(__m512 x) {
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(NT_EXP2_C5);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(NT_EXP2_C4));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(NT_EXP2_C3));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(NT_EXP2_C2));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(NT_EXP2_C1));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

static inline __m512 nt_v16_log_pos(__m512 x) {
    const __m512i root_half = _mm512_set1_epi32(0x3f3504f3);
    const __m512i bits = _mm512_sub_epi32(_mm512_castps_si512(x), root_half);
    const __m512 e = _mm512_cvtepi32_ps(_mm512_srai_epi32(bits, 23));
    const __m512i m = _mm512_add_epi32(_mm512_and_si512(bits, _mm512_set1_epi32(0x007fffff)), root_half);
    const __m512 f = _mm512_sub_ps(_mm512_castsi512_ps(m), _mm512_set1_ps(1.0f));
    __m512 q = _mm512_set1_ps(NT_LOG_Q6);
    q = _mm512_add_ps(_mm512_mul_ps(q, f), _mm512_set1_ps(NT_LOG_Q5));
    q = _mm512_add_ps(_mm512_mul_ps(q, f), _mm512_set1_ps(NT_LOG_Q4));
    q = _mm512_add_ps(_mm512_mul_ps(q, f), _mm512_set1_ps(NT_LOG_Q3));
    q = _mm512_add_ps(_mm512_mul_ps(q, f), _mm512_set1_ps(NT_LOG_Q2));
    q = _mm512_add_ps(_mm512_mul_ps(q, f), _mm512_set1_ps(NT_LOG_Q1));
    q = _mm512_add_ps(_mm512_mul_ps(q, f), _mm512_set1_ps(NT_LOG_Q0));
    const __m512 f2 = _mm512_mul_ps(f, f);
    const __m512 r = _mm512_add_ps(_mm512_mul_ps(e, _mm512_set1_ps(NT_LN2_LO)), _mm512_mul_ps(_mm512_mul_ps(f, f2), q));
    const __m512 s = _mm512_sub_ps(r, _mm512_mul_ps(_mm512_set1_ps(0.5f), f2));
    return _mm512_add_ps(_mm512_mul_ps(e, _mm512_set1_ps(NT_LN2_HI)), _mm512_add_ps(f, s));
}

/* The maximum of all lanes in every lane. A NaN may be lost: callers look for it elsewhere. */
static inline __m512 nt_v16_max_lanes(__m512 x) {
    x = _mm512_max_ps(x, _mm512_shuffle_f32x4(x, x, 0x4e));
    x = _mm512_max_ps(x, _mm512_shuffle_f32x4(x, x, 0xb1));
    x = _mm512_max_ps(x, _mm512_permute_ps(x, 0x4e));
    return _mm512_max_ps(x, _mm512_permute_ps(x, 0xb1));
}

static inline float nt_v16_sum_lanes(__m512 x) {
    x = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0x4e));
    x = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0xb1));
    x = _mm512_add_ps(x, _mm512_permute_ps(x, 0x4e));
    x = _mm512_add_ps(x, _mm512_permute_ps(x, 0xb1));
    return _mm512_cvtss_f32(x);
}

static inline __m512 nt_v16_from_bf16(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

static inline __m512 nt_v16_load_bf16(const nt_bf16 *from, __mmask16 mask) {
    return nt_v16_from_bf16(_mm256_maskz_loadu_epi16(mask, from));
}

/* Element i of the one beside element i of the other. */
static inline __m512i nt_v16_pair(__m256i first, __m256i second) {
    const __m512i order = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                           37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    return _mm512_permutex2var_epi16(_mm512_castsi256_si512(first), order, _mm512_castsi256_si512(second));
}

static inline void nt_v16_store_bf16(nt_bf16 *to, __mmask16 mask, __m512 x) {
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(x));
}

/* r[i] qword j becomes r[j] qword i. */
static inline void nt_v16_transpose_64(__m512i r[8]) {
    __m512i a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) { /* 128-bit lanes: 2 x 2 of them change places, then halves */
        for (int h = 0; h < 2; h++) {
            b[i + h] = _mm512_shuffle_i64x2(a[i + h], a[i + h + 2], 0x88);
            b[i + h + 2] = _mm512_shuffle_i64x2(a[i + h], a[i + h + 2], 0xdd);
        }
    }
    for (int h = 0; h < 4; h++) {
        r[h] = _mm512_shuffle_i64x2(b[h], b[h + 4], 0x88);
        r[h + 4] = _mm512_shuffle_i64x2(b[h], b[h + 4], 0xdd);
    }
}

/* 8 x 8 blocks of 2 x 2 bf16, each as ((0,0), (0,1), (1,0), (1,1)), transposed as blocks and as elements. ld: blocks
 * from one row of them to the next; rows of `from` on are zero. */
static inline void nt_v16_turn(const nt_bf16 *from, int32_t ld_from, int32_t rows, nt_bf16 *to, int32_t ld_to) {
    const __m512i swap = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    __m512i r[8];
    for (int32_t i = 0; i < 8; i++)
        r[i] =
            i < rows ? _mm512_shuffle_epi8(_mm512_loadu_si512(from + i * ld_from * 4), swap) : _mm512_setzero_si512();
    nt_v16_transpose_64(r);
    for (int32_t i = 0; i < 8; i++) _mm512_storeu_si512(to + i * ld_to * 4, r[i]);
}

#endif

#ifdef __AVX2__

/* The first n lanes of a masked load or store. */
static inline __m256i nt_v8_mask(int32_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first left of 8 floats; the masked forms are slow on some machines and only for the last part of a row. */
static inline __m256 nt_v8_load(const float *x, int32_t left) {
    return left >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, nt_v8_mask(left));
}
static inline void nt_v8_store(float *x, int32_t left, __m256 v) {
    if (left >= 8) {
        _mm256_storeu_ps(x, v);
    } else {
        _mm256_maskstore_ps(x, nt_v8_mask(left), v);
    }
}

static inline __m256 nt_v8_exp2_neg(__m256 x) {
    const __m256 tiny = _mm256_cmp_ps(x, _mm256_set1_ps(-126.0f), _CMP_LT_OQ);
    const __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 f = _mm256_sub_ps(x, n);
    __m256 p = _mm256_set1_ps(NT_EXP2_C5);
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(NT_EXP2_C4));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(NT_EXP2_C3));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(NT_EXP2_C2));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(NT_EXP2_C1));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
    const __m256i scale = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(tiny, _mm256_mul_ps(p, _mm256_castsi256_ps(scale)));
}

static inline __m256 nt_v8_log_pos(__m256 x) {
    const __m256i root_half = _mm256_set1_epi32(0x3f3504f3);
    const __m256i bits = _mm256_sub_epi32(_mm256_castps_si256(x), root_half);
    const __m256 e = _mm256_cvtepi32_ps(_mm256_srai_epi32(bits, 23));
    const __m256i m = _mm256_add_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x007fffff)), root_half);
    const __m256 f = _mm256_sub_ps(_mm256_castsi256_ps(m), _mm256_set1_ps(1.0f));
    __m256 q = _mm256_set1_ps(NT_LOG_Q6);
    q = _mm256_add_ps(_mm256_mul_ps(q, f), _mm256_set1_ps(NT_LOG_Q5));
    q = _mm256_add_ps(_mm256_mul_ps(q, f), _mm256_set1_ps(NT_LOG_Q4));
    q = _mm256_add_ps(_mm256_mul_ps(q, f), _mm256_set1_ps(NT_LOG_Q3));
    q = _mm256_add_ps(_mm256_mul_ps(q, f), _mm256_set1_ps(NT_LOG_Q2));
    q = _mm256_add_ps(_mm256_mul_ps(q, f), _mm256_set1_ps(NT_LOG_Q1));
    q = _mm256_add_ps(_mm256_mul_ps(q, f), _mm256_set1_ps(NT_LOG_Q0));
    const __m256 f2 = _mm256_mul_ps(f, f);
    const __m256 r = _mm256_add_ps(_mm256_mul_ps(e, _mm256_set1_ps(NT_LN2_LO)), _mm256_mul_ps(_mm256_mul_ps(f, f2), q));
    const __m256 s = _mm256_sub_ps(r, _mm256_mul_ps(_mm256_set1_ps(0.5f), f2));
    return _mm256_add_ps(_mm256_mul_ps(e, _mm256_set1_ps(NT_LN2_HI)), _mm256_add_ps(f, s));
}

static inline float nt_v8_max_lanes(__m256 x) {
    x = _mm256_max_ps(x, _mm256_permute2f128_ps(x, x, 1));
    x = _mm256_max_ps(x, _mm256_permute_ps(x, 0x4e));
    return _mm256_cvtss_f32(_mm256_max_ps(x, _mm256_permute_ps(x, 0xb1)));
}

static inline float nt_v8_sum_lanes(__m256 x) {
    x = _mm256_add_ps(x, _mm256_permute2f128_ps(x, x, 1));
    x = _mm256_add_ps(x, _mm256_permute_ps(x, 0x4e));
    return _mm256_cvtss_f32(_mm256_add_ps(x, _mm256_permute_ps(x, 0xb1)));
}

static inline __m256 nt_v8_from_bf16(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

static inline __m256 nt_v8_load_bf16(const nt_bf16 *from) {
    return nt_v8_from_bf16(_mm_loadu_si128((const __m128i *)from));
}

/* 8 floats to bf16 as in nt_f32_to_bf16. */
static inline __m128i nt_v8_to_bf16(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i half = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* The first n (at most 8) values. */
static inline void nt_v8_store_bf16(nt_bf16 *to, int32_t n, __m256 x) {
    if (n >= 8) {
        _mm_storeu_si128((__m128i *)to, nt_v8_to_bf16(x));
    } else {
        nt_bf16 part[8];
        _mm_storeu_si128((__m128i *)part, nt_v8_to_bf16(x));
        for (int32_t i = 0; i < n; i++) to[i] = part[i];
    }
}

#endif
#endif
