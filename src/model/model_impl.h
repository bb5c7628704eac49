/* Inside of struct nt_model; private to src/model.
 *
 * One forward is: embed, n_layer times nt_block_forward, norm and head. The step carries what all layers of one forward
 * share. Buffers lie in the caller's job arena (nt_model_layout) and are reused by every forward; weights lie in
 * memory that the ranks of a node may share, read-only once open has returned.
 * Invariant: with tp > 1 a branch's all-reduced output waits in delta until the next norm adds it to x (pending);
 * with tp = 1 the products add to x themselves. Single threaded, see model.h. Errors: model.h. */
#ifndef NT_MODEL_IMPL_H
#define NT_MODEL_IMPL_H

#include "model.h"
#include "shard.h"
#include "weights.h"

/* Activations of one forward. */
struct nt_acts {
    float *x;         // [max_tok, d_model] residual stream
    float *delta;     // [max_tok, d_model] branch output before and after the all-reduce; NULL when tp = 1
    nt_bf16 *h;       // [max_tok, d_model] normalized
    float *qkv;       // [max_tok, (s.n_head + 2 s.n_kv) d_head]
    nt_bf16 *q;       // [max_tok, s.n_head, d_pad]
    nt_bf16 *heads;   // [max_tok, s.n_head d_head] attention output
    nt_bf16 *mlp;     // [max_tok, s.ff_pad]
    float *cos, *sin; // [max_len, d_head/2]
    int32_t max_tok, max_out, max_len;
};

struct nt_model {
    struct nt_spec spec;
    struct nt_shard shard;
    struct nt_world *world;     /* borrowed */
    struct nt_backend *backend; /* borrowed */
    struct nt_arena weight_arena;
    struct nt_shared shared; /* memory of weight_arena when ranks share it */
    struct nt_weights weights;
    struct nt_acts acts;
    int32_t max_len; /* rows of the rotary tables */
    uint8_t digest[32];
};

/* One forward in flight. */
struct nt_step {
    const struct nt_batch *batch;
    const struct nt_kv_pool *kv;
    bool pending; /* delta holds a branch output not yet in x */
};

NT_MUST nt_status nt_block_forward(struct nt_model *m, int32_t layer, struct nt_step *s);

#endif
