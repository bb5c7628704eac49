/* One call of each op on operands out of rotating pools; internal to kernels/cuda_bench*.
 *
 * A call is made by its row's function as often as it is to be launched; each time the operands move on through the
 * pools. With `counting` it only adds up its cost and says whether its operands fit. What the host prepares (ids,
 * sequences, sampling parameters) is uploaded once by nt_cuda_calls_begin and shared by all launches.
 * Ownership: plain structs; the memory is the bench's. Threading: as the backend. Errors: those of the ops. */
#ifndef NT_CUDA_BENCH_CALLS_H
#define NT_CUDA_BENCH_CALLS_H

#include "cuda_bench.h"

struct nt_cuda_pool {
    char *base; /* device */
    size_t bytes, at;
};

/* What the host prepared: the same on the host and on the device. */
struct nt_cuda_call_inputs {
    const int32_t *ids, *rows, *pages, *kv_of_head, *top_k;
    const float *ones, *top_p, *min_p;
    const uint64_t *seeds;
    const struct nt_attn_seq *seqs;
    const struct nt_logit_edit *edits;
    const struct nt_seen *seen;
    const int32_t *seen_begin;
};

struct nt_cuda_call {
    struct nt_backend *be;
    const struct nt_cuda_dims *dims;
    struct nt_cuda_pool *in, *out;
    int32_t n_tok, n_seq, max_q, max_pos, n_pages;
    struct nt_cuda_call_inputs host, device;
    bool counting, too_large, by_blaslt;
    struct nt_cost cost;
    int32_t n, k; /* of the last product */
};

typedef nt_status nt_cuda_call_fn(struct nt_cuda_call *c);
enum nt_cuda_call_when { NT_CALL_ALWAYS, NT_CALL_DECODE, NT_CALL_PROMPT };
struct nt_cuda_call_row {
    enum nt_op op;
    const char *what;
    nt_cuda_call_fn *run;
    enum nt_cuda_call_when when;
    bool product;
};
const struct nt_cuda_call_row *nt_cuda_call_rows(int32_t *n);

/* Room on host and device for what the host prepares. */
struct nt_cuda_call_memory {
    char *host, *device;
    size_t bytes, used;
};
/* Sequences of n_tok tokens: one prompt from position 0, or n_tok decoded tokens at position context - 1. */
NT_MUST nt_status nt_cuda_calls_begin(struct nt_cuda_call *c, struct nt_cuda_call_memory *m, int32_t n_tok,
                                      bool prefill, int32_t context);

#endif
