/* The line between the two halves of libcuda_emu.so: the interpreter (ptx*, exec*, fiber, warp, tensor, hopper) and
 * the driver (driver, memory, stream, check, limits, count, report, options).
 *
 * The interpreter owns modules, kernels and everything that lives for one launch (blocks, warps, threads, shared
 * memory). The driver owns memory, streams and all checks. Lifetime: a module until emu_module_free; emu_block and
 * emu_thread only inside emu_run. Threading: one thread at a time, under the driver's lock.
 * Errors: whatever is wrong with a program under test goes to emu_report; emu_run then returns false.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- options (options.c): from NT_EMU ---- */

enum emu_timing { EMU_EARLY, EMU_LATE, EMU_RANDOM };
enum emu_order { EMU_FORWARD, EMU_BACKWARD, EMU_SHUFFLED };
enum emu_fault { EMU_SOUND, EMU_DIES, EMU_FAILS, EMU_HANGS, EMU_STALLS };

struct emu_options { // as listed in options.c
    int32_t devices, cc, driver, isa, busy, mig, peer;
    uint64_t memory, seed;
    int32_t order;           // enum emu_order of threads and blocks
    int32_t copies, streams; // enum emu_timing of cp.async and TMA, and of stream work
    int32_t idle_ms, check, uninit, registers, leaks, stream0, freesync, hostguard;
    int32_t ulp, shuffle; // error of approximate functions; order of sums inside mma
    int32_t exitcode, trace, parse;
    int32_t fault, fault_at; // enum emu_fault, and which launch it befalls
    int32_t unmap;
    char *count, *ptx, *regs; // files; NULL: none
};
const struct emu_options *emu_options(void);

/* ---- modules (interpreter) ---- */

struct emu_module;

struct emu_kernel {
    const char *name;
    struct emu_module *module;
    int32_t n_param, param_bytes;
    const int32_t *param_offset, *param_size;   // [n_param]
    int64_t shared_bytes;                       // static
    int64_t local_bytes;                        // depot, per thread
    int32_t maxntid[3], reqntid[3], cluster[3]; // 0: not given
    void *count;                                // count.c's, NULL at first
    void *limits;                               // limits.c's: registers from the table and the like
    int64_t max_dynamic_shared;                 // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, -1: not set
};

/* Parses PTX text. NULL with a sentence in `error` when it cannot be run; target is the number in ".target sm_NN".
 * Module variables are placed with emu_alloc_global. */
struct emu_module *emu_module_load(const char *text, int32_t device, int32_t *target, char *error, size_t n_error);
void emu_module_free(struct emu_module *module);
struct emu_kernel *emu_module_kernel(struct emu_module *module, const char *name);
bool emu_module_global(struct emu_module *module, const char *name, uint64_t *address, size_t *size);

/* ---- running (interpreter) ---- */

struct emu_launch {
    struct emu_kernel *kernel;
    uint32_t grid[3], block[3], cluster[3];
    uint32_t dynamic_shared;
    bool early;            // it may begin before the launch before it has ended (programmatic dependent launch)
    const uint8_t *params; // [kernel->param_bytes]
    int32_t device;
    uint64_t number; // of this launch in the process
};

/* Runs a whole grid; false when something was reported. */
bool emu_run(const struct emu_launch *launch);

struct emu_block {
    const struct emu_launch *launch;
    uint32_t index[3];
    uint32_t linear; // block number in the grid
    int32_t n_thread, n_warp;
    uint8_t *shared; // static, then dynamic
    size_t shared_bytes;
    void *check; // check.c's
};

struct emu_thread {
    struct emu_block *block;
    uint32_t index[3];
    int32_t linear, warp, lane;
    bool early; // what came before the launch may still be under way: until griddepcontrol.wait
};

struct emu_instr {
    const char *text;         // as in the PTX, for reports
    int32_t opcode_class;     // enum emu_class
    int32_t ptx_line, number; // line in the PTX text; index in the kernel
    const char *file;         // of .loc, NULL without -lineinfo
    int32_t line;
};

enum emu_class {
    EMU_CLASS_ALU,
    EMU_CLASS_FLOAT,
    EMU_CLASS_SPECIAL,
    EMU_CLASS_BRANCH,
    EMU_CLASS_GLOBAL,
    EMU_CLASS_SHARED,
    EMU_CLASS_LOCAL,
    EMU_CLASS_CONST,
    EMU_CLASS_ATOMIC,
    EMU_CLASS_COPY,
    EMU_CLASS_TENSOR,
    EMU_CLASS_BARRIER,
    EMU_CLASS_WARP,
    EMU_CLASS_OTHER,
    EMU_N_CLASS
};

struct emu_where {
    const struct emu_thread *thread; // NULL: no thread in particular
    const struct emu_block *block;
    const struct emu_instr *instr;
};

/* ---- what the driver half offers the interpreter ---- */

/* A loop over ld.acquire or ld.relaxed may wait for another warp or, in memory of a peer, for another process: let
 * others run between, and sleep a little when nobody else can; it is no deadlock. emu_pause_kernel returns when the
 * driver tries the launch again; host code and copies of other streams go on meanwhile. */
void emu_pause_kernel(void);
/* ATOMIC reads and writes (atom, red). STRONG ones are ld.relaxed/.acquire and st.relaxed/.release: they neither race
 * with each other nor with atomics. volatile counts as plain, though behind a fence it releases, before one acquires.
 */
enum emu_access {
    EMU_READ,
    EMU_WRITE,
    EMU_ATOMIC,
    EMU_ASYNC_READ,
    EMU_ASYNC_WRITE,
    EMU_STRONG_READ,
    EMU_STRONG_WRITE,
};

/* One sentence on what the program under test did wrong (report.c). where may be NULL. */
void emu_report(const struct emu_where *where, const char *format, ...) __attribute__((format(printf, 2, 3)));
int64_t emu_report_total(void); // grows with each report, also with those not printed

/* Before each access to global memory: bounds, lifetime, alignment, initialised, conflicts between blocks. When false
 * the access must not be made (it was reported). Also for the async copies' global side. */
bool emu_check_global(const struct emu_where *where, enum emu_access access, uint64_t address, size_t size);
/* The part of it that a thread which has not waited yet may do: when an async copy is issued. */
bool emu_check_early(const struct emu_where *where, enum emu_access access, uint64_t address, size_t size);
/* Flags in global memory: a store that releases (st.release; relaxed or volatile behind a fence), after it was made,
 * and a load that acquires, before it. What it takes must be from a release that reaches as far as itself, from an
 * atomic or from a copy; when not, nothing orders what was written before the flag, and it is reported. */
enum emu_scope { EMU_SCOPE_NONE, EMU_SCOPE_CTA, EMU_SCOPE_GPU, EMU_SCOPE_SYS };
void emu_note_release(uint64_t address, enum emu_scope scope);
bool emu_check_flag(const struct emu_where *where, uint64_t address, enum emu_scope scope);
/* Before each access to shared memory of `block`; address from the start of its shared memory. thread NULL in where:
 * the async proxy (TMA) acts. An async copy is a write when it lands, by the thread that issued it. */
bool emu_check_shared(const struct emu_where *where, enum emu_access access, uint32_t address, size_t size);
void emu_check_block_begin(struct emu_block *block);
/* Who acts and when, as the clocks of its block say; and whether who acts now is not ordered behind what was stamped in
 * the same block. For words of global memory. */
struct emu_stamp {
    uint32_t clk;
    uint8_t agent, lane, last; // of several lanes, none of which had seen another: the lowest and the highest
    uint8_t lag;               // and how long before clk the first of them was
};
#define EMU_NO_STAMP ((struct emu_stamp){.agent = UINT8_MAX})
struct emu_stamp emu_check_stamp(const struct emu_where *where);
bool emu_check_unseen(const struct emu_where *where, struct emu_stamp then);
/* Who reads now, in place of `by`; true: beside it, as other lanes of the warp whose read it has not seen. */
bool emu_check_join(const struct emu_where *where, struct emu_stamp *by);
/* "thread 5 (warp 0 lane 5)" */
void emu_check_name(struct emu_stamp who, char *text, size_t n_text);
void emu_check_block_end(struct emu_block *block);
/* What the fences of a block lie behind (check.c): of each warp what all lanes did up to all[], and these lanes up to
 * some[]. A fence by these lanes of a warp adds what they have seen. */
struct emu_past {
    uint32_t all[32], some[32], lanes[32];
};
void emu_check_past(const struct emu_thread *thread, uint32_t lanes, struct emu_past *past);
bool emu_past_covers(const struct emu_past *past, struct emu_stamp by);
/* The order between blocks (handover.c): a fence for the device or wider by these lanes of a warp; a strong store or an
 * atomic to global memory, after it was made, and a strong load or an atomic that returns a value; `itself`: it
 * releases or acquires without a fence. */
void emu_order_fence(const struct emu_thread *thread, uint32_t lanes);
void emu_order_release(const struct emu_thread *thread, uint64_t address, bool itself);
void emu_order_acquire(uint64_t address, bool itself);
/* Barrier `id` joins these warps (bit mask) of the block, behind those that came and did not wait (bar.arrive);
 * __syncwarp these lanes of a warp, of which `live` still run. */
void emu_check_barrier(struct emu_block *block, int32_t id, uint32_t warps);
void emu_check_arrive(struct emu_block *block, int32_t id, int32_t warp);
void emu_check_syncwarp(const struct emu_thread *thread, uint32_t lanes, uint32_t live);
/* mbarrier at a shared address: arrive releases, a wait that succeeds acquires; TMA completion releases as well. */
void emu_check_release(const struct emu_where *where, uint32_t address);
/* When an async copy is issued: what the issuing warp has seen is what the copy may overwrite later. */
void emu_check_async_issue(const struct emu_where *where);
void emu_check_acquire(const struct emu_where *where, uint32_t address);

/* One warp-level memory instruction: the addresses of the lanes in `mask` (count.c). size: bytes per lane. */
void emu_count_access(const struct emu_where *where, bool shared, bool write, uint32_t mask, const uint64_t address[32],
                      int32_t size);
/* n executions of an instruction by lanes. */
void emu_count_instr(const struct emu_where *where, int64_t n);

/* Memory of module variables; 0 when there is no more. */
uint64_t emu_alloc_global(int32_t device, size_t size);
void emu_free_now(uint64_t base);

/* TMA descriptors: what cuTensorMapEncodeTiled wrote. false: not one of ours. */
struct emu_tensor_map {
    uint64_t address;
    int32_t rank, element_bytes;
    uint64_t dim[5], stride[5]; // elements; bytes (stride[0] = element_bytes)
    uint32_t box[5], element_stride[5];
    int32_t swizzle;    // bytes: 0, 32, 64, 128
    int32_t interleave; // 0
    bool nan_fill;
};
bool emu_tensor_map_decode(const void *map, struct emu_tensor_map *out);
