/* Random: uniform over the nodes that can be refined; what every other policy has to beat. */
#include "tree/policy.h"

enum { RANDOM_TRIES = 64 };

/* Of the nodes that have room the one that a lottery of this draw favours: uniform, and the same in
 * whatever order they are looked at. */
struct lottery {
    uint64_t salt, best;
    int32_t winner;
};

static void take_part(struct lottery *lottery, int32_t id)
{
    struct rng rng;
    rng_init(&rng, lottery->salt, (uint64_t)id);
    uint64_t ticket = rng_u64(&rng);
    if (lottery->winner < 0 || ticket < lottery->best ||
        (ticket == lottery->best && id < lottery->winner)) {
        lottery->best = ticket;
        lottery->winner = id;
    }
}

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
    struct lottery lottery = {.salt = rng_u64(rng), .winner = -1};
    if (tree->ranking.max_children == options->max_children) {
        for (int32_t i = 0; i < tree->ranking.count; i++) {
            take_part(&lottery, tree->ranking.heap[i]);
        }
        return lottery.winner;
    }
    for (int32_t id = 0; id < tree->count; id++) {
        if (tree_can_refine(tree, id, options)) {
            take_part(&lottery, id);
        }
    }
    return lottery.winner;
}

const struct tree_policy tree_policy_random = {
    .name = "random",
    .summary = "refines any node with equal chance",
    .select = select_random,
};
