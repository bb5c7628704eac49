/* Inside of struct nt_training; private to src/model.
 *
 * The gradient of the residual stream is dx: f32 in place as the forward's x, with dx16 its rounding, the input of the
 * products. After the last layer's attention, read upwards, it has the step's n_out rows, before that all n_tok.
 * Buffers as in training.h; shapes in comments, s = shard. Errors: training.h. One thread. */
#ifndef NT_TRAINING_STATE_H
#define NT_TRAINING_STATE_H

#include "grad_sum.h"
#include "tape.h"
#include "training.h"

/* The backward's own buffers, in the backend's memory. The second group lies where the third does: the head is done
 * before the first block. */
struct nt_back {
    float *dx_out;          // [max.out, d_model]
    nt_bf16 *dx16;          // [max.tok, d_model]
    float *dh;              // [max.tok, d_model]
    struct nt_both stats;   // [4, chunk] float: max, sum of exponentials, chosen logit, coefficient
    struct nt_both targets; // [chunk] int32_t in this shard
    struct nt_both ones;    // [max.tok, 1] nt_bf16 for the sums of biases; with all weights trained

    float *logits;    // [chunk, ld]
    nt_bf16 *dlogits; // [chunk, nt_row_ld(ld)]

    float *dx;         // [max.tok, d_model]
    float *dmlp;       // [max.tok, s.ff_pad]
    float *dheads;     // [max.tok, s.n_head d_head]
    float *dheads_out; // [max.out, s.n_head d_head]
    float *dqkv;       // [max.tok, (s.n_head + 2 s.n_kv) d_head]
    nt_bf16 *dqkv16;   // the same
    nt_bf16 *dlow;     // [max.tok, widest rank]
    float *dropped;    // [max.tok, widest input] with dropout
};

struct nt_training {
    struct nt_model *m; /* borrowed */
    struct nt_training_config config;
    struct nt_lora_weights lora;      /* packed, what the model applies */
    struct nt_lora_weights reference; /* n_layer 0: none, the base alone */
    struct nt_arena lora_arena, reference_arena;
    struct nt_linear_place linears[NT_LINEAR_COUNT];
    struct nt_params params;
    struct nt_grad_sum sum;
    struct nt_tape tape;
    struct nt_back back;
    struct nt_step step; /* the forward that a backward may follow */
    bool kept;           /* it has a tape */
};

static inline bool nt_trains_all(const struct nt_training *t) {
    return t->config.lora.targets == 0;
}
/* Gradient array of a parameter, NULL: not trained. */
float *nt_training_grad(struct nt_training *t, int32_t layer, enum nt_slot slot, enum nt_param_part part);

/* dx_out and dx16 of the final norm's input, from the chunks of the head (head_bwd.c). */
NT_MUST nt_status nt_head_backward(struct nt_training *t, const int32_t *targets, const float *coef, float *logp);
/* dx, dx16 of the block's input; layer 0 leaves them undefined where nothing below it is trained (block_bwd.c). */
NT_MUST nt_status nt_block_backward(struct nt_training *t, int32_t layer);
/* All weights into the parameters, as they are packed (training_publish.c). */
NT_MUST nt_status nt_training_unpack(struct nt_training *t);

#endif
