/* Job files: good ones, and every mistake with its pointer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "run/job.h"

static char path[FILE_PATH_BYTES];

static const char good_task[] =
    "\"task\": {\"name\": \"t\", \"train\": \"a.jsonl\", \"validation\": \"b.jsonl\", "
    "\"test\": \"c.jsonl\", \"metric\": \"accuracy\", \"predict\": \"choice\"}";

static int make_path(void **state)
{
    (void)state;
    snprintf(path, sizeof(path), "%s/job-XXXXXX", TEST_BINARY_DIR);
    if (mkdtemp(path) == NULL) {
        return -1;
    }
    size_t folder = strlen(path);
    for (char split = 'a'; split <= 'c'; split++) {
        struct error err;
        snprintf(path + folder, sizeof(path) - folder, "/%c.jsonl", split);
        if (file_write(path, "{}\n", 3, &err) != STATUS_OK) {
            return -1;
        }
    }
    snprintf(path + folder, sizeof(path) - folder, "/job.json");
    return 0;
}

static enum status read_job(const char *text, struct json_problems *problems, struct job *job,
                            struct error *err)
{
    struct error ignored = {0};
    assert_int_equal(file_write(path, text, strlen(text), &ignored), STATUS_OK);
    json_problems_init(problems);
    return job_read(path, NULL, problems, job, err);
}

static void assert_mistake(const char *keys, const char *expected)
{
    char text[4096];
    struct json_problems problems;
    struct job job;
    struct error err = {0};
    snprintf(text, sizeof(text), "{\"model\": \"m\", \"output\": \"o\", %s, %s}", good_task, keys);
    assert_int_equal(read_job(text, &problems, &job, &err), STATUS_INVALID);
    if (strstr(buffer_text(&problems.text), expected) == NULL) {
        fail_msg("expected \"%s\" in: %s", expected, buffer_text(&problems.text));
    }
    json_problems_fini(&problems);
}

static void test_a_good_job_with_defaults(void **state)
{
    (void)state;
    char text[4096];
    struct json_problems problems;
    struct job job;
    struct error err = {0};
    setenv("TREX_TEST_PLACE", "/somewhere", 1);
    snprintf(text, sizeof(text), "{\"model\": \"${TREX_TEST_PLACE}/m\", \"output\": \"o\", %s}",
             good_task);
    assert_int_equal(read_job(text, &problems, &job, &err), STATUS_OK);
    assert_string_equal(job.model, "/somewhere/m");
    assert_string_equal(job.policy->name, "uct");
    assert_string_equal(job.researcher.provider, "rules");
    assert_int_equal(job.rounds, 20);
    assert_int_equal(job.max_samples, 50000);
    assert_true(job.task.path[TASK_TRAIN][0] == '/'); /* relative to the job file */
    assert_non_null(strstr(job.task.path[TASK_TRAIN], "a.jsonl"));
    job_fini(&job);
    json_problems_fini(&problems);
}

static void test_every_mistake_at_once(void **state)
{
    (void)state;
    struct json_problems problems;
    struct job job;
    struct error err = {0};
    assert_int_equal(
        read_job("{\"modl\": \"m\", \"search\": {\"rounds\": -1, \"policy\": \"best\"}, "
                 "\"limits\": {\"samples\": 0.5}, \"compute\": {\"backend\": \"tpu\"}}",
                 &problems, &job, &err),
        STATUS_INVALID);
    static const char *const expected[] = {"/model: missing",
                                           "/task: missing",
                                           "/modl: unknown key",
                                           "/search/rounds: found -1",
                                           "/search/policy: found \"best\"",
                                           "/limits/samples: found 0.5",
                                           "/compute/backend: found \"tpu\""};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        if (strstr(buffer_text(&problems.text), expected[i]) == NULL) {
            fail_msg("expected \"%s\" in: %s", expected[i], buffer_text(&problems.text));
        }
    }
    json_problems_fini(&problems);
}

static void test_single_mistakes(void **state)
{
    (void)state;
    unsetenv("TREX_TEST_UNSET");
    assert_mistake("\"search\": {\"configurations\": 6}", "from 1 to 5");
    assert_mistake("\"search\": []", "/search: found []");
    assert_mistake("\"researcher\": {\"provider\": \"oracle\"}", "/researcher/provider");
    assert_mistake("\"name\": 7", "/name: found 7");
    assert_mistake("\"compute\": {\"precision\": \"f64\"}", "/compute/precision");
    assert_mistake("\"keep_weights\": 0", "/keep_weights: found 0");
}

static void test_environment_and_splits(void **state)
{
    (void)state;
    struct json_problems problems;
    struct job job;
    struct error err = {0};
    unsetenv("TREX_TEST_UNSET");
    assert_int_equal(
        read_job("{\"model\": \"${TREX_TEST_UNSET}/m\", \"output\": \"o\", \"task\": "
                 "{\"name\": \"t\", \"train\": \"a\", \"validation\": \"a\", \"test\": "
                 "\"c\", \"metric\": \"luck\", \"predict\": \"choice\"}}",
                 &problems, &job, &err),
        STATUS_INVALID);
    const char *text = buffer_text(&problems.text);
    assert_non_null(strstr(text, "/model: the environment has no TREX_TEST_UNSET"));
    assert_non_null(strstr(text, "train and validation are the same file"));
    assert_non_null(strstr(text, "/task/metric: found \"luck\", allowed is one of \"accuracy\""));
    json_problems_fini(&problems);
}

static void test_files_that_are_no_jobs(void **state)
{
    (void)state;
    struct json_problems problems;
    struct job job;
    struct error err = {0};
    assert_int_equal(read_job("", &problems, &job, &err), STATUS_FORMAT);
    json_problems_fini(&problems);
    assert_int_equal(read_job("[1]", &problems, &job, &err), STATUS_INVALID);
    json_problems_fini(&problems);
    assert_int_equal(read_job("{\"model\": \"m\",", &problems, &job, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.message, "job.json:1:"));
    json_problems_fini(&problems);
    json_problems_init(&problems);
    assert_int_equal(job_read("/no/such/job.json", NULL, &problems, &job, &err), STATUS_NOT_FOUND);
    json_problems_fini(&problems);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_job_with_defaults),
        cmocka_unit_test(test_every_mistake_at_once),
        cmocka_unit_test(test_single_mistakes),
        cmocka_unit_test(test_environment_and_splits),
        cmocka_unit_test(test_files_that_are_no_jobs),
    };
    return cmocka_run_group_tests(tests, make_path, NULL);
}
