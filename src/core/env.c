#include "env.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>

/* A launcher variable as a number; def when it is absent, empty or not a number in [min, max]. */
static int64_t number(const char *name, int64_t min, int64_t max, int64_t def) {
    const char *text = getenv(name);
    if (!text || *text == '\0') return def;
    char *end = NULL;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno != 0 || *end != '\0' || v < min || v > max) return def;
    return v;
}

int64_t nt_env_slurm_job_end_time(void) {
    const char *text = getenv("SLURM_JOB_END_TIME");
    return number("SLURM_JOB_END_TIME", 0, INT64_MAX, text && *text ? -1 : 0);
}

const char *nt_env_slurm_job_id(void) {
    const char *id = getenv("SLURM_JOB_ID");
    return id && *id ? id : NULL;
}

int nt_env_slurm_restart_count(void) {
    return (int)number("SLURM_RESTART_COUNT", 0, INT_MAX, 0);
}

int nt_env_local_rank(void) {
    int64_t rank = number("OMPI_COMM_WORLD_LOCAL_RANK", 0, INT_MAX, -1);
    return (int)(rank >= 0 ? rank : number("SLURM_LOCALID", 0, INT_MAX, -1));
}

int nt_env_slurm_step_tasks(void) {
    return (int)number("SLURM_STEP_NUM_TASKS", 0, INT_MAX, 0);
}

const char *nt_env_debug(void) {
    const char *text = getenv("NT_DEBUG");
    return text ? text : "";
}

bool nt_env_launched_by_mpi(void) {
    /* OMPI: mpirun or srun of Open MPI; PMIX_RANK / PMI_RANK: srun --mpi=pmix|pmi2. A bare sbatch script has none. */
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") || getenv("PMI_RANK");
}

static const char *path(const char *name) {
    const char *text = getenv(name);
    return text && *text ? text : NULL;
}

const char *nt_env_cuda_driver(void) {
    return path("NOCTURNE_CUDA_DRIVER");
}

const char *nt_env_cublaslt(void) {
    return path("NOCTURNE_CUBLASLT");
}

const char *nt_env_nccl(void) {
    return path("NOCTURNE_NCCL");
}

const char *nt_env_tmp(void) {
    const char *text = getenv("TMPDIR");
    return text && text[0] ? text : "/tmp";
}

const char *nt_env_cuda_visible_devices(void) {
    return getenv("CUDA_VISIBLE_DEVICES");
}
