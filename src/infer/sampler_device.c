#include "sampler_device.h"
#include <math.h>

/* One block of parameters: seeds and streams, then temperatures, top-p, min-p, top-k, of max_rows each; and for logits
 * that have been scaled what kind of draw it is and 1 for plain ones. */
struct params {
    uint64_t *seed, *stream;
    float *inv_temp, *top_p, *min_p;
    int32_t *top_k, *kind;
    float *plain;
};

static size_t params_bytes(const struct nt_sampler *s) {
    return (size_t)s->max_rows * (2 * sizeof(uint64_t) + 4 * sizeof(float) + 2 * sizeof(int32_t));
}

static struct params params_at(const struct nt_sampler *s, void *block) {
    const size_t rows = (size_t)s->max_rows;
    struct params p = {.seed = block};
    p.stream = p.seed + rows;
    p.inv_temp = (float *)(p.stream + rows);
    p.top_p = p.inv_temp + rows;
    p.min_p = p.top_p + rows;
    p.top_k = (int32_t *)(p.min_p + rows);
    p.kind = p.top_k + rows;
    p.plain = (float *)(p.kind + rows);
    return p;
}

/* What a step says, one block: tokens [max_rows], then where rows want log-probabilities the part of each rank. */
struct said {
    float *max, *sum, *chosen, *best; // [n] of the raw logits of the shard, [n] sum of exponentials, [n], [n, have]
    int32_t *best_id;                 // [n, have], in the shard
};

static int32_t n_ranks(const struct nt_sampler *s) {
    return s->whole ? 1 : nt_comm_size(s->tp);
}

static int32_t have_of(const struct nt_sampler *s, int32_t rank, int32_t k) {
    const int32_t n = s->whole ? s->n_local : s->shard[rank].n;
    return k < n ? k : n;
}

static int64_t said_floats(int32_t n, int32_t k) {
    return (int64_t)n * (3 + 2 * k);
}

static size_t answer_bytes(const struct nt_sampler *s, int32_t n, int32_t k) {
    if (k < 0) return (size_t)n * sizeof(int32_t);
    return ((size_t)s->max_rows + (size_t)n_ranks(s) * (size_t)said_floats(n, k)) * sizeof(float);
}

static struct said said_at(float *part, int32_t n, int32_t have) {
    struct said a = {.max = part, .sum = part + n, .chosen = part + 2 * n, .best = part + 3 * n};
    a.best_id = (int32_t *)(a.best + (int64_t)n * have);
    return a;
}

static float *parts_of(const struct nt_sampler *s, void *answer) {
    return (float *)answer + s->max_rows;
}

const int32_t *nt_sampler_tokens(const struct nt_sampler *s) {
    return s->answer.device;
}

void nt_sampler_take_params(struct nt_sampler *s, struct nt_job_memory *mem) {
    if (!s->on_device && !s->head_draws) return;
    s->params = nt_job_take_both(mem, params_bytes(s));
    s->answer = nt_job_take_both(mem, answer_bytes(s, s->max_rows, s->on_device ? NT_MAX_TOP_LOGPROBS : -1));
    if (s->model) {
        const int64_t part = nt_draw_floats(s->max_rows, NT_SAMPLER_K);
        s->part = NT_TAKE(&mem->device, float, part);
        s->parts = NT_TAKE(&mem->device, float, part *nt_comm_size(s->tp));
        s->said = NT_TAKE(&mem->device, float, said_floats(s->max_rows, NT_MAX_TOP_LOGPROBS));
    }
    for (int i = 0; i < NT_DOWNLOAD_SLOTS; i++) s->wish[i].logprobs = NT_TAKE(&mem->host, int32_t, (size_t)s->max_rows);
}

bool nt_sampler_by_head(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n) {
    bool by_head = s->head_draws;
    for (int32_t r = 0; r < n; r++) by_head &= !nt_sample_is_truncated(in[r].params, s->n_vocab);
    return by_head;
}

bool nt_sampler_is_plain(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n) {
    bool plain = s->whole || nt_sampler_by_head(s, in, n);
    for (int32_t r = 0; r < n; r++) plain &= !nt_sample_is_edited(&in[r]) && !nt_sample_wants_logprobs(in[r].params);
    return plain;
}

/* The most log-probabilities a row wants, -1: none does. */
static int32_t most_logprobs(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n) {
    int32_t k = -1;
    for (int32_t r = 0; r < n; r++) k = in[r].params->top_logprobs > k ? in[r].params->top_logprobs : k;
    return k < s->n_vocab ? k : s->n_vocab;
}

/* A top-k that lists of pairs never decide. */
static bool exceeds_lists(const struct nt_sampler *s, const struct nt_sampling *p) {
    return s->model && nt_sample_is_random(p) && p->top_k > NT_SAMPLER_K && p->top_k < s->n_vocab;
}

bool nt_sampler_goes_on(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n) {
    if (nt_sampler_is_plain(s, in, n)) return true;
    for (int32_t r = 0; r < n; r++)
        if (in[r].by_host || exceeds_lists(s, in[r].params)) return false;
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
        p.top_k[r] = random && row->top_k < s->n_vocab ? row->top_k : 0; /* of all: no limit */
        p.kind[r] = !random                                   ? NT_DRAW_GREEDY
                    : nt_sample_is_truncated(row, s->n_vocab) ? NT_DRAW_TRUNCATED
                                                              : NT_DRAW_PLAIN;
        p.plain[r] = p.kind[r] == NT_DRAW_PLAIN;
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

static nt_status queue_logprobs(struct nt_sampler *s, const float *logits, const struct said *said, int32_t n,
                                int32_t k) {
    const struct nt_logit_stats_args stats = {
        .logits = logits, .ld = s->ld, .max = said->max, .sum_exp = said->sum, .n_row = n, .n_vocab = s->n_head_rows};
    const struct nt_logit_topk_args topk = {.logits = logits,
                                            .ld = s->ld,
                                            .value = said->best,
                                            .index = said->best_id,
                                            .n_row = n,
                                            .n_vocab = s->n_local,
                                            .k = k < s->n_local ? k : s->n_local};
    NT_TRY(s->be->ops.logit_stats(s->be, &stats));
    return topk.k > 0 ? s->be->ops.logit_topk(s->be, &topk) : NT_OK;
}

/* From the whole rows. */
static nt_status draw_whole(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in, int32_t n) {
    struct nt_logit_sample_args draw;
    NT_TRY(nt_sampler_prepare(s, in, n, &draw));
    draw.logits = logits;
    draw.ld = s->ld;
    draw.n_row = n;
    return s->be->ops.logit_sample(s->be, &draw);
}

/* This rank's lists of k pairs, its draws, maxima and sums, of rows with their temperature in them. */
static nt_status list_pairs(struct nt_sampler *s, const float *logits, const struct params *at, int32_t n, int32_t k) {
    const int32_t have = k < s->n_local ? k : s->n_local;
    float *tail = s->part + 2 * (int64_t)n * have;
    const struct nt_logit_topk_args topk = {.logits = logits,
                                            .ld = s->ld,
                                            .value = s->part,
                                            .index = (int32_t *)(s->part + (int64_t)n * have),
                                            .n_row = n,
                                            .n_vocab = s->n_local,
                                            .k = have};
    const struct nt_logit_gumbel_args gumbel = {.logits = logits,
                                                .ld = s->ld,
                                                .inv_temp = at->plain,
                                                .seed = at->seed,
                                                .stream = at->stream,
                                                .value = tail,
                                                .index = (int32_t *)(tail + n),
                                                .n_row = n,
                                                .n_vocab = s->n_local,
                                                .first = s->first};
    const struct nt_logit_stats_args stats = {
        .logits = logits, .ld = s->ld, .max = tail + 2 * n, .sum_exp = tail + 3 * n, .n_row = n, .n_vocab = s->n_local};
    if (have == 0) return NT_OK;
    NT_TRY(s->be->ops.logit_topk(s->be, &topk));
    NT_TRY(s->be->ops.logit_gumbel(s->be, &gumbel));
    return s->be->ops.logit_stats(s->be, &stats);
}

/* From the pairs of all ranks. */
static nt_status draw_pairs(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in, int32_t n) {
    struct nt_logit_sample_args rules;
    const struct params at = params_at(s, s->params.device);
    int32_t k = 1;
    for (int32_t r = 0; r < n; r++)
        if (nt_sample_is_truncated(in[r].params, s->n_vocab)) k = NT_SAMPLER_K < s->n_vocab ? NT_SAMPLER_K : s->n_vocab;
    NT_TRY(nt_sampler_prepare(s, in, n, &rules));
    NT_TRY(list_pairs(s, logits, &at, n, k));
    struct nt_draw_pairs_args draw = {.gathered = s->parts,
                                      .stride = nt_draw_floats(n, k),
                                      .kind = at.kind,
                                      .top_p = at.top_p,
                                      .min_p = at.min_p,
                                      .top_k = at.top_k,
                                      .seed = at.seed,
                                      .stream = at.stream,
                                      .token = s->answer.device,
                                      .size = n_ranks(s),
                                      .n_row = n,
                                      .k = k,
                                      .all = k == s->n_vocab};
    for (int32_t r = 0; r < draw.size; r++) {
        draw.have[r] = have_of(s, r, k);
        draw.first[r] = s->shard[r].first;
    }
    NT_TRY(nt_model_allgather(s->model, s->part, s->parts, draw.stride));
    return s->be->peer_ops->draw(s->be, &draw);
}

/* Are the logits not the model's any more when tokens are drawn? */
static bool is_shaped(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n) {
    bool shaped = false;
    for (int32_t r = 0; r < n; r++)
        shaped |= nt_sample_is_edited(&in[r]) || (!s->whole && nt_sample_is_scaled(in[r].params));
    return shaped;
}

nt_status nt_sampler_queue(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, int32_t n) {
    const int32_t k = most_logprobs(s, in, n);
    float *part = s->whole ? parts_of(s, s->answer.device) : s->said;
    const struct said said = said_at(part, n, k < s->n_local ? k : s->n_local);
    const bool shaped = is_shaped(s, in, n);
    if (k >= 0) NT_TRY(queue_logprobs(s, logits, &said, n, k));
    if (k >= 0 && shaped) NT_TRY(nt_sampler_keep_raw(s, logits, n));
    if (shaped) NT_TRY(nt_sampler_shape(s, logits, in, n, !s->whole, s->answer.device));
    NT_TRY(s->whole ? draw_whole(s, logits, in, n) : draw_pairs(s, logits, in, n));
    if (k < 0) return NT_OK;
    const struct nt_logit_pick_args pick = {.logits = shaped ? s->raw : logits,
                                            .ld = s->ld,
                                            .id = s->answer.device,
                                            .value = said.chosen,
                                            .n_row = n,
                                            .n_vocab = s->n_local,
                                            .first = s->first};
    NT_TRY(s->be->ops.logit_pick(s->be, &pick));
    if (s->whole) return NT_OK;
    return nt_model_allgather(s->model, s->said, parts_of(s, s->answer.device), said_floats(n, k));
}

/* ---- the way back ---- */

static void keep_wish(const struct nt_sampler *s, struct nt_step_wish *wish, const struct nt_sample_in *in, int32_t n) {
    wish->k = most_logprobs(s, in, n);
    for (int32_t r = 0; r < n; r++) wish->logprobs[r] = in[r].params->top_logprobs;
}

/* One row of all ranks' parts. */
struct said_row {
    const struct nt_sampler *s;
    const float *parts;
    int32_t n, k, row;
};

static struct said said_of(const struct said_row *a, int32_t rank, int32_t *have) {
    *have = have_of(a->s, rank, a->k);
    return said_at((float *)(uintptr_t)a->parts + rank * said_floats(a->n, a->k), a->n, *have);
}

/* log of the sum of exponentials; NaN where a number is not finite. */
static float lse_of(const struct said_row *a) {
    float max = -INFINITY, sum = 0;
    int32_t have;
    bool finite = true;
    for (int32_t p = 0; p < n_ranks(a->s); p++) {
        const struct said said = said_of(a, p, &have);
        finite &= said.max[a->row] == -INFINITY || (said.max[a->row] < INFINITY && isfinite(said.sum[a->row]));
        max = fmaxf(max, said.max[a->row]);
    }
    for (int32_t p = 0; p < n_ranks(a->s); p++) {
        const struct said said = said_of(a, p, &have);
        if (said.max[a->row] > -INFINITY) sum += said.sum[a->row] * expf(said.max[a->row] - max);
    }
    return finite && max > -INFINITY ? max + logf(sum) : NAN;
}

/* The want best of the ranks' lists. */
static void take_best(const struct said_row *a, int32_t want, float lse, struct nt_sample_out *out) {
    int32_t head[NT_P2P_RANKS] = {0};
    for (out->n_top = 0; out->n_top < want; out->n_top++) {
        struct nt_pair best = {-INFINITY, INT32_MAX};
        int32_t from = -1;
        for (int32_t p = 0; p < n_ranks(a->s); p++) {
            int32_t have;
            const struct said said = said_of(a, p, &have);
            if (head[p] == have) continue;
            const int64_t at = (int64_t)a->row * have + head[p];
            const struct nt_pair pair = {said.best[at], said.best_id[at] + (a->s->whole ? 0 : a->s->shard[p].first)};
            if (from >= 0 && !nt_pair_better(pair, best)) continue;
            best = pair;
            from = p;
        }
        if (from < 0) return;
        head[from]++;
        out->top_id[out->n_top] = best.id;
        out->top_lp[out->n_top] = best.value - lse;
    }
}

static void read_logprobs(const struct said_row *a, int32_t want, struct nt_sample_out *out) {
    const float lse = lse_of(a);
    float chosen = -INFINITY;
    int32_t have;
    for (int32_t p = 0; p < n_ranks(a->s); p++) chosen = fmaxf(chosen, said_of(a, p, &have).chosen[a->row]);
    out->failed |= !isfinite(lse);
    out->logprob = chosen - lse;
    take_best(a, want < a->k ? want : a->k, lse, out);
}

/* From the host's copy. A neighbour's wish for log-probabilities changes nothing for a row. */
static void read_answer(const struct nt_sampler *s, const struct nt_step_wish *wish, struct nt_sample_out *out,
                        int32_t n) {
    const int32_t *token = s->answer.host;
    struct said_row a = {.s = s, .parts = parts_of(s, s->answer.host), .n = n, .k = wish->k};
    for (int32_t r = 0; r < n; r++) {
        out[r].token = token[r];
        out[r].undecided = token[r] == NT_DRAW_UNDECIDED;
        out[r].failed = token[r] < 0 && !out[r].undecided;
        out[r].n_top = 0;
        a.row = r;
        if (wish->logprobs[r] >= 0) read_logprobs(&a, wish->logprobs[r], &out[r]);
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

/* Rows whose lists were too short, from ever longer ones; the chosen logit of such a row has not been looked up yet. */
static nt_status decide(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in,
                        struct nt_sample_out *out, int32_t n) {
    struct said_row a = {.s = s, .parts = parts_of(s, s->answer.host), .n = n, .k = s->wish[0].k};
    float lse[n > 0 ? n : 1];
    bool any = false;
    for (int32_t r = 0; r < n; r++) {
        a.row = r;
        lse[r] = a.k >= 0 ? lse_of(&a) : 0;
        if (!out[r].undecided) continue;
        any = true;
        NT_TRY(nt_sampler_stats(s, logits + r * s->ld, 1, s->n_local));
        NT_TRY(nt_sampler_draw_long(s, logits + r * s->ld, &in[r], s->sum[0], &out[r].token));
        out[r].undecided = false;
    }
    return any && a.k >= 0 ? nt_sampler_chosen(s, is_shaped(s, in, n) ? s->raw : logits, lse, out, n) : NT_OK;
}

nt_status nt_sampler_run_device(struct nt_sampler *s, float *logits, const struct nt_sample_in *in,
                                struct nt_sample_out *out, int32_t n) {
    struct nt_step_wish *wish = &s->wish[0];
    NT_TRY(nt_sampler_queue(s, logits, in, n));
    keep_wish(s, wish, in, n);
    NT_TRY(nt_both_pull(s->be, &s->answer, 0, answer_bytes(s, n, wish->k)));
    read_answer(s, wish, out, n);
    return decide(s, logits, in, out, n);
}
