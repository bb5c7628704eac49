#include "sampler.h"

#include "cpu_math.h"
#include "rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void nt_sampler_layout(struct nt_sampler *s, struct nt_arena *a, const struct nt_model *m, struct nt_backend *be,
                       struct nt_comm *tp, int32_t n_vocab, int32_t max_rows) {
    const int32_t model_vocab = nt_model_spec(m)->n_vocab, count = nt_model_vocab_count(m);
    const size_t rows = (size_t)max_rows, pairs = rows * NT_SAMPLER_K;
    *s = (struct nt_sampler){
        .be = be, .tp = tp, .ld = nt_model_logit_ld(m), .max_rows = max_rows, .first = nt_model_vocab_first(m)};
    s->n_vocab = n_vocab < model_vocab ? n_vocab : model_vocab;
    s->n_model_vocab = model_vocab;
    const int32_t left = s->n_vocab - s->first;
    s->n_local = left < 0 ? 0 : left < count ? left : count;
    s->n_head_rows = count;
    s->raw = NT_TAKE(a, float, rows *(size_t)s->ld);
    s->max = NT_TAKE(a, float, rows);
    s->sum = NT_TAKE(a, float, rows);
    s->inv_temp = NT_TAKE(a, float, rows);
    s->value = NT_TAKE(a, float, rows);
    s->argmax = NT_TAKE(a, int32_t, rows);
    s->seed = NT_TAKE(a, uint64_t, rows);
    s->stream = NT_TAKE(a, uint64_t, rows);
    s->mine = NT_TAKE(a, struct nt_pair, pairs);
    s->all = NT_TAKE(a, struct nt_pair, pairs * (size_t)nt_comm_size(tp));
    s->merged = NT_TAKE(a, struct nt_pair, pairs);
    s->cand_value = NT_TAKE(a, float, pairs);
    s->cand_index = NT_TAKE(a, int32_t, pairs);
}

/* ---- pieces that look at the whole vocabulary ---- */

static bool better(struct nt_pair a, struct nt_pair b) {
    return a.value > b.value || (a.value == b.value && a.id < b.id);
}

/* One row of all shards' statistics: `part` has a shard's (max, id) and its sum, `stride` pairs from shard to shard. A
 * value that is not finite anywhere makes the sum NaN. */
static void combine(struct nt_sampler *s, const struct nt_pair *part, int64_t stride, int32_t r) {
    const int32_t size = nt_comm_size(s->tp);
    struct nt_pair best = part[0];
    bool finite = true;
    for (int32_t k = 0; k < size; k++) {
        finite &= part[k * stride].value < INFINITY && isfinite(part[k * stride + 1].value);
        if (better(part[k * stride], best)) best = part[k * stride];
    }
    float sum = 0;
    for (int32_t k = 0; k < size; k++)
        if (part[k * stride + 1].value > 0)
            sum += part[k * stride + 1].value * expf(part[k * stride].value - best.value);
    s->max[r] = best.value;
    s->argmax[r] = best.id;
    s->sum[r] = finite && best.value > -INFINITY ? sum : NAN;
}

/* Maximum, its id and sum of exponentials of every row over the first n_local columns of all shards. */
static nt_status global_stats(struct nt_sampler *s, const float *logits, int32_t n, int32_t n_local) {
    if (n_local > 0) {
        const struct nt_logit_stats_args args = {.logits = logits,
                                                 .ld = s->ld,
                                                 .max = s->max,
                                                 .sum_exp = s->sum,
                                                 .argmax = s->argmax,
                                                 .n_row = n,
                                                 .n_vocab = n_local};
        NT_TRY(s->be->ops.logit_stats(s->be, &args));
    }
    for (int32_t r = 0; r < n; r++) {
        const bool none = n_local == 0 || s->max[r] == -INFINITY; /* the sum of nothing is nothing */
        s->mine[2 * r] =
            none ? (struct nt_pair){-INFINITY, INT32_MAX} : (struct nt_pair){s->max[r], s->first + s->argmax[r]};
        s->mine[2 * r + 1] = (struct nt_pair){none ? 0 : s->sum[r], 0};
    }
    NT_TRY(nt_comm_allgather(s->tp, s->mine, s->all, (size_t)(2 * n) * sizeof *s->mine));
    for (int32_t r = 0; r < n; r++) combine(s, s->all + 2 * r, 2 * (int64_t)n, r);
    return NT_OK;
}

/* Best of k sorted lists of `k` pairs each, in `out`; lists of row r of n. */
static void merge_lists(const struct nt_pair *all, int32_t size, int32_t n, int32_t r, int32_t k, struct nt_pair *out) {
    int32_t head[1024] = {0};
    NT_CHECK(size <= 1024);
    for (int32_t i = 0; i < k; i++) {
        int32_t from = -1;
        for (int32_t p = 0; p < size; p++) {
            if (head[p] >= k) continue;
            const struct nt_pair *list = all + ((int64_t)p * n + r) * k;
            if (from < 0 || better(list[head[p]], all[((int64_t)from * n + r) * k + head[from]])) from = p;
        }
        out[i] = all[((int64_t)from * n + r) * k + head[from]++];
    }
}

/* The k best of rows over all shards into s->merged [n, k]; shards shorter than k are padded with -inf. n * k <=
 * max_rows * NT_SAMPLER_K. */
static nt_status global_topk(struct nt_sampler *s, const float *logits, int32_t n, int32_t k) {
    const int32_t have = k < s->n_local ? k : s->n_local;
    if (have > 0) {
        const struct nt_logit_topk_args args = {.logits = logits,
                                                .ld = s->ld,
                                                .value = s->cand_value,
                                                .index = s->cand_index,
                                                .n_row = n,
                                                .n_vocab = s->n_local,
                                                .k = have};
        NT_TRY(s->be->ops.logit_topk(s->be, &args));
    }
    for (int32_t r = 0; r < n; r++)
        for (int32_t i = 0; i < k; i++)
            s->mine[(int64_t)r * k + i] = i < have ? (struct nt_pair){s->cand_value[(int64_t)r * have + i],
                                                                      s->first + s->cand_index[(int64_t)r * have + i]}
                                                   : (struct nt_pair){-INFINITY, INT32_MAX};
    NT_TRY(nt_comm_allgather(s->tp, s->mine, s->all, (size_t)n * (size_t)k * sizeof *s->mine));
    for (int32_t r = 0; r < n; r++) merge_lists(s->all, nt_comm_size(s->tp), n, r, k, s->merged + (int64_t)r * k);
    return NT_OK;
}

/* ---- one row's rules ---- */

static bool is_sampled(const struct nt_sampling *p) {
    return p->temperature > 0;
}
static bool is_truncated(const struct nt_sampling *p, int32_t n_vocab) {
    return is_sampled(p) && ((p->top_k > 0 && p->top_k < n_vocab) || p->top_p < 1 || p->min_p > 0);
}
static bool wants_logprobs(const struct nt_sampling *p) {
    return p->top_logprobs >= 0;
}

/* Bias, penalties, masks and temperature, in place on this shard. True when the row was changed. */
static bool shape_row(const struct nt_sampler *s, const struct nt_sample_in *in, float *row) {
    const struct nt_sampling *p = in->params;
    const bool scaled = is_sampled(p) && p->temperature != 1.0f;
    for (int32_t i = 0; i < p->n_bias; i++) {
        const int32_t v = p->bias[i].id - s->first;
        if (v >= 0 && v < s->n_local) row[v] += p->bias[i].bias;
    }
    if (in->penalty) nt_penalty_apply(in->penalty, p, row, s->first, s->n_local);
    for (int32_t i = 0; i < in->n_masked; i++) {
        const int32_t v = in->masked[i] - s->first;
        if (v >= 0 && v < s->n_local) row[v] = -INFINITY;
    }
    if (scaled) {
        const float inv = 1.0f / p->temperature;
        for (int32_t v = 0; v < s->n_local; v++) row[v] *= inv;
    }
    return scaled || p->n_bias || in->penalty || in->n_masked;
}

static float gumbel(uint64_t seed, uint64_t stream, int32_t id) {
    uint32_t w[4];
    nt_philox(seed, stream, (uint64_t)id >> 2, w);
    return -nt_log_pos(-nt_log_pos(nt_unit_float(w[id & 3]))); /* the bits of the logit_gumbel op */
}

/* How many of the k best (descending) the truncation keeps; 0: more candidates are needed to tell. total: sum of exp(v
 * - v[0]) over the whole vocabulary. */
static int32_t keep_count(const struct nt_sampling *p, const struct nt_pair *best, int32_t k, bool all_seen,
                          float total) {
    int32_t keep = k;
    bool decided = all_seen;
    if (p->top_k > k && !all_seen) return 0;
    if (p->top_k > 0) {
        keep = p->top_k < k ? p->top_k : k;
        decided = true;
        total = 0;
        for (int32_t i = 0; i < keep; i++) total += expf(best[i].value - best[0].value);
    }
    if (p->top_p < 1) {
        float mass = 0;
        for (int32_t i = 0; i < keep; i++) {
            mass += expf(best[i].value - best[0].value);
            if (mass >= p->top_p * total) {
                keep = i + 1;
                decided = true;
            }
        }
    }
    if (p->min_p > 0) {
        const float floor_value = best[0].value + logf(p->min_p);
        for (int32_t i = 1; i < keep; i++) {
            if (best[i].value < floor_value) {
                keep = i;
                decided = true;
            }
        }
    }
    while (keep > 1 && best[keep - 1].value == -INFINITY) keep--;
    return decided ? keep : 0;
}

static int32_t draw(const struct nt_sample_in *in, const struct nt_pair *best, int32_t keep) {
    struct nt_pair win = {-INFINITY, best[0].id};
    for (int32_t i = 0; i < keep; i++) {
        const struct nt_pair c = {best[i].value + gumbel(in->seed, in->stream, best[i].id), best[i].id};
        if (better(c, win)) win = c;
    }
    return win.id;
}

/* A row whose kept set is larger than the batched candidates: ever longer lists, at last the whole vocabulary. */
static nt_status draw_long(struct nt_sampler *s, const float *row, const struct nt_sample_in *in, float total,
                           int32_t *token) {
    const int32_t cap = s->max_rows * NT_SAMPLER_K;
    struct nt_sampler wide = *s;
    void *memory = NULL;
    for (int32_t k = 8 * NT_SAMPLER_K;; k *= 8) {
        if (k > s->n_vocab) k = s->n_vocab;
        if (k > cap && !memory) {
            const size_t n = (size_t)s->n_vocab, size = (size_t)nt_comm_size(s->tp);
            const size_t pair = sizeof(struct nt_pair);
            memory = malloc(n * (pair * (2 + size) + sizeof(float) + sizeof(int32_t)));
            if (!memory) return NT_FAIL(NT_E_NOMEM, "no memory for %d sampling candidates", s->n_vocab);
            wide.mine = memory;
            wide.merged = wide.mine + n;
            wide.all = wide.merged + n;
            wide.cand_value = (float *)(wide.all + n * size);
            wide.cand_index = (int32_t *)(wide.cand_value + n);
        }
        const nt_status st = global_topk(&wide, row, 1, k);
        const int32_t keep = st == NT_OK ? keep_count(in->params, wide.merged, k, k == s->n_vocab, total) : 1;
        if (keep > 0) {
            *token = st == NT_OK ? draw(in, wide.merged, keep) : 0;
            free(memory);
            return st;
        }
    }
}

/* ---- the passes ---- */

static nt_status top_logprobs(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in,
                              struct nt_sample_out *out, int32_t n) {
    int32_t k = 0;
    for (int32_t r = 0; r < n; r++) k = in[r].params->top_logprobs > k ? in[r].params->top_logprobs : k;
    k = k < s->n_vocab ? k : s->n_vocab;
    if (k == 0) return NT_OK;
    NT_TRY(global_topk(s, logits, n, k));
    for (int32_t r = 0; r < n; r++) {
        const float lse = s->max[r] + logf(s->sum[r]);
        const int32_t want = in[r].params->top_logprobs;
        out[r].n_top = want < 0 ? 0 : want < k ? want : k;
        for (int32_t i = 0; i < out[r].n_top; i++) {
            out[r].top_id[i] = s->merged[(int64_t)r * k + i].id;
            out[r].top_lp[i] = s->merged[(int64_t)r * k + i].value - lse;
        }
    }
    return NT_OK;
}

static nt_status gumbel_pass(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in,
                             struct nt_sample_out *out, int32_t n) {
    const int32_t size = nt_comm_size(s->tp);
    for (int32_t r = 0; r < n; r++) {
        s->inv_temp[r] = is_sampled(in[r].params) && !is_truncated(in[r].params, s->n_vocab) ? 1.0f : 0.0f;
        s->seed[r] = in[r].seed;
        s->stream[r] = in[r].stream;
    }
    if (s->n_local > 0) {
        const struct nt_logit_gumbel_args args = {.logits = logits,
                                                  .ld = s->ld,
                                                  .inv_temp = s->inv_temp,
                                                  .seed = s->seed,
                                                  .stream = s->stream,
                                                  .value = s->value,
                                                  .index = s->cand_index,
                                                  .n_row = n,
                                                  .n_vocab = s->n_local,
                                                  .first = s->first};
        NT_TRY(s->be->ops.logit_gumbel(s->be, &args));
    }
    for (int32_t r = 0; r < n; r++)
        s->mine[r] = s->n_local && s->inv_temp[r] > 0 ? (struct nt_pair){s->value[r], s->first + s->cand_index[r]}
                                                      : (struct nt_pair){-INFINITY, INT32_MAX};
    NT_TRY(nt_comm_allgather(s->tp, s->mine, s->all, (size_t)n * sizeof *s->mine));
    for (int32_t r = 0; r < n; r++) {
        if (s->inv_temp[r] == 0) continue;
        struct nt_pair best = s->all[r];
        for (int32_t k = 1; k < size; k++)
            if (better(s->all[(int64_t)k * n + r], best)) best = s->all[(int64_t)k * n + r];
        out[r].token = best.id;
    }
    return NT_OK;
}

static nt_status truncated_pass(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in,
                                struct nt_sample_out *out, int32_t n) {
    const int32_t k = NT_SAMPLER_K < s->n_vocab ? NT_SAMPLER_K : s->n_vocab;
    NT_TRY(global_topk(s, logits, n, k));
    for (int32_t r = 0; r < n; r++) {
        if (out[r].failed || !is_truncated(in[r].params, s->n_vocab)) continue;
        const int32_t keep = keep_count(in[r].params, s->merged + (int64_t)r * k, k, k == s->n_vocab, s->sum[r]);
        out[r].token = keep > 0 ? draw(&in[r], s->merged + (int64_t)r * k, keep) : -1;
    }
    for (int32_t r = 0; r < n; r++)
        if (!out[r].failed && is_truncated(in[r].params, s->n_vocab) && out[r].token < 0)
            NT_TRY(draw_long(s, logits + r * s->ld, &in[r], s->sum[r], &out[r].token));
    return NT_OK;
}

/* Raw logits of the chosen tokens live on the shard that owns them. */
static nt_status chosen_logprobs(struct nt_sampler *s, const float *logits, const bool *changed, const float *lse,
                                 struct nt_sample_out *out, int32_t n) {
    const int32_t size = nt_comm_size(s->tp);
    for (int32_t r = 0; r < n; r++) {
        const int32_t v = out[r].token - s->first;
        const float *row = (changed[r] ? s->raw : logits) + r * s->ld;
        s->mine[r] = (struct nt_pair){v >= 0 && v < s->n_local ? row[v] : -INFINITY, 0};
    }
    NT_TRY(nt_comm_allgather(s->tp, s->mine, s->all, (size_t)n * sizeof *s->mine));
    for (int32_t r = 0; r < n; r++) {
        float raw = -INFINITY;
        for (int32_t k = 0; k < size; k++) raw = fmaxf(raw, s->all[(int64_t)k * n + r].value);
        out[r].logprob = raw - lse[r];
    }
    return NT_OK;
}

nt_status nt_sampler_run(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, struct nt_sample_out *out,
                         int32_t n) {
    NT_CHECK(n <= s->max_rows);
    bool logprobs = false, sampled = false, truncated = false, reshaped = false;
    bool changed[n > 0 ? n : 1];
    float lse[n > 0 ? n : 1];
    for (int32_t r = 0; r < n; r++) {
        logprobs |= wants_logprobs(in[r].params);
        sampled |= is_sampled(in[r].params) && !is_truncated(in[r].params, s->n_vocab);
        truncated |= is_truncated(in[r].params, s->n_vocab);
        out[r].n_top = 0;
        out[r].failed = false;
    }
    if (logprobs) {
        NT_TRY(global_stats(s, logits, n, s->n_head_rows));
        for (int32_t r = 0; r < n; r++) out[r].failed = !isfinite(s->sum[r]);
        for (int32_t r = 0; r < n; r++) lse[r] = s->max[r] + logf(s->sum[r]);
        NT_TRY(top_logprobs(s, logits, in, out, n));
    }
    for (int32_t r = 0; r < n; r++) {
        float *row = logits + r * s->ld;
        if (wants_logprobs(in[r].params)) memcpy(s->raw + r * s->ld, row, (size_t)s->n_local * sizeof *row);
        changed[r] = shape_row(s, &in[r], row);
        reshaped |= changed[r];
    }
    if (!logprobs || reshaped || s->n_vocab < s->n_model_vocab) NT_TRY(global_stats(s, logits, n, s->n_local));
    for (int32_t r = 0; r < n; r++) {
        out[r].token = s->argmax[r];
        out[r].failed |= !isfinite(s->sum[r]);
    }
    if (truncated) NT_TRY(truncated_pass(s, logits, in, out, n));
    if (sampled) NT_TRY(gumbel_pass(s, logits, in, out, n));
    return logprobs ? chosen_logprobs(s, logits, changed, lse, out, n) : NT_OK;
}
