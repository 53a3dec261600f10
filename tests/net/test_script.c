/* What test_lm_server reads: shell tests rely on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "net/script.h"

struct fixture {
    struct script script;
    char folder[64], path[128];
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    snprintf(fixture->folder, sizeof(fixture->folder), "/tmp/trex_script_XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    fixture->script.replies = fixture->folder;
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", fixture->folder);
    assert_int_equal(system(command), 0);
    free(fixture);
    return 0;
}

static const char *put_file(struct fixture *fixture, const char *name, const char *text)
{
    struct error err = {0};
    snprintf(fixture->path, sizeof(fixture->path), "%s/%s", fixture->folder, name);
    assert_int_equal(file_write(fixture->path, text, strlen(text), &err), STATUS_OK);
    return fixture->path;
}

static void test_faults(void **state)
{
    struct fixture *fixture = *state;
    struct script *script = &fixture->script;
    struct error err = {0};
    const char *path = put_file(fixture, "faults",
                                "# a comment\n\nplan:2 say=a text, with = and  spaces\r\n"
                                "plan:4-5 cut\nplan:7- stall=12\n3 http=503,7\nbrief:* empty\n");
    assert_int_equal(script_read_faults(script, path, &err), STATUS_OK);
    assert_null(script_find_fault(script, "plan", 1, 1));
    assert_string_equal(script_find_fault(script, "plan", 2, 2)->argument,
                        "a text, with = and  spaces");
    assert_string_equal(script_find_fault(script, "plan", 1, 3)->what, "http");
    assert_string_equal(script_find_fault(script, "plan", 5, 9)->what, "cut");
    assert_null(script_find_fault(script, "plan", 6, 9));
    assert_string_equal(script_find_fault(script, "plan", 700, 9)->argument, "12");
    assert_string_equal(script_find_fault(script, "brief", 9, 99)->what, "empty");
    assert_null(script_find_fault(script, "data", 2, 99));
    static const char *const wrong[] = {"plan cut", "3", "3 explode", "0 cut", "3-x cut", ": cut"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        path = put_file(fixture, "faults", wrong[i]);
        assert_int_equal(script_read_faults(script, path, &err), STATUS_INVALID);
    }
}

static void test_names(void **state)
{
    struct fixture *fixture = *state;
    static const char *const requests[][2] = {
        {"{\"response_format\": {\"json_schema\": {\"name\": \"plan\"}}}", "plan"},
        {"{\"messages\": [{\"role\": \"system\", \"content\": \"You do.\\nTask: repair\\nNow.\"}]}",
         "repair"},
        {"{\"messages\": [{\"role\": \"system\", \"content\": \"My Task: x\"}]}", ""},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"Task: x\"}]}", ""},
        {"{\"response_format\": {\"json_schema\": {\"name\": \"../../etc\"}}}", ""},
    };
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        char name[64];
        cJSON *request = cJSON_Parse(requests[i][0]);
        script_name(request, name);
        assert_string_equal(name, requests[i][1]);
        cJSON_Delete(request);
    }
    assert_int_equal(script_count(&fixture->script, "plan"), 1);
    assert_int_equal(script_count(&fixture->script, "brief"), 1);
    assert_int_equal(script_count(&fixture->script, "plan"), 2);
}

static void expect_reply(struct fixture *fixture, const char *name, int64_t nth,
                         const char *expected)
{
    cJSON *request = cJSON_Parse(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"below n0007\\nscore 0.5\"}],"
        " \"response_format\": {\"json_schema\": {\"schema\": {\"type\": \"object\","
        " \"properties\": {\"a\": {\"enum\": [\"x\", \"y\"]}, \"b\": {\"type\": \"array\","
        " \"minItems\": 2, \"items\": {\"type\": \"integer\", \"minimum\": 3}}}}}}}");
    char *reply = script_reply(&fixture->script, request, name, nth);
    assert_non_null(reply);
    assert_string_equal(reply, expected);
    free(reply);
    cJSON_Delete(request);
}

static void test_replies(void **state)
{
    struct fixture *fixture = *state;
    put_file(fixture, "plan.json", "{{n}} {{pick a|b}} {{find (n[0-9]+)}} {{find no}} {{other}}");
    put_file(fixture, "plan.2.json", "the second");
    expect_reply(fixture, "plan", 1, "1 a n0007  {{other}}");
    expect_reply(fixture, "plan", 2, "the second");
    expect_reply(fixture, "plan", 4, "4 b n0007  {{other}}");
    expect_reply(fixture, "brief", 1, "{\"a\":\"x\",\"b\":[3,3]}");
    char all[192];
    snprintf(all, sizeof(all), "%s",
             put_file(fixture, "all.json", "{\"plan\": [{\"k\": 1}, \"two {{n}}\"]}"));
    fixture->script.replies = all;
    expect_reply(fixture, "plan", 1, "{\"k\":1}");
    expect_reply(fixture, "plan", 5, "two 5");
    expect_reply(fixture, "brief", 1, "{\"a\":\"x\",\"b\":[3,3]}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_faults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_replies, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
