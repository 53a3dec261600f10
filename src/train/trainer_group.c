/* What the ranks of a group tell each other. Every rank gets the same sums, so every rank takes the
 * same decisions and makes the same update: parameters are never sent. */
#include "train/trainer_internal.h"

enum status trainer_group_agree(struct trainer *trainer, enum status status, double *value,
                                struct error *err)
{
    const struct train_group *group = &trainer->group;
    if (group->size == 1) {
        return status;
    }
    /* One vote a status: a sum then tells which failures there were, whoever had them. */
    double sums[1 + STATUS_COUNT] = {0};
    sums[0] = status == STATUS_OK ? *value : 0.0;
    sums[1 + status] = 1.0;
    struct error sum_error;
    enum status sum_status = group->sum_f64(group->context, sums, 1 + STATUS_COUNT, &sum_error);
    if (status != STATUS_OK) {
        return status;
    }
    if (sum_status != STATUS_OK) {
        if (err != NULL) {
            *err = sum_error;
        }
        return sum_status;
    }
    *value = sums[0];
    for (int code = STATUS_OK + 1; code < STATUS_COUNT; code++) {
        if (sums[1 + code] > 0.0) {
            return FAIL(err, (enum status)code, "another rank of the group stopped: %s",
                        status_text((enum status)code));
        }
    }
    return STATUS_OK;
}

enum status trainer_group_sum_gradients(struct trainer *trainer, struct error *err)
{
    const struct train_group *group = &trainer->group;
    const struct trainer_parameters *parameters = &trainer->parameters;
    const struct ops *ops = trainer->device->ops;
    if (group->size == 1) {
        return STATUS_OK;
    }
    int64_t elements = parameters->table->elements;
    for (int64_t first = 0; first < elements; first += TRAINER_STAGING) {
        int64_t count = elements - first < TRAINER_STAGING ? elements - first : TRAINER_STAGING;
        size_t bytes = (size_t)count * sizeof(float);
        ops->download(trainer->device, trainer->staging, parameters->gradients + first, bytes);
        TRY(group->sum_f32(group->context, trainer->staging, count, err));
        ops->upload(trainer->device, parameters->gradients + first, trainer->staging, bytes);
    }
    return STATUS_OK;
}
