/* Attention over the paged cache with float multiply-add; the structure is that of attention_avx512.c.
 *
 * C[row][col] += sum over pairs of A[row][pair] . B[pair][col] with up to TILE x 2 accumulators: A as floats and
 * broadcast, B split into the even and odd element of each pair, the even product first. */
#include "cpu_attention.h"
#include "cpu_vec.h"
#include <math.h>

enum { TILE = 4, VECS = 8, MAX_ROWS = 64 };
_Static_assert(NT_KV_PAGE == VECS * 8 && NT_ATTN_LANES == 16, "the scores of a page are eight registers");
_Static_assert((int)TILE <= (int)NT_ATTN_MAX_TILE, "the state has room for a tile");

/* c[n][8 * nv] = (alpha ? alpha[row] * c : 0) + a . b; n and nv are constants after inlining. */
static inline __attribute__((always_inline)) void product_tile(int n, int nv, const float *const a[], const nt_bf16 *b,
                                                               int64_t b_stride, int32_t pair0, int32_t pair1,
                                                               const float *alpha, float *c, int64_t c_stride) {
    const __m256i high = _mm256_set1_epi32((int32_t)0xffff0000u);
    __m256 acc[TILE][2];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++)
            acc[i][j] = alpha ? _mm256_mul_ps(_mm256_loadu_ps(c + i * c_stride + 8 * j), _mm256_set1_ps(alpha[i]))
                              : _mm256_setzero_ps();
    }
    b += pair0 * b_stride;
    for (int32_t pair = pair0; pair < pair1; pair++, b += b_stride) {
        __m256 even[2], odd[2];
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++) {
            const __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)(b + 16 * j));
            even[j] = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
            odd[j] = _mm256_castsi256_ps(_mm256_and_si256(both, high));
        }
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            const __m256 a0 = _mm256_broadcast_ss(a[i] + 2 * pair), a1 = _mm256_broadcast_ss(a[i] + 2 * pair + 1);
#pragma GCC unroll 2
            for (int j = 0; j < nv; j++) acc[i][j] = _mm256_fmadd_ps(a0, even[j], acc[i][j]);
#pragma GCC unroll 2
            for (int j = 0; j < nv; j++) acc[i][j] = _mm256_fmadd_ps(a1, odd[j], acc[i][j]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++) _mm256_storeu_ps(c + i * c_stride + 8 * j, acc[i][j]);
    }
}

static void product(int n, const float *const a[], const nt_bf16 *b, int64_t b_stride, int32_t pair0, int32_t pair1,
                    const float *alpha, float *c, int64_t c_stride) {
    switch (n) {
    case 1:
        product_tile(1, 2, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
        break;
    case 2:
        product_tile(2, 2, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
        break;
    case 3:
        product_tile(3, 2, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
        break;
    default:
        product_tile(4, 2, a, b, b_stride, pair0, pair1, alpha, c, c_stride);
    }
}

/* One block of the online softmax over slots [lo, hi): scores -> probabilities (rounded to bf16), m, l. */
static void softmax_row(struct nt_attn_state *st, int32_t r, int i, int32_t lo, int32_t hi, float factor) {
    float *s = st->s[i], *p = st->p[i], *l = st->l + NT_ATTN_LANES * r;
    __m256 max = _mm256_set1_ps(-INFINITY), sum = _mm256_setzero_ps();
    for (int32_t j = 0; j < lo; j++) s[j] = -INFINITY;
    for (int32_t j = hi; j < NT_KV_PAGE; j++) s[j] = -INFINITY;
    for (int j = 0; j < VECS; j++) max = _mm256_max_ps(max, _mm256_loadu_ps(s + 8 * j));
    const float page_max = nt_v8_max_lanes(max) * factor, m = page_max > st->m[r] ? page_max : st->m[r];
    const float ref = m == -INFINITY ? 0.0f : m; /* all scores -Inf so far: 2^(-Inf - 0), not 2^(-Inf + Inf) */
    const __m256 alpha = nt_v8_exp2_neg(_mm256_set1_ps(st->m[r] - ref));
    for (int j = 0; j < VECS; j++) {
        const __m256 x = _mm256_loadu_ps(s + 8 * j);
        const __m256 e = nt_v8_exp2_neg(_mm256_fmsub_ps(x, _mm256_set1_ps(factor), _mm256_set1_ps(ref)));
        sum = _mm256_add_ps(sum, e);
        const __m256i rounded = _mm256_cvtepu16_epi32(nt_v8_to_bf16(e));
        _mm256_storeu_ps(p + 8 * j, _mm256_castsi256_ps(_mm256_slli_epi32(rounded, 16)));
    }
    _mm256_storeu_ps(l, _mm256_fmadd_ps(_mm256_loadu_ps(l), alpha, sum));
    st->m[r] = m;
    st->alpha[i] = _mm256_cvtss_f32(alpha);
}

/* The strips of tile_page read a part of each row of K or V at a time. Reading one element of each line in the order of
 * memory first lets the hardware fetch ahead (prefetch instructions do not make it: measured 1.4 times slower). */
static void touch_page(const struct nt_attention_args *a, const struct nt_attn_span *sp) {
    const int32_t d_pad = nt_d_pad(a->kv->d_head);
    for (int32_t pair = 0; pair < a->kv->d_head / 2; pair++)
        for (int32_t col = 0; col < sp->hi; col += 16)
            (void)*(const volatile nt_bf16 *)(sp->k + (pair * NT_KV_PAGE + col) * 2);
    for (int32_t pair = sp->lo / 2; pair < (sp->hi + 1) / 2; pair++)
        for (int32_t col = 0; col < d_pad; col += 16)
            (void)*(const volatile nt_bf16 *)(sp->v + (pair * d_pad + col) * 2);
}

static void tile_page(const struct nt_attention_args *a, struct nt_attn_state *st, int32_t r0, int n,
                      const struct nt_attn_span *sp) {
    const int32_t d_pad = nt_d_pad(a->kv->d_head);
    const float *q[TILE] = {0}, *p[TILE] = {0};
    for (int i = 0; i < n; i++) {
        q[i] = st->qf + (int64_t)(r0 + i) * d_pad;
        p[i] = st->p[i];
    }
    if (r0 == 0) touch_page(a, sp);
    for (int32_t col = 0; col < sp->hi; col += 16)
        product(n, q, sp->k + 2 * col, 2 * NT_KV_PAGE, 0, a->kv->d_head / 2, NULL, st->s[0] + col, NT_KV_PAGE);
    for (int i = 0; i < n; i++) {
        const int32_t pos = st->pos[r0 + i], lo = nt_attn_first(a->window, pos) - sp->base, hi = pos + 1 - sp->base;
        softmax_row(st, r0 + i, i, lo < NT_KV_PAGE ? lo : NT_KV_PAGE, hi > 0 ? hi : 0, a->scale * NT_LOG2E);
    }
    for (int32_t col = 0; col < d_pad; col += 16)
        product(n, p, sp->v + 2 * col, 2 * d_pad, sp->lo / 2, (sp->hi + 1) / 2, st->alpha,
                st->o + (int64_t)r0 * d_pad + col, d_pad);
}

static bool finish_row(const struct nt_attention_args *a, const struct nt_attn_state *st, int32_t r, float *sum,
                       nt_bf16 *out) {
    const int32_t d = a->kv->d_head;
    const float *o = st->o + (int64_t)r * nt_d_pad(d);
    *sum = nt_v8_sum_lanes(_mm256_loadu_ps(st->l + NT_ATTN_LANES * r));
    const __m256 inverse = _mm256_set1_ps(1.0f / *sum);
    __m256 bad = _mm256_setzero_ps();
    for (int32_t i = 0; i < d; i += 8) {
        /* + 0 makes -0 of an underflow +0, whatever invisible keys were added to it */
        const __m256 x = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(o + i), inverse), _mm256_setzero_ps());
        bad = _mm256_or_ps(bad, _mm256_cmp_ps(_mm256_sub_ps(x, x), _mm256_setzero_ps(), _CMP_NEQ_UQ));
        nt_v8_store_bf16(out + i, d - i, x);
    }
    return _mm256_movemask_ps(bad) == 0;
}

nt_status nt_attention_avx2(struct nt_backend *be, const struct nt_attention_args *args) {
    static const struct nt_attn_body body = {
        .tile = TILE, .max_rows = MAX_ROWS, .q_floats = true, .page = tile_page, .finish = finish_row};
    if (args->kv->format != NT_KV_PAIRED)
        return nt_attention_portable(be, args); /* a GPU's layout: only the specification */
    nt_attn_run_tiles(be, args, &body);
    return NT_OK;
}
