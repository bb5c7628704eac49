/* The CUDA backend of a build without nvcc: opening says so, and the rest is never reached. */
#include "cuda_backend.h"
#include "cuda_bench.h"
#include "cuda_check.h"
#include "cuda_copy.h"
#include "cuda_health.h"
#include "cuda_staged.h"
#include "gemm_cublaslt.h"
#include "gpu_api.h"

static nt_status absent(void) {
    struct nt_gpu_driver *driver = NULL;
    return nt_gpu_driver_open(&driver);
}

nt_status nt_cuda_open_partly(struct nt_backend *be, int32_t device, struct nt_pool *pool) {
    (void)device;
    (void)pool;
    *be = (struct nt_backend){0};
    return absent();
}

nt_status nt_backend_open_cuda(struct nt_backend *be, int32_t device, struct nt_pool *pool) {
    return nt_cuda_open_partly(be, device, pool);
}

void nt_cuda_close(struct nt_backend *be) {
    (void)be;
}

nt_status nt_cuda_enter(struct nt_backend *be) {
    (void)be;
    return absent();
}

nt_status nt_cuda_workspace(struct nt_backend *be, size_t bytes, const char *what, void **out) {
    (void)be;
    (void)bytes;
    (void)what;
    *out = NULL;
    return absent();
}

nt_status nt_cuda_device_count(int32_t *count) {
    *count = 0;
    return absent();
}

nt_status nt_cuda_device_facts(int32_t device, struct nt_cuda_facts *out) {
    (void)device;
    *out = (struct nt_cuda_facts){0};
    return absent();
}

nt_status nt_cuda_pick_device(int32_t local_rank, int32_t *out) {
    (void)local_rank;
    *out = 0;
    return absent();
}

void nt_cuda_share(struct nt_backend *be, int32_t n_rank, bool crowded, bool copies) {
    (void)be;
    (void)n_rank;
    (void)crowded;
    (void)copies;
}

nt_status nt_cuda_capture_begin(struct nt_backend *be) {
    (void)be;
    return absent();
}

nt_status nt_cuda_capture_end(struct nt_backend *be, nt_status recorded, struct nt_cuda_graph **out) {
    (void)be;
    (void)recorded;
    *out = NULL;
    return absent();
}

nt_status nt_cuda_graph_launch(struct nt_backend *be, const struct nt_cuda_graph *graph) {
    (void)be;
    (void)graph;
    return absent();
}

int32_t nt_cuda_graph_nodes(const struct nt_cuda_graph *graph) {
    (void)graph;
    return 0;
}

void nt_cuda_graph_free(struct nt_backend *be, struct nt_cuda_graph *graph) {
    (void)be;
    (void)graph;
}

nt_status nt_cuda_mark_open(struct nt_backend *be, struct nt_cuda_mark **out) {
    (void)be;
    *out = NULL;
    return absent();
}
nt_status nt_cuda_mark_set(struct nt_cuda_mark *mark) {
    (void)mark;
    return absent();
}
nt_status nt_cuda_mark_passed(const struct nt_cuda_mark *mark, bool *passed) {
    (void)mark;
    *passed = false;
    return absent();
}
void nt_cuda_mark_close(struct nt_cuda_mark *mark) {
    (void)mark;
}

nt_status nt_cuda_time(struct nt_backend *be, nt_cuda_run_fn *run, void *ctx, int32_t n, double *seconds) {
    (void)be;
    (void)run;
    (void)ctx;
    (void)n;
    *seconds = 0;
    return absent();
}

nt_status nt_cuda_launch(struct nt_backend *be, enum nt_cuda_kernel kernel, const int64_t grid[3], int32_t threads,
                         size_t dynamic_shared, const void *args, size_t args_bytes) {
    (void)be;
    (void)kernel;
    (void)grid;
    (void)threads;
    (void)dynamic_shared;
    (void)args;
    (void)args_bytes;
    return absent();
}

struct CUstream_st *nt_cuda_stream(struct nt_cuda *cuda) {
    (void)cuda;
    return NULL;
}

bool nt_cuda_begins_early(const struct nt_backend *be) {
    (void)be;
    return false;
}

bool nt_cuda_has(const struct nt_backend *be, enum nt_cuda_kernel kernel) {
    (void)be;
    (void)kernel;
    return false;
}

nt_status nt_cuda_kernel_facts(struct nt_backend *be, enum nt_cuda_kernel kernel, int32_t threads,
                               size_t dynamic_shared, struct nt_cuda_kernel_facts *out) {
    (void)be;
    (void)kernel;
    (void)threads;
    (void)dynamic_shared;
    *out = (struct nt_cuda_kernel_facts){0};
    return absent();
}

nt_status nt_cublaslt_enable(struct nt_backend *be, int32_t min_rows) {
    (void)be;
    (void)min_rows;
    return absent();
}

size_t nt_cublaslt_version(const struct nt_backend *be) {
    (void)be;
    return 0;
}

const char *nt_cublaslt_library(const struct nt_backend *be) {
    (void)be;
    return "";
}

nt_status nt_cuda_staged_ops(struct nt_backend *cuda, struct nt_backend *out) {
    (void)cuda;
    *out = (struct nt_backend){0};
    return absent();
}

nt_status nt_cuda_copy(struct nt_backend *be, void *to, const void *from, size_t bytes) {
    (void)be;
    (void)to;
    (void)from;
    (void)bytes;
    return absent();
}

nt_status nt_cuda_fill(struct nt_backend *be, void *to, size_t bytes, float scale) {
    (void)be;
    (void)to;
    (void)bytes;
    (void)scale;
    return absent();
}

/* ---- doctor --gpu ---- */

const char *nt_cuda_kernel_name(enum nt_cuda_kernel kernel) {
    (void)kernel;
    return "";
}

const char *nt_cuda_kernel_image(enum nt_cuda_kernel kernel) {
    (void)kernel;
    return "";
}

nt_status nt_cuda_check(struct nt_backend *be, bool small, const bool skip[NT_OP_COUNT], struct nt_cuda_check *out) {
    (void)be;
    (void)small;
    (void)skip;
    *out = (struct nt_cuda_check){0};
    return absent();
}

void nt_cuda_bench_sizes(bool small, struct nt_cuda_bench_sizes *out) {
    (void)small;
    *out = (struct nt_cuda_bench_sizes){0};
}

nt_status nt_cuda_bench_open(struct nt_cuda_bench **out, struct nt_backend *be,
                             const struct nt_cuda_bench_sizes *sizes) {
    (void)be;
    (void)sizes;
    *out = NULL;
    return absent();
}

void nt_cuda_bench_close(struct nt_cuda_bench *b) {
    (void)b;
}

nt_status nt_cuda_bench_ceilings(struct nt_cuda_bench *b, struct nt_cuda_ceilings *out) {
    (void)b;
    *out = (struct nt_cuda_ceilings){0};
    return absent();
}

nt_status nt_cuda_bench_ops(struct nt_cuda_bench *b, const struct nt_cuda_dims *dims, struct nt_cuda_timings *out) {
    (void)b;
    (void)dims;
    *out = (struct nt_cuda_timings){0};
    return absent();
}

double nt_cuda_timing_ideal(const struct nt_cuda_timing *t, const struct nt_cuda_ceilings *c) {
    (void)t;
    (void)c;
    return 0;
}

void nt_cuda_health_read(const char *bus, struct nt_cuda_health *out) {
    (void)bus;
    *out = (struct nt_cuda_health){0};
}

void nt_cuda_throttle_text(uint64_t reasons, struct nt_strbuf *out) {
    (void)reasons;
    (void)out;
}

int32_t nt_cuda_nccl_version(char why[NT_CUDA_HEALTH_TEXT]) {
    why[0] = '\0';
    return 0;
}

nt_status nt_cuda_matrix_rate(struct nt_backend *be, double *flop_s) {
    (void)be;
    *flop_s = 0;
    return absent();
}
