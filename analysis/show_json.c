/* trex-tree show --json: the whole tree for other programs. */
#include <math.h>
#include <string.h>

#include "analysis/show.h"

cJSON *show_parsed(const char *text)
{
    cJSON *value = NULL;
    text = search_text(text);
    if (json_parse(text, strlen(text), "run file", &value, NULL) != STATUS_OK) {
        value = cJSON_CreateNull();
    }
    return value;
}

static cJSON *curve_json(const struct candidate *candidate)
{
    cJSON *list = cJSON_CreateArray();
    for (int32_t i = 0; i < candidate->curve_count; i++) {
        const struct search_curve_point *point = &candidate->curve[i];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddNumberToObject(item, "step", (double)point->step);
        cJSON_AddNumberToObject(item, "train_loss", point->train_loss);
        if (isfinite(point->validation_loss)) {
            cJSON_AddNumberToObject(item, "validation_loss", point->validation_loss);
        }
        cJSON_AddNumberToObject(item, "learning_rate", point->learning_rate);
        cJSON_AddItemToArray(list, item);
    }
    return list;
}

static cJSON *candidate_json(int32_t node, int32_t index, const struct candidate *candidate)
{
    char name[SEARCH_NAME_BYTES];
    search_candidate_name(node, index, name);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", name);
    cJSON_AddStringToObject(object, "state", candidate_state_name(candidate->state));
    cJSON_AddItemToObject(object, "config", show_parsed(candidate->config));
    cJSON_AddItemToObject(object, "validation", view_score_json(&candidate->validation));
    cJSON_AddItemToObject(object, "test", view_score_json(&candidate->test));
    cJSON_AddNumberToObject(object, "steps_done", (double)candidate->steps_done);
    cJSON_AddNumberToObject(object, "samples", (double)candidate->samples);
    cJSON_AddNumberToObject(object, "tokens", (double)candidate->tokens);
    cJSON_AddNumberToObject(object, "rank_seconds", candidate->rank_seconds);
    history_add_cost(object, candidate->core_seconds, candidate->gpu_seconds);
    cJSON_AddNumberToObject(object, "kills", candidate->kills);
    cJSON_AddBoolToObject(object, "weights_kept", candidate->weights_kept);
    cJSON_AddItemToObject(object, "curve", curve_json(candidate));
    if (candidate->state == CANDIDATE_FAILED) {
        cJSON_AddStringToObject(object, "error", candidate->error->message);
        cJSON_AddStringToObject(object, "log_tail", search_text(candidate->log_tail));
    }
    return object;
}

static cJSON *node_json(const struct view *view, int32_t id)
{
    static const char *const states[] = {"open", "closed", "failed"};
    const struct tree_node *place = &view->search.tree.nodes[id];
    const struct search_node *node = &view->search.nodes[id];
    double core_seconds = 0.0;
    double gpu_seconds = 0.0;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "node", id);
    cJSON_AddNumberToObject(object, "parent", place->parent);
    cJSON_AddStringToObject(object, "state", states[place->state]);
    cJSON_AddNumberToObject(object, "visits", (double)place->visits);
    cJSON_AddStringToObject(object, "strategy", search_text(node->strategy));
    cJSON_AddStringToObject(object, "goal", search_text(node->goal));
    cJSON_AddStringToObject(object, "rationale", search_text(node->rationale));
    cJSON_AddStringToObject(object, "researcher", search_text(node->researcher));
    cJSON_AddItemToObject(object, "recipe", show_parsed(node->recipe));
    cJSON_AddStringToObject(object, "diagnosis", search_text(node->diagnosis));
    cJSON_AddItemToObject(object, "causes", show_parsed(node->causes));
    cJSON_AddNumberToObject(object, "best", node->best);
    history_node_cost(node, &core_seconds, &gpu_seconds);
    history_add_cost(object, core_seconds, gpu_seconds);
    cJSON *candidates = cJSON_AddArrayToObject(object, "candidates");
    for (int32_t i = 0; i < node->candidate_count; i++) {
        cJSON_AddItemToArray(candidates, candidate_json(id, i, &node->candidates[i]));
    }
    return object;
}

cJSON *show_json(const struct view *view)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "metric", search_text(view->search.identity.metric));
    cJSON_AddBoolToObject(object, "finished", view->search.end == SEARCH_FINISHED);
    cJSON *nodes = cJSON_AddArrayToObject(object, "nodes");
    for (int32_t id = 0; id < view->search.tree.count; id++) {
        cJSON_AddItemToArray(nodes, node_json(view, id));
    }
    cJSON *insights = cJSON_AddArrayToObject(object, "insights");
    for (int32_t i = 0; i < view->search.insight_count; i++) {
        cJSON_AddItemToArray(insights,
                             cJSON_CreateString(search_text(view->search.insights[i].text)));
    }
    show_add_brief_json(&view->search, object);
    return object;
}
