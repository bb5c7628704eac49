/* Names of a PTX module while it is parsed: registers, variables, labels, with the scopes of { }.
 *
 * A table of chains; closing a scope takes its names out again. Labels are kept to the end of a kernel, since branches
 * may come first. Kernels are kept as text until they are launched. Ownership: the parser's. One thread. No errors but
 * "no memory", which ends the process. */
#pragma once
#include "interp.h"

enum symbol_kind { SYMBOL_REGISTER, SYMBOL_SHARED, SYMBOL_LOCAL, SYMBOL_GLOBAL, SYMBOL_CONST, SYMBOL_PARAM };
struct symbol {
    char *name;
    enum symbol_kind kind;
    enum ptx_type type;
    struct ptx_ref ref; /* register */
    int32_t count;      /* of "%r<45>": its name is %r, its registers follow each other; 0: one register */
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
/* A register, also one of a range; false: no such name. */
bool symbol_register(const struct symbols *s, const char *name, struct ptx_ref *ref, enum ptx_type *type);

/* ---- kernels whose body was not parsed yet: that happens at the first launch ---- */
enum { PTX_RECENT = 1024 };
struct ptx_kernel {
    struct ptx_code code;        /* first */
    const char *head;            /* text behind the name: parameters, then the body */
    int32_t head_line;           /* PTX line of it */
    const struct symbol *before; /* newest name of the module when the kernel came */
    bool complete;               /* the body was parsed */
    struct constant_slot {
        uint64_t value;
        int32_t after; /* place of its lanes, + 1 */
        bool wide;
    } recent[PTX_RECENT]; /* equal constants share their lanes */
};
/* Parses the body if that was not done: false with a report when it cannot be run. */
bool ptx_complete(struct ptx_code *code);
