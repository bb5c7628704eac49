/* A row of JSON becomes a request: the envelope (Batch line or plain), messages or prompt; the parameters are read by
 * request_params.h.
 *
 * Every key is known or an error with the nearest known name; what cannot be honoured (images, several prompts, tool
 * calls) is an error too, never ignored. Shapes and limits: docs/formats.md, after the OpenAI Batch API and vLLM.
 * Ownership: the request owns copies of all strings, the JSON may be freed. Threading: no state.
 * Errors: a bad row becomes r->error (nt_request_reject), nothing here fails. */
#ifndef NT_REQUEST_JSON_H
#define NT_REQUEST_JSON_H

#include "json.h"
#include "request.h"

/* A whole row (Batch line, {"messages"} or {"prompt"}) over the defaults already in r->sampling; row and line are set
 * by the caller. A violation becomes r->error, beginning with origin ("line 7"). */
void nt_request_from_json(struct nt_request *r, const struct nt_json *line, const char *origin);

#endif
