/* Streams, events, capture and graphs: order, lateness, and what the driver must refuse. */
#include "test_emu.h"

enum { N = 1024 };

static void fill_words(uint32_t *p, uint32_t value) {
    for (int i = 0; i < N; i++) p[i] = value;
}

static uint32_t word_of(CUdeviceptr p, CUstream stream) {
    uint32_t *host = pinned_bytes(4);
    OK(cuMemcpyDtoHAsync(host, p, 4, stream));
    OK(cuStreamSynchronize(stream));
    return *host;
}

/* ---- lateness ---- */

static void nothing_runs_before_a_wait(void) {
    start();
    CUstream stream = new_stream();
    const CUdeviceptr p = device_bytes(4 * N);
    uint32_t *out = pinned_bytes(4);
    *out = 7;
    OK(cuMemsetD32Async(p, 42, N, stream));
    OK(cuMemcpyDtoHAsync(out, p, 4, stream));
    CHECK(*out == 7);
    OK(cuStreamSynchronize(stream));
    CHECK(*out == 42);
}

static void everything_runs_at_once(void) {
    start();
    CUstream stream = new_stream();
    const CUdeviceptr p = device_bytes(4 * N);
    uint32_t *out = pinned_bytes(4);
    OK(cuMemsetD32Async(p, 42, N, stream));
    OK(cuMemcpyDtoHAsync(out, p, 4, stream));
    CHECK(*out == 42);
}

static void pinned_sources_are_read_late_and_pageable_ones_at_once(void) {
    start();
    CUstream stream = new_stream();
    const CUdeviceptr p = device_bytes(4 * N), q = device_bytes(4 * N);
    uint32_t *pinned = pinned_bytes(4 * N), *pageable = malloc(4 * N);
    fill_words(pinned, 1);
    fill_words(pageable, 1);
    OK(cuMemcpyHtoDAsync(p, pinned, 4 * N, stream));
    OK(cuMemcpyHtoDAsync(q, pageable, 4 * N, stream));
    fill_words(pinned, 2);
    fill_words(pageable, 2);
    CHECK(word_of(p, stream) == 2);
    CHECK(word_of(q, stream) == 1);
    free(pageable);
}

static void polling_ends(void) {
    start();
    CUstream stream = new_stream();
    CUevent event = NULL;
    const CUdeviceptr p = device_bytes(4 * N);
    OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    OK(cuEventQuery(event)); // never recorded: done
    OK(cuMemsetD32Async(p, 1, N, stream));
    OK(cuEventRecord(event, stream));
    CHECK(cuEventQuery(event) == CUDA_ERROR_NOT_READY);
    int n = 1;
    while (cuEventQuery(event) == CUDA_ERROR_NOT_READY && n < 100) n++;
    CHECK(n > 1 && n < 100);
    OK(cuStreamQuery(stream));
}

/* ---- order between streams ---- */

/* A consumer on another stream, with or without the wait for the producer's event. */
static uint32_t consume(bool waits) {
    start();
    CUstream producer = new_stream(), consumer = new_stream();
    CUevent ready = NULL;
    const CUdeviceptr p = device_bytes(4), q = device_bytes(4);
    OK(cuEventCreate(&ready, CU_EVENT_DISABLE_TIMING));
    OK(cuMemsetD32Async(p, 1, 1, producer));
    OK(cuStreamSynchronize(producer));
    OK(cuMemsetD32Async(p, 2, 1, producer));
    OK(cuEventRecord(ready, producer));
    if (waits) OK(cuStreamWaitEvent(consumer, ready, 0));
    OK(cuMemcpyDtoDAsync(q, p, 4, consumer));
    return word_of(q, consumer);
}

static void a_missing_wait_shows(void) {
    CHECK(consume(false) == 1);
}
static void a_wait_orders(void) {
    CHECK(consume(true) == 2);
}

static void a_wait_keeps_the_generation_it_saw(void) {
    start();
    CUstream a = new_stream(), b = new_stream();
    CUevent event = NULL;
    const CUdeviceptr p = device_bytes(4);
    OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    OK(cuMemsetD32Async(p, 1, 1, a));
    OK(cuEventRecord(event, a));
    OK(cuStreamWaitEvent(b, event, 0));
    OK(cuMemsetD32Async(p, 2, 1, a));
    OK(cuEventRecord(event, a)); // later work of a, which b need not wait for
    CHECK(word_of(p, b) == 1);
    OK(cuEventSynchronize(event));
    CHECK(word_of(p, b) == 2);
}

static int order_log[8], n_logged;
static void log_call(void *arg) {
    order_log[n_logged++] = (int)(intptr_t)arg;
}

static void host_functions_run_in_order(void) {
    start();
    CUstream stream = new_stream();
    for (intptr_t i = 0; i < 3; i++) OK(cuLaunchHostFunc(stream, log_call, (void *)i));
    CHECK(n_logged == 0);
    OK(cuStreamSynchronize(stream));
    CHECK(n_logged == 3 && order_log[0] == 0 && order_log[1] == 1 && order_log[2] == 2);
}

static void call_driver(void *arg) {
    size_t n = 0;
    CHECK(cuMemGetInfo((size_t *)arg, &n) == CUDA_ERROR_NOT_PERMITTED);
}

static void host_functions_may_not_call_the_driver(void) {
    start();
    size_t n = 0;
    CUstream stream = new_stream();
    OK(cuLaunchHostFunc(stream, call_driver, &n));
    CHECK(cuStreamSynchronize(stream) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(reported("calls the driver"));
}

static void the_default_stream_is_refused(void) {
    start();
    const CUdeviceptr p = device_bytes(4);
    CHECK(cuMemsetD32Async(p, 1, 1, NULL) != CUDA_SUCCESS);
    CHECK(reported("default stream"));
}

static void the_default_stream_waits_for_blocking_streams(void) {
    start();
    CUstream blocking = NULL;
    uint32_t value = 0;
    const CUdeviceptr p = device_bytes(4);
    OK(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
    OK(cuMemsetD32Async(p, 5, 1, blocking));
    OK(cuMemcpyDtoH(&value, p, 4));
    CHECK(value == 5);
}

static void times_grow(void) {
    start();
    CUstream stream = new_stream();
    CUevent before = NULL, after = NULL;
    float ms = -1;
    OK(cuEventCreate(&before, CU_EVENT_DEFAULT));
    OK(cuEventCreate(&after, CU_EVENT_DEFAULT));
    OK(cuEventRecord(before, stream));
    OK(cuEventRecord(after, stream));
    CHECK(cuEventElapsedTime(&ms, before, after) == CUDA_ERROR_NOT_READY);
    OK(cuEventSynchronize(after));
    OK(cuEventElapsedTime(&ms, before, after));
    CHECK(ms >= 0);
}

/* ---- capture ---- */

static CUgraphExec finish(CUstream stream) {
    CUgraph graph = NULL;
    CUgraphExec exec = NULL;
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphInstantiate(&exec, graph, 0));
    OK(cuGraphDestroy(graph));
    return exec;
}

static void a_graph_replays(void) {
    start();
    CUstream stream = new_stream();
    const CUdeviceptr p = device_bytes(4), q = device_bytes(4);
    uint32_t *in = pinned_bytes(4);
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuMemcpyHtoDAsync(p, in, 4, stream));
    OK(cuMemcpyDtoDAsync(q, p, 4, stream));
    CUgraphExec exec = finish(stream);
    for (uint32_t i = 1; i <= 3; i++) {
        *in = i;
        OK(cuGraphLaunch(exec, stream));
        CHECK(word_of(q, stream) == i);
    }
    OK(cuGraphExecDestroy(exec));
}

/* Two branches; the second one's copy depends on the first one's memset only if the events say so. */
static uint32_t fork_and_join(bool ordered) {
    start();
    CUstream a = new_stream(), b = new_stream();
    CUevent fork_point = NULL, set = NULL, joined = NULL;
    const CUdeviceptr p = device_bytes(4), q = device_bytes(4);
    OK(cuEventCreate(&fork_point, CU_EVENT_DISABLE_TIMING));
    OK(cuEventCreate(&set, CU_EVENT_DISABLE_TIMING));
    OK(cuEventCreate(&joined, CU_EVENT_DISABLE_TIMING));
    OK(cuMemsetD32Async(p, 1, 1, a));
    OK(cuStreamSynchronize(a));
    OK(cuStreamBeginCapture(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
    OK(cuEventRecord(fork_point, a));
    OK(cuStreamWaitEvent(b, fork_point, 0));
    OK(cuMemsetD32Async(p, 2, 1, a));
    OK(cuEventRecord(set, a));
    if (ordered) OK(cuStreamWaitEvent(b, set, 0));
    OK(cuMemcpyDtoDAsync(q, p, 4, b));
    OK(cuEventRecord(joined, b));
    OK(cuStreamWaitEvent(a, joined, 0));
    CUgraphExec exec = finish(a);
    OK(cuGraphLaunch(exec, a));
    return word_of(q, a);
}

static void an_ordered_branch(void) {
    CHECK(fork_and_join(true) == 2);
}
static void a_missing_edge_shows(void) {
    CHECK(fork_and_join(false) == 1);
}

static void an_unjoined_branch_is_refused(void) {
    start();
    CUstream a = new_stream(), b = new_stream();
    CUevent fork_point = NULL;
    CUgraph graph = NULL;
    const CUdeviceptr p = device_bytes(4);
    OK(cuEventCreate(&fork_point, CU_EVENT_DISABLE_TIMING));
    OK(cuStreamBeginCapture(a, CU_STREAM_CAPTURE_MODE_GLOBAL));
    OK(cuEventRecord(fork_point, a));
    OK(cuStreamWaitEvent(b, fork_point, 0));
    OK(cuMemsetD32Async(p, 2, 1, b));
    CHECK(cuStreamEndCapture(a, &graph) == CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
}

static void synchronising_breaks_a_capture(void) {
    start();
    CUstream stream = new_stream();
    CUgraph graph = NULL;
    CUdeviceptr p = 0;
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuStreamIsCapturing(stream, &status));
    CHECK(status == CU_STREAM_CAPTURE_STATUS_ACTIVE);
    CHECK(cuMemAlloc(&p, 4) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    CHECK(cuStreamSynchronize(stream) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    CHECK(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    OK(cuStreamSynchronize(stream)); // usable again
}

static CUgraph captured_memset(CUstream stream, CUdeviceptr p, uint32_t value) {
    CUgraph graph = NULL;
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(cuMemsetD32Async(p, value, 1, stream));
    OK(cuStreamEndCapture(stream, &graph));
    return graph;
}

static void an_executable_graph_is_updated(void) {
    start();
    CUstream stream = new_stream();
    const CUdeviceptr p = device_bytes(4);
    CUgraph first = captured_memset(stream, p, 1), second = captured_memset(stream, p, 2);
    CUgraphExec exec = NULL;
    CUgraphExecUpdateResultInfo info;
    size_t n = 0;
    OK(cuGraphGetNodes(first, NULL, &n));
    CHECK(n == 1);
    OK(cuGraphInstantiate(&exec, first, 0));
    OK(cuGraphUpload(exec, stream));
    OK(cuGraphExecUpdate(exec, second, &info));
    CHECK(info.result == CU_GRAPH_EXEC_UPDATE_SUCCESS);
    OK(cuGraphLaunch(exec, stream));
    CHECK(word_of(p, stream) == 2);
}

static void launches_of_one_graph_keep_their_order(void) {
    start();
    CUstream a = new_stream(), b = new_stream();
    const CUdeviceptr p = device_bytes(4);
    uint32_t *in = pinned_bytes(4);
    *in = 1;
    OK(cuStreamBeginCapture(a, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(cuLaunchHostFunc(a, log_call, (void *)1));
    CUgraphExec exec = finish(a);
    OK(cuGraphLaunch(exec, a));
    OK(cuGraphLaunch(exec, b));
    OK(cuMemsetD32Async(p, 9, 1, b));
    CHECK(word_of(p, b) == 9 && n_logged == 2); // both launches have run, the one on a first
}

static const struct row rows[] = {
    ROW("streams=late", nothing_runs_before_a_wait),
    ROW("streams=early", everything_runs_at_once),
    ROW("streams=late", pinned_sources_are_read_late_and_pageable_ones_at_once),
    ROW("streams=late", polling_ends),
    ROW("streams=late", a_missing_wait_shows),
    ROW("streams=late", a_wait_orders),
    ROW("streams=early", a_wait_orders),
    ROW("streams=random,seed=3", a_wait_orders),
    ROW("streams=late", a_wait_keeps_the_generation_it_saw),
    ROW("streams=late", host_functions_run_in_order),
    ROW("streams=late", host_functions_may_not_call_the_driver),
    ROW("stream0=0", the_default_stream_is_refused),
    ROW("streams=late", the_default_stream_waits_for_blocking_streams),
    ROW("streams=late", times_grow),
    ROW("streams=late", a_graph_replays),
    ROW("streams=random,seed=9", a_graph_replays),
    ROW("streams=late", an_ordered_branch),
    ROW("streams=early", an_ordered_branch),
    ROW("streams=random", an_ordered_branch),
    ROW("streams=late", a_missing_edge_shows),
    ROW("streams=late", an_unjoined_branch_is_refused),
    ROW("streams=late", synchronising_breaks_a_capture),
    ROW("streams=late", an_executable_graph_is_updated),
    ROW("streams=late", launches_of_one_graph_keep_their_order),
};

int main(void) {
    return run_rows(rows, sizeof rows / sizeof rows[0]);
}
