#include "cpu_attention.h"

/* Chunks per thread: enough to even out a disturbed thread, few enough for the ticket counter not to matter. */
enum { CHUNKS_PER_THREAD = 12 };

struct run {
    struct nt_backend *be;
    const struct nt_attention_args *args;
    nt_attn_item_fn *fn;
    int32_t max_rows, group_max;
    int64_t cost_total, cost_chunk;
};

static int32_t group_end(const struct nt_attention_args *a, int32_t head) {
    int32_t end = head + 1;
    while (end < a->n_head && a->kv_of_head[end] == a->kv_of_head[head]) end++;
    return end;
}

static int32_t block_tokens(const struct run *r) {
    return r->max_rows > r->group_max ? r->max_rows / r->group_max : 1;
}

/* Pages times rows, plus the pages themselves: reading a page costs about as much as eight rows of arithmetic. */
static int64_t item_cost(const struct nt_attention_args *a, const struct nt_attn_item *it) {
    const int32_t last = it->seq->pos0 + it->tok0 + it->n_tok - 1;
    const int64_t first = nt_attn_first(a, it->seq->pos0 + it->tok0);
    return (last / NT_KV_PAGE - first / NT_KV_PAGE + 1) * (nt_attn_item_rows(it) + 8);
}

/* The place in the order of items; cost is that of all items before it. */
struct cursor {
    int32_t seq, tok0, head;
    int64_t cost;
};

static int32_t last_block(const struct run *r, int32_t seq) {
    const int32_t block = block_tokens(r);
    return (r->args->seqs[seq].n_q - 1) / block * block;
}

static struct cursor cursor_begin(const struct run *r) {
    return (struct cursor){.tok0 = r->args->n_seq > 0 ? last_block(r, 0) : 0};
}

/* The item at the cursor, which moves on; false at the end. */
static bool cursor_next(const struct run *r, struct cursor *c, struct nt_attn_item *item) {
    const struct nt_attention_args *a = r->args;
    if (c->seq >= a->n_seq) return false;
    const struct nt_attn_seq *seq = &a->seqs[c->seq];
    const int32_t block = block_tokens(r), left = seq->n_q - c->tok0, end = group_end(a, c->head);
    *item = (struct nt_attn_item){
        .seq = seq,
        .tok0 = c->tok0,
        .n_tok = left < block ? left : block,
        .head0 = c->head,
        .n_group = end - c->head,
        .kv_head = a->kv_of_head[c->head],
    };
    c->cost += item_cost(a, item);
    c->head = end;
    if (end < a->n_head) return true;
    c->head = 0;
    c->tok0 -= block;
    if (c->tok0 >= 0) return true;
    if (++c->seq < a->n_seq) c->tok0 = last_block(r, c->seq);
    return true;
}

/* A chunk is the run of items that begin in [chunk, chunk + 1) * cost_chunk. Tickets of a thread only rise. */
static void attention_thread(void *arg, int thread, int n_threads) {
    const struct run *r = arg;
    void *scratch = nt_cpu_scratch(r->be, thread);
    const int64_t n_chunk = (r->cost_total + r->cost_chunk - 1) / r->cost_chunk;
    struct cursor c = cursor_begin(r);
    struct nt_attn_item item;
    (void)n_threads;
    for (int64_t chunk; (chunk = nt_pool_next(r->be->pool, n_chunk)) >= 0;) {
        while (c.cost < (chunk + 1) * r->cost_chunk) {
            const bool mine = c.cost >= chunk * r->cost_chunk;
            if (!cursor_next(r, &c, &item)) break;
            if (mine) r->fn(r->args, &item, scratch);
        }
    }
}

void nt_attn_run(struct nt_backend *be, const struct nt_attention_args *args, int32_t max_rows, nt_attn_item_fn *fn) {
    struct run r = {.be = be, .args = args, .fn = fn, .max_rows = max_rows, .group_max = 1};
    for (int32_t head = 0, end; head < args->n_head; head = end) {
        end = group_end(args, head);
        if (end - head > r.group_max) r.group_max = end - head;
    }
    struct cursor c = cursor_begin(&r);
    for (struct nt_attn_item item; cursor_next(&r, &c, &item);) continue;
    r.cost_total = c.cost;
    r.cost_chunk = r.cost_total / (CHUNKS_PER_THREAD * nt_pool_size(be->pool)) + 1;
    if (r.cost_total > 0) nt_pool_run(be->pool, attention_thread, &r);
}
