/* External scorers: those that work, and every way in which one can go wrong. */
#include "eval/scoring.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/process.h"

/* Scores rows with a shell script as the command. */
static enum status run_script(struct scoring_rows *scoring, const char *script, double timeout_s,
                              struct error *err)
{
    char *command[] = {"/bin/sh", "-c", (char *)(uintptr_t)script, NULL};
    memcpy(scoring->task.command, command, sizeof(command));
    scoring->task.command_count = 3;
    scoring->task.command_timeout_s = timeout_s;
    return scoring_run(scoring, "command", err);
}

static void add_rows(struct scoring_rows *scoring, int count)
{
    for (int i = 0; i < count; i++) {
        scoring_add(scoring, "yes", i % 2 == 0 ? "yes" : "no", "[\"yes\", \"no\"]");
    }
}

/* Runs a script on three rows that must fail, and gives the message. */
static struct error fail_script(const char *script, double timeout_s, enum status expected)
{
    struct scoring_rows scoring = {0};
    struct error err = {0};
    add_rows(&scoring, 3);
    enum status status = run_script(&scoring, script, timeout_s, &err);
    if (status != expected) {
        fail_msg("%s: %s: %s", script, status_name(status), err.message);
    }
    scoring_fini(&scoring);
    return err;
}

static void test_scores(void **state)
{
    (void)state;
    struct scoring_rows scoring = {0};
    struct error err;
    add_rows(&scoring, 40);
    enum status status = run_script(
        &scoring,
        "while read -r line; do case \"$line\" in *'\"output\":\"yes\"'*) "
        "echo '{\"score\": 1}';; *) echo '{\"score\": 0.25, \"why\": \"no\"}';; esac; done",
        20, &err);
    if (status != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_true(scoring.row_score[0] == 1.0);
    assert_true(scoring.row_score[39] == 0.25);
    assert_true(fabs(scoring.score - 0.625) < 1e-12);
    scoring_fini(&scoring);
}

/* The line holds the row's own fields too, is JSON whatever the model wrote, and its last line may
 * lack an end. */
static void test_what_is_sent(void **state)
{
    (void)state;
    char path[FILE_PATH_BYTES];
    char script[FILE_PATH_BYTES + 64];
    struct scoring_rows scoring = {0};
    struct error err;
    snprintf(path, sizeof(path), "%s/command_sent.%d", TEST_BINARY_DIR, (int)getpid());
    snprintf(script, sizeof(script), "cat > '%s'; printf '{\"score\": 1}'", path);
    scoring_add(&scoring, "answer", "bad \xFF bytes\nand a line", NULL);
    cJSON_AddNumberToObject(scoring.data[0].object, "check", 7);
    cJSON_AddStringToObject(scoring.data[0].object, "prompt", "the raw prompt");
    scoring.rows[0].prompt = "as the model read it";
    assert_int_equal(run_script(&scoring, script, 20, &err), STATUS_OK);
    cJSON *sent = NULL;
    assert_int_equal(json_parse_file(path, 1 << 16, &sent, &err), STATUS_OK);
    assert_string_equal(cJSON_GetObjectItem(sent, "prompt")->valuestring, "as the model read it");
    assert_string_equal(cJSON_GetObjectItem(sent, "answer")->valuestring, "answer");
    assert_string_equal(cJSON_GetObjectItem(sent, "output")->valuestring,
                        "bad \xEF\xBF\xBD bytes\nand a line");
    assert_int_equal(cJSON_GetObjectItem(sent, "check")->valueint, 7);
    assert_int_equal(cJSON_GetArraySize(sent), 4);
    cJSON_Delete(sent);
    unlink(path);
    scoring_fini(&scoring);
}

/* Megabytes in both directions at once: neither pipe may wait for the other. */
static void test_much_text_both_ways(void **state)
{
    (void)state;
    enum { BIG = 512 * 1024 };
    struct scoring_rows scoring = {0};
    struct error err;
    char *big = mem_calloc(BIG + 1, 1);
    memset(big, 'x', BIG);
    for (int i = 0; i < 8; i++) {
        scoring_add(&scoring, "answer", big, NULL);
    }
    enum status status = run_script(&scoring,
                                    "while read -r line; do "
                                    "printf '{\"score\": 1, \"pad\": \"%0200000d\"}\\n' 0; "
                                    "printf '%0200000d\\n' 1 >&2; done",
                                    60, &err);
    if (status != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    free(big);
    scoring_fini(&scoring);
}

static void test_wrong_count(void **state)
{
    (void)state;
    struct error err = fail_script("cat > /dev/null; echo '{\"score\": 1}'", 20, STATUS_EXTERNAL);
    assert_non_null(strstr(err.message, "1 lines for 3 rows"));
    err = fail_script("cat > /dev/null; for i in 1 2 3 4; do echo '{\"score\": 1}'; done", 20,
                      STATUS_EXTERNAL);
    assert_non_null(strstr(err.message, "more than 3 lines"));
    fail_script("true", 20, STATUS_EXTERNAL);
}

static void test_wrong_lines(void **state)
{
    (void)state;
    struct error err =
        fail_script("cat > /dev/null; echo '{\"score\": 1}'; echo hello", 20, STATUS_FORMAT);
    assert_non_null(strstr(err.message, "output line 2"));
    fail_script("echo", 20, STATUS_FORMAT);
    fail_script("echo '[0.5]'", 20, STATUS_FORMAT);
    fail_script("echo '{\"score\": \"1\"}'", 20, STATUS_FORMAT);
    fail_script("echo '{\"Score\": 1}'", 20, STATUS_FORMAT);
    fail_script("echo '{\"score\": NaN}'", 20, STATUS_FORMAT);
    fail_script("printf '{\"score\": 1}\\000\\n'", 20, STATUS_FORMAT);
    fail_script("printf '\\377\\376\\n'", 20, STATUS_FORMAT);
    err = fail_script("echo '{\"score\": 1.5}'", 20, STATUS_RANGE);
    assert_non_null(strstr(err.message, "1.5"));
    fail_script("echo '{\"score\": -0.1}'", 20, STATUS_RANGE);
    fail_script("echo '{\"score\": 1e999}'", 20, STATUS_RANGE);
}

static void test_exit_status(void **state)
{
    (void)state;
    static const char good[] = "cat > /dev/null; for i in 1 2 3; do echo '{\"score\": 1}'; done; ";
    char script[256];
    snprintf(script, sizeof(script), "%s echo 'no module named rdkit' >&2; exit 3", good);
    struct error err = fail_script(script, 20, STATUS_EXTERNAL);
    assert_non_null(strstr(err.message, "exit status 3"));
    assert_non_null(strstr(err.message, "no module named rdkit"));
    snprintf(script, sizeof(script), "%s kill -SEGV $$", good);
    err = fail_script(script, 20, STATUS_EXTERNAL);
    assert_non_null(strstr(err.message, "signal 11"));
}

static void test_hang(void **state)
{
    (void)state;
    double start_s = clock_monotonic_s();
    struct error err = fail_script("sleep 1000", 1, STATUS_TIMEOUT);
    assert_non_null(strstr(err.message, "command_timeout_s"));
    /* pipes closed, and still there */
    fail_script("exec < /dev/null > /dev/null 2> /dev/null; sleep 1000", 0.3, STATUS_TIMEOUT);
    assert_true(clock_monotonic_s() - start_s < 100);
}

static void test_endless_output(void **state)
{
    (void)state;
    fail_script("while :; do echo '{\"score\": 1}'; done", 20, STATUS_EXTERNAL);
    struct error err = fail_script("cat /dev/zero | tr '\\000' x", 20, STATUS_LIMIT);
    assert_non_null(strstr(err.message, "line"));
    fail_script("cat /dev/zero >&2", 0.5, STATUS_TIMEOUT);
}

/* A descendant that outlives the command and holds its pipes delays nothing, and is dead
 * afterwards. */
static void test_descendants_die(void **state)
{
    (void)state;
    char path[FILE_PATH_BYTES];
    char script[FILE_PATH_BYTES + 160];
    struct scoring_rows scoring = {0};
    struct error err;
    struct buffer text;
    add_rows(&scoring, 1);
    snprintf(path, sizeof(path), "%s/command_pid.%d", TEST_BINARY_DIR, (int)getpid());
    snprintf(script, sizeof(script),
             "cat > /dev/null; sleep 1000 & echo $! > '%s'; echo '{\"score\": 1}'", path);
    double start_s = clock_monotonic_s();
    assert_int_equal(run_script(&scoring, script, 200, &err), STATUS_OK);
    assert_true(clock_monotonic_s() - start_s < 100);
    buffer_init(&text, 64);
    assert_int_equal(file_read(path, &text, &err), STATUS_OK);
    pid_t pid = (pid_t)strtol(buffer_text(&text), NULL, 10);
    assert_true(pid > 1);
    char state_path[64];
    snprintf(state_path, sizeof(state_path), "/proc/%d/stat", (int)pid);
    bool dead = false;
    for (int i = 0; i < 3000 && !dead; i++) {
        struct buffer stat;
        buffer_init(&stat, 4096);
        FILE *file = fopen(state_path, "r");
        char line[512] = "";
        dead =
            file == NULL || fgets(line, sizeof(line), file) == NULL || strstr(line, ") Z ") != NULL;
        if (file != NULL) {
            fclose(file);
        }
        buffer_fini(&stat);
        clock_sleep_s(0.02);
    }
    assert_true(dead);
    buffer_fini(&text);
    unlink(path);
    scoring_fini(&scoring);
}

/* Input that nobody reads ends in an error about the scores, never in a SIGPIPE. */
static void test_closed_input(void **state)
{
    (void)state;
    enum { BIG = 1 << 20 };
    struct scoring_rows scoring = {0};
    struct error err;
    signal(SIGPIPE, SIG_DFL);
    char *big = mem_calloc(BIG + 1, 1);
    memset(big, 'x', BIG);
    scoring_add(&scoring, "answer", big, NULL);
    assert_int_equal(run_script(&scoring, "exec < /dev/null; sleep 0.2", 20, &err),
                     STATUS_EXTERNAL);
    assert_non_null(strstr(err.message, "0 lines for 1 rows"));
    /* and it is no error if the scores are right all the same */
    assert_int_equal(
        run_script(&scoring, "exec < /dev/null; sleep 0.2; echo '{\"score\": 1}'", 20, &err),
        STATUS_OK);
    sigset_t pending;
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGPIPE));
    free(big);
    scoring_fini(&scoring);
}

static void test_missing_program(void **state)
{
    (void)state;
    struct scoring_rows scoring = {0};
    struct error err;
    add_rows(&scoring, 1);
    assert_int_equal(scoring_run(&scoring, "command", &err), STATUS_INVALID);
    scoring.task.command[0] = "/no/such/program";
    scoring.task.command_timeout_s = 5;
    assert_int_equal(scoring_run(&scoring, "command", &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "/no/such/program"));
    scoring.task.command[0] = "/"; /* no file to execute */
    assert_int_equal(scoring_run(&scoring, "command", &err), STATUS_PERMISSION);
    scoring_fini(&scoring);
}

/* No secrets in its environment, no files of ours, default signals. */
static void test_what_it_inherits(void **state)
{
    (void)state;
    setenv("TREX_TEST_API_KEY", "hidden", 1);
    setenv("TREX_TEST_PROXY", "http://user:hidden@host:3128", 1);
    setenv("TREX_TEST_PLAIN_PROXY", "http://host:3128/a@b", 1);
    setenv("trex_test_password", "hidden", 1);
    setenv("TREX_TEST_PLAIN", "seen", 1);
    int fd = open("/dev/null", O_RDONLY); /* without O_CLOEXEC */
    assert_true(fd >= 3);
    struct scoring_rows scoring = {0};
    struct error err;
    add_rows(&scoring, 1);
    signal(SIGPIPE, SIG_IGN);
    char script[512];
    snprintf(script, sizeof(script),
             "cat > /dev/null; env | grep -q hidden && exit 4; test \"$TREX_TEST_PLAIN\" = seen || "
             "exit 5; test -n \"$TREX_TEST_PLAIN_PROXY\" || exit 5; "
             "test -e /proc/$$/fd/0 || exit 6; test -e /proc/$$/fd/%d && exit 7; "
             "grep -q 'SigIgn:.*0000$' /proc/self/status || exit 8; "
             "echo '{\"score\": 1}'",
             fd);
    enum status status = run_script(&scoring, script, 20, &err);
    signal(SIGPIPE, SIG_DFL);
    if (status != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    close(fd);
    scoring_fini(&scoring);
}

static void test_no_files_left_open(void **state)
{
    (void)state;
    int before = open("/dev/null", O_RDONLY);
    close(before);
    fail_script("true", 20, STATUS_EXTERNAL);
    fail_script("sleep 100", 0.1, STATUS_TIMEOUT);
    test_missing_program(state);
    int after = open("/dev/null", O_RDONLY);
    close(after);
    assert_int_equal(before, after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_what_is_sent),
        cmocka_unit_test(test_much_text_both_ways),
        cmocka_unit_test(test_wrong_count),
        cmocka_unit_test(test_wrong_lines),
        cmocka_unit_test(test_exit_status),
        cmocka_unit_test(test_hang),
        cmocka_unit_test(test_endless_output),
        cmocka_unit_test(test_descendants_die),
        cmocka_unit_test(test_closed_input),
        cmocka_unit_test(test_missing_program),
        cmocka_unit_test(test_what_it_inherits),
        cmocka_unit_test(test_no_files_left_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
