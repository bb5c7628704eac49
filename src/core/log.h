/* Human log lines and the progress line; machine readable numbers go to metrics.h.
 *
 * A line is "hh:mm:ss level rank/size module: text". Rank 0 logs from info up, other ranks from warn up
 * (NT_DEBUG=module,... opens debug for a module). The sink (stderr) and the rank identity are the only writable
 * globals of the program. Thread safe: one write(2) per line. Text: lower case, exact cause, values space separated;
 * it is shown as nt_strbuf_add_shown has it, so names from files are safe to print. */
#ifndef NT_LOG_H
#define NT_LOG_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

enum nt_log_level { NT_LOG_DEBUG, NT_LOG_INFO, NT_LOG_WARN, NT_LOG_ERROR };

void nt_log_init(int rank, int size, bool quiet);
void nt_log_at(enum nt_log_level level, const char *module, const char *fmt, ...) NT_PRINTF(3, 4);
bool nt_log_debug_on(const char *module);
#define nt_info(module, ...) nt_log_at(NT_LOG_INFO, module, __VA_ARGS__)
#define nt_warn(module, ...) nt_log_at(NT_LOG_WARN, module, __VA_ARGS__)
#define nt_debug(module, ...)                                                                                          \
    do {                                                                                                               \
        if (nt_log_debug_on(module)) nt_log_at(NT_LOG_DEBUG, module, __VA_ARGS__);                                     \
    } while (0)

/* Progress of long work on rank 0: a redrawn bar with rate and ETA on a terminal, one log line per interval otherwise.
 */
struct nt_progress {
    const char *what;  /* "rows" */
    const char *unit;  /* rate unit, "tok/s" */
    int64_t total;     /* 0: unknown */
    double interval_s; /* between log lines; the bar redraws at 10 Hz */
    double start, last;
    int64_t first_done; /* done at start: a resumed job's ETA is about its own speed */
    bool tty, shown;
    char note[128]; /* of the last update */
};
void nt_progress_begin(struct nt_progress *p, const char *what, const char *unit, int64_t done, int64_t total,
                       double interval_s);
/* done of total; work: units finished since begin (for the rate); note: short extra text or NULL. Cheap when not due.
 */
void nt_progress_update(struct nt_progress *p, int64_t done, double work, const char *note);
/* The last line, with the last note. */
void nt_progress_end(struct nt_progress *p, int64_t done, double work);

#endif
