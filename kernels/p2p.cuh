/* How a block meets its namesakes of all ranks before it reads what they wrote. Protocol and reuse of the buffers:
 * allreduce_p2p_cuda.h.
 *
 * It announces itself to each (a store with release at system scope into the peer's memory) and waits for all of them
 * (loads with acquire from its own memory). The flags are counted up, never reset: a peer may be one call ahead, so the
 * wait is for "this call or later". The producer of what is read ran before this kernel in its stream; the release makes
 * its writes visible with the flag. */
#ifndef NT_P2P_CUH
#define NT_P2P_CUH

#include "allreduce_p2p_cuda.h"
#include "ptx.cuh"

/* All threads of the block; after it the peers' partial sums may be read. */
NT_DEVICE void nt_meet_peers(const struct nt_p2p_group *g) {
    const int32_t peer = (int32_t)threadIdx.x, at = (int32_t)blockIdx.x * NT_P2P_RANKS;
    const uint32_t call = g->epoch[blockIdx.x] + 1;
    if (peer < g->size) {
        nt_store_release_sys(&g->flags[peer][at + g->rank], call);
        while ((int32_t)(nt_load_acquire_sys(&g->flags[g->rank][at + peer]) - call) < 0) {}
    }
    __syncthreads(); /* and all have read the epoch */
    if (threadIdx.x == 0) g->epoch[blockIdx.x] = call;
}

#endif
