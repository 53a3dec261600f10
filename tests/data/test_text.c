/* Templates, fields, folding, counting, and regular expressions with their limits. */
#include "data/pattern.h"
#include "data/text.h"
#include "fixture.h"

static enum status look_up(void *context, const char *name, struct buffer *out, bool *found,
                           struct error *err)
{
    return text_append_field(context, name, "; ", out, found, err);
}

static void expect_fill(const char *row, const char *template_text, const char *expected)
{
    cJSON *object = fixture_json(row);
    struct buffer out;
    buffer_init(&out, 4096);
    char missing[TEXT_NAME_BYTES] = "";
    struct error err = {0};
    enum status status = text_template_fill(template_text, look_up, object, &out, missing, &err);
    if (expected != NULL) {
        assert_int_equal(status, STATUS_OK);
        assert_string_equal(buffer_text(&out), expected);
    } else {
        assert_int_equal(status, STATUS_NOT_FOUND);
        assert_string_not_equal(missing, "");
    }
    buffer_fini(&out);
    cJSON_Delete(object);
}

static void test_template_fill(void **state)
{
    (void)state;
    expect_fill("{'a': 'x'}", "", "");
    expect_fill("{'a': 'x'}", "no fields", "no fields");
    expect_fill("{'a': 'x'}", "{a}{a} =>", "xx =>");
    expect_fill("{'a': '{b}', 'b': 'never'}", "{a}", "{b}"); /* values are not templates */
    expect_fill("{'a': 'x'}", "{{a}} {{{a}}}", "{a} {x}");
    expect_fill("{'a': 3, 'b': true, 'c': 2.5, 'd': {'k': 1}}", "{a} {b} {c} {d}",
                "3 true 2.5 {\"k\":1}");
    expect_fill("{'a': ['x', 'y', 3]}", "{a}", "x; y; 3");
    expect_fill("{'a': []}", "[{a}]", "[]");
    expect_fill("{'a': {'b': {'c': 'deep'}}}", "{a.b.c}", "deep");
    expect_fill("{'a.b': 'plain', 'a': {'b': 'deep'}}", "{a.b}", "plain");
    expect_fill("{'a': 'x'}", "{b}", NULL);
    expect_fill("{'a': null}", "{a}", NULL);
    expect_fill("{'a': 'x'}", "{a.b}", NULL);
    expect_fill(
        "{'messages': [{'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': 'yo'}]}",
        "{prompt}|{answer}", "hi|yo");
    expect_fill("{'messages': [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': "
                "'b'}, {'role': "
                "'user', 'content': 'c'}]}",
                "{prompt}", "a\nb\nc");
    expect_fill("{'messages': [{'role': 'user', 'content': 'a'}]}", "{answer}", NULL);
    expect_fill("{'messages': 'no list'}", "{prompt}", NULL);
    expect_fill("{'messages': [3, null, {}]}", "{prompt}", NULL);
}

static void expect_template_problems(const char *text, int expected)
{
    struct json_problems problems;
    json_problems_init(&problems);
    text_template_check(text, "/t", &problems);
    if (problems.count != expected) {
        fail_msg("%s: %d problems: %s", text, problems.count, buffer_text(&problems.text));
    }
    json_problems_fini(&problems);
    if (expected > 0) {
        struct buffer out;
        buffer_init(&out, 4096);
        char missing[TEXT_NAME_BYTES] = "";
        struct error err = {0};
        cJSON *object = fixture_json("{'a': 'x'}");
        assert_int_equal(text_template_fill(text, look_up, object, &out, missing, &err),
                         STATUS_INVALID);
        cJSON_Delete(object);
        buffer_fini(&out);
    }
}

static void test_template_check(void **state)
{
    (void)state;
    expect_template_problems("{a} {{ }} {b_1-c.d}", 0);
    expect_template_problems("a {", 1);
    expect_template_problems("{", 1);
    expect_template_problems("}", 1);
    expect_template_problems("{}", 2);
    expect_template_problems("{a b}", 2);
    expect_template_problems("{a", 1);
    expect_template_problems("{{a}", 1);
    char name[400];
    memset(name, 'n', sizeof(name));
    name[0] = '{';
    name[sizeof(name) - 2] = '}';
    name[sizeof(name) - 1] = '\0';
    expect_template_problems(name, 2);
    assert_true(text_template_uses("x {answer}", "answer"));
    assert_false(text_template_uses("x {{answer}} {answers} {answe}", "answer"));
}

static void test_template_size_is_bounded(void **state)
{
    (void)state;
    cJSON *object = fixture_json("{'a': 'xxxxxxxxxx'}");
    struct buffer out;
    buffer_init(&out, 15);
    char missing[TEXT_NAME_BYTES] = "";
    struct error err = {0};
    assert_int_equal(text_template_fill("{a}{a}", look_up, object, &out, missing, &err),
                     STATUS_LIMIT);
    buffer_fini(&out);
    cJSON_Delete(object);
}

static void test_missing_field_message(void **state)
{
    (void)state;
    struct error err = {0};
    cJSON *object = fixture_json("{'id': 1, 'prompt': 2}");
    assert_int_equal(text_fail_missing(object, "answer", &err), STATUS_INVALID);
    assert_string_equal(err.message, "row has no field \"answer\", has: id, prompt");
    for (int i = 0; i < 200; i++) {
        char key[32];
        snprintf(key, sizeof(key), "field%d", i);
        cJSON_AddNumberToObject(object, key, i);
    }
    text_fail_missing(object, "answer", &err);
    assert_non_null(strstr(err.message, ", ..."));
    cJSON_Delete(object);
    object = cJSON_CreateObject();
    text_fail_missing(object, "answer", &err);
    assert_non_null(strstr(err.message, "has: none"));
    cJSON_Delete(object);
}

static void expect_folded(const char *text, const char *expected)
{
    struct buffer out;
    buffer_init(&out, 4096);
    struct error err = {0};
    assert_int_equal(text_fold(text, strlen(text), &out, &err), STATUS_OK);
    assert_string_equal(buffer_text(&out), expected);
    buffer_fini(&out);
}

static void test_fold(void **state)
{
    (void)state;
    expect_folded("", "");
    expect_folded(" \t\r\n", "");
    expect_folded("  Hello,\n\tWORLD ", "hello, world");
    expect_folded("\xC3\x89t\xC3\xA9", "\xC3\xA9t\xC3\xA9");
    expect_folded("E\xCC\x81t\xC3\xA9", "\xC3\xA9t\xC3\xA9"); /* a combining accent */
    expect_folded("a\xC2\xA0\xE3\x80\x80"
                  "b",
                  "a b");                            /* no-break and ideographic space */
    expect_folded("\xEF\xBC\xA1\xEF\xBC\x9A", "a:"); /* full width */
    expect_folded("stra\xC3\x9F"
                  "e",
                  "strasse");
}

static void test_counts(void **state)
{
    (void)state;
    assert_int_equal(text_count_characters("h\xC3\xA9\xE4\xBD\xA0\xF0\x9F\x98\x80", 10), 4);
    assert_int_equal(text_count_words("", 0), 0);
    assert_int_equal(text_count_words("  one two\n three.", 17), 3);
    static const char mixed[] = "abc\xE4\xBD\xA0\xE5\xA5\xBD"
                                "def \xE3\x80\x80x";
    assert_int_equal(text_count_words(mixed, sizeof(mixed) - 1), 5);
    static const char cut[] = "a\xE4\xBD"; /* not UTF-8: still within bounds */
    assert_int_equal(text_count_words(cut, sizeof(cut) - 1), 2);
}

static void expect_match(const char *expression, const char *text, const char *expected)
{
    struct pattern *pattern = NULL;
    struct error err = {0};
    assert_int_equal(pattern_compile(expression, false, &pattern, &err), STATUS_OK);
    bool found = false;
    struct pattern_span span = {0, 0};
    assert_int_equal(pattern_search(pattern, text, strlen(text), 1, &found, &span, &err),
                     STATUS_OK);
    assert_int_equal(found, expected != NULL);
    if (expected != NULL) {
        assert_int_equal(span.length, strlen(expected));
        assert_memory_equal(text + span.start, expected, span.length);
    }
    pattern_destroy(pattern);
}

static void test_pattern_search(void **state)
{
    (void)state;
    expect_match("Sentence: (.*)", "Question?\nSentence: good\nmore", "good");
    expect_match("(?s)Sentence: (.*)", "Sentence: good\nmore", "good\nmore");
    expect_match("Sentence: (.*)", "nothing", NULL);
    expect_match("x(y)?", "x", ""); /* a group that took no part */
    expect_match("x", "x", "");     /* a group that is not there */
    expect_match("^(.)$", "\xE4\xBD\xA0", "\xE4\xBD\xA0");
    expect_match("(\\w+)", "\xC3\xA9t\xC3\xA9 ", "\xC3\xA9t\xC3\xA9");
}

static void test_pattern_mistakes(void **state)
{
    (void)state;
    struct pattern *pattern = NULL;
    struct error err = {0};
    assert_int_equal(pattern_compile("a(b", false, &pattern, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "wrong at byte 3"));
    assert_int_equal(pattern_compile("a\\C", false, &pattern, &err), STATUS_INVALID);
    assert_int_equal(pattern_compile("\xFF", false, &pattern, &err), STATUS_INVALID);
    char *longer = mem_calloc(PATTERN_MAX_BYTES + 2, 1);
    assert_non_null(longer);
    memset(longer, 'a', PATTERN_MAX_BYTES + 1);
    assert_int_equal(pattern_compile(longer, false, &pattern, &err), STATUS_INVALID);
    free(longer);
    assert_null(pattern);

    struct json_problems problems;
    json_problems_init(&problems);
    pattern_check("[a-", false, 0, "/p", &problems);
    pattern_check("abc", false, 1, "/p", &problems);
    pattern_check("a(b)c", false, 1, "/p", &problems);
    assert_int_equal(problems.count, 2);
    assert_non_null(strstr(buffer_text(&problems.text), "at byte 3"));
    assert_non_null(strstr(buffer_text(&problems.text), "has 0 groups"));
    json_problems_fini(&problems);
}

/* A pattern that would run for longer than the universe is old. */
static void test_pattern_explodes(void **state)
{
    (void)state;
    char text[64];
    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = '!';
    struct pattern *pattern = NULL;
    struct error err = {0};
    assert_int_equal(pattern_compile("^(a+)+$", false, &pattern, &err), STATUS_OK);
    bool found = false;
    assert_int_equal(pattern_search(pattern, text, sizeof(text), 0, &found, NULL, &err),
                     STATUS_LIMIT);
    assert_non_null(strstr(err.message, "match limit"));
    pattern_destroy(pattern);
}

/* A match that needs more than the small stack of JIT code. */
static void test_pattern_long_text(void **state)
{
    (void)state;
    enum { LENGTH = 20000 };
    char *text = mem_calloc(LENGTH + 1, 1);
    assert_non_null(text);
    memset(text, 'a', LENGTH);
    struct pattern *pattern = NULL;
    struct error err = {0};
    assert_int_equal(pattern_compile("^(?:a|b(c))*(d)?$", false, &pattern, &err), STATUS_OK);
    bool found = false;
    enum status status = pattern_search(pattern, text, LENGTH, 0, &found, NULL, &err);
    assert_true((status == STATUS_OK && found) || status == STATUS_LIMIT);
    pattern_destroy(pattern);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_template_fill),
        cmocka_unit_test(test_template_check),
        cmocka_unit_test(test_template_size_is_bounded),
        cmocka_unit_test(test_missing_field_message),
        cmocka_unit_test(test_fold),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_pattern_search),
        cmocka_unit_test(test_pattern_mistakes),
        cmocka_unit_test(test_pattern_explodes),
        cmocka_unit_test(test_pattern_long_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
