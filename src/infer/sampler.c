#include "sampler.h"

#include <math.h>
#include <string.h>

/* Of count columns from first on, those of tokens that the tokenizer knows. */
static int32_t usable(const struct nt_sampler *s, int32_t first, int32_t count) {
    const int32_t left = s->n_vocab - first;
    return left < 0 ? 0 : left < count ? left : count;
}

static void set_sizes(struct nt_sampler *s, const struct nt_model *m, struct nt_comm *tp, int32_t n_vocab,
                      int32_t max_rows) {
    const int32_t model_vocab = nt_model_spec(m)->n_vocab, count = nt_model_vocab_count(m);
    *s = (struct nt_sampler){
        .tp = tp, .ld = nt_model_logit_ld(m), .max_rows = max_rows, .first = nt_model_vocab_first(m)};
    s->n_vocab = n_vocab < model_vocab ? n_vocab : model_vocab;
    s->n_model_vocab = model_vocab;
    s->n_local = usable(s, s->first, count);
    s->n_head_rows = count;
}

nt_status nt_sampler_layout(struct nt_sampler *s, struct nt_job_memory *mem, const struct nt_model *m,
                            struct nt_comm *tp, int32_t n_vocab, int32_t max_rows) {
    set_sizes(s, m, tp, n_vocab, max_rows);
    s->head_draws = nt_model_head_draws(m);
    s->model = nt_model_gathers(m) ? m : NULL;
    for (int32_t r = 0; s->model && r < nt_comm_size(tp); r++) {
        nt_model_vocab_of(m, r, &s->shard[r].first, &s->shard[r].n);
        s->shard[r].n = usable(s, s->shard[r].first, s->shard[r].n);
    }
    return nt_sampler_take(s, mem);
}

nt_status nt_sampler_layout_shape(struct nt_sampler *s, struct nt_job_memory *mem, const struct nt_model *m,
                                  struct nt_comm *tp, int32_t max_rows) {
    set_sizes(s, m, tp, nt_model_spec(m)->n_vocab, max_rows);
    s->head_draws = true;
    s->model = nt_comm_size(tp) > 1 && nt_comm_size(tp) <= NT_P2P_RANKS ? m : NULL;
    return nt_sampler_take(s, mem);
}

nt_status nt_sampler_take(struct nt_sampler *s, struct nt_job_memory *mem) {
    const size_t rows = (size_t)s->max_rows, batched = rows * NT_SAMPLER_K;
    struct nt_arena *a = &mem->host;
    s->be = mem->be;
    s->whole = mem->apart && nt_comm_size(s->tp) == 1;
    s->on_device = s->whole || s->model;
    /* one row's candidates may be the whole vocabulary (draw_long), where the host draws */
    const size_t pairs = s->whole || batched > (size_t)s->n_vocab ? batched : (size_t)s->n_vocab;
    s->raw = NT_TAKE(&mem->device, float, rows *(size_t)s->ld);
    s->max = NT_TAKE(a, float, rows);
    s->sum = NT_TAKE(a, float, rows);
    s->argmax = NT_TAKE(a, int32_t, rows);
    s->mine = NT_TAKE(a, struct nt_pair, pairs);
    s->all = NT_TAKE(a, struct nt_pair, pairs * (size_t)nt_comm_size(s->tp));
    s->merged = NT_TAKE(a, struct nt_pair, pairs);
    s->stats = nt_job_take_both(mem, 3 * rows * sizeof(float));
    s->best = nt_job_take_both(mem, pairs * (sizeof(float) + sizeof(int32_t)));
    s->noise = nt_job_take_both(mem, rows * (2 * sizeof(uint64_t) + sizeof(float)));
    s->drawn = nt_job_take_both(mem, 2 * rows * sizeof(float));
    s->picks = nt_job_take_both(mem, 2 * rows * sizeof(float));
    s->rows = nt_job_take_both(mem, rows * sizeof(int32_t));
    s->edits = nt_job_take_both(mem, NT_SAMPLER_EDITS * sizeof(struct nt_logit_edit));
    s->scale = nt_job_take_both(mem, rows * sizeof(float));
    s->n_seen = s->n_model_vocab > NT_SAMPLER_SEEN ? s->n_model_vocab : NT_SAMPLER_SEEN; /* a row's fit at least */
    s->seen = nt_job_take_both(mem, (size_t)s->n_seen * sizeof(struct nt_seen));
    s->rules = nt_job_take_both(mem, nt_sampler_rules_bytes(s));
    nt_sampler_take_params(s, mem);
    int32_t *row = s->rows.host;
    if (!row) return NT_OK; /* counting */
    for (int32_t r = 0; r < s->max_rows; r++) row[r] = r;
    return nt_both_push(s->be, &s->rows, 0, rows * sizeof *row);
}

/* ---- one row's rules ---- */

static bool is_shaped(const struct nt_sample_in *in) {
    return nt_sample_is_scaled(in->params) || nt_sample_is_edited(in);
}
/* ---- the passes ---- */

static nt_status gumbel_pass(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in,
                             struct nt_sample_out *out, int32_t n) {
    const int32_t size = nt_comm_size(s->tp);
    const size_t rows = (size_t)s->max_rows;
    uint64_t *seed = s->noise.host, *stream = seed + rows;
    float *inv_temp = (float *)(stream + rows);
    for (int32_t r = 0; r < n; r++) {
        inv_temp[r] =
            nt_sample_is_random(in[r].params) && !nt_sample_is_truncated(in[r].params, s->n_vocab) ? 1.0f : 0.0f;
        seed[r] = in[r].seed;
        stream[r] = in[r].stream;
    }
    if (s->n_local > 0) {
        const uint64_t *at = s->noise.device;
        float *drawn = s->drawn.device;
        NT_TRY(nt_both_push(s->be, &s->noise, 0, rows * (2 * sizeof *seed + sizeof *inv_temp)));
        const struct nt_logit_gumbel_args args = {.logits = logits,
                                                  .ld = s->ld,
                                                  .inv_temp = (const float *)(at + 2 * rows),
                                                  .seed = at,
                                                  .stream = at + rows,
                                                  .value = drawn,
                                                  .index = (int32_t *)(drawn + rows),
                                                  .n_row = n,
                                                  .n_vocab = s->n_local,
                                                  .first = s->first};
        NT_TRY(s->be->ops.logit_gumbel(s->be, &args));
        NT_TRY(nt_both_pull(s->be, &s->drawn, 0, 2 * rows * sizeof(float)));
    }
    const float *value = s->drawn.host;
    const int32_t *index = (const int32_t *)(value + rows);
    for (int32_t r = 0; r < n; r++)
        s->mine[r] = s->n_local && inv_temp[r] > 0 ? (struct nt_pair){value[r], s->first + index[r]}
                                                   : (struct nt_pair){-INFINITY, INT32_MAX};
    NT_TRY(nt_comm_allgather(s->tp, s->mine, s->all, (size_t)n * sizeof *s->mine));
    for (int32_t r = 0; r < n; r++) {
        if (inv_temp[r] == 0) continue;
        struct nt_pair best = s->all[r];
        for (int32_t k = 1; k < size; k++)
            if (nt_pair_better(s->all[(int64_t)k * n + r], best)) best = s->all[(int64_t)k * n + r];
        out[r].token = best.id;
    }
    return NT_OK;
}

static nt_status truncated_pass(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in,
                                struct nt_sample_out *out, int32_t n) {
    const int32_t k = NT_SAMPLER_K < s->n_vocab ? NT_SAMPLER_K : s->n_vocab;
    NT_TRY(nt_sampler_topk(s, logits, n, k));
    for (int32_t r = 0; r < n; r++) {
        if (out[r].failed || !nt_sample_is_truncated(in[r].params, s->n_vocab)) continue;
        const int32_t keep = nt_sample_keep(in[r].params, s->merged + (int64_t)r * k, k, k == s->n_vocab, s->sum[r]);
        out[r].token = keep > 0 ? nt_sample_draw(&in[r], s->merged + (int64_t)r * k, keep) : -1;
    }
    for (int32_t r = 0; r < n; r++)
        if (!out[r].failed && nt_sample_is_truncated(in[r].params, s->n_vocab) && out[r].token < 0)
            NT_TRY(nt_sampler_draw_long(s, logits + r * s->ld, &in[r], s->sum[r], &out[r].token));
    return NT_OK;
}
nt_status nt_sampler_run(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, struct nt_sample_out *out,
                         int32_t n) {
    NT_CHECK(n <= s->max_rows);
    if (s->on_device) return nt_sampler_run_device(s, logits, in, out, n);
    bool logprobs = false, sampled = false, truncated = false, shaped = false;
    float lse[n > 0 ? n : 1];
    for (int32_t r = 0; r < n; r++) {
        logprobs |= nt_sample_wants_logprobs(in[r].params);
        sampled |= nt_sample_is_random(in[r].params) && !nt_sample_is_truncated(in[r].params, s->n_vocab);
        truncated |= nt_sample_is_truncated(in[r].params, s->n_vocab);
        shaped |= is_shaped(&in[r]);
        out[r].n_top = 0;
        out[r].failed = false;
    }
    if (logprobs) {
        NT_TRY(nt_sampler_stats(s, logits, n, s->n_head_rows));
        for (int32_t r = 0; r < n; r++) out[r].failed = !isfinite(s->sum[r]);
        for (int32_t r = 0; r < n; r++) lse[r] = s->max[r] + logf(s->sum[r]);
        NT_TRY(nt_sampler_top_logprobs(s, logits, in, out, n));
    }
    if (logprobs && shaped) NT_TRY(nt_sampler_keep_raw(s, logits, n));
    if (shaped) NT_TRY(nt_sampler_shape(s, logits, in, n, true, NULL));
    if (!logprobs || shaped || s->n_vocab < s->n_model_vocab) NT_TRY(nt_sampler_stats(s, logits, n, s->n_local));
    for (int32_t r = 0; r < n; r++) {
        out[r].token = s->argmax[r];
        out[r].failed |= !isfinite(s->sum[r]);
    }
    if (truncated) NT_TRY(truncated_pass(s, logits, in, out, n));
    if (sampled) NT_TRY(gumbel_pass(s, logits, in, out, n));
    return logprobs ? nt_sampler_chosen(s, shaped ? s->raw : logits, lse, out, n) : NT_OK;
}
