/* Reports: what the program under test did wrong. Printed once per place (kernel, line, kind), kept for tests, and made
 * the error of the driver call that ran the work. A process with reports ends with the status of option exitcode. */
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "emu.h"
#include "work.h"

enum { MAX_KEPT = 256, MAX_SAME_PLACE = 3, LENGTH = 1024 };

static struct {
    char *text[MAX_KEPT];
    uint64_t place[MAX_KEPT]; // hash of kernel, instruction and wording
    int32_t n;
    int64_t total;
    bool at_exit;
} reports;

static void leave(void) {
    emu_counts_at_exit();
    if (reports.total == 0 || emu_options()->exitcode == 0) return;
    fprintf(stderr, "emu: %lld reports: exit status %d\n", (long long)reports.total, emu_options()->exitcode);
    fflush(NULL);
    _exit(emu_options()->exitcode);
}

void emu_watch_exit(void) {
    if (!reports.at_exit) reports.at_exit = atexit(leave) == 0;
}

static uint64_t place_of(const struct emu_where *where, const char *format) {
    uint64_t hash = 14695981039346656037u;
    for (const char *p = format; *p != '\0'; p++) hash = (hash ^ (uint8_t)*p) * 1099511628211u;
    if (where != NULL && where->instr != NULL) hash ^= (uint64_t)(uintptr_t)where->instr;
    return hash;
}

static int32_t times_seen(uint64_t place) {
    int32_t n = 0;
    for (int32_t i = 0; i < reports.n; i++) n += reports.place[i] == place;
    return n;
}

/* " [kernel k, block (0,0,0), thread (1,0,0), file.cu:12, PTX line 80: ld.global...]" */
static void append_where(const struct emu_where *where, char *text, size_t n) {
    if (where == NULL) return;
    const struct emu_block *block = where->thread != NULL ? where->thread->block : where->block;
    size_t at = strlen(text);
    if (block != NULL && at < n)
        snprintf(text + at, n - at, " [kernel %s, block (%u,%u,%u)", block->launch->kernel->name, block->index[0],
                 block->index[1], block->index[2]);
    at = strlen(text);
    if (where->thread != NULL && at < n) {
        const uint32_t *t = where->thread->index;
        snprintf(text + at, n - at, ", thread (%u,%u,%u)", t[0], t[1], t[2]);
    }
    at = strlen(text);
    if (where->instr != NULL && where->instr->file != NULL && at < n)
        snprintf(text + at, n - at, ", %s:%d", where->instr->file, where->instr->line);
    at = strlen(text);
    if (where->instr != NULL && at < n)
        snprintf(text + at, n - at, ", PTX line %d: %s", where->instr->ptx_line, where->instr->text);
    at = strlen(text);
    if (block != NULL && at < n) snprintf(text + at, n - at, "]");
}

void emu_report(const struct emu_where *where, const char *format, ...) {
    char text[LENGTH];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    emu_lock();
    reports.total++;
    emu_state.sticky = CUDA_ERROR_LAUNCH_FAILED;
    emu_watch_exit();
    const uint64_t place = place_of(where, format);
    if (reports.n < MAX_KEPT && times_seen(place) < MAX_SAME_PLACE) {
        append_where(where, text, sizeof text);
        reports.text[reports.n] = strdup(text);
        reports.place[reports.n++] = place;
        fprintf(stderr, "emu: %s\n", text);
    }
    emu_unlock();
}

int64_t emu_report_total(void) {
    return reports.total;
}

void emu_work_fail(const char *text) {
    emu_report(NULL, "%s", text);
}

/* ---- for tests, by dlsym ---- */

int emu_report_count(void) {
    return reports.n;
}

const char *emu_report_text(int i) {
    return i >= 0 && i < reports.n ? reports.text[i] : NULL;
}

void emu_report_clear(void) {
    emu_lock();
    for (int32_t i = 0; i < reports.n; i++) free(reports.text[i]);
    reports.n = 0;
    reports.total = 0;
    emu_state.sticky = CUDA_SUCCESS;
    emu_unlock();
}
