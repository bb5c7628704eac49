/* Helpers of the emulator's own tests: each case runs in a child process with its own options, because options are
 * read once and a report is for good. A child that fails a CHECK exits with 99; reports still standing at its end
 * make it exit with 86 by themselves, so silence is checked too. Kernels come as PTX files made by nvcc.
 * Include in one file per test program; cmocka in the parent only.
 */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>
#include <cuda.h>
#include <sys/wait.h>
#include <unistd.h>

/* Exported by libcuda_emu.so beside the cu* functions. */
int emu_report_count(void);
const char *emu_report_text(int i);
void emu_report_clear(void);
int emu_counts_write(const char *path);
void emu_counts_clear(void);

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition);                              \
            _exit(99);                                                                                                 \
        }                                                                                                              \
    } while (0)
#define OK(call) CHECK((call) == CUDA_SUCCESS)

/* Exit status of the case; -signal when a signal ended it. */
static inline int run_case(const char *options, void (*body)(void)) {
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        setenv("NT_EMU", options, 1);
        body();
        exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return 98;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline CUcontext start_on(CUdevice device) {
    CUcontext context = NULL;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, device));
    OK(cuCtxSetCurrent(context));
    return context;
}

static inline CUcontext start(void) {
    return start_on(0);
}

static inline CUstream new_stream(void) {
    CUstream stream = NULL;
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    return stream;
}

static inline CUdeviceptr device_bytes(size_t n) {
    CUdeviceptr p = 0;
    OK(cuMemAlloc(&p, n));
    return p;
}

static inline void *pinned_bytes(size_t n) {
    void *p = NULL;
    OK(cuMemHostAlloc(&p, n, 0));
    return p;
}

/* A file of PTX, to be freed. */
static inline char *read_text(const char *path) {
    FILE *f = fopen(path, "rb");
    CHECK(f != NULL);
    CHECK(fseek(f, 0, SEEK_END) == 0);
    const long n = ftell(f);
    CHECK(n > 0 && fseek(f, 0, SEEK_SET) == 0);
    char *text = malloc((size_t)n + 1);
    CHECK(text != NULL && fread(text, 1, (size_t)n, f) == (size_t)n);
    text[n] = '\0';
    fclose(f);
    return text;
}

/* Whether exactly this was reported (once or more); the reports are cleared. */
static inline bool reported(const char *part) {
    const int n = emu_report_count();
    bool all = n > 0;
    for (int i = 0; i < n; i++)
        if (strstr(emu_report_text(i), part) == NULL) all = false;
    emu_report_clear();
    return all;
}

struct row {
    const char *options;
    void (*body)(void);
    const char *name;
    int status; // what the case must exit with
};
#define ROW(options, body)                                                                                             \
    { options, body, #body " (" options ")", 0 }
#define ROW_EXIT(options, body, status)                                                                                \
    { options, body, #body " (" options ")", status }

static void run_row(void **state) {
    const struct row *row = *state;
    assert_int_equal(run_case(row->options, row->body), row->status);
}

static inline int run_rows(const struct row *rows, size_t n) {
    struct CMUnitTest *tests = calloc(n, sizeof *tests);
    if (tests == NULL) return 1;
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){
            .name = rows[i].name, .test_func = run_row, .initial_state = (void *)(uintptr_t)&rows[i]};
    const int n_failed = _cmocka_run_group_tests("emulator", tests, n, NULL, NULL);
    free(tests);
    return n_failed;
}
