/* The state of a training on disk: kind "training". Restored from it, a training goes on to the
 * same bits. */
#ifndef RUN_TRAINING_FILE_H
#define RUN_TRAINING_FILE_H

#include <stdbool.h>

#include "store/store.h"
#include "train/trainer.h"

/* What a training is of. */
struct training_label {
    char fingerprint[HASH_TEXT_BYTES]; /* configuration, data, model: a state with another is
                                          refused */
    enum train_precision precision;
};

/* A state as it was at one moment, its values apart from it. */
struct training_state {
    struct trainer_array arrays[TRAINER_ARRAYS_MAX];
    int count;
    int64_t steps_done;
};
size_t training_array_bytes(const struct trainer_array *array);

/* Writes the trainer's state as it is now. progress: NULL, or told of each array (phase "save"). */
enum status training_file_write(const char *path, const struct trainer *trainer,
                                const struct training_label *label, const struct progress *progress,
                                struct error *err);

/* The same with the values from `read`, e.g. from a copy of the state; from any thread. */
enum status training_file_write_state(const char *path, const struct training_state *state,
                                      const struct training_label *label, store_read_fn read,
                                      void *context, struct error *err);

/* Steps that the state at path has done; 0 if there is none that can be read. */
int64_t training_file_steps(const char *path);

/* The precision of the state at path; false if there is none that can be read. */
bool training_file_precision(const char *path, enum train_precision *out);

/* Restores the trainer, which can only be destroyed after a failure. progress: NULL, or told of
 * each array (phase "load"), where it can be stopped. */
enum status training_file_read(const char *path, struct trainer *trainer,
                               const struct training_label *label, const struct progress *progress,
                               struct error *err);

#endif
