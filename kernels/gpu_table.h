/* What GPUs can do, from their datasheets: the rows that plans are made with. No device is asked.
 *
 * Rates are dense (without structured sparsity) bf16 tensor-core FLOP/s, bytes/s of device memory, and bytes/s per
 * direction of the link to the other GPUs of a node; memory in bytes (10^9, as sold). The factors say what the best
 * known kernels reach of that: a large bf16 product at 798 of 990 TFLOP/s and a copy at 3.0 of 3.35 TB/s on an H100,
 * and an all-reduce of 16 MB over 8 of them in 87 us where the formula says 65. They were measured on H100 only and
 * stand for the other rows too. Constants; no errors. */
#ifndef NT_GPU_TABLE_H
#define NT_GPU_TABLE_H

#include <stdint.h>

struct nt_gpu {
    const char *name, *doc;
    int32_t cc;        /* compute capability, times 10 */
    double flops;      /* bf16, dense */
    double bandwidth;  /* of memory, bytes/s */
    double memory;     /* bytes */
    double link;       /* per direction, bytes/s */
    double link_delay; /* seconds of the smallest all-reduce: measured over NVLink, guessed over PCIe */
    double compute_factor, memory_factor, link_factor;
};

const struct nt_gpu *nt_gpu_table(int32_t *n);
const struct nt_gpu *nt_gpu_find(const char *name); /* NULL: not in the table */

#endif
