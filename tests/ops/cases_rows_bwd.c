/* Cases of embed_bwd, scatter and dropout: against loops here, scatter as gather's inverse, the share that dropout
 * keeps and that its mask is the same forward, backward and wherever the row lies. */
#include "ops_bwd.h"
#include "test_ops.h"
#include "rng.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- embed_bwd -------------------------------------------------------------------------------------------------- */

struct rows {
    struct nt_embed_bwd_args args;
    int32_t *ids;
    float *dx, *before, *want, *got; // before, want, got: [n_rows, d_model]
    size_t bytes;                    /* of a table */
};

static void make_rows(struct rows *r, uint64_t seed, int32_t n_tok, int32_t d, int32_t first, int32_t n_rows) {
    const int64_t count = (int64_t)n_rows * d;
    r->bytes = (size_t)count * sizeof *r->got;
    r->ids = op_alloc((size_t)n_tok * sizeof *r->ids);
    r->dx = op_alloc((size_t)n_tok * (size_t)d * sizeof *r->dx);
    r->before = op_alloc(r->bytes);
    r->want = op_alloc(r->bytes);
    r->got = op_alloc(r->bytes);
    op_random_f32(&seed, r->dx, (int64_t)n_tok * d, 1);
    op_random_f32(&seed, r->before, count, 1);
    for (int t = 0; t < n_tok; t++) r->ids[t] = op_random_int(&seed, 0, first + n_rows + 3); /* some of other shards */
    r->args = (struct nt_embed_bwd_args){r->ids, r->dx, r->got, 1.7f, n_tok, d, first, n_rows};
}

static void drop_rows(struct rows *r) {
    free(r->ids);
    free(r->dx);
    free(r->before);
    free(r->want);
    free(r->got);
}

/* Against a loop here, and in two calls. */
static void check_rows(struct op_env *env, struct rows *r) {
    const struct nt_embed_bwd_args a = r->args;
    memcpy(r->want, r->before, r->bytes);
    for (int32_t t = 0; t < a.n_tok; t++) {
        const int32_t row = a.ids[t] - a.first;
        if (row < 0 || row >= a.n_rows) continue;
        for (int32_t i = 0; i < a.d_model; i++) {
            const float step = a.dx[(int64_t)t * a.d_model + i] * a.scale;
            r->want[(int64_t)row * a.d_model + i] += step;
        }
    }
    op_settle_nans(r->want, OP_F32, (int64_t)a.n_rows * a.d_model);
    for (int b = 0; b < OP_BACKENDS; b++) {
        struct nt_embed_bwd_args part = a;
        memcpy(r->got, r->before, r->bytes);
        for (int32_t done = 0; done < a.n_tok; done += part.n_tok) {
            part.n_tok = b == 0 ? a.n_tok : done == 0 ? a.n_tok / 3 + 1 : a.n_tok - done;
            part.ids = a.ids + done;
            part.dx = a.dx + (int64_t)done * a.d_model;
            if (env->be[b].ops.embed_bwd(&env->be[b], &part) != NT_OK) op_fail(env, "status");
        }
        op_settle_nans(r->got, OP_F32, (int64_t)a.n_rows * a.d_model);
        (void)op_compare_bytes(env, "dtable", r->want, r->got, r->bytes);
    }
}

static void check_embed(struct op_env *env) {
    static const int32_t widths[] = {1, 15, 16, 17, 96, 576, 4100};
    enum { TOK = 37, ROWS = 11, FIRST = 6 };
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        const int32_t d = widths[w];
        struct rows r;
        make_rows(&r, w, TOK, d, FIRST, ROWS);
        r.dx[5 * d] = NAN;
        r.dx[9 * d + d - 1] = INFINITY;
        check_rows(env, &r);
        r.args.n_tok = 0;
        check_rows(env, &r);
        drop_rows(&r);
    }
}

/* Many tokens of few ids, of one id, and each of its own. */
static void check_repeats(struct op_env *env) {
    enum { TOK = 700 };
    for (int mode = 0; mode < 3; mode++) {
        const int32_t n_rows = mode == 2 ? TOK : 5;
        struct rows r;
        make_rows(&r, 60 + (uint64_t)mode, TOK, 12, 0, n_rows);
        for (int32_t t = 0; t < TOK; t++) r.ids[t] = mode == 2 ? TOK - 1 - t : mode == 1 ? 3 : r.ids[t] % n_rows;
        check_rows(env, &r);
        drop_rows(&r);
    }
}

/* ---- scatter ---------------------------------------------------------------------------------------------------- */

static void check_scatter(struct op_env *env) {
    static const int32_t bytes[] = {4, 12, 64, 100, 2304};
    enum { TO = 23 };
    for (size_t w = 0; w < sizeof bytes / sizeof bytes[0]; w++) {
        for (int some = 0; some < 4; some++) { /* none, some, all, the last */
            const size_t n = (size_t)bytes[w];
            int32_t rows[TO], n_rows = 0;
            uint64_t seed = w;
            for (int32_t r = 0; r < TO; r++)
                if (some == 2 || (some == 1 && op_random_int(&seed, 0, 2) == 0) || (some == 3 && r == TO - 1))
                    rows[n_rows++] = r;
            char *from = op_alloc(TO * n), *to = op_alloc(TO * n), *want = op_alloc(TO * n);
            for (size_t i = 0; i < TO * n; i++) from[i] = (char)op_random_int(&seed, 1, 100);
            for (int32_t i = 0; i < n_rows; i++) memcpy(want + (size_t)rows[i] * n, from + (size_t)i * n, n);
            for (int b = 0; b < OP_BACKENDS; b++) {
                memset(to, 0x5a, TO * n);
                const struct nt_scatter_args a = {from, to, rows, bytes[w], n_rows, TO};
                if (env->be[b].ops.scatter(&env->be[b], &a) != NT_OK) op_fail(env, "status");
                (void)op_compare_bytes(env, "to", want, to, TO * n);
            }
            free(from);
            free(to);
            free(want);
        }
    }
}

/* Thousands of rows to go to, of 16 KiB and more, some: where a row is searched for among many. */
static void check_long(struct op_env *env) {
    static const int32_t sizes[][2] = {
        {3000, 8    },
        {40,   20000},
        {40,   16400}
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const int32_t n_to = sizes[i][0];
        const size_t bytes = (size_t)sizes[i][1], all = (size_t)n_to * bytes;
        int32_t *rows = op_alloc((size_t)n_to * sizeof *rows), n = 0;
        char *from = op_alloc(all), *to = op_alloc(all), *want = op_alloc(all);
        uint64_t seed = 5 + i;
        for (int32_t r = 0; r < n_to; r++)
            if (op_random_int(&seed, 0, 4) > 0) rows[n++] = r;
        for (size_t k = 0; k < (size_t)n * bytes; k++) from[k] = (char)(1 + (k * 7 + k / 97) % 100);
        for (int32_t r = 0; r < n; r++) memcpy(want + (size_t)rows[r] * bytes, from + (size_t)r * bytes, bytes);
        for (int b = 0; b < OP_BACKENDS; b++) {
            const struct nt_scatter_args a = {from, to, rows, (int64_t)bytes, n, n_to};
            memset(to, 0x5a, all);
            if (env->be[b].ops.scatter(&env->be[b], &a) != NT_OK) op_fail(env, "status");
            (void)op_compare_bytes(env, "to", want, to, all);
        }
        free(rows);
        free(from);
        free(to);
        free(want);
    }
}

/* ---- dropout ---------------------------------------------------------------------------------------------------- */

static bool kept(uint64_t seed, uint64_t stream, int32_t c, float p) {
    uint32_t word[4];
    nt_philox(seed, stream, (uint64_t)c / 4, word);
    return nt_unit_float(word[c % 4]) >= p;
}

struct drops {
    struct nt_dropout_args args;
    nt_bf16 *x, *y;
    float *dx, *dy0, *dy;
    uint64_t stream[5];
    size_t y_bytes;
};

static void make(struct drops *d, uint64_t seed, int32_t n_col, float p) {
    memset(d, 0, sizeof *d);
    const int64_t ld = n_col + (n_col % 16 ? 3 : 16), count = 5 * ld; /* whole lines, and ragged ones */
    d->y_bytes = (size_t)count * sizeof *d->y;
    d->x = op_alloc(d->y_bytes);
    d->y = op_alloc(d->y_bytes);
    d->dx = op_alloc((size_t)count * sizeof *d->dx);
    d->dy = op_alloc((size_t)count * sizeof *d->dy);
    d->dy0 = op_alloc((size_t)count * sizeof *d->dy0);
    op_random_bf16(&seed, d->x, count, 1);
    op_random_f32(&seed, d->dx, count, 1);
    op_random_f32(&seed, d->dy0, count, 1);
    d->x[0] = 1; /* the least denormal */
    d->x[1] = nt_f32_to_bf16(NAN);
    d->x[2 * ld] = nt_f32_to_bf16(INFINITY);
    d->dx[2 * ld] = -INFINITY;
    for (uint64_t r = 0; r < 5; r++) d->stream[r] = (r << 33) + 9 * r;
    d->args = (struct nt_dropout_args){
        .ldx = ld, .ldy = ld, .seed = seed, .stream = d->stream, .p = p, .n_row = 5, .n_col = n_col};
}

static void drop(struct drops *d) {
    free(d->x);
    free(d->y);
    free(d->dx);
    free(d->dy);
    free(d->dy0);
}

static void run_drops(struct op_env *env, int b, const struct nt_dropout_args *a) {
    if (env->be[b].ops.dropout(&env->be[b], a) != NT_OK) op_fail(env, "status");
}

static void check_drops(struct op_env *env, struct drops *d) {
    const int64_t ld = d->args.ldx;
    const float p = d->args.p, f = 1.0f / (1.0f - p);
    nt_bf16 *want = op_alloc(d->y_bytes);
    float *sum = op_alloc(2 * d->y_bytes);
    memset(want, 0x5a, d->y_bytes);
    memcpy(sum, d->dy0, 2 * d->y_bytes);
    for (int64_t r = 0; r < 5; r++)
        for (int32_t c = 0; c < d->args.n_col; c++) {
            const bool keep = kept(d->args.seed, d->stream[r], d->args.first + c, p);
            const float step = d->dx[r * ld + c] * f;
            want[r * ld + c] = keep ? nt_f32_to_bf16(nt_bf16_to_f32(d->x[r * ld + c]) * f) : 0;
            if (keep) sum[r * ld + c] += step;
        }
    op_settle_nans(want, OP_BF16, 5 * ld);
    op_settle_nans(sum, OP_F32, 5 * ld);
    for (int b = 0; b < OP_BACKENDS; b++) {
        struct nt_dropout_args a = d->args;
        a.x = d->x;
        a.y = d->y;
        memset(d->y, 0x5a, d->y_bytes);
        run_drops(env, b, &a);
        op_settle_nans(d->y, OP_BF16, 5 * ld);
        (void)op_compare_bytes(env, "y", want, d->y, d->y_bytes);
        memcpy(d->dy, d->dy0, 2 * d->y_bytes);
        a.x = d->dx;
        a.y = d->dy;
        a.add = true;
        run_drops(env, b, &a);
        op_settle_nans(d->dy, OP_F32, 5 * ld);
        (void)op_compare_bytes(env, "sum", sum, d->dy, 2 * d->y_bytes);
    }
    struct nt_dropout_args a = d->args; /* in place, and rows alone */
    memcpy(d->y, d->x, d->y_bytes);
    for (int r = 0; r < 5; r++) {
        a.x = a.y = d->y + r * ld;
        a.n_row = 1;
        a.stream = d->stream + r;
        run_drops(env, r % 2, &a);
        op_settle_nans(d->y + r * ld, OP_BF16, d->args.n_col);
        (void)op_compare_bytes(env, "a row alone, in place", want + r * ld, d->y + r * ld,
                               (size_t)d->args.n_col * sizeof *want);
    }
    free(want);
    free(sum);
}

static void check_dropout(struct op_env *env) {
    static const int32_t widths[] = {1, 3, 4, 5, 16, 63, 64, 65, 130, 528, 577};
    static const float p[] = {0, 0.05f, 0.5f, 0.97f};
    for (size_t i = 0; i < 4 * sizeof widths / sizeof widths[0]; i++) {
        struct drops d;
        make(&d, i, widths[i / 4], p[i % 4]);
        check_drops(env, &d);
        d.args.first = 4 + 60 * (int32_t)(i % 7); /* a shard of wider rows */
        check_drops(env, &d);
        drop(&d);
    }
}

/* The kept share of 1 - p within 5 deviations, and their mean that of x. */
static void check_share(struct op_env *env) {
    enum { ROWS = 40, COLS = 1000, N = ROWS * COLS };
    nt_bf16 *x = op_alloc(N * sizeof *x), *y = op_alloc(N * sizeof *y);
    uint64_t stream[ROWS];
    for (int i = 0; i < N; i++) x[i] = nt_f32_to_bf16(1);
    for (uint64_t r = 0; r < ROWS; r++) stream[r] = r;
    for (int i = 0; i < 3; i++) {
        const double p = i == 0 ? 0.1 : i == 1 ? 0.5 : 0.75;
        const struct nt_dropout_args a = {.x = x,
                                          .y = y,
                                          .ldx = COLS,
                                          .ldy = COLS,
                                          .seed = 4,
                                          .stream = stream,
                                          .p = (float)p,
                                          .n_row = ROWS,
                                          .n_col = COLS};
        double share = 0;
        run_drops(env, 1, &a);
        for (int k = 0; k < N; k++) share += y[k] != 0;
        env->n_checked++;
        if (fabs(share / N - (1 - p)) > 5 * sqrt(p * (1 - p) / N)) op_fail(env, "p %g: %g are kept", p, share / N);
    }
    free(x);
    free(y);
}

/* ---- perf ------------------------------------------------------------------------------------------------------- */

static nt_status run_dropout(struct nt_backend *be, void *ctx) {
    return be->ops.dropout(be, ctx);
}

static void perf_dropout(struct op_env *env) {
    enum { ROWS = 1024, COLS = 576 };
    nt_bf16 *x = op_alloc(ROWS * COLS * sizeof *x);
    uint64_t stream[ROWS] = {0};
    struct nt_dropout_args a = {
        .x = x, .y = x, .ldx = COLS, .ldy = COLS, .stream = stream, .p = 0.05f, .n_row = ROWS, .n_col = COLS};
    op_measure(env, "1024 x 576", 0, 4.0 * ROWS * COLS, run_dropout, &a);
    free(x);
}

static const struct op_case cases[] = {
    {NT_OP_embed_bwd, "shapes",  check_embed,   NULL        },
    {NT_OP_embed_bwd, "repeats", check_repeats, NULL        },
    {NT_OP_scatter,   "long",    check_long,    NULL        },
    {NT_OP_scatter,   "shapes",  check_scatter, NULL        },
    {NT_OP_dropout,   "shapes",  check_dropout, perf_dropout},
    {NT_OP_dropout,   "share",   check_share,   NULL        },
};
const struct op_cases rows_bwd_cases = {sizeof cases / sizeof cases[0], cases};
