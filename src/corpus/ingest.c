#include "ingest_impl.h"

#include "fileio.h"
#include "hash.h"
#include "lines.h"
#include "log.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MIN_KEY = 32, MAX_KEY = 4096, DETECT_LINES = 1000 };

/* ---- files ---- */

static nt_status add_error(struct nt_ingest *m, const char *path, int64_t line, const char *error) {
    struct nt_strbuf *out = &m->errors.buf;
    nt_strbuf_adds(out, "{\"file\": ");
    nt_strbuf_add_json(out, path, strlen(path));
    nt_strbuf_addf(out, ", \"line\": %" PRId64 ", \"error\": ", line);
    nt_strbuf_add_json(out, error, strlen(error));
    nt_strbuf_adds(out, "}\n");
    m->report->n_errors++;
    return nt_outfile_flush_if_full(&m->errors);
}

static nt_status take_line(struct nt_ingest *m, const char *path, const struct nt_line *line, nt_ingest_line *take) {
    char origin[40], error[NT_INGEST_ERROR] = "", said[NT_ERROR_TEXT];
    struct nt_json *doc = NULL;
    nt_status st = NT_OK;
    (void)snprintf(origin, sizeof origin, "line %" PRId64, line->number);
    if (line->too_long) {
        (void)snprintf(error, sizeof error, "is %zu bytes long, at most %d are allowed", line->len, NT_LINES_MAX);
    } else if (nt_json_parse(line->data, line->len, origin, &doc) != NT_OK) {
        nt_lines_complaint(origin, said);
        (void)snprintf(error, sizeof error, "%.*s", NT_INGEST_ERROR - 1, said);
    } else {
        st = take(m, doc, error);
    }
    nt_json_free(doc);
    if (st == NT_OK && error[0]) st = add_error(m, path, line->number, error);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static nt_status walk(struct nt_ingest *m, const char *path, struct nt_lines *lines, nt_ingest_line *take, int64_t *n) {
    struct nt_progress progress;
    struct nt_line line;
    nt_progress_begin(&progress, "rows", "row/s", 0, 0, m->config->run_log_interval_s);
    for (*n = 0;; (*n)++) {
        NT_TRY(nt_lines_next_row(lines, &line));
        if (!line.data) break;
        NT_TRY(take_line(m, path, &line, take));
        nt_progress_update(&progress, *n + 1, (double)(*n + 1), NULL);
    }
    nt_progress_end(&progress, *n, (double)*n);
    return NT_OK;
}

nt_status nt_ingest_file(struct nt_ingest *m, const char *path, nt_ingest_line *take) {
    struct nt_sha256 *sha = NULL;
    struct nt_lines *lines = NULL;
    uint8_t digest[NT_SHA256_BYTES];
    char hex[NT_SHA256_HEX];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int64_t n = 0;
    NT_TRY(nt_sha256_new(&sha));
    nt_status st = nt_lines_open(&lines, path, 0, sha);
    if (st == NT_OK) st = walk(m, path, lines, take, &n);
    nt_lines_close(lines);
    nt_sha256_finish(sha, digest);
    NT_TRY(st);
    nt_hex(digest, sizeof digest, hex);
    nt_strbuf_adds(&m->inputs, m->inputs.len ? ",{\"uri\":" : "{\"uri\":");
    nt_strbuf_add_json(&m->inputs, name, strlen(name));
    nt_strbuf_addf(&m->inputs, ",\"sha256\":\"%s\",\"rows\":%" PRId64 "}", hex, n);
    return NT_OK;
}

/* ---- one row ---- */

static nt_status make_room(struct nt_ingest *m, int32_t n) {
    if (n <= m->cap_messages) return NT_OK;
    struct nt_new_message *grown = realloc(m->messages, (size_t)n * sizeof *grown);
    if (!grown) return NT_FAIL(NT_E_NOMEM, "no memory for %d messages", n);
    m->messages = grown;
    m->cap_messages = n;
    return NT_OK;
}

/* The messages of a list as a conversation; the row's own one carries its digest, flags and origin. */
static nt_status add_list(struct nt_ingest *m, const struct nt_row_meta *meta, const struct nt_row_list *list,
                          enum nt_conv_kind kind, uint32_t flags, const uint8_t *digest, int64_t *conversation) {
    NT_TRY(make_room(m, list->n));
    nt_train_row_messages(&m->row, list, m->messages);
    const struct nt_new_conversation c = {.format = m->row.format,
                                          .kind = kind,
                                          .subject = &meta->subject,
                                          .source = meta->source,
                                          .license = meta->license,
                                          .created_us = meta->created_us,
                                          .split = meta->split,
                                          .flags = flags,
                                          .row_sha256 = digest,
                                          .messages = m->messages,
                                          .n_messages = list->n};
    return nt_dataset_add_conversation(m->writer, &c, conversation);
}

static nt_status add_pair(struct nt_ingest *m, const struct nt_row_meta *meta, int64_t conversation, int64_t *pair) {
    struct nt_new_pair p = {
        .conversation = conversation,
        .n_prompt = m->row.messages.n,
        .margin = m->row.margin,
        .by = {.source = NT_RATER_ANNOTATOR, .weight = 1, .created_us = meta->created_us}
    };
    *pair = -1;
    if (m->row.chosen.n == 0) return NT_OK;
    NT_TRY(add_list(m, meta, &m->row.chosen, NT_CONV_COMPLETION, 0, NULL, &p.chosen));
    NT_TRY(add_list(m, meta, &m->row.rejected, NT_CONV_COMPLETION, 0, NULL, &p.rejected));
    m->report->n_pairs++;
    return nt_dataset_add_pair(m->writer, &p, pair);
}

static nt_status add_label(struct nt_ingest *m, const struct nt_row_meta *meta, int64_t conversation) {
    int64_t feedback = 0;
    const struct nt_new_feedback f = {
        .conversation = conversation,
        .target = m->row.messages.n - 1,
        .value = m->row.label ? 1.0f : -1.0f,
        .by = {.source = NT_RATER_ANNOTATOR, .weight = 1, .created_us = meta->created_us}
    };
    if (m->row.label < 0) return NT_OK;
    m->report->n_feedback++;
    return nt_dataset_add_feedback(m->writer, &f, &feedback);
}

static nt_status remember_answers(struct nt_ingest *m, int64_t conversation) {
    if (conversation >= m->cap_answers) {
        const int64_t cap = conversation ? 2 * conversation : 256;
        struct nt_ingest_answers *grown = realloc(m->answers, (size_t)cap * sizeof *grown);
        if (!grown) return NT_FAIL(NT_E_NOMEM, "no memory for %" PRId64 " rows", cap);
        m->answers = grown;
        m->cap_answers = cap;
    }
    m->answers[conversation] = (struct nt_ingest_answers){0};
    return NT_OK;
}

static nt_status write_row(struct nt_ingest *m, const struct nt_json *doc, const struct nt_row_meta *meta,
                           const uint8_t digest[32], bool duplicate) {
    int64_t conversation = 0, pair = -1;
    const uint32_t flags = (duplicate ? NT_CONV_DUP : 0u) | (m->row.has_tools ? NT_CONV_TOOLS : 0u);
    NT_TRY(add_list(m, meta, &m->row.messages, m->row.kind, flags, digest, &conversation));
    NT_TRY(add_pair(m, meta, conversation, &pair));
    NT_TRY(add_label(m, meta, conversation));
    if (m->row.format == NT_ROW_BATCH) NT_TRY(remember_answers(m, conversation));
    if (m->keyed && meta->user) nt_text_refs_add(&m->row.refs, meta->user, 's', 0, -1, 0);
    nt_strbuf_reset(&m->shell);
    nt_shell_dump(doc, &m->row.refs, &m->shell);
    m->report->n_rows++;
    m->report->n_repeats += m->row.repeats;
    if (m->row.unread && !m->report->unread) m->report->unread = m->row.unread;
    m->report->n_unread += m->row.unread != NULL;
    m->report->n_without_consent += meta->subject.consent == 0;
    return nt_dataset_add_shell(m->writer, NT_SHELL_ROW, conversation, pair, m->shell.data, m->shell.len);
}

static nt_status take_row(struct nt_ingest *m, const struct nt_json *doc, char error[NT_INGEST_ERROR]) {
    struct nt_row_meta meta;
    uint8_t digest[NT_SHA256_BYTES];
    int64_t first = 0, line = m->report->n_rows + 1;
    const char *id = nt_json_str(nt_json_get(doc, "custom_id"), NULL);
    nt_train_row_parse(&m->row, doc, m->row.format);
    if (m->row.error[0]) {
        (void)snprintf(error, NT_INGEST_ERROR, "%s", m->row.error);
        return NT_OK;
    }
    if (!nt_row_meta_read(m->config, &m->defaults, doc, &meta, error, NT_INGEST_ERROR)) return NT_OK;
    const bool batch = m->row.format == NT_ROW_BATCH;
    if (batch) {
        NT_TRY(
            nt_id_set_add(&m->custom_ids, id, strlen(id), nt_dataset_count(m->writer, NT_T_CONVERSATIONS) + 1, &first));
        if (first) {
            (void)snprintf(error, NT_INGEST_ERROR, "custom_id \"%.200s\" was used already", id);
            return NT_OK;
        }
    }
    nt_train_row_digest(&m->row, batch ? id : "", digest);
    NT_TRY(nt_id_set_add(&m->digests, (const char *)digest, sizeof digest, line, &first));
    m->report->n_duplicates += first != 0;
    if (first && strcmp(m->config->ingest_duplicates, "drop") == 0) return NT_OK;
    return write_row(m, doc, &meta, digest, first != 0);
}

/* ---- the whole ---- */

static nt_status read_key(const char *path, char **key, size_t *len) {
    NT_TRY(nt_file_read(path, MAX_KEY, key, len));
    if (*len >= MIN_KEY) return NT_OK;
    return NT_FAIL(NT_E_CONFIG, "%s: a key of %zu bytes, expected %d or more (such as of `openssl rand 32`)", path,
                   *len, MIN_KEY);
}

static nt_status create(struct nt_ingest *m) {
    const struct nt_config *c = m->config;
    char *key = NULL;
    size_t len = 0;
    nt_status st = c->ingest_subject_key[0] ? read_key(c->ingest_subject_key, &key, &len) : NT_OK;
    if (st == NT_OK)
        st = nt_dataset_create(&m->writer, c->ingest_output, "nocturne ingest", c->ingest_license, (const uint8_t *)key,
                               len);
    m->keyed = key != NULL;
    if (key) explicit_bzero(key, len);
    free(key);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static nt_status open_all(struct nt_ingest *m) {
    const struct nt_config *c = m->config;
    const char *const inputs[] = {c->ingest_input, c->ingest_responses, c->ingest_feedback};
    char *errors = m->report->errors;
    for (int i = 0; i < 3; i++) {
        if (strcmp(inputs[i], c->ingest_output) == 0)
            return NT_FAIL(NT_E_USAGE, "%s: input and output are the same file", inputs[i]);
        if (inputs[i][0] && !nt_file_exists(inputs[i])) return NT_FAIL(NT_E_NOINPUT, "%s: no such file", inputs[i]);
    }
    if ((inputs[1][0] || inputs[2][0]) && m->row.format != NT_ROW_BATCH)
        return NT_FAIL(NT_E_USAGE,
                       "ingest: responses and feedback belong to OpenAI Batch requests, but %s has rows of "
                       "format %s",
                       inputs[0], nt_row_format_name(m->row.format));
    if (inputs[2][0] && !inputs[1][0])
        return NT_FAIL(NT_E_USAGE, "ingest: feedback is about answers; add --responses with the Batch output file");
    NT_TRY(nt_row_defaults(c, &m->defaults));
    const int n = snprintf(errors, sizeof m->report->errors, "%s.errors.jsonl", c->ingest_output);
    if (n < 0 || (size_t)n >= sizeof m->report->errors)
        return NT_FAIL(NT_E_USAGE, "%.60s...: path too long", c->ingest_output);
    NT_TRY(create(m));
    return nt_outfile_open(&m->errors, errors);
}

static nt_status add_provenance(struct nt_ingest *m, const char *program) {
    const struct nt_config *c = m->config;
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_strbuf_adds(&s, "{\"tool\":");
    nt_strbuf_add_json(&s, program, strlen(program));
    nt_strbuf_addf(&s, ",\"step\":\"ingest\",\"format\":\"%s\",\"consent\":\"%s\",\"basis\":\"%s\",\"inputs\":[%s]",
                   nt_row_format_name(m->row.format), c->ingest_consent, c->ingest_basis, nt_strbuf_cstr(&m->inputs));
    nt_strbuf_addf(&s, ",\"rows\":%" PRId64 ",\"errors\":%" PRId64 ",\"duplicates\":%" PRId64 "}", m->report->n_rows,
                   m->report->n_errors, m->report->n_duplicates);
    const nt_status st = nt_dataset_add_step(m->writer, s.data, s.len);
    nt_strbuf_release(&s);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static void count_unanswered(struct nt_ingest *m) {
    if (m->row.format != NT_ROW_BATCH) return;
    for (int64_t i = 0; i < nt_dataset_count(m->writer, NT_T_CONVERSATIONS); i++)
        m->report->n_unanswered += !m->answers[i].answered;
}

static nt_status ingest_all(struct nt_ingest *m, const char *program) {
    const struct nt_config *c = m->config;
    NT_TRY(open_all(m));
    NT_TRY(nt_ingest_file(m, c->ingest_input, take_row));
    if (c->ingest_responses[0]) NT_TRY(nt_ingest_file(m, c->ingest_responses, nt_ingest_response));
    if (c->ingest_feedback[0]) NT_TRY(nt_ingest_file(m, c->ingest_feedback, nt_ingest_feedback));
    count_unanswered(m);
    NT_TRY(add_provenance(m, program));
    struct nt_dataset_writer *w = m->writer;
    m->writer = NULL;
    NT_TRY(nt_dataset_publish(w));
    if (m->report->n_errors > 0) return nt_outfile_publish(&m->errors);
    /* none of an earlier ingest may stay and look like this one's */
    if (unlink(m->report->errors) != 0 && errno != ENOENT)
        return NT_FAIL(NT_E_IO, "%s: cannot remove the errors of an earlier ingest: %s", m->report->errors,
                       strerror(errno));
    return NT_OK;
}

nt_status nt_ingest(const struct nt_config *c, enum nt_row_format format, const char *program,
                    struct nt_ingest_report *report) {
    *report = (struct nt_ingest_report){.format = format};
    struct nt_ingest m = {.config = c, .report = report, .row.format = format};
    const nt_status st = ingest_all(&m, program);
    nt_dataset_abandon(m.writer);
    nt_outfile_abandon(&m.errors);
    nt_train_row_release(&m.row);
    nt_strbuf_release(&m.shell);
    nt_strbuf_release(&m.inputs);
    nt_id_set_release(&m.digests);
    nt_id_set_release(&m.custom_ids);
    free(m.messages);
    free(m.answers);
    free(m.choice);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

/* ---- which format ---- */

static bool begins_list(const struct nt_line *line) {
    size_t at = 0;
    if (line->too_long) return false;
    while (at < line->len && (line->data[at] == ' ' || line->data[at] == '\t')) at++;
    return at < line->len && line->data[at] == '[';
}

static void what_is_wrong(const struct nt_line *line, const char *said, char *out, size_t cap) {
    const int n = snprintf(out, cap, ". Line %" PRId64 " is ", line->number);
    if (line->too_long)
        (void)snprintf(out + n, cap - (size_t)n, "%zu bytes long, at most %d are allowed", line->len, NT_LINES_MAX);
    else
        (void)snprintf(out + n, cap - (size_t)n, "%.150s", said);
}

static nt_status detect(const char *path, struct nt_lines *lines, enum nt_row_format *format, bool *request) {
    char first[200] = ""; /* what is wrong with the first row, where it is no JSON */
    bool list = false;
    struct nt_line line;
    int n = 0;
    for (; n < DETECT_LINES; n++) {
        struct nt_json *doc = NULL;
        NT_TRY(nt_lines_next_row(lines, &line));
        if (!line.data) break;
        const bool parsed = !line.too_long && nt_json_parse(line.data, line.len, "row", &doc) == NT_OK;
        const bool known = parsed && nt_train_row_detect(doc, format, request);
        char said[NT_ERROR_TEXT] = "";
        if (!parsed && !line.too_long) nt_lines_complaint("row", said);
        if (n == 0) list = begins_list(&line);
        if (n == 0 && !parsed) what_is_wrong(&line, said, first, sizeof first);
        nt_json_free(doc);
        if (n == 0 && list && !parsed) break; /* over several lines: some may look like rows */
        if (known) return NT_OK;
    }
    if (list)
        return NT_FAIL(NT_E_DATA, "%s: begins with a list, expected one JSON object per line; convert it: jq -c '.[]'",
                       path);
    if (n == 0) return NT_FAIL(NT_E_DATA, "%s: no rows, expected one JSON object per line", path);
    return NT_FAIL(
        NT_E_DATA,
        "%s: none of its first %d rows is in a known format (messages, prompt and completion, conversations, "
        "instruction, chosen and rejected, label, an OpenAI Batch line); name it with --format%s",
        path, n, first);
}

nt_status nt_ingest_detect(const struct nt_config *c, enum nt_row_format *format, bool *request) {
    struct nt_lines *lines = NULL;
    const int named = nt_row_format_find(c->ingest_format, NULL);
    *request = strcmp(c->ingest_format, "requests") == 0;
    *format = named < 0 ? NT_ROW_MESSAGES : (enum nt_row_format)named;
    if (named >= 0 || *request) return NT_OK;
    NT_TRY(nt_lines_open(&lines, c->ingest_input, 0, NULL));
    const nt_status st = detect(c->ingest_input, lines, format, request);
    nt_lines_close(lines);
    NT_TRY(st);
    if (*format == NT_ROW_BATCH && c->ingest_responses[0]) *request = false;
    return NT_OK;
}
