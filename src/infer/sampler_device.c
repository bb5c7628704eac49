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

void nt_sampler_take_params(struct nt_sampler *s, struct nt_job_memory *mem) {
    if (!s->on_device && !s->head_draws) return;
    s->params = nt_job_take_both(mem, params_bytes(s));
    s->tokens = nt_job_take_both(mem, (size_t)s->max_rows * sizeof(int32_t));
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
                                          .index = s->tokens.device,
                                          .n_vocab = s->n_vocab};
    return NT_OK;
}

nt_status nt_sampler_start(struct nt_sampler *s, int slot, int32_t n) {
    return s->be->memory->start_download(s->be, slot, s->tokens.device, (size_t)n * sizeof(int32_t));
}

nt_status nt_sampler_finish(struct nt_sampler *s, int slot, struct nt_sample_out *out, int32_t n) {
    int32_t *token = s->tokens.host;
    NT_TRY(s->be->memory->finish_download(s->be, slot, token, (size_t)n * sizeof *token));
    for (int32_t r = 0; r < n; r++) {
        out[r].token = token[r];
        out[r].failed = token[r] < 0;
        out[r].n_top = 0;
    }
    return NT_OK;
}

static nt_status draw_rows(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in,
                           struct nt_sample_out *out, int32_t n) {
    struct nt_logit_sample_args args;
    NT_TRY(nt_sampler_prepare(s, in, n, &args));
    args.logits = logits;
    args.ld = s->ld;
    args.n_row = n;
    NT_TRY(s->be->ops.logit_sample(s->be, &args));
    NT_TRY(nt_both_pull(s->be, &s->tokens, 0, (size_t)n * sizeof(int32_t)));
    const int32_t *token = s->tokens.host;
    for (int32_t r = 0; r < n; r++) {
        out[r].token = token[r];
        out[r].failed |= token[r] < 0;
    }
    return NT_OK;
}

nt_status nt_sampler_run_device(struct nt_sampler *s, float *logits, const struct nt_sample_in *in,
                                struct nt_sample_out *out, int32_t n) {
    bool logprobs = false, edited = false;
    float lse[n > 0 ? n : 1];
    for (int32_t r = 0; r < n; r++) {
        logprobs |= nt_sample_wants_logprobs(in[r].params);
        edited |= nt_sample_is_edited(&in[r]);
        out[r].n_top = 0;
        out[r].failed = false;
    }
    if (logprobs) {
        NT_TRY(nt_sampler_stats(s, logits, n, s->n_head_rows));
        for (int32_t r = 0; r < n; r++) {
            /* a neighbour's wish for log-probabilities changes nothing for this row */
            out[r].failed = nt_sample_wants_logprobs(in[r].params) && !isfinite(s->sum[r]);
            lse[r] = s->max[r] + logf(s->sum[r]);
        }
        NT_TRY(nt_sampler_top_logprobs(s, logits, in, out, n));
    }
    if (logprobs && edited) NT_TRY(nt_sampler_keep_raw(s, logits, n));
    if (edited) NT_TRY(nt_sampler_shape(s, logits, in, n, false));
    NT_TRY(draw_rows(s, logits, in, out, n));
    return logprobs ? nt_sampler_chosen(s, edited ? s->raw : logits, lse, out, n) : NT_OK;
}
