#include "tree/tree.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tree/tree_ranking.h"

enum { TREE_FIRST_CAPACITY = 64 };

void tree_init(struct tree *tree)
{
    memset(tree, 0, sizeof(*tree));
    tree->reward_min = NAN;
    tree->reward_max = NAN;
}

void tree_fini(struct tree *tree)
{
    free(tree->nodes);
    free(tree->ranking.heap);
    free(tree->ranking.place);
    free(tree->ranking.room);
    tree_init(tree);
}

/* ---- growing ---- */

static enum status reserve(struct tree *tree, struct error *err)
{
    if (tree->count < tree->capacity) {
        return STATUS_OK;
    }
    if (tree->count >= TREE_NODES_MAX) {
        return FAIL(err, STATUS_LIMIT, "a tree has at most %d nodes", TREE_NODES_MAX);
    }
    int32_t capacity = tree->capacity > 0 ? tree->capacity * 2 : TREE_FIRST_CAPACITY;
    struct tree_node *nodes = mem_realloc(tree->nodes, (size_t)capacity, sizeof(*nodes));
    if (nodes == NULL) {
        return mem_fail(err, (size_t)capacity * sizeof(*nodes), "tree nodes");
    }
    tree->nodes = nodes;
    if (tree->ranking.max_children > 0) {
        TRY(tree_reserve_ranking(&tree->ranking, capacity, err));
    }
    tree->capacity = capacity;
    return STATUS_OK;
}

/* Puts a node, whose parent is set, at the end of its parent's children. */
static void link_child(struct tree *tree, int32_t id)
{
    struct tree_node *nodes = tree->nodes;
    nodes[id].first_child = -1;
    nodes[id].last_child = -1;
    nodes[id].next_sibling = -1;
    nodes[id].child_count = 0;
    nodes[id].depth = 0;
    if (nodes[id].parent < 0) {
        return;
    }
    struct tree_node *parent = &nodes[nodes[id].parent];
    nodes[id].depth = parent->depth + 1;
    if (parent->last_child < 0) {
        parent->first_child = id;
    } else {
        nodes[parent->last_child].next_sibling = id;
    }
    parent->last_child = id;
    parent->child_count++;
}

enum status tree_add(struct tree *tree, int32_t parent, int32_t *id, struct error *err)
{
    if (tree->count == 0 ? parent != -1 : (parent < 0 || parent >= tree->count)) {
        return FAIL(err, STATUS_INVALID, "node %d cannot be the parent of node %d", (int)parent,
                    (int)tree->count);
    }
    if (parent >= 0 && tree->nodes[parent].state != TREE_NODE_CLOSED) {
        return FAIL(err, STATUS_INVALID, "node %d is not closed, so node %d cannot refine it",
                    (int)parent, (int)tree->count);
    }
    TRY(reserve(tree, err));
    int32_t added = tree->count++;
    memset(&tree->nodes[added], 0, sizeof(tree->nodes[added]));
    tree->nodes[added].parent = parent;
    tree->nodes[added].state = TREE_NODE_OPEN;
    link_child(tree, added);
    tree_rank_node(tree, added);
    tree_pending(tree, added, 1);
    if (parent >= 0) {
        tree_rank_node(tree, parent);
    }
    *id = added;
    return STATUS_OK;
}

/* ---- statistics ---- */

/* Own reward and the children's sums, in order of creation. Summing anew, instead of adding the
 * change to the ancestors, makes the figure a function of the tree alone: it does not depend on the
 * order of closing. */
static double subtree_reward(const struct tree *tree, int32_t id)
{
    const struct tree_node *node = &tree->nodes[id];
    double sum = node->state == TREE_NODE_CLOSED ? node->reward : 0.0;
    for (int32_t child = node->first_child; child >= 0; child = tree->nodes[child].next_sibling) {
        sum += tree->nodes[child].reward_sum;
    }
    return sum;
}

static void widen_range(struct tree *tree, double reward)
{
    /* fmin and fmax ignore a NaN, which stands for "none yet". */
    tree->reward_min = fmin(tree->reward_min, reward);
    tree->reward_max = fmax(tree->reward_max, reward);
}

static void settle(struct tree *tree, int32_t id, enum tree_node_state state, double reward)
{
    assert(id >= 0 && id < tree->count && tree->nodes[id].state == TREE_NODE_OPEN);
    bool closed = state == TREE_NODE_CLOSED;
    tree->nodes[id].state = state;
    tree->nodes[id].reward = reward;
    if (closed) {
        widen_range(tree, reward);
    }
    for (int32_t at = id; at >= 0; at = tree->nodes[at].parent) {
        struct tree_node *node = &tree->nodes[at];
        node->visits++;
        node->successes += closed;
        node->in_flight--;
        if (closed) {
            node->reward_sum = subtree_reward(tree, at);
        }
    }
    tree_rank_node(tree, id);
}

void tree_close(struct tree *tree, int32_t id, double reward)
{
    assert(isfinite(reward));
    settle(tree, id, TREE_NODE_CLOSED, reward);
}

void tree_fail(struct tree *tree, int32_t id)
{
    settle(tree, id, TREE_NODE_FAILED, 0.0);
}

void tree_pending(struct tree *tree, int32_t id, int32_t delta)
{
    for (int32_t at = id; at >= 0; at = tree->nodes[at].parent) {
        tree->nodes[at].in_flight += delta;
    }
    tree_rank_node(tree, id);
}

/* ---- rebuilding ---- */

static enum status check_sources(const struct tree *tree, struct error *err)
{
    if (tree->count < 0 || tree->count > TREE_NODES_MAX || tree->count > tree->capacity) {
        return FAIL(err, STATUS_CORRUPT, "tree: %d nodes, allowed are 0 to %d", (int)tree->count,
                    TREE_NODES_MAX);
    }
    for (int32_t id = 0; id < tree->count; id++) {
        const struct tree_node *node = &tree->nodes[id];
        bool parent_fits = id == 0 ? node->parent == -1 : node->parent >= 0 && node->parent < id;
        if (!parent_fits) {
            return FAIL(err, STATUS_CORRUPT, "tree: node %d has parent %d", (int)id,
                        (int)node->parent);
        }
        if ((int)node->state < TREE_NODE_OPEN || (int)node->state > TREE_NODE_FAILED) {
            return FAIL(err, STATUS_CORRUPT, "tree: node %d has state %d", (int)id,
                        (int)node->state);
        }
        if (node->state == TREE_NODE_CLOSED && !isfinite(node->reward)) {
            return FAIL(err, STATUS_CORRUPT, "tree: node %d is closed with reward %g", (int)id,
                        node->reward);
        }
        if (id > 0 && tree->nodes[node->parent].state != TREE_NODE_CLOSED) {
            return FAIL(err, STATUS_CORRUPT, "tree: node %d refines node %d, which is not closed",
                        (int)id, (int)node->parent);
        }
    }
    return STATUS_OK;
}

enum status tree_rebuild(struct tree *tree, struct error *err)
{
    TRY(check_sources(tree, err));
    tree->reward_min = NAN;
    tree->reward_max = NAN;
    for (int32_t id = 0; id < tree->count; id++) {
        struct tree_node *node = &tree->nodes[id];
        link_child(tree, id);
        node->visits = node->state != TREE_NODE_OPEN;
        node->successes = node->state == TREE_NODE_CLOSED;
        node->in_flight = node->state == TREE_NODE_OPEN;
        if (node->state == TREE_NODE_CLOSED) {
            widen_range(tree, node->reward);
        } else {
            node->reward = 0.0;
        }
    }
    /* Children have larger ids than their parents: from the end, each node is complete when it is
     * reached. */
    for (int32_t id = tree->count - 1; id >= 0; id--) {
        struct tree_node *node = &tree->nodes[id];
        node->reward_sum = subtree_reward(tree, id);
        if (node->parent >= 0) {
            struct tree_node *parent = &tree->nodes[node->parent];
            parent->visits += node->visits;
            parent->successes += node->successes;
            parent->in_flight += node->in_flight;
        }
    }
    tree_rank_all(tree);
    return STATUS_OK;
}

/* Equal bits, or both not a number. */
static bool same_figure(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static const char *node_difference(const struct tree_node *node, const struct tree_node *rebuilt)
{
    if (node->depth != rebuilt->depth) {
        return "depth";
    }
    if (node->first_child != rebuilt->first_child || node->last_child != rebuilt->last_child ||
        node->next_sibling != rebuilt->next_sibling || node->child_count != rebuilt->child_count) {
        return "children";
    }
    if (node->visits != rebuilt->visits || node->successes != rebuilt->successes) {
        return "visits";
    }
    if (!same_figure(node->reward, rebuilt->reward) ||
        !same_figure(node->reward_sum, rebuilt->reward_sum)) {
        return "reward";
    }
    /* Plans being made are in no node: they can only add. */
    return node->in_flight < rebuilt->in_flight ? "in flight" : NULL;
}

static enum status compare(const struct tree *tree, const struct tree *rebuilt, struct error *err)
{
    if (!same_figure(tree->reward_min, rebuilt->reward_min) ||
        !same_figure(tree->reward_max, rebuilt->reward_max)) {
        return FAIL(err, STATUS_CORRUPT, "tree: reward range %g to %g does not fit its nodes",
                    tree->reward_min, tree->reward_max);
    }
    for (int32_t id = 0; id < tree->count; id++) {
        const char *figure = node_difference(&tree->nodes[id], &rebuilt->nodes[id]);
        if (figure != NULL) {
            return FAIL(err, STATUS_CORRUPT, "tree: node %d: %s does not fit parents and states",
                        (int)id, figure);
        }
        if (tree_pending_here(tree, id) < 0) {
            return FAIL(err, STATUS_CORRUPT, "tree: node %d: in flight does not fit its children",
                        (int)id);
        }
    }
    return STATUS_OK;
}

enum status tree_check(const struct tree *tree, struct error *err)
{
    TRY(check_sources(tree, err));
    struct tree rebuilt = *tree;
    memset(&rebuilt.ranking, 0, sizeof(rebuilt.ranking));
    rebuilt.nodes = mem_calloc((size_t)tree->count, sizeof(*rebuilt.nodes));
    if (rebuilt.nodes == NULL) {
        return mem_fail(err, (size_t)tree->count * sizeof(*rebuilt.nodes), "tree nodes");
    }
    if (tree->count > 0) {
        memcpy(rebuilt.nodes, tree->nodes, (size_t)tree->count * sizeof(*rebuilt.nodes));
    }
    enum status status = tree_rebuild(&rebuilt, err);
    if (status == STATUS_OK) {
        status = compare(tree, &rebuilt, err);
    }
    free(rebuilt.nodes);
    return status;
}

/* ---- what policies read ---- */

/* The range is centred when it is narrower than the noise, so that equal rewards are worth 0.5:
 * more than a failure, less than a clear success. */
static double normalise(const struct tree *tree, double reward, double noise)
{
    double middle = 0.5 * tree->reward_min + 0.5 * tree->reward_max;
    double width = fmax(tree->reward_max - tree->reward_min, noise);
    if (!(width > 0.0) || !isfinite(width)) {
        return 0.5;
    }
    return fmin(fmax(0.5 + (reward - middle) / width, 0.0), 1.0);
}

double tree_normalise(const struct tree *tree, double reward,
                      const struct tree_policy_options *options)
{
    return normalise(tree, reward, options->noise);
}

double tree_value(const struct tree *tree, int32_t id, const struct tree_policy_options *options)
{
    const struct tree_node *node = &tree->nodes[id];
    if (node->successes == 0) {
        return 0.0;
    }
    /* Normalising is linear, so the mean of the normalised is the normalised mean. */
    double mean = node->reward_sum / (double)node->successes;
    double share = (double)node->successes / (double)node->visits;
    return normalise(tree, mean, options->noise) * share;
}

int64_t tree_pending_here(const struct tree *tree, int32_t id)
{
    const struct tree_node *node = &tree->nodes[id];
    int64_t pending = node->in_flight - (node->state == TREE_NODE_OPEN);
    for (int32_t child = node->first_child; child >= 0; child = tree->nodes[child].next_sibling) {
        pending -= tree->nodes[child].in_flight;
    }
    return pending;
}

bool tree_can_refine(const struct tree *tree, int32_t id, const struct tree_policy_options *options)
{
    const struct tree_node *node = &tree->nodes[id];
    return node->state == TREE_NODE_CLOSED && node->child_count < options->max_children &&
           node->child_count + tree_pending_here(tree, id) < options->max_children;
}
