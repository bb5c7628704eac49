/* What a training forward keeps for its backward; private to src/model.
 *
 * Per layer: x before each norm (f32) and, as the policy says, the rest. NONE keeps every activation the backward
 * reads. SELECTIVE keeps the outputs of products and attention and computes the norms again.
 * FULL keeps x at the entrance only and runs the block's forward once more. Keys and values stay in the cache pages of
 * the batch, which no policy gives up. What the forward computes does not depend on the policy, bit for bit, nor do the
 * gradients. (Chen et al. 2016; Korthikanti et al. 2023.)
 * Dropout of the adapters' inputs is keyed by the token (sample and position) and the column of the whole input, so
 * masks depend neither on packing nor on tp.
 * Memory: the backend's, in the job arena. No errors of its own. One thread. */
#ifndef NT_TAPE_H
#define NT_TAPE_H

#include "model_state.h"
#include "training.h"

struct nt_tape {
    enum nt_recompute recompute;
    struct nt_block_acts blocks[NT_MAX_LAYERS];
    float *x_last;          // [max.out, d_model] before the final norm
    nt_bf16 *h_last;        // [max.out, d_model] input of the head
    struct nt_both row_ids; // [max.tok] int32_t 0, 1, 2 ...: all rows, for FULL's gather
    /* Dropout; p 0: none. */
    float drop_p;
    uint64_t drop_seed;
    struct nt_both keys, keys_out; // [max.tok] uint64_t of the step's tokens, [max.out] of those that go on
    struct nt_both streams;        // [max.tok] uint64_t, of one product
    nt_bf16 *dropped;              // [max.tok, widest input]
};

/* After nt_model_layout of the same arena. */
NT_MUST nt_status nt_tape_layout(struct nt_tape *t, struct nt_model *m, struct nt_job_memory *mem);
/* The adapter's input of a product: x, or with dropout a thinned copy of it. */
NT_MUST nt_status nt_tape_drop(struct nt_model *m, const struct nt_step *s, int32_t layer, enum nt_lora_group group,
                               const nt_bf16 *x, int64_t ldx, int32_t n_tok, const nt_bf16 **out);
/* The gradient of the same: dx += what comes back through the mask from dy. */
NT_MUST nt_status nt_tape_drop_bwd(struct nt_model *m, const struct nt_step *s, int32_t layer, enum nt_lora_group group,
                                   const float *dy, float *dx, int64_t ld, int32_t n_tok, int32_t n_col);

#endif
