/* Training configurations from JSON and back, and every mistake in them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/config.h"

static cJSON *parse(const char *text)
{
    cJSON *object = NULL;
    struct error err;
    assert_int_equal(json_parse(text, strlen(text), "test", &object, &err), STATUS_OK);
    return object;
}

/* Reads `text` over the defaults; returns the number of problems, whose text must hold `expected`.
 */
static int read_config(const char *text, const char *expected, struct train_config *config)
{
    struct json_problems problems;
    json_problems_init(&problems);
    cJSON *object = parse(text);
    *config = train_config_default();
    train_config_read(object, "/train", &problems, config);
    int count = problems.count;
    if (expected != NULL && strstr(buffer_text(&problems.text), expected) == NULL) {
        fail_msg("\"%s\" is not in: %s", expected, buffer_text(&problems.text));
    }
    cJSON_Delete(object);
    json_problems_fini(&problems);
    return count;
}

/* All fields, compared as text: structs have padding. */
static void assert_same_config(const struct train_config *a, const struct train_config *b)
{
    cJSON *left = train_config_to_json(a);
    cJSON *right = train_config_to_json(b);
    char *left_line = json_print_line(left);
    char *right_line = json_print_line(right);
    assert_string_equal(left_line, right_line);
    free(left_line);
    free(right_line);
    cJSON_Delete(left);
    cJSON_Delete(right);
}

static void test_empty_object_keeps_defaults(void **state)
{
    (void)state;
    struct train_config config;
    struct train_config expected = train_config_default();
    assert_int_equal(read_config("{}", NULL, &config), 0);
    assert_same_config(&config, &expected);
}

static void test_every_key_is_read(void **state)
{
    (void)state;
    struct train_config c;
    assert_int_equal(
        read_config(
            "{\"method\": \"full\", \"lora\": {\"rank\": 4, \"alpha\": 8, \"targets\": "
            "[\"q_proj\", "
            "\"down_proj\"]}, \"learning_rate\": 0.5, \"schedule\": \"linear\", \"warmup_ratio\": "
            "0.25, "
            "\"final_ratio\": 0.5, \"epochs\": 1.5, \"max_steps\": 7, \"batch_tokens\": 100, "
            "\"accumulation\": 3, \"sequence_length\": 50, \"beta1\": 0.8, \"beta2\": 0.9, "
            "\"epsilon\": 1e-6, "
            "\"weight_decay\": 0.3, \"clip_norm\": 2, \"precision\": \"bf16\", \"validations\": 9, "
            "\"patience\": 2, \"seed\": 77}",
            NULL, &c),
        0);
    assert_int_equal(c.method, TRAIN_FULL);
    assert_int_equal(c.lora.rank, 4);
    assert_true(c.lora.alpha == 8.0);
    assert_int_equal(c.lora.targets, LORA_QUERY | LORA_DOWN);
    assert_true(c.learning_rate == 0.5 && c.warmup_ratio == 0.25 && c.final_ratio == 0.5 &&
                c.epochs == 1.5);
    assert_int_equal(c.schedule, TRAIN_LINEAR);
    assert_int_equal(c.max_steps, 7);
    assert_int_equal(c.batch_tokens, 100);
    assert_int_equal(c.accumulation, 3);
    assert_int_equal(c.sequence_length, 50);
    assert_true(c.beta1 == 0.8 && c.beta2 == 0.9 && c.epsilon == 1e-6 && c.weight_decay == 0.3);
    assert_true(c.clip_norm == 2.0);
    assert_int_equal(c.precision, TRAIN_BF16);
    assert_int_equal(c.validations, 9);
    assert_int_equal(c.patience, 2);
    assert_int_equal(c.seed, 77);
}

static void test_json_round_trip(void **state)
{
    (void)state;
    struct train_config config = train_config_default();
    config.learning_rate = 1.0 / 3.0;
    config.lora.targets = LORA_ATTENTION;
    config.seed = UINT64_C(999999999999999);
    struct train_config again = train_config_default();
    struct json_problems problems;
    json_problems_init(&problems);
    for (int round = 0; round < 2; round++) {
        cJSON *object = train_config_to_json(&config);
        assert_non_null(object);
        char *line = json_print_line(object);
        cJSON *parsed = parse(line);
        train_config_read(parsed, "", &problems, &again);
        assert_int_equal(problems.count, 0);
        assert_same_config(&config, &again);
        assert_int_equal(again.seed, config.seed);
        assert_true(fabs(again.learning_rate * 3.0 - 1.0) < 1e-15);
        config.lora.targets = LORA_ALL; /* written as one word */
        free(line);
        cJSON_Delete(object);
        cJSON_Delete(parsed);
    }
    json_problems_fini(&problems);
}

/* Every key that is documented is read, and every key that is written is documented. */
static void test_keys_are_those_of_the_json(void **state)
{
    (void)state;
    struct train_config config = train_config_default();
    cJSON *object = train_config_to_json(&config);
    int documented = 0;
    for (const struct train_config_key *key = train_config_keys(); key->name != NULL; key++) {
        assert_non_null(cJSON_GetObjectItemCaseSensitive(object, key->name));
        assert_true(strlen(key->allowed) > 0 && strlen(key->meaning) > 0);
        documented++;
    }
    assert_int_equal(documented, cJSON_GetArraySize(object));
    cJSON_Delete(object);
}

static void test_mistakes_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"[1]", "/train: allowed is an object"},
        {"{\"learning_rat\": 1}", "/train/learning_rat: unknown key"},
        {"{\"method\": \"adapter\"}", "/train/method: found \"adapter\""},
        {"{\"schedule\": 3}", "/train/schedule"},
        {"{\"precision\": \"fp16\"}", "\"bf16\""},
        {"{\"learning_rate\": 0}", "/train/learning_rate"},
        {"{\"learning_rate\": \"1e-3\"}", "/train/learning_rate"},
        {"{\"warmup_ratio\": 1.5}", "/train/warmup_ratio"},
        {"{\"final_ratio\": -0.1}", "/train/final_ratio"},
        {"{\"epochs\": 0}", "/train/epochs"},
        {"{\"max_steps\": -1}", "/train/max_steps"},
        {"{\"max_steps\": 1.5}", "/train/max_steps"},
        {"{\"batch_tokens\": 0}", "/train/batch_tokens"},
        {"{\"batch_tokens\": 1e300}", "/train/batch_tokens"},
        {"{\"accumulation\": 0}", "/train/accumulation"},
        {"{\"sequence_length\": 8192}", "at most batch_tokens (4096)"},
        {"{\"beta1\": 1}", "/train/beta1"},
        {"{\"beta2\": -1}", "/train/beta2"},
        {"{\"epsilon\": 0}", "/train/epsilon"},
        {"{\"weight_decay\": 11}", "/train/weight_decay"},
        {"{\"clip_norm\": -1}", "/train/clip_norm"},
        {"{\"validations\": -1}", "/train/validations"},
        {"{\"validations\": 0, \"patience\": 1}", "/train/patience"},
        {"{\"seed\": 1e17}", "/train/seed"},
        {"{\"lora\": 16}", "/train/lora"},
        {"{\"lora\": {\"rank\": 0}}", "/train/lora/rank"},
        {"{\"lora\": {\"rank\": 257}}", "/train/lora/rank"},
        {"{\"lora\": {\"alpha\": 0}}", "/train/lora/alpha"},
        {"{\"lora\": {\"dropout\": 0.1}}", "/train/lora/dropout: unknown key"},
        {"{\"lora\": {\"targets\": []}}", "/train/lora/targets"},
        {"{\"lora\": {\"targets\": \"some\"}}", "/train/lora/targets: found some"},
        {"{\"lora\": {\"targets\": [\"q_proj\", \"x_proj\"]}}", "found x_proj"},
        {"{\"lora\": {\"targets\": [1]}}", "/train/lora/targets"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct train_config config;
        assert_int_equal(read_config(cases[i].text, cases[i].expected, &config), 1);
    }
}

static void test_all_mistakes_at_once_leave_the_rest(void **state)
{
    (void)state;
    struct train_config config;
    assert_int_equal(read_config("{\"epochs\": -1, \"seed\": 9, \"beta1\": 2, \"colour\": \"red\"}",
                                 NULL, &config),
                     3);
    assert_int_equal(config.seed, 9);
    assert_true(config.epochs == train_config_default().epochs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_object_keeps_defaults),
        cmocka_unit_test(test_every_key_is_read),
        cmocka_unit_test(test_json_round_trip),
        cmocka_unit_test(test_keys_are_those_of_the_json),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_all_mistakes_at_once_leave_the_rest),
    };
    return cmocka_run_group_tests_name("train.config", tests, NULL, NULL);
}
