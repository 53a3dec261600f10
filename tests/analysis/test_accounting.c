/* status --accounting, with a program that stands in for sacct on the PATH. */
#include "analysis/command.h"

#include <math.h>
#include <sys/stat.h>

#include "base/clock.h"

#define JOB(number, restarts)                                                                      \
    "{\"event\":\"allocation_started\",\"ranks\":3,\"host\":\"h\",\"workers\":2,\"nodes\":1,"      \
    "\"threads\":4,\"gpus\":0,\"job\":\"" number "\",\"restarts\":" restarts

/* sacct is now this shell script, and nothing else is on the PATH but what scripts need. */
static void stand_in(struct fixture *f, const char *script)
{
    char path[FILE_PATH_BYTES];
    char text[4096];
    sample_path(f->folder, "bin", path);
    mkdir(path, 0700);
    int used = snprintf(text, sizeof(text), "%s:/usr/bin:/bin", path);
    assert_true(used > 0 && (size_t)used < sizeof(text));
    setenv("PATH", text, 1);
    sample_path(f->folder, "bin/sacct", path);
    used = snprintf(text, sizeof(text), "#!/bin/sh\n%s\n", script);
    assert_true(used > 0 && (size_t)used < sizeof(text));
    sample_write(path, text, (size_t)used);
    assert_int_equal(chmod(path, 0700), 0);
}

static void make_jobs(struct fixture *f)
{
    append_event(f, JOB("41", "0"));
    append_event(f, JOB("41", "1"));
    append_event(f, JOB("107", "0"));
}

static void test_good(void **state)
{
    struct fixture *f = *state;
    make_jobs(f);
    stand_in(f, "[ \"$*\" = '-X -D -P -n -j 107,41 "
                "--format=JobIDRaw,ElapsedRaw,CPUTimeRAW,ConsumedEnergyRaw,AllocTRES' ] || exit 9\n"
                "echo '41|3600|28800|1800000|billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,node=1'\n"
                "echo '41|1800|14400||billing=8,cpu=8,gres/gpu:a100=2,node=1'\n"
                "echo '107|60|60|18446744073709551614|'");
    expect(f, "status run --accounting", 0,
           "12.02 core-hours, 3.00 GPU-hours, 0.500 kWh in 3 allocations of 2 jobs (sacct)");
    cJSON *object = parsed(f, "status run --json --accounting");
    assert_true(number_at(object, "accounting", "allocations") == 3.0);
    assert_true(number_at(object, "accounting", "jobs") == 2.0);
    assert_true(fabs(number_at(object, "accounting", "core_hours") - 43260.0 / 3600.0) < 1e-9);
    assert_true(fabs(number_at(object, "accounting", "gpu_hours") - 3.0) < 1e-9);
    assert_true(fabs(number_at(object, "accounting", "energy_kwh") - 0.5) < 1e-9);
    cJSON_Delete(object);
    stand_in(f, "echo '41|3600|28800|0|cpu=8'");
    expect(f, "status run --accounting", 0,
           "8.00 core-hours, 0.00 GPU-hours, energy not measured in 1 allocation of 2 jobs");
    object = parsed(f, "status run --json --accounting");
    const cJSON *accounting = cJSON_GetObjectItem(object, "accounting");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(accounting, "energy_kwh")));
    cJSON_Delete(object);
    /* Nobody is asked without the option. */
    stand_in(f, "touch asked; exit 1");
    expect(f, "status run", 0, "2 of 40 done");
    char path[FILE_PATH_BYTES];
    sample_path(f->folder, "asked", path);
    assert_false(file_exists(path));
}

static void test_no_figures(void **state)
{
    struct fixture *f = *state;
    stand_in(f, "echo '41|3600|28800|0|cpu=8'");
    expect(f, "status run --accounting", 0, "no figures: the search ran in no Slurm job");
    make_jobs(f);
    stand_in(f, "exit 0");
    expect(f, "status run --accounting", 0,
           "no figures: sacct knows none of the search's 2 Slurm jobs");
    stand_in(f, "echo 'Slurm accounting storage is disabled' >&2; exit 1");
    expect(f, "status run --accounting", 0, "ended with exit status 1; it last said: Slurm acc");
    stand_in(f, "kill -9 $$");
    expect(f, "status run --accounting", 0, "ended by signal 9");
    cJSON *object = parsed(f, "status run --json --accounting");
    const cJSON *accounting = cJSON_GetObjectItem(object, "accounting");
    assert_true(cJSON_IsString(cJSON_GetObjectItem(accounting, "missing")));
    cJSON_Delete(object);
    setenv("PATH", "/nonexistent", 1);
    expect(f, "status run --accounting", 0, "no figures: cannot run the command \"sacct\"");
}

static void test_garbage(void **state)
{
    static const char *const answers[] = {
        "hello",
        "41|3600|28800|0",
        "41|3600|28800|0|cpu=8|more",
        "41|an hour|28800|0|cpu=8",
        "41|3600|-5|0|cpu=8",
        "41|3600|28800|1e9|cpu=8",
        "41|3600|0x10|0|cpu=8",
        "41|3600|inf|0|cpu=8",
    };
    struct fixture *f = *state;
    make_jobs(f);
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        char script[256];
        snprintf(script, sizeof(script), "echo '41|1|1|0|cpu=8'; echo '%s'", answers[i]);
        stand_in(f, script);
        expect(f, "status run --accounting", 0, "no figures: sacct printed what is no figure");
    }
    stand_in(f, "printf '\\033[2J\\000\\377|||||\\n'");
    expect(f, "status run --accounting", 0, "no figures: sacct printed what is no figure");
    assert_null(strstr(buffer_text(&f->out), "\033"));
    stand_in(f, "head -c 3000000 /dev/zero | tr '\\0' x");
    expect(f, "status run --accounting", 0, "no figures: ");
    /* Absurd numbers of GPUs count as none. */
    stand_in(f, "echo '41|3600|3600|0|gres/gpu=1e30,gres/gpu:x=-4,=,gres/gpu'");
    expect(f, "status run --accounting", 0, "1.00 core-hours, 0.00 GPU-hours");
}

/* One that prints for ever and one that says nothing: neither lasts, and nothing of them is left.
 */
static void test_endless(void **state)
{
    struct fixture *f = *state;
    make_jobs(f);
    double begun_s = clock_monotonic_s();
    stand_in(f, "yes '41|1|1|0|cpu=8'");
    expect(f, "status run --accounting", 0, "no figures: ");
    stand_in(f, "echo $$ > pid; sleep 600 & wait");
    expect(f, "status run --accounting", 0, "had not ended after 10 s and was killed");
    assert_true(clock_monotonic_s() - begun_s < 120.0);
    char path[FILE_PATH_BYTES];
    struct buffer text;
    sample_path(f->folder, "pid", path);
    sample_read(path, &text);
    assert_int_equal(kill((pid_t)strtol(buffer_text(&text), NULL, 10), 0), -1);
    buffer_fini(&text);
}

/* What stands in the tree as a job's number and is none does not reach the command line. */
static void test_hostile_jobs(void **state)
{
    struct fixture *f = *state;
    append_event(f, JOB("--help", "0"));
    append_event(f, JOB("1;touch x", "0"));
    append_event(f, JOB("123456789012345678901234567890", "0"));
    stand_in(f, "echo \"$@\" >&2; exit 3");
    expect(f, "status run --accounting", 0, "no figures: the search ran in no Slurm job");
    append_event(f, JOB("5", "0"));
    expect(f, "status run --accounting", 0, "it last said: -X -D -P -n -j 5 --format=");
}

static int keep_path(void **state)
{
    *state = strdup(getenv("PATH"));
    return *state != NULL ? 0 : -1;
}

static int give_back_path(void **state)
{
    setenv("PATH", *state, 1);
    free(*state);
    return 0;
}

/* The fixture's own rm must be found again. */
static int remove_accounting(void **state)
{
    setenv("PATH", "/usr/bin:/bin", 1);
    return remove_fixture(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_good, make_fixture, remove_accounting),
        cmocka_unit_test_setup_teardown(test_no_figures, make_fixture, remove_accounting),
        cmocka_unit_test_setup_teardown(test_garbage, make_fixture, remove_accounting),
        cmocka_unit_test_setup_teardown(test_endless, make_fixture, remove_accounting),
        cmocka_unit_test_setup_teardown(test_hostile_jobs, make_fixture, remove_accounting),
    };
    return cmocka_run_group_tests(tests, keep_path, give_back_path);
}
