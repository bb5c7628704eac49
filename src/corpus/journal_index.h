/* Reading the journal: every good record of every file, and an index of rows for reading them in input order.
 *
 * Files are visited in name order, records in file order; a file ends at its first bad record (see journal.h). Record
 * bytes are checked (length against the file, XXH3) before anyone sees them. The index takes 16 bytes per row.
 * Lifecycle: zero-initialise struct nt_journal_index, build, read, release. One thread at a time.
 * Errors: NT_E_DATA for the journal of another job or version, naming the file and the remedy. */
#ifndef NT_JOURNAL_INDEX_H
#define NT_JOURNAL_INDEX_H

#include "journal.h"

enum { NT_JOURNAL_HEADER = 64, NT_JOURNAL_FRONT = 16, NT_JOURNAL_VERSION = 1, NT_JOURNAL_RESULT = 1 };

/* The bytes of a file header and of a record front. */
void nt_journal_make_header(const uint8_t job_digest[32], uint8_t out[NT_JOURNAL_HEADER]);
void nt_journal_make_front(const void *body, uint32_t n, uint32_t kind, uint8_t out[NT_JOURNAL_FRONT]);

struct nt_journal_files {
    char **path; // [n] owned, ascending
    int32_t n;
};
NT_MUST nt_status nt_journal_list(const char *dir, struct nt_journal_files *out); /* none: n is 0 */
void nt_journal_files_release(struct nt_journal_files *f);
/* Checks headers only: NT_E_DATA when a file belongs to another job. */
NT_MUST nt_status nt_journal_check(const char *dir, const uint8_t job_digest[32]);

/* Removes what killed attempts to write results left in dir; only the process that writes them may call it. */
NT_MUST nt_status nt_journal_remove_temps(const char *dir);

struct nt_journal_record {
    int32_t file;   /* index into nt_journal_files */
    int64_t offset; /* of the body */
    const uint8_t *body;
    uint32_t n;
};
typedef nt_status nt_journal_visit_fn(void *arg, const struct nt_journal_files *files,
                                      const struct nt_journal_record *rec);
NT_MUST nt_status nt_journal_visit(const struct nt_journal_files *files, const uint8_t job_digest[32],
                                   nt_journal_visit_fn *fn, void *arg);

struct nt_journal_index {
    int64_t n_rows, n_done;
    struct {
        int64_t offset; /* of the body; 0: row not done */
        uint32_t file, n;
    } * at;           // [n_rows]
    int32_t n_top;    /* largest over all rows */
    bool has_logprob; /* of any row */
    struct nt_journal_files files;
    int *fd; // [files.n] -1: closed
    int32_t n_open;
};
NT_MUST nt_status nt_journal_index_build(struct nt_journal_index *x, const char *dir, const uint8_t job_digest[32],
                                         int64_t n_rows);
/* The row's result; NT_E_INTERNAL when it is not done. The caller releases it. */
NT_MUST nt_status nt_journal_index_read(struct nt_journal_index *x, int64_t row, struct nt_result *out);
void nt_journal_index_release(struct nt_journal_index *x);

#endif
