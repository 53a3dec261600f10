/* UCT with in-flight counts (WU-UCT). Source: arXiv 1810.11755.
 *
 * At a closed node v the arms are its closed children, and "a new child of v" while there is room
 * for one:
 *
 *   child c      Q = mean normalised reward of c's subtree    n = N_c + O_c
 *   new child    Q = normalised reward of v itself            n = 1 + children of v + plans being
 * made for v score        Q + c * sqrt(2 ln(N_v + O_v) / n)
 *
 * What is in flight counts in n but not in Q: it makes an arm less urgent without saying that it is
 * bad, so that selections made at the same time spread over the tree. */
#include "tree/policy.h"

#include <math.h>

struct arm {
    int32_t id; /* a child; the node itself: a new child; -1: none */
    double score;
};

/* Arms are taken by falling score, then by rising id. */
static bool comes_before(struct arm a, struct arm b)
{
    return a.score > b.score || (a.score == b.score && a.id < b.id);
}

/* Not inlined: going back compares a score computed anew with itself, so it must always be the same
 * code. */
__attribute__((noinline)) static double arm_score(double value, double count, double log_total,
                                                  double exploration)
{
    return value + exploration * sqrt(2.0 * log_total / count);
}

static double log_total(const struct tree_node *node)
{
    return log((double)(node->visits + node->in_flight));
}

static struct arm child_arm(const struct tree *tree, int32_t child, double total,
                            const struct tree_policy_options *options)
{
    const struct tree_node *node = &tree->nodes[child];
    double count = (double)(node->visits + node->in_flight);
    double value = tree_value(tree, child, options);
    return (struct arm){child, arm_score(value, count, total, options->exploration)};
}

/* The best arm of a closed node that comes after `last`. */
static struct arm next_arm(const struct tree *tree, int32_t id, struct arm last,
                           const struct tree_policy_options *options)
{
    const struct tree_node *node = &tree->nodes[id];
    double total = log_total(node);
    int64_t pending = node->in_flight;
    struct arm best = {-1, -INFINITY};
    for (int32_t child = node->first_child; child >= 0; child = tree->nodes[child].next_sibling) {
        pending -= tree->nodes[child].in_flight;
        if (tree->nodes[child].state != TREE_NODE_CLOSED) {
            continue;
        }
        struct arm arm = child_arm(tree, child, total, options);
        if (comes_before(last, arm) && (best.id < 0 || comes_before(arm, best))) {
            best = arm;
        }
    }
    if (node->child_count + pending < options->max_children) {
        double value = tree_normalise(tree, node->reward, options);
        double count = (double)(1 + node->child_count + pending);
        struct arm arm = {id, arm_score(value, count, total, options->exploration)};
        if (comes_before(last, arm) && (best.id < 0 || comes_before(arm, best))) {
            best = arm;
        }
    }
    return best;
}

static int32_t select_uct(const struct tree *tree, const struct tree_policy_options *options,
                          struct rng *rng)
{
    (void)rng;
    const struct arm before_all = {-1, INFINITY};
    if (tree->count == 0 || tree->nodes[0].state != TREE_NODE_CLOSED) {
        return -1;
    }
    int32_t at = 0;
    struct arm last = before_all;
    for (;;) {
        struct arm arm = next_arm(tree, at, last, options);
        if (arm.id == at) {
            return at;
        }
        if (arm.id >= 0) {
            at = arm.id;
            last = before_all;
            continue;
        }
        /* Nothing to refine below here: back to the parent, which goes on after the arm that led
         * here. */
        int32_t parent = tree->nodes[at].parent;
        if (parent < 0) {
            return -1;
        }
        last = child_arm(tree, at, log_total(&tree->nodes[parent]), options);
        at = parent;
    }
}

const struct tree_policy tree_policy_uct = {
    .name = "uct",
    .summary = "upper confidence bounds with in-flight counts: weighs good branches against "
               "untried ones",
    .select = select_uct,
};
