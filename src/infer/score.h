/* The score job: log-likelihood of given texts under the model, per row and in all.
 *
 * A row is {"text"} (every token after the first is scored; the first has no context), {"prompt","completion"} (the
 * completion is scored), {"messages"} (the last message, given the rendered ones before it), a row of an HDF5 corpus,
 * or a whole plain text file as one row. Texts longer than score.window are cut into windows; each starts at the last
 * token of the one before, so only context is lost, no token. Rows are handed to data-parallel groups dynamically; sums
 * run in token order in double, so a row's figure does not depend on its neighbours. Perplexity is exp(-logprob /
 * n_tokens). */
#ifndef NT_SCORE_H
#define NT_SCORE_H

#include "session.h"
#include "watchdog.h"

struct nt_row_score {
    int64_t row;
    int64_t n_tokens; /* scored; -1: the row was refused, see error */
    double logprob;   /* natural log */
};

struct nt_score_error {
    int64_t row, line; /* line 0: the input has none */
    char text[240];    /* the sentence, cut to fit */
};

struct nt_score_total {
    int64_t n_rows, n_errors, n_tokens;
    double logprob, seconds;
    struct nt_row_score *rows;     // [n_rows] in input order on world rank 0 (free), NULL elsewhere
    struct nt_score_error *errors; // [n_errors] in input order, likewise
};

/* watchdog: told of every step; may be NULL. */
NT_MUST nt_status nt_score_run(struct nt_session *s, const char *input, struct nt_watchdog *watchdog,
                               struct nt_score_total *total);

#endif
