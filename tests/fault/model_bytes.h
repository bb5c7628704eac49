/* Bytes of small GGUF and safetensors files for tests: good ones, and ones with exactly one thing wrong.
 *
 * A plan is zero-initialised; every field that is 0 means "as it should be". The good GGUF file has two metadata
 * entries and two tensors ("a" F32 [2, 32] and "b" Q8_0 [1, 32]); a plan's own entry and tensor come after them.
 * Layouts as in src/io/gguf.h and src/io/safetensors.h, written here a second time on purpose.
 * Ownership: bytes are appended to the caller's strbuf. Test code only: failures trap. */
#ifndef NT_TEST_MODEL_BYTES_H
#define NT_TEST_MODEL_BYTES_H

#include "strbuf.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void put_uint(struct nt_strbuf *b, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) nt_strbuf_addc(b, (char)(uint8_t)(v >> 8 * i));
}

static inline void put_string(struct nt_strbuf *b, const char *s, size_t len, uint64_t claimed) {
    put_uint(b, claimed ? claimed : len, 8);
    nt_strbuf_add(b, s, len);
}

static inline void put_zeros(struct nt_strbuf *b, size_t n) {
    for (size_t i = 0; i < n; i++) nt_strbuf_addc(b, 0);
}

struct kv_plan {
    const char *key;
    size_t key_len;
    uint64_t key_claims; /* other length than key_len */
    uint32_t type;
    const char *value;
    size_t value_len;
};
/* A literal key and the bytes after the type; both may hold NUL. */
#define KV(k, t, v) .key = (k), .key_len = sizeof(k) - 1, .type = (t), .value = (v), .value_len = sizeof(v) - 1

struct tensor_plan {
    const char *name; /* NULL: no tensor */
    size_t name_len;
    uint64_t name_claims;
    uint32_t n_dims;
    uint64_t ne[6]; /* file order: contiguous first */
    uint32_t type;
    int64_t shift;  /* added to the right offset */
    size_t n_bytes; /* of data to write */
};
#define TENSOR(n, dims, t, bytes, ...)                                                                                 \
    .name = (n), .name_len = sizeof(n) - 1, .n_dims = (dims), .ne = {__VA_ARGS__}, .type = (t), .n_bytes = (bytes)

struct gguf_plan {
    const char *magic;
    uint32_t version;
    uint64_t n_tensors, n_kv; /* other counts than the true ones */
    struct kv_plan kv;
    struct tensor_plan tensor;
    uint32_t align;
    float weight; /* value of one weight of tensor "a" */
    size_t cut;   /* bytes missing at the end */
    size_t keep;  /* bytes kept from the beginning */
};

static inline void put_kv(struct nt_strbuf *b, const struct kv_plan *kv) {
    put_string(b, kv->key, kv->key_len, kv->key_claims);
    put_uint(b, kv->type, 4);
    nt_strbuf_add(b, kv->value, kv->value_len);
}

static inline size_t padded(size_t n, size_t align) {
    return (n + align - 1) / align * align;
}

static inline void put_tensor(struct nt_strbuf *b, const struct tensor_plan *t, size_t *offset, size_t align) {
    put_string(b, t->name, t->name_len, t->name_claims);
    put_uint(b, t->n_dims, 4);
    for (uint32_t i = 0; i < t->n_dims && i < 6; i++) put_uint(b, t->ne[i], 8);
    put_uint(b, t->type, 4);
    put_uint(b, (uint64_t)((int64_t)*offset + t->shift), 8);
    *offset += padded(t->n_bytes, align);
}

static inline void put_gguf(struct nt_strbuf *b, const struct gguf_plan *p) {
    const struct kv_plan kv[2] = {
        {KV("general.architecture", 8, "\x05\0\0\0\0\0\0\0llama")},
        {KV("tokenizer.ggml.tokens", 9, "\x08\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0x\0\0\0\0\0\0\0\0")}};
    const struct tensor_plan tensors[2] = {{TENSOR("a", 2, 0, 256, 32, 2)}, {TENSOR("b", 2, 8, 34, 32, 1)}};
    const size_t align = p->align ? p->align : 32;
    const size_t begin = b->len;
    nt_strbuf_add(b, p->magic ? p->magic : "GGUF", 4);
    put_uint(b, p->version ? p->version : 3, 4);
    put_uint(b, p->n_tensors ? p->n_tensors : (p->tensor.name ? 3u : 2u), 8);
    put_uint(b, p->n_kv ? p->n_kv : (p->kv.key ? 3u : 2u), 8);
    for (int i = 0; i < 2; i++) put_kv(b, &kv[i]);
    if (p->kv.key) put_kv(b, &p->kv);
    size_t data = 0;
    for (int i = 0; i < 2; i++) put_tensor(b, &tensors[i], &data, align);
    if (p->tensor.name) put_tensor(b, &p->tensor, &data, align);
    put_zeros(b, padded(b->len - begin, align) - (b->len - begin));
    const size_t data_at = b->len;
    put_zeros(b, data);
    memcpy(b->data + data_at + 4 * 37, &p->weight, sizeof p->weight); // a[1, 5]
    if (p->cut) b->len -= p->cut;
    if (p->keep) b->len = begin + p->keep;
}

struct safetensors_plan {
    const char *header;
    size_t header_len; /* 0: strlen */
    uint64_t claims;   /* other header length than the true one */
    size_t n_data;
    const char *data; /* NULL: zeros */
    size_t keep;      /* bytes kept from the beginning */
};

static inline void put_safetensors(struct nt_strbuf *b, const struct safetensors_plan *p) {
    const size_t begin = b->len, len = p->header_len ? p->header_len : strlen(p->header);
    put_uint(b, p->claims ? p->claims : len, 8);
    nt_strbuf_add(b, p->header, len);
    if (p->data)
        nt_strbuf_add(b, p->data, p->n_data);
    else
        put_zeros(b, p->n_data);
    if (p->keep) b->len = begin + p->keep;
}

static inline void write_file(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) {
        perror(path);
        __builtin_trap();
    }
}

#endif
