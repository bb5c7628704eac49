/* Inside of the GGUF reader, shared by gguf_parse.c (open, parse, check) and gguf.c (access, close); nobody else
 * includes it.
 *
 * All positions are offsets into the header bytes, because those move while they grow during parsing.
 * Ownership: everything belongs to struct nt_gguf and is freed by nt_gguf_close. Not changed after nt_gguf_open, so
 * reading needs no lock. The layouts are described in gguf.h. */
#ifndef NT_GGUF_IMPL_H
#define NT_GGUF_IMPL_H

#include "gguf.h"

struct nt_gguf_kv {
    size_t key_at, key_len;
    const char *key; /* set when parsing is done */
    enum nt_gguf_type type;
    size_t at;  /* of the value: number, string bytes, or first array item */
    size_t len; /* of a string */
    enum nt_gguf_type item_type;
    int64_t n_items;
    size_t *item_at; /* string arrays: position of each item's length field; [n_items] */
};

struct nt_gguf_place {
    size_t name_at, name_len, offset_at; /* where the name and the offset field are, for errors */
    uint64_t offset;                     /* from the start of the data section */
};

struct nt_gguf {
    char *path;
    int fd;
    int64_t size;
    uint8_t *head; /* [head_have] read so far; [head_len] used when parsing is done */
    size_t head_have, head_cap, head_len;
    struct nt_gguf_kv *kv; /* [n_kv] in file order */
    int64_t n_kv;
    int32_t *by_key; /* [n_kv] indices sorted by key */
    struct nt_gguf_tensor *tensors;
    struct nt_gguf_place *places; /* freed when parsing is done */
    int64_t n_tensors;
    char *names; /* keys and tensor names, NUL terminated */
};

/* Bytes of a number of each type; 0 for strings and arrays. */
static const uint8_t nt_gguf_item_bytes[NT_GGUF_NONE] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* Little-endian, any width up to 8. */
static inline uint64_t nt_gguf_uint(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

#endif
