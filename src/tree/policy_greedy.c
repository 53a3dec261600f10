/* Greedy best-first: the closed node with the highest reward of its own that has room for a child.
 */
#include "tree/policy.h"

static int32_t select_greedy(const struct tree *tree, const struct tree_policy_options *options,
                             struct rng *rng)
{
    (void)rng;
    if (tree->ranking.max_children == options->max_children) {
        return tree->ranking.count > 0 ? tree->ranking.heap[0] : -1;
    }
    int32_t best = -1;
    for (int32_t id = 0; id < tree->count; id++) {
        const struct tree_node *node = &tree->nodes[id];
        if (node->state == TREE_NODE_CLOSED &&
            (best < 0 || node->reward > tree->nodes[best].reward) &&
            tree_can_refine(tree, id, options)) {
            best = id;
        }
    }
    return best;
}

const struct tree_policy tree_policy_greedy = {
    .name = "greedy",
    .summary = "best-first: refines the best node that has room for a child",
    .select = select_greedy,
};
