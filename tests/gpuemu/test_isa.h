/* Programs of a few PTX instructions, run through the driver API: the harness of test_isa.c.
 *
 * A program's body finds four words of its thread's input in %x0..%x3 (and as 64 bits in %y0, %y1) and leaves results
 * in %x4, %x5 and %y4. Declared beside: %x6..%x15, %y2..%y7, %h0..%h7 (16 bits), %p0..%p3, %tid, 16 kB of shared memory
 * `tile`, the addresses %in and %out (64 bits). Expectations are written by hand from the PTX ISA, never computed with
 * the emulator's code. Each program is a module of its own, for cc 9.0; a report ends the test unless it is expected.
 */
#pragma once
#include "test_emu.h"

struct words {
    uint32_t w[4];
};

static inline char *program_text(const char *body) {
    static const char format[] =
        ".version 8.0\n.target sm_90a\n.address_size 64\n"
        ".visible .entry k(.param .u64 p_in, .param .u64 p_out, .param .align 64 .b8 p_map[128])\n{\n"
        ".reg .b32 %%x<16>;\n.reg .b64 %%y<8>;\n.reg .b16 %%h<8>;\n.reg .pred %%p<4>;\n.reg .b32 %%tid;\n"
        ".reg .b64 %%in;\n.reg .b64 %%out;\n.reg .b64 %%at;\n.shared .align 1024 .b8 tile[16384];\n"
        "ld.param.u64 %%in, [p_in];\nld.param.u64 %%out, [p_out];\n"
        "mov.u32 %%tid, %%tid.x;\n"
        "mad.wide.u32 %%at, %%tid, 16, %%in;\nld.global.v4.u32 {%%x0, %%x1, %%x2, %%x3}, [%%at];\n"
        "mov.b64 %%y0, {%%x0, %%x1};\nmov.b64 %%y1, {%%x2, %%x3};\n"
        "mov.u32 %%x4, 0;\nmov.u32 %%x5, 0;\nmov.u64 %%y4, 0;\n"
        "%s\n"
        "mad.wide.u32 %%at, %%tid, 16, %%out;\nst.global.v2.u32 [%%at], {%%x4, %%x5};\n"
        "st.global.u64 [%%at + 8], %%y4;\nret;\n}\n";
    const size_t n = sizeof format + strlen(body);
    char *text = malloc(n);
    CHECK(text != NULL);
    snprintf(text, n, format, body);
    return text;
}

static const void *program_map; /* 128 bytes given to the kernel as p_map; NULL: zeros */
static CUdeviceptr program_out;

/* Runs the body on n threads; in and out have n elements. */
static inline CUresult try_program(const char *body, unsigned n, const struct words *in, struct words *out) {
    static const unsigned char zeros[128] __attribute__((aligned(64)));
    CUmodule module = NULL;
    CUfunction function = NULL;
    char *text = program_text(body);
    const CUresult loaded = cuModuleLoadData(&module, text);
    free(text);
    if (loaded != CUDA_SUCCESS) return loaded;
    OK(cuModuleGetFunction(&function, module, "k"));
    const size_t bytes = n * sizeof *in;
    CUdeviceptr d_in = device_bytes(bytes), d_out = device_bytes(bytes);
    OK(cuMemcpyHtoD(d_in, in, bytes));
    void *params[] = {&d_in, &d_out, (void *)(uintptr_t)(program_map != NULL ? program_map : zeros)};
    CUstream stream = new_stream();
    OK(cuLaunchKernel(function, 1, 1, 1, n, 1, 1, 0, stream, params, NULL));
    const CUresult result = cuStreamSynchronize(stream);
    if (result != CUDA_SUCCESS) return result;
    OK(cuMemcpyDtoH(out, d_out, bytes));
    program_out = d_out;
    OK(cuStreamDestroy(stream));
    OK(cuMemFree(d_in));
    OK(cuMemFree(d_out));
    OK(cuModuleUnload(module));
    return CUDA_SUCCESS;
}

static inline void program(const char *body, unsigned n, const struct words *in, struct words *out) {
    if (try_program(body, n, in, out) == CUDA_SUCCESS) return;
    fprintf(stderr, "program failed: %s\n", body);
    _exit(99);
}

/* The program must be stopped with this sentence. */
static inline void refused(const char *body, unsigned n, const char *sentence) {
    struct words in[128], out[128];
    for (unsigned i = 0; i < 128; i++)
        in[i] = (struct words){
            {i, i + 1, i + 2, i + 3}
        };
    const CUresult result = try_program(body, n, in, out);
    if (result == CUDA_ERROR_LAUNCH_FAILED && reported(sentence)) return;
    fprintf(stderr, "not refused (%d): %s\n", (int)result, body);
    _exit(99);
}
