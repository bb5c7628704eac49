#include "row_meta.h"

#include "isotime.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { MAX_NAME = 1024 };

static nt_status read_time(const char *key, const char *text, int64_t *us) {
    *us = 0;
    if (text[0] == '\0' || nt_isotime_parse(text, strlen(text), us)) return NT_OK;
    return NT_FAIL(NT_E_CONFIG, "ingest.%s: \"%s\" is no time, expected such as 2026-02-03 or 2026-02-03T04:05:06Z",
                   key, text);
}

nt_status nt_row_defaults(const struct nt_config *c, struct nt_row_meta *defaults) {
    uint32_t consent = 0;
    *defaults = (struct nt_row_meta){.source = c->ingest_source, .license = c->ingest_license};
    NT_TRY(nt_consent_parse(c->ingest_consent, &consent));
    NT_TRY(read_time("created", c->ingest_created, &defaults->created_us));
    NT_TRY(read_time("retention_until", c->ingest_retention_until, &defaults->subject.retention_until_us));
    defaults->subject.consent = consent;
    defaults->subject.basis = (enum nt_basis)nt_basis_find(c->ingest_basis, NULL);
    defaults->split = (enum nt_split)nt_split_find(c->ingest_split, NULL);
    if (consent && defaults->subject.basis == NT_BASIS_NONE)
        return NT_FAIL(NT_E_CONFIG,
                       "ingest.consent: \"%s\" for rows that say nothing needs the basis it stands on: add --basis "
                       "consent, contract, legitimate-interest, public, license or synthetic",
                       c->ingest_consent);
    if (!consent) defaults->subject.basis = NT_BASIS_NONE;
    return NT_OK;
}

bool nt_row_time(const struct nt_json *v, int64_t *us) {
    size_t len = 0;
    const char *s = nt_json_str(v, &len);
    *us = 0;
    if (nt_json_type(v) == NT_JSON_NULL) return true;
    if (s) return nt_isotime_parse(s, len, us);
    return (nt_json_is(v, NT_JSON_INT) || nt_json_is(v, NT_JSON_REAL)) &&
           nt_isotime_from_seconds(nt_json_num(v, -1), us);
}

/* "a.b.c" within an object; NULL also for null. */
static const struct nt_json *find_in(const struct nt_json *doc, const char *name) {
    char part[MAX_NAME];
    while (doc) {
        const size_t n = strcspn(name, ".");
        if (n == 0 || n >= sizeof part) return NULL;
        memcpy(part, name, n);
        part[n] = '\0';
        doc = nt_json_get(doc, part);
        if (name[n] == '\0') return nt_json_type(doc) == NT_JSON_NULL ? NULL : doc;
        name += n + 1;
    }
    return NULL;
}

/* A Batch line may say it in its body, or in the body's metadata. */
static const struct nt_json *find_field(const struct nt_json *doc, const char *name) {
    const struct nt_json *body = nt_json_get(doc, "body"), *v = find_in(doc, name);
    if (!v) v = find_in(body, name);
    return v ? v : find_in(nt_json_get(body, "metadata"), name);
}

static bool complain(char *error, size_t cap, const char *name, const struct nt_json *v, const char *expected) {
    size_t len = 0;
    const char *s = nt_json_str(v, &len);
    (void)snprintf(error, cap, "%.60s is %s%.60s%s, expected %s", name, s ? "\"" : "", s ? s : nt_json_type_name(v),
                   s ? "\"" : "", expected);
    return false;
}

static bool read_name(const struct nt_json *doc, const char *field, const char **name, char *error, size_t cap) {
    const struct nt_json *v = find_field(doc, field);
    size_t len = 0;
    const char *s = nt_json_str(v, &len);
    if (!v) return true;
    if (!s || len > MAX_NAME || strlen(s) != len) return complain(error, cap, field, v, "a string without NUL");
    *name = s;
    return true;
}

static bool read_subject(const struct nt_json *doc, const char *field, struct nt_row_meta *m, char *error, size_t cap) {
    const struct nt_json *v = find_field(doc, field);
    struct nt_subject *s = &m->subject;
    if (!v) return true;
    s->user = nt_json_str(v, &s->user_len);
    if (nt_json_is(v, NT_JSON_INT)) {
        const int n = snprintf(m->number, sizeof m->number, "%" PRId64, nt_json_int(v, 0));
        s->user = m->number;
        s->user_len = (size_t)n;
    }
    if (!s->user) return complain(error, cap, field, v, "a string or a whole number");
    if (s->user_len == 0)
        s->user = NULL;
    else
        m->user = v;
    return true;
}

static bool read_purpose(const struct nt_json *v, uint32_t *bits) {
    size_t len = 0;
    const char *s = nt_json_str(v, &len);
    return s && strlen(s) == len && nt_consent_parse(s, bits) == NT_OK; /* what follows a NUL may take it back */
}

/* "train,distill" or ["train", "distill"]; of a list with "none" nothing else is taken. */
static bool read_purposes(const struct nt_json *v, uint32_t *bits) {
    const bool list = nt_json_is(v, NT_JSON_ARRAY);
    bool good = list || read_purpose(v, bits), none = false;
    if (list) *bits = 0;
    for (size_t i = 0; i < nt_json_len(v) && good && list; i++) {
        uint32_t bit = 0;
        good = read_purpose(nt_json_at(v, i), &bit);
        none = none || (good && bit == 0);
        *bits |= bit;
    }
    nt_error_clear();
    return good && !(none && *bits);
}

static bool read_consent_object(const struct nt_json *v, struct nt_subject *s) {
    const struct nt_json *basis = nt_json_get(v, "basis"), *version = nt_json_get(v, "version");
    const int b = basis ? nt_basis_find(nt_json_str(basis, NULL), NULL) : NT_BASIS_CONSENT;
    const int64_t number = version ? nt_json_int(version, -1) : 0;
    if (b < 0 || number < 0 || number > UINT16_MAX) return false;
    s->basis = (enum nt_basis)b;
    s->version = (uint16_t)number;
    const struct nt_json *until = nt_json_given(v, "retention_until");
    return nt_row_time(nt_json_get(v, "updated"), &s->updated_us) &&
           (!until || nt_row_time(until, &s->retention_until_us)) &&
           read_purposes(nt_json_get(v, "purposes"), &s->consent);
}

/* What the row says replaces what was stated for silent rows; a retention stays unless the row names its own. */
static bool read_consent(const struct nt_json *doc, const char *field, struct nt_subject *s, char *error, size_t cap) {
    const struct nt_json *v = find_field(doc, field);
    if (!v) return true;
    s->basis = NT_BASIS_CONSENT;
    s->version = 0;
    s->updated_us = 0;
    const bool object = nt_json_is(v, NT_JSON_OBJECT);
    if (object ? !read_consent_object(v, s) : !read_purposes(v, &s->consent))
        return complain(error, cap, field, v,
                        "generate, train, distill or publish as a string with commas, a list, or {\"purposes\", "
                        "\"basis\", \"updated\", \"retention_until\", \"version\"}");
    if (s->consent && s->basis == NT_BASIS_NONE)
        return complain(error, cap, field, v, "a basis other than none for what it allows");
    if (!s->consent) s->basis = NT_BASIS_NONE;
    return true;
}

bool nt_row_meta_read(const struct nt_config *c, const struct nt_row_meta *defaults, const struct nt_json *doc,
                      struct nt_row_meta *meta, char *error, size_t cap) {
    const struct nt_json *created = find_field(doc, c->ingest_created_field), *split = find_in(doc, "split");
    *meta = *defaults;
    if (!read_subject(doc, c->ingest_subject_field, meta, error, cap) ||
        !read_consent(doc, c->ingest_consent_field, &meta->subject, error, cap) ||
        !read_name(doc, c->ingest_source_field, &meta->source, error, cap) ||
        !read_name(doc, c->ingest_license_field, &meta->license, error, cap))
        return false;
    if (created && !nt_row_time(created, &meta->created_us))
        return complain(error, cap, c->ingest_created_field, created,
                        "seconds since 1970 or such as 2026-02-03T04:05:06Z");
    if (!split) return true;
    const int i = nt_split_find(nt_json_str(split, NULL), NULL);
    if (i < 0) return complain(error, cap, "split", split, "none, train, valid or test");
    meta->split = (enum nt_split)i;
    return true;
}
