/* The cost of every op: what one call of it has to compute and to move, from its arguments alone.
 *
 * One function per row of ops.def, so that an op without a cost does not link. flops count multiplications and
 * additions of the formula in ops.h (an exponential counts as one). read_bytes and write_bytes count each operand once,
 * as if nothing were read twice: a lower bound for every kernel. stored_bytes are the part of them that cannot stay in
 * a cache between two kernels: weights, embedding rows and the KV cache; the roofline of performance tables (weights +
 * KV over bandwidth) is made of these. launches: kernels that the CUDA backend starts for the call.
 * Data behind pointers is never read, except struct nt_packed, struct nt_kv_layer and the host's struct nt_attn_seq.
 * No state, no errors, any thread. */
#ifndef NT_OPS_COST_H
#define NT_OPS_COST_H

#include "ops.h"

struct nt_cost {
    double flops, read_bytes, write_bytes;
    double stored_bytes; /* of read_bytes and write_bytes together */
    int64_t launches;
};

static inline void nt_cost_add(struct nt_cost *sum, struct nt_cost c) {
    sum->flops += c.flops;
    sum->read_bytes += c.read_bytes;
    sum->write_bytes += c.write_bytes;
    sum->stored_bytes += c.stored_bytes;
    sum->launches += c.launches;
}

/* What an op is to a roofline: products and attention are limited by the matrix units or by weights and cache, the
 * others by the activations they pass on. */
enum nt_op_kind { NT_OP_KIND_PRODUCT, NT_OP_KIND_ATTENTION, NT_OP_KIND_PASS };
enum nt_op_kind nt_op_kind(enum nt_op op);

#define NT_OP(name, doc) struct nt_cost nt_op_cost_##name(const struct nt_##name##_args *args);
#include "ops.def"
#undef NT_OP

/* nt_op_cost_attention in two parts: sequences with one token of this call, and the others. */
struct nt_attention_cost {
    struct nt_cost decode, prefill;
};
struct nt_attention_cost nt_attention_cost(const struct nt_attention_args *args);

/* (query, key) pairs of one sequence: every token with each position it sees. */
double nt_visible_pairs(const struct nt_attn_seq *s, int32_t window);
/* Bytes of one position in the cache of one layer, keys and values of all its heads. */
double nt_kv_position_bytes(const struct nt_kv_layer *kv);

#endif
