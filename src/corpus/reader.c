#include "reader.h"

#include "corpus_h5.h"
#include "fileio.h"
#include "hash.h"
#include "hdf5file.h"
#include "idset.h"
#include "lines.h"
#include "request_json.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nt_reader {
    char *path;
    const struct nt_config *config;
    struct nt_lines *lines; /* one of the two */
    struct nt_corpus *corpus;
    int64_t next; /* number of the next row */
    struct nt_strbuf json;
    struct nt_id_set ids;
    struct nt_strbuf id;
};

/* By content; but a name that promises HDF5 must keep it, else a damaged corpus would pass for lines of garbage. */
static nt_status detect_corpus(const char *path, bool *corpus) {
    const char *dot = strrchr(path, '.');
    *corpus = nt_h5_is_file(path);
    if (*corpus || !dot || (strcmp(dot, ".h5") != 0 && strcmp(dot, ".hdf5") != 0) || !nt_file_exists(path))
        return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: not an HDF5 file, as the name says; copy it again or rename it", path);
}

nt_status nt_reader_open(struct nt_reader **out, const char *path, const struct nt_config *c) {
    if (strcmp(path, "-") == 0)
        return NT_FAIL(NT_E_USAGE, "input \"-\": a job must be able to start again, so it reads files; write the rows "
                                   "to a file first");
    nt_status st = NT_OK;
    struct nt_reader *r = calloc(1, sizeof *r);
    if (!r) return NT_FAIL(NT_E_NOMEM, "%s: no memory for a reader", path);
    r->config = c;
    r->path = strdup(path);
    if (!r->path) {
        st = NT_FAIL(NT_E_NOMEM, "%s: no memory for a reader", path);
        goto close_reader;
    }
    bool corpus = false;
    NT_TRY_GOTO(st, close_reader, detect_corpus(path, &corpus));
    if (corpus)
        NT_TRY_GOTO(st, close_reader, nt_corpus_open(&r->corpus, path, NT_PURPOSE_GENERATE));
    else
        NT_TRY_GOTO(st, close_reader, nt_lines_open(&r->lines, path, 0, NULL));
    *out = r;
    return NT_OK;

close_reader:
    nt_reader_close(r);
    return st;
}

void nt_reader_close(struct nt_reader *r) {
    if (!r) return;
    nt_lines_close(r->lines);
    nt_corpus_close(r->corpus);
    nt_strbuf_release(&r->json);
    nt_id_set_release(&r->ids);
    nt_strbuf_release(&r->id);
    free(r->path);
    free(r);
}

static nt_status scan_lines(struct nt_lines *lines, int64_t *n_rows, const struct nt_beat *beat) {
    struct nt_line line;
    for (*n_rows = 0;; (*n_rows)++) {
        nt_beat(beat);
        NT_TRY(nt_lines_next_row(lines, &line));
        if (!line.data) return NT_OK;
    }
}

static nt_status scan_corpus(const char *path, int64_t *n_rows, uint8_t digest[32], const struct nt_beat *beat) {
    enum { MANY = 1 << 16 };
    struct nt_corpus *c = NULL;
    int64_t n = MANY;
    nt_status st = NT_OK;
    NT_TRY(nt_corpus_open(&c, path, NT_PURPOSE_GENERATE));
    for (*n_rows = 0; st == NT_OK && n == MANY; nt_beat(beat)) {
        st = nt_corpus_skip(c, MANY, &n);
        if (st == NT_OK) *n_rows += n;
    }
    nt_corpus_close(c);
    NT_TRY(st);
    return nt_sha256_file(path, digest);
}

nt_status nt_reader_scan_watched(const char *path, int64_t *n_rows, uint8_t digest[32], const struct nt_beat *beat) {
    bool corpus = false;
    NT_TRY(detect_corpus(path, &corpus));
    if (corpus) return scan_corpus(path, n_rows, digest, beat);
    struct nt_sha256 *sha = NULL;
    struct nt_lines *lines = NULL;
    uint8_t result[NT_SHA256_BYTES];
    NT_TRY(nt_sha256_new(&sha));
    nt_status st = nt_lines_open(&lines, path, 0, sha);
    if (st == NT_OK) st = scan_lines(lines, n_rows, beat);
    nt_lines_close(lines);
    nt_sha256_finish(sha, result);
    if (st != NT_OK) return nt_trail_at(st, __FILE__, __LINE__);
    memcpy(digest, result, sizeof result);
    return NT_OK;
}

nt_status nt_reader_scan(const char *path, int64_t *n_rows, uint8_t digest[32]) {
    return nt_reader_scan_watched(path, n_rows, digest, NULL);
}

/* The parser's sentence becomes the row's. */
static void reject_json(struct nt_request *out, const char *origin) {
    char text[NT_ERROR_TEXT];
    nt_lines_complaint(origin, text);
    (void)nt_request_reject(out, origin, "%s", text);
}

/* A request from one line; first: the line that has the custom_id already, or 0. */
static void parse_line(const struct nt_reader *r, const struct nt_line *line, int64_t first, struct nt_request *out,
                       struct nt_json **doc) {
    char origin[40];
    (void)snprintf(origin, sizeof origin, "line %" PRId64, line->number);
    nt_sampling_defaults(&out->sampling, r->config);
    if (line->too_long)
        (void)nt_request_reject(out, origin, "is %zu bytes long, at most %d are allowed", line->len, NT_LINES_MAX);
    else if (nt_json_parse(line->data, line->len, origin, doc) != NT_OK)
        reject_json(out, origin);
    else if (first > 0)
        (void)nt_request_reject(out, origin, "custom_id \"%.200s\" was used in line %" PRId64 " already",
                                out->custom_id, first);
    if (!out->error || !out->custom_id) nt_request_from_json(out, *doc, origin);
    if (!out->error) return;
    nt_json_free(*doc);
    *doc = NULL;
}

static nt_status read_line(struct nt_reader *r, int64_t row, struct nt_request *out, struct nt_json **doc) {
    struct nt_line line;
    int64_t first = 0;
    bool has_id = false;
    while (r->next <= row) {
        NT_TRY(nt_lines_next_row(r->lines, &line));
        if (!line.data)
            return NT_FAIL(NT_E_DATA,
                           "%s: ends after %" PRId64 " rows, row %" PRId64 " was expected; the input changed while the "
                           "job ran: start with --fresh",
                           r->path, r->next, row);
        first = 0;
        has_id = !line.too_long && nt_find_custom_id(line.data, line.len, &r->id);
        if (has_id) NT_TRY(nt_id_set_add(&r->ids, r->id.data, r->id.len, line.number, &first));
        r->next++;
    }
    *out = (struct nt_request){.row = row, .line = line.number};
    if (has_id) {
        out->custom_id = strdup(r->id.data);
        if (!out->custom_id) return NT_FAIL(NT_E_NOMEM, "%s: no memory for a custom_id", r->path);
    }
    parse_line(r, &line, first, out, doc);
    return NT_OK;
}

static nt_status read_corpus(struct nt_reader *r, int64_t row, struct nt_request *out, struct nt_json **doc) {
    char origin[40];
    int64_t n_skipped = 0;
    bool more = false, bad = false;
    NT_TRY(nt_corpus_skip(r->corpus, row - r->next, &n_skipped));
    NT_TRY(nt_corpus_next(r->corpus, &r->json, &more, &bad));
    if (!more)
        return NT_FAIL(NT_E_DATA,
                       "%s: ends after %" PRId64 " rows, row %" PRId64 " was expected; the input changed while "
                       "the job ran: start with --fresh",
                       r->path, r->next + n_skipped, row);
    r->next = row + 1;
    *out = (struct nt_request){.row = row};
    (void)snprintf(origin, sizeof origin, "row %" PRId64, row);
    nt_sampling_defaults(&out->sampling, r->config);
    if (bad)
        (void)nt_request_reject(out, origin, "its text is not valid UTF-8");
    else if (nt_json_parse(r->json.data, r->json.len, origin, doc) != NT_OK)
        reject_json(out, origin);
    nt_request_from_json(out, *doc, origin);
    if (!out->error) return NT_OK;
    nt_json_free(*doc);
    *doc = NULL;
    return NT_OK;
}

nt_status nt_reader_row_json(struct nt_reader *r, int64_t row, struct nt_request *out, struct nt_json **doc) {
    *doc = NULL;
    if (row < r->next)
        return NT_FAIL(NT_E_INTERNAL, "%s: row %" PRId64 " asked for after row %" PRId64, r->path, row, r->next - 1);
    return r->corpus ? read_corpus(r, row, out, doc) : read_line(r, row, out, doc);
}

nt_status nt_reader_row(struct nt_reader *r, int64_t row, struct nt_request *out) {
    struct nt_json *doc = NULL;
    NT_TRY(nt_reader_row_json(r, row, out, &doc));
    nt_json_free(doc);
    return NT_OK;
}
