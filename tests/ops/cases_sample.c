/* Cases of logit_sample: every combination of the truncation rules on widths around the block sizes, with ties and
 * special values; the token must be a draw that the rules in double precision allow, the same on every body. */
#include "test_ops.h"
#include "rng.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const int32_t widths[] = {1, 2, 17, 100, 1023, 4096, 4097, 5003, 9001};
enum { N_WIDTHS = sizeof widths / sizeof widths[0], N_ROW = 12 };

struct rules {
    float inv_temp[N_ROW], top_p[N_ROW], min_p[N_ROW];
    int32_t top_k[N_ROW], index[N_ROW];
    uint64_t seed[N_ROW], stream[N_ROW];
};

/* Greedy, plain, and the rules alone and together; the later rows keep much. */
static struct rules make_rules(uint64_t seed, int32_t n) {
    static const float inv_temp[N_ROW] = {0, 1, 0.7f, 1, 1, 1.3f, 0.9f, 1, 1, 0.01f, 0.02f, 0.05f};
    static const float top_p[N_ROW] = {1, 1, 1, 0.9f, 1, 0.95f, 0.8f, 0, 0.5f, 0.999f, 0.98f, 1};
    static const float min_p[N_ROW] = {0.5f, 0, 0, 0, 0.05f, 0.01f, 0.1f, 0, 0, 0, 0, 0.5f};
    const int32_t top_k[N_ROW] = {3, 0, 40, 0, -1, 50, 0, 7, n, 0, n > 3 ? n - n / 3 : 1, 0};
    struct rules u;
    memcpy(u.inv_temp, inv_temp, sizeof inv_temp);
    memcpy(u.top_p, top_p, sizeof top_p);
    memcpy(u.min_p, min_p, sizeof min_p);
    memcpy(u.top_k, top_k, sizeof top_k);
    for (int r = 0; r < N_ROW; r++) {
        u.seed[r] = (uint64_t)op_random(&seed) << 32 | op_random(&seed);
        u.stream[r] = (uint64_t)op_random(&seed) << 32 | op_random(&seed);
        u.index[r] = -7;
    }
    return u;
}

static void run(struct op_env *env, struct nt_backend *be, const struct nt_ops *ops, const float *x, int64_t ld,
                int32_t n, struct rules *u) {
    const struct nt_logit_sample_args a = {x,       ld,        u->inv_temp, u->top_p, u->min_p, u->top_k,
                                           u->seed, u->stream, u->index,    N_ROW,    n};
    if (ops->logit_sample(be, &a) != NT_OK) op_fail(env, "status");
}

struct candidate {
    float y;
    int32_t id;
};

static int by_rank(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->y != y->y) return x->y < y->y ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* How many of the sorted candidates the rules keep, with the limits moved by the factor 1 + slack. */
static int32_t keep_count(const struct candidate *c, int32_t n, const struct rules *u, int r, double slack) {
    const int32_t top_k = u->top_k[r] > 0 && u->top_k[r] < n ? u->top_k[r] : n;
    int32_t keep = top_k;
    double total = 0, mass = 0;
    for (int32_t i = 0; i < top_k; i++) total += exp((double)c[i].y - c[0].y);
    if (u->top_p[r] < 1) {
        for (keep = 0; keep < top_k; keep++) {
            mass += exp((double)c[keep].y - c[0].y);
            if (mass >= u->top_p[r] * total * (1 + slack)) break;
        }
        keep = keep < top_k ? keep + 1 : top_k;
    }
    if (u->min_p[r] > 0) {
        const double floor_value = c[0].y + log(u->min_p[r]) - slack * 10;
        while (keep > 1 && c[keep - 1].y < floor_value) keep--;
    }
    while (keep > 1 && c[keep - 1].y == -INFINITY) keep--;
    return keep;
}

static double draw_value(const struct rules *u, int r, const struct candidate *c) {
    uint32_t word[4];
    nt_philox(u->seed[r], u->stream[r], (uint64_t)c->id / 4, word);
    return c->y - log(-log((double)nt_unit_float(word[c->id % 4])));
}

/* The chosen candidate wins among the first `keep` of them for some allowed count. */
static bool is_legal(const struct candidate *c, int32_t n, const struct rules *u, int r) {
    const double slack = 2e-5;
    const int32_t low = keep_count(c, n, u, r, -slack), high = keep_count(c, n, u, r, slack);
    int32_t chosen = 0;
    while (chosen < n && c[chosen].id != u->index[r]) chosen++;
    if (chosen == n) return false;
    if (u->inv_temp[r] == 0) return chosen == 0;
    const double value = draw_value(u, r, &c[chosen]);
    double best = -INFINITY;
    for (int32_t i = 0; i < high; i++) {
        const double v = draw_value(u, r, &c[i]);
        if (v > best) best = v;
        if (i + 1 >= low && chosen <= i && value >= best - 1e-4) return true;
    }
    return false;
}

static void check_rows(struct op_env *env, const float *x, int64_t ld, int32_t n, uint64_t seed) {
    struct rules want = make_rules(seed, n);
    run(env, &env->be[0], nt_cpu_bodies(NT_ISA_PORTABLE), x, ld, n, &want);
    for (int b = 0; b < OP_BACKENDS; b++) {
        struct rules got = make_rules(seed, n);
        run(env, &env->be[b], &env->be[b].ops, x, ld, n, &got);
        (void)op_compare_bytes(env, "tokens, as the portable body's", want.index, got.index, sizeof got.index);
    }
    struct candidate *c = op_alloc((size_t)n * sizeof *c);
    for (int r = 0; r < N_ROW; r++) {
        bool nan = false;
        for (int32_t v = 0; v < n; v++) {
            const float y = x[r * ld + v] * (want.inv_temp[r] == 0 ? 1 : want.inv_temp[r]);
            c[v] = (struct candidate){isnan(y) ? INFINITY : y, v};
            nan |= isnan(y);
        }
        qsort(c, (size_t)n, sizeof *c, by_rank);
        if (nan || !isfinite(c[0].y) ? want.index[r] != -1 : !is_legal(c, n, &want, r))
            op_fail(env, "n %d row %d: token %d breaks the rules", n, r, want.index[r]);
        env->n_checked++;
    }
    free(c);
}

/* step > 0: rounded to its multiples, so that many are equal. */
static float *make_logits(uint64_t seed, int64_t count, float scale, float step) {
    float *x = op_alloc((size_t)count * sizeof *x);
    op_random_f32(&seed, x, count, scale);
    for (int64_t i = 0; step > 0 && i < count; i++) x[i] = rintf(x[i] / step) * step;
    return x;
}

static void check_rules(struct op_env *env) {
    static const float scales[] = {5, 0.5f, 2}, steps[] = {0, 0, 0.5f};
    for (int i = 0; i < N_WIDTHS; i++) {
        const int64_t ld = widths[i] + i % 5;
        float *x = make_logits((uint64_t)i, N_ROW * ld, scales[i % 3], steps[i % 3]);
        check_rows(env, x, ld, widths[i], 100 + (uint64_t)i);
        free(x);
    }
}

static void check_special(struct op_env *env) {
    for (int i = 2; i < N_WIDTHS; i += 2) {
        const int32_t n = widths[i];
        float *x = make_logits(50 + (uint64_t)i, (int64_t)N_ROW * n, 3, 0);
        for (int32_t v = 0; v < n; v++) {
            x[0 * n + v] = v % 2 ? 0.0f : -0.0f;
            x[1 * n + v] = v == n / 2 ? NAN : x[1 * n + v];
            x[2 * n + v] = v == n / 3 ? INFINITY : x[2 * n + v];
            x[3 * n + v] = -INFINITY;
            x[4 * n + v] = v == n - 1 ? 2 : -INFINITY;
            x[5 * n + v] = v < 3 ? 1 : -INFINITY; /* fewer than top_k */
            x[6 * n + v] = 1;                     /* all equal: the lower ids are kept */
            x[8 * n + v] = v < n / 2 ? -INFINITY : x[8 * n + v];
            x[9 * n + v] = 0;
            x[10 * n + v] = v % 3 ? -INFINITY : -3e38f;
        }
        check_rows(env, x, n, n, 200 + (uint64_t)i);
        free(x);
    }
}

/* Draws follow the softmax of what is kept: chi-square with 3 degrees of freedom, 1 in 10^6 above 31; fixed seeds. */
static void check_softmax(struct op_env *env) {
    enum { N = 8, KEPT = 4 };
    const uint64_t draws = env->emulated ? 300 : 4000;
    static const float logits[N] = {0, 1, 2, -1, 0.5f, 1.5f, -2, 0.25f}, one = 1, top_p = 1, min_p = 0;
    static const int32_t kept[KEPT] = {2, 5, 1, 4}, top_k = KEPT;
    double count[N] = {0}, total = 0, chi = 0;
    for (uint64_t i = 0; i < draws; i++) {
        int32_t index = -1;
        const uint64_t seed = 12;
        const struct nt_logit_sample_args a = {logits, N, &one, &top_p, &min_p, &top_k, &seed, &i, &index, 1, N};
        if (env->be[0].ops.logit_sample(&env->be[0], &a) != NT_OK) op_fail(env, "status");
        if (index < 0 || index >= N) return op_fail(env, "token %d", index);
        count[index]++;
    }
    for (int i = 0; i < KEPT; i++) total += exp((double)logits[kept[i]]);
    for (int i = 0; i < KEPT; i++) {
        const double want = (double)draws * exp((double)logits[kept[i]]) / total, d = count[kept[i]] - want;
        chi += d * d / want;
        count[kept[i]] = 0;
    }
    for (int i = 0; i < N; i++)
        if (count[i] != 0) op_fail(env, "token %d was drawn, and is not kept", i);
    env->n_checked++;
    if (!(chi < 31)) op_fail(env, "chi-square %g of %d draws", chi, (int)draws);
}

static const struct op_case cases[] = {
    {NT_OP_logit_sample, "rules",   check_rules,   NULL},
    {NT_OP_logit_sample, "special", check_special, NULL},
    {NT_OP_logit_sample, "softmax", check_softmax, NULL},
};
const struct op_cases sample_cases = {sizeof cases / sizeof cases[0], cases};
