/* Holds the columns of an opened training corpus against the schema: a file is foreign until this has passed.
 *
 * nt_dataset_check_columns reads every column but the texts, in blocks, and compares each value with its row of
 * dataset_columns.def; of ragged columns, the offsets. nt_dataset_check_links follows what a column alone cannot tell:
 * targets of feedback, sides of pairs (and that they are of the same subject, so that consent cannot be got around),
 * values of thumbs and ratings. No state, nothing kept. Threading: as the file. Errors: NT_E_DATA naming file, dataset,
 * row, value and what was expected. */
#ifndef NT_DATASET_CHECK_H
#define NT_DATASET_CHECK_H

#include "dataset_cells.h"

NT_MUST nt_status nt_dataset_check_columns(struct nt_dsfile *f);
NT_MUST nt_status nt_dataset_check_links(struct nt_dsfile *f); /* after msg_ptr, conv_kind and subject are loaded */

#endif
