/* Making a trainer: checks, sizes, allocation. */
#include "train/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "train/trainer_internal.h"

/* ---- checks
 * ---------------------------------------------------------------------------------------------------
 */

/* A configuration that was made in code obeys the same rules as one from a file. */
static enum status check_config(const struct train_config *config, struct error *err)
{
    struct json_problems problems;
    json_problems_init(&problems);
    cJSON *object = train_config_to_json(config);
    enum status status = STATUS_OK;
    if (object == NULL) {
        status = mem_fail(err, 0, "a training configuration as JSON");
    } else {
        struct train_config again = *config;
        train_config_read(object, "", &problems, &again);
        status = json_problems_check(&problems, "training configuration", err);
    }
    cJSON_Delete(object);
    json_problems_fini(&problems);
    return status;
}

/* Precision, start weights and group: what the types of the inputs cannot rule out. */
static enum status check_inputs(const struct trainer_inputs *inputs, struct error *err)
{
    const struct train_config *config = inputs->config;
    const struct weights *start = inputs->start;
    const struct train_group *group = inputs->group;
    if (inputs->model->weights.dtype != trainer_dtype(config->precision)) {
        return FAIL(err, STATUS_INVALID, "precision %s needs the base model loaded in it",
                    train_precision_names[config->precision]);
    }
    if (start != NULL && config->method == TRAIN_LORA) {
        return FAIL(err, STATUS_INVALID,
                    "method \"lora\" cannot start from another candidate's weights; use \"full\"");
    }
    if (start != NULL && start->table->elements != inputs->model->table.elements) {
        return FAIL(err, STATUS_INVALID,
                    "weights to start from have %" PRId64 " elements, the model has %" PRId64,
                    start->table->elements, inputs->model->table.elements);
    }
    if (inputs->train->count == 0 || inputs->train->answer_tokens == 0) {
        return FAIL(err, STATUS_INVALID, "no training row has an answer to learn from");
    }
    if (group != NULL &&
        (group->size < 1 || group->rank < 0 || group->rank >= group->size ||
         (group->size > 1 && (group->sum_f32 == NULL || group->sum_f64 == NULL)))) {
        return FAIL(err, STATUS_INVALID, "rank %d of a group of %d ranks cannot be", group->rank,
                    group->size);
    }
    return STATUS_OK;
}

static enum status check_lengths(const struct encoded_dataset *dataset, const char *split,
                                 int64_t max_positions, struct error *err)
{
    for (int64_t i = 0; i < dataset->count; i++) {
        int64_t length = dataset->start[i + 1] - dataset->start[i];
        if (length > max_positions) {
            return FAIL(err, STATUS_RANGE,
                        "row %" PRId64 " of the %s split has %" PRId64
                        " tokens, the model has %" PRId64
                        " positions; set sequence_length to at most that",
                        dataset->row != NULL ? dataset->row[i] : i, split, length, max_positions);
        }
    }
    return STATUS_OK;
}

/* ---- making it
 * ------------------------------------------------------------------------------------------------
 */

/* Micro-batches of all epochs, the last one perhaps a fraction, at most those of max_steps. */
static int64_t count_batches(const struct packer *packer, const struct train_config *config)
{
    int64_t most = config->max_steps > 0 ? config->max_steps * config->accumulation : INT64_MAX;
    int64_t batches = 0;
    double left = config->epochs;
    for (int64_t epoch = 0; left > 0.0 && batches < most; epoch++) {
        int64_t whole = packer_batches(packer, epoch);
        batches += left >= 1.0 ? whole : (int64_t)ceil(left * (double)whole);
        left -= 1.0;
    }
    return batches < most ? batches : most;
}

static enum status create_packers(struct trainer *trainer, struct error *err)
{
    const struct train_config *config = &trainer->config;
    int64_t max_positions = trainer->model->config.max_positions;
    TRY(check_lengths(trainer->train, "training", max_positions, err));
    TRY(packer_create(trainer->train, config->batch_tokens, config->seed, true, &trainer->packer,
                      err));
    if (trainer->validation->count > 0 && trainer->validation->answer_tokens > 0) {
        TRY(check_lengths(trainer->validation, "validation", max_positions, err));
        TRY(packer_create(trainer->validation, config->batch_tokens, config->seed, false,
                          &trainer->validation_packer, err));
    }
    trainer->batches_total = count_batches(trainer->packer, config);
    trainer->steps_total =
        (trainer->batches_total + config->accumulation - 1) / config->accumulation;
    return STATUS_OK;
}

static struct transformer_options training_options(const struct train_config *config)
{
    return (struct transformer_options){
        .max_tokens = config->batch_tokens,
        .compute = trainer_dtype(config->precision),
        .training = true,
    };
}

static enum status create_parameters(struct trainer *trainer, const struct trainer_inputs *inputs,
                                     struct error *err)
{
    const struct model *model = trainer->model;
    const struct train_config *config = &trainer->config;
    const struct param_table *table = &model->table;
    struct trainer_start start = {
        .source = inputs->start != NULL ? inputs->start : &model->weights,
        .release = inputs->release_base,
        .context = inputs->release_context,
        .progress = inputs->progress,
    };
    if (config->method == TRAIN_LORA) {
        TRY(lora_table_build(&model->config, &config->lora, &trainer->adapter_table, err));
        table = &trainer->adapter_table;
        start = (struct trainer_start){.progress = inputs->progress};
    }
    bool keep_best = config->patience > 0 && trainer->validation_packer != NULL;
    TRY(trainer_parameters_init(&trainer->parameters, trainer->device, table, config, &start,
                                keep_best, err));
    struct network network;
    struct transformer_options options = training_options(config);
    trainer_network_current(trainer, &network);
    return transformer_create(trainer->device, &network, &options, &trainer->transformer, err);
}

enum status trainer_create(struct device *device, const struct trainer_inputs *inputs,
                           struct trainer **out, struct error *err)
{
    enum status status = STATUS_OK;
    TRY(check_config(inputs->config, err));
    TRY(check_inputs(inputs, err));
    struct trainer *trainer = mem_calloc(1, sizeof(*trainer));
    if (trainer == NULL) {
        return mem_fail(err, sizeof(*trainer), "a trainer");
    }
    trainer->device = device;
    trainer->model = inputs->model;
    trainer->train = inputs->train;
    trainer->validation = inputs->validation;
    trainer->log = inputs->log;
    trainer->config = *inputs->config;
    trainer->group = inputs->group != NULL ? *inputs->group : (struct train_group){.size = 1};
    TRY_CLEANUP(create_packers(trainer, err));
    TRY_CLEANUP(create_parameters(trainer, inputs, err));
    TRY_CLEANUP(trainer_sums_init(trainer, err));
    TRY_CLEANUP(trainer_fingerprint(trainer, trainer->fingerprint, err));
    trainer_replay_curve(trainer);
    log_write(trainer->log, LOG_INFO, "train",
              "%s, %s: %" PRId64 " of %" PRId64 " parameters, %" PRId64 " steps",
              train_method_names[trainer->config.method],
              train_precision_names[trainer->config.precision], trainer->parameters.table->elements,
              model_config_parameters(&trainer->model->config), trainer->steps_total);
    if (trainer->config.accumulation < trainer->group.size) {
        log_write(trainer->log, LOG_WARNING, "train",
                  "%d ranks share %" PRId64
                  " micro-batches a step: set accumulation to a multiple of the ranks",
                  trainer->group.size, trainer->config.accumulation);
    }
    *out = trainer;
    trainer = NULL;
cleanup:
    trainer_destroy(trainer);
    return status;
}

void trainer_destroy(struct trainer *trainer)
{
    if (trainer == NULL) {
        return;
    }
    trainer_sums_fini(trainer);
    transformer_destroy(trainer->transformer);
    trainer_parameters_fini(&trainer->parameters, trainer->device);
    param_table_fini(&trainer->adapter_table);
    packer_destroy(trainer->packer);
    packer_destroy(trainer->validation_packer);
    free(trainer->curve);
    free(trainer);
}

/* ---- sizes
 * ----------------------------------------------------------------------------------------------------
 */

int64_t trainer_bytes(const struct model_config *model, const struct train_config *config)
{
    struct param_table table = {0};
    struct param_table adapter_table = {0};
    int64_t bytes = -1;
    enum dtype dtype = trainer_dtype(config->precision);
    struct weights weights = {.table = &table, .dtype = dtype};
    struct weights adapter = {.table = &adapter_table, .dtype = dtype};
    struct network network = {.config = model, .weights = &weights};
    struct transformer_options options = training_options(config);
    if (param_table_build(model, &table, NULL) != STATUS_OK) {
        return -1;
    }
    if (config->method == TRAIN_LORA) {
        if (lora_table_build(model, &config->lora, &adapter_table, NULL) != STATUS_OK) {
            goto cleanup;
        }
        network.adapter = &adapter;
        network.lora = &config->lora;
    }
    bytes = trainer_parameters_bytes(config->method == TRAIN_LORA ? &adapter_table : &table,
                                     config->precision, config->patience > 0) +
            transformer_bytes(&network, &options);
cleanup:
    param_table_fini(&table);
    param_table_fini(&adapter_table);
    return bytes;
}

/* ---- views
 * ----------------------------------------------------------------------------------------------------
 */

static void fill_network(const struct trainer *trainer, const struct weights *trained,
                         struct network *out)
{
    bool lora = trainer->config.method == TRAIN_LORA;
    *out = (struct network){
        .config = &trainer->model->config,
        .weights = lora ? &trainer->model->weights : trained,
        .adapter = lora ? trained : NULL,
        .lora = lora ? &trainer->config.lora : NULL,
    };
}

void trainer_network_current(const struct trainer *trainer, struct network *out)
{
    fill_network(trainer, &trainer->parameters.current, out);
}

void trainer_network(const struct trainer *trainer, struct network *out)
{
    const struct trainer_parameters *parameters = &trainer->parameters;
    fill_network(trainer, trainer->has_best ? &parameters->best : &parameters->current, out);
}

enum train_end trainer_end(const struct trainer *trainer)
{
    return trainer->end;
}

int64_t trainer_steps_done(const struct trainer *trainer)
{
    return trainer->steps_done;
}

int64_t trainer_steps_total(const struct trainer *trainer)
{
    return trainer->steps_total;
}

const struct train_point *trainer_curve(const struct trainer *trainer, int64_t *count)
{
    *count = trainer->steps_done;
    return trainer->curve;
}
