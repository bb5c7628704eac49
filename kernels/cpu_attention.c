#include "cpu_attention.h"
#include <math.h>

/* Chunks per thread: enough to even out a disturbed thread, few enough for the ticket counter not to matter. */
enum { CHUNKS_PER_THREAD = 12 };

struct run {
    struct nt_backend *be;
    const struct nt_attention_args *args;
    nt_attn_item_fn *fn;
    const void *context;
    int32_t max_rows, group_max;
    int64_t cost_total, cost_chunk;
};

static int32_t block_tokens(const struct run *r) {
    return r->max_rows > r->group_max ? r->max_rows / r->group_max : 1;
}

/* Pages times rows, plus the pages themselves: reading a page costs about as much as eight rows of arithmetic. */
static int64_t item_cost(const struct nt_attention_args *a, const struct nt_attn_item *it) {
    const int32_t last = it->seq->pos0 + it->tok0 + it->n_tok - 1;
    const int64_t first = nt_attn_first(a->window, it->seq->pos0 + it->tok0);
    return (last / NT_KV_PAGE - first / NT_KV_PAGE + 1) * (nt_attn_item_rows(it) + 8);
}

/* The place in the order of items; cost is that of all items before it. */
struct cursor {
    int32_t seq, tok0, head;
    int64_t cost;
};

/* Moves to the last block of the first sequence at or after c->seq that has tokens. */
static void cursor_enter_seq(const struct run *r, struct cursor *c) {
    const int32_t block = block_tokens(r);
    while (c->seq < r->args->n_seq && r->args->seqs[c->seq].n_q < 1) c->seq++;
    if (c->seq < r->args->n_seq) c->tok0 = (r->args->seqs[c->seq].n_q - 1) / block * block;
}

/* The item at the cursor, which moves on; false at the end. */
static bool cursor_next(const struct run *r, struct cursor *c, struct nt_attn_item *item) {
    const struct nt_attention_args *a = r->args;
    if (c->seq >= a->n_seq) return false;
    const struct nt_attn_seq *seq = &a->seqs[c->seq];
    const int32_t block = block_tokens(r), left = seq->n_q - c->tok0,
                  end = nt_attn_group_end(a->kv_of_head, a->n_head, c->head);
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
    c->seq++;
    cursor_enter_seq(r, c);
    return true;
}

/* A chunk is the run of items that begin in [chunk, chunk + 1) * cost_chunk. Tickets of a thread only rise. */
static void attention_thread(void *arg, int thread, int n_threads) {
    const struct run *r = arg;
    void *scratch = nt_cpu_scratch(r->be, thread);
    const int64_t n_chunk = (r->cost_total + r->cost_chunk - 1) / r->cost_chunk;
    struct cursor c = {0};
    struct nt_attn_item item, ahead;
    (void)n_threads;
    cursor_enter_seq(r, &c);
    for (int64_t chunk; (chunk = nt_pool_next(r->be->pool, n_chunk)) >= 0;) {
        while (c.cost < chunk * r->cost_chunk && cursor_next(r, &c, &item)) continue;
        bool more = c.cost < (chunk + 1) * r->cost_chunk && cursor_next(r, &c, &item);
        while (more) {
            more = c.cost < (chunk + 1) * r->cost_chunk && cursor_next(r, &c, &ahead);
            r->fn(r->args, &item, more ? &ahead : NULL, scratch, r->context);
            item = ahead;
        }
    }
}

void nt_attn_run(struct nt_backend *be, const struct nt_attention_args *args, int32_t max_rows, nt_attn_item_fn *fn,
                 const void *context) {
    struct run r = {.be = be, .args = args, .fn = fn, .context = context, .max_rows = max_rows};
    r.group_max = nt_attn_largest_group(args->kv_of_head, args->n_head);
    struct cursor c = {0};
    cursor_enter_seq(&r, &c);
    for (struct nt_attn_item item; cursor_next(&r, &c, &item);) continue;
    r.cost_total = c.cost;
    r.cost_chunk = r.cost_total / (CHUNKS_PER_THREAD * nt_pool_size(be->pool)) + 1;
    if (r.cost_total > 0) nt_pool_run(be->pool, attention_thread, &r);
}

/* ---- the walk over the pages ------------------------------------------------------------------------------------ */

static void init_row(struct nt_attn_state *st, int32_t r, int32_t d_pad) {
    st->m[r] = -INFINITY;
    memset(st->l + NT_ATTN_LANES * r, 0, NT_ATTN_LANES * sizeof *st->l);
    memset(st->o + (int64_t)r * d_pad, 0, (size_t)d_pad * sizeof *st->o);
}

static struct nt_attn_state *state_init(const struct nt_attention_args *a, const struct nt_attn_item *it,
                                        const struct nt_attn_body *body, void *scratch) {
    const int32_t rows = nt_attn_item_rows(it), d_pad = nt_d_pad(a->kv->d_head);
    char *at = scratch;
    struct nt_attn_state *st = nt_attn_take(&at, sizeof *st);
    st->q = nt_attn_take(&at, rows * (int64_t)sizeof *st->q);
    st->pos = nt_attn_take(&at, rows * (int64_t)sizeof *st->pos);
    st->m = nt_attn_take(&at, rows * (int64_t)sizeof *st->m);
    st->l = nt_attn_take(&at, rows * NT_ATTN_LANES * (int64_t)sizeof *st->l);
    st->o = nt_attn_take(&at, rows * d_pad * (int64_t)sizeof *st->o);
    st->v_clean = nt_attn_take(&at, NT_KV_PAGE * d_pad * (int64_t)sizeof *st->v_clean);
    if (body->q_floats) st->qf = nt_attn_take(&at, rows * d_pad * (int64_t)sizeof *st->qf);
    NT_CHECK(at - (char *)scratch <= NT_CPU_SCRATCH_BYTES);
    for (int32_t r = 0; r < rows; r++) {
        const int32_t tok = it->tok0 + r / it->n_group, head = it->head0 + r % it->n_group;
        st->q[r] = a->q + ((int64_t)(it->seq->q_row + tok) * a->n_head + head) * d_pad;
        st->pos[r] = it->seq->pos0 + tok;
        init_row(st, r, d_pad);
        for (int32_t i = 0; body->q_floats && i < d_pad; i++) st->qf[r * d_pad + i] = nt_bf16_to_f32(st->q[r][i]);
    }
    return st;
}

/* What rows r0 .. r0 + n - 1 see of a page; false: nothing. */
static bool span_of(const struct nt_attention_args *a, const struct nt_attn_state *st, int32_t r0, int n, int32_t page,
                    struct nt_attn_span *sp) {
    const int32_t base = page * NT_KV_PAGE, pos0 = st->pos[r0], pos1 = st->pos[r0 + n - 1];
    const int32_t lo = nt_attn_first(a->window, pos0) - base, hi = pos1 + 1 - base;
    if (lo >= NT_KV_PAGE || hi <= 0) return false;
    sp->base = base;
    sp->lo = lo > 0 ? lo : 0;
    sp->hi = hi < NT_KV_PAGE ? hi : NT_KV_PAGE;
    sp->full = nt_attn_first(a->window, pos1) <= base && pos0 + 1 - base >= NT_KV_PAGE;
    return true;
}

static void clean_values(struct nt_attn_state *st, struct nt_attn_span *sp, int32_t d_pad) {
    memset(st->v_clean, 0, (size_t)NT_KV_PAGE * (size_t)d_pad * sizeof *st->v_clean);
    for (int32_t slot = sp->lo; slot < sp->hi; slot++)
        for (int32_t i = 0; i < d_pad; i++) {
            const int64_t at = (int64_t)(slot / 2) * 2 * d_pad + 2 * i + slot % 2;
            st->v_clean[at] = sp->v[at];
        }
    sp->v = st->v_clean;
}

/* Row r alone and without foreign values; the same operations as in its tile. */
static void attend_strict(const struct nt_attention_args *a, const struct nt_attn_item *it,
                          const struct nt_attn_body *body, struct nt_attn_state *st, int32_t r) {
    const int32_t d_pad = nt_d_pad(a->kv->d_head), pos = st->pos[r];
    init_row(st, r, d_pad);
    for (int32_t page = nt_attn_first(a->window, pos) / NT_KV_PAGE; page <= pos / NT_KV_PAGE; page++) {
        struct nt_attn_span sp = {.k = nt_attn_page(a->kv, it->seq, page, it->kv_head)};
        sp.v = sp.k + (int64_t)NT_KV_PAGE * d_pad;
        if (!span_of(a, st, r, 1, page, &sp)) continue;
        clean_values(st, &sp, d_pad);
        body->page(a, st, r, 1, &sp);
    }
}

/* Where an item's outputs go. */
NT_FETCHES fetch_out(const struct nt_attention_args *a, const struct nt_attn_item *it) {
    const int64_t t = it->seq->q_row + it->tok0;
    const int32_t d = a->kv->d_head;
    nt_attn_fetch(a->out + t * a->ldo + it->head0 * d, a->ldo, it->n_tok, it->n_group * d);
}
/* What the next one reads first. */
NT_FETCHES fetch_q(const struct nt_attention_args *a, const struct nt_attn_item *it) {
    const int64_t t = it->seq->q_row + it->tok0;
    const int32_t d = nt_d_pad(a->kv->d_head);
    nt_attn_fetch(a->q + (t * a->n_head + it->head0) * d, (int64_t)a->n_head * d, it->n_tok, it->n_group * d);
}

static void attend_item(const struct nt_attention_args *a, const struct nt_attn_item *it,
                        const struct nt_attn_item *ahead, void *scratch, const void *context) {
    const struct nt_attn_body *body = context;
    const int32_t rows = nt_attn_item_rows(it), d = a->kv->d_head, n_tile = (rows + body->tile - 1) / body->tile;
    struct nt_attn_state *st = state_init(a, it, body, scratch);
    const int32_t first = nt_attn_first(a->window, st->pos[0]) / NT_KV_PAGE, last = st->pos[rows - 1] / NT_KV_PAGE;
    fetch_out(a, it);
    if (ahead) fetch_q(a, ahead);
    for (int32_t page = first; page <= last; page++) {
        struct nt_attn_span sp = {.k = nt_attn_page(a->kv, it->seq, page, it->kv_head)};
        sp.v = sp.k + (int64_t)NT_KV_PAGE * nt_d_pad(d);
        for (int32_t t = 0; t < n_tile; t++) {
            const int32_t r0 = t * rows / n_tile, n = (t + 1) * rows / n_tile - r0;
            if (span_of(a, st, r0, n, page, &sp)) body->page(a, st, r0, n, &sp);
        }
    }
    for (int32_t r = 0; r < rows; r++) {
        const int64_t t = it->seq->q_row + it->tok0 + r / it->n_group, head = it->head0 + r % it->n_group;
        nt_bf16 *out = a->out + t * a->ldo + head * d;
        float sum;
        if (!body->finish(a, st, r, &sum, out)) {
            attend_strict(a, it, body, st, r);
            (void)body->finish(a, st, r, &sum, out);
        }
        if (a->lse) a->lse[t * a->n_head + head] = nt_attn_lse(st->m[r], sum);
    }
}

void nt_attn_run_tiles(struct nt_backend *be, const struct nt_attention_args *args, const struct nt_attn_body *body) {
    NT_CHECK(args->kv->d_head % 2 == 0 && args->kv->d_head <= NT_ATTN_MAX_D && args->scale > 0);
    nt_attn_run(be, args, body->max_rows, attend_item, body);
}
