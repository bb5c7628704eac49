#include "dataset_tables.h"
#include "config.h"
#include "hash.h"
#include "strbuf.h"

#include <string.h>

const char *const nt_table_paths[NT_N_TABLES] = {
#define NT_TABLE(id, path) [NT_T_##id] = (path),
#define NT_COL(id, table, path, type, width, check, arg)
#define NT_TEXT(id, table, path, encoding)
#include "dataset_columns.def"
#undef NT_TABLE
#undef NT_COL
#undef NT_TEXT
};

const struct nt_col_row nt_col_rows[NT_N_COLS] = {
#define NT_TABLE(id, path)
#define NT_COL(id, table_, path_, type_, width_, check_, arg_)                                                         \
    [NT_C_##id] = {.path = (path_),                                                                                    \
                   .table = NT_T_##table_,                                                                             \
                   .type = NT_H5_##type_,                                                                              \
                   .width = (width_),                                                                                  \
                   .check = NT_CHECK_##check_,                                                                         \
                   .arg = (arg_)},
#define NT_TEXT(id, table_, path_, encoding_)                                                                          \
    [NT_C_##id] = {.path = (path_), .table = NT_T_##table_, .check = NT_CHECK_TEXT, .encoding = (encoding_)},
#include "dataset_columns.def"
#undef NT_TABLE
#undef NT_COL
#undef NT_TEXT
};

static const char *const refusals[NT_N_REFUSALS] = {"erased", "no consent", "past retention", "quarantined"};
static const char *const formats[NT_N_ROW_FORMATS] = {"messages",   "completion", "sharegpt", "alpaca",
                                                      "preference", "label",      "batch"};
static const char *const splits[NT_N_SPLITS] = {"none", "train", "valid", "test"};
static const char *const bases[NT_N_BASES] = {"none",   "consent", "contract", "legitimate-interest",
                                              "public", "license", "synthetic"};
static const char *const raters[NT_N_RATERS] = {"end_user", "annotator", "judge", "rule"};
static const char *const finishes[NT_N_GEN_FINISH] = {"stop",           "length",     "error",
                                                      "content_filter", "tool_calls", "other"};

const char *nt_refusal_name(enum nt_refusal r) {
    return refusals[r];
}

const char *nt_row_format_name(enum nt_row_format f) {
    return formats[f];
}

const char *nt_split_name(enum nt_split s) {
    return splits[s];
}

const char *nt_basis_name(enum nt_basis b) {
    return bases[b];
}

const char *nt_rater_name(enum nt_rater r) {
    return raters[r];
}

static int find(const char *name, const char *const *names, int n, const char **near) {
    if (near) *near = NULL;
    for (int i = 0; name && i < n; i++) {
        if (strcmp(names[i], name) == 0) return i;
    }
    if (near && name) *near = nt_nearest(name, names, n);
    return -1;
}

int nt_basis_find(const char *name, const char **near) {
    return find(name, bases, NT_N_BASES, near);
}

int nt_split_find(const char *name, const char **near) {
    return find(name, splits, NT_N_SPLITS, near);
}

int nt_rater_find(const char *name, const char **near) {
    return find(name, raters, NT_N_RATERS, near);
}

int nt_row_format_find(const char *name, const char **near) {
    return find(name, formats, NT_N_ROW_FORMATS, near);
}

enum nt_gen_finish nt_gen_finish_find(const char *name) {
    const int i = find(name, finishes, NT_N_GEN_FINISH, NULL);
    return i < 0 ? NT_GEN_OTHER : (enum nt_gen_finish)i;
}

static int64_t earlier(int64_t a, int64_t b) {
    return a == 0 || (b != 0 && b < a) ? b : a;
}

void nt_subject_merge(struct nt_subject_facts *have, const struct nt_subject_facts *more) {
    const int64_t erased = earlier(have->erased_us, more->erased_us);
    if (more->updated_us > have->updated_us) {
        *have = *more;
    } else if (more->updated_us == have->updated_us) {
        have->consent &= more->consent;
        have->retention_until_us = earlier(have->retention_until_us, more->retention_until_us);
        if (have->consent == 0) have->basis = NT_BASIS_NONE;
    }
    have->erased_us = erased;
}

bool nt_subject_anonymous(const uint8_t id[NT_CORPUS_ID]) {
    uint8_t any = 0;
    for (int i = 0; i < NT_CORPUS_ID; i++) any |= id[i];
    return any == 0;
}

void nt_conv_seed_begin(struct nt_strbuf *seed, enum nt_conv_kind kind) {
    nt_strbuf_reset(seed);
    nt_strbuf_addc(seed, (char)kind);
}

void nt_conv_seed_add(struct nt_strbuf *seed, int role, const uint8_t digest[NT_SHA256_BYTES]) {
    nt_strbuf_addc(seed, (char)role);
    nt_strbuf_add(seed, digest, NT_SHA256_BYTES);
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool nt_subject_spelled(const char *user, size_t len, uint8_t id[NT_CORPUS_ID]) {
    static const char prefix[] = "subject:";
    const size_t head = sizeof prefix - 1;
    uint8_t spelled[NT_CORPUS_ID];
    if (len != head + 2 * sizeof spelled || memcmp(user, prefix, head) != 0) return false;
    for (int i = 0; i < NT_CORPUS_ID; i++) {
        const int a = hex_digit(user[head + 2 * (size_t)i]), b = hex_digit(user[head + 2 * (size_t)i + 1]);
        if (a < 0 || b < 0) return false;
        spelled[i] = (uint8_t)(a * 16 + b);
    }
    if (nt_subject_anonymous(spelled)) return false;
    memcpy(id, spelled, sizeof spelled);
    return true;
}

void nt_subject_name(const char *user, size_t len, uint8_t id[NT_CORPUS_ID]) {
    static const char salt[] = "nocturne subject"; /* with its NUL, as in request corpora */
    uint8_t digest[NT_SHA256_BYTES];
    struct nt_strbuf s = NT_STRBUF_INIT;
    if (nt_subject_spelled(user, len, id)) return;
    nt_strbuf_add(&s, salt, sizeof salt);
    nt_strbuf_add(&s, user, len);
    nt_sha256(s.data, s.len, digest);
    nt_strbuf_release(&s);
    memcpy(id, digest, NT_CORPUS_ID);
}

const char *nt_col_values(enum nt_col col) {
    static const struct {
        enum nt_col col;
        const char *values;
    } rows[] = {
        {NT_C_SUBJECT_CONSENT, "1 generate,2 train,4 distill,8 publish"                                     },
        {NT_C_SUBJECT_BASIS,   "none,consent,contract,legitimate-interest,public,license,synthetic"         },
        {NT_C_CONV_KIND,       "chat,text,completion"                                                       },
        {NT_C_CONV_FORMAT,     "messages,completion,sharegpt,alpaca,preference,label,batch"                 },
        {NT_C_CONV_SPLIT,      "none,train,valid,test"                                                      },
        {NT_C_CONV_FLAGS,      "1 pii_scanned,2 redacted,4 synthetic,8 toxic,16 dup,32 quarantined,64 tools"},
        {NT_C_MSG_ROLE,        NT_CORPUS_ROLES                                                              },
        {NT_C_GEN_FINISH,      "stop,length,error,content_filter,tool_calls,other"                          },
        {NT_C_FB_TARGET_KIND,  "message,generation,conversation"                                            },
        {NT_C_FB_KIND,         "thumb,rating,edit"                                                          },
        {NT_C_FB_SOURCE,       "end_user,annotator,judge,rule"                                              },
        {NT_C_PREF_KIND,       "conversation,generation"                                                    },
        {NT_C_PREF_ORIGIN,     "dataset,feedback"                                                           },
        {NT_C_PREF_SOURCE,     "end_user,annotator,judge,rule"                                              },
        {NT_C_ROW_KIND,        "row,response,feedback"                                                      },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].col == col) return rows[i].values;
    }
    return NULL;
}
