/* What a fine-tuning run needs before its first step: data, the adapter, memory, the reference, the last checkpoint. */
#include "adapter_io.h"
#include "bench_train.h"
#include "complete.h"
#include "env.h"
#include "fileio.h"
#include "memory_plan.h"
#include "outdir.h"
#include "reference.h"
#include "train_digest.h"
#include "train_metrics.h"
#include "trainer_state.h"
#include "watchdog.h"
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The adapter to begin with: fresh, or the one to go on from. */
static nt_status first_adapter(struct nt_trainer *t) {
    const struct nt_config *c = t->c;
    const struct nt_spec *spec = nt_model_spec(t->job->model);
    if (c->train_init_adapter[0]) {
        NT_TRY(nt_adapter_read(c->train_init_adapter, spec, &t->out->adapter));
        NT_TRY(nt_adapter_check_base(t->out->adapter, c->train_init_adapter, t->job->model_digest,
                                     t->job->tokenizer_digest));
        nt_adapter_digest(t->out->adapter, t->job->model_digest, t->out->init_digest);
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

static nt_status open_training(struct nt_trainer *t) {
    const struct nt_config *c = t->c;
    const bool lora = strcmp(c->train_method, "lora") == 0;
    memcpy(t->out->init_digest, t->job->model_digest, sizeof t->out->init_digest);
    memcpy(t->out->reference_digest, t->job->model_digest, sizeof t->out->reference_digest);
    if (lora) NT_TRY(first_adapter(t));
    const struct nt_training_config config = {.lora = t->lora,
                                              .recompute = nt_recompute_of(c->train_recompute),
                                              .dropout = (float)c->train_lora_dropout,
                                              .chunk = (int32_t)c->train_logit_rows};
    NT_TRY(nt_training_new(&t->out->training, t->job->model, &config));
    t->runner.keyed = t->lora.targets != 0 && c->train_lora_dropout > 0;
    if (t->out->adapter) NT_TRY(nt_training_from_adapter(t->out->training, t->out->adapter));
    if (!t->loss->reference || strcmp(c->train_reference, "base") == 0) return NT_OK;
    struct nt_adapter *reference = NULL;
    nt_status st = nt_adapter_read(c->train_reference, nt_model_spec(t->job->model), &reference);
    if (st == NT_OK)
        st = nt_adapter_check_base(reference, c->train_reference, t->job->model_digest, t->job->tokenizer_digest);
    if (st == NT_OK) st = nt_training_set_reference(t->out->training, reference);
    if (st == NT_OK) nt_adapter_digest(reference, t->job->model_digest, t->out->reference_digest);
    nt_adapter_free(reference);
    return st;
}

/* train.input: paths with commas. */
static nt_status open_dataset(const struct nt_config *c, struct nt_dataset **out) {
    const size_t len = strlen(c->train_input);
    const char **paths = calloc(len / 2 + 1, sizeof *paths);
    char *copy = strdup(c->train_input), *rest = copy;
    int32_t n = 0;
    nt_status st = NT_OK;
    if (!copy || !paths) st = NT_FAIL(NT_E_NOMEM, "no memory for train.input of %zu bytes", len);
    for (char *path = copy; st == NT_OK && (path = strtok_r(rest, ",", &rest));) {
        if (n > 0) path += strspn(path, " "); /* "a.h5, b.h5" */
        if (*path) paths[n++] = path;
    }
    if (st == NT_OK && n == 0) st = NT_FAIL(NT_E_USAGE, "no training data given; add --input CORPUS.h5");
    if (st == NT_OK) st = nt_dataset_open(out, paths, n, NT_PURPOSE_TRAIN, 0);
    free(copy);
    free(paths);
    return st;
}

static void beat(void *arg) {
    const struct nt_trainer *t = arg;
    nt_watchdog_beat(t->job->watchdog, "preparing data");
}

static nt_status prepare_data(struct nt_trainer *t) {
    const struct nt_beat sign = {.fn = beat, .arg = t};
    struct nt_dataset *d = NULL;
    nt_status st = open_dataset(t->c, &d);
    const struct nt_prepare_input in = {.config = t->c,
                                        .dataset = d,
                                        .tok = t->job->tok,
                                        .chat = t->job->chat,
                                        .chat_error = t->job->chat_error,
                                        .max_len = t->job->max_len,
                                        .beat = &sign};
    if (st == NT_OK) st = nt_prepare_run(&in, &t->out->data);
    if (d && t->world->rank == 0) nt_prepare_log(&t->out->data.report);
    nt_dataset_close(d);
    return st;
}

static int32_t budget_of(const struct nt_config *c, const struct nt_prepared *data) {
    if (c->train_micro_batch_tokens > 0) return (int32_t)c->train_micro_batch_tokens;
    return data->train.longest_row > data->eval.longest_row ? data->train.longest_row : data->eval.longest_row;
}

static struct nt_step_limits limits_of(const struct nt_trainer *t) {
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
static nt_status bind_memory(struct nt_trainer *t) {
    struct nt_job_memory *mem = &t->out->memory;
    const struct nt_step_limits max = limits_of(t);
    const struct nt_memory_plan plan = {.world = t->world,
                                        .model = t->job->model,
                                        .memory = mem,
                                        .n_page = (int32_t)max.pages,
                                        .trained = nt_training_state_bytes(t->out->training),
                                        .remedy = "train.micro_batch_tokens or train.logit_rows, or set "
                                                  "train.recompute = full"};
    nt_job_memory_init(mem, t->job->backend);
    NT_TRY(nt_runner_layout(&t->runner, mem, &max));
    nt_info("train", "micro-batches of %d tokens, recompute %s", max.tok, t->c->train_recompute);
    NT_TRY(nt_memory_plan_take(&plan));
    return nt_runner_layout(&t->runner, mem, &max);
}

static void beat_reference(void *arg) {
    nt_watchdog_beat(arg, "computing the reference");
}

/* order: of the mismatched pairs of n_samples samples; NULL: of the set's examples. */
static nt_status get_reference(struct nt_trainer *t, const struct nt_example_set *set, const char *name,
                               struct nt_order *order, int64_t n_samples, struct nt_reference *out) {
    const char *corpus = t->out->data.n_files > 0 ? t->out->data.files[0] : NULL;
    const struct nt_reference_job j = {.runner = &t->runner,
                                       .world = t->world,
                                       .set = set,
                                       .dir = t->job->dir,
                                       .name = name,
                                       .corpus = strcmp(t->c->train_reference_cache, "corpus") == 0 ? corpus : NULL,
                                       .model = t->out->reference_digest,
                                       .weights = t->c->model_weight_dtype,
                                       .order = order,
                                       .n_samples = n_samples,
                                       .batch = t->batch,
                                       .budget = t->budget,
                                       .deadline = t->deadline,
                                       .log_interval_s = t->c->run_log_interval_s,
                                       .beat = beat_reference,
                                       .beat_arg = t->job->watchdog};
    return t->loss->reference ? nt_reference_get(&j, out) : NT_OK;
}

/* Before the first update. kto asks in every step what the reference says of pairs made of prompts and others' answers:
 * an adapter can be switched off for that; where all weights are trained, the base is asked now. */
static nt_status get_references(struct nt_trainer *t) {
    const struct nt_example_set *train = &t->out->data.train, *eval = &t->out->data.eval;
    NT_TRY(get_reference(t, train, "train", NULL, 0, &t->reference));
    NT_TRY(get_reference(t, eval, "eval", NULL, 0, &t->eval_reference));
    if (!t->loss->kl || t->lora.targets) return NT_OK;
    struct nt_order in_place = {.set = eval, .seed = (uint64_t)t->c->train_seed};
    NT_TRY(get_reference(t, train, "pairs-train", &t->order, t->total * t->batch, &t->mismatch));
    return get_reference(t, eval, "pairs-eval", &in_place, eval->n, &t->eval_mismatch);
}

static void plan_steps(struct nt_trainer *t) {
    const struct nt_config *c = t->c;
    const double epochs = c->train_num_train_epochs * t->out->data.train.n / (double)t->batch;
    t->total = c->train_max_steps > 0 ? c->train_max_steps : (int64_t)ceil(epochs - 1e-9);
    if (t->total < 1) t->total = 1;
    t->warmup = (int64_t)ceil(c->train_warmup_ratio * (double)t->total - 1e-9);
}

/* On each rank alone; failures are agreed on by the caller. */
static nt_status open_own(struct nt_trainer *t) {
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
    return nt_train_digest(t->job, t->out, t->out->job_digest);
}

/* Ranks that prepared other rows would train on nonsense together. */
static nt_status same_job(const struct nt_trainer *t) {
    uint8_t first[32];
    memcpy(first, t->out->job_digest, sizeof first);
    NT_TRY(nt_comm_broadcast(t->world->world, first, sizeof first, 0));
    nt_status st = NT_OK;
    if (memcmp(first, t->out->job_digest, sizeof first) != 0)
        st = NT_FAIL(NT_E_DATA, "rank %d on %s prepared other data than rank 0, expected the same files and settings",
                     t->world->rank, t->world->host);
    return nt_comm_agree(t->world->world, st);
}

static nt_status open_metrics(struct nt_trainer *t) {
    char path[PATH_MAX];
    if (t->world->rank > 0) return NT_OK;
    NT_TRY(nt_path_join(path, sizeof path, t->job->dir, "metrics.jsonl"));
    NT_TRY(nt_train_metrics_cut(path, t->resumed ? t->state.step : -1));
    return nt_metrics_open(&t->metrics, path, 0);
}

/* What a run writes beside its checkpoints. */
static const char *const written[] = {"COMPLETE",         "metrics.jsonl", "training_card.json",
                                      "training_card.md", "report.html",   "adapter",
                                      "adapter.gguf",     "model",         "reference-"};
enum { N_WRITTEN = sizeof written / sizeof *written };

/* COMPLETE goes first, so that a discard cut in the middle cannot look finished. */
static nt_status discard(const char *dir) {
    NT_TRY(nt_complete_remove(dir));
    NT_TRY(nt_checkpoint_discard(dir));
    for (int i = 0; i < N_WRITTEN; i++) {
        char path[PATH_MAX];
        NT_TRY(nt_path_join(path, sizeof path, dir, written[i]));
        NT_TRY(nt_outdir_remove(path));
    }
    return NT_OK;
}

/* Rank 0: what an earlier run left. */
static nt_status open_dir(struct nt_trainer *t) {
    const char *dir = t->job->dir;
    if (t->c->train_fresh) NT_TRY(discard(dir));
    NT_TRY(nt_outdir_remove_temps(dir, written, N_WRITTEN));
    NT_TRY(nt_checkpoint_remove_temps(dir));
    return nt_complete_find(dir, t->out->job_digest, &t->out->complete);
}

static nt_status resume(struct nt_trainer *t) {
    const struct nt_checkpoint_job j = {
        .world = t->world, .training = t->out->training, .dir = t->job->dir, .job_digest = t->out->job_digest};
    NT_TRY(nt_checkpoint_load(&j, &t->state, &t->resumed));
    if (t->state.cursor != t->state.step * t->batch || t->state.step > t->total)
        return NT_FAIL(NT_E_DATA,
                       "%s: the checkpoint of step %" PRId64 " has taken %" PRId64 " samples, but the run takes %d a "
                       "step, for %" PRId64 " steps; remove it, or start over with --fresh",
                       t->job->dir, t->state.step, t->state.cursor, t->batch, t->total);
    if (t->resumed) nt_info("train", "resuming after step %" PRId64 " of %" PRId64, t->state.step, t->total);
    return nt_training_publish(t->out->training);
}

/* What the run will do, and what of it may surprise. */
static void tell_plan(const struct nt_trainer *t) {
    const struct nt_adapter *a = t->out->adapter;
    const int64_t n_trained = a ? a->n_params : nt_training_count(t->out->training);
    nt_info("train",
            "%s%s%s over %d rows in batches of %d: %" PRId64 " steps, %" PRId64
            " of warm-up; %.2f million trained numbers; measured bf16 peak %.0f GFLOP/s",
            t->loss->name, t->loss->reference ? ", reference " : "", t->loss->reference ? t->c->train_reference : "",
            t->out->data.train.n, t->batch, t->total, t->warmup, (double)n_trained / 1e6, t->roof.flops / 1e9);
    if (t->c->train_init_adapter[0])
        nt_info("train",
                "goes on from %s: rank %d, scale %g; train.lora_r, lora_alpha, use_rslora and target_modules do not "
                "count beside it",
                t->c->train_init_adapter, a->r, nt_adapter_scale(a));
    if (t->total == 1 && t->warmup == 1 && t->c->train_learning_rate > 0)
        nt_warn("train", "the only step is one of warm-up, and its learning rate 0: nothing is learned; set "
                         "train.warmup_ratio = 0, a smaller train.batch_size or more train.num_train_epochs");
    if (t->batch > t->out->data.train.n)
        nt_warn("train",
                "a batch of %d takes each of %d rows several times; a smaller train.batch_size takes them once",
                t->batch, t->out->data.train.n);
}

nt_status nt_trainer_open(struct nt_trainer *t) {
    NT_TRY(nt_model_connect_copies(t->job->model));
    NT_TRY(nt_comm_agree(t->world->world, open_own(t)));
    NT_TRY(same_job(t));
    NT_TRY(nt_comm_agree(t->world->world, t->world->rank == 0 ? open_dir(t) : NT_OK));
    NT_TRY(nt_comm_broadcast(t->world->world, &t->out->complete, sizeof t->out->complete, 0));
    if (t->out->complete) return NT_OK;
    const int64_t end_time = nt_env_slurm_job_end_time();
    t->deadline = end_time > 0 ? (double)end_time - t->c->run_stop_margin_s : 0;
    NT_TRY(get_references(t));
    NT_TRY(resume(t));
    NT_TRY(nt_comm_agree(t->world->world, open_metrics(t)));
    t->roof.flops = nt_train_peak(t->job->backend) * t->world->size;
    if (t->world->rank == 0) tell_plan(t);
    return NT_OK;
}
