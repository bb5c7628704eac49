/* What one decoder block computes on its way from x to x; private to src/model.
 *
 * Generation has one set for all layers, which every layer overwrites. Training keeps sets per layer for the backward
 * (tape.h); a pointer may then be shared by all layers, where the backward computes it again.
 * Shapes: n = tokens of the step, of which n_out go on after the last layer's attention; s = shard. Memory: the
 * backend's, owned by a job arena. No errors, one thread. */
#ifndef NT_BLOCK_ACTS_H
#define NT_BLOCK_ACTS_H

#include "lora.h"

struct nt_block_acts {
    nt_bf16 *h_attn;              // [n, d_model] input of qkv
    float *qkv;                   // [n, (s.n_head + 2 s.n_kv) d_head]
    nt_bf16 *q;                   // [n, s.n_head, d_pad] rotated
    nt_bf16 *heads;               // [n, s.n_head d_head] attention output
    nt_bf16 *heads_out;           // [n_out, s.n_head d_head] of the last layer, the rows that go on
    nt_bf16 *h_mlp;               // [n, d_model] input of gate and up; may be h_attn
    nt_bf16 *mlp;                 // [n, s.ff_pad] input of down
    nt_bf16 *low[NT_LORA_GROUPS]; // [n, rank] A x; NULL: no adapter on these
    /* For a backward only: */
    float *x_in, *x_mid; // [n, d_model] x as the two norms saw it
    float *lse;          // [n, s.n_head] of attention
    nt_bf16 *pre;        // [n, nt_row_ld(2 s.ff_pad)] gate and up in packed order, before the activation
};

#endif
