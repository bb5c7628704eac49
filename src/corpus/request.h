/* A row of work as the engine sees it: what to say, how to sample, who asked.
 *
 * Made by request_json.h from a row of OpenAI Batch JSONL (chat completions, completions), of plain {"prompt"} /
 * {"messages"} JSONL or of an HDF5 corpus (reader.h). Field names and defaults follow the OpenAI API and vLLM's
 * extensions; docs/formats.md lists them with their ranges. What cannot be honoured is a row error, never ignored.
 * Ownership: a request owns its strings; nt_request_release frees them (role names are constants).
 * Threading: plain data, no globals. Errors of a row stay in the row (error, error_status); nothing here fails. */
#ifndef NT_REQUEST_H
#define NT_REQUEST_H

#include "chat.h"
#include "config.h"
#include "status.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    NT_MAX_STOP = 16,
    NT_MAX_STOP_BYTES = 1024,
    NT_MAX_STOP_IDS = 64,
    NT_MAX_TOP_LOGPROBS = 20,
    NT_MAX_LOGIT_BIAS = 1024,
    NT_MAX_CUSTOM_ID = 1024, /* bytes */
};

struct nt_sampling {
    int32_t max_tokens, min_tokens, n, top_k, top_logprobs; /* top_logprobs -1: none asked */
    float temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    uint64_t seed;
    bool has_seed;                 /* the row named its seed; else the engine mixes the job's seed with the row index */
    bool ignore_eos, include_stop; /* include_stop_str_in_output */
    int32_t n_stop, n_stop_ids, n_bias;
    char *stop[NT_MAX_STOP]; /* UTF-8, owned */
    int32_t stop_ids[NT_MAX_STOP_IDS];
    struct nt_logit_bias {
        int32_t id;
        float bias;
    } * bias; /* [n_bias] ascending ids, owned */
};

enum nt_request_kind { NT_REQUEST_CHAT, NT_REQUEST_COMPLETION };

struct nt_request {
    int64_t row;     /* 0-based; identity together with digest */
    int64_t line;    /* 1-based line of the input, 0 for HDF5 */
    char *custom_id; /* owned, never NULL; "row-<n>" when the input has none */
    enum nt_request_kind kind;
    bool batch; /* came as an OpenAI Batch line */
    bool add_generation_prompt;
    struct nt_message *messages; // [n_messages] (chat.h), content owned and NUL terminated; chat only
    int32_t n_messages;
    char *prompt; /* completion: text (NULL when ids are given), owned */
    size_t prompt_len;
    int32_t *prompt_ids, n_prompt_ids; /* completion given as token ids, owned */
    struct nt_sampling sampling;
    uint8_t digest[32];   /* SHA-256 of canonical content and effective parameters; zeros for a bad line */
    char *error;          /* non-NULL: a bad line; the sentence names the line; only row, line, custom_id, kind
                           * and batch are set besides. owned */
    int32_t error_status; /* HTTP-like code of the error record: 400 */
};

void nt_request_release(struct nt_request *r);
void nt_sampling_defaults(struct nt_sampling *s, const struct nt_config *c);
/* Makes r an error row: the sentence is origin + ": " + text. The first one stays. Always false, for return. */
bool nt_request_reject(struct nt_request *r, const char *origin, const char *fmt, ...) NT_PRINTF(3, 4);
/* Fills r->digest from everything else. */
void nt_request_digest(struct nt_request *r);

#endif
