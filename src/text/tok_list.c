#include "tok_list.h"

#include "status.h"
#include <stdlib.h>
#include <string.h>

void nt_tok_grow(void **array, int64_t *cap, int64_t need, size_t elem) {
    if (need <= *cap) return;
    int64_t want = *cap < 32 ? 64 : *cap * 2;
    if (want < need) want = need;
    size_t bytes;
    void *grown = __builtin_mul_overflow((size_t)want, elem, &bytes) ? NULL : realloc(*array, bytes);
    if (!grown) nt_bug("no memory for %lld items of %zu bytes", (long long)want, elem);
    *array = grown;
    *cap = want;
}

void nt_ids_release(struct nt_ids *ids) {
    free(ids->data);
    *ids = (struct nt_ids){0};
}

void nt_ids_reset(struct nt_ids *ids) {
    ids->len = 0;
}

void nt_ids_push(struct nt_ids *ids, int32_t id) {
    if (ids->len == ids->cap) nt_tok_grow((void **)&ids->data, &ids->cap, ids->len + 1, sizeof *ids->data);
    ids->data[ids->len++] = id;
}

void nt_ids_append(struct nt_ids *ids, const int32_t *more, int64_t n) {
    if (n <= 0) return;
    nt_tok_grow((void **)&ids->data, &ids->cap, ids->len + n, sizeof *ids->data);
    memcpy(ids->data + ids->len, more, (size_t)n * sizeof *more);
    ids->len += n;
}
