#include "response.h"

#include "hash.h"
#include "tok_utf8.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Characters of every id: 64 hex digits of which each id takes a part. */
struct ids {
    char hex[NT_SHA256_HEX];
};

static struct ids make_ids(const struct nt_request *r) {
    uint8_t bytes[40], digest[NT_SHA256_BYTES];
    struct ids ids;
    memcpy(bytes, r->digest, 32);
    memcpy(bytes + 32, &r->row, 8);
    nt_sha256(bytes, sizeof bytes, digest);
    nt_hex(digest, sizeof digest, ids.hex);
    return ids;
}

static void add_key_str(struct nt_strbuf *out, const char *key, const char *value) {
    nt_strbuf_addf(out, "\"%s\": ", key);
    nt_strbuf_add_json(out, value, strlen(value));
}

static const char *piece_of(const struct nt_finish_info *info, uint32_t id, size_t *len) {
    const char *piece = info->piece ? info->piece(info->piece_arg, id, len) : NULL;
    if (!piece) *len = 0;
    return piece ? piece : "";
}

/* vLLM's floor for what has no probability: JSON knows no infinity. */
static void add_logprob(struct nt_strbuf *out, float lp) {
    nt_strbuf_add_json_num(out, lp > -9999.0f ? (double)lp : -9999.0);
}

/* ---- chat ---- */

static void add_chat_token(const struct nt_finish_info *info, uint32_t id, float lp, struct nt_strbuf *out) {
    size_t len = 0;
    const char *piece = piece_of(info, id, &len);
    nt_strbuf_adds(out, "\"token\": ");
    nt_strbuf_add_json(out, piece, len);
    nt_strbuf_adds(out, ", \"logprob\": ");
    add_logprob(out, lp);
    nt_strbuf_adds(out, ", \"bytes\": [");
    for (size_t i = 0; i < len; i++) nt_strbuf_addf(out, "%s%d", i ? ", " : "", (unsigned char)piece[i]);
    nt_strbuf_addc(out, ']');
}

static void add_chat_logprobs(const struct nt_finish_info *info, const struct nt_choice *c, struct nt_strbuf *out) {
    if (!c->logprob) {
        nt_strbuf_adds(out, "null");
        return;
    }
    nt_strbuf_adds(out, "{\"content\": [");
    for (int32_t t = 0; t < c->n_tok; t++) {
        nt_strbuf_adds(out, t ? ", {" : "{");
        add_chat_token(info, c->tok[t], c->logprob[t], out);
        nt_strbuf_adds(out, ", \"top_logprobs\": [");
        for (int32_t k = 0; k < c->n_top; k++) {
            const size_t at = (size_t)t * (size_t)c->n_top + (size_t)k;
            nt_strbuf_adds(out, k ? ", {" : "{");
            add_chat_token(info, c->top_id[at], c->top_lp[at], out);
            nt_strbuf_addc(out, '}');
        }
        nt_strbuf_adds(out, "]}");
    }
    nt_strbuf_adds(out, "], \"refusal\": null}");
}

static void add_chat_choice(const struct nt_finish_info *info, const struct nt_choice *c, int32_t i,
                            struct nt_strbuf *out) {
    nt_strbuf_addf(out, "%s{\"index\": %d, \"message\": {\"role\": \"assistant\", \"content\": ", i ? ", " : "", i);
    nt_strbuf_add_json(out, c->text, c->text_len);
    nt_strbuf_adds(out, ", \"refusal\": null}, \"logprobs\": ");
    add_chat_logprobs(info, c, out);
    nt_strbuf_addf(out, ", \"finish_reason\": \"%s\"}", nt_finish_name(c->finish));
}

/* ---- completions ---- */

/* A token as a JSON string; bytes that are no text are spelled out, as OpenAI does, so that keys stay apart. */
static void add_token_text(const struct nt_finish_info *info, uint32_t id, struct nt_strbuf *out) {
    size_t len = 0;
    const char *piece = piece_of(info, id, &len);
    if (nt_utf8_valid(piece, len)) {
        nt_strbuf_add_json(out, piece, len);
        return;
    }
    nt_strbuf_adds(out, "\"bytes:");
    for (size_t i = 0; i < len; i++) nt_strbuf_addf(out, "\\\\x%02x", (unsigned char)piece[i]);
    nt_strbuf_addc(out, '"');
}

static bool same_piece(const struct nt_finish_info *info, uint32_t a, uint32_t b) {
    size_t n = 0, m = 0;
    const char *p = piece_of(info, a, &n), *q = piece_of(info, b, &m);
    return a == b || (n == m && memcmp(p, q, n) == 0);
}

/* {"token": logprob} of the alternatives and the chosen token; of two ids with one spelling the likelier stays. */
static void add_top_object(const struct nt_finish_info *info, const struct nt_choice *c, int32_t t,
                           struct nt_strbuf *out) {
    const uint32_t *id = c->top_id + (size_t)t * (size_t)c->n_top;
    const float *lp = c->top_lp + (size_t)t * (size_t)c->n_top;
    bool chosen = false;
    nt_strbuf_addc(out, '{');
    for (int32_t k = 0; k < c->n_top; k++) {
        bool before = false;
        for (int32_t m = 0; m < k; m++) before |= same_piece(info, id[m], id[k]);
        chosen |= same_piece(info, id[k], c->tok[t]);
        if (before) continue;
        if (k) nt_strbuf_adds(out, ", ");
        add_token_text(info, id[k], out);
        nt_strbuf_adds(out, ": ");
        add_logprob(out, lp[k]);
    }
    if (!chosen) {
        if (c->n_top) nt_strbuf_adds(out, ", ");
        add_token_text(info, c->tok[t], out);
        nt_strbuf_adds(out, ": ");
        add_logprob(out, c->logprob[t]);
    }
    nt_strbuf_addc(out, '}');
}

static int64_t n_characters(const char *text, size_t n) {
    int64_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)text[i] & 0xC0u) != 0x80u;
    return count;
}

static void add_text_logprobs(const struct nt_finish_info *info, const struct nt_choice *c, struct nt_strbuf *out) {
    if (!c->logprob) {
        nt_strbuf_adds(out, "null");
        return;
    }
    int64_t offset = 0;
    nt_strbuf_adds(out, "{\"text_offset\": [");
    for (int32_t t = 0; t < c->n_tok; t++) {
        size_t len = 0;
        const char *piece = piece_of(info, c->tok[t], &len);
        nt_strbuf_addf(out, "%s%" PRId64, t ? ", " : "", offset);
        offset += n_characters(piece, len);
    }
    nt_strbuf_adds(out, "], \"token_logprobs\": [");
    for (int32_t t = 0; t < c->n_tok; t++) {
        if (t) nt_strbuf_adds(out, ", ");
        add_logprob(out, c->logprob[t]);
    }
    nt_strbuf_adds(out, "], \"tokens\": [");
    for (int32_t t = 0; t < c->n_tok; t++) {
        if (t) nt_strbuf_adds(out, ", ");
        add_token_text(info, c->tok[t], out);
    }
    nt_strbuf_adds(out, "], \"top_logprobs\": ");
    if (c->n_top == 0) {
        nt_strbuf_adds(out, "null}");
        return;
    }
    nt_strbuf_addc(out, '[');
    for (int32_t t = 0; t < c->n_tok; t++) {
        if (t) nt_strbuf_adds(out, ", ");
        add_top_object(info, c, t, out);
    }
    nt_strbuf_adds(out, "]}");
}

static void add_text_choice(const struct nt_finish_info *info, const struct nt_choice *c, int32_t i,
                            struct nt_strbuf *out) {
    nt_strbuf_addf(out, "%s{\"text\": ", i ? ", " : "");
    nt_strbuf_add_json(out, c->text, c->text_len);
    nt_strbuf_addf(out, ", \"index\": %d, \"logprobs\": ", i);
    add_text_logprobs(info, c, out);
    nt_strbuf_addf(out, ", \"finish_reason\": \"%s\"}", nt_finish_name(c->finish));
}

/* ---- lines ---- */

static void add_body(const struct nt_finish_info *info, const struct nt_request *q, const struct nt_result *r,
                     const char *hex, struct nt_strbuf *out) {
    const bool chat = q->kind == NT_REQUEST_CHAT;
    int64_t n_completion = 0;
    for (int32_t i = 0; i < r->n_choice; i++) n_completion += r->choice[i].n_tok;
    nt_strbuf_addf(out, "{\"id\": \"%s-%.32s\", \"object\": \"%s\", \"created\": %" PRId64 ", ",
                   chat ? "chatcmpl" : "cmpl", hex, chat ? "chat.completion" : "text_completion", info->created);
    add_key_str(out, "model", info->model_name ? info->model_name : "");
    nt_strbuf_adds(out, ", \"choices\": [");
    for (int32_t i = 0; i < r->n_choice; i++) (chat ? add_chat_choice : add_text_choice)(info, &r->choice[i], i, out);
    nt_strbuf_addf(out,
                   "], \"usage\": {\"prompt_tokens\": %d, \"completion_tokens\": %" PRId64
                   ", \"total_tokens\": %" PRId64 "}, \"system_fingerprint\": null}",
                   r->n_prompt, n_completion, r->n_prompt + n_completion);
}

static void add_error_body(const char *text, int32_t status, struct nt_strbuf *out) {
    nt_strbuf_adds(out, "{\"error\": {");
    add_key_str(out, "message", text);
    nt_strbuf_addf(out, ", \"type\": \"%s\", \"param\": null, \"code\": null}}",
                   status < 500 ? "invalid_request_error" : "server_error");
}

/* Everything up to the end of "error": null, without the closing brace. */
static void add_open_line(const struct nt_finish_info *info, const struct nt_request *q, const struct nt_result *r,
                          struct nt_strbuf *out) {
    const struct ids ids = make_ids(q);
    const char *error = q->error ? q->error : r->error;
    const int32_t status = q->error ? q->error_status : r->status;
    nt_strbuf_addf(out, "{\"id\": \"batch_req_%.32s\", ", ids.hex);
    add_key_str(out, "custom_id", q->custom_id);
    nt_strbuf_addf(out, ", \"response\": {\"status_code\": %d, \"request_id\": \"%.32s\", \"body\": ", status,
                   ids.hex + 32);
    if (error)
        add_error_body(error, status, out);
    else
        add_body(info, q, r, ids.hex, out);
    nt_strbuf_adds(out, "}, \"error\": null");
}

void nt_response_add(const struct nt_finish_info *info, const struct nt_request *request,
                     const struct nt_result *result, struct nt_strbuf *out) {
    add_open_line(info, request, result, out);
    nt_strbuf_adds(out, "}\n");
}

void nt_response_add_error(const struct nt_request *request, const struct nt_result *result, struct nt_strbuf *out) {
    add_open_line(NULL, request, result, out);
    if (request->line > 0)
        nt_strbuf_addf(out, ", \"line\": %" PRId64, request->line);
    else
        nt_strbuf_adds(out, ", \"line\": null");
    nt_strbuf_addf(out, ", \"row\": %" PRId64 "}\n", request->row);
}
