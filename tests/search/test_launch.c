/* What a rank takes from its launcher's environment: threads, and whether MPI knows the other
 * ranks. */
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "run/launch.h"

static int clear(void **state)
{
    (void)state;
    unsetenv("OMP_NUM_THREADS");
    unsetenv("SLURM_CPUS_PER_TASK");
    unsetenv("OMPI_COMM_WORLD_SIZE");
    unsetenv("PMI_SIZE");
    unsetenv("SLURM_STEP_NUM_TASKS");
    return 0;
}

static int cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
    return CPU_COUNT(&set);
}

static int threads(const char *omp, const char *slurm, int wish, int workers)
{
    struct job job = {.threads = wish};
    clear(NULL);
    if (omp != NULL) {
        setenv("OMP_NUM_THREADS", omp, 1);
    }
    if (slurm != NULL) {
        setenv("SLURM_CPUS_PER_TASK", slurm, 1);
    }
    return launch_threads(&job, workers);
}

static void test_threads(void **state)
{
    (void)state;
    int all = cores();
    assert_int_equal(threads("1", "1", 7, 1), 7); /* the job's word is final */
    assert_int_equal(threads("1", "1000000", 0, 1), 1);
    assert_int_equal(threads("1,8,4", "1000000", 0, 1), 1);
    assert_int_equal(threads(NULL, "1", 0, 1), 1);
    assert_int_equal(threads("1000000", "1", 0, 1), all); /* never more than there are */
    assert_int_equal(threads(NULL, "1000000", 0, 1), all);
    assert_int_equal(threads(NULL, NULL, 0, 1000000), 1);
    assert_int_equal(threads(NULL, NULL, 0, 0), threads(NULL, NULL, 0, 1));
}

static void test_threads_of_nonsense(void **state)
{
    static const char *const nonsense[] = {
        "", "0", "-3", "many", "4x", "4 2", ",2", "99999999999999999999999",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        assert_int_equal(threads(nonsense[i], "1", 0, 1), 1); /* as if it were not set */
        assert_int_equal(threads(nonsense[i], nonsense[i], 0, 1), threads(NULL, NULL, 0, 1));
    }
}

static void test_launcher_that_does_not_fit(void **state)
{
    (void)state;
    struct error err = {0};
    setenv("SLURM_STEP_NUM_TASKS", "5", 1);
    assert_int_equal(launch_check_size(1, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "1 rank, but 5 were started (SLURM_STEP_NUM_TASKS)"));
    assert_non_null(strstr(err.message, "srun --mpi=pmix"));
    assert_int_equal(launch_check_size(5, &err), STATUS_OK);
    setenv("SLURM_STEP_NUM_TASKS", "1", 1);
    assert_int_equal(launch_check_size(1, &err), STATUS_OK);
    setenv("PMI_SIZE", "3", 1);
    assert_int_equal(launch_check_size(1, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "but 3 were started (PMI_SIZE)"));
}

static void test_launcher_that_fits(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(launch_check_size(1, &err), STATUS_OK);
    setenv("SLURM_STEP_NUM_TASKS", "many", 1);
    assert_int_equal(launch_check_size(1, &err), STATUS_OK);
    /* mpirun -n 1, whose daemons are a step of two tasks */
    setenv("SLURM_STEP_NUM_TASKS", "2", 1);
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    assert_int_equal(launch_check_size(1, &err), STATUS_OK);
}

static void test_deadline(void **state)
{
    (void)state;
    double left_s = deadline_left_s(launch_deadline("1000000100", 1e9));
    assert_true(left_s > 90.0 && left_s <= 100.0);
    assert_true(deadline_left_s(launch_deadline("999999990", 1e9)) < 0.0);
    static const char *const unknown[] = {
        "", "0", "-5", "soon", "12x", "nan", "inf", "1", /* the clock is wrong, or it is */ NULL};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        assert_true(isinf(deadline_left_s(launch_deadline(unknown[i], 1e9))));
    }
}

static void test_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(launch_exit_code(STATUS_OK), 0);
    assert_int_equal(launch_exit_code(STATUS_INTERRUPTED), 85);
    assert_int_equal(launch_exit_code(STATUS_NO_SPACE), 74);
    assert_int_equal(launch_exit_code(STATUS_IO), 74);
    assert_int_equal(launch_exit_code(STATUS_PERMISSION), 74);
    assert_int_equal(launch_exit_code(STATUS_TIMEOUT), 1);
    assert_int_equal(launch_exit_code(STATUS_DEVICE), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_threads, clear),
        cmocka_unit_test_setup(test_threads_of_nonsense, clear),
        cmocka_unit_test_setup(test_launcher_that_does_not_fit, clear),
        cmocka_unit_test_setup(test_launcher_that_fits, clear),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_exit_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
