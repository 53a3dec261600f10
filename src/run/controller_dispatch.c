#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "run/controller_state.h"

enum status controller_push_ready(struct controller *c, int32_t node, int32_t candidate,
                                  struct error *err)
{
    if (c->ready_count == c->ready_capacity) {
        if (c->ready_first > 0) { /* room at the front: close the gap first */
            memmove(c->ready, c->ready + c->ready_first,
                    (size_t)(c->ready_count - c->ready_first) * sizeof(*c->ready));
            c->ready_count -= c->ready_first;
            c->ready_first = 0;
        }
        int64_t capacity = c->ready_count < 16 ? 32 : c->ready_count * 2;
        struct candidate_id *grown = mem_realloc(c->ready, (size_t)capacity, sizeof(*grown));
        if (grown == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*grown), "waiting candidates");
        }
        c->ready = grown;
        c->ready_capacity = capacity;
    }
    c->ready[c->ready_count++] = (struct candidate_id){node, candidate};
    return STATUS_OK;
}

int controller_busy_workers(const struct controller *c)
{
    int busy = 0;
    for (int i = 0; i < c->options.leader_count; i++) {
        busy += c->workers[i].work != WORK_NONE ? 1 : 0;
    }
    return busy;
}

enum status controller_send_order(struct controller *c, int index, enum work work, int32_t node,
                                  int32_t candidate, struct error *err)
{
    struct controller_worker *worker = &c->workers[index];
    const struct search_node *planned = &c->search.nodes[node];
    cJSON *order = cJSON_CreateObject();
    cJSON_AddStringToObject(order, "work", work == WORK_TEST ? "test" : "train");
    cJSON_AddItemToObject(order, "recipe", cJSON_Parse(planned->recipe));
    cJSON_AddItemToObject(order, "config", cJSON_Parse(planned->candidates[candidate].config));
    cJSON_AddStringToObject(order, "precision", train_precision_names[c->facts.precision]);
    struct message message = {
        .header = {.kind = MESSAGE_ORDER, .node = node, .candidate = candidate},
        .payload = order,
    };
    TRY(mailbox_send(c->options.mailbox, worker->rank, MESSAGE_TO_WORKER, &message, err));
    worker->work = work;
    worker->node = node;
    worker->candidate = candidate;
    worker->phase = 0;
    worker->done = 0;
    worker->total = 0;
    return STATUS_OK;
}

static enum status start_candidate(struct controller *c, int index, struct candidate_id next,
                                   struct error *err)
{
    /* The order leaves before the event is on disk: a start that is forgotten costs nothing, a
     * waiting worker does. */
    TRY(controller_send_order(c, index, WORK_TRAIN, next.node, next.candidate, err));
    cJSON *event = controller_event("candidate_started", next.node, next.candidate);
    cJSON_AddNumberToObject(event, "rank", c->workers[index].rank);
    return controller_emit(c, event, -1, err);
}

enum status controller_dispatch(struct controller *c, struct error *err)
{
    if (c->stopping) {
        return STATUS_OK;
    }
    for (int i = 0; i < c->options.leader_count && c->ready_first < c->ready_count; i++) {
        if (c->workers[i].present && c->workers[i].work == WORK_NONE) {
            TRY(start_candidate(c, i, c->ready[c->ready_first++], err));
        }
    }
    return STATUS_OK;
}

enum status controller_drop_ready(struct controller *c, const char *reason, struct error *err)
{
    while (c->ready_first < c->ready_count) {
        struct candidate_id next = c->ready[c->ready_first++];
        struct error failure;
        FAIL(&failure, STATUS_LIMIT, "%s before it could start", reason);
        cJSON *event = controller_failure(next.node, next.candidate, &failure, "", 0.0);
        TRY(controller_emit(c, event, -1, err));
    }
    return STATUS_OK;
}

enum status controller_send_all(struct controller *c, enum message_kind kind, struct error *err)
{
    for (int i = 0; i < c->options.leader_count; i++) {
        struct message message = {.header = {.kind = (uint32_t)kind}};
        TRY(mailbox_send(c->options.mailbox, c->workers[i].rank, MESSAGE_TO_WORKER, &message, err));
    }
    return STATUS_OK;
}
