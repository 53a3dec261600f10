/* What is kept up to date of the whole search equals what looking through all of it finds. */
#include "agents/evidence.h"
#include "agents/simulate.h"
#include "tree/search_parts.h"

enum { ROUNDS = 40 };

/* Some diverge, some fail otherwise, scores repeat, speeds differ. */
static struct outcome outcome_of(void *context, const struct train_config *config,
                                 const cJSON *recipe, int32_t candidate)
{
    struct rng *rng = context;
    (void)config;
    (void)recipe;
    (void)candidate;
    uint64_t what = rng_below(rng, 8);
    return (struct outcome){
        .score = 0.5 + 0.01 * (double)rng_below(rng, 10),
        .standard_error = 0.01,
        .train = {2.0, 1.5, what == 2 ? 9.0 : 1.2, what == 2 ? 9.0 : 1.0},
        .validation = {NAN, NAN, NAN, NAN},
        .rows = 100,
        .diverged = what == 0,
        .failure = what == 1 ? STATUS_NO_MEMORY : STATUS_OK,
    };
}

static bool diverged(const struct candidate *candidate)
{
    struct curve_reading curve;
    if (candidate->state == CANDIDATE_FAILED) {
        return candidate->error->code == STATUS_DIVERGED;
    }
    curve_read(candidate, &curve);
    return candidate->state == CANDIDATE_FINISHED && curve.diverged;
}

/* The figures of one method by the plain way: every candidate of every node, in order. */
static void scan(const struct search *search, enum train_method method, struct evidence_method *out)
{
    double best = -INFINITY;
    memset(out, 0, sizeof(*out));
    out->best_node = -1;
    for (int32_t id = 1; id < search->tree.count; id++) {
        for (int32_t i = 0; i < search->nodes[id].candidate_count; i++) {
            const struct candidate *candidate = &search->nodes[id].candidates[i];
            struct train_config config;
            bool finished = candidate->state == CANDIDATE_FINISHED;
            if (!plan_config_read(candidate->config, &config) || config.method != method) {
                continue;
            }
            double rate = config.learning_rate;
            if (diverged(candidate)) {
                out->rate_diverged =
                    out->rate_diverged > 0.0 ? fmin(out->rate_diverged, rate) : rate;
            } else if (finished) {
                out->rate_lowest = out->rate_lowest > 0.0 ? fmin(out->rate_lowest, rate) : rate;
                out->rate_highest = fmax(out->rate_highest, rate);
            }
            if (finished && candidate->validation.value > best) {
                best = candidate->validation.value;
                out->best_node = id;
                out->best_rate = rate;
            }
        }
    }
}

static double scan_speed(const struct search *search, enum train_method method)
{
    double slowest = 0.0;
    int seen = 0;
    for (int32_t id = search->tree.count - 1; id > 0; id--) {
        for (int32_t i = 0; i < search->nodes[id].candidate_count && seen < EVIDENCE_SPEEDS_MAX;
             i++) {
            const struct candidate *candidate = &search->nodes[id].candidates[i];
            struct train_config config;
            if (candidate->state == CANDIDATE_FINISHED && candidate->curve_count > 0 &&
                plan_config_read(candidate->config, &config) && config.method == method) {
                const struct search_curve_point *last =
                    &candidate->curve[candidate->curve_count - 1];
                double speed = (double)last->tokens / last->seconds;
                slowest = seen++ == 0 ? speed : fmin(slowest, speed);
            }
        }
    }
    return slowest;
}

static int32_t scan_path(const struct search *search, int32_t node)
{
    int32_t best = -1;
    for (int32_t at = node; at > 0; at = search->tree.nodes[at].parent) {
        if (search->tree.nodes[at].state == TREE_NODE_CLOSED && evidence_is_trained(search, at) &&
            (best < 0 || search->tree.nodes[at].reward > search->tree.nodes[best].reward)) {
            best = at;
        }
    }
    return best;
}

static void compare(const struct search *search, const struct evidence_index *index)
{
    for (int i = 0; i < EVIDENCE_METHODS; i++) {
        enum train_method method = (enum train_method)i;
        const struct evidence_method *known = &index->methods[method];
        struct evidence_method found;
        scan(search, method, &found);
        assert_true(known->rate_lowest == found.rate_lowest);
        assert_true(known->rate_highest == found.rate_highest);
        assert_true(known->rate_diverged == found.rate_diverged);
        assert_int_equal(known->best_node, found.best_node);
        assert_true(evidence_best_rate(index, method) == found.best_rate);
        assert_true(evidence_speed(index, method) == scan_speed(search, method));
    }
    for (int32_t id = 0; id < search->tree.count; id++) {
        if (search->tree.nodes[id].state == TREE_NODE_CLOSED) {
            assert_int_equal(evidence_best_on_path(index, id), scan_path(search, id));
        }
    }
}

static void test_index_equals_the_scan(void **state)
{
    (void)state;
    struct error err = {0};
    struct search search;
    struct researcher *researcher = NULL;
    struct evidence_index index;
    struct rng rng;
    struct researcher_facts facts = usual_facts();
    rng_init(&rng, 5, 0);
    evidence_index_init(&index);
    begin_search(&search, true);
    assert_int_equal(open_researcher("rules", &facts, &researcher, &err), STATUS_OK);
    run_node(&search, researcher, plan_node(&search, researcher, -1), outcome_of, &rng);
    for (int round = 0; round < ROUNDS && search.tree.nodes[0].state == TREE_NODE_CLOSED; round++) {
        int32_t parent = (int32_t)rng_below(&rng, (uint64_t)search.tree.count);
        parent = search.tree.nodes[parent].state == TREE_NODE_CLOSED ? parent : 0;
        run_node(&search, researcher, plan_node(&search, researcher, parent), outcome_of, &rng);
        assert_int_equal(evidence_index_update(&index, &search, &err), STATUS_OK);
        compare(&search, &index);
    }
    assert_true(search.tree.count > 10);

    /* A search that was loaded lists its nodes in order, and leads to the same. */
    int32_t node = -1;
    int32_t candidate = -1;
    int32_t best_node = search.best_node;
    int64_t settled = search.settled_count;
    evidence_index_fini(&index);
    assert_int_equal(search_settle_all(&search, &err), STATUS_OK);
    assert_int_equal(search.settled_count, settled);
    assert_true(search_best(&search, &node, &candidate));
    assert_int_equal(node, best_node);
    assert_int_equal(evidence_index_update(&index, &search, &err), STATUS_OK);
    compare(&search, &index);
    evidence_index_fini(&index);
    researcher_close(researcher);
    search_fini(&search);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index_equals_the_scan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
