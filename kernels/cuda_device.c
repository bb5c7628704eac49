#include "cuda_images.h"
#include "cuda_parts.h"
#include <string.h>

static nt_status attribute(const struct nt_gpu_driver *d, CUdevice device, CUdevice_attribute which, int32_t *out) {
    int value = 0;
    NT_TRY(NT_CU(d, cuDeviceGetAttribute(&value, which, device)));
    *out = value;
    return NT_OK;
}

/* For facts that only reports show: 0 where the driver does not say. */
static int32_t known(const struct nt_gpu_driver *d, CUdevice device, CUdevice_attribute which) {
    int value = 0;
    return d->cuDeviceGetAttribute(&value, which, device) == CUDA_SUCCESS ? value : 0;
}

nt_status nt_cuda_read_facts(const struct nt_gpu_driver *d, int32_t device, struct nt_cuda_facts *out) {
    *out = (struct nt_cuda_facts){.driver = d->version, .toolkit = nt_cuda_toolkit};
    CUdevice dev = 0;
    NT_TRY(NT_CU(d, cuDeviceGet(&dev, device)));
    NT_TRY(NT_CU(d, cuDeviceGetName(out->name, (int)sizeof out->name, dev)));
    out->emulated = strncmp(out->name, "Emulated GPU", strlen("Emulated GPU")) == 0;
    NT_TRY(NT_CU(d, cuDeviceTotalMem(&out->memory, dev)));
    int32_t major = 0, minor = 0;
    NT_TRY(attribute(d, dev, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major));
    NT_TRY(attribute(d, dev, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &minor));
    out->cc = 10 * major + minor;
    NT_TRY(attribute(d, dev, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &out->n_sm));
    NT_TRY(attribute(d, dev, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &out->max_shared));
    out->max_shared_sm = known(d, dev, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR);
    out->l2 = (size_t)known(d, dev, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
    out->clock_khz = known(d, dev, CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
    out->mem_khz = known(d, dev, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
    out->bus_bits = known(d, dev, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
    if (d->cuDeviceGetPCIBusId(out->bus, (int)sizeof out->bus, dev) != CUDA_SUCCESS) out->bus[0] = '\0';
    CUuuid uuid;
    NT_TRY(NT_CU(d, cuDeviceGetUuid(&uuid, dev)));
    memcpy(out->uuid, uuid.bytes, sizeof out->uuid);
    return NT_OK;
}

nt_status nt_cuda_check_facts(const struct nt_cuda_facts *facts, int32_t device) {
    if (facts->cc >= 80) return NT_OK;
    return NT_FAIL(NT_E_UNSUPPORTED,
                   "CUDA device %d (%s) has compute capability %d.%d; 8.0 or newer is needed: older ones have no bf16 "
                   "tensor cores",
                   device, facts->name, facts->cc / 10, facts->cc % 10);
}

static nt_status count_with(const struct nt_gpu_driver *d, int32_t *count) {
    int n = 0;
    NT_TRY(NT_CU(d, cuDeviceGetCount(&n)));
    *count = n;
    return NT_OK;
}

nt_status nt_cuda_device_count(int32_t *count) {
    *count = 0;
    struct nt_gpu_driver *d = NULL;
    NT_TRY(nt_gpu_driver_open(&d));
    const nt_status st = count_with(d, count);
    nt_gpu_driver_free(d);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

nt_status nt_cuda_device_facts(int32_t device, struct nt_cuda_facts *out) {
    struct nt_gpu_driver *d = NULL;
    NT_TRY(nt_gpu_driver_open(&d));
    const nt_status st = nt_cuda_read_facts(d, device, out);
    nt_gpu_driver_free(d);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

nt_status nt_cuda_pick_device(int32_t local_rank, int32_t *out) {
    struct nt_cuda_facts facts;
    *out = 0;
    int32_t count = 0;
    NT_TRY(nt_cuda_device_count(&count));
    *out = local_rank % count;
    NT_TRY(nt_cuda_device_facts(*out, &facts));
    return nt_cuda_check_facts(&facts, *out);
}
