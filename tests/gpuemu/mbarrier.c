/* mbarriers: 64 bits in shared memory, in an encoding of our own: expected arrivals (20 bits), pending arrivals (20),
 * pending bytes + 2^20 (21), phase (1), and 01 as a mark. A phase ends when no arrivals and no bytes are pending. */
#include <string.h>

#include "hopper.h"
#include "lanes.h"

enum { MAX_COUNT = (1 << 20) - 1, TX_BIAS = 1 << 20 };

struct mbarrier {
    int64_t count, pending, tx;
    bool phase;
};

static uint64_t packed(const struct mbarrier *m) {
    return (uint64_t)m->count | (uint64_t)m->pending << 20 | (uint64_t)(m->tx + TX_BIAS) << 40 |
           (uint64_t)m->phase << 61 | (uint64_t)1 << 62;
}

static bool unpack(uint64_t v, struct mbarrier *m) {
    *m = (struct mbarrier){.count = (int64_t)(v & MAX_COUNT),
                           .pending = (int64_t)(v >> 20 & MAX_COUNT),
                           .tx = (int64_t)(v >> 40 & (2 * TX_BIAS - 1)) - TX_BIAS,
                           .phase = v >> 61 & 1};
    return v >> 62 == 1;
}

bool shared_byte(const struct warp *w, const struct ptx_op *o, uint32_t lane, uint64_t address, uint32_t *at) {
    *at = (uint32_t)address;
    if (address <= UINT32_MAX || address >> 56 << 56 == EMU_SHARED_WINDOW) return true;
    const struct emu_where where = where_lane(w, o, lane);
    emu_report(&where, "address 0x%llx is not in shared memory", (unsigned long long)address);
    return false;
}

static uint64_t *words_of(struct run *r, const struct emu_where *where, uint32_t at, struct mbarrier *m) {
    if (!emu_check_shared(where, EMU_ATOMIC, at, 8)) return NULL;
    uint64_t *word = (uint64_t *)(void *)(r->block.shared + at);
    if (unpack(*word, m)) return word;
    emu_report(where, "there is no initialised mbarrier at shared byte %u", at);
    return NULL;
}

bool mbarrier_change(struct run *r, const struct emu_where *where, uint32_t at, int64_t arrivals, int64_t tx) {
    struct mbarrier m;
    uint64_t *word = words_of(r, where, at, &m);
    if (word == NULL) return false;
    r->progress = true;
    if (arrivals > m.pending) {
        emu_report(where, "mbarrier at shared byte %u: %lld arrivals, but only %lld of %lld are pending in this phase",
                   at, (long long)arrivals, (long long)m.pending, (long long)m.count);
        return false;
    }
    m.pending -= arrivals;
    m.tx += tx;
    if (m.tx >= TX_BIAS || m.tx <= -TX_BIAS) {
        emu_report(where, "mbarrier at shared byte %u: %lld bytes pending, more than it can count", at,
                   (long long)m.tx);
        return false;
    }
    if (m.pending == 0 && m.tx == 0) {
        m.phase = !m.phase;
        m.pending = m.count;
    }
    *word = packed(&m);
    return true;
}

bool mbarrier_expect_more(struct run *r, const struct emu_where *where, uint32_t at) {
    struct mbarrier m;
    uint64_t *word = words_of(r, where, at, &m);
    if (word == NULL) return false;
    if (++m.pending > MAX_COUNT) {
        emu_report(where, "mbarrier at shared byte %u: too many pending arrivals", at);
        return false;
    }
    *word = packed(&m);
    return true;
}

/* ---- operations: src[0] is the address ---- */

static enum flow init(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    EACH_LANE(l, mask) {
        const struct emu_where where = where_lane(w, o, l);
        const int64_t count = (int64_t)lanes32(w, &o->src[1])[l];
        uint32_t at;
        if (count < 1 || count > MAX_COUNT)
            return FATAL(w, o, l, "mbarrier.init with count %lld: 1 to %d", (long long)count, MAX_COUNT);
        if (!shared_byte(w, o, l, op_address(w, o, l), &at) || !emu_check_shared(&where, EMU_WRITE, at, 8))
            return FLOW_STOP;
        const struct mbarrier m = {.count = count, .pending = count};
        const uint64_t word = packed(&m);
        memcpy(w->block->shared + at, &word, sizeof word);
        if (w->run->code->async_proxy) proxy_note_init(w, l, at);
    }
    return FLOW_NEXT;
}

static enum flow invalidate(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    EACH_LANE(l, mask) {
        const struct emu_where where = where_lane(w, o, l);
        struct mbarrier m;
        uint32_t at;
        if (!shared_byte(w, o, l, op_address(w, o, l), &at)) return FLOW_STOP;
        uint64_t *word = words_of(w->run, &where, at, &m);
        if (word == NULL) return w->run->stop = true, FLOW_STOP;
        *word = 0;
    }
    return FLOW_NEXT;
}

enum { ARRIVE = 1, EXPECT = 2, DROP = 4, RELAXED = 8, COMPLETE = 16 };

/* o->n: source with the number of arrivals or bytes, -1: one arrival. */
static bool change(struct warp *w, const struct ptx_op *o, uint32_t lane) {
    const struct emu_where where = where_lane(w, o, lane);
    const int64_t n = o->n < 0 ? 1 : (int64_t)(int32_t)lanes32(w, &o->src[o->n])[lane];
    const bool tx = o->mode & (EXPECT | COMPLETE);
    const int64_t arrivals = !(o->mode & ARRIVE) ? 0 : tx ? 1 : n;
    uint32_t at;
    if (!shared_byte(w, o, lane, op_address(w, o, lane), &at)) return false;
    struct mbarrier m;
    uint64_t *word = words_of(w->run, &where, at, &m);
    if (word == NULL) return false;
    if (o->n_dst > 0) set_lane(w, &o->dst[0], (int)lane, *word);
    if (o->mode & DROP) {
        m.count -= arrivals;
        if (m.count < 0) {
            emu_report(&where, "mbarrier at shared byte %u: more threads drop out than it expects", at);
            return false;
        }
        *word = packed(&m);
    }
    if (arrivals > 0 && !(o->mode & RELAXED)) emu_check_release(&where, at);
    /* the bytes first: an arrival that ends the phase must see them */
    return mbarrier_change(w->run, &where, at, arrivals, o->mode & COMPLETE ? -n : tx ? n : 0);
}

static enum flow arrive(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    EACH_LANE(l, mask) if (!change(w, o, l)) return w->run->stop = true, FLOW_STOP;
    w->yields = true;
    return FLOW_NEXT;
}

/* p = whether the phase has ended; a part that waits in a loop lets others run. */
static enum flow test(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    bool all = true;
    EACH_LANE(l, mask) {
        const struct emu_where where = where_lane(w, o, l);
        struct mbarrier m, then;
        uint32_t at;
        if (!shared_byte(w, o, l, op_address(w, o, l), &at) || words_of(w->run, &where, at, &m) == NULL)
            return w->run->stop = true, FLOW_STOP;
        const uint64_t state = lane_value(w, &o->src[1], (int)l);
        bool parity = state & 1;
        if (o->mode == 0) {
            if (!unpack(state, &then)) return FATAL(w, o, l, "the state is not one that mbarrier.arrive gave");
            parity = then.phase;
        } else if (state > 1) {
            return FATAL(w, o, l, "parity %llu of a phase: 0 or 1", (unsigned long long)state);
        }
        const bool done = m.phase != parity;
        if (done && !(o->n & RELAXED)) emu_check_acquire(&where, at);
        set_lane(w, &o->dst[0], (int)l, done);
        all &= done;
    }
    w->yields = true;
    if (!all) part_spins(w, o);
    return FLOW_NEXT;
}

static enum flow pending_count(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    EACH_LANE(l, mask) {
        struct mbarrier m;
        if (!unpack(lane_value(w, &o->src[0], (int)l), &m)) return FATAL(w, o, l, "not the state of an mbarrier");
        set_lane(w, &o->dst[0], (int)l, (uint64_t)m.pending);
    }
    return FLOW_NEXT;
}

/* ---- building ---- */

/* {state,} [addr]{, count or bytes} */
static bool build_change(struct build *b, int32_t mode) {
    struct ptx_op *o = b->o;
    const int32_t first = mode & ARRIVE ? 1 : 0; /* the state comes first */
    o->run = arrive;
    o->mode = mode | (has_mod(b, "relaxed") || !(mode & ARRIVE) ? RELAXED : 0);
    o->n = -1;
    const bool has_state = b->n_arg > first && b->arg[0].kind == ARG_REF;
    if (has_state && !b->arg[0].ref.none && !take_dst(b, 0, true)) return false;
    const int32_t address = has_state ? 1 : 0;
    if (!take_address(b, address)) return false;
    if (b->n_arg <= address + 1) return !(mode & (EXPECT | COMPLETE));
    o->n = o->n_src;
    return b->n_arg == address + 2 && take_src(b, address + 1, false);
}

static bool build_test(struct build *b) {
    struct ptx_op *o = b->o;
    o->run = test;
    o->mode = has_mod(b, "parity");
    o->n = has_mod(b, "relaxed") ? RELAXED : 0;
    return take_dst(b, 0, false) && take_address(b, 1) && take_src(b, 2, o->mode == 0);
}

static bool build_mbarrier(struct build *b) {
    struct ptx_op *o = b->o;
    if (!has_mod(b, "b64") && b->o->type != PTX_B64 && !has_mod(b, "expect_tx") && !has_mod(b, "complete_tx"))
        return false;
    const int32_t tx = has_mod(b, "expect_tx") ? EXPECT : 0;
    (void)(has_mod(b, "shared") || has_mod(b, "shared::cta") || has_mod(b, "shared::cluster")); /* also generic */
    if (has_mod(b, "noComplete")) return false;
    if (has_mod(b, "init")) return o->run = init, take_address(b, 0) && take_src(b, 1, false);
    if (has_mod(b, "inval")) return o->run = invalidate, take_address(b, 0);
    if (has_mod(b, "arrive_drop")) return build_change(b, ARRIVE | DROP | tx);
    if (has_mod(b, "arrive")) return build_change(b, ARRIVE | tx);
    if (has_mod(b, "complete_tx")) return build_change(b, COMPLETE);
    if (tx) return build_change(b, EXPECT);
    if (has_mod(b, "test_wait") || has_mod(b, "try_wait")) return build_test(b);
    if (!has_mod(b, "pending_count")) return false;
    o->run = pending_count;
    return take_dst(b, 0, false) && take_src(b, 1, true);
}

const struct opcode mbarrier_opcodes[] = {
    {"mbarrier", build_mbarrier, EMU_CLASS_BARRIER},
    {NULL,       NULL,           0                },
};
