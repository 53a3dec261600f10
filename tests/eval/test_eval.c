/* A model on a split: choices against the plain way to find them, generation, groups, every error.
 * test_scoring.c is the same of outputs that are given. */
#include "eval/eval_fixture.h"

#include <math.h>

#include "data/encode.h"

static struct eval_result evaluate(const struct loaded *loaded, const struct task *task,
                                   const struct dataset *rows, const struct eval_options *options)
{
    struct eval_result result;
    struct error err;
    enum status status = eval_run(loaded->model, &loaded->network, task, CHAT_PLAIN, rows, options,
                                  NULL, &result, &err);
    if (status != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return result;
}

/* ---- choices ---- */

/* Loss of one choice of one row: alone in its pass, from the logits, in double. */
static double plain_nats(const struct loaded *loaded, struct transformer *transformer,
                         const struct task *task, const struct task_example *example,
                         const char *choice, int64_t *answer_tokens)
{
    struct token_list ids;
    struct error err;
    int64_t answer = 0;
    bool truncated = false;
    token_list_init(&ids, 1000);
    assert_int_equal(encode_prompt(task, loaded->model->tokenizer, CHAT_PLAIN, example, choice,
                                   loaded->model->config.max_positions, &ids, &answer, &truncated,
                                   &err),
                     STATUS_OK);
    int64_t vocab = loaded->model->config.vocab_size;
    int32_t positions[64];
    int32_t targets[64];
    int32_t starts[2] = {0, (int32_t)ids.count};
    assert_true(ids.count <= 64);
    for (int32_t i = 0; i < ids.count; i++) {
        positions[i] = i;
        targets[i] = -1;
    }
    struct batch batch = {ids.count, 1, ids.ids, positions, targets, starts, 0};
    float *logits = mem_calloc((size_t)(ids.count * vocab), sizeof(*logits));
    assert_int_equal(transformer_logits(transformer, &loaded->network, &batch, positions, ids.count,
                                        logits, &err),
                     STATUS_OK);
    double nats = 0;
    for (int64_t i = answer; i < ids.count; i++) {
        const float *row = logits + (i - 1) * vocab;
        double sum = 0;
        for (int64_t v = 0; v < vocab; v++) {
            sum += exp((double)row[v]);
        }
        nats += log(sum) - (double)row[ids.ids[i]];
    }
    *answer_tokens = ids.count - answer;
    free(logits);
    token_list_fini(&ids);
    return nats;
}

static void test_choices_against_the_plain_way(void **state)
{
    (void)state;
    struct loaded loaded;
    struct task task;
    struct dataset rows;
    struct error err;
    struct transformer *transformer = NULL;
    struct transformer_options options = {.max_tokens = 64, .compute = DTYPE_F32};
    struct eval_options eval_options = {.max_cases = 100, .batch_tokens = SMALL_BATCH};
    load_tiny(&loaded);
    choice_task(&task);
    make_rows(&rows);
    assert_int_equal(
        transformer_create(loaded.device, &loaded.network, &options, &transformer, &err),
        STATUS_OK);
    int right = 0;
    double nats_sum = 0;
    int64_t tokens_sum = 0;
    for (int64_t i = 0; i < rows.count; i++) {
        struct task_example example;
        assert_int_equal(task_render(&task, &rows.rows[i], &example, &err), STATUS_OK);
        int best = 0;
        double nats[3];
        int64_t tokens[3];
        for (int k = 0; k < 3; k++) {
            nats[k] =
                plain_nats(&loaded, transformer, &task, &example, example.choices[k], &tokens[k]);
            best = nats[k] < nats[best] ? k : best;
        }
        right += best == example.choice_answer;
        nats_sum += nats[example.choice_answer];
        tokens_sum += tokens[example.choice_answer];
        task_example_fini(&example);
    }
    struct eval_result result = evaluate(&loaded, &task, &rows, &eval_options);
    double expected = (double)right / ROWS;
    assert_true(fabs(result.score - expected) < 1e-12);
    assert_true(fabs(result.loss - nats_sum / (double)tokens_sum) < 1e-4);
    assert_true(fabs(result.standard_error - sqrt(expected * (1 - expected) / (ROWS - 1))) < 1e-12);
    assert_int_equal(result.rows, ROWS);
    assert_int_equal(result.format_failures, 0);
    assert_int_equal(result.unfinished, 0);
    assert_int_equal(result.case_count, ROWS - right);
    int64_t confused = 0;
    for (int i = 0; i < result.confusion_count; i++) {
        confused += result.confusions[i].count;
        assert_true(i == 0 || result.confusions[i].count <= result.confusions[i - 1].count);
        assert_string_not_equal(result.confusions[i].expected, result.confusions[i].found);
    }
    assert_int_equal(confused, ROWS - right);
    assert_string_equal(
        result.cases[0].answer,
        cJSON_GetObjectItem(rows.rows[result.cases[0].row].object, "answer")->valuestring);
    eval_result_fini(&result);
    transformer_destroy(transformer);
    dataset_fini(&rows);
    task_fini(&task);
    unload(&loaded);
}

/* Whatever the passes are cut into, the score is the same. */
static void test_batches_do_not_matter(void **state)
{
    (void)state;
    struct loaded loaded;
    struct task task;
    struct dataset rows;
    load_tiny(&loaded);
    choice_task(&task);
    make_rows(&rows);
    struct eval_options options = {.batch_tokens = 1};
    struct eval_result one = evaluate(&loaded, &task, &rows, &options);
    options.batch_tokens = 0;
    struct eval_result all = evaluate(&loaded, &task, &rows, &options);
    assert_true(one.score == all.score);
    assert_true(fabs(one.loss - all.loss) < 1e-5);
    assert_int_equal(one.case_count, 0);
    eval_result_fini(&one);
    eval_result_fini(&all);
    dataset_fini(&rows);
    task_fini(&task);
    unload(&loaded);
}

/* Choices that are equal: the first is taken. A wrong letter is named as a letter. */
static void test_letters(void **state)
{
    (void)state;
    struct loaded loaded;
    struct task task;
    struct dataset rows;
    struct error err;
    struct eval_options options = {.max_cases = 10};
    load_tiny(&loaded);
    read_task("{\"name\": \"t\", \"train\": \"eval_train.jsonl\", \"validation\": "
              "\"eval_validation.jsonl\", \"metric\": \"accuracy\"}",
              &task);
    dataset_init(&rows);
    for (int i = 0; i < 12; i++) {
        char answer[2] = {(char)('A' + i % 3), '\0'};
        cJSON *object =
            cJSON_Parse("{\"prompt\": \"abc\", \"choices\": [\"an abbey\", \"a bee\", \"a sea\"]}");
        cJSON_AddStringToObject(object, "answer", answer);
        assert_int_equal(dataset_append(&rows, object, "rows.jsonl", i + 1, &err), STATUS_OK);
    }
    struct eval_result result = evaluate(&loaded, &task, &rows, &options);
    assert_true(fabs(result.score - 1.0 / 3.0) < 1e-12); /* one prompt: always the same letter */
    assert_int_equal(result.confusion_count, 2);
    assert_int_equal(result.confusions[0].count, 4);
    assert_int_equal(strlen(result.confusions[0].found), 1);
    assert_string_equal(result.confusions[0].found, result.confusions[1].found);
    eval_result_fini(&result);
    dataset_fini(&rows);
    task_fini(&task);
    unload(&loaded);
}

static void test_long_prompts_are_cut(void **state)
{
    (void)state;
    struct loaded loaded;
    struct task task;
    struct dataset rows;
    struct error err;
    struct eval_options options = {0};
    char prompt[200] = {0};
    memset(prompt, 'k', sizeof(prompt) - 1);
    load_tiny(&loaded);
    make_rows(&rows);
    cJSON_ReplaceItemInObject(rows.rows[5].object, "prompt", cJSON_CreateString(prompt));
    choice_task(&task);
    struct eval_result result = evaluate(&loaded, &task, &rows, &options);
    assert_int_equal(result.truncated, 1);
    eval_result_fini(&result);
    task_fini(&task);
    generate_task(&task, "accuracy");
    result = evaluate(&loaded, &task, &rows, &options);
    assert_int_equal(result.truncated, 1);
    eval_result_fini(&result);
    /* an answer that the model can never hold: no choice at all, but no loss to measure either way
     */
    cJSON_ReplaceItemInObject(rows.rows[5].object, "answer", cJSON_CreateString(prompt));
    result = evaluate(&loaded, &task, &rows, &options);
    assert_true(isfinite(result.loss));
    eval_result_fini(&result);
    task_fini(&task);
    choice_task(&task);
    cJSON_AddItemToObject(rows.rows[5].object, "choices",
                          cJSON_CreateStringArray((const char *[]){prompt, "a"}, 2));
    assert_int_equal(eval_run(loaded.model, &loaded.network, &task, CHAT_PLAIN, &rows, &options,
                              NULL, &result, &err),
                     STATUS_LIMIT);
    assert_non_null(strstr(err.message, "rows.jsonl:6"));
    task_fini(&task);
    dataset_fini(&rows);
    unload(&loaded);
}

/* ---- generation ---- */

static void test_generation(void **state)
{
    (void)state;
    static const char *const metrics[] = {"accuracy", "exact_match", "macro_f1", "rouge1",
                                          "rougeL"};
    struct loaded loaded;
    struct dataset rows;
    struct eval_options options = {.max_cases = 5, .seed = 3};
    load_tiny(&loaded);
    make_rows(&rows);
    for (size_t m = 0; m < sizeof(metrics) / sizeof(metrics[0]); m++) {
        struct task task;
        generate_task(&task, metrics[m]);
        struct eval_result first = evaluate(&loaded, &task, &rows, &options);
        struct eval_result second = evaluate(&loaded, &task, &rows, &options);
        assert_true(first.score >= 0 && first.score <= 1);
        assert_true(first.score == second.score && first.standard_error == second.standard_error);
        assert_true(isfinite(first.loss) && first.loss > 0);
        assert_int_equal(first.case_count, 5);
        for (int64_t i = 0; i < 5; i++) {
            assert_int_equal(first.cases[i].row, second.cases[i].row);
            assert_string_equal(first.cases[i].output, second.cases[i].output);
            assert_true(i == 0 || first.cases[i].row > first.cases[i - 1].row);
        }
        /* random letters are hardly ever labels, and mostly run on */
        assert_true(first.format_failures > ROWS / 2);
        assert_true(first.unfinished > 0);
        eval_result_fini(&first);
        eval_result_fini(&second);
        task_fini(&task);
    }
    dataset_fini(&rows);
    unload(&loaded);
}

/* ---- groups ---- */

static void check_group(const struct loaded *loaded, const struct task *task,
                        const struct dataset *rows, int size)
{
    struct error err;
    struct eval_options options = {.max_cases = 4, .seed = 8};
    struct eval_predictions all;
    struct eval_result result;
    struct eval_result alone = evaluate(loaded, task, rows, &options);
    assert_int_equal(eval_predictions_init(&all, rows->count, &err), STATUS_OK);
    options.size = size;
    for (int rank = 0; rank < size; rank++) {
        struct eval_predictions part;
        struct buffer bytes;
        buffer_init(&bytes, 1 << 20);
        options.rank = rank;
        assert_int_equal(eval_predictions_init(&part, rows->count, &err), STATUS_OK);
        assert_int_equal(eval_predict(loaded->model, &loaded->network, task, CHAT_PLAIN, rows,
                                      &options, NULL, &part, &err),
                         STATUS_OK);
        for (int64_t i = 0; i < rows->count; i++) {
            assert_true((part.rows[i].output != NULL) == (i % size == rank));
        }
        assert_int_equal(eval_predictions_pack(&part, &bytes, &err), STATUS_OK);
        assert_int_equal(eval_predictions_unpack(&all, buffer_text(&bytes), bytes.len_bytes, &err),
                         STATUS_OK);
        buffer_fini(&bytes);
        eval_predictions_fini(&part);
    }
    assert_int_equal(eval_score(task, rows, &all, &options, &result, &err), STATUS_OK);
    assert_true(result.score == alone.score && result.standard_error == alone.standard_error);
    assert_true(fabs(result.loss - alone.loss) < 1e-5);
    assert_int_equal(result.unfinished, alone.unfinished);
    assert_int_equal(result.case_count, alone.case_count);
    for (int64_t i = 0; i < result.case_count; i++) {
        assert_string_equal(result.cases[i].output, alone.cases[i].output);
    }
    eval_result_fini(&result);
    eval_result_fini(&alone);
    eval_predictions_fini(&all);
}

static void test_groups(void **state)
{
    (void)state;
    struct loaded loaded;
    struct task task;
    struct dataset rows;
    load_tiny(&loaded);
    make_rows(&rows);
    choice_task(&task);
    check_group(&loaded, &task, &rows, 2);
    check_group(&loaded, &task, &rows, ROWS + 2); /* ranks without rows */
    task_fini(&task);
    generate_task(&task, "accuracy");
    check_group(&loaded, &task, &rows, 3);
    task_fini(&task);
    dataset_fini(&rows);
    unload(&loaded);
}

static void test_damaged_bytes(void **state)
{
    (void)state;
    struct error err;
    struct eval_predictions whole;
    struct buffer bytes;
    buffer_init(&bytes, 1 << 16);
    fill(&whole, (const char *[]){"one", "", "three"}, 3);
    assert_int_equal(eval_predictions_pack(&whole, &bytes, &err), STATUS_OK);
    for (size_t length = 0; length <= bytes.len_bytes + 1; length++) {
        struct eval_predictions copy;
        assert_int_equal(eval_predictions_init(&copy, 3, &err), STATUS_OK);
        char *cut = mem_calloc(length + 1,
                               1); /* of just this length: the sanitizer sees a read beyond it */
        memcpy(cut, bytes.data, length < bytes.len_bytes ? length : bytes.len_bytes);
        enum status status = eval_predictions_unpack(&copy, cut, length, &err);
        assert_int_equal(status, length == bytes.len_bytes ? STATUS_OK : STATUS_CORRUPT);
        free(cut);
        eval_predictions_fini(&copy);
    }
    for (size_t i = 0; i < bytes.len_bytes; i++) {
        struct eval_predictions copy;
        assert_int_equal(eval_predictions_init(&copy, 3, &err), STATUS_OK);
        bytes.data[i] = (char)(bytes.data[i] ^ 0x80);
        enum status status = eval_predictions_unpack(&copy, bytes.data, bytes.len_bytes, &err);
        assert_true(status == STATUS_OK || status == STATUS_CORRUPT);
        bytes.data[i] = (char)(bytes.data[i] ^ 0x80);
        eval_predictions_fini(&copy);
    }
    assert_int_equal(eval_predictions_unpack(&whole, bytes.data, bytes.len_bytes, &err),
                     STATUS_CORRUPT); /* twice */
    assert_non_null(strstr(err.message, "twice"));
    buffer_fini(&bytes);
    buffer_init(&bytes, 10);
    assert_int_equal(eval_predictions_pack(&whole, &bytes, &err), STATUS_LIMIT);
    buffer_fini(&bytes);
    eval_predictions_fini(&whole);
}

/* ---- errors ---- */

static enum status run_status(const struct loaded *loaded, const struct task *task,
                              const struct dataset *rows, const struct eval_options *options,
                              const struct progress *progress, struct error *err)
{
    struct eval_result result = {.rows = -7};
    enum status status = eval_run(loaded->model, &loaded->network, task, CHAT_PLAIN, rows, options,
                                  progress, &result, err);
    assert_true(status == STATUS_OK || result.rows == -7); /* untouched */
    if (status == STATUS_OK) {
        eval_result_fini(&result);
    }
    return status;
}

static enum status stop_second(void *context, const char *phase, int64_t done, int64_t total,
                               struct error *err)
{
    int *left = context;
    assert_string_equal(phase, "evaluate");
    assert_true(done <= total);
    return (*left)-- > 0 ? STATUS_OK : FAIL(err, STATUS_INTERRUPTED, "stopped");
}

static void test_errors(void **state)
{
    (void)state;
    struct loaded loaded;
    struct task task;
    struct dataset rows;
    struct dataset nothing;
    struct error err;
    struct eval_options options = {.size = 2, .batch_tokens = SMALL_BATCH};
    load_tiny(&loaded);
    make_rows(&rows);
    dataset_init(&nothing);
    choice_task(&task);
    assert_int_equal(run_status(&loaded, &task, &rows, &options, NULL, &err), STATUS_UNSUPPORTED);
    options.size = 1;
    assert_int_equal(run_status(&loaded, &task, &nothing, &options, NULL, &err), STATUS_INVALID);
    for (int ticks = 0; ticks < 2; ticks++) {
        int left = ticks;
        struct progress progress = {stop_second, &left};
        assert_int_equal(run_status(&loaded, &task, &rows, &options, &progress, &err),
                         STATUS_INTERRUPTED);
    }
    task.label_count = 0; /* the labels are still there to be freed */
    enum status status = run_status(&loaded, &task, &rows, &options, NULL, &err);
    assert_int_equal(status, STATUS_INVALID);
    assert_non_null(strstr(err.message, "rows.jsonl:1"));
    task.label_count = 3;
    free(task.metric);
    task.metric = mem_strdup("bleu");
    assert_int_equal(run_status(&loaded, &task, &rows, &options, NULL, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "bleu"));
    task_fini(&task);
    generate_task(&task, "rouge1");
    int left = 1;
    struct progress progress = {stop_second, &left};
    assert_int_equal(run_status(&loaded, &task, &rows, &options, &progress, &err),
                     STATUS_INTERRUPTED);
    task_fini(&task);
    dataset_fini(&rows);
    unload(&loaded);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct loaded loaded;
    struct task task;
    struct dataset rows;
    struct eval_options options = {.max_cases = 2};
    load_tiny(&loaded);
    make_rows(&rows);
    keep_rows(&rows, 3);
    for (int kind = 0; kind < 2; kind++) {
        if (kind == 0) {
            choice_task(&task);
        } else {
            generate_task(&task, "macro_f1");
        }
        enum status status = STATUS_NO_MEMORY;
        int64_t n = 1;
        for (; status != STATUS_OK && n < 5000; n++) {
            struct error err;
            mem_fail_nth(n);
            status = run_status(&loaded, &task, &rows, &options, NULL, &err);
            mem_fail_nth(0);
        }
        assert_int_equal(status, STATUS_OK);
        assert_true(n > 20);
        task_fini(&task);
    }
    dataset_fini(&rows);
    unload(&loaded);
}

/* ---- real rows ---- */

/* stories260K knows nothing of sentiment: about one half is right, and the error says how far that
 * can be trusted. */
static void test_stories_on_sst2(void **state)
{
    (void)state;
    struct loaded loaded;
    struct task task;
    struct dataset rows;
    struct error err;
    char json[FILE_PATH_BYTES + 400];
    const char *bench = getenv("FTBENCH");
    if (bench == NULL) {
        print_message("skipped: set FTBENCH to a folder that holds sst2/dev.jsonl\n");
        skip();
        return; /* not reached: for the compiler, which does not know that skip() jumps */
    }
    load_stories(&loaded);
    snprintf(
        json, sizeof(json),
        "{\"name\": \"sst2\", \"train\": \"%s/sst2/train.jsonl\", \"validation\": "
        "\"%s/sst2/dev.jsonl\", "
        "\"extract\": {\"sentence\": {\"field\": \"prompt\", \"pattern\": \"Sentence: (.*)\"}}, "
        "\"template\": \"{sentence} =>\", \"answer\": \" {answer}\", \"metric\": \"accuracy\", "
        "\"limit\": {\"validation\": 200}}",
        bench, bench);
    read_task(json, &task);
    assert_int_equal(task_load_split(&task, TASK_VALIDATION, &rows, &err), STATUS_OK);
    struct eval_options options = {.max_cases = 8};
    struct eval_result result = evaluate(&loaded, &task, &rows, &options);
    print_message("accuracy %.3f +- %.4f, loss %.3f, %.2f s\n", result.score, result.standard_error,
                  result.loss, result.seconds);
    assert_int_equal(result.rows, 200);
    assert_true(result.score > 0.35 && result.score < 0.65);
    assert_true(result.standard_error > 0.033 && result.standard_error < 0.036);
    assert_int_equal(result.case_count, 8);
    eval_result_fini(&result);
    dataset_fini(&rows);
    task_fini(&task);
    unload(&loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choices_against_the_plain_way),
        cmocka_unit_test(test_batches_do_not_matter),
        cmocka_unit_test(test_letters),
        cmocka_unit_test(test_long_prompts_are_cut),
        cmocka_unit_test(test_generation),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_damaged_bytes),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_stories_on_sst2),
    };
    return cmocka_run_group_tests(tests, write_splits, NULL);
}
