/* What libcuda_emu.so offers the stand-ins of cuBLASLt and NCCL: work in stream order on device memory.
 *
 * Owned by the driver: the queued work and, through `drop`, its argument. Work that a capturing stream receives becomes
 * a graph node and runs once per launch, so `fn` must be able to start afresh (its second argument says when).
 * Threading: fn runs under the driver's lock, on whichever thread waits; it must not block and not call the driver.
 * Errors: fn reports through emu_work_fail, which makes the waiting driver call fail like a failed kernel.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct CUstream_st;

#pragma GCC visibility push(default)
/* fn(arg, first) returns 1 when done, 0 to be asked again later. drop(arg) comes in every case,
 * also when the call fails. Returns a CUresult. */
int emu_stream_work(struct CUstream_st *stream, int (*fn)(void *, int), void *arg, void (*drop)(void *));
/* From now on queued work also runs while this process makes no calls: another process may wait for it. */
void emu_run_when_idle(void);
/* Inside fn: whether the bytes may be read (and are initialised) or written (then they count as initialised). */
int emu_work_range(const char *what, const void *address, size_t size, int write);
void emu_work_fail(const char *text);
/* Outside of fn: the bus number of the calling thread's device, 0 where it has none. */
int emu_current_bus(void);
#pragma GCC visibility pop
