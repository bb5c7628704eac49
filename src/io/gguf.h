/* GGUF v3 reader: metadata and tensor table of one file.
 *
 * Layout (ggml docs/gguf.md): "GGUF" | u32 version = 3 | u64 n_tensors | u64 n_kv | kv[] | tensor_info[] | padding to
 * general.alignment | data. Strings are u64 length + bytes; shapes are stored innermost first and turned to PyTorch
 * order here. Only little-endian files.
 * Foreign bytes: every count is compared with the bytes left in the file before memory is asked for, so memory is at
 * most a small multiple of the header bytes actually present; sizes and offsets use checked arithmetic. Refused:
 * duplicate keys and tensor names, nested arrays, more than 4 dimensions, zero dimensions, rows that are no whole
 * number of blocks, tensor offsets that are not the running sum of the padded sizes, data beyond the end of the file.
 * Errors: NT_E_DATA "FILE: offset N: what was expected"; NT_E_UNSUPPORTED for other versions, splits and big-endian.
 * Ownership: everything returned points into the object and lives until nt_gguf_close. Reading is thread safe. */
#ifndef NT_GGUF_H
#define NT_GGUF_H

#include "dequant.h"
#include "status.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    NT_GGUF_MAX_HEADER = 1 << 30, /* bytes before the data section */
    NT_GGUF_MAX_KV = 65536,
    NT_GGUF_MAX_TENSORS = 65536,
    NT_GGUF_MAX_KEY = 65535,
    NT_GGUF_MAX_NAME = 63, /* bytes of a tensor name */
    NT_GGUF_MAX_STRING = 16 << 20,
    NT_GGUF_MAX_ARRAY = 1 << 26,
    NT_GGUF_MAX_ALIGN = 1 << 20,
    NT_GGUF_MAX_DIMS = 4,
};

/* Value types with their ids in the file. */
enum nt_gguf_type {
    NT_GGUF_U8,
    NT_GGUF_I8,
    NT_GGUF_U16,
    NT_GGUF_I16,
    NT_GGUF_U32,
    NT_GGUF_I32,
    NT_GGUF_F32,
    NT_GGUF_BOOL,
    NT_GGUF_STRING,
    NT_GGUF_ARRAY,
    NT_GGUF_U64,
    NT_GGUF_I64,
    NT_GGUF_F64,
    NT_GGUF_NONE /* absent key */
};

struct nt_gguf_tensor {
    const char *name; /* NUL terminated; no NUL bytes inside */
    enum nt_wdtype dtype;
    int32_t n_dims;
    int64_t shape[NT_GGUF_MAX_DIMS]; /* PyTorch order: the last one is contiguous */
    int64_t offset;                  /* from the start of the file */
    int64_t n_bytes;
};

struct nt_gguf; /* opaque */

NT_MUST nt_status nt_gguf_open(const char *path, struct nt_gguf **out);
void nt_gguf_close(struct nt_gguf *g);             /* accepts NULL */
const char *nt_gguf_path(const struct nt_gguf *g); /* as given to open */
int nt_gguf_fd(const struct nt_gguf *g);           /* open for reading until close; use pread */
int64_t nt_gguf_file_size(const struct nt_gguf *g);
/* The bytes before the data section: magic, metadata, tensor infos (what a digest of the file's identity covers). */
const uint8_t *nt_gguf_header(const struct nt_gguf *g, size_t *len);

int64_t nt_gguf_n_tensors(const struct nt_gguf *g);
const struct nt_gguf_tensor *nt_gguf_tensor_at(const struct nt_gguf *g, int64_t i); /* in file order */

/* Metadata. Accessors never fail: an absent key or a value of another kind gives the default, NULL or 0; nt_gguf_type
 * tells absent from wrong. Integers of every width are one kind (bool is not), f32 and f64 too; integers read as f64.
 */
enum nt_gguf_type nt_gguf_type(const struct nt_gguf *g, const char *key);
enum nt_gguf_type nt_gguf_array_type(const struct nt_gguf *g,
                                     const char *key); /* of the items; NT_GGUF_NONE: no array */
const char *nt_gguf_type_name(enum nt_gguf_type t);
int64_t nt_gguf_n_kv(const struct nt_gguf *g);
const char *nt_gguf_key_at(const struct nt_gguf *g, int64_t i); /* in file order, NUL terminated */

bool nt_gguf_is_adapter(const struct nt_gguf *g); /* general.type says so: the file is no whole model */
const char *nt_gguf_str(const struct nt_gguf *g, const char *key, size_t *len); /* NOT NUL terminated */
int64_t nt_gguf_i64(const struct nt_gguf *g, const char *key, int64_t def);     /* u64 above INT64_MAX: def */
double nt_gguf_f64(const struct nt_gguf *g, const char *key, double def);
bool nt_gguf_bool(const struct nt_gguf *g, const char *key, bool def);

int64_t nt_gguf_array_len(const struct nt_gguf *g, const char *key); /* -1: absent or not an array */
/* Item i of an array; outside [0, len) or of another kind: NULL or def. O(1) after a look-up of the key. */
const char *nt_gguf_array_str(const struct nt_gguf *g, const char *key, int64_t i, size_t *len);
int64_t nt_gguf_array_i64(const struct nt_gguf *g, const char *key, int64_t i, int64_t def); /* integers and bools */
double nt_gguf_array_f64(const struct nt_gguf *g, const char *key, int64_t i, double def);   /* floats and integers */

#endif
