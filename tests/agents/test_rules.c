/* The rules researcher: what it plans for each kind of evidence, that it never repeats itself, and
 * that its plans are valid whatever the facts are. */
#include "simulate.h"

#include "agents/evidence.h"
#include "agents/rules.h"
#include "base/mem.h"

/* The outcome that a test wants of every candidate; scores fall with the candidate's number. */
struct wish {
    struct outcome outcome;
    int diverged_from; /* candidates from this number on diverge; 0: none */
    int best;          /* candidate with the best score */
};

static struct outcome grant(void *context, const struct train_config *config, const cJSON *recipe,
                            int32_t candidate)
{
    const struct wish *wish = context;
    struct outcome outcome = wish->outcome;
    (void)config;
    (void)recipe;
    outcome.score -= 0.01 * abs((int)candidate - wish->best);
    outcome.diverged = wish->diverged_from > 0 && candidate >= wish->diverged_from;
    return outcome;
}

static const struct outcome settled = {
    .score = 0.7,
    .standard_error = 0.015,
    .train = {2.0, 1.5, 1.32, 1.3},
    .validation = {1.9, 1.61, 1.6, 1.6},
    .rows = 872,
};

struct fixture {
    struct researcher_facts facts;
    struct researcher *researcher;
    struct search search;
};

static void begin(struct fixture *fixture, const struct researcher_facts *facts)
{
    struct error err;
    fixture->facts = *facts;
    assert_int_equal(open_researcher("rules", &fixture->facts, &fixture->researcher, &err),
                     STATUS_OK);
    begin_search(&fixture->search, true);
    struct wish wish = {.outcome = {.score = 0.48, .standard_error = 0.017, .rows = 872}};
    int32_t root = plan_node(&fixture->search, fixture->researcher, -1);
    run_node(&fixture->search, fixture->researcher, root, grant, &wish);
}

static void end(struct fixture *fixture)
{
    search_fini(&fixture->search);
    researcher_close(fixture->researcher);
}

static int32_t grow(struct fixture *fixture, int32_t parent, struct wish wish)
{
    int32_t node = plan_node(&fixture->search, fixture->researcher, parent);
    run_node(&fixture->search, fixture->researcher, node, grant, &wish);
    return node;
}

static struct train_config config_of(const struct fixture *fixture, int32_t node, int32_t candidate)
{
    struct train_config config;
    assert_true(
        plan_config_read(fixture->search.nodes[node].candidates[candidate].config, &config));
    return config;
}

static void assert_plan(const struct fixture *fixture, int32_t node, const char *title,
                        const char *strategy, const char *reason)
{
    const struct search_node *made = &fixture->search.nodes[node];
    if (strncmp(made->goal, title, strlen(title)) != 0 || strstr(made->rationale, reason) == NULL) {
        fail_msg("expected \"%s\" because \"%s\", found %s: %s", title, reason, made->goal,
                 made->rationale);
    }
    assert_string_equal(made->strategy, strategy);
}

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
    assert_int_equal(researcher_request(fixture.researcher, &fixture.search, -1, &err),
                     STATUS_INVALID);
    assert_int_equal(researcher_request(fixture.researcher, &fixture.search, 1, &err),
                     STATUS_INVALID);
    int32_t open = plan_node(&fixture.search, fixture.researcher, 0);
    assert_int_equal(researcher_request(fixture.researcher, &fixture.search, open, &err),
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

/* ---- the whole ---- */

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
        assert_int_equal(researcher_request(fixture.researcher, &fixture.search, 0, &err),
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
    assert_int_equal(researcher_request(fixture.researcher, &fixture.search, 0, &err), STATUS_OK);
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
        enum status status = researcher_request(fixture.researcher, &fixture.search, 1, &err);
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
        cmocka_unit_test(test_baseline),
        cmocka_unit_test(test_registry),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_first_recipe),
        cmocka_unit_test(test_rates_by_size),
        cmocka_unit_test(test_time_limits),
        cmocka_unit_test(test_underfitting),
        cmocka_unit_test(test_overfitting),
        cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_edges_of_the_rates),
        cmocka_unit_test(test_errors_in_form),
        cmocka_unit_test(test_confusions),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_more_data),
        cmocka_unit_test(test_plateau_and_skew),
        cmocka_unit_test(test_failures_of_all),
        cmocka_unit_test(test_noise_is_called_noise),
        cmocka_unit_test(test_never_repeats_and_never_dries),
        cmocka_unit_test(test_plans_at_once),
        cmocka_unit_test(test_any_facts),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_curves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
