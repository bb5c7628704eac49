/* Every checker catches its bug in a kernel that nvcc compiled, and is silent on the same kernel without the bug.
 * The file of PTX comes from kernels/check_cases.cu. */
#include "test_emu.h"
#include <signal.h>

static CUmodule module;

static const char *ptx_file = CHECK_CASES_PTX;

static CUfunction kernel(const char *name) {
    CUfunction function = NULL;
    if (module == NULL) {
        char *text = read_text(ptx_file);
        OK(cuModuleLoadData(&module, text));
        free(text);
    }
    OK(cuModuleGetFunction(&function, module, name));
    return function;
}

/* Launches on a fresh stream and waits. */
static CUresult run(const char *name, unsigned grid, unsigned block, unsigned shared, void **params) {
    CUstream stream = new_stream();
    const CUresult launched = cuLaunchKernel(kernel(name), grid, 1, 1, block, 1, 1, shared, stream, params, NULL);
    return launched != CUDA_SUCCESS ? launched : cuStreamSynchronize(stream);
}

static CUdeviceptr floats(int n) {
    float *host = malloc(4 * (size_t)n);
    CHECK(host != NULL);
    for (int i = 0; i < n; i++) host[i] = (float)i;
    const CUdeviceptr p = device_bytes(4 * (size_t)n);
    OK(cuMemcpyHtoD(p, host, 4 * (size_t)n));
    free(host);
    return p;
}

static float float_at(CUdeviceptr p, int i) {
    float value = 0;
    OK(cuMemcpyDtoH(&value, p + 4 * (CUdeviceptr)i, 4));
    return value;
}

/* ---- in[] -> out[] kernels of one block, right and wrong ---- */

static CUdeviceptr in, out;

static CUresult run_pair(const char *name, unsigned block, int n) {
    start();
    in = floats(n);
    out = device_bytes(4 * (size_t)n);
    void *params[] = {&out, &in};
    return run(name, 1, block, 0, params);
}

static void reverse_good(void) {
    OK(run_pair("reverse_good", 256, 256));
    for (int i = 0; i < 256; i++) CHECK(float_at(out, i) == (float)(255 - i));
}

static void reverse_bad(void) {
    CHECK(run_pair("reverse_bad", 256, 256) == CUDA_ERROR_LAUNCH_FAILED);
    bool found = false; // what it is called depends on who runs first
    for (int i = 0; i < emu_report_count(); i++) {
        const char *text = emu_report_text(i);
        found = found || strstr(text, "RACE") != NULL || strstr(text, "reads uninitialised shared") != NULL;
        CHECK(strstr(text, "kernel reverse_bad, block (0,0,0), thread (") != NULL);
        CHECK(strstr(text, "check_cases.cu:") != NULL);
    }
    CHECK(found);
    emu_report_clear();
}

static void reuse_good(void) {
    OK(run_pair("reuse_good", 256, 256));
    CHECK(float_at(out, 0) == 255 + 256);
}

static void reuse_bad(void) {
    CHECK(run_pair("reuse_bad", 256, 256) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("RACE"));
}

static void lanes_good(void) {
    OK(run_pair("lanes_good", 32, 32));
    CHECK(float_at(out, 0) == 1);
}

static void lanes_bad(void) {
    CHECK(run_pair("lanes_bad", 32, 32) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(emu_report_count() > 0);
    emu_report_clear();
}

/* ---- lanes that meet without the rest of their warp ---- */

struct meeting {
    unsigned first, second, reads;
    int partner;
    bool good;
};

static const struct meeting meetings[] = {
    {0xffffffff, 0,          0xffffffff, 31, true },
    {0x0000ffff, 0,          0x0000ffff, 1,  true },
    {0x0000ffff, 0,          0x0000ffff, 16, false}, // the other half was not there
    {0x00ff00ff, 0,          0x00ff0000, 16, true },
    {0x00000003, 0x00000006, 0x00000004, 2,  true }, // lane 1 passes on what lane 0 showed it
    {0x00000006, 0x00000003, 0x00000004, 2,  false}, // lane 0 came after that
    {0x00000003, 0x0000000c, 0x00000004, 2,  false}, // two pairs that never met
    {0x00000003, 0xffffffff, 0x00000004, 2,  true },
    {0xffffffff, 0x00000003, 0xffffffff, 16, true },
};

static void run_meetings(const char *name) {
    for (size_t i = 0; i < sizeof meetings / sizeof meetings[0]; i++) {
        struct meeting m = meetings[i];
        start();
        in = floats(32);
        out = device_bytes(4 * 64);
        void *params[] = {&out, &in, &m.first, &m.second, &m.reads, &m.partner};
        const CUresult result = run(name, 1, 32, 0, params);
        const int reader = __builtin_ctz(m.reads);
        if (m.good) {
            OK(result);
            CHECK(float_at(out, reader) == (float)(reader ^ m.partner));
        } else {
            CHECK(result == CUDA_ERROR_LAUNCH_FAILED);
            CHECK(reported("RACE: reads what"));
        }
    }
}
static void some_lanes_meet(void) {
    run_meetings("meet_shared");
}
static void some_lanes_meet_in_global_memory(void) {
    run_meetings("meet_global");
}

static void run_looks(const char *name, const char *race) {
    static const unsigned rows[][3] = {
  /* readers, who meets, good */
        {0xffffffff, 0xffffffff, 1},
        {0x0000ffff, 0x0000ffff, 1},
        {0xffffffff, 0x0000ffff, 0},
        {0x80000001, 0x0000ffff, 0},
        {0x80000000, 0x80000001, 1},
        {0x00000001, 0,          1},
        {0x00000002, 0,          0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned reads = rows[i][0], meets = rows[i][1];
        start();
        in = floats(2);
        out = device_bytes(4 * 64);
        void *params[] = {&out, &in, &reads, &meets};
        const CUresult result = run(name, 1, 32, 0, params);
        CHECK(result == (rows[i][2] ? CUDA_SUCCESS : CUDA_ERROR_LAUNCH_FAILED));
        if (!rows[i][2]) CHECK(reported(race));
    }
}
static void some_lanes_look(void) {
    run_looks("look_shared", "RACE: overwrites what may still be read");
}
static void some_lanes_look_at_global_memory(void) {
    run_looks("look_global", "RACE: writes what was read by");
}

static void hand_on(void) {
    OK(run_pair("hand_on_good", 64, 64));
    CHECK(float_at(out, 0) == 31 && float_at(out, 32) == 63);
}
static void hand_on_without(const char *name) {
    CHECK(run_pair(name, 64, 64) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(emu_report_count() > 0); // what it is called depends on who runs first
    emu_report_clear();
}
static void hand_on_unread(void) {
    hand_on_without("hand_on_unread");
}
static void hand_on_unasked(void) {
    hand_on_without("hand_on_unasked");
}

static void atomics_behind_a_plain_store(void) {
    start();
    out = device_bytes(4);
    void *params[] = {&out};
    CHECK(run("count_up_at_once", 1, 64, 0, params) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(emu_report_count() > 0);
    emu_report_clear();
}

static void product_of(int n, bool whole) {
    start();
    in = floats(32);
    out = device_bytes(4 * 32);
    void *params[] = {&out, &in, &n};
    CHECK(run("product_of_some", 1, 32, 0, params) == (whole ? CUDA_SUCCESS : CUDA_ERROR_LAUNCH_FAILED));
    if (!whole) CHECK(reported("all lanes of the warp must take part: only 7fffffff are here"));
}
static void product_of_a_warp(void) {
    product_of(32, true);
}
static void product_of_some_lanes(void) {
    product_of(31, false);
}

static void stages_good(void) {
    OK(run_pair("stages_good", 64, 512));
    CHECK(float_at(out, 0) == 252 && float_at(out, 256) == 508);
}

static void stages_bad(void) {
    CHECK(run_pair("stages_bad", 64, 512) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(emu_report_count() > 0);
    emu_report_clear();
}

static CUresult own_bytes(int shift) {
    start();
    out = device_bytes(64);
    void *params[] = {&out, &shift};
    return run("own_bytes", 1, 64, 0, params);
}
static void bytes_of_one_word_are_apart(void) {
    OK(own_bytes(0));
}
static void a_neighbours_byte(void) {
    CHECK(own_bytes(1) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(emu_report_count() > 0);
    emu_report_clear();
}

static CUresult half_written(int n_read) {
    start();
    in = floats(256);
    out = device_bytes(4 * 256);
    void *params[] = {&out, &in, &n_read};
    return run("half_written", 1, 256, 0, params);
}
static void written_half_read(void) {
    OK(half_written(128));
}
static void unwritten_half_read(void) {
    CHECK(half_written(129) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("reads uninitialised shared memory at byte 512"));
}

static void shared_atomics(void) {
    int n = 0;
    start();
    out = device_bytes(4);
    void *params[] = {&out};
    OK(run("count_up", 1, 96, 0, params));
    OK(cuMemcpyDtoH(&n, out, 4));
    CHECK(n == 96);
}

/* ---- device memory ---- */

static CUresult copy_from(int n_in, int offset) {
    int n = 100;
    start();
    in = floats(n_in);
    out = device_bytes(400);
    void *params[] = {&out, &in, &n, &offset};
    return run("copy_from", 1, 128, 0, params);
}
static void in_bounds(void) {
    OK(copy_from(101, 1));
}
static void four_bytes_past_the_end(void) {
    CHECK(copy_from(100, 1) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(strstr(emu_report_text(0), "thread (99,0,0)") != NULL);
    CHECK(reported("0 bytes past the end of an allocation of 400 bytes made by cuMemAlloc #1"));
}
static void before_the_start(void) {
    CHECK(copy_from(100, -1) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("4 bytes before the start of an allocation of 400 bytes"));
}

static void use_after_free(void) {
    float value = 1;
    int n = 1;
    start();
    const CUdeviceptr p = floats(4);
    OK(cuMemFree(p));
    void *params[] = {(void *)(uintptr_t)&p, &value, &n};
    CHECK(run("fill", 1, 32, 0, params) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("freed allocation of 16 bytes"));
}

static CUresult add_one(CUdeviceptr p, int n) {
    void *params[] = {&p, &n};
    return run("add_one", 1, 128, 0, params);
}
static void initialised(void) {
    start();
    OK(add_one(floats(128), 128));
}
static void uninitialised_read(void) {
    start();
    const CUdeviceptr p = device_bytes(512);
    OK(cuMemsetD8(p, 0, 511));
    OK(add_one(p, 127));
    CHECK(add_one(p, 128) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(strstr(emu_report_text(0), "thread (127,0,0)") != NULL);
    CHECK(reported("reads uninitialised device memory"));
}
static void uninitialised_reads_allowed(void) {
    start();
    OK(add_one(device_bytes(512), 128));
}

static CUresult load_vector(int offset) {
    start();
    in = floats(132);
    out = device_bytes(16 * 32);
    void *params[] = {&out, &in, &offset};
    return run("load_vector", 1, 32, 0, params);
}
static void aligned_vector(void) {
    OK(load_vector(16));
}
static void misaligned_vector(void) {
    CHECK(load_vector(8) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("misaligned access of 16 bytes"));
}

static void kernels_see_other_memory_only_with_permission(void) {
    CUcontext second = NULL;
    float value = 1;
    int n = 1;
    start();
    const CUdeviceptr p = floats(1);
    OK(cuDevicePrimaryCtxRetain(&second, 1));
    OK(cuCtxSetCurrent(second));
    void *params[] = {(void *)(uintptr_t)&p, &value, &n};
    CHECK(run("fill", 1, 32, 0, params) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("without cuCtxEnablePeerAccess"));
}

static void a_kernel_without_the_wait(void) { // the copy on another stream has not happened yet
    int n = 128;
    start();
    CUstream copies = new_stream(), work = new_stream();
    float *host = pinned_bytes(512);
    CUdeviceptr p = device_bytes(512);
    memset(host, 0, 512);
    void *params[] = {&p, &n};
    OK(cuMemcpyHtoDAsync(p, host, 512, copies));
    OK(cuLaunchKernel(kernel("add_one"), 1, 1, 1, 128, 1, 1, 0, work, params, NULL));
    CHECK(cuStreamSynchronize(work) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("reads uninitialised device memory"));
}

/* ---- conflicts between blocks ---- */

static CUresult all_write(int spread) {
    start();
    out = device_bytes(4 * 8);
    void *params[] = {&out, &spread};
    return run("all_write_first", 8, 32, 0, params);
}
static void each_block_its_word(void) {
    OK(all_write(1));
}
static void two_blocks_one_word(void) {
    CHECK(all_write(0) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("CONFLICT between blocks of one launch: writes what was also written by"));
}

static CUresult shift(unsigned grid) {
    start();
    in = floats(257);
    void *params[] = {&in};
    return run("shift_in_place", grid, grid == 1 ? 256 : 128, 0, params);
}
static void one_block_shifts(void) {
    const CUresult result = shift(1);
    OK(result);
}
static void two_blocks_shift(void) {
    CHECK(shift(2) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("CONFLICT between blocks"));
}

static void a_block_exchanges(void) {
    OK(run_pair("exchange_good", 64, 64));
    CHECK(float_at(out, 0) == float_at(in, 32));
}
static void a_block_exchanges_too_early(void) {
    start();
    in = floats(64);
    out = floats(64); // initialised, so that what is read early is no less a number
    void *params[] = {&out, &in};
    CHECK(run("exchange_bad", 1, 64, 0, params) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("of this block and without a barrier between"));
}
static void a_block_writes_one_word(void) {
    CHECK(run_pair("overtake", 64, 64) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("RACE: writes what was written by"));
}

static void lanes_at_two_barriers(void) {
    CHECK(run_pair("two_barriers", 64, 64) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("barrier divergence"));
}

static CUresult run_own_array(int n) {
    start();
    in = floats(64);
    out = floats(64);
    void *params[] = {&out, &in, &n};
    return run("own_array", 1, 64, 0, params);
}
static void arrays_of_threads(void) {
    OK(run_own_array(16));
}
static void arrays_of_threads_with_holes(void) {
    CHECK(run_own_array(15) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("reads uninitialised local memory"));
}

static void halves_of_a_word(void) {
    start();
    out = device_bytes(16);
    void *params[] = {&out};
    OK(run("halves", 8, 32, 0, params));
}

static void last_block_adds(void) {
    start();
    CUdeviceptr part = device_bytes(4 * 16), ticket = device_bytes(4);
    out = device_bytes(4);
    OK(cuMemsetD32(ticket, 0, 1));
    void *params[] = {&out, &part, &ticket};
    OK(run("last_block", 16, 32, 0, params));
    CHECK(float_at(out, 0) == 120);
}

/* As in the kernel. */
enum how { FENCED, EACH_FENCES, ACQ_REL, UNFENCED, FENCED_EARLY, BLOCK_FENCE, NO_BARRIER, NO_ACQUIRE, APART };

static CUresult hand_over(int how) {
    start();
    CUdeviceptr part = device_bytes(4 * 16 * 64), ticket = device_bytes(4 * 16);
    out = device_bytes(4);
    OK(cuMemsetD32(ticket, 0, 16));
    OK(cuMemsetD32(part, 0, 16 * 64));
    void *params[] = {&out, &part, &ticket, &how};
    return run("hand_over", 16, 64, 0, params);
}
static void blocks_that_hand_over(void) {
    for (int how = FENCED; how <= ACQ_REL; how++) {
        OK(hand_over(how));
        CHECK(float_at(out, 0) == 1023 * 1024 / 2);
    }
}
static void blocks_that_do_not(void) {
    for (int how = UNFENCED; how <= APART; how++) {
        CHECK(hand_over(how) == CUDA_ERROR_LAUNCH_FAILED);
        CHECK(reported("CONFLICT between blocks of one launch"));
    }
}

static CUresult relay(unsigned gap) {
    start();
    CUdeviceptr part = device_bytes(4), flag = device_bytes(4 * 16);
    out = device_bytes(4);
    void *params[] = {&out, &part, &flag, &gap};
    return run("relay", 16, 1, 0, params);
}
static void blocks_relay(void) {
    OK(relay(0));
    CHECK(float_at(out, 0) == 5);
}
static void a_relay_with_a_gap(void) {
    CHECK(relay(7) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("CONFLICT between blocks of one launch: reads what was written by block number 0"));
}

static CUresult in_turn(int other) {
    start();
    CUdeviceptr ticket = device_bytes(8);
    in = floats(1);
    OK(cuMemsetD32(ticket, 0, 2));
    void *params[] = {&in, &ticket, &other};
    return run("in_turn", 16, 1, 0, params);
}
static void blocks_in_turn(void) {
    OK(in_turn(0));
    CHECK(float_at(in, 0) == 2 * 120);
}
static void blocks_out_of_turn(void) {
    CHECK(in_turn(1) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("CONFLICT between blocks of one launch"));
}

/* What a thread wrote before a flag is ordered for others by a release that reaches as far as their acquire. */
static CUresult take_flag(const char *raise) {
    start();
    CUdeviceptr flag = device_bytes(4);
    out = device_bytes(4);
    OK(cuMemsetD32(flag, 0, 1));
    void *raised[] = {&flag}, *taken[] = {&out, &flag};
    if (raise != NULL) OK(run(raise, 1, 1, 0, raised));
    return run("take_flag", 1, 1, 0, taken);
}
static void flags_that_order(void) {
    static const char *const raise[] = {NULL, "raise_fenced", "raise_old", "raise_sys", "raise_atomic"};
    for (size_t i = 0; i < sizeof raise / sizeof raise[0]; i++) OK(take_flag(raise[i]));
}
static void flags_that_do_not(void) {
    static const char *const rows[][2] = {
        {"raise_weak",    "without a release"           },
        {"raise_relaxed", "without a release"           },
        {"raise_gpu",     "release for its device alone"}
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK(take_flag(rows[i][0]) == CUDA_ERROR_LAUNCH_FAILED);
        CHECK(reported(rows[i][1]));
    }
}

/* ---- tiles that TMA brings (cc 9.0) ---- */

static CUresult run_tiles(const char *name) {
    const cuuint64_t dim[2] = {64, 128}, stride[1] = {128};
    const cuuint32_t box[2] = {64, 64}, steps[2] = {1, 1};
    uint16_t host[128 * 64];
    CUtensorMap map;
    start();
    ptx_file = EMU_PTX_DIR "/check_cases_sm90.ptx";
    for (int i = 0; i < 128 * 64; i++) host[i] = (uint16_t)(i < 64 * 64 ? 1 : 2);
    in = device_bytes(sizeof host);
    out = device_bytes(4 * 128);
    OK(cuMemcpyHtoD(in, host, sizeof host));
    OK(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)(uintptr_t)in, dim, stride, box, steps,
                              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
                              CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    void *params[] = {&out, &map};
    return run(name, 1, 128, 0, params);
}

static void tiles_good(void) {
    uint32_t sum = 0;
    OK(run_tiles("tiles_good"));
    OK(cuMemcpyDtoH(&sum, out, 4));
    CHECK(sum == 32 * 1 + 32 * 2);
}

static void tiles_unwaited(void) {
    CHECK(run_tiles("tiles_unwaited") == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(emu_report_count() > 0);
    emu_report_clear();
}

static void tiles_overwritten(void) {
    CHECK(run_tiles("tiles_overwritten") == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("RACE: overwrites what may still be read"));
}

/* The loader is two phases ahead before the others look: they wait for a parity that has come round again. */
static void tiles_lapped(void) {
    CHECK(run_tiles("tiles_overwritten") == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("deadlock"));
}

/* ---- launches that begin early (cc 9.0) ---- */

static CUdeviceptr step[2]; /* what the first launch writes and the second reads, and what the second writes */

static CUresult launch_step(const char *name, bool early, CUdeviceptr to, CUdeviceptr from, CUstream stream) {
    CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                   .value.programmaticStreamSerializationAllowed = 1};
    const CUlaunchConfig config = {.gridDimX = 1,
                                   .gridDimY = 1,
                                   .gridDimZ = 1,
                                   .blockDimX = 1,
                                   .blockDimY = 1,
                                   .blockDimZ = 1,
                                   .hStream = stream,
                                   .attrs = &attribute,
                                   .numAttrs = early ? 1 : 0};
    void *params[] = {&to, &from, &in};
    return cuLaunchKernelEx(&config, kernel(name), params, NULL);
}

/* in + in, by a launch that anybody may follow early; then the second. */
static CUresult two_steps(const char *second, bool early) {
    const float one = 1;
    start();
    ptx_file = EMU_PTX_DIR "/check_cases_sm90.ptx";
    in = device_bytes(4);
    for (int i = 0; i < 2; i++) step[i] = device_bytes(4);
    OK(cuMemcpyHtoD(in, &one, 4));
    CUstream stream = new_stream();
    OK(launch_step("early_good", false, step[0], in, stream));
    OK(launch_step(second, early, step[1], step[0], stream));
    return cuStreamSynchronize(stream);
}

static void early_good(void) {
    OK(two_steps("early_good", true));
    CHECK(float_at(step[1], 0) == 3);
}

static void early_mistakes_alone(void) {
    OK(two_steps("early_reads", false));
    CHECK(float_at(step[1], 0) == 3);
}

#define EARLY_MISTAKE(name, report)                                                                                    \
    static void name(void) {                                                                                           \
        CHECK(two_steps(#name, true) == CUDA_ERROR_LAUNCH_FAILED);                                                     \
        CHECK(reported("EARLY: " report));                                                                             \
    }
EARLY_MISTAKE(early_reads, "reads what the launch before wrote, before griddepcontrol.wait")
EARLY_MISTAKE(early_copies, "reads what the launch before wrote, before griddepcontrol.wait")
EARLY_MISTAKE(early_writes, "writes before griddepcontrol.wait")
EARLY_MISTAKE(early_releases, "launch_dependents before griddepcontrol.wait")
EARLY_MISTAKE(early_never, "no thread waits for the launch before")

/* ---- limits ---- */

static CUresult use_dynamic(int bytes) {
    int n = bytes / 4;
    void *params[] = {&out, &n};
    return run("use_dynamic", 1, 128, (unsigned)bytes, params);
}

static void dynamic_shared_needs_the_attribute(void) {
    int value = 0;
    start();
    out = device_bytes(4);
    OK(use_dynamic(48 * 1024));
    CHECK(use_dynamic(49 * 1024) == CUDA_ERROR_INVALID_VALUE);
    OK(cuFuncSetAttribute(kernel("use_dynamic"), CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 49 * 1024));
    OK(use_dynamic(49 * 1024));
    CHECK(float_at(out, 0) == 49 * 256 - 1);
    CHECK(cuFuncSetAttribute(kernel("use_dynamic"), CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 200 * 1024) ==
          CUDA_ERROR_INVALID_VALUE);
    OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, kernel("use_dynamic")));
    CHECK(value == 49 * 1024);
}

static CUresult launch_bounded(unsigned gx, unsigned gy, unsigned block) {
    CUstream stream = new_stream();
    void *params[] = {&out};
    return cuLaunchKernel(kernel("bounded"), gx, gy, 1, block, 1, 1, 0, stream, params, NULL);
}

static void launches_out_of_limits(void) {
    int n = 0;
    start();
    out = device_bytes(4 * 128);
    OK(launch_bounded(1, 1, 128));
    CHECK(launch_bounded(1, 1, 129) == CUDA_ERROR_INVALID_VALUE); // __launch_bounds__(128)
    CHECK(launch_bounded(1, 65536, 128) == CUDA_ERROR_INVALID_VALUE);
    CHECK(launch_bounded(0, 1, 128) == CUDA_ERROR_INVALID_VALUE);
    OK(cuFuncGetAttribute(&n, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, kernel("bounded")));
    CHECK(n == 128);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&n, kernel("bounded"), 128, 0));
    CHECK(n == 16);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&n, kernel("bounded"), 128, 48 * 1024));
    CHECK(n == 3);
}

static void too_many_registers(void) {
    float value = 1;
    int n = 1;
    start();
    out = device_bytes(4);
    void *params[] = {&out, &value, &n};
    CHECK(run("fill", 1, 1024, 0, params) == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    OK(run("fill", 1, 512, 0, params));
}

static void images_for_hardware_are_refused(void) {
    static const unsigned char fatbin[64] = {0x50, 0xed, 0x55, 0xba, 1};
    CUfunction function = NULL;
    CUmodule other = NULL;
    start();
    CHECK(cuModuleLoadData(&other, fatbin) == CUDA_ERROR_NO_BINARY_FOR_GPU);
    CHECK(cuModuleLoadData(&other, ".version 8.0\n.target sm_90\n.address_size 64\n") == CUDA_ERROR_INVALID_PTX);
    CHECK(cuModuleLoadData(&other, "//\n.version 10.0\n.target sm_80\n.address_size 64\n") ==
          CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    kernel("fill");
    CHECK(cuModuleGetFunction(&function, module, "no_such_kernel") == CUDA_ERROR_NOT_FOUND);
    OK(cuModuleUnload(module));
    CHECK(cuModuleUnload(module) == CUDA_ERROR_INVALID_HANDLE);
}

/* ---- graphs of kernels, counters ---- */

static void a_kernel_in_a_graph(void) {
    int n = 128;
    CUgraph graph = NULL;
    CUgraphExec exec = NULL;
    start();
    CUstream stream = new_stream();
    CUdeviceptr p = floats(128);
    CUfunction function = kernel("add_one");
    void *params[] = {&p, &n};
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuLaunchKernel(function, 1, 1, 1, 128, 1, 1, 0, stream, params, NULL));
    OK(cuStreamEndCapture(stream, &graph));
    p = 0; // parameters were copied at the launch
    n = 0;
    OK(cuGraphInstantiate(&exec, graph, 0));
    OK(cuGraphDestroy(graph));
    for (int i = 0; i < 3; i++) OK(cuGraphLaunch(exec, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuGraphExecDestroy(exec));
}

/* The number behind "key": in the line of the kernel. */
static long counted(const char *name, const char *space, const char *key) {
    char path[] = "/tmp/emu-counts-XXXXXX", wanted[80];
    const int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    CHECK(emu_counts_write(path) == 0);
    char *text = read_text(path);
    unlink(path);
    snprintf(wanted, sizeof wanted, "{\"kernel\": \"%s\"", name);
    const char *at = strstr(text, wanted);
    CHECK(at != NULL);
    snprintf(wanted, sizeof wanted, "\"%s\": {", space);
    CHECK((at = strstr(at, wanted)) != NULL);
    snprintf(wanted, sizeof wanted, "\"%s\": ", key);
    CHECK((at = strstr(at, wanted)) != NULL);
    const long value = strtol(at + strlen(wanted), NULL, 10);
    free(text);
    return value;
}

static void copy_strided(int stride) {
    in = floats(32 * stride);
    out = device_bytes(4 * 32);
    void *params[] = {&out, &in, &stride};
    OK(run("copy_strided", 1, 32, 0, params));
}

static void sectors_are_counted(void) {
    start();
    copy_strided(1);
    CHECK(counted("copy_strided", "global_load", "requests") == 1);
    CHECK(counted("copy_strided", "global_load", "sectors") == 4);
    CHECK(counted("copy_strided", "global_load", "ideal") == 4);
    emu_counts_clear();
    copy_strided(8);
    CHECK(counted("copy_strided", "global_load", "sectors") == 32);
    CHECK(counted("copy_strided", "global_load", "ideal") == 4);
    CHECK(counted("copy_strided", "global_store", "sectors") == 4);
}

static void transpose(const char *name) {
    in = floats(1024);
    out = device_bytes(4096);
    CUstream stream = new_stream();
    void *params[] = {&out, &in};
    OK(cuLaunchKernel(kernel(name), 1, 1, 1, 32, 32, 1, 0, stream, params, NULL));
    OK(cuStreamSynchronize(stream));
}

static void bank_passes_are_counted(void) {
    start();
    transpose("transpose_padded");
    transpose("transpose_conflicts");
    CHECK(counted("transpose_padded", "shared_load", "passes") == 32);
    CHECK(counted("transpose_conflicts", "shared_load", "passes") == 32 * 32);
    CHECK(counted("transpose_conflicts", "shared_load", "ideal") == 32);
    CHECK(counted("transpose_conflicts", "shared_store", "passes") == 32);
}

/* ---- a kernel that waits for the host: other streams' copies go on, other kernels of the process do not ---- */

static CUresult launch_add(CUstream stream);

static void a_poll_lets_copies_go_on(void) {
    start();
    CUstream stream = new_stream(), other = new_stream(), copies = new_stream();
    CUdeviceptr flag = device_bytes(4);
    out = device_bytes(4);
    OK(cuMemsetD32(flag, 0, 1));
    void *params[] = {&out, &flag};
    OK(cuLaunchKernel(kernel("wait_flag"), 1, 1, 1, 1, 1, 1, 0, stream, params, NULL));
    for (int i = 0; i < 10; i++) CHECK(cuStreamQuery(stream) == CUDA_ERROR_NOT_READY);
    OK(launch_add(other));
    for (int i = 0; i < 10; i++) CHECK(cuStreamQuery(other) == CUDA_ERROR_NOT_READY);
    CHECK(float_at(in, 1) == 1);
    OK(cuMemsetD32Async(flag, 7, 1, copies));
    OK(cuStreamSynchronize(copies));
    OK(cuStreamSynchronize(stream));
    OK(cuStreamSynchronize(other));
    CHECK(float_at(in, 1) == 2);
}

/* ---- faults on request: of the second launch ---- */

static CUresult launch_add(CUstream stream) {
    int n = 128;
    if (in == 0) in = floats(n);
    void *params[] = {&in, &n};
    return cuLaunchKernel(kernel("add_one"), 1, 1, 1, 128, 1, 1, 0, stream, params, NULL);
}

static void a_launch_kills(void) {
    start();
    CUstream stream = new_stream();
    OK(launch_add(stream));
    OK(cuStreamSynchronize(stream));
    CHECK(float_at(in, 1) == 2);
    OK(launch_add(stream));
    (void)cuStreamSynchronize(stream);
}

static void a_launch_loses_the_device(void) {
    start();
    CUstream stream = new_stream();
    OK(launch_add(stream));
    OK(launch_add(stream));
    CHECK(cuStreamSynchronize(stream) == CUDA_ERROR_ECC_UNCORRECTABLE);
    CHECK(cuStreamSynchronize(stream) == CUDA_ERROR_ECC_UNCORRECTABLE);
    CHECK(emu_report_count() == 0);
}

static void a_launch_hangs(void) {
    start();
    CUstream stream = new_stream(), other = new_stream();
    OK(launch_add(stream));
    OK(launch_add(stream));
    for (int i = 0; i < 10; i++) CHECK(cuStreamQuery(stream) == CUDA_ERROR_NOT_READY);
    OK(cuMemsetD32Async(device_bytes(4), 1, 1, other));
    OK(cuStreamSynchronize(other));
    _exit(0); // leaving in order would wait for it
}

static void a_launch_stalls(void) {
    start();
    CUstream stream = new_stream();
    OK(launch_add(stream));
    alarm(1);
    (void)launch_add(stream);
    CHECK(false);
}

#define ALL_ORDERS(body)                                                                                               \
    ROW("order=forward,copies=late", body), ROW("order=backward,copies=late", body),                                   \
        ROW("order=random,seed=5,copies=random", body), ROW("order=forward,copies=early", body)

static const struct row rows[] = {
    ALL_ORDERS(reverse_good),
    ALL_ORDERS(reverse_bad),
    ALL_ORDERS(reuse_good),
    ALL_ORDERS(reuse_bad),
    ALL_ORDERS(lanes_good),
    ALL_ORDERS(lanes_bad),
    ALL_ORDERS(some_lanes_meet),
    ALL_ORDERS(some_lanes_meet_in_global_memory),
    ALL_ORDERS(some_lanes_look),
    ALL_ORDERS(some_lanes_look_at_global_memory),
    ALL_ORDERS(stages_good),
    ROW("order=forward,copies=late", stages_bad),
    ROW("order=backward,copies=late", stages_bad),
    ALL_ORDERS(written_half_read),
    ALL_ORDERS(unwritten_half_read),
    ALL_ORDERS(bytes_of_one_word_are_apart),
    ALL_ORDERS(a_neighbours_byte),
    ALL_ORDERS(shared_atomics),
    ALL_ORDERS(in_bounds),
    ALL_ORDERS(four_bytes_past_the_end),
    ROW("check=0", four_bytes_past_the_end),
    ROW("cc=80", before_the_start),
    ROW("cc=80", use_after_free),
    ROW("cc=80", initialised),
    ALL_ORDERS(uninitialised_read),
    ROW("uninit=0", uninitialised_reads_allowed),
    ALL_ORDERS(hand_on),
    ALL_ORDERS(hand_on_unread),
    ALL_ORDERS(hand_on_unasked),
    ALL_ORDERS(atomics_behind_a_plain_store),
    ROW("cc=80", product_of_a_warp),
    ROW("cc=80", product_of_some_lanes),
    ROW("cc=80", aligned_vector),
    ALL_ORDERS(misaligned_vector),
    ROW("devices=2", kernels_see_other_memory_only_with_permission),
    ROW("streams=late", a_kernel_without_the_wait),
    ALL_ORDERS(each_block_its_word),
    ALL_ORDERS(two_blocks_one_word),
    ALL_ORDERS(one_block_shifts),
    ALL_ORDERS(two_blocks_shift),
    ALL_ORDERS(a_block_exchanges),
    ALL_ORDERS(a_block_exchanges_too_early),
    ALL_ORDERS(a_block_writes_one_word),
    ALL_ORDERS(lanes_at_two_barriers),
    ALL_ORDERS(arrays_of_threads),
    ALL_ORDERS(arrays_of_threads_with_holes),
    ALL_ORDERS(halves_of_a_word),
    ALL_ORDERS(last_block_adds),
    ALL_ORDERS(blocks_that_hand_over),
    ALL_ORDERS(blocks_that_do_not),
    ROW("order=forward", blocks_relay),
    ROW("order=forward", a_relay_with_a_gap),
    ALL_ORDERS(blocks_in_turn),
    ALL_ORDERS(blocks_out_of_turn),
    ROW("cc=80", flags_that_order),
    ROW("cc=80", flags_that_do_not),
    ROW("cc=90,order=forward,copies=late", tiles_good),
    ROW("cc=90,order=backward,copies=early", tiles_good),
    ROW("cc=90,order=random,copies=random", tiles_good),
    ROW("cc=90,copies=late", tiles_unwaited),
    ROW("cc=90,copies=late", tiles_overwritten),
    ROW("cc=90,order=backward,copies=early", tiles_lapped),
    ROW("cc=90,copies=late", early_good),
    ROW("cc=90", early_mistakes_alone),
    ROW("cc=90", early_reads),
    ROW("cc=90,copies=late", early_copies),
    ROW("cc=90,copies=early", early_copies),
    ROW("cc=90", early_writes),
    ROW("cc=90", early_releases),
    ROW("cc=90", early_never),
    ROW("cc=80", dynamic_shared_needs_the_attribute),
    ROW("cc=80", launches_out_of_limits),
    ROW("regs=" REGISTER_TABLE, too_many_registers),
    ROW("cc=80", images_for_hardware_are_refused),
    ROW("streams=late", a_kernel_in_a_graph),
    ROW("streams=late,hostguard=1", a_kernel_in_a_graph),
    ROW("streams=late", a_poll_lets_copies_go_on),
    ROW("streams=early", a_poll_lets_copies_go_on),
    ROW_EXIT("fault=die,fault_at=2", a_launch_kills, -SIGKILL),
    ROW("fault=fail,fault_at=2", a_launch_loses_the_device),
    ROW("fault=hang,fault_at=2", a_launch_hangs),
    ROW_EXIT("streams=early,fault=stall,fault_at=2", a_launch_stalls, -SIGALRM),
    ROW("count=-", sectors_are_counted),
    ROW("count=-", bank_passes_are_counted),
};

int main(void) {
    return run_rows(rows, sizeof rows / sizeof rows[0]);
}
