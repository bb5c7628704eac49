/* Global-memory checker: bounds, lifetime, peer access and alignment of every access; reads of uninitialised bytes;
 * races of a block's threads, by the clocks of check.c, with the last write and the last read of a word;
 * and conflicts between blocks of one launch, which nothing orders except what handover.c knows. Times are launches.
 */
#include <inttypes.h>
#include <stdio.h>

#include "driver.h"
#include "emu.h"

enum { MANY_BLOCKS = UINT32_MAX - 1 };

static uint32_t this_launch, launch_before, last_of[EMU_MAX_DEVICES]; // before: on the same device

void emu_check_launch_begin(const struct emu_launch *launch) {
    if (++this_launch == 0) this_launch = 1; // 0: before the first
    launch_before = last_of[launch->device];
    last_of[launch->device] = this_launch;
    emu_order_launch_begin(launch);
}

struct access {
    const struct emu_where *where;
    uint64_t address;
    size_t size;
    uint32_t block;
    bool async; // it acts when it lands, which the clocks of its thread say nothing of
};

/* What a word's accesses of one kind were in this launch: bytes that its last block touched, and by whom the last of
 * these, `last`, were. */
struct touched {
    uint32_t block, time;
    uint8_t bytes, last;
    struct emu_stamp by;
};

static bool conflicts(const struct touched *t, const struct access *a, uint8_t bytes) {
    if (t->time != this_launch || t->block == a->block || (t->bytes & bytes) == 0) return false;
    return !emu_handed_over(t->block, (t->last & bytes) != 0 ? t->by : EMU_NO_STAMP);
}

static struct touched writes_of(const struct emu_shadow *s) {
    return (struct touched){s->w_block, s->w_time, s->w_mask, s->w_bytes, s->w_by};
}

static struct touched reads_of(const struct emu_shadow *s) {
    return (struct touched){s->r_block, s->r_time, s->r_mask, s->r_bytes, s->r_by};
}

static void tell(const struct access *a, const char *what, uint64_t word, uint32_t other) {
    char text[256], who[48] = "several blocks";
    if (other != MANY_BLOCKS) snprintf(who, sizeof who, "block number %u", other);
    emu_describe_address(word, 1, text, sizeof text);
    emu_report(a->where, "CONFLICT between blocks of one launch: %s %s: %s", what, who, text);
}

/* A race within the block with what the word's last write or read may still be doing. */
static bool races(const struct access *a, const struct touched *t, uint8_t bytes, const char *what, uint64_t word) {
    if (a->async || t->time != this_launch || t->block != a->block || (t->last & bytes) == 0 ||
        !emu_check_unseen(a->where, t->by))
        return false;
    char text[256], who[64];
    emu_check_name(t->by, who, sizeof who);
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
    if (s->w_time != this_launch && !(writes && s->r_time == this_launch)) return true; // as usual
    const struct touched written = writes_of(s), read = reads_of(s);
    if (!(emu_is_strong(kind) && s->w_strong) && conflicts(&written, a, bytes)) {
        tell(a, writes ? "writes what was also written by" : "reads what was written by", word, s->w_block);
        return false;
    }
    if (writes && !(emu_is_strong(kind) && s->r_strong) && conflicts(&read, a, bytes)) {
        tell(a, "writes what was read by", word, s->r_block);
        return false;
    }
    /* A plain first look before a loop of compare-and-swap is usual: a word of atomics is left alone. */
    if (emu_is_strong(kind) || s->w_strong) return true;
    if (races(a, &written, bytes, writes ? "writes what was written by" : "reads what was written by", word))
        return false;
    return !writes || s->r_strong || !races(a, &read, bytes, "writes what was read by", word);
}

static struct emu_stamp stamp(const struct access *a) {
    return a->async ? EMU_NO_STAMP : emu_check_stamp(a->where);
}

static void note_word(const struct access *a, enum emu_access kind, struct emu_shadow *s, uint8_t bytes) {
    if (!emu_writes(kind)) {
        const bool fresh = s->r_time == this_launch;
        if (a->async || !fresh || s->r_block != a->block || (s->r_bytes & bytes) == 0) s->r_by = EMU_NO_STAMP;
        const bool again = !a->async && emu_check_join(a->where, &s->r_by);
        s->r_bytes = again ? s->r_bytes & bytes : bytes;
        s->r_strong = emu_is_strong(kind) && (!fresh || s->r_strong);
        s->r_mask = (uint8_t)(fresh ? s->r_mask | bytes : bytes);
        s->r_block = fresh && s->r_block != a->block ? MANY_BLOCKS : a->block;
        s->r_time = this_launch;
        return;
    }
    const bool same = s->w_time == this_launch && s->w_block == a->block;
    s->w_mask = (uint8_t)(same ? s->w_mask | bytes : bytes);
    s->w_block = a->block;
    s->w_time = this_launch;
    s->w_bytes = bytes;
    s->w_by = stamp(a);
    s->w_strong = emu_is_strong(kind);
    s->w_scope = kind == EMU_ATOMIC ? EMU_SCOPE_SYS : EMU_SCOPE_NONE; // st says more: emu_note_release
    s->init |= bytes;
}

static void check_shadow(const struct access *a, enum emu_access kind, const struct emu_alloc *alloc) {
    const uint64_t first = a->address - alloc->base, end = first + a->size;
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

/* Launches run one after another here, so what a thread does too early is told by the rule: before griddepcontrol.wait
 * it writes nothing and reads nothing that the launch before wrote. */
static bool allowed_early(const struct emu_where *where, enum emu_access kind, const struct emu_alloc *alloc,
                          uint64_t address, size_t size) {
    char text[256];
    if (emu_writes(kind)) {
        emu_describe_address(address, size, text, sizeof text);
        emu_report(where, "EARLY: writes before griddepcontrol.wait: %s", text);
        return false;
    }
    const uint64_t first = address - alloc->base;
    for (uint64_t word = first / 4; launch_before != 0 && alloc->shadow != NULL && word * 4 < first + size; word++) {
        if (alloc->shadow[word].w_time != launch_before) continue;
        emu_describe_address(alloc->base + word * 4, 4, text, sizeof text);
        emu_report(where, "EARLY: reads what the launch before wrote, before griddepcontrol.wait: %s", text);
        return false;
    }
    return true;
}

bool emu_check_early(const struct emu_where *where, enum emu_access kind, uint64_t address, size_t size) {
    const struct emu_alloc *alloc = where->thread != NULL && where->thread->early ? emu_find_alloc(address) : NULL;
    if (alloc == NULL || address < alloc->base || address + size > alloc->base + alloc->size) return true;
    return allowed_early(where, kind, alloc, address, size);
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
    if (where->thread != NULL && where->thread->early && !allowed_early(where, kind, alloc, address, size))
        return false;
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
