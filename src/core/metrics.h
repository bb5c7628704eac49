/* JSONL metrics: one object per line, appended, schema in docs/formats.md; never parsed out of logs.
 *
 * {"t":<unix seconds>,"event":"step","rank":0, ...fields}. The wall clock is that of clock.h.
 * Writing never fails a job: the first I/O error is logged as a warning and the file is closed.
 * Ownership: the struct owns its descriptor. Threading: one write(2) per line, so lines of threads and of ranks that
 * append to one file do not mix. */
#ifndef NT_METRICS_H
#define NT_METRICS_H

#include "status.h"
#include <stdint.h>

struct nt_metrics {
    int fd; /* -1: off */
    int rank;
    char name[256]; /* the end of its path, for messages */
};

NT_MUST nt_status nt_metrics_open(struct nt_metrics *m, const char *path, int rank); /* appends */
void nt_metrics_close(struct nt_metrics *m);

enum nt_field_kind { NT_FIELD_INT, NT_FIELD_NUM, NT_FIELD_STR };
struct nt_field {
    const char *key;
    enum nt_field_kind kind;
    int64_t i;
    double n;
    const char *s;
};
#define NT_INT(k, v)                                                                                                   \
    (struct nt_field) {                                                                                                \
        .key = (k), .kind = NT_FIELD_INT, .i = (v)                                                                     \
    }
#define NT_NUM(k, v)                                                                                                   \
    (struct nt_field) {                                                                                                \
        .key = (k), .kind = NT_FIELD_NUM, .n = (v)                                                                     \
    }
#define NT_STR(k, v)                                                                                                   \
    (struct nt_field) {                                                                                                \
        .key = (k), .kind = NT_FIELD_STR, .s = (v)                                                                     \
    }
void nt_metrics_event_n(struct nt_metrics *m, const char *event, const struct nt_field *fields, int n);
#define nt_metrics_event(m, event, ...)                                                                                \
    nt_metrics_event_n((m), (event), (const struct nt_field[]){__VA_ARGS__},                                           \
                       (int)(sizeof((const struct nt_field[]){__VA_ARGS__}) / sizeof(struct nt_field)))

#endif
