#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "run/controller_state.h"

enum { CHOICES_MAX = 64 }; /* candidates in line that are looked at near a time limit */
static const double look_again_s = 1.0;
/* Between two looks at all workers, a worker: a thousandth of the time of a thread, or so. */
static const double drain_share_s = 1e-5;

enum status controller_push_ready(struct controller *c, int32_t node, int32_t candidate,
                                  struct error *err)
{
    if (c->ready_count == c->ready_capacity) {
        if (c->ready_first > 0) { /* room at the front: close the gap first */
            memmove(c->ready, c->ready + c->ready_first,
                    (size_t)(c->ready_count - c->ready_first) * sizeof(*c->ready));
            c->ready_count -= c->ready_first;
            c->ready_first = 0;
        }
        int64_t capacity = c->ready_count < 16 ? 32 : c->ready_count * 2;
        struct candidate_id *grown = mem_realloc(c->ready, (size_t)capacity, sizeof(*grown));
        if (grown == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*grown), "waiting candidates");
        }
        c->ready = grown;
        c->ready_capacity = capacity;
    }
    c->ready[c->ready_count++] = (struct candidate_id){node, candidate};
    c->refused = false; /* this one may fit */
    return STATUS_OK;
}

/* ---- time ---- */

/* The configuration of a candidate as far as time depends on it; false if it trains nothing. */
static bool read_config(const struct controller *c, const struct candidate *candidate,
                        struct train_config *out)
{
    const struct job *job = c->options.job;
    cJSON *json = cJSON_Parse(candidate->config);
    struct json_problems ignored;
    json_problems_init(&ignored);
    *out = train_config_default();
    out->batch_tokens = job->batch_tokens > 0 ? job->batch_tokens : out->batch_tokens;
    train_config_read(json, "", &ignored, out);
    json_problems_fini(&ignored);
    bool trains = cJSON_GetArraySize(json) > 0;
    cJSON_Delete(json);
    if (job->max_steps > 0 && (out->max_steps == 0 || out->max_steps > job->max_steps)) {
        out->max_steps = job->max_steps;
    }
    return trains;
}

static double tokens_an_epoch(const struct controller *c)
{
    const struct researcher_facts *facts = &c->facts;
    double rows =
        (double)(facts->train_rows < facts->max_samples ? facts->train_rows : facts->max_samples);
    return rows * (facts->prompt_tokens_mean + facts->answer_tokens_mean);
}

static void begin_timing(const struct controller *c, struct controller_worker *worker,
                         enum work work, const struct candidate *candidate)
{
    struct train_config config;
    worker->step_s = 0.0;
    worker->trainable = work == WORK_TRAIN && read_config(c, candidate, &config);
    if (worker->trainable) {
        worker->method = config.method;
        struct limit_cost cost = limit_estimate(&c->speed, &config, tokens_an_epoch(c), 0);
        worker->tokens = limit_tokens(&config, tokens_an_epoch(c));
        worker->step_s = cost.step_s > 0.0 ? cost.step_s : -1.0;
    }
    worker->phase = MESSAGE_NO_PHASE;
    worker->done = 0;
    worker->total = 0;
    memset(&worker->times, 0, sizeof(worker->times));
    worker->ordered_s = worker->heard_s = clock_monotonic_s();
    worker->trains_s = worker->trained_s = 0.0;
}

void controller_learn(struct controller *c, const struct candidate *candidate)
{
    struct train_config config;
    limit_learn(&c->speed.finish_s, candidate->validation.seconds);
    if (candidate->curve_count > 0 && read_config(c, candidate, &config)) {
        const struct search_curve_point *last = &candidate->curve[candidate->curve_count - 1];
        limit_learn(&c->speed.token_s[config.method], last->seconds / (double)last->tokens);
    }
}

/* Until a stop would have to begin; infinite where there is no limit. */
static double time_for_work(struct controller *c)
{
    double left_s = controller_left_s(c);
    double now_s = clock_monotonic_s();
    if (!isfinite(left_s)) {
        return left_s;
    }
    if (now_s - c->drain_at_s >= drain_share_s * c->options.leader_count) {
        c->drain_s = controller_drain_s(c);
        c->drain_at_s = now_s;
    }
    return left_s - c->drain_s;
}

static enum limit_verdict judge(const struct controller *c, struct candidate_id id, double left_s)
{
    const struct candidate *candidate = &c->search.nodes[id.node].candidates[id.candidate];
    struct train_config config;
    struct limit_cost cost = {.train_s = -1.0};
    if (read_config(c, candidate, &config)) {
        cost = limit_estimate(&c->speed, &config, tokens_an_epoch(c), candidate->steps_done);
    }
    return limit_judge(&cost, left_s);
}

/* The one in line that goes next: the first that can finish in the time that is left, else the
 * first that gets somewhere until it is cut; -1: none. What a round finds does not depend on the
 * order of its candidates. */
static int64_t choose_ready(struct controller *c)
{
    double left_s = time_for_work(c);
    int64_t split = -1;
    int64_t end = c->ready_count < c->ready_first + CHOICES_MAX ? c->ready_count
                                                                : c->ready_first + CHOICES_MAX;
    if (!isfinite(left_s)) {
        return c->ready_first;
    }
    for (int64_t i = c->ready_first; i < end; i++) {
        enum limit_verdict verdict = judge(c, c->ready[i], left_s);
        if (verdict == LIMIT_FITS) {
            return i;
        }
        split = verdict == LIMIT_SPLITS && split < 0 ? i : split;
    }
    /* An allocation that is new must not pass without anything having been tried: the next one is
     * no longer. */
    return split < 0 && c->fresh && left_s > 0.0 ? c->ready_first : split;
}

static struct candidate_id take_ready(struct controller *c, int64_t at)
{
    struct candidate_id taken = c->ready[at];
    memmove(c->ready + c->ready_first + 1, c->ready + c->ready_first,
            (size_t)(at - c->ready_first) * sizeof(*c->ready));
    c->ready_first++;
    return taken;
}

/* ---- orders ---- */

/* What every order says of the run. */
static void describe_run(const struct controller *c, cJSON *order)
{
    cJSON_AddStringToObject(order, "precision", train_precision_names[c->facts.precision]);
    if (c->checksum[0] != '\0') {
        cJSON_AddStringToObject(order, "model_checksum", c->checksum);
    }
}

enum status controller_send_call(struct controller *c, enum work work, int32_t id, cJSON *body,
                                 struct error *err)
{
    struct controller_worker *worker = &c->workers[controller_free_worker(c)];
    cJSON *order = cJSON_CreateObject();
    cJSON_AddStringToObject(order, "work", work == WORK_DRY ? "dry" : "ask");
    cJSON_AddItemToObject(order, "body", body);
    describe_run(c, order);
    struct message message = {
        .header = {.kind = MESSAGE_ORDER, .node = id, .candidate = -1},
        .payload = order,
    };
    TRY(mailbox_send(c->options.mailbox, worker->rank, MESSAGE_TO_WORKER, &message, err));
    controller_begin_work(c, work, id, -1);
    begin_timing(c, worker, work, NULL);
    return STATUS_OK;
}

enum status controller_send_order(struct controller *c, enum work work, int32_t node,
                                  int32_t candidate, struct error *err)
{
    struct controller_worker *worker = &c->workers[controller_free_worker(c)];
    const struct search_node *planned = &c->search.nodes[node];
    cJSON *order = cJSON_CreateObject();
    cJSON_AddStringToObject(order, "work", work == WORK_TEST ? "test" : "train");
    cJSON_AddItemToObject(order, "recipe", cJSON_Parse(planned->recipe));
    cJSON_AddItemToObject(order, "config", cJSON_Parse(planned->candidates[candidate].config));
    describe_run(c, order);
    struct message message = {
        .header = {.kind = MESSAGE_ORDER, .node = node, .candidate = candidate},
        .payload = order,
    };
    TRY(mailbox_send(c->options.mailbox, worker->rank, MESSAGE_TO_WORKER, &message, err));
    controller_begin_work(c, work, node, candidate);
    begin_timing(c, worker, work, &planned->candidates[candidate]);
    return STATUS_OK;
}

static enum status start_candidate(struct controller *c, struct candidate_id next,
                                   struct error *err)
{
    int rank = c->workers[controller_free_worker(c)].rank;
    /* The order leaves before the event is on disk: a start that is forgotten costs nothing, a
     * waiting worker does. */
    TRY(controller_send_order(c, WORK_TRAIN, next.node, next.candidate, err));
    cJSON *event = controller_event("candidate_started", next.node, next.candidate);
    cJSON_AddNumberToObject(event, "rank", rank);
    return controller_emit(c, event, err);
}

bool controller_admits_test(struct controller *c, int32_t node, int32_t candidate)
{
    const struct candidate *tested = &c->search.nodes[node].candidates[candidate];
    double seconds = tested->validation.seconds; /* the test split is about as large */
    double left_s = time_for_work(c);
    struct limit_cost cost = {.finish_s = isfinite(seconds) ? seconds : 0.0};
    return limit_judge(&cost, left_s) == LIMIT_FITS || (c->fresh && left_s > 0.0);
}

/* What was refused once is looked at again only when something else may fit. */
static bool refuses_still(const struct controller *c)
{
    return c->refused && clock_monotonic_s() - c->refused_s < look_again_s;
}

enum status controller_dispatch(struct controller *c, struct error *err)
{
    if (c->stopping) {
        return STATUS_OK;
    }
    TRY(controller_dispatch_calls(c, err)); /* they are short, and candidates wait for them */
    while (c->ready_first < c->ready_count && controller_free_worker(c) >= 0) {
        int64_t next = refuses_still(c) ? -1 : choose_ready(c);
        if (next < 0) {
            c->refused_s = refuses_still(c) ? c->refused_s : clock_monotonic_s();
            c->refused = true;
            return STATUS_OK;
        }
        c->refused = false;
        c->fresh = false;
        TRY(start_candidate(c, take_ready(c, next), err));
    }
    return STATUS_OK;
}

enum status controller_drop_ready(struct controller *c, const char *reason, struct error *err)
{
    while (c->ready_first < c->ready_count) {
        struct candidate_id next = c->ready[c->ready_first++];
        struct error failure;
        FAIL(&failure, STATUS_LIMIT, "%s before it could start", reason);
        cJSON *event = controller_failure(next.node, next.candidate, &failure, "", 0.0);
        TRY(controller_emit(c, event, err));
    }
    return STATUS_OK;
}

enum status controller_send_all(struct controller *c, enum message_kind kind, struct error *err)
{
    for (int i = 0; i < c->options.leader_count; i++) {
        struct message message = {.header = {.kind = (uint32_t)kind}};
        TRY(mailbox_send(c->options.mailbox, c->workers[i].rank, MESSAGE_TO_WORKER, &message, err));
    }
    return STATUS_OK;
}
