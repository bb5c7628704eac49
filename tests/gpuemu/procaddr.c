/* cuGetProcAddress: the newest version of a name that this library exports. */
#include <dlfcn.h>
#include <stdio.h>

#include "driver.h"

static void *self(void) {
    Dl_info info;
    if (dladdr((void *)self, &info) == 0) return NULL;
    return dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
}

static void *find(const char *name) {
    static const char *const suffixes[] = {"_v4", "_v3", "_v2", ""};
    char versioned[160];
    void *library = self(), *found = NULL;
    for (size_t i = 0; library != NULL && found == NULL && i < sizeof suffixes / sizeof suffixes[0]; i++) {
        snprintf(versioned, sizeof versioned, "%s%s", name, suffixes[i]);
        found = dlsym(library, versioned);
    }
    if (library != NULL) dlclose(library);
    return found;
}

CUresult cuGetProcAddress_v2(const char *name, void **function, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *status) {
    (void)version;
    (void)flags;
    if (name == NULL || function == NULL) return CUDA_ERROR_INVALID_VALUE;
    *function = find(name);
    if (status != NULL)
        *status = *function != NULL ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function != NULL ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

#undef cuGetProcAddress
CUresult cuGetProcAddress(const char *name, void **function, int version, cuuint64_t flags);
EMU_API CUresult cuGetProcAddress(const char *name, void **function, int version, cuuint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
