#include "corpus_h5.h"
#include "dataset_export.h"
#include "dataset_file.h"
#include "hdf5file.h"
#include "outfile.h"
#include "request.h"
#include "result.h"
#include "tok_utf8.h"
#include "transfer.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- a corpus ---- */

static nt_status export_corpus(const char *input, struct nt_outfile *out, struct nt_transfer *t) {
    struct nt_corpus *c = NULL;
    struct nt_strbuf json = NT_STRBUF_INIT;
    bool more = true, bad = false;
    NT_TRY(nt_corpus_open(&c, input, NT_PURPOSE_ANY));
    nt_status st = NT_OK;
    while (st == NT_OK) {
        st = nt_corpus_next(c, &json, &more, &bad);
        if (st != NT_OK || !more) break;
        if (bad) {
            st = NT_FAIL(NT_E_DATA, "%s: request %" PRId64 " has text that is not valid UTF-8", input, t->n_rows);
            break;
        }
        nt_strbuf_add(&out->buf, json.data, json.len);
        nt_strbuf_addc(&out->buf, '\n');
        st = nt_outfile_flush_if_full(out);
        t->n_rows++;
    }
    nt_strbuf_release(&json);
    nt_corpus_close(c);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

/* ---- results.h5 ---- */

struct results {
    struct nt_h5_file *h5;
    const char *path;
    struct nt_h5_text custom_id, error, content;
    struct nt_h5_array *line, *status, *n_prompt, *gen_ptr, *finish, *tok_ptr, *tok;
    struct nt_h5_array *logprob, *top_id, *top_lp; /* NULL: the file has none */
    int64_t n_requests, n_generations, n_tok;
};

static nt_status open_results(struct results *r) {
    struct nt_h5_file *f = r->h5;
    NT_TRY(nt_h5_array(f, "/requests/status", NT_H5_U16, 0, -1, &r->status));
    r->n_requests = nt_h5_rows(r->status);
    NT_TRY(nt_h5_text(f, "/requests/custom_id", NT_H5_U8, r->n_requests, &r->custom_id));
    NT_TRY(nt_h5_text(f, "/requests/error", NT_H5_U8, r->n_requests, &r->error));
    NT_TRY(nt_h5_array(f, "/requests/line", NT_H5_I64, 0, r->n_requests, &r->line));
    NT_TRY(nt_h5_array(f, "/requests/n_prompt", NT_H5_U32, 0, r->n_requests, &r->n_prompt));
    NT_TRY(nt_h5_array(f, "/requests/gen_ptr", NT_H5_I64, 0, r->n_requests + 1, &r->gen_ptr));
    NT_TRY(nt_h5_array(f, "/generations/finish", NT_H5_U8, 0, -1, &r->finish));
    r->n_generations = nt_h5_rows(r->finish);
    NT_TRY(nt_h5_text(f, "/generations/content", NT_H5_U8, r->n_generations, &r->content));
    NT_TRY(nt_h5_array(f, "/generations/tok_ptr", NT_H5_I64, 0, r->n_generations + 1, &r->tok_ptr));
    NT_TRY(nt_h5_array(f, "/generations/tok", NT_H5_U32, 0, -1, &r->tok));
    r->n_tok = nt_h5_rows(r->tok);
    if (nt_h5_has(f, "/generations/logprob"))
        NT_TRY(nt_h5_array(f, "/generations/logprob", NT_H5_F32, 0, r->n_tok, &r->logprob));
    if (!nt_h5_has(f, "/generations/top_id")) return NT_OK;
    NT_TRY(nt_h5_array(f, "/generations/top_id", NT_H5_U32, -1, r->n_tok, &r->top_id));
    if (nt_h5_width(r->top_id) > NT_MAX_TOP_LOGPROBS)
        return NT_FAIL(NT_E_DATA, "%s: /generations/top_id has rows of %d, expected at most %d", r->path,
                       nt_h5_width(r->top_id), NT_MAX_TOP_LOGPROBS);
    return nt_h5_array(f, "/generations/top_lp", NT_H5_F32, nt_h5_width(r->top_id), r->n_tok, &r->top_lp);
}

static nt_status get_range(struct results *r, struct nt_h5_array *ptr, int64_t i, int64_t n, const char *name,
                           int64_t *first, int64_t *end) {
    NT_TRY(nt_h5_get(ptr, i, first));
    NT_TRY(nt_h5_get(ptr, i + 1, end));
    if (*first >= 0 && *end >= *first && *end <= n) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: %s[%" PRId64 "] gives %" PRId64 " to %" PRId64 ", expected a range within %" PRId64,
                   r->path, name, i, *first, *end, n);
}

static nt_status add_text(struct results *r, struct nt_h5_text *t, const char *name, int64_t i, struct nt_strbuf *out) {
    struct nt_strbuf text = NT_STRBUF_INIT;
    nt_status st = nt_h5_text_get(t, i, &text);
    if (st == NT_OK && !nt_utf8_valid(nt_strbuf_cstr(&text), text.len))
        st = NT_FAIL(NT_E_DATA, "%s: %s[%" PRId64 "] is not valid UTF-8", r->path, name, i);
    if (st == NT_OK && text.len == 0 && t == &r->error)
        nt_strbuf_adds(out, "null");
    else if (st == NT_OK)
        nt_strbuf_add_json(out, nt_strbuf_cstr(&text), text.len);
    nt_strbuf_release(&text);
    return st;
}

/* Infinity is no JSON number: the floor of results.jsonl stands for it; NaN becomes null. */
static void add_lp(float lp, struct nt_strbuf *out) {
    nt_strbuf_add_json_num(out, lp < -9999.0f ? -9999.0 : (double)lp);
}

static nt_status add_top(struct results *r, int64_t t, struct nt_strbuf *out) {
    uint32_t id[NT_MAX_TOP_LOGPROBS];
    float lp[NT_MAX_TOP_LOGPROBS];
    NT_TRY(nt_h5_get(r->top_id, t, id));
    NT_TRY(nt_h5_get(r->top_lp, t, lp));
    nt_strbuf_addc(out, '[');
    for (int32_t k = 0; k < nt_h5_width(r->top_id) && id[k] != UINT32_MAX; k++) {
        nt_strbuf_addf(out, "%s[%u, ", k ? ", " : "", id[k]);
        add_lp(lp[k], out);
        nt_strbuf_addc(out, ']');
    }
    nt_strbuf_addc(out, ']');
    return NT_OK;
}

static nt_status add_logprobs(struct results *r, int64_t first, int64_t end, struct nt_strbuf *out) {
    float lp = NAN;
    if (first < end) NT_TRY(nt_h5_get(r->logprob, first, &lp));
    if (isnan(lp)) return NT_OK; /* this row did not ask */
    nt_strbuf_adds(out, ", \"logprobs\": [");
    for (int64_t t = first; t < end; t++) {
        NT_TRY(nt_h5_get(r->logprob, t, &lp));
        if (t > first) nt_strbuf_adds(out, ", ");
        add_lp(lp, out);
    }
    nt_strbuf_addc(out, ']');
    return NT_OK;
}

static nt_status add_tops(struct results *r, int64_t first, int64_t end, struct nt_strbuf *out) {
    uint32_t id[NT_MAX_TOP_LOGPROBS] = {UINT32_MAX};
    if (first < end) NT_TRY(nt_h5_get(r->top_id, first, id));
    if (id[0] == UINT32_MAX) return NT_OK;
    nt_strbuf_adds(out, ", \"top_logprobs\": [");
    for (int64_t t = first; t < end; t++) {
        if (t > first) nt_strbuf_adds(out, ", ");
        NT_TRY(add_top(r, t, out));
    }
    nt_strbuf_addc(out, ']');
    return NT_OK;
}

static nt_status add_tokens(struct results *r, int64_t first, int64_t end, struct nt_strbuf *out) {
    nt_strbuf_adds(out, ", \"tokens\": [");
    for (int64_t t = first; t < end; t++) {
        uint32_t id = 0;
        NT_TRY(nt_h5_get(r->tok, t, &id));
        nt_strbuf_addf(out, "%s%u", t > first ? ", " : "", id);
    }
    nt_strbuf_addc(out, ']');
    if (r->logprob) NT_TRY(add_logprobs(r, first, end, out));
    return r->top_id ? add_tops(r, first, end, out) : NT_OK;
}

static nt_status add_generation(struct results *r, int64_t g, int64_t index, struct nt_strbuf *out) {
    int64_t first = 0, end = 0;
    uint8_t finish = 0;
    NT_TRY(get_range(r, r->tok_ptr, g, r->n_tok, "/generations/tok_ptr", &first, &end));
    NT_TRY(nt_h5_get(r->finish, g, &finish));
    if (finish > NT_FINISH_ERROR)
        return NT_FAIL(NT_E_DATA, "%s: /generations/finish[%" PRId64 "] is %d, expected 0 to %d", r->path, g, finish,
                       NT_FINISH_ERROR);
    nt_strbuf_addf(out, "{\"index\": %" PRId64 ", \"content\": ", index);
    NT_TRY(add_text(r, &r->content, "/generations/content", g, out));
    nt_strbuf_addf(out, ", \"finish_reason\": \"%s\"", nt_finish_name((enum nt_finish)finish));
    NT_TRY(add_tokens(r, first, end, out));
    nt_strbuf_addc(out, '}');
    return NT_OK;
}

static nt_status add_request(struct results *r, int64_t i, struct nt_strbuf *out) {
    int64_t line = 0, first = 0, end = 0;
    uint16_t status = 0;
    uint32_t n_prompt = 0;
    NT_TRY(nt_h5_get(r->line, i, &line));
    NT_TRY(nt_h5_get(r->status, i, &status));
    NT_TRY(nt_h5_get(r->n_prompt, i, &n_prompt));
    NT_TRY(get_range(r, r->gen_ptr, i, r->n_generations, "/requests/gen_ptr", &first, &end));
    nt_strbuf_addf(out, "{\"row\": %" PRId64 ", \"line\": %" PRId64 ", \"custom_id\": ", i, line);
    NT_TRY(add_text(r, &r->custom_id, "/requests/custom_id", i, out));
    nt_strbuf_addf(out, ", \"status\": %d, \"error\": ", status);
    NT_TRY(add_text(r, &r->error, "/requests/error", i, out));
    nt_strbuf_addf(out, ", \"n_prompt\": %u, \"choices\": [", n_prompt);
    for (int64_t g = first; g < end; g++) {
        if (g > first) nt_strbuf_adds(out, ", ");
        NT_TRY(add_generation(r, g, g - first, out));
    }
    nt_strbuf_adds(out, "]}\n");
    return NT_OK;
}

static nt_status export_results(const char *input, struct nt_outfile *out, struct nt_transfer *t) {
    struct results r = {.path = input};
    NT_TRY(nt_h5_open(&r.h5, input));
    nt_status st = open_results(&r);
    for (int64_t i = 0; i < r.n_requests && st == NT_OK; i++) {
        st = add_request(&r, i, &out->buf);
        if (st == NT_OK) st = nt_outfile_flush_if_full(out);
        t->n_rows++;
    }
    nt_h5_close(r.h5);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

/* ---- either ---- */

static nt_status read_encoding(const char *input, char *type, size_t cap) {
    struct nt_h5_file *h5 = NULL;
    NT_TRY(nt_h5_open(&h5, input));
    const nt_status st = nt_h5_read_attr(h5, "/", "encoding-type", type, cap);
    nt_h5_close(h5);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

nt_status nt_export(const char *input, const char *output, struct nt_transfer *t) {
    char type[64];
    struct nt_outfile out = {.fd = -1};
    *t = (struct nt_transfer){0};
    if (strcmp(input, output) == 0) return NT_FAIL(NT_E_USAGE, "%s: input and output are the same file", input);
    NT_TRY(read_encoding(input, type, sizeof type));
    const bool results = strcmp(type, "nocturne-results") == 0;
    bool training = false;
    if (!results) NT_TRY(nt_dsfile_detect(input, &training));
    if (training) return nt_dataset_export(input, output, t);
    NT_TRY(nt_outfile_open(&out, output));
    nt_status st = results ? export_results(input, &out, t) : export_corpus(input, &out, t);
    if (st == NT_OK) st = nt_outfile_publish(&out);
    nt_outfile_abandon(&out);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
