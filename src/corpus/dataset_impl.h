/* The inside of struct nt_dataset, for dataset.c (which files and rows) and dataset_record.c (their texts).
 *
 * A shard is one file with the map from its subjects to those of all files and the list of the rows that may be seen.
 * Records are numbered through the shards in order. Ownership: the dataset owns all; nt_dataset_close frees it.
 * Threading and errors: dataset.h. */
#ifndef NT_DATASET_IMPL_H
#define NT_DATASET_IMPL_H

#include "dataset_file.h"
#include "idset.h"

struct nt_dataset_shard {
    struct nt_dsfile f;
    struct nt_dataset_file info;
    int32_t *subject; // [subjects of f] index over all files
    int64_t *visible; // [info.n_seen] conversations
    int64_t first;    /* number of the record that is visible[0] */
};

struct nt_dataset {
    struct nt_dataset_shard *shards; // [n_files]
    int32_t n_files;
    int64_t n_records;
    struct nt_subject_facts *subjects; // [n_subjects] merged over all files
    int32_t n_subjects, cap_subjects;
    struct nt_id_set ids; /* of subjects that have a name: index + 1 */
    enum nt_purpose purpose;
    int64_t now_us;
    bool any_mute;                    /* some subject does not allow the purpose */
    int64_t n_unheard[NT_N_REFUSALS]; /* feedback and pairs by such subjects */
};

/* Why what this rater said is not heard; NT_N_REFUSALS: it is. */
enum nt_refusal nt_dataset_refuse_rater(const struct nt_dataset *d, const uint8_t id[NT_CORPUS_ID]);

/* As nt_dataset_head, and the file that has the record. */
NT_MUST nt_status nt_dataset_find(struct nt_dataset *d, int64_t record, struct nt_record_head *head,
                                  struct nt_dsfile **f);

#endif
