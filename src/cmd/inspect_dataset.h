/* What `nocturne inspect` says of a training corpus: rows by source, consent, format, label, and what each purpose
 * sees.
 *
 * Reads every text, so that it is also a check of the whole file. Prints to stdout; no state.
 * Threading: one thread. Errors: those of dataset.h. Which files they are decides nt_dsfile_detect. */
#ifndef NT_INSPECT_DATASET_H
#define NT_INSPECT_DATASET_H

#include "status.h"

NT_MUST nt_status nt_inspect_dataset(const char *path);

#endif
