/* Attention over the paged cache with vdpbf16ps.
 *
 * A tile of up to TILE rows over a page: scores S = Q K^T, one block of the online softmax, O = alpha O + P V. Both
 * products are one kernel: C[row][col] += sum over pairs of A[row][pair] . B[pair][col], with up to TILE x 4
 * accumulators, A broadcast and B streamed. An element of C is one chain of vdpbf16ps over ascending pairs, whatever
 * the tile: hence the fixed order that ops.h asks for. The softmax works in base 2 with the reference m = round(scale *
 * log2(e) * max): p = 2^(s * scale * log2(e) - m). */
#include "cpu_attention.h"
#include "cpu_vec.h"
#include <math.h>

enum { TILE = 6, VECS = 4, MAX_ROWS = 48 };
_Static_assert(NT_KV_PAGE == VECS * 16 && NT_ATTN_LANES == 16, "the scores of a page are four registers");
_Static_assert((int)TILE <= (int)NT_ATTN_MAX_TILE, "the state has room for a tile");

/* c[n][16 * nv] = (alpha ? alpha[row] * c : 0) + a . b; n and nv are constants after inlining. */
static inline __attribute__((always_inline)) void product_tile(int n, int nv, const uint32_t *const a[],
                                                               const nt_bf16 *b, int64_t b_stride, int32_t pair0,
                                                               int32_t pair1, const float *alpha, float *c,
                                                               int64_t c_stride) {
    __m512 acc[TILE][VECS];
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < nv; j++)
            acc[i][j] = alpha ? _mm512_mul_ps(_mm512_loadu_ps(c + i * c_stride + 16 * j), _mm512_set1_ps(alpha[i]))
                              : _mm512_setzero_ps();
    }
    b += pair0 * b_stride;
    for (int32_t pair = pair0; pair < pair1; pair++, b += b_stride) {
        __m512i bv[VECS];
#pragma GCC unroll 8
        for (int j = 0; j < nv; j++) bv[j] = _mm512_loadu_si512(b + 32 * j);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            const __m512i av = _mm512_set1_epi32((int32_t)a[i][pair]);
#pragma GCC unroll 8
            for (int j = 0; j < nv; j++) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], (__m512bh)bv[j], (__m512bh)av);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < nv; j++) _mm512_storeu_ps(c + i * c_stride + 16 * j, acc[i][j]);
    }
}

static inline __attribute__((always_inline)) void product_rows(int n, int nv, const uint32_t *const a[],
                                                               const nt_bf16 *b, int64_t b_stride, int32_t pair0,
                                                               int32_t pair1, const float *alpha, float *c,
                                                               int64_t c_stride) {
    switch (nv) {
    case 1:
        product_tile(n, 1, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
        break;
    case 2:
        product_tile(n, 2, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
        break;
    case 3:
        product_tile(n, 3, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
        break;
    default:
        product_tile(n, 4, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
    }
}

static void product(int n, int nv, const uint32_t *const a[], const nt_bf16 *b, int64_t b_stride, int32_t pair0,
                    int32_t pair1, const float *alpha, float *c, int64_t c_stride) {
    switch (n) {
    case 1:
        product_rows(1, nv, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
        break;
    case 2:
        product_rows(2, nv, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
        break;
    case 3:
        product_rows(3, nv, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
        break;
    case 4:
        product_rows(4, nv, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
        break;
    case 5:
        product_rows(5, nv, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
        break;
    default:
        product_rows(6, nv, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
    }
}

/* Invisible slots of the row's scores become -Inf. */
static void mask_scores(float s[NT_KV_PAGE], int32_t lo, int32_t hi) {
    for (int32_t j = 0; j < NT_KV_PAGE; j += 16) {
        const __mmask16 visible = (__mmask16)(nt_v16_mask(hi - j) & ~nt_v16_mask(lo - j));
        const __m512 x = _mm512_loadu_ps(s + j);
        _mm512_storeu_ps(s + j, _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), visible, x));
    }
}

/* Reference, rescaling and maximum of the tile's rows, one row per lane. */
static void raise_references(struct nt_attn_state *st, int32_t r0, int n, __m512 page_max, float factor) {
    const __mmask16 rows = nt_v16_mask(n);
    const __m512 lowest = _mm512_set1_ps(-INFINITY), m_old = _mm512_mask_loadu_ps(lowest, rows, st->m + r0);
    const __m512 m = _mm512_max_ps(m_old, _mm512_mul_ps(page_max, _mm512_set1_ps(factor)));
    /* All scores -Inf so far: 2^(-Inf - 0), not 2^(-Inf + Inf). */
    const __m512 ref = _mm512_mask_mov_ps(m, _mm512_cmp_ps_mask(m, lowest, _CMP_EQ_OQ), _mm512_setzero_ps());
    _mm512_mask_storeu_ps(st->m + r0, rows, m);
    _mm512_mask_storeu_ps(st->ref, rows, ref);
    _mm512_mask_storeu_ps(st->alpha, rows, nt_v16_exp2_neg(_mm512_sub_ps(m_old, ref)));
}

/* One block of the online softmax for n rows: scores (nv registers a row) -> probabilities, m, l, alpha. */
static inline __attribute__((always_inline)) void softmax_tile(struct nt_attn_state *st, int32_t r0, int n, int nv,
                                                               float factor) {
    __m512 page_max = _mm512_set1_ps(-INFINITY);
    for (int i = 0; i < n; i++) {
        __m512 max = _mm512_loadu_ps(st->s[i]);
#pragma GCC unroll 4
        for (int j = 1; j < nv; j++) max = _mm512_max_ps(max, _mm512_loadu_ps(st->s[i] + 16 * j));
        page_max = _mm512_mask_mov_ps(page_max, (__mmask16)(1u << i), nt_v16_max_lanes(max));
    }
    raise_references(st, r0, n, page_max, factor);
    for (int i = 0; i < n; i++) {
        const __m512 ref = _mm512_set1_ps(st->ref[i]);
        __m512 e[VECS];
#pragma GCC unroll 4
        for (int j = 0; j < VECS; j++)
            e[j] =
                j < nv
                    ? nt_v16_exp2_neg(_mm512_fmsub_ps(_mm512_loadu_ps(st->s[i] + 16 * j), _mm512_set1_ps(factor), ref))
                    : _mm512_setzero_ps();
        const __m512 sum = _mm512_add_ps(_mm512_add_ps(e[0], e[1]), _mm512_add_ps(e[2], e[3]));
        float *l = st->l + NT_ATTN_LANES * (r0 + i);
        _mm512_storeu_ps(l, _mm512_fmadd_ps(_mm512_loadu_ps(l), _mm512_set1_ps(st->alpha[i]), sum));
        _mm512_storeu_si512(st->p[i], (__m512i)_mm512_cvtne2ps_pbh(e[1], e[0]));
        _mm512_storeu_si512(st->p[i] + 16, (__m512i)_mm512_cvtne2ps_pbh(e[3], e[2]));
    }
}

static void softmax(struct nt_attn_state *st, int32_t r0, int n, int nv, float factor) {
    switch (nv) {
    case 1:
        softmax_tile(st, r0, n, 1, factor);
        break;
    case 2:
        softmax_tile(st, r0, n, 2, factor);
        break;
    case 3:
        softmax_tile(st, r0, n, 3, factor);
        break;
    default:
        softmax_tile(st, r0, n, 4, factor);
    }
}

static void tile_page(const struct nt_attention_args *a, struct nt_attn_state *st, int32_t r0, int n,
                      const struct nt_attn_span *sp) {
    const int32_t d_pad = nt_d_pad(a->kv->d_head);
    const float factor = a->scale * NT_LOG2E;
    const uint32_t *q[TILE] = {0}, *p[TILE] = {0};
    for (int i = 0; i < n; i++) {
        q[i] = (const uint32_t *)(const void *)st->q[r0 + i];
        p[i] = (const uint32_t *)(const void *)st->p[i];
    }
    const int nv = (sp->hi + 15) / 16;
    product(n, nv, q, sp->k, 2 * NT_KV_PAGE, 0, a->kv->d_head / 2, NULL, st->s[0], NT_KV_PAGE);
    for (int i = 0; i < n; i++) {
        const int32_t pos = st->pos[r0 + i];
        if (!sp->full) mask_scores(st->s[i], nt_attn_first(a, pos) - sp->base, pos + 1 - sp->base);
    }
    softmax(st, r0, n, nv, factor);
    for (int32_t col = 0; col < d_pad; col += 64)
        product(n, d_pad - col < 64 ? (d_pad - col) / 16 : 4, p, sp->v + 2 * col, 2 * d_pad, sp->lo / 2,
                (sp->hi + 1) / 2, st->alpha, st->o + (int64_t)r0 * d_pad + col, d_pad);
}

static bool finish_row(const struct nt_attention_args *a, const struct nt_attn_state *st, int32_t r, nt_bf16 *out) {
    const int32_t d = a->kv->d_head;
    const float *o = st->o + (int64_t)r * nt_d_pad(d);
    const __m512 inverse = _mm512_set1_ps(1.0f / nt_v16_sum_lanes(_mm512_loadu_ps(st->l + NT_ATTN_LANES * r)));
    __mmask16 bad = 0;
    for (int32_t i = 0; i < d; i += 16) {
        /* + 0 makes -0 of an underflow +0, whatever invisible keys were added to it */
        const __m512 x = _mm512_add_ps(_mm512_mul_ps(_mm512_loadu_ps(o + i), inverse), _mm512_setzero_ps());
        bad |= _mm512_cmp_ps_mask(_mm512_sub_ps(x, x), _mm512_setzero_ps(), _CMP_NEQ_UQ);
        nt_v16_store_bf16(out + i, nt_v16_mask(d - i), x);
    }
    return bad == 0;
}

nt_status nt_attention_avx512(struct nt_backend *be, const struct nt_attention_args *args) {
    static const struct nt_attn_body body = {
        .tile = TILE, .max_rows = MAX_ROWS, .page = tile_page, .finish = finish_row};
    if (args->kv->format != NT_KV_PAIRED)
        return nt_attention_portable(be, args); /* a GPU's layout: only the specification */
    nt_attn_run_tiles(be, args, &body);
    return NT_OK;
}
