/* A training corpus back to the JSONL it was made of: equal JSON values, keys in their order, one row per line.
 *
 * For the owner of the file: all rows but those of erased subjects and the feedback they gave on others. Where users
 * were named with a key, their names stay what the corpus calls them ("subject:" and 32 hex digits), which ingest takes
 * as such. Batch requests go to the output, the lines of answers and feedback to OUTPUT.responses.jsonl and
 * OUTPUT.feedback.jsonl. No state; one thread. Outputs appear whole or not at all; of answers or feedback that the
 * corpus has none of, no file of an earlier export stays. Errors: those of dataset_file.h and outfile.h. */
#ifndef NT_DATASET_EXPORT_H
#define NT_DATASET_EXPORT_H

#include "transfer.h"

NT_MUST nt_status nt_dataset_export(const char *input, const char *output, struct nt_transfer *t);

#endif
