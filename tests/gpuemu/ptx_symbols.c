#include <stdlib.h>
#include <string.h>

#include "ptx_symbols.h"

static uint32_t hash_of(const char *name, size_t n) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < n; i++) hash = (hash ^ (uint8_t)name[i]) * 16777619u;
    return hash % SYMBOL_BUCKETS;
}

static uint32_t bucket_of(const char *name) {
    return hash_of(name, strlen(name));
}

void symbols_open(struct symbols *s) {
    memset(s, 0, sizeof *s);
    s->scope = -1;
    scope_begin(s);
}

void scope_begin(struct symbols *s) {
    if (s->n_scope == s->cap_scope) {
        s->cap_scope = s->cap_scope * 2 + 64;
        s->parent = realloc(s->parent, (size_t)s->cap_scope * sizeof *s->parent);
        if (s->parent == NULL) abort();
    }
    s->parent[s->n_scope] = s->scope;
    s->scope = s->n_scope++;
}

void scope_end(struct symbols *s) {
    while (s->newest != NULL && s->newest->scope == s->scope) {
        struct symbol *gone = s->newest;
        s->bucket[bucket_of(gone->name)] = gone->chain;
        s->newest = gone->older;
        free(gone->name);
        free(gone);
    }
    s->scope = s->parent[s->scope];
}

void symbols_close(struct symbols *s) {
    while (s->scope >= 0) scope_end(s);
    free(s->parent);
}

struct symbol *symbol_add(struct symbols *s, const char *name, enum symbol_kind kind) {
    struct symbol *new = calloc(1, sizeof *new);
    if (new == NULL || (new->name = strdup(name)) == NULL) abort();
    const uint32_t b = bucket_of(name);
    new->kind = kind;
    new->scope = s->scope;
    new->chain = s->bucket[b];
    new->older = s->newest;
    s->bucket[b] = s->newest = new;
    return new;
}

struct symbol *symbol_find(const struct symbols *s, const char *name) {
    struct symbol *at = s->bucket[bucket_of(name)];
    while (at != NULL && strcmp(at->name, name) != 0) at = at->chain;
    return at;
}

/* The range that has this register; its number in it. */
static const struct symbol *find_range(const struct symbols *s, const char *name, int32_t *index) {
    size_t n = strlen(name);
    while (n > 0 && name[n - 1] >= '0' && name[n - 1] <= '9') n--;
    const char *digits = name + n;
    if (*digits == '\0' || (digits[0] == '0' && digits[1] != '\0')) return NULL;
    const long number = strtol(digits, NULL, 10);
    *index = number < INT32_MAX ? (int32_t)number : INT32_MAX;
    for (const struct symbol *at = s->bucket[hash_of(name, n)]; at != NULL; at = at->chain)
        if (*index < at->count && strncmp(at->name, name, n) == 0 && at->name[n] == '\0') return at;
    return NULL;
}

bool symbol_register(const struct symbols *s, const char *name, struct ptx_ref *ref, enum ptx_type *type) {
    int32_t index = 0;
    const struct symbol *range = find_range(s, name, &index), *one = symbol_find(s, name);
    if (one == NULL && range == NULL) return false;
    if (one == NULL || (range != NULL && range->scope > one->scope)) {
        *ref = range->ref;
        ref->at += index * (ref->wide ? 2 : 1);
        *type = range->type;
        return true;
    }
    if (one->kind != SYMBOL_REGISTER || one->count > 0) return false;
    *ref = one->ref;
    *type = one->type;
    return true;
}
