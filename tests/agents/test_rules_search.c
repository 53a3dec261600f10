/* The rules researcher in whole searches: it never repeats itself, calls noise noise, and its plans
 * are valid whatever the facts are. */
#include "agents/rules_fixture.h"

static void test_noise_is_called_noise(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    struct wish wish = {.outcome = settled};
    begin(&fixture, &facts);
    int32_t first = grow(&fixture, 0, wish);
    wish.outcome.score = 0.71;
    int32_t next = grow(&fixture, first, wish);
    assert_non_null(
        strstr(fixture.search.nodes[first].diagnosis, "better than the baseline (0.48)"));
    assert_null(strstr(fixture.search.nodes[first].diagnosis, "within noise"));
    assert_non_null(strstr(fixture.search.nodes[next].diagnosis,
                           "0.01 ± 0.021 better than its parent (0.7), within noise"));
    end(&fixture);
}

/* Every fingerprint of a search once. */
static void assert_no_repeats(const struct search *search)
{
    struct plan_set seen;
    struct error err;
    plan_set_init(&seen);
    for (int32_t node = 1; node < search->tree.count; node++) {
        cJSON *recipe = cJSON_Parse(search->nodes[node].recipe);
        for (int32_t i = 0; i < search->nodes[node].candidate_count; i++) {
            struct train_config config;
            char fingerprint[HASH_TEXT_BYTES];
            assert_true(plan_config_read(search->nodes[node].candidates[i].config, &config));
            assert_int_equal(plan_fingerprint(&config, recipe, fingerprint, &err), STATUS_OK);
            assert_false(plan_set_has(&seen, fingerprint));
            assert_int_equal(plan_set_add(&seen, fingerprint, &err), STATUS_OK);
        }
        cJSON_Delete(recipe);
    }
    plan_set_fini(&seen);
}

static void test_never_repeats_and_never_dries(void **state)
{
    (void)state;
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    facts.configurations = 5;
    begin(&fixture, &facts);
    for (int i = 0; i < 40; i++) {
        int32_t parent = i < 20 ? 0 : 1 + i % 3; /* many children of few parents */
        struct wish wish = {.outcome = settled};
        wish.outcome.score = 0.6 + 0.003 * i;
        int32_t node = grow(&fixture, parent, wish);
        assert_int_equal(fixture.search.nodes[node].candidate_count, 5);
        for (int32_t other = 1; other < node; other++) {
            bool random = strncmp(fixture.search.nodes[node].goal, "local search", 12) == 0;
            if (!random && fixture.search.tree.nodes[other].parent == parent) {
                size_t title = strcspn(fixture.search.nodes[node].goal, ":") + 1;
                assert_int_not_equal(strncmp(fixture.search.nodes[node].goal,
                                             fixture.search.nodes[other].goal, title),
                                     0);
            }
        }
    }
    assert_no_repeats(&fixture.search);
    end(&fixture);
}

/* Several plans asked for before any is in the search. */
static void test_plans_at_once(void **state)
{
    (void)state;
    enum { AT_ONCE = 6 };
    struct fixture fixture;
    struct researcher_facts facts = usual_facts();
    struct plan plans[AT_ONCE];
    struct error err;
    begin(&fixture, &facts);
    for (int i = 0; i < AT_ONCE; i++) {
        assert_int_equal(researcher_request(fixture.researcher, &fixture.search, 0, i + 1, &err),
                         STATUS_OK);
    }
    assert_int_equal(researcher_pending(fixture.researcher), AT_ONCE);
    for (int i = 0; i < AT_ONCE; i++) {
        assert_true(researcher_poll(fixture.researcher, &plans[i]));
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(plans[i].goal, plans[k].goal);
        }
    }
    for (int i = 0; i < AT_ONCE; i++) {
        add_plan(&fixture.search, &plans[i]);
        plan_fini(&plans[i]);
    }
    assert_no_repeats(&fixture.search);
    assert_int_equal(researcher_request(fixture.researcher, &fixture.search, 0, AT_ONCE + 1, &err),
                     STATUS_OK);
    end(&fixture); /* with a plan that nobody fetched */
}

static double any(struct rng *rng, double low, double high)
{
    return rng_below(rng, 5) == 0 ? 0.0 : low * exp(log(high / low) * rng_uniform(rng));
}

static struct researcher_facts any_facts(struct rng *rng)
{
    return (struct researcher_facts){
        .metric_best = 1.0,
        .train_rows = (int64_t)any(rng, 1, 1e8),
        .validation_rows = (int64_t)any(rng, 1, 1e6),
        .train_duplicates = (int64_t)any(rng, 1, 1e8),
        .prompt_tokens_mean = any(rng, 1, 1e5),
        .prompt_tokens_p95 = any(rng, 1, 1e5),
        .answer_tokens_mean = any(rng, 1, 1e4),
        .answer_tokens_p95 = any(rng, 1, 1e4),
        .characters_per_token = any(rng, 0.5, 10),
        .sequence_tokens_max = (int64_t)any(rng, 1, 1e6),
        .label_count = (int)any(rng, 1, 64),
        .majority_share = rng_uniform(rng),
        .model_parameters = (int64_t)any(rng, 1e3, 1e12),
        .model_max_positions = (int64_t)any(rng, 1, 1e6),
        .max_samples = (int64_t)any(rng, 1, 1e6),
        .max_steps = (int64_t)any(rng, 1, 1e6),
        .sequence_length = (int64_t)any(rng, 1, 1e6),
        .batch_tokens = (int64_t)any(rng, 1, 1e6),
        .tokens_per_second = any(rng, 0.1, 1e7),
        .candidate_seconds = any(rng, 0.1, 1e6),
        .configurations = 1 + (int)rng_below(rng, SEARCH_CANDIDATES_MAX),
        .lora_only = rng_below(rng, 3) == 0,
        .seed = rng_u64(rng),
    };
}

/* Whatever the facts and results: plans pass recipe_check and train_config_read (request_plan
 * looks), and differ. */
static void test_any_facts(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 9, 0);
    for (int i = 0; i < 150; i++) {
        struct fixture fixture;
        struct researcher_facts facts = any_facts(&rng);
        begin(&fixture, &facts);
        for (int round = 0; round < 8; round++) {
            struct wish wish = {
                .outcome = {.score = rng_uniform(&rng),
                            .standard_error = 0.01,
                            .rows = (int64_t)rng_below(&rng, 1000),
                            .format_failures = (int64_t)rng_below(&rng, 100),
                            .truncated = (int64_t)rng_below(&rng, 100)},
                .diverged_from = (int)rng_below(&rng, 4),
                .best = (int)rng_below(&rng, 3),
            };
            for (int k = 0; k < 4; k++) {
                wish.outcome.train[k] = 3.0 * rng_uniform(&rng);
                wish.outcome.validation[k] =
                    rng_below(&rng, 3) == 0 ? NAN : 3.0 * rng_uniform(&rng);
            }
            int32_t parent;
            do {
                parent = (int32_t)rng_below(&rng, (uint64_t)fixture.search.tree.count);
            } while (fixture.search.tree.nodes[parent].state != TREE_NODE_CLOSED);
            int32_t node = grow(&fixture, parent, wish);
            assert_int_equal(fixture.search.nodes[node].candidate_count, facts.configurations);
        }
        assert_no_repeats(&fixture.search);
        end(&fixture);
    }
}

/* Each allocation of a request and a diagnosis fails in turn: STATUS_NO_MEMORY or a whole plan, and
 * nothing leaks. */
static void test_without_memory(void **state)
{
    (void)state;
    struct researcher_facts facts = usual_facts();
    struct fixture fixture;
    struct error err;
    begin(&fixture, &facts);
    grow(&fixture, 0, (struct wish){.outcome = settled, .diverged_from = 2});
    int refused = 0;
    bool reached = true;
    for (int n = 1; reached; n++) {
        struct plan plan;
        int64_t before = mem_allocation_count();
        mem_fail_nth(n);
        enum status status = researcher_request(fixture.researcher, &fixture.search, 1, n, &err);
        mem_fail_nth(0);
        reached = mem_allocation_count() - before >= n;
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        refused += status == STATUS_NO_MEMORY;
        assert_int_equal(researcher_poll(fixture.researcher, &plan), status == STATUS_OK);
        if (status == STATUS_OK) {
            assert_int_equal(plan.config_count, 3);
            plan_fini(&plan);
        }
    }
    assert_true(refused >= 3);
    reached = true;
    for (int n = 1; reached; n++) {
        char *diagnosis = NULL;
        cJSON *insights = NULL;
        int64_t before = mem_allocation_count();
        mem_fail_nth(n);
        enum status status = researcher_diagnose(fixture.researcher, &fixture.search, 1, &diagnosis,
                                                 &insights, &err);
        mem_fail_nth(0);
        reached = mem_allocation_count() - before >= n;
        assert_int_equal(diagnosis != NULL, status == STATUS_OK);
        free(diagnosis);
        cJSON_Delete(insights);
    }
    end(&fixture);
}

static void test_curves(void **state)
{
    (void)state;
    struct candidate candidate = {0};
    struct curve_reading reading;
    struct search_curve_point points[8];
    curve_read(&candidate, &reading);
    assert_int_equal(reading.points, 0);
    memset(points, 0, sizeof(points));
    for (int i = 0; i < 8; i++) {
        points[i] =
            (struct search_curve_point){.step = i + 1, .train_loss = 2.0, .validation_loss = NAN};
    }
    candidate.curve = points;
    candidate.curve_count = 8;
    curve_read(&candidate, &reading);
    assert_false(reading.underfit || reading.overfit || reading.diverged);
    points[7].train_loss = 9.0;
    curve_read(&candidate, &reading);
    assert_true(reading.diverged);
    points[7].train_loss = NAN;
    curve_read(&candidate, &reading);
    assert_true(reading.diverged);
    for (int i = 0; i < 8; i++) {
        points[i].train_loss = 2.0 - 0.2 * i; /* no validation loss: the train loss must tell */
    }
    curve_read(&candidate, &reading);
    assert_true(reading.underfit);
    candidate.curve_count = 1;
    curve_read(&candidate, &reading);
    assert_false(reading.underfit || reading.diverged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise_is_called_noise),
        cmocka_unit_test(test_never_repeats_and_never_dries),
        cmocka_unit_test(test_plans_at_once),
        cmocka_unit_test(test_any_facts),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_curves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
