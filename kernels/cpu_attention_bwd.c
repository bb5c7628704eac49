#include "cpu_attention_bwd.h"
#include <limits.h>
#include <sched.h>
#include <stdatomic.h>

enum { COUNTERS = NT_ATTN_BWD_COUNTERS / (int)sizeof(atomic_int), SPINS = 2000, STRANDS_PER_THREAD = 4 };

struct run {
    struct nt_backend *be;
    const struct nt_attention_bwd_args *args;
    const struct nt_attn_bwd_body *body;
    int32_t n_tok; /* of a chunk */
    int32_t width; /* of a row of dqkv */
    int64_t n_strand, n_chunk;
    atomic_int *done; // [n_chunk] in a wave: pages before this one have the chunk's part; NULL: by strands
};

/* A chunk. */
struct item {
    const struct nt_attn_seq *seq;
    int32_t tok0, kv_head, head0, n_group;
    int64_t index;
};

static int32_t chunk_count(const struct run *r, const struct nt_attn_seq *seq) {
    return (seq->n_q + r->n_tok - 1) / r->n_tok;
}

static struct item item_of(const struct run *r, const struct nt_attn_seq *seq, int32_t chunk, int32_t kv_head) {
    const struct nt_attention_bwd_args *a = r->args;
    struct item it = {.seq = seq, .tok0 = chunk * r->n_tok, .kv_head = kv_head};
    while (it.head0 < a->n_head && a->kv_of_head[it.head0] < kv_head) it.head0++;
    if (it.head0 < a->n_head && a->kv_of_head[it.head0] == kv_head)
        it.n_group = nt_attn_group_end(a->kv_of_head, a->n_head, it.head0) - it.head0;
    return it;
}

/* Chunks of a wave are numbered by sequence, chunk, KV head. */
static struct item item_at(const struct run *r, int64_t index) {
    const int32_t n_kv = r->args->kv->n_kv;
    const struct nt_attn_seq *seq = r->args->seqs;
    int64_t at = index;
    while (at >= (int64_t)chunk_count(r, seq) * n_kv) at -= (int64_t)chunk_count(r, seq++) * n_kv;
    struct item it = item_of(r, seq, (int32_t)(at / n_kv), (int32_t)(at % n_kv));
    it.index = index;
    return it;
}

/* Where the chunk's rows are. */
static void rows_init(const struct run *r, const struct item *it, struct nt_attn_bwd_rows *rows) {
    const struct nt_attention_bwd_args *a = r->args;
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d), left = it->seq->n_q - it->tok0;
    rows->n = (left < r->n_tok ? left : r->n_tok) * it->n_group;
    for (int32_t i = 0; i < rows->n; i++) {
        const int32_t head = it->head0 + i % it->n_group;
        const int64_t t = it->seq->q_row + it->tok0 + i / it->n_group;
        rows->q[i] = a->q + (t * a->n_head + head) * d_pad;
        rows->out[i] = a->out + t * a->ldo + (int64_t)head * d;
        rows->dout[i] = a->dout + t * a->lddo + (int64_t)head * d;
        rows->dq[i] = a->dqkv + t * r->width + (int64_t)head * d;
    }
}

/* What needs their numbers. */
static void rows_begin(const struct run *r, const struct item *it, struct nt_attn_bwd_rows *rows, void *scratch) {
    const struct nt_attention_bwd_args *a = r->args;
    for (int32_t i = 0; i < rows->n; i++) {
        const int64_t t = it->seq->q_row + it->tok0 + i / it->n_group;
        rows->lse[i] = a->lse[t * a->n_head + it->head0 + i % it->n_group];
    }
    r->body->begin(a, rows, scratch);
}

/* What they see of a page. */
static void rows_see(const struct run *r, const struct item *it, int32_t page, struct nt_attn_bwd_rows *rows) {
    rows->full = true;
    for (int32_t i = 0; i < rows->n; i++) {
        const int32_t pos = it->tok0 + i / it->n_group;
        const int32_t lo = nt_attn_first(r->args->window, pos) - page * NT_KV_PAGE, hi = pos + 1 - page * NT_KV_PAGE;
        rows->lo[i] = lo < 0 ? 0 : lo > NT_KV_PAGE ? NT_KV_PAGE : lo;
        rows->hi[i] = hi > NT_KV_PAGE ? NT_KV_PAGE : hi;
        rows->full &= rows->lo[i] == 0 && rows->hi[i] == NT_KV_PAGE;
    }
}

/* ---- keys' gradients -------------------------------------------------------------------------------------------- */

/* The place of a token's dk; that of dv is n_kv heads further. */
static float *dk_of(const struct run *r, const struct item *it, int32_t tok) {
    const struct nt_attention_bwd_args *a = r->args;
    return a->dqkv + (int64_t)(it->seq->q_row + tok) * r->width + (int64_t)(a->n_head + it->kv_head) * a->kv->d_head;
}

static int32_t keys_of(const struct item *it, int32_t page) {
    const int32_t left = it->seq->n_q - page * NT_KV_PAGE;
    return left < NT_KV_PAGE ? left : NT_KV_PAGE;
}

static void keys_zero(const struct run *r, const struct item *it, int32_t page) {
    const int32_t d = r->args->kv->d_head, n = keys_of(it, page);
    for (int32_t i = 0; i < n; i++) {
        float *dk = dk_of(r, it, page * NT_KV_PAGE + i);
        memset(dk, 0, (size_t)d * sizeof *dk);
        memset(dk + r->args->kv->n_kv * d, 0, (size_t)d * sizeof *dk);
    }
}

/* The part that was formed apart. */
static void keys_add(const struct run *r, const struct item *it, int32_t page, const struct nt_attn_bwd_page *part) {
    const int32_t d = r->args->kv->d_head, n = keys_of(it, page);
    for (int32_t i = 0; i < n; i++) {
        float *dk = dk_of(r, it, page * NT_KV_PAGE + i), *dv = dk + r->args->kv->n_kv * d;
        for (int32_t j = 0; j < d; j++) {
            dk[j] += part->dk[i * part->ld + j];
            dv[j] += part->dv[i * part->ld + j];
        }
    }
}

/* A row of whole vectors takes its part where it lies; any other would have its neighbours written over. */
static bool keys_in_place(const struct run *r) {
    return r->args->kv->d_head % 16 == 0;
}

static struct nt_attn_bwd_page page_of(const struct run *r, const struct item *it, int32_t page, void *scratch) {
    const struct nt_kv_layer *kv = r->args->kv;
    const int32_t d_pad = nt_d_pad(kv->d_head);
    struct nt_attn_bwd_page p = {.n_key = keys_of(it, page)};
    p.k = nt_attn_page(kv, it->seq, page, it->kv_head);
    p.v = p.k + (int64_t)NT_KV_PAGE * d_pad;
    p.dk = dk_of(r, it, page * NT_KV_PAGE);
    p.dv = p.dk + kv->n_kv * kv->d_head;
    p.ld = r->width;
    if (keys_in_place(r)) return p;
    p.dk = (float *)(void *)((char *)scratch + nt_attn_bwd_scratch(d_pad));
    p.dv = p.dk + NT_KV_PAGE * d_pad;
    p.ld = d_pad;
    memset(p.dk, 0, 2 * NT_KV_PAGE * (size_t)d_pad * sizeof *p.dk);
    return p;
}

/* ---- chunks ----------------------------------------------------------------------------------------------------- */

/* Until the chunk before has added its part to the page. Its thread is running: tickets rise. */
static void wait_for(const struct run *r, const struct item *it, int32_t page) {
    if (!r->done || page * NT_KV_PAGE >= it->tok0) return; /* no chunk before sees it */
    atomic_int *before = &r->done[it->index - r->args->kv->n_kv];
    for (int i = 0; atomic_load_explicit(before, memory_order_acquire) <= page; i++) {
        if (i < SPINS)
            __asm__ volatile("" ::: "memory");
        else
            (void)sched_yield();
    }
}

static void page_done(const struct run *r, const struct item *it, int32_t pages) {
    if (r->done) atomic_store_explicit(&r->done[it->index], pages, memory_order_release);
}

static void chunk_pages(const struct run *r, const struct item *it, struct nt_attn_bwd_rows *rows, void *scratch) {
    const int32_t own = it->tok0 / NT_KV_PAGE, first = nt_attn_first(r->args->window, it->tok0) / NT_KV_PAGE;
    for (int32_t page = first; page <= own; page++) {
        rows->first = page == first;
        rows->last = page == own;
        wait_for(r, it, page);
        rows_see(r, it, page, rows);
        const struct nt_attn_bwd_page p = page_of(r, it, page, scratch);
        r->body->page(r->args, rows, &p, scratch);
        if (!keys_in_place(r)) keys_add(r, it, page, &p);
        page_done(r, it, page + 1);
    }
}

static void chunk(const struct run *r, const struct item *it, struct nt_attn_bwd_rows *rows, void *scratch) {
    if (it->tok0 % NT_KV_PAGE == 0) keys_zero(r, it, it->tok0 / NT_KV_PAGE);
    if (rows->n > 0) {
        rows_begin(r, it, rows, scratch);
        chunk_pages(r, it, rows, scratch);
        r->body->end(r->args, rows, scratch);
    }
    page_done(r, it, INT_MAX);
}

/* Where a thread is in the strand it has drawn. */
struct strand {
    struct item next;
    int32_t left; /* chunks */
};

/* The thread's next chunk; false: there is none. */
static bool strand_next(const struct run *r, struct strand *at, struct item *it) {
    const int32_t n_kv = r->args->kv->n_kv;
    while (at->left == 0) {
        const int64_t s = nt_pool_next(r->be->pool, r->n_strand);
        if (s < 0) return false;
        const struct nt_attn_seq *seq = &r->args->seqs[s / n_kv];
        at->left = chunk_count(r, seq);
        at->next = item_of(r, seq, 0, (int32_t)(s % n_kv));
    }
    *it = at->next;
    at->next.tok0 += r->n_tok;
    at->left--;
    return true;
}

static void strands_thread(void *arg, int thread, int n_threads) {
    const struct run *r = arg;
    struct nt_attn_bwd_rows pair[2];
    struct strand at = {.left = 0};
    struct item it, next;
    (void)n_threads;
    bool more = strand_next(r, &at, &it);
    if (more) rows_init(r, &it, &pair[0]);
    for (int now = 0; more; now = !now, it = next) {
        more = strand_next(r, &at, &next);
        if (more) rows_init(r, &next, &pair[!now]);
        pair[now].ahead = more ? &pair[!now] : NULL;
        chunk(r, &it, &pair[now], nt_cpu_scratch(r->be, thread));
    }
}

static void wave_thread(void *arg, int thread, int n_threads) {
    const struct run *r = arg;
    struct nt_attn_bwd_rows rows;
    rows.ahead = NULL; /* a ticket drawn early would be waited for */
    (void)n_threads;
    for (int64_t i; (i = nt_pool_next(r->be->pool, r->n_chunk)) >= 0;) {
        const struct item it = item_at(r, i);
        rows_init(r, &it, &rows);
        chunk(r, &it, &rows, nt_cpu_scratch(r->be, thread));
    }
}

bool nt_attn_bwd_run(struct nt_backend *be, const struct nt_attention_bwd_args *args,
                     const struct nt_attn_bwd_body *body) {
    const int32_t n_kv = args->kv->n_kv, d = args->kv->d_head,
                  group = nt_attn_largest_group(args->kv_of_head, args->n_head);
    const int32_t most = nt_attn_bwd_most_rows(body, nt_d_pad(d));
    NT_CHECK(d % 2 == 0 && d <= NT_ATTN_MAX_D && args->scale > 0);
    for (int32_t s = 0; s < args->n_seq; s++) NT_CHECK(args->seqs[s].pos0 == 0);
    if (args->kv->format != NT_KV_PAIRED || group > most) return false;
    struct run r = {.be = be, .args = args, .body = body, .width = (args->n_head + 2 * n_kv) * d, .n_tok = NT_KV_PAGE};
    while (r.n_tok * group > most) r.n_tok /= 2;
    r.n_strand = (int64_t)args->n_seq * n_kv;
    for (int32_t s = 0; s < args->n_seq; s++) r.n_chunk += (int64_t)chunk_count(&r, &args->seqs[s]) * n_kv;
    if (r.n_strand >= STRANDS_PER_THREAD * nt_pool_size(be->pool) || r.n_chunk > COUNTERS) {
        nt_pool_run(be->pool, strands_thread, &r);
        return true;
    }
    r.done = (atomic_int *)(void *)((char *)nt_cpu_scratch(be, 0) + NT_CPU_SCRATCH_BYTES - NT_ATTN_BWD_COUNTERS);
    for (int64_t i = 0; i < r.n_chunk; i++) atomic_init(&r.done[i], 0);
    nt_pool_run(be->pool, wave_thread, &r);
    return true;
}
