/* Tasks: reading and checking them, rendering rows, loading splits. */
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

static void test_defaults(void **state)
{
    struct task task;
    fixture_task(*state, "", &task);
    assert_string_equal(task.name, "task");
    assert_string_equal(task.path[TASK_TRAIN], fixture_path(*state, "train.jsonl"));
    assert_null(task.path[TASK_TEST]);
    assert_string_equal(task.template_text, "{prompt}");
    assert_string_equal(task.answer_template, "{answer}");
    assert_null(task.system);
    assert_true(task.chat_auto);
    assert_false(task.thinking);
    assert_string_equal(task.metric, "accuracy");
    assert_int_equal(task.predict, TASK_PREDICT_CHOICE);
    assert_string_equal(task.separator, "; ");
    assert_int_equal(task.max_new_tokens, 64);
    task_fini(&task);
    fixture_task(*state, "'metric': 'rouge1'", &task);
    assert_int_equal(task.predict, TASK_PREDICT_GENERATE);
    task_fini(&task);
}

static void test_every_key(void **state)
{
    struct task task;
    fixture_write(*state, "test.jsonl", "");
    fixture_task(
        *state,
        "'name': 'n', 'test': 'test.jsonl', 'extract': {'s': {'field': 'f', 'pattern': '(.)'}}, "
        "'template': '{s}', 'answer': ' {answer}', 'system': 'be good', 'chat': 'qwen3', "
        "'thinking': true, "
        "'metric': 'command', 'predict': 'generate', 'labels': ['a', 'b'], 'separator': '|', "
        "'max_new_tokens': 7, 'temperature': 0.5, 'stop': ['.'], 'command': ['./score', '-x'], "
        "'command_timeout_s': 3.5, 'limit': {'train': 1, 'test': 2}",
        &task);
    assert_string_equal(task.name, "n");
    assert_int_equal(task.extract_count, 1);
    assert_string_equal(task.extract[0].name, "s");
    assert_string_equal(task.extract[0].field, "f");
    assert_string_equal(task.system, "be good");
    assert_false(task.chat_auto);
    assert_int_equal(task.chat, CHAT_QWEN3);
    assert_true(task.thinking);
    assert_int_equal(task.label_count, 2);
    assert_string_equal(task.labels[1], "b");
    assert_string_equal(task.separator, "|");
    assert_int_equal(task.max_new_tokens, 7);
    assert_true(task.temperature == 0.5);
    assert_string_equal(task.stop[0], ".");
    assert_string_equal(task.command[1], "-x");
    assert_null(task.command[2]);
    assert_true(task.command_timeout_s == 3.5);
    assert_int_equal(task.limit[TASK_TRAIN], 1);
    assert_int_equal(task.limit[TASK_VALIDATION], 0);
    assert_int_equal(task.limit[TASK_TEST], 2);
    task_fini(&task);
}

/* Each mistake gives a problem that holds `part`. */
static void expect_mistake(const char *folder, const char *object_text, const char *part)
{
    cJSON *object = object_text != NULL ? fixture_json(object_text) : NULL;
    struct json_problems problems;
    json_problems_init(&problems);
    struct task task;
    struct error err = {0};
    assert_int_equal(task_read(object, "/task", folder, &problems, &task, &err), STATUS_OK);
    if (problems.count == 0 || strstr(buffer_text(&problems.text), part) == NULL) {
        fail_msg("%s\nfound: %s\nexpected: %s", object_text, buffer_text(&problems.text), part);
    }
    task_fini(&task);
    json_problems_fini(&problems);
    cJSON_Delete(object);
}

static void test_mistakes(void **state)
{
    const char *folder = *state;
    fixture_write(folder, "t.jsonl", "");
#define GOOD "'train': 't.jsonl', 'validation': 't.jsonl', "
    expect_mistake(folder, NULL, "/task: missing");
    expect_mistake(folder, "[]", "/task: allowed is an object");
    expect_mistake(folder, "{'validation': 't.jsonl'}", "/task/train: missing");
    expect_mistake(folder, "{'train': 't.jsonl'}", "/task/validation: missing");
    expect_mistake(folder, "{'train': 'none.jsonl', 'validation': 't.jsonl'}", "no such file");
    expect_mistake(folder, "{'train': '.', 'validation': 't.jsonl'}", "a folder");
    expect_mistake(folder, "{'train': 3, 'validation': 't.jsonl'}", "/task/train: found 3");
    expect_mistake(folder, "{" GOOD "'test': 'none.jsonl'}", "/task/test: found");
    expect_mistake(folder, "{" GOOD "'typo': 1}", "/task/typo: unknown key");
    expect_mistake(folder, "{" GOOD "'limit': {'dev': 1}}", "/task/limit/dev: unknown key");
    expect_mistake(folder, "{" GOOD "'limit': {'train': -1}}", "/task/limit/train");
    expect_mistake(folder, "{" GOOD "'name': ''}", "/task/name: found an empty string");
    expect_mistake(folder, "{" GOOD "'template': '{a'}", "/task/template: found \"{a\" at byte 0");
    expect_mistake(folder, "{" GOOD "'answer': 'x}'}", "/task/answer: found \"}\" at byte 1");
    expect_mistake(folder, "{" GOOD "'answer': '{label}'}", "a template that uses {answer}");
    expect_mistake(folder, "{" GOOD "'extract': {'s': {'pattern': 'a('}}}",
                   "/task/extract/s/pattern: pattern");
    expect_mistake(folder, "{" GOOD "'extract': {'s': {'pattern': 'a'}}}", "has 0 groups");
    expect_mistake(folder, "{" GOOD "'extract': {'s': {}}}", "/task/extract/s/pattern: missing");
    expect_mistake(folder, "{" GOOD "'extract': {'s': 'x'}}",
                   "/task/extract/s: allowed is an object");
    expect_mistake(folder, "{" GOOD "'extract': {'s': {'pattern': '(a)', 'fields': 1}}}",
                   "unknown key");
    expect_mistake(folder, "{" GOOD "'chat': 'llama'}", "/task/chat: found \"llama\"");
    expect_mistake(folder, "{" GOOD "'predict': 'guess'}", "/task/predict: found \"guess\"");
    expect_mistake(folder, "{" GOOD "'labels': ['a', 'a']}", "\"a\" twice");
    expect_mistake(folder, "{" GOOD "'labels': ['a', 3]}",
                   "/task/labels: found an entry that is no text");
    expect_mistake(folder, "{" GOOD "'labels': 'a'}", "/task/labels: found \"a\"");
    expect_mistake(folder, "{" GOOD "'stop': ['1','2','3','4','5','6','7','8','9']}",
                   "more than 8 entries");
    expect_mistake(folder, "{" GOOD "'max_new_tokens': 0}", "/task/max_new_tokens");
    expect_mistake(folder, "{" GOOD "'temperature': -1}", "/task/temperature");
    expect_mistake(folder, "{" GOOD "'metric': 'command'}", "/task/command: missing");
    expect_mistake(folder, "{" GOOD "'command': ['x']}", "/task/command: found a command");
    expect_mistake(folder, "{" GOOD "'command_timeout_s': 0}", "/task/command_timeout_s");
#undef GOOD
}

static void test_too_many(void **state)
{
    struct buffer text;
    buffer_init(&text, 1 << 16);
    fixture_write(*state, "t.jsonl", "");
    buffer_append_text(&text, "{'train': 't.jsonl', 'validation': 't.jsonl', 'extract': {");
    for (int i = 0; i <= TASK_FIELDS_MAX; i++) {
        buffer_printf(&text, "%s'f%d': {'pattern': '(.)'}", i > 0 ? ", " : "", i);
    }
    buffer_append_text(&text, "}}");
    expect_mistake(*state, buffer_text(&text), "more than 16 fields");
    buffer_fini(&text);
    char path[FILE_PATH_BYTES + 64] = "{'validation': 't.jsonl', 'train': '";
    size_t used = strlen(path);
    memset(path + used, 'x', FILE_PATH_BYTES);
    memcpy(path + used + FILE_PATH_BYTES, "'}", 3);
    expect_mistake(*state, path, "path longer");
}

/* ---- rendering ---- */

static void render(const char *folder, const char *keys, const char *row_text, struct task *task,
                   struct dataset *rows, struct task_example *example)
{
    fixture_task(folder, keys, task);
    fixture_rows(rows, row_text);
    struct error err = {0};
    if (task_render(task, &rows->rows[0], example, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static void release(struct task *task, struct dataset *rows, struct task_example *example)
{
    task_example_fini(example);
    dataset_fini(rows);
    task_fini(task);
}

static void test_render(void **state)
{
    struct task task;
    struct dataset rows;
    struct task_example example;
    render(*state,
           "'extract': {'s': {'pattern': 'S: (.*)'}}, 'template': '{s} =>', 'answer': ' "
           "{answer}.', 'system': 'x'",
           "{'prompt': 'Q?\\nS: fine', 'answer': 'good', 'choices': ['bad', 'good']}", &task, &rows,
           &example);
    assert_string_equal(example.prompt, "fine =>");
    assert_string_equal(example.answer, " good.");
    assert_string_equal(example.raw_answer, "good");
    assert_string_equal(example.system, "x");
    assert_int_equal(example.choice_count, 2);
    assert_int_equal(example.choice_answer, 1);
    assert_string_equal(example.choices[0], " bad.");
    assert_null(example.turns);
    release(&task, &rows, &example);

    render(*state, "'labels': ['a', 'b'], 'system': 'x'",
           "{'prompt': 'p', 'answer': 'b', 'system': 'own'}", &task, &rows, &example);
    assert_int_equal(example.choice_count, 2);
    assert_int_equal(example.choice_answer, 1);
    assert_string_equal(example.system, "own");
    release(&task, &rows, &example);
}

static void test_render_letters(void **state)
{
    struct task task;
    struct dataset rows;
    struct task_example example;
    render(*state, "", "{'prompt': 'p', 'answer': 'C', 'choices': ['w', 'x', 'y', 'z']}", &task,
           &rows, &example);
    assert_int_equal(example.choice_count, 4);
    assert_int_equal(example.choice_answer, 2);
    assert_string_equal(example.choices[3], "D");
    release(&task, &rows, &example);
    render(*state, "", "{'prompt': 'p', 'answer': 'E', 'choices': ['w', 'x', 'y', 'z']}", &task,
           &rows, &example);
    assert_int_equal(example.choice_answer, -1);
    assert_string_equal(example.choices[3], "z");
    release(&task, &rows, &example);
    render(*state, "", "{'prompt': 'p', 'answer': 'B', 'choices': ['B', 'A']}", &task, &rows,
           &example);
    assert_int_equal(example.choice_answer, 0);
    release(&task, &rows, &example);
}

static void test_render_without_answer(void **state)
{
    struct task task;
    struct dataset rows;
    struct task_example example;
    render(*state, "'answer': ' {answer}'", "{'prompt': 'p', 'answer': ''}", &task, &rows,
           &example);
    assert_string_equal(example.answer, "");
    assert_string_equal(example.raw_answer, "");
    assert_null(example.choices);
    assert_int_equal(example.choice_answer, -1);
    release(&task, &rows, &example);
    render(*state, "'answer': ' {label}', 'predict': 'generate'", "{'prompt': 'p', 'label': 3}",
           &task, &rows, &example);
    assert_string_equal(example.answer, " 3");
    assert_string_equal(example.raw_answer, "3");
    release(&task, &rows, &example);
    render(*state, "", "{'prompt': 'p', 'answer': ['a', 'b']}", &task, &rows, &example);
    assert_string_equal(example.raw_answer, "a; b");
    release(&task, &rows, &example);
}

static void test_render_chat(void **state)
{
    struct task task;
    struct dataset rows;
    struct task_example example;
    render(*state, "",
           "{'messages': [{'role': 'system', 'content': 's'}, {'role': 'user', 'content': 'u'}, "
           "{'role': 'assistant', "
           "'content': 'a'}]}",
           &task, &rows, &example);
    assert_int_equal(example.turn_count, 2);
    assert_string_equal(example.turns[0].role, "system");
    assert_string_equal(example.turns[1].content, "u");
    assert_string_equal(example.answer, "a");
    assert_string_equal(example.prompt, "s\nu");
    release(&task, &rows, &example);
}

static void expect_render_failure(const char *folder, const char *keys, const char *row_text,
                                  enum status expected, const char *part)
{
    struct task task;
    struct dataset rows;
    struct task_example example;
    fixture_task(folder, keys, &task);
    fixture_rows(&rows, row_text);
    struct error err = {0};
    assert_int_equal(task_render(&task, &rows.rows[0], &example, &err), expected);
    if (strstr(err.message, part) == NULL) {
        fail_msg("message: %s", err.message);
    }
    dataset_fini(&rows);
    task_fini(&task);
}

static void test_render_mistakes(void **state)
{
    expect_render_failure(*state, "", "{'answer': 'a', 'id': 3}", STATUS_INVALID,
                          "row has no field \"prompt\", has: answer, id");
    expect_render_failure(*state, "'template': '{x.y}'", "{'x': {}}", STATUS_INVALID,
                          "no field \"x.y\"");
    expect_render_failure(*state,
                          "'extract': {'s': {'field': 'q', 'pattern': '(.)'}}, 'template': '{s}'",
                          "{'prompt': 'x'}", STATUS_INVALID, "no field \"s\"");
    expect_render_failure(
        *state, "'extract': {'s': {'pattern': '^(a+)+$'}}, 'template': '{s}'",
        "{'prompt': 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'}",
        STATUS_LIMIT, "too much work");
    expect_render_failure(*state, "", "{'prompt': 'p', 'answer': 'a', 'choices': 'a'}",
                          STATUS_INVALID, "list of strings");
    expect_render_failure(*state, "", "{'prompt': 'p', 'answer': 'a', 'choices': ['a', 3]}",
                          STATUS_INVALID, "list of at most");
    expect_render_failure(*state, "", "{'messages': []}", STATUS_INVALID, "no field \"prompt\"");
    expect_render_failure(
        *state, "",
        "{'messages': [{'role': 'user', 'content': 'x'}, {'role': 'robot', 'content': 'y'}]}",
        STATUS_INVALID, "entry 2");
    expect_render_failure(*state, "",
                          "{'messages': [{'role': 'user', 'content': 'x'}, {'role': 'assistant'}]}",
                          STATUS_INVALID, "entry 2");
    expect_render_failure(*state, "", "{'messages': [{'role': 'assistant', 'content': 'x'}]}",
                          STATUS_INVALID, "no field \"prompt\"");
}

/* ---- splits ---- */

static void expect_load(const char *folder, const char *keys, const char *split_text,
                        enum task_split split, enum status expected, const char *part)
{
    struct task task;
    fixture_write(folder, "test.jsonl", "");
    fixture_task(folder, keys, &task);
    static const char *const names[] = {"train.jsonl", "dev.jsonl", "test.jsonl"};
    fixture_write(folder, names[split], split_text);
    struct dataset rows;
    struct error err = {0};
    enum status status = task_load_split(&task, split, &rows, &err);
    if (status != expected || strstr(err.message, part) == NULL) {
        fail_msg("%s: %s", status_name(status), err.message);
    }
    if (status == STATUS_OK) {
        dataset_fini(&rows);
    }
    task_fini(&task);
}

static void test_load_split(void **state)
{
#define TEST_FILE "'test': 'test.jsonl'"
#define GENERATE "'predict': 'generate', 'test': 'test.jsonl'"
    static const char *const good = "{\"prompt\": \"p\", \"answer\": \"a\"}\n";
    static const char *const no_answer =
        "{\"prompt\": \"p\", \"answer\": \"a\"}\n\n{\"prompt\": \"p\"}\n";
    static const char *const empty_answer = "{\"prompt\": \"p\", \"answer\": \"\"}\n";
    expect_load(*state, GENERATE, good, TASK_TRAIN, STATUS_OK, "");
    expect_load(*state, GENERATE, no_answer, TASK_TRAIN, STATUS_INVALID,
                "train.jsonl:3: row has no field \"answer\", has: prompt");
    expect_load(*state, GENERATE, no_answer, TASK_VALIDATION, STATUS_INVALID,
                "dev.jsonl:3: row has no field");
    expect_load(*state, GENERATE, no_answer, TASK_TEST, STATUS_OK, "");
    expect_load(*state, GENERATE, empty_answer, TASK_TRAIN, STATUS_OK, "");
    expect_load(*state, GENERATE, empty_answer, TASK_TEST, STATUS_OK, "");
    expect_load(*state, GENERATE, "", TASK_TRAIN, STATUS_INVALID, "no rows");
    expect_load(*state, GENERATE, "{\"prompt\": \n", TASK_TEST, STATUS_FORMAT, "test.jsonl:1");
    expect_load(*state, TEST_FILE, good, TASK_TRAIN, STATUS_OK, "");
    expect_load(*state, TEST_FILE, good, TASK_VALIDATION, STATUS_INVALID,
                "dev.jsonl:1: row has no \"choices\"");
    expect_load(*state, TEST_FILE ", 'labels': ['x', 'y']", good, TASK_VALIDATION, STATUS_INVALID,
                "the answer \"a\" is none of the row's 2 choices (\"x\", ...)");
    expect_load(*state, TEST_FILE ", 'labels': ['x', 'a']", good, TASK_VALIDATION, STATUS_OK, "");
    expect_load(*state, "", good, TASK_TEST, STATUS_NOT_FOUND, "has no test split");
    expect_load(*state, GENERATE ", 'limit': {'train': 1}", no_answer, TASK_TRAIN, STATUS_OK, "");
#undef TEST_FILE
#undef GENERATE
}

static void test_no_memory(void **state)
{
    for (int n = 1;; n++) {
        cJSON *object = fixture_json(
            "{'train': 't.jsonl', 'validation': 't.jsonl', 'extract': {'s': {'pattern': '(.*)'}}, "
            "'labels': ['a', 'b'], 'system': 'x', 'template': '{s}', 'stop': ['.']}");
        fixture_write(*state, "t.jsonl", "{\"prompt\": \"p\", \"answer\": \"a\"}\n");
        struct json_problems problems;
        json_problems_init(&problems);
        struct task task;
        struct dataset rows;
        dataset_init(&rows);
        struct error err = {0};
        mem_fail_nth(n);
        enum status status = task_read(object, "", *state, &problems, &task, &err);
        if (status == STATUS_OK && problems.count == 0) {
            status = task_load_split(&task, TASK_VALIDATION, &rows, &err);
        }
        mem_fail_nth(0);
        bool done = status == STATUS_OK && problems.count == 0;
        dataset_fini(&rows);
        task_fini(&task);
        json_problems_fini(&problems);
        cJSON_Delete(object);
        if (done) {
            assert_true(n > 10);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_mistakes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_many, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_render, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_render_letters, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_render_without_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_render_chat, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_render_mistakes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_load_split, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_memory, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
