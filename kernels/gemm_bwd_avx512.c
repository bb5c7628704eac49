/* Blocks of gemm's backward with AVX-512: transpositions in registers, and the gradient of an adapter's few rows. */
#include "cpu_vec.h"
#include "gemm_blocks.h"

enum { PAIRS = NT_PANEL / 2 }; /* of rows or columns in a panel */

/* Pairs of k become pairs of n: a panel is 16 x 16 blocks. pairs: of columns that exist. */
static void turn_pairs(const nt_bf16 *from, int32_t pairs, nt_bf16 *to) {
    for (int p0 = 0; p0 < PAIRS; p0 += 8)
        for (int q0 = 0; q0 < PAIRS; q0 += 8)
            nt_v16_turn(from + (p0 * PAIRS + q0) * 4, PAIRS, pairs - p0, to + (q0 * PAIRS + p0) * 4, PAIRS);
}

static void turn(const struct nt_packed *w, int32_t panel, int32_t k0, nt_bf16 *to) {
    _Alignas(64) nt_bf16 unpacked[NT_PANEL * NT_PANEL];
    const nt_bf16 *from = unpacked;
    if (nt_weight_is_quantized(w->format))
        nt_gemm_unpack_avx512(w, panel, k0, unpacked);
    else
        from = (const nt_bf16 *)w->data + ((int64_t)panel * w->k + k0) * NT_PANEL;
    turn_pairs(from, (w->k - k0) / 2, to);
}

/* 16 columns of two rows as pairs; rows that do not exist are zero. */
static inline __m512i pair_columns(const nt_bf16 *x, int64_t ld, int32_t rows, __mmask16 columns) {
    const __m256i first = rows > 0 ? _mm256_maskz_loadu_epi16(columns, x) : _mm256_setzero_si256();
    const __m256i second = rows > 1 ? _mm256_maskz_loadu_epi16(columns, x + ld) : _mm256_setzero_si256();
    return nt_v16_pair(first, second);
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

/* ---- few rows ---- */

/* Rows of a tile: with up to NARROW_BOTH of them both halves of a panel fit into the registers at once; with more, each
 * half is a pass, in which a pair of b's tokens serves all rows. */
enum { NARROW_TILE = 24, NARROW_BOTH = 12 };

/* Pairs of tokens of a, [n_tok / 2][rows padded to 16][2]. */
static void pair_rows(const nt_bf16 *a, int64_t lda, int32_t n_tok, int32_t rows, char *to, int64_t step) {
    for (int32_t t = 0; t < n_tok; t += 2, to += step)
        for (int32_t i = 0; i < rows; i += 16)
            _mm512_store_si512(to + i * 4, pair_columns(a + t * lda + i, lda, 2, nt_v16_mask(rows - i)));
}

/* What is fetched meanwhile: n tokens with every pair, each `lines` cache lines. */
struct narrow_ahead {
    const char *at;
    int64_t stride;
    int32_t n, lines;
};

/* Rows of a by one or both halves of a panel from half `first` on; rows and vecs are constants after inlining. */
static inline __attribute__((always_inline)) void narrow_tile(const int rows, const int vecs, int first,
                                                              const struct nt_gemm_panel *p,
                                                              const nt_bf16 *const half[2], int64_t ldb,
                                                              struct narrow_ahead ahead) {
    __m512 acc[NARROW_TILE][2];
    const __mmask16 mask[2] = {nt_v16_mask(p->n_valid - 16 * first), nt_v16_mask(p->n_valid - 16)};
    const nt_bf16 *b0 = half[first], *b1 = half[1];
    const char *x = p->x;
#pragma GCC unroll 24
    for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    for (int32_t pair = 0; pair < p->n_pair; pair++, b0 += 2 * ldb, b1 += 2 * ldb, x += p->ldx) {
        const __m512bh w0 = (__m512bh)pair_columns(b0, ldb, 2, mask[0]);
        const __m512bh w1 = vecs > 1 ? (__m512bh)pair_columns(b1, ldb, 2, mask[1]) : w0;
        for (int32_t i = 0; i < ahead.n; i++, ahead.at += ahead.stride) {
            _mm_prefetch(ahead.at, _MM_HINT_T1);
            if (ahead.lines > 1) _mm_prefetch(ahead.at + 64, _MM_HINT_T1);
        }
#pragma GCC unroll 24
        for (int r = 0; r < rows; r++) {
            int32_t word;
            memcpy(&word, x + 4 * r, sizeof word);
            const __m512bh xr = (__m512bh)_mm512_set1_epi32(word);
            acc[r][0] = _mm512_dpbf16_ps(acc[r][0], w0, xr);
            if (vecs > 1) acc[r][1] = _mm512_dpbf16_ps(acc[r][1], w1, xr);
        }
    }
    const __m512 scale = _mm512_set1_ps(p->scale);
    char *y = p->y + first * 64;
#pragma GCC unroll 24
    for (int r = 0; r < rows; r++, y += p->ldy) {
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) {
            const __m512 old = _mm512_maskz_loadu_ps(mask[v], y + 64 * v);
            _mm512_mask_storeu_ps(y + 64 * v, mask[v], _mm512_add_ps(old, _mm512_mul_ps(acc[r][v], scale)));
        }
    }
}

typedef void narrow_fn(int first, const struct nt_gemm_panel *p, const nt_bf16 *const half[2], int64_t ldb,
                       struct narrow_ahead ahead);
#define NARROW(rows)                                                                                                   \
    static void narrow_##rows(int first, const struct nt_gemm_panel *p, const nt_bf16 *const half[2], int64_t ldb,     \
                              struct narrow_ahead ahead) {                                                             \
        narrow_tile(rows, (rows) > NARROW_BOTH ? 1 : 2, first, p, half, ldb, ahead);                                   \
    }
NARROW(1)
NARROW(2)
NARROW(3)
NARROW(4)
NARROW(5)
NARROW(6)
NARROW(7)
NARROW(8)
NARROW(9)
NARROW(10)
NARROW(11)
NARROW(12)
NARROW(13)
NARROW(14)
NARROW(15)
NARROW(16)
NARROW(17)
NARROW(18)
NARROW(19)
NARROW(20)
NARROW(21)
NARROW(22)
NARROW(23)
NARROW(24)
static narrow_fn *const narrow_tiles[NARROW_TILE + 1] = {
    NULL,      narrow_1,  narrow_2,  narrow_3,  narrow_4,  narrow_5,  narrow_6,  narrow_7,  narrow_8,
    narrow_9,  narrow_10, narrow_11, narrow_12, narrow_13, narrow_14, narrow_15, narrow_16, narrow_17,
    narrow_18, narrow_19, narrow_20, narrow_21, narrow_22, narrow_23, narrow_24};

/* The first two passes fetch b's columns of the panel after this one, a single one all of them. */
static void narrow(const struct nt_gemm_panel *p, const nt_bf16 *const half[2], int64_t ldb) {
    struct nt_gemm_panel t = *p;
    const int32_t n_tile = (p->rows + NARROW_TILE - 1) / NARROW_TILE;
    const int32_t n = p->ahead.n < 2 * p->n_pair ? 0 : p->rows <= NARROW_BOTH ? 2 : 1;
    struct narrow_ahead ahead = {p->ahead.at, p->ahead.stride, n, p->ahead.bytes / 64};
    for (int32_t i = 0, pass = 0; i < n_tile; i++) {
        int64_t begin, end;
        nt_split(p->rows, 1, i, n_tile, &begin, &end);
        t.x = p->x + begin * 4;
        t.y = p->y + begin * p->ldy;
        const bool once = end - begin <= NARROW_BOTH || p->n_valid <= NT_PANEL / 2;
        for (int first = 0; first < (once ? 1 : 2); first++, pass++) {
            if (pass > 1) ahead.n = 0;
            narrow_tiles[end - begin](first, &t, half, ldb, ahead);
            ahead.at += p->n_pair * p->ahead.stride;
        }
    }
}

nt_status nt_gemm_dgrad_avx512(struct nt_backend *be, const struct nt_gemm_dgrad_args *args) {
    const struct nt_gemm_block_traits traits = {.product = nt_gemm_traits_avx512(), .turn = turn};
    return nt_gemm_dgrad_run(be, args, &traits);
}

nt_status nt_gemm_wgrad_avx512(struct nt_backend *be, const struct nt_gemm_wgrad_args *args) {
    const struct nt_gemm_block_traits traits = {.product = nt_gemm_traits_avx512(),
                                                .transpose = transpose,
                                                .pair = pair,
                                                .narrow = narrow,
                                                .pair_rows = pair_rows};
    return nt_gemm_wgrad_run(be, args, &traits);
}
