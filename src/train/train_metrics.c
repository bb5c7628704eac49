#include "train_metrics.h"
#include "fileio.h"
#include <stdlib.h>
#include <string.h>

/* The number after "step": in a line; -1: none. */
static int64_t step_of(const char *line, size_t len) {
    static const char key[] = "\"step\":";
    for (size_t i = 0; i + sizeof key - 1 < len; i++)
        if (memcmp(line + i, key, sizeof key - 1) == 0) return strtoll(line + i + sizeof key - 1, NULL, 10);
    return -1;
}

static bool is_eval(const char *line, size_t len) {
    static const char event[] = "\"event\":\"eval\"";
    return memmem(line, len, event, sizeof event - 1) != NULL;
}

/* From here on the run tells anew. */
static bool is_later(const char *line, size_t len, int64_t step) {
    const int64_t at = step_of(line, len);
    return at > step || (at == step && is_eval(line, len));
}

nt_status nt_train_metrics_cut(const char *path, int64_t step) {
    enum { MAX_BYTES = 1 << 30 };
    if (!nt_file_exists(path)) return NT_OK;
    char *text;
    size_t len, keep = 0;
    NT_TRY(nt_file_read(path, MAX_BYTES, &text, &len));
    while (step >= 0 && keep < len) {
        const char *end = memchr(text + keep, '\n', len - keep);
        if (!end || is_later(text + keep, (size_t)(end - text) - keep, step)) break;
        keep = (size_t)(end - text) + 1;
    }
    const nt_status st = keep == len ? NT_OK : nt_publish_bytes(path, text, keep, NT_PUBLISH_REPLACE);
    free(text);
    return st;
}
