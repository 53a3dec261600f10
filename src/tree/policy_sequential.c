/* Sequential: the newest closed node, as an engineer who always goes on from the last experiment.
 */
#include "tree/policy.h"
#include "tree/tree_ranking.h"

static int32_t select_sequential(const struct tree *tree, const struct tree_policy_options *options,
                                 struct rng *rng)
{
    (void)rng;
    if (tree->ranking.max_children == options->max_children) {
        return tree_newest_with_room(&tree->ranking);
    }
    for (int32_t id = tree->count - 1; id >= 0; id--) {
        if (tree_can_refine(tree, id, options)) {
            return id;
        }
    }
    return -1;
}

const struct tree_policy tree_policy_sequential = {
    .name = "sequential",
    .summary = "refines the newest node, whatever its score",
    .select = select_sequential,
};
