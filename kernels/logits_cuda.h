/* What the kernels on logit rows and their launchers agree on: chunks of a row, and the structs of the kernels.
 *
 * A row is cut into chunks of NT_LOGIT_CHUNK logits, a block each, so that few rows fill a device; a second kernel
 * joins the chunks' results of a row in ascending order. Where chunks begin depends on the row's width (Gumbel: and on
 * the shard's first index) alone, never on the batch. Parts lie in the backend's workspace.
 * No state; errors are the launcher's. */
#ifndef NT_LOGITS_CUDA_H
#define NT_LOGITS_CUDA_H

#include "ops.h"

enum {
    NT_LOGIT_CHUNK = 4096,
    NT_LOGIT_THREADS = 256,
    NT_LOGIT_QUADS = NT_LOGIT_CHUNK / 4 / NT_LOGIT_THREADS, /* float4 of a thread */
    NT_LOGIT_JOIN_ROWS = 4,                                 /* rows of a joining block, a warp each */
};

static inline int32_t nt_logit_chunks(int32_t n_vocab) {
    return (n_vocab + NT_LOGIT_CHUNK - 1) / NT_LOGIT_CHUNK;
}

/* The result of a chunk. */
struct nt_logit_part {
    float value;   /* the best */
    int32_t index; /* in the row */
    float sum;     /* of exp(x - value) */
    int32_t unused;
};

struct nt_logit_stats_cuda {
    struct nt_logit_stats_args op;
    struct nt_logit_part *part; // [n_row, n_chunk]
    int32_t n_chunk;
};

struct nt_logit_gumbel_cuda {
    struct nt_logit_gumbel_args op;
    struct nt_logit_part *part; // [n_row, n_chunk]
    int32_t n_chunk;
};

#ifndef __CUDACC__
/* What no kernel over the columns of a row takes: NT_E_UNSUPPORTED with a sentence. */
NT_MUST nt_status nt_logit_cuda_check(int32_t n_vocab, const char *op);
#endif

#endif
