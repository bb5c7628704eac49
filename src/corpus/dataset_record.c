/* Loading one record: its texts go into one buffer, and pointers into it are set when it no longer moves. */
#include "dataset_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SIDE_TEXTS = 1 << 20, MAX_RECORD_BYTES = 1 << 30 };

struct fixup {
    const char **where;
    size_t at;
};

struct nt_record_memory {
    struct nt_strbuf text, seed;
    struct fixup *fixups;
    int64_t n_fixups, cap_fixups;
    struct nt_record_text *sides; /* of the pairs */
    size_t cap[5];                /* bytes of each array */
};

struct loader {
    const struct nt_dataset *d;
    struct nt_dsfile *f;
    struct nt_record *r;
    struct nt_record_memory *m;
};

void nt_record_release(struct nt_record *r) {
    if (r->memory) {
        nt_strbuf_release(&r->memory->text);
        nt_strbuf_release(&r->memory->seed);
        free(r->memory->fixups);
        free(r->memory->sides);
        free(r->memory);
    }
    free(r->messages);
    free(r->generations);
    free(r->feedback);
    free(r->pairs);
    *r = (struct nt_record){0};
}

/* At least n zeroed elements in *array, which grows only. */
static nt_status make_room(const struct loader *l, int which, int64_t n, size_t elem, void *array) {
    void **to = array;
    size_t bytes = 0;
    if (__builtin_mul_overflow((size_t)n + 1, elem, &bytes)) return NT_FAIL(NT_E_NOMEM, "%s: too large", l->f->path);
    if (bytes > l->m->cap[which]) {
        free(*to);
        *to = malloc(bytes);
        l->m->cap[which] = *to ? bytes : 0;
        if (!*to) return NT_FAIL(NT_E_NOMEM, "%s: no memory for a record", l->f->path);
    }
    memset(*to, 0, bytes);
    return NT_OK;
}

static nt_status point_later(const struct loader *l, const char **where, size_t at) {
    struct nt_record_memory *m = l->m;
    if (m->n_fixups == m->cap_fixups) {
        const int64_t cap = m->cap_fixups ? 2 * m->cap_fixups : 64;
        struct fixup *grown = realloc(m->fixups, (size_t)cap * sizeof *grown);
        if (!grown) return NT_FAIL(NT_E_NOMEM, "%s: no memory for a record", l->f->path);
        m->fixups = grown;
        m->cap_fixups = cap;
    }
    m->fixups[m->n_fixups++] = (struct fixup){where, at};
    return NT_OK;
}

/* What was added to the buffer at `at` is the text of *where, once the buffer no longer moves. */
static nt_status end_text(const struct loader *l, size_t at, const char **where, size_t *len) {
    *len = l->m->text.len - at;
    nt_strbuf_addc(&l->m->text, '\0');
    if (l->m->text.len > MAX_RECORD_BYTES)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: conversation %" PRId64 " has texts of more than %d bytes", l->f->path,
                       l->r->head.row, MAX_RECORD_BYTES);
    return point_later(l, where, at);
}

static nt_status add_text(const struct loader *l, enum nt_col col, int64_t row, const char **where, size_t *len) {
    const size_t at = l->m->text.len;
    NT_TRY(nt_dsfile_text(l->f, col, row, &l->m->text));
    return end_text(l, at, where, len);
}

/* A text whose digest stands beside it. */
static nt_status add_digested(const struct loader *l, enum nt_col col, enum nt_col sha, int64_t row,
                              struct nt_record_text *t) {
    const size_t at = l->m->text.len;
    NT_TRY(nt_dsfile_digested(l->f, col, sha, row, &l->m->text, t->sha256));
    return end_text(l, at, &t->text, &t->len);
}

static nt_status add_message(const struct loader *l, int64_t row, struct nt_record_text *t) {
    uint8_t role = 0, more = 0;
    NT_TRY(nt_dsfile_get(l->f, NT_C_MSG_ROLE, row, &role));
    NT_TRY(nt_dsfile_get(l->f, NT_C_MSG_MORE, row, &more));
    NT_TRY(nt_dsfile_get(l->f, NT_C_MSG_WEIGHT, row, &t->weight));
    NT_TRY(nt_dsfile_get(l->f, NT_C_MSG_CREATED, row, &t->created_us));
    t->role = nt_corpus_role_name(role);
    t->has_more = more != 0;
    return add_digested(l, NT_C_MSG_CONTENT, NT_C_MSG_SHA, row, t);
}

/* Whoever asks whether two conversations are equal trusts the digest beside them. */
static nt_status check_digest(const struct loader *l) {
    const struct nt_record *r = l->r;
    struct nt_strbuf *seed = &l->m->seed;
    uint8_t made[NT_SHA256_BYTES];
    nt_conv_seed_begin(seed, r->head.kind);
    for (int32_t i = 0; i < r->head.n_messages; i++)
        nt_conv_seed_add(seed, nt_corpus_role(r->messages[i].role), r->messages[i].sha256);
    nt_sha256(seed->data, seed->len, made);
    if (memcmp(made, r->head.sha256, sizeof made) == 0) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: %s[%" PRId64 "] is not the digest of that conversation's kind, roles and texts",
                   l->f->path, nt_col_rows[NT_C_CONV_SHA].path, r->head.row);
}

static nt_status load_messages(const struct loader *l) {
    struct nt_record *r = l->r;
    NT_TRY(make_room(l, 0, r->head.n_messages, sizeof *r->messages, &r->messages));
    for (int32_t i = 0; i < r->head.n_messages; i++)
        NT_TRY(add_message(l, l->f->msg_ptr[r->head.row] + i, &r->messages[i]));
    return check_digest(l);
}

static nt_status add_generation(const struct loader *l, int64_t row, struct nt_record_generation *g) {
    uint16_t choice = 0;
    uint8_t finish = 0, more = 0;
    int32_t model = 0;
    NT_TRY(nt_dsfile_get(l->f, NT_C_GEN_CHOICE, row, &choice));
    NT_TRY(nt_dsfile_get(l->f, NT_C_GEN_FINISH, row, &finish));
    NT_TRY(nt_dsfile_get(l->f, NT_C_GEN_MODEL, row, &model));
    NT_TRY(nt_dsfile_get(l->f, NT_C_GEN_MORE, row, &more));
    NT_TRY(nt_dsfile_get(l->f, NT_C_GEN_CREATED, row, &g->text.created_us));
    g->choice = choice;
    g->finish = (enum nt_gen_finish)finish;
    g->model = nt_dsfile_name(&l->f->models, model);
    g->text.role = nt_corpus_role_name(nt_corpus_role("assistant"));
    g->text.weight = 1;
    g->text.has_more = more != 0;
    g->text.cut_off = finish == NT_GEN_LENGTH || finish == NT_GEN_ERROR || finish == NT_GEN_FILTER;
    return add_digested(l, NT_C_GEN_CONTENT, NT_C_GEN_SHA, row, &g->text);
}

/* Row i of those that hang on the record. */
static int64_t row_of(const struct loader *l, const struct nt_dsfile_index *x, int32_t i) {
    return x->row[x->ptr[l->r->head.row] + i];
}

static nt_status load_generations(const struct loader *l) {
    struct nt_record *r = l->r;
    NT_TRY(make_room(l, 1, r->head.n_generations, sizeof *r->generations, &r->generations));
    for (int32_t i = 0; i < r->head.n_generations; i++)
        NT_TRY(add_generation(l, row_of(l, &l->f->generations, i), &r->generations[i]));
    return NT_OK;
}

/* Index of a generation among the record's; they ascend. */
static int32_t generation_index(const struct loader *l, int64_t row) {
    int32_t low = 0, high = l->r->head.n_generations;
    while (high - low > 1) {
        const int32_t mid = low + (high - low) / 2;
        if (row_of(l, &l->f->generations, mid) <= row)
            low = mid;
        else
            high = mid;
    }
    return low;
}

static nt_status read_rater(const struct loader *l, enum nt_col rater, enum nt_col source, int64_t row, uint8_t id[16],
                            bool *anonymous, enum nt_rater *kind) {
    uint8_t wide = 0;
    NT_TRY(nt_dsfile_get(l->f, rater, row, id));
    NT_TRY(nt_dsfile_get(l->f, source, row, &wide));
    *anonymous = nt_subject_anonymous(id);
    *kind = (enum nt_rater)wide;
    return NT_OK;
}

static nt_status is_heard(const struct loader *l, enum nt_col rater, int64_t row, bool *heard) {
    uint8_t id[NT_CORPUS_ID];
    *heard = true;
    if (!l->d->any_mute) return NT_OK; /* nobody's id is worth a read */
    NT_TRY(nt_dsfile_get(l->f, rater, row, id));
    *heard = nt_dataset_refuse_rater(l->d, id) == NT_N_REFUSALS;
    return NT_OK;
}

static nt_status add_feedback(const struct loader *l, int64_t row, struct nt_record_feedback *f) {
    uint8_t target_kind = 0, kind = 0;
    int64_t target = 0;
    f->row = row;
    NT_TRY(nt_dsfile_get(l->f, NT_C_FB_TARGET_KIND, row, &target_kind));
    NT_TRY(nt_dsfile_get(l->f, NT_C_FB_TARGET, row, &target));
    NT_TRY(nt_dsfile_get(l->f, NT_C_FB_KIND, row, &kind));
    NT_TRY(nt_dsfile_get(l->f, NT_C_FB_VALUE, row, &f->value));
    NT_TRY(nt_dsfile_get(l->f, NT_C_FB_WEIGHT, row, &f->weight));
    NT_TRY(nt_dsfile_get(l->f, NT_C_FB_CREATED, row, &f->created_us));
    NT_TRY(read_rater(l, NT_C_FB_RATER, NT_C_FB_SOURCE, row, f->rater, &f->anonymous, &f->source));
    f->target_kind = (enum nt_target)target_kind;
    f->kind = (enum nt_feedback_kind)kind;
    if (target_kind == NT_TARGET_MESSAGE) f->target = (int32_t)(target - l->f->msg_ptr[l->r->head.row]);
    if (target_kind == NT_TARGET_GENERATION) f->target = generation_index(l, target);
    NT_TRY(add_text(l, NT_C_FB_COMMENT, row, &f->comment, &f->comment_len));
    return add_text(l, NT_C_FB_EDIT, row, &f->edit, &f->edit_len);
}

static nt_status load_feedback(const struct loader *l) {
    struct nt_record *r = l->r;
    NT_TRY(make_room(l, 2, r->head.n_feedback, sizeof *r->feedback, &r->feedback));
    const int32_t n = r->head.n_feedback;
    r->head.n_feedback = 0;
    for (int32_t i = 0; i < n; i++) {
        bool heard;
        const int64_t row = row_of(l, &l->f->feedback, i);
        NT_TRY(is_heard(l, NT_C_FB_RATER, row, &heard));
        if (heard) NT_TRY(add_feedback(l, row, &r->feedback[r->head.n_feedback++]));
    }
    return NT_OK;
}

/* ---- pairs ---- */

static nt_status read_sides(const struct loader *l, int64_t row, uint8_t *kind, int64_t side[2], int64_t n[2]) {
    NT_TRY(nt_dsfile_get(l->f, NT_C_PREF_KIND, row, kind));
    NT_TRY(nt_dsfile_get(l->f, NT_C_PREF_CHOSEN, row, &side[0]));
    NT_TRY(nt_dsfile_get(l->f, NT_C_PREF_REJECTED, row, &side[1]));
    for (int i = 0; i < 2; i++)
        n[i] = *kind == NT_SIDE_GENERATION ? 1 : l->f->msg_ptr[side[i] + 1] - l->f->msg_ptr[side[i]];
    return NT_OK;
}

static nt_status add_side(const struct loader *l, uint8_t kind, int64_t side, int64_t n, struct nt_record_text *to) {
    if (kind == NT_SIDE_GENERATION) {
        struct nt_record_generation g = {0};
        NT_TRY(add_generation(l, side, &g));
        l->m->fixups[l->m->n_fixups - 1].where = &to->text; /* not in the local one */
        *to = g.text;
        return NT_OK;
    }
    for (int64_t i = 0; i < n; i++) NT_TRY(add_message(l, l->f->msg_ptr[side] + i, &to[i]));
    return NT_OK;
}

static nt_status add_pair(const struct loader *l, int64_t row, int64_t *n_sides, struct nt_record_pair *p) {
    uint8_t kind = 0, origin = 0;
    int64_t side[2], n[2], upto = 0;
    p->row = row;
    NT_TRY(read_sides(l, row, &kind, side, n));
    NT_TRY(nt_dsfile_get(l->f, NT_C_PREF_UPTO, row, &upto));
    NT_TRY(nt_dsfile_get(l->f, NT_C_PREF_MARGIN, row, &p->margin));
    NT_TRY(nt_dsfile_get(l->f, NT_C_PREF_WEIGHT, row, &p->weight));
    NT_TRY(nt_dsfile_get(l->f, NT_C_PREF_CREATED, row, &p->created_us));
    NT_TRY(nt_dsfile_get(l->f, NT_C_PREF_ORIGIN, row, &origin));
    NT_TRY(read_rater(l, NT_C_PREF_RATER, NT_C_PREF_SOURCE, row, p->rater, &p->anonymous, &p->source));
    p->n_prompt = (int32_t)upto;
    p->origin = (enum nt_pair_origin)origin;
    p->n_chosen = (int32_t)n[0];
    p->n_rejected = (int32_t)n[1];
    p->chosen = l->m->sides + *n_sides;
    p->rejected = p->chosen + n[0];
    NT_TRY(add_side(l, kind, side[0], n[0], l->m->sides + *n_sides));
    NT_TRY(add_side(l, kind, side[1], n[1], l->m->sides + *n_sides + n[0]));
    *n_sides += n[0] + n[1];
    return NT_OK;
}

static nt_status load_pairs(const struct loader *l) {
    struct nt_record *r = l->r;
    int64_t total = 0, n_sides = 0;
    NT_TRY(make_room(l, 3, r->head.n_pairs, sizeof *r->pairs, &r->pairs));
    for (int32_t i = 0; i < r->head.n_pairs; i++) {
        uint8_t kind = 0;
        int64_t side[2], n[2];
        NT_TRY(read_sides(l, row_of(l, &l->f->pairs, i), &kind, side, n));
        total += n[0] + n[1];
        if (total > MAX_SIDE_TEXTS)
            return NT_FAIL(NT_E_UNSUPPORTED, "%s: the pairs of conversation %" PRId64 " have more than %d messages",
                           l->f->path, r->head.row, MAX_SIDE_TEXTS);
    }
    NT_TRY(make_room(l, 4, total, sizeof *l->m->sides, &l->m->sides));
    const int32_t n_pairs = r->head.n_pairs;
    r->head.n_pairs = 0;
    for (int32_t i = 0; i < n_pairs; i++) {
        bool heard;
        const int64_t row = row_of(l, &l->f->pairs, i);
        NT_TRY(is_heard(l, NT_C_PREF_RATER, row, &heard));
        if (heard) NT_TRY(add_pair(l, row, &n_sides, &r->pairs[r->head.n_pairs++]));
    }
    return NT_OK;
}

/* ---- edits ---- */

static struct nt_record_text *edited_text(struct nt_record *r, const struct nt_record_feedback *f) {
    if (f->kind != NT_FEEDBACK_EDIT || f->target_kind == NT_TARGET_CONVERSATION) return NULL;
    return f->target_kind == NT_TARGET_MESSAGE ? &r->messages[f->target] : &r->generations[f->target].text;
}

/* Is a the later word? */
static bool is_later(const struct nt_record_feedback *a, const struct nt_record_feedback *b) {
    return a->created_us != b->created_us ? a->created_us > b->created_us : a->row > b->row;
}

/* Two passes, so that it stays linear: in the first, `original` of a text remembers the edit in force. */
static void apply_edits(struct nt_record *r) {
    for (int32_t i = 0; i < r->head.n_feedback; i++) {
        const struct nt_record_feedback *f = &r->feedback[i];
        struct nt_record_text *t = edited_text(r, f);
        if (!t) continue;
        const struct nt_record_feedback *have = t->original ? &r->feedback[t->original_len] : NULL;
        if (have && !is_later(f, have)) continue;
        t->original = t->text;
        t->original_len = (size_t)i;
    }
    for (int32_t i = 0; i < r->head.n_feedback; i++) {
        struct nt_record_text *t = edited_text(r, &r->feedback[i]);
        if (!t || t->original != t->text) continue; /* done already, or no edit */
        const struct nt_record_feedback *f = &r->feedback[t->original_len];
        t->original_len = t->len;
        t->text = f->edit;
        t->len = f->edit_len;
    }
}

static nt_status load_all(const struct loader *l) {
    NT_TRY(load_messages(l));
    NT_TRY(load_generations(l));
    NT_TRY(load_feedback(l));
    NT_TRY(load_pairs(l));
    for (int64_t i = 0; i < l->m->n_fixups; i++) *l->m->fixups[i].where = l->m->text.data + l->m->fixups[i].at;
    apply_edits(l->r);
    return NT_OK;
}

nt_status nt_dataset_load(struct nt_dataset *d, int64_t record, struct nt_record *r) {
    struct loader l = {.d = d, .r = r, .m = r->memory};
    nt_status st = nt_dataset_find(d, record, &r->head, &l.f);
    if (st == NT_OK && !l.m) {
        l.m = r->memory = calloc(1, sizeof *l.m);
        if (!l.m) st = NT_FAIL(NT_E_NOMEM, "%s: no memory for a record", l.f->path);
    }
    if (st == NT_OK) {
        nt_strbuf_reset(&l.m->text);
        l.m->n_fixups = 0;
        st = load_all(&l);
    }
    if (st == NT_OK) return NT_OK;
    nt_record_release(r);
    return nt_trail_at(st, __FILE__, __LINE__);
}

const struct nt_record_text *nt_record_completion(const struct nt_record *r, const struct nt_record_feedback *f,
                                                  int32_t *n_prompt) {
    *n_prompt = f->target_kind == NT_TARGET_MESSAGE ? f->target : r->head.n_messages;
    if (f->target_kind == NT_TARGET_MESSAGE) return &r->messages[f->target];
    return f->target_kind == NT_TARGET_GENERATION ? &r->generations[f->target].text : NULL;
}
