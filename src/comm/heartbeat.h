/* Heartbeat files: what one rank tells the others about itself, one JSON object of fixed size per rank.
 *
 * Written in place (open, pwrite, close: one small write, seen by other nodes after the close also on NFS), never
 * fsynced: a heartbeat is worth nothing after the job. All ranks run one program, so it has no version; what another
 * one left out reads as zero. A reader that meets a half-written or missing file gets
 * `present` false and asks again. Clocks of nodes differ, so life is judged by `tick` changing, not by `time`.
 * No threading rules: functions on their arguments only. Errors: reading has none, writing returns NT_E_IO. */
#ifndef NT_HEARTBEAT_H
#define NT_HEARTBEAT_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

enum { NT_HEARTBEAT_BYTES = 1024 };

struct nt_heartbeat {
    bool present;
    int64_t pid, tick, progress, seq;
    double idle_s, time;       /* seconds without progress; unix seconds of the writing */
    char host[256], doing[64]; /* doing: the last beat */
    char call[32], on[16];     /* the last call of comm.h and its communicator */
    bool inside;               /* still in that call */
    int64_t late;              /* > 0: the sum in peers' memory for which this rank waits on the device of a rank */
    int32_t whose;             /* of that one, in world */
};

/* dir/.heartbeat/rank-N; false when it does not fit. */
bool nt_heartbeat_path(char *buf, size_t cap, const char *dir, int32_t rank);
NT_MUST nt_status nt_heartbeat_write(const char *path, const struct nt_heartbeat *h);
void nt_heartbeat_read(const char *path, struct nt_heartbeat *h);

#endif
