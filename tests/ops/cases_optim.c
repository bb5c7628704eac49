/* Cases of adamw, sum_squares and sum_parts: against double, many steps, special values, lengths around the blocks; the
 * order of parts, bit by bit. */
#include "ops_bwd.h"
#include "test_ops.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- adamw ------------------------------------------------------------------------------------------------------ */

struct state {
    float *p, *m, *v, *grad;
    double *want_p, *want_m, *want_v;
    int64_t n;
};

static void make(struct state *s, uint64_t seed, int64_t n) {
    float **floats[] = {&s->p, &s->m, &s->v, &s->grad};
    double **doubles[] = {&s->want_p, &s->want_m, &s->want_v};
    s->n = n;
    for (int i = 0; i < 4; i++) {
        *floats[i] = op_alloc((size_t)n * sizeof(float));
        op_random_f32(&seed, *floats[i], n, i == 0 ? 1 : 0.1f);
    }
    for (int64_t i = 0; i < n; i++) s->v[i] = fabsf(s->v[i]) * 0.1f;
    for (int i = 0; i < 3; i++) {
        *doubles[i] = op_alloc((size_t)n * sizeof(double));
        for (int64_t k = 0; k < n; k++) (*doubles[i])[k] = (double)(*floats[i])[k];
    }
}

static void drop(struct state *s) {
    free(s->p);
    free(s->m);
    free(s->v);
    free(s->grad);
    free(s->want_p);
    free(s->want_m);
    free(s->want_v);
}

static struct nt_adamw_args step_of(const struct state *s, int step) {
    return (struct nt_adamw_args){.p = s->p,
                                  .m = s->m,
                                  .v = s->v,
                                  .grad = s->grad,
                                  .grad_scale = 0.37,
                                  .lr = 2e-4,
                                  .beta1 = 0.9,
                                  .beta2 = 0.999,
                                  .eps = 1e-8,
                                  .decay = 0.05,
                                  .bias1 = 1 - pow(0.9, step),
                                  .bias2 = 1 - pow(0.999, step),
                                  .n = s->n};
}

static void reference(struct state *s, const struct nt_adamw_args *a) {
    for (int64_t i = 0; i < s->n; i++) {
        const double g = s->grad[i] * a->grad_scale;
        s->want_p[i] *= 1 - a->lr * a->decay;
        s->want_m[i] = a->beta1 * s->want_m[i] + (1 - a->beta1) * g;
        s->want_v[i] = a->beta2 * s->want_v[i] + (1 - a->beta2) * g * g;
        s->want_p[i] -= a->lr / a->bias1 * s->want_m[i] / (sqrt(s->want_v[i]) / sqrt(a->bias2) + a->eps);
    }
}

static void run(struct op_env *env, struct state *s, int step) {
    const size_t bytes = (size_t)s->n * sizeof(float);
    float *first[3], *const now[3] = {s->p, s->m, s->v};
    const struct nt_adamw_args a = step_of(s, step);
    struct nt_adamw_args other = a;
    for (int i = 0; i < 3; i++) {
        first[i] = op_alloc(bytes);
        memcpy(first[i], now[i], bytes);
    }
    other.p = first[0];
    other.m = first[1];
    other.v = first[2];
    if (env->be[0].ops.adamw(&env->be[0], &other) != NT_OK) op_fail(env, "status");
    if (env->be[1].ops.adamw(&env->be[1], &a) != NT_OK) op_fail(env, "status");
    reference(s, &a);
    for (int i = 0; i < 3; i++) {
        (void)op_compare_bytes(env, "one and two threads", first[i], now[i], bytes);
        free(first[i]);
    }
}

/* The step on a copy of the state by `ops`, in parts of `each`, the gradient `shift` elements off: the same bits. */
static void check_again(struct op_env *env, const char *what, const struct nt_ops *ops, const struct state *s, int step,
                        int64_t each, int64_t shift) {
    const size_t bytes = (size_t)s->n * sizeof(float);
    const float *const from[3] = {s->p, s->m, s->v};
    float *whole[3], *parts[3], *grad = op_alloc(bytes + 64);
    struct nt_adamw_args a = step_of(s, step);
    for (int i = 0; i < 3; i++) {
        whole[i] = op_alloc(bytes);
        parts[i] = op_alloc(bytes);
        memcpy(whole[i], from[i], bytes);
        memcpy(parts[i], from[i], bytes);
    }
    memcpy(grad + shift, s->grad, bytes);
    a.p = whole[0];
    a.m = whole[1];
    a.v = whole[2];
    if (env->be[0].ops.adamw(&env->be[0], &a) != NT_OK) op_fail(env, "status");
    for (int64_t at = 0; at < s->n; at += each) {
        a.p = parts[0] + at;
        a.m = parts[1] + at;
        a.v = parts[2] + at;
        a.grad = grad + shift + at;
        a.n = s->n - at < each ? s->n - at : each;
        if (ops->adamw(&env->be[1], &a) != NT_OK) op_fail(env, "status");
    }
    for (int i = 0; i < 3; i++) {
        (void)op_compare_bytes(env, what, whole[i], parts[i], bytes);
        free(whole[i]);
        free(parts[i]);
    }
    free(grad);
}

static void compare(struct op_env *env, const struct state *s) {
    (void)op_compare_f32(env, "p", s->want_p, s->p, s->n);
    (void)op_compare_f32(env, "m", s->want_m, s->m, s->n);
    (void)op_compare_f32(env, "v", s->want_v, s->v, s->n);
}

static void check_adamw(struct op_env *env) {
    static const int64_t lengths[] = {1, 2, 15, 16, 17, 100, 1023, 20011};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct state s;
        make(&s, i, lengths[i]);
        run(env, &s, 7);
        compare(env, &s);
        drop(&s);
    }
}

/* From moments of 0: the first step is lr against the sign of the gradient, whatever its size. */
static void check_steps(struct op_env *env) {
    enum { N = 300, STEPS = 50 };
    struct state s;
    uint64_t seed = 9;
    make(&s, 30, N);
    float before[N];
    memcpy(before, s.p, sizeof before);
    for (int i = 0; i < N; i++) s.m[i] = s.v[i] = 0;
    for (int i = 0; i < N; i++) s.want_m[i] = s.want_v[i] = 0;
    for (int i = 0; i < N; i++) s.grad[i] = ldexpf(i % 2 ? -1 : 1, i % 41 - 20);
    run(env, &s, 1);
    for (int i = 0; i < N; i++) {
        const double want = before[i] * (1 - 2e-4 * 0.05) - copysign(2e-4, s.grad[i]);
        if (i % 41 > 10 && fabs(s.p[i] - want) > 1e-6) op_fail(env, "the first step at %d ends at %g", i, s.p[i]);
    }
    compare(env, &s);
    for (int step = 2; step <= STEPS; step++) {
        op_random_f32(&seed, s.grad, N, 0.1f);
        run(env, &s, step);
    }
    compare(env, &s);
    drop(&s);
}

static void check_special(struct op_env *env) {
    struct state s;
    make(&s, 40, 50);
    s.grad[3] = NAN;
    s.grad[20] = INFINITY;
    s.p[30] = s.grad[31] = 0;
    s.want_p[30] = 0;
    s.p[33] = -INFINITY;
    s.want_p[33] = -INFINITY;
    run(env, &s, 3);
    compare(env, &s);
    drop(&s);
}

/* Wherever arrays begin and end, and on whatever machine: every operation rounds once. */
static void check_parts(struct op_env *env) {
    static const int64_t each[] = {300, 77, 2, 1};
    struct state s;
    make(&s, 35, 300);
    for (int i = 0; i < 4; i++)
        for (int64_t shift = 0; shift < 3; shift++) check_again(env, "parts", &env->be[1].ops, &s, 5, each[i], shift);
    check_again(env, "the portable body", nt_cpu_bodies(NT_ISA_PORTABLE), &s, 5, 300, 0);
    s.n = 0;
    check_again(env, "nothing", &env->be[1].ops, &s, 5, 1, 0);
    drop(&s);
}

/* ---- sum_squares ------------------------------------------------------------------------------------------------ */

static void check_squares(struct op_env *env) {
    static const int64_t lengths[] = {1, 7, 8, 9, 4095, 4096, 4097, 8192, 50021, 300 * 4096 + 100};
    for (size_t i = 0; i < 2 * sizeof lengths / sizeof lengths[0]; i++) {
        const int64_t n = lengths[i / 2];
        uint64_t seed = i;
        float *x = op_alloc((size_t)(n + 1) * sizeof *x);
        double sum[OP_BACKENDS] = {-1, -2};
        long double want = 0;
        op_random_f32(&seed, x, n, 1);
        for (int64_t k = 0; k < n; k++) x[k] = ldexpf(x[k], (int)(k % 61) - 30);
        if (i % 2) x[n / 2] = n % 2 ? NAN : INFINITY;
        for (int64_t k = 0; k < n; k++) want += (long double)x[k] * x[k];
        for (int b = 0; b < OP_BACKENDS; b++) {
            if (b == 1) memmove(x + 1, x, (size_t)n * sizeof *x); /* the same values, wherever they lie */
            const struct nt_sum_squares_args a = {x + b, &sum[b], n};
            if (env->be[b].ops.sum_squares(&env->be[b], &a) != NT_OK) op_fail(env, "status");
        }
        (void)op_compare_bytes(env, "one and two threads", &sum[0], &sum[1], sizeof sum[0]);
        env->n_checked++;
        const bool same = isfinite((double)want) ? fabs(sum[0] - (double)want) <= 1e-12 * (double)want
                                                 : isnan((double)want) == isnan(sum[0]) && !isfinite(sum[0]);
        if (!same) op_fail(env, "n %lld: %.17g, reference %.17g", (long long)n, sum[0], (double)want);
        free(x);
    }
    double sum = 5;
    const struct nt_sum_squares_args none = {NULL, &sum, 0};
    if (env->be[1].ops.sum_squares(&env->be[1], &none) != NT_OK || sum != 0) op_fail(env, "nothing sums to %g", sum);
}

/* ---- sum_parts -------------------------------------------------------------------------------------------------- */

/* Values of many exponents, so that another order has other bits; zeros of either sign. */
static float part_at(uint64_t *seed) {
    const uint32_t h = op_random(seed);
    if (h % 16 == 0) return h & 16 ? -0.0f : 0.0f;
    return ldexpf((float)(h >> 8) / 16777216 - 0.5f, (int)(h & 15));
}

static void parts_case(struct op_env *env, int64_t n, int32_t n_part, int shift) {
    uint64_t seed = (uint64_t)(n * 64 + n_part);
    const size_t bytes = (size_t)n * sizeof(float);
    const int64_t at = 4 + n_part % 3 / 2;
    float *x = op_alloc((size_t)n_part * bytes + 16), *y = op_alloc(bytes + 32), *want = op_alloc(bytes + 32);
    for (int64_t i = 0; i < n * n_part; i++) x[shift + i] = part_at(&seed);
    for (int64_t i = 0; i < n + 8; i++) y[i] = want[i] = 77;
    for (int64_t i = 0; i < n; i++) {
        float sum = x[shift + i];
        for (int32_t r = 1; r < n_part; r++) sum += x[shift + r * n + i];
        want[at + i] = sum;
    }
    for (int b = 0; b < OP_BACKENDS; b++) {
        const struct nt_sum_parts_args a = {.x = x + shift, .y = y + at, .n = n, .n_part = n_part};
        if (env->be[b].ops.sum_parts(&env->be[b], &a) != NT_OK) op_fail(env, "status");
        (void)op_compare_bytes(env, "parts in order", want, y, bytes + 32);
    }
    free(x);
    free(y);
    free(want);
}

static void check_parts_in_order(struct op_env *env) {
    static const int64_t lengths[] = {0, 1, 3, 4, 16, 17, 1023, 1024, 4100, 20011};
    static const int32_t n_parts[] = {1, 2, 3, 4, 5, 6, 8, 9, 17};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        for (size_t k = 0; k < sizeof n_parts / sizeof n_parts[0]; k++)
            parts_case(env, lengths[i], n_parts[k], i % 2 ? 0 : (int)(k % 4));
}

/* ---- perf ------------------------------------------------------------------------------------------------------- */

static nt_status run_adamw(struct nt_backend *be, void *ctx) {
    return be->ops.adamw(be, ctx);
}
static nt_status run_squares(struct nt_backend *be, void *ctx) {
    return be->ops.sum_squares(be, ctx);
}

static nt_status run_parts(struct nt_backend *be, void *ctx) {
    return be->ops.sum_parts(be, ctx);
}

static void perf_adamw(struct op_env *env) {
    struct state s;
    make(&s, 50, 1 << 22);
    struct nt_adamw_args a = step_of(&s, 10);
    op_measure(env, "4 M parameters", 15.0 * (1 << 22), 28.0 * (1 << 22), run_adamw, &a);
    drop(&s);
}

static void perf_squares(struct op_env *env) {
    struct state s;
    double sum;
    make(&s, 50, 1 << 22);
    struct nt_sum_squares_args a = {s.p, &sum, 1 << 22};
    op_measure(env, "4 M values", 2.0 * (1 << 22), 4.0 * (1 << 22), run_squares, &a);
    drop(&s);
}

static void perf_parts(struct op_env *env) {
    enum { N = 1 << 20, PARTS = 4 };
    uint64_t seed = 51;
    float *x = op_alloc(sizeof(float) * N * PARTS), *y = op_alloc(sizeof(float) * N);
    op_random_f32(&seed, x, N * PARTS, 1);
    struct nt_sum_parts_args a = {.x = x, .y = y, .n = N, .n_part = PARTS};
    op_measure(env, "4 parts of 1 M", (PARTS - 1.0) * N, 4.0 * (PARTS + 1) * N, run_parts, &a);
    free(x);
    free(y);
}

static const struct op_case cases[] = {
    {NT_OP_adamw,       "shapes",  check_adamw,          perf_adamw  },
    {NT_OP_adamw,       "steps",   check_steps,          NULL        },
    {NT_OP_adamw,       "special", check_special,        NULL        },
    {NT_OP_adamw,       "parts",   check_parts,          NULL        },
    {NT_OP_sum_squares, "shapes",  check_squares,        perf_squares},
    {NT_OP_sum_parts,   "order",   check_parts_in_order, perf_parts  },
};
const struct op_cases optim_cases = {sizeof cases / sizeof cases[0], cases};
