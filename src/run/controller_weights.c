#include <stdlib.h>

#include "base/mem.h"
#include "run/controller_state.h"

static const struct candidate *candidate_at(const struct controller *c, struct candidate_id id)
{
    return &c->search.nodes[id.node].candidates[id.candidate];
}

/* Index into c->kept of the weights to drop: the worst score; of equal ones the later, so that the
 * winner stays. */
static int64_t find_worst(const struct controller *c)
{
    bool larger = c->search.identity.larger_is_better;
    int64_t worst = 0;
    for (int64_t i = 1; i < c->kept_count; i++) {
        const struct candidate *candidate = candidate_at(c, c->kept[i]);
        const struct candidate *so_far = candidate_at(c, c->kept[worst]);
        if (!search_score_above(&candidate->validation, &so_far->validation, 0.0, larger)) {
            worst = i;
        }
    }
    return worst;
}

/* One is dropped at a time: which is next can be judged only when the last one is gone from the
 * search. */
static enum status drop_worst(struct controller *c, struct error *err)
{
    if (c->dropping || c->kept_count <= c->options.job->keep_weights) {
        return STATUS_OK;
    }
    struct candidate_id worst = c->kept[find_worst(c)];
    c->dropping = true;
    return controller_emit(c, controller_event("weights_dropped", worst.node, worst.candidate),
                           err);
}

static enum status remember(struct controller *c, struct candidate_id id, struct error *err)
{
    if (c->kept_count == c->kept_capacity) {
        int64_t capacity = c->kept_capacity > 0 ? 2 * c->kept_capacity : 16;
        struct candidate_id *grown = mem_realloc(c->kept, (size_t)capacity, sizeof(*grown));
        if (grown == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*grown), "kept weights");
        }
        c->kept = grown;
        c->kept_capacity = capacity;
    }
    c->kept[c->kept_count++] = id;
    return STATUS_OK;
}

enum status controller_keep_weights(struct controller *c, int32_t node, int32_t candidate,
                                    struct error *err)
{
    struct candidate_id id = {node, candidate};
    if (!candidate_at(c, id)->weights_kept) {
        return STATUS_OK;
    }
    TRY(remember(c, id, err));
    return drop_worst(c, err);
}

enum status controller_drop_weights(struct controller *c, int32_t node, int32_t candidate,
                                    struct error *err)
{
    char path[FILE_PATH_BYTES];
    for (int64_t i = 0; i < c->kept_count; i++) {
        if (c->kept[i].node == node && c->kept[i].candidate == candidate) {
            c->kept[i] = c->kept[--c->kept_count];
            break;
        }
    }
    c->dropping = false;
    TRY(store_weights_path(c->options.job->output, node, candidate, path, err));
    TRY(file_remove(path, err));
    return drop_worst(c, err);
}

enum status controller_find_kept_weights(struct controller *c, struct error *err)
{
    for (int32_t node = 0; node < c->search.tree.count; node++) {
        for (int32_t k = 0; k < c->search.nodes[node].candidate_count; k++) {
            if (c->search.nodes[node].candidates[k].weights_kept) {
                TRY(remember(c, (struct candidate_id){node, k}, err));
            }
        }
    }
    return drop_worst(c, err);
}
