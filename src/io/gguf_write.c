#include "gguf_write.h"

#include <string.h>

enum { DEFAULT_ALIGN = 32, VERSION = 3 };

static void put_uint(struct nt_strbuf *s, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) nt_strbuf_addc(s, (char)(uint8_t)(v >> 8 * i));
}

static void put_string(struct nt_strbuf *s, const char *text) {
    const size_t n = strlen(text);
    put_uint(s, n, 8);
    nt_strbuf_add(s, text, n);
}

static void put_float(struct nt_strbuf *s, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_uint(s, bits, 4);
}

/* --- metadata ----------------------------------------------------------------------------------------------------- */

void nt_gguf_meta_release(struct nt_gguf_meta *m) {
    nt_strbuf_release(&m->bytes);
    m->n = 0;
}

static void put_key(struct nt_gguf_meta *m, const char *key, enum nt_gguf_type type) {
    put_string(&m->bytes, key);
    put_uint(&m->bytes, (uint64_t)type, 4);
    m->n++;
}

void nt_gguf_put_str(struct nt_gguf_meta *m, const char *key, const char *value) {
    put_key(m, key, NT_GGUF_STRING);
    put_string(&m->bytes, value);
}

void nt_gguf_put_u32(struct nt_gguf_meta *m, const char *key, uint32_t value) {
    put_key(m, key, NT_GGUF_U32);
    put_uint(&m->bytes, value, 4);
}

void nt_gguf_put_u64(struct nt_gguf_meta *m, const char *key, uint64_t value) {
    put_key(m, key, NT_GGUF_U64);
    put_uint(&m->bytes, value, 8);
}

void nt_gguf_put_f32(struct nt_gguf_meta *m, const char *key, float value) {
    put_key(m, key, NT_GGUF_F32);
    put_float(&m->bytes, value);
}

void nt_gguf_put_bool(struct nt_gguf_meta *m, const char *key, bool value) {
    put_key(m, key, NT_GGUF_BOOL);
    put_uint(&m->bytes, value, 1);
}

static void put_array(struct nt_gguf_meta *m, const char *key, enum nt_gguf_type item, int64_t n) {
    put_key(m, key, NT_GGUF_ARRAY);
    put_uint(&m->bytes, (uint64_t)item, 4);
    put_uint(&m->bytes, (uint64_t)n, 8);
}

void nt_gguf_put_strs(struct nt_gguf_meta *m, const char *key, const char *const *values, int64_t n) {
    put_array(m, key, NT_GGUF_STRING, n);
    for (int64_t i = 0; i < n; i++) put_string(&m->bytes, values[i]);
}

void nt_gguf_put_i32s(struct nt_gguf_meta *m, const char *key, const int32_t *values, int64_t n) {
    put_array(m, key, NT_GGUF_I32, n);
    for (int64_t i = 0; i < n; i++) put_uint(&m->bytes, (uint32_t)values[i], 4);
}

void nt_gguf_put_f32s(struct nt_gguf_meta *m, const char *key, const float *values, int64_t n) {
    put_array(m, key, NT_GGUF_F32, n);
    for (int64_t i = 0; i < n; i++) put_float(&m->bytes, values[i]);
}

/* --- the file ----------------------------------------------------------------------------------------------------- */

static int64_t padded(int64_t n, int64_t align) {
    return (n + align - 1) / align * align;
}

static nt_status check_name(const char *path, const struct nt_tensor_entry *e) {
    const size_t n = strlen(e->name);
    if (n > 0 && n <= NT_GGUF_MAX_NAME) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: tensor name %.80s of %zu bytes; a GGUF file allows 1 to %d", path, e->name, n,
                   NT_GGUF_MAX_NAME);
}

static void put_tensor(struct nt_strbuf *s, const struct nt_tensor_entry *e, int64_t offset) {
    put_string(s, e->name);
    put_uint(s, (uint64_t)e->n_dims, 4);
    for (int32_t i = e->n_dims - 1; i >= 0; i--) put_uint(s, (uint64_t)e->shape[i], 8);
    put_uint(s, (uint64_t)nt_wdtype_info(e->dtype)->ggml_id, 4);
    put_uint(s, (uint64_t)offset, 8);
}

nt_status nt_gguf_create(const char *path, const struct nt_gguf_meta *meta, const struct nt_tensor_entry *entries,
                         int64_t n, int64_t align, struct nt_tensor_writer **out) {
    *out = NULL;
    if (align == 0) align = DEFAULT_ALIGN;
    NT_CHECK(align >= 8 && (align & (align - 1)) == 0);
    for (int64_t i = 0; i < n; i++) NT_TRY(check_name(path, &entries[i]));
    struct nt_gguf_meta extra = {0};
    if (align != DEFAULT_ALIGN) nt_gguf_put_u32(&extra, "general.alignment", (uint32_t)align);
    struct nt_tensor_writer *w = NULL;
    const nt_status st = nt_tensor_writer_open(path, entries, n, align, &w);
    if (st == NT_OK) {
        struct nt_strbuf *s = &w->file.buf;
        nt_strbuf_adds(s, "GGUF");
        put_uint(s, VERSION, 4);
        put_uint(s, (uint64_t)n, 8);
        put_uint(s, meta->n + extra.n, 8);
        nt_strbuf_add(s, meta->bytes.data, meta->bytes.len);
        nt_strbuf_add(s, extra.bytes.data, extra.bytes.len);
        int64_t offset = 0;
        for (int64_t i = 0; i < n; i++) {
            put_tensor(s, &entries[i], offset);
            offset += padded(nt_tensor_entry_bytes(&entries[i]), align);
        }
        while ((int64_t)s->len % align != 0) nt_strbuf_addc(s, '\0');
    }
    nt_gguf_meta_release(&extra);
    *out = w;
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
