#include "complete.h"
#include "fileio.h"
#include "hash.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME "COMPLETE"

nt_status nt_complete_write(const char *dir, const uint8_t job_digest[32]) {
    char path[PATH_MAX], text[NT_SHA256_HEX + 1];
    NT_TRY(nt_path_join(path, sizeof path, dir, NAME));
    nt_hex(job_digest, NT_SHA256_BYTES, text);
    text[64] = '\n';
    return nt_publish_bytes(path, text, sizeof text - 1, NT_PUBLISH_REPLACE);
}

nt_status nt_complete_find(const char *dir, const uint8_t job_digest[32], bool *complete) {
    enum { MAX_BYTES = 4096 };
    char path[PATH_MAX], hex[NT_SHA256_HEX], *text;
    size_t len;
    *complete = false;
    NT_TRY(nt_path_join(path, sizeof path, dir, NAME));
    if (!nt_file_exists(path)) return NT_OK;
    NT_TRY(nt_file_read(path, MAX_BYTES, &text, &len));
    nt_hex(job_digest, NT_SHA256_BYTES, hex);
    *complete = len >= 64 && memcmp(text, hex, 64) == 0;
    free(text);
    if (*complete) return NT_OK;
    return NT_FAIL(NT_E_DATA,
                   "%s holds the results of another job (other input, model or settings); choose another --output or "
                   "add --fresh",
                   dir);
}

nt_status nt_complete_remove(const char *dir) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, NAME));
    if (unlink(path) == 0) return nt_fsync_dir_of(path);
    if (errno == ENOENT) return NT_OK;
    return NT_FAIL(NT_E_IO, "%s: cannot remove it for a fresh start: %s", path, strerror(errno));
}
