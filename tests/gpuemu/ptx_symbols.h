/* Names of a PTX module while it is parsed: registers, variables, labels, with the scopes of { }.
 *
 * A table of chains; closing a scope takes its names out again. Labels are kept to the end of a kernel, since branches
 * may come first. Ownership: the parser's. One thread. No errors but "no memory", which ends the process. */
#pragma once
#include "interp.h"

enum symbol_kind { SYMBOL_REGISTER, SYMBOL_SHARED, SYMBOL_LOCAL, SYMBOL_GLOBAL, SYMBOL_CONST, SYMBOL_PARAM };
struct symbol {
    char *name;
    enum symbol_kind kind;
    enum ptx_type type;
    struct ptx_ref ref; /* register */
    uint64_t address;   /* variable: offset, or host address of a global one */
    int64_t size;
    struct symbol *chain, *older; /* of the bucket; of all */
    int32_t scope;
};
enum { SYMBOL_BUCKETS = 8192 };
struct symbols {
    struct symbol *bucket[SYMBOL_BUCKETS];
    struct symbol *newest;
    int32_t scope, n_scope, cap_scope, *parent; /* [n_scope] */
};
void symbols_open(struct symbols *s);
void symbols_close(struct symbols *s);
void scope_begin(struct symbols *s);
void scope_end(struct symbols *s); /* forgets the scope's names */
struct symbol *symbol_add(struct symbols *s, const char *name, enum symbol_kind kind);
struct symbol *symbol_find(const struct symbols *s, const char *name);
