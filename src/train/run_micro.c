#include "run_micro.h"
#include <math.h>
#include <string.h>

double nt_train_margin(const struct nt_train_sums *s) {
    return s->reward[0] / s->n_reward[0] - s->reward[1] / s->n_reward[1];
}

double nt_train_accuracy(const struct nt_train_sums *s) {
    return s->n_right / s->n_rows;
}

nt_status nt_runner_layout(struct nt_runner *r, struct nt_job_memory *mem, const struct nt_step_limits *max) {
    struct nt_arena *a = &mem->host;
    r->max = *max;
    NT_TRY(nt_training_layout(r->training, mem, max));
    NT_TRY(nt_kv_pool_take(mem, r->model, (int32_t)max->pages, &r->kv));
    r->pages = NT_TAKE(a, int32_t, max->pages);
    r->seqs = NT_TAKE(a, struct nt_attn_seq, max->seq);
    r->keys = NT_TAKE(a, uint64_t, max->tok);
    r->logp = NT_TAKE(a, float, max->out);
    r->coef = NT_TAKE(a, float, max->out);
    for (int32_t i = 0; r->pages && i < max->pages; i++) r->pages[i] = i;
    return NT_OK;
}

/* ---- to the model ---------------------------------------------------------------------------------------------- */

/* Sequences take the pages in order; the last page of each is written in part only. */
static struct nt_batch batch_of(struct nt_runner *r, const struct nt_micro_batch *micro) {
    int32_t page = 0;
    NT_CHECK(micro->n_seq <= r->max.seq);
    for (int32_t i = 0; i < micro->n_seq; i++) {
        const struct nt_pack_seq *s = &micro->seqs[i];
        const int32_t n = (s->n_tok + NT_KV_PAGE - 1) / NT_KV_PAGE;
        r->seqs[i] = (struct nt_attn_seq){.q_row = s->row0, .n_q = s->n_tok, .pages = r->pages + page};
        page += n;
        NT_CHECK(page <= r->kv.n_page);
        nt_kv_page_zero(r->model, &r->kv, page - 1);
    }
    return (struct nt_batch){.ids = micro->ids,
                             .seqs = r->seqs,
                             .out_rows = micro->out_rows,
                             .n_tok = micro->n_tok,
                             .n_seq = micro->n_seq,
                             .n_out = micro->n_out};
}

/* A token is named by its sample's place in the order, its member and its position (splitmix64's finalizer). */
static uint64_t token_key(int64_t sample, int32_t member, int32_t pos) {
    uint64_t z = ((uint64_t)sample * NT_MAX_MEMBERS + (uint64_t)member) * 0x9E3779B97F4A7C15u + (uint64_t)pos;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static const uint64_t *name_tokens(struct nt_runner *r, const struct nt_micro_job *j) {
    if (!r->keyed || !j->train) return NULL;
    for (int32_t i = 0; i < j->micro->n_seq; i++) {
        const struct nt_pack_seq *s = &j->micro->seqs[i];
        for (int32_t t = 0; t < s->n_tok; t++) r->keys[s->row0 + t] = token_key(j->cursor + s->sample, s->member, t);
    }
    return r->keys;
}

static nt_status forward(struct nt_runner *r, const struct nt_micro_job *j, enum nt_forward kind) {
    const struct nt_batch b = batch_of(r, j->micro);
    return nt_training_forward(r->training, &b, &r->kv, kind == NT_FORWARD_TRAIN ? name_tokens(r, j) : NULL, r->seed,
                               kind);
}

static double seq_logp(const struct nt_runner *r, const struct nt_micro_batch *m, const struct nt_pack_seq *s) {
    double sum = 0;
    for (int32_t i = s->out0; i < s->out0 + s->n_out; i++) sum += (double)m->weights[i] * r->logp[i];
    return sum;
}

static double seq_weight(const struct nt_micro_batch *m, const struct nt_pack_seq *s) {
    double sum = 0;
    for (int32_t i = s->out0; i < s->out0 + s->n_out; i++) sum += m->weights[i];
    return sum;
}

/* ---- the reference --------------------------------------------------------------------------------------------- */

static float *known(const struct nt_reference *ref, const struct nt_pack_seq *s, int64_t cursor) {
    return &ref->logp[(ref->of_samples ? cursor + s->sample : s->example) * NT_MAX_MEMBERS + s->member];
}

nt_status nt_run_reference(struct nt_runner *r, const struct nt_micro_batch *micro, int64_t cursor,
                           struct nt_reference *out) {
    const struct nt_micro_job j = {.micro = micro};
    NT_TRY(forward(r, &j, NT_FORWARD_REFERENCE));
    NT_TRY(nt_training_logprobs(r->training, micro->targets, r->logp));
    for (int32_t i = 0; i < micro->n_seq; i++)
        *known(out, &micro->seqs[i], cursor) = (float)seq_logp(r, micro, &micro->seqs[i]);
    return NT_OK;
}

/* ---- losses ---------------------------------------------------------------------------------------------------- */

static void spread_coef(struct nt_runner *r, const struct nt_micro_batch *m, const struct nt_pack_seq *s, double d) {
    for (int32_t i = s->out0; i < s->out0 + s->n_out; i++) r->coef[i] = (float)(d * m->weights[i]);
}

static void count(const struct nt_runner *r, const struct nt_loss_in *in, const struct nt_loss_out *out, double scale,
                  struct nt_train_sums *sums) {
    sums->loss += scale * out->loss;
    sums->n_rows++;
    for (int32_t i = 0; i < r->loss->n_members; i++) {
        sums->nll -= in->logp[i];
        sums->n_target += in->n_target[i];
    }
    if (!r->loss->reference) return;
    const bool pair = r->loss->n_members == 2;
    for (int i = 0; i < 2; i++) {
        if (!pair && in->desirable != (i == 0)) continue;
        sums->reward[i] += out->reward[pair ? i : 0];
        sums->n_reward[i]++;
    }
    if (pair) sums->n_right += out->reward[NT_CHOSEN] > out->reward[NT_REJECTED];
}

/* Losses and coefficients of all examples, from the log-probabilities in r->logp. */
static void judge(struct nt_runner *r, const struct nt_micro_job *j, struct nt_train_sums *sums) {
    const struct nt_micro_batch *m = j->micro;
    const int32_t n_members = r->loss->n_members;
    for (int32_t i = 0; i < m->n_seq; i += n_members) {
        const struct nt_pack_seq *s = &m->seqs[i];
        struct nt_loss_in in = {
            .desirable = j->set->rows[s->example].label, .mean_target = j->mean_target, .kl = j->kl};
        struct nt_loss_out out;
        for (int32_t k = 0; k < n_members; k++) {
            NT_CHECK(s[k].example == s->example && s[k].member == k);
            in.logp[k] = seq_logp(r, m, &s[k]);
            in.n_target[k] = seq_weight(m, &s[k]);
            if (r->loss->reference) in.reference[k] = *known(j->reference, &s[k], j->cursor);
        }
        const double scale = nt_example_weight(j->set, s->example) / j->normalizer;
        r->loss->run(&r->settings, &in, &out);
        count(r, &in, &out, scale, sums);
        for (int32_t k = 0; k < n_members; k++) spread_coef(r, m, &s[k], scale * out.d[k]);
    }
}

/* Where the loss is linear in log p, one pass over the vocabulary is enough: coefficients are known before. */
static nt_status run_linear(struct nt_runner *r, const struct nt_micro_job *j) {
    for (int32_t i = 0; i < j->micro->n_seq; i++) {
        const struct nt_pack_seq *s = &j->micro->seqs[i];
        spread_coef(r, j->micro, s, -nt_example_weight(j->set, s->example) / j->normalizer);
    }
    return nt_training_backward(r->training, j->micro->targets, r->coef, r->logp);
}

nt_status nt_run_micro(struct nt_runner *r, const struct nt_micro_job *j, struct nt_train_sums *sums) {
    NT_TRY(forward(r, j, j->train ? NT_FORWARD_TRAIN : NT_FORWARD_EVAL));
    const bool linear = r->loss->token_sum;
    if (j->train && linear) {
        NT_TRY(run_linear(r, j));
        judge(r, j, sums);
        return NT_OK;
    }
    NT_TRY(nt_training_logprobs(r->training, j->micro->targets, r->logp));
    judge(r, j, sums);
    return j->train ? nt_training_backward(r->training, j->micro->targets, r->coef, NULL) : NT_OK;
}

nt_status nt_run_mismatch(struct nt_runner *r, const struct nt_micro_job *j, struct nt_train_sums *sums) {
    for (int pass = 0; pass < (j->reference ? 1 : 2); pass++) {
        NT_TRY(forward(r, j, pass == 0 ? NT_FORWARD_EVAL : NT_FORWARD_REFERENCE));
        NT_TRY(nt_training_logprobs(r->training, j->micro->targets, r->logp));
        for (int32_t i = 0; i < j->micro->n_seq; i++)
            sums->kl += (pass == 0 ? 1 : -1) * seq_logp(r, j->micro, &j->micro->seqs[i]);
    }
    for (int32_t i = 0; i < j->micro->n_seq && j->reference; i++)
        sums->kl -= *known(j->reference, &j->micro->seqs[i], j->cursor);
    sums->n_kl += j->micro->n_seq;
    return NT_OK;
}
