#include "sampler_parts.h"

#include <math.h>

/* ---- pieces that look at the whole vocabulary ---- */

bool nt_pair_better(struct nt_pair a, struct nt_pair b) {
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
        if (nt_pair_better(part[k * stride], best)) best = part[k * stride];
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
nt_status nt_sampler_stats(struct nt_sampler *s, const float *logits, int32_t n, int32_t n_local) {
    const float *max = s->stats.host, *sum = max + s->max_rows;
    const int32_t *argmax = (const int32_t *)(sum + s->max_rows);
    if (n_local > 0) {
        float *at = s->stats.device;
        const struct nt_logit_stats_args args = {.logits = logits,
                                                 .ld = s->ld,
                                                 .max = at,
                                                 .sum_exp = at + s->max_rows,
                                                 .argmax = (int32_t *)(at + 2 * s->max_rows),
                                                 .n_row = n,
                                                 .n_vocab = n_local};
        NT_TRY(s->be->ops.logit_stats(s->be, &args));
        NT_TRY(nt_both_pull(s->be, &s->stats, 0, 3 * (size_t)s->max_rows * sizeof(float)));
    }
    for (int32_t r = 0; r < n; r++) {
        const bool none = n_local == 0 || max[r] == -INFINITY; /* the sum of nothing is nothing */
        s->mine[2 * r] = none ? (struct nt_pair){-INFINITY, INT32_MAX} : (struct nt_pair){max[r], s->first + argmax[r]};
        s->mine[2 * r + 1] = (struct nt_pair){none ? 0 : sum[r], 0};
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
            if (from < 0 || nt_pair_better(list[head[p]], all[((int64_t)from * n + r) * k + head[from]])) from = p;
        }
        out[i] = all[((int64_t)from * n + r) * k + head[from]++];
    }
}

/* The k best of rows over all shards into s->merged [n, k]; shards shorter than k are padded with -inf. */
nt_status nt_sampler_topk(struct nt_sampler *s, const float *logits, int32_t n, int32_t k) {
    const int32_t have = k < s->n_local ? k : s->n_local;
    const int64_t found = (int64_t)n * have;
    const float *value = s->best.host;
    const int32_t *index = (const int32_t *)(value + found);
    if (have > 0) {
        float *at = s->best.device;
        const struct nt_logit_topk_args args = {.logits = logits,
                                                .ld = s->ld,
                                                .value = at,
                                                .index = (int32_t *)(at + found),
                                                .n_row = n,
                                                .n_vocab = s->n_local,
                                                .k = have};
        NT_TRY(s->be->ops.logit_topk(s->be, &args));
        NT_TRY(nt_both_pull(s->be, &s->best, 0, (size_t)found * (sizeof *value + sizeof *index)));
    }
    for (int64_t r = 0; r < n; r++)
        for (int32_t i = 0; i < k; i++)
            s->mine[r * k + i] = i < have ? (struct nt_pair){value[r * have + i], s->first + index[r * have + i]}
                                          : (struct nt_pair){-INFINITY, INT32_MAX};
    NT_TRY(nt_comm_allgather(s->tp, s->mine, s->all, (size_t)n * (size_t)k * sizeof *s->mine));
    for (int32_t r = 0; r < n; r++) merge_lists(s->all, nt_comm_size(s->tp), n, r, k, s->merged + (int64_t)r * k);
    return NT_OK;
}
/* ---- one row's rules ---- */

bool nt_sample_is_random(const struct nt_sampling *p) {
    return p->temperature > 0;
}
bool nt_sample_wants_logprobs(const struct nt_sampling *p) {
    return p->top_logprobs >= 0;
}

bool nt_sample_is_scaled(const struct nt_sampling *p) {
    return nt_sample_is_random(p) && p->temperature != 1.0f;
}
bool nt_sample_is_truncated(const struct nt_sampling *p, int32_t n_vocab) {
    return nt_sample_is_random(p) && ((p->top_k > 0 && p->top_k < n_vocab) || p->top_p < 1 || p->min_p > 0);
}
bool nt_sample_is_edited(const struct nt_sample_in *in) {
    return in->params->n_bias > 0 || in->penalty || in->n_masked > 0;
}

/* ---- penalties of what was said ---- */

/* One block, written and pushed per call of the op. */
struct penalty_rules {
    int32_t *begin, *last_row;                /* [max_rows + 1], [max_rows] */
    float *repetition, *presence, *frequency; /* [max_rows] */
};

size_t nt_sampler_rules_bytes(const struct nt_sampler *s) {
    return (5 * (size_t)s->max_rows + 1) * sizeof(float);
}

static struct penalty_rules rules_at(const struct nt_sampler *s, void *block) {
    struct penalty_rules p = {.begin = block};
    p.last_row = p.begin + s->max_rows + 1;
    p.repetition = (float *)(p.last_row + s->max_rows);
    p.presence = p.repetition + s->max_rows;
    p.frequency = p.presence + s->max_rows;
    return p;
}

/* Row i of the call. */
static void add_rules(struct nt_sampler *s, const struct penalty_rules *rules, const struct nt_sample_in *in,
                      int32_t i) {
    struct nt_seen *seen = s->seen.host;
    int32_t end = i == 0 ? 0 : rules->begin[i];
    rules->begin[i] = end;
    for (int32_t k = 0; in->penalty && k < in->penalty->cap; k++)
        if (in->penalty->id[k] >= 0)
            seen[end++] = (struct nt_seen){.id = in->penalty->id[k], .count = in->penalty->count[k]};
    rules->begin[i + 1] = end;
    rules->last_row[i] = in->penalty && in->pending ? in->pending_row : -1;
    rules->repetition[i] = in->params->repetition_penalty;
    rules->presence[i] = in->params->presence_penalty;
    rules->frequency[i] = in->params->frequency_penalty;
}

static nt_status penalize_rows(struct nt_sampler *s, float *logits, int32_t n, const int32_t *pending) {
    const struct penalty_rules mine = rules_at(s, s->rules.host), at = rules_at(s, s->rules.device);
    const struct nt_logit_penalty_args args = {.logits = logits,
                                               .ld = s->ld,
                                               .seen = s->seen.device,
                                               .begin = at.begin,
                                               .last = pending,
                                               .last_row = at.last_row,
                                               .repetition = at.repetition,
                                               .presence = at.presence,
                                               .frequency = at.frequency,
                                               .n_row = n,
                                               .n_vocab = s->n_local,
                                               .first = s->first,
                                               .n_seen = mine.begin[n]};
    NT_TRY(nt_both_push(s->be, &s->rules, 0, nt_sampler_rules_bytes(s)));
    NT_TRY(nt_both_push(s->be, &s->seen, 0, (size_t)args.n_seen * sizeof *args.seen));
    return s->be->ops.logit_penalty(s->be, &args);
}

/* As many rows at a time as there is room for what they have said. */
static nt_status penalize(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, int32_t n,
                          const int32_t *pending) {
    const struct penalty_rules rules = rules_at(s, s->rules.host);
    bool any = false;
    for (int32_t r = 0; r < n; r++) any |= in[r].penalty != NULL;
    if (!any || s->n_local == 0) return NT_OK;
    for (int32_t r0 = 0, r = 0; r0 < n; r0 = r) {
        int64_t room = s->n_seen;
        for (r = r0; r < n && room >= (in[r].penalty ? in[r].penalty->len : 0); r++) {
            add_rules(s, &rules, &in[r], r - r0);
            room -= in[r].penalty ? in[r].penalty->len : 0;
        }
        NT_TRY(penalize_rows(s, logits + r0 * s->ld, r - r0, pending));
    }
    return NT_OK;
}

/* ---- shaping: edits of single logits, collected over the rows ---- */

static nt_status apply_edits(struct nt_sampler *s, float *logits, int32_t n, const float *scale) {
    const struct nt_logit_edit_args args = {.logits = logits,
                                            .ld = s->ld,
                                            .edits = s->edits.device,
                                            .scale = scale,
                                            .n_row = n,
                                            .n_vocab = s->n_local,
                                            .n_edit = s->n_edit};
    if ((s->n_edit == 0 && !scale) || s->n_local == 0) return NT_OK;
    NT_TRY(nt_both_push(s->be, &s->edits, 0, (size_t)s->n_edit * sizeof *args.edits));
    s->n_edit = 0;
    return s->be->ops.logit_edit(s->be, &args);
}

/* id counts in the whole vocabulary. */
static nt_status add_edit(struct nt_sampler *s, float *logits, int32_t n, struct nt_logit_edit edit) {
    edit.id -= s->first;
    if (edit.id < 0 || edit.id >= s->n_local) return NT_OK;
    if (s->n_edit == NT_SAMPLER_EDITS) NT_TRY(apply_edits(s, logits, n, NULL));
    ((struct nt_logit_edit *)s->edits.host)[s->n_edit++] = edit;
    return NT_OK;
}

static nt_status add_bias(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, int32_t r, int32_t n) {
    const struct nt_sampling *p = in[r].params;
    for (int32_t i = 0; i < p->n_bias; i++)
        NT_TRY(add_edit(s, logits, n,
                        (struct nt_logit_edit){.row = r, .id = p->bias[i].id, .bias = p->bias[i].bias, .divide = 1}));
    return NT_OK;
}

static nt_status add_mask(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, int32_t r, int32_t n) {
    const int32_t *masked = in[r].masked;
    for (int32_t i = 0; i < in[r].n_masked; i++) {
        bool again = false;
        for (int32_t j = 0; j < i; j++) again |= masked[j] == masked[i];
        if (again) continue;
        NT_TRY(
            add_edit(s, logits, n, (struct nt_logit_edit){.row = r, .id = masked[i], .divide = 1, .minus = INFINITY}));
    }
    return NT_OK;
}

static nt_status edit_rows(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, int32_t n,
                           nt_status (*add)(struct nt_sampler *, float *, const struct nt_sample_in *, int32_t,
                                            int32_t)) {
    for (int32_t r = 0; r < n; r++) NT_TRY(add(s, logits, in, r, n));
    return NT_OK;
}

/* Bias, then penalties, then masks, then temperature, in place on this shard. */
nt_status nt_sampler_shape(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, int32_t n, bool scale,
                           const int32_t *pending) {
    float *factor = s->scale.host;
    bool scaled = false;
    for (int32_t r = 0; r < n; r++) {
        scaled |= scale && nt_sample_is_scaled(in[r].params);
        factor[r] = nt_sample_is_scaled(in[r].params) ? 1.0f / in[r].params->temperature : 1.0f;
    }
    NT_TRY(nt_both_push(s->be, &s->scale, 0, scaled ? (size_t)n * sizeof *factor : 0));
    NT_TRY(edit_rows(s, logits, in, n, add_bias));
    NT_TRY(apply_edits(s, logits, n, NULL));
    NT_TRY(penalize(s, logits, in, n, pending));
    NT_TRY(edit_rows(s, logits, in, n, add_mask));
    return apply_edits(s, logits, n, scaled ? s->scale.device : NULL);
}

/* ---- log-probabilities ---- */

nt_status nt_sampler_top_logprobs(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in,
                                  struct nt_sample_out *out, int32_t n) {
    int32_t k = 0;
    for (int32_t r = 0; r < n; r++) k = in[r].params->top_logprobs > k ? in[r].params->top_logprobs : k;
    k = k < s->n_vocab ? k : s->n_vocab;
    if (k == 0) return NT_OK;
    NT_TRY(nt_sampler_topk(s, logits, n, k));
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
/* Raw logits of the chosen tokens live on the shard that owns them. */
nt_status nt_sampler_chosen(struct nt_sampler *s, const float *logits, const float *lse, struct nt_sample_out *out,
                            int32_t n) {
    const int32_t size = nt_comm_size(s->tp);
    int32_t *id = s->picks.host;
    const float *value = (const float *)(id + s->max_rows);
    for (int32_t r = 0; r < n; r++) id[r] = out[r].token - s->first;
    NT_TRY(nt_both_push(s->be, &s->picks, 0, (size_t)n * sizeof *id));
    const struct nt_logit_pick_args args = {.logits = logits,
                                            .ld = s->ld,
                                            .id = s->picks.device,
                                            .value = (float *)s->picks.device + s->max_rows,
                                            .n_row = n,
                                            .n_vocab = s->n_local};
    NT_TRY(s->be->ops.logit_pick(s->be, &args));
    NT_TRY(nt_both_pull(s->be, &s->picks, (size_t)s->max_rows * sizeof *id, (size_t)n * sizeof *value));
    for (int32_t r = 0; r < n; r++) s->mine[r] = (struct nt_pair){value[r], 0};
    NT_TRY(nt_comm_allgather(s->tp, s->mine, s->all, (size_t)n * sizeof *s->mine));
    for (int32_t r = 0; r < n; r++) {
        float raw = -INFINITY;
        for (int32_t k = 0; k < size; k++) raw = fmaxf(raw, s->all[(int64_t)k * n + r].value);
        out[r].logprob = raw - lse[r];
    }
    return NT_OK;
}

/* Rows as the model made them, for their log-probabilities. */
nt_status nt_sampler_keep_raw(struct nt_sampler *s, const float *logits, int32_t n) {
    const struct nt_gather_args args = {
        .from = logits, .to = s->raw, .rows = s->rows.device, .bytes = s->ld * (int64_t)sizeof(float), .n_rows = n};
    return s->be->ops.gather(s->be, &args);
}
