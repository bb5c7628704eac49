/* A step of fine-tuning: a global batch forward and backward, its update, and the same without one for held-out rows.
 */
#include "bench_train.h"
#include "clock.h"
#include "schedule.h"
#include "stop.h"
#include "trainer_state.h"
#include "watchdog.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SKIPPED = 50 /* steps in a row: more of them are no accident, nor is more than half of a run */ };

/* ---- sums over the world --------------------------------------------------------------------------------------- */

/* Doubles of the data-parallel ranks, added in rank order: the same bits everywhere. */
static nt_status sum_over_dp(const struct nt_trainer *t, double *x, int32_t n) {
    const int32_t size = t->world->dp_size;
    if (size == 1) return NT_OK;
    double *all = malloc((size_t)size * (size_t)n * sizeof *all);
    NT_TRY(nt_comm_agree(t->world->dp, all ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for the sums of %d ranks", size)));
    const nt_status st = nt_comm_allgather(t->world->dp, x, all, (size_t)n * sizeof *x);
    for (int32_t i = 0; i < n; i++) {
        x[i] = 0;
        for (int32_t r = 0; r < size; r++) x[i] += all[(int64_t)r * n + i];
    }
    free(all);
    return st;
}

static nt_status sum_sums(const struct nt_trainer *t, struct nt_train_sums *s) {
    _Static_assert(sizeof *s % sizeof(double) == 0, "all of it is doubles");
    return sum_over_dp(t, (double *)s, (int32_t)(sizeof *s / sizeof(double)));
}

/* ---- a batch --------------------------------------------------------------------------------------------------- */

static struct nt_pack_job share_of(const struct nt_trainer *t, const struct nt_example_set *set, int32_t n,
                                   enum nt_pack_part part) {
    return (struct nt_pack_job){.set = set,
                                .examples = t->examples,
                                .other = part == NT_PACK_MISMATCH ? t->other : NULL,
                                .n_samples = n,
                                .rank = t->world->dp_rank,
                                .size = t->world->dp_size,
                                .budget = t->budget,
                                .packing = t->c->train_packing,
                                .part = part};
}

static double micro_flops(const struct nt_trainer *t, const struct nt_micro_batch *m) {
    const int64_t adapter = t->lora.targets ? nt_training_count(t->out->training) : 0;
    double flops = 0;
    for (int32_t i = 0; i < m->n_seq; i++)
        flops += nt_train_flops(t->job->model, adapter, m->seqs[i].n_tok, m->seqs[i].n_out);
    return flops;
}

/* Once: data of one answer alone never have a pair. */
static void warn_no_pairs(struct nt_trainer *t) {
    if (!t->told_no_pairs && t->world->rank == 0)
        nt_warn("train",
                "a batch behind step %" PRId64 " has the same completion in all its rows, so there is no other "
                "one to pair a prompt with: its kl counts as 0 (told once)",
                t->state.step);
    t->told_no_pairs = true;
}

/* kto: how far the model has moved from its reference, from prompts with other rows' completions. */
static nt_status estimate_kl(struct nt_trainer *t, struct nt_order *order, const struct nt_example_set *set,
                             int64_t cursor, int32_t n, double *kl) {
    struct nt_train_sums sums = {0};
    nt_order_mismatch(order, cursor, t->examples, n, t->other);
    const struct nt_pack_job share = share_of(t, set, n, NT_PACK_MISMATCH);
    NT_TRY(nt_pack_build(&t->pack, &share));
    for (int32_t i = 0; i < t->pack.n_micros; i++) {
        const struct nt_reference *known = set == &t->out->data.eval ? &t->eval_mismatch : &t->mismatch;
        const struct nt_micro_job j = {
            .set = set, .micro = &t->pack.micros[i], .reference = known->logp ? known : NULL, .cursor = cursor};
        NT_TRY(nt_run_mismatch(&t->runner, &j, &sums));
    }
    NT_TRY(sum_sums(t, &sums));
    if (sums.n_kl == 0) warn_no_pairs(t);
    *kl = sums.n_kl > 0 && sums.kl > 0 ? sums.kl / sums.n_kl : 0;
    return NT_OK;
}

/* t->examples [n] through the model. */
static nt_status run_batch(struct nt_trainer *t, struct nt_order *order, const struct nt_example_set *set,
                           const struct nt_reference *reference, int64_t cursor, int32_t n, bool train,
                           struct nt_step_outcome *o) {
    if (t->loss->kl) NT_TRY(estimate_kl(t, order, set, cursor, n, &o->kl));
    const struct nt_pack_job share = share_of(t, set, n, NT_PACK_TRAIN);
    NT_TRY(nt_pack_build(&t->pack, &share));
    struct nt_micro_job j = {
        .set = set, .reference = t->loss->reference ? reference : NULL, .cursor = cursor, .kl = o->kl, .train = train};
    j.normalizer = nt_pack_normalizer(set, t->examples, n);
    j.mean_target = nt_pack_mean_target(set, t->examples, n);
    double counted[2] = {0};
    for (int32_t i = 0; i < t->pack.n_micros; i++) {
        j.micro = &t->pack.micros[i];
        nt_watchdog_beat(t->job->watchdog, train ? "training" : "evaluating");
        NT_TRY(nt_run_micro(&t->runner, &j, &o->sums));
        counted[0] += micro_flops(t, j.micro);
        counted[1] += j.micro->n_tok;
    }
    NT_TRY(sum_sums(t, &o->sums));
    NT_TRY(sum_over_dp(t, counted, 2));
    o->flops += counted[0];
    o->n_tokens += (int64_t)counted[1];
    return NT_OK;
}

/* ---- a step ---------------------------------------------------------------------------------------------------- */

/* Numbers no update may be made from; *why in words. */
static bool is_bad(const struct nt_trainer *t, const struct nt_step_outcome *o, const char **why) {
    *why = NULL;
    if (!isfinite(o->sums.loss))
        *why = "the loss is not finite";
    else if (!isfinite(o->norm))
        *why = "a gradient is not finite";
    else if (t->c->train_spike_factor > 0 && t->state.step >= 10 &&
             o->norm > t->c->train_spike_factor * t->state.norm_mean)
        *why = "the gradient norm is a spike";
    return *why != NULL;
}

/* "a.h5 21, 12; b.h5 3": the conversations of the batch, as many as there is room for. */
static void name_rows(const struct nt_trainer *t, char *buf, size_t cap) {
    const struct nt_prepared *data = &t->out->data;
    int32_t file = -1;
    size_t len = 0;
    for (int32_t i = 0; i < t->batch; i++) {
        const struct nt_example *e = &data->train.rows[t->examples[i]];
        char one[320];
        const int n = e->file == file ? snprintf(one, sizeof one, ", %" PRId64, e->conversation)
                                      : snprintf(one, sizeof one, "%s%.250s %" PRId64, i ? "; " : "",
                                                 data->files[e->file], e->conversation);
        if (len + (size_t)n + sizeof " ..." > cap) {
            memcpy(buf + len, " ...", sizeof " ...");
            return;
        }
        memcpy(buf + len, one, (size_t)n + 1);
        len += (size_t)n;
        file = e->file;
    }
}

static void follow_norm(struct nt_trainer *t, double norm) {
    t->state.norm_mean = t->state.norm_mean == 0 ? norm : 0.9 * t->state.norm_mean + 0.1 * norm;
}

static nt_status refuse_step(struct nt_trainer *t, const struct nt_step_outcome *o, const char *why) {
    char rows[400];
    name_rows(t, rows, sizeof rows);
    if (strcmp(t->c->train_on_nan, "skip") != 0)
        return NT_FAIL(NT_E_DATA,
                       "step %" PRId64
                       ": %s (loss %g, gradient norm %g, mean norm %g); conversations of the batch: %s. "
                       "Lower train.learning_rate, or set train.on_nan = skip; the last checkpoint is untouched",
                       t->state.step + 1, why, o->sums.loss, o->norm, t->state.norm_mean, rows);
    t->state.n_skipped++;
    t->skipped_in_row++;
    if (t->skipped_in_row >= MAX_SKIPPED || 2 * t->state.n_skipped > t->total)
        return NT_FAIL(NT_E_DATA,
                       "step %" PRId64 ": %s (loss %g, gradient norm %g); %" PRId64 " of the run's %" PRId64
                       " steps are left out, the last %d in a row, which is too much for a result; lower "
                       "train.learning_rate, or raise train.spike_factor where that is the reason",
                       t->state.step + 1, why, o->sums.loss, o->norm, t->state.n_skipped, t->total, t->skipped_in_row);
    /* The mean follows spikes, as far as they are none: norms may stay so large. */
    if (isfinite(o->norm) && isfinite(o->sums.loss)) follow_norm(t, t->c->train_spike_factor * t->state.norm_mean);
    nt_warn("train", "step %" PRId64 " is left out: %s (loss %g, gradient norm %g); conversations of the batch: %s",
            t->state.step + 1, why, o->sums.loss, o->norm, rows);
    return NT_OK;
}

static nt_status update(struct nt_trainer *t, struct nt_step_outcome *o) {
    const struct nt_adamw adamw = {.lr = o->lr,
                                   .beta1 = t->c->train_adam_beta1,
                                   .beta2 = t->c->train_adam_beta2,
                                   .eps = t->c->train_adam_epsilon,
                                   .weight_decay = t->c->train_weight_decay,
                                   .max_grad_norm = t->c->train_max_grad_norm};
    const char *why;
    o->skipped = is_bad(t, o, &why);
    if (o->skipped) return refuse_step(t, o, why);
    t->skipped_in_row = 0;
    follow_norm(t, o->norm);
    return nt_training_update(t->out->training, &adamw, t->state.step + 1 - t->state.n_skipped, o->norm);
}

nt_status nt_trainer_step(struct nt_trainer *t, struct nt_step_outcome *o) {
    const double start = nt_now();
    *o = (struct nt_step_outcome){0};
    o->lr = t->c->train_learning_rate *
            nt_schedule_at(nt_schedule_of(t->c->train_lr_scheduler_type), t->state.step, t->warmup, t->total);
    nt_order_take(&t->order, t->state.cursor, t->batch, t->examples);
    NT_TRY(nt_training_zero_grads(t->out->training));
    NT_TRY(run_batch(t, &t->order, &t->out->data.train, &t->reference, t->state.cursor, t->batch, true, o));
    NT_TRY(nt_training_reduce(t->out->training, &o->norm));
    NT_TRY(update(t, o));
    t->state.step++;
    t->state.cursor += t->batch;
    t->state.n_tokens += o->n_tokens;
    t->run_tokens += o->n_tokens;
    t->flops += o->flops;
    o->seconds = nt_now() - start;
    return NT_OK;
}

/* ---- stops ------------------------------------------------------------------------------------------------------- */

nt_status nt_trainer_look_for_stop(struct nt_trainer *t) {
    int64_t level = nt_stop_level(t->deadline);
    NT_TRY(nt_comm_allreduce_max_i64(t->world->world, &level, 1));
    if (level > 0 && t->stop == 0 && t->world->rank == 0)
        nt_info("train", "stopping after step %" PRId64 ": %s", t->state.step,
                nt_stop_level(t->deadline) ? nt_stop_reason() : "a signal to another rank");
    t->stop = (int)level;
    return NT_OK;
}

/* ---- evaluation ------------------------------------------------------------------------------------------------ */

static void add_rewards(struct nt_train_sums *to, const struct nt_train_sums *s) {
    for (int i = 0; i < 2; i++) {
        to->reward[i] += s->reward[i];
        to->n_reward[i] += s->n_reward[i];
    }
    to->n_right += s->n_right;
    to->n_rows += s->n_rows;
}

static void tell_evaluation(struct nt_trainer *t, const struct nt_train_sums *all, double loss, double seconds) {
    const double margin = t->loss->reference ? nt_train_margin(all) : NAN;
    char liked[40] = "";
    if (isfinite(margin)) (void)snprintf(liked, sizeof liked, ", margin %.4f", margin);
    nt_info("train", "step %" PRId64 ": held-out loss %.4f%s over %d rows (%.1f s)", t->state.step, loss, liked,
            t->out->data.eval.n, seconds);
    nt_metrics_event(&t->metrics, "eval", NT_INT("step", t->state.step), NT_NUM("eval_loss", loss),
                     NT_NUM("margin", margin),
                     NT_NUM("accuracy", t->loss->n_members == 2 ? nt_train_accuracy(all) : NAN));
}

nt_status nt_trainer_evaluate(struct nt_trainer *t, double *loss) {
    const struct nt_example_set *set = &t->out->data.eval;
    *loss = NAN;
    if (set->n == 0) return NT_OK;
    struct nt_order order = {.set = set, .seed = (uint64_t)t->c->train_seed};
    struct nt_train_sums all = {0};
    double sum = 0, weights = 0;
    const double start = nt_now();
    for (int32_t first = 0; first < set->n; first += t->batch) {
        const int32_t n = set->n - first < t->batch ? set->n - first : t->batch;
        struct nt_step_outcome o = {0};
        NT_TRY(nt_trainer_look_for_stop(t));
        if (t->stop) return NT_OK;
        nt_order_take(&order, first, n, t->examples);
        NT_TRY(run_batch(t, &order, set, &t->eval_reference, first, n, false, &o));
        const double normalizer = nt_pack_normalizer(set, t->examples, n);
        sum += o.sums.loss * normalizer;
        weights += normalizer;
        add_rewards(&all, &o.sums);
    }
    *loss = sum / weights;
    if (t->world->rank == 0) tell_evaluation(t, &all, *loss, nt_now() - start);
    return NT_OK;
}
