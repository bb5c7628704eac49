/* The report of doctor --gpu as JSON and as Markdown: one struct, filled part by part, written as often as wanted.
 *
 * gpu-report.json holds every number under a key that ends in its unit; gpu-report.md (and stdout) the same as tables.
 * A report whose `complete` is false stopped at `error`: what was measured before is in it. Times of an emulated device
 * say so, in each row. Both files are published by rename.
 * Ownership: plain data; too large for a stack. Threading: one thread. Errors: those of the files. */
#ifndef NT_GPU_REPORT_H
#define NT_GPU_REPORT_H

#include "cuda_bench.h"
#include "cuda_check.h"
#include "cuda_health.h"
#include "gpu_steps.h"

enum { NT_GPU_REPORT_MODELS = 2, NT_GPU_REPORT_HEALTH = 3 };

struct nt_gpu_report {
    bool emulated; /* times mean nothing */
    bool complete;
    bool skip[NT_OP_COUNT]; /* left out on request */
    char error[NT_ERROR_TEXT];
    double unix_time, took_s;
    struct nt_cuda_facts facts;
    int32_t nccl;
    size_t blaslt;
    char no_nccl[NT_CUDA_HEALTH_TEXT];
    struct nt_cuda_health health[NT_GPU_REPORT_HEALTH]; /* at the start, after the ceilings, at the end */
    int32_t n_health;
    struct nt_cuda_check check;
    struct nt_cuda_kernel_facts kernel[NT_CUDA_KERNEL_COUNT];
    bool has_kernel[NT_CUDA_KERNEL_COUNT];
    struct nt_cuda_ceilings ceilings;
    struct nt_cuda_dims dims[NT_GPU_REPORT_MODELS];
    struct nt_cuda_timings timings;
    struct nt_gpu_steps steps;
};

void nt_gpu_report_json(const struct nt_gpu_report *r, struct nt_strbuf *out);
void nt_gpu_report_md(const struct nt_gpu_report *r, struct nt_strbuf *out);
/* DIR/gpu-report.json and DIR/gpu-report.md; the directory is made. */
NT_MUST nt_status nt_gpu_report_publish(const struct nt_gpu_report *r, const char *dir);

#endif
