/* What the attention bodies share: the cutting of a step into items, their distribution, and the walk over the pages.
 *
 * An item is a block of consecutive tokens of one sequence times the query heads of one KV head. Items are numbered in
 * one fixed order (sequences, then token blocks from the last to the first, then KV heads) and grouped into chunks of
 * about equal estimated cost; threads draw chunks by ticket. A row's result does not depend on its item: see ops.h.
 * Rows of an item: row r is token tok0 + r / n_group, head head0 + r % n_group.
 * A tuned body brings two functions, one page for a tile of rows and the end of a row; nt_attn_run_tiles does the rest.
 * Masked keys have probability +0, and adding +0 * v is exact; where v is not finite it is not, so a row that ends with
 * NaN or Inf is computed again alone, with the values of its invisible slots taken as 0. Pages nobody in the tile sees
 * are not visited. Everything lives in the thread's scratch. */
#ifndef NT_CPU_ATTENTION_H
#define NT_CPU_ATTENTION_H

#include "cpu_bodies.h"
#include "cpu_math.h"
#include <math.h>

enum { NT_ATTN_MAX_D = 512, NT_ATTN_MAX_TILE = 8, NT_ATTN_LANES = 16 };

struct nt_attn_item {
    const struct nt_attn_seq *seq;
    int32_t tok0, n_tok;    /* tokens of the sequence's n_q */
    int32_t head0, n_group; /* query heads */
    int32_t kv_head;
};
static inline int32_t nt_attn_item_rows(const struct nt_attn_item *it) {
    return it->n_tok * it->n_group;
}

/* A function that does nothing but fetch has no effects, and a call of it may be dropped: GCC does it. */
#define NT_FETCHES static inline __attribute__((always_inline)) void
/* The lines of `rows` pieces of n elements, ld apart. */
NT_FETCHES nt_attn_fetch(const nt_bf16 *at, int64_t ld, int32_t rows, int32_t n) {
    for (int32_t i = 0; i < rows; i++)
        for (int32_t j = 0; j < n; j += 32) __builtin_prefetch(at + i * ld + j, 0, 2);
}

/* ahead: the item the thread does next, or NULL. */
typedef void nt_attn_item_fn(const struct nt_attention_args *args, const struct nt_attn_item *item,
                             const struct nt_attn_item *ahead, void *scratch, const void *context);

/* Calls fn for every item with the calling thread's scratch; no item has more than max_rows rows unless one token has.
 */
void nt_attn_run(struct nt_backend *be, const struct nt_attention_args *args, int32_t max_rows, nt_attn_item_fn *fn,
                 const void *context);

/* First visible position of a row at pos. */
static inline int32_t nt_attn_first(int32_t window, int32_t pos) {
    return window > 0 && pos >= window ? pos - window + 1 : 0;
}
/* Query heads [head, end) have the same KV head. */
static inline int32_t nt_attn_group_end(const int32_t *kv_of_head, int32_t n_head, int32_t head) {
    int32_t end = head + 1;
    while (end < n_head && kv_of_head[end] == kv_of_head[head]) end++;
    return end;
}
static inline int32_t nt_attn_largest_group(const int32_t *kv_of_head, int32_t n_head) {
    int32_t most = 1;
    for (int32_t head = 0, end; head < n_head; head = end) {
        end = nt_attn_group_end(kv_of_head, n_head, head);
        if (end - head > most) most = end - head;
    }
    return most;
}
/* A row's lse of its maximum, in base 2, and the sum of its exponentials. */
static inline float nt_attn_lse(float max, float sum) {
    return sum > 0 && sum < INFINITY ? max + nt_log_pos(sum) * NT_LOG2E : NAN; /* nothing finite to divide by */
}
/* K of a page of the sequence and a KV head; V is NT_KV_PAGE * d_pad elements further. */
static inline const nt_bf16 *nt_attn_page(const struct nt_kv_layer *kv, const struct nt_attn_seq *seq, int32_t page,
                                          int32_t kv_head) {
    return kv->base + seq->pages[page] * kv->page_stride + kv_head * nt_kv_head_elems(kv->format, kv->d_head);
}
/* The next piece of a thread's scratch, on lines of its own. */
static inline void *nt_attn_take(char **at, int64_t bytes) {
    void *piece = *at;
    *at += (bytes + 63) & ~(int64_t)63;
    return piece;
}

/* Row state of one item. */
struct nt_attn_state {
    const nt_bf16 **q; // [rows]
    float *qf;         // [rows, d_pad] q as floats, where the body asks for it
    int32_t *pos;      // [rows]
    float *m;          // [rows] running reference of the softmax, in base 2
    float *l;          // [rows, NT_ATTN_LANES] running sums by lane
    float *o;          // [rows, d_pad] running outputs
    nt_bf16 *v_clean;  // [NT_KV_PAGE / 2, d_pad, 2]
    float s[NT_ATTN_MAX_TILE][NT_KV_PAGE];
    float p[NT_ATTN_MAX_TILE][NT_KV_PAGE]; /* probabilities: floats, or bf16 from the start of each row */
    float alpha[NT_ATTN_MAX_TILE], ref[NT_ATTN_MAX_TILE];
};

/* One page as a tile of rows sees it. */
struct nt_attn_span {
    const nt_bf16 *k, *v;
    int32_t base;   /* position of slot 0 */
    int32_t lo, hi; /* slots [lo, hi) are seen by some row */
    bool full;      /* by every row, all of the page */
};

struct nt_attn_body {
    int32_t tile, max_rows;
    bool q_floats;
    void (*page)(const struct nt_attention_args *a, struct nt_attn_state *st, int32_t r0, int n,
                 const struct nt_attn_span *sp);
    /* *sum = l over its lanes, out[d_head] = o / *sum; false when a value is NaN or Inf. */
    bool (*finish)(const struct nt_attention_args *a, const struct nt_attn_state *st, int32_t r, float *sum,
                   nt_bf16 *out);
};

void nt_attn_run_tiles(struct nt_backend *be, const struct nt_attention_args *args, const struct nt_attn_body *body);

#endif
