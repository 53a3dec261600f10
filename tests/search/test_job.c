/* Job files: good ones, and every mistake with its pointer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "run/job.h"

static char path[FILE_PATH_BYTES];

static const char good_task[] =
    "\"task\": {\"name\": \"t\", \"train\": \"a.jsonl\", \"validation\": \"b.jsonl\", "
    "\"test\": \"c.jsonl\", \"metric\": \"accuracy\", \"predict\": \"choice\"}";

static int make_path(void **state)
{
    (void)state;
    snprintf(path, sizeof(path), "%s/job-XXXXXX", TEST_BINARY_DIR);
    if (mkdtemp(path) == NULL) {
        return -1;
    }
    size_t folder = strlen(path);
    for (char split = 'a'; split <= 'c'; split++) {
        struct error err;
        snprintf(path + folder, sizeof(path) - folder, "/%c.jsonl", split);
        if (file_write(path, "{}\n", 3, &err) != STATUS_OK) {
            return -1;
        }
    }
    snprintf(path + folder, sizeof(path) - folder, "/job.json");
    return 0;
}

static enum status read_job(const char *text, struct json_problems *problems, struct job *job,
                            struct error *err)
{
    struct error ignored = {0};
    assert_int_equal(file_write(path, text, strlen(text), &ignored), STATUS_OK);
    json_problems_init(problems);
    return job_read(path, NULL, problems, job, err);
}

static void assert_mistake(const char *keys, const char *expected)
{
    char text[4096];
    struct json_problems problems;
    struct job job;
    struct error err = {0};
    snprintf(text, sizeof(text), "{\"model\": \"m\", \"output\": \"o\", %s, %s}", good_task, keys);
    assert_int_equal(read_job(text, &problems, &job, &err), STATUS_INVALID);
    if (strstr(buffer_text(&problems.text), expected) == NULL) {
        fail_msg("expected \"%s\" in: %s", expected, buffer_text(&problems.text));
    }
    json_problems_fini(&problems);
}

static void test_a_good_job_with_defaults(void **state)
{
    (void)state;
    char text[4096];
    struct json_problems problems;
    struct job job;
    struct error err = {0};
    setenv("TREX_TEST_PLACE", "/somewhere", 1);
    snprintf(text, sizeof(text), "{\"model\": \"${TREX_TEST_PLACE}/m\", \"output\": \"o\", %s}",
             good_task);
    assert_int_equal(read_job(text, &problems, &job, &err), STATUS_OK);
    assert_string_equal(job.model, "/somewhere/m");
    assert_string_equal(job.policy->name, "uct");
    assert_string_equal(job.researcher.provider, "rules");
    assert_int_equal(job.rounds, 20);
    assert_int_equal(job.max_samples, 50000);
    assert_true(job.task.path[TASK_TRAIN][0] == '/'); /* relative to the job file */
    assert_non_null(strstr(job.task.path[TASK_TRAIN], "a.jsonl"));
    job_fini(&job);
    json_problems_fini(&problems);
}

static void test_every_mistake_at_once(void **state)
{
    (void)state;
    struct json_problems problems;
    struct job job;
    struct error err = {0};
    assert_int_equal(
        read_job("{\"modl\": \"m\", \"search\": {\"rounds\": -1, \"policy\": \"best\"}, "
                 "\"limits\": {\"samples\": 0.5}, \"compute\": {\"backend\": \"tpu\"}}",
                 &problems, &job, &err),
        STATUS_INVALID);
    static const char *const expected[] = {"/model: missing",
                                           "/task: missing",
                                           "/modl: unknown key",
                                           "/search/rounds: found -1",
                                           "/search/policy: found \"best\"",
                                           "/limits/samples: found 0.5",
                                           "/compute/backend: found \"tpu\""};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        if (strstr(buffer_text(&problems.text), expected[i]) == NULL) {
            fail_msg("expected \"%s\" in: %s", expected[i], buffer_text(&problems.text));
        }
    }
    json_problems_fini(&problems);
}

static void test_single_mistakes(void **state)
{
    (void)state;
    unsetenv("TREX_TEST_UNSET");
    assert_mistake("\"search\": {\"configurations\": 6}", "from 1 to 5");
    assert_mistake("\"search\": []", "/search: found []");
    assert_mistake("\"researcher\": {\"provider\": \"oracle\"}", "/researcher/provider");
    assert_mistake("\"researcher\": {\"provider\": \"azure\", \"model\": \"m\"}",
                   "/researcher/endpoint");
    assert_mistake("\"name\": 7", "/name: found 7");
    assert_mistake("\"compute\": {\"precision\": \"f64\"}", "/compute/precision");
    assert_mistake("\"keep_weights\": 0", "/keep_weights: found 0");
}

/* What is allowed is said once, also of keys with lists. */
static void test_each_allowed_key_is_told_once(void **state)
{
    (void)state;
    struct json_problems problems;
    struct job_researcher researcher;
    struct error err = {0};
    cJSON *object = cJSON_Parse("{\"provider\": \"rules\", \"folders\": [\"a\"], \"folder\": 7}");
    memset(&researcher, 0, sizeof(researcher));
    json_problems_init(&problems);
    assert_int_equal(job_researcher_read(object, ".", &problems, &researcher, &err), STATUS_OK);
    assert_int_equal(problems.count, 1);
    assert_non_null(strstr(buffer_text(&problems.text), ", data, folders, licences, "));
    job_researcher_fini(&researcher);
    json_problems_fini(&problems);
    cJSON_Delete(object);
}

static char *read_whole(const char *endpoint, struct json_problems *problems)
{
    char text[4096];
    struct job job;
    struct error err = {0};
    snprintf(text, sizeof(text),
             "{\"model\": \"m\", \"output\": \"o\", %s, \"limits\": {\"agent_tokens\": 9}, "
             "\"researcher\": {\"provider\": \"openai\", \"model\": \"m\", \"input_usd\": 0, "
             "\"output_usd\": 0, \"others\": [{\"model\": \"m\", \"input_usd\": 0, "
             "\"output_usd\": 0, %s}]}}",
             good_task, endpoint);
    bool good = read_job(text, problems, &job, &err) == STATUS_OK;
    if (good) {
        job_fini(&job);
    }
    return good ? NULL : strdup(err.message);
}

/* Keys where none belong are refused, and not told. */
static void test_keys(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\"key_env\": \"sk-canary-0123456789abcdef\"",
        "\"key_env\": \"hf_canary0123456789abcdef\"",
        "\"key_env\": \"AKIA0123456789CANARY\"",
        "\"key_env\": \"7_CANARY\"",
        "\"key_env\": [\"sk-canary-0123456789abcdef\"]",
        "\"key_env\": {\"key\": \"sk-canary-0123456789abcdef\"}",
        "\"endpoint\": \"https://user:canary@host/v1\"",
        "\"endpoint\": \"https://canary@host/v1\"",
        "\"endpoint\": \"sk-canary-0123456789abcdef\"",
        "\"endpoint\": \"https://host/v1?key=canary\"",
        "\"endpoint\": \"https://host/v1?api-version=1&X-Api-Key=canary\"",
        "\"endpoint\": \"https://host/v1?x=sk-canary-0123456789abcdef\"",
        "\"endpoint\": \"https://host/v1?sk-canary-0123456789abcdef\"",
        "\"endpoint\": \"https://host/v1#token=canary\"",
    };
    static const char *const good[] = {
        "\"key_env\": \"S2_API_KEY\"",
        "\"key_env\": \"_MY_OPENROUTER_KEY2\"",
        "\"key_env\": \"\"",
        "\"endpoint\": \"https://host:8/v1\"",
        "\"endpoint\": \"https://host/v1?api-version=2024-12-01-preview\"",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct json_problems problems;
        char *message = read_whole(bad[i], &problems);
        assert_non_null(message);
        const char *told = buffer_text(&problems.text);
        if (strcasestr(message, "canary") != NULL || strcasestr(told, "canary") != NULL ||
            strstr(told, "/researcher/others/0/") == NULL) {
            fail_msg("%s: %s: %s", bad[i], message, told);
        }
        free(message);
        json_problems_fini(&problems);
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct json_problems problems;
        char *message = read_whole(good[i], &problems);
        if (message != NULL) {
            fail_msg("%s: %s", good[i], message);
        }
        json_problems_fini(&problems);
    }
}

static void test_environment_and_splits(void **state)
{
    (void)state;
    struct json_problems problems;
    struct job job;
    struct error err = {0};
    unsetenv("TREX_TEST_UNSET");
    assert_int_equal(
        read_job("{\"model\": \"${TREX_TEST_UNSET}/m\", \"output\": \"o\", \"task\": "
                 "{\"name\": \"t\", \"train\": \"a\", \"validation\": \"a\", \"test\": "
                 "\"c\", \"metric\": \"luck\", \"predict\": \"choice\"}}",
                 &problems, &job, &err),
        STATUS_INVALID);
    const char *text = buffer_text(&problems.text);
    assert_non_null(strstr(text, "/model: the environment has no TREX_TEST_UNSET"));
    assert_non_null(strstr(text, "train and validation are the same file"));
    assert_non_null(strstr(text, "/task/metric: found \"luck\", allowed is one of \"accuracy\""));
    json_problems_fini(&problems);
}

static void test_files_that_are_no_jobs(void **state)
{
    (void)state;
    struct json_problems problems;
    struct job job;
    struct error err = {0};
    assert_int_equal(read_job("", &problems, &job, &err), STATUS_FORMAT);
    json_problems_fini(&problems);
    assert_int_equal(read_job("[1]", &problems, &job, &err), STATUS_INVALID);
    json_problems_fini(&problems);
    assert_int_equal(read_job("{\"model\": \"m\",", &problems, &job, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.message, "job.json:1:"));
    json_problems_fini(&problems);
    json_problems_init(&problems);
    assert_int_equal(job_read("/no/such/job.json", NULL, &problems, &job, &err), STATUS_NOT_FOUND);
    json_problems_fini(&problems);
}

/* ---- the schema and the reader know the same keys ---- */

static cJSON *read_schema(void)
{
    char name[FILE_PATH_BYTES];
    struct error err = {0};
    cJSON *schema = NULL;
    snprintf(name, sizeof(name), "%s/../jobs/job.schema.json", TEST_SOURCE_DIR);
    assert_int_equal(json_parse_file(name, 1 << 20, &schema, &err), STATUS_OK);
    return schema;
}

/* A value that a property's schema allows. */
static cJSON *sample_value(const cJSON *property)
{
    const cJSON *fallback = cJSON_GetObjectItemCaseSensitive(property, "default");
    const cJSON *choices = cJSON_GetObjectItemCaseSensitive(property, "enum");
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(property, "type");
    const cJSON *least = cJSON_GetObjectItemCaseSensitive(property, "minimum");
    if (fallback != NULL || cJSON_GetArraySize(choices) > 0) {
        return cJSON_Duplicate(fallback != NULL ? fallback : cJSON_GetArrayItem(choices, 0), true);
    }
    assert_true(cJSON_IsString(type));
    if (strcmp(type->valuestring, "string") == 0) {
        return cJSON_CreateString("x");
    }
    if (strcmp(type->valuestring, "boolean") == 0) {
        return cJSON_CreateTrue();
    }
    if (strcmp(type->valuestring, "array") == 0) {
        return cJSON_CreateArray();
    }
    return cJSON_CreateNumber(cJSON_IsNumber(least) ? least->valuedouble : 1.0);
}

static const cJSON *properties_of(const cJSON *schema, const char *section)
{
    const cJSON *properties = cJSON_GetObjectItemCaseSensitive(schema, "properties");
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(properties, section);
    properties = cJSON_GetObjectItemCaseSensitive(object, "properties");
    assert_non_null(properties);
    return properties;
}

static void fill_section(cJSON *job, const cJSON *schema, const char *section)
{
    cJSON *object = cJSON_AddObjectToObject(job, section);
    const cJSON *property = NULL;
    cJSON_ArrayForEach (property, properties_of(schema, section)) {
        cJSON_AddItemToObject(object, property->string, sample_value(property));
    }
}

/* All that the schema allows is read, with a language model and without. */
static void test_schema_is_read(void **state)
{
    (void)state;
    static const char *const sections[] = {"researcher", "search", "limits", "compute"};
    static const char *const providers[] = {"rules", "openai", "local"};
    cJSON *schema = read_schema();
    for (size_t p = 0; p < 3; p++) {
        char start[1024];
        snprintf(start, sizeof(start), "{\"model\": \"m\", \"output\": \"o\", %s}", good_task);
        cJSON *job = cJSON_Parse(start);
        for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
            fill_section(job, schema, sections[i]);
        }
        cJSON *researcher = cJSON_GetObjectItemCaseSensitive(job, "researcher");
        cJSON *limits = cJSON_GetObjectItemCaseSensitive(job, "limits");
        cJSON_ReplaceItemInObjectCaseSensitive(researcher, "provider",
                                               cJSON_CreateString(providers[p]));
        cJSON_ReplaceItemInObjectCaseSensitive(researcher, "endpoint",
                                               cJSON_CreateString("https://host/v1"));
        cJSON_ReplaceItemInObjectCaseSensitive(researcher, "key_env",
                                               cJSON_CreateString("HOST_KEY"));
        cJSON_ReplaceItemInObjectCaseSensitive(limits, "agent_tokens", cJSON_CreateNumber(1e6));
        cJSON_ReplaceItemInObjectCaseSensitive(limits, "agent_money_usd", cJSON_CreateNumber(1.0));
        if (strcmp(providers[p], "openai") != 0) { /* keys of endpoints, which these have not */
            static const char *const keys[] = {"model",      "endpoint",  "key_env",   "others",
                                               "structured", "input_usd", "output_usd"};
            for (size_t i = p == 2 ? 1 : 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
                cJSON_DeleteItemFromObjectCaseSensitive(researcher, keys[i]);
            }
        }
        char *text = cJSON_Print(job);
        struct json_problems problems;
        struct job read;
        struct error err = {0};
        enum status status = read_job(text, &problems, &read, &err);
        if (status != STATUS_OK) {
            fail_msg("%s: %s: %s", providers[p], err.message, buffer_text(&problems.text));
        }
        job_fini(&read);
        json_problems_fini(&problems);
        cJSON_free(text);
        cJSON_Delete(job);
    }
    cJSON_Delete(schema);
}

/* All keys that the reader of the researcher names stand in the schema. */
static void test_reader_is_in_the_schema(void **state)
{
    (void)state;
    char name[FILE_PATH_BYTES];
    struct error err = {0};
    struct buffer source;
    snprintf(name, sizeof(name), "%s/../src/run/job_researcher.c", TEST_SOURCE_DIR);
    buffer_init(&source, 1 << 20);
    assert_int_equal(file_read(name, &source, &err), STATUS_OK);
    cJSON *schema = read_schema();
    const cJSON *properties = properties_of(schema, "researcher");
    int found = 0;
    const char *at = buffer_text(&source);
    while ((at = strstr(at, "reader, \"")) != NULL) {
        char key[64] = "";
        at += strlen("reader, \"");
        snprintf(key, sizeof(key), "%.*s", (int)strcspn(at, "\""), at);
        if (cJSON_GetObjectItemCaseSensitive(properties, key) == NULL) {
            fail_msg("jobs/job.schema.json has no researcher.%s", key);
        }
        found++;
    }
    assert_true(found >= 24);
    assert_int_equal(cJSON_GetArraySize(properties) <= found, 1);
    cJSON_Delete(schema);
    buffer_fini(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_job_with_defaults),
        cmocka_unit_test(test_every_mistake_at_once),
        cmocka_unit_test(test_single_mistakes),
        cmocka_unit_test(test_each_allowed_key_is_told_once),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_environment_and_splits),
        cmocka_unit_test(test_files_that_are_no_jobs),
        cmocka_unit_test(test_schema_is_read),
        cmocka_unit_test(test_reader_is_in_the_schema),
    };
    return cmocka_run_group_tests(tests, make_path, NULL);
}
