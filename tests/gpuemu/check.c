/* Shared-memory checker: races and reads of uninitialised bytes, by vector clocks, which order accesses of a block to
 * global memory too (gcheck.c).
 *
 * Agents are the 32 warps of a block and, as number 32, the async proxy (TMA). clk[a] is agent a's clock, vc[a][b] how
 * much of b's past a has seen. Every word has a cell, or, once parts of it were touched, each of its bytes: who wrote
 * last and when, who has read since then and when. A barrier joins the pasts of its warps and ticks their clocks; an
 * mbarrier carries the past of who arrives to who waits. Shuffles order nothing. An access races with an earlier one
 * whose clock value the accessing agent has not seen. Within a warp, lanes[a] is the value below which all lanes have
 * seen each other, as a barrier, an mbarrier that was waited for and __syncwarp of all lanes make them; from there on
 * each lane has seen what __syncwarp of some lanes showed it: pairs, made at the first of these.
 * The clocks of a block start above all of the previous block, so cells and pairs are never cleared: clk < base means
 * untouched.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "emu.h"

enum { N_AGENT = 33, ASYNC = 32, NOBODY = 255, SEVERAL = 254, MAX_MBARRIER = 64 };

struct cell {
    uint32_t w_clk, r_clk;
    uint8_t w_agent, w_lane;
    uint8_t r_agent;                 // NOBODY: no read since the last write; SEVERAL: what follows is in struct readers
    uint8_t r_lane, r_last, r_lag;   // as in struct emu_stamp
    bool w_strong : 1, r_strong : 1; // r_strong: all reads since the last write
    bool split : 1;                  // of a word: its bytes have their own cells
};

struct readers { // of a cell that several agents have read
    uint64_t agents;
    struct emu_stamp by[N_AGENT];
};

struct mbarrier {
    uint32_t address;
    uint32_t past[N_AGENT];
};

struct race { // of one resident block; reused by later blocks
    uint32_t base, clk[N_AGENT], vc[N_AGENT][N_AGENT];
    uint32_t lanes[N_AGENT];
    uint32_t (*pairs)[32][32]; // [warp][lane][of which lane]; NULL: every __syncwarp was of all lanes so far
    bool proxy_ordered;        // the interpreter tells when async copies are issued
    int32_t n_mbarrier;
    struct mbarrier mbarrier[MAX_MBARRIER];
    uint32_t arrived[16][N_AGENT]; // at each barrier: the past of who came and did not wait
    size_t n_word;
    struct cell *cell;       // [n_word], then [4 * n_word] of the bytes
    struct readers *readers; // of each cell
    struct race *next;
};

static struct race *idle;

/* ---- one block's life ---- */

static struct race *get_race(size_t n_word) {
    struct race *r = idle;
    if (r != NULL) idle = r->next;
    if (r == NULL) r = calloc(1, sizeof *r);
    if (r == NULL || r->n_word >= n_word) return r;
    free(r->cell);
    free(r->readers);
    r->cell = calloc(5 * n_word, sizeof *r->cell);
    r->readers = calloc(5 * n_word, sizeof *r->readers); // touched only where several warps read
    r->n_word = r->cell == NULL || r->readers == NULL ? 0 : n_word;
    return r;
}

void emu_check_block_begin(struct emu_block *block) {
    if (block->shared_bytes > 0) memset(block->shared, 0xFF, block->shared_bytes);
    emu_order_block_begin(block);
    block->check = NULL;
    if (!emu_options()->check) return;
    struct race *r = get_race(block->shared_bytes / 4 + 1);
    if (r == NULL) return;
    uint32_t base = r->base;
    for (int i = 0; i < N_AGENT; i++)
        if (r->clk[i] >= base) base = r->clk[i] + 1;
    if (base > UINT32_MAX / 2) { // once in very many blocks
        memset(r->cell, 0, 5 * r->n_word * sizeof *r->cell);
        if (r->pairs != NULL) memset(r->pairs, 0, 32 * sizeof *r->pairs);
        base = 1;
    }
    r->base = base;
    for (int i = 0; i < N_AGENT; i++) r->clk[i] = r->lanes[i] = base;
    memset(r->vc, 0, sizeof r->vc);
    memset(r->arrived, 0, sizeof r->arrived);
    r->n_mbarrier = 0;
    r->proxy_ordered = false;
    block->check = r;
}

void emu_check_block_end(struct emu_block *block) {
    struct race *r = block->check;
    if (r == NULL) return;
    r->next = idle;
    idle = r;
    block->check = NULL;
}

/* ---- ordering ---- */

static void raise_to(uint32_t to[N_AGENT], const uint32_t from[N_AGENT]) {
    for (int i = 0; i < N_AGENT; i++)
        if (from[i] > to[i]) to[i] = from[i];
}

void emu_check_arrive(struct emu_block *block, int32_t id, int32_t warp) {
    struct race *r = block->check;
    if (r == NULL) return;
    r->vc[warp][warp] = r->clk[warp];
    raise_to(r->arrived[id], r->vc[warp]);
    r->clk[warp]++; // what it does from now on nobody has seen
}

void emu_check_barrier(struct emu_block *block, int32_t id, uint32_t warps) {
    struct race *r = block->check;
    uint32_t all[N_AGENT];
    if (r == NULL) return;
    memcpy(all, r->arrived[id], sizeof all);
    memset(r->arrived[id], 0, sizeof all);
    for (int w = 0; w < 32; w++)
        if (warps >> w & 1) {
            r->vc[w][w] = r->clk[w];
            raise_to(all, r->vc[w]);
        }
    for (int w = 0; w < 32; w++)
        if (warps >> w & 1) {
            memcpy(r->vc[w], all, sizeof all);
            r->lanes[w] = ++r->clk[w];
        }
}

/* Each of the lanes has seen from now on what any of them had, and all that they did. */
static void join_some(uint32_t pairs[32][32], uint32_t lanes, uint32_t clk) {
    uint32_t all[32] = {0};
    for (int i = 0; i < 32; i++)
        for (int j = 0; (lanes >> i & 1) != 0 && j < 32; j++)
            if (pairs[i][j] > all[j]) all[j] = pairs[i][j];
    for (int i = 0; i < 32; i++)
        if (lanes >> i & 1) all[i] = clk;
    for (int i = 0; i < 32; i++)
        if (lanes >> i & 1) memcpy(pairs[i], all, sizeof all);
}

void emu_check_syncwarp(const struct emu_thread *thread, uint32_t lanes, uint32_t live) {
    struct race *r = thread->block->check;
    const int w = thread->warp;
    if (r == NULL) return;
    const bool some = (live & ~lanes) != 0;
    if (some && r->pairs == NULL) r->pairs = calloc(32, sizeof *r->pairs);
    if (some && r->pairs != NULL) join_some(r->pairs[w], lanes, r->clk[w]);
    r->clk[w]++;
    if (!some || r->pairs == NULL) r->lanes[w] = r->clk[w];
}

static struct mbarrier *find_mbarrier(struct race *r, uint32_t address) {
    for (int32_t i = 0; i < r->n_mbarrier; i++)
        if (r->mbarrier[i].address == address) return &r->mbarrier[i];
    if (r->n_mbarrier == MAX_MBARRIER) return NULL;
    struct mbarrier *m = &r->mbarrier[r->n_mbarrier++];
    *m = (struct mbarrier){.address = address};
    return m;
}

static const struct emu_block *block_of(const struct emu_where *where) {
    return where->block != NULL ? where->block : where->thread->block;
}

/* Which agent acts on the memory of this block; accesses from other blocks of the cluster count as the proxy's. */
static int agent_of(const struct emu_where *where, const struct emu_block *block) {
    return where->thread != NULL && where->thread->block == block ? where->thread->warp : ASYNC;
}

void emu_check_release(const struct emu_where *where, uint32_t address) {
    const struct emu_block *block = block_of(where);
    struct race *r = block->check;
    struct mbarrier *m = r == NULL ? NULL : find_mbarrier(r, address);
    if (m == NULL) return;
    const int a = agent_of(where, block);
    r->vc[a][a] = r->clk[a];
    raise_to(m->past, r->vc[a]);
    r->clk[a]++;
}

void emu_check_acquire(const struct emu_where *where, uint32_t address) {
    const struct emu_block *block = block_of(where);
    struct race *r = block->check;
    struct mbarrier *m = r == NULL ? NULL : find_mbarrier(r, address);
    if (m == NULL) return;
    const int a = agent_of(where, block);
    raise_to(r->vc[a], m->past);
    if (m->past[a] >= r->lanes[a]) r->lanes[a] = m->past[a] + 1;
}

void emu_check_async_issue(const struct emu_where *where) {
    const struct emu_block *block = block_of(where);
    struct race *r = block->check;
    if (r == NULL) return;
    const int a = agent_of(where, block);
    r->vc[a][a] = r->clk[a];
    raise_to(r->vc[ASYNC], r->vc[a]);
    r->clk[a]++; // what the warp does from now on the copy has not seen
    r->proxy_ordered = true;
}

/* ---- accesses ---- */

bool emu_reads(int access) {
    return access == EMU_READ || access == EMU_ASYNC_READ || access == EMU_STRONG_READ || access == EMU_ATOMIC;
}

bool emu_writes(int access) {
    return access == EMU_WRITE || access == EMU_ASYNC_WRITE || access == EMU_STRONG_WRITE || access == EMU_ATOMIC;
}

bool emu_is_strong(int access) {
    return access == EMU_ATOMIC || access == EMU_STRONG_READ || access == EMU_STRONG_WRITE;
}

/* Whether agent a, lane, has not seen what agent b, its lane, did at clock `then`. */
static bool unseen(const struct race *r, int a, int lane, int b, int b_lane, uint32_t then) {
    if (a != b) return r->vc[a][b] < then;
    if (a == ASYNC || b_lane == lane || then < r->lanes[a]) return false;
    return r->pairs == NULL || r->pairs[a][lane][b_lane] < then;
}

/* The same of several lanes: those between the lowest and the highest pass, as does what they did after the first. */
static bool any_unseen(const struct race *r, int a, int lane, struct emu_stamp by) {
    if (a != by.agent) return r->vc[a][by.agent] < by.clk;
    return unseen(r, a, lane, a, by.lane, by.clk - by.lag) ||
           (by.last != by.lane && unseen(r, a, lane, a, by.last, by.clk - by.lag));
}

/* A read by a lane after others of its warp: those that it has seen are forgotten, of the others it becomes one. */
static bool join_readers(const struct race *r, int a, int lane, struct emu_stamp *by) {
    const uint32_t lag = r->clk[a] - by->clk + by->lag;
    const bool joins = by->agent == a && by->clk >= r->lanes[a] && lag <= UINT8_MAX && any_unseen(r, a, lane, *by);
    const struct emu_stamp before = *by;
    *by = (struct emu_stamp){.clk = r->clk[a], .agent = (uint8_t)a, .lane = (uint8_t)lane, .last = (uint8_t)lane};
    if (!joins) return false;
    by->lag = (uint8_t)lag;
    if (before.lane < lane) by->lane = before.lane;
    if (before.last > lane) by->last = before.last;
    return true;
}

static const struct race *race_of(const struct emu_where *where) {
    return where->thread == NULL ? NULL : where->thread->block->check;
}

struct emu_stamp emu_check_stamp(const struct emu_where *where) {
    const struct race *r = race_of(where);
    if (r == NULL) return EMU_NO_STAMP;
    const int a = where->thread->warp;
    const uint8_t lane = (uint8_t)where->thread->lane;
    return (struct emu_stamp){.clk = r->clk[a], .agent = (uint8_t)a, .lane = lane, .last = lane};
}

void emu_check_past(const struct emu_thread *thread, uint32_t lanes, struct emu_past *past) {
    struct race *r = thread->block->check;
    const int a = thread->warp;
    if (r == NULL) return;
    for (int b = 0; b < 32; b++)
        if (past->all[b] < r->vc[a][b]) past->all[b] = r->vc[a][b];
    const uint32_t own = r->pairs != NULL ? r->clk[a] : r->lanes[a] - 1;
    if (past->all[a] < own) past->all[a] = own;
    past->some[a] = r->clk[a]++; // what comes after is no longer part of it
    past->lanes[a] |= lanes;
}

bool emu_past_covers(const struct emu_past *past, struct emu_stamp by) {
    if (by.agent == NOBODY) return true;
    const uint32_t clk = by.clk - by.lag;
    return clk <= past->all[by.agent] || ((past->lanes[by.agent] >> by.lane & 1) != 0 && clk <= past->some[by.agent]);
}

bool emu_check_join(const struct emu_where *where, struct emu_stamp *by) {
    const struct race *r = race_of(where);
    if (r != NULL && by->agent != NOBODY && by->clk >= r->base)
        return join_readers(r, where->thread->warp, where->thread->lane, by);
    *by = emu_check_stamp(where);
    return false;
}

bool emu_check_unseen(const struct emu_where *where, struct emu_stamp then) {
    const struct race *r = race_of(where);
    return r != NULL && then.agent != NOBODY && then.clk >= r->base &&
           any_unseen(r, where->thread->warp, where->thread->lane, then);
}

void emu_check_name(struct emu_stamp who, char *text, size_t n_text) {
    if (who.lane != who.last)
        snprintf(text, n_text, "several lanes of warp %d", who.agent);
    else
        snprintf(text, n_text, "thread %d (warp %d lane %d)", who.agent * 32 + who.lane, who.agent, who.lane);
}

struct trouble {
    const char *what; // NULL: none
    struct emu_stamp by;
};

static struct emu_stamp writer(const struct cell *c) {
    return (struct emu_stamp){.clk = c->w_clk, .agent = c->w_agent, .lane = c->w_lane, .last = c->w_lane};
}

static struct trouble check_read(const struct race *r, const struct cell *c, int a, int lane, bool strong) {
    if (c->w_clk < r->base) return (struct trouble){.what = "reads uninitialised"};
    if (!(strong && c->w_strong) && unseen(r, a, lane, c->w_agent, c->w_lane, c->w_clk))
        return (struct trouble){"RACE: reads what may not have been written yet in", writer(c)};
    return (struct trouble){0};
}

static struct emu_stamp reader(const struct cell *c) {
    return (struct emu_stamp){
        .clk = c->r_clk, .agent = c->r_agent, .lane = c->r_lane, .last = c->r_last, .lag = c->r_lag};
}

static struct trouble check_reader(const struct race *r, int a, int lane, struct emu_stamp by) {
    if (!any_unseen(r, a, lane, by)) return (struct trouble){0};
    return (struct trouble){"RACE: overwrites what may still be read in", by};
}

static struct trouble check_write(const struct race *r, const struct cell *c, int a, int lane, bool strong) {
    if (a == ASYNC && !r->proxy_ordered) return (struct trouble){0};
    if (c->w_clk >= r->base && !(strong && c->w_strong) && unseen(r, a, lane, c->w_agent, c->w_lane, c->w_clk))
        return (struct trouble){"RACE: overwrites what another thread may still be writing in", writer(c)};
    if (c->r_agent == NOBODY || c->w_clk < r->base || (strong && c->r_strong)) return (struct trouble){0};
    if (c->r_agent != SEVERAL) return check_reader(r, a, lane, reader(c));
    const struct readers *all = &r->readers[c - r->cell];
    struct trouble t = {0};
    for (uint64_t left = all->agents; left != 0 && t.what == NULL; left &= left - 1)
        t = check_reader(r, a, lane, all->by[__builtin_ctzll(left)]);
    return t;
}

static void note_several(const struct race *r, struct cell *c, int a, int lane) {
    struct readers *all = &r->readers[c - r->cell];
    if (c->r_agent != SEVERAL) {
        all->agents = (uint64_t)1 << c->r_agent;
        all->by[c->r_agent] = reader(c);
        c->r_agent = SEVERAL;
    }
    struct emu_stamp *by = &all->by[a];
    if ((all->agents >> a & 1) == 0) *by = EMU_NO_STAMP;
    all->agents |= (uint64_t)1 << a;
    if (by->agent != a || by->clk != r->clk[a]) {
        (void)join_readers(r, a, lane, by);
        return;
    }
    if (lane < by->lane) by->lane = (uint8_t)lane;
    if (lane > by->last) by->last = (uint8_t)lane;
}

/* A lane after others of its warp, when the clock went on between them but not for all lanes. */
static void note_new_reader(const struct race *r, struct cell *c, int a, int lane) {
    struct emu_stamp by = reader(c);
    (void)join_readers(r, a, lane, &by);
    c->r_agent = by.agent;
    c->r_lane = by.lane;
    c->r_last = by.last;
    c->r_lag = by.lag;
    c->r_clk = by.clk;
}

static void note_read(const struct race *r, struct cell *c, int a, int lane, bool strong) {
    if (c->w_clk < r->base) return; // it was reported, and who reads what nobody wrote is of no interest to a writer
    c->r_strong = strong && (c->r_agent == NOBODY || c->r_strong);
    if (c->r_agent != a && c->r_agent != NOBODY) {
        note_several(r, c, a, lane);
    } else if (c->r_agent == NOBODY || c->r_clk < r->lanes[a]) {
        c->r_clk = r->clk[a];
        c->r_agent = (uint8_t)a;
        c->r_lane = c->r_last = (uint8_t)lane;
        c->r_lag = 0;
    } else if (c->r_clk == r->clk[a]) { // nobody can have seen the others' reads since
        if (lane < c->r_lane) c->r_lane = (uint8_t)lane;
        if (lane > c->r_last) c->r_last = (uint8_t)lane;
    } else {
        note_new_reader(r, c, a, lane);
    }
}

/* Whoever is ordered behind this write is ordered behind the reads that it was checked against: they are forgotten. An
 * atomic of who wrote plainly just before is no better than that write. */
static void note_write(const struct race *r, struct cell *c, int a, int lane, bool strong) {
    const bool own_plain = c->w_clk == r->clk[a] && c->w_agent == a && c->w_lane == lane && !c->w_strong;
    c->w_clk = r->clk[a];
    c->w_agent = (uint8_t)a;
    c->w_lane = (uint8_t)lane;
    c->w_strong = strong && !own_plain;
    c->r_agent = NOBODY;
}

struct visit { // one access, as the cells see it
    struct race *race;
    int agent, lane;
    bool reads, writes, strong;
};

static struct trouble visit_cell(const struct visit *v, struct cell *c) {
    struct trouble t = {0};
    if (v->reads) t = check_read(v->race, c, v->agent, v->lane, v->strong);
    if (!v->writes) {
        note_read(v->race, c, v->agent, v->lane, v->strong);
        return t;
    }
    if (t.what == NULL) t = check_write(v->race, c, v->agent, v->lane, v->strong);
    note_write(v->race, c, v->agent, v->lane, v->strong);
    return t;
}

static void split_word(const struct race *r, size_t word) {
    struct cell *c = &r->cell[word], *byte = &r->cell[r->n_word + 4 * word];
    for (int i = 0; i < 4; i++) {
        byte[i] = *c;
        if (c->r_agent == SEVERAL) r->readers[&byte[i] - r->cell] = r->readers[word];
    }
    c->split = 1;
}

/* Bytes low..high-1 of a word. */
static struct trouble visit_word(const struct visit *v, size_t word, int low, int high) {
    struct cell *c = &v->race->cell[word], *byte = &v->race->cell[v->race->n_word + 4 * word];
    if (!c->split && low == 0 && high == 4) return visit_cell(v, c);
    struct trouble all = {0};
    if (!c->split) split_word(v->race, word);
    for (int i = low; i < high; i++) {
        const struct trouble t = visit_cell(v, &byte[i]);
        if (all.what == NULL) all = t;
    }
    if (v->writes && low == 0 && high == 4) *c = byte[0]; // whole again
    return all;
}

static void tell(const struct emu_where *where, struct trouble t, uint32_t address, size_t size) {
    char who[64] = "an async copy";
    if (t.what[0] != 'R') {
        emu_report(where, "%s shared memory at byte %u (%zu bytes)", t.what, address, size);
        return;
    }
    if (t.by.agent != ASYNC) emu_check_name(t.by, who, sizeof who);
    emu_report(where, "%s shared memory at byte %u (%zu bytes): other party: %s", t.what, address, size, who);
}

static bool in_bounds(const struct emu_where *where, const struct emu_block *block, uint32_t address, size_t size) {
    if (address <= block->shared_bytes && size <= block->shared_bytes - address) {
        const size_t power = size & -size, unit = power > 16 ? 16 : power;
        if (size == 0 || (address & (unit - 1)) == 0) return true;
        emu_report(where, "misaligned access of %zu bytes at shared byte %u", size, address);
        return false;
    }
    emu_report(where, "access of %zu bytes at shared byte %u: the block has %zu bytes of shared memory", size, address,
               block->shared_bytes);
    return false;
}

bool emu_check_shared(const struct emu_where *where, enum emu_access access, uint32_t address, size_t size) {
    const struct emu_block *block = block_of(where);
    if (!in_bounds(where, block, address, size)) return false;
    struct race *r = block->check;
    if (r == NULL || r->cell == NULL) return true;
    const struct visit v = {.race = r,
                            .agent = agent_of(where, block),
                            .lane = where->thread != NULL ? where->thread->lane : 0,
                            .reads = emu_reads(access),
                            .writes = emu_writes(access),
                            .strong = emu_is_strong(access)};
    const uint64_t end = (uint64_t)address + size;
    bool told = false;
    for (size_t word = address / 4; word * 4 < end; word++) {
        const int low = word * 4 < address ? (int)(address % 4) : 0, high = word * 4 + 4 > end ? (int)(end % 4) : 4;
        const struct trouble t = visit_word(&v, word, low, high);
        if (t.what != NULL && !told) tell(where, t, address, size); // one report per access is enough
        told = told || t.what != NULL;
    }
    return true;
}
