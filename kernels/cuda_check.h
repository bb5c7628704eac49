/* Every kernel of the CUDA backend against the CPU's portable bodies, or against sums in double: the first part of
 * doctor --gpu.
 *
 * A row is an op with its variant (width, type of the cache, tile of a product) and the kernels it launched. Small
 * inputs go through the staged backend (cuda_staged.h) and are compared whole; products are swept over shapes until
 * each tile that this device can choose has run, and a sample of their elements is compared with a sum in double.
 * A difference is a normalized mean squared error, its limit the op's tolerance (ops.h), twice where both sides round;
 * 0 means the same bits. small: fewer and smaller shapes, for an emulator.
 * A row that fails to run keeps the driver's sentence; a kernel that faults ends all work on the device, so it is the
 * last row, and an error that names it and how to leave it out.
 * Ownership: the list is the caller's. Threading: as the backend. Errors: NT_E_NOMEM, NT_E_SYSTEM when the device is
 * lost; a wrong kernel is a row, not an error. */
#ifndef NT_CUDA_CHECK_H
#define NT_CUDA_CHECK_H

#include "cuda_backend.h"

enum { NT_CUDA_CHECK_MAX = 128, NT_CUDA_CHECK_NAME = 64, NT_CUDA_CHECK_ERROR = 256 };

struct nt_cuda_check_row {
    char name[NT_CUDA_CHECK_NAME]; /* "attention d_head 128, int8 cache" */
    enum nt_op op;
    double difference, limit;
    bool ok;
    char error[NT_CUDA_CHECK_ERROR]; /* "": it ran */
    bool launched[NT_CUDA_KERNEL_COUNT];
};

struct nt_cuda_check {
    int32_t n;
    struct nt_cuda_check_row row[NT_CUDA_CHECK_MAX];
    bool passed[NT_CUDA_KERNEL_COUNT], failed[NT_CUDA_KERNEL_COUNT]; /* in some row; neither: no row reached it */
    bool lost;                                                       /* the last row ended the device */
    int32_t n_wrong;                                                 /* rows that are not ok */
};

/* be: a CUDA backend with a pool. Its kv_format is changed on the way and put back. skip: ops left out. */
NT_MUST nt_status nt_cuda_check(struct nt_backend *be, bool small, const bool skip[NT_OP_COUNT],
                                struct nt_cuda_check *out);

#endif
