/* Calls that are answered by a worker of this job: dry runs of plans, and, with a local model, what
 * the agents ask. They go before candidates.
 *
 *   calls.h -> transport (front) -> list -> a free worker -> message -> list -> transport ->
 * calls.h
 *                            \-> the job's own transport, for whatever leaves the job */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "run/answer.h"
#include "run/controller_state.h"

enum { ASK_DEATHS_MAX = 2, ASK_KILLERS_MAX = 2 };
static const char died_asking[] = "the job ended twice while a worker answered; not asked again";
static const char died_dry[] = "the job ended while it was run dry, and it is not tried again";
static const char too_deadly[] =
    "the local model ended its jobs with one question after the other; it is asked no more";

struct rank_call {
    int32_t id; /* index in search->calls */
    enum call_kind kind;
    cJSON *body;
    bool under_way, answered;
    double asked_s, begun_s; /* when the worker that has it got it */
    double worked_s;         /* by those that had it before, which left off */
    struct call_answer answer;
    struct rank_call *next;
};

bool controller_works_on_call(const struct controller_worker *worker)
{
    return worker->work == WORK_DRY || worker->work == WORK_ASK;
}

static void destroy(struct rank_call *call)
{
    cJSON_Delete(call->body);
    call_answer_fini(&call->answer);
    free(call);
}

void controller_close_calls(struct controller *c)
{
    while (c->rank_calls != NULL) {
        struct rank_call *next = c->rank_calls->next;
        destroy(c->rank_calls);
        c->rank_calls = next;
    }
}

/* Where the link to a call is; to NULL at the end if there is none. */
static struct rank_call **find(struct controller *c, int32_t id)
{
    struct rank_call **link = &c->rank_calls;
    while (*link != NULL && (*link)->id != id) {
        link = &(*link)->next;
    }
    return link;
}

static enum status ask(struct controller *c, int32_t id, enum call_kind kind, const cJSON *body,
                       struct error *err)
{
    struct rank_call *call = mem_calloc(1, sizeof(*call));
    cJSON *copy = cJSON_Duplicate(body, true);
    if (call == NULL || copy == NULL) {
        free(call);
        cJSON_Delete(copy);
        return mem_fail(err, sizeof(*call), "a call");
    }
    call->id = id;
    call->kind = kind;
    call->body = copy;
    call->asked_s = clock_monotonic_s();
    call->answer.cost_usd = 0.0;
    *find(c, id) = call;
    return STATUS_OK;
}

/* The first answer to a call of a kind. */
static bool take(struct controller *c, enum call_kind kind, struct call_answer *out)
{
    for (struct rank_call **link = &c->rank_calls; *link != NULL; link = &(*link)->next) {
        struct rank_call *call = *link;
        if (call->answered && call->kind == kind) {
            *link = call->next;
            *out = call->answer;
            memset(&call->answer, 0, sizeof(call->answer));
            destroy(call);
            return true;
        }
    }
    return false;
}

/* The worker that has it is told to leave off; its word is then about a call that nobody knows. */
static void cancel(struct controller *c, int32_t id)
{
    struct rank_call **link = find(c, id);
    struct rank_call *call = *link;
    if (call == NULL) {
        return;
    }
    *link = call->next;
    for (int i = 0; call->under_way && i < c->options.leader_count; i++) {
        const struct controller_worker *worker = &c->workers[i];
        if (controller_works_on_call(worker) && worker->node == id) {
            struct message message = {.header = {.kind = MESSAGE_STOP}};
            struct error ignored = {0};
            (void)mailbox_send(c->options.mailbox, worker->rank, MESSAGE_TO_WORKER, &message,
                               &ignored);
        }
    }
    destroy(call);
}

void controller_drop_calls(struct controller *c)
{
    struct rank_call *call = c->rank_calls;
    while (call != NULL) {
        struct rank_call *next = call->next;
        if (!call->answered) {
            cancel(c, call->id);
        }
        call = next;
    }
}

/* ---- calls that end their jobs ---- */

/* How many jobs died while a call was under way; the one that is running has not. A call that was
 * not lost with its job was under way in all that followed. */
static int deaths_in_call(const struct controller *c, const struct search_call *call)
{
    const struct search *search = &c->search;
    int32_t ran = search->allocation_count - 1;
    while (ran > 0 && search->allocations[ran].started_s > call->started_s) {
        ran--;
    }
    int deaths = 0;
    int32_t last = call->ended ? ran : c->earlier - 1;
    for (int32_t i = ran; i >= 0 && i <= last && i < c->earlier; i++) {
        const char *end = search_text(search->allocations[i].end);
        deaths += end[0] == '\0' || strncmp(end, "failed", strlen("failed")) == 0;
    }
    return deaths;
}

/* Whether a call of this key was under way when a job died; that it is lost may not be on disk yet.
 */
static bool ended_a_job(const struct controller *c, const char *key)
{
    for (int32_t i = 0; i < c->search.call_count; i++) {
        const struct search_call *call = &c->search.calls[i];
        bool cut = call->lost || !call->ended;
        if (cut && strcmp(search_text(call->key), key) == 0 && deaths_in_call(c, call) > 0) {
            return true;
        }
    }
    return false;
}

/* ---- workers ---- */

enum status controller_dispatch_calls(struct controller *c, struct error *err)
{
    /* Of a call that ends its job, the record must know that there was a job. */
    bool recorded = c->search.allocation_count > c->earlier;
    if (!recorded || controller_left_s(c) <= c->drain_s) {
        return STATUS_OK;
    }
    for (struct rank_call *call = c->rank_calls; call != NULL && controller_free_worker(c) >= 0;
         call = call->next) {
        if (call->under_way || call->answered) {
            continue;
        }
        cJSON *body = cJSON_Duplicate(call->body, true);
        if (body == NULL) {
            return mem_fail(err, 4096, "an order");
        }
        call->under_way = true;
        call->begun_s = clock_monotonic_s();
        TRY(controller_send_call(c, call->kind == CALL_DRY ? WORK_DRY : WORK_ASK, call->id, body,
                                 err));
    }
    return STATUS_OK;
}

void controller_put_call_back(struct controller *c, int32_t id)
{
    struct rank_call *call = *find(c, id);
    if (call != NULL && call->under_way) {
        call->under_way = false;
        call->worked_s += clock_monotonic_s() - call->begun_s;
    }
}

static double number_of(const cJSON *object, const char *key, double max)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    bool fits = cJSON_IsNumber(value) && value->valuedouble >= 0.0 && value->valuedouble <= max;
    return fits ? floor(value->valuedouble) : 0.0;
}

/* A dry run's answer is its report; a question's the text that the model wrote. */
static enum status read_answer(struct rank_call *call, const cJSON *payload, struct error *err)
{
    const double tokens_max = 1e9;
    struct call_answer *answer = &call->answer;
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(payload, "text");
    if (call->kind == CALL_DRY) {
        answer->text = json_print_line(payload);
    } else if (cJSON_IsString(text)) {
        answer->text = mem_strdup(text->valuestring);
        answer->cut = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(payload, "cut"));
        answer->tokens_in = (int64_t)number_of(payload, "tokens_in", tokens_max);
        answer->tokens_out = (int64_t)number_of(payload, "tokens_out", tokens_max);
    } else {
        answer->status = FAIL(&answer->error, STATUS_FORMAT, "a rank's answer has no text");
        return STATUS_OK;
    }
    return answer->text != NULL ? STATUS_OK : mem_fail(err, 4096, "an answer");
}

enum status controller_answer_call(struct controller *c, int32_t id, const cJSON *payload,
                                   const struct error *failure, struct error *err)
{
    struct rank_call *call = *find(c, id);
    if (call == NULL) {
        return STATUS_OK; /* nobody waits for it any more */
    }
    struct call_answer *answer = &call->answer;
    answer->id = id;
    answer->status = failure->code;
    answer->error = *failure;
    answer->attempts = 1;
    double now_s = clock_monotonic_s();
    double worked_s = call->worked_s + (call->under_way ? now_s - call->begun_s : 0.0);
    answer->seconds = now_s - call->asked_s;
    answer->rank_seconds = worked_s * c->options.ranks_per_candidate;
    snprintf(answer->provider, sizeof(answer->provider), "%s",
             call->kind == CALL_DRY ? "worker" : "local");
    call->answered = true;
    call->under_way = false;
    return failure->code == STATUS_OK ? read_answer(call, payload, err) : STATUS_OK;
}

/* ---- a local model: call_local.c's way to the workers ---- */

/* A question may have ended its job only if a worker had it: those that were asked first. */
static bool may_have_killed(const struct controller *c, int32_t id)
{
    const struct search *search = &c->search;
    if (deaths_in_call(c, &search->calls[id]) < ASK_DEATHS_MAX) {
        return false;
    }
    int before = 0;
    for (int32_t i = 0; i < id; i++) {
        const struct search_call *call = &search->calls[i];
        before += !call->ended && strcmp(call->kind, call_kind_names[CALL_CHAT]) == 0;
    }
    return before < search->allocations[c->earlier - 1].workers;
}

/* Whether the last questions, without an answer in between, all ended their jobs. Those that are
 * refused in this turn count, though it is not on disk yet. */
static bool is_deadly(const struct controller *c)
{
    const struct search *search = &c->search;
    int killed = 0;
    for (int32_t i = search->call_count - 1; i >= 0 && killed < ASK_KILLERS_MAX; i--) {
        const struct search_call *call = &search->calls[i];
        bool chat = strcmp(call->kind, call_kind_names[CALL_CHAT]) == 0;
        if (chat && call->reply != NULL) {
            return false;
        }
        killed += chat && (call->ended ? strcmp(search_text(call->error), died_asking) == 0
                                       : may_have_killed(c, i));
    }
    return killed == ASK_KILLERS_MAX;
}

/* Why a question is not put to a worker; NULL: it is. */
static const char *refuse_question(const struct controller *c, int32_t id)
{
    if (may_have_killed(c, id)) {
        return died_asking;
    }
    return is_deadly(c) ? too_deadly : NULL;
}

static enum status tell_refusal(struct controller *c, int32_t id, const char *why,
                                struct error *err)
{
    bool known = why == too_deadly && c->silenced;
    c->silenced = c->silenced || why == too_deadly;
    return known ? STATUS_OK
                 : controller_incident(c, "question", err, "%s: %s",
                                       search_text(c->search.calls[id].key), why);
}

/* A question that was under way when its job ended is asked again: once, if that was a death. */
static enum status local_ask(void *context, int32_t id, const cJSON *body, struct error *err)
{
    struct controller *c = context;
    const char *why = refuse_question(c, id);
    TRY(ask(c, id, CALL_CHAT, body, err));
    if (why == NULL) {
        return STATUS_OK;
    }
    struct error refused;
    FAIL(&refused, STATUS_INTERRUPTED, "%s", why);
    TRY(tell_refusal(c, id, why, err));
    return controller_answer_call(c, id, NULL, &refused, err);
}

static enum status local_bound(void *context, const cJSON *body, int64_t *tokens, struct error *err)
{
    const struct controller *c = context;
    return answer_bound(c->speaker, body, tokens, err);
}

static bool local_take(void *context, struct call_answer *out)
{
    return take(context, CALL_CHAT, out);
}

static void local_cancel(void *context, int32_t id)
{
    cancel(context, id);
}

void controller_local_calls(struct controller *c, struct call_local_options *out)
{
    out->bound = local_bound;
    out->ask = local_ask;
    out->take = local_take;
    out->cancel = local_cancel;
    out->context = c;
}

/* ---- dry runs: in front of the job's transport ---- */

struct front {
    struct controller *c;
    struct call_transport inner;
};

/* The dry run that may have ended a job is not tried again. */
static enum status front_start(void *state, const struct call *call, struct error *err)
{
    struct front *front = state;
    struct controller *c = front->c;
    if (call->kind != CALL_DRY) {
        return front->inner.start(front->inner.state, call, err);
    }
    TRY(ask(c, call->id, CALL_DRY, call->body, err));
    if (!ended_a_job(c, call->key)) {
        return STATUS_OK;
    }
    struct error died;
    FAIL(&died, STATUS_INTERRUPTED, "%s", died_dry);
    TRY(controller_incident(c, "dry run", err, "%s: %s", call->key, died_dry));
    return controller_answer_call(c, call->id, NULL, &died, err);
}

static enum status front_turn(void *state, int64_t outcomes, bool idle, struct error *err)
{
    struct front *front = state;
    return front->inner.turn(front->inner.state, outcomes, idle, err);
}

static bool front_take(void *state, struct call_answer *out)
{
    struct front *front = state;
    return take(front->c, CALL_DRY, out) || front->inner.take(front->inner.state, out);
}

static void front_cancel(void *state, int32_t id)
{
    struct front *front = state;
    cancel(front->c, id);
    front->inner.cancel(front->inner.state, id);
}

static void front_done(void *state, int32_t id)
{
    struct front *front = state;
    if (front->inner.done != NULL) {
        front->inner.done(front->inner.state, id);
    }
}

static enum status front_bound(const void *state, const struct call *call, int64_t *tokens,
                               double *usd, struct error *err)
{
    const struct front *front = state;
    *tokens = 0;
    *usd = 0.0;
    return call->kind == CALL_DRY ? STATUS_OK
                                  : front->inner.bound(front->inner.state, call, tokens, usd, err);
}

static void front_close(void *state)
{
    struct front *front = state;
    front->inner.close(front->inner.state);
    free(front);
}

enum status controller_front_transport(struct controller *c, struct call_transport *transport,
                                       struct error *err)
{
    struct front *front = mem_calloc(1, sizeof(*front));
    if (front == NULL) {
        return mem_fail(err, sizeof(*front), "a transport");
    }
    front->c = c;
    front->inner = *transport;
    *transport = (struct call_transport){
        .name = front->inner.name,
        .state = front,
        .resumes = front->inner.resumes,
        .start = front_start,
        .turn = front_turn,
        .take = front_take,
        .cancel = front_cancel,
        .done = front_done,
        .bound = front_bound,
        .close = front_close,
    };
    return STATUS_OK;
}
