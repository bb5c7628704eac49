/* Loading tokenizers: directories in their variants, a GGUF file written here, errors, and the real SmolLM2 when it is
 * in the cache (20,000 strings against HF tokenizers). */
#include "../text/tok_check.h"
#include "chat.h"
#include "tokload.h"

#include <sys/stat.h>
#include <unistd.h>

static void write_file(const char *dir, const char *name, const void *bytes, size_t n) {
    char path[1024];
    must(nt_path_join(path, sizeof path, dir, name));
    must(nt_publish_bytes(path, bytes, n, NT_PUBLISH_REPLACE));
}

static void write_text(const char *dir, const char *name, const char *text) {
    write_file(dir, name, text, strlen(text));
}

static int make_dir(void **state) {
    char *dir = strdup("/tmp/nt-tokload-XXXXXX");
    if (!dir || !mkdtemp(dir)) return -1;
    *state = dir;
    return 0;
}

static int remove_dir(void **state) {
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "chat_template.jinja",
                                        "generation_config.json",
                                        "config.json",
                                        "special_tokens_map.json",
                                        "m.gguf"};
    char path[1024];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (nt_path_join(path, sizeof path, *state, names[i]) == NT_OK) (void)unlink(path);
    }
    (void)rmdir(*state);
    free(*state);
    return 0;
}

static void put_family(const char *dir, const char *family) {
    char *json;
    size_t len;
    read_golden(family, "json", &json, &len);
    write_file(dir, "tokenizer.json", json, len);
    free(json);
}

static void expect_stops(const struct nt_tokenizer *t, const int32_t *want, int64_t n) {
    int64_t have;
    const int32_t *stops = nt_tokenizer_stops(t, &have);
    assert_int_equal(have, n);
    for (int64_t i = 0; i < n; i++) assert_int_equal(stops[i], want[i]);
}

static void test_directory(void **state) {
    const char *dir = *state;
    struct nt_tok_bundle b = {0};
    put_family(dir, "qwen2");
    must(nt_tokenizer_load(dir, &b)); /* tokenizer.json alone is enough */
    assert_null(b.chat_template);
    assert_int_equal(nt_tokenizer_eos(b.tok), -1);
    expect_stops(b.tok, NULL, 0);
    int32_t end = nt_tokenizer_find(b.tok, "<|im_end|>", 10), text = nt_tokenizer_find(b.tok, "<|endoftext|>", 13);
    nt_tok_bundle_release(&b);

    write_text(
        dir, "tokenizer_config.json",
        "{\"eos_token\":\"<|im_end|>\",\"pad_token\":{\"content\":\"<|endoftext|>\"},\"bos_token\":null,"
        "\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"T\"},{\"name\":\"default\",\"template\":\"D\"}]}");
    char generation[96];
    (void)snprintf(generation, sizeof generation, "{\"eos_token_id\":[%d,%d,999999]}", end, text);
    write_text(dir, "generation_config.json", generation);
    must(nt_tokenizer_load(dir, &b));
    assert_string_equal(b.chat_template, "D");
    assert_int_equal(nt_tokenizer_eos(b.tok), end);
    assert_int_equal(nt_tokenizer_pad(b.tok), text);
    assert_int_equal(nt_tokenizer_bos(b.tok), -1);
    expect_stops(b.tok, (const int32_t[]){text < end ? text : end, text < end ? end : text}, 2);
    nt_tok_bundle_release(&b);

    write_text(dir, "chat_template.jinja", "newer\n"); /* the file counts, as in transformers */
    must(nt_tokenizer_load(dir, &b));
    assert_string_equal(b.chat_template, "newer\n");
    assert_int_equal(b.chat_template_len, 6);
    nt_tok_bundle_release(&b);
}

static void test_old_directory(void **state) {
    const char *dir = *state;
    struct nt_tok_bundle b = {0};
    put_family(dir, "llama2");
    write_text(dir, "special_tokens_map.json", "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"}}");
    write_text(dir, "config.json", "{\"eos_token_id\":2}");
    must(nt_tokenizer_load(dir, &b));
    assert_int_equal(nt_tokenizer_bos(b.tok), 1);
    assert_int_equal(nt_tokenizer_eos(b.tok), 2);
    expect_stops(b.tok, (const int32_t[]){2}, 1);
    nt_tok_bundle_release(&b);
}

static void expect_error(const char *path, nt_status want, const char *says) {
    struct nt_tok_bundle b = {0};
    nt_status st = nt_tokenizer_load(path, &b);
    if (st != want || !strstr(nt_error_last()->text, says))
        fail_msg("%s: status %d: %s", path, st, nt_error_last()->text);
    assert_null(b.tok);
    assert_null(b.chat_template);
}

static void test_errors(void **state) {
    const char *dir = *state;
    char path[1024];
    expect_error("/nonexistent/model", NT_E_NOINPUT, "/nonexistent/model");
    expect_error(dir, NT_E_NOINPUT, "tokenizer.json: not found");
    write_text(dir, "tokenizer.json", "{\"model\":{\"type\":\"Unigram\"}}");
    must(nt_path_join(path, sizeof path, dir, "tokenizer.json"));
    expect_error(dir, NT_E_UNSUPPORTED, path);
    put_family(dir, "qwen2");
    write_text(dir, "tokenizer_config.json", "{");
    expect_error(dir, NT_E_DATA, "tokenizer_config.json");
    write_text(dir, "tokenizer_config.json", "{}");
    write_text(dir, "generation_config.json", "{\"eos_token_id\":[\"x\"]}");
    expect_error(dir, NT_E_DATA, "eos_token_id");
    write_text(dir, "m.gguf", "GGUF");
    must(nt_path_join(path, sizeof path, dir, "m.gguf"));
    expect_error(path, NT_E_DATA, "m.gguf");
}

/* ---- a GGUF file with nothing but a tokenizer ---- */

static void put_u32(struct nt_strbuf *s, uint32_t v) {
    nt_strbuf_add(s, &v, sizeof v);
}

static void put_u64(struct nt_strbuf *s, uint64_t v) {
    nt_strbuf_add(s, &v, sizeof v);
}

static void put_str(struct nt_strbuf *s, const char *text) {
    put_u64(s, strlen(text));
    nt_strbuf_adds(s, text);
}

static void put_key(struct nt_strbuf *s, const char *key, uint32_t type) {
    put_str(s, key);
    put_u32(s, type);
}

static void put_strings(struct nt_strbuf *s, const char *key, const char *const *list, uint64_t n) {
    put_key(s, key, 9);
    put_u32(s, 8);
    put_u64(s, n);
    for (uint64_t i = 0; i < n; i++) put_str(s, list[i]);
}

static void head(struct nt_strbuf *s, uint64_t n_kv) {
    nt_strbuf_reset(s);
    nt_strbuf_adds(s, "GGUF");
    put_u32(s, 3);
    put_u64(s, 0);
    put_u64(s, n_kv);
}

static void spm_file(struct nt_strbuf *s) {
    static const char *const tokens[] = {"<unk>",
                                         "<s>",
                                         "</s>",
                                         "\xE2\x96\x81",
                                         "a",
                                         "b",
                                         "ab",
                                         ("\xE2\x96\x81"
                                          "ab"),
                                         "<eot>"};
    static const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, 1, 3};
    static const float scores[] = {0, 0, 0, -9, -9, -9, -1, -2, 0};
    head(s, 9);
    put_key(s, "tokenizer.ggml.model", 8);
    put_str(s, "llama");
    put_strings(s, "tokenizer.ggml.tokens", tokens, 9);
    put_key(s, "tokenizer.ggml.token_type", 9);
    put_u32(s, 5);
    put_u64(s, 9);
    nt_strbuf_add(s, types, sizeof types);
    put_key(s, "tokenizer.ggml.scores", 9);
    put_u32(s, 6);
    put_u64(s, 9);
    nt_strbuf_add(s, scores, sizeof scores);
    put_key(s, "tokenizer.ggml.bos_token_id", 4);
    put_u32(s, 1);
    put_key(s, "tokenizer.ggml.eos_token_id", 4);
    put_u32(s, 2);
    put_key(s, "tokenizer.ggml.eot_token_id", 4);
    put_u32(s, 8);
    put_key(s, "tokenizer.ggml.unknown_token_id", 4);
    put_u32(s, 0);
    put_key(s, "tokenizer.chat_template", 8);
    put_str(s, "some template");
}

static void test_gguf(void **state) {
    const char *dir = *state;
    char path[1024];
    struct nt_strbuf file = NT_STRBUF_INIT, text = NT_STRBUF_INIT;
    struct nt_tok_bundle b = {0};
    struct nt_ids ids = {0};
    must(nt_path_join(path, sizeof path, dir, "m.gguf"));
    spm_file(&file);
    write_file(dir, "m.gguf", file.data, file.len);
    must(nt_tokenizer_load(path, &b));
    assert_string_equal(b.chat_template, "some template");
    expect_stops(b.tok, (const int32_t[]){2, 8}, 2);
    must(nt_tokenizer_encode(b.tok, "ab abc</s>", 10, NT_TOK_PARSE_SPECIAL | NT_TOK_ADD_SPECIAL, &ids));
    const int32_t want[] = {1, 7, 7, 0, 2};
    assert_int_equal(ids.len, 5);
    assert_memory_equal(ids.data, want, sizeof want);
    nt_tokenizer_decode(b.tok, ids.data, ids.len, true, &text);
    assert_string_equal(nt_strbuf_cstr(&text), "ab ab");
    nt_tok_bundle_release(&b);

    head(&file, 1);
    put_key(&file, "general.architecture", 8);
    put_str(&file, "llama");
    write_file(dir, "m.gguf", file.data, file.len);
    expect_error(path, NT_E_DATA, "tokenizer.ggml.model is missing");
    head(&file, 2);
    put_key(&file, "tokenizer.ggml.model", 8);
    put_str(&file, "gpt2");
    put_key(&file, "tokenizer.ggml.tokens", 9);
    put_u32(&file, 5);
    put_u64(&file, 1);
    put_u32(&file, 7);
    write_file(dir, "m.gguf", file.data, file.len);
    expect_error(path, NT_E_DATA, "tokenizer.ggml.tokens: expected an array of strings");
    nt_strbuf_release(&file);
    nt_strbuf_release(&text);
    nt_ids_release(&ids);
}

static void test_real_model(void **state) {
    (void)state;
    const char *cache = getenv("NOCTURNE_CACHE"), *home = getenv("HOME");
    char path[1024];
    (void)snprintf(path, sizeof path, "%s%s/SmolLM2-135M-Instruct.Q4_1.gguf",
                   cache  ? cache
                   : home ? home
                          : "",
                   cache ? "" : "/.cache/nocturne");
    if (!nt_file_exists(path)) {
        print_message("skipped: %s is not there (tools/setup.sh model fetches it)\n", path);
        skip();
    }
    struct nt_tok_bundle b = {0};
    struct nt_chat chat;
    char *sha;
    size_t len;
    must(nt_tokenizer_load(path, &b));
    read_golden("real_smollm2", "sha", &sha, &len);
    assert_int_equal(len, 17 * TOK_STRINGS / TOK_BLOCK);
    check_blocks(b.tok, "SmolLM2", sha);
    must(nt_chat_open(&chat, "auto", b.chat_template, b.chat_template_len, b.tok, path));
    assert_string_equal(chat.name, "smollm2");
    int32_t stops[4];
    assert_int_equal(nt_chat_stops(&chat, b.tok, stops, 4), 2);
    assert_int_equal(stops[0], 2); /* <|im_end|> */
    assert_int_equal(stops[1], 0); /* <|endoftext|> */
    nt_tok_bundle_release(&b);
    free(sha);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_directory, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_old_directory, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_errors, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_gguf, make_dir, remove_dir),
        cmocka_unit_test(test_real_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
