/* The answer to one row: choices with tokens, text and log-probabilities, or an error.
 *
 * Plain memory owned by the result; nt_result_release frees it. nt_result_encode/decode give the journal's record body
 * (little endian, checked on decode: lengths against the bytes left before any allocation).
 * Threading: plain data, no globals. Errors: NT_E_DATA naming origin and offset. Layout: docs/formats.md. */
#ifndef NT_RESULT_H
#define NT_RESULT_H

#include "status.h"
#include "strbuf.h"
#include <stdbool.h>
#include <stdint.h>

enum nt_finish { NT_FINISH_STOP, NT_FINISH_LENGTH, NT_FINISH_ERROR };

struct nt_choice {
    enum nt_finish finish;
    int32_t n_tok;    /* tokens of the answer, without a final end-of-text token */
    int32_t n_top;    /* top log-probabilities per token (0: none) */
    uint32_t *tok;    // [n_tok]
    float *logprob;   // [n_tok] of the chosen tokens, NULL when not asked
    uint32_t *top_id; // [n_tok, n_top]
    float *top_lp;    // [n_tok, n_top]
    char *text;       /* UTF-8, text_len bytes, NUL added */
    size_t text_len;
};

struct nt_result {
    int64_t row;
    uint8_t digest[32]; /* of the request it answers */
    int32_t status;     /* 200, or 400/500 with error */
    int32_t n_prompt;   /* prompt tokens */
    int32_t n_choice;
    struct nt_choice *choice; // [n_choice]
    char *error;              /* NULL, or one sentence */
};

const char *nt_finish_name(enum nt_finish f); /* "stop", "length", "error" */
void nt_result_release(struct nt_result *r);
void nt_result_encode(const struct nt_result *r, struct nt_strbuf *out);
NT_MUST nt_status nt_result_decode(const void *bytes, size_t n, const char *origin, int64_t offset,
                                   struct nt_result *out);

/* The front of an encoded result, without decoding the rest. False: not one. */
struct nt_result_head {
    int64_t row;
    int32_t n_top;    /* largest of the choices */
    bool has_logprob; /* of any choice */
};
bool nt_result_peek(const void *bytes, size_t n, struct nt_result_head *head);

#endif
