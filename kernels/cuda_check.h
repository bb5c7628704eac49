/* Every kernel of the CUDA backend against the CPU's portable bodies, or against sums in double: the first part of
 * doctor --gpu.
 *
 * A row is an op with its variant (width, type of the cache, tile of a product) and the kernels it launched. Small
 * inputs go through the staged backend (cuda_staged.h) and are compared whole; products are swept over shapes until
 * each tile that this device can choose has run, and a sample of their elements is compared with a sum in double.
 * Products and attention of rows alone must have the bits of those rows in a batch.
 * A difference is a normalized mean squared error, its limit the op's tolerance (ops.h), twice where both sides round;
 * 0 means the same bits. small: fewer and smaller shapes, for an emulator.
 * A row that fails to run keeps the driver's sentence; a kernel that faults ends all work on the device, so it is the
 * last row, and an error that names it and how to leave it out.
 * Ownership: the list is the caller's. Threading: as the backend. Errors: NT_E_NOMEM, NT_E_SYSTEM when the device is
 * lost; a wrong kernel is a row, not an error. */
#ifndef NT_CUDA_CHECK_H
#define NT_CUDA_CHECK_H

#include "cuda_check_rows.h"

/* be: a CUDA backend with a pool. Its kv_format is changed on the way and put back. skip: ops left out. */
NT_MUST nt_status nt_cuda_check(struct nt_backend *be, bool small, const bool skip[NT_OP_COUNT],
                                struct nt_cuda_check *out);

#endif
