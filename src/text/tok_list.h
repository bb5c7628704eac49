/* Lists that grow: token ids, and the growth rule for the tokenizer's other arrays.
 *
 * A list is a pointer, a length and a capacity in the owner's struct; zero-initialised it is empty. Growth doubles, so
 * that n appends cost n; memory is kept until release, because encoding reuses its lists.
 * Ownership: the holder of struct nt_ids releases it. Threading: none, a list belongs to one thread.
 * Errors: appends cannot fail, out of memory is nt_bug. */
#ifndef NT_TOK_LIST_H
#define NT_TOK_LIST_H

#include <stddef.h>
#include <stdint.h>

/* Grows *array to at least need items of elem bytes; cap in items. */
void nt_tok_grow(void **array, int64_t *cap, int64_t need, size_t elem);

struct nt_ids {
    int32_t *data;
    int64_t len, cap;
};
void nt_ids_release(struct nt_ids *ids);
void nt_ids_reset(struct nt_ids *ids); /* len = 0, memory kept */
void nt_ids_push(struct nt_ids *ids, int32_t id);
void nt_ids_append(struct nt_ids *ids, const int32_t *more, int64_t n);

#endif
