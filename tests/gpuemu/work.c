/* Work that the stand-ins of cuBLASLt and NCCL put into streams. See work.h. */
#include <stdlib.h>

#include "work.h"

#include "driver.h"
#include "emu.h"

int emu_stream_work(CUstream handle, int (*fn)(void *, int), void *arg, void (*drop)(void *)) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) {
        if (drop != NULL) drop(arg);
        return (int)result;
    }
    result = emu_check_stream(handle, &stream);
    struct emu_op *op = result == CUDA_SUCCESS ? calloc(1, sizeof *op) : NULL;
    if (op == NULL) {
        if (drop != NULL) drop(arg);
        return (int)emu_leave(result == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : result);
    }
    *op = (struct emu_op){
        .kind = EMU_OP_WORK, .work = {.fn = fn, .arg = arg, .drop = drop}
    };
    return (int)emu_leave(emu_enqueue(stream, op));
}

void emu_run_when_idle(void) {
    emu_lock();
    emu_start_helper();
    emu_unlock();
}

int emu_work_range(const char *what, const void *address, size_t size, int write) {
    const uint64_t base = (uint64_t)(uintptr_t)address;
    if (!emu_range_ok(what, emu_state.work_device, base, size)) return 0;
    if (write)
        emu_mark_init(base, size);
    else if (emu_options()->uninit && !emu_is_initialised(base, size)) {
        emu_report(NULL, "%s: some of its %zu bytes are uninitialised", what, size);
        return 0;
    }
    return 1;
}

int emu_current_bus(void) {
    if (emu_enter(true) != CUDA_SUCCESS) return 0;
    bool known = false;
    const int bus = emu_device_attribute(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, emu_current_device()->index, &known);
    (void)emu_leave(CUDA_SUCCESS);
    return bus;
}
