#include "outdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Files of a flat directory, then the directory; what cannot be removed stays. */
static void remove_flat(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return;
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) (void)unlinkat(dirfd(dir), e->d_name, 0);
    }
    (void)closedir(dir);
    (void)rmdir(path);
}

/* The number of a process of this host that is gone, or was given to this one anew. */
static bool is_nobody(const char *number) {
    char *end = NULL;
    const long pid = strtol(number, &end, 10);
    return pid > 0 && *end == '\0' && (pid == (long)getpid() || (kill((pid_t)pid, 0) != 0 && errno == ESRCH));
}

static bool is_left_over(const char *name, const char *prefix, size_t n) {
    return strncmp(name, prefix, n) == 0 && is_nobody(name + n);
}

/* temp is DIR/.tmp-NAME.HOST.PID: the same with a pid that is nobody's is left over. */
static void remove_left_over(const char *temp) {
    char parent[PATH_MAX], victim[PATH_MAX];
    const char *name = strrchr(temp, '/') + 1;
    const size_t n = (size_t)(strrchr(name, '.') + 1 - name);
    memcpy(parent, temp, (size_t)(name - temp));
    parent[name - temp] = '\0';
    DIR *dir = opendir(parent);
    if (!dir) return;
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        const int len = snprintf(victim, sizeof victim, "%s%s", parent, e->d_name);
        if (len > 0 && (size_t)len < sizeof victim && is_left_over(e->d_name, name, n)) remove_flat(victim);
    }
    (void)closedir(dir);
}

static bool is_taken(const char *path) {
    return nt_file_exists(path) && rmdir(path) != 0; /* an empty directory makes room */
}

nt_status nt_outdir_open(struct nt_outdir *d, const char *path, enum nt_publish_mode mode) {
    *d = (struct nt_outdir){.mode = mode};
    char temp[PATH_MAX];
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    if (n >= sizeof d->path)
        return NT_FAIL(NT_E_USAGE, "%.60s...: path longer than %zu bytes", path, sizeof d->path - 1);
    memcpy(d->path, path, n);
    NT_TRY(nt_publish_temp_name(d->path, temp, sizeof temp));
    if (mode == NT_PUBLISH_REPLACE && nt_file_exists(d->path) && !nt_is_dir(d->path))
        return NT_FAIL(NT_E_IO, "%s: exists and is no directory; move it away or choose another name", d->path);
    if (mode == NT_PUBLISH_NEW && is_taken(d->path))
        return NT_FAIL(NT_E_IO, "%s: exists already and is not replaced; move it away or choose another name", d->path);
    const char *slash = strrchr(d->path, '/');
    if (slash && slash > d->path) {
        char parent[PATH_MAX] = "";
        memcpy(parent, d->path, (size_t)(slash - d->path));
        NT_TRY(nt_mkdir_p(parent));
    }
    remove_left_over(temp);
    if (mkdir(temp, 0777) != 0) return NT_FAIL(NT_E_IO, "%s: cannot make this directory: %s", temp, strerror(errno));
    memcpy(d->temp, temp, sizeof temp);
    return NT_OK;
}

/* The new directory under its name; an old one that may be replaced is then under the temporary name. */
static bool move_in(const struct nt_outdir *d) {
    if (d->mode == NT_PUBLISH_NEW || !nt_is_dir(d->path)) return rename(d->temp, d->path) == 0;
    if (renameat2(AT_FDCWD, d->temp, AT_FDCWD, d->path, RENAME_EXCHANGE) == 0) {
        remove_flat(d->temp);
        return true;
    }
    if (errno != EINVAL && errno != ENOSYS) return false;
    remove_flat(d->path); // a file system that cannot exchange
    return rename(d->temp, d->path) == 0;
}

nt_status nt_outdir_publish(struct nt_outdir *d) {
    char inside[PATH_MAX];
    nt_status st = nt_path_join(inside, sizeof inside, d->temp, "x");
    if (st == NT_OK) st = nt_fsync_dir_of(inside); // the names of the files
    if (st == NT_OK && !move_in(d)) {
        st = NT_FAIL(NT_E_IO, "%s: cannot give the finished directory this name: %s", d->path, strerror(errno));
    }
    if (st != NT_OK) {
        nt_outdir_abandon(d);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    d->temp[0] = '\0';
    return nt_fsync_dir_of(d->path);
}

void nt_outdir_abandon(struct nt_outdir *d) {
    if (d->temp[0] != '\0') remove_flat(d->temp);
    d->temp[0] = '\0';
}

nt_status nt_outdir_remove(const char *path) {
    if (nt_is_dir(path))
        remove_flat(path);
    else if (unlink(path) == 0 || errno == ENOENT)
        return NT_OK;
    return nt_file_exists(path) ? NT_FAIL(NT_E_IO, "%s: cannot remove it: %s", path, strerror(errno)) : NT_OK;
}

/* ".HOST.PID" at the end, of this host and of nobody; what another host left is told by its age. */
static bool is_of_the_dead(const char *entry, const char *host, size_t n_host, const char *path) {
    enum { A_DAY = 24 * 60 * 60 };
    const char *dot = strrchr(entry, '.');
    struct stat st;
    if ((size_t)(dot - entry) > n_host && memcmp(dot - n_host, host, n_host) == 0) return is_nobody(dot + 1);
    return stat(path, &st) == 0 && time(NULL) - st.st_mtime > A_DAY;
}

void nt_outdir_remove_dead(const char *prefix) {
    char temp[PATH_MAX], path[PATH_MAX];
    if (nt_publish_temp_name(prefix, temp, sizeof temp) != NT_OK) {
        nt_error_clear();
        return;
    }
    char *name = strrchr(temp, '/') + 1;
    const size_t n = strlen(".tmp-") + strlen(strrchr(prefix, '/') ? strrchr(prefix, '/') + 1 : prefix);
    const size_t n_host = (size_t)(strrchr(name, '.') - name) - n; /* with the dot before it */
    name[-1] = '\0';
    DIR *dir = opendir(temp);
    if (!dir) return;
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (strncmp(e->d_name, name, n) != 0) continue;
        const int len = snprintf(path, sizeof path, "%s/%s", temp, e->d_name);
        if (len < 0 || (size_t)len >= sizeof path || !is_of_the_dead(e->d_name, name + n, n_host, path)) continue;
        (void)unlink(path);
    }
    (void)closedir(dir);
}

/* ".tmp-NAME.HOST.PID...", see nt_publish_temp_name. */
static bool is_temp_of(const char *entry, const char *name) {
    const size_t n = strlen(name);
    if (strncmp(entry, ".tmp-", 5) != 0 || strncmp(entry + 5, name, n) != 0) return false;
    return name[n - 1] == '-' || entry[5 + n] == '.';
}

nt_status nt_outdir_remove_temps(const char *dir, const char *const *names, size_t n) {
    DIR *d = opendir(dir);
    if (!d && errno == ENOENT) return NT_OK;
    if (!d) return NT_FAIL(NT_E_IO, "%s: cannot list it: %s", dir, strerror(errno));
    nt_status st = NT_OK;
    for (const struct dirent *e = readdir(d); e && st == NT_OK; e = readdir(d)) {
        char path[PATH_MAX];
        bool ours = false;
        for (size_t i = 0; i < n && !ours; i++) ours = is_temp_of(e->d_name, names[i]);
        if (!ours) continue;
        st = nt_path_join(path, sizeof path, dir, e->d_name);
        if (st != NT_OK) break;
        if (nt_is_dir(path))
            remove_flat(path);
        else if (unlink(path) != 0 && errno != ENOENT)
            st = NT_FAIL(NT_E_IO, "%s: cannot remove what a killed process left: %s", path, strerror(errno));
    }
    (void)closedir(d);
    return st;
}
