#include "request.h"

#include "hash.h"
#include "strbuf.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void release_content(struct nt_request *r) {
    for (int32_t i = 0; i < r->n_messages; i++) free((char *)(uintptr_t)r->messages[i].content);
    free(r->messages);
    free(r->prompt);
    free(r->prompt_ids);
    struct nt_sampling *s = &r->sampling;
    for (int32_t i = 0; i < s->n_stop; i++) free(s->stop[i]);
    free(s->bias);
    r->messages = NULL;
    r->prompt = NULL;
    r->prompt_ids = NULL;
    r->n_messages = r->n_prompt_ids = 0;
    r->prompt_len = 0;
    *s = (struct nt_sampling){0};
    memset(r->digest, 0, sizeof r->digest);
}

void nt_request_release(struct nt_request *r) {
    release_content(r);
    free(r->custom_id);
    free(r->error);
    *r = (struct nt_request){0};
}

void nt_sampling_defaults(struct nt_sampling *s, const struct nt_config *c) {
    *s = (struct nt_sampling){
        .max_tokens = (int32_t)c->sampling_max_tokens,
        .min_tokens = (int32_t)c->sampling_min_tokens,
        .n = (int32_t)c->sampling_n,
        .top_k = (int32_t)c->sampling_top_k,
        .top_logprobs = (int32_t)c->sampling_top_logprobs,
        .temperature = (float)c->sampling_temperature,
        .top_p = (float)c->sampling_top_p,
        .min_p = (float)c->sampling_min_p,
        .repetition_penalty = (float)c->sampling_repetition_penalty,
        .presence_penalty = (float)c->sampling_presence_penalty,
        .frequency_penalty = (float)c->sampling_frequency_penalty,
        .seed = (uint64_t)c->sampling_seed,
        .ignore_eos = c->generate_ignore_eos,
    };
}

bool nt_request_reject(struct nt_request *r, const char *origin, const char *fmt, ...) {
    if (r->error) return false;
    struct nt_strbuf s = NT_STRBUF_INIT;
    char text[NT_ERROR_TEXT];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    nt_strbuf_addf(&s, "%s: %s", origin, text);
    r->error = s.data;
    r->error_status = 400;
    release_content(r);
    return false;
}

/* ---- digest ---- */

static void add_bytes(struct nt_strbuf *s, const void *bytes, size_t n) {
    const uint64_t len = n;
    nt_strbuf_add(s, &len, sizeof len);
    nt_strbuf_add(s, bytes, n);
}

static void add_i64(struct nt_strbuf *s, int64_t v) {
    nt_strbuf_add(s, &v, sizeof v);
}

static void add_f32(struct nt_strbuf *s, float v) {
    if (v == 0) v = 0; /* -0.0 means the same */
    nt_strbuf_add(s, &v, sizeof v);
}

static void add_sampling(struct nt_strbuf *b, const struct nt_sampling *s) {
    const int64_t ints[] = {s->max_tokens,   s->min_tokens,    s->n,      s->top_k,      s->top_logprobs, s->ignore_eos,
                            s->include_stop, (int64_t)s->seed, s->n_stop, s->n_stop_ids, s->n_bias};
    const float floats[] = {s->temperature,      s->top_p, s->min_p, s->repetition_penalty, s->presence_penalty,
                            s->frequency_penalty};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) add_i64(b, ints[i]);
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) add_f32(b, floats[i]);
    for (int32_t i = 0; i < s->n_stop; i++) add_bytes(b, s->stop[i], strlen(s->stop[i]));
    for (int32_t i = 0; i < s->n_stop_ids; i++) add_i64(b, s->stop_ids[i]);
    for (int32_t i = 0; i < s->n_bias; i++) {
        add_i64(b, s->bias[i].id);
        add_f32(b, s->bias[i].bias);
    }
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "digests and the journal are little endian");

/* Every field with its length, in a fixed order: two requests with one digest are the same request. */
void nt_request_digest(struct nt_request *r) {
    struct nt_strbuf b = NT_STRBUF_INIT;
    nt_strbuf_adds(&b, "nocturne request 1\n");
    add_i64(&b, r->kind);
    add_i64(&b, r->add_generation_prompt);
    add_i64(&b, r->n_messages);
    for (int32_t i = 0; i < r->n_messages; i++) {
        add_bytes(&b, r->messages[i].role, strlen(r->messages[i].role));
        add_bytes(&b, r->messages[i].content, r->messages[i].len);
    }
    add_i64(&b, r->prompt != NULL);
    add_bytes(&b, r->prompt ? r->prompt : "", r->prompt_len);
    add_i64(&b, r->n_prompt_ids);
    for (int32_t i = 0; i < r->n_prompt_ids; i++) add_i64(&b, r->prompt_ids[i]);
    add_sampling(&b, &r->sampling);
    nt_sha256(b.data, b.len, r->digest);
    nt_strbuf_release(&b);
}
