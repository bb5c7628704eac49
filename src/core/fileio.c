#include "fileio.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* read(2) and write(2) move at most 0x7ffff000 bytes per call; stay well below. */
enum { IO_CHUNK = 1 << 30 };

static nt_status fail_errno(const char *doing, const char *path) {
    nt_status code = errno == ENOENT || errno == ENOTDIR ? NT_E_NOINPUT : errno == ENOMEM ? NT_E_NOMEM : NT_E_IO;
    return NT_FAIL(code, "%s: cannot %s: %s", path, doing, strerror(errno));
}

static int open_retry(const char *path, int flags, mode_t mode) {
    int fd = -1;
    do fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static nt_status open_input(const char *path, int *fd, struct stat *st) {
    *fd = open_retry(path, O_RDONLY, 0);
    if (*fd < 0) return fail_errno("open it for reading", path);
    nt_status status = NT_OK;
    if (fstat(*fd, st) != 0)
        status = fail_errno("stat it", path);
    else if (S_ISDIR(st->st_mode))
        status = NT_FAIL(NT_E_NOINPUT, "%s: is a directory, expected a file", path);
    if (status != NT_OK) (void)close(*fd);
    return status;
}

/* The size fstat gave is a guess only: pipes and /proc files say 0, and a file may grow while it is read. */
static nt_status read_all(int fd, const char *path, size_t guess, size_t max_bytes, char **data, size_t *len) {
    size_t cap = guess + 1, n = 0;
    char *buf = malloc(cap);
    while (buf) {
        size_t want = cap - n < IO_CHUNK ? cap - n : IO_CHUNK;
        ssize_t got = read(fd, buf + n, want);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            nt_status status = fail_errno("read it", path);
            free(buf);
            return status;
        }
        if (got == 0) break;
        n += (size_t)got;
        if (n > max_bytes) {
            free(buf);
            return NT_FAIL(NT_E_DATA, "%s: longer than the %zu bytes allowed for this kind of file", path, max_bytes);
        }
        if (n < cap) continue;
        char *more = realloc(buf, cap * 2);
        if (!more) free(buf);
        buf = more;
        cap *= 2;
    }
    if (!buf) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %zu bytes", path, cap);
    buf[n] = '\0'; /* n < cap always: a full buffer grows */
    *data = buf;
    *len = n;
    return NT_OK;
}

nt_status nt_file_read(const char *path, size_t max_bytes, char **data, size_t *len) {
    int fd = -1;
    struct stat st;
    NT_TRY(open_input(path, &fd, &st));
    size_t guess = S_ISREG(st.st_mode) && st.st_size > 0 ? (size_t)st.st_size : 4096;
    nt_status status = NT_OK;
    if (S_ISREG(st.st_mode) && st.st_size > 0 && guess > max_bytes)
        status =
            NT_FAIL(NT_E_DATA, "%s: %zu bytes, at most %zu are allowed for this kind of file", path, guess, max_bytes);
    else
        status = read_all(fd, path, guess, max_bytes, data, len);
    (void)close(fd);
    return status;
}

nt_status nt_file_size(const char *path, int64_t *size) {
    struct stat st;
    if (stat(path, &st) != 0) return fail_errno("stat it", path);
    *size = (int64_t)st.st_size;
    return NT_OK;
}

bool nt_file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool nt_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static nt_status mkdir_one(const char *path) {
    if (mkdir(path, 0777) == 0 || errno == EEXIST) {
        if (nt_is_dir(path)) return NT_OK;
        return NT_FAIL(NT_E_IO, "%s: exists and is not a directory", path);
    }
    return fail_errno("make this directory", path);
}

nt_status nt_mkdir_p(const char *path) {
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0) return NT_FAIL(NT_E_USAGE, "the name of a directory to make is empty");
    if (n >= sizeof part) return NT_FAIL(NT_E_USAGE, "%.60s...: path longer than %d bytes", path, PATH_MAX - 1);
    if (nt_is_dir(path)) return NT_OK;
    for (size_t i = 1; i <= n; i++) {
        if (i < n && (path[i] != '/' || path[i - 1] == '/')) continue;
        memcpy(part, path, i);
        part[i] = '\0';
        NT_TRY(mkdir_one(part));
    }
    return NT_OK;
}

nt_status nt_pread_full(int fd, void *buf, size_t n, int64_t offset, const char *path) {
    size_t done = 0;
    while (done < n) {
        size_t want = n - done < IO_CHUNK ? n - done : IO_CHUNK;
        ssize_t got = pread(fd, (char *)buf + done, want, (off_t)(offset + (int64_t)done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return NT_FAIL(NT_E_IO, "%s: cannot read %zu bytes at offset %" PRId64 ": %s", path, n, offset,
                           strerror(errno));
        if (got == 0)
            return NT_FAIL(NT_E_IO,
                           "%s: ends at offset %" PRId64 ", expected %zu bytes at offset %" PRId64 "; the file is "
                           "cut short: copy or download it again",
                           path, offset + (int64_t)done, n, offset);
        done += (size_t)got;
    }
    return NT_OK;
}

nt_status nt_write_full(int fd, const void *buf, size_t n, const char *path) {
    size_t done = 0;
    while (done < n) {
        size_t want = n - done < IO_CHUNK ? n - done : IO_CHUNK;
        ssize_t put = write(fd, (const char *)buf + done, want);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail_errno("write it", path);
        done += (size_t)put;
    }
    return NT_OK;
}

static nt_status fsync_retry(int fd, const char *path) {
    while (fsync(fd) != 0) {
        if (errno == EINTR) continue;
        if (errno == EINVAL || errno == EROFS) return NT_OK; /* this kind of file has nothing to sync */
        return fail_errno("sync it to disk", path);
    }
    return NT_OK;
}

/* dir/ part of path into buf ("." when there is none); returns the start of the name. */
static nt_status split_path(const char *path, char *dir, size_t cap, const char **name) {
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (**name == '\0') return NT_FAIL(NT_E_USAGE, "\"%s\": expected the name of a file", path);
    if (n >= cap) return NT_FAIL(NT_E_USAGE, "%.60s...: path longer than %zu bytes", path, cap - 1);
    if (n > 0)
        memcpy(dir, path, n);
    else
        dir[n++] = slash ? '/' : '.';
    dir[n] = '\0';
    return NT_OK;
}

nt_status nt_fsync_dir_of(const char *path) {
    char dir[PATH_MAX];
    const char *name = NULL;
    NT_TRY(split_path(path, dir, sizeof dir, &name));
    int fd = open_retry(dir, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return fail_errno("open this directory", dir);
    nt_status status = fsync_retry(fd, dir);
    (void)close(fd);
    return status;
}

nt_status nt_publish_temp_name(const char *path, char *buf, size_t cap) {
    char dir[PATH_MAX];
    char host[64];
    const char *name = NULL;
    NT_TRY(split_path(path, dir, sizeof dir, &name));
    if (gethostname(host, sizeof host) != 0) host[0] = '\0';
    host[sizeof host - 1] = '\0';
    for (char *p = host; *p; p++) {
        if (*p == '/') *p = '_';
    }
    int n = snprintf(buf, cap, "%s/.tmp-%s.%s.%ld", dir, name, host, (long)getpid());
    if (n < 0 || (size_t)n >= cap) return NT_FAIL(NT_E_USAGE, "%.60s...: the temporary name does not fit", path);
    return NT_OK;
}

/* link(2) never replaces, but some file systems (FAT, some FUSE) have none: rename without replacing is the next best.
 */
static nt_status move_new(const char *temp, const char *path) {
    bool moved = link(temp, path) == 0;
    if (moved) {
        (void)unlink(temp);
        return NT_OK;
    }
    if (errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS || errno == EMLINK)
        moved = renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0;
    if (moved) return NT_OK;
    /* NFS may repeat a link that did succeed: then the temporary name is the second of two. */
    struct stat st;
    int cause = errno;
    if (cause == EEXIST && stat(temp, &st) == 0 && st.st_nlink == 2) {
        (void)unlink(temp);
        return NT_OK;
    }
    errno = cause;
    if (cause == EEXIST)
        return NT_FAIL(NT_E_IO, "%s: exists already and is not replaced; move it away or choose another name", path);
    return fail_errno("give the finished file this name", path);
}

nt_status nt_publish_file(const char *temp, const char *path, enum nt_publish_mode mode) {
    nt_status status = NT_OK;
    int fd = open_retry(temp, O_RDONLY, 0);
    if (fd < 0) return fail_errno("open the temporary file", temp);
    NT_TRY_GOTO(status, drop_temp, fsync_retry(fd, temp));
    if (mode == NT_PUBLISH_NEW)
        NT_TRY_GOTO(status, drop_temp, move_new(temp, path));
    else if (rename(temp, path) != 0) {
        status = fail_errno("give the finished file this name", path);
        goto drop_temp;
    }
    (void)close(fd);
    return nt_fsync_dir_of(path);

drop_temp:
    (void)close(fd);
    (void)unlink(temp);
    return status;
}

/* The clock in the name keeps threads of one process, and containers with equal host names and pids, apart. */
static nt_status create_temp(const char *path, char *temp, size_t cap, int *fd) {
    char base[PATH_MAX];
    NT_TRY(nt_publish_temp_name(path, base, sizeof base));
    do {
        struct timespec now;
        (void)clock_gettime(CLOCK_REALTIME, &now);
        int w = snprintf(temp, cap, "%s.%llx%08lx", base, (unsigned long long)now.tv_sec, now.tv_nsec);
        if (w < 0 || (size_t)w >= cap) return NT_FAIL(NT_E_USAGE, "%.60s...: the temporary name does not fit", path);
        *fd = open_retry(temp, O_WRONLY | O_CREAT | O_EXCL, 0666);
    } while (*fd < 0 && errno == EEXIST);
    return *fd < 0 ? fail_errno("create a temporary file", temp) : NT_OK;
}

nt_status nt_publish_bytes(const char *path, const void *bytes, size_t n, enum nt_publish_mode mode) {
    char temp[PATH_MAX];
    int fd = -1;
    NT_TRY(create_temp(path, temp, sizeof temp, &fd));
    nt_status status = nt_write_full(fd, bytes, n, temp);
    if (close(fd) != 0 && status == NT_OK) status = fail_errno("close the temporary file", temp);
    if (status != NT_OK) {
        (void)unlink(temp);
        return nt_trail_at(status, __FILE__, __LINE__);
    }
    return nt_publish_file(temp, path, mode);
}

nt_status nt_path_join(char *buf, size_t cap, const char *dir, const char *name) {
    size_t n = strlen(dir);
    const char *sep = n == 0 || dir[n - 1] == '/' ? "" : "/";
    int w = snprintf(buf, cap, "%s%s%s", dir, sep, name);
    if (w < 0 || (size_t)w >= cap)
        return NT_FAIL(NT_E_USAGE, "%.60s...: the path with %.60s is longer than %zu bytes", dir, name, cap - 1);
    return NT_OK;
}
