/* The search tree: structure and statistics alone. Pure: no files, no messages, no clock.
 *
 *            n0 baseline         visits N, reward sum, children, in flight O
 *           /   |    \
 *         n1    n2    n3         a node is one round: a plan and its batch of candidates
 *        /  \          |         reward: best raw score of the batch, larger is better
 *      n4    n5*      n6         *open: planned, not yet closed; counts in O of n5, n1 and n0
 *
 * Rewards are kept raw; selection normalises them over the range seen so far. Every figure can be
 * rebuilt from (parent, state, reward) of the nodes, to the bit and whatever the order in which
 * they closed, so nothing is lost when a process dies. Only closed nodes have children: a failed
 * node is not refined, its parent's next child sees among its siblings what went wrong. */
#ifndef TREE_TREE_H
#define TREE_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/status.h"

enum { TREE_NODES_MAX = 1 << 20 };

enum tree_node_state { TREE_NODE_OPEN, TREE_NODE_CLOSED, TREE_NODE_FAILED };

struct tree_node {
    int32_t parent;      /* -1 for the root */
    int32_t depth;       /* 0 for the root */
    int32_t first_child; /* -1: none; children are linked in order of creation */
    int32_t last_child;
    int32_t next_sibling; /* -1: last */
    int32_t child_count;  /* of any state */
    enum tree_node_state state;
    double reward;     /* raw, of this node; meaningful when closed */
    int64_t visits;    /* N: closed and failed nodes in this subtree, itself included */
    int64_t successes; /* of them closed */
    double reward_sum; /* raw, of the closed ones */
    int64_t in_flight; /* O: open nodes in this subtree, and plans being made below it */
};

/* The nodes that have room for a child, as a heap: highest reward first, of equal ones the earlier.
 * Derived from the nodes. */
struct tree_ranking {
    int32_t max_children; /* 0: there is none */
    int32_t *heap;        /* ids */
    int32_t count;
    int32_t *place; /* of each node in the heap, -1: it has no room */
    uint64_t *room; /* the same as a bit a node, to find the newest */
    int32_t room_words;
};

struct tree {
    struct tree_node *nodes; /* id is the index; 0 is the root */
    int32_t count;
    int32_t capacity;
    double reward_min, reward_max; /* over closed nodes; NaN before the first */
    struct tree_ranking ranking;
};

void tree_init(struct tree *tree);
void tree_fini(struct tree *tree);

/* Adds an open node (parent -1: the root, first). STATUS_INVALID unless the parent is closed,
 * STATUS_LIMIT at TREE_NODES_MAX, STATUS_NO_MEMORY; the tree is then unchanged. */
enum status tree_add(struct tree *tree, int32_t parent, int32_t *id, struct error *err);

/* Closes an open node and backs its reward (finite) up to the root; a failed node counts as a visit
 * without reward. To close a node that is not open is a programmer's mistake (assert). */
void tree_close(struct tree *tree, int32_t id, double reward);
void tree_fail(struct tree *tree, int32_t id);

/* A plan for a child of `id` is being made (+1) or is done or dropped (-1): counts as in flight up
 * to the root, and takes the place of the child it will be. */
void tree_pending(struct tree *tree, int32_t id, int32_t delta);

/* Keeps the ranking from now on, so that best-first selection need not look at every node.
 * STATUS_NO_MEMORY leaves the tree without one: all else works as before. */
enum status tree_rank(struct tree *tree, int32_t max_children, struct error *err);

/* Rebuilds all statistics from parents, states and rewards, and checks them: STATUS_CORRUPT names
 * the node, and the tree is then unchanged. Plans being made are forgotten: they died with their
 * process. */
enum status tree_rebuild(struct tree *tree, struct error *err);

/* Compares the statistics with a rebuild, for verify and tests: STATUS_CORRUPT names the node and
 * the figure. */
enum status tree_check(const struct tree *tree, struct error *err);

/* ---- selection ---- */

struct tree_policy_options {
    double exploration;   /* c of UCT */
    int32_t max_children; /* of a node, any state */
    double noise; /* raw reward: differences below it are noise; the range is at least this wide */
};

struct tree_policy {
    const char *name;    /* "uct", "greedy", "sequential", "random" */
    const char *summary; /* one line for --help */
    /* Node to refine next, or -1 if none can be refined now. The root must be closed. */
    int32_t (*select)(const struct tree *tree, const struct tree_policy_options *options,
                      struct rng *rng);
};

const struct tree_policy *tree_policy_find(const char *name); /* NULL if unknown */
const struct tree_policy *const *tree_policy_list(void);      /* NULL at the end */

/* A raw reward in 0..1 over the range seen so far, which is at least `noise` wide; 0.5 when all are
 * equal. */
double tree_normalise(const struct tree *tree, double reward,
                      const struct tree_policy_options *options);

/* Value of a node in 0..1: mean normalised reward of its subtree, failures counting 0. */
double tree_value(const struct tree *tree, int32_t id, const struct tree_policy_options *options);

/* Plans being made for children of this very node. */
int64_t tree_pending_here(const struct tree *tree, int32_t id);

/* Whether a child can be planned below this node: it is closed, and children and plans leave room
 * for one. */
bool tree_can_refine(const struct tree *tree, int32_t id,
                     const struct tree_policy_options *options);

#endif
