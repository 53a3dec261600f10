/* Random: uniform over the nodes that can be refined; what every other policy has to beat. */
#include "tree/policy.h"

enum { RANDOM_TRIES = 64 };

static int32_t select_random(const struct tree *tree, const struct tree_policy_options *options,
                             struct rng *rng)
{
    /* Most nodes can usually be refined, so drawing until one fits is quick and uniform. */
    for (int i = 0; i < RANDOM_TRIES && tree->count > 0; i++) {
        int32_t id = (int32_t)rng_below(rng, (uint64_t)tree->count);
        if (tree_can_refine(tree, id, options)) {
            return id;
        }
    }
    int32_t chosen = -1;
    uint64_t seen = 0;
    for (int32_t id = 0; id < tree->count; id++) {
        if (tree_can_refine(tree, id, options) && rng_below(rng, ++seen) == 0) {
            chosen = id;
        }
    }
    return chosen;
}

const struct tree_policy tree_policy_random = {
    .name = "random",
    .summary = "refines any node with equal chance",
    .select = select_random,
};
