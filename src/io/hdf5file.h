/* HDF5 files: columns written front to back and published whole; foreign files read against a schema.
 *
 * The only module that sees hdf5.h. What is written: metadata with checksums (library version bounds 1.10), every
 * dataset chunked, shuffled, deflated and with fletcher32, no variable-length data (ragged = int64 ptr + flat data;
 * attributes of fixed length), no time stamps. Every return code counts, above all those of closing: HDF5 reports a
 * full disk only there. Before a file gets its name it is read back and compared with what was appended. What is read:
 * only hard links, plain filters and storage inside the file, exact types and ranks; extents are held against the
 * stored bytes, and nothing is allocated by numbers from the file but one row (capped at 64 MiB). Lifecycle:
 * nt_h5_create ... nt_h5_publish or nt_h5_abandon; nt_h5_open ... nt_h5_close. Columns and arrays belong to their file.
 * Threading: one thread at a time. Errors: NT_E_DATA / NT_E_IO naming file, dataset and HDF5's own cause.
 */
#ifndef NT_HDF5FILE_H
#define NT_HDF5FILE_H

#include "status.h"
#include "strbuf.h"
#include <stdbool.h>
#include <stdint.h>

enum nt_h5_type { NT_H5_U8, NT_H5_U16, NT_H5_U32, NT_H5_I32, NT_H5_I64, NT_H5_F32 };

bool nt_h5_is_file(const char *path); /* by its first bytes */
const char *nt_hdf5_version(void);    /* of the headers we were built with */
/* Version of the library in use, and whether it can do what we need. */
NT_MUST nt_status nt_h5_check_library(char *text, size_t cap);

/* ---- writing ---- */

struct nt_h5_writer;
struct nt_h5_column;
struct nt_h5_ragged {
    struct nt_h5_column *ptr, *data;
    int64_t end;
};

NT_MUST nt_status nt_h5_create(struct nt_h5_writer **out, const char *path);
NT_MUST nt_status nt_h5_attr_str(struct nt_h5_writer *w, const char *object, const char *name, const char *value);
NT_MUST nt_status nt_h5_attr_i64(struct nt_h5_writer *w, const char *object, const char *name, int64_t value);
NT_MUST nt_status nt_h5_group(struct nt_h5_writer *w, const char *path, const char *encoding);
/* width 0: [rows], else [rows, width]. */
NT_MUST nt_status nt_h5_column(struct nt_h5_writer *w, const char *path, enum nt_h5_type type, int32_t width,
                               struct nt_h5_column **out);
NT_MUST nt_status nt_h5_append(struct nt_h5_column *c, const void *rows, int64_t n);
/* A group path/ptr i64[n + 1], path/data; encoding such as "ragged-utf8". */
NT_MUST nt_status nt_h5_ragged(struct nt_h5_writer *w, const char *path, enum nt_h5_type type, const char *encoding,
                               struct nt_h5_ragged *out);
NT_MUST nt_status nt_h5_ragged_append(struct nt_h5_ragged *r, const void *elements, int64_t n);
NT_MUST nt_status nt_h5_publish(struct nt_h5_writer *w); /* frees w in any case */
void nt_h5_abandon(struct nt_h5_writer *w);              /* removes the temporary file; accepts NULL */

/* ---- reading ---- */

struct nt_h5_file;
struct nt_h5_array;
struct nt_h5_text { /* a ragged group */
    struct nt_h5_array *ptr, *data;
    int64_t n;
};

NT_MUST nt_status nt_h5_open(struct nt_h5_file **out, const char *path);
void nt_h5_close(struct nt_h5_file *f); /* accepts NULL */
/* A scalar string attribute of fixed length. */
NT_MUST nt_status nt_h5_read_attr(struct nt_h5_file *f, const char *object, const char *name, char *buf, size_t cap);
bool nt_h5_has(struct nt_h5_file *f, const char *path); /* a hard link of this path */
/* width as for columns; -1: two dimensions, nt_h5_width tells. rows -1: any number, else exactly so many. */
NT_MUST nt_status nt_h5_array(struct nt_h5_file *f, const char *path, enum nt_h5_type type, int32_t width, int64_t rows,
                              struct nt_h5_array **out);
int64_t nt_h5_rows(const struct nt_h5_array *a);
int32_t nt_h5_width(const struct nt_h5_array *a);
NT_MUST nt_status nt_h5_read(struct nt_h5_array *a, int64_t first, int64_t n, void *rows);
/* One row through a window: cheap in ascending order. */
NT_MUST nt_status nt_h5_get(struct nt_h5_array *a, int64_t row, void *out);
/* ptr is checked as it is read: ascending, within data. rows as above. */
NT_MUST nt_status nt_h5_text(struct nt_h5_file *f, const char *path, enum nt_h5_type type, int64_t rows,
                             struct nt_h5_text *out);
NT_MUST nt_status nt_h5_text_range(struct nt_h5_text *t, int64_t i, int64_t *first, int64_t *n);
/* Appends the bytes of entry i (u8 data). */
NT_MUST nt_status nt_h5_text_get(struct nt_h5_text *t, int64_t i, struct nt_strbuf *out);

#endif
