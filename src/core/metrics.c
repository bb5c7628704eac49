#include "metrics.h"

#include "clock.h"
#include "fileio.h"
#include "log.h"
#include "strbuf.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

nt_status nt_metrics_open(struct nt_metrics *m, const char *path, int rank) {
    m->fd = -1;
    m->rank = rank;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) return NT_FAIL(NT_E_IO, "%s: cannot open it to append metrics: %s", path, strerror(errno));
    m->fd = fd;
    const size_t len = strlen(path);
    (void)snprintf(m->name, sizeof m->name, "%s", len < sizeof m->name ? path : path + len + 1 - sizeof m->name);
    return NT_OK;
}

void nt_metrics_close(struct nt_metrics *m) {
    if (m->fd >= 0) (void)close(m->fd);
    m->fd = -1;
}

static void add_field(struct nt_strbuf *line, const struct nt_field *f) {
    nt_strbuf_addc(line, ',');
    nt_strbuf_add_json(line, f->key, strlen(f->key));
    nt_strbuf_addc(line, ':');
    switch (f->kind) {
    case NT_FIELD_INT:
        nt_strbuf_addf(line, "%" PRId64, f->i);
        break;
    case NT_FIELD_NUM:
        nt_strbuf_add_json_num(line, f->n);
        break;
    case NT_FIELD_STR:
        if (f->s)
            nt_strbuf_add_json(line, f->s, strlen(f->s));
        else
            nt_strbuf_adds(line, "null");
        break;
    }
}

void nt_metrics_event_n(struct nt_metrics *m, const char *event, const struct nt_field *fields, int n) {
    if (m->fd < 0) return;
    struct nt_strbuf line = NT_STRBUF_INIT;
    nt_strbuf_addf(&line, "{\"t\":%.6f,\"event\":", nt_unix_time());
    nt_strbuf_add_json(&line, event, strlen(event));
    nt_strbuf_addf(&line, ",\"rank\":%d", m->rank);
    for (int i = 0; i < n; i++) add_field(&line, &fields[i]);
    nt_strbuf_adds(&line, "}\n");
    if (nt_write_full(m->fd, line.data, line.len, m->name) != NT_OK) {
        nt_warn("metrics", "%s; no more metrics are written, and the job goes on", nt_error_last()->text);
        nt_error_clear(); /* the job goes on */
        nt_metrics_close(m);
    }
    nt_strbuf_release(&line);
}
