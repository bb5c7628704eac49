/* Cases of rmsnorm_bwd: the formula against slopes of the norm, odd widths, with and without dw and dx16, special
 * values by position, a row alone, tokens cut into calls. */
#include "op_gradient.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct problem {
    struct nt_rmsnorm_bwd_args args;
    float *x, *w, *dy, *dx0, *dx, *dw0, *dw; // dx0, dw0: before
    nt_bf16 *dx16;
    int64_t count;
};

static float *random_floats(uint64_t *seed, int64_t count, float scale) {
    float *x = op_alloc((size_t)count * sizeof *x);
    op_random_f32(seed, x, count, scale);
    return x;
}

static struct problem make(uint64_t seed, int32_t n_tok, int32_t d, bool dw, bool dx16) {
    struct problem p = {.count = (int64_t)n_tok * d};
    p.x = random_floats(&seed, p.count, 3);
    p.w = random_floats(&seed, d, 1);
    p.dy = random_floats(&seed, p.count, 1);
    p.dx0 = random_floats(&seed, p.count, 1);
    p.dw0 = random_floats(&seed, d, 1);
    p.dx = op_alloc((size_t)p.count * sizeof *p.dx);
    p.dw = op_alloc((size_t)d * sizeof *p.dw);
    p.dx16 = op_alloc((size_t)p.count * sizeof *p.dx16);
    for (int32_t t = 2; t < n_tok; t += 3) /* rows so small that eps counts, and a zero row */
        for (int32_t i = 0; i < d; i++) p.x[(int64_t)t * d + i] *= t == 5 ? 0.0f : 1e-3f;
    p.args = (struct nt_rmsnorm_bwd_args){.x = p.x,
                                          .w = p.w,
                                          .dy = p.dy,
                                          .dx = p.dx,
                                          .dx16 = dx16 ? p.dx16 : NULL,
                                          .dw = dw ? p.dw : NULL,
                                          .eps = 1e-5f,
                                          .n_tok = n_tok,
                                          .d_model = d};
    return p;
}

static void drop(struct problem *p) {
    free(p->x);
    free(p->w);
    free(p->dy);
    free(p->dx0);
    free(p->dx);
    free(p->dw0);
    free(p->dw);
    free(p->dx16);
}

static void run(struct op_env *env, struct problem *p, int b) {
    memcpy(p->dx, p->dx0, (size_t)p->count * sizeof *p->dx);
    memcpy(p->dw, p->dw0, (size_t)p->args.d_model * sizeof *p->dw);
    memset(p->dx16, 0x5a, (size_t)p->count * sizeof *p->dx16);
    if (env->be[b].ops.rmsnorm_bwd(&env->be[b], &p->args) != NT_OK) op_fail(env, "status");
}

/* In double: dx [n_tok, d] and dw [d], added to. */
static void reference(const struct problem *p, const double *x, const double *w, double *dx, double *dw) {
    const int32_t d = p->args.d_model;
    for (int64_t at = 0; at < p->count; at += d) {
        double sum = 0, dot = 0;
        for (int32_t i = 0; i < d; i++) {
            sum += x[at + i] * x[at + i];
            dot += p->dy[at + i] * w[i] * x[at + i];
        }
        const double s = 1 / sqrt(sum / d + p->args.eps);
        for (int32_t i = 0; i < d; i++) {
            dx[at + i] += s * (p->dy[at + i] * w[i] - x[at + i] * s * s * dot / d);
            dw[i] += p->dy[at + i] * x[at + i] * s;
        }
    }
}

static void check_problem(struct op_env *env, struct problem *p, const char *what) {
    const int32_t d = p->args.d_model;
    const size_t bytes = (size_t)p->count * sizeof *p->dx;
    double *x = op_doubles(p->x, p->count), *w = op_doubles(p->w, d);
    double *dx = op_doubles(p->dx0, p->count), *dw = op_doubles(p->dw0, d);
    float *first = op_alloc(bytes), *first_dw = op_alloc((size_t)d * sizeof *first_dw);
    reference(p, x, w, dx, dw);
    run(env, p, 0);
    memcpy(first, p->dx, bytes);
    memcpy(first_dw, p->dw, (size_t)d * sizeof *p->dw);
    run(env, p, 1);
    (void)op_compare_bytes(env, "dx of one and two threads", first, p->dx, bytes);
    (void)op_compare_bytes(env, "dw of one and two threads", first_dw, p->dw, (size_t)d * sizeof *p->dw);
    (void)op_compare_f32(env, what, dx, p->dx, p->count);
    if (p->args.dx16) (void)op_compare_bf16(env, what, dx, p->dx16, p->count);
    if (p->args.dw)
        (void)op_compare_f32(env, "dw", dw, p->dw, d);
    else
        (void)op_compare_bytes(env, "no dw", p->dw0, p->dw, (size_t)d * sizeof *p->dw);
    free(x);
    free(w);
    free(dx);
    free(dw);
    free(first);
    free(first_dw);
}

static void check_shapes(struct op_env *env) {
    const int32_t widths[] = {1, 2, 7, 16, 31, 63, 64, 65, 100, 576, 577, 1028, 2047, 4096};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        for (int mode = 0; mode < 3; mode++) {
            char what[64];
            struct problem p = make(10 * i + (uint64_t)mode, 1 + (int32_t)(i * 7) % 23, widths[i], mode > 0, mode < 2);
            (void)snprintf(what, sizeof what, "d %d", widths[i]);
            check_problem(env, &p, what);
            drop(&p);
        }
    }
    struct problem wide = make(98, 3, 16384, true, true);
    check_problem(env, &wide, "d 16384");
    drop(&wide);
    if (op_too_large(env, 3e6)) return;
    struct problem p = make(99, 5000, 33, true, true); /* more than one block of tokens */
    check_problem(env, &p, "5000 tokens");
    drop(&p);
}

struct loss {
    const struct problem *p;
    double *x, *w;
};

static double loss_of(void *ctx) {
    const struct loss *l = ctx;
    const int32_t d = l->p->args.d_model;
    double loss = 0;
    for (int64_t at = 0; at < l->p->count; at += d) {
        double sum = 0;
        for (int32_t i = 0; i < d; i++) sum += l->x[at + i] * l->x[at + i];
        const double s = 1 / sqrt(sum / d + l->p->args.eps);
        for (int32_t i = 0; i < d; i++) loss += l->p->dy[at + i] * l->x[at + i] * s * l->w[i];
    }
    return loss;
}

static void check_slopes(struct op_env *env) {
    struct problem p = make(5, 4, 13, true, true);
    for (int32_t i = 0; i < 13; i++) p.x[2 * 13 + i] *= 1e3f; /* a slope wants values far from the step */
    double *dx = op_alloc((size_t)p.count * sizeof *dx), *dw = op_alloc(13 * sizeof *dw);
    struct loss l = {&p, op_doubles(p.x, p.count), op_doubles(p.w, 13)};
    reference(&p, l.x, l.w, dx, dw);
    op_check_gradient(env, "dx", loss_of, &l, l.x, dx, p.count);
    op_check_gradient(env, "dw", loss_of, &l, l.w, dw, 13);
    check_problem(env, &p, "slopes");
    free(dx);
    free(dw);
    free(l.x);
    free(l.w);
    drop(&p);
}

/* A NaN of x or dy is all of its row's and its column's in dw; of w, all rows'. */
static void check_special(struct op_env *env) {
    for (int mode = 0; mode < 4; mode++) {
        struct problem p = make(77, 30, 83, true, true);
        if (mode == 0) p.x[3 * 83 + 82] = NAN;
        if (mode == 1) p.dy[5 * 83] = INFINITY;
        if (mode == 2) p.dx0[7 * 83 + 40] = -INFINITY;
        if (mode == 3) p.w[11] = NAN;
        check_problem(env, &p, "special values");
        drop(&p);
    }
}

/* A row alone has the bits it has among others. */
static void check_alone(struct op_env *env) {
    struct problem p = make(78, 41, 576, false, true);
    float *dx = op_alloc(576 * sizeof *dx);
    nt_bf16 *dx16 = op_alloc(576 * sizeof *dx16);
    run(env, &p, 1);
    for (int64_t at = 0; at < p.count; at += 8 * 576) {
        struct nt_rmsnorm_bwd_args a = p.args;
        memcpy(dx, p.dx0 + at, 576 * sizeof *dx);
        a.x += at;
        a.dy += at;
        a.dx = dx;
        a.dx16 = dx16;
        a.n_tok = 1;
        if (env->be[0].ops.rmsnorm_bwd(&env->be[0], &a) != NT_OK) op_fail(env, "status");
        (void)op_compare_bytes(env, "dx alone", p.dx + at, dx, 576 * sizeof *dx);
        (void)op_compare_bytes(env, "dx16 alone", p.dx16 + at, dx16, 576 * sizeof *dx16);
    }
    free(dx);
    free(dx16);
    drop(&p);
}

/* Tokens in two calls, the first of whole blocks: the bits of one call. */
static void check_cut(struct op_env *env) {
    enum { BLOCK = 4096, TOK = BLOCK + 50, D = 20 };
    struct problem p = make(79, TOK, D, true, true);
    float *dx = op_alloc((size_t)p.count * sizeof *dx), dw[D];
    run(env, &p, 0);
    memcpy(dx, p.dx, (size_t)p.count * sizeof *dx);
    memcpy(dw, p.dw, sizeof dw);
    p.args.n_tok = BLOCK;
    run(env, &p, 1);
    struct nt_rmsnorm_bwd_args a = p.args;
    a.x += BLOCK * D;
    a.dy += BLOCK * D;
    a.dx += BLOCK * D;
    a.dx16 += BLOCK * D;
    a.n_tok = TOK - BLOCK;
    if (env->be[1].ops.rmsnorm_bwd(&env->be[1], &a) != NT_OK) op_fail(env, "status");
    a.n_tok = 0;
    if (env->be[1].ops.rmsnorm_bwd(&env->be[1], &a) != NT_OK) op_fail(env, "status");
    (void)op_compare_bytes(env, "dx in two calls", dx, p.dx, (size_t)p.count * sizeof *dx);
    (void)op_compare_bytes(env, "dw in two calls", dw, p.dw, sizeof dw);
    free(dx);
    drop(&p);
}

static nt_status run_norm(struct nt_backend *be, void *ctx) {
    return be->ops.rmsnorm_bwd(be, ctx);
}

static void perf(struct op_env *env) {
    for (int dw = 0; dw < 2; dw++) {
        struct problem p = make(79, 1024, 576, dw == 1, true);
        memset(p.dy, 0, (size_t)p.count * sizeof *p.dy); /* dx must not grow over the repetitions */
        run(env, &p, 1);
        op_measure(env, dw ? "1024 rows, d 576, dw" : "1024 rows, d 576", 1024 * 576 * 13.0, 1024 * 576 * 18.0,
                   run_norm, &p.args);
        drop(&p);
    }
}

static const struct op_case cases[] = {
    {NT_OP_rmsnorm_bwd, "shapes",  check_shapes,  perf},
    {NT_OP_rmsnorm_bwd, "slopes",  check_slopes,  NULL},
    {NT_OP_rmsnorm_bwd, "special", check_special, NULL},
    {NT_OP_rmsnorm_bwd, "alone",   check_alone,   NULL},
    {NT_OP_rmsnorm_bwd, "cut",     check_cut,     NULL},
};
const struct op_cases norm_bwd_cases = {sizeof cases / sizeof cases[0], cases};
