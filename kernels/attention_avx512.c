/* Attention over the paged cache with vdpbf16ps.
 *
 * A tile of up to TILE rows over a page: scores S = Q K^T, one block of the online softmax, O = alpha O + P V. Both
 * products are those of cpu_dpbf16.h: one chain of vdpbf16ps over ascending pairs for an element, whatever the tile,
 * hence the fixed order that ops.h asks for. The softmax works in base 2 with the reference m = round(scale *
 * log2(e) * max): p = 2^(s * scale * log2(e) - m). */
#include "cpu_attention.h"
#include "cpu_dpbf16.h"
#include <math.h>

enum { TILE = NT_DP_ROWS, VECS = NT_DP_VECS, MAX_ROWS = 48 };
_Static_assert(NT_KV_PAGE == VECS * 16 && NT_ATTN_LANES == 16, "the scores of a page are four registers");
_Static_assert((int)TILE <= (int)NT_ATTN_MAX_TILE, "the state has room for a tile");

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
    const int nv = (sp->hi + 15) / 16;
    struct nt_dp qk = {.b = sp->k, .b_step = 2 * NT_KV_PAGE, .pair1 = a->kv->d_head / 2};
    struct nt_dp pv = {.b_step = 2 * d_pad, .pair0 = sp->lo / 2, .pair1 = (sp->hi + 1) / 2, .alpha = st->alpha};
    for (int i = 0; i < n; i++) {
        qk.a[i] = (const uint32_t *)(const void *)st->q[r0 + i];
        pv.a[i] = (const uint32_t *)(const void *)st->p[i];
    }
    qk.c = st->s[0];
    qk.ldc = NT_KV_PAGE;
    pv.ldc = d_pad;
    nt_dp_product(n, nv, NT_DP_ZERO, 1, &qk);
    for (int i = 0; i < n; i++) {
        const int32_t pos = st->pos[r0 + i];
        if (!sp->full) mask_scores(st->s[i], nt_attn_first(a->window, pos) - sp->base, pos + 1 - sp->base);
    }
    softmax(st, r0, n, nv, factor);
    for (int32_t col = 0; col < d_pad; col += 64) {
        pv.b = sp->v + 2 * col;
        pv.c = st->o + (int64_t)r0 * d_pad + col;
        nt_dp_product(n, d_pad - col < 64 ? (d_pad - col) / 16 : 4, NT_DP_SCALE, 1, &pv);
    }
}

static bool finish_row(const struct nt_attention_args *a, const struct nt_attn_state *st, int32_t r, float *sum,
                       nt_bf16 *out) {
    const int32_t d = a->kv->d_head;
    const float *o = st->o + (int64_t)r * nt_d_pad(d);
    *sum = nt_v16_sum_lanes(_mm512_loadu_ps(st->l + NT_ATTN_LANES * r));
    const __m512 inverse = _mm512_set1_ps(1.0f / *sum);
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
