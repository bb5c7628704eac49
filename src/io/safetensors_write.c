#include "safetensors_write.h"

#include <string.h>

static int64_t element_bytes(const struct nt_tensor_entry *e) {
    return nt_wdtype_info(e->dtype)->block_bytes;
}

static void add_entry(struct nt_strbuf *s, const struct nt_tensor_entry *e, int64_t begin) {
    nt_strbuf_addc(s, ',');
    nt_strbuf_add_json(s, e->name, strlen(e->name));
    nt_strbuf_addf(s, ":{\"dtype\":\"%s\",\"shape\":[", nt_wdtype_info(e->dtype)->safetensors);
    for (int32_t i = 0; i < e->n_dims; i++) nt_strbuf_addf(s, "%s%lld", i > 0 ? "," : "", (long long)e->shape[i]);
    nt_strbuf_addf(s, "],\"data_offsets\":[%lld,%lld]}", (long long)begin,
                   (long long)(begin + nt_tensor_entry_bytes(e)));
}

static void add_metadata(struct nt_strbuf *s, const struct nt_text_pair *pairs, int64_t n) {
    nt_strbuf_adds(s, "{\"__metadata__\":{\"format\":\"pt\"");
    for (int64_t i = 0; i < n; i++) {
        nt_strbuf_addc(s, ',');
        nt_strbuf_add_json(s, pairs[i].key, strlen(pairs[i].key));
        nt_strbuf_addc(s, ':');
        nt_strbuf_add_json(s, pairs[i].value, strlen(pairs[i].value));
    }
    nt_strbuf_addc(s, '}');
}

nt_status nt_safetensors_create(const char *path, const struct nt_tensor_entry *entries, int64_t n,
                                const struct nt_text_pair *metadata, int64_t n_metadata,
                                struct nt_tensor_writer **out) {
    struct nt_tensor_writer *w = NULL;
    struct nt_strbuf header = NT_STRBUF_INIT;
    add_metadata(&header, metadata, n_metadata);
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        NT_CHECK(i == 0 || element_bytes(&entries[i]) <= element_bytes(&entries[i - 1]));
        add_entry(&header, &entries[i], at);
        NT_CHECK(!__builtin_add_overflow(at, nt_tensor_entry_bytes(&entries[i]), &at));
    }
    nt_strbuf_addc(&header, '}');
    while (header.len % 8 != 0) nt_strbuf_addc(&header, ' ');
    nt_status st = nt_tensor_writer_open(path, entries, n, 1, &w);
    if (st == NT_OK) {
        for (int i = 0; i < 8; i++) nt_strbuf_addc(&w->file.buf, (char)(uint8_t)((uint64_t)header.len >> 8 * i));
        nt_strbuf_add(&w->file.buf, header.data, header.len);
    }
    nt_strbuf_release(&header);
    *out = w;
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
