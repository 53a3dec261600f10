/* Scoring what is given, without a model: diagnosis, odd outputs, one row. */
#include "eval/eval_fixture.h"

#include <math.h>

static void test_diagnosis_of_labels(void **state)
{
    (void)state;
    /* answers in turn: ab, c, dead, ab, c, dead */
    static const char *const outputs[] = {"ab", "dead!", "It is dead", "c", "dead", "who knows"};
    struct task task;
    struct dataset rows;
    struct error err;
    struct eval_predictions predictions;
    struct eval_result result;
    struct eval_options options = {.max_cases = 2};
    generate_task(&task, "accuracy");
    make_rows(&rows);
    keep_rows(&rows, 6);
    fill(&predictions, outputs, 6);
    predictions.rows[1].unfinished = true;
    predictions.rows[2].truncated = true;
    predictions.rows[2].answer_nats = 3;
    predictions.rows[2].answer_tokens = 2;
    assert_int_equal(eval_score(&task, &rows, &predictions, &options, &result, &err), STATUS_OK);
    assert_true(fabs(result.score - 2.0 / 6.0) < 1e-12);
    assert_int_equal(result.format_failures, 1);
    assert_int_equal(result.unfinished, 1);
    assert_int_equal(result.truncated, 1);
    assert_true(result.loss == 1.5);
    assert_int_equal(result.confusion_count, 3);
    assert_string_equal(result.confusions[0].expected, "c");
    assert_string_equal(result.confusions[0].found, "dead");
    assert_int_equal(result.confusions[0].count, 2);
    assert_string_equal(result.confusions[1].found, "c");
    assert_string_equal(result.confusions[2].found, EVAL_NO_LABEL);
    assert_int_equal(result.case_count, 2);
    assert_true(result.cases[0].row < result.cases[1].row);
    eval_result_fini(&result);
    eval_predictions_fini(&predictions);
    dataset_fini(&rows);
    task_fini(&task);
}

static void test_diagnosis_of_label_sets(void **state)
{
    (void)state;
    static const char *const outputs[] = {"ab; c", "c", "none", "", "c; junk", "dead"};
    struct task task;
    struct dataset rows;
    struct error err;
    struct eval_predictions predictions;
    struct eval_result result;
    struct eval_options options = {0};
    generate_task(&task, "macro_f1");
    make_rows(&rows);
    keep_rows(&rows, 6);
    fill(&predictions, outputs, 6);
    assert_int_equal(eval_score(&task, &rows, &predictions, &options, &result, &err), STATUS_OK);
    /* ab 1 of 2; c 2 right and 1 too much; dead 1 of 2 */
    assert_true(fabs(result.score - (2.0 / 3 + 4.0 / 5 + 2.0 / 3) / 3) < 1e-12);
    assert_true(result.standard_error > 0.02 && result.standard_error < 0.5);
    assert_int_equal(result.format_failures, 2); /* the empty one, and junk */
    assert_int_equal(result.confusion_count, 3);
    assert_string_equal(result.confusions[0].expected, EVAL_NO_LABEL);
    assert_string_equal(result.confusions[0].found, "c");
    assert_true(isnan(result.loss));
    eval_result_fini(&result);
    eval_predictions_fini(&predictions);
    dataset_fini(&rows);
    task_fini(&task);
}

static void test_long_and_broken_cases(void **state)
{
    (void)state;
    enum { BIG = 1 << 20 };
    struct task task;
    struct dataset rows;
    struct error err;
    struct eval_predictions predictions;
    struct eval_result result;
    struct eval_options options = {.max_cases = 10};
    generate_task(&task, "accuracy");
    make_rows(&rows);
    keep_rows(&rows, 2);
    char *big = mem_calloc(BIG + 1, 1);
    for (int i = 0; i < BIG; i++) {
        big[i] = "\xE4\xBD\xA0"[i % 3];
    }
    fill(&predictions, (const char *[]){big, "\xFF\xFE"}, 2);
    assert_int_equal(eval_score(&task, &rows, &predictions, &options, &result, &err), STATUS_OK);
    assert_int_equal(result.case_count, 2);
    assert_int_equal(strlen(result.cases[0].output), 2046); /* 682 characters of three bytes */
    assert_true(json_utf8_valid(result.cases[0].output, 2046));
    assert_string_equal(result.cases[1].output, "\xEF\xBF\xBD\xEF\xBF\xBD");
    assert_int_equal(result.format_failures, 2);
    free(big);
    eval_result_fini(&result);
    eval_predictions_fini(&predictions);
    dataset_fini(&rows);
    task_fini(&task);
}

static void test_one_row(void **state)
{
    (void)state;
    struct task task;
    struct dataset rows;
    struct error err;
    struct eval_predictions predictions;
    struct eval_result result;
    struct eval_options options = {0};
    generate_task(&task, "accuracy");
    make_rows(&rows);
    keep_rows(&rows, 1);
    fill(&predictions, (const char *[]){"ab"}, 1);
    assert_int_equal(eval_score(&task, &rows, &predictions, &options, &result, &err), STATUS_OK);
    assert_true(result.score == 1.0 && result.standard_error == 0.5);
    eval_result_fini(&result);
    free(predictions.rows[0].output);
    predictions.rows[0].output = NULL;
    assert_int_equal(eval_score(&task, &rows, &predictions, &options, &result, &err),
                     STATUS_INVALID);
    eval_predictions_fini(&predictions);
    dataset_fini(&rows);
    task_fini(&task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_diagnosis_of_labels),
        cmocka_unit_test(test_diagnosis_of_label_sets),
        cmocka_unit_test(test_long_and_broken_cases),
        cmocka_unit_test(test_one_row),
    };
    return cmocka_run_group_tests(tests, write_splits, NULL);
}
