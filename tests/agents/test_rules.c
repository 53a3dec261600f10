/* The rules researcher: what it plans first, and for each kind of evidence. test_rules_search.c has
 * whole searches. */
#include "agents/rules_fixture.h"

/* ---- first plans ---- */

static void test_baseline(void **state)
{
    (void)state;
    struct researcher_facts facts = usual_facts();
    struct researcher *researcher;
    struct search search;
    struct error err;
    assert_int_equal(open_researcher("rules", &facts, &researcher, &err), STATUS_OK);
    begin_search(&search, true);
    struct plan plan = request_plan(researcher, &search, -1);
    assert_string_equal(plan.strategy, "baseline");
    assert_int_equal(plan.config_count, 1);
    assert_int_equal(cJSON_GetArraySize(plan.configs[0]), 0);
    assert_int_equal(cJSON_GetArraySize(plan.recipe), 0);
    plan_fini(&plan);
    assert_false(researcher_poll(researcher, &plan));
    search_fini(&search);
    researcher_close(researcher);
}

static void test_registry(void **state)
{
    (void)state;
    struct researcher_facts facts = usual_facts();
    struct researcher *researcher = NULL;
    struct error err;
    assert_string_equal(researcher_providers()[0], "rules");
    assert_string_equal(researcher_providers()[1], "model");
    assert_null(researcher_providers()[2]);
    assert_int_equal(open_researcher("oracle", &facts, &researcher, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "oracle"));
    assert_null(researcher);
    researcher_close(NULL);
}

static void test_bad_requests(void **state)
{
    (void)state;
    struct fixture fixture;
    struct error err;
    struct researcher_facts facts = usual_facts();
    char *diagnosis = NULL;
    cJSON *insights = NULL;
    begin(&fixture, &facts);
    assert_int_equal(researcher_request(fixture.researcher, &fixture.search, -1, 1, &err),
                     STATUS_INVALID);
    assert_int_equal(researcher_request(fixture.researcher, &fixture.search, 1, 1, &err),
                     STATUS_INVALID);
    int32_t open = plan_node(&fixture.search, fixture.researcher, 0);
    assert_int_equal(researcher_request(fixture.researcher, &fixture.search, open, 1, &err),
                     STATUS_INVALID);
    assert_int_equal(
        researcher_diagnose(fixture.researcher, &fixture.search, 2, &diagnosis, &insights, &err),
        STATUS_INVALID);
    end(&fixture);
}

static void test_first_recipe(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    facts.train_duplicates = 9;
    facts.label_count = 4;
    facts.majority_share = 0.7;
    facts.sequence_tokens_max = 500;
    facts.characters_per_token = 2.5;
    facts.configurations = 5;
    begin(&fixture, &facts);
    int32_t node = grow(&fixture, 0, (struct wish){.outcome = settled});
    assert_plan(&fixture, node, "first recipe: ", "first recipe", "6900 usable rows");
    const struct search_node *made = &fixture.search.nodes[node];
    assert_non_null(strstr(made->recipe, "\"dedup\""));
    assert_non_null(strstr(made->recipe, "\"length\",\"max\":432")); /* 1.5 * 115 tokens * 2.5 */
    assert_non_null(strstr(made->recipe, "\"overlap\""));
    assert_non_null(strstr(made->recipe, "\"balance\""));
    assert_non_null(strstr(made->rationale, "9 of 6909 rows are duplicates"));
    assert_int_equal(made->candidate_count, 5);
    struct train_config config = config_of(&fixture, node, 0);
    assert_int_equal(config.method, TRAIN_FULL);
    assert_true(fabs(config.learning_rate - 3e-3) < 1e-9);
    assert_true(config.epochs >= 3 && config.epochs <= 6);
    assert_true(config.sequence_length >= 170 && config.sequence_length <= 192);
    double rows = (double)(config.batch_tokens * config.accumulation) / 64.0;
    double steps = config.epochs * 6900 / rows;
    assert_true(steps > 300 && steps < 5000);
    double lowest = INFINITY;
    double highest = 0.0;
    for (int i = 0; i < 5; i++) {
        double rate = config_of(&fixture, node, i).learning_rate;
        lowest = fmin(lowest, rate);
        highest = fmax(highest, rate);
    }
    assert_true(highest / lowest >= 9.0);
    end(&fixture);
}

static void test_rates_by_size(void **state)
{
    (void)state;
    assert_true(rules_learning_rate(TRAIN_FULL, 260000) >= 1e-3);
    assert_true(rules_learning_rate(TRAIN_FULL, 260000) <= 5e-3);
    for (int64_t size = 100000000; size <= 2000000000; size += 100000000) {
        double full = rules_learning_rate(TRAIN_FULL, size);
        double lora = rules_learning_rate(TRAIN_LORA, size);
        assert_true(full >= 1e-5 && full <= 5.1e-5);
        assert_true(lora >= 1e-4 && lora <= 3.1e-4);
    }
    double last = 1.0;
    for (int64_t size = 1; size < INT64_C(1) << 40; size *= 2) {
        double rate = rules_learning_rate(TRAIN_FULL, size);
        assert_true(rate <= last && rate > 1e-7);
        last = rate;
    }
    struct researcher_facts facts = usual_facts();
    assert_int_equal(rules_first_method(&facts), TRAIN_FULL);
    facts.lora_only = true;
    assert_int_equal(rules_first_method(&facts), TRAIN_LORA);
    facts.lora_only = false;
    facts.model_parameters = 1700000000;
    assert_int_equal(rules_first_method(&facts), TRAIN_LORA);
}

static void test_time_limits(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    facts.candidate_seconds = 100;
    facts.tokens_per_second = 4000; /* 300,000 tokens of training: 0.68 of an epoch */
    begin(&fixture, &facts);
    int32_t node = grow(&fixture, 0, (struct wish){.outcome = settled});
    for (int i = 0; i < 3; i++) {
        assert_true(config_of(&fixture, node, i).epochs <= 0.68);
    }
    assert_non_null(strstr(fixture.search.nodes[node].rationale, "a candidate has 100 s"));
    end(&fixture);

    facts.candidate_seconds = 0;
    facts.max_steps = 77;
    begin(&fixture, &facts);
    node = grow(&fixture, 0, (struct wish){.outcome = settled});
    assert_int_equal(config_of(&fixture, node, 0).max_steps, 77);
    end(&fixture);
}

/* ---- what follows from evidence ---- */

static void test_underfitting(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    struct wish wish = {.outcome = settled};
    wish.outcome.train[3] = 1.0;
    wish.outcome.validation[3] = 1.31;
    begin(&fixture, &facts);
    int32_t first = grow(&fixture, 0, wish);
    int32_t next = grow(&fixture, first, wish);
    assert_plan(&fixture, next, "train longer: from n0001-c0", "change training", "still falling");
    assert_non_null(
        strstr(fixture.search.nodes[next].rationale, "validation loss from 1.9 to 1.31"));
    assert_true(config_of(&fixture, next, 0).epochs >= 2.0 * config_of(&fixture, first, 0).epochs);
    assert_non_null(strstr(fixture.search.nodes[first].diagnosis, "underfitting"));
    assert_non_null(strstr(fixture.search.nodes[first].diagnosis, "more epochs"));
    end(&fixture);
}

static void test_overfitting(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    struct wish wish = {.outcome = settled};
    wish.outcome.validation[1] = 1.4;
    wish.outcome.train[3] = 0.4;
    begin(&fixture, &facts);
    int32_t first = grow(&fixture, 0, wish);
    int32_t next = grow(&fixture, first, wish);
    assert_plan(&fixture, next, "train less: from n0001-c0", "change training", "overfitting");
    assert_true(config_of(&fixture, next, 0).epochs < config_of(&fixture, first, 0).epochs);
    assert_true(config_of(&fixture, next, 1).weight_decay > 0.05);
    assert_non_null(strstr(fixture.search.nodes[first].diagnosis, "best, 1.4, at step 20"));
    end(&fixture);
}

static void test_divergence(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    struct wish wish = {.outcome = settled, .diverged_from = 1};
    begin(&fixture, &facts);
    int32_t first = grow(&fixture, 0, wish);
    int32_t next = grow(&fixture, first, wish);
    assert_plan(&fixture, next, "stabilise: from n0001-c0", "change training", "2 of 3 trainings");
    assert_true(config_of(&fixture, next, 0).learning_rate <
                config_of(&fixture, first, 0).learning_rate);
    assert_true(config_of(&fixture, next, 0).warmup_ratio > 0.05);
    assert_non_null(strstr(fixture.search.nodes[first].diagnosis, "training diverged"));
    assert_true(fixture.search.insight_count > 0);
    assert_non_null(strstr(fixture.search.insights[1].text, "diverges from a learning rate"));
    end(&fixture);
}

static void test_edges_of_the_rates(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    begin(&fixture, &facts);
    /* The first recipe tries the usual rate, three times it, and a third of it. */
    int32_t first = grow(&fixture, 0, (struct wish){.outcome = settled, .best = 1});
    int32_t next = grow(&fixture, first, (struct wish){.outcome = settled});
    assert_plan(&fixture, next, "higher learning rates: from n0001-c1", "change training", "0.009");
    assert_true(config_of(&fixture, next, 0).learning_rate > 0.02);
    end(&fixture);

    begin(&fixture, &facts);
    first = grow(&fixture, 0, (struct wish){.outcome = settled, .best = 2});
    next = grow(&fixture, first, (struct wish){.outcome = settled});
    assert_plan(&fixture, next, "lower learning rates: from n0001-c2", "change training", "0.001");
    assert_true(config_of(&fixture, next, 0).learning_rate < 0.0005);
    end(&fixture);
}

static void test_errors_in_form(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    struct wish wish = {.outcome = settled};
    wish.outcome.format_failures = 100;
    facts.characters_per_token = 3.0;
    begin(&fixture, &facts);
    int32_t first = grow(&fixture, 0, wish);
    int32_t next = grow(&fixture, first, wish);
    assert_plan(&fixture, next, "learn the form: from n0001-c0", "refine data", "11.5 %");
    assert_non_null(strstr(fixture.search.nodes[next].recipe, "\"field\":\"prompt\""));
    assert_non_null(strstr(fixture.search.nodes[first].diagnosis, "100 outputs (11.5 %)"));
    end(&fixture);
}

static void test_confusions(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    struct wish wish = {.outcome = settled};
    wish.outcome.confusions = "[{\"expected\":\"positive\",\"found\":\"negative\",\"count\":150},"
                              "{\"expected\":\"negative\",\"found\":\"positive\",\"count\":20}]";
    begin(&fixture, &facts);
    int32_t first = grow(&fixture, 0, wish);
    int32_t next = grow(&fixture, first, wish);
    assert_plan(&fixture, next, "confused answers: from n0001-c0", "refine data",
                "150 validation rows");
    assert_non_null(strstr(fixture.search.nodes[next].recipe, "\"counts\":{\"positive\":5182}"));
    assert_non_null(strstr(fixture.search.nodes[first].diagnosis,
                           "\"positive\" answered \"negative\" 150 times"));
    end(&fixture);
}

static void test_truncation(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    struct wish wish = {.outcome = settled};
    wish.outcome.truncated = 90;
    facts.sequence_tokens_max =
        480; /* outliers: the first plan cuts at one and a half times the usual */
    begin(&fixture, &facts);
    int32_t first = grow(&fixture, 0, wish);
    int32_t next = grow(&fixture, first, wish);
    assert_plan(&fixture, next, "longer sequences: from n0001-c0", "refine data", "10.3 %");
    assert_int_equal(config_of(&fixture, next, 0).sequence_length, 480);
    assert_true(config_of(&fixture, next, 0).batch_tokens >= 480);
    assert_non_null(strstr(fixture.search.nodes[first].diagnosis, "90 prompts (10.3 %)"));
    end(&fixture);
}

static void test_more_data(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    begin(&fixture, &facts);
    struct plan plan = request_plan(fixture.researcher, &fixture.search, 0);
    cJSON_Delete(plan.recipe);
    plan.recipe = cJSON_Parse("[{\"op\":\"sample\",\"count\":500}]");
    int32_t first = add_plan(&fixture.search, &plan);
    plan_fini(&plan);
    struct wish wish = {.outcome = settled};
    run_node(&fixture.search, fixture.researcher, first, grant, &wish);
    int32_t next = grow(&fixture, first, wish);
    assert_plan(&fixture, next, "all rows: from n0001-c0", "more data", "6909");
    assert_null(strstr(fixture.search.nodes[next].recipe, "sample"));
    end(&fixture);
}

static void test_plateau_and_skew(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    begin(&fixture, &facts);
    int32_t first = grow(&fixture, 0, (struct wish){.outcome = settled});
    int32_t next = grow(&fixture, first, (struct wish){.outcome = settled});
    assert_plan(&fixture, next, "refine: small steps around n0001-c0", "refine best", "0.7");
    end(&fixture);

    facts.majority_share = 0.8; /* 1.6 of an equal share: not balanced from the start */
    begin(&fixture, &facts);
    first = grow(&fixture, 0, (struct wish){.outcome = settled});
    assert_null(strstr(fixture.search.nodes[first].recipe, "balance"));
    int32_t second = grow(&fixture, 0, (struct wish){.outcome = settled});
    (void)second;
    bool balanced = false;
    for (int i = 0; i < 3; i++) {
        int32_t node = grow(&fixture, 0, (struct wish){.outcome = settled});
        balanced = balanced || strncmp(fixture.search.nodes[node].goal, "balance", 7) == 0;
    }
    assert_true(balanced);
    end(&fixture);
}

static void test_failures_of_all(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    struct wish wish = {.outcome = settled};
    wish.outcome.failure = STATUS_NO_MEMORY;
    begin(&fixture, &facts);
    int32_t first = grow(&fixture, 0, wish);
    assert_int_equal(fixture.search.tree.nodes[first].state, TREE_NODE_FAILED);
    assert_non_null(strstr(fixture.search.nodes[first].diagnosis, "None of 3 candidates finished"));
    assert_non_null(strstr(fixture.search.nodes[first].diagnosis, "smaller micro-batches"));
    /* The next child of the root goes another way. */
    int32_t next = grow(&fixture, 0, (struct wish){.outcome = settled});
    assert_int_not_equal(strncmp(fixture.search.nodes[next].goal, "first recipe", 12), 0);
    end(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_baseline),         cmocka_unit_test(test_registry),
        cmocka_unit_test(test_bad_requests),     cmocka_unit_test(test_first_recipe),
        cmocka_unit_test(test_rates_by_size),    cmocka_unit_test(test_time_limits),
        cmocka_unit_test(test_underfitting),     cmocka_unit_test(test_overfitting),
        cmocka_unit_test(test_divergence),       cmocka_unit_test(test_edges_of_the_rates),
        cmocka_unit_test(test_errors_in_form),   cmocka_unit_test(test_confusions),
        cmocka_unit_test(test_truncation),       cmocka_unit_test(test_more_data),
        cmocka_unit_test(test_plateau_and_skew), cmocka_unit_test(test_failures_of_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
