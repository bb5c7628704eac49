/* Opening the CUDA backend: every way it can fail has its own sentence, and the choice of a device. */
#include "cuda_backend.h"
#include "gpu_api.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

struct answer {
    nt_status st;
    int32_t value;
    char text[NT_ERROR_TEXT];
};

/* A driver is loaded once per process and reads its environment then: each try has a process of its own. */
static void in_child(const char *driver, const char *emu, struct answer (*run)(int32_t arg), int32_t arg,
                     struct answer *out) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)(driver ? setenv("NOCTURNE_CUDA_DRIVER", driver, 1) : unsetenv("NOCTURNE_CUDA_DRIVER"));
        (void)(emu ? setenv("NT_EMU", emu, 1) : unsetenv("NT_EMU"));
        const struct answer answer = run(arg);
        _exit(write(ends[1], &answer, sizeof answer) == sizeof answer ? 0 : 1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], out, sizeof *out), sizeof *out);
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static struct answer answer_of(nt_status st, int32_t value) {
    struct answer a = {.st = st, .value = value};
    if (st != NT_OK) (void)snprintf(a.text, sizeof a.text, "%s", nt_error_last()->text);
    return a;
}

static struct answer open_backend(int32_t device) {
    struct nt_backend be;
    const nt_status st = nt_backend_open_cuda(&be, device, NULL);
    const struct answer a = answer_of(st, st == NT_OK ? be.cuda->facts.cc : 0);
    if (st == NT_OK)
        nt_backend_close(&be);
    else if (be.cuda)
        return (struct answer){.st = NT_E_INTERNAL, .text = "the state of a failed open was not released"};
    return a;
}

static void expect(const char *driver, const char *emu, int32_t device, nt_status st, const char *says) {
    struct answer a;
    in_child(driver, emu, open_backend, device, &a);
    if (a.st != st || !strstr(a.text, says)) fail_msg("%d \"%s\", expected \"%s\"", a.st, a.text, says);
}

#ifndef NT_HAVE_CUDA

static void test_absent(void **state) {
    (void)state;
    expect(NULL, NULL, 0, NT_E_UNSUPPORTED, "this build has no CUDA backend: it was made without nvcc");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_absent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void test_no_driver(void **state) {
    (void)state;
    expect("/nonexistent/libcuda.so", NULL, 0, NT_E_UNSUPPORTED,
           "NOCTURNE_CUDA_DRIVER names a library that does not open: /nonexistent/libcuda.so");
    struct answer a;
    in_child(NULL, NULL, open_backend, 0, &a); /* a machine with a GPU opens it */
    if (a.st == NT_OK) return;
    assert_int_equal(a.st, NT_E_UNSUPPORTED);
    assert_true(a.text[0] != '\0');
}

static void test_no_driver_library(void **state) {
    (void)state;
    expect("libm.so.6", NULL, 0, NT_E_UNSUPPORTED, "libm.so.6 is no CUDA driver: it lacks cuInit");
}

static void test_stub(void **state) {
    (void)state;
#ifdef NT_CUDA_STUB
    expect(NT_CUDA_STUB, NULL, 0, NT_E_UNSUPPORTED, "is the stub library of the CUDA toolkit, not a driver");
#else
    skip();
#endif
}

static struct answer open_blaslt(int32_t driver_version) {
    struct nt_gpu_blaslt api;
    return answer_of(nt_gpu_blaslt_open(driver_version, &api), 0);
}

/* A library that is newer than the driver opens and then does not start. */
static void test_library_of_driver(void **state) {
    (void)state;
    for (int32_t version = 12090; version <= 13000; version += 910) {
        struct answer a;
        in_child(NULL, NULL, open_blaslt, version, &a);
        if (a.st == NT_OK) continue; /* it is there */
        assert_non_null(strstr(a.text, "libcublasLt.so.12 does not open"));
        assert_true((strstr(a.text, "libcublasLt.so.13 or") != NULL) == (version == 13000));
    }
}

#ifdef NT_CUDA_EMU

static void test_too_old(void **state) {
    (void)state;
    expect(NT_CUDA_EMU, "driver=11080", 0, NT_E_UNSUPPORTED, "is too old: it supports CUDA 11.8, and 12.0 is needed");
    expect(NT_CUDA_EMU, "driver=12040,isa=60", 0, NT_E_UNSUPPORTED, "and this node's driver is for CUDA 12.4");
    expect(NT_CUDA_EMU, "cc=75", 0, NT_E_UNSUPPORTED, "has compute capability 7.5; 8.0 or newer is needed");
}

static void test_no_device(void **state) {
    (void)state;
    expect(NT_CUDA_EMU, "devices=0", 0, NT_E_UNSUPPORTED, "sees no device");
    expect(NT_CUDA_EMU, "devices=2", 2, NT_E_UNSUPPORTED, "there is no CUDA device 2: the driver sees 2");
    expect(NT_CUDA_EMU, "busy=1", 0, NT_E_UNSUPPORTED, "0000:01:00.0) takes no further process: its compute mode");
    expect(NT_CUDA_EMU, "devices=2", -1, NT_E_UNSUPPORTED, "there is no CUDA device -1");
}

static void test_opens(void **state) {
    (void)state;
    static const char *const options[] = {"cc=80", "cc=90", "cc=80,driver=12000", "devices=2,cc=90,leaks=1"};
    static const int32_t cc[] = {80, 90, 80, 90};
    for (int i = 0; i < 4; i++) {
        struct answer a;
        in_child(NT_CUDA_EMU, options[i], open_backend, i == 3, &a);
        if (a.st != NT_OK) fail_msg("%s: %s", options[i], a.text);
        assert_int_equal(a.value, cc[i]);
    }
}

static struct answer pick(int32_t local_rank) {
    int32_t device = -1;
    const nt_status st = nt_cuda_pick_device(local_rank, &device);
    return answer_of(st, device);
}

static void test_pick(void **state) {
    (void)state;
    static const struct {
        const char *emu;
        int32_t local_rank, device;
    } rows[] = {
        {"devices=1", 0, 0},
        {"devices=1", 3, 0},
        {"devices=4", 3, 3},
        {"devices=4", 1, 1},
        {"devices=2", 3, 1},
        {"devices=3", 5, 2}
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct answer a;
        in_child(NT_CUDA_EMU, rows[i].emu, pick, rows[i].local_rank, &a);
        assert_int_equal(a.st, NT_OK);
        assert_int_equal(a.value, rows[i].device);
    }
    struct answer a;
    in_child(NT_CUDA_EMU, "devices=2,cc=75", pick, 3, &a);
    assert_int_equal(a.st, NT_E_UNSUPPORTED);
    assert_non_null(strstr(a.text, "CUDA device 1 "));
}

static struct answer facts(int32_t device) {
    struct nt_cuda_facts f[2];
    unsigned char uuids[2][16];
    for (int i = 0; i < 2; i++) {
        const nt_status st = nt_cuda_device_facts(device + i, &f[i]);
        if (st != NT_OK) return answer_of(st, 0);
        memcpy(uuids[i], f[i].uuid, sizeof uuids[i]);
    }
    const bool sane = f[0].name[0] && f[0].n_sm > 0 && f[0].max_shared >= 48 << 10 && f[0].memory > 0 &&
                      f[0].emulated && f[0].driver >= NT_GPU_DRIVER_NEEDED;
    return answer_of(NT_OK, sane && memcmp(uuids[0], uuids[1], sizeof uuids[0]) != 0);
}

static void test_facts(void **state) {
    (void)state;
    struct answer a;
    in_child(NT_CUDA_EMU, "devices=2", facts, 0, &a);
    assert_int_equal(a.st, NT_OK);
    assert_true(a.value); /* two devices differ */
}

/* Available to each of three ranks: a third of what was free, less what it takes from then on. */
static struct answer share_device(int32_t n_rank) {
    enum { MIB = 1 << 20 };
    struct nt_backend be;
    void *memory = NULL;
    nt_status st = nt_backend_open_cuda(&be, 0, NULL);
    if (st != NT_OK) return answer_of(st, 0);
    const size_t free_before = be.memory->available(&be);
    nt_cuda_share(&be, n_rank, false, false);
    const size_t part = be.memory->available(&be);
    st = be.memory->take(&be, MIB, "test", &memory);
    const bool right = part == free_before / (size_t)n_rank && be.memory->available(&be) == part - MIB;
    if (st == NT_OK) be.memory->give(&be, memory, MIB);
    nt_backend_close(&be);
    return answer_of(st, right);
}

static void test_share(void **state) {
    (void)state;
    for (int32_t n_rank = 1; n_rank <= 3; n_rank += 2) {
        struct answer a;
        in_child(NT_CUDA_EMU, "cc=80", share_device, n_rank, &a);
        assert_int_equal(a.st, NT_OK);
        assert_true(a.value);
    }
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_driver), cmocka_unit_test(test_no_driver_library),
        cmocka_unit_test(test_stub),      cmocka_unit_test(test_library_of_driver),
#ifdef NT_CUDA_EMU
        cmocka_unit_test(test_too_old),   cmocka_unit_test(test_no_device),
        cmocka_unit_test(test_opens),     cmocka_unit_test(test_pick),
        cmocka_unit_test(test_facts),     cmocka_unit_test(test_share),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
