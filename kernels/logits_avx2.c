/* The ops on logit rows, 8 (Gumbel: 32) logits at a time. */
#include "cpu_logits.h"
#include "cpu_philox.h"
#include "cpu_rows.h"
#include "cpu_topk.h"
#include "cpu_vec.h"

enum { BLOCK = 1024 };

static inline __m256 load_or_lowest(const float *x, int32_t left) {
    if (left >= 8) return _mm256_loadu_ps(x);
    const __m256i mask = nt_v8_mask(left);
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_maskload_ps(x, mask), _mm256_castsi256_ps(mask));
}

/* Maximum of a block of up to BLOCK logits; *nan collects whether one is NaN. */
static float block_max(const float *x, int32_t n, __m256 *nan) {
    __m256 max[4];
    for (int j = 0; j < 4; j++) max[j] = _mm256_set1_ps(-INFINITY);
    for (int32_t i = 0; i < n; i += 32) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const __m256 v = load_or_lowest(x + i + 8 * j, n - i - 8 * j);
            *nan = _mm256_or_ps(*nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
            max[j] = _mm256_max_ps(max[j], v);
        }
    }
    return nt_v8_max_lanes(_mm256_max_ps(_mm256_max_ps(max[0], max[1]), _mm256_max_ps(max[2], max[3])));
}

/* 64 lanes of partial sums, logit v in lane v % 64, then one tree: as in the portable body. */
static float sum_exp(const float *x, int32_t n, float max) {
    __m256 sum[8];
    const __m256 m = _mm256_set1_ps(max);
    for (int j = 0; j < 8; j++) sum[j] = _mm256_setzero_ps();
    for (int32_t i = 0; i < n; i += 64) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const __m256 d = _mm256_sub_ps(load_or_lowest(x + i + 8 * j, n - i - 8 * j), m);
            sum[j] = _mm256_add_ps(sum[j], nt_v8_exp2_neg(_mm256_mul_ps(d, _mm256_set1_ps(NT_LOG2E))));
        }
    }
    for (int width = 4; width; width /= 2)
        for (int j = 0; j < width; j++) sum[j] = _mm256_add_ps(sum[j], sum[j + width]);
    return nt_v8_sum_lanes(sum[0]);
}

static void stats_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_stats_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = a->logits + r * a->ld;
        float max = -INFINITY;
        int32_t at = 0;
        __m256 nan = _mm256_setzero_ps();
        for (int32_t i = 0; i < a->n_vocab; i += BLOCK) {
            const float m = block_max(x + i, a->n_vocab - i < BLOCK ? a->n_vocab - i : BLOCK, &nan);
            if (!(m > max)) continue;
            max = m;
            at = i;
        }
        if (_mm256_movemask_ps(nan) || max == -INFINITY || max == INFINITY) {
            nt_logit_stats_row(a, r);
            continue;
        }
        while (x[at] != max) at++;
        a->max[r] = x[at];
        if (a->argmax) a->argmax[r] = at;
        if (a->sum_exp) a->sum_exp[r] = sum_exp(x, a->n_vocab, max);
    }
}

nt_status nt_logit_stats_avx2(struct nt_backend *be, const struct nt_logit_stats_args *args) {
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
    for (int32_t v = k; v < n; v += 8) {
        const __m256 here = load_or_lowest(x + v, n - v);
        uint32_t hit = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(here, _mm256_set1_ps(value[0]), _CMP_NLE_UQ));
        for (; hit; hit &= hit - 1) {
            const int32_t at = v + __builtin_ctz(hit);
            if (at < n && nt_logit_above(x[at], value[0])) nt_topk_replace_worst(value, index, k, x[at], at);
        }
    }
    nt_topk_sort(value, index, k);
}

/* Maxima of the row's groups; -1: a NaN, or too many. */
static int32_t group_maxima(const float *x, int32_t n, float *maxima) {
    int32_t count = 0;
    __m256 nan = _mm256_setzero_ps();
    if (n > NT_TOPK_MAXIMA / 16 * NT_TOPK_BLOCK) return -1;
    for (int32_t v = 0; v < n; v += NT_TOPK_BLOCK, count += 16) {
        __m256 max[2] = {_mm256_set1_ps(-INFINITY), _mm256_set1_ps(-INFINITY)};
        for (int32_t i = v; i < v + NT_TOPK_BLOCK; i += 8) {
            const __m256 here = load_or_lowest(x + i, n - i);
            nan = _mm256_or_ps(nan, _mm256_cmp_ps(here, here, _CMP_UNORD_Q));
            max[i / 8 % 2] = _mm256_max_ps(max[i / 8 % 2], here);
        }
        _mm256_storeu_ps(maxima + count, max[0]);
        _mm256_storeu_ps(maxima + count + 8, max[1]);
    }
    return _mm256_movemask_ps(nan) ? -1 : count;
}

/* Logits at or above the threshold; -1: too many. */
static int32_t collect(const float *x, int32_t n, float threshold, struct nt_topk_scratch *s) {
    int32_t count = 0;
    for (int32_t v = 0; v < n; v += 8) {
        const __m256 here = load_or_lowest(x + v, n - v);
        uint32_t hit = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(here, _mm256_set1_ps(threshold), _CMP_GE_OQ));
        if (count > NT_TOPK_CAND - 8) return -1;
        for (; hit; hit &= hit - 1) {
            const int32_t at = v + __builtin_ctz(hit);
            if (at >= n) break;
            s->key[count] = nt_topk_key(x[at]);
            s->index[count++] = at;
        }
    }
    return count;
}

static const struct nt_topk_body topk_body = {topk_heap, group_maxima, collect};

nt_status nt_logit_topk_avx2(struct nt_backend *be, const struct nt_logit_topk_args *args) {
    NT_CHECK(args->k >= 1 && args->k <= args->n_vocab);
    struct nt_topk_run run = {args, be, &topk_body};
    nt_rows_run(be, nt_topk_thread, &run, args->n_row, args->n_vocab);
    return NT_OK;
}

/* log(-log(u)) of a random word, operation for operation as in the portable body. */
static inline __m256 log_neg_log(__m256i word) {
    return nt_v8_log_pos(_mm256_xor_ps(nt_v8_log_pos(nt_v8_unit(word)), _mm256_set1_ps(-0.0f)));
}

/* Sums of the 8 logits from v with their noise; lanes outside [0, n_vocab) are -Inf. */
static inline __m256 noisy(const float *x, int32_t v, int32_t n_vocab, __m256 inv_temp, __m256i word) {
    const __m256i lane = _mm256_add_epi32(_mm256_set1_epi32(v), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    const __m256i inside = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_setzero_si256(), lane),
                                               _mm256_cmpgt_epi32(_mm256_set1_epi32(n_vocab), lane));
    const bool whole = v >= 0 && v + 8 <= n_vocab;
    const __m256 logit = whole ? _mm256_loadu_ps(x + v) : _mm256_maskload_ps(x + v, inside);
    const __m256 sum = _mm256_sub_ps(_mm256_mul_ps(logit, inv_temp), log_neg_log(word));
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), sum, _mm256_castsi256_ps(inside));
}

/* False: the row has a NaN, or nothing above -Inf. */
static bool gumbel_row(const struct nt_logit_gumbel_args *a, int64_t r) {
    const float *x = a->logits + r * a->ld;
    const __m256 inv_temp = _mm256_set1_ps(a->inv_temp[r]);
    __m256 best[4], nan = _mm256_setzero_ps();
    __m256i at[4]; /* v of the vector's lane 0 */
    for (int j = 0; j < 4; j++) {
        best[j] = _mm256_set1_ps(-INFINITY);
        at[j] = _mm256_set1_epi32(INT32_MAX - 8);
    }
    for (int32_t v0 = -(a->first & 3); v0 < a->n_vocab; v0 += 32) {
        __m256i word[4];
        nt_v8_philox(a->seed[r], a->stream[r], (uint32_t)((a->first + v0) >> 2), word);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const __m256 sum = noisy(x, v0 + 8 * j, a->n_vocab, inv_temp, word[j]);
            const __m256 above = _mm256_cmp_ps(sum, best[j], _CMP_GT_OQ);
            nan = _mm256_or_ps(nan, _mm256_cmp_ps(sum, sum, _CMP_UNORD_Q));
            best[j] = _mm256_blendv_ps(best[j], sum, above);
            at[j] = _mm256_blendv_epi8(at[j], _mm256_set1_epi32(v0 + 8 * j), _mm256_castps_si256(above));
        }
    }
    float value[32], top = -INFINITY;
    int32_t from[32], index = INT32_MAX;
    for (int j = 0; j < 4; j++) {
        _mm256_storeu_ps(value + 8 * j, best[j]);
        _mm256_storeu_si256((__m256i *)(from + 8 * j), at[j]);
    }
    for (int i = 0; i < 32; i++) {
        if (value[i] < top || (value[i] == top && from[i] + i % 8 > index)) continue;
        top = value[i];
        index = from[i] + i % 8;
    }
    a->value[r] = top;
    a->index[r] = index;
    return !_mm256_movemask_ps(nan) && top > -INFINITY;
}

static void gumbel_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_gumbel_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++)
        if (a->inv_temp[r] != 0.0f && !gumbel_row(a, r)) nt_logit_gumbel_row(a, r);
}

nt_status nt_logit_gumbel_avx2(struct nt_backend *be, const struct nt_logit_gumbel_args *args) {
    struct nt_logit_gumbel_args a = *args;
    nt_rows_run(be, gumbel_thread, &a, args->n_row, args->n_vocab);
    return NT_OK;
}
