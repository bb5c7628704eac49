/* Blocks of gemm's backward with AVX-512: transpositions in registers. */
#include "cpu_vec.h"
#include "gemm_blocks.h"

enum { PAIRS = NT_PANEL / 2 }; /* of rows or columns in a panel */

/* r[i] qword j becomes r[j] qword i. */
static inline void transpose_8x8_64(__m512i r[8]) {
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

/* Of four bf16 of a qword, w[n, k], w[n, k + 1], w[n + 1, k], w[n + 1, k + 1], the middle two change places: pairs of k
 * become pairs of n. A panel is then 16 x 16 qwords that are transposed. pairs: of columns that exist. */
static void turn_pairs(const char *from, int32_t pairs, nt_bf16 *to) {
    const __m512i swap = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    for (int p0 = 0; p0 < PAIRS; p0 += 8) {
        for (int q0 = 0; q0 < PAIRS; q0 += 8) {
            __m512i r[8];
            for (int i = 0; i < 8; i++) {
                const char *line = from + (p0 + i) * 128 + q0 * 8;
                r[i] = p0 + i < pairs ? _mm512_shuffle_epi8(_mm512_load_si512(line), swap) : _mm512_setzero_si512();
            }
            transpose_8x8_64(r);
            for (int i = 0; i < 8; i++) _mm512_store_si512((char *)to + (q0 + i) * 128 + p0 * 8, r[i]);
        }
    }
}

static void turn(const struct nt_packed *w, int32_t panel, int32_t k0, nt_bf16 *to) {
    _Alignas(64) nt_bf16 unpacked[NT_PANEL * NT_PANEL];
    const nt_bf16 *from = unpacked;
    if (nt_weight_is_quantized(w->format))
        nt_gemm_unpack_avx512(w, panel, k0, unpacked);
    else
        from = (const nt_bf16 *)w->data + ((int64_t)panel * w->k + k0) * NT_PANEL;
    turn_pairs((const char *)from, (w->k - k0) / 2, to);
}

/* 16 columns of two rows as pairs; rows that do not exist are zero. */
static inline __m512i pair_columns(const nt_bf16 *x, int64_t ld, int32_t rows, __mmask16 columns) {
    const __m256i first = rows > 0 ? _mm256_maskz_loadu_epi16(columns, x) : _mm256_setzero_si256();
    const __m256i second = rows > 1 ? _mm256_maskz_loadu_epi16(columns, x + ld) : _mm256_setzero_si256();
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

/* r[i] dword j becomes r[j] dword i. */
static inline void transpose_16x16_32(__m512i r[16]) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* b[i + c]: columns 4 lane + c of rows i .. i + 3 */
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    for (int c = 0; c < 4; c++) {
        const __m512i low01 = _mm512_shuffle_i32x4(b[c], b[c + 4], 0x88),
                      low23 = _mm512_shuffle_i32x4(b[c], b[c + 4], 0xdd);
        const __m512i up01 = _mm512_shuffle_i32x4(b[c + 8], b[c + 12], 0x88);
        const __m512i up23 = _mm512_shuffle_i32x4(b[c + 8], b[c + 12], 0xdd);
        r[c] = _mm512_shuffle_i32x4(low01, up01, 0x88);
        r[c + 8] = _mm512_shuffle_i32x4(low01, up01, 0xdd);
        r[c + 4] = _mm512_shuffle_i32x4(low23, up23, 0x88);
        r[c + 12] = _mm512_shuffle_i32x4(low23, up23, 0xdd);
    }
}

static void transpose(const nt_bf16 *a, int64_t lda, int32_t n_tok, int32_t rows, char *to, int64_t ld_to) {
    for (int32_t t = 0; t < n_tok; t += 32) {
        for (int32_t i = 0; i < rows; i += 16) {
            const __mmask16 columns = nt_v16_mask(rows - i);
            __m512i r[16];
            for (int p = 0; p < 16; p++) {
                const int32_t left = n_tok - t - 2 * p;
                r[p] = pair_columns(a + (t + 2 * p) * lda + i, lda, left, columns);
            }
            transpose_16x16_32(r);
            for (int c = 0; c < 16 && c < rows - i; c++) _mm512_store_si512(to + (i + c) * ld_to + t * 2, r[c]);
        }
    }
}

static void pair(const nt_bf16 *const half[2], int64_t ldb, int32_t n_tok, int32_t n_col, nt_bf16 *to) {
    const __mmask16 left = nt_v16_mask(n_col), right = nt_v16_mask(n_col - 16);
    for (int32_t t = 0; t < n_tok; t += 2, to += 2 * NT_PANEL) {
        _mm512_store_si512(to, pair_columns(half[0] + t * ldb, ldb, n_tok - t, left));
        _mm512_store_si512(to + NT_PANEL, pair_columns(half[1] + t * ldb, ldb, n_tok - t, right));
    }
}

nt_status nt_gemm_dgrad_avx512(struct nt_backend *be, const struct nt_gemm_dgrad_args *args) {
    const struct nt_gemm_block_traits traits = {.product = nt_gemm_traits_avx512(), .turn = turn};
    return nt_gemm_dgrad_run(be, args, &traits);
}

nt_status nt_gemm_wgrad_avx512(struct nt_backend *be, const struct nt_gemm_wgrad_args *args) {
    const struct nt_gemm_block_traits traits = {
        .product = nt_gemm_traits_avx512(), .transpose = transpose, .pair = pair};
    return nt_gemm_wgrad_run(be, args, &traits);
}
