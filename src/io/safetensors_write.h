/* safetensors files: the header, then the data through tensor_writer.h.
 *
 * Layout as in safetensors.h: u64 length | JSON header, padded with blanks so that the data begins at a multiple of 8 |
 * data without holes. Written as the reference implementation does (safetensors README): "__metadata__" first, always
 * with "format": "pt", because transformers asks for it; offsets ascending. Entries must come by falling element size,
 * so that every tensor is aligned to its own elements; within one size in the order given.
 * Ownership and threading: tensor_writer.h. Names must differ. Errors: NT_E_IO. */
#ifndef NT_SAFETENSORS_WRITE_H
#define NT_SAFETENSORS_WRITE_H

#include "tensor_writer.h"

struct nt_text_pair {
    const char *key, *value;
};

NT_MUST nt_status nt_safetensors_create(const char *path, const struct nt_tensor_entry *entries, int64_t n,
                                        const struct nt_text_pair *metadata, int64_t n_metadata,
                                        struct nt_tensor_writer **out);

#endif
