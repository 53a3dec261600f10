#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run/controller_state.h"

const char *controller_budget_spent(const struct controller *c)
{
    const struct search *search = &c->search;
    double core_hours = controller_limit(c, SEARCH_LIMIT_CORE_HOURS);
    double gpu_hours = controller_limit(c, SEARCH_LIMIT_GPU_HOURS);
    double goal = controller_limit(c, SEARCH_LIMIT_GOAL_SCORE);
    if (core_hours > 0.0 && search->core_seconds / 3600.0 >= core_hours) {
        return "the core-hours are spent";
    }
    if (gpu_hours > 0.0 && search->gpu_seconds / 3600.0 >= gpu_hours) {
        return "the GPU-hours are spent";
    }
    int32_t node = -1;
    int32_t candidate = -1;
    if (isfinite(goal) && search_best(search, &node, &candidate)) {
        double value = search->nodes[node].candidates[candidate].validation.value;
        bool reached = search->identity.larger_is_better ? value >= goal : value <= goal;
        if (reached) {
            return "the goal score is reached";
        }
    }
    return NULL;
}

bool controller_idle(const struct controller *c)
{
    return c->open_count == 0 && c->plans_pending == 0 && c->first_pending == NULL &&
           c->held == NULL && c->ready_first == c->ready_count && c->busy_count == 0;
}

/* Decides that the search ends; candidates that wait are dropped, running ones finish. */
static enum status decide_end(struct controller *c, struct error *err)
{
    const struct search *search = &c->search;
    if (c->end_reason != NULL || search->tree.count == 0 || !controller_knows_limits(c)) {
        return STATUS_OK;
    }
    const char *spent = controller_budget_spent(c);
    if (spent != NULL && search->tree.nodes[0].state == TREE_NODE_CLOSED) {
        c->end_reason = spent;
        return controller_drop_ready(c, spent, err);
    }
    if (!controller_idle(c)) {
        return STATUS_OK;
    }
    if (search->tree.nodes[0].state == TREE_NODE_FAILED) {
        c->end_reason = "the baseline could not be evaluated";
    } else if (search->tree.count - 1 >= (int64_t)controller_limit(c, SEARCH_LIMIT_ROUNDS)) {
        c->end_reason = "all rounds are done";
    } else if (c->dry) {
        c->end_reason = "nothing more to propose";
    }
    return STATUS_OK;
}

/* Sends one candidate to be scored on the test split, if it has not been. */
static enum status send_test(struct controller *c, int32_t node, int32_t candidate, bool *sent,
                             struct error *err)
{
    if (*sent || c->search.nodes[node].candidates[candidate].test.present) {
        *sent = true;
        return STATUS_OK;
    }
    if (c->search.nodes[node].candidates[candidate].kills >= SEARCH_KILLS_MAX) {
        *sent = true; /* whatever kills its rank is not worth the search's end */
        return controller_incident(c, "no test", err,
                                   "n%04d-c%d is not scored on the test split: it has ended its "
                                   "rank %d times",
                                   node, candidate, SEARCH_KILLS_MAX);
    }
    if (!controller_admits_test(c, node, candidate)) {
        c->refused = true;
        return STATUS_OK;
    }
    if (controller_free_worker(c) < 0) {
        return STATUS_OK;
    }
    *sent = true;
    c->fresh = false;
    return controller_send_order(c, WORK_TEST, node, candidate, err);
}

static enum status record_finish(struct controller *c, struct error *err)
{
    TRY(controller_end_agents(c, err));
    TRY(controller_record_end(c, "finished", NAN, NAN, err));
    cJSON *event = controller_event("finished", -1, -1);
    cJSON_AddStringToObject(event, "reason", c->end_reason);
    cJSON_AddNumberToObject(event, "winner_node", c->winner_node);
    cJSON_AddNumberToObject(event, "winner_candidate", c->winner_candidate);
    c->finish_recorded = true;
    return controller_emit(c, event, err);
}

enum status controller_finish(struct controller *c, struct error *err)
{
    TRY(decide_end(c, err));
    if (c->end_reason == NULL || c->stopping || c->finish_recorded) {
        return STATUS_OK;
    }
    bool rounds_open = c->open_count > 0 || c->plans_pending > 0 || c->ready_first < c->ready_count;
    if (rounds_open || c->first_pending != NULL || c->held != NULL) {
        return STATUS_OK;
    }
    if (!search_best(&c->search, &c->winner_node, &c->winner_candidate)) {
        c->winner_node = -1;
        c->winner_candidate = -1;
        return record_finish(c, err);
    }
    c->refused = false;
    /* The test split is read here and nowhere else: once for the baseline, once for the winner. */
    if (c->search.nodes[0].best == 0) {
        TRY(send_test(c, 0, 0, &c->test_root_sent, err));
    }
    if (c->winner_node > 0) {
        TRY(send_test(c, c->winner_node, c->winner_candidate, &c->test_winner_sent, err));
    } else {
        c->test_winner_sent = true;
    }
    bool all_sent = c->test_root_sent && c->test_winner_sent;
    if (all_sent && c->busy_count == 0 && c->first_pending == NULL) {
        return record_finish(c, err);
    }
    return STATUS_OK;
}
