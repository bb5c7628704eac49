/* A sign of life from long work to whoever watches it, for layers that do not know the watchdog.
 *
 * The callee calls nt_beat about once per row or block; fn is cheap and must not fail. NULL, or NULL fn: nobody
 * watches. Ownership: the caller's, for the time of the call that got it. Threading: from the thread that does the
 * work. Errors: none. */
#ifndef NT_BEAT_H
#define NT_BEAT_H

#include <stddef.h>

struct nt_beat {
    void (*fn)(void *arg);
    void *arg;
};

static inline void nt_beat(const struct nt_beat *b) {
    if (b != NULL && b->fn != NULL) b->fn(b->arg);
}

#endif
