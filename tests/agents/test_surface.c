/* `rules` with UCT against random configurations, on a response surface: score as a function of
 * learning rate, epochs, batch and data, with noise. Same number of trainings for both; the winner
 * is what each believes to be its best, judged by its true score. */
#include "simulate.h"

#include "tree/tree.h"

enum { SEEDS = 20, ROUNDS = 8 };

struct surface {
    double best_rate, best_epochs, best_step_tokens, noise;
    struct rng rng;
    double true_best; /* true score of the candidate with the best noisy score */
    double noisy_best;
};

static double gauss(double x, double width)
{
    return exp(-x * x / (2.0 * width * width));
}

static double true_score(const struct surface *surface, const struct train_config *config,
                         bool balanced)
{
    double tokens = (double)(config->batch_tokens * config->accumulation);
    double best_rate = surface->best_rate * (config->method == TRAIN_LORA ? 4.0 : 1.0);
    double rate = gauss(log(config->learning_rate / best_rate), 1.0);
    double epochs = gauss(log(config->epochs / surface->best_epochs), 0.9);
    double step = gauss(log(tokens / surface->best_step_tokens), 2.5);
    return 0.5 + 0.36 * rate * epochs * step - (balanced ? 0.01 : 0.0) -
           (config->method == TRAIN_LORA ? 0.03 : 0.0);
}

static struct outcome measure(void *context, const struct train_config *config, const cJSON *recipe,
                              int32_t candidate)
{
    struct surface *surface = context;
    (void)candidate;
    char *text = cJSON_PrintUnformatted(recipe);
    double score = true_score(surface, config, strstr(text, "balance") != NULL);
    cJSON_free(text);
    struct outcome outcome = {.rows = 872, .standard_error = 0.015};
    outcome.score = score + surface->noise * rng_normal(&surface->rng);
    outcome.diverged = config->learning_rate > 20.0 * surface->best_rate;
    double under = config->epochs < 0.8 * surface->best_epochs ? 0.2 : 0.0;
    double over = config->epochs > 1.6 * surface->best_epochs ? 0.2 : 0.0;
    for (int i = 0; i < 4; i++) {
        outcome.train[i] = 2.0 - 0.2 * i - (i == 3 ? under + over : 0.0);
        outcome.validation[i] = (i == 3 ? 1.5 - under + over : 1.6 - 0.03 * i);
    }
    if (!outcome.diverged && outcome.score > surface->noisy_best) {
        surface->noisy_best = outcome.score;
        surface->true_best = score;
    }
    return outcome;
}

static struct outcome measure_baseline(void *context, const struct train_config *config,
                                       const cJSON *recipe, int32_t candidate)
{
    (void)context;
    (void)config;
    (void)recipe;
    (void)candidate;
    return (struct outcome){.score = 0.5, .standard_error = 0.017, .rows = 872};
}

static struct surface new_surface(uint64_t seed)
{
    struct surface surface = {.noise = 0.012, .noisy_best = -1.0};
    struct rng rng;
    rng_init(&rng, seed, 77);
    surface.best_rate =
        3e-3 * exp(3.0 * (2.0 * rng_uniform(&rng) - 1.0));    /* within a factor of 20 */
    surface.best_epochs = 2.0 * exp(1.8 * rng_uniform(&rng)); /* 2 to 12 */
    surface.best_step_tokens = 512.0 * exp(2.0 * rng_uniform(&rng));
    rng_init(&surface.rng, seed, 78);
    return surface;
}

/* Runs a whole search; returns the number of trainings. */
static int search_with_rules(struct surface *surface, uint64_t seed, const char *policy)
{
    struct researcher_facts facts = usual_facts();
    struct researcher *researcher = NULL;
    struct search search;
    struct error err = {0};
    facts.seed = seed;
    int trainings = 0;
    assert_int_equal(open_researcher("rules", &facts, &researcher, &err), STATUS_OK);
    begin_search(&search, true);
    run_node(&search, researcher, plan_node(&search, researcher, -1), measure_baseline, NULL);
    struct tree_policy_options options = {.exploration = 0.35, .max_children = 4, .noise = 0.034};
    for (int round = 0; round < ROUNDS; round++) {
        struct rng rng;
        rng_init(&rng, seed, (uint64_t)round);
        int32_t parent = tree_policy_find(policy)->select(&search.tree, &options, &rng);
        assert_true(parent >= 0);
        int32_t node = plan_node(&search, researcher, parent);
        run_node(&search, researcher, node, measure, surface);
        trainings += search.nodes[node].candidate_count;
    }
    assert_int_equal(tree_check(&search.tree, &err), STATUS_OK);
    search_fini(&search);
    researcher_close(researcher);
    return trainings;
}

/* Learning rates over three orders of magnitude around the usual, epochs 1 to 16: what a sensible
 * person would draw from. */
static void search_at_random(struct surface *surface, uint64_t seed, int trainings)
{
    struct rng rng;
    cJSON *recipe = cJSON_CreateArray();
    rng_init(&rng, seed, 79);
    for (int i = 0; i < trainings; i++) {
        struct train_config config = train_config_default();
        config.method = TRAIN_FULL;
        config.learning_rate = 1e-4 * exp(log(1000.0) * rng_uniform(&rng));
        config.epochs = exp(log(16.0) * rng_uniform(&rng));
        config.batch_tokens = (int64_t)(256.0 * exp(log(32.0) * rng_uniform(&rng)));
        measure(surface, &config, recipe, 0);
    }
    cJSON_Delete(recipe);
}

static void test_rules_beat_random(void **state)
{
    (void)state;
    double rules_sum = 0.0;
    double random_sum = 0.0;
    int wins = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct surface rules = new_surface(seed);
        struct surface random = new_surface(seed);
        int trainings = search_with_rules(&rules, seed, "uct");
        assert_int_equal(trainings, ROUNDS * 3);
        search_at_random(&random, seed, trainings);
        rules_sum += rules.true_best;
        random_sum += random.true_best;
        wins += rules.true_best > random.true_best;
    }
    print_message("true score of the winner, mean of %d seeds: rules %.4f, random %.4f; %d wins\n",
                  SEEDS, rules_sum / SEEDS, random_sum / SEEDS, wins);
    assert_true(rules_sum / SEEDS > random_sum / SEEDS + 0.02);
    assert_true(wins >= 14);
}

static void test_a_search_repeats_exactly(void **state)
{
    (void)state;
    struct surface first = new_surface(5);
    struct surface second = new_surface(5);
    search_with_rules(&first, 5, "uct");
    search_with_rules(&second, 5, "uct");
    assert_true(first.true_best == second.true_best && first.noisy_best == second.noisy_best);
    assert_true(first.rng.counter == second.rng.counter);
}

static void test_policies(void **state)
{
    (void)state;
    for (const struct tree_policy *const *policy = tree_policy_list(); *policy != NULL; policy++) {
        double sum = 0.0;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            struct surface surface = new_surface(seed);
            search_with_rules(&surface, seed, (*policy)->name);
            sum += surface.true_best;
        }
        print_message("rules with %s: %.4f\n", (*policy)->name, sum / SEEDS);
        assert_true(sum / SEEDS > 0.7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules_beat_random),
        cmocka_unit_test(test_a_search_repeats_exactly),
        cmocka_unit_test(test_policies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
