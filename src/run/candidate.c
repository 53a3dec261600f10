#include "run/candidate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "eval/eval.h"
#include "run/checkpoint.h"
#include "run/prepare.h"
#include "run/weights_file.h"
#include "tree/search.h"

/* A pass of an evaluation is the longest time without a chance to stop: short where the device
 * waits for each. */
enum { MAX_CASES = 16, CURVE_POINTS_MAX = 256, WAITING_BATCH_TOKENS = 512 };

enum status candidate_config(const struct workspace *workspace, const cJSON *json,
                             struct train_config *out, struct error *err)
{
    const struct job *job = workspace->job;
    struct json_problems problems;
    json_problems_init(&problems);
    *out = train_config_default();
    out->precision = workspace_precision(workspace);
    out->seed = job->seed;
    if (job->batch_tokens > 0) {
        out->batch_tokens = job->batch_tokens;
    }
    train_config_read(json, "", &problems, out);
    if (job->max_steps > 0 && (out->max_steps == 0 || out->max_steps > job->max_steps)) {
        out->max_steps = job->max_steps;
    }
    enum status status = json_problems_check(&problems, "training configuration", err);
    json_problems_fini(&problems);
    return status;
}

/* ---- results as JSON ---- */

static struct search_score score_of(const struct eval_result *result)
{
    struct search_score score = {
        .present = true,
        .value = result->score,
        .standard_error = result->standard_error,
        .loss = result->loss,
        .rows = result->rows,
        .truncated = result->truncated,
        .unfinished = result->unfinished,
        .format_failures = result->format_failures,
        .seconds = result->seconds,
    };
    return score;
}

static void add_number_or_null(cJSON *array, double value)
{
    cJSON_AddItemToArray(array, isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull());
}

/* At most CURVE_POINTS_MAX points: every point with a validation loss, the last one, and others
 * evenly between. */
static cJSON *curve_to_json(const struct train_point *curve, int64_t count)
{
    cJSON *list = cJSON_CreateArray();
    int64_t stride = (count + CURVE_POINTS_MAX / 2 - 1) / (CURVE_POINTS_MAX / 2);
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
        const struct train_point *point = &curve[i];
        bool wanted = i % stride == 0 || i + 1 == count || !isnan(point->validation_loss);
        if (!wanted || kept >= CURVE_POINTS_MAX) {
            continue;
        }
        kept++;
        cJSON *row = cJSON_CreateArray();
        cJSON_AddItemToArray(row, cJSON_CreateNumber((double)point->step));
        cJSON_AddItemToArray(row, cJSON_CreateNumber((double)point->tokens));
        add_number_or_null(row, point->train_loss);
        add_number_or_null(row, point->validation_loss);
        add_number_or_null(row, point->gradient_norm);
        add_number_or_null(row, point->learning_rate);
        add_number_or_null(row, point->seconds);
        cJSON_AddItemToArray(list, row);
    }
    return list;
}

static void add_evaluation(cJSON *result, const struct eval_result *evaluation)
{
    struct search_score score = score_of(evaluation);
    cJSON_AddItemToObject(result, "validation", search_score_to_json(&score));
    cJSON *cases = cJSON_AddArrayToObject(result, "cases");
    for (int64_t i = 0; i < evaluation->case_count; i++) {
        const struct eval_case *failed = &evaluation->cases[i];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddNumberToObject(item, "row", (double)failed->row);
        cJSON_AddNumberToObject(item, "score", failed->score);
        cJSON_AddStringToObject(item, "prompt", failed->prompt);
        cJSON_AddStringToObject(item, "answer", failed->answer);
        cJSON_AddStringToObject(item, "output", failed->output);
        cJSON_AddItemToArray(cases, item);
    }
    cJSON *confusions = cJSON_AddArrayToObject(result, "confusions");
    for (int i = 0; i < evaluation->confusion_count; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "expected", evaluation->confusions[i].expected);
        cJSON_AddStringToObject(item, "found", evaluation->confusions[i].found);
        cJSON_AddNumberToObject(item, "count", (double)evaluation->confusions[i].count);
        cJSON_AddItemToArray(confusions, item);
    }
}

/* ---- evaluation ---- */

static enum status evaluate(struct workspace *workspace, const struct model *model,
                            const struct network *network, enum task_split split,
                            const struct progress *progress, struct eval_result *out,
                            struct error *err)
{
    const struct dataset *rows = NULL;
    TRY(workspace_split(workspace, split, &rows, err));
    const struct eval_options options = {
        .max_cases = split == TASK_TEST ? 0 : MAX_CASES, /* no row of test is ever kept */
        .batch_tokens = workspace->device->ops->asynchronous ? 0 : WAITING_BATCH_TOKENS,
        .max_length = workspace_sequence_length(workspace->job, &model->config, NULL),
        .seed = workspace->job->seed,
    };
    return eval_run(model, network, &workspace->job->task, workspace_chat(workspace, model), rows,
                    &options, progress, out, err);
}

/* ---- training ---- */

/* A training under way. */
struct training {
    struct workspace *workspace;
    const struct candidate_order *order;
    const struct progress *outer;
    const struct train_group *group;
    struct train_config config;
    const struct model *model; /* borrowed from the workspace */
    struct prepared_data data;
    struct encoded_dataset validation;
    struct trainer *trainer;
    struct checkpoint checkpoint;
};

static bool leads(const struct train_group *group)
{
    return group == NULL || group->rank == 0;
}

/* After each whole step, and between batches of the evaluation behind the last, the trainer's state
 * may be read. Within a validation it may not: the best parameters are about to change. */
static enum status on_tick(void *context, const char *phase, int64_t done, int64_t total,
                           struct error *err)
{
    struct training *training = context;
    TRY(progress_tick(training->outer, phase, done, total, err));
    bool whole = strcmp(phase, "train") == 0 ? done < total : strcmp(phase, "evaluate") == 0;
    return whole ? checkpoint_tick(&training->checkpoint, err) : STATUS_OK;
}

/* Everything that a training's bits depend on. */
static enum status fingerprint(const struct candidate_order *order, const struct model *model,
                               const struct encoded_dataset *data, char out[HASH_TEXT_BYTES],
                               struct error *err)
{
    char *config = json_print_line(order->config);
    struct hash_state *state = hash_create();
    if (config == NULL || state == NULL) {
        cJSON_free(config);
        hash_destroy(state);
        return mem_fail(err, 4096, "a fingerprint");
    }
    hash_update(state, config, strlen(config));
    hash_update(state, model->hash, strlen(model->hash));
    hash_update(state, data->ids, (size_t)data->start[data->count] * sizeof(*data->ids));
    hash_digest(state, out);
    hash_destroy(state);
    cJSON_free(config);
    return STATUS_OK;
}

/* How many ranks of the group say yes; 1 or 0 for a lone rank. */
static enum status count_ranks(const struct train_group *group, bool yes, int *count,
                               struct error *err)
{
    double sum = yes ? 1.0 : 0.0;
    if (group != NULL && group->size > 1) {
        TRY(group->sum_f64(group->context, &sum, 1, err));
    }
    *count = (int)sum;
    return STATUS_OK;
}

/* A rank that could not begin says so to the others, which would wait for it for ever. */
static enum status begin_together(const struct train_group *group, enum status mine,
                                  struct error *err)
{
    int failed = 0;
    struct error ignored = {0};
    TRY(count_ranks(group, mine != STATUS_OK, &failed, mine != STATUS_OK ? &ignored : err));
    if (mine == STATUS_OK && failed > 0) {
        return FAIL(err, STATUS_NO_MEMORY, "%d of the %d ranks of the group could not begin",
                    failed, group->size);
    }
    return mine;
}

static enum status encode_validation(struct workspace *workspace, const struct model *model,
                                     int64_t max_length, const struct progress *progress,
                                     struct encoded_dataset *out, struct error *err)
{
    const struct dataset *rows = NULL;
    TRY(workspace_split(workspace, TASK_VALIDATION, &rows, err));
    const struct encode_options options = {
        .chat = workspace_chat(workspace, model), .max_length = max_length, .progress = progress};
    return encode_dataset(&workspace->job->task, model->tokenizer, rows, &options, out, err);
}

/* Memory is short, and full fine-tuning has a copy of the base's weights by now. */
static void release_base(void *context)
{
    struct training *training = context;
    workspace_drop_weights(training->workspace,
                           training->config.precision == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32);
}

/* Where the precision is left to the device, a training that was stopped on another one goes on in
 * the precision of its state. */
static void keep_precision(const struct workspace *workspace, const struct candidate_order *order,
                           struct train_config *config)
{
    bool chosen = workspace->job->precision != JOB_PRECISION_AUTO || workspace->has_precision ||
                  cJSON_GetObjectItemCaseSensitive(order->config, "precision") != NULL;
    if (!chosen && order->state_path != NULL) {
        (void)training_file_precision(order->state_path, &config->precision);
    }
}

static enum status try_trainer(struct training *training, bool with_base, struct error *err)
{
    const struct trainer_inputs inputs = {
        .model = training->model,
        .config = &training->config,
        .train = &training->data.encoded,
        .validation = &training->validation,
        .group = training->group,
        .log = training->workspace->log,
        .progress = training->outer,
        .release_base = with_base ? NULL : release_base,
        .release_context = training,
    };
    return trainer_create(training->workspace->device, &inputs, &training->trainer, err);
}

/* The trainer at its first step, and what keeps its state; in place of those there were. */
static enum status create_trainer(struct training *training, struct error *err)
{
    struct workspace *workspace = training->workspace;
    const struct candidate_order *order = training->order;
    struct training_label label = training->checkpoint.label;
    checkpoint_close(&training->checkpoint);
    trainer_destroy(training->trainer);
    training->trainer = NULL;
    enum dtype dtype = training->config.precision == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32;
    TRY(workspace_model(workspace, dtype, training->outer, &training->model, err));
    enum status status = try_trainer(training, true, err);
    if (status == STATUS_NO_MEMORY && training->config.method == TRAIN_FULL) {
        log_write(workspace->log, LOG_INFO, "run", "%s begins again without the base model: %s",
                  order->name, err->message);
        status = try_trainer(training, false, err);
    }
    TRY(status);
    training->checkpoint = (struct checkpoint){
        .name = order->name,
        .path = order->state_path,
        .writes = leads(training->group),
        .longest_s = workspace->job->checkpoint_seconds,
        .device = workspace->device,
        .trainer = training->trainer,
        .label = label,
        .progress = training->outer,
        .pace = order->pace,
        .log = workspace->log,
    };
    return checkpoint_open(&training->checkpoint, err);
}

/* Configuration, model, data, trainer: everything that can fail before the first step. */
static enum status begin_training(struct training *training, struct error *err)
{
    struct workspace *workspace = training->workspace;
    const struct candidate_order *order = training->order;
    struct train_config *config = &training->config;
    TRY(candidate_config(workspace, order->config, config, err));
    keep_precision(workspace, order, config);
    enum dtype dtype = config->precision == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32;
    TRY(workspace_model(workspace, dtype, training->outer, &training->model, err));
    const struct model *model = training->model;
    config->sequence_length = workspace_sequence_length(workspace->job, &model->config, config);
    TRY(prepare_data(workspace, model, order->recipe, config->sequence_length, order->data_folder,
                     training->outer, &training->data, err));
    TRY(encode_validation(workspace, model, config->sequence_length, training->outer,
                          &training->validation, err));
    struct training_label *label = &training->checkpoint.label;
    label->precision = config->precision;
    TRY(fingerprint(order, model, &training->data.encoded, label->fingerprint, err));
    return create_trainer(training, err);
}

/* Reads the state on disk into the trainer. One that cannot be used is as good as none: the
 * training begins anew, with a new trainer, for nobody knows what was read before it failed. */
static enum status restore(struct training *training, bool *restored, struct error *err)
{
    struct error cause = {0};
    enum status status = checkpoint_read(&training->checkpoint, restored, &cause);
    if (status == STATUS_OK) {
        return STATUS_OK;
    }
    if (status != STATUS_CORRUPT && status != STATUS_INVALID && status != STATUS_VERSION &&
        status != STATUS_FORMAT) {
        *err = cause; /* it may be good all the same: another try will tell */
        return status;
    }
    log_write(training->workspace->log, LOG_WARNING, "run",
              "%s; %s starts again from its first step", cause.message, training->order->name);
    return create_trainer(training, err);
}

static enum status resume(struct training *training, struct error *err)
{
    bool restored = false;
    int count = 0;
    int ranks = training->group != NULL ? training->group->size : 1;
    TRY(begin_together(training->group, restore(training, &restored, err), err));
    TRY(count_ranks(training->group, restored, &count, err));
    if (count != 0 && count != ranks) {
        return FAIL(err, STATUS_IO, "only %d of %d ranks could read %s", count, ranks,
                    training->order->state_path);
    }
    return progress_tick(training->outer, "train", trainer_steps_done(training->trainer),
                         trainer_steps_total(training->trainer), err);
}

/* What was stopped goes to disk; `status` is why the work ended. */
static enum status save_if_stopped(struct training *training, enum status status, struct error *err)
{
    struct error failed = {0};
    if (status == STATUS_INTERRUPTED &&
        checkpoint_save(&training->checkpoint, &failed) != STATUS_OK) {
        *err = failed;
        return failed.code;
    }
    return status;
}

static enum status make_result(const struct training *training,
                               const struct eval_result *evaluation, double started_s,
                               cJSON **result, struct error *err)
{
    const struct trainer *trainer = training->trainer;
    int64_t points = 0;
    const struct train_point *curve = trainer_curve(trainer, &points);
    cJSON *object = cJSON_CreateObject();
    if (object == NULL) {
        return mem_fail(err, 4096, "a result");
    }
    add_evaluation(object, evaluation);
    cJSON_AddItemToObject(object, "curve", curve_to_json(curve, points));
    cJSON_AddNumberToObject(object, "steps_done", (double)trainer_steps_done(trainer));
    cJSON_AddNumberToObject(object, "samples", (double)training->data.encoded.count);
    cJSON_AddNumberToObject(object, "tokens", points > 0 ? (double)curve[points - 1].tokens : 0.0);
    cJSON_AddStringToObject(
        object, "end", trainer_end(trainer) == TRAIN_STOPPED_EARLY ? "stopped early" : "finished");
    int ranks = training->group != NULL ? training->group->size : 1;
    cJSON_AddNumberToObject(object, "rank_seconds",
                            (clock_monotonic_s() - started_s) * (double)ranks);
    cJSON_AddItemToObject(object, "recipe_report", cJSON_Duplicate(training->data.report, true));
    *result = object;
    return STATUS_OK;
}

/* With data and trainer at hand: train, evaluate, keep the weights, say so. */
static enum status train_and_validate(struct training *training, double started_s, cJSON **result,
                                      struct error *err)
{
    const struct progress progress = {.tick = on_tick, .context = training};
    TRY(resume(training, err));
    const struct model *model = training->model;
    enum status status = trainer_run(training->trainer, &progress, err);
    TRY(save_if_stopped(training, status, err));
    if (!leads(training->group)) {
        return STATUS_OK;
    }
    struct network network;
    struct eval_result evaluation;
    memset(&evaluation, 0, sizeof(evaluation));
    trainer_network(training->trainer, &network);
    status = evaluate(training->workspace, model, &network, TASK_VALIDATION, &progress, &evaluation,
                      err);
    status = save_if_stopped(training, status, err);
    char *config = NULL;
    TRY_CLEANUP(status);
    config = json_print_line(training->order->config);
    if (training->order->weights_path != NULL) {
        TRY_CLEANUP(weights_file_write(training->order->weights_path, model, &network,
                                       config != NULL ? config : "{}", training->order->name,
                                       training->outer, err));
    }
    TRY_CLEANUP(make_result(training, &evaluation, started_s, result, err));
cleanup:
    cJSON_free(config);
    eval_result_fini(&evaluation);
    return status;
}

static enum status train_trained(struct workspace *workspace, const struct candidate_order *order,
                                 const struct train_group *group, const struct progress *progress,
                                 cJSON **result, struct error *err)
{
    double started_s = clock_monotonic_s();
    struct training training = {
        .workspace = workspace, .order = order, .outer = progress, .group = group};
    enum status status = begin_training(&training, err);
    TRY_CLEANUP(begin_together(group, status, err));
    TRY_CLEANUP(train_and_validate(&training, started_s, result, err));
cleanup:
    checkpoint_close(&training.checkpoint);
    trainer_destroy(training.trainer);
    encoded_dataset_fini(&training.validation);
    prepared_data_fini(&training.data);
    return status;
}

/* The baseline: nothing is trained. */
static enum status validate_base(struct workspace *workspace, const struct train_group *group,
                                 const struct progress *progress, cJSON **result, struct error *err)
{
    if (!leads(group)) {
        return STATUS_OK;
    }
    double started_s = clock_monotonic_s();
    const struct model *model = NULL;
    enum dtype dtype = workspace_precision(workspace) == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32;
    TRY(workspace_model(workspace, dtype, progress, &model, err));
    const struct network network = {.config = &model->config, .weights = &model->weights};
    struct eval_result evaluation;
    memset(&evaluation, 0, sizeof(evaluation));
    TRY(evaluate(workspace, model, &network, TASK_VALIDATION, progress, &evaluation, err));
    cJSON *object = cJSON_CreateObject();
    add_evaluation(object, &evaluation);
    eval_result_fini(&evaluation);
    cJSON_AddArrayToObject(object, "curve");
    cJSON_AddNumberToObject(object, "steps_done", 0.0);
    cJSON_AddNumberToObject(object, "samples", 0.0);
    cJSON_AddNumberToObject(object, "tokens", 0.0);
    cJSON_AddStringToObject(object, "end", "finished");
    cJSON_AddNumberToObject(object, "rank_seconds", clock_monotonic_s() - started_s);
    cJSON_AddArrayToObject(object, "recipe_report");
    *result = object;
    return STATUS_OK;
}

enum status candidate_train(struct workspace *workspace, const struct candidate_order *order,
                            const struct train_group *group, const struct progress *progress,
                            cJSON **result, struct error *err)
{
    *result = NULL;
    if (order->config == NULL || cJSON_GetArraySize(order->config) == 0) {
        return validate_base(workspace, group, progress, result, err);
    }
    return train_trained(workspace, order, group, progress, result, err);
}

enum status candidate_score(struct workspace *workspace, const struct candidate_order *order,
                            enum task_split split, const struct progress *progress, cJSON **score,
                            struct error *err)
{
    *score = NULL;
    const struct model *model = NULL;
    enum dtype dtype = workspace_precision(workspace) == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32;
    struct loaded_network loaded;
    memset(&loaded, 0, sizeof(loaded));
    if (order->weights_path != NULL) {
        TRY(weights_file_dtype(order->weights_path, &dtype, err));
    }
    TRY(workspace_model(workspace, dtype, progress, &model, err));
    struct network network = {.config = &model->config, .weights = &model->weights};
    if (order->weights_path != NULL) {
        TRY(weights_file_read(order->weights_path, model, progress, &loaded, err));
        network = loaded.network;
    }
    struct eval_result evaluation;
    memset(&evaluation, 0, sizeof(evaluation));
    enum status status = evaluate(workspace, model, &network, split, progress, &evaluation, err);
    if (status == STATUS_OK) {
        struct search_score measured = score_of(&evaluation);
        *score = search_score_to_json(&measured);
        eval_result_fini(&evaluation);
    }
    loaded_network_fini(&loaded);
    return status;
}
