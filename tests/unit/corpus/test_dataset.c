/* Training corpora: what was written is read back, consent and its neighbours decide what is seen, files that break
 * the schema are refused with file, dataset and row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dataset_export.h"
#include "dataset_writer.h"
#include "fileio.h"
#include "hash.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], path[96], other[96], hurt[96];
static const int64_t day = 86400000000, now = 1000 * 86400000000;

static int make_dir(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/nt-dataset-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    (void)snprintf(path, sizeof path, "%s/a.h5", dir);
    (void)snprintf(other, sizeof other, "%s/b.h5", dir);
    (void)snprintf(hurt, sizeof hurt, "%s/hurt.h5", dir);
    return 0;
}

static int remove_dir(void **state) {
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != NT_OK) fail_msg("%s:%d: %s", __FILE__, __LINE__, nt_error_last()->text);                         \
    } while (0)
#define REFUSED(call, code, says)                                                                                      \
    do {                                                                                                               \
        assert_int_equal(call, code);                                                                                  \
        if (!strstr(nt_error_last()->text, says)) fail_msg("said: %s", nt_error_last()->text);                         \
    } while (0)

/* ---- writing a small corpus ---- */

static struct nt_new_message say(const char *role, const char *text) {
    return (struct nt_new_message){
        .role = role, .text = text, .len = strlen(text), .weight = strcmp(role, "assistant") == 0 ? 1.0f : 0.0f};
}

static const struct nt_subject consenting = {
    .user = "ann", .user_len = 3, .consent = NT_PURPOSE_TRAIN, .basis = NT_BASIS_CONSENT};

static struct nt_dataset_writer *create(const char *to) {
    struct nt_dataset_writer *w = NULL;
    OK(nt_dataset_create(&w, to, "test", "", NULL, 0));
    return w;
}

static int64_t add(struct nt_dataset_writer *w, const struct nt_subject *who, enum nt_conv_kind kind, int n,
                   const struct nt_new_message *messages) {
    int64_t conv = -1;
    const struct nt_new_conversation c = {.format = NT_ROW_MESSAGES,
                                          .kind = kind,
                                          .subject = who,
                                          .source = "web",
                                          .created_us = 5 * day,
                                          .messages = messages,
                                          .n_messages = n};
    OK(nt_dataset_add_conversation(w, &c, &conv));
    return conv;
}

static int64_t add_turn(struct nt_dataset_writer *w, const struct nt_subject *who, const char *q, const char *a) {
    const struct nt_new_message m[] = {say("user", q), say("assistant", a)};
    return add(w, who, NT_CONV_CHAT, 2, m);
}

static void add_feedback(struct nt_dataset_writer *w, struct nt_new_feedback f) {
    int64_t row = -1;
    f.by.weight = 1;
    OK(nt_dataset_add_feedback(w, &f, &row));
}

static int64_t add_generation(struct nt_dataset_writer *w, int64_t conv, int32_t choice, const char *text) {
    int64_t row = -1;
    const struct nt_new_generation g = {.conversation = conv,
                                        .choice = choice,
                                        .model = "m-1",
                                        .finish = choice ? NT_GEN_LENGTH : NT_GEN_STOP,
                                        .text = text,
                                        .len = strlen(text),
                                        .created_us = day};
    OK(nt_dataset_add_generation(w, &g, &row));
    return row;
}

static void write_rich(const char *to) {
    struct nt_dataset_writer *w = create(to);
    int64_t row = -1;
    const int64_t a = add_turn(w, &consenting, "2+2?", "5");
    add_feedback(w, (struct nt_new_feedback){.conversation = a,
                                             .target = 1,
                                             .kind = NT_FEEDBACK_EDIT,
                                             .edit = "4",
                                             .edit_len = 1,
                                             .by = {.created_us = 9 * day}});
    add_feedback(w, (struct nt_new_feedback){.conversation = a,
                                             .target = 1,
                                             .kind = NT_FEEDBACK_EDIT,
                                             .edit = "four",
                                             .edit_len = 4,
                                             .by = {.created_us = 8 * day}});
    add_feedback(w, (struct nt_new_feedback){
                        .conversation = a,
                        .target_kind = NT_TARGET_CONVERSATION,
                        .kind = NT_FEEDBACK_RATING,
                        .value = 0.25f,
                        .comment = "meh",
                        .comment_len = 3,
                        .by = {.rater = "bob", .rater_len = 3, .source = NT_RATER_JUDGE}
    });
    const struct nt_new_message prompt[] = {say("system", "Be brief."), say("user", "Name a colour.")};
    const int64_t b = add(w, &consenting, NT_CONV_CHAT, 2, prompt);
    const struct nt_new_message good = say("assistant", "Red."),
                                long_one[] = {say("assistant", "I"), say("user", "?"), say("assistant", "Well ...")};
    const int64_t chosen = add(w, &consenting, NT_CONV_COMPLETION, 1, &good),
                  rejected = add(w, &consenting, NT_CONV_COMPLETION, 3, long_one);
    const struct nt_new_pair p = {
        .conversation = b,
        .n_prompt = 2,
        .chosen = chosen,
        .rejected = rejected,
        .margin = NAN,
        .by = {.weight = 0.5f, .created_us = 3 * day}
    };
    OK(nt_dataset_add_pair(w, &p, &row));
    const struct nt_new_message ask = say("user", "h\xc3\xa9llo\n");
    const int64_t c = add(w, &consenting, NT_CONV_CHAT, 1, &ask);
    const int64_t g0 = add_generation(w, c, 0, "hi"), g1 = add_generation(w, c, 1, "");
    add_feedback(
        w, (struct nt_new_feedback){.conversation = c, .target_kind = NT_TARGET_GENERATION, .target = g1, .value = -1});
    const struct nt_new_pair pick = {
        .conversation = c,
        .n_prompt = 1,
        .side = NT_SIDE_GENERATION,
        .chosen = g0,
        .rejected = g1,
        .margin = 2,
        .origin = NT_PAIR_FEEDBACK,
        .by = {.rater = "cy", .rater_len = 2, .weight = 1}
    };
    OK(nt_dataset_add_pair(w, &pick, &row));
    OK(nt_dataset_add_shell(w, NT_SHELL_ROW, a, -1, "{}", 2));
    OK(nt_dataset_add_step(w, "{\"tool\":\"test\"}", 15));
    OK(nt_dataset_publish(w));
}

static struct nt_dataset *open_for(const char *from, enum nt_purpose purpose) {
    struct nt_dataset *d = NULL;
    OK(nt_dataset_open(&d, &from, 1, purpose, now));
    return d;
}

static void check_edited(const struct nt_record *r) {
    assert_int_equal(r->head.n_messages, 2);
    assert_int_equal(r->head.n_feedback, 3);
    assert_string_equal(r->messages[0].role, "user");
    assert_string_equal(r->messages[0].text, "2+2?");
    assert_null(r->messages[0].original);
    assert_float_equal(r->messages[0].weight, 0, 0);
    assert_string_equal(r->messages[1].text, "4"); /* the later edit, not the later row */
    assert_int_equal(r->messages[1].len, 1);
    assert_string_equal(r->messages[1].original, "5");
    assert_int_equal(r->messages[1].original_len, 1);
    assert_string_equal(r->feedback[2].comment, "meh");
    assert_int_equal(r->feedback[2].source, NT_RATER_JUDGE);
    assert_false(r->feedback[2].anonymous);
    assert_true(r->feedback[0].anonymous);
    int32_t n_prompt = 0;
    assert_ptr_equal(nt_record_completion(r, &r->feedback[0], &n_prompt), &r->messages[1]);
    assert_int_equal(n_prompt, 1);
    assert_null(nt_record_completion(r, &r->feedback[2], &n_prompt));
}

static void check_pairs(const struct nt_record *r) {
    const struct nt_record_pair *p = r->pairs;
    assert_int_equal(r->head.n_pairs, 1);
    assert_int_equal(p->n_prompt, 2);
    assert_int_equal(p->n_chosen, 1);
    assert_int_equal(p->n_rejected, 3);
    assert_string_equal(p->chosen[0].text, "Red.");
    assert_string_equal(p->rejected[1].role, "user");
    assert_string_equal(p->rejected[2].text, "Well ...");
    assert_true(isnan(p->margin));
    assert_float_equal(p->weight, 0.5f, 0);
    assert_int_equal(p->created_us, 3 * day);
    assert_true(p->anonymous);
}

static void check_generations(const struct nt_record *r) {
    assert_int_equal(r->head.n_generations, 2);
    assert_string_equal(r->messages[0].text, "h\xc3\xa9llo\n");
    assert_string_equal(r->generations[0].text.text, "hi");
    assert_string_equal(r->generations[0].model, "m-1");
    assert_int_equal(r->generations[0].finish, NT_GEN_STOP);
    assert_int_equal(r->generations[1].text.len, 0);
    assert_int_equal(r->generations[1].choice, 1);
    assert_int_equal(r->generations[1].finish, NT_GEN_LENGTH);
    int32_t n_prompt = 0;
    assert_ptr_equal(nt_record_completion(r, &r->feedback[0], &n_prompt), &r->generations[1].text);
    assert_int_equal(n_prompt, 1);
    assert_float_equal(r->feedback[0].value, -1, 0);
    assert_int_equal(r->pairs[0].origin, NT_PAIR_FEEDBACK);
    assert_string_equal(r->pairs[0].chosen->text, "hi");
    assert_string_equal(r->pairs[0].chosen->role, "assistant");
    assert_int_equal(r->pairs[0].rejected->len, 0);
    assert_float_equal(r->pairs[0].margin, 2, 0);
}

static void test_round_trip(void **state) {
    (void)state;
    void (*const checks[])(const struct nt_record *) = {check_edited, check_pairs, check_generations};
    struct nt_record r = {0};
    write_rich(path);
    struct nt_dataset *d = open_for(path, NT_PURPOSE_TRAIN);
    assert_int_equal(nt_dataset_n_records(d), 3);
    assert_int_equal(nt_dataset_file(d, 0)->n_conversations, 3); /* completions are none */
    assert_int_equal(nt_dataset_n_subjects(d), 1);
    static const int order[] = {0, 1, 2, 1, 0, 2}; /* one record's memory serves them all */
    for (int i = 0; i < 6; i++) {
        OK(nt_dataset_load(d, order[i], &r));
        assert_string_equal(r.head.source, "web");
        assert_string_equal(r.head.license, "");
        assert_int_equal(r.head.created_us, 5 * day);
        assert_false(r.head.anonymous);
        assert_int_equal(r.head.basis, NT_BASIS_CONSENT);
        checks[order[i]](&r);
    }
    REFUSED(nt_dataset_load(d, 3, &r), NT_E_INTERNAL, "record 3 of 3");
    assert_null(r.messages);
    nt_record_release(&r);
    nt_dataset_close(d);
}

/* Equal calls, equal bytes; another word, another digest. */
static void test_same_bytes(void **state) {
    (void)state;
    char *a = NULL, *b = NULL;
    size_t n_a = 0, n_b = 0;
    write_rich(path);
    write_rich(other);
    OK(nt_file_read(path, 1 << 24, &a, &n_a));
    OK(nt_file_read(other, 1 << 24, &b, &n_b));
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    free(a);
    free(b);
    const char *const both[] = {path, other};
    struct nt_dataset *d = NULL;
    REFUSED(nt_dataset_open(&d, both, 2, NT_PURPOSE_TRAIN, now), NT_E_DATA, "same content");
    const char *const twice[] = {path, path};
    REFUSED(nt_dataset_open(&d, twice, 2, NT_PURPOSE_TRAIN, now), NT_E_USAGE, "named twice");
    struct nt_dataset_writer *w = create(other);
    (void)add_turn(w, &consenting, "2+2?", "6");
    OK(nt_dataset_publish(w));
    OK(nt_dataset_open(&d, both, 2, NT_PURPOSE_TRAIN, now));
    assert_string_not_equal(nt_dataset_file(d, 0)->content_sha256, nt_dataset_file(d, 1)->content_sha256);
    assert_string_not_equal(nt_dataset_file(d, 0)->uuid, nt_dataset_file(d, 1)->uuid);
    assert_int_equal(nt_dataset_n_subjects(d), 1); /* ann in both */
    assert_int_equal(nt_dataset_n_records(d), 4);
    struct nt_record_head h;
    OK(nt_dataset_head(d, 3, &h));
    assert_int_equal(h.file, 1);
    assert_int_equal(h.row, 0);
    nt_dataset_close(d);
    const char *dirs[] = {dir};
    OK(nt_dataset_open(&d, dirs, 1, NT_PURPOSE_TRAIN, now)); /* the same two by their directory */
    assert_int_equal(nt_dataset_n_files(d), 2);
    nt_dataset_close(d);
}

/* Of edits that are as late as each other the one that stands later is in force. */
static void test_edits_of_one_time(void **state) {
    (void)state;
    struct nt_record r = {0};
    struct nt_dataset_writer *w = create(path);
    const int64_t conv = add_turn(w, &consenting, "2+2?", "5");
    static const char *const edits[] = {"four", "4", "iv"};
    for (int i = 0; i < 3; i++)
        add_feedback(w, (struct nt_new_feedback){.conversation = conv,
                                                 .target = 1,
                                                 .kind = NT_FEEDBACK_EDIT,
                                                 .edit = edits[i],
                                                 .edit_len = strlen(edits[i]),
                                                 .by = {.created_us = day}});
    OK(nt_dataset_publish(w));
    struct nt_dataset *d = open_for(path, NT_PURPOSE_TRAIN);
    OK(nt_dataset_load(d, 0, &r));
    assert_string_equal(r.messages[1].text, "iv");
    assert_string_equal(r.messages[1].original, "5");
    nt_record_release(&r);
    nt_dataset_close(d);
}

/* The content's digest of a corpus in which one thing is another; 0: nothing is. */
static void content_of(int change, char digest[65]) {
    struct nt_dataset_writer *w = create(path);
    struct nt_new_message m[] = {say("user", "q"), say("assistant", change == 1 ? "b" : "a")};
    if (change == 2) m[1].weight = 0.5f;
    if (change == 3) m[0].role = "system";
    const int64_t conv = add(w, &consenting, NT_CONV_CHAT, 2, m);
    const int64_t g0 = add_generation(w, conv, 0, change == 4 ? "x" : "y"), g1 = add_generation(w, conv, 1, "z");
    int64_t row;
    struct nt_new_feedback f = {
        .conversation = conv, .target = 1, .value = 1, .by = {.weight = 1, .created_us = day}
    };
    if (change == 5) f.value = -1;
    if (change == 6) f.by.weight = 2;
    if (change == 7) f.by.created_us = 2 * day;
    if (change == 8) f.by.rater = "bob", f.by.rater_len = 3;
    if (change == 9) f.kind = NT_FEEDBACK_EDIT, f.edit = "e", f.edit_len = 1;
    if (change == 10) f.kind = NT_FEEDBACK_EDIT, f.edit = "f", f.edit_len = 1;
    OK(nt_dataset_add_feedback(w, &f, &row));
    struct nt_new_pair p = {.conversation = conv, .n_prompt = 2, .side = NT_SIDE_GENERATION, .chosen = g0};
    p.rejected = g1;
    if (change == 11) p.chosen = g1, p.rejected = g0;
    if (change == 12) p.n_prompt = 1;
    if (change == 13) p.by.weight = 3;
    OK(nt_dataset_add_pair(w, &p, &row));
    OK(nt_dataset_publish(w));
    struct nt_dataset *d = open_for(path, NT_PURPOSE_TRAIN);
    memcpy(digest, nt_dataset_file(d, 0)->content_sha256, 65);
    nt_dataset_close(d);
}

/* What is learned from, and what was said of it by whom. */
static void test_content_digest(void **state) {
    (void)state;
    enum { N = 14 };
    char digest[N][65], again[65];
    for (int i = 0; i < N; i++) {
        content_of(i, digest[i]);
        for (int k = 0; k < i; k++) assert_string_not_equal(digest[i], digest[k]);
    }
    content_of(0, again);
    assert_string_equal(again, digest[0]);
}

/* Files of which nothing may be seen stand before, between and behind those with records. */
static void test_empty_files(void **state) {
    (void)state;
    static const struct nt_subject silent = {.user = "eve", .user_len = 3};
    enum { N = 6 };
    char paths[N][128];
    const char *list[N];
    struct nt_dataset *d = NULL;
    struct nt_record_head h;
    for (int i = 0; i < N; i++) {
        (void)snprintf(paths[i], sizeof paths[i], "%s/of-%d.h5", dir, i);
        list[i] = paths[i];
        struct nt_dataset_writer *w = create(paths[i]);
        for (int k = 0; k < 2; k++) (void)add_turn(w, i == 1 || i == 4 ? &consenting : &silent, paths[i], "a");
        OK(nt_dataset_publish(w));
    }
    OK(nt_dataset_open(&d, list, N, NT_PURPOSE_TRAIN, now));
    assert_int_equal(nt_dataset_n_records(d), 4);
    for (int i = 0; i < 4; i++) {
        OK(nt_dataset_head(d, i, &h));
        assert_int_equal(h.file, i < 2 ? 1 : 4);
        assert_int_equal(h.row, i % 2);
    }
    nt_dataset_close(d);
    for (int i = 0; i < N; i++) assert_int_equal(remove(paths[i]), 0);
}

/* ---- what may be seen ---- */

static void check_seen(enum nt_purpose purpose, int64_t seen, int64_t erased, int64_t consent, int64_t retention,
                       int64_t quarantine) {
    const int64_t want[NT_N_REFUSALS] = {erased, consent, retention, quarantine};
    struct nt_dataset *d = open_for(path, purpose);
    assert_int_equal(nt_dataset_n_records(d), seen);
    int64_t sum = seen;
    for (int r = 0; r < NT_N_REFUSALS; r++) {
        assert_int_equal(nt_dataset_refused(d, (enum nt_refusal)r), want[r]);
        sum += want[r];
    }
    assert_int_equal(nt_dataset_file(d, 0)->n_conversations, sum);
    nt_dataset_close(d);
}

static void test_refusals(void **state) {
    (void)state;
    const uint32_t train = NT_PURPOSE_TRAIN, all = 15;
    const struct nt_subject who[] = {
        {.user = "a",                                          .user_len = 1,             .consent = train, .basis = NT_BASIS_CONSENT},
        {.user = "b",                           .user_len = 1,                                                    .consent = all, .basis = NT_BASIS_LICENSE},
        {.user = "c",             .user_len = 1,.consent = NT_PURPOSE_GENERATE | NT_PURPOSE_DISTILL, .basis = NT_BASIS_CONSENT},
        {.user = "d",                                                    .user_len = 1                                                                  }, /* nothing is known: no */
        {.user = "e", .user_len = 1,                             .consent = train, .basis = NT_BASIS_CONSENT, .retention_until_us = now},
        {.user = "f",                                          .user_len = 1,   .consent = train, .basis = NT_BASIS_CONSENT, .retention_until_us = now + 1},
        {.user = "g",                                          .user_len = 1,                                                      .consent = all, .basis = NT_BASIS_CONSENT, .erased_us = day},
        {0                          }, /* nobody, no consent */
        {.consent = train,                                          .basis = NT_BASIS_PUBLIC                          }, /* nobody, but public: not the same subject as the one before */
    };
    struct nt_dataset_writer *w = create(path);
    for (size_t i = 0; i < sizeof who / sizeof *who; i++) (void)add_turn(w, &who[i], "q", "a");
    int64_t conv = 0;
    const struct nt_new_message m[] = {say("user", "q"), say("assistant", "bad")};
    const struct nt_new_conversation c = {
        .subject = &who[0], .flags = NT_CONV_QUARANTINED, .messages = m, .n_messages = 2};
    OK(nt_dataset_add_conversation(w, &c, &conv));
    OK(nt_dataset_publish(w));
    check_seen(NT_PURPOSE_TRAIN, 4, 1, 3, 1, 1);
    check_seen(NT_PURPOSE_GENERATE, 2, 1, 7, 0, 0);
    check_seen(NT_PURPOSE_DISTILL, 2, 1, 7, 0, 0);
    check_seen(NT_PURPOSE_PUBLISH, 1, 1, 8, 0, 0);
    check_seen(NT_PURPOSE_ANY, 9, 1, 0, 0, 0);
    struct nt_dataset *d = open_for(path, NT_PURPOSE_TRAIN);
    struct nt_record r = {0};
    OK(nt_dataset_load(d, 3, &r));
    assert_true(r.head.anonymous);
    assert_int_equal(r.head.basis, NT_BASIS_PUBLIC);
    nt_record_release(&r);
    nt_dataset_close(d);
    (void)unlink(other);
    w = create(other);
    const struct nt_subject baseless = {.user = "x", .user_len = 1, .consent = train};
    const struct nt_new_conversation no = {.subject = &baseless, .messages = m, .n_messages = 2};
    REFUSED(nt_dataset_add_conversation(w, &no, &conv), NT_E_DATA, "without the basis");
    nt_dataset_abandon(w);
    assert_false(nt_file_exists(other));
}

/* The later statement counts, in one file and over several; equally late ones only together; erasure always. */
static void test_merge(void **state) {
    (void)state;
    static const struct {
        uint32_t consent[2];
        int64_t updated[2], erased[2], retention[2];
        bool seen;
    } cases[] = {
        {{2, 2}, {1, 1}, {0, 0}, {0, 0}, true },
        {{2, 0}, {1, 1}, {0, 0}, {0, 0}, false},
        {{0, 2}, {0, 0}, {0, 0}, {0, 0}, false},
        {{0, 2}, {0, 1}, {0, 0}, {0, 0}, true },
        {{2, 0}, {1, 2}, {0, 0}, {0, 0}, false},
        {{2, 0}, {2, 1}, {0, 0}, {0, 0}, true },
        {{2, 2}, {1, 2}, {5, 0}, {0, 0}, false},
        {{2, 2}, {2, 1}, {0, 5}, {0, 0}, false},
        {{2, 2}, {1, 1}, {0, 0}, {0, 9}, false},
        {{2, 2}, {1, 2}, {0, 0}, {9, 0}, true },
    };
    for (size_t i = 0; i < 2 * (sizeof cases / sizeof *cases); i++) {
        const size_t k = i / 2;
        const bool two_files = i % 2;
        struct nt_dataset_writer *w = create(path);
        for (int s = 0; s < 2; s++) {
            const struct nt_subject who = {.user = "eve",
                                           .user_len = 3,
                                           .consent = cases[k].consent[s],
                                           .basis = cases[k].consent[s] ? NT_BASIS_CONSENT : NT_BASIS_NONE,
                                           .updated_us = cases[k].updated[s],
                                           .erased_us = cases[k].erased[s],
                                           .retention_until_us = cases[k].retention[s]};
            if (two_files && s == 1) {
                OK(nt_dataset_publish(w));
                w = create(other);
            }
            (void)add_turn(w, &who, "q", s ? "b" : "a");
        }
        OK(nt_dataset_publish(w));
        const char *const both[] = {path, other};
        struct nt_dataset *d = NULL;
        OK(nt_dataset_open(&d, both, two_files ? 2 : 1, NT_PURPOSE_TRAIN, now));
        assert_int_equal(nt_dataset_n_subjects(d), 1);
        if (nt_dataset_n_records(d) != (cases[k].seen ? 2 : 0)) fail_msg("case %zu, %d files", k, two_files + 1);
        nt_dataset_close(d);
    }
}

/* A thumb on generation g and a shell that names the rater. */
static void add_line(struct nt_dataset_writer *w, int64_t conv, int64_t g, const char *rater, const char *shell) {
    const int64_t first = nt_dataset_count(w, NT_T_FEEDBACK);
    const struct nt_judgement by = {.rater = rater, .rater_len = strlen(rater), .weight = 1};
    add_feedback(w, (struct nt_new_feedback){.conversation = conv,
                                             .target_kind = NT_TARGET_GENERATION,
                                             .target = g,
                                             .kind = NT_FEEDBACK_EDIT,
                                             .edit = "words",
                                             .edit_len = 5,
                                             .by = by});
    OK(nt_dataset_add_shell(w, NT_SHELL_FEEDBACK, conv, first, shell, strlen(shell)));
}

/* Whoever was erased is gone from what is exported, also as rater of others, by name, number, id or reference. */
static void test_export_erased(void **state) {
    (void)state;
    static const char row[] = "{\"custom_id\":\"a\"}", pair_line[] = "{\"pair\":1,\"rater\":{\"$text\":[\"q0\"]}}";
    char id_line[96], hex[33], lines[128];
    uint8_t id[16];
    struct nt_dataset_writer *w = create(path);
    struct nt_transfer t = {0};
    int64_t at = -1;
    const struct nt_subject eve = {.user = "eve", .user_len = 3, .erased_us = day},
                            nine = {.user = "9", .user_len = 1, .erased_us = day};
    const int64_t conv = add_turn(w, &consenting, "q", "a"), gone = add_turn(w, &eve, "hers", "too");
    (void)add_turn(w, &nine, "his", "too");
    OK(nt_dataset_add_shell(w, NT_SHELL_ROW, conv, -1, row, sizeof row - 1));
    OK(nt_dataset_add_shell(w, NT_SHELL_ROW, gone, -1, row, sizeof row - 1));
    const int64_t g = add_generation(w, conv, 0, "one"), other_g = add_generation(w, conv, 1, "two");
    nt_dataset_name_user(w, "eve", 3, id);
    nt_hex(id, 16, hex);
    (void)snprintf(id_line, sizeof id_line, "{\"n\":3,\"rater\":\"subject:%s\"}", hex);
    add_line(w, conv, g, "ann", "{\"n\":0,\"rater\":\"ann\",\"edit\":{\"$text\":[\"e0\"]}}");
    add_line(w, conv, g, "eve", "{\"n\":1,\"rater\":\"eve\",\"edit\":{\"$text\":[\"e0\"]}}");
    add_line(w, conv, g, "9", "{\"n\":2,\"rater\":9}");
    add_line(w, conv, g, "eve", id_line);
    add_line(w, conv, g, "eve", "{\"n\":4,\"rater\":{\"$text\":[\"a0\"]}}");
    add_line(w, conv, g, "", "{\"n\":5}");
    const struct nt_new_pair p = {
        .conversation = conv,
        .n_prompt = 2,
        .side = NT_SIDE_GENERATION,
        .chosen = g,
        .rejected = other_g,
        .margin = NAN,
        .by = {.rater = "eve", .rater_len = 3, .weight = 1}
    };
    OK(nt_dataset_add_pair(w, &p, &at));
    OK(nt_dataset_add_shell(w, NT_SHELL_FEEDBACK, conv, nt_dataset_count(w, NT_T_FEEDBACK), pair_line,
                            sizeof pair_line - 1));
    OK(nt_dataset_publish(w));
    OK(nt_dataset_export(path, other, &t));
    assert_int_equal(t.n_rows, 1);
    assert_int_equal(t.n_erased, 6);
    char *text = NULL;
    size_t n = 0;
    (void)snprintf(lines, sizeof lines, "%s.feedback.jsonl", other);
    OK(nt_file_read(lines, 1 << 20, &text, &n));
    assert_string_equal(text, "{\"n\":0,\"rater\":\"ann\",\"edit\":\"words\"}\n{\"n\":5}\n");
    free(text);
    (void)unlink(lines);
    (void)unlink(other);
}

/* With a key the name is HMAC-SHA-256 (RFC 4231, test case 2); a name that is one already stays. */
static void test_names(void **state) {
    (void)state;
    struct nt_dataset_writer *w = NULL;
    uint8_t id[16], again[16];
    char hex[33], named[48];
    OK(nt_dataset_create(&w, path, "test", "", (const uint8_t *)"Jefe", 4));
    nt_dataset_name_user(w, "what do ya want for nothing?", 28, id);
    nt_hex(id, 16, hex);
    assert_string_equal(hex, "5bdcc146bf60754e6a042426089575c7");
    (void)snprintf(named, sizeof named, "subject:%s", hex);
    nt_dataset_name_user(w, named, strlen(named), again);
    assert_memory_equal(id, again, 16);
    named[8] = 'G';
    nt_dataset_name_user(w, named, strlen(named), again);
    assert_memory_not_equal(id, again, 16);
    nt_dataset_abandon(w);
    uint8_t key131[131]; /* test case 6: longer than a block */
    memset(key131, 0xaa, sizeof key131);
    OK(nt_dataset_create(&w, path, "test", "", key131, sizeof key131));
    nt_dataset_name_user(w, "Test Using Larger Than Block-Size Key - Hash Key First", 54, id);
    nt_hex(id, 16, hex);
    assert_string_equal(hex, "60e431591ee0b67f0d8a26aacbf5b77f");
    nt_dataset_abandon(w);
}

/* ---- files that are not as they should be ---- */

static void copy_column(struct nt_h5_file *from, struct nt_h5_writer *to, const char *name, enum nt_h5_type type,
                        int32_t width, const char *changed, int64_t row, double value) {
    struct nt_h5_array *a = NULL;
    struct nt_h5_column *c = NULL;
    OK(nt_h5_array(from, name, type, width, -1, &a));
    const int64_t n = nt_h5_rows(a);
    static const size_t sizes[] = {1, 2, 4, 4, 8, 4};
    const size_t size = sizes[type] * (size_t)(width ? width : 1);
    uint8_t *bytes = malloc((size_t)n * size + 16);
    assert_non_null(bytes);
    OK(nt_h5_read(a, 0, n, bytes));
    if (strcmp(name, changed) == 0) {
        const int64_t whole = type == NT_H5_F32 || !isfinite(value) ? 0 : (int64_t)value;
        const float real = (float)value;
        assert_true(row < n);
        memcpy(bytes + (size_t)row * size, type == NT_H5_F32 ? (const void *)&real : &whole, sizes[type]);
    }
    OK(nt_h5_column(to, name, type, width, &c));
    OK(nt_h5_append(c, bytes, n));
    free(bytes);
}

/* A copy of path in which one value of one dataset is another: well-formed HDF5 that breaks the schema. */
static void write_changed(const char *changed, int64_t row, double value, const char *left_out) {
    struct nt_h5_file *from = NULL;
    struct nt_h5_writer *to = NULL;
    static const char *const attrs[] = {"encoding-type", "encoding-version", "uuid", "content_sha256", "license"};
    char text[300], name[128];
    OK(nt_h5_open(&from, path));
    OK(nt_h5_create(&to, hurt));
    for (int i = 0; i < 5; i++) {
        OK(nt_h5_read_attr(from, "/", attrs[i], text, sizeof text));
        OK(nt_h5_attr_str(to, "/", attrs[i], text));
    }
    for (int t = 0; t < NT_N_TABLES; t++) OK(nt_h5_group(to, nt_table_paths[t], "x"));
    for (int c = 0; c < NT_N_COLS; c++) {
        const struct nt_col_row *r = &nt_col_rows[c];
        if (left_out && strcmp(r->path, left_out) == 0) continue;
        if (!r->encoding) {
            copy_column(from, to, r->path, r->type, r->width, changed, row, value);
            continue;
        }
        OK(nt_h5_group(to, r->path, r->encoding));
        (void)snprintf(name, sizeof name, "%s/ptr", r->path);
        copy_column(from, to, name, NT_H5_I64, 0, changed, row, value);
        (void)snprintf(name, sizeof name, "%s/data", r->path);
        copy_column(from, to, name, NT_H5_U8, 0, changed, row, value);
    }
    nt_h5_close(from);
    OK(nt_h5_publish(to));
}

static nt_status read_hurt(void) {
    struct nt_dataset *d = NULL;
    struct nt_record r = {0};
    const char *p = hurt;
    nt_status st = nt_dataset_open(&d, &p, 1, NT_PURPOSE_TRAIN, now);
    for (int64_t i = 0; st == NT_OK && i < nt_dataset_n_records(d); i++) st = nt_dataset_load(d, i, &r);
    nt_record_release(&r);
    nt_dataset_close(d);
    return st;
}

/* Conversations of the rich corpus: 0 edited, 1 prompt of a pair, 2 and 3 its completions, 4 with two generations.
 * Messages: 0 1 | 2 3 | 4 | 5 6 7 | 8. */
static void test_broken_schema(void **state) {
    (void)state;
    static const struct {
        const char *dataset;
        int64_t row;
        double value;
        const char *says;
    } cases[] = {
        {"/subjects/basis",           0, 7,        "/subjects/basis[0] is 7, expected 0 to 6"                  },
        {"/subjects/updated_us",      0, -1,       "/subjects/updated_us[0] is -1"                             },
        {"/conversations/subject",    1, 1,        "/conversations/subject[1] is 1, expected 0 to 0"           },
        {"/conversations/subject",    1, -1,       "/conversations/subject[1] is -1"                           },
        {"/conversations/source",     2, 1,        "/conversations/source[2] is 1, expected -1 to 0"           },
        {"/conversations/kind",       0, 3,        "/conversations/kind[0] is 3"                               },
        {"/conversations/kind",       2, 0,        "/preferences/chosen[0] is conversation 2, expected a compl"},
        {"/conversations/kind",       0, 2,        "/feedback: row 0 hangs on conversation 0, which is a compl"},
        {"/conversations/split",      0, 4,        "/conversations/split[0] is 4"                              },
        {"/conversations/flags",      0, 128,      "/conversations/flags[0] is 128"                            },
        {"/conversations/created_us", 0, -5,       "/conversations/created_us[0] is -5"                        },
        {"/conversations/msg_ptr",    0, 1,        "/conversations/msg_ptr[0] is 1 after 0, expected ascending"},
        {"/conversations/msg_ptr",    2, 1,        "/conversations/msg_ptr[2] is 1 after 2"                    },
        {"/conversations/msg_ptr",    5, 8,        "/conversations/msg_ptr ends at 8, expected 9"              },
        {"/conversations/msg_ptr",    3, 10,       "/conversations/msg_ptr[3] is 10, expected 0 to 9"          },
        {"/messages/role",            4, 6,        "/messages/role[4] is 6, expected 0 to 5"                   },
        {"/messages/weight",          1, NAN,      "/messages/weight[1] is nan"                                },
        {"/messages/weight",          1, -0.5,     "/messages/weight[1] is -0.5"                               },
        {"/messages/weight",          1, 101,      "/messages/weight[1] is 101"                                },
        {"/messages/more",            1, 2,        "/messages/more[1] is 2"                                    },
        {"/messages/content/ptr",     0, 1,        "/messages/content/ptr[0] is 1 after 0, expected ascending" },
        {"/messages/content/ptr",     3, 1,        "/messages/content/ptr[3] is 1 after 5"                     },
        {"/messages/content/ptr",     9, 48,       "/messages/content/ptr ends at 48, but data has 49 bytes"   },
        {"/messages/content/data",    4, 0xff,     "/messages/content[1] is not valid UTF-8"                   },
        {"/messages/content/data",    4, 'x',      "/messages/content[1] is not the text that /messages/sha256"},
        {"/messages/role",            1, 0,        "/conversations/sha256[0] is not the digest of that"        },
        {"/generations/content/data", 0, 'x',      "/generations/content[0] is not the text"                   },
        {"/generations/conversation", 0, 5,        "/generations/conversation[0] is 5, expected 0 to 4"        },
        {"/generations/conversation", 1, 3,        "/preferences/rejected[1] is a generation of conversation 3"},
        {"/generations/model",        0, 1,        "/generations/model[0] is 1, expected -1 to 0"              },
        {"/generations/finish",       0, 6,        "/generations/finish[0] is 6"                               },
        {"/feedback/target_kind",     0, 3,        "/feedback/target_kind[0] is 3"                             },
        {"/feedback/target",          0, 9,        "/feedback/target[0] is 9, expected 0 to 8"                 },
        {"/feedback/target",          0, -1,       "/feedback/target[0] is -1, expected 0 to 8"                },
        {"/feedback/target",          3, 2,        "/feedback/target[3] is 2, expected 0 to 1"                 },
        {"/feedback/kind",            0, 3,        "/feedback/kind[0] is 3"                                    },
        {"/feedback/value",           3, 0.5,      "/feedback/value[3] is 0.5, expected 1 or -1 of a thumb"    },
        {"/feedback/value",           2, 1.5,      "/feedback/value[2] is 1.5, expected 0 to 1"                },
        {"/feedback/value",           0, INFINITY, "/feedback/value[0] is inf"                                 },
        {"/feedback/source",          0, 4,        "/feedback/source[0] is 4"                                  },
        {"/feedback/edit/data",       0, 0x80,     "/feedback/edit[0] is not valid UTF-8"                      },
        {"/preferences/prompt_conv",  0, 5,        "/preferences/prompt_conv[0] is 5"                          },
        {"/preferences/prompt_upto",  0, 3,        "/preferences/prompt_upto[0] is 3, expected 0 to 2"         },
        {"/preferences/chosen",       0, 5,        "/preferences/chosen[0] is 5, expected 0 to 4"              },
        {"/preferences/chosen",       0, 0,        "/preferences/chosen[0] is conversation 0, expected a compl"},
        {"/preferences/rejected",     1, 2,        "/preferences/rejected[1] is 2, expected 0 to 1"            },
        {"/preferences/weight",       0, 1e9,      "/preferences/weight[0] is 1000000000"                      },
        {"/preferences/origin",       0, 2,        "/preferences/origin[0] is 2"                               },
        {"/rows/conversation",        0, 99,       "/rows/conversation[0] is 99"                               },
        {"/rows/kind",                0, 3,        "/rows/kind[0] is 3"                                        },
        {"/sources/name/data",        0, 0,        "/sources/name[0] has 3 bytes, expected 1 to 4096 without"  },
    };
    write_rich(path);
    write_changed("", 0, 0, NULL);
    OK(read_hurt()); /* unchanged, the copy is good */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_changed(cases[i].dataset, cases[i].row, cases[i].value, NULL);
        REFUSED(read_hurt(), NT_E_DATA, cases[i].says);
        assert_non_null(strstr(nt_error_last()->text, hurt));
    }
    write_changed("", 0, 0, "/messages/weight");
    REFUSED(read_hurt(), NT_E_DATA, "/messages/weight is missing");
    write_changed("", 0, 0, "/feedback/edit");
    REFUSED(read_hurt(), NT_E_DATA, "/feedback/edit/ptr is missing");
}

/* Export gives no text back that its digest does not know. */
static void test_export_checks_texts(void **state) {
    (void)state;
    static const char row[] = "{\"a\":{\"$text\":[\"m1\"]}}", answer[] = "{\"b\":{\"$text\":[\"g0\"]}}";
    static const char *const texts[] = {"/messages/content", "/generations/content"};
    char name[128], says[128];
    struct nt_transfer t = {0};
    struct nt_dataset_writer *w = create(path);
    const int64_t conv = add_turn(w, &consenting, "q", "a"), g = add_generation(w, conv, 0, "b");
    OK(nt_dataset_add_shell(w, NT_SHELL_ROW, conv, -1, row, sizeof row - 1));
    OK(nt_dataset_add_shell(w, NT_SHELL_RESPONSE, conv, g, answer, sizeof answer - 1));
    OK(nt_dataset_publish(w));
    write_changed("", 0, 0, NULL);
    OK(nt_dataset_export(hurt, other, &t));
    (void)unlink(other);
    for (int i = 0; i < 2; i++) {
        (void)snprintf(name, sizeof name, "%s/data", texts[i]);
        (void)snprintf(says, sizeof says, "hurt.h5: %s[%d] is not the text that", texts[i], i == 0);
        write_changed(name, i == 0, 'x', NULL);
        REFUSED(nt_dataset_export(hurt, other, &t), NT_E_DATA, says);
        assert_false(nt_file_exists(other));
    }
    (void)snprintf(name, sizeof name, "%s.responses.jsonl", other);
    (void)unlink(name);
}

/* What an earlier export wrote of people who are erased now does not stay beside the new one. */
static void test_export_leaves_nothing(void **state) {
    (void)state;
    static const char *const tails[] = {".responses.jsonl", ".feedback.jsonl"};
    char name[128];
    struct nt_transfer t = {0};
    struct nt_dataset_writer *w = create(path);
    (void)add_turn(w, &consenting, "q", "a");
    OK(nt_dataset_publish(w));
    for (int i = 0; i < 2; i++) {
        (void)snprintf(name, sizeof name, "%s%s", other, tails[i]);
        OK(nt_publish_bytes(name, "{}\n", 3, NT_PUBLISH_REPLACE));
    }
    OK(nt_dataset_export(path, other, &t));
    for (int i = 0; i < 2; i++) {
        (void)snprintf(name, sizeof name, "%s%s", other, tails[i]);
        assert_false(nt_file_exists(name));
    }
    (void)unlink(other);
}

/* A side of a pair that belongs to another subject would bring in text without that subject's consent. */
static void test_side_of_another(void **state) {
    (void)state;
    const struct nt_subject no = {.user = "zed", .user_len = 3};
    struct nt_dataset_writer *w = create(hurt);
    const struct nt_new_message q = say("user", "q"), a = say("assistant", "secret");
    const int64_t c = add(w, &consenting, NT_CONV_CHAT, 1, &q), s = add(w, &no, NT_CONV_COMPLETION, 1, &a);
    const struct nt_new_pair p = {.conversation = c, .n_prompt = 1, .chosen = s, .rejected = s, .by = {.weight = 1}};
    int64_t row = 0;
    OK(nt_dataset_add_pair(w, &p, &row));
    OK(nt_dataset_publish(w));
    REFUSED(read_hurt(), NT_E_DATA, "expected a completion of the prompt's subject");
}

static int read_child(void) {
    (void)alarm(10);
    const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) (void)signal(signals[i], SIG_DFL);
    struct nt_dataset *d = NULL;
    struct nt_record r = {0};
    const char *p = hurt;
    if (nt_dataset_open(&d, &p, 1, NT_PURPOSE_TRAIN, now) != NT_OK) return 0;
    static const char *const first[] = {"2+2?", "Be brief.", "h\xc3\xa9llo\n"};
    if (nt_dataset_n_records(d) != 3) return 2;
    for (int i = 0; i < 3; i++) {
        if (nt_dataset_load(d, i, &r) != NT_OK) return 0;
        if (strcmp(r.messages[0].text, first[i]) != 0) return 3;
    }
    return 0;
}

/* 60 damaged copies: the same text or an error, never a crash or a hang. */
static void test_damaged(void **state) {
    (void)state;
    char *bytes = NULL;
    size_t n = 0;
    write_rich(path);
    OK(nt_file_read(path, 1 << 24, &bytes, &n));
    uint64_t seed = 88172645463325252u;
    for (int i = 0; i < 60; i++) {
        char *copy = malloc(n);
        assert_non_null(copy);
        memcpy(copy, bytes, n);
        size_t keep = n;
        for (int k = 0; k <= i % 3; k++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            if (i % 10 == 9)
                keep = (size_t)(seed % n);
            else
                copy[seed % n] = (char)(seed >> 40);
        }
        FILE *f = fopen(hurt, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(copy, 1, keep, f), keep);
        assert_int_equal(fclose(f), 0);
        free(copy);
        const pid_t pid = fork();
        if (pid == 0) _exit(read_child());
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("damage %d: status 0x%x", i, status);
    }
    free(bytes);
}

/* Nothing appears under the name before all is on disk, and nothing stays beside it. */
static void test_whole_or_not(void **state) {
    (void)state;
    char gone[96];
    (void)snprintf(gone, sizeof gone, "%s/gone.h5", dir);
    struct nt_dataset_writer *w = create(gone);
    (void)add_turn(w, &consenting, "q", "a");
    assert_false(nt_file_exists(gone));
    nt_dataset_abandon(w);
    assert_false(nt_file_exists(gone));
    w = create(gone);
    int64_t row = 0;
    const struct nt_new_message latin = {.role = "user", .text = "\xe9", .len = 1};
    const struct nt_new_conversation c = {.subject = &consenting, .messages = &latin, .n_messages = 1};
    REFUSED(nt_dataset_add_conversation(w, &c, &row), NT_E_DATA, "/messages/content: entry 0 is not valid UTF-8");
    nt_dataset_abandon(w);
    w = create(gone);
    OK(nt_dataset_publish(w)); /* empty, but a corpus */
    struct nt_dataset *d = open_for(gone, NT_PURPOSE_TRAIN);
    assert_int_equal(nt_dataset_n_records(d), 0);
    nt_dataset_close(d);
    assert_int_equal(unlink(gone), 0);
}

/* Requests and rows to train on do not pass for each other. */
static void test_kinds_of_corpus(void **state) {
    (void)state;
    struct nt_corpus *requests = NULL;
    struct nt_corpus_writer *w = NULL;
    struct nt_dataset *d = NULL;
    const char *p = other;
    write_rich(path);
    REFUSED(nt_corpus_open(&requests, path, NT_PURPOSE_GENERATE), NT_E_DATA,
            "rows to train on, expected one of requests");
    OK(nt_corpus_create(&w, other, 15));
    OK(nt_corpus_publish(w));
    REFUSED(nt_dataset_open(&d, &p, 1, NT_PURPOSE_TRAIN, now), NT_E_DATA, "a corpus of requests");
    OK(nt_publish_bytes(other, "{}\n", 3, NT_PUBLISH_REPLACE));
    REFUSED(nt_dataset_open(&d, &p, 1, NT_PURPOSE_TRAIN, now), NT_E_DATA, "`nocturne ingest` makes one of JSONL rows");
    p = "/nowhere.h5";
    REFUSED(nt_dataset_open(&d, &p, 1, NT_PURPOSE_TRAIN, now), NT_E_NOINPUT, "/nowhere.h5");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_content_digest),
        cmocka_unit_test(test_edits_of_one_time),
        cmocka_unit_test(test_empty_files),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_whole_or_not),
        cmocka_unit_test(test_broken_schema),
        cmocka_unit_test(test_side_of_another),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_kinds_of_corpus),
        cmocka_unit_test(test_export_erased),
        cmocka_unit_test(test_export_checks_texts),
        cmocka_unit_test(test_export_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
