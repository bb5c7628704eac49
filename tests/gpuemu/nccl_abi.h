/* The part of NCCL's public ABI that the stand-in answers: our own declarations, so that nccl.h may be absent.
 * test_abi.c compares the values with the header where it is installed. Numbers from NCCL's documentation.
 * Ownership and threading as NCCL's: a communicator belongs to who initialised it; one thread at a time uses it.
 */
#pragma once
#include <stddef.h>

enum {
    NC_SUCCESS,
    NC_UNHANDLED_CUDA,
    NC_SYSTEM_ERROR,
    NC_INTERNAL_ERROR,
    NC_INVALID_ARGUMENT,
    NC_INVALID_USAGE,
    NC_REMOTE_ERROR,
    NC_IN_PROGRESS
};
enum { NC_INT8, NC_UINT8, NC_INT32, NC_UINT32, NC_INT64, NC_UINT64, NC_F16, NC_F32, NC_F64, NC_BF16 };
enum { NC_SUM, NC_PROD, NC_MAX, NC_MIN, NC_AVG };
enum { NC_ALL_REDUCE, NC_ALL_GATHER, NC_BROADCAST, NC_ALL_TO_ALL }; // ours

struct nc_unique_id {
    char bytes[128];
};
struct nc_config { // the first fields of ncclConfig_t, the same in every 2.x
    size_t size;
    unsigned int magic, version;
    int blocking; // 0: ncclCommInitRankConfig returns NC_IN_PROGRESS; ncclCommGetAsyncError says when all are there
};
struct ncclComm;
struct CUstream_st;

#ifndef EMU_ABI_VALUES_ONLY // test_abi.c has the same functions from nccl.h
#pragma GCC visibility push(default)
int ncclGetVersion(int *version);
int ncclGetUniqueId(struct nc_unique_id *id);
int ncclCommInitRank(struct ncclComm **comm, int size, struct nc_unique_id id, int rank);
int ncclCommInitRankConfig(struct ncclComm **comm, int size, struct nc_unique_id id, int rank,
                           const struct nc_config *config);
int ncclCommGetAsyncError(struct ncclComm *comm, int *error);
int ncclCommDestroy(struct ncclComm *comm);
int ncclCommAbort(struct ncclComm *comm);
int ncclCommFinalize(struct ncclComm *comm);
int ncclCommCount(const struct ncclComm *comm, int *size);
int ncclCommUserRank(const struct ncclComm *comm, int *rank);
int ncclGroupStart(void);
int ncclGroupEnd(void);
const char *ncclGetErrorString(int result);
const char *ncclGetLastError(struct ncclComm *comm);
int ncclAllReduce(const void *send, void *receive, size_t count, int type, int op, struct ncclComm *comm,
                  struct CUstream_st *stream);
int ncclAllGather(const void *send, void *receive, size_t count, int type, struct ncclComm *comm,
                  struct CUstream_st *stream);
int ncclBroadcast(const void *send, void *receive, size_t count, int type, int root, struct ncclComm *comm,
                  struct CUstream_st *stream);
int ncclSend(const void *send, size_t count, int type, int peer, struct ncclComm *comm, struct CUstream_st *stream);
int ncclRecv(void *receive, size_t count, int type, int peer, struct ncclComm *comm, struct CUstream_st *stream);
#pragma GCC visibility pop
#endif
