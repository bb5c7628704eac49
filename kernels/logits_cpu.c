/* The specification of the ops on logit rows, in portable C. */
#include "cpu_logits.h"
#include "cpu_bodies.h"
#include "cpu_math.h"
#include "rng.h"
#include <math.h>

void nt_logit_stats_row(const struct nt_logit_stats_args *a, int64_t r) {
    const float *x = a->logits + r * a->ld;
    float max = x[0], lane[64] = {0};
    int32_t best = 0;
    for (int32_t v = 1; v < a->n_vocab; v++) {
        if (!nt_logit_above(x[v], max)) continue;
        max = x[v];
        best = v;
    }
    a->max[r] = max;
    if (a->argmax) a->argmax[r] = best;
    if (!a->sum_exp) return;
    for (int32_t v = 0; v < a->n_vocab; v++) lane[v % 64] += nt_exp2_neg((x[v] - max) * NT_LOG2E);
    for (int32_t width = 32; width; width /= 2)
        for (int32_t i = 0; i < width; i++) lane[i] += lane[i + width];
    a->sum_exp[r] = lane[0];
}

static void stats_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_stats_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) nt_logit_stats_row(a, r);
}

nt_status nt_logit_stats_portable(struct nt_backend *be, const struct nt_logit_stats_args *args) {
    struct nt_logit_stats_args a = *args;
    nt_pool_run(be->pool, stats_thread, &a);
    return NT_OK;
}

/* Moves element i down until no child is worse than it. */
static void sift(float *value, int32_t *index, int32_t k, int32_t i) {
    const float v = value[i];
    const int32_t id = index[i];
    for (int32_t child; (child = 2 * i + 1) < k; i = child) {
        if (child + 1 < k && nt_logit_better(value[child], index[child], value[child + 1], index[child + 1])) child++;
        if (!nt_logit_better(v, id, value[child], index[child])) break;
        value[i] = value[child];
        index[i] = index[child];
    }
    value[i] = v;
    index[i] = id;
}

void nt_topk_heapify(float *value, int32_t *index, int32_t k) {
    for (int32_t i = k / 2 - 1; i >= 0; i--) sift(value, index, k, i);
}

void nt_topk_replace_worst(float *value, int32_t *index, int32_t k, float v, int32_t i) {
    value[0] = v;
    index[0] = i;
    sift(value, index, k, 0);
}

void nt_topk_sort(float *value, int32_t *index, int32_t k) {
    for (int32_t n = k - 1; n > 0; n--) {
        const float v = value[n];
        const int32_t i = index[n];
        value[n] = value[0];
        index[n] = index[0];
        nt_topk_replace_worst(value, index, n, v, i);
    }
}

static void topk_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_topk_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const float *x = a->logits + r * a->ld;
        float *value = a->value + r * a->k;
        int32_t *index = a->index + r * a->k;
        for (int32_t v = 0; v < a->k; v++) {
            value[v] = x[v];
            index[v] = v;
        }
        nt_topk_heapify(value, index, a->k);
        for (int32_t v = a->k; v < a->n_vocab; v++)
            if (nt_logit_above(x[v], value[0])) nt_topk_replace_worst(value, index, a->k, x[v], v);
        nt_topk_sort(value, index, a->k);
    }
}

nt_status nt_logit_topk_portable(struct nt_backend *be, const struct nt_logit_topk_args *args) {
    NT_CHECK(args->k >= 1 && args->k <= args->n_vocab);
    struct nt_logit_topk_args a = *args;
    nt_pool_run(be->pool, topk_thread, &a);
    return NT_OK;
}

void nt_logit_gumbel_row(const struct nt_logit_gumbel_args *a, int64_t r) {
    const float *x = a->logits + r * a->ld;
    float best = 0;
    int32_t at = -1;
    uint32_t word[4];
    for (int32_t v = 0; v < a->n_vocab; v++) {
        const int64_t id = (int64_t)a->first + v;
        if (v == 0 || (id & 3) == 0) nt_philox(a->seed[r], a->stream[r], (uint64_t)(id >> 2), word);
        const float sum = x[v] * a->inv_temp[r] - nt_log_pos(-nt_log_pos(nt_unit_float(word[id & 3])));
        if (at >= 0 && !nt_logit_above(sum, best)) continue;
        best = sum;
        at = v;
    }
    a->value[r] = best;
    a->index[r] = at;
}

static void gumbel_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_gumbel_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++)
        if (a->inv_temp[r] != 0.0f) nt_logit_gumbel_row(a, r);
}

nt_status nt_logit_gumbel_portable(struct nt_backend *be, const struct nt_logit_gumbel_args *args) {
    struct nt_logit_gumbel_args a = *args;
    nt_pool_run(be->pool, gumbel_thread, &a);
    return NT_OK;
}

static void edit_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_edit_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int32_t i = 0; i < a->n_edit; i++) {
        const struct nt_logit_edit *e = &a->edits[i];
        if (e->row < begin || e->row >= end || e->id < 0 || e->id >= a->n_vocab) continue;
        float *x = a->logits + e->row * a->ld + e->id;
        const float v = *x + e->bias;
        *x = (v > 0 ? v / e->divide : v * e->divide) - e->minus;
    }
    for (int64_t r = begin; a->scale && r < end; r++) {
        float *x = a->logits + r * a->ld;
        for (int32_t v = 0; a->scale[r] != 1.0f && v < a->n_vocab; v++) x[v] *= a->scale[r];
    }
}

nt_status nt_logit_edit_portable(struct nt_backend *be, const struct nt_logit_edit_args *args) {
    struct nt_logit_edit_args a = *args;
    nt_pool_run(be->pool, edit_thread, &a);
    return NT_OK;
}

static void penalize(const struct nt_logit_penalty_args *a, int64_t r, int32_t id, int32_t count) {
    if (id < a->first || id - a->first >= a->n_vocab) return;
    float *x = a->logits + r * a->ld + (id - a->first);
    const float minus = count > 0 ? a->presence[r] + a->frequency[r] * (float)count : 0;
    *x = (*x > 0 ? *x / a->repetition[r] : *x * a->repetition[r]) - minus;
}

static void penalty_thread(void *arg, int thread, int n_threads) {
    const struct nt_logit_penalty_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int32_t last = a->last && a->last_row[r] >= 0 ? a->last[a->last_row[r]] : -1;
        bool known = last < 0;
        for (int32_t i = a->begin[r]; i < a->begin[r + 1]; i++) {
            known |= a->seen[i].id == last;
            penalize(a, r, a->seen[i].id, a->seen[i].count + (a->seen[i].id == last));
        }
        if (!known) penalize(a, r, last, 1);
    }
}

nt_status nt_logit_penalty_portable(struct nt_backend *be, const struct nt_logit_penalty_args *args) {
    struct nt_logit_penalty_args a = *args;
    nt_pool_run(be->pool, penalty_thread, &a);
    return NT_OK;
}

nt_status nt_logit_pick_portable(struct nt_backend *be, const struct nt_logit_pick_args *args) {
    (void)be;
    for (int64_t r = 0; r < args->n_row; r++) {
        const int32_t v = args->id[r] - args->first;
        args->value[r] = v >= 0 && v < args->n_vocab ? args->logits[r * args->ld + v] : -INFINITY;
    }
    return NT_OK;
}
