/* Options of the emulator, from the environment variable NT_EMU: "devices=2,cc=90,order=random,seed=7". */
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "emu.h"

enum value_kind { NUMBER, BIG, TIMING, ORDER, FAULT, TEXT };

static const struct {
    const char *name;
    enum value_kind kind;
    size_t offset;
    int64_t low, high;
    const char *help;
} rows[] = {
#define ROW(field, kind, low, high, help)                                                                              \
    { #field, kind, offsetof(struct emu_options, field), low, high, help }
    ROW(devices, NUMBER, 0, EMU_MAX_DEVICES, "emulated devices"),
    ROW(cc, NUMBER, 75, 90, "compute capability: 75 (too old for the program), 80, 89 (little shared memory) or 90"),
    ROW(memory, BIG, 1 << 20, 1LL << 38, "bytes of memory per device"),
    ROW(driver, NUMBER, 11000, 99999, "what cuDriverGetVersion says"),
    ROW(isa, NUMBER, 60, 999, "newest PTX that is compiled, ten times its .version"),
    ROW(busy, NUMBER, 0, 1, "another process has the devices, which are in exclusive mode"),
    ROW(mig, NUMBER, 0, 1, "devices are parts of one GPU: each has a uuid, all have its bus id"),
    ROW(peer, NUMBER, 0, 2, "devices can access each other's memory; 2: what they write there does not arrive"),
    ROW(order, ORDER, 0, 0, "threads and blocks: forward, backward, random"),
    ROW(seed, BIG, 0, INT64_MAX, "of everything random"),
    ROW(copies, TIMING, 0, 0, "cp.async and TMA: early, late, random"),
    ROW(streams, TIMING, 0, 0, "stream work: early, late, random"),
    ROW(idle_ms, NUMBER, 0, 1000000, "with several processes: idle time after which queued work runs"),
    ROW(check, NUMBER, 0, 1, "race and initialisation checks"),
    ROW(uninit, NUMBER, 0, 1, "reads of uninitialised device memory are reported"),
    ROW(registers, NUMBER, 0, 1, "reads of registers that were never written are reported"),
    ROW(leaks, NUMBER, 0, 1, "allocations alive at context release are a report"),
    ROW(stream0, NUMBER, 0, 1, "0: any use of the default stream is a report"),
    ROW(freesync, NUMBER, 0, 1, "cuMemFree waits for the device, as real drivers do but do not promise"),
    ROW(hostguard, NUMBER, 0, 1, "host code that touches device memory is stopped"),
    ROW(ulp, NUMBER, 0, 4, "error added to approximate functions, in ulp"),
    ROW(shuffle, NUMBER, 0, 1, "order of sums inside mma is shuffled"),
    ROW(count, TEXT, 0, 0, "file of per-kernel counters, written at exit; %p in it is the process id"),
    ROW(ptx, TEXT, 0, 0, "file of PTX that is loaded in place of each module with the same first kernel"),
    ROW(regs, TEXT, 0, 0, "registers of kernels: output of ptxas -v, or a folder of *.ptxas.txt"),
    ROW(exitcode, NUMBER, 0, 255, "exit status of a process with reports; 0: its own"),
    ROW(trace, NUMBER, 0, 1, "one line on stderr per launch"),
    ROW(parse, NUMBER, 0, 1, "kernels are parsed when their module is loaded, not when they are launched"),
    ROW(fault, FAULT, 0, 0,
        "what befalls launch fault_at: die (SIGKILL), fail (the device is lost), hang (it never ends), stall (the call "
        "that launches it does not return)"),
    ROW(fault_at, NUMBER, 1, INT32_MAX,
        "the how manieth launch of the process, as they run; of stall, as they are called"),
    ROW(unmap, NUMBER, 0, 1, "0: letting go of another process's memory never returns"),
#undef ROW
};

static struct emu_options options = {
    .devices = 1,
    .cc = 80,
    .memory = (uint64_t)16 << 30,
    .driver = 13000,
    .isa = 99,
    .peer = 1,
    .seed = 1,
    .copies = EMU_LATE,
    .streams = EMU_LATE,
    .idle_ms = 10,
    .check = 1,
    .uninit = 1,
    .registers = 1,
    .stream0 = 1,
    .freesync = 1,
    .exitcode = 86,
    .fault_at = 1,
    .unmap = 1,
};

static void fail(const char *name, const char *value) {
    fprintf(stderr, "emu: NT_EMU: '%s=%s' is not understood; options are:\n", name, value);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        fprintf(stderr, "  %-10s%s\n", rows[i].name, rows[i].help);
    exit(2);
}

/* Index of the word, -1 when it is none of them. */
static int32_t find_word(const char *value, const char *const *word) {
    for (int32_t i = 0; word[i] != NULL; i++)
        if (strcmp(value, word[i]) == 0) return i;
    return -1;
}

static bool set_row(size_t row, const char *value) {
    static const char *const timings[] = {"early", "late", "random", NULL};
    static const char *const orders[] = {"forward", "backward", "random", NULL};
    static const char *const faults[] = {"none", "die", "fail", "hang", "stall", NULL};
    char *field = (char *)&options + rows[row].offset;
    if (rows[row].kind == TEXT) {
        char *copy = strdup(value);
        memcpy(field, &copy, sizeof copy);
        return copy != NULL && value[0] != '\0';
    }
    int64_t number = 0;
    char *end = NULL;
    switch (rows[row].kind) {
    case TIMING:
        number = find_word(value, timings);
        break;
    case ORDER:
        number = find_word(value, orders);
        break;
    case FAULT:
        number = find_word(value, faults);
        break;
    default:
        number = strtoll(value, &end, 0);
        if (end == value || *end != '\0' || number < rows[row].low || number > rows[row].high) return false;
        break;
    }
    const int32_t small = (int32_t)number;
    if (rows[row].kind == BIG)
        memcpy(field, &number, sizeof number);
    else
        memcpy(field, &small, sizeof small);
    return number >= 0;
}

static void set_option(char *item) {
    char *equals = strchr(item, '=');
    if (equals == NULL) fail(item, "");
    *equals = '\0';
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].name, item) == 0) {
            if (!set_row(i, equals + 1)) fail(item, equals + 1);
            return;
        }
    fail(item, equals + 1);
}

static void read_options(void) {
    const char *text = getenv("NT_EMU");
    char *copy = text == NULL ? NULL : strdup(text), *rest = NULL;
    if (copy == NULL) return;
    for (char *item = strtok_r(copy, ",", &rest); item != NULL; item = strtok_r(NULL, ",", &rest)) set_option(item);
    free(copy);
    if (options.cc != 75 && options.cc != 80 && options.cc != 89 && options.cc != 90) fail("cc", "?");
}

const struct emu_options *emu_options(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_options);
    return &options;
}
