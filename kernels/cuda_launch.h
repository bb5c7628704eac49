/* The kernels of the CUDA backend by name, and the one way to launch them.
 *
 * kernels/cuda_kernels.def has a row for each kernel; the enum, the lookup at open and the limit on dynamic shared
 * memory come from it. A kernel takes ONE struct by value, so that a launch is a pointer and a size; the struct is
 * declared once, in a header <op>_cuda.h that both the .cu and the .c include (fixed-width types and pointers only).
 * A launch is checked (grid, threads, shared memory, size of the struct) before the driver sees it, and it is
 * asynchronous: args are copied at once, errors of the kernel itself show at the next wait or download.
 *
 * Beginning early: on compute capability 9.0 a launch right behind another may take free multiprocessors before that
 * one has ended (programmatic dependent launch, CUDA driver API; drivers of CUDA 12.3 and newer), which hides what a
 * launch costs: about 4 us on an H200 for the smallest kernels. A kernel's first statement waits for the one before
 * (nt_launch_begin, ptx.cuh). Weights alone are read sooner (gemm_sm90_tile.cuh, gemm_quant.cu): launches behind those
 * that write weights do not begin early.
 *
 * Threading: as the backend, one thread at a time. Limits: CUDA C programming guide, table "technical specifications
 * per compute capability". */
#ifndef NT_CUDA_LAUNCH_H
#define NT_CUDA_LAUNCH_H

#include "status.h"
#include <stdint.h>

struct nt_backend;
struct nt_cuda;
struct CUstream_st;

enum nt_cuda_kernel {
#define NT_CUDA_KERNEL(image, name, max_dynamic_shared) NT_CUDA_##name,
#include "cuda_kernels.def"
#undef NT_CUDA_KERNEL
    NT_CUDA_KERNEL_COUNT
};

/* The stream, for work that is no launch of these kernels: the launch behind it begins when it has ended. */
struct CUstream_st *nt_cuda_stream(struct nt_cuda *cuda);
/* NT_OK without a launch when a grid dimension is 0. */
NT_MUST nt_status nt_cuda_launch(struct nt_backend *be, enum nt_cuda_kernel kernel, const int64_t grid[3],
                                 int32_t threads, size_t dynamic_shared, const void *args, size_t args_bytes);
/* The usual call: NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_rmsnorm, n_rows, 1, 1, 256, 0, &args)). */
#define NT_CUDA_LAUNCH(be, kernel, x, y, z, threads, dynamic_shared, args)                                             \
    nt_cuda_launch((be), (kernel), (const int64_t[3]){(x), (y), (z)}, (threads), (dynamic_shared), (args),             \
                   sizeof *(args))

/* Blocks of b that hold a >= 0. */
static inline int64_t nt_ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* Launches do here (above). */
bool nt_cuda_begins_early(const struct nt_backend *be);
/* False for the kernels of a *_sm90.cu image on a device that is not compute capability 9.0. */
bool nt_cuda_has(const struct nt_backend *be, enum nt_cuda_kernel kernel);
const char *nt_cuda_kernel_name(enum nt_cuda_kernel kernel);
const char *nt_cuda_kernel_image(enum nt_cuda_kernel kernel);

/* What the loaded image says of a kernel. blocks_per_sm: with these threads and this shared memory. */
struct nt_cuda_kernel_facts {
    int32_t registers, static_shared, local_bytes, max_threads, blocks_per_sm;
};
NT_MUST nt_status nt_cuda_kernel_facts(struct nt_backend *be, enum nt_cuda_kernel kernel, int32_t threads,
                                       size_t dynamic_shared, struct nt_cuda_kernel_facts *out);

#endif
