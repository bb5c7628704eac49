/* The watchdog: names the rank that hangs and ends the job.
 *
 * Two threads per rank. The heart writes a small heartbeat file (dir/.heartbeat/rank-N: progress counter, what the rank
 * is doing, its collective, host, pid, time) every few seconds and looks whether that of the next rank still changes;
 * the guard does no I/O until this rank makes no progress for the limit. Then it reads the others' heartbeats, judges
 * by them who hangs (judge.h), logs one sentence and calls nt_world_abort(76). A rank that waits for one that works
 * keeps waiting. Time stopped with the process (scontrol suspend) does not count. Works across nodes through the shared
 * output directory; without a directory it can only name this rank's own collective. One per process. nt_watchdog_beat
 * is cheap (two relaxed atomics) and may be called from any thread. Finished collectives are progress too. */
#ifndef NT_WATCHDOG_H
#define NT_WATCHDOG_H

#include "comm.h"

struct nt_watchdog;
/* w outlives the watchdog. dir may be NULL: a rank that waits for others then only warns. limit_s 0: no watchdog, *out
 * is NULL. Not collective, but start it soon after a collective: until all ranks wrote their first heartbeat, those of
 * a killed run in the same directory look stale. */
NT_MUST nt_status nt_watchdog_start(struct nt_watchdog **out, const struct nt_world *w, const char *dir,
                                    double limit_s);
void nt_watchdog_beat(struct nt_watchdog *d, const char *doing); /* doing: a string literal; d may be NULL */
void nt_watchdog_stop(struct nt_watchdog *d);                    /* accepts NULL; removes this rank's heartbeat */

#endif
