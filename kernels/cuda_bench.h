/* Times of the CUDA kernels in the shapes of models, against what this device measurably can: a part of doctor --gpu.
 *
 * A time is the median over replays of a CUDA graph of at least 20 launches, taken by events, divided by the launches.
 * Operands are random and rotate through a pool larger than L2, and L2 is overwritten before each replay, so weights
 * and cache come from memory as they do in a step. cuBLASLt's graph is replayed in turn with ours, so both see the same
 * clocks and temperature; where our product has an epilogue that it has not (a gate), it stores the plain product.
 * Ceilings: copies within device memory (read + written bytes), and a large bf16 product by the faster of cuBLASLt and
 * our own. Bytes and FLOPs of a call are those of ops_cost.h.
 * small: sizes for an emulator, whose times mean nothing.
 * Ownership: open to close; the lists are the caller's. Threading: as the backend. Errors: NT_E_NOMEM when not even a
 * small pool fits, NT_E_SYSTEM from the driver. */
#ifndef NT_CUDA_BENCH_H
#define NT_CUDA_BENCH_H

#include "cuda_backend.h"
#include "ops_cost.h"

/* What the shapes of a model's ops follow from. */
struct nt_cuda_dims {
    const char *name;
    int32_t d_model, d_ff, n_head, n_kv, d_head, n_vocab;
};

struct nt_cuda_bench_sizes {
    int32_t n_decode, decode[4]; /* rows of decode steps */
    int32_t context, prefill;    /* position of a decoded token; tokens of a prompt */
    int32_t launches, replays;   /* of a graph; timed ones */
    int32_t matrix;              /* n = k = n_tok of the large product */
    size_t in_bytes, out_bytes;  /* of the two pools, less where memory is short */
    bool skip[NT_OP_COUNT];      /* ops left out */
};
void nt_cuda_bench_sizes(bool small, struct nt_cuda_bench_sizes *out);

struct nt_cuda_ceilings {
    double copy_bytes_s;              /* read + written */
    double own_flop_s, blaslt_flop_s; /* 0: not measured */
    double matrix_flop_s;             /* the larger one */
    size_t copy_bytes;                /* of one copy */
    int32_t matrix;
    char no_blaslt[NT_ERROR_TEXT]; /* why cuBLASLt is not there, or "" */
};

enum { NT_CUDA_TIMING_WHAT = 32, NT_CUDA_TIMING_SKIPPED = 160, NT_CUDA_TIMINGS_MAX = 256 };
struct nt_cuda_timing {
    const char *model; /* dims.name */
    enum nt_op op;
    char what[NT_CUDA_TIMING_WHAT]; /* "gemm qkv" */
    int32_t n_tok;
    bool prefill;
    int32_t n, k; /* of a product, else 0 */
    struct nt_cost cost;
    double seconds, blaslt_seconds; /* of one call; 0: not measured */
    char skipped[NT_CUDA_TIMING_SKIPPED];
};
struct nt_cuda_timings {
    int32_t n;
    struct nt_cuda_timing row[NT_CUDA_TIMINGS_MAX];
};
/* The time that the ceilings allow: the larger of FLOPs (products and attention) and bytes. */
double nt_cuda_timing_ideal(const struct nt_cuda_timing *t, const struct nt_cuda_ceilings *c);

struct nt_cuda_bench;
NT_MUST nt_status nt_cuda_bench_open(struct nt_cuda_bench **out, struct nt_backend *be,
                                     const struct nt_cuda_bench_sizes *sizes);
void nt_cuda_bench_close(struct nt_cuda_bench *b);
NT_MUST nt_status nt_cuda_bench_ceilings(struct nt_cuda_bench *b, struct nt_cuda_ceilings *out);
/* FLOP/s of a large bf16 product of our own, in memory taken for it; with an emulated driver a small one. */
NT_MUST nt_status nt_cuda_matrix_rate(struct nt_backend *be, double *flop_s);
/* Appends the rows of one model. */
NT_MUST nt_status nt_cuda_bench_ops(struct nt_cuda_bench *b, const struct nt_cuda_dims *dims,
                                    struct nt_cuda_timings *out);

#endif
