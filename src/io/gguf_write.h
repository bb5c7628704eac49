/* GGUF v3 files: metadata and tensor table, then the data through tensor_writer.h.
 *
 * Layout as in gguf.h. Metadata is collected in a struct nt_gguf_meta, in the order of the calls (general.architecture
 * should be the first); keys must be new. Every tensor's data, the last one's too, is padded to the alignment, which
 * is written as general.alignment only when it is not the default 32.
 * Lifecycle: zero-initialise struct nt_gguf_meta, add keys, nt_gguf_create, nt_gguf_meta_release. The writer is owned
 * as tensor_writer.h says. Threading: one thread. Errors: NT_E_IO; NT_E_DATA for a tensor name that is empty
 * or longer than NT_GGUF_MAX_NAME. */
#ifndef NT_GGUF_WRITE_H
#define NT_GGUF_WRITE_H

#include "gguf.h"
#include "tensor_writer.h"

struct nt_gguf_meta {
    struct nt_strbuf bytes;
    uint64_t n;
};

void nt_gguf_meta_release(struct nt_gguf_meta *m);
void nt_gguf_put_str(struct nt_gguf_meta *m, const char *key, const char *value);
void nt_gguf_put_u32(struct nt_gguf_meta *m, const char *key, uint32_t value);
void nt_gguf_put_u64(struct nt_gguf_meta *m, const char *key, uint64_t value);
void nt_gguf_put_f32(struct nt_gguf_meta *m, const char *key, float value);
void nt_gguf_put_bool(struct nt_gguf_meta *m, const char *key, bool value);
void nt_gguf_put_strs(struct nt_gguf_meta *m, const char *key, const char *const *values, int64_t n);
void nt_gguf_put_i32s(struct nt_gguf_meta *m, const char *key, const int32_t *values, int64_t n);
void nt_gguf_put_f32s(struct nt_gguf_meta *m, const char *key, const float *values, int64_t n);

/* align: a power of two from 8 on; 0: 32. */
NT_MUST nt_status nt_gguf_create(const char *path, const struct nt_gguf_meta *meta,
                                 const struct nt_tensor_entry *entries, int64_t n, int64_t align,
                                 struct nt_tensor_writer **out);

#endif
