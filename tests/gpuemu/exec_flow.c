/* Branches, exits and block barriers: PTX ISA, "Control Flow" and "barrier{.cta}". */
#include <string.h>

#include "lanes.h"

static enum flow bra(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    struct part *p = &w->part[w->current];
    const uint32_t stay = p->mask & ~mask;
    if (stay == 0) {
        p->pc = o->target;
        return FLOW_JUMP;
    }
    w->part[w->n_part++] = (struct part){.mask = mask, .pc = o->target};
    p->mask = stay;
    p->pc++;
    return FLOW_JUMP;
}
static bool build_bra(struct build *b) { /* the target is resolved at the end of the kernel */
    b->o->run = bra;
    return b->n_arg == 1 && b->arg[0].kind == ARG_NAME;
}

static enum flow leave(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    (void)o;
    struct part *p = &w->part[w->current];
    p->mask &= ~mask;
    p->pc++;
    lanes_exit(w, mask);
    return FLOW_JUMP;
}
static bool build_exit(struct build *b) {
    b->o->run = leave;
    return b->n_arg == 0;
}

static enum flow trap(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    return FATAL(w, o, (uint32_t)__builtin_ctz(mask), "the kernel trapped: a device-side check failed");
}
static bool build_trap(struct build *b) {
    b->o->run = trap;
    return true;
}

/* __assertfail(message, file, line, function, size of a character): the parameters lie in local memory. */
static enum flow assertion(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t lane = (uint32_t)__builtin_ctz(mask);
    uint64_t text[2];
    uint32_t line;
    const uint8_t *local = w->local + (int64_t)lane * w->run->code->kernel.local_bytes;
    memcpy(&text[0], local + lane_value(w, &o->src[0], 0), sizeof text[0]);
    memcpy(&text[1], local + lane_value(w, &o->src[1], 0), sizeof text[1]);
    memcpy(&line, local + lane_value(w, &o->src[2], 0), sizeof line);
    return FATAL(w, o, lane, "assertion failed: %s (%s:%u)", (const char *)(uintptr_t)text[0],
                 (const char *)(uintptr_t)text[1], line);
}
static bool build_call(struct build *b) {
    if (b->n_arg != 2 || strcmp(b->arg[0].name, "__assertfail") != 0 || b->arg[1].n_vec != 5)
        return build_fail(b, "only __assertfail can be called: inline the others");
    for (int32_t i = 0; i < 3; i++) {
        if (b->arg[1].vec[i].symbol_space != EMU_SPACE_LOCAL) return false;
        b->o->src[b->o->n_src++] = constant_ref(b->code, b->arg[1].vec[i].value, true);
    }
    b->o->run = assertion;
    return true;
}

static enum flow pass(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    (void)o;
    (void)mask;
    w->yields = true;
    return FLOW_NEXT;
}
static bool build_setmaxnreg(struct build *b) { /* the registers themselves are ptxas' affair */
    b->o->run = pass;
    if (!(has_mod(b, "inc") || has_mod(b, "dec")) || !take_src(b, 0, false) || !b->arg[0].is_constant) return false;
    const uint64_t n = b->arg[0].value;
    return (n >= 24 && n <= 256 && n % 8 == 0) || build_fail(b, "setmaxnreg of %d: 24 to 256, by 8", (int)n);
}

/* ---- launches that begin early: PTX ISA, "griddepcontrol" ---- */

static enum flow wait_for_before(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    (void)o;
    EACH_LANE(l, mask) w->thread[l].early = false;
    w->run->waited = true;
    w->yields = true;
    return FLOW_NEXT;
}
/* Released sooner, the next launch could run beside the one before this. */
static enum flow release_next(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    EACH_LANE(l, mask)
    if (w->thread[l].early) return FATAL(w, o, l, "EARLY: launch_dependents before griddepcontrol.wait");
    return FLOW_NEXT;
}
static bool build_griddepcontrol(struct build *b) {
    b->o->run = has_mod(b, "wait") ? wait_for_before : has_mod(b, "launch_dependents") ? release_next : NULL;
    return b->o->run != NULL;
}

static bool build_pass(struct build *b) {
    b->o->run = pass;
    return true;
}

/* ---- barriers: number and count are uniform in the warp ---- */

static bool barrier_operands(struct warp *w, const struct ptx_op *o, uint32_t mask, int32_t *id, int32_t *count) {
    const uint32_t lane = (uint32_t)__builtin_ctz(mask);
    *id = (int32_t)lanes32(w, &o->src[0])[lane];
    *count = o->n >= 2 ? (int32_t)lanes32(w, &o->src[1])[lane] : 0;
    if (*id >= 0 && *id < 16 && *count >= 0 && *count % 32 == 0) return true;
    const struct emu_where where = where_lane(w, o, lane);
    emu_report(&where, "barrier %d of %d threads: the number must be 0 to 15, the count a multiple of 32", *id, *count);
    w->run->stop = true;
    return false;
}

static enum flow bar_sync(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    int32_t id, count;
    if (!barrier_operands(w, o, mask, &id, &count)) return FLOW_STOP;
    return barrier_arrive(w, o, mask, id, count, true);
}
static enum flow bar_arrive(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    int32_t id, count;
    if (!barrier_operands(w, o, mask, &id, &count)) return FLOW_STOP;
    return barrier_arrive(w, o, mask, id, count, false);
}

/* bar.red.popc.u32 d, a{, b}, {!}c; .and/.or to a predicate: results are written when the barrier opens. */
static enum flow bar_red(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    int32_t id, count;
    if (!barrier_operands(w, o, mask, &id, &count)) return FLOW_STOP;
    const uint32_t *c = lanes32(w, &o->src[o->n_src - 1]);
    struct barrier *bar = &w->run->barrier[id];
    if (bar->arrived == 0) bar->red_count = 0, bar->red_and = 1, bar->red_or = 0;
    EACH_LANE(l, mask) {
        const bool v = (c[l] != 0) != o->not_src;
        bar->red_count += v;
        bar->red_and &= v;
        bar->red_or |= v;
    }
    return barrier_arrive(w, o, mask, id, count, true);
}

static bool build_bar(struct build *b) {
    struct ptx_op *o = b->o;
    const bool red = has_mod(b, "red"), aligned = has_mod(b, "aligned");
    if (has_mod(b, "cluster")) return false;
    o->aligned = aligned || strstr(o->info.text, "bar.") != NULL; /* bar is barrier with .aligned */
    o->run = red ? bar_red : has_mod(b, "arrive") ? bar_arrive : has_mod(b, "sync") || b->n_mod == 0 ? bar_sync : NULL;
    const int32_t first = red ? 1 : 0, last = b->n_arg - (red ? 1 : 0);
    if (red && (!take_dst(b, 0, false) || b->n_arg < 3)) return false;
    o->mode = has_mod(b, "popc") ? 0 : has_mod(b, "and") ? 1 : 2;
    for (int32_t i = first; i < last; i++)
        if (!take_src(b, i, false)) return false;
    o->n = last - first;
    if (!red) return o->n >= 1;
    o->not_src = b->arg[b->n_arg - 1].negated;
    return take_src(b, b->n_arg - 1, false);
}

const struct opcode flow_opcodes[] = {
    {"bra",            build_bra,            EMU_CLASS_BRANCH },
    {"ret",            build_exit,           EMU_CLASS_BRANCH },
    {"exit",           build_exit,           EMU_CLASS_BRANCH },
    {"trap",           build_trap,           EMU_CLASS_OTHER  },
    {"call",           build_call,           EMU_CLASS_OTHER  },
    {"brkpt",          build_trap,           EMU_CLASS_OTHER  },
    {"nanosleep",      build_pass,           EMU_CLASS_OTHER  },
    {"setmaxnreg",     build_setmaxnreg,     EMU_CLASS_OTHER  },
    {"griddepcontrol", build_griddepcontrol, EMU_CLASS_OTHER  },
    {"bar",            build_bar,            EMU_CLASS_BARRIER},
    {"barrier",        build_bar,            EMU_CLASS_BARRIER},
    {NULL,             NULL,                 0                },
};
