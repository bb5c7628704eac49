/* Cases of pack: what lies where, bit by bit, in panels, from which a device's rows are staged; what is not named
 * stays; values at the edges of rounding. */
#include "ops_bwd.h"
#include "test_ops.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct shape {
    int32_t n, k;              /* the numbers */
    int32_t rows, cols;        /* the matrix they go into; 0: none */
    int32_t row0, run, col0;   /* where */
    bool turned, table, shift; /* shift: x does not begin at a multiple of 16 bytes */
    float scale;
};

static const struct shape shapes[] = {
    {1,   1,    1,   2,    0,  0,  0, false, false, false, 1   },
    {1,   1,    1,   2,    0,  0,  1, true,  false, true,  2   },
    {64,  64,   64,  64,   0,  0,  0, true,  false, false, 1   },
    {64,  64,   64,  64,   0,  0,  0, false, true,  false, 1   },
    {65,  63,   65,  64,   0,  0,  0, true,  false, false, 1   },
    {65,  63,   65,  64,   0,  0,  1, false, true,  true,  1   },
    {132, 200,  140, 200,  8,  0,  0, true,  false, false, 1   },
    {132, 200,  140, 200,  8,  0,  0, true,  false, true,  1   },
    {132, 196,  140, 200,  8,  0,  4, true,  false, false, 1   },
    {132, 196,  140, 200,  8,  0,  4, false, false, false, 1   },
    {80,  72,   160, 72,   0,  16, 0, true,  false, false, 1   },
    {80,  72,   160, 72,   16, 16, 0, true,  false, false, 1   },
    {70,  66,   160, 72,   16, 16, 3, true,  false, true,  -3  },
    {70,  66,   160, 72,   16, 16, 3, false, false, false, 0.1f},
    {8,   576,  24,  576,  8,  0,  0, false, false, false, 1   },
    {192, 8,    320, 24,   64, 0,  8, true,  false, false, 0.5f},
    {3,   100,  10,  100,  3,  0,  0, false, false, true,  1   },
    {100, 3,    200, 10,   20, 0,  3, true,  false, false, 2.6f},
    {5,   1030, 5,   1032, 0,  0,  0, false, true,  false, 1   },
    {5,   1028, 5,   1032, 0,  0,  4, false, true,  false, 1   },
    {33,  1100, 0,   0,    0,  0,  0, false, true,  false, 1   },
    {7,   513,  7,   514,  0,  0,  0, false, false, false, 1   },
    {40,  2050, 40,  2050, 0,  0,  0, true,  false, false, 1   },
    {40,  300,  44,  304,  4,  0,  3, true,  false, false, 1   },
    {40,  300,  44,  304,  4,  0,  3, false, true,  false, 1   },
};

/* The matrix before, after, and as it should be: every number of it has a value of its own first. */
struct target {
    struct nt_packed w;
    nt_bf16 *want; // [rows, cols]
    nt_bf16 *table, *want_table;
    size_t bytes;
};

static struct target target_of(const struct shape *s, uint64_t seed) {
    struct target t = {
        .w = {.format = NT_WEIGHT_BF16, .n = s->rows, .k = s->cols},
        .bytes = s->rows > 0 ? nt_packed_bytes(NT_WEIGHT_BF16, s->rows, s->cols) : 0
    };
    const size_t count = (size_t)s->rows * (size_t)s->cols, tabled = (size_t)s->n * (size_t)s->k;
    t.w.data = op_alloc(t.bytes);
    t.want = op_alloc(count * sizeof *t.want);
    t.table = op_alloc(tabled * sizeof *t.table);
    t.want_table = op_alloc(tabled * sizeof *t.table);
    op_random_bf16(&seed, t.want, (int64_t)count, 1);
    void *data = (void *)(uintptr_t)t.w.data;
    for (int32_t r = 0; r < s->rows; r++) nt_pack_row(&t.w, data, r, t.want + (int64_t)r * s->cols);
    return t;
}

static void drop(struct target *t) {
    free((void *)(uintptr_t)t->w.data);
    free(t->want);
    free(t->table);
    free(t->want_table);
}

static struct nt_pack_args args_of(const struct shape *s, struct target *t, const float *x) {
    return (struct nt_pack_args){.x = x,
                                 .w = s->rows > 0 ? &t->w : NULL,
                                 .table = s->table ? t->table : NULL,
                                 .scale = s->scale,
                                 .n = s->n,
                                 .k = s->k,
                                 .col0 = s->col0,
                                 .row0 = s->row0,
                                 .run = s->run,
                                 .turned = s->turned};
}

static void expect(const struct shape *s, struct target *t, const float *x) {
    for (int32_t j = 0; j < s->n; j++)
        for (int32_t i = 0; i < s->k; i++) {
            const int64_t at = s->turned ? (int64_t)i * s->n + j : (int64_t)j * s->k + i;
            const nt_bf16 h = nt_f32_to_bf16(x[at] * s->scale);
            const int64_t row = s->row0 + (s->run ? j / s->run * 2 * s->run + j % s->run : j);
            if (s->rows > 0) t->want[row * s->cols + s->col0 + i] = h;
            if (s->table) t->want_table[(int64_t)j * s->k + i] = h;
        }
}

static void compare(struct op_env *env, const char *what, const struct shape *s, struct target *t) {
    struct target packed = *t;
    packed.w.data = op_alloc(t->bytes);
    for (int32_t r = 0; r < s->rows; r++)
        nt_pack_row(&packed.w, (void *)(uintptr_t)packed.w.data, r, t->want + (int64_t)r * s->cols);
    const size_t count = (size_t)s->n * (size_t)s->k;
    op_settle_nans(t->table, OP_BF16, (int64_t)count);
    op_settle_nans(t->want_table, OP_BF16, (int64_t)count);
    op_settle_nans((void *)(uintptr_t)t->w.data, OP_BF16, (int64_t)(t->bytes / sizeof(nt_bf16)));
    op_settle_nans((void *)(uintptr_t)packed.w.data, OP_BF16, (int64_t)(t->bytes / sizeof(nt_bf16)));
    (void)op_compare_bytes(env, what, packed.w.data, t->w.data, t->bytes);
    (void)op_compare_bytes(env, "table", t->want_table, t->table, count * sizeof *t->table);
    free((void *)(uintptr_t)packed.w.data);
}

static void run(struct op_env *env, const struct shape *s, const float *x) {
    char what[96];
    (void)snprintf(what, sizeof what, "%d x %d into %d x %d at %d, %d%s", s->n, s->k, s->rows, s->cols, s->row0,
                   s->col0, s->turned ? ", turned" : "");
    for (int b = 0; b < OP_BACKENDS; b++) {
        struct target t = target_of(s, 7);
        const struct nt_pack_args a = args_of(s, &t, x);
        if (env->be[b].ops.pack(&env->be[b], &a) != NT_OK) op_fail(env, "status");
        expect(s, &t, x);
        compare(env, what, s, &t);
        drop(&t);
    }
}

static void check_places(struct op_env *env) {
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const struct shape *s = &shapes[i];
        uint64_t seed = i;
        const int64_t count = (int64_t)s->n * s->k;
        float *x = op_alloc((size_t)(count + 1) * sizeof *x);
        op_random_f32(&seed, x, count + 1, 1);
        run(env, s, x + s->shift);
        free(x);
    }
}

/* Halves to even either way, what rounds up to infinity, denormals, signs of 0, NaN. */
static void check_special(struct op_env *env) {
    static const uint32_t bits[] = {0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0xbf808000, 0xbf818000, 0x7f7fffff,
                                    0xff7fffff, 0x7f7f7fff, 0x7f800000, 0xff800000, 0x00000001, 0x00008000, 0x00018000,
                                    0x807fffff, 0x80000000, 0x7fc00000, 0xffc12345, 0x7f800001, 0x00800000};
    enum { N = 24, K = 40 };
    float *x = op_alloc(sizeof(float) * N * K);
    for (int i = 0; i < N * K; i++) memcpy(&x[i], &bits[i * 7 % (int)(sizeof bits / sizeof bits[0])], sizeof *x);
    for (int turned = 0; turned < 2; turned++) {
        const struct shape s = {N, K, N, K, 0, 0, 0, turned, !turned, false, 1};
        run(env, &s, x);
    }
    free(x);
}

static void check_vector(struct op_env *env) {
    enum { N = 300, ROOM = 640 };
    static const int32_t run_of[] = {0, 16}, row0[] = {0, 3};
    uint64_t seed = 3;
    float *x = op_alloc(sizeof(float) * N), *y = op_alloc(sizeof(float) * ROOM), *want = op_alloc(sizeof(float) * ROOM);
    op_random_f32(&seed, x, N, 1);
    for (int c = 0; c < 4 * OP_BACKENDS; c++) {
        struct nt_backend *be = &env->be[c / 4];
        const struct nt_pack_args a = {.x = x,
                                       .vector = y,
                                       .scale = 1,
                                       .n = N - 44 * (c & 1),
                                       .k = 1,
                                       .row0 = row0[c & 1],
                                       .run = run_of[c / 2 % 2]};
        op_random_f32(&seed, y, ROOM, 1);
        memcpy(want, y, sizeof(float) * ROOM);
        for (int32_t j = 0; j < a.n; j++) want[a.row0 + (a.run ? j / 16 * 32 + j % 16 : j)] = x[j];
        if (be->ops.pack(be, &a) != NT_OK) op_fail(env, "status");
        (void)op_compare_bytes(env, "vector", want, y, sizeof(float) * ROOM);
    }
    const struct nt_pack_args none = {.x = x, .scale = 1, .vector = y, .k = 1};
    if (env->be[1].ops.pack(&env->be[1], &none) != NT_OK) op_fail(env, "nothing to pack");
    free(x);
    free(y);
    free(want);
}

/* ---- perf ------------------------------------------------------------------------------------------------------- */

static nt_status run_pack(struct nt_backend *be, void *ctx) {
    return be->ops.pack(be, ctx);
}

static void measure(struct op_env *env, const char *what, const struct shape *s) {
    uint64_t seed = 5;
    const int64_t count = (int64_t)s->n * s->k;
    float *x = op_alloc((size_t)count * sizeof *x);
    struct target t = target_of(s, 7);
    struct nt_pack_args a = args_of(s, &t, x);
    op_random_f32(&seed, x, count, 1);
    op_measure(env, what, (double)count, (s->table ? 8.0 : 6.0) * (double)count, run_pack, &a);
    drop(&t);
    free(x);
}

static void perf_places(struct op_env *env) {
    measure(env, "2048 x 2048, turned", &(struct shape){2048, 2048, 2048, 2048, 0, 0, 0, true, false, false, 1});
    measure(env, "2048 x 2048, and a table", &(struct shape){2048, 2048, 2048, 2048, 0, 0, 0, false, true, false, 1});
    measure(env, "A of rank 16, 4096", &(struct shape){16, 4096, 16, 4096, 0, 0, 0, false, false, false, 1});
    measure(env, "B of rank 16, 4096", &(struct shape){4096, 16, 4096, 16, 0, 0, 0, true, false, false, 1});
}

static const struct op_case cases[] = {
    {NT_OP_pack, "places",  check_places,  perf_places},
    {NT_OP_pack, "special", check_special, NULL       },
    {NT_OP_pack, "vector",  check_vector,  NULL       },
};
const struct op_cases pack_cases = {sizeof cases / sizeof cases[0], cases};
