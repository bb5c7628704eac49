#include "schedule.h"
#include <math.h>
#include <string.h>

enum nt_schedule nt_schedule_of(const char *name) {
    if (strcmp(name, "constant") == 0) return NT_SCHEDULE_CONSTANT;
    return strcmp(name, "linear") == 0 ? NT_SCHEDULE_LINEAR : NT_SCHEDULE_COSINE;
}

double nt_schedule_at(enum nt_schedule s, int64_t step, int64_t warmup, int64_t total) {
    if (step < warmup) return (double)step / (double)warmup;
    if (s == NT_SCHEDULE_CONSTANT) return 1;
    const double rest = (double)(total > warmup ? total - warmup : 1);
    double t = (double)(step - warmup) / rest;
    if (t > 1) t = 1;
    return s == NT_SCHEDULE_LINEAR ? 1 - t : 0.5 * (1 + cos(3.14159265358979323846 * t));
}
