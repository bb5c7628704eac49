/* Cases of logit_edit, logit_penalty, logit_pick and gather: all exact, so results are compared by their bytes; what an
 * op must not touch is compared as well. */
#include "test_ops.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const int32_t widths[] = {1, 2, 3, 31, 64, 101, 1024, 4096, 5003};
enum { N_WIDTHS = sizeof widths / sizeof widths[0], N_ROW = 5 };

/* ---- logit_edit ---- */

/* Edits of distinct elements in random order; every tenth has an index outside the shard. Returns their number. */
static int32_t make_edits(uint64_t *seed, int32_t n, struct nt_logit_edit *edits) {
    int32_t n_edit = 0;
    for (int32_t r = 0; r < N_ROW; r++) {
        const int32_t step = 1 + n / 20;
        for (int32_t v = op_random_int(seed, 0, step - 1); v < n; v += step) {
            const uint32_t kind = op_random(seed) % 4;
            edits[n_edit++] = (struct nt_logit_edit){.row = r,
                                                     .id = v,
                                                     .bias = kind == 1 ? op_random_normal(seed) * 3 : 0,
                                                     .divide = kind == 2 ? 1.3f : 1.0f,
                                                     .minus = kind == 3   ? INFINITY
                                                              : kind == 2 ? 0.7f
                                                                          : 0};
        }
        edits[n_edit++] = (struct nt_logit_edit){.row = r, .id = r % 2 ? -1 : n, .bias = 100, .divide = 1};
    }
    for (int32_t i = n_edit - 1; i > 0; i--) {
        const int32_t j = op_random_int(seed, 0, i);
        const struct nt_logit_edit e = edits[i];
        edits[i] = edits[j];
        edits[j] = e;
    }
    return n_edit;
}

static void expect_edits(float *x, int64_t ld, int32_t n, const struct nt_logit_edit *edits, int32_t n_edit,
                         const float *scale) {
    for (int32_t i = 0; i < n_edit; i++) {
        if (edits[i].id < 0 || edits[i].id >= n) continue;
        float *at = x + edits[i].row * ld + edits[i].id;
        float v = *at + edits[i].bias;
        v = v > 0 ? v / edits[i].divide : v * edits[i].divide;
        *at = v - edits[i].minus;
    }
    for (int32_t r = 0; scale && r < N_ROW; r++)
        for (int32_t v = 0; scale[r] != 1 && v < n; v++) x[r * ld + v] *= scale[r];
}

static void check_edit_shape(struct op_env *env, uint64_t seed, int32_t n, int64_t ld, bool scaled) {
    const size_t bytes = (size_t)(N_ROW * ld) * sizeof(float);
    float *x0 = op_alloc(bytes), *x = op_alloc(bytes), *want = op_alloc(bytes);
    float *scale = op_alloc(N_ROW * sizeof *scale);
    struct nt_logit_edit *edits = op_alloc(N_ROW * 32 * sizeof *edits);
    op_random_f32(&seed, x0, N_ROW * ld, 4.0f);
    x0[ld] = -0.0f;
    x0[2 * ld] = INFINITY;
    const int32_t n_edit = make_edits(&seed, n, edits);
    for (int32_t r = 0; r < N_ROW; r++) scale[r] = r % 2 ? 1.0f : 1.0f / (0.3f + (float)r);
    memcpy(want, x0, bytes);
    expect_edits(want, ld, n, edits, n_edit, scaled ? scale : NULL);
    for (int b = 0; b < OP_BACKENDS; b++) {
        memcpy(x, x0, bytes);
        const struct nt_logit_edit_args a = {x, ld, edits, scaled ? scale : NULL, N_ROW, n, n_edit};
        if (env->be[b].ops.logit_edit(&env->be[b], &a) != NT_OK) op_fail(env, "status");
        char what[64];
        (void)snprintf(what, sizeof what, "n %d ld %lld%s", n, (long long)ld, scaled ? " scaled" : "");
        (void)op_compare_bytes(env, what, want, x, bytes);
    }
    free(x0);
    free(x);
    free(want);
    free(scale);
    free(edits);
}

static void check_edit(struct op_env *env) {
    for (int i = 0; i < N_WIDTHS; i++)
        for (int scaled = 0; scaled < 2; scaled++)
            check_edit_shape(env, 10 + (uint64_t)i, widths[i], widths[i] + (i % 2 ? 3 : 0), scaled);
}

/* Without edits and scales nothing changes. */
static void check_edit_nothing(struct op_env *env) {
    float x[70], before[70];
    uint64_t seed = 3;
    op_random_f32(&seed, x, 70, 1.0f);
    memcpy(before, x, sizeof x);
    for (int b = 0; b < OP_BACKENDS; b++) {
        const struct nt_logit_edit_args a = {x, 35, NULL, NULL, 2, 35, 0};
        if (env->be[b].ops.logit_edit(&env->be[b], &a) != NT_OK) op_fail(env, "status");
        (void)op_compare_bytes(env, "no edits", before, x, sizeof x);
    }
}

/* ---- logit_penalty ---- */

struct penalties {
    struct nt_seen seen[N_ROW * 40];
    int32_t begin[N_ROW + 1], last[3], last_row[N_ROW];
    float repetition[N_ROW], presence[N_ROW], frequency[N_ROW];
};

/* Rows that say nothing, only their newest token, or up to 40 tokens, the newest among them or not; some in other
 * shards. */
static void make_penalties(uint64_t *seed, int32_t n, int32_t first, struct penalties *p) {
    const int32_t total = first + n + 2, step = 1 + total / 39;
    int32_t at = 0;
    for (int32_t r = 0; r < N_ROW; r++) {
        p->begin[r] = at;
        for (int32_t id = op_random_int(seed, 0, step - 1); r % 3 != 1 && id < total; id += step)
            p->seen[at++] = (struct nt_seen){id, op_random_int(seed, 0, 3)};
        p->repetition[r] = r == 3 ? 1 : 0.8f + 0.3f * (float)r;
        p->presence[r] = 0.3f * (float)(r - 1);
        p->frequency[r] = 0.7f * (float)r;
        p->last_row[r] = r - 1 > 2 ? 0 : r - 1;
    }
    p->begin[N_ROW] = at;
    p->last[0] = first + n / 2;                        /* row 1, which said nothing, and row 4 */
    p->last[1] = p->seen[p->begin[2]].id;              /* known */
    p->last[2] = op_random(seed) % 2 ? -1 : total - 1; /* failed, or of another shard */
}

static void expect_one(const struct penalties *p, int32_t r, int32_t at, int32_t count, int32_t n, float *row) {
    if (at < 0 || at >= n) return;
    const float minus = count > 0 ? p->presence[r] + p->frequency[r] * (float)count : 0.0f;
    row[at] = (row[at] > 0 ? row[at] / p->repetition[r] : row[at] * p->repetition[r]) - minus;
}

static void expect_penalties(const struct penalties *p, bool newest, int32_t n, int32_t first, int64_t ld, float *x) {
    for (int32_t r = 0; r < N_ROW; r++) {
        const int32_t last = newest && p->last_row[r] >= 0 ? p->last[p->last_row[r]] : -1;
        int32_t known = 0;
        for (int32_t i = p->begin[r]; i < p->begin[r + 1]; i++) {
            const int32_t again = last >= 0 && p->seen[i].id == last;
            known += again;
            expect_one(p, r, p->seen[i].id - first, p->seen[i].count + again, n, x + r * ld);
        }
        if (last >= 0 && !known) expect_one(p, r, last - first, 1, n, x + r * ld);
    }
}

static void check_penalty_shape(struct op_env *env, uint64_t seed, int32_t n, int32_t first, bool newest) {
    const int64_t ld = n + n % 3;
    const size_t bytes = (size_t)(N_ROW * ld) * sizeof(float);
    float *x0 = op_alloc(bytes), *x = op_alloc(bytes), *want = op_alloc(bytes);
    struct penalties p;
    op_random_f32(&seed, x0, N_ROW * ld, 4.0f);
    x0[0] = -0.0f;
    x0[4 * ld] = NAN;
    make_penalties(&seed, n, first, &p);
    memcpy(want, x0, bytes);
    expect_penalties(&p, newest, n, first, ld, want);
    op_settle_nans(want, OP_F32, N_ROW * ld);
    for (int b = 0; b < OP_BACKENDS; b++) {
        const struct nt_logit_penalty_args a = {
            x,           ld,    p.seen, p.begin, newest ? p.last : NULL, p.last_row, p.repetition, p.presence,
            p.frequency, N_ROW, n,      first,   p.begin[N_ROW]};
        memcpy(x, x0, bytes);
        if (env->be[b].ops.logit_penalty(&env->be[b], &a) != NT_OK) op_fail(env, "status");
        op_settle_nans(x, OP_F32, N_ROW * ld);
        char what[64];
        (void)snprintf(what, sizeof what, "n %d from %d%s", n, first, newest ? ", a token under way" : "");
        (void)op_compare_bytes(env, what, want, x, bytes);
    }
    free(x0);
    free(x);
    free(want);
}

static void check_penalty(struct op_env *env) {
    for (int i = 0; i < N_WIDTHS; i++)
        for (int newest = 0; newest < 2; newest++)
            check_penalty_shape(env, 60 + (uint64_t)i, widths[i], i % 2 ? 7 : 0, newest);
}

/* More tokens than a block has threads, the newest among the last. */
static void check_penalty_long(struct op_env *env) {
    enum { N = 3000, SAID = 1500 };
    static struct nt_seen seen[SAID];
    const int32_t begin[] = {0, SAID, SAID}, last[] = {2 * (SAID - 1)}, last_row[] = {0, -1};
    const float repetition[] = {1.5f, 2}, presence[] = {0.25f, 1}, frequency[] = {0.5f, 1};
    float *x0 = op_alloc(2 * N * sizeof *x0), *x = op_alloc(2 * N * sizeof *x), *want = op_alloc(2 * N * sizeof *want);
    uint64_t seed = 80;
    op_random_f32(&seed, x0, (int64_t)2 * N, 4.0f);
    memcpy(want, x0, 2 * N * sizeof *want);
    for (int32_t i = 0; i < SAID; i++) {
        seen[i] = (struct nt_seen){2 * i, i % 3};
        const int32_t count = i % 3 + (i == SAID - 1);
        float *w = &want[2 * i];
        *w = (*w > 0 ? *w / 1.5f : *w * 1.5f) - (count > 0 ? 0.25f + 0.5f * (float)count : 0.0f);
    }
    for (int b = 0; b < OP_BACKENDS; b++) {
        const struct nt_logit_penalty_args a = {x,        N,         seen, begin, last, last_row, repetition,
                                                presence, frequency, 2,    N,     0,    SAID};
        memcpy(x, x0, 2 * N * sizeof *x);
        if (env->be[b].ops.logit_penalty(&env->be[b], &a) != NT_OK) op_fail(env, "status");
        (void)op_compare_bytes(env, "1500 tokens", want, x, 2 * N * sizeof *x);
    }
    free(x0);
    free(x);
    free(want);
}

/* ---- logit_pick ---- */

static void check_pick(struct op_env *env) {
    for (int i = 0; i < N_WIDTHS; i++) {
        const int32_t n = widths[i], first = 7 * (i % 2);
        const int64_t ld = n + i % 3;
        float *x = op_alloc((size_t)(N_ROW * ld) * sizeof *x), value[N_ROW], want[N_ROW];
        const int32_t id[N_ROW] = {first, first + n - 1, first + n / 2, first - 1, first + n};
        uint64_t seed = 20 + (uint64_t)i;
        op_random_f32(&seed, x, N_ROW * ld, 4.0f);
        x[ld + n - 1] = NAN;
        for (int r = 0; r < N_ROW; r++) want[r] = r < 3 ? x[r * ld + id[r] - first] : -INFINITY;
        for (int b = 0; b < OP_BACKENDS; b++) {
            const struct nt_logit_pick_args a = {x, ld, id, value, N_ROW, n, first};
            if (env->be[b].ops.logit_pick(&env->be[b], &a) != NT_OK) op_fail(env, "status");
            (void)op_compare_bytes(env, "picked", want, value, sizeof want);
        }
        free(x);
    }
}

/* ---- gather ---- */

static void check_gather_shape(struct op_env *env, uint64_t seed, int64_t bytes, int32_t n_from, int32_t n_rows) {
    unsigned char *from = op_alloc((size_t)(n_from * bytes)), *want = op_alloc((size_t)(n_rows * bytes));
    unsigned char *to = op_alloc((size_t)(n_rows * bytes));
    int32_t *rows = op_alloc((size_t)n_rows * sizeof *rows);
    for (int64_t i = 0; i < n_from * bytes; i++) from[i] = (unsigned char)op_random(&seed);
    for (int32_t i = 0; i < n_rows; i++) { /* strictly ascending: row i at or after i */
        rows[i] = (int32_t)((int64_t)i * n_from / n_rows);
        memcpy(want + i * bytes, from + rows[i] * bytes, (size_t)bytes);
    }
    for (int b = 0; b < OP_BACKENDS; b++) {
        struct nt_gather_args a = {from, to, rows, bytes, n_rows};
        memset(to, 0x5a, (size_t)(n_rows * bytes));
        if (env->be[b].ops.gather(&env->be[b], &a) != NT_OK) op_fail(env, "status");
        (void)op_compare_bytes(env, "rows", want, to, (size_t)(n_rows * bytes));
        if (!nt_backend_is_host(&env->be[b])) continue;
        unsigned char *same = op_alloc((size_t)(n_from * bytes));
        memcpy(same, from, (size_t)(n_from * bytes));
        a.from = a.to = same;
        if (env->be[b].ops.gather(&env->be[b], &a) != NT_OK) op_fail(env, "status");
        (void)op_compare_bytes(env, "in place", want, same, (size_t)(n_rows * bytes));
        free(same);
    }
    free(from);
    free(want);
    free(to);
    free(rows);
}

static void check_gather(struct op_env *env) {
    const int64_t sizes[] = {4, 12, 16, 36, 2304, 16384, 16388, 40000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        check_gather_shape(env, 30 + i, sizes[i], 9, 9);
        check_gather_shape(env, 40 + i, sizes[i], 23, 7);
        check_gather_shape(env, 50 + i, sizes[i], 5, 1);
    }
}

static nt_status run_gather(struct nt_backend *be, void *ctx) {
    return be->ops.gather(be, ctx);
}

static void perf_gather(struct op_env *env) {
    enum { BYTES = 4 * 576, FROM = 512, ROWS = 256 };
    int32_t rows[ROWS];
    for (int32_t i = 0; i < ROWS; i++) rows[i] = 2 * i;
    struct nt_gather_args a = {op_alloc(FROM * BYTES), op_alloc(ROWS * BYTES), rows, BYTES, ROWS};
    op_measure(env, "256 of 512 rows, f32 d 576", 0, 2.0 * ROWS * BYTES, run_gather, &a);
    free((void *)(uintptr_t)a.from);
    free(a.to);
}

static const struct op_case cases[] = {
    {NT_OP_logit_edit,    "shapes",  check_edit,         NULL       },
    {NT_OP_logit_edit,    "nothing", check_edit_nothing, NULL       },
    {NT_OP_logit_penalty, "shapes",  check_penalty,      NULL       },
    {NT_OP_logit_penalty, "long",    check_penalty_long, NULL       },
    {NT_OP_logit_pick,    "shapes",  check_pick,         NULL       },
    {NT_OP_gather,        "shapes",  check_gather,       perf_gather},
};
const struct op_cases edit_cases = {sizeof cases / sizeof cases[0], cases};
