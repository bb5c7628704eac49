#include "cuda_bodies.h"

#define NT_CUDA_MISSING(name)                                                                                          \
    nt_status nt_##name##_cuda(struct nt_backend *be, const struct nt_##name##_args *args) {                           \
        (void)be;                                                                                                      \
        (void)args;                                                                                                    \
        return NT_FAIL(NT_E_UNSUPPORTED,                                                                               \
                       "the CUDA backend has no kernel for " #name " yet: train with run.device = cpu");               \
    }
#include "cuda_missing.def"
#undef NT_CUDA_MISSING
