/* control.json: what is written is read again, and nothing else is believed. */
#include "store/sample.h"

#include <math.h>
#include <sys/stat.h>

#include "store/control.h"

static struct store_control full_control(void)
{
    struct store_control control;
    store_control_init(&control);
    control.halt = STORE_HALT_AT;
    control.halt_at_s = 1795420800.5;
    snprintf(control.halt_id, sizeof(control.halt_id), "0123456789abcdef");
    control.limits[SEARCH_LIMIT_ROUNDS] = 20.0;
    control.limits[SEARCH_LIMIT_GOAL_SCORE] = -0.1;
    control.limits[SEARCH_LIMIT_GPU_HOURS] = 0.0;
    snprintf(control.by, sizeof(control.by), "user@host");
    control.written_s = 1795334400.25;
    return control;
}

static void test_round_trip(void **state)
{
    struct store_control written = full_control();
    struct store_control read;
    struct error err = {0};
    assert_int_equal(store_control_read(*state, &read, &err), STATUS_NOT_FOUND);
    assert_int_equal(store_control_write(*state, &written, &err), STATUS_OK);
    assert_int_equal(store_control_read(*state, &read, &err), STATUS_OK);
    assert_int_equal(read.halt, STORE_HALT_AT);
    assert_true(read.halt_at_s == written.halt_at_s && read.written_s == written.written_s);
    assert_string_equal(read.halt_id, written.halt_id);
    assert_string_equal(read.by, written.by);
    for (int i = 0; i < SEARCH_LIMIT_COUNT; i++) {
        assert_true(read.limits[i] == written.limits[i] ||
                    (isnan(read.limits[i]) && isnan(written.limits[i])));
    }
    store_control_init(&written);
    assert_int_equal(store_control_write(*state, &written, &err), STATUS_OK);
    assert_int_equal(store_control_read(*state, &read, &err), STATUS_OK);
    assert_int_equal(read.halt, STORE_HALT_NONE);
    assert_true(isnan(read.limits[SEARCH_LIMIT_ROUNDS]));
}

static void refused(const char *folder, const char *text, const char *named)
{
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    struct store_control control;
    struct store_control before;
    sample_path(folder, "control.json", path);
    sample_write(path, text, strlen(text));
    memset(&control, 0x5a, sizeof(control));
    before = control;
    enum status status = store_control_read(folder, &control, &err);
    if (status == STATUS_OK || strstr(err.message, named) == NULL ||
        strstr(err.message, "control.json") == NULL) {
        fail_msg("%s: status %d, \"%s\", expected \"%s\"", text, (int)status, err.message, named);
    }
    assert_memory_equal(&control, &before, sizeof(control));
}

static void test_hostile(void **state)
{
    const char *folder = *state;
    refused(folder, "", "JSON");
    refused(folder, "{\"halt\":", "not valid JSON");
    refused(folder, "[]", "object");
    refused(folder, "{\"halt\": \"later\"}", "/halt: found \"later\"");
    refused(folder, "{\"halt\": \"now\"}", "/halt_id");
    refused(folder, "{\"halt\": \"now\", \"halt_id\": \"short\"}", "/halt_id");
    refused(folder, "{\"halt\": \"now\", \"halt_id\": \"0123456789'; rm\"}", "/halt_id");
    refused(folder, "{\"halt\": \"at\", \"halt_id\": \"0123456789\"}", "/halt_at_s");
    refused(folder, "{\"halt\": \"at\", \"halt_id\": \"0123456789\", \"halt_at_s\": 1e300}",
            "/halt_at_s");
    refused(folder, "{\"by\": \"a\\u001b[2J\"}", "/by");
    refused(folder, "{\"by\": 7}", "/by");
    refused(folder, "{\"limits\": []}", "/limits");
    refused(folder, "{\"limits\": {\"rounds\": -1}}", "/limits/rounds");
    refused(folder, "{\"limits\": {\"rounds\": 2.5}}", "/limits/rounds");
    refused(folder, "{\"limits\": {\"rounds\": 1e15}}", "/limits/rounds");
    refused(folder, "{\"limits\": {\"core_hours\": \"all\"}}", "/limits/core_hours");
    refused(folder, "{\"limits\": {\"core_hours\": -0.5}}", "/limits/core_hours");
    refused(folder, "{\"limits\": {\"goal_score\": 1e999}}", "/limits/goal_score");
    refused(folder, "{\"limits\": {\"seed\": 5}}", "/limits/seed: unknown key");
    refused(folder, "{\"command\": \"sh\"}", "/command: unknown key");
    char *large = calloc(1, 100001);
    memset(large, ' ', 100000);
    refused(folder, large, "bytes");
    free(large);
}

/* What no reader would take is not written, and what was there stays. */
static void test_refuses_to_write(void **state)
{
    struct error err = {0};
    struct store_control good = full_control();
    struct store_control bad = full_control();
    struct store_control read;
    assert_int_equal(store_control_write(*state, &good, &err), STATUS_OK);
    bad.limits[SEARCH_LIMIT_ROUNDS] = 1e12;
    assert_int_equal(store_control_write(*state, &bad, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "/limits/rounds"));
    bad = full_control();
    snprintf(bad.by, sizeof(bad.by), "a\nb");
    assert_int_equal(store_control_write(*state, &bad, &err), STATUS_INVALID);
    bad = full_control();
    bad.halt_id[0] = '\0';
    assert_int_equal(store_control_write(*state, &bad, &err), STATUS_INVALID);
    assert_int_equal(store_control_read(*state, &read, &err), STATUS_OK);
    assert_true(read.limits[SEARCH_LIMIT_ROUNDS] == 20.0);
}

/* A folder and a pipe in its place are errors at once, no wait. */
static void test_no_file(void **state)
{
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    struct store_control control = full_control();
    sample_path(*state, "control.json", path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_not_equal(store_control_read(*state, &control, &err), STATUS_OK);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_not_equal(store_control_read(*state, &control, &err), STATUS_OK);
    assert_int_not_equal(store_control_write(*state, &control, &err), STATUS_OK);
}

/* Dies at each point of a write: the old or the new wish is there, whole. */
static enum status write_new(const char *folder, struct error *err)
{
    struct store_control control = full_control();
    control.limits[SEARCH_LIMIT_ROUNDS] = 30.0;
    return store_control_write(folder, &control, err);
}

static void test_killed(void **state)
{
    struct error err = {0};
    struct store_control old = full_control();
    struct store_control read;
    assert_int_equal(store_control_write(*state, &old, &err), STATUS_OK);
    assert_int_equal(sample_run("base.file.before_rename=kill", write_new, *state), 128 + SIGKILL);
    assert_int_equal(store_control_read(*state, &read, &err), STATUS_OK);
    assert_true(read.limits[SEARCH_LIMIT_ROUNDS] == 20.0);
    assert_int_equal(sample_run("base.file.before_rename=enospc", write_new, *state),
                     (int)STATUS_NO_SPACE);
    assert_int_equal(store_control_read(*state, &read, &err), STATUS_OK);
    assert_true(read.limits[SEARCH_LIMIT_ROUNDS] == 20.0);
    assert_int_equal(sample_run(NULL, write_new, *state), 0);
    assert_int_equal(store_control_read(*state, &read, &err), STATUS_OK);
    assert_true(read.limits[SEARCH_LIMIT_ROUNDS] == 30.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, sample_setup, sample_teardown),
        cmocka_unit_test_setup_teardown(test_hostile, sample_setup, sample_teardown),
        cmocka_unit_test_setup_teardown(test_refuses_to_write, sample_setup, sample_teardown),
        cmocka_unit_test_setup_teardown(test_no_file, sample_setup, sample_teardown),
        cmocka_unit_test_setup_teardown(test_killed, sample_setup, sample_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
