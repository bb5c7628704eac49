/* Helpers of the tests that give PTX text straight to the emulated driver: one kernel "k" with an input and an output
 * buffer, launched once. Every call makes its own module, buffers and stream in the running case (a child process, see
 * test_emu.h), so nothing is freed. Errors: run_text returns whether all calls succeeded; reports stay with the
 * emulator. Registers declared for the body: %p<8>, %h<8>, %r<64>, %f<64>, %rd<16>; %rd10 in, %rd11 out, %r10 thread.
 */
#pragma once
#include "test_emu.h"

#define PTX_HEAD ".version 8.4\n.target sm_90a\n.address_size 64\n"
#define PTX_ENTRY                                                                                                      \
    ".visible .entry k(.param .u64 in, .param .u64 out, .param .align 64 .b8 map[128])\n{\n"                           \
    ".reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<64>; .reg .f32 %f<64>; .reg .b64 %rd<16>;\n"

struct ptx_run {
    const char *body;
    unsigned n_thread;
    const void *in;
    size_t n_in;
    void *out;
    size_t n_out;
    const CUtensorMap *map; /* NULL: none */
};

static inline bool run_text(const struct ptx_run *r) {
    static const CUtensorMap no_map;
    const size_t room = strlen(r->body) + 2048;
    char *text = malloc(room);
    CHECK(text != NULL);
    snprintf(text, room,
             "%s%sld.param.u64 %%rd10, [in]; ld.param.u64 %%rd11, [out]; mov.u32 %%r10, %%tid.x;\n%s\nret;\n}\n",
             PTX_HEAD, PTX_ENTRY, r->body);
    CUmodule module = NULL;
    CUfunction function = NULL;
    CUdeviceptr in = device_bytes(r->n_in + 16), out = device_bytes(r->n_out + 16);
    if (r->n_in > 0) OK(cuMemcpyHtoD(in, r->in, r->n_in));
    void *params[] = {&in, &out, (void *)(uintptr_t)(r->map != NULL ? r->map : &no_map)};
    CUstream stream = new_stream();
    OK(cuModuleLoadData(&module, text));
    OK(cuModuleGetFunction(&function, module, "k"));
    free(text);
    if (cuLaunchKernel(function, 1, 1, 1, r->n_thread, 1, 1, 0, stream, params, NULL) != CUDA_SUCCESS) return false;
    if (cuStreamSynchronize(stream) != CUDA_SUCCESS) return false;
    if (r->n_out > 0) OK(cuMemcpyDtoH(r->out, out, r->n_out));
    return true;
}
