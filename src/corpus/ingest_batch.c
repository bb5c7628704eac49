/* What came after OpenAI Batch requests: the lines of the output file, and feedback on the answers. */
#include "ingest_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void complain(char error[NT_INGEST_ERROR], const char *fmt, ...) NT_PRINTF(2, 3);
static void complain(char error[NT_INGEST_ERROR], const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(error, NT_INGEST_ERROR, fmt, args);
    va_end(args);
}

/* The conversation of the line's custom_id; false: error. */
static bool find_conversation(const struct nt_ingest *m, const struct nt_json *doc, char error[NT_INGEST_ERROR],
                              int64_t *conversation) {
    size_t len = 0;
    const char *id = nt_json_str(nt_json_get(doc, "custom_id"), &len);
    *conversation = -1;
    if (nt_shell_reserved(doc)) {
        complain(error, "holds an object with the only key \"$text\", which is reserved");
        return false;
    }
    if (!id || len == 0) {
        complain(error, "custom_id is missing or no string");
        return false;
    }
    *conversation = nt_id_set_find(&m->custom_ids, id, len) - 1;
    if (*conversation < 0) complain(error, "custom_id \"%.200s\" is no row of %.150s", id, m->config->ingest_input);
    return *conversation >= 0;
}

/* ---- answers ---- */

static nt_status remember_choice(struct nt_ingest *m, int64_t generation, int32_t choice) {
    if (generation >= m->cap_choice) {
        const int64_t cap = generation ? 2 * generation : 256;
        int32_t *grown = realloc(m->choice, (size_t)cap * sizeof *grown);
        if (!grown) return NT_FAIL(NT_E_NOMEM, "no memory for %" PRId64 " answers", cap);
        m->choice = grown;
        m->cap_choice = cap;
    }
    m->choice[generation] = choice;
    return NT_OK;
}

/* One of choices into g and row.text; at: where its text begins there. False: error. */
static bool read_choice(struct nt_ingest *m, const struct nt_json *choice, size_t i, struct nt_new_generation *g,
                        size_t *at, char error[NT_INGEST_ERROR]) {
    const struct nt_json *message = nt_json_get(choice, "message"), *text = nt_json_get(choice, "text"),
                         *index = nt_json_get(choice, "index");
    struct nt_row_message to = {0};
    char where[64];
    size_t len = 0;
    const int64_t number = index ? nt_json_int(index, -1) : (int64_t)i;
    (void)snprintf(where, sizeof where, "choices[%zu].message", i);
    if (number < 0 || number > UINT16_MAX) {
        complain(error, "choices[%zu].index is no number from 0 to %d", i, UINT16_MAX);
        return false;
    }
    if (message) {
        if (!nt_train_row_content(&m->row, 'g', (int32_t)i, message, where, &to)) {
            complain(error, "%s", m->row.error);
            return false;
        }
    } else {
        const char *s = nt_json_str(text, &len);
        if (!s) {
            complain(error, "choices[%zu] has neither message nor text", i);
            return false;
        }
        nt_text_refs_add(&m->row.refs, text, 'g', (int32_t)i, -1, 0);
        to = (struct nt_row_message){.at = m->row.text.len, .len = len};
        nt_strbuf_add(&m->row.text, s, len);
    }
    *at = to.at;
    g->choice = (int32_t)number;
    g->len = to.len;
    g->has_more = to.has_more;
    g->finish = nt_gen_finish_find(nt_json_str(nt_json_get(choice, "finish_reason"), NULL));
    return true;
}

static nt_status add_generations(struct nt_ingest *m, int64_t conversation, const struct nt_json *body,
                                 struct nt_new_generation *list, const size_t *at, size_t n) {
    struct nt_ingest_answers *a = &m->answers[conversation];
    int64_t created = 0, row = 0;
    (void)nt_row_time(nt_json_get(body, "created"), &created);
    a->first = nt_dataset_count(m->writer, NT_T_GENERATIONS);
    for (size_t i = 0; i < n; i++) {
        list[i].conversation = conversation;
        list[i].model = nt_json_str(nt_json_get(body, "model"), NULL);
        list[i].created_us = created;
        list[i].text = nt_strbuf_cstr(&m->row.text) + at[i];
        NT_TRY(nt_dataset_add_generation(m->writer, &list[i], &row));
        NT_TRY(remember_choice(m, row, list[i].choice));
    }
    a->n = (int32_t)n;
    m->report->n_answers += (int64_t)n;
    return NT_OK;
}

static nt_status add_line(struct nt_ingest *m, enum nt_shell kind, int64_t conversation, int64_t target,
                          const struct nt_json *doc) {
    nt_strbuf_reset(&m->shell);
    nt_shell_dump(doc, &m->row.refs, &m->shell);
    return nt_dataset_add_shell(m->writer, kind, conversation, target, m->shell.data, m->shell.len);
}

static void begin_line(struct nt_ingest *m) {
    nt_strbuf_reset(&m->row.text);
    m->row.refs.n = 0;
    m->row.error[0] = '\0';
}

static nt_status take_choices(struct nt_ingest *m, int64_t conversation, const struct nt_json *body,
                              char error[NT_INGEST_ERROR]) {
    const struct nt_json *choices = nt_json_get(body, "choices");
    const size_t n = nt_json_len(choices);
    if (!nt_json_is(choices, NT_JSON_ARRAY) || n == 0 || n > UINT16_MAX) {
        complain(error, "response.body.choices is missing, empty or no list");
        return NT_OK;
    }
    struct nt_new_generation *list = calloc(n, sizeof *list);
    size_t *at = calloc(n, sizeof *at);
    nt_status st = list && at ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for %zu answers", n);
    bool good = st == NT_OK;
    for (size_t i = 0; i < n && good; i++) good = read_choice(m, nt_json_at(choices, i), i, &list[i], &at[i], error);
    if (good) st = add_generations(m, conversation, body, list, at, n);
    free(list);
    free(at);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

nt_status nt_ingest_response(struct nt_ingest *m, const struct nt_json *doc, char error[NT_INGEST_ERROR]) {
    const struct nt_json *response = nt_json_get(doc, "response"), *body = nt_json_get(response, "body");
    int64_t conversation = -1;
    begin_line(m);
    if (!find_conversation(m, doc, error, &conversation)) return NT_OK;
    if (m->answers[conversation].answered) {
        complain(error, "custom_id \"%.200s\" has been answered already",
                 nt_json_str(nt_json_get(doc, "custom_id"), NULL));
        return NT_OK;
    }
    const int64_t target = nt_dataset_count(m->writer, NT_T_GENERATIONS);
    const bool failed =
        nt_json_given(doc, "error") || nt_json_int(nt_json_get(response, "status_code"), 200) != 200 || !body;
    if (!failed) NT_TRY(take_choices(m, conversation, body, error));
    if (error[0]) return NT_OK;
    m->answers[conversation].answered = !failed;
    return add_line(m, NT_SHELL_RESPONSE, conversation, target, doc);
}

/* ---- feedback ---- */

struct judged {
    struct nt_ingest *m;
    const struct nt_json *doc;
    char *error;
    int64_t conversation, first, pair; /* first: feedback row that this line begins with; pair: the one it makes */
    struct nt_judgement by;
    const struct nt_json *rater;
    char number[32];
    const char *comment; /* until it is stored */
    size_t comment_len;
};

/* The generation of a choice, -1 with an error. */
static int64_t find_choice(const struct judged *j, const struct nt_json *choice, const char *name) {
    const struct nt_ingest_answers *a = &j->m->answers[j->conversation];
    const int64_t number = choice ? nt_json_int(choice, -1) : 0;
    for (int64_t g = a->first; g < a->first + a->n; g++) {
        if (j->m->choice[g] == number) return g;
    }
    complain(j->error, "%s: the answer has no choice %" PRId64, name, number);
    return -1;
}

/* 1, -1, or 0 with an error. */
static int read_thumb(const struct judged *j, const struct nt_json *v) {
    const char *s = nt_json_str(v, NULL);
    const int64_t n = nt_json_is(v, NT_JSON_INT) ? nt_json_int(v, 9) : 9;
    if ((s && strcmp(s, "up") == 0) || (nt_json_is(v, NT_JSON_BOOL) && nt_json_bool(v, false)) || n == 1) return 1;
    if ((s && strcmp(s, "down") == 0) || nt_json_is(v, NT_JSON_BOOL) || n == 0 || n == -1) return -1;
    complain(j->error, "thumb is none of \"up\", \"down\", true, false, 1, 0, -1");
    return 0;
}

/* From 0 to 1 within its scale; NaN with an error. */
static float read_rating(const struct judged *j, const struct nt_json *v) {
    const struct nt_json *scale = nt_json_given(j->doc, "scale");
    const double low = scale ? nt_json_num(nt_json_at(scale, 0), NAN) : 1,
                 high = scale ? nt_json_num(nt_json_at(scale, 1), NAN) : 5, value = nt_json_num(v, NAN);
    const double least = low < high ? low : high, most = low < high ? high : low; /* grades of which 1 is the best */
    if (!(least < most) || !isfinite(most - least) || (scale && nt_json_len(scale) != 2))
        complain(j->error, "scale is no list of two numbers, worst and best");
    else if (!(value >= least && value <= most))
        complain(j->error, "rating is no number from %g to %g (scale)", least, most);
    return j->error[0] ? NAN : (float)((value - low) / (high - low));
}

static nt_status add_feedback(struct judged *j, int64_t generation, enum nt_feedback_kind kind, float value,
                              const struct nt_json *edit) {
    int64_t row = 0;
    struct nt_new_feedback f = {.conversation = j->conversation,
                                .target_kind = NT_TARGET_GENERATION,
                                .target = generation,
                                .kind = kind,
                                .value = value,
                                .comment = j->comment,
                                .comment_len = j->comment_len,
                                .by = j->by};
    const int32_t nth = (int32_t)(nt_dataset_count(j->m->writer, NT_T_FEEDBACK) - j->first);
    if (edit) {
        f.edit = nt_json_str(edit, &f.edit_len);
        nt_text_refs_add(&j->m->row.refs, edit, 'e', nth, -1, 0);
    }
    if (j->comment) nt_text_refs_add(&j->m->row.refs, nt_json_get(j->doc, "comment"), 'n', nth, -1, 0);
    j->comment = NULL;
    j->comment_len = 0;
    j->m->report->n_feedback++;
    return nt_dataset_add_feedback(j->m->writer, &f, &row);
}

/* Everything is read before the first word is written: a line counts whole or not at all. */
static nt_status take_judgements(struct judged *j) {
    const struct nt_json *thumb = nt_json_given(j->doc, "thumb"), *rating = nt_json_given(j->doc, "rating"),
                         *edit = nt_json_given(j->doc, "edit"), *pair = nt_json_given(j->doc, "pair"),
                         *margin = nt_json_given(pair, "margin");
    int64_t generation = -1;
    struct nt_new_pair p = {.conversation = j->conversation,
                            .side = NT_SIDE_GENERATION,
                            .origin = NT_PAIR_FEEDBACK,
                            .margin = (float)nt_json_num(margin, NAN),
                            .by = j->by};
    const int up = thumb ? read_thumb(j, thumb) : 0;
    const float rated = rating ? read_rating(j, rating) : 0;
    if (!thumb && !rating && !edit && !pair) complain(j->error, "has none of thumb, rating, edit, pair");
    if (edit && !nt_json_is(edit, NT_JSON_STRING)) complain(j->error, "edit is no string");
    if (margin && !isfinite(p.margin)) complain(j->error, "pair.margin is no number");
    if (!j->error[0] && (thumb || rating || edit))
        generation = find_choice(j, nt_json_given(j->doc, "choice"), "choice");
    if (!j->error[0] && pair) {
        p.n_prompt = nt_dataset_n_messages(j->m->writer, j->conversation);
        p.chosen = find_choice(j, nt_json_get(pair, "chosen"), "pair.chosen");
        if (!j->error[0]) p.rejected = find_choice(j, nt_json_get(pair, "rejected"), "pair.rejected");
        if (!j->error[0] && p.chosen == p.rejected) complain(j->error, "pair: chosen and rejected are the same choice");
    }
    if (j->error[0]) return NT_OK;
    if (thumb) NT_TRY(add_feedback(j, generation, NT_FEEDBACK_THUMB, (float)up, NULL));
    if (rating) NT_TRY(add_feedback(j, generation, NT_FEEDBACK_RATING, rated, NULL));
    if (edit) NT_TRY(add_feedback(j, generation, NT_FEEDBACK_EDIT, 0, edit));
    if (!pair) return NT_OK;
    j->m->report->n_pairs++;
    return nt_dataset_add_pair(j->m->writer, &p, &j->pair);
}

static void read_rater(struct judged *j) {
    const struct nt_json *v = nt_json_given(j->doc, "rater");
    if (!v) return;
    j->by.rater = nt_json_str(v, &j->by.rater_len);
    if (nt_json_is(v, NT_JSON_INT)) {
        j->by.rater_len = (size_t)snprintf(j->number, sizeof j->number, "%" PRId64, nt_json_int(v, 0));
        j->by.rater = j->number;
    }
    if (!j->by.rater) complain(j->error, "rater is no string");
    if (j->by.rater && j->by.rater_len == 0) j->by.rater = NULL;
    if (j->by.rater) j->rater = v;
}

static void read_by(struct judged *j) {
    const struct nt_json *source = nt_json_given(j->doc, "source"), *weight = nt_json_given(j->doc, "weight"),
                         *comment = nt_json_given(j->doc, "comment");
    const int s = source ? nt_rater_find(nt_json_str(source, NULL), NULL) : NT_RATER_END_USER;
    const double w = weight ? nt_json_num(weight, -1) : 1;
    if (s < 0) complain(j->error, "source is none of end_user, annotator, judge, rule");
    if (!(w >= 0 && w <= (double)NT_MAX_WEIGHT))
        complain(j->error, "weight is no number from 0 to %g", (double)NT_MAX_WEIGHT);
    if (!nt_row_time(nt_json_get(j->doc, "created"), &j->by.created_us))
        complain(j->error, "created is neither seconds since 1970 nor such as 2026-02-03T04:05:06Z");
    if (comment && !nt_json_is(comment, NT_JSON_STRING)) complain(j->error, "comment is no string");
    j->by.source = s < 0 ? NT_RATER_END_USER : (enum nt_rater)s;
    j->by.weight = (float)w;
    j->comment = nt_json_str(comment, &j->comment_len);
    read_rater(j);
}

nt_status nt_ingest_feedback(struct nt_ingest *m, const struct nt_json *doc, char error[NT_INGEST_ERROR]) {
    struct judged j = {.m = m, .doc = doc, .error = error};
    begin_line(m);
    if (!find_conversation(m, doc, error, &j.conversation)) return NT_OK;
    j.first = nt_dataset_count(m->writer, NT_T_FEEDBACK);
    read_by(&j);
    if (!error[0]) NT_TRY(take_judgements(&j));
    if (error[0]) return NT_OK;
    const bool judged = nt_dataset_count(m->writer, NT_T_FEEDBACK) > j.first;
    if (m->keyed && j.rater && judged) nt_text_refs_add(&m->row.refs, j.rater, 'a', 0, -1, 0);
    if (m->keyed && j.rater && !judged) nt_text_refs_add(&m->row.refs, j.rater, 'q', (int32_t)j.pair, -1, 0);
    return add_line(m, NT_SHELL_FEEDBACK, j.conversation, j.first, doc);
}
