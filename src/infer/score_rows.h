/* Rows of text to score, streamed from JSONL, plain text or an HDF5 corpus, as token ids with the first scored
 * position.
 *
 * Forward only; every rank opens its own. A row that cannot be scored carries a sentence instead of ids. The ids are
 * owned by the caller (nt_ids_release). Errors of the file itself are NT_E_DATA / NT_E_IO. */
#ifndef NT_SCORE_ROWS_H
#define NT_SCORE_ROWS_H

#include "session.h"

struct nt_score_rows;
struct nt_score_row {
    struct nt_ids ids;
    int32_t first; /* ids[first] is the first token whose log-probability counts, >= 1 */
    int64_t line;  /* 1-based, 0: the input has no lines */
    char *error;   /* malloc'd, or NULL */
};

NT_MUST nt_status nt_score_rows_open(struct nt_score_rows **out, const struct nt_session *s, const char *path);
void nt_score_rows_close(struct nt_score_rows *r); /* accepts NULL */
/* Row `row`, not before any row read earlier; *end when the input has no such row. */
NT_MUST nt_status nt_score_rows_get(struct nt_score_rows *r, int64_t row, struct nt_score_row *out, bool *end);

#endif
