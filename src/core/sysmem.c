#include "sysmem.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* First number after `key` in a small text file; key "" means the first number; -1 when there is none. */
static int64_t number_in(const char *path, const char *key) {
    FILE *f = fopen(path, "re");
    if (!f) return -1;
    char line[512];
    int64_t value = -1;
    while (value < 0 && fgets(line, sizeof line, f)) {
        const char *at = key[0] ? strstr(line, key) : line;
        if (!at) continue;
        at += strlen(key);
        at += strspn(at, " \t:");
        if (*at >= '0' && *at <= '9') value = strtoll(at, NULL, 10);
    }
    fclose(f);
    return value;
}

static int64_t lower(int64_t a, int64_t limit, int64_t used) {
    if (limit <= 0 || used < 0) return a;
    const int64_t left = limit > used ? limit - used : 0;
    return left < a ? left : a;
}

size_t nt_memory_available(void) {
    const int64_t kib = number_in("/proc/meminfo", "MemAvailable");
    int64_t bytes = kib > 0 ? kib * 1024 : 0;
    bytes = lower(bytes, number_in("/sys/fs/cgroup/memory.max", ""), number_in("/sys/fs/cgroup/memory.current", ""));
    bytes = lower(bytes, number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes", ""),
                  number_in("/sys/fs/cgroup/memory/memory.usage_in_bytes", ""));
    return (size_t)bytes;
}

size_t nt_memory_resident(void) {
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f) return 0;
    long long total = 0, resident = 0;
    const int n = fscanf(f, "%lld %lld", &total, &resident);
    fclose(f);
    return n == 2 ? (size_t)resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}
