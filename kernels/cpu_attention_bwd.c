#include "cpu_attention_bwd.h"
#include <limits.h>
#include <sched.h>
#include <stdatomic.h>

enum { COUNTERS = NT_ATTN_BWD_COUNTERS / (int)sizeof(atomic_int), SPINS = 2000 };

struct run {
    struct nt_backend *be;
    const struct nt_attention_bwd_args *args;
    const struct nt_attn_bwd_body *body;
    atomic_int *done; // [n_item] query blocks before this one are through with the item
    int64_t n_item;
    int32_t width; /* of a row of dqkv */
};

/* A page (or query block) of a sequence and a KV head. */
struct item {
    const struct nt_attn_seq *seq;
    int32_t page, kv_head, head0, n_group;
    int64_t index;
};

static int32_t page_count(const struct nt_attn_seq *seq) {
    return (seq->n_q + NT_KV_PAGE - 1) / NT_KV_PAGE;
}

/* Items are numbered by sequence, page, KV head. */
static struct item item_at(const struct run *r, int64_t index) {
    const struct nt_attention_bwd_args *a = r->args;
    const int32_t n_kv = a->kv->n_kv;
    struct item it = {.seq = a->seqs, .index = index};
    while (index >= (int64_t)page_count(it.seq) * n_kv) index -= (int64_t)page_count(it.seq++) * n_kv;
    it.page = (int32_t)(index / n_kv);
    it.kv_head = (int32_t)(index % n_kv);
    while (it.head0 < a->n_head && a->kv_of_head[it.head0] < it.kv_head) it.head0++;
    while (it.head0 + it.n_group < a->n_head && a->kv_of_head[it.head0 + it.n_group] == it.kv_head) it.n_group++;
    return it;
}

static const nt_bf16 *page_of(const struct run *r, const struct item *it, int32_t page) {
    const struct nt_kv_layer *kv = r->args->kv;
    return kv->base + it->seq->pages[page] * kv->page_stride + it->kv_head * nt_kv_head_elems(NT_KV_PAIRED, kv->d_head);
}

/* The place of a token's dk; that of dv is n_kv heads further. */
static float *dk_of(const struct run *r, const struct item *it, int32_t tok) {
    const struct nt_attention_bwd_args *a = r->args;
    return a->dqkv + (int64_t)(it->seq->q_row + tok) * r->width + (int64_t)(a->n_head + it->kv_head) * a->kv->d_head;
}

static int32_t first_visible(const struct nt_attention_bwd_args *a, int32_t pos) {
    return a->window > 0 && pos >= a->window ? pos - a->window + 1 : 0;
}

static int32_t block_rows(const struct item *it, int32_t block) {
    const int32_t left = it->seq->n_q - block * NT_KV_PAGE;
    return (left < NT_KV_PAGE ? left : NT_KV_PAGE) * it->n_group;
}

/* Rows of a query block from r0 on, as many as the body takes: where their operands are. */
static void rows_init(const struct run *r, const struct item *it, int32_t block, int32_t r0,
                      struct nt_attn_bwd_rows *rows) {
    const struct nt_attention_bwd_args *a = r->args;
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d), left = block_rows(it, block) - r0;
    rows->n = left < r->body->max_rows ? left : r->body->max_rows;
    for (int32_t i = 0; i < rows->n; i++) {
        const int32_t head = it->head0 + (r0 + i) % it->n_group;
        const int64_t t = it->seq->q_row + block * NT_KV_PAGE + (r0 + i) / it->n_group;
        rows->q[i] = a->q + (t * a->n_head + head) * d_pad;
        rows->dout[i] = a->dout + t * a->lddo + (int64_t)head * d;
        rows->dq[i] = a->dqkv + t * r->width + (int64_t)head * d;
    }
}

/* What they see of a page; false: nothing. */
static bool rows_see(const struct run *r, const struct item *it, int32_t block, int32_t r0, int32_t page,
                     struct nt_attn_bwd_rows *rows) {
    bool any = false;
    for (int32_t i = 0; i < rows->n; i++) {
        const int32_t pos = block * NT_KV_PAGE + (r0 + i) / it->n_group;
        const int32_t lo = first_visible(r->args, pos) - page * NT_KV_PAGE, hi = pos + 1 - page * NT_KV_PAGE;
        rows->lo[i] = lo < 0 ? 0 : lo > NT_KV_PAGE ? NT_KV_PAGE : lo;
        rows->hi[i] = hi > NT_KV_PAGE ? NT_KV_PAGE : hi;
        any |= rows->lo[i] < rows->hi[i];
    }
    return any;
}

/* ---- delta ------------------------------------------------------------------------------------------------------ */

/* Of all heads of a token, as they lie in memory. */
static void delta_token(const struct run *r, int64_t t) {
    const struct nt_attention_bwd_args *a = r->args;
    const int32_t d = a->kv->d_head;
    float *dk = a->dqkv + t * r->width + a->n_head * d;
    for (int32_t h = 0, g = 0; h < a->n_head; h++) {
        const int32_t kv_head = a->kv_of_head[h];
        g = h > 0 && a->kv_of_head[h - 1] == kv_head ? g + 1 : 0;
        dk[kv_head * d + g] = r->body->delta(a->out + t * a->ldo + h * d, a->dout + t * a->lddo + h * d, d);
    }
}

static void delta_thread(void *arg, int thread, int n_threads) {
    const struct run *r = arg;
    const int32_t n_kv = r->args->kv->n_kv;
    (void)thread;
    (void)n_threads;
    for (int64_t i; (i = nt_pool_next(r->be->pool, r->n_item / n_kv)) >= 0;) {
        const struct item page = item_at(r, i * n_kv);
        const int32_t tok0 = page.page * NT_KV_PAGE, left = page.seq->n_q - tok0;
        for (int32_t tok = 0; tok < NT_KV_PAGE && tok < left; tok++)
            delta_token(r, (int64_t)page.seq->q_row + tok0 + tok);
    }
}

/* ---- gradients -------------------------------------------------------------------------------------------------- */

/* Until the item of the page before has done this block. Its thread is running: tickets rise. */
static void wait_for(const struct run *r, const struct item *it, int32_t block) {
    if (it->page == 0) return;
    atomic_int *before = &r->done[it->index - r->args->kv->n_kv];
    for (int i = 0; atomic_load_explicit(before, memory_order_acquire) <= block; i++) {
        if (i < SPINS)
            __asm__ volatile("" ::: "memory");
        else
            (void)sched_yield();
    }
}

/* A block's rows from r0 on against the page. */
static void rows_page(const struct run *r, const struct item *it, int32_t block, int32_t r0, const nt_bf16 *k,
                      struct nt_attn_bwd_rows *rows, void *scratch) {
    rows->first = first_visible(r->args, block * NT_KV_PAGE) / NT_KV_PAGE == it->page;
    if (!rows_see(r, it, block, r0, it->page, rows) && !rows->first) return;
    for (int32_t i = 0; i < rows->n; i++) {
        const int32_t tok = block * NT_KV_PAGE + (r0 + i) / it->n_group, g = (r0 + i) % it->n_group;
        rows->lse[i] = r->args->lse[(int64_t)(it->seq->q_row + tok) * r->args->n_head + it->head0 + g];
        rows->delta[i] = dk_of(r, it, tok)[g];
    }
    r->body->rows(r->args, rows, k, scratch);
}

/* The blocks from the page's own to `last`, the rows of the next call known one call early. */
static void page_blocks(const struct run *r, const struct item *it, int32_t last, const nt_bf16 *k, void *scratch) {
    struct nt_attn_bwd_rows pair[2], *rows = &pair[0], *next = &pair[1];
    rows_init(r, it, it->page, 0, rows);
    for (int32_t block = it->page; block <= last; block++) {
        const int32_t n_rows = block_rows(it, block);
        wait_for(r, it, block);
        for (int32_t r0 = 0; r0 < n_rows; r0 += r->body->max_rows) {
            const bool within = r0 + r->body->max_rows < n_rows, more = within || block < last;
            if (within) rows_init(r, it, block, r0 + r->body->max_rows, next);
            if (more && !within) rows_init(r, it, block + 1, 0, next);
            rows->ahead = more ? next : NULL;
            rows_page(r, it, block, r0, k, rows, scratch);
            struct nt_attn_bwd_rows *done = rows;
            rows = next;
            next = done;
        }
        atomic_store_explicit(&r->done[it->index], block + 1, memory_order_release);
    }
    atomic_store_explicit(&r->done[it->index], INT_MAX, memory_order_release);
}

static void page_item(const struct run *r, const struct item *it, void *scratch) {
    const struct nt_attention_bwd_args *a = r->args;
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d), base = it->page * NT_KV_PAGE;
    const nt_bf16 *k = page_of(r, it, it->page);
    int32_t last = page_count(it->seq) - 1; /* block that sees the page */
    if (a->window > 0 && (base + NT_KV_PAGE - 1 + (int64_t)a->window - 1) / NT_KV_PAGE < last)
        last = (base + NT_KV_PAGE - 1 + a->window - 1) / NT_KV_PAGE;
    r->body->begin(a, k, k + (int64_t)NT_KV_PAGE * d_pad, it->seq->n_q - base, scratch);
    page_blocks(r, it, last, k, scratch);
    const float *sums = r->body->sums(scratch);
    for (int32_t i = 0; i < NT_KV_PAGE && base + i < it->seq->n_q; i++) {
        float *dk = dk_of(r, it, base + i);
        memcpy(dk, sums + i * d_pad, (size_t)d * sizeof *dk);
        memcpy(dk + a->kv->n_kv * d, sums + (NT_KV_PAGE + i) * d_pad, (size_t)d * sizeof *dk);
    }
}

static void pages_thread(void *arg, int thread, int n_threads) {
    const struct run *r = arg;
    (void)n_threads;
    for (int64_t i; (i = nt_pool_next(r->be->pool, r->n_item)) >= 0;) {
        const struct item it = item_at(r, i);
        page_item(r, &it, nt_cpu_scratch(r->be, thread));
    }
}

bool nt_attn_bwd_run(struct nt_backend *be, const struct nt_attention_bwd_args *args,
                     const struct nt_attn_bwd_body *body) {
    const int32_t n_kv = args->kv->n_kv, d = args->kv->d_head;
    NT_CHECK(d % 2 == 0 && d <= NT_ATTN_MAX_D && args->scale > 0);
    struct run r = {.be = be, .args = args, .body = body, .width = (args->n_head + 2 * n_kv) * d};
    int32_t group = 0;
    for (int32_t h = 0; h < args->n_head; h++) {
        group = h > 0 && args->kv_of_head[h] == args->kv_of_head[h - 1] ? group + 1 : 1;
        if (group > d) return false;
    }
    for (int32_t s = 0; s < args->n_seq; s++) NT_CHECK(args->seqs[s].pos0 == 0);
    for (int32_t s = 0; s < args->n_seq; s++) r.n_item += (int64_t)page_count(&args->seqs[s]) * n_kv;
    if (args->kv->format != NT_KV_PAIRED || r.n_item > COUNTERS) return false;
    r.done = (atomic_int *)(void *)((char *)nt_cpu_scratch(be, 0) + NT_CPU_SCRATCH_BYTES - NT_ATTN_BWD_COUNTERS);
    for (int64_t i = 0; i < r.n_item; i++) atomic_init(&r.done[i], 0);
    nt_pool_run(be->pool, delta_thread, &r);
    nt_pool_run(be->pool, pages_thread, &r);
    return true;
}
