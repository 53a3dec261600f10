/* What the ranks of a group tell each other. Every rank gets the same sums, so every rank takes the
 * same decisions and makes the same update: parameters are never sent.
 *
 * Gradients are summed in buckets, which are begun while the backward pass is still being called,
 * as soon as the gradients in them are final:
 *
 *   joined            the devices add up by themselves, beside their operations
 *   sum_device_f32    MPI adds up on the devices' memory, when a bucket's last gradient is there
 *   sum_f32           down to the host beside the operations, MPI, and up again
 *
 * On the host, buckets pass through a ring of slots: as many as there are buckets, so that no call
 * of a backward pass has to wait for another rank; but one where the device is done when its calls
 * return, and fewer where there is no memory for them. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "train/trainer_internal.h"

enum status trainer_group_agree(struct trainer *trainer, enum status status, double *value,
                                struct error *err)
{
    const struct train_group *group = &trainer->group;
    if (group->size == 1) {
        return status;
    }
    if (status == STATUS_DEVICE && group->joined) {
        return status; /* the others wait for this device in their own: its rank has to end */
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

/* ---- memory ---- */

/* As many of the slots as there is memory for. */
static enum status alloc_slots(struct trainer *trainer, int64_t slots, struct error *err)
{
    struct trainer_sums *sums = &trainer->sums;
    enum status status = STATUS_NO_MEMORY;
    void *host = NULL;
    for (; status == STATUS_NO_MEMORY && slots > 0; slots /= 2) {
        size_t bytes = (size_t)slots * (size_t)sums->elements * sizeof(float);
        sums->slots = slots;
        status = trainer->device->ops->host_alloc(trainer->device, bytes, "gradients on the host",
                                                  &host, err);
    }
    TRY(status);
    sums->host = host;
    return STATUS_OK;
}

enum status trainer_sums_init(struct trainer *trainer, struct error *err)
{
    const struct train_group *group = &trainer->group;
    const struct ops *ops = trainer->device->ops;
    struct trainer_sums *sums = &trainer->sums;
    int64_t all = trainer->parameters.table->elements;
    if (group->size == 1) {
        return STATUS_OK;
    }
    sums->elements = group->bucket_elements > 0 ? group->bucket_elements : TRAINER_BUCKET;
    sums->elements = sums->elements < all ? sums->elements : all;
    sums->buckets = (all + sums->elements - 1) / sums->elements;
    if (!group->joined && group->sum_device_f32 == NULL) {
        TRY(alloc_slots(trainer, ops->asynchronous ? sums->buckets : 1, err));
    }
    sums->tickets = mem_calloc((size_t)sums->buckets, sizeof(*sums->tickets));
    sums->uploads = mem_calloc((size_t)sums->slots + 1, sizeof(*sums->uploads));
    if (sums->tickets == NULL || sums->uploads == NULL) {
        return mem_fail(err, (size_t)(sums->buckets + sums->slots) * sizeof(*sums->tickets),
                        "tickets of sums");
    }
    return STATUS_OK;
}

void trainer_sums_fini(struct trainer *trainer)
{
    struct trainer_sums *sums = &trainer->sums;
    const struct ops *ops = trainer->device->ops;
    if (sums->buckets > 0) { /* nothing may be under way in memory that is given back */
        ops->side_wait(trainer->device, ops->side_mark(trainer->device));
    }
    ops->host_free(trainer->device, sums->host);
    free(sums->tickets);
    free(sums->uploads);
    *sums = (struct trainer_sums){0};
}

/* ---- the sums of a step ---- */

/* Gradients of bucket `index`; the first one holds the array's end. */
static float *bucket_at(const struct trainer *trainer, int64_t index, int64_t *count)
{
    const struct trainer_sums *sums = &trainer->sums;
    int64_t end = trainer->parameters.table->elements - index * sums->elements;
    int64_t first = end > sums->elements ? end - sums->elements : 0;
    *count = end - first;
    return trainer->parameters.gradients + first;
}

static void note_failure(struct trainer_sums *sums, enum status status, const struct error *error)
{
    if (status != STATUS_OK && sums->status == STATUS_OK) {
        sums->status = status;
        sums->error = *error;
    }
}

/* Ends the oldest bucket that was begun, where that is the host's work. */
static void finish_oldest(struct trainer *trainer)
{
    struct trainer_sums *sums = &trainer->sums;
    const struct train_group *group = &trainer->group;
    const struct ops *ops = trainer->device->ops;
    struct error error;
    int64_t count = 0;
    int64_t index = sums->finished++;
    float *values = bucket_at(trainer, index, &count);
    if (group->joined) {
        return;
    }
    ops->side_wait(trainer->device, sums->tickets[index]);
    if (sums->slots == 0) {
        note_failure(sums, group->sum_device_f32(group->context, values, count, &error), &error);
        return;
    }
    int64_t slot = index % sums->slots;
    float *host = sums->host + slot * sums->elements;
    note_failure(sums, group->sum_f32(group->context, host, count, &error), &error);
    sums->uploads[slot] =
        ops->side_upload(trainer->device, values, host, (size_t)count * sizeof(float));
}

static void start_next(struct trainer *trainer)
{
    struct trainer_sums *sums = &trainer->sums;
    const struct ops *ops = trainer->device->ops;
    int64_t count = 0;
    int64_t index = sums->started++;
    float *values = bucket_at(trainer, index, &count);
    if (trainer->group.joined) {
        sums->tickets[index] = ops->side_sum(trainer->device, values, count);
        return;
    }
    if (sums->slots == 0) {
        sums->tickets[index] = ops->side_mark(trainer->device);
        return;
    }
    if (index - sums->finished == sums->slots) {
        finish_oldest(trainer);
    }
    int64_t slot = index % sums->slots;
    float *host = sums->host + slot * sums->elements;
    if (sums->uploads[slot] > 0) {
        ops->side_wait(trainer->device, sums->uploads[slot]);
    }
    /* The copy replaces it, unless the device has failed: then no rank learns from this step. */
    host[0] = NAN;
    sums->tickets[index] =
        ops->side_download(trainer->device, host, values, (size_t)count * sizeof(float));
}

static void start_final(void *context, int64_t first)
{
    struct trainer *trainer = context;
    const struct trainer_sums *sums = &trainer->sums;
    while (sums->started < sums->buckets) {
        int64_t count = 0;
        if (bucket_at(trainer, sums->started, &count) < trainer->parameters.gradients + first) {
            return;
        }
        start_next(trainer);
    }
}

void trainer_sums_begin(struct trainer *trainer)
{
    trainer->sums.started = 0;
    trainer->sums.finished = 0;
    trainer->sums.status = STATUS_OK;
}

struct gradient_watch trainer_sums_watch(struct trainer *trainer)
{
    return (struct gradient_watch){.final_from = start_final, .context = trainer};
}

enum status trainer_sums_finish(struct trainer *trainer, struct error *err)
{
    struct trainer_sums *sums = &trainer->sums;
    start_final(trainer, 0);
    while (sums->finished < sums->started) {
        finish_oldest(trainer);
    }
    if (sums->status != STATUS_OK && err != NULL) {
        *err = sums->error;
    }
    return sums->status;
}
