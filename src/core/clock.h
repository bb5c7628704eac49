/* The two clocks of the program, as seconds in a double.
 *
 * nt_now() is CLOCK_MONOTONIC: only differences mean something, and only within one machine; it is what durations,
 * rates and time limits within a process are measured with. nt_unix_time() is CLOCK_REALTIME, seconds since 1970: for
 * stamps in files and for times that another process or machine compares; an administrator may set it back. A double
 * holds both to better than a microsecond.
 * Ownership: none. Threading: any thread. Errors: none, both clocks always exist on Linux (clock_gettime(2)). */
#ifndef NT_CLOCK_H
#define NT_CLOCK_H

double nt_now(void);
double nt_unix_time(void);

#endif
