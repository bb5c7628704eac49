/* What a forward takes: a batch of sequences, the cache, and the largest of both.
 *
 * Plain data, owned by whoever makes it and read during the call only. The cache's memory belongs to the job
 * (nt_kv_pool_take), which hands out its pages (infer/pages.h). Shapes as in ops.h: a sequence is a run of tokens at
 * consecutive positions, its pages cover all of them.
 * No errors: a batch that breaks these rules is a bug of its maker, which nt_model_forward ends the program for. One
 * thread. */
#ifndef NT_BATCH_H
#define NT_BATCH_H

#include "ops.h"

/* [n_layer][n_page] pages. */
struct nt_kv_pool {
    nt_bf16 *base;
    int32_t n_page;
};

/* The largest forward: tokens, rows of logits, sequences, and pages of all its sequences together. */
struct nt_step_limits {
    int32_t tok, out, seq;
    int64_t pages;
};

/* All in host memory, but for what is said to be on the device. */
struct nt_batch {
    const int32_t *ids;             // [n_tok]
    const struct nt_attn_seq *seqs; // [n_seq], token rows in order, covering 0..n_tok-1
    const int32_t *out_rows;        // [n_out] rows whose logits are wanted, ascending
    int32_t n_tok, n_seq, n_out;
    /* On a device, whose steps can follow each other without the host: */
    const struct nt_logit_sample_args
        *sample;  /* tokens are drawn, of n_vocab ids over all ranks; logits, ld and n_row are filled in */
    bool by_head; /* with sample, whose rows are greedy or plain draws: the head draws, and no logits are stored */
    const int32_t *prev;     /* NULL, or device memory: ids[t] = prev[prev_row[t]] for the first n_prev tokens */
    const int32_t *prev_row; // [n_prev]
    int32_t n_prev;
};

#endif
