/* wgmma: PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions". Each of the four warps of a warpgroup computes
 * its own 16 rows when it waits itself: nothing here joins the four, so a stage of shared memory that is reused before
 * every warp has waited shows.
 *
 * While a product is under way its accumulator registers hold marks (NaN patterns), which may be moved between
 * registers but not computed with; results replace the marks wherever they are. Sums are made as in tensor.c.
 * Matrix descriptors: bits 0-13 address, 16-29 leading, 32-45 stride byte offset (each / 16), 49-51 base offset,
 * 62-63 swizzle (1: 128, 2: 64, 3: 32 bytes). Layouts: "Strides" and "Canonical Layouts" of the ISA. */
#include <stdlib.h>
#include <string.h>

#include "half.h"
#include "hopper.h"
#include "lanes.h"

enum { MAX_REG = 128, MAX_N = 256, MAX_K = 32, ROWS = 16, N_SLOT = 4096 };
#define MARK 0xFFA00000u /* | slot % N_SLOT * 128 | register */

struct sum {
    int32_t slot, n_reg, pending;
    uint32_t value[MAX_REG][32];
    struct sum *next;
};

struct product {
    const struct ptx_op *op;
    struct sum *sum;
    int32_t group;
    uint64_t a, b; /* descriptors */
    uint32_t a_reg[4][32];
    bool adds; /* scale-d */
};

struct wgmma { /* of a warp */
    struct product *of;
    int32_t n, cap, group, next_slot;
    struct sum *sum;
    bool fenced;
    int64_t issued; /* all warps of a group must issue the same */
    uint64_t which;
};

static struct wgmma *wgmma_of(struct warp *w) {
    if (w->wgmma == NULL && (w->wgmma = calloc(1, sizeof *w->wgmma)) == NULL) abort();
    return w->wgmma;
}

/* ---- matrices in shared memory ---- */

static int32_t span_of(uint64_t descriptor) {
    static const int32_t spans[] = {0, 128, 64, 32};
    return spans[descriptor >> 62];
}

/* Shared byte of the 16-byte piece that holds element (mn, k). */
static uint32_t piece_at(uint64_t d, int32_t mn, int32_t k, int32_t element_bytes, bool mn_major) {
    const uint32_t start = (uint32_t)(d & 0x3fff) << 4, leading = (uint32_t)(d >> 16 & 0x3fff) << 4,
                   stride = (uint32_t)(d >> 32 & 0x3fff) << 4;
    const int32_t span = span_of(d), per = 16 / element_bytes, wide = span > 0 ? span / 16 : 1;
    const uint32_t row = (uint32_t)(mn_major ? k : mn), col = (uint32_t)(mn_major ? mn : k) / (uint32_t)per;
    uint32_t at = start + row % 8 * (uint32_t)wide * 16;
    if (!mn_major)
        at += row / 8 * stride + col * (span > 0 ? 16 : leading);
    else if (span == 0)
        at += row / 8 * leading + col * stride;
    else
        at += row / 8 * stride + col / (uint32_t)wide * leading + col % (uint32_t)wide * 16;
    return swizzled(at, span);
}

static float value_of(const uint8_t *at, enum ptx_type t) {
    uint16_t h;
    memcpy(&h, at, sizeof h);
    return t == PTX_BF16 ? half_from_bf16(h) : half_from_f16(h);
}

struct matrix { /* rows mn0 .. mn0 + n_mn of a matrix of k columns */
    uint64_t descriptor;
    int32_t mn0, n_mn, k;
    enum ptx_type type;
    bool mn_major;
};

/* To out[k][mn], as floats or integers. */
static bool load_matrix(struct warp *w, const struct ptx_op *o, const struct matrix *m, float out[MAX_K][MAX_N]) {
    const struct emu_where where = where_lane(w, o, 0);
    const int32_t bytes = type_bytes(m->type), per = 16 / bytes;
    const int32_t n_outer = m->mn_major ? m->k : m->n_mn, n_inner = m->mn_major ? m->n_mn : m->k;
    for (int32_t i = 0; i < n_outer; i++)
        for (int32_t j = 0; j < n_inner; j += per) {
            const int32_t mn = m->mn0 + (m->mn_major ? j : i), k = m->mn_major ? i : j;
            const uint32_t at = piece_at(m->descriptor, mn, k, bytes, m->mn_major);
            if (!emu_check_shared(&where, EMU_ASYNC_READ, at, 16)) return false;
            const uint8_t *piece = w->block->shared + at;
            for (int32_t e = 0; e < per; e++) {
                float *to = m->mn_major ? &out[k][j + e] : &out[k + e][i];
                const uint8_t byte = piece[e];
                *to = m->type == PTX_S8   ? (float)(int8_t)byte
                      : m->type == PTX_U8 ? (float)byte
                                          : value_of(piece + e * bytes, m->type);
            }
        }
    return true;
}

/* ---- products: o->n columns, o->immediate = k, o->from and o->mode as built below ---- */

enum { A_IN_REGISTERS = 1, A_MN_MAJOR = 2, B_MN_MAJOR = 4, A_NEGATIVE = 8, B_NEGATIVE = 16 };

static void rows_from_registers(const struct product *p, enum ptx_type t, float a[MAX_K][MAX_N]) {
    const int32_t bytes = type_bytes(t), per = 4 / bytes;
    for (int32_t l = 0; l < 32; l++)
        for (int32_t i = 0; i < 4 * per;
             i++) { /* registers: rows g, g + 8, g, g + 8; columns, columns, + half, + half */
            const int32_t reg = i / per, k = l % 4 * per + i % per + reg / 2 * 4 * per;
            const uint32_t v = p->a_reg[reg][l] >> (8 * bytes * (i % per));
            const uint8_t raw[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
            a[k][l / 4 + 8 * (reg % 2)] = t == PTX_S8   ? (float)(int8_t)raw[0]
                                          : t == PTX_U8 ? (float)raw[0]
                                                        : value_of(raw, t);
        }
}

static void order_of_sums(struct warp *w, int32_t k, int32_t order[MAX_K]) {
    for (int32_t i = 0; i < k; i++) order[i] = i;
    if (!emu_options()->shuffle) return;
    for (int32_t i = k - 1; i > 0; i--) {
        const int32_t j = (int32_t)(emu_random(&w->run->random) % (uint64_t)(i + 1)), v = order[i];
        order[i] = order[j];
        order[j] = v;
    }
}

/* sum[row][col] += a b; integers are exact: 32 products of 8 bits fit a float. */
static void multiply(struct warp *w, int32_t n, int32_t k, float a[MAX_K][MAX_N], float b[MAX_K][MAX_N],
                     float sum[ROWS][MAX_N]) {
    int32_t order[MAX_K];
    order_of_sums(w, k, order);
    for (int32_t i = 0; i < k; i++) {
        const float *column = a[order[i]], *line = b[order[i]];
        for (int32_t row = 0; row < ROWS; row++)
            for (int32_t col = 0; col < n; col++) sum[row][col] += column[row] * line[col];
    }
}

static bool compute(struct warp *w, const struct product *p) {
    static float a[MAX_K][MAX_N], b[MAX_K][MAX_N], sum[ROWS][MAX_N];
    const struct ptx_op *o = p->op;
    const bool integer = o->type == PTX_S32;
    const int32_t k = (int32_t)o->immediate, n = o->n;
    const struct matrix am = {p->a, w->index % 4 * ROWS, ROWS, k, o->from, o->mode & A_MN_MAJOR};
    const struct matrix bm = {p->b, 0, n, k, o->b_type, o->mode & B_MN_MAJOR};
    if (o->mode & A_IN_REGISTERS)
        rows_from_registers(p, o->from, a);
    else if (!load_matrix(w, o, &am, a))
        return false;
    if (!load_matrix(w, o, &bm, b)) return false;
    const bool negative = ((o->mode & A_NEGATIVE) != 0) != ((o->mode & B_NEGATIVE) != 0);
    for (int32_t i = 0; negative && i < k; i++)
        for (int32_t row = 0; row < ROWS; row++) a[i][row] = -a[i][row];
    for (int32_t pass = 0; pass < 2; pass++) { /* registers to sums, sums to registers */
        for (int32_t l = 0; l < 32; l++)
            for (int32_t v = 0; v < n / 2; v++) {
                float *cell = &sum[l / 4 + 8 * (v >> 1 & 1)][8 * (v >> 2) + 2 * (l % 4) + (v & 1)];
                uint32_t *reg = &p->sum->value[v][l];
                if (pass == 0)
                    *cell = integer || !p->adds ? 0.0f : as_f32(*reg);
                else
                    *reg = !integer ? f32_bits(*cell) : (p->adds ? *reg : 0) + (uint32_t)(int32_t)*cell;
            }
        if (pass == 0) multiply(w, n, k, a, b, sum);
    }
    return true;
}

/* Marks of a finished sum become its values, wherever they were moved. */
static void write_back(struct warp *w, const struct sum *s) {
    const uint32_t first = MARK | (uint32_t)s->slot * MAX_REG, n_word = (uint32_t)w->run->code->n_word * 32;
    for (uint32_t i = 0; i < n_word; i++) {
        const uint32_t reg = w->reg[i] - first;
        if (reg < (uint32_t)s->n_reg) w->reg[i] = s->value[reg][i % 32];
    }
}

static void drop_sum(struct wgmma *g, struct sum *s) {
    struct sum **at = &g->sum;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    free(s);
}

/* Registers of A are read at any time until the wait: they must still hold what they held when it was issued. */
static bool fragment_is_kept(struct warp *w, const struct product *p) {
    for (int32_t i = 0; p->op->mode & A_IN_REGISTERS && i < 4; i++)
        for (uint32_t l = 0; l < 32; l++)
            if (lanes32(w, &p->op->src[i])[l] != p->a_reg[i][l])
                return (void)FATAL(w, p->op, l, "register %d of A was changed while the wgmma is under way", i), false;
    return true;
}

/* The products of all but the newest `keep` committed groups; keep < 0: of the open group too. */
static bool finish(struct warp *w, int32_t keep) {
    struct wgmma *g = w->wgmma;
    int32_t n = 0;
    while (n < g->n && (keep < 0 || g->of[n].group < g->group - keep)) {
        const struct product *p = &g->of[n++];
        if (!fragment_is_kept(w, p) || !compute(w, p)) return w->run->stop = true, false;
        if (--p->sum->pending > 0) continue;
        write_back(w, p->sum);
        drop_sum(g, p->sum);
    }
    g->n -= n;
    memmove(g->of, g->of + n, (size_t)g->n * sizeof *g->of);
    return true;
}

/* ---- issuing ---- */

static bool uniform(struct warp *w, const struct ptx_op *o, const struct ptx_ref *r, uint64_t *value) {
    *value = lane_value(w, r, 0);
    for (int l = 1; l < 32; l++)
        if (lane_value(w, r, l) != *value) {
            (void)FATAL(w, o, (uint32_t)l, "an operand of wgmma differs between the lanes of the warp");
            return false;
        }
    return true;
}

/* The sum that the registers are marks of, a new one, or NULL when they are neither. */
static struct sum *sum_for(struct warp *w, const struct ptx_op *o) {
    struct wgmma *g = wgmma_of(w);
    const uint32_t first = lanes32(w, &o->many[0])[0];
    for (struct sum *s = g->sum; s != NULL; s = s->next) {
        if (first != (MARK | (uint32_t)s->slot * MAX_REG)) continue;
        for (int32_t v = 0; v < o->n_many; v++)
            for (uint32_t l = 0; l < 32; l++)
                if (lanes32(w, &o->many[v])[l] != first + (uint32_t)v || o->n_many != s->n_reg) {
                    (void)FATAL(w, o, l, "accumulator %d was changed while a wgmma on it is under way", v);
                    return NULL;
                }
        return s;
    }
    if (!g->fenced) {
        (void)FATAL(w, o, 0, "wgmma without a wgmma.fence since its registers were last used");
        return NULL;
    }
    struct sum *s = calloc(1, sizeof *s);
    if (s == NULL) abort();
    *s = (struct sum){.slot = g->next_slot++ % N_SLOT, .n_reg = o->n_many, .next = g->sum};
    for (int32_t v = 0; v < o->n_many; v++) memcpy(s->value[v], lanes32(w, &o->many[v]), sizeof s->value[v]);
    return g->sum = s;
}

static void push(struct warp *w, const struct product *p) {
    struct wgmma *g = w->wgmma;
    if (g->n == g->cap) {
        g->cap = g->cap * 2 + 16;
        g->of = realloc(g->of, (size_t)g->cap * sizeof *g->of);
        if (g->of == NULL) abort();
    }
    g->of[g->n++] = *p;
}

static bool fenced_matrix(struct warp *w, const struct ptx_op *o, const struct matrix *m) {
    const int32_t per = 16 / type_bytes(m->type);
    const int32_t n_outer = m->mn_major ? m->k : m->n_mn, n_inner = m->mn_major ? m->n_mn : m->k;
    if ((m->descriptor >> 49 & 7) != 0) {
        (void)FATAL(w, o, 0, "matrix descriptors with a base offset are not emulated");
        return false;
    }
    for (int32_t i = 0; i < n_outer; i++)
        for (int32_t j = 0; j < n_inner; j += per) {
            const int32_t mn = m->mn0 + (m->mn_major ? j : i), k = m->mn_major ? i : j;
            if (!proxy_check(w, o, 0, piece_at(m->descriptor, mn, k, type_bytes(m->type), m->mn_major), 16))
                return w->run->stop = true, false;
        }
    return true;
}

/* Sources: A (descriptor, or 4 registers), descriptor of B, scale-d. */
static bool take_operands(struct warp *w, const struct ptx_op *o, struct product *p) {
    uint64_t adds = 0;
    const int32_t b = o->mode & A_IN_REGISTERS ? 4 : 1;
    if (o->mode & A_IN_REGISTERS)
        for (int32_t i = 0; i < 4; i++) memcpy(p->a_reg[i], lanes32(w, &o->src[i]), sizeof p->a_reg[i]);
    else if (!uniform(w, o, &o->src[0], &p->a))
        return false;
    if (!uniform(w, o, &o->src[b], &p->b) || !uniform(w, o, &o->src[b + 1], &adds)) return false;
    p->adds = adds != 0;
    const int32_t k = (int32_t)o->immediate;
    const struct matrix am = {p->a, w->index % 4 * ROWS, ROWS, k, o->from, o->mode & A_MN_MAJOR};
    const struct matrix bm = {p->b, 0, o->n, k, o->b_type, o->mode & B_MN_MAJOR};
    return (o->mode & A_IN_REGISTERS || fenced_matrix(w, o, &am)) && fenced_matrix(w, o, &bm);
}

static enum flow mma_async(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const enum flow ready = want_lanes(w, o, mask, UINT32_MAX);
    if (ready != FLOW_NEXT) return ready;
    if (mask != UINT32_MAX || w->index / 4 * 4 + 4 > w->block->n_warp)
        return FATAL(w, o, 0, "wgmma needs all 128 threads of its warpgroup");
    struct product p = {.op = o, .group = wgmma_of(w)->group};
    if (!take_operands(w, o, &p) || (p.sum = sum_for(w, o)) == NULL) return FLOW_STOP;
    for (int32_t v = 0; v < o->n_many; v++)
        for (uint32_t l = 0; l < 32; l++)
            to32(w, &o->many[v])[l] = MARK | (uint32_t)p.sum->slot * MAX_REG | (uint32_t)v;
    p.sum->pending++;
    push(w, &p);
    w->wgmma->issued++;
    w->wgmma->which = w->wgmma->which * 31 + (uint64_t)o->info.number;
    const int32_t timing = emu_options()->copies;
    const bool now = timing == EMU_EARLY || (timing == EMU_RANDOM && emu_random(&w->run->random) % 2);
    return now && !finish(w, -1) ? FLOW_STOP : FLOW_NEXT;
}

static enum flow fence(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const enum flow ready = want_lanes(w, o, mask, UINT32_MAX);
    if (ready == FLOW_NEXT) wgmma_of(w)->fenced = true;
    return ready;
}

static enum flow commit(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const enum flow ready = want_lanes(w, o, mask, UINT32_MAX);
    if (ready == FLOW_NEXT) wgmma_of(w)->group++;
    return ready;
}

static enum flow wait_group(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const enum flow ready = want_lanes(w, o, mask, UINT32_MAX);
    if (ready != FLOW_NEXT) return ready;
    wgmma_of(w)->fenced = false;
    return finish(w, (int32_t)o->immediate) ? FLOW_NEXT : FLOW_STOP;
}

static void check_end(struct run *r, const struct warp *w) {
    const struct wgmma *g = w->wgmma, *first = r->warp[w->index / 4 * 4].wgmma;
    const struct emu_where where = {.thread = w->thread, .block = &r->block, .instr = &r->code->op[0].info};
    if (g != NULL && g->n > 0) {
        const struct emu_where at = where_lane(w, g->of[0].op, 0);
        emu_report(&at, "the block ends while this wgmma is under way: nobody waited for it");
        r->stop = true;
    } else if ((g != NULL ? g->issued : 0) != (first != NULL ? first->issued : 0) ||
               (g != NULL ? g->which : 0) != (first != NULL ? first->which : 0)) {
        emu_report(&where, "the warps of warpgroup %d did not execute the same wgmma instructions: %lld and %lld",
                   w->index / 4, (long long)(g != NULL ? g->issued : 0),
                   (long long)(first != NULL ? first->issued : 0));
        r->stop = true;
    }
}

void wgmma_block_end(struct run *r) {
    for (int32_t i = 0; i < r->block.n_warp && !r->stop; i++) check_end(r, &r->warp[i]);
    for (int32_t i = 0; i < r->block.n_warp; i++) {
        struct wgmma *g = r->warp[i].wgmma;
        if (g == NULL) continue;
        while (g->sum != NULL) drop_sum(g, g->sum);
        free(g->of);
        free(g);
        r->warp[i].wgmma = NULL;
    }
}

/* ---- building ---- */

static bool build_wait(struct build *b) {
    b->o->run = wait_group;
    b->o->immediate = b->n_arg == 1 ? (int64_t)b->arg[0].value : -1;
    return b->n_arg == 1 && b->arg[0].is_constant;
}

/* Shape m64nNkK and types D.A.B: 16-bit floats to f32, bytes to s32. */
static bool read_shape(struct build *b) {
    struct ptx_op *o = b->o;
    int32_t at = 0;
    while (at < b->n_mod && strncmp(b->mod[at], "m64n", 4) != 0) at++;
    if (at + 3 >= b->n_mod || !has_mod(b, b->mod[at])) return false;
    char *k = NULL;
    o->n = (int32_t)strtol(b->mod[at] + 4, &k, 10);
    o->immediate = *k == 'k' ? strtol(k + 1, NULL, 10) : 0;
    o->type = type_named(b->mod[at + 1]);
    o->from = type_named(b->mod[at + 2]);
    o->b_type = type_named(b->mod[at + 3]);
    const bool halves = o->type == PTX_F32 && (o->from == PTX_BF16 || o->from == PTX_F16) && o->b_type == o->from;
    const bool bytes =
        o->type == PTX_S32 && (o->from == PTX_S8 || o->from == PTX_U8) && (o->b_type == PTX_S8 || o->b_type == PTX_U8);
    return o->n >= 8 && o->n <= MAX_N && o->n % 8 == 0 &&
           ((halves && o->immediate == 16) || (bytes && o->immediate == 32));
}

static bool take_many(struct build *b, const struct arg *a) {
    struct ptx_op *o = b->o;
    if (a->kind != ARG_VEC || a->n_vec != o->n / 2)
        return build_fail(b, "%d accumulators where %d are needed", a->n_vec, o->n / 2);
    o->many = calloc((size_t)a->n_vec, sizeof *o->many);
    if (o->many == NULL) abort();
    for (o->n_many = 0; o->n_many < a->n_vec; o->n_many++) {
        const struct arg *v = &a->vec[o->n_many];
        if (v->kind != ARG_REF || v->is_constant || v->ref.wide || v->ref.none) return false;
        o->many[o->n_many] = v->ref;
    }
    return true;
}

/* {d}, A, B, scale-d, scale-a, scale-b{, trans-a, trans-b}; A in registers has no trans-a; bytes have only scale-d. */
static bool build_mma(struct build *b) {
    struct ptx_op *o = b->o;
    o->run = mma_async;
    b->code->async_proxy = true;
    if (!read_shape(b) || b->n_arg < 4 || !take_many(b, &b->arg[0])) return false;
    const struct arg *a = &b->arg[1];
    if (a->kind == ARG_VEC) {
        o->mode |= A_IN_REGISTERS;
        if (a->n_vec != 4) return false;
        for (int32_t i = 0; i < 4; i++) {
            if (a->vec[i].kind != ARG_REF || a->vec[i].ref.wide || a->vec[i].is_constant) return false;
            o->src[o->n_src++] = a->vec[i].ref;
        }
    } else if (!take_src(b, 1, true)) {
        return false;
    }
    if (!take_src(b, 2, true) || !take_src(b, 3, false)) return false;
    if (o->type == PTX_S32) return b->n_arg == 4;
    const int32_t n_imm = a->kind == ARG_VEC ? 3 : 4;
    if (b->n_arg != 4 + n_imm) return false;
    for (int32_t i = 4; i < b->n_arg; i++)
        if (!b->arg[i].is_constant) return false;
    if ((int64_t)b->arg[4].value == -1) o->mode |= A_NEGATIVE;
    if ((int64_t)b->arg[5].value == -1) o->mode |= B_NEGATIVE;
    if (n_imm == 4 && b->arg[6].value != 0) o->mode |= A_MN_MAJOR;
    if (b->arg[b->n_arg - 1].value != 0) o->mode |= B_MN_MAJOR;
    return true;
}

static bool build_wgmma(struct build *b) {
    if (!has_mod(b, "sync") || !has_mod(b, "aligned")) return false;
    if (has_mod(b, "mma_async")) return build_mma(b);
    if (has_mod(b, "wait_group")) return build_wait(b);
    b->o->run = has_mod(b, "fence") ? fence : has_mod(b, "commit_group") ? commit : NULL;
    return b->o->run != NULL;
}

const struct opcode wgmma_opcodes[] = {
    {"wgmma", build_wgmma, EMU_CLASS_TENSOR},
    {NULL,    NULL,        0               },
};
