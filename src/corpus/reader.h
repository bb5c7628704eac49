/* Streams rows of an input: JSONL (plain, .gz, .zst; "-" is not accepted: a job must be restartable) or an HDF5 corpus.
 *
 * Rows are numbered in input order, blank lines are no rows, a malformed line is a row with r->error. Of a corpus only
 * the rows whose subject consents to `generate` are seen. Reading is forward only: the row asked for may only increase,
 * which suits tickets handed out in ascending order. Every rank opens its own reader and walks over all lines; memory
 * is one line plus 16 to 22 bytes per custom_id.
 * Threading: one thread per reader. Errors: NT_E_NOINPUT, NT_E_IO, NT_E_DATA naming the file. */
#ifndef NT_READER_H
#define NT_READER_H

#include "beat.h"
#include "json.h"
#include "request.h"

struct nt_reader;
/* c gives the sampling defaults and must outlive the reader. */
NT_MUST nt_status nt_reader_open(struct nt_reader **out, const char *path, const struct nt_config *c);
void nt_reader_close(struct nt_reader *r); /* accepts NULL */
/* One pass over the input: number of rows and its SHA-256 (of the uncompressed bytes; of the file for HDF5). Rank 0
 * only, before the job. */
NT_MUST nt_status nt_reader_scan(const char *path, int64_t *n_rows, uint8_t digest[32]);
NT_MUST nt_status nt_reader_scan_watched(const char *path, int64_t *n_rows, uint8_t digest[32],
                                         const struct nt_beat *beat); /* beat: once per row; or NULL */
/* Reads row `row` (> all rows read before) into out, which the caller releases. NT_E_DATA only for input that ends
 * early or cannot be read at all. */
NT_MUST nt_status nt_reader_row(struct nt_reader *r, int64_t row, struct nt_request *out);
/* As nt_reader_row, and keeps the row's JSON in *doc (NULL for a bad line). The caller frees it. */
NT_MUST nt_status nt_reader_row_json(struct nt_reader *r, int64_t row, struct nt_request *out, struct nt_json **doc);

#endif
