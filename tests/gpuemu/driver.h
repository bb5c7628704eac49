/* The driver half of the emulator: devices, memory, streams. Internal to libcuda_emu.so.
 *
 * Owns: the emulated devices (one primary context each), the allocation table, the streams with their queues of work.
 * Lifetime: devices live as long as the process; everything else until its cu* destroy call (objects that work still
 * needs stay as zombies until that work has run).
 * Threading: every exported function takes one lock for its whole length (emu_enter), so internal functions never lock.
 * One thread executes at a time, whichever called. A thread that waits lets go of the lock while nothing can run.
 * Errors: internal functions return CUresult; a report (report.c) makes the call that ran the work fail, for good.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#pragma GCC visibility push(default)
#include <cuda.h>
#pragma GCC visibility pop
#include "emu.h"

#define EMU_API __attribute__((visibility("default")))

enum { EMU_MAX_DEVICES = 8 };

/* ---- memory.c ---- */

enum emu_mem_kind { EMU_MEM_DEVICE, EMU_MEM_HOST, EMU_MEM_PEER, EMU_MEM_GLOBAL };

/* One 4-byte word of device memory: who touched it last, and which of its bytes. Times are launches (gcheck.c). */
struct emu_shadow {
    uint32_t w_time, w_block, r_time, r_block;
    uint8_t init, w_mask, r_mask, w_strong, r_strong; // bit i of a mask = byte i
    uint8_t w_scope;                                  // who may acquire from the last write: enum emu_scope
    uint8_t w_bytes, r_bytes;                         // bytes of the last access of each kind
    struct emu_stamp w_by, r_by;                      // and who made it, within its block
};

struct emu_alloc {
    uint64_t base; // first byte
    size_t size;
    uint64_t pages; // first page and length of the mapping
    size_t n_pages_bytes;
    int32_t device;
    enum emu_mem_kind kind;
    int64_t number; // the how manieth allocation, for reports
    const char *made_by;
    bool freed, registered;
    struct emu_shadow *shadow; // [ceil(size / 4) + 1], only of device memory and only while checking
};

/* The allocation that contains the address or ended at most a page before it; NULL when there is none near. */
struct emu_alloc *emu_find_alloc(uint64_t address);
/* A sentence on where an address lies: "4 bytes past the end of an allocation of 64 bytes made by cuMemAlloc #3". */
void emu_describe_address(uint64_t address, size_t size, char *text, size_t n_text);
/* Host code and kernels: with hostguard, device memory is closed between these two. */
void emu_memory_open(void);
void emu_memory_close(void);
/* One line on stderr for each allocation of the device still alive; the count is returned. */
int32_t emu_list_leaks(int32_t device);
/* Bounds, lifetime and peer access of a copy operand; true when it may be touched. */
bool emu_range_ok(const char *what, int32_t device, uint64_t address, size_t size);
/* Marks bytes as initialised, or copies that knowledge. */
void emu_mark_init(uint64_t address, size_t size);
void emu_copy_init(uint64_t to, uint64_t from, size_t size);
/* Whether an address is pinned host memory, hence read when the copy runs rather than when it is called. */
bool emu_is_initialised(uint64_t address, size_t size);
bool emu_is_pinned(const void *host, size_t size);
void emu_install_fault_handler(void);
void emu_free_now(uint64_t base);

/* ---- driver.c ---- */

struct emu_device {
    int32_t index;
    int32_t retained;
    size_t used, most_used;     // bytes of cuMemAlloc: now, and at most so far
    bool peer[EMU_MAX_DEVICES]; // peer access enabled from this device to that one
    struct CUstream_st *null_stream;
};

struct emu_state {
    bool ready, in_host_function;
    int32_t work_device; // whose stream runs the present EMU_OP_WORK
    CUresult sticky;     // CUDA_ERROR_LAUNCH_FAILED after a report, until emu_report_clear; or the device is lost
    int32_t n_device;
    struct emu_device device[EMU_MAX_DEVICES];
};
extern struct emu_state emu_state;

void emu_lock(void);
void emu_unlock(void);
/* Takes the lock and checks initialisation, context and sticky errors; on CUDA_SUCCESS the lock is held. */
CUresult emu_enter(bool needs_context);
CUresult emu_leave(CUresult result);
struct emu_device *emu_current_device(void);
CUresult emu_sticky_error(void);

int emu_device_attribute(CUdevice_attribute which, int device, bool *known);

/* ---- launch.c, limits.c, gcheck.c, handover.c, count.c ---- */

/* What an enum emu_access does. */
bool emu_reads(int access);
bool emu_writes(int access);
bool emu_is_strong(int access);
struct emu_kernel;
struct emu_launch;
struct emu_launch_job; // a kernel with a copy of its parameters
CUresult emu_run_job(const struct emu_launch_job *job, bool *done);
void emu_free_job(struct emu_launch_job *job);
const char *emu_running_kernel(void); // NULL: none
CUresult emu_check_launch(const struct emu_launch *launch);
int32_t emu_registers(const struct emu_kernel *kernel); // 0: not known
int32_t emu_max_shared(void);
int32_t emu_occupancy(const struct emu_kernel *kernel, int32_t n_thread, size_t dynamic_shared);
void emu_check_launch_begin(const struct emu_launch *launch);
void emu_order_launch_begin(const struct emu_launch *launch);
void emu_order_block_begin(const struct emu_block *block);
/* Whether the running block comes after what another block of its launch, or several (any other number), did; by
 * EMU_NO_STAMP: after anything of it. */
bool emu_handed_over(uint32_t block, struct emu_stamp by);
void emu_count_launch(struct emu_kernel *kernel);
void emu_counts_at_exit(void);
void emu_watch_exit(void); // from now on reports decide the exit status, and the counters are written

/* For tests, by dlsym. Counters: JSON lines to a file; 0 when written. */
EMU_API int emu_report_count(void);
EMU_API const char *emu_report_text(int i);
EMU_API void emu_report_clear(void);
EMU_API int emu_counts_write(const char *path);
EMU_API void emu_counts_clear(void);

/* ---- stream.c ---- */

enum emu_op_kind {
    EMU_OP_KERNEL,
    EMU_OP_COPY,
    EMU_OP_SET,
    EMU_OP_HOST,
    EMU_OP_WORK,
    EMU_OP_RECORD,
    EMU_OP_WAIT,
    EMU_OP_FREE,
    EMU_OP_GRAPH
};

/* Rows of bytes; a plain copy is one row. */
struct emu_copy {
    uint64_t to, from;
    size_t width, n_row, to_pitch, from_pitch;
    bool to_host, from_host;
    void *staged; // the pageable source as it was at the call; owned
};

struct emu_set {
    uint64_t to;
    size_t n;
    uint32_t value;
    int32_t unit; // 1, 2 or 4 bytes
};

struct emu_op {
    enum emu_op_kind kind;
    struct emu_op *next;
    int64_t seq; // position in its stream, from 1
    bool begun;  // it was tried and could not go on yet
    union {
        struct emu_launch_job *job;
        struct emu_copy copy;
        struct emu_set set;
        struct {
            void (*fn)(void *);
            void *arg;
        } host;
        struct {
            int (*fn)(void *, int); // argument, whether this is the first try; returns 1 done, 0 ask again later
            void *arg;
            void (*drop)(void *); // releases arg with the op; may be NULL
        } work;
        struct {
            struct CUevent_st *event;
            int64_t generation, seq;
            struct CUstream_st *on; // the stream that records it, at seq
        } event;
        uint64_t address;
        struct emu_graph_run *graph;
    };
};

/* Takes over the op: queued, or recorded when the stream captures, and run at once where the order says so. */
CUresult emu_enqueue(CUstream stream, struct emu_op *op);
/* Runs everything of the device that can run; blocks until it has. */
CUresult emu_drain_device(struct emu_device *device);
/* What the default stream waits for: all streams made without CU_STREAM_NON_BLOCKING. */
CUresult emu_drain_blocking_streams(struct emu_device *device);
/* CUDA_ERROR_STREAM_CAPTURE_* when the calling thread may not do this while a capture is under way. */
CUresult emu_capture_forbids(void);
bool emu_stream_captures(CUstream stream);
struct emu_device *emu_stream_device(CUstream stream);
CUresult emu_check_stream(CUstream stream, struct CUstream_st **out);
CUresult emu_sync_stream(CUstream stream);
CUresult emu_wait_for(struct CUstream_st *stream, int64_t upto);
CUresult emu_query(struct CUstream_st *stream, int64_t upto);
uint64_t emu_stream_random(uint64_t n); // below n
void emu_note_call(void);
void emu_start_helper(void);
void emu_event_unref(struct CUevent_st *event);

/* ---- copy.c: what copies and fills do when their turn comes ---- */

CUresult emu_run_copy(const struct emu_copy *copy, int32_t device);
CUresult emu_run_set(const struct emu_set *set, int32_t device);
