/* What the tuned attention_bwd bodies share: the order of the work, and the walk over chunks of queries and key pages.
 *
 * A chunk is a power of two of consecutive tokens within one page, times the heads of one KV head's group: as many as
 * the body takes rows. Row r is token r / n_group, head r % n_group. A chunk meets the pages it sees in ascending
 * order: its dq stays in the body's scratch until the last, dk and dv of a page get one part per chunk, chunks
 * ascending. A strand is all chunks of a sequence and KV head; it stays with one thread, in whose L2 cache its keys'
 * gradients and the next rows are. Where there are too few strands for the threads, threads draw chunks instead, and
 * one waits before each page until the chunk before it is through with that page, so that the parts have one order,
 * whatever the threads; chunks follow each other like a wave and seldom wait. The counters of the wave lie at the end
 * of the scratch of thread 0, before them in each thread's scratch the parts of keys whose rows are not whole vectors.
 * Errors: none, ops cannot fail. */
#ifndef NT_CPU_ATTENTION_BWD_H
#define NT_CPU_ATTENTION_BWD_H

#include "cpu_attention.h"
#include "ops_bwd.h"

enum { NT_ATTN_BWD_ROWS = 192, NT_ATTN_BWD_COUNTERS = 128 << 10 /* bytes at the end of the scratch */ };

/* Query rows of one chunk, and what they see of the page at hand. */
struct nt_attn_bwd_rows {
    int32_t n;                            /* at most what nt_attn_bwd_most_rows says */
    const nt_bf16 *q[NT_ATTN_BWD_ROWS];   // [d_pad]
    const nt_bf16 *out[NT_ATTN_BWD_ROWS]; // [d_head]
    const float *dout[NT_ATTN_BWD_ROWS];  // [d_head]
    float *dq[NT_ATTN_BWD_ROWS];          // [d_head]
    float lse[NT_ATTN_BWD_ROWS], delta[NT_ATTN_BWD_ROWS];
    int32_t lo[NT_ATTN_BWD_ROWS], hi[NT_ATTN_BWD_ROWS]; /* visible slots [lo, hi) of the page; both ascend */
    bool full;                                          /* all rows see all slots */
    bool first, last;                                   /* of their pages */
    const struct nt_attn_bwd_rows *ahead; /* the thread's next chunk, of which pointers are set, or NULL */
};

/* A page of keys and where the rows' parts of their gradients are added. */
struct nt_attn_bwd_page {
    const nt_bf16 *k, *v; // as the cache has them
    int32_t n_key;        /* keys from here on are not the sequence's */
    float *dk, *dv;       // [NT_KV_PAGE, ld], d_pad columns may be written
    int64_t ld;
};

/* For up to n rows from r0 on, into L2: what the next chunk's rows read, last seen layers ago, and where dq goes. */
NT_FETCHES nt_attn_bwd_fetch_ahead(const struct nt_attn_bwd_rows *rows, int32_t r0, int32_t n, int32_t d_head) {
    const struct nt_attn_bwd_rows *next = rows->ahead;
    if (!rows->last) return;
    for (int32_t i = r0; i < r0 + n; i++)
        for (int32_t j = 0; j < d_head; j += 16) {
            __builtin_prefetch(rows->dq[i] + j, 1, 2);
            if (!next || i >= next->n) continue;
            __builtin_prefetch(next->dout[i] + j, 0, 2);
            if (j % 32 != 0) continue;
            __builtin_prefetch(next->q[i] + j, 0, 2);
            __builtin_prefetch(next->out[i] + j, 0, 2);
        }
}

struct nt_attn_bwd_body {
    int32_t max_rows; /* with d_pad up to 128, at most NT_ATTN_BWD_ROWS */
    /* Rows as the products want them, kept in the scratch for the pages that follow; their delta, the sum of out dout,
     * dout rounded to bf16 as the products take it. */
    void (*begin)(const struct nt_attention_bwd_args *a, struct nt_attn_bwd_rows *rows, void *scratch);
    /* The rows' parts of dk and dv, and of dq, which stays in the scratch. */
    void (*page)(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows,
                 const struct nt_attn_bwd_page *page, void *scratch);
    /* dq goes where it belongs. */
    void (*end)(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, void *scratch);
};

/* Rows of a chunk where heads are wide: a row's operands grow with them. */
static inline int32_t nt_attn_bwd_most_rows(const struct nt_attn_bwd_body *body, int32_t d_pad) {
    return d_pad <= 128 ? body->max_rows : d_pad <= 256 ? body->max_rows / 2 : body->max_rows / 4;
}
/* Bytes of a thread's scratch that are the body's. */
static inline size_t nt_attn_bwd_scratch(int32_t d_pad) {
    return NT_CPU_SCRATCH_BYTES - NT_ATTN_BWD_COUNTERS - 2 * NT_KV_PAGE * (size_t)d_pad * sizeof(float);
}

/* True when it could be done: the cache PAIRED, no group larger than a chunk. */
bool nt_attn_bwd_run(struct nt_backend *be, const struct nt_attention_bwd_args *args,
                     const struct nt_attn_bwd_body *body);

#endif
