/* What the reference model says of the training and held-out rows: computed once, kept with the corpus or the run.
 * Where kto trains all weights, also of the mismatched pairs of all steps, which are known beforehand.
 *
 * The sum of weighted log-probabilities of every member of every example, under the base or another adapter. The rows
 * are divided over the model copies; all ranks get all sums. They are f32, rounded once, so a run that reads them from
 * the file goes on with the bits of the run that computed them. CORPUS.reference-KEY, for all runs over the corpus with
 * that reference (a published corpus is never changed, so the file lies beside it), else DIR/reference-NAME.h5:
 * attribute "key" (of model, type of weights, reference, rows), dataset /logp f32 [n_rows, 2]; a file with another key
 * is replaced. DIR/reference-NAME.part.h5 keeps the first rows meanwhile; a stop (stop.h) ends the computation with
 * NT_E_STOPPED, and the next call goes on behind the kept rows with the same bits. Ownership: the struct owns its sums.
 * Collective over the world. Errors: those of model and files; a damaged file is passed over with a warning. One
 * thread. */
#ifndef NT_REFERENCE_H
#define NT_REFERENCE_H

#include "order.h"
#include "run_micro.h"

struct nt_reference_job {
    struct nt_runner *runner;
    struct nt_world *world;
    const struct nt_example_set *set;
    const char *dir, *name;  /* "train", "eval" */
    const char *corpus;      /* path that the file lies beside; NULL: in dir */
    const uint8_t *model;    /* [32] digest of the reference: base, or base and adapter */
    const char *weights;     /* model.weight_dtype */
    struct nt_order *order;  /* NULL: a row is an example; kto: a sample's prompt with another one's completion */
    int64_t n_samples;       /* with order: rows */
    int32_t batch;           /* with order: samples of a batch, in which the other one is (nt_order_mismatch) */
    int32_t budget;          /* tokens of a micro-batch */
    double deadline;         /* stop.h */
    double log_interval_s;   /* between lines of progress */
    void (*beat)(void *arg); /* now and then; NULL: none */
    void *beat_arg;
};

NT_MUST nt_status nt_reference_get(const struct nt_reference_job *j, struct nt_reference *out);
void nt_reference_release(struct nt_reference *r); /* accepts zeroed */

#endif
