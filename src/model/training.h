/* Training of a model: what a forward keeps, the backward, the gradients and the update.
 *
 * The forward is the one that generates (block_fwd.c), with a tape; the backward is the block read upwards
 * (block_bwd.c). What is trained is an adapter (lora.h; the base stays as it is, in bf16, INT8 or INT4) or, without
 * targets, every weight. One step: for each micro-batch:  nt_training_forward, then nt_training_backward with d loss /
 * d log p of each target; nt_training_reduce (over tp and dp), nt_training_update. Losses that need the
 * log-probabilities first (preferences) call nt_training_logprobs between the two. The vocabulary is done in chunks of
 * rows: logits and their gradients are never stored whole. All sums have a fixed order: results are bitwise the same
 * for any number of threads; a batch cut otherwise, or other dp and tp, differs by rounding only. Ownership: the struct
 * owns parameters, gradients and moments; buffers lie in the caller's job memory. Sequences begin at position 0 and lie
 * whole in one micro-batch. Collective over tp (reduce: and dp). Errors: those of ops, memory and communicators. One
 * thread. */
#ifndef NT_TRAINING_H
#define NT_TRAINING_H

#include "lora.h"
#include "model.h"

struct nt_training;

/* What a layer keeps for the backward: all, outputs of products and attention, or its input only (tape.h). */
enum nt_recompute { NT_RECOMPUTE_NONE, NT_RECOMPUTE_SELECTIVE, NT_RECOMPUTE_FULL };
enum nt_recompute nt_recompute_of(const char *name); /* "none", "selective", "full"; config has checked it */

struct nt_training_config {
    struct nt_lora_shape lora; /* targets 0: every weight is trained */
    enum nt_recompute recompute;
    float dropout; /* of the adapters' inputs, 0 to below 1 */
    int32_t chunk; /* rows of logits at a time; 0: what suits the backend */
};

NT_MUST nt_status nt_training_new(struct nt_training **out, struct nt_model *m, const struct nt_training_config *c);
void nt_training_free(struct nt_training *t); /* accepts NULL */
/* Layout function: the model's own buffers (nt_model_layout) and those of training. */
NT_MUST nt_status nt_training_layout(struct nt_training *t, struct nt_job_memory *mem,
                                     const struct nt_step_limits *max);
size_t nt_training_state_bytes(const struct nt_training *t); /* parameters, gradients and moments of this rank */
int64_t nt_training_count(const struct nt_training *t);      /* trained numbers of the whole model */

/* ---- a micro-batch --------------------------------------------------------------------------------------------- */

/* What a forward is for. Only after TRAIN, which keeps a tape and drops, may a backward follow. EVAL: what is trained,
 * as it stands. REFERENCE: the base without adapter, or with the one given to nt_training_set_reference. */
enum nt_forward { NT_FORWARD_TRAIN, NT_FORWARD_EVAL, NT_FORWARD_REFERENCE };
/* b->n_out >= 1. keys [n_tok]: names of the tokens for dropout, NULL without; seed: the run's. */
NT_MUST nt_status nt_training_forward(struct nt_training *t, const struct nt_batch *b, const struct nt_kv_pool *kv,
                                      const uint64_t *keys, uint64_t seed, enum nt_forward kind);
/* logp[r] = log p(targets[r]) at the r-th output row of the forward. Host memory; NULL logp: not wanted by this rank.
 */
NT_MUST nt_status nt_training_logprobs(struct nt_training *t, const int32_t *targets, float *logp);
/* Adds to the gradients; coef[r] = d loss / d logp[r]. logp as in logprobs, or NULL. */
NT_MUST nt_status nt_training_backward(struct nt_training *t, const int32_t *targets, const float *coef, float *logp);

/* ---- a step ---------------------------------------------------------------------------------------------------- */

struct nt_adamw {
    double lr, beta1, beta2, eps, weight_decay, max_grad_norm; /* max_grad_norm 0: no clipping */
};
NT_MUST nt_status nt_training_zero_grads(struct nt_training *t);
/* Sums gradients over the ranks; *norm: Euclidean, of all gradients, before clipping (not finite: one is not). */
NT_MUST nt_status nt_training_reduce(struct nt_training *t, double *norm);
/* step counts from 1. Clips by norm, updates, and rounds into the weights the next forward uses. */
NT_MUST nt_status nt_training_update(struct nt_training *t, const struct nt_adamw *o, int64_t step, double norm);
/* The same rounding after parameters were set (init, resume). */
NT_MUST nt_status nt_training_publish(struct nt_training *t);

/* ---- logical tensors, for checkpoints and adapters -------------------------------------------------------------- */

enum nt_training_array { NT_TRAINING_W, NT_TRAINING_M, NT_TRAINING_V, NT_TRAINING_GRAD };
struct nt_training_tensor {
    char name[128]; /* Hugging Face's, with .lora_A / .lora_B before .weight */
    int32_t layer;  /* 0 for tensors of the model */
    enum nt_slot slot;
    char part;            /* 'W', 'A', 'B' */
    int32_t n_row, n_col; /* logical; a vector: [1, n] or [n, 1] */
    bool vector;
};
int32_t nt_training_tensors(const struct nt_training *t); /* their number, the same on every rank */
void nt_training_tensor(const struct nt_training *t, int32_t i, struct nt_training_tensor *out);
/* data [n_row, n_col] on every rank. Collective over tp. */
NT_MUST nt_status nt_training_get(const struct nt_training *t, int32_t i, enum nt_training_array array, float *data);
NT_MUST nt_status nt_training_set(struct nt_training *t, int32_t i, enum nt_training_array array, const float *data);

/* Whole adapters: the trained one set from, or read into, one of the same rank and targets; and another to be the
 * reference. Pairs that some of its layers lack are 0 and stay so. */
NT_MUST nt_status nt_training_from_adapter(struct nt_training *t, const struct nt_adapter *a);
NT_MUST nt_status nt_training_to_adapter(const struct nt_training *t, struct nt_adapter *a); /* collective over tp */
NT_MUST nt_status nt_training_set_reference(struct nt_training *t, const struct nt_adapter *a);

#endif
