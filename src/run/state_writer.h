/* Training states that are written while the training goes on.
 *
 *   start    at a step boundary: copies of the state begin beside the device's operations
 *   poll     at the next ones: once the copies are there, a thread writes the file
 *   settle   nothing is under way afterwards
 *
 * At most one state is under way. All functions are for the thread that trains. Writer and trainer
 * share a device; the writer is settled before the trainer is restored or destroyed. */
#ifndef RUN_STATE_WRITER_H
#define RUN_STATE_WRITER_H

#include <stdbool.h>

#include "run/training_file.h"

struct state_writer; /* opaque */

/* Borrows all. Host memory for a state is taken when the first one starts. */
enum status state_writer_create(struct device *device, const struct trainer *trainer,
                                const char *path, const struct training_label *label,
                                struct state_writer **out, struct error *err);
void state_writer_destroy(struct state_writer *writer); /* settles; NULL allowed */

/* Starts a state of this moment, unless one is under way. STATUS_NO_MEMORY: the host has no room
 * for a copy, and nothing has begun. */
enum status state_writer_start(struct state_writer *writer, struct error *err);

/* Moves on what is under way, without waiting for the disk. A write that failed: its error, once.
 */
enum status state_writer_poll(struct state_writer *writer, struct error *err);

/* Ends what is under way: a file that is being written is finished, copies that no file was begun
 * with are dropped. A write that failed: its error, once. */
enum status state_writer_settle(struct state_writer *writer, struct error *err);

bool state_writer_busy(const struct state_writer *writer);
double state_writer_seconds(const struct state_writer *writer); /* of the last write; 0: none yet */

/* Steps of the last state that is on disk; -1: none yet. */
int64_t state_writer_steps(const struct state_writer *writer);

#endif
