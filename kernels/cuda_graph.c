#include "cuda_parts.h"
#include <stdlib.h>

struct nt_cuda_graph {
    CUgraphExec exec;
    int32_t n_nodes;
};

nt_status nt_cuda_capture_begin(struct nt_backend *be) {
    struct nt_cuda *cuda = be->cuda;
    NT_CHECK(!cuda->capturing);
    /* Thread local: other threads of the process (MPI progress, a watchdog) may call the driver meanwhile. */
    NT_TRY(NT_CU(cuda->driver, cuStreamBeginCapture(nt_cuda_stream(cuda), CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)));
    cuda->capturing = true;
    return NT_OK;
}

static nt_status instantiate(const struct nt_gpu_driver *d, CUgraph record, struct nt_cuda_graph *graph) {
    size_t n = 0;
    NT_TRY(NT_CU(d, cuGraphGetNodes(record, NULL, &n)));
    graph->n_nodes = (int32_t)n;
    NT_TRY(NT_CU(d, cuGraphInstantiate(&graph->exec, record, 0)));
    return NT_OK;
}

nt_status nt_cuda_capture_end(struct nt_backend *be, nt_status recorded, struct nt_cuda_graph **out) {
    struct nt_cuda *cuda = be->cuda;
    const struct nt_gpu_driver *d = cuda->driver;
    NT_CHECK(cuda->capturing);
    *out = NULL;
    cuda->capturing = false;
    CUgraph record = NULL;
    const CUresult ended = d->cuStreamEndCapture(nt_cuda_stream(cuda), &record);
    if (recorded != NT_OK) { /* the driver says that the capture is void, which is not why */
        if (record) (void)d->cuGraphDestroy(record);
        return nt_trail_at(recorded, __FILE__, __LINE__);
    }
    if (ended != CUDA_SUCCESS) return nt_gpu_fail(d, ended, "cuStreamEndCapture", __FILE__, __LINE__);
    struct nt_cuda_graph *graph = calloc(1, sizeof *graph);
    const nt_status st = graph ? instantiate(d, record, graph) : NT_FAIL(NT_E_NOMEM, "no memory for a CUDA graph");
    (void)d->cuGraphDestroy(record); /* the executable graph does not need it */
    if (st != NT_OK) {
        free(graph);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    *out = graph;
    return NT_OK;
}

nt_status nt_cuda_graph_launch(struct nt_backend *be, const struct nt_cuda_graph *graph) {
    NT_CHECK(!be->cuda->capturing);
    NT_TRY(NT_CU(be->cuda->driver, cuGraphLaunch(graph->exec, nt_cuda_stream(be->cuda))));
    return NT_OK;
}

int32_t nt_cuda_graph_nodes(const struct nt_cuda_graph *graph) {
    return graph->n_nodes;
}

void nt_cuda_graph_free(struct nt_backend *be, struct nt_cuda_graph *graph) {
    if (!graph) return;
    (void)be->cuda->driver->cuGraphExecDestroy(graph->exec);
    free(graph);
}

/* ---- points of the stream ---- */

struct nt_cuda_mark {
    struct nt_cuda *cuda;
    CUevent event;
};

nt_status nt_cuda_mark_open(struct nt_backend *be, struct nt_cuda_mark **out) {
    struct nt_cuda_mark *mark = calloc(1, sizeof *mark);
    *out = NULL;
    if (!mark) return NT_FAIL(NT_E_NOMEM, "no memory for a mark of the stream");
    mark->cuda = be->cuda;
    const nt_status st = NT_CU(be->cuda->driver, cuEventCreate(&mark->event, CU_EVENT_DISABLE_TIMING));
    if (st != NT_OK) {
        free(mark);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    *out = mark;
    return NT_OK;
}

nt_status nt_cuda_mark_set(struct nt_cuda_mark *mark) {
    NT_CHECK(!mark->cuda->capturing);
    NT_TRY(NT_CU(mark->cuda->driver, cuEventRecord(mark->event, nt_cuda_stream(mark->cuda))));
    return NT_OK;
}

nt_status nt_cuda_event_passed(const struct nt_gpu_driver *d, CUevent event, bool *passed) {
    const CUresult result = d->cuEventQuery(event);
    *passed = result == CUDA_SUCCESS;
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_NOT_READY) return NT_OK;
    return nt_gpu_fail(d, result, "cuEventQuery", __FILE__, __LINE__);
}

nt_status nt_cuda_mark_passed(const struct nt_cuda_mark *mark, bool *passed) {
    return nt_cuda_event_passed(mark->cuda->driver, mark->event, passed);
}

void nt_cuda_mark_close(struct nt_cuda_mark *mark) {
    if (!mark) return;
    (void)mark->cuda->driver->cuEventDestroy(mark->event);
    free(mark);
}

/* ---- times ---- */

static nt_status time_between(struct nt_backend *be, CUevent start, CUevent stop, nt_cuda_run_fn *run, void *ctx,
                              int32_t n, double *seconds) {
    const struct nt_gpu_driver *d = be->cuda->driver;
    float ms = 0;
    NT_TRY(NT_CU(d, cuEventRecord(start, nt_cuda_stream(be->cuda))));
    for (int32_t i = 0; i < n; i++) NT_TRY(run(be, ctx));
    NT_TRY(NT_CU(d, cuEventRecord(stop, nt_cuda_stream(be->cuda))));
    NT_TRY(NT_CU(d, cuEventSynchronize(stop)));
    NT_TRY(NT_CU(d, event_ms(&ms, start, stop)));
    *seconds = (double)ms * 1e-3;
    return NT_OK;
}

nt_status nt_cuda_time(struct nt_backend *be, nt_cuda_run_fn *run, void *ctx, int32_t n, double *seconds) {
    const struct nt_gpu_driver *d = be->cuda->driver;
    CUevent start = NULL, stop = NULL;
    nt_status st;
    *seconds = 0;
    NT_CHECK(!be->cuda->capturing);
    NT_TRY_GOTO(st, done, NT_CU(d, cuEventCreate(&start, CU_EVENT_DEFAULT)));
    NT_TRY_GOTO(st, done, NT_CU(d, cuEventCreate(&stop, CU_EVENT_DEFAULT)));
    NT_TRY_GOTO(st, done, time_between(be, start, stop, run, ctx, n, seconds));
done:
    if (start) (void)d->cuEventDestroy(start);
    if (stop) (void)d->cuEventDestroy(stop);
    return st;
}
