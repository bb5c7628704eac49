/* The learning rate of a step, as transformers' get_scheduler gives it.
 *
 * Warm-up: step / warmup_steps, so the first step (0) has rate 0 when there is one. Then constant, or from 1 to 0 over
 * the rest: linear, or cosine 0.5 (1 + cos(pi t)). warmup_steps = ceil(total * warmup_ratio).
 * Pure function of the step counted from 0. */
#ifndef NT_SCHEDULE_H
#define NT_SCHEDULE_H

#include <stdint.h>

enum nt_schedule { NT_SCHEDULE_CONSTANT, NT_SCHEDULE_LINEAR, NT_SCHEDULE_COSINE };
/* "constant", "linear", "cosine"; config has checked it. */
enum nt_schedule nt_schedule_of(const char *name);
/* A factor in [0, 1] of the peak rate. */
double nt_schedule_at(enum nt_schedule s, int64_t step, int64_t warmup, int64_t total);

#endif
