#include "trainer.h"
#include "adapter_io.h"
#include "bench_train.h"
#include "checkpoint.h"
#include "clock.h"
#include "complete.h"
#include "env.h"
#include "fileio.h"
#include "log.h"
#include "metrics.h"
#include "order.h"
#include "outdir.h"
#include "packing.h"
#include "train_metrics.h"
#include "peak.h"
#include "reference.h"
#include "schedule.h"
#include "stop.h"
#include "sysmem.h"
#include "train_digest.h"
#include "watchdog.h"
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct trainer {
    const struct nt_train_job *job;
    const struct nt_config *c;
    struct nt_world *world;
    struct nt_train_result *out;
    const struct nt_loss *loss;
    struct nt_runner runner;
    struct nt_lora_shape lora;
    struct nt_order order;
    struct nt_pack pack;
    struct nt_reference reference, eval_reference;
    uint8_t reference_digest[32]; /* of the model it is */
    struct nt_train_state state;
    bool resumed;
    struct nt_metrics metrics;
    struct nt_progress progress;
    int32_t *examples, *other; // [batch_size]
    int32_t batch, budget;     /* samples of a step; tokens of a micro-batch */
    int64_t total, warmup;     /* steps */
    double deadline, peak;     /* FLOP/s of all ranks; 0: unknown */
    double start, flops;       /* of this run's steps */
    int64_t run_tokens;
    int stop; /* enum nt_stop_level all ranks agree on */
};

/* What a step did. */
struct outcome {
    struct nt_train_sums sums;
    double norm, lr, kl, seconds, flops;
    int64_t n_tokens;
    bool skipped;
};

/* ---- sums over the world --------------------------------------------------------------------------------------- */

/* Doubles of the data-parallel ranks, added in rank order: the same bits everywhere. */
static nt_status sum_over_dp(const struct trainer *t, double *x, int32_t n) {
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

static nt_status sum_sums(const struct trainer *t, struct nt_train_sums *s) {
    _Static_assert(sizeof *s % sizeof(double) == 0, "all of it is doubles");
    return sum_over_dp(t, (double *)s, (int32_t)(sizeof *s / sizeof(double)));
}

/* ---- a batch --------------------------------------------------------------------------------------------------- */

static struct nt_pack_job share_of(const struct trainer *t, const struct nt_example_set *set, int32_t n,
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

static double micro_flops(const struct trainer *t, const struct nt_micro_batch *m) {
    const int64_t adapter = t->lora.targets ? nt_training_count(t->out->training) : 0;
    double flops = 0;
    for (int32_t i = 0; i < m->n_seq; i++)
        flops += nt_train_flops(t->job->model, adapter, m->seqs[i].n_tok, m->seqs[i].n_out);
    return flops;
}

/* kto: how far the model has moved from its reference, from prompts with other rows' completions. */
static nt_status estimate_kl(struct trainer *t, struct nt_order *order, const struct nt_example_set *set,
                             int64_t cursor, int32_t n, double *kl) {
    struct nt_train_sums sums = {0};
    nt_order_mismatch(order, cursor, t->examples, n, t->other);
    const struct nt_pack_job share = share_of(t, set, n, NT_PACK_MISMATCH);
    NT_TRY(nt_pack_build(&t->pack, &share));
    for (int32_t i = 0; i < t->pack.n_micros; i++) {
        const struct nt_micro_job j = {.set = set, .micro = &t->pack.micros[i], .cursor = cursor};
        NT_TRY(nt_run_mismatch(&t->runner, &j, &sums));
    }
    NT_TRY(sum_sums(t, &sums));
    *kl = sums.n_kl > 0 && sums.kl > 0 ? sums.kl / sums.n_kl : 0;
    return NT_OK;
}

/* t->examples [n] through the model. */
static nt_status run_batch(struct trainer *t, struct nt_order *order, const struct nt_example_set *set,
                           const struct nt_reference *reference, int64_t cursor, int32_t n, bool train,
                           struct outcome *o) {
    if (t->loss->kl) NT_TRY(estimate_kl(t, order, set, cursor, n, &o->kl));
    const struct nt_pack_job share = share_of(t, set, n, NT_PACK_TRAIN);
    NT_TRY(nt_pack_build(&t->pack, &share));
    struct nt_micro_job j = {
        .set = set, .reference = t->loss->reference ? reference : NULL, .cursor = cursor, .kl = o->kl, .train = train};
    j.normalizer = nt_pack_normalizer(set, t->examples, n);
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
static bool is_bad(const struct trainer *t, const struct outcome *o, const char **why) {
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

static nt_status refuse_step(struct trainer *t, const struct outcome *o, const char *why) {
    char rows[160];
    size_t len = 0;
    for (int32_t i = 0; i < t->batch && len < sizeof rows - 24; i++)
        len += (size_t)snprintf(rows + len, sizeof rows - len, "%s%" PRId64, i ? ", " : "",
                                t->out->data.train.rows[t->examples[i]].record);
    if (strcmp(t->c->train_on_nan, "skip") != 0)
        return NT_FAIL(NT_E_DATA,
                       "step %" PRId64 ": %s (loss %g, gradient norm %g, mean norm %g); records of the batch: %s%s. "
                       "Lower train.learning_rate, or set train.on_nan = skip; the last checkpoint is untouched",
                       t->state.step + 1, why, o->sums.loss, o->norm, t->state.norm_mean, rows,
                       len >= sizeof rows - 24 ? " ..." : "");
    t->state.n_skipped++;
    nt_warn("train", "step %" PRId64 " is left out: %s (loss %g, gradient norm %g); records of the batch: %s",
            t->state.step + 1, why, o->sums.loss, o->norm, rows);
    return NT_OK;
}

static nt_status update(struct trainer *t, struct outcome *o) {
    const struct nt_adamw adamw = {.lr = o->lr,
                                   .beta1 = t->c->train_adam_beta1,
                                   .beta2 = t->c->train_adam_beta2,
                                   .eps = t->c->train_adam_epsilon,
                                   .weight_decay = t->c->train_weight_decay,
                                   .max_grad_norm = t->c->train_max_grad_norm};
    const char *why;
    o->skipped = is_bad(t, o, &why);
    if (o->skipped) return refuse_step(t, o, why);
    t->state.norm_mean = t->state.step == 0 ? o->norm : 0.9 * t->state.norm_mean + 0.1 * o->norm;
    return nt_training_update(t->out->training, &adamw, t->state.step + 1 - t->state.n_skipped, o->norm);
}

static nt_status step(struct trainer *t, struct outcome *o) {
    const double start = nt_now();
    *o = (struct outcome){0};
    o->lr = t->c->train_learning_rate *
            nt_schedule_at(nt_schedule_of(t->c->train_lr_scheduler_type), t->state.step, t->warmup, t->total);
    nt_order_take(&t->order, t->state.cursor, t->batch, t->examples);
    nt_training_zero_grads(t->out->training);
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

/* ---- evaluation ------------------------------------------------------------------------------------------------ */

static nt_status evaluate(struct trainer *t, double *loss) {
    const struct nt_example_set *set = &t->out->data.eval;
    *loss = NAN;
    if (set->n == 0) return NT_OK;
    struct nt_order order = {.set = set, .seed = (uint64_t)t->c->train_seed};
    struct nt_train_sums all = {0};
    double sum = 0, weights = 0;
    const double start = nt_now();
    for (int32_t first = 0; first < set->n; first += t->batch) {
        const int32_t n = set->n - first < t->batch ? set->n - first : t->batch;
        struct outcome o = {0};
        for (int32_t i = 0; i < n; i++) t->examples[i] = first + i;
        NT_TRY(run_batch(t, &order, set, &t->eval_reference, first, n, false, &o));
        const double normalizer = nt_pack_normalizer(set, t->examples, n);
        sum += o.sums.loss * normalizer;
        weights += normalizer;
        for (int i = 0; i < 2; i++) {
            all.reward[i] += o.sums.reward[i];
            all.n_reward[i] += o.sums.n_reward[i];
        }
        all.n_right += o.sums.n_right;
        all.n_rows += o.sums.n_rows;
    }
    *loss = sum / weights;
    if (t->world->rank > 0) return NT_OK;
    const double margin = all.reward[0] / all.n_reward[0] - all.reward[1] / all.n_reward[1];
    nt_info("train", "step %" PRId64 ": held-out loss %.4f over %d rows (%.1f s)", t->state.step, *loss, set->n,
            nt_now() - start);
    nt_metrics_event(&t->metrics, "eval", NT_INT("step", t->state.step), NT_NUM("eval_loss", *loss),
                     NT_NUM("margin", t->loss->reference ? margin : NAN),
                     NT_NUM("accuracy", t->loss->n_members == 2 ? all.n_right / all.n_rows : NAN));
    return NT_OK;
}

/* ---- the loop -------------------------------------------------------------------------------------------------- */

static double margin_of(const struct nt_train_sums *s) {
    return s->reward[0] / s->n_reward[0] - s->reward[1] / s->n_reward[1];
}

static double mfu_of(const struct trainer *t, double flops, double seconds) {
    return t->peak > 0 && seconds > 0 ? flops / seconds / t->peak : NAN;
}

static void tell(struct trainer *t, const struct outcome *o) {
    if (t->world->rank > 0) return;
    const double elapsed = nt_now() - t->start, rate = (double)o->n_tokens / o->seconds;
    const double epoch = (double)t->state.cursor / t->out->data.train.n;
    char note[128];
    snprintf(note, sizeof note, "loss %.4f, lr %.2e, norm %.3f, mfu %.0f%%", o->sums.loss, o->lr, o->norm,
             100 * mfu_of(t, o->flops, o->seconds));
    nt_metrics_event(
        &t->metrics, "step", NT_INT("step", t->state.step), NT_NUM("epoch", epoch), NT_INT("samples", t->state.cursor),
        NT_INT("tokens", t->state.n_tokens), NT_NUM("loss", o->sums.loss), NT_NUM("lr", o->lr),
        NT_NUM("grad_norm", o->norm), NT_NUM("margin", t->loss->reference ? margin_of(&o->sums) : NAN),
        NT_NUM("accuracy", t->loss->n_members == 2 ? o->sums.n_right / o->sums.n_rows : NAN),
        NT_NUM("kl", t->loss->kl ? o->kl : NAN), NT_NUM("tokens_per_s", rate),
        NT_NUM("mfu", mfu_of(t, o->flops, o->seconds)), NT_INT("skipped", o->skipped), NT_NUM("elapsed_s", elapsed));
    nt_progress_update(&t->progress, t->state.step, (double)t->run_tokens, note);
}

static nt_status save(struct trainer *t) {
    const struct nt_checkpoint_job j = {.world = t->world,
                                        .training = t->out->training,
                                        .dir = t->job->dir,
                                        .job_digest = t->out->job_digest,
                                        .keep = t->c->train_save_total_limit};
    nt_watchdog_beat(t->job->watchdog, "writing a checkpoint");
    return nt_checkpoint_save(&j, &t->state);
}

/* Any rank may be told to stop; all stop after the same step. */
static nt_status look_for_stop(struct trainer *t) {
    int64_t level = nt_stop_level(t->deadline);
    NT_TRY(nt_comm_allreduce_max_i64(t->world->world, &level, 1));
    if (level > 0 && t->stop == 0 && t->world->rank == 0)
        nt_info("train", "stopping after step %" PRId64 ": %s", t->state.step,
                nt_stop_level(t->deadline) ? nt_stop_reason() : "a signal to another rank");
    t->stop = (int)level;
    return NT_OK;
}

/* Also after a resume: what was told of this step before is no longer in metrics.jsonl. */
static nt_status evaluate_if_due(struct trainer *t) {
    const bool due = t->state.step < t->total && t->state.step % t->c->train_eval_steps == 0;
    return due ? evaluate(t, &t->out->eval_loss) : NT_OK;
}

static nt_status after_step(struct trainer *t, const struct outcome *o) {
    enum { RECENT = 20 };
    tell(t, o);
    if (!o->skipped) {
        t->state.n_loss += t->state.n_loss < RECENT;
        t->state.loss_mean += (o->sums.loss - t->state.loss_mean) / (double)t->state.n_loss;
    }
    nt_comm_progress(t->world);
    NT_TRY(look_for_stop(t));
    const bool last = t->state.step == t->total;
    if (last || t->stop || t->state.step % t->c->train_save_steps == 0) NT_TRY(save(t));
    return t->stop ? NT_OK : evaluate_if_due(t);
}

static nt_status train(struct trainer *t) {
    struct outcome o;
    t->start = nt_now();
    NT_TRY(evaluate_if_due(t));
    if (t->state.step == 0) t->state.eval_first = t->out->eval_loss;
    NT_TRY(look_for_stop(t));
    if (t->world->rank == 0)
        nt_progress_begin(&t->progress, "steps", "tok/s", t->state.step, t->total, t->c->run_log_interval_s);
    while (t->state.step < t->total && !t->stop) {
        NT_TRY(step(t, &o));
        NT_TRY(after_step(t, &o));
    }
    if (t->world->rank == 0) nt_progress_end(&t->progress, t->state.step, (double)t->run_tokens);
    if (t->state.step < t->total)
        return NT_FAIL(NT_E_STOPPED, "stopped after %" PRId64 " of %" PRId64 " steps; the same command resumes",
                       t->state.step, t->total);
    return evaluate(t, &t->out->eval_loss);
}

/* ---- start ----------------------------------------------------------------------------------------------------- */

/* The adapter to begin with: fresh, or the one to go on from. */
static nt_status first_adapter(struct trainer *t) {
    const struct nt_config *c = t->c;
    const struct nt_spec *spec = nt_model_spec(t->job->model);
    if (c->train_init_adapter[0]) {
        NT_TRY(nt_adapter_read(c->train_init_adapter, spec, &t->out->adapter));
        NT_TRY(nt_adapter_check_base(t->out->adapter, c->train_init_adapter, t->job->model_digest,
                                     t->job->tokenizer_digest));
    } else {
        uint32_t targets;
        NT_TRY(nt_adapter_targets(c->train_target_modules, &targets));
        NT_TRY(nt_adapter_new(spec, (int32_t)c->train_lora_r, c->train_lora_alpha, c->train_use_rslora, targets,
                              &t->out->adapter));
        nt_adapter_init(t->out->adapter, (uint64_t)c->train_seed);
    }
    t->out->adapter->dropout = c->train_lora_dropout;
    t->lora = (struct nt_lora_shape){.r = t->out->adapter->r,
                                     .scale = (float)nt_adapter_scale(t->out->adapter),
                                     .targets = t->out->adapter->targets};
    return NT_OK;
}

static nt_status open_training(struct trainer *t) {
    const struct nt_config *c = t->c;
    const bool lora = strcmp(c->train_method, "lora") == 0;
    if (!lora && t->loss->kl)
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "kto asks the reference in every step, and with all weights trained the base is "
                       "gone: set train.method = lora");
    if (lora) NT_TRY(first_adapter(t));
    const struct nt_training_config config = {.lora = t->lora,
                                              .recompute = nt_recompute_of(c->train_recompute),
                                              .dropout = (float)c->train_lora_dropout,
                                              .chunk = (int32_t)c->train_logit_rows};
    NT_TRY(nt_training_new(&t->out->training, t->job->model, &config));
    t->runner.keyed = t->lora.targets != 0 && c->train_lora_dropout > 0;
    if (t->out->adapter) NT_TRY(nt_training_from_adapter(t->out->training, t->out->adapter));
    memcpy(t->reference_digest, t->job->model_digest, sizeof t->reference_digest);
    if (!t->loss->reference || strcmp(c->train_reference, "base") == 0) return NT_OK;
    struct nt_adapter *reference = NULL;
    nt_status st = nt_adapter_read(c->train_reference, nt_model_spec(t->job->model), &reference);
    if (st == NT_OK)
        st = nt_adapter_check_base(reference, c->train_reference, t->job->model_digest, t->job->tokenizer_digest);
    if (st == NT_OK) st = nt_training_set_reference(t->out->training, reference);
    if (st == NT_OK) nt_adapter_digest(reference, t->job->model_digest, t->reference_digest);
    nt_adapter_free(reference);
    return st;
}

/* train.input: paths with commas. */
static nt_status open_dataset(const struct nt_config *c, struct nt_dataset **out) {
    enum { MAX_PATHS = 1024 };
    const char *paths[MAX_PATHS];
    int32_t n = 0;
    char *copy = strdup(c->train_input), *rest = copy;
    if (!copy) return NT_FAIL(NT_E_NOMEM, "no memory for train.input");
    for (char *path = strtok_r(rest, ",", &rest); path && n < MAX_PATHS; path = strtok_r(NULL, ",", &rest))
        paths[n++] = path;
    const nt_status st = n > 0 ? nt_dataset_open(out, paths, n, NT_PURPOSE_TRAIN, 0)
                               : NT_FAIL(NT_E_USAGE, "no training data given; add --input CORPUS.h5");
    free(copy);
    return st;
}

static void beat(void *arg) {
    const struct trainer *t = arg;
    nt_watchdog_beat(t->job->watchdog, "preparing data");
}

static nt_status prepare_data(struct trainer *t) {
    const struct nt_beat sign = {.fn = beat, .arg = t};
    struct nt_dataset *d = NULL;
    nt_status st = open_dataset(t->c, &d);
    const struct nt_prepare_input in = {.config = t->c,
                                        .dataset = d,
                                        .tok = t->job->tok,
                                        .chat = t->job->chat,
                                        .chat_error = t->job->chat_error,
                                        .beat = &sign};
    if (st == NT_OK) st = nt_prepare_run(&in, &t->out->data);
    if (t->world->rank == 0) nt_prepare_log(&t->out->data.report);
    nt_dataset_close(d);
    return st;
}

static int32_t budget_of(const struct nt_config *c, const struct nt_prepared *data) {
    if (c->train_micro_batch_tokens > 0) return (int32_t)c->train_micro_batch_tokens;
    return data->train.longest_row > data->eval.longest_row ? data->train.longest_row : data->eval.longest_row;
}

static struct nt_step_limits limits_of(const struct trainer *t) {
    const struct nt_example_set *sets[2] = {&t->out->data.train, &t->out->data.eval};
    const int32_t budget = t->budget;
    struct nt_step_limits max = {.tok = budget, .out = budget};
    for (int i = 0; i < 2; i++) {
        const int32_t n = sets[i]->n > 0 ? nt_pack_max_seqs(sets[i], budget) : 0;
        if (n > max.seq) max.seq = n;
    }
    max.pages = budget / NT_KV_PAGE + max.seq + 1;
    return max;
}

/* The plan is told before memory is taken. */
static nt_status bind_memory(struct trainer *t) {
    struct nt_job_memory *mem = &t->out->memory;
    const struct nt_step_limits max = limits_of(t);
    nt_job_memory_init(mem, t->job->backend);
    NT_TRY(nt_runner_layout(&t->runner, mem, &max));
    const size_t buffers = nt_job_memory_bytes(mem), state = nt_training_state_bytes(t->out->training);
    const size_t free_bytes = nt_memory_available();
    nt_info("train",
            "memory per rank: %.1f MB weights, %.1f MB trained numbers with gradients and moments, %.1f MB activations "
            "and buffers for %d tokens (recompute %s); %.1f MB are free",
            (double)nt_model_weight_bytes(t->job->model) / 1e6, (double)state / 1e6, (double)buffers / 1e6, max.tok,
            t->c->train_recompute, (double)free_bytes / 1e6);
    if (buffers > free_bytes)
        return NT_FAIL(NT_E_NOMEM,
                       "training needs %.1f MB for activations and buffers, %.1f MB are free; lower "
                       "train.micro_batch_tokens (now %d) or train.logit_rows, or set train.recompute = full",
                       (double)buffers / 1e6, (double)free_bytes / 1e6, max.tok);
    NT_TRY(nt_job_memory_bind(mem));
    return nt_runner_layout(&t->runner, mem, &max);
}

static void beat_reference(void *arg) {
    nt_watchdog_beat(arg, "computing the reference");
}

static nt_status get_reference(struct trainer *t, const struct nt_example_set *set, const char *name,
                               struct nt_reference *out) {
    const struct nt_reference_job j = {.runner = &t->runner,
                                       .world = t->world,
                                       .set = set,
                                       .dir = t->job->dir,
                                       .name = name,
                                       .model = t->reference_digest,
                                       .budget = t->budget,
                                       .beat = beat_reference,
                                       .beat_arg = t->job->watchdog};
    return t->loss->reference ? nt_reference_get(&j, out) : NT_OK;
}

static void plan_steps(struct trainer *t) {
    const struct nt_config *c = t->c;
    const double epochs = c->train_num_train_epochs * t->out->data.train.n / (double)t->batch;
    t->total = c->train_max_steps > 0 ? c->train_max_steps : (int64_t)ceil(epochs - 1e-9);
    if (t->total < 1) t->total = 1;
    t->warmup = (int64_t)ceil(c->train_warmup_ratio * (double)t->total - 1e-9);
}

/* On each rank alone; failures are agreed on by the caller. */
static nt_status open_own(struct trainer *t) {
    const struct nt_config *c = t->c;
    NT_TRY(prepare_data(t));
    t->batch = (int32_t)c->train_batch_size;
    t->budget = budget_of(t->c, &t->out->data);
    plan_steps(t);
    NT_TRY(open_training(t));
    t->runner.model = t->job->model;
    t->runner.training = t->out->training;
    t->runner.loss = t->loss;
    t->runner.seed = (uint64_t)c->train_seed;
    t->runner.settings = (struct nt_loss_settings){
        .beta = c->train_beta, .label_smoothing = c->train_label_smoothing, .sft_weight = c->train_sft_weight};
    NT_TRY(bind_memory(t));
    NT_TRY(nt_order_open(&t->order, &t->out->data.train, (uint64_t)c->train_seed, t->batch));
    t->examples = malloc((size_t)t->batch * sizeof *t->examples);
    t->other = malloc((size_t)t->batch * sizeof *t->other);
    if (!t->examples || !t->other) return NT_FAIL(NT_E_NOMEM, "no memory for a batch of %d samples", t->batch);
    return nt_train_digest(t->job, &t->out->data, t->out->job_digest);
}

/* Ranks that prepared other rows would train on nonsense together. */
static nt_status same_job(const struct trainer *t) {
    uint8_t first[32];
    memcpy(first, t->out->job_digest, sizeof first);
    NT_TRY(nt_comm_broadcast(t->world->world, first, sizeof first, 0));
    nt_status st = NT_OK;
    if (memcmp(first, t->out->job_digest, sizeof first) != 0)
        st = NT_FAIL(NT_E_DATA, "rank %d on %s prepared other data than rank 0, expected the same files and settings",
                     t->world->rank, t->world->host);
    return nt_comm_agree(t->world->world, st);
}

static nt_status open_metrics(struct trainer *t) {
    char path[PATH_MAX];
    if (t->world->rank > 0) return NT_OK;
    NT_TRY(nt_path_join(path, sizeof path, t->job->dir, "metrics.jsonl"));
    NT_TRY(nt_train_metrics_cut(path, t->resumed ? t->state.step : -1));
    return nt_metrics_open(&t->metrics, path, 0);
}

/* Rank 0: what an earlier run left. COMPLETE goes first, so that a discard cut in the middle cannot look finished. */
static nt_status open_dir(struct trainer *t) {
    static const char *const names[] = {
        "COMPLETE",     "metrics.jsonl", "training_card.json", "training_card.md", "report.html", "adapter",
        "adapter.gguf", "model",         "reference-train.h5", "reference-eval.h5"};
    const char *dir = t->job->dir;
    if (t->c->train_fresh) {
        NT_TRY(nt_complete_remove(dir));
        NT_TRY(nt_checkpoint_discard(dir));
    }
    NT_TRY(nt_outdir_remove_temps(dir, names, sizeof names / sizeof *names));
    NT_TRY(nt_checkpoint_remove_temps(dir));
    return nt_complete_find(dir, t->out->job_digest, &t->out->complete);
}

static nt_status resume(struct trainer *t) {
    const struct nt_checkpoint_job j = {
        .world = t->world, .training = t->out->training, .dir = t->job->dir, .job_digest = t->out->job_digest};
    NT_TRY(nt_checkpoint_load(&j, &t->state, &t->resumed));
    if (t->resumed) nt_info("train", "resuming after step %" PRId64 " of %" PRId64, t->state.step, t->total);
    return nt_training_publish(t->out->training);
}

static void measure_peak(struct trainer *t) {
    if (!nt_backend_is_host(t->job->backend)) return;
    const double mine = nt_peak_gflops(t->job->backend->pool, t->job->backend->isa, NT_PEAK_BF16, true);
    t->peak = mine * 1e9 * t->world->size;
}

static nt_status open_all(struct trainer *t) {
    NT_TRY(nt_comm_agree(t->world->world, open_own(t)));
    NT_TRY(same_job(t));
    NT_TRY(nt_comm_agree(t->world->world, t->world->rank == 0 ? open_dir(t) : NT_OK));
    NT_TRY(nt_comm_broadcast(t->world->world, &t->out->complete, sizeof t->out->complete, 0));
    if (t->out->complete) return NT_OK;
    NT_TRY(get_reference(t, &t->out->data.train, "train", &t->reference));
    NT_TRY(get_reference(t, &t->out->data.eval, "eval", &t->eval_reference));
    NT_TRY(resume(t));
    NT_TRY(nt_comm_agree(t->world->world, open_metrics(t)));
    const int64_t end_time = nt_env_slurm_job_end_time();
    t->deadline = end_time > 0 ? (double)end_time - t->c->run_stop_margin_s : 0;
    measure_peak(t);
    if (t->world->rank == 0)
        nt_info("train",
                "%s over %d rows in batches of %d: %" PRId64 " steps, %" PRId64
                " of warm-up; %.2f million trained numbers; measured bf16 peak %.0f GFLOP/s",
                t->loss->name, t->out->data.train.n, t->batch, t->total, t->warmup,
                (double)nt_training_count(t->out->training) / 1e6, t->peak / 1e9);
    return NT_OK;
}

/* ---- end ------------------------------------------------------------------------------------------------------- */

static nt_status finish(struct trainer *t) {
    struct nt_train_result *r = t->out;
    r->n_steps = t->state.step;
    r->n_samples = t->state.cursor;
    r->n_tokens = t->state.n_tokens;
    r->n_skipped = t->state.n_skipped;
    r->train_loss = t->state.n_loss > 0 ? t->state.loss_mean : NAN;
    r->eval_loss_first = t->state.eval_first;
    r->seconds = nt_now() - t->start;
    r->tokens_per_s = r->seconds > 0 ? (double)t->run_tokens / r->seconds : 0;
    r->mfu = mfu_of(t, t->flops, r->seconds);
    return r->adapter ? nt_training_to_adapter(r->training, r->adapter) : NT_OK;
}

static void close_all(struct trainer *t) {
    nt_metrics_close(&t->metrics);
    nt_order_close(&t->order);
    nt_pack_release(&t->pack);
    nt_reference_release(&t->reference);
    nt_reference_release(&t->eval_reference);
    free(t->examples);
    free(t->other);
}

nt_status nt_train_run(const struct nt_train_job *job, struct nt_train_result *out) {
    struct trainer t = {.job = job, .c = job->config, .world = job->world, .out = out, .metrics = {.fd = -1}};
    *out = (struct nt_train_result){.eval_loss_first = NAN, .eval_loss = NAN};
    t.loss = nt_loss_find(t.c->train_loss, t.c->train_loss_type);
    NT_CHECK(t.loss);
    nt_status st = open_all(&t);
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
