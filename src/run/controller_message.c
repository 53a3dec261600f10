/* What workers say, and the events that follow from it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "run/controller_state.h"
#include "run/facts.h"

/* A worker whose answer does not fit has failed, whatever it says. */
static enum status refuse_result(struct controller *c, const struct message *message, bool test,
                                 struct error *refused, struct error *err)
{
    error_context(refused, "rank %d sent a result that is none", message->rank);
    if (test) {
        log_write(c->options.log, LOG_ERROR, "run", "%s", refused->message);
        return STATUS_OK;
    }
    cJSON *event =
        controller_failure(message->header.node, message->header.candidate, refused, "", 0.0);
    return controller_emit(c, event, err);
}

static const char *text_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(value) ? value->valuestring : "";
}

static enum status on_result(struct controller *c, int index, struct message *message,
                             struct error *err)
{
    struct controller_worker *worker = &c->workers[index];
    bool test = worker->work == WORK_TEST;
    struct error refused = {0};
    controller_end_work(c, index);
    TRY(controller_record_checksum(c, text_of(message->payload, "model_checksum"), err));
    limit_learn(&c->speed.finish_s, worker->heard_s - fmax(worker->trained_s, worker->ordered_s));
    enum status fits = test ? search_score_check(message->payload, &refused)
                            : search_result_check(message->payload, &refused);
    if (fits != STATUS_OK) {
        return refuse_result(c, message, test, &refused, err);
    }
    facts_hide_twins(&c->facts, cJSON_GetObjectItemCaseSensitive(message->payload, "cases"));
    cJSON *event = controller_event(test ? "test_scored" : "candidate_finished",
                                    message->header.node, message->header.candidate);
    cJSON_AddItemToObject(event, test ? "score" : "result", message->payload);
    message->payload = NULL;
    if (!test) {
        /* The baseline's weights are the base model's own; a simulated candidate has none. */
        cJSON_AddBoolToObject(event, "weights_kept",
                              message->header.node > 0 && !c->options.simulated);
    }
    return controller_emit(c, event, err);
}

/* A number of a worker's answer within bounds, 0 if it is none. */
static double number_of(const cJSON *object, const char *key, double max)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    bool fits = cJSON_IsNumber(value) && value->valuedouble >= 0.0 && value->valuedouble <= max;
    return fits ? value->valuedouble : 0.0;
}

static enum status status_named(const char *name)
{
    for (int i = 1; i < STATUS_COUNT; i++) {
        if (strcmp(name, status_name((enum status)i)) == 0) {
            return (enum status)i;
        }
    }
    return STATUS_INTERNAL;
}

/* The error that a worker's FAILED message tells of. */
static struct error failure_of(const struct message *message)
{
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(message->payload, "error");
    struct error failure;
    int line = (int)number_of(object, "line", 1e6);
    error_set(&failure, status_named(text_of(object, "code")), text_of(object, "file"), line, "%s",
              text_of(object, "message"));
    failure.rank = message->rank;
    return failure;
}

static cJSON *suspension(const struct message *message)
{
    cJSON *event =
        controller_event("candidate_suspended", message->header.node, message->header.candidate);
    cJSON_AddNumberToObject(event, "steps_done",
                            floor(number_of(message->payload, "steps_done", 1e15)));
    cJSON_AddNumberToObject(event, "rank_seconds",
                            number_of(message->payload, "rank_seconds", 1e12));
    return event;
}

/* A full disk, say, is no fault of the candidate: it goes back in line, and the search stops. */
static enum status on_broken_machine(struct controller *c, const struct message *message,
                                     const struct error *failure, bool test, struct error *err)
{
    if (!test) {
        TRY(controller_emit(c, suspension(message), err));
    }
    if (c->failure.code != STATUS_OK) {
        return STATUS_OK; /* the first one is told of */
    }
    TRY(controller_incident(c, "disk", err, "rank %d: %s", message->rank, failure->message));
    c->failure = *failure;
    return controller_begin_stop(c, NULL, err, "failed: %.300s", failure->message);
}

static enum status on_failure(struct controller *c, int index, const struct message *message,
                              struct error *err)
{
    struct controller_worker *worker = &c->workers[index];
    bool test = worker->work == WORK_TEST;
    struct error failure = failure_of(message);
    if (failure.code == STATUS_DEVICE) {
        return controller_lose_device(c, index, &failure, err);
    }
    controller_end_work(c, index);
    if (failure.code == STATUS_NO_SPACE || failure.code == STATUS_IO ||
        failure.code == STATUS_PERMISSION) {
        return on_broken_machine(c, message, &failure, test, err);
    }
    if (test) {
        log_write(c->options.log, LOG_ERROR, "run", "the test split could not be scored: %s",
                  failure.message);
        return STATUS_OK;
    }
    cJSON *event = controller_failure(message->header.node, message->header.candidate, &failure,
                                      text_of(message->payload, "log_tail"),
                                      number_of(message->payload, "rank_seconds", 1e12));
    return controller_emit(c, event, err);
}

static enum status on_suspended(struct controller *c, int index, const struct message *message,
                                struct error *err)
{
    struct controller_worker *worker = &c->workers[index];
    bool test = worker->work == WORK_TEST;
    controller_end_work(c, index);
    if (test) {
        return STATUS_OK;
    }
    if (!c->stopping) {
        TRY(controller_push_ready(c, message->header.node, message->header.candidate, err));
    }
    return controller_emit(c, suspension(message), err);
}

/* What a worker says of a call that it was to answer. */
static enum status on_answer(struct controller *c, int index, struct message *message,
                             struct error *err)
{
    enum message_kind kind = (enum message_kind)message->header.kind;
    struct error failure = {0};
    if (kind == MESSAGE_FAILED) {
        failure = failure_of(message);
    }
    if (failure.code == STATUS_DEVICE) {
        return controller_lose_device(c, index, &failure, err);
    }
    controller_end_work(c, index);
    if (kind == MESSAGE_SUSPENDED) {
        controller_put_call_back(c, message->header.node);
        return STATUS_OK;
    }
    return controller_answer_call(c, message->header.node, message->payload, &failure, err);
}

static void on_hello(struct controller *c, int index, const struct message *message)
{
    struct controller_worker *worker = &c->workers[index];
    controller_welcome_worker(c, index);
    snprintf(worker->host, sizeof(worker->host), "%s", text_of(message->payload, "host"));
    log_write(c->options.log, LOG_INFO, "run", "worker on rank %d (%s): %s (%s)",
              c->workers[index].rank, text_of(message->payload, "host"),
              text_of(message->payload, "device"), text_of(message->payload, "choice"));
}

static void hear(struct controller_worker *worker)
{
    double now_s = clock_monotonic_s();
    if (worker->work != WORK_NONE) {
        worker->quiet_s = fmax(worker->quiet_s, now_s - worker->heard_s);
    }
    worker->heard_s = now_s;
}

/* What a candidate under way shows of how long others will take. */
static void learn(struct controller *c, struct controller_worker *worker)
{
    const struct limit_worker *times = &worker->times;
    if (worker->trains_s == 0.0) {
        worker->trains_s = worker->heard_s;
        limit_learn(&c->speed.begin_s, worker->trains_s - worker->ordered_s);
    }
    worker->trained_s = worker->heard_s;
    limit_learn(&c->speed.save_s, times->save_s);
    if (worker->tokens > 0.0) {
        limit_learn(&c->speed.token_s[worker->method],
                    times->step_s * (double)worker->total / worker->tokens);
    }
}

static void on_progress(struct controller *c, struct controller_worker *worker,
                        const struct message_header *header)
{
    if (worker->work == WORK_NONE || worker->node != header->node ||
        worker->candidate != header->candidate) {
        return;
    }
    if (worker->phase == MESSAGE_TRAIN && worker->trained_s > 0.0) {
        worker->trained_s = worker->heard_s; /* it has trained up to now */
    }
    worker->phase = header->phase;
    worker->done = header->done;
    worker->total = header->total;
    worker->times = (struct limit_worker){
        .step_s = header->step_s, .save_s = header->save_s, .gap_s = header->gap_s};
    if (worker->phase == MESSAGE_TRAIN && worker->trainable) {
        learn(c, worker);
    }
}

/* Whether an answer is about what the worker was told to do. */
static bool fits_order(const struct controller_worker *worker, const struct message *message)
{
    return worker->work != WORK_NONE && worker->node == message->header.node &&
           worker->candidate == message->header.candidate && message->payload != NULL;
}

static enum status on_message(struct controller *c, struct message *message, struct error *err)
{
    int index = controller_find_worker(c, message->rank);
    enum message_kind kind = (enum message_kind)message->header.kind;
    if (index < 0) {
        return FAIL(err, STATUS_FORMAT, "rank %d is no worker", message->rank);
    }
    struct controller_worker *worker = &c->workers[index];
    hear(worker);
    if (kind == MESSAGE_HELLO) {
        on_hello(c, index, message);
        return STATUS_OK;
    }
    if (kind == MESSAGE_PROGRESS) {
        on_progress(c, worker, &message->header);
        return STATUS_OK;
    }
    if (!fits_order(worker, message)) {
        log_write(c->options.log, LOG_WARNING, "run",
                  "rank %d answers for %d (%d), which it was not given; ignored", message->rank,
                  message->header.node, message->header.candidate);
        return STATUS_OK;
    }
    bool outcome = kind == MESSAGE_RESULT || kind == MESSAGE_FAILED || kind == MESSAGE_SUSPENDED;
    if (outcome && controller_works_on_call(worker)) {
        return on_answer(c, index, message, err);
    }
    switch (kind) {
    case MESSAGE_RESULT:
        return on_result(c, index, message, err);
    case MESSAGE_FAILED:
        return on_failure(c, index, message, err);
    case MESSAGE_SUSPENDED:
        return on_suspended(c, index, message, err);
    default:
        return FAIL(err, STATUS_FORMAT, "rank %d sent a message of kind %d", message->rank, kind);
    }
}

enum status controller_read_messages(struct controller *c, struct error *err)
{
    while (c->options.leader_count > 0) {
        bool came = false;
        struct message message;
        TRY(mailbox_receive(c->options.mailbox, MESSAGE_TO_CONTROLLER, &came, &message, err));
        if (!came) {
            return STATUS_OK;
        }
        enum status status = on_message(c, &message, err);
        message_fini(&message);
        TRY(status);
        c->times.messages++;
    }
    return STATUS_OK;
}
