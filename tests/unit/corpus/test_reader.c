/* Rows of JSONL input: what is accepted, every refusal with its sentence, ids, forward reading. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fileio.h"
#include "hash.h"
#include "idset.h"
#include "reader.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif

static char dir[64], path[96];
static struct nt_config config;

static int make_dir(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/nt-reader-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    (void)snprintf(path, sizeof path, "%s/in.jsonl", dir);
    nt_config_init(&config);
    return 0;
}

static int remove_dir(void **state) {
    (void)state;
    char cmd[128];
    nt_config_release(&config);
    (void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static void put(const char *text, size_t n) {
    assert_int_equal(nt_publish_bytes(path, text, n, NT_PUBLISH_REPLACE), NT_OK);
}

/* The only row of a file of one line. */
static void read_one(const char *line, struct nt_request *out) {
    struct nt_reader *r = NULL;
    put(line, strlen(line));
    assert_int_equal(nt_reader_open(&r, path, &config), NT_OK);
    assert_int_equal(nt_reader_row(r, 0, out), NT_OK);
    nt_reader_close(r);
}

#define BATCH(body)      "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":" body "}"
#define COMPLETION(body) "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":" body "}"
#define HI               "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define CHAT(more)       BATCH("{" HI "," more "}")

#define ROW(line, error)                                                                                               \
    { line, error }

static const struct {
    const char *line, *error; /* error: the whole sentence, or its beginning when it ends in "..." */
} bad[] = {
    /* broken JSON */
    ROW("{\"prompt\": \"a\"", "line 1: not valid JSON at byte 14: '}' expected near end of file"),
    ROW("not json", "line 1: not valid JSON at byte 3: invalid token near 'not'"),
    ROW("{\"prompt\": \"a\"} x", "line 1: not valid JSON at byte 17: end of file expected near 'x'"),
    ROW("{\"prompt\": \"\xff\"}", "line 1: not valid JSON at byte 12: unable to decode byte 0xff near '\"'"),
    ROW("{\"prompt\": \"\xed\xa0\x80\"}", "line 1: not valid JSON at byte 12: unable to decode byte 0xed near '\"'"),
    ROW("{\"prompt\": \"a\", \"prompt\": \"b\"}",
        "line 1: not valid JSON at byte 24: duplicate object key near '\"prompt\"'"),
    ROW("{\"prompt\": \"a\", \"seed\": 99999999999999999999}",
        "line 1: not valid JSON at byte 44: too big integer near..."),
    ROW("{\"prompt\": \"a\", \"top_p\": 1e999}", "line 1: not valid JSON at byte 30: real number overflow near..."),
    ROW("{\"prompt\": NaN}", "line 1: not valid JSON at byte ..."),
    ROW("[1]", "line 1: is array, expected an object"),
    ROW("\"text\"", "line 1: is string, expected an object"),
    ROW("{}", "line 1: has neither messages nor prompt; expected one of them, or an OpenAI Batch line"),
    /* envelope */
    ROW("{\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\"}}",
        "line 1: custom_id is missing; every line of a batch needs its own"),
    ROW("{\"custom_id\":7,\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\"}}",
        "line 1: custom_id is integer, expected a string of 1 to 1024 bytes without NUL"),
    ROW("{\"custom_id\":\"\",\"prompt\":\"a\"}",
        "line 1: custom_id is too short, too long or holds NUL, expected a string of 1 to 1024 bytes without NUL"),
    ROW("{\"custom_id\":\"a\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\"}}",
        "line 1: method is missing, expected \"POST\""),
    ROW("{\"custom_id\":\"a\",\"method\":\"GET\",\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"a\"}}",
        "line 1: method is \"GET\", expected \"POST\""),
    ROW("{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/embeddings\",\"body\":{\"input\":\"a\"}}",
        "line 1: url is \"/v1/embeddings\", expected \"/v1/chat/completions\" or \"/v1/completions\""),
    ROW("{\"custom_id\":\"a\",\"method\":\"POST\",\"body\":{}}",
        "line 1: url is missing, expected \"/v1/chat/completions\" or \"/v1/completions\""),
    ROW("{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\"}",
        "line 1: body is missing, expected an object"),
    ROW(BATCH("[]"), "line 1: body is array, expected an object"),
    ROW("{\"custom_idd\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{}}",
        "line 1: unknown key \"custom_idd\", maybe: custom_id; a batch line has custom_id, method, url, body"),
    ROW(COMPLETION("{" HI "}"), "line 1: body.messages does not belong to the url /v1/completions; expected prompt"),
    ROW(BATCH("{\"prompt\":\"x\"}"),
        "line 1: body.prompt does not belong to the url /v1/chat/completions; expected messages"),
    ROW("{\"prompt\":\"x\"," HI "}", "line 1: has both messages and prompt, expected one of them"),
    ROW(CHAT("\"custom_id\":\"b\""), "line 1: body.custom_id: belongs beside \"body\", not into it (value of string)"),
    /* messages */
    ROW(BATCH("{}"), "line 1: body.messages is missing, expected a list of messages"),
    ROW(BATCH("{\"messages\":\"hi\"}"), "line 1: body.messages is string, expected a list of messages"),
    ROW(BATCH("{\"messages\":[]}"), "line 1: body.messages is empty, expected at least one message"),
    ROW(BATCH("{\"messages\":[\"hi\"]}"),
        "line 1: body.messages[0] is string, expected an object with role and content"),
    ROW(BATCH("{\"messages\":[{\"content\":\"hi\"}]}"),
        "line 1: body.messages[0].role is missing, expected one of system, developer, user, assistant, tool"),
    ROW(BATCH("{\"messages\":[{\"role\":\"bot\",\"content\":\"hi\"}]}"),
        "line 1: body.messages[0].role is \"bot\", expected one of system, developer, user, assistant, tool"),
    ROW(BATCH("{\"messages\":[{\"role\":\"user\"}]}"),
        "line 1: body.messages[0].content is missing, expected a string or a list of text parts"),
    ROW(BATCH("{\"messages\":[{\"role\":\"user\",\"content\":3}]}"),
        "line 1: body.messages[0].content is integer, expected a string or a list of text parts"),
    ROW(BATCH("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}"),
        "line 1: body.messages[0].content[0] has the type \"image_url\", only \"text\" is supported"),
    ROW(BATCH("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}"),
        "line 1: body.messages[0].content[0].text is missing or no string"),
    ROW(BATCH("{\"messages\":[{\"role\":\"user\",\"contents\":\"hi\"}]}"),
        "line 1: unknown key body.messages[0].\"contents\", maybe: content?"),
    ROW(BATCH("{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{}]}]}"),
        "line 1: body.messages[0].tool_calls is not supported; leave it out"),
    /* prompt */
    ROW(COMPLETION("{}"), "line 1: body.prompt is missing, expected a string or a list of token ids"),
    ROW(COMPLETION("{\"prompt\":\"\"}"), "line 1: body.prompt is empty, expected text or token ids"),
    ROW(COMPLETION("{\"prompt\":[]}"), "line 1: body.prompt is empty, expected text or token ids"),
    ROW(COMPLETION("{\"prompt\":[\"a\",\"b\"]}"),
        "line 1: body.prompt is a list of 2 prompts, expected one prompt per row"),
    ROW(COMPLETION("{\"prompt\":[1,-2]}"), "line 1: body.prompt[1] is -2, expected a token id from 0 to 2147483647"),
    ROW(COMPLETION("{\"prompt\":[1,2147483648]}"),
        "line 1: body.prompt[1] is 2147483648, expected a token id from 0 to 2147483647"),
    ROW("{\"prompt\":true}", "line 1: prompt is boolean, expected a string or a list of token ids"),
    /* parameters */
    ROW(CHAT("\"temprature\":1"), "line 1: unknown key body.\"temprature\", maybe: temperature?"),
    ROW(CHAT("\"zzzzzzzz\":1"),
        "line 1: unknown key body.\"zzzzzzzz\", expected a parameter of the OpenAI API (docs/formats.md)"),
    ROW("{\"prompt\":\"x\",\"max_token\":1}", "line 1: unknown key \"max_token\", maybe: max_tokens?"),
    ROW(CHAT("\"temperature\":-0.5"), "line 1: body.temperature is -0.5, expected a number from 0 to 100"),
    ROW(CHAT("\"temperature\":\"hot\""), "line 1: body.temperature is \"hot\", expected a number from 0 to 100"),
    ROW(CHAT("\"top_p\":1.5"), "line 1: body.top_p is 1.5, expected a number from 0 to 1"),
    ROW(CHAT("\"min_p\":-1"), "line 1: body.min_p is -1, expected a number from 0 to 1"),
    ROW(CHAT("\"top_k\":-2"), "line 1: body.top_k is -2, expected an integer from -1 to 1048576 (0 or -1: all tokens)"),
    ROW(CHAT("\"max_tokens\":0"), "line 1: body.max_tokens is 0, expected an integer from 1 to 1048576"),
    ROW(CHAT("\"max_tokens\":1.5"), "line 1: body.max_tokens is 1.5, expected an integer from 1 to 1048576"),
    ROW(CHAT("\"max_tokens\":4294967297"),
        "line 1: body.max_tokens is 4294967297, expected an integer from 1 to 1048576"),
    ROW(CHAT("\"max_tokens\":5,\"max_completion_tokens\":6"),
        "line 1: body.max_tokens is 5 and body.max_completion_tokens is 6, expected only one of them"),
    ROW(CHAT("\"max_tokens\":5,\"min_tokens\":6"), "line 1: min_tokens is 6, expected at most max_tokens, which is 5"),
    ROW(CHAT("\"n\":0"), "line 1: body.n is 0, expected an integer from 1 to 1024"),
    ROW(CHAT("\"seed\":-1"), "line 1: body.seed is -1, expected an integer from 0 to 9223372036854775807"),
    ROW(CHAT("\"presence_penalty\":2.5"), "line 1: body.presence_penalty is 2.5, expected a number from -2 to 2"),
    ROW(CHAT("\"frequency_penalty\":-3"), "line 1: body.frequency_penalty is -3, expected a number from -2 to 2"),
    ROW(CHAT("\"repetition_penalty\":0"), "line 1: body.repetition_penalty is 0, expected a number from 0.01 to 100"),
    ROW(CHAT("\"stop\":\"\""), "line 1: body.stop is \"\", expected strings of 1 to 1024 bytes without NUL"),
    ROW(CHAT("\"stop\":[1]"), "line 1: body.stop is 1, expected strings of 1 to 1024 bytes without NUL"),
    ROW(CHAT(
            "\"stop\":[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\","
            "\"a\"]"),
        "line 1: body.stop is [\"a\",\"a\",\"a\",\"a\",..."),
    ROW(CHAT("\"stop_token_ids\":[-1]"),
        "line 1: body.stop_token_ids is [-1], expected a list of at most 64 token ids from 0 to 2147483647"),
    ROW(CHAT("\"logit_bias\":{\"x\":1}"),
        "line 1: body.logit_bias: \"x\" is no token id, expected digits of a number from 0 to 2147483647"),
    ROW(CHAT("\"logit_bias\":{\"01\":1}"),
        "line 1: body.logit_bias: \"01\" is no token id, expected digits of a number from 0 to 2147483647"),
    ROW(CHAT("\"logit_bias\":{\"1\":101}"), "line 1: body.logit_bias is {\"1\":101}, expected biases from -100 to 100"),
    ROW(CHAT("\"logit_bias\":[]"),
        "line 1: body.logit_bias is [], expected an object of at most 1024 token ids with a bias from -100 to 100"),
    ROW(CHAT("\"logprobs\":5"),
        "line 1: body.logprobs is 5, expected true or false (the number of alternatives goes into top_logprobs)"),
    ROW(CHAT("\"top_logprobs\":5"), "line 1: body.top_logprobs needs body.logprobs to be true"),
    ROW(CHAT("\"logprobs\":true,\"top_logprobs\":21"),
        "line 1: body.top_logprobs is 21, expected an integer from 0 to 20"),
    ROW(COMPLETION("{\"prompt\":\"x\",\"logprobs\":21}"),
        "line 1: body.logprobs is 21, expected an integer from 0 to 20"),
    ROW(COMPLETION("{\"prompt\":\"x\",\"top_logprobs\":1}"),
        "line 1: body.top_logprobs is a parameter of chat completions, not of completions"),
    ROW(CHAT("\"suffix\":\"x\""), "line 1: body.suffix is a parameter of completions, not of chat completions"),
    ROW(CHAT("\"ignore_eos\":1"), "line 1: body.ignore_eos is 1, expected true or false"),
    ROW(CHAT("\"add_generation_prompt\":\"yes\""),
        "line 1: body.add_generation_prompt is \"yes\", expected true or false"),
    /* not supported */
    ROW(CHAT("\"stream\":true"), "line 1: body.stream is true, which is not supported; leave it out or give false"),
    ROW(CHAT("\"tools\":[{\"type\":\"function\"}]"),
        "line 1: body.tools is [{\"type\":\"function\"}], which is not supported; leave it out or give []"),
    ROW(CHAT("\"response_format\":{\"type\":\"json_object\"}"),
        "line 1: body.response_format is {\"type\":\"json_object\"}, which is not supported; leave it out or give "
        "{\"type\":\"text\"}"),
    ROW(CHAT("\"guided_json\":{\"a\":1}"),
        "line 1: body.guided_json is {\"a\":1}, which is not supported; leave it out"),
    ROW(CHAT("\"continue_final_message\":true"),
        "line 1: body.continue_final_message is true, which is not supported; leave it out or give false"),
};

static void test_malformed(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct nt_request r;
        read_one(bad[i].line, &r);
        if (!r.error) fail_msg("accepted: %s", bad[i].line);
        const size_t n = strlen(bad[i].error);
        if (strcmp(bad[i].error + n - 3, "...") == 0)
            assert_memory_equal(r.error, bad[i].error, n - 3);
        else
            assert_string_equal(r.error, bad[i].error);
        assert_int_equal(r.error_status, 400);
        assert_int_equal(r.line, 1);
        assert_non_null(r.custom_id);
        assert_null(r.messages);
        assert_null(r.prompt);
        nt_request_release(&r);
    }
}

static void test_batch_chat(void **state) {
    (void)state;
    struct nt_request r;
    read_one(BATCH("{\"model\":\"m\",\"messages\":[{\"role\":\"developer\",\"content\":\"be \\u0000 brief\"},"
                   "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":"
                   "\"b\"}],\"name\":\"bob\"}],\"max_completion_tokens\":17,\"temperature\":0,\"top_p\":0.5,\"n\":3,"
                   "\"seed\":9223372036854775807,\"stop\":[\"x\",\"yy\"],\"logprobs\":true,\"top_logprobs\":4,"
                   "\"logit_bias\":{\"7\":-100,\"3\":1.5},\"presence_penalty\":1,\"frequency_penalty\":-1,\"top_k\":-1,"
                   "\"min_p\":0.1,\"repetition_penalty\":1.2,\"min_tokens\":2,\"ignore_eos\":true,\"stop_token_ids\":"
                   "[5,6],\"include_stop_str_in_output\":true,\"add_generation_prompt\":false,\"user\":\"u\","
                   "\"metadata\":{},\"store\":true,\"service_tier\":\"flex\",\"priority\":3,\"stream\":false,"
                   "\"tools\":[],\"response_format\":{\"type\":\"text\"},\"audio\":null}"),
             &r);
    assert_null(r.error);
    assert_true(r.batch);
    assert_int_equal(r.kind, NT_REQUEST_CHAT);
    assert_string_equal(r.custom_id, "a");
    assert_int_equal(r.n_messages, 2);
    assert_string_equal(r.messages[0].role, "system");
    assert_int_equal(r.messages[0].len, 10);
    assert_memory_equal(r.messages[0].content, "be \0 brief", 11);
    assert_string_equal(r.messages[1].content, "a\nb");
    assert_false(r.add_generation_prompt);
    const struct nt_sampling *s = &r.sampling;
    assert_int_equal(s->max_tokens, 17);
    assert_int_equal(s->min_tokens, 2);
    assert_int_equal(s->n, 3);
    assert_int_equal(s->top_k, 0);
    assert_int_equal(s->top_logprobs, 4);
    assert_true(s->temperature == 0 && s->top_p == 0.5f && s->min_p == 0.1f && s->repetition_penalty == 1.2f);
    assert_true(s->presence_penalty == 1 && s->frequency_penalty == -1);
    assert_true(s->seed == INT64_MAX && s->ignore_eos && s->include_stop);
    assert_int_equal(s->n_stop, 2);
    assert_string_equal(s->stop[1], "yy");
    assert_int_equal(s->n_stop_ids, 2);
    assert_int_equal(s->stop_ids[1], 6);
    assert_int_equal(s->n_bias, 2);
    assert_int_equal(s->bias[0].id, 3);
    assert_true(s->bias[0].bias == 1.5f && s->bias[1].bias == -100);
    nt_request_release(&r);
}

static void test_completions(void **state) {
    (void)state;
    struct nt_request r;
    read_one(COMPLETION("{\"prompt\":\"Once\",\"logprobs\":2}"), &r);
    assert_null(r.error);
    assert_int_equal(r.kind, NT_REQUEST_COMPLETION);
    assert_string_equal(r.prompt, "Once");
    assert_int_equal(r.prompt_len, 4);
    assert_int_equal(r.sampling.top_logprobs, 2);
    nt_request_release(&r);
    read_one(COMPLETION("{\"prompt\":[[3,0,2147483647]]}"), &r);
    assert_null(r.error);
    assert_null(r.prompt);
    assert_int_equal(r.n_prompt_ids, 3);
    assert_int_equal(r.prompt_ids[2], INT32_MAX);
    nt_request_release(&r);
    read_one(COMPLETION("{\"prompt\":[\"only\"],\"logprobs\":null,\"best_of\":1,\"length_penalty\":1}"), &r);
    assert_null(r.error);
    assert_string_equal(r.prompt, "only");
    assert_int_equal(r.sampling.top_logprobs, -1);
    nt_request_release(&r);
}

static void test_plain_rows_and_defaults(void **state) {
    (void)state;
    struct nt_request r;
    assert_int_equal(nt_config_set(&config, "sampling.max_tokens=33"), NT_OK);
    assert_int_equal(nt_config_set(&config, "sampling.top_logprobs=1"), NT_OK);
    read_one("{\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"temperature\":0.25}", &r);
    assert_null(r.error);
    assert_false(r.batch);
    assert_string_equal(r.custom_id, "row-0");
    assert_int_equal(r.sampling.max_tokens, 33);
    assert_int_equal(r.sampling.top_logprobs, 1);
    assert_true(r.sampling.temperature == 0.25f && r.add_generation_prompt);
    nt_request_release(&r);
    read_one("{\"prompt\":\"x\",\"custom_id\":\"mine\",\"logprobs\":false}", &r);
    assert_null(r.error);
    assert_string_equal(r.custom_id, "mine");
    assert_int_equal(r.sampling.top_logprobs, -1);
    nt_request_release(&r);
    nt_config_release(&config);
    nt_config_init(&config);
}

/* Equal requests have equal digests however they are written; any difference that matters makes another. */
static void test_digest(void **state) {
    (void)state;
    static const char *const same[] = {
        BATCH("{" HI "}"),
        "{" HI "}",
        "{\"user\":\"u\",\"model\":\"other\"," HI ",\"temperature\":1.0,\"max_tokens\":256,\"seed\":null}",
        "{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"hi\"}],\"role\":\"user\"}],\"temperature\":1}",
    };
    static const char *const other[] = {
        "{\"prompt\":\"hi\"}",
        "{\"prompt\":[1]}",
        "{\"messages\":[{\"role\":\"system\",\"content\":\"hi\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"user\",\"content\":\"\"}]}",
        "{" HI ",\"seed\":1}",
        "{" HI ",\"max_tokens\":255}",
        "{" HI ",\"stop\":\"a\"}",
        "{" HI ",\"stop\":[\"a\",\"b\"]}",
        "{" HI ",\"stop\":[\"ab\"]}",
        "{" HI ",\"stop_token_ids\":[1]}",
        "{" HI ",\"logit_bias\":{\"1\":1}}",
        "{" HI ",\"logit_bias\":{\"1\":2}}",
        "{" HI ",\"logprobs\":true}",
        "{" HI ",\"add_generation_prompt\":false}",
        "{" HI ",\"ignore_eos\":true}",
        "{" HI ",\"temperature\":0.5}",
        "{" HI ",\"n\":2}",
    };
    enum { SAME = sizeof same / sizeof *same, OTHER = sizeof other / sizeof *other };
    uint8_t digest[OTHER + 1][32];
    struct nt_request r;
    for (int i = 0; i < SAME; i++) {
        read_one(same[i], &r);
        assert_null(r.error);
        if (i == 0) memcpy(digest[OTHER], r.digest, 32);
        assert_memory_equal(digest[OTHER], r.digest, 32);
        nt_request_release(&r);
    }
    for (int i = 0; i < OTHER; i++) {
        read_one(other[i], &r);
        assert_null(r.error);
        memcpy(digest[i], r.digest, 32);
        nt_request_release(&r);
    }
    for (int i = 0; i <= OTHER; i++) {
        for (int k = 0; k < i; k++) assert_memory_not_equal(digest[i], digest[k], 32);
    }
}

static void read_row(struct nt_reader *r, int64_t row, struct nt_request *out) {
    assert_int_equal(nt_reader_row(r, row, out), NT_OK);
}

static void test_rows_and_lines(void **state) {
    (void)state;
    const char text[] = "\xef\xbb\xbf\n{\"prompt\":\"a\"}\r\n  \t\nbroken\n{\"prompt\":\"b\"}\n\n{\"prompt\":\"c\"}";
    put(text, sizeof text - 1);
    int64_t n = 0;
    uint8_t digest[32], want[32];
    assert_int_equal(nt_reader_scan(path, &n, digest), NT_OK);
    assert_int_equal(n, 4);
    nt_sha256(text, sizeof text - 1, want);
    assert_memory_equal(digest, want, 32);
    static const struct {
        int64_t row, line;
        const char *prompt;
    } want_rows[] = {
        {0, 2, "a" },
        {1, 4, NULL},
        {2, 5, "b" },
        {3, 7, "c" }
    };
    for (int mask = 1; mask < 16; mask++) { /* any ascending subset gives the same rows */
        struct nt_reader *r = NULL;
        assert_int_equal(nt_reader_open(&r, path, &config), NT_OK);
        for (int i = 0; i < 4; i++) {
            struct nt_request q;
            if (!(mask & 1 << i)) continue;
            read_row(r, want_rows[i].row, &q);
            assert_int_equal(q.row, want_rows[i].row);
            assert_int_equal(q.line, want_rows[i].line);
            if (want_rows[i].prompt) assert_string_equal(q.prompt, want_rows[i].prompt);
            assert_int_equal(q.error == NULL, want_rows[i].prompt != NULL);
            nt_request_release(&q);
        }
        struct nt_request q;
        assert_int_equal(nt_reader_row(r, 4, &q), NT_E_DATA);
        nt_reader_close(r);
    }
    struct nt_reader *r = NULL;
    assert_int_equal(nt_reader_open(&r, "-", &config), NT_E_USAGE);
    assert_int_equal(nt_reader_open(&r, "/nowhere", &config), NT_E_NOINPUT);
}

/* The later line is the bad one, and it is so for a rank that never read the first. */
static void test_duplicate_ids(void **state) {
    (void)state;
    const char text[] = "{\"custom_id\":\"x\",\"prompt\":\"a\"}\n"
                        "{\"prompt\":\"custom_id\",\"custom_id\":\"y\"}\n"
                        "{\"prompt\":[{\"custom_id\":\"z\"}]}\n"
                        "{\"prompt\":\"b\",\"custom_id\":\"\\u0078\"}\n"
                        "{\"custom_id\":\"z\",\"prompt\":\"c\"}\n"
                        "{\"custom_id\":\"broken\",\"prompt\":\n"
                        "{\"custom_id\":\"broken\",\"prompt\":\"d\"}\n";
    static const char *const errors[] = {NULL,
                                         NULL,
                                         "line 3: prompt[0] is",
                                         "line 4: custom_id \"x\" was used in line 1 already",
                                         NULL,
                                         "line 6: not valid JSON",
                                         "line 7: custom_id \"broken\" was used in line 6 already"};
    static const char *const ids[] = {"x", "y", "row-2", "x", "z", "broken", "broken"};
    put(text, sizeof text - 1);
    for (int64_t start = 0; start < 7; start++) {
        struct nt_reader *r = NULL;
        assert_int_equal(nt_reader_open(&r, path, &config), NT_OK);
        for (int64_t row = start; row < 7; row++) {
            struct nt_request q;
            read_row(r, row, &q);
            assert_string_equal(q.custom_id, ids[row]);
            assert_int_equal(q.error != NULL, errors[row] != NULL);
            if (errors[row]) assert_memory_equal(q.error, errors[row], strlen(errors[row]));
            nt_request_release(&q);
        }
        nt_reader_close(r);
    }
}

static void test_find_id(void **state) {
    (void)state;
    static const struct {
        const char *line, *id;
    } cases[] = {
        {"{\"custom_id\":\"a\"}",                                                 "a"   },
        {"  { \"x\" : [1,{\"custom_id\":\"no\"}], \"custom_id\" :\t\"a\\\"b\" }", "a\"b"},
        {"{\"x\":\"\\\\\",\"custom_id\":\"a\"}",                                  "a"   },
        {"{\"custom\\u005fid\":\"a\"}",                                           "a"   },
        {"{\"x\":\"custom_id\",\"y\":\"b\"}",                                     NULL  },
        {"{\"custom_id\":1,\"y\":\"b\"}",                                         NULL  },
        {"{\"custom_id\":{\"a\":\"b\"}}",                                         NULL  },
        {"{\"custom_id\":\"a\\u0000b\"}",                                         NULL  },
        {"{\"custom_id\":\"\"}",                                                  NULL  },
        {"{\"custom_id\":\"a",                                                    NULL  },
        {"[{\"custom_id\":\"a\"}]",                                               NULL  },
        {"\"custom_id\":\"a\"",                                                   NULL  },
        {"",                                                                      NULL  },
        {"{\"a\":{}},\"custom_id\":\"a\"}",                                       NULL  },
    };
    struct nt_strbuf id = NT_STRBUF_INIT;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bool found = nt_find_custom_id(cases[i].line, strlen(cases[i].line), &id);
        assert_int_equal(found, cases[i].id != NULL);
        if (found) assert_string_equal(id.data, cases[i].id);
    }
    nt_strbuf_release(&id);
}

static void test_id_set(void **state) {
    (void)state;
    struct nt_id_set set = {0};
    char id[32];
    int64_t first = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 1; i <= 20000; i++) {
            const int n = snprintf(id, sizeof id, "id-%d", i);
            assert_int_equal(nt_id_set_add(&set, id, (size_t)n, i + 20000 * pass, &first), NT_OK);
            assert_int_equal(first, pass ? i : 0);
        }
    }
    assert_int_equal(set.n, 20000);
    assert_true((size_t)set.cap * sizeof *set.entry <= 20000 * 43);
    assert_int_equal(nt_id_set_add(&set, "x", 1, (int64_t)1 << 32, &first), NT_E_UNSUPPORTED);
    nt_id_set_release(&set);
}

/* 100,000 rows of 1 KB: the process must not grow with the file. */
static void test_bounded_memory(void **state) {
    (void)state;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    char pad[1001];
    memset(pad, 'p', 1000);
    pad[1000] = '\0';
    for (int i = 0; i < 100000; i++) (void)fprintf(f, "{\"custom_id\":\"r%d\",\"prompt\":\"%s\"}\n", i, pad);
    assert_int_equal(fclose(f), 0);
    struct rusage before, after;
    (void)getrusage(RUSAGE_SELF, &before);
    struct nt_reader *r = NULL;
    int64_t n = 0;
    uint8_t digest[32];
    assert_int_equal(nt_reader_scan(path, &n, digest), NT_OK);
    assert_int_equal(n, 100000);
    assert_int_equal(nt_reader_open(&r, path, &config), NT_OK);
    for (int64_t row = 0; row < n; row += row % 10 == 9 ? 1000 - 9 : 1) {
        struct nt_request q;
        read_row(r, row, &q);
        assert_null(q.error);
        nt_request_release(&q);
    }
    nt_reader_close(r);
    (void)getrusage(RUSAGE_SELF, &after);
#if !defined(__SANITIZE_ADDRESS__) && !__has_feature(address_sanitizer) /* which keeps freed memory back */
    assert_true(after.ru_maxrss - before.ru_maxrss < 16 << 10);         /* KiB; the file has 100 MB */
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed),     cmocka_unit_test(test_batch_chat),
        cmocka_unit_test(test_completions),   cmocka_unit_test(test_plain_rows_and_defaults),
        cmocka_unit_test(test_digest),        cmocka_unit_test(test_rows_and_lines),
        cmocka_unit_test(test_duplicate_ids), cmocka_unit_test(test_find_id),
        cmocka_unit_test(test_id_set),        cmocka_unit_test(test_bounded_memory),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
