/* The ops that the CUDA backend does not have, rows of cuda_missing.def.
 *
 * Each has a body that refuses with NT_E_UNSUPPORTED and a sentence, without a look at its args, so that a table has no
 * holes and generation never meets them. The bodies, the table's entries and the staged ones are generated from the
 * rows; what goes over all ops of the backend (the checks of doctor --gpu, the op tests) asks here and leaves those
 * out. No state, any thread. */
#ifndef NT_CUDA_MISSING_H
#define NT_CUDA_MISSING_H

#include "ops.h"

static inline bool nt_cuda_is_missing(enum nt_op op) {
    switch (op) {
#define NT_CUDA_MISSING(name) case NT_OP_##name:
#include "cuda_missing.def"
#undef NT_CUDA_MISSING
        return true;
    default:
        return false;
    }
}

#endif
