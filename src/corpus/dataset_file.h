/* One training corpus, opened and checked: what dataset.h's records, export and summaries are read from.
 *
 * Everything but the texts is held against dataset_columns.def when the file is opened, in blocks; references between
 * tables too, so that later code may index without asking. Values are read by dataset_cells.h. Lifecycle:
 * nt_dsfile_open, nt_dsfile_close. Threading: one thread. Errors: NT_E_DATA naming file, dataset and row. */
#ifndef NT_DATASET_FILE_H
#define NT_DATASET_FILE_H

#include "dataset_cells.h"

NT_MUST nt_status nt_dsfile_open(struct nt_dsfile *f, const char *path);
void nt_dsfile_close(struct nt_dsfile *f); /* accepts zeroed */
/* Is this an HDF5 corpus with training rows (rather than requests)? */
NT_MUST nt_status nt_dsfile_detect(const char *path, bool *training);

#endif
