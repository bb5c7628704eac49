/* Speed of the gemm op on the shapes of the supported models, cold weights, beside the peak of the same moment.
 *
 * Every call of a shape takes the next matrix of a pool larger than the caches, as a model sweep does. Each row is the
 * best of ten short sweeps, the peak the best of the bursts between all sweeps so far: both are what the machine gives
 * when nobody disturbs it. Memory (about 300 MB) is owned by the run. */
#ifndef NT_GEMM_BENCH_H
#define NT_GEMM_BENCH_H

#include "backend.h"

struct nt_gemm_bench_row {
    int32_t n_tok, n, k;
    int n_threads;
    double us, gflops, gb_s; /* of one call; GB/s of weights */
    double peak;             /* fraction of the bf16 peak of n_threads */
};

typedef void nt_gemm_bench_fn(void *ctx, const struct nt_gemm_bench_row *row);
/* Shapes of SmolLM2-135M and Llama 1B, n_tok 1 to 256, each reported when done; filter_n/filter_k/filter_tok 0: all.
 * About 20 s. */
NT_MUST nt_status nt_gemm_bench(struct nt_backend *be, int32_t filter_n, int32_t filter_k, int32_t filter_tok,
                                nt_gemm_bench_fn *fn, void *ctx);

#endif
