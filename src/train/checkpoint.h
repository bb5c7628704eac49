/* Checkpoints: everything a run needs to go on, in logical tensors, so that another dp x tp may take it up.
 *
 * DIR/checkpoints/step-00000100.h5 holds the trained numbers and AdamW's two moments (flat, in the order of
 * nt_training_tensor, which names and shapes beside them check), and the state below. Random numbers need no state:
 * they are functions of seed, step and sample. A file appears whole or not at all, with a checksum per chunk and a
 * digest of its numbers; the newest `keep` stay. Resume takes the newest that is whole and says which it passed over.
 * Layout: docs/formats.md. Collective over the world; rank 0 writes. Errors: NT_E_IO, NT_E_DATA naming the file and
 * what is wrong with it. */
#ifndef NT_CHECKPOINT_H
#define NT_CHECKPOINT_H

#include "hash.h"
#include "training.h"

enum { NT_TRAIN_RECENT = 20 };

struct nt_train_state {
    int64_t step;      /* steps done */
    int64_t cursor;    /* samples taken from the order */
    int64_t n_tokens;  /* forwarded in training, all ranks */
    int64_t n_skipped; /* steps left out for numbers that were not finite, or spikes */
    double norm_mean;  /* running mean of gradient norms */
    double eval_first; /* held-out loss before the first step; NaN: none */
    int64_t n_loss;
    double losses[NT_TRAIN_RECENT]; /* of the last n_loss steps that counted, the oldest first */
};

void nt_train_state_add_loss(struct nt_train_state *s, double loss);
double nt_train_state_loss(const struct nt_train_state *s); /* mean of losses; NaN: none yet */

struct nt_checkpoint_job {
    struct nt_world *world;
    struct nt_training *training;
    const char *dir;           /* the run's output directory */
    const uint8_t *job_digest; /* [NT_SHA256_BYTES] settings, data, model: another job's checkpoint is refused */
    int64_t keep;
};

NT_MUST nt_status nt_checkpoint_save(const struct nt_checkpoint_job *j, const struct nt_train_state *state);
/* *found false: there is none, and nothing was changed. All ranks get the same. */
NT_MUST nt_status nt_checkpoint_load(const struct nt_checkpoint_job *j, struct nt_train_state *state, bool *found);

/* What one file says of itself, for people. */
struct nt_checkpoint_facts {
    struct nt_train_state state;
    int64_t n_tensors, n_numbers; /* trained; AdamW's moments are twice as many more */
    int32_t rank;                 /* of the adapter that is trained; 0: all weights are */
    char job[NT_SHA256_HEX], numbers[NT_SHA256_HEX];
};

/* *is: an HDF5 file that calls itself a checkpoint. One thread, no ranks, as for nt_checkpoint_describe. */
NT_MUST nt_status nt_checkpoint_detect(const char *path, bool *is);
/* Reads all numbers and holds them against their digest. */
NT_MUST nt_status nt_checkpoint_describe(const char *path, struct nt_checkpoint_facts *out);
/* Steps of the checkpoints DIR/checkpoints has, newest first; the caller frees *steps. */
NT_MUST nt_status nt_checkpoint_list(const char *dir, int64_t **steps, int64_t *n);
/* The path of the one after `step` steps. */
NT_MUST nt_status nt_checkpoint_path(char *buf, size_t cap, const char *dir, int64_t step);
/* Removes all checkpoints of dir. */
NT_MUST nt_status nt_checkpoint_discard(const char *dir);
/* Removes what killed processes left of checkpoints they were writing. */
NT_MUST nt_status nt_checkpoint_remove_temps(const char *dir);

#endif
