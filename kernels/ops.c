#include "ops.h"

static const struct {
    const char *name, *doc;
} ops[] = {
#define NT_OP(op, text) [NT_OP_##op] = {.name = #op, .doc = text},
#include "ops.def"
#undef NT_OP
};
_Static_assert(sizeof ops / sizeof ops[0] == NT_OP_COUNT, "one row per op");

const char *nt_op_name(enum nt_op op) {
    return ops[op].name;
}
const char *nt_op_doc(enum nt_op op) {
    return ops[op].doc;
}
