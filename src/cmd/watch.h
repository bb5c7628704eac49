/* The watchdog of a command, from before its model is loaded until that is closed: both may hang too.
 *
 * Its ranks see each other in the command's output directory, which is made. A command without one (dir "") takes a
 * directory of its own below TMPDIR where all ranks are on one node; on several nodes each rank then sees only itself.
 * Ownership: close stops the watchdog and removes that directory; w outlives it. Threading: the main thread. Errors: a
 * directory that was asked for and cannot be made, on all ranks; no own directory is no error. */
#ifndef NT_WATCH_H
#define NT_WATCH_H

#include "watchdog.h"

struct nt_watch {
    struct nt_watchdog *dog; /* NULL: none is wanted */
    char own[256];           /* "": the directory is not ours */
};

/* Collective over the world; says that the command is loading. */
NT_MUST nt_status nt_watch_open(struct nt_watch *watch, struct nt_world *w, const char *dir, double limit_s);
void nt_watch_close(struct nt_watch *watch); /* accepts a zeroed struct */

#endif
