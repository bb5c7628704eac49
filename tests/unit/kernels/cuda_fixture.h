/* The CUDA backend on the emulated device, for tests of its kernels: one backend per test program.
 *
 * The emulator reports what a driver would let pass, leaks and uses of the default stream included; each report fails
 * the call that ran the work; options of NT_EMU are taken besides. open_be and close_be are the group's setup and
 * teardown; OK fails the test with the error's sentence. Where a build has no emulator NT_CUDA_EMU is not defined, and
 * neither is anything here: main then returns 0. Single thread. */
#ifndef NT_CUDA_FIXTURE_H
#define NT_CUDA_FIXTURE_H

#if defined NT_HAVE_CUDA && defined NT_CUDA_EMU

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cuda_backend.h"
#include <stdio.h>
#include <stdlib.h>

static struct nt_backend be;

static inline int open_device(int32_t device) {
    setenv("NOCTURNE_CUDA_DRIVER", NT_CUDA_EMU, 1);
    setenv("NOCTURNE_CUBLASLT", NT_CUBLASLT_EMU, 1);
    const char *more = getenv("NT_EMU");
    char options[4096];
    (void)snprintf(options, sizeof options, "cc=80,leaks=1,stream0=0%s%s", more ? "," : "", more ? more : "");
    setenv("NT_EMU", options, 1);
    if (nt_cuda_open_partly(&be, device, NULL) == NT_OK) return 0;
    (void)fprintf(stderr, "%s\n", nt_error_last()->text);
    return 1;
}

static inline int open_be(void **state) {
    (void)state;
    return open_device(0);
}

static inline int close_be(void **state) {
    (void)state;
    nt_backend_close(&be);
    return 0;
}

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != NT_OK) fail_msg("%s", nt_error_last()->text);                                                    \
    } while (0)

#endif
#endif
