/* Events of planning: plans that were asked for, those that were dropped, and how far ahead is
 * planned. They make a search that was interrupted go on with the same plans under way. */
#include "tree/search_event.h"

enum { AHEAD_MAX = 1000000 };

/* ---- plans that were asked for ---- */

enum status search_apply_plan_requested(struct search *search, struct event *event,
                                        struct error *err)
{
    int64_t number = event_require_int(event, "number", 1, SEARCH_REQUESTS_MAX);
    int32_t parent = (int32_t)event_require_int(event, "parent", 0, TREE_NODES_MAX);
    void *list = search->requests;
    TRY(event_check(event, err));
    if (number != search->request_count + 1) {
        json_problems_add(&event->problems, "/number", "found %lld, allowed is the next, %d",
                          (long long)number, (int)search->request_count + 1);
    }
    int64_t least =
        search->request_count > 0 ? search->requests[search->request_count - 1].outcomes : 0;
    int64_t outcomes =
        json_read_int(&event->reader, "outcomes", search->outcomes, least, search->outcomes);
    if (parent >= search->tree.count || search->tree.nodes[parent].state != TREE_NODE_CLOSED) {
        json_problems_add(&event->problems, "/parent",
                          "found %d, allowed is a node that was closed", (int)parent);
    }
    TRY(event_check(event, err));
    TRY(event_reserve(&list, search->request_count, 1, &search->request_capacity,
                      sizeof(*search->requests), "plans that were asked for", err));
    search->requests = list;
    search->requests[search->request_count++] =
        (struct search_request){.parent = parent, .node = -1, .outcomes = outcomes};
    return STATUS_OK;
}

bool search_request_is_open(const struct search_request *request)
{
    return request->node < 0 && request->dropped == NULL;
}

/* The one with this number; NULL with a problem if it is not open. */
static struct search_request *find_open(struct search *search, struct event *event, int64_t number)
{
    bool open = number >= 1 && number <= search->request_count &&
                search_request_is_open(&search->requests[number - 1]);
    if (!open) {
        json_problems_add(&event->problems, "/number",
                          "found %lld, allowed is a plan that was asked for and is still to come",
                          (long long)number);
    }
    return open ? &search->requests[number - 1] : NULL;
}

enum status search_apply_plan_dropped(struct search *search, struct event *event, struct error *err)
{
    int64_t number = event_require_int(event, "number", 1, SEARCH_REQUESTS_MAX);
    char *why = NULL;
    json_require(&event->reader, "refused", "true or false");
    bool refused = json_read_bool(&event->reader, "refused", false);
    TRY(event_read_line(event, "why", true, &search->arena, &why, err));
    TRY(event_check(event, err));
    struct search_request *request = find_open(search, event, number);
    TRY(event_check(event, err));
    request->dropped = why;
    request->refused = refused;
    request->dropped_outcomes = search->outcomes;
    search->refusals += refused;
    return STATUS_OK;
}

struct search_request *search_read_answered(struct search *search, struct event *event,
                                            int32_t parent)
{
    if (json_read_any(&event->reader, "number") == NULL) {
        return NULL;
    }
    int64_t number = event_require_int(event, "number", 1, SEARCH_REQUESTS_MAX);
    struct search_request *request = find_open(search, event, number);
    if (request != NULL && request->parent != parent) {
        json_problems_add(&event->problems, "/parent",
                          "found %d, but plan %lld was wanted below %d", (int)parent,
                          (long long)number, (int)request->parent);
    }
    return request;
}

/* ---- planning ahead ---- */

enum status search_apply_ahead_set(struct search *search, struct event *event, struct error *err)
{
    int64_t candidates = event_require_int(event, "candidates", 0, AHEAD_MAX);
    void *list = search->aheads;
    TRY(event_check(event, err));
    if (search->ahead_count >= SEARCH_AHEADS_MAX) {
        return FAIL(err, STATUS_LIMIT, "%s: a search sets at most %d times how far it plans ahead",
                    event->name, SEARCH_AHEADS_MAX);
    }
    TRY(event_reserve(&list, search->ahead_count, 1, &search->ahead_capacity,
                      sizeof(*search->aheads), "how far was planned ahead", err));
    search->aheads = list;
    search->aheads[search->ahead_count++] =
        (struct search_ahead){.outcomes = search->outcomes, .candidates = candidates};
    search->ahead = candidates;
    return STATUS_OK;
}
