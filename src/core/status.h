/* Status codes, the thread's error sentence and its trail.
 *
 * Every fallible function returns nt_status. The first function that knows the cause writes one sentence with
 * NT_FAIL(code, "...") into the thread's error record; every caller adds only its place with NT_TRY(call).
 * Nobody prints on the way up; main.c prints sentence + trail and ends the process (and with it all ranks).
 * A sentence names the file, the line or offset, what was expected, and the remedy.
 * Threading: the error record is thread local. A worker hands its record to the caller with nt_error_take/give.
 * nt_bug() is for the impossible: always on, never returns, reaches the end through the hook main installs. */
#ifndef NT_STATUS_H
#define NT_STATUS_H

#include <stdbool.h>
#include <stddef.h>

#define NT_MUST              __attribute__((warn_unused_result))
#define NT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* X(name, process exit code, text). Exit codes follow sysexits.h where it has one. */
#define NT_STATUS_LIST(X)                                                                                              \
    X(OK, 0, "ok")                                                                                                     \
    X(E_USAGE, 2, "wrong command line")                                                                                \
    X(E_DATA, 65, "bad input data")                                                                                    \
    X(E_NOINPUT, 66, "input not found")                                                                                \
    X(E_UNSUPPORTED, 69, "not supported")                                                                              \
    X(E_INTERNAL, 70, "internal error")                                                                                \
    X(E_SYSTEM, 71, "operating system error")                                                                          \
    X(E_NOMEM, 72, "not enough memory")                                                                                \
    X(E_IO, 74, "input/output error")                                                                                  \
    X(E_COMM, 76, "communication between ranks failed")                                                                \
    X(E_CONFIG, 78, "bad configuration")                                                                               \
    X(E_STOPPED, 85, "stopped at a checkpoint; start again to resume")

typedef enum {
#define X(name, exit_code, text) NT_##name,
    NT_STATUS_LIST(X)
#undef X
        NT_STATUS_COUNT
} nt_status;

enum { NT_ERROR_TEXT = 1024, NT_ERROR_TRAIL = 24 };

struct nt_error {
    nt_status code;
    char text[NT_ERROR_TEXT];
    bool heard; /* the sentence of another process, which prints it */
    int n_trail;
    struct {
        const char *file;
        int line;
    } trail[NT_ERROR_TRAIL];
};

const char *nt_status_text(nt_status code);
int nt_status_exit_code(nt_status code);

/* Records the sentence (replacing an older one) and returns code. */
nt_status nt_fail_at(nt_status code, const char *file, int line, const char *fmt, ...) NT_PRINTF(4, 5);
/* Adds file:line to the trail and returns code. */
nt_status nt_trail_at(nt_status code, const char *file, int line);

/* The value is the code itself, not the call's result: so the compiler knows that a failed function did not return
 * NT_OK, and outputs it did not write are not "maybe used". */
#define NT_FAIL(code, ...)                                                                                             \
    ({                                                                                                                 \
        const nt_status nt_fail_ = (code);                                                                             \
        (void)nt_fail_at(nt_fail_, __FILE__, __LINE__, __VA_ARGS__);                                                   \
        nt_fail_;                                                                                                      \
    })

#define NT_TRY(call)                                                                                                   \
    do {                                                                                                               \
        const nt_status nt_try_ = (call);                                                                              \
        if (nt_try_ != NT_OK) {                                                                                        \
            (void)nt_trail_at(nt_try_, __FILE__, __LINE__);                                                            \
            return nt_try_;                                                                                            \
        }                                                                                                              \
    } while (0)

/* For functions with cleanup: sets st and jumps. */
#define NT_TRY_GOTO(st, label, call)                                                                                   \
    do {                                                                                                               \
        (st) = (call);                                                                                                 \
        if ((st) != NT_OK) {                                                                                           \
            (void)nt_trail_at((st), __FILE__, __LINE__);                                                               \
            goto label;                                                                                                \
        }                                                                                                              \
    } while (0)

const struct nt_error *nt_error_last(void);     /* never NULL; code NT_OK when nothing failed */
void nt_error_take(struct nt_error *out);       /* copies this thread's record and clears it */
void nt_error_give(const struct nt_error *err); /* makes err this thread's record */
void nt_error_clear(void);
void nt_error_mark_heard(void); /* until the next NT_FAIL */

/* hook must not return; without one nt_bug traps. */
typedef void nt_bug_hook(const char *file, int line, const char *text);
void nt_bug_set_hook(nt_bug_hook *hook);
void nt_bug_at(const char *file, int line, const char *fmt, ...) NT_PRINTF(3, 4) __attribute__((noreturn));
#define nt_bug(...) nt_bug_at(__FILE__, __LINE__, __VA_ARGS__)
#define NT_CHECK(cond)                                                                                                 \
    do {                                                                                                               \
        if (!(cond)) nt_bug("violated: %s", #cond);                                                                    \
    } while (0)

#endif
