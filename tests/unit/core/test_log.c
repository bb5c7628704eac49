/* Log lines: levels by rank, one line per call, debug by module; progress in a log file. */
#include "log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio.h"
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

static char path[] = "/tmp/nt_test_log_XXXXXX";
static int saved_stderr;
static char *captured;

static void capture(void) {
    memcpy(path + sizeof path - 7, "XXXXXX", 6);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    saved_stderr = dup(STDERR_FILENO);
    (void)dup2(fd, STDERR_FILENO);
    (void)close(fd);
}

static const char *end_capture(void) {
    (void)dup2(saved_stderr, STDERR_FILENO);
    (void)close(saved_stderr);
    free(captured);
    captured = NULL;
    size_t len = 0;
    assert_int_equal(nt_file_read(path, 1 << 20, &captured, &len), NT_OK);
    (void)remove(path);
    return captured;
}

static int count_lines(const char *text) {
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

static void levels_by_rank(void **state) {
    (void)state;
    for (int rank = 0; rank < 2; rank++) {
        for (int quiet = 0; quiet < 2; quiet++) {
            nt_log_init(rank, 2, quiet != 0);
            capture();
            nt_info("mod", "value %d", 5);
            nt_warn("mod", "odd %s", "thing");
            nt_log_at(NT_LOG_ERROR, "mod", "lost");
            const char *text = end_capture();
            assert_int_equal(count_lines(text), rank == 0 && !quiet ? 3 : 2);
            if (rank == 0 && !quiet) {
                assert_int_equal(text[2], ':');
                assert_int_equal(text[5], ':');
                assert_memory_equal(text + 8, " info 0/2 mod: value 5\n", 23);
            }
            assert_non_null(strstr(text, rank == 0 ? " warn 0/2 mod: odd thing\n" : " warn 1/2 mod: odd thing\n"));
        }
    }
}

static void long_lines_end_with_a_newline(void **state) {
    (void)state;
    nt_log_init(0, 1, false);
    char big[5000];
    memset(big, 'y', sizeof big);
    big[sizeof big - 1] = '\0';
    capture();
    nt_info("mod", "%s", big);
    nt_info("mod", "next");
    const char *text = end_capture();
    assert_int_equal(count_lines(text), 2);
    assert_non_null(strstr(text, "y\n"));
    assert_non_null(strstr(text, "mod: next\n"));
}

static int evaluated;
static int touch(void) {
    return ++evaluated;
}

static void debug_by_module(void **state) {
    (void)state;
    nt_log_init(0, 1, false);
    unsetenv("NT_DEBUG");
    assert_false(nt_log_debug_on("pool"));
    capture();
    nt_debug("pool", "%d", touch());
    assert_string_equal(end_capture(), "");
    assert_int_equal(evaluated, 0);
    setenv("NT_DEBUG", "gguf,pool", 1);
    assert_true(nt_log_debug_on("pool"));
    assert_true(nt_log_debug_on("gguf"));
    assert_false(nt_log_debug_on("poo"));
    assert_false(nt_log_debug_on("poolx"));
    capture();
    nt_debug("pool", "n %d", touch());
    assert_non_null(strstr(end_capture(), " debug 0/1 pool: n 1\n"));
    setenv("NT_DEBUG", "all", 1);
    assert_true(nt_log_debug_on("anything"));
    unsetenv("NT_DEBUG");
}

static void foreign_text_is_shown(void **state) {
    (void)state;
    nt_log_init(0, 1, false);
    capture();
    nt_warn("mod", "source %s", "we\033[2Jb\nfake line");
    assert_non_null(strstr(end_capture(), " warn 0/1 mod: source we\\x1b[2Jb\\nfake line\n"));
}

static void progress_in_a_log(void **state) {
    (void)state;
    nt_log_init(0, 1, false);
    struct nt_progress p;
    capture();
    nt_progress_begin(&p, "rows", "tok/s", 10, 40, 0.0);
    p.start -= 100000; /* so long ago that a slow machine does not change the figures */
    nt_progress_update(&p, 30, 50e5, "batch 4");
    p.interval_s = 1e9;
    nt_progress_update(&p, 31, 51e5, "batch 5"); /* not due */
    nt_progress_end(&p, 40, 100e5);
    const char *text = end_capture();
    assert_false(p.tty);
    assert_true(p.shown);
    assert_int_equal(count_lines(text), 2);
    assert_non_null(strstr(text, "progress: rows 30/40 75% 50 tok/s eta 13h53m batch 4\n"));
    assert_non_null(strstr(text, "rows 40/40 100% 100 tok/s eta 0s batch 5\n"));

    capture();
    nt_log_init(1, 2, false); /* other ranks are silent */
    nt_progress_begin(&p, "rows", "tok/s", 0, 0, 0.0);
    nt_progress_update(&p, 3, 4, NULL);
    nt_progress_end(&p, 3, 4);
    assert_string_equal(end_capture(), "");
    nt_log_init(0, 1, false);
    capture();
    nt_progress_begin(&p, "rows", "tok/s", 0, 0, 0.0); /* total unknown */
    p.start -= 100000;
    nt_progress_update(&p, 3, 4e5, NULL);
    assert_non_null(strstr(end_capture(), "progress: rows 3 4.00 tok/s\n"));
}

/* On a terminal: a bar that is redrawn in place, and erased before a log line. */
static void progress_on_a_terminal(void **state) {
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) skip(); /* no pty in this sandbox */
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    nt_log_init(0, 1, false);
    saved_stderr = dup(STDERR_FILENO);
    (void)dup2(slave, STDERR_FILENO);
    struct nt_progress p;
    nt_progress_begin(&p, "rows", "tok/s", 0, 4, 1e9);
    p.start -= 100000;
    p.last -= 10;
    nt_progress_update(&p, 2, 100e5, "batch 1");
    p.last += 1000; /* as if drawn just now, however slow the machine is */
    nt_progress_update(&p, 3, 150e5, NULL);
    nt_warn("mod", "hello");
    nt_progress_end(&p, 4, 200e5);
    nt_warn("mod", "after");
    struct winsize narrow = {.ws_col = 40, .ws_row = 10};
    assert_int_equal(ioctl(slave, TIOCSWINSZ, &narrow), 0);
    nt_progress_end(&p, 4, 200e5);
    narrow.ws_col = 30;
    assert_int_equal(ioctl(slave, TIOCSWINSZ, &narrow), 0);
    nt_progress_end(&p, 4, 200e5);
    assert_int_equal(write(slave, "END", 3), 3);
    (void)dup2(saved_stderr, STDERR_FILENO);
    (void)close(saved_stderr);
    char text[2048] = "";
    size_t len = 0;
    while (!strstr(text, "END")) { /* the terminal hands its bytes over piece by piece */
        ssize_t n = read(master, text + len, sizeof text - 1 - len);
        assert_true(n > 0);
        len += (size_t)n;
    }
    assert_true(p.tty);
    assert_non_null(strstr(text, "\r\033[K[############............] rows 2/4 50% 100 tok/s eta 27h46m batch 1"));
    assert_null(strstr(text, "rows 3/4"));
    assert_non_null(strstr(text, "[########################] rows 4/4 100% 200 tok/s eta 0s\r\n"));
    const char *erased = strstr(text, "batch 1\r\033[K");
    assert_non_null(erased);
    assert_non_null(strstr(erased, " warn 0/1 mod: hello"));
    const char *after = strstr(text, "eta 0s\r\n");
    assert_non_null(after);
    assert_non_null(strstr(after, "\r\033[K[######] rows 4/4 100% 200 tok/s eta 0s\r\n")); /* 39 of 40 columns */
    assert_non_null(strstr(after, "\r\033[Krows 4/4 100% 200 tok/s eta 0\r\n"));           /* 29 of 30 */
    assert_true(after[8] != '\r'); /* nothing to erase any more */
    (void)close(slave);
    (void)close(master);
}

static int free_captured(void **state) {
    (void)state;
    free(captured);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_by_rank),    cmocka_unit_test(long_lines_end_with_a_newline),
        cmocka_unit_test(debug_by_module),   cmocka_unit_test(foreign_text_is_shown),
        cmocka_unit_test(progress_in_a_log), cmocka_unit_test(progress_on_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, free_captured);
}
