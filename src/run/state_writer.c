#include "run/state_writer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

enum writer_phase { WRITER_IDLE, WRITER_COPYING, WRITER_WRITING };

/* One array's place on the host, kept from state to state. */
struct place {
    void *data;
    size_t bytes;
};

struct state_writer {
    /* borrowed */
    struct device *device;
    const struct trainer *trainer;
    const char *path;
    const struct training_label *label;

    enum writer_phase phase;
    int64_t ticket; /* of the last copy */
    struct place places[TRAINER_ARRAYS_MAX];
    struct training_state state; /* what the file will hold */

    pthread_t thread;     /* while writing, all below is its own, but for done */
    atomic_bool done;     /* set last */
    enum status status;   /* of the write */
    struct error failure; /* with status */
    double seconds;       /* of the last write */

    int64_t written_steps; /* of the last state that is on disk; -1: none */
};

enum status state_writer_create(struct device *device, const struct trainer *trainer,
                                const char *path, const struct training_label *label,
                                struct state_writer **out, struct error *err)
{
    struct state_writer *writer = mem_calloc(1, sizeof(*writer));
    if (writer == NULL) {
        return mem_fail(err, sizeof(*writer), "a writer of training states");
    }
    writer->device = device;
    writer->trainer = trainer;
    writer->path = path;
    writer->label = label;
    writer->written_steps = -1;
    *out = writer;
    return STATUS_OK;
}

void state_writer_destroy(struct state_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    struct error ignored;
    (void)state_writer_settle(writer, &ignored);
    for (int i = 0; i < TRAINER_ARRAYS_MAX; i++) {
        writer->device->ops->host_free(writer->device, writer->places[i].data);
    }
    free(writer);
}

bool state_writer_busy(const struct state_writer *writer)
{
    return writer->phase != WRITER_IDLE;
}

double state_writer_seconds(const struct state_writer *writer)
{
    return writer->seconds;
}

int64_t state_writer_steps(const struct state_writer *writer)
{
    return writer->written_steps;
}

/* ---- copying ---- */

/* Room for the curve is taken with some for its growth: such memory is slow to come by. */
static enum status make_room(struct state_writer *writer, int index, size_t bytes,
                             struct error *err)
{
    enum { SMALL_BYTES = 1 << 20 };
    const struct ops *ops = writer->device->ops;
    struct place *place = &writer->places[index];
    if (bytes <= place->bytes) {
        return STATUS_OK;
    }
    size_t wanted = bytes < SMALL_BYTES ? 2 * bytes : bytes;
    ops->host_free(writer->device, place->data);
    *place = (struct place){NULL, 0};
    TRY(ops->host_alloc(writer->device, wanted, "a copy of a training's state", &place->data, err));
    place->bytes = wanted;
    return STATUS_OK;
}

enum status state_writer_start(struct state_writer *writer, struct error *err)
{
    if (writer->phase != WRITER_IDLE) {
        return STATUS_OK;
    }
    struct training_state *state = &writer->state;
    state->count = trainer_state_arrays(writer->trainer, state->arrays);
    state->steps_done = trainer_steps_done(writer->trainer);
    for (int i = 0; i < state->count; i++) {
        TRY(make_room(writer, i, training_array_bytes(&state->arrays[i]), err));
    }
    writer->ticket = 0;
    for (int i = 0; i < state->count; i++) {
        int64_t ticket = trainer_state_begin(writer->trainer, i, writer->places[i].data);
        writer->ticket = ticket > writer->ticket ? ticket : writer->ticket;
    }
    writer->phase = WRITER_COPYING;
    return STATUS_OK;
}

/* ---- writing ---- */

static enum status read_place(void *context, int64_t index, void *to, struct error *err)
{
    const struct state_writer *writer = context;
    (void)err;
    trainer_state_finish(writer->trainer, (int)index, writer->places[index].data);
    memcpy(to, writer->places[index].data, training_array_bytes(&writer->state.arrays[index]));
    return STATUS_OK;
}

static void *write_state(void *context)
{
    struct state_writer *writer = context;
    double begun_s = clock_monotonic_s();
    writer->status = training_file_write_state(writer->path, &writer->state, writer->label,
                                               read_place, writer, &writer->failure);
    writer->seconds = clock_monotonic_s() - begun_s;
    atomic_store(&writer->done, true);
    return NULL;
}

static enum status start_thread(struct state_writer *writer, struct error *err)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all); /* signals are the main thread's business */
    atomic_store(&writer->done, false);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&writer->thread, NULL, write_state, writer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    writer->phase = failed == 0 ? WRITER_WRITING : WRITER_IDLE;
    if (failed != 0) {
        errno = failed;
        return FAIL_ERRNO(err, "cannot start a thread to write %s", writer->path);
    }
    return STATUS_OK;
}

/* Waits for the thread, and takes what it has to say. */
static enum status join_thread(struct state_writer *writer, struct error *err)
{
    pthread_join(writer->thread, NULL);
    writer->phase = WRITER_IDLE;
    if (writer->status == STATUS_OK) {
        writer->written_steps = writer->state.steps_done;
    } else if (err != NULL) {
        *err = writer->failure;
    }
    return writer->status;
}

enum status state_writer_poll(struct state_writer *writer, struct error *err)
{
    if (writer->phase == WRITER_COPYING) {
        /* The update of the step that was done since has waited for the copies: so they are there,
         * unless the device has failed, and then they are not what was there to be copied. */
        writer->device->ops->side_wait(writer->device, writer->ticket);
        writer->phase = WRITER_IDLE;
        TRY(writer->device->ops->check(writer->device, err));
        return start_thread(writer, err);
    }
    if (writer->phase == WRITER_WRITING && atomic_load(&writer->done)) {
        return join_thread(writer, err);
    }
    return STATUS_OK;
}

enum status state_writer_settle(struct state_writer *writer, struct error *err)
{
    if (writer->phase == WRITER_COPYING) {
        writer->device->ops->side_wait(writer->device, writer->ticket);
        writer->phase = WRITER_IDLE;
    }
    return writer->phase == WRITER_WRITING ? join_thread(writer, err) : STATUS_OK;
}
