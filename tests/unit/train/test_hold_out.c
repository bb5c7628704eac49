/* Hold-outs: no subject on both sides, and no answer that is held out or kept for a test is trained on behind the same
 * words, whoever it is from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "prepare_corpora.h"

/* No subject, and no opening of a row that names none, is on both sides. */
static void check_apart(const struct bench *b) {
    const struct nt_example_set *t = &b->out.train, *e = &b->out.eval;
    for (int32_t i = 0; i < t->n; i++) {
        for (int32_t k = 0; k < e->n; k++) {
            const struct nt_example *x = &t->rows[i], *y = &e->rows[k];
            if (x->subject >= 0) {
                assert_int_not_equal(x->subject, y->subject);
            } else if (y->subject < 0) {
                const struct nt_member *p = &x->member[0], *q = &y->member[0];
                assert_false(p->n_prompt == q->n_prompt &&
                             memcmp(p->ids, q->ids, (size_t)p->n_prompt * sizeof *p->ids) == 0);
            }
        }
    }
}

static void test_hold_out(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    int32_t before = 0;
    write_people(&c, 60);
    set_up(&b, &c);
    const struct nt_prepare_report *r = &b.out.report;
    static const char *const fractions[] = {"train.eval_fraction=0.1", "train.eval_fraction=0.3",
                                            "train.eval_fraction=0.6"};
    for (int i = 0; i < 3; i++) { /* a larger share holds out more and the same */
        set(&b, fractions[i]);
        run_ok(&b);
        check_apart(&b);
        assert_int_equal(r->left_out[NT_LEFT_HELD_OUT], 0);
        assert_int_equal(r->n_subjects_train + r->n_subjects_eval, 48); /* the other 12 say no name, */
        assert_int_equal(r->n_nameless_train + r->n_nameless_eval, 30); /* in 1 + 2 + 3 + 4 rows thrice */
        assert_true(r->n_subjects_eval > before);
        before = r->n_subjects_eval;
    }
    assert_in_range(before, 18, 40); /* 29 expected, deviation 3.4 */
    set(&b, "train.eval_since=1970-08-29");
    for (int i = 0; i < 2; i++) {
        run_ok(&b);
        check_apart(&b);
        for (int32_t k = 0; k < b.out.train.n; k++) assert_true(b.out.train.rows[k].created_us < 240 * day);
        assert_true(r->left_out[NT_LEFT_HELD_OUT] > 0);
        set(&b, "train.eval_fraction=0"); /* then by time alone */
    }
    for (int32_t k = 0; k < b.out.eval.n; k++) assert_true(b.out.eval.rows[k].created_us >= 240 * day);
    set(&b, "train.eval_since=2020-01-01");
    run_refused(&b, NT_E_DATA, "nothing is held out");
    tear_down(&b);
}

static void test_split_column(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    (void)add_turn(&c, "q1", "ann trains");
    c.user = "bob";
    (void)add_turn(&c, "q2", "bob before");
    c.split = NT_SPLIT_VALID;
    (void)add_turn(&c, "q3", "bob held out");
    c.user = "tess"; /* a later test's: none of hers is trained on, what is to be evaluated is */
    (void)add_turn(&c, "q4", "tess held out");
    c.split = NT_SPLIT_TEST;
    (void)add_turn(&c, "q5", "tess tested");
    c.user = NULL;
    (void)add_turn(&c, "q6", "somebody tested");
    c.split = NT_SPLIT_NONE;
    (void)add_turn(&c, "q6", "the same question again");
    c.user = "tess";
    (void)add_turn(&c, "q7", "tess before");
    set_up(&b, &c);
    run_ok(&b);
    assert_int_equal(b.out.train.n, 1);
    assert_int_equal(b.out.eval.n, 2);
    assert_string_equal(targets(&b, &b.out.train, 0, 0), "ann trains");
    assert_string_equal(targets(&b, &b.out.eval, 0, 0), "bob held out");
    assert_string_equal(targets(&b, &b.out.eval, 1, 0), "tess held out");
    assert_int_equal(b.out.report.left_out[NT_LEFT_HELD_OUT], 3);
    assert_int_equal(b.out.report.left_out[NT_LEFT_SPLIT], 2);
    tear_down(&b);
}

/* What is held out is held out by its words too: another person's copy is not trained on. */
static void test_held_out_words(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    (void)add_turn(&c, "asked by both", "valid");
    (void)add_turn(&c, "asked by both", "tested");
    (void)add_turn(&c, "only ann", "trains");
    struct nt_new_message light[] = {say("user", "asked by both"), say("assistant", "weighed")};
    light[1].weight = 0.5F;
    (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, light, 2);
    c.user = "bob";
    c.split = NT_SPLIT_VALID;
    (void)add_turn(&c, "asked by both", "valid");
    (void)add_turn(&c, "asked by both", "weighed");
    c.user = "tess";
    c.split = NT_SPLIT_TEST;
    (void)add_turn(&c, "asked by both", "tested");
    set_up(&b, &c);
    run_ok(&b);
    assert_int_equal(b.out.train.n, 1);
    assert_string_equal(targets(&b, &b.out.train, 0, 0), "trains");
    assert_int_equal(b.out.eval.n, 2);
    assert_string_equal(targets(&b, &b.out.eval, 0, 0), "valid");
    assert_int_equal(b.out.report.left_out[NT_LEFT_DUPLICATE], 1);
    assert_int_equal(b.out.report.left_out[NT_LEFT_EVALUATED], 1);
    assert_int_equal(b.out.report.left_out[NT_LEFT_TESTED], 1);
    assert_int_equal(b.out.report.n_subjects_train, 1);
    assert_int_equal(b.out.report.n_subjects_eval, 1);
    assert_int_equal(b.out.n_files, 1);
    assert_string_equal(b.out.files[b.out.train.rows[0].file], path);
    assert_int_equal(b.out.train.rows[0].conversation, 2);
    tear_down(&b);
}

/* An answer is held out wherever it stands behind the same words: also where one conversation is the other's beginning,
 * or the two part after it. */
static void test_held_out_beginnings(void **state) {
    (void)state;
    const struct nt_new_message talk[] = {say("user", "q1"),      say("assistant", "a1"), say("user", "q2"),
                                          say("assistant", "a2"), say("user", "q3"),      say("assistant", "a3")};
    struct nt_new_message other[] = {say("user", "q1"), say("assistant", "a1"), say("user", "else"),
                                     say("assistant", "a2")};
    struct nt_new_message unlearned[] = {say("user", "q1"), say("assistant", "a1"), say("user", "more"),
                                         say("assistant", "a4")};
    unlearned[1].weight = 0;
    static const char *const formats[] = {"chatml", "plain"};
    for (int i = 0; i < 2; i++) {
        struct corpus c = begin_corpus();
        struct bench b;
        (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, talk, 2); /* the held-out one goes on */
        (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, talk, 6); /* goes on behind the held-out one */
        (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, other, 4);
        (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, unlearned, 4); /* a1 is no target here */
        c.user = "bob";
        c.split = NT_SPLIT_VALID;
        (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, talk, 4);
        set_up(&b, &c);
        must(nt_chat_open(&b.chat, formats[i], NULL, 0, b.tok, "test"));
        run_ok(&b);
        assert_int_equal(b.out.report.left_out[NT_LEFT_EVALUATED], 3);
        assert_int_equal(b.out.train.n, 1);
        assert_int_equal(b.out.train.rows[0].conversation, 3);
        assert_int_equal(b.out.eval.n, 1);
        tear_down(&b);
    }
}

/* What is kept for a test likewise; what is held out is evaluated nonetheless. */
static void test_tested_beginnings(void **state) {
    (void)state;
    const struct nt_new_message talk[] = {say("user", "q1"),      say("assistant", "a1"), say("user", "q2"),
                                          say("assistant", "a2"), say("user", "q3"),      say("assistant", "a3")};
    struct corpus c = begin_corpus();
    struct bench b;
    (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, talk, 2);
    (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, talk, 6);
    (void)add_turn(&c, "q1", "another answer");
    c.user = "bob";
    c.split = NT_SPLIT_VALID;
    const struct nt_new_message valid[] = {talk[0], talk[1], say("user", "else"), say("assistant", "b2")};
    (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, valid, 4);
    c.user = "tess";
    c.split = NT_SPLIT_TEST;
    (void)add_messages(&c, NT_ROW_MESSAGES, NT_CONV_CHAT, talk, 4);
    add_pair(&c, "q9", "t1", "t2", 10 * day);
    judge(&c, add_turn(&c, "q8", "tested words"), 1, NT_FEEDBACK_EDIT, 0, "their edit", 1, 10 * day);
    c.split = NT_SPLIT_NONE;
    c.user = "dan";
    add_pair(&c, "q1", "b1", "a1", 10 * day);
    add_pair(&c, "q1", "b1", "c1", 10 * day);
    add_pair(&c, "q9", "t1", "b1", 10 * day);
    add_pair(&c, "q9", "b1", "t2", 10 * day);
    add_pair(&c, "q9", "b1", "c1", 10 * day); /* the prompt alone is nobody's answer */
    add_pair(&c, "q8", "their edit", "b1", 10 * day);
    add_pair(&c, "q8", "b1", "tested words", 10 * day);
    set_up(&b, &c);
    run_ok(&b);
    assert_int_equal(b.out.report.left_out[NT_LEFT_EVALUATED] + b.out.report.left_out[NT_LEFT_TESTED], 2);
    assert_int_equal(b.out.train.n, 1);
    assert_string_equal(targets(&b, &b.out.train, 0, 0), "another answer");
    assert_int_equal(b.out.eval.n, 1);
    set(&b, "train.loss=dpo");
    run_ok(&b);
    assert_int_equal(b.out.report.left_out[NT_LEFT_TESTED], 5);
    assert_int_equal(b.out.train.n, 2);
    for (int32_t i = 0; i < 2; i++) assert_string_equal(targets(&b, &b.out.train, i, NT_REJECTED), "c1");
    tear_down(&b);
}

/* Of pairs and thumbs likewise: the same answer in another pair, or with another label. */
static void test_held_out_answers(void **state) {
    (void)state;
    struct corpus c = begin_corpus();
    struct bench b;
    add_pair(&c, "q", "good", "bad", 10 * day);
    add_pair(&c, "q", "better", "worse", 10 * day);
    c.user = "bob";
    c.split = NT_SPLIT_VALID;
    add_pair(&c, "q", "best", "good", 10 * day);
    set_up(&b, &c);
    set(&b, "train.loss=dpo");
    run_ok(&b);
    assert_int_equal(b.out.report.left_out[NT_LEFT_EVALUATED], 1);
    assert_int_equal(b.out.train.n, 1);
    assert_string_equal(targets(&b, &b.out.train, 0, NT_CHOSEN), "better");
    tear_down(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hold_out),          cmocka_unit_test(test_split_column),
        cmocka_unit_test(test_held_out_words),    cmocka_unit_test(test_held_out_beginnings),
        cmocka_unit_test(test_tested_beginnings), cmocka_unit_test(test_held_out_answers),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
