/* Launcher facts from the environment; nonsense counts as absent. */
#include "env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void numbers(void **state) {
    (void)state;
    unsetenv("SLURM_JOB_END_TIME");
    assert_int_equal(nt_env_slurm_job_end_time(), 0);
    setenv("SLURM_JOB_END_TIME", "4102444800", 1);
    assert_true(nt_env_slurm_job_end_time() == 4102444800);
    static const char *const nonsense[] = {"", "soon", "12x", "-5", "99999999999999999999"};
    for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++) {
        setenv("SLURM_JOB_END_TIME", nonsense[i], 1);
        assert_true(nt_env_slurm_job_end_time() == (nonsense[i][0] ? -1 : 0));
    }
    unsetenv("SLURM_RESTART_COUNT");
    assert_int_equal(nt_env_slurm_restart_count(), 0);
    setenv("SLURM_RESTART_COUNT", "3", 1);
    assert_int_equal(nt_env_slurm_restart_count(), 3);
}

static void launchers(void **state) {
    (void)state;
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK",
                                        "SLURM_LOCALID",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "PMIX_RANK",
                                        "PMI_RANK",
                                        "SLURM_JOB_ID",
                                        "NT_DEBUG"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unsetenv(names[i]);
    assert_int_equal(nt_env_local_rank(), -1);
    assert_false(nt_env_launched_by_mpi());
    assert_null(nt_env_slurm_job_id());
    assert_string_equal(nt_env_debug(), "");
    setenv("SLURM_LOCALID", "2", 1);
    assert_int_equal(nt_env_local_rank(), 2);
    assert_false(nt_env_launched_by_mpi()); /* a bare batch script has it too */
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", "1", 1);
    assert_int_equal(nt_env_local_rank(), 1);
    setenv("PMIX_RANK", "0", 1);
    assert_true(nt_env_launched_by_mpi());
    setenv("SLURM_JOB_ID", "77", 1);
    assert_string_equal(nt_env_slurm_job_id(), "77");
    setenv("NT_DEBUG", "pool", 1);
    assert_string_equal(nt_env_debug(), "pool");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbers), cmocka_unit_test(launchers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
