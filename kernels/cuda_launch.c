#include "cuda_launch.h"

#include "cuda_images.h"
#include "cuda_parts.h"
#include <string.h>

/* Limits of every device of compute capability 8.0 and newer. */
enum { MAX_GRID_YZ = 65535, MAX_ARGS = 4096, DEFAULT_SHARED = 48 << 10, JIT_LOG = 4096 };
enum { EARLY_DRIVER = 12030 }; /* before it a captured stream did not take launches that begin early */

static const struct {
    const char *image, *name, *symbol;
    int32_t max_dynamic_shared;
} rows[NT_CUDA_KERNEL_COUNT + 1] = {
/* one more: there may be none */
#define NT_CUDA_KERNEL(image, name, max_dynamic_shared) {#image, #name, "nt_" #name, (max_dynamic_shared)},
#include "cuda_kernels.def"
#undef NT_CUDA_KERNEL
};

const char *nt_cuda_kernel_name(enum nt_cuda_kernel kernel) {
    return rows[kernel].name;
}

const char *nt_cuda_kernel_image(enum nt_cuda_kernel kernel) {
    return rows[kernel].image;
}

/* Images for compute capability 9.0 alone (TMA and wgmma of sm_90a run nowhere else). */
static bool is_sm90(const char *image) {
    const size_t n = strlen(image);
    return n > 5 && strcmp(image + n - 5, "_sm90") == 0;
}

/* ---- images ---- */

/* The usual reason where the toolkit is newer than the node. */
static nt_status driver_is_older(const struct nt_cuda *cuda, const struct nt_cuda_image *image, const char *name) {
    const int32_t made = cuda->facts.toolkit, has = cuda->facts.driver;
    return NT_FAIL(
        NT_E_UNSUPPORTED,
        "kernels/%s.cu was compiled by the nvcc of CUDA %d.%d and this node's driver is for CUDA %d.%d (%s): "
        "build with an nvcc of CUDA %d.%d or older (-DNT_NVCC=...), or have the NVIDIA driver updated",
        image->name, made / 1000, made % 1000 / 10, has / 1000, has % 1000 / 10, name, has / 1000, has % 1000 / 10);
}

static nt_status load_ptx(struct nt_cuda *cuda, const struct nt_cuda_image *image, const unsigned char *ptx,
                          CUmodule *out) {
    char log[JIT_LOG] = "";
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    const CUresult result = cuda->driver->cuModuleLoadDataEx(out, ptx, 2, options, values);
    cuda->facts.jit = true;
    if (result == CUDA_SUCCESS) return NT_OK;
    log[sizeof log - 1] = '\0';
    const nt_status st = nt_gpu_fail(cuda->driver, result, "cuModuleLoadDataEx", __FILE__, __LINE__);
    if (st == NT_E_NOMEM) return st;
    const char *name = NULL;
    if (cuda->driver->cuGetErrorName(result, &name) != CUDA_SUCCESS || !name) name = "an unknown error";
    if (result == CUDA_ERROR_UNSUPPORTED_PTX_VERSION) return driver_is_older(cuda, image, name);
    return NT_FAIL(NT_E_UNSUPPORTED,
                   "the CUDA driver has no image of kernels/%s.cu for compute capability %d.%d and cannot compile its "
                   "PTX: %s%s%.600s",
                   image->name, cuda->facts.cc / 10, cuda->facts.cc % 10, name, log[0] ? ": " : "", log);
}

/* *for_sm90: it is code for compute capability 9.0. */
static nt_status load_image(struct nt_cuda *cuda, const struct nt_cuda_image *image, CUmodule *out, bool *for_sm90) {
    const struct nt_gpu_driver *d = cuda->driver;
    const CUresult result = d->cuModuleLoadDataEx(out, image->fatbin, 0, NULL, NULL);
    *for_sm90 = cuda->facts.cc == 90;
    if (result == CUDA_SUCCESS) return NT_OK;
    if (result != CUDA_ERROR_NO_BINARY_FOR_GPU && result != CUDA_ERROR_INVALID_IMAGE) {
        return nt_gpu_fail(d, result, "cuModuleLoadDataEx", __FILE__, __LINE__);
    }
    *for_sm90 = cuda->facts.cc == 90 && (image->ptx_sm90 || is_sm90(image->name));
    NT_TRY(load_ptx(cuda, image, *for_sm90 && image->ptx_sm90 ? image->ptx_sm90 : image->ptx, out));
    return NT_OK;
}

/* ---- functions ---- */

static nt_status find_function(struct nt_cuda *cuda, CUmodule module, enum nt_cuda_kernel kernel) {
    const struct nt_gpu_driver *d = cuda->driver;
    struct nt_cuda_function *f = &cuda->functions[kernel];
    const CUresult result = d->cuModuleGetFunction(&f->function, module, rows[kernel].symbol);
    if (result == CUDA_ERROR_NOT_FOUND) {
        return NT_FAIL(NT_E_INTERNAL, "the image of kernels/%s.cu has no kernel %s", rows[kernel].image,
                       rows[kernel].symbol);
    }
    if (result != CUDA_SUCCESS) return nt_gpu_fail(d, result, "cuModuleGetFunction", __FILE__, __LINE__);
    int value = 0;
    NT_TRY(NT_CU(d, cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, f->function)));
    f->max_threads = value;
    NT_TRY(NT_CU(d, cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, f->function)));
    f->static_shared = value;
    /* A device with less shared memory than the row asks for may still run the smaller launches. */
    f->max_dynamic_shared = rows[kernel].max_dynamic_shared;
    if (f->max_dynamic_shared > cuda->facts.max_shared - f->static_shared) {
        f->max_dynamic_shared = cuda->facts.max_shared - f->static_shared;
    }
    if (f->max_dynamic_shared + f->static_shared > DEFAULT_SHARED) {
        NT_TRY(NT_CU(d, cuFuncSetAttribute(f->function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                           f->max_dynamic_shared)));
    }
    size_t offset = 0;
    if (!d->cuFuncGetParamInfo || d->cuFuncGetParamInfo(f->function, 0, &offset, &f->args_bytes) != CUDA_SUCCESS) {
        f->args_bytes = 0;
    }
    return NT_OK;
}

nt_status nt_cuda_load_kernels(struct nt_cuda *cuda) {
    int n_images = 0;
    const struct nt_cuda_image *images = nt_cuda_images(&n_images);
    bool for_sm90[NT_CUDA_MAX_IMAGES] = {false};
    NT_CHECK(n_images <= NT_CUDA_MAX_IMAGES);
    for (int i = 0; i < n_images; i++) {
        if (is_sm90(images[i].name) && cuda->facts.cc != 90) continue;
        NT_TRY(load_image(cuda, &images[i], &cuda->modules[i], &for_sm90[i]));
    }
    for (int k = 0; k < NT_CUDA_KERNEL_COUNT; k++) {
        int i = 0;
        while (i < n_images && strcmp(images[i].name, rows[k].image) != 0) i++;
        if (i == n_images) {
            return NT_FAIL(NT_E_INTERNAL, "kernel %s: this build has no image of kernels/%s.cu", rows[k].symbol,
                           rows[k].image);
        }
        if (cuda->modules[i]) NT_TRY(find_function(cuda, cuda->modules[i], (enum nt_cuda_kernel)k));
        cuda->functions[k].begins = for_sm90[i];
    }
    return NT_OK;
}

void nt_cuda_unload_kernels(struct nt_cuda *cuda) {
    for (int i = 0; i < NT_CUDA_MAX_IMAGES; i++) {
        if (cuda->modules[i]) (void)cuda->driver->cuModuleUnload(cuda->modules[i]);
        cuda->modules[i] = NULL;
    }
}

/* ---- launches ---- */

bool nt_cuda_has(const struct nt_backend *be, enum nt_cuda_kernel kernel) {
    return be->cuda->functions[kernel].function != NULL;
}

static nt_status check_launch(const struct nt_cuda *cuda, enum nt_cuda_kernel kernel, const int64_t grid[3],
                              int32_t threads, size_t dynamic_shared, size_t args_bytes) {
    const struct nt_cuda_function *f = &cuda->functions[kernel];
    const char *name = rows[kernel].name;
    if (!f->function) {
        return NT_FAIL(NT_E_UNSUPPORTED, "kernel %s needs compute capability 9.0; %s has %d.%d", name, cuda->facts.name,
                       cuda->facts.cc / 10, cuda->facts.cc % 10);
    }
    if (grid[0] < 0 || grid[0] > INT32_MAX || grid[1] < 0 || grid[1] > MAX_GRID_YZ || grid[2] < 0 ||
        grid[2] > MAX_GRID_YZ) {
        return NT_FAIL(NT_E_UNSUPPORTED, "kernel %s: a grid of %lld x %lld x %lld blocks is beyond the device's limit",
                       name, (long long)grid[0], (long long)grid[1], (long long)grid[2]);
    }
    if (threads < 1 || threads > f->max_threads) {
        return NT_FAIL(NT_E_INTERNAL, "kernel %s: %d threads a block; its image takes 1 to %d", name, threads,
                       f->max_threads);
    }
    if (dynamic_shared > (size_t)f->max_dynamic_shared) {
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "kernel %s: %zu bytes of dynamic shared memory; the row in cuda_kernels.def and the device (%d "
                       "bytes a block) allow %d",
                       name, dynamic_shared, cuda->facts.max_shared, f->max_dynamic_shared);
    }
    if (args_bytes > MAX_ARGS || (f->args_bytes > 0 && args_bytes != f->args_bytes)) {
        return NT_FAIL(NT_E_INTERNAL, "kernel %s: its struct has %zu bytes here and %zu in the image", name, args_bytes,
                       f->args_bytes);
    }
    return NT_OK;
}

struct CUstream_st *nt_cuda_stream(struct nt_cuda *cuda) {
    cuda->behind_launch = false;
    return cuda->stream;
}

static bool may_begin_early(const struct nt_cuda *cuda, enum nt_cuda_kernel kernel) {
    return cuda->functions[kernel].begins && cuda->facts.driver >= EARLY_DRIVER && !cuda->one_by_one;
}

bool nt_cuda_begins_early(const struct nt_backend *be) {
    return may_begin_early(be->cuda, NT_CUDA_embed);
}

/* Products read weights before the launch before them has ended. */
static bool writes_weights(enum nt_cuda_kernel kernel) {
    return strcmp(rows[kernel].image, "pack") == 0 || strcmp(rows[kernel].image, "optim") == 0;
}

static CUresult launch(struct nt_cuda *cuda, enum nt_cuda_kernel kernel, const int64_t grid[3], int32_t threads,
                       size_t dynamic_shared, void **params) {
    CUfunction function = cuda->functions[kernel].function;
    const unsigned shared = (unsigned)dynamic_shared, x = (unsigned)grid[0], y = (unsigned)grid[1],
                   z = (unsigned)grid[2];
    if (!cuda->behind_launch || !may_begin_early(cuda, kernel))
        return cuda->driver->cuLaunchKernel(function, x, y, z, (unsigned)threads, 1, 1, shared, cuda->stream, params,
                                            NULL);
    CUlaunchAttribute early = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                               .value = {.programmaticStreamSerializationAllowed = 1}};
    const CUlaunchConfig config = {.gridDimX = x,
                                   .gridDimY = y,
                                   .gridDimZ = z,
                                   .blockDimX = (unsigned)threads,
                                   .blockDimY = 1,
                                   .blockDimZ = 1,
                                   .sharedMemBytes = shared,
                                   .hStream = cuda->stream,
                                   .attrs = &early,
                                   .numAttrs = 1};
    return cuda->driver->cuLaunchKernelEx(&config, function, params, NULL);
}

nt_status nt_cuda_launch(struct nt_backend *be, enum nt_cuda_kernel kernel, const int64_t grid[3], int32_t threads,
                         size_t dynamic_shared, const void *args, size_t args_bytes) {
    struct nt_cuda *cuda = be->cuda;
    NT_TRY(check_launch(cuda, kernel, grid, threads, dynamic_shared, args_bytes));
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return NT_OK;
    void *params[] = {(void *)(uintptr_t)args};
    const CUresult result = launch(cuda, kernel, grid, threads, dynamic_shared, params);
    if (result != CUDA_SUCCESS) return nt_gpu_fail(cuda->driver, result, rows[kernel].symbol, __FILE__, __LINE__);
    cuda->functions[kernel].launches++;
    cuda->behind_launch = !writes_weights(kernel);
    return NT_OK;
}

nt_status nt_cuda_kernel_facts(struct nt_backend *be, enum nt_cuda_kernel kernel, int32_t threads,
                               size_t dynamic_shared, struct nt_cuda_kernel_facts *out) {
    const struct nt_gpu_driver *d = be->cuda->driver;
    const struct nt_cuda_function *f = &be->cuda->functions[kernel];
    *out = (struct nt_cuda_kernel_facts){.static_shared = f->static_shared, .max_threads = f->max_threads};
    if (!f->function) return NT_OK;
    int value = 0;
    NT_TRY(NT_CU(d, cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, f->function)));
    out->registers = value;
    NT_TRY(NT_CU(d, cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, f->function)));
    out->local_bytes = value;
    NT_TRY(NT_CU(d, cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, f->function, threads, dynamic_shared)));
    out->blocks_per_sm = value;
    return NT_OK;
}
