/* The arrays of a training on the device, and how the optimizer walks them. */
#include <stdlib.h>

#include "base/mem.h"
#include "train/trainer_internal.h"

struct tensor trainer_parameters_row(const struct trainer_parameters *parameters, void *data,
                                     enum dtype dtype)
{
    return tensor_matrix(data, dtype, 1, parameters->table->elements);
}

/* Neighbours with the same decay become one slot: the padding between them stays 0 under AdamW,
 * because its gradient is 0, and a step is fewer and longer loops. */
static enum status build_slots(struct trainer_parameters *parameters,
                               const struct train_config *config, struct error *err)
{
    const struct param_table *table = parameters->table;
    parameters->slots = mem_calloc((size_t)table->count, sizeof(*parameters->slots));
    if (parameters->slots == NULL) {
        return mem_fail(err, (size_t)table->count * sizeof(*parameters->slots), "optimizer slots");
    }
    for (int64_t i = 0; i < table->count; i++) {
        const struct param *param = &table->items[i];
        float decay = param->decay ? (float)config->weight_decay : 0.0F;
        int64_t end = param->offset + param->rows * param->cols;
        if (i > 0 && param->decay == table->items[i - 1].decay) {
            struct optimizer_slot *last = &parameters->slots[parameters->slot_count - 1];
            last->count = end - (last->master - parameters->master);
            continue;
        }
        struct optimizer_slot *slot = &parameters->slots[parameters->slot_count++];
        *slot = (struct optimizer_slot){
            .master = parameters->master + param->offset,
            .grad = parameters->gradients + param->offset,
            .first_moment = parameters->first_moment + param->offset,
            .second_moment = parameters->second_moment + param->offset,
            .count = end - param->offset,
            .weight_decay = decay,
        };
        if (parameters->current.dtype == DTYPE_BF16) {
            slot->weights_bf16 = (uint16_t *)parameters->current.data + param->offset;
        }
    }
    return STATUS_OK;
}

static enum status alloc_array(struct device *device, int64_t elements, const char *what,
                               float **out, struct error *err)
{
    void *data = NULL;
    TRY(device->ops->alloc(device, (size_t)elements * sizeof(float), what, &data, err));
    *out = data;
    return STATUS_OK;
}

/* What the model reads, and the masters beside it if those are other numbers. */
static enum status alloc_weights(struct trainer_parameters *p, struct device *device,
                                 enum dtype dtype, struct error *err)
{
    TRY(weights_create(device, p->table, dtype, &p->current, err));
    if (dtype == DTYPE_F32) {
        p->master = p->current.data;
        return STATUS_OK;
    }
    return alloc_array(device, p->table->elements, "f32 master parameters", &p->master, err);
}

/* Memory is slow to come by when it is first touched: 100 GB of it take a while. */
static enum status alloc_zeros(const struct trainer_parameters *p, struct device *device,
                               const char *what, float **out, struct error *err)
{
    TRY(alloc_array(device, p->table->elements, what, out, err));
    device->ops->fill(device, trainer_parameters_row(p, *out, DTYPE_F32), 0.0F);
    return STATUS_OK;
}

static enum status alloc_rest(struct trainer_parameters *p, struct device *device, enum dtype dtype,
                              bool keep_best, const struct progress *progress, struct error *err)
{
    enum { ARRAYS = 5 }; /* with the parameters, which are there */
    void *numbers = NULL;
    TRY(progress_tick(progress, "load", 1, ARRAYS, err));
    TRY(alloc_zeros(p, device, "gradients", &p->gradients, err));
    TRY(progress_tick(progress, "load", 2, ARRAYS, err));
    TRY(alloc_zeros(p, device, "first moments", &p->first_moment, err));
    TRY(progress_tick(progress, "load", 3, ARRAYS, err));
    TRY(alloc_zeros(p, device, "second moments", &p->second_moment, err));
    TRY(progress_tick(progress, "load", 4, ARRAYS, err));
    TRY(device->ops->alloc(device, sizeof(*p->numbers), "loss and gradient norm", &numbers, err));
    p->numbers = numbers;
    if (keep_best) {
        TRY(weights_create(device, p->table, dtype, &p->best, err));
    }
    return STATUS_OK;
}

enum status trainer_parameters_init(struct trainer_parameters *parameters, struct device *device,
                                    const struct param_table *table,
                                    const struct train_config *config,
                                    const struct trainer_start *start, bool keep_best,
                                    struct error *err)
{
    const struct weights *source = start->source;
    enum dtype dtype = trainer_dtype(config->precision);
    *parameters = (struct trainer_parameters){.table = table};
    TRY(progress_tick(start->progress, "load", 0, 1, err));
    TRY(alloc_weights(parameters, device, dtype, err));
    struct tensor master = trainer_parameters_row(parameters, parameters->master, DTYPE_F32);
    if (source != NULL) {
        device->ops->copy(device, master,
                          trainer_parameters_row(parameters, source->data, source->dtype));
    } else {
        struct weights fresh = {
            .device = device, .table = table, .dtype = DTYPE_F32, .data = parameters->master};
        device->ops->fill(device, master, 0.0F);
        lora_init(&fresh, config->seed);
    }
    trainer_parameters_round(parameters);
    TRY(device->ops->check(device, err));
    if (start->release != NULL) {
        start->release(start->context);
    }
    TRY(alloc_rest(parameters, device, dtype, keep_best, start->progress, err));
    TRY(build_slots(parameters, config, err));
    return device->ops->check(device, err);
}

void trainer_parameters_fini(struct trainer_parameters *parameters, struct device *device)
{
    if (parameters->master != parameters->current.data) {
        device->ops->free(device, parameters->master);
    }
    device->ops->free(device, parameters->gradients);
    device->ops->free(device, parameters->first_moment);
    device->ops->free(device, parameters->second_moment);
    device->ops->free(device, parameters->numbers);
    weights_fini(&parameters->current);
    weights_fini(&parameters->best);
    free(parameters->slots);
    *parameters = (struct trainer_parameters){0};
}

void trainer_parameters_round(const struct trainer_parameters *parameters)
{
    const struct weights *current = &parameters->current;
    if (current->data != parameters->master) {
        current->device->ops->copy(
            current->device, trainer_parameters_row(parameters, current->data, current->dtype),
            trainer_parameters_row(parameters, parameters->master, DTYPE_F32));
    }
}

int64_t trainer_parameters_bytes(const struct param_table *table, enum train_precision precision,
                                 bool keep_best)
{
    int64_t read_bytes = (int64_t)dtype_bytes(trainer_dtype(precision));
    int64_t master_bytes = precision == TRAIN_F32 ? 0 : (int64_t)sizeof(float);
    int64_t per_element =
        read_bytes + master_bytes + 3 * (int64_t)sizeof(float) + (keep_best ? read_bytes : 0);
    return per_element * table->elements + (int64_t)sizeof(struct trainer_numbers);
}
