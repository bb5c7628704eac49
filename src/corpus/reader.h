/* Streams rows of an input: JSONL (plain, .gz, .zst; "-" is not accepted: a job must be restartable) or an HDF5 corpus.
 *
 * Rows are numbered in input order, blank lines are no rows, a malformed line is a row with r->error. Reading is forward
 * only: nt_reader_seek_row may only increase, which suits tickets handed out in ascending order. Every rank opens its own reader. */
#ifndef NT_READER_H
#define NT_READER_H

#include "request.h"

struct nt_reader;
NT_MUST nt_status nt_reader_open(struct nt_reader **out, const char *path, const struct nt_config *c);
void nt_reader_close(struct nt_reader *r);
/* One pass over the input: number of rows and its SHA-256 (of the uncompressed bytes; of the file for HDF5). Rank 0 only, before the job. */
NT_MUST nt_status nt_reader_scan(const char *path, int64_t *n_rows, uint8_t digest[32]);
/* Reads row `row` (>= all rows read before). NT_E_DATA only for input that ends early or cannot be read at all. */
NT_MUST nt_status nt_reader_row(struct nt_reader *r, int64_t row, struct nt_request *out);

#endif
