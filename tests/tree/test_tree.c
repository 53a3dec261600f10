/* The tree against a naive model: thousands of random operations, every figure recomputed from
 * scratch. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tree/tree.h"

enum { MODEL_MAX = 600 };

/* What the tree should be, without any clever figure. */
struct naive {
    int32_t parent[MODEL_MAX];
    enum tree_node_state state[MODEL_MAX];
    double reward[MODEL_MAX];
    int64_t pending[MODEL_MAX];
    int32_t count;
};

static bool is_below(const struct naive *naive, int32_t id, int32_t top)
{
    while (id >= 0 && id != top) {
        id = naive->parent[id];
    }
    return id == top;
}

static void assert_node_fits(const struct tree *tree, const struct naive *naive, int32_t id)
{
    int64_t visits = 0;
    int64_t successes = 0;
    int64_t in_flight = 0;
    int32_t children = 0;
    double sum = 0.0;
    for (int32_t i = 0; i < naive->count; i++) {
        children += naive->parent[i] == id;
        if (!is_below(naive, i, id)) {
            continue;
        }
        visits += naive->state[i] != TREE_NODE_OPEN;
        successes += naive->state[i] == TREE_NODE_CLOSED;
        in_flight += naive->pending[i] + (naive->state[i] == TREE_NODE_OPEN);
        sum += naive->state[i] == TREE_NODE_CLOSED ? naive->reward[i] : 0.0;
    }
    const struct tree_node *node = &tree->nodes[id];
    assert_int_equal(node->visits, visits);
    assert_int_equal(node->successes, successes);
    assert_int_equal(node->in_flight, in_flight);
    assert_int_equal(node->child_count, children);
    assert_int_equal(tree_pending_here(tree, id), naive->pending[id]);
    assert_true(fabs(node->reward_sum - sum) <= 1e-9 * (1.0 + fabs(sum)));
}

static void assert_tree_fits(const struct tree *tree, const struct naive *naive)
{
    assert_int_equal(tree->count, naive->count);
    for (int32_t id = 0; id < naive->count; id++) {
        assert_node_fits(tree, naive, id);
    }
    struct error err;
    assert_int_equal(tree_check(tree, &err), STATUS_OK);
}

static void step(struct tree *tree, struct naive *naive, struct rng *rng)
{
    struct error err;
    int32_t at = naive->count > 0 ? (int32_t)rng_below(rng, (uint64_t)naive->count) : -1;
    switch (rng_below(rng, 6)) {
    case 0:
    case 1: {
        int32_t id = -1;
        bool fits =
            naive->count < MODEL_MAX && (naive->count == 0 || naive->state[at] == TREE_NODE_CLOSED);
        if (naive->count == MODEL_MAX) {
            return;
        }
        assert_int_equal(tree_add(tree, at, &id, &err), fits ? STATUS_OK : STATUS_INVALID);
        if (fits) {
            assert_int_equal(id, naive->count);
            naive->parent[id] = at;
            naive->state[id] = TREE_NODE_OPEN;
            naive->pending[id] = 0;
            naive->count++;
        }
        return;
    }
    case 2:
    case 3:
        if (at >= 0 && naive->state[at] == TREE_NODE_OPEN) {
            naive->reward[at] = rng_normal(rng);
            naive->state[at] = TREE_NODE_CLOSED;
            tree_close(tree, at, naive->reward[at]);
        }
        return;
    case 4:
        if (at > 0 && naive->state[at] == TREE_NODE_OPEN && rng_below(rng, 4) == 0) {
            naive->state[at] = TREE_NODE_FAILED;
            tree_fail(tree, at);
        }
        return;
    default:
        if (at >= 0 && naive->state[at] == TREE_NODE_CLOSED) {
            int32_t delta = naive->pending[at] > 0 ? -1 : 1;
            naive->pending[at] += delta;
            tree_pending(tree, at, delta);
        }
    }
}

static void test_random_operations(void **state)
{
    (void)state;
    struct rng rng;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct tree tree;
        struct naive *naive = mem_calloc(1, sizeof(*naive));
        assert_non_null(naive);
        tree_init(&tree);
        rng_init(&rng, seed, 0);
        for (int i = 0; i < 2000; i++) {
            step(&tree, naive, &rng);
            if (i % 100 == 0) {
                assert_tree_fits(&tree, naive);
            }
        }
        assert_tree_fits(&tree, naive);
        tree_fini(&tree);
        free(naive);
    }
}

/* A chain and its order of closing must not show in the bits of the sums. */
static void test_rebuild_equals_to_the_bit(void **state)
{
    (void)state;
    struct error err;
    struct rng rng;
    struct tree tree;
    tree_init(&tree);
    rng_init(&rng, 3, 0);
    int32_t id;
    assert_int_equal(tree_add(&tree, -1, &id, &err), STATUS_OK);
    tree_close(&tree, 0, 0.1);
    for (int round = 0; round < 50; round++) {
        int32_t added[4];
        for (int i = 0; i < 4; i++) {
            int32_t parent;
            do {
                parent = (int32_t)rng_below(&rng, (uint64_t)tree.count);
            } while (tree.nodes[parent].state != TREE_NODE_CLOSED);
            assert_int_equal(tree_add(&tree, parent, &added[i], &err), STATUS_OK);
        }
        for (int i = 3; i >= 0; i--) {
            tree_close(&tree, added[i], 1.0 / (1.0 + (double)added[i]));
        }
    }
    tree_pending(&tree, 5, 1);
    struct tree rebuilt = tree;
    rebuilt.nodes = mem_calloc((size_t)tree.count, sizeof(*rebuilt.nodes));
    assert_non_null(rebuilt.nodes);
    for (int32_t i = 0; i < tree.count; i++) {
        rebuilt.nodes[i].parent = tree.nodes[i].parent;
        rebuilt.nodes[i].state = tree.nodes[i].state;
        rebuilt.nodes[i].reward = tree.nodes[i].reward;
    }
    assert_int_equal(tree_rebuild(&rebuilt, &err), STATUS_OK);
    tree_pending(&tree, 5, -1);
    for (int32_t i = 0; i < tree.count; i++) {
        assert_memory_equal(&rebuilt.nodes[i], &tree.nodes[i], sizeof(tree.nodes[i]));
    }
    assert_true(rebuilt.reward_min == tree.reward_min && rebuilt.reward_max == tree.reward_max);
    free(rebuilt.nodes);
    tree_fini(&tree);
}

static void small_tree(struct tree *tree)
{
    int32_t id;
    tree_init(tree);
    assert_int_equal(tree_add(tree, -1, &id, NULL), STATUS_OK);
    tree_close(tree, 0, 1.0);
    assert_int_equal(tree_add(tree, 0, &id, NULL), STATUS_OK);
    tree_close(tree, 1, 2.0);
    assert_int_equal(tree_add(tree, 1, &id, NULL), STATUS_OK);
    tree_fail(tree, 2);
    assert_int_equal(tree_add(tree, 1, &id, NULL), STATUS_OK);
}

static void test_damage_is_found(void **state)
{
    (void)state;
    struct tree tree;
    struct error err;
    small_tree(&tree);
    assert_int_equal(tree_check(&tree, &err), STATUS_OK);

    struct tree_node *node = &tree.nodes[3];
    const struct tree_node good = *node;
    const struct tree_node bad[] = {
        {.parent = 3, .state = TREE_NODE_OPEN},
        {.parent = -1, .state = TREE_NODE_OPEN},
        {.parent = -7, .state = TREE_NODE_OPEN},
        {.parent = 1, .state = (enum tree_node_state)9},
        {.parent = 2, .state = TREE_NODE_OPEN},
        {.parent = 1, .state = TREE_NODE_CLOSED, .reward = NAN},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        *node = bad[i];
        assert_int_equal(tree_rebuild(&tree, &err), STATUS_CORRUPT);
        assert_int_equal(tree_check(&tree, &err), STATUS_CORRUPT);
        assert_non_null(strstr(err.message, "node 3"));
        *node = good;
    }

    tree.nodes[1].visits++;
    assert_int_equal(tree_check(&tree, &err), STATUS_CORRUPT);
    tree.nodes[1].visits--;
    tree.nodes[1].reward_sum += 1e-12;
    assert_int_equal(tree_check(&tree, &err), STATUS_CORRUPT);
    tree.nodes[1].reward_sum = 2.0;
    tree.nodes[0].in_flight--;
    assert_int_equal(tree_check(&tree, &err), STATUS_CORRUPT);
    tree.nodes[0].in_flight++;
    tree.nodes[3].depth++;
    assert_int_equal(tree_check(&tree, &err), STATUS_CORRUPT);
    tree.nodes[3].depth--;
    tree.nodes[1].last_child = 2;
    assert_int_equal(tree_check(&tree, &err), STATUS_CORRUPT);
    tree.nodes[1].last_child = 3;
    tree.reward_max = 7.0;
    assert_int_equal(tree_check(&tree, &err), STATUS_CORRUPT);
    tree.reward_max = 2.0;
    tree.nodes[3].in_flight = 2; /* more than its parent has */
    assert_int_equal(tree_check(&tree, &err), STATUS_CORRUPT);
    tree.nodes[3].in_flight = 1;
    assert_int_equal(tree_check(&tree, &err), STATUS_OK);
    tree_fini(&tree);
}

static void test_add_refuses(void **state)
{
    (void)state;
    struct tree tree;
    struct error err;
    int32_t id = 77;
    tree_init(&tree);
    assert_int_equal(tree_add(&tree, 0, &id, &err), STATUS_INVALID); /* no root yet */
    small_tree(&tree);
    assert_int_equal(tree_add(&tree, -1, &id, &err), STATUS_INVALID); /* a second root */
    assert_int_equal(tree_add(&tree, 4, &id, &err), STATUS_INVALID);
    assert_int_equal(tree_add(&tree, 2, &id, &err), STATUS_INVALID); /* failed */
    assert_int_equal(tree_add(&tree, 3, &id, &err), STATUS_INVALID); /* open */
    assert_int_equal(id, 77);
    assert_int_equal(tree.count, 4);
    tree_fini(&tree);

    tree_init(&tree);
    mem_fail_nth(1);
    assert_int_equal(tree_add(&tree, -1, &id, &err), STATUS_NO_MEMORY);
    mem_fail_nth(0);
    assert_int_equal(tree.count, 0);
    tree_fini(&tree);
}

static void test_values(void **state)
{
    (void)state;
    struct tree tree;
    struct tree_policy_options options = {.exploration = 0.5, .max_children = 5, .noise = 0.0};
    small_tree(&tree);
    /* Rewards 1 and 2, one failure: range 1, the mean of n1's subtree is 2 of which half failed. */
    assert_float_equal(tree_normalise(&tree, 1.0, &options), 0.0, 1e-12);
    assert_float_equal(tree_normalise(&tree, 2.0, &options), 1.0, 1e-12);
    assert_float_equal(tree_value(&tree, 1, &options), 0.5, 1e-12);
    assert_float_equal(tree_value(&tree, 2, &options), 0.0, 1e-12);
    assert_float_equal(tree_value(&tree, 3, &options), 0.0, 1e-12);
    assert_float_equal(tree_value(&tree, 0, &options), 1.0F / 3.0F, 1e-6);
    options.noise = 10.0; /* all differences are noise: everything is near the middle */
    assert_float_equal(tree_normalise(&tree, 1.0, &options), 0.45, 1e-12);
    assert_float_equal(tree_normalise(&tree, 2.0, &options), 0.55, 1e-12);
    tree_fini(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_rebuild_equals_to_the_bit),
        cmocka_unit_test(test_damage_is_found),
        cmocka_unit_test(test_add_refuses),
        cmocka_unit_test(test_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
