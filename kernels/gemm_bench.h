/* Speed of the gemm op and its backward on the shapes of the supported models, beside the peak of the same moment.
 *
 * Every call of a shape takes the next matrix of a pool larger than the caches, as a model sweep does: weights, or what
 * the gradient of weights reads most of. Each row is the best of ten short sweeps, the peak the best of the bursts
 * between all sweeps so far: both are what the machine gives when nobody disturbs it. Memory (about 300 MB) is owned by
 * the run. Errors: no memory, and those of the ops. */
#ifndef NT_GEMM_BENCH_H
#define NT_GEMM_BENCH_H

#include "backend.h"

/* dw of WGRAD is [n, k]. */
enum nt_gemm_product { NT_GEMM_FORWARD, NT_GEMM_DGRAD, NT_GEMM_WGRAD };

struct nt_gemm_bench_row {
    enum nt_gemm_product product;
    int32_t n_tok, n, k;
    int n_threads;
    double us, gflops, gb_s; /* of one call; GB/s of cold operands */
    double peak;             /* fraction of the bf16 peak of n_threads */
};

typedef void nt_gemm_bench_fn(void *ctx, const struct nt_gemm_bench_row *row);
/* Shapes of SmolLM2-135M and Llama 1B, n_tok 1 to 256, then those of SmolLM2-135M in training: 1024 tokens (256 of the
 * head) forward and backward, gradients of all weights and of an adapter's (n 16); weights of blocks are in the
 * backend's block_format. Each is reported when done; filter_n/filter_k/filter_tok 0: all. About 30 s. */
NT_MUST nt_status nt_gemm_bench(struct nt_backend *be, int32_t filter_n, int32_t filter_k, int32_t filter_tok,
                                nt_gemm_bench_fn *fn, void *ctx);

#endif
