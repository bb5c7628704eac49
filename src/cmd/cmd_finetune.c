/* nocturne finetune: a corpus of conversations and feedback in, an adapter or a model out. */
#include "adapter_io.h"
#include "cmd.h"
#include "complete.h"
#include "fileio.h"
#include "finetune_model.h"
#include "log.h"
#include "session.h"
#include "stop.h"
#include "train_report.h"
#include "trainer.h"
#include "watch.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct finetune {
    struct nt_session session;
    struct nt_train_job job;
    struct nt_train_result result;
    struct nt_watch watch;
};

/* A setting that the loss or method would pass over: whoever gives it expects something of it. */
static nt_status check_settings(const struct nt_config *c) {
    const bool dpo = strcmp(c->train_loss, "dpo") == 0, kto = strcmp(c->train_loss, "kto") == 0;
    const bool sigmoid = strcmp(c->train_loss_type, "sigmoid") == 0, lora = strcmp(c->train_method, "lora") == 0;
    const bool compares = strcmp(c->train_reference, "base") != 0;
    const struct {
        bool given, counts;
        const char *what;
    } rows[] = {
        {compares,                        dpo || kto,     "train.reference is for train.loss = dpo or kto, which compare with it"},
        {c->train_sft_weight > 0,         dpo || kto,     "train.sft_weight is for train.loss = dpo or kto"                      },
        {!sigmoid,                        dpo,            "train.loss_type is for train.loss = dpo"                              },
        {c->train_label_smoothing > 0,    dpo && sigmoid, "train.label_smoothing is for dpo of loss_type = sigmoid"              },
        {c->train_desirable_weight > 0,   kto,            "train.desirable_weight is for train.loss = kto"                       },
        {c->train_undesirable_weight > 0, kto,            "train.undesirable_weight is for train.loss = kto"                     },
        {c->train_rated_only,             !dpo && !kto,   "train.rated_only is for train.loss = sft"                             },
        {c->train_lora_dropout > 0,       lora,           "train.lora_dropout is for train.method = lora"                        },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].given && !rows[i].counts) return NT_FAIL(NT_E_USAGE, "finetune: %s; leave it out", rows[i].what);
    return NT_OK;
}

/* What a run begins from must not lie where its own result goes: --fresh would discard it before the first step, and
 * nobody could resume. */
static nt_status check_places(const struct nt_config *c) {
    static const char *const results[] = {"adapter", "model"};
    const struct {
        const char *setting, *path;
    } begins[] = {
        {"train.init_adapter", c->train_init_adapter},
        {"train.reference",    c->train_reference   },
        {"model.path",         c->model_path        },
    };
    for (size_t i = 0; i < 2; i++) {
        char path[PATH_MAX], result[PATH_MAX], begin[PATH_MAX];
        NT_TRY(nt_path_join(path, sizeof path, c->train_output, results[i]));
        if (!realpath(path, result)) continue;
        for (size_t k = 0; k < sizeof begins / sizeof *begins; k++)
            if (realpath(begins[k].path, begin) && strcmp(begin, result) == 0)
                return NT_FAIL(NT_E_USAGE,
                               "finetune: %s is %s, where this run's own result goes; choose another --output",
                               begins[k].setting, path);
    }
    return NT_OK;
}

static nt_status check_arguments(const struct nt_config *c) {
    if (!c->train_input[0]) return NT_FAIL(NT_E_USAGE, "finetune: no input given; add --input CORPUS.h5");
    if (!c->train_output[0]) return NT_FAIL(NT_E_USAGE, "finetune: no output directory given; add --output DIR");
    if (c->model_adapter[0])
        return NT_FAIL(NT_E_USAGE, "finetune: model.adapter is for generation; go on from an adapter with "
                                   "train.init_adapter, or compare with one by train.reference");
    if (c->train_init_adapter[0] && strcmp(c->train_method, "full") == 0)
        return NT_FAIL(NT_E_USAGE, "finetune: train.method = full trains the model's own weights and goes on from no "
                                   "train.init_adapter; merge it into the model first (nocturne merge)");
    NT_TRY(check_settings(c));
    return check_places(c);
}

/* card: the sections that tell how it was trained. */
static nt_status write_adapter(struct finetune *f, const struct nt_strbuf *card_md) {
    char path[PATH_MAX], job[NT_SHA256_HEX];
    struct nt_adapter *a = f->result.adapter;
    const struct nt_spec *spec = nt_model_spec(f->session.model);
    nt_hex(f->result.job_digest, sizeof f->result.job_digest, job);
    const struct nt_text_pair provenance[] = {
        {"nocturne.job_sha256",     job                                 },
        {"nocturne.dataset_sha256", f->result.data.report.dataset_sha256},
        {"nocturne.version",        NT_VERSION                          },
        {"nocturne.commit",         NT_COMMIT                           }
    };
    const struct nt_adapter_card card = {
        .provenance = provenance, .n = sizeof provenance / sizeof *provenance, .markdown = nt_strbuf_cstr(card_md)};
    memcpy(a->base_digest, f->session.model_digest, sizeof a->base_digest);
    memcpy(a->tokenizer_digest, f->session.tokenizer_digest, sizeof a->tokenizer_digest);
    a->has_base = a->has_tokenizer = true;
    (void)snprintf(a->base, sizeof a->base, "%s", f->session.config->model_path);
    NT_TRY(nt_path_join(path, sizeof path, f->job.dir, "adapter"));
    NT_TRY(nt_adapter_write_peft(a, spec, &card, path, NT_PUBLISH_REPLACE));
    NT_TRY(nt_path_join(path, sizeof path, f->job.dir, "adapter.gguf"));
    return nt_adapter_write_gguf(a, spec, &card, path);
}

static nt_status try_model(const struct finetune *f) {
    char path[PATH_MAX];
    if (strcmp(f->session.config->train_method, "full") != 0) return NT_OK;
    NT_TRY(nt_path_join(path, sizeof path, f->job.dir, "model"));
    return nt_finetune_model_try(f->job.world, f->session.config->model_path, path);
}

/* All weights as a model of their own. */
static nt_status write_model(const struct finetune *f) {
    char path[PATH_MAX];
    if (f->result.adapter || f->result.complete) return NT_OK;
    NT_TRY(nt_path_join(path, sizeof path, f->job.dir, "model"));
    return nt_finetune_model_write(f->result.training, f->job.world, f->session.config->model_path, path);
}

static nt_status finish(struct finetune *f) {
    const struct nt_train_result *r = &f->result;
    if (r->complete) {
        nt_info("finetune", "%s is complete already; --fresh starts over", f->job.dir);
        return nt_complete_write(f->job.dir, r->job_digest);
    }
    const struct nt_train_facts facts = {.job = &f->job, .result = r, .version = NT_VERSION, .commit = NT_COMMIT};
    struct nt_strbuf card = NT_STRBUF_INIT;
    nt_status st = nt_train_report_write(&facts, f->job.dir, &card);
    if (st == NT_OK && r->adapter) st = write_adapter(f, &card);
    nt_strbuf_release(&card);
    if (st == NT_OK) st = nt_complete_write(f->job.dir, r->job_digest);
    NT_TRY(st);
    char held_out[96] = "nothing held out", mfu[NT_TRAIN_MFU_TEXT], pace[96];
    if (r->data.report.n_eval > 0)
        (void)snprintf(held_out, sizeof held_out, "held out %.4f (before: %.4f)", r->eval_loss, r->eval_loss_first);
    nt_train_mfu_text(&r->roof, r->mfu, mfu);
    (void)snprintf(pace, sizeof pace, "%.0f tok/s, mfu %s", r->tokens_per_s, mfu);
    if (isnan(r->tokens_per_s)) (void)snprintf(pace, sizeof pace, "no step of them in this attempt");
    if (r->n_skipped > 0)
        nt_warn("finetune", "%lld of %lld steps were left out, see their lines and metrics.jsonl",
                (long long)r->n_skipped, (long long)r->n_steps);
    nt_info("finetune", "complete: %lld steps, %lld samples, %lld tokens; loss %.4f, %s; %s; %s", (long long)r->n_steps,
            (long long)r->n_samples, (long long)r->n_tokens, r->train_loss, held_out, pace, f->job.dir);
    return NT_OK;
}

nt_status nt_cmd_finetune(struct nt_cmd_context *ctx) {
    struct finetune f = {0};
    NT_TRY(check_arguments(ctx->config));
    nt_stop_install();
    NT_TRY(nt_watch_open(&f.watch, ctx->world, ctx->config->train_output, ctx->config->run_watchdog_s));
    nt_status st = nt_session_open(&f.session, ctx->world, ctx->config);
    if (st != NT_OK) {
        nt_watch_close(&f.watch);
        return st;
    }
    f.job = (struct nt_train_job){.config = ctx->config,
                                  .world = ctx->world,
                                  .backend = &f.session.backend,
                                  .model = f.session.model,
                                  .tok = f.session.text.tok,
                                  .chat = f.session.has_chat ? &f.session.chat : NULL,
                                  .chat_error = f.session.chat_error,
                                  .model_digest = f.session.model_digest,
                                  .tokenizer_digest = f.session.tokenizer_digest,
                                  .max_len = f.session.max_len,
                                  .dir = ctx->config->train_output,
                                  .watchdog = f.watch.dog};
    st = try_model(&f);
    if (st == NT_OK) st = nt_train_run(&f.job, &f.result);
    if (st == NT_OK) st = write_model(&f);
    if (st == NT_OK) st = nt_comm_agree(ctx->world->world, ctx->world->rank == 0 ? finish(&f) : NT_OK);
    nt_watchdog_beat(f.watch.dog, "closing");
    /* Closing is collective (shared weights): a rank that failed alone must not wait there for ranks that work. */
    if (st == NT_OK || st == NT_E_STOPPED || ctx->world->size == 1) {
        nt_train_result_release(&f.result);
        nt_session_close(&f.session);
    }
    nt_watch_close(&f.watch);
    return st;
}
