/* Candidates that sleep: as long as they should, drawn from seed and name alone, stopped and
 * resumed like real ones. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "run/simulated.h"
#include "run/training_file.h"
#include "tree/search.h"

static const double short_s = 0.04;

static struct job usual_job(void)
{
    static char metric[] = "accuracy";
    return (struct job){.seed = 7, .checkpoint_seconds = 100.0, .task = {.metric = metric}};
}

/* Stops the work at a step, as a message would. */
struct stopper {
    int64_t at; /* -1: never */
    int64_t first, ticks;
};

static enum status tick(void *context, const char *phase, int64_t done, int64_t total,
                        struct error *err)
{
    struct stopper *stopper = context;
    if (strcmp(phase, "save") == 0) {
        return STATUS_OK;
    }
    assert_true(strcmp(phase, "train") == 0 || strcmp(phase, "evaluate") == 0);
    assert_int_equal(total, SIMULATED_STEPS);
    stopper->first = stopper->ticks++ == 0 ? done : stopper->first;
    return done == stopper->at ? FAIL(err, STATUS_INTERRUPTED, "stopped") : STATUS_OK;
}

static enum status train(const struct job *job, const char *name, const char *config,
                         const char *state_path, struct stopper *stopper, cJSON **result,
                         struct error *err)
{
    cJSON *parsed = cJSON_Parse(config);
    const struct candidate_order order = {.name = name, .config = parsed, .state_path = state_path};
    const struct progress progress = {.tick = tick, .context = stopper};
    enum status status = simulated_train(job, short_s, &order, NULL,
                                         stopper != NULL ? &progress : NULL, result, err);
    cJSON_Delete(parsed);
    return status;
}

static double value_of(const cJSON *result)
{
    const cJSON *score = cJSON_GetObjectItemCaseSensitive(result, "validation");
    return cJSON_GetObjectItemCaseSensitive(score, "value")->valuedouble;
}

static double score(uint64_t seed, const char *name, const char *config)
{
    struct job job = usual_job();
    struct error err = {0};
    cJSON *result = NULL;
    job.seed = seed;
    assert_int_equal(train(&job, name, config, NULL, NULL, &result, &err), STATUS_OK);
    assert_int_equal(search_result_check(result, &err), STATUS_OK);
    double value = value_of(result);
    cJSON_Delete(result);
    return value;
}

static void test_duration(void **state)
{
    (void)state;
    double least = INFINITY;
    double most = 0.0;
    for (int32_t node = 0; node < 200; node++) {
        char name[SEARCH_NAME_BYTES];
        search_candidate_name(node, node % 5, name);
        double seconds = simulated_duration_s(10.0, 7, name);
        assert_true(seconds == simulated_duration_s(10.0, 7, name));
        least = fmin(least, seconds);
        most = fmax(most, seconds);
    }
    assert_true(least >= 8.0 && least < 8.2);
    assert_true(most <= 12.0 && most > 11.8);
}

static void test_score(void **state)
{
    (void)state;
    const char *config = "{\"learning_rate\": 0.001}";
    assert_true(score(7, "n0003-c1", config) == score(7, "n0003-c1", config));
    assert_false(score(7, "n0003-c1", config) == score(7, "n0003-c2", config));
    assert_false(score(7, "n0003-c1", config) == score(8, "n0003-c1", config));
    /* There is something to climb: a hopeless rate is beaten by all that lie within the range. */
    double hopeless = score(7, "n0003-c1", "{\"learning_rate\": 1e-9}");
    assert_true(score(7, "n0003-c1", config) > hopeless);
    assert_true(hopeless > score(7, "n0000-c0", "{}"));
}

static void test_time(void **state)
{
    (void)state;
    struct job job = usual_job();
    struct error err = {0};
    struct stopper never = {.at = -1};
    cJSON *result = NULL;
    double begun_s = clock_monotonic_s();
    assert_int_equal(train(&job, "n0001-c0", "{}", NULL, &never, &result, &err), STATUS_OK);
    assert_true(clock_monotonic_s() - begun_s >= simulated_duration_s(short_s, 7, "n0001-c0"));
    assert_int_equal(never.ticks, SIMULATED_STEPS);
    cJSON_Delete(result);
}

static void test_stop_and_resume(void **state)
{
    (void)state;
    struct job job = usual_job();
    struct error err = {0};
    char folder[] = "/tmp/trex-simulated-XXXXXX";
    char path[FILE_PATH_BYTES];
    assert_non_null(mkdtemp(folder));
    assert_int_equal(file_join(folder, "n0001-c0.h5", path, &err), STATUS_OK);
    cJSON *result = NULL;
    struct stopper stopper = {.at = 25};
    assert_int_equal(train(&job, "n0001-c0", "{}", path, &stopper, &result, &err),
                     STATUS_INTERRUPTED);
    assert_null(result);
    assert_int_equal(training_file_steps(path), 25);
    stopper = (struct stopper){.at = -1};
    assert_int_equal(train(&job, "n0001-c0", "{}", path, &stopper, &result, &err), STATUS_OK);
    assert_int_equal(stopper.first, 25);
    assert_int_equal(stopper.ticks, SIMULATED_STEPS - 25);
    cJSON_Delete(result);
    unlink(path);
    rmdir(folder);

    /* Where its state cannot be written it has failed, and not been stopped. */
    stopper = (struct stopper){.at = 3};
    assert_int_equal(train(&job, "n0001-c0", "{}", path, &stopper, &result, &err),
                     STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "n0001-c0.h5"));
}

static void test_checkpoints(void **state)
{
    (void)state;
    struct job job = usual_job();
    struct error err = {0};
    char folder[] = "/tmp/trex-simulated-XXXXXX";
    char path[FILE_PATH_BYTES];
    cJSON *result = NULL;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(file_join(folder, "n0001-c0.h5", path, &err), STATUS_OK);
    job.checkpoint_seconds = 1e-4;
    assert_int_equal(train(&job, "n0001-c0", "{}", path, NULL, &result, &err), STATUS_OK);
    assert_true(training_file_steps(path) > 0);
    cJSON_Delete(result);
    unlink(path);
    rmdir(folder);
}

static void test_test_split(void **state)
{
    (void)state;
    struct job job = usual_job();
    struct error err = {0};
    const struct candidate_order order = {.name = "n0001-c0"};
    cJSON *measured = NULL;
    assert_int_equal(simulated_score(&job, short_s, &order, NULL, &measured, &err), STATUS_OK);
    assert_int_equal(search_score_check(measured, &err), STATUS_OK);
    cJSON_Delete(measured);
    struct stopper stopper = {.at = 2};
    const struct progress progress = {.tick = tick, .context = &stopper};
    assert_int_equal(simulated_score(&job, short_s, &order, &progress, &measured, &err),
                     STATUS_INTERRUPTED);
    assert_null(measured);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_duration),    cmocka_unit_test(test_score),
        cmocka_unit_test(test_time),        cmocka_unit_test(test_stop_and_resume),
        cmocka_unit_test(test_checkpoints), cmocka_unit_test(test_test_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
