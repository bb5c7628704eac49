/* Writing tensors: the data part that both containers share. A writer comes from nt_safetensors_create or
 * nt_gguf_create, which put the header first; then the tensors' data is appended in the order of the entries, in pieces
 * of any size; the file appears under its name, whole and on disk, when nt_tensor_writer_finish returns.
 *
 * So a model is written with memory for one piece of one tensor. Padding between tensors is the writer's business.
 * Lifecycle: create, append ..., then finish or abandon (which removes the temporary file); both free the writer.
 * The names of the entries are borrowed and must live until then. Threading: one thread per writer.
 * Errors: NT_E_IO naming the path; NT_E_DATA from create for a name that the container does not allow. More or less
 * data than the entries announce is nt_bug. */
#ifndef NT_TENSOR_WRITER_H
#define NT_TENSOR_WRITER_H

#include "dequant.h"
#include "outfile.h"
#include "status.h"
#include <stdint.h>

enum { NT_TENSOR_ENTRY_DIMS = 4 };

struct nt_tensor_entry {
    const char *name;
    enum nt_wdtype dtype;                /* F32, F16 or BF16 */
    int32_t n_dims;                      /* 1 to NT_TENSOR_ENTRY_DIMS */
    int64_t shape[NT_TENSOR_ENTRY_DIMS]; /* PyTorch order: the last one is contiguous */
};

struct nt_tensor_writer {
    struct nt_outfile file;
    struct nt_tensor_entry *entries; // [n]
    int64_t n, at;                   /* at: the tensor being written */
    int64_t left;                    /* bytes that tensor still needs */
    int64_t align;                   /* every tensor's data is padded to a multiple; 1: none */
};

int64_t nt_tensor_entry_bytes(const struct nt_tensor_entry *e);

/* Raw bytes, little-endian, in the dtype of the tensor; may end inside one tensor and go on in the next. */
NT_MUST nt_status nt_tensor_writer_append(struct nt_tensor_writer *w, const void *bytes, size_t n);
/* n elements of the tensor being written, rounded to its dtype (nearest even); must not cross into the next tensor. */
NT_MUST nt_status nt_tensor_writer_append_f32(struct nt_tensor_writer *w, const float *values, int64_t n);
NT_MUST nt_status nt_tensor_writer_finish(struct nt_tensor_writer *w);
void nt_tensor_writer_abandon(struct nt_tensor_writer *w); /* accepts NULL */

/* For the two containers: copies the entries and opens the file; the caller then fills file.buf with the header. */
NT_MUST nt_status nt_tensor_writer_open(const char *path, const struct nt_tensor_entry *entries, int64_t n,
                                        int64_t align, struct nt_tensor_writer **out);

#endif
