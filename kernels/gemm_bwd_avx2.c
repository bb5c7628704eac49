/* Blocks of gemm's backward with AVX2: transpositions in registers; rows of products are floats. */
#include "cpu_vec.h"
#include "gemm_blocks.h"

enum { PAIRS = NT_PANEL / 2 }; /* of rows or columns in a panel */

/* r[i] qword j becomes r[j] qword i. */
static inline void transpose_4x4_64(__m256i r[4]) {
    const __m256i a = _mm256_unpacklo_epi64(r[0], r[1]), b = _mm256_unpackhi_epi64(r[0], r[1]);
    const __m256i c = _mm256_unpacklo_epi64(r[2], r[3]), d = _mm256_unpackhi_epi64(r[2], r[3]);
    r[0] = _mm256_permute2x128_si256(a, c, 0x20);
    r[1] = _mm256_permute2x128_si256(b, d, 0x20);
    r[2] = _mm256_permute2x128_si256(a, c, 0x31);
    r[3] = _mm256_permute2x128_si256(b, d, 0x31);
}

/* As in gemm_bwd_avx512.c: the middle bf16 of a qword change places, and 16 x 16 qwords are transposed; pairs of
 * columns exist. */
static void turn_pairs(const char *from, int32_t pairs, nt_bf16 *to) {
    const __m256i swap =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    for (int p0 = 0; p0 < PAIRS; p0 += 4) {
        for (int q0 = 0; q0 < PAIRS; q0 += 4) {
            __m256i r[4];
            for (int i = 0; i < 4; i++) {
                const __m256i *line = (const __m256i *)(const void *)(from + (p0 + i) * 128 + q0 * 8);
                r[i] = p0 + i < pairs ? _mm256_shuffle_epi8(_mm256_load_si256(line), swap) : _mm256_setzero_si256();
            }
            transpose_4x4_64(r);
            for (int i = 0; i < 4; i++)
                _mm256_store_si256((__m256i *)(void *)((char *)to + (q0 + i) * 128 + p0 * 8), r[i]);
        }
    }
}

static void turn(const struct nt_packed *w, int32_t panel, int32_t k0, nt_bf16 *to) {
    _Alignas(64) nt_bf16 unpacked[NT_PANEL * NT_PANEL];
    const nt_bf16 *from = unpacked;
    if (nt_weight_is_quantized(w->format))
        nt_gemm_unpack_avx2(w, panel, k0, unpacked);
    else
        from = (const nt_bf16 *)w->data + ((int64_t)panel * w->k + k0) * NT_PANEL;
    turn_pairs((const char *)from, (w->k - k0) / 2, to);
}

/* The first n of 8 elements, then zeros. */
static inline __m128i load_8(const nt_bf16 *x, int32_t n) {
    nt_bf16 part[8] = {0};
    if (n >= 8) return _mm_loadu_si128((const __m128i *)(const void *)x);
    for (int32_t i = 0; i < n; i++) part[i] = x[i];
    return _mm_loadu_si128((const __m128i *)(const void *)part);
}

/* r[i] float j becomes r[j] float i. */
static inline void transpose_8x8_32(__m256 r[8]) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) { /* b[i + c]: columns 4 lane + c of rows i .. i + 3 */
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int c = 0; c < 4; c++) {
        r[c] = _mm256_permute2f128_ps(b[c], b[c + 4], 0x20);
        r[c + 4] = _mm256_permute2f128_ps(b[c], b[c + 4], 0x31);
    }
}

static void transpose(const nt_bf16 *a, int64_t lda, int32_t n_tok, int32_t rows, char *to, int64_t ld_to) {
    for (int32_t t = 0; t < n_tok; t += 8) {
        for (int32_t i = 0; i < rows; i += 8) {
            __m256 r[8];
            for (int p = 0; p < 8; p++) {
                const __m128i x = t + p < n_tok ? load_8(a + (t + p) * lda + i, rows - i) : _mm_setzero_si128();
                r[p] = nt_v8_from_bf16(x);
            }
            transpose_8x8_32(r);
            for (int c = 0; c < 8 && c < rows - i; c++)
                _mm256_store_ps((float *)(void *)(to + (i + c) * ld_to) + t, r[c]);
        }
    }
}

static void pair(const nt_bf16 *const half[2], int64_t ldb, int32_t n_tok, int32_t n_col, nt_bf16 *to) {
    for (int32_t t = 0; t < n_tok; t += 2, to += 2 * NT_PANEL) {
        for (int c = 0; c < NT_PANEL; c += 8) {
            const nt_bf16 *x = half[c / PAIRS] + t * ldb + c % PAIRS;
            const __m128i first = load_8(x, n_col - c);
            const __m128i second = t + 1 < n_tok ? load_8(x + ldb, n_col - c) : _mm_setzero_si128();
            _mm_store_si128((__m128i *)(void *)(to + 2 * c), _mm_unpacklo_epi16(first, second));
            _mm_store_si128((__m128i *)(void *)(to + 2 * c + 8), _mm_unpackhi_epi16(first, second));
        }
    }
}

nt_status nt_gemm_dgrad_avx2(struct nt_backend *be, const struct nt_gemm_dgrad_args *args) {
    const struct nt_gemm_block_traits traits = {.product = nt_gemm_traits_avx2(), .turn = turn};
    return nt_gemm_dgrad_run(be, args, &traits);
}

nt_status nt_gemm_wgrad_avx2(struct nt_backend *be, const struct nt_gemm_wgrad_args *args) {
    const struct nt_gemm_block_traits traits = {.product = nt_gemm_traits_avx2(), .transpose = transpose, .pair = pair};
    return nt_gemm_wgrad_run(be, args, &traits);
}
