/* Weights of a model on disk: one sorted table of tensors over both containers, and reading of their rows.
 *
 * nt_tensor_source_open takes a GGUF file (recognised by its magic) or a Hugging Face directory (the shards of
 * model.safetensors.index.json, else model.safetensors). Names, shapes and row order are the file's own (GGUF names
 * differ from HF names, and its q/k rows may be permuted: dequant.h); shapes are in PyTorch order for both.
 * Every offset and size has been checked against the file when open returns. Data is read with pread, never mapped:
 * a file that shrinks meanwhile is an error, not a signal. Pickled checkpoints are refused with the remedy.
 * Reading order: `offset` within `file` gives the order of the bytes on disk; loaders go through it ascending.
 * Ownership: names and the gguf object live until nt_tensor_source_close. Reading is thread safe (different buffers).
 * Errors: NT_E_NOINPUT (no such model), NT_E_DATA (damaged; NaN or infinite weights), NT_E_UNSUPPORTED, NT_E_IO. */
#ifndef NT_TENSOR_SOURCE_H
#define NT_TENSOR_SOURCE_H

#include "dequant.h"
#include "gguf.h"
#include "hash.h"
#include "status.h"
#include <stdbool.h>
#include <stdint.h>

enum { NT_TENSOR_MAX_DIMS = 8 };

struct nt_tensor_info {
    const char *name;
    enum nt_wdtype dtype;
    int32_t n_dims;                    /* 0: a scalar */
    int64_t shape[NT_TENSOR_MAX_DIMS]; /* PyTorch order; unused entries are 1 */
    int32_t file;                      /* index into files */
    int64_t offset;                    /* from the start of that file */
    int64_t n_bytes;
};

struct nt_tensor_file {
    char *path;
    int fd;
    int64_t size;
};

struct nt_tensor_source {
    char *path;                     /* as given to open */
    struct nt_gguf *gguf;           /* NULL for a Hugging Face directory */
    struct nt_tensor_info *tensors; /* [n_tensors], sorted by name (strcmp) */
    int64_t n_tensors;
    struct nt_tensor_file *files; /* [n_files] */
    int32_t n_files;
    char *names; /* HF: the bytes of all names */
    uint8_t
        digest[NT_SHA256_BYTES]; /* of the headers and sizes of all files: names, types, shapes, metadata; not data */
};

enum nt_read_as { NT_READ_F32, NT_READ_BF16 };

NT_MUST nt_status nt_tensor_source_open(const char *path, struct nt_tensor_source **out);
/* The one safetensors file dir/name, e.g. of an adapter. */
NT_MUST nt_status nt_tensor_source_open_file(const char *dir, const char *name, struct nt_tensor_source **out);
void nt_tensor_source_close(struct nt_tensor_source *s); /* accepts NULL */

const struct nt_tensor_info *nt_tensor_source_find(const struct nt_tensor_source *s, const char *name); /* or NULL */
/* "BF16 [576, 1536]" into buf, for error sentences; returns buf. */
const char *nt_tensor_describe(const struct nt_tensor_info *t, char *buf, size_t cap);
int64_t nt_tensor_n_rows(const struct nt_tensor_info *t); /* 1-D: the elements (a row is one element); 2-D: shape[0] */
int64_t nt_tensor_n_cols(const struct nt_tensor_info *t); /* 1-D: 1; 2-D: shape[1] */

/* Rows [row0, row1) of a 1-D or 2-D tensor, dequantized, into dst: (row1 - row0) * n_cols float (NT_READ_F32) or
 * uint16_t (NT_READ_BF16; BF16 files pass through untouched, others are rounded to nearest even). So a bias takes the
 * same row range as its weight matrix. NaN or infinite weights: NT_E_DATA naming tensor, count and first index. */
NT_MUST nt_status nt_tensor_source_read(const struct nt_tensor_source *s, const struct nt_tensor_info *t, int64_t row0,
                                        int64_t row1, enum nt_read_as as, void *dst);

#endif
