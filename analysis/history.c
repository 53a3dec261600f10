/* What a search has cost, where it ran and what happened to it: part of status and show. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "analysis/analysis.h"
#include "base/clock.h"

enum { INCIDENTS_SHOWN = 3, JOB_WIDTH = 40, HOST_WIDTH = 40, KIND_WIDTH = 40 };

void history_node_cost(const struct search_node *node, double *core_seconds, double *gpu_seconds)
{
    *core_seconds = 0.0;
    *gpu_seconds = 0.0;
    for (int32_t c = 0; c < node->candidate_count; c++) {
        *core_seconds += node->candidates[c].core_seconds;
        *gpu_seconds += node->candidates[c].gpu_seconds;
    }
}

void history_print_cost(double core_seconds, double gpu_seconds)
{
    char hours[PAINT_TIME_BYTES];
    paint_hours(core_seconds, hours);
    printf("%s core-hours", hours);
    if (gpu_seconds > 0.0) {
        paint_hours(gpu_seconds, hours);
        printf(", %s GPU-hours", hours);
    }
}

/* ---- in words ---- */

static void print_spent(const struct search *search)
{
    char cores[PAINT_TIME_BYTES];
    char gpus[PAINT_TIME_BYTES];
    char wall[PAINT_TIME_BYTES];
    paint_hours(search->core_seconds, cores);
    paint_hours(search->gpu_seconds, gpus);
    paint_duration(search->allocation_seconds, wall);
    paint_label("spent");
    printf("%s core-hours and %s GPU-hours of work, %s in %d allocation%s\n", cores, gpus, wall,
           (int)search->allocation_count, search->allocation_count == 1 ? "" : "s");
}

static void print_allocation(const struct view *view)
{
    const struct search *search = &view->search;
    const struct search_allocation *last = &search->allocations[search->allocation_count - 1];
    char since[32];
    char lasted[PAINT_TIME_BYTES];
    paint_duration(last->seconds, lasted);
    paint_label("allocation");
    if (last->started_s > 0.0) {
        clock_format_utc(last->started_s, since, sizeof(since));
        printf("since %s", since);
        if (last->job[0] != '\0') {
            printf(", Slurm job ");
            paint_line(last->job, JOB_WIDTH);
        }
        printf(" on ");
        paint_line(last->host, HOST_WIDTH);
        printf(", %d rank%s of %d thread%s%s, ", (int)last->ranks, last->ranks == 1 ? "" : "s",
               (int)last->threads, last->threads == 1 ? "" : "s",
               last->gpus > 0 ? " and a GPU" : "");
    }
    printf("%s\n", lasted);
    paint_label("its end");
    if (last->end[0] != '\0') {
        paint_line(last->end, paint_columns() - 15);
        putchar('\n');
    } else {
        printf("none %s\n", view->held && view->holder.alive != STORE_ALIVE_NO
                                ? "yet"
                                : "was written: it died, or its last words were lost");
    }
}

/* The running allocation has none yet: that of the last one that has. */
static void print_safety(const struct search *search)
{
    for (int32_t i = search->allocation_count - 1; i >= 0; i--) {
        const struct search_allocation *one = &search->allocations[i];
        if (isnan(one->safe_s)) {
            continue;
        }
        paint_label("to safety");
        printf("%.1f s from the wish to stop", one->safe_s);
        if (!isnan(one->predicted_s)) {
            printf(", %.1f s predicted", one->predicted_s);
        }
        if (i < search->allocation_count - 1) {
            printf(" (allocation %d)", (int)i + 1);
        }
        putchar('\n');
        return;
    }
}

/* When, of what kind, about whom and what it cost; what happened goes below, at the same column. */
static void print_incident(const struct search_incident *incident)
{
    enum { COLUMN = 14 };
    char when[32];
    clock_format_utc(incident->time_s, when, sizeof(when));
    paint_label("incident");
    printf("%s ", when);
    paint_line(incident->kind, KIND_WIDTH);
    if (incident->candidate >= 0) {
        char name[SEARCH_NAME_BYTES];
        search_candidate_name(incident->node, incident->candidate, name);
        printf(", %s", name);
    } else if (incident->node >= 0) {
        printf(", n%04d", (int)incident->node);
    }
    if (incident->lost_s > 0.0) {
        char lost[PAINT_TIME_BYTES];
        paint_duration(incident->lost_s, lost);
        printf(", %s of work to be done again", lost);
    }
    putchar('\n');
    paint_block(incident->message, COLUMN, paint_columns());
}

static void print_incidents(const struct search *search)
{
    int32_t first =
        search->incident_count > INCIDENTS_SHOWN ? search->incident_count - INCIDENTS_SHOWN : 0;
    for (int32_t i = first; i < search->incident_count; i++) {
        print_incident(&search->incidents[i]);
    }
    if (first > 0) {
        paint_label("");
        printf("and %d before these, which --json has\n", (int)first);
    }
    if (search->incidents_seen > search->incident_count) {
        paint_label("");
        printf("and %" PRId64 " later ones, which are only counted\n",
               search->incidents_seen - search->incident_count);
    }
}

void history_print_of_node(const struct search *search, int32_t node)
{
    bool first = true;
    for (int32_t i = 0; i < search->incident_count; i++) {
        if (search->incidents[i].node == node) {
            printf("%s", first ? "\n" : "");
            print_incident(&search->incidents[i]);
            first = false;
        }
    }
}

void history_print(const struct view *view)
{
    print_spent(&view->search);
    if (view->search.allocation_count > 0) {
        print_allocation(view);
    }
    print_safety(&view->search);
    print_incidents(&view->search);
}

/* ---- JSON ---- */

/* JSON has no NaN: null stands for what is not known. */
static void add_span(cJSON *object, const char *key, double seconds)
{
    if (isnan(seconds)) {
        cJSON_AddNullToObject(object, key);
    } else {
        cJSON_AddNumberToObject(object, key, seconds);
    }
}

static cJSON *allocation_json(const struct search_allocation *allocation)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "started_s", allocation->started_s);
    cJSON_AddNumberToObject(object, "seconds", allocation->seconds);
    cJSON_AddNumberToObject(object, "ranks", allocation->ranks);
    cJSON_AddNumberToObject(object, "workers", allocation->workers);
    cJSON_AddNumberToObject(object, "nodes", allocation->nodes);
    cJSON_AddNumberToObject(object, "threads", allocation->threads);
    cJSON_AddNumberToObject(object, "gpus", allocation->gpus);
    cJSON_AddStringToObject(object, "job", allocation->job);
    cJSON_AddNumberToObject(object, "restarts", allocation->restarts);
    cJSON_AddStringToObject(object, "host", allocation->host);
    cJSON_AddStringToObject(object, "end", allocation->end);
    add_span(object, "predicted_s", allocation->predicted_s);
    add_span(object, "safe_s", allocation->safe_s);
    return object;
}

static cJSON *incident_json(const struct search_incident *incident)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "time_s", incident->time_s);
    cJSON_AddNumberToObject(object, "allocation", incident->allocation);
    cJSON_AddStringToObject(object, "kind", incident->kind);
    cJSON_AddStringToObject(object, "message", incident->message);
    cJSON_AddNumberToObject(object, "node", incident->node);
    cJSON_AddNumberToObject(object, "candidate", incident->candidate);
    add_span(object, "lost_s", incident->lost_s);
    return object;
}

void history_add_cost(cJSON *object, double core_seconds, double gpu_seconds)
{
    cJSON_AddNumberToObject(object, "core_hours", core_seconds / 3600.0);
    cJSON_AddNumberToObject(object, "gpu_hours", gpu_seconds / 3600.0);
}

void history_add_json(const struct view *view, cJSON *object)
{
    const struct search *search = &view->search;
    history_add_cost(object, search->core_seconds, search->gpu_seconds);
    cJSON *allocations = cJSON_AddArrayToObject(object, "allocation_list");
    for (int32_t i = 0; i < search->allocation_count; i++) {
        cJSON_AddItemToArray(allocations, allocation_json(&search->allocations[i]));
    }
    cJSON *incidents = cJSON_AddArrayToObject(object, "incidents");
    for (int32_t i = 0; i < search->incident_count; i++) {
        cJSON_AddItemToArray(incidents, incident_json(&search->incidents[i]));
    }
    cJSON_AddNumberToObject(object, "incidents_seen", (double)search->incidents_seen);
}
