#include "lines.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum { IN_BYTES = 256 << 10, FIRST_BUF = 256 << 10 };

enum packing { PLAIN, GZIP, ZSTANDARD };

struct nt_lines {
    char *path;
    int fd;
    enum packing packing;
    uint8_t *in; // [IN_BYTES] bytes of the file
    size_t in_pos, in_len;
    int64_t in_base; /* file offset of in[0] */
    bool in_eof;
    z_stream z;
    bool z_ready;
    ZSTD_DStream *zd;
    bool between; /* at the start of a gzip member or zstd frame: the file may end here */
    uint8_t *buf; // [cap] text: [start, end) not yet handed out
    size_t cap, start, end, max_line;
    bool eof;
    int64_t number, offset;
    struct nt_sha256 *tap;
};

static int64_t in_offset(const struct nt_lines *l) {
    return l->in_base + (int64_t)l->in_pos;
}

/* Reads the next block of the file; keeps unread bytes in front. */
static nt_status fill_in(struct nt_lines *l) {
    size_t left = l->in_len - l->in_pos;
    if (left > 0) memmove(l->in, l->in + l->in_pos, left);
    l->in_base += (int64_t)l->in_pos;
    l->in_pos = 0;
    l->in_len = left;
    while (!l->in_eof && l->in_len < IN_BYTES) {
        ssize_t got = read(l->fd, l->in + l->in_len, IN_BYTES - l->in_len);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return NT_FAIL(NT_E_IO, "%s: cannot read it at offset %" PRId64 ": %s", l->path,
                           l->in_base + (int64_t)l->in_len, strerror(errno));
        l->in_eof = got == 0;
        l->in_len += (size_t)got;
    }
    return NT_OK;
}

static nt_status fail_cut(const struct nt_lines *l, const char *what) {
    return NT_FAIL(NT_E_DATA,
                   "%s: the %s data ends at offset %" PRId64 " before it is complete; the file is cut short: copy or "
                   "download it again",
                   l->path, what, in_offset(l));
}

static nt_status read_plain(struct nt_lines *l, uint8_t *out, size_t cap, size_t *n) {
    if (l->in_pos == l->in_len) NT_TRY(fill_in(l));
    size_t have = l->in_len - l->in_pos;
    *n = have < cap ? have : cap;
    memcpy(out, l->in + l->in_pos, *n);
    l->in_pos += *n;
    return NT_OK;
}

/* Between gzip members: another member, zero padding (tar and tape writers add it), or the end. */
static nt_status next_member(struct nt_lines *l, bool *more) {
    *more = false;
    do {
        if (l->in_len - l->in_pos < 2) NT_TRY(fill_in(l));
        while (l->in_pos < l->in_len && l->in[l->in_pos] == 0) l->in_pos++;
    } while (l->in_pos == l->in_len && !l->in_eof);
    if (l->in_pos == l->in_len) return NT_OK;
    if (l->in_len - l->in_pos < 2) NT_TRY(fill_in(l));
    if (l->in[l->in_pos] != 0x1f || (l->in_len - l->in_pos > 1 && l->in[l->in_pos + 1] != 0x8b))
        return NT_FAIL(NT_E_DATA,
                       "%s: bytes at offset %" PRId64 " follow the gzip data and are no gzip member; unpack the file "
                       "with gzip and check it",
                       l->path, in_offset(l));
    if (inflateReset(&l->z) != Z_OK) return NT_FAIL(NT_E_INTERNAL, "%s: zlib cannot start a gzip member", l->path);
    l->between = false;
    *more = true;
    return NT_OK;
}

static nt_status read_gzip(struct nt_lines *l, uint8_t *out, size_t cap, size_t *n) {
    *n = 0;
    while (*n == 0) {
        if (l->between) {
            bool more = false;
            NT_TRY(next_member(l, &more));
            if (!more) return NT_OK;
        }
        if (l->in_pos == l->in_len) NT_TRY(fill_in(l));
        l->z.next_in = l->in + l->in_pos;
        l->z.avail_in = (uInt)(l->in_len - l->in_pos);
        l->z.next_out = out;
        l->z.avail_out = (uInt)(cap < (1u << 30) ? cap : (1u << 30));
        int rc = inflate(&l->z, Z_NO_FLUSH);
        l->in_pos = l->in_len - l->z.avail_in;
        *n = (size_t)(l->z.next_out - out);
        if (rc == Z_STREAM_END) l->between = true;
        if (rc == Z_MEM_ERROR) return NT_FAIL(NT_E_NOMEM, "%s: no memory to unpack gzip data", l->path);
        if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
            return NT_FAIL(NT_E_DATA, "%s: damaged gzip data near offset %" PRId64 ": %s", l->path, in_offset(l),
                           l->z.msg ? l->z.msg : zError(rc));
        if (*n == 0 && !l->between && l->in_eof && l->in_pos == l->in_len) return fail_cut(l, "gzip");
    }
    return NT_OK;
}

static nt_status read_zstd(struct nt_lines *l, uint8_t *out, size_t cap, size_t *n) {
    *n = 0;
    while (*n == 0) {
        if (l->in_pos == l->in_len) NT_TRY(fill_in(l));
        bool empty = l->in_pos == l->in_len;
        if (empty && l->between) return NT_OK;
        ZSTD_inBuffer in = {l->in, l->in_len, l->in_pos};
        ZSTD_outBuffer o = {out, cap, 0};
        size_t rc = ZSTD_decompressStream(l->zd, &o, &in);
        if (ZSTD_isError(rc))
            return NT_FAIL(NT_E_DATA, "%s: damaged Zstandard data near offset %" PRId64 ": %s", l->path, in_offset(l),
                           ZSTD_getErrorName(rc));
        l->in_pos = in.pos;
        l->between = rc == 0;
        *n = o.pos;
        if (empty && *n == 0 && !l->between) return fail_cut(l, "Zstandard");
    }
    return NT_OK;
}

static nt_status read_text(struct nt_lines *l, uint8_t *out, size_t cap, size_t *n) {
    switch (l->packing) {
    case GZIP:
        NT_TRY(read_gzip(l, out, cap, n));
        break;
    case ZSTANDARD:
        NT_TRY(read_zstd(l, out, cap, n));
        break;
    case PLAIN:
        NT_TRY(read_plain(l, out, cap, n));
        break;
    }
    if (l->tap && *n > 0) nt_sha256_add(l->tap, out, *n);
    return NT_OK;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* By content; a name that promises compression must keep the promise, else a cut .gz would pass for an empty text. */
static nt_status detect_packing(struct nt_lines *l) {
    NT_TRY(fill_in(l));
    const uint8_t *p = l->in;
    const bool four = l->in_len >= 4;
    l->packing = PLAIN;
    if (l->in_len >= 2 && p[0] == 0x1f && p[1] == 0x8b) l->packing = GZIP;
    const bool frame = four && p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd;
    const bool skippable = four && (p[0] & 0xf0) == 0x50 && p[1] == 0x2a && p[2] == 0x4d && p[3] == 0x18;
    if (frame || skippable) l->packing = ZSTANDARD;
    if (l->packing != GZIP && ends_with(l->path, ".gz"))
        return NT_FAIL(NT_E_DATA, "%s: no gzip data at offset 0, as the name says; copy it again or rename it",
                       l->path);
    if (l->packing != ZSTANDARD && ends_with(l->path, ".zst"))
        return NT_FAIL(NT_E_DATA, "%s: no Zstandard data at offset 0, as the name says; copy it again or rename it",
                       l->path);
    if (l->packing == GZIP) {
        if (inflateInit2(&l->z, 15 + 16) != Z_OK) return NT_FAIL(NT_E_NOMEM, "%s: no memory for zlib", l->path);
        l->z_ready = true;
    }
    if (l->packing == ZSTANDARD) {
        l->zd = ZSTD_createDStream();
        if (!l->zd) return NT_FAIL(NT_E_NOMEM, "%s: no memory for libzstd", l->path);
    }
    return NT_OK;
}

/* More text behind end; the buffer is compacted and, if full, doubled up to max_line and a line end. */
static nt_status fill_text(struct nt_lines *l) {
    if (l->start > 0) {
        memmove(l->buf, l->buf + l->start, l->end - l->start);
        l->end -= l->start;
        l->start = 0;
    }
    if (l->end == l->cap) {
        size_t cap = l->cap * 2;
        uint8_t *more = realloc(l->buf, cap);
        if (!more) return NT_FAIL(NT_E_NOMEM, "%s: no memory for a line of %zu bytes", l->path, cap);
        l->buf = more;
        l->cap = cap;
    }
    size_t n = 0;
    NT_TRY(read_text(l, l->buf + l->end, l->cap - l->end, &n));
    l->end += n;
    l->eof = n == 0;
    return NT_OK;
}

static nt_status skip_mark(struct nt_lines *l) {
    while (!l->eof && l->end < 3) NT_TRY(fill_text(l));
    const uint8_t *p = l->buf;
    if (l->end >= 2 && ((p[0] == 0xff && p[1] == 0xfe) || (p[0] == 0xfe && p[1] == 0xff)))
        return NT_FAIL(NT_E_DATA, "%s: UTF-16 text, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8", l->path);
    if (l->end >= 3 && p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf) l->start = 3;
    l->offset = (int64_t)l->start;
    return NT_OK;
}

static nt_status open_file(struct nt_lines *l) {
    do l->fd = open(l->path, O_RDONLY | O_CLOEXEC);
    while (l->fd < 0 && errno == EINTR);
    if (l->fd < 0)
        return NT_FAIL(errno == ENOENT || errno == ENOTDIR ? NT_E_NOINPUT : NT_E_IO,
                       "%s: cannot open it for reading: %s", l->path, strerror(errno));
    struct stat st;
    if (fstat(l->fd, &st) != 0) return NT_FAIL(NT_E_IO, "%s: cannot stat it: %s", l->path, strerror(errno));
    if (S_ISDIR(st.st_mode)) return NT_FAIL(NT_E_NOINPUT, "%s: is a directory, expected a file", l->path);
    (void)posix_fadvise(l->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return NT_OK;
}

nt_status nt_lines_open(struct nt_lines **out, const char *path, size_t max_line, struct nt_sha256 *tap) {
    nt_status st = NT_OK;
    struct nt_lines *l = calloc(1, sizeof *l);
    if (!l) return NT_FAIL(NT_E_NOMEM, "%s: no memory to read it", path);
    l->fd = -1;
    l->tap = tap;
    l->max_line = max_line ? max_line : NT_LINES_MAX;
    l->cap = FIRST_BUF;
    l->path = strdup(path);
    l->in = malloc(IN_BYTES);
    l->buf = malloc(l->cap);
    if (!l->path || !l->in || !l->buf) {
        st = NT_FAIL(NT_E_NOMEM, "%s: no memory to read it", path);
        goto close_lines;
    }
    NT_TRY_GOTO(st, close_lines, open_file(l));
    NT_TRY_GOTO(st, close_lines, detect_packing(l));
    NT_TRY_GOTO(st, close_lines, skip_mark(l));
    *out = l;
    return NT_OK;

close_lines:
    nt_lines_close(l);
    return st;
}

void nt_lines_close(struct nt_lines *l) {
    if (!l) return;
    if (l->fd >= 0) (void)close(l->fd);
    if (l->z_ready) (void)inflateEnd(&l->z);
    if (l->zd) (void)ZSTD_freeDStream(l->zd);
    free(l->in);
    free(l->buf);
    free(l->path);
    free(l);
}

/* Drops text up to the next line end; adds what was dropped to line->len. */
static nt_status skip_long(struct nt_lines *l, struct nt_line *line) {
    uint8_t last = 0;
    line->len = 0;
    for (;;) {
        uint8_t *p = l->buf + l->start;
        size_t have = l->end - l->start;
        uint8_t *lf = memchr(p, '\n', have);
        size_t take = lf ? (size_t)(lf - p) : have;
        if (take > 0) last = p[take - 1];
        line->len += take;
        l->start += take + (lf != NULL);
        if (lf) l->offset++;
        if (lf || l->eof) break;
        NT_TRY(fill_text(l));
    }
    l->offset += (int64_t)line->len;
    if (last == '\r') line->len--;
    line->data = "";
    line->too_long = true;
    return NT_OK;
}

nt_status nt_lines_next(struct nt_lines *l, struct nt_line *line) {
    *line = (struct nt_line){.number = l->number + 1, .offset = l->offset};
    size_t seen = 0; /* bytes of the line already searched */
    uint8_t *lf = NULL;
    for (;;) {
        size_t have = l->end - l->start;
        lf = have > seen ? memchr(l->buf + l->start + seen, '\n', have - seen) : NULL;
        size_t len = lf ? (size_t)(lf - (l->buf + l->start)) : have;
        if (len > l->max_line + 1) { /* + 1: a CR may still be part of the line end */
            l->number++;
            return skip_long(l, line);
        }
        if (lf || l->eof) break;
        seen = have;
        NT_TRY(fill_text(l));
    }
    const char *data = (const char *)l->buf + l->start;
    size_t len = lf ? (size_t)(lf - (l->buf + l->start)) : l->end - l->start;
    if (!lf && len == 0) return NT_OK; /* end: data stays NULL */
    l->number++;
    l->start += len + (lf != NULL);
    l->offset += (int64_t)len + (lf != NULL);
    if (len > 0 && data[len - 1] == '\r') len--;
    line->data = data;
    line->len = len;
    if (len > l->max_line) {
        line->too_long = true;
        line->data = "";
    }
    return NT_OK;
}

static bool is_blank(const struct nt_line *line) {
    if (line->too_long) return false;
    for (size_t i = 0; i < line->len; i++) {
        if (!strchr(" \t\r\v\f", line->data[i]) || line->data[i] == '\0') return false;
    }
    return true;
}

nt_status nt_lines_next_row(struct nt_lines *l, struct nt_line *line) {
    do NT_TRY(nt_lines_next(l, line));
    while (line->data && is_blank(line));
    return NT_OK;
}

void nt_lines_complaint(const char *origin, char text[NT_ERROR_TEXT]) {
    static const char noise[] = " (line 1)";
    const char *said = nt_error_last()->text;
    const size_t n = strlen(origin);
    if (strncmp(said, origin, n) == 0 && strncmp(said + n, ": ", 2) == 0) said += n + 2;
    (void)snprintf(text, NT_ERROR_TEXT, "%s", said);
    char *at = strstr(text, noise);
    if (at) memmove(at, at + sizeof noise - 1, strlen(at + sizeof noise - 1) + 1);
    nt_error_clear();
}
