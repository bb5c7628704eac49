/* The only getenv of the program: launcher facts (Slurm, Open MPI, TMPDIR), NT_DEBUG, and the libraries a test puts in
 * place of the CUDA ones.
 *
 * Settings never come from the environment; these are facts of the launch that no file can know. A variable that is
 * absent, empty or nonsense counts as absent: no errors.
 * Ownership: strings belong to the environment. Threading: any, since the program never changes its environment.
 * Sources: sbatch(1) "OUTPUT ENVIRONMENT VARIABLES", Open MPI's mpirun(1), PMIx and PMI-2 ranks. */
#ifndef NT_ENV_H
#define NT_ENV_H

#include <stdbool.h>
#include <stdint.h>

int64_t nt_env_slurm_job_end_time(void); /* SLURM_JOB_END_TIME in unix seconds, 0: none, -1: nonsense */
const char *nt_env_slurm_job_id(void);   /* or NULL */
int nt_env_slurm_restart_count(void);    /* SLURM_RESTART_COUNT, 0: none */
int nt_env_local_rank(void);             /* SLURM_LOCALID or OMPI_COMM_WORLD_LOCAL_RANK, -1: none */
const char *nt_env_debug(void);          /* NT_DEBUG or "" */
const char *nt_env_tmp(void);            /* TMPDIR or "/tmp" */
int nt_env_slurm_step_tasks(void); /* SLURM_STEP_NUM_TASKS: tasks of the srun that started this process, 0: none */
bool nt_env_launched_by_mpi(void); /* started by mpirun or srun --mpi */

/* For tests: paths that replace libcuda.so.1, libcublasLt and libnccl (an emulator). NULL: none, the usual case. */
const char *nt_env_cuda_driver(void); /* NOCTURNE_CUDA_DRIVER */
const char *nt_env_cublaslt(void);    /* NOCTURNE_CUBLASLT */
const char *nt_env_nccl(void);        /* NOCTURNE_NCCL */
/* CUDA_VISIBLE_DEVICES or NULL; for messages alone, the driver acts on it. */
const char *nt_env_cuda_visible_devices(void);

#endif
