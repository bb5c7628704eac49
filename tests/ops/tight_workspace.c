#include "tight_workspace.h"
#include "cuda_backend.h"
#include <stdio.h>

static struct {
    struct nt_backend *cuda;
    struct nt_ops plain;
    void *workspace; /* the backend's own */
    size_t workspace_bytes, bytes;
} tight;

static nt_status take(size_t bytes) {
    tight.bytes = bytes;
    tight.cuda->cuda->workspace_bytes = bytes;
    return tight.cuda->memory->take(tight.cuda, bytes, "a workspace", &tight.cuda->cuda->workspace);
}

static void give(void) {
    tight.cuda->memory->give(tight.cuda, tight.cuda->cuda->workspace, tight.bytes);
}

/* Whether the op wants more, and has it now. */
static bool grow(nt_status st) {
    size_t bytes = 0;
    if (st != NT_E_UNSUPPORTED || sscanf(nt_error_last()->text, "%*s needs %zu bytes of workspace", &bytes) != 1 ||
        bytes <= tight.bytes)
        return false;
    nt_error_clear();
    give();
    return take(bytes) == NT_OK;
}

static nt_status restore(nt_status st) {
    give();
    tight.cuda->cuda->workspace = tight.workspace;
    tight.cuda->cuda->workspace_bytes = tight.workspace_bytes;
    return st;
}

#define NT_OP(name, doc)                                                                                               \
    static nt_status tight_##name(struct nt_backend *be, const struct nt_##name##_args *args) {                        \
        NT_TRY(take(0));                                                                                               \
        nt_status st;                                                                                                  \
        do st = tight.plain.name(be, args);                                                                            \
        while (grow(st));                                                                                              \
        return restore(st);                                                                                            \
    }
#include "ops.def"
#undef NT_OP

void op_tighten_workspace(struct nt_backend *be, struct nt_backend *cuda) {
    tight.cuda = cuda;
    tight.plain = be->ops;
    tight.workspace = cuda->cuda->workspace;
    tight.workspace_bytes = cuda->cuda->workspace_bytes;
#define NT_OP(name, doc) be->ops.name = tight_##name;
#include "ops.def"
#undef NT_OP
}
