/* Clocks, temperature, power and throttling of a device, by NVML where it is there, and the versions of the libraries.
 *
 * A number that cannot be read is -1. Reads take a moment and wait for nothing on the device.
 * Ownership: plain data; NVML is opened and shut again by each call. Threading: any thread.
 * Errors: none; a missing library is a sentence. Source: NVML API reference. */
#ifndef NT_CUDA_HEALTH_H
#define NT_CUDA_HEALTH_H

#include "cuda_backend.h"
#include "strbuf.h"

enum { NT_CUDA_HEALTH_TEXT = 256 };

struct nt_cuda_health {
    int32_t sm_mhz, sm_max_mhz, mem_mhz, mem_max_mhz, celsius;
    double watt;
    uint64_t throttle;                /* NVML's mask of reasons, 0: none */
    char driver[80];                  /* "580.65.06", "" */
    char absent[NT_CUDA_HEALTH_TEXT]; /* why there is nothing to read, or "" */
};
void nt_cuda_health_read(const char *bus, struct nt_cuda_health *out);
/* "power cap, thermal (software)" or "none". */
void nt_cuda_throttle_text(uint64_t reasons, struct nt_strbuf *out);

/* 2.28.9 as 22809; 0 and the reason when absent. */
int32_t nt_cuda_nccl_version(char why[NT_CUDA_HEALTH_TEXT]);

#endif
