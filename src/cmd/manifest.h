/* What a job was: job.json (written first: identity, to refuse a foreign resume), run.json (written last: everything).
 *
 * Both live in the output directory and are published atomically by rank 0. Fields: docs/formats.md.
 * The job digest is SHA-256 over input, model, tokenizer, chat format and every setting that can change an answer;
 * threads, batch sizes and ranks are not among them, so a job may be resumed elsewhere. No ownership beyond the call.
 */
#ifndef NT_MANIFEST_H
#define NT_MANIFEST_H

#include "generate.h"

NT_MUST nt_status nt_job_digest(const struct nt_session *s, const uint8_t input_digest[32], uint8_t out[32]);
NT_MUST nt_status nt_manifest_write_job(const struct nt_generate_job *job, const uint8_t input_digest[32]);
/* finish_s: seconds spent building the results; n_error: rows that ended in an error. */
NT_MUST nt_status nt_manifest_write_run(const struct nt_generate_job *job, const uint8_t input_digest[32],
                                        int64_t n_error, double finish_s);

#endif
