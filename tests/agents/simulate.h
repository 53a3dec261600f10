/* A search without any training: candidates are scored by a formula. Shared by the tests of this
 * room. */
#ifndef TESTS_AGENTS_SIMULATE_H
#define TESTS_AGENTS_SIMULATE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agents/plan.h"
#include "agents/researcher.h"
#include "base/json.h"
#include "base/rng.h"
#include "data/recipe.h"
#include "tree/search.h"

/* What a training would give. */
struct outcome {
    double score, standard_error;
    double train[4], validation[4]; /* losses along the way; validation NaN: not measured */
    int64_t rows, format_failures, unfinished, truncated;
    const char *confusions; /* JSON array, or NULL */
    bool diverged;          /* the candidate fails */
    enum status failure;    /* STATUS_OK: it does not */
};

static inline struct researcher_facts usual_facts(void)
{
    return (struct researcher_facts){
        .goal = "classify",
        .metric_worst = 0.0,
        .metric_best = 1.0,
        .train_rows = 6909,
        .validation_rows = 872,
        .prompt_tokens_mean = 60,
        .prompt_tokens_p95 = 110,
        .answer_tokens_mean = 4,
        .answer_tokens_p95 = 5,
        .sequence_tokens_max = 150,
        .label_count = 2,
        .majority_share = 0.55,
        .model_parameters = 260000,
        .model_layers = 5,
        .model_hidden = 64,
        .model_max_positions = 512,
        .precision = TRAIN_F32,
        .max_samples = 50000,
        .sequence_length = 512,
        .batch_tokens = 4096,
        .configurations = 3,
        .rounds = 20,
        .seed = 1,
    };
}

static inline void apply_event(struct search *search, cJSON *event)
{
    struct error err = {0};
    cJSON_AddNumberToObject(event, "sequence", (double)search->last_sequence + 1.0);
    cJSON_AddNumberToObject(event, "time_s", 1.0);
    if (search_apply(search, event, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    cJSON_Delete(event);
}

static inline cJSON *new_event(const char *kind, int32_t node, int32_t candidate)
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

static inline void begin_search(struct search *search, bool larger_is_better)
{
    search_init(search);
    cJSON *event = new_event("started", -1, -1);
    cJSON_AddObjectToObject(event, "job");
    cJSON_AddStringToObject(event, "model_hash", "m");
    cJSON_AddStringToObject(event, "task_hash", "t");
    cJSON_AddStringToObject(event, "metric", "accuracy");
    cJSON_AddStringToObject(event, "version", "0");
    cJSON_AddBoolToObject(event, "larger_is_better", larger_is_better);
    cJSON_AddNumberToObject(event, "seed", 1);
    apply_event(search, event);
}

static inline int32_t add_plan(struct search *search, const struct plan *plan)
{
    int32_t node = search->tree.count;
    cJSON *event = new_event("node_planned", node, -1);
    cJSON_AddNumberToObject(event, "parent", plan->parent);
    cJSON_AddStringToObject(event, "strategy", plan->strategy);
    cJSON_AddStringToObject(event, "goal", plan->goal);
    cJSON_AddStringToObject(event, "rationale", plan->rationale);
    cJSON_AddStringToObject(event, "researcher", plan->researcher);
    cJSON_AddItemToObject(event, "recipe", cJSON_Duplicate(plan->recipe, true));
    cJSON *configs = cJSON_AddArrayToObject(event, "configs");
    for (int i = 0; i < plan->config_count; i++) {
        cJSON_AddItemToArray(configs, cJSON_Duplicate(plan->configs[i], true));
    }
    apply_event(search, event);
    return node;
}

static inline cJSON *number_or_null(double value)
{
    return isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull();
}

/* Ten points a stage: the train loss falls along the line between stages, validation is measured at
 * their ends. */
static inline cJSON *curve_of(const struct outcome *outcome)
{
    cJSON *curve = cJSON_CreateArray();
    for (int i = 0; i < 40; i++) {
        int stage = i / 10;
        double from = stage > 0 ? outcome->train[stage - 1] : outcome->train[0] * 1.1;
        double share = (double)(i % 10 + 1) / 10.0;
        cJSON *point = cJSON_CreateArray();
        cJSON_AddItemToArray(point, cJSON_CreateNumber(i + 1));
        cJSON_AddItemToArray(point, cJSON_CreateNumber((i + 1) * 1000.0));
        cJSON_AddItemToArray(point,
                             cJSON_CreateNumber(from + share * (outcome->train[stage] - from)));
        cJSON_AddItemToArray(point, number_or_null(i % 10 == 9 ? outcome->validation[stage] : NAN));
        cJSON_AddItemToArray(point, cJSON_CreateNumber(1.0));
        cJSON_AddItemToArray(point, cJSON_CreateNumber(1e-3));
        cJSON_AddItemToArray(point, cJSON_CreateNumber(0.1 * (i + 1)));
        cJSON_AddItemToArray(curve, point);
    }
    return curve;
}

static inline void finish_candidate(struct search *search, int32_t node, int32_t candidate,
                                    const struct outcome *outcome)
{
    struct search_score score = {
        .value = outcome->score,
        .standard_error = outcome->standard_error,
        .loss = 1.0,
        .rows = outcome->rows,
        .format_failures = outcome->format_failures,
        .unfinished = outcome->unfinished,
        .truncated = outcome->truncated,
    };
    cJSON *event = new_event("candidate_finished", node, candidate);
    cJSON *result = cJSON_AddObjectToObject(event, "result");
    cJSON_AddItemToObject(result, "validation", search_score_to_json(&score));
    if (node > 0) {
        cJSON_AddItemToObject(result, "curve", curve_of(outcome));
    }
    if (outcome->confusions != NULL) {
        cJSON_AddItemToObject(result, "confusions", cJSON_Parse(outcome->confusions));
    }
    cJSON *cases = cJSON_AddArrayToObject(result, "cases");
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "prompt", "a failed prompt, ümläüts included");
    cJSON_AddStringToObject(item, "answer", "yes");
    cJSON_AddStringToObject(item, "output", "no");
    cJSON_AddItemToArray(cases, item);
    cJSON_AddNumberToObject(result, "samples", 1000);
    cJSON_AddNumberToObject(result, "rank_seconds", 4);
    cJSON_AddStringToObject(result, "end", "finished");
    apply_event(search, event);
}

static inline void fail_candidate(struct search *search, int32_t node, int32_t candidate,
                                  enum status code)
{
    cJSON *event = new_event("candidate_failed", node, candidate);
    cJSON *error = cJSON_AddObjectToObject(event, "error");
    cJSON_AddStringToObject(error, "code", status_name(code));
    cJSON_AddStringToObject(error, "message", "what its rank said");
    apply_event(search, event);
}

/* Scores a planned node and closes it with the researcher's own diagnosis. */
static inline void run_node(struct search *search, struct researcher *researcher, int32_t node,
                            struct outcome (*outcome)(void *context,
                                                      const struct train_config *config,
                                                      const cJSON *recipe, int32_t candidate),
                            void *context)
{
    struct error err = {0};
    cJSON *recipe = cJSON_Parse(search->nodes[node].recipe);
    for (int32_t i = 0; i < search->nodes[node].candidate_count; i++) {
        struct train_config config;
        assert_true(plan_config_read(search->nodes[node].candidates[i].config, &config));
        struct outcome result = outcome(context, &config, recipe, i);
        apply_event(search, new_event("candidate_started", node, i));
        if (result.diverged || result.failure != STATUS_OK) {
            fail_candidate(search, node, i, result.diverged ? STATUS_DIVERGED : result.failure);
        } else {
            finish_candidate(search, node, i, &result);
        }
    }
    cJSON_Delete(recipe);
    char *diagnosis = NULL;
    cJSON *insights = NULL;
    assert_int_equal(researcher_diagnose(researcher, search, node, &diagnosis, &insights, &err),
                     STATUS_OK);
    cJSON *event = new_event("node_closed", node, -1);
    cJSON_AddStringToObject(event, "diagnosis", diagnosis);
    cJSON_AddItemToObject(event, "insights", insights);
    free(diagnosis);
    apply_event(search, event);
}

static inline enum status open_researcher(const char *provider,
                                          const struct researcher_facts *facts,
                                          struct researcher **out, struct error *err)
{
    const struct researcher_options options = {.provider = provider, .facts = facts};
    return researcher_open(&options, out, err);
}

/* A plan for a child of `parent`, that passes every check of the rooms below. */
static inline struct plan request_plan(struct researcher *researcher, const struct search *search,
                                       int32_t parent)
{
    struct error err = {0};
    struct plan plan;
    memset(&plan, 0, sizeof(plan));
    if (researcher_request(researcher, search, parent, search->tree.count, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(researcher_pending(researcher), 1);
    assert_true(researcher_poll(researcher, &plan));
    assert_int_equal(researcher_pending(researcher), 0);
    struct json_problems problems;
    json_problems_init(&problems);
    recipe_check(plan.recipe, "/recipe", &problems);
    for (int i = 0; i < plan.config_count; i++) {
        struct train_config config = train_config_default();
        train_config_read(plan.configs[i], "/config", &problems, &config);
    }
    if (problems.count > 0) {
        fail_msg("%s: %s", plan.goal, buffer_text(&problems.text));
    }
    json_problems_fini(&problems);
    assert_int_equal(plan.parent, parent);
    assert_string_not_equal(plan.goal, "");
    assert_string_not_equal(plan.rationale, "");
    assert_string_equal(plan.researcher, "rules");
    return plan;
}

/* The plan of a child of `parent`, recorded as a node. */
static inline int32_t plan_node(struct search *search, struct researcher *researcher,
                                int32_t parent)
{
    struct plan plan = request_plan(researcher, search, parent);
    int32_t node = add_plan(search, &plan);
    plan_fini(&plan);
    return node;
}

#endif
