/* Recipes as a whole: their structure, identity, provenance, bounds and failures. */
#include "data/operators.h"
#include "fixture.h"

struct world {
    char *folder;
    struct task task;
    struct dataset train;
    struct dataset validation;
    struct recipe_context context;
};

static int set_up(void **state)
{
    struct world *world = mem_calloc(1, sizeof(*world));
    assert_non_null(world);
    world->folder = fixture_folder();
    fixture_task(world->folder, "", &world->task);
    fixture_rows(&world->train,
                 "{'prompt': 'one', 'answer': 'x'}\n{'prompt': 'two', 'answer': 'y'}\n"
                 "{'prompt': 'three', 'answer': 'x'}\n{'prompt': 'four', 'answer': 'y'}");
    fixture_rows(&world->validation, "{'prompt': 'held', 'answer': 'x'}");
    fixture_write(world->folder, "more.jsonl", "{\"prompt\": \"five\", \"answer\": \"z\"}\n");
    world->context = (struct recipe_context){.task = &world->task,
                                             .train = &world->train,
                                             .validation = &world->validation,
                                             .folder = world->folder,
                                             .seed = 42};
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    dataset_fini(&world->train);
    dataset_fini(&world->validation);
    task_fini(&world->task);
    fixture_remove(world->folder);
    free(world);
    return 0;
}

static enum status run(const struct world *world, const char *recipe_text, struct dataset *rows,
                       struct recipe_report *report, struct error *err)
{
    cJSON *recipe = recipe_text != NULL ? fixture_json(recipe_text) : NULL;
    enum status status = recipe_run(recipe, &world->context, rows, report, err);
    cJSON_Delete(recipe);
    return status;
}

static void test_no_steps(void **state)
{
    struct world *world = *state;
    static const char *const recipes[] = {NULL, "[]", "null"};
    for (int i = 0; i < 3; i++) {
        struct dataset rows;
        struct recipe_report report;
        struct error err = {0};
        assert_int_equal(run(world, recipes[i], &rows, &report, &err), STATUS_OK);
        assert_int_equal(rows.count, 4);
        assert_int_equal(report.step_count, 1);
        assert_ptr_not_equal(rows.rows[0].object, world->train.rows[0].object);
        dataset_fini(&rows);
    }
}

static void test_without_held_out_rows_or_report(void **state)
{
    struct world *world = *state;
    world->context.validation = NULL;
    struct dataset rows;
    struct error err = {0};
    assert_int_equal(run(world, "[{'op': 'dedup'}]", &rows, NULL, &err), STATUS_OK);
    assert_int_equal(rows.count, 4);
    dataset_fini(&rows);
}

static void test_provenance(void **state)
{
    struct world *world = *state;
    struct dataset rows;
    struct error err = {0};
    assert_int_equal(
        run(world,
            "[{'op': 'load', 'path': 'more.jsonl'}, {'op': 'map', 'set': {'prompt': '{prompt}!'}}, "
            "{'op': "
            "'filter', 'field': 'answer', 'not_equals': 'x'}, {'op': 'repeat', 'times': 2}]",
            &rows, NULL, &err),
        STATUS_OK);
    assert_int_equal(rows.count, 6);
    static const int64_t lines[] = {2, 4, 1, 2, 4, 1};
    for (int i = 0; i < 6; i++) {
        const char *source = rows.sources[rows.rows[i].source];
        assert_int_equal(rows.rows[i].line, lines[i]);
        assert_string_equal(source,
                            i % 3 == 2 ? fixture_path(world->folder, "more.jsonl") : "rows.jsonl");
    }
    dataset_fini(&rows);
}

static void test_report_and_max_samples(void **state)
{
    struct world *world = *state;
    world->context.max_samples = 3;
    FILE *file = tmpfile();
    assert_non_null(file);
    struct log log;
    log_init(&log, file, -1, LOG_DEBUG);
    world->context.log = &log;
    struct dataset rows;
    struct recipe_report report;
    struct error err = {0};
    assert_int_equal(
        run(world, "[{'op': 'repeat', 'times': 3}, {'op': 'dedup'}]", &rows, &report, &err),
        STATUS_OK);
    assert_int_equal(rows.count, 3);
    assert_int_equal(report.step_count, 4);
    assert_string_equal(report.steps[0].op, "repeat");
    assert_int_equal(report.steps[0].rows_in, 4);
    assert_int_equal(report.steps[0].rows_out, 12);
    assert_string_equal(report.steps[1].note, "removed 8 duplicates");
    assert_string_equal(report.steps[2].op, "overlap");
    assert_string_equal(report.steps[3].op, "sample");
    assert_int_equal(report.steps[3].rows_out, 3);
    assert_true(ftell(file) > 0);
    fclose(file);
    dataset_fini(&rows);
}

static void expect_mistake(const char *recipe_text, const char *part)
{
    cJSON *recipe = fixture_json(recipe_text);
    struct json_problems problems;
    json_problems_init(&problems);
    recipe_check(recipe, "/data", &problems);
    if (problems.count == 0 || strstr(buffer_text(&problems.text), part) == NULL) {
        fail_msg("%s: %s", recipe_text, buffer_text(&problems.text));
    }
    json_problems_fini(&problems);
    cJSON_Delete(recipe);
}

static void test_structure_mistakes(void **state)
{
    (void)state;
    expect_mistake("{}", "/data: allowed is a list of steps");
    expect_mistake("'dedup'", "/data: allowed is a list of steps");
    expect_mistake("['dedup']", "/data/0: allowed is an object");
    expect_mistake("[{}]", "/data/0/op: missing");
    expect_mistake("[{'op': 3}]", "/data/0/op: found 3");
    expect_mistake("[{'op': 'dedup'}, {'op': 'dedupe'}]",
                   "/data/1/op: found \"dedupe\", allowed is one of load map");
    expect_mistake("[[[[]]]]", "/data/0: allowed is an object");
    struct buffer many;
    buffer_init(&many, 1 << 16);
    for (int i = 0; i < 63; i++) {
        buffer_printf(&many, "%s{'op': 'shuffle'}", i == 0 ? "[" : ", ");
    }
    buffer_append_char(&many, ']');
    expect_mistake(buffer_text(&many), "found 63 steps, allowed are 62");
    buffer_fini(&many);
}

/* All mistakes at once. */
static void test_all_mistakes_at_once(void **state)
{
    struct world *world = *state;
    struct dataset rows;
    struct error err = {0};
    assert_int_equal(
        run(world, "[{'op': 'load'}, {'op': 'nope'}, {'op': 'sample'}]", &rows, NULL, &err),
        STATUS_INVALID);
    assert_non_null(strstr(err.message, "recipe: 3 mistakes"));
    assert_non_null(strstr(err.message, "/0/path"));
    assert_non_null(strstr(err.message, "/2"));
}

/* The result must be rows that the task can use. */
static void test_result_must_fit_the_task(void **state)
{
    struct world *world = *state;
    struct dataset rows;
    struct error err = {0};
    assert_int_equal(
        run(world, "[{'op': 'map', 'rename': {'prompt': 'question'}}]", &rows, NULL, &err),
        STATUS_INVALID);
    assert_non_null(
        strstr(err.message, "result of the recipe: rows.jsonl:1: row has no field \"prompt\""));
    assert_int_equal(run(world, "[{'op': 'map', 'drop': ['answer']}]", &rows, NULL, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.message, "row has no field \"answer\""));
    fixture_write(world->folder, "odd.jsonl", "{\"text\": \"x\"}\n");
    assert_int_equal(
        run(world, "[{'op': 'load', 'path': 'odd.jsonl'}, {'op': 'dedup'}]", &rows, NULL, &err),
        STATUS_INVALID);
    assert_non_null(strstr(err.message, "odd.jsonl:1: row has no field \"prompt\", has: text"));
}

static void test_rendering_decides_overlap(void **state)
{
    struct world *world = *state;
    task_fini(&world->task);
    fixture_task(world->folder, "'extract': {'s': {'pattern': 'S: (.*)'}}, 'template': '{s}'",
                 &world->task);
    dataset_fini(&world->train);
    fixture_rows(
        &world->train,
        "{'prompt': 'A. S: same', 'answer': 'x'}\n{'prompt': 'A. S: other', 'answer': 'y'}");
    dataset_fini(&world->validation);
    fixture_rows(&world->validation, "{'prompt': 'B. S: SAME', 'answer': 'x'}");
    struct dataset rows;
    struct error err = {0};
    assert_int_equal(run(world, "[]", &rows, NULL, &err), STATUS_OK);
    assert_int_equal(rows.count, 1);
    assert_int_equal(rows.rows[0].line, 2);
    dataset_fini(&rows);
}

static void test_registry(void **state)
{
    (void)state;
    int count = 0;
    for (const struct recipe_operator_info *info = recipe_operators(); info->name != NULL;
         info++, count++) {
        assert_non_null(operator_find(info->name));
        assert_true(strlen(info->name) < sizeof(((struct recipe_report *)0)->steps[0].op));
        assert_true(strlen(info->arguments) > 0 && strlen(info->summary) > 0);
    }
    assert_int_equal(count, 14);
    assert_null(operator_find("none"));
}

/* ---- identity ---- */

static void hash_of(const struct world *world, const char *recipe_text, char out[33])
{
    cJSON *recipe = fixture_json(recipe_text);
    recipe_hash(recipe, &world->context, out);
    cJSON_Delete(recipe);
}

static void expect_other_hash(const struct world *world, const char *recipe_text, char last[33])
{
    char hash[33];
    hash_of(world, recipe_text, hash);
    assert_int_equal(strlen(hash), 32);
    assert_string_not_equal(hash, last);
    memcpy(last, hash, sizeof(hash));
}

static void test_hash(void **state)
{
    struct world *world = *state;
    char last[33] = "";
    char again[33];
    static const char *const recipe = "[{'op': 'load', 'path': 'more.jsonl'}]";
    expect_other_hash(world, "[]", last);
    expect_other_hash(world, "[{'op': 'dedup'}]", last);
    expect_other_hash(world, recipe, last);
    hash_of(world, recipe, again);
    assert_string_equal(again, last);
    fixture_write(world->folder, "more.jsonl", "{\"prompt\": \"six\", \"answer\": \"z\"}\n");
    expect_other_hash(world, recipe, last);
    world->context.seed++;
    expect_other_hash(world, recipe, last);
    world->context.max_samples = 5;
    expect_other_hash(world, recipe, last);
    struct error err = {0};
    dataset_append(&world->train, fixture_json("{'prompt': 'new'}"), "x", 1, &err);
    expect_other_hash(world, recipe, last);
    dataset_append(&world->validation, fixture_json("{'prompt': 'new'}"), "x", 1, &err);
    expect_other_hash(world, recipe, last);
    world->context.test = &world->validation;
    expect_other_hash(world, recipe, last);
    world->context.test = NULL;
    hash_of(world, recipe, last);
    task_fini(&world->task);
    fixture_task(world->folder, "'template': '{prompt} =>'", &world->task);
    expect_other_hash(world, recipe, last);
    assert_int_equal(unlink(fixture_path(world->folder, "more.jsonl")), 0);
    expect_other_hash(world, recipe, last);
    expect_other_hash(world, "[{'op': 'mix', 'sources': [{'path': 'a.jsonl'}]}]", last);
    fixture_write(world->folder, "a.jsonl", "{}\n");
    expect_other_hash(world, "[{'op': 'mix', 'sources': [{'path': 'a.jsonl'}]}]", last);
}

/* ---- failures ---- */

/* Each allocation fails in turn: an error every time, nothing leaks, and the inputs stay as they
 * are. */
static void test_no_memory(void **state)
{
    struct world *world = *state;
    static const char *const recipe = "[{'op': 'load', 'path': 'more.jsonl', 'weight': 3}, {'op': "
                                      "'map', 'set': {'t': '{prompt}'}}, {'op': 'extract', "
                                      "'pattern': '(.)', 'into': 'first'}, {'op': 'filter', "
                                      "'field': 'prompt', 'include': '.'}, {'op': 'length', "
                                      "'min': 1}, {'op': 'dedup', 'fold': true}, {'op': 'repeat', "
                                      "'times': 2}, {'op': 'balance', 'mode': 'up'}, {'op': "
                                      "'mix', 'sources': [{'path': 'rows'}, {'path': 'train'}, "
                                      "{'path': 'more.jsonl'}], 'count': 9}, {'op': "
                                      "'shuffle'}, {'op': 'sample', 'count': 8}, {'op': 'limit', "
                                      "'count': 7}, {'op': 'overlap', 'ngram': 1}]";
    char before[33];
    char after[33];
    dataset_hash(&world->train, before);
    world->context.max_samples = 5;
    for (int n = 1;; n++) {
        struct dataset rows;
        struct error err = {0};
        mem_fail_nth(n);
        enum status status = run(world, recipe, &rows, NULL, &err);
        mem_fail_nth(0);
        dataset_hash(&world->train, after);
        assert_string_equal(before, after);
        if (status == STATUS_OK) {
            assert_true(n > 100);
            assert_true(rows.count <= 5 && rows.count > 0);
            dataset_fini(&rows);
            break;
        }
        assert_true(err.message[0] != '\0');
    }
}

/* Many rows pass through quickly: operators do not copy what they only select. */
static void test_large(void **state)
{
    struct world *world = *state;
    enum { ROWS = 200000 };
    struct error err = {0};
    for (int i = 0; i < ROWS; i++) {
        char prompt[32];
        snprintf(prompt, sizeof(prompt), "prompt %d", i / 2);
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "prompt", prompt);
        cJSON_AddStringToObject(object, "answer", i % 3 == 0 ? "x" : "y");
        assert_int_equal(dataset_append(&world->train, object, "big.jsonl", i + 1, &err),
                         STATUS_OK);
    }
    world->context.max_samples = 1000;
    struct dataset rows;
    struct recipe_report report;
    assert_int_equal(run(world,
                         "[{'op': 'dedup', 'fields': ['prompt']}, {'op': 'balance', 'mode': 'up'}, "
                         "{'op': 'shuffle'}, "
                         "{'op': 'sample', 'fraction': 0.9}]",
                         &rows, &report, &err),
                     STATUS_OK);
    assert_int_equal(report.steps[0].rows_out, ROWS / 2 + 4);
    assert_int_equal(rows.count, 1000);
    dataset_fini(&rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_steps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_held_out_rows_or_report, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_provenance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_report_and_max_samples, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_structure_mistakes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_all_mistakes_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_result_must_fit_the_task, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rendering_decides_overlap, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_registry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hash, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_large, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
