/* What the hardware would refuse at launch. Registers come from what ptxas -v said at build time (option
 * regs), because PTX does not say them; without it, or for a kernel that is not in it, that check is skipped. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "emu.h"

enum { MAX_THREADS = 1024, MAX_PARAM_BYTES = 4096, REGISTERS = 65536, DEFAULT_SHARED = 49152 };

struct register_row {
    char *kernel;
    int32_t n;
    struct register_row *next;
};

static struct register_row *register_rows;

static void add_row(const char *kernel, int n) {
    struct register_row *row = malloc(sizeof *row);
    if (row == NULL) return;
    *row = (struct register_row){.kernel = strdup(kernel), .n = n, .next = register_rows};
    register_rows = row;
}

/* What ptxas -v writes: "Compiling entry function 'k' for 'sm_80'", later "Used 40 registers"; or "k 40". */
static void read_file(const char *path) {
    char line[512], name[256], of[64] = "", kernel[256] = "";
    int n = 0;
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        emu_report(NULL, "cannot read the register table '%s'", path);
        return;
    }
    while (fgets(line, sizeof line, f) != NULL) {
        const char *entry = strstr(line, "Compiling entry function"), *used = strstr(line, "Used ");
        if (entry != NULL && sscanf(entry, "Compiling entry function '%255[^']' for 'sm_%63[^']'", kernel, of) == 2) {
            if (strtol(of, NULL, 10) != emu_options()->cc) kernel[0] = '\0'; // of another architecture
        } else if (used != NULL && kernel[0] != '\0' && sscanf(used, "Used %d registers", &n) == 1)
            add_row(kernel, n);
        else if (sscanf(line, "%255s %d", name, &n) == 2)
            add_row(name, n);
    }
    fclose(f);
}

/* Option regs: a file, or a folder of which all *.ptxas.txt are read. */
static void read_registers(void) {
    static bool done;
    const char *path = emu_options()->regs, *end = NULL;
    char file[4096];
    if (done || path == NULL) return;
    done = true;
    DIR *folder = opendir(path);
    if (folder == NULL) {
        read_file(path);
        return;
    }
    for (const struct dirent *e = readdir(folder); e != NULL; e = readdir(folder)) {
        end = strstr(e->d_name, ".ptxas.txt");
        if (end == NULL) continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        read_file(file);
    }
    closedir(folder);
}

int32_t emu_registers(const struct emu_kernel *kernel) {
    read_registers();
    for (const struct register_row *row = register_rows; row != NULL; row = row->next)
        if (row->kernel != NULL && strcmp(row->kernel, kernel->name) == 0) return row->n;
    return 0;
}

int32_t emu_max_shared(void) {
    bool known = false;
    return emu_device_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0, &known);
}

static uint64_t volume(const uint32_t n[3]) {
    return (uint64_t)n[0] * n[1] * n[2];
}

static CUresult refuse(const struct emu_launch *launch, CUresult code, const char *text, int64_t have, int64_t limit) {
    fprintf(stderr, "emu: launch of %s refused: %s: %" PRId64 ", limit %" PRId64 "\n", launch->kernel->name, text, have,
            limit);
    return code;
}

static CUresult check_threads(const struct emu_launch *launch) {
    const struct emu_kernel *kernel = launch->kernel;
    const uint64_t n_thread = volume(launch->block);
    const CUresult bad = CUDA_ERROR_INVALID_VALUE;
    if (n_thread == 0 || volume(launch->grid) == 0) return refuse(launch, bad, "an empty grid or block", 0, 1);
    if (n_thread > MAX_THREADS) return refuse(launch, bad, "threads in a block", (int64_t)n_thread, MAX_THREADS);
    if (launch->block[2] > 64) return refuse(launch, bad, "block size z", launch->block[2], 64);
    if (launch->grid[0] > INT32_MAX) return refuse(launch, bad, "grid size x", launch->grid[0], INT32_MAX);
    if (launch->grid[1] > 65535) return refuse(launch, bad, "grid size y", launch->grid[1], 65535);
    if (launch->grid[2] > 65535) return refuse(launch, bad, "grid size z", launch->grid[2], 65535);
    for (int i = 0; i < 3; i++) {
        if (kernel->reqntid[0] > 0 && (int32_t)launch->block[i] != (kernel->reqntid[i] > 0 ? kernel->reqntid[i] : 1))
            return refuse(launch, bad, "block size is not .reqntid", launch->block[i], kernel->reqntid[i]);
    }
    int64_t most = 1;
    for (int i = 0; i < 3; i++) most *= kernel->maxntid[i] > 0 ? kernel->maxntid[i] : 1;
    if (kernel->maxntid[0] > 0 && (int64_t)n_thread > most)
        return refuse(launch, bad, "threads in a block against .maxntid (__launch_bounds__)", (int64_t)n_thread, most);
    return CUDA_SUCCESS;
}

static CUresult check_resources(const struct emu_launch *launch) {
    const struct emu_kernel *kernel = launch->kernel;
    const int64_t shared = kernel->shared_bytes + launch->dynamic_shared;
    const int64_t dynamic_limit =
        kernel->max_dynamic_shared >= 0 ? kernel->max_dynamic_shared : DEFAULT_SHARED - kernel->shared_bytes;
    if (launch->dynamic_shared > dynamic_limit)
        return refuse(launch, CUDA_ERROR_INVALID_VALUE,
                      "dynamic shared memory above what CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES allows",
                      launch->dynamic_shared, dynamic_limit);
    if (kernel->shared_bytes > DEFAULT_SHARED)
        return refuse(launch, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "static shared memory", kernel->shared_bytes,
                      DEFAULT_SHARED);
    if (shared > emu_max_shared())
        return refuse(launch, CUDA_ERROR_INVALID_VALUE, "shared memory of a block", shared, emu_max_shared());
    if (kernel->param_bytes > MAX_PARAM_BYTES)
        return refuse(launch, CUDA_ERROR_INVALID_VALUE, "bytes of parameters", kernel->param_bytes, MAX_PARAM_BYTES);
    const int64_t per_thread = (emu_registers(kernel) + 7) / 8 * 8; // allocated by 8 per thread, whole warps
    const int64_t registers = per_thread * (int64_t)((volume(launch->block) + 31) / 32 * 32);
    if (registers > REGISTERS)
        return refuse(launch, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "registers of a block", registers, REGISTERS);
    return CUDA_SUCCESS;
}

static CUresult check_cluster(const struct emu_launch *launch) {
    const uint64_t n = volume(launch->cluster);
    if (n <= 1) return CUDA_SUCCESS;
    if (emu_options()->cc < 90) return refuse(launch, CUDA_ERROR_NOT_SUPPORTED, "clusters need cc 9.0", (int64_t)n, 1);
    if (n > 8) return refuse(launch, CUDA_ERROR_INVALID_CLUSTER_SIZE, "blocks in a cluster", (int64_t)n, 8);
    for (int i = 0; i < 3; i++)
        if (launch->grid[i] % launch->cluster[i] != 0)
            return refuse(launch, CUDA_ERROR_INVALID_VALUE, "grid is no multiple of the cluster", launch->grid[i],
                          launch->cluster[i]);
    return CUDA_SUCCESS;
}

CUresult emu_check_launch(const struct emu_launch *launch) {
    CUresult result = check_threads(launch);
    if (result == CUDA_SUCCESS) result = check_resources(launch);
    return result == CUDA_SUCCESS ? check_cluster(launch) : result;
}

/* Blocks of a multiprocessor: the least that threads, blocks, registers and shared memory allow. */
int32_t emu_occupancy(const struct emu_kernel *kernel, int32_t n_thread, size_t dynamic_shared) {
    bool known = false;
    const int64_t all_shared =
        emu_device_attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 0, &known);
    const int64_t n_warp = (n_thread + 31) / 32;
    const int64_t shared = kernel->shared_bytes + (int64_t)dynamic_shared + 1024; // 1 KB of each block is the system's
    const int64_t registers = (emu_registers(kernel) + 7) / 8 * 8 * 32 * n_warp;
    int64_t n = 64 / n_warp;
    if (n > 32) n = 32;
    if (all_shared / shared < n) n = all_shared / shared;
    if (registers > 0 && REGISTERS / registers < n) n = REGISTERS / registers;
    return (int32_t)n;
}
