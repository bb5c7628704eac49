/* A backend with host pointers in front of a CUDA backend: tests and the self-test of the CPU's ops run on it
 * unchanged.
 *
 * Each op of it takes arguments as a CPU backend does (host memory, weights in panels, the cache paired), copies them
 * into device buffers of exactly their size, so that a kernel that leaves its operands can be found, converts weights
 * and pages to the layouts of the device and back, runs the CUDA body, waits, and copies every output back with the
 * padding between its rows. Slow by design: everything is copied and packed for each call.
 * Lifetime: `out` is a CPU backend otherwise (portable bodies, scratch, cuda->pool) and is closed like one, before
 * `cuda`, which it borrows. Threading: as the CUDA backend. A paired cache is staged as NT_KV_ROWS, others
 * as they are.
 * Errors: those of the body and of its kernels, as everything has run when an op returns. */
#ifndef NT_CUDA_STAGED_H
#define NT_CUDA_STAGED_H

#include "backend.h"

NT_MUST nt_status nt_cuda_staged_ops(struct nt_backend *cuda, struct nt_backend *out);

#endif
