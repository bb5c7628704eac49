#include "watch.h"
#include "env.h"
#include "fileio.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Of rank 0; stays "" where there is no room for one. */
static void make_own(struct nt_watch *watch) {
    const int n = snprintf(watch->own, sizeof watch->own, "%s/nocturne-XXXXXX", nt_env_tmp());
    if (n < 0 || (size_t)n >= sizeof watch->own || !mkdtemp(watch->own)) watch->own[0] = 0;
}

static nt_status choose_own(struct nt_watch *watch, struct nt_world *w) {
    if (w->size == 1 || w->node_size < w->size) return NT_OK;
    if (w->rank == 0) make_own(watch);
    return nt_comm_broadcast(w->world, watch->own, sizeof watch->own, 0);
}

static nt_status make_dir(struct nt_watch *watch, struct nt_world *w, const char *dir) {
    if (!dir[0]) return choose_own(watch, w);
    return nt_comm_agree(w->world, w->rank == 0 ? nt_mkdir_p(dir) : NT_OK);
}

nt_status nt_watch_open(struct nt_watch *watch, struct nt_world *w, const char *dir, double limit_s) {
    *watch = (struct nt_watch){0};
    if (dir[0] || limit_s > 0) NT_TRY(make_dir(watch, w, dir));
    const char *seen = dir[0] ? dir : watch->own[0] ? watch->own : NULL;
    NT_TRY(nt_watchdog_start(&watch->dog, w, seen, limit_s));
    nt_watchdog_beat(watch->dog, "loading");
    return NT_OK;
}

void nt_watch_close(struct nt_watch *watch) {
    nt_watchdog_stop(watch->dog);
    if (watch->own[0]) (void)rmdir(watch->own); /* by the last rank */
    *watch = (struct nt_watch){0};
}
