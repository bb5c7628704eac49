/* Patterns of tokenizer.json are written for Oniguruma (Ruby syntax); this turns them into PCRE2 with the same meaning.
 * Where the two differ the construct is spelled out (\s without U+180E, \w with marks, \h, \v, \p{Script}); what has
 * no exact counterpart is refused. */
#include "tok_internal.h"

#include <string.h>

const char nt_tok_gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

#define SPACE_ITEMS                                                                                                    \
    "\\t-\\r\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define NOT_SPACE_ITEMS                                                                                                \
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}"                    \
    "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}"
#define WORD_ITEMS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

struct parse {
    const char *s;
    size_t n, i;
    const char *origin, *where;
    struct nt_strbuf *out;
};

static nt_status refuse(const struct parse *p, const char *what) {
    return NT_FAIL(NT_E_UNSUPPORTED, "%s: %s: pattern offset %zu: %s is not supported in a pre-tokenizer pattern",
                   p->origin, p->where, p->i, what);
}

static bool is_alpha(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* \p{Name}: general categories as they are, their long names shortened, everything else is a script. */
static nt_status property(struct parse *p) {
    static const struct {
        const char *name, *pcre;
    } rows[] = {
        {"Letter",      "L"         },
        {"Mark",        "M"         },
        {"Number",      "N"         },
        {"Punctuation", "P"         },
        {"Symbol",      "S"         },
        {"Separator",   "Z"         },
        {"Other",       "C"         },
        {"Any",         "Any"       },
        {"Alphabetic",  "Alphabetic"},
    };
    char letter = p->s[p->i + 1];
    size_t i = p->i + 2;
    if (i >= p->n || p->s[i] != '{') return refuse(p, "\\p without braces");
    const char *close = memchr(p->s + i, '}', p->n - i);
    if (!close) return refuse(p, "\\p{ without }");
    const char *name = p->s + i + 1;
    bool negate = name < close && *name == '^';
    if (negate) name++;
    size_t len = (size_t)(close - name);
    if (len == 0 || len > 40) return refuse(p, "this property name");
    for (size_t k = 0; k < len; k++) {
        if (!is_alpha(name[k]) && name[k] != '_') return refuse(p, "this property name");
    }
    const char *mapped = NULL;
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        if (strlen(rows[k].name) == len && memcmp(rows[k].name, name, len) == 0) mapped = rows[k].pcre;
    }
    nt_strbuf_addf(p->out, "\\%c{%s", (letter == 'P') != negate ? 'P' : 'p', len > 2 && !mapped ? "sc:" : "");
    if (mapped)
        nt_strbuf_adds(p->out, mapped);
    else
        nt_strbuf_add(p->out, name, len);
    nt_strbuf_addc(p->out, '}');
    p->i = (size_t)(close - p->s) + 1;
    return NT_OK;
}

/* \xHH, \x{H...}, \uHHHH */
static nt_status code_point(struct parse *p) {
    size_t i = p->i + 2, start = i;
    size_t want = p->s[p->i + 1] == 'u' ? 4 : 2;
    bool braces = want == 2 && i < p->n && p->s[i] == '{';
    if (braces) {
        start = ++i;
        want = 6;
    }
    while (i < p->n && i - start < want && is_hex(p->s[i])) i++;
    if (i == start || (want == 4 && i - start != 4)) return refuse(p, "this hexadecimal escape");
    nt_strbuf_adds(p->out, "\\x{");
    nt_strbuf_add(p->out, p->s + start, i - start);
    nt_strbuf_addc(p->out, '}');
    if (braces) {
        if (i >= p->n || p->s[i] != '}') return refuse(p, "this hexadecimal escape");
        i++;
    }
    p->i = i;
    return NT_OK;
}

struct escape {
    char letter;
    const char *outside, *inside; /* NULL: refused there */
};

static const struct escape escapes[] = {
    {'s', "[" SPACE_ITEMS "]",                                                                       SPACE_ITEMS    },
    {'S', "[^" SPACE_ITEMS "]",                                                                      NOT_SPACE_ITEMS},
    {'w', "[" WORD_ITEMS "]",                                                                        WORD_ITEMS     },
    {'W', "[^" WORD_ITEMS "]",                                                                       NULL           },
    {'d', "\\p{Nd}",                                                                                 "\\p{Nd}"      },
    {'D', "\\P{Nd}",                                                                                 "\\P{Nd}"      },
    {'h', "[0-9a-fA-F]",                                                                             "0-9a-fA-F"    },
    {'H', "[^0-9a-fA-F]",                                                                            NULL           },
    {'b', "(?:(?<=[" WORD_ITEMS "])(?![" WORD_ITEMS "])|(?<![" WORD_ITEMS "])(?=[" WORD_ITEMS "]))", "\\x{8}"       },
    {'B', "(?:(?<=[" WORD_ITEMS "])(?=[" WORD_ITEMS "])|(?<![" WORD_ITEMS "])(?![" WORD_ITEMS "]))", NULL           },
    {'n', "\\n",                                                                                     "\\n"          },
    {'r', "\\r",                                                                                     "\\r"          },
    {'t', "\\t",                                                                                     "\\t"          },
    {'f', "\\f",                                                                                     "\\f"          },
    {'a', "\\x{7}",                                                                                  "\\x{7}"       },
    {'e', "\\x{1B}",                                                                                 "\\x{1B}"      },
    {'v', "\\x{B}",                                                                                  "\\x{B}"       },
    {'A', "\\A",                                                                                     NULL           },
    {'z', "\\z",                                                                                     NULL           },
    {'Z', "\\Z",                                                                                     NULL           },
};

static nt_status escape(struct parse *p, bool in_class) {
    if (p->i + 1 >= p->n) return refuse(p, "a single backslash at the end");
    char c = p->s[p->i + 1];
    if (c == 'p' || c == 'P') return property(p);
    if (c == 'x' || c == 'u') return code_point(p);
    for (size_t k = 0; k < sizeof escapes / sizeof escapes[0]; k++) {
        if (escapes[k].letter != c) continue;
        const char *made = in_class ? escapes[k].inside : escapes[k].outside;
        if (!made) break;
        nt_strbuf_adds(p->out, made);
        p->i += 2;
        return NT_OK;
    }
    if (is_alpha(c) || (c >= '0' && c <= '9')) {
        char what[] = "\\?";
        what[1] = c;
        return refuse(p, what);
    }
    if ((unsigned char)c < 0x80) {
        nt_strbuf_addc(p->out, '\\');
        nt_strbuf_addc(p->out, c);
        p->i += 2;
    } else {
        p->i++; /* an escaped letter of another script is that letter */
    }
    return NT_OK;
}

static nt_status char_class(struct parse *p) {
    nt_strbuf_addc(p->out, '[');
    p->i++;
    if (p->i < p->n && p->s[p->i] == '^') {
        nt_strbuf_addc(p->out, '^');
        p->i++;
    }
    for (bool first = true; p->i < p->n; first = false) {
        char c = p->s[p->i];
        if (c == ']') {
            if (first) return refuse(p, "an empty class");
            nt_strbuf_addc(p->out, ']');
            p->i++;
            return NT_OK;
        }
        if (c == '\\') {
            NT_TRY(escape(p, true));
            continue;
        }
        if (c == '[') return refuse(p, "a class inside a class");
        if (c == '&' && p->i + 1 < p->n && p->s[p->i + 1] == '&') return refuse(p, "class intersection (&&)");
        nt_strbuf_addc(p->out, c);
        p->i++;
    }
    return refuse(p, "a class without ]");
}

/* "(?": groups without capture, look-around, atomic groups and the flags i and m (Ruby's m is PCRE's s). */
static nt_status group(struct parse *p) {
    static const char *const plain[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    for (size_t k = 0; k < sizeof plain / sizeof plain[0]; k++) {
        size_t len = strlen(plain[k]);
        if (p->n - p->i >= len && memcmp(p->s + p->i, plain[k], len) == 0) {
            nt_strbuf_add(p->out, plain[k], len);
            p->i += len;
            return NT_OK;
        }
    }
    nt_strbuf_adds(p->out, "(?");
    p->i += 2;
    while (p->i < p->n) {
        char c = p->s[p->i];
        if (c != 'i' && c != 'm' && c != '-' && c != ':' && c != ')') break;
        nt_strbuf_addc(p->out, c == 'm' ? 's' : c);
        p->i++;
        if (c == ':' || c == ')') return NT_OK;
    }
    return refuse(p, "this kind of group");
}

/* {n}, {n,}, {n,m}; "{,m}" and a "+" behind mean different things to the two engines. */
static nt_status repeat(struct parse *p) {
    const char *close = memchr(p->s + p->i, '}', p->n - p->i);
    size_t end = close ? (size_t)(close - p->s) : p->n;
    for (size_t k = p->i + 1; k < end; k++) {
        if ((p->s[k] < '0' || p->s[k] > '9') && (p->s[k] != ',' || k == p->i + 1)) close = NULL;
    }
    if (!close || end == p->i + 1) return refuse(p, "this use of {");
    if (end + 1 < p->n && p->s[end + 1] == '+') return refuse(p, "a + after {n,m}");
    nt_strbuf_add(p->out, p->s + p->i, end + 1 - p->i);
    p->i = end + 1;
    return NT_OK;
}

nt_status nt_tok_regex_translate(const char *pattern, size_t len, const char *origin, const char *where,
                                 struct nt_strbuf *out) {
    struct parse p = {.s = pattern, .n = len, .origin = origin, .where = where, .out = out};
    if (len > NT_TOK_MAX_PATTERN)
        return NT_FAIL(NT_E_DATA, "%s: %s: a pattern of %zu bytes; at most %d are accepted", origin, where, len,
                       NT_TOK_MAX_PATTERN);
    if (memchr(pattern, 0, len)) return refuse(&p, "a NUL byte");
    while (p.i < len) {
        char c = pattern[p.i];
        if (c == '\\')
            NT_TRY(escape(&p, false));
        else if (c == '[')
            NT_TRY(char_class(&p));
        else if (c == '(' && p.i + 1 < len && pattern[p.i + 1] == '?')
            NT_TRY(group(&p));
        else if (c == '{')
            NT_TRY(repeat(&p));
        else {
            nt_strbuf_addc(out, c);
            p.i++;
        }
    }
    return NT_OK;
}

void nt_tok_regex_quote(const char *text, size_t len, struct nt_strbuf *out) {
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if ((unsigned char)c < 0x80 && !is_alpha(c) && !(c >= '0' && c <= '9')) {
            nt_strbuf_addf(out, "\\x{%x}", (unsigned)c);
        } else {
            nt_strbuf_addc(out, c);
        }
    }
}

nt_status nt_tok_regex_compile(const char *pattern, size_t len, const char *origin, const char *where,
                               struct nt_tok_pre *out) {
    struct nt_strbuf made = NT_STRBUF_INIT;
    pcre2_compile_context *context = NULL;
    nt_status st;
    NT_TRY_GOTO(st, free_made, nt_tok_regex_translate(pattern, len, origin, where, &made));
    context = pcre2_compile_context_create(NULL);
    if (!context) {
        st = NT_FAIL(NT_E_NOMEM, "%s: no memory to compile a pattern", origin);
        goto free_made;
    }
    (void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    (void)pcre2_set_parens_nest_limit(context, 50);
    int error;
    PCRE2_SIZE offset;
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    out->code = pcre2_compile((PCRE2_SPTR)nt_strbuf_cstr(&made), made.len, options, &error, &offset, context);
    if (!out->code) {
        PCRE2_UCHAR why[160] = "";
        (void)pcre2_get_error_message(error, why, sizeof why);
        st = NT_FAIL(NT_E_DATA, "%s: %s: the pattern does not compile: %s", origin, where, (const char *)why);
        goto free_made;
    }
    out->jit = pcre2_jit_compile(out->code, PCRE2_JIT_COMPLETE) == 0;
    out->kind = NT_TOK_PRE_SPLIT;
free_made:
    if (context) pcre2_compile_context_free(context);
    nt_strbuf_release(&made);
    return st;
}
