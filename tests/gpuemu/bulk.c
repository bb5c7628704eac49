/* cp.async.bulk and cp.async.bulk.tensor (TMA): PTX ISA, "Data Movement: Non-tensor copy", "Tensor copy".
 *
 * Copies into shared memory land when no thread can go on otherwise, in an order of the options' choice, and then count
 * on their mbarrier; copies out of it land when their thread waits for their group. What nobody waited for when the
 * block ends is reported. Tiles: box rows one after the other, each 16-byte piece where the swizzle of its shared
 * address puts it; elements outside of the tensor are filled or left out. */
#include <stdlib.h>
#include <string.h>

#include "hopper.h"
#include "lanes.h"

struct transfer {
    struct warp *warp;
    const struct ptx_op *op;
    uint32_t lane;
    bool store, tensor;
    struct emu_tensor_map map;
    int32_t at[5]; /* coordinates */
    uint64_t global;
    uint32_t shared, barrier;
    int64_t bytes;
    int32_t group; /* of a store */
};

struct deed {     /* of a thread */
    int64_t time; /* 0: never */
    int32_t thread;
};

struct fence {
    int64_t time;
    struct emu_stamp by; /* who acquired a later release has seen it */
};

struct fences { /* of a thread, in order of time */
    struct fence *of;
    int32_t n, cap;
};

struct bulk { /* of a block */
    struct transfer *of;
    int32_t n, cap;
    int32_t *group; /* [n_thread]: number of the open group */
    /* proxies: when and by whom each 16 bytes were last written by ordinary means, and each mbarrier initialised; when
     * each thread fenced, and when it fenced what it had initialised */
    struct deed *written, *initialised; /* [bytes / 16], [bytes / 8] */
    struct fences *fenced, *shown;      /* [n_thread] */
    bool any_written;
};

static void *zeroed(size_t n, size_t size) {
    void *p = calloc(n > 0 ? n : 1, size);
    if (p == NULL) abort();
    return p;
}

static struct bulk *bulk_of(struct run *r) {
    if (r->bulk == NULL) {
        struct bulk *b = r->bulk = zeroed(1, sizeof *b);
        const size_t n_thread = (size_t)r->block.n_warp * 32;
        b->group = zeroed(n_thread, sizeof *b->group);
        b->fenced = zeroed(n_thread, sizeof *b->fenced);
        b->shown = zeroed(n_thread, sizeof *b->shown);
        b->written = zeroed(r->block.shared_bytes / 16 + 1, sizeof *b->written);
        b->initialised = zeroed(r->block.shared_bytes / 8 + 1, sizeof *b->initialised);
    }
    return r->bulk;
}

/* ---- proxies ---- */

void proxy_note_write(struct warp *w, uint32_t lane, uint32_t at, int32_t bytes) {
    struct bulk *b = bulk_of(w->run);
    b->any_written = true;
    for (uint32_t i = at / 16; i * 16 < at + (uint32_t)bytes; i++)
        b->written[i] = (struct deed){w->run->executed, w->thread[lane].linear};
}

void proxy_note_init(struct warp *w, uint32_t lane, uint32_t at) {
    bulk_of(w->run)->initialised[at / 8] = (struct deed){w->run->executed, w->thread[lane].linear};
}

static void note_fences(struct warp *w, uint32_t mask, struct fences *of_thread) {
    EACH_LANE(l, mask) {
        const struct emu_where where = {.thread = &w->thread[l]};
        struct fences *f = &of_thread[w->thread[l].linear];
        if (f->n == f->cap) {
            f->cap = f->cap * 2 + 4;
            f->of = realloc(f->of, (size_t)f->cap * sizeof *f->of);
            if (f->of == NULL) abort();
        }
        f->of[f->n++] = (struct fence){w->run->executed, emu_check_stamp(&where)};
    }
}

void proxy_fence(struct warp *w, uint32_t mask) {
    note_fences(w, mask, bulk_of(w->run)->fenced);
}

/* Whether the thread's first fence after `time` is part of what `reader` has seen: a later one is no help if not. */
static bool fence_is_seen(const struct fences *f, int64_t time, const struct emu_where *reader) {
    int32_t low = 0, high = f->n;
    while (low < high) {
        const int32_t mid = low + (high - low) / 2;
        if (f->of[mid].time > time)
            high = mid;
        else
            low = mid + 1;
    }
    return low < f->n && !emu_check_unseen(reader, f->of[low].by);
}

static bool fenced_since(const struct fences *f, int64_t time) {
    return f->n > 0 && f->of[f->n - 1].time > time;
}

bool proxy_check(struct warp *w, const struct ptx_op *o, uint32_t lane, uint32_t at, int32_t bytes) {
    const struct bulk *b = bulk_of(w->run);
    if (!b->any_written || !emu_options()->check) return true;
    for (uint32_t i = at / 16; i * 16 < at + (uint32_t)bytes && i * 16 < w->block->shared_bytes; i++) {
        const int64_t time = b->written[i].time;
        const struct emu_where where = where_lane(w, o, lane);
        if (time == 0 || fence_is_seen(&b->fenced[b->written[i].thread], time, &where) ||
            fenced_since(&b->fenced[w->thread[lane].linear], time))
            continue;
        emu_report(&where,
                   "the async proxy reads shared byte %u, which thread %d wrote, without a fence.proxy.async between",
                   i * 16, b->written[i].thread);
        return false;
    }
    return true;
}

void proxy_fence_init(struct warp *w, uint32_t mask) {
    note_fences(w, mask, bulk_of(w->run)->shown);
}

/* The copy engine counts on the mbarrier: it must have been shown what mbarrier.init wrote. */
static bool barrier_is_shown(const struct transfer *t) {
    const struct bulk *b = bulk_of(t->warp->run);
    const struct emu_where where = where_lane(t->warp, t->op, t->lane);
    if (!emu_options()->check || t->barrier / 8 > t->warp->block->shared_bytes / 8) return true;
    const struct deed init = b->initialised[t->barrier / 8];
    if (init.time == 0 || fence_is_seen(&b->shown[init.thread], init.time, &where) ||
        fence_is_seen(&b->fenced[init.thread], init.time, &where) ||
        fenced_since(&b->fenced[where.thread->linear], init.time))
        return true;
    emu_report(&where,
               "a copy counts on the mbarrier at shared byte %u, which thread %d initialised, without a "
               "fence.mbarrier_init or fence.proxy.async between",
               t->barrier, init.thread);
    return false;
}

/* ---- the copies themselves ---- */

static bool global_may(const struct transfer *t, uint64_t address, int64_t bytes) {
    const struct emu_where where = where_lane(t->warp, t->op, t->lane);
    const enum emu_access access = t->store ? EMU_ASYNC_WRITE : EMU_ASYNC_READ;
    if (address % 16 == 0 || bytes == 0) return emu_check_global(&where, access, address, (size_t)bytes);
    for (int64_t done = 0, step; done < bytes; done += step) { /* elements, not 16-byte pieces, are aligned */
        step = t->map.element_bytes;
        if (!emu_check_global(&where, access, address + (uint64_t)done, (size_t)step)) return false;
    }
    return true;
}

static uint8_t *shared_may(const struct transfer *t, uint32_t at, int64_t bytes) {
    struct run *r = t->warp->run;
    const struct emu_where engine = {.block = &r->block, .instr = &t->op->info};
    if (!emu_check_shared(&engine, t->store ? EMU_ASYNC_READ : EMU_ASYNC_WRITE, at, (size_t)bytes)) return NULL;
    if (!t->store) memset(&r->bulk->written[at / 16], 0, (size_t)(bytes + 15) / 16 * sizeof *r->bulk->written);
    return r->block.shared + at;
}

static bool copy_plain(const struct transfer *t) {
    if (!global_may(t, t->global, t->bytes)) return false;
    uint8_t *shared = shared_may(t, t->shared, t->bytes), *global = (uint8_t *)(uintptr_t)t->global;
    if (shared == NULL) return false;
    memcpy(t->store ? global : shared, t->store ? shared : global, (size_t)t->bytes);
    return true;
}

/* Global address of the first element of a box row, and the part of the row that is inside of the tensor. */
struct row {
    uint64_t address; /* of element `low` of the row */
    int64_t low, high;
};

static struct row row_of(const struct transfer *t, int64_t number) {
    const struct emu_tensor_map *m = &t->map;
    struct row row = {.address = m->address};
    row.low = t->at[0] < 0 ? -(int64_t)t->at[0] : 0;
    row.high = (int64_t)m->dim[0] - t->at[0];
    if (row.high > m->box[0]) row.high = m->box[0];
    for (int32_t i = 1; i < m->rank; i++) {
        const int64_t c = t->at[i] + number % m->box[i];
        number /= m->box[i];
        if (c < 0 || c >= (int64_t)m->dim[i]) row.high = 0;
        row.address += (uint64_t)c * m->stride[i];
    }
    row.address += (uint64_t)((t->at[0] + row.low) * m->element_bytes);
    if (row.high < row.low) row.high = row.low;
    return row;
}

static bool copy_row(const struct transfer *t, int64_t number) {
    const struct emu_tensor_map *m = &t->map;
    const int64_t bytes = (int64_t)m->box[0] * m->element_bytes;
    const struct row row = row_of(t, number);
    const size_t skip = (size_t)(row.low * m->element_bytes),
                 inside = (size_t)(row.high - row.low) * (size_t)m->element_bytes;
    uint8_t *global = (uint8_t *)(uintptr_t)row.address;
    uint8_t buffer[256 * 8];
    if (inside > 0 && !global_may(t, row.address, (int64_t)inside)) return false;
    if (!t->store) {
        memset(buffer, m->nan_fill ? 0xFF : 0, (size_t)bytes);
        if (inside > 0) memcpy(buffer + skip, global, inside);
    }
    for (int64_t i = 0; i < bytes; i += 16) {
        uint8_t *shared = shared_may(t, swizzled(t->shared + (uint32_t)(number * bytes + i), m->swizzle), 16);
        if (shared == NULL) return false;
        memcpy(t->store ? buffer + i : shared, t->store ? shared : buffer + i, 16);
    }
    if (t->store && inside > 0) memcpy(global, buffer + skip, inside);
    return true;
}

static bool perform(const struct transfer *t) {
    struct run *r = t->warp->run;
    bool ok = t->tensor || copy_plain(t);
    int64_t n_row = t->tensor ? 1 : 0;
    for (int32_t i = 1; t->tensor && i < t->map.rank; i++) n_row *= t->map.box[i];
    for (int64_t i = 0; ok && i < n_row; i++) ok = copy_row(t, i);
    const struct emu_where engine = {.block = &r->block, .instr = &t->op->info};
    if (ok && !t->store) {
        emu_check_release(&engine, t->barrier);
        ok = mbarrier_change(r, &engine, t->barrier, 0, -t->bytes);
    }
    r->stop |= !ok;
    return ok;
}

/* Of a copy that is issued, not yet made. */
static bool may_begin(const struct transfer *t) {
    const struct emu_where where = where_lane(t->warp, t->op, t->lane);
    const enum emu_access access = t->store ? EMU_ASYNC_WRITE : EMU_ASYNC_READ;
    if (!where.thread->early) return true;
    if (!t->tensor) return emu_check_early(&where, access, t->global, (size_t)t->bytes);
    int64_t n_row = 1;
    for (int32_t i = 1; i < t->map.rank; i++) n_row *= t->map.box[i];
    for (int64_t i = 0; i < n_row; i++) {
        const struct row row = row_of(t, i);
        const size_t bytes = (size_t)(row.high - row.low) * (size_t)t->map.element_bytes;
        if (bytes > 0 && !emu_check_early(&where, access, row.address, bytes)) return false;
    }
    return true;
}

/* ---- the queue ---- */

static void take_out(struct bulk *b, int32_t i, struct transfer *t) {
    *t = b->of[i];
    b->n--;
    memmove(&b->of[i], &b->of[i + 1], (size_t)(b->n - i) * sizeof *t);
}

bool bulk_progress(struct run *r) {
    struct bulk *b = r->bulk;
    int32_t chosen = -1, n = 0;
    for (int32_t i = 0; b != NULL && i < b->n; i++) {
        if (b->of[i].store) continue;
        n++;
        const int32_t order = emu_options()->order;
        if (chosen < 0 || order == EMU_BACKWARD || (order == EMU_SHUFFLED && emu_random(&r->random) % (uint64_t)n == 0))
            chosen = i;
    }
    if (chosen < 0) return false;
    struct transfer t;
    take_out(b, chosen, &t);
    (void)perform(&t);
    return true;
}

static void queue(struct transfer *t) {
    struct run *r = t->warp->run;
    struct bulk *b = r->bulk;
    const struct emu_where where = where_lane(t->warp, t->op, t->lane);
    const int32_t timing = emu_options()->copies;
    emu_check_async_issue(&where);
    if (!may_begin(t)) {
        r->stop = true;
        return;
    }
    t->group = b->group[where.thread->linear];
    if (timing == EMU_EARLY || (timing == EMU_RANDOM && emu_random(&r->random) % 2)) {
        (void)perform(t);
        return;
    }
    if (b->n == b->cap) {
        b->cap = b->cap * 2 + 16;
        b->of = realloc(b->of, (size_t)b->cap * sizeof *b->of);
        if (b->of == NULL) abort();
    }
    b->of[b->n++] = *t;
}

static void free_fences(struct fences *of_thread, int32_t n) {
    for (int32_t i = 0; i < n; i++) free(of_thread[i].of);
    free(of_thread);
}

void bulk_block_end(struct run *r) {
    struct bulk *b = r->bulk;
    if (b == NULL) return;
    for (int32_t i = 0; i < b->n && !r->stop; i++) {
        const struct transfer *t = &b->of[i];
        const struct emu_where where = where_lane(t->warp, t->op, t->lane);
        emu_report(&where, "the block ends while this copy %s its shared memory",
                   t->store ? "may still read" : "writes into");
        r->stop = true;
    }
    free(b->of);
    free(b->group);
    free_fences(b->fenced, r->block.n_warp * 32);
    free_fences(b->shown, r->block.n_warp * 32);
    free(b->written);
    free(b->initialised);
    free(b);
    r->bulk = NULL;
}

/* ---- operations ---- */

enum { BULK_LOAD = 1, BULK_STORE = 2 }; /* o->mode */

uint64_t far_address(const struct warp *w, const struct ptx_op *o, int32_t src, uint32_t lane) {
    const uint64_t base = lane_value(w, &o->src[src], (int)lane), offset = lane_value(w, &o->src[src + 1], (int)lane);
    return o->src[src].wide ? base + offset : (uint32_t)(base + offset);
}

bool take_far_address(struct build *b, int32_t i) {
    if (i >= b->n_arg || b->arg[i].kind != ARG_ADDRESS || b->o->n_src + 2 > PTX_MAX_SRC)
        return build_fail(b, "operand %d is not an address", i);
    const struct arg *a = &b->arg[i];
    const struct ptx_ref base = a->is_constant ? constant_ref(b->code, a->value, true) : a->ref;
    b->o->src[b->o->n_src++] = base;
    b->o->src[b->o->n_src++] = constant_ref(b->code, (uint64_t)a->offset, true);
    return true;
}

static bool aligned(const struct transfer *t, const char *what, uint64_t value, uint64_t to) {
    if (value % to == 0) return true;
    const struct emu_where where = where_lane(t->warp, t->op, t->lane);
    emu_report(&where, "%s %llu of a bulk copy must be a multiple of %llu", what, (unsigned long long)value,
               (unsigned long long)to);
    return false;
}

/* Sources: shared (2), global (2), bytes, barrier (2). */
static bool issue_plain(struct transfer *t) {
    struct warp *w = t->warp;
    const struct ptx_op *o = t->op;
    t->global = far_address(w, o, 2, t->lane);
    t->bytes = (int64_t)lanes32(w, &o->src[4])[t->lane];
    return aligned(t, "global address", t->global, 16) && aligned(t, "size", (uint64_t)t->bytes, 16) &&
           aligned(t, "shared address", t->shared, 16);
}

static bool map_is_known(const struct transfer *t) {
    const struct emu_tensor_map *m = &t->map;
    const struct emu_where where = where_lane(t->warp, t->op, t->lane);
    const char *wrong = NULL;
    for (int32_t i = 0; i < m->rank; i++)
        if (m->element_stride[i] != 1) wrong = "element strides are not emulated";
    if (m->swizzle > 0 && (int64_t)m->box[0] * m->element_bytes != m->swizzle)
        wrong = "with a swizzle, rows of the box must be as long as its span";
    if (m->rank != t->op->n) wrong = "the tensor map has another rank than the instruction";
    if (wrong != NULL) emu_report(&where, "%s", wrong);
    return wrong == NULL;
}

/* Sources: shared (2), map (2), coordinates (n), barrier (2). */
static bool issue_tensor(struct transfer *t) {
    struct warp *w = t->warp;
    const struct ptx_op *o = t->op;
    const struct emu_where where = where_lane(w, o, t->lane);
    const uint64_t address = far_address(w, o, 2, t->lane);
    const void *map = emu_at(w, o, t->lane, EMU_SPACE_GENERIC, address, 128, EMU_READ);
    if (map == NULL) return false;
    if (!emu_tensor_map_decode(map, &t->map)) {
        emu_report(&where, "0x%llx is not a tensor map of cuTensorMapEncodeTiled", (unsigned long long)address);
        return false;
    }
    if (!map_is_known(t)) return false;
    t->tensor = true;
    t->bytes = t->map.element_bytes;
    for (int32_t i = 0; i < o->n; i++) {
        t->at[i] = (int32_t)lanes32(w, &o->src[4 + i])[t->lane];
        t->bytes *= t->map.box[i];
    }
    return aligned(t, "shared address", t->shared, 128);
}

static enum flow issue(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    (void)bulk_of(w->run);
    EACH_LANE(l, mask) {
        struct transfer t = {.warp = w, .op = o, .lane = l, .store = o->mode == BULK_STORE};
        bool ok = shared_byte(w, o, l, far_address(w, o, 0, l), &t.shared);
        ok = ok && (o->n > 0 ? issue_tensor(&t) : issue_plain(&t));
        if (ok && !t.store) ok = shared_byte(w, o, l, far_address(w, o, o->n_src - 2, l), &t.barrier);
        if (ok && !t.store) ok = barrier_is_shown(&t);
        if (ok && t.store) ok = proxy_check(w, o, l, t.shared, (int32_t)t.bytes);
        if (!ok) return w->run->stop = true, FLOW_STOP;
        queue(&t);
    }
    return w->run->stop ? FLOW_STOP : FLOW_NEXT;
}

static enum flow commit(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    (void)o;
    EACH_LANE(l, mask) bulk_of(w->run)->group[w->thread[l].linear]++;
    return FLOW_NEXT;
}

/* Also .read: the copy is made when its source may be overwritten. */
static enum flow wait_group(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    struct bulk *b = bulk_of(w->run);
    EACH_LANE(l, mask) {
        const struct emu_where where = where_lane(w, o, l);
        const struct emu_where engine = {.block = w->block, .instr = &o->info};
        const uint32_t mark = 0x80000000u + (uint32_t)where.thread->linear; /* no shared byte: orders the two */
        for (int32_t i = 0; i < b->n; i++) {
            const struct transfer *t = &b->of[i];
            if (!t->store || t->warp != w || t->lane != l) continue;
            if (t->group >= b->group[where.thread->linear] - (int32_t)o->immediate) continue;
            struct transfer due;
            take_out(b, i--, &due);
            if (!perform(&due)) return FLOW_STOP;
        }
        if (b->group[where.thread->linear] <= (int32_t)o->immediate) continue; /* no group is over */
        emu_check_release(&engine, mark); /* also of what was made before the wait */
        emu_check_acquire(&where, mark);
    }
    return FLOW_NEXT;
}

/* ---- building ---- */

static bool build_direction(struct build *b) {
    const int32_t first = b->o->n > 0 ? 1 : 0; /* behind the 2d of a tensor copy */
    const bool shared_first = first < b->n_mod && strncmp(b->mod[first], "shared::", 8) == 0;
    if (!has_mod(b, "shared::cluster") && !has_mod(b, "shared::cta")) return false;
    const bool barrier = has_mod(b, "mbarrier::complete_tx::bytes"), group = has_mod(b, "bulk_group");
    b->o->mode = shared_first && barrier ? BULK_LOAD : !shared_first && group ? BULK_STORE : 0;
    b->o->run = issue;
    b->code->async_proxy = true;
    return b->o->mode != 0 && has_mod(b, "global") && !has_mod(b, "multicast::cluster");
}

static bool build_groups(struct build *b) {
    struct ptx_op *o = b->o;
    if (has_mod(b, "commit_group")) return o->run = commit, true;
    o->run = wait_group;
    o->immediate = b->n_arg == 1 ? (int64_t)b->arg[0].value : 0;
    return b->n_arg == 1 && b->arg[0].is_constant;
}

/* [shared], [global], bytes, [barrier] or [global], [shared], bytes */
static bool build_bulk(struct build *b) {
    if (has_mod(b, "commit_group") || has_mod(b, "wait_group")) return build_groups(b);
    if (!build_direction(b)) return false;
    const bool load = b->o->mode == BULK_LOAD;
    return take_far_address(b, load ? 0 : 1) && take_far_address(b, load ? 1 : 0) && take_src(b, 2, false) &&
           (!load || take_far_address(b, 3));
}

/* [shared], [map, {c0, ..}], [barrier] or [map, {c0, ..}], [shared] */
static bool build_tensor(struct build *b) {
    struct ptx_op *o = b->o;
    o->n = b->n_mod > 0 && b->mod[0][0] >= '1' && b->mod[0][0] <= '5' ? b->mod[0][0] - '0' : 0;
    if (o->n == 0 || !has_mod(b, b->mod[0]) || !build_direction(b) || has_mod(b, "im2col")) return false;
    const bool load = o->mode == BULK_LOAD;
    const struct arg *map = load && b->n_arg > 1 ? &b->arg[1] : &b->arg[0];
    if (!take_far_address(b, load ? 0 : 1) || !take_far_address(b, load ? 1 : 0)) return false;
    if (map->n_vec != o->n) return build_fail(b, "%d coordinates for %d dimensions", map->n_vec, o->n);
    for (int32_t i = 0; i < o->n; i++) {
        const struct arg *c = &map->vec[i];
        if (c->kind != ARG_REF || c->ref.wide) return false;
        o->src[o->n_src++] = c->is_constant ? constant_ref(b->code, c->value, false) : c->ref;
    }
    return !load || take_far_address(b, 2);
}

const struct opcode bulk_opcodes[] = {
    {"cp.async.bulk",        build_bulk,   EMU_CLASS_COPY},
    {"cp.async.bulk.tensor", build_tensor, EMU_CLASS_COPY},
    {NULL,                   NULL,         0             },
};
