/* The loop: steps, validations, and when to stop. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "train/trainer_internal.h"

/* ---- what follows from the curve
 * ------------------------------------------------------------------------------ */

bool trainer_validates_at(const struct trainer *trainer, int64_t step)
{
    int64_t times = trainer->config.validations;
    int64_t total = trainer->steps_total;
    if (trainer->validation_packer == NULL || times == 0) {
        return false;
    }
    return times >= total || step * times / total > (step - 1) * times / total;
}

/* A stop between a step and its validation leaves the point without one; the next run measures it
 * first. */
static bool validation_is_due(const struct trainer *trainer)
{
    return trainer->steps_done > 0 && trainer_validates_at(trainer, trainer->steps_done) &&
           isnan(trainer->curve[trainer->steps_done - 1].validation_loss);
}

static void update_end(struct trainer *trainer)
{
    int64_t patience = trainer->config.patience;
    if (validation_is_due(trainer)) {
        trainer->end = TRAIN_RUNNING;
    } else if (trainer->steps_done >= trainer->steps_total) {
        trainer->end = TRAIN_FINISHED;
    } else if (patience > 0 && trainer->stale_validations >= patience) {
        trainer->end = TRAIN_STOPPED_EARLY;
    } else {
        trainer->end = TRAIN_RUNNING;
    }
}

/* True if it is the best so far. */
static bool note_validation(struct trainer *trainer, double loss)
{
    if (loss < trainer->best_loss) {
        trainer->best_loss = loss;
        trainer->stale_validations = 0;
        return true;
    }
    trainer->stale_validations++;
    return false;
}

void trainer_replay_curve(struct trainer *trainer)
{
    divergence_init(&trainer->divergence, trainer->model->config.vocab_size);
    trainer->diverged = false;
    trainer->best_loss = INFINITY;
    trainer->stale_validations = 0;
    for (int64_t i = 0; i < trainer->steps_done; i++) {
        const struct train_point *point = &trainer->curve[i];
        trainer->diverged = divergence_update(&trainer->divergence, point->train_loss);
        if (!isnan(point->validation_loss)) {
            note_validation(trainer, point->validation_loss);
        }
    }
    update_end(trainer);
}

/* ---- one step
 * -------------------------------------------------------------------------------------------------
 */

/* What one step is made of, all ranks together. */
struct step_plan {
    int64_t batches; /* micro-batches; fewer than `accumulation` only in the last step */
    int64_t tokens;
    int64_t targets; /* answer tokens */
};

/* Walks the step's micro-batches without training: the gradient of a mean over all answer tokens
 * needs their number before the first backward pass. Packing costs next to nothing beside it. */
static enum status plan_step(struct trainer *trainer, struct step_plan *plan, struct error *err)
{
    struct packer_cursor cursor = trainer->cursor;
    int64_t left = trainer->batches_total - trainer->steps_done * trainer->config.accumulation;
    *plan = (struct step_plan){.batches = trainer->config.accumulation};
    if (plan->batches > left) {
        plan->batches = left;
    }
    for (int64_t i = 0; i < plan->batches; i++) {
        struct batch batch;
        TRY(packer_next(trainer->packer, &cursor, &batch, err));
        plan->tokens += batch.tokens;
        plan->targets += batch.target_count;
    }
    return STATUS_OK;
}

/* Gradients of this rank's share into parameters.gradients, its losses summed into *loss_sum
 * (nats), and the cursor past the step into *cursor. */
static enum status run_share(struct trainer *trainer, const struct step_plan *plan,
                             struct packer_cursor *cursor, double *loss_sum, struct error *err)
{
    const struct trainer_parameters *parameters = &trainer->parameters;
    struct device *device = trainer->device;
    struct network network;
    trainer_network_current(trainer, &network);
    /* Rows may be so short that a step has no target at all: it then changes nothing but the
     * moments. */
    float factor = plan->targets > 0 ? (float)(1.0 / (double)plan->targets) : 0.0F;
    *cursor = trainer->cursor;
    device->ops->fill(device, trainer_parameters_row(parameters, parameters->gradients, DTYPE_F32),
                      0.0F);
    for (int64_t i = 0; i < plan->batches; i++) {
        struct batch batch;
        TRY(packer_next(trainer->packer, cursor, &batch, err));
        if (i % trainer->group.size != trainer->group.rank) {
            continue;
        }
        double loss = 0.0;
        TRY(transformer_train(trainer->transformer, &network, &batch, factor, parameters->gradients,
                              &loss, err));
        *loss_sum += loss;
    }
    return device->ops->check(device, err);
}

static enum status fail_not_finite(const struct trainer *trainer, const char *what, double value,
                                   struct error *err)
{
    return FAIL(
        err, STATUS_DIVERGED, "the %s of step %lld of %lld is %g; the learning rate is %g", what,
        (long long)trainer->steps_done + 1, (long long)trainer->steps_total, value,
        train_learning_rate(&trainer->config, trainer->steps_done + 1, trainer->steps_total));
}

/* Clips and applies the summed gradients, unless their norm is not finite. */
static enum status apply_gradients(struct trainer *trainer, struct train_point *point,
                                   struct error *err)
{
    const struct train_config *config = &trainer->config;
    const struct trainer_parameters *p = &trainer->parameters;
    struct device *device = trainer->device;
    float norm = 0.0F;
    device->ops->gradient_norm(device, p->norm, p->slots, p->slot_count);
    device->ops->download(device, &norm, p->norm, sizeof(norm));
    TRY(device->ops->check(device, err));
    point->gradient_norm = (double)norm;
    if (!isfinite(norm)) {
        return fail_not_finite(trainer, "gradient norm", (double)norm, err);
    }
    struct adamw_step step = {
        .learning_rate = (float)point->learning_rate,
        .beta1 = (float)config->beta1,
        .beta2 = (float)config->beta2,
        .epsilon = (float)config->epsilon,
        .step = point->step,
        .clip_norm = (float)config->clip_norm,
    };
    device->ops->adamw(device, p->slots, p->slot_count, p->norm, &step);
    return device->ops->check(device, err);
}

static enum status grow_curve(struct trainer *trainer, struct error *err)
{
    if (trainer->steps_done < trainer->curve_capacity) {
        return STATUS_OK;
    }
    int64_t capacity = trainer->curve_capacity > 0 ? 2 * trainer->curve_capacity : 256;
    struct train_point *curve = mem_realloc(trainer->curve, (size_t)capacity, sizeof(*curve));
    if (curve == NULL) {
        return mem_fail(err, (size_t)capacity * sizeof(*curve), "the curve of a training");
    }
    trainer->curve = curve;
    trainer->curve_capacity = capacity;
    return STATUS_OK;
}

static double seconds_so_far(const struct trainer *trainer)
{
    return trainer->steps_done > 0 ? trainer->curve[trainer->steps_done - 1].seconds : 0.0;
}

/* From here on the step counts. */
static void commit_step(struct trainer *trainer, const struct train_point *point,
                        struct packer_cursor cursor, double step_s)
{
    trainer->curve[trainer->steps_done++] = *point;
    trainer->tokens = point->tokens;
    trainer->cursor = cursor;
    trainer->recent_s[trainer->recent_count++ % TRAINER_RECENT_STEPS] = step_s;
    trainer->diverged = divergence_update(&trainer->divergence, point->train_loss);
    update_end(trainer);
}

/* One whole step, or none. Collective. */
static enum status train_step(struct trainer *trainer, struct error *err)
{
    double begin_s = clock_monotonic_s();
    struct step_plan plan = {0};
    struct packer_cursor cursor = trainer->cursor;
    double loss_sum = 0.0;
    enum status status = grow_curve(trainer, err);
    if (status == STATUS_OK) {
        status = plan_step(trainer, &plan, err);
    }
    if (status == STATUS_OK) {
        status = run_share(trainer, &plan, &cursor, &loss_sum, err);
    }
    TRY(trainer_group_agree(trainer, status, &loss_sum, err));
    double loss = plan.targets > 0 ? loss_sum / (double)plan.targets : 0.0;
    if (!isfinite(loss)) {
        return fail_not_finite(trainer, "loss", loss, err);
    }
    TRY(trainer_group_sum_gradients(trainer, err));
    int64_t number = trainer->steps_done + 1;
    struct train_point point = {
        .step = number,
        .tokens = trainer->tokens + plan.tokens,
        .train_loss = loss,
        .validation_loss = (double)NAN,
        .learning_rate = train_learning_rate(&trainer->config, number, trainer->steps_total),
    };
    TRY(apply_gradients(trainer, &point, err));
    double step_s = clock_monotonic_s() - begin_s;
    point.seconds = seconds_so_far(trainer) + step_s;
    commit_step(trainer, &point, cursor, step_s);
    return STATUS_OK;
}

/* ---- validation
 * -----------------------------------------------------------------------------------------------
 */

/* Losses of this rank's share of the validation rows into *loss_sum, targets of all rows into
 * *targets. */
static enum status score_share(struct trainer *trainer, const struct progress *progress,
                               double *loss_sum, int64_t *targets, struct error *err)
{
    struct network network;
    trainer_network_current(trainer, &network);
    struct packer_cursor cursor = {0};
    int64_t batches = packer_batches(trainer->validation_packer, 0);
    for (int64_t i = 0; i < batches; i++) {
        struct batch batch;
        TRY(packer_next(trainer->validation_packer, &cursor, &batch, err));
        *targets += batch.target_count;
        if (i % trainer->group.size != trainer->group.rank) {
            continue;
        }
        TRY(transformer_score(trainer->transformer, &network, &batch, trainer->losses, err));
        for (int64_t t = 0; t < batch.tokens; t++) {
            *loss_sum += (double)trainer->losses[t];
        }
        TRY(progress_tick(progress, "validate", i + 1, batches, err));
    }
    return trainer->device->ops->check(trainer->device, err);
}

static void keep_best(struct trainer *trainer)
{
    struct trainer_parameters *p = &trainer->parameters;
    if (p->best.data != NULL) {
        trainer->device->ops->copy(trainer->device,
                                   trainer_parameters_row(p, p->best.data, p->best.dtype),
                                   trainer_parameters_row(p, p->current.data, p->current.dtype));
        trainer->has_best = true;
    }
}

/* Measures the loss that belongs to the last step. Collective. */
static enum status validate(struct trainer *trainer, const struct progress *progress,
                            struct error *err)
{
    double begin_s = clock_monotonic_s();
    double loss_sum = 0.0;
    int64_t targets = 0;
    enum status status = score_share(trainer, progress, &loss_sum, &targets, err);
    TRY(trainer_group_agree(trainer, status, &loss_sum, err));
    double loss = targets > 0 ? loss_sum / (double)targets : 0.0;
    if (!isfinite(loss)) {
        return FAIL(err, STATUS_DIVERGED, "the validation loss after step %lld of %lld is %g",
                    (long long)trainer->steps_done, (long long)trainer->steps_total, loss);
    }
    struct train_point *point = &trainer->curve[trainer->steps_done - 1];
    point->validation_loss = loss;
    point->seconds += clock_monotonic_s() - begin_s;
    bool better = note_validation(trainer, loss);
    if (better) {
        keep_best(trainer);
    }
    update_end(trainer);
    log_write(trainer->log, LOG_INFO, "train",
              "step %lld of %lld: training loss %.4f, validation loss %.4f%s",
              (long long)point->step, (long long)trainer->steps_total, point->train_loss, loss,
              better ? ", the best so far" : "");
    return STATUS_OK;
}

/* ---- the loop
 * -------------------------------------------------------------------------------------------------
 */

static enum status check_divergence(const struct trainer *trainer, struct error *err)
{
    if (!trainer->diverged) {
        return STATUS_OK;
    }
    const struct divergence *d = &trainer->divergence;
    return FAIL(err, STATUS_DIVERGED,
                "at step %lld of %lld the average loss has been above %.3f for %d steps (now %.3f, "
                "at the start %.3f)",
                (long long)trainer->steps_done, (long long)trainer->steps_total,
                divergence_ceiling(d), (int)d->above, divergence_average(d), d->start);
}

enum status trainer_run_steps(struct trainer *trainer, int64_t steps,
                              const struct progress *progress, struct error *err)
{
    TRY(check_divergence(trainer, err));
    if (validation_is_due(trainer)) {
        TRY(validate(trainer, progress, err));
    }
    for (int64_t i = 0; i < steps && trainer->end == TRAIN_RUNNING; i++) {
        TRY(train_step(trainer, err));
        TRY(check_divergence(trainer, err));
        enum status status =
            progress_tick(progress, "train", trainer->steps_done, trainer->steps_total, err);
        /* Ranks may learn of a stop at different moments; all stop after the same step. */
        double nothing = 0.0;
        TRY(trainer_group_agree(trainer, status, &nothing, err));
        if (validation_is_due(trainer)) {
            TRY(validate(trainer, progress, err));
        }
    }
    return STATUS_OK;
}

enum status trainer_run(struct trainer *trainer, const struct progress *progress, struct error *err)
{
    TRY(trainer_run_steps(trainer, INT64_MAX, progress, err));
    log_write(trainer->log, LOG_INFO, "train", "%s after %lld of %lld steps, %.1f s",
              trainer->end == TRAIN_STOPPED_EARLY ? "stopped early" : "finished",
              (long long)trainer->steps_done, (long long)trainer->steps_total,
              seconds_so_far(trainer));
    return STATUS_OK;
}

/* ---- time
 * -----------------------------------------------------------------------------------------------------
 */

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

double trainer_step_seconds(const struct trainer *trainer)
{
    double sorted[TRAINER_RECENT_STEPS];
    int64_t count =
        trainer->recent_count < TRAINER_RECENT_STEPS ? trainer->recent_count : TRAINER_RECENT_STEPS;
    if (count == 0) {
        return 0.0;
    }
    memcpy(sorted, trainer->recent_s, (size_t)count * sizeof(sorted[0]));
    qsort(sorted, (size_t)count, sizeof(sorted[0]), compare_double);
    return sorted[count / 2];
}
