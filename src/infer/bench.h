/* Speed of a model: prefill (pp), single decode (tg) and batched decode, in tokens per second, without sampling.
 *
 * A test is one row: n_seq sequences; n_prompt tokens each are forwarded in steps of at most step_tokens with logits
 * for the last; then n_gen steps of one token per sequence with logits each. Token ids are random (Philox), as in
 * llama-bench. timed_prompt tells which part is timed. The first repetition is a warm-up and not counted. Memory is the
 * caller's session plus one arena per run. */
#ifndef NT_BENCH_H
#define NT_BENCH_H

#include "session.h"

enum { NT_BENCH_MAX_REPS = 1000 };

struct nt_bench_test {
    int32_t n_seq, n_prompt, n_gen;
    bool timed_prompt; /* else the decode part is timed */
};

struct nt_bench_result {
    double avg_ns, stddev_ns, avg_ts, stddev_ts; /* of one repetition; tokens per second */
};

NT_MUST nt_status nt_bench_model(struct nt_session *s, const struct nt_bench_test *test, int32_t step_tokens,
                                 int32_t reps, struct nt_bench_result *out);

#endif
