/* What is made of a reply: the JSON in it, or a complaint that its model can act on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agents/reply.h"
#include "base/clock.h"
#include "base/mem.h"

static const char schema_text[] =
    "{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"goal\",\"configs\"],"
    "\"properties\":{\"goal\":{\"type\":\"string\",\"minLength\":2,\"maxLength\":20},"
    "\"share\":{\"type\":\"number\",\"minimum\":0,\"maximum\":1},"
    "\"sure\":{\"type\":\"boolean\"},"
    "\"kind\":{\"type\":\"string\",\"enum\":[\"more\",\"less\"]},"
    "\"targets\":{\"anyOf\":[{\"type\":\"string\",\"enum\":[\"all\"]},{\"type\":\"array\","
    "\"minItems\":1,\"items\":{\"type\":\"string\"}}]},"
    "\"configs\":{\"type\":\"array\",\"minItems\":1,\"maxItems\":3,\"items\":{\"type\":\"object\","
    "\"additionalProperties\":false,\"properties\":{\"epochs\":{\"type\":\"integer\",\"minimum\":1,"
    "\"maximum\":10}}}}}}";

static cJSON *schema;

static int set_up(void **state)
{
    (void)state;
    schema = cJSON_Parse(schema_text);
    return schema != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    cJSON_Delete(schema);
    return 0;
}

/* The goal of what was read, or what was complained about; both in one text of the caller's. */
static bool read_reply(const char *text, char *out, size_t out_bytes)
{
    struct json_problems problems;
    struct error err = {0};
    cJSON *value = NULL;
    json_problems_init(&problems);
    enum status status = reply_read(text, schema, &problems, &value, &err);
    bool good = status == STATUS_OK;
    if (good) {
        assert_int_equal(problems.count, 0);
        snprintf(out, out_bytes, "%s",
                 cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(value, "goal")));
    } else {
        assert_int_equal(status, STATUS_INVALID);
        assert_null(value);
        assert_true(problems.count > 0);
        snprintf(out, out_bytes, "%s", buffer_text(&problems.text));
    }
    cJSON_Delete(value);
    json_problems_fini(&problems);
    return good;
}

#define GOOD "{\"goal\":\"train longer\",\"configs\":[{\"epochs\":3},{}]}"

static const char *const good_replies[] = {
    GOOD,
    "\n\n  " GOOD "  \n",
    "Here is my plan:\n\n" GOOD "\n\nI hope this helps!",
    "```json\n" GOOD "\n```",
    "```\n" GOOD "\n```\nAs you see, {braces} come after.",
    "Sure.\n```json\n{\"goal\":\"draft\"}\n```\nOr better:\n```json\n" GOOD "\n```",
    "<think>{\"goal\":\"first thought\",\"configs\":[{}]} no, longer</think>" GOOD,
    "{\"goal\":\"first thought\",\"configs\":[{}]} no</think>\n" GOOD,
    "<thinking>\nlet me see { \" \n</thinking>\n" GOOD,
    "The format is {\"goal\":\"...\",\"configs\":[...]}.\n" GOOD,
    "Example: {\"goal\":\"an example\",\"configs\":[{}]}\nMine: " GOOD,
    GOOD "\nNote: {\"epochs\": 3} is the main change.",
    "An open { brace, and then\n" GOOD,
    "[" GOOD "]",
    "{\"goal\":\"train longer\",\"configs\":[{\"epochs\":3.0}],\"targets\":\"all\"}",
    "{\"goal\":\"train longer\",\"configs\":[{}],\"targets\":[\"q_proj\"],\"share\":1e-1}",
    "{\"plan\":" GOOD "}",
    "\xEF\xBB\xBF" GOOD,
};

static void test_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(good_replies) / sizeof(good_replies[0]); i++) {
        char found[4096];
        if (!read_reply(good_replies[i], found, sizeof(found))) {
            fail_msg("%s\n%s", good_replies[i], found);
        }
        assert_string_equal(found, "train longer");
    }
    char found[4096];
    assert_true(read_reply("{\"goal\":\"a </think> b ```\",\"configs\":[{}]}", found, 4096));
    assert_string_equal(found, "a </think> b ```");
}

/* A reply, and what the complaint must say. */
static const struct {
    const char *reply, *complaint;
} bad_replies[] = {
    {"", "/: the reply is empty"},
    {NULL, "/: the reply is empty"},
    {" \n\t ", "/: the reply is empty"},
    {"I cannot help with that.", "/: the reply holds no JSON object"},
    {"null", "/: found null, allowed is an object"},
    {"42", "/: found 42, allowed is an object"},
    {"\"goal\"", "/: found \"goal\", allowed is an object"},
    {"[]", "/: found a list, allowed is an object"},
    {"{}", "/goal: it is missing"},
    {"{}", "/configs: it is missing"},
    {"<think>I wonder", "/: the reply holds thinking and no answer"},
    {"<think>" GOOD, "/: the reply holds thinking and no answer"},
    {"<think>" GOOD "</think>", "/: the reply holds thinking and no answer"},
    {"{\"goal\":\"train longer\",\"configs\":[{\"epochs\":3},{", "ends inside a JSON object"},
    {"{\"goal\":\"train lon", "ends inside a JSON object"},
    {"```json\n{\"goal\":\"train longer\",\"configs\":[{\"epochs\":3}", "ends inside"},
    {"{\"goal\":\"train longer\",\"configs\":[{\"epochs\":3,}]}", "not valid JSON near"},
    {"{'goal':'train longer','configs':[{}]}", "not valid JSON near"},
    {"{goal:\"train longer\",configs:[{}]}", "not valid JSON near"},
    {"{\"goal\":\"train longer\" \"configs\":[{}]}", "not valid JSON near"},
    {"{\"goal\":\"train longer\",\"configs\":[{}] // done\n}", "not valid JSON near"},
    {"{\"goal\":\"train longer\",\"configs\":[{\"epochs\":NaN}]}", "not valid JSON near"},
    {"{\"goal\":\"train longer\",\"configs\":[{\"epochs\":Infinity}]}", "not valid JSON near"},
    {"{\"goal\":\"train longer\",\"configs\":[{\"epochs\":1e999}]}",
     "/configs/0/epochs: found inf, allowed is a whole number"},
    {"{\"goal\":\"train longer\",\"configs\":[{\"epochs\":1e300}]}",
     "/configs/0/epochs: found 1e+300, allowed is a whole number"},
    {"{\"goal\":\"train longer\",\"configs\":[{\"epochs\":2.5}]}",
     "/configs/0/epochs: found 2.5, allowed is a whole number"},
    {"{\"goal\":\"train longer\",\"configs\":[{},{\"epochs\":1000}]}",
     "/configs/1/epochs: found 1000, allowed is 1 to 10"},
    {"{\"goal\":\"train longer\",\"configs\":[{\"epochs\":-3}]}",
     "/configs/0/epochs: found -3, allowed is 1 to 10"},
    {"{\"goal\":\"train longer\",\"configs\":[{\"epochs\":\"3\"}]}",
     "/configs/0/epochs: found \"3\", allowed is a whole number"},
    {"{\"goal\":\"train longer\",\"configs\":[{\"epochs\":null}]}",
     "/configs/0/epochs: found null, allowed is a whole number"},
    {"{\"goal\":\"train longer\",\"configs\":[{\"rounds\":1000}]}",
     "/configs/0/rounds: there is no such key, allowed are epochs"},
    {"{\"goal\":\"train longer\",\"configs\":{\"epochs\":3}}",
     "/configs: found an object, allowed is a list"},
    {"{\"goal\":\"train longer\",\"configs\":[]}", "/configs: found 0 items, allowed are 1 to 3"},
    {"{\"goal\":\"train longer\",\"configs\":[{},{},{},{}]}", "/configs: found 4 items"},
    {"{\"goal\":\"train longer\",\"configs\":[[]]}", "/configs/0: found a list"},
    {"{\"goal\":7,\"configs\":[{}]}", "/goal: found 7, allowed is a text"},
    {"{\"goal\":\"x\",\"configs\":[{}]}", "/goal: found 1 characters, allowed are 2 to 20"},
    {"{\"goal\":\"öööööööööööööööööööööööööööööööööööööööööööööö\",\"configs\":[{}]}",
     "/goal: found 46 characters"},
    {"{\"goal\":\"train longer\",\"configs\":[{}],\"limits\":{\"rounds\":1000}}",
     "/limits: there is no such key, allowed are goal, share, sure, kind"},
    {"{\"goal\":\"a\",\"goal\":[],\"configs\":[{}]}", "/goal: it is there twice"},
    {"{\"goal\":\"train longer\",\"configs\":[{}],\"share\":1.01}",
     "/share: found 1.01, allowed is 0 to 1"},
    {"{\"goal\":\"train longer\",\"configs\":[{}],\"sure\":\"yes\"}",
     "/sure: found \"yes\", allowed is true or false"},
    {"{\"goal\":\"train longer\",\"configs\":[{}],\"kind\":\"both\"}",
     "/kind: found \"both\", allowed is one of \"more\" \"less\""},
    {"{\"goal\":\"train longer\",\"configs\":[{}],\"targets\":\"some\"}",
     "/targets: found \"some\", allowed is one of \"all\""},
    {"{\"goal\":\"train longer\",\"configs\":[{}],\"targets\":[]}", "/targets: found 0 items"},
    {"{\"goal\":\"train longer\",\"configs\":[{}],\"targets\":[1]}", "/targets"},
    {"{\"goal\":\"train longer\",\"configs\":[{}]", "ends inside a JSON object"},
    {"{\"Goal\":\"train longer\",\"configs\":[{}]}", "/Goal: there is no such key"},
    {"{\"goal\":\"\\ud800\",\"configs\":[{}]}", "not valid JSON near"},
    {"{\"goal\":\"bad \xFF\xFE bytes\",\"configs\":[{}]}", "not valid UTF-8"},
    {"Error: 503 Service Unavailable <html><body>{}</body></html>", "/"},
};

static void test_bad(void **state)
{
    (void)state;
    size_t count = sizeof(bad_replies) / sizeof(bad_replies[0]);
    assert_true(count >= 40);
    for (size_t i = 0; i < count; i++) {
        char found[8192];
        const char *reply = bad_replies[i].reply;
        if (read_reply(reply, found, sizeof(found))) {
            fail_msg("accepted: %s", reply);
        }
        if (strstr(found, bad_replies[i].complaint) == NULL) {
            fail_msg("%s\nwanted: %s\nfound: %s", reply != NULL ? reply : "NULL",
                     bad_replies[i].complaint, found);
        }
    }
}

/* A text of `count` times `unit`, between two others. */
static char *repeated(const char *before, const char *unit, size_t count, const char *after)
{
    size_t bytes = strlen(before) + count * strlen(unit) + strlen(after) + 1;
    char *text = mem_calloc(bytes, 1);
    assert_non_null(text);
    char *at = stpcpy(text, before);
    for (size_t i = 0; i < count; i++) {
        at = stpcpy(at, unit);
    }
    stpcpy(at, after);
    return text;
}

/* Made to exhaust whoever reads them: time, stack or memory. */
static void test_huge(void **state)
{
    (void)state;
    const struct {
        const char *before, *unit, *after;
        size_t count;
    } replies[] = {
        {"", "{", "", 1 << 20},
        {"", "[", "", 1 << 20},
        {"", "{\"a\":", "", 200000},
        {"{\"goal\":\"", "\\\"", "\",\"configs\":[{}]}", 500000},
        {"{\"goal\":\"train longer\",\"configs\":[", "{\"epochs\":99},", "{}]}", 70000},
        {"{\"goal\":\"train longer\",\"configs\":[{", "\"x\":1,", "\"epochs\":1}]}", 150000},
        {"", "{} ", "", 300000},
        {"", "{\"goal\":\"train longer\"} ", "", 40000},
        {"", "```", "", 300000},
        {"", "<think>", "", 100000},
        {"", "</think>", "", 100000},
        {"", "\"{", "", 400000},
        {"\"", "{\\", "", 400000},
    };
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        char found[256];
        char *text =
            repeated(replies[i].before, replies[i].unit, replies[i].count, replies[i].after);
        double began_s = clock_monotonic_s();
        bool good = read_reply(text, found, sizeof(found));
        double took_s = clock_monotonic_s() - began_s;
        free(text);
        assert_false(good);
        if (took_s > 60.0) {
            fail_msg("reply %zu took %.1f s", i, took_s);
        }
    }
}

/* Complaints are shown to a model: they end at some point. */
static void test_complaints_end(void **state)
{
    (void)state;
    char *text =
        repeated("{\"goal\":\"train longer\",\"configs\":[{}],", "\"q\":0,", 1000, "\"r\":0}");
    struct json_problems problems;
    struct error err = {0};
    cJSON *value = NULL;
    json_problems_init(&problems);
    assert_int_equal(reply_read(text, schema, &problems, &value, &err), STATUS_INVALID);
    assert_in_range(problems.count, 30, 60);
    assert_true(problems.text.len_bytes < 16 * 1024);
    json_problems_fini(&problems);
    free(text);
}

static void test_foreign_schema(void **state)
{
    (void)state;
    static const char *const schemas[] = {
        "{\"type\":\"object\",\"patternProperties\":{}}",
        "{\"type\":\"date\"}",
        "{\"type\":\"object\",\"properties\":{\"a\":{\"format\":\"uri\"}}}",
        "{\"type\":\"object\",\"properties\":{\"a\":true}}",
        "{\"anyOf\":[{\"type\":\"object\",\"not\":{}}]}",
    };
    cJSON *value = cJSON_Parse("{\"a\":1}");
    for (size_t i = 0; i < sizeof(schemas) / sizeof(schemas[0]); i++) {
        struct json_problems problems;
        struct error err = {0};
        cJSON *other = cJSON_Parse(schemas[i]);
        assert_non_null(other);
        json_problems_init(&problems);
        assert_int_equal(reply_check_schema(value, other, &problems, &err), STATUS_INTERNAL);
        json_problems_fini(&problems);
        cJSON_Delete(other);
    }
    cJSON_Delete(value);
}

/* Each allocation fails in turn: an error, or a complaint, and nothing is lost. */
static void test_no_memory(void **state)
{
    (void)state;
    for (int64_t n = 1; n < 40; n++) {
        struct json_problems problems;
        struct error err = {0};
        cJSON *value = NULL;
        json_problems_init(&problems);
        mem_fail_nth(n);
        enum status status =
            reply_read("x {\"goal\":3} {\"goal\":\"train\"}", schema, &problems, &value, &err);
        mem_fail_nth(0);
        assert_int_not_equal(status, STATUS_OK);
        assert_null(value);
        json_problems_fini(&problems);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),           cmocka_unit_test(test_bad),
        cmocka_unit_test(test_huge),           cmocka_unit_test(test_complaints_end),
        cmocka_unit_test(test_foreign_schema), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
