/* Every scorer of the registry, by hand, against other programs' values, and with what a broken
 * model may write. */
#include "eval/scoring.h"

#include <math.h>

#include "base/rng.h"
#include "eval/labels.h"
#include "eval/utf8.h"

static const double tolerance = 1e-12;
static const char sentiments[] = "[\"negative\", \"positive\"]";
static const char four_texts[] =
    "[\"first text\", \"second text\", \"third text\", \"fourth text\"]";

static void test_registry(void **state)
{
    (void)state;
    int count = 0;
    for (const struct scorer *const *scorer = scorer_list(); *scorer != NULL; scorer++, count++) {
        assert_ptr_equal(scorer_find((*scorer)->name), *scorer);
        assert_true(strlen((*scorer)->summary) > 10);
        assert_true((*scorer)->worst < (*scorer)->best);
        assert_true((*scorer)->mean_of_rows || (*scorer)->standard_error != NULL);
    }
    assert_int_equal(count, 6);
    assert_null(scorer_find("Accuracy"));
    assert_null(scorer_find(""));
}

static void test_accuracy(void **state)
{
    (void)state;
    /* equal but for case and white space */
    assert_true(scoring_one("accuracy", "positive", "  Positive\n", sentiments) == 1.0);
    assert_true(scoring_one("accuracy", "positive", "negative", sentiments) == 0.0);
    /* the first label mentioned, as whole words */
    assert_true(scoring_one("accuracy", "positive", "It is positive, not negative.", sentiments) ==
                1.0);
    assert_true(scoring_one("accuracy", "negative", "It is positive, not negative.", sentiments) ==
                0.0);
    assert_true(scoring_one("accuracy", "positive", "seropositive, so negative", sentiments) ==
                0.0);
    assert_true(scoring_one("accuracy", "positive", "positively", sentiments) == 0.0);
    assert_true(scoring_one("accuracy", "positive", "no idea", sentiments) == 0.0);
    assert_true(scoring_one("accuracy", "positive", "", sentiments) == 0.0);
    /* of labels that begin at one place the longest */
    assert_true(scoring_one("accuracy", "very good", "Very good!", "[\"very\", \"very good\"]") ==
                1.0);
    assert_true(scoring_one("accuracy", "very", "Very good!", "[\"very\", \"very good\"]") == 0.0);
    /* without labels: the whole text */
    assert_true(scoring_one("accuracy", "42", " 42 ", NULL) == 1.0);
    assert_true(scoring_one("accuracy", "42", "it is 42", NULL) == 0.0);
    /* text without spaces between words */
    assert_true(scoring_one("accuracy", "盗窃", "罪名是盗窃罪", "[\"诈骗\", \"盗窃\"]") == 1.0);
}

static void test_accuracy_letters(void **state)
{
    (void)state;
    assert_true(scoring_one("accuracy", "B", "B", four_texts) == 1.0);
    assert_true(scoring_one("accuracy", "B", "The answer is B.", four_texts) == 1.0);
    assert_true(scoring_one("accuracy", "A", "a good answer is B", four_texts) == 0.0);
    assert_true(scoring_one("accuracy", "B", "a good answer is B", four_texts) == 1.0);
    assert_true(scoring_one("accuracy", "B", "b", four_texts) == 1.0);
    assert_true(scoring_one("accuracy", "D", "正确答案：D。", four_texts) == 1.0);
    /* E is no letter of four choices: the answer stands for itself */
    assert_true(scoring_one("accuracy", "E", "E", four_texts) == 1.0);
    assert_true(scoring_one("accuracy", "E", "it is E", four_texts) == 0.0);
}

static void test_labels_of_the_task(void **state)
{
    (void)state;
    struct scoring_rows scoring = {0};
    struct error err;
    scoring.task.labels[0] = "yes";
    scoring.task.labels[1] = "no";
    scoring.task.label_count = 2;
    scoring_add(&scoring, "no", "Well, no.", NULL);
    scoring_add(&scoring, "yes", "I do not know", NULL);
    scoring_add(&scoring, "yes", "yes",
                "[\"maybe\"]"); /* the row's own choices do not hold the answer */
    assert_int_equal(scoring_run(&scoring, "accuracy", &err), STATUS_OK);
    assert_true(scoring.row_score[0] == 1.0);
    assert_true(scoring.row_score[1] == 0.0);
    assert_true(scoring.row_score[2] == 1.0);
    assert_true(fabs(scoring.score - 2.0 / 3.0) < tolerance);
    scoring_fini(&scoring);
}

static void test_exact_match(void **state)
{
    (void)state;
    assert_true(scoring_one("exact_match", "The  Cat sat.", "the cat\n sat", NULL) == 1.0);
    assert_true(scoring_one("exact_match", "the cat", "the cats", NULL) == 0.0);
    assert_true(scoring_one("exact_match", "", "", NULL) == 1.0);
    assert_true(scoring_one("exact_match", "?", "", NULL) == 0.0);
    assert_true(scoring_one("exact_match", "答案。", "答案", NULL) == 1.0);
    assert_true(scoring_one("exact_match", "ÉTÉ", "été!", NULL) == 1.0);
    assert_true(scoring_one("exact_match", "C#", "C", NULL) == 0.0);
    assert_true(scoring_one("exact_match", "1.5", "15", NULL) == 0.0);
}

static void test_rouge_by_hand(void **state)
{
    (void)state;
    /* 5 of 6 in order: the, cat, sat | on, the, mat -> "the sat on the" has 4 */
    double rouge1 = scoring_one("rouge1", "the cat sat on the mat", "the mat sat on the cat", NULL);
    double rouge_l =
        scoring_one("rougeL", "the cat sat on the mat", "the mat sat on the cat", NULL);
    assert_true(fabs(rouge1 - 1.0) < tolerance);
    assert_true(fabs(rouge_l - 4.0 / 6.0) < tolerance);
    /* precision 2/2, recall 2/4 */
    assert_true(fabs(scoring_one("rouge1", "a b c d", "A, B", NULL) - 2.0 / 3.0) < tolerance);
    assert_true(scoring_one("rougeL", "", "", NULL) == 0.0);
    /* one token of 129, which stands at both ends: the carry passes a word without a match */
    char answer[129 * 2 + 1] = {0};
    for (int i = 0; i < 129; i++) {
        answer[2 * i] = i == 0 || i == 128 ? 'a' : 'b';
        answer[2 * i + 1] = ' ';
    }
    assert_true(fabs(scoring_one("rougeL", answer, "a", NULL) - 2.0 / 130.0) < tolerance);
}

/* The plain way: a table of all pairs. */
static int64_t slow_subsequence(const char *a, const char *b, int64_t n)
{
    int64_t row[512] = {0};
    for (int64_t i = 0; i < n; i++) {
        int64_t diagonal = 0;
        for (int64_t j = 0; j < n; j++) {
            int64_t above = row[j + 1];
            int64_t longer = above > row[j] ? above : row[j];
            row[j + 1] = a[2 * i] == b[2 * j] ? diagonal + 1 : longer;
            diagonal = above;
        }
    }
    return row[n];
}

static void test_rouge_l_against_the_plain_way(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 5, 0);
    for (int round = 0; round < 60; round++) {
        char a[600] = {0};
        char b[600] = {0};
        int64_t n = 1 + (int64_t)rng_below(&rng, 280);
        uint64_t letters = 1 + rng_below(&rng, 12);
        for (int64_t i = 0; i < n; i++) {
            a[2 * i] = (char)('a' + (int)rng_below(&rng, letters));
            b[2 * i] = (char)('a' + (int)rng_below(&rng, letters));
            a[2 * i + 1] = b[2 * i + 1] = ' ';
        }
        double expected = (double)slow_subsequence(a, b, n) / (double)n;
        assert_true(fabs(scoring_one("rougeL", a, b, NULL) - expected) < tolerance);
    }
}

static cJSON *read_golden(void)
{
    cJSON *golden = NULL;
    struct error err;
    enum status status =
        json_parse_file(TEST_SOURCE_DIR "/golden/eval/scorers.json", 1 << 20, &golden, &err);
    if (status != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return golden;
}

static void test_rouge_golden(void **state)
{
    (void)state;
    cJSON *golden = read_golden();
    const cJSON *item = NULL;
    int count = 0;
    cJSON_ArrayForEach (item, cJSON_GetObjectItem(golden, "rouge")) {
        const char *answer = cJSON_GetArrayItem(item, 0)->valuestring;
        const char *output = cJSON_GetArrayItem(item, 1)->valuestring;
        double rouge1 = cJSON_GetArrayItem(item, 2)->valuedouble;
        double rouge_l = cJSON_GetArrayItem(item, 3)->valuedouble;
        assert_true(fabs(scoring_one("rouge1", answer, output, NULL) - rouge1) < tolerance);
        assert_true(fabs(scoring_one("rougeL", answer, output, NULL) - rouge_l) < tolerance);
        count++;
    }
    assert_true(count > 25);
    cJSON_Delete(golden);
}

static void check_macro_f1_set(const cJSON *set, bool with_labels)
{
    struct scoring_rows scoring = {0};
    struct error err;
    const cJSON *item = NULL;
    scoring.task.separator = cJSON_GetObjectItem(set, "separator")->valuestring;
    cJSON_ArrayForEach (item, cJSON_GetObjectItem(set, "labels")) {
        if (with_labels) {
            scoring.task.labels[scoring.task.label_count++] = item->valuestring;
        }
    }
    cJSON_ArrayForEach (item, cJSON_GetObjectItem(set, "rows")) {
        scoring_add(&scoring, cJSON_GetArrayItem(item, 0)->valuestring,
                    cJSON_GetArrayItem(item, 1)->valuestring, NULL);
    }
    assert_int_equal(scoring_run(&scoring, "macro_f1", &err), STATUS_OK);
    double expected = cJSON_GetObjectItem(set, "macro_f1")->valuedouble;
    assert_true(fabs(scoring.score - expected) < tolerance);
    scoring_fini(&scoring);
}

static void test_macro_f1_golden(void **state)
{
    (void)state;
    cJSON *golden = read_golden();
    const cJSON *sets = cJSON_GetObjectItem(golden, "macro_f1");
    const cJSON *set = NULL;
    cJSON_ArrayForEach (set, sets) {
        check_macro_f1_set(set, true);
    }
    /* forty rows ask for every label, so that those collected from the answers are the same */
    check_macro_f1_set(cJSON_GetArrayItem(sets, 0), false);
    cJSON_Delete(golden);
}

static void test_macro_f1_by_hand(void **state)
{
    (void)state;
    struct scoring_rows scoring = {0};
    struct error err;
    scoring.task.separator = "; ";
    scoring_add(&scoring, "red; blue", "Blue;red.", NULL); /* order, case and closing punctuation */
    scoring_add(&scoring, "red", "green; red",
                NULL); /* green is no label: neither right nor wrong */
    scoring_add(&scoring, "none", "", NULL);
    scoring_add(&scoring, "blue", "none", NULL);
    assert_int_equal(scoring_run(&scoring, "macro_f1", &err), STATUS_OK);
    /* red: 2 tp; blue: 1 tp, 1 fn */
    assert_true(fabs(scoring.score - (1.0 + 2.0 / 3.0) / 2.0) < tolerance);
    assert_true(scoring.row_score[0] == 1.0);
    assert_true(scoring.row_score[2] == 1.0);
    assert_true(scoring.row_score[3] == 0.0);
    scoring_fini(&scoring);
}

static void test_macro_f1_errors(void **state)
{
    (void)state;
    struct scoring_rows scoring = {0};
    struct error err;
    scoring_add(&scoring, "none", "none", NULL);
    assert_int_equal(scoring_run(&scoring, "macro_f1", &err), STATUS_INVALID);
    scoring_fini(&scoring);
    char many[4096] = "";
    for (int i = 0; i < 300; i++) {
        snprintf(many + strlen(many), sizeof(many) - strlen(many), "label %d;", i);
    }
    scoring.task.separator = ";";
    scoring_add(&scoring, many, many, NULL);
    assert_int_equal(scoring_run(&scoring, "macro_f1", &err), STATUS_LIMIT);
    assert_non_null(strstr(err.message, "label 256"));
    assert_non_null(strstr(err.message, "\"labels\""));
    scoring_fini(&scoring);
}

/* A megabyte of one thing, invalid bytes, cut characters, nothing: scored without a fault, in the
 * range. */
static void test_hostile_outputs(void **state)
{
    (void)state;
    enum { BIG = 1 << 20 };
    static const char *const fillings[] = {"a ",       "x",         "\xFF\xFE", "\xE4\xBD",
                                           "\xF0\x9F", "\xC0\x80 ", "positive", "。"};
    char *big = mem_calloc(BIG + 1, 1);
    assert_non_null(big);
    for (size_t f = 0; f < sizeof(fillings) / sizeof(fillings[0]); f++) {
        size_t unit = strlen(fillings[f]);
        for (size_t i = 0; i < BIG; i++) {
            big[i] = fillings[f][i % unit];
        }
        for (const struct scorer *const *scorer = scorer_list(); *scorer != NULL; scorer++) {
            if (strcmp((*scorer)->name, "command") == 0) {
                continue;
            }
            double score = scoring_one((*scorer)->name, "positive thing", big, sentiments);
            assert_true(score >= 0.0 && score <= 1.0);
        }
    }
    free(big);
}

static void test_missing_texts(void **state)
{
    (void)state;
    struct scoring_rows scoring = {0};
    struct error err;
    scoring_add(&scoring, "positive", "positive", sentiments);
    scoring.rows[0].output = NULL;
    scoring.rows[0].prompt = NULL;
    assert_int_equal(scoring_run(&scoring, "accuracy", &err), STATUS_OK);
    assert_true(scoring.score == 0.0);
    assert_int_equal(scoring_run(&scoring, "exact_match", &err), STATUS_OK);
    assert_true(scoring.score == 0.0);
    scoring.rows[0].answer = NULL;
    assert_int_equal(scoring_run(&scoring, "rougeL", &err), STATUS_OK);
    assert_true(scoring.score == 0.0);
    scoring_fini(&scoring);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (const struct scorer *const *scorer = scorer_list(); *scorer != NULL; scorer++) {
        if (strcmp((*scorer)->name, "command") == 0) {
            continue;
        }
        bool failed = true;
        for (int64_t n = 1; failed && n < 200; n++) {
            struct scoring_rows scoring = {0};
            struct error err;
            scoring.task.separator = ";";
            scoring_add(&scoring, "positive", "so positive", sentiments);
            mem_fail_nth(n);
            enum status status = scoring_run(&scoring, (*scorer)->name, &err);
            mem_fail_nth(0);
            failed = status != STATUS_OK;
            scoring_fini(&scoring);
        }
        assert_false(failed); /* in the end no allocation was left to fail */
    }
}

static void test_utf8(void **state)
{
    (void)state;
    assert_int_equal(utf8_cut("ab\xE4\xBD\xA0", 5, 4), 2);
    assert_int_equal(utf8_cut("ab\xE4\xBD\xA0", 5, 5), 5);
    assert_int_equal(utf8_cut("\xF0\x9F\x98\x80", 4, 3), 0);
    assert_int_equal(utf8_cut("\x80\x80\x80\x80\x80\x80", 6, 5),
                     2); /* no character is that long: cut anywhere */
    char *copy = utf8_copy_cut("ab\xE4\xBD\xA0", 4);
    assert_string_equal(copy, "ab");
    free(copy);
    copy = utf8_copy_cut("a\xFF", 100);
    assert_string_equal(copy, "a\xEF\xBF\xBD");
    free(copy);
    copy = utf8_copy_cut("\xFF\xFF\xFF\xFF", 4); /* three bytes each: the second does not fit */
    assert_string_equal(copy, "\xEF\xBF\xBD");
    free(copy);
    copy = utf8_copy_cut(NULL, 4);
    assert_string_equal(copy, "");
    free(copy);
    struct buffer valid;
    buffer_init(&valid, 100);
    utf8_append_valid(&valid, "a\0b\xED\xA0\x80", 6); /* a NUL, and half of a surrogate pair */
    assert_true(json_utf8_valid(buffer_text(&valid), valid.len_bytes));
    assert_int_equal(strlen(buffer_text(&valid)), valid.len_bytes);
    buffer_fini(&valid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registry),
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_accuracy_letters),
        cmocka_unit_test(test_labels_of_the_task),
        cmocka_unit_test(test_exact_match),
        cmocka_unit_test(test_rouge_by_hand),
        cmocka_unit_test(test_rouge_l_against_the_plain_way),
        cmocka_unit_test(test_rouge_golden),
        cmocka_unit_test(test_macro_f1_golden),
        cmocka_unit_test(test_macro_f1_by_hand),
        cmocka_unit_test(test_macro_f1_errors),
        cmocka_unit_test(test_hostile_outputs),
        cmocka_unit_test(test_missing_texts),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
