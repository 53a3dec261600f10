/* A binary heap that knows where each node stands in it, and a bit for each node that does. */
#include "tree/tree_ranking.h"

#include <stdlib.h>

#include "base/mem.h"

enum { WORD_BITS = 64 };

static void set_room(struct tree_ranking *ranking, int32_t id, bool room)
{
    uint64_t bit = UINT64_C(1) << (id % WORD_BITS);
    uint64_t *word = &ranking->room[id / WORD_BITS];
    *word = room ? *word | bit : *word & ~bit;
}

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
    set_room(ranking, id, false);
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
    int32_t words = (capacity + WORD_BITS - 1) / WORD_BITS;
    uint64_t *room = mem_realloc(ranking->room, (size_t)words, sizeof(*room));
    if (room == NULL) {
        return mem_fail(err, (size_t)words * sizeof(*room), "the ranking of nodes");
    }
    ranking->room = room;
    for (; ranking->room_words < words; ranking->room_words++) {
        room[ranking->room_words] = 0;
    }
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
        set_room(ranking, id, true);
        settle(tree, ranking->place[id]);
    } else if (!room && ranked) {
        take_out(tree, id);
    }
}

void tree_rank_all(struct tree *tree)
{
    tree->ranking.count = 0;
    for (int32_t word = 0; word < tree->ranking.room_words; word++) {
        tree->ranking.room[word] = 0;
    }
    for (int32_t id = 0; id < tree->count && tree->ranking.max_children > 0; id++) {
        tree->ranking.place[id] = -1;
        tree_rank_node(tree, id);
    }
}

int32_t tree_newest_with_room(const struct tree_ranking *ranking)
{
    for (int32_t word = ranking->room_words - 1; word >= 0 && ranking->count > 0; word--) {
        if (ranking->room[word] != 0) {
            return word * WORD_BITS + WORD_BITS - 1 - __builtin_clzll(ranking->room[word]);
        }
    }
    return -1;
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
