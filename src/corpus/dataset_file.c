#include "dataset_file.h"

#include "dataset_check.h"
#include "fileio.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 4096 };

/* What our other HDF5 files are, for who takes one for a corpus. */
static const char *remedy_for(const char *encoding) {
    static const struct {
        const char *encoding, *says;
    } rows[] = {
        {"nocturne-results",    "; it holds answers: `nocturne export` turns them to JSONL"             },
        {"nocturne-checkpoint", "; it is a checkpoint of a training run: `nocturne inspect` tells of it"},
        {"nocturne-reference",  "; it holds log-probabilities that `nocturne finetune` keeps for itself"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].encoding, encoding) == 0) return rows[i].says;
    return "";
}

static nt_status read_encoding(struct nt_h5_file *h5, const char *path, char version[32]) {
    char type[64];
    NT_TRY(nt_h5_read_attr(h5, "/", "encoding-type", type, sizeof type));
    NT_TRY(nt_h5_read_attr(h5, "/", "encoding-version", version, 32));
    if (strcmp(type, NT_CORPUS_ENCODING) != 0)
        return NT_FAIL(NT_E_DATA, "%s: an HDF5 file of encoding \"%s\", expected \"%s\"%s", path, type,
                       NT_CORPUS_ENCODING, remedy_for(type));
    if (strncmp(version, "1.", 2) != 0)
        return NT_FAIL(
            NT_E_UNSUPPORTED,
            "%s: corpus version %s, this program reads 1.x; ingest the rows again, or use the program that wrote it",
            path, version);
    return NT_OK;
}

nt_status nt_dsfile_detect(const char *path, bool *training) {
    struct nt_h5_file *h5 = NULL;
    char version[32];
    NT_TRY(nt_h5_open(&h5, path));
    const nt_status st = read_encoding(h5, path, version);
    *training = st == NT_OK && nt_h5_has(h5, nt_table_paths[NT_T_ROWS]);
    nt_h5_close(h5);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static nt_status open_column(struct nt_dsfile *f, enum nt_col c) {
    const struct nt_col_row *r = &nt_col_rows[c];
    const int64_t known = f->n[r->table], rows = known < 0 || r->check != NT_CHECK_PTR ? known : known + 1;
    if (r->encoding) {
        NT_TRY(nt_h5_text(f->h5, r->path, NT_H5_U8, rows, &f->text[c]));
        f->n[r->table] = f->text[c].n;
        return NT_OK;
    }
    NT_TRY(nt_h5_array(f->h5, r->path, r->type, r->width, rows, &f->col[c]));
    if (known < 0) f->n[r->table] = nt_h5_rows(f->col[c]);
    return NT_OK;
}

static nt_status open_file(struct nt_dsfile *f) {
    char version[32];
    if (nt_file_exists(f->path) && !nt_h5_is_file(f->path))
        return NT_FAIL(NT_E_DATA, "%s: not an HDF5 file, expected a corpus; `nocturne ingest` makes one of JSONL rows",
                       f->path);
    NT_TRY(nt_h5_open(&f->h5, f->path));
    NT_TRY(read_encoding(f->h5, f->path, version));
    if (!nt_h5_has(f->h5, nt_table_paths[NT_T_ROWS]))
        return NT_FAIL(NT_E_DATA,
                       "%s: a corpus of requests (it has no /rows), expected one of training rows; write it with "
                       "`nocturne ingest` from conversations, pairs or labelled answers",
                       f->path);
    NT_TRY(nt_h5_read_attr(f->h5, "/", "uuid", f->uuid, sizeof f->uuid));
    NT_TRY(nt_h5_read_attr(f->h5, "/", "content_sha256", f->content_sha256, sizeof f->content_sha256));
    NT_TRY(nt_h5_read_attr(f->h5, "/", "license", f->license, sizeof f->license));
    for (int t = 0; t < NT_N_TABLES; t++) f->n[t] = -1;
    for (int c = 0; c < NT_N_COLS; c++) NT_TRY(open_column(f, (enum nt_col)c));
    return NT_OK;
}

static nt_status no_memory(const struct nt_dsfile *f) {
    return NT_FAIL(NT_E_NOMEM, "%s: no memory for the index of %" PRId64 " conversations", f->path,
                   f->n[NT_T_CONVERSATIONS]);
}

static nt_status load_whole(struct nt_dsfile *f, enum nt_col col, size_t elem, void *out) {
    const int64_t n = nt_h5_rows(f->col[col]);
    void **to = out;
    *to = calloc((size_t)n + 1, elem);
    if (!*to) return no_memory(f);
    return nt_h5_read(f->col[col], 0, n, *to);
}

static nt_status load_names(struct nt_dsfile *f, enum nt_col col, struct nt_dsfile_names *names) {
    names->n = f->text[col].n;
    names->at = calloc((size_t)names->n + 1, sizeof *names->at);
    if (!names->at) return no_memory(f);
    for (int64_t i = 0; i < names->n; i++) {
        const size_t at = names->text.len;
        names->at[i] = (int64_t)at;
        NT_TRY(nt_dsfile_text(f, col, i, &names->text));
        const size_t len = names->text.len - at;
        if (len == 0 || len > MAX_NAME || strlen(names->text.data + at) != len)
            return NT_FAIL(NT_E_DATA, "%s: %s[%" PRId64 "] has %zu bytes, expected 1 to %d without NUL", f->path,
                           nt_col_rows[col].path, i, len, MAX_NAME);
        nt_strbuf_addc(&names->text, '\0');
    }
    return NT_OK;
}

static nt_status conv_of(struct nt_dsfile *f, enum nt_table table, int64_t row, int64_t *conv) {
    if (table == NT_T_FEEDBACK) return nt_dsfile_feedback_conv(f, row, conv);
    return nt_dsfile_get(f, table == NT_T_GENERATIONS ? NT_C_GEN_CONV : NT_C_PREF_CONV, row, conv);
}

/* Counting sort of the table's rows by conversation. */
static nt_status build_index(struct nt_dsfile *f, enum nt_table table, struct nt_dsfile_index *x) {
    const int64_t n_conv = f->n[NT_T_CONVERSATIONS], n = f->n[table];
    int64_t conv = 0;
    x->ptr = calloc((size_t)n_conv + 2, sizeof *x->ptr);
    x->row = calloc((size_t)n + 1, sizeof *x->row);
    if (!x->ptr || !x->row) return no_memory(f);
    for (int64_t i = 0; i < n; i++) {
        NT_TRY(conv_of(f, table, i, &conv));
        if (f->conv_kind[conv] == NT_CONV_COMPLETION)
            return NT_FAIL(NT_E_DATA,
                           "%s: %s: row %" PRId64 " hangs on conversation %" PRId64 ", which is a completion", f->path,
                           nt_table_paths[table], i, conv);
        x->ptr[conv + 2]++;
    }
    for (int64_t c = 2; c < n_conv + 2; c++) x->ptr[c] += x->ptr[c - 1];
    for (int64_t i = 0; i < n; i++) {
        NT_TRY(conv_of(f, table, i, &conv));
        x->row[x->ptr[conv + 1]++] = i;
    }
    return NT_OK;
}

static nt_status load_file(struct nt_dsfile *f) {
    NT_TRY(nt_dataset_check_columns(f));
    NT_TRY(load_whole(f, NT_C_CONV_MSG_PTR, sizeof *f->msg_ptr, &f->msg_ptr));
    NT_TRY(load_whole(f, NT_C_CONV_KIND, sizeof *f->conv_kind, &f->conv_kind));
    NT_TRY(load_whole(f, NT_C_CONV_SUBJECT, sizeof *f->subject, &f->subject));
    NT_TRY(nt_dataset_check_links(f));
    NT_TRY(load_names(f, NT_C_SOURCE_NAME, &f->sources));
    NT_TRY(load_names(f, NT_C_LICENSE_NAME, &f->licenses));
    NT_TRY(load_names(f, NT_C_MODEL_NAME, &f->models));
    NT_TRY(build_index(f, NT_T_GENERATIONS, &f->generations));
    NT_TRY(build_index(f, NT_T_FEEDBACK, &f->feedback));
    return build_index(f, NT_T_PREFERENCES, &f->pairs);
}

nt_status nt_dsfile_open(struct nt_dsfile *f, const char *path) {
    *f = (struct nt_dsfile){.path = strdup(path)};
    nt_status st = f->path ? open_file(f) : NT_FAIL(NT_E_NOMEM, "%s: no memory to read it", path);
    if (st == NT_OK) st = load_file(f);
    if (st == NT_OK) return NT_OK;
    nt_dsfile_close(f);
    return nt_trail_at(st, __FILE__, __LINE__);
}

void nt_dsfile_close(struct nt_dsfile *f) {
    struct nt_dsfile_index *indexes[] = {&f->generations, &f->feedback, &f->pairs};
    struct nt_dsfile_names *names[] = {&f->sources, &f->licenses, &f->models};
    for (int i = 0; i < 3; i++) {
        free(indexes[i]->ptr);
        free(indexes[i]->row);
        free(names[i]->at);
        nt_strbuf_release(&names[i]->text);
    }
    nt_h5_close(f->h5);
    free(f->msg_ptr);
    free(f->conv_kind);
    free(f->subject);
    free(f->path);
    *f = (struct nt_dsfile){0};
}
