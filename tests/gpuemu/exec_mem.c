/* Loads, stores, atomics and address conversions. Semantics: PTX ISA, "Data Movement and Conversion" and "Parallel
 * Synchronization: atom, red, fence". Every access goes through the checks of the driver half. */
#include <string.h>

#include "hopper.h"
#include "lanes.h"

uint64_t op_address(const struct warp *w, const struct ptx_op *o, uint32_t lane) {
    const struct ptx_ref *base = &o->src[0];
    if (base->none) return (uint64_t)o->offset;
    if (base->wide) return lanes64(w, base)[lane] + (uint64_t)o->offset;
    return (uint32_t)(lanes32(w, base)[lane] + (uint32_t)o->offset);
}

static bool writes(enum emu_access access) {
    return access == EMU_WRITE || access == EMU_ATOMIC || access == EMU_ASYNC_WRITE || access == EMU_STRONG_WRITE;
}

/* Bytes of a lane's local memory from `at` on: written now, or before. */
static void check_local(struct warp *w, const struct ptx_op *o, uint32_t lane, int64_t at, int32_t bytes, bool write) {
    uint8_t *set = w->local_set + (int64_t)lane * w->run->code->kernel.local_bytes + at;
    if (write) memset(set, 1, (size_t)bytes);
    if (write || !emu_options()->uninit || memchr(set, 0, (size_t)bytes) == NULL) return;
    const struct emu_where where = where_lane(w, o, lane);
    emu_report(&where, "reads uninitialised local memory: %d bytes at byte %lld", bytes, (long long)at);
    memset(set, 1, (size_t)bytes); // one report is enough
}

static void *local_at(struct warp *w, const struct ptx_op *o, uint32_t lane, uint64_t at, int32_t bytes, bool write) {
    const int64_t room = w->run->code->kernel.local_bytes;
    if ((int64_t)at < 0 || (int64_t)at + bytes > room || at % (uint64_t)(bytes > 16 ? 16 : bytes) != 0) {
        const struct emu_where where = where_lane(w, o, lane);
        emu_report(&where, "access of %d bytes at byte %lld of the %lld bytes of local memory", bytes, (long long)at,
                   (long long)room);
        return NULL;
    }
    check_local(w, o, lane, (int64_t)at, bytes, write);
    return w->local + (int64_t)lane * room + (int64_t)at;
}

static void *param_at(struct warp *w, const struct ptx_op *o, uint32_t lane, uint64_t at, int32_t bytes, bool reads) {
    const struct emu_launch *launch = w->run->launch;
    if (reads && at <= (uint64_t)launch->kernel->param_bytes &&
        at + (uint64_t)bytes <= (uint64_t)launch->kernel->param_bytes)
        return (void *)(uintptr_t)(launch->params + at);
    const struct emu_where where = where_lane(w, o, lane);
    emu_report(&where, "%s of %d bytes at byte %llu of the kernel's %d bytes of parameters", reads ? "load" : "store",
               bytes, (unsigned long long)at, launch->kernel->param_bytes);
    return NULL;
}

/* Reported: the lane touches what a cp.async of its own may still write or, in global memory, change what it reads. */
static bool meets_copies(struct warp *w, const struct ptx_op *o, uint32_t lane, enum emu_space space, uint64_t address,
                         int32_t bytes, enum emu_access access) {
    if (access == EMU_ASYNC_READ || access == EMU_ASYNC_WRITE) return false; /* they themselves */
    const bool shared = space == EMU_SPACE_SHARED;
    if (!shared && (space != EMU_SPACE_GLOBAL || !writes(access))) return false;
    return !copies_allow(w, o, lane, shared, address, bytes, writes(access));
}

void *emu_at(struct warp *w, const struct ptx_op *o, uint32_t lane, enum emu_space space, uint64_t address,
             int32_t bytes, enum emu_access access) {
    const struct emu_launch *launch = w->run->launch;
    const uint64_t params = (uint64_t)(uintptr_t)launch->params;
    if (space == EMU_SPACE_GENERIC) {
        const uint64_t window = address >> 56 << 56;
        space = window == EMU_SHARED_WINDOW                                                     ? EMU_SPACE_SHARED
                : window == EMU_LOCAL_WINDOW                                                    ? EMU_SPACE_LOCAL
                : address >= params && address < params + (uint64_t)launch->kernel->param_bytes ? EMU_SPACE_PARAM
                                                                                                : EMU_SPACE_GLOBAL;
        if (space == EMU_SPACE_PARAM) address -= params;
        if (space == EMU_SPACE_SHARED || space == EMU_SPACE_LOCAL) address &= UINT32_MAX;
    }
    const struct emu_where where = where_lane(w, o, lane);
    if (w->copies[lane].n > 0 && meets_copies(w, o, lane, space, address, bytes, access)) return NULL;
    switch (space) {
    case EMU_SPACE_SHARED:
        if (!emu_check_shared(&where, access, (uint32_t)address, (size_t)bytes)) return NULL;
        if (w->run->code->async_proxy && writes(access)) proxy_note_write(w, lane, (uint32_t)address, bytes);
        return w->block->shared + (uint32_t)address;
    case EMU_SPACE_LOCAL:
        return local_at(w, o, lane, address, bytes, writes(access));
    case EMU_SPACE_PARAM:
        return param_at(w, o, lane, address, bytes, !writes(access));
    default:
        return emu_check_global(&where, access, address, (size_t)bytes) ? (void *)(uintptr_t)address : NULL;
    }
}

/* Of an address that op_address gave. */
static bool in_global(const struct ptx_op *o, uint64_t at) {
    return o->space == EMU_SPACE_GLOBAL || (o->space == EMU_SPACE_GENERIC && at >> 56 == 0);
}

/* ---- counting ---- */

static void count(struct warp *w, const struct ptx_op *o, uint32_t mask, int32_t bytes, bool write) {
    if (emu_options()->count == NULL) return;
    uint64_t address[32] = {0};
    uint32_t shared = 0, global = 0;
    EACH_LANE(l, mask) {
        const uint64_t at = op_address(w, o, l);
        const bool in_shared =
            o->space == EMU_SPACE_SHARED || (o->space == EMU_SPACE_GENERIC && at >> 56 << 56 == EMU_SHARED_WINDOW);
        address[l] = in_shared ? at & UINT32_MAX : at;
        shared |= (uint32_t)in_shared << l;
        global |= (uint32_t)in_global(o, at) << l;
    }
    const struct emu_where where = where_warp(w, o);
    if (shared) emu_count_access(&where, true, write, shared, address, bytes);
    if (global) emu_count_access(&where, false, write, global, address, bytes);
}

/* ---- loads and stores ---- */

static uint64_t load_value(const uint8_t *from, enum ptx_type t) {
    uint64_t v = 0;
    memcpy(&v, from, (size_t)type_bytes(t));
    if (t == PTX_S8) return (uint64_t)(int64_t)(int8_t)v;
    if (t == PTX_S16) return (uint64_t)(int64_t)(int16_t)v;
    if (t == PTX_S32) return (uint64_t)(int64_t)(int32_t)v;
    return v;
}

static bool acquires(const struct warp *w, const struct ptx_op *o, uint32_t lane) {
    const struct emu_where where = where_lane(w, o, lane);
    return emu_check_flag(&where, op_address(w, o, lane), (enum emu_scope)o->n);
}

static enum flow ld(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const int32_t element = type_bytes(o->type), bytes = element * o->n_dst;
    count(w, o, mask, bytes, false);
    w->yields = o->mode;
    if (o->mode) part_polls(w, o);
    EACH_LANE(l, mask) {
        const uint8_t *from = emu_at(w, o, l, o->space, op_address(w, o, l), bytes, (enum emu_access)o->immediate);
        uint8_t copy[64];
        if (from == NULL || (o->n && !acquires(w, o, l))) continue;
        memcpy(copy, from, (size_t)bytes); /* the destination may be the address */
        if (o->mode && in_global(o, op_address(w, o, l)))
            emu_order_acquire(op_address(w, o, l), o->n >= (int32_t)EMU_SCOPE_GPU);
        for (int32_t i = 0; i < o->n_dst; i++) set_lane(w, &o->dst[i], (int)l, load_value(copy + i * element, o->type));
    }
    return FLOW_NEXT;
}

/* A store that is seen behind a fence, or releases itself. */
static void releases(struct warp *w, const struct ptx_op *o, uint32_t lane) {
    const uint64_t at = op_address(w, o, lane);
    emu_note_release(at, o->n ? (enum emu_scope)o->n : w->fenced);
    if (in_global(o, at)) emu_order_release(&w->thread[lane], at, o->n >= (int32_t)EMU_SCOPE_GPU);
}

static enum flow st(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const int32_t element = type_bytes(o->type), n = o->n_src - 1, bytes = element * n;
    count(w, o, mask, bytes, true);
    EACH_LANE(l, mask) {
        uint8_t *to = emu_at(w, o, l, o->space, op_address(w, o, l), bytes, (enum emu_access)o->immediate);
        for (int32_t i = 0; i < n && to != NULL; i++) {
            const uint64_t v = lane_value(w, &o->src[1 + i], (int)l);
            memcpy(to + i * element, &v, (size_t)element);
        }
        if (o->mode) releases(w, o, l);
    }
    return FLOW_NEXT;
}

static enum emu_space space_of(const struct build *b) {
    static const struct {
        const char *name;
        enum emu_space space;
    } names[] = {
        {"global",          EMU_SPACE_GLOBAL},
        {"shared",          EMU_SPACE_SHARED},
        {"shared::cta",     EMU_SPACE_SHARED},
        {"shared::cluster", EMU_SPACE_SHARED},
        {"local",           EMU_SPACE_LOCAL },
        {"const",           EMU_SPACE_CONST },
        {"param",           EMU_SPACE_PARAM },
        {"param::entry",    EMU_SPACE_PARAM },
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (has_mod(b, names[i].name)) return names[i].space;
    return EMU_SPACE_GENERIC;
}

static enum emu_scope scope_of(const struct build *b) {
    if (has_mod(b, "sys")) return EMU_SCOPE_SYS;
    return has_mod(b, "gpu") || has_mod(b, "gl") || has_mod(b, "cluster") ? EMU_SCOPE_GPU : EMU_SCOPE_CTA;
}

static bool set_class(struct build *b) {
    static const enum emu_class classes[] = {
        [EMU_SPACE_GENERIC] = EMU_CLASS_GLOBAL, [EMU_SPACE_GLOBAL] = EMU_CLASS_GLOBAL,
        [EMU_SPACE_SHARED] = EMU_CLASS_SHARED,  [EMU_SPACE_LOCAL] = EMU_CLASS_LOCAL,
        [EMU_SPACE_CONST] = EMU_CLASS_CONST,    [EMU_SPACE_PARAM] = EMU_CLASS_CONST};
    b->o->space = space_of(b);
    b->o->info.opcode_class = (int32_t)classes[b->o->space];
    return b->o->type != PTX_NONE && b->o->type != PTX_B128;
}

static bool vector_length_fits(const struct build *b, int32_t n) {
    return has_mod(b, "v2") ? n == 2 : has_mod(b, "v4") ? n == 4 : has_mod(b, "v8") ? n == 8 : n == 1;
}

static bool build_ld(struct build *b) {
    struct ptx_op *o = b->o;
    if (!set_class(b) || b->n_arg < 2 || !take_address(b, 1)) return false;
    o->run = ld;
    const bool strong = has_mod(b, "acquire") || has_mod(b, "relaxed");
    o->mode = strong || has_mod(b, "volatile");
    o->immediate = strong ? EMU_STRONG_READ : EMU_READ;
    o->n = has_mod(b, "acquire") ? (int32_t)scope_of(b) : 0;
    const struct arg *d = &b->arg[0];
    const int32_t n = d->kind == ARG_VEC ? d->n_vec : 1;
    if (!vector_length_fits(b, n)) return false;
    for (int32_t i = 0; i < n; i++) {
        const struct arg *a = d->kind == ARG_VEC ? &d->vec[i] : d;
        if (a->kind != ARG_REF || a->is_constant) return false;
        o->dst[o->n_dst++] = a->ref;
    }
    return true;
}

static bool build_st(struct build *b) {
    struct ptx_op *o = b->o;
    if (!set_class(b) || b->n_arg < 2 || !take_address(b, 0) || has_mod(b, "async")) return false;
    if (o->space == EMU_SPACE_PARAM && b->arg[0].symbol_space == EMU_SPACE_LOCAL)
        o->space = EMU_SPACE_LOCAL; /* a call's */
    o->run = st;
    const bool strong = has_mod(b, "release") || has_mod(b, "relaxed");
    o->mode = strong || has_mod(b, "volatile"); /* behind a fence it releases as well */
    o->immediate = strong ? EMU_STRONG_WRITE : EMU_WRITE;
    o->n = has_mod(b, "release") ? (int32_t)scope_of(b) : 0;
    const struct arg *s = &b->arg[1];
    const int32_t n = s->kind == ARG_VEC ? s->n_vec : 1;
    if (!vector_length_fits(b, n)) return false;
    for (int32_t i = 0; i < n; i++) {
        const struct arg *a = s->kind == ARG_VEC ? &s->vec[i] : s;
        if (a->kind != ARG_REF) return false;
        o->src[o->n_src++] = a->is_constant ? constant_ref(b->code, a->value, is_wide(o->type)) : a->ref;
    }
    return true;
}

/* ---- atomics ---- */

enum { A_ADD, A_MIN, A_MAX, A_AND, A_OR, A_XOR, A_EXCH, A_CAS, A_INC, A_DEC, N_ATOMIC };
static const char *const atomic_names[] = {"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"};

static uint64_t combined(const struct ptx_op *o, uint64_t old, uint64_t b, uint64_t c) {
    const enum ptx_type t = o->type;
    const bool is_signed = t == PTX_S32 || t == PTX_S64;
    const int64_t so = t == PTX_S32 ? (int32_t)old : (int64_t)old, sb = t == PTX_S32 ? (int32_t)b : (int64_t)b;
    switch (o->mode) {
    case A_ADD:
        if (t == PTX_F32) return f32_bits(as_f32((uint32_t)old) + as_f32((uint32_t)b));
        if (t == PTX_F64) return f64_bits(as_f64(old) + as_f64(b));
        return old + b;
    case A_MIN:
        return (is_signed ? so < sb : old < b) ? old : b;
    case A_MAX:
        return (is_signed ? so > sb : old > b) ? old : b;
    case A_AND:
        return old & b;
    case A_OR:
        return old | b;
    case A_XOR:
        return old ^ b;
    case A_EXCH:
        return b;
    case A_CAS:
        return old == b ? c : old;
    case A_INC:
        return old >= b ? 0 : old + 1;
    default:
        return old == 0 || old > b ? b : old - 1;
    }
}

/* Other processes may work on the same memory: one compare and swap. */
static uint64_t exchange(const struct ptx_op *o, void *at, uint64_t b, uint64_t c) {
    if (type_bytes(o->type) == 8) {
        uint64_t old = __atomic_load_n((uint64_t *)at, __ATOMIC_SEQ_CST);
        while (!__atomic_compare_exchange_n((uint64_t *)at, &old, combined(o, old, b, c), false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST))
            continue;
        return old;
    }
    uint32_t old = __atomic_load_n((uint32_t *)at, __ATOMIC_SEQ_CST);
    while (!__atomic_compare_exchange_n((uint32_t *)at, &old, (uint32_t)combined(o, old, (uint32_t)b, (uint32_t)c),
                                        false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        continue;
    return old;
}

enum { BLOCK_ALONE = 1, ACQUIRES = 2, RELEASES = 4 }; /* o->n */

/* A reduction takes part in a release sequence, but nobody reads what it found. */
static void order_atomic(const struct warp *w, const struct ptx_op *o, uint32_t lane) {
    const uint64_t at = op_address(w, o, lane);
    if ((o->n & BLOCK_ALONE) != 0 || !in_global(o, at)) return;
    if (o->n_dst > 0) emu_order_acquire(at, (o->n & ACQUIRES) != 0);
    emu_order_release(&w->thread[lane], at, (o->n & RELEASES) != 0);
}

static enum flow atom(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    w->yields = true;
    part_polls(w, o);
    EACH_LANE(l, mask) {
        void *at = emu_at(w, o, l, o->space, op_address(w, o, l), type_bytes(o->type), EMU_ATOMIC);
        if (at == NULL) continue;
        const uint64_t b = lane_value(w, &o->src[1], (int)l);
        const uint64_t old = exchange(o, at, b, o->n_src > 2 ? lane_value(w, &o->src[2], (int)l) : 0);
        order_atomic(w, o, l);
        if (o->n_dst > 0) set_lane(w, &o->dst[0], (int)l, old);
    }
    return FLOW_NEXT;
}

static bool build_atomic(struct build *b, bool returns) {
    struct ptx_op *o = b->o;
    o->mode = -1;
    for (int i = 0; i < N_ATOMIC; i++)
        if (has_mod(b, atomic_names[i])) o->mode = i;
    const bool wide = is_wide(o->type);
    if (o->mode < 0 || type_bytes(o->type) < 4 || o->type == PTX_F16X2 || o->type == PTX_BF16X2 ||
        has_mod(b, "async") || has_mod(b, "v2") || has_mod(b, "v4"))
        return false;
    if ((o->type == PTX_F32 || o->type == PTX_F64) && o->mode != A_ADD && o->mode != A_EXCH) return false;
    o->space = space_of(b);
    if (has_mod(b, "cta")) o->n |= BLOCK_ALONE;
    if (has_mod(b, "acquire") || has_mod(b, "acq_rel")) o->n |= ACQUIRES;
    if (has_mod(b, "release") || has_mod(b, "acq_rel")) o->n |= RELEASES;
    o->run = atom;
    const int32_t first = returns ? 1 : 0;
    return (!returns || take_dst(b, 0, wide)) && take_address(b, first) && take_src(b, first + 1, wide) &&
           (o->mode != A_CAS || take_src(b, first + 2, wide));
}
static bool build_atom(struct build *b) {
    return build_atomic(b, true);
}
static bool build_red(struct build *b) {
    return build_atomic(b, false);
}

/* ---- addresses ---- */

static enum flow cvta(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint64_t params = (uint64_t)(uintptr_t)w->run->launch->params;
    EACH_LANE(l, mask) {
        uint64_t a = lane_value(w, &o->src[0], (int)l);
        if (o->space == EMU_SPACE_SHARED) a = o->mode ? a & UINT32_MAX : a | EMU_SHARED_WINDOW;
        if (o->space == EMU_SPACE_LOCAL) a = o->mode ? a & UINT32_MAX : a | EMU_LOCAL_WINDOW;
        if (o->space == EMU_SPACE_PARAM) a = o->mode ? a - params : a + params;
        set_lane(w, &o->dst[0], (int)l, a);
    }
    return FLOW_NEXT;
}
static bool build_cvta_way(struct build *b, bool to) {
    b->o->space = space_of(b);
    b->o->mode = to;
    b->o->run = cvta;
    return b->o->space != EMU_SPACE_GENERIC && take_dst(b, 0, is_wide(b->o->type)) &&
           take_src(b, 1, is_wide(b->o->type));
}
static bool build_cvta(struct build *b) {
    return build_cvta_way(b, false);
}
static bool build_cvta_to(struct build *b) {
    return build_cvta_way(b, true);
}

static enum flow isspacep(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    uint32_t *d = D(uint32_t);
    EACH_LANE(l, mask) {
        const uint64_t window = lane_value(w, &o->src[0], (int)l) >> 56 << 56;
        d[l] = o->space == EMU_SPACE_SHARED  ? window == EMU_SHARED_WINDOW
               : o->space == EMU_SPACE_LOCAL ? window == EMU_LOCAL_WINDOW
                                             : window == 0;
    }
    return FLOW_NEXT;
}
static bool build_isspacep(struct build *b) {
    b->o->space = space_of(b);
    b->o->run = isspacep;
    return take_dst(b, 0, false) && take_src(b, 1, true);
}

/* ---- hints and fences: memory itself is always in order, and fences are for the checks ---- */

static enum flow nothing(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    (void)o;
    (void)mask;
    w->yields = true;
    return FLOW_NEXT;
}
static enum flow fence(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    if ((int32_t)w->fenced < o->n) w->fenced = (enum emu_scope)o->n;
    if (o->n >= (int32_t)EMU_SCOPE_GPU) emu_order_fence(&w->thread[__builtin_ctz(mask)], mask);
    return nothing(w, o, mask);
}
static enum flow fence_async(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    (void)o;
    proxy_fence(w, mask);
    return FLOW_NEXT;
}
static enum flow fence_init(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    (void)o;
    proxy_fence_init(w, mask);
    return FLOW_NEXT;
}
static bool build_fence(struct build *b) {
    b->o->run = has_mod(b, "proxy") ? fence_async : has_mod(b, "mbarrier_init") ? fence_init : fence;
    b->o->n = (int32_t)scope_of(b);
    return true;
}
static bool build_nothing(struct build *b) {
    b->o->run = nothing;
    return true;
}
DEFINE_1(zero_64, uint64_t, uint64_t, uint64_t, a & 0)
static bool build_createpolicy(struct build *b) {
    b->o->run = zero_64;
    b->o->src[b->o->n_src++] = constant_ref(b->code, 0, true);
    return take_dst(b, 0, true);
}

const struct opcode mem_opcodes[] = {
    {"ld",            build_ld,           EMU_CLASS_GLOBAL },
    {"ldu",           build_ld,           EMU_CLASS_GLOBAL },
    {"st",            build_st,           EMU_CLASS_GLOBAL },
    {"atom",          build_atom,         EMU_CLASS_ATOMIC },
    {"red",           build_red,          EMU_CLASS_ATOMIC },
    {"cvta",          build_cvta,         EMU_CLASS_ALU    },
    {"cvta.to",       build_cvta_to,      EMU_CLASS_ALU    },
    {"isspacep",      build_isspacep,     EMU_CLASS_ALU    },
    {"membar",        build_fence,        EMU_CLASS_BARRIER},
    {"fence",         build_fence,        EMU_CLASS_BARRIER},
    {"prefetch",      build_nothing,      EMU_CLASS_OTHER  },
    {"prefetchu",     build_nothing,      EMU_CLASS_OTHER  },
    {"discard",       build_nothing,      EMU_CLASS_OTHER  },
    {"applypriority", build_nothing,      EMU_CLASS_OTHER  },
    {"createpolicy",  build_createpolicy, EMU_CLASS_OTHER  },
    {NULL,            NULL,               0                },
};
