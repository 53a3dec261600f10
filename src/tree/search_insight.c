/* Insights: what was learned across nodes. A round that closes brings some, and an agent that looks
 * closer brings more and retires others. */
#include <math.h>
#include <string.h>

#include "tree/search_event.h"

static enum status read_insight(struct search *search, struct event *event, const cJSON *object,
                                struct search_insight *out, struct error *err)
{
    struct json_reader reader;
    json_reader_init(&reader, object, "/insights", &event->problems);
    TRY(search_read_text(&reader, "text", true, SEARCH_TEXT_MAX_BYTES, &search->arena, &out->text,
                         err));
    const cJSON *nodes = json_read_array(&reader, "nodes");
    const cJSON *node = NULL;
    cJSON_ArrayForEach (node, nodes) {
        bool fits = cJSON_IsNumber(node) && node->valuedouble >= 0.0 &&
                    node->valuedouble < (double)search->tree.count &&
                    node->valuedouble == floor(node->valuedouble);
        if (!fits || out->node_count >= SEARCH_INSIGHT_NODES_MAX) {
            json_problems_add(&event->problems, "/insights/nodes",
                              "allowed are up to %d ids of nodes", SEARCH_INSIGHT_NODES_MAX);
            return STATUS_OK;
        }
        out->nodes[out->node_count++] = (int32_t)node->valuedouble;
    }
    return STATUS_OK;
}

enum status event_read_insights(struct search *search, struct event *event,
                                struct event_insights *out, struct error *err)
{
    const cJSON *list = json_read_array(&event->reader, "insights");
    if (cJSON_GetArraySize(list) > SEARCH_INSIGHTS_MAX) {
        json_problems_add(&event->problems, "/insights", "allowed are at most %d",
                          SEARCH_INSIGHTS_MAX);
        return STATUS_OK;
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        struct search_insight *insight = &out->items[out->count++];
        memset(insight, 0, sizeof(*insight));
        TRY(read_insight(search, event, item, insight, err));
    }
    return STATUS_OK;
}

enum status event_reserve_insights(struct search *search, const struct event_insights *insights,
                                   struct error *err)
{
    void *list = search->insights;
    TRY(event_reserve(&list, search->insight_count, insights->count, &search->insight_capacity,
                      sizeof(*search->insights), "insights", err));
    search->insights = list;
    return STATUS_OK;
}

void event_take_insights(struct search *search, const struct event_insights *insights)
{
    if (insights->count > 0) {
        memcpy(search->insights + search->insight_count, insights->items,
               (size_t)insights->count * sizeof(insights->items[0]));
    }
    search->insight_count += insights->count;
}
