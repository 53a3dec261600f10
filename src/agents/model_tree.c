/* What a prompt says of the search: directions and what they brought, rounds that are under way,
 * one round with its figures, those beside it, insights. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "agents/diagnosis.h"
#include "agents/model_parts.h"

enum {
    GOAL_SHOWN_BYTES = 200,
    TEXT_SHOWN_BYTES = 1500,
    SIBLINGS_SHOWN = 8,
    INSIGHT_SHOWN_BYTES = 400
};

/* ---- directions ---- */

static void copy_title(const char *goal, char out[64])
{
    size_t length = strcspn(goal, ":");
    length = goal[length] == ':' && length < 63 ? length : 0;
    memcpy(out, goal, length);
    out[length] = '\0';
}

static void note_round(struct model *model, const struct search *search, int32_t node)
{
    char title[64];
    copy_title(search_text(search->nodes[node].goal), title);
    if (title[0] == '\0' || node == 0) {
        return;
    }
    int i = 0;
    while (i < model->record_count && strcmp(model->records[i].title, title) != 0) {
        i++;
    }
    if (i == MODEL_RECORDS_MAX) {
        return;
    }
    if (i == model->record_count) {
        model->records[model->record_count++] = (struct model_record){.title = ""};
        memcpy(model->records[i].title, title, sizeof(title));
    }
    const struct tree_node *nodes = search->tree.nodes;
    bool better = nodes[node].state == TREE_NODE_CLOSED &&
                  nodes[node].reward > nodes[nodes[node].parent].reward;
    model->records[i].rounds++;
    model->records[i].better += better;
}

enum status model_records_update(struct model *model, const struct search *search,
                                 struct error *err)
{
    TRY(rules_history_update(&model->history, search, err));
    for (; model->records_read < search->settled_count; model->records_read++) {
        const struct search_settled *settled = &search->settled[model->records_read];
        if (settled->candidate < 0) {
            note_round(model, search, settled->node);
        }
    }
    return STATUS_OK;
}

static bool is_recorded(const struct model *model, const char *title)
{
    for (int i = 0; i < model->record_count; i++) {
        if (strcmp(model->records[i].title, title) == 0) {
            return true;
        }
    }
    return false;
}

void model_add_record(struct model *model, struct model_values *values, int trim)
{
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    for (int i = 0; i < model->record_count; i++) {
        const struct model_record *record = &model->records[i];
        buffer_printf(&text, "%s: %d of %d rounds better than their parents\n", record->title,
                      (int)record->better, (int)record->rounds);
    }
    buffer_append_text(&text, "not used yet:");
    const char *comma = " ";
    for (const struct rules_direction *at = rules_directions(); at->title != NULL; at++) {
        if (!is_recorded(model, at->title)) {
            buffer_printf(&text, "%s%s", comma, at->title);
            comma = ", ";
        }
    }
    buffer_append_text(&text, ", or one of your own\n");
    model_add_value(values, "record", &text, MODEL_QUOTED, trim);
}

/* The title of a direction that was chosen for another request, if it was answered. */
static void append_request(const struct search *search, const struct model_request *request,
                           struct buffer *out)
{
    char key[SEARCH_CALL_KEY_BYTES];
    snprintf(key, sizeof(key), "%s/direction/1", request->subject);
    const struct search_call *call = calls_find(search, key);
    cJSON *json = call != NULL ? model_read_reply("direction", search_text(call->reply)) : NULL;
    const char *title = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "title"));
    const char *claim = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "hypothesis"));
    if (title != NULL && claim != NULL) {
        buffer_printf(out, "being planned below n%04d: %s: ", (int)request->parent, title);
        model_append_line(out, claim, GOAL_SHOWN_BYTES);
        buffer_append_char(out, '\n');
    }
    cJSON_Delete(json);
}

void model_add_under_way(struct model *model, const struct search *search,
                         const struct model_request *request, struct model_values *values, int trim)
{
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    int32_t first =
        search->tree.count > MODEL_OTHERS_BACK ? search->tree.count - MODEL_OTHERS_BACK : 1;
    for (int32_t node = search->tree.count - 1; node >= first; node--) {
        if (search->tree.nodes[node].state == TREE_NODE_OPEN) {
            buffer_printf(&text, "n%04d below n%04d: ", (int)node,
                          (int)search->tree.nodes[node].parent);
            model_append_line(&text, search_text(search->nodes[node].goal), GOAL_SHOWN_BYTES);
            buffer_append_char(&text, '\n');
        }
    }
    for (int i = 0; i < model->request_count; i++) {
        if (strcmp(model->requests[i].subject, request->subject) == 0) {
            break;
        }
        append_request(search, &model->requests[i], &text);
    }
    model_add_value(values, "under_way", &text, MODEL_QUOTED, trim);
}

/* ---- one round ---- */

static void append_score(const struct search_score *score, struct buffer *out)
{
    if (!score->present) {
        return;
    }
    buffer_printf(out, " %.4g ± %.2g on %lld rows", score->value, score->standard_error,
                  (long long)score->rows);
    if (isfinite(score->loss)) {
        buffer_printf(out, ", loss %.3g", score->loss);
    }
    if (score->format_failures > 0) {
        buffer_printf(out, ", %lld no possible answer", (long long)score->format_failures);
    }
    if (score->unfinished > 0) {
        buffer_printf(out, ", %lld ran into the length limit", (long long)score->unfinished);
    }
    if (score->truncated > 0) {
        buffer_printf(out, ", %lld prompts cut", (long long)score->truncated);
    }
}

static void append_candidate(const struct search *search, int32_t node, int32_t index,
                             struct buffer *out)
{
    const struct candidate *candidate = &search->nodes[node].candidates[index];
    const struct candidate *best = evidence_best(search, node);
    char name[SEARCH_NAME_BYTES];
    struct train_config config;
    struct train_config best_config;
    search_candidate_name(node, index, name);
    buffer_printf(out, "%s%s: %s", name, candidate == best ? " (best)" : "",
                  candidate_state_name(candidate->state));
    append_score(&candidate->validation, out);
    if (candidate->state == CANDIDATE_FAILED && candidate->error != NULL) {
        buffer_printf(out, " (%s: ", status_text(candidate->error->code));
        model_append_line(out, candidate->error->message, 300);
        buffer_append_char(out, ')');
    }
    if (candidate->curve_count > 0) {
        struct curve_reading curve;
        curve_read(candidate, &curve);
        buffer_append_text(out, "; ");
        diagnosis_append_curve(&curve, out);
    }
    if (candidate == best || best == NULL || !plan_config_read(best->config, &best_config) ||
        !plan_config_read(candidate->config, &config)) {
        buffer_append_text(out, "\n  configuration: ");
        model_append_line(out, search_text(candidate->config), TEXT_SHOWN_BYTES);
    } else {
        buffer_append_text(out, "\n  against the best: ");
        plan_config_differences(&config, &best_config, out);
    }
    buffer_append_char(out, '\n');
}

void model_add_round(struct model *model, const struct search *search, int32_t node,
                     struct model_values *values, int trim)
{
    (void)model;
    const struct search_node *of = &search->nodes[node];
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    buffer_append_text(&text, "goal: ");
    model_append_line(&text, search_text(of->goal), TEXT_SHOWN_BYTES);
    buffer_append_text(&text, "\nwhy: ");
    model_append_line(&text, search_text(of->rationale), TEXT_SHOWN_BYTES);
    buffer_append_text(&text, "\nrecipe: ");
    model_append_line(&text, search_text(of->recipe), TEXT_SHOWN_BYTES);
    if (of->recipe_report != NULL) {
        buffer_append_text(&text, "\nwhat its steps did: ");
        model_append_line(&text, of->recipe_report, TEXT_SHOWN_BYTES);
    }
    buffer_append_char(&text, '\n');
    for (int32_t i = 0; i < of->candidate_count; i++) {
        append_candidate(search, node, i, &text);
    }
    buffer_append_text(&text, "in figures: ");
    model_append_line(&text, search_text(of->diagnosis), 2 * TEXT_SHOWN_BYTES);
    buffer_append_char(&text, '\n');
    model_add_value(values, "round", &text, MODEL_QUOTED, trim);
}

/* ---- those beside it ---- */

static void append_other(const struct search *search, int32_t other, int32_t node, const char *what,
                         struct buffer *out)
{
    const struct candidate *best = evidence_best(search, other);
    const struct candidate *own = evidence_best(search, node);
    buffer_printf(out, "%s n%04d: ", what, (int)other);
    model_append_line(out, search_text(search->nodes[other].goal), GOAL_SHOWN_BYTES);
    buffer_append_text(out, best != NULL ? ";" : "; none of its configurations finished");
    if (best != NULL) {
        append_score(&best->validation, out);
    }
    if (best != NULL && own != NULL) {
        double error;
        double gain = evidence_gain(search, &own->validation, &best->validation, &error);
        buffer_printf(out, "; n%04d is %.4g ± %.2g %s%s", (int)node, fabs(gain), error,
                      gain > 0.0 ? "better" : "worse",
                      fabs(gain) > EVIDENCE_ERRORS * error ? "" : ", within noise");
    }
    buffer_append_char(out, '\n');
}

void model_add_compared(struct model *model, const struct search *search, int32_t node,
                        struct model_values *values, int trim)
{
    (void)model;
    const struct tree_node *nodes = search->tree.nodes;
    int32_t parent = nodes[node].parent;
    int32_t siblings[SIBLINGS_SHOWN]; /* the newest */
    int count = 0;
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    if (parent >= 0) {
        append_other(search, parent, node, parent == 0 ? "baseline" : "parent", &text);
        if (parent != 0) {
            append_other(search, 0, node, "baseline", &text);
        }
        for (int32_t at = nodes[parent].first_child; at >= 0; at = nodes[at].next_sibling) {
            if (at == node || nodes[at].state == TREE_NODE_OPEN) {
                continue;
            }
            if (count == SIBLINGS_SHOWN) {
                memmove(siblings, siblings + 1, (SIBLINGS_SHOWN - 1) * sizeof(siblings[0]));
                count--;
            }
            siblings[count++] = at;
        }
    }
    for (int i = 0; i < count; i++) {
        append_other(search, siblings[i], node, "sibling", &text);
    }
    model_add_value(values, "compared", &text, MODEL_QUOTED, trim);
}

/* ---- insights ---- */

void model_add_insights(const struct search *search, struct model_values *values, int trim)
{
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    /* The newest first: they are the last to be cut. */
    for (int32_t i = search->insight_count - 1; i >= 0 && !text.failed; i--) {
        const struct search_insight *insight = &search->insights[i];
        if (insight->retired) {
            continue;
        }
        buffer_printf(&text, "[%d] ", (int)i);
        model_append_line(&text, search_text(insight->text), INSIGHT_SHOWN_BYTES);
        buffer_append_text(&text, " (nodes");
        for (int32_t k = 0; k < insight->node_count; k++) {
            buffer_printf(&text, " %d", (int)insight->nodes[k]);
        }
        buffer_append_text(&text, ")\n");
    }
    model_add_value(values, "insights", &text, MODEL_QUOTED, trim);
}
