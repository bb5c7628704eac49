/* Inside of struct nt_model; private to src/model.
 *
 * One forward is: embed, n_layer times nt_block_forward, norm and head. The step carries what all layers of one forward
 * share. Buffers lie in the caller's job arena (nt_model_layout) and are reused by every forward; weights lie in
 * memory that the ranks of a node may share, read-only once open has returned.
 * Invariant: with tp > 1 a branch's all-reduced output waits in delta until the next norm adds it to x (pending), or,
 * where the peers' memory is read, its parts wait for the norm that sums them (apart); with tp = 1 the products add to
 * x themselves. Single threaded, see model.h. Errors: model.h. */
#ifndef NT_MODEL_STATE_H
#define NT_MODEL_STATE_H

#include "model.h"
#include "block_acts.h"
#include "comm_device.h"
#include "lora.h"
#include "peer_sum.h"
#include "shard.h"
#include "step_graph.h"
#include "weights.h"

/* Activations of one forward, in the backend's memory. */
struct nt_acts {
    float *x;                   // [max.tok, d_model] residual stream
    float *delta;               // [max.tok, d_model] branch output before and after the all-reduce; NULL when tp = 1
    nt_bf16 *h;                 // [max.tok, d_model] normalized
    struct nt_block_acts block; /* of the layer at work */
    float *x_out;     // [max.out, d_model] the rows of x whose logits are wanted; x itself on a CPU that only generates
    float *cos, *sin; // [max_len, d_head/2]
    float *pairs;     // [2, max.out] best value and index (int32_t) of each drawn row; [n_out] of each, together
    float *pairs_of_all; // [s.size, 2, max.out] the same of all ranks, when NCCL gathers them; NULL when tp = 1
    int32_t max_len;
    struct nt_step_limits max;
};

/* Where the ops find a batch: the caller's arrays on a CPU, one uploaded block on a device. */
struct nt_inputs {
    struct nt_both block; /* ids, sequences, output rows, previous rows, pages: at the offsets */
    size_t seqs_at, out_rows_at, prev_at, pages_at;
    struct nt_both kv_of_head; // [s.n_head] int32_t
};

struct nt_model {
    struct nt_spec spec;
    struct nt_shard shard;
    struct nt_world *world;     /* borrowed */
    struct nt_backend *backend; /* borrowed */
    struct nt_arena weight_arena;
    struct nt_shared shared; /* memory of weight_arena when ranks share it */
    struct nt_weights weights;
    float rope_freqs[NT_MAX_D_HEAD / 2]; /* host copy of weights.rope_freqs */
    const struct nt_lora_weights *lora;  /* NULL: the base alone; own_lora, or training's */
    struct nt_lora_weights own_lora;     /* of nt_model_adapt */
    struct nt_arena own_lora_arena;
    bool training; /* the rows that go on after the last attention are kept beside all rows */
    struct nt_acts acts;
    struct nt_inputs inputs;
    struct nt_step_graphs graphs;
    struct nt_peer_sum *peers;                     /* NULL: none */
    struct nt_device_comm *device_comm;            /* over the tp ranks; NULL: tensors are summed in host memory */
    struct nt_device_comm *copies_comm;            /* over the dp ranks (nt_model_connect_copies); NULL: as above */
    struct nt_cuda_mark *marks[NT_DOWNLOAD_SLOTS]; /* with device_comm */
    int32_t max_len;                               /* rows of the rotary tables */
    uint8_t digest[32];
};

/* One forward in flight. */
struct nt_step {
    struct nt_batch batch;         /* in the backend's memory */
    int32_t max_q, max_pos, min_q; /* as attention takes them */
    const struct nt_kv_pool *kv;
    const struct nt_tape *tape; /* NULL: nothing is kept for a backward */
    float *x;                   /* acts.x, and acts.x_out from the last layer's attention on */
    bool pending;               /* delta holds a branch output not yet in x */
    bool apart; /* and it does not: the ranks' parts of it lie where they wrote them, for the norm to sum */
};

/* Columns of a row of logits: rows start on cache lines. */
static inline int64_t nt_logit_ld(const struct nt_shard *s) {
    return ((int64_t)s->n_vocab + 15) / 16 * 16;
}

/* The packed weights in weight_arena, in the backend's formats; counts or binds. */
void nt_model_layout_weights(struct nt_model *m);
/* What layer `layer` of the step computes into. */
const struct nt_block_acts *nt_step_acts(const struct nt_model *m, const struct nt_step *s, int32_t layer);
/* The adapter's pair of a product, or NULL. */
const struct nt_lora_pair *nt_step_lora(const struct nt_model *m, int32_t layer, enum nt_lora_group group);
struct nt_kv_layer nt_kv_layer_of(const struct nt_model *m, const struct nt_kv_pool *kv, int32_t layer);
enum nt_gemm_out nt_block_act(const struct nt_model *m);
NT_MUST nt_status nt_block_forward(struct nt_model *m, int32_t layer, struct nt_step *s);
/* Where a partial sum of n floats that is to end in `out` is written: out itself, or memory the peers read. */
float *nt_model_partial(struct nt_model *m, float *out, int64_t n);
/* out [n] in the backend's memory = sum over the tensor-parallel ranks of `partial`, as nt_model_partial gave it. */
NT_MUST nt_status nt_model_allreduce(struct nt_model *m, const float *partial, float *out, int64_t n);
/* The same for a branch's output of n_tok rows, which nt_model_norm adds to x: summed at once, or by that norm. */
NT_MUST nt_status nt_model_branch_sum(struct nt_model *m, struct nt_step *s, const float *partial, int32_t n_tok);
/* h [n_tok, d_model] = norm of x after what is pending was added to it; keep: of the same x, where there is a tape. */
NT_MUST nt_status nt_model_norm(struct nt_model *m, struct nt_step *s, const float *w, nt_bf16 *h, float *keep,
                                int32_t n_tok);
/* Layout and filling of the step inputs (model_inputs.c). */
NT_MUST nt_status nt_inputs_layout(struct nt_model *m, struct nt_job_memory *mem);
/* n_pad: sequences the step is padded to (a decode step on a device), 0: none. */
NT_MUST nt_status nt_inputs_fill(struct nt_model *m, const struct nt_batch *b, struct nt_step *s, int32_t n_pad);
/* What nt_model_draw needs of the activations, and the draw by the head (model_draw.c). */
void nt_model_layout_draw(struct nt_model *m, struct nt_job_memory *mem, const struct nt_step_limits *max);
NT_MUST nt_status nt_model_draw(struct nt_model *m, const struct nt_step *s);
/* The forward proper: ops only, nothing but kernels on a device (step_run.c). Blocks: without what follows the last. */
NT_MUST nt_status nt_step_blocks(struct nt_model *m, struct nt_step *s);
NT_MUST nt_status nt_step_run(struct nt_model *m, struct nt_step *s, float *logits);

#endif
