/* What the attention bodies of all instruction sets share: the cutting of a step into items and their distribution.
 *
 * An item is a block of consecutive tokens of one sequence times the query heads of one KV head. Items are numbered in
 * one fixed order (sequences, then token blocks from the last to the first, then KV heads) and grouped into chunks of
 * about equal estimated cost; threads draw chunks by ticket. A row's result does not depend on its item: see ops.h.
 * Rows of an item: row r is token tok0 + r / n_group, head head0 + r % n_group. */
#ifndef NT_CPU_ATTENTION_H
#define NT_CPU_ATTENTION_H

#include "cpu_bodies.h"

enum { NT_ATTN_MAX_D = 512 };

struct nt_attn_item {
    const struct nt_attn_seq *seq;
    int32_t tok0, n_tok;    /* tokens of the sequence's n_q */
    int32_t head0, n_group; /* query heads */
    int32_t kv_head;
};
static inline int32_t nt_attn_item_rows(const struct nt_attn_item *it) {
    return it->n_tok * it->n_group;
}

typedef void nt_attn_item_fn(const struct nt_attention_args *args, const struct nt_attn_item *item, void *scratch);

/* Calls fn for every item with the calling thread's scratch; no item has more than max_rows rows unless one token has.
 */
void nt_attn_run(struct nt_backend *be, const struct nt_attention_args *args, int32_t max_rows, nt_attn_item_fn *fn);

/* First visible position of a row at pos. */
static inline int32_t nt_attn_first(const struct nt_attention_args *a, int32_t pos) {
    return a->window > 0 && pos >= a->window ? pos - a->window + 1 : 0;
}
static inline const nt_bf16 *nt_attn_page(const struct nt_attention_args *a, const struct nt_attn_item *it,
                                          int32_t page) {
    return a->kv->base + it->seq->pages[page] * a->kv->page_stride + it->kv_head * nt_kv_head_elems(a->kv->d_head);
}

#endif
