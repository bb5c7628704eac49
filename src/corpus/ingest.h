/* ingest: JSONL of training data (and of what came after: answers, feedback) to a training corpus.
 *
 * One file has one format. Every row is checked; a bad one is not taken but becomes a line of OUTPUT.errors.jsonl with
 * its file and line, and the rest goes on. The corpus appears whole or not at all. Memory: 16 to 60 bytes per row.
 * Requests for generate go through transfer.h instead; nt_ingest_detect tells which it is.
 * Lifecycle: no state. Threading: one thread. Errors: those of lines.h, hdf5file.h, NT_E_CONFIG for settings.
 * Formats: docs/formats.md. */
#ifndef NT_INGEST_H
#define NT_INGEST_H

#include "config.h"
#include "dataset.h"

struct nt_ingest_report {
    enum nt_row_format format;
    int64_t n_rows, n_errors;  /* of the input: taken, and bad ones of all files */
    int64_t n_duplicates;      /* rows whose content was there already (kept or dropped) */
    int64_t n_without_consent; /* rows that no purpose will see */
    int64_t n_repeats;         /* rows of strings whose completions begin with the prompt */
    int64_t n_unread;          /* rows with words in a field that their format does not read */
    const char *unread;        /* the first of these fields */
    int64_t n_answers, n_feedback, n_pairs, n_unanswered;
    char errors[4096]; /* path of the errors file */
};

/* By ingest.format, or by the first row that can be read. *request: rows for generate. */
NT_MUST nt_status nt_ingest_detect(const struct nt_config *c, enum nt_row_format *format, bool *request);
/* program: name and version, for provenance. */
NT_MUST nt_status nt_ingest(const struct nt_config *c, enum nt_row_format format, const char *program,
                            struct nt_ingest_report *report);

#endif
