/* Requests to stop: SIGUSR1 (Slurm's --signal, before the time limit), SIGTERM and SIGINT set a flag, nothing else.
 *
 * Long jobs look at nt_stop_requested between steps, checkpoint and return NT_E_STOPPED (exit code 85). A second SIGINT
 * ends the process at once. The flag is one of the program's few writable globals: a signal handler has no other place.
 * deadline: unix seconds after which a stop is also due, 0: none (SLURM_JOB_END_TIME minus a margin). */
#ifndef NT_STOP_H
#define NT_STOP_H

#include <stdbool.h>

void nt_stop_install(void);
bool nt_stop_requested(double deadline);
bool nt_stop_is_urgent(void);     /* SIGTERM or SIGINT: somebody waits, or will kill us soon */
const char *nt_stop_reason(void); /* "SIGUSR1", "SIGTERM", "SIGINT" or "the job's end time" */

#endif
