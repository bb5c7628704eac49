#include <stdlib.h>
#include <string.h>

#include "ptx_symbols.h"

static uint32_t bucket_of(const char *name) {
    uint32_t hash = 2166136261u;
    for (; *name != '\0'; name++) hash = (hash ^ (uint8_t)*name) * 16777619u;
    return hash % SYMBOL_BUCKETS;
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
