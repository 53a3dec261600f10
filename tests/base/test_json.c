/* JSON in the base room: parsing, readers, printing to the bit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/rng.h"

static enum status parse(const char *text, cJSON **out, struct error *err)
{
    return json_parse(text, strlen(text), "here", out, err);
}

static void test_json_refuses_what_is_not_one_value(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "{",
                                        "{}x",
                                        "[1,]",
                                        "{\"a\":1} {}",
                                        "nul",
                                        "\"\xff\"",
                                        "\"\xc0\x80\"",
                                        "\"\xed\xa0\x80\""};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cJSON *value = NULL;
        struct error err = {0};
        assert_int_equal(parse(wrong[i], &value, &err), STATUS_FORMAT);
        assert_memory_equal(err.message, "here", 4);
        assert_null(value);
    }
    cJSON *value = NULL;
    struct error err = {0};
    assert_int_equal(parse("{\n \"a\": [1,\n 2,}\n}", &value, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.message, "here:3:"));
    char deep[400];
    memset(deep, '[', 200);
    memset(deep + 200, ']', 200);
    assert_int_equal(json_parse(deep, 400, "deep", &value, &err), STATUS_LIMIT);
    assert_int_equal(parse(" {\"a\": \"é\"} \n", &value, &err), STATUS_OK);
    cJSON_Delete(value);
}

static void test_json_reader_reports_every_mistake_with_its_pointer(void **state)
{
    (void)state;
    static const char *const colours[] = {"red", "green", NULL};
    cJSON *value = NULL;
    struct error err = {0};
    struct json_problems problems;
    struct json_reader reader;
    const char *text =
        "{\"n\": 1.5, \"big\": 99, \"x\": \"no\", \"b\": 1, \"s\": 3, \"c\": \"blue\", "
        "\"typo\": 1, \"_note\": 1, \"o\": [], \"good\": 7, \"nothing\": null}";
    assert_int_equal(parse(text, &value, &err), STATUS_OK);
    json_problems_init(&problems);
    json_reader_init(&reader, value, "/top", &problems);
    assert_int_equal(json_read_int(&reader, "n", 4, 0, 10), 4);
    assert_int_equal(json_read_int(&reader, "big", 5, 0, 10), 5);
    assert_true(json_read_number(&reader, "x", 0.5, 0, 1) == 0.5);
    assert_true(json_read_bool(&reader, "b", true));
    assert_string_equal(json_read_string(&reader, "s", "d"), "d");
    assert_int_equal(json_read_choice(&reader, "c", colours, 1), 1);
    assert_null(json_read_object(&reader, "o"));
    assert_int_equal(json_read_int(&reader, "good", 0, 0, 10), 7);
    assert_int_equal(json_read_int(&reader, "nothing", 3, 0, 10), 3);
    assert_false(json_require(&reader, "absent", "a thing"));
    json_reader_finish(&reader);
    assert_int_equal(problems.count, 9);
    static const char *const expected[] = {
        "/top/n: found 1.5",     "/top/big: found 99, allowed is a whole number from 0 to 10",
        "/top/x: found \"no\"",  "/top/b: found 1",
        "/top/s: found 3",       "/top/c: found \"blue\", allowed is one of \"red\" \"green\"",
        "/top/o: found []",      "/top/absent: missing",
        "/top/typo: unknown key"};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        assert_non_null(strstr(buffer_text(&problems.text), expected[i]));
    }
    assert_int_equal(json_problems_check(&problems, "job", &err), STATUS_INVALID);
    json_problems_fini(&problems);
    cJSON_Delete(value);
}

/* ---- printing ---- */

static void assert_line(const cJSON *value, const char *expected)
{
    struct buffer line;
    buffer_init(&line, 1 << 16);
    json_append_line(value, &line);
    assert_string_equal(buffer_text(&line), expected);
    buffer_fini(&line);
}

static void assert_number(double value, const char *expected)
{
    cJSON *number = cJSON_CreateNumber(value);
    assert_line(number, expected);
    cJSON_Delete(number);
}

static void test_json_lines(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":[1,-2,\"x\\\"\\\\\\n\\u0001/é\",{}],\"b\":null,\"\":true,"
                               "\"c\":[],\"d\":false}";
    cJSON *value = NULL;
    struct error err = {0};
    assert_int_equal(parse(text, &value, &err), STATUS_OK);
    assert_line(value, text);
    char *printed = json_print_line(value);
    assert_string_equal(printed, text);
    free(printed);
    cJSON_Delete(value);
    cJSON *raw = cJSON_CreateRaw("1, 2");
    assert_line(raw, "null");
    cJSON_Delete(raw);
}

static void test_json_numbers_are_exact(void **state)
{
    (void)state;
    assert_number(0.0, "0");
    assert_number(-0.0, "-0");
    assert_number(0.1, "0.1");
    assert_number(0.1 + 0.2, "0.30000000000000004");
    assert_number(1e-5, "1e-05");
    assert_number(-123456789012345.0, "-123456789012345");
    assert_number(0x1p53, "9007199254740992");
    assert_number(1e300, "1e+300");
    assert_number(NAN, "null");
    assert_number(INFINITY, "null");
    struct rng rng;
    rng_init(&rng, 1, 2);
    for (int i = 0; i < 10000; i++) {
        double value = ldexp(rng_normal(&rng), (int)rng_below(&rng, 120) - 60);
        cJSON *number = cJSON_CreateNumber(value);
        struct buffer line;
        buffer_init(&line, 1 << 16);
        json_append_line(number, &line);
        assert_true(strtod(buffer_text(&line), NULL) == value);
        buffer_fini(&line);
        cJSON_Delete(number);
    }
}

/* Whatever is quoted of a wrong text is whole, and nothing behind its end is read. */
static void test_json_quotes_whole_characters(void **state)
{
    (void)state;
    struct error err = {0};
    struct json_problems problems;
    struct json_reader reader;
    cJSON *object = NULL;
    char *text = malloc(60); /* no NUL at its end */
    memcpy(text, "{\"a\": \"", 7);
    for (size_t i = 7; i < 60; i++) {
        text[i] = "\xE2\x82\xAC"[(i - 7) % 3];
    }
    for (size_t length = 7; length < 60; length += 3) {
        assert_int_equal(json_parse(text, length, "t", &object, &err), STATUS_FORMAT);
        assert_true(json_utf8_valid(err.message, strlen(err.message)));
        assert_int_equal(json_parse(text + 7, length - 7, "t", &object, &err), STATUS_FORMAT);
        assert_true(json_utf8_valid(err.message, strlen(err.message)));
    }
    free(text);
    char list[] = "[\"......................................................"
                  "\u20AC\u20AC\u20AC\u20AC\u20AC\"]";
    for (int shift = 0; shift < 6; shift++) {
        memmove(list + 2, list + 3, strlen(list + 2));
        char whole[128];
        snprintf(whole, sizeof(whole), "{\"key\": %s}", list);
        json_problems_init(&problems);
        assert_int_equal(json_parse(whole, strlen(whole), "t", &object, &err), STATUS_OK);
        json_reader_init(&reader, object, "", &problems);
        assert_string_equal(json_read_string(&reader, "key", "none"), "none");
        assert_int_equal(problems.count, 1);
        assert_true(json_utf8_valid(buffer_text(&problems.text), problems.text.len_bytes));
        json_problems_fini(&problems);
        cJSON_Delete(object);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_refuses_what_is_not_one_value),
        cmocka_unit_test(test_json_reader_reports_every_mistake_with_its_pointer),
        cmocka_unit_test(test_json_lines),
        cmocka_unit_test(test_json_quotes_whole_characters),
        cmocka_unit_test(test_json_numbers_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
