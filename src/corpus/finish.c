#include "fileio.h"
#include "journal.h"
#include "journal_index.h"
#include "outfile.h"
#include "reader.h"
#include "response.h"
#include "results_h5.h"
#include <inttypes.h>
#include <limits.h>
#include <string.h>

/* The three files and where their rows come from. */
struct finish {
    struct nt_finish_info *info;
    struct nt_journal_index index;
    struct nt_reader *reader;
    struct nt_results_h5 h5;
    struct nt_outfile results, errors;
};

static nt_status open_all(struct finish *f) {
    const struct nt_finish_info *info = f->info;
    char path[PATH_MAX];
    NT_TRY(nt_journal_remove_temps(info->dir));
    NT_TRY(nt_journal_index_build(&f->index, info->dir, info->job_digest, info->n_rows));
    NT_TRY(nt_reader_open(&f->reader, info->input, info->config));
    NT_TRY(nt_path_join(path, sizeof path, info->dir, "results.h5"));
    NT_TRY(nt_results_h5_open(&f->h5, path, info, f->index.has_logprob, f->index.n_top));
    NT_TRY(nt_path_join(path, sizeof path, info->dir, "results.jsonl"));
    NT_TRY(nt_outfile_open(&f->results, path));
    NT_TRY(nt_path_join(path, sizeof path, info->dir, "errors.jsonl"));
    return nt_outfile_open(&f->errors, path);
}

/* The row's answer; a bad line needs none. */
static nt_status find_result(struct finish *f, const struct nt_request *q, struct nt_result *r) {
    *r = (struct nt_result){.row = q->row};
    if (f->index.at[q->row].offset == 0 && q->error) return NT_OK;
    NT_TRY(nt_journal_index_read(&f->index, q->row, r));
    if (q->error || memcmp(q->digest, r->digest, sizeof q->digest) == 0) return NT_OK;
    nt_result_release(r);
    return NT_FAIL(NT_E_DATA,
                   "%s: row %" PRId64 " (line %" PRId64
                   ") is not the request that was answered; the input changed while "
                   "the job ran: start with --fresh",
                   f->info->input, q->row, q->line);
}

static nt_status write_row(struct finish *f, const struct nt_request *q, const struct nt_result *r) {
    nt_response_add(f->info, q, r, &f->results.buf);
    NT_TRY(nt_outfile_flush_if_full(&f->results));
    if (q->error || r->error) {
        f->info->n_error++;
        nt_response_add_error(q, r, &f->errors.buf);
        NT_TRY(nt_outfile_flush_if_full(&f->errors));
    }
    return nt_results_h5_add(&f->h5, q, r);
}

static nt_status copy_row(struct finish *f, int64_t row) {
    struct nt_request q = {0};
    struct nt_result r = {0};
    nt_status st = nt_reader_row(f->reader, row, &q);
    if (st == NT_OK) st = find_result(f, &q, &r);
    if (st == NT_OK) st = write_row(f, &q, &r);
    nt_result_release(&r);
    nt_request_release(&q);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static nt_status finish_all(struct finish *f) {
    NT_TRY(open_all(f));
    f->info->n_error = 0;
    for (int64_t row = 0; row < f->info->n_rows; row++) {
        NT_TRY(copy_row(f, row));
        nt_beat(&f->info->beat);
    }
    NT_TRY(nt_results_h5_publish(&f->h5));
    NT_TRY(nt_outfile_publish(&f->errors));
    return nt_outfile_publish(&f->results);
}

nt_status nt_results_finish(struct nt_finish_info *info) {
    struct finish f = {.info = info};
    const nt_status st = finish_all(&f);
    nt_results_h5_abandon(&f.h5);
    nt_outfile_abandon(&f.results);
    nt_outfile_abandon(&f.errors);
    nt_reader_close(f.reader);
    nt_journal_index_release(&f.index);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
