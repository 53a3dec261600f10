/* Events of allocations and incidents: where the search has run, and what a reader should know of
 * it. They are on disk before they come here, and no decision hangs on them: where a list is full
 * or a text too long, less is kept, and the search goes on. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "tree/search_event.h"

/* ---- allocations ---- */

static int32_t read_count(struct event *event, const char *key, int32_t fallback, int32_t max)
{
    return (int32_t)json_read_int(&event->reader, key, fallback, 0, max);
}

/* A span that may not have been measured. */
static double read_span(struct event *event, const char *key)
{
    return json_read_number(&event->reader, key, NAN, 0.0, SEARCH_SECONDS_MAX);
}

static enum status read_allocation(struct event *event, struct arena *arena,
                                   struct search_allocation *out, struct error *err)
{
    out->started_s = event->time_s;
    out->ranks = (int32_t)event_require_int(event, "ranks", 1, INT32_MAX);
    out->workers = read_count(event, "workers", 0, INT32_MAX);
    out->nodes = read_count(event, "nodes", 0, INT32_MAX);
    out->threads = read_count(event, "threads", 1, SEARCH_THREADS_MAX);
    out->gpus = read_count(event, "gpus", 0, SEARCH_THREADS_MAX);
    out->restarts = read_count(event, "restarts", 0, INT32_MAX);
    out->predicted_s = NAN;
    out->safe_s = NAN;
    TRY(event_read_line(event, "job", false, arena, &out->job, err));
    TRY(event_read_line(event, "host", false, arena, &out->host, err));
    out->end = arena_strdup(arena, "");
    if (out->end == NULL) {
        return mem_fail(err, 1, "an allocation");
    }
    return event_check(event, err);
}

enum status search_apply_allocation_started(struct search *search, struct event *event,
                                            struct error *err)
{
    struct search_allocation allocation = {0};
    void *list = search->allocations;
    TRY(read_allocation(event, &search->arena, &allocation, err));
    TRY(event_reserve(&list, search->allocation_count, 1, &search->allocation_capacity,
                      sizeof(allocation), "allocations", err));
    search->allocations = list;
    if (search->allocation_count == SEARCH_ALLOCATIONS_MAX) {
        search->allocation_count--;
    }
    search->allocations[search->allocation_count++] = allocation;
    search->earlier_seconds = search->allocation_seconds;
    return STATUS_OK;
}

/* The allocation that is running; NULL with a problem if none is. */
static struct search_allocation *read_running(struct search *search, struct event *event)
{
    if (search->allocation_count == 0) {
        json_problems_add(&event->problems, "/event", "no allocation has started");
        return NULL;
    }
    return &search->allocations[search->allocation_count - 1];
}

enum status search_apply_allocation_progress(struct search *search, struct event *event,
                                             struct error *err)
{
    double seconds = event_require_seconds(event, "seconds");
    struct search_allocation *allocation = read_running(search, event);
    TRY(event_check(event, err));
    allocation->seconds = fmax(allocation->seconds, seconds);
    search->allocation_seconds =
        fmax(search->allocation_seconds, search->earlier_seconds + seconds);
    return STATUS_OK;
}

enum status search_apply_allocation_ended(struct search *search, struct event *event,
                                          struct error *err)
{
    struct search_allocation *allocation = read_running(search, event);
    double predicted_s = read_span(event, "predicted_s");
    double safe_s = read_span(event, "safe_s");
    char *reason = NULL;
    TRY(event_read_line(event, "reason", true, &search->arena, &reason, err));
    if (reason != NULL && reason[0] == '\0') {
        json_problems_add(&event->problems, "/reason", "found an empty text, allowed is a reason");
    }
    TRY(event_check(event, err));
    allocation->end = reason;
    allocation->predicted_s = predicted_s;
    allocation->safe_s = safe_s;
    return STATUS_OK;
}

/* ---- incidents ---- */

static bool is_given(struct event *event, const char *key)
{
    const cJSON *item = json_read_any(&event->reader, key);
    return item != NULL && !cJSON_IsNull(item);
}

/* What the incident is about: nothing, a node, or a candidate, which *blamed is if it has to answer
 * for it. */
static void read_subject(struct search *search, struct event *event, struct search_incident *out,
                         struct candidate **blamed)
{
    const unsigned any_state = EVENT_STATE(CANDIDATE_STATE_COUNT) - 1;
    bool blames = json_read_bool(&event->reader, "blames", false);
    out->node = -1;
    out->candidate = -1;
    if (blames || is_given(event, "candidate")) {
        *blamed = event_candidate(search, event, any_state, &out->node);
        out->candidate =
            *blamed != NULL ? (int32_t)(*blamed - search->nodes[out->node].candidates) : -1;
        *blamed = blames ? *blamed : NULL;
    } else if (is_given(event, "node")) {
        out->node = (int32_t)event_require_int(event, "node", 0, TREE_NODES_MAX);
        if (out->node >= search->tree.count) {
            json_problems_add(&event->problems, "/node", "node %d does not exist", (int)out->node);
        }
    }
}

static enum status read_incident(struct search *search, struct event *event,
                                 struct search_incident *out, struct candidate **blamed,
                                 struct error *err)
{
    out->time_s = event->time_s;
    out->allocation = search->allocation_count - 1;
    read_subject(search, event, out, blamed);
    out->lost_s = read_span(event, "lost_s");
    TRY(event_read_line(event, "kind", true, &search->arena, &out->kind, err));
    TRY(event_read_line(event, "message", true, &search->arena, &out->message, err));
    return event_check(event, err);
}

enum status search_add_incident(struct search *search, const struct search_incident *incident,
                                struct error *err)
{
    void *list = search->incidents;
    if (search->incident_count < SEARCH_INCIDENTS_MAX) {
        TRY(event_reserve(&list, search->incident_count, 1, &search->incident_capacity,
                          sizeof(*incident), "incidents", err));
        search->incidents = list;
        search->incidents[search->incident_count++] = *incident;
    }
    search->incidents_seen++;
    return STATUS_OK;
}

enum status search_apply_incident(struct search *search, struct event *event, struct error *err)
{
    struct search_incident incident = {0};
    struct candidate *blamed = NULL;
    TRY(read_incident(search, event, &incident, &blamed, err));
    TRY(search_add_incident(search, &incident, err));
    if (blamed != NULL) {
        blamed->kills++;
    }
    return STATUS_OK;
}

/* ---- what work costs ---- */

void search_add_cost(struct search *search, double rank_seconds, double *core_seconds,
                     double *gpu_seconds)
{
    const struct search_allocation *allocation =
        search->allocation_count > 0 ? &search->allocations[search->allocation_count - 1] : NULL;
    *core_seconds = rank_seconds * (allocation != NULL ? allocation->threads : 1);
    *gpu_seconds = rank_seconds * (allocation != NULL ? allocation->gpus : 0);
    search->rank_seconds += rank_seconds;
    search->core_seconds += *core_seconds;
    search->gpu_seconds += *gpu_seconds;
}
