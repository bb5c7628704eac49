/* The dynamic shared memory that cuda_kernels.def grants to each kernel, as constants: nt_granted_<kernel>, in bytes.
 *
 * For the launchers whose tables compute the same number from a tile: a static assertion there keeps both equal, so
 * that a tile that grows without its row does not compile instead of failing at its first launch. No state; any
 * thread; no errors. */
#ifndef NT_CUDA_GRANTED_H
#define NT_CUDA_GRANTED_H

#define NT_CUDA_KERNEL(image, name, max_dynamic_shared) enum { nt_granted_##name = (max_dynamic_shared) };
#include "cuda_kernels.def"
#undef NT_CUDA_KERNEL

/* What a block of an A100 can have. */
enum { NT_A100_SHARED = 163 * 1024 };

#endif
