/* A binary heap that knows where each node stands in it. */
#include "tree/tree_ranking.h"

#include <stdlib.h>

#include "base/mem.h"

/* Highest reward first, of equal ones the earlier. */
static bool comes_before(const struct tree *tree, int32_t a, int32_t b)
{
    double x = tree->nodes[a].reward;
    double y = tree->nodes[b].reward;
    return x > y || (!(x < y) && a < b);
}

static void put(struct tree_ranking *ranking, int32_t at, int32_t id)
{
    ranking->heap[at] = id;
    ranking->place[id] = at;
}

/* Moves the node at a place up, then down, to where it belongs. */
static void settle(struct tree *tree, int32_t at)
{
    struct tree_ranking *ranking = &tree->ranking;
    int32_t id = ranking->heap[at];
    while (at > 0 && comes_before(tree, id, ranking->heap[(at - 1) / 2])) {
        put(ranking, at, ranking->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child + 1 < ranking->count &&
            comes_before(tree, ranking->heap[child + 1], ranking->heap[child])) {
            child++;
        }
        if (child >= ranking->count || !comes_before(tree, ranking->heap[child], id)) {
            break;
        }
        put(ranking, at, ranking->heap[child]);
        at = child;
    }
    put(ranking, at, id);
}

static void take_out(struct tree *tree, int32_t id)
{
    struct tree_ranking *ranking = &tree->ranking;
    int32_t at = ranking->place[id];
    int32_t last = ranking->heap[--ranking->count];
    ranking->place[id] = -1;
    if (last != id) {
        put(ranking, at, last);
        settle(tree, at);
    }
}

enum status tree_reserve_ranking(struct tree_ranking *ranking, int32_t capacity, struct error *err)
{
    int32_t *heap = mem_realloc(ranking->heap, (size_t)capacity, sizeof(*heap));
    if (heap == NULL) {
        return mem_fail(err, (size_t)capacity * sizeof(*heap), "the ranking of nodes");
    }
    ranking->heap = heap;
    int32_t *place = mem_realloc(ranking->place, (size_t)capacity, sizeof(*place));
    if (place == NULL) {
        return mem_fail(err, (size_t)capacity * sizeof(*place), "the ranking of nodes");
    }
    ranking->place = place;
    return STATUS_OK;
}

void tree_rank_node(struct tree *tree, int32_t id)
{
    struct tree_ranking *ranking = &tree->ranking;
    const struct tree_policy_options limit = {.max_children = ranking->max_children};
    if (ranking->max_children == 0) {
        return;
    }
    bool open = tree->nodes[id].state == TREE_NODE_OPEN; /* it was just added, or is still there */
    bool ranked = !open && ranking->place[id] >= 0;
    bool room = !open && tree_can_refine(tree, id, &limit);
    if (open) {
        ranking->place[id] = -1;
    } else if (room && !ranked) {
        put(ranking, ranking->count++, id);
        settle(tree, ranking->place[id]);
    } else if (!room && ranked) {
        take_out(tree, id);
    }
}

void tree_rank_all(struct tree *tree)
{
    tree->ranking.count = 0;
    for (int32_t id = 0; id < tree->count && tree->ranking.max_children > 0; id++) {
        tree->ranking.place[id] = -1;
        tree_rank_node(tree, id);
    }
}

enum status tree_rank(struct tree *tree, int32_t max_children, struct error *err)
{
    tree->ranking.max_children = 0;
    if (tree->capacity > 0) {
        TRY(tree_reserve_ranking(&tree->ranking, tree->capacity, err));
    }
    tree->ranking.max_children = max_children;
    tree_rank_all(tree);
    return STATUS_OK;
}
