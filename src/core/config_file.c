#include "config.h"
#include "config_rows.h"

#include "fileio.h"
#include <ctype.h>
#include <errno.h>
#include <libconfig.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libconfig 1.5 reads integers beyond 32 bits modulo 2^32, and beyond 64 bits as the nearest limit, without a word. So
 * the text is scanned first: every integer gets the suffix L (64 bits), and a number that does not fit is an error with
 * its line. The scan also sees what libconfig reports badly or not at all: open strings and comments, @include. */

/* libconfig 1.5 loses the string it is reading when it meets a syntax error: 64 bytes, once, before the program ends.
 */
#if defined(__SANITIZE_ADDRESS__)
#define LEAKY_LIBRARY 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LEAKY_LIBRARY 1
#endif
#endif
#ifdef LEAKY_LIBRARY
#include <sanitizer/lsan_interface.h>
#else
#define __lsan_disable() ((void)0)
#define __lsan_enable()  ((void)0)
#endif

enum { CONFIG_MAX_BYTES = 1 << 20, SHOWN_LINE = 80 };

struct scan {
    const char *origin;
    const char *at, *end;
    int line;
    struct nt_strbuf *out; /* the text libconfig gets */
};

static nt_status skip_string(struct scan *s) {
    int opened = s->line;
    nt_strbuf_addc(s->out, *s->at++);
    while (s->at < s->end && *s->at != '"') {
        if (*s->at == '\n') s->line++;
        if (*s->at == '\\' && s->at + 1 < s->end) nt_strbuf_addc(s->out, *s->at++);
        nt_strbuf_addc(s->out, *s->at++);
    }
    if (s->at >= s->end)
        return NT_FAIL(NT_E_CONFIG, "%s:%d: this string is never closed; expected a '\"' at its end", s->origin,
                       opened);
    nt_strbuf_addc(s->out, *s->at++);
    return NT_OK;
}

/* Comments are dropped, their line ends kept: libconfig needs a line end after // and takes an open one silently. */
static nt_status skip_comment(struct scan *s, bool block) {
    int opened = s->line;
    if (block) s->at += 2;
    while (s->at < s->end) {
        if (!block && *s->at == '\n') return NT_OK;
        if (block && s->end - s->at >= 2 && s->at[0] == '*' && s->at[1] == '/') {
            s->at += 2;
            nt_strbuf_addc(s->out, ' ');
            return NT_OK;
        }
        if (*s->at == '\n') {
            s->line++;
            nt_strbuf_addc(s->out, '\n');
        }
        s->at++;
    }
    if (!block) return NT_OK;
    return NT_FAIL(NT_E_CONFIG, "%s:%d: this comment is never closed; expected a \"*/\" at its end", s->origin, opened);
}

static bool number_char(const char *start, const char *p, bool hex) {
    if (isalnum((unsigned char)*p) || *p == '.' || *p == '_') return true;
    return (*p == '-' || *p == '+') && !hex && (p == start || p[-1] == 'e' || p[-1] == 'E');
}

/* One token that begins like a number: checked as a whole, so that 12abc and 0b1 are named, not half read. */
static nt_status scan_number(struct scan *s) {
    const char *start = s->at;
    const char *digits = start + (*start == '-' || *start == '+');
    bool hex = s->end - digits > 2 && digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X');
    while (s->at < s->end && number_char(start, s->at, hex)) s->at++;
    size_t n = (size_t)(s->at - start);
    char token[64];
    if (n >= sizeof token)
        return NT_FAIL(NT_E_CONFIG, "%s:%d: number of %zu characters, at most %zu are read", s->origin, s->line, n,
                       sizeof token - 1);
    memcpy(token, start, n);
    token[n] = '\0';
    if (*start == '+')
        return NT_FAIL(NT_E_CONFIG, "%s:%d: %s: write the number without '+'", s->origin, s->line, token);

    char *end = NULL;
    errno = 0;
    if (!hex && strpbrk(token, ".eE")) {
        double v = strtod(token, &end);
        if (*end != '\0') return NT_FAIL(NT_E_CONFIG, "%s:%d: %s is not a number", s->origin, s->line, token);
        if (!isfinite(v))
            return NT_FAIL(NT_E_CONFIG, "%s:%d: %s does not fit a 64-bit floating point number", s->origin, s->line,
                           token);
        nt_strbuf_adds(s->out, token);
        return NT_OK;
    }
    (void)strtoll(token, &end, hex ? 16 : 10);
    bool range = errno == ERANGE;
    bool suffix = strcmp(end, "L") == 0 || strcmp(end, "LL") == 0; /* our own L follows */
    if (end == token || (*end != '\0' && !suffix))
        return NT_FAIL(NT_E_CONFIG, "%s:%d: %s is not a number", s->origin, s->line, token);
    *end = '\0';
    if (range)
        return NT_FAIL(NT_E_CONFIG, "%s:%d: %s does not fit a 64-bit integer (at most %lld)", s->origin, s->line, token,
                       (long long)INT64_MAX);
    nt_strbuf_addf(s->out, "%sL", token);
    return NT_OK;
}

static nt_status scan_word(struct scan *s) {
    while (s->at < s->end && (isalnum((unsigned char)*s->at) || *s->at == '_' || *s->at == '-' || *s->at == '*'))
        nt_strbuf_addc(s->out, *s->at++);
    return NT_OK;
}

static nt_status scan_one(struct scan *s) {
    char c = *s->at;
    char next = s->end - s->at >= 2 ? s->at[1] : '\0';
    if (c == '"') return skip_string(s);
    if (c == '#' || (c == '/' && next == '/')) return skip_comment(s, false);
    if (c == '/' && next == '*') return skip_comment(s, true);
    if (c == '@')
        return NT_FAIL(NT_E_CONFIG, "%s:%d: @include is not supported; put all settings into one file or use --set",
                       s->origin, s->line);
    if (c == '\0') return NT_FAIL(NT_E_CONFIG, "%s:%d: a NUL byte; expected a text file", s->origin, s->line);
    if (isdigit((unsigned char)c) ||
        ((c == '-' || c == '+' || c == '.') && (isdigit((unsigned char)next) || next == '.')))
        return scan_number(s);
    if (isalpha((unsigned char)c) || c == '*') return scan_word(s);
    if (c == '\n') s->line++;
    nt_strbuf_addc(s->out, c);
    s->at++;
    return NT_OK;
}

/* Line `line` of text without blanks at its ends, for error sentences. */
static void show_line(const char *text, size_t len, int line, char *out, size_t cap) {
    const char *p = text, *end = text + len;
    for (int i = 1; i < line && p < end; i++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        p = nl ? nl + 1 : end;
    }
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    size_t n = 0;
    for (; p < end && *p != '\n' && n + 1 < cap; p++) {
        char shown = *p;
        if (!isprint((unsigned char)shown)) shown = '?';
        out[n++] = shown;
    }
    while (n > 0 && out[n - 1] == ' ') n--;
    out[n] = '\0';
}

static nt_status put_setting(struct nt_config *c, const config_setting_t *v, const char *section, const char *where) {
    const char *key = config_setting_name(v);
    const struct nt_config_row *r = nt_config_find_row(section, key);
    if (!r) return nt_config_unknown(where, section, key);
    switch (config_setting_type(v)) {
    case CONFIG_TYPE_INT:
        return nt_config_put_int(c, r, config_setting_get_int(v), where);
    case CONFIG_TYPE_INT64:
        return nt_config_put_int(c, r, config_setting_get_int64(v), where);
    case CONFIG_TYPE_FLOAT:
        return nt_config_put_num(c, r, config_setting_get_float(v), where);
    case CONFIG_TYPE_BOOL:
        return nt_config_put_bool(c, r, config_setting_get_bool(v) != 0, where);
    case CONFIG_TYPE_STRING:
        return nt_config_put_str(c, r, config_setting_get_string(v), where);
    case CONFIG_TYPE_ARRAY:
        return nt_config_refuse(r, where, "an array");
    case CONFIG_TYPE_LIST:
        return nt_config_refuse(r, where, "a list");
    default:
        return nt_config_refuse(r, where, "a group");
    }
}

static nt_status put_section(struct nt_config *c, const config_setting_t *group, const char *origin) {
    const char *section = config_setting_name(group);
    char where[512];
    (void)snprintf(where, sizeof where, "%.480s:%u", origin, config_setting_source_line(group));
    if (!nt_config_has_section(section)) return nt_config_unknown(where, NULL, section);
    if (!config_setting_is_group(group))
        return NT_FAIL(NT_E_CONFIG, "%s: %s is a section; expected %s: { key = value; };", where, section, section);
    for (unsigned i = 0; i < (unsigned)config_setting_length(group); i++) {
        const config_setting_t *v = config_setting_get_elem(group, i);
        (void)snprintf(where, sizeof where, "%.480s:%u", origin, config_setting_source_line(v));
        NT_TRY(put_setting(c, v, section, where));
    }
    return NT_OK;
}

static nt_status put_all(struct nt_config *c, config_t *file, const char *text, size_t len, const char *prepared,
                         const char *origin) {
    __lsan_disable();
    int read = config_read_string(file, prepared);
    __lsan_enable();
    if (read != CONFIG_TRUE) {
        char shown[SHOWN_LINE];
        int line = config_error_line(file);
        show_line(text, len, line, shown, sizeof shown);
        const char *cause = config_error_text(file);
        if (cause && strcmp(cause, "duplicate setting name") == 0)
            return NT_FAIL(NT_E_CONFIG, "%s:%d: this key is set for the second time: %s", origin, line, shown);
        return NT_FAIL(NT_E_CONFIG, "%s:%d: %s at or before: %s (expected section: { key = value; };)", origin, line,
                       cause ? cause : "syntax error", *shown ? shown : "the end of the text");
    }
    const config_setting_t *root = config_root_setting(file);
    for (unsigned i = 0; i < (unsigned)config_setting_length(root); i++)
        NT_TRY(put_section(c, config_setting_get_elem(root, i), origin));
    return NT_OK;
}

static nt_status read_bytes(struct nt_config *c, const char *text, size_t len, const char *origin) {
    struct nt_strbuf prepared = NT_STRBUF_INIT;
    config_t file;
    config_init(&file);
    struct scan s = {.origin = origin, .at = text, .end = text + len, .line = 1, .out = &prepared};
    nt_status status = NT_OK;
    while (status == NT_OK && s.at < s.end) status = scan_one(&s);
    if (status == NT_OK) {
        nt_strbuf_addc(&prepared, '\n');
        status = put_all(c, &file, text, len, nt_strbuf_cstr(&prepared), origin);
    }
    config_destroy(&file);
    nt_strbuf_release(&prepared);
    return status == NT_OK ? NT_OK : nt_trail_at(status, __FILE__, __LINE__);
}

nt_status nt_config_read_text(struct nt_config *c, const char *text, const char *origin) {
    return read_bytes(c, text, strlen(text), origin);
}

nt_status nt_config_read_file(struct nt_config *c, const char *path) {
    char *text = NULL;
    size_t len = 0;
    NT_TRY(nt_file_read(path, CONFIG_MAX_BYTES, &text, &len));
    nt_status status = read_bytes(c, text, len, path);
    free(text);
    return status == NT_OK ? NT_OK : nt_trail_at(status, __FILE__, __LINE__);
}
