#include "dataset_export.h"

#include "dataset_file.h"
#include "hash.h"
#include "idset.h"
#include "json.h"
#include "outfile.h"
#include "shell.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct exporting {
    struct nt_dsfile f;
    struct nt_outfile out[NT_N_SHELLS];
    bool any[NT_N_SHELLS];
    struct nt_transfer *t;
    struct nt_id_set erased; /* ids of subjects */
    struct nt_strbuf text;
    int64_t row, conversation, target; /* of /rows */
    enum nt_shell kind;
};

static nt_status out_of_range(const struct exporting *x, char table, int64_t index) {
    return NT_FAIL(NT_E_DATA, "%s: /rows/shell[%" PRId64 "] names the text %c%" PRId64 ", which its row does not have",
                   x->f.path, x->row, table, index);
}

/* The row of another table that hangs on this row's conversation, at target + index. */
static nt_status check_owned(struct exporting *x, char table, int64_t index, int64_t *row) {
    static const enum nt_table owners[NT_N_SHELLS] = {NT_T_PREFERENCES, NT_T_GENERATIONS, NT_T_FEEDBACK};
    const enum nt_table owner = table == 'q' ? NT_T_PREFERENCES : owners[x->kind];
    int64_t conv = -1;
    *row = table == 'q' ? index : x->target + index;
    if (x->target < 0 || index > INT32_MAX || *row >= x->f.n[owner]) return out_of_range(x, table, index);
    if (owner == NT_T_FEEDBACK)
        NT_TRY(nt_dsfile_feedback_conv(&x->f, *row, &conv));
    else
        NT_TRY(nt_dsfile_get(&x->f, owner == NT_T_GENERATIONS ? NT_C_GEN_CONV : NT_C_PREF_CONV, *row, &conv));
    return conv == x->conversation ? NT_OK : out_of_range(x, table, index);
}

static nt_status add_message(struct exporting *x, char table, int64_t conv, int64_t index, struct nt_strbuf *out) {
    const int64_t n = x->f.msg_ptr[conv + 1] - x->f.msg_ptr[conv];
    if (index >= n) return out_of_range(x, table, index);
    uint8_t digest[NT_SHA256_BYTES];
    return nt_dsfile_digested(&x->f, NT_C_MSG_CONTENT, NT_C_MSG_SHA, x->f.msg_ptr[conv] + index, out, digest);
}

static nt_status add_side(struct exporting *x, char table, int64_t index, struct nt_strbuf *out) {
    int64_t pair = 0, side = 0;
    uint8_t kind = 0;
    NT_TRY(check_owned(x, table, 0, &pair));
    NT_TRY(nt_dsfile_get(&x->f, NT_C_PREF_KIND, pair, &kind));
    NT_TRY(nt_dsfile_get(&x->f, table == 'c' ? NT_C_PREF_CHOSEN : NT_C_PREF_REJECTED, pair, &side));
    if (kind != NT_SIDE_CONVERSATION) return out_of_range(x, table, index);
    return add_message(x, table, side, index, out);
}

static nt_status add_name(struct exporting *x, enum nt_col col, int64_t row, struct nt_strbuf *out) {
    uint8_t id[NT_CORPUS_ID];
    char hex[2 * NT_CORPUS_ID + 1];
    NT_TRY(nt_dsfile_get(&x->f, col, row, id));
    nt_hex(id, sizeof id, hex);
    nt_strbuf_addf(out, "subject:%s", hex);
    return NT_OK;
}

static nt_status add_text(void *ctx, char table, int64_t index, struct nt_strbuf *out) {
    struct exporting *x = ctx;
    static const struct {
        char table;
        enum nt_shell kind;
        enum nt_col col;
        bool name;
    } owned[] = {
        {'g', NT_SHELL_RESPONSE, NT_C_GEN_CONTENT, false},
        {'e', NT_SHELL_FEEDBACK, NT_C_FB_EDIT,     false},
        {'n', NT_SHELL_FEEDBACK, NT_C_FB_COMMENT,  false},
        {'a', NT_SHELL_FEEDBACK, NT_C_FB_RATER,    true },
        {'q', NT_SHELL_FEEDBACK, NT_C_PREF_RATER,  true },
    };
    uint8_t digest[NT_SHA256_BYTES];
    int64_t row = 0;
    if (table == 's') return add_name(x, NT_C_SUBJECT_ID, x->f.subject[x->conversation], out);
    if (table == 'm') return add_message(x, table, x->conversation, index, out);
    if ((table == 'c' || table == 'r') && x->kind == NT_SHELL_ROW) return add_side(x, table, index, out);
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        if (owned[i].table != table || owned[i].kind != x->kind) continue;
        NT_TRY(check_owned(x, table, index, &row));
        if (owned[i].name) return add_name(x, owned[i].col, row, out);
        if (table != 'g') return nt_dsfile_text(&x->f, owned[i].col, row, out);
        return nt_dsfile_digested(&x->f, owned[i].col, NT_C_GEN_SHA, row, out, digest);
    }
    return out_of_range(x, table, index);
}

/* ---- erased people ---- */

static nt_status find_erased(struct exporting *x) {
    for (int64_t i = 0; i < x->f.n[NT_T_SUBJECTS]; i++) {
        uint8_t id[NT_CORPUS_ID];
        struct nt_subject_facts facts;
        int64_t known = 0;
        NT_TRY(nt_dsfile_subject(&x->f, (int32_t)i, id, &facts));
        if (facts.erased_us != 0 && !nt_subject_anonymous(id))
            NT_TRY(nt_id_set_add(&x->erased, (const char *)id, sizeof id, i + 1, &known));
    }
    return NT_OK;
}

/* Is the row's conversation one of an erased subject? */
static nt_status is_erased(struct exporting *x, bool *erased) {
    uint8_t id[NT_CORPUS_ID];
    struct nt_subject_facts facts;
    NT_TRY(nt_dsfile_subject(&x->f, x->f.subject[x->conversation], id, &facts));
    *erased = facts.erased_us != 0 || nt_id_set_find(&x->erased, (const char *)id, sizeof id) != 0;
    return NT_OK;
}

/* A line of feedback is its rater's words: is it from an erased subject? */
static nt_status is_of_erased(struct exporting *x, const struct nt_json *shell, const char *origin, bool *erased) {
    const struct nt_json *rater = nt_json_given(shell, "rater");
    struct nt_strbuf json = NT_STRBUF_INIT;
    struct nt_json *name = NULL;
    uint8_t id[NT_CORPUS_ID];
    *erased = false;
    if (x->kind != NT_SHELL_FEEDBACK || !rater || x->erased.n == 0) return NT_OK;
    nt_status st = nt_shell_fill(rater, add_text, x, origin, &json); /* a name, a number, or what stands for one */
    if (st == NT_OK) st = nt_json_parse(nt_strbuf_cstr(&json), json.len, origin, &name);
    size_t len = json.len;
    const char *text = nt_json_str(name, &len);
    if (st == NT_OK) {
        nt_subject_name(text ? text : nt_strbuf_cstr(&json), len, id);
        *erased = nt_id_set_find(&x->erased, (const char *)id, sizeof id) != 0;
    }
    nt_json_free(name);
    nt_strbuf_release(&json);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

/* ---- rows ---- */

static nt_status export_row(struct exporting *x) {
    char origin[320];
    struct nt_json *shell = NULL;
    struct nt_outfile *out = &x->out[x->kind];
    (void)snprintf(origin, sizeof origin, "%.200s: /rows/shell[%" PRId64 "]", x->f.path, x->row);
    nt_strbuf_reset(&x->text);
    NT_TRY(nt_dsfile_text(&x->f, NT_C_ROW_SHELL, x->row, &x->text));
    NT_TRY(nt_json_parse(nt_strbuf_cstr(&x->text), x->text.len, origin, &shell));
    bool erased = false;
    nt_status st = is_of_erased(x, shell, origin, &erased);
    if (st == NT_OK && !erased) st = nt_shell_fill(shell, add_text, x, origin, &out->buf);
    nt_json_free(shell);
    NT_TRY(st);
    x->t->n_erased += erased;
    if (erased) return NT_OK;
    nt_strbuf_addc(&out->buf, '\n');
    x->any[x->kind] = true;
    x->t->n_rows += x->kind == NT_SHELL_ROW;
    return nt_outfile_flush_if_full(out);
}

static nt_status export_rows(struct exporting *x) {
    for (x->row = 0; x->row < x->f.n[NT_T_ROWS]; x->row++) {
        uint8_t kind = 0;
        bool erased = false;
        NT_TRY(nt_dsfile_get(&x->f, NT_C_ROW_KIND, x->row, &kind));
        NT_TRY(nt_dsfile_get(&x->f, NT_C_ROW_CONV, x->row, &x->conversation));
        NT_TRY(nt_dsfile_get(&x->f, NT_C_ROW_TARGET, x->row, &x->target));
        NT_TRY(is_erased(x, &erased));
        x->kind = (enum nt_shell)kind;
        x->t->n_erased += erased;
        if (!erased) NT_TRY(export_row(x));
    }
    return NT_OK;
}

static nt_status open_outputs(struct exporting *x, const char *output) {
    static const char *const tails[NT_N_SHELLS] = {"", ".responses.jsonl", ".feedback.jsonl"};
    for (int k = 0; k < NT_N_SHELLS; k++) {
        char path[PATH_MAX];
        const int n = snprintf(path, sizeof path, "%s%s", output, tails[k]);
        if (n < 0 || (size_t)n >= sizeof path) return NT_FAIL(NT_E_USAGE, "%.60s...: path too long", output);
        NT_TRY(nt_outfile_open(&x->out[k], path));
    }
    return NT_OK;
}

/* None of an earlier export may stay and look like this one's: it may hold what was erased since. */
static nt_status publish(struct exporting *x, int k) {
    if (k == NT_SHELL_ROW || x->any[k]) return nt_outfile_publish(&x->out[k]);
    if (unlink(x->out[k].path) == 0 || errno == ENOENT) return NT_OK;
    return NT_FAIL(NT_E_IO, "%s: cannot remove what an earlier export left: %s", x->out[k].path, strerror(errno));
}

nt_status nt_dataset_export(const char *input, const char *output, struct nt_transfer *t) {
    struct exporting x = {.t = t};
    nt_status st = nt_dsfile_open(&x.f, input);
    if (st == NT_OK) st = find_erased(&x);
    if (st == NT_OK) st = open_outputs(&x, output);
    if (st == NT_OK) st = export_rows(&x);
    for (int k = NT_N_SHELLS - 1; k >= 0 && st == NT_OK; k--) st = publish(&x, k); /* the main one last: all is there */
    for (int k = 0; k < NT_N_SHELLS; k++) nt_outfile_abandon(&x.out[k]);
    nt_strbuf_release(&x.text);
    nt_id_set_release(&x.erased);
    nt_dsfile_close(&x.f);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
