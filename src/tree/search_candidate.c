/* Events of candidates: started, suspended, finished, failed, and what comes after. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tree/search_event.h"

static const unsigned ACTIVE_STATES = EVENT_STATE(CANDIDATE_PLANNED) |
                                      EVENT_STATE(CANDIDATE_RUNNING) |
                                      EVENT_STATE(CANDIDATE_SUSPENDED);

struct candidate *event_candidate(struct search *search, struct event *event, unsigned states,
                                  int32_t *node_id)
{
    int32_t id = (int32_t)event_require_int(event, "node", 0, TREE_NODES_MAX);
    int32_t index = (int32_t)event_require_int(event, "candidate", 0, SEARCH_CANDIDATES_MAX - 1);
    if (event->problems.count > 0) {
        return NULL;
    }
    if (id >= search->tree.count || index >= search->nodes[id].candidate_count) {
        json_problems_add(&event->problems, "/candidate", "node %d candidate %d does not exist",
                          (int)id, (int)index);
        return NULL;
    }
    struct candidate *candidate = &search->nodes[id].candidates[index];
    if ((EVENT_STATE(candidate->state) & states) == 0) {
        json_problems_add(&event->problems, "/candidate",
                          "node %d candidate %d is %s, which does not allow this event", (int)id,
                          (int)index, candidate_state_name(candidate->state));
        return NULL;
    }
    *node_id = id;
    return candidate;
}

enum status search_apply_candidate_started(struct search *search, struct event *event,
                                           struct error *err)
{
    int32_t id = -1;
    struct candidate *candidate = event_candidate(search, event, ACTIVE_STATES, &id);
    json_read_int(&event->reader, "rank", 0, 0, INT32_MAX);
    if (candidate != NULL && candidate->attempts >= SEARCH_ATTEMPTS_MAX) {
        json_problems_add(&event->problems, "/candidate",
                          "was running %d times when its job died and is not started again",
                          (int)candidate->attempts);
    }
    if (candidate != NULL && candidate->kills >= SEARCH_KILLS_MAX) {
        json_problems_add(&event->problems, "/candidate",
                          "has ended its rank %d times and is not started again",
                          (int)candidate->kills);
    }
    TRY(event_check(event, err));
    candidate->state = CANDIDATE_RUNNING;
    candidate->attempts++;
    return STATUS_OK;
}

static void add_cost(struct search *search, struct candidate *candidate, double rank_seconds)
{
    double core_seconds = 0.0;
    double gpu_seconds = 0.0;
    search_add_cost(search, rank_seconds, &core_seconds, &gpu_seconds);
    candidate->rank_seconds += rank_seconds;
    candidate->core_seconds += core_seconds;
    candidate->gpu_seconds += gpu_seconds;
}

enum status search_apply_candidate_suspended(struct search *search, struct event *event,
                                             struct error *err)
{
    int32_t id = -1;
    struct candidate *candidate =
        event_candidate(search, event, EVENT_STATE(CANDIDATE_RUNNING), &id);
    int64_t steps = event_require_int(event, "steps_done", 0, INT64_C(1) << 53);
    double rank_seconds = event_require_seconds(event, "rank_seconds");
    TRY(event_check(event, err));
    candidate->state = CANDIDATE_SUSPENDED;
    candidate->attempts = 0;
    candidate->steps_done = steps;
    add_cost(search, candidate, rank_seconds);
    return STATUS_OK;
}

/* Moves what was measured into the candidate, which keeps its configuration and what it has cost so
 * far. */
static void take_result(struct search *search, struct candidate *candidate,
                        const struct candidate *result)
{
    struct candidate before = *candidate;
    *candidate = *result;
    candidate->config = before.config;
    candidate->kills = before.kills;
    candidate->rank_seconds = before.rank_seconds;
    candidate->core_seconds = before.core_seconds;
    candidate->gpu_seconds = before.gpu_seconds;
    candidate->state = CANDIDATE_FINISHED;
    candidate->attempts = 0;
    add_cost(search, candidate, result->rank_seconds);
}

static void update_best(const struct search *search, struct search_node *node)
{
    node->best = -1;
    for (int32_t i = 0; i < node->candidate_count; i++) {
        const struct candidate *candidate = &node->candidates[i];
        if (candidate->state == CANDIDATE_FINISHED &&
            (node->best < 0 || search_value_better(candidate->validation.value,
                                                   node->candidates[node->best].validation.value,
                                                   search->identity.larger_is_better))) {
            node->best = i;
        }
    }
}

enum status search_apply_candidate_finished(struct search *search, struct event *event,
                                            struct error *err)
{
    struct candidate result = {0};
    char *report = NULL;
    int32_t id = -1;
    struct candidate *candidate =
        event_candidate(search, event, EVENT_STATE(CANDIDATE_RUNNING), &id);
    json_require(&event->reader, "result", "an object");
    const cJSON *object = json_read_object(&event->reader, "result");
    if (object != NULL) {
        TRY(search_result_read(object, "/result", &event->problems, &search->arena, &result,
                               &report, err));
    }
    result.weights_kept = json_read_bool(&event->reader, "weights_kept", false);
    TRY(event_check(event, err));
    TRY(search_reserve_settled(search, err));

    take_result(search, candidate, &result);
    struct search_node *node = &search->nodes[id];
    if (node->recipe_report == NULL) {
        node->recipe_report = report;
    }
    update_best(search, node);
    search_settle(search, id, (int32_t)(candidate - node->candidates));
    return STATUS_OK;
}

/* The error of a failed candidate, into zeroed memory. Its code is a name ("STATUS_DIVERGED") or a
 * number. */
static void read_error(struct event *event, struct error *out)
{
    json_require(&event->reader, "error", "an object");
    struct json_reader reader;
    json_reader_init(&reader, json_read_object(&event->reader, "error"), "/error",
                     &event->problems);
    const cJSON *code = json_read_any(&reader, "code");
    out->code = STATUS_INTERNAL;
    if (cJSON_IsString(code)) {
        for (int i = 0; i < STATUS_COUNT; i++) {
            if (strcmp(status_name((enum status)i), code->valuestring) == 0) {
                out->code = (enum status)i;
            }
        }
    } else {
        out->code =
            (enum status)json_read_int(&reader, "code", STATUS_INTERNAL, 0, STATUS_COUNT - 1);
    }
    out->line = (int)json_read_int(&reader, "line", 0, 0, INT32_MAX);
    out->rank = (int)json_read_int(&reader, "rank", -1, -1, INT32_MAX);
    snprintf(out->file, sizeof(out->file), "%s", json_read_string(&reader, "file", ""));
    snprintf(out->message, sizeof(out->message), "%s", json_read_string(&reader, "message", ""));
}

enum status search_apply_candidate_failed(struct search *search, struct event *event,
                                          struct error *err)
{
    int32_t id = -1;
    char *log_tail = NULL;
    struct candidate *candidate = event_candidate(search, event, ACTIVE_STATES, &id);
    double rank_seconds =
        json_read_number(&event->reader, "rank_seconds", 0.0, 0.0, SEARCH_SECONDS_MAX);
    struct error *error = arena_alloc(&search->arena, 1, sizeof(*error));
    if (error == NULL) {
        return mem_fail(err, sizeof(*error), "the error of a candidate");
    }
    read_error(event, error);
    TRY(search_read_text(&event->reader, "log_tail", false, SEARCH_TEXT_MAX_BYTES, &search->arena,
                         &log_tail, err));
    TRY(event_check(event, err));
    TRY(search_reserve_settled(search, err));
    candidate->state = CANDIDATE_FAILED;
    candidate->error = error;
    candidate->log_tail = log_tail;
    add_cost(search, candidate, rank_seconds);
    search_settle(search, id, (int32_t)(candidate - search->nodes[id].candidates));
    return STATUS_OK;
}

enum status search_apply_weights_dropped(struct search *search, struct event *event,
                                         struct error *err)
{
    int32_t id = -1;
    struct candidate *candidate =
        event_candidate(search, event, EVENT_STATE(CANDIDATE_FINISHED), &id);
    if (candidate != NULL && !candidate->weights_kept) {
        json_problems_add(&event->problems, "/candidate", "its weights were not kept");
    }
    TRY(event_check(event, err));
    candidate->weights_kept = false;
    return STATUS_OK;
}

enum status search_apply_test_scored(struct search *search, struct event *event, struct error *err)
{
    int32_t id = -1;
    struct search_score score;
    struct candidate *candidate =
        event_candidate(search, event, EVENT_STATE(CANDIDATE_FINISHED), &id);
    if (candidate != NULL && candidate->test.present) {
        json_problems_add(&event->problems, "/candidate", "its test score is already known");
    }
    json_require(&event->reader, "score", "a score object");
    search_score_read(json_read_object(&event->reader, "score"), "/score", &event->problems,
                      &score);
    TRY(event_check(event, err));
    candidate->test = score;
    return STATUS_OK;
}
