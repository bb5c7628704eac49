#include "gemm_bench.h"
#include "arena.h"
#include "clock.h"
#include "ops_bwd.h"
#include "peak.h"

/* Output rows of the head are written in f32, gate/up gated, the rest added to the residual: the epilogues of a model.
 */
static const struct {
    int32_t n, k;
    enum nt_gemm_out out;
} shapes[] = {
    {576,   576,  NT_GEMM_ADD_F32    }, /* 135M attention output */
    {960,   576,  NT_GEMM_STORE_F32  }, /* 135M q, k, v */
    {3072,  576,  NT_GEMM_SWIGLU_BF16}, /* 135M gate, up */
    {576,   1536, NT_GEMM_ADD_F32    }, /* 135M down */
    {49152, 576,  NT_GEMM_STORE_F32  }, /* 135M head */
    {2048,  2048, NT_GEMM_ADD_F32    }, /* 1B attention output */
    {11264, 2048, NT_GEMM_SWIGLU_BF16},
    {2048,  5632, NT_GEMM_ADD_F32    },
};
static const int32_t token_counts[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], N_COUNTS = sizeof token_counts / sizeof token_counts[0] };
enum { MAX_TOK = 256, MAX_K = 5632, MAX_N = 49152, HEAD_TOK = 64, SWEEPS = 10 };
/* Training: the first shapes, forward and backward, of the head a chunk; weights of an adapter and all. */
enum { TRAIN_SHAPES = 6, TRAIN_TOK = 1024, TRAIN_HEAD_TOK = 256, TRAIN_RANK = 16, TRAIN_N = 3072 };
enum { X_ELEMS = TRAIN_HEAD_TOK * (MAX_N + 32), Y_ELEMS = TRAIN_HEAD_TOK * MAX_N };
_Static_assert(X_ELEMS >= MAX_TOK * MAX_K && X_ELEMS >= TRAIN_TOK * TRAIN_N, "x and dy of every row");
_Static_assert(Y_ELEMS >= HEAD_TOK * MAX_N && Y_ELEMS >= TRAIN_TOK * TRAIN_N, "y, dx and dw of every row");
static const size_t pool_bytes = (size_t)192 << 20;
static const double sweep_flops = 1.5e9; /* per thread: about 6 ms, so that some sweeps are undisturbed */

struct bench {
    nt_bf16 *weights, *x;
    float *y;
    size_t cursor; /* bytes into the weights */
    double peak;   /* GFLOP/s, the best seen so far */
};

static void layout(struct nt_arena *arena, struct bench *b) {
    b->weights = nt_arena_take(arena, pool_bytes, 1);
    b->x = NT_TAKE(arena, nt_bf16, (size_t)X_ELEMS);
    b->y = NT_TAKE(arena, float, (size_t)Y_ELEMS);
}

static void fill(nt_bf16 *to, size_t count) {
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        to[i] = nt_f32_to_bf16(((float)(state >> 8) / 8388608.0f - 1.0f) * 0.05f);
    }
}

/* One product of a row; cold is what comes from the pool: weights, or b of a gradient of weights. */
struct product {
    enum nt_gemm_product what;
    int32_t n_tok, n, k;
    enum nt_gemm_out out;
    enum nt_weight_format format;
};

/* The head is not quantized. Any bytes of the pool are integers, and bf16 scales at even places. */
static enum nt_weight_format format_of(const struct nt_backend *be, int32_t n) {
    return n == MAX_N ? be->weight_format : be->block_format;
}

static size_t cold_bytes(const struct product *p) {
    if (p->what == NT_GEMM_WGRAD) return ((size_t)p->n_tok * (size_t)p->k * sizeof(nt_bf16) + 63) / 64 * 64;
    return nt_packed_bytes(p->format, p->n, p->k);
}

static nt_status call(struct nt_backend *be, const struct bench *b, const struct product *p, const void *cold) {
    const struct nt_packed w = {.format = p->format, .n = p->n, .k = p->k, .data = cold};
    if (p->what == NT_GEMM_DGRAD) {
        const struct nt_gemm_dgrad_args a = {
            .dy = b->x, .lddy = nt_row_ld(p->n), .w = &w, .dx = b->y, .lddx = p->k, .n_tok = p->n_tok};
        return be->ops.gemm_dgrad(be, &a);
    }
    if (p->what == NT_GEMM_WGRAD) {
        const struct nt_gemm_wgrad_args a = {.a = b->x,
                                             .b = cold,
                                             .lda = p->n,
                                             .ldb = p->k,
                                             .dw = b->y,
                                             .lddw = p->k,
                                             .alpha = 1,
                                             .n_tok = p->n_tok,
                                             .m = p->n,
                                             .n = p->k};
        return be->ops.gemm_wgrad(be, &a);
    }
    const struct nt_gemm_args a = {
        .x = b->x, .ldx = p->k, .w = &w, .y = b->y, .ldy = p->n, .n_tok = p->n_tok, .out = p->out};
    return be->ops.gemm(be, &a);
}

static nt_status sweep(struct nt_backend *be, struct bench *b, const struct product *p, int64_t calls,
                       double *seconds) {
    const size_t bytes = cold_bytes(p);
    const double start = nt_now();
    for (int64_t i = 0; i < calls; i++) {
        if (b->cursor + bytes > pool_bytes) b->cursor = 0;
        const char *cold = (const char *)b->weights + b->cursor;
        b->cursor += bytes;
        NT_TRY(call(be, b, p, cold));
    }
    *seconds = nt_now() - start;
    return NT_OK;
}

static nt_status run_row(struct nt_backend *be, struct bench *b, const struct product *p,
                         struct nt_gemm_bench_row *row) {
    const double flops = 2.0 * p->n_tok * p->n * p->k, bytes = (double)cold_bytes(p);
    const int n_threads = nt_pool_size(be->pool);
    const double fit = (double)pool_bytes / bytes, wanted = sweep_flops * n_threads / flops;
    const int64_t calls = (int64_t)(wanted < fit ? wanted : fit) + 1;
    *row =
        (struct nt_gemm_bench_row){.product = p->what, .n_tok = p->n_tok, .n = p->n, .k = p->k, .n_threads = n_threads};
    double best = 1e30;
    for (int i = 0; i < SWEEPS; i++) {
        const double peak = nt_peak_gflops(be->pool, be->isa, NT_PEAK_BF16, true);
        if (peak > b->peak) b->peak = peak;
        double seconds = 0;
        NT_TRY(sweep(be, b, p, calls, &seconds));
        if (seconds / (double)calls < best) best = seconds / (double)calls;
    }
    row->us = best * 1e6;
    row->gflops = flops / best * 1e-9;
    row->gb_s = bytes / best * 1e-9;
    row->peak = row->gflops / b->peak;
    return NT_OK;
}

static nt_status report(struct nt_backend *be, struct bench *b, const struct product *p, nt_gemm_bench_fn *fn,
                        void *ctx) {
    struct nt_gemm_bench_row row;
    NT_TRY(run_row(be, b, p, &row));
    fn(ctx, &row);
    return NT_OK;
}

static nt_status run_training(struct nt_backend *be, struct bench *b, int s, nt_gemm_bench_fn *fn, void *ctx) {
    const bool head = shapes[s].n == MAX_N;
    struct product p = {.n_tok = head ? TRAIN_HEAD_TOK : TRAIN_TOK, .n = shapes[s].n, .k = shapes[s].k};
    p.out = shapes[s].out;
    p.format = format_of(be, p.n);
    NT_TRY(report(be, b, &p, fn, ctx));
    p.what = NT_GEMM_DGRAD;
    NT_TRY(report(be, b, &p, fn, ctx));
    p.what = NT_GEMM_WGRAD;
    if (!head) NT_TRY(report(be, b, &p, fn, ctx)); /* dw of the head does not fit here */
    p.n = TRAIN_RANK;
    if (!head) NT_TRY(report(be, b, &p, fn, ctx));
    return NT_OK;
}

static nt_status run_all(struct nt_backend *be, struct bench *b, const int32_t filter[3], nt_gemm_bench_fn *fn,
                         void *ctx) {
    for (int s = 0; s < N_SHAPES; s++) {
        if ((filter[0] && filter[0] != shapes[s].n) || (filter[1] && filter[1] != shapes[s].k)) continue;
        for (int c = 0; c < N_COUNTS; c++) {
            const int32_t n_tok = token_counts[c];
            if (shapes[s].n == MAX_N && n_tok > HEAD_TOK) continue;
            if (filter[2] && filter[2] != n_tok) continue;
            const struct product p = {.n_tok = n_tok,
                                      .n = shapes[s].n,
                                      .k = shapes[s].k,
                                      .out = shapes[s].out,
                                      .format = format_of(be, shapes[s].n)};
            NT_TRY(report(be, b, &p, fn, ctx));
        }
    }
    for (int s = 0; s < TRAIN_SHAPES; s++) {
        const bool wanted = (!filter[0] || filter[0] == shapes[s].n) && (!filter[1] || filter[1] == shapes[s].k);
        if (wanted && (!filter[2] || filter[2] == TRAIN_TOK)) NT_TRY(run_training(be, b, s, fn, ctx));
    }
    return NT_OK;
}

nt_status nt_gemm_bench(struct nt_backend *be, int32_t filter_n, int32_t filter_k, int32_t filter_tok,
                        nt_gemm_bench_fn *fn, void *ctx) {
    struct nt_arena arena;
    struct bench b = {0};
    nt_arena_init(&arena, "gemm bench");
    layout(&arena, &b);
    NT_TRY(nt_arena_bind(&arena));
    layout(&arena, &b);
    fill(b.weights, pool_bytes / sizeof(nt_bf16));
    fill(b.x, X_ELEMS);
    const nt_status st = run_all(be, &b, (const int32_t[3]){filter_n, filter_k, filter_tok}, fn, ctx);
    nt_arena_release(&arena);
    return st;
}
