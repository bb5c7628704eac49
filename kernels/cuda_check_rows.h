/* The list that the checks of cuda_check.h fill: a row per op and variant, and what is known of each kernel.
 *
 * The list is the caller's, fixed in size, zeroed before use. Threading: as the backend. Errors: a run that failed is
 * kept in its row; entering one fails never. What a row, its difference and its limit mean: cuda_check.h.
 */
#ifndef NT_CUDA_CHECK_ROWS_H
#define NT_CUDA_CHECK_ROWS_H

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

/* Launch counts before a row, and the row with what was launched since. st: of the run; its sentence is taken, and when
 * the device answers no more, out->lost is set: no row may follow. */
void nt_cuda_check_begin(const struct nt_backend *be, int64_t before[NT_CUDA_KERNEL_COUNT]);
void nt_cuda_check_add(struct nt_cuda_check *out, struct nt_backend *be, struct nt_cuda_check_row row, nt_status st,
                       const int64_t before[NT_CUDA_KERNEL_COUNT]);

#endif
