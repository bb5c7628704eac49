/* Cases of gemm with an adapter's second product and with the pre-activations, and a linear layer with an adapter from
 * end to end: its gradients by the ops against finite differences of the layer in double. */
#include "op_matrix.h"
#include "ops_bwd.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct shape {
    enum nt_weight_format format;
    int32_t n_tok, n, k, k2; /* k2 0: no second product */
    enum nt_gemm_out out;
    bool bias, pre;
    bool aligned; /* rows of x and x2 begin at multiples of 16 bytes, as TMA wants them */
};

struct problem {
    struct shape s;
    struct nt_gemm_args args;
    struct op_matrix w, w2;
    nt_bf16 *x, *x2, *pre;
    float *bias;
    void *y0, *y; // [n_tok, ldy]: before, and of the last run
    size_t y_bytes, pre_bytes;
    bool exact; /* the weights are, and not rounded to bf16: CUDA */
    char what[112];
};

static bool is_f32(enum nt_gemm_out out) {
    return out == NT_GEMM_STORE_F32 || out == NT_GEMM_ADD_F32;
}
static bool is_gated(enum nt_gemm_out out) {
    return out == NT_GEMM_SWIGLU_BF16 || out == NT_GEMM_GEGLU_BF16;
}

static struct problem make(uint64_t seed, struct shape s) {
    struct problem p = {.s = s};
    struct nt_gemm_args *a = &p.args;
    *a = (struct nt_gemm_args){.n_tok = s.n_tok, .out = s.out};
    a->ldx = s.aligned ? (s.k + 7) / 8 * 8 : s.k + 2 * op_random_int(&seed, 0, 3);
    a->ldx2 = s.aligned ? (s.k2 + 7) / 8 * 8 : s.k2 + 2 * op_random_int(&seed, 0, 3);
    a->ldy = (is_gated(s.out) ? s.n / 2 : s.n) + op_random_int(&seed, 0, 9);
    a->ldpre = s.n + op_random_int(&seed, 0, 9);
    p.w = op_matrix_make(seed + 1, s.format, s.n, s.k, 1.5f / sqrtf((float)s.k));
    if (s.k2 > 0) p.w2 = op_matrix_make(seed + 2, NT_WEIGHT_BF16, s.n, s.k2, 1.0f / sqrtf((float)s.k2));
    p.x = op_alloc((size_t)(s.n_tok * a->ldx) * sizeof *p.x);
    p.x2 = op_alloc((size_t)(s.n_tok * a->ldx2 + 1) * sizeof *p.x2);
    p.bias = op_alloc((size_t)s.n * sizeof *p.bias);
    p.y_bytes = (size_t)(s.n_tok * a->ldy) * (is_f32(s.out) ? sizeof(float) : sizeof(nt_bf16));
    p.y0 = op_alloc(p.y_bytes);
    p.y = op_alloc(p.y_bytes);
    p.pre_bytes = (size_t)(s.n_tok * a->ldpre) * sizeof *p.pre;
    p.pre = op_alloc(p.pre_bytes);
    op_random_bf16(&seed, p.x, s.n_tok * a->ldx, 1.0f);
    op_random_bf16(&seed, p.x2, s.n_tok * a->ldx2, 1.0f);
    op_random_f32(&seed, p.bias, s.n, 0.5f);
    if (is_f32(s.out)) op_random_f32(&seed, p.y0, s.n_tok * a->ldy, 1.0f);
    snprintf(p.what, sizeof p.what, "n_tok %d n %d k %d k2 %d out %d format %d bias %d pre %d aligned %d", s.n_tok, s.n,
             s.k, s.k2, (int)s.out, (int)s.format, s.bias, s.pre, s.aligned);
    return p;
}

static void drop(struct problem *p) {
    op_matrix_drop(&p->w);
    op_matrix_drop(&p->w2);
    free(p->x);
    free(p->x2);
    free(p->bias);
    free(p->y0);
    free(p->y);
    free(p->pre);
}

static nt_status run(struct nt_backend *be, struct problem *p) {
    struct nt_gemm_args a = p->args;
    memcpy(p->y, p->y0, p->y_bytes);
    memset(p->pre, 0, p->pre_bytes);
    a.x = p->x;
    a.w = &p->w.w;
    a.y = p->y;
    if (p->s.bias) a.bias = p->bias;
    if (p->s.pre) a.pre = p->pre;
    if (p->s.k2 > 0) {
        a.x2 = p->x2;
        a.w2 = &p->w2.w;
    }
    return be->ops.gemm(be, &a);
}

static double dot(const nt_bf16 *x, const struct op_matrix *m, const double *weights, int32_t row) {
    double sum = 0;
    for (int32_t i = 0; i < m->w.k; i++) sum += (double)nt_bf16_to_f32(x[i]) * weights[(int64_t)row * m->w.k + i];
    return sum;
}

/* What an epilogue gets of packed column n. */
static double column(const struct problem *p, int32_t t, int32_t n) {
    double sum = dot(p->x + t * p->args.ldx, &p->w, p->exact ? p->w.values : p->w.rounded, n);
    if (p->s.k2 > 0) sum += dot(p->x2 + t * p->args.ldx2, &p->w2, p->w2.values, n);
    return p->s.bias ? sum + (double)p->bias[n] : sum;
}

static double reference(const struct problem *p, int32_t t, int32_t j) {
    if (p->s.out == NT_GEMM_ADD_F32) return (double)((float *)p->y0)[t * p->args.ldy + j] + column(p, t, j);
    if (!is_gated(p->s.out)) return column(p, t, j);
    const double gate = column(p, t, nt_packed_gate_row(j)), up = column(p, t, nt_packed_up_row(j));
    if (p->s.out == NT_GEMM_SWIGLU_BF16) return gate / (1 + exp(-gate)) * up;
    return 0.5 * gate * (1 + tanh(0.7978845608028654 * (gate + 0.044715 * gate * gate * gate))) * up;
}

static void compare_pre(struct op_env *env, const struct problem *p) {
    const int32_t n = p->s.n;
    double *want = op_alloc((size_t)p->s.n_tok * (size_t)n * sizeof *want);
    nt_bf16 *got = op_alloc((size_t)p->s.n_tok * (size_t)n * sizeof *got);
    for (int32_t t = 0; t < p->s.n_tok; t++) {
        for (int32_t i = 0; i < n; i++) want[(int64_t)t * n + i] = column(p, t, i);
        memcpy(got + (int64_t)t * n, p->pre + t * p->args.ldpre, (size_t)n * sizeof *got);
        for (int64_t i = n; i < p->args.ldpre; i++)
            if (p->pre[t * p->args.ldpre + i] != 0)
                op_fail(env, "%s: columns of pre after the last were written in row %d", p->what, t);
    }
    op_compare_bf16(env, p->what, want, got, (int64_t)p->s.n_tok * n);
    free(want);
    free(got);
}

static void compare_all(struct op_env *env, const struct problem *p) {
    const int32_t n = is_gated(p->s.out) ? p->s.n / 2 : p->s.n;
    const size_t elem = is_f32(p->s.out) ? sizeof(float) : sizeof(nt_bf16), used = (size_t)n * elem;
    double *want = op_alloc((size_t)p->s.n_tok * (size_t)n * sizeof *want);
    char *got = op_alloc((size_t)p->s.n_tok * used);
    for (int32_t t = 0; t < p->s.n_tok; t++) {
        for (int32_t j = 0; j < n; j++) want[(int64_t)t * n + j] = reference(p, t, j);
        const size_t at = (size_t)(t * p->args.ldy) * elem;
        memcpy(got + (size_t)t * used, (char *)p->y + at, used);
        if (memcmp((char *)p->y + at + used, (char *)p->y0 + at + used, (size_t)p->args.ldy * elem - used) != 0)
            op_fail(env, "%s: columns after the last were written in row %d", p->what, t);
    }
    if (is_f32(p->s.out))
        op_compare_f32(env, p->what, want, (const float *)(const void *)got, (int64_t)p->s.n_tok * n);
    else
        op_compare_bf16(env, p->what, want, (const nt_bf16 *)(const void *)got, (int64_t)p->s.n_tok * n);
    if (p->s.pre) compare_pre(env, p);
    free(want);
    free(got);
}

static void check_problem(struct op_env *env, struct problem *p) {
    p->exact = env->cuda;
    NT_CHECK(run(&env->be[0], p) == NT_OK);
    compare_all(env, p);
    void *one = op_alloc(p->y_bytes), *one_pre = op_alloc(p->pre_bytes);
    memcpy(one, p->y, p->y_bytes);
    memcpy(one_pre, p->pre, p->pre_bytes);
    NT_CHECK(run(&env->be[1], p) == NT_OK);
    op_compare_bytes(env, p->what, one, p->y, p->y_bytes);
    op_compare_bytes(env, p->what, one_pre, p->pre, p->pre_bytes);
    free(one);
    free(one_pre);
}

static void check_shapes(struct op_env *env) {
    uint64_t seed = 51;
    for (int i = 0; i < 60; i++) {
        static const enum nt_weight_format formats[] = {NT_WEIGHT_BF16, NT_WEIGHT_BF16, NT_WEIGHT_INT4, NT_WEIGHT_INT8};
        struct shape s = {.format = formats[i % 4]};
        s.out = (enum nt_gemm_out)(i % NT_GEMM_OUT_COUNT);
        s.n_tok = op_random_int(&seed, 1, i % 7 == 0 ? 3 : 70);
        s.n = is_gated(s.out) ? NT_PANEL * op_random_int(&seed, 1, 4) : op_random_int(&seed, 1, 130);
        s.k = 2 * op_random_int(&seed, 1, 90);
        s.k2 = i % 9 == 5 ? 0 : 2 * op_random_int(&seed, 1, i % 3 ? 12 : 60);
        s.pre = is_gated(s.out) && i % 3 < 2;
        s.bias = i % 3 == 1;
        s.aligned = i % 8 < 4;
        struct problem p = make(seed, s);
        check_problem(env, &p);
        drop(&p);
    }
}

/* Rows of x that are copied first, and blocks of them; on a device larger tiles. */
static void check_large(struct op_env *env) {
    static const struct shape shapes[] = {
        {NT_WEIGHT_BF16, 40,  70, 2048, 16,  NT_GEMM_STORE_F32,   false, false, true},
        {NT_WEIGHT_BF16, 500, 64, 512,  24,  NT_GEMM_SWIGLU_BF16, false, true,  true},
        {NT_WEIGHT_BF16, 9,   33, 8192, 64,  NT_GEMM_ADD_F32,     true,  false, true},
        {NT_WEIGHT_INT4, 23,  96, 2048, 16,  NT_GEMM_SWIGLU_BF16, true,  true,  true},
        {NT_WEIGHT_INT8, 9,   70, 1100, 600, NT_GEMM_STORE_F32,   true,  false, true},
        {NT_WEIGHT_INT8, 300, 64, 512,  24,  NT_GEMM_GEGLU_BF16,  false, true,  true},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct problem p = make(i, shapes[i]);
        check_problem(env, &p);
        drop(&p);
    }
}

/* Rows first to first + n_tok - 1 alone have the bits they have in p->y and p->pre. */
static void check_part(struct op_env *env, const struct problem *p, int32_t first, int32_t n_tok) {
    const size_t row = p->y_bytes / (size_t)p->args.n_tok, pre_row = p->pre_bytes / (size_t)p->args.n_tok;
    struct problem part = *p;
    part.args.n_tok = n_tok;
    part.x = p->x + first * p->args.ldx;
    part.x2 = p->x2 + first * p->args.ldx2;
    part.y0 = (char *)p->y0 + (size_t)first * row;
    part.y_bytes = (size_t)n_tok * row;
    part.pre_bytes = (size_t)n_tok * pre_row;
    part.y = op_alloc(part.y_bytes);
    part.pre = op_alloc(part.pre_bytes);
    NT_CHECK(run(&env->be[n_tok % OP_BACKENDS], &part) == NT_OK);
    op_compare_bytes(env, p->what, (char *)p->y + (size_t)first * row, part.y, part.y_bytes);
    op_compare_bytes(env, p->what, (char *)p->pre + (size_t)first * pre_row, part.pre, part.pre_bytes);
    free(part.y);
    free(part.pre);
}

/* A row's result is the same bits alone, in any number of rows and at any place among them. */
static void check_alone(struct op_env *env) {
    enum { TOKENS = 60, KINDS = 4 };
    static const enum nt_weight_format formats[KINDS] = {NT_WEIGHT_BF16, NT_WEIGHT_BF16, NT_WEIGHT_INT4,
                                                         NT_WEIGHT_INT8};
    for (int i = 0; i < KINDS * NT_GEMM_OUT_COUNT; i++) {
        const enum nt_gemm_out out = (enum nt_gemm_out)(i / KINDS);
        struct shape s = {.n_tok = TOKENS, .n = is_gated(out) ? 96 : 83, .k = 50, .k2 = 12, .out = out};
        s.format = formats[i % KINDS];
        if (s.format != NT_WEIGHT_BF16) s.k = env->emulated ? 530 : 1030;
        s.bias = true;
        s.pre = is_gated(out);
        s.aligned = i % KINDS == 1;
        struct problem p = make(77, s);
        NT_CHECK(run(&env->be[0], &p) == NT_OK);
        for (int32_t n_tok = 1; n_tok < TOKENS; n_tok += env->emulated ? 4 : 1)
            check_part(env, &p, n_tok % 3 == 0 ? 0 : TOKENS - n_tok, n_tok);
        drop(&p);
    }
}

/* Row counts for which a device takes each of its tiles: the same bits in all. */
static void check_tiles(struct op_env *env) {
    static const struct {
        struct shape s;
        int32_t n_tok[4]; /* 0: no more */
    } parts[] = {
        {{NT_WEIGHT_BF16, 260, 3072, 72, 10, NT_GEMM_SWIGLU_BF16, false, true, false}, {100, 20, 1}},
        {{NT_WEIGHT_BF16, 130, 12288, 64, 24, NT_GEMM_GEGLU_BF16, true, true, true},   {60, 17, 1} },
        {{NT_WEIGHT_BF16, 40, 96, 72, 0, NT_GEMM_SWIGLU_BF16, false, true, true},      {3}         },
        {{NT_WEIGHT_INT4, 70, 3050, 264, 90, NT_GEMM_ADD_F32, true, false, false},     {30, 9, 1}  },
        {{NT_WEIGHT_INT8, 67, 96, 392, 70, NT_GEMM_SWIGLU_BF16, true, true, false},    {31, 8, 1}  },
        {{NT_WEIGHT_INT4, 37, 40, 1160, 8, NT_GEMM_STORE_F32, true, false, false},     {2}         },
        {{NT_WEIGHT_INT8, 37, 40, 1160, 8, NT_GEMM_STORE_F32, true, false, false},     {2}         },
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        struct problem p = make(i, parts[i].s);
        check_problem(env, &p);
        for (int t = 0; t < 4 && parts[i].n_tok[t] > 0; t++)
            check_part(env, &p, t & 1 ? 0 : parts[i].s.n_tok - parts[i].n_tok[t], parts[i].n_tok[t]);
        drop(&p);
    }
}

/* The product again with rows of x that begin at other places: as TMA does not want them, by another kernel. */
static void check_other_rows(struct op_env *env, const struct problem *p) {
    struct problem other = *p;
    other.args.ldx = p->args.ldx + 2;
    other.x = op_alloc((size_t)(p->s.n_tok * other.args.ldx) * sizeof *other.x);
    for (int64_t t = 0; t < p->s.n_tok; t++)
        memcpy(other.x + t * other.args.ldx, p->x + t * p->args.ldx, (size_t)p->s.k * sizeof *p->x);
    other.y = op_alloc(p->y_bytes);
    other.pre = op_alloc(p->pre_bytes);
    NT_CHECK(run(&env->be[0], &other) == NT_OK);
    op_compare_bytes(env, p->what, p->y, other.y, p->y_bytes);
    op_compare_bytes(env, p->what, p->pre, other.pre, p->pre_bytes);
    free(other.x);
    free(other.y);
    free(other.pre);
}

/* Integer weights with many rows, without and with an adapter: each tile of compute capability 9.0 with its ring
 * several times around, parts of one and of several groups, and the bits of the kernel for few rows. */
static void check_many_rows(struct op_env *env) {
    static const struct shape shapes[] = {
        {NT_WEIGHT_INT4, 200, 140,  2310, 0,  NT_GEMM_STORE_F32,   true,  false, true},
        {NT_WEIGHT_INT8, 70,  60,   4140, 20, NT_GEMM_STORE_F32,   true,  false, true},
        {NT_WEIGHT_INT8, 130, 160,  1160, 0,  NT_GEMM_SWIGLU_BF16, false, false, true},
        {NT_WEIGHT_INT4, 65,  8460, 660,  0,  NT_GEMM_STORE_BF16,  false, false, true},
        {NT_WEIGHT_INT8, 65,  8460, 530,  0,  NT_GEMM_ADD_F32,     true,  false, true},
        {NT_WEIGHT_INT4, 97,  96,   300,  40, NT_GEMM_SWIGLU_BF16, true,  true,  true},
        {NT_WEIGHT_INT8, 65,  8480, 140,  90, NT_GEMM_GEGLU_BF16,  false, true,  true},
        {NT_WEIGHT_INT4, 66,  8500, 70,   74, NT_GEMM_STORE_F32,   false, false, true},
        {NT_WEIGHT_INT8, 33,  130,  520,  24, NT_GEMM_ADD_F32,     true,  false, true},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct problem p = make(i, shapes[i]);
        check_problem(env, &p);
        check_other_rows(env, &p);
        check_part(env, &p, shapes[i].n_tok - 9, 9);
        drop(&p);
    }
}

/* ---- w2 with parts ---- */

struct parts {
    struct shape s;
    int n_part;
    struct nt_packed_part part[NT_PACKED_PARTS];
};

/* The same bits without the statement. */
static void check_dense(struct op_env *env, const struct problem *p) {
    struct problem dense = *p;
    dense.w2.w.n_part = 0;
    dense.y = op_alloc(p->y_bytes);
    dense.pre = op_alloc(p->pre_bytes);
    NT_CHECK(run(&env->be[0], &dense) == NT_OK);
    op_compare_bytes(env, p->what, dense.y, p->y, p->y_bytes);
    op_compare_bytes(env, p->what, dense.pre, p->pre, p->pre_bytes);
    free(dense.y);
    free(dense.pre);
}

/* Whether a part has a row of the half panel of row n. */
static bool is_near(const struct nt_packed_part *part, int32_t n) {
    const int32_t first = n / (NT_PANEL / 2) * (NT_PANEL / 2);
    for (int32_t i = 0; i < NT_PANEL / 2; i++)
        if (op_matrix_part_has(part, first + i)) return true;
    return false;
}

/* A NaN among the columns of x2 of one part is in the rows of that part, and with AVX-512 not in half panels without.
 */
static void check_reach(struct op_env *env, struct problem *p, int which) {
    const struct nt_packed_part *part = &p->w2.w.part[which];
    int32_t column = 0;
    for (int i = 0; i < which; i++) column += p->w2.w.part[i].k;
    const int32_t t = p->s.n_tok / 2;
    nt_bf16 *at = p->x2 + t * p->args.ldx2 + column + part->k - 1, kept = *at;
    *at = nt_f32_to_bf16(NAN);
    NT_CHECK(run(&env->be[0], p) == NT_OK);
    *at = kept;
    for (int32_t n = 0; n < p->s.n; n++) {
        const bool nan = isnan(nt_bf16_to_f32(p->pre[t * p->args.ldpre + n]));
        if (op_matrix_part_has(part, n) && !nan) op_fail(env, "%s: NaN of part %d is not in row %d", p->what, which, n);
        if (nan && !env->cuda && env->isa == NT_ISA_AVX512 && !is_near(part, n))
            op_fail(env, "%s: NaN of part %d is in row %d", p->what, which, n);
    }
}

static void check_parts(struct op_env *env) {
    enum { HALF = NT_PANEL / 2 };
    static const struct parts cases[] = {
        {{NT_WEIGHT_BF16, 70, 192, 40, 32, NT_GEMM_SWIGLU_BF16, false, true, true},
         2,                                                                             {{0, 96, HALF, 16}, {HALF, 96, HALF, 16}}           },
        {{NT_WEIGHT_BF16, 5, 64, 40, 8, NT_GEMM_GEGLU_BF16, true, true, false},
         2,                                                                             {{0, 32, HALF, 6}, {HALF, 32, HALF, 2}}             },
        {{NT_WEIGHT_BF16, 9, 96, 1024, 10, NT_GEMM_SWIGLU_BF16, true, true, true},   1, {{HALF, 48, HALF, 10}}                              },
        {{NT_WEIGHT_BF16, 33, 224, 64, 28, NT_GEMM_SWIGLU_BF16, false, true, true},
         3,                                                                             {{0, 100, 0, 4}, {100, 9, 0, 12}, {109, 115, 0, 12}}},
        {{NT_WEIGHT_BF16, 3, 160, 64, 24, NT_GEMM_SWIGLU_BF16, false, true, false},
         2,                                                                             {{0, 70, 0, 8}, {120, 40, 0, 16}}                   },
        {{NT_WEIGHT_INT4, 40, 96, 200, 32, NT_GEMM_SWIGLU_BF16, false, true, true},
         2,                                                                             {{0, 48, HALF, 16}, {HALF, 48, HALF, 16}}           },
        {{NT_WEIGHT_INT8, 17, 128, 2048, 12, NT_GEMM_GEGLU_BF16, true, true, true},
         3,                                                                             {{0, 64, 0, 4}, {64, 32, 0, 4}, {96, 32, 0, 4}}     },
        {{NT_WEIGHT_INT4, 16, 64, 300, 3000, NT_GEMM_SWIGLU_BF16, true, true, true},
         2,                                                                             {{0, 32, HALF, 1100}, {HALF, 32, HALF, 1900}}       },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct problem p = make(i, cases[i].s);
        op_matrix_state_parts(&p.w2, cases[i].part, cases[i].n_part);
        check_problem(env, &p);
        check_dense(env, &p);
        check_part(env, &p, cases[i].s.n_tok - 2, 2);
        for (int k = 0; k < cases[i].n_part; k++) check_reach(env, &p, k);
        drop(&p);
    }
}

/* ---- a linear layer with an adapter, loss = sum log cosh(y), y = x W^T + s (x A^T) B^T ---- */

enum { TOK = 7, N = 34, K = 26, RANK = 6 };
static const double adapter_scale = 0.75;

struct layer {
    double x[TOK * K], w[N * K], a[RANK * K], b[N * RANK];
};

static double layer_loss(const struct layer *l) {
    double loss = 0;
    for (int t = 0; t < TOK; t++) {
        double h[RANK] = {0};
        for (int r = 0; r < RANK; r++)
            for (int k = 0; k < K; k++) h[r] += l->x[t * K + k] * l->a[r * K + k];
        for (int n = 0; n < N; n++) {
            double y = 0;
            for (int k = 0; k < K; k++) y += l->x[t * K + k] * l->w[n * K + k];
            for (int r = 0; r < RANK; r++) y += adapter_scale * h[r] * l->b[n * RANK + r];
            loss += log(cosh(y));
        }
    }
    return loss;
}

/* Central differences of the loss by each of v, which lies in l. */
static void compare_gradient(struct op_env *env, const char *what, struct layer *l, double *v, const float *got,
                             int count) {
    static const double step = 1e-4, limit = 1e-5; /* operands rounded to bf16: 2^-9 of each term */
    double square = 0, error = 0;
    for (int i = 0; i < count; i++) {
        const double at = v[i];
        v[i] = at + step;
        const double above = layer_loss(l);
        v[i] = at - step;
        const double want = (above - layer_loss(l)) / (2 * step);
        v[i] = at;
        square += want * want;
        error += (want - (double)got[i]) * (want - (double)got[i]);
    }
    env->n_checked++;
    if (!(error <= limit * square)) op_fail(env, "gradient of %s: nmse %.2e, limit %.0e", what, error / square, limit);
}

static void to_double(const nt_bf16 *from, double *to, int count) {
    for (int i = 0; i < count; i++) to[i] = (double)nt_bf16_to_f32(from[i]);
}

static void to_bf16(const float *from, float scale, nt_bf16 *to, int count) {
    for (int i = 0; i < count; i++) to[i] = nt_f32_to_bf16(scale * from[i]);
}

/* dy of the ops' own y; then all gradients as a training step takes them. */
static void backward(struct nt_backend *be, struct op_matrix *w, struct op_matrix *a, struct op_matrix *b,
                     const nt_bf16 *x, float *dx, float *dw, float *da, float *db) {
    const float s = (float)adapter_scale;
    float hidden[TOK * RANK], y[TOK * N], dhidden[TOK * RANK];
    nt_bf16 hidden16[TOK * RANK], dy[TOK * N], dhidden16[TOK * RANK];
    const struct nt_gemm_args down = {.x = x, .ldx = K, .w = &a->w, .y = hidden, .ldy = RANK, .n_tok = TOK};
    NT_CHECK(be->ops.gemm(be, &down) == NT_OK);
    to_bf16(hidden, s, hidden16, TOK * RANK);
    const struct nt_gemm_args all = {
        .x = x, .ldx = K, .w = &w->w, .y = y, .ldy = N, .n_tok = TOK, .x2 = hidden16, .ldx2 = RANK, .w2 = &b->w};
    NT_CHECK(be->ops.gemm(be, &all) == NT_OK);
    for (int i = 0; i < TOK * N; i++) dy[i] = nt_f32_to_bf16(tanhf(y[i]));
    const struct nt_gemm_dgrad_args up = {.dy = dy, .lddy = N, .w = &b->w, .dx = dhidden, .lddx = RANK, .n_tok = TOK};
    NT_CHECK(be->ops.gemm_dgrad(be, &up) == NT_OK);
    to_bf16(dhidden, s, dhidden16, TOK * RANK);
    const struct nt_gemm_dgrad_args both = {.dy = dy,
                                            .lddy = N,
                                            .w = &w->w,
                                            .dy2 = dhidden16,
                                            .lddy2 = RANK,
                                            .w2 = &a->w,
                                            .dx = dx,
                                            .lddx = K,
                                            .n_tok = TOK};
    NT_CHECK(be->ops.gemm_dgrad(be, &both) == NT_OK);
    struct nt_gemm_wgrad_args g = {.a = dy, .lda = N, .b = x, .ldb = K, .dw = dw, .lddw = K, .alpha = 1, .n_tok = TOK};
    g.m = N;
    g.n = K;
    NT_CHECK(be->ops.gemm_wgrad(be, &g) == NT_OK);
    g.a = dhidden16;
    g.lda = g.m = RANK;
    g.dw = da;
    NT_CHECK(be->ops.gemm_wgrad(be, &g) == NT_OK);
    to_bf16(hidden, 1, hidden16, TOK * RANK);
    g = (struct nt_gemm_wgrad_args){.a = dy, .b = hidden16, .lda = N, .ldb = RANK, .dw = db, .lddw = RANK, .alpha = s};
    g.n_tok = TOK;
    g.m = N;
    g.n = RANK;
    NT_CHECK(be->ops.gemm_wgrad(be, &g) == NT_OK);
}

static void check_differences(struct op_env *env) {
    uint64_t seed = 9;
    struct op_matrix w = op_matrix_make(1, NT_WEIGHT_BF16, N, K, 0.3f),
                     a = op_matrix_make(2, NT_WEIGHT_BF16, RANK, K, 0.3f);
    struct op_matrix b = op_matrix_make(3, NT_WEIGHT_BF16, N, RANK, 0.4f);
    nt_bf16 x[TOK * K];
    float dx[TOK * K], dw[N * K] = {0}, da[RANK * K] = {0}, db[N * RANK] = {0};
    struct layer *l = op_alloc(sizeof *l);
    op_random_bf16(&seed, x, TOK * K, 0.7f);
    to_double(x, l->x, TOK * K);
    memcpy(l->w, w.values, sizeof l->w);
    memcpy(l->a, a.values, sizeof l->a);
    memcpy(l->b, b.values, sizeof l->b);
    backward(&env->be[1], &w, &a, &b, x, dx, dw, da, db);
    compare_gradient(env, "x", l, l->x, dx, TOK * K);
    compare_gradient(env, "W", l, l->w, dw, N * K);
    compare_gradient(env, "A", l, l->a, da, RANK * K);
    compare_gradient(env, "B", l, l->b, db, N * RANK);
    op_matrix_drop(&w);
    op_matrix_drop(&a);
    op_matrix_drop(&b);
    free(l);
}

static const struct op_case cases[] = {
    {NT_OP_gemm,       "adapter, odd shapes",       check_shapes,      NULL},
    {NT_OP_gemm,       "adapter, large",            check_large,       NULL},
    {NT_OP_gemm,       "adapter, batch invariance", check_alone,       NULL},
    {NT_OP_gemm,       "adapter, tiles",            check_tiles,       NULL},
    {NT_OP_gemm,       "adapter, parts",            check_parts,       NULL},
    {NT_OP_gemm,       "integers, many rows",       check_many_rows,   NULL},
    {NT_OP_gemm_dgrad, "finite differences",        check_differences, NULL},
};
const struct op_cases gemm_adapter_cases = {sizeof cases / sizeof cases[0], cases};
