/* Speed of a training step on random tokens: forward, backward and update, as peers' benchmarks count them.
 *
 * rows sequences of `length` tokens, every token but the first a target, in micro-batches of at most micro_tokens. The
 * first step warms up; each of `reps` steps is one figure. Useful work is the forward and the gradients of what is
 * trained and of its inputs (per token 4 N and 6 per number of an adapter, 6 N for all weights), recompute not
 * counted; the peak is measured between the steps, and raised by a step that is faster. Collective over tp; model
 * copies (dp) run the same each and are not summed. The model may not be used for anything else afterwards (weights
 * have moved). Errors: those of training. */
#ifndef NT_BENCH_TRAIN_H
#define NT_BENCH_TRAIN_H

#include "training.h"

/* What a step's speed is a part of. A peak measured beside other load is too low: a step that is faster raises it, to
 * what another measurement gives or else to the step's own speed, which is told. */
struct nt_train_roof {
    double flops; /* FLOP/s of bf16 products; 0: unknown */
    bool reached; /* it is the speed of a step, above all that was measured */
};
/* rate: of a step; again: the peak measured once more, 0: it was not. Returns whether the roof moved. */
bool nt_train_roof_raise(struct nt_train_roof *r, double rate, double again);
const char *nt_train_roof_source(const struct nt_train_roof *r); /* "measured", "reached by a step", "unknown" */
/* flops in seconds, as a fraction; NaN: unknown. */
double nt_train_mfu(const struct nt_train_roof *r, double flops, double seconds);
/* "87%", "100% (of what was reached)", "unknown". */
enum { NT_TRAIN_MFU_TEXT = 48 };
void nt_train_mfu_text(const struct nt_train_roof *r, double mfu, char text[NT_TRAIN_MFU_TEXT]);

struct nt_train_bench {
    struct nt_model *model;
    struct nt_backend *backend;
    struct nt_world *world; /* told of every micro-batch */
    int32_t rows, length, micro_tokens, reps;
    struct nt_training_config config;
};
struct nt_train_bench_result {
    double median_ts, best_ts; /* tokens/s */
    double mfu;                /* of the median step; fraction of roof, NaN: not measured */
    struct nt_train_roof roof; /* of the ranks that share the model */
    double loss;
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
