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
#include <stdint.h>

enum { NT_SAFETENSORS_MAX_HEADER = 100000000, NT_SAFETENSORS_MAX_DIMS = 8, NT_SAFETENSORS_MAX_SHARDS = 4096 };

struct nt_safetensors_tensor {
    char *name;
    enum nt_wdtype dtype;
    int32_t n_dims;
    int64_t shape[NT_SAFETENSORS_MAX_DIMS];
    int64_t offset; /* from the start of the file */
    int64_t n_bytes;
};

struct nt_safetensors {
    struct nt_safetensors_tensor *tensors; /* [n_tensors], by offset */
    int64_t n_tensors;
    char *header; /* the JSON bytes */
    size_t header_len;
};

/* fd: open file at path (named in errors) of size bytes. */
NT_MUST nt_status nt_safetensors_read(int fd, const char *path, int64_t size, struct nt_safetensors *out);
void nt_safetensors_release(struct nt_safetensors *st); /* accepts a zeroed struct */

/* The shards of a directory: file names without folder, sorted, unique, and which one each tensor is said to be in. */
struct nt_safetensors_index {
    char **files; /* [n_files] */
    int32_t n_files;
    struct nt_json *json; /* NULL: a single model.safetensors without index */
};
/* Reads DIR/model.safetensors.index.json, else finds DIR/model.safetensors. */
NT_MUST nt_status nt_safetensors_index_read(const char *dir, struct nt_safetensors_index *out);
/* File that the index assigns to a tensor, NULL: none. */
const char *nt_safetensors_index_file_of(const struct nt_safetensors_index *ix, const char *tensor);
void nt_safetensors_index_release(struct nt_safetensors_index *ix);

#endif
