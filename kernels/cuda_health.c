#include "cuda_health.h"

#include "gpu_api.h"
#include <stdio.h>

static void keep_error(char *to) {
    (void)snprintf(to, NT_CUDA_HEALTH_TEXT, "%.*s", NT_CUDA_HEALTH_TEXT - 1, nt_error_last()->text);
    nt_error_clear();
}

/* -1 where NVML does not say. */
static int32_t known(int status, unsigned value) {
    return status == 0 ? (int32_t)value : -1;
}

static void read_device(const struct nt_gpu_nvml *nvml, void *device, struct nt_cuda_health *out) {
    unsigned value = 0;
    int st = nvml->nvmlDeviceGetClockInfo(device, NT_NVML_CLOCK_SM, &value);
    out->sm_mhz = known(st, value);
    st = nvml->nvmlDeviceGetMaxClockInfo(device, NT_NVML_CLOCK_SM, &value);
    out->sm_max_mhz = known(st, value);
    st = nvml->nvmlDeviceGetClockInfo(device, NT_NVML_CLOCK_MEM, &value);
    out->mem_mhz = known(st, value);
    st = nvml->nvmlDeviceGetMaxClockInfo(device, NT_NVML_CLOCK_MEM, &value);
    out->mem_max_mhz = known(st, value);
    st = nvml->nvmlDeviceGetTemperature(device, NT_NVML_TEMPERATURE_GPU, &value);
    out->celsius = known(st, value);
    st = nvml->nvmlDeviceGetPowerUsage(device, &value);
    out->watt = st == 0 ? value / 1000.0 : -1;
    unsigned long long reasons = 0;
    if (nvml->nvmlDeviceGetCurrentClocksThrottleReasons(device, &reasons) == 0) out->throttle = reasons;
}

void nt_cuda_health_read(const char *bus, struct nt_cuda_health *out) {
    struct nt_gpu_nvml nvml;
    void *device = NULL;
    *out = (struct nt_cuda_health){-1, -1, -1, -1, -1, .watt = -1};
    if (nt_gpu_nvml_open(&nvml) != NT_OK) {
        keep_error(out->absent);
        return;
    }
    int st = nvml.nvmlInit_v2();
    if (st != 0) {
        (void)snprintf(out->absent, sizeof out->absent, "NVML does not start: %s", nvml.nvmlErrorString(st));
        return;
    }
    if (nvml.nvmlSystemGetDriverVersion(out->driver, sizeof out->driver) != 0) out->driver[0] = '\0';
    st = nvml.nvmlDeviceGetHandleByPciBusId_v2(bus, &device);
    if (st == 0)
        read_device(&nvml, device, out);
    else
        (void)snprintf(out->absent, sizeof out->absent, "NVML does not know device %s: %s", bus,
                       nvml.nvmlErrorString(st));
    (void)nvml.nvmlShutdown();
}

/* NVML API reference, nvmlClocksEventReasons. */
void nt_cuda_throttle_text(uint64_t reasons, struct nt_strbuf *out) {
    static const struct {
        uint64_t bit;
        const char *name;
    } names[] = {
        {0x1,   "idle"              },
        {0x2,   "application clocks"},
        {0x4,   "power cap"         },
        {0x8,   "hardware slowdown" },
        {0x10,  "sync boost"        },
        {0x20,  "thermal (software)"},
        {0x40,  "thermal (hardware)"},
        {0x80,  "power brake"       },
        {0x100, "display clocks"    },
    };
    const char *comma = "";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!(reasons & names[i].bit)) continue;
        nt_strbuf_addf(out, "%s%s", comma, names[i].name);
        comma = ", ";
        reasons &= ~names[i].bit;
    }
    if (reasons)
        nt_strbuf_addf(out, "%s0x%llx", comma, (unsigned long long)reasons);
    else if (!*comma)
        nt_strbuf_adds(out, "none");
}

int32_t nt_cuda_nccl_version(char why[NT_CUDA_HEALTH_TEXT]) {
    struct nt_gpu_nccl nccl;
    int version = 0;
    why[0] = '\0';
    if (nt_gpu_nccl_open(&nccl) != NT_OK) {
        keep_error(why);
        return 0;
    }
    if (nccl.ncclGetVersion(&version) == NT_NCCL_OK) return version;
    (void)snprintf(why, NT_CUDA_HEALTH_TEXT, "%s does not tell its version", nccl.library);
    return 0;
}
