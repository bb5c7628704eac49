/* Quantized weights to bf16 with AVX-512, 32 columns of a panel at a time. */
#include "cpu_vec.h"
#include "gemm_plan.h"

/* Scales of 16 rows; of 8 rows, each twice. */
static inline __m512 scales_16(const unsigned char *at) {
    const __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)at);
    return nt_v16_from_bf16(bits);
}
static inline __m512 scales_8_twice(const unsigned char *at) {
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const __m512i bits =
        _mm512_cvtepu16_epi32(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)at)));
    return _mm512_castsi512_ps(_mm512_permutexvar_epi32(twice, _mm512_slli_epi32(bits, 16)));
}

static void unpack_int8(const unsigned char *block, int32_t k0, nt_bf16 *to) {
    const unsigned char *from = block + (int64_t)k0 * NT_PANEL, *scales = block + NT_INT8_BLOCK - 2 * NT_PANEL;
    __m512 scale[4];
    for (int i = 0; i < 4; i++) scale[i] = scales_8_twice(scales + 16 * i);
    for (int p = 0; p < NT_PANEL / 2; p++, from += 64, to += 2 * NT_PANEL) {
        __m512 v[4];
        for (int i = 0; i < 4; i++) {
            const __m128i q = _mm_load_si128((const __m128i *)(const void *)(from + 16 * i));
            v[i] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), scale[i]);
        }
        _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]));
        _mm512_store_si512(to + NT_PANEL, (__m512i)_mm512_cvtne2ps_pbh(v[3], v[2]));
    }
}

/* The words of 16 rows and 32 k of an INT4 block (pack.c): line r has them as [k % 8 / 2][row / 8][k / 32] for row % 8
 * = r; half: k / 32. word[c]: k % 8 / 2 = c, rows ascending. */
static inline void int4_words(const unsigned char *lines, int half, __m512i word[4]) {
    const __m512i two = _mm512_setr_epi32(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
    const __m512i four = _mm512_setr_epi32(0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23);
    const __m512i eight = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i at_two = _mm512_add_epi32(two, _mm512_set1_epi32(half)), next = _mm512_set1_epi32(8);
    const __m512i four_next = _mm512_add_epi32(four, next), eight_next = _mm512_add_epi32(eight, next);
    __m512i a[4], low[2], high[2]; /* of two lines [c][row / 8][r % 2]; of four, c 0 and 1, 2 and 3 */
    for (int i = 0; i < 4; i++)
        a[i] = _mm512_permutex2var_epi32(_mm512_load_si512(lines + 128 * i), at_two,
                                         _mm512_load_si512(lines + 128 * i + 64));
    for (int i = 0; i < 2; i++) {
        low[i] = _mm512_permutex2var_epi32(a[2 * i], four, a[2 * i + 1]);
        high[i] = _mm512_permutex2var_epi32(a[2 * i], four_next, a[2 * i + 1]);
    }
    word[0] = _mm512_permutex2var_epi32(low[0], eight, low[1]);
    word[1] = _mm512_permutex2var_epi32(low[0], eight_next, low[1]);
    word[2] = _mm512_permutex2var_epi32(high[0], eight, high[1]);
    word[3] = _mm512_permutex2var_epi32(high[0], eight_next, high[1]);
}

/* scale * (nibble - 8), exact. */
static inline __m512 int4_values(__m512i bits, __m512 scale, __m512 zero) {
    const __m512i nibble = _mm512_and_si512(bits, _mm512_set1_epi32(15));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(nibble), scale, zero);
}

static void unpack_int4(const unsigned char *block, int32_t k0, nt_bf16 *to) {
    const __m512i both = _mm512_setr_epi32(0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006,
                                           0x170007, 0x180008, 0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d,
                                           0x1e000e, 0x1f000f); /* 16-bit elements i and 16 + i */
    for (int rows = 0; rows < NT_PANEL; rows += 16) {
        const unsigned char *lines = block + k0 / 64 * (NT_PANEL * 32) + rows * 32;
        const __m512 scale = scales_16(block + NT_INT4_BLOCK - 2 * NT_PANEL + 2 * rows);
        const __m512 zero = _mm512_mul_ps(scale, _mm512_set1_ps(-8.0f));
        __m512i word[4];
        int4_words(lines, k0 / 32 % 2, word);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) { /* pair 4 i + c of the 32 k: nibbles i and i + 4 */
            const __m512i bits = _mm512_srli_epi32(word[i % 4], (unsigned)(i / 4 * 4));
            const __m512 even = int4_values(bits, scale, zero);
            const __m512 odd = int4_values(_mm512_srli_epi32(bits, 16), scale, zero);
            const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
            _mm512_store_si512(to + i * 2 * NT_PANEL + 2 * rows, _mm512_permutexvar_epi16(both, halves));
        }
    }
}

void nt_gemm_unpack_avx512(const struct nt_packed *w, int32_t panel, int32_t k0, nt_bf16 *to) {
    const unsigned char *block = nt_packed_block(w, panel, k0 / NT_INT4_GROUP);
    if (w->format == NT_WEIGHT_INT4)
        unpack_int4(block, k0 % NT_INT4_GROUP, to);
    else
        unpack_int8(block, k0 % NT_INT4_GROUP, to);
}
