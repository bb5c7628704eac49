/* A batch on its way to the ops: checked, and on a device copied into one block by one upload. */
#include "model_state.h"
#include <string.h>

static size_t round_up(size_t n) {
    return (n + 63) / 64 * 64;
}

nt_status nt_inputs_layout(struct nt_model *m, struct nt_job_memory *mem) {
    struct nt_inputs *in = &m->inputs;
    const struct nt_step_limits *max = &m->acts.max;
    const size_t heads = (size_t)m->shard.n_head * sizeof(int32_t);
    in->kv_of_head = nt_job_take_both(mem, heads);
    if (mem->apart) {
        in->seqs_at = round_up((size_t)max->tok * sizeof(int32_t));
        in->out_rows_at = in->seqs_at + round_up((size_t)max->seq * sizeof(struct nt_attn_seq));
        in->prev_at = in->out_rows_at + round_up((size_t)max->out * sizeof(int32_t));
        in->pages_at = in->prev_at + round_up((size_t)max->seq * sizeof(int32_t));
        in->block = nt_job_take_both(mem, in->pages_at + (size_t)max->pages * sizeof(int32_t));
    }
    if (!in->kv_of_head.host) return NT_OK; /* counting */
    memcpy(in->kv_of_head.host, m->shard.kv_of_head, heads);
    return nt_both_push(m->backend, &in->kv_of_head, 0, heads);
}

static int32_t n_pages(const struct nt_attn_seq *q) {
    return (q->pos0 + q->n_q - 1) / NT_KV_PAGE + 1;
}

static void check_batch(const struct nt_model *m, const struct nt_batch *b, const struct nt_kv_pool *kv) {
    const struct nt_acts *a = &m->acts;
    NT_CHECK(a->x && b->n_tok > 0 && b->n_tok <= a->max.tok && b->n_out >= 0 && b->n_out <= a->max.out);
    int32_t row = 0;
    int64_t pages = 0;
    for (int32_t i = 0; i < b->n_seq; i++) {
        const struct nt_attn_seq *q = &b->seqs[i];
        NT_CHECK(q->q_row == row && q->n_q > 0 && q->pos0 >= 0 && q->n_q <= a->max_len - q->pos0);
        for (int32_t p = 0; p < n_pages(q); p++) NT_CHECK(q->pages[p] >= 0 && q->pages[p] < kv->n_page);
        row += q->n_q;
        pages += n_pages(q);
    }
    NT_CHECK(row == b->n_tok && (nt_backend_is_host(m->backend) || (b->n_seq <= a->max.seq && pages <= a->max.pages)));
    for (int32_t t = 0; t < b->n_tok; t++) NT_CHECK(b->ids[t] >= 0 && b->ids[t] < m->spec.n_vocab);
    for (int32_t i = 0; i < b->n_out; i++)
        NT_CHECK(b->out_rows[i] >= (i ? b->out_rows[i - 1] + 1 : 0) && b->out_rows[i] < b->n_tok);
}

/* Sequences get the device's addresses of their page numbers, which lie one after the other. */
static size_t copy_sequences(const struct nt_inputs *in, const struct nt_batch *b) {
    struct nt_attn_seq *seqs = (struct nt_attn_seq *)((char *)in->block.host + in->seqs_at);
    int32_t *pages = (int32_t *)((char *)in->block.host + in->pages_at);
    const int32_t *device_pages = (const int32_t *)((char *)in->block.device + in->pages_at);
    int64_t at = 0;
    for (int32_t i = 0; i < b->n_seq; i++) {
        const int32_t n = n_pages(&b->seqs[i]);
        seqs[i] = b->seqs[i];
        seqs[i].pages = device_pages + at;
        memcpy(pages + at, b->seqs[i].pages, (size_t)n * sizeof *pages);
        at += n;
    }
    return (size_t)at * sizeof *pages;
}

/* Places [n_seq, n_pad): a token nobody reads, a sequence without tokens, a row of logits that is dropped. */
static void pad(const struct nt_inputs *in, int32_t n_seq, int32_t n_pad) {
    int32_t *ids = in->block.host, *out_rows = (int32_t *)((char *)in->block.host + in->out_rows_at);
    int32_t *prev_row = (int32_t *)((char *)in->block.host + in->prev_at);
    struct nt_attn_seq *seqs = (struct nt_attn_seq *)((char *)in->block.host + in->seqs_at);
    for (int32_t i = n_seq; i < n_pad; i++) {
        ids[i] = 0;
        out_rows[i] = i;
        prev_row[i] = 0;
        seqs[i] = (struct nt_attn_seq){.q_row = i, .pages = seqs[0].pages};
    }
}

static nt_status upload(struct nt_model *m, const struct nt_batch *b, struct nt_step *s, int32_t n_pad) {
    const struct nt_inputs *in = &m->inputs;
    char *host = in->block.host, *device = in->block.device;
    memcpy(host, b->ids, (size_t)b->n_tok * sizeof *b->ids);
    memcpy(host + in->out_rows_at, b->out_rows, (size_t)b->n_out * sizeof *b->out_rows);
    if (b->prev) {
        NT_CHECK(b->n_prev <= m->acts.max.seq && b->n_prev <= b->n_tok);
        memcpy(host + in->prev_at, b->prev_row, (size_t)b->n_prev * sizeof *b->prev_row);
        s->batch.prev_row = (const int32_t *)(device + in->prev_at);
    }
    const size_t bytes = in->pages_at + copy_sequences(in, b);
    if (n_pad > b->n_seq) {
        pad(in, b->n_seq, n_pad);
        s->batch.n_tok = s->batch.n_seq = s->batch.n_out = n_pad;
        if (b->prev) s->batch.n_prev = n_pad;
    }
    s->batch.ids = (const int32_t *)device;
    s->batch.seqs = (const struct nt_attn_seq *)(device + in->seqs_at);
    s->batch.out_rows = (const int32_t *)(device + in->out_rows_at);
    return nt_both_push(m->backend, &in->block, 0, bytes);
}

nt_status nt_inputs_fill(struct nt_model *m, const struct nt_batch *b, struct nt_step *s, int32_t n_pad) {
    check_batch(m, b, s->kv);
    s->batch = *b;
    for (int32_t i = 0; i < b->n_seq; i++) {
        const struct nt_attn_seq *q = &b->seqs[i];
        if (q->n_q > s->max_q) s->max_q = q->n_q;
        if (i == 0 || q->n_q < s->min_q) s->min_q = q->n_q;
        if (q->pos0 + q->n_q > s->max_pos) s->max_pos = q->pos0 + q->n_q;
    }
    return nt_backend_is_host(m->backend) ? NT_OK : upload(m, b, s, n_pad);
}
