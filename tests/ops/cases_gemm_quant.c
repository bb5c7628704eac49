/* Cases of the gemm op with INT4 and INT8 weights: what packing promises, all epilogues on odd shapes, sums of several
 * blocks, special values, and the bitwise promises. */
#include "test_ops.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* A row per format. */
static const struct {
    enum nt_weight_format format;
    int32_t most; /* the largest q */
    double slack; /* of the largest value, in scales, where the scale was rounded down */
} formats[] = {
    {NT_WEIGHT_INT4, 7,   0.04},
    {NT_WEIGHT_INT8, 127, 0.51},
};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

struct problem {
    struct nt_gemm_args args;
    struct nt_packed w;
    nt_bf16 *x, *values; // [n_tok, ldx], [n, k] in packed row order
    double *weights;     // [n, k], as they were packed
    double *products;    // [n, k], what x is multiplied with: CPUs round the weights to bf16
    bool rounded;
    void *packed;
    float *bias;
    void *y0, *y; // [n_tok, ldy]: before, and of the last run
    size_t y_bytes;
};

static bool is_f32(enum nt_gemm_out out) {
    return out == NT_GEMM_STORE_F32 || out == NT_GEMM_ADD_F32;
}
static bool is_gated(enum nt_gemm_out out) {
    return out == NT_GEMM_SWIGLU_BF16 || out == NT_GEMM_GEGLU_BF16;
}
static int32_t n_columns(const struct problem *p) {
    return is_gated(p->args.out) ? p->w.n / 2 : p->w.n;
}

static void pack(struct problem *p) {
    for (int32_t r = 0; r < p->w.n; r++) nt_pack_row(&p->w, p->packed, r, p->values + (int64_t)r * p->w.k);
    p->w.data = p->packed;
    for (int32_t panel = 0; panel * NT_PANEL < p->w.n; panel++) {
        for (int32_t group = 0; group * NT_INT4_GROUP < p->w.k; group++) {
            int8_t q[NT_INT4_GROUP][NT_PANEL];
            float scale[NT_PANEL];
            nt_unpack_block(&p->w, panel, group, q, scale);
            for (int32_t i = 0; i < NT_PANEL && panel * NT_PANEL + i < p->w.n; i++)
                for (int32_t k = 0; k < NT_INT4_GROUP && group * NT_INT4_GROUP + k < p->w.k; k++)
                    p->weights[(int64_t)(panel * NT_PANEL + i) * p->w.k + group * NT_INT4_GROUP + k] =
                        (double)scale[i] * q[k][i];
        }
    }
    for (int64_t i = 0; i < (int64_t)p->w.n * p->w.k; i++)
        p->products[i] = p->rounded ? (double)nt_bf16_to_f32(nt_f32_to_bf16((float)p->weights[i])) : p->weights[i];
}

static struct problem make(const struct op_env *env, int format, uint64_t seed, int32_t n_tok, int32_t n, int32_t k,
                           enum nt_gemm_out out, bool bias) {
    struct problem p = {
        .w = {.format = formats[format].format, .n = n, .k = k},
          .rounded = !env->cuda
    };
    /* half of the problems have rows at multiples of 16 bytes */
    const int32_t pad_x = op_random_int(&seed, 0, 1) ? (8 - k % 8) % 8 : op_random_int(&seed, 0, 3) * 2;
    const int32_t pad_y = op_random_int(&seed, 0, 9);
    p.args = (struct nt_gemm_args){.ldx = k + pad_x, .n_tok = n_tok, .out = out};
    p.args.ldy = (is_gated(out) ? n / 2 : n) + pad_y;
    p.x = op_alloc((size_t)(n_tok * p.args.ldx) * sizeof(nt_bf16));
    p.values = op_alloc((size_t)n * (size_t)k * sizeof(nt_bf16));
    p.weights = op_alloc((size_t)n * (size_t)k * sizeof(double));
    p.products = op_alloc((size_t)n * (size_t)k * sizeof(double));
    p.packed = op_alloc(nt_packed_bytes(p.w.format, n, k));
    p.bias = op_alloc((size_t)n * sizeof(float));
    p.y_bytes = (size_t)(n_tok * p.args.ldy) * (is_f32(out) ? sizeof(float) : sizeof(nt_bf16));
    p.y0 = op_alloc(p.y_bytes);
    p.y = op_alloc(p.y_bytes);
    op_random_bf16(&seed, p.x, n_tok * p.args.ldx, 1.0f);
    op_random_bf16(&seed, p.values, (int64_t)n * k, 1.5f / sqrtf((float)k));
    op_random_f32(&seed, p.bias, n, 0.5f);
    if (is_f32(out))
        op_random_f32(&seed, p.y0, n_tok * p.args.ldy, 1.0f);
    else
        op_random_bf16(&seed, p.y0, n_tok * p.args.ldy, 1.0f);
    pack(&p);
    if (bias) p.args.bias = p.bias;
    return p;
}

static void drop(struct problem *p) {
    free(p->x);
    free(p->values);
    free(p->weights);
    free(p->products);
    free(p->packed);
    free(p->bias);
    free(p->y0);
    free(p->y);
}

static nt_status call(struct nt_backend *be, void *ctx) {
    struct problem *p = ctx;
    struct nt_gemm_args a = p->args;
    a.x = p->x;
    a.w = &p->w;
    a.y = p->y;
    return be->ops.gemm(be, &a);
}

static void run(struct nt_backend *be, struct problem *p) {
    memcpy(p->y, p->y0, p->y_bytes);
    NT_CHECK(call(be, p) == NT_OK);
}

static double dot(const struct problem *p, int32_t t, int32_t row) {
    double sum = 0;
    for (int32_t i = 0; i < p->w.k; i++)
        sum += (double)nt_bf16_to_f32(p->x[t * p->args.ldx + i]) * p->products[(int64_t)row * p->w.k + i];
    return p->args.bias ? sum + (double)p->bias[row] : sum;
}

static double reference(const struct problem *p, int32_t t, int32_t j) {
    if (!is_gated(p->args.out)) {
        const double sum = dot(p, t, j);
        return p->args.out == NT_GEMM_ADD_F32 ? (double)((float *)p->y0)[t * p->args.ldy + j] + sum : sum;
    }
    const double gate = dot(p, t, nt_packed_gate_row(j)), up = dot(p, t, nt_packed_up_row(j));
    if (p->args.out == NT_GEMM_SWIGLU_BF16) return gate / (1 + exp(-gate)) * up;
    const double u = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate);
    return 0.5 * gate * (1 + tanh(u)) * up;
}

/* The columns of every row against the reference, those after them against what was there. */
static void compare_all(struct op_env *env, const struct problem *p) {
    const int32_t n = n_columns(p);
    char what[128];
    snprintf(what, sizeof what, "format %d n_tok %d n %d k %d ldx %d out %d bias %d", (int)p->w.format, p->args.n_tok,
             p->w.n, p->w.k, (int)p->args.ldx, (int)p->args.out, p->args.bias != NULL);
    double *want = op_alloc((size_t)p->args.n_tok * (size_t)n * sizeof *want);
    char *got = op_alloc((size_t)p->args.n_tok * (size_t)n * sizeof(float));
    const size_t elem = is_f32(p->args.out) ? sizeof(float) : sizeof(nt_bf16), used = (size_t)n * elem;
    for (int32_t t = 0; t < p->args.n_tok; t++) {
        for (int32_t j = 0; j < n; j++) want[(int64_t)t * n + j] = reference(p, t, j);
        const size_t row = (size_t)(t * p->args.ldy) * elem;
        memcpy(got + (size_t)t * used, (char *)p->y + row, used);
        const size_t pad = (size_t)p->args.ldy * elem - used;
        if (memcmp((char *)p->y + row + used, (char *)p->y0 + row + used, pad) != 0)
            op_fail(env, "%s: columns after the last were written in row %d", what, t);
    }
    const int64_t count = (int64_t)p->args.n_tok * n;
    if (is_f32(p->args.out))
        op_compare_f32(env, what, want, (float *)got, count);
    else
        op_compare_bf16(env, what, want, (nt_bf16 *)got, count);
    free(want);
    free(got);
}

static void check_problem(struct op_env *env, struct problem *p) {
    run(&env->be[0], p);
    compare_all(env, p);
    void *one = op_alloc(p->y_bytes);
    memcpy(one, p->y, p->y_bytes);
    run(&env->be[1], p);
    op_compare_bytes(env, "two threads against one", one, p->y, p->y_bytes);
    free(one);
}

/* One row of one group against its own arithmetic: the nearest multiple of the scale, the scale from the largest. */
static void check_group(struct op_env *env, const struct problem *p, int format, int32_t row, int32_t first) {
    const int32_t largest = formats[format].most;
    const int32_t count = p->w.k - first < NT_INT4_GROUP ? p->w.k - first : NT_INT4_GROUP;
    const nt_bf16 *values = p->values + (int64_t)row * p->w.k + first;
    const double *weights = p->weights + (int64_t)row * p->w.k + first;
    float most = 0;
    for (int32_t i = 0; i < count; i++) most = fmaxf(most, fabsf(nt_bf16_to_f32(values[i])));
    const double scale = (double)nt_bf16_to_f32(nt_f32_to_bf16(most / (float)largest));
    for (int32_t i = 0; i < count; i++) {
        const double v = (double)nt_bf16_to_f32(values[i]), q = scale > 0 ? weights[i] / scale : 0;
        const double error = fabs(v - weights[i]), limit = 0.5 * scale * (1 + 1e-6);
        const bool beyond =
            fabs(q) == largest && fabs(v) > largest * scale && fabs(v) < (largest + formats[format].slack) * scale;
        const bool right = q == rint(q) && fabs(q) <= largest && (error <= limit || beyond);
        if (!right) op_fail(env, "row %d k %d: %g packed as %g, scale %g", row, first + i, v, weights[i], scale);
    }
}

/* Packing: every weight comes back from where it was put, as its nearest multiple; a second time changes nothing. */
static void pack_format(struct op_env *env, int format) {
    static const int32_t shapes[][2] = {
        {1,  2  },
        {33, 128},
        {64, 130},
        {95, 510},
        {32, 384}
    };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        struct problem p = make(env, format, s + 1, 1, shapes[s][0], shapes[s][1], NT_GEMM_STORE_F32, false);
        const size_t bytes = nt_packed_bytes(p.w.format, p.w.n, p.w.k);
        for (int32_t k = 0; k < p.w.k && k < NT_INT4_GROUP; k++) p.values[k] = 0; /* an empty group */
        void *before = op_alloc(bytes);
        pack(&p);
        for (int32_t row = 0; row < p.w.n; row++)
            for (int32_t first = 0; first < p.w.k; first += NT_INT4_GROUP) check_group(env, &p, format, row, first);
        memcpy(before, p.packed, bytes);
        pack(&p);
        op_compare_bytes(env, "packed twice", before, p.packed, bytes);
        if (bytes % 64 != 0) op_fail(env, "%zu bytes are not a multiple of 64", bytes);
        free(before);
        drop(&p);
    }
}

static void check_packing(struct op_env *env) {
    for (int f = 0; f < N_FORMATS; f++) pack_format(env, f);
}

static void check_shapes(struct op_env *env) {
    uint64_t seed = 23;
    for (int i = 0; i < 30 * N_FORMATS; i++) {
        const enum nt_gemm_out out = (enum nt_gemm_out)(i % NT_GEMM_OUT_COUNT);
        const int32_t n = op_random_int(&seed, 1, is_gated(out) ? 4 : 120) * (is_gated(out) ? NT_PANEL : 1);
        const int32_t k = 2 * op_random_int(&seed, 1, i % 5 == 0 ? 700 : 180), n_tok = op_random_int(&seed, 1, 70);
        if (op_too_large(env, (double)n_tok * n * k)) continue;
        struct problem p = make(env, i / 30, seed, n_tok, n, k, out, i % 3 == 1);
        check_problem(env, &p);
        drop(&p);
    }
}

/* Every tile of CUDA: 8, 16, 32 and 64 rows, one panel and two a block (small ones too, for the emulator), more rows
 * than a tile has; parts of k of one group and of several, in one round and in several. CPUs: sums of several blocks,
 * several blocks of rows. */
static void check_tiles(struct op_env *env) {
    static const struct {
        int32_t n_tok, n, k;
    } shapes[] = {
        {5,   96,   1290},
        {16,  8500, 40  },
        {17,  40,   640 },
        {30,  8500, 24  },
        {64,  70,   512 },
        {33,  8500, 16  },
        {3,   8500, 70  },
        {17,  8500, 12  },
        {33,  8500, 6   },
        {150, 64,   256 },
        {500, 40,   256 },
        {19,  300,  2050},
        {5,   70,   4170},
        {9,   70,   2180},
        {24,  33,   2300},
        {40,  20,   2300}
    };
    const int n_shape = (int)(sizeof shapes / sizeof shapes[0]);
    for (int i = 0; i < n_shape * N_FORMATS; i++) {
        const int s = i % n_shape;
        if (op_too_large(env, (double)shapes[s].n_tok * shapes[s].n * shapes[s].k)) continue;
        struct problem p =
            make(env, i / n_shape, (uint64_t)s + 40, shapes[s].n_tok, shapes[s].n, shapes[s].k, NT_GEMM_ADD_F32, true);
        check_problem(env, &p);
        drop(&p);
    }
}

/* Special values reach exactly the elements that IEEE sends them to; one in the weights spoils its group. */
static void check_special(struct op_env *env) {
    static const float special[] = {NAN, INFINITY, -INFINITY};
    uint64_t seed = 5;
    for (int i = 0; i < 3 * NT_GEMM_OUT_COUNT * N_FORMATS; i++) {
        const enum nt_gemm_out out = (enum nt_gemm_out)(i / 3 % NT_GEMM_OUT_COUNT);
        struct problem p = make(env, i / (3 * NT_GEMM_OUT_COUNT), seed, 19, 64, 140, out, i % 2);
        p.x[op_random_int(&seed, 0, 10) * p.args.ldx + op_random_int(&seed, 0, 139)] = nt_f32_to_bf16(special[i % 3]);
        p.values[op_random_int(&seed, 0, 31) * 140 + op_random_int(&seed, 0, 139)] =
            nt_f32_to_bf16(special[(i + 1) % 3]);
        for (int32_t k = 0; k < 140; k++) p.x[15 * p.args.ldx + k] = nt_f32_to_bf16(k % 2 ? 300.0f : -250.0f);
        pack(&p);
        check_problem(env, &p);
        drop(&p);
    }
}

/* A row's result is the same bits alone, in any batch size 1..70 and at any place in it. */
static void check_invariance(struct op_env *env) {
    enum { TOKENS = 70 };
    for (int i = 0; i < NT_GEMM_OUT_COUNT * N_FORMATS; i++) {
        const enum nt_gemm_out out = (enum nt_gemm_out)(i % NT_GEMM_OUT_COUNT);
        const int32_t n = 64 - (is_gated(out) ? 0 : 13), k = env->cuda ? 650 : 1150;
        struct problem p = make(env, i / NT_GEMM_OUT_COUNT, 77, TOKENS, n, k, out, true);
        const size_t row = p.y_bytes / TOKENS;
        char *all = op_alloc(p.y_bytes);
        run(&env->be[0], &p);
        memcpy(all, p.y, p.y_bytes);
        for (int32_t n_tok = 1; n_tok < TOKENS; n_tok += 1 + n_tok / 4) {
            struct problem part = p;
            const int32_t first = n_tok % 3 == 0 ? 0 : TOKENS - n_tok;
            char what[64];
            snprintf(what, sizeof what, "format %d out %d: rows %d..%d alone", (int)p.w.format, (int)out, first,
                     first + n_tok - 1);
            part.x = p.x + first * p.args.ldx;
            part.y0 = (char *)p.y0 + (size_t)first * row;
            part.y_bytes = (size_t)n_tok * row;
            part.args.n_tok = n_tok;
            run(&env->be[n_tok % OP_BACKENDS], &part);
            op_compare_bytes(env, what, all + (size_t)first * row, part.y, part.y_bytes);
        }
        free(all);
        drop(&p);
    }
}

static void perf(struct op_env *env) {
    static const int32_t shapes[][3] = {
        {1,   3072, 576 },
        {16,  3072, 576 },
        {256, 3072, 576 },
        {256, 576,  1536}
    };
    for (int i = 0; i < 4 * N_FORMATS; i++) {
        const int32_t *s = shapes[i % 4];
        char what[64];
        struct problem p = make(env, i / 4, 1, s[0], s[1], s[2], NT_GEMM_STORE_F32, false);
        const double elems = (double)s[1] * s[2], bytes = (double)nt_packed_bytes(p.w.format, s[1], s[2]);
        snprintf(what, sizeof what, "format %d n_tok %d n %d k %d", (int)p.w.format, s[0], s[1], s[2]);
        op_measure(env, what, 2 * elems * s[0], bytes, call, &p);
        drop(&p);
    }
}

static const struct op_case cases[] = {
    {NT_OP_gemm, "quantized packing",          check_packing,    NULL},
    {NT_OP_gemm, "quantized special values",   check_special,    NULL},
    {NT_OP_gemm, "quantized odd shapes",       check_shapes,     perf},
    {NT_OP_gemm, "quantized tiles",            check_tiles,      NULL},
    {NT_OP_gemm, "quantized batch invariance", check_invariance, NULL},
};
const struct op_cases gemm_quant_cases = {sizeof cases / sizeof cases[0], cases};
