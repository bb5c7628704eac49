/* Preparation: a small corpus through every filter and policy, with an account that adds up; verdicts where people
 * disagree, class weights, and sets that depend on nothing but settings and data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "prepare_corpora.h"

#include "order.h"
#include "prepare_votes.h"

/* ---- filters ---- */

static void test_filters(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    (void)add_turn(&c, "q1", "good");
    (void)add_turn(&c, "q1", "good"); /* duplicate */
    (void)add_turn(&c, "q2", " \n ");
    thumb(&c, add_turn(&c, "q3", "disliked"), -1);
    thumb(&c, add_turn(&c, "q4", "liked"), 1);
    const char *user = c.user;
    c.user = "tess";
    c.split = NT_SPLIT_TEST;
    (void)add_turn(&c, "q5", "of the test split");
    c.split = NT_SPLIT_NONE;
    c.user = user;
    c.source = "mail";
    (void)add_turn(&c, "q6", "from elsewhere");
    c.source = "web";
    c.created_us = 50 * day;
    (void)add_turn(&c, "q7", "old");
    c.created_us = 100 * day;
    c.user = "eve";
    c.consent = NT_PURPOSE_GENERATE;
    (void)add_turn(&c, "q8", "no consent");
    set_up(&b, &c);
    set(&b, "train.source=forum, web");
    set(&b, "train.since=1970-03-01");
    run_ok(&b);
    const struct nt_prepare_report *r = &b.out.report;
    assert_int_equal(r->n_conversations, 9);
    assert_int_equal(r->refused[NT_REFUSED_CONSENT], 1);
    assert_int_equal(r->left_out[NT_LEFT_DUPLICATE], 1);
    assert_int_equal(r->left_out[NT_LEFT_EMPTY], 1);
    assert_int_equal(r->left_out[NT_LEFT_RATING], 1);
    assert_int_equal(r->left_out[NT_LEFT_SPLIT], 1);
    assert_int_equal(r->left_out[NT_LEFT_SOURCE], 1);
    assert_int_equal(r->left_out[NT_LEFT_TIME], 1);
    assert_int_equal(r->n_train, 2);
    assert_string_equal(targets(&b, &b.out.train, 0, 0), "good");
    assert_string_equal(targets(&b, &b.out.train, 1, 0), "liked");
    assert_true(r->first_us == 100 * day && r->last_us == 100 * day);
    assert_int_equal(r->n_votes, 2);
    set(&b, "train.rated_only=true");
    run_ok(&b);
    assert_int_equal(b.out.train.n, 1);
    assert_int_equal(r->left_out[NT_LEFT_UNRATED], 2);
    set(&b, "train.rated_only=false");
    set(&b, "train.empty=error");
    run_refused(&b, NT_E_DATA, "have an empty completion");
    assert_non_null(strstr(nt_error_last()->text, ": a completion without text"));
    set(&b, "train.empty=drop");
    set(&b, "train.min_length=20");
    run_refused(&b, NT_E_DATA, "nothing to train on");
    assert_non_null(strstr(nt_error_last()->text, "completion too short"));
    assert_non_null(strstr(nt_error_last()->text, "1 no consent"));
    set(&b, "train.since=soon");
    run_refused(&b, NT_E_CONFIG, "train.since");
    tear_down(&b);
}

static void test_policies(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    char words[600] = "";
    for (int i = 0; i < 60; i++) (void)snprintf(words + strlen(words), sizeof words - strlen(words), "word%d ", i);
    struct nt_new_message m[] = {say("user", "unanswered"), say("assistant", "weightless")};
    (void)add_turn(&c, "short", "answer");
    m[1].weight = 0;
    (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, m, 2);
    (void)add_turn(&c, words, "after a long prompt");
    (void)add_turn(&c, "long answer", words);
    m[0] = say("user", "tools"), m[1] = say("assistant", "calls");
    m[1].has_more = true;
    (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, m, 2);
    set_up(&b, &c);
    const struct nt_prepare_report *r = &b.out.report;
    set(&b, "train.max_length=80");
    run_refused(&b, NT_E_DATA, "1 of 5 rows have no token to train on");
    assert_non_null(strstr(nt_error_last()->text, "train.no_target = drop"));
    assert_non_null(strstr(nt_error_last()->text, "a.h5, conversation 1: "));
    set(&b, "train.no_target=drop");
    run_refused(&b, NT_E_DATA, "train.refused = drop");
    set(&b, "train.refused=drop");
    run_refused(&b, NT_E_DATA, "train.long_completion = drop or truncate");
    set(&b, "train.long_completion=drop");
    run_ok(&b);
    assert_int_equal(r->n_train, 2);
    assert_int_equal(r->n_prompts_cut, 1);
    assert_int_equal(r->left_out[NT_LEFT_NO_TARGET], 1);
    assert_int_equal(r->left_out[NT_LEFT_TOOLS], 1);
    assert_int_equal(r->left_out[NT_LEFT_LONG_COMPLETION], 1);
    assert_true(b.out.train.longest <= 80);
    set(&b, "train.long_completion=truncate");
    run_ok(&b);
    assert_int_equal(r->n_train, 3);
    assert_int_equal(r->n_completions_cut, 1);
    assert_int_equal(r->n_ended, r->n_sequences - 1);
    set(&b, "train.max_length=100000"); /* no longer than the model's own 80 */
    b.max_len = 80;
    run_ok(&b);
    assert_int_equal(r->n_completions_cut, 1);
    assert_int_equal(b.out.train.longest, 80);
    set(&b, "train.max_length=3"); /* nothing is left of an answer */
    run_ok(&b);
    assert_true(r->n_train + r->left_out[NT_LEFT_LONG_COMPLETION] == 3 && r->left_out[NT_LEFT_EMPTY] == 0);
    set(&b, "train.max_length=2"); /* nor of any other */
    run_refused(&b, NT_E_DATA, "nothing to train on");
    assert_int_equal(r->left_out[NT_LEFT_LONG_COMPLETION], 3);
    set(&b, "train.max_length=80");
    set(&b, "train.too_long=drop");
    run_ok(&b);
    assert_int_equal(r->n_train, 1);
    assert_int_equal(r->left_out[NT_LEFT_TOO_LONG], 2);
    set(&b, "train.too_long=error");
    run_refused(&b, NT_E_DATA, "train.too_long = truncate or drop");
    set(&b, "train.too_long=truncate");
    set(&b, "train.micro_batch_tokens=79");
    run_refused(&b, NT_E_CONFIG, "train.micro_batch_tokens = 79");
    set(&b, "train.micro_batch_tokens=0");
    b.no_chat = true;
    set(&b, "train.refused=error");
    run_refused(&b, NT_E_DATA, "this model cannot chat");
    tear_down(&b);
}

/* ---- feedback ---- */

static void test_edits(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    const int64_t conv = add_turn(&c, "2+2?", "5");
    judge(&c, conv, 1, NT_FEEDBACK_THUMB, -1, NULL, 1, 101 * day);
    judge(&c, conv, 1, NT_FEEDBACK_EDIT, 0, "four", 0.5F, 102 * day);
    (void)add_turn(&c, "3+3?", "six");
    judge(&c, add_turn(&c, "4+4?", "9"), 1, NT_FEEDBACK_EDIT, 0, "eight", 0, 102 * day); /* words without a say */
    set_up(&b, &c);
    const struct nt_prepare_report *r = &b.out.report;
    run_ok(&b);
    assert_int_equal(b.out.train.n, 3);
    assert_string_equal(targets(&b, &b.out.train, 0, 0), "four"); /* the thumb was about "5" */
    assert_true(b.out.train.rows[0].member[0].runs[0].weight == 0.5F);

    set(&b, "train.edits=false");
    run_ok(&b);
    assert_int_equal(b.out.train.n, 2);
    assert_string_equal(targets(&b, &b.out.train, 0, 0), "six");
    assert_int_equal(r->left_out[NT_LEFT_RATING], 1);

    set(&b, "train.edits=true");
    set(&b, "train.loss=dpo");
    run_ok(&b);
    assert_int_equal(b.out.train.n, 1);
    assert_string_equal(targets(&b, &b.out.train, 0, NT_CHOSEN), "four");
    assert_string_equal(targets(&b, &b.out.train, 0, NT_REJECTED), "5");
    assert_true(b.out.train.rows[0].weight == 0.5F);
    assert_true(b.out.train.rows[0].created_us == 102 * day);
    assert_int_equal(r->left_out[NT_LEFT_NO_MATERIAL], 2);

    set(&b, "train.loss=kto");
    run_ok(&b);
    assert_int_equal(b.out.train.n, 2);
    assert_int_equal(r->left_out[NT_LEFT_DUPLICATE], 1); /* "5" is bad twice: by thumb and by edit */
    for (int32_t i = 0; i < 2; i++)
        assert_int_equal(strcmp(targets(&b, &b.out.train, i, 0), "four") == 0, b.out.train.rows[i].label);
    tear_down(&b);
}

/* Whoever sends an answer back as it was does not speak against it. */
static void test_edits_of_nothing(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    const int64_t conv = add_turn(&c, "2+2?", "four");
    judge(&c, conv, 1, NT_FEEDBACK_THUMB, 1, NULL, 1, 101 * day);
    judge(&c, conv, 1, NT_FEEDBACK_EDIT, 0, "four", 1, 101 * day);
    judge(&c, add_turn(&c, "3+3?", "seven"), 1, NT_FEEDBACK_EDIT, 0, "six", 1, 101 * day);
    set_up(&b, &c);
    const struct nt_prepare_report *r = &b.out.report;
    run_ok(&b);
    assert_int_equal(b.out.train.n, 2);
    assert_int_equal(r->left_out[NT_LEFT_RATING], 0);
    assert_string_equal(targets(&b, &b.out.train, 0, 0), "four");

    set(&b, "train.loss=dpo");
    run_ok(&b);
    assert_int_equal(b.out.train.n, 1);
    assert_int_equal(r->left_out[NT_LEFT_SAME], 1);

    set(&b, "train.loss=kto");
    run_ok(&b);
    assert_int_equal(b.out.train.n, 3); /* four, six; seven */
    assert_int_equal(r->left_out[NT_LEFT_DUPLICATE], 1);
    assert_int_equal(r->left_out[NT_LEFT_CONFLICT], 0);
    for (int32_t i = 0; i < 3; i++)
        assert_int_equal(strcmp(targets(&b, &b.out.train, i, 0), "seven") != 0, b.out.train.rows[i].label);
    tear_down(&b);
}

/* Two conversations of ann's that eve edited and put down, and one of eve's own. */
static void write_judged_by_eve(struct corpus *c, int64_t erased_us, uint32_t consent, int64_t retention_until_us) {
    int64_t row;
    const int64_t conv = add_turn(c, "2+2?", "4"), other = add_turn(c, "3+3?", "6");
    struct nt_new_feedback f = {
        .conversation = conv,
        .target_kind = NT_TARGET_MESSAGE,
        .target = 1,
        .kind = NT_FEEDBACK_EDIT,
        .edit = "my own words",
        .edit_len = 12,
        .by = {.rater = "eve", .rater_len = 3, .weight = 1, .created_us = c->created_us}
    };
    must(nt_dataset_add_feedback(c->w, &f, &row));
    f.conversation = other;
    f.kind = NT_FEEDBACK_THUMB;
    f.value = -1;
    f.edit = NULL;
    f.edit_len = 0;
    must(nt_dataset_add_feedback(c->w, &f, &row));
    c->user = "eve";
    c->erased_us = erased_us;
    c->consent = consent;
    c->retention_until_us = retention_until_us;
    (void)add_turn(c, "q", "a");
}

/* Of a subject who does not allow training nothing counts, also what it said of others: its edit is its own words. */
static void test_refused_rater(void **state) {
    (void)state;
    static const struct {
        enum nt_refusal why;
        int64_t erased_us, retention_until_us;
        uint32_t consent;
    } cases[] = {
        {NT_REFUSED_ERASED,    1, 0, NT_PURPOSE_TRAIN   },
        {NT_REFUSED_CONSENT,   0, 0, NT_PURPOSE_GENERATE},
        {NT_REFUSED_CONSENT,   0, 0, 0                  },
        {NT_REFUSED_RETENTION, 0, 1, NT_PURPOSE_TRAIN   },
        {NT_N_REFUSALS,        0, 0, NT_PURPOSE_TRAIN   },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct corpus c = begin_corpus();
        struct bench b;
        const bool heard = cases[i].why == NT_N_REFUSALS;
        write_judged_by_eve(&c, cases[i].erased_us, cases[i].consent, cases[i].retention_until_us);
        set_up(&b, &c);
        run_ok(&b);
        const struct nt_prepare_report *r = &b.out.report;
        assert_string_equal(targets(&b, &b.out.train, 0, 0), heard ? "my own words" : "4");
        assert_int_equal(b.out.train.n, 2);
        assert_string_equal(targets(&b, &b.out.train, 1, 0), heard ? "a" : "6");
        for (int k = 0; k < NT_N_REFUSALS; k++) {
            assert_int_equal(r->refused[k], k == (int)cases[i].why);
            assert_int_equal(r->unheard[k], k == (int)cases[i].why ? 2 : 0);
        }
        assert_int_equal(r->n_votes > 0, heard);
        tear_down(&b);
    }
}

/* Keys 'a' and on, votes as they come; the verdict on 'a' and the fates of its votes. */
static void test_votes(void **state) {
    (void)state;
    static const struct {
        enum nt_conflict_rule rule;
        float up, down; /* two votes up of half of that each, then one down */
        bool holds, good;
        const char *fates;
    } rows[] = {
        {NT_CONFLICT_LATEST,   9, 1, true,  false, "xxc"},
        {NT_CONFLICT_MAJORITY, 9, 1, true,  true,  "dcx"},
        {NT_CONFLICT_MAJORITY, 2, 3, true,  false, "xxc"}, /* weight counts, not heads */
        {NT_CONFLICT_MAJORITY, 2, 2, false, false, "xxx"},
        {NT_CONFLICT_DROP,     9, 1, false, false, "xxx"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct nt_votes v = {0};
        const uint8_t a[NT_VOTE_KEY] = {'a'}, b[NT_VOTE_KEY] = {'b'}, none[NT_VOTE_KEY] = {'c'};
        nt_votes_add(&v, b, true, 3, 5);
        nt_votes_add(&v, a, true, rows[i].up / 2, 7);
        nt_votes_add(&v, a, true, rows[i].up / 2, 7);
        nt_votes_add(&v, a, false, rows[i].down, 7); /* as late: the later row is the later word */
        nt_votes_settle(&v, rows[i].rule);
        const struct nt_verdict *got = nt_votes_find(&v, a);
        assert_int_equal(v.n_conflicts, 1);
        assert_int_equal(got->holds, rows[i].holds);
        if (got->holds) assert_int_equal(got->good, rows[i].good);
        if (got->holds) assert_true(got->weight == (got->good ? rows[i].up / 2 : rows[i].down));
        for (int k = 0; k < 3; k++) assert_int_equal("cdx"[v.votes[k + 1].fate], rows[i].fates[k]);
        assert_true(nt_votes_find(&v, b)->holds && nt_votes_find(&v, b)->weight == 3);
        assert_int_equal(v.votes[0].fate, NT_FATE_CARRIES);
        assert_null(nt_votes_find(&v, none));
        nt_votes_release(&v);
    }
}

/* Three people on one answer: down, up, up; the ups are older, and one weighs more. */
static void write_dispute(struct corpus *c) {
    int64_t conv = add_turn(c, "q", "answer");
    judge(c, conv, 1, NT_FEEDBACK_THUMB, 1, NULL, 2, 10 * day);
    judge(c, conv, 1, NT_FEEDBACK_THUMB, -1, NULL, 2.5F, 30 * day);
    c->user = "bob";
    conv = add_turn(c, "q", "answer"); /* the same answer to the same prompt elsewhere */
    judge(c, conv, 1, NT_FEEDBACK_RATING, 0.9F, NULL, 1, 20 * day);
    thumb(c, add_turn(c, "other", "fine"), 1);
    thumb(c, add_turn(c, "third", "poor"), -1);
}

static void test_conflicts(void **state) {
    (void)state;
    static const struct {
        const char *rule;
        int32_t n_sft, n_kto, n_conflict;
        bool good;
        float weight;
    } rows[] = {
        {"train.conflicts=latest",   1, 3, 2, false, 2.5F},
        {"train.conflicts=majority", 2, 3, 1, true,  1.5F},
        {"train.conflicts=drop",     1, 2, 3, false, 0   },
    };
    struct corpus c = begin_corpus();
    struct bench b;
    write_dispute(&c);
    set_up(&b, &c);
    for (size_t i = 0; i < 3; i++) {
        const struct nt_prepare_report *r = &b.out.report;
        set(&b, rows[i].rule);
        set(&b, "train.loss=sft");
        run_ok(&b);
        assert_int_equal(r->n_conflicts, 1);
        assert_int_equal(b.out.train.n, rows[i].n_sft);
        set(&b, "train.loss=kto");
        run_ok(&b);
        assert_int_equal(b.out.train.n, rows[i].n_kto);
        assert_int_equal(r->left_out[NT_LEFT_CONFLICT], rows[i].n_conflict);
        for (int32_t k = 0; k < b.out.train.n; k++) {
            const struct nt_example *e = &b.out.train.rows[k];
            if (strcmp(targets(&b, &b.out.train, k, 0), "answer") != 0) continue;
            assert_true(rows[i].weight > 0);
            assert_int_equal(e->label, rows[i].good);
            assert_true(e->weight == rows[i].weight);
        }
    }
    tear_down(&b);
}

static void test_pairs(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    add_pair(&c, "q", "yes", "no", 10 * day);
    add_pair(&c, "q", "no", "yes", 20 * day); /* the other way round, later */
    add_pair(&c, "q", "no", "yes", 15 * day);
    add_pair(&c, "r", "same", "same", 10 * day);
    add_pair(&c, "r", "a", "b", 10 * day);
    set_up(&b, &c);
    const struct nt_prepare_report *r = &b.out.report;
    set(&b, "train.loss=dpo");
    run_ok(&b);
    assert_int_equal(b.out.train.n, 2);
    assert_string_equal(targets(&b, &b.out.train, 0, NT_CHOSEN), "no");
    assert_string_equal(targets(&b, &b.out.train, 1, NT_CHOSEN), "a");
    assert_string_equal(targets(&b, &b.out.train, 1, NT_REJECTED), "b");
    assert_true(b.out.train.rows[0].created_us == 20 * day);
    assert_int_equal(r->left_out[NT_LEFT_CONFLICT], 1);
    assert_int_equal(r->left_out[NT_LEFT_DUPLICATE], 1);
    assert_int_equal(r->left_out[NT_LEFT_SAME], 1);
    assert_int_equal(b.out.train.longest_row,
                     b.out.train.rows[0].member[0].n_tok + b.out.train.rows[0].member[1].n_tok);
    set(&b, "train.loss=sft"); /* pairs are no conversations to learn */
    run_refused(&b, NT_E_DATA, "5 nothing for this loss");
    tear_down(&b);
}

static void test_generations(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    const struct nt_new_message m = say("user", "question");
    const int64_t conv = add_messages(&c, NT_ROW_BATCH, NT_CONV_CHAT, &m, 1);
    static const char *const texts[] = {"first", "second", "cut o"};
    for (int i = 0; i < 3; i++) {
        int64_t row, feedback;
        const struct nt_new_generation g = {.conversation = conv,
                                            .choice = i,
                                            .model = "m",
                                            .finish = i == 2 ? NT_GEN_LENGTH : NT_GEN_STOP,
                                            .text = texts[i],
                                            .len = strlen(texts[i]),
                                            .created_us = 5 * day};
        must(nt_dataset_add_generation(c.w, &g, &row));
        const struct nt_new_feedback f = {
            .conversation = conv,
            .target_kind = NT_TARGET_GENERATION,
            .target = row,
            .kind = NT_FEEDBACK_THUMB,
            .value = i == 0 ? -1 : 1,
            .by = {.weight = 1, .created_us = 6 * day}
        };
        must(nt_dataset_add_feedback(c.w, &f, &feedback));
    }
    set_up(&b, &c);
    run_ok(&b);
    assert_int_equal(b.out.train.n, 1);
    assert_string_equal(targets(&b, &b.out.train, 0, 0), "second");
    assert_int_equal(b.out.report.left_out[NT_LEFT_UNFINISHED], 1);
    assert_int_equal(b.out.report.left_out[NT_LEFT_RATING], 1);
    set(&b, "train.loss=kto");
    run_ok(&b);
    assert_int_equal(b.out.train.n, 2);
    assert_int_equal(b.out.train.n_desirable, 1);
    assert_int_equal(b.out.report.left_out[NT_LEFT_UNFINISHED], 1);
    for (int i = 0; i < 2; i++) { /* both losses name the row */
        set(&b, i == 0 ? "train.loss=kto" : "train.loss=sft");
        set(&b, "train.unfinished=error");
        run_refused(&b, NT_E_DATA, "have an answer that was not finished");
        assert_non_null(strstr(nt_error_last()->text, "train.unfinished = drop"));
        assert_non_null(strstr(nt_error_last()->text, "conversation 0: an answer whose finish reason"));
    }
    tear_down(&b);
}

/* An answer that was cut off is not learned, be it in a pair; its edit is, for every loss. */
static void test_cut_off_answers(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    const struct nt_new_message m = say("user", "question");
    const int64_t conv = add_messages(&c, NT_ROW_BATCH, NT_CONV_CHAT, &m, 1);
    static const char *const texts[] = {"cut o", "whole"};
    int64_t generation[2], row;
    for (int i = 0; i < 2; i++) {
        const struct nt_new_generation g = {.conversation = conv,
                                            .choice = i,
                                            .finish = i == 0 ? NT_GEN_LENGTH : NT_GEN_STOP,
                                            .text = texts[i],
                                            .len = strlen(texts[i])};
        must(nt_dataset_add_generation(c.w, &g, &generation[i]));
    }
    for (int i = 0; i < 2; i++) {
        const struct nt_new_pair pair = {
            .conversation = conv,
            .n_prompt = 1,
            .side = NT_SIDE_GENERATION,
            .chosen = generation[i],
            .rejected = generation[!i],
            .margin = NAN,
            .by = {.weight = 1, .created_us = (5 + i) * day}
        };
        must(nt_dataset_add_pair(c.w, &pair, &row));
    }
    const struct nt_new_feedback edit = {.conversation = conv,
                                         .target_kind = NT_TARGET_GENERATION,
                                         .target = generation[0],
                                         .kind = NT_FEEDBACK_EDIT,
                                         .edit = "cut off no more",
                                         .edit_len = 15,
                                         .by = {.weight = 1}};
    must(nt_dataset_add_feedback(c.w, &edit, &row));
    set_up(&b, &c);
    const struct nt_prepare_report *r = &b.out.report;
    run_ok(&b);
    assert_int_equal(b.out.train.n, 2);
    assert_string_equal(targets(&b, &b.out.train, 0, 0), "cut off no more");
    set(&b, "train.loss=dpo");
    run_ok(&b);
    assert_int_equal(b.out.train.n, 2); /* whole before cut off, and the edit before it */
    assert_string_equal(targets(&b, &b.out.train, 0, NT_CHOSEN), "whole");
    assert_string_equal(targets(&b, &b.out.train, 1, NT_CHOSEN), "cut off no more");
    assert_int_equal(r->left_out[NT_LEFT_CONFLICT], 1);
    set(&b, "train.edits=false");
    set(&b, "train.until=1970-01-06T12:00:00Z"); /* the first pair alone */
    run_refused(&b, NT_E_DATA, "nothing to train on");
    assert_int_equal(r->left_out[NT_LEFT_UNFINISHED], 1);
    set(&b, "train.until=");
    set(&b, "train.loss=sft");
    run_ok(&b);
    assert_int_equal(b.out.train.n, 1);
    assert_int_equal(r->left_out[NT_LEFT_UNFINISHED], 1);
    tear_down(&b);
}

/* What a cut makes equal: answers of a pair are no pair then, verdicts on the same words are settled. */
static void test_cut_alike(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    char end[600] = "", first[700], second[700];
    for (int i = 0; i < 60; i++) (void)snprintf(end + strlen(end), sizeof end - strlen(end), "word%d ", i);
    (void)snprintf(first, sizeof first, "first %s", end);
    (void)snprintf(second, sizeof second, "second %s", end);
    thumb(&c, add_turn(&c, first, "fine"), 1);
    c.created_us = 101 * day;
    thumb(&c, add_turn(&c, second, "fine"), -1);
    thumb(&c, add_turn(&c, "q", "good"), 1);
    thumb(&c, add_turn(&c, "q", "bad"), -1);
    add_pair(&c, "q", "better", "worse", 0);
    (void)snprintf(first, sizeof first, "%sand", end);
    (void)snprintf(second, sizeof second, "%sor", end);
    add_pair(&c, "q", first, second, 0);
    (void)snprintf(first, sizeof first, "first %s", end);
    (void)snprintf(second, sizeof second, "second %s", end);
    add_pair(&c, first, "this", "that", 5 * day);
    add_pair(&c, second, "that", "this", 5 * day); /* as late: the later row is the later word */
    set_up(&b, &c);
    const struct nt_prepare_report *r = &b.out.report;
    set(&b, "train.max_length=80");
    set(&b, "train.loss=kto");
    static const struct {
        const char *rule;
        int n_train, n_conflict;
    } rows[] = {
        {"train.conflicts=latest",   3, 1},
        {"train.conflicts=majority", 2, 2},
        {"train.conflicts=drop",     2, 2},
    };
    for (int i = 0; i < 3; i++) {
        set(&b, rows[i].rule);
        run_ok(&b);
        assert_int_equal(r->n_train, rows[i].n_train);
        assert_int_equal(r->left_out[NT_LEFT_CONFLICT], rows[i].n_conflict);
        assert_int_equal(r->n_desirable, 1); /* the later one says that it is bad */
    }
    set(&b, "train.loss=dpo");
    set(&b, "train.long_completion=truncate");
    run_ok(&b);
    assert_int_equal(r->n_train, 1);
    assert_int_equal(r->left_out[NT_LEFT_SAME], 1);
    assert_int_equal(r->left_out[NT_LEFT_CONFLICT], 2);
    set(&b, "train.conflicts=latest");
    run_ok(&b);
    assert_int_equal(r->n_train, 2);
    assert_string_equal(targets(&b, &b.out.train, 1, 0), "that");
    tear_down(&b);
}

static void test_plain_texts(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    const struct nt_new_message m[] = {say("prompt", "The sky is"), say("assistant", " blue.")};
    (void)add_messages(&c, NT_ROW_COMPLETION, NT_CONV_TEXT, m, 2);
    set_up(&b, &c);
    struct nt_strbuf text = NT_STRBUF_INIT;
    static const struct {
        bool no_chat;
        const char *format, *want;
    } rows[] = {
        {false, "train.text_format=auto",
         "<|im_start|>user\nThe sky is<|im_end|>\n<|im_start|>assistant\n blue.<|im_end|>"},
        {false, "train.text_format=raw",  "The sky is blue.<|im_end|>"                    },
        {true,  "train.text_format=auto", "The sky is blue.<|im_end|>"                    },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        b.no_chat = rows[i].no_chat;
        set(&b, rows[i].format);
        run_ok(&b);
        const struct nt_member *got = &b.out.train.rows[0].member[0];
        nt_strbuf_reset(&text);
        nt_tokenizer_decode(b.tok, got->ids, got->n_tok, false, &text);
        assert_string_equal(nt_strbuf_cstr(&text), rows[i].want);
        assert_string_equal(targets(&b, &b.out.train, 0, 0), " blue.");
    }
    b.no_chat = false; /* the format plain separates messages, which these texts are not */
    must(nt_chat_open(&b.chat, "plain", NULL, 0, b.tok, "test"));
    run_ok(&b);
    nt_strbuf_reset(&text);
    nt_tokenizer_decode(b.tok, b.out.train.rows[0].member[0].ids, b.out.train.rows[0].member[0].n_tok, false, &text);
    assert_string_equal(nt_strbuf_cstr(&text), rows[2].want);
    nt_strbuf_release(&text);
    tear_down(&b);
}

/* ---- weights ---- */

static void test_decay_and_cap(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    static const char *const answers[] = {"zero", "one", "two", "three", "four"};
    for (int i = 0; i < 5; i++) {
        c.created_us = (100 + 10 * i) * day;
        (void)add_turn(&c, "q", answers[i]);
    }
    c.user = NULL; /* nobody in particular: not one person */
    c.created_us = 0;
    (void)add_turn(&c, "a", "undated");
    (void)add_turn(&c, "a", "too");
    (void)add_turn(&c, "a", "and this");
    c.user = "bob";
    c.created_us = 100 * day;
    (void)add_turn(&c, "a", "long ago");
    set_up(&b, &c);
    set(&b, "train.half_life_days=10");
    run_ok(&b);
    assert_int_equal(b.out.report.n_undated, 3);
    assert_int_equal(b.out.report.n_subjects_train, 2);
    assert_int_equal(b.out.report.n_nameless_train, 3);
    set(&b, "train.until=1971-01-01"); /* what has no time cannot be shown to be before it */
    run_ok(&b);
    assert_int_equal(b.out.report.left_out[NT_LEFT_TIME], 3);
    set(&b, "train.until=");
    run_ok(&b);
    for (int32_t i = 0; i < 8; i++)
        assert_true(fabsf(b.out.train.rows[i].weight - (i < 5 ? exp2f((float)(i - 4)) : 1)) < 1e-6F);
    set(&b,
        "train.half_life_days=0.1"); /* 2^-100 and so on for the older ones: what is no number any more is left out */
    run_ok(&b);
    assert_int_equal(b.out.report.left_out[NT_LEFT_DECAYED], 4);
    assert_int_equal(b.out.report.n_subjects_train, 1); /* of bob nothing is left */
    for (int32_t i = 0; i < b.out.train.n; i++) assert_true(b.out.train.rows[i].weight > 0);
    set(&b, "train.half_life_days=10");
    set(&b, "train.max_per_subject=2");
    run_ok(&b);
    assert_int_equal(b.out.train.n, 6);
    assert_int_equal(b.out.report.left_out[NT_LEFT_SUBJECT_CAP], 3);
    assert_string_equal(targets(&b, &b.out.train, 0, 0), "three"); /* the newest ones stay */
    assert_string_equal(targets(&b, &b.out.train, 1, 0), "four");
    tear_down(&b);
}

/* A format that rewrites earlier turns makes two rows of each of these: one conversation all the same. */
static void test_cap_of_split(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    for (int i = 0; i < 3; i++) {
        char q[2] = {(char)('a' + i), 0};
        const struct nt_new_message m[] = {say("user", q), say("assistant", "<think>\nhm\n</think>\n\nfirst"),
                                           say("user", "and?"), say("assistant", "<think>\nso\n</think>\n\nsecond")};
        c.created_us = (100 + i) * day;
        (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, m, 4);
    }
    set_up(&b, &c);
    nt_tokenizer_free(b.tok);
    b.tok = open_tokenizer("qwen2", "", "<|im_end|>");
    must(nt_chat_open(&b.chat, "qwen3", NULL, 0, b.tok, "test"));
    run_ok(&b);
    const struct nt_prepare_report *r = &b.out.report;
    assert_int_equal(r->n_train, 6);
    assert_int_equal(r->n_talks_train, 3);
    assert_int_equal(r->n_split, 3);
    set(&b, "train.max_per_subject=2");
    run_ok(&b);
    assert_int_equal(r->n_train, 4);
    assert_int_equal(r->n_talks_train, 2);
    assert_int_equal(r->left_out[NT_LEFT_SUBJECT_CAP], 2);
    assert_int_equal(b.out.train.rows[0].conversation, 1); /* the newest ones, whole */
    assert_int_equal(b.out.train.rows[1].conversation, 1);
    assert_int_equal(b.out.train.rows[2].conversation, 2);
    tear_down(&b);
}

static void check_ratio(struct bench *b, double least, double most) {
    const struct nt_prepare_report *r = &b->out.report;
    struct nt_order o;
    double sum[2] = {0, 0};
    run_ok(b);
    must(nt_order_open(&o, &b->out.train, 1, (int32_t)b->config.train_batch_size));
    for (int64_t p = 0; p < 16 * b->out.train.n; p++) { /* what training will really see */
        int32_t e;
        nt_order_take(&o, p, 1, &e);
        sum[b->out.train.rows[e].label] += nt_example_weight(&b->out.train, e);
    }
    nt_order_close(&o);
    assert_true(fabs(sum[1] / sum[0] / r->class_ratio - 1) < 0.02);
    if (!(r->class_ratio >= least - 1e-9 && r->class_ratio <= most + 1e-9)) fail_msg("ratio %g", r->class_ratio);
    assert_true(r->desirable_weight == b->out.train.desirable_weight);
}

static void test_class_weights(void **state) {
    (void)state;
    static const int good[] = {3, 24, 20, 30}, bad[] = {20, 3, 18, 1};
    for (size_t k = 0; k < 4; k++) {
        struct corpus c = begin_corpus();
        struct bench b;
        char q[32];
        for (int i = 0; i < good[k] + bad[k]; i++) {
            (void)snprintf(q, sizeof q, "question %d", i);
            const int64_t conv = add_turn(&c, q, q);
            judge(&c, conv, 1, NT_FEEDBACK_THUMB, i < good[k] ? 1 : -1, NULL, i % 3 ? 1 : 0.5F, day);
        }
        set_up(&b, &c);
        set(&b, "train.loss=kto");
        set(&b, "train.batch_size=8");
        check_ratio(&b, 1, 4.0 / 3);
        assert_int_equal(b.out.report.n_desirable, good[k]);
        assert_true(b.out.report.desirable_weight == 1 || b.out.report.undesirable_weight == 1);
        set(&b, "train.desirable_weight=0.25");
        check_ratio(&b, 1, 4.0 / 3);
        assert_true(b.out.report.desirable_weight == 0.25);
        set(&b, "train.undesirable_weight=8"); /* as told, whatever comes of it */
        check_ratio(&b, 0, 100);
        assert_true(b.out.report.undesirable_weight == 8);
        tear_down(&b);
    }
}

static void test_empty_class(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    thumb(&c, add_turn(&c, "q", "a"), 1);
    thumb(&c, add_turn(&c, "r", "b"), 1);
    set_up(&b, &c);
    set(&b, "train.loss=kto");
    run_refused(&b, NT_E_DATA, "2 desirable and 0 undesirable rows");
    tear_down(&b);
}

/* ---- determinism and the card ---- */

static void test_same_again(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    uint8_t train[32], eval[32];
    struct nt_strbuf json = NT_STRBUF_INIT, again = NT_STRBUF_INIT;
    write_people(&c, 20);
    set_up(&b, &c);
    set(&b, "train.eval_fraction=0.3");
    run_ok(&b);
    memcpy(train, b.out.train.digest, sizeof train);
    memcpy(eval, b.out.eval.digest, sizeof eval);
    nt_prepare_json(&b.out.report, &json);
    run_ok(&b);
    nt_prepare_json(&b.out.report, &again);
    assert_memory_equal(train, b.out.train.digest, sizeof train);
    assert_memory_equal(eval, b.out.eval.digest, sizeof eval);
    assert_string_equal(nt_strbuf_cstr(&json), nt_strbuf_cstr(&again));
    set(&b, "train.seed=1"); /* another draw of the held-out */
    run_ok(&b);
    assert_memory_not_equal(train, b.out.train.digest, sizeof train);

    struct nt_json *doc;
    must(nt_json_parse(nt_strbuf_cstr(&json), json.len, "card", &doc));
    const struct nt_json *source = nt_json_at(nt_json_get(doc, "sources"), 0);
    assert_string_equal(nt_json_str(nt_json_get(source, "source"), NULL), "web");
    assert_string_equal(nt_json_str(nt_json_get(source, "consent"), NULL), "train");
    assert_string_equal(nt_json_str(nt_json_get(source, "basis"), NULL), "consent");
    assert_int_equal(nt_json_int(nt_json_get(source, "train"), 0) + nt_json_int(nt_json_get(source, "eval"), 0), 50);
    assert_int_equal(nt_json_int(nt_json_get(nt_json_get(doc, "left_out"), "duplicate"), -1), 0);
    assert_string_equal(nt_json_str(nt_json_get(doc, "chat_format"), NULL), "chatml");
    assert_int_equal(nt_json_str(nt_json_get(doc, "first_created"), NULL)[0], '1');
    nt_json_free(doc);
    nt_strbuf_release(&json);
    nt_strbuf_release(&again);
    nt_prepare_log(&b.out.report);
    tear_down(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filters),         cmocka_unit_test(test_policies),
        cmocka_unit_test(test_edits),           cmocka_unit_test(test_edits_of_nothing),
        cmocka_unit_test(test_cap_of_split),    cmocka_unit_test(test_votes),
        cmocka_unit_test(test_refused_rater),   cmocka_unit_test(test_conflicts),
        cmocka_unit_test(test_pairs),           cmocka_unit_test(test_generations),
        cmocka_unit_test(test_cut_off_answers), cmocka_unit_test(test_plain_texts),
        cmocka_unit_test(test_cut_alike),       cmocka_unit_test(test_decay_and_cap),
        cmocka_unit_test(test_class_weights),   cmocka_unit_test(test_empty_class),
        cmocka_unit_test(test_same_again),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
