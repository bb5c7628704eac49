#include "gemm_bench.h"
#include "arena.h"
#include "clock.h"
#include "ops_cost.h"
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
    b->x = NT_TAKE(arena, nt_bf16, (size_t)MAX_TOK * MAX_K);
    b->y = NT_TAKE(arena, float, (size_t)HEAD_TOK *MAX_N);
}

static void fill(nt_bf16 *to, size_t count) {
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        to[i] = nt_f32_to_bf16(((float)(state >> 8) / 8388608.0f - 1.0f) * 0.05f);
    }
}

static nt_status sweep(struct nt_backend *be, struct bench *b, struct nt_gemm_args *args, int64_t calls,
                       double *seconds) {
    struct nt_packed w = *args->w;
    const size_t bytes = nt_packed_bytes(w.format, w.n, w.k);
    args->w = &w;
    const double start = nt_now();
    for (int64_t i = 0; i < calls; i++) {
        if (b->cursor + bytes > pool_bytes) b->cursor = 0;
        w.data = (char *)b->weights + b->cursor;
        b->cursor += bytes;
        NT_TRY(be->ops.gemm(be, args));
    }
    *seconds = nt_now() - start;
    return NT_OK;
}

static nt_status run_row(struct nt_backend *be, struct bench *b, int s, int32_t n_tok, struct nt_gemm_bench_row *row) {
    const struct nt_packed w = {.format = NT_WEIGHT_BF16, .n = shapes[s].n, .k = shapes[s].k};
    struct nt_gemm_args args = {
        .x = b->x, .ldx = w.k, .w = &w, .y = b->y, .ldy = w.n, .n_tok = n_tok, .out = shapes[s].out};
    const struct nt_cost cost = nt_op_cost_gemm(&args);
    const double flops = cost.flops, bytes = cost.stored_bytes;
    const int n_threads = nt_pool_size(be->pool);
    const double fit = (double)pool_bytes / bytes, wanted = sweep_flops * n_threads / flops;
    const int64_t calls = (int64_t)(wanted < fit ? wanted : fit) + 1;
    *row = (struct nt_gemm_bench_row){.n_tok = n_tok, .n = w.n, .k = w.k, .n_threads = n_threads};
    double best = 1e30;
    for (int i = 0; i < SWEEPS; i++) {
        const double peak = nt_peak_gflops(be->pool, be->isa, NT_PEAK_BF16, true);
        if (peak > b->peak) b->peak = peak;
        double seconds = 0;
        args.w = &w; /* the sweep leaves its own */
        NT_TRY(sweep(be, b, &args, calls, &seconds));
        if (seconds / (double)calls < best) best = seconds / (double)calls;
    }
    row->us = best * 1e6;
    row->gflops = flops / best * 1e-9;
    row->gb_s = bytes / best * 1e-9;
    row->peak = row->gflops / b->peak;
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
            struct nt_gemm_bench_row row;
            NT_TRY(run_row(be, b, s, n_tok, &row));
            fn(ctx, &row);
        }
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
    fill(b.x, (size_t)MAX_TOK * MAX_K);
    const nt_status st = run_all(be, &b, (const int32_t[3]){filter_n, filter_k, filter_tok}, fn, ctx);
    nt_arena_release(&arena);
    return st;
}
