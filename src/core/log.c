#include "log.h"

#include "clock.h"
#include "env.h"
#include "strbuf.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* Rank identity and sink: set once by main before other threads exist, read ever after. */
static struct {
    int rank, size;
    bool quiet, bar_shown;
} sink = {.rank = 0, .size = 1};

void nt_log_init(int rank, int size, bool quiet) {
    sink.rank = rank;
    sink.size = size;
    sink.quiet = quiet;
}

static void write_stderr(const char *text, size_t n) {
    while (n > 0) {
        ssize_t put = write(STDERR_FILENO, text, n);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return; /* nobody reads our log: the job goes on */
        text += put;
        n -= (size_t)put;
    }
}

static enum nt_log_level threshold(void) {
    if (sink.quiet) return NT_LOG_WARN;
    return sink.rank == 0 ? NT_LOG_INFO : NT_LOG_WARN;
}

void nt_log_at(enum nt_log_level level, const char *module, const char *fmt, ...) {
    static const char *const level_names[] = {"debug", "info", "warn", "error"};
    if (level != NT_LOG_DEBUG && level < threshold()) return;
    char text[2048];
    time_t now = time(NULL);
    struct tm tm;
    (void)localtime_r(&now, &tm);
    /* A drawn progress bar is erased first; its next update draws it again. */
    const char *erase = __atomic_load_n(&sink.bar_shown, __ATOMIC_RELAXED) ? "\r\033[K" : "";
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0) return;
    struct nt_strbuf line = NT_STRBUF_INIT;
    nt_strbuf_addf(&line, "%s%02d:%02d:%02d %s %d/%d %s: ", erase, tm.tm_hour, tm.tm_min, tm.tm_sec, level_names[level],
                   sink.rank, sink.size, module);
    nt_strbuf_add_shown(&line, text, strlen(text));
    nt_strbuf_addc(&line, '\n');
    write_stderr(line.data, line.len);
    nt_strbuf_release(&line);
}

bool nt_log_debug_on(const char *module) {
    const char *list = nt_env_debug();
    size_t n = strlen(module);
    while (*list) {
        size_t item = strcspn(list, ",");
        if ((item == n && memcmp(list, module, n) == 0) || (item == 3 && memcmp(list, "all", 3) == 0)) return true;
        list += item;
        list += *list == ',';
    }
    return false;
}

void nt_progress_begin(struct nt_progress *p, const char *what, const char *unit, int64_t done, int64_t total,
                       double interval_s) {
    double now = nt_now();
    *p = (struct nt_progress){.what = what,
                              .unit = unit,
                              .total = total,
                              .interval_s = interval_s,
                              .start = now,
                              .last = now,
                              .first_done = done,
                              .tty = isatty(STDERR_FILENO) == 1};
}

static void format_seconds(double s, char *buf, size_t cap) {
    if (!(s >= 0) || s > 86400.0 * 9999)
        (void)snprintf(buf, cap, "?");
    else if (s < 100)
        (void)snprintf(buf, cap, "%.0fs", s);
    else if (s < 6000)
        (void)snprintf(buf, cap, "%dm%02ds", (int)s / 60, (int)s % 60);
    else
        (void)snprintf(buf, cap, "%ldh%02ldm", (long)s / 3600, (long)s / 60 % 60);
}

/* "rows 12/64 18% 512 tok/s eta 3m20s" */
static void format_progress(const struct nt_progress *p, int64_t done, double work, double now, char *buf, size_t cap) {
    double elapsed = now - p->start;
    double rate = elapsed > 0 ? work / elapsed : 0;
    char eta[32];
    int64_t own = done - p->first_done;
    format_seconds(own > 0 && p->total > 0 ? elapsed / (double)own * (double)(p->total - done) : (double)NAN, eta,
                   sizeof eta);
    if (p->total > 0) {
        (void)snprintf(buf, cap, "%s %" PRId64 "/%" PRId64 " %d%% %.*f %s eta %s", p->what, done, p->total,
                       (int)(100.0 * (double)done / (double)p->total), rate < 10 ? 2 : 0, rate, p->unit, eta);
    } else {
        (void)snprintf(buf, cap, "%s %" PRId64 " %.*f %s", p->what, done, rate < 10 ? 2 : 0, rate, p->unit);
    }
}

/* "[####........] rows 12/64 ...": on a narrow terminal the bar gives way to the figures. */
static void draw_bar(const struct nt_progress *p, int64_t done, const char *text) {
    enum { WIDTH = 24, LEAST = 6, ERASE_BYTES = 4, BRACKETS = 3 };
    char bar[WIDTH + 1], line[512];
    struct winsize window;
    const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
    const int columns = known ? window.ws_col - 1 : (int)sizeof line;
    const int room = columns - BRACKETS - (int)strlen(text), width = room > WIDTH ? WIDTH : room;
    int full = p->total > 0 && width > 0 ? (int)(width * (double)done / (double)p->total) : 0;
    if (full > width) full = width;
    if (full < 0) full = 0;
    memset(bar, '.', WIDTH);
    memset(bar, '#', (size_t)full);
    bar[width > 0 ? width : 0] = '\0';
    const int n = width < LEAST ? snprintf(line, sizeof line, "\r\033[K%s", text)
                                : snprintf(line, sizeof line, "\r\033[K[%s] %s", bar, text);
    if (n < 0) return;
    /* A line that wraps could not be erased: cut it to the terminal's width. */
    size_t len = strlen(line);
    if (known && len > ERASE_BYTES + (size_t)columns) len = ERASE_BYTES + (size_t)columns;
    write_stderr(line, len);
}

static void show(struct nt_progress *p, int64_t done, double work, double now) {
    char figures[256], text[sizeof figures + sizeof p->note];
    format_progress(p, done, work, now, figures, sizeof figures);
    (void)snprintf(text, sizeof text, "%s%s%s", figures, p->note[0] ? " " : "", p->note);
    p->last = now;
    p->shown = true;
    if (p->tty) {
        __atomic_store_n(&sink.bar_shown, true, __ATOMIC_RELAXED);
        draw_bar(p, done, text);
    } else {
        nt_info("progress", "%s", text);
    }
}

void nt_progress_update(struct nt_progress *p, int64_t done, double work, const char *note) {
    if (sink.rank != 0 || sink.quiet) return;
    double now = nt_now();
    (void)snprintf(p->note, sizeof p->note, "%s", note ? note : ""); /* of the last update, also where it was not due */
    if (now - p->last < (p->tty ? 0.1 : p->interval_s)) return;
    show(p, done, work, now);
}

void nt_progress_end(struct nt_progress *p, int64_t done, double work) {
    if (sink.rank != 0 || sink.quiet) return;
    show(p, done, work, nt_now());
    if (p->tty) {
        __atomic_store_n(&sink.bar_shown, false, __ATOMIC_RELAXED);
        write_stderr("\n", 1);
    }
}
