/* The training loop of one candidate on one rank or a group of ranks.
 *
 *   create -> (restore) -> run -> state / weights -> destroy
 *
 * All that the future of a training depends on is in its state: parameters, moments, cursor,
 * counters, curve. Restored from it, a training goes on to the same bits (same backend, ranks and
 * threads). */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "base/log.h"
#include "base/progress.h"
#include "data/packer.h"
#include "model/model.h"
#include "model/transformer.h"
#include "train/config.h"

/* How ranks of a group add up; run/ implements it with MPI. NULL or size 1: alone. Collective. All
 * sums are in place and the same bits on every rank. Gradients take the best way that there is: the
 * devices' own, else MPI's on their memory, else over the host. */
struct train_group {
    int rank;
    int size;
    enum status (*sum_f32)(void *context, float *values, int64_t count, struct error *err);
    enum status (*sum_f64)(void *context, double *values, int64_t count, struct error *err);
    void *context;
    bool joined; /* the devices of all ranks are in one group (ops->group_join) */
    /* Of memory on the device, of which no operation is under way; NULL: there is no such way. */
    enum status (*sum_device_f32)(void *context, float *values, int64_t count, struct error *err);
    int64_t bucket_elements; /* gradients that are summed at a time; 0: about 25 MB */
};

/* One point of the curve; every step has a train loss, some have a validation loss. */
struct train_point {
    int64_t step;           /* 1-based */
    int64_t tokens;         /* trained on so far, all ranks */
    double train_loss;      /* mean nats per answer token of this step */
    double validation_loss; /* NaN where it was not measured */
    double gradient_norm;   /* before clipping */
    double learning_rate;
    double seconds; /* spent training so far, all allocations together; not part of the bits */
};

enum train_end { TRAIN_RUNNING, TRAIN_FINISHED, TRAIN_STOPPED_EARLY };

struct trainer; /* opaque */

struct trainer_inputs {
    const struct model *model; /* the base, in the precision's dtype */
    /* NULL: from the base; else the weights of another candidate, in the layout of model->table
     * (full fine-tuning only). Read by trainer_create alone. */
    const struct weights *start;
    const struct train_config *config;
    const struct encoded_dataset *train;      /* borrowed */
    const struct encoded_dataset *validation; /* may be empty: no validation loss */
    const struct train_group *group;          /* NULL: alone */
    struct log *log;
    const struct progress *progress; /* NULL, or told of each array (phase "load"): no collective */
    /* May be NULL. Called by trainer_create in full fine-tuning once nothing reads the base's
     * weights any more, before most memory is taken: their owner may free them. */
    void (*release_base)(void *context);
    void *release_context;
};

/* The configuration, model and data are borrowed until trainer_destroy, but for the base's weights:
 * full fine-tuning reads them only here (release_base).
 * Errors: STATUS_NO_MEMORY with what is needed; STATUS_INVALID for a configuration that cannot be
 * (e.g. LoRA with start); STATUS_RANGE for a row longer than the model or a micro-batch. */
enum status trainer_create(struct device *device, const struct trainer_inputs *inputs,
                           struct trainer **out, struct error *err);
void trainer_destroy(struct trainer *trainer); /* NULL allowed */

/* Device bytes of a training (parameters, optimizer, activations), without making it and without
 * the base model's own; -1 if the configuration cannot be or there is no memory. */
int64_t trainer_bytes(const struct model_config *model, const struct train_config *config);

/* Trains to the end, calling progress after each step (phase "train", done steps of total), within
 * validations (phase "validate") and between a step's micro-batches (phase "step", where it cannot
 * stop). On STATUS_INTERRUPTED the state is that after the last
 * whole step. STATUS_DIVERGED when the loss or the gradient is not finite, or the loss has for long
 * been far above its start (divergence.h); the message says at which step. After STATUS_DEVICE the
 * state is lost. Collective in the group: all ranks return after the same step. */
enum status trainer_run(struct trainer *trainer, const struct progress *progress,
                        struct error *err);

/* At most `steps` further steps: for tests, dry runs and benchmarks. */
enum status trainer_run_steps(struct trainer *trainer, int64_t steps,
                              const struct progress *progress, struct error *err);

enum train_end trainer_end(const struct trainer *trainer);
int64_t trainer_steps_done(const struct trainer *trainer);
int64_t trainer_steps_total(const struct trainer *trainer);

/* Points of all steps done; borrowed, valid until the next step. */
const struct train_point *trainer_curve(const struct trainer *trainer, int64_t *count);

/* Median of the recent steps, without validations; 0 before the first. */
double trainer_step_seconds(const struct trainer *trainer);

/* What was learned, for evaluation and export: full weights, or the base with an adapter. Borrowed.
 * With early stop it is the state of the best validation loss. */
void trainer_network(const struct trainer *trainer, struct network *out);

/* ---- state ------------------------------------------------------------------------------------
 * Named arrays on the host, to be stored and restored by whoever owns files. */

enum trainer_array_type { TRAINER_F32, TRAINER_F64, TRAINER_I64 };
struct trainer_array {
    char name[64];     /* "parameters", "first_moment", "second_moment", "counters", "curve" and,
                          once there is one, "best_parameters" */
    char meaning[128]; /* for a reader of the file */
    enum trainer_array_type type;
    int64_t rows, cols;
};
enum { TRAINER_ARRAYS_MAX = 8 };

/* The arrays of this training's state and their sizes at this moment; returns their number. */
int trainer_state_arrays(const struct trainer *trainer,
                         struct trainer_array out[TRAINER_ARRAYS_MAX]);

/* Copies array `index` to host memory of its size. A failing device shows in its next check. */
void trainer_state_get(const struct trainer *trainer, int index, void *out);

/* The same beside the training, which may go on at once: `out` (best from ops->host_alloc) holds
 * the array as it is now after ops->side_wait of the ticket (0: nothing to wait for), then
 * trainer_state_finish, which any thread may call. Until the wait, no state_set and no destroy. */
int64_t trainer_state_begin(const struct trainer *trainer, int index, void *out);
void trainer_state_finish(const struct trainer *trainer, int index, void *out);

/* Restoring, into a new trainer of the same inputs: all arrays in any order, then
 * trainer_state_check, which refuses a state that is not of this training (STATUS_INVALID: another
 * configuration, model or data) or not whole (STATUS_CORRUPT: arrays missing). After a failure the
 * trainer can only be destroyed. */
enum status trainer_state_set(struct trainer *trainer, const struct trainer_array *array,
                              const void *values, struct error *err);
enum status trainer_state_check(struct trainer *trainer, struct error *err);

#endif
