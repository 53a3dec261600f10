#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/json.h"
#include "base/mem.h"
#include "run/controller_state.h"

enum {
    REFUSALS_MAX = 5, /* plans in a row that cannot run: then there is nothing more to propose */
};

/* ---- closing a round ---- */

static bool all_done(const struct search_node *node)
{
    for (int32_t k = 0; k < node->candidate_count; k++) {
        enum candidate_state state = node->candidates[k].state;
        if (state != CANDIDATE_FINISHED && state != CANDIDATE_FAILED) {
            return false;
        }
    }
    return true;
}

enum status controller_look_at_round(struct controller *c, int32_t node, struct error *err)
{
    if (!all_done(&c->search.nodes[node])) {
        return STATUS_OK;
    }
    if (c->settled_count == c->settled_capacity) {
        int32_t capacity = c->settled_capacity > 0 ? c->settled_capacity * 2 : 16;
        int32_t *grown = mem_realloc(c->settled, (size_t)capacity, sizeof(*grown));
        if (grown == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*grown), "rounds to close");
        }
        c->settled = grown;
        c->settled_capacity = capacity;
    }
    c->settled[c->settled_count++] = node;
    return STATUS_OK;
}

static enum status close_round(struct controller *c, int32_t node, struct error *err)
{
    char *diagnosis = NULL;
    cJSON *insights = NULL;
    TRY(researcher_diagnose(c->researcher, &c->search, node, &diagnosis, &insights, err));
    cJSON *event = controller_event("node_closed", node, -1);
    cJSON_AddStringToObject(event, "diagnosis", diagnosis);
    cJSON_AddItemToObject(event, "insights", insights);
    free(diagnosis);
    c->closing++;
    return controller_emit(c, event, err);
}

enum status controller_close_rounds(struct controller *c, struct error *err)
{
    for (int32_t i = 0; i < c->settled_count; i++) {
        TRY(close_round(c, c->settled[i], err));
    }
    c->settled_count = 0;
    return STATUS_OK;
}

/* ---- planning ---- */

/* Scores that differ by less than two standard errors of the baseline are noise. */
static double reward_noise(const struct search *search)
{
    const struct search_score *score = &search->nodes[0].candidates[0].validation;
    return score->present && isfinite(score->standard_error) ? 2.0 * score->standard_error : 0.0;
}

/* Whether what is planned, and what the plans that were asked for will bring, is less than what
 * keeps the workers busy. It depends on applied events alone, and not on which worker has its next
 * order already. */
static bool wants_plan(const struct controller *c)
{
    int64_t coming = (int64_t)c->plans_pending * c->options.job->configurations;
    return c->unfinished + coming < c->options.leader_count + controller_ahead(c);
}

bool controller_may_plan(const struct controller *c)
{
    const struct job *job = c->options.job;
    int64_t rounds = c->search.tree.count - 1 + c->plans_pending;
    int64_t open = c->open_count + c->plans_pending;
    return !c->stopping && c->end_reason == NULL && !c->dry && !c->no_new_rounds &&
           controller_knows_limits(c) &&
           rounds < (int64_t)controller_limit(c, SEARCH_LIMIT_ROUNDS) &&
           (job->parallel_nodes == 0 || open < job->parallel_nodes);
}

/* The plan holds its place in the tree until its request has ended. */
static enum status await_plan(struct controller *c, int32_t parent, int32_t number,
                              struct error *err)
{
    const struct request request = {parent, number, clock_monotonic_s()};
    TRY(researcher_request(c->researcher, &c->search, parent, number, err));
    TRY(requests_add(&c->requests, &request, err));
    if (parent >= 0) {
        tree_pending(&c->search.tree, parent, +1);
    }
    c->plans_pending++;
    return STATUS_OK;
}

int32_t controller_requests(const struct controller *c)
{
    return c->search.request_count + c->requesting;
}

enum status controller_request_plan(struct controller *c, int32_t parent, struct error *err)
{
    int32_t number = controller_requests(c) + 1;
    cJSON *event = controller_event("plan_requested", -1, -1);
    cJSON_AddNumberToObject(event, "number", number);
    cJSON_AddNumberToObject(event, "parent", parent);
    cJSON_AddNumberToObject(event, "outcomes", (double)c->search.outcomes);
    TRY(controller_emit(c, event, err));
    c->requesting++;
    return await_plan(c, parent, number, err);
}

enum status controller_recover_plans(struct controller *c, struct error *err)
{
    for (int32_t i = 0; i < c->search.request_count; i++) {
        const struct search_request *request = &c->search.requests[i];
        if (search_request_is_open(request)) {
            TRY(await_plan(c, request->parent, i + 1, err));
        }
    }
    c->dry = c->search.refusals >= REFUSALS_MAX;
    return STATUS_OK;
}

static enum status plan_baseline(struct controller *c, struct error *err)
{
    bool wanted = c->plans_pending == 0 && !c->stopping && c->search.last_sequence > 0;
    return wanted ? await_plan(c, -1, 0, err) : STATUS_OK;
}

static int32_t select_parent(const struct controller *c)
{
    const struct search *search = &c->search;
    const struct tree_policy_options options = {
        .exploration = c->options.job->exploration,
        .max_children = c->options.job->max_children,
        .noise = reward_noise(search),
    };
    struct rng rng;
    rng_init(&rng, c->options.job->seed, (uint64_t)(search->tree.count + c->plans_pending));
    return controller_requests(c) < SEARCH_REQUESTS_MAX
               ? c->options.job->policy->select(&search->tree, &options, &rng)
               : -1;
}

static enum status plan_rounds(struct controller *c, struct error *err)
{
    while (wants_plan(c) && controller_may_plan(c)) {
        int32_t parent = select_parent(c);
        if (parent < 0) {
            c->dry = c->open_count == 0 && c->plans_pending == 0;
            return STATUS_OK;
        }
        TRY(controller_request_plan(c, parent, err));
    }
    return STATUS_OK;
}

enum status controller_plan(struct controller *c, struct error *err)
{
    const struct search *search = &c->search;
    if (c->options.prefetch) {
        return STATUS_OK;
    }
    if (search->tree.count == 0) {
        return plan_baseline(c, err);
    }
    bool ready = search->tree.nodes[0].state == TREE_NODE_CLOSED && c->closing == 0 &&
                 researcher_is_prepared(c->researcher, search);
    if (!ready) {
        return STATUS_OK;
    }
    return controller_follows_plans(c) ? controller_plan_as_recorded(c, err) : plan_rounds(c, err);
}

/* ---- what comes of it ---- */

static cJSON *planned_event(const struct plan *plan, const char *changes)
{
    cJSON *event = controller_event("node_planned", -1, -1); /* its node: controller_emit */
    cJSON_AddNumberToObject(event, "parent", plan->parent);
    if (plan->number > 0) {
        cJSON_AddNumberToObject(event, "number", plan->number);
    }
    cJSON_AddStringToObject(event, "strategy", plan->strategy);
    cJSON_AddStringToObject(event, "goal", plan->goal);
    struct buffer rationale;
    buffer_init(&rationale, 64 << 10);
    buffer_printf(&rationale, "%s%s%s", plan->rationale, changes[0] != '\0' ? "\nExecutor: " : "",
                  changes);
    cJSON_AddStringToObject(event, "rationale", buffer_text(&rationale));
    buffer_fini(&rationale);
    cJSON_AddItemToObject(event, "recipe", cJSON_Duplicate(plan->recipe, true));
    cJSON *configs = cJSON_AddArrayToObject(event, "configs");
    for (int i = 0; i < plan->config_count; i++) {
        cJSON_AddItemToArray(configs, cJSON_Duplicate(plan->configs[i], true));
    }
    cJSON_AddStringToObject(event, "researcher", plan->researcher);
    return event;
}

void controller_end_request(struct controller *c, int32_t parent)
{
    if (parent >= 0) {
        tree_pending(&c->search.tree, parent, -1);
    }
    c->plans_pending--;
    c->dry = c->dry || c->search.refusals >= REFUSALS_MAX;
}

enum status controller_drop_plan(struct controller *c, int32_t number, const char *why,
                                 bool refused, struct error *err)
{
    if (number == 0) {
        return FAIL(err, STATUS_INTERNAL, "no baseline: %s", why);
    }
    log_write(c->options.log, refused ? LOG_WARNING : LOG_INFO, "run", "plan %d is dropped: %s",
              (int)number, why);
    cJSON *event = controller_event("plan_dropped", -1, -1);
    cJSON_AddNumberToObject(event, "number", number);
    controller_add_text(event, "why", why);
    cJSON_AddBoolToObject(event, "refused", refused);
    return controller_emit(c, event, err);
}

enum status controller_record_plan(struct controller *c, const struct plan *plan,
                                   const char *changes, double asked_s, struct error *err)
{
    ahead_learn_latency(&c->ahead, clock_monotonic_s() - asked_s);
    return controller_emit(c, planned_event(plan, changes), err);
}

enum status controller_collect_plans(struct controller *c, struct error *err)
{
    struct plan plan;
    memset(&plan, 0, sizeof(plan));
    while (researcher_poll(c->researcher, &plan)) {
        struct error lost;
        double asked_s = 0.0;
        bool awaited = fault_point("run.controller.plan", &lost) == STATUS_OK &&
                       requests_take(&c->requests, plan.number, &asked_s);
        enum status status = awaited ? controller_take_plan(c, &plan, asked_s, err) : STATUS_OK;
        plan_fini(&plan);
        memset(&plan, 0, sizeof(plan));
        TRY(status);
    }
    return STATUS_OK;
}
