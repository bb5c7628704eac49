/* Settings: rows of config_keys.def generate struct, parser, --help, configs/reference.cfg and the run manifest.
 *
 * Precedence: defaults < file < --set a.b=c and flags. Every error names file:line (or the flag), the key, what was
 * expected, and for an unknown key the nearest known one ("maybe: generate.max_tokens?"). Numbers are range checked
 * from their source text, because libconfig 1.5 wraps integers silently.
 * Ownership: strings belong to the config; nt_config_release frees them. */
#ifndef NT_CONFIG_H
#define NT_CONFIG_H

#include "status.h"
#include "strbuf.h"
#include <stdbool.h>
#include <stdint.h>

/* Row kinds of config_keys.def:
 *   NT_KEY_STR(section, key, default, doc)
 *   NT_KEY_INT(section, key, default, min, max, doc)      int64
 *   NT_KEY_NUM(section, key, default, min, max, doc)      double
 *   NT_KEY_BOOL(section, key, default, doc)
 *   NT_KEY_ENUM(section, key, default, "a|b|c", doc)      string limited to the choices
 * field name in the struct: section_key. */
struct nt_config {
#define NT_KEY_STR(section, key, def, doc)           char *section##_##key;
#define NT_KEY_INT(section, key, def, min, max, doc) int64_t section##_##key;
#define NT_KEY_NUM(section, key, def, min, max, doc) double section##_##key;
#define NT_KEY_BOOL(section, key, def, doc)          bool section##_##key;
#define NT_KEY_ENUM(section, key, def, choices, doc) char *section##_##key;
#include "config_keys.def"
#undef NT_KEY_STR
#undef NT_KEY_INT
#undef NT_KEY_NUM
#undef NT_KEY_BOOL
#undef NT_KEY_ENUM
};

void nt_config_init(struct nt_config *c); /* defaults */
void nt_config_release(struct nt_config *c);
NT_MUST nt_status nt_config_read_file(struct nt_config *c, const char *path);
NT_MUST nt_status nt_config_read_text(struct nt_config *c, const char *text, const char *origin);
/* "section.key=value" as after --set; value in plain text, no quotes needed. */
NT_MUST nt_status nt_config_set(struct nt_config *c, const char *assignment);
/* key "section.key", value text; origin is what errors call it ("--tp"). */
NT_MUST nt_status nt_config_set_key(struct nt_config *c, const char *key, const char *value, const char *origin);
void nt_config_dump(const struct nt_config *c, bool with_docs,
                    struct nt_strbuf *out);                                 /* libconfig syntax; re-reads to the same */
void nt_config_dump_json(const struct nt_config *c, struct nt_strbuf *out); /* {"section.key": value, ...} */
/* The help table of one section (NULL: all). */
void nt_config_help(const char *section, struct nt_strbuf *out);
/* Nearest of the names to a wrong word, or NULL when none is near. */
const char *nt_nearest(const char *word, const char *const *names, int n);

#endif
