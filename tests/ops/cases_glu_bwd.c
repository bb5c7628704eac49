/* Cases of glu_bwd: both activations against slopes, their whole range, in place, only the value, ragged strides. */
#include "op_gradient.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HALF = NT_PANEL / 2, SENTINEL = 0x4321 };

struct problem {
    struct nt_glu_bwd_args args;
    nt_bf16 *pre, *dpre, *y;
    float *dy;
    size_t pre_bytes, y_bytes;
};

static struct problem make(uint64_t seed, int32_t n_tok, int32_t n, bool gelu) {
    struct problem p = {0};
    const int32_t step = seed / 2 % 2 == 1 ? 1 : 8; /* a GPU reads aligned rows in other ways */
    const int64_t ldpre = 2 * n + step * op_random_int(&seed, 0, 9), lddy = n + step * op_random_int(&seed, 0, 9);
    const int64_t ldy = n + 3 * step;
    p.args = (struct nt_glu_bwd_args){.ldpre = ldpre, .lddy = lddy, .ldy = ldy, .n_tok = n_tok, .n = n, .gelu = gelu};
    p.pre_bytes = (size_t)(n_tok * ldpre) * sizeof *p.pre;
    p.y_bytes = (size_t)(n_tok * p.args.ldy) * sizeof *p.y;
    p.pre = op_alloc(p.pre_bytes);
    p.dpre = op_alloc(p.pre_bytes);
    p.y = op_alloc(p.y_bytes);
    p.dy = op_alloc((size_t)(n_tok * lddy) * sizeof *p.dy);
    op_random_bf16(&seed, p.pre, n_tok * ldpre, 3);
    op_random_f32(&seed, p.dy, n_tok * lddy, 1);
    p.args.pre = p.pre;
    p.args.dpre = p.dpre;
    p.args.dy = p.dy;
    p.args.y = p.y;
    return p;
}

static void drop(struct problem *p) {
    free(p->pre);
    free(p->dpre);
    free(p->y);
    free(p->dy);
}

static void run(struct op_env *env, struct problem *p, int b) {
    for (size_t i = 0; i < p->pre_bytes / sizeof *p->dpre; i++) p->dpre[i] = SENTINEL;
    for (size_t i = 0; i < p->y_bytes / sizeof *p->y; i++) p->y[i] = SENTINEL;
    if (env->be[b].ops.glu_bwd(&env->be[b], &p->args) != NT_OK) op_fail(env, "status");
}

/* 1 / (1 + exp(-v)) without a difference of near numbers. */
static double logistic(double v) {
    return v < 0 ? exp(v) / (1 + exp(v)) : 1 / (1 + exp(-v));
}

static double act(double x, bool gelu) {
    return x * logistic(gelu ? 2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x) : x);
}

static double act_slope(double x, bool gelu) {
    const double l = x > 64 ? 64 : x < -64 ? -64 : x;
    const double v = gelu ? 2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x) : x;
    const double lv = gelu ? 2 * sqrt(2 / M_PI) * (l + 3 * 0.044715 * l * l * l) : l;
    return logistic(v) + lv * logistic(v) * logistic(-v);
}

/* Packed [n_tok, 2 n] and [n_tok, n], from the inputs as doubles of the same shapes. */
static void reference(const struct problem *p, const double *pre, double *dpre, double *y) {
    const int32_t n = p->args.n;
    for (int64_t t = 0; t < p->args.n_tok; t++) {
        for (int32_t j = 0; j < n; j++) {
            const int64_t g = t * 2 * n + nt_packed_gate_row(j), u = t * 2 * n + nt_packed_up_row(j);
            const double dy = p->dy[t * p->args.lddy + j];
            y[t * n + j] = act(pre[g], p->args.gelu) * pre[u];
            dpre[g] = dy * pre[u] * act_slope(pre[g], p->args.gelu);
            dpre[u] = dy * act(pre[g], p->args.gelu);
        }
    }
}

static double *packed_pre(const struct problem *p) {
    const int32_t n = 2 * p->args.n;
    double *to = op_alloc((size_t)(p->args.n_tok * (int64_t)n) * sizeof *to);
    for (int64_t t = 0; t < p->args.n_tok; t++)
        for (int32_t i = 0; i < n; i++) to[t * n + i] = (double)nt_bf16_to_f32(p->pre[t * p->args.ldpre + i]);
    return to;
}

/* The columns [0, n) of rows of ld elements; what lies behind them must be the sentinel. */
static void compare_rows(struct op_env *env, const char *what, const double *want, const nt_bf16 *got, int64_t ld,
                         int32_t n_tok, int32_t n) {
    nt_bf16 *packed = op_alloc((size_t)n_tok * (size_t)n * sizeof *packed);
    for (int64_t t = 0; t < n_tok; t++) {
        memcpy(packed + t * n, got + t * ld, (size_t)n * sizeof *packed);
        for (int64_t i = n; i < ld; i++)
            if (got[t * ld + i] != SENTINEL) op_fail(env, "%s: padding of row %d was written", what, (int)t);
    }
    (void)op_compare_bf16(env, what, want, packed, (int64_t)n_tok * n);
    free(packed);
}

static void check_problem(struct op_env *env, struct problem *p, const char *what) {
    const int32_t n = p->args.n, n_tok = p->args.n_tok;
    double *pre = packed_pre(p), *dpre = op_alloc((size_t)n_tok * 2 * (size_t)n * sizeof *dpre);
    double *y = op_alloc((size_t)n_tok * (size_t)n * sizeof *y);
    nt_bf16 *first = op_alloc(p->pre_bytes), *first_y = op_alloc(p->y_bytes), *kept = op_alloc(p->pre_bytes);
    reference(p, pre, dpre, y);
    run(env, p, 0);
    memcpy(first, p->dpre, p->pre_bytes);
    memcpy(first_y, p->y, p->y_bytes);
    run(env, p, 1);
    (void)op_compare_bytes(env, "dpre of one and two threads", first, p->dpre, p->pre_bytes);
    (void)op_compare_bytes(env, "y of one and two threads", first_y, p->y, p->y_bytes);
    compare_rows(env, what, dpre, p->dpre, p->args.ldpre, n_tok, 2 * n);
    compare_rows(env, "y", y, p->y, p->args.ldy, n_tok, n);
    struct nt_glu_bwd_args a = p->args; /* only y */
    a.dy = NULL;
    a.dpre = NULL;
    memset(p->y, 0, p->y_bytes);
    if (env->be[1].ops.glu_bwd(&env->be[1], &a) != NT_OK) op_fail(env, "status");
    for (int64_t t = 0; t < n_tok; t++)
        (void)op_compare_bytes(env, "only y", first_y + t * a.ldy, p->y + t * a.ldy, (size_t)n * sizeof *p->y);
    a = p->args; /* in place, no y */
    a.y = NULL;
    a.dpre = p->pre;
    memcpy(kept, p->pre, p->pre_bytes);
    if (env->be[1].ops.glu_bwd(&env->be[1], &a) != NT_OK) op_fail(env, "status");
    for (int64_t t = 0; t < n_tok; t++)
        (void)op_compare_bytes(env, "in place", first + t * a.ldpre, p->pre + t * a.ldpre,
                               2 * (size_t)n * sizeof *p->pre);
    memcpy(p->pre, kept, p->pre_bytes);
    free(pre);
    free(dpre);
    free(y);
    free(first);
    free(first_y);
    free(kept);
}

static void check_shapes(struct op_env *env) {
    static const int32_t widths[] = {HALF, 2 * HALF, 3 * HALF, 7 * HALF, 1536};
    for (size_t i = 0; i < 2 * sizeof widths / sizeof widths[0]; i++) {
        const int32_t n = widths[i / 2];
        char what[64];
        struct problem p = make(i, n > 1000 ? 3 : 1 + (int32_t)i, n, i % 2 == 1);
        (void)snprintf(what, sizeof what, "%s, n %d", i % 2 ? "gelu" : "silu", n);
        check_problem(env, &p, what);
        drop(&p);
    }
}

struct loss {
    const struct problem *p;
    double *pre;
};

static double loss_of(void *ctx) {
    const struct loss *l = ctx;
    const struct nt_glu_bwd_args *a = &l->p->args;
    double loss = 0;
    for (int64_t t = 0; t < a->n_tok; t++) {
        for (int32_t j = 0; j < a->n; j++) {
            const double *row = l->pre + t * 2 * a->n;
            loss += a->dy[t * a->lddy + j] * act(row[nt_packed_gate_row(j)], a->gelu) * row[nt_packed_up_row(j)];
        }
    }
    return loss;
}

static void check_slopes(struct op_env *env) {
    for (int gelu = 0; gelu < 2; gelu++) {
        struct problem p = make(20, 2, 2 * HALF, gelu == 1);
        const int64_t count = (int64_t)p.args.n_tok * 2 * p.args.n;
        double *dpre = op_alloc((size_t)count * sizeof *dpre), *y = op_alloc((size_t)count * sizeof *y);
        struct loss l = {&p, packed_pre(&p)};
        reference(&p, l.pre, dpre, y);
        op_check_gradient(env, gelu ? "gelu" : "silu", loss_of, &l, l.pre, dpre, count);
        check_problem(env, &p, "slopes");
        free(dpre);
        free(y);
        free(l.pre);
        drop(&p);
    }
}

/* From where the activation is x to where it is 0; NaN, and infinities in all but the gate, whose product with 0 they
 * would need. */
static void check_special(struct op_env *env) {
    for (int gelu = 0; gelu < 2; gelu++) {
        struct problem p = make(30, 8, 2 * HALF, gelu == 1);
        for (int32_t j = 0; j < 2 * HALF; j++) {
            p.pre[nt_packed_gate_row(j)] = nt_f32_to_bf16((float)(j - HALF) * 8);
            p.pre[p.args.ldpre + nt_packed_gate_row(j)] = nt_f32_to_bf16(ldexpf(j % 2 ? -1 : 1, 4 * j));
        }
        nt_bf16 *row = p.pre + 3 * p.args.ldpre;
        row[nt_packed_gate_row(3)] = nt_f32_to_bf16(NAN);
        row[nt_packed_up_row(7)] = nt_f32_to_bf16(NAN);
        row[nt_packed_up_row(9)] = nt_f32_to_bf16(-INFINITY);
        row[nt_packed_gate_row(20)] = nt_f32_to_bf16(INFINITY);
        p.dy[4 * p.args.lddy + 30] = INFINITY;
        p.dy[4 * p.args.lddy + 2] = NAN;
        check_problem(env, &p, "special values");
        drop(&p);
    }
}

static nt_status run_glu(struct nt_backend *be, void *ctx) {
    return be->ops.glu_bwd(be, ctx);
}

static void perf(struct op_env *env) {
    for (int gelu = 0; gelu < 2; gelu++) {
        struct problem p = make(40, 1024, 1536, gelu == 1);
        run(env, &p, 1);
        op_measure(env, gelu ? "1024 x 1536, gelu" : "1024 x 1536, silu", 1024 * 1536 * 20.0, 1024 * 1536 * 14.0,
                   run_glu, &p.args);
        drop(&p);
    }
}

static const struct op_case cases[] = {
    {NT_OP_glu_bwd, "shapes",  check_shapes,  perf},
    {NT_OP_glu_bwd, "slopes",  check_slopes,  NULL},
    {NT_OP_glu_bwd, "special", check_special, NULL},
};
const struct op_cases glu_bwd_cases = {sizeof cases / sizeof cases[0], cases};
