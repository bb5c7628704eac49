/* Inside of the interpreter: PTX text becomes an array of operations, and warps run them in step.
 *
 * A warp keeps each register as 32 lanes side by side (uint32_t[32]; 64-bit registers uint64_t[32], twice the room), so
 * an operation is one call that works on the lanes of a mask. Lanes that branch apart become parts with their own
 * program counters; the part that is furthest behind runs first, and parts that meet join again. An operation that
 * must wait (a barrier, a collective whose lanes are not all there) leaves its part blocked; a block in which nothing
 * can run is a deadlock and is reported. Warps run as far ahead as they can, in the order of the options: that is the
 * adversary for missing barriers. Blocks run one after the other.
 * Generic addresses: host pointers are global memory, EMU_SHARED_WINDOW + offset shared, EMU_LOCAL_WINDOW + offset
 * local. Lifetime: a module's operations until emu_module_free; run, block and warp inside emu_run.
 * Threading: one thread. Errors: building fails with a sentence (an unknown opcode is one); running reports. */
#pragma once
#include "emu.h"

enum ptx_type {
    PTX_NONE,
    PTX_B8,
    PTX_U8,
    PTX_S8,
    PTX_B16,
    PTX_U16,
    PTX_S16,
    PTX_F16,
    PTX_BF16,
    PTX_B32,
    PTX_U32,
    PTX_S32,
    PTX_F32,
    PTX_F16X2,
    PTX_BF16X2,
    PTX_B64,
    PTX_U64,
    PTX_S64,
    PTX_F64,
    PTX_B128,
    PTX_PRED,
};
enum emu_space {
    EMU_SPACE_GENERIC,
    EMU_SPACE_GLOBAL,
    EMU_SPACE_SHARED,
    EMU_SPACE_LOCAL,
    EMU_SPACE_CONST,
    EMU_SPACE_PARAM
};
#define EMU_SHARED_WINDOW ((uint64_t)0x10 << 56)
#define EMU_LOCAL_WINDOW  ((uint64_t)0x20 << 56)

struct warp;
struct ptx_op;
enum flow {
    FLOW_NONE = -1, /* never returned: the type is signed for every compiler */
    FLOW_NEXT,
    FLOW_JUMP /* parts were set by the operation */,
    FLOW_WAIT /* blocked, the pc stays */,
    FLOW_STOP
};
typedef enum flow run_fn(struct warp *w, const struct ptx_op *o, uint32_t mask);

/* A register, or a constant: 32 lanes of it at `at` words from the registers or from the kernel's constants. */
struct ptx_ref {
    int32_t at;
    bool constant, wide, none; /* none: the sink _ */
};

enum { PTX_MAX_DST = 8, PTX_MAX_SRC = 24, PTX_MAX_MODS = 16 };

struct ptx_op {
    struct emu_instr info;
    run_fn *run;
    struct ptx_ref dst[PTX_MAX_DST], src[PTX_MAX_SRC];
    int32_t n_dst, n_src;
    int32_t pred;           /* word of the guard, -1: none */
    bool pred_not, not_src; /* not_src: a predicate operand is negated */
    bool copies;            /* a register to a register: an undefined value is passed on, not used */
    bool ftz, sat;
    bool aligned;             /* of a barrier: all lanes of a warp come by the same instruction */
    enum ptx_type type, from; /* from: cvt's and set's source */
    enum ptx_type b_type;     /* of wgmma's B */
    int32_t mode;             /* what the operation wants: comparison, rounding, variant */
    int32_t n;                /* and a number of it: vector length, bytes, group count */
    enum emu_space space;
    int64_t offset; /* of an address; src[0] is its base unless none */
    int64_t immediate;
    struct ptx_ref *many; /* accumulators of wgmma, owned */
    int32_t n_many;
    int32_t target;   /* of a branch */
    int64_t executed; /* by lanes, in this launch */
};

struct ptx_code {
    struct emu_kernel kernel; /* first: emu_kernel * is ptx_code * */
    struct ptx_op *op;
    int32_t n_op;
    int32_t n_word;     /* registers of a warp in words of 32 lanes * 4 bytes */
    uint32_t *constant; /* [n_constant][32] */
    int32_t n_constant, cap_constant;
    int32_t dynamic_align;
    int32_t dynamic_at; /* of extern .shared, -1: none declared */
    bool async_proxy;   /* bulk copies or wgmma work on shared memory */
};

/* ---- special registers: words of the register file that are filled at the start of a block ---- */
enum {
    PTX_TID,
    PTX_NTID = PTX_TID + 3,
    PTX_CTAID = PTX_NTID + 3,
    PTX_NCTAID = PTX_CTAID + 3,
    PTX_LANEID = PTX_NCTAID + 3,
    PTX_WARPID,
    PTX_NWARPID,
    PTX_SMID,
    PTX_NSMID,
    PTX_GRIDID,
    PTX_LANEMASK_EQ,
    PTX_LANEMASK_LE,
    PTX_LANEMASK_LT,
    PTX_LANEMASK_GE,
    PTX_LANEMASK_GT,
    PTX_CLOCK,
    PTX_CLUSTER_ZERO /* cluster ids of a launch without clusters */,
    PTX_CLUSTER_ONE,
    PTX_DYNAMIC_SMEM,
    PTX_TOTAL_SMEM,
    PTX_CC /* carry flags */,
    PTX_GLOBALTIMER = (PTX_CC + 2) / 2 * 2 /* 64 bits */,
    PTX_N_SPECIAL = PTX_GLOBALTIMER + 2
};

/* ---- running ---- */

enum part_state { PART_READY, PART_AT_BARRIER, PART_WANTS_LANES, PART_SPINS };
struct part {
    uint32_t mask;
    int32_t pc;
    enum part_state state;
    int32_t barrier, polls; /* polls: of `waiting`, in a row */
    bool polls_memory;
    const struct ptx_op *waiting;
};

struct copy { /* of one lane, cp.async; performed when it must have landed */
    uint64_t from;
    uint32_t to;
    int32_t bytes, valid;
    int32_t group;
    bool arrives; /* no copy but an arrival on the mbarrier at `to`, after the copies before it */
    const struct ptx_op *op;
};
struct copies {
    struct copy *of;
    int32_t n, cap, group; /* group: number of the open one */
};

struct run;
struct warp {
    struct run *run;
    struct emu_block *block;
    struct emu_thread *thread; /* [32] of this warp */
    uint32_t *reg, *written;   /* written: the lanes of each, in this block (registers.c); NULL: not watched */
    const uint32_t *constant;
    uint8_t *local;     /* [32][local_bytes] */
    uint8_t *local_set; /* likewise: 1 for bytes that the block's threads have written */
    uint32_t live;      /* lanes that have not exited */
    int32_t index;
    struct part part[32];
    int32_t n_part, current; /* the part that runs */
    struct copies copies[32];
    uint32_t left;         /* by part_leaves, in the running operation */
    bool yields;           /* the running operation looked at what others may change: let them run */
    struct wgmma *wgmma;   /* wgmma.c */
    enum emu_scope fenced; /* the widest fence so far in this block */
};

struct barrier {
    int32_t arrived, expected;
    uint32_t waiting; // warps
    uint32_t red_or, red_and;
    int32_t red_count;
};

struct run { /* of one block */
    const struct emu_launch *launch;
    const struct ptx_code *code;
    struct emu_block block;
    struct emu_thread *thread;
    struct warp *warp;
    struct barrier barrier[16];
    bool stop;     /* something fatal was reported */
    bool waited;   /* a thread of the grid came to griddepcontrol.wait */
    bool progress; /* since the spinners were last woken */
    int32_t naps;  /* since then, waiting for memory that another process may write */
    uint64_t random;
    int64_t executed, budget, reports; /* operations, their limit; reports before this block */
    struct bulk *bulk;                 /* bulk.c */
};

static inline const uint32_t *lanes32(const struct warp *w, const struct ptx_ref *r) {
    return (r->constant ? w->constant : w->reg) + r->at * 32;
}
static inline const uint64_t *lanes64(const struct warp *w, const struct ptx_ref *r) {
    return (const uint64_t *)lanes32(w, r);
}
static inline uint32_t *to32(const struct warp *w, const struct ptx_ref *r) {
    return w->reg + r->at * 32;
}
static inline uint64_t *to64(const struct warp *w, const struct ptx_ref *r) {
    return (uint64_t *)(w->reg + r->at * 32);
}
/* A lane's value whatever its width. */
static inline uint64_t lane_value(const struct warp *w, const struct ptx_ref *r, int lane) {
    return r->wide ? lanes64(w, r)[lane] : lanes32(w, r)[lane];
}
static inline void set_lane(const struct warp *w, const struct ptx_ref *r, int lane, uint64_t v) {
    if (r->none) return;
    if (r->wide)
        to64(w, r)[lane] = v;
    else
        to32(w, r)[lane] = (uint32_t)v;
}

/* for each lane of the mask */
#define EACH_LANE(lane, mask)                                                                                          \
    for (uint32_t rest_ = (mask), lane = 0; rest_ && (lane = (uint32_t)__builtin_ctz(rest_), 1); rest_ &= rest_ - 1)

static inline struct emu_where where_lane(const struct warp *w, const struct ptx_op *o, uint32_t lane) {
    return (struct emu_where){.thread = &w->thread[lane], .block = w->block, .instr = &o->info};
}
static inline struct emu_where where_warp(const struct warp *w, const struct ptx_op *o) {
    return (struct emu_where){.block = w->block, .instr = &o->info};
}
/* Reports and ends the block. */
#define FATAL(w, o, lane, ...)                                                                                         \
    ({                                                                                                                 \
        const struct emu_where at_ = where_lane((w), (o), (lane));                                                     \
        emu_report(&at_, __VA_ARGS__);                                                                                 \
        (w)->run->stop = true;                                                                                         \
        FLOW_STOP;                                                                                                     \
    })

uint64_t emu_random(uint64_t *state);
/* Waits until all lanes of `wanted` that live are in the running part: FLOW_NEXT when they are. */
enum flow want_lanes(struct warp *w, const struct ptx_op *o, uint32_t mask, uint32_t wanted);
/* The same of all 32 lanes, none of which may have left. */
enum flow want_warp(struct warp *w, const struct ptx_op *o, uint32_t mask);
/* These lanes of the running part stay at its operation while the others of it do theirs. */
void part_leaves(struct warp *w, uint32_t lanes);
/* A part that polls: others run before it does again. */
void part_spins(struct warp *w, const struct ptx_op *o);
/* A load or an atomic that may be in such a loop: after many in a row it is taken for one. */
void part_polls(struct warp *w, const struct ptx_op *o);
enum flow barrier_arrive(struct warp *w, const struct ptx_op *o, uint32_t mask, int32_t id, int32_t expected,
                         bool wait);
void lanes_exit(struct warp *w, uint32_t mask);

/* ---- memory (exec_mem.c) ---- */
/* Host address of `bytes` at an address of a space for one lane, checked and reported; NULL: the access is not made. */
void *emu_at(struct warp *w, const struct ptx_op *o, uint32_t lane, enum emu_space space, uint64_t address,
             int32_t bytes, enum emu_access access);
uint64_t op_address(const struct warp *w, const struct ptx_op *o, uint32_t lane);

/* ---- registers that were never written (registers.c) ---- */
void registers_begin(struct warp *w);
/* False: a lane of the guard, or of a source, was never written; reported. */
bool registers_guard(struct warp *w, const struct ptx_op *o, uint32_t mask);
bool registers_read(struct warp *w, const struct ptx_op *o, uint32_t mask);
void registers_wrote(struct warp *w, const struct ptx_op *o, uint32_t mask);

/* ---- async copies (async.c) ---- */
void copies_finish(struct warp *w, uint32_t lane, int32_t keep_groups);
/* Reported and false: the lane touches the destination, or overwrites the source, of a copy that it has not waited for.
 */
bool copies_allow(struct warp *w, const struct ptx_op *o, uint32_t lane, bool shared, uint64_t at, int32_t bytes,
                  bool writes);
void copies_some(struct warp *w); /* random timing: perhaps one */
void copies_release(struct warp *w);
bool copies_progress(struct run *r); /* lands what an mbarrier may wait for: false when there is none */

/* ---- building (ptx_build.c) ---- */

enum arg_kind { ARG_REF, ARG_VEC, ARG_ADDRESS, ARG_NAME, ARG_NONE };
struct arg {
    enum arg_kind kind;
    struct ptx_ref ref;  /* ARG_REF; base of ARG_ADDRESS (none: absolute) */
    struct ptx_ref pair; /* the q of p|q */
    bool has_pair, negated, is_constant;
    uint64_t value;    /* of a constant */
    int64_t offset;    /* of an address */
    bool symbol_param; /* address of a kernel parameter */
    enum emu_space symbol_space;
    char name[160];
    struct arg *vec;
    int32_t n_vec;
};

struct build {
    struct ptx_op *o;
    struct ptx_code *code;
    const char *mod[PTX_MAX_MODS];
    int32_t n_mod;
    uint32_t *known; /* bits of the modifiers that has_mod asked for */
    struct arg arg[24];
    int32_t n_arg, n_taken;
    char *error;
    size_t n_error;
};
bool build_fail(struct build *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool has_mod(const struct build *b, const char *name);
/* The type a modifier names, PTX_NONE otherwise. */
enum ptx_type type_named(const char *mod);
int32_t type_bytes(enum ptx_type type);
static inline bool is_wide(enum ptx_type t) {
    return t >= PTX_B64 && t <= PTX_F64;
}
/* Operand i as a source or destination of this width (constants take any). */
bool take_src(struct build *b, int32_t i, bool wide);
bool take_dst(struct build *b, int32_t i, bool wide);
bool take_any_src(struct build *b, int32_t i); /* of its own width */
bool take_address(struct build *b, int32_t i); /* becomes the next source (base) and o->offset, o->space */
struct ptx_ref constant_ref(struct ptx_code *code, uint64_t value, bool wide);

/* Rows of the opcode tables: root name; sets o->run and takes the operands. */
struct opcode {
    const char *name;
    bool (*build)(struct build *b);
    enum emu_class class;
};
extern const struct opcode alu_opcodes[], float_opcodes[], cvt_opcodes[], mem_opcodes[], flow_opcodes[], warp_opcodes[],
    tensor_opcodes[], async_opcodes[], mbarrier_opcodes[], bulk_opcodes[], wgmma_opcodes[];
bool build_op(struct build *b, char *opcode);
