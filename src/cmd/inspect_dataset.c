#include "inspect_dataset.h"

#include "cmd.h"
#include "dataset.h"
#include "isotime.h"
#include "strbuf.h"
#include <stdio.h>
#include <string.h>

enum { MAX_KINDS = 64 };

/* How often each name was seen, in order of appearance; those beyond the table together. */
struct tally {
    struct {
        char name[128];
        int64_t n;
    } kind[MAX_KINDS];
    int n_kinds;
    int64_t others;
};

struct summary {
    struct tally sources, licenses, consents, formats, splits;
    int64_t n_messages, n_generations, n_pairs, n_up, n_down, n_ratings, n_edits, n_edited, n_dup, n_anonymous;
    int64_t trained_bytes, first_us, last_us;
    double rating_sum;
};

static void count(struct tally *t, const char *name) {
    int i = 0;
    while (i < t->n_kinds && strncmp(t->kind[i].name, name, sizeof t->kind[i].name - 1) != 0) i++;
    if (i == MAX_KINDS) {
        t->others++;
        return;
    }
    if (i == t->n_kinds) {
        (void)snprintf(t->kind[i].name, sizeof t->kind[i].name, "%s", name);
        t->n_kinds++;
    }
    t->kind[i].n++;
}

static void print_tally(const char *what, const struct tally *t) {
    for (int i = 0; i < t->n_kinds; i++)
        nt_print("%-14s %lld %s", what, (long long)t->kind[i].n, t->kind[i].name[0] ? t->kind[i].name : "(none)");
    if (t->others > 0) nt_print("%-14s %lld (others)", what, (long long)t->others);
}

static const struct {
    enum nt_purpose bit;
    const char *name;
} purposes[] = {
    {NT_PURPOSE_GENERATE, "generate"},
    {NT_PURPOSE_TRAIN,    "train"   },
    {NT_PURPOSE_DISTILL,  "distill" },
    {NT_PURPOSE_PUBLISH,  "publish" },
};
enum { N_PURPOSES = sizeof purposes / sizeof *purposes };

static void count_consent(struct summary *s, const struct nt_record_head *h) {
    char text[128] = "";
    for (int i = 0; i < N_PURPOSES; i++) {
        if (!(h->consent & purposes[i].bit)) continue;
        const size_t len = strlen(text);
        (void)snprintf(text + len, sizeof text - len, "%s%s", len ? "," : "", purposes[i].name);
    }
    const size_t len = strlen(text);
    if (len) (void)snprintf(text + len, sizeof text - len, " (basis: %s)", nt_basis_name(h->basis));
    count(&s->consents, text);
}

static void count_feedback(struct summary *s, const struct nt_record *r) {
    for (int32_t i = 0; i < r->head.n_feedback; i++) {
        const struct nt_record_feedback *f = &r->feedback[i];
        s->n_up += f->kind == NT_FEEDBACK_THUMB && f->value > 0;
        s->n_down += f->kind == NT_FEEDBACK_THUMB && f->value < 0;
        s->n_edits += f->kind == NT_FEEDBACK_EDIT;
        s->n_ratings += f->kind == NT_FEEDBACK_RATING;
        if (f->kind == NT_FEEDBACK_RATING) s->rating_sum += (double)f->value;
    }
}

static void count_record(struct summary *s, const struct nt_record *r) {
    const struct nt_record_head *h = &r->head;
    count(&s->sources, h->source);
    count(&s->licenses, h->license);
    count(&s->formats, nt_row_format_name((enum nt_row_format)h->format));
    count(&s->splits, nt_split_name(h->split));
    count_consent(s, h);
    count_feedback(s, r);
    s->n_messages += h->n_messages;
    s->n_generations += h->n_generations;
    s->n_pairs += h->n_pairs;
    s->n_dup += (h->flags & NT_CONV_DUP) != 0;
    s->n_anonymous += h->anonymous;
    for (int32_t i = 0; i < h->n_messages; i++) {
        if (r->messages[i].weight > 0) s->trained_bytes += (int64_t)r->messages[i].len;
        s->n_edited += r->messages[i].original != NULL;
    }
    for (int32_t i = 0; i < h->n_generations; i++) s->n_edited += r->generations[i].text.original != NULL;
    if (h->created_us == 0) return;
    if (s->first_us == 0 || h->created_us < s->first_us) s->first_us = h->created_us;
    if (h->created_us > s->last_us) s->last_us = h->created_us;
}

static nt_status count_all(struct nt_dataset *d, struct summary *s) {
    struct nt_record r = {0};
    nt_status st = NT_OK;
    for (int64_t i = 0; i < nt_dataset_n_records(d) && st == NT_OK; i++) {
        st = nt_dataset_load(d, i, &r);
        if (st == NT_OK) count_record(s, &r);
    }
    nt_record_release(&r);
    return st;
}

static void print_window(const struct summary *s) {
    char first[NT_ISOTIME_TEXT], last[NT_ISOTIME_TEXT];
    if (s->first_us == 0) {
        nt_print("created        unknown");
        return;
    }
    nt_isotime_print(s->first_us, first);
    nt_isotime_print(s->last_us, last);
    nt_print("created        %s to %s", first, last);
}

static void print_summary(const struct nt_dataset *d, const struct summary *s) {
    const struct nt_dataset_file *f = nt_dataset_file(d, 0);
    nt_print("corpus         %s", f->path);
    nt_print("uuid           %s", f->uuid);
    nt_print("content sha256 %s", f->content_sha256);
    nt_print("rows           %lld (%lld erased)", (long long)f->n_seen, (long long)f->refused[NT_REFUSED_ERASED]);
    nt_print("duplicates     %lld", (long long)s->n_dup);
    nt_print("subjects       %d, %lld rows name none", nt_dataset_n_subjects(d), (long long)s->n_anonymous);
    print_window(s);
    print_tally("format", &s->formats);
    print_tally("source", &s->sources);
    print_tally("license", &s->licenses);
    print_tally("split", &s->splits);
    print_tally("consent", &s->consents);
    nt_print("messages       %lld, %lld bytes to train on", (long long)s->n_messages, (long long)s->trained_bytes);
    nt_print("answers        %lld", (long long)s->n_generations);
    nt_print("labels         %lld up, %lld down", (long long)s->n_up, (long long)s->n_down);
    if (s->n_ratings > 0)
        nt_print("ratings        %lld, mean %.3f of 1", (long long)s->n_ratings, s->rating_sum / (double)s->n_ratings);
    else
        nt_print("ratings        0");
    nt_print("edits          %lld of %lld texts", (long long)s->n_edits, (long long)s->n_edited);
    nt_print("preferences    %lld", (long long)s->n_pairs);
}

static nt_status print_purpose(const char *path, int i) {
    struct nt_dataset *d = NULL;
    struct nt_strbuf line = NT_STRBUF_INIT;
    NT_TRY(nt_dataset_open(&d, &path, 1, purposes[i].bit, 0));
    nt_strbuf_addf(&line, "for %-10s %lld rows may be seen", purposes[i].name, (long long)nt_dataset_n_records(d));
    for (int r = 0; r < NT_N_REFUSALS; r++) {
        const int64_t n = nt_dataset_refused(d, (enum nt_refusal)r);
        if (n > 0) nt_strbuf_addf(&line, ", %lld %s", (long long)n, nt_refusal_name((enum nt_refusal)r));
    }
    for (int r = 0; r < NT_N_REFUSALS; r++) {
        const int64_t n = nt_dataset_n_unheard(d, (enum nt_refusal)r);
        if (n > 0)
            nt_strbuf_addf(&line, "; %lld judgements not heard (rater: %s)", (long long)n,
                           nt_refusal_name((enum nt_refusal)r));
    }
    nt_print("%s", nt_strbuf_cstr(&line));
    nt_strbuf_release(&line);
    nt_dataset_close(d);
    return NT_OK;
}

nt_status nt_inspect_dataset(const char *path) {
    struct nt_dataset *d = NULL;
    struct summary s = {0};
    NT_TRY(nt_dataset_open(&d, &path, 1, NT_PURPOSE_ANY, 0));
    nt_status st = count_all(d, &s);
    if (st == NT_OK) print_summary(d, &s);
    nt_dataset_close(d);
    for (int i = 0; i < N_PURPOSES && st == NT_OK; i++) st = print_purpose(path, i);
    return st;
}
