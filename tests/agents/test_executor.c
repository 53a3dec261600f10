/* What the executor repairs, what it says, and what it refuses. */
#include "simulate.h"

#include <unistd.h>

#include "agents/executor.h"
#include "base/file.h"
#include "base/mem.h"

struct fixture {
    struct researcher_facts facts;
    struct model_config model;
    struct executor_limits limits;
    struct search search;
    struct plan plan;
    struct buffer changes;
};

/* Full fine-tuning needs 1000 bytes and an adapter 100, and both one byte a token of a micro-batch.
 */
static int64_t bytes_of(const struct model_config *model, const struct train_config *config)
{
    (void)model;
    return (config->method == TRAIN_FULL ? 1000 : 100) + config->batch_tokens;
}

static void begin(struct fixture *fixture, const char *recipe, const char *configs)
{
    memset(fixture, 0, sizeof(*fixture));
    fixture->facts = usual_facts();
    fixture->facts.configurations = SEARCH_CANDIDATES_MAX;
    fixture->model.max_positions = 512;
    fixture->limits =
        (struct executor_limits){.model = &fixture->model, .training_bytes = bytes_of};
    buffer_init(&fixture->changes, 1 << 16);
    begin_search(&fixture->search, true);
    cJSON *list = cJSON_Parse(configs);
    fixture->plan = (struct plan){.recipe = cJSON_Parse(recipe)};
    while (cJSON_GetArraySize(list) > 0) {
        fixture->plan.configs[fixture->plan.config_count++] = cJSON_DetachItemFromArray(list, 0);
    }
    cJSON_Delete(list);
}

static enum status check(struct fixture *fixture, struct error *err)
{
    struct plan_set tried;
    plan_set_init(&tried);
    assert_int_equal(plan_set_add_search(&tried, &fixture->search, 0, err), STATUS_OK);
    enum status status = executor_check(&fixture->plan, &tried, &fixture->facts, &fixture->limits,
                                        &fixture->changes, err);
    plan_set_fini(&tried);
    return status;
}

static void must_check(struct fixture *fixture)
{
    struct error err = {0};
    if (check(fixture, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    struct json_problems problems;
    json_problems_init(&problems);
    recipe_check(fixture->plan.recipe, "", &problems);
    for (int i = 0; i < fixture->plan.config_count; i++) {
        struct train_config config = train_config_default();
        train_config_read(fixture->plan.configs[i], "", &problems, &config);
    }
    assert_string_equal(buffer_text(&problems.text), "");
    json_problems_fini(&problems);
}

static void end(struct fixture *fixture)
{
    plan_fini(&fixture->plan);
    search_fini(&fixture->search);
    buffer_fini(&fixture->changes);
}

static struct train_config config_at(const struct fixture *fixture, int index)
{
    struct train_config config;
    assert_true(plan_config_read_json(fixture->plan.configs[index], &config));
    return config;
}

static void assert_said(const struct fixture *fixture, const char *expected)
{
    if (strstr(buffer_text(&fixture->changes), expected) == NULL) {
        fail_msg("expected \"%s\", found \"%s\"", expected, buffer_text(&fixture->changes));
    }
}

static void test_a_good_plan_stays(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(
        &fixture, "[{\"op\":\"dedup\"}]",
        "[{\"learning_rate\":0.001,\"precision\":\"f32\",\"epochs\":2},{\"learning_rate\":0.003}]");
    must_check(&fixture);
    assert_string_equal(buffer_text(&fixture.changes), "");
    assert_int_equal(fixture.plan.config_count, 2);
    assert_true(config_at(&fixture, 0).learning_rate == 0.001);
    assert_true(config_at(&fixture, 0).epochs == 2.0);
    assert_true(config_at(&fixture, 1).learning_rate == 0.003);
    /* All fields are written out. */
    assert_non_null(cJSON_GetObjectItem(fixture.plan.configs[0], "weight_decay"));
    end(&fixture);
}

static void test_recipes(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture,
          "[{\"op\":\"dedup\"},{\"op\":\"magic\"},{\"op\":\"sample\"},7,{\"op\":\"shuffle\"}]",
          "[{}]");
    must_check(&fixture);
    assert_int_equal(cJSON_GetArraySize(fixture.plan.recipe), 2);
    assert_said(&fixture, "step 1 removed");
    assert_said(&fixture, "magic");
    assert_said(&fixture, "step 2 removed");
    assert_said(&fixture, "step 3 removed");
    end(&fixture);

    begin(&fixture, "{\"op\":\"dedup\"}", "[{}]");
    must_check(&fixture);
    assert_int_equal(cJSON_GetArraySize(fixture.plan.recipe), 0);
    assert_said(&fixture, "now empty");
    end(&fixture);

    begin(&fixture, "nothing", "[{}]"); /* no recipe at all */
    must_check(&fixture);
    assert_true(cJSON_IsArray(fixture.plan.recipe));
    end(&fixture);

    begin(&fixture, "[]", "[{}]");
    for (int i = 0; i < 100; i++) {
        cJSON_AddItemToArray(fixture.plan.recipe, cJSON_Parse("{\"op\":\"shuffle\"}"));
    }
    must_check(&fixture);
    assert_int_equal(cJSON_GetArraySize(fixture.plan.recipe), RECIPE_STEPS_MAX - 2);
    end(&fixture);
}

static void test_values(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, "[]",
          "[{\"learning_rate\":50,\"epochs\":-3,\"accumulation\":0,\"warmup_ratio\":2,\"lora\":"
          "{\"rank\":9000},\"seed\":1.5},"
          "{\"learning_rate\":\"high\",\"colour\":\"red\",\"schedule\":\"zigzag\",\"epochs\":2},"
          "{\"patience\":3,\"validations\":0,\"learning_rate\":1e999},"
          "7]");
    must_check(&fixture);
    assert_int_equal(fixture.plan.config_count, 3);
    struct train_config config = config_at(&fixture, 0);
    assert_true(config.learning_rate == 1.0 && config.epochs == 1e-3 && config.warmup_ratio == 1.0);
    assert_int_equal(config.accumulation, 1);
    assert_int_equal(config.lora.rank, 256);
    assert_said(&fixture, "configuration 0: learning_rate 50 became 1");
    assert_said(&fixture, "configuration 1: /learning_rate");
    assert_said(&fixture, "colour");
    assert_said(&fixture, "zigzag");
    assert_true(config_at(&fixture, 1).epochs == 2.0);
    assert_int_equal(config_at(&fixture, 2).validations, 3);
    assert_said(&fixture, "configuration 3: dropped: it is no object");
    end(&fixture);
}

static void test_lengths(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, "[]",
          "[{\"sequence_length\":4000,\"batch_tokens\":4096},"
          "{\"batch_tokens\":20000,\"accumulation\":2},"
          "{\"sequence_length\":300,\"batch_tokens\":100},"
          "{\"batch_tokens\":3}]");
    must_check(&fixture);
    assert_int_equal(config_at(&fixture, 0).sequence_length, 512);
    assert_said(&fixture, "sequence_length 4000 became 512");
    assert_int_equal(config_at(&fixture, 1).batch_tokens, 4096);
    assert_int_equal(config_at(&fixture, 1).accumulation,
                     10); /* the step keeps its 40,000 tokens */
    assert_int_equal(config_at(&fixture, 2).batch_tokens, 300);
    assert_int_equal(config_at(&fixture, 3).batch_tokens, 150); /* the longest row */
    end(&fixture);
}

static void test_duration(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, "[]", "[{\"epochs\":10},{\"epochs\":10,\"max_steps\":900}]");
    fixture.facts.tokens_per_second = 4000;
    fixture.facts.candidate_seconds = 100;
    must_check(&fixture);
    assert_true(config_at(&fixture, 0).epochs < 1.0);
    assert_said(&fixture, "to end within 100 s");
    assert_true(config_at(&fixture, 1).epochs == 10.0); /* its steps are limited already */
    end(&fixture);

    begin(&fixture, "[]", "[{}]");
    fixture.facts.max_steps = 50;
    must_check(&fixture);
    assert_int_equal(config_at(&fixture, 0).max_steps, 50);
    end(&fixture);
}

static void test_memory(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, "[]", "[{\"method\":\"full\",\"batch_tokens\":4000,\"sequence_length\":100}]");
    fixture.limits.memory_bytes = 2100;
    must_check(&fixture);
    struct train_config config = config_at(&fixture, 0);
    assert_int_equal(config.method, TRAIN_FULL);
    assert_int_equal(config.batch_tokens, 1000);
    assert_int_equal(config.accumulation, 4);
    assert_said(&fixture, "batch_tokens 4000 became 1000 in 4 micro-batches");
    end(&fixture);

    begin(&fixture, "[]",
          "[{\"method\":\"full\",\"learning_rate\":0.00002,\"batch_tokens\":400,"
          "\"sequence_length\":100}]");
    fixture.limits.memory_bytes = 600;
    must_check(&fixture);
    config = config_at(&fixture, 0);
    assert_int_equal(config.method, TRAIN_LORA);
    assert_int_equal(config.batch_tokens, 400);
    assert_true(fabs(config.learning_rate - 2e-4) < 1e-12);
    assert_said(&fixture, "full became lora");
    end(&fixture);

    struct error err;
    begin(&fixture, "[]", "[{\"method\":\"full\",\"sequence_length\":100}]");
    fixture.limits.memory_bytes = 150;
    assert_int_equal(check(&fixture, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "does not fit in 150 bytes"));
    end(&fixture);

    begin(&fixture, "[]", "[{\"method\":\"full\"}]");
    fixture.facts.lora_only = true;
    must_check(&fixture);
    assert_int_equal(config_at(&fixture, 0).method, TRAIN_LORA);
    end(&fixture);
}

static void test_repeats(void **state)
{
    (void)state;
    struct fixture fixture;
    struct error err;
    begin(
        &fixture, "[]",
        "[{\"learning_rate\":0.001},{\"epochs\":3,\"learning_rate\":0.0010},"
        "{\"method\":\"full\",\"lora\":{\"rank\":4}},{\"method\":\"full\",\"lora\":{\"rank\":8}}]");
    must_check(&fixture);
    assert_int_equal(fixture.plan.config_count, 2); /* 3 epochs is the default; full has no rank */
    assert_said(&fixture, "configuration 1: dropped: it was tried before");
    assert_said(&fixture, "configuration 3: dropped");
    end(&fixture);

    /* The same as a node of the search: dropped; with another recipe: not. */
    begin(&fixture, "[]", "[{\"learning_rate\":0.001}]");
    struct plan baseline = {.parent = -1, .recipe = cJSON_CreateArray(), .config_count = 1};
    baseline.configs[0] = cJSON_CreateObject();
    baseline.strategy = strdup("s");
    baseline.goal = strdup("g");
    baseline.rationale = strdup("r");
    baseline.researcher = strdup("x");
    must_check(&fixture);
    add_plan(&fixture.search, &baseline);
    apply_event(&fixture.search, new_event("candidate_started", 0, 0));
    struct outcome outcome = {.score = 0.5};
    finish_candidate(&fixture.search, 0, 0, &outcome);
    cJSON *close = new_event("node_closed", 0, -1);
    cJSON_AddStringToObject(close, "diagnosis", "d");
    apply_event(&fixture.search, close);
    baseline.parent = 0;
    cJSON_Delete(baseline.configs[0]);
    baseline.configs[0] = cJSON_Duplicate(fixture.plan.configs[0], true);
    add_plan(&fixture.search, &baseline);
    assert_int_equal(check(&fixture, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "tried before"));
    assert_int_equal(fixture.plan.config_count, 0);
    fixture.plan.configs[fixture.plan.config_count++] = cJSON_Duplicate(baseline.configs[0], true);
    cJSON_AddItemToArray(fixture.plan.recipe, cJSON_Parse("{\"op\":\"dedup\"}"));
    must_check(&fixture);
    plan_fini(&baseline);
    end(&fixture);
}

static void test_size_of_a_round(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, "[]", "[{\"epochs\":1},{\"epochs\":2},{\"epochs\":4}]");
    fixture.facts.configurations = 2;
    must_check(&fixture);
    assert_int_equal(fixture.plan.config_count, 2);
    assert_said(&fixture, "a round has 2 configurations");
    end(&fixture);

    struct error err;
    begin(&fixture, "[]", "[]");
    assert_int_equal(check(&fixture, &err), STATUS_INVALID);
    end(&fixture);

    begin(&fixture, "[]", "[{}]"); /* the baseline is left alone */
    fixture.plan.parent = -1;
    must_check(&fixture);
    assert_int_equal(cJSON_GetArraySize(fixture.plan.configs[0]), 0);
    end(&fixture);
}

static void test_without_memory(void **state)
{
    (void)state;
    bool reached = true;
    for (int n = 1; reached; n++) {
        struct fixture fixture;
        struct error err;
        begin(&fixture, "[{\"op\":\"magic\"}]", "[{\"epochs\":1},{\"epochs\":-2},{\"epochs\":4}]");
        int64_t before = mem_allocation_count();
        mem_fail_nth(n);
        enum status status = check(&fixture, &err);
        mem_fail_nth(0);
        reached = mem_allocation_count() - before >= n;
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        end(&fixture); /* the plan is whole in any case */
    }
}

/* A recipe reads the files that were found or listed, and no others, by whatever name. */
static void test_files(void **state)
{
    (void)state;
    static const char *const folders[] = {"sources", "secret", "local", NULL};
    char run[] = "/tmp/trex-test-files-XXXXXX";
    char path[256];
    char recipe[2048];
    struct fixture fixture;
    assert_non_null(mkdtemp(run));
    for (int i = 0; folders[i] != NULL; i++) {
        struct error err;
        snprintf(path, sizeof(path), "%s/%s", run, folders[i]);
        assert_int_equal(file_make_folders(path, &err), STATUS_OK);
        snprintf(path, sizeof(path), "%s/%s/rows.jsonl", run, folders[i]);
        assert_int_equal(file_write(path, "{}\n", 3, &err), STATUS_OK);
    }
    snprintf(path, sizeof(path), "%s/sources/link.jsonl", run);
    assert_int_equal(symlink("../secret/rows.jsonl", path), 0);
    snprintf(path, sizeof(path), "%s/local", run);
    const char *const listed[] = {path, NULL};
    snprintf(recipe, sizeof(recipe),
             "[{\"op\": \"load\", \"path\": \"sources/rows.jsonl\"},"
             " {\"op\": \"load\", \"path\": \"%s/rows.jsonl\"},"
             " {\"op\": \"load\", \"path\": \"secret/rows.jsonl\"},"
             " {\"op\": \"load\", \"path\": \"sources/../secret/rows.jsonl\"},"
             " {\"op\": \"load\", \"path\": \"sources/link.jsonl\"},"
             " {\"op\": \"load\", \"path\": \"sources/none.jsonl\"},"
             " {\"op\": \"load\", \"path\": \"/etc/passwd\"},"
             " {\"op\": \"mix\", \"sources\": [{\"path\": \"train\"}, {\"path\": "
             "\"/etc/passwd\"}], \"count\": 9},"
             " {\"op\": \"mix\", \"sources\": [{\"path\": \"train\"}, {\"path\": \"rows\"}], "
             "\"count\": 9},"
             " {\"op\": \"code\", \"program\": \"print()\"}]",
             path);
    begin(&fixture, recipe, "[{}]");
    fixture.limits.run_folder = run;
    fixture.limits.folders = listed;
    must_check(&fixture);
    char *left = cJSON_PrintUnformatted(fixture.plan.recipe);
    assert_int_equal(cJSON_GetArraySize(fixture.plan.recipe), 3);
    assert_null(strstr(left, "secret"));
    assert_null(strstr(left, "passwd"));
    assert_null(strstr(left, "link"));
    assert_non_null(strstr(buffer_text(&fixture.changes), "\"/etc/passwd\", allowed are"));
    assert_non_null(strstr(buffer_text(&fixture.changes), "code is off"));
    cJSON_free(left);
    end(&fixture);
    begin(&fixture, "[{\"op\": \"code\", \"program\": \"print()\"}]", "[{}]");
    fixture.limits.run_folder = run;
    fixture.limits.code = true;
    must_check(&fixture);
    assert_int_equal(cJSON_GetArraySize(fixture.plan.recipe), 1);
    end(&fixture);
    file_remove_folder(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),   cmocka_unit_test(test_a_good_plan_stays),
        cmocka_unit_test(test_recipes), cmocka_unit_test(test_values),
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_duration),
        cmocka_unit_test(test_memory),  cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_repeats), cmocka_unit_test(test_size_of_a_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
