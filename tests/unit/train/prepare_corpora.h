/* Small corpora and their preparation for the tests: a file that a test writes row by row, settings, and what became of
 * it.
 *
 * One corpus at a time, in a directory made by make_dir and removed by remove_dir. Times are in us. Ownership: set_up
 * publishes the corpus and opens it, tear_down frees. Failures end the test with the error's sentence. Include after
 * cmocka.h. */
#ifndef NT_PREPARE_CORPORA_H
#define NT_PREPARE_CORPORA_H

#include "dataset_writer.h"
#include "prepare.h"
#include "train_text.h"

#include <math.h>

static const int64_t day = 86400000000;
static char dir[64], path[96];

static inline int make_dir(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/nt-prepare-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    (void)snprintf(path, sizeof path, "%s/a.h5", dir);
    return 0;
}

static inline int remove_dir(void **state) {
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

/* ---- writing corpora ---- */

struct corpus {
    struct nt_dataset_writer *w;
    const char *user, *source;
    enum nt_split split;
    int64_t created_us, erased_us, retention_until_us;
    uint32_t consent;
};

static inline struct corpus begin_corpus(void) {
    struct corpus c = {.user = "ann", .source = "web", .created_us = 100 * day, .consent = NT_PURPOSE_TRAIN};
    (void)remove(path);
    must(nt_dataset_create(&c.w, path, "test", "", NULL, 0));
    return c;
}

static inline int64_t add_messages(struct corpus *c, enum nt_row_format format, enum nt_conv_kind kind,
                                   const struct nt_new_message *m, int32_t n) {
    const struct nt_subject who = {.user = c->user,
                                   .user_len = c->user ? strlen(c->user) : 0,
                                   .consent = c->consent,
                                   .basis = NT_BASIS_CONSENT,
                                   .retention_until_us = c->retention_until_us,
                                   .erased_us = c->erased_us};
    const struct nt_new_conversation conv = {.format = format,
                                             .kind = kind,
                                             .subject = &who,
                                             .source = c->source,
                                             .created_us = c->created_us,
                                             .split = c->split,
                                             .messages = m,
                                             .n_messages = n};
    int64_t at = -1;
    must(nt_dataset_add_conversation(c->w, &conv, &at));
    return at;
}

static inline struct nt_new_message say(const char *role, const char *text) {
    return (struct nt_new_message){
        .role = role, .text = text, .len = strlen(text), .weight = strcmp(role, "assistant") == 0 ? 1 : 0};
}

static inline int64_t add_turn(struct corpus *c, const char *q, const char *a) {
    const struct nt_new_message m[] = {say("user", q), say("assistant", a)};
    return add_messages(c, NT_ROW_MESSAGES, NT_CONV_CHAT, m, 2);
}

static inline void judge(struct corpus *c, int64_t conv, int64_t target, enum nt_feedback_kind kind, float value,
                         const char *edit, float weight, int64_t created_us) {
    const struct nt_new_feedback f = {
        .conversation = conv,
        .target_kind = NT_TARGET_MESSAGE,
        .target = target,
        .kind = kind,
        .value = value,
        .edit = edit,
        .edit_len = edit ? strlen(edit) : 0,
        .by = {.weight = weight, .created_us = created_us}
    };
    int64_t row;
    must(nt_dataset_add_feedback(c->w, &f, &row));
}

static inline void thumb(struct corpus *c, int64_t conv, float value) {
    judge(c, conv, 1, NT_FEEDBACK_THUMB, value, NULL, 1, c->created_us);
}

static inline void add_pair(struct corpus *c, const char *q, const char *chosen, const char *rejected,
                            int64_t created_us) {
    const struct nt_new_message prompt = say("user", q), good = say("assistant", chosen),
                                bad = say("assistant", rejected);
    const int64_t conv = add_messages(c, NT_ROW_PREFERENCE, NT_CONV_CHAT, &prompt, 1);
    const int64_t a = add_messages(c, NT_ROW_PREFERENCE, NT_CONV_COMPLETION, &good, 1);
    const int64_t b = add_messages(c, NT_ROW_PREFERENCE, NT_CONV_COMPLETION, &bad, 1);
    const struct nt_new_pair pair = {
        .conversation = conv,
        .n_prompt = 1,
        .side = NT_SIDE_CONVERSATION,
        .chosen = a,
        .rejected = b,
        .margin = NAN,
        .by = {.weight = 1, .created_us = created_us}
    };
    int64_t row;
    must(nt_dataset_add_pair(c->w, &pair, &row));
}

static inline void write_people(struct corpus *c, int n_people) {
    static char user[16], q[32];
    for (int i = 0; i < n_people; i++) {
        for (int k = 0; k <= i % 4; k++) {
            (void)snprintf(user, sizeof user, "user%d", i);
            (void)snprintf(q, sizeof q, "question %d of %d", k, i);
            c->user = i % 5 == 4 ? NULL : user;
            c->created_us = (100 + (i * 7 + k * 40) % 200) * day;
            (void)add_turn(c, i % 5 == 4 ? user : q, q);
        }
    }
}

/* ---- preparing ---- */

struct bench {
    struct nt_tokenizer *tok;
    struct nt_chat chat;
    struct nt_config config;
    struct nt_dataset *data;
    struct nt_prepared out;
    bool no_chat;
    int32_t max_len;
};

static inline void set_up(struct bench *b, struct corpus *c) {
    *b = (struct bench){.tok = open_tokenizer("smollm2", "", "<|im_end|>")};
    must(nt_chat_open(&b->chat, "chatml", NULL, 0, b->tok, "test"));
    nt_config_init(&b->config);
    const char *const paths[] = {path};
    must(nt_dataset_publish(c->w));
    must(nt_dataset_open(&b->data, paths, 1, NT_PURPOSE_TRAIN, 1000 * day));
}

static inline void tear_down(struct bench *b) {
    nt_prepared_release(&b->out);
    nt_dataset_close(b->data);
    nt_config_release(&b->config);
    nt_tokenizer_free(b->tok);
}

static inline void set(struct bench *b, const char *assignment) {
    must(nt_config_set(&b->config, assignment));
}

static inline nt_status run(struct bench *b) {
    const struct nt_prepare_input in = {.config = &b->config,
                                        .dataset = b->data,
                                        .tok = b->tok,
                                        .chat = b->no_chat ? NULL : &b->chat,
                                        .chat_error = "this model cannot chat",
                                        .max_len = b->max_len ? b->max_len : 4096};
    nt_prepared_release(&b->out);
    return nt_prepare_run(&in, &b->out);
}

/* Every conversation and every candidate is somewhere. */
static inline void check_account(const struct bench *b) {
    const struct nt_prepare_report *r = &b->out.report;
    static const bool of_records[] = {
#define X(name, of_record, text) of_record,
        NT_LEFT_OUT_LIST(X)
#undef X
    };
    int64_t left = 0, seen = 0, by_source = 0;
    for (int i = 0; i < NT_N_LEFT_OUT; i++) left += of_records[i] ? 0 : r->left_out[i];
    for (int i = 0; i < NT_N_REFUSALS; i++) seen += r->refused[i];
    for (int32_t i = 0; i < r->n_sources; i++) by_source += r->sources[i].n_train + r->sources[i].n_eval;
    assert_int_equal(r->n_candidates, r->n_train + r->n_eval + left);
    assert_int_equal(r->n_conversations, r->n_records + seen);
    assert_int_equal(by_source, r->n_train + r->n_eval);
    assert_int_equal(b->out.train.n, r->n_train);
    assert_int_equal(b->out.eval.n, r->n_eval);
}

static inline void run_ok(struct bench *b) {
    must(run(b));
    check_account(b);
}

static inline void run_refused(struct bench *b, nt_status code, const char *says) {
    assert_int_equal(run(b), code);
    if (!strstr(nt_error_last()->text, says)) fail_msg("said: %s", nt_error_last()->text);
    assert_int_equal(b->out.train.n, 0);
}

/* The texts of member k's targets of a row. */
static inline const char *targets(const struct bench *b, const struct nt_example_set *s, int32_t row, int32_t k) {
    static struct nt_strbuf text;
    const struct nt_member *m = &s->rows[row].member[k];
    nt_strbuf_reset(&text);
    for (int32_t i = 0; i < m->n_runs; i++)
        nt_tokenizer_decode(b->tok, m->ids + m->runs[i].from, m->runs[i].to - m->runs[i].from, true, &text);
    return nt_strbuf_cstr(&text);
}

#endif
