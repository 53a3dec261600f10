/* Rounds that have ended, read by the model: diagnosis and causes, then what they teach. First
 * those that a plan waits for, then the newest of the others, a few at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/model_parts.h"
#include "base/mem.h"

enum { CASES_BYTES = 24 * 1024, DIAGNOSIS_BYTES = 16 * 1024, NEW_INSIGHTS_MAX = 8 };

/* ---- which ---- */

enum model_look model_look_of(const struct model *model, int32_t node)
{
    return node < model->look_capacity ? (enum model_look)model->looks[node] : LOOK_NONE;
}

static enum status reserve_looks(struct model *model, int32_t count, struct error *err)
{
    if (count <= model->look_capacity) {
        return STATUS_OK;
    }
    int32_t capacity = count > 2 * model->look_capacity ? count : 2 * model->look_capacity;
    unsigned char *looks = mem_realloc(model->looks, (size_t)capacity, 1);
    if (looks == NULL) {
        return mem_fail(err, (size_t)capacity, "rounds that were looked at");
    }
    memset(looks + model->look_capacity, LOOK_NONE, (size_t)(capacity - model->look_capacity));
    model->looks = looks;
    model->look_capacity = capacity;
    return STATUS_OK;
}

static bool is_worth(const struct search *search, int32_t node)
{
    return search->tree.nodes[node].state == TREE_NODE_CLOSED &&
           evidence_best(search, node) != NULL;
}

/* What the search says goes before what is remembered. */
static enum model_look current(struct model *model, const struct search *search, int32_t node)
{
    bool useless = model->looks[node] == LOOK_WANTED && !is_worth(search, node);
    if (search->nodes[node].causes != NULL || useless) {
        model->looks[node] = LOOK_OVER;
    }
    return (enum model_look)model->looks[node];
}

/* ---- the prompts ---- */

struct look {
    int32_t node;
    cJSON *diagnosis; /* borrowed; NULL before there is one */
};

static void add_node(int32_t node, struct model_values *values)
{
    char name[16];
    snprintf(name, sizeof(name), "n%04d", (int)node);
    model_add_text(values, "node", name, MODEL_OURS, 0);
}

static void fill_diagnosis(struct model *model, const struct search *search, void *context,
                           struct model_values *values)
{
    const struct look *look = context;
    int32_t parent = search->tree.nodes[look->node].parent;
    const struct candidate *before = parent >= 0 ? evidence_best(search, parent) : NULL;
    struct buffer text;
    model_add_job(model, search, values);
    add_node(look->node, values);
    model_add_round(model, search, look->node, values, 3);
    model_add_compared(model, search, look->node, values, 4);
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    model_append_cases(evidence_best(search, look->node), before, CASES_BYTES, &text);
    model_add_value(values, "cases", &text, MODEL_QUOTED, 5);
}

static void fill_insights(struct model *model, const struct search *search, void *context,
                          struct model_values *values)
{
    const struct look *look = context;
    struct buffer text;
    model_add_job(model, search, values);
    model_add_text(values, "metric", search_text(search->identity.metric), MODEL_OURS, 0);
    add_node(look->node, values);
    model_add_round(model, search, look->node, values, 4);
    model_add_compared(model, search, look->node, values, 5);
    model_add_insights(search, values, 3);
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    buffer_printf(&text, "%s\n%s\n", model_text(look->diagnosis, "summary"),
                  model_text(look->diagnosis, "compared"));
    const cJSON *cause = NULL;
    cJSON_ArrayForEach (cause, cJSON_GetObjectItemCaseSensitive(look->diagnosis, "causes")) {
        buffer_printf(&text, "cause: %s\n", model_text(cause, "cause"));
    }
    model_add_value(values, "diagnosis", &text, MODEL_QUOTED, 2);
}

/* ---- what a schema cannot say ---- */

static bool is_insight(const struct search *search, const cJSON *index)
{
    return cJSON_IsNumber(index) && index->valuedouble >= 0.0 &&
           index->valuedouble < (double)search->insight_count &&
           !search->insights[(int32_t)index->valuedouble].retired;
}

static void check_nodes(const struct search *search, const cJSON *nodes, const char *pointer,
                        struct json_problems *problems)
{
    const cJSON *node = NULL;
    cJSON_ArrayForEach (node, nodes) {
        if (!cJSON_IsNumber(node) || node->valuedouble >= (double)search->tree.count) {
            json_problems_add(problems, pointer, "there is no node %g",
                              cJSON_IsNumber(node) ? node->valuedouble : -1.0);
        }
    }
}

static void check_insights(struct model *model, const struct search *search, void *context,
                           const cJSON *reply, struct json_problems *problems)
{
    (void)model;
    (void)context;
    const cJSON *item = NULL;
    const cJSON *index = NULL;
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(reply, "new")) {
        check_nodes(search, cJSON_GetObjectItemCaseSensitive(item, "nodes"), "/new/nodes",
                    problems);
    }
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(reply, "merged")) {
        check_nodes(search, cJSON_GetObjectItemCaseSensitive(item, "nodes"), "/merged/nodes",
                    problems);
        cJSON_ArrayForEach (index, cJSON_GetObjectItemCaseSensitive(item, "insights")) {
            if (!is_insight(search, index)) {
                json_problems_add(problems, "/merged/insights", "[%g] is not in the list",
                                  index->valuedouble);
            }
        }
    }
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(reply, "retired")) {
        index = cJSON_GetObjectItemCaseSensitive(item, "insight");
        if (!is_insight(search, index)) {
            json_problems_add(problems, "/retired/insight", "[%g] is not in the list",
                              cJSON_IsNumber(index) ? index->valuedouble : -1.0);
        }
    }
}

/* ---- the event ---- */

/* The diagnosis in words, the figures of the rules after it. */
static char *write_diagnosis(const struct search *search, int32_t node, const cJSON *diagnosis)
{
    struct buffer text;
    buffer_init(&text, DIAGNOSIS_BYTES);
    buffer_printf(&text, "%s\nCompared: %s\n", model_text(diagnosis, "summary"),
                  model_text(diagnosis, "compared"));
    const cJSON *cause = NULL;
    cJSON_ArrayForEach (cause, cJSON_GetObjectItemCaseSensitive(diagnosis, "causes")) {
        const cJSON *share = cJSON_GetObjectItemCaseSensitive(cause, "share");
        buffer_printf(
            &text, "Cause (%.0f %% of the failed rows shown): %s. Shown by: %s. Remedy: %s\n",
            cJSON_IsNumber(share) ? 100.0 * share->valuedouble : 0.0, model_text(cause, "cause"),
            model_text(cause, "evidence"), model_text(cause, "remedy"));
    }
    buffer_append_text(&text, "In figures: ");
    model_append_line(&text, search_text(search->nodes[node].diagnosis), DIAGNOSIS_BYTES / 3);
    char *copy = mem_strdup(buffer_text(&text));
    buffer_fini(&text);
    return copy;
}

static bool add_insight(cJSON *list, const cJSON *from)
{
    cJSON *item = cJSON_CreateObject();
    cJSON *nodes = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(from, "nodes"), true);
    bool whole = cJSON_AddStringToObject(item, "text", model_text(from, "text")) != NULL &&
                 nodes != NULL && cJSON_AddItemToObject(item, "nodes", nodes);
    if (!whole || !cJSON_AddItemToArray(list, item)) {
        cJSON_Delete(whole ? NULL : nodes);
        cJSON_Delete(item);
        return false;
    }
    return true;
}

static void add_retired(cJSON *list, const cJSON *index)
{
    if (cJSON_IsNumber(index) && cJSON_GetArraySize(list) < SEARCH_INSIGHTS_MAX) {
        cJSON_AddItemToArray(list, cJSON_CreateNumber(index->valuedouble));
    }
}

static bool add_learned(cJSON *event, const cJSON *learned)
{
    cJSON *insights = cJSON_AddArrayToObject(event, "insights");
    cJSON *retired = cJSON_AddArrayToObject(event, "retired");
    const cJSON *item = NULL;
    const cJSON *index = NULL;
    bool whole = insights != NULL && retired != NULL;
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(learned, "new")) {
        whole = whole && add_insight(insights, item);
    }
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(learned, "merged")) {
        whole = whole && add_insight(insights, item);
        cJSON_ArrayForEach (index, cJSON_GetObjectItemCaseSensitive(item, "insights")) {
            add_retired(retired, index);
        }
    }
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(learned, "retired")) {
        add_retired(retired, cJSON_GetObjectItemCaseSensitive(item, "insight"));
    }
    return whole;
}

static enum status push_diagnosed(struct model *model, const struct search *search, int32_t node,
                                  const cJSON *diagnosis, const cJSON *learned, struct error *err)
{
    cJSON *event = cJSON_CreateObject();
    cJSON *causes = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(diagnosis, "causes"), true);
    char *words = write_diagnosis(search, node, diagnosis);
    bool whole = cJSON_AddStringToObject(event, "event", "node_diagnosed") != NULL &&
                 cJSON_AddNumberToObject(event, "node", node) != NULL && words != NULL &&
                 cJSON_AddStringToObject(event, "diagnosis", words) != NULL && causes != NULL &&
                 cJSON_AddItemToObject(event, "causes", causes);
    free(words);
    if (!whole || !add_learned(event, learned)) {
        cJSON_Delete(whole ? NULL : causes);
        cJSON_Delete(event);
        return mem_fail(err, DIAGNOSIS_BYTES, "a diagnosis");
    }
    return model_push_event(model, event, err);
}

/* ---- walking ---- */

static struct model_reply ask(struct model *model, const struct search *search, struct look *look,
                              const char *what, bool insights)
{
    char key[SEARCH_CALL_KEY_BYTES];
    char repair[SEARCH_CALL_KEY_BYTES];
    snprintf(key, sizeof(key), "n%04d/%s", (int)look->node, what);
    snprintf(repair, sizeof(repair), "n%04d/%s/repair", (int)look->node, what);
    const struct model_question question = {
        .key = key,
        .repair = repair,
        .prompt = insights ? "insights" : "diagnosis",
        .purpose = what,
        .node = look->node,
        .fill = insights ? fill_insights : fill_diagnosis,
        .check = insights ? check_insights : NULL,
        .context = look,
    };
    return model_ask(model, search, &question);
}

static enum status walk(struct model *model, const struct search *search, int32_t node,
                        struct error *err)
{
    enum status status = STATUS_OK;
    struct look look = {.node = node};
    struct model_reply learned = {.state = MODEL_WAITS};
    struct model_reply diagnosis = ask(model, search, &look, "diagnose", false);
    if (diagnosis.state == MODEL_FAILED) {
        model->looks[node] = LOOK_OVER;
        model_note(model, node, "the language model did not diagnose n%04d: %s", (int)node,
                   diagnosis.why);
    } else if (diagnosis.state == MODEL_READY) {
        look.diagnosis = diagnosis.json;
        learned = ask(model, search, &look, "insights", true);
    }
    if (learned.state == MODEL_FAILED) {
        model_note(model, node, "the language model drew no insights from n%04d: %s", (int)node,
                   learned.why);
    }
    if (learned.state != MODEL_WAITS) {
        status = push_diagnosed(model, search, node, diagnosis.json, learned.json, err);
        model->looks[node] = LOOK_SENT;
    }
    model_reply_fini(&diagnosis);
    model_reply_fini(&learned);
    return status;
}

static void want(struct model *model, int32_t node)
{
    if (model->wanted_count < MODEL_WANTED_MAX && model->looks[node] == LOOK_NONE) {
        model->looks[node] = LOOK_WANTED;
        model->wanted[model->wanted_count++] = node;
    }
}

enum status model_diagnose(struct model *model, const struct search *search, struct error *err)
{
    int32_t count = search->tree.count;
    TRY(reserve_looks(model, count, err));
    for (int i = 0; i < model->request_count; i++) { /* however old: its plan waits for it */
        (void)current(model, search, model->requests[i].parent);
        want(model, model->requests[i].parent);
    }
    /* After the last round nobody reads any more: the search ends. */
    int32_t oldest = model_rounds_left(model, search) < 1.0 ? count
                     : count > MODEL_LOOKS_BACK             ? count - MODEL_LOOKS_BACK
                                                            : 0;
    for (int32_t node = count - 1; node >= oldest && model->wanted_count < MODEL_LOOKS_MAX;
         node--) {
        if (current(model, search, node) == LOOK_NONE && is_worth(search, node)) {
            want(model, node);
        }
    }
    int kept = 0;
    for (int i = 0; i < model->wanted_count; i++) {
        int32_t node = model->wanted[i];
        if (current(model, search, node) == LOOK_WANTED) {
            TRY(walk(model, search, node, err));
        }
        if (model->looks[node] == LOOK_WANTED) {
            model->wanted[kept++] = node;
        }
    }
    model->wanted_count = kept;
    return STATUS_OK;
}
