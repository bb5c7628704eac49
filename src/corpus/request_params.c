#include "request_params.h"

#include "strbuf.h"
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IN_CHAT = 1, IN_COMPLETION = 2, IN_BOTH = 3 };

enum rule {
    RULE_INT,     /* int32 field, [min, max] */
    RULE_NUM,     /* float field, [min, max] */
    RULE_BOOL,    /* bool field */
    RULE_CALL,    /* its own function */
    RULE_CONTENT, /* messages, prompt: read elsewhere */
    RULE_IGNORE,  /* cannot change the answer */
    RULE_NEUTRAL, /* only the value that means "off" (JSON text; NULL: only null) */
};

struct param;
typedef bool param_read(struct nt_request *r, const struct nt_json *v, const struct param *p,
                        const struct nt_params_at *at);

struct param {
    const char *key;
    int where;
    enum rule rule;
    size_t field;
    double min, max;
    param_read *read;
    const char *neutral;
};

const char *nt_params_show(const struct nt_json *v, char *buf, size_t cap) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_json_dump(v, &s);
    size_t n = s.len < cap - 1 ? s.len : cap - 1;
    const bool cut = n > 60;
    if (cut) n = 60;
    while (cut && n > 0 && ((unsigned char)s.data[n] & 0xC0u) == 0x80u) n--; /* not inside a character */
    memcpy(buf, nt_strbuf_cstr(&s), n);
    buf[n] = '\0';
    if (cut && n + 4 <= cap) memcpy(buf + n, "...", 4);
    nt_strbuf_release(&s);
    return buf;
}

static bool wrong(struct nt_request *r, const struct nt_params_at *at, const char *key, const struct nt_json *v,
                  const char *expected) {
    char shown[72];
    return nt_request_reject(r, at->origin, "%s%s is %s, expected %s", at->prefix, key,
                             nt_params_show(v, shown, sizeof shown), expected);
}

static bool read_seed(struct nt_request *r, const struct nt_json *v, const struct param *p,
                      const struct nt_params_at *at) {
    const int64_t seed = nt_json_is(v, NT_JSON_INT) ? nt_json_int(v, -1) : -1;
    if (seed < 0) return wrong(r, at, p->key, v, "an integer from 0 to 9223372036854775807");
    r->sampling.seed = (uint64_t)seed;
    r->sampling.has_seed = true;
    return true;
}

/* vLLM spells "all tokens" -1 as well as 0. */
static bool read_top_k(struct nt_request *r, const struct nt_json *v, const struct param *p,
                       const struct nt_params_at *at) {
    const int64_t k = nt_json_is(v, NT_JSON_INT) ? nt_json_int(v, -2) : -2;
    if (k < -1 || k > 1048576) return wrong(r, at, p->key, v, "an integer from -1 to 1048576 (0 or -1: all tokens)");
    r->sampling.top_k = k < 0 ? 0 : (int32_t)k;
    return true;
}

static bool add_stop(struct nt_request *r, const struct nt_json *v, const struct param *p,
                     const struct nt_params_at *at) {
    size_t len = 0;
    const char *text = nt_json_str(v, &len);
    if (!text || len == 0 || len > NT_MAX_STOP_BYTES || strlen(text) != len)
        return wrong(r, at, p->key, v, "strings of 1 to 1024 bytes without NUL");
    char *copy = strdup(text);
    if (!copy) nt_bug("out of memory for a stop string");
    r->sampling.stop[r->sampling.n_stop++] = copy;
    return true;
}

static bool read_stop(struct nt_request *r, const struct nt_json *v, const struct param *p,
                      const struct nt_params_at *at) {
    if (nt_json_is(v, NT_JSON_STRING)) return add_stop(r, v, p, at);
    if (!nt_json_is(v, NT_JSON_ARRAY) || nt_json_len(v) > NT_MAX_STOP)
        return wrong(r, at, p->key, v, "a string or a list of at most 16 strings");
    for (size_t i = 0; i < nt_json_len(v); i++) {
        if (!add_stop(r, nt_json_at(v, i), p, at)) return false;
    }
    return true;
}

static bool token_id(const struct nt_json *v, int32_t *id) {
    const int64_t n = nt_json_is(v, NT_JSON_INT) ? nt_json_int(v, -1) : -1;
    *id = (int32_t)n;
    return n >= 0 && n <= INT32_MAX;
}

static bool read_stop_ids(struct nt_request *r, const struct nt_json *v, const struct param *p,
                          const struct nt_params_at *at) {
    struct nt_sampling *s = &r->sampling;
    const char *expected = "a list of at most 64 token ids from 0 to 2147483647";
    if (!nt_json_is(v, NT_JSON_ARRAY) || nt_json_len(v) > NT_MAX_STOP_IDS) return wrong(r, at, p->key, v, expected);
    for (size_t i = 0; i < nt_json_len(v); i++) {
        if (!token_id(nt_json_at(v, i), &s->stop_ids[i])) return wrong(r, at, p->key, v, expected);
    }
    s->n_stop_ids = (int32_t)nt_json_len(v);
    return true;
}

static int by_id(const void *a, const void *b) {
    const int32_t x = ((const struct nt_logit_bias *)a)->id, y = ((const struct nt_logit_bias *)b)->id;
    return (x > y) - (x < y);
}

/* Decimal digits without sign or leading zeros, so that no id can be given twice in two spellings. */
static bool parse_id(const char *key, int32_t *id) {
    const size_t n = strlen(key);
    if (n == 0 || n > 10 || strspn(key, "0123456789") != n || (key[0] == '0' && n > 1)) return false;
    const long long v = strtoll(key, NULL, 10);
    *id = (int32_t)v;
    return v <= INT32_MAX;
}

static bool read_bias(struct nt_request *r, const struct nt_json *v, const struct param *p,
                      const struct nt_params_at *at) {
    const size_t n = nt_json_len(v);
    if (!nt_json_is(v, NT_JSON_OBJECT) || n > NT_MAX_LOGIT_BIAS)
        return wrong(r, at, p->key, v, "an object of at most 1024 token ids with a bias from -100 to 100");
    if (n == 0) return true;
    struct nt_logit_bias *bias = calloc(n, sizeof *bias);
    if (!bias) nt_bug("out of memory for %zu logit biases", n);
    r->sampling.bias = bias;
    for (void *it = nt_json_first(v); it; it = nt_json_next(v, it)) {
        const struct nt_json *value = nt_json_value(it);
        const double b = nt_json_num(value, 1000);
        struct nt_logit_bias *entry = &bias[r->sampling.n_bias++];
        if (!parse_id(nt_json_key(it), &entry->id))
            return nt_request_reject(r, at->origin,
                                     "%s%s: \"%.40s\" is no token id, expected digits of a number from 0 to 2147483647",
                                     at->prefix, p->key, nt_json_key(it));
        if (!(b >= -100 && b <= 100)) return wrong(r, at, p->key, v, "biases from -100 to 100");
        entry->bias = (float)b;
    }
    qsort(bias, n, sizeof *bias, by_id);
    return true;
}

/* Chat: a switch, with the number in top_logprobs. Completions: the number itself. Both take the other's form too. */
static bool read_logprobs(struct nt_request *r, const struct nt_json *v, const struct param *p,
                          const struct nt_params_at *at) {
    if (nt_json_is(v, NT_JSON_BOOL)) {
        r->sampling.top_logprobs = nt_json_bool(v, false) ? 0 : -1;
        return true;
    }
    if (r->kind == NT_REQUEST_CHAT)
        return wrong(r, at, p->key, v, "true or false (the number of alternatives goes into top_logprobs)");
    const int64_t k = nt_json_is(v, NT_JSON_INT) ? nt_json_int(v, -1) : -1;
    if (k < 0 || k > NT_MAX_TOP_LOGPROBS) return wrong(r, at, p->key, v, "an integer from 0 to 20");
    r->sampling.top_logprobs = (int32_t)k;
    return true;
}

static bool check_top_logprobs(struct nt_request *r, const struct nt_json *v, const struct param *p,
                               const struct nt_params_at *at) {
    const int64_t k = nt_json_is(v, NT_JSON_INT) ? nt_json_int(v, -1) : -1;
    return (k >= 0 && k <= NT_MAX_TOP_LOGPROBS) || wrong(r, at, p->key, v, "an integer from 0 to 20");
}

static bool check_custom_id(struct nt_request *r, const struct nt_json *v, const struct param *p,
                            const struct nt_params_at *at) {
    if (at->envelope) return true; /* read with the envelope */
    return nt_request_reject(r, at->origin, "%s%s: belongs beside \"body\", not into it (value of %s)", at->prefix,
                             p->key, nt_json_type_name(v));
}

/* Rows in short: INT and NUM have a field of struct nt_sampling and a range, OFF the only value that is accepted. */
#define INT(name, f, lo, hi)                                                                                           \
    { .key = name, .where = IN_BOTH, .rule = RULE_INT, .field = offsetof(struct nt_request, f), .min = lo, .max = hi }
#define NUM(name, f, lo, hi)                                                                                           \
    { .key = name, .where = IN_BOTH, .rule = RULE_NUM, .field = offsetof(struct nt_request, f), .min = lo, .max = hi }
#define SWITCH(name, at, f)                                                                                            \
    { .key = name, .where = at, .rule = RULE_BOOL, .field = offsetof(struct nt_request, f) }
#define CALL(name, at, fn)                                                                                             \
    { .key = name, .where = at, .rule = RULE_CALL, .read = fn }
#define CONTENT(name)                                                                                                  \
    { .key = name, .where = IN_BOTH, .rule = RULE_CONTENT }
#define HARMLESS(name)                                                                                                 \
    { .key = name, .where = IN_BOTH, .rule = RULE_IGNORE }
#define OFF(name, at, value)                                                                                           \
    { .key = name, .where = at, .rule = RULE_NEUTRAL, .neutral = value }

static const struct param params[] = {
    CALL("custom_id", IN_BOTH, check_custom_id),
    CONTENT("messages"),
    CONTENT("prompt"),
    INT("max_tokens", sampling.max_tokens, 1, 1048576),
    INT("max_completion_tokens", sampling.max_tokens, 1, 1048576),
    INT("min_tokens", sampling.min_tokens, 0, 1048576),
    INT("n", sampling.n, 1, 1024),
    NUM("temperature", sampling.temperature, 0, 100),
    NUM("top_p", sampling.top_p, 0, 1),
    NUM("min_p", sampling.min_p, 0, 1),
    NUM("repetition_penalty", sampling.repetition_penalty, 0.01, 100),
    NUM("presence_penalty", sampling.presence_penalty, -2, 2),
    NUM("frequency_penalty", sampling.frequency_penalty, -2, 2),
    CALL("top_k", IN_BOTH, read_top_k),
    CALL("seed", IN_BOTH, read_seed),
    CALL("stop", IN_BOTH, read_stop),
    CALL("stop_token_ids", IN_BOTH, read_stop_ids),
    CALL("logit_bias", IN_BOTH, read_bias),
    CALL("logprobs", IN_BOTH, read_logprobs),
    CALL("top_logprobs", IN_CHAT, check_top_logprobs),
    SWITCH("ignore_eos", IN_BOTH, sampling.ignore_eos),
    SWITCH("include_stop_str_in_output", IN_BOTH, sampling.include_stop),
    SWITCH("add_generation_prompt", IN_CHAT, add_generation_prompt),

    HARMLESS("model"),
    HARMLESS("user"),
    HARMLESS("metadata"),
    HARMLESS("store"),
    HARMLESS("priority"),
    HARMLESS("service_tier"),
    HARMLESS("safety_identifier"),
    HARMLESS("prompt_cache_key"),
    HARMLESS("prompt_cache_retention"),
    HARMLESS("parallel_tool_calls"),
    HARMLESS("request_id"),
    HARMLESS("spaces_between_special_tokens"),

    OFF("stream", IN_BOTH, "false"),
    OFF("stream_options", IN_BOTH, NULL),
    OFF("tools", IN_CHAT, "[]"),
    OFF("tool_choice", IN_CHAT, "\"none\""),
    OFF("functions", IN_CHAT, "[]"),
    OFF("function_call", IN_CHAT, "\"none\""),
    OFF("response_format", IN_BOTH, "{\"type\":\"text\"}"),
    OFF("structured_outputs", IN_BOTH, NULL),
    OFF("guided_json", IN_BOTH, NULL),
    OFF("guided_regex", IN_BOTH, NULL),
    OFF("guided_choice", IN_BOTH, NULL),
    OFF("guided_grammar", IN_BOTH, NULL),
    OFF("modalities", IN_CHAT, "[\"text\"]"),
    OFF("audio", IN_CHAT, NULL),
    OFF("prediction", IN_CHAT, NULL),
    OFF("web_search_options", IN_CHAT, NULL),
    OFF("reasoning_effort", IN_CHAT, NULL),
    OFF("verbosity", IN_CHAT, NULL),
    OFF("chat_template", IN_CHAT, NULL),
    OFF("chat_template_kwargs", IN_CHAT, "{}"),
    OFF("documents", IN_CHAT, "[]"),
    OFF("continue_final_message", IN_CHAT, "false"),
    OFF("echo", IN_BOTH, "false"),
    OFF("suffix", IN_COMPLETION, "\"\""),
    OFF("best_of", IN_BOTH, "1"),
    OFF("use_beam_search", IN_BOTH, "false"),
    OFF("length_penalty", IN_BOTH, "1.0"),
    OFF("prompt_logprobs", IN_BOTH, NULL),
    OFF("skip_special_tokens", IN_BOTH, "true"),
    OFF("truncate_prompt_tokens", IN_BOTH, NULL),
    OFF("allowed_token_ids", IN_BOTH, NULL),
    OFF("bad_words", IN_BOTH, "[]"),
    OFF("logits_processors", IN_BOTH, "[]"),
};

enum { N_PARAMS = sizeof params / sizeof *params };

static const struct param *find_param(const char *key) {
    for (int i = 0; i < N_PARAMS; i++) {
        if (strcmp(params[i].key, key) == 0) return &params[i];
    }
    return NULL;
}

static bool unknown_key(struct nt_request *r, const char *key, const struct nt_params_at *at) {
    const char *names[N_PARAMS];
    for (int i = 0; i < N_PARAMS; i++) names[i] = params[i].key;
    const char *near = nt_nearest(key, names, N_PARAMS);
    if (near) return nt_request_reject(r, at->origin, "unknown key %s\"%.80s\", maybe: %s?", at->prefix, key, near);
    return nt_request_reject(r, at->origin,
                             "unknown key %s\"%.80s\", expected a parameter of the OpenAI API (docs/formats.md)",
                             at->prefix, key);
}

static bool read_int(struct nt_request *r, const struct nt_json *v, const struct param *p,
                     const struct nt_params_at *at) {
    const int64_t n = nt_json_is(v, NT_JSON_INT) ? nt_json_int(v, INT64_MIN) : INT64_MIN;
    if (n < (int64_t)p->min || n > (int64_t)p->max) {
        char expected[80];
        (void)snprintf(expected, sizeof expected, "an integer from %.0f to %.0f", p->min, p->max);
        return wrong(r, at, p->key, v, expected);
    }
    const int32_t n32 = (int32_t)n;
    memcpy((char *)r + p->field, &n32, sizeof n32);
    return true;
}

static bool read_num(struct nt_request *r, const struct nt_json *v, const struct param *p,
                     const struct nt_params_at *at) {
    const double d = nt_json_num(v, NAN);
    if (!(d >= p->min && d <= p->max)) {
        char expected[80];
        (void)snprintf(expected, sizeof expected, "a number from %g to %g", p->min, p->max);
        return wrong(r, at, p->key, v, expected);
    }
    const float f = (float)d;
    memcpy((char *)r + p->field, &f, sizeof f);
    return true;
}

static bool read_bool(struct nt_request *r, const struct nt_json *v, const struct param *p,
                      const struct nt_params_at *at) {
    if (!nt_json_is(v, NT_JSON_BOOL)) return wrong(r, at, p->key, v, "true or false");
    const bool b = nt_json_bool(v, false);
    memcpy((char *)r + p->field, &b, sizeof b);
    return true;
}

/* Equal to the neutral value, as JSON text; a number may also be written as an integer. */
static bool is_neutral(const struct nt_json *v, const char *neutral) {
    if (!neutral) return false;
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_json_dump(v, &s);
    bool same = strcmp(nt_strbuf_cstr(&s), neutral) == 0;
    if (!same && nt_json_is(v, NT_JSON_INT)) {
        nt_strbuf_adds(&s, ".0");
        same = strcmp(nt_strbuf_cstr(&s), neutral) == 0;
    }
    nt_strbuf_release(&s);
    return same;
}

static bool read_param(struct nt_request *r, const struct nt_json *v, const struct param *p,
                       const struct nt_params_at *at) {
    char shown[72];
    switch (p->rule) {
    case RULE_INT:
        return read_int(r, v, p, at);
    case RULE_NUM:
        return read_num(r, v, p, at);
    case RULE_BOOL:
        return read_bool(r, v, p, at);
    case RULE_CALL:
        return p->read(r, v, p, at);
    case RULE_CONTENT:
    case RULE_IGNORE:
        return true;
    case RULE_NEUTRAL:
        break;
    }
    if (is_neutral(v, p->neutral)) return true;
    return nt_request_reject(r, at->origin, "%s%s is %s, which is not supported; leave it out%s%s", at->prefix, p->key,
                             nt_params_show(v, shown, sizeof shown), p->neutral ? " or give " : "",
                             p->neutral ? p->neutral : "");
}

static const struct nt_json *given(const struct nt_json *body, const char *key) {
    const struct nt_json *v = nt_json_get(body, key);
    return nt_json_is(v, NT_JSON_NULL) ? NULL : v;
}

/* What concerns two keys at once. */
static bool check_pairs(struct nt_request *r, const struct nt_json *body, const struct nt_params_at *at) {
    const struct nt_json *a = given(body, "max_tokens"), *b = given(body, "max_completion_tokens");
    if (a && b && nt_json_int(a, 0) != nt_json_int(b, 0))
        return nt_request_reject(r, at->origin,
                                 "%smax_tokens is %" PRId64 " and %smax_completion_tokens is %" PRId64
                                 ", expected only one of them",
                                 at->prefix, nt_json_int(a, 0), at->prefix, nt_json_int(b, 0));
    const struct nt_json *top = given(body, "top_logprobs"), *on = given(body, "logprobs");
    if (top) {
        if (!nt_json_bool(on, false))
            return nt_request_reject(r, at->origin, "%stop_logprobs needs %slogprobs to be true", at->prefix,
                                     at->prefix);
        r->sampling.top_logprobs = (int32_t)nt_json_int(top, 0);
    }
    if (r->sampling.min_tokens > r->sampling.max_tokens)
        return nt_request_reject(r, at->origin, "min_tokens is %d, expected at most max_tokens, which is %d",
                                 r->sampling.min_tokens, r->sampling.max_tokens);
    return true;
}

bool nt_params_read(struct nt_request *r, const struct nt_json *body, const struct nt_params_at *at) {
    const int here = r->kind == NT_REQUEST_CHAT ? IN_CHAT : IN_COMPLETION;
    for (void *it = nt_json_first(body); it; it = nt_json_next(body, it)) {
        const char *key = nt_json_key(it);
        const struct nt_json *v = nt_json_value(it);
        const struct param *p = find_param(key);
        if (!p) return unknown_key(r, key, at);
        if (nt_json_is(v, NT_JSON_NULL)) continue;
        if (!(p->where & here))
            return nt_request_reject(r, at->origin, "%s%s is a parameter of %s, not of %s", at->prefix, key,
                                     here == IN_CHAT ? "completions" : "chat completions",
                                     here == IN_CHAT ? "chat completions" : "completions");
        if (!read_param(r, v, p, at)) return false;
    }
    return check_pairs(r, body, at);
}
