/* One micro-batch through the model: losses, and with training their gradients.
 *
 * Holds what every micro-batch needs and the next one reuses: sequences with their cache pages, rows of
 * log-probabilities and coefficients (job memory). An example's loss does not depend on the micro-batch it lies in.
 * Sums of a batch are in double, in sample order, so the cut into micro-batches changes the gradients' rounding only.
 * Collective over tp (every rank of a model copy passes the same micro-batch). Errors: those of the model. One thread.
 */
#ifndef NT_RUN_MICRO_H
#define NT_RUN_MICRO_H

#include "loss.h"
#include "packing.h"
#include "training.h"

struct nt_train_sums {                   /* of examples; sums over rows unless said */
    double loss;                         /* divided by the batch already */
    double reward[2];                    /* dpo: chosen, rejected; kto: desirable, undesirable */
    double n_reward[2], n_right, n_rows; /* n_right: pairs whose chosen has the larger reward */
    double nll, n_target;                /* -log p and weights of all targets, for perplexity */
    double kl, n_kl;
};
/* Mean reward of chosen or desirable less that of the others; share of pairs whose chosen has the larger reward. */
double nt_train_margin(const struct nt_train_sums *s);
double nt_train_accuracy(const struct nt_train_sums *s);

struct nt_runner {
    struct nt_model *model;
    struct nt_training *training;
    const struct nt_loss *loss;
    struct nt_loss_settings settings;
    uint64_t seed;
    bool keyed; /* dropout wants names of tokens */
    struct nt_kv_pool kv;
    int32_t *pages;           // [max.pages] 0, 1, 2 ...: sequences take them in order
    struct nt_attn_seq *seqs; // [max.seq]
    uint64_t *keys;           // [max.tok]
    float *logp, *coef;       // [max.out]
    struct nt_step_limits max;
};

/* Layout function (arena.h); training's buffers too. */
NT_MUST nt_status nt_runner_layout(struct nt_runner *r, struct nt_job_memory *mem, const struct nt_step_limits *max);

/* The reference's log-probabilities, of every member (reference.h). */
struct nt_reference {
    float *logp;     // [set->n or samples][NT_MAX_MEMBERS]
    bool of_samples; /* a row is a sample of the order, else an example of the set */
};

struct nt_micro_job {
    const struct nt_example_set *set;
    const struct nt_micro_batch *micro;
    const struct nt_reference *reference; /* NULL where the loss needs none */
    int64_t cursor;                       /* of the global batch, names its samples */
    double normalizer, mean_target;       /* of the global batch (packing.h) */
    double kl;
    bool train; /* gradients, dropout; else only sums */
};
NT_MUST nt_status nt_run_micro(struct nt_runner *r, const struct nt_micro_job *j, struct nt_train_sums *sums);
/* What the reference says of the micro-batch's sequences, into out. cursor: of its batch, where rows are samples. */
NT_MUST nt_status nt_run_reference(struct nt_runner *r, const struct nt_micro_batch *micro, int64_t cursor,
                                   struct nt_reference *out);
/* Sum of (log p - reference log p) over the sequences of a micro-batch of mismatched pairs, into sums->kl, n_kl; the
 * latter from j->reference, or where that is NULL from the model with the reference's adapter. */
NT_MUST nt_status nt_run_mismatch(struct nt_runner *r, const struct nt_micro_job *j, struct nt_train_sums *sums);

#endif
