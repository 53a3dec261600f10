#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "run/controller_state.h"

static const double time_record_interval_s = 60.0;

cJSON *controller_event(const char *kind, int32_t node, int32_t candidate)
{
    cJSON *event = cJSON_CreateObject();
    cJSON_AddStringToObject(event, "event", kind);
    if (node >= 0) {
        cJSON_AddNumberToObject(event, "node", node);
    }
    if (candidate >= 0) {
        cJSON_AddNumberToObject(event, "candidate", candidate);
    }
    return event;
}

void controller_add_text(cJSON *event, const char *key, const char *text)
{
    size_t length = strlen(text);
    char *whole = mem_calloc(3 * length + 1, 1);
    if (whole != NULL) {
        text_repair(text, length, whole);
    }
    cJSON_AddStringToObject(event, key, whole != NULL ? whole : "");
    free(whole);
}

cJSON *controller_failure(int32_t node, int32_t candidate, const struct error *failure,
                          const char *log_tail, double rank_seconds)
{
    cJSON *event = controller_event("candidate_failed", node, candidate);
    cJSON *error = cJSON_AddObjectToObject(event, "error");
    cJSON_AddStringToObject(error, "code", status_name(failure->code));
    controller_add_text(error, "message", failure->message);
    cJSON_AddStringToObject(error, "file", failure->file);
    cJSON_AddNumberToObject(error, "line", failure->line);
    cJSON_AddNumberToObject(error, "rank", failure->rank);
    controller_add_text(event, "log_tail", log_tail);
    cJSON_AddNumberToObject(event, "rank_seconds", rank_seconds);
    return event;
}

/* A node is the next after those that are recorded, or on their way to the disk. */
static void number_node(struct controller *c, cJSON *event)
{
    const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "event"));
    if (kind != NULL && strcmp(kind, "node_planned") == 0) {
        cJSON_AddNumberToObject(event, "node", c->search.tree.count + c->planning);
        c->planning++;
    }
}

enum status controller_emit(struct controller *c, cJSON *event, struct error *err)
{
    if (event != NULL && controller_must_hold(c, event)) {
        return controller_hold(c, event, err);
    }
    TRY(controller_write(c, event, err));
    return c->held != NULL ? controller_release(c, err) : STATUS_OK;
}

enum status controller_write(struct controller *c, cJSON *event, struct error *err)
{
    struct pending_event *pending = mem_calloc(1, sizeof(*pending));
    if (event == NULL || pending == NULL) {
        cJSON_Delete(event);
        free(pending);
        return mem_fail(err, sizeof(*pending), "an event");
    }
    number_node(c, event);
    cJSON_AddNumberToObject(event, "sequence", (double)c->next_sequence);
    cJSON_AddNumberToObject(event, "time_s", clock_wall_s());
    pending->sequence = c->next_sequence;
    pending->written_s = clock_monotonic_s();
    pending->outcome = search_read_outcome(event).kind != SEARCH_OUTCOME_NONE;
    enum status status = journal_append(c->journal, event, err);
    if (status != STATUS_OK) {
        free(pending);
        return status;
    }
    c->next_sequence++;
    c->pending_outcomes += pending->outcome;
    if (c->last_pending != NULL) {
        c->last_pending->next = pending;
    } else {
        c->first_pending = pending;
    }
    c->last_pending = pending;
    return STATUS_OK;
}

/* ---- what follows from an event that is on disk ---- */

static enum status remove_state_file(struct controller *c, int32_t node, int32_t candidate,
                                     struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(store_inflight_path(c->options.job->output, node, candidate, path, err));
    return file_remove(path, err);
}

static enum status after_planned(struct controller *c, int32_t node, struct error *err)
{
    controller_end_request(c, c->search.tree.nodes[node].parent);
    c->planning--;
    c->open_count++;
    const struct search_node *planned = &c->search.nodes[node];
    c->unfinished += planned->candidate_count;
    for (int32_t k = 0; k < planned->candidate_count; k++) {
        TRY(controller_push_ready(c, node, k, err));
    }
    char name[SEARCH_NAME_BYTES];
    search_candidate_name(node, 0, name);
    log_write(c->options.log, LOG_INFO, "run", "%.5s  %s", name, planned->goal);
    return STATUS_OK;
}

static int32_t number(const cJSON *event, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(event, key);
    return cJSON_IsNumber(value) ? (int32_t)value->valuedouble : -1;
}

/* Where a limit of time counts, the last training's own speed is the best guess for the next. */
static void update_speed(struct controller *c, const struct candidate *candidate)
{
    if (c->options.job->candidate_seconds <= 0.0 || candidate->curve_count == 0) {
        return;
    }
    const struct search_curve_point *last = &candidate->curve[candidate->curve_count - 1];
    if (last->seconds > 0.0 && last->tokens > 0) {
        c->facts.tokens_per_second = (double)last->tokens / last->seconds;
    }
}

static enum status after_event(struct controller *c, const cJSON *event, struct error *err)
{
    const char *kind = cJSON_GetObjectItemCaseSensitive(event, "event")->valuestring;
    int32_t node = number(event, "node");
    int32_t candidate = number(event, "candidate");
    if (strcmp(kind, "plan_requested") == 0) {
        c->requesting--;
    }
    if (strcmp(kind, "plan_dropped") == 0) {
        controller_end_request(c, c->search.requests[number(event, "number") - 1].parent);
    }
    if (strcmp(kind, "node_planned") == 0) {
        return after_planned(c, node, err);
    }
    if (strcmp(kind, "candidate_finished") == 0) {
        c->unfinished--;
        controller_report_candidate(c, node, candidate);
        update_speed(c, &c->search.nodes[node].candidates[candidate]);
        controller_learn_ahead(c, node, &c->search.nodes[node].candidates[candidate]);
        TRY(remove_state_file(c, node, candidate, err));
        TRY(controller_look_at_round(c, node, err));
        return controller_keep_weights(c, node, candidate, err);
    }
    if (strcmp(kind, "candidate_failed") == 0) {
        c->unfinished--;
        controller_report_candidate(c, node, candidate);
        TRY(controller_look_at_round(c, node, err));
        return remove_state_file(c, node, candidate, err);
    }
    if (strcmp(kind, "weights_dropped") == 0) {
        return controller_drop_weights(c, node, candidate, err);
    }
    if (strcmp(kind, "node_closed") == 0) {
        c->closing--;
        c->open_count--;
        controller_report(c, true);
    }
    if (strcmp(kind, "call_ended") == 0) { /* a step on the way to a plan */
        requests_hear(&c->requests, clock_monotonic_s());
    }
    if (strcmp(kind, "ahead_set") == 0) {
        c->setting_ahead = false;
    }
    if (strcmp(kind, "limits_set") == 0) {
        controller_limits_set(c);
    }
    return STATUS_OK;
}

/* Decisions, the agents' too, are taken after each event that they can rest on, however many
 * reached the disk at once: they are the same whenever a turn comes. */
static enum status decide(struct controller *c, struct error *err)
{
    if (c->stopping) {
        return STATUS_OK;
    }
    TRY(controller_replay_answers(c, err));
    TRY(controller_set_ahead(c, err));
    TRY(controller_close_rounds(c, err));
    TRY(controller_plan(c, err));
    TRY(controller_turn_researcher(c, err));
    TRY(controller_collect_plans(c, err));
    return controller_check_trials(c, err);
}

enum status controller_apply_durable(struct controller *c, struct error *err)
{
    int64_t durable = 0;
    TRY(journal_durable(c->journal, &durable, err));
    if (c->first_pending != NULL && c->first_pending->sequence <= durable) {
        c->journal_s = fmax(c->journal_s, clock_monotonic_s() - c->first_pending->written_s);
    }
    while (c->first_pending != NULL && c->first_pending->sequence <= durable) {
        struct pending_event *pending = c->first_pending;
        cJSON *event = journal_take(c->journal);
        enum status status = search_apply(&c->search, event, err);
        if (status == STATUS_OK) {
            status = after_event(c, event, err);
        }
        bool outcome = pending->outcome;
        c->pending_outcomes -= outcome;
        c->first_pending = pending->next;
        if (c->first_pending == NULL) {
            c->last_pending = NULL;
        }
        cJSON_Delete(event);
        free(pending);
        TRY(status);
        if (outcome) {
            TRY(decide(c, err));
        }
    }
    return STATUS_OK;
}

enum status controller_record_time(struct controller *c, struct error *err)
{
    cJSON *event = controller_event("allocation_progress", -1, -1);
    c->recorded_time_s = clock_monotonic_s();
    cJSON_AddNumberToObject(event, "seconds", c->recorded_time_s - c->started_s);
    return controller_emit(c, event, err);
}

enum status controller_record_end(struct controller *c, const char *reason, double predicted_s,
                                  double safe_s, struct error *err)
{
    TRY(controller_record_time(c, err));
    cJSON *event = controller_event("allocation_ended", -1, -1);
    cJSON_AddStringToObject(event, "reason", reason);
    if (!isnan(predicted_s)) {
        cJSON_AddNumberToObject(event, "predicted_s", predicted_s);
    }
    if (!isnan(safe_s)) {
        cJSON_AddNumberToObject(event, "safe_s", safe_s);
    }
    return controller_emit(c, event, err);
}

/* A run.h5 that cannot be written is no reason to end: the journal has everything. Only a folder
 * that is another's by now is. */
static enum status tolerate(struct controller *c, const struct error *failure, struct error *err)
{
    if (failure->code == STATUS_OK) {
        return STATUS_OK;
    }
    if (failure->code == STATUS_BUSY) {
        *err = *failure;
        return failure->code;
    }
    c->snapshot_sequence = -1;
    if (c->disk_told) {
        return STATUS_OK;
    }
    c->disk_told = true;
    return controller_incident(
        c, "disk", err, "run.h5 could not be written, the journal goes on: %s", failure->message);
}

static void start_snapshot(struct controller *c, double time_s)
{
    if (snapshot_start(c->snapshot, c->search.last_sequence)) {
        c->snapshot_at_s = time_s;
        c->snapshot_sequence = c->search.last_sequence;
    }
}

enum status controller_snapshot(struct controller *c, struct error *err)
{
    double time_s = clock_monotonic_s();
    struct error failure = {0};
    (void)snapshot_check(c->snapshot, &failure);
    TRY(tolerate(c, &failure, err));
    if (time_s - c->recorded_time_s >= time_record_interval_s && !c->finish_recorded) {
        TRY(controller_record_time(c, err));
    }
    double interval_s = limit_snapshot_interval_s(snapshot_seconds(c->snapshot));
    if (time_s - c->snapshot_at_s >= interval_s &&
        c->search.last_sequence != c->snapshot_sequence) {
        start_snapshot(c, time_s);
    }
    return STATUS_OK;
}

enum status controller_last_snapshot(struct controller *c, struct error *err)
{
    struct error failure = {0};
    (void)snapshot_wait(c->snapshot, &failure);
    TRY(tolerate(c, &failure, err));
    if (c->snapshot_sequence != c->search.last_sequence) {
        TRY(journal_flush(c->journal, err));
        TRY(controller_apply_durable(c, err));
        start_snapshot(c, clock_monotonic_s());
        failure.code = STATUS_OK;
        (void)snapshot_wait(c->snapshot, &failure);
        TRY(tolerate(c, &failure, err));
    }
    return journal_flush(c->journal, err);
}
