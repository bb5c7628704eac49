/* Cases of the rmsnorm op: odd widths, residual add, row selection, special values, independence of the rows. */
#include "test_ops.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct problem {
    struct nt_rmsnorm_args args;
    float *x0, *x, *delta, *w; // x0 [n_tok, d]: before; x: of the last run
    float *keep;               // [n_rows, d]
    nt_bf16 *y;
    int32_t *rows;
    int32_t n_tok;
    size_t x_bytes, y_bytes;
};

enum { SENTINEL = 0x4321 };

static struct problem make(uint64_t seed, int32_t n_tok, int32_t n_rows, int32_t d, bool delta, bool rows) {
    struct problem p = {.n_tok = n_tok};
    p.args =
        (struct nt_rmsnorm_args){.eps = 1e-5f, .n_rows = n_rows, .d_model = d, .ldy = d + op_random_int(&seed, 0, 5)};
    p.x_bytes = (size_t)n_tok * (size_t)d * sizeof(float);
    p.y_bytes = (size_t)(n_rows * p.args.ldy) * sizeof(nt_bf16);
    p.x0 = op_alloc(p.x_bytes);
    p.x = op_alloc(p.x_bytes);
    p.delta = op_alloc(p.x_bytes);
    p.w = op_alloc((size_t)d * sizeof(float));
    p.y = op_alloc(p.y_bytes);
    p.keep = op_alloc((size_t)n_rows * (size_t)d * sizeof(float));
    p.rows = op_alloc((size_t)n_rows * sizeof(int32_t));
    op_random_f32(&seed, p.x0, (int64_t)n_tok * d, 3.0f);
    op_random_f32(&seed, p.delta, (int64_t)n_tok * d, 1.0f);
    op_random_f32(&seed, p.w, d, 1.0f);
    for (int32_t r = 0; r < n_rows; r++) p.rows[r] = op_random_int(&seed, 0, n_tok - 1);
    for (int32_t t = 2; t < n_tok; t += 3) /* rows so small that eps counts, and a zero row */
        for (int32_t i = 0; i < d; i++) {
            p.x0[(int64_t)t * d + i] *= t == 5 ? 0.0f : 1e-3f;
            p.delta[(int64_t)t * d + i] *= t == 5 ? 0.0f : 1e-3f;
        }
    p.args.w = p.w;
    if (delta) p.args.delta = p.delta;
    if (rows) p.args.rows = p.rows;
    return p;
}

static void drop(struct problem *p) {
    free(p->x0);
    free(p->x);
    free(p->delta);
    free(p->w);
    free(p->y);
    free(p->keep);
    free(p->rows);
}

static void run(struct op_env *env, struct problem *p, int b) {
    memcpy(p->x, p->x0, p->x_bytes);
    for (size_t i = 0; i < p->y_bytes / sizeof *p->y; i++) p->y[i] = SENTINEL;
    p->args.x = p->x;
    p->args.y = p->y;
    if (env->be[b].ops.rmsnorm(&env->be[b], &p->args) != NT_OK) op_fail(env, "status");
}

/* The row in double; the sum x + delta is rounded to float, as the residual stream is. */
static void reference(const struct problem *p, int32_t r, double *x, double *y) {
    const int32_t d = p->args.d_model;
    const int64_t t = p->args.rows ? p->args.rows[r] : r;
    double sum = 0;
    for (int32_t i = 0; i < d; i++) {
        x[i] = p->args.delta ? p->x0[t * d + i] + p->delta[t * d + i] : p->x0[t * d + i];
        sum += x[i] * x[i];
    }
    const double s = 1.0 / sqrt(sum / d + p->args.eps);
    for (int32_t i = 0; i < d; i++) y[i] = x[i] * s * p->w[i];
}

static void check_problem(struct op_env *env, struct problem *p) {
    const int32_t d = p->args.d_model;
    const int64_t count = (int64_t)p->args.n_rows * d;
    double *x = op_alloc((size_t)d * sizeof *x), *y = op_alloc((size_t)count * sizeof *y);
    nt_bf16 *got = op_alloc((size_t)count * sizeof *got), *first = op_alloc(p->y_bytes);
    for (int b = 0; b < OP_BACKENDS; b++) {
        run(env, p, b);
        for (int32_t r = 0; r < p->args.n_rows; r++) {
            reference(p, r, x, y + (int64_t)r * d);
            const float *now = p->x + (p->args.rows ? p->rows[r] : r) * (int64_t)d;
            if (p->args.delta) (void)op_compare_f32(env, "residual", x, now, d);
            if (p->args.keep)
                (void)op_compare_bytes(env, "kept", now, p->keep + (int64_t)r * d, (size_t)d * sizeof *now);
            memcpy(got + (int64_t)r * d, p->y + r * p->args.ldy, (size_t)d * sizeof *got);
            for (int64_t i = d; i < p->args.ldy; i++)
                if (p->y[r * p->args.ldy + i] != SENTINEL) op_fail(env, "padding of row %d was written", r);
        }
        if (!p->args.delta) (void)op_compare_bytes(env, "x stays", p->x0, p->x, p->x_bytes);
        (void)op_compare_bf16(env, "y", y, got, count);
        if (b == 0) memcpy(first, p->y, p->y_bytes);
    }
    (void)op_compare_bytes(env, "one and two threads", first, p->y, p->y_bytes);
    free(x);
    free(y);
    free(got);
    free(first);
}

static void check_shapes(struct op_env *env) {
    /* from 1024 on: the widest of a warp, blocks of 3, 9 and 32 warps, and what is too wide for registers */
    const int32_t widths[] = {1, 2, 7, 16, 31, 63, 64, 65, 100, 576, 577, 2047, 1024, 1028, 4100, 16384, 16388};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        for (int mode = 0; mode < 6; mode++) { /* nothing more, delta or rows; kept or not */
            const int32_t n = 1 + (int32_t)(i * 7) % 23;
            struct problem p = make(10 * i + (uint64_t)mode, n, mode % 3 == 2 ? n / 2 + 1 : n, widths[i], mode % 3 == 1,
                                    mode % 3 == 2);
            if (mode >= 3) p.args.keep = p.keep;
            check_problem(env, &p);
            drop(&p);
        }
    }
}

/* NaN: its whole row. Inf: NaN at its place, 0 elsewhere in the row. */
static void check_special(struct op_env *env) {
    for (int mode = 0; mode < 2; mode++) {
        struct problem p = make(77, 30, 30, 83, mode == 1, false);
        p.x0[3 * 83 + 82] = NAN;
        p.x0[5 * 83] = INFINITY;
        p.delta[7 * 83 + 40] = -INFINITY;
        p.w[11] = NAN;
        check_problem(env, &p);
        drop(&p);
    }
}

/* A row alone has the bits it has among others. */
static void check_alone(struct op_env *env) {
    struct problem p = make(78, 41, 41, 576, true, false);
    const size_t row = 576 * sizeof(nt_bf16);
    nt_bf16 *alone = op_alloc(row);
    run(env, &p, 1);
    for (int32_t r = 0; r < 41; r += 8) {
        struct nt_rmsnorm_args a = p.args;
        float *x = op_alloc(576 * sizeof *x);
        memcpy(x, p.x0 + (int64_t)r * 576, 576 * sizeof *x);
        a.x = x;
        a.delta += (int64_t)r * 576;
        a.y = alone;
        a.n_rows = 1;
        if (env->be[0].ops.rmsnorm(&env->be[0], &a) != NT_OK) op_fail(env, "status");
        (void)op_compare_bytes(env, "row alone", p.y + r * p.args.ldy, alone, row);
        free(x);
    }
    free(alone);
    drop(&p);
}

static nt_status run_norm(struct nt_backend *be, void *ctx) {
    return be->ops.rmsnorm(be, ctx);
}

static void perf(struct op_env *env) {
    const int32_t tokens[] = {1, 64, 512};
    for (int i = 0; i < 3; i++) {
        const int32_t n = tokens[i];
        struct problem p = make(79, n, n, 576, true, false);
        char what[64];
        run(env, &p, 1);
        memset(p.delta, 0, p.x_bytes); /* the residual must not grow over the repetitions */
        (void)snprintf(what, sizeof what, "%d rows, d 576, residual", n);
        op_measure(env, what, n * 576 * 5.0, n * 576 * 14.0, run_norm, &p.args);
        drop(&p);
    }
}

static const struct op_case cases[] = {
    {NT_OP_rmsnorm, "shapes",  check_shapes,  perf},
    {NT_OP_rmsnorm, "special", check_special, NULL},
    {NT_OP_rmsnorm, "alone",   check_alone,   NULL},
};
const struct op_cases norm_cases = {sizeof cases / sizeof cases[0], cases};
