/* Cases of gemm's backward, gemm_dgrad and gemm_wgrad: odd shapes with and without an adapter, blocks of the sum, INT4,
 * INT8, special values, and the bitwise promises. */
#include "cuda_backend.h"
#include "launch_places.h"
#include "op_matrix.h"
#include "ops_bwd.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static nt_bf16 *random_rows(uint64_t *seed, int32_t rows, int64_t ld, int32_t width) {
    nt_bf16 *x = op_alloc((size_t)(rows * ld + 1) * sizeof *x);
    op_random_bf16(seed, x, rows * ld, 1.0f);
    for (int32_t r = 0; r < rows; r++) /* nobody reads these */
        for (int64_t c = width; c < ld; c++) x[r * ld + c] = nt_f32_to_bf16(NAN);
    return x;
}

/* One thread, two threads and (CPUs) more of them give the same bits. run writes to a buffer of `bytes`. */
static void check_threads(struct op_env *env, const char *what, op_run_fn *run, void *ctx, const void *y,
                          size_t bytes) {
    static const int counts[] = {3, 8};
    void *one = op_alloc(bytes);
    memcpy(one, y, bytes);
    NT_CHECK(run(&env->be[1], ctx) == NT_OK);
    op_compare_bytes(env, what, one, y, bytes);
    for (size_t i = 0; i < (env->cuda ? 0 : sizeof counts / sizeof counts[0]); i++) {
        struct nt_pool *pool;
        struct nt_backend be;
        NT_CHECK(nt_pool_new(&pool, counts[i], false, 0, 1) == NT_OK);
        NT_CHECK(nt_backend_open_cpu(&be, env->isa, pool) == NT_OK);
        NT_CHECK(run(&be, ctx) == NT_OK);
        op_compare_bytes(env, what, one, y, bytes);
        nt_backend_close(&be);
        nt_pool_free(pool);
    }
    free(one);
}

/* ---- gemm_dgrad ---- */

struct dgrad {
    struct nt_gemm_dgrad_args args;
    struct op_matrix w, w2;
    nt_bf16 *dy, *dy2;
    void *dx0, *dx; // [n_tok, lddx]: before, and of the last run
    size_t dx_bytes;
    char what[96];
};

static bool is_f32(enum nt_gemm_out out) {
    return out != NT_GEMM_STORE_BF16;
}

struct shape {
    enum nt_weight_format format;
    int32_t n_tok, n, k, n2;
    enum nt_gemm_out out;
    bool aligned; /* rows of whole 16 bytes */
};

static int64_t round_up8(int64_t n) {
    return (n + 7) / 8 * 8;
}

static struct dgrad make_dgrad(uint64_t seed, struct shape s) {
    struct dgrad p = {
        .args = {.n_tok = s.n_tok, .out = s.out}
    };
    p.args.lddy = s.n + op_random_int(&seed, 0, 5);
    p.args.lddy2 = s.n2 + op_random_int(&seed, 0, 5);
    p.args.lddx = s.k + op_random_int(&seed, 0, 9);
    if (s.aligned) {
        p.args.lddy = round_up8(p.args.lddy);
        p.args.lddy2 = round_up8(p.args.lddy2);
        p.args.lddx = round_up8(p.args.lddx);
    }
    p.w = op_matrix_make(seed + 1, s.format, s.n, s.k, 1.5f / sqrtf((float)s.n));
    if (s.n2 > 0) p.w2 = op_matrix_make(seed + 2, NT_WEIGHT_BF16, s.n2, s.k, 1.0f / sqrtf((float)s.n2));
    p.dy = random_rows(&seed, s.n_tok, p.args.lddy, s.n);
    p.dy2 = random_rows(&seed, s.n_tok, p.args.lddy2, s.n2);
    p.dx_bytes = (size_t)(s.n_tok * p.args.lddx) * (is_f32(s.out) ? sizeof(float) : sizeof(nt_bf16));
    p.dx0 = op_alloc(p.dx_bytes);
    p.dx = op_alloc(p.dx_bytes);
    if (is_f32(s.out))
        op_random_f32(&seed, p.dx0, s.n_tok * p.args.lddx, 1.0f);
    else
        op_random_bf16(&seed, p.dx0, s.n_tok * p.args.lddx, 1.0f);
    snprintf(p.what, sizeof p.what, "n_tok %d n %d k %d n2 %d out %d format %d", s.n_tok, s.n, s.k, s.n2, (int)s.out,
             (int)s.format);
    return p;
}

static void drop_dgrad(struct dgrad *p) {
    op_matrix_drop(&p->w);
    op_matrix_drop(&p->w2);
    free(p->dy);
    free(p->dy2);
    free(p->dx0);
    free(p->dx);
}

static nt_status run_dgrad(struct nt_backend *be, void *ctx) {
    struct dgrad *p = ctx;
    struct nt_gemm_dgrad_args a = p->args;
    memcpy(p->dx, p->dx0, p->dx_bytes);
    a.dy = p->dy;
    a.w = &p->w.w;
    a.dx = p->dx;
    if (p->w2.w.n > 0) {
        a.dy2 = p->dy2;
        a.w2 = &p->w2.w;
    }
    return be->ops.gemm_dgrad(be, &a);
}

/* sum[k] += sum over n of dy[n] m[n, k] */
static void add_reference(const nt_bf16 *dy, const struct op_matrix *m, double *sum) {
    for (int32_t n = 0; n < m->w.n; n++) {
        const double v = (double)nt_bf16_to_f32(dy[n]), *row = m->rounded + (int64_t)n * m->w.k;
        for (int32_t k = 0; k < m->w.k; k++) sum[k] += v * row[k];
    }
}

static void compare_dgrad(struct op_env *env, const struct dgrad *p) {
    const int32_t n_tok = p->args.n_tok, k = p->w.w.k;
    const size_t elem = is_f32(p->args.out) ? sizeof(float) : sizeof(nt_bf16), used = (size_t)k * elem;
    double *want = op_alloc((size_t)n_tok * (size_t)k * sizeof *want);
    char *got = op_alloc((size_t)n_tok * used);
    for (int32_t t = 0; t < n_tok; t++) {
        double *row = want + (int64_t)t * k;
        add_reference(p->dy + t * p->args.lddy, &p->w, row);
        if (p->w2.w.n > 0) add_reference(p->dy2 + t * p->args.lddy2, &p->w2, row);
        for (int32_t i = 0; i < k && p->args.out == NT_GEMM_ADD_F32; i++)
            row[i] += (double)((const float *)p->dx0)[t * p->args.lddx + i];
        const size_t at = (size_t)(t * p->args.lddx) * elem;
        memcpy(got + (size_t)t * used, (char *)p->dx + at, used);
        if (memcmp((char *)p->dx + at + used, (char *)p->dx0 + at + used, (size_t)p->args.lddx * elem - used) != 0)
            op_fail(env, "%s: columns after the last were written in row %d", p->what, t);
    }
    if (is_f32(p->args.out))
        op_compare_f32(env, p->what, want, (const float *)(const void *)got, (int64_t)n_tok * k);
    else
        op_compare_bf16(env, p->what, want, (const nt_bf16 *)(const void *)got, (int64_t)n_tok * k);
    free(want);
    free(got);
}

static void check_dgrad(struct op_env *env, struct dgrad *p) {
    NT_CHECK(run_dgrad(&env->be[0], p) == NT_OK);
    compare_dgrad(env, p);
    check_threads(env, p->what, run_dgrad, p, p->dx, p->dx_bytes);
}

static const enum nt_gemm_out outs[] = {NT_GEMM_STORE_F32, NT_GEMM_ADD_F32, NT_GEMM_STORE_BF16};
enum { N_OUTS = sizeof outs / sizeof outs[0] };

static void check_dgrad_shapes(struct op_env *env) {
    uint64_t seed = 31;
    for (int i = 0; i < 60; i++) {
        struct shape s = {.format = i % 4 == 3   ? NT_WEIGHT_INT4
                                    : i % 4 == 2 ? NT_WEIGHT_INT8
                                                 : NT_WEIGHT_BF16,
                          .out = outs[i % N_OUTS]};
        s.n_tok = i == 7 ? 0 : op_random_int(&seed, 1, i % 5 == 0 ? 3 : 60);
        s.n = op_random_int(&seed, 1, i % 7 == 0 ? 4 : 150);
        s.k = 2 * op_random_int(&seed, 1, i % 6 == 0 ? 4 : 150);
        s.n2 = i % 2 ? op_random_int(&seed, 1, 40) : 0;
        s.aligned = i / 6 % 2 == 1;
        struct dgrad p = make_dgrad(seed, s);
        check_dgrad(env, &p);
        drop_dgrad(&p);
    }
}

/* Sums in several blocks, adapters that do not fit into the last of them, several blocks of rows. */
static void check_dgrad_large(struct op_env *env) {
    static const struct shape shapes[] = {
        {NT_WEIGHT_BF16, 40,  2500, 70,  0,    NT_GEMM_STORE_F32,  true },
        {NT_WEIGHT_BF16, 37,  1024, 34,  24,   NT_GEMM_ADD_F32,    false},
        {NT_WEIGHT_BF16, 15,  1025, 66,  700,  NT_GEMM_STORE_BF16, true },
        {NT_WEIGHT_BF16, 9,   3071, 40,  1200, NT_GEMM_ADD_F32,    false},
        {NT_WEIGHT_INT4, 30,  2049, 160, 9,    NT_GEMM_STORE_BF16, true },
        {NT_WEIGHT_INT8, 21,  1030, 180, 8,    NT_GEMM_STORE_F32,  false},
        {NT_WEIGHT_BF16, 500, 64,   66,  16,   NT_GEMM_STORE_F32,  true },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct dgrad p = make_dgrad(i, shapes[i]);
        check_dgrad(env, &p);
        drop_dgrad(&p);
    }
}

/* They reach exactly the elements IEEE sends them to: rows of dy, columns of w. */
static void check_dgrad_special(struct op_env *env) {
    static const float special[] = {NAN, INFINITY, -INFINITY};
    uint64_t seed = 6;
    for (int i = 0; i < 6 * N_OUTS; i++) {
        struct dgrad p =
            make_dgrad(seed, (struct shape){NT_WEIGHT_BF16, 23, 45, 70, i % 2 ? 7 : 0, outs[i % N_OUTS], i % 4 < 2});
        const int32_t t = op_random_int(&seed, 0, 22), n = op_random_int(&seed, 0, 44), k = op_random_int(&seed, 0, 69);
        p.dy[t * p.args.lddy + n] = nt_f32_to_bf16(special[i % 3]);
        p.w.rows[op_random_int(&seed, 0, 44) * 70 + k] = nt_f32_to_bf16(special[(i + 1) % 3]);
        op_matrix_pack(&p.w);
        if (i % 2) p.dy2[op_random_int(&seed, 0, 22) * p.args.lddy2 + 6] = nt_f32_to_bf16(special[(i + 2) % 3]);
        check_dgrad(env, &p);
        drop_dgrad(&p);
    }
}

/* A row's result is the same bits alone, in any number of rows and at any place among them. */
static void check_dgrad_alone(struct op_env *env) {
    enum { TOKENS = 60 };
    static const enum nt_weight_format formats[] = {NT_WEIGHT_BF16, NT_WEIGHT_INT4, NT_WEIGHT_INT8};
    for (int i = 0; i < 3 * N_OUTS; i++) {
        const struct shape s = {formats[i / N_OUTS], TOKENS, 1100, 50, 12, outs[i % N_OUTS], i % 2 == 1};
        struct dgrad p = make_dgrad((uint64_t)i + 1, s), part = p;
        const size_t row = p.dx_bytes / TOKENS;
        NT_CHECK(run_dgrad(&env->be[0], &p) == NT_OK);
        part.dx = op_alloc(p.dx_bytes);
        for (int32_t n_tok = 1; n_tok < TOKENS; n_tok += 1 + n_tok / 8) {
            const int32_t first = n_tok % 3 == 0 ? 0 : TOKENS - n_tok;
            part.args.n_tok = n_tok;
            part.dy = p.dy + first * p.args.lddy;
            part.dy2 = p.dy2 + first * p.args.lddy2;
            part.dx0 = (char *)p.dx0 + (size_t)first * row;
            part.dx_bytes = (size_t)n_tok * row;
            NT_CHECK(run_dgrad(&env->be[n_tok % OP_BACKENDS], &part) == NT_OK);
            op_compare_bytes(env, p.what, (char *)p.dx + (size_t)first * row, part.dx, part.dx_bytes);
        }
        free(part.dx);
        drop_dgrad(&p);
    }
}

/* As `count` rows alone from row `first` on. */
static void check_some_rows(struct op_env *env, const struct dgrad *p, int32_t first, int32_t count) {
    const size_t row = p->dx_bytes / (size_t)p->args.n_tok;
    struct dgrad part = *p;
    part.args.n_tok = count;
    part.dy += first * p->args.lddy;
    part.dy2 += first * p->args.lddy2;
    part.dx0 = (char *)p->dx0 + (size_t)first * row;
    part.dx_bytes = (size_t)count * row;
    part.dx = op_alloc(part.dx_bytes);
    NT_CHECK(run_dgrad(&env->be[0], &part) == NT_OK);
    op_compare_bytes(env, p->what, (char *)p->dx + (size_t)first * row, part.dx, part.dx_bytes);
    free(part.dx);
}

/* A GPU has integers times scales as bf16 in the same products, so the bits are those of bf16 weights. */
static void check_unpacked(struct op_env *env, const struct dgrad *p) {
    struct dgrad same = *p;
    const int32_t n = p->w.w.n, k = p->w.w.k;
    same.w = op_matrix_make(1, NT_WEIGHT_BF16, n, k, 1);
    for (int64_t i = 0; i < (int64_t)n * k; i++) same.w.rows[i] = nt_f32_to_bf16((float)p->w.rounded[i]);
    op_matrix_pack(&same.w);
    same.dx = op_alloc(p->dx_bytes);
    NT_CHECK(run_dgrad(&env->be[0], &same) == NT_OK);
    op_compare_bytes(env, p->what, p->dx, same.dx, p->dx_bytes);
    free(same.dx);
    op_matrix_drop(&same.w);
}

/* Each tile that a GPU has, and that all of them give a row the same bits. */
static void check_dgrad_tiles(struct op_env *env) {
    static const struct shape shapes[] = {
        {NT_WEIGHT_BF16, 30,   133, 4096, 20, NT_GEMM_STORE_F32,  true },
        {NT_WEIGHT_INT4, 30,   133, 4096, 20, NT_GEMM_ADD_F32,    true },
        {NT_WEIGHT_BF16, 570,  70,  570,  9,  NT_GEMM_ADD_F32,    true },
        {NT_WEIGHT_INT4, 570,  70,  570,  33, NT_GEMM_STORE_F32,  false},
        {NT_WEIGHT_INT8, 30,   101, 4090, 14, NT_GEMM_STORE_F32,  false},
        {NT_WEIGHT_INT8, 570,  70,  570,  33, NT_GEMM_ADD_F32,    true },
        {NT_WEIGHT_INT8, 2040, 70,  520,  9,  NT_GEMM_STORE_BF16, true },
        {NT_WEIGHT_BF16, 2040, 150, 560,  40, NT_GEMM_STORE_BF16, true },
        {NT_WEIGHT_INT4, 2040, 150, 560,  40, NT_GEMM_STORE_F32,  true },
        {NT_WEIGHT_BF16, 2040, 45,  560,  0,  NT_GEMM_STORE_F32,  false},
        {NT_WEIGHT_BF16, 1100, 290, 566,  9,  NT_GEMM_STORE_BF16, true },
        {NT_WEIGHT_BF16, 2040, 400, 520,  8,  NT_GEMM_ADD_F32,    true },
        {NT_WEIGHT_BF16, 505,  270, 4330, 40, NT_GEMM_ADD_F32,    true },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct dgrad p = make_dgrad(i + 100, shapes[i]);
        NT_CHECK(run_dgrad(&env->be[0], &p) == NT_OK);
        compare_dgrad(env, &p);
        check_some_rows(env, &p, shapes[i].n_tok - 1, 1);
        check_some_rows(env, &p, 7, 23);
        if (env->cuda && nt_weight_is_quantized(shapes[i].format)) check_unpacked(env, &p);
        drop_dgrad(&p);
    }
}

/* w with parts: f32 sums of several blocks may differ from those without the statement, others may not. */
static void check_dgrad_dense(struct op_env *env, const struct dgrad *p) {
    struct dgrad dense = *p;
    if (is_f32(p->args.out) && p->w.w.n > NT_WGRAD_TOKENS) return;
    dense.w.w.n_part = 0;
    dense.dx = op_alloc(p->dx_bytes);
    NT_CHECK(run_dgrad(&env->be[0], &dense) == NT_OK);
    op_compare_bytes(env, p->what, p->dx, dense.dx, p->dx_bytes);
    free(dense.dx);
}

/* A NaN of dy in a row of one part is in the columns of that part, and with AVX-512 in no others where parts are even.
 */
static void check_dgrad_reach(struct op_env *env, struct dgrad *p, int which, bool even) {
    const struct nt_packed *w = &p->w.w;
    nt_bf16 *at = p->dy + p->args.n_tok / 2 * p->args.lddy + w->part[which].row0, kept = *at;
    int32_t first = 0;
    for (int i = 0; i < which; i++) first += w->part[i].k;
    *at = nt_f32_to_bf16(NAN);
    NT_CHECK(run_dgrad(&env->be[0], p) == NT_OK);
    *at = kept;
    for (int32_t k = 0; k < w->k; k++) {
        const int64_t i = p->args.n_tok / 2 * p->args.lddx + k;
        const bool nan =
            is_f32(p->args.out) ? isnan(((float *)p->dx)[i]) : isnan(nt_bf16_to_f32(((nt_bf16 *)p->dx)[i]));
        const bool own = k >= first && k < first + w->part[which].k;
        if (own && !nan) op_fail(env, "%s: NaN of part %d is not in column %d", p->what, which, k);
        if (nan && !own && even && !env->cuda && env->isa == NT_ISA_AVX512)
            op_fail(env, "%s: NaN of part %d is in column %d", p->what, which, k);
    }
}

static void check_dgrad_parts(struct op_env *env) {
    enum { HALF = NT_PANEL / 2 };
    static const struct {
        int32_t n_tok, n, k;
        bool even;
        int n_part;
        struct nt_packed_part part[NT_PACKED_PARTS];
    } cases[] = {
        {70, 192,  32, true,  2, {{0, 96, HALF, 16}, {HALF, 96, HALF, 16}}              },
        {9,  3136, 48, true,  2, {{0, 1568, HALF, 40}, {HALF, 1552, HALF, 8}}           },
        {20, 2048, 40, true,  2, {{0, 1024, HALF, 38}, {HALF, 1024, HALF, 2}}           },
        {3,  96,   10, true,  1, {{HALF, 48, HALF, 10}}                                 },
        {35, 960,  48, true,  3, {{0, 576, 0, 16}, {576, 192, 0, 16}, {768, 192, 0, 16}}},
        {33, 2044, 50, true,  3, {{0, 50, 0, 6}, {50, 1130, 0, 42}, {1180, 864, 0, 2}}  },
        {17, 120,  20, false, 2, {{0, 33, 0, 4}, {33, 87, 0, 16}}                       },
        {5,  70,   8,  false, 2, {{0, 40, 0, 4}, {40, 0, 0, 4}}                         },
    };
    for (size_t i = 0; i < 4 * sizeof cases / sizeof cases[0]; i++) { /* so that rows are copied, too */
        const size_t c = i / 4;
        struct dgrad p = make_dgrad(
            i, (struct shape){NT_WEIGHT_BF16, cases[c].n_tok, cases[c].n, cases[c].k, 0, outs[i % N_OUTS], true});
        op_matrix_state_parts(&p.w, cases[c].part, cases[c].n_part);
        check_dgrad(env, &p);
        check_dgrad_dense(env, &p);
        check_some_rows(env, &p, 1, 2);
        for (int k = 0; k < cases[c].n_part; k++)
            if (cases[c].part[k].n > 0) check_dgrad_reach(env, &p, k, cases[c].even);
        drop_dgrad(&p);
    }
}

static void perf_dgrad(struct op_env *env) {
    static const struct shape shapes[] = {
        {NT_WEIGHT_BF16, 256, 960,  576,  0,  NT_GEMM_STORE_F32, true},
        {NT_WEIGHT_BF16, 256, 3072, 576,  0,  NT_GEMM_ADD_F32,   true},
        {NT_WEIGHT_BF16, 256, 576,  1536, 16, NT_GEMM_STORE_F32, true},
        {NT_WEIGHT_INT4, 256, 3072, 576,  16, NT_GEMM_ADD_F32,   true},
        {NT_WEIGHT_INT8, 256, 3072, 576,  16, NT_GEMM_ADD_F32,   true},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct dgrad p = make_dgrad(i, shapes[i]);
        const double elems = (double)(shapes[i].n + shapes[i].n2) * shapes[i].k;
        op_measure(env, p.what, 2 * elems * shapes[i].n_tok, 2 * elems, run_dgrad, &p);
        drop_dgrad(&p);
    }
}

/* ---- gemm_wgrad ---- */

struct wgrad {
    struct nt_gemm_wgrad_args args;
    nt_bf16 *a, *b;
    float *dw0, *dw; // [m, lddw]: before, and of the last run
    size_t dw_bytes;
    char what[96];
};

/* Where column j of b lies. */
static int64_t b_column(const struct wgrad *p, int32_t j) {
    const int32_t run = p->args.b_run;
    return run == 0 ? j : j / run * 2 * run + j % run;
}

static struct wgrad make_wgrad(uint64_t seed, int32_t n_tok, int32_t m, int32_t n, float alpha, int32_t b_run,
                               bool aligned) {
    struct wgrad p = {
        .args = {.n_tok = n_tok, .m = m, .n = n, .b_run = b_run, .alpha = alpha}
    };
    const int64_t width = b_column(&p, n - 1) + 1;
    p.args.lda = m + op_random_int(&seed, 0, 5);
    p.args.ldb = width + op_random_int(&seed, 0, 5);
    p.args.lddw = n + op_random_int(&seed, 0, 9);
    if (aligned) {
        p.args.lda = round_up8(p.args.lda);
        p.args.ldb = round_up8(p.args.ldb);
        p.args.lddw = round_up8(p.args.lddw);
    }
    p.a = random_rows(&seed, n_tok, p.args.lda, m);
    p.b = random_rows(&seed, n_tok, p.args.ldb, (int32_t)width);
    for (int32_t t = 0; t < n_tok && b_run > 0; t++) /* the runs between are nobody's either */
        for (int64_t c = 0; c < width; c++)
            if (c / b_run % 2) p.b[t * p.args.ldb + c] = nt_f32_to_bf16(NAN);
    p.dw_bytes = (size_t)(m * p.args.lddw) * sizeof(float);
    p.dw0 = op_alloc(p.dw_bytes);
    p.dw = op_alloc(p.dw_bytes);
    op_random_f32(&seed, p.dw0, m * p.args.lddw, 1.0f);
    snprintf(p.what, sizeof p.what, "n_tok %d m %d n %d alpha %g run %d", n_tok, m, n, (double)alpha, b_run);
    return p;
}

static void drop_wgrad(struct wgrad *p) {
    free(p->a);
    free(p->b);
    free(p->dw0);
    free(p->dw);
}

static nt_status run_wgrad(struct nt_backend *be, void *ctx) {
    struct wgrad *p = ctx;
    struct nt_gemm_wgrad_args a = p->args;
    memcpy(p->dw, p->dw0, p->dw_bytes);
    a.a = p->a;
    a.b = p->b;
    a.dw = p->dw;
    return be->ops.gemm_wgrad(be, &a);
}

static void compare_wgrad(struct op_env *env, const struct wgrad *p) {
    const int32_t m = p->args.m, n = p->args.n;
    double *want = op_alloc((size_t)m * (size_t)n * sizeof *want);
    float *got = op_alloc((size_t)m * (size_t)n * sizeof *got);
    for (int32_t t = 0; t < p->args.n_tok; t++)
        for (int32_t i = 0; i < m; i++)
            for (int32_t j = 0; j < n; j++)
                want[(int64_t)i * n + j] += (double)nt_bf16_to_f32(p->a[t * p->args.lda + i]) *
                                            (double)nt_bf16_to_f32(p->b[t * p->args.ldb + b_column(p, j)]);
    for (int32_t i = 0; i < m; i++) {
        const float *before = p->dw0 + i * p->args.lddw, *after = p->dw + i * p->args.lddw;
        for (int32_t j = 0; j < n; j++) {
            double *at = want + (int64_t)i * n + j;
            *at = (double)before[j] + (double)p->args.alpha * *at;
        }
        memcpy(got + (int64_t)i * n, after, (size_t)n * sizeof *got);
        if (memcmp(before + n, after + n, (size_t)(p->args.lddw - n) * sizeof *got) != 0)
            op_fail(env, "%s: columns after the last were written in row %d", p->what, i);
    }
    op_compare_f32(env, p->what, want, got, (int64_t)m * n);
    free(want);
    free(got);
}

static void check_wgrad(struct op_env *env, struct wgrad *p) {
    NT_CHECK(run_wgrad(&env->be[0], p) == NT_OK);
    compare_wgrad(env, p);
    check_threads(env, p->what, run_wgrad, p, p->dw, p->dw_bytes);
}

static void check_wgrad_shapes(struct op_env *env) {
    static const float alphas[] = {1, 0.25f, -3};
    static const int32_t runs[] = {0, 16, 0, 48};
    uint64_t seed = 41;
    for (int i = 0; i < 50; i++) {
        const int32_t n_tok = op_random_int(&seed, i == 7 ? 0 : 1, i == 7 ? 0 : i % 5 == 0 ? 4 : 120);
        const int32_t m = op_random_int(&seed, 1, i % 3 == 0 ? 5 : 80), n = op_random_int(&seed, 1, 150);
        struct wgrad p = make_wgrad(seed, n_tok, m, n, alphas[i % 3], runs[i % 4], i / 4 % 2 == 1);
        check_wgrad(env, &p);
        drop_wgrad(&p);
    }
}

/* Tokens in several blocks, several blocks of rows, rows that lie a multiple of 4 KiB apart. */
/* Each number of rows that CPUs have a tile for, with panels cut in either half. */
static void check_wgrad_narrow(struct op_env *env) {
    for (int32_t m = 1; m <= 60; m += env->emulated ? 23 : 1) {
        struct wgrad p =
            make_wgrad((uint64_t)m, m % 5 == 0 ? 1030 : 14, m, 60 + 3 * m % 32, 0.5f, m % 3 == 0 ? 16 : 0, false);
        check_wgrad(env, &p);
        drop_wgrad(&p);
    }
}

static void check_wgrad_large(struct op_env *env) {
    static const struct {
        int32_t n_tok, m, n;
    } shapes[] = {
        {2500, 8,   70  },
        {1025, 33,  40  },
        {1024, 16,  64  },
        {130,  500, 96  },
        {40,   16,  2048},
        {2100, 300, 33  },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct wgrad p = make_wgrad(i, shapes[i].n_tok, shapes[i].m, shapes[i].n, 2, 0, i % 2 == 1);
        check_wgrad(env, &p);
        drop_wgrad(&p);
    }
}

static void check_wgrad_special(struct op_env *env) {
    static const float special[] = {NAN, INFINITY, -INFINITY};
    uint64_t seed = 7;
    for (int i = 0; i < 9; i++) {
        struct wgrad p = make_wgrad(seed, 37, 19, 70, i % 2 ? 0.5f : 1, i % 2 ? 16 : 0, i % 3 == 1);
        const int32_t t = op_random_int(&seed, 0, 36);
        p.a[t * p.args.lda + op_random_int(&seed, 0, 18)] = nt_f32_to_bf16(special[i % 3]);
        p.b[op_random_int(&seed, 0, 36) * p.args.ldb + b_column(&p, op_random_int(&seed, 0, 69))] =
            nt_f32_to_bf16(special[(i + 1) % 3]);
        check_wgrad(env, &p);
        drop_wgrad(&p);
    }
}

/* As the rows and columns alone from (row, col) on. */
static void check_some_columns(struct op_env *env, const struct wgrad *p, int32_t row, int32_t col, int32_t m,
                               int32_t n) {
    struct wgrad part = *p;
    part.args.m = m;
    part.args.n = n;
    part.a += row;
    part.b += b_column(p, col);
    part.dw0 += row * p->args.lddw + col;
    part.dw_bytes = (size_t)((m - 1) * p->args.lddw + n) * sizeof(float);
    part.dw = op_alloc(part.dw_bytes);
    NT_CHECK(run_wgrad(&env->be[0], &part) == NT_OK);
    for (int32_t i = 0; i < m; i++)
        op_compare_bytes(env, p->what, p->dw + (row + i) * p->args.lddw + col, part.dw + i * p->args.lddw,
                         (size_t)n * sizeof(float));
    free(part.dw);
}

/* The last columns once more, with rows of a that TMA does not take: other kernels, the same bits. */
static void check_other_rows(struct op_env *env, const struct wgrad *p) {
    const int64_t lda = p->args.lda, other = lda + 1;
    struct wgrad copy = *p;
    copy.a = op_alloc((size_t)(p->args.n_tok * other) * sizeof *copy.a);
    for (int32_t t = 0; t < p->args.n_tok; t++)
        memcpy(copy.a + t * other, p->a + t * lda, (size_t)p->args.m * sizeof *copy.a);
    copy.args.lda = other;
    check_some_columns(env, &copy, 0, p->args.n / 48 * 48 - 48, p->args.m, 48);
    free(copy.a);
}

/* Each tile that a GPU has, and that all of them give an element the same bits. */
static void check_wgrad_tiles(struct op_env *env) {
    static const struct {
        int32_t n_tok, m, n, b_run;
        bool aligned;
    } shapes[] = {
        {90,   14,   4090, 0,  true },
        {1100, 120,  570,  16, true },
        {75,   256,  560,  48, false},
        {1070, 570,  570,  0,  true },
        {70,   2040, 575,  16, true },
        {50,   2040, 575,  0,  false},
        {130,  1100, 580,  16, true },
        {2100, 190,  200,  48, true },
        {75,   570,  4330, 16, true },
        {1250, 130,  8452, 48, true },
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct wgrad p =
            make_wgrad(i + 200, shapes[i].n_tok, shapes[i].m, shapes[i].n, 0.7f, shapes[i].b_run, shapes[i].aligned);
        NT_CHECK(run_wgrad(&env->be[0], &p) == NT_OK);
        compare_wgrad(env, &p);
        check_some_columns(env, &p, shapes[i].m - 9, 96, 9, 33);
        check_some_columns(env, &p, 3, shapes[i].n / 48 * 48 - 48, 1, 48);
        check_other_rows(env, &p);
        drop_wgrad(&p);
    }
}

/* An element depends on its columns of a and b alone. */
static void check_wgrad_alone(struct op_env *env) {
    enum { M = 40, N = 100 };
    struct wgrad p = make_wgrad(3, 1100, M, N, 0.5f, 0, false), part = p;
    NT_CHECK(run_wgrad(&env->be[0], &p) == NT_OK);
    part.dw = op_alloc(p.dw_bytes);
    for (int32_t m = 1; m < M; m += 3) {
        const int32_t first = m % 2 ? M - m : 0, column = m * 32 % 96, n = m % 4 == 0 ? N - column : 1;
        part.args.m = m;
        part.args.n = n;
        part.a = p.a + first;
        part.b = p.b + column;
        part.dw0 = p.dw0 + first * p.args.lddw + column;
        part.dw_bytes = (size_t)((m - 1) * p.args.lddw + n) * sizeof(float);
        NT_CHECK(run_wgrad(&env->be[m % OP_BACKENDS], &part) == NT_OK);
        for (int32_t i = 0; i < m; i++)
            op_compare_bytes(env, p.what, p.dw + (first + i) * p.args.lddw + column, part.dw + i * p.args.lddw,
                             (size_t)n * sizeof(float));
    }
    free(part.dw);
    drop_wgrad(&p);
}

/* The result of p once more, a call for each block of tokens: a GPU then has one tile for all tokens of a call. */
static void run_blocks(struct op_env *env, struct wgrad *p) {
    struct wgrad part = *p;
    float *before = op_alloc(p->dw_bytes);
    memcpy(before, p->dw0, p->dw_bytes);
    for (int32_t t = 0; t < p->args.n_tok; t += NT_WGRAD_TOKENS) {
        part.args.n_tok = p->args.n_tok - t < NT_WGRAD_TOKENS ? p->args.n_tok - t : NT_WGRAD_TOKENS;
        part.a = p->a + t * p->args.lda;
        part.b = p->b + t * p->args.ldb;
        NT_CHECK(run_wgrad(&env->be[t / NT_WGRAD_TOKENS % OP_BACKENDS], &part) == NT_OK);
        memcpy(p->dw0, p->dw, p->dw_bytes); /* the next call adds to it */
    }
    memcpy(p->dw0, before, p->dw_bytes);
    free(before);
}

/* In a workspace for so many blocks. */
static void run_in_places(struct op_env *env, struct wgrad *p, int32_t n_block) {
    struct nt_cuda *cuda = ((struct nt_backend *)env->be[0].watch_arg)->cuda; /* cuda_staged.h */
    const size_t all = cuda->workspace_bytes;
    cuda->workspace_bytes = (size_t)n_block * nt_wgrad_cut(&p->args, all).place;
    NT_CHECK(run_wgrad(&env->be[0], p) == NT_OK);
    cuda->workspace_bytes = all;
}

/* A batch cut after whole blocks of tokens adds up to the same bits; on a GPU so do blocks beside each other, in as
 * many launches as the workspace has places for, and in order where there are enough tiles. */
static void check_wgrad_cut(struct op_env *env) {
    static const struct {
        int32_t n_tok, m, n, b_run;
        float alpha;
        bool aligned, apart;
    } shapes[] = {
        {2 * NT_WGRAD_TOKENS + 100, 19,  70,    0,  0.3f, true,  true },
        {9 * NT_WGRAD_TOKENS + 1,   16,  40,    0,  2,    true,  true }, /* more than the join has under way */
        {4 * NT_WGRAD_TOKENS,       5,   131,   16, -1,   false, true },
        {3 * NT_WGRAD_TOKENS + 17,  72,  96,    48, 0.7f, true,  true },
        {NT_WGRAD_TOKENS + 64,      130, 200,   0,  1,    false, true },
        {NT_WGRAD_TOKENS + 30,      9,   16900, 0,  0.7f, true,  false},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct wgrad p = make_wgrad(i + 4, shapes[i].n_tok, shapes[i].m, shapes[i].n, shapes[i].alpha, shapes[i].b_run,
                                    shapes[i].aligned);
        NT_CHECK((nt_wgrad_cut(&p.args, NT_CUDA_WORKSPACE_BYTES).n_block > 0) == shapes[i].apart);
        check_wgrad(env, &p);
        float *all = op_alloc(p.dw_bytes);
        memcpy(all, p.dw, p.dw_bytes);
        run_blocks(env, &p);
        op_compare_bytes(env, "whole blocks of tokens, one after the other", all, p.dw, p.dw_bytes);
        for (int32_t n = 1; n <= 3 && env->cuda && shapes[i].apart; n++) {
            run_in_places(env, &p, n);
            op_compare_bytes(env, "places for some blocks of tokens", all, p.dw, p.dw_bytes);
        }
        free(all);
        drop_wgrad(&p);
    }
}

static void perf_wgrad(struct op_env *env) {
    static const struct {
        int32_t m, n;
    } shapes[] = {
        {8,   576 },
        {16,  1536},
        {48,  3072},
        {576, 1536}
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const double m = shapes[i].m, n = shapes[i].n;
        struct wgrad p = make_wgrad(i, 1024, shapes[i].m, shapes[i].n, 1, 0, true);
        op_measure(env, p.what, 2048 * m * n, 2048 * (m + n), run_wgrad, &p);
        drop_wgrad(&p);
    }
}

static const struct op_case cases[] = {
    {NT_OP_gemm_dgrad, "shapes",   check_dgrad_shapes,  perf_dgrad},
    {NT_OP_gemm_dgrad, "large",    check_dgrad_large,   NULL      },
    {NT_OP_gemm_dgrad, "special",  check_dgrad_special, NULL      },
    {NT_OP_gemm_dgrad, "alone",    check_dgrad_alone,   NULL      },
    {NT_OP_gemm_dgrad, "tiles",    check_dgrad_tiles,   NULL      },
    {NT_OP_gemm_dgrad, "parts",    check_dgrad_parts,   NULL      },
    {NT_OP_gemm_wgrad, "shapes",   check_wgrad_shapes,  perf_wgrad},
    {NT_OP_gemm_wgrad, "few rows", check_wgrad_narrow,  NULL      },
    {NT_OP_gemm_wgrad, "large",    check_wgrad_large,   NULL      },
    {NT_OP_gemm_wgrad, "special",  check_wgrad_special, NULL      },
    {NT_OP_gemm_wgrad, "alone",    check_wgrad_alone,   NULL      },
    {NT_OP_gemm_wgrad, "cut",      check_wgrad_cut,     NULL      },
    {NT_OP_gemm_wgrad, "tiles",    check_wgrad_tiles,   NULL      },
};
const struct op_cases gemm_bwd_cases = {sizeof cases / sizeof cases[0], cases};
