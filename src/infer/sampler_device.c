#include "sampler_device.h"
#include <math.h>

/* One block of parameters: seeds and streams, then temperatures, top-p, min-p, top-k, of max_rows each. */
struct params {
    uint64_t *seed, *stream;
    float *inv_temp, *top_p, *min_p;
    int32_t *top_k;
};

static size_t params_bytes(const struct nt_sampler *s) {
    return (size_t)s->max_rows * (2 * sizeof(uint64_t) + 3 * sizeof(float) + sizeof(int32_t));
}

static struct params params_at(const struct nt_sampler *s, void *block) {
    const size_t rows = (size_t)s->max_rows;
    struct params p = {.seed = block};
    p.stream = p.seed + rows;
    p.inv_temp = (float *)(p.stream + rows);
    p.top_p = p.inv_temp + rows;
    p.min_p = p.top_p + rows;
    p.top_k = (int32_t *)(p.min_p + rows);
    return p;
}

/* What a step says, one block: tokens, then where rows want log-probabilities the raw logits' maximum and sum of
 * exponentials, the chosen one, of max_rows each, and the best [n, k] with their ids. */
struct answer {
    int32_t *token;
    float *max, *sum, *chosen, *best;
    int32_t *best_id;
};

static size_t answer_bytes(const struct nt_sampler *s, int32_t n, int32_t k) {
    if (k < 0) return (size_t)n * sizeof(int32_t);
    return (4 * (size_t)s->max_rows + 2 * (size_t)n * (size_t)k) * sizeof(float);
}

static struct answer answer_at(const struct nt_sampler *s, void *block, int32_t n, int32_t k) {
    struct answer a = {.token = block};
    a.max = (float *)(a.token + s->max_rows);
    a.sum = a.max + s->max_rows;
    a.chosen = a.sum + s->max_rows;
    a.best = a.chosen + s->max_rows;
    a.best_id = (int32_t *)(a.best + (int64_t)n * k);
    return a;
}

const int32_t *nt_sampler_tokens(const struct nt_sampler *s) {
    return s->answer.device;
}

void nt_sampler_take_params(struct nt_sampler *s, struct nt_job_memory *mem) {
    if (!s->on_device && !s->head_draws) return;
    s->params = nt_job_take_both(mem, params_bytes(s));
    s->answer = nt_job_take_both(mem, answer_bytes(s, s->max_rows, s->on_device ? NT_MAX_TOP_LOGPROBS : -1));
    for (int i = 0; i < NT_DOWNLOAD_SLOTS; i++) s->wish[i].logprobs = NT_TAKE(&mem->host, int32_t, (size_t)s->max_rows);
}

bool nt_sampler_by_head(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n) {
    bool by_head = s->head_draws;
    for (int32_t r = 0; r < n; r++) by_head &= !nt_sample_is_truncated(in[r].params, s->n_vocab);
    return by_head;
}

bool nt_sampler_is_plain(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n) {
    bool plain = s->on_device || nt_sampler_by_head(s, in, n);
    for (int32_t r = 0; r < n; r++) plain &= !nt_sample_is_edited(&in[r]) && !nt_sample_wants_logprobs(in[r].params);
    return plain;
}

/* The most log-probabilities a row wants, -1: none does. */
static int32_t most_logprobs(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n) {
    int32_t k = -1;
    for (int32_t r = 0; r < n; r++) k = in[r].params->top_logprobs > k ? in[r].params->top_logprobs : k;
    return k < s->n_vocab ? k : s->n_vocab;
}

bool nt_sampler_goes_on(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n) {
    if (nt_sampler_is_plain(s, in, n)) return true;
    return s->on_device && answer_bytes(s, n, most_logprobs(s, in, n)) <= NT_DOWNLOAD_SLOT_BYTES;
}

nt_status nt_sampler_prepare(struct nt_sampler *s, const struct nt_sample_in *in, int32_t n,
                             struct nt_logit_sample_args *args) {
    const struct params p = params_at(s, s->params.host), d = params_at(s, s->params.device);
    for (int32_t r = 0; r < s->max_rows; r++) {
        const struct nt_sampling *row = r < n ? in[r].params : NULL; /* the rest: rows a captured step is padded with */
        const bool random = row && nt_sample_is_random(row);
        p.seed[r] = row ? in[r].seed : 0;
        p.stream[r] = row ? in[r].stream : 0;
        p.inv_temp[r] = random ? 1.0f / row->temperature : 0;
        p.top_p[r] = random ? row->top_p : 1;
        p.min_p[r] = random ? row->min_p : 0;
        p.top_k[r] = random ? row->top_k : 0;
    }
    NT_TRY(nt_both_push(s->be, &s->params, 0, params_bytes(s)));
    *args = (struct nt_logit_sample_args){.inv_temp = d.inv_temp,
                                          .top_p = d.top_p,
                                          .min_p = d.min_p,
                                          .top_k = d.top_k,
                                          .seed = d.seed,
                                          .stream = d.stream,
                                          .index = s->answer.device,
                                          .n_vocab = s->n_vocab};
    return NT_OK;
}

/* ---- rows with edits and log-probabilities ---- */

static nt_status queue_logprobs(struct nt_sampler *s, const float *logits, const struct answer *at, int32_t n,
                                int32_t k) {
    const struct nt_logit_stats_args stats = {
        .logits = logits, .ld = s->ld, .max = at->max, .sum_exp = at->sum, .n_row = n, .n_vocab = s->n_head_rows};
    const struct nt_logit_topk_args topk = {.logits = logits,
                                            .ld = s->ld,
                                            .value = at->best,
                                            .index = at->best_id,
                                            .n_row = n,
                                            .n_vocab = s->n_local,
                                            .k = k};
    NT_TRY(s->be->ops.logit_stats(s->be, &stats));
    return k > 0 ? s->be->ops.logit_topk(s->be, &topk) : NT_OK;
}

nt_status nt_sampler_queue(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, int32_t n) {
    const int32_t k = most_logprobs(s, in, n);
    const struct answer at = answer_at(s, s->answer.device, n, k);
    struct nt_logit_sample_args draw;
    bool edited = false;
    for (int32_t r = 0; r < n; r++) edited |= nt_sample_is_edited(&in[r]);
    if (k >= 0) NT_TRY(queue_logprobs(s, logits, &at, n, k));
    if (k >= 0 && edited) NT_TRY(nt_sampler_keep_raw(s, logits, n));
    if (edited) NT_TRY(nt_sampler_shape(s, logits, in, n, false, at.token));
    NT_TRY(nt_sampler_prepare(s, in, n, &draw));
    draw.logits = logits;
    draw.ld = s->ld;
    draw.n_row = n;
    NT_TRY(s->be->ops.logit_sample(s->be, &draw));
    if (k < 0) return NT_OK;
    const struct nt_logit_pick_args pick = {.logits = edited ? s->raw : logits,
                                            .ld = s->ld,
                                            .id = at.token,
                                            .value = at.chosen,
                                            .n_row = n,
                                            .n_vocab = s->n_local};
    return s->be->ops.logit_pick(s->be, &pick);
}

/* ---- the way back ---- */

static void keep_wish(const struct nt_sampler *s, struct nt_step_wish *wish, const struct nt_sample_in *in, int32_t n) {
    wish->k = most_logprobs(s, in, n);
    for (int32_t r = 0; r < n; r++) wish->logprobs[r] = in[r].params->top_logprobs;
}

static void read_logprobs(const struct answer *a, int32_t r, int32_t k, int32_t want, struct nt_sample_out *out) {
    const bool finite = a->max[r] < INFINITY && a->max[r] > -INFINITY && isfinite(a->sum[r]);
    const float lse = a->max[r] + logf(a->sum[r]);
    out->failed |= !finite;
    out->logprob = a->chosen[r] - lse;
    out->n_top = want < k ? want : k;
    for (int32_t i = 0; i < out->n_top; i++) {
        out->top_id[i] = a->best_id[(int64_t)r * k + i];
        out->top_lp[i] = a->best[(int64_t)r * k + i] - lse;
    }
}

/* From the host's copy. A neighbour's wish for log-probabilities changes nothing for a row. */
static void read_answer(const struct nt_sampler *s, const struct nt_step_wish *wish, struct nt_sample_out *out,
                        int32_t n) {
    const struct answer a = answer_at(s, s->answer.host, n, wish->k);
    for (int32_t r = 0; r < n; r++) {
        out[r].token = a.token[r];
        out[r].failed = a.token[r] < 0;
        out[r].n_top = 0;
        if (wish->logprobs[r] >= 0) read_logprobs(&a, r, wish->k, wish->logprobs[r], &out[r]);
    }
}

nt_status nt_sampler_start(struct nt_sampler *s, int slot, const struct nt_sample_in *in, int32_t n) {
    keep_wish(s, &s->wish[slot], in, n);
    return s->be->memory->start_download(s->be, slot, s->answer.device, answer_bytes(s, n, s->wish[slot].k));
}

nt_status nt_sampler_finish(struct nt_sampler *s, int slot, struct nt_sample_out *out, int32_t n) {
    const struct nt_step_wish *wish = &s->wish[slot];
    NT_TRY(s->be->memory->finish_download(s->be, slot, s->answer.host, answer_bytes(s, n, wish->k)));
    read_answer(s, wish, out, n);
    return NT_OK;
}

nt_status nt_sampler_run_device(struct nt_sampler *s, float *logits, const struct nt_sample_in *in,
                                struct nt_sample_out *out, int32_t n) {
    struct nt_step_wish *wish = &s->wish[0];
    NT_TRY(nt_sampler_queue(s, logits, in, n));
    keep_wish(s, wish, in, n);
    NT_TRY(nt_both_pull(s->be, &s->answer, 0, answer_bytes(s, n, wish->k)));
    read_answer(s, wish, out, n);
    return NT_OK;
}
