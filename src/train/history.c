#include "history.h"

#include "fileio.h"
#include "json.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *event, *key;
} figures[NT_HISTORY_COUNT] = {
#define X(name, event, key) {event, key},
    NT_HISTORY_LIST(X)
#undef X
};

static nt_status add(struct nt_history_series *s, double x, double y) {
    while (s->n > 0 && s->x[s->n - 1] >= x) s->n--; // made again after a resume
    if (s->n == s->cap) {
        const int64_t cap = s->cap ? 2 * s->cap : 256;
        double *more_x = realloc(s->x, (size_t)cap * sizeof *more_x);
        if (more_x) s->x = more_x;
        double *more_y = realloc(s->y, (size_t)cap * sizeof *more_y);
        if (more_y) s->y = more_y;
        if (!more_x || !more_y) return NT_FAIL(NT_E_NOMEM, "no memory for the history of %lld steps", (long long)cap);
        s->cap = cap;
    }
    s->x[s->n] = x;
    s->y[s->n++] = y;
    return NT_OK;
}

static nt_status add_line(struct nt_history *h, const struct nt_json *line) {
    const char *event = nt_json_str(nt_json_get(line, "event"), NULL);
    const int64_t step = nt_json_int(nt_json_get(line, "step"), -1);
    if (!event || step < 0) return NT_OK;
    for (int i = 0; i < NT_HISTORY_COUNT; i++) {
        if (strcmp(event, figures[i].event) != 0) continue;
        const double y = nt_json_num(nt_json_get(line, figures[i].key), NAN);
        if (isfinite(y)) NT_TRY(add(&h->figure[i], (double)step, y));
    }
    return NT_OK;
}

nt_status nt_history_read(const char *path, struct nt_history *h) {
    enum { MAX_BYTES = 1 << 30 };
    *h = (struct nt_history){0};
    char *text = NULL;
    size_t len = 0;
    if (!nt_file_exists(path)) return NT_OK;
    NT_TRY(nt_file_read(path, MAX_BYTES, &text, &len));
    nt_status st = NT_OK;
    for (char *at = text, *end; st == NT_OK && (end = memchr(at, '\n', (size_t)(text + len - at))); at = end + 1) {
        struct nt_json *line = NULL;
        if (nt_json_parse(at, (size_t)(end - at), path, &line) == NT_OK)
            st = add_line(h, line);
        else
            nt_error_clear();
        nt_json_free(line);
    }
    free(text);
    if (st != NT_OK) nt_history_release(h);
    return st;
}

void nt_history_release(struct nt_history *h) {
    for (int i = 0; i < NT_HISTORY_COUNT; i++) {
        free(h->figure[i].x);
        free(h->figure[i].y);
    }
    *h = (struct nt_history){0};
}

void nt_history_smooth(const struct nt_history_series *s, double half_life, double *out) {
    double sum = 0, weight = 0; // the weight corrects the start, where little has been seen
    for (int64_t i = 0; i < s->n; i++) {
        const double keep = i ? pow(0.5, (s->x[i] - s->x[i - 1]) / half_life) : 0;
        sum = keep * sum + (1 - pow(0.5, 1 / half_life)) * s->y[i];
        weight = keep * weight + (1 - pow(0.5, 1 / half_life));
        out[i] = sum / weight;
    }
}
