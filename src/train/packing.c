#include "packing.h"

#include "tok_list.h"

#include <stdlib.h>
#include <string.h>

/* One sequence to be placed. */
struct piece {
    const struct nt_member *prompt, *completion; /* the same but for mismatched pairs */
    int32_t skip, n_prompt, n_tok;               /* tokens left out at the prompt's beginning; kept of it; in all */
    int32_t sample, example, member, micro;
};

struct room {
    int32_t n_tok, n_seq, n_out;
};

struct nt_pack_memory {
    struct piece *pieces;
    struct room *rooms;
    struct nt_micro_batch *micros;
    struct nt_pack_seq *seqs;
    int32_t *ids, *out_rows, *targets;
    float *weights;
    int64_t n_pieces, cap_pieces, n_rooms, cap_rooms, cap_micros, cap_seqs, cap_ids, cap_rows, cap_targets, cap_weights;
};

/* ---- pieces ---- */

static void add_piece(struct nt_pack_memory *m, struct piece p) {
    nt_tok_grow((void **)&m->pieces, &m->cap_pieces, m->n_pieces + 1, sizeof *m->pieces);
    m->pieces[m->n_pieces++] = p;
}

static void add_example(struct nt_pack_memory *m, const struct nt_pack_job *job, int32_t sample) {
    const int32_t example = job->examples[sample];
    const struct nt_example *e = &job->set->rows[example];
    for (int32_t k = 0; k < e->n_members; k++) {
        const struct nt_member *from = &e->member[k];
        add_piece(m, (struct piece){.prompt = from,
                                    .completion = from,
                                    .n_prompt = from->n_prompt,
                                    .n_tok = from->n_tok,
                                    .sample = sample,
                                    .example = example,
                                    .member = k});
    }
}

static void add_mismatch(struct nt_pack_memory *m, const struct nt_pack_job *job, int32_t sample) {
    const int32_t other = job->other[sample];
    if (other < 0) return;
    const struct nt_member *prompt = &job->set->rows[job->examples[sample]].member[0];
    const struct nt_member *completion = &job->set->rows[job->examples[other]].member[0];
    const int32_t n_completion = completion->n_tok - completion->n_prompt;
    int32_t n_prompt = prompt->n_prompt, room = job->set->longest - n_completion;
    if (n_prompt > room) n_prompt = room;
    add_piece(m, (struct piece){.prompt = prompt,
                                .completion = completion,
                                .skip = prompt->n_prompt - n_prompt,
                                .n_prompt = n_prompt,
                                .n_tok = n_prompt + n_completion,
                                .sample = sample,
                                .example = job->examples[sample]});
}

/* ---- first fit ---- */

static int32_t find_room(struct nt_pack_memory *m, const struct nt_pack_job *job, int32_t n_tok) {
    int32_t at = job->packing ? 0 : (int32_t)m->n_rooms;
    while (at < m->n_rooms && m->rooms[at].n_tok + n_tok > job->budget) at++;
    if (at == m->n_rooms) {
        nt_tok_grow((void **)&m->rooms, &m->cap_rooms, m->n_rooms + 1, sizeof *m->rooms);
        m->rooms[m->n_rooms++] = (struct room){0};
    }
    return at;
}

/* A target at token 0 has no row before it: it can only be the first of a completion whose prompt is empty. */
static int32_t n_targets(const struct piece *p) {
    int32_t n = 0;
    for (int32_t i = 0; i < p->completion->n_runs; i++) {
        const struct nt_loss_run *run = &p->completion->runs[i];
        const int32_t shift = p->n_prompt - p->completion->n_prompt;
        const int32_t from = run->from + shift < 1 ? 1 : run->from + shift;
        if (run->to + shift > from) n += run->to + shift - from;
    }
    return n;
}

/* All pieces of one sample go to the same micro-batch. */
static nt_status place(struct nt_pack_memory *m, const struct nt_pack_job *job) {
    for (int64_t i = 0, end; i < m->n_pieces; i = end) {
        int32_t n_tok = 0;
        for (end = i; end < m->n_pieces && m->pieces[end].sample == m->pieces[i].sample; end++)
            n_tok += m->pieces[end].n_tok;
        if (n_tok > job->budget)
            return NT_FAIL(NT_E_CONFIG,
                           "a training row of %d tokens does not fit into a micro-batch of %d; raise "
                           "train.micro_batch_tokens or lower train.max_length",
                           n_tok, job->budget);
        const int32_t at = find_room(m, job, n_tok);
        for (int64_t k = i; k < end; k++) {
            m->pieces[k].micro = at;
            m->rooms[at].n_tok += m->pieces[k].n_tok;
            m->rooms[at].n_out += n_targets(&m->pieces[k]);
            m->rooms[at].n_seq++;
        }
    }
    return NT_OK;
}

/* ---- writing ---- */

struct cursor {
    struct nt_pack_seq *seqs;
    int32_t *ids, *out_rows, *targets;
    float *weights;
    int32_t n_tok, n_seq, n_out;
};

static void put_targets(struct cursor *c, const struct piece *p) {
    const struct nt_member *from = p->completion;
    const int32_t shift = p->n_prompt - from->n_prompt;
    for (int32_t i = 0; i < from->n_runs; i++) {
        for (int32_t t = from->runs[i].from; t < from->runs[i].to; t++) {
            if (t + shift < 1) continue;
            c->out_rows[c->n_out] = c->n_tok + t + shift - 1;
            c->targets[c->n_out] = from->ids[t];
            c->weights[c->n_out++] = from->runs[i].weight;
        }
    }
}

static void put_piece(struct cursor *c, const struct piece *p) {
    const int32_t out0 = c->n_out, n_completion = p->n_tok - p->n_prompt;
    put_targets(c, p);
    c->seqs[c->n_seq++] = (struct nt_pack_seq){.row0 = c->n_tok,
                                               .n_tok = p->n_tok,
                                               .out0 = out0,
                                               .n_out = c->n_out - out0,
                                               .sample = p->sample,
                                               .example = p->example,
                                               .member = p->member};
    int32_t *ids = c->ids + c->n_tok;
    memcpy(ids, p->prompt->ids + p->skip, (size_t)p->n_prompt * sizeof *ids);
    memcpy(ids + p->n_prompt, p->completion->ids + p->completion->n_prompt, (size_t)n_completion * sizeof *ids);
    c->n_tok += p->n_tok;
}

static void make_micro(struct nt_pack *p, int32_t micro, int64_t tok0, int64_t seq0, int64_t out0) {
    struct nt_pack_memory *m = p->memory;
    struct cursor c = {.seqs = m->seqs + seq0,
                       .ids = m->ids + tok0,
                       .out_rows = m->out_rows + out0,
                       .targets = m->targets + out0,
                       .weights = m->weights + out0};
    for (int64_t i = 0; i < m->n_pieces; i++) {
        if (m->pieces[i].micro == micro) put_piece(&c, &m->pieces[i]);
    }
    m->micros[micro] = (struct nt_micro_batch){.ids = m->ids + tok0,
                                               .seqs = m->seqs + seq0,
                                               .out_rows = m->out_rows + out0,
                                               .targets = m->targets + out0,
                                               .weights = m->weights + out0,
                                               .n_tok = c.n_tok,
                                               .n_seq = c.n_seq,
                                               .n_out = c.n_out};
}

static void reserve(struct nt_pack *p) {
    struct nt_pack_memory *m = p->memory;
    for (int64_t i = 0; i < m->n_rooms; i++) {
        p->n_tok += m->rooms[i].n_tok;
        p->n_seq += m->rooms[i].n_seq;
        p->n_out += m->rooms[i].n_out;
    }
    nt_tok_grow((void **)&m->micros, &m->cap_micros, m->n_rooms, sizeof *m->micros);
    nt_tok_grow((void **)&m->seqs, &m->cap_seqs, p->n_seq, sizeof *m->seqs);
    nt_tok_grow((void **)&m->ids, &m->cap_ids, p->n_tok, sizeof *m->ids);
    nt_tok_grow((void **)&m->out_rows, &m->cap_rows, p->n_out, sizeof *m->out_rows);
    nt_tok_grow((void **)&m->targets, &m->cap_targets, p->n_out, sizeof *m->targets);
    nt_tok_grow((void **)&m->weights, &m->cap_weights, p->n_out, sizeof *m->weights);
}

nt_status nt_pack_build(struct nt_pack *p, const struct nt_pack_job *job) {
    struct nt_pack_memory *m = p->memory ? p->memory : calloc(1, sizeof *m);
    if (!m) return NT_FAIL(NT_E_NOMEM, "no memory to cut micro-batches");
    *p = (struct nt_pack){.memory = m};
    m->n_pieces = m->n_rooms = 0;
    for (int32_t i = job->rank; i < job->n_samples; i += job->size) {
        if (job->part == NT_PACK_TRAIN)
            add_example(m, job, i);
        else
            add_mismatch(m, job, i);
    }
    NT_TRY(place(m, job));
    reserve(p);
    int64_t tok0 = 0, seq0 = 0, out0 = 0;
    for (int32_t i = 0; i < m->n_rooms; i++) {
        make_micro(p, i, tok0, seq0, out0);
        tok0 += m->rooms[i].n_tok;
        seq0 += m->rooms[i].n_seq;
        out0 += m->rooms[i].n_out;
    }
    p->micros = m->micros;
    p->n_micros = (int32_t)m->n_rooms;
    return NT_OK;
}

void nt_pack_release(struct nt_pack *p) {
    struct nt_pack_memory *m = p->memory;
    if (m) {
        free(m->pieces);
        free(m->rooms);
        free(m->micros);
        free(m->seqs);
        free(m->ids);
        free(m->out_rows);
        free(m->targets);
        free(m->weights);
    }
    free(m);
    *p = (struct nt_pack){0};
}

/* ---- figures ---- */

int32_t nt_pack_max_seqs(const struct nt_example_set *set, int32_t budget) {
    return set->shortest > 0 && budget > set->shortest ? budget / set->shortest : 1;
}

double nt_pack_normalizer(const struct nt_example_set *set, const int32_t *examples, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        const struct nt_example *row = &set->rows[examples[i]];
        sum += row->weight * (set->kind == NT_TRAIN_SFT ? nt_member_weight(&row->member[0]) : 1);
    }
    return sum;
}

double nt_pack_mean_target(const struct nt_example_set *set, const int32_t *examples, int32_t n) {
    double sum = 0, rows = 0;
    for (int32_t i = 0; i < n; i++) {
        const struct nt_example *row = &set->rows[examples[i]];
        rows += row->weight;
        if (row->label) sum += row->weight * nt_member_weight(&row->member[0]);
    }
    return sum / rows;
}
