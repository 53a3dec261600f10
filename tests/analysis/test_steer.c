/* halt, set and status --watch, on a search that does not run: what they say, and what they leave.
 */
#include "analysis/command.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pty.h>
#include <time.h>

#include "base/clock.h"
#include "store/control.h"

static struct store_control read_wish(struct fixture *f)
{
    char run[FILE_PATH_BYTES];
    struct store_control control;
    struct error err = {0};
    sample_path(f->folder, "run", run);
    if (store_control_read(run, &control, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return control;
}

static bool has_wish(struct fixture *f)
{
    char path[FILE_PATH_BYTES];
    sample_path(f->folder, "run/control.json", path);
    return file_exists(path);
}

/* ---- halt ---- */

static void test_halt(void **state)
{
    struct fixture *f = *state;
    expect(f, "halt run --cancel", 0, "no halt is wanted");
    assert_false(has_wish(f));
    expect(f, "halt run", 0, "does not run now: it will obey when it next starts");
    struct store_control first = read_wish(f);
    assert_int_equal(first.halt, STORE_HALT_NOW);
    assert_int_equal(strlen(first.halt_id), 16);
    assert_non_null(strchr(first.by, '@'));
    expect(f, "status run", 0, "wanted now by");
    expect(f, "halt run --after-round", 0, "no new rounds, the 1 open one ends first");
    struct store_control second = read_wish(f);
    assert_int_equal(second.halt, STORE_HALT_ROUND);
    assert_string_not_equal(first.halt_id, second.halt_id);
    expect(f, "status run", 0, "wanted after the open rounds by");
    expect(f, "halt run --cancel", 0, "taken back");
    assert_int_equal(read_wish(f).halt, STORE_HALT_NONE);
    expect(f, "halt run --cancel", 0, "no halt is wanted");
    expect(f, "halt run --cancel --after-round", 2, "exclude each other");
    expect(f, "halt run --cancel --at +1h", 2, "exclude each other");
}

static void test_halt_at(void **state)
{
    struct fixture *f = *state;
    char arguments[128];
    expect(f, "halt run --at +2h", 0, "(in 120 min)");
    assert_true(fabs(read_wish(f).halt_at_s - clock_wall_s() - 7200.0) < 60.0);
    expect(f, "halt run --at +90s", 0, "asked to halt at");
    assert_true(fabs(read_wish(f).halt_at_s - clock_wall_s() - 90.0) < 60.0);
    expect(f, "halt run --at +1.5d", 0, "(in 36.0 h)");
    expect(f, "status run", 0, "wanted in 36.0 h by");
    /* A date and a time of day, in local time. */
    time_t later = time(NULL) + 3 * 86400;
    struct tm parts;
    localtime_r(&later, &parts);
    strftime(arguments, sizeof(arguments), "halt run --at %Y-%m-%dT%H:%M", &parts);
    expect(f, arguments, 0, "(in 3.0 days)");
    assert_true(fabs(read_wish(f).halt_at_s - (double)later) <= 60.0);
    later = time(NULL) - 600; /* has passed today: it is tomorrow's */
    localtime_r(&later, &parts);
    strftime(arguments, sizeof(arguments), "halt run --at %H:%M", &parts);
    expect(f, arguments, 0, "(in 23.8 h)");
}

static void test_halt_nonsense(void **state)
{
    static const char *const wrong[] = {
        "soon",    "''",         "25:00",  "12:60",
        "+h",      "+2",         "+2x",    "+-2h",
        "+1e9s",   "+0x1h",      "++2h",   "2h",
        "+nanh",   "2026-13-01", "23:30x", "2026-02-31T10:00",
        "2026-11", "tomorrow",   "+2h30m",
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char arguments[96];
        snprintf(arguments, sizeof(arguments), "halt run --at %s", wrong[i]);
        expect(f, arguments, 2, "is no time; allowed are");
    }
    expect(f, "halt run --at 2020-01-01T00:00", 2, "in the past");
    expect(f, "halt run --at 2999-01-01T00:00", 2, "more than a year ahead");
    expect(f, "halt run --at +400d", 2, "more than a year ahead");
    expect(f, "halt run --at", 2, "--help lists the options");
    assert_false(has_wish(f));
}

/* A wish is obeyed once: the search's record says so. */
static void test_obeyed(void **state)
{
    struct fixture *f = *state;
    char event[512];
    expect(f, "halt run", 0, "asked to halt now");
    snprintf(event, sizeof(event),
             "{\"event\":\"halted\",\"id\":\"%s\",\"how\":\"at once\",\"by\":\"a@b\"",
             read_wish(f).halt_id);
    append_event(f, event);
    expect(f, "status run", 0, "halted\n              at once, by a@b");
    assert_null(strstr(buffer_text(&f->out), "wanted"));
    expect(f, "halt run --cancel", 0, "the last one was obeyed");
    append_event(f, "{\"event\":\"allocation_started\",\"ranks\":1,\"host\":\"h\"");
    expect(f, "halt run", 0, "asked to halt now");
    expect(f, "status run", 0, "wanted now");
    /* Words are not what it goes by. */
    snprintf(event, sizeof(event),
             "{\"event\":\"incident\",\"kind\":\"halted\",\"message\":\"at once (wish %s)\"",
             read_wish(f).halt_id);
    append_event(f, event);
    expect(f, "status run", 0, "wanted now");
    snprintf(event, sizeof(event),
             "{\"event\":\"halted\",\"id\":\"%s\",\"how\":\"at once\",\"by\":\"a@b\"",
             read_wish(f).halt_id);
    append_event(f, event);
    append_event(f, "{\"event\":\"allocation_ended\",\"reason\":\"halted: at once, by a@b\"");
    expect(f, "halt run --cancel", 0, "the last one was obeyed");
    expect(f, "status run", 0, "run  halted");
    cJSON *object = parsed(f, "status run --json");
    assert_string_equal(cJSON_GetObjectItem(object, "condition")->valuestring, "halted");
    cJSON_Delete(object);
    append_event(f, "{\"event\":\"allocation_started\",\"ranks\":1,\"host\":\"h\"");
    expect(f, "status run", 0, "run  stopped");
}

static void test_running(void **state)
{
    struct fixture *f = *state;
    struct store_lock *lock = NULL;
    char run[FILE_PATH_BYTES];
    sample_path(f->folder, "run", run);
    assert_int_equal(store_folder_lock(run, &lock, NULL), STATUS_OK);
    expect(f, "halt run --after-round", 0, "The search runs: it will obey within seconds");
    expect(f, "set run rounds=50", 0, "The search runs: it will obey within seconds");
    store_folder_unlock(lock);
    append_event(f, "{\"event\":\"finished\",\"reason\":\"all rounds are done\",\"winner_node\":-1,"
                    "\"winner_candidate\":-1");
    expect(f, "halt run", 2, "has finished (all rounds are done)");
    expect(f, "set run rounds=60", 2, "has finished (all rounds are done)");
    expect(f, "set run", 2, "has finished");
    assert_true(read_wish(f).limits[SEARCH_LIMIT_ROUNDS] == 50.0);
}

/* ---- set ---- */

/* The search has done what is wanted. */
static void expect_seen(struct fixture *f)
{
    append_event(f, "{\"event\":\"limits_set\",\"limits\":{\"rounds\":50,\"core_hours\":2.5},"
                    "\"what\":\"rounds 40 -> 50, core_hours none -> 2.5\",\"by\":\"a@b\"");
    expect(f, "set run", 0, "rounds                     40           50               2 done");
    assert_null(strstr(buffer_text(&f->out), "it will obey"));
    expect(f, "status run", 0, "2 of 50 done");
    expect(f, "status run", 0, "set         rounds 50, core_hours 2.5\n");
    assert_null(strstr(buffer_text(&f->out), "limits      wanted"));
    cJSON *object = parsed(f, "status run --json");
    assert_true(number_at(object, "rounds", "planned") == 50.0);
    assert_true(number_at(object, "limits", "core_hours") == 2.5);
    assert_true(
        cJSON_IsNull(cJSON_GetObjectItem(cJSON_GetObjectItem(object, "limits"), "goal_score")));
    cJSON_Delete(object);
}

static void test_set(void **state)
{
    struct fixture *f = *state;
    expect(f, "set run", 0,
           "rounds                     40                            2 done, 1 open");
    expect(f, "set run", 0, "Nothing is set");
    assert_false(has_wish(f));
    expect(f, "set run rounds=50 core_hours=2.5", 0, "rounds 40 -> 50");
    assert_non_null(strstr(buffer_text(&f->out), "core_hours none -> 2.5"));
    expect(f, "set run", 0, "rounds                     40                        50  2 done");
    assert_non_null(strstr(buffer_text(&f->out), "it will obey when it next starts"));
    struct store_control wish = read_wish(f);
    assert_true(wish.limits[SEARCH_LIMIT_ROUNDS] == 50.0);
    assert_true(wish.limits[SEARCH_LIMIT_CORE_HOURS] == 2.5);
    assert_true(isnan(wish.limits[SEARCH_LIMIT_GPU_HOURS]));
    /* Until the search has seen it, the job file's hold. */
    expect(f, "status run", 0, "2 of 40 done");
    expect(f, "status run", 0, "@");
    assert_non_null(strstr(buffer_text(&f->out), ": rounds 50, core_hours 2.5\n"));
    assert_non_null(strstr(buffer_text(&f->out), "limits      wanted by "));
    cJSON *object = parsed(f, "status run --json");
    assert_true(number_at(object, "rounds", "planned") == 40.0);
    assert_true(number_at(object, "limits", "rounds") == 40.0);
    assert_true(number_at(cJSON_GetObjectItem(object, "wishes"), "limits", "core_hours") == 2.5);
    cJSON_Delete(object);
    expect(f, "set run rounds=50", 0, "are wanted already");
    expect_seen(f);
    expect(f, "set run rounds=50", 0, "hold already");
    expect(f, "set run rounds=job", 0, "rounds 50 -> 40 (the job file's)");
    wish = read_wish(f);
    assert_true(isnan(wish.limits[SEARCH_LIMIT_ROUNDS]));
    assert_true(wish.limits[SEARCH_LIMIT_CORE_HOURS] == 2.5);
}

/* Limits that are reached already end the search, and it says how. */
static void test_set_reached(void **state)
{
    struct fixture *f = *state;
    expect(f, "set run rounds=1", 0,
           "2 rounds are done already: the search ends when the open ones");
    expect(f, "set run rounds=0", 0, "2 rounds are done already");
    expect(f, "set run goal_score=0.4", 0, "already: the search ends when the candidates that run");
    expect(f, "set run goal_score=0.99", 0, "goal_score 0.4 -> 0.99");
    assert_null(strstr(buffer_text(&f->out), "already"));
    expect(f, "set run core_hours=0", 0, "");
    assert_null(strstr(buffer_text(&f->out), "already: the search ends"));
}

static void test_set_nonsense(void **state)
{
    static const char *const wrong[] = {
        "rounds=-1",        "rounds=2.5",     "rounds=1e300",    "rounds=",
        "rounds=ten",       "rounds=0x10",    "rounds=nan",      "core_hours=-0.1",
        "core_hours=inf",   "gpu_hours=1e10", "agent_tokens=-5", "agent_money_usd=1,5",
        "goal_score=1e999", "rounds=' 5'",    "rounds=5x",
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char arguments[96];
        snprintf(arguments, sizeof(arguments), "set run core_hours=7 %s", wrong[i]);
        expect(f, arguments, 2, strncmp(wrong[i], "core", 4) == 0 ? "" : "allowed is a");
    }
    expect(f, "set run seed=5", 2, "allowed is NAME=VALUE with one of rounds, core_hours");
    expect(f, "set run rounds", 2, "allowed is NAME=VALUE");
    expect(f, "set run =5", 2, "allowed is NAME=VALUE");
    expect(f, "set run rounds=5 rounds=6", 2, "rounds is given twice");
    assert_false(has_wish(f)); /* not even the good half of a line */
}

/* ---- both ---- */

static void test_both_stand(void **state)
{
    struct fixture *f = *state;
    expect(f, "halt run --at +1h", 0, "asked to halt at");
    struct store_control before = read_wish(f);
    expect(f, "set run rounds=50", 0, "40 -> 50");
    struct store_control after = read_wish(f);
    assert_int_equal(after.halt, STORE_HALT_AT);
    assert_string_equal(after.halt_id, before.halt_id);
    assert_true(after.halt_at_s == before.halt_at_s);
    expect(f, "halt run --after-round", 0, "no new rounds");
    expect(f, "halt run --cancel", 0, "taken back");
    assert_true(read_wish(f).limits[SEARCH_LIMIT_ROUNDS] == 50.0);
}

static void test_cannot_write(void **state)
{
    struct fixture *f = *state;
    expect(f, "set run rounds=50", 0, "40 -> 50");
    setenv("TREX_FAULT", "base.file.before_rename=enospc", 1);
    expect(f, "set run rounds=60", 1, "STATUS_NO_SPACE");
    expect(f, "halt run", 1, "STATUS_NO_SPACE");
    unsetenv("TREX_FAULT");
    struct store_control wish = read_wish(f);
    assert_int_equal(wish.halt, STORE_HALT_NONE);
    assert_true(wish.limits[SEARCH_LIMIT_ROUNDS] == 50.0);
    expect(f, "verify run", 1,
           "run/control.json: what was asked for"); /* its weights are missing */
    char path[FILE_PATH_BYTES];
    sample_path(f->folder, "run/control.json", path);
    sample_write(path, "{\"halt\": 7}", 11);
    expect(f, "set run rounds=60", 2, "remove this file to begin anew");
    expect(f, "halt run", 2, "/halt: found 7");
    expect(f, "verify run", 1, "DAMAGED  run/control.json: 1 mistake");
    expect(f, "status run", 0, "2 of 40 done");
}

/* ---- watch ---- */

static void test_watch(void **state)
{
    struct fixture *f = *state;
    expect(f, "status run --watch 0", 2, "allowed are 0.1 to 86400 seconds");
    expect(f, "status run --watch=5s", 2, "allowed are 0.1 to 86400 seconds");
    append_event(f, "{\"event\":\"finished\",\"reason\":\"all rounds are done\",\"winner_node\":-1,"
                    "\"winner_candidate\":-1");
    expect(f, "status --watch 0.1 run", 0, "run  finished");
    expect(f, "status run --watch", 0, "run  finished");
    assert_null(strstr(buffer_text(&f->out), "\033"));
    assert_null(strstr(buffer_text(&f->out), "\n\n")); /* once */
    cJSON_Delete(parsed(f, "status run --watch --json"));
}

/* Sees what is appended while it watches, and ends with the search. */
static void test_watch_sees_the_end(void **state)
{
    struct fixture *f = *state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        clock_sleep_s(3.0); /* it has looked by then, and again */
        append_event(f, "{\"event\":\"finished\",\"reason\":\"all rounds are done\","
                        "\"winner_node\":-1,\"winner_candidate\":-1");
        _exit(0);
    }
    expect(f, "status run --watch 0.2", 0, "run  finished");
    const char *again = strstr(buffer_text(&f->out), "run  stopped");
    assert_non_null(again);
    assert_non_null(strstr(again + 1, "\n\nrun  "));
    assert_int_equal(waitpid(child, NULL, 0), child);
}

/* Reads what the terminal got until `text` stands there, or the program has ended. */
static void read_terminal(int terminal, struct buffer *out, const char *text)
{
    char block[4096];
    struct deadline deadline = deadline_after(60.0);
    while (strstr(buffer_text(out), text) == NULL && !deadline_passed(deadline)) {
        struct pollfd ready = {terminal, POLLIN, 0};
        poll(&ready, 1, 1000);
        ssize_t got = read(terminal, block, sizeof(block));
        if (got <= 0 && errno != EAGAIN) {
            break;
        }
        buffer_append(out, block, got > 0 ? (size_t)got : 0);
    }
    if (strstr(buffer_text(out), text) == NULL) {
        fail_msg("\"%s\" did not come; the terminal shows\n%s", text, buffer_text(out));
    }
}

/* On a terminal it draws from the top and hides the cursor; Ctrl-C brings it back and ends well. */
static void test_watch_on_a_terminal(void **state)
{
    struct fixture *f = *state;
    char program[FILE_PATH_BYTES];
    char run[FILE_PATH_BYTES];
    int terminal = -1;
    int ended = 0;
    snprintf(program, sizeof(program), "%s/trex-tree", TEST_BINARY_DIR);
    sample_path(f->folder, "run", run);
    pid_t child = forkpty(&terminal, NULL, NULL, NULL);
    assert_true(child >= 0);
    if (child == 0) {
        execl(program, "trex-tree", "status", run, "--watch", "0.2", NULL);
        _exit(127);
    }
    fcntl(terminal, F_SETFL, O_NONBLOCK);
    buffer_clear(&f->out);
    read_terminal(terminal, &f->out, "\033[H\033[2J\033[?25l");
    read_terminal(terminal, &f->out, "in flight");
    assert_int_equal(write(terminal, "\003", 1), 1);
    read_terminal(terminal, &f->out, "\033[?25h");
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
    close(terminal);
}

int main(void)
{
    setenv("TZ", "UTC0", 1); /* no hour that the clocks pass over */
    tzset();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_halt, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_halt_at, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_halt_nonsense, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_obeyed, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_running, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_set, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_set_reached, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_set_nonsense, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_both_stand, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_cannot_write, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_watch, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_watch_sees_the_end, make_fixture, remove_fixture),
        cmocka_unit_test_setup_teardown(test_watch_on_a_terminal, make_fixture, remove_fixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
