/* The generate job: rows from a shared counter through the engine into the journal, until all are done or a stop is
 * due.
 *
 * Exactly once: a row counts when its journal record is synced; a restarted job scans the journals and skips those
 * rows. Rows are handed to data-parallel groups dynamically, so there is no idle tail; the leader of each
 * tensor-parallel group decides what its group does and broadcasts it. nt_generate_run returns NT_OK (all rows done) or
 * NT_E_STOPPED on every rank alike; other errors may be one rank's and end the job. */
#ifndef NT_GENERATE_H
#define NT_GENERATE_H

#include "journal.h"
#include "reader.h"
#include "session.h"
#include "watchdog.h"

struct nt_generate_job {
    struct nt_session *session;
    struct nt_metrics *metrics; /* rank 0 */
    const char *input, *dir;    /* dir/journal holds the journals */
    int64_t n_rows;
    uint8_t job_digest[32];
    struct nt_watchdog *watchdog; /* told of every step; may be NULL */
    /* results, the same on all ranks */
    int64_t n_resumed, n_done;
    int64_t prompt_tokens, answer_tokens, steps;
    double generate_s, forward_s, sample_s;
    struct nt_engine_stats stats; /* this rank's */
};

NT_MUST nt_status nt_generate_run(struct nt_generate_job *job);

#endif
