/* The state of a training on disk: kind "training". Restored from it, a training goes on to the
 * same bits. */
#ifndef RUN_TRAINING_FILE_H
#define RUN_TRAINING_FILE_H

#include "store/store.h"
#include "train/trainer.h"

/* `fingerprint` says what the training is of (configuration, data, model): a state with another is
 * refused. */
enum status training_file_write(const char *path, const struct trainer *trainer,
                                const char *fingerprint, struct error *err);
/* Steps that the state at path has done; 0 if there is none that can be read. */
int64_t training_file_steps(const char *path);

enum status training_file_read(const char *path, struct trainer *trainer, const char *fingerprint,
                               struct error *err);

#endif
