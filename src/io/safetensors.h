/* safetensors reader: the tensor table of one file, and the file list of a Hugging Face directory.
 *
 * Layout (safetensors README): u64 N | N bytes of JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}} |
 * data; offsets count from the byte after the header. Checked as the reference implementation does: N at most
 * 100,000,000 and inside the file, header begins with '{', keys unique, begin of each tensor equal to the end of the
 * one before (no hole, no overlap), end - begin equal to the product of shape and element size, last end equal to the
 * end of the file. "__metadata__" may hold strings only. Used by tensor_source; callers outside src/io use that.
 * Errors: NT_E_DATA naming the file and the tensor or offset. Ownership: the caller frees the table with
 * nt_safetensors_release. */
#ifndef NT_SAFETENSORS_H
#define NT_SAFETENSORS_H

#include "dequant.h"
#include "status.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    NT_SAFETENSORS_MAX_HEADER = 100000000, /* the limit of the reference implementation */
    NT_SAFETENSORS_MAX_DIMS = 8,
    NT_SAFETENSORS_MAX_SHARDS = 4096
};

struct nt_safetensors_tensor {
    const char *name; /* in names; no control characters */
    enum nt_wdtype dtype;
    int32_t n_dims;
    int64_t shape[NT_SAFETENSORS_MAX_DIMS];
    int64_t offset; /* from the start of the file */
    int64_t n_bytes;
};

struct nt_safetensors {
    struct nt_safetensors_tensor *tensors; /* [n_tensors], by offset */
    int64_t n_tensors;
    char *names;
    char *header; /* the JSON bytes */
    size_t header_len;
};

/* fd: open file at path (named in errors) of size bytes. */
NT_MUST nt_status nt_safetensors_read(int fd, const char *path, int64_t size, struct nt_safetensors *out);
/* The header of a file as a document; its "__metadata__" holds the strings of whoever wrote the file. */
struct nt_json;
NT_MUST nt_status nt_safetensors_read_header(const char *path, struct nt_json **doc);
void nt_safetensors_release(struct nt_safetensors *st); /* accepts a zeroed struct */

/* The weight files of a Hugging Face directory. */
struct nt_safetensors_index {
    char **files; /* names without folder, sorted, unique; [n_files] */
    int32_t n_files;
    struct nt_json *json; /* NULL: one model.safetensors without index */
};

/* The error for a path that is a LoRA adapter where a model was asked for, with the remedy. */
NT_MUST nt_status nt_refuse_adapter(const char *path);
/* Reads DIR/model.safetensors.index.json, else finds DIR/model.safetensors. NT_E_NOINPUT when there is neither. */
NT_MUST nt_status nt_safetensors_index_read(const char *dir, struct nt_safetensors_index *out);
/* The file that the index assigns to a tensor; NULL: none. Without index always the only file. */
const char *nt_safetensors_index_file_of(const struct nt_safetensors_index *ix, const char *tensor);
/* A tensor the index lists and `found` does not know; NULL: none. */
const char *nt_safetensors_index_missing(const struct nt_safetensors_index *ix,
                                         bool (*found)(const void *, const char *), const void *arg);
void nt_safetensors_index_release(struct nt_safetensors_index *ix); /* accepts a zeroed struct */

#endif
