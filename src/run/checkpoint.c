#include "run/checkpoint.h"

#include "base/clock.h"
#include "base/file.h"

/* Bytes of the state as it is now. */
static double state_bytes(const struct trainer *trainer)
{
    struct trainer_array arrays[TRAINER_ARRAYS_MAX];
    int count = trainer_state_arrays(trainer, arrays);
    double bytes = 0.0;
    for (int i = 0; i < count; i++) {
        bytes += (double)training_array_bytes(&arrays[i]);
    }
    return bytes;
}

static bool keeps_state(const struct checkpoint *checkpoint)
{
    return checkpoint->path != NULL && checkpoint->writes;
}

enum status checkpoint_open(struct checkpoint *checkpoint, struct error *err)
{
    checkpoint->saved_at_s = clock_monotonic_s();
    checkpoint->safe_steps = -1;
    checkpoint->begun_steps = -1;
    if (checkpoint->pace != NULL) {
        pace_expect_state(checkpoint->pace, state_bytes(checkpoint->trainer));
    }
    if (!keeps_state(checkpoint) || !checkpoint->device->ops->asynchronous) {
        return STATUS_OK;
    }
    return state_writer_create(checkpoint->device, checkpoint->trainer, checkpoint->path,
                               &checkpoint->label, &checkpoint->writer, err);
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    state_writer_destroy(checkpoint->writer);
    checkpoint->writer = NULL;
}

enum status checkpoint_read(struct checkpoint *checkpoint, bool *restored, struct error *err)
{
    *restored = false;
    if (checkpoint->path == NULL || !file_exists(checkpoint->path)) {
        return STATUS_OK;
    }
    struct trainer *trainer = checkpoint->trainer;
    TRY(training_file_read(checkpoint->path, trainer, &checkpoint->label, checkpoint->progress,
                           err));
    checkpoint->saved_at_s = clock_monotonic_s();
    checkpoint->safe_steps = trainer_steps_done(trainer);
    checkpoint->begun_steps = checkpoint->safe_steps;
    log_write(checkpoint->log, LOG_INFO, "run", "%s goes on at step %lld of %lld", checkpoint->name,
              (long long)trainer_steps_done(trainer), (long long)trainer_steps_total(trainer));
    *restored = true;
    return STATUS_OK;
}

static void note_save(const struct checkpoint *checkpoint, int64_t steps, double seconds)
{
    log_write(checkpoint->log, LOG_DEBUG, "run", "%s: its state after step %lld is on disk, %.2f s",
              checkpoint->name, (long long)steps, seconds);
    if (checkpoint->pace != NULL) {
        pace_saved(checkpoint->pace, state_bytes(checkpoint->trainer), seconds);
    }
}

enum status checkpoint_save(struct checkpoint *checkpoint, struct error *err)
{
    int64_t steps = trainer_steps_done(checkpoint->trainer);
    if (!keeps_state(checkpoint)) {
        return STATUS_OK;
    }
    if (checkpoint->writer != NULL) { /* what is under way is older, or what is wanted */
        struct error ignored;
        (void)state_writer_settle(checkpoint->writer, &ignored);
        int64_t written = state_writer_steps(checkpoint->writer);
        checkpoint->safe_steps = written >= 0 ? written : checkpoint->safe_steps;
    }
    if (checkpoint->safe_steps == steps) {
        return STATUS_OK;
    }
    double begun_s = clock_monotonic_s();
    TRY(training_file_write(checkpoint->path, checkpoint->trainer, &checkpoint->label,
                            checkpoint->progress, err));
    checkpoint->saved_at_s = clock_monotonic_s();
    checkpoint->save_took_s = checkpoint->saved_at_s - begun_s;
    checkpoint->safe_steps = steps;
    checkpoint->begun_steps = steps;
    note_save(checkpoint, steps, checkpoint->save_took_s);
    return STATUS_OK;
}

/* Seconds between saves: soon after the start, so that a job that dies early has got somewhere;
 * then so that saving costs a twentieth of the time at most; never longer than the job says. */
static double interval_s(const struct checkpoint *checkpoint)
{
    const double first_s = 2.0;
    const double share = 20.0;
    double wanted_s = share * checkpoint->save_took_s;
    wanted_s = wanted_s > first_s ? wanted_s : first_s;
    return wanted_s < checkpoint->longest_s ? wanted_s : checkpoint->longest_s;
}

/* Where the device works by itself, a copy of the state is written while the training goes on: that
 * costs memory of the host, but no time. Elsewhere, and where there is no such memory, the training
 * waits for the disk. */
static enum status begin_save(struct checkpoint *checkpoint, struct error *err)
{
    if (checkpoint->writer == NULL) {
        return checkpoint_save(checkpoint, err);
    }
    if (state_writer_busy(checkpoint->writer)) {
        return STATUS_OK;
    }
    enum status status = state_writer_start(checkpoint->writer, err);
    if (status == STATUS_NO_MEMORY) {
        log_write(checkpoint->log, LOG_INFO, "run",
                  "states are written while the training waits: %s", err->message);
        state_writer_destroy(checkpoint->writer);
        checkpoint->writer = NULL;
        return checkpoint_save(checkpoint, err);
    }
    TRY(status);
    const double disk_share =
        4.0; /* of the time, writes may take up to a fifth and not a twentieth */
    checkpoint->saved_at_s = clock_monotonic_s();
    checkpoint->save_took_s = state_writer_seconds(checkpoint->writer) / disk_share;
    checkpoint->begun_steps = trainer_steps_done(checkpoint->trainer);
    return STATUS_OK;
}

static enum status poll_writer(struct checkpoint *checkpoint, struct error *err)
{
    bool busy = state_writer_busy(checkpoint->writer);
    TRY(state_writer_poll(checkpoint->writer, err));
    if (busy && !state_writer_busy(checkpoint->writer)) {
        note_save(checkpoint, state_writer_steps(checkpoint->writer),
                  state_writer_seconds(checkpoint->writer));
    }
    return STATUS_OK;
}

enum status checkpoint_tick(struct checkpoint *checkpoint, struct error *err)
{
    if (!keeps_state(checkpoint)) {
        return STATUS_OK;
    }
    if (checkpoint->writer != NULL) {
        TRY(poll_writer(checkpoint, err));
    }
    bool due = clock_monotonic_s() - checkpoint->saved_at_s >= interval_s(checkpoint);
    bool news = trainer_steps_done(checkpoint->trainer) != checkpoint->begun_steps;
    return due && news ? begin_save(checkpoint, err) : STATUS_OK;
}
