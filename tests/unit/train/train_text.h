/* Small tokenizers and turns for the tests of rendering and preparation.
 *
 * Tokenizers are those of tests/golden/tok; bos and eos are named as a tokenizer_config.json would. Ownership: the
 * caller frees the tokenizer. Failures end the test with the error's sentence. Include after cmocka.h. */
#ifndef NT_TRAIN_TEXT_H
#define NT_TRAIN_TEXT_H

#include "fileio.h"
#include "json.h"
#include "render.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void must(nt_status st) {
    if (st != NT_OK) fail_msg("%s", nt_error_last()->text);
}

static inline struct nt_tokenizer *open_tokenizer(const char *name, const char *bos, const char *eos) {
    char path[512], config[256], *text;
    size_t len;
    struct nt_tokenizer *t;
    (void)snprintf(path, sizeof path, "%s/golden/tok/%s.json", NT_TEST_DIR, name);
    int n = snprintf(config, sizeof config, "{\"eos_token\": \"%s\"", eos);
    n += snprintf(config + n, sizeof config - (size_t)n, *bos ? ", \"bos_token\": \"%s\"}" : "}", bos);
    must(nt_file_read(path, 1 << 22, &text, &len));
    must(nt_tokenizer_from_json(text, len, path, config, (size_t)n, &t));
    free(text);
    return t;
}

static inline struct nt_turn turn(const char *role, const char *text) {
    return (struct nt_turn){role, text, strlen(text), strcmp(role, "assistant") == 0 ? 1 : 0};
}

#endif
