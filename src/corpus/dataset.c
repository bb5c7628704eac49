#include "dataset.h"

#include "clock.h"
#include "dataset_impl.h"
#include "fileio.h"
#include "hash.h"
#include "idset.h"
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- which files ---- */

struct path_list {
    char **path; // [n]
    int32_t n, cap;
};

static void release_paths(struct path_list *l) {
    for (int32_t i = 0; i < l->n; i++) free(l->path[i]);
    free(l->path);
}

static nt_status add_path(struct path_list *l, const char *path) {
    if (l->n == l->cap) {
        const int32_t cap = l->n ? 2 * l->n : 16;
        char **grown = realloc(l->path, (size_t)cap * sizeof *grown);
        if (!grown) return NT_FAIL(NT_E_NOMEM, "%s: no memory for its name", path);
        l->path = grown;
        l->cap = cap;
    }
    l->path[l->n] = strdup(path);
    if (!l->path[l->n]) return NT_FAIL(NT_E_NOMEM, "%s: no memory for its name", path);
    l->n++;
    return NT_OK;
}

static int is_corpus_name(const struct dirent *d) {
    const char *dot = strrchr(d->d_name, '.');
    return d->d_name[0] != '.' && dot && strcmp(dot, ".h5") == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static nt_status add_directory(struct path_list *l, const char *dir) {
    struct dirent **names = NULL;
    char path[4096];
    const int n = scandir(dir, &names, is_corpus_name, by_name);
    nt_status st = NT_OK;
    if (n <= 0) st = NT_FAIL(NT_E_NOINPUT, "%s: no corpus (*.h5) in this directory", dir);
    for (int i = 0; i < n; i++) {
        if (st == NT_OK) st = nt_path_join(path, sizeof path, dir, names[i]->d_name);
        if (st == NT_OK) st = add_path(l, path);
        free(names[i]);
    }
    free(names);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static nt_status list_paths(struct path_list *l, const char *const *paths, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        if (nt_is_dir(paths[i]))
            NT_TRY(add_directory(l, paths[i]));
        else
            NT_TRY(add_path(l, paths[i]));
    }
    for (int32_t i = 1; i < l->n; i++) {
        for (int32_t k = 0; k < i; k++) {
            if (strcmp(l->path[i], l->path[k]) == 0)
                return NT_FAIL(NT_E_USAGE, "%s: named twice; its rows would count twice", l->path[i]);
        }
    }
    return NT_OK;
}

/* ---- subjects over all files ---- */

static nt_status grow_subjects(struct nt_dataset *d) {
    if (d->n_subjects < d->cap_subjects) return NT_OK;
    if (d->n_subjects > INT32_MAX / 2) return NT_FAIL(NT_E_UNSUPPORTED, "more than %d subjects", INT32_MAX / 2);
    const int32_t cap = d->n_subjects ? 2 * d->n_subjects : 64;
    struct nt_subject_facts *grown = realloc(d->subjects, (size_t)cap * sizeof *grown);
    if (!grown) return NT_FAIL(NT_E_NOMEM, "no memory for %d subjects", cap);
    d->subjects = grown;
    d->cap_subjects = cap;
    return NT_OK;
}

static nt_status add_subject(struct nt_dataset *d, struct nt_dsfile *f, int32_t i, int32_t *index) {
    uint8_t id[NT_CORPUS_ID];
    struct nt_subject_facts facts;
    int64_t known = 0;
    NT_TRY(nt_dsfile_subject(f, i, id, &facts));
    NT_TRY(grow_subjects(d));
    if (!nt_subject_anonymous(id))
        NT_TRY(nt_id_set_add(&d->ids, (const char *)id, sizeof id, (int64_t)d->n_subjects + 1, &known));
    if (known) {
        nt_subject_merge(&d->subjects[known - 1], &facts);
        *index = (int32_t)(known - 1);
        return NT_OK;
    }
    d->subjects[d->n_subjects] = facts;
    *index = d->n_subjects++;
    return NT_OK;
}

static nt_status merge_subjects(struct nt_dataset *d) {
    nt_status st = NT_OK;
    for (int32_t k = 0; k < d->n_files && st == NT_OK; k++) {
        struct nt_dataset_shard *s = &d->shards[k];
        const int64_t n = s->f.n[NT_T_SUBJECTS];
        s->subject = calloc((size_t)n + 1, sizeof *s->subject);
        if (!s->subject) st = NT_FAIL(NT_E_NOMEM, "%s: no memory for its subjects", s->f.path);
        if (n > INT32_MAX / 2) st = NT_FAIL(NT_E_UNSUPPORTED, "%s: more than %d subjects", s->f.path, INT32_MAX / 2);
        for (int64_t i = 0; i < n && st == NT_OK; i++) st = add_subject(d, &s->f, (int32_t)i, &s->subject[i]);
    }
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

/* ---- what may be seen ---- */

/* The one place that decides over a conversation; NT_N_REFUSALS: it may be seen. The owner (no purpose) is refused only
 * what was erased: he must see the rest to correct it. */
static enum nt_refusal refuse(const struct nt_subject_facts *s, uint32_t flags, enum nt_purpose purpose,
                              int64_t now_us) {
    if (s->erased_us != 0) return NT_REFUSED_ERASED;
    if (purpose == NT_PURPOSE_ANY) return NT_N_REFUSALS;
    if (s->basis == NT_BASIS_NONE || !nt_consent_allows(s->consent, (uint32_t)purpose)) return NT_REFUSED_CONSENT;
    if (s->retention_until_us != 0 && now_us >= s->retention_until_us) return NT_REFUSED_RETENTION;
    return flags & NT_CONV_QUARANTINED ? NT_REFUSED_QUARANTINE : NT_N_REFUSALS;
}

/* People rate also what others said, and an edit is their own words: a rater who is a subject is heard for what that
 * subject allows. Of others nothing is known but that the conversation's subject consented. */
enum nt_refusal nt_dataset_refuse_rater(const struct nt_dataset *d, const uint8_t id[NT_CORPUS_ID]) {
    const int64_t known = d->any_mute ? nt_id_set_find(&d->ids, (const char *)id, NT_CORPUS_ID) : 0;
    return known ? refuse(&d->subjects[known - 1], 0, d->purpose, d->now_us) : NT_N_REFUSALS;
}

static nt_status count_unheard(struct nt_dataset *d, struct nt_dsfile *f, enum nt_table table, enum nt_col rater) {
    for (int64_t i = 0; i < f->n[table]; i++) {
        uint8_t id[NT_CORPUS_ID];
        NT_TRY(nt_dsfile_get(f, rater, i, id));
        const enum nt_refusal why = nt_dataset_refuse_rater(d, id);
        if (why != NT_N_REFUSALS) d->n_unheard[why]++;
    }
    return NT_OK;
}

static nt_status find_mute(struct nt_dataset *d) {
    for (int32_t i = 0; i < d->n_subjects && !d->any_mute; i++)
        d->any_mute = refuse(&d->subjects[i], 0, d->purpose, d->now_us) != NT_N_REFUSALS;
    for (int32_t k = 0; k < d->n_files && d->any_mute; k++) {
        NT_TRY(count_unheard(d, &d->shards[k].f, NT_T_FEEDBACK, NT_C_FB_RATER));
        NT_TRY(count_unheard(d, &d->shards[k].f, NT_T_PREFERENCES, NT_C_PREF_RATER));
    }
    return NT_OK;
}

static nt_status choose_rows(struct nt_dataset *d, struct nt_dataset_shard *s) {
    const int64_t n = s->f.n[NT_T_CONVERSATIONS];
    s->visible = malloc(((size_t)n + 1) * sizeof *s->visible);
    if (!s->visible) return NT_FAIL(NT_E_NOMEM, "%s: no memory for its rows", s->f.path);
    for (int64_t i = 0; i < n; i++) {
        uint32_t flags = 0;
        if (s->f.conv_kind[i] == NT_CONV_COMPLETION) continue;
        NT_TRY(nt_dsfile_get(&s->f, NT_C_CONV_FLAGS, i, &flags));
        const enum nt_refusal r = refuse(&d->subjects[s->subject[s->f.subject[i]]], flags, d->purpose, d->now_us);
        s->info.n_conversations++;
        if (r == NT_N_REFUSALS)
            s->visible[s->info.n_seen++] = i;
        else
            s->info.refused[r]++;
    }
    s->first = d->n_records;
    d->n_records += s->info.n_seen;
    return NT_OK;
}

/* A copy under another name would count each of its rows twice. */
static nt_status refuse_copies(const struct nt_dataset *d, const struct nt_dataset_shard *s) {
    for (const struct nt_dataset_shard *other = d->shards; other < s; other++) {
        if (strcmp(other->f.content_sha256, s->f.content_sha256) == 0 && s->f.n[NT_T_CONVERSATIONS] > 0)
            return NT_FAIL(NT_E_DATA, "%s: has the same content as %s; leave one of them out", s->f.path,
                           other->f.path);
    }
    return NT_OK;
}

static nt_status open_all(struct nt_dataset *d, const struct path_list *l) {
    d->shards = calloc((size_t)l->n + 1, sizeof *d->shards);
    if (!d->shards) return NT_FAIL(NT_E_NOMEM, "no memory for %d corpora", l->n);
    for (; d->n_files < l->n; d->n_files++) {
        struct nt_dataset_shard *s = &d->shards[d->n_files];
        NT_TRY(nt_dsfile_open(&s->f, l->path[d->n_files]));
        s->info.path = s->f.path;
        s->info.license = s->f.license;
        memcpy(s->info.uuid, s->f.uuid, sizeof s->info.uuid);
        memcpy(s->info.content_sha256, s->f.content_sha256, sizeof s->info.content_sha256);
    }
    for (int32_t k = 0; k < d->n_files; k++) NT_TRY(refuse_copies(d, &d->shards[k]));
    NT_TRY(merge_subjects(d));
    NT_TRY(find_mute(d));
    for (int32_t k = 0; k < d->n_files; k++) NT_TRY(choose_rows(d, &d->shards[k]));
    return NT_OK;
}

nt_status nt_dataset_open(struct nt_dataset **out, const char *const *paths, int32_t n_paths, enum nt_purpose purpose,
                          int64_t now_us) {
    struct path_list list = {0};
    struct nt_dataset *d = calloc(1, sizeof *d);
    nt_status st = d ? list_paths(&list, paths, n_paths) : NT_FAIL(NT_E_NOMEM, "no memory for a dataset");
    if (st == NT_OK) {
        d->purpose = purpose;
        d->now_us = now_us ? now_us : (int64_t)(nt_unix_time() * 1e6);
        st = open_all(d, &list);
    }
    release_paths(&list);
    if (st != NT_OK) {
        nt_dataset_close(d);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    *out = d;
    return NT_OK;
}

void nt_dataset_close(struct nt_dataset *d) {
    if (!d) return;
    for (int32_t k = 0; k < d->n_files; k++) {
        free(d->shards[k].subject);
        free(d->shards[k].visible);
        nt_dsfile_close(&d->shards[k].f);
    }
    free(d->shards);
    free(d->subjects);
    nt_id_set_release(&d->ids);
    free(d);
}

int32_t nt_dataset_n_files(const struct nt_dataset *d) {
    return d->n_files;
}

const struct nt_dataset_file *nt_dataset_file(const struct nt_dataset *d, int32_t file) {
    return &d->shards[file].info;
}

int64_t nt_dataset_refused(const struct nt_dataset *d, enum nt_refusal r) {
    int64_t n = 0;
    for (int32_t k = 0; k < d->n_files; k++) n += d->shards[k].info.refused[r];
    return n;
}

int64_t nt_dataset_n_records(const struct nt_dataset *d) {
    return d->n_records;
}

int32_t nt_dataset_n_subjects(const struct nt_dataset *d) {
    return d->n_subjects;
}

int64_t nt_dataset_n_unheard(const struct nt_dataset *d, enum nt_refusal r) {
    return d->n_unheard[r];
}

void nt_dataset_digest(const struct nt_dataset *d, uint8_t digest[32]) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_strbuf_adds(&s, "nocturne dataset 1\n");
    for (int32_t k = 0; k < d->n_files; k++) nt_strbuf_addf(&s, "%s\n", d->shards[k].info.content_sha256);
    nt_sha256(s.data, s.len, digest);
    nt_strbuf_release(&s);
}

/* ---- heads ---- */

/* The shard that has the record: the last that begins at or before it, since the next begins where this one ends. */
static struct nt_dataset_shard *find_shard(struct nt_dataset *d, int64_t record) {
    int32_t low = 0, high = d->n_files;
    while (high - low > 1) {
        const int32_t mid = low + (high - low) / 2;
        if (d->shards[mid].first <= record)
            low = mid;
        else
            high = mid;
    }
    return &d->shards[low];
}

static nt_status count_of(struct nt_dsfile *f, const struct nt_dsfile_index *x, int64_t row, int32_t *n) {
    const int64_t wide = x->ptr[row + 1] - x->ptr[row];
    if (wide > INT32_MAX / 2)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: %" PRId64 " rows hang on conversation %" PRId64, f->path, wide, row);
    *n = (int32_t)wide;
    return NT_OK;
}

static nt_status read_head(struct nt_dsfile *f, int64_t row, struct nt_record_head *h) {
    uint8_t kind = 0, format = 0, split = 0;
    int32_t source = 0, license = 0;
    NT_TRY(nt_dsfile_get(f, NT_C_CONV_ID, row, h->id));
    NT_TRY(nt_dsfile_get(f, NT_C_CONV_SHA, row, h->sha256));
    NT_TRY(nt_dsfile_get(f, NT_C_CONV_ROW_SHA, row, h->row_sha256));
    NT_TRY(nt_dsfile_get(f, NT_C_CONV_KIND, row, &kind));
    NT_TRY(nt_dsfile_get(f, NT_C_CONV_FORMAT, row, &format));
    NT_TRY(nt_dsfile_get(f, NT_C_CONV_SPLIT, row, &split));
    NT_TRY(nt_dsfile_get(f, NT_C_CONV_SOURCE, row, &source));
    NT_TRY(nt_dsfile_get(f, NT_C_CONV_LICENSE, row, &license));
    NT_TRY(nt_dsfile_get(f, NT_C_CONV_CREATED, row, &h->created_us));
    NT_TRY(nt_dsfile_get(f, NT_C_CONV_FLAGS, row, &h->flags));
    NT_TRY(nt_dsfile_get(f, NT_C_SUBJECT_ID, f->subject[row], h->subject_id));
    h->kind = (enum nt_conv_kind)kind;
    h->format = (int32_t)format;
    h->split = (enum nt_split)split;
    h->source = nt_dsfile_name(&f->sources, source);
    h->license = nt_dsfile_name(&f->licenses, license);
    h->has_tools = (h->flags & NT_CONV_TOOLS) != 0;
    h->anonymous = nt_subject_anonymous(h->subject_id);
    h->n_messages = (int32_t)(f->msg_ptr[row + 1] - f->msg_ptr[row]);
    NT_TRY(count_of(f, &f->generations, row, &h->n_generations));
    NT_TRY(count_of(f, &f->feedback, row, &h->n_feedback));
    return count_of(f, &f->pairs, row, &h->n_pairs);
}

nt_status nt_dataset_find(struct nt_dataset *d, int64_t record, struct nt_record_head *head, struct nt_dsfile **f) {
    if (record < 0 || record >= d->n_records)
        return NT_FAIL(NT_E_INTERNAL, "record %" PRId64 " of %" PRId64, record, d->n_records);
    struct nt_dataset_shard *s = find_shard(d, record);
    *head = (struct nt_record_head){.file = (int32_t)(s - d->shards), .row = s->visible[record - s->first]};
    NT_TRY(read_head(&s->f, head->row, head));
    head->subject = s->subject[s->f.subject[head->row]];
    head->consent = d->subjects[head->subject].consent;
    head->basis = d->subjects[head->subject].basis;
    *f = &s->f;
    return NT_OK;
}

nt_status nt_dataset_head(struct nt_dataset *d, int64_t record, struct nt_record_head *head) {
    struct nt_dsfile *f = NULL;
    return nt_dataset_find(d, record, head, &f);
}
