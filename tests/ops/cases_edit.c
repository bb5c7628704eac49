/* Cases of logit_edit, logit_pick and gather: all exact, so results are compared by their bytes; what an op must not
 * touch is compared as well. */
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

/* ---- logit_pick ---- */

static void check_pick(struct op_env *env) {
    for (int i = 0; i < N_WIDTHS; i++) {
        const int32_t n = widths[i];
        const int64_t ld = n + i % 3;
        float *x = op_alloc((size_t)(N_ROW * ld) * sizeof *x), value[N_ROW], want[N_ROW];
        const int32_t id[N_ROW] = {0, n - 1, n / 2, -1, n};
        uint64_t seed = 20 + (uint64_t)i;
        op_random_f32(&seed, x, N_ROW * ld, 4.0f);
        x[ld + n - 1] = NAN;
        for (int r = 0; r < N_ROW; r++) want[r] = id[r] >= 0 && id[r] < n ? x[r * ld + id[r]] : -INFINITY;
        for (int b = 0; b < OP_BACKENDS; b++) {
            const struct nt_logit_pick_args a = {x, ld, id, value, N_ROW, n};
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
    {NT_OP_logit_edit, "shapes",  check_edit,         NULL       },
    {NT_OP_logit_edit, "nothing", check_edit_nothing, NULL       },
    {NT_OP_logit_pick, "shapes",  check_pick,         NULL       },
    {NT_OP_gather,     "shapes",  check_gather,       perf_gather},
};
const struct op_cases edit_cases = {sizeof cases / sizeof cases[0], cases};
