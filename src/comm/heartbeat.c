#include "heartbeat.h"
#include "fileio.h"
#include "json.h"
#include "strbuf.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool nt_heartbeat_path(char *buf, size_t cap, const char *dir, int32_t rank) {
    const int n = snprintf(buf, cap, "%s/.heartbeat/rank-%d", dir, rank);
    return n > 0 && (size_t)n < cap;
}

static void add_str(struct nt_strbuf *s, const char *key, const char *value) {
    nt_strbuf_addf(s, ",\"%s\":", key);
    nt_strbuf_add_json(s, value, strlen(value));
}

nt_status nt_heartbeat_write(const char *path, const struct nt_heartbeat *h) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_strbuf_addf(&s, "{\"pid\":%lld,\"tick\":%lld,\"progress\":%lld,\"seq\":%lld,\"idle_s\":%.1f,\"time\":%.1f",
                   (long long)h->pid, (long long)h->tick, (long long)h->progress, (long long)h->seq, h->idle_s,
                   h->time);
    add_str(&s, "host", h->host);
    add_str(&s, "doing", h->doing);
    add_str(&s, "call", h->call);
    add_str(&s, "on", h->on);
    nt_strbuf_addf(&s, ",\"inside\":%s,\"late\":%lld,\"whose\":%d}", h->inside ? "true" : "false", (long long)h->late,
                   (int)h->whose);
    while (s.len < NT_HEARTBEAT_BYTES - 1) /* fixed size: an in-place write leaves no tail of the last one */
        nt_strbuf_addc(&s, ' ');
    nt_strbuf_addc(&s, '\n');
    nt_status st = NT_OK;
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || pwrite(fd, s.data, s.len, 0) != (ssize_t)s.len)
        st = NT_FAIL(NT_E_IO, "%s: cannot write the heartbeat: %s", path, strerror(errno));
    if (fd >= 0) (void)close(fd);
    nt_strbuf_release(&s);
    return st;
}

static void copy_str(char *out, size_t cap, const struct nt_json *v) {
    const char *text = nt_json_str(v, NULL);
    (void)snprintf(out, cap, "%s", text != NULL ? text : "");
}

void nt_heartbeat_read(const char *path, struct nt_heartbeat *h) {
    memset(h, 0, sizeof *h);
    struct nt_json *doc = NULL;
    if (nt_json_parse_file(path, 4 * NT_HEARTBEAT_BYTES, &doc) != NT_OK) {
        nt_error_clear(); /* missing or half written: nothing to report */
        return;
    }
    const struct nt_json *o = (const struct nt_json *)doc;
    h->pid = nt_json_int(nt_json_get(o, "pid"), 0);
    h->tick = nt_json_int(nt_json_get(o, "tick"), 0);
    h->progress = nt_json_int(nt_json_get(o, "progress"), 0);
    h->seq = nt_json_int(nt_json_get(o, "seq"), 0);
    h->idle_s = nt_json_num(nt_json_get(o, "idle_s"), 0);
    h->time = nt_json_num(nt_json_get(o, "time"), 0);
    copy_str(h->host, sizeof h->host, nt_json_get(o, "host"));
    copy_str(h->doing, sizeof h->doing, nt_json_get(o, "doing"));
    copy_str(h->call, sizeof h->call, nt_json_get(o, "call"));
    copy_str(h->on, sizeof h->on, nt_json_get(o, "on"));
    h->inside = nt_json_bool(nt_json_get(o, "inside"), false);
    h->late = nt_json_int(nt_json_get(o, "late"), 0);
    h->whose = (int32_t)nt_json_int(nt_json_get(o, "whose"), 0);
    h->present = h->pid != 0;
    nt_json_free(doc);
}
