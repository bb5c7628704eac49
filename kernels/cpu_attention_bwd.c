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

/* Rows r0 .. r0 + n - 1 of a query block: where their operands are. */
static void rows_init(const struct run *r, const struct item *it, int32_t block, int32_t r0, int32_t n,
                      struct nt_attn_bwd_rows *rows) {
    const struct nt_attention_bwd_args *a = r->args;
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d);
    rows->n = n;
    for (int32_t i = 0; i < n; i++) {
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

static void delta_item(const struct run *r, const struct item *it) {
    const struct nt_attention_bwd_args *a = r->args;
    const int32_t d = a->kv->d_head, tok0 = it->page * NT_KV_PAGE;
    for (int32_t i = 0; i < block_rows(it, it->page); i++) {
        const int32_t tok = tok0 + i / it->n_group, g = i % it->n_group;
        const int64_t t = it->seq->q_row + tok, col = (int64_t)(it->head0 + g) * d;
        dk_of(r, it, tok)[g] = r->body->delta(a->out + t * a->ldo + col, a->dout + t * a->lddo + col, d);
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

static void block_page(const struct run *r, const struct item *it, int32_t block, const nt_bf16 *k, void *scratch) {
    const int32_t n_rows = block_rows(it, block);
    struct nt_attn_bwd_rows rows = {.first = first_visible(r->args, block * NT_KV_PAGE) / NT_KV_PAGE == it->page};
    for (int32_t r0 = 0; r0 < n_rows; r0 += r->body->max_rows) {
        rows_init(r, it, block, r0, n_rows - r0 < r->body->max_rows ? n_rows - r0 : r->body->max_rows, &rows);
        if (!rows_see(r, it, block, r0, it->page, &rows) && !rows.first) continue;
        for (int32_t i = 0; i < rows.n; i++) {
            const int32_t tok = block * NT_KV_PAGE + (r0 + i) / it->n_group, g = (r0 + i) % it->n_group;
            rows.lse[i] = r->args->lse[(int64_t)(it->seq->q_row + tok) * r->args->n_head + it->head0 + g];
            rows.delta[i] = dk_of(r, it, tok)[g];
        }
        r->body->rows(r->args, &rows, k, scratch);
    }
}

static void page_item(const struct run *r, const struct item *it, void *scratch) {
    const struct nt_attention_bwd_args *a = r->args;
    const int32_t d = a->kv->d_head, d_pad = nt_d_pad(d), base = it->page * NT_KV_PAGE;
    const nt_bf16 *k = page_of(r, it, it->page);
    int32_t last = page_count(it->seq) - 1; /* block that sees the page */
    if (a->window > 0 && (base + NT_KV_PAGE - 1 + (int64_t)a->window - 1) / NT_KV_PAGE < last)
        last = (base + NT_KV_PAGE - 1 + a->window - 1) / NT_KV_PAGE;
    r->body->begin(a, k, k + (int64_t)NT_KV_PAGE * d_pad, it->seq->n_q - base, scratch);
    for (int32_t block = it->page; block <= last; block++) {
        wait_for(r, it, block);
        block_page(r, it, block, k, scratch);
        atomic_store_explicit(&r->done[it->index], block + 1, memory_order_release);
    }
    atomic_store_explicit(&r->done[it->index], INT_MAX, memory_order_release);
    const float *sums = r->body->sums(scratch);
    for (int32_t i = 0; i < NT_KV_PAGE && base + i < it->seq->n_q; i++) {
        float *dk = dk_of(r, it, base + i);
        memcpy(dk, sums + i * d_pad, (size_t)d * sizeof *dk);
        memcpy(dk + a->kv->n_kv * d, sums + (NT_KV_PAGE + i) * d_pad, (size_t)d * sizeof *dk);
    }
}

static void delta_thread(void *arg, int thread, int n_threads) {
    const struct run *r = arg;
    (void)thread;
    (void)n_threads;
    for (int64_t i; (i = nt_pool_next(r->be->pool, r->n_item)) >= 0;) {
        const struct item it = item_at(r, i);
        delta_item(r, &it);
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
