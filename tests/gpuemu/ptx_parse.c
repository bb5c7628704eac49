/* PTX text to modules and kernels: directives, variables, scopes, labels; operations go to ptx_build.c.
 * Grammar: PTX ISA 8.x, "Syntax" and "Directives", as far as nvcc emits it. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptx_symbols.h"

struct label {
    char name[160];
    int32_t scope, target;
};
struct branch {
    int32_t op, scope;
    char name[160];
};

struct emu_module {
    struct ptx_kernel **kernel;
    int32_t n_kernel;
    struct variable {
        char *name;
        uint64_t address;
        size_t size;
    } * variable;
    int32_t n_variable;
    char **file; /* by .file number: the last part of the path */
    int32_t n_file;
    char *text; /* without comments; the operations' texts are cut out of copies */
    struct parser *parser;
};

struct parser {
    const char *at;
    int32_t line, device;
    struct emu_module *module;
    struct symbols symbols;
    struct ptx_code *code; /* inside a kernel */
    int32_t cap_op;
    struct label *label;
    struct branch *branch;
    int32_t n_label, n_branch;
    const char *loc_file;
    int32_t loc_line;
    char *error;
    size_t n_error;
    bool failed;
};

/* "kernel k, file.cu:12, PTX line 80: ..."; outside of kernels the line alone. */
static void place_of(const struct parser *p, char *to, size_t n) {
    char source[160] = "";
    if (p->loc_file != NULL) snprintf(source, sizeof source, "%.128s:%d, ", p->loc_file, p->loc_line);
    if (p->code == NULL)
        snprintf(to, n, "PTX line %d", p->line);
    else
        snprintf(to, n, "kernel %.128s, %sPTX line %d", p->code->kernel.name, source, p->line);
}

static bool fail(struct parser *p, const char *format, ...) {
    if (p->failed) return false;
    p->failed = true;
    char text[384], place[320];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    place_of(p, place, sizeof place);
    snprintf(p->error, p->n_error, "%s: %s", place, text);
    return false;
}

static void *grow(void *array, int32_t n, size_t size) { /* room for one more, in steps of 64 */
    if (n % 64 != 0) return array;
    void *grown = realloc(array, (size_t)(n + 64) * size);
    if (grown == NULL) abort();
    return grown;
}

/* ---- statements as text ---- */

static char *without_comments(const char *text) {
    char *copy = strdup(text);
    if (copy == NULL) abort();
    for (char *c = copy; *c != '\0'; c++) {
        if (*c == '"')
            for (c++; *c != '"' && *c != '\0'; c++) continue;
        if (*c == '\0') break;
        if (c[0] == '/' && c[1] == '/')
            while (*c != '\n' && *c != '\0') *c++ = ' ';
        if (c[0] == '/' && c[1] == '*') {
            for (; *c != '\0' && !(c[0] == '*' && c[1] == '/'); c++)
                if (*c != '\n') *c = ' ';
            if (*c != '\0') c[0] = c[1] = ' ';
        }
        if (*c == '\0') break;
    }
    return copy;
}

static void skip_space(struct parser *p) {
    for (; isspace((unsigned char)*p->at); p->at++) p->line += *p->at == '\n';
}

static bool next_is(struct parser *p, const char *word) {
    skip_space(p);
    return strncmp(p->at, word, strlen(word)) == 0;
}

/* Copies up to (not including) one of the stops, spaces squeezed; braces of vectors are part of it. */
static bool take_until(struct parser *p, const char *stops, char *to, size_t n) {
    size_t len = 0;
    for (; *p->at != '\0' && strchr(stops, *p->at) == NULL; p->at++) {
        const char c = isspace((unsigned char)*p->at) ? ' ' : *p->at;
        p->line += *p->at == '\n';
        if (c == ' ' && (len == 0 || to[len - 1] == ' ')) continue;
        if (len + 1 >= n) return fail(p, "a statement of more than %zu characters", n);
        to[len++] = c;
    }
    while (len > 0 && to[len - 1] == ' ') len--;
    to[len] = '\0';
    return *p->at != '\0' || fail(p, "the text ends inside a statement");
}

static void skip_line(struct parser *p) {
    while (*p->at != '\n' && *p->at != '\0') p->at++;
}

/* ---- variables ---- */

static int64_t align_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

static int32_t register_words(struct parser *p, enum ptx_type type) {
    const int32_t at = p->code->n_word;
    if (is_wide(type) && at % 2 != 0) p->code->n_word++; /* 64-bit lanes on even words */
    const int32_t word = p->code->n_word;
    p->code->n_word += is_wide(type) ? 2 : 1;
    return word;
}

static void add_registers(struct parser *p, const char *name, enum ptx_type type, int32_t count) {
    struct symbol *s = symbol_add(&p->symbols, name, SYMBOL_REGISTER);
    s->type = type;
    s->ref = (struct ptx_ref){.at = register_words(p, type), .wide = is_wide(type)};
    s->count = count;
    for (int32_t i = 1; i < count; i++) (void)register_words(p, type);
}

/* ".reg .b32 %r<45>;" or ".reg .pred p, q;" */
static bool parse_registers(struct parser *p, char *text) {
    char type_text[32] = "";
    int used = 0;
    if (sscanf(text, ".reg .%31s %n", type_text, &used) < 1) return fail(p, "unreadable: %s", text);
    const enum ptx_type type = type_named(type_text);
    if (type == PTX_NONE || type == PTX_B128) return fail(p, "registers of type .%s are not known", type_text);
    for (char *save = NULL, *name = strtok_r(text + used, ", ", &save); name != NULL;
         name = strtok_r(NULL, ", ", &save)) {
        char *open = strchr(name, '<');
        const int32_t count = open != NULL ? (int32_t)strtol(open + 1, NULL, 10) : 0;
        if (open != NULL) *open = '\0';
        if (count < 0 || count > 1 << 20) return fail(p, "%d registers %s", count, name);
        add_registers(p, name, type, count);
    }
    return true;
}

struct declaration {
    char name[256];
    enum ptx_type type;
    int64_t align, count;
    bool external, open; /* open: [] */
};

/* ".extern .shared .align 16 .b8 smem[];", ".param .u64 name", without what follows = */
static bool read_declaration(struct parser *p, const char *text, struct declaration *d) {
    char copy[4096];
    *d = (struct declaration){.count = 1};
    snprintf(copy, sizeof copy, "%s", text);
    char *equals = strchr(copy, '=');
    if (equals != NULL) *equals = '\0';
    for (char *save = NULL, *word = strtok_r(copy, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save)) {
        if (strcmp(word, ".align") == 0) {
            char *n = strtok_r(NULL, " ", &save);
            d->align = n != NULL ? strtoll(n, NULL, 10) : 1;
        } else if (strcmp(word, ".extern") == 0) {
            d->external = true;
        } else if (word[0] == '.' && type_named(word + 1) != PTX_NONE) {
            d->type = type_named(word + 1);
        } else if (word[0] != '.') {
            snprintf(d->name, sizeof d->name, "%s", word);
        }
    }
    for (char *open = strchr(d->name, '['); open != NULL; open = NULL) {
        for (const char *c = open; *c == '['; c = strchr(c + 1, '[') ? strchr(c + 1, '[') : "") {
            d->open |= c[1] == ']';
            d->count *= c[1] == ']' ? 1 : strtoll(c + 1, NULL, 10);
        }
        *open = '\0';
    }
    if (d->type == PTX_NONE || d->name[0] == '\0') return fail(p, "unreadable declaration: %s", text);
    if (d->align == 0) d->align = type_bytes(d->type);
    return true;
}

static bool fill_global(struct parser *p, const char *text, const struct declaration *d, uint8_t *to, int64_t size) {
    const char *at = strchr(text, '=');
    int64_t done = 0, bytes = type_bytes(d->type);
    memset(to, 0, (size_t)size);
    for (at = at != NULL ? at + 1 : ""; *at != '\0' && done + bytes <= size; done += bytes) {
        at += strspn(at, " {,}");
        if (*at == '\0') break;
        uint64_t v;
        if (at[0] == '0' && (at[1] == 'f' || at[1] == 'F' || at[1] == 'd' || at[1] == 'D'))
            v = strtoull(at + 2, NULL, 16);
        else if (isdigit((unsigned char)*at) || *at == '-')
            v = (uint64_t)strtoll(at, NULL, 0);
        else
            return fail(p, "initial value not understood: %.60s", at);
        memcpy(to + done, &v, (size_t)bytes);
        at += strcspn(at, ",}");
    }
    return true;
}

static bool add_module_variable(struct parser *p, const char *text, enum symbol_kind kind) {
    struct declaration d;
    if (!read_declaration(p, text, &d)) return false;
    const int64_t size = align_up(d.count * type_bytes(d.type), 4);
    const uint64_t address = emu_alloc_global(p->device, (size_t)size);
    if (address == 0) return fail(p, "no device memory for %s", d.name);
    struct symbol *s = symbol_add(&p->symbols, d.name, kind);
    s->address = address;
    struct emu_module *m = p->module;
    m->variable = grow(m->variable, m->n_variable, sizeof *m->variable);
    m->variable[m->n_variable++] = (struct variable){strdup(d.name), address, (size_t)(d.count * type_bytes(d.type))};
    return fill_global(p, text, &d, (uint8_t *)(uintptr_t)address, size);
}

/* Shared variables of the module are declared anew for each kernel that may use them: offsets are the kernel's. */
static bool add_shared(struct parser *p, const char *text) {
    struct declaration d;
    if (!read_declaration(p, text, &d)) return false;
    struct symbol *s = symbol_add(&p->symbols, d.name, SYMBOL_SHARED);
    s->size = d.open || d.external ? -1 : d.count * type_bytes(d.type);
    s->address = (uint64_t)d.align; /* until a kernel places it */
    if (p->code == NULL) return true;
    struct emu_kernel *k = &p->code->kernel;
    if (p->code->dynamic_at >= 0) return fail(p, "a shared variable after the first use of dynamic shared memory");
    k->shared_bytes = align_up(k->shared_bytes, d.align);
    s->address = (uint64_t)k->shared_bytes;
    k->shared_bytes += s->size;
    return true;
}

static bool add_local(struct parser *p, const char *text) {
    struct declaration d;
    if (!read_declaration(p, text, &d)) return false;
    struct emu_kernel *k = &p->code->kernel;
    struct symbol *s = symbol_add(&p->symbols, d.name, SYMBOL_LOCAL);
    k->local_bytes = align_up(k->local_bytes, d.align);
    s->address = (uint64_t)k->local_bytes;
    k->local_bytes += d.count * type_bytes(d.type);
    return true;
}

/* ---- kernels ---- */

static void forget_params(struct emu_kernel *k) {
    free((void *)(uintptr_t)k->param_offset);
    free((void *)(uintptr_t)k->param_size);
    k->param_offset = k->param_size = NULL;
    k->n_param = k->param_bytes = 0;
}

static bool parse_params(struct parser *p) {
    struct emu_kernel *k = &p->code->kernel;
    int32_t *offset = NULL, *size = NULL;
    forget_params(k);
    if (!next_is(p, "(")) return true;
    p->at++;
    char text[1024];
    while (!next_is(p, ")")) {
        struct declaration d;
        if (!take_until(p, ",)", text, sizeof text) || !read_declaration(p, text, &d)) return false;
        if (*p->at == ',') p->at++;
        offset = grow(offset, k->n_param, sizeof *offset);
        size = grow(size, k->n_param, sizeof *size);
        offset[k->n_param] = (int32_t)align_up(k->param_bytes, d.align);
        size[k->n_param] = (int32_t)(d.count * type_bytes(d.type));
        k->param_bytes = offset[k->n_param] + size[k->n_param];
        struct symbol *s = symbol_add(&p->symbols, d.name, SYMBOL_PARAM);
        s->address = (uint64_t)offset[k->n_param];
        k->n_param++;
    }
    p->at++;
    k->param_offset = offset;
    k->param_size = size;
    return true;
}

static bool parse_tuning(struct parser *p) { /* .maxntid 128, 1, 1 and the like, up to { */
    struct emu_kernel *k = &p->code->kernel;
    char text[1024];
    if (!take_until(p, "{;", text, sizeof text)) return false;
    static const char *const names[] = {".maxntid", ".reqntid", ".explicitcluster", ".reqnctapercluster"};
    int32_t *const to[] = {k->maxntid, k->reqntid, NULL, k->cluster};
    for (int i = 0; i < 4; i++) {
        const char *at = strstr(text, names[i]);
        if (at == NULL || to[i] == NULL) continue;
        int n[3] = {1, 1, 1};
        (void)sscanf(at + strlen(names[i]), " %d , %d , %d", &n[0], &n[1], &n[2]);
        for (int j = 0; j < 3; j++) to[i][j] = n[j];
    }
    return true;
}

static struct ptx_op *new_op(struct parser *p, const char *text) {
    struct ptx_code *c = p->code;
    if (c->n_op == p->cap_op) {
        p->cap_op = p->cap_op * 2 + 256;
        c->op = realloc(c->op, (size_t)p->cap_op * sizeof *c->op);
        if (c->op == NULL) abort();
    }
    struct ptx_op *o = &c->op[c->n_op];
    *o = (struct ptx_op){.pred = -1, .target = -1};
    o->info = (struct emu_instr){
        .text = strdup(text), .ptx_line = p->line, .number = c->n_op, .file = p->loc_file, .line = p->loc_line};
    c->n_op++;
    return o;
}

/* Address of a variable as an operand. */
static bool symbol_operand(struct parser *p, const char *name, struct arg *a) {
    const struct symbol *s = symbol_find(&p->symbols, name);
    if (s == NULL || s->kind == SYMBOL_REGISTER) return false;
    a->is_constant = true;
    a->value = s->address;
    a->symbol_param = s->kind == SYMBOL_PARAM;
    a->symbol_space = s->kind == SYMBOL_SHARED  ? EMU_SPACE_SHARED
                      : s->kind == SYMBOL_LOCAL ? EMU_SPACE_LOCAL
                      : s->kind == SYMBOL_PARAM ? EMU_SPACE_PARAM
                                                : EMU_SPACE_GLOBAL;
    if (s->kind == SYMBOL_SHARED && s->size < 0) { /* dynamic: behind the static ones, which come first in a kernel */
        const int64_t align = s->address > 16 ? (int64_t)s->address : 16;
        p->code->dynamic_at = (int32_t)align_up(p->code->kernel.shared_bytes, align);
        a->value = (uint64_t)p->code->dynamic_at;
    }
    return true;
}

static const struct {
    const char *name;
    int32_t word;
} specials[] = {
    {"%tid.x",             PTX_TID         },
    {"%tid.y",             PTX_TID + 1     },
    {"%tid.z",             PTX_TID + 2     },
    {"%ntid.x",            PTX_NTID        },
    {"%ntid.y",            PTX_NTID + 1    },
    {"%ntid.z",            PTX_NTID + 2    },
    {"%ctaid.x",           PTX_CTAID       },
    {"%ctaid.y",           PTX_CTAID + 1   },
    {"%ctaid.z",           PTX_CTAID + 2   },
    {"%nctaid.x",          PTX_NCTAID      },
    {"%nctaid.y",          PTX_NCTAID + 1  },
    {"%nctaid.z",          PTX_NCTAID + 2  },
    {"%laneid",            PTX_LANEID      },
    {"%warpid",            PTX_WARPID      },
    {"%nwarpid",           PTX_NWARPID     },
    {"%smid",              PTX_SMID        },
    {"%nsmid",             PTX_NSMID       },
    {"%gridid",            PTX_GRIDID      },
    {"%lanemask_eq",       PTX_LANEMASK_EQ },
    {"%lanemask_le",       PTX_LANEMASK_LE },
    {"%lanemask_lt",       PTX_LANEMASK_LT },
    {"%lanemask_ge",       PTX_LANEMASK_GE },
    {"%lanemask_gt",       PTX_LANEMASK_GT },
    {"%clock",             PTX_CLOCK       },
    {"%globaltimer",       PTX_GLOBALTIMER },
    {"%cluster_ctaid.x",   PTX_CLUSTER_ZERO},
    {"%cluster_ctarank",   PTX_CLUSTER_ZERO},
    {"%cluster_nctarank",  PTX_CLUSTER_ONE },
    {"%cluster_nctaid.x",  PTX_CLUSTER_ONE },
    {"%dynamic_smem_size", PTX_DYNAMIC_SMEM},
    {"%total_smem_size",   PTX_TOTAL_SMEM  },
};

static bool number(const char *text, uint64_t *value) {
    char *end = NULL;
    if (text[0] == '0' && (text[1] == 'f' || text[1] == 'F' || text[1] == 'd' || text[1] == 'D'))
        *value = strtoull(text + 2, &end, 16);
    else if (isdigit((unsigned char)text[0]))
        *value = strtoull(text, &end, 0);
    else if (text[0] == '-' && isdigit((unsigned char)text[1]))
        *value = (uint64_t)strtoll(text, &end, 0);
    else
        return false;
    if (*end == 'U') end++;
    return *end == '\0';
}

static bool parse_arg(struct parser *p, char *text, struct arg *a);

static bool simple_arg(struct parser *p, const char *text, struct arg *a) {
    a->kind = ARG_REF;
    if (strcmp(text, "_") == 0) {
        a->ref.none = true;
        return true;
    }
    if (number(text, &a->value)) return a->is_constant = true;
    if (strcmp(text, "WARP_SZ") == 0) {
        a->value = 32;
        return a->is_constant = true;
    }
    enum ptx_type type;
    if (symbol_register(&p->symbols, text, &a->ref, &type)) return true;
    for (size_t i = 0; i < sizeof specials / sizeof specials[0] && text[0] == '%'; i++) {
        if (strcmp(text, specials[i].name) != 0) continue;
        a->ref.at = specials[i].word;
        a->ref.wide = specials[i].word == PTX_GLOBALTIMER;
        return true;
    }
    if (symbol_operand(p, text, a)) return true;
    a->kind = ARG_NAME;
    snprintf(a->name, sizeof a->name, "%s", text);
    return text[0] != '%' || fail(p, "%s is not declared", text);
}

static char *trimmed(char *text) {
    while (*text == ' ') text++;
    for (size_t n = strlen(text); n > 0 && text[n - 1] == ' '; n--) text[n - 1] = '\0';
    return text;
}

static int32_t split(char *text, char *part[], int32_t max) { /* at commas outside of brackets */
    int32_t n = 0, depth = 0;
    char *start = text;
    for (char *c = text;; c++) {
        depth += *c == '{' || *c == '[' || *c == '(';
        depth -= *c == '}' || *c == ']' || *c == ')';
        if (*c != '\0' && (*c != ',' || depth > 0)) continue;
        const bool last = *c == '\0';
        *c = '\0';
        start = trimmed(start);
        if (n < max && *start != '\0') part[n++] = start;
        start = c + 1;
        if (last) return n;
    }
}

/* "[%rd1+16]", "[name]", "[%rd3, {%r1, %r2}]": the base, and for tensor copies the coordinates as a vector. */
static bool address_arg(struct parser *p, char *text, struct arg *a) {
    char *part[3];
    text[strlen(text) - 1] = '\0';
    const int32_t n = split(text + 1, part, 3);
    char *sign = strpbrk(part[0] + 1, "+-");
    if (sign != NULL) {
        a->offset = strtoll(sign + (*sign == '+'), NULL, 0);
        *sign = '\0';
    }
    struct arg base = {0};
    if (n < 1 || !simple_arg(p, trimmed(part[0]), &base)) return fail(p, "unreadable address %s", text);
    if (base.kind == ARG_NAME) return fail(p, "%s is not declared", base.name);
    const int64_t offset = a->offset;
    *a = base;
    a->offset = offset;
    a->kind = ARG_ADDRESS;
    if (n == 1) return true;
    struct arg inner = {0};
    if (!parse_arg(p, part[1], &inner)) return false;
    a->vec = inner.vec;
    a->n_vec = inner.n_vec;
    return true;
}

static bool vector_arg(struct parser *p, char *text, struct arg *a) {
    char *part[PTX_MAX_SRC * 8];
    text[strlen(text) - 1] = '\0';
    a->kind = ARG_VEC;
    a->n_vec = split(text + 1, part, PTX_MAX_SRC * 8);
    a->vec = calloc((size_t)(a->n_vec > 0 ? a->n_vec : 1), sizeof *a->vec);
    if (a->vec == NULL) abort();
    for (int32_t i = 0; i < a->n_vec; i++)
        if (!simple_arg(p, part[i], &a->vec[i])) return false;
    return true;
}

static bool parse_arg(struct parser *p, char *text, struct arg *a) {
    if (text[0] == '[') return address_arg(p, text, a);
    if (text[0] == '{' || text[0] == '(') return vector_arg(p, text, a);
    if (text[0] == '!') {
        a->negated = true;
        text = trimmed(text + 1);
    }
    char *bar = strchr(text, '|');
    if (bar == NULL) return simple_arg(p, text, a);
    *bar = '\0';
    struct arg second = {0};
    if (!simple_arg(p, trimmed(text), a) || !simple_arg(p, trimmed(bar + 1), &second)) return false;
    a->pair = second.ref;
    return a->has_pair = true;
}

static bool parse_guard(struct parser *p, char **text, struct ptx_op *o) {
    if ((*text)[0] != '@') return true;
    char *end = strchr(*text, ' ');
    if (end == NULL) return fail(p, "a guard without an operation");
    *end = '\0';
    o->pred_not = (*text)[1] == '!';
    struct ptx_ref ref;
    enum ptx_type type;
    if (!symbol_register(&p->symbols, *text + 1 + o->pred_not, &ref, &type) || type != PTX_PRED)
        return fail(p, "%s is not a predicate", *text + 1);
    o->pred = ref.at;
    *text = trimmed(end + 1);
    return true;
}

static void note_branch(struct parser *p, const char *name) {
    p->branch = grow(p->branch, p->n_branch, sizeof *p->branch);
    struct branch *b = &p->branch[p->n_branch++];
    *b = (struct branch){.op = p->code->n_op - 1, .scope = p->symbols.scope};
    snprintf(b->name, sizeof b->name, "%.159s", name);
}

static bool parse_operation(struct parser *p, char *text) {
    struct ptx_op *o = new_op(p, text);
    if (!parse_guard(p, &text, o)) return false;
    char *space = strchr(text, ' '), *part[24];
    struct build b = {.o = o, .code = p->code, .error = p->error, .n_error = p->n_error};
    if (space != NULL) {
        *space = '\0';
        b.n_arg = split(space + 1, part, 24);
        const bool label = strncmp(text, "bra", 3) == 0 && b.n_arg == 1; /* whatever else has its name */
        for (int32_t i = 0; i < b.n_arg && !label; i++)
            if (!parse_arg(p, part[i], &b.arg[i])) return false;
        if (label) {
            b.arg[0].kind = ARG_NAME;
            snprintf(b.arg[0].name, sizeof b.arg[0].name, "%s", part[0]);
            note_branch(p, part[0]);
        }
    }
    char reason[256] = "";
    b.error = reason;
    b.n_error = sizeof reason;
    const bool ok = build_op(&b, text);
    for (int32_t i = 0; i < b.n_arg; i++) free(b.arg[i].vec);
    return ok || fail(p, "%s: %s", reason, o->info.text);
}

static bool parse_loc(struct parser *p) { /* .loc file line column */
    char *end = NULL;
    const long file = strtol(p->at + strlen(".loc"), &end, 10);
    p->loc_line = (int32_t)strtol(end, NULL, 10);
    p->loc_file = file >= 0 && file < p->module->n_file ? p->module->file[file] : NULL;
    skip_line(p);
    return true;
}

static bool parse_label(struct parser *p, char *text) {
    p->label = grow(p->label, p->n_label, sizeof *p->label);
    struct label *l = &p->label[p->n_label++];
    *l = (struct label){.scope = p->symbols.scope, .target = p->code->n_op};
    snprintf(l->name, sizeof l->name, "%.159s", text);
    return true;
}

static bool parse_statement(struct parser *p) {
    static const char *const ignored[] = {".pragma", ".branchtargets", ".calltargets", ".noreturn"};
    char text[8192];
    if (next_is(p, ".loc") && isspace((unsigned char)p->at[4])) return parse_loc(p); /* not .local */
    if (next_is(p, ".reg") || next_is(p, ".shared") || next_is(p, ".local") || next_is(p, ".param")) {
        const bool reg = next_is(p, ".reg"), shared = next_is(p, ".shared");
        if (!take_until(p, ";", text, sizeof text)) return false;
        p->at++;
        /* parameters of a call lie in local memory */
        return reg ? parse_registers(p, text) : shared ? add_shared(p, text) : add_local(p, text);
    }
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++) {
        if (!next_is(p, ignored[i])) continue;
        if (!take_until(p, ";", text, sizeof text)) return false;
        p->at++;
        return true;
    }
    const char *start = p->at;
    const size_t name = strspn(start, "$_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
    if (name > 0 && start[name] == ':' && start[name + 1] != ':') {
        snprintf(text, sizeof text, "%.*s", (int)name, start);
        p->at += name + 1;
        return parse_label(p, text);
    }
    if (!take_until(p, ";", text, sizeof text)) return false;
    p->at++;
    return text[0] == '\0' || parse_operation(p, text);
}

static bool no_label(struct parser *p, const struct branch *b) { /* known at the end only, but of that operation */
    const struct emu_instr *i = &p->code->op[b->op].info;
    p->line = i->ptx_line;
    p->loc_file = i->file;
    p->loc_line = i->line;
    return fail(p, "no label %s: %s", b->name, i->text);
}

static bool resolve_branches(struct parser *p) {
    for (int32_t i = 0; i < p->n_branch; i++) {
        const struct branch *b = &p->branch[i];
        int32_t found = -1;
        for (int32_t scope = b->scope; scope >= 0 && found < 0; scope = p->symbols.parent[scope])
            for (int32_t j = 0; j < p->n_label; j++)
                if (p->label[j].scope == scope && strcmp(p->label[j].name, b->name) == 0) found = p->label[j].target;
        if (found < 0) return no_label(p, b);
        p->code->op[b->op].target = found;
    }
    p->n_branch = p->n_label = 0;
    return true;
}

/* Module-level shared variables get their places in this kernel. */
static void place_module_shared(struct parser *p) {
    struct emu_kernel *k = &p->code->kernel;
    const struct symbol *before = ((struct ptx_kernel *)p->code)->before;
    struct symbol *s = p->symbols.newest;
    while (s != before) s = s->older;
    for (; s != NULL; s = s->older) {
        if (s->kind != SYMBOL_SHARED || s->scope != 0 || s->size < 0) continue;
        k->shared_bytes = align_up(k->shared_bytes, 128);
        s->address = (uint64_t)k->shared_bytes;
        k->shared_bytes += s->size;
    }
}

static bool parse_body(struct parser *p) {
    const int32_t outer = p->symbols.scope;
    p->at++; /* { */
    scope_begin(&p->symbols);
    while (p->symbols.scope != outer) {
        if (next_is(p, "{")) {
            p->at++;
            scope_begin(&p->symbols);
        } else if (next_is(p, "}")) {
            p->at++;
            scope_end(&p->symbols);
        } else if (*p->at == '\0') {
            return fail(p, "the text ends inside a kernel");
        } else if (!parse_statement(p)) {
            return false;
        }
    }
    return resolve_branches(p);
}

/* Before the operations: what the launch must know is declared there. */
static bool parse_declarations(struct parser *p) {
    scope_begin(&p->symbols);
    p->at++; /* { */
    while (next_is(p, ".reg") || next_is(p, ".shared") || next_is(p, ".local") || next_is(p, ".loc"))
        if (!parse_statement(p)) return false;
    scope_end(&p->symbols);
    return true;
}

static bool skip_body(struct parser *p) {
    for (int32_t depth = 1; depth > 0; p->at++) {
        p->at += strcspn(p->at, "{}\n");
        if (*p->at == '\0') return fail(p, "the text ends inside a kernel");
        p->line += *p->at == '\n';
        depth += *p->at == '{' ? 1 : *p->at == '}' ? -1 : 0;
    }
    return true;
}

/* From the parameters on: at first the declarations only, at the first launch everything. */
static bool parse_from_head(struct parser *p, struct ptx_kernel *k, bool whole) {
    struct ptx_code *c = p->code = &k->code;
    p->at = k->head;
    p->line = k->head_line;
    p->loc_file = NULL;
    p->loc_line = 0;
    c->n_word = (PTX_N_SPECIAL + 1) / 2 * 2;
    c->kernel.shared_bytes = c->kernel.local_bytes = 0;
    c->dynamic_at = -1;
    scope_begin(&p->symbols);
    place_module_shared(p);
    bool ok = parse_params(p) && parse_tuning(p) && (*p->at == '{' || fail(p, "no body"));
    if (ok) ok = whole ? parse_body(p) : parse_declarations(p) && skip_body(p);
    if (ok) scope_end(&p->symbols);
    return ok;
}

static bool parse_entry(struct parser *p) {
    struct emu_module *m = p->module;
    struct ptx_kernel *k = calloc(1, sizeof *k);
    if (k == NULL) abort();
    struct ptx_code *c = &k->code;
    m->kernel = grow(m->kernel, m->n_kernel, sizeof(struct ptx_kernel *));
    m->kernel[m->n_kernel++] = k;
    c->kernel.module = m;
    c->kernel.max_dynamic_shared = -1;
    char name[512];
    p->at = strstr(p->at, ".entry") + strlen(".entry");
    skip_space(p);
    const size_t n = strcspn(p->at, " (\n\t{");
    snprintf(name, sizeof name, "%.*s", (int)n, p->at);
    p->at += n;
    c->kernel.name = strdup(name);
    k->head = p->at;
    k->head_line = p->line;
    k->before = p->symbols.newest;
    const bool ok = parse_from_head(p, k, false);
    p->code = NULL;
    return ok;
}

static bool parse_whole(struct ptx_kernel *k, char *error, size_t n_error) {
    struct ptx_code *c = &k->code;
    struct parser *p = c->kernel.module->parser;
    char text[] = "exit";
    p->error = error;
    p->n_error = n_error;
    p->cap_op = 0;
    if (p->failed)
        snprintf(error, n_error, "kernel %.128s: another kernel of its module cannot be run", c->kernel.name);
    bool ok = !p->failed && parse_from_head(p, k, true);
    if (ok) {
        (void)new_op(p, "exit (end of text)");
        struct build b = {.o = &c->op[c->n_op - 1], .code = c, .error = error, .n_error = n_error};
        ok = build_op(&b, text);
    }
    p->code = NULL;
    return k->complete = ok;
}

bool ptx_complete(struct ptx_code *c) {
    struct ptx_kernel *k = (struct ptx_kernel *)c;
    char error[512] = "";
    if (k->complete || parse_whole(k, error, sizeof error)) return true;
    emu_report(NULL, "PTX that cannot be run: %s", error);
    return false;
}

/* ---- modules ---- */

static bool parse_file(struct parser *p) { /* .file 1 "name" */
    struct emu_module *m = p->module;
    int number_of = 0, used = 0;
    if (sscanf(p->at, ".file %d \"%n", &number_of, &used) < 1 || number_of < 0 || number_of > 4096)
        return fail(p, "unreadable .file");
    const char *name = p->at + used;
    while (m->n_file <= number_of) {
        m->file = grow(m->file, m->n_file, sizeof *m->file);
        m->file[m->n_file++] = NULL;
    }
    const char *end = strchr(name, '"');
    for (const char *c = name; end != NULL && c < end; c++)
        if (*c == '/') name = c + 1;
    if (end != NULL && m->file[number_of] == NULL) m->file[number_of] = strndup(name, (size_t)(end - name));
    skip_line(p);
    return true;
}

static bool skip_section(struct parser *p) { /* .section .debug_str { ... } */
    const char *end = strchr(p->at, '}');
    if (end == NULL) return fail(p, "unreadable .section");
    for (; p->at <= end; p->at++) p->line += *p->at == '\n';
    return true;
}

static bool module_statement(struct parser *p, int32_t *target) {
    char text[1 << 16];
    if (next_is(p, ".version") || next_is(p, ".address_size")) return skip_line(p), true;
    if (next_is(p, ".target")) {
        const char *number_at = strstr(p->at, "sm_");
        if (number_at == NULL) return fail(p, ".target names no sm_NN");
        *target = (int32_t)strtol(number_at + 3, NULL, 10);
        return skip_line(p), true;
    }
    if (next_is(p, ".file")) return parse_file(p);
    if (next_is(p, ".section")) return skip_section(p);
    const char *brace = strchr(p->at, '{'), *entry = strstr(p->at, ".entry"), *end = strchr(p->at, ';');
    if (entry != NULL && (brace == NULL || entry < brace) && (end == NULL || entry < end)) return parse_entry(p);
    if (next_is(p, ".func") || (strstr(p->at, ".func") != NULL && strstr(p->at, ".func") < (end ? end : p->at + 1))) {
        if (brace != NULL && brace < end) return fail(p, "device functions (.func) are not supported: inline them");
        return take_until(p, ";", text, sizeof text) && (p->at++, true); /* a prototype */
    }
    if (!take_until(p, ";", text, sizeof text)) return false;
    p->at++;
    if (strstr(text, ".shared") != NULL) return add_shared(p, text);
    if (strstr(text, ".const") != NULL) return add_module_variable(p, text, SYMBOL_CONST);
    if (strstr(text, ".global") != NULL) return add_module_variable(p, text, SYMBOL_GLOBAL);
    return strstr(text, ".pragma") != NULL || fail(p, "unknown directive: %.80s", text);
}

struct emu_module *emu_module_load(const char *text, int32_t device, int32_t *target, char *error, size_t n_error) {
    struct emu_module *m = calloc(1, sizeof *m);
    if (m == NULL) abort();
    m->text = without_comments(text);
    struct parser *p = m->parser = calloc(1, sizeof *p);
    if (p == NULL) abort();
    *p = (struct parser){.at = m->text, .line = 1, .device = device, .module = m, .error = error, .n_error = n_error};
    symbols_open(&p->symbols);
    bool ok = true;
    for (skip_space(p); ok && *p->at != '\0'; skip_space(p)) ok = module_statement(p, target);
    for (int32_t i = 0; ok && emu_options()->parse && i < m->n_kernel; i++)
        ok = parse_whole(m->kernel[i], error, n_error);
    if (ok) return m;
    emu_module_free(m);
    return NULL;
}

void emu_module_free(struct emu_module *m) {
    for (int32_t k = 0; k < m->n_kernel; k++) {
        struct ptx_code *c = &m->kernel[k]->code;
        for (int32_t i = 0; i < c->n_op; i++) {
            free((void *)(uintptr_t)c->op[i].info.text);
            free(c->op[i].many);
        }
        free(c->op);
        free(c->constant);
        free((void *)(uintptr_t)c->kernel.name);
        forget_params(&c->kernel);
        free(m->kernel[k]);
    }
    for (int32_t i = 0; i < m->n_variable; i++) {
        emu_free_now(m->variable[i].address);
        free(m->variable[i].name);
    }
    for (int32_t i = 0; i < m->n_file; i++) free(m->file[i]);
    free(m->kernel);
    free(m->variable);
    free(m->file);
    free(m->text);
    symbols_close(&m->parser->symbols);
    free(m->parser->label);
    free(m->parser->branch);
    free(m->parser);
    free(m);
}

struct emu_kernel *emu_module_kernel(struct emu_module *m, const char *name) {
    for (int32_t k = 0; k < m->n_kernel; k++)
        if (strcmp(m->kernel[k]->code.kernel.name, name) == 0) return &m->kernel[k]->code.kernel;
    return NULL;
}

bool emu_module_global(struct emu_module *m, const char *name, uint64_t *address, size_t *size) {
    for (int32_t i = 0; i < m->n_variable; i++) {
        if (strcmp(m->variable[i].name, name) != 0) continue;
        *address = m->variable[i].address;
        *size = m->variable[i].size;
        return true;
    }
    return false;
}
