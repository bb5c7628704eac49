/* Quantized weights to bf16 with AVX2, 32 columns of a panel at a time. */
#include "cpu_vec.h"
#include "gemm_plan.h"

/* Scales of 8 rows. */
static inline __m256 scales_8(const unsigned char *at) {
    return nt_v8_from_bf16(_mm_loadu_si128((const __m128i *)(const void *)at));
}

/* Pairs of 8 rows: 16 numbers. */
static inline void store_pairs(nt_bf16 *to, __m256 even, __m256 odd) {
    const __m128i a = nt_v8_to_bf16(even), b = nt_v8_to_bf16(odd);
    _mm_store_si128((__m128i *)(void *)to, _mm_unpacklo_epi16(a, b));
    _mm_store_si128((__m128i *)(void *)(to + 8), _mm_unpackhi_epi16(a, b));
}

static void unpack_int8(const unsigned char *block, int32_t k0, nt_bf16 *to) {
    const unsigned char *from = block + (int64_t)k0 * NT_PANEL, *scales = block + NT_INT8_BLOCK - 2 * NT_PANEL;
    for (int rows = 0; rows < NT_PANEL; rows += 8) {
        const __m256 scale = scales_8(scales + 2 * rows);
        for (int p = 0; p < NT_PANEL / 2; p++) {
            const __m128i pairs = _mm_load_si128((const __m128i *)(const void *)(from + p * 64 + 2 * rows));
            const __m256i q = _mm256_cvtepi8_epi16(pairs); /* one pair per dword */
            const __m256 even = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(q, 16), 16));
            const __m256 odd = _mm256_cvtepi32_ps(_mm256_srai_epi32(q, 16));
            store_pairs(to + p * 2 * NT_PANEL + 2 * rows, _mm256_mul_ps(even, scale), _mm256_mul_ps(odd, scale));
        }
    }
}

/* scale * (nibble - 8), exact. */
static inline __m256 int4_values(__m256i bits, __m256 scale, __m256 zero) {
    const __m256i nibble = _mm256_and_si256(bits, _mm256_set1_epi32(15));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(nibble), scale, zero);
}

/* The order of a block is that of pack.c: 8 rows are 8 lines of 16 words [k % 8 / 2][row % 16 / 8][k % 64 / 32]. */
static void unpack_int4(const unsigned char *block, int32_t k0, nt_bf16 *to) {
    const __m256i line = _mm256_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112);
    for (int rows = 0; rows < NT_PANEL; rows += 8) {
        const unsigned char *lines = block + k0 / 64 * (NT_PANEL * 32) + rows / 16 * 512;
        const int32_t *words = (const int32_t *)(const void *)lines + rows % 16 / 8 * 2 + k0 / 32 % 2;
        const __m256 scale = scales_8(block + NT_INT4_BLOCK - 2 * NT_PANEL + 2 * rows);
        const __m256 zero = _mm256_mul_ps(scale, _mm256_set1_ps(-8.0f));
        for (int c = 0; c < 4; c++) {
            const __m256i word = _mm256_i32gather_epi32(words + 4 * c, line, 4);
            for (int i = 0; i < 4; i++) { /* pair 4 i + c of the 32 k: nibbles i and i + 4 */
                const __m256i bits = _mm256_srli_epi32(word, 4 * i);
                store_pairs(to + (4 * i + c) * 2 * NT_PANEL + 2 * rows, int4_values(bits, scale, zero),
                            int4_values(_mm256_srli_epi32(bits, 16), scale, zero));
            }
        }
    }
}

void nt_gemm_unpack_avx2(const struct nt_packed *w, int32_t panel, int32_t k0, nt_bf16 *to) {
    const unsigned char *block = nt_packed_block(w, panel, k0 / NT_INT4_GROUP);
    if (w->format == NT_WEIGHT_INT4)
        unpack_int4(block, k0 % NT_INT4_GROUP, to);
    else
        unpack_int8(block, k0 % NT_INT4_GROUP, to);
}
