/* The CUDA bodies of the ops, named nt_<op>_cuda with the signature of struct nt_ops.
 *
 * Each is defined in <op>_cuda.c (related ops may share a file) and entered in the table of cuda_table.c. A body checks
 * its launch conditions, fills the kernel's struct and launches on be->cuda->stream through nt_cuda_launch; it never
 * waits and never allocates. All pointers in args are device memory, but for the structs nt_packed and nt_kv_layer,
 * which the host reads. Needed beside the args: nt_cuda_workspace. Errors: NT_E_UNSUPPORTED with a sentence for a shape
 * that no kernel takes. */
#ifndef NT_CUDA_BODIES_H
#define NT_CUDA_BODIES_H

#include "cuda_backend.h"

#define NT_OP(name, doc) nt_status nt_##name##_cuda(struct nt_backend *be, const struct nt_##name##_args *args);
#include "ops.def"
#undef NT_OP

/* A slot without a body is NULL; opening fails then and names the op. */
const struct nt_ops *nt_cuda_bodies(void);

#endif
