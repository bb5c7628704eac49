/* Lines of a text file, streamed forward: plain, gzip (.gz) and Zstandard (.zst), told apart by their first bytes.
 *
 * Memory is one buffer of at most the longest line; concatenated gzip members and zstd frames are read as one text.
 * A line ends with LF or CRLF, the last one also without; a UTF-8 byte order mark at the start is skipped. A line
 * above the cap is skipped and reported as such, so that one bad line does not end a job.
 * Lifecycle: nt_lines_open, nt_lines_next until data is NULL, nt_lines_close. One user per object, no globals.
 * Errors: NT_E_NOINPUT / NT_E_IO, and NT_E_DATA for damaged or cut compressed data, with the offset in the file.
 * Layouts: RFC 1952 (gzip), RFC 8878 (Zstandard); decoding by zlib and libzstd. */
#ifndef NT_LINES_H
#define NT_LINES_H

#include "hash.h"
#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NT_LINES_MAX = 64 << 20 }; /* default cap of one line in bytes */

struct nt_lines;

struct nt_line {
    const char *data; /* valid until the next call, not NUL terminated; NULL: end of the file */
    size_t len;       /* without the line end */
    int64_t number;   /* 1-based */
    int64_t offset;   /* of its first byte in the uncompressed text */
    bool too_long;    /* above the cap: data is empty, len its true length */
};

/* max_line 0: NT_LINES_MAX. tap, if not NULL, digests every uncompressed byte read; the caller finishes it. */
NT_MUST nt_status nt_lines_open(struct nt_lines **out, const char *path, size_t max_line, struct nt_sha256 *tap);
NT_MUST nt_status nt_lines_next(struct nt_lines *l, struct nt_line *line);
/* As nt_lines_next, passing over blank lines: they are no rows. */
NT_MUST nt_status nt_lines_next_row(struct nt_lines *l, struct nt_line *line);
void nt_lines_close(struct nt_lines *l); /* accepts NULL */
/* This thread's error about one parsed line, without origin ("line 7") and without the parser's own count of lines,
 * which is always 1; the error is cleared. */
void nt_lines_complaint(const char *origin, char text[NT_ERROR_TEXT]);

#endif
