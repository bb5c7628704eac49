#include "tensor_writer.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 18 }; /* elements converted, and bytes copied, at a time */

int64_t nt_tensor_entry_bytes(const struct nt_tensor_entry *e) {
    int64_t n = nt_wdtype_info(e->dtype)->block_bytes;
    for (int32_t i = 0; i < e->n_dims; i++) NT_CHECK(!__builtin_mul_overflow(n, e->shape[i], &n));
    return n;
}

nt_status nt_tensor_writer_open(const char *path, const struct nt_tensor_entry *entries, int64_t n, int64_t align,
                                struct nt_tensor_writer **out) {
    *out = NULL;
    struct nt_tensor_writer *w = calloc(1, sizeof *w);
    struct nt_tensor_entry *copy = malloc((size_t)(n + 1) * sizeof *copy);
    nt_status st = w && copy ? NT_OK : NT_FAIL(NT_E_NOMEM, "%s: no memory for its tensor table", path);
    if (st == NT_OK) st = nt_outfile_open(&w->file, path);
    if (st != NT_OK) {
        free(copy);
        free(w);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    for (int64_t i = 0; i < n; i++) {
        const enum nt_wdtype t = entries[i].dtype;
        NT_CHECK(t == NT_WDTYPE_F32 || t == NT_WDTYPE_F16 || t == NT_WDTYPE_BF16);
        NT_CHECK(entries[i].n_dims >= 1 && entries[i].n_dims <= NT_TENSOR_ENTRY_DIMS);
        copy[i] = entries[i];
    }
    w->entries = copy;
    w->n = n;
    w->at = -1;
    w->align = align;
    *out = w;
    return NT_OK;
}

/* Pads what is written and goes on to the next tensor that has data. */
static void next_tensor(struct nt_tensor_writer *w) {
    while (w->left == 0 && w->at < w->n) {
        const int64_t past = w->at >= 0 ? nt_tensor_entry_bytes(&w->entries[w->at]) % w->align : 0;
        for (int64_t i = past; past > 0 && i < w->align; i++) nt_strbuf_addc(&w->file.buf, '\0');
        w->at++;
        if (w->at < w->n) w->left = nt_tensor_entry_bytes(&w->entries[w->at]);
    }
}

nt_status nt_tensor_writer_append(struct nt_tensor_writer *w, const void *bytes, size_t n) {
    const uint8_t *from = bytes;
    while (n > 0) {
        next_tensor(w);
        NT_CHECK(w->at < w->n);
        size_t take = n < PIECE ? n : PIECE;
        if ((int64_t)take > w->left) take = (size_t)w->left;
        nt_strbuf_add(&w->file.buf, from, take);
        NT_TRY(nt_outfile_flush_if_full(&w->file));
        from += take;
        n -= take;
        w->left -= (int64_t)take;
    }
    return NT_OK;
}

nt_status nt_tensor_writer_append_f32(struct nt_tensor_writer *w, const float *values, int64_t n) {
    next_tensor(w);
    NT_CHECK(w->at < w->n);
    const enum nt_wdtype t = w->entries[w->at].dtype;
    const int64_t bytes = nt_wdtype_info(t)->block_bytes;
    NT_CHECK(n <= w->left / bytes);
    while (n > 0) {
        const int64_t take = n < PIECE ? n : PIECE;
        const size_t size = (size_t)(take * bytes);
        nt_strbuf_reserve(&w->file.buf, size + 8);
        nt_wdtype_round(t, values, take, (uint8_t *)w->file.buf.data + w->file.buf.len);
        w->file.buf.len += size;
        NT_TRY(nt_outfile_flush_if_full(&w->file));
        values += take;
        n -= take;
        w->left -= (int64_t)size;
    }
    return NT_OK;
}

static void release(struct nt_tensor_writer *w) {
    nt_outfile_abandon(&w->file);
    free(w->entries);
    free(w);
}

nt_status nt_tensor_writer_finish(struct nt_tensor_writer *w) {
    next_tensor(w);
    NT_CHECK(w->at == w->n && w->left == 0);
    const nt_status st = nt_outfile_publish(&w->file);
    release(w);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

void nt_tensor_writer_abandon(struct nt_tensor_writer *w) {
    if (w) release(w);
}
