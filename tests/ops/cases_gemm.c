/* Cases of the gemm op: all epilogues on odd shapes, special values, and the bitwise promises. */
#include "test_ops.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct problem {
    struct nt_gemm_args args;
    struct nt_packed w;
    nt_bf16 *x, *values; // [n_tok, ldx], [n, k] in packed row order
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
}

static struct problem make(uint64_t seed, int32_t n_tok, int32_t n, int32_t k, enum nt_gemm_out out, bool bias) {
    struct problem p = {
        .w = {.format = NT_WEIGHT_BF16, .n = n, .k = k}
    };
    const int32_t pad_x = op_random_int(&seed, 0, 3) * 2, pad_y = op_random_int(&seed, 0, 9);
    p.args = (struct nt_gemm_args){.ldx = k + pad_x, .n_tok = n_tok, .out = out};
    p.args.ldy = (is_gated(out) ? n / 2 : n) + pad_y;
    p.x = op_alloc((size_t)(n_tok * p.args.ldx) * sizeof(nt_bf16));
    p.values = op_alloc((size_t)n * (size_t)k * sizeof(nt_bf16));
    p.packed = op_alloc(nt_packed_bytes(NT_WEIGHT_BF16, n, k));
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
    p.w.data = p.packed;
    return p;
}

static void drop(struct problem *p) {
    free(p->x);
    free(p->values);
    free(p->packed);
    free(p->bias);
    free(p->y0);
    free(p->y);
}

static void run(struct nt_backend *be, struct problem *p) {
    memcpy(p->y, p->y0, p->y_bytes);
    struct nt_gemm_args a = p->args;
    a.x = p->x;
    a.w = &p->w;
    a.y = p->y;
    NT_CHECK(be->ops.gemm(be, &a) == NT_OK);
}

static double dot(const struct problem *p, int32_t t, int32_t row) {
    double sum = 0;
    for (int32_t i = 0; i < p->w.k; i++)
        sum += (double)nt_bf16_to_f32(p->x[t * p->args.ldx + i]) *
               (double)nt_bf16_to_f32(p->values[(int64_t)row * p->w.k + i]);
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

/* Compares the columns of every row with the reference and the padding columns with what was there. */
static void compare_all(struct op_env *env, const struct problem *p) {
    const int32_t n = n_columns(p);
    char what[128];
    snprintf(what, sizeof what, "n_tok %d n %d k %d out %d bias %d", p->args.n_tok, p->w.n, p->w.k, (int)p->args.out,
             p->args.bias != NULL);
    double *want = op_alloc((size_t)p->args.n_tok * (size_t)n * sizeof *want);
    char *got = op_alloc((size_t)p->args.n_tok * (size_t)n * sizeof(float));
    const size_t elem = is_f32(p->args.out) ? sizeof(float) : sizeof(nt_bf16);
    for (int32_t t = 0; t < p->args.n_tok; t++) {
        for (int32_t j = 0; j < n; j++) want[(int64_t)t * n + j] = reference(p, t, j);
        const size_t row = (size_t)(t * p->args.ldy) * elem, used = (size_t)n * elem;
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

static void check_shapes(struct op_env *env) {
    uint64_t seed = 11;
    for (int i = 0; i < 60; i++) {
        const enum nt_gemm_out out = (enum nt_gemm_out)(i % NT_GEMM_OUT_COUNT);
        const int32_t n = op_random_int(&seed, 1, is_gated(out) ? 6 : 150) * (is_gated(out) ? NT_PANEL : 1);
        const int32_t k = 2 * op_random_int(&seed, 1, 90);
        struct problem p = make(seed, op_random_int(&seed, 1, 70), n, k, out, i % 3 == 1);
        check_problem(env, &p);
        drop(&p);
    }
}

/* Row distances that are multiples of 4 KiB (copied rows), several row blocks, long k. */
static void check_large(struct op_env *env) {
    static const struct {
        int32_t n_tok, n, k;
    } shapes[] = {
        {40,  70, 2048 },
        {150, 40, 4096 },
        {9,   33, 14336},
        {7,   3,  65536},
        {500, 64, 512  }
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct problem p = make(0, shapes[i].n_tok, shapes[i].n, shapes[i].k, NT_GEMM_STORE_F32, false);
        if (i % 2 == 1)
            p.args.ldx = p.w.k; /* 16-byte aligned rows: asynchronous copies, many times around their ring */
        check_problem(env, &p);
        drop(&p);
    }
}

/* One special value in a row of x, and some in rows of w: they reach exactly the elements IEEE sends them to. */
static void check_special(struct op_env *env) {
    static const float special[] = {NAN, INFINITY, -INFINITY};
    uint64_t seed = 5;
    for (int i = 0; i < 3 * NT_GEMM_OUT_COUNT; i++) {
        struct problem p = make(seed, 23, 96, 40, (enum nt_gemm_out)(i / 3), i % 2);
        p.x[op_random_int(&seed, 0, 10) * p.args.ldx + op_random_int(&seed, 0, 39)] = nt_f32_to_bf16(special[i % 3]);
        p.values[op_random_int(&seed, 0, 31) * 40 + op_random_int(&seed, 0, 39)] = nt_f32_to_bf16(special[(i + 1) % 3]);
        p.values[op_random_int(&seed, 64, 95) * 40 + op_random_int(&seed, 0, 39)] =
            nt_f32_to_bf16(special[(i + 2) % 3]);
        /* large but finite: the exponential must not turn them into NaN */
        for (int32_t k = 0; k < 40; k++) p.x[15 * p.args.ldx + k] = nt_f32_to_bf16(k % 2 ? 300.0f : -250.0f);
        pack(&p);
        check_problem(env, &p);
        drop(&p);
    }
}

/* Rows first .. first + n_tok - 1 of p alone give the same bits as all rows together gave. */
static void check_part(struct op_env *env, const struct problem *p, const char *all, int32_t first, int32_t n_tok) {
    struct problem part = *p;
    const size_t row = p->y_bytes / (size_t)p->args.n_tok;
    char what[64];
    snprintf(what, sizeof what, "out %d: rows %d..%d alone", (int)p->args.out, first, first + n_tok - 1);
    part.x = p->x + first * p->args.ldx;
    part.y0 = (char *)p->y0 + (size_t)first * row;
    part.y_bytes = (size_t)n_tok * row;
    part.args.n_tok = n_tok;
    run(&env->be[n_tok % OP_BACKENDS], &part);
    op_compare_bytes(env, what, all + (size_t)first * row, part.y, part.y_bytes);
}

/* A row's result is the same bits alone, in any batch size 1..70 and at any place in it. */
static void check_invariance(struct op_env *env) {
    enum { TOKENS = 70 };
    for (int out = 0; out < NT_GEMM_OUT_COUNT; out++) {
        struct problem p =
            make(77, TOKENS, 96 - (is_gated((enum nt_gemm_out)out) ? 0 : 13), 50, (enum nt_gemm_out)out, true);
        char *all = op_alloc(p.y_bytes);
        run(&env->be[0], &p);
        memcpy(all, p.y, p.y_bytes);
        for (int32_t n_tok = 1; n_tok < TOKENS; n_tok++)
            check_part(env, &p, all, n_tok % 3 == 0 ? 0 : TOKENS - n_tok, n_tok);
        free(all);
        drop(&p);
    }
}

struct tiled {
    int32_t n, k;
    enum nt_gemm_out out;
    bool aligned;     /* rows of x as TMA wants them */
    int32_t n_tok[6]; /* descending, 0: no more */
};

/* Right, and the same bits for the first and last rows alone, which other tiles compute. */
static void check_tiled(struct op_env *env, uint64_t seed, const struct tiled *s) {
    struct problem p = make(seed, s->n_tok[0], s->n, s->k, s->out, seed > 0);
    if (s->aligned) p.args.ldx = p.w.k;
    char *all = op_alloc(p.y_bytes);
    run(&env->be[0], &p);
    compare_all(env, &p);
    memcpy(all, p.y, p.y_bytes);
    for (int t = 1; t < 6 && s->n_tok[t] > 0; t++)
        check_part(env, &p, all, (t & 1) * (s->n_tok[0] - s->n_tok[t]), s->n_tok[t]);
    free(all);
    drop(&p);
}

/* Every tile that a GPU has, by the shapes that choose it on 108 or 132 multiprocessors. CPUs have no tiles to choose
 * and take the first shape alone. */
static void check_tiles(struct op_env *env) {
    static const struct tiled shapes[] = {
        {3072,  200, NT_GEMM_SWIGLU_BF16, false, {512, 250, 128, 50, 20, 1}},
        {27611, 72,  NT_GEMM_ADD_F32,     false, {128, 60, 30, 1}          },
        {6111,  70,  NT_GEMM_STORE_BF16,  false, {250, 64, 23}             },
        {8608,  264, NT_GEMM_GEGLU_BF16,  true,  {150, 50, 1}              },
        {33797, 136, NT_GEMM_STORE_F32,   true,  {70, 17}                  }
    };
    for (size_t i = 0; i < (env->cuda ? sizeof shapes / sizeof shapes[0] : 1); i++) check_tiled(env, i, &shapes[i]);
}

/* More tiles of 128 x 256 than multiprocessors: some blocks go on to a second one, around the ring of stages. */
static void check_further_tiles(struct op_env *env) {
    static const struct tiled shapes[] = {
        {25611, 136, NT_GEMM_ADD_F32,     true, {130, 1}},
        {25632, 200, NT_GEMM_SWIGLU_BF16, true, {130}   }
    };
    for (size_t i = 0; i < (env->cuda ? sizeof shapes / sizeof shapes[0] : 1); i++) check_tiled(env, i, &shapes[i]);
}

/* More threads than panels: rows are divided too, and pieces change hands. A device has no threads to choose: the same
 * call again must give the same bits. */
static void check_threads(struct op_env *env) {
    static const int counts[] = {3, 6, 8};
    for (size_t i = 0; i < (env->cuda ? 1 : sizeof counts / sizeof counts[0]); i++) {
        struct nt_pool *pool;
        struct nt_backend be;
        NT_CHECK(nt_pool_new(&pool, counts[i], false, 0, 1) == NT_OK);
        NT_CHECK(nt_backend_open_cpu(&be, env->isa, pool) == NT_OK);
        for (int32_t n_tok = 1; n_tok < 260; n_tok += 43) {
            struct problem p = make((uint64_t)n_tok, n_tok, 75, 64, NT_GEMM_ADD_F32, true);
            void *one = op_alloc(p.y_bytes);
            run(&env->be[0], &p);
            memcpy(one, p.y, p.y_bytes);
            run(env->cuda ? &env->be[1] : &be, &p);
            op_compare_bytes(env, "many threads against one", one, p.y, p.y_bytes);
            free(one);
            drop(&p);
        }
        nt_backend_close(&be);
        nt_pool_free(pool);
    }
}

static nt_status run_once(struct nt_backend *be, void *ctx) {
    struct problem *p = ctx;
    struct nt_gemm_args a = p->args;
    a.x = p->x;
    a.w = &p->w;
    a.y = p->y;
    return be->ops.gemm(be, &a);
}

static void perf(struct op_env *env) {
    static const struct {
        int32_t n, k;
        enum nt_gemm_out out;
    } shapes[] = {
        {960,  576,  NT_GEMM_STORE_F32  },
        {3072, 576,  NT_GEMM_SWIGLU_BF16},
        {2048, 2048, NT_GEMM_ADD_F32    }
    };
    static const int32_t tokens[] = {1, 32, 128};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (size_t t = 0; t < sizeof tokens / sizeof tokens[0]; t++) {
            struct problem p = make(1, tokens[t], shapes[i].n, shapes[i].k, shapes[i].out, false);
            const double elems = (double)shapes[i].n * shapes[i].k;
            char what[64];
            snprintf(what, sizeof what, "n_tok %d n %d k %d (warm)", tokens[t], shapes[i].n, shapes[i].k);
            op_measure(env, what, 2 * elems * tokens[t], 2 * elems, run_once, &p);
            drop(&p);
        }
    }
}

static const struct op_case cases[] = {
    {NT_OP_gemm, "special values",   check_special,       NULL},
    {NT_OP_gemm, "odd shapes",       check_shapes,        perf},
    {NT_OP_gemm, "large shapes",     check_large,         NULL},
    {NT_OP_gemm, "batch invariance", check_invariance,    NULL},
    {NT_OP_gemm, "tiles",            check_tiles,         NULL},
    {NT_OP_gemm, "further tiles",    check_further_tiles, NULL},
    {NT_OP_gemm, "thread counts",    check_threads,       NULL},
};
const struct op_cases gemm_cases = {sizeof cases / sizeof cases[0], cases};
