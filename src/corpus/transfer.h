/* JSONL of requests to an HDF5 corpus and back, and results.h5 and training corpora to JSONL.
 *
 * Both directions stream; memory does not grow with the file. Import checks every row as generate would: a bad one is
 * not imported but becomes a line of OUTPUT.errors.jsonl, the rest goes on. Export gives back what was imported: equal
 * JSON values, keys in their order, one row per line. Outputs appear whole or not at all. Lifecycle: no state.
 * Threading: one thread. Errors: those of reader.h, corpus_h5.h and hdf5file.h. */
#ifndef NT_TRANSFER_H
#define NT_TRANSFER_H

#include "config.h"
#include "status.h"
#include <stdint.h>

struct nt_transfer {
    int64_t n_rows;    /* written */
    int64_t n_errors;  /* not written (import) */
    int64_t n_erased;  /* lines of erased subjects, not written (export) */
    char errors[4096]; /* path of the errors file */
};

/* consent: bits of enum nt_purpose that every subject of the file gets. c: defaults and log interval. */
NT_MUST nt_status nt_import(const char *input, const char *output, uint32_t consent, const struct nt_config *c,
                            struct nt_transfer *t);
NT_MUST nt_status nt_export(const char *input, const char *output, struct nt_transfer *t);

#endif
