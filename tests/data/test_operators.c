/* Every operator: what it does, what it refuses, and that it is deterministic. */
#include "fixture.h"

static int set_up(void **state)
{
    *state = fixture_folder();
    return 0;
}

static int tear_down(void **state)
{
    fixture_remove(*state);
    return 0;
}

struct outcome {
    enum status status;
    struct error err;
    struct recipe_report report;
    struct dataset rows;
    struct buffer text; /* rows, or empty on failure */
};

static void outcome_fini(struct outcome *outcome)
{
    dataset_fini(&outcome->rows);
    buffer_fini(&outcome->text);
}

static int64_t text_max_bytes; /* of the context; a test that sets it puts it back to 0 */

static struct outcome run_seeded(const char *folder, const char *task_keys, const char *recipe_text,
                                 const char *train, const char *held_out, uint64_t seed)
{
    struct task task;
    struct dataset train_rows;
    struct dataset held_out_rows;
    fixture_task(folder, task_keys, &task);
    fixture_rows(&train_rows, train);
    fixture_rows(&held_out_rows, held_out);
    cJSON *recipe = fixture_json(recipe_text);
    struct recipe_context context = {.task = &task,
                                     .train = &train_rows,
                                     .validation = &held_out_rows,
                                     .folder = folder,
                                     .text_max_bytes = text_max_bytes,
                                     .seed = seed};
    struct outcome outcome = {0};
    struct buffer before;
    struct buffer after;
    fixture_print(&train_rows, &before);
    outcome.status = recipe_run(recipe, &context, &outcome.rows, &outcome.report, &outcome.err);
    fixture_print(&train_rows, &after);
    assert_string_equal(buffer_text(&before), buffer_text(&after)); /* never changed */
    buffer_fini(&before);
    buffer_fini(&after);
    cJSON_Delete(recipe);
    dataset_fini(&train_rows);
    dataset_fini(&held_out_rows);
    task_fini(&task);
    fixture_print(&outcome.rows,
                  &outcome.text); /* the result does not depend on its inputs' life */
    return outcome;
}

static void expect_rows(const char *folder, const char *recipe, const char *train,
                        const char *expected)
{
    struct outcome outcome = run_seeded(folder, "", recipe, train, "", 1);
    if (outcome.status != STATUS_OK || strcmp(buffer_text(&outcome.text), expected) != 0) {
        fail_msg("%s\n%s%s\nexpected\n%s", recipe, outcome.err.message, buffer_text(&outcome.text),
                 expected);
    }
    outcome_fini(&outcome);
}

static void expect_failure(const char *folder, const char *recipe, const char *train,
                           enum status expected, const char *part)
{
    struct outcome outcome = run_seeded(folder, "", recipe, train, "", 1);
    if (outcome.status != expected || strstr(outcome.err.message, part) == NULL) {
        fail_msg("%s\n%s: %s\nexpected %s: %s", recipe, status_name(outcome.status),
                 outcome.err.message, status_name(expected), part);
    }
    outcome_fini(&outcome);
}

/* A mistake that recipe_check finds, and recipe_run refuses to start on. */
static void expect_mistake(const char *recipe_text, const char *part)
{
    cJSON *recipe = fixture_json(recipe_text);
    struct json_problems problems;
    json_problems_init(&problems);
    recipe_check(recipe, "/recipe", &problems);
    if (problems.count == 0 || strstr(buffer_text(&problems.text), part) == NULL) {
        fail_msg("%s\nfound: %s\nexpected: %s", recipe_text, buffer_text(&problems.text), part);
    }
    json_problems_fini(&problems);
    cJSON_Delete(recipe);
}

#define ROW(p, a) "{\"prompt\":\"" p "\",\"answer\":\"" a "\"}\n"
#define THREE ROW("one", "x") ROW("two", "y") ROW("three", "x")

/* `count` rows "p<i>" whose answers go round "a", "b", ... */
static char *many_rows(int count, int classes)
{
    struct buffer text;
    buffer_init(&text, 1 << 24);
    for (int i = 0; i < count; i++) {
        buffer_printf(&text, "{'prompt': 'p%d', 'answer': '%c'}\n", i, 'a' + i % classes);
    }
    return buffer_take(&text);
}

static int count_of(const char *text, const char *part)
{
    int count = 0;
    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part)) {
        count++;
    }
    return count;
}

static void test_load(void **state)
{
    const char *folder = *state;
    fixture_write(folder, "more.jsonl", ROW("four", "z") ROW("five", "z"));
    expect_rows(folder, "[{'op': 'load', 'path': 'more.jsonl'}]", ROW("one", "x"),
                ROW("one", "x") ROW("four", "z") ROW("five", "z"));
    struct outcome outcome =
        run_seeded(folder, "", "[{'op': 'load', 'path': 'more.jsonl', 'weight': 2.5}]",
                   ROW("one", "x"), "", 1);
    assert_int_equal(outcome.rows.count, 1 + 5);
    assert_string_equal(outcome.rows.sources[outcome.rows.rows[5].source],
                        fixture_path(folder, "more.jsonl"));
    assert_true(count_of(buffer_text(&outcome.text), "four") >= 2);
    assert_true(count_of(buffer_text(&outcome.text), "five") >= 2);
    outcome_fini(&outcome);
    outcome = run_seeded(folder, "", "[{'op': 'load', 'path': 'more.jsonl', 'limit': 1}]",
                         ROW("one", "x"), "", 1);
    assert_int_equal(outcome.rows.count, 2);
    outcome_fini(&outcome);
    expect_failure(folder, "[{'op': 'load', 'path': 'none.jsonl'}]", THREE, STATUS_NOT_FOUND,
                   "recipe step 1 (load)");
    expect_failure(folder, "[{'op': 'load', 'path': 'dev.jsonl'}]", THREE, STATUS_INVALID,
                   "is the task's validation split");
    assert_int_equal(symlink("dev.jsonl", fixture_path(folder, "alias.jsonl")), 0);
    expect_failure(folder, "[{'op': 'load', 'path': 'alias.jsonl'}]", THREE, STATUS_INVALID,
                   "must not train");
    fixture_write(folder, "bad.jsonl", "{\"prompt\": 1}\n{]\n");
    expect_failure(folder, "[{'op': 'shuffle'}, {'op': 'load', 'path': 'bad.jsonl'}]", THREE,
                   STATUS_FORMAT, "recipe step 2 (load)");
    expect_mistake("[{'op': 'load'}]", "/recipe/0/path: missing");
    expect_mistake("[{'op': 'load', 'path': 'x', 'weight': -1}]", "/recipe/0/weight");
    expect_mistake("[{'op': 'load', 'path': 'x', 'file': 'y'}]", "/recipe/0/file: unknown key");
}

static void test_map(void **state)
{
    const char *folder = *state;
    static const char *const raw =
        "{'question': 'q', 'options': ['a', 'b'], 'label': 3, 'junk': {'x': 'deep'}}";
    expect_rows(
        folder,
        "[{'op': 'map', 'rename': {'label': 'answer', 'none': 'other'}, 'set': {'prompt': "
        "'{question}\\n{options} {junk.x} {{}}', 'choices': ['3']}, 'drop': ['junk', 'options', "
        "'absent']}]",
        raw,
        "{\"question\":\"q\",\"answer\":3,\"prompt\":\"q\\na; b deep {}\",\"choices\":[\"3\"]}\n");
    /* Templates see the row as it was before any of them. */
    expect_rows(folder, "[{'op': 'map', 'set': {'prompt': '{answer}', 'answer': '{prompt}'}}]",
                ROW("p", "a"), ROW("a", "p"));
    expect_failure(folder, "[{'op': 'map', 'set': {'prompt': '{none}'}}]", THREE, STATUS_INVALID,
                   "rows.jsonl:1: row has no field \"none\", has: prompt, answer");
    expect_rows(folder, "[{'op': 'map', 'set': {'prompt': '{prompt}{x}'}, 'missing': 'empty'}]",
                ROW("p", "a"), ROW("p", "a"));
    expect_rows(folder, "[{'op': 'map', 'set': {'prompt': '{x}'}, 'missing': 'drop'}]",
                ROW("p", "a") "{'prompt': 'q', 'answer': 'b', 'x': 'z'}",
                "{\"prompt\":\"z\",\"answer\":\"b\",\"x\":\"z\"}\n");
    expect_mistake("[{'op': 'map'}]", "map does nothing");
    expect_mistake("[{'op': 'map', 'set': {'a': '{b'}}]", "/recipe/0/set/a: found");
    expect_mistake("[{'op': 'map', 'rename': {'a': 3}}]", "/recipe/0/rename");
    expect_mistake("[{'op': 'map', 'drop': [3]}]", "/recipe/0/drop");
    expect_mistake("[{'op': 'map', 'drop': 'a'}]", "/recipe/0/drop");
    expect_mistake("[{'op': 'map', 'drop': ['a'], 'missing': 'what'}]", "/recipe/0/missing");
}

/* A row that stands there twice: changing one entry must not change the other. */
static void test_map_after_repeat(void **state)
{
    expect_rows(*state,
                "[{'op': 'repeat', 'times': 2}, {'op': 'map', 'set': {'prompt': '{prompt}!'}}]",
                ROW("p", "a"), ROW("p!", "a") ROW("p!", "a"));
}

static void test_extract(void **state)
{
    const char *folder = *state;
    static const char *const rows = ROW("S: one", "a") ROW("two", "b");
    expect_rows(folder, "[{'op': 'extract', 'pattern': 'S: (.*)', 'into': 's'}]", rows,
                "{\"prompt\":\"S: one\",\"answer\":\"a\",\"s\":\"one\"}\n"
                "{\"prompt\":\"two\",\"answer\":\"b\",\"s\":\"\"}\n");
    expect_rows(
        folder,
        "[{'op': 'extract', 'pattern': 's: .*', 'group': 0, 'ignore_case': true, 'into': 'prompt', "
        "'missing': 'drop'}]",
        rows, "{\"answer\":\"a\",\"prompt\":\"S: one\"}\n");
    expect_failure(folder,
                   "[{'op': 'extract', 'pattern': 'S: (.*)', 'into': 's', 'missing': 'error'}]",
                   rows, STATUS_INVALID, "rows.jsonl:2: field \"prompt\" does not match");
    expect_failure(folder, "[{'op': 'extract', 'pattern': '^(a+)+$', 'into': 's'}]",
                   ROW("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "b"), STATUS_LIMIT,
                   "rows.jsonl:1");
    expect_mistake("[{'op': 'extract', 'pattern': '(', 'into': 's'}]",
                   "/recipe/0/pattern: pattern \"(\" is wrong at byte 1");
    expect_mistake("[{'op': 'extract', 'pattern': 'a', 'into': 's'}]", "has 0 groups");
    expect_mistake("[{'op': 'extract', 'into': 's'}]", "/recipe/0/pattern: missing");
    expect_mistake("[{'op': 'extract', 'pattern': '(a)'}]", "/recipe/0/into: missing");
}

static void test_filter(void **state)
{
    const char *folder = *state;
    expect_rows(folder, "[{'op': 'filter', 'field': 'prompt', 'include': '^t'}]", THREE,
                ROW("two", "y") ROW("three", "x"));
    expect_rows(folder,
                "[{'op': 'filter', 'field': 'prompt', 'exclude': 'T', 'ignore_case': true}]", THREE,
                ROW("one", "x"));
    expect_rows(folder, "[{'op': 'filter', 'field': 'prompt', 'include': 'e', 'exclude': '^o'}]",
                THREE, ROW("three", "x"));
    expect_rows(folder, "[{'op': 'filter', 'field': 'answer', 'equals': 'y'}]", THREE,
                ROW("two", "y"));
    expect_rows(folder, "[{'op': 'filter', 'field': 'answer', 'not_equals': ['y', 3]}]", THREE,
                ROW("one", "x") ROW("three", "x"));
    static const char *const typed =
        "{'prompt': 'p', 'answer': 'a', 'n': 3}\n{'prompt': 'q', 'answer': 'a', 'n': "
        "true}\n{'prompt': 'r', 'answer': 'a'}\n{'prompt': 's', 'answer': 'a', 'n': {}}";
    expect_rows(folder, "[{'op': 'filter', 'field': 'n', 'equals': [3, 'x']}]", typed,
                "{\"prompt\":\"p\",\"answer\":\"a\",\"n\":3}\n");
    expect_rows(
        folder,
        "[{'op': 'filter', 'field': 'n', 'not_equals': [3, true]}, {'op': 'map', 'drop': ['n']}]",
        typed, ROW("r", "a") ROW("s", "a"));
    expect_rows(folder,
                "[{'op': 'filter', 'field': 'n', 'include': '.'}, {'op': 'map', 'drop': ['n']}]",
                typed, ROW("p", "a") ROW("q", "a") ROW("s", "a"));
    expect_failure(folder, "[{'op': 'filter', 'field': 'prompt', 'include': 'nowhere'}]", THREE,
                   STATUS_INVALID, "recipe step 1 (filter): it left none of 3 rows");
    expect_failure(folder, "[{'op': 'filter', 'field': 'prompt', 'include': '^(a|a)*$'}]",
                   ROW("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "b"), STATUS_LIMIT,
                   "rows.jsonl:1");
    expect_mistake("[{'op': 'filter', 'include': 'x'}]", "/recipe/0/field: missing");
    expect_mistake("[{'op': 'filter', 'field': 'x'}]", "filter does nothing");
    expect_mistake("[{'op': 'filter', 'field': 'x', 'exclude': 'a)'}]", "/recipe/0/exclude");
    expect_mistake("[{'op': 'filter', 'field': 'x', 'equals': []}]", "an empty list");
    expect_mistake("[{'op': 'filter', 'field': 'x', 'equals': [{}]}]", "allowed are strings");
    expect_mistake("[{'op': 'filter', 'field': 'x', 'equals': {}}]", "allowed are strings");
}

static void test_length(void **state)
{
    const char *folder = *state;
    expect_rows(folder, "[{'op': 'length', 'field': 'prompt', 'min': 4}]", THREE,
                ROW("three", "x"));
    expect_rows(folder, "[{'op': 'length', 'field': 'prompt', 'max': 3}]", THREE,
                ROW("one", "x") ROW("two", "y"));
    expect_rows(folder, "[{'op': 'length', 'unit': 'words', 'min': 3, 'max': 3}]",
                ROW("a b", "c") ROW("a b c", "d"), ROW("a b", "c"));
    expect_rows(folder, "[{'op': 'length', 'field': 'prompt', 'max': 2}]",
                ROW("\xE4\xBD\xA0\xE5\xA5\xBD", "c"), ROW("\xE4\xBD\xA0\xE5\xA5\xBD", "c"));
    expect_mistake("[{'op': 'length'}]", "length does nothing");
    expect_mistake("[{'op': 'length', 'min': 3, 'max': 2}]", "min 3 above max 2");
    expect_mistake("[{'op': 'length', 'min': -3}]", "/recipe/0/min");
    expect_mistake("[{'op': 'length', 'min': 3, 'unit': 'tokens'}]", "\"characters\" \"words\"");
}

/* A recipe may come from a language model: none fills a worker's memory, or its time. */
static void test_bombs(void **state)
{
    const char *folder = *state;
    struct buffer recipe;
    buffer_init(&recipe, 65536);
    text_max_bytes = 20000;
    /* Each step makes the text four times as long. */
    buffer_append_text(&recipe, "[");
    for (int step = 0; step < 12; step++) {
        buffer_printf(&recipe,
                      "%s{'op': 'map', 'set': {'prompt': '{prompt}{prompt}{prompt}{prompt}'}}",
                      step > 0 ? ", " : "");
    }
    buffer_append_text(&recipe, "]");
    expect_failure(folder, buffer_text(&recipe), THREE, STATUS_LIMIT,
                   "more than 20000 bytes of text");
    expect_failure(folder, "[{'op': 'repeat', 'times': 100}, {'op': 'map', 'set': {'n': [1, 2]}}]",
                   THREE, STATUS_LIMIT, "recipe step 2 (map)");
    expect_failure(folder,
                   "[{'op': 'map', 'set': {'long': '{prompt}{prompt}{prompt}{prompt}{prompt}'}}, "
                   "{'op': 'repeat', 'times': 100}, {'op': 'repeat', 'times': 5}, "
                   "{'op': 'extract', 'field': 'long', 'pattern': '.*', 'group': 0, 'into': 'n'}]",
                   THREE, STATUS_LIMIT, "recipe step 4 (extract)");
    text_max_bytes = 0;
    buffer_clear(&recipe);
    for (int field = 0; field < 65; field++) {
        buffer_printf(&recipe, "%s'f%d': 1", field > 0 ? ", " : "[{'op': 'map', 'set': {", field);
    }
    buffer_append_text(&recipe, "}}]");
    expect_mistake(buffer_text(&recipe), "/recipe/0/set: found 65 fields, allowed are 64");
    buffer_clear(&recipe);
    for (int field = 0; field < 65; field++) {
        buffer_printf(&recipe, "%s'f%d'", field > 0 ? ", " : "[{'op': 'dedup', 'fields': [", field);
    }
    buffer_append_text(&recipe, "]}]");
    expect_mistake(buffer_text(&recipe), "/recipe/0/fields: found 65 fields, allowed are 64");
    buffer_fini(&recipe);
}

static void test_dedup(void **state)
{
    const char *folder = *state;
    static const char *const rows =
        ROW("one", "x") ROW("One ", "x") ROW("one", "y") ROW("one", "x");
    expect_rows(folder, "[{'op': 'dedup'}]", rows,
                ROW("one", "x") ROW("One ", "x") ROW("one", "y"));
    expect_rows(folder, "[{'op': 'dedup', 'fold': true}]", rows, ROW("one", "x") ROW("one", "y"));
    expect_rows(folder, "[{'op': 'dedup', 'fields': ['prompt']}]", rows,
                ROW("one", "x") ROW("One ", "x"));
    /* An absent field is not an empty one, and fields do not run into each other. */
    expect_rows(
        folder, "[{'op': 'dedup', 'fields': ['a', 'b']}, {'op': 'map', 'drop': ['a', 'b']}]",
        "{'prompt': '1', 'answer': '', 'a': '', 'b': 'x'}\n{'prompt': '2', 'answer': '', 'b': "
        "'x'}\n"
        "{'prompt': '3', 'answer': '', 'a': 'x', 'b': ''}\n{'prompt': '4', 'answer': '', 'b': 'x'}",
        ROW("1", "") ROW("2", "") ROW("3", ""));
    expect_mistake("[{'op': 'dedup', 'fields': []}]", "an empty list");
    expect_mistake("[{'op': 'dedup', 'fields': [3]}]", "list of names");
    expect_mistake("[{'op': 'dedup', 'fold': 1}]", "/recipe/0/fold");
}

static void test_sample(void **state)
{
    char *rows = many_rows(1000, 2);
    struct outcome outcome =
        run_seeded(*state, "", "[{'op': 'sample', 'count': 100}]", rows, "", 7);
    assert_int_equal(outcome.rows.count, 100);
    int64_t in_first_half = 0;
    for (int64_t i = 0; i < 100; i++) {
        assert_true(i == 0 || outcome.rows.rows[i].line >
                                  outcome.rows.rows[i - 1].line); /* in order, none twice */
        in_first_half += outcome.rows.rows[i].line <= 500;
    }
    assert_in_range(in_first_half, 30, 70);
    outcome_fini(&outcome);
    outcome = run_seeded(*state, "", "[{'op': 'sample', 'fraction': 0.25}]", rows, "", 7);
    assert_int_equal(outcome.rows.count, 250);
    outcome_fini(&outcome);
    outcome = run_seeded(*state, "", "[{'op': 'sample', 'count': 5000}]", rows, "", 7);
    assert_int_equal(outcome.rows.count, 1000);
    outcome_fini(&outcome);
    free(rows);
    expect_failure(*state, "[{'op': 'sample', 'fraction': 0}]", THREE, STATUS_INVALID,
                   "left none of 3 rows");
    expect_mistake("[{'op': 'sample'}]", "neither count nor fraction");
    expect_mistake("[{'op': 'sample', 'count': 3, 'fraction': 0.5}]", "both count and fraction");
    expect_mistake("[{'op': 'sample', 'count': 0}]", "/recipe/0/count");
    expect_mistake("[{'op': 'sample', 'count': 1.5}]", "/recipe/0/count");
    expect_mistake("[{'op': 'sample', 'fraction': 2}]", "/recipe/0/fraction");
}

static void expect_classes(const char *folder, const char *recipe, const char *train, int a, int b,
                           int c)
{
    struct outcome outcome = run_seeded(folder, "", recipe, train, "", 3);
    assert_int_equal(outcome.status, STATUS_OK);
    const char *text = buffer_text(&outcome.text);
    assert_int_equal(count_of(text, "\"answer\":\"a\""), a);
    assert_int_equal(count_of(text, "\"answer\":\"b\""), b);
    assert_int_equal(count_of(text, "\"answer\":\"c\""), c);
    assert_non_null(strstr(outcome.report.steps[0].note, "3 classes: a "));
    outcome_fini(&outcome);
}

static void test_balance(void **state)
{
    const char *folder = *state;
    struct buffer rows;
    buffer_init(&rows, 1 << 20);
    for (int i = 0; i < 60; i++) {
        buffer_printf(&rows, "{'prompt': 'p%d', 'answer': '%s'}\n", i,
                      i < 40   ? "a"
                      : i < 58 ? "b"
                               : "c");
    }
    const char *train = buffer_text(&rows);
    expect_classes(folder, "[{'op': 'balance'}]", train, 2, 2, 2);
    expect_classes(folder, "[{'op': 'balance', 'mode': 'up'}]", train, 40, 40, 20);
    expect_classes(folder, "[{'op': 'balance', 'mode': 'up', 'max_repeat': 100}]", train, 40, 40,
                   40);
    expect_classes(folder, "[{'op': 'balance', 'counts': {'a': 5, 'c': 3}}]", train, 5, 18, 3);
    expect_classes(folder, "[{'op': 'balance', 'counts': {'a': 0, 'z': 3}}]", train, 0, 18, 2);
    buffer_fini(&rows);
    expect_failure(folder, "[{'op': 'balance', 'field': 'label'}]", THREE, STATUS_INVALID,
                   "rows.jsonl:1: row has no field \"label\"");
    char *different = many_rows(10001, 1);
    expect_failure(folder, "[{'op': 'balance', 'field': 'prompt'}]", different, STATUS_LIMIT,
                   "more than 10000 different");
    free(different);
    expect_mistake("[{'op': 'balance', 'mode': 'sideways'}]", "/recipe/0/mode");
    expect_mistake("[{'op': 'balance', 'mode': 'up', 'counts': {'a': 1}}]", "both mode and counts");
    expect_mistake("[{'op': 'balance', 'counts': {'a': -1}}]", "rows of \"a\"");
    expect_mistake("[{'op': 'balance', 'counts': {'a': 1.5}}]", "rows of \"a\"");
    expect_mistake("[{'op': 'balance', 'max_repeat': 0}]", "/recipe/0/max_repeat");
}

static void test_mix(void **state)
{
    const char *folder = *state;
    char *train = many_rows(90, 1);
    char *other = many_rows(30, 1);
    for (char *c = other; *c != '\0'; c++) {
        *c = *c == '\'' ? '"' : *c == 'p' && c[1] >= '0' && c[1] <= '9' ? 'o' : *c;
    }
    fixture_write(folder, "other.jsonl", other);
    struct outcome outcome =
        run_seeded(folder, "",
                   "[{'op': 'mix', 'sources': [{'path': 'other.jsonl', 'weight': 2}, {'path': "
                   "'train'}], 'count': 90}]",
                   train, "", 5);
    assert_int_equal(outcome.status, STATUS_OK);
    assert_int_equal(outcome.rows.count, 90);
    assert_int_equal(count_of(buffer_text(&outcome.text), "\"o"), 60);
    outcome_fini(&outcome);
    /* Without a count: as many as there are, no row twice. */
    outcome = run_seeded(folder, "",
                         "[{'op': 'mix', 'sources': [{'path': 'other.jsonl'}, {'path': 'train'}]}]",
                         train, "", 5);
    assert_int_equal(outcome.rows.count, 60);
    assert_int_equal(count_of(buffer_text(&outcome.text), "\"o"), 30);
    outcome_fini(&outcome);
    /* "rows" are those that the steps before left; a small source is repeated up to the bound. */
    outcome = run_seeded(folder, "",
                         "[{'op': 'limit', 'count': 2}, {'op': 'mix', 'sources': [{'path': "
                         "'rows'}, {'path': 'train'}], "
                         "'count': 40, 'max_repeat': 3}]",
                         train, "", 5);
    assert_int_equal(outcome.rows.count, 26);
    assert_non_null(strstr(outcome.report.steps[1].note, "14 rows fewer"));
    outcome_fini(&outcome);
    free(train);
    free(other);
    expect_failure(folder, "[{'op': 'mix', 'sources': [{'path': 'none.jsonl'}]}]", THREE,
                   STATUS_NOT_FOUND, "(mix)");
    expect_mistake("[{'op': 'mix'}]", "/recipe/0/sources: missing");
    expect_mistake("[{'op': 'mix', 'sources': []}]", "found no sources");
    expect_mistake("[{'op': 'mix', 'sources': [{}]}]", "/recipe/0/sources/0/path: missing");
    expect_mistake("[{'op': 'mix', 'sources': ['train']}]",
                   "/recipe/0/sources/0: allowed is an object");
    expect_mistake("[{'op': 'mix', 'sources': [{'path': 'x', 'weight': 0}]}]",
                   "/recipe/0/sources/0/weight");
    expect_mistake("[{'op': 'mix', 'sources': [{'path': 'x', 'size': 0}]}]", "unknown key");
}

static void test_repeat_limit_shuffle(void **state)
{
    const char *folder = *state;
    expect_rows(folder, "[{'op': 'limit', 'count': 2}, {'op': 'repeat', 'times': 2}]", THREE,
                ROW("one", "x") ROW("two", "y") ROW("one", "x") ROW("two", "y"));
    expect_rows(folder, "[{'op': 'limit', 'count': 20}]", THREE, THREE);
    char *rows = many_rows(100, 1);
    struct outcome outcome = run_seeded(folder, "", "[{'op': 'shuffle'}]", rows, "", 5);
    int64_t sum = 0;
    int64_t moved = 0;
    for (int64_t i = 0; i < 100; i++) {
        sum += outcome.rows.rows[i].line;
        moved += outcome.rows.rows[i].line != i + 1;
    }
    assert_int_equal(sum, 5050);
    assert_true(moved > 80);
    outcome_fini(&outcome);
    free(rows);
    expect_mistake("[{'op': 'repeat'}]", "/recipe/0/times: missing");
    expect_mistake("[{'op': 'repeat', 'times': 101}]", "/recipe/0/times");
    expect_mistake("[{'op': 'limit'}]", "/recipe/0/count: missing");
    expect_mistake("[{'op': 'shuffle', 'seed': 3}]", "/recipe/0/seed: unknown key");
}

/* No recipe can exhaust memory: the number of rows is bounded before they are made. */
static void test_row_limit(void **state)
{
    char *rows = many_rows(2000, 1);
    expect_failure(*state, "[{'op': 'repeat', 'times': 100}, {'op': 'repeat', 'times': 100}]", rows,
                   STATUS_LIMIT,
                   "recipe step 2 (repeat): 20000000 rows, allowed in a recipe are 10000000");
    free(rows);
}

#define WORDS "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu"

static void test_overlap(void **state)
{
    const char *folder = *state;
    static const char *const train =
        ROW("keep me", "x") ROW("KNOWN   prompt", "x") ROW("so " WORDS " it goes", "x");
    static const char *const held_out = ROW("Known prompt", "y") ROW("and " WORDS " xi", "y");
    struct outcome outcome = run_seeded(folder, "", "[]", train, held_out, 1);
    assert_int_equal(outcome.rows.count, 2); /* equal prompts go, whatever the recipe says */
    assert_string_equal(outcome.report.steps[0].op, "overlap");
    assert_non_null(strstr(outcome.report.steps[0].note, "removed 1 rows"));
    outcome_fini(&outcome);
    outcome = run_seeded(folder, "", "[{'op': 'overlap', 'ngram': 13}]", train, held_out, 1);
    assert_string_equal(buffer_text(&outcome.text), ROW("keep me", "x"));
    assert_non_null(strstr(outcome.report.steps[0].note,
                           "1 rows with a prompt of validation or test, 1 with shared"));
    outcome_fini(&outcome);
    outcome = run_seeded(folder, "", "[{'op': 'overlap', 'ngram': 13, 'action': 'report'}]", train,
                         held_out, 1);
    assert_int_equal(outcome.rows.count, 2);
    assert_int_equal(outcome.report.steps[0].rows_out, 3);
    assert_non_null(strstr(outcome.report.steps[0].note, "found 1 rows"));
    outcome_fini(&outcome);
    outcome = run_seeded(folder, "", "[{'op': 'overlap', 'ngram': 14}]", train, held_out, 1);
    assert_int_equal(outcome.rows.count, 2);
    outcome_fini(&outcome);
    outcome = run_seeded(folder, "", "[{'op': 'overlap', 'ngram': 13, 'against': 'test'}]", train,
                         held_out, 1);
    assert_int_equal(outcome.report.steps[0].rows_out, 3);
    outcome_fini(&outcome);
    outcome = run_seeded(folder, "", "[{'op': 'overlap', 'ngram': 1, 'field': 'answer'}]", train,
                         held_out, 1);
    assert_int_equal(outcome.rows.count, 2);
    outcome_fini(&outcome);
    outcome = run_seeded(folder, "", "[]", ROW("known prompt", "x"), held_out, 1);
    assert_int_equal(outcome.status, STATUS_INVALID);
    assert_non_null(strstr(outcome.err.message, "recipe end (overlap): it left none of 1 rows"));
    outcome_fini(&outcome);
    expect_mistake("[{'op': 'overlap', 'field': 'x'}]", "field without ngram");
    expect_mistake("[{'op': 'overlap', 'ngram': 65}]", "/recipe/0/ngram");
    expect_mistake("[{'op': 'overlap', 'against': 'train'}]", "/recipe/0/against");
}

/* The instruction that all prompts of a task share is no overlap. */
static void test_overlap_ignores_instruction(void **state)
{
    struct buffer held_out;
    buffer_init(&held_out, 1 << 20);
    for (int i = 0; i < 20; i++) {
        buffer_printf(&held_out, "{'prompt': '" WORDS " xi omicron: text%d', 'answer': 'x'}\n", i);
    }
    struct outcome outcome =
        run_seeded(*state, "", "[{'op': 'overlap', 'ngram': 13}]",
                   ROW(WORDS " xi omicron: other", "x") ROW(WORDS " xi omicron: text3", "x"),
                   buffer_text(&held_out), 1);
    assert_string_equal(buffer_text(&outcome.text), ROW(WORDS " xi omicron: other", "x"));
    outcome_fini(&outcome);
    buffer_fini(&held_out);
}

/* Every operator that draws: the same seed gives the same bytes, another seed others. */
static void test_determinism(void **state)
{
    static const char *const recipes[] = {
        "[{'op': 'load', 'path': 'more.jsonl', 'weight': 1.5}]",
        "[{'op': 'sample', 'count': 50}]",
        "[{'op': 'sample', 'fraction': 0.5}]",
        "[{'op': 'balance', 'mode': 'down'}]",
        "[{'op': 'balance', 'mode': 'up'}]",
        "[{'op': 'mix', 'sources': [{'path': 'train'}, {'path': 'more.jsonl', 'weight': 0.3}], "
        "'count': 80}]",
        "[{'op': 'shuffle'}]",
        "[{'op': 'shuffle'}, {'op': 'sample', 'count': 20}, {'op': 'repeat', 'times': 2}, {'op': "
        "'shuffle'}]",
    };
    char *train = many_rows(199, 3);
    fixture_write(*state, "more.jsonl",
                  ROW("m1", "a") ROW("m2", "b") ROW("m3", "c") ROW("m4", "a") ROW("m5", "b"));
    for (size_t i = 0; i < sizeof(recipes) / sizeof(recipes[0]); i++) {
        struct outcome first = run_seeded(*state, "", recipes[i], train, "", 11);
        struct outcome same = run_seeded(*state, "", recipes[i], train, "", 11);
        struct outcome other = run_seeded(*state, "", recipes[i], train, "", 12);
        assert_int_equal(first.status, STATUS_OK);
        assert_string_equal(buffer_text(&first.text), buffer_text(&same.text));
        if (strcmp(buffer_text(&first.text), buffer_text(&other.text)) == 0) {
            fail_msg("the seed does not matter to %s", recipes[i]);
        }
        outcome_fini(&first);
        outcome_fini(&same);
        outcome_fini(&other);
    }
    free(train);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_load, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_map, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_map_after_repeat, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_extract, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_filter, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_length, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dedup, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bombs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sample, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_balance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_mix, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_repeat_limit_shuffle, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_row_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_overlap, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_overlap_ignores_instruction, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_determinism, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
