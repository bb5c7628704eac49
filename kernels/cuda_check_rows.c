#include "cuda_check_rows.h"

#include "log.h"
#include <stdio.h>

void nt_cuda_check_begin(const struct nt_backend *be, int64_t before[NT_CUDA_KERNEL_COUNT]) {
    for (int k = 0; k < NT_CUDA_KERNEL_COUNT; k++) before[k] = be->cuda->functions[k].launches;
}

void nt_cuda_check_add(struct nt_cuda_check *out, struct nt_backend *be, struct nt_cuda_check_row row, nt_status st,
                       const int64_t before[NT_CUDA_KERNEL_COUNT]) {
    NT_CHECK(out->n < NT_CUDA_CHECK_MAX);
    row.ok = st == NT_OK && row.difference <= row.limit; /* false for NaN too */
    if (st != NT_OK) {
        (void)snprintf(row.error, sizeof row.error, "%.*s", NT_CUDA_CHECK_ERROR - 1, nt_error_last()->text);
        out->lost = be->memory->wait(be) != NT_OK;
        nt_error_clear();
    }
    for (int k = 0; k < NT_CUDA_KERNEL_COUNT; k++) {
        if (be->cuda->functions[k].launches > before[k]) row.launched[k] = true;
        if (row.launched[k]) *(row.ok ? &out->passed[k] : &out->failed[k]) = true;
    }
    if (!row.ok) {
        out->n_wrong++;
        nt_warn("doctor", "%s: %s", row.name, row.error[0] ? row.error : "outside its tolerance");
    }
    out->row[out->n++] = row;
}
