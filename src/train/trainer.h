/* The fine-tuning job: prepared data in, steps with checkpoints, an adapter or a model's weights out.
 *
 * One global batch per step: each data-parallel rank packs its samples into micro-batches, gradients are summed over
 * the world, clipped, and AdamW moves the trained numbers. The run is a function of settings, data and model: a resume
 * at the same world size gives the same bytes, another world size or other micro-batches differ by rounding. A stop
 * request (stop.h) ends the job after the step in work, with a checkpoint and NT_E_STOPPED. A loss or gradient that is
 * not finite, or a spike, never reaches the weights. Output directory: checkpoints/, metrics.jsonl (one line per step
 * and evaluation); what is made of the result is the caller's (nt_train_result). Where COMPLETE names this very job,
 * nothing is done again. Collective over the world.
 * Errors: those of data, model, files; NT_E_DATA with step and rows for numbers that are not finite. */
#ifndef NT_TRAINER_H
#define NT_TRAINER_H

#include "bench_train.h"
#include "chat.h"
#include "config.h"
#include "prepare.h"
#include "run_micro.h"
#include "tokenizer.h"

struct nt_watchdog;

struct nt_train_job {
    const struct nt_config *config;
    struct nt_world *world;
    struct nt_backend *backend;
    struct nt_model *model;
    const struct nt_tokenizer *tok;
    const struct nt_chat *chat; /* NULL: none, see chat_error */
    const char *chat_error;
    const uint8_t *model_digest, *tokenizer_digest; /* [32] */
    int32_t max_len;                                /* positions of a sequence */
    const char *dir;
    struct nt_watchdog *watchdog;
};

/* What a finished run hands on; released by nt_train_result_release. */
struct nt_train_result {
    struct nt_prepared data;
    struct nt_training *training;
    struct nt_adapter *adapter; /* method lora: the trained adapter, NULL otherwise */
    uint8_t job_digest[32];
    uint8_t init_digest[32], reference_digest[32]; /* of the model it began from, and of the reference */
    bool complete;                                 /* by an earlier run: all that follows is unset */
    int64_t n_steps, n_samples, n_tokens, n_skipped;
    double train_loss, eval_loss_first, eval_loss; /* mean of the last steps; held out, NaN without */
    double seconds, tokens_per_s, mfu;             /* of this run, NaN: unknown; mfu as a fraction of roof */
    struct nt_train_roof roof;                     /* of all ranks */
    struct nt_job_memory memory;
};
NT_MUST nt_status nt_train_run(const struct nt_train_job *job, struct nt_train_result *out);
void nt_train_result_release(struct nt_train_result *r); /* accepts zeroed */

#endif
