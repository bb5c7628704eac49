#include "stop.h"

#include "clock.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>

static volatile sig_atomic_t stop_signal;

static bool is_urgent(int signal_number) {
    return signal_number == SIGTERM || signal_number == SIGINT;
}

static void on_stop(int signal_number) {
    if (!is_urgent(stop_signal)) stop_signal = signal_number;
}

void nt_stop_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_stop;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_flags = SA_RESTART | (int)SA_RESETHAND; /* a second Ctrl-C is final */
    sigaction(SIGINT, &action, NULL);
}

enum nt_stop_level nt_stop_level(double deadline) {
    if (is_urgent(stop_signal)) return NT_STOP_URGENT;
    return stop_signal != 0 || (deadline > 0 && nt_unix_time() >= deadline) ? NT_STOP_DRAIN : NT_STOP_NONE;
}

const char *nt_stop_reason(void) {
    switch (stop_signal) {
    case SIGUSR1:
        return "SIGUSR1";
    case SIGTERM:
        return "SIGTERM";
    case SIGINT:
        return "SIGINT";
    default:
        return "the job's end time";
    }
}
