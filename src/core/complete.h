/* DIR/COMPLETE: the mark of a job that is done, written last.
 *
 * It holds the digest of the job in hexadecimal and a line end. A job that finds the mark of its own digest has nothing
 * to do and writes it anew, so that its time tells a job script that the program saw it; the mark of another job
 * protects that job's files. Rank 0 alone calls these; no state, nothing owned.
 * Errors: NT_E_IO naming the path; NT_E_DATA for the mark of another job. */
#ifndef NT_COMPLETE_H
#define NT_COMPLETE_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

NT_MUST nt_status nt_complete_write(const char *dir, const uint8_t job_digest[32]);
NT_MUST nt_status nt_complete_find(const char *dir, const uint8_t job_digest[32], bool *complete);
NT_MUST nt_status nt_complete_remove(const char *dir); /* for a fresh start; none is no error */

#endif
