#include "examples.h"

#include "tok_list.h"

#include <stdlib.h>
#include <string.h>

/* An example whose tokens lie in the builder's lists. */
struct row {
    struct nt_example e; /* pointers are those of the caller: not to be followed */
    int64_t ids[NT_MAX_MEMBERS], runs[NT_MAX_MEMBERS];
};

struct nt_example_builder {
    enum nt_train_kind kind;
    struct row *rows;
    struct nt_ids ids;
    struct nt_loss_run *runs;
    char **sources;
    int64_t n_rows, cap_rows, n_runs, cap_runs, n_sources, cap_sources;
};

void nt_example_set_release(struct nt_example_set *s) {
    nt_arena_release(&s->arena);
    *s = (struct nt_example_set){0};
}

double nt_member_weight(const struct nt_member *m) {
    double sum = 0;
    for (int32_t i = 0; i < m->n_runs; i++) sum += (double)m->runs[i].weight * (m->runs[i].to - m->runs[i].from);
    return sum;
}

double nt_example_weight(const struct nt_example_set *s, int32_t example) {
    const struct nt_example *e = &s->rows[example];
    return (double)e->weight * (e->label ? s->desirable_weight : s->undesirable_weight);
}

/* ---- collecting ---- */

nt_status nt_examples_begin(struct nt_example_builder **out, enum nt_train_kind kind) {
    struct nt_example_builder *b = calloc(1, sizeof *b);
    if (!b) return NT_FAIL(NT_E_NOMEM, "no memory to collect training examples");
    b->kind = kind;
    *out = b;
    return NT_OK;
}

void nt_examples_end(struct nt_example_builder *b) {
    if (!b) return;
    for (int64_t i = 0; i < b->n_sources; i++) free(b->sources[i]);
    free(b->sources);
    nt_ids_release(&b->ids);
    free(b->runs);
    free(b->rows);
    free(b);
}

static int32_t source_number(struct nt_example_builder *b, const char *name) {
    for (int64_t i = 0; i < b->n_sources; i++) {
        if (strcmp(b->sources[i], name) == 0) return (int32_t)i;
    }
    nt_tok_grow((void **)&b->sources, &b->cap_sources, b->n_sources + 1, sizeof *b->sources);
    b->sources[b->n_sources] = strdup(name);
    if (!b->sources[b->n_sources]) nt_bug("no memory for the name of a source");
    return (int32_t)b->n_sources++;
}

int32_t nt_examples_add(struct nt_example_builder *b, const struct nt_example *e, const char *source) {
    nt_tok_grow((void **)&b->rows, &b->cap_rows, b->n_rows + 1, sizeof *b->rows);
    struct row *row = &b->rows[b->n_rows];
    *row = (struct row){.e = *e};
    row->e.source = source_number(b, source);
    for (int32_t i = 0; i < e->n_members; i++) {
        const struct nt_member *from = &e->member[i];
        struct nt_member *m = &row->e.member[i];
        row->ids[i] = b->ids.len;
        nt_ids_append(&b->ids, from->ids, from->n_tok);
        row->runs[i] = b->n_runs;
        nt_tok_grow((void **)&b->runs, &b->cap_runs, b->n_runs + from->n_runs, sizeof *b->runs);
        if (from->n_runs) memcpy(b->runs + b->n_runs, from->runs, (size_t)from->n_runs * sizeof *b->runs);
        b->n_runs += from->n_runs;
        m->n_target = 0;
        for (int32_t k = 0; k < m->n_runs; k++) m->n_target += from->runs[k].to - from->runs[k].from;
        m->completion_hash = nt_xxh64(from->ids + from->n_prompt, (size_t)(from->n_tok - from->n_prompt) * 4, 0);
    }
    return (int32_t)b->n_rows++;
}

struct nt_example nt_examples_at(const struct nt_example_builder *b, int32_t i) {
    const struct row *row = &b->rows[i];
    struct nt_example e = row->e;
    for (int32_t k = 0; k < e.n_members; k++) {
        e.member[k].ids = b->ids.data + row->ids[k];
        e.member[k].runs = b->runs + row->runs[k];
    }
    return e;
}

/* ---- finishing ---- */

/* Runs twice, counting and copying; n_tok and n_runs of the chosen rows are known. */
static void layout(struct nt_example_set *s, const struct nt_example_builder *b, const struct nt_example_pick *pick) {
    struct nt_arena *a = &s->arena;
    struct nt_example *rows = NT_TAKE(a, struct nt_example, pick->n);
    char **names = NT_TAKE(a, char *, b->n_sources);
    int64_t n_ids = 0, n_runs = 0;
    size_t n_bytes = 0;
    for (int32_t i = 0; i < pick->n; i++) {
        const struct nt_example *e = &b->rows[pick->examples[i]].e;
        for (int32_t k = 0; k < e->n_members; k++) {
            n_ids += e->member[k].n_tok;
            n_runs += e->member[k].n_runs;
        }
    }
    for (int64_t i = 0; i < b->n_sources; i++) n_bytes += strlen(b->sources[i]) + 1;
    int32_t *ids = NT_TAKE(a, int32_t, n_ids);
    struct nt_loss_run *runs = NT_TAKE(a, struct nt_loss_run, n_runs);
    char *bytes = NT_TAKE(a, char, n_bytes);
    if (!a->base) return;

    for (int64_t i = 0; i < b->n_sources; i++) {
        size_t len = strlen(b->sources[i]) + 1;
        names[i] = memcpy(bytes, b->sources[i], len);
        bytes += len;
    }
    for (int32_t i = 0; i < pick->n; i++) {
        rows[i] = nt_examples_at(b, pick->examples[i]);
        rows[i].weight = pick->weights[i];
        for (int32_t k = 0; k < rows[i].n_members; k++) {
            struct nt_member *m = &rows[i].member[k];
            m->ids = memcpy(ids, m->ids, (size_t)m->n_tok * sizeof *ids);
            ids += m->n_tok;
            m->runs = m->n_runs ? memcpy(runs, m->runs, (size_t)m->n_runs * sizeof *runs) : NULL;
            runs += m->n_runs;
        }
    }
    s->rows = rows;
    s->sources = (const char *const *)names;
}

static void measure(struct nt_example_set *s) {
    int32_t prompt = INT32_MAX, completion = INT32_MAX;
    for (int32_t i = 0; i < s->n; i++) {
        const struct nt_example *e = &s->rows[i];
        int32_t together = 0;
        for (int32_t k = 0; k < e->n_members; k++) {
            const struct nt_member *m = &e->member[k];
            s->n_tok += m->n_tok;
            s->n_target += m->n_target;
            together += m->n_tok;
            if (m->n_tok > s->longest) s->longest = m->n_tok;
            if (m->n_prompt < prompt) prompt = m->n_prompt;
            if (m->n_tok - m->n_prompt < completion) completion = m->n_tok - m->n_prompt;
        }
        if (together > s->longest_row) s->longest_row = together;
        s->n_desirable += e->label;
    }
    if (s->n > 0) s->shortest = prompt + completion;
}

static nt_status digest(struct nt_example_set *s) {
    struct nt_sha256 *sha;
    NT_TRY(nt_sha256_new(&sha));
    const double head[] = {(double)s->kind, (double)s->n, s->desirable_weight, s->undesirable_weight};
    nt_sha256_add(sha, head, sizeof head);
    for (int32_t i = 0; i < s->n; i++) {
        const struct nt_example *e = &s->rows[i];
        const int64_t about[] = {e->n_members, e->label, e->created_us, e->subject};
        nt_sha256_add(sha, about, sizeof about);
        nt_sha256_add(sha, &e->weight, sizeof e->weight);
        nt_sha256_add(sha, s->sources[e->source], strlen(s->sources[e->source]) + 1);
        for (int32_t k = 0; k < e->n_members; k++) {
            const struct nt_member *m = &e->member[k];
            const int32_t sizes[] = {m->n_tok, m->n_runs, m->n_prompt};
            nt_sha256_add(sha, sizes, sizeof sizes);
            nt_sha256_add(sha, m->ids, (size_t)m->n_tok * sizeof *m->ids);
            if (m->n_runs) nt_sha256_add(sha, m->runs, (size_t)m->n_runs * sizeof *m->runs);
        }
    }
    nt_sha256_finish(sha, s->digest);
    return NT_OK;
}

nt_status nt_examples_finish(const struct nt_example_builder *b, const struct nt_example_pick *pick,
                             struct nt_example_set *set) {
    struct nt_example_set s = {.kind = b->kind,
                               .n = pick->n,
                               .n_sources = (int32_t)b->n_sources,
                               .desirable_weight = pick->desirable_weight,
                               .undesirable_weight = pick->undesirable_weight};
    nt_arena_init(&s.arena, "training set");
    layout(&s, b, pick);
    NT_TRY(nt_arena_bind(&s.arena));
    layout(&s, b, pick);
    measure(&s);
    nt_status st;
    NT_TRY_GOTO(st, release, digest(&s));
    *set = s;
    return NT_OK;
release:
    nt_example_set_release(&s);
    return st;
}
