/* What each policy selects, from the definition, and that selections made at once spread. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tree/tree.h"

static const struct tree_policy_options usual = {
    .exploration = 0.5, .max_children = 3, .noise = 0.0};

static int32_t add_closed(struct tree *tree, int32_t parent, double reward)
{
    int32_t id = -1;
    assert_int_equal(tree_add(tree, parent, &id, NULL), STATUS_OK);
    tree_close(tree, id, reward);
    return id;
}

static int32_t add_open(struct tree *tree, int32_t parent)
{
    int32_t id = -1;
    assert_int_equal(tree_add(tree, parent, &id, NULL), STATUS_OK);
    return id;
}

static int32_t choose(const char *policy, const struct tree *tree,
                      const struct tree_policy_options *options)
{
    struct rng rng;
    rng_init(&rng, 1, 0);
    return tree_policy_find(policy)->select(tree, options, &rng);
}

static void test_registry(void **state)
{
    (void)state;
    const char *const names[] = {"uct", "greedy", "sequential", "random"};
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(tree_policy_list()[i]->name, names[i]);
        assert_ptr_equal(tree_policy_find(names[i]), tree_policy_list()[i]);
    }
    assert_null(tree_policy_list()[4]);
    assert_null(tree_policy_find("best"));
    assert_null(tree_policy_find(NULL));
}

static void test_nothing_to_refine(void **state)
{
    (void)state;
    for (const struct tree_policy *const *policy = tree_policy_list(); *policy != NULL; policy++) {
        struct tree tree;
        tree_init(&tree);
        assert_int_equal(choose((*policy)->name, &tree, &usual), -1); /* empty */
        int32_t root = add_open(&tree, -1);
        assert_int_equal(choose((*policy)->name, &tree, &usual), -1); /* the root is open */
        tree_close(&tree, root, 0.5);
        assert_int_equal(choose((*policy)->name, &tree, &usual), 0);
        tree_pending(&tree, 0, 3); /* three plans for three places */
        assert_int_equal(choose((*policy)->name, &tree, &usual), -1);
        tree_pending(&tree, 0, -3);
        for (int i = 0; i < 3; i++) {
            tree_fail(&tree, add_open(&tree, 0));
        }
        assert_int_equal(choose((*policy)->name, &tree, &usual), -1); /* full of failures */
        tree_fini(&tree);

        tree_init(&tree);
        tree_fail(&tree, add_open(&tree, -1));
        assert_int_equal(choose((*policy)->name, &tree, &usual), -1); /* the root failed */
        tree_fini(&tree);
    }
}

/* Selection by the definition, recursively and without backing out. */
static double naive_score(const struct tree *tree, int32_t parent, double value, double count,
                          const struct tree_policy_options *options)
{
    const struct tree_node *node = &tree->nodes[parent];
    double total = log((double)(node->visits + node->in_flight));
    return value + options->exploration * sqrt(2.0 * total / count);
}

static int32_t naive_uct(const struct tree *tree, int32_t id,
                         const struct tree_policy_options *options)
{
    if (tree->nodes[id].state != TREE_NODE_CLOSED) {
        return -1;
    }
    int32_t best = -1;
    double best_score = -INFINITY;
    if (tree_can_refine(tree, id, options)) {
        double count = 1.0 + tree->nodes[id].child_count + (double)tree_pending_here(tree, id);
        best = id;
        best_score = naive_score(tree, id, tree_normalise(tree, tree->nodes[id].reward, options),
                                 count, options);
    }
    for (int32_t child = id + 1; child < tree->count; child++) {
        if (tree->nodes[child].parent != id) {
            continue;
        }
        int32_t below = naive_uct(tree, child, options);
        const struct tree_node *node = &tree->nodes[child];
        double score = naive_score(tree, id, tree_value(tree, child, options),
                                   (double)(node->visits + node->in_flight), options);
        if (below >= 0 && score > best_score) {
            best = below;
            best_score = score;
        }
    }
    return best;
}

static void test_uct_equals_the_definition(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct rng rng;
        struct tree tree;
        struct tree_policy_options options = {
            .exploration = 0.1 * (double)(seed % 10),
            .max_children = 1 + (int32_t)(seed % 4),
            .noise = seed % 3 == 0 ? 0.5 : 0.0,
        };
        rng_init(&rng, seed, 0);
        tree_init(&tree);
        add_closed(&tree, -1, 0.0);
        for (int i = 0; i < 120; i++) {
            int32_t expected = naive_uct(&tree, 0, &options);
            assert_int_equal(choose("uct", &tree, &options), expected);
            if (expected < 0) {
                break;
            }
            /* Results come back out of order; some never do, some fail, equal rewards make ties. */
            int32_t id = add_open(&tree, expected);
            uint64_t fate = rng_below(&rng, 10);
            if (fate < 6) {
                tree_close(&tree, id, floor(8.0 * rng_uniform(&rng)));
            } else if (fate < 8) {
                tree_fail(&tree, id);
            } else if (fate == 8) {
                tree_pending(&tree, expected, 1);
            }
        }
        tree_fini(&tree);
    }
}

static void test_uct_backs_out(void **state)
{
    (void)state;
    struct tree tree;
    struct tree_policy_options one = {.exploration = 0.5, .max_children = 2, .noise = 0.0};
    tree_init(&tree);
    add_closed(&tree, -1, 0.0);
    int32_t good = add_closed(&tree, 0, 1.0);
    int32_t poor = add_closed(&tree, 0, 0.1);
    /* The good branch is full of nodes in flight: the poor one is taken although it scores less. */
    int32_t first = add_open(&tree, good);
    add_open(&tree, good);
    assert_int_equal(choose("uct", &tree, &one), poor);
    tree_close(&tree, first, 0.9);
    assert_int_equal(choose("uct", &tree, &one), first);
    tree_fini(&tree);

    /* A chain with room for one child each, ending in flight: nothing, and no recursion on the way.
     */
    tree_init(&tree);
    one.max_children = 1;
    int32_t at = add_closed(&tree, -1, 0.0);
    for (int i = 0; i < 3000; i++) {
        at = add_closed(&tree, at, 1.0);
    }
    assert_int_equal(choose("uct", &tree, &one), at);
    add_open(&tree, at);
    assert_int_equal(choose("uct", &tree, &one), -1);
    tree_fini(&tree);
}

static void test_uct_spreads(void **state)
{
    (void)state;
    struct tree tree;
    tree_init(&tree);
    add_closed(&tree, -1, 0.50);
    for (int i = 0; i < 3; i++) {
        add_closed(&tree, 0, 0.60 + 0.01 * i);
    }
    int32_t taken[8];
    int branches = 0;
    bool seen[4] = {false};
    for (int i = 0; i < 8; i++) {
        taken[i] = choose("uct", &tree, &usual);
        assert_true(taken[i] >= 0);
        tree_pending(&tree, taken[i], 1);
        int32_t branch = taken[i];
        assert_true(branch >= 1 && branch <= 3); /* the root has its three children */
        branches += !seen[branch];
        seen[branch] = true;
    }
    assert_int_equal(branches, 3);
    tree_fini(&tree);
}

static void test_uct_prefers_the_better(void **state)
{
    (void)state;
    struct tree tree;
    struct tree_policy_options greedy = {.exploration = 0.0, .max_children = 2, .noise = 0.0};
    tree_init(&tree);
    add_closed(&tree, -1, 0.0);
    add_closed(&tree, 0, 0.2);
    int32_t better = add_closed(&tree, 0, 0.8);
    assert_int_equal(choose("uct", &tree, &greedy), better);
    /* Failures in its subtree make it worth less than its sibling. */
    for (int i = 0; i < 2; i++) {
        tree_fail(&tree, add_open(&tree, better));
    }
    int32_t sibling = 1;
    add_closed(&tree, sibling, 0.8);
    assert_int_equal(choose("uct", &tree, &greedy), 5);
    tree_fini(&tree);
}

static void test_rivals(void **state)
{
    (void)state;
    struct tree tree;
    tree_init(&tree);
    add_closed(&tree, -1, 0.0);
    int32_t best = add_closed(&tree, 0, 0.9);
    int32_t next = add_closed(&tree, 0, 0.7);
    assert_int_equal(choose("greedy", &tree, &usual), best);
    assert_int_equal(choose("sequential", &tree, &usual), next);
    for (int i = 0; i < 3; i++) {
        add_closed(&tree, best, 0.1);
    }
    assert_int_equal(choose("greedy", &tree, &usual), next);
    assert_int_equal(choose("sequential", &tree, &usual), 5);
    tree_fail(&tree, add_open(&tree, 5));
    add_open(&tree, 5);
    assert_int_equal(choose("sequential", &tree, &usual), 5);
    add_open(&tree, 5);
    assert_int_equal(choose("sequential", &tree, &usual), 4);
    tree_fini(&tree);
}

/* Selection by the ranking equals the one that looks at every node, whatever happens to the tree.
 */
static void test_ranking_equals_the_scan(void **state)
{
    enum { STEPS = 6000, WAITING = 40 };
    (void)state;
    struct error err;
    struct tree tree;
    struct rng rng;
    struct tree_policy_options options = usual;
    int32_t open[WAITING];
    int32_t planned[WAITING];
    int open_count = 0;
    int planned_count = 0;
    tree_init(&tree);
    options.max_children = 3;
    assert_int_equal(tree_rank(&tree, options.max_children, &err), STATUS_OK);
    rng_init(&rng, 3, 0);
    add_closed(&tree, -1, 0.5);
    for (int step = 0; step < STEPS; step++) {
        int32_t best = choose("greedy", &tree, &options);
        struct tree plain = tree;
        plain.ranking.max_children = 0;
        assert_int_equal(best, choose("greedy", &plain, &options));
        assert_int_equal(choose("sequential", &tree, &options),
                         choose("sequential", &plain, &options));
        assert_int_equal(choose("random", &tree, &options), choose("random", &plain, &options));
        uint64_t what = rng_below(&rng, 5);
        if (what < 2 && best >= 0 && planned_count < WAITING) {
            int32_t parent = what == 0 ? best : (int32_t)rng_below(&rng, (uint64_t)tree.count);
            parent = tree_can_refine(&tree, parent, &options) ? parent : best;
            tree_pending(&tree, parent, 1);
            planned[planned_count++] = parent;
        } else if (what == 2 && planned_count > 0 && open_count < WAITING) {
            int32_t parent = planned[--planned_count];
            bool refused = rng_below(&rng, 4) == 0;
            if (!refused) {
                open[open_count++] = add_open(&tree, parent);
            }
            tree_pending(&tree, parent, -1);
        } else if (open_count > 0) {
            uint64_t at = rng_below(&rng, (uint64_t)open_count);
            int32_t id = open[at];
            open[at] = open[--open_count];
            if (rng_below(&rng, 6) == 0) {
                tree_fail(&tree, id);
            } else { /* few values, so that there are ties */
                tree_close(&tree, id, (double)rng_below(&rng, 20));
            }
        }
        if (step == STEPS / 2) {
            planned_count = 0;
            assert_int_equal(tree_rebuild(&tree, &err), STATUS_OK);
        }
        if (step == STEPS / 4) { /* another limit: as after a resume with another job */
            options.max_children = 4;
            assert_int_equal(tree_rank(&tree, options.max_children, &err), STATUS_OK);
        }
    }
    assert_true(tree.count > 500);
    assert_int_equal(tree_check(&tree, &err), STATUS_OK);
    tree_fini(&tree);
}

static void test_random_is_uniform(void **state)
{
    (void)state;
    enum { CHILDREN = 9, DRAWS = 9000 };
    struct tree tree;
    struct tree_policy_options options = {.exploration = 0.0, .max_children = CHILDREN, .noise = 0};
    struct rng rng;
    int count[CHILDREN + 1] = {0};
    rng_init(&rng, 11, 0);
    tree_init(&tree);
    add_closed(&tree, -1, 0.0);
    for (int i = 0; i < CHILDREN; i++) {
        add_closed(&tree, 0, i);
    }
    for (int i = 0; i < DRAWS; i++) {
        count[tree_policy_find("random")->select(&tree, &options, &rng)]++;
    }
    assert_int_equal(count[0], 0); /* the root is full */
    for (int i = 1; i <= CHILDREN; i++) {
        assert_in_range(count[i], 850, 1150); /* 1000, and 5 standard deviations of 31 */
    }
    tree_fini(&tree);

    /* One node among thousands: found by the scan when draws miss. */
    tree_init(&tree);
    options.max_children = 1;
    int32_t at = add_closed(&tree, -1, 0.0);
    for (int i = 0; i < 4000; i++) {
        at = add_closed(&tree, at, 1.0);
    }
    assert_int_equal(tree_policy_find("random")->select(&tree, &options, &rng), at);
    tree_fini(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registry),
        cmocka_unit_test(test_nothing_to_refine),
        cmocka_unit_test(test_uct_equals_the_definition),
        cmocka_unit_test(test_uct_backs_out),
        cmocka_unit_test(test_uct_spreads),
        cmocka_unit_test(test_uct_prefers_the_better),
        cmocka_unit_test(test_rivals),
        cmocka_unit_test(test_ranking_equals_the_scan),
        cmocka_unit_test(test_random_is_uniform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
