/* The real tasks of FT-Bench, where their folder is named by $FTBENCH: all load, render and pass
 * recipes. */
#include "data/encode.h"
#include "data/packer.h"
#include "fixture.h"

struct bench {
    const char *folder;
    const char *keys; /* of the task, beside its splits */
    int64_t rows[TASK_SPLIT_COUNT];
};

static const struct bench benches[] = {
    {"sst2",
     "'extract': {'sentence': {'pattern': 'Sentence: (.*)'}}, 'template': '{sentence} =>', "
     "'answer': ' {answer}'",
     {6909, 872, 1521}},
    {"cs_bench", "'metric': 'accuracy'", {978, 194, 600}},
    {"hoc", "'metric': 'macro_f1', 'separator': '; '", {1000, 183, 166}},
    {"aci_bench", "'metric': 'rouge1', 'max_new_tokens': 1024", {67, 20, 40}},
    {"tomg_bench", "'metric': 'command', 'command': ['true']", {4084, 359, 900}},
    {"omebench", "'metric': 'command', 'command': ['true']", {168, 15, 45}},
    {"lawbench", "'metric': 'rougeL'", {1296, 160, 500}},
};

enum { BENCHES = sizeof(benches) / sizeof(benches[0]) };

struct splits {
    struct task task;
    struct dataset rows[TASK_SPLIT_COUNT];
};

static const char *bench_root(void)
{
    const char *root = getenv("FTBENCH");
    if (root == NULL || root[0] == '\0') {
        print_message("FTBENCH is not set: the real tasks are not tested\n");
        skip();
    }
    return root;
}

static void load(const char *root, const struct bench *bench, struct splits *out)
{
    char folder[FILE_PATH_BYTES];
    char text[2048];
    struct error err = {0};
    assert_int_equal(file_join(root, bench->folder, folder, &err), STATUS_OK);
    snprintf(text, sizeof(text),
             "{'train': 'train.jsonl', 'validation': 'dev.jsonl', 'test': 'test.jsonl', %s}",
             bench->keys);
    cJSON *object = fixture_json(text);
    struct json_problems problems;
    json_problems_init(&problems);
    assert_int_equal(task_read(object, "/task", folder, &problems, &out->task, &err), STATUS_OK);
    if (problems.count > 0) {
        fail_msg("%s: %s", bench->folder, buffer_text(&problems.text));
    }
    json_problems_fini(&problems);
    cJSON_Delete(object);
    for (int split = 0; split < TASK_SPLIT_COUNT; split++) {
        if (task_load_split(&out->task, (enum task_split)split, &out->rows[split], &err) !=
            STATUS_OK) {
            fail_msg("%s", err.message);
        }
        assert_int_equal(out->rows[split].count, bench->rows[split]);
    }
}

static void release(struct splits *splits)
{
    for (int split = 0; split < TASK_SPLIT_COUNT; split++) {
        dataset_fini(&splits->rows[split]);
    }
    task_fini(&splits->task);
}

static void test_load_and_render(void **state)
{
    (void)state;
    const char *root = bench_root();
    for (int b = 0; b < BENCHES; b++) {
        struct splits splits;
        load(root, &benches[b], &splits);
        for (int split = 0; split < TASK_SPLIT_COUNT; split++) {
            for (int64_t i = 0; i < splits.rows[split].count; i++) {
                struct task_example example;
                struct error err = {0};
                assert_int_equal(
                    task_render(&splits.task, &splits.rows[split].rows[i], &example, &err),
                    STATUS_OK);
                assert_true(example.prompt[0] != '\0');
                assert_true(example.answer[0] != '\0' || (split == TASK_TEST && b == 4));
                if (splits.task.predict == TASK_PREDICT_CHOICE) {
                    assert_in_range(example.choice_answer, 0, example.choice_count - 1);
                    assert_string_equal(example.choices[example.choice_answer], example.answer);
                }
                task_example_fini(&example);
            }
        }
        release(&splits);
    }
}

static void run_twice(const struct splits *splits, const char *folder, struct recipe_report *report)
{
    cJSON *recipe = fixture_json(
        "[{'op': 'dedup', 'fold': true}, {'op': 'length', 'max': 20000}, {'op': 'overlap', "
        "'ngram': 13, 'action': 'report'}, {'op': 'shuffle'}, {'op': 'sample', 'fraction': 0.8}]");
    struct recipe_context context = {.task = &splits->task,
                                     .train = &splits->rows[TASK_TRAIN],
                                     .validation = &splits->rows[TASK_VALIDATION],
                                     .test = &splits->rows[TASK_TEST],
                                     .folder = folder,
                                     .seed = 1,
                                     .max_samples = 50000};
    char hashes[2][33];
    for (int i = 0; i < 2; i++) {
        struct dataset rows;
        struct error err = {0};
        if (recipe_run(recipe, &context, &rows, report, &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        assert_true(rows.count > splits->rows[TASK_TRAIN].count / 2);
        dataset_hash(&rows, hashes[i]);
        dataset_fini(&rows);
    }
    assert_string_equal(hashes[0], hashes[1]);
    cJSON_Delete(recipe);
}

static void test_recipes(void **state)
{
    (void)state;
    const char *root = bench_root();
    for (int b = 0; b < BENCHES; b++) {
        struct splits splits;
        struct recipe_report report;
        load(root, &benches[b], &splits);
        run_twice(&splits, root, &report);
        for (int i = 0; i < report.step_count; i++) {
            print_message("%-10s %-8s %5lld -> %5lld  %s\n", benches[b].folder, report.steps[i].op,
                          (long long)report.steps[i].rows_in, (long long)report.steps[i].rows_out,
                          report.steps[i].note);
        }
        release(&splits);
    }
}

/* The splits of these tasks were made disjoint by prompt, so nothing may be removed at the end. */
static void test_splits_are_disjoint(void **state)
{
    (void)state;
    const char *root = bench_root();
    for (int b = 0; b < BENCHES; b++) {
        struct splits splits;
        struct recipe_report report;
        struct dataset rows;
        struct error err = {0};
        load(root, &benches[b], &splits);
        struct recipe_context context = {.task = &splits.task,
                                         .train = &splits.rows[TASK_TRAIN],
                                         .validation = &splits.rows[TASK_VALIDATION],
                                         .test = &splits.rows[TASK_TEST]};
        assert_int_equal(recipe_run(NULL, &context, &rows, &report, &err), STATUS_OK);
        int64_t removed = splits.rows[TASK_TRAIN].count - rows.count;
        print_message("%-10s %lld training rows overlap\n", benches[b].folder, (long long)removed);
        assert_in_range(removed, 0, 20);
        dataset_fini(&rows);
        release(&splits);
    }
}

static void test_encode_and_pack(void **state)
{
    (void)state;
    const char *root = bench_root();
    char *folder = fixture_folder();
    fixture_write_tokenizer(folder, false);
    struct tokenizer *tokenizer = NULL;
    struct error err = {0};
    assert_int_equal(tokenizer_load(folder, &tokenizer, &err), STATUS_OK);
    for (int b = 0; b < BENCHES; b++) {
        struct splits splits;
        load(root, &benches[b], &splits);
        struct encode_options options = {.chat = CHAT_CHATML, .max_length = 4096};
        struct encoded_dataset data;
        if (encode_dataset(&splits.task, tokenizer, &splits.rows[TASK_TRAIN], &options, &data,
                           &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        assert_int_equal(data.count + data.dropped, splits.rows[TASK_TRAIN].count);
        assert_true(data.answer_tokens > 0 && data.answer_tokens < data.start[data.count]);
        struct packer *packer = NULL;
        assert_int_equal(packer_create(&data, 8192, 1, true, &packer, &err), STATUS_OK);
        print_message("%-10s %lld tokens, %lld cut, %lld dropped, fill %.3f\n", benches[b].folder,
                      (long long)data.start[data.count], (long long)data.truncated,
                      (long long)data.dropped, packer_fill(packer));
        assert_true(packer_fill(packer) > 0.8);
        packer_destroy(packer);
        encoded_dataset_fini(&data);
        release(&splits);
    }
    tokenizer_destroy(tokenizer);
    fixture_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_and_render),
        cmocka_unit_test(test_recipes),
        cmocka_unit_test(test_splits_are_disjoint),
        cmocka_unit_test(test_encode_and_pack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
