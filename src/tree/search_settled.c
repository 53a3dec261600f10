/* What has ended, and which is the best of it: kept as it happens, so that nobody has to look
 * through the whole search for it. */
#include <stdlib.h>

#include "base/mem.h"
#include "tree/search_parts.h"

enum { SETTLED_FIRST_CAPACITY = 64 };

enum status search_reserve_settled(struct search *search, struct error *err)
{
    if (search->settled_count < search->settled_capacity) {
        return STATUS_OK;
    }
    int64_t capacity =
        search->settled_capacity > 0 ? 2 * search->settled_capacity : SETTLED_FIRST_CAPACITY;
    struct search_settled *grown =
        mem_realloc(search->settled, (size_t)capacity, sizeof(*search->settled));
    if (grown == NULL) {
        return mem_fail(err, (size_t)capacity * sizeof(*grown), "what has ended in the search");
    }
    search->settled = grown;
    search->settled_capacity = capacity;
    return STATUS_OK;
}

/* A node's best candidate may now be the best of all; ties go to the earlier. */
static void compare_best(struct search *search, int32_t id)
{
    const struct search_node *node = &search->nodes[id];
    if (node->best < 0) {
        return;
    }
    if (search->best_node < 0 || search->best_node == id) {
        search->best_node = id;
        return;
    }
    const struct search_node *so_far = &search->nodes[search->best_node];
    double value = node->candidates[node->best].validation.value;
    double known = so_far->candidates[so_far->best].validation.value;
    bool larger = search->identity.larger_is_better;
    bool tie =
        !search_value_better(value, known, larger) && !search_value_better(known, value, larger);
    if (search_value_better(value, known, larger) || (tie && id < search->best_node)) {
        search->best_node = id;
    }
}

void search_settle(struct search *search, int32_t node, int32_t candidate)
{
    search->settled[search->settled_count++] = (struct search_settled){node, candidate};
    compare_best(search, node);
}

enum status search_settle_all(struct search *search, struct error *err)
{
    search->settled_count = 0;
    search->best_node = -1;
    for (int32_t id = 0; id < search->tree.count; id++) {
        const struct search_node *node = &search->nodes[id];
        for (int32_t k = 0; k < node->candidate_count; k++) {
            if (candidate_is_over(&node->candidates[k])) {
                TRY(search_reserve_settled(search, err));
                search_settle(search, id, k);
            }
        }
        if (search->tree.nodes[id].state != TREE_NODE_OPEN) {
            TRY(search_reserve_settled(search, err));
            search_settle(search, id, -1);
        }
    }
    return STATUS_OK;
}

bool search_best(const struct search *search, int32_t *node, int32_t *candidate)
{
    if (search->best_node < 0) {
        return false;
    }
    *node = search->best_node;
    *candidate = search->nodes[search->best_node].best;
    return true;
}
