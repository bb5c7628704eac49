/* Copies and fills: checked when they run, staged when their source is pageable, late when it is pinned. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "emu.h"
#include "driver.h"

static bool side_ok(const char *what, int32_t device, uint64_t base, size_t pitch, const struct emu_copy *copy) {
    for (size_t row = 0; row < copy->n_row; row++)
        if (!emu_range_ok(what, device, base + row * pitch, copy->width)) return false;
    return true;
}

static bool ordinary_host(uint64_t address, size_t size) {
    return !emu_is_pinned((const void *)(uintptr_t)address, size);
}

CUresult emu_run_copy(const struct emu_copy *copy, int32_t device) {
    const uint64_t from = copy->staged != NULL ? (uint64_t)(uintptr_t)copy->staged : copy->from;
    const size_t from_pitch = copy->staged != NULL ? copy->width : copy->from_pitch;
    if (!copy->from_host && !side_ok("copy source", device, copy->from, copy->from_pitch, copy))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    if (!copy->to_host && !side_ok("copy destination", device, copy->to, copy->to_pitch, copy))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    for (size_t row = 0; row < copy->n_row; row++) {
        const uint64_t to = copy->to + row * copy->to_pitch, source = from + row * from_pitch;
        memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)source, copy->width);
        if (copy->to_host) continue;
        if (copy->from_host)
            emu_mark_init(to, copy->width);
        else
            emu_copy_init(to, copy->from + row * copy->from_pitch, copy->width);
    }
    return CUDA_SUCCESS;
}

CUresult emu_run_set(const struct emu_set *set, int32_t device) {
    const size_t size = set->n * (size_t)set->unit;
    if (!emu_range_ok("memset", device, set->to, size)) return CUDA_ERROR_ILLEGAL_ADDRESS;
    void *to = (void *)(uintptr_t)set->to;
    for (size_t i = 0; i < set->n; i++) {
        if (set->unit == 4)
            ((uint32_t *)to)[i] = set->value;
        else if (set->unit == 2)
            ((uint16_t *)to)[i] = (uint16_t)set->value;
        else
            ((uint8_t *)to)[i] = (uint8_t)set->value;
    }
    emu_mark_init(set->to, size);
    return CUDA_SUCCESS;
}

/* A pageable source is read now: the driver copies it to its own buffer before the call returns. */
static CUresult stage(struct emu_copy *copy) {
    if (!copy->from_host || !ordinary_host(copy->from, 1)) return CUDA_SUCCESS;
    uint8_t *buffer = malloc(copy->width * copy->n_row + 1);
    if (buffer == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t row = 0; row < copy->n_row; row++)
        memcpy(buffer + row * copy->width, (const uint8_t *)(uintptr_t)copy->from + row * copy->from_pitch,
               copy->width);
    copy->staged = buffer;
    return CUDA_SUCCESS;
}

static CUresult queue_copy(struct emu_copy copy, CUstream stream) {
    if (copy.width == 0 || copy.n_row == 0) return CUDA_SUCCESS;
    const bool captures = emu_stream_captures(stream);
    const CUresult result = captures ? CUDA_SUCCESS : stage(&copy);
    if (result != CUDA_SUCCESS) return result;
    struct emu_op *op = calloc(1, sizeof *op);
    if (op == NULL) {
        free(copy.staged);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *op = (struct emu_op){.kind = EMU_OP_COPY, .copy = copy};
    const CUresult queued = emu_enqueue(stream, op);
    if (queued != CUDA_SUCCESS || captures || !copy.to_host || !ordinary_host(copy.to, 1)) return queued;
    return emu_sync_stream(stream); // to pageable memory the call returns when the data is there
}

static CUresult enter_copy(struct emu_copy copy, CUstream handle) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = emu_check_stream(handle, &stream);
    return emu_leave(result == CUDA_SUCCESS ? queue_copy(copy, stream) : result);
}

static struct emu_copy plain(uint64_t to, uint64_t from, size_t size) {
    return (struct emu_copy){.to = to, .from = from, .width = size, .n_row = 1, .to_pitch = size, .from_pitch = size};
}

static uint64_t host_address(const void *p) {
    return (uint64_t)(uintptr_t)p;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    struct emu_copy copy = plain(to, host_address(from), size);
    copy.from_host = true;
    return enter_copy(copy, stream);
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    struct emu_copy copy = plain(host_address(to), from, size);
    copy.to_host = true;
    return enter_copy(copy, stream);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    return enter_copy(plain(to, from, size), stream);
}

static bool is_host(uint64_t address) {
    const struct emu_alloc *a = emu_find_alloc(address);
    return a == NULL || a->kind == EMU_MEM_HOST || address - a->base >= a->size;
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    struct emu_copy copy = plain(to, from, size);
    emu_lock();
    copy.from_host = is_host(from);
    copy.to_host = is_host(to);
    emu_unlock();
    return enter_copy(copy, stream);
}

CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t size,
                           CUstream stream) {
    (void)to_context;
    (void)from_context;
    return cuMemcpyAsync(to, from, size, stream);
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size) {
    return cuMemcpyHtoDAsync_v2(to, from, size, NULL);
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size) {
    return cuMemcpyDtoHAsync_v2(to, from, size, NULL);
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t size) {
    return cuMemcpyDtoDAsync_v2(to, from, size, NULL);
}

CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t size) {
    return cuMemcpyAsync(to, from, size, NULL);
}

/* One operand of a 2D copy; false when its memory type is not one of ours. */
static bool side(CUmemorytype type, const void *host, CUdeviceptr device, size_t y, size_t x, size_t pitch,
                 uint64_t *address, bool *on_host) {
    if (type != CU_MEMORYTYPE_HOST && type != CU_MEMORYTYPE_DEVICE && type != CU_MEMORYTYPE_UNIFIED) return false;
    *on_host = type == CU_MEMORYTYPE_HOST || (type == CU_MEMORYTYPE_UNIFIED && is_host(device));
    *address = (type == CU_MEMORYTYPE_HOST ? host_address(host) : device) + y * pitch + x;
    return true;
}

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *p, CUstream handle) {
    struct emu_copy copy = {0};
    if (p == NULL) return CUDA_ERROR_INVALID_VALUE;
    copy.width = p->WidthInBytes;
    copy.n_row = p->Height;
    copy.to_pitch = p->dstPitch != 0 ? p->dstPitch : p->WidthInBytes;
    copy.from_pitch = p->srcPitch != 0 ? p->srcPitch : p->WidthInBytes;
    if (p->Height > 1 && (copy.to_pitch < p->WidthInBytes || copy.from_pitch < p->WidthInBytes))
        return CUDA_ERROR_INVALID_VALUE;
    emu_lock();
    const bool ok = side(p->srcMemoryType, p->srcHost, p->srcDevice, p->srcY, p->srcXInBytes, copy.from_pitch,
                         &copy.from, &copy.from_host) &&
                    side(p->dstMemoryType, p->dstHost, p->dstDevice, p->dstY, p->dstXInBytes, copy.to_pitch, &copy.to,
                         &copy.to_host);
    emu_unlock();
    return ok ? enter_copy(copy, handle) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *p) {
    return cuMemcpy2DAsync_v2(p, NULL);
}

static CUresult enter_set(CUdeviceptr to, uint32_t value, int32_t unit, size_t n, CUstream handle) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = to % (unsigned)unit != 0 ? CUDA_ERROR_INVALID_VALUE : emu_check_stream(handle, &stream);
    if (result != CUDA_SUCCESS || n == 0) return emu_leave(result);
    struct emu_op *op = calloc(1, sizeof *op);
    if (op == NULL) return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    *op = (struct emu_op){
        .kind = EMU_OP_SET, .set = {.to = to, .n = n, .value = value, .unit = unit}
    };
    return emu_leave(emu_enqueue(stream, op));
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n, CUstream stream) {
    return enter_set(to, value, 1, n, stream);
}

CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t n, CUstream stream) {
    return enter_set(to, value, 2, n, stream);
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t n, CUstream stream) {
    return enter_set(to, value, 4, n, stream);
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t n) {
    return enter_set(to, value, 1, n, NULL);
}

CUresult cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t n) {
    return enter_set(to, value, 2, n, NULL);
}

CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned int value, size_t n) {
    return enter_set(to, value, 4, n, NULL);
}
