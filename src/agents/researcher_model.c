/* `model`: a language model plans, diagnoses and learns. `rules` closes rounds at once, is the base
 * of figures, and plans where no reply could be used: the search always goes on.
 *
 *   request(parent) -> diagnosis of the parent -> direction -> plan -> poll
 *                                     \____________\____ given up -> the rules' plan, which says so
 *
 * Each turn looks only when the search has grown or something was asked since the last one. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/model_parts.h"
#include "base/mem.h"
#include "base/text.h"

enum { NOTE_BYTES = 2048, RATIONALE_BYTES = 32 * 1024 };

/* ---- lifetime ---- */

static void model_close(void *state)
{
    struct model *model = state;
    for (int i = 0; i < model->request_count; i++) {
        free(model->requests[i].complaint);
        plan_fini(&model->requests[i].walk.plan);
    }
    for (int i = 0; i < model->ready_count; i++) {
        plan_fini(&model->ready[i]);
    }
    for (int i = 0; i < model->event_count; i++) {
        cJSON_Delete(model->events[i]);
    }
    if (model->rules != NULL) {
        researcher_rules.close(model->rules);
    }
    rules_history_fini(&model->history);
    free(model->requests);
    free(model->ready);
    free(model->events);
    free(model->looks);
    free(model);
}

static enum status model_open(const struct researcher_options *options, void **state,
                              struct error *err)
{
    if (options->calls == NULL) {
        return FAIL(err, STATUS_INVALID,
                    "researcher \"model\" needs calls to a language model; \"rules\" needs none");
    }
    struct model *model = mem_calloc(1, sizeof(*model));
    if (model == NULL) {
        return mem_fail(err, sizeof(*model), "a researcher");
    }
    model->options = *options;
    model->facts = options->facts;
    model->literature_over = !options->literature;
    model->data_over = !options->data;
    model->seen = -1;
    rules_history_init(&model->history);
    enum status status = researcher_rules.open(options, &model->rules, err);
    if (status != STATUS_OK) {
        model_close(model);
        return status;
    }
    *state = model;
    return STATUS_OK;
}

/* ---- events ---- */

enum status model_push_event(struct model *model, cJSON *event, struct error *err)
{
    if (model->event_count == model->event_capacity) {
        int capacity = model->event_capacity > 0 ? 2 * model->event_capacity : 8;
        cJSON **events = mem_realloc(model->events, (size_t)capacity, sizeof(cJSON *));
        if (events == NULL) {
            cJSON_Delete(event);
            return mem_fail(err, (size_t)capacity * sizeof(cJSON *), "events");
        }
        model->events = events;
        model->event_capacity = capacity;
    }
    model->events[model->event_count++] = event;
    return STATUS_OK;
}

static bool model_take_event(void *state, cJSON **event)
{
    struct model *model = state;
    if (model->event_count == 0) {
        return false;
    }
    *event = model->events[0];
    model->event_count--;
    memmove(model->events, model->events + 1, (size_t)model->event_count * sizeof(cJSON *));
    return true;
}

void model_note(struct model *model, int32_t node, const char *format, ...)
{
    char text[NOTE_BYTES];
    char whole[3 * NOTE_BYTES + 1];
    struct error ignored;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    text_repair(text, strlen(text), whole);
    log_write(model->options.log, LOG_WARNING, "agents", "%s", whole);
    if (model->notes++ >= MODEL_NOTES_MAX) {
        return;
    }
    cJSON *event = cJSON_CreateObject();
    cJSON_AddStringToObject(event, "event", "incident");
    cJSON_AddStringToObject(event, "kind", "agents");
    cJSON_AddStringToObject(event, "message", whole);
    if (node >= 0) {
        cJSON_AddNumberToObject(event, "node", node);
    }
    if (event != NULL) {
        (void)model_push_event(model, event, &ignored);
    }
}

/* ---- plans that are ready ---- */

static void name_subject(int32_t parent, int32_t number, char out[MODEL_SUBJECT_BYTES])
{
    snprintf(out, MODEL_SUBJECT_BYTES, "n%04d.%d", (int)parent, (int)number);
}

/* Takes the plan. */
static enum status push_plan(struct model *model, struct plan *plan, struct error *err)
{
    if (model->ready_count == model->ready_capacity) {
        int capacity = model->ready_capacity > 0 ? 2 * model->ready_capacity : 4;
        struct plan *ready = mem_realloc(model->ready, (size_t)capacity, sizeof(*ready));
        if (ready == NULL) {
            plan_fini(plan);
            return mem_fail(err, (size_t)capacity * sizeof(*ready), "plans");
        }
        model->ready = ready;
        model->ready_capacity = capacity;
    }
    model->ready[model->ready_count++] = *plan;
    memset(plan, 0, sizeof(*plan));
    return STATUS_OK;
}

static bool model_poll(void *state, struct plan *out)
{
    struct model *model = state;
    if (model->ready_count == 0) {
        return false;
    }
    *out = model->ready[0];
    model->ready_count--;
    memmove(model->ready, model->ready + 1, (size_t)model->ready_count * sizeof(*model->ready));
    return true;
}

static int model_pending(const void *state)
{
    const struct model *model = state;
    return model->request_count + model->ready_count;
}

/* The rules' plan for a request, with a word on why it is theirs; "" for none. */
static enum status push_floor(struct model *model, const struct search *search, int32_t parent,
                              int32_t number, const char *why, struct error *err)
{
    struct plan plan;
    memset(&plan, 0, sizeof(plan));
    TRY(researcher_rules.request(model->rules, search, parent, number, err));
    if (!researcher_rules.poll(model->rules, &plan)) {
        return FAIL(err, STATUS_INTERNAL, "the rules have no plan below n%04d", (int)parent);
    }
    if (why[0] != '\0') {
        char subject[MODEL_SUBJECT_BYTES];
        name_subject(parent, number, subject);
        struct buffer text;
        buffer_init(&text, RATIONALE_BYTES);
        buffer_printf(&text, "Planned by the rules, for no plan of the language model could be "
                             "used: ");
        model_append_line(&text, why, MODEL_WHY_BYTES);
        buffer_printf(&text, "\n%s", search_text(plan.rationale));
        /* A message of an error may have been cut in the middle of a character. */
        char *rationale = mem_calloc(3 * text.len_bytes + 1, 1);
        if (rationale != NULL) {
            text_repair(buffer_text(&text), text.len_bytes, rationale);
        }
        buffer_fini(&text);
        plan.subject = mem_strdup(subject);
        if (rationale == NULL || plan.subject == NULL) {
            free(rationale);
            plan_fini(&plan);
            return mem_fail(err, RATIONALE_BYTES, "a plan");
        }
        free(plan.rationale);
        plan.rationale = rationale;
        model_note(model, parent, "%s: planned by the rules: %s", subject, why);
    }
    return push_plan(model, &plan, err);
}

/* ---- requests ---- */

static enum status add_request(struct model *model, const struct model_request *request,
                               struct error *err)
{
    if (model->request_count == model->request_capacity) {
        int capacity = model->request_capacity > 0 ? 2 * model->request_capacity : 8;
        struct model_request *grown =
            mem_realloc(model->requests, (size_t)capacity, sizeof(*grown));
        if (grown == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*grown), "requests for plans");
        }
        model->requests = grown;
        model->request_capacity = capacity;
    }
    model->requests[model->request_count++] = *request;
    model->seen = -1;
    return STATUS_OK;
}

static void remove_request(struct model *model, int index)
{
    free(model->requests[index].complaint);
    plan_fini(&model->requests[index].walk.plan);
    model->request_count--;
    memmove(&model->requests[index], &model->requests[index + 1],
            (size_t)(model->request_count - index) * sizeof(*model->requests));
}

static enum status model_request(void *state, const struct search *search, int32_t parent,
                                 int32_t number, struct error *err)
{
    struct model *model = state;
    if (parent < 0) {
        return push_floor(model, search, parent, number, "", err);
    }
    struct model_request request = {.parent = parent, .number = number};
    name_subject(parent, number, request.subject);
    return add_request(model, &request, err);
}

static enum status model_revise(void *state, const struct search *search, struct plan *plan,
                                const char *problem, struct error *err)
{
    struct model *model = state;
    if (!plan->by_model || plan->subject == NULL) {
        plan_fini(plan);
        return FAIL(err, STATUS_UNSUPPORTED, "only a language model's plan is repaired");
    }
    struct model_request request = {
        .parent = plan->parent,
        .number = plan->number,
        .attempt = plan->revision + 1,
    };
    name_subject(plan->parent, plan->number, request.subject);
    plan_fini(plan);
    if (request.attempt > model->options.repairs) {
        struct buffer why;
        buffer_init(&why, MODEL_WHY_BYTES);
        buffer_append_text(&why, "it could not run: ");
        model_append_line(&why, problem, MODEL_WHY_BYTES / 2);
        enum status status =
            push_floor(model, search, request.parent, request.number, buffer_text(&why), err);
        buffer_fini(&why);
        return status;
    }
    request.complaint = mem_strdup(problem);
    enum status status = request.complaint != NULL ? add_request(model, &request, err)
                                                   : mem_fail(err, strlen(problem), "a complaint");
    if (status != STATUS_OK) {
        free(request.complaint);
    }
    return status;
}

static void model_forget(void *state, int32_t number)
{
    struct model *model = state;
    for (int i = model->request_count - 1; i >= 0; i--) {
        if (model->requests[i].number == number) {
            remove_request(model, i);
        }
    }
    int kept = 0;
    for (int i = 0; i < model->ready_count; i++) {
        if (model->ready[i].number == number) {
            plan_fini(&model->ready[i]);
        } else {
            model->ready[kept++] = model->ready[i];
        }
    }
    model->ready_count = kept;
}

/* ---- a turn ---- */

/* Of those that are over now, the one whose last answer came first: after a restart many answers
 * are there at once, and the plans must come in the same order. -1: none. */
static int first_over(const struct model *model)
{
    int first = -1;
    for (int i = 0; i < model->request_count; i++) {
        const struct model_walk *walk = &model->requests[i].walk;
        if (walk->over && (first < 0 || walk->outcomes < model->requests[first].walk.outcomes)) {
            first = i;
        }
    }
    return first;
}

static enum status hand_out(struct model *model, const struct search *search, int index,
                            struct error *err)
{
    struct model_request request = model->requests[index];
    memset(&model->requests[index].walk, 0, sizeof(request.walk)); /* its plan is taken here */
    remove_request(model, index);
    return request.walk.why[0] == '\0'
               ? push_plan(model, &request.walk.plan, err)
               : push_floor(model, search, request.parent, request.number, request.walk.why, err);
}

static enum status walk_requests(struct model *model, const struct search *search,
                                 struct error *err)
{
    for (int i = 0; i < model->request_count; i++) {
        struct model_request *request = &model->requests[i];
        bool asked = request->waits_for[0] != '\0' &&
                     calls_find(search, request->waits_for) == NULL &&
                     calls_is_open(model->options.calls, request->waits_for);
        if (!asked && model_look_of(model, request->parent) == LOOK_OVER) {
            model_walk_plan(model, search, request);
        }
    }
    for (int first = first_over(model); first >= 0; first = first_over(model)) {
        TRY(hand_out(model, search, first, err));
    }
    return STATUS_OK;
}

static enum status model_turn(void *state, const struct search *search, struct error *err)
{
    struct model *model = state;
    bool nothing_new = model->seen == search->last_sequence;
    if (search->last_sequence == 0 || search->end == SEARCH_FINISHED || nothing_new) {
        return STATUS_OK;
    }
    model->seen = search->last_sequence;
    if (!model->prompts_sent) {
        cJSON *event = NULL;
        TRY(prompt_record(search, &event, err));
        model->prompts_sent = true;
        if (event != NULL) {
            TRY(model_push_event(model, event, err));
        }
    }
    if (!model_is_prepared(model, search)) {
        TRY(model_prepare(model, search, err));
    }
    TRY(model_records_update(model, search, err));
    TRY(model_diagnose(model, search, err));
    return walk_requests(model, search, err);
}

static bool provider_is_prepared(const void *state, const struct search *search)
{
    return model_is_prepared(state, search);
}

static enum status provider_diagnose(void *state, const struct search *search, int32_t node,
                                     char **diagnosis, cJSON **insights, struct error *err)
{
    struct model *model = state;
    return researcher_rules.diagnose(model->rules, search, node, diagnosis, insights, err);
}

const struct researcher_provider researcher_model = {
    .name = "model",
    .open = model_open,
    .close = model_close,
    .request = model_request,
    .poll = model_poll,
    .pending = model_pending,
    .diagnose = provider_diagnose,
    .turn = model_turn,
    .is_prepared = provider_is_prepared,
    .revise = model_revise,
    .forget = model_forget,
    .take_event = model_take_event,
};
