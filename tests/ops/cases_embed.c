/* Cases of the embed op: whole tables and shards, scales, special values. The result is exact. */
#include "test_ops.h"
#include <math.h>
#include <stdlib.h>

enum { N_ROWS = 300, FIRST = 1000 };

static const float *run_all(struct op_env *env, struct nt_embed_args *a, float *first, float *second) {
    const size_t bytes = (size_t)a->n_tok * (size_t)a->d_model * sizeof(float);
    for (int b = 0; b < OP_BACKENDS; b++) {
        a->x = b ? second : first;
        memset(a->x, 0x5a, bytes);
        if (env->be[b].ops.embed(&env->be[b], a) != NT_OK) op_fail(env, "status");
    }
    (void)op_compare_bytes(env, "one and two threads", first, second, bytes);
    return first;
}

static void check_shape(struct op_env *env, uint64_t seed, int32_t n_tok, int32_t d_model, float scale, bool special) {
    const int64_t count = (int64_t)n_tok * d_model;
    nt_bf16 *table = op_alloc(N_ROWS * (size_t)d_model * sizeof *table);
    int32_t *ids = op_alloc((size_t)n_tok * sizeof *ids);
    float *x = op_alloc((size_t)count * sizeof *x), *y = op_alloc((size_t)count * sizeof *y);
    double *want = op_alloc((size_t)count * sizeof *want);
    op_random_bf16(&seed, table, (int64_t)N_ROWS * d_model, 1.0f);
    if (special) {
        for (int32_t i = 0; i < N_ROWS; i++)
            table[i * d_model + i % d_model] = nt_f32_to_bf16(i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY);
    }
    for (int32_t t = 0; t < n_tok; t++) {
        ids[t] = op_random_int(&seed, FIRST - 50, FIRST + N_ROWS + 49); /* some belong to other ranks */
        if (t == 1) ids[t] = FIRST - 1;
        if (t == 2) ids[t] = FIRST + N_ROWS;
        const int32_t row = ids[t] - FIRST;
        for (int32_t i = 0; row >= 0 && row < N_ROWS && i < d_model; i++)
            want[(int64_t)t * d_model + i] = (float)((double)nt_bf16_to_f32(table[row * d_model + i]) * scale);
    }
    ids[0] = FIRST;
    for (int32_t i = 0; i < d_model; i++) want[i] = (float)((double)nt_bf16_to_f32(table[i]) * scale);
    struct nt_embed_args a = {
        .ids = ids,
        .table = table,
        .scale = scale,
        .n_tok = n_tok,
        .d_model = d_model,
        .first = FIRST,
        .n_rows = N_ROWS,
    };
    (void)op_compare_f32(env, "rows", want, run_all(env, &a, x, y), count);
    free(table);
    free(ids);
    free(x);
    free(y);
    free(want);
}

static void check_shapes(struct op_env *env) {
    check_shape(env, 1, 1, 1, 1.0f, false);
    check_shape(env, 2, 7, 33, 1.0f, false);
    check_shape(env, 3, 130, 576, 24.0f, false);
    check_shape(env, 4, 65, 640, sqrtf(640.0f), false);
}

static void check_special(struct op_env *env) {
    check_shape(env, 5, 200, 37, 1.0f, true);
}

static nt_status run_embed(struct nt_backend *be, void *ctx) {
    return be->ops.embed(be, ctx);
}

static void perf(struct op_env *env) {
    enum { TOK = 512, D = 576 };
    struct nt_embed_args a = {.scale = 1, .n_tok = TOK, .d_model = D, .n_rows = N_ROWS};
    nt_bf16 *table = op_alloc(N_ROWS * D * sizeof *table);
    int32_t *ids = op_alloc(TOK * sizeof *ids);
    uint64_t seed = 6;
    for (int32_t t = 0; t < TOK; t++) ids[t] = op_random_int(&seed, 0, N_ROWS - 1);
    a.ids = ids;
    a.table = table;
    a.x = op_alloc(TOK * D * sizeof *a.x);
    op_measure(env, "512 tokens, d 576", 0, TOK * D * 6.0, run_embed, &a);
    free(table);
    free(ids);
    free(a.x);
}

static const struct op_case cases[] = {
    {NT_OP_embed, "shapes",  check_shapes,  perf},
    {NT_OP_embed, "special", check_special, NULL},
};
const struct op_cases embed_cases = {sizeof cases / sizeof cases[0], cases};
