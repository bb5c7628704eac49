#include "results_h5.h"

#include "hash.h"
#include <math.h>
#include <string.h>

static nt_status open_requests(struct nt_results_h5 *h) {
    const int64_t zero = 0;
    NT_TRY(nt_h5_group(h->w, "/requests", "requests"));
    NT_TRY(nt_h5_ragged(h->w, "/requests/custom_id", NT_H5_U8, "ragged-utf8", &h->custom_id));
    NT_TRY(nt_h5_column(h->w, "/requests/endpoint", NT_H5_U8, 0, &h->endpoint));
    NT_TRY(nt_h5_attr_str(h->w, "/requests/endpoint", "values", "chat.completions,completions"));
    NT_TRY(nt_h5_column(h->w, "/requests/line", NT_H5_I64, 0, &h->line));
    NT_TRY(nt_h5_column(h->w, "/requests/digest", NT_H5_U8, 32, &h->digest));
    NT_TRY(nt_h5_column(h->w, "/requests/status", NT_H5_U16, 0, &h->status));
    NT_TRY(nt_h5_ragged(h->w, "/requests/error", NT_H5_U8, "ragged-utf8", &h->error));
    NT_TRY(nt_h5_column(h->w, "/requests/n_prompt", NT_H5_U32, 0, &h->n_prompt));
    NT_TRY(nt_h5_column(h->w, "/requests/gen_ptr", NT_H5_I64, 0, &h->gen_ptr));
    return nt_h5_append(h->gen_ptr, &zero, 1);
}

static nt_status open_generations(struct nt_results_h5 *h, bool has_logprob) {
    const int64_t zero = 0;
    NT_TRY(nt_h5_group(h->w, "/generations", "generations"));
    NT_TRY(nt_h5_column(h->w, "/generations/row", NT_H5_I64, 0, &h->row));
    NT_TRY(nt_h5_column(h->w, "/generations/choice", NT_H5_U16, 0, &h->choice));
    NT_TRY(nt_h5_ragged(h->w, "/generations/content", NT_H5_U8, "ragged-utf8", &h->content));
    NT_TRY(nt_h5_column(h->w, "/generations/finish", NT_H5_U8, 0, &h->finish));
    NT_TRY(nt_h5_attr_str(h->w, "/generations/finish", "values", "stop,length,error"));
    NT_TRY(nt_h5_column(h->w, "/generations/n_prompt", NT_H5_U32, 0, &h->gen_prompt));
    NT_TRY(nt_h5_column(h->w, "/generations/n_completion", NT_H5_U32, 0, &h->n_completion));
    NT_TRY(nt_h5_column(h->w, "/generations/tok_ptr", NT_H5_I64, 0, &h->tok_ptr));
    NT_TRY(nt_h5_append(h->tok_ptr, &zero, 1));
    NT_TRY(nt_h5_column(h->w, "/generations/tok", NT_H5_U32, 0, &h->tok));
    if (has_logprob) NT_TRY(nt_h5_column(h->w, "/generations/logprob", NT_H5_F32, 0, &h->logprob));
    if (h->n_top == 0) return NT_OK;
    NT_TRY(nt_h5_column(h->w, "/generations/top_id", NT_H5_U32, h->n_top, &h->top_id));
    return nt_h5_column(h->w, "/generations/top_lp", NT_H5_F32, h->n_top, &h->top_lp);
}

nt_status nt_results_h5_open(struct nt_results_h5 *h, const char *path, const struct nt_finish_info *info,
                             bool has_logprob, int32_t n_top) {
    char hex[NT_SHA256_HEX];
    *h = (struct nt_results_h5){.n_top = n_top};
    nt_hex(info->job_digest, NT_SHA256_BYTES, hex);
    NT_TRY(nt_h5_create(&h->w, path));
    NT_TRY(nt_h5_attr_str(h->w, "/", "encoding-type", "nocturne-results"));
    NT_TRY(nt_h5_attr_str(h->w, "/", "encoding-version", "1.0.0"));
    NT_TRY(nt_h5_attr_str(h->w, "/", "model", info->model_name ? info->model_name : ""));
    NT_TRY(nt_h5_attr_str(h->w, "/", "job_digest", hex));
    NT_TRY(open_requests(h));
    return open_generations(h, has_logprob);
}

/* What a token without log-probabilities holds. */
static nt_status add_logprobs(struct nt_results_h5 *h, const struct nt_choice *c) {
    uint32_t ids[NT_MAX_TOP_LOGPROBS];
    float lps[NT_MAX_TOP_LOGPROBS];
    const size_t n_top = (size_t)c->n_top;
    NT_CHECK(h->n_top <= NT_MAX_TOP_LOGPROBS && c->n_top <= h->n_top);
    for (int32_t t = 0; t < c->n_tok; t++) {
        const float lp = c->logprob ? c->logprob[t] : NAN;
        if (h->logprob) NT_TRY(nt_h5_append(h->logprob, &lp, 1));
        if (h->n_top == 0) continue;
        for (int32_t k = 0; k < h->n_top; k++) {
            const bool has = k < c->n_top;
            ids[k] = has ? c->top_id[(size_t)t * n_top + (size_t)k] : UINT32_MAX;
            lps[k] = has ? c->top_lp[(size_t)t * n_top + (size_t)k] : NAN;
        }
        NT_TRY(nt_h5_append(h->top_id, ids, 1));
        NT_TRY(nt_h5_append(h->top_lp, lps, 1));
    }
    return NT_OK;
}

static nt_status add_choice(struct nt_results_h5 *h, const struct nt_result *r, int32_t i) {
    const struct nt_choice *c = &r->choice[i];
    const uint16_t number = (uint16_t)i;
    const uint8_t finish = (uint8_t)c->finish;
    const uint32_t n_prompt = (uint32_t)r->n_prompt, n_tok = (uint32_t)c->n_tok;
    NT_TRY(nt_h5_append(h->row, &r->row, 1));
    NT_TRY(nt_h5_append(h->choice, &number, 1));
    NT_TRY(nt_h5_ragged_append(&h->content, c->text, (int64_t)c->text_len));
    NT_TRY(nt_h5_append(h->finish, &finish, 1));
    NT_TRY(nt_h5_append(h->gen_prompt, &n_prompt, 1));
    NT_TRY(nt_h5_append(h->n_completion, &n_tok, 1));
    NT_TRY(nt_h5_append(h->tok, c->tok, c->n_tok));
    h->n_tok += c->n_tok;
    NT_TRY(nt_h5_append(h->tok_ptr, &h->n_tok, 1));
    h->n_generations++;
    return add_logprobs(h, c);
}

nt_status nt_results_h5_add(struct nt_results_h5 *h, const struct nt_request *q, const struct nt_result *r) {
    const char *error = q->error ? q->error : r->error;
    const uint8_t endpoint = q->kind == NT_REQUEST_CHAT ? 0 : 1;
    const uint16_t status = (uint16_t)(q->error ? q->error_status : r->status);
    const uint32_t n_prompt = error ? 0 : (uint32_t)r->n_prompt;
    NT_TRY(nt_h5_ragged_append(&h->custom_id, q->custom_id, (int64_t)strlen(q->custom_id)));
    NT_TRY(nt_h5_append(h->endpoint, &endpoint, 1));
    NT_TRY(nt_h5_append(h->line, &q->line, 1));
    NT_TRY(nt_h5_append(h->digest, q->digest, 1));
    NT_TRY(nt_h5_append(h->status, &status, 1));
    NT_TRY(nt_h5_ragged_append(&h->error, error ? error : "", error ? (int64_t)strlen(error) : 0));
    NT_TRY(nt_h5_append(h->n_prompt, &n_prompt, 1));
    for (int32_t i = 0; i < r->n_choice && !error; i++) NT_TRY(add_choice(h, r, i));
    NT_TRY(nt_h5_append(h->gen_ptr, &h->n_generations, 1));
    h->n_requests++;
    return NT_OK;
}

nt_status nt_results_h5_publish(struct nt_results_h5 *h) {
    NT_TRY(nt_h5_attr_i64(h->w, "/", "n_requests", h->n_requests));
    NT_TRY(nt_h5_attr_i64(h->w, "/", "n_generations", h->n_generations));
    struct nt_h5_writer *w = h->w;
    h->w = NULL;
    return nt_h5_publish(w);
}

void nt_results_h5_abandon(struct nt_results_h5 *h) {
    nt_h5_abandon(h->w);
    h->w = NULL;
}
