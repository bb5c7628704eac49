#include "status.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static _Thread_local struct nt_error error_record;
static _Atomic(nt_bug_hook *) bug_hook;

static const struct {
    const char *text;
    int exit_code;
} status_rows[] = {
#define X(name, exit_code, text) [NT_##name] = {(text), (exit_code)},
    NT_STATUS_LIST(X)
#undef X
};
_Static_assert(sizeof status_rows / sizeof status_rows[0] == NT_STATUS_COUNT, "one row per status code");

static bool has_row(nt_status code) {
    return (unsigned)code < NT_STATUS_COUNT;
}

const char *nt_status_text(nt_status code) {
    return has_row(code) ? status_rows[code].text : "unknown status";
}

int nt_status_exit_code(nt_status code) {
    return has_row(code) ? status_rows[code].exit_code : status_rows[NT_E_INTERNAL].exit_code;
}

nt_status nt_fail_at(nt_status code, const char *file, int line, const char *fmt, ...) {
    /* Formatted aside first: an argument may point into the record that is being replaced. */
    char text[NT_ERROR_TEXT];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0) text[0] = '\0';
    /* A cut sentence shows that it is cut. */
    if (n >= (int)sizeof text) memcpy(text + sizeof text - 4, "...", 4);

    struct nt_error *e = &error_record;
    e->code = code;
    e->heard = false;
    memcpy(e->text, text, sizeof text);
    e->n_trail = 0;
    return nt_trail_at(code, file, line);
}

nt_status nt_trail_at(nt_status code, const char *file, int line) {
    struct nt_error *e = &error_record;
    if (e->n_trail < NT_ERROR_TRAIL) {
        e->trail[e->n_trail].file = file;
        e->trail[e->n_trail].line = line;
        e->n_trail++;
    }
    return code;
}

const struct nt_error *nt_error_last(void) {
    return &error_record;
}

void nt_error_take(struct nt_error *out) {
    *out = error_record;
    nt_error_clear();
}

void nt_error_give(const struct nt_error *err) {
    if (err != &error_record) error_record = *err;
}

void nt_error_clear(void) {
    error_record.code = NT_OK;
    error_record.heard = false;
    error_record.text[0] = '\0';
    error_record.n_trail = 0;
}

void nt_error_mark_heard(void) {
    error_record.heard = true;
}

void nt_bug_set_hook(nt_bug_hook *hook) {
    atomic_store(&bug_hook, hook);
}

void nt_bug_at(const char *file, int line, const char *fmt, ...) {
    char text[NT_ERROR_TEXT];
    va_list args;
    va_start(args, fmt);
    if (vsnprintf(text, sizeof text, fmt, args) < 0) text[0] = '\0';
    va_end(args);
    nt_bug_hook *hook = atomic_load(&bug_hook);
    if (hook) hook(file, line, text);
    __builtin_trap();
}
