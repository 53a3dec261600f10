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
    free(model->out);
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

static int number_of(const char *subject)
{
    const char *dot = strrchr(subject, '.');
    return dot != NULL ? atoi(dot + 1) : 0;
}

/* Without memory it is not remembered: its number may then be given again, and the Executor finds
 * a plan that was tried. */
static void remember_out(struct model *model, const struct plan *plan)
{
    if (plan->subject == NULL) {
        return;
    }
    if (model->out_count == model->out_capacity) {
        int capacity = model->out_capacity > 0 ? 2 * model->out_capacity : 8;
        struct model_out *grown = mem_realloc(model->out, (size_t)capacity, sizeof(*grown));
        if (grown == NULL) {
            return;
        }
        model->out = grown;
        model->out_capacity = capacity;
    }
    struct model_out *out = &model->out[model->out_count++];
    out->parent = plan->parent;
    out->number = number_of(plan->subject);
    hash_bytes(plan->goal, strlen(plan->goal), out->goal);
}

static bool is_child(const struct search *search, const struct model_out *out)
{
    const struct tree_node *nodes = search->tree.nodes;
    for (int32_t at = nodes[out->parent].first_child; at >= 0; at = nodes[at].next_sibling) {
        char goal[HASH_TEXT_BYTES];
        const char *text = search_text(search->nodes[at].goal);
        hash_bytes(text, strlen(text), goal);
        if (strcmp(goal, out->goal) == 0) {
            return true;
        }
    }
    return false;
}

/* Drops those below a parent that have become children, the one with this number, or (search NULL)
 * all. */
static void forget_out(struct model *model, const struct search *search, int32_t parent, int number)
{
    int kept = 0;
    for (int i = 0; i < model->out_count; i++) {
        const struct model_out *out = &model->out[i];
        bool drop = out->parent == parent &&
                    (search == NULL || out->number == number || is_child(search, out));
        if (!drop) {
            model->out[kept++] = *out;
        }
    }
    model->out_count = kept;
}

static bool model_poll(void *state, struct plan *out)
{
    struct model *model = state;
    if (model->ready_count == 0) {
        return false;
    }
    remember_out(model, &model->ready[0]);
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

/* The rules' plan below this parent, with a word on why it is theirs; "" for none. */
static enum status push_floor(struct model *model, const struct search *search, int32_t parent,
                              const char *subject, const char *why, struct error *err)
{
    struct plan plan;
    memset(&plan, 0, sizeof(plan));
    TRY(researcher_rules.request(model->rules, search, parent, err));
    if (!researcher_rules.poll(model->rules, &plan)) {
        return FAIL(err, STATUS_INTERNAL, "the rules have no plan below n%04d", (int)parent);
    }
    if (why[0] != '\0') {
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

/* Plans on the way below a parent; with `number` > 0 only the one of this number. */
static int count_on_the_way(const struct model *model, int32_t parent, int number)
{
    int count = 0;
    for (int i = 0; i < model->request_count; i++) {
        const struct model_request *request = &model->requests[i];
        count += request->parent == parent && (number == 0 || request->number == number);
    }
    for (int i = 0; i < model->ready_count; i++) {
        const struct plan *plan = &model->ready[i];
        bool same = number == 0 || number_of(search_text(plan->subject)) == number;
        count += plan->parent == parent && same;
    }
    for (int i = 0; i < model->out_count; i++) {
        const struct model_out *out = &model->out[i];
        count += out->parent == parent && (number == 0 || out->number == number);
    }
    return count;
}

/* The child that this will be: after those that are there and those on the way. After a restart it
 * is the same again, and so are its keys; a number whose plan has become a child is passed over. */
static int next_number(struct model *model, const struct search *search, int32_t parent)
{
    forget_out(model, search, parent, 0);
    int number =
        (int)search->tree.nodes[parent].child_count + 1 + count_on_the_way(model, parent, 0);
    for (;; number++) {
        char subject[MODEL_SUBJECT_BYTES];
        snprintf(subject, sizeof(subject), "n%04d.%d", (int)parent, number);
        if (count_on_the_way(model, parent, number) == 0 &&
            !model_is_spent(search, parent, subject, model->options.repairs)) {
            return number;
        }
    }
}

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
    model->request_count--;
    memmove(&model->requests[index], &model->requests[index + 1],
            (size_t)(model->request_count - index) * sizeof(*model->requests));
}

static enum status model_request(void *state, const struct search *search, int32_t parent,
                                 struct error *err)
{
    struct model *model = state;
    if (parent < 0) {
        return push_floor(model, search, parent, "", "", err);
    }
    struct model_request request = {.parent = parent, .number = next_number(model, search, parent)};
    snprintf(request.subject, sizeof(request.subject), "n%04d.%d", (int)parent, request.number);
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
    struct model_request request = {.parent = plan->parent, .attempt = plan->revision + 1};
    snprintf(request.subject, sizeof(request.subject), "%s", plan->subject);
    request.number = number_of(plan->subject);
    forget_out(model, search, plan->parent, request.number);
    plan_fini(plan);
    if (request.attempt > model->options.repairs) {
        struct buffer why;
        buffer_init(&why, MODEL_WHY_BYTES);
        buffer_append_text(&why, "it could not run: ");
        model_append_line(&why, problem, MODEL_WHY_BYTES / 2);
        enum status status =
            push_floor(model, search, request.parent, request.subject, buffer_text(&why), err);
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

static void model_forget(void *state, int32_t parent)
{
    struct model *model = state;
    for (int i = model->request_count - 1; i >= 0; i--) {
        if (model->requests[i].parent == parent) {
            remove_request(model, i);
        }
    }
    int kept = 0;
    for (int i = 0; i < model->ready_count; i++) {
        if (model->ready[i].parent == parent) {
            plan_fini(&model->ready[i]);
        } else {
            model->ready[kept++] = model->ready[i];
        }
    }
    model->ready_count = kept;
    forget_out(model, NULL, parent, 0);
}

/* ---- a turn ---- */

static enum status walk_requests(struct model *model, const struct search *search,
                                 struct error *err)
{
    int i = 0;
    while (i < model->request_count) {
        struct plan plan;
        char why[MODEL_WHY_BYTES];
        const struct model_request *request = &model->requests[i];
        memset(&plan, 0, sizeof(plan));
        if (model_look_of(model, request->parent) != LOOK_OVER ||
            !model_walk_plan(model, search, request, &plan, why)) {
            i++;
            continue;
        }
        int32_t parent = request->parent;
        char subject[MODEL_SUBJECT_BYTES];
        memcpy(subject, request->subject, sizeof(subject));
        remove_request(model, i);
        TRY(why[0] == '\0' ? push_plan(model, &plan, err)
                           : push_floor(model, search, parent, subject, why, err));
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
