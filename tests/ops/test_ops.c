/* test_ops check|perf|list [op], test_ops check [op] --device cuda|cuda-int8|cuda-perturbed: see test_ops.h. "op/case"
 * runs one case, test_ops count the ops of count_ops.c. The device is the first visible one, or that of the driver
 * NOCTURNE_CUDA_DRIVER names; cuda-int8 runs the ops on an int8 cache. */
#include "test_ops.h"
#include "clock.h"
#include "cuda_backend.h"
#include "cuda_staged.h"
#include "tight_workspace.h"
#include "peak.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Each cases file, once. */
extern const struct op_cases embed_cases, norm_cases, gemm_cases, rope_cases, attention_cases, logits_cases, edit_cases,
    sample_cases, head_cases, attention_format_cases, rope_format_cases, gemm_quant_cases, gemm_bwd_cases,
    gemm_adapter_cases;
extern const struct op_cases norm_bwd_cases, glu_bwd_cases, attention_bwd_cases, rope_bwd_cases, logits_bwd_cases,
    rows_bwd_cases, optim_cases, pack_cases;
static const struct op_cases *const all_cases[] = {
    &embed_cases,         &norm_cases,       &gemm_cases,       &rope_cases,     &attention_cases,
    &logits_cases,        &edit_cases,       &sample_cases,     &head_cases,     &attention_format_cases,
    &rope_format_cases,   &gemm_quant_cases, &gemm_bwd_cases,   &norm_bwd_cases, &glu_bwd_cases,
    &attention_bwd_cases, &rope_bwd_cases,   &logits_bwd_cases, &rows_bwd_cases, &optim_cases,
    &gemm_adapter_cases,  &pack_cases,
};
enum { N_FILES = sizeof all_cases / sizeof all_cases[0] };

/* Normalized mean squared error, and the largest |got - want| / (|want| + rms(want)). The first are the contract's
 * (ops.h). */
static const struct {
    enum nt_op op;
    enum op_dtype dtype;
    double nmse, worst;
} tolerances[] = {
    {NT_OP_gemm,          OP_F32,  1e-6,  1e-4},
    {NT_OP_gemm,          OP_BF16, 1e-5,  5e-3},
    {NT_OP_embed,         OP_F32,  0,     0   },
    {NT_OP_rmsnorm,       OP_F32,  1e-12, 1e-5},
    {NT_OP_rmsnorm,       OP_BF16, 1e-5,  5e-3},
    {NT_OP_rope_kv,       OP_BF16, 1e-5,  5e-3},
    {NT_OP_attention,     OP_BF16, 1e-4,  2e-2},
    {NT_OP_attention,     OP_F32,  1e-11, 1e-5},
    {NT_OP_logit_stats,   OP_F32,  1e-12, 1e-6},
    {NT_OP_logit_gumbel,  OP_F32,  1e-12, 1e-5},
    {NT_OP_head_argmax,   OP_F32,  1e-10, 1e-4},
    {NT_OP_gemm_dgrad,    OP_F32,  1e-6,  1e-4},
    {NT_OP_gemm_dgrad,    OP_BF16, 1e-5,  5e-3},
    {NT_OP_gemm_wgrad,    OP_F32,  1e-6,  1e-4},
    {NT_OP_rmsnorm_bwd,   OP_F32,  1e-10, 1e-4},
    {NT_OP_rmsnorm_bwd,   OP_BF16, 1e-5,  5e-3},
    {NT_OP_glu_bwd,       OP_BF16, 1e-5,  5e-3},
    {NT_OP_attention_bwd, OP_F32,  1e-4,  1e-1},
    {NT_OP_rope_bwd,      OP_F32,  1e-11, 1e-5},
    {NT_OP_rope_bwd,      OP_BF16, 1e-5,  5e-3},
    {NT_OP_logit_bwd,     OP_BF16, 1e-5,  5e-3},
    {NT_OP_adamw,         OP_F32,  1e-10, 1e-5},
};

enum { MAX_LINES = 8, N_LEVELS = NT_ISA_COUNT };

void op_fail(struct op_env *env, const char *fmt, ...) {
    if (++env->n_failed > MAX_LINES) return;
    va_list args;
    va_start(args, fmt);
    printf("FAIL %s/%s %s: ", nt_op_name(env->op), env->name, env->be[0].level);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
}

uint32_t op_random(uint64_t *state) { /* splitmix64 (Steele et al. 2014), upper half */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

int32_t op_random_int(uint64_t *state, int32_t low, int32_t high) {
    return low + (int32_t)(op_random(state) % (uint32_t)(high - low + 1));
}

float op_random_normal(uint64_t *state) {
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += op_random(state) * (1.0 / 4294967296.0);
    return (float)sum;
}

void op_random_f32(uint64_t *state, float *to, int64_t count, float scale) {
    for (int64_t i = 0; i < count; i++) to[i] = op_random_normal(state) * scale;
}

void op_random_bf16(uint64_t *state, nt_bf16 *to, int64_t count, float scale) {
    for (int64_t i = 0; i < count; i++) to[i] = nt_f32_to_bf16(op_random_normal(state) * scale);
}

void *op_alloc(size_t bytes) {
    bytes = (bytes + 63) / 64 * 64 + 64;
    void *p = aligned_alloc(64, bytes);
    NT_CHECK(p != NULL);
    memset(p, 0, bytes);
    return p;
}

void op_settle_nans(void *x, enum op_dtype dtype, int64_t count) {
    float *f = x;
    nt_bf16 *h = x;
    for (int64_t i = 0; i < count && dtype == OP_F32; i++)
        if (isnan(f[i])) f[i] = NAN;
    for (int64_t i = 0; i < count && dtype == OP_BF16; i++)
        if (isnan(nt_bf16_to_f32(h[i]))) h[i] = nt_f32_to_bf16(NAN);
}

bool op_compare_bytes(struct op_env *env, const char *what, const void *want, const void *got, size_t bytes) {
    env->n_checked++;
    if (env->perturbed) return true;
    const unsigned char *a = want, *b = got;
    size_t i = 0;
    while (i < bytes && a[i] == b[i]) i++;
    if (i == bytes) return true;
    op_fail(env, "%s: bytes differ, first at %zu of %zu", what, i, bytes);
    return false;
}

/* NaN, +Inf, -Inf must stand where the reference has them. */
static bool same_class(double a, double b) {
    if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
    if (isinf(a) || isinf(b)) return a == b;
    return true;
}

struct reader {
    const void *data;
    enum op_dtype dtype;
};

static double value_at(const struct reader *r, int64_t i) {
    return r->dtype == OP_F32 ? (double)((const float *)r->data)[i]
                              : (double)nt_bf16_to_f32(((const nt_bf16 *)r->data)[i]);
}

static bool compare(struct op_env *env, const char *what, const double *want, const struct reader *got, int64_t count) {
    env->n_checked++;
    double square = 0, error = 0, worst = 0;
    int64_t worst_at = 0;
    for (int64_t i = 0; i < count; i++) {
        const double g = value_at(got, i);
        if (!same_class(want[i], g)) {
            op_fail(env, "%s: element %lld is %g, the reference has %g", what, (long long)i, g, want[i]);
            return false;
        }
        if (!isfinite(want[i])) continue;
        square += want[i] * want[i];
        error += (g - want[i]) * (g - want[i]);
    }
    const double rms = sqrt(square / (double)count);
    for (int64_t i = 0; i < count; i++) {
        const double e = isfinite(want[i]) ? fabs(value_at(got, i) - want[i]) / (fabs(want[i]) + rms + 1e-300) : 0;
        if (e <= worst) continue;
        worst = e;
        worst_at = i;
    }
    const double nmse = square > 0 ? error / square : error;
    for (size_t t = 0; t < sizeof tolerances / sizeof tolerances[0]; t++) {
        if (tolerances[t].op != env->op || tolerances[t].dtype != got->dtype) continue;
        /* int8: an error of max|x| / 254 in each element, 3e-5 of normal data's power */
        const double nmse_limit = tolerances[t].nmse * (env->kv_int8 ? 10 : 1);
        const double worst_limit = tolerances[t].worst * (env->kv_int8 ? 5 : 1);
        if (nmse <= nmse_limit && worst <= worst_limit) return true;
        op_fail(env, "%s: nmse %.2e (limit %.0e), largest error %.2e (limit %.0e) at %lld: %.9g, reference %.9g", what,
                nmse, nmse_limit, worst, worst_limit, (long long)worst_at, value_at(got, worst_at), want[worst_at]);
        return false;
    }
    op_fail(env, "%s: the tolerance table has no row for this op and dtype", what);
    return false;
}

bool op_compare_f32(struct op_env *env, const char *what, const double *want, const float *got, int64_t count) {
    return compare(env, what, want, &(struct reader){got, OP_F32}, count);
}

bool op_compare_bf16(struct op_env *env, const char *what, const double *want, const nt_bf16 *got, int64_t count) {
    return compare(env, what, want, &(struct reader){got, OP_BF16}, count);
}

void op_measure(struct op_env *env, const char *what, double flops, double bytes, op_run_fn *run, void *ctx) {
    struct nt_backend *be = &env->be[OP_BACKENDS - 1];
    double best = 1e30, total = 0;
    const double peak = nt_peak_gflops(be->pool, env->isa, NT_PEAK_BF16, true);
    if (peak > env->gflops) env->gflops = peak;
    NT_CHECK(run(be, ctx) == NT_OK);
    for (int i = 0; i < 3 || total < 0.02; i++) {
        const double start = nt_now();
        NT_CHECK(run(be, ctx) == NT_OK);
        const double t = nt_now() - start;
        total += t;
        if (t < best) best = t;
    }
    const double gflops = flops / best * 1e-9, gb = bytes / best * 1e-9;
    const double of_peak = fmax(gflops / env->gflops, gb / env->read_gb_s);
    printf("%-12s %-9s %-36s %10.1f us %8.1f GB/s %8.1f GFLOP/s %6.1f %% of peak\n", nt_op_name(env->op),
           env->be[0].level, what, best * 1e6, gb, gflops, 100 * of_peak);
}

bool op_too_large(const struct op_env *env, double work) {
    return env->emulated && work > 2e6;
}

struct totals {
    int n_run, n_failed, n_skipped;
    int64_t n_checked;
};

static bool has_body(const struct nt_ops *ops, enum nt_op op) {
    switch (op) {
#define NT_OP(name, doc)                                                                                               \
    case NT_OP_##name:                                                                                                 \
        return ops->name != NULL;
#include "ops.def"
#undef NT_OP
    default:
        return false;
    }
}

static void run_case(struct op_env *env, const struct op_case *c, bool perf, struct totals *totals) {
    env->op = c->op;
    env->name = c->name;
    env->n_failed = 0;
    env->n_checked = 0;
    if (perf) {
        if (c->perf) c->perf(env);
        return;
    }
    c->check(env);
    if (env->n_checked == 0) op_fail(env, "compared nothing");
    printf("%-4s %-12s %-28s %-9s %lld comparisons\n", env->n_failed ? "FAIL" : "ok", nt_op_name(c->op), c->name,
           env->be[0].level, (long long)env->n_checked);
    totals->n_run++;
    totals->n_failed += env->n_failed > 0;
    totals->n_checked += env->n_checked;
}

/* Ops on the cache, and values that int8 can hold. */
static bool suits_int8(const struct op_case *c) {
    return (c->op == NT_OP_rope_kv || c->op == NT_OP_attention) && strcmp(c->name, "special") != 0 &&
           strcmp(c->name, "range") != 0;
}

/* only: an op, "op/case", or NULL for all. */
static bool wanted(const struct op_case *c, const char *only) {
    const char *op = nt_op_name(c->op);
    const size_t n = strlen(op);
    if (!only || strcmp(only, op) == 0) return true;
    return strncmp(only, op, n) == 0 && only[n] == '/' && strcmp(only + n + 1, c->name) == 0;
}

static void run_cases(struct op_env *env, const struct nt_ops *bodies, const char *only, bool perf,
                      struct totals *totals) {
    for (int f = 0; f < N_FILES; f++) {
        for (int i = 0; i < all_cases[f]->count; i++) {
            const struct op_case *c = &all_cases[f]->cases[i];
            if (!wanted(c, only)) continue;
            if (env->kv_int8 && !suits_int8(c)) continue;
            if (has_body(bodies, c->op)) run_case(env, c, perf, totals);
        }
    }
}

static void run_level(enum nt_isa isa, const char *only, bool perf, struct nt_pool *pools[OP_BACKENDS],
                      struct totals *totals) {
    struct op_env env = {.isa = isa};
    for (int i = 0; i < OP_BACKENDS; i++) NT_CHECK(nt_backend_open_cpu(&env.be[i], isa, pools[i]) == NT_OK);
    double read_gb_s[2] = {0};
    if (perf) NT_CHECK(nt_peak_read(pools[OP_BACKENDS - 1], read_gb_s) == NT_OK);
    env.read_gb_s = read_gb_s[1];
    run_cases(&env, nt_cpu_bodies(isa), only, perf, totals);
    for (int i = 0; i < OP_BACKENDS; i++) nt_backend_close(&env.be[i]);
}

/* Every failure of a device is one of the test: it was asked for. */
static int run_cuda(const char *only, const char *device, bool count) {
    const bool kv_int8 = strcmp(device, "cuda-int8") == 0;
    struct nt_pool *pool;
    struct nt_backend cuda;
    struct op_env env = {.isa = NT_ISA_PORTABLE, .cuda = true, .kv_int8 = kv_int8};
    env.perturbed = strcmp(device, "cuda-perturbed") == 0;
    struct totals totals = {0};
    NT_CHECK(nt_pool_new(&pool, 1, false, 0, 1) == NT_OK);
    if (nt_cuda_open_partly(&cuda, 0, pool) != NT_OK) {
        printf("FAIL no CUDA device: %s\n", nt_error_last()->text);
        nt_pool_free(pool);
        return 1;
    }
    env.emulated = cuda.cuda->facts.emulated;
    if (kv_int8) cuda.kv_format = NT_KV_ROWS_INT8;
    for (int i = 0; i < OP_BACKENDS; i++) NT_CHECK(nt_cuda_staged_ops(&cuda, &env.be[i]) == NT_OK);
    op_tighten_workspace(&env.be[1], &cuda);
    if (count)
        totals.n_failed = op_count_all(&env.be[0]);
    else
        run_cases(&env, &cuda.ops, only, false, &totals);
    for (int i = 0; i < OP_BACKENDS; i++) nt_backend_close(&env.be[i]);
    if (!count)
        printf("%d cases run on %s, %lld comparisons, %d failed\n", totals.n_run, cuda.cuda->facts.name,
               (long long)totals.n_checked, totals.n_failed);
    nt_backend_close(&cuda);
    nt_pool_free(pool);
    return totals.n_failed > 0 || (totals.n_run == 0 && !count);
}

static int run(const char *only, bool perf) {
    struct nt_pool *pools[OP_BACKENDS];
    struct totals totals = {0};
    for (int i = 0; i < OP_BACKENDS; i++) NT_CHECK(nt_pool_new(&pools[i], i + 1, false, 0, 1) == NT_OK);
    for (int isa = 0; isa < N_LEVELS; isa++) {
        if ((enum nt_isa)isa <= nt_isa_detect()) {
            run_level((enum nt_isa)isa, only, perf, pools, &totals);
            continue;
        }
        printf("skip %s: this CPU lacks it\n", nt_isa_name((enum nt_isa)isa));
        totals.n_skipped++;
    }
    for (int i = 0; i < OP_BACKENDS; i++) nt_pool_free(pools[i]);
    if (perf) return 0;
    printf("%d cases run, %lld comparisons, %d failed, %d levels skipped\n", totals.n_run, (long long)totals.n_checked,
           totals.n_failed, totals.n_skipped);
    return totals.n_failed > 0 || totals.n_run == 0;
}

/* One line per op; an op without a case, or with a case that cannot check, is an error. */
static int list(void) {
    int missing = 0;
    for (int op = 0; op < NT_OP_COUNT; op++) {
        int n = 0;
        for (int f = 0; f < N_FILES; f++)
            for (int i = 0; i < all_cases[f]->count; i++)
                n += all_cases[f]->cases[i].op == (enum nt_op)op && all_cases[f]->cases[i].check != NULL;
        printf("%-14s %2d cases, bodies:", nt_op_name((enum nt_op)op), n);
        for (int isa = 0; isa < N_LEVELS; isa++)
            if (has_body(nt_cpu_bodies((enum nt_isa)isa), (enum nt_op)op)) printf(" %s", nt_isa_name((enum nt_isa)isa));
        printf("%s\n", n ? "" : "  <- no case");
        missing += n == 0;
    }
    return missing > 0;
}

int main(int argc, char **argv) {
    const char *words[2] = {"", NULL}; /* mode, op */
    const char *device = "cpu";
    int n = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            device = argv[++i];
        else if (n < 2)
            words[n++] = argv[i];
        else
            n = 3;
    }
    static const char *const devices[] = {"cpu", "cuda", "cuda-int8", "cuda-perturbed"};
    const bool cpu = strcmp(device, "cpu") == 0;
    bool right = false;
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) right |= n < 3 && strcmp(device, devices[i]) == 0;
    if (right && strcmp(words[0], "check") == 0) return cpu ? run(words[1], false) : run_cuda(words[1], device, false);
    if (right && cpu && strcmp(words[0], "count") == 0) return run_cuda(NULL, "cuda", true);
    if (right && cpu && strcmp(words[0], "perf") == 0) return run(words[1], true);
    if (right && strcmp(words[0], "list") == 0) return list();
    fprintf(stderr, "usage: test_ops check|perf|list [op|op/case]   test_ops check [op|op/case] --device "
                    "cuda|cuda-int8   test_ops count\n");
    return 2;
}
