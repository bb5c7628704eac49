/* The watchdog: names the rank that hangs and ends the job.
 *
 * Each rank's watchdog thread writes a small heartbeat file (dir/.heartbeat/rank-N: progress counter, what the rank
 * is doing, host, pid, time) every few seconds. When this rank makes no progress for the limit, it reads the others' heartbeats, names
 * the ranks whose heartbeat itself is stale (stopped or dead) or whose counter is the lowest, logs one sentence and calls nt_world_abort(76).
 * Works across nodes through the shared output directory; without a directory it can only name this rank's own collective.
 * One per process. nt_watchdog_beat is cheap (one relaxed atomic store) and may be called from any thread. */
#ifndef NT_WATCHDOG_H
#define NT_WATCHDOG_H

#include "comm.h"

struct nt_watchdog;
NT_MUST nt_status nt_watchdog_start(struct nt_watchdog **out, const struct nt_world *w, const char *dir, double limit_s);
void nt_watchdog_beat(struct nt_watchdog *d, const char *doing); /* doing: a string literal; d may be NULL */
void nt_watchdog_stop(struct nt_watchdog *d);                    /* accepts NULL; removes this rank's heartbeat */

#endif
