#include "journal.h"

#include "fileio.h"
#include "journal_index.h"
#include "outdir.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FLUSH_BYTES = 1 << 20 };

struct nt_journal {
    char *dir; /* without trailing slashes */
    char *path;
    int fd; /* -1: not made yet */
    bool failed;
    uint8_t job_digest[32];
    struct nt_strbuf pending; /* whole records not yet written */
    struct nt_strbuf body;
};

nt_status nt_journal_open(struct nt_journal **out, const char *dir, const uint8_t job_digest[32]) {
    NT_TRY(nt_journal_check(dir, job_digest));
    struct nt_journal *j = calloc(1, sizeof *j);
    char *copy = strdup(dir);
    if (!j || !copy) {
        free(j);
        free(copy);
        return NT_FAIL(NT_E_NOMEM, "%s: no memory for a journal", dir);
    }
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--) copy[n - 1] = '\0';
    j->dir = copy;
    j->fd = -1;
    memcpy(j->job_digest, job_digest, sizeof j->job_digest);
    *out = j;
    return NT_OK;
}

/* The host name with only what file names and people can bear. */
static void host_name(char *buf, size_t cap) {
    if (gethostname(buf, cap) != 0) buf[0] = '\0';
    buf[cap - 1] = '\0';
    for (char *p = buf; *p; p++) {
        if (!isalnum((unsigned char)*p) && *p != '-' && *p != '.') *p = '_';
    }
}

/* Names of all attempts differ: host and pid tell ranks apart, the clock tells restarts in equal containers apart. */
static nt_status create_file(struct nt_journal *j) {
    char folder[PATH_MAX], path[PATH_MAX], name[192], host[64];
    host_name(host, sizeof host);
    NT_TRY(nt_path_join(folder, sizeof folder, j->dir, "journal"));
    NT_TRY(nt_mkdir_p(folder));
    do {
        struct timespec now;
        (void)clock_gettime(CLOCK_REALTIME, &now);
        (void)snprintf(name, sizeof name, "part-%s-%ld-%llx%08lx.ntj", host, (long)getpid(),
                       (unsigned long long)now.tv_sec, now.tv_nsec);
        NT_TRY(nt_path_join(path, sizeof path, folder, name));
        j->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    } while (j->fd < 0 && (errno == EEXIST || errno == EINTR));
    if (j->fd < 0) return NT_FAIL(NT_E_IO, "%s: cannot create the journal: %s", path, strerror(errno));
    j->path = strdup(path);
    if (!j->path) return NT_FAIL(NT_E_NOMEM, "%s: no memory for its name", path);
    uint8_t header[NT_JOURNAL_HEADER];
    nt_journal_make_header(j->job_digest, header);
    NT_TRY(nt_write_full(j->fd, header, sizeof header, j->path));
    /* The names down to the file must survive a power cut before any of its rows is acknowledged. */
    NT_TRY(nt_fsync_dir_of(j->path));
    NT_TRY(nt_fsync_dir_of(folder));
    return nt_fsync_dir_of(j->dir);
}

static nt_status fail_broken(const struct nt_journal *j) {
    return NT_FAIL(NT_E_IO,
                   "%s: an earlier write to this journal failed; free the disk and start the same command again",
                   j->path ? j->path : j->dir);
}

static nt_status flush(struct nt_journal *j) {
    if (j->pending.len == 0) return NT_OK;
    if (j->fd < 0) NT_TRY(create_file(j));
    NT_TRY(nt_write_full(j->fd, j->pending.data, j->pending.len, j->path));
    nt_strbuf_reset(&j->pending);
    return NT_OK;
}

static nt_status flush_or_break(struct nt_journal *j) {
    if (j->failed) return fail_broken(j);
    const nt_status st = flush(j);
    j->failed = st != NT_OK;
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

nt_status nt_journal_append(struct nt_journal *j, const struct nt_result *r) {
    if (j->failed) return fail_broken(j);
    nt_strbuf_reset(&j->body);
    nt_result_encode(r, &j->body);
    if (j->body.len > UINT32_MAX)
        return NT_FAIL(NT_E_UNSUPPORTED, "row %lld: its answers take %zu bytes, a journal record holds 4 GiB; lower n",
                       (long long)r->row, j->body.len);
    uint8_t front[NT_JOURNAL_FRONT];
    nt_journal_make_front(j->body.data, (uint32_t)j->body.len, NT_JOURNAL_RESULT, front);
    nt_strbuf_add(&j->pending, front, sizeof front);
    nt_strbuf_add(&j->pending, j->body.data, j->body.len);
    return j->pending.len < FLUSH_BYTES ? NT_OK : flush_or_break(j);
}

/* A failed fdatasync is final: the kernel may have dropped the pages and a second call would say all is well. */
nt_status nt_journal_sync(struct nt_journal *j) {
    NT_TRY(flush_or_break(j));
    if (j->fd < 0) return NT_OK;
    int rc = 0;
    do rc = fdatasync(j->fd);
    while (rc != 0 && errno == EINTR);
    if (rc == 0) return NT_OK;
    j->failed = true;
    return NT_FAIL(NT_E_IO, "%s: cannot sync the journal to disk: %s", j->path, strerror(errno));
}

nt_status nt_journal_close(struct nt_journal *j) {
    if (!j) return NT_OK;
    nt_status st = j->failed ? NT_OK : nt_journal_sync(j);
    if (j->fd >= 0 && close(j->fd) != 0 && st == NT_OK)
        st = NT_FAIL(NT_E_IO, "%s: cannot close the journal: %s", j->path, strerror(errno));
    nt_strbuf_release(&j->pending);
    nt_strbuf_release(&j->body);
    free(j->path);
    free(j->dir);
    free(j);
    return st;
}

/* ---- --fresh ---- */

static const char *const published[] = {"COMPLETE",   "run.json",      "job.json",
                                        "results.h5", "results.jsonl", "errors.jsonl"};

static nt_status remove_file(const char *dir, const char *name) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, name));
    if (unlink(path) == 0 || errno == ENOENT) return NT_OK;
    return NT_FAIL(NT_E_IO, "%s: cannot remove it for a fresh start: %s", path, strerror(errno));
}

static bool is_part(const char *name) {
    const size_t n = strlen(name);
    return strncmp(name, "part-", 5) == 0 && n > 9 && strcmp(name + n - 4, ".ntj") == 0;
}

static nt_status remove_parts(const char *dir) {
    DIR *d = opendir(dir);
    if (!d && errno == ENOENT) return NT_OK;
    if (!d) return NT_FAIL(NT_E_IO, "%s: cannot list it: %s", dir, strerror(errno));
    nt_status st = NT_OK;
    for (const struct dirent *e = readdir(d); e && st == NT_OK; e = readdir(d)) {
        if (is_part(e->d_name)) st = remove_file(dir, e->d_name);
    }
    (void)closedir(d);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

nt_status nt_journal_remove_temps(const char *dir) {
    return nt_outdir_remove_temps(dir, published, sizeof published / sizeof *published);
}

/* COMPLETE goes first, so that a discard cut in the middle cannot look like a finished job. */
nt_status nt_journal_discard(const char *dir) {
    char folder[PATH_MAX];
    if (!nt_is_dir(dir)) return NT_OK;
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) NT_TRY(remove_file(dir, published[i]));
    NT_TRY(nt_path_join(folder, sizeof folder, dir, "journal"));
    NT_TRY(nt_fsync_dir_of(folder));
    NT_TRY(nt_journal_remove_temps(dir));
    NT_TRY(remove_parts(folder));
    if (rmdir(folder) != 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST)
        return NT_FAIL(NT_E_IO, "%s: cannot remove it for a fresh start: %s", folder, strerror(errno));
    return nt_fsync_dir_of(folder);
}
