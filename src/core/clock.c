#include "clock.h"

#include <time.h>

static double seconds(clockid_t clock) {
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double nt_now(void) {
    return seconds(CLOCK_MONOTONIC);
}

double nt_unix_time(void) {
    return seconds(CLOCK_REALTIME);
}
