/* Stream capture and graphs. A captured op becomes a node that depends on the last nodes of its stream and of the
 * events the stream waited for; a launch runs the nodes in some order that the dependencies allow: capture order when
 * streams=early, the last ready node first when late, any when random. A missing dependency shows in one of them. */
#include <stdlib.h>
#include <string.h>

#include "emu.h"
#include "stream.h"

static struct {
    struct emu_capture *captures;
    struct CUgraph_st *graphs;
    struct CUgraphExec_st *execs;
    uint64_t n_captures;
} all;

/* ---- node lists ---- */

static void unref_nodes(struct emu_nodes *nodes) {
    if (nodes == NULL || --nodes->refs > 0) return;
    for (int32_t i = 0; i < nodes->n; i++) {
        emu_free_op(nodes->node[i].op);
        free(nodes->node[i].dep);
    }
    free(nodes->node);
    free(nodes);
}

static bool grow_nodes(struct emu_nodes *nodes) {
    if (nodes->n < nodes->capacity) return true;
    const int32_t capacity = nodes->capacity == 0 ? 64 : nodes->capacity * 2;
    struct emu_node *node = realloc(nodes->node, (size_t)capacity * sizeof *node);
    if (node == NULL) return false;
    nodes->node = node;
    nodes->capacity = capacity;
    return true;
}

static bool set_deps(struct emu_deps *deps, const int32_t *node, int32_t n) {
    int32_t *copy = malloc(((size_t)n + 1) * sizeof *copy);
    if (copy == NULL) return false;
    if (n > 0) memcpy(copy, node, (size_t)n * sizeof *copy);
    free(deps->node);
    *deps = (struct emu_deps){.node = copy, .n = n};
    return true;
}

static bool has_dep(const int32_t *node, int32_t n, int32_t wanted) {
    for (int32_t i = 0; i < n; i++)
        if (node[i] == wanted) return true;
    return false;
}

static bool add_deps(struct emu_deps *deps, const struct emu_deps *more) {
    int32_t *node = realloc(deps->node, ((size_t)deps->n + (size_t)more->n + 1) * sizeof *node);
    if (node == NULL) return false;
    deps->node = node;
    for (int32_t i = 0; i < more->n; i++)
        if (!has_dep(node, deps->n, more->node[i])) node[deps->n++] = more->node[i];
    return true;
}

/* ---- capture ---- */

CUresult emu_capture_op(struct CUstream_st *stream, struct emu_op *op) {
    struct emu_capture *capture = stream->capture;
    CUresult result = CUDA_SUCCESS;
    if (capture->broken)
        result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    else if (op->kind == EMU_OP_FREE || op->kind == EMU_OP_GRAPH) {
        capture->broken = true;
        result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    } else if (!grow_nodes(capture->nodes))
        result = CUDA_ERROR_OUT_OF_MEMORY;
    if (result != CUDA_SUCCESS) {
        emu_free_op(op);
        return result;
    }
    const int32_t index = capture->nodes->n++;
    capture->nodes->node[index] = (struct emu_node){.op = op, .dep = stream->deps.node, .n_dep = stream->deps.n};
    stream->deps = (struct emu_deps){0};
    return set_deps(&stream->deps, &index, 1) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

void emu_capture_break(struct CUstream_st *stream) {
    stream->capture->broken = true;
}

CUresult emu_capture_record(struct CUstream_st *stream, struct CUevent_st *event) {
    if (!set_deps(&event->deps, stream->deps.node, stream->deps.n)) return CUDA_ERROR_OUT_OF_MEMORY;
    event->capture = stream->capture;
    event->capture_id = stream->capture->id;
    return CUDA_SUCCESS;
}

static bool capture_alive(const struct emu_capture *capture, uint64_t id) {
    for (const struct emu_capture *c = all.captures; c != NULL; c = c->next)
        if (c == capture) return c->id == id;
    return false;
}

CUresult emu_capture_wait(struct CUstream_st *stream, struct CUevent_st *event) {
    if (!capture_alive(event->capture, event->capture_id)) return CUDA_ERROR_INVALID_VALUE;
    if (stream->capture != NULL && stream->capture != event->capture) {
        stream->capture->broken = event->capture->broken = true;
        return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    if (stream == stream->device->null_stream) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    stream->capture = event->capture; // a fork: the stream joins
    return add_deps(&stream->deps, &event->deps) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult emu_capture_forbids(void) {
    for (struct emu_capture *c = all.captures; c != NULL; c = c->next) {
        const bool here = c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
                          (c->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && pthread_equal(c->thread, pthread_self()));
        if (!here) continue;
        c->broken = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = emu_check_stream(handle, &stream);
    if (result == CUDA_SUCCESS && stream == stream->device->null_stream) result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (result == CUDA_SUCCESS && stream->capture != NULL) result = CUDA_ERROR_ILLEGAL_STATE;
    if (result != CUDA_SUCCESS) return emu_leave(result);
    struct emu_capture *capture = calloc(1, sizeof *capture);
    struct emu_nodes *nodes = calloc(1, sizeof *nodes);
    if (capture == NULL || nodes == NULL || !set_deps(&stream->deps, NULL, 0)) {
        free(capture);
        free(nodes);
        return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    }
    nodes->refs = 1;
    *capture = (struct emu_capture){.origin = stream,
                                    .mode = mode,
                                    .thread = pthread_self(),
                                    .nodes = nodes,
                                    .id = ++all.n_captures,
                                    .next = all.captures};
    all.captures = capture;
    stream->capture = capture;
    return emu_leave(CUDA_SUCCESS);
}

/* Every node without a successor must be what the origin stream ends in; otherwise a fork was not joined. */
static bool all_joined(const struct emu_nodes *nodes, const struct emu_deps *end) {
    for (int32_t i = 0; i < nodes->n; i++) {
        bool followed = has_dep(end->node, end->n, i);
        for (int32_t j = i + 1; j < nodes->n && !followed; j++)
            followed = has_dep(nodes->node[j].dep, nodes->node[j].n_dep, i);
        if (!followed) return false;
    }
    return true;
}

static void end_capture(struct emu_capture *capture) {
    emu_streams_leave_capture(capture);
    for (struct emu_capture **p = &all.captures; *p != NULL; p = &(*p)->next)
        if (*p == capture) {
            *p = capture->next;
            break;
        }
    free(capture);
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = graph == NULL ? CUDA_ERROR_INVALID_VALUE : emu_check_stream(handle, &stream);
    if (result == CUDA_SUCCESS && stream->capture == NULL) result = CUDA_ERROR_ILLEGAL_STATE;
    if (result != CUDA_SUCCESS) return emu_leave(result);
    struct emu_capture *capture = stream->capture;
    *graph = NULL;
    if (capture->origin != stream) return emu_leave(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    if (capture->broken)
        result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    else if (!all_joined(capture->nodes, &stream->deps))
        result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    struct emu_nodes *nodes = capture->nodes;
    end_capture(capture);
    struct CUgraph_st *g = result == CUDA_SUCCESS ? calloc(1, sizeof *g) : NULL;
    if (g == NULL) {
        unref_nodes(nodes);
        return emu_leave(result == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : result);
    }
    *g = (struct CUgraph_st){.nodes = nodes, .next = all.graphs};
    all.graphs = g;
    *graph = g;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = status == NULL ? CUDA_ERROR_INVALID_VALUE : emu_check_stream(handle, &stream);
    if (result != CUDA_SUCCESS) return emu_leave(result);
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    if (stream->capture != NULL)
        *status = stream->capture->broken ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return emu_leave(CUDA_SUCCESS);
}

/* ---- graphs ---- */

static bool graph_alive(const struct CUgraph_st *graph) {
    for (const struct CUgraph_st *g = all.graphs; g != NULL; g = g->next)
        if (g == graph) return true;
    return false;
}

static bool exec_alive(const struct CUgraphExec_st *exec) {
    for (const struct CUgraphExec_st *e = all.execs; e != NULL; e = e->next)
        if (e == exec) return true;
    return false;
}

CUresult cuGraphDestroy(CUgraph graph) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (!graph_alive(graph)) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct CUgraph_st **p = &all.graphs;
    while (*p != graph) p = &(*p)->next;
    *p = graph->next;
    unref_nodes(graph->nodes);
    free(graph);
    return emu_leave(CUDA_SUCCESS);
}

/* Only the count: callers ask for it with nodes = NULL. */
CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *n) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (!graph_alive(graph) || n == NULL || nodes != NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *n = (size_t)graph->nodes->n;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    (void)flags;
    if (exec == NULL || !graph_alive(graph)) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct CUgraphExec_st *e = calloc(1, sizeof *e);
    if (e == NULL) return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    *e = (struct CUgraphExec_st){.nodes = graph->nodes, .next = all.execs};
    e->nodes->refs++;
    all.execs = e;
    *exec = e;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (!exec_alive(exec)) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct CUgraphExec_st **p = &all.execs;
    while (*p != exec) p = &(*p)->next;
    *p = exec->next;
    unref_nodes(exec->nodes);
    free(exec);
    return emu_leave(CUDA_SUCCESS);
}

static bool same_shape(const struct emu_nodes *a, const struct emu_nodes *b) {
    if (a->n != b->n) return false;
    for (int32_t i = 0; i < a->n; i++) {
        const struct emu_node *x = &a->node[i], *y = &b->node[i];
        if (x->op->kind != y->op->kind || x->n_dep != y->n_dep) return false;
        if (x->n_dep > 0 && memcmp(x->dep, y->dep, (size_t)x->n_dep * sizeof *x->dep) != 0) return false;
    }
    return true;
}

CUresult cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo *info) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (info == NULL || !exec_alive(exec) || !graph_alive(graph)) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    memset(info, 0, sizeof *info);
    if (!same_shape(exec->nodes, graph->nodes)) {
        info->result = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        return emu_leave(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    }
    info->result = CU_GRAPH_EXEC_UPDATE_SUCCESS;
    graph->nodes->refs++;
    unref_nodes(exec->nodes);
    exec->nodes = graph->nodes;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream handle) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = exec_alive(exec) ? emu_check_stream(handle, &stream) : CUDA_ERROR_INVALID_VALUE;
    return emu_leave(result);
}

/* ---- launches ---- */

void emu_free_graph_run(struct emu_graph_run *run) {
    unref_nodes(run->nodes);
    free(run->order);
    free(run);
}

static int32_t pick_ready(const int32_t *waits, int32_t n) {
    const int32_t mode = emu_options()->streams;
    int32_t n_ready = 0, last = -1;
    for (int32_t i = 0; i < n; i++) {
        if (waits[i] != 0) continue;
        if (mode == EMU_EARLY) return i;
        n_ready++;
        if (mode == EMU_LATE || emu_stream_random((uint64_t)n_ready) == 0) last = i;
    }
    return last;
}

/* Fills run->order with a topological order. */
static bool order_nodes(struct emu_graph_run *run) {
    const int32_t n = run->nodes->n;
    int32_t *waits = calloc((size_t)n + 1, sizeof *waits);
    run->order = calloc((size_t)n + 1, sizeof *run->order);
    if (waits == NULL || run->order == NULL) {
        free(waits);
        return false;
    }
    for (int32_t i = 0; i < n; i++) waits[i] = run->nodes->node[i].n_dep;
    for (int32_t k = 0; k < n; k++) {
        const int32_t pick = pick_ready(waits, n);
        run->order[k] = pick;
        waits[pick] = -1;
        for (int32_t j = pick + 1; j < n; j++)
            if (waits[j] > 0 && has_dep(run->nodes->node[j].dep, run->nodes->node[j].n_dep, pick)) waits[j]--;
    }
    free(waits);
    return true;
}

CUresult emu_run_graph(struct emu_graph_run *run, struct emu_device *device, bool *done) {
    *done = false;
    if (run->after_stream != NULL &&
        emu_stream_alive(run->after_stream)) { // the previous launch of the same graph comes first
        bool blocked = false;
        const CUresult result = emu_advance(run->after_stream, run->after_seq, &blocked);
        if (result != CUDA_SUCCESS || blocked) return result;
        run->after_stream = NULL;
    }
    for (; run->at < run->nodes->n; run->at++, run->begun = false) {
        bool node_done = false;
        const struct emu_op *op = run->nodes->node[run->order[run->at]].op;
        const CUresult result = emu_run_op(op, device, !run->begun, &node_done);
        run->begun = true;
        if (result != CUDA_SUCCESS || !node_done) return result;
    }
    *done = true;
    return CUDA_SUCCESS;
}

void emu_graph_forget_stream(const struct CUstream_st *stream) {
    for (struct CUgraphExec_st *e = all.execs; e != NULL; e = e->next)
        if (e->last_stream == stream) e->last_stream = NULL;
}

static struct emu_op *new_run(struct CUgraphExec_st *exec, const struct CUstream_st *stream) {
    struct emu_op *op = calloc(1, sizeof *op);
    struct emu_graph_run *run = calloc(1, sizeof *run);
    if (op != NULL && run != NULL) {
        run->nodes = exec->nodes;
        if (order_nodes(run)) {
            exec->nodes->refs++;
            if (exec->last_stream != stream) run->after_stream = exec->last_stream;
            run->after_seq = exec->last_seq;
            op->kind = EMU_OP_GRAPH;
            op->graph = run;
            return op;
        }
    }
    if (run != NULL) free(run->order);
    free(run);
    free(op);
    return NULL;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream handle) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = exec_alive(exec) ? emu_check_stream(handle, &stream) : CUDA_ERROR_INVALID_VALUE;
    if (result != CUDA_SUCCESS) return emu_leave(result);
    struct emu_op *op = new_run(exec, stream);
    if (op == NULL) return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    exec->last_stream = stream;
    exec->last_seq = stream->n_queued + 1;
    return emu_leave(emu_enqueue(stream, op));
}
