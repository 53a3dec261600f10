/* The state of a training on disk, kept up as the training goes: soon after the start, then so that
 * little is lost if the job dies and little is spent on it, and at once when it is stopped.
 *
 *   open -> read -> (tick after each step, between batches of the evaluation)... -> save -> close
 *
 * In a group all ranks read the state, and its leader alone writes it. */
#ifndef RUN_CHECKPOINT_H
#define RUN_CHECKPOINT_H

#include <stdbool.h>

#include "base/progress.h"
#include "run/pace.h"
#include "run/state_writer.h"
#include "run/training_file.h"

struct checkpoint {
    /* to be set before open; borrowed */
    const char *name; /* of the candidate, for the log */
    const char *path; /* NULL: no state is kept */
    bool writes;      /* false: another rank of the group does */
    double longest_s; /* between two saves, at most */
    struct device *device;
    struct trainer *trainer;
    struct training_label label;
    const struct progress *progress; /* NULL, or told of arrays that are read and written */
    struct pace *pace;               /* NULL, or told of saves */
    struct log *log;

    /* its own */
    struct state_writer *writer; /* where the training can go on meanwhile; else NULL */
    double saved_at_s;           /* monotonic */
    double save_took_s;
    int64_t safe_steps;  /* of the state on disk that was read or waited for; -1: none */
    int64_t begun_steps; /* of the last state that was begun or read; -1: none */
};

enum status checkpoint_open(struct checkpoint *checkpoint, struct error *err);
void checkpoint_close(struct checkpoint *checkpoint);

/* Reads the state on disk into the trainer, if there is one. *restored false: there is none. Any
 * failure leaves a trainer that can only be destroyed; STATUS_INTERRUPTED: stopped by progress. */
enum status checkpoint_read(struct checkpoint *checkpoint, bool *restored, struct error *err);

/* The trainer's state may be read now: moves a save on, or begins one if it is time. */
enum status checkpoint_tick(struct checkpoint *checkpoint, struct error *err);

/* Returns when the state as it is now is on disk. */
enum status checkpoint_save(struct checkpoint *checkpoint, struct error *err);

#endif
