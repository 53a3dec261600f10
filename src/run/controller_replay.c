/* A replay: the plans of another search, and its outcomes in their order.
 *
 * Results come when they come, and where the recorded search was interrupted, what follows from one
 * outcome was decided after others. So whatever comes before its turn is held, unwritten, until
 * what came before it in the recorded search has come here too. A search that goes another way (its
 * turn never comes) lets go of all, says so, and is on its own from then on. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/controller_state.h"

/* An event that waits for its turn. */
struct held_event {
    cJSON *event;
    struct held_event *next;
};

static bool follows(const struct controller *c)
{
    return c->options.replay_folder != NULL && !c->astray && !c->stopping;
}

int64_t controller_outcomes(const struct controller *c)
{
    return c->search.outcomes + c->pending_outcomes;
}

/* ---- plans ---- */

/* Plans that were given up: after a time that another search need not take as well. */
static enum status drop_as_recorded(struct controller *c, struct error *err)
{
    const struct search *recorded = &c->recorded;
    for (int i = c->requests.count - 1; i >= 0; i--) {
        int32_t number = c->requests.list[i].number;
        const struct search_request *same = number >= 1 && number <= recorded->request_count
                                                ? &recorded->requests[number - 1]
                                                : NULL;
        if (same != NULL && same->dropped != NULL &&
            same->dropped_outcomes <= controller_outcomes(c) &&
            requests_take(&c->requests, number, NULL)) {
            researcher_forget(c->researcher, number);
            TRY(controller_drop_plan(c, number, same->dropped, same->refused, err));
        }
    }
    return STATUS_OK;
}

/* What the recorded search wanted, when it did: where its jobs ended, it decided later than one
 * that goes on, and knew more then. */
enum status controller_plan_as_recorded(struct controller *c, struct error *err)
{
    const struct search *recorded = &c->recorded;
    const struct tree *tree = &c->search.tree;
    TRY(drop_as_recorded(c, err));
    int32_t next = controller_requests(c);
    for (; next < recorded->request_count && controller_may_plan(c); next++) {
        const struct search_request *same = &recorded->requests[next];
        if (same->outcomes > c->search.outcomes) {
            return STATUS_OK;
        }
        if (same->parent >= tree->count || tree->nodes[same->parent].state != TREE_NODE_CLOSED) {
            return controller_go_astray(c, err);
        }
        TRY(controller_request_plan(c, same->parent, err));
    }
    c->dry =
        c->dry || (next >= recorded->request_count && c->open_count == 0 && c->plans_pending == 0);
    return STATUS_OK;
}

/* A search that ended made no plans after its last one. */
bool controller_follows_plans(const struct controller *c)
{
    const struct search *recorded = &c->recorded;
    return follows(c) && recorded->request_count > 0 &&
           (recorded->end == SEARCH_FINISHED || controller_requests(c) < recorded->request_count);
}

/* ---- outcomes ---- */

static int32_t number_of(const cJSON *event, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(event, key);
    return cJSON_IsNumber(value) ? (int32_t)value->valuedouble : 0;
}

/* Whether an event is the same as an outcome of the recorded search. */
static bool is_same(const struct controller *c, const cJSON *event, struct search_outcome wanted)
{
    const struct search *recorded = &c->recorded;
    struct search_outcome own = search_read_outcome(event);
    if (own.kind != wanted.kind || own.candidate != wanted.candidate) {
        return false;
    }
    if (own.kind == SEARCH_OUTCOME_PLANNED) { /* it has no node yet */
        int32_t number = number_of(event, "number");
        return number == 0 ? wanted.id == 0
                           : number <= recorded->request_count &&
                                 recorded->requests[number - 1].node == wanted.id;
    }
    if (own.kind == SEARCH_OUTCOME_CALL) {
        return own.id >= 0 && own.id < c->search.call_count && wanted.id < recorded->call_count &&
               strcmp(c->search.calls[own.id].key, recorded->calls[wanted.id].key) == 0;
    }
    return own.id == wanted.id;
}

/* After the end of the recorded search, and where a file does not tell, any. */
static bool is_next(const struct controller *c, const cJSON *event)
{
    struct search_outcome wanted = search_outcome_after(&c->recorded, controller_outcomes(c));
    return wanted.kind == SEARCH_OUTCOME_NONE || is_same(c, event, wanted);
}

bool controller_must_hold(const struct controller *c, const cJSON *event)
{
    return follows(c) && search_read_outcome(event).kind != SEARCH_OUTCOME_NONE &&
           !is_next(c, event);
}

enum status controller_hold(struct controller *c, cJSON *event, struct error *err)
{
    struct held_event *held = mem_calloc(1, sizeof(*held));
    struct held_event **link = &c->held;
    if (held == NULL) {
        cJSON_Delete(event);
        return mem_fail(err, sizeof(*held), "an event");
    }
    held->event = event;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = held;
    return STATUS_OK;
}

/* The first that may go; NULL if none. */
static cJSON *take_next(struct controller *c)
{
    struct held_event **link = &c->held;
    while (*link != NULL && controller_must_hold(c, (*link)->event)) {
        link = &(*link)->next;
    }
    struct held_event *held = *link;
    if (held == NULL) {
        return NULL;
    }
    cJSON *event = held->event;
    *link = held->next;
    free(held);
    return event;
}

enum status controller_release(struct controller *c, struct error *err)
{
    for (cJSON *event = take_next(c); event != NULL; event = take_next(c)) {
        TRY(controller_write(c, event, err));
    }
    return STATUS_OK;
}

enum status controller_go_astray(struct controller *c, struct error *err)
{
    c->astray = true;
    log_write(c->options.log, LOG_WARNING, "run",
              "the replay goes another way than the recorded search after %lld of its %lld "
              "outcomes, and its own way from there on",
              (long long)controller_outcomes(c), (long long)c->recorded.outcomes);
    return controller_release(c, err);
}

void controller_close_replay(struct controller *c)
{
    while (c->held != NULL) {
        struct held_event *next = c->held->next;
        cJSON_Delete(c->held->event);
        free(c->held);
        c->held = next;
    }
    search_fini(&c->recorded);
}
