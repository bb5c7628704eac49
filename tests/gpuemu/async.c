/* cp.async: copies that land as late as the waits allow (options: at once, at random); cp.async.mbarrier.arrive, which
 * arrives when all earlier copies of its thread have landed, at the latest when no thread can go on otherwise. PTX ISA,
 * "cp.async", "cp.async.mbarrier.arrive". */
#include <stdlib.h>
#include <string.h>

#include "hopper.h"
#include "lanes.h"

static void land(struct warp *w, uint32_t lane, const struct copy *c) {
    static const uint8_t zeros[16];
    if (c->arrives) {
        const struct emu_where where = where_lane(w, c->op, lane);
        emu_check_release(&where, c->to);
        w->run->stop |= !mbarrier_change(w->run, &where, c->to, 1, 0);
        return;
    }
    const void *from =
        c->valid > 0 ? emu_at(w, c->op, lane, EMU_SPACE_GLOBAL, c->from, c->valid, EMU_ASYNC_READ) : zeros;
    uint8_t *to = emu_at(w, c->op, lane, EMU_SPACE_SHARED, c->to, c->bytes, EMU_ASYNC_WRITE);
    if (from == NULL || to == NULL) return;
    memset(to, 0, (size_t)c->bytes);
    memcpy(to, from, (size_t)c->valid);
}

/* Lands the copies of all but the newest `keep` closed groups. */
void copies_finish(struct warp *w, uint32_t lane, int32_t keep) {
    struct copies *all = &w->copies[lane];
    int32_t kept = 0;
    for (int32_t i = 0; i < all->n; i++) {
        const struct copy c = all->of[i];
        if (c.group < all->group - keep)
            land(w, lane, &c);
        else
            all->of[kept++] = c;
    }
    all->n = kept;
}

void copies_release(struct warp *w) {
    for (uint32_t l = 0; l < 32; l++) {
        w->copies[l].group++;
        copies_finish(w, l, 0); /* what nobody waited for lands at the end */
        free(w->copies[l].of);
        w->copies[l] = (struct copies){0};
    }
}

static bool overlap(uint64_t a, int64_t n_a, uint64_t b, int64_t n_b) {
    return n_b > 0 && a < b + (uint64_t)n_b && b < a + (uint64_t)n_a;
}

bool copies_allow(struct warp *w, const struct ptx_op *o, uint32_t lane, bool shared, uint64_t at, int32_t bytes,
                  bool writes) {
    const struct copies *all = &w->copies[lane];
    if (!emu_options()->check) return true;
    for (int32_t i = 0; i < all->n; i++) {
        const struct copy *c = &all->of[i];
        const char *what = shared ? "destination" : "source";
        if (c->arrives || !overlap(at, bytes, shared ? c->to : c->from, shared ? c->bytes : c->valid)) continue;
        const struct emu_where where = where_lane(w, o, lane);
        emu_report(&where, "%s the %s of its own cp.async of PTX line %d, which it did not wait for",
                   writes ? "overwrites" : "reads", what, c->op->info.ptx_line);
        return false;
    }
    return true;
}

/* The first n copies of a lane. */
static void land_first(struct warp *w, uint32_t lane, int32_t n) {
    struct copies *all = &w->copies[lane];
    for (int32_t i = 0; i < n; i++) {
        const struct copy c = all->of[i];
        land(w, lane, &c);
    }
    all->n -= n;
    if (n > 0) memmove(all->of, all->of + n, (size_t)all->n * sizeof *all->of);
}

bool copies_progress(struct run *r) {
    for (int32_t i = 0; i < r->block.n_warp; i++)
        for (uint32_t l = 0; l < 32; l++) {
            const struct copies *all = &r->warp[i].copies[l];
            int32_t n = 0;
            while (n < all->n && !all->of[n].arrives) n++;
            if (n == all->n) continue;
            land_first(&r->warp[i], l, n + 1);
            return true;
        }
    return false;
}

void copies_some(struct warp *w) {
    const uint32_t lane = emu_random(&w->run->random) % 32;
    struct copies *all = &w->copies[lane];
    if (all->n == 0) return;
    const int32_t i = (int32_t)(emu_random(&w->run->random) % (uint64_t)all->n);
    const struct copy c = all->of[i];
    if (c.arrives) {
        land_first(w, lane, i + 1);
        return;
    }
    memmove(&all->of[i], &all->of[i + 1], (size_t)(all->n - i - 1) * sizeof c);
    all->n--;
    land(w, lane, &c);
}

static void issue(struct warp *w, uint32_t lane, struct copy c) {
    struct copies *all = &w->copies[lane];
    const int32_t timing = emu_options()->copies;
    if (timing == EMU_EARLY || (timing == EMU_RANDOM && emu_random(&w->run->random) % 2)) {
        if (c.arrives) land_first(w, lane, all->n);
        land(w, lane, &c);
        return;
    }
    if (all->n == all->cap) {
        all->cap = all->cap * 2 + 16;
        all->of = realloc(all->of, (size_t)all->cap * sizeof *all->of);
        if (all->of == NULL) abort();
    }
    c.group = all->group;
    all->of[all->n++] = c;
}

static void count(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    if (emu_options()->count == NULL) return;
    uint64_t to[32] = {0}, from[32] = {0};
    uint32_t reads = 0;
    EACH_LANE(l, mask) {
        to[l] = (uint32_t)op_address(w, o, l);
        from[l] = lane_value(w, &o->src[1], (int)l) + (uint64_t)o->immediate;
        const uint32_t valid = o->n_src > 2 ? lanes32(w, &o->src[2])[l] : 1;
        reads |= (uint32_t)(valid > 0) << l;
    }
    const struct emu_where where = where_warp(w, o);
    emu_count_access(&where, true, true, mask, to, o->n);
    if (reads) emu_count_access(&where, false, false, reads, from, o->n);
}

static enum flow cp_async(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    count(w, o, mask);
    EACH_LANE(l, mask) {
        struct copy c = {.to = (uint32_t)op_address(w, o, l),
                         .from = lane_value(w, &o->src[1], (int)l) + (uint64_t)o->immediate,
                         .bytes = o->n,
                         .valid = o->n,
                         .op = o};
        if (o->n_src > 2) c.valid = (int32_t)lanes32(w, &o->src[2])[l];
        if (c.valid < 0 || c.valid > c.bytes) return FATAL(w, o, l, "cp.async reads %d bytes of %d", c.valid, c.bytes);
        if (c.from % (uint64_t)c.bytes != 0 || c.to % (uint32_t)c.bytes != 0)
            return FATAL(w, o, l,
                         "cp.async of %d bytes from %#llx to shared byte %u: addresses must be multiples of %d",
                         c.bytes, (unsigned long long)c.from, c.to, c.bytes);
        const struct emu_where where = where_lane(w, o, l);
        if (!copies_allow(w, o, l, true, c.to, c.bytes, true) ||
            !emu_check_early(&where, EMU_ASYNC_READ, c.from, (size_t)c.valid))
            return w->run->stop = true, FLOW_STOP;
        issue(w, l, c);
    }
    return FLOW_NEXT;
}

static enum flow arrive_later(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    EACH_LANE(l, mask) {
        const struct emu_where where = where_lane(w, o, l);
        struct copy c = {.arrives = true, .op = o};
        if (!shared_byte(w, o, l, op_address(w, o, l), &c.to)) return w->run->stop = true, FLOW_STOP;
        if (o->mode == 0 && !mbarrier_expect_more(w->run, &where, c.to)) return w->run->stop = true, FLOW_STOP;
        issue(w, l, c);
    }
    return w->run->stop ? FLOW_STOP : FLOW_NEXT;
}

static enum flow commit(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    (void)o;
    EACH_LANE(l, mask) w->copies[l].group++;
    return FLOW_NEXT;
}

static enum flow wait_group(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    if (emu_options()->copies == EMU_RANDOM) copies_some(w);
    EACH_LANE(l, mask) {
        if (o->mode) w->copies[l].group++; /* wait_all: also what is not in a group yet */
        copies_finish(w, l, (int32_t)o->immediate);
    }
    return FLOW_NEXT;
}

static bool build_copy(struct build *b) {
    struct ptx_op *o = b->o;
    o->run = cp_async;
    if (b->n_arg < 3 || !take_address(b, 0) || b->arg[1].kind != ARG_ADDRESS || b->arg[1].is_constant) return false;
    if (!has_mod(b, "global") || (!has_mod(b, "shared") && !has_mod(b, "shared::cta"))) return false;
    o->src[o->n_src++] = b->arg[1].ref;
    o->immediate = b->arg[1].offset;
    o->n = (int32_t)b->arg[2].value;
    if (!b->arg[2].is_constant || (o->n != 4 && o->n != 8 && o->n != 16) || (has_mod(b, "cg") && o->n != 16))
        return build_fail(b, "cp.async of %d bytes: .ca takes 4, 8, 16, .cg takes 16", o->n);
    const bool policy = has_mod(b, "L2::cache_hint");
    return b->n_arg - policy < 4 || take_src(b, 3, false);
}

static bool build_cp_async(struct build *b) {
    struct ptx_op *o = b->o;
    if (has_mod(b, "commit_group")) return o->run = commit, true;
    if (has_mod(b, "mbarrier")) {
        o->run = arrive_later;
        o->mode = has_mod(b, "noinc");
        (void)(has_mod(b, "shared") || has_mod(b, "shared::cta"));
        return has_mod(b, "arrive") && take_address(b, 0);
    }
    if (!has_mod(b, "wait_group") && !has_mod(b, "wait_all")) return build_copy(b);
    o->run = wait_group;
    o->mode = has_mod(b, "wait_all");
    o->immediate = b->n_arg > 0 ? (int64_t)b->arg[0].value : 0;
    return o->mode || (b->n_arg == 1 && b->arg[0].is_constant);
}

const struct opcode async_opcodes[] = {
    {"cp.async", build_cp_async, EMU_CLASS_COPY},
    {NULL,       NULL,           0             },
};
