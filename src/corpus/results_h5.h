/* results.h5: the answers as columns.
 *
 * /requests has a row per input row, /generations one per choice of the good ones; tokens and log-probabilities are
 * flat behind tok_ptr. Where rows asked for different numbers of log-probabilities the widest decides the shape and the
 * rest is NaN (ids 0xFFFFFFFF). No time, no rank, no order of arrival: the same rows give the same datasets. Lifecycle:
 * zero-initialise, nt_results_h5_open, _add per row in input order, _publish or _abandon. Threading: one thread.
 * Errors: as hdf5file.h. Layout, field by field: docs/formats.md. */
#ifndef NT_RESULTS_H5_H
#define NT_RESULTS_H5_H

#include "hdf5file.h"
#include "journal.h"
#include "request.h"

struct nt_results_h5 {
    struct nt_h5_writer *w;
    struct nt_h5_ragged custom_id, error, content;
    struct nt_h5_column *endpoint, *status, *n_prompt, *line, *digest, *gen_ptr;
    struct nt_h5_column *row, *choice, *finish, *gen_prompt, *n_completion, *tok_ptr, *tok;
    struct nt_h5_column *logprob, *top_id, *top_lp; /* NULL when no row asked */
    int32_t n_top;
    int64_t n_requests, n_generations, n_tok;
};

NT_MUST nt_status nt_results_h5_open(struct nt_results_h5 *h, const char *path, const struct nt_finish_info *info,
                                     bool has_logprob, int32_t n_top);
NT_MUST nt_status nt_results_h5_add(struct nt_results_h5 *h, const struct nt_request *q, const struct nt_result *r);
NT_MUST nt_status nt_results_h5_publish(struct nt_results_h5 *h);
void nt_results_h5_abandon(struct nt_results_h5 *h);

#endif
