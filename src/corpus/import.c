#include "transfer.h"

#include "corpus_h5.h"
#include "hdf5file.h"
#include "log.h"
#include "outfile.h"
#include "reader.h"
#include "response.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct import {
    struct nt_reader *reader;
    struct nt_corpus_writer *corpus;
    struct nt_outfile errors;
    struct nt_transfer *t;
    int64_t n_input;
};

static nt_status open_all(struct import *m, const char *input, const char *output, uint32_t consent,
                          const struct nt_config *c) {
    uint8_t digest[32];
    if (strcmp(input, output) == 0) return NT_FAIL(NT_E_USAGE, "%s: input and output are the same file", input);
    if (nt_h5_is_file(input))
        return NT_FAIL(NT_E_USAGE, "%s: an HDF5 file, expected JSONL; `nocturne export` goes the other way", input);
    const int n = snprintf(m->t->errors, sizeof m->t->errors, "%s.errors.jsonl", output);
    if (n < 0 || (size_t)n >= sizeof m->t->errors) return NT_FAIL(NT_E_USAGE, "%.60s...: path too long", output);
    NT_TRY(nt_reader_scan(input, &m->n_input, digest));
    NT_TRY(nt_reader_open(&m->reader, input, c));
    NT_TRY(nt_corpus_create(&m->corpus, output, consent));
    return nt_outfile_open(&m->errors, m->t->errors);
}

static nt_status import_row(struct import *m, int64_t row) {
    struct nt_request q = {0};
    struct nt_json *doc = NULL;
    nt_status st = nt_reader_row_json(m->reader, row, &q, &doc);
    if (st == NT_OK && q.error) {
        const struct nt_result none = {.row = row, .status = q.error_status};
        nt_response_add_error(&q, &none, &m->errors.buf);
        st = nt_outfile_flush_if_full(&m->errors);
        m->t->n_errors++;
    } else if (st == NT_OK) {
        st = nt_corpus_add(m->corpus, &q, doc);
        m->t->n_rows++;
    }
    nt_json_free(doc);
    nt_request_release(&q);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static nt_status import_all(struct import *m, const struct nt_config *c) {
    struct nt_progress progress;
    nt_progress_begin(&progress, "rows", "row/s", 0, m->n_input, c->run_log_interval_s);
    for (int64_t row = 0; row < m->n_input; row++) {
        NT_TRY(import_row(m, row));
        nt_progress_update(&progress, row + 1, (double)(row + 1), NULL);
    }
    nt_progress_end(&progress, m->n_input, (double)m->n_input);
    struct nt_corpus_writer *corpus = m->corpus;
    m->corpus = NULL;
    NT_TRY(nt_corpus_publish(corpus));
    if (m->t->n_errors > 0) return nt_outfile_publish(&m->errors);
    /* none of an earlier import may stay and look like this one's */
    if (unlink(m->t->errors) != 0 && errno != ENOENT)
        return NT_FAIL(NT_E_IO, "%s: cannot remove the errors of an earlier import: %s", m->t->errors, strerror(errno));
    return NT_OK;
}

nt_status nt_import(const char *input, const char *output, uint32_t consent, const struct nt_config *c,
                    struct nt_transfer *t) {
    *t = (struct nt_transfer){0};
    struct import m = {.t = t};
    nt_status st = open_all(&m, input, output, consent, c);
    if (st == NT_OK) st = import_all(&m, c);
    nt_reader_close(m.reader);
    nt_corpus_abandon(m.corpus);
    nt_outfile_abandon(&m.errors);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
