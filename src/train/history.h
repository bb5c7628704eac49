/* What metrics.jsonl tells of a training run: one series per figure, over the steps.
 *
 * Read back from the file, so that a run that was interrupted and resumed has one history. Lines of other events, a
 * last line that a crash cut, and figures that are null (not measured) are left out. A step that comes twice counts as
 * it came last. Ownership: nt_history_release frees the series. Threading: one thread. Errors: NT_E_IO, NT_E_NOMEM;
 * no file is an empty history. */
#ifndef NT_HISTORY_H
#define NT_HISTORY_H

#include "status.h"
#include <stdint.h>

/* X(name, event, key) */
#define NT_HISTORY_LIST(X)                                                                                             \
    X(LOSS, "step", "loss")                                                                                            \
    X(EVAL_LOSS, "eval", "eval_loss")                                                                                  \
    X(LR, "step", "lr")                                                                                                \
    X(GRAD_NORM, "step", "grad_norm")                                                                                  \
    X(MARGIN, "step", "margin")                                                                                        \
    X(EVAL_MARGIN, "eval", "margin")                                                                                   \
    X(ACCURACY, "step", "accuracy")                                                                                    \
    X(EVAL_ACCURACY, "eval", "accuracy")                                                                               \
    X(KL, "step", "kl")                                                                                                \
    X(TOKENS_PER_S, "step", "tokens_per_s")                                                                            \
    X(MFU, "step", "mfu")

enum nt_history_figure {
#define X(name, event, key) NT_HISTORY_##name,
    NT_HISTORY_LIST(X)
#undef X
        NT_HISTORY_COUNT
};

struct nt_history_series {
    double *x, *y; // [n] step, value; steps ascending
    int64_t n, cap;
};

struct nt_history {
    struct nt_history_series figure[NT_HISTORY_COUNT];
};

NT_MUST nt_status nt_history_read(const char *path, struct nt_history *h);
void nt_history_release(struct nt_history *h); /* accepts zeroed */
/* Mean with a half life in steps, of the values so far, into out [n]: the curve that the eye wants. */
void nt_history_smooth(const struct nt_history_series *s, double half_life, double *out);

#endif
