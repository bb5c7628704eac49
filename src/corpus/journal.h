/* The journal: progress of a job as append-only files beside the results, one per writing process.
 *
 * DIR/journal/part-<host>-<pid>-<nonce>.ntj: header {magic, version, job digest, XXH3}, then records {u32 length,
 * u32 kind, u64 XXH3 of the body, body}. A torn tail (kill -9, power cut) is cut off at the first bad record; rows
 * before it count. A row present twice (a zombie rank of an earlier attempt) holds the same bytes by the determinism
 * promise; the first in file name order wins. Rows are acknowledged when nt_journal_sync (fdatasync) returned.
 * Lifecycle: nt_journal_open, append/sync, nt_journal_close; one thread at a time per journal. After a failed write or
 * sync the journal stays failed: what the disk holds is unknown, the next attempt finds out. Layout: docs/formats.md.
 */
#ifndef NT_JOURNAL_H
#define NT_JOURNAL_H

#include "beat.h"
#include "result.h"

struct nt_journal;

/* job_digest: SHA-256 of everything that determines the rows (input, model, tokenizer, settings). A journal of another
 * job in the same directory is NT_E_DATA naming both and the remedy (--fresh or another directory). The file is made at
 * the first append. */
NT_MUST nt_status nt_journal_open(struct nt_journal **out, const char *dir, const uint8_t job_digest[32]);
NT_MUST nt_status nt_journal_append(struct nt_journal *j, const struct nt_result *r); /* buffered until sync */
NT_MUST nt_status nt_journal_sync(struct nt_journal *j);
NT_MUST nt_status nt_journal_close(struct nt_journal *j); /* syncs; frees in any case; accepts NULL */
/* Which rows are done in all journal files of dir: done is a bitmap of n_rows bits (caller's, zeroed; row r is bit r %
 * 8 of byte r / 8); *n_done counts them. */
NT_MUST nt_status nt_journal_scan(const char *dir, const uint8_t job_digest[32], int64_t n_rows, uint8_t *done,
                                  int64_t *n_done);
NT_MUST nt_status nt_journal_discard(const char *dir); /* --fresh: removes all but metrics.jsonl, COMPLETE first */

/* Builds results.h5, results.jsonl and errors.jsonl from journal + input (both read streaming; memory does not grow
 * with text size), publishes each atomically. Rank 0, when all rows are done. Everything written is a function of the
 * rows only. */
struct nt_config;
struct nt_finish_info {
    const char *input, *dir;
    const char *model_name; /* "model" field of responses */
    const uint8_t *job_digest;
    int64_t n_rows;
    int64_t created;
    int64_t n_error; /* out */
    const struct nt_config *config;
    const char *(*piece)(void *arg, uint32_t id, size_t *len); /* token bytes for logprobs entries; NULL: no such id */
    void *piece_arg;
    struct nt_beat beat; /* once per row */
};
NT_MUST nt_status nt_results_finish(struct nt_finish_info *info);

#endif
