/* The ops on logit rows, 16 (Gumbel: 64) logits at a time. */
#include "cpu_logits.h"
#include "cpu_philox.h"
#include "cpu_rows.h"
#include "cpu_topk.h"
#include "cpu_vec.h"
#include "rng.h"

enum { BLOCK = 1024 };

static inline __m512 load_or_lowest(const float *x, int32_t left) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), nt_v16_mask(left), x);
}

/* Maximum of a block of up to BLOCK logits; *nan collects whether one is NaN. */
static float block_max(const float *x, int32_t n, __mmask16 *nan) {
    __m512 max[4];
    for (int j = 0; j < 4; j++) max[j] = _mm512_set1_ps(-INFINITY);
    for (int32_t i = 0; i < n; i += 64) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const __m512 v = load_or_lowest(x + i + 16 * j, n - i - 16 * j);
            *nan |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
            max[j] = _mm512_max_ps(max[j], v);
        }
    }
    const __m512 all = _mm512_max_ps(_mm512_max_ps(max[0], max[1]), _mm512_max_ps(max[2], max[3]));
    return _mm512_cvtss_f32(nt_v16_max_lanes(all));
}

static int32_t first_equal(const float *x, int32_t n, float value) {
    for (int32_t i = 0; i < n; i += 16) {
        const __mmask16 inside = nt_v16_mask(n - i);
        const __m512 v = _mm512_maskz_loadu_ps(inside, x + i);
        const __mmask16 hit = _mm512_mask_cmp_ps_mask(inside, v, _mm512_set1_ps(value), _CMP_EQ_OQ);
        if (hit) return i + __builtin_ctz(hit);
    }
    return 0;
}

/* 64 lanes of partial sums, logit v in lane v % 64, then one tree: as in the portable body. */
static float sum_exp(const float *x, int32_t n, float max) {
    __m512 sum[4];
    const __m512 m = _mm512_set1_ps(max);
    for (int j = 0; j < 4; j++) sum[j] = _mm512_setzero_ps();
    for (int32_t i = 0; i < n; i += 64) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const __m512 d = _mm512_sub_ps(load_or_lowest(x + i + 16 * j, n - i - 16 * j), m);
            sum[j] = _mm512_add_ps(sum[j], nt_v16_exp2_neg(_mm512_mul_ps(d, _mm512_set1_ps(NT_LOG2E))));
        }
    }
    return nt_v16_sum_lanes(_mm512_add_ps(_mm512_add_ps(sum[0], sum[2]), _mm512_add_ps(sum[1], sum[3])));
}

/* Index of the largest logit, the first among equals; -1: a NaN, or the largest is not finite. */
static int32_t argmax(const float *x, int32_t n) {
    float max = -INFINITY;
    int32_t at = 0;
    __mmask16 nan = 0;
    for (int32_t i = 0; i < n; i += BLOCK) {
        const float m = block_max(x + i, n - i < BLOCK ? n - i : BLOCK, &nan);
        if (!(m > max)) continue;
        max = m;
        at = i;
    }
    return nan || isinf(max) ? -1 : at + first_equal(x + at, n - at, max);
}

static void stats_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_stats_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = a->logits + r * a->ld;
        const int32_t at = argmax(x, a->n_vocab);
        if (at < 0) {
            nt_logit_stats_row(a, r);
            continue;
        }
        a->max[r] = x[at];
        if (a->argmax) a->argmax[r] = at;
        if (a->sum_exp) a->sum_exp[r] = sum_exp(x, a->n_vocab, x[at]);
    }
}

nt_status nt_logit_stats_avx512(struct nt_backend *be, const struct nt_logit_stats_args *args) {
    struct nt_logit_stats_args a = *args;
    nt_rows_run(be, stats_thread, &a, args->n_row, args->n_vocab);
    return NT_OK;
}

/* Everything not at or below the worst kept logit is offered to the heap; a NaN is never "at or below". */
static void topk_heap(const float *x, int32_t n, float *value, int32_t *index, int32_t k) {
    for (int32_t v = 0; v < k; v++) {
        value[v] = x[v];
        index[v] = v;
    }
    nt_topk_heapify(value, index, k);
    for (int32_t v = k; v < n; v += 16) {
        const __mmask16 inside = nt_v16_mask(n - v);
        const __m512 here = _mm512_maskz_loadu_ps(inside, x + v);
        uint32_t hit = _mm512_mask_cmp_ps_mask(inside, here, _mm512_set1_ps(value[0]), _CMP_NLE_UQ);
        for (; hit; hit &= hit - 1) {
            const int32_t at = v + __builtin_ctz(hit);
            if (nt_logit_above(x[at], value[0])) nt_topk_replace_worst(value, index, k, x[at], at);
        }
    }
    nt_topk_sort(value, index, k);
}

/* Maxima of the row's groups; -1: a NaN, or too many. */
static int32_t group_maxima(const float *x, int32_t n, float *maxima) {
    int32_t count = 0;
    __mmask16 nan = 0;
    if (n > NT_TOPK_MAXIMA / 16 * NT_TOPK_BLOCK) return -1;
    for (int32_t v = 0; v < n; v += NT_TOPK_BLOCK, count += 16) {
        __m512 max = _mm512_set1_ps(-INFINITY);
        for (int32_t i = v; i < v + NT_TOPK_BLOCK; i += 16) {
            const __m512 here = load_or_lowest(x + i, n - i);
            nan |= _mm512_cmp_ps_mask(here, here, _CMP_UNORD_Q);
            max = _mm512_max_ps(max, here);
        }
        _mm512_storeu_ps(maxima + count, max);
    }
    return nan ? -1 : count;
}

/* Logits at or above the threshold; -1: too many. */
static int32_t collect(const float *x, int32_t n, float threshold, struct nt_topk_scratch *s) {
    int32_t count = 0;
    for (int32_t v = 0; v < n; v += 16) {
        const __mmask16 inside = nt_v16_mask(n - v);
        const __m512 here = _mm512_maskz_loadu_ps(inside, x + v);
        uint32_t hit = _mm512_mask_cmp_ps_mask(inside, here, _mm512_set1_ps(threshold), _CMP_GE_OQ);
        if (count > NT_TOPK_CAND - 16) return -1;
        for (; hit; hit &= hit - 1) {
            const int32_t at = v + __builtin_ctz(hit);
            s->key[count] = nt_topk_key(x[at]);
            s->index[count++] = at;
        }
    }
    return count;
}

static const struct nt_topk_body topk_body = {topk_heap, group_maxima, collect};

nt_status nt_logit_topk_avx512(struct nt_backend *be, const struct nt_logit_topk_args *args) {
    NT_CHECK(args->k >= 1 && args->k <= args->n_vocab);
    struct nt_topk_run run = {args, be, &topk_body};
    nt_rows_run(be, nt_topk_thread, &run, args->n_row, args->n_vocab);
    return NT_OK;
}

/* log(-log(u)) of a random word, operation for operation as in the portable body. */
static inline __m512 log_neg_log(__m512i word) {
    const __m512 sign = _mm512_set1_ps(-0.0f);
    return nt_v16_log_pos(_mm512_xor_ps(nt_v16_log_pos(nt_v16_unit(word)), sign));
}

/* The draw so far: lane i of best[j] is the largest sum of its lane, at a vector that begins at at[j]. */
struct draw {
    const float *x;
    int32_t n_vocab;
    __m512 inv_temp, best[4];
    __m512i at[4];
    float floor; /* a sum that some logit reaches */
};

static inline __mmask16 inside_of(const struct draw *d, int32_t v) {
    return (__mmask16)(nt_v16_mask(d->n_vocab - v) & ~nt_v16_mask(-v));
}
static inline __m512 scaled_at(const struct draw *d, int32_t v) {
    return _mm512_mul_ps(_mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), inside_of(d, v), d->x + v), d->inv_temp);
}

/* Whether any of the 64 logits from v0 could reach the floor with noise of at most `noise`; the margin is far above the
 * rounding errors. */
static inline bool may_win(const struct draw *d, int32_t v0, float noise) {
    const __m512 least = _mm512_set1_ps(d->floor - noise - 0.01f - 1e-6f * fabsf(d->floor));
    __mmask16 any = 0;
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) any |= _mm512_cmp_ps_mask(scaled_at(d, v0 + 16 * j), least, _CMP_NLT_UQ);
    return any != 0;
}

/* -log(-log u) <= -log(1 - u), and 1 - u = (rest + 1/2) / 2^23 for a word whose upper 23 bits are 2^23 - 1 - rest. */
static inline float noise_bound(uint32_t word) {
    const uint32_t rest = 0x7fffffu - (word >> 9);
    return 0.6931472f * (rest ? 23.0f - (float)(31 - __builtin_clz(rest)) : 24.0f);
}

static inline void draw_block(struct draw *d, int32_t v0, const __m512i word[4]) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const int32_t v = v0 + 16 * j;
        const __m512 sum = _mm512_sub_ps(scaled_at(d, v), log_neg_log(word[j]));
        const __mmask16 above = _mm512_mask_cmp_ps_mask(inside_of(d, v), sum, d->best[j], _CMP_GT_OQ);
        d->best[j] = _mm512_mask_mov_ps(d->best[j], above, sum);
        d->at[j] = _mm512_mask_mov_epi32(d->at[j], above, _mm512_set1_epi32(v));
    }
    const __m512 all = _mm512_max_ps(_mm512_max_ps(d->best[0], d->best[1]), _mm512_max_ps(d->best[2], d->best[3]));
    d->floor = fmaxf(d->floor, _mm512_cvtss_f32(nt_v16_max_lanes(all)));
}

/* The largest sum, the lowest index among equals. */
static void draw_result(const struct draw *d, float *top, int32_t *index) {
    float value[64];
    int32_t from[64];
    for (int j = 0; j < 4; j++) {
        _mm512_storeu_ps(value + 16 * j, d->best[j]);
        _mm512_storeu_si512(from + 16 * j, d->at[j]);
    }
    *top = -INFINITY;
    *index = INT32_MAX;
    for (int i = 0; i < 64; i++) {
        if (value[i] < *top || (value[i] == *top && from[i] + i % 16 > *index)) continue;
        *top = value[i];
        *index = from[i] + i % 16;
    }
}

/* False: a NaN, or nothing finite. Starts from the sum of the largest logit and leaves out, exactly, the noise of
 * blocks that cannot reach it: before their random words are made, or at least before the logarithms. */
static bool gumbel_row(const struct nt_logit_gumbel_args *a, int64_t r) {
    struct draw d = {.x = a->logits + r * a->ld, .n_vocab = a->n_vocab, .inv_temp = _mm512_set1_ps(a->inv_temp[r])};
    const int32_t likely = argmax(d.x, a->n_vocab);
    uint32_t first_word[4];
    if (likely < 0) return false;
    nt_philox(a->seed[r], a->stream[r], (uint64_t)((a->first + likely) >> 2), first_word);
    const float u = nt_unit_float(first_word[(a->first + likely) & 3]);
    d.floor = d.x[likely] * a->inv_temp[r] - nt_log_pos(-nt_log_pos(u));
    for (int j = 0; j < 4; j++) {
        d.best[j] = _mm512_set1_ps(-INFINITY);
        d.at[j] = _mm512_set1_epi32(INT32_MAX - 16);
    }
    for (int32_t v0 = -(a->first & 3); v0 < a->n_vocab; v0 += 64) {
        __m512i word[4];
        if (!may_win(&d, v0, noise_bound(UINT32_MAX))) continue;
        nt_v16_philox(a->seed[r], a->stream[r], (uint32_t)((a->first + v0) >> 2), word);
        const __m512i most = _mm512_max_epu32(_mm512_max_epu32(word[0], word[1]), _mm512_max_epu32(word[2], word[3]));
        if (may_win(&d, v0, noise_bound(_mm512_reduce_max_epu32(most)))) draw_block(&d, v0, word);
    }
    draw_result(&d, &a->value[r], &a->index[r]);
    return a->value[r] > -INFINITY;
}

static void gumbel_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_gumbel_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++)
        if (a->inv_temp[r] != 0.0f && !gumbel_row(a, r)) nt_logit_gumbel_row(a, r);
}

nt_status nt_logit_gumbel_avx512(struct nt_backend *be, const struct nt_logit_gumbel_args *args) {
    struct nt_logit_gumbel_args a = *args;
    nt_rows_run(be, gumbel_thread, &a, args->n_row, args->n_vocab);
    return NT_OK;
}
