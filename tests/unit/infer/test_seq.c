/* When a sequence ends and what it has said: stop strings across tokens, stop ids, lengths, log-probabilities. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "seq.h"

#include <stdlib.h>
#include <string.h>

enum { EOS = 6, OWN_STOP = 5 };
static const int32_t stops[] = {EOS};

/* A byte-level vocabulary of a few pieces; "\xc3" and "\xa9" are the halves of U+00E9 in their byte-level spelling. */
static struct nt_tokenizer *tokenizer(void) {
    static const struct nt_tok_str tokens[] = {
        {"ab",       2},
        {"c",        1},
        {"de",       2},
        {"\xc3\x83", 2},
        {"\xc2\xa9", 2},
        {"<own>",    5},
        {"<end>",    5},
        {"a",        1},
        {"b",        1},
        {"d",        1},
        {"e",        1}
    };
    static const int32_t types[] = {1, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1};
    static const struct nt_tok_str merges[] = {
        {"a b", 3},
        {"d e", 3}
    };
    struct nt_tok_parts p = NT_TOK_PARTS_INIT;
    struct nt_tokenizer *t = NULL;
    p.origin = "test";
    p.model = "gpt2";
    p.pre = "gpt-2";
    p.tokens = tokens;
    p.types = types;
    p.merges = merges;
    p.n_merges = 2;
    p.n_tokens = p.n_types = 11;
    p.eos = EOS;
    if (nt_tokenizer_from_parts(&p, &t) != NT_OK) fail_msg("%s", nt_error_last()->text);
    return t;
}

static struct nt_sampling defaults(void) {
    return (struct nt_sampling){
        .max_tokens = 10, .temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_logprobs = -1, .n = 1};
}

/* Feeds tokens until the sequence ends or they run out; the caller releases s. */
static void feed(struct nt_seq *s, const struct nt_sampling *p, const struct nt_tokenizer *t, const int32_t *tokens,
                 int n) {
    struct nt_ids prompt = {0};
    nt_ids_push(&prompt, 0);
    nt_seq_init(s, p, 0, 1, &prompt, 1 + p->max_tokens);
    for (int i = 0; i < n && !s->done; i++) {
        struct nt_sample_in in;
        nt_seq_sample_in(s, -1, stops, 1, &in);
        struct nt_sample_out out = {
            .token = tokens[i], .logprob = -0.5f * (float)(i + 1), .n_top = p->top_logprobs > 0 ? 1 : 0};
        out.top_id[0] = tokens[i];
        out.top_lp[0] = out.logprob;
        nt_seq_accept(s, t, stops, 1, &out);
    }
    nt_ids_release(&prompt);
}

#define FEED(s, p, t, ...)                                                                                             \
    feed((s), (p), (t), (const int32_t[]){__VA_ARGS__}, (int)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)))

static void ends_where_it_should(void **state) {
    static const struct {
        const char *what, *stop;
        int32_t max_tokens, min_tokens, n_own;
        bool ignore_eos, include;
        int32_t tokens[6];
        int n;
        const char *text;
        int32_t n_answer;
        bool done;
        enum nt_finish finish;
    } rows[] = {
        {"eos ends and is not said",               NULL,  10, 0, 0, false, false, {0, 1, EOS},   3, "abc",            2, true,  NT_FINISH_STOP  },
        {"first token a stop",                     NULL,  10, 0, 0, false, false, {EOS},         1, "",               0, true,  NT_FINISH_STOP  },
        {"ignore_eos keeps it",                    NULL,  3,  0, 0, true,  false, {0, EOS, 1},   3, "abc",            3, true,  NT_FINISH_LENGTH},
        {"own stop id",                            NULL,  10, 0, 1, false, false, {0, OWN_STOP}, 2, "ab",             1, true,  NT_FINISH_STOP  },
        {"own stop id despite ignore_eos",
         NULL,                                            10,
         0,                                                      1,
         true,                                                             false,
         {0, OWN_STOP},
         2,                                                                                         "ab",
         1,                                                                                                              true,
         NT_FINISH_STOP                                                                                                                         },
        {"max_tokens",                             NULL,  2,  0, 0, false, false, {0, 1, 2},     3, "abc",            2, true,  NT_FINISH_LENGTH},
        {"goes on",                                NULL,  10, 0, 0, false, false, {0, 1},        2, "abc",            2, false, NT_FINISH_STOP  },
        {"stop string in a token",                 "d",   10, 0, 0, false, false, {0, 1, 2},     3, "abc",            3, true,  NT_FINISH_STOP  },
        {"stop string across tokens",              "bcd", 10, 0, 0, false, false, {0, 1, 2},     3, "a",              3, true,  NT_FINISH_STOP  },
        {"include_stop keeps it",                  "bcd", 10, 0, 0, false, true,  {0, 1, 2},     3, "abcd",           3, true,  NT_FINISH_STOP  },
        {"stop string of two bytes across tokens",
         "\xc3\xa9",                                      10,
         0,                                                      0,
         false,                                                            false,
         {0, 3, 4, 1},
         4,                                                                                         "ab",
         3,                                                                                                              true,
         NT_FINISH_STOP                                                                                                                         },
        {"half a character is held back",          NULL,  10, 0, 0, false, false, {0, 3},        2, "ab",             2, false, NT_FINISH_STOP  },
        {"and comes out whole",                    NULL,  10, 0, 0, false, false, {0, 3, 4},     3, "ab\xc3\xa9",     3, false, NT_FINISH_STOP  },
        {"a cut character at the end",
         NULL,                                            2,
         0,                                                      0,
         false,                                                            false,
         {0, 3},
         2,                                                                                         "ab\xef\xbf\xbd",
         2,                                                                                                              true,
         NT_FINISH_LENGTH                                                                                                                       },
        {"min_tokens holds stop strings",          "c",   10, 3, 0, false, false, {0, 1, 2},     3, "abcde",          3, false, NT_FINISH_STOP  },
    };
    struct nt_tokenizer *t = tokenizer();
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct nt_sampling p = defaults();
        struct nt_seq s;
        char stop[8];
        p.max_tokens = rows[i].max_tokens;
        p.min_tokens = rows[i].min_tokens;
        p.ignore_eos = rows[i].ignore_eos;
        p.include_stop = rows[i].include;
        p.n_stop_ids = rows[i].n_own;
        p.stop_ids[0] = OWN_STOP;
        if (rows[i].stop) {
            memcpy(stop, rows[i].stop, strlen(rows[i].stop) + 1);
            p.stop[0] = stop;
            p.n_stop = 1;
        }
        feed(&s, &p, t, rows[i].tokens, rows[i].n);
        if (strcmp(nt_strbuf_cstr(&s.text), rows[i].text) != 0 || nt_seq_n_answer(&s) != rows[i].n_answer ||
            s.done != rows[i].done || (s.done && s.finish != rows[i].finish))
            fail_msg("%s: text \"%s\", %d tokens, done %d, finish %d", rows[i].what, nt_strbuf_cstr(&s.text),
                     nt_seq_n_answer(&s), s.done, s.finish);
        nt_seq_release(&s);
    }
    nt_tokenizer_free(t);
}

static void min_tokens_masks_all_stops(void **state) {
    struct nt_tokenizer *t = tokenizer();
    struct nt_sampling p = defaults();
    struct nt_sample_in in;
    struct nt_seq s;
    (void)state;
    p.min_tokens = 2;
    p.n_stop_ids = 1;
    p.stop_ids[0] = OWN_STOP;
    FEED(&s, &p, t, 0);
    nt_seq_sample_in(&s, -1, stops, 1, &in);
    assert_int_equal(in.n_masked, 2);
    assert_int_equal(in.masked[0], EOS);
    assert_int_equal(in.masked[1], OWN_STOP);
    nt_seq_release(&s);
    FEED(&s, &p, t, 0, 1);
    nt_seq_sample_in(&s, -1, stops, 1, &in);
    assert_int_equal(in.n_masked, 0);
    nt_seq_release(&s);
    nt_tokenizer_free(t);
}

static void choices_carry_what_was_asked(void **state) {
    struct nt_tokenizer *t = tokenizer();
    struct nt_sampling p = defaults();
    struct nt_result r = {.n_choice = 1, .choice = calloc(1, sizeof *r.choice)};
    struct nt_seq s;
    (void)state;
    assert_non_null(r.choice);
    p.top_logprobs = 1;
    FEED(&s, &p, t, 0, 1, EOS);
    nt_seq_take_choice(&s, r.choice);
    nt_seq_release(&s);
    const struct nt_choice *c = r.choice;
    assert_int_equal(c->n_tok, 2);
    assert_int_equal(c->n_top, 1);
    assert_int_equal(c->tok[1], 1);
    assert_true(c->logprob[0] == -0.5f && c->logprob[1] == -1.0f);
    assert_true(c->top_id[1] == 1 && c->top_lp[1] == -1.0f);
    assert_string_equal(c->text, "abc");
    nt_result_release(&r);
    nt_tokenizer_free(t);
}

static void a_failed_sample_ends_the_sequence(void **state) {
    struct nt_tokenizer *t = tokenizer();
    struct nt_sampling p = defaults();
    struct nt_seq s;
    (void)state;
    FEED(&s, &p, t, 0);
    nt_seq_accept(&s, t, stops, 1, &(struct nt_sample_out){.token = 1, .failed = true});
    assert_true(s.done);
    assert_int_equal(s.finish, NT_FINISH_ERROR);
    assert_int_equal(nt_seq_n_answer(&s), 1);
    nt_seq_release(&s);
    nt_tokenizer_free(t);
}

/* The prompt's token and two of the answer, of which one is said twice. */
static void penalties_see_what_they_need(void **state) {
    static const struct {
        float repetition, presence, frequency;
        int32_t n_seen;
    } rows[] = {
        {1,    0,    0,    0},
        {1,    0.5f, 0,    2},
        {1,    0,    -1,   2},
        {1.2f, 0,    0,    3},
        {0.8f, 1,    0.5f, 3},
    };
    struct nt_tokenizer *t = tokenizer();
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct nt_sampling p = defaults();
        struct nt_seq s;
        p.repetition_penalty = rows[i].repetition;
        p.presence_penalty = rows[i].presence;
        p.frequency_penalty = rows[i].frequency;
        FEED(&s, &p, t, 1, 2, 1);
        assert_int_equal(s.use_penalty, rows[i].n_seen > 0);
        assert_int_equal(s.penalty.len, rows[i].n_seen);
        nt_seq_release(&s);
    }
    nt_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_where_it_should),         cmocka_unit_test(min_tokens_masks_all_stops),
        cmocka_unit_test(choices_carry_what_was_asked), cmocka_unit_test(a_failed_sample_ends_the_sequence),
        cmocka_unit_test(penalties_see_what_they_need),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
