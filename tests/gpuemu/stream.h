/* Streams, events and graphs: the objects behind the handles. Shared by stream.c (queues) and graph.c (capture).
 *
 * A stream is a queue of ops; n_done ops of n_queued have run. An event remembers the op that recorded it last; the
 * wait op holds that generation, so later records do not move it. While a stream captures, its ops become nodes of
 * the capture's node list; node lists are counted references, shared by graph, executable graph and runs in flight.
 * Ownership: handles are found in lists, so a stale handle is CUDA_ERROR_INVALID_HANDLE instead of a crash.
 * Threading: under driver.c's lock.
 */
#pragma once
#include "driver.h"

struct emu_node {
    struct emu_op *op;
    int32_t *dep; // indices of earlier nodes
    int32_t n_dep;
};

struct emu_nodes {
    int32_t n, capacity, refs;
    struct emu_node *node;
};

struct emu_capture {
    CUstream origin;
    CUstreamCaptureMode mode;
    pthread_t thread;
    struct emu_nodes *nodes;
    bool broken; // something forbidden happened: EndCapture fails
    uint64_t id;
    struct emu_capture *next;
};

struct emu_deps { // the nodes that the next captured op must follow
    int32_t *node;
    int32_t n;
};

struct CUstream_st {
    struct emu_device *device;
    unsigned flags;
    int priority;
    int64_t number, n_queued, n_done;
    struct emu_op *head, *tail;
    bool running; // its head op is being executed further up the stack
    struct emu_capture *capture;
    struct emu_deps deps;
    struct CUstream_st *next;
};

struct CUevent_st {
    struct emu_device *device;
    unsigned flags;
    struct CUstream_st *stream;
    int64_t generation, done, seq;
    double time_ms;
    int32_t refs; // the handle and each queued op
    bool destroyed;
    struct emu_capture *capture; // recorded while a stream captured
    uint64_t capture_id;
    struct emu_deps deps;
    struct CUevent_st *next;
};

struct CUgraph_st {
    struct emu_nodes *nodes;
    struct CUgraph_st *next;
};

struct CUgraphExec_st {
    struct emu_nodes *nodes;
    struct CUstream_st *last_stream; // where it was launched last, and as which op
    int64_t last_seq;
    struct CUgraphExec_st *next;
};

struct emu_graph_run { // one launch of an executable graph
    struct emu_nodes *nodes;
    int32_t *order, at;
    bool begun; // the node at `at` was tried before
    struct CUstream_st *after_stream;
    int64_t after_seq;
};

/* One attempt; *done says whether it has run. */
CUresult emu_run_op(const struct emu_op *op, struct emu_device *device, bool first, bool *done);
CUresult emu_advance(struct CUstream_st *stream, int64_t upto, bool *blocked);
void emu_free_op(struct emu_op *op);
void emu_streams_leave_capture(const struct emu_capture *capture);
bool emu_stream_alive(const struct CUstream_st *stream);

CUresult emu_capture_op(struct CUstream_st *stream, struct emu_op *op);
CUresult emu_capture_record(struct CUstream_st *stream, struct CUevent_st *event);
CUresult emu_capture_wait(struct CUstream_st *stream, struct CUevent_st *event);
void emu_capture_break(struct CUstream_st *stream);
CUresult emu_run_graph(struct emu_graph_run *run, struct emu_device *device, bool *done);
void emu_free_graph_run(struct emu_graph_run *run);
void emu_graph_forget_stream(const struct CUstream_st *stream);
