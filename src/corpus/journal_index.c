#include "journal_index.h"

#include "fileio.h"
#include "hash.h"
#include "log.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, MAX_OPEN = 64 };

struct header {
    char magic[8];
    uint32_t version, header_bytes;
    uint8_t job_digest[32];
    uint64_t reserved, xxh; /* xxh: of the bytes before it */
};
struct front {
    uint32_t n, kind;
    uint64_t xxh; /* of the body, seeded with n and kind so that they are covered too */
};
_Static_assert(sizeof(struct header) == NT_JOURNAL_HEADER && sizeof(struct front) == NT_JOURNAL_FRONT,
               "layout of docs/formats.md");

static const char magic[8] = {'N', 'T', 'J', 'O', 'U', 'R', 'N', '\n'};

void nt_journal_make_header(const uint8_t job_digest[32], uint8_t out[NT_JOURNAL_HEADER]) {
    struct header h = {.version = NT_JOURNAL_VERSION, .header_bytes = NT_JOURNAL_HEADER};
    memcpy(h.magic, magic, sizeof h.magic);
    memcpy(h.job_digest, job_digest, sizeof h.job_digest);
    h.xxh = nt_xxh64(&h, offsetof(struct header, xxh), 0);
    memcpy(out, &h, sizeof h);
}

static uint64_t front_hash(const void *body, uint32_t n, uint32_t kind) {
    return nt_xxh64(body, n, (uint64_t)kind << 32 | n);
}

void nt_journal_make_front(const void *body, uint32_t n, uint32_t kind, uint8_t out[NT_JOURNAL_FRONT]) {
    const struct front f = {.n = n, .kind = kind, .xxh = front_hash(body, n, kind)};
    memcpy(out, &f, sizeof f);
}

/* ---- files ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static nt_status add_path(struct nt_journal_files *f, const char *folder, const char *name) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, folder, name));
    char **more = realloc(f->path, ((size_t)f->n + 1) * sizeof *more);
    if (more) f->path = more;
    char *copy = more ? strdup(path) : NULL;
    if (!copy) return NT_FAIL(NT_E_NOMEM, "%s: no memory for the list of journal files", folder);
    f->path[f->n++] = copy;
    return NT_OK;
}

nt_status nt_journal_list(const char *dir, struct nt_journal_files *out) {
    char folder[PATH_MAX];
    *out = (struct nt_journal_files){0};
    NT_TRY(nt_path_join(folder, sizeof folder, dir, "journal"));
    DIR *d = opendir(folder);
    if (!d && errno == ENOENT) return NT_OK;
    if (!d) return NT_FAIL(NT_E_IO, "%s: cannot list it: %s", folder, strerror(errno));
    nt_status st = NT_OK;
    errno = 0;
    for (const struct dirent *e = readdir(d); e && st == NT_OK; e = readdir(d)) {
        const size_t n = strlen(e->d_name);
        if (strncmp(e->d_name, "part-", 5) == 0 && n > 9 && strcmp(e->d_name + n - 4, ".ntj") == 0)
            st = add_path(out, folder, e->d_name);
        errno = 0;
    }
    if (st == NT_OK && errno != 0) st = NT_FAIL(NT_E_IO, "%s: cannot list it: %s", folder, strerror(errno));
    (void)closedir(d);
    if (st != NT_OK) {
        nt_journal_files_release(out);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    if (out->n > 1) qsort(out->path, (size_t)out->n, sizeof *out->path, by_name);
    return NT_OK;
}

void nt_journal_files_release(struct nt_journal_files *f) {
    for (int32_t i = 0; i < f->n; i++) free(f->path[i]);
    free(f->path);
    *f = (struct nt_journal_files){0};
}

/* ---- one file ---- */

/* A sliding window over the first `size` bytes of the file. */
struct window {
    const char *path;
    int fd;
    int64_t size, base; /* base: file offset of buf[0] */
    uint8_t *buf;
    size_t cap, pos, end;
};

static nt_status window_open(struct window *w, const char *path) {
    *w = (struct window){.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (w->fd < 0) return NT_FAIL(NT_E_IO, "%s: cannot open the journal: %s", path, strerror(errno));
    struct stat s;
    if (fstat(w->fd, &s) != 0) {
        (void)close(w->fd);
        return NT_FAIL(NT_E_IO, "%s: cannot stat the journal: %s", path, strerror(errno));
    }
    w->size = (int64_t)s.st_size;
    return NT_OK;
}

static void window_close(struct window *w) {
    (void)close(w->fd);
    free(w->buf);
}

static int64_t window_offset(const struct window *w) {
    return w->base + (int64_t)w->pos;
}

/* Makes n bytes at pos contiguous; the caller has checked that the file has them. */
static nt_status window_need(struct window *w, size_t n) {
    if (w->end - w->pos >= n) return NT_OK;
    if (w->pos > 0) memmove(w->buf, w->buf + w->pos, w->end - w->pos);
    w->base += (int64_t)w->pos;
    w->end -= w->pos;
    w->pos = 0;
    if (w->cap < n || !w->buf) {
        const size_t cap = n < BLOCK ? BLOCK : n;
        uint8_t *more = realloc(w->buf, cap);
        if (!more) return NT_FAIL(NT_E_NOMEM, "%s: no memory for a record of %zu bytes", w->path, n);
        w->buf = more;
        w->cap = cap;
    }
    const int64_t left = w->size - (w->base + (int64_t)w->end);
    const size_t want = (int64_t)(w->cap - w->end) < left ? w->cap - w->end : (size_t)left;
    NT_TRY(nt_pread_full(w->fd, w->buf + w->end, want, w->base + (int64_t)w->end, w->path));
    w->end += want;
    return NT_OK;
}

/* *good false: torn, nothing in it was acknowledged (a sync covers the header as well). */
static nt_status read_header(struct window *w, const uint8_t job_digest[32], bool *good) {
    struct header h;
    *good = false;
    if (w->size < (int64_t)sizeof h) return NT_OK;
    NT_TRY(window_need(w, sizeof h));
    memcpy(&h, w->buf, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0 || h.xxh != nt_xxh64(&h, offsetof(struct header, xxh), 0))
        return NT_OK;
    if (h.version != NT_JOURNAL_VERSION || h.header_bytes != NT_JOURNAL_HEADER)
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s: journal version %u, this program writes %d; finish the job with the program that began it "
                       "or start with --fresh",
                       w->path, h.version, NT_JOURNAL_VERSION);
    if (memcmp(h.job_digest, job_digest, sizeof h.job_digest) != 0) {
        char theirs[NT_SHA256_HEX], ours[NT_SHA256_HEX];
        nt_hex(h.job_digest, sizeof h.job_digest, theirs);
        nt_hex(job_digest, sizeof h.job_digest, ours);
        return NT_FAIL(NT_E_DATA,
                       "%s: progress of another job (digest %s, this one has %s): input, model or settings differ; "
                       "start with --fresh or choose another output directory",
                       w->path, theirs, ours);
    }
    w->pos = sizeof h;
    *good = true;
    return NT_OK;
}

static nt_status visit_file(const struct nt_journal_files *files, int32_t i, const uint8_t job_digest[32],
                            nt_journal_visit_fn *fn, void *arg, struct window *w) {
    bool good = false;
    NT_TRY(read_header(w, job_digest, &good));
    while (good) {
        struct front f;
        const int64_t left = w->size - window_offset(w);
        if (left == 0) return NT_OK;
        good = left >= (int64_t)sizeof f;
        if (!good) break;
        NT_TRY(window_need(w, sizeof f));
        memcpy(&f, w->buf + w->pos, sizeof f);
        good = f.n <= left - (int64_t)sizeof f;
        if (!good) break;
        NT_TRY(window_need(w, sizeof f + f.n));
        const uint8_t *body = w->buf + w->pos + sizeof f;
        good = front_hash(body, f.n, f.kind) == f.xxh;
        if (!good) break;
        const struct nt_journal_record rec = {
            .file = i, .offset = window_offset(w) + (int64_t)sizeof f, .body = body, .n = f.n};
        if (f.kind == NT_JOURNAL_RESULT) NT_TRY(fn(arg, files, &rec));
        w->pos += sizeof f + f.n;
    }
    nt_info("journal", "%s: torn at offset %" PRId64 " of %" PRId64 ", rows behind it are computed again", w->path,
            window_offset(w), w->size);
    return NT_OK;
}

nt_status nt_journal_visit(const struct nt_journal_files *files, const uint8_t job_digest[32], nt_journal_visit_fn *fn,
                           void *arg) {
    for (int32_t i = 0; i < files->n; i++) {
        struct window w;
        NT_TRY(window_open(&w, files->path[i]));
        const nt_status st = visit_file(files, i, job_digest, fn, arg, &w);
        window_close(&w);
        NT_TRY(st);
    }
    return NT_OK;
}

nt_status nt_journal_check(const char *dir, const uint8_t job_digest[32]) {
    struct nt_journal_files files;
    NT_TRY(nt_journal_list(dir, &files));
    nt_status st = NT_OK;
    for (int32_t i = 0; i < files.n && st == NT_OK; i++) {
        struct window w;
        bool good = false;
        st = window_open(&w, files.path[i]);
        if (st != NT_OK) break;
        st = read_header(&w, job_digest, &good);
        window_close(&w);
    }
    nt_journal_files_release(&files);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

/* ---- rows ---- */

static nt_status check_row(const struct nt_journal_files *files, const struct nt_journal_record *rec, int64_t n_rows,
                           struct nt_result_head *head) {
    if (!nt_result_peek(rec->body, rec->n, head) || head->row >= n_rows)
        return NT_FAIL(NT_E_DATA,
                       "%s: record at offset %" PRId64 " is for row %" PRId64 " of an input of %" PRId64
                       " rows; start with --fresh",
                       files->path[rec->file], rec->offset, rec->n >= 8 ? head->row : -1, n_rows);
    return NT_OK;
}

struct scan {
    int64_t n_rows, n_done;
    uint8_t *done;
};

static nt_status mark_done(void *arg, const struct nt_journal_files *files, const struct nt_journal_record *rec) {
    struct scan *s = arg;
    struct nt_result_head head = {.row = -1};
    NT_TRY(check_row(files, rec, s->n_rows, &head));
    const uint8_t bit = (uint8_t)(1u << (head.row % 8));
    if (!(s->done[head.row / 8] & bit)) s->n_done++;
    s->done[head.row / 8] |= bit;
    return NT_OK;
}

nt_status nt_journal_scan(const char *dir, const uint8_t job_digest[32], int64_t n_rows, uint8_t *done,
                          int64_t *n_done) {
    struct nt_journal_files files;
    struct scan s = {.n_rows = n_rows, .done = done};
    NT_TRY(nt_journal_list(dir, &files));
    const nt_status st = nt_journal_visit(&files, job_digest, mark_done, &s);
    nt_journal_files_release(&files);
    NT_TRY(st);
    *n_done = s.n_done;
    return NT_OK;
}

static nt_status index_row(void *arg, const struct nt_journal_files *files, const struct nt_journal_record *rec) {
    struct nt_journal_index *x = arg;
    struct nt_result_head head = {.row = -1};
    NT_TRY(check_row(files, rec, x->n_rows, &head));
    if (x->at[head.row].offset != 0) return NT_OK; /* the first wins */
    x->at[head.row].offset = rec->offset;
    x->at[head.row].file = (uint32_t)rec->file;
    x->at[head.row].n = rec->n;
    x->n_done++;
    if (head.n_top > x->n_top) x->n_top = head.n_top;
    x->has_logprob |= head.has_logprob;
    return NT_OK;
}

nt_status nt_journal_index_build(struct nt_journal_index *x, const char *dir, const uint8_t job_digest[32],
                                 int64_t n_rows) {
    *x = (struct nt_journal_index){.n_rows = n_rows};
    nt_status st = NT_OK;
    NT_TRY(nt_journal_list(dir, &x->files));
    x->at = calloc((size_t)n_rows + 1, sizeof *x->at);
    x->fd = calloc((size_t)x->files.n + 1, sizeof *x->fd);
    if (!x->at || !x->fd) {
        st = NT_FAIL(NT_E_NOMEM, "%s: no memory to index %" PRId64 " rows", dir, n_rows);
        goto release_index;
    }
    for (int32_t i = 0; i < x->files.n; i++) x->fd[i] = -1;
    NT_TRY_GOTO(st, release_index, nt_journal_visit(&x->files, job_digest, index_row, x));
    return NT_OK;

release_index:
    nt_journal_index_release(x);
    return st;
}

static void close_all(struct nt_journal_index *x) {
    for (int32_t i = 0; x->fd && i < x->files.n; i++) {
        if (x->fd[i] >= 0) (void)close(x->fd[i]);
        x->fd[i] = -1;
    }
    x->n_open = 0;
}

void nt_journal_index_release(struct nt_journal_index *x) {
    if (x->n_open > 0) close_all(x);
    nt_journal_files_release(&x->files);
    free(x->at);
    free(x->fd);
    *x = (struct nt_journal_index){0};
}

static nt_status open_part(struct nt_journal_index *x, uint32_t file) {
    if (x->fd[file] >= 0) return NT_OK;
    if (x->n_open >= MAX_OPEN) close_all(x); /* many restarts on many ranks: keep within the limit of open files */
    x->fd[file] = open(x->files.path[file], O_RDONLY | O_CLOEXEC);
    if (x->fd[file] < 0)
        return NT_FAIL(NT_E_IO, "%s: cannot open the journal: %s", x->files.path[file], strerror(errno));
    x->n_open++;
    return NT_OK;
}

nt_status nt_journal_index_read(struct nt_journal_index *x, int64_t row, struct nt_result *out) {
    if (row < 0 || row >= x->n_rows || x->at[row].offset == 0)
        return NT_FAIL(NT_E_INTERNAL, "row %" PRId64 " of %" PRId64 " is not in the journal", row, x->n_rows);
    const uint32_t file = x->at[row].file, n = x->at[row].n;
    NT_TRY(open_part(x, file));
    uint8_t *body = malloc((size_t)n + 1);
    if (!body) return NT_FAIL(NT_E_NOMEM, "row %" PRId64 ": no memory for %u bytes", row, n);
    const char *path = x->files.path[file];
    nt_status st = nt_pread_full(x->fd[file], body, n, x->at[row].offset, path);
    if (st == NT_OK) st = nt_result_decode(body, n, path, x->at[row].offset, out);
    free(body);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
