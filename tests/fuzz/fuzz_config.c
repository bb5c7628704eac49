/* Any bytes as a settings file, and as one --set assignment. Promises checked: a refusal has a sentence and one of two
 * codes and leaves every number in its range; what was accepted is printed so that it reads back to the same. */
#include "config.h"

#include "fuzz_file.h"

#include <stdlib.h>

static void check_ranges(const struct nt_config *c) {
#define NT_KEY_STR(section, key, def, doc)           FUZZ_CHECK(c->section##_##key != NULL);
#define NT_KEY_INT(section, key, def, min, max, doc) FUZZ_CHECK(c->section##_##key >= min && c->section##_##key <= max);
#define NT_KEY_NUM(section, key, def, min, max, doc) FUZZ_CHECK(c->section##_##key >= min && c->section##_##key <= max);
#define NT_KEY_BOOL(section, key, def, doc)
#define NT_KEY_ENUM(section, key, def, choices, doc) FUZZ_CHECK(strstr(choices, c->section##_##key) != NULL);
#include "config_keys.def"
#undef NT_KEY_STR
#undef NT_KEY_INT
#undef NT_KEY_NUM
#undef NT_KEY_BOOL
#undef NT_KEY_ENUM
}

static void check_refusal(nt_status st) {
    FUZZ_CHECK(st == NT_E_CONFIG || st == NT_E_USAGE);
    FUZZ_CHECK(nt_error_last()->text[0] != '\0');
}

static void check_print(const struct nt_config *c) {
    struct nt_strbuf text = NT_STRBUF_INIT, again = NT_STRBUF_INIT;
    struct nt_config copy;
    nt_config_dump(c, false, &text);
    nt_config_init(&copy);
    FUZZ_CHECK(nt_config_read_text(&copy, nt_strbuf_cstr(&text), "printed") == NT_OK);
    nt_config_dump(&copy, false, &again);
    FUZZ_CHECK(text.len == again.len && memcmp(text.data, again.data, text.len) == 0);
    nt_config_release(&copy);
    nt_strbuf_release(&text);
    nt_strbuf_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    struct nt_config c;
    FUZZ_CHECK(text != NULL);
    memcpy(text, data, size);
    text[size] = 0;

    nt_config_init(&c);
    nt_status st = nt_config_read_text(&c, text, "fuzz.cfg");
    check_ranges(&c);
    if (st == NT_OK)
        check_print(&c);
    else
        check_refusal(st);
    st = nt_config_set(&c, text);
    check_ranges(&c);
    if (st != NT_OK) check_refusal(st);
    nt_config_release(&c);
    free(text);
    return 0;
}
