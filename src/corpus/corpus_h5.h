/* The HDF5 corpus: conversations with their subjects' consent, and the requests made from them (encoding corpus/1.0).
 *
 * Writing takes rows as the reader gave them (request and JSON); reading gives back each row's JSON with equal values
 * and key order, so that a corpus and the JSONL it came from are the same input to generate, digest by digest. Reading
 * is for a purpose: rows whose subject has not consented to it are not seen, and a subject without consent column does
 * not exist; the default is deny. Lifecycle: nt_corpus_create, _add, _publish or _abandon; nt_corpus_open, _next,
 * nt_corpus_close. One thread each. Errors: NT_E_DATA naming file and dataset for tables that do not fit together.
 * Layout: docs/formats.md. */
#ifndef NT_CORPUS_H5_H
#define NT_CORPUS_H5_H

#include "json.h"
#include "request.h"

/* Bits of /subjects/consent. ANY is not a consent: it asks for all rows and is for export by the owner of the file. */
enum nt_purpose {
    NT_PURPOSE_ANY = 0,
    NT_PURPOSE_GENERATE = 1,
    NT_PURPOSE_TRAIN = 2,
    NT_PURPOSE_DISTILL = 4,
    NT_PURPOSE_PUBLISH = 8,
};
/* "generate,train" -> bits; "none" or "" -> 0. NT_E_CONFIG with the nearest name. */
NT_MUST nt_status nt_consent_parse(const char *text, uint32_t *bits);
/* The one place that decides: every asked bit must be given. */
bool nt_consent_allows(uint32_t consent, uint32_t purpose);

struct nt_corpus_writer;
NT_MUST nt_status nt_corpus_create(struct nt_corpus_writer **out, const char *path, uint32_t consent);
NT_MUST nt_status nt_corpus_add(struct nt_corpus_writer *w, const struct nt_request *q, const struct nt_json *row);
NT_MUST nt_status nt_corpus_publish(struct nt_corpus_writer *w); /* frees w in any case */
void nt_corpus_abandon(struct nt_corpus_writer *w);              /* accepts NULL */

struct nt_corpus;
NT_MUST nt_status nt_corpus_open(struct nt_corpus **out, const char *path, enum nt_purpose purpose);
void nt_corpus_close(struct nt_corpus *c); /* accepts NULL */
/* Passes over n rows that may be seen (*n_skipped: how many there were) without reading their text. */
NT_MUST nt_status nt_corpus_skip(struct nt_corpus *c, int64_t n, int64_t *n_skipped);
/* JSON text of the next row that may be seen, into json (reset first); *more false: there is none. *bad: the text is
 * not UTF-8 and json says so instead. */
NT_MUST nt_status nt_corpus_next(struct nt_corpus *c, struct nt_strbuf *json, bool *more, bool *bad);

#endif
