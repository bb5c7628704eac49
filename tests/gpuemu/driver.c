/* Initialisation, devices and primary contexts. A device looks like an A100 (cc=80), an L40S (cc=89) or an
 * H100 (cc=90). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "emu.h"
#include "driver.h"

struct emu_state emu_state;
static pthread_mutex_t the_lock;
static pthread_once_t lock_once = PTHREAD_ONCE_INIT;
static _Thread_local struct emu_device *current_device;

static void make_lock(void) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE); // a host function's forbidden call must not hang
    pthread_mutex_init(&the_lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

void emu_lock(void) {
    pthread_once(&lock_once, make_lock);
    pthread_mutex_lock(&the_lock);
}

void emu_unlock(void) {
    pthread_mutex_unlock(&the_lock);
}

struct emu_device *emu_current_device(void) {
    return current_device;
}

CUresult emu_sticky_error(void) {
    return emu_state.sticky;
}

CUresult emu_leave(CUresult result) {
    if (result == CUDA_SUCCESS && emu_state.sticky != CUDA_SUCCESS) result = emu_state.sticky;
    emu_unlock();
    return result;
}

CUresult emu_enter(bool needs_context) {
    emu_lock();
    emu_note_call();
    CUresult result = emu_state.sticky;
    if (!emu_state.ready)
        result = CUDA_ERROR_NOT_INITIALIZED;
    else if (emu_state.in_host_function)
        result = CUDA_ERROR_NOT_PERMITTED;
    else if (needs_context && current_device == NULL)
        result = CUDA_ERROR_INVALID_CONTEXT;
    if (emu_state.in_host_function) emu_report(NULL, "a function given to cuLaunchHostFunc calls the driver");
    if (result != CUDA_SUCCESS) emu_unlock();
    return result;
}

CUresult cuInit(unsigned int flags) {
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    emu_lock();
    if (!emu_state.ready) {
        emu_state.n_device = emu_options()->devices;
        for (int32_t i = 0; i < EMU_MAX_DEVICES; i++) emu_state.device[i].index = i;
        emu_install_fault_handler();
        emu_watch_exit();
        emu_state.ready = true;
    }
    emu_unlock();
    return emu_state.n_device == 0 ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version) {
    if (version == NULL) return CUDA_ERROR_INVALID_VALUE;
    *version = emu_options()->driver;
    return CUDA_SUCCESS;
}

/* ---- errors ---- */

static const struct {
    CUresult code;
    const char *name, *text;
} errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
#define ROW(code, text)                                                                                                \
    { code, #code, text }
    ROW(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    ROW(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    ROW(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    ROW(CUDA_ERROR_DEVICE_UNAVAILABLE, "CUDA-capable device(s) is/are busy or unavailable"),
    ROW(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    ROW(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    ROW(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    ROW(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    ROW(CUDA_ERROR_MAP_FAILED, "mapping of buffer object failed"),
    ROW(CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"),
    ROW(CUDA_ERROR_INVALID_PTX, "a PTX JIT compilation failed"),
    ROW(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, "peer access is not supported between these two devices"),
    ROW(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "the provided PTX was compiled with an unsupported toolchain."),
    ROW(CUDA_ERROR_ECC_UNCORRECTABLE, "uncorrectable ECC error encountered"),
    ROW(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    ROW(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
    ROW(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    ROW(CUDA_ERROR_NOT_READY, "device not ready"),
    ROW(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    ROW(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
    ROW(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, "peer access is already enabled"),
    ROW(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, "peer access has not been enabled"),
    ROW(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part or all of the requested memory range is already mapped"),
    ROW(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "pointer does not correspond to a registered memory region"),
    ROW(CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned address"),
    ROW(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    ROW(CUDA_ERROR_NOT_PERMITTED, "operation not permitted"),
    ROW(CUDA_ERROR_NOT_SUPPORTED, "operation not supported"),
    ROW(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"),
    ROW(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"),
    ROW(CUDA_ERROR_STREAM_CAPTURE_MERGE, "operation would result in a merge of separate capture sequences"),
    ROW(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "capture was not ended in the same stream as it began"),
    ROW(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "capturing stream has unjoined work"),
    ROW(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "dependency created on uncaptured work in another stream"),
    ROW(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "operation would make the legacy stream depend on a capturing stream"),
    ROW(CUDA_ERROR_CAPTURED_EVENT, "operation not permitted on an event last recorded in a capturing stream"),
    ROW(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, "the graph update was not performed"),
    ROW(CUDA_ERROR_UNKNOWN, "unknown error"),
#undef ROW
};

CUresult cuGetErrorName(CUresult code, const char **name) {
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].code == code) {
            *name = errors[i].name;
            return CUDA_SUCCESS;
        }
    *name = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult code, const char **text) {
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].code == code) {
            *text = errors[i].text;
            return CUDA_SUCCESS;
        }
    *text = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

/* ---- devices ---- */

static struct emu_device *find_device(CUdevice device) {
    return device >= 0 && device < emu_state.n_device ? &emu_state.device[device] : NULL;
}

CUresult cuDeviceGetCount(int *n) {
    CUresult result = emu_enter(false);
    if (result != CUDA_SUCCESS) return result;
    if (n == NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *n = emu_state.n_device;
    return emu_leave(CUDA_SUCCESS);
}

/* Enters and checks device and output pointer, as all the device questions do. */
static CUresult enter_device(CUdevice device, const void *out) {
    CUresult result = emu_enter(false);
    if (result != CUDA_SUCCESS) return result;
    if (find_device(device) == NULL) return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    return out == NULL ? emu_leave(CUDA_ERROR_INVALID_VALUE) : CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    const CUresult result = enter_device(ordinal, device);
    if (result != CUDA_SUCCESS) return result;
    *device = ordinal;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDeviceGetName(char *name, int n, CUdevice device) {
    const CUresult result = enter_device(device, name);
    if (result != CUDA_SUCCESS) return result;
    if (n > 0)
        snprintf(name, (size_t)n, "Emulated GPU (PTX interpreter, cc %d.%d)", emu_options()->cc / 10,
                 emu_options()->cc % 10);
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDeviceTotalMem_v2(size_t *size, CUdevice device) {
    const CUresult result = enter_device(device, size);
    if (result != CUDA_SUCCESS) return result;
    *size = emu_options()->memory;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    const CUresult result = enter_device(device, uuid);
    if (result != CUDA_SUCCESS) return result;
    memset(uuid, 0, sizeof *uuid);
    memcpy(uuid->bytes, "emulated-gpu", 12);
    uuid->bytes[15] = (char)device;
    return emu_leave(CUDA_SUCCESS);
}

static uint32_t bus_of(CUdevice device) {
    return emu_options()->mig ? 1 : (uint32_t)device + 1;
}

CUresult cuDeviceGetPCIBusId(char *id, int n, CUdevice device) {
    const CUresult result = enter_device(device, id);
    if (result != CUDA_SUCCESS) return result;
    if (n > 0) snprintf(id, (size_t)n, "0000:%02X:00.0", bus_of(device));
    return emu_leave(CUDA_SUCCESS);
}

#undef cuDeviceGetUuid
CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device);
EMU_API CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
    return cuDeviceGetUuid_v2(uuid, device);
}

static const struct {
    CUdevice_attribute which;
    int ampere, hopper;
} attributes[] = {
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK,                1024,       1024      },
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X,                      1024,       1024      },
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y,                      1024,       1024      },
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z,                      64,         64        },
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X,                       2147483647, 2147483647},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y,                       65535,      65535     },
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z,                       65535,      65535     },
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK,          49152,      49152     },
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,    166912,     232448    },
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 167936,     233472    },
    {CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK,     1024,       1024      },
    {CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY,                65536,      65536     },
    {CU_DEVICE_ATTRIBUTE_WARP_SIZE,                            32,         32        },
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK,              65536,      65536     },
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR,     65536,      65536     },
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR,       2048,       2048      },
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR,        32,         32        },
    {CU_DEVICE_ATTRIBUTE_CLOCK_RATE,                           1410000,    1980000   },
    {CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE,                    1215000,    2619000   },
    {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH,              5120,       5120      },
    {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE,                        41943040,   52428800  },
    {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,                 108,        132       },
    {CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT,                    512,        512       },
    {CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT,                   3,          3         },
    {CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS,                   1,          1         },
    {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING,                   1,          1         },
    {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY,                  1,          1         },
    {CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED,          1,          1         },
    {CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH,                   0,          0         },
    {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED,               1,          1         },
    {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY,                       0,          0         },
    {CU_DEVICE_ATTRIBUTE_ECC_ENABLED,                          1,          1         },
    {CU_DEVICE_ATTRIBUTE_COMPUTE_MODE,                         0,          0         },
    {CU_DEVICE_ATTRIBUTE_INTEGRATED,                           0,          0         },
    {CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH,                       0,          1         },
    {CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED,          0,          1         },
    {CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED,                  0,          0         },
    {CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID,                        0,          0         },
    {CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID,                        0,          0         },
};

/* Where an L40S is not like an A100. */
static const struct {
    CUdevice_attribute which;
    int value;
} ada[] = {
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,    101376  },
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 102400  },
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR,       1536    },
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR,        24      },
    {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,                 142     },
    {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE,                        96 << 20},
};

int emu_device_attribute(CUdevice_attribute which, int device, bool *known) {
    const int cc = emu_options()->cc;
    *known = true;
    if (which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) return cc / 10;
    if (which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) return cc % 10;
    if (which == CU_DEVICE_ATTRIBUTE_PCI_BUS_ID) return (int)bus_of(device);
    for (size_t i = 0; cc == 89 && i < sizeof ada / sizeof ada[0]; i++)
        if (ada[i].which == which) return ada[i].value;
    for (size_t i = 0; i < sizeof attributes / sizeof attributes[0]; i++)
        if (attributes[i].which == which) return cc >= 90 ? attributes[i].hopper : attributes[i].ampere;
    *known = false;
    return 0;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice device) {
    const CUresult result = enter_device(device, value);
    if (result != CUDA_SUCCESS) return result;
    bool known = false;
    *value = emu_device_attribute(which, device, &known);
    if (!known) fprintf(stderr, "emu: device attribute %d is not in the emulator's table\n", (int)which);
    return emu_leave(known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

/* ---- contexts: only primary ones; a CUcontext is the device ---- */

static struct emu_device *context_device(CUcontext context) {
    for (int32_t i = 0; i < emu_state.n_device; i++)
        if (context == (CUcontext)&emu_state.device[i]) return &emu_state.device[i];
    return NULL;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    const CUresult result = enter_device(device, context);
    if (result != CUDA_SUCCESS) return result;
    if (emu_options()->busy) return emu_leave(CUDA_ERROR_DEVICE_UNAVAILABLE);
    emu_state.device[device].retained++;
    *context = (CUcontext)&emu_state.device[device];
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    const CUresult result = enter_device(device, &device);
    if (result != CUDA_SUCCESS) return result;
    struct emu_device *d = &emu_state.device[device];
    if (d->retained == 0) return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    if (--d->retained > 0) return emu_leave(CUDA_SUCCESS);
    const int32_t n_leaks = emu_list_leaks(device);
    if (n_leaks > 0 && emu_options()->leaks)
        emu_report(NULL, "%d allocations are alive when the context of device %d is released", n_leaks, device);
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active) {
    const CUresult result = enter_device(device, active);
    if (result != CUDA_SUCCESS) return result;
    if (flags != NULL) *flags = 0;
    *active = emu_state.device[device].retained > 0;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuCtxSetCurrent(CUcontext context) {
    CUresult result = emu_enter(false);
    if (result != CUDA_SUCCESS) return result;
    struct emu_device *device = context_device(context);
    if (context != NULL && (device == NULL || device->retained == 0)) return emu_leave(CUDA_ERROR_INVALID_CONTEXT);
    current_device = device;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetCurrent(CUcontext *context) {
    CUresult result = emu_enter(false);
    if (result != CUDA_SUCCESS) return result;
    if (context == NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *context = (CUcontext)current_device;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuCtxGetDevice(CUdevice *device) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (device == NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *device = current_device->index;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuCtxSynchronize(void) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = emu_capture_forbids();
    return emu_leave(result == CUDA_SUCCESS ? emu_drain_device(current_device) : result);
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (least != NULL) *least = 0;
    if (greatest != NULL) *greatest = -5;
    return emu_leave(CUDA_SUCCESS);
}

/* ---- peers ---- */

CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
    const CUresult result = enter_device(device, can);
    if (result != CUDA_SUCCESS) return result;
    if (find_device(peer) == NULL) return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    *can = device != peer && emu_options()->peer;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuCtxEnablePeerAccess(CUcontext context, unsigned int flags) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    const struct emu_device *peer = context_device(context);
    if (flags != 0) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (peer == NULL || peer == current_device) return emu_leave(CUDA_ERROR_INVALID_DEVICE);
    if (!emu_options()->peer) return emu_leave(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
    if (current_device->peer[peer->index]) return emu_leave(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
    current_device->peer[peer->index] = true;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuCtxDisablePeerAccess(CUcontext context) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    const struct emu_device *peer = context_device(context);
    if (peer == NULL || !current_device->peer[peer->index]) return emu_leave(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
    current_device->peer[peer->index] = false;
    return emu_leave(CUDA_SUCCESS);
}
