/* Plans of a language model, from their arrival until they are nodes: checked by the Executor, run
 * dry on a worker, sent back for repair where they fail. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "run/controller_state.h"

enum { CHANGES_MAX_BYTES = 16 << 10 };

/* A plan that waits for its dry run. */
struct trial {
    struct plan plan;
    char key[SEARCH_CALL_KEY_BYTES];
    struct buffer changes; /* by the Executor */
    double asked_s;        /* when the plan was asked for, monotonic */
    struct trial *next;
};

static void destroy(struct trial *trial)
{
    plan_fini(&trial->plan);
    buffer_fini(&trial->changes);
    free(trial);
}

void controller_close_trials(struct controller *c)
{
    while (c->trials != NULL) {
        struct trial *next = c->trials->next;
        destroy(c->trials);
        c->trials = next;
    }
}

int controller_count_trials(const struct controller *c)
{
    int count = 0;
    for (const struct trial *trial = c->trials; trial != NULL; trial = trial->next) {
        count++;
    }
    return count;
}

enum status controller_drop_trial(struct controller *c, const char *why, struct error *err)
{
    struct trial **link = &c->trials;
    while ((*link)->next != NULL) {
        link = &(*link)->next;
    }
    struct trial *last = *link;
    int32_t number = last->plan.number;
    *link = NULL;
    destroy(last);
    return controller_drop_plan(c, number, why, false, err);
}

/* ---- plans that cannot run ---- */

/* Another one for it, repaired; or none. Takes the plan. */
static enum status send_back(struct controller *c, struct plan *plan, const char *problem,
                             double asked_s, struct error *err)
{
    const struct request request = {plan->parent, plan->number, asked_s};
    struct error refused = {0};
    if (!plan->by_model) {
        return controller_drop_plan(c, request.number, problem, true, err);
    }
    log_write(c->options.log, LOG_INFO, "run", "plan %d, below n%04d, cannot run: %s",
              (int)request.number, (int)request.parent, problem);
    enum status status = researcher_revise(c->researcher, &c->search, plan, problem, &refused);
    memset(plan, 0, sizeof(*plan));
    if (status == STATUS_UNSUPPORTED) {
        return controller_drop_plan(c, request.number, problem, true, err);
    }
    if (status != STATUS_OK) {
        *err = refused;
        return status;
    }
    return requests_add(&c->requests, &request, err);
}

/* With `sure`, what passes counts as tried from now on. */
static enum status check(struct controller *c, struct plan *plan, bool sure, struct buffer *changes,
                         bool *fits, struct error *refused, struct error *err)
{
    *fits = plan->parent < 0; /* the baseline */
    if (*fits) {
        return STATUS_OK;
    }
    struct plan_set tried;
    struct plan_set *set = &c->tried;
    plan_set_init(&tried);
    if (!sure) {
        TRY(plan_set_copy(&c->tried, &tried, err));
        set = &tried;
    }
    *fits = executor_check(plan, set, &c->facts, &c->limits, changes, refused) == STATUS_OK;
    plan_set_fini(&tried);
    return STATUS_OK;
}

/* ---- dry runs ---- */

static cJSON *body_of(const struct plan *plan)
{
    cJSON *body = cJSON_CreateObject();
    cJSON_AddItemToObject(body, "recipe", cJSON_Duplicate(plan->recipe, true));
    cJSON *configs = cJSON_AddArrayToObject(body, "configs");
    for (int i = 0; i < plan->config_count; i++) {
        cJSON_AddItemToArray(configs, cJSON_Duplicate(plan->configs[i], true));
    }
    return body;
}

/* What is run stands in the key: the same plan after a restart has the same one. */
static enum status name_trial(struct trial *trial, const cJSON *body, struct error *err)
{
    char *text = json_print_line(body);
    if (text == NULL) {
        return mem_fail(err, 4096, "a dry run");
    }
    char hash[HASH_TEXT_BYTES];
    hash_bytes(text, strlen(text), hash);
    cJSON_free(text);
    snprintf(trial->key, sizeof(trial->key), "%.40s/dry/%d/%.16s", trial->plan.subject,
             trial->plan.revision, hash);
    return STATUS_OK;
}

static void add_trial(struct controller *c, struct trial *trial)
{
    struct trial **link = &c->trials;
    while (*link != NULL) {
        link = &(*link)->next;
    }
    *link = trial;
}

/* Ends with the trial: the plan becomes a node. */
static enum status pass(struct controller *c, struct trial *trial, struct error *err)
{
    struct error refused = {0};
    bool fits = false;
    TRY(check(c, &trial->plan, true, &trial->changes, &fits, &refused, err));
    return fits ? controller_record_plan(c, &trial->plan, buffer_text(&trial->changes),
                                         trial->asked_s, err)
                : send_back(c, &trial->plan, refused.message, trial->asked_s, err);
}

/* Takes the plan. */
static enum status begin_trial(struct controller *c, struct plan *plan, struct buffer *changes,
                               double asked_s, struct error *err)
{
    struct trial *trial = mem_calloc(1, sizeof(*trial));
    if (trial == NULL) {
        return mem_fail(err, sizeof(*trial), "a plan");
    }
    enum status status = STATUS_OK;
    struct error refused = {0};
    trial->plan = *plan;
    trial->changes = *changes;
    trial->asked_s = asked_s;
    memset(plan, 0, sizeof(*plan));
    buffer_init(changes, CHANGES_MAX_BYTES);
    cJSON *body = body_of(&trial->plan);
    struct call_question question = {
        .key = trial->key,
        .purpose = "dry run",
        .node = trial->plan.parent,
        .kind = CALL_DRY,
        .body = body,
    };
    status = name_trial(trial, body, err);
    if (status != STATUS_OK) {
        cJSON_Delete(body);
        goto cleanup;
    }
    status = calls_ask(c->calls, &c->search, &question, &refused);
    if (status == STATUS_OK) {
        add_trial(c, trial);
        return STATUS_OK;
    }
    log_write(c->options.log, LOG_WARNING, "run", "%s is not run dry: %s", trial->key,
              refused.message);
    status = pass(c, trial, err);
cleanup:
    destroy(trial);
    return status;
}

/* ---- what comes from the researcher ---- */

enum status controller_take_plan(struct controller *c, struct plan *plan, double asked_s,
                                 struct error *err)
{
    if (plan->config_count == 0) {
        const char *why = plan->rationale != NULL ? plan->rationale : "no reason given";
        return controller_drop_plan(c, plan->number, why, true, err);
    }
    bool dry = plan->by_model && plan->subject != NULL && c->calls != NULL &&
               c->options.job->researcher.dry_run;
    struct buffer changes;
    struct error refused = {0};
    bool fits = false;
    buffer_init(&changes, CHANGES_MAX_BYTES);
    enum status status = check(c, plan, !dry, &changes, &fits, &refused, err);
    if (status == STATUS_OK && !fits) {
        status = send_back(c, plan, refused.message, asked_s, err);
    } else if (status == STATUS_OK && dry) {
        status = begin_trial(c, plan, &changes, asked_s, err);
    } else if (status == STATUS_OK) {
        status = controller_record_plan(c, plan, buffer_text(&changes), asked_s, err);
    }
    buffer_fini(&changes);
    return status;
}

/* Where the link to the trial is whose dry run was the first to end: after a restart several may
 * have ended, and nodes must come in the same order. NULL: none has. */
static struct trial **find_tried(struct controller *c, const struct search_call **call)
{
    struct trial **found = NULL;
    for (struct trial **link = &c->trials; *link != NULL; link = &(*link)->next) {
        const struct search_call *ended = calls_find(&c->search, (*link)->key);
        if (ended != NULL && (found == NULL || ended->outcomes < (*call)->outcomes)) {
            found = link;
            *call = ended;
        }
    }
    return found;
}

enum status controller_check_trials(struct controller *c, struct error *err)
{
    const struct search_call *call = NULL;
    struct trial **link = c->stopping ? NULL : find_tried(c, &call);
    while (link != NULL) {
        struct trial *trial = *link;
        *link = trial->next;
        enum status status =
            call->reply != NULL
                ? pass(c, trial, err)
                : send_back(c, &trial->plan, search_text(call->error), trial->asked_s, err);
        destroy(trial);
        TRY(status);
        link = find_tried(c, &call);
    }
    return STATUS_OK;
}
