/* Modules, functions and launches. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "driver.h"
#include "emu.h"

struct CUmod_st {
    struct emu_module *module;
    struct emu_device *device;
    struct CUmod_st *next;
};

struct emu_launch_job {
    struct emu_launch launch;
    uint8_t params[];
};

static struct CUmod_st *all_modules;
static const char *running_kernel;

const char *emu_running_kernel(void) {
    return running_kernel;
}

/* ---- modules ---- */

/* PTX is text that begins with comments or .version; everything else (ELF, fatbin) is an image for real hardware. */
static bool is_ptx(const char *image) {
    static const unsigned char fatbin[] = {0x50, 0xed, 0x55, 0xba};
    if (memcmp(image, fatbin, 4) == 0 || memcmp(image, "\177ELF", 4) == 0) return false;
    return image[0] == '/' || image[0] == '.' || image[0] == '\n' || image[0] == ' ';
}

/* The first kernel of PTX text: "nt_embed(", its length in *n; NULL: there is none. */
static const char *first_kernel(const char *text, size_t *n) {
    const char *entry = strstr(text, ".entry ");
    if (entry == NULL) return NULL;
    entry += strlen(".entry ");
    *n = strcspn(entry, "( \n") + 1;
    return entry;
}

/* What option ptx has in place of this module, to be freed; NULL: nothing. */
static char *substitute(const char *image) {
    const char *path = emu_options()->ptx, *kernel = NULL, *other = NULL;
    FILE *f = path == NULL ? NULL : fopen(path, "r");
    char *text = NULL;
    size_t size = 0, n = 0, n_other = 0;
    if (path == NULL) return NULL;
    if (f == NULL || getdelim(&text, &size, '\0', f) < 0) emu_report(NULL, "option ptx: cannot read '%s'", path);
    if (f != NULL) fclose(f);
    if (text != NULL) other = first_kernel(text, &n_other);
    kernel = first_kernel(image, &n);
    if (kernel != NULL && other != NULL && n == n_other && memcmp(kernel, other, n) == 0) return text;
    free(text);
    return NULL;
}

/* Ten times the .version of PTX text, 0 without one. */
static int32_t isa_of(const char *text) {
    int major = 0, minor = 0;
    const char *at = strncmp(text, ".version ", 9) == 0 ? text : strstr(text, "\n.version ");
    return at != NULL && sscanf(at, " .version %d.%d", &major, &minor) == 2 ? 10 * major + minor : 0;
}

static CUresult load_module(CUmodule *out, const void *image) {
    if (out == NULL || image == NULL) return CUDA_ERROR_INVALID_VALUE;
    if (!is_ptx(image)) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    if (isa_of(image) > emu_options()->isa) return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
    char error[512] = "";
    int32_t target = 0;
    struct CUmod_st *m = calloc(1, sizeof *m);
    if (m == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    m->device = emu_current_device();
    char *instead = substitute(image);
    m->module = emu_module_load(instead != NULL ? instead : image, m->device->index, &target, error, sizeof error);
    free(instead);
    if (m->module == NULL) {
        fprintf(stderr, "emu: PTX refused: %s\n", error);
        free(m);
        return CUDA_ERROR_INVALID_PTX;
    }
    if (target > emu_options()->cc) { // newer PTX cannot be compiled for an older device
        fprintf(stderr, "emu: PTX refused: .target sm_%d, the device is sm_%d\n", target, emu_options()->cc);
        emu_module_free(m->module);
        free(m);
        return CUDA_ERROR_INVALID_PTX;
    }
    m->next = all_modules;
    all_modules = m;
    *out = m;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int n_option, CUjit_option *option,
                            void **value) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    for (unsigned i = 0; i < n_option; i++) // callers may look at the logs even when nothing was written
        if (option[i] == CU_JIT_INFO_LOG_BUFFER || option[i] == CU_JIT_ERROR_LOG_BUFFER) ((char *)value[i])[0] = '\0';
    result = emu_capture_forbids();
    return emu_leave(result == CUDA_SUCCESS ? load_module(module, image) : result);
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image) {
    return cuModuleLoadData(module, image);
}

static bool module_alive(const struct CUmod_st *module) {
    for (const struct CUmod_st *m = all_modules; m != NULL; m = m->next)
        if (m == module) return true;
    return false;
}

CUresult cuModuleUnload(CUmodule module) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (!module_alive(module)) return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    result = emu_drain_device(module->device); // queued launches need their kernel
    struct CUmod_st **p = &all_modules;
    while (*p != module) p = &(*p)->next;
    *p = module->next;
    emu_module_free(module->module);
    free(module);
    return emu_leave(result);
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (function == NULL || name == NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (!module_alive(module)) return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    struct emu_kernel *kernel = emu_module_kernel(module->module, name);
    if (kernel == NULL) return emu_leave(CUDA_ERROR_NOT_FOUND);
    *function = (CUfunction)kernel;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *size, CUmodule module, const char *name) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (name == NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (!module_alive(module)) return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    uint64_t at = 0;
    size_t n = 0;
    if (!emu_module_global(module->module, name, &at, &n)) return emu_leave(CUDA_ERROR_NOT_FOUND);
    if (address != NULL) *address = at;
    if (size != NULL) *size = n;
    return emu_leave(CUDA_SUCCESS);
}

/* ---- functions ---- */

static int32_t max_threads(const struct emu_kernel *kernel) {
    int32_t n = 1024;
    if (kernel->maxntid[0] > 0) {
        n = 1;
        for (int i = 0; i < 3; i++) n *= kernel->maxntid[i] > 0 ? kernel->maxntid[i] : 1;
    }
    const int32_t registers = (emu_registers(kernel) + 7) / 8 * 8;
    if (registers > 0 && 65536 / registers < n) n = 65536 / registers / 32 * 32;
    return n;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction function) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    const struct emu_kernel *kernel = (const struct emu_kernel *)function;
    if (value == NULL || kernel == NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    switch (which) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *value = max_threads(kernel);
        break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
        *value = (int)kernel->shared_bytes;
        break;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
        *value = 0;
        break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
        *value = (int)kernel->local_bytes;
        break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
        *value = emu_registers(kernel);
        break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
        *value = emu_options()->cc;
        break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *value = kernel->max_dynamic_shared >= 0 ? (int)kernel->max_dynamic_shared : 49152 - (int)kernel->shared_bytes;
        break;
    default:
        result = CUDA_ERROR_INVALID_VALUE;
        break;
    }
    return emu_leave(result);
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    struct emu_kernel *kernel = (struct emu_kernel *)function;
    if (kernel == NULL) return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    switch (which) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        if (value < 0 || value + kernel->shared_bytes > emu_max_shared())
            result = CUDA_ERROR_INVALID_VALUE;
        else
            kernel->max_dynamic_shared = value;
        break;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: // a hint
        if (value < -1 || value > 100) result = CUDA_ERROR_INVALID_VALUE;
        break;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
        break;
    default:
        result = CUDA_ERROR_INVALID_VALUE;
        break;
    }
    return emu_leave(result);
}

CUresult cuFuncGetParamInfo(CUfunction function, size_t i, size_t *offset, size_t *size) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    const struct emu_kernel *kernel = (const struct emu_kernel *)function;
    if (kernel == NULL || offset == NULL || i >= (size_t)kernel->n_param) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *offset = (size_t)kernel->param_offset[i];
    if (size != NULL) *size = (size_t)kernel->param_size[i];
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) {
    (void)config; // a hint
    return function == NULL ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, CUfunction function, int n_thread, size_t dynamic_shared) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    const struct emu_kernel *kernel = (const struct emu_kernel *)function;
    if (n == NULL || kernel == NULL || n_thread < 1) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *n = n_thread > max_threads(kernel) ? 0 : emu_occupancy(kernel, n_thread, dynamic_shared);
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, CUfunction function, int n_thread,
                                                              size_t dynamic_shared, unsigned int flags) {
    (void)flags;
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(n, function, n_thread, dynamic_shared);
}

/* ---- launches ---- */

/* What option fault asks of this launch: it returns from those the process survives. */
static CUresult befall(bool *done) {
    switch (emu_options()->fault) {
    case EMU_DIES:
        fprintf(stderr, "emu: this process dies, as asked\n"); // its time is the time of the line
        (void)raise(SIGKILL);
        break;
    case EMU_FAILS:
        emu_state.sticky = CUDA_ERROR_ECC_UNCORRECTABLE;
        break;
    default:
        *done = false;
        break;
    }
    return emu_state.sticky;
}

static CUresult run_job(const struct emu_launch_job *job, uint64_t number) {
    struct emu_launch launch = job->launch;
    launch.number = number;
    launch.params = job->params;
    if (emu_options()->trace)
        fprintf(stderr, "emu: launch %" PRIu64 ": %s grid %ux%ux%u block %ux%ux%u shared %u%s\n", launch.number,
                launch.kernel->name, launch.grid[0], launch.grid[1], launch.grid[2], launch.block[0], launch.block[1],
                launch.block[2], launch.dynamic_shared, launch.early ? " early" : "");
    running_kernel = launch.kernel->name;
    emu_check_launch_begin(&launch);
    emu_count_launch(launch.kernel);
    const bool ok = emu_run(&launch);
    running_kernel = NULL;
    return ok ? CUDA_SUCCESS : CUDA_ERROR_LAUNCH_FAILED;
}

/* A kernel runs on a stack of its own. One that polls what another process has to write lets the calling thread go on:
 * its op is not done yet and is tried again, like those of libraries. No other kernel runs meanwhile, because the
 * checks know one launch at a time; copies do. */
enum { KERNEL_STACK = 1 << 20 };
static struct {
    const struct emu_launch_job *job; // NULL: none has begun
    uint64_t number;
    CUresult result;
    bool over;
    ucontext_t kernel, caller;
    char *stack;
} begun;

static void run_begun(void) {
    begun.result = run_job(begun.job, begun.number);
    begun.over = true;
}

void emu_pause_kernel(void) {
    const char *name = running_kernel;
    running_kernel = NULL;
    (void)swapcontext(&begun.kernel, &begun.caller);
    running_kernel = name;
}

static void begin_job(const struct emu_launch_job *job) {
    if (begun.stack == NULL) begun.stack = malloc(KERNEL_STACK);
    if (begun.stack == NULL || getcontext(&begun.kernel) != 0) abort();
    begun.job = job;
    begun.number++;
    begun.over = false;
    begun.kernel.uc_stack.ss_sp = begun.stack;
    begun.kernel.uc_stack.ss_size = KERNEL_STACK;
    begun.kernel.uc_link = &begun.caller;
    makecontext(&begun.kernel, run_begun, 0);
}

CUresult emu_run_job(const struct emu_launch_job *job, bool *done) {
    const struct emu_options *o = emu_options();
    *done = begun.job == NULL || begun.job == job;
    if (!*done) return CUDA_SUCCESS;
    if (begun.job == NULL) {
        if (o->fault != EMU_SOUND && o->fault != EMU_STALLS && begun.number + 1 == (uint64_t)o->fault_at)
            return befall(done);
        begin_job(job);
    }
    (void)swapcontext(&begun.caller, &begun.kernel);
    *done = begun.over;
    if (!begun.over) return CUDA_SUCCESS;
    begun.job = NULL;
    return begun.result;
}

void emu_free_job(struct emu_launch_job *job) {
    if (begun.job == job) begun.job = NULL; /* its stream is destroyed while it waits */
    free(job);
}

/* Parameters arrive as an array of pointers, or packed through `extra`. */
static CUresult copy_params(struct emu_launch_job *job, void **params, void **extra) {
    const struct emu_kernel *kernel = job->launch.kernel;
    if (params != NULL) {
        for (int32_t i = 0; i < kernel->n_param; i++) {
            if (params[i] == NULL) return CUDA_ERROR_INVALID_VALUE;
            memcpy(job->params + kernel->param_offset[i], params[i], (size_t)kernel->param_size[i]);
        }
        return CUDA_SUCCESS;
    }
    const void *buffer = NULL;
    size_t size = 0;
    for (void **e = extra; e != NULL && *e != CU_LAUNCH_PARAM_END; e += 2) {
        if (*e == CU_LAUNCH_PARAM_BUFFER_POINTER)
            buffer = e[1];
        else if (*e == CU_LAUNCH_PARAM_BUFFER_SIZE)
            size = *(const size_t *)e[1];
        else
            return CUDA_ERROR_INVALID_VALUE;
    }
    if (size < (size_t)kernel->param_bytes || (size > 0 && buffer == NULL)) return CUDA_ERROR_INVALID_VALUE;
    if (kernel->param_bytes > 0) memcpy(job->params, buffer, (size_t)kernel->param_bytes);
    return CUDA_SUCCESS;
}

/* The host comes no further, whatever its device does: option fault=stall. */
static void stall_if_asked(void) {
    static int64_t called;
    if (emu_options()->fault != EMU_STALLS || ++called != emu_options()->fault_at) return;
    for (;;) (void)pause();
}

static CUresult queue_launch(const struct emu_launch *launch, void **params, void **extra, CUstream stream) {
    stall_if_asked();
    CUresult result = emu_check_launch(launch);
    if (result != CUDA_SUCCESS) return result;
    struct emu_op *op = calloc(1, sizeof *op);
    struct emu_launch_job *job = calloc(1, sizeof *job + (size_t)launch->kernel->param_bytes + 16);
    result = op == NULL || job == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
    if (job != NULL) job->launch = *launch;
    if (result == CUDA_SUCCESS) result = copy_params(job, params, extra);
    if (result != CUDA_SUCCESS) {
        free(op);
        free(job);
        return result;
    }
    *op = (struct emu_op){.kind = EMU_OP_KERNEL, .job = job};
    return emu_enqueue(stream, op);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **params, void **extra) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (config == NULL || function == NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct emu_launch launch = {
        .kernel = (struct emu_kernel *)function,
        .grid = {config->gridDimX,  config->gridDimY,  config->gridDimZ },
        .block = {config->blockDimX, config->blockDimY, config->blockDimZ},
        .dynamic_shared = config->sharedMemBytes
    };
    for (int i = 0; i < 3; i++)
        launch.cluster[i] = launch.kernel->cluster[i] > 0 ? (uint32_t)launch.kernel->cluster[i] : 1;
    for (unsigned i = 0; i < config->numAttrs; i++) {
        const CUlaunchAttribute *a = &config->attrs[i];
        if (a->id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
            launch.cluster[0] = a->value.clusterDim.x;
            launch.cluster[1] = a->value.clusterDim.y;
            launch.cluster[2] = a->value.clusterDim.z;
        } else if (a->id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION) {
            if (emu_options()->cc < 90) return emu_leave(CUDA_ERROR_NOT_SUPPORTED);
            launch.early = a->value.programmaticStreamSerializationAllowed != 0;
        } else if (a->id != CU_LAUNCH_ATTRIBUTE_PRIORITY && a->id != CU_LAUNCH_ATTRIBUTE_IGNORE) // of the timing alone
            return emu_leave(CUDA_ERROR_NOT_SUPPORTED);
    }
    result = emu_check_stream(config->hStream, &stream);
    if (result != CUDA_SUCCESS) return emu_leave(result);
    launch.device = emu_stream_device(stream)->index;
    return emu_leave(queue_launch(&launch, params, extra, stream));
}

CUresult cuLaunchKernel(CUfunction function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                        unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void **params,
                        void **extra) {
    const CUlaunchConfig config = {.gridDimX = gx,
                                   .gridDimY = gy,
                                   .gridDimZ = gz,
                                   .blockDimX = bx,
                                   .blockDimY = by,
                                   .blockDimZ = bz,
                                   .sharedMemBytes = shared,
                                   .hStream = stream};
    return cuLaunchKernelEx(&config, function, params, extra);
}
