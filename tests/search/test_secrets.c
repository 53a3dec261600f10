/* Secrets in the environment: which, hidden while MPI starts, shown again, forgotten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "run/secrets.h"

#define KEY "sk-canary-0123456789"

static char path[FILE_PATH_BYTES];

static void write_job(const char *text)
{
    struct error err = {0};
    snprintf(path, sizeof(path), "%s/secrets-%d.json", TEST_BINARY_DIR, (int)getpid());
    assert_int_equal(file_write(path, text, strlen(text), &err), STATUS_OK);
}

static bool has_name(const struct secrets *secrets, const char *name)
{
    for (int i = 0; i < secrets->count; i++) {
        if (strcmp(secrets->list[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* In a process of its own: limits that were lowered stay low. */
static void in_child(void (*check)(void))
{
    int wait_status = 0;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        check();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    assert_true(WIFEXITED(wait_status));
    assert_int_equal(WEXITSTATUS(wait_status), 0);
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: not %s\n", __LINE__, #condition);                            \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static void test_names(void **state)
{
    (void)state;
    struct secrets secrets;
    write_job("{\"researcher\": {\"key_env\": \"ONE_KEY\", \"others\": [{\"key_env\": \"TWO_KEY\"},"
              " {\"model\": \"m\"}, {\"key_env\": \"ONE_KEY\"}, {\"key_env\": 7}, 3, null]}}");
    secrets_find(path, &secrets);
    static const char *const expected[] = {
        "ONE_KEY",  "TWO_KEY",    "OPENAI_API_KEY",   "ANTHROPIC_API_KEY", "GEMINI_API_KEY",
        "HF_TOKEN", "S2_API_KEY", "OPENALEX_API_KEY", "https_proxy",       "ALL_PROXY",
    };
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        if (!has_name(&secrets, expected[i])) {
            fail_msg("no %s", expected[i]);
        }
    }
    int count = secrets.count;
    secrets_find(NULL, &secrets);
    assert_int_equal(secrets.count, count - 2);
}

/* What is no job, or one that wants too much, has the usual names. */
static void test_bad_jobs(void **state)
{
    (void)state;
    struct secrets usual;
    struct secrets secrets;
    secrets_find(NULL, &usual);
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "3",
        "{\"researcher\": []}",
        "{\"researcher\": \"x\"}",
        "{\"researcher\": {\"key_env\": {}, \"others\": \"all\"}}",
        "{\"researcher\": {\"key_env\": \"A=B\"}}",
        "{\"researcher\": {\"key_env\": \"\"}}",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        write_job(texts[i]);
        secrets_find(path, &secrets);
        assert_int_equal(secrets.count, usual.count);
    }
    secrets_find("/no/such/job.json", &secrets);
    assert_int_equal(secrets.count, usual.count);
    char many[16384] = "{\"researcher\": {\"others\": [{}";
    for (int i = 0; i < 200; i++) {
        snprintf(many + strlen(many), sizeof(many) - strlen(many), ", {\"key_env\": \"KEY_%d\"}",
                 i);
    }
    strcat(many, "]}}");
    write_job(many);
    secrets_find(path, &secrets);
    assert_int_equal(secrets.count, SECRETS_NAMES_MAX);
}

static void check_hidden(void)
{
    struct secrets secrets;
    struct rlimit core;
    setenv("ONE_KEY", KEY, 1);
    setenv("https_proxy", "http://user:" KEY "@host", 1);
    const char *place = getenv("ONE_KEY");
    secrets_find(path, &secrets);
    CHECK(secrets_known(&secrets));
    secrets_hide(&secrets);
    CHECK(secrets_known(&secrets));
    CHECK(strcmp(getenv("ONE_KEY"), "") == 0);
    for (size_t i = 0; i < strlen(KEY); i++) {
        CHECK(place[i] == '\0');
    }
    CHECK(strcmp(getenv("https_proxy"), "") == 0);
    for (int i = 0; i < 200; i++) { /* as MPI does: the array moves */
        char name[32];
        snprintf(name, sizeof(name), "MPI_%d", i);
        setenv(name, "1", 1);
    }
    secrets_show(&secrets);
    CHECK(strcmp(getenv("ONE_KEY"), KEY) == 0);
    CHECK(strcmp(getenv("https_proxy"), "http://user:" KEY "@host") == 0);
    CHECK(getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur <= 1 && core.rlim_max <= 1);
    secrets_forget(&secrets, false);
    CHECK(getenv("ONE_KEY") == place && place[0] == '\0' && place[3] == '\0');
    CHECK(strcmp(getenv("https_proxy"), "") != 0);
    CHECK(!secrets_known(&secrets));
    secrets_forget(&secrets, true);
    CHECK(strcmp(getenv("https_proxy"), "") == 0);
}

/* On other ranks: what is hidden is never shown. */
static void check_forgotten(void)
{
    struct secrets secrets;
    setenv("ONE_KEY", KEY, 1);
    const char *place = getenv("ONE_KEY");
    secrets_find(path, &secrets);
    secrets_hide(&secrets);
    secrets_forget(&secrets, true);
    CHECK(getenv("ONE_KEY") == place && place[0] == '\0');
    for (int i = 0; i < secrets.count; i++) {
        CHECK(secrets.list[i].value == NULL);
    }
    secrets_show(&secrets);
    CHECK(strcmp(getenv("ONE_KEY"), "") == 0);
}

static void check_none(void)
{
    struct secrets secrets;
    struct rlimit before;
    struct rlimit after;
    clearenv();
    setenv("https_proxy", "http://host", 1);
    secrets_find(path, &secrets);
    CHECK(getrlimit(RLIMIT_CORE, &before) == 0);
    CHECK(!secrets_known(&secrets));
    secrets_hide(&secrets);
    secrets_show(&secrets);
    secrets_forget(&secrets, false);
    CHECK(getrlimit(RLIMIT_CORE, &after) == 0);
    CHECK(after.rlim_cur == before.rlim_cur && after.rlim_max == before.rlim_max);
}

static void test_values(void **state)
{
    (void)state;
    write_job("{\"researcher\": {\"key_env\": \"ONE_KEY\"}}");
    in_child(check_hidden);
    in_child(check_forgotten);
    in_child(check_none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_bad_jobs),
        cmocka_unit_test(test_values),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
