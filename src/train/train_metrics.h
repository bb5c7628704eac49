/* metrics.jsonl of a training run that goes on from a checkpoint.
 *
 * Lines of steps after the checkpoint tell of steps that are now made again, and so does an evaluation at the
 * checkpoint's step; they are cut off, so that a file has each line once. A line that a crash left unfinished goes with
 * them. Replaced atomically. Errors: NT_E_IO naming the path. One thread. */
#ifndef NT_TRAIN_METRICS_H
#define NT_TRAIN_METRICS_H

#include "status.h"
#include <stdint.h>

/* Keeps the leading lines of steps up to `step`, and of evaluations before it; -1: none. No file is no error. */
NT_MUST nt_status nt_train_metrics_cut(const char *path, int64_t step);

#endif
