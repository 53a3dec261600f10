/* Dry runs of plans, and the samples that a researcher is shown: on a tiny random model. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "run/dry_run.h"
#include "run/facts.h"

static const char base_folder[] = TEST_SOURCE_DIR "/golden/model/llama";

enum { ROWS = 900, ROWS_HELD_OUT = 20 };

struct fixture {
    char folder[FILE_PATH_BYTES];
    struct job job;
    struct workspace workspace;
};

static void write_rows(const struct fixture *fixture, const char *name, int first, int count)
{
    char path[FILE_PATH_BYTES];
    struct buffer text;
    struct error err;
    buffer_init(&text, 1 << 22);
    for (int i = first; i < first + count; i++) {
        buffer_printf(&text,
                      "{\"prompt\": \"row %d\", \"answer\": \"%s\", \"kind\": \"%s\", "
                      "\"choices\": [\"a\", \"b\"]}\n",
                      i, i % 10 == 0 ? "b" : "a", i == 7 ? "rare" : "usual");
    }
    assert_int_equal(file_join(fixture->folder, name, path, &err), STATUS_OK);
    assert_int_equal(file_write(path, buffer_text(&text), text.len_bytes, &err), STATUS_OK);
    buffer_fini(&text);
}

/* Rows 0 to ROWS train; 100 to 119 stand in validation too, and 200 to 219 in test. */
static int open_fixture(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error err = {0};
    struct json_problems problems;
    char path[FILE_PATH_BYTES];
    char text[2 * FILE_PATH_BYTES];
    snprintf(fixture->folder, sizeof(fixture->folder), "%s/dry-XXXXXX", TEST_BINARY_DIR);
    assert_non_null(mkdtemp(fixture->folder));
    write_rows(fixture, "train.jsonl", 0, ROWS);
    write_rows(fixture, "dev.jsonl", 100, ROWS_HELD_OUT);
    write_rows(fixture, "test.jsonl", 200, ROWS_HELD_OUT);
    snprintf(text, sizeof(text),
             "{\"model\": \"%s\", \"output\": \"%s/run\", \"task\": {\"name\": \"t\", \"train\": "
             "\"train.jsonl\", \"validation\": \"dev.jsonl\", \"test\": \"test.jsonl\", \"chat\": "
             "\"plain\", \"metric\": \"accuracy\", \"predict\": \"choice\"}, \"researcher\": "
             "{\"provider\": \"openai\", \"model\": \"m\", \"endpoint\": "
             "\"http://127.0.0.1:1\"}, \"limits\": {\"agent_tokens\": 1000}, \"compute\": "
             "{\"backend\": \"cpu\", \"precision\": \"f32\", \"batch_tokens\": 256}}",
             base_folder, fixture->folder);
    assert_int_equal(file_join(fixture->folder, "job.json", path, &err), STATUS_OK);
    assert_int_equal(file_write(path, text, strlen(text), &err), STATUS_OK);
    json_problems_init(&problems);
    if (job_read(path, NULL, &problems, &fixture->job, &err) != STATUS_OK) {
        fail_msg("%s: %s", err.message, buffer_text(&problems.text));
    }
    json_problems_fini(&problems);
    if (workspace_open(&fixture->job, 1, 0, NULL, &fixture->workspace, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    *state = fixture;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *fixture = *state;
    static const char *const names[] = {"train.jsonl", "dev.jsonl", "test.jsonl", "job.json"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[FILE_PATH_BYTES];
        struct error err;
        assert_int_equal(file_join(fixture->folder, names[i], path, &err), STATUS_OK);
        remove(path);
    }
    assert_int_equal(remove(fixture->folder), 0); /* a dry run has left nothing */
    workspace_close(&fixture->workspace);
    job_fini(&fixture->job);
    free(fixture);
    return 0;
}

static enum status try(struct fixture *fixture, const char *recipe_text, const char *configs_text,
                       const struct progress *progress, cJSON **result, struct error *err)
{
    cJSON *recipe = cJSON_Parse(recipe_text);
    cJSON *configs = cJSON_Parse(configs_text);
    memset(err, 0, sizeof(*err));
    enum status status = dry_run(&fixture->workspace, recipe, configs, progress, result, err);
    cJSON_Delete(recipe);
    cJSON_Delete(configs);
    return status;
}

static const char two_configs[] =
    "[{\"method\": \"lora\", \"learning_rate\": 0.001, \"epochs\": 3}, "
    "{\"method\": \"full\", \"learning_rate\": 0.001, \"epochs\": 1, \"accumulation\": 8}]";

static void test_plans_that_run(void **state)
{
    struct fixture *fixture = *state;
    struct error err;
    cJSON *result = NULL;
    if (try(fixture, "[{\"op\": \"dedup\"}]", two_configs, NULL, &result, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    const cJSON *losses = cJSON_GetObjectItemCaseSensitive(result, "losses");
    assert_int_equal(cJSON_GetArraySize(losses), 2);
    assert_true(cJSON_GetArrayItem(losses, 0)->valuedouble > 0.0);
    /* Some hundreds of the rows, without those that are held out. */
    double rows = cJSON_GetObjectItemCaseSensitive(result, "rows")->valuedouble;
    assert_true(rows > 350.0 && rows <= 400.0);
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(result, "recipe_report")) > 0);
    cJSON_Delete(result);
    /* A filter that keeps a row in a thousand finds it among all of them. */
    const char *rare = "[{\"op\": \"filter\", \"field\": \"kind\", \"equals\": \"rare\"}]";
    if (try(fixture, rare, two_configs, NULL, &result, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_float_equal(cJSON_GetObjectItemCaseSensitive(result, "rows")->valuedouble, 1.0, 0.0);
    cJSON_Delete(result);
}

static void test_plans_that_do_not(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        const char *recipe, *configs, *expected;
        enum status status;
    } cases[] = {
        {"[{\"op\": \"load\", \"path\": \"nowhere.jsonl\"}]", two_configs, "nowhere.jsonl",
         STATUS_NOT_FOUND},
        {"[{\"op\": \"filter\", \"field\": \"kind\", \"equals\": \"none\"}]", two_configs,
         "configuration 0", STATUS_INVALID},
        {"[]", "[{\"method\": \"lora\"}, {\"method\": \"magic\"}]", "configuration 1",
         STATUS_INVALID},
        {"[]", "[]", "0 configurations", STATUS_FORMAT},
        {"[]", "{}", "0 configurations", STATUS_FORMAT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err;
        cJSON *result = NULL;
        assert_int_equal(try(fixture, cases[i].recipe, cases[i].configs, NULL, &result, &err),
                         cases[i].status);
        assert_null(result);
        if (strstr(err.message, cases[i].expected) == NULL) {
            fail_msg("expected \"%s\" in: %s", cases[i].expected, err.message);
        }
    }
}

static enum status stop(void *context, const char *phase, int64_t done, int64_t total,
                        struct error *err)
{
    (void)phase;
    (void)done;
    (void)total;
    return ++*(int *)context > 5 ? FAIL(err, STATUS_INTERRUPTED, "stopped") : STATUS_OK;
}

static void test_a_stop(void **state)
{
    struct fixture *fixture = *state;
    int ticks = 0;
    const struct progress progress = {.tick = stop, .context = &ticks};
    struct error err;
    cJSON *result = NULL;
    assert_int_equal(try(fixture, "[]", two_configs, &progress, &result, &err), STATUS_INTERRUPTED);
    assert_null(result);
}

static void test_the_base_model_is_known(void **state)
{
    struct fixture *fixture = *state;
    const struct model *model = NULL;
    struct error err;
    struct workspace other;
    workspace_init(&fixture->job, 1, NULL, &other);
    other.device = fixture->workspace.device;
    assert_int_equal(workspace_model(&fixture->workspace, DTYPE_F32, NULL, &model, &err),
                     STATUS_OK);
    snprintf(other.checksum, sizeof(other.checksum), "%s", model->hash);
    assert_int_equal(workspace_model(&other, DTYPE_F32, NULL, &model, &err), STATUS_OK);
    model_destroy(other.models[DTYPE_F32]);
    other.models[DTYPE_F32] = NULL;
    other.checksum[0] = other.checksum[0] == '0' ? '1' : '0';
    assert_int_equal(workspace_model(&other, DTYPE_F32, NULL, &model, &err), STATUS_IO);
    assert_non_null(strstr(err.message, "not those that this search began with"));
    model_destroy(other.models[DTYPE_F32]);
}

static void test_samples(void **state)
{
    struct fixture *fixture = *state;
    struct researcher_facts facts;
    struct researcher_facts again;
    struct model *model = NULL;
    struct error err = {0};
    assert_int_equal(model_inspect(base_folder, &model, &err), STATUS_OK);
    if (facts_gather(&fixture->workspace, model, TRAIN_F32, 0, &facts, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(facts_gather(&fixture->workspace, model, TRAIN_F32, 0, &again, &err),
                     STATUS_OK);
    assert_int_equal(facts.sample_count, RESEARCHER_SAMPLES_MAX);
    int rare = 0;
    int last = -1;
    for (int i = 0; i < facts.sample_count; i++) {
        int row = -1;
        assert_int_equal(sscanf(facts.samples[i].prompt, "row %d", &row), 1);
        assert_true(row > last); /* spread over the rows */
        assert_false(row >= 100 && row < 100 + ROWS_HELD_OUT);
        assert_false(row >= 200 && row < 200 + ROWS_HELD_OUT);
        rare += strchr(facts.samples[i].answer, 'b') != NULL;
        assert_string_equal(facts.samples[i].prompt, again.samples[i].prompt);
        last = row;
    }
    assert_int_equal(rare, RESEARCHER_SAMPLES_MAX / 2); /* and over the labels */
    facts_fini(&facts);
    facts_fini(&again);
    model_destroy(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans_that_run), cmocka_unit_test(test_plans_that_do_not),
        cmocka_unit_test(test_a_stop),         cmocka_unit_test(test_the_base_model_is_known),
        cmocka_unit_test(test_samples),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
