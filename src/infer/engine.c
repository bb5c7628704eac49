#include "engine.h"

#include "clock.h"
#include "cuda_backend.h"
#include "log.h"
#include "memory_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nt_row {
    struct nt_request req;
    struct nt_result result;
    struct nt_ids prompt;
    int32_t limit;       /* tokens of prompt and answer */
    int32_t n_open;      /* choices not yet finished */
    int32_t next_choice; /* to be admitted; its sequence is made then, so waiting rows cost one prompt each */
    struct nt_row *next;
};

struct row_list {
    struct nt_row *head, **tail;
};

/* A step whose tokens the host has not seen yet: its sequences, in the order of its rows; one that ended since is NULL.
 */
struct launched {
    struct nt_seq **seq; // [max_seqs]
    int32_t n, slot;
};

struct nt_engine {
    struct nt_engine_config c;
    struct nt_job_memory memory;
    struct nt_pages pages;
    struct nt_sampler sampler;
    struct nt_seq **running;                // [max_seqs]
    int32_t n_running, n_waiting, n_active; /* sequences, choices of waiting rows, rows */
    struct row_list waiting;
    struct row_list finished;
    int32_t *page_numbers;     // [pages of the longest sequence]
    int32_t *ids, *out_rows;   // [max_tokens_per_step], [max_seqs]
    struct nt_attn_seq *batch; // [max_seqs]
    struct nt_seq **in_step;   // [max_seqs] of the step being made
    struct nt_seq **sampled;   // [max_seqs] those of them that get a token
    struct nt_sample_in *in;   // [max_seqs]
    struct nt_sample_out *out; // [max_seqs]
    float *logits;             // [max_seqs, ld] in the backend's memory
    struct launched flight[NT_DOWNLOAD_SLOTS];
    struct launched *pending; /* one of flight, or NULL */
    int32_t *prev_row;        // [max_seqs]
    int32_t stops[NT_MAX_STOP_IDS];
    int32_t n_stops;
    struct nt_engine_stats stats;
};

/* ---- construction ---- */

static nt_status layout(struct nt_engine *e, int32_t n_page) {
    struct nt_arena *a = &e->memory.host;
    const size_t seqs = (size_t)e->c.max_seqs;
    const struct nt_step_limits max = {
        .tok = e->c.max_tokens_per_step, .out = e->c.max_seqs, .seq = e->c.max_seqs, .pages = n_page};
    NT_TRY(nt_pages_layout(&e->pages, &e->memory, e->c.model, n_page));
    NT_TRY(nt_model_layout(e->c.model, &e->memory, &max));
    NT_TRY(nt_sampler_layout(&e->sampler, &e->memory, e->c.model, e->c.world->tp, nt_tokenizer_n_vocab(e->c.tok),
                             e->c.max_seqs));
    e->running = NT_TAKE(a, struct nt_seq *, seqs);
    e->page_numbers = NT_TAKE(a, int32_t, nt_pages_for(e->c.max_len));
    e->in_step = NT_TAKE(a, struct nt_seq *, seqs);
    e->sampled = NT_TAKE(a, struct nt_seq *, seqs);
    e->batch = NT_TAKE(a, struct nt_attn_seq, seqs);
    e->in = NT_TAKE(a, struct nt_sample_in, seqs);
    e->out = NT_TAKE(a, struct nt_sample_out, seqs);
    e->out_rows = NT_TAKE(a, int32_t, seqs);
    e->prev_row = NT_TAKE(a, int32_t, seqs);
    for (int i = 0; i < NT_DOWNLOAD_SLOTS; i++)
        e->flight[i] = (struct launched){.seq = NT_TAKE(a, struct nt_seq *, seqs), .slot = i};
    e->ids = NT_TAKE(a, int32_t, e->c.max_tokens_per_step);
    e->logits = NT_TAKE(&e->memory.device, float, seqs *(size_t)nt_model_logit_ld(e->c.model));
    return NT_OK;
}

static double mib(size_t bytes) {
    return (double)bytes / 1048576.0;
}

static struct nt_memory_plan memory_plan(struct nt_engine *e, int32_t n_page) {
    return (struct nt_memory_plan){.world = e->c.world,
                                   .model = e->c.model,
                                   .memory = &e->memory,
                                   .n_page = n_page,
                                   .remedy = "generate.max_num_seqs, generate.max_num_batched_tokens, model.max_len or "
                                             "generate.kv_memory_gib"};
}

/* Counts the job with `pages` of cache; on a device with fewer, at least one sequence's, where the rest of the job does
 * not fit beside them and their number was ours. */
static nt_status count(struct nt_engine *e, size_t available, int64_t per_seq, int64_t *pages) {
    NT_TRY(layout(e, (int32_t)*pages));
    const size_t used = e->memory.device.used, page = nt_model_kv_page_bytes(e->c.model);
    if (nt_backend_is_host(e->c.backend) || e->c.kv_bytes > 0 || used <= available) return NT_OK;
    const int64_t left = *pages - (int64_t)((used - available + page - 1) / page);
    if (left < per_seq) return NT_OK; /* the plan says what is missing */
    *pages = left;
    nt_job_memory_release(&e->memory);
    return layout(e, (int32_t)left);
}

/* Chooses the number of pages and checks the plan against the memory that is free. */
static nt_status plan(struct nt_engine *e, int32_t *n_page) {
    const size_t page = nt_model_kv_page_bytes(e->c.model);
    const bool host = nt_backend_is_host(e->c.backend);
    const size_t available = nt_memory_plan_free(e->c.backend, e->c.world);
    const int64_t per_seq = nt_pages_for(e->c.max_len);
    int64_t pages = per_seq * e->c.max_seqs;
    /* other jobs share a node's memory, a device, or a part of one, is this rank's own */
    const size_t default_kv = host ? available / 2 : available / 10 * 9;
    const int64_t affordable = (int64_t)((e->c.kv_bytes ? e->c.kv_bytes : default_kv) / page);
    if (pages > affordable) pages = affordable;
    if (pages < per_seq)
        return NT_FAIL(NT_E_NOMEM,
                       "the KV cache needs %.0f MiB for one sequence of %d tokens, %.0f MiB are allowed; lower "
                       "model.max_len or raise generate.kv_memory_gib",
                       mib((size_t)per_seq * page), e->c.max_len, mib((size_t)affordable * page));
    NT_TRY(count(e, available, per_seq, &pages));
    e->stats.weight_bytes = nt_model_weight_bytes(e->c.model);
    e->stats.kv_bytes = (size_t)pages * page;
    e->stats.activation_bytes = nt_job_memory_bytes(&e->memory) - e->stats.kv_bytes;
    e->stats.n_pages = (int32_t)pages;
    e->stats.max_seqs = e->c.max_seqs;
    const struct nt_memory_plan p = memory_plan(e, (int32_t)pages);
    NT_TRY(nt_memory_plan_check(&p));
    *n_page = (int32_t)pages;
    return NT_OK;
}

static void collect_stops(struct nt_engine *e) {
    int64_t n;
    const int32_t *ids = nt_tokenizer_stops(e->c.tok, &n);
    for (int64_t i = 0; i < n && e->n_stops < NT_MAX_STOP_IDS; i++) e->stops[e->n_stops++] = ids[i];
    if (e->c.chat)
        e->n_stops += (int32_t)nt_chat_stops(e->c.chat, e->c.tok, e->stops + e->n_stops, NT_MAX_STOP_IDS - e->n_stops);
    const struct nt_spec *spec = nt_model_spec(e->c.model);
    for (int32_t i = 0; i < spec->n_eos && e->n_stops < NT_MAX_STOP_IDS; i++) e->stops[e->n_stops++] = spec->eos_ids[i];
}

nt_status nt_engine_new(struct nt_engine **out, const struct nt_engine_config *c) {
    struct nt_engine *e = calloc(1, sizeof *e);
    if (!e) return NT_FAIL(NT_E_NOMEM, "no memory for the engine");
    e->c = *c;
    e->finished.tail = &e->finished.head;
    e->waiting.tail = &e->waiting.head;
    if (e->c.max_tokens_per_step < e->c.max_seqs) e->c.max_tokens_per_step = e->c.max_seqs;
    nt_job_memory_init(&e->memory, c->backend);
    int32_t n_page = 0;
    nt_status st;
    NT_TRY_GOTO(st, fail, nt_comm_agree(c->world->world, plan(e, &n_page)));
    int64_t least = -n_page; /* ranks of a group must admit the same sequences */
    NT_TRY_GOTO(st, fail, nt_comm_allreduce_max_i64(c->world->tp, &least, 1));
    nt_job_memory_release(&e->memory);
    NT_TRY_GOTO(st, fail, layout(e, (int32_t)-least));
    const struct nt_memory_plan bound = memory_plan(e, (int32_t)-least);
    NT_TRY_GOTO(st, fail, nt_memory_plan_bind(&bound));
    NT_TRY_GOTO(st, fail, layout(e, (int32_t)-least));
    collect_stops(e);
    *out = e;
    return NT_OK;
fail:
    nt_engine_free(e);
    return st;
}

static void row_free(struct nt_row *row) {
    nt_request_release(&row->req);
    nt_result_release(&row->result);
    nt_ids_release(&row->prompt);
    free(row);
}

static void seq_free(struct nt_seq *s) {
    if (--s->row->n_open == 0) row_free(s->row);
    nt_seq_release(s);
    free(s);
}

nt_status nt_engine_settle(struct nt_engine *e) {
    if (!e->pending) return NT_OK;
    NT_TRY(e->c.backend->memory->wait(e->c.backend));
    e->pending = NULL;
    return NT_OK;
}

void nt_engine_free(struct nt_engine *e) {
    if (!e) return;
    if (e->pending) (void)e->c.backend->memory->wait(e->c.backend); /* it works in the memory that goes */
    for (int32_t i = 0; i < e->n_running; i++) seq_free(e->running[i]);
    for (struct nt_row *row = e->waiting.head, *next; row; row = next) {
        next = row->next;
        row_free(row); /* its running sequences are gone */
    }
    struct nt_result r;
    while (nt_engine_pop(e, &r)) nt_result_release(&r);
    nt_job_memory_release(&e->memory);
    free(e);
}

/* ---- rows in ---- */

uint64_t nt_row_seed(uint64_t job_seed, int64_t row) {
    uint64_t z = job_seed + 0x9e3779b97f4a7c15u * ((uint64_t)row + 1); /* splitmix64 (Steele et al. 2014) */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) & INT64_MAX;
}

static char *copy_text(const char *text) {
    char *copy = strdup(text);
    NT_CHECK(copy);
    return copy;
}

nt_status nt_prompt_ids(const struct nt_engine_config *c, const struct nt_request *req, struct nt_ids *ids,
                        char **why) {
    nt_status st = NT_OK;
    *why = NULL;
    if (req->kind == NT_REQUEST_CHAT) {
        if (!c->chat) {
            *why = copy_text(c->chat_error);
            return NT_OK;
        }
        st = nt_chat_encode(c->chat, c->tok, req->messages, req->n_messages, req->add_generation_prompt, ids);
    } else if (req->prompt) {
        st = nt_tokenizer_encode(c->tok, req->prompt, req->prompt_len, NT_TOK_ADD_SPECIAL, ids);
    } else {
        const int32_t n_vocab = nt_model_spec(c->model)->n_vocab;
        for (int32_t i = 0; i < req->n_prompt_ids; i++) {
            if (req->prompt_ids[i] < 0 || req->prompt_ids[i] >= n_vocab) {
                struct nt_strbuf s = NT_STRBUF_INIT;
                nt_strbuf_addf(&s, "prompt token %d is %d; the vocabulary has ids 0 to %d", i, req->prompt_ids[i],
                               n_vocab - 1);
                *why = s.data;
                return NT_OK;
            }
        }
        nt_ids_append(ids, req->prompt_ids, req->n_prompt_ids);
    }
    if (st == NT_E_DATA || st == NT_E_UNSUPPORTED) { /* this row's fault */
        *why = copy_text(nt_error_last()->text);
        nt_error_clear();
        return NT_OK;
    }
    return st;
}

static void append(struct row_list *list, struct nt_row *row) {
    row->next = NULL;
    *list->tail = row;
    list->tail = &row->next;
}

/* A row with an error gives no choices. */
static void finish_row(struct nt_engine *e, struct nt_row *row) {
    struct nt_result *r = &row->result;
    if (r->error) {
        struct nt_result failed = {.row = r->row, .status = r->status, .n_prompt = r->n_prompt, .error = r->error};
        memcpy(failed.digest, r->digest, sizeof failed.digest);
        r->error = NULL;
        nt_result_release(r);
        *r = failed;
    } else {
        e->stats.usage_prompt += r->n_prompt;
        for (int32_t i = 0; i < r->n_choice; i++) e->stats.usage_answer += r->choice[i].n_tok;
    }
    append(&e->finished, row);
}

static void refuse_row(struct nt_engine *e, struct nt_row *row, char *why, int32_t status) {
    row->result.error = why;
    row->result.status = status;
    finish_row(e, row);
}

static char *length_error(const struct nt_ids *ids, int32_t max_len) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    if (ids->len == 0)
        nt_strbuf_adds(&s, "the prompt has no tokens");
    else
        nt_strbuf_addf(&s, "the prompt has %lld tokens, the longest sequence is %d (model.max_len)",
                       (long long)ids->len, max_len);
    return s.data;
}

/* The choices become sequences one by one when they are admitted. Takes the ids over. */
static void enqueue(struct nt_engine *e, struct nt_row *row, struct nt_ids *ids) {
    const struct nt_sampling *p = &row->req.sampling;
    const int64_t want = ids->len + p->max_tokens;
    row->limit = (int32_t)(want < e->c.max_len ? want : e->c.max_len);
    row->result.n_prompt = (int32_t)ids->len;
    row->result.n_choice = row->n_open = p->n;
    row->result.choice = calloc((size_t)p->n, sizeof *row->result.choice);
    NT_CHECK(row->result.choice);
    row->prompt = *ids;
    *ids = (struct nt_ids){0};
    append(&e->waiting, row);
    e->n_waiting += p->n;
}

nt_status nt_engine_add(struct nt_engine *e, struct nt_request *req) {
    struct nt_row *row = calloc(1, sizeof *row);
    if (!row) return NT_FAIL(NT_E_NOMEM, "no memory for a row");
    row->req = *req;
    *req = (struct nt_request){0};
    row->result.row = row->req.row;
    row->result.status = 200;
    memcpy(row->result.digest, row->req.digest, sizeof row->result.digest);
    e->n_active++;
    if (row->req.error) {
        refuse_row(e, row, copy_text(row->req.error), row->req.error_status);
        return NT_OK;
    }
    struct nt_ids ids = {0};
    char *why;
    const nt_status st = nt_prompt_ids(&e->c, &row->req, &ids, &why);
    if (st != NT_OK) {
        row->n_open = 0;
        row_free(row);
        e->n_active--;
    } else if (why) {
        refuse_row(e, row, why, 400);
    } else if (ids.len == 0 || ids.len >= e->c.max_len) {
        refuse_row(e, row, length_error(&ids, e->c.max_len), 400);
    } else {
        enqueue(e, row, &ids);
    }
    nt_ids_release(&ids);
    return st;
}

int32_t nt_engine_room(const struct nt_engine *e) {
    const int32_t room = e->c.max_seqs - e->n_running - e->n_waiting;
    return room > 0 ? room : 0;
}

int32_t nt_engine_active(const struct nt_engine *e) {
    return e->n_active;
}

/* ---- a step ---- */

static struct nt_seq *open_choice(struct nt_row *row, const int32_t *pages, int32_t n_pages) {
    const struct nt_sampling *p = &row->req.sampling;
    struct nt_seq *s = calloc(1, sizeof *s);
    NT_CHECK(s);
    nt_seq_init(s, p, row->next_choice++, p->has_seed ? p->seed : nt_row_seed(p->seed, row->req.row), &row->prompt,
                row->limit);
    s->row = row;
    s->n_pages = n_pages;
    s->pages = malloc((size_t)n_pages * sizeof *s->pages);
    NT_CHECK(s->pages);
    memcpy(s->pages, pages, (size_t)n_pages * sizeof *pages);
    return s;
}

/* A place and the pages for the next waiting choice. */
static bool can_admit(const struct nt_engine *e) {
    const struct nt_row *row = e->waiting.head;
    return row && e->n_running < e->c.max_seqs && nt_pages_for(row->limit) <= e->pages.n_free;
}

static void admit(struct nt_engine *e) {
    while (can_admit(e)) {
        struct nt_row *row = e->waiting.head;
        const int32_t n_pages = nt_pages_for(row->limit);
        NT_CHECK(nt_pages_take(&e->pages, n_pages, e->page_numbers));
        e->running[e->n_running++] = open_choice(row, e->page_numbers, n_pages);
        e->n_waiting--;
        if (row->next_choice < row->req.sampling.n) continue;
        e->waiting.head = row->next;
        if (!row->next) e->waiting.tail = &e->waiting.head;
    }
    if (e->n_running > e->stats.peak_seqs) e->stats.peak_seqs = e->n_running;
}

/* Will it have ended by its length when the token under way is known? */
static bool ends_by_length(const struct nt_seq *s) {
    return nt_seq_n_answer(s) + 1 >= s->params->max_tokens || s->ids.len + 1 >= s->limit;
}

/* Which sequences wait for a token of a launched step, and its row. */
static void find_pending(struct nt_engine *e, const struct launched *l) {
    for (int32_t i = 0; i < e->n_running; i++) e->running[i]->pending_row = -1;
    for (int32_t i = 0; l && i < l->n; i++)
        if (l->seq[i]) l->seq[i]->pending_row = i;
}

/* The next n tokens of a sequence; with the last one that is known, or under way, comes the choice of the one after. */
static void add_to_step(struct nt_engine *e, struct nt_batch *b, struct nt_seq *s, int32_t n) {
    e->in_step[b->n_seq] = s;
    e->batch[b->n_seq++] = (struct nt_attn_seq){.q_row = b->n_tok, .n_q = n, .pos0 = s->n_cached, .pages = s->pages};
    b->n_tok += n;
    if (s->n_cached + n < s->ids.len) return;
    nt_seq_sample_in(s, s->pending_row, e->stops, e->n_stops, &e->in[b->n_out]);
    e->sampled[b->n_out] = s;
    e->out_rows[b->n_out++] = b->n_tok - 1;
}

/* Decoding sequences first, one token each, of those that follow a launched step the tokens that it draws; what is left
 * of the step's tokens goes to prompts in order of admission. */
static struct nt_batch compose(struct nt_engine *e, const struct launched *l) {
    struct nt_batch b = {.ids = e->ids, .seqs = e->batch, .out_rows = e->out_rows, .prev_row = e->prev_row};
    int32_t spare = e->c.max_tokens_per_step;
    find_pending(e, l);
    for (int32_t i = 0; i < e->n_running; i++) {
        struct nt_seq *s = e->running[i];
        spare -= s->pending_row < 0 && s->ids.len - s->n_cached == 1;
        if (s->pending_row < 0 || ends_by_length(s)) continue;
        spare--;
        e->ids[b.n_tok] = 0; /* the device has it */
        e->prev_row[b.n_prev++] = s->pending_row;
        add_to_step(e, &b, s, 1);
    }
    for (int32_t i = 0; i < e->n_running; i++) {
        struct nt_seq *s = e->running[i];
        int32_t n = s->pending_row < 0 ? (int32_t)s->ids.len - s->n_cached : 0;
        if (n > 1) {
            n = n < spare ? n : spare;
            spare -= n;
        }
        if (n == 0) continue;
        memcpy(e->ids + b.n_tok, s->ids.data + s->n_cached, (size_t)n * sizeof *e->ids);
        add_to_step(e, &b, s, n);
    }
    return b;
}

/* The step is made: its tokens have their keys and values. */
static void commit(struct nt_engine *e, const struct nt_batch *b) {
    for (int32_t i = 0; i < b->n_seq; i++) {
        struct nt_seq *s = e->in_step[i];
        e->stats.prompt_tokens += s->n_cached < s->n_prompt && !s->by_host ? e->batch[i].n_q : 0;
        s->n_cached += e->batch[i].n_q;
    }
    e->stats.steps++;
}

/* A row whose logits broke down is an error of the row: the model or its weights are at fault, the job goes on. */
static void fail_row(struct nt_row *row, const struct nt_seq *s) {
    struct nt_strbuf why = NT_STRBUF_INIT;
    if (row->result.error) return;
    nt_strbuf_addf(&why,
                   "the logits of answer token %d of choice %d are not finite: the model's weights or its numeric "
                   "range are at fault",
                   nt_seq_n_answer(s) + 1, s->choice);
    row->result.error = why.data;
    row->result.status = 500;
}

static void finish_seq(struct nt_engine *e, struct nt_seq *s) {
    struct nt_row *row = s->row;
    if (s->finish == NT_FINISH_ERROR) fail_row(row, s);
    nt_seq_take_choice(s, &row->result.choice[s->choice]);
    nt_pages_give(&e->pages, s->pages, s->n_pages);
    nt_seq_release(s);
    free(s);
    if (--row->n_open == 0) finish_row(e, row);
}

/* A sequence that ends has no place in the step that was launched before this was known. */
static void forget(struct launched *l, const struct nt_seq *s) {
    for (int32_t i = 0; l && i < l->n; i++)
        if (l->seq[i] == s) l->seq[i] = NULL;
}

/* Tokens of rows 0 .. n-1 of a step go to their sequences; `next`: the step launched after it, or NULL. */
static void collect(struct nt_engine *e, struct nt_seq *const *seqs, int32_t n, struct launched *next) {
    for (int32_t i = 0; i < n; i++) {
        if (!seqs[i]) continue;
        nt_seq_accept(seqs[i], e->c.tok, e->stops, e->n_stops, &e->out[i]);
        e->stats.answer_tokens++;
    }
    int32_t kept = 0;
    for (int32_t i = 0; i < e->n_running; i++) {
        struct nt_seq *s = e->running[i];
        if (s->done) {
            forget(next, s);
            finish_seq(e, s);
        } else {
            e->running[kept++] = s;
        }
    }
    e->n_running = kept;
}

/* ---- steps that follow each other on the device ---- */

/* Sequences whose token the device could not decide go back by it: their last one is computed once more, with the same
 * bits, in a step that the host ends. */
static void take_back_undecided(struct nt_engine *e, struct launched *l, struct launched *next) {
    for (int32_t i = 0; i < l->n; i++) {
        struct nt_seq *s = l->seq[i];
        if (!s || !e->out[i].undecided) continue;
        s->by_host = true;
        s->n_cached = (int32_t)s->ids.len - 1;
        forget(next, s);
        l->seq[i] = NULL;
    }
}

static nt_status land(struct nt_engine *e, struct launched *l, struct launched *next) {
    const double start = nt_now();
    NT_TRY(nt_model_watch(e->c.model, l->slot));
    NT_TRY(nt_sampler_finish(&e->sampler, l->slot, e->out, l->n));
    take_back_undecided(e, l, next);
    collect(e, l->seq, l->n, next);
    e->stats.sample_s += nt_now() - start;
    return NT_OK;
}

/* The forward and the choice of tokens: within it where all rows are plain, else behind it. */
static nt_status forward_and_draw(struct nt_engine *e, struct nt_batch *b) {
    struct nt_logit_sample_args sample;
    const bool within = nt_sampler_is_plain(&e->sampler, e->in, b->n_out);
    if (within) {
        NT_TRY(nt_sampler_prepare(&e->sampler, e->in, b->n_out, &sample));
        b->sample = &sample;
        b->by_head = nt_sampler_by_head(&e->sampler, e->in, b->n_out);
    }
    NT_TRY(nt_model_forward(e->c.model, b, &e->pages.pool, e->logits));
    return within ? NT_OK : nt_sampler_queue(&e->sampler, e->logits, e->in, b->n_out);
}

/* Queues a step, and the way back of its tokens; then, while the device works on it, the host looks at those of the one
 * before. */
static nt_status launch(struct nt_engine *e, struct nt_batch *b, struct launched *before) {
    const double start = nt_now();
    struct launched *l = &e->flight[before && before->slot == 0];
    memcpy(l->seq, e->sampled, (size_t)b->n_out * sizeof(struct nt_seq *));
    l->n = b->n_out;
    if (b->n_prev > 0) b->prev = nt_sampler_tokens(&e->sampler);
    NT_TRY(forward_and_draw(e, b));
    NT_TRY(nt_sampler_start(&e->sampler, l->slot, e->in, b->n_out));
    NT_TRY(nt_model_mark(e->c.model, l->slot));
    commit(e, b);
    e->pending = l;
    e->stats.forward_s += nt_now() - start;
    if (!before) return NT_OK;
    e->stats.steps_ahead++;
    return land(e, before, l);
}

/* A step that ends at the host, or that draws no tokens. */
static nt_status run_step(struct nt_engine *e, struct nt_batch *b) {
    const double start = nt_now();
    NT_TRY(nt_model_forward(e->c.model, b, &e->pages.pool, e->logits));
    const double forwarded = nt_now();
    commit(e, b);
    if (b->n_out > 0) NT_TRY(nt_sampler_run(&e->sampler, e->logits, e->in, e->out, b->n_out));
    for (int32_t i = 0; i < b->n_out; i++) e->sampled[i]->by_host = false; /* one token's fault, not its sequence's */
    collect(e, e->sampled, b->n_out, NULL);
    e->stats.forward_s += forwarded - start;
    e->stats.sample_s += nt_now() - forwarded;
    return NT_OK;
}

nt_status nt_engine_step(struct nt_engine *e) {
    struct launched *before = e->pending;
    admit(e);
    struct nt_batch b = compose(e, before);
    if (b.n_out > 0 && nt_sampler_goes_on(&e->sampler, e->in, b.n_out)) return launch(e, &b, before);
    e->pending = NULL;
    if (before) return land(e, before, NULL); /* whose tokens have to be known first */
    return b.n_tok > 0 ? run_step(e, &b) : NT_OK;
}

bool nt_engine_pop(struct nt_engine *e, struct nt_result *out) {
    struct nt_row *row = e->finished.head;
    if (!row) return false;
    e->finished.head = row->next;
    if (!e->finished.head) e->finished.tail = &e->finished.head;
    *out = row->result;
    row->result = (struct nt_result){0};
    row_free(row);
    e->n_active--;
    return true;
}

const struct nt_engine_stats *nt_engine_stats(const struct nt_engine *e) {
    return &e->stats;
}
