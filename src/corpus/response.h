/* Lines of results.jsonl and errors.jsonl: OpenAI Batch output lines.
 *
 * A good row carries a chat.completion or text_completion body, a failed one status 400 or 500 and an error body, as
 * OpenAI's batch output and error files do; `error` beside it is for failures without any response and always null
 * here. Ids are digits of a SHA-256 over row and request digest, so that a second run writes the same bytes. Lifecycle:
 * no state. Threading: pure functions of their arguments. They cannot fail. Shapes: OpenAI API reference (Batch output
 * object, chat completion object, completion object); docs/formats.md. */
#ifndef NT_RESPONSE_H
#define NT_RESPONSE_H

#include "journal.h"
#include "request.h"

/* Appends one line with its line end. result->error or request->error makes it an error line. */
void nt_response_add(const struct nt_finish_info *info, const struct nt_request *request,
                     const struct nt_result *result, struct nt_strbuf *out);
/* The line of errors.jsonl: as above, with "line" and "row". */
void nt_response_add_error(const struct nt_request *request, const struct nt_result *result, struct nt_strbuf *out);

#endif
