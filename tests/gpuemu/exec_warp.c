/* Warp collectives: PTX ISA, "shfl.sync", "vote.sync", "match.sync", "redux.sync", "activemask", "elect.sync",
 * "bar.warp.sync". A collective runs once all lanes of its member mask that still live stand at it; groups of lanes
 * with member masks of their own run it one after the other. */
#include "lanes.h"

/* One group of lanes, those of one member mask, all here; the others of *mask come to the operation again. Groups are
 * disjoint, and a lane outside of its group's mask must not be here. */
static enum flow members(struct warp *w, const struct ptx_op *o, uint32_t *mask, int32_t src) {
    const uint32_t *m = lanes32(w, &o->src[src]);
    for (uint32_t rest = *mask; rest != 0;) {
        const uint32_t first = m[__builtin_ctz(rest)];
        uint32_t group = 0;
        EACH_LANE(l, *mask) {
            if (m[l] != first && (m[l] & first) != 0)
                return FATAL(w, o, l, "lanes of one collective have different member masks %08x and %08x", first, m[l]);
            if (m[l] != first) continue;
            if (!(first >> l & 1)) return FATAL(w, o, l, "the lane is not in the collective's member mask %08x", first);
            group |= 1u << l;
        }
        rest &= ~group;
        if (((first & w->live) & ~group) != 0) continue;
        part_leaves(w, *mask & ~group);
        *mask = group;
        return FLOW_NEXT;
    }
    return want_lanes(w, o, *mask, UINT32_MAX);
}
#define MEMBERS(src)                                                                                                   \
    const enum flow ready_ = members(w, o, &mask, (src));                                                              \
    if (ready_ != FLOW_NEXT) return ready_

enum { UP, DOWN, BFLY, IDX };

static enum flow shfl(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    MEMBERS(3);
    const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1), *pc = P(uint32_t, 2);
    uint32_t out[32], valid[32] = {0};
    EACH_LANE(l, mask) {
        const uint32_t b = pb[l] & 31, seg = pc[l] >> 8 & 31, clamp = pc[l] & 31;
        const int32_t top = (int32_t)((l & seg) | (clamp & ~seg)), low = (int32_t)(l & seg), lane = (int32_t)l;
        const int32_t from = o->mode == UP     ? lane - (int32_t)b
                             : o->mode == DOWN ? lane + (int32_t)b
                             : o->mode == BFLY ? (int32_t)(l ^ b)
                                               : low | (int32_t)(b & ~seg);
        const bool ok = o->mode == UP ? from >= top : from <= top;
        const uint32_t at = ok ? (uint32_t)from & 31 : l;
        if (ok && !(mask >> at & 1)) return FATAL(w, o, l, "reads lane %u, which does not take part", at);
        out[l] = pa[at];
        valid[l] = ok;
    }
    EACH_LANE(l, mask) {
        set_lane(w, &o->dst[0], (int)l, out[l]);
        if (o->n_dst > 1) set_lane(w, &o->dst[1], (int)l, valid[l]);
    }
    return FLOW_NEXT;
}
static bool build_shfl(struct build *b) {
    static const char *const modes[] = {"up", "down", "bfly", "idx"};
    b->o->mode = -1;
    b->o->run = shfl;
    for (int i = 0; i < 4; i++)
        if (has_mod(b, modes[i])) b->o->mode = i;
    if (b->o->mode < 0 || !has_mod(b, "sync") || !take_dst(b, 0, false)) return false;
    if (b->arg[0].has_pair) b->o->dst[b->o->n_dst++] = b->arg[0].pair;
    for (int32_t i = 1; i <= 4; i++)
        if (!take_src(b, i, false)) return false;
    return true;
}

enum { ALL, ANY, UNI, BALLOT };
static enum flow vote(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    MEMBERS(1);
    const uint32_t *pa = P(uint32_t, 0);
    uint32_t ballot = 0;
    EACH_LANE(l, mask) ballot |= (uint32_t)((pa[l] != 0) != o->not_src) << l;
    const uint32_t result = o->mode == ALL   ? ballot == mask
                            : o->mode == ANY ? ballot != 0
                            : o->mode == UNI ? ballot == mask || ballot == 0
                                             : ballot;
    EACH_LANE(l, mask) set_lane(w, &o->dst[0], (int)l, result);
    return FLOW_NEXT;
}
static bool build_vote(struct build *b) {
    static const char *const modes[] = {"all", "any", "uni", "ballot"};
    b->o->mode = -1;
    b->o->run = vote;
    b->o->not_src = b->arg[1].negated;
    for (int i = 0; i < 4; i++)
        if (has_mod(b, modes[i])) b->o->mode = i;
    return b->o->mode >= 0 && has_mod(b, "sync") && take_dst(b, 0, false) && take_src(b, 1, false) &&
           take_src(b, 2, false);
}

static enum flow match(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    MEMBERS(1);
    EACH_LANE(l, mask) {
        uint32_t same = 0;
        const uint64_t mine = lane_value(w, &o->src[0], (int)l);
        for (uint32_t k = 0; k < 32; k++)
            if (mask >> k & 1) same |= (uint32_t)(lane_value(w, &o->src[0], (int)k) == mine) << k;
        const bool all = same == mask;
        set_lane(w, &o->dst[0], (int)l, o->mode == ALL ? (all ? mask : 0) : same);
        if (o->n_dst > 1) set_lane(w, &o->dst[1], (int)l, all);
    }
    return FLOW_NEXT;
}
static bool build_match(struct build *b) {
    b->o->mode = has_mod(b, "all") ? ALL : ANY;
    b->o->run = match;
    if (!take_dst(b, 0, false)) return false;
    if (b->arg[0].has_pair) b->o->dst[b->o->n_dst++] = b->arg[0].pair;
    return take_src(b, 1, is_wide(b->o->type)) && take_src(b, 2, false);
}

enum { R_ADD, R_MIN, R_MAX, R_AND, R_OR, R_XOR };
static enum flow redux(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    MEMBERS(1);
    const uint32_t *pa = P(uint32_t, 0);
    const bool is_signed = o->type == PTX_S32;
    uint32_t sum = pa[__builtin_ctz(mask)];
    EACH_LANE(l, mask & (mask - 1)) {
        const uint32_t v = pa[l];
        const bool less = is_signed ? (int32_t)v < (int32_t)sum : v < sum;
        switch (o->mode) {
        case R_ADD:
            sum += v;
            break;
        case R_MIN:
            sum = less ? v : sum;
            break;
        case R_MAX:
            sum = less ? sum : v;
            break;
        case R_AND:
            sum &= v;
            break;
        case R_OR:
            sum |= v;
            break;
        default:
            sum ^= v;
            break;
        }
    }
    EACH_LANE(l, mask) set_lane(w, &o->dst[0], (int)l, sum);
    return FLOW_NEXT;
}
static bool build_redux(struct build *b) {
    static const char *const modes[] = {"add", "min", "max", "and", "or", "xor"};
    b->o->mode = -1;
    b->o->run = redux;
    for (int i = 0; i < 6; i++)
        if (has_mod(b, modes[i])) b->o->mode = i;
    return b->o->mode >= 0 && b->o->type != PTX_F32 && take_dst(b, 0, false) && take_src(b, 1, false) &&
           take_src(b, 2, false);
}

static enum flow activemask(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    uint32_t *d = D(uint32_t);
    LANES(d[l] = mask);
}
static bool build_activemask(struct build *b) {
    b->o->run = activemask;
    return take_dst(b, 0, false);
}

/* elect.sync d|p, mask: the lowest lane. */
static enum flow elect(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    MEMBERS(0);
    const uint32_t leader = (uint32_t)__builtin_ctz(mask);
    EACH_LANE(l, mask) {
        set_lane(w, &o->dst[0], (int)l, leader);
        if (o->n_dst > 1) set_lane(w, &o->dst[1], (int)l, l == leader);
    }
    return FLOW_NEXT;
}
static bool build_elect(struct build *b) {
    b->o->run = elect;
    if (!take_dst(b, 0, false)) return false;
    if (b->arg[0].has_pair) b->o->dst[b->o->n_dst++] = b->arg[0].pair;
    return take_src(b, 1, false);
}

static enum flow syncwarp(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    MEMBERS(0);
    emu_check_syncwarp(&w->thread[__builtin_ctz(mask)], mask, w->live);
    return FLOW_NEXT;
}
static bool build_syncwarp(struct build *b) {
    b->o->run = syncwarp;
    return take_src(b, 0, false);
}

const struct opcode warp_opcodes[] = {
    {"shfl",          build_shfl,       EMU_CLASS_WARP   },
    {"vote",          build_vote,       EMU_CLASS_WARP   },
    {"match",         build_match,      EMU_CLASS_WARP   },
    {"redux",         build_redux,      EMU_CLASS_WARP   },
    {"activemask",    build_activemask, EMU_CLASS_WARP   },
    {"elect",         build_elect,      EMU_CLASS_WARP   },
    {"bar.warp.sync", build_syncwarp,   EMU_CLASS_BARRIER},
    {NULL,            NULL,             0                },
};
