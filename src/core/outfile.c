#include "outfile.h"

#include "fileio.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FLUSH_BYTES = 1 << 20 };

nt_status nt_outfile_open(struct nt_outfile *f, const char *path) {
    *f = (struct nt_outfile){.fd = -1};
    const int n = snprintf(f->path, sizeof f->path, "%s", path);
    if (n < 0 || (size_t)n >= sizeof f->path) return NT_FAIL(NT_E_USAGE, "%.60s...: path too long", path);
    char temp[PATH_MAX];
    NT_TRY(nt_publish_temp_name(path, temp, sizeof temp));
    do f->fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    while (f->fd < 0 && errno == EINTR);
    if (f->fd < 0) return NT_FAIL(NT_E_IO, "%s: cannot create it: %s", temp, strerror(errno));
    memcpy(f->temp, temp, sizeof temp);
    return NT_OK;
}

static nt_status flush(struct nt_outfile *f) {
    NT_TRY(nt_write_full(f->fd, f->buf.data, f->buf.len, f->temp));
    nt_strbuf_reset(&f->buf);
    return NT_OK;
}

nt_status nt_outfile_flush_if_full(struct nt_outfile *f) {
    return f->buf.len < FLUSH_BYTES ? NT_OK : flush(f);
}

nt_status nt_outfile_publish(struct nt_outfile *f) {
    nt_status st = flush(f);
    if (close(f->fd) != 0 && st == NT_OK) st = NT_FAIL(NT_E_IO, "%s: cannot close it: %s", f->temp, strerror(errno));
    f->fd = -1;
    if (st == NT_OK) {
        st = nt_publish_file(f->temp, f->path, NT_PUBLISH_REPLACE);
        f->temp[0] = '\0';
    }
    nt_outfile_abandon(f);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

void nt_outfile_abandon(struct nt_outfile *f) {
    if (f->temp[0] != '\0') {
        if (f->fd >= 0) (void)close(f->fd);
        (void)unlink(f->temp);
    }
    f->temp[0] = '\0';
    f->fd = -1;
    nt_strbuf_release(&f->buf);
}
