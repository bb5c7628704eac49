/* Grids, blocks, warps and the parts of a warp: who runs next, who waits, and when nobody can. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hopper.h"
#include "ptx_symbols.h"

enum { BUDGET_BITS = 33 }; /* operations of warps in one block: beyond, it runs without end */

uint64_t emu_random(uint64_t *state) { /* splitmix64 (Steele et al. 2014) */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* ---- parts ---- */

static void drop_part(struct warp *w, int32_t i) {
    w->part[i] = w->part[--w->n_part];
}

/* Parts that stand at one operation become one; empty ones go. */
static void tidy(struct warp *w) {
    for (int32_t i = w->n_part - 1; i >= 0; i--)
        if (w->part[i].mask == 0) drop_part(w, i);
    for (int32_t i = 0; i < w->n_part; i++)
        for (int32_t j = w->n_part - 1; j > i; j--) {
            struct part *a = &w->part[i], *b = &w->part[j];
            const bool barrier = a->state == PART_AT_BARRIER || b->state == PART_AT_BARRIER;
            if (a->pc != b->pc || barrier) continue;
            a->mask |= b->mask;
            a->state = PART_READY; /* it looks again, with more lanes */
            drop_part(w, j);
        }
}

/* The ready part that is furthest behind, so that parts meet again; now and then another in random order. */
static int32_t pick_part(struct warp *w) {
    int32_t best = -1, n = 0;
    if (w->n_part > 1) tidy(w);
    const bool any = emu_options()->order == EMU_SHUFFLED && w->n_part > 1 && emu_random(&w->run->random) % 8 == 0;
    for (int32_t i = 0; i < w->n_part; i++) {
        if (w->part[i].state != PART_READY || w->part[i].mask == 0) continue;
        n++;
        const bool take =
            any ? emu_random(&w->run->random) % (uint64_t)n == 0 : best < 0 || w->part[i].pc < w->part[best].pc;
        if (take) best = i;
    }
    return best;
}

enum flow want_lanes(struct warp *w, const struct ptx_op *o, uint32_t mask, uint32_t wanted) {
    wanted &= w->live;
    if ((mask & wanted) == wanted) return FLOW_NEXT;
    struct part *p = &w->part[w->current];
    p->state = PART_WANTS_LANES;
    p->waiting = o;
    return FLOW_WAIT;
}

enum flow want_warp(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const enum flow ready = want_lanes(w, o, mask, UINT32_MAX);
    if (ready != FLOW_NEXT || mask == UINT32_MAX) return ready;
    return FATAL(w, o, (uint32_t)__builtin_ctz(mask), "all lanes of the warp must take part: only %08x are here", mask);
}

void part_leaves(struct warp *w, uint32_t lanes) {
    struct part *p = &w->part[w->current];
    if (lanes == 0) return;
    w->part[w->n_part++] = (struct part){.mask = lanes, .pc = p->pc};
    p->mask &= ~lanes;
    w->left = lanes;
}

void part_spins(struct warp *w, const struct ptx_op *o) {
    struct part *p = &w->part[w->current];
    p->state = PART_SPINS;
    p->waiting = o;
}

enum { MANY_POLLS = 256 };
void part_polls(struct warp *w, const struct ptx_op *o) {
    struct part *p = &w->part[w->current];
    p->polls = p->waiting == o ? p->polls + 1 : 0;
    p->waiting = o;
    if (p->polls < MANY_POLLS) return;
    p->state = PART_SPINS;
    p->polls = 0;
    p->polls_memory = true;
}

/* ---- barriers ---- */

static int32_t live_threads(const struct run *r) {
    int32_t n = 0;
    for (int32_t i = 0; i < r->block.n_warp; i++) n += __builtin_popcount(r->warp[i].live);
    return n;
}

static void give_result(struct warp *w, const struct part *p, const struct barrier *bar) {
    const struct ptx_op *o = p->waiting;
    if (o->n_dst == 0) return;
    const uint32_t v = o->mode == 0 ? (uint32_t)bar->red_count : o->mode == 1 ? bar->red_and : bar->red_or;
    EACH_LANE(l, p->mask) set_lane(w, &o->dst[0], (int)l, v);
    if (w->written != NULL) registers_wrote(w, o, p->mask);
}

/* Lanes of a warp must come to an aligned barrier together: not some of them to another instruction that names it. */
static void check_together(struct run *r, int32_t id) {
    for (int32_t i = 0; i < r->block.n_warp; i++) {
        const struct part *first = NULL;
        for (int32_t j = 0; j < r->warp[i].n_part; j++) {
            const struct part *p = &r->warp[i].part[j];
            if (p->state != PART_AT_BARRIER || p->barrier != id) continue;
            if (first == NULL) first = p;
            if (p->pc == first->pc || !p->waiting->aligned || !first->waiting->aligned) continue;
            const struct emu_where where = where_lane(&r->warp[i], p->waiting, (uint32_t)__builtin_ctz(p->mask));
            emu_report(&where, "barrier divergence: other lanes of this warp wait for barrier %d at line %d of the PTX",
                       id, first->waiting->info.ptx_line);
            r->stop = true;
        }
    }
}

static bool try_open(struct run *r, int32_t id) {
    struct barrier *bar = &r->barrier[id];
    const int32_t expected = bar->expected > 0 ? bar->expected : live_threads(r);
    if (bar->arrived == 0 || bar->arrived < expected) return false;
    check_together(r, id);
    emu_check_barrier(&r->block, id, bar->waiting);
    for (int32_t i = 0; i < r->block.n_warp; i++)
        for (int32_t j = 0; j < r->warp[i].n_part; j++) {
            struct part *p = &r->warp[i].part[j];
            if (p->state != PART_AT_BARRIER || p->barrier != id) continue;
            give_result(&r->warp[i], p, bar);
            p->pc++;
            p->state = PART_READY;
        }
    *bar = (struct barrier){0};
    return true;
}

enum flow barrier_arrive(struct warp *w, const struct ptx_op *o, uint32_t mask, int32_t id, int32_t expected,
                         bool wait) {
    struct run *r = w->run;
    struct barrier *bar = &r->barrier[id];
    struct part *p = &w->part[w->current];
    if (bar->arrived > 0 && bar->expected != expected)
        return FATAL(w, o, (uint32_t)__builtin_ctz(mask), "barrier %d is awaited by %d and by %d threads at once", id,
                     bar->expected, expected);
    bar->expected = expected;
    bar->arrived += __builtin_popcount(mask);
    if (!wait) {
        emu_check_arrive(&r->block, id, w->index);
        (void)try_open(r, id);
        return FLOW_NEXT;
    }
    bar->waiting |= 1u << w->index;
    if (mask != p->mask) { /* lanes without the guard go on */
        w->part[w->n_part++] = (struct part){.mask = p->mask & ~mask, .pc = p->pc + 1};
        p->mask = mask;
    }
    p->state = PART_AT_BARRIER;
    p->barrier = id;
    p->waiting = o;
    return try_open(r, id) ? FLOW_JUMP : FLOW_WAIT;
}

void lanes_exit(struct warp *w, uint32_t mask) {
    w->live &= ~mask;
    for (int32_t i = 0; i < w->n_part; i++) /* who waited for these lanes looks again */
        if (w->part[i].state == PART_WANTS_LANES) w->part[i].state = PART_READY;
    for (int32_t id = 0; id < 16; id++)
        if (w->run->barrier[id].arrived > 0 && w->run->barrier[id].expected == 0) (void)try_open(w->run, id);
}

/* ---- warps ---- */

static uint32_t guarded(const struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pred = w->reg + o->pred * 32;
    uint32_t set = 0;
    for (uint32_t l = 0; l < 32; l++) set |= (uint32_t)(pred[l] != 0) << l;
    return mask & (o->pred_not ? ~set : set);
}

/* Whether another part should run first: it is behind, or stands where this one came to. */
static bool others_first(const struct warp *w) {
    const struct part *p = &w->part[w->current];
    for (int32_t i = 0; i < w->n_part; i++)
        if (i != w->current && w->part[i].state != PART_AT_BARRIER && w->part[i].pc <= p->pc) return true;
    return false;
}

static void run_part(struct warp *w, struct ptx_op *op) {
    struct run *r = w->run;
    while (!r->stop) {
        struct part *p = &w->part[w->current];
        struct ptx_op *o = &op[p->pc];
        const bool watched = w->written != NULL;
        if (watched && o->pred >= 0 && !registers_guard(w, o, p->mask)) return;
        const uint32_t mask = o->pred < 0 ? p->mask : guarded(w, o, p->mask);
        enum flow flow = FLOW_NEXT;
        r->executed++;
        if (mask != 0) {
            if (watched && !registers_read(w, o, mask)) return;
            w->left = 0;
            flow = o->run(w, o, mask);
            const uint32_t done = mask & ~w->left;
            if (watched && flow == FLOW_NEXT) registers_wrote(w, o, done);
            if (flow != FLOW_WAIT) o->executed += __builtin_popcount(done);
        }
        if (flow == FLOW_NEXT) w->part[w->current].pc++;
        if (flow > FLOW_NEXT || w->yields) return;
        if (w->n_part > 1 && others_first(w)) return;
    }
}

/* As far ahead as it can. True when it ran at all. */
static bool run_warp(struct warp *w) {
    struct run *r = w->run;
    bool ran = false;
    w->yields = false;
    for (int32_t i = pick_part(w); i >= 0 && !r->stop; i = pick_part(w)) {
        ran = true;
        w->current = i;
        run_part(w, r->code->op);
        if (r->executed > r->budget) {
            (void)FATAL(w, &r->code->op[w->part[0].pc], 0, "the block has run 2^%d operations: it does not end",
                        BUDGET_BITS);
            return true;
        }
        if (w->yields) break;
    }
    return ran;
}

/* ---- blocks ---- */

static void describe_part(const struct run *r, const struct warp *w, const struct part *p, char *text, size_t n) {
    const struct emu_instr *at = &r->code->op[p->pc].info;
    const size_t len = strlen(text);
    if (len + 80 > n) return;
    snprintf(text + len, n - len, "; warp %d lanes %08x %s at %s:%d (PTX line %d)", w->index, p->mask,
             p->state == PART_AT_BARRIER    ? "wait at a barrier"
             : p->state == PART_WANTS_LANES ? "wait for the other lanes"
                                            : "poll",
             at->file != NULL ? at->file : "?", at->line, at->ptx_line);
}

static void report_deadlock(struct run *r) {
    r->stop = true;
    if (emu_report_total() > r->reports) return; /* what was reported is the cause */
    char text[900] = "";
    const struct warp *first = NULL;
    const struct part *of = NULL;
    for (int32_t i = 0; i < r->block.n_warp; i++)
        for (int32_t j = 0; j < r->warp[i].n_part; j++) {
            if (r->warp[i].part[j].mask == 0) continue;
            describe_part(r, &r->warp[i], &r->warp[i].part[j], text, sizeof text);
            if (first == NULL) first = &r->warp[i], of = &first->part[j];
        }
    const struct emu_where where = where_lane(first, &r->code->op[of->pc], (uint32_t)__builtin_ctz(of->mask));
    char barriers[200] = "";
    for (int32_t id = 0; id < 16; id++)
        if (r->barrier[id].arrived > 0 && strlen(barriers) < 150)
            snprintf(barriers + strlen(barriers), 50, "; barrier %d has %d of %d threads", id, r->barrier[id].arrived,
                     r->barrier[id].expected > 0 ? r->barrier[id].expected : live_threads(r));
    emu_report(&where, "deadlock: no thread of the block can go on (barrier divergence?)%s%s", barriers, text);
}

/* Whether somebody polls memory: the host or another process may still write it, within ten minutes; then a little
 * time passes. */
static bool nap(struct run *r) {
    enum { MANY_NAPS = 600000 };
    bool any = false;
    for (int32_t i = 0; i < r->block.n_warp; i++)
        for (int32_t j = 0; j < r->warp[i].n_part; j++)
            any |= r->warp[i].part[j].state == PART_SPINS && r->warp[i].part[j].polls_memory;
    if (!any || r->naps++ >= MANY_NAPS) return false;
    const struct timespec t = {.tv_nsec = r->naps < 100 ? 20000 : 1000000};
    (void)nanosleep(&t, NULL);
    emu_pause_kernel();
    return true;
}

static bool wake_spinners(struct run *r) {
    bool any = false;
    for (int32_t i = 0; i < r->block.n_warp; i++)
        for (int32_t j = 0; j < r->warp[i].n_part; j++) {
            struct part *p = &r->warp[i].part[j];
            if (p->state != PART_SPINS) continue;
            p->state = PART_READY;
            p->polls_memory = false;
            any = true;
        }
    return any;
}

static int32_t nth_warp(struct run *r, int32_t i) {
    const int32_t order = emu_options()->order, n = r->block.n_warp;
    return order == EMU_FORWARD    ? i
           : order == EMU_BACKWARD ? n - 1 - i
                                   : (int32_t)(emu_random(&r->random) % (uint64_t)n);
}

/* One round over the warps. */
static bool round_of_warps(struct run *r) {
    bool ran = false;
    for (int32_t i = 0; i < r->block.n_warp && !r->stop; i++) ran |= run_warp(&r->warp[nth_warp(r, i)]);
    return ran;
}

static bool any_ready(const struct run *r) {
    for (int32_t i = 0; i < r->block.n_warp; i++)
        for (int32_t j = 0; j < r->warp[i].n_part; j++)
            if (r->warp[i].part[j].state == PART_READY && r->warp[i].part[j].mask != 0) return true;
    return false;
}

static void run_warps(struct run *r) {
    bool fruitless = false; /* the spinners looked, and nothing had changed */
    while (!r->stop && live_threads(r) > 0) {
        if (any_ready(r)) {
            (void)round_of_warps(r);
            continue;
        }
        const bool transfer = bulk_progress(r) || copies_progress(r);
        if (transfer || r->progress) r->naps = 0;
        if (!transfer && fruitless && !r->progress && !nap(r)) {
            report_deadlock(r);
            return;
        }
        fruitless = !transfer;
        r->progress = false;
        if (!wake_spinners(r)) {
            report_deadlock(r);
            return;
        }
    }
}

static void fill(struct warp *w, int32_t word, uint32_t v) {
    for (int l = 0; l < 32; l++) w->reg[word * 32 + l] = v;
}

static void fill_specials(struct warp *w) {
    const struct emu_launch *launch = w->run->launch;
    for (int32_t i = 0; i < 3; i++) {
        for (int l = 0; l < 32; l++) w->reg[(PTX_TID + i) * 32 + l] = w->thread[l].index[i];
        fill(w, PTX_NTID + i, launch->block[i]);
        fill(w, PTX_CTAID + i, w->block->index[i]);
        fill(w, PTX_NCTAID + i, launch->grid[i]);
    }
    fill(w, PTX_WARPID, (uint32_t)w->index);
    fill(w, PTX_NWARPID, (uint32_t)w->block->n_warp);
    fill(w, PTX_SMID, w->block->linear % 4);
    fill(w, PTX_NSMID, 4);
    fill(w, PTX_GRIDID, (uint32_t)launch->number);
    fill(w, PTX_CLOCK, 0);
    fill(w, PTX_GLOBALTIMER, 0); /* as the clock: no time passes, and no time-out of a kernel comes */
    fill(w, PTX_GLOBALTIMER + 1, 0);
    fill(w, PTX_CLUSTER_ZERO, 0);
    fill(w, PTX_CLUSTER_ONE, 1);
    fill(w, PTX_DYNAMIC_SMEM, launch->dynamic_shared);
    fill(w, PTX_TOTAL_SMEM, (uint32_t)w->block->shared_bytes);
    for (uint32_t l = 0; l < 32; l++) {
        w->reg[PTX_LANEID * 32 + l] = l;
        w->reg[PTX_LANEMASK_EQ * 32 + l] = 1u << l;
        w->reg[PTX_LANEMASK_LT * 32 + l] = (1u << l) - 1;
        w->reg[PTX_LANEMASK_LE * 32 + l] = (2u << l) - 1;
        w->reg[PTX_LANEMASK_GT * 32 + l] = ~((2u << l) - 1);
        w->reg[PTX_LANEMASK_GE * 32 + l] = ~((1u << l) - 1);
    }
}

static void begin_warp(struct run *r, int32_t i) {
    struct warp *w = &r->warp[i];
    const int32_t left = r->block.n_thread - 32 * i;
    w->live = left >= 32 ? UINT32_MAX : (1u << left) - 1;
    w->part[0] = (struct part){.mask = w->live};
    w->n_part = 1;
    w->current = 0;
    w->fenced = EMU_SCOPE_NONE;
    memset(w->local_set, 0, (size_t)r->code->kernel.local_bytes * 32);
    fill_specials(w);
    for (int32_t l = 0; l < 32; l++) w->thread[l].early = r->launch->early;
    if (w->written != NULL) registers_begin(w);
}

static void run_block(struct run *r, uint32_t linear) {
    const uint32_t *grid = r->launch->grid;
    r->block.linear = linear;
    r->block.index[0] = linear % grid[0];
    r->block.index[1] = linear / grid[0] % grid[1];
    r->block.index[2] = linear / grid[0] / grid[1];
    r->executed = 0;
    r->naps = 0;
    r->reports = emu_report_total();
    memset(r->barrier, 0, sizeof r->barrier);
    emu_check_block_begin(&r->block);
    for (int32_t i = 0; i < r->block.n_warp; i++) begin_warp(r, i);
    run_warps(r);
    for (int32_t i = 0; i < r->block.n_warp; i++) copies_release(&r->warp[i]);
    wgmma_block_end(r);
    bulk_block_end(r);
    emu_check_block_end(&r->block);
}

/* ---- grids ---- */

static void *zeroed(size_t n, size_t size) {
    void *p = calloc(n > 0 ? n : 1, size);
    if (p == NULL) abort();
    return p;
}

static void open_run(struct run *r, const struct emu_launch *launch) {
    const struct ptx_code *code = (const struct ptx_code *)launch->kernel;
    const uint32_t *block = launch->block;
    const int32_t n = (int32_t)(block[0] * block[1] * block[2]), n_warp = (n + 31) / 32;
    *r = (struct run){.launch = launch, .code = code, .random = emu_options()->seed ^ launch->number << 32};
    r->budget = (int64_t)1 << BUDGET_BITS;
    r->block = (struct emu_block){.launch = launch, .n_thread = n, .n_warp = n_warp};
    r->block.shared_bytes =
        (size_t)(code->dynamic_at >= 0 ? code->dynamic_at : code->kernel.shared_bytes) + launch->dynamic_shared;
    r->block.shared = aligned_alloc(1024, (r->block.shared_bytes + 2047) / 1024 * 1024);
    if (r->block.shared == NULL) abort();
    r->thread = zeroed((size_t)n_warp * 32, sizeof *r->thread);
    r->warp = zeroed((size_t)n_warp, sizeof *r->warp);
    for (int32_t t = 0; t < n_warp * 32; t++) {
        const uint32_t u = (uint32_t)t;
        r->thread[t] = (struct emu_thread){
            .block = &r->block,
            .index = {u % block[0], u / block[0] % block[1], u / block[0] / block[1]},
            .linear = t,
            .warp = t / 32,
            .lane = t % 32
        };
    }
    for (int32_t i = 0; i < n_warp; i++) {
        struct warp *w = &r->warp[i];
        *w = (struct warp){
            .run = r, .block = &r->block, .thread = r->thread + 32 * i, .index = i, .constant = code->constant};
        w->reg = zeroed((size_t)code->n_word * 32 + 64, sizeof *w->reg);
        if (emu_options()->registers) w->written = zeroed((size_t)code->n_word, sizeof *w->written);
        w->local = zeroed((size_t)code->kernel.local_bytes * 32, 1);
        memset(w->local, 0xFF, (size_t)code->kernel.local_bytes * 32);
        w->local_set = zeroed((size_t)code->kernel.local_bytes * 32, 1);
    }
}

static void close_run(struct run *r) {
    for (int32_t i = 0; i < r->block.n_warp; i++) {
        free(r->warp[i].reg);
        free(r->warp[i].written);
        free(r->warp[i].local);
        free(r->warp[i].local_set);
    }
    free(r->warp);
    free(r->thread);
    free(r->block.shared);
}

static void count_instructions(struct run *r) {
    for (int32_t i = 0; i < r->code->n_op; i++) {
        struct ptx_op *o = &r->code->op[i];
        const struct emu_where where = {.block = &r->block, .instr = &o->info};
        if (o->executed > 0) emu_count_instr(&where, o->executed);
        o->executed = 0;
    }
}

/* A stride without a common factor visits every block once, in an order that looks random. */
static uint64_t stride_for(uint64_t n, uint64_t *random) {
    for (;;) {
        const uint64_t stride = emu_random(random) % n + 1;
        uint64_t a = n, b = stride;
        while (b != 0) {
            const uint64_t c = a % b;
            a = b;
            b = c;
        }
        if (a == 1) return stride;
    }
}

bool emu_run(const struct emu_launch *launch) {
    struct run r;
    const int64_t before = emu_report_total();
    if (!ptx_complete((struct ptx_code *)launch->kernel)) return false;
    const uint64_t n = (uint64_t)launch->grid[0] * launch->grid[1] * launch->grid[2];
    const int32_t order = emu_options()->order;
    open_run(&r, launch);
    if (launch->cluster[0] * launch->cluster[1] * launch->cluster[2] > 1) {
        const struct emu_where where = {.block = &r.block};
        emu_report(&where, "clusters of more than one block are not emulated");
        r.stop = true;
    }
    const uint64_t start = order == EMU_SHUFFLED ? emu_random(&r.random) % n : 0;
    const uint64_t stride = order == EMU_SHUFFLED ? stride_for(n, &r.random) : 1;
    for (uint64_t i = 0; i < n && !r.stop; i++) {
        const uint64_t linear = order == EMU_BACKWARD ? n - 1 - i : (start + i * stride) % n;
        run_block(&r, (uint32_t)linear);
    }
    if (launch->early && !r.waited && !r.stop) {
        const struct emu_where where = {.block = &r.block};
        emu_report(&where,
                   "EARLY: no thread waits for the launch before (griddepcontrol.wait), which may outlive this");
    }
    count_instructions(&r);
    close_run(&r);
    return emu_report_total() == before;
}
