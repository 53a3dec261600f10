#include "run/controller.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "eval/scorer.h"
#include "run/controller_state.h"
#include "run/facts.h"
#include "run/machine.h"
#include "run/speed.h"
#include "run/stop.h"
#include "run/training_file.h"
#include "train/trainer.h"

/* ---- opening ---- */

/* The job for the record. What its precision "auto" means is written down: the training states of a
 * run are of one precision, on whatever machines it goes on later. */
static char *job_text(const struct controller *c)
{
    cJSON *job = cJSON_Duplicate(c->options.job->json, true);
    cJSON *compute = cJSON_GetObjectItemCaseSensitive(job, "compute");
    if (compute == NULL) {
        compute = cJSON_AddObjectToObject(job, "compute");
    }
    cJSON_DeleteItemFromObjectCaseSensitive(compute, "precision");
    cJSON_AddStringToObject(compute, "precision", train_precision_names[c->facts.precision]);
    char *text = json_print_line(job);
    cJSON_Delete(job);
    return text;
}

/* The precision that a search began with; `otherwise` if it does not say. */
static enum train_precision recorded_precision(const struct search *search,
                                               enum train_precision otherwise)
{
    cJSON *job = search->identity.job != NULL ? cJSON_Parse(search->identity.job) : NULL;
    const cJSON *compute = cJSON_GetObjectItemCaseSensitive(job, "compute");
    const cJSON *precision = cJSON_GetObjectItemCaseSensitive(compute, "precision");
    const char *name = cJSON_IsString(precision) ? precision->valuestring : "";
    for (int i = TRAIN_F32; i <= TRAIN_BF16; i++) {
        otherwise =
            strcmp(name, train_precision_names[i]) == 0 ? (enum train_precision)i : otherwise;
    }
    cJSON_Delete(job);
    return otherwise;
}

static enum status begin_search(struct controller *c, const char *task_hash, struct error *err)
{
    const struct job *job = c->options.job;
    const struct scorer *scorer = scorer_find(job->task.metric);
    cJSON *event = controller_event("started", -1, -1);
    char *text = job_text(c);
    cJSON_AddStringToObject(event, "job", text != NULL ? text : "{}");
    cJSON_free(text);
    cJSON_AddStringToObject(event, "model_hash", c->options.model->hash);
    cJSON_AddStringToObject(event, "task_hash", task_hash);
    cJSON_AddStringToObject(event, "metric", job->task.metric);
    cJSON_AddBoolToObject(event, "larger_is_better", scorer->best > scorer->worst);
    cJSON_AddStringToObject(event, "version", TREX_VERSION);
    cJSON_AddNumberToObject(event, "seed", (double)job->seed);
    return controller_emit(c, event, -1, err);
}

/* A folder may be resumed with other budgets, but not with another model, task or seed. */
static enum status check_identity(const struct controller *c, const char *task_hash,
                                  struct error *err)
{
    const struct job *job = c->options.job;
    const struct search_identity *identity = &c->search.identity;
    const char *other = NULL;
    if (strcmp(identity->model_hash, c->options.model->hash) != 0) {
        other = "base model";
    } else if (strcmp(identity->task_hash, task_hash) != 0) {
        other = "validation or test split, prompt template or metric";
    } else if (identity->seed != job->seed) {
        other = "seed";
    }
    if (other != NULL) {
        return FAIL(err, STATUS_INVALID,
                    "%s holds a search with another %s; give another folder with --out, or the "
                    "old job",
                    job->output, other);
    }
    return STATUS_OK;
}

/* A candidate that was running when the job died starts again, unless it seems to have killed it.
 */
static enum status requeue_candidate(struct controller *c, int32_t node, int32_t index,
                                     struct error *err)
{
    const struct candidate *candidate = &c->search.nodes[node].candidates[index];
    if (candidate->state == CANDIDATE_FINISHED || candidate->state == CANDIDATE_FAILED) {
        return STATUS_OK;
    }
    char path[FILE_PATH_BYTES];
    TRY(store_inflight_path(c->options.job->output, node, index, path, err));
    int64_t steps_done = training_file_steps(path);
    if (steps_done > candidate->steps_done && candidate->state == CANDIDATE_RUNNING) {
        /* It got further than ever before: it is not what kills the job. */
        cJSON *progress = controller_event("candidate_suspended", node, index);
        cJSON_AddNumberToObject(progress, "steps_done", (double)steps_done);
        cJSON_AddNumberToObject(progress, "rank_seconds", 0.0);
        TRY(controller_emit(c, progress, -1, err));
        return controller_push_ready(c, node, index, err);
    }
    if (candidate->attempts < SEARCH_ATTEMPTS_MAX) {
        return controller_push_ready(c, node, index, err);
    }
    struct error failure;
    FAIL(&failure, STATUS_INTERNAL,
         "its job died %d times while it was running and got no further; it is set aside",
         SEARCH_ATTEMPTS_MAX);
    cJSON *event = controller_failure(node, index, &failure, "", 0.0);
    return controller_emit(c, event, -1, err);
}

static enum status requeue_open_nodes(struct controller *c, struct error *err)
{
    for (int32_t node = 0; node < c->search.tree.count; node++) {
        if (c->search.tree.nodes[node].state != TREE_NODE_OPEN) {
            continue;
        }
        TRY(controller_add_open(c, node, err));
        for (int32_t k = 0; k < c->search.nodes[node].candidate_count; k++) {
            TRY(requeue_candidate(c, node, k, err));
        }
    }
    return STATUS_OK;
}

static enum status begin_allocation(struct controller *c, struct error *err)
{
    char host[65] = "";
    gethostname(host, sizeof(host) - 1);
    cJSON *event = controller_event("allocation_started", -1, -1);
    cJSON_AddNumberToObject(event, "ranks", c->options.leader_count);
    cJSON_AddStringToObject(event, "host", host);
    return controller_emit(c, event, -1, err);
}

/* Reads what the folder holds; an empty search if it holds none. */
static enum status load_search(struct controller *c, struct error *err)
{
    char note[1024] = "";
    enum status loaded =
        store_run_load(c->options.job->output, &c->search, note, sizeof(note), err);
    if (loaded != STATUS_OK && loaded != STATUS_NOT_FOUND) {
        return loaded;
    }
    if (note[0] != '\0') {
        log_write(c->options.log, LOG_WARNING, "run", "%s", note);
    }
    if (loaded == STATUS_NOT_FOUND) {
        search_init(&c->search);
    }
    return STATUS_OK;
}

/* Goes on from what the folder held. */
static enum status open_search(struct controller *c, struct error *err)
{
    const char *folder = c->options.job->output;
    char task_hash[HASH_TEXT_BYTES];
    TRY(workspace_task_hash(c->options.workspace, task_hash, err));
    TRY(journal_open(folder, NULL, c->search.last_sequence, &c->journal, err));
    TRY(snapshot_create(folder, c->journal, &c->snapshot, err));
    c->next_sequence = c->search.last_sequence + 1;
    c->snapshot_sequence = -1;
    if (c->search.last_sequence == 0) {
        TRY(begin_search(c, task_hash, err));
    } else {
        TRY(check_identity(c, task_hash, err));
        if (c->search.end == SEARCH_FINISHED) {
            c->finish_recorded = true;
            c->snapshot_sequence = c->search.last_sequence; /* nothing new to write */
            return STATUS_OK;
        }
        log_write(c->options.log, LOG_INFO, "run", "resuming %s: %d nodes so far", folder,
                  c->search.tree.count);
        TRY(requeue_open_nodes(c, err));
        TRY(controller_find_kept_weights(c, err));
    }
    return begin_allocation(c, err);
}

static enum status gather_facts(struct controller *c, struct error *err)
{
    const struct job *job = c->options.job;
    const struct machine *machine = &c->options.machine;
    enum train_precision precision = machine->precision;
    if (job->precision == JOB_PRECISION_AUTO) {
        precision = recorded_precision(&c->search, precision);
    }
    TRY(facts_gather(c->options.workspace, c->options.model, precision, c->limits.memory_bytes,
                     &c->facts, err));
    if (machine->flops_per_s > 0.0) {
        c->facts.tokens_per_second = speed_tokens_per_second(
            &c->options.model->config, &c->facts, c->facts.lora_only, machine->flops_per_s);
    }
    return STATUS_OK;
}

enum status controller_create(const struct controller_options *options, struct controller **out,
                              struct error *err)
{
    enum status status = STATUS_OK;
    struct controller *c = mem_calloc(1, sizeof(*c));
    if (c == NULL) {
        return mem_fail(err, sizeof(*c), "the controller");
    }
    c->options = *options;
    search_init(&c->search);
    c->started_s = c->recorded_time_s = c->snapshot_at_s = clock_monotonic_s();
    c->workers = mem_calloc((size_t)options->leader_count, sizeof(*c->workers));
    if (c->workers == NULL) {
        status = mem_fail(err, sizeof(*c->workers), "workers");
        goto cleanup;
    }
    for (int i = 0; i < options->leader_count; i++) {
        c->workers[i].rank = options->leaders[i];
    }
    c->limits.model = &options->model->config;
    c->limits.memory_bytes =
        machine_worker_memory(options->job, &options->machine, options->node_workers);
    c->limits.training_bytes = trainer_bytes;
    TRY_CLEANUP(load_search(c, err));
    controller_open_control(c);
    TRY_CLEANUP(gather_facts(c, err));
    TRY_CLEANUP(
        researcher_open(options->job->researcher, &c->facts, options->log, &c->researcher, err));
    TRY_CLEANUP(open_search(c, err));
    *out = c;
    c = NULL;
cleanup:
    controller_destroy(c);
    return status;
}

void controller_destroy(struct controller *c)
{
    if (c == NULL) {
        return;
    }
    snapshot_destroy(c->snapshot);
    journal_close(c->journal);
    researcher_close(c->researcher);
    while (c->first_pending != NULL) {
        struct pending_event *next = c->first_pending->next;
        cJSON_Delete(c->first_pending->event);
        free(c->first_pending);
        c->first_pending = next;
    }
    search_fini(&c->search);
    free(c->workers);
    free(c->ready);
    free(c->kept);
    free(c->open_nodes);
    free(c);
}

/* ---- messages ---- */

static int find_worker(const struct controller *c, int rank)
{
    for (int i = 0; i < c->options.leader_count; i++) {
        if (c->workers[i].rank == rank) {
            return i;
        }
    }
    return -1;
}

/* A worker whose answer does not fit has failed, whatever it says. */
static enum status refuse_result(struct controller *c, int index, const struct message *message,
                                 bool test, struct error *refused, struct error *err)
{
    error_context(refused, "rank %d sent a result that is none", message->rank);
    if (test) {
        log_write(c->options.log, LOG_ERROR, "run", "%s", refused->message);
        return STATUS_OK;
    }
    cJSON *event =
        controller_failure(message->header.node, message->header.candidate, refused, "", 0.0);
    return controller_emit(c, event, index, err);
}

static enum status on_result(struct controller *c, int index, struct message *message,
                             struct error *err)
{
    struct controller_worker *worker = &c->workers[index];
    bool test = worker->work == WORK_TEST;
    struct error refused = {0};
    worker->work = WORK_NONE;
    enum status fits = test ? search_score_check(message->payload, &refused)
                            : search_result_check(message->payload, &refused);
    if (fits != STATUS_OK) {
        return refuse_result(c, index, message, test, &refused, err);
    }
    cJSON *event = controller_event(test ? "test_scored" : "candidate_finished",
                                    message->header.node, message->header.candidate);
    cJSON_AddItemToObject(event, test ? "score" : "result", message->payload);
    message->payload = NULL;
    if (!test) {
        /* The baseline's weights are the base model's own. */
        cJSON_AddBoolToObject(event, "weights_kept", message->header.node > 0);
    }
    return controller_emit(c, event, index, err);
}

static const char *text_of(const cJSON *object, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(value) ? value->valuestring : "";
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
static enum status on_broken_machine(struct controller *c, int index, const struct message *message,
                                     const struct error *failure, struct error *err)
{
    struct error ignored = {0};
    if (controller_emit(c, suspension(message), index, &ignored) == STATUS_OK) {
        journal_flush(c->journal, &ignored);
    }
    *err = *failure;
    return failure->code;
}

/* A worker's device is gone, and its rank with it: the search stops, to be started again. What that
 * worker had counts as running when its job died, so that a candidate that kills every device it
 * meets is set aside in the end; what others had does not. */
static enum status on_lost_device(struct controller *c, int index, const struct error *failure,
                                  struct error *err)
{
    struct error ignored = {0};
    for (int i = 0; i < c->options.leader_count; i++) {
        const struct controller_worker *other = &c->workers[i];
        if (i == index || other->work != WORK_TRAIN) {
            continue;
        }
        const struct candidate *candidate =
            &c->search.nodes[other->node].candidates[other->candidate];
        cJSON *event = controller_event("candidate_suspended", other->node, other->candidate);
        cJSON_AddNumberToObject(event, "steps_done", (double)candidate->steps_done);
        cJSON_AddNumberToObject(event, "rank_seconds", 0.0);
        (void)controller_emit(c, event, i, &ignored);
    }
    (void)journal_flush(c->journal, &ignored);
    *err = *failure;
    return failure->code;
}

static enum status on_failure(struct controller *c, int index, const struct message *message,
                              struct error *err)
{
    struct controller_worker *worker = &c->workers[index];
    bool test = worker->work == WORK_TEST;
    struct error failure = failure_of(message);
    worker->work = WORK_NONE;
    if (failure.code == STATUS_NO_SPACE || failure.code == STATUS_IO ||
        failure.code == STATUS_PERMISSION) {
        return on_broken_machine(c, index, message, &failure, err);
    }
    if (failure.code == STATUS_DEVICE) {
        return on_lost_device(c, index, &failure, err);
    }
    if (test) {
        log_write(c->options.log, LOG_ERROR, "run", "the test split could not be scored: %s",
                  failure.message);
        return STATUS_OK;
    }
    cJSON *event = controller_failure(message->header.node, message->header.candidate, &failure,
                                      text_of(message->payload, "log_tail"),
                                      number_of(message->payload, "rank_seconds", 1e12));
    return controller_emit(c, event, index, err);
}

static enum status on_suspended(struct controller *c, int index, const struct message *message,
                                struct error *err)
{
    struct controller_worker *worker = &c->workers[index];
    bool test = worker->work == WORK_TEST;
    worker->work = WORK_NONE;
    if (test) {
        return STATUS_OK;
    }
    if (!c->stopping) {
        TRY(controller_push_ready(c, message->header.node, message->header.candidate, err));
    }
    return controller_emit(c, suspension(message), index, err);
}

static void on_hello(struct controller *c, int index, const struct message *message)
{
    c->workers[index].present = true;
    log_write(c->options.log, LOG_INFO, "run", "worker on rank %d (%s): %s (%s)",
              c->workers[index].rank, text_of(message->payload, "host"),
              text_of(message->payload, "device"), text_of(message->payload, "choice"));
}

/* Whether an answer is about what the worker was told to do. */
static bool fits_order(const struct controller_worker *worker, const struct message *message)
{
    return worker->work != WORK_NONE && worker->node == message->header.node &&
           worker->candidate == message->header.candidate && message->payload != NULL;
}

static enum status on_message(struct controller *c, struct message *message, struct error *err)
{
    int index = find_worker(c, message->rank);
    enum message_kind kind = (enum message_kind)message->header.kind;
    if (index < 0) {
        return FAIL(err, STATUS_FORMAT, "rank %d is no worker", message->rank);
    }
    struct controller_worker *worker = &c->workers[index];
    worker->heard_s = clock_monotonic_s();
    if (kind == MESSAGE_HELLO) {
        on_hello(c, index, message);
        return STATUS_OK;
    }
    if (kind == MESSAGE_PROGRESS) {
        worker->phase = message->header.phase;
        worker->done = message->header.done;
        worker->total = message->header.total;
        return STATUS_OK;
    }
    if (!fits_order(worker, message)) {
        log_write(c->options.log, LOG_WARNING, "run",
                  "rank %d answers for n%04d-c%d, which it was not given; ignored", message->rank,
                  message->header.node, message->header.candidate);
        return STATUS_OK;
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

static enum status read_messages(struct controller *c, struct error *err)
{
    for (;;) {
        bool came = false;
        struct message message;
        double begun_s = clock_monotonic_s();
        TRY(mailbox_receive(c->options.mailbox, MESSAGE_TO_CONTROLLER, &came, &message, err));
        if (!came) {
            return STATUS_OK;
        }
        enum status status = on_message(c, &message, err);
        message_fini(&message);
        TRY(status);
        c->messages++;
        c->busy_s += clock_monotonic_s() - begun_s;
    }
}

/* ---- the turn ---- */

static enum status check_stop(struct controller *c, struct error *err)
{
    if ((!stop_requested() && c->halt == NULL) || c->stopping) {
        return STATUS_OK;
    }
    c->stopping = true;
    c->stop_asked_s = clock_monotonic_s();
    if (c->halt != NULL) {
        log_write(c->options.log, LOG_INFO, "run",
                  "halting; candidates save their state at the next step");
    } else {
        log_write(c->options.log, LOG_INFO, "run",
                  "signal %d: stopping; candidates save their state at the next step",
                  stop_signal());
    }
    c->patience_s = stop_patience_s(c->options.deadline_s, clock_wall_s());
    return controller_send_all(c, MESSAGE_STOP, err); /* idle workers too: they see that we live */
}

/* Everything to disk, workers home. */
static enum status end_run(struct controller *c, enum status outcome, struct error *err)
{
    if (!c->finish_recorded) {
        TRY(controller_record_time(c, err));
    }
    TRY(journal_flush(c->journal, err));
    TRY(controller_apply_durable(c, err));
    TRY(snapshot_wait(c->snapshot, err));
    if (c->snapshot_sequence != c->search.last_sequence) {
        TRY(controller_snapshot(c, true, err));
        TRY(snapshot_wait(c->snapshot, err));
    }
    TRY(controller_send_all(c, MESSAGE_QUIT, err));
    log_write(c->options.log, LOG_DEBUG, "run", "controller: %lld messages, %.1f us each",
              (long long)c->messages, controller_micros_per_message(c));
    c->outcome = outcome;
    c->done = true;
    controller_report_end(c);
    return STATUS_OK;
}

/* Whether a worker's state may still reach the disk. What is not safe at the time limit is lost to
 * its last checkpoint, no further. After SIGTERM a worker that says nothing at all has died: that
 * is when launchers send it. */
static bool worth_waiting(const struct controller *c)
{
    double waited_s = clock_monotonic_s() - c->stop_asked_s;
    bool silence_tells = stop_signal() == SIGTERM && waited_s >= STOP_GRACE_S;
    for (int i = 0; i < c->options.leader_count; i++) {
        const struct controller_worker *worker = &c->workers[i];
        bool silent = worker->heard_s < c->stop_asked_s;
        if (worker->work != WORK_NONE && silent && silence_tells) {
            return false;
        }
    }
    return waited_s < c->patience_s;
}

static enum status check_end(struct controller *c, struct error *err)
{
    if (c->search.end == SEARCH_FINISHED && c->first_pending == NULL) {
        return end_run(c, STATUS_OK, err);
    }
    if (c->stopping) {
        if (controller_busy_workers(c) == 0 || !worth_waiting(c)) {
            return end_run(c, c->halt != NULL ? STATUS_OK : STATUS_INTERRUPTED, err);
        }
    }
    return STATUS_OK;
}

enum status controller_turn(struct controller *c, bool *done, struct error *err)
{
    *done = c->done;
    if (c->done) {
        return STATUS_OK;
    }
    TRY(controller_check_control(c, err));
    TRY(check_stop(c, err));
    TRY(read_messages(c, err));
    TRY(controller_dispatch(c, err)); /* first what is ready: no worker waits for the disk */
    TRY(controller_apply_durable(c, err));
    TRY(controller_close_rounds(c, err));
    TRY(controller_plan(c, err));
    TRY(controller_collect_plans(c, err));
    TRY(controller_dispatch(c, err));
    TRY(controller_finish(c, err));
    TRY(controller_snapshot(c, false, err));
    controller_report(c, false);
    TRY(check_end(c, err));
    *done = c->done;
    return STATUS_OK;
}

enum status controller_outcome(const struct controller *controller)
{
    return controller->outcome;
}

bool controller_waits(const struct controller *controller)
{
    return controller_busy_workers(controller) > 0;
}

const struct search *controller_search(const struct controller *controller)
{
    return &controller->search;
}

double controller_micros_per_message(const struct controller *controller)
{
    return controller->messages > 0 ? 1e6 * controller->busy_s / (double)controller->messages : 0.0;
}
