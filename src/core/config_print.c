#include "config.h"
#include "config_rows.h"

#include <inttypes.h>
#include <string.h>

static const void *field(const struct nt_config *c, const struct nt_config_row *r) {
    return (const char *)c + r->offset;
}

static const char *string_of(const struct nt_config *c, const struct nt_config_row *r) {
    const char *const *at = field(c, r);
    return *at ? *at : "";
}

/* A string as libconfig reads it back. */
static void add_quoted(struct nt_strbuf *out, const char *text) {
    nt_strbuf_addc(out, '"');
    for (const char *p = text; *p; p++) {
        switch (*p) {
        case '"':
            nt_strbuf_adds(out, "\\\"");
            break;
        case '\\':
            nt_strbuf_adds(out, "\\\\");
            break;
        case '\n':
            nt_strbuf_adds(out, "\\n");
            break;
        case '\r':
            nt_strbuf_adds(out, "\\r");
            break;
        case '\t':
            nt_strbuf_adds(out, "\\t");
            break;
        case '\f':
            nt_strbuf_adds(out, "\\f");
            break;
        default:
            if ((unsigned char)*p < 0x20 || *p == 0x7F)
                nt_strbuf_addf(out, "\\x%02X", (unsigned)*p);
            else
                nt_strbuf_addc(out, *p);
        }
    }
    nt_strbuf_addc(out, '"');
}

static void add_value(const struct nt_config *c, const struct nt_config_row *r, bool json, struct nt_strbuf *out) {
    switch (r->kind) {
    case NT_CONFIG_STR:
    case NT_CONFIG_ENUM: {
        const char *s = string_of(c, r);
        if (json)
            nt_strbuf_add_json(out, s, strlen(s));
        else
            add_quoted(out, s);
        break;
    }
    case NT_CONFIG_INT: {
        int64_t v = *(const int64_t *)field(c, r);
        /* other readers of libconfig files need the L */
        bool wide = v < INT32_MIN || v > INT32_MAX;
        nt_strbuf_addf(out, "%" PRId64 "%s", v, wide && !json ? "L" : "");
        break;
    }
    case NT_CONFIG_NUM:
        nt_strbuf_add_json_num(out, *(const double *)field(c, r));
        break;
    case NT_CONFIG_BOOL:
        nt_strbuf_adds(out, *(const bool *)field(c, r) ? "true" : "false");
        break;
    }
}

/* Rows of a section may stand apart in config_keys.def: a section is printed where its first row stands. */
static bool first_of_section(int i) {
    for (int j = 0; j < i; j++) {
        if (strcmp(nt_config_rows[i].section, nt_config_rows[j].section) == 0) return false;
    }
    return true;
}

static void dump_row(const struct nt_config *c, const struct nt_config_row *r, bool with_docs, struct nt_strbuf *out) {
    if (with_docs) {
        nt_strbuf_addf(out, "    // %s\n    // ", r->doc);
        nt_config_describe(r, out);
        nt_strbuf_addc(out, '\n');
    }
    nt_strbuf_addf(out, "    %s = ", r->key);
    add_value(c, r, false, out);
    nt_strbuf_adds(out, ";\n");
}

void nt_config_dump(const struct nt_config *c, bool with_docs, struct nt_strbuf *out) {
    for (int i = 0; i < nt_config_n_rows; i++) {
        if (!first_of_section(i)) continue;
        const char *section = nt_config_rows[i].section;
        nt_strbuf_addf(out, "%s%s: {\n", i > 0 ? "\n" : "", section);
        for (int j = i; j < nt_config_n_rows; j++) {
            if (strcmp(nt_config_rows[j].section, section) != 0) continue;
            if (with_docs && j > i) nt_strbuf_addc(out, '\n');
            dump_row(c, &nt_config_rows[j], with_docs, out);
        }
        nt_strbuf_adds(out, "};\n");
    }
}

void nt_config_dump_json(const struct nt_config *c, struct nt_strbuf *out) {
    nt_strbuf_addc(out, '{');
    for (int i = 0; i < nt_config_n_rows; i++) {
        const struct nt_config_row *r = &nt_config_rows[i];
        nt_strbuf_addf(out, "%s\"%s.%s\": ", i > 0 ? ", " : "", r->section, r->key);
        add_value(c, r, true, out);
    }
    nt_strbuf_addc(out, '}');
}

/* "  --max-tokens N   longest answer ... (1 to 1048576; default 256)"; flags are spelled with dashes, keys with '_' */
static void help_row(const struct nt_config *defaults, const struct nt_config_row *r, struct nt_strbuf *out) {
    static const char *const metavars[] = {
        [NT_CONFIG_STR] = " TEXT",    [NT_CONFIG_INT] = " N",     [NT_CONFIG_NUM] = " X",
        [NT_CONFIG_BOOL] = "[=BOOL]", [NT_CONFIG_ENUM] = " NAME",
    };
    size_t start = out->len;
    nt_strbuf_adds(out, "  --");
    for (const char *p = r->key; *p; p++) nt_strbuf_addc(out, *p == '_' ? '-' : *p);
    nt_strbuf_adds(out, metavars[r->kind]);
    while (out->len - start < 32) nt_strbuf_addc(out, ' ');
    nt_strbuf_addf(out, "%s (", r->doc);
    switch (r->kind) {
    case NT_CONFIG_STR:
        break;
    case NT_CONFIG_INT:
        nt_strbuf_addf(out, "%" PRId64 " to %" PRId64 "; ", r->i_min, r->i_max);
        break;
    case NT_CONFIG_NUM:
        nt_strbuf_addf(out, "%.10g to %.10g; ", r->n_min, r->n_max);
        break;
    case NT_CONFIG_BOOL:
    case NT_CONFIG_ENUM:
        nt_config_describe(r, out);
        nt_strbuf_adds(out, "; ");
        break;
    }
    nt_strbuf_adds(out, "default ");
    add_value(defaults, r, true, out);
    nt_strbuf_adds(out, ")\n");
}

void nt_config_help(const char *section, struct nt_strbuf *out) {
    struct nt_config defaults;
    nt_config_init(&defaults);
    for (int i = 0; i < nt_config_n_rows; i++) {
        const char *name = nt_config_rows[i].section;
        if (!first_of_section(i) || (section && strcmp(section, name) != 0)) continue;
        nt_strbuf_addf(out, "%s settings (--set %s.KEY=VALUE):\n", name, name);
        for (int j = i; j < nt_config_n_rows; j++) {
            if (strcmp(nt_config_rows[j].section, name) == 0) help_row(&defaults, &nt_config_rows[j], out);
        }
    }
    nt_config_release(&defaults);
}
