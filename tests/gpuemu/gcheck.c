/* Global-memory checker: bounds, lifetime, peer access and alignment of every access; reads of uninitialised bytes;
 * races of a block's threads, by the clocks of check.c, with the last write and the last read of a word;
 * and conflicts between blocks of one launch, which nothing orders except atomics: a block that did an atomic after
 * its write, and then a block that did one before its read, may have handed the data over (the last-block pattern).
 * Time is a counter that grows at each launch and each atomic.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "emu.h"

enum { MANY_BLOCKS = UINT32_MAX - 1, N_RECENT = 1 << 16 };

static struct {
    uint32_t time, launch_time;
    uint32_t last_atomic[N_RECENT]; // by block number modulo N_RECENT: when it did its last atomic
} now = {.time = 1};

void emu_check_launch_begin(const struct emu_launch *launch) {
    (void)launch;
    if (now.time > UINT32_MAX / 2) { // so rare that forgetting is fine: old times count as long ago
        now.time = 1;
        memset(now.last_atomic, 0, sizeof now.last_atomic);
    }
    now.launch_time = ++now.time;
}

static uint32_t *last_atomic(uint32_t block) {
    return &now.last_atomic[block % N_RECENT];
}

/* Whether block a, which acted at `then`, may have handed over to block b by atomics on both sides. */
static bool handed_over(uint32_t a, uint32_t then, uint32_t b) {
    if (a == MANY_BLOCKS) return *last_atomic(b) > then;
    return *last_atomic(a) >= then && *last_atomic(a) >= now.launch_time && *last_atomic(b) > then;
}

static bool conflicts(uint32_t other, uint32_t then, uint8_t its_bytes, uint32_t block, uint8_t bytes) {
    return then >= now.launch_time && other != block && (its_bytes & bytes) != 0 && !handed_over(other, then, block);
}

struct access {
    const struct emu_where *where;
    uint64_t address;
    size_t size;
    uint32_t block;
    bool async; // it acts when it lands, which the clocks of its thread say nothing of
};

static void tell(const struct access *a, const char *what, uint64_t word, uint32_t other) {
    char text[256], who[48] = "several blocks";
    if (other != MANY_BLOCKS) snprintf(who, sizeof who, "block number %u", other);
    emu_describe_address(word, 1, text, sizeof text);
    emu_report(a->where, "CONFLICT between blocks of one launch: %s %s: %s", what, who, text);
}

/* A race within the block: what a word's last write or read, then, by its mask and stamp, may still be doing. */
static bool races(const struct access *a, uint32_t block, uint32_t then, uint8_t its_bytes, struct emu_stamp by,
                  uint8_t bytes, const char *what, uint64_t word) {
    if (a->async || then < now.launch_time || block != a->block || (its_bytes & bytes) == 0 ||
        !emu_check_unseen(a->where, by))
        return false;
    char text[256], who[64];
    emu_check_name(by, who, sizeof who);
    emu_describe_address(word, 1, text, sizeof text);
    emu_report(a->where, "RACE: %s %s, of this block and without a barrier between: %s", what, who, text);
    return true;
}

static bool check_word(const struct access *a, enum emu_access kind, struct emu_shadow *s, uint8_t bytes,
                       uint64_t word) {
    const bool writes = emu_writes(kind);
    if (emu_reads(kind) && emu_options()->uninit && (bytes & ~s->init) != 0) {
        char text[256];
        emu_describe_address(word, 1, text, sizeof text);
        emu_report(a->where, "reads uninitialised device memory: %s", text);
        return false;
    }
    if (!(emu_is_strong(kind) && s->w_strong) && conflicts(s->w_block, s->w_time, s->w_mask, a->block, bytes)) {
        tell(a, writes ? "writes what was also written by" : "reads what was written by", word, s->w_block);
        return false;
    }
    if (writes && !(emu_is_strong(kind) && s->r_strong) &&
        conflicts(s->r_block, s->r_time, s->r_mask, a->block, bytes)) {
        tell(a, "writes what was read by", word, s->r_block);
        return false;
    }
    /* A plain first look before a loop of compare-and-swap is usual: a word of atomics is left alone. */
    if (emu_is_strong(kind) || s->w_strong) return true;
    if (races(a, s->w_block, s->w_time, s->w_bytes, s->w_by, bytes,
              writes ? "writes what was written by" : "reads what was written by", word))
        return false;
    return !writes || s->r_strong ||
           !races(a, s->r_block, s->r_time, s->r_bytes, s->r_by, bytes, "writes what was read by", word);
}

static struct emu_stamp stamp(const struct access *a) {
    return a->async ? EMU_NO_STAMP : emu_check_stamp(a->where);
}

static void note_word(const struct access *a, enum emu_access kind, struct emu_shadow *s, uint8_t bytes) {
    if (!emu_writes(kind)) {
        const bool fresh = s->r_time >= now.launch_time;
        if (a->async || !fresh || s->r_block != a->block || (s->r_bytes & bytes) == 0) s->r_by = EMU_NO_STAMP;
        const bool again = !a->async && emu_check_join(a->where, &s->r_by);
        s->r_bytes = again ? s->r_bytes & bytes : bytes;
        s->r_strong = emu_is_strong(kind) && (!fresh || s->r_strong);
        s->r_mask = (uint8_t)(fresh ? s->r_mask | bytes : bytes);
        s->r_block = fresh && s->r_block != a->block ? MANY_BLOCKS : a->block;
        s->r_time = now.time;
        return;
    }
    const bool same = s->w_time >= now.launch_time && s->w_block == a->block;
    s->w_mask = (uint8_t)(same ? s->w_mask | bytes : bytes);
    s->w_block = a->block;
    s->w_time = now.time;
    s->w_bytes = bytes;
    s->w_by = stamp(a);
    s->w_strong = emu_is_strong(kind);
    s->w_scope = kind == EMU_ATOMIC ? EMU_SCOPE_SYS : EMU_SCOPE_NONE; // st says more: emu_note_release
    s->init |= bytes;
}

static void check_shadow(const struct access *a, enum emu_access kind, const struct emu_alloc *alloc) {
    const uint64_t first = a->address - alloc->base, end = first + a->size;
    if (emu_is_strong(kind)) *last_atomic(a->block) = ++now.time;
    bool told = false;
    for (uint64_t word = first / 4; word * 4 < end; word++) {
        const uint64_t low = word * 4 < first ? first - word * 4 : 0, high = end - word * 4 < 4 ? end - word * 4 : 4;
        const uint8_t bytes = (uint8_t)((1u << high) - (1u << low));
        struct emu_shadow *s = &alloc->shadow[word];
        const uint64_t at = alloc->base + (word * 4 < first ? first : word * 4);
        if (!told) told = !check_word(a, kind, s, bytes, at);
        note_word(a, kind, s, bytes);
    }
}

static bool aligned(const struct emu_where *where, uint64_t address, size_t size) {
    const size_t power = size & -size, unit = power > 16 ? 16 : power; // a copy with zero fill may read 12 bytes
    if (size == 0 || (address & (unit - 1)) == 0) return true;
    emu_report(where, "misaligned access of %zu bytes at address 0x%" PRIx64, size, address);
    return false;
}

static bool reachable(const struct emu_where *where, const struct emu_alloc *alloc, int32_t device) {
    if (alloc->kind == EMU_MEM_HOST || alloc->kind == EMU_MEM_PEER || alloc->device == device) return true;
    if (emu_state.device[device].peer[alloc->device]) return true;
    emu_report(where, "a kernel of device %d uses memory of device %d without cuCtxEnablePeerAccess", device,
               alloc->device);
    return false;
}

bool emu_check_global(const struct emu_where *where, enum emu_access kind, uint64_t address, size_t size) {
    if (!aligned(where, address, size)) return false;
    const struct emu_alloc *alloc = emu_find_alloc(address);
    const struct emu_block *block = where->thread != NULL ? where->thread->block : where->block;
    if (alloc == NULL || alloc->freed || address < alloc->base || address + size > alloc->base + alloc->size) {
        char text[256];
        emu_describe_address(address, size, text, sizeof text);
        emu_report(where, "access of %zu bytes out of bounds: %s", size, text);
        return false;
    }
    if (!reachable(where, alloc, block->launch->device)) return false;
    if (alloc->shadow == NULL) return true;
    const struct access a = {.where = where,
                             .address = address,
                             .size = size,
                             .block = block->linear,
                             .async = kind == EMU_ASYNC_READ || kind == EMU_ASYNC_WRITE};
    check_shadow(&a, kind, alloc);
    return true;
}

/* ---- flags ---- */

static struct emu_shadow *shadow_of(uint64_t address) {
    const struct emu_alloc *alloc = emu_find_alloc(address);
    const bool inside = alloc != NULL && alloc->shadow != NULL && address - alloc->base < alloc->size;
    return inside ? &alloc->shadow[(address - alloc->base) / 4] : NULL;
}

void emu_note_release(uint64_t address, enum emu_scope scope) {
    struct emu_shadow *s = shadow_of(address);
    if (s != NULL) s->w_scope = (uint8_t)scope;
}

bool emu_check_flag(const struct emu_where *where, uint64_t address, enum emu_scope scope) {
    static const char *const names[] = {"without a release", "with a release for its block alone",
                                        "with a release for its device alone"};
    const struct emu_shadow *s = shadow_of(address);
    if (s == NULL || s->w_time == 0 || s->w_scope >= scope) return true;
    char text[256];
    emu_describe_address(address, 1, text, sizeof text);
    emu_report(where, "FLAG: acquires what was written %s: %s", names[s->w_scope], text);
    return false;
}
