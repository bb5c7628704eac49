/* Speed of a training step on random tokens: forward, backward and update, as peers' benchmarks count them.
 *
 * rows sequences of `length` tokens, every token but the first a target, in micro-batches of at most micro_tokens. The
 * first step warms up; each of `reps` steps is one figure. Useful work is the forward and the gradients of what is
 * trained and of its inputs (per token 4 N and 6 per number of an adapter, 6 N for all weights), recompute not
 * counted; the peak is
 * measured between the steps. Collective over tp; model copies (dp) run the same each and are not summed. The model may
 * not be used for anything else afterwards (weights have moved). Errors: those of training. */
#ifndef NT_BENCH_TRAIN_H
#define NT_BENCH_TRAIN_H

#include "training.h"

struct nt_train_bench {
    struct nt_model *model;
    struct nt_backend *backend;
    struct nt_world *world; /* told of every micro-batch */
    int32_t rows, length, micro_tokens, reps;
    struct nt_training_config config;
};
struct nt_train_bench_result {
    double median_ts, best_ts; /* tokens/s */
    double mfu;                /* of the median step; fraction of the measured bf16 peak, NaN: not measured */
    double peak_gflops, loss;
    size_t resident; /* bytes of this process after the steps */
};
NT_MUST nt_status nt_bench_train(const struct nt_train_bench *b, struct nt_train_bench_result *out);

/* FLOP/s of one rank's bf16 products, measured now: in registers of a CPU, of a large product on a GPU. 0: unknown, as
 * with an emulated driver, whose times mean nothing. */
double nt_train_peak(struct nt_backend *be);
/* FLOPs of a step on one sequence of n_tok tokens with n_out targets: see above. adapter: its numbers, 0: all weights
 * are trained. */
double nt_train_flops(const struct nt_model *m, int64_t adapter, int32_t n_tok, int32_t n_out);

#endif
