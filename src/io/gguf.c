#include "gguf.h"
#include "gguf_impl.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void nt_gguf_close(struct nt_gguf *g) {
    if (!g) return;
    if (g->kv) {
        for (int64_t i = 0; i < g->n_kv; i++) free(g->kv[i].item_at);
    }
    if (g->fd >= 0) close(g->fd);
    free(g->kv);
    free(g->by_key);
    free(g->tensors);
    free(g->places);
    free(g->names);
    free(g->head);
    free(g->path);
    free(g);
}

const char *nt_gguf_type_name(enum nt_gguf_type t) {
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64", "none"};
    return (unsigned)t <= NT_GGUF_NONE ? names[t] : "unknown";
}

const char *nt_gguf_path(const struct nt_gguf *g) {
    return g->path;
}
int nt_gguf_fd(const struct nt_gguf *g) {
    return g->fd;
}
int64_t nt_gguf_file_size(const struct nt_gguf *g) {
    return g->size;
}
int64_t nt_gguf_n_tensors(const struct nt_gguf *g) {
    return g->n_tensors;
}
int64_t nt_gguf_n_kv(const struct nt_gguf *g) {
    return g->n_kv;
}

const uint8_t *nt_gguf_header(const struct nt_gguf *g, size_t *len) {
    *len = g->head_len;
    return g->head;
}

const struct nt_gguf_tensor *nt_gguf_tensor_at(const struct nt_gguf *g, int64_t i) {
    return i >= 0 && i < g->n_tensors ? &g->tensors[i] : NULL;
}

const char *nt_gguf_key_at(const struct nt_gguf *g, int64_t i) {
    return i >= 0 && i < g->n_kv ? g->kv[i].key : NULL;
}

static const struct nt_gguf_kv *find(const struct nt_gguf *g, const char *key) {
    int64_t lo = 0, hi = g->n_kv;
    while (lo < hi) {
        const int64_t mid = lo + (hi - lo) / 2;
        const struct nt_gguf_kv *kv = &g->kv[g->by_key[mid]];
        const int c = strcmp(kv->key, key);
        if (c == 0) return kv;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static int64_t int_at(const uint8_t *p, enum nt_gguf_type type, bool bools, int64_t def) {
    switch (type) {
    case NT_GGUF_U8:
        return p[0];
    case NT_GGUF_I8:
        return (int8_t)p[0];
    case NT_GGUF_U16:
        return (int64_t)nt_gguf_uint(p, 2);
    case NT_GGUF_I16:
        return (int16_t)nt_gguf_uint(p, 2);
    case NT_GGUF_U32:
        return (int64_t)nt_gguf_uint(p, 4);
    case NT_GGUF_I32:
        return (int32_t)nt_gguf_uint(p, 4);
    case NT_GGUF_I64:
        return (int64_t)nt_gguf_uint(p, 8);
    case NT_GGUF_U64:
        return nt_gguf_uint(p, 8) <= INT64_MAX ? (int64_t)nt_gguf_uint(p, 8) : def;
    case NT_GGUF_BOOL:
        return bools ? p[0] : def;
    case NT_GGUF_F32:
    case NT_GGUF_STRING:
    case NT_GGUF_ARRAY:
    case NT_GGUF_F64:
    case NT_GGUF_NONE:
        break;
    }
    return def;
}

static double num_at(const uint8_t *p, enum nt_gguf_type type, double def) {
    if (type == NT_GGUF_F32) {
        const uint32_t u = (uint32_t)nt_gguf_uint(p, 4);
        float x;
        memcpy(&x, &u, sizeof x);
        return (double)x;
    }
    if (type == NT_GGUF_F64) {
        const uint64_t u = nt_gguf_uint(p, 8);
        double x;
        memcpy(&x, &u, sizeof x);
        return x;
    }
    if (type == NT_GGUF_U64) return (double)nt_gguf_uint(p, 8);
    if (type == NT_GGUF_BOOL || type == NT_GGUF_STRING || type == NT_GGUF_ARRAY || type == NT_GGUF_NONE) return def;
    return (double)int_at(p, type, false, 0);
}

enum nt_gguf_type nt_gguf_type(const struct nt_gguf *g, const char *key) {
    const struct nt_gguf_kv *kv = find(g, key);
    return kv ? kv->type : NT_GGUF_NONE;
}

enum nt_gguf_type nt_gguf_array_type(const struct nt_gguf *g, const char *key) {
    const struct nt_gguf_kv *kv = find(g, key);
    return kv && kv->type == NT_GGUF_ARRAY ? kv->item_type : NT_GGUF_NONE;
}

bool nt_gguf_is_adapter(const struct nt_gguf *g) {
    size_t len = 0;
    const char *type = nt_gguf_str(g, "general.type", &len);
    return type && len == strlen("adapter") && memcmp(type, "adapter", len) == 0;
}

const char *nt_gguf_str(const struct nt_gguf *g, const char *key, size_t *len) {
    const struct nt_gguf_kv *kv = find(g, key);
    const bool ok = kv && kv->type == NT_GGUF_STRING;
    if (len) *len = ok ? kv->len : 0;
    return ok ? (const char *)g->head + kv->at : NULL;
}

int64_t nt_gguf_i64(const struct nt_gguf *g, const char *key, int64_t def) {
    const struct nt_gguf_kv *kv = find(g, key);
    return kv ? int_at(g->head + kv->at, kv->type, false, def) : def;
}

double nt_gguf_f64(const struct nt_gguf *g, const char *key, double def) {
    const struct nt_gguf_kv *kv = find(g, key);
    return kv ? num_at(g->head + kv->at, kv->type, def) : def;
}

bool nt_gguf_bool(const struct nt_gguf *g, const char *key, bool def) {
    const struct nt_gguf_kv *kv = find(g, key);
    return kv && kv->type == NT_GGUF_BOOL ? g->head[kv->at] != 0 : def;
}

int64_t nt_gguf_array_len(const struct nt_gguf *g, const char *key) {
    const struct nt_gguf_kv *kv = find(g, key);
    return kv && kv->type == NT_GGUF_ARRAY ? kv->n_items : -1;
}

static const struct nt_gguf_kv *find_item(const struct nt_gguf *g, const char *key, int64_t i) {
    const struct nt_gguf_kv *kv = find(g, key);
    return kv && kv->type == NT_GGUF_ARRAY && i >= 0 && i < kv->n_items ? kv : NULL;
}

const char *nt_gguf_array_str(const struct nt_gguf *g, const char *key, int64_t i, size_t *len) {
    const struct nt_gguf_kv *kv = find_item(g, key, i);
    if (len) *len = 0;
    if (!kv || kv->item_type != NT_GGUF_STRING) return NULL;
    const uint8_t *p = g->head + kv->item_at[i];
    if (len) *len = (size_t)nt_gguf_uint(p, 8);
    return (const char *)p + 8;
}

int64_t nt_gguf_array_i64(const struct nt_gguf *g, const char *key, int64_t i, int64_t def) {
    const struct nt_gguf_kv *kv = find_item(g, key, i);
    if (!kv || kv->item_type == NT_GGUF_STRING) return def;
    return int_at(g->head + kv->at + (size_t)i * nt_gguf_item_bytes[kv->item_type], kv->item_type, true, def);
}

double nt_gguf_array_f64(const struct nt_gguf *g, const char *key, int64_t i, double def) {
    const struct nt_gguf_kv *kv = find_item(g, key, i);
    if (!kv || kv->item_type == NT_GGUF_STRING) return def;
    return num_at(g->head + kv->at + (size_t)i * nt_gguf_item_bytes[kv->item_type], kv->item_type, def);
}
