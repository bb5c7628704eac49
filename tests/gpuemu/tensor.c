/* mma.sync, ldmatrix and stmatrix: PTX ISA, "Matrix Fragments for mma.m16n8k*", "ldmatrix", "stmatrix".
 * Products are exact; they are added to the accumulator in f32, k ascending, or with option shuffle in a random order,
 * since hardware promises none. Fragment elements of lane l, g = l / 4, t = l % 4:
 *   A (16 bit) element i: row g + 8 (i / 2 % 2), column 2t + i % 2 + 8 (i / 4)   B element i: k 2t + i % 2 + 8 (i / 2),
 * n g A (8 bit) element i: row g + 8 (i / 4 % 2), column 4t + i % 4 + 16 (i / 8)   B element i: k 4t + i % 4 + 16 (i /
 * 4), n g C element i: row g + 8 (i / 2), column 2t + i % 2 */
#include <string.h>

#include "half.h"
#include "lanes.h"

enum { M = 16, N = 8, MAX_K = 32 };

struct tiles {
    float a[M][MAX_K], b[MAX_K][N];
    int32_t ia[M][MAX_K], ib[MAX_K][N];
};

static uint32_t part_of(const struct warp *w, const struct ptx_ref *r, uint32_t lane) {
    return lanes32(w, r)[lane];
}

/* Elements 2 i and 2 i + 1 of a lane. */
static void two_halves(uint32_t word, bool bf16, float *first, float *second) {
    *first = bf16 ? as_f32(word << 16) : half_from_f16((uint16_t)word);
    *second = bf16 ? as_f32(word & 0xffff0000u) : half_from_f16((uint16_t)(word >> 16));
}

static void gather_halves(const struct warp *w, const struct ptx_op *o, int32_t k, struct tiles *t) {
    const bool bf16 = o->from == PTX_BF16;
    const int32_t n_a = k / 4, n_b = k / 8; /* registers */
    for (int32_t i = 0; i < n_a; i++) {
        const uint32_t *reg = lanes32(w, &o->src[i]);
        for (int32_t l = 0; l < 32; l++) {
            float *to = &t->a[l / 4 + 8 * (i % 2)][2 * (l % 4) + 8 * (i / 2)];
            two_halves(reg[l], bf16, &to[0], &to[1]);
        }
    }
    for (int32_t i = 0; i < n_b; i++) {
        const uint32_t *reg = lanes32(w, &o->src[n_a + i]);
        for (int32_t l = 0; l < 32; l++) {
            const int32_t at = 2 * (l % 4) + 8 * i;
            two_halves(reg[l], bf16, &t->b[at][l / 4], &t->b[at + 1][l / 4]);
        }
    }
}

static int32_t byte_element(uint32_t word, int32_t i, bool is_signed) {
    const uint8_t v = (uint8_t)(word >> (8 * (i & 3)));
    return is_signed ? (int8_t)v : v;
}

static void gather_bytes(const struct warp *w, const struct ptx_op *o, int32_t k, struct tiles *t) {
    const bool signed_a = o->mode & 1, signed_b = o->mode & 2;
    const int32_t n_a = k / 2, n_b = k / 4;
    for (uint32_t l = 0; l < 32; l++) {
        const int32_t g = (int32_t)l / 4, q = (int32_t)l % 4;
        for (int32_t i = 0; i < n_a; i++)
            t->ia[g + 8 * (i / 4 % 2)][4 * q + i % 4 + 16 * (i / 8)] =
                byte_element(part_of(w, &o->src[i / 4], l), i, signed_a);
        for (int32_t i = 0; i < n_b; i++)
            t->ib[4 * q + i % 4 + 16 * (i / 4)][g] = byte_element(part_of(w, &o->src[n_a / 4 + i / 4], l), i, signed_b);
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

/* Columns side by side, so that the sums of a row are made at once; each in the order of k. */
static void multiply_floats(const struct tiles *t, int32_t k, const int32_t order[MAX_K], float sum[M][N]) {
    for (int32_t row = 0; row < M; row++) {
        float s[N];
        memcpy(s, sum[row], sizeof s);
        for (int32_t i = 0; i < k; i++) {
            const float a = t->a[row][order[i]], *line = t->b[order[i]];
            for (int32_t col = 0; col < N; col++) s[col] += a * line[col];
        }
        memcpy(sum[row], s, sizeof s);
    }
}
static void multiply_integers(const struct tiles *t, int32_t k, uint32_t sum[M][N]) {
    for (int32_t row = 0; row < M; row++)
        for (int32_t i = 0; i < k; i++)
            for (int32_t col = 0; col < N; col++) sum[row][col] += (uint32_t)(t->ia[row][i] * t->ib[i][col]);
}

static enum flow mma(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const enum flow ready = want_warp(w, o, mask);
    if (ready != FLOW_NEXT) return ready;
    const int32_t k = o->n;
    const struct ptx_ref *c = &o->src[o->n_src - o->n_dst];
    struct tiles t;
    int32_t order[MAX_K];
    union {
        float real[M][N];
        uint32_t integer[M][N];
    } sum;
    for (int32_t i = 0; i < 4; i++) {
        const uint32_t *reg = lanes32(w, &c[i]);
        for (int32_t l = 0; l < 32; l++) sum.integer[l / 4 + 8 * (i / 2)][2 * (l % 4) + i % 2] = reg[l];
    }
    if (o->type == PTX_S32) {
        gather_bytes(w, o, k, &t);
        multiply_integers(&t, k, sum.integer);
    } else {
        gather_halves(w, o, k, &t);
        order_of_sums(w, k, order);
        multiply_floats(&t, k, order, sum.real);
    }
    for (int32_t i = 0; i < 4; i++) {
        uint32_t *reg = to32(w, &o->dst[i]);
        for (int32_t l = 0; l < 32; l++) reg[l] = sum.integer[l / 4 + 8 * (i / 2)][2 * (l % 4) + i % 2];
    }
    return FLOW_NEXT;
}

static bool take_vector(struct build *b, int32_t i, int32_t n, bool as_dst) {
    struct ptx_op *o = b->o;
    const struct arg *a = &b->arg[i];
    if (i >= b->n_arg || a->kind != ARG_VEC || a->n_vec != n)
        return build_fail(b, "operand %d must have %d registers", i, n);
    for (int32_t j = 0; j < n; j++) {
        const struct arg *v = &a->vec[j];
        if (v->kind != ARG_REF || v->ref.wide || (as_dst && v->is_constant))
            return build_fail(b, "operand %d has a wrong part", i);
        if (as_dst)
            o->dst[o->n_dst++] = v->ref;
        else
            o->src[o->n_src++] = v->is_constant ? constant_ref(b->code, v->value, false) : v->ref;
    }
    return true;
}

/* mma.sync.aligned.SHAPE.row.col.D.A.B.C */
static bool build_mma(struct build *b) {
    struct ptx_op *o = b->o;
    o->run = mma;
    o->n = has_mod(b, "m16n8k8") ? 8 : has_mod(b, "m16n8k16") ? 16 : has_mod(b, "m16n8k32") ? 32 : 0;
    if (o->n == 0 || !has_mod(b, "sync") || !has_mod(b, "row") || !has_mod(b, "col") || b->n_mod < 8) return false;
    const char *a_type = b->mod[b->n_mod - 3], *b_type = b->mod[b->n_mod - 2];
    const bool halves = o->type == PTX_F32 && (o->from == PTX_BF16 || o->from == PTX_F16) && o->n < 32;
    const bool bytes = o->type == PTX_S32 && o->n >= 16 && (strcmp(a_type, "s8") == 0 || strcmp(a_type, "u8") == 0);
    if (!halves && !bytes) return false;
    o->mode = (a_type[0] == 's' ? 1 : 0) | (b_type[0] == 's' ? 2 : 0);
    const int32_t n_a = halves ? o->n / 4 : o->n / 8, n_b = n_a / 2;
    return take_vector(b, 0, 4, true) && take_vector(b, 1, n_a, false) && take_vector(b, 2, n_b, false) &&
           take_vector(b, 3, 4, false);
}

/* ---- matrices between shared memory and fragments ---- */

static void count(struct warp *w, const struct ptx_op *o, const uint32_t at[32], int32_t n_row, bool write) {
    if (emu_options()->count == NULL) return;
    const struct emu_where where = where_warp(w, o);
    uint64_t address[32] = {0};
    for (int32_t i = 0; i < n_row; i++) address[i] = at[i];
    emu_count_access(&where, true, write, n_row == 32 ? UINT32_MAX : (1u << n_row) - 1, address, 16);
}

static enum flow matrices(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const enum flow ready = want_warp(w, o, mask);
    if (ready != FLOW_NEXT) return ready;
    const int32_t n_matrix = o->n;
    const bool store = o->mode & 2, trans = o->mode & 1;
    uint32_t at[32];
    uint16_t *row[32];
    for (uint32_t l = 0; l < (uint32_t)n_matrix * 8; l++) {
        const uint64_t address = op_address(w, o, l);
        at[l] = (uint32_t)address;
        row[l] = emu_at(w, o, l, EMU_SPACE_SHARED, at[l], 16, store ? EMU_WRITE : EMU_READ);
        if (row[l] == NULL) return w->run->stop = true, FLOW_STOP;
    }
    count(w, o, at, n_matrix * 8, store);
    for (int32_t q = 0; q < n_matrix; q++)
        for (uint32_t l = 0; l < 32; l++) {
            const uint32_t g = l / 4, t = 2 * (l % 4);
            uint16_t *e0 = trans ? &row[8 * q + (int32_t)t][g] : &row[8 * q + (int32_t)g][t];
            uint16_t *e1 = trans ? &row[8 * q + (int32_t)t + 1][g] : &row[8 * q + (int32_t)g][t + 1];
            if (store) {
                const uint32_t v = part_of(w, &o->src[1 + q], l);
                *e0 = (uint16_t)v;
                *e1 = (uint16_t)(v >> 16);
            } else {
                to32(w, &o->dst[q])[l] = (uint32_t)*e1 << 16 | *e0;
            }
        }
    return FLOW_NEXT;
}

static bool build_matrices(struct build *b, bool store) {
    struct ptx_op *o = b->o;
    o->run = matrices;
    o->n = has_mod(b, "x1") ? 1 : has_mod(b, "x2") ? 2 : has_mod(b, "x4") ? 4 : 0;
    o->mode = (has_mod(b, "trans") ? 1 : 0) | (store ? 2 : 0);
    if (o->n == 0 || !has_mod(b, "m8n8") || !has_mod(b, "b16") || !has_mod(b, "sync")) return false;
    return store ? take_address(b, 0) && take_vector(b, 1, o->n, false)
                 : take_vector(b, 0, o->n, true) && take_address(b, 1);
}
static bool build_ldmatrix(struct build *b) {
    return build_matrices(b, false);
}
static bool build_stmatrix(struct build *b) {
    return build_matrices(b, true);
}

const struct opcode tensor_opcodes[] = {
    {"mma",      build_mma,      EMU_CLASS_TENSOR},
    {"ldmatrix", build_ldmatrix, EMU_CLASS_SHARED},
    {"stmatrix", build_stmatrix, EMU_CLASS_SHARED},
    {NULL,       NULL,           0               },
};
