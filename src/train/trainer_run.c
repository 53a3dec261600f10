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

/* Packs on to this rank's next micro-batch of the step that is being made ready. */
static enum status pack_next(struct trainer *trainer, struct error *err)
{
    struct trainer_step *step = &trainer->next;
    step->has_batch = false;
    while (!step->has_batch && step->packed < step->batches) {
        TRY(packer_next(trainer->packer, &step->cursor, &step->batch, err));
        step->has_batch = step->packed++ % trainer->group.size == trainer->group.rank;
    }
    return STATUS_OK;
}

/* Makes the step after the first `done` ready, which begins at `cursor`: walks its micro-batches,
 * because the gradient of a mean over all answer tokens needs their number before the first
 * backward pass, then packs the first of this rank's. Packing costs next to nothing beside training
 * on them. */
static enum status make_ready(struct trainer *trainer, int64_t done, struct packer_cursor cursor,
                              struct error *err)
{
    struct trainer_step *step = &trainer->next;
    int64_t left = trainer->batches_total - done * trainer->config.accumulation;
    *step = (struct trainer_step){
        .batches = trainer->config.accumulation, .end = cursor, .cursor = cursor};
    if (step->batches > left) {
        step->batches = left;
    }
    for (int64_t i = 0; i < step->batches; i++) {
        struct batch batch;
        TRY(packer_next(trainer->packer, &step->end, &batch, err));
        step->tokens += batch.tokens;
        step->targets += batch.target_count;
    }
    TRY(pack_next(trainer, err));
    step->ready = true;
    return STATUS_OK;
}

/* Calls the backward passes of this rank's share: gradients and the sum of the losses, on the
 * device. The sums over the group begin within the last one. */
static enum status call_share(struct trainer *trainer, const struct progress *progress,
                              struct error *err)
{
    const struct trainer_parameters *parameters = &trainer->parameters;
    struct trainer_step *step = &trainer->next;
    struct gradient_watch watch = trainer_sums_watch(trainer);
    struct network network;
    trainer_network_current(trainer, &network);
    /* Rows may be so short that a step has no target at all: it then changes nothing but the
     * moments. */
    float factor = step->targets > 0 ? (float)(1.0 / (double)step->targets) : 0.0F;
    step->ready = false; /* its micro-batches are consumed */
    while (step->has_batch) {
        bool last = step->packed - 1 + trainer->group.size >= step->batches;
        bool watched = last && trainer->group.size > 1;
        TRY(transformer_train(trainer->transformer, &network, &step->batch, factor,
                              parameters->gradients, &parameters->numbers->loss,
                              watched ? &watch : NULL, err));
        int64_t called = step->packed;
        TRY(pack_next(trainer, err));
        if (step->has_batch) { /* on a CPU a step of many micro-batches is long */
            TRY(progress_report(progress, "step", called, step->batches, err));
        }
    }
    return STATUS_OK;
}

static void fill_gradients(const struct trainer *trainer, float value)
{
    const struct trainer_parameters *p = &trainer->parameters;
    trainer->device->ops->fill(trainer->device, trainer_parameters_row(p, p->gradients, DTYPE_F32),
                               value);
}

static void reset_numbers(const struct trainer *trainer)
{
    void *numbers = trainer->parameters.numbers;
    int64_t words = (int64_t)(sizeof(struct trainer_numbers) / sizeof(float));
    trainer->device->ops->fill(trainer->device, tensor_matrix(numbers, DTYPE_F32, 1, words), 0.0F);
}

/* Waits for the device, once: what it was called to do is done, and its numbers are here. */
static enum status fetch_numbers(const struct trainer *trainer, struct trainer_numbers *out,
                                 struct error *err)
{
    const struct ops *ops = trainer->device->ops;
    ops->download(trainer->device, out, trainer->parameters.numbers, sizeof(*out));
    return ops->check(trainer->device, err);
}

/* Clips and applies the gradients; does nothing where their norm is not finite. What is copied from
 * the parameters beside the operations is waited for by the device. */
static void call_update(struct trainer *trainer, const struct train_point *point)
{
    const struct train_config *config = &trainer->config;
    const struct trainer_parameters *p = &trainer->parameters;
    const struct ops *ops = trainer->device->ops;
    const struct adamw_step step = {
        .learning_rate = (float)point->learning_rate,
        .beta1 = (float)config->beta1,
        .beta2 = (float)config->beta2,
        .epsilon = (float)config->epsilon,
        .step = point->step,
        .clip_norm = (float)config->clip_norm,
    };
    ops->side_fence(trainer->device);
    ops->gradient_norm(trainer->device, &p->numbers->norm, p->slots, p->slot_count);
    ops->adamw(trainer->device, p->slots, p->slot_count, &p->numbers->norm, &step);
}

static enum status fail_not_finite(const struct trainer *trainer, const char *what, double value,
                                   struct error *err)
{
    return FAIL(
        err, STATUS_DIVERGED, "the %s of step %lld of %lld is %g; the learning rate is %g", what,
        (long long)trainer->steps_done + 1, (long long)trainer->steps_total, value,
        train_learning_rate(&trainer->config, trainer->steps_done + 1, trainer->steps_total));
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

/* Calls all of a step's operations, up to the update. In a group a rank that has failed goes on all
 * the same, so that no other waits for it, but with gradients that nobody learns from. */
static enum status call_step(struct trainer *trainer, enum status status,
                             const struct train_point *point, const struct progress *progress,
                             struct error *err)
{
    bool alone = trainer->group.size == 1;
    if (alone && status != STATUS_OK) {
        return status;
    }
    reset_numbers(trainer);
    fill_gradients(trainer, 0.0F);
    trainer_sums_begin(trainer);
    if (status == STATUS_OK) {
        status = call_share(trainer, progress, err);
    }
    if (alone) {
        TRY(status);
    } else {
        struct error sums_error;
        if (status != STATUS_OK) {
            trainer->device->ops->side_fence(trainer->device); /* sums that were begun read them */
            fill_gradients(trainer, NAN);
        }
        enum status summed = trainer_sums_finish(trainer, &sums_error);
        if (status == STATUS_OK && summed != STATUS_OK) {
            *err = sums_error;
            status = summed;
        }
    }
    call_update(trainer, point);
    return status;
}

/* The next step on the host while the device works on this one. If that fails, it is made ready
 * again when its turn comes, and fails there. */
static void look_ahead(struct trainer *trainer, struct packer_cursor cursor)
{
    struct error ignored;
    if (trainer->steps_done + 1 < trainer->steps_total) {
        (void)make_ready(trainer, trainer->steps_done + 1, cursor, &ignored);
    }
}

static enum status get_ready(struct trainer *trainer, struct error *err)
{
    TRY(grow_curve(trainer, err));
    return trainer->next.ready ? STATUS_OK
                               : make_ready(trainer, trainer->steps_done, trainer->cursor, err);
}

static enum status run_step(struct trainer *trainer, const struct progress *progress,
                            struct error *err)
{
    double begin_s = clock_monotonic_s();
    enum status status = get_ready(trainer, err);
    const struct trainer_step plan = trainer->next;
    int64_t number = trainer->steps_done + 1;
    struct train_point point = {
        .step = number,
        .tokens = trainer->tokens + plan.tokens,
        .validation_loss = (double)NAN,
        .learning_rate = train_learning_rate(&trainer->config, number, trainer->steps_total),
    };
    struct trainer_numbers numbers = {(double)NAN, NAN};
    struct error device_error;
    status = call_step(trainer, status, &point, progress, err);
    if (status == STATUS_OK) {
        look_ahead(trainer, plan.end);
    }
    enum status device_status = fetch_numbers(trainer, &numbers, &device_error);
    if (status == STATUS_OK && device_status != STATUS_OK) {
        *err = device_error;
        status = device_status;
    }
    TRY(trainer_group_agree(trainer, status, &numbers.loss, err));
    point.train_loss = plan.targets > 0 ? numbers.loss / (double)plan.targets : 0.0;
    point.gradient_norm = (double)numbers.norm;
    if (!isfinite(point.train_loss)) {
        return fail_not_finite(trainer, "loss", point.train_loss, err);
    }
    if (!isfinite(point.gradient_norm)) {
        return fail_not_finite(trainer, "gradient norm", point.gradient_norm, err);
    }
    double step_s = clock_monotonic_s() - begin_s;
    point.seconds = seconds_so_far(trainer) + step_s;
    commit_step(trainer, &point, plan.end, step_s);
    return STATUS_OK;
}

/* One whole step, or none. Collective. */
static enum status train_step(struct trainer *trainer, const struct progress *progress,
                              struct error *err)
{
    enum status status = run_step(trainer, progress, err);
    if (status != STATUS_OK) {
        trainer->next.ready = false; /* it was made for the step after one that is not done */
    }
    return status;
}

/* ---- validation
 * -----------------------------------------------------------------------------------------------
 */

/* Adds the losses of this rank's share of the validation rows up on the device; counts the targets
 * of all rows. */
static enum status call_scores(struct trainer *trainer, const struct progress *progress,
                               int64_t *targets, struct error *err)
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
        TRY(transformer_score_sum(trainer->transformer, &network, &batch,
                                  &trainer->parameters.numbers->loss, err));
        TRY(progress_tick(progress, "validate", i + 1, batches, err));
    }
    return STATUS_OK;
}

/* Losses of this rank's share of the validation rows into *loss_sum, targets of all rows into
 * *targets. */
static enum status score_share(struct trainer *trainer, const struct progress *progress,
                               double *loss_sum, int64_t *targets, struct error *err)
{
    struct trainer_numbers numbers = {(double)NAN, NAN};
    reset_numbers(trainer);
    TRY(call_scores(trainer, progress, targets, err));
    TRY(fetch_numbers(trainer, &numbers, err));
    *loss_sum = numbers.loss;
    return STATUS_OK;
}

static void keep_best(struct trainer *trainer)
{
    struct trainer_parameters *p = &trainer->parameters;
    if (p->best.data != NULL) {
        trainer->device->ops->side_fence(trainer->device); /* a snapshot may still read the last */
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
        TRY(train_step(trainer, progress, err));
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
