/* Cases of logit_bwd: the formula against slopes of the log-softmax, odd widths, targets of other shards, shards equal
 * to the whole, special values by position. */
#include "op_gradient.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_ROW = 7, SENTINEL = 0x4321 };

struct problem {
    struct nt_logit_bwd_args args;
    float *logits, max[N_ROW], sum_exp[N_ROW], coef[N_ROW];
    int32_t target[N_ROW];
    nt_bf16 *d;
    size_t bytes;
};

/* max and sum_exp in double, then as floats: what the forward would hand over. */
static void set_sums(struct problem *p) {
    for (int32_t r = 0; r < N_ROW; r++) {
        const float *x = p->logits + r * p->args.ld;
        double max = x[0], sum = 0;
        for (int32_t v = 0; v < p->args.n_vocab; v++)
            if (x[v] > max || isnan(x[v])) max = x[v];
        for (int32_t v = 0; v < p->args.n_vocab; v++) sum += exp(x[v] - max);
        p->max[r] = (float)max;
        p->sum_exp[r] = (float)sum;
    }
}

static void make(struct problem *p, uint64_t seed, int32_t n, float scale) {
    memset(p, 0, sizeof *p);
    const int32_t step = seed % 3 == 1 ? 1 : 8,
                  whole = (n + step - 1) / step * step; /* aligned rows, and ragged ones */
    const int64_t ld = whole + step * op_random_int(&seed, 0, 9), lddl = whole + step * op_random_int(&seed, 0, 9);
    p->bytes = (size_t)(N_ROW * lddl) * sizeof *p->d;
    p->d = op_alloc(p->bytes);
    p->logits = op_alloc((size_t)(N_ROW * ld) * sizeof *p->logits);
    op_random_f32(&seed, p->logits, N_ROW * ld, scale);
    op_random_f32(&seed, p->coef, N_ROW, 1);
    for (int32_t r = 0; r < N_ROW; r++) p->target[r] = op_random_int(&seed, 0, n - 1);
    p->target[0] = n - 1;
    p->target[1] = n; /* another rank's */
    p->target[2] = -5;
    p->args = (struct nt_logit_bwd_args){p->logits, ld, p->target, p->max, p->sum_exp, p->coef, p->d, lddl, N_ROW, n};
    set_sums(p);
}

static void drop(struct problem *p) {
    free(p->logits);
    free(p->d);
}

static void run(struct op_env *env, struct problem *p, int b) {
    for (size_t i = 0; i < p->bytes / sizeof *p->d; i++) p->d[i] = SENTINEL;
    if (env->be[b].ops.logit_bwd(&env->be[b], &p->args) != NT_OK) op_fail(env, "status");
}

/* [N_ROW, n] of logits [N_ROW, n], the sums taken from the double. */
static void reference(const struct problem *p, const double *x, double *d) {
    const int32_t n = p->args.n_vocab;
    for (int64_t r = 0; r < N_ROW; r++) {
        double max = x[r * n], sum = 0;
        for (int32_t v = 0; v < n; v++)
            if (x[r * n + v] > max || isnan(x[r * n + v])) max = x[r * n + v];
        for (int32_t v = 0; v < n; v++) sum += exp(x[r * n + v] - max);
        for (int32_t v = 0; v < n; v++) {
            const double e = exp(x[r * n + v] - max);
            d[r * n + v] = p->coef[r] * (v == p->target[r] ? (sum - e) / sum : -e / sum);
        }
    }
}

static double *packed_logits(const struct problem *p) {
    const int32_t n = p->args.n_vocab;
    double *x = op_alloc((size_t)(N_ROW * n) * sizeof *x);
    for (int64_t r = 0; r < N_ROW; r++)
        for (int32_t v = 0; v < n; v++) x[r * n + v] = (double)p->logits[r * p->args.ld + v];
    return x;
}

static void check_problem(struct op_env *env, struct problem *p, const char *what) {
    const int32_t n = p->args.n_vocab;
    double *x = packed_logits(p), *want = op_alloc((size_t)(N_ROW * n) * sizeof *want);
    nt_bf16 *first = op_alloc(p->bytes), *got = op_alloc((size_t)(N_ROW * n) * sizeof *got);
    reference(p, x, want);
    run(env, p, 0);
    memcpy(first, p->d, p->bytes);
    run(env, p, 1);
    (void)op_compare_bytes(env, "one and two threads", first, p->d, p->bytes);
    for (int64_t r = 0; r < N_ROW; r++) {
        memcpy(got + r * n, p->d + r * p->args.lddl, (size_t)n * sizeof *got);
        for (int64_t i = n; i < p->args.lddl; i++)
            if (p->d[r * p->args.lddl + i] != SENTINEL) op_fail(env, "padding of row %d was written", (int)r);
    }
    (void)op_compare_bf16(env, what, want, got, (int64_t)N_ROW * n);
    free(x);
    free(want);
    free(first);
    free(got);
}

static void check_shapes(struct op_env *env) {
    static const int32_t widths[] = {1, 2, 3, 15, 16, 17, 63, 64, 65, 100, 1023, 1025, 5003};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        struct problem p;
        char what[64];
        make(&p, i, widths[i], 4);
        (void)snprintf(what, sizeof what, "n_vocab %d", widths[i]);
        check_problem(env, &p, what);
        drop(&p);
    }
    struct problem p; /* rows that are sure of their token: what is left of 1 - p */
    make(&p, 90, 200, 2);
    for (int32_t r = 3; r < N_ROW; r++) p.logits[r * p.args.ld + p.target[r]] = 22;
    set_sums(&p);
    check_problem(env, &p, "sure rows");
    drop(&p);
}

struct loss {
    const struct problem *p;
    double *x;
};

/* sum of coef log p(target) */
static double loss_of(void *ctx) {
    const struct loss *l = ctx;
    const int32_t n = l->p->args.n_vocab;
    double loss = 0;
    for (int64_t r = 0; r < N_ROW; r++) {
        const double *x = l->x + r * n;
        double max = x[0], sum = 0;
        for (int32_t v = 0; v < n; v++) max = fmax(max, x[v]);
        for (int32_t v = 0; v < n; v++) sum += exp(x[v] - max);
        const int32_t t = l->p->target[r];
        loss += l->p->coef[r] * ((t >= 0 && t < n ? x[t] : 0) - max - log(sum));
    }
    return loss;
}

static void check_slopes(struct op_env *env) {
    struct problem p;
    make(&p, 20, 23, 2);
    double *d = op_alloc(N_ROW * 23 * sizeof *d);
    struct loss l = {&p, packed_logits(&p)};
    reference(&p, l.x, d);
    op_check_gradient(env, "logits", loss_of, &l, l.x, d, N_ROW * 23);
    check_problem(env, &p, "slopes");
    free(d);
    free(l.x);
    drop(&p);
}

/* The columns of two shards, each with the sums of the whole row, are those of the whole. */
static void check_shards(struct op_env *env) {
    enum { N = 300 };
    struct problem p;
    make(&p, 30, N, 3);
    run(env, &p, 1);
    nt_bf16 part[N_ROW * N];
    for (int32_t cut = 1; cut < N; cut += 71) {
        for (int side = 0; side < 2; side++) {
            const int32_t first = side ? cut : 0, n = side ? N - cut : cut;
            int32_t target[N_ROW];
            for (int32_t r = 0; r < N_ROW; r++) target[r] = p.target[r] - first;
            struct nt_logit_bwd_args a = p.args;
            a.logits += first;
            a.target = target;
            a.dlogits = part + first;
            a.lddl = N;
            a.n_vocab = n;
            if (env->be[side].ops.logit_bwd(&env->be[side], &a) != NT_OK) op_fail(env, "status");
        }
        for (int32_t r = 0; r < N_ROW; r++)
            (void)op_compare_bytes(env, "shards", p.d + r * p.args.lddl, part + r * N, N * sizeof *part);
    }
    drop(&p);
}

static void check_special(struct op_env *env) {
    struct problem p;
    make(&p, 40, 70, 3);
    p.logits[0 * p.args.ld + 5] = NAN;
    p.logits[1 * p.args.ld + 69] = -INFINITY;
    p.logits[3 * p.args.ld + p.target[3]] = -INFINITY;
    p.logits[4 * p.args.ld + 7] = INFINITY;
    p.coef[5] = NAN;
    p.coef[6] = 0;
    set_sums(&p);
    check_problem(env, &p, "special values");
    drop(&p);
}

static nt_status run_logits(struct nt_backend *be, void *ctx) {
    return be->ops.logit_bwd(be, ctx);
}

static void perf(struct op_env *env) {
    enum { P_ROW = 256, P_VOCAB = 49152 };
    float *x = op_alloc((size_t)P_ROW * P_VOCAB * sizeof *x), max[P_ROW], sum[P_ROW], coef[P_ROW];
    nt_bf16 *d = op_alloc((size_t)P_ROW * P_VOCAB * sizeof *d);
    int32_t target[P_ROW];
    uint64_t seed = 1;
    op_random_f32(&seed, x, (int64_t)P_ROW * P_VOCAB, 3);
    for (int r = 0; r < P_ROW; r++) {
        target[r] = r;
        max[r] = 20;
        sum[r] = 1e5f;
        coef[r] = 1;
    }
    struct nt_logit_bwd_args a = {x, P_VOCAB, target, max, sum, coef, d, P_VOCAB, P_ROW, P_VOCAB};
    op_measure(env, "256 x 49152", 13.0 * P_ROW * P_VOCAB, 6.0 * P_ROW * P_VOCAB, run_logits, &a);
    free(x);
    free(d);
}

static const struct op_case cases[] = {
    {NT_OP_logit_bwd, "shapes",  check_shapes,  perf},
    {NT_OP_logit_bwd, "slopes",  check_slopes,  NULL},
    {NT_OP_logit_bwd, "shards",  check_shards,  NULL},
    {NT_OP_logit_bwd, "special", check_special, NULL},
};
const struct op_cases logits_bwd_cases = {sizeof cases / sizeof cases[0], cases};
