/* Files: reads, refusals, directories, and the atomic publish under SIGKILL. */
#include "fileio.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char dir[] = "/tmp/nt_test_fileio_XXXXXX";

static const char *in_dir(const char *name) {
    static char path[4][PATH_MAX];
    static int turn;
    turn = (turn + 1) % 4;
    assert_int_equal(nt_path_join(path[turn], PATH_MAX, dir, name), NT_OK);
    return path[turn];
}

static int count_entries(const char *prefix) {
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e = readdir(d); e; e = readdir(d)) n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    (void)closedir(d);
    return n;
}

static int make_dir(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state) {
    (void)state;
    char command[PATH_MAX];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static void whole_reads(void **state) {
    (void)state;
    const char *path = in_dir("a");
    char *data = NULL;
    size_t len = 0;
    int64_t size = 0;
    assert_int_equal(nt_file_read(path, 100, &data, &len), NT_E_NOINPUT);
    assert_non_null(strstr(nt_error_last()->text, path));
    assert_int_equal(nt_file_size(path, &size), NT_E_NOINPUT);
    assert_false(nt_file_exists(path));

    assert_int_equal(nt_publish_bytes(path, "ab\0cd", 5, NT_PUBLISH_NEW), NT_OK);
    assert_int_equal(nt_file_read(path, 5, &data, &len), NT_OK);
    assert_int_equal(len, 5);
    assert_memory_equal(data, "ab\0cd", 6);
    free(data);
    assert_int_equal(nt_file_size(path, &size), NT_OK);
    assert_int_equal(size, 5);
    assert_true(nt_file_exists(path));
    assert_false(nt_is_dir(path));
    assert_int_equal(nt_file_read(path, 4, &data, &len), NT_E_DATA);

    assert_int_equal(nt_publish_bytes(in_dir("empty"), "", 0, NT_PUBLISH_NEW), NT_OK);
    assert_int_equal(nt_file_read(in_dir("empty"), 5, &data, &len), NT_OK);
    assert_int_equal(len, 0);
    assert_int_equal(data[0], '\0');
    free(data);
    assert_int_equal(nt_file_read(dir, 5, &data, &len), NT_E_NOINPUT);
    assert_non_null(strstr(nt_error_last()->text, "is a directory"));
    /* a file without a size */
    assert_int_equal(nt_file_read("/proc/self/status", 1 << 20, &data, &len), NT_OK);
    assert_true(len > 100 && strlen(data) == len);
    free(data);
    assert_int_equal(nt_file_read("/dev/zero", 10000, &data, &len), NT_E_DATA);
}

static void exact_reads(void **state) {
    (void)state;
    const char *path = in_dir("exact");
    assert_int_equal(nt_publish_bytes(path, "0123456789", 10, NT_PUBLISH_REPLACE), NT_OK);
    int fd = open(path, O_RDONLY);
    char buf[16] = "";
    assert_int_equal(nt_pread_full(fd, buf, 4, 6, path), NT_OK);
    assert_memory_equal(buf, "6789", 4);
    assert_int_equal(nt_pread_full(fd, buf, 5, 6, path), NT_E_IO);
    assert_non_null(strstr(nt_error_last()->text, "ends at offset 10, expected 5 bytes at offset 6"));
    (void)close(fd);
    assert_int_equal(nt_pread_full(-1, buf, 1, 0, path), NT_E_IO);
    assert_int_equal(nt_write_full(-1, buf, 1, path), NT_E_IO);
}

static void directories(void **state) {
    (void)state;
    assert_int_equal(nt_mkdir_p(in_dir("x/y//z/")), NT_OK);
    assert_true(nt_is_dir(in_dir("x/y/z")));
    assert_int_equal(nt_mkdir_p(in_dir("x/y/z")), NT_OK);
    assert_int_equal(nt_publish_bytes(in_dir("plain"), "", 0, NT_PUBLISH_NEW), NT_OK);
    assert_int_not_equal(nt_mkdir_p(in_dir("plain/sub")), NT_OK);
    assert_non_null(strstr(nt_error_last()->text, "plain"));
    assert_int_equal(nt_mkdir_p(in_dir("plain")), NT_E_IO);
    assert_int_equal(nt_mkdir_p(""), NT_E_USAGE);

    char buf[8];
    assert_int_equal(nt_path_join(buf, sizeof buf, "ab/", "cd"), NT_OK);
    assert_string_equal(buf, "ab/cd");
    assert_int_equal(nt_path_join(buf, sizeof buf, "", "cd"), NT_OK);
    assert_string_equal(buf, "cd");
    assert_int_equal(nt_path_join(buf, sizeof buf, "abc", "def"), NT_OK);
    assert_int_equal(nt_path_join(buf, sizeof buf, "abc", "defg"), NT_E_USAGE);
}

static void publish_modes(void **state) {
    (void)state;
    const char *path = in_dir("p");
    char *data = NULL;
    size_t len = 0;
    assert_int_equal(nt_publish_bytes(path, "one", 3, NT_PUBLISH_NEW), NT_OK);
    assert_int_equal(nt_publish_bytes(path, "two", 3, NT_PUBLISH_NEW), NT_E_IO);
    assert_non_null(strstr(nt_error_last()->text, "exists already"));
    assert_int_equal(nt_file_read(path, 10, &data, &len), NT_OK);
    assert_string_equal(data, "one");
    free(data);
    assert_int_equal(nt_publish_bytes(path, "three", 5, NT_PUBLISH_REPLACE), NT_OK);
    assert_int_equal(nt_file_read(path, 10, &data, &len), NT_OK);
    assert_string_equal(data, "three");
    free(data);

    /* a file written by someone else under the temporary name */
    char temp[PATH_MAX];
    assert_int_equal(nt_publish_temp_name(path, temp, sizeof temp), NT_OK);
    assert_non_null(strstr(temp, "/.tmp-p."));
    FILE *f = fopen(temp, "w");
    (void)fputs("four", f);
    (void)fclose(f);
    assert_int_equal(nt_publish_file(temp, path, NT_PUBLISH_REPLACE), NT_OK);
    assert_int_equal(nt_file_read(path, 10, &data, &len), NT_OK);
    assert_string_equal(data, "four");
    free(data);
    assert_int_equal(nt_publish_file(temp, path, NT_PUBLISH_REPLACE), NT_E_NOINPUT);
    assert_int_equal(nt_publish_bytes(in_dir("no/such/dir"), "x", 1, NT_PUBLISH_NEW), NT_E_NOINPUT);
    assert_int_equal(nt_publish_bytes(in_dir(""), "x", 1, NT_PUBLISH_NEW), NT_E_USAGE);
    assert_int_equal(nt_fsync_dir_of(path), NT_OK);
    assert_int_equal(count_entries(".tmp-"), 0);
}

/* A write that fails in the middle: the old file stays, the temporary one goes. */
static void a_failed_write_changes_nothing(void **state) {
    (void)state;
    const char *path = in_dir("full");
    char *bytes = calloc(1, 100000);
    assert_int_equal(nt_publish_bytes(path, "old", 3, NT_PUBLISH_NEW), NT_OK);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit low = {.rlim_cur = 50000, .rlim_max = before.rlim_max};
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    nt_status st = nt_publish_bytes(path, bytes, 100000, NT_PUBLISH_REPLACE);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, SIG_DFL);
    free(bytes);
    assert_int_equal(st, NT_E_IO);
    assert_non_null(strstr(nt_error_last()->text, "cannot write it: File too large"));
    assert_int_equal(count_entries(".tmp-"), 0);
    int64_t size = 0;
    assert_int_equal(nt_file_size(path, &size), NT_OK);
    assert_int_equal(size, 3);

    int fd = open("/dev/full", O_WRONLY);
    assert_int_equal(nt_write_full(fd, "x", 1, "/dev/full"), NT_E_IO);
    assert_string_equal(nt_error_last()->text, "/dev/full: cannot write it: No space left on device");
    (void)close(fd);
}

enum { BIG = 256 << 10 };

static _Noreturn void publish_for_ever(const char *path) {
    char *bytes = malloc(BIG);
    for (int version = 0;; version++) {
        memset(bytes, 'a' + version % 26, BIG);
        if (nt_publish_bytes(path, bytes, BIG, NT_PUBLISH_REPLACE) != NT_OK) _exit(1);
    }
}

/* However the writer dies, the name holds one complete version, or nothing yet. */
static void a_killed_writer_leaves_no_half_file(void **state) {
    (void)state;
    const char *path = in_dir("killed");
    for (int round = 0; round < 25; round++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) publish_for_ever(path);
        /* the first writer may take its time: slow disks, busy machines */
        for (int i = 0; round == 0 && i < 30000 && !nt_file_exists(path); i++)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        nanosleep(&(struct timespec){.tv_nsec = 1000000 + 700000 * round}, NULL);
        assert_int_equal(kill(pid, SIGKILL), 0);
        int wstatus = 0;
        assert_int_equal(waitpid(pid, &wstatus, 0), pid);
        assert_true(WIFSIGNALED(wstatus));
        char *data = NULL;
        size_t len = 0;
        assert_int_equal(nt_file_read(path, BIG, &data, &len), NT_OK);
        assert_int_equal(len, BIG);
        for (size_t i = 1; i < len; i++) {
            if (data[i] != data[0]) fail_msg("byte %zu of a half-written file", i);
        }
        free(data);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_reads),
        cmocka_unit_test(exact_reads),
        cmocka_unit_test(directories),
        cmocka_unit_test(publish_modes),
        cmocka_unit_test(a_failed_write_changes_nothing),
        cmocka_unit_test(a_killed_writer_leaves_no_half_file),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
