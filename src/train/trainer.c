#include "trainer.h"
#include "clock.h"
#include "reference.h"
#include "trainer_state.h"
#include "watchdog.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the loop -------------------------------------------------------------------------------------------------- */

/* No step is faster than the machine: the peak was measured beside other load. One rank alone measures it again. */
static void look_at_roof(struct nt_trainer *t, double rate) {
    const double before = t->roof.flops;
    const bool alone = t->world->size == 1 && nt_backend_is_host(t->job->backend), told = t->roof.reached;
    if (!(before > 0) || !(rate > before)) return;
    if (!nt_train_roof_raise(&t->roof, rate, alone ? nt_train_peak(t->job->backend) : 0) || told) return;
    nt_info("train", "step %" PRId64 " made %.0f GFLOP/s of a bf16 peak of %.0f: mfu is part of %.0f from here on, %s",
            t->state.step, rate / 1e9, before / 1e9, t->roof.flops / 1e9, nt_train_roof_source(&t->roof));
}

static void tell(struct nt_trainer *t, const struct nt_step_outcome *o) {
    if (t->world->rank > 0) return;
    const double elapsed = nt_now() - t->start, rate = (double)o->n_tokens / o->seconds;
    const double epoch = (double)t->state.cursor / t->out->data.train.n;
    char note[128], percent[NT_TRAIN_MFU_TEXT];
    look_at_roof(t, o->flops / o->seconds);
    const double mfu = nt_train_mfu(&t->roof, o->flops, o->seconds);
    nt_train_mfu_text(&t->roof, mfu, percent);
    snprintf(note, sizeof note, "loss %.4f, mfu %s, lr %.2e, norm %.3f", o->sums.loss, percent, o->lr, o->norm);
    nt_metrics_event(&t->metrics, "step", NT_INT("step", t->state.step), NT_NUM("epoch", epoch),
                     NT_INT("samples", t->state.cursor), NT_INT("tokens", t->state.n_tokens),
                     NT_NUM("loss", o->sums.loss), NT_NUM("lr", o->lr), NT_NUM("grad_norm", o->norm),
                     NT_NUM("margin", t->loss->reference ? nt_train_margin(&o->sums) : NAN),
                     NT_NUM("accuracy", t->loss->n_members == 2 ? nt_train_accuracy(&o->sums) : NAN),
                     NT_NUM("kl", t->loss->kl ? o->kl : NAN), NT_NUM("tokens_per_s", rate), NT_NUM("mfu", mfu),
                     NT_NUM("peak_flops", t->roof.flops > 0 ? t->roof.flops : NAN), NT_INT("skipped", o->skipped),
                     NT_NUM("elapsed_s", elapsed));
    nt_progress_update(&t->progress, t->state.step, (double)t->run_tokens, note);
}

static nt_status save(struct nt_trainer *t) {
    const struct nt_checkpoint_job j = {.world = t->world,
                                        .training = t->out->training,
                                        .dir = t->job->dir,
                                        .job_digest = t->out->job_digest,
                                        .keep = t->c->train_save_total_limit};
    nt_watchdog_beat(t->job->watchdog, "writing a checkpoint");
    return nt_checkpoint_save(&j, &t->state);
}

/* Also after a resume: what was told of this step before is no longer in metrics.jsonl. */
static nt_status evaluate_if_due(struct nt_trainer *t) {
    const bool due = t->state.step < t->total && t->state.step % t->c->train_eval_steps == 0;
    return due ? nt_trainer_evaluate(t, &t->out->eval_loss) : NT_OK;
}

static nt_status after_step(struct nt_trainer *t, const struct nt_step_outcome *o) {
    tell(t, o);
    if (!o->skipped) nt_train_state_add_loss(&t->state, o->sums.loss);
    nt_comm_progress(t->world);
    NT_TRY(nt_trainer_look_for_stop(t));
    const bool saves = t->state.step == t->total || t->stop || t->state.step % t->c->train_save_steps == 0;
    if (saves) NT_TRY(save(t));
    if (t->stop) return NT_OK;
    NT_TRY(evaluate_if_due(t));
    return t->stop && !saves ? save(t) : NT_OK; /* stopped while it evaluated */
}

static nt_status train(struct nt_trainer *t) {
    struct nt_step_outcome o;
    t->start = nt_now();
    NT_TRY(evaluate_if_due(t));
    if (t->state.step == 0) t->state.eval_first = t->out->eval_loss;
    NT_TRY(nt_trainer_look_for_stop(t));
    if (t->world->rank == 0)
        nt_progress_begin(&t->progress, "steps", "tok/s", t->state.step, t->total, t->c->run_log_interval_s);
    while (t->state.step < t->total && !t->stop) {
        NT_TRY(nt_trainer_step(t, &o));
        NT_TRY(after_step(t, &o));
    }
    if (t->world->rank == 0) nt_progress_end(&t->progress, t->state.step, (double)t->run_tokens);
    if (t->state.step < t->total)
        return NT_FAIL(NT_E_STOPPED, "stopped after %" PRId64 " of %" PRId64 " steps; the same command resumes",
                       t->state.step, t->total);
    NT_TRY(nt_trainer_evaluate(t, &t->out->eval_loss));
    if (!t->stop || t->out->data.eval.n == 0) return NT_OK;
    return NT_FAIL(NT_E_STOPPED, "stopped before the last evaluation; the same command resumes");
}

/* ---- end ------------------------------------------------------------------------------------------------------- */

static nt_status finish(struct nt_trainer *t) {
    struct nt_train_result *r = t->out;
    r->n_steps = t->state.step;
    r->n_samples = t->state.cursor;
    r->n_tokens = t->state.n_tokens;
    r->n_skipped = t->state.n_skipped;
    r->train_loss = nt_train_state_loss(&t->state);
    r->eval_loss_first = t->state.eval_first;
    r->seconds = nt_now() - t->start;
    const bool stepped = t->run_tokens > 0 && r->seconds > 0; /* else all was left to do was the end */
    r->tokens_per_s = stepped ? (double)t->run_tokens / r->seconds : NAN;
    r->mfu = stepped ? nt_train_mfu(&t->roof, t->flops, r->seconds) : NAN;
    r->roof = t->roof;
    return r->adapter ? nt_training_to_adapter(r->training, r->adapter) : NT_OK;
}

static void close_all(struct nt_trainer *t) {
    nt_metrics_close(&t->metrics);
    nt_order_close(&t->order);
    nt_pack_release(&t->pack);
    nt_reference_release(&t->reference);
    nt_reference_release(&t->eval_reference);
    nt_reference_release(&t->mismatch);
    nt_reference_release(&t->eval_mismatch);
    free(t->examples);
    free(t->other);
}

nt_status nt_train_run(const struct nt_train_job *job, struct nt_train_result *out) {
    struct nt_trainer t = {.job = job, .c = job->config, .world = job->world, .out = out, .metrics = {.fd = -1}};
    *out = (struct nt_train_result){.eval_loss_first = NAN, .eval_loss = NAN};
    t.loss = nt_loss_find(t.c->train_loss, t.c->train_loss_type);
    NT_CHECK(t.loss);
    nt_status st = nt_trainer_open(&t);
    if (st == NT_OK && !out->complete) st = train(&t);
    if (st == NT_OK && !out->complete) st = finish(&t);
    close_all(&t);
    return st;
}

void nt_train_result_release(struct nt_train_result *r) {
    nt_training_free(r->training);
    nt_adapter_free(r->adapter);
    nt_prepared_release(&r->data);
    nt_job_memory_release(&r->memory);
    *r = (struct nt_train_result){0};
}
