/* Requests to stop: SIGUSR1 (Slurm's --signal, before the time limit), SIGTERM and SIGINT set a flag, nothing else.
 *
 * Long jobs look at nt_stop_level between steps, checkpoint and return NT_E_STOPPED (exit code 85); how much a stop may
 * take is its level, which only grows. A second SIGINT ends the process at once. The flag is one of the program's few
 * writable globals: a signal handler has no other place. Threading: any. Errors: none.
 * deadline: unix seconds after which a stop is also due, 0: none (SLURM_JOB_END_TIME minus a margin). */
#ifndef NT_STOP_H
#define NT_STOP_H

enum nt_stop_level {
    NT_STOP_NONE,
    NT_STOP_DRAIN, /* SIGUSR1 or the deadline: there is time to finish what is in work */
    NT_STOP_URGENT /* SIGTERM or SIGINT: somebody waits, or will kill us soon */
};

void nt_stop_install(void);
enum nt_stop_level nt_stop_level(double deadline);
const char *nt_stop_reason(void); /* "SIGUSR1", "SIGTERM", "SIGINT" or "the job's end time" */

#endif
