/* A backend with host pointers in front of a CUDA backend: what tests and the self-test of the CPU use runs unchanged.
 *
 * Each op of it takes arguments as a CPU backend does (host memory, weights in panels, the cache paired), copies them
 * into device buffers of exactly their size, so that a kernel that leaves its operands can be found, converts weights
 * and pages to the layouts of the device and back, runs the CUDA body, waits, and copies every output back with its
 * padding. Slow by design; the weights of each call are packed anew.
 * Lifetime: `out` borrows `cuda` and owns nothing; do not close it. Threading: as the CUDA backend.
 * Errors: those of the body, reported by the op itself as everything has run when it returns. */
#ifndef NT_CUDA_STAGED_H
#define NT_CUDA_STAGED_H

#include "backend.h"

NT_MUST nt_status nt_cuda_staged_ops(struct nt_backend *cuda, struct nt_backend *out);

#endif
