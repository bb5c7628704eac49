/* Asynchronous machinery of sm_90 inside the interpreter: mbarriers (mbarrier.c), bulk and tensor copies (bulk.c),
 * wgmma (wgmma.c). PTX ISA, "Parallel Synchronization and Communication: mbarrier", "Data Movement: Asynchronous copy",
 * "Asynchronous Warpgroup Level Matrix Multiply-Accumulate".
 *
 * Copies land, and products are computed, as late as the waits of the program allow (options: at once, at random).
 * Lifetime: state of a block hangs on run.bulk and warp.wgmma from first use to the end of the block. One thread.
 * Errors: what the program does wrong is reported, and false returned. */
#pragma once
#include "interp.h"

/* An address among several: base and constant offset are two sources in a row. */
bool take_far_address(struct build *b, int32_t i);
uint64_t far_address(const struct warp *w, const struct ptx_op *o, int32_t src, uint32_t lane);

/* Shared byte of an address that must be in shared memory; reported when it is not. */
bool shared_byte(const struct warp *w, const struct ptx_op *o, uint32_t lane, uint64_t address, uint32_t *at);

/* ---- mbarrier.c ---- */
/* n arrivals, or expected bytes, or bytes that have come: by a thread (where.thread) or the copy engine (NULL). */
bool mbarrier_change(struct run *r, const struct emu_where *where, uint32_t at, int64_t arrivals, int64_t tx);
/* One more arrival is expected in this phase. */
bool mbarrier_expect_more(struct run *r, const struct emu_where *where, uint32_t at);

/* ---- bulk.c ---- */
/* Lands one pending copy into shared memory; false when there is none. */
bool bulk_progress(struct run *r);
void bulk_block_end(struct run *r);
/* The copy engine or a matrix product of `warp` reads these bytes from now on: writes by threads must have been fenced
 * (fence.proxy.async) by their writer, before what the reader waited for, or by the reader. */
void proxy_note_write(struct warp *w, uint32_t lane, uint32_t at, int32_t bytes);
void proxy_fence(struct warp *w, uint32_t mask);
/* The same for an mbarrier.init, which the copy engine must see before it counts on the barrier; fence.mbarrier_init.
 */
void proxy_note_init(struct warp *w, uint32_t lane, uint32_t at);
void proxy_fence_init(struct warp *w, uint32_t mask);
bool proxy_check(struct warp *w, const struct ptx_op *o, uint32_t lane, uint32_t at, int32_t bytes);

/* ---- wgmma.c ---- */
void wgmma_block_end(struct run *r);

/* Where the swizzle of 0, 32, 64 or 128 bytes puts a shared byte. */
static inline uint32_t swizzled(uint32_t at, int32_t span) {
    const uint32_t mask = span == 128 ? 7 : span == 64 ? 3 : span == 32 ? 1 : 0;
    return at ^ (at >> 7 & mask) << 4;
}
