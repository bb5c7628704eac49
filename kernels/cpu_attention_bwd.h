/* What the tuned attention_bwd bodies share: the order of the work, and the walk over pages and query rows.
 *
 * Two runs on the pool. First delta of each query row, which waits in the row's own place of dk, not needed before.
 * Then items of one key page each (all query blocks that see it, ascending): dk and dv of the page are complete in the
 * item, dq gets one part per page. An item waits before each query block until the page before it is through with that
 * block, so that the parts of dq have one order, whatever the threads; pages follow each other like a wave and seldom
 * wait. A block's own page is the last one it needs, and is done before its rows' dk and dv are written. A query block
 * is NT_KV_PAGE tokens, cut into tiles of rows for the body: row r is token r / n_group, head r % n_group of the group.
 * The counters of the items lie at the end of the scratch of thread 0. Errors: none, ops cannot fail. */
#ifndef NT_CPU_ATTENTION_BWD_H
#define NT_CPU_ATTENTION_BWD_H

#include "cpu_attention.h"
#include "ops_bwd.h"

enum { NT_ATTN_BWD_ROWS = 64, NT_ATTN_BWD_COUNTERS = 128 << 10 /* bytes at the end of the scratch */ };

/* Query rows of one block against one key page. */
struct nt_attn_bwd_rows {
    int32_t n;                                          /* at most the body's max_rows */
    bool first;                                         /* no page before this one adds to dq */
    const nt_bf16 *q[NT_ATTN_BWD_ROWS];                 // [d_pad]
    const float *dout[NT_ATTN_BWD_ROWS];                // [d_head]
    float *dq[NT_ATTN_BWD_ROWS];                        // [d_head]
    int32_t lo[NT_ATTN_BWD_ROWS], hi[NT_ATTN_BWD_ROWS]; /* visible slots [lo, hi) of the page; both ascend */
    float lse[NT_ATTN_BWD_ROWS], delta[NT_ATTN_BWD_ROWS];
    const struct nt_attn_bwd_rows *ahead; /* what the page meets next, of which pointers are set, or NULL */
};

/* The lines of up to n rows from r0 on of what comes next, into L2: they were last seen a page ago, or never. */
static inline void nt_attn_bwd_fetch_ahead(const struct nt_attn_bwd_rows *rows, int32_t r0, int32_t n, int32_t d_head) {
    const struct nt_attn_bwd_rows *next = rows->ahead;
    if (!next) return;
    for (int32_t i = r0; i < r0 + n && i < next->n; i++)
        for (int32_t j = 0; j < d_head; j += 16) {
            if (j % 32 == 0) __builtin_prefetch(next->q[i] + j, 0, 2);
            __builtin_prefetch(next->dout[i] + j, 0, 2);
            __builtin_prefetch(next->dq[i] + j, 0, 2);
        }
}

struct nt_attn_bwd_body {
    int32_t max_rows; /* per call, even */
    /* Sum of out dout, dout rounded to bf16 as the products take it. */
    float (*delta)(const nt_bf16 *out, const float *dout, int32_t d_head);
    /* A page's K and V, in the cache's layout, kept or converted for what follows; dk = dv = 0. Keys from n_key on are
     * not the sequence's. */
    void (*begin)(const struct nt_attention_bwd_args *a, const nt_bf16 *k, const nt_bf16 *v, int32_t n_key,
                  void *scratch);
    /* The rows' parts of dq, dk and dv. */
    void (*rows)(const struct nt_attention_bwd_args *a, const struct nt_attn_bwd_rows *rows, const nt_bf16 *k,
                 void *scratch);
    /* dk [NT_KV_PAGE, d_pad], dv behind it */
    const float *(*sums)(void *scratch);
};

/* True when it could be done: the cache PAIRED, a row's place large enough for its deltas, counters for all items. */
bool nt_attn_bwd_run(struct nt_backend *be, const struct nt_attention_bwd_args *args,
                     const struct nt_attn_bwd_body *body);

#endif
