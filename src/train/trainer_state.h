/* Inside of a fine-tuning run; private to src/train.
 *
 * train_open.c fills it (data, adapter, memory, reference, checkpoint), train_step.c makes steps and evaluations from
 * it, trainer.c is the loop. Everything below `out` belongs to the run and goes with it; what the result keeps is in
 * out. Collective over the world, one thread. Errors: trainer.h. */
#ifndef NT_TRAINER_STATE_H
#define NT_TRAINER_STATE_H

#include "checkpoint.h"
#include "log.h"
#include "metrics.h"
#include "order.h"
#include "packing.h"
#include "run_micro.h"
#include "trainer.h"

struct nt_trainer {
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
    struct nt_reference mismatch, eval_mismatch; /* kto with all weights: of the pairs that estimate the divergence */
    struct nt_train_state state;
    bool resumed;
    struct nt_metrics metrics;
    struct nt_progress progress;
    int32_t *examples, *other; // [batch_size]
    int32_t batch, budget;     /* samples of a step; tokens of a micro-batch */
    int64_t total, warmup;     /* steps */
    double deadline;
    struct nt_train_roof roof; /* of all ranks */
    double start, flops;       /* of this run's steps */
    int64_t run_tokens;
    int skipped_in_row;
    bool told_no_pairs; /* kto: of a batch without a mismatched pair */
    int stop;           /* enum nt_stop_level all ranks agree on */
};

/* What a step did. */
struct nt_step_outcome {
    struct nt_train_sums sums;
    double norm, lr, kl, seconds, flops;
    int64_t n_tokens;
    bool skipped;
};

/* All that comes before the first step; *out->complete: nothing is left to do (train_open.c). */
NT_MUST nt_status nt_trainer_open(struct nt_trainer *t);
/* One optimizer step: gradients of a global batch, the update, or its refusal (train_step.c). */
NT_MUST nt_status nt_trainer_step(struct nt_trainer *t, struct nt_step_outcome *o);
/* Any rank may be told to stop: t->stop is what all agree on. */
NT_MUST nt_status nt_trainer_look_for_stop(struct nt_trainer *t);
/* Held-out loss, logged and in the metrics; NaN without held-out rows, or when it stops in the middle (t->stop). */
NT_MUST nt_status nt_trainer_evaluate(struct nt_trainer *t, double *loss);

#endif
