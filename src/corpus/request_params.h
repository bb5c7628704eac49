/* The keys of a request body: one table row per key, with its range and what to do with it.
 *
 * Every key of the OpenAI API and of vLLM's extensions is a row: honoured, harmless (accepted and ignored because it
 * cannot change the answer), or accepted only with the value that means "off". A key without row is an error with the
 * nearest known name. null means absent everywhere, as in the OpenAI API.
 * Lifecycle: no state. Threading: the table is constant. Errors become the row's error (nt_request_reject). */
#ifndef NT_REQUEST_PARAMS_H
#define NT_REQUEST_PARAMS_H

#include "json.h"
#include "request.h"

struct nt_params_at {
    const char *origin; /* "line 7" */
    const char *prefix; /* "body." or "" */
    bool envelope;      /* plain row: custom_id stands among the parameters */
};

/* Reads all parameters of body (messages and prompt are the caller's). False: r->error is set. */
bool nt_params_read(struct nt_request *r, const struct nt_json *body, const struct nt_params_at *at);
/* The value as JSON, cut to about 60 bytes, for error sentences; buf of cap bytes. */
const char *nt_params_show(const struct nt_json *v, char *buf, size_t cap);

#endif
