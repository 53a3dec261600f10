/* `rules`: the researcher that needs no network, and that every language model has to beat.
 *
 *   1. base       the best training on the way from the root to the node to refine;
 *                 at the root, usual settings
 *   2. evidence   its curve, errors, learning rates (evidence.c)
 *   3. direction  the most urgent that was not taken from that base or that parent; those that
 *                 paid before in this search count for more (rules_directions.c)
 *   4. plan       its configurations, each checked against everything that was tried
 *
 * The same facts, search, number and earlier requests give the same plan. When every direction was
 * taken, it searches at random near the best: it never runs dry. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/diagnosis.h"
#include "agents/plan.h"
#include "agents/researcher_provider.h"
#include "agents/rules.h"
#include "base/mem.h"

enum { SHAKES_MAX = 60, GOAL_MAX_BYTES = 1024, TEXT_MAX_BYTES = 16 * 1024 };

/* How much a direction's record in this search moves its urgency, at most. */
#define RECORD_WEIGHT 20.0

struct rules {
    const struct researcher_facts *facts;
    struct log *log;
    struct rules_history history;
    struct plan *ready; /* a queue, first first */
    int ready_count, ready_capacity;
};

/* ---- lifetime and queue ---- */

static enum status rules_open(const struct researcher_options *options, void **state,
                              struct error *err)
{
    struct rules *rules = mem_calloc(1, sizeof(*rules));
    if (rules == NULL) {
        return mem_fail(err, sizeof(*rules), "a researcher");
    }
    rules->facts = options->facts;
    rules->log = options->log;
    rules_history_init(&rules->history);
    *state = rules;
    return STATUS_OK;
}

static void rules_close(void *state)
{
    struct rules *rules = state;
    for (int i = 0; i < rules->ready_count; i++) {
        plan_fini(&rules->ready[i]);
    }
    free(rules->ready);
    rules_history_fini(&rules->history);
    free(rules);
}

static enum status reserve_plan(struct rules *rules, struct error *err)
{
    if (rules->ready_count == rules->ready_capacity) {
        int capacity = rules->ready_capacity > 0 ? rules->ready_capacity * 2 : 4;
        struct plan *ready = mem_realloc(rules->ready, (size_t)capacity, sizeof(*ready));
        if (ready == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*ready), "plans");
        }
        rules->ready = ready;
        rules->ready_capacity = capacity;
    }
    return STATUS_OK;
}

static bool rules_poll(void *state, struct plan *out)
{
    struct rules *rules = state;
    if (rules->ready_count == 0) {
        return false;
    }
    *out = rules->ready[0];
    rules->ready_count--;
    memmove(rules->ready, rules->ready + 1, (size_t)rules->ready_count * sizeof(*rules->ready));
    return true;
}

static int rules_pending(const void *state)
{
    return ((const struct rules *)state)->ready_count;
}

/* ---- the base ---- */

/* At the root: the usual settings, with the learning rate that proved best so far. */
static enum status start_from_scratch(struct rules_draft *draft, struct error *err)
{
    const struct researcher_facts *facts = draft->facts;
    enum train_method method = rules_first_method(facts);
    double known = evidence_best_rate(&draft->history->evidence, method);
    draft->base = rules_first_config(facts, method, NULL);
    draft->base.learning_rate = known > 0.0 ? known : draft->base.learning_rate;
    draft->recipe = rules_first_recipe(facts, NULL);
    snprintf(draft->base_name, sizeof(draft->base_name), RULES_USUAL_SETTINGS);
    return draft->recipe != NULL ? STATUS_OK : mem_fail(err, 256, "a recipe");
}

static enum status start_from_node(struct rules_draft *draft, int32_t node, struct error *err)
{
    const char *recipe = search_text(draft->search->nodes[node].recipe);
    draft->base = draft->evidence.config;
    search_candidate_name(node, draft->evidence.best_index, draft->base_name);
    if (node != draft->parent) {
        buffer_printf(&draft->rationale, "n%04d did not better its ancestor %s. ",
                      (int)draft->parent, draft->base_name);
    }
    return json_parse(recipe, strlen(recipe), "recipe", &draft->recipe, err);
}

static enum status draft_begin(struct rules *rules, const struct search *search, int32_t parent,
                               int32_t number, struct rules_draft *draft, struct error *err)
{
    memset(draft, 0, sizeof(*draft));
    buffer_init(&draft->goal, GOAL_MAX_BYTES);
    buffer_init(&draft->rationale, TEXT_MAX_BYTES);
    draft->facts = rules->facts;
    draft->search = search;
    draft->history = &rules->history;
    draft->parent = parent;
    const struct evidence_index *index = &rules->history.evidence;
    int32_t node = evidence_best_on_path(index, parent);
    evidence_read(search, index, node > 0 ? node : 0, &draft->evidence);
    bool scratch = node <= 0 || !draft->evidence.trained;
    TRY(scratch ? start_from_scratch(draft, err) : start_from_node(draft, node, err));

    draft->number = number;
    rng_init(&draft->rng, rules->facts->seed, (uint64_t)number);
    double speed = evidence_speed(index, draft->base.method);
    draft->epochs_max =
        rules_epochs_fit(rules->facts, speed > 0.0 ? speed : rules->facts->tokens_per_second,
                         rules_usable_rows(rules->facts));
    return STATUS_OK;
}

static void draft_fini(struct rules_draft *draft)
{
    cJSON_Delete(draft->recipe);
    buffer_fini(&draft->goal);
    buffer_fini(&draft->rationale);
}

/* ---- the direction ---- */

static const struct rules_direction *choose(const struct rules *rules,
                                            const struct rules_draft *draft)
{
    const struct rules_direction *best = NULL;
    double best_weight = -INFINITY;
    for (const struct rules_direction *at = rules_directions(); at->title != NULL; at++) {
        bool last = at[1].title == NULL;
        double weight = at->weigh(draft);
        if (weight <= 0.0 || (!last && rules_history_is_taken(&rules->history, at, draft->parent,
                                                              draft->base_name))) {
            continue;
        }
        weight = last ? -RECORD_WEIGHT - 1.0
                      : weight + RECORD_WEIGHT * rules_history_record(&rules->history, at);
        if (weight > best_weight) {
            best = at;
            best_weight = weight;
        }
    }
    return best;
}

/* ---- the plan ---- */

/* Replaces what was tried before by something near it, ever further off; fills up to the size of a
 * round. */
static enum status make_new(struct rules *rules, struct rules_draft *draft, struct error *err)
{
    int wanted = draft->facts->configurations;
    struct rules_draft planned = *draft; /* shallow: only its list of configurations is read */
    draft->config_count = 0;
    for (int i = 0; i < wanted && i < SEARCH_CANDIDATES_MAX; i++) {
        for (int shakes = 0; shakes < SHAKES_MAX; shakes++) {
            char fingerprint[HASH_TEXT_BYTES];
            if (shakes == 0 && i < planned.config_count) {
                rules_draft_add(draft, planned.configs[i]);
            } else {
                rules_draft_add_random(draft, 0.3 + 0.05 * shakes);
            }
            const struct train_config *config = &draft->configs[draft->config_count - 1];
            TRY(plan_fingerprint(config, draft->recipe, fingerprint, err));
            if (!plan_set_has(&rules->history.tried, fingerprint)) {
                TRY(plan_set_add(&rules->history.tried, fingerprint, err));
                break;
            }
            draft->config_count--;
        }
    }
    return STATUS_OK;
}

static enum status finish(struct rules *rules, struct rules_draft *draft,
                          const struct rules_direction *direction, struct error *err)
{
    struct plan *plan = &rules->ready[rules->ready_count];
    memset(plan, 0, sizeof(*plan));
    bool whole = true;
    for (int i = 0; i < draft->config_count; i++) {
        plan->configs[i] = train_config_to_json(&draft->configs[i]);
        plan->config_count += plan->configs[i] != NULL;
        whole = whole && plan->configs[i] != NULL;
    }
    enum status noted =
        rules_history_note(&rules->history, buffer_text(&draft->goal), draft->parent, err);
    plan->parent = draft->parent;
    plan->number = draft->number;
    plan->strategy = mem_strdup(direction->strategy);
    plan->researcher = mem_strdup(researcher_rules.name);
    plan->goal = buffer_take(&draft->goal);
    plan->rationale = buffer_take(&draft->rationale);
    plan->recipe = draft->recipe;
    draft->recipe = NULL;
    if (!whole || noted != STATUS_OK || plan->strategy == NULL || plan->researcher == NULL ||
        plan->goal == NULL || plan->rationale == NULL) {
        plan_fini(plan);
        return mem_fail(err, TEXT_MAX_BYTES, "a plan");
    }
    rules->ready_count++;
    return STATUS_OK;
}

/* The root: the model as it is. Its one configuration trains nothing. */
static enum status request_baseline(struct rules *rules, struct error *err)
{
    TRY(reserve_plan(rules, err));
    struct plan plan = {
        .parent = -1,
        .strategy = mem_strdup("baseline"),
        .goal = mem_strdup("baseline: what the model can do before any training"),
        .rationale = mem_strdup("Every later score is compared with this one."),
        .researcher = mem_strdup(researcher_rules.name),
        .recipe = cJSON_CreateArray(),
        .configs = {cJSON_CreateObject()},
        .config_count = 1,
    };
    if (plan.strategy == NULL || plan.goal == NULL || plan.rationale == NULL ||
        plan.researcher == NULL || plan.recipe == NULL || plan.configs[0] == NULL) {
        plan_fini(&plan);
        return mem_fail(err, 256, "a plan");
    }
    rules->ready[rules->ready_count++] = plan;
    return STATUS_OK;
}

static enum status rules_request(void *state, const struct search *search, int32_t parent,
                                 int32_t number, struct error *err)
{
    struct rules *rules = state;
    if (parent < 0) {
        return request_baseline(rules, err);
    }
    enum status status = STATUS_OK;
    struct rules_draft draft;
    TRY(rules_history_update(&rules->history, search, err));
    TRY_CLEANUP(draft_begin(rules, search, parent, number, &draft, err));
    TRY_CLEANUP(reserve_plan(rules, err));
    const struct rules_direction *direction = choose(rules, &draft);
    rules_direction_build(direction, &draft);
    TRY_CLEANUP(make_new(rules, &draft, err));
    log_write(rules->log, LOG_DEBUG, "agents", "plan below n%04d: %s", (int)parent,
              buffer_text(&draft.goal));
    TRY_CLEANUP(finish(rules, &draft, direction, err));
cleanup:
    draft_fini(&draft);
    return status;
}

static enum status rules_diagnose(void *state, const struct search *search, int32_t node,
                                  char **diagnosis, cJSON **insights, struct error *err)
{
    struct rules *rules = state;
    struct buffer text;
    TRY(rules_history_update(&rules->history, search, err));
    buffer_init(&text, TEXT_MAX_BYTES);
    diagnosis_append(search, &rules->history.evidence, rules->facts, node, &text);
    cJSON *list = diagnosis_insights(search, &rules->history.evidence, node);
    char *words = buffer_take(&text);
    if (list == NULL || words == NULL) {
        cJSON_Delete(list);
        free(words);
        return mem_fail(err, TEXT_MAX_BYTES, "a diagnosis");
    }
    *diagnosis = words;
    *insights = list;
    return STATUS_OK;
}

const struct researcher_provider researcher_rules = {
    .name = "rules",
    .open = rules_open,
    .close = rules_close,
    .request = rules_request,
    .poll = rules_poll,
    .pending = rules_pending,
    .diagnose = rules_diagnose,
};
