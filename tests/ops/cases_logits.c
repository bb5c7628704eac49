/* Cases of the logit ops: odd widths, ties, special values, shards; the noise of logit_gumbel against its definition,
 * and its distribution against the softmax. */
#include "test_ops.h"
#include "rng.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const int32_t widths[] = {1, 2, 3, 15, 16, 17, 63, 64, 65, 100, 1023, 1024, 1025, 5003};
enum { N_WIDTHS = sizeof widths / sizeof widths[0], N_ROW = 6 };

/* [N_ROW, ld] logits; step > 0: rounded to its multiples, so that many are equal. */
static float *make_logits(uint64_t seed, int32_t n_row, int64_t ld, float step) {
    float *x = op_alloc((size_t)(n_row * ld) * sizeof *x);
    op_random_f32(&seed, x, n_row * ld, 5.0f);
    for (int64_t i = 0; step > 0 && i < n_row * ld; i++) x[i] = rintf(x[i] / step) * step;
    return x;
}

/* NaN above all, -0 equal to +0, the lower index first among equals. */
static bool before(const float *x, int32_t a, int32_t b) {
    if (isnan(x[a]) != isnan(x[b])) return isnan(x[a]);
    if (!isnan(x[a]) && x[a] != x[b]) return x[a] > x[b];
    return a < b;
}

/* ---- logit_stats --------------------------------------------------------------------------------------------------
 */

static void check_stats_rows(struct op_env *env, const float *x, int64_t ld, int32_t n) {
    float max[OP_BACKENDS][N_ROW], sum[OP_BACKENDS][N_ROW];
    int32_t at[OP_BACKENDS][N_ROW];
    double want_max[N_ROW], want_sum[N_ROW];
    for (int b = 0; b < OP_BACKENDS; b++) {
        struct nt_logit_stats_args a = {x, ld, max[b], sum[b], at[b], N_ROW, n};
        if (env->be[b].ops.logit_stats(&env->be[b], &a) != NT_OK) op_fail(env, "status");
    }
    (void)op_compare_bytes(env, "sums of one and two threads", sum[0], sum[1], sizeof sum[0]);
    for (int32_t r = 0; r < N_ROW; r++) {
        const float *row = x + r * ld;
        int32_t best = 0;
        for (int32_t v = 1; v < n; v++)
            if (before(row, v, best)) best = v;
        if (at[0][r] != best || at[1][r] != best)
            op_fail(env, "n %d row %d: argmax %d, expected %d", n, r, at[0][r], best);
        want_max[r] = row[best];
        want_sum[r] = 0;
        for (int32_t v = 0; v < n; v++) want_sum[r] += exp((double)row[v] - row[best]);
    }
    (void)op_compare_f32(env, "max", want_max, max[1], N_ROW);
    (void)op_compare_f32(env, "sum of exp", want_sum, sum[1], N_ROW);
}

static void check_stats(struct op_env *env) {
    for (int i = 0; i < N_WIDTHS; i++) {
        const int64_t ld = widths[i] + i % 5;
        float *x = make_logits((uint64_t)i, N_ROW, ld, i % 2 ? 0.5f : 0);
        check_stats_rows(env, x, ld, widths[i]);
        free(x);
    }
}

static void check_stats_special(struct op_env *env) {
    for (int i = 3; i < N_WIDTHS; i++) {
        const int32_t n = widths[i];
        float *x = make_logits(50 + (uint64_t)i, N_ROW, n, 0);
        x[0 * n + n - 1] = NAN;
        x[0 * n + n / 2] = -NAN;
        x[1 * n + n / 3] = INFINITY;
        for (int32_t v = 0; v < n; v++) x[2 * n + v] = -INFINITY;
        for (int32_t v = 1; v < n; v++) x[3 * n + v] = -INFINITY;
        x[4 * n + 1] = NAN;
        x[4 * n] = INFINITY;
        for (int32_t v = 0; v < n; v++) x[5 * n + v] = v / 3 % 2 ? 0.0f : -0.0f;
        check_stats_rows(env, x, n, n);
        free(x);
    }
}

/* ---- logit_topk ---------------------------------------------------------------------------------------------------
 */

static void check_topk_rows(struct op_env *env, const float *x, int64_t ld, int32_t n, int32_t k) {
    const size_t bytes = (size_t)N_ROW * (size_t)k * sizeof(float);
    float *value = op_alloc(bytes), *want = op_alloc(bytes);
    int32_t *index = op_alloc(bytes), *want_index = op_alloc(bytes);
    for (int32_t r = 0; r < N_ROW; r++) {
        bool *used = op_alloc((size_t)n * sizeof *used);
        for (int32_t i = 0; i < k; i++) {
            int32_t best = -1;
            for (int32_t v = 0; v < n; v++)
                if (!used[v] && (best < 0 || before(x + r * ld, v, best))) best = v;
            used[best] = true;
            want[r * k + i] = x[r * ld + best];
            want_index[r * k + i] = best;
        }
        free(used);
    }
    for (int b = 0; b < OP_BACKENDS; b++) {
        struct nt_logit_topk_args a = {x, ld, value, index, N_ROW, n, k};
        if (env->be[b].ops.logit_topk(&env->be[b], &a) != NT_OK) op_fail(env, "status");
        char what[64];
        (void)snprintf(what, sizeof what, "%d of %d", k, n);
        (void)op_compare_bytes(env, what, want_index, index, bytes);
        (void)op_compare_bytes(env, what, want, value, bytes);
    }
    free(value);
    free(want);
    free(index);
    free(want_index);
}

static void check_topk(struct op_env *env) {
    for (int i = 0; i < N_WIDTHS; i++) {
        const int32_t n = widths[i], ks[] = {1, 2, 5, 40, 100, 250, 300, n / 2, n - 1, n};
        for (size_t j = 0; j < sizeof ks / sizeof ks[0]; j++) {
            if (ks[j] < 1 || ks[j] > n || (n > 1100 && ks[j] > 1500)) continue;
            float *x = make_logits(100 + (uint64_t)i, N_ROW, n + 3, j % 2 ? 0.25f : 0);
            check_topk_rows(env, x, n + 3, n, ks[j]);
            free(x);
        }
    }
}

static void check_topk_special(struct op_env *env) {
    for (int32_t k = 1; k <= 200; k += 33) {
        const int32_t n = 3000;
        uint64_t seed = (uint64_t)k;
        float *x = make_logits(150, N_ROW, n, 0.5f);
        for (int i = 0; i < 100; i++) x[0 * n + op_random_int(&seed, 0, n - 1)] = NAN;
        for (int i = 0; i < 100; i++) x[1 * n + op_random_int(&seed, 0, n - 1)] = INFINITY;
        for (int i = 0; i < 9000; i++) x[2 * n + op_random_int(&seed, 0, n - 1)] = -INFINITY;
        for (int32_t v = 0; v < n; v++) x[3 * n + v] = NAN;
        for (int32_t v = 0; v < n; v++) x[4 * n + v] = (float)v;
        for (int32_t v = 0; v < n; v++) x[5 * n + v] = (float)(v % 256 < 16 ? v : -v); /* one in 16 is large */
        check_topk_rows(env, x, n, n, k);
        free(x);
    }
}

static const float *sorted_row; /* of the comparison below */

static int by_rank(const void *a, const void *b) {
    return before(sorted_row, *(const int32_t *)a, *(const int32_t *)b) ? -1 : 1;
}

/* More than a block of a GPU sorts at once, up to the whole row. */
static void check_topk_long(struct op_env *env) {
    enum { N = 9001 };
    static const int32_t ks[] = {4096, 4097, N};
    int32_t order[N], index[N];
    float value[N], want[N];
    for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++) {
        const size_t bytes = (size_t)ks[i] * sizeof *want;
        float *x = make_logits(160 + i, 1, N, i == 1 ? 0.25f : 0);
        x[N / 2] = NAN;
        x[7] = -INFINITY;
        for (int32_t v = 0; v < N; v++) order[v] = v;
        sorted_row = x;
        qsort(order, N, sizeof *order, by_rank);
        for (int32_t v = 0; v < ks[i]; v++) want[v] = x[order[v]];
        const struct nt_logit_topk_args a = {x, N, value, index, 1, N, ks[i]};
        if (env->be[i % 2].ops.logit_topk(&env->be[i % 2], &a) != NT_OK) op_fail(env, "status");
        (void)op_compare_bytes(env, "indexes of a long list", order, index, bytes);
        (void)op_compare_bytes(env, "values of a long list", want, value, bytes);
        free(x);
    }
}

/* ---- logit_gumbel -------------------------------------------------------------------------------------------------
 */

struct draw {
    float inv_temp[N_ROW], value[N_ROW];
    uint64_t seed[N_ROW], stream[N_ROW];
    int32_t index[N_ROW];
};

static void draw_init(struct draw *d, uint64_t seed) {
    for (int r = 0; r < N_ROW; r++) {
        d->inv_temp[r] = r == 3 ? 0.0f : 0.3f + 0.4f * (float)r;
        d->seed[r] = (uint64_t)op_random(&seed) << 32 | op_random(&seed);
        d->stream[r] = (uint64_t)op_random(&seed) << 32 | op_random(&seed);
        d->value[r] = -7;
        d->index[r] = -7;
    }
}

static void draw_run(struct op_env *env, struct draw *d, struct nt_backend *be, const struct nt_ops *ops,
                     const float *x, int64_t ld, int32_t first, int32_t n) {
    struct nt_logit_gumbel_args a = {x, ld, d->inv_temp, d->seed, d->stream, d->value, d->index, N_ROW, n, first};
    if (ops->logit_gumbel(be, &a) != NT_OK) op_fail(env, "status");
}

static double noise(const struct draw *d, int r, int64_t id) {
    uint32_t word[4];
    nt_philox(d->seed[r], d->stream[r], (uint64_t)(id / 4), word);
    return -log(-log((double)nt_unit_float(word[id % 4])));
}

/* Returns the index drawn in the last row. */
static int32_t check_gumbel_rows(struct op_env *env, const float *x, int64_t ld, int32_t first, int32_t n) {
    struct draw d, plain;
    double want[N_ROW];
    draw_init(&d, 7);
    plain = d;
    draw_run(env, &plain, &env->be[0], nt_cpu_bodies(NT_ISA_PORTABLE), x, ld, first, n);
    for (int b = 0; b < OP_BACKENDS; b++) {
        draw_init(&d, 7);
        draw_run(env, &d, &env->be[b], &env->be[b].ops, x, ld, first, n);
        (void)op_compare_bytes(env, "index, as the portable body's", plain.index, d.index, sizeof d.index);
        (void)op_compare_bytes(env, "value, as the portable body's", plain.value, d.value, sizeof d.value);
    }
    for (int r = 0; r < N_ROW; r++) {
        double best = -INFINITY, chosen = -7;
        want[r] = -7;
        for (int32_t v = 0; d.inv_temp[r] != 0 && v < n; v++) {
            const double sum = (double)x[r * ld + v] * d.inv_temp[r] + noise(&d, r, (int64_t)first + v);
            if (sum > best || isnan(sum)) best = sum;
            if (v == d.index[r]) chosen = want[r] = sum;
            if (isnan(best)) break;
        }
        if (d.inv_temp[r] != 0 &&
            (d.index[r] < 0 || d.index[r] >= n ||
             !(isnan(best) ? isnan(chosen) : (chosen == best || chosen >= best - 1e-4 - 1e-6 * fabs(best)))))
            op_fail(env, "first %d n %d row %d: index %d has %g, the largest is %g", first, n, r, d.index[r], chosen,
                    best);
    }
    (void)op_compare_f32(env, "value", want, d.value, N_ROW);
    return d.index[N_ROW - 1];
}

static void check_gumbel(struct op_env *env) {
    const int32_t firsts[] = {0, 1, 2, 3, 4, 24571, 100003};
    for (int i = 0; i < N_WIDTHS; i++)
        for (size_t j = 0; j < sizeof firsts / sizeof firsts[0]; j++) {
            float *x = make_logits(200 + (uint64_t)i, N_ROW, widths[i] + 1, 0);
            (void)check_gumbel_rows(env, x, widths[i] + 1, firsts[j], widths[i]);
            free(x);
        }
}

static void check_gumbel_special(struct op_env *env) {
    for (int i = 3; i < N_WIDTHS; i++) {
        const int32_t n = widths[i];
        float *x = make_logits(250 + (uint64_t)i, N_ROW, n, 0);
        x[0 * n + n / 2] = NAN;
        x[0 * n + n - 1] = NAN;
        x[1 * n + n / 3] = INFINITY;
        for (int32_t v = 0; v < n; v++) x[2 * n + v] = -INFINITY;
        for (int32_t v = 0; v < n; v++) x[4 * n + v] = v == n / 2 ? -3.0f : -INFINITY;
        for (int32_t v = 0; v < n; v++) x[5 * n + v] = v < n / 4 ? 1.0f : 1e9f; /* the noise is lost: all equal */
        if (check_gumbel_rows(env, x, n, i, n) != n / 4) op_fail(env, "n %d: not the first of equals", n);
        free(x);
    }
}

/* The better of the shards' winners is the winner of the whole row, with the same value. */
static void check_gumbel_shards(struct op_env *env) {
    enum { N = 1000 };
    float *x = make_logits(300, N_ROW, N, 0);
    struct draw whole, part;
    draw_init(&whole, 9);
    draw_run(env, &whole, &env->be[1], &env->be[1].ops, x, N, 0, N);
    for (int32_t cut = 1; cut < N; cut += 111) {
        struct draw best;
        draw_init(&best, 9);
        draw_run(env, &best, &env->be[0], &env->be[0].ops, x, N, 0, cut);
        draw_init(&part, 9);
        draw_run(env, &part, &env->be[1], &env->be[1].ops, x + cut, N, cut, N - cut);
        for (int r = 0; r < N_ROW; r++) {
            if (whole.inv_temp[r] == 0 || !(part.value[r] > best.value[r])) continue;
            best.value[r] = part.value[r];
            best.index[r] = part.index[r] + cut;
        }
        (void)op_compare_bytes(env, "index over shards", whole.index, best.index, sizeof best.index);
        (void)op_compare_bytes(env, "value over shards", whole.value, best.value, sizeof best.value);
    }
    free(x);
}

/* Draws follow the softmax: chi-square with 7 degrees of freedom, 1 in 10^6 above 40 for a right sampler; fixed seeds.
 */
static void check_gumbel_softmax(struct op_env *env) {
    enum { N = 8 };
    const uint64_t draws = env->emulated ? 500 : 20000;
    const float logits[N] = {0, 1, 2, -1, 0.5f, 1.5f, -2, 0.25f};
    const float inv_temp = 0.8f;
    double count[N] = {0}, total = 0, chi = 0;
    for (uint64_t i = 0; i < draws; i++) {
        float value;
        int32_t index;
        const uint64_t seed = 11;
        struct nt_logit_gumbel_args a = {logits, N, &inv_temp, &seed, &i, &value, &index, 1, N, 0};
        if (env->be[0].ops.logit_gumbel(&env->be[0], &a) != NT_OK) op_fail(env, "status");
        count[index]++;
    }
    for (int v = 0; v < N; v++) total += exp((double)logits[v] * inv_temp);
    for (int v = 0; v < N; v++) {
        const double want = (double)draws * exp((double)logits[v] * inv_temp) / total;
        chi += (count[v] - want) * (count[v] - want) / want;
    }
    env->n_checked++;
    if (!(chi < 40)) op_fail(env, "chi-square %g of %d draws", chi, (int)draws);
}

/* ---- perf ---------------------------------------------------------------------------------------------------------
 */

enum { P_ROW = 64, P_VOCAB = 49152 };

static nt_status run_stats(struct nt_backend *be, void *ctx) {
    return be->ops.logit_stats(be, ctx);
}
static nt_status run_topk(struct nt_backend *be, void *ctx) {
    return be->ops.logit_topk(be, ctx);
}
static nt_status run_gumbel(struct nt_backend *be, void *ctx) {
    return be->ops.logit_gumbel(be, ctx);
}

static void perf_stats(struct op_env *env) {
    float max[P_ROW], sum[P_ROW], *x = make_logits(1, P_ROW, P_VOCAB, 0);
    int32_t at[P_ROW];
    struct nt_logit_stats_args a = {x, P_VOCAB, max, sum, at, P_ROW, P_VOCAB};
    op_measure(env, "64 x 49152", P_ROW * P_VOCAB * 13.0, P_ROW * P_VOCAB * 4.0, run_stats, &a);
    free(x);
}

static void perf_topk(struct op_env *env) {
    float *x = make_logits(1, P_ROW, P_VOCAB, 0), *value = op_alloc(P_ROW * 1024 * sizeof *value);
    int32_t *index = op_alloc(P_ROW * 1024 * sizeof *index);
    const int32_t ks[] = {1, 40, 1024};
    for (int i = 0; i < 3; i++) {
        char what[64];
        struct nt_logit_topk_args a = {x, P_VOCAB, value, index, P_ROW, P_VOCAB, ks[i]};
        (void)snprintf(what, sizeof what, "%d of 64 x 49152", ks[i]);
        op_measure(env, what, 0, P_ROW * P_VOCAB * 4.0, run_topk, &a);
    }
    free(x);
    free(value);
    free(index);
}

static void perf_gumbel(struct op_env *env) {
    float inv_temp[P_ROW], value[P_ROW], *x = make_logits(1, P_ROW, P_VOCAB, 0);
    uint64_t seed[P_ROW];
    int32_t index[P_ROW];
    for (int r = 0; r < P_ROW; r++) {
        inv_temp[r] = 1;
        seed[r] = (uint64_t)r;
    }
    struct nt_logit_gumbel_args a = {x, P_VOCAB, inv_temp, seed, seed, value, index, P_ROW, P_VOCAB, 0};
    op_measure(env, "64 x 49152", P_ROW * P_VOCAB * 60.0, P_ROW * P_VOCAB * 4.0, run_gumbel, &a);
    free(x);
}

static const struct op_case cases[] = {
    {NT_OP_logit_stats,  "shapes",  check_stats,          perf_stats },
    {NT_OP_logit_stats,  "special", check_stats_special,  NULL       },
    {NT_OP_logit_topk,   "shapes",  check_topk,           perf_topk  },
    {NT_OP_logit_topk,   "special", check_topk_special,   NULL       },
    {NT_OP_logit_topk,   "long",    check_topk_long,      NULL       },
    {NT_OP_logit_gumbel, "shapes",  check_gumbel,         perf_gumbel},
    {NT_OP_logit_gumbel, "special", check_gumbel_special, NULL       },
    {NT_OP_logit_gumbel, "shards",  check_gumbel_shards,  NULL       },
    {NT_OP_logit_gumbel, "softmax", check_gumbel_softmax, NULL       },
};
const struct op_cases logits_cases = {sizeof cases / sizeof cases[0], cases};
