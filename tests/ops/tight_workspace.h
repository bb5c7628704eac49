/* Ops of a staged CUDA backend with no more workspace than they ask for.
 *
 * An op is first called without any workspace, and again with exactly the bytes that its refusal names: what it could
 * do in one launch it then does in as many as it can, and a kernel that leaves its part of the workspace leaves an
 * allocation, which the emulated device reports. be: from nt_cuda_staged_ops, on cuda; its ops are replaced. One
 * backend at a time. Errors: the op's. */
#ifndef NT_TIGHT_WORKSPACE_H
#define NT_TIGHT_WORKSPACE_H

#include "backend.h"

void op_tighten_workspace(struct nt_backend *be, struct nt_backend *cuda);

#endif
