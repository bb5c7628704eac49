#include "dataset_writer.h"

#include "hash.h"
#include "idset.h"
#include "tok_utf8.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HMAC_BLOCK = 64 };

struct subject_row {
    uint8_t id[NT_CORPUS_ID];
    struct nt_subject_facts facts;
};

/* The rows' names of one table: sources, licenses, models. */
struct names {
    struct nt_id_set set; /* "line" is the index + 1 */
    int64_t n;
};

struct nt_dataset_writer {
    struct nt_h5_writer *h5;
    struct nt_h5_column *col[NT_N_COLS];
    struct nt_h5_ragged text[NT_N_COLS];
    int64_t n_rows[NT_N_TABLES];
    struct subject_row *subjects; // [cap_subjects]
    int64_t cap_subjects;
    struct nt_id_set users;
    struct names sources, licenses, models;
    int64_t *first_message; // [cap_conversations] of each conversation
    uint8_t *conv_kind;     // [cap_conversations]
    int64_t cap_conversations;
    uint8_t key[HMAC_BLOCK];
    int32_t key_id; /* 0: no key */
    struct nt_sha256 *content;
    struct nt_strbuf seed;
};

/* ---- columns ---- */

static nt_status put(struct nt_dataset_writer *w, enum nt_col col, const void *row) {
    return nt_h5_append(w->col[col], row, 1);
}

static nt_status put_u8(struct nt_dataset_writer *w, enum nt_col col, int value) {
    const uint8_t v = (uint8_t)value;
    return put(w, col, &v);
}

static nt_status put_text(struct nt_dataset_writer *w, enum nt_col col, const char *text, size_t len) {
    if (!nt_utf8_valid(text ? text : "", len))
        return NT_FAIL(NT_E_DATA, "%s: entry %" PRId64 " is not valid UTF-8", nt_col_rows[col].path,
                       w->n_rows[nt_col_rows[col].table]);
    return nt_h5_ragged_append(&w->text[col], text ? text : "", (int64_t)len);
}

static nt_status open_columns(struct nt_dataset_writer *w) {
    const int64_t zero = 0;
    for (int t = 0; t < NT_N_TABLES; t++) NT_TRY(nt_h5_group(w->h5, nt_table_paths[t], nt_table_paths[t] + 1));
    for (int c = 0; c < NT_N_COLS; c++) {
        const struct nt_col_row *r = &nt_col_rows[c];
        const char *values = nt_col_values((enum nt_col)c);
        if (r->encoding) {
            NT_TRY(nt_h5_ragged(w->h5, r->path, NT_H5_U8, r->encoding, &w->text[c]));
            continue;
        }
        NT_TRY(nt_h5_column(w->h5, r->path, r->type, r->width, &w->col[c]));
        if (values) NT_TRY(nt_h5_attr_str(w->h5, r->path, "values", values));
        if (r->check == NT_CHECK_PTR) NT_TRY(put(w, (enum nt_col)c, &zero));
    }
    return NT_OK;
}

/* Over the names, types and checks of all columns. */
static void schema_digest(char hex[NT_SHA256_HEX]) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    uint8_t digest[NT_SHA256_BYTES];
    for (int c = 0; c < NT_N_COLS; c++) {
        const struct nt_col_row *r = &nt_col_rows[c];
        nt_strbuf_addf(&s, "%s %d %d %d %d %s\n", r->path, r->type, r->width, r->check, r->arg,
                       r->encoding ? r->encoding : "");
    }
    nt_sha256(s.data, s.len, digest);
    nt_hex(digest, sizeof digest, hex);
    nt_strbuf_release(&s);
}

static nt_status open_file(struct nt_dataset_writer *w, const char *path, const char *creator, const char *license) {
    char schema[NT_SHA256_HEX];
    schema_digest(schema);
    NT_TRY(nt_sha256_new(&w->content));
    NT_TRY(nt_h5_create(&w->h5, path));
    NT_TRY(nt_h5_attr_str(w->h5, "/", "encoding-type", NT_CORPUS_ENCODING));
    NT_TRY(nt_h5_attr_str(w->h5, "/", "encoding-version", NT_DATASET_VERSION));
    NT_TRY(nt_h5_attr_str(w->h5, "/", "creator", creator));
    NT_TRY(nt_h5_attr_str(w->h5, "/", "license", license));
    NT_TRY(nt_h5_attr_str(w->h5, "/", "schema_sha256", schema));
    return open_columns(w);
}

nt_status nt_dataset_create(struct nt_dataset_writer **out, const char *path, const char *creator, const char *license,
                            const uint8_t *key, size_t key_len) {
    struct nt_dataset_writer *w = calloc(1, sizeof *w);
    if (!w) return NT_FAIL(NT_E_NOMEM, "%s: no memory to write it", path);
    if (key) {
        uint8_t digest[NT_SHA256_BYTES];
        nt_sha256(key, key_len, digest);
        memcpy(&w->key_id, digest, sizeof w->key_id);
        w->key_id = (w->key_id & INT32_MAX) | 1;
        if (key_len <= HMAC_BLOCK)
            memcpy(w->key, key, key_len);
        else
            memcpy(w->key, digest, sizeof digest);
    }
    const nt_status st = open_file(w, path, creator, license);
    if (st != NT_OK) {
        nt_dataset_abandon(w);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    *out = w;
    return NT_OK;
}

void nt_dataset_abandon(struct nt_dataset_writer *w) {
    if (!w) return;
    uint8_t unused[NT_SHA256_BYTES];
    if (w->content) nt_sha256_finish(w->content, unused);
    nt_h5_abandon(w->h5);
    nt_id_set_release(&w->users);
    nt_id_set_release(&w->sources.set);
    nt_id_set_release(&w->licenses.set);
    nt_id_set_release(&w->models.set);
    nt_strbuf_release(&w->seed);
    explicit_bzero(w->key, sizeof w->key);
    free(w->subjects);
    free(w->first_message);
    free(w->conv_kind);
    free(w);
}

int64_t nt_dataset_count(const struct nt_dataset_writer *w, enum nt_table table) {
    return w->n_rows[table];
}

/* ---- subjects ---- */

/* FIPS 198-1: H((K ^ opad) || H((K ^ ipad) || text)). */
static void hmac_sha256(const uint8_t key[HMAC_BLOCK], const char *text, size_t len, uint8_t digest[NT_SHA256_BYTES]) {
    struct nt_strbuf inner = NT_STRBUF_INIT;
    uint8_t outer[HMAC_BLOCK + NT_SHA256_BYTES];
    for (int i = 0; i < HMAC_BLOCK; i++) {
        nt_strbuf_addc(&inner, (char)(key[i] ^ 0x36));
        outer[i] = key[i] ^ 0x5c;
    }
    nt_strbuf_add(&inner, text, len);
    nt_sha256(inner.data, inner.len, outer + HMAC_BLOCK);
    nt_sha256(outer, sizeof outer, digest);
    explicit_bzero(inner.data, HMAC_BLOCK);
    nt_strbuf_release(&inner);
}

void nt_dataset_name_user(const struct nt_dataset_writer *w, const char *user, size_t len, uint8_t id[16]) {
    uint8_t digest[NT_SHA256_BYTES];
    if (!w->key_id) {
        nt_subject_name(user, len, id);
    } else if (!nt_subject_spelled(user, len, id)) {
        hmac_sha256(w->key, user, len, digest);
        memcpy(id, digest, NT_CORPUS_ID);
    }
}

/* Rows without a user share a subject only with rows of the same facts: no consent spreads from one to another. */
static void subject_key(const struct subject_row *s, struct nt_strbuf *key) {
    nt_strbuf_reset(key);
    nt_strbuf_add(key, s->id, sizeof s->id);
    if (!nt_subject_anonymous(s->id)) return;
    const struct nt_subject_facts *f = &s->facts;
    nt_strbuf_addf(key, " %u %d %u %" PRId64 " %" PRId64 " %" PRId64, f->consent, (int)f->basis, f->version,
                   f->updated_us, f->retention_until_us, f->erased_us);
}

static bool time_ok(int64_t us) {
    return us >= 0 && us < NT_MAX_TIME_US;
}

static nt_status find_subject(struct nt_dataset_writer *w, const struct nt_subject *who, int32_t *index) {
    struct subject_row s = {
        .facts = {.consent = who->consent,
                  .basis = who->basis,
                  .version = who->version,
                  .key_id = w->key_id,
                  .updated_us = who->updated_us,
                  .retention_until_us = who->retention_until_us,
                  .erased_us = who->erased_us}
    };
    int64_t known = 0;
    const int64_t n = w->n_rows[NT_T_SUBJECTS];
    if (who->consent && who->basis == NT_BASIS_NONE)
        return NT_FAIL(NT_E_DATA, "a consent without the basis it stands on: name one of consent, contract, ...");
    if (!time_ok(who->updated_us) || !time_ok(who->retention_until_us) || !time_ok(who->erased_us))
        return NT_FAIL(NT_E_DATA, "a time of a subject is out of range, expected 1970 to 9999");
    if (who->user) nt_dataset_name_user(w, who->user, who->user_len, s.id);
    subject_key(&s, &w->seed);
    if (n >= INT32_MAX) return NT_FAIL(NT_E_UNSUPPORTED, "more than %d subjects in one corpus; split it", INT32_MAX);
    NT_TRY(nt_id_set_add(&w->users, w->seed.data, w->seed.len, n + 1, &known));
    if (known) {
        nt_subject_merge(&w->subjects[known - 1].facts, &s.facts);
        *index = (int32_t)(known - 1);
        return NT_OK;
    }
    if (n == w->cap_subjects) {
        const int64_t cap = n ? 2 * n : 64;
        struct subject_row *grown = realloc(w->subjects, (size_t)cap * sizeof *grown);
        if (!grown) return NT_FAIL(NT_E_NOMEM, "no memory for %" PRId64 " subjects", cap);
        w->subjects = grown;
        w->cap_subjects = cap;
    }
    w->subjects[n] = s;
    *index = (int32_t)w->n_rows[NT_T_SUBJECTS]++;
    return NT_OK;
}

static nt_status put_subjects(struct nt_dataset_writer *w) {
    for (int64_t i = 0; i < w->n_rows[NT_T_SUBJECTS]; i++) {
        const struct subject_row *s = &w->subjects[i];
        NT_TRY(put(w, NT_C_SUBJECT_ID, s->id));
        NT_TRY(put(w, NT_C_SUBJECT_CONSENT, &s->facts.consent));
        NT_TRY(put(w, NT_C_SUBJECT_VERSION, &s->facts.version));
        NT_TRY(put_u8(w, NT_C_SUBJECT_BASIS, (int)s->facts.basis));
        NT_TRY(put(w, NT_C_SUBJECT_UPDATED, &s->facts.updated_us));
        NT_TRY(put(w, NT_C_SUBJECT_RETENTION, &s->facts.retention_until_us));
        NT_TRY(put(w, NT_C_SUBJECT_ERASED, &s->facts.erased_us));
        NT_TRY(put(w, NT_C_SUBJECT_KEY, &s->facts.key_id));
    }
    return NT_OK;
}

/* ---- names ---- */

/* -1 for none; a new name becomes a row of its table. */
static nt_status find_name(struct nt_dataset_writer *w, struct names *names, enum nt_col col, const char *name,
                           int32_t *index) {
    int64_t known = 0;
    *index = -1;
    if (!name || !name[0]) return NT_OK;
    if (names->n >= INT32_MAX) return NT_FAIL(NT_E_UNSUPPORTED, "%s: too many names", nt_col_rows[col].path);
    NT_TRY(nt_id_set_add(&names->set, name, strlen(name), names->n + 1, &known));
    *index = (int32_t)(known ? known - 1 : names->n);
    if (known) return NT_OK;
    names->n++;
    NT_TRY(put_text(w, col, name, strlen(name)));
    w->n_rows[nt_col_rows[col].table]++;
    return NT_OK;
}

/* ---- conversations ---- */

static nt_status put_message(struct nt_dataset_writer *w, const struct nt_new_message *m) {
    const int role = nt_corpus_role(m->role);
    uint8_t digest[NT_SHA256_BYTES];
    if (role < 0) return NT_FAIL(NT_E_DATA, "a message of role \"%.40s\"", m->role ? m->role : "");
    if (!(m->weight >= 0 && m->weight <= NT_MAX_WEIGHT) || !time_ok(m->created_us))
        return NT_FAIL(NT_E_DATA, "a message's weight or time is out of range");
    nt_sha256(m->text, m->len, digest);
    NT_TRY(put_u8(w, NT_C_MSG_ROLE, role));
    NT_TRY(put(w, NT_C_MSG_WEIGHT, &m->weight));
    NT_TRY(put_u8(w, NT_C_MSG_MORE, m->has_more));
    NT_TRY(put(w, NT_C_MSG_CREATED, &m->created_us));
    NT_TRY(put(w, NT_C_MSG_SHA, digest));
    NT_TRY(put_text(w, NT_C_MSG_CONTENT, m->text, m->len));
    nt_conv_seed_add(&w->seed, role, digest);
    nt_sha256_add(w->content, &m->weight, sizeof m->weight);
    w->n_rows[NT_T_MESSAGES]++;
    return NT_OK;
}

static nt_status remember_conversation(struct nt_dataset_writer *w, enum nt_conv_kind kind) {
    const int64_t n = w->n_rows[NT_T_CONVERSATIONS];
    if (n == w->cap_conversations) {
        const int64_t cap = n ? 2 * n : 256;
        int64_t *first = realloc(w->first_message, (size_t)cap * sizeof *first);
        if (first) w->first_message = first;
        uint8_t *kinds = realloc(w->conv_kind, (size_t)cap);
        if (kinds) w->conv_kind = kinds;
        if (!first || !kinds) return NT_FAIL(NT_E_NOMEM, "no memory for %" PRId64 " conversations", cap);
        w->cap_conversations = cap;
    }
    w->first_message[n] = w->n_rows[NT_T_MESSAGES];
    w->conv_kind[n] = (uint8_t)kind;
    return NT_OK;
}

/* An id that looks like a UUID of version 8 (RFC 9562): made of content, so that equal input makes equal files. */
static void make_uuid(const void *seed, size_t n, uint8_t id[NT_CORPUS_ID]) {
    uint8_t digest[NT_SHA256_BYTES];
    nt_sha256(seed, n, digest);
    memcpy(id, digest, NT_CORPUS_ID);
    id[6] = (uint8_t)((id[6] & 0x0f) | 0x80);
    id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
}

static nt_status put_conversation(struct nt_dataset_writer *w, const struct nt_new_conversation *c, int32_t subject) {
    uint8_t sha[NT_SHA256_BYTES], id[NT_CORPUS_ID], seed[NT_SHA256_BYTES + 8];
    int32_t source = -1, license = -1;
    const int64_t n = w->n_rows[NT_T_CONVERSATIONS];
    NT_TRY(find_name(w, &w->sources, NT_C_SOURCE_NAME, c->source, &source));
    NT_TRY(find_name(w, &w->licenses, NT_C_LICENSE_NAME, c->license, &license));
    nt_sha256(w->seed.data, w->seed.len, sha);
    memcpy(seed, sha, sizeof sha);
    memcpy(seed + sizeof sha, &n, sizeof n);
    make_uuid(seed, sizeof seed, id);
    nt_sha256_add(w->content, sha, sizeof sha);
    NT_TRY(put(w, NT_C_CONV_SUBJECT, &subject));
    NT_TRY(put(w, NT_C_CONV_ID, id));
    NT_TRY(put(w, NT_C_CONV_SHA, sha));
    NT_TRY(put(w, NT_C_CONV_ROW_SHA, c->row_sha256 ? c->row_sha256 : sha));
    NT_TRY(put_u8(w, NT_C_CONV_KIND, (int)c->kind));
    NT_TRY(put_u8(w, NT_C_CONV_FORMAT, (int)c->format));
    NT_TRY(put(w, NT_C_CONV_SOURCE, &source));
    NT_TRY(put(w, NT_C_CONV_LICENSE, &license));
    NT_TRY(put(w, NT_C_CONV_CREATED, &c->created_us));
    NT_TRY(put_u8(w, NT_C_CONV_SPLIT, (int)c->split));
    NT_TRY(put(w, NT_C_CONV_FLAGS, &c->flags));
    return put(w, NT_C_CONV_MSG_PTR, &w->n_rows[NT_T_MESSAGES]);
}

nt_status nt_dataset_add_conversation(struct nt_dataset_writer *w, const struct nt_new_conversation *c,
                                      int64_t *conversation) {
    int32_t subject = 0;
    if (c->flags & ~(uint32_t)NT_CONV_FLAGS) return NT_FAIL(NT_E_DATA, "unknown flags of a conversation");
    if (!time_ok(c->created_us)) return NT_FAIL(NT_E_DATA, "a conversation's time is out of range, expected to 9999");
    NT_TRY(find_subject(w, c->subject, &subject));
    NT_TRY(remember_conversation(w, c->kind));
    nt_conv_seed_begin(&w->seed, c->kind);
    for (int32_t i = 0; i < c->n_messages; i++) NT_TRY(put_message(w, &c->messages[i]));
    NT_TRY(put_conversation(w, c, subject));
    *conversation = w->n_rows[NT_T_CONVERSATIONS]++;
    return NT_OK;
}

static nt_status check_conversation(const struct nt_dataset_writer *w, int64_t conversation) {
    if (conversation >= 0 && conversation < w->n_rows[NT_T_CONVERSATIONS]) return NT_OK;
    return NT_FAIL(NT_E_INTERNAL, "conversation %" PRId64 " of %" PRId64, conversation, w->n_rows[NT_T_CONVERSATIONS]);
}

nt_status nt_dataset_add_generation(struct nt_dataset_writer *w, const struct nt_new_generation *g,
                                    int64_t *generation) {
    uint8_t digest[NT_SHA256_BYTES];
    int32_t model = -1;
    const uint16_t choice = (uint16_t)g->choice;
    NT_TRY(check_conversation(w, g->conversation));
    if (g->choice < 0 || g->choice > UINT16_MAX || !time_ok(g->created_us))
        return NT_FAIL(NT_E_DATA, "a generation's choice %d or its time is out of range", g->choice);
    NT_TRY(find_name(w, &w->models, NT_C_MODEL_NAME, g->model, &model));
    nt_sha256(g->text, g->len, digest);
    nt_sha256_add(w->content, &g->conversation, sizeof g->conversation);
    nt_sha256_add(w->content, digest, sizeof digest);
    NT_TRY(put(w, NT_C_GEN_CONV, &g->conversation));
    NT_TRY(put(w, NT_C_GEN_CHOICE, &choice));
    NT_TRY(put(w, NT_C_GEN_MODEL, &model));
    NT_TRY(put_u8(w, NT_C_GEN_FINISH, (int)g->finish));
    NT_TRY(put(w, NT_C_GEN_CREATED, &g->created_us));
    NT_TRY(put_u8(w, NT_C_GEN_MORE, g->has_more));
    NT_TRY(put(w, NT_C_GEN_SHA, digest));
    NT_TRY(put_text(w, NT_C_GEN_CONTENT, g->text, g->len));
    *generation = w->n_rows[NT_T_GENERATIONS]++;
    return NT_OK;
}

static int64_t end_of(const struct nt_dataset_writer *w, int64_t conversation) {
    return conversation + 1 < w->n_rows[NT_T_CONVERSATIONS] ? w->first_message[conversation + 1]
                                                            : w->n_rows[NT_T_MESSAGES];
}

int32_t nt_dataset_n_messages(const struct nt_dataset_writer *w, int64_t conversation) {
    return (int32_t)(end_of(w, conversation) - w->first_message[conversation]);
}

/* ---- judgements ---- */

static nt_status check_judgement(const struct nt_judgement *by) {
    if (by->weight >= 0 && by->weight <= NT_MAX_WEIGHT && time_ok(by->created_us)) return NT_OK;
    return NT_FAIL(NT_E_DATA, "feedback: its weight %g or time is out of range, expected 0 to %g", (double)by->weight,
                   (double)NT_MAX_WEIGHT);
}

/* The columns that feedback and preferences have alike. */
static nt_status put_judgement(struct nt_dataset_writer *w, const struct nt_judgement *by, enum nt_col rater,
                               enum nt_col source, enum nt_col weight, enum nt_col created) {
    uint8_t id[NT_CORPUS_ID] = {0};
    if (by->rater) nt_dataset_name_user(w, by->rater, by->rater_len, id);
    nt_sha256_add(w->content, id, sizeof id);
    nt_sha256_add(w->content, &by->weight, sizeof by->weight);
    nt_sha256_add(w->content, &by->created_us, sizeof by->created_us);
    NT_TRY(put(w, rater, id));
    NT_TRY(put_u8(w, source, (int)by->source));
    NT_TRY(put(w, weight, &by->weight));
    return put(w, created, &by->created_us);
}

static nt_status find_target(const struct nt_dataset_writer *w, const struct nt_new_feedback *f, int64_t *target) {
    const int64_t c = f->conversation;
    NT_TRY(check_conversation(w, c));
    const int64_t most[NT_N_TARGETS] = {nt_dataset_n_messages(w, c), w->n_rows[NT_T_GENERATIONS], INT64_MAX};
    if (f->target < 0 || f->target >= most[f->target_kind])
        return NT_FAIL(NT_E_DATA, "feedback on %s %" PRId64 ", expected one below %" PRId64,
                       f->target_kind == NT_TARGET_MESSAGE ? "message" : "generation", f->target, most[f->target_kind]);
    *target = f->target_kind == NT_TARGET_MESSAGE      ? w->first_message[c] + f->target
              : f->target_kind == NT_TARGET_GENERATION ? f->target
                                                       : c;
    return NT_OK;
}

nt_status nt_dataset_add_feedback(struct nt_dataset_writer *w, const struct nt_new_feedback *f, int64_t *feedback) {
    int64_t target = 0;
    NT_TRY(find_target(w, f, &target));
    NT_TRY(check_judgement(&f->by));
    const bool thumb_ok = f->kind != NT_FEEDBACK_THUMB || f->value == 1 || f->value == -1;
    const bool rating_ok = f->kind != NT_FEEDBACK_RATING || (f->value >= 0 && f->value <= 1);
    if (!thumb_ok || !rating_ok || !isfinite(f->value))
        return NT_FAIL(NT_E_DATA, "feedback: a %s of %g", f->kind == NT_FEEDBACK_THUMB ? "thumb" : "rating",
                       (double)f->value);
    const int64_t numbers[] = {(int64_t)f->target_kind, target, (int64_t)f->kind, (int64_t)f->edit_len};
    nt_sha256_add(w->content, numbers, sizeof numbers);
    nt_sha256_add(w->content, &f->value, sizeof f->value);
    nt_sha256_add(w->content, f->edit ? f->edit : "", f->edit_len);
    NT_TRY(put_u8(w, NT_C_FB_TARGET_KIND, (int)f->target_kind));
    NT_TRY(put(w, NT_C_FB_TARGET, &target));
    NT_TRY(put_u8(w, NT_C_FB_KIND, (int)f->kind));
    NT_TRY(put(w, NT_C_FB_VALUE, &f->value));
    NT_TRY(put_judgement(w, &f->by, NT_C_FB_RATER, NT_C_FB_SOURCE, NT_C_FB_WEIGHT, NT_C_FB_CREATED));
    NT_TRY(put_text(w, NT_C_FB_COMMENT, f->comment, f->comment_len));
    NT_TRY(put_text(w, NT_C_FB_EDIT, f->edit, f->edit_len));
    *feedback = w->n_rows[NT_T_FEEDBACK]++;
    return NT_OK;
}

static bool side_ok(const struct nt_dataset_writer *w, const struct nt_new_pair *p, int64_t side) {
    if (p->side == NT_SIDE_GENERATION) return side >= 0 && side < w->n_rows[NT_T_GENERATIONS];
    return side >= 0 && side < w->n_rows[NT_T_CONVERSATIONS] && w->conv_kind[side] == NT_CONV_COMPLETION;
}

nt_status nt_dataset_add_pair(struct nt_dataset_writer *w, const struct nt_new_pair *p, int64_t *pair) {
    const int64_t upto = p->n_prompt;
    NT_TRY(check_conversation(w, p->conversation));
    NT_TRY(check_judgement(&p->by));
    if (!side_ok(w, p, p->chosen) || !side_ok(w, p, p->rejected) || upto < 0)
        return NT_FAIL(NT_E_INTERNAL, "a pair of %" PRId64 " and %" PRId64 " that are not there", p->chosen,
                       p->rejected);
    const int64_t numbers[] = {p->conversation, p->n_prompt, (int64_t)p->side, p->chosen, p->rejected};
    nt_sha256_add(w->content, numbers, sizeof numbers);
    NT_TRY(put(w, NT_C_PREF_CONV, &p->conversation));
    NT_TRY(put(w, NT_C_PREF_UPTO, &upto));
    NT_TRY(put_u8(w, NT_C_PREF_KIND, (int)p->side));
    NT_TRY(put(w, NT_C_PREF_CHOSEN, &p->chosen));
    NT_TRY(put(w, NT_C_PREF_REJECTED, &p->rejected));
    NT_TRY(put(w, NT_C_PREF_MARGIN, &p->margin));
    NT_TRY(put_u8(w, NT_C_PREF_ORIGIN, (int)p->origin));
    NT_TRY(put_judgement(w, &p->by, NT_C_PREF_RATER, NT_C_PREF_SOURCE, NT_C_PREF_WEIGHT, NT_C_PREF_CREATED));
    *pair = w->n_rows[NT_T_PREFERENCES]++;
    return NT_OK;
}

nt_status nt_dataset_add_shell(struct nt_dataset_writer *w, enum nt_shell kind, int64_t conversation, int64_t target,
                               const char *json, size_t len) {
    NT_TRY(check_conversation(w, conversation));
    NT_TRY(put(w, NT_C_ROW_CONV, &conversation));
    NT_TRY(put_u8(w, NT_C_ROW_KIND, (int)kind));
    NT_TRY(put(w, NT_C_ROW_TARGET, &target));
    NT_TRY(put_text(w, NT_C_ROW_SHELL, json, len));
    w->n_rows[NT_T_ROWS]++;
    return NT_OK;
}

nt_status nt_dataset_add_step(struct nt_dataset_writer *w, const char *json, size_t len) {
    NT_TRY(put_text(w, NT_C_STEP, json, len));
    w->n_rows[NT_T_PROVENANCE]++;
    return NT_OK;
}

/* ---- the end ---- */

static void uuid_text(const uint8_t id[NT_CORPUS_ID], char text[37]) {
    char hex[33];
    nt_hex(id, NT_CORPUS_ID, hex);
    (void)snprintf(text, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

static nt_status put_totals(struct nt_dataset_writer *w) {
    static const struct {
        const char *name;
        enum nt_table table;
    } totals[] = {
        {"n_conversations", NT_T_CONVERSATIONS},
        {"n_messages",      NT_T_MESSAGES     },
        {"n_generations",   NT_T_GENERATIONS  },
        {"n_feedback",      NT_T_FEEDBACK     },
        {"n_preferences",   NT_T_PREFERENCES  },
    };
    for (size_t i = 0; i < sizeof totals / sizeof *totals; i++)
        NT_TRY(nt_h5_attr_i64(w->h5, "/", totals[i].name, w->n_rows[totals[i].table]));
    return NT_OK;
}

static nt_status finish(struct nt_dataset_writer *w) {
    uint8_t digest[NT_SHA256_BYTES], id[NT_CORPUS_ID];
    char hex[NT_SHA256_HEX], uuid[37];
    NT_TRY(put_subjects(w));
    nt_sha256_finish(w->content, digest);
    w->content = NULL;
    nt_hex(digest, sizeof digest, hex);
    make_uuid(digest, sizeof digest, id);
    uuid_text(id, uuid);
    NT_TRY(nt_h5_attr_str(w->h5, "/", "content_sha256", hex));
    NT_TRY(nt_h5_attr_str(w->h5, "/", "uuid", uuid));
    NT_TRY(put_totals(w));
    struct nt_h5_writer *h5 = w->h5;
    w->h5 = NULL;
    return nt_h5_publish(h5);
}

nt_status nt_dataset_publish(struct nt_dataset_writer *w) {
    const nt_status st = finish(w);
    nt_dataset_abandon(w);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
