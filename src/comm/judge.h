/* The watchdog's judgement: who hangs, from two readings of the heartbeats of all ranks.
 *
 * A rank that is stopped or dead is named before one that stands still outside a collective, and that before the
 * collectives in which all stand still; where some rank works the others wait for it, however long. A device for which
 * a rank waits in a sum of peers' memory is named with them, whichever model copy it belongs to. Plain arithmetic on
 * its arguments: no I/O, no clock, no state, any thread; errors: none. */
#ifndef NT_JUDGE_H
#define NT_JUDGE_H

#include "heartbeat.h"
#include "strbuf.h"

struct nt_judge {
    const struct nt_heartbeat *before, *now; /* [size] of rank me: its own state, without a tick */
    int32_t size, me;
    double limit_s, interval_s; /* between heartbeats */
    double time;                /* unix seconds of the second reading */
};

enum nt_verdict { NT_VERDICT_WAIT, NT_VERDICT_HANG };
/* The sentence grows in s; it stays empty where the verdict is to wait. */
enum nt_verdict nt_judge(const struct nt_judge *j, struct nt_strbuf *s);

/* "rank 1 (host n2, pid 42, doing 'forward', in allreduce_f32 #57 on tp)" */
void nt_judge_describe(struct nt_strbuf *s, int32_t rank, const struct nt_heartbeat *h);
void nt_judge_add_stopped(struct nt_strbuf *s, int32_t rank, const struct nt_heartbeat *h, double time);
/* Seconds without a new heartbeat after which a rank counts as stopped: so many limits, or what a slow write may take.
 */
double nt_judge_stale_s(double limit_s, double limits);

#endif
