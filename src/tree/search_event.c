/* The fold of events: the table of their kinds, and the handlers of the search as a whole and of
 * nodes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tree/search_event.h"

enum { LIST_FIRST_CAPACITY = 8 };

enum status event_check(const struct event *event, struct error *err)
{
    return json_problems_check(&event->problems, event->name, err);
}

int64_t event_require_int(struct event *event, const char *key, int64_t min, int64_t max)
{
    json_require(&event->reader, key, "a whole number");
    return json_read_int(&event->reader, key, min, min, max);
}

double event_require_seconds(struct event *event, const char *key)
{
    json_require(&event->reader, key, "a number of seconds");
    return json_read_number(&event->reader, key, 0.0, 0.0, SEARCH_SECONDS_MAX);
}

enum status event_copy_line(const char *text, struct arena *arena, char **out, struct error *err)
{
    size_t length = strlen(text);
    if (length > SEARCH_LINE_MAX_BYTES) {
        length = SEARCH_LINE_MAX_BYTES;
        while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) {
            length--;
        }
    }
    *out = arena_strndup(arena, text, length);
    return *out != NULL ? STATUS_OK : mem_fail(err, length, "a text of an event");
}

enum status event_read_line(struct event *event, const char *key, bool required,
                            struct arena *arena, char **out, struct error *err)
{
    TRY(search_read_text(&event->reader, key, required, SEARCH_TEXT_MAX_BYTES, arena, out, err));
    bool long_line = *out != NULL && strlen(*out) > SEARCH_LINE_MAX_BYTES;
    return long_line ? event_copy_line(*out, arena, out, err) : STATUS_OK;
}

enum status event_reserve(void **list, int32_t count, int32_t more, int32_t *capacity,
                          size_t item_bytes, const char *what, struct error *err)
{
    if (more <= *capacity - count) {
        return STATUS_OK;
    }
    int64_t needed = (int64_t)count + more;
    int64_t larger = needed > 2 * (int64_t)count ? needed : 2 * (int64_t)count;
    larger = larger > LIST_FIRST_CAPACITY ? larger : LIST_FIRST_CAPACITY;
    if (larger > INT32_MAX) {
        return FAIL(err, STATUS_LIMIT, "%s: a search keeps at most %d", what, INT32_MAX / 2);
    }
    void *grown = mem_realloc(*list, (size_t)larger, item_bytes);
    if (grown == NULL) {
        return mem_fail(err, (size_t)larger * item_bytes, what);
    }
    *list = grown;
    *capacity = (int32_t)larger;
    return STATUS_OK;
}

/* ---- the search as a whole ---- */

static enum status read_job(struct event *event, struct arena *arena, char **out, struct error *err)
{
    const cJSON *job = cJSON_GetObjectItemCaseSensitive(event->object, "job");
    if (cJSON_IsString(job)) {
        return search_read_text(&event->reader, "job", true, SEARCH_JOB_MAX_BYTES, arena, out, err);
    }
    return search_read_json(&event->reader, "job", false, SEARCH_JOB_MAX_BYTES, arena, out, err);
}

static enum status read_identity(struct event *event, struct arena *arena,
                                 struct search_identity *out, struct error *err)
{
    struct json_reader *reader = &event->reader;
    const size_t max = SEARCH_TEXT_MAX_BYTES;
    TRY(read_job(event, arena, &out->job, err));
    TRY(search_read_text(reader, "model_hash", true, max, arena, &out->model_hash, err));
    TRY(search_read_text(reader, "task_hash", true, max, arena, &out->task_hash, err));
    TRY(search_read_text(reader, "metric", true, max, arena, &out->metric, err));
    TRY(search_read_text(reader, "version", true, max, arena, &out->version, err));
    json_require(reader, "larger_is_better", "true or false");
    out->larger_is_better = json_read_bool(reader, "larger_is_better", true);
    out->seed = (uint64_t)event_require_int(event, "seed", 0, INT64_C(1) << 53);
    return event_check(event, err);
}

static enum status apply_started(struct search *search, struct event *event, struct error *err)
{
    struct search_identity identity = {0};
    TRY(read_identity(event, &search->arena, &identity, err));
    search->identity = identity;
    return STATUS_OK;
}

static enum status apply_job_resolved(struct search *search, struct event *event, struct error *err)
{
    char *job = NULL;
    TRY(read_job(event, &search->arena, &job, err));
    TRY(event_check(event, err));
    search->identity.job = job;
    return STATUS_OK;
}

static enum status apply_finished(struct search *search, struct event *event, struct error *err)
{
    int32_t node = (int32_t)event_require_int(event, "winner_node", -1, TREE_NODES_MAX);
    int32_t candidate =
        (int32_t)event_require_int(event, "winner_candidate", -1, SEARCH_CANDIDATES_MAX - 1);
    bool none = node == -1 && candidate == -1;
    if (!none && (node < 0 || node >= search->tree.count || candidate < 0 ||
                  candidate >= search->nodes[node].candidate_count ||
                  search->nodes[node].candidates[candidate].state != CANDIDATE_FINISHED)) {
        json_problems_add(&event->problems, "/winner_node",
                          "found node %d candidate %d, allowed is a finished candidate, or -1 -1",
                          (int)node, (int)candidate);
    }
    char *reason = NULL;
    TRY(search_read_text(&event->reader, "reason", true, SEARCH_TEXT_MAX_BYTES, &search->arena,
                         &reason, err));
    TRY(event_check(event, err));
    search->end = SEARCH_FINISHED;
    search->end_reason = reason;
    search->winner_node = node;
    search->winner_candidate = candidate;
    return STATUS_OK;
}

/* ---- nodes ---- */

static enum status reserve_node(struct search *search, struct error *err)
{
    void *list = search->nodes;
    TRY(event_reserve(&list, search->tree.count, 1, &search->node_capacity, sizeof(*search->nodes),
                      "nodes of the search", err));
    search->nodes = list;
    return STATUS_OK;
}

static enum status read_configs(struct event *event, struct arena *arena, struct search_node *out,
                                struct error *err)
{
    json_require(&event->reader, "configs", "an array of 1 to 5 objects");
    const cJSON *configs = json_read_array(&event->reader, "configs");
    int count = cJSON_GetArraySize(configs);
    if (configs != NULL && (count < 1 || count > SEARCH_CANDIDATES_MAX)) {
        json_problems_add(&event->problems, "/configs",
                          "found %d configurations, allowed are 1..%d", count,
                          SEARCH_CANDIDATES_MAX);
        return STATUS_OK;
    }
    const cJSON *config = NULL;
    cJSON_ArrayForEach (config, configs) {
        if (!cJSON_IsObject(config)) {
            json_problems_add(&event->problems, "/configs", "allowed are objects {...}");
            return STATUS_OK;
        }
        char *line = json_print_line(config);
        size_t length = line != NULL ? strlen(line) : 0;
        char *copy = line != NULL ? arena_strndup(arena, line, length) : NULL;
        cJSON_free(line);
        if (copy == NULL) {
            return mem_fail(err, length, "a configuration");
        }
        out->candidates[out->candidate_count++].config = copy;
        if (length > SEARCH_TEXT_MAX_BYTES) {
            json_problems_add(&event->problems, "/configs", "found %zu bytes, allowed are %d",
                              length, SEARCH_TEXT_MAX_BYTES);
        }
    }
    return STATUS_OK;
}

static enum status read_plan(struct search *search, struct event *event, struct search_node *out,
                             int32_t *parent, struct error *err)
{
    struct json_reader *reader = &event->reader;
    struct arena *arena = &search->arena;
    const size_t max = SEARCH_TEXT_MAX_BYTES;
    int64_t id = event_require_int(event, "node", 0, TREE_NODES_MAX);
    if (event->problems.count == 0 && id != search->tree.count) {
        json_problems_add(&event->problems, "/node", "found %lld, allowed is the next, %d",
                          (long long)id, (int)search->tree.count);
    }
    *parent = (int32_t)event_require_int(event, "parent", -1, TREE_NODES_MAX);
    TRY(search_read_text(reader, "strategy", true, max, arena, &out->strategy, err));
    TRY(search_read_text(reader, "goal", true, max, arena, &out->goal, err));
    TRY(search_read_text(reader, "rationale", true, max, arena, &out->rationale, err));
    TRY(search_read_text(reader, "researcher", true, max, arena, &out->researcher, err));
    TRY(search_read_json(reader, "recipe", true, max, arena, &out->recipe, err));
    TRY(read_configs(event, arena, out, err));
    out->best = -1;
    out->planned_at_s = event->time_s;
    return event_check(event, err);
}

static enum status apply_node_planned(struct search *search, struct event *event, struct error *err)
{
    struct search_node node = {0};
    int32_t parent = -1;
    int32_t id = -1;
    TRY(read_plan(search, event, &node, &parent, err));
    struct search_request *request = search_read_answered(search, event, parent);
    TRY(event_check(event, err));
    TRY(reserve_node(search, err));
    enum status status = tree_add(&search->tree, parent, &id, err);
    if (status != STATUS_OK) {
        error_context(err, "%s", event->name);
        return status;
    }
    search->nodes[id] = node;
    search->refusals = 0;
    if (request != NULL) {
        request->node = id;
    }
    return STATUS_OK;
}

/* Node of the event, whose candidates are all over and which is still open; -1 with a problem
 * otherwise. */
static int32_t read_closing_node(const struct search *search, struct event *event)
{
    int32_t id = (int32_t)event_require_int(event, "node", 0, TREE_NODES_MAX);
    if (event->problems.count > 0) {
        return -1;
    }
    if (id >= search->tree.count || search->tree.nodes[id].state != TREE_NODE_OPEN) {
        json_problems_add(&event->problems, "/node", "found %d, allowed is an open node", (int)id);
        return -1;
    }
    const struct search_node *node = &search->nodes[id];
    for (int32_t i = 0; i < node->candidate_count; i++) {
        if (!candidate_is_over(&node->candidates[i])) {
            json_problems_add(&event->problems, "/node",
                              "found node %d with candidate %d %s, allowed are finished or failed",
                              (int)id, (int)i, candidate_state_name(node->candidates[i].state));
            return -1;
        }
    }
    return id;
}

static void close_node(struct search *search, int32_t id)
{
    const struct search_node *node = &search->nodes[id];
    if (node->best < 0) {
        tree_fail(&search->tree, id);
        return;
    }
    double value = node->candidates[node->best].validation.value;
    tree_close(&search->tree, id, search->identity.larger_is_better ? value : -value);
}

static enum status apply_node_closed(struct search *search, struct event *event, struct error *err)
{
    struct event_insights insights = {.count = 0};
    char *diagnosis = NULL;
    int32_t id = read_closing_node(search, event);
    TRY(search_read_text(&event->reader, "diagnosis", true, SEARCH_TEXT_MAX_BYTES, &search->arena,
                         &diagnosis, err));
    TRY(event_read_insights(search, event, &insights, err));
    TRY(event_check(event, err));
    TRY(event_reserve_insights(search, &insights, err));
    TRY(search_reserve_settled(search, err));

    event_take_insights(search, &insights);
    search->nodes[id].diagnosis = diagnosis;
    search->nodes[id].closed_at_s = event->time_s;
    close_node(search, id);
    search_settle(search, id, -1);
    return STATUS_OK;
}

/* ---- the table ---- */

struct event_kind {
    const char *name;
    enum status (*apply)(struct search *search, struct event *event, struct error *err);
    bool after_end;                   /* also allowed once the search has finished */
    enum search_outcome_kind outcome; /* a decision can rest on it */
};

static const struct event_kind event_kinds[] = {
    {"started", apply_started, false, SEARCH_OUTCOME_NONE},
    {"job_resolved", apply_job_resolved, true, SEARCH_OUTCOME_NONE},
    {"allocation_started", search_apply_allocation_started, true, SEARCH_OUTCOME_NONE},
    {"allocation_progress", search_apply_allocation_progress, true, SEARCH_OUTCOME_NONE},
    {"allocation_ended", search_apply_allocation_ended, true, SEARCH_OUTCOME_NONE},
    {"incident", search_apply_incident, true, SEARCH_OUTCOME_NONE},
    {"limits_set", search_apply_limits_set, true, SEARCH_OUTCOME_NONE},
    {"halted", search_apply_halted, true, SEARCH_OUTCOME_NONE},
    {"plan_requested", search_apply_plan_requested, false, SEARCH_OUTCOME_NONE},
    {"plan_dropped", search_apply_plan_dropped, false, SEARCH_OUTCOME_DROPPED},
    {"node_planned", apply_node_planned, false, SEARCH_OUTCOME_PLANNED},
    {"candidate_started", search_apply_candidate_started, false, SEARCH_OUTCOME_NONE},
    {"candidate_suspended", search_apply_candidate_suspended, false, SEARCH_OUTCOME_NONE},
    {"candidate_finished", search_apply_candidate_finished, false, SEARCH_OUTCOME_FINISHED},
    {"candidate_failed", search_apply_candidate_failed, false, SEARCH_OUTCOME_FAILED},
    {"node_closed", apply_node_closed, false, SEARCH_OUTCOME_CLOSED},
    {"weights_dropped", search_apply_weights_dropped, true, SEARCH_OUTCOME_NONE},
    {"test_scored", search_apply_test_scored, true, SEARCH_OUTCOME_NONE},
    {"finished", apply_finished, false, SEARCH_OUTCOME_NONE},
    {"call_started", search_apply_call_started, false, SEARCH_OUTCOME_NONE},
    {"call_ended", search_apply_call_ended, true, SEARCH_OUTCOME_CALL},
    {"prompts", search_apply_prompts, true, SEARCH_OUTCOME_NONE},
    {"brief", search_apply_brief, false, SEARCH_OUTCOME_BRIEF},
    {"documents", search_apply_documents, false, SEARCH_OUTCOME_DOCUMENTS},
    {"node_diagnosed", search_apply_node_diagnosed, true, SEARCH_OUTCOME_DIAGNOSED},
    {"ahead_set", search_apply_ahead_set, false, SEARCH_OUTCOME_AHEAD},
};

static const struct event_kind *find_kind(const char *name)
{
    for (size_t i = 0; i < sizeof(event_kinds) / sizeof(event_kinds[0]); i++) {
        if (strcmp(event_kinds[i].name, name) == 0) {
            return &event_kinds[i];
        }
    }
    return NULL;
}

static int32_t read_id(const cJSON *event, const char *key, double max)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(event, key);
    double value = cJSON_IsNumber(item) ? item->valuedouble : -1.0;
    return value >= 0.0 && value <= max ? (int32_t)value : -1;
}

struct search_outcome search_read_outcome(const cJSON *event)
{
    static const char *const keys[SEARCH_OUTCOME_COUNT] = {
        [SEARCH_OUTCOME_PLANNED] = "node",  [SEARCH_OUTCOME_DROPPED] = "number",
        [SEARCH_OUTCOME_FINISHED] = "node", [SEARCH_OUTCOME_FAILED] = "node",
        [SEARCH_OUTCOME_CLOSED] = "node",   [SEARCH_OUTCOME_DIAGNOSED] = "node",
        [SEARCH_OUTCOME_CALL] = "call",
    };
    struct search_outcome out = {.id = -1, .candidate = -1, .kind = SEARCH_OUTCOME_NONE};
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "event"));
    const struct event_kind *kind = name != NULL ? find_kind(name) : NULL;
    bool lost = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(event, "lost"));
    if (kind == NULL || lost) {
        return out;
    }
    out.kind = (uint8_t)kind->outcome;
    out.id = keys[kind->outcome] != NULL ? read_id(event, keys[kind->outcome], INT32_MAX) : -1;
    if (kind->outcome == SEARCH_OUTCOME_FINISHED || kind->outcome == SEARCH_OUTCOME_FAILED) {
        out.candidate = (int8_t)read_id(event, "candidate", SEARCH_CANDIDATES_MAX - 1);
    }
    return out;
}

struct search_outcome search_outcome_after(const struct search *search, int64_t before)
{
    int64_t at = before - (search->outcomes - search->order_count);
    const struct search_outcome none = {.id = -1, .candidate = -1, .kind = SEARCH_OUTCOME_NONE};
    return at >= 0 && at < search->order_count ? search->order[at] : none;
}

static enum status reserve_order(struct search *search, struct error *err)
{
    void *list = search->order;
    TRY(event_reserve(&list, search->order_count, 1, &search->order_capacity,
                      sizeof(*search->order), "outcomes", err));
    search->order = list;
    return STATUS_OK;
}

/* What every event has, and whether its kind fits the state of the search. */
static enum status read_header(const struct search *search, struct event *event,
                               const struct event_kind **kind, struct error *err)
{
    const int64_t next = search->last_sequence + 1;
    int64_t sequence = event_require_int(event, "sequence", 1, INT64_C(1) << 53);
    json_require(&event->reader, "event", "the kind of event");
    const char *name = json_read_string(&event->reader, "event", "");
    event->time_s = event_require_seconds(event, "time_s");
    snprintf(event->name, sizeof(event->name), "event %lld (%.24s)", (long long)next, name);
    TRY(event_check(event, err));
    if (sequence != next) {
        return FAIL(err, STATUS_INVALID, "%s: found sequence %lld, allowed is %lld", event->name,
                    (long long)sequence, (long long)next);
    }
    *kind = find_kind(name);
    if (*kind == NULL) {
        return FAIL(err, STATUS_INVALID, "%s: no such kind of event", event->name);
    }
    if (((*kind)->apply == apply_started) != (next == 1)) {
        return FAIL(err, STATUS_INVALID, "%s: a search begins with \"started\", once", event->name);
    }
    if (search->end == SEARCH_FINISHED && !(*kind)->after_end) {
        return FAIL(err, STATUS_INVALID, "%s: the search has finished", event->name);
    }
    return STATUS_OK;
}

enum status search_apply(struct search *search, const cJSON *object, struct error *err)
{
    struct event event = {.object = object, .name = "event"};
    const struct event_kind *kind = NULL;
    json_problems_init(&event.problems);
    json_reader_init(&event.reader, object, "", &event.problems);
    const struct search_outcome outcome = search_read_outcome(object);
    enum status status = read_header(search, &event, &kind, err);
    if (status == STATUS_OK && outcome.kind != SEARCH_OUTCOME_NONE) {
        status = reserve_order(search, err);
    }
    if (status == STATUS_OK) {
        status = kind->apply(search, &event, err);
    }
    if (status == STATUS_OK) {
        search->last_sequence++;
    }
    if (status == STATUS_OK && outcome.kind != SEARCH_OUTCOME_NONE) {
        search->order[search->order_count++] = outcome;
        search->outcomes++;
    }
    json_problems_fini(&event.problems);
    return status;
}
