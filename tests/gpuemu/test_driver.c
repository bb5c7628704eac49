/* Devices, contexts, memory, copies and their checks: everything of the driver that needs no kernel. */
#include <fcntl.h>

#include "test_emu.h"

/* ---- start ---- */

static void nothing_works_before_init(void) {
    int n = 0;
    CUdeviceptr p = 0;
    CHECK(cuDeviceGetCount(&n) == CUDA_ERROR_NOT_INITIALIZED);
    OK(cuInit(0));
    OK(cuDeviceGetCount(&n));
    CHECK(n == 1);
    CHECK(cuMemAlloc(&p, 4) == CUDA_ERROR_INVALID_CONTEXT);
    CHECK(cuDeviceGet(&n, 1) == CUDA_ERROR_INVALID_DEVICE);
}

static void no_device(void) {
    CHECK(cuInit(0) == CUDA_ERROR_NO_DEVICE);
}

static int attribute(CUdevice_attribute which) {
    int value = -1;
    OK(cuDeviceGetAttribute(&value, which, 0));
    return value;
}

static void facts_of_an_a100(void) {
    char text[64];
    int version = 0;
    start();
    CHECK(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) == 8);
    CHECK(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT) == 108);
    CHECK(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN) == 163 * 1024);
    OK(cuDeviceGetName(text, sizeof text, 0));
    CHECK(strstr(text, "Emulated") != NULL);
    OK(cuDeviceGetPCIBusId(text, sizeof text, 0));
    CHECK(strcmp(text, "0000:01:00.0") == 0);
    OK(cuDriverGetVersion(&version));
    CHECK(version >= 12000);
}

static void facts_of_an_h100(void) {
    start();
    CHECK(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) == 9);
    CHECK(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN) == 227 * 1024);
}

static void errors_have_names(void) {
    const char *text = NULL;
    OK(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
    CHECK(strcmp(text, "CUDA_ERROR_ILLEGAL_ADDRESS") == 0);
    OK(cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &text));
    CHECK(strcmp(text, "out of memory") == 0);
    CHECK(cuGetErrorName((CUresult)123456, &text) == CUDA_ERROR_INVALID_VALUE);
}

static void an_exclusive_device_is_refused(void) {
    CUcontext context = NULL;
    OK(cuInit(0));
    CHECK(cuDevicePrimaryCtxRetain(&context, 0) == CUDA_ERROR_DEVICE_UNAVAILABLE);
}

static void unknown_options_end_the_process(void) {
    cuInit(0);
}

static void versioned_names(void) {
    void *function = NULL;
    CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SUCCESS;
    OK(cuGetProcAddress("cuMemAlloc", &function, 12000, 0, &status));
    CHECK(function == (void *)cuMemAlloc);
    CHECK(cuGetProcAddress("cuNoSuchCall", &function, 12000, 0, &status) == CUDA_ERROR_NOT_FOUND);
    CHECK(status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
}

/* ---- memory ---- */

static void memory_is_counted(void) {
    size_t all = 0, total = 0, left = 0;
    CUdeviceptr p = 0;
    start();
    OK(cuMemGetInfo(&all, &total));
    CHECK(all == total && total == 1 << 20);
    OK(cuMemAlloc(&p, 1 << 19));
    OK(cuMemGetInfo(&left, &total));
    CHECK(left == all - (1 << 19));
    CHECK(cuMemAlloc(&p, (1 << 19) + 1) == CUDA_ERROR_OUT_OF_MEMORY);
}

static void memory_is_nan_until_written(void) {
    uint8_t byte[5];
    start();
    const CUdeviceptr p = device_bytes(5);
    CHECK(p % 256 == 0);
    OK(cuMemcpyDtoH(byte, p, 5));
    for (int i = 0; i < 5; i++) CHECK(byte[i] == 0xFF);
}

static void attributes_of_pointers(void) {
    start();
    const CUdeviceptr p = device_bytes(100);
    void *host = pinned_bytes(100);
    unsigned type = 0;
    CUdeviceptr base = 0, mapped = 0;
    OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p + 99));
    CHECK(type == CU_MEMORYTYPE_DEVICE);
    OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)(uintptr_t)host));
    CHECK(type == CU_MEMORYTYPE_HOST);
    OK(cuPointerGetAttribute(&base, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, p + 50));
    CHECK(base == p);
    CHECK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p + 100) == CUDA_ERROR_INVALID_VALUE);
    OK(cuMemHostGetDevicePointer(&mapped, host, 0));
    CHECK(mapped == (CUdeviceptr)(uintptr_t)host);
}

static void copies_of_all_kinds(void) {
    uint32_t out[4] = {0}, in[4] = {1, 2, 3, 4};
    start();
    CUstream stream = new_stream();
    const CUdeviceptr p = device_bytes(16), q = device_bytes(16);
    OK(cuMemcpyHtoD(p, in, 16));
    OK(cuMemcpyAsync(q, p, 16, stream));
    OK(cuMemsetD16Async(q, 0x0102, 2, stream));
    OK(cuMemsetD8Async(q + 4, 7, 4, stream));
    OK(cuMemcpyDtoHAsync(out, q, 16, stream)); // pageable: there when the call returns
    CHECK(out[0] == 0x01020102 && out[1] == 0x07070707 && out[2] == 3 && out[3] == 4);
    CHECK(cuMemsetD32Async(p + 2, 0, 1, stream) == CUDA_ERROR_INVALID_VALUE);
}

static void rows_of_a_matrix(void) {
    uint8_t in[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, out[4] = {0};
    start();
    CUstream stream = new_stream();
    const CUdeviceptr p = device_bytes(4);
    const CUDA_MEMCPY2D copy = {.srcMemoryType = CU_MEMORYTYPE_HOST,
                                .srcHost = in,
                                .srcPitch = 4,
                                .srcXInBytes = 1,
                                .srcY = 1,
                                .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                                .dstDevice = p,
                                .dstPitch = 2,
                                .WidthInBytes = 2,
                                .Height = 2};
    OK(cuMemcpy2DAsync(&copy, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH(out, p, 4));
    CHECK(out[0] == 5 && out[1] == 6 && out[2] == 9 && out[3] == 10);
}

/* ---- what must be found ---- */

static void a_copy_past_the_end(void) {
    uint8_t in[104] = {0};
    start();
    const CUdeviceptr p = device_bytes(100);
    CHECK(cuMemcpyHtoD(p, in, 104) != CUDA_SUCCESS);
    CHECK(strstr(emu_report_text(0), "4 bytes (its last byte) past the end of an allocation of 100 bytes") != NULL);
    CHECK(reported("made by cuMemAlloc #1"));
}

static void a_copy_after_free(void) {
    uint8_t out[4];
    start();
    const CUdeviceptr p = device_bytes(100);
    OK(cuMemFree(p));
    CHECK(cuMemFree(p) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuMemcpyDtoH(out, p, 4) != CUDA_SUCCESS);
    CHECK(reported("freed"));
}

static void freed_while_work_is_queued(void) {
    start();
    CUstream stream = new_stream();
    const CUdeviceptr p = device_bytes(100);
    OK(cuMemsetD8Async(p, 1, 100, stream));
    OK(cuMemFree(p));
    CHECK(cuStreamSynchronize(stream) != CUDA_SUCCESS);
    CHECK(reported("freed"));
}

static void freed_in_stream_order(void) {
    CUdeviceptr p = 0;
    start();
    CUstream stream = new_stream();
    OK(cuMemAllocAsync(&p, 100, stream));
    OK(cuMemsetD8Async(p, 1, 100, stream));
    OK(cuMemFreeAsync(p, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuMemsetD8Async(p, 1, 100, stream));
    CHECK(cuStreamSynchronize(stream) != CUDA_SUCCESS);
    CHECK(reported("freed"));
}

static void errors_stay(void) {
    uint8_t out[4];
    CUdeviceptr q = 0;
    start();
    const CUdeviceptr p = device_bytes(100);
    CHECK(cuMemcpyDtoH(out, p + 100, 4) != CUDA_SUCCESS);
    CHECK(cuMemAlloc(&q, 4) == CUDA_ERROR_LAUNCH_FAILED);
    emu_report_clear();
    OK(cuMemAlloc(&q, 4));
}

static void reports_change_the_exit_status(void) {
    uint8_t out[4];
    start();
    CHECK(cuMemcpyDtoH(out, 1 << 20, 4) != CUDA_SUCCESS);
}

static void leaks_are_listed(void) {
    start();
    device_bytes(100);
    cuDevicePrimaryCtxRelease(0);
    CHECK(reported("1 allocations are alive"));
}

static void nothing_leaks(void) {
    start();
    const CUdeviceptr p = device_bytes(100);
    OK(cuMemFree(p));
    OK(cuDevicePrimaryCtxRelease(0));
}

static void host_code_touches_device_memory(void) {
    start();
    const CUdeviceptr p = device_bytes(100);
    OK(cuMemsetD8(p, 1, 100));
    *(volatile uint8_t *)(uintptr_t)p = 2;
}

static void host_code_reads_past_pinned_memory(void) {
    start();
    volatile uint8_t *p = pinned_bytes(4096);
    p[4095] = 1;
    p[4096] = 1;
}

/* ---- several devices ---- */

static void peers_need_permission(void) {
    CUcontext first = start(), second = NULL;
    int can = 0;
    uint32_t value = 9;
    OK(cuDevicePrimaryCtxRetain(&second, 1));
    OK(cuDeviceCanAccessPeer(&can, 0, 1));
    CHECK(can == 1);
    const CUdeviceptr p = device_bytes(4);
    OK(cuCtxSetCurrent(second));
    const CUdeviceptr q = device_bytes(4);
    CUstream stream = new_stream();
    OK(cuMemcpyDtoDAsync(q, p, 4, stream));
    CHECK(cuStreamSynchronize(stream) != CUDA_SUCCESS);
    CHECK(reported("without cuCtxEnablePeerAccess"));
    OK(cuCtxEnablePeerAccess(first, 0));
    CHECK(cuCtxEnablePeerAccess(first, 0) == CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
    OK(cuMemsetD32Async(p, 3, 1, stream));
    OK(cuMemcpyDtoDAsync(q, p, 4, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH(&value, q, 4));
    CHECK(value == 3);
}

/* The parent maps the child's allocation and writes into it. */
static void another_process(void) {
    int to_child[2], to_parent[2];
    CUipcMemHandle handle;
    char done = 0;
    CHECK(pipe(to_child) == 0 && pipe(to_parent) == 0);
    if (fork() == 0) {
        start();
        uint32_t value = 0;
        const CUdeviceptr p = device_bytes(20);
        OK(cuIpcGetMemHandle(&handle, p));
        CHECK(write(to_parent[1], &handle, sizeof handle) == (ssize_t)sizeof handle);
        CHECK(read(to_child[0], &done, 1) == 1);
        OK(cuMemcpyDtoH(&value, p + 16, 4));
        _exit(value == 77 ? 0 : 1);
    }
    start();
    CUdeviceptr p = 0;
    int status = 0;
    CHECK(read(to_parent[0], &handle, sizeof handle) == (ssize_t)sizeof handle);
    OK(cuIpcOpenMemHandle(&p, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    OK(cuMemsetD32(p + 16, 77, 1));
    CHECK(write(to_child[1], "x", 1) == 1);
    CHECK(wait(&status) > 0 && status == 0);
    CHECK(cuMemsetD32(p + 20, 77, 1) != CUDA_SUCCESS);
    CHECK(reported("another process's allocation of 20 bytes"));
    OK(cuIpcCloseMemHandle(p));
}

/* ---- tensor maps ---- */

static CUresult encode(uint32_t box, CUtensorMapSwizzle swizzle) {
    static CUtensorMap map; // its type asks for 64 bytes of alignment
    const CUdeviceptr p = device_bytes(64 * 64 * 2);
    const cuuint64_t dim[2] = {64, 64}, stride[1] = {128};
    const cuuint32_t boxes[2] = {box, 64}, steps[2] = {1, 1};
    return cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)(uintptr_t)p, dim, stride, boxes,
                                  steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

static void tensor_maps_are_checked(void) {
    start();
    OK(encode(64, CU_TENSOR_MAP_SWIZZLE_128B));
    CHECK(encode(64, CU_TENSOR_MAP_SWIZZLE_64B) == CUDA_ERROR_INVALID_VALUE);
    CHECK(encode(12, CU_TENSOR_MAP_SWIZZLE_NONE) == CUDA_ERROR_INVALID_VALUE);
    CHECK(encode(512, CU_TENSOR_MAP_SWIZZLE_NONE) == CUDA_ERROR_INVALID_VALUE);
}

static void tensor_maps_need_an_h100(void) {
    start();
    CHECK(encode(64, CU_TENSOR_MAP_SWIZZLE_128B) == CUDA_ERROR_NOT_SUPPORTED);
}

static const struct row rows[] = {
    ROW("cc=80", nothing_works_before_init),
    ROW("devices=0", no_device),
    ROW("cc=80", facts_of_an_a100),
    ROW("cc=90", facts_of_an_h100),
    ROW("cc=80", errors_have_names),
    ROW("busy=1", an_exclusive_device_is_refused),
    ROW_EXIT("colour=red", unknown_options_end_the_process, 2),
    ROW_EXIT("order=sideways", unknown_options_end_the_process, 2),
    ROW_EXIT("devices=99", unknown_options_end_the_process, 2),
    ROW("cc=80", versioned_names),
    ROW("memory=0x100000", memory_is_counted),
    ROW("cc=80", memory_is_nan_until_written),
    ROW("cc=80", attributes_of_pointers),
    ROW("streams=late", copies_of_all_kinds),
    ROW("streams=random", copies_of_all_kinds),
    ROW("streams=late", rows_of_a_matrix),
    ROW("cc=80", a_copy_past_the_end),
    ROW("cc=80", a_copy_after_free),
    ROW("streams=late,freesync=0", freed_while_work_is_queued),
    ROW("streams=late", freed_in_stream_order),
    ROW("cc=80", errors_stay),
    ROW_EXIT("cc=80", reports_change_the_exit_status, 86),
    ROW_EXIT("exitcode=33", reports_change_the_exit_status, 33),
    ROW("leaks=1", leaks_are_listed),
    ROW("leaks=1", nothing_leaks),
    ROW_EXIT("hostguard=1", host_code_touches_device_memory, 86),
    ROW("hostguard=0", host_code_touches_device_memory),
    ROW("hostguard=1", copies_of_all_kinds),
    ROW_EXIT("cc=80", host_code_reads_past_pinned_memory, 86),
    ROW("devices=2", peers_need_permission),
    ROW("cc=80", another_process),
    ROW("cc=90", tensor_maps_are_checked),
    ROW("cc=80", tensor_maps_need_an_h100),
};

int main(void) {
    return run_rows(rows, sizeof rows / sizeof rows[0]);
}
