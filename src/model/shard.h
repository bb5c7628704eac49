/* Which part of the model a tensor-parallel rank holds.
 *
 * Attention is divided by KV group, unevenly if need be: with tp <= n_kv each rank has whole groups (9 heads, 3 KV
 * heads on 2 ranks: 2 + 1 groups); with tp > n_kv the query heads are divided and a KV head is held by every rank that
 * has one of its query heads. d_ff is divided in units of 16 rows, the vocabulary in units of 32 (both the embedding
 * and the head). Sums over heads and d_ff meet in two all-reduces per block (Shoeybi et al. 2019, Megatron-LM). Plain
 * data, no ownership. Errors: NT_E_CONFIG when tp exceeds what can be divided. */
#ifndef NT_SHARD_H
#define NT_SHARD_H

#include "spec.h"

enum { NT_FF_UNIT = 16, NT_VOCAB_UNIT = 32 };

struct nt_shard {
    int32_t rank, size;
    int32_t head0, n_head, kv0, n_kv; /* this rank's heads [head0, head0 + n_head) and KV heads */
    int32_t ff0, n_ff, ff_pad;        /* rows of gate and up; ff_pad: n_ff rounded up to NT_FF_UNIT, zeros beyond */
    int32_t vocab0, n_vocab;
    int32_t kv_of_head[NT_MAX_HEADS]; // [n_head] local KV head of each local head
};

int32_t nt_shard_most(const struct nt_spec *spec); /* ranks a model can be divided over */
NT_MUST nt_status nt_shard_plan(const struct nt_spec *spec, int32_t rank, int32_t size, struct nt_shard *out);

#endif
