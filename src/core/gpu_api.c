#include "gpu_api.h"

#include "env.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

struct symbol {
    const char *name;
    size_t offset; /* of the pointer in the table */
};

#define STRING_(x) #x
#define STRING(x)  STRING_(x)

static void *open_library(const char *name) {
    return dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

/* Fills the table; the name of the first symbol that is not there, or NULL. Absent ones become null pointers. */
static const char *load(void *library, const struct symbol *symbols, size_t n, void *table) {
    const char *absent = NULL;
    for (size_t i = 0; i < n; i++) {
        void *address = dlsym(library, symbols[i].name);
        if (!address && !absent) absent = symbols[i].name;
        memcpy((char *)table + symbols[i].offset, &address, sizeof address);
    }
    return absent;
}

/* The first of the names that opens, else the one of the environment alone. */
struct place {
    const char *what; /* "NCCL" */
    const char *override, *variable;
    const char *names[2];
};

static nt_status open_table(const struct place *at, const struct symbol *symbols, size_t n, void *table,
                            const char **name) {
    void *library = NULL;
    if (at->override) {
        *name = at->override;
        library = open_library(at->override);
        if (!library) {
            return NT_FAIL(NT_E_UNSUPPORTED, "%s names a %s library that does not open: %s", at->variable, at->what,
                           dlerror());
        }
    } else if (nt_env_cuda_driver()) {
        return NT_FAIL(NT_E_UNSUPPORTED, "no %s beside the driver that NOCTURNE_CUDA_DRIVER names", at->what);
    }
    for (int i = 0; i < 2 && !library && at->names[i]; i++) {
        *name = at->names[i];
        library = open_library(at->names[i]);
    }
    if (!library)
        return NT_FAIL(NT_E_UNSUPPORTED, "no %s: %s%s%s does not open: %s", at->what, at->names[0],
                       at->names[1] ? " or " : "", at->names[1] ? at->names[1] : "", dlerror());
    const char *absent = load(library, symbols, n, table);
    if (absent)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s lacks %s: another version of %s is needed", *name, absent, at->what);
    return NT_OK;
}

nt_status nt_gpu_blaslt_open(int driver_version, struct nt_gpu_blaslt *out) {
#define X(type, name, params) {#name, offsetof(struct nt_gpu_blaslt, name)},
    static const struct symbol symbols[] = {NT_BLASLT_LIST(X)};
#undef X
    struct place at = {
        "cuBLASLt", nt_env_cublaslt(), "NOCTURNE_CUBLASLT", {"libcublasLt.so.13", "libcublasLt.so.12"}
    };
    if (driver_version < 13000) { /* an older driver opens the newer library, which then does not start */
        at.names[0] = at.names[1];
        at.names[1] = NULL;
    }
    *out = (struct nt_gpu_blaslt){0};
    NT_TRY(open_table(&at, symbols, sizeof symbols / sizeof symbols[0], out, &out->library));
    return NT_OK;
}

nt_status nt_gpu_nccl_open(struct nt_gpu_nccl *out) {
#define X(type, name, params) {#name, offsetof(struct nt_gpu_nccl, name)},
    static const struct symbol symbols[] = {NT_NCCL_LIST(X)};
#undef X
    const struct place at = {
        "NCCL", nt_env_nccl(), "NOCTURNE_NCCL", {"libnccl.so.2", NULL}
    };
    *out = (struct nt_gpu_nccl){0};
    NT_TRY(open_table(&at, symbols, sizeof symbols / sizeof symbols[0], out, &out->library));
    return NT_OK;
}

nt_status nt_gpu_nvml_open(struct nt_gpu_nvml *out) {
#define X(type, name, params) {#name, offsetof(struct nt_gpu_nvml, name)},
    static const struct symbol symbols[] = {NT_NVML_LIST(X)};
#undef X
    const struct place at = {
        "NVML", NULL, "", {"libnvidia-ml.so.1", NULL}
    };
    *out = (struct nt_gpu_nvml){0};
    NT_TRY(open_table(&at, symbols, sizeof symbols / sizeof symbols[0], out, &out->library));
    return NT_OK;
}

void nt_gpu_driver_free(struct nt_gpu_driver *driver) {
    free(driver);
}

#ifndef NT_HAVE_CUDA

nt_status nt_gpu_driver_open(struct nt_gpu_driver **out) {
    *out = NULL;
    return NT_FAIL(NT_E_UNSUPPORTED, "this build has no CUDA backend: it was made without nvcc, or with NT_CUDA=OFF");
}

#else

/* STRING expands the name to the one cuda.h maps it to: cuMemAlloc_v2. */
#define X(name) {STRING(name), offsetof(struct nt_gpu_driver, name)},
static const struct symbol needed[] = {NT_GPU_DRIVER_LIST(X)};
static const struct symbol optional[] = {NT_GPU_DRIVER_OPTIONAL_LIST(X)};
#undef X

nt_status nt_gpu_fail(const struct nt_gpu_driver *driver, CUresult result, const char *call, const char *file,
                      int line) {
    const char *name = NULL, *text = NULL;
    if (driver->cuGetErrorName(result, &name) != CUDA_SUCCESS || !name) name = "an unknown error";
    if (driver->cuGetErrorString(result, &text) != CUDA_SUCCESS || !text) text = "no text";
    return nt_fail_at(result == CUDA_ERROR_OUT_OF_MEMORY ? NT_E_NOMEM : NT_E_SYSTEM, file, line,
                      "%.*s failed: %s (%d): %s", (int)strcspn(call, "("), call, name, (int)result, text);
}

static nt_status no_device(const struct nt_gpu_driver *d) {
    const char *visible = nt_env_cuda_visible_devices();
    if (visible) {
        return NT_FAIL(NT_E_UNSUPPORTED, "the CUDA driver %s sees no device; CUDA_VISIBLE_DEVICES is \"%s\"",
                       d->library, visible);
    }
    return NT_FAIL(NT_E_UNSUPPORTED, "the CUDA driver %s sees no device; was a GPU asked for (--gpus-per-node)?",
                   d->library);
}

/* What keeps the driver from starting, as a sentence. */
static nt_status unusable(const struct nt_gpu_driver *d, CUresult result) {
    switch (result) {
    case CUDA_ERROR_STUB_LIBRARY:
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s is the stub library of the CUDA toolkit, not a driver: take .../stubs out of "
                       "LD_LIBRARY_PATH",
                       d->library);
    case CUDA_ERROR_NO_DEVICE:
        return no_device(d);
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s and the kernel's NVIDIA module are of different versions: reload the "
                       "module or restart the machine",
                       d->library);
    case CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE:
        return NT_FAIL(NT_E_UNSUPPORTED, "%s is a forward compatibility driver, which this device does not support",
                       d->library);
    default:
        (void)nt_gpu_fail(d, result, "cuInit", __FILE__, __LINE__);
        return NT_E_UNSUPPORTED;
    }
}

static nt_status too_old(const struct nt_gpu_driver *d, const char *absent) {
    return NT_FAIL(NT_E_UNSUPPORTED,
                   "the CUDA driver %s is too old: it supports CUDA %d.%d%s%s, and %d.%d is needed (NVIDIA driver 525 "
                   "or newer)",
                   d->library, d->version / 1000, d->version % 1000 / 10, absent ? " and lacks " : "",
                   absent ? absent : "", NT_GPU_DRIVER_NEEDED / 1000, NT_GPU_DRIVER_NEEDED % 1000 / 10);
}

static nt_status start(struct nt_gpu_driver *d) {
    const char *named = nt_env_cuda_driver();
    d->overridden = named != NULL;
    d->library = named ? named : "libcuda.so.1";
    void *library = open_library(d->library);
    if (!library && named) {
        return NT_FAIL(NT_E_UNSUPPORTED, "NOCTURNE_CUDA_DRIVER names a library that does not open: %s", dlerror());
    }
    if (!library) return NT_FAIL(NT_E_UNSUPPORTED, "no CUDA driver: %s", dlerror());
    const char *absent = load(library, needed, sizeof needed / sizeof needed[0], d);
    if (!d->cuInit || !d->cuDriverGetVersion || !d->cuGetErrorName || !d->cuGetErrorString) {
        return NT_FAIL(NT_E_UNSUPPORTED, "%s is no CUDA driver: it lacks %s", d->library, absent);
    }
    CUresult result = d->cuDriverGetVersion(&d->version);
    if (result != CUDA_SUCCESS) return unusable(d, result);
    if (d->version < NT_GPU_DRIVER_NEEDED || absent) return too_old(d, absent);
    (void)load(library, optional, sizeof optional / sizeof optional[0], d);
    const struct symbol ms[] = {
        {"cuEventElapsedTime_v2", offsetof(struct nt_gpu_driver, event_ms)},
        {"cuEventElapsedTime",    offsetof(struct nt_gpu_driver, event_ms)}
    };
    if (load(library, &ms[0], 1, d) && load(library, &ms[1], 1, d)) return too_old(d, ms[1].name);
    result = d->cuInit(0);
    if (result != CUDA_SUCCESS) return unusable(d, result);
    int count = 0;
    NT_TRY(NT_CU(d, cuDeviceGetCount(&count)));
    if (count == 0) return no_device(d);
    return NT_OK;
}

nt_status nt_gpu_driver_open(struct nt_gpu_driver **out) {
    *out = NULL;
    struct nt_gpu_driver *d = calloc(1, sizeof *d);
    if (!d) return NT_FAIL(NT_E_NOMEM, "no memory for the table of the CUDA driver");
    const nt_status st = start(d);
    if (st != NT_OK) {
        free(d);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    *out = d;
    return NT_OK;
}

#endif
