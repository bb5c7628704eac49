/* The world of one process: no MPI call is made, so no launcher, socket or shared memory file is needed. */
#include "comm_impl.h"
#include <stdlib.h>
#include <unistd.h>

struct self_ticket {
    struct nt_ticket base;
    int64_t next;
};

static struct nt_comm *self_comm(const char *name, struct nt_comm_trace *trace) {
    struct nt_comm *c = calloc(1, sizeof *c);
    if (c != NULL) *c = (struct nt_comm){.be = &nt_comm_self, .name = name, .size = 1, .trace = trace};
    return c;
}

static nt_status self_world_open(struct nt_world *w, struct nt_comm_trace *trace) {
    w->world = self_comm("world", trace);
    if (w->world == NULL) return NT_FAIL(NT_E_NOMEM, "no memory for the world");
    w->size = w->node_size = 1;
    if (gethostname(w->host, sizeof w->host - 1) != 0) w->host[0] = 0;
    return NT_OK;
}

static nt_status self_world_split(struct nt_world *w) {
    w->tp = self_comm("tp", w->world->trace);
    w->dp = self_comm("dp", w->world->trace);
    if (w->tp == NULL || w->dp == NULL) return NT_FAIL(NT_E_NOMEM, "no memory for the communicators");
    return NT_OK;
}

static void self_world_close(struct nt_world *w) {
    free(w->dp);
    free(w->tp);
    free(w->world);
}

static nt_status self_shared_open(struct nt_world *w, size_t bytes, struct nt_shared *s) {
    (void)w, (void)bytes, (void)s; /* s->base stays NULL: private memory */
    return NT_OK;
}

static nt_status self_ticket_open(struct nt_world *w, struct nt_ticket **out) {
    (void)w;
    struct self_ticket *t = calloc(1, sizeof *t);
    if (t == NULL) return NT_FAIL(NT_E_NOMEM, "no memory for the ticket counter");
    *out = &t->base;
    return NT_OK;
}

static nt_status self_ticket_next(struct nt_ticket *ticket, int64_t count, int64_t *first) {
    struct self_ticket *t = (struct self_ticket *)ticket;
    *first = t->next;
    t->next += count;
    return NT_OK;
}

static void self_ticket_close(struct nt_ticket *t) {
    free(t);
}

/* comm.c answers the collectives of a communicator of one rank itself. */
const struct nt_comm_backend nt_comm_self = {
    .name = "self",
    .world_open = self_world_open,
    .world_split = self_world_split,
    .world_close = self_world_close,
    .shared_open = self_shared_open,
    .ticket_open = self_ticket_open,
    .ticket_next = self_ticket_next,
    .ticket_add = self_ticket_next,
    .ticket_close = self_ticket_close,
};
