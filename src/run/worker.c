#include "run/worker.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/json.h"
#include "base/mem.h"
#include "run/answer.h"
#include "run/candidate.h"
#include "run/dry_run.h"
#include "run/group.h"
#include "run/pace.h"
#include "run/simulated.h"
#include "run/stop.h"
#include "run/workspace.h"
#include "store/store.h"

static const double first_nap_s = 1e-3;
static const double longest_nap_s = 2e-2;
static const double progress_interval_s = 0.5;
static const double progress_rate = 200.0; /* messages a second that rank 0 gets at most */

struct worker {
    struct worker_options options;
    struct log_tail tail; /* what was logged since the order came */
    struct workspace workspace;
    struct peers *peers; /* of the group; NULL: alone */
    struct train_group train_group;
    bool leader;
    int64_t orders;                                        /* that were carried out */
    enum status (*turn)(void *context, struct error *err); /* may be NULL */
    void *turn_context;
    /* The order that is being carried out. */
    int32_t node, candidate;
    int64_t steps_done; /* of its training, as far as this order got */
    int64_t steps_total;
    bool stop_asked;
    int64_t stop_after;       /* with stop_asked: goes on until so many steps are done */
    bool stop_told;           /* rank 0 knows that it was heard */
    bool quit_asked;          /* QUIT came while busy */
    enum message_phase phase; /* that was last told of */
    double reported_at_s, report_interval_s;
    struct pace pace;
};

/* Rank 0 hears of all workers together so often at most, and of each far more often than a watchdog
 * needs. */
static double report_interval_s(const struct worker_options *options)
{
    double shared_s = options->workers / progress_rate;
    double watchdog_s = options->job->watchdog_seconds;
    double rarest_s = watchdog_s > 0.0 ? 0.1 * watchdog_s : shared_s;
    return fmax(progress_interval_s, fmin(shared_s, rarest_s));
}

enum status worker_create(const struct worker_options *options, struct worker **out,
                          struct error *err)
{
    struct worker *worker = mem_calloc(1, sizeof(*worker));
    if (worker == NULL) {
        return mem_fail(err, sizeof(*worker), "a worker");
    }
    worker->options = *options;
    worker->peers = options->peers;
    worker->report_interval_s = report_interval_s(options);
    options->log->tail = &worker->tail;
    worker->leader = true;
    if (worker->peers != NULL) {
        worker->train_group = group_trainer(worker->peers);
        worker->leader = worker->train_group.rank == 0;
    }
    enum status status = STATUS_OK;
    if (options->simulate_s > 0.0) {
        workspace_init(options->job, options->threads, options->log, &worker->workspace);
    } else {
        status = workspace_open(options->job, options->threads, options->place, options->log,
                                &worker->workspace, err);
    }
    if (status != STATUS_OK) {
        worker_destroy(worker);
        return status;
    }
    worker->workspace.recipe_folder = options->job->output; /* data that agents found lie there */
    *out = worker;
    return STATUS_OK;
}

void worker_destroy(struct worker *worker)
{
    if (worker != NULL) {
        worker->options.log->tail = NULL;
        workspace_close(&worker->workspace);
        free(worker);
    }
}

void worker_set_turn(struct worker *worker, enum status (*turn)(void *context, struct error *err),
                     void *context)
{
    worker->turn = turn;
    worker->turn_context = context;
}

enum status worker_connect(struct worker *worker, struct error *err)
{
    if (worker->peers == NULL || worker->workspace.device == NULL) {
        return STATUS_OK;
    }
    char how[512] = "";
    TRY(group_connect(worker->workspace.device, &worker->train_group, how, sizeof(how), err));
    log_write(worker->options.log, worker->leader ? LOG_INFO : LOG_DEBUG, "run",
              "the gradients of %d ranks are added up %s", worker->train_group.size, how);
    return STATUS_OK;
}

enum status worker_machine(const struct worker *worker, bool speed, struct machine *out,
                           struct error *err)
{
    if (worker->workspace.device == NULL) {
        *out = (struct machine){.precision = TRAIN_F32};
        return STATUS_OK;
    }
    return machine_measure(&worker->workspace, speed, out, err);
}

static enum status answer(struct worker *worker, enum message_kind kind, cJSON *payload,
                          struct error *err)
{
    struct message message = {
        .header = {.kind = (uint32_t)kind, .node = worker->node, .candidate = worker->candidate},
        .payload = payload,
    };
    return mailbox_send(worker->options.mailbox, 0, MESSAGE_TO_CONTROLLER, &message, err);
}

enum status worker_hello(struct worker *worker, struct error *err)
{
    if (!worker->leader) {
        return STATUS_OK;
    }
    char host[65] = "";
    gethostname(host, sizeof(host) - 1);
    char device[256] = "none";
    struct device *opened = worker->workspace.device;
    if (opened != NULL) {
        opened->ops->describe(opened, device, sizeof(device));
    }
    cJSON *hello = cJSON_CreateObject();
    cJSON_AddStringToObject(hello, "host", host);
    cJSON_AddStringToObject(hello, "device", device);
    cJSON_AddStringToObject(hello, "choice", opened != NULL ? opened->choice : "simulated");
    cJSON_AddNumberToObject(hello, "threads", worker->options.threads);
    cJSON_AddNumberToObject(hello, "ranks", worker->peers != NULL ? worker->train_group.size : 1);
    cJSON_AddBoolToObject(hello, "bf16",
                          opened != NULL && workspace_precision(&worker->workspace) == TRAIN_BF16);
    return answer(worker, MESSAGE_HELLO, hello, err);
}

/* ---- while an order is carried out ---- */

/* Messages that may come meanwhile: only STOP and QUIT mean anything now. */
static enum status read_while_busy(struct worker *worker, struct error *err)
{
    for (;;) {
        bool came = false;
        struct message message;
        TRY(mailbox_receive(worker->options.mailbox, MESSAGE_TO_WORKER, &came, &message, err));
        if (!came) {
            return STATUS_OK;
        }
        if (message.header.kind == MESSAGE_STOP || message.header.kind == MESSAGE_QUIT) {
            worker->stop_asked = true;
            worker->stop_told = false;
            worker->quit_asked = message.header.kind == MESSAGE_QUIT;
            worker->stop_after = worker->quit_asked ? 0 : message.header.done;
            stop_heard();
        } else {
            log_write(worker->options.log, LOG_WARNING, "run",
                      "worker: a message of kind %u while busy is ignored", message.header.kind);
        }
        message_fini(&message);
    }
}

static enum status send_progress(struct worker *worker, enum message_phase phase, int64_t done,
                                 int64_t total, struct error *err)
{
    struct message message = {.header = {.kind = MESSAGE_PROGRESS,
                                         .node = worker->node,
                                         .candidate = worker->candidate,
                                         .phase = (int32_t)phase,
                                         .done = done,
                                         .total = total,
                                         .step_s = pace_step_s(&worker->pace),
                                         .save_s = pace_save_s(&worker->pace),
                                         .gap_s = worker->pace.gap_s}};
    return mailbox_send(worker->options.mailbox, 0, MESSAGE_TO_CONTROLLER, &message, err);
}

/* Within a save the controller has no turn: it may want the file library, which the save holds. */
static enum status leader_tick(struct worker *worker, enum message_phase phase, int64_t done,
                               int64_t total, double now_s, struct error *err)
{
    if (worker->turn != NULL && phase != MESSAGE_SAVE) {
        TRY(worker->turn(worker->turn_context, err));
    }
    TRY(read_while_busy(worker, err));
    bool heard = worker->stop_asked && !worker->stop_told;
    bool due = now_s - worker->reported_at_s >= worker->report_interval_s;
    bool slow = phase != worker->phase; /* the next word may be long in coming */
    if (due || heard || slow) {
        worker->reported_at_s = now_s;
        worker->stop_told = worker->stop_asked;
        worker->phase = phase;
        TRY(send_progress(worker, phase, done, total, err));
    }
    return STATUS_OK;
}

static enum status pass_faults(const struct worker *worker, enum message_phase phase, int64_t done,
                               struct error *err)
{
    if (phase == MESSAGE_TRAIN) {
        char name[SEARCH_NAME_BYTES];
        char point[SEARCH_NAME_BYTES + 16];
        search_candidate_name(worker->node, worker->candidate, name);
        snprintf(point, sizeof(point), "run.worker.%s", name);
        TRY(fault_point("run.worker.step", err));
        return fault_point(point, err);
    }
    if (phase == MESSAGE_SAVE && done == 0) {
        return fault_point("run.worker.save", err);
    }
    return phase == MESSAGE_EVALUATE ? fault_point("run.worker.evaluate", err) : STATUS_OK;
}

/* Whether the work ends here. A training that has ended before the step that was asked for is over:
 * what comes behind it stops at once. */
static bool stops_here(const struct worker *worker, enum message_phase phase)
{
    bool far_enough = phase == MESSAGE_EVALUATE || worker->steps_done >= worker->stop_after;
    return worker->stop_asked && phase != MESSAGE_SAVE && far_enough;
}

static enum status on_tick(void *context, const char *name, int64_t done, int64_t total,
                           struct error *err)
{
    struct worker *worker = context;
    enum message_phase phase = message_find_phase(name);
    double now_s = clock_monotonic_s();
    TRY(peers_beat(worker->peers, err));
    if (phase == MESSAGE_NO_PHASE) { /* within a step: nothing but a sign of life */
        return worker->leader ? leader_tick(worker, MESSAGE_TRAIN, worker->steps_done,
                                            worker->steps_total, now_s, err)
                              : STATUS_OK;
    }
    TRY(pass_faults(worker, phase, done, err));
    if (phase == MESSAGE_TRAIN) {
        worker->steps_done = done;
        worker->steps_total = total;
        pace_mark_step(&worker->pace, done, now_s);
    } else {
        pace_mark(&worker->pace, phase != MESSAGE_SAVE, now_s);
    }
    if (worker->leader) {
        TRY(leader_tick(worker, phase, done, total, now_s, err));
    }
    /* Evaluation is the leader's alone; in training the whole group stops at one step. */
    int stop = stops_here(worker, phase) ? 1 : 0;
    if (worker->peers != NULL && phase == MESSAGE_TRAIN) {
        TRY(group_share_int(worker->peers, PEERS_LIMITED, &stop, err));
    }
    if (stop != 0) {
        stop_heard();
        return FAIL(err, STATUS_INTERRUPTED, "stopped on request");
    }
    return STATUS_OK;
}

/* ---- orders ---- */

struct order_paths {
    char name[SEARCH_NAME_BYTES];
    char weights[FILE_PATH_BYTES];
    char state[FILE_PATH_BYTES];
    char data[FILE_PATH_BYTES];
};

static enum status make_paths(struct worker *worker, struct order_paths *out, struct error *err)
{
    const char *folder = worker->options.job->output;
    search_candidate_name(worker->node, worker->candidate, out->name);
    TRY(store_weights_path(folder, worker->node, worker->candidate, out->weights, err));
    TRY(store_inflight_path(folder, worker->node, worker->candidate, out->state, err));
    return file_join(folder, "data", out->data, err);
}

/* The run's precision, where the job leaves it open, and the base model's checksum. */
static void set_run(struct workspace *workspace, const cJSON *order)
{
    const cJSON *precision = cJSON_GetObjectItemCaseSensitive(order, "precision");
    const cJSON *checksum = cJSON_GetObjectItemCaseSensitive(order, "model_checksum");
    if (cJSON_IsString(checksum) && strlen(checksum->valuestring) < sizeof(workspace->checksum)) {
        snprintf(workspace->checksum, sizeof(workspace->checksum), "%s", checksum->valuestring);
    }
    for (int i = TRAIN_F32; cJSON_IsString(precision) && i <= TRAIN_BF16; i++) {
        if (strcmp(precision->valuestring, train_precision_names[i]) == 0) {
            workspace->has_precision = true;
            workspace->precision = (enum train_precision)i;
        }
    }
}

/* A dry run trains without the group, which must not be asked where it stops. */
static enum status on_lone_tick(void *context, const char *name, int64_t done, int64_t total,
                                struct error *err)
{
    bool trains = strcmp(name, "train") == 0 || strcmp(name, "validate") == 0;
    return on_tick(context, trains ? "data" : name, done, total, err);
}

/* A call that the controller handed on: {"work": "dry", "body": {"recipe", "configs"}}, or "ask"
 * and the body of a chat call. The leader's alone. */
static enum status carry_out_call(struct worker *worker, const cJSON *order, bool dry,
                                  cJSON **result, struct error *err)
{
    const cJSON *body = cJSON_GetObjectItemCaseSensitive(order, "body");
    const struct progress progress = {.tick = on_lone_tick, .context = worker};
    bool simulated = worker->options.simulate_s > 0.0;
    if (!worker->leader) {
        return STATUS_OK;
    }
    set_run(&worker->workspace, order);
    TRY(fault_point(dry ? "run.worker.dry" : "run.worker.answer", err));
    if (!dry) {
        return simulated ? FAIL(err, STATUS_UNSUPPORTED, "a simulated worker runs no model")
                         : answer_question(&worker->workspace,
                                           worker->options.job->researcher.endpoints[0].model, body,
                                           &progress, result, err);
    }
    if (simulated) {
        *result = cJSON_CreateObject();
        return *result != NULL ? STATUS_OK : mem_fail(err, 64, "a dry run's result");
    }
    return dry_run(&worker->workspace, cJSON_GetObjectItemCaseSensitive(body, "recipe"),
                   cJSON_GetObjectItemCaseSensitive(body, "configs"), &progress, result, err);
}

/* The order's JSON: {"work": "train"|"test", "recipe": [...], "config": {...}, "precision": "f32"},
 * or a call's. */
static enum status carry_out(struct worker *worker, const cJSON *order, cJSON **result,
                             struct error *err)
{
    struct order_paths paths;
    TRY(fault_point("run.worker.order", err));
    const cJSON *work = cJSON_GetObjectItemCaseSensitive(order, "work");
    bool dry = cJSON_IsString(work) && strcmp(work->valuestring, "dry") == 0;
    bool asks = cJSON_IsString(work) && strcmp(work->valuestring, "ask") == 0;
    if (!asks) {
        workspace_drop_speaker(&worker->workspace);
    }
    if (dry || asks) {
        return carry_out_call(worker, order, dry, result, err);
    }
    TRY(make_paths(worker, &paths, err));
    const cJSON *recipe = cJSON_GetObjectItemCaseSensitive(order, "recipe");
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(order, "config");
    if (!cJSON_IsString(work) || !cJSON_IsArray(recipe) || !cJSON_IsObject(config)) {
        return FAIL(err, STATUS_FORMAT, "an order without work, recipe or config");
    }
    set_run(&worker->workspace, order);
    const struct progress progress = {.tick = on_tick, .context = worker};
    const double simulated_s = worker->options.simulate_s;
    struct candidate_order candidate = {
        .name = paths.name,
        .recipe = recipe,
        .config = config,
        .weights_path = paths.weights,
        .state_path = paths.state,
        .data_folder = paths.data,
        .pace = &worker->pace,
    };
    const struct train_group *group = worker->peers != NULL ? &worker->train_group : NULL;
    if (strcmp(work->valuestring, "test") == 0) {
        if (cJSON_GetArraySize(config) == 0) {
            candidate.weights_path = NULL;
        }
        if (!worker->leader) {
            return STATUS_OK;
        }
        return simulated_s > 0.0 ? simulated_score(worker->options.job, simulated_s, &candidate,
                                                   &progress, result, err)
                                 : candidate_score(&worker->workspace, &candidate, TASK_TEST,
                                                   &progress, result, err);
    }
    if (simulated_s > 0.0) {
        return simulated_train(worker->options.job, simulated_s, &candidate, group, &progress,
                               result, err);
    }
    return candidate_train(&worker->workspace, &candidate, group, &progress, result, err);
}

static void add_text(cJSON *object, const char *key, const char *text, size_t len_bytes)
{
    /* A message may quote bytes of a hostile file, or be cut inside a character. */
    char copy[LOG_TAIL_BYTES + 1];
    memcpy(copy, text, len_bytes);
    copy[len_bytes] = '\0';
    for (size_t i = 0; i < len_bytes && !json_utf8_valid(copy, len_bytes); i++) {
        copy[i] = (unsigned char)copy[i] < 0x80 ? copy[i] : '?';
    }
    cJSON_AddStringToObject(object, key, copy);
}

static cJSON *failure_to_json(const struct error *failure, const struct log_tail *tail,
                              double rank_seconds)
{
    cJSON *object = cJSON_CreateObject();
    cJSON *error = cJSON_AddObjectToObject(object, "error");
    cJSON_AddStringToObject(error, "code", status_name(failure->code));
    add_text(error, "message", failure->message, strlen(failure->message));
    cJSON_AddStringToObject(error, "file", failure->file);
    cJSON_AddNumberToObject(error, "line", failure->line);
    cJSON_AddNumberToObject(error, "rank", failure->rank);
    add_text(object, "log_tail", tail->text, tail->len_bytes);
    cJSON_AddNumberToObject(object, "rank_seconds", rank_seconds);
    return object;
}

/* Of the weights that were read, for the record. */
static void add_checksum(const struct worker *worker, cJSON *result)
{
    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        const struct model *model = worker->workspace.models[dtype];
        if (model != NULL) {
            cJSON_DeleteItemFromObjectCaseSensitive(result, "model_checksum");
            cJSON_AddStringToObject(result, "model_checksum", model->hash);
        }
    }
}

static enum status report_outcome(struct worker *worker, enum status outcome, cJSON *result,
                                  struct error *failure, double seconds, struct error *err)
{
    double ranks = worker->peers != NULL ? (double)worker->train_group.size : 1.0;
    if (outcome == STATUS_OK) {
        add_checksum(worker, result);
        return answer(worker, MESSAGE_RESULT, result, err);
    }
    cJSON_Delete(result);
    if (outcome == STATUS_INTERRUPTED) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddNumberToObject(object, "steps_done", (double)worker->steps_done);
        cJSON_AddNumberToObject(object, "rank_seconds", seconds * ranks);
        return answer(worker, MESSAGE_SUSPENDED, object, err);
    }
    failure->code = outcome;
    MPI_Comm_rank(MPI_COMM_WORLD, &failure->rank);
    return answer(worker, MESSAGE_FAILED, failure_to_json(failure, &worker->tail, seconds * ranks),
                  err);
}

/* A failure may have left another in the device, which the next candidate would be blamed for. And
 * a device that is lost fails whatever it is asked. */
static enum status clear_device(struct worker *worker, enum status outcome, struct error *failure)
{
    struct device *device = worker->workspace.device;
    struct error left = {0};
    if (outcome == STATUS_OK || outcome == STATUS_DEVICE || device == NULL) {
        return outcome;
    }
    if (device->ops->check(device, &left) == STATUS_DEVICE) {
        *failure = left;
        return STATUS_DEVICE;
    }
    return outcome;
}

static enum status do_order(struct worker *worker, const struct message *message, struct error *err)
{
    worker->node = message->header.node;
    worker->candidate = message->header.candidate;
    double started_s = clock_monotonic_s();
    worker->orders++;
    worker->stop_asked = false;
    worker->stop_after = 0;
    worker->stop_told = false;
    worker->steps_done = 0;
    worker->steps_total = 0;
    worker->phase = MESSAGE_NO_PHASE;
    worker->reported_at_s = 0.0;
    worker->tail.len_bytes = 0;
    pace_begin(&worker->pace, started_s);
    cJSON *result = NULL;
    struct error failure = {0};
    enum status outcome = carry_out(worker, message->payload, &result, &failure);
    outcome = clear_device(worker, outcome, &failure);
    bool lost_group = outcome == STATUS_MPI && worker->peers != NULL;
    if (worker->leader && !lost_group) { /* that is no failure of the candidate */
        TRY(report_outcome(worker, outcome, result, &failure, clock_monotonic_s() - started_s,
                           err));
    } else {
        cJSON_Delete(result);
    }
    if (outcome == STATUS_DEVICE || lost_group) {
        *err = failure;
        return outcome;
    }
    return STATUS_OK;
}

/* The leader's message for all ranks of the group. */
static enum status share_message(struct worker *worker, struct message *message, struct error *err)
{
    int head[3] = {(int)message->header.kind, message->header.node, message->header.candidate};
    for (int i = 0; i < 3; i++) {
        TRY(group_share_int(worker->peers, PEERS_UNLIMITED, &head[i], err));
    }
    message->header.kind = (uint32_t)head[0];
    message->header.node = head[1];
    message->header.candidate = head[2];
    char *text = worker->leader ? json_print_line(message->payload) : NULL;
    char *empty = NULL;
    if (worker->leader && text == NULL) {
        text = empty = mem_strdup("null");
    }
    enum status status = group_share_text(worker->peers, &text, MESSAGE_MAX_BYTES, err);
    if (status == STATUS_OK && !worker->leader) {
        status = json_parse(text, strlen(text), "order", &message->payload, err);
    }
    free(text);
    return status;
}

enum status worker_step(struct worker *worker, bool *done, struct error *err)
{
    bool came = false;
    struct message message;
    memset(&message, 0, sizeof(message));
    *done = false;
    if (worker->quit_asked) {
        message.header.kind = MESSAGE_QUIT; /* the group must hear of it too */
    } else if (worker->leader) {
        TRY(mailbox_receive(worker->options.mailbox, MESSAGE_TO_WORKER, &came, &message, err));
        if (!came) {
            return STATUS_OK;
        }
    }
    if (worker->peers != NULL) {
        TRY(share_message(worker, &message, err)); /* the others wait here for the next order */
    }
    enum status status = STATUS_OK;
    if (message.header.kind == MESSAGE_QUIT || message.header.kind == MESSAGE_STOP) {
        stop_heard();
    }
    if (message.header.kind == MESSAGE_QUIT) {
        *done = true;
    } else if (message.header.kind == MESSAGE_ORDER) {
        status = do_order(worker, &message, err);
    } else if (message.header.kind == MESSAGE_STOP && worker->leader) {
        log_write(worker->options.log, LOG_DEBUG, "run", "worker: nothing to stop");
    }
    message_fini(&message);
    return status;
}

/* A leader looks for messages often while some come, and then less and less often: hundreds of idle
 * workers may share a machine. The others of its group nap within worker_step. */
static enum status serve(struct worker *worker, struct error *err)
{
    double nap_s = first_nap_s;
    for (;;) {
        bool done = false;
        int64_t before = worker->orders;
        TRY(worker_step(worker, &done, err));
        if (done) {
            return STATUS_OK;
        }
        nap_s = worker->orders != before ? first_nap_s : nap_s * 1.25;
        nap_s = nap_s < longest_nap_s ? nap_s : longest_nap_s;
        clock_sleep_s(nap_s);
    }
}

enum status worker_run(struct worker *worker, struct error *err)
{
    TRY(worker_hello(worker, err));
    enum status status = serve(worker, err);
    if (status == STATUS_DEVICE && worker->peers == NULL) {
        /* Rank 0 knows. An end of this rank now would end those that save their work meanwhile. */
        struct error ignored;
        (void)serve(worker, &ignored);
    }
    return status;
}
