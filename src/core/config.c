#include "config.h"
#include "config_rows.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(section, key) .offset = offsetof(struct nt_config, section##_##key)

const struct nt_config_row nt_config_rows[] = {
#define NT_KEY_STR(sec, name, def, text)                                                                               \
    {.section = #sec, .key = #name, .doc = (text), .kind = NT_CONFIG_STR, AT(sec, name), .str = (def)},
#define NT_KEY_INT(sec, name, def, lo, hi, text)                                                                       \
    {.section = #sec,                                                                                                  \
     .key = #name,                                                                                                     \
     .doc = (text),                                                                                                    \
     .kind = NT_CONFIG_INT,                                                                                            \
     AT(sec, name),                                                                                                    \
     .i = (def),                                                                                                       \
     .i_min = (lo),                                                                                                    \
     .i_max = (hi)},
#define NT_KEY_NUM(sec, name, def, lo, hi, text)                                                                       \
    {.section = #sec,                                                                                                  \
     .key = #name,                                                                                                     \
     .doc = (text),                                                                                                    \
     .kind = NT_CONFIG_NUM,                                                                                            \
     AT(sec, name),                                                                                                    \
     .num = (def),                                                                                                     \
     .n_min = (lo),                                                                                                    \
     .n_max = (hi)},
#define NT_KEY_BOOL(sec, name, def, text)                                                                              \
    {.section = #sec, .key = #name, .doc = (text), .kind = NT_CONFIG_BOOL, AT(sec, name), .i = (def)},
#define NT_KEY_ENUM(sec, name, def, choice_list, text)                                                                 \
    {.section = #sec,                                                                                                  \
     .key = #name,                                                                                                     \
     .doc = (text),                                                                                                    \
     .kind = NT_CONFIG_ENUM,                                                                                           \
     AT(sec, name),                                                                                                    \
     .str = (def),                                                                                                     \
     .choices = (choice_list)},
#include "config_keys.def"
#undef NT_KEY_STR
#undef NT_KEY_INT
#undef NT_KEY_NUM
#undef NT_KEY_BOOL
#undef NT_KEY_ENUM
};
const int nt_config_n_rows = (int)(sizeof nt_config_rows / sizeof nt_config_rows[0]);

/* ---- fields and values ---- */

static void *field(struct nt_config *c, const struct nt_config_row *r) {
    return (char *)c + r->offset;
}

static void store_string(struct nt_config *c, const struct nt_config_row *r, const char *text) {
    char *copy = strdup(text);
    if (!copy) nt_bug("out of memory for the setting %s.%s", r->section, r->key);
    char **at = field(c, r);
    free(*at);
    *at = copy;
}

void nt_config_init(struct nt_config *c) {
    memset(c, 0, sizeof *c);
    for (int i = 0; i < nt_config_n_rows; i++) {
        const struct nt_config_row *r = &nt_config_rows[i];
        switch (r->kind) {
        case NT_CONFIG_STR:
        case NT_CONFIG_ENUM:
            store_string(c, r, r->str);
            break;
        case NT_CONFIG_INT:
            *(int64_t *)field(c, r) = r->i;
            break;
        case NT_CONFIG_NUM:
            *(double *)field(c, r) = r->num;
            break;
        case NT_CONFIG_BOOL:
            *(bool *)field(c, r) = r->i != 0;
            break;
        }
    }
}

void nt_config_release(struct nt_config *c) {
    for (int i = 0; i < nt_config_n_rows; i++) {
        const struct nt_config_row *r = &nt_config_rows[i];
        if (r->kind != NT_CONFIG_STR && r->kind != NT_CONFIG_ENUM) continue;
        char **at = field(c, r);
        free(*at);
        *at = NULL;
    }
}

static void add_choices(const char *choices, struct nt_strbuf *out) {
    for (const char *p = choices; *p; p++) {
        if (*p == '|')
            nt_strbuf_adds(out, ", ");
        else
            nt_strbuf_addc(out, *p);
    }
}

void nt_config_describe(const struct nt_config_row *r, struct nt_strbuf *out) {
    switch (r->kind) {
    case NT_CONFIG_STR:
        nt_strbuf_adds(out, "a string");
        break;
    case NT_CONFIG_INT:
        nt_strbuf_addf(out, "an integer from %" PRId64 " to %" PRId64, r->i_min, r->i_max);
        break;
    case NT_CONFIG_NUM:
        nt_strbuf_addf(out, "a number from %.10g to %.10g", r->n_min, r->n_max);
        break;
    case NT_CONFIG_BOOL:
        nt_strbuf_adds(out, "true or false");
        break;
    case NT_CONFIG_ENUM:
        nt_strbuf_adds(out, "one of ");
        add_choices(r->choices, out);
        break;
    }
}

nt_status nt_config_refuse(const struct nt_config_row *r, const char *where, const char *found) {
    struct nt_strbuf expected = NT_STRBUF_INIT;
    nt_config_describe(r, &expected);
    nt_status status = NT_FAIL(NT_E_CONFIG, "%s: %s.%s: expected %s, found %.200s", where, r->section, r->key,
                               nt_strbuf_cstr(&expected), found);
    nt_strbuf_release(&expected);
    return status;
}

nt_status nt_config_put_int(struct nt_config *c, const struct nt_config_row *r, int64_t v, const char *where) {
    char found[32];
    (void)snprintf(found, sizeof found, "%" PRId64, v);
    if (r->kind == NT_CONFIG_NUM) return nt_config_put_num(c, r, (double)v, where);
    if (r->kind != NT_CONFIG_INT || v < r->i_min || v > r->i_max) return nt_config_refuse(r, where, found);
    *(int64_t *)field(c, r) = v;
    return NT_OK;
}

nt_status nt_config_put_num(struct nt_config *c, const struct nt_config_row *r, double v, const char *where) {
    if (r->kind != NT_CONFIG_NUM || !(v >= r->n_min && v <= r->n_max)) {
        struct nt_strbuf found = NT_STRBUF_INIT;
        nt_strbuf_add_json_num(&found, v);
        nt_status status = nt_config_refuse(r, where, nt_strbuf_cstr(&found));
        nt_strbuf_release(&found);
        return status;
    }
    *(double *)field(c, r) = v;
    return NT_OK;
}

nt_status nt_config_put_bool(struct nt_config *c, const struct nt_config_row *r, bool v, const char *where) {
    if (r->kind != NT_CONFIG_BOOL) return nt_config_refuse(r, where, v ? "true" : "false");
    *(bool *)field(c, r) = v;
    return NT_OK;
}

static bool is_choice(const char *choices, const char *v) {
    size_t n = strlen(v);
    for (const char *p = choices;; p++) {
        size_t item = strcspn(p, "|");
        if (item == n && memcmp(p, v, n) == 0) return true;
        p += item;
        if (*p == '\0') return false;
    }
}

nt_status nt_config_put_str(struct nt_config *c, const struct nt_config_row *r, const char *v, const char *where) {
    bool fits = r->kind == NT_CONFIG_STR || (r->kind == NT_CONFIG_ENUM && is_choice(r->choices, v));
    if (!fits) {
        struct nt_strbuf found = NT_STRBUF_INIT;
        nt_strbuf_add_json(&found, v, strlen(v));
        nt_status status = nt_config_refuse(r, where, nt_strbuf_cstr(&found));
        nt_strbuf_release(&found);
        return status;
    }
    store_string(c, r, v);
    return NT_OK;
}

/* ---- names ---- */

const struct nt_config_row *nt_config_find_row(const char *section, const char *key) {
    for (int i = 0; i < nt_config_n_rows; i++) {
        const struct nt_config_row *r = &nt_config_rows[i];
        if (strcmp(r->section, section) == 0 && strcmp(r->key, key) == 0) return r;
    }
    return NULL;
}

bool nt_config_has_section(const char *section) {
    for (int i = 0; i < nt_config_n_rows; i++) {
        if (strcmp(nt_config_rows[i].section, section) == 0) return true;
    }
    return false;
}

enum { WORD_MAX = 64 };

static int min3(int a, int b, int c) {
    int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Letters as compared: case and '-' against '_' do not count. */
static char folded(char c) {
    return c == '-' ? '_' : (char)tolower((unsigned char)c);
}

/* Edit distance with swaps of neighbours (optimal string alignment); WORD_MAX for overlong words. */
static int distance(const char *a, const char *b) {
    int n = (int)strnlen(a, WORD_MAX), m = (int)strnlen(b, WORD_MAX);
    if (n == WORD_MAX || m == WORD_MAX) return WORD_MAX;
    int d[WORD_MAX][WORD_MAX];
    for (int i = 0; i <= n; i++) d[i][0] = i;
    for (int j = 0; j <= m; j++) d[0][j] = j;
    for (int i = 1; i <= n; i++) {
        for (int j = 1; j <= m; j++) {
            char x = folded(a[i - 1]), y = folded(b[j - 1]);
            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (x != y));
            bool swapped = i > 1 && j > 1 && x == folded(b[j - 2]) && folded(a[i - 2]) == y;
            if (swapped && d[i - 2][j - 2] + 1 < d[i][j]) d[i][j] = d[i - 2][j - 2] + 1;
        }
    }
    return d[n][m];
}

const char *nt_nearest(const char *word, const char *const *names, int n) {
    int len = (int)strnlen(word, WORD_MAX);
    int limit = (len + 2) / 3; /* one slip in three letters */
    if (limit >= len) limit = len - 1;
    const char *best = NULL;
    int best_distance = limit + 1;
    for (int i = 0; i < n; i++) {
        int d = distance(word, names[i]);
        if (d >= best_distance) continue;
        best_distance = d;
        best = names[i];
    }
    return best;
}

/* The row meant by an unknown name: same key in another section, then near keys of the section, then near keys of all.
 */
static const struct nt_config_row *guess_row(const char *section, const char *key) {
    const char *names[sizeof nt_config_rows / sizeof nt_config_rows[0]];
    const struct nt_config_row *rows[sizeof nt_config_rows / sizeof nt_config_rows[0]];
    for (int everywhere = 0; everywhere < 2; everywhere++) {
        int n = 0;
        for (int i = 0; i < nt_config_n_rows; i++) {
            const struct nt_config_row *r = &nt_config_rows[i];
            if (strcmp(r->key, key) == 0) return r;
            if (!everywhere && section && strcmp(r->section, section) != 0) continue;
            names[n] = r->key;
            rows[n++] = r;
        }
        const char *best = nt_nearest(key, names, n);
        for (int i = 0; best && i < n; i++) {
            if (names[i] == best) return rows[i];
        }
    }
    return NULL;
}

/* The section meant by an unknown name at top level, or NULL. */
static const char *guess_section(const char *name) {
    const char *names[sizeof nt_config_rows / sizeof nt_config_rows[0]];
    for (int i = 0; i < nt_config_n_rows; i++) names[i] = nt_config_rows[i].section;
    return nt_nearest(name, names, nt_config_n_rows);
}

nt_status nt_config_unknown(const char *where, const char *section, const char *key) {
    const char *near_section = section ? NULL : guess_section(key);
    const struct nt_config_row *r = near_section ? NULL : guess_row(section, key);
    char maybe[160];
    if (near_section)
        (void)snprintf(maybe, sizeof maybe, "maybe: %s?", near_section);
    else if (r)
        (void)snprintf(maybe, sizeof maybe, "maybe: %s.%s?", r->section, r->key);
    else
        (void)snprintf(maybe, sizeof maybe, "`nocturne config` lists all keys");
    return NT_FAIL(NT_E_CONFIG, "%s: unknown key %.100s%s%.100s; %s", where, section ? section : "", section ? "." : "",
                   key, maybe);
}

/* ---- plain text values: --set and flags ---- */

static nt_status put_int_text(struct nt_config *c, const struct nt_config_row *r, const char *value,
                              const char *where) {
    const char *digits = value + (*value == '-');
    bool hex = digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X');
    char *end = NULL;
    errno = 0;
    long long v = strtoll(value, &end, hex ? 16 : 10);
    bool plain = hex ? isxdigit((unsigned char)digits[2]) != 0 : isdigit((unsigned char)*digits) != 0;
    if (!plain || *end != '\0' || errno != 0) {
        char found[80];
        (void)snprintf(found, sizeof found, "\"%.60s\"", value);
        return nt_config_refuse(r, where, found);
    }
    return nt_config_put_int(c, r, v, where);
}

static nt_status put_num_text(struct nt_config *c, const struct nt_config_row *r, const char *value,
                              const char *where) {
    char *end = NULL;
    double v = strtod(value, &end);
    /* strtod also takes nan, inf, hexadecimal and leading blanks */
    if (*value == '\0' || *end != '\0' || !isfinite(v) || strspn(value, "+-.0123456789eE") != strlen(value)) {
        char found[80];
        (void)snprintf(found, sizeof found, "\"%.60s\"", value);
        return nt_config_refuse(r, where, found);
    }
    return nt_config_put_num(c, r, v, where);
}

static nt_status put_text(struct nt_config *c, const struct nt_config_row *r, const char *value, const char *where) {
    switch (r->kind) {
    case NT_CONFIG_INT:
        return put_int_text(c, r, value, where);
    case NT_CONFIG_NUM:
        return put_num_text(c, r, value, where);
    case NT_CONFIG_BOOL:
        if (strcmp(value, "true") == 0) return nt_config_put_bool(c, r, true, where);
        if (strcmp(value, "false") == 0) return nt_config_put_bool(c, r, false, where);
        return nt_config_refuse(r, where, *value ? value : "nothing");
    case NT_CONFIG_STR:
    case NT_CONFIG_ENUM:
        break;
    }
    return nt_config_put_str(c, r, value, where);
}

nt_status nt_config_set_key(struct nt_config *c, const char *key, const char *value, const char *origin) {
    char name[2 * WORD_MAX];
    size_t n = strlen(key);
    if (n >= sizeof name) return NT_FAIL(NT_E_CONFIG, "%s: unknown key %.60s...", origin, key);
    for (size_t i = 0; i <= n; i++) name[i] = key[i] == '-' ? '_' : key[i];
    char *dot = strchr(name, '.');
    if (!dot) return nt_config_unknown(origin, NULL, name);
    *dot = '\0';
    const struct nt_config_row *r = nt_config_find_row(name, dot + 1);
    if (!r) return nt_config_unknown(origin, name, dot + 1);
    return put_text(c, r, value, origin);
}

nt_status nt_config_set(struct nt_config *c, const char *assignment) {
    const char *eq = strchr(assignment, '=');
    char key[2 * WORD_MAX];
    if (!eq || eq == assignment || (size_t)(eq - assignment) >= sizeof key)
        return NT_FAIL(NT_E_CONFIG,
                       "--set %.100s: expected section.key=value, for example --set sampling.max_tokens=64",
                       assignment);
    memcpy(key, assignment, (size_t)(eq - assignment));
    key[eq - assignment] = '\0';
    return nt_config_set_key(c, key, eq + 1, "--set");
}
