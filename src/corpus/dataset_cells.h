/* The tables of one open training corpus, and single values of them.
 *
 * nt_dsfile is filled by nt_dsfile_open (dataset_file.h); the checks of dataset_check.h run on it half filled: columns
 * first. Texts are checked as they are read. In memory: the offsets of messages, the names of sources, licenses and
 * models, and for each conversation what hangs on it (8 to 40 bytes each). Threading: one thread. Errors: NT_E_DATA
 * naming file, dataset and row. */
#ifndef NT_DATASET_CELLS_H
#define NT_DATASET_CELLS_H

#include "dataset_tables.h"

/* Rows of another table by conversation: rows of c are row[ptr[c]] to row[ptr[c + 1]], ascending. */
struct nt_dsfile_index {
    int64_t *ptr, *row;
};

struct nt_dsfile_names {
    struct nt_strbuf text; /* each with its NUL */
    int64_t *at;           // [n]
    int64_t n;
};

struct nt_dsfile {
    char *path;
    struct nt_h5_file *h5;
    struct nt_h5_array *col[NT_N_COLS];
    struct nt_h5_text text[NT_N_COLS];
    int64_t n[NT_N_TABLES];
    char uuid[37], content_sha256[65], license[256];
    int64_t *msg_ptr;   // [n conversations + 1]
    uint8_t *conv_kind; // [n conversations]
    int32_t *subject;   // [n conversations]
    struct nt_dsfile_index generations, feedback, pairs;
    struct nt_dsfile_names sources, licenses, models;
};

NT_MUST nt_status nt_dsfile_get(struct nt_dsfile *f, enum nt_col col, int64_t row, void *out);
/* Appends a text (checked: UTF-8). */
NT_MUST nt_status nt_dsfile_text(struct nt_dsfile *f, enum nt_col col, int64_t row, struct nt_strbuf *out);
/* The same of a text whose SHA-256 stands in column sha: NT_E_DATA where it is another's. */
NT_MUST nt_status nt_dsfile_digested(struct nt_dsfile *f, enum nt_col col, enum nt_col sha, int64_t row,
                                     struct nt_strbuf *out, uint8_t digest[32]);
NT_MUST nt_status nt_dsfile_subject(struct nt_dsfile *f, int32_t subject, uint8_t id[NT_CORPUS_ID],
                                    struct nt_subject_facts *facts);
const char *nt_dsfile_name(const struct nt_dsfile_names *names, int32_t i); /* "" for -1 */
/* The conversation that a feedback is about. */
NT_MUST nt_status nt_dsfile_feedback_conv(struct nt_dsfile *f, int64_t feedback, int64_t *conv);

#endif
