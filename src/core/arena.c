#include "arena.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#ifndef ARENA_ASAN
#define ARENA_ASAN 0
#endif

#if ARENA_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(addr, size)   ((void)(addr), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(addr, size) ((void)(addr), (void)(size))
#endif

enum { ALIGN = 64, RED_ZONE = ARENA_ASAN ? 64 : 0, HUGE_PAGE = 2 << 20 };

void nt_arena_init(struct nt_arena *a, const char *name) {
    *a = (struct nt_arena){.name = name};
}

/* Huge pages need a 2 MiB aligned start: map a little more and cut the ends off. */
static void *map_aligned(size_t bytes) {
    size_t padded = 0;
    if (__builtin_add_overflow(bytes, (size_t)HUGE_PAGE, &padded)) return NULL;
    uint8_t *p = mmap(NULL, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t head = (size_t)(-(uintptr_t)p & (uintptr_t)(HUGE_PAGE - 1));
    if (head > 0) (void)munmap(p, head);
    if (padded - head > bytes) (void)munmap(p + head + bytes, padded - head - bytes);
    return p + head;
}

nt_status nt_arena_bind(struct nt_arena *a) {
    NT_CHECK(a->base == NULL);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = a->used > 0 ? a->used : 1;
    if (__builtin_add_overflow(bytes, page - 1, &bytes))
        return NT_FAIL(NT_E_NOMEM, "arena %s: %zu bytes exceed the address space", a->name, a->used);
    bytes &= ~(page - 1);
    bool huge = bytes >= (size_t)HUGE_PAGE;
    void *p = huge ? map_aligned(bytes) : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == NULL || p == MAP_FAILED)
        return NT_FAIL(NT_E_NOMEM,
                       "arena %s: the system refused %.3f GiB (%s); lower model.max_len, generate.max_num_seqs or "
                       "generate.kv_memory_gib, or use more ranks",
                       a->name, (double)bytes / (1 << 30), strerror(errno ? errno : ENOMEM));
    if (huge) (void)madvise(p, bytes, MADV_HUGEPAGE); /* a wish: works without */
    a->base = p;
    a->size = a->used;
    a->map_size = bytes;
    a->used = 0;
    ASAN_POISON_MEMORY_REGION(a->base, a->map_size);
    return NT_OK;
}

nt_status nt_arena_bind_to(struct nt_arena *a, void *memory, size_t bytes) {
    NT_CHECK(a->base == NULL && memory != NULL);
    if (bytes < a->used)
        return NT_FAIL(NT_E_NOMEM, "arena %s: needs %zu bytes, the memory given has %zu", a->name, a->used, bytes);
    if ((uintptr_t)memory % ALIGN != 0)
        return NT_FAIL(NT_E_INTERNAL, "arena %s: the memory given is not aligned to %d bytes", a->name, ALIGN);
    a->base = memory;
    a->size = a->used;
    a->map_size = 0;
    a->used = 0;
    ASAN_POISON_MEMORY_REGION(a->base, a->size);
    return NT_OK;
}

void nt_arena_bind_device(struct nt_arena *a, void *memory, size_t bytes) {
    NT_CHECK(a->base == NULL && memory != NULL && bytes >= a->used && (uintptr_t)memory % ALIGN == 0);
    a->base = memory;
    a->size = a->used;
    a->map_size = 0;
    a->used = 0;
    a->on_device = true;
}

void *nt_arena_take(struct nt_arena *a, size_t count, size_t elem) {
    if (count == 0) return NULL;
    size_t bytes = 0, step = 0, end = 0;
    if (__builtin_mul_overflow(count, elem, &bytes) ||
        __builtin_add_overflow(bytes, (size_t)(ALIGN - 1 + RED_ZONE), &step))
        nt_bug("arena %s: %zu elements of %zu bytes overflow", a->name, count, elem);
    step &= ~(size_t)(ALIGN - 1);
    if (__builtin_add_overflow(a->used, step, &end)) nt_bug("arena %s: its size overflows", a->name);
    size_t at = a->used;
    if (a->base != NULL && end > a->size)
        nt_bug("arena %s: %zu bytes asked at %zu of %zu: the counting pass did not take the same blocks", a->name, step,
               at, a->size);
    a->used = end;
    if (a->base == NULL) return NULL;
    if (!a->on_device) ASAN_UNPOISON_MEMORY_REGION(a->base + at, bytes);
    return a->base + at;
}

void nt_arena_back(struct nt_arena *a, size_t to) {
    NT_CHECK(to <= a->used);
    a->used = to;
}

void nt_arena_raise(struct nt_arena *a, size_t to) {
    NT_CHECK(a->base == NULL || to <= a->size);
    if (a->used < to) a->used = to;
}

void nt_arena_reset(struct nt_arena *a) {
    if (a->base != NULL && !a->on_device) {
        ASAN_UNPOISON_MEMORY_REGION(a->base, a->used);
#ifndef __OPTIMIZE__
        memset(a->base, 0xFF, a->used); /* floats become NaN: a use after reset shows */
#endif
        ASAN_POISON_MEMORY_REGION(a->base, a->size);
    }
    a->used = 0;
}

void nt_arena_release(struct nt_arena *a) {
    if (a->base != NULL && !a->on_device) ASAN_UNPOISON_MEMORY_REGION(a->base, a->map_size > 0 ? a->map_size : a->size);
    if (a->base != NULL && a->map_size > 0) (void)munmap(a->base, a->map_size);
    const char *name = a->name;
    *a = (struct nt_arena){.name = name};
}
