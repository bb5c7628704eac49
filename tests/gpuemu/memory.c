/* Device memory: one arena of address space per device, never reused, backed by a memory file so that other processes
 * can map it (cuIpc*). Each allocation ends at most 255 bytes before a closed page, begins after one, and is filled
 * with 0xFF; the table below knows its exact bounds. Freed memory stays closed for good: use after free faults. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "emu.h"
#include "driver.h"

enum { PAGE = 4096, ALIGNMENT = 256 };
static const size_t ARENA = (size_t)1 << 40; // address space per device; memory is used only where touched

struct arena {
    uint8_t *base;
    size_t used;
    int fd;
};

static struct {
    struct arena arena[EMU_MAX_DEVICES];
    struct emu_alloc **alloc; // sorted by address
    int32_t n, capacity, last_hit;
    int64_t n_made;
    int32_t open_depth;
} mem;

static size_t round_up(size_t n, size_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* ---- the table ---- */

/* Index of the last allocation whose pages begin at or before the address, -1 when none does. */
static int32_t search(uint64_t address) {
    int32_t low = 0, high = mem.n;
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if (mem.alloc[middle]->pages <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1;
}

struct emu_alloc *emu_find_alloc(uint64_t address) {
    const int32_t hit = mem.last_hit;
    if (hit < mem.n && address - mem.alloc[hit]->pages < mem.alloc[hit]->n_pages_bytes) return mem.alloc[hit];
    const int32_t i = search(address);
    if (i < 0 || address - mem.alloc[i]->pages >= mem.alloc[i]->n_pages_bytes + PAGE) return NULL;
    mem.last_hit = i;
    return mem.alloc[i];
}

static struct emu_alloc *add_alloc(const struct emu_alloc *values) {
    if (mem.n == mem.capacity) {
        const int32_t capacity = mem.capacity == 0 ? 256 : mem.capacity * 2;
        struct emu_alloc **grown = realloc(mem.alloc, (size_t)capacity * sizeof *grown);
        if (grown == NULL) return NULL;
        mem.alloc = grown;
        mem.capacity = capacity;
    }
    struct emu_alloc *a = malloc(sizeof *a);
    if (a == NULL) return NULL;
    *a = *values;
    a->number = ++mem.n_made;
    const int32_t at = search(a->pages) + 1;
    memmove(&mem.alloc[at + 1], &mem.alloc[at], (size_t)(mem.n - at) * sizeof(struct emu_alloc *));
    mem.alloc[at] = a;
    mem.n++;
    return a;
}

static void remove_alloc(struct emu_alloc *alloc) {
    for (int32_t i = 0; i < mem.n; i++)
        if (mem.alloc[i] == alloc) {
            memmove(&mem.alloc[i], &mem.alloc[i + 1], (size_t)(mem.n - i - 1) * sizeof(struct emu_alloc *));
            mem.n--;
            break;
        }
    free(alloc);
    mem.last_hit = 0;
}

static const char *kind_name(const struct emu_alloc *a) {
    if (a->freed) return "a freed ";
    if (a->kind == EMU_MEM_HOST) return "a pinned host ";
    if (a->kind == EMU_MEM_PEER) return "another process's ";
    return "an ";
}

void emu_describe_address(uint64_t address, size_t size, char *text, size_t n_text) {
    const struct emu_alloc *a = emu_find_alloc(address);
    if (a == NULL) a = emu_find_alloc(address + PAGE); // the closed page before an allocation
    if (a == NULL) {
        snprintf(text, n_text, "address 0x%" PRIx64 " is in no allocation", address);
        return;
    }
    const uint64_t end = a->base + a->size;
    uint64_t distance = 0;
    const char *where = "inside";
    if (address < a->base) {
        distance = a->base - address;
        where = "before the start of";
    } else if (address >= end) {
        distance = address - end;
        where = "past the end of";
    } else if (address + size > end) {
        distance = address + size - end;
        where = "(its last byte) past the end of";
    } else
        distance = address - a->base;
    snprintf(text, n_text,
             "address 0x%" PRIx64 " is %" PRIu64 " bytes %s %sallocation of %zu bytes made by %s #%" PRId64, address,
             distance, where, kind_name(a), a->size, a->made_by, a->number);
}

/* ---- arenas ---- */

static bool make_arena(struct arena *arena) {
    if (arena->base != NULL) return true;
    arena->fd = memfd_create("emu-device-memory", MFD_CLOEXEC);
    if (arena->fd < 0 || ftruncate(arena->fd, (off_t)ARENA) != 0) return false;
    void *base = mmap(NULL, ARENA, PROT_NONE, MAP_SHARED | MAP_NORESERVE, arena->fd, 0);
    if (base == MAP_FAILED) return false;
    madvise(base, ARENA, MADV_DONTDUMP);
    arena->base = base;
    arena->used = PAGE;
    return true;
}

static bool make_shadow(struct emu_alloc *a) {
    a->shadow = NULL;
    if (!emu_options()->check) return true;
    const size_t n = (a->size / 4 + 2) * sizeof *a->shadow;
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return false;
    a->shadow = p;
    return true;
}

static void drop_shadow(struct emu_alloc *a) {
    if (a->shadow != NULL) munmap(a->shadow, (a->size / 4 + 2) * sizeof *a->shadow);
    a->shadow = NULL;
}

/* NULL: out of memory. */
static struct emu_alloc *allocate(int32_t device, size_t size, enum emu_mem_kind kind, const char *made_by) {
    struct arena *arena = &mem.arena[device];
    const size_t rounded = round_up(size, ALIGNMENT), bytes = round_up(rounded, PAGE);
    if (bytes < size || !make_arena(arena) || bytes + PAGE > ARENA - arena->used) return NULL;
    uint8_t *pages = arena->base + arena->used;
    if (mprotect(pages, bytes, PROT_READ | PROT_WRITE) != 0) return NULL;
    struct emu_alloc a = {.pages = (uint64_t)(uintptr_t)pages,
                          .n_pages_bytes = bytes,
                          .size = size,
                          .device = device,
                          .kind = kind,
                          .made_by = made_by};
    a.base = a.pages + bytes - rounded;
    if (!make_shadow(&a)) return NULL;
    memset(pages, 0xFF, bytes);
    arena->used += bytes + PAGE;
    if (emu_options()->hostguard && mem.open_depth == 0) mprotect(pages, bytes, PROT_NONE);
    return add_alloc(&a);
}

uint64_t emu_alloc_global(int32_t device, size_t size) {
    struct emu_alloc *a = allocate(device, size, EMU_MEM_GLOBAL, "a module variable");
    if (a == NULL) return 0;
    drop_shadow(a);
    return a->base;
}

void emu_free_now(uint64_t base) {
    struct emu_alloc *a = emu_find_alloc(base);
    if (a == NULL || a->freed || a->base != base) return;
    struct arena *arena = &mem.arena[a->device];
    uint8_t *pages = (uint8_t *)(uintptr_t)a->pages;
    mprotect(pages, a->n_pages_bytes, PROT_NONE);
    fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, pages - arena->base, (off_t)a->n_pages_bytes);
    drop_shadow(a);
    a->freed = true;
    if (a->kind == EMU_MEM_DEVICE) emu_state.device[a->device].used -= a->size;
}

static void protect_all(int protection) {
    for (int32_t i = 0; i < mem.n; i++) {
        const struct emu_alloc *a = mem.alloc[i];
        if (a->freed || a->kind == EMU_MEM_HOST) continue;
        mprotect((void *)(uintptr_t)a->pages, a->n_pages_bytes, protection);
    }
}

void emu_memory_open(void) {
    if (mem.open_depth++ == 0 && emu_options()->hostguard) protect_all(PROT_READ | PROT_WRITE);
}

void emu_memory_close(void) {
    if (--mem.open_depth == 0 && emu_options()->hostguard) protect_all(PROT_NONE);
}

bool emu_memory_is_open(void) {
    return mem.open_depth > 0;
}

int32_t emu_list_leaks(int32_t device) {
    int32_t n = 0;
    for (int32_t i = 0; i < mem.n; i++) {
        const struct emu_alloc *a = mem.alloc[i];
        if (a->freed || a->device != device || a->registered || a->kind == EMU_MEM_GLOBAL) continue;
        fprintf(stderr, "emu: leak: %zu bytes made by %s #%" PRId64 "\n", a->size, a->made_by, a->number);
        n++;
    }
    return n;
}

/* ---- what copies need to know ---- */

bool emu_range_ok(const char *what, int32_t device, uint64_t address, size_t size) {
    if (size == 0) return true;
    const struct emu_alloc *a = emu_find_alloc(address);
    char text[256];
    if (a != NULL && !a->freed && address >= a->base && address + size <= a->base + a->size) {
        if (a->kind == EMU_MEM_HOST || a->kind == EMU_MEM_PEER || a->device == device) return true;
        if (emu_state.device[device].peer[a->device]) return true;
        emu_report(NULL, "%s: memory of device %d used on device %d without cuCtxEnablePeerAccess", what, a->device,
                   device);
        return false;
    }
    emu_describe_address(address, size, text, sizeof text);
    emu_report(NULL, "%s of %zu bytes: %s", what, size, text);
    return false;
}

void emu_mark_init(uint64_t address, size_t size) {
    const struct emu_alloc *a = emu_find_alloc(address);
    if (a == NULL || a->shadow == NULL) return;
    const uint64_t first = address - a->base, end = first + size;
    for (uint64_t word = first / 4; word * 4 < end; word++) {
        const uint64_t low = word * 4 < first ? first - word * 4 : 0, high = end - word * 4 < 4 ? end - word * 4 : 4;
        a->shadow[word].init |= (uint8_t)((1u << high) - (1u << low));
        a->shadow[word].w_scope = EMU_SCOPE_SYS; // streams order copies
    }
}

static bool initialised(const struct emu_alloc *a, uint64_t address) {
    if (a == NULL || a->shadow == NULL) return true;
    const uint64_t at = address - a->base;
    return (a->shadow[at / 4].init >> (at % 4) & 1) != 0;
}

bool emu_is_initialised(uint64_t address, size_t size) {
    const struct emu_alloc *a = emu_find_alloc(address);
    for (size_t i = 0; i < size; i++)
        if (!initialised(a, address + i)) return false;
    return true;
}

void emu_copy_init(uint64_t to, uint64_t from, size_t size) {
    const struct emu_alloc *a = emu_find_alloc(to), *b = emu_find_alloc(from);
    if (a == NULL || a->shadow == NULL) return;
    for (size_t i = 0; i < size; i++) {
        const uint64_t at = to + i - a->base;
        const uint8_t bit = (uint8_t)(1u << (at % 4));
        uint8_t *init = &a->shadow[at / 4].init;
        *init = (uint8_t)(initialised(b, from + i) ? *init | bit : *init & ~bit);
        a->shadow[at / 4].w_scope = EMU_SCOPE_SYS;
    }
}

bool emu_is_pinned(const void *host, size_t size) {
    const uint64_t address = (uint64_t)(uintptr_t)host;
    const struct emu_alloc *a = emu_find_alloc(address);
    return a != NULL && a->kind == EMU_MEM_HOST && !a->freed && address >= a->base &&
           address + size <= a->base + a->size;
}

/* ---- exported: device memory ---- */

static CUresult device_alloc(CUdeviceptr *address, size_t size, const char *made_by) {
    if (address == NULL || size == 0) return CUDA_ERROR_INVALID_VALUE;
    struct emu_device *device = emu_current_device();
    if (size > emu_options()->memory || device->used > emu_options()->memory - size) return CUDA_ERROR_OUT_OF_MEMORY;
    const struct emu_alloc *a = allocate(device->index, size, EMU_MEM_DEVICE, made_by);
    if (a == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    device->used += size;
    if (device->used > device->most_used) device->most_used = device->used;
    *address = a->base;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = emu_capture_forbids();
    return emu_leave(result == CUDA_SUCCESS ? device_alloc(address, size, "cuMemAlloc") : result);
}

/* Whether the address is one that cuMemAlloc returned and that may be freed now. */
static CUresult freeable(CUdeviceptr address, enum emu_mem_kind kind, const char *who) {
    const struct emu_alloc *a = emu_find_alloc(address);
    if (a != NULL && a->base == address && a->kind == kind && !a->freed) return CUDA_SUCCESS;
    char text[256];
    emu_describe_address(address, 1, text, sizeof text);
    fprintf(stderr, "emu: %s refused: %s\n", who, text);
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemFree_v2(CUdeviceptr address) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (address == 0) return emu_leave(CUDA_SUCCESS);
    result = emu_capture_forbids();
    if (result == CUDA_SUCCESS) result = freeable(address, EMU_MEM_DEVICE, "cuMemFree");
    if (result == CUDA_SUCCESS && emu_options()->freesync) result = emu_drain_device(emu_current_device());
    if (result == CUDA_SUCCESS) emu_free_now(address);
    return emu_leave(result);
}

CUresult cuMemAllocAsync(CUdeviceptr *address, size_t size, CUstream handle) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = emu_check_stream(handle, &stream);
    if (result == CUDA_SUCCESS && emu_stream_captures(stream)) result = CUDA_ERROR_NOT_SUPPORTED;
    return emu_leave(result == CUDA_SUCCESS ? device_alloc(address, size, "cuMemAllocAsync") : result);
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = emu_check_stream(handle, &stream);
    if (result == CUDA_SUCCESS) result = freeable(address, EMU_MEM_DEVICE, "cuMemFreeAsync");
    struct emu_op *op = result == CUDA_SUCCESS ? calloc(1, sizeof *op) : NULL;
    if (op == NULL) return emu_leave(result == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : result);
    *op = (struct emu_op){.kind = EMU_OP_FREE, .address = address};
    return emu_leave(emu_enqueue(stream, op));
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (free_bytes == NULL || total == NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *total = emu_options()->memory;
    *free_bytes = emu_options()->memory - emu_current_device()->used;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr address) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    const struct emu_alloc *a = emu_find_alloc(address);
    if (a == NULL || a->freed || address - a->base >= a->size) return emu_leave(CUDA_ERROR_NOT_FOUND);
    if (base != NULL) *base = a->base;
    if (size != NULL) *size = a->size;
    return emu_leave(CUDA_SUCCESS);
}

/* ---- exported: pinned host memory ---- */

static CUresult host_alloc(void **host, size_t size, const char *made_by) {
    if (host == NULL || size == 0) return CUDA_ERROR_INVALID_VALUE;
    const size_t bytes = round_up(size, PAGE);
    uint8_t *p = mmap(NULL, bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    mprotect(p + PAGE, bytes, PROT_READ | PROT_WRITE);
    memset(p + PAGE, 0xFF, bytes);
    const struct emu_alloc a = {.pages = (uint64_t)(uintptr_t)(p + PAGE),
                                .n_pages_bytes = bytes,
                                .size = size,
                                .base = (uint64_t)(uintptr_t)(p + PAGE),
                                .device = emu_current_device()->index,
                                .kind = EMU_MEM_HOST,
                                .made_by = made_by};
    if (add_alloc(&a) == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    *host = p + PAGE;
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **host, size_t size, unsigned int flags) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    (void)flags;
    result = emu_capture_forbids();
    return emu_leave(result == CUDA_SUCCESS ? host_alloc(host, size, "cuMemHostAlloc") : result);
}

CUresult cuMemAllocHost_v2(void **host, size_t size) {
    return cuMemHostAlloc(host, size, 0);
}

CUresult cuMemFreeHost(void *host) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = freeable((uint64_t)(uintptr_t)host, EMU_MEM_HOST, "cuMemFreeHost");
    if (result == CUDA_SUCCESS && emu_options()->freesync) result = emu_drain_device(emu_current_device());
    if (result != CUDA_SUCCESS) return emu_leave(result);
    struct emu_alloc *a = emu_find_alloc((uint64_t)(uintptr_t)host);
    if (a->registered) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    mprotect(host, a->n_pages_bytes, PROT_NONE); // kept closed: later use faults and is named
    madvise(host, a->n_pages_bytes, MADV_DONTNEED);
    a->freed = true;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuMemHostRegister_v2(void *host, size_t size, unsigned int flags) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    (void)flags;
    const uint64_t base = (uint64_t)(uintptr_t)host;
    if (host == NULL || size == 0) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    const struct emu_alloc *there = emu_find_alloc(base);
    if (there != NULL && base - there->base < there->size) return emu_leave(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    const struct emu_alloc a = {.pages = base,
                                .n_pages_bytes = size,
                                .size = size,
                                .base = base,
                                .kind = EMU_MEM_HOST,
                                .device = emu_current_device()->index,
                                .registered = true,
                                .made_by = "cuMemHostRegister"};
    return emu_leave(add_alloc(&a) == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS);
}

CUresult cuMemHostUnregister(void *host) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    struct emu_alloc *a = emu_find_alloc((uint64_t)(uintptr_t)host);
    if (a == NULL || !a->registered || a->base != (uint64_t)(uintptr_t)host)
        return emu_leave(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    remove_alloc(a);
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *host, unsigned int flags) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (address == NULL || flags != 0 || !emu_is_pinned(host, 1)) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *address = (CUdeviceptr)(uintptr_t)host;
    return emu_leave(CUDA_SUCCESS);
}

/* ---- exported: pointer attributes ---- */

static CUresult attribute(const struct emu_alloc *a, CUpointer_attribute which, uint64_t address, void *data) {
    if (a == NULL || a->freed || address - a->base >= a->size) return CUDA_ERROR_INVALID_VALUE;
    const bool host = a->kind == EMU_MEM_HOST;
    switch (which) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *(CUcontext *)data = (CUcontext)&emu_state.device[a->device];
        break;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned *)data = host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        break;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(CUdeviceptr *)data = address;
        break;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (!host) return CUDA_ERROR_INVALID_VALUE;
        *(void **)data = (void *)(uintptr_t)address;
        break;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *(unsigned *)data = 0;
        break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = a->device;
        break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)data = a->base;
        break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)data = a->size;
        break;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        *(uint64_t *)data = (uint64_t)a->number;
        break;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *(unsigned *)data = 1;
        break;
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return CUDA_SUCCESS;
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute which, CUdeviceptr address) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (data == NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    return emu_leave(attribute(emu_find_alloc(address), which, address, data));
}

CUresult cuPointerGetAttributes(unsigned int n, CUpointer_attribute *which, void **data, CUdeviceptr address) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (which == NULL || data == NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    for (unsigned i = 0; i < n; i++) { // unknown memory is no error here: its attributes are zero
        const CUresult one = attribute(emu_find_alloc(address), which[i], address, data[i]);
        if (one == CUDA_ERROR_INVALID_VALUE)
            *(unsigned *)data[i] = 0;
        else if (one != CUDA_SUCCESS)
            result = one;
    }
    return emu_leave(result);
}

/* ---- exported: memory of other processes ---- */

struct ipc_handle { // what a CUipcMemHandle holds
    char magic[8];
    int64_t pid, fd, offset, n_pages_bytes, base_offset, size, device;
};
_Static_assert(sizeof(struct ipc_handle) <= sizeof(CUipcMemHandle), "the handle must fit");

CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr address) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    const struct emu_alloc *a = emu_find_alloc(address);
    if (handle == NULL || a == NULL || a->freed || a->kind != EMU_MEM_DEVICE || address - a->base >= a->size)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    const struct arena *arena = &mem.arena[a->device];
    const struct ipc_handle h = {.magic = "emu-ipc",
                                 .pid = getpid(),
                                 .fd = arena->fd,
                                 .device = a->device,
                                 .offset = (int64_t)(a->pages - (uint64_t)(uintptr_t)arena->base),
                                 .n_pages_bytes = (int64_t)a->n_pages_bytes,
                                 .size = (int64_t)a->size,
                                 .base_offset = (int64_t)(a->base - a->pages)};
    memset(handle, 0, sizeof *handle);
    memcpy(handle, &h, sizeof h);
    emu_mark_init(a->base, a->size); // others write it unseen by us
    emu_start_helper();              // who opens it may wait for our kernels
    return emu_leave(CUDA_SUCCESS);
}

static CUresult open_peer(const struct ipc_handle *h, CUdeviceptr *address) {
    if (h->pid == getpid()) return CUDA_ERROR_INVALID_CONTEXT; // as real drivers: not in the exporting process
    char path[64];
    snprintf(path, sizeof path, "/proc/%" PRId64 "/fd/%" PRId64, h->pid, h->fd);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return CUDA_ERROR_MAP_FAILED;
    const size_t bytes = (size_t)h->n_pages_bytes;
    const int shared = emu_options()->peer == 1 ? MAP_SHARED : MAP_PRIVATE;
    uint8_t *hole = mmap(NULL, bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void *p = hole == MAP_FAILED ? MAP_FAILED
                                 : mmap(hole + PAGE, bytes, PROT_READ | PROT_WRITE, shared | MAP_FIXED, fd, h->offset);
    close(fd);
    if (p == MAP_FAILED) return CUDA_ERROR_MAP_FAILED;
    const struct emu_alloc a = {.pages = (uint64_t)(uintptr_t)p,
                                .n_pages_bytes = bytes,
                                .size = (size_t)h->size,
                                .base = (uint64_t)(uintptr_t)p + (uint64_t)h->base_offset,
                                .kind = EMU_MEM_PEER,
                                .device = emu_current_device()->index,
                                .made_by = "cuIpcOpenMemHandle"};
    if (add_alloc(&a) == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = a.base;
    emu_start_helper(); // the peer's kernels may wait for ours
    return CUDA_SUCCESS;
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *address, CUipcMemHandle handle, unsigned int flags) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    struct ipc_handle h;
    memcpy(&h, &handle, sizeof h);
    if (address == NULL || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS || memcmp(h.magic, "emu-ipc", 8) != 0)
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (!emu_options()->peer) return emu_leave(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
    return emu_leave(open_peer(&h, address));
}

CUresult cuIpcCloseMemHandle(CUdeviceptr address) {
    while (!emu_options()->unmap) pause();
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    struct emu_alloc *a = emu_find_alloc(address);
    if (a == NULL || a->kind != EMU_MEM_PEER || a->base != address) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    munmap((uint8_t *)(uintptr_t)a->pages - PAGE, a->n_pages_bytes + 2 * PAGE);
    remove_alloc(a);
    return emu_leave(CUDA_SUCCESS);
}
