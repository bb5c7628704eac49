/* The weights of this rank: packed matrices, norms, biases, embedding rows; private to src/model.
 *
 * One arena holds all of it, laid out by nt_weights_layout (counting, then bound to memory that the ranks of a node
 * with the same tp index share). The leader of that memory fills it with nt_weights_load: one pass over the files in
 * the order of their bytes, row blocks handed to all pool threads, each rank reading only the rows it needs (o and down
 * are cut by columns, so their rows are read whole). Norms and biases stay float32; matrices are bf16.
 * A tied model holds its vocabulary twice: the embedding as a row-major table for the gather, the head as panels.
 * Shapes: s = shard, see struct nt_layer. Errors: those of the tensor source. Not thread safe. */
#ifndef NT_WEIGHTS_H
#define NT_WEIGHTS_H

#include "arena.h"
#include "comm.h"
#include "ops.h"
#include "shard.h"
#include "spec_bind.h"

struct nt_pool;
struct nt_tensor_source;

struct nt_layer {
    float *attn_norm, *mlp_norm;    // [d_model]
    float *q_norm, *k_norm;         // [d_head] or NULL
    struct nt_packed qkv;           // [(s.n_head + 2 s.n_kv) d_head, d_model], rows q then k then v
    struct nt_packed o;             // [d_model, s.n_head d_head]
    struct nt_packed gate_up;       // [2 s.ff_pad, d_model], rows by nt_packed_gate_row/up_row
    struct nt_packed down;          // [d_model, s.ff_pad]
    float *qkv_bias, *gate_up_bias; /* in packed row order, or NULL */
    float *o_bias, *down_bias;      /* [d_model]; NULL too on tp ranks other than 0: added once */
};

struct nt_weights {
    nt_bf16 *embed;        // [s.n_vocab, d_model]
    struct nt_packed head; // [s.n_vocab, d_model]
    float *final_norm;     // [d_model]
    float *rope_freqs;     // [d_head/2] or NULL
    struct nt_layer layers[NT_MAX_LAYERS];
};

void nt_weights_layout(struct nt_weights *w, struct nt_arena *a, const struct nt_spec *spec, const struct nt_shard *s,
                       enum nt_weight_format blocks, enum nt_weight_format head);
NT_MUST nt_status nt_weights_load(struct nt_weights *w, const struct nt_tensor_source *src, const struct nt_binding *b,
                                  const struct nt_spec *spec, const struct nt_shard *s, struct nt_world *world,
                                  struct nt_pool *pool);

#endif
