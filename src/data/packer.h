/* Encoded rows to micro-batches: sequences of different length packed one after the other, never
 * across a batch.
 *
 * The order is a function of (seed, epoch) alone and the position is a number, so the cursor of a
 * training is two integers that can be saved, restored, and shared out among ranks. */
#ifndef DATA_PACKER_H
#define DATA_PACKER_H

#include "data/encode.h"
#include "model/batch.h"

struct packer; /* opaque */

/* A cursor behind an epoch's last micro-batch stands in the next epoch. */
struct packer_cursor {
    int64_t epoch; /* 0-based */
    int64_t batch; /* next micro-batch of the epoch */
};

/* Borrows `dataset`. batch_tokens: most tokens of a micro-batch (at least the longest sequence,
 * else STATUS_RANGE). Without shuffle every epoch is the same, in about the order of the rows. */
enum status packer_create(const struct encoded_dataset *dataset, int64_t batch_tokens,
                          uint64_t seed, bool shuffle, struct packer **out, struct error *err);
void packer_destroy(struct packer *packer);

/* Micro-batches of an epoch. Not for several threads at once: it may plan that epoch in the
 * packer's scratch memory. */
int64_t packer_batches(const struct packer *packer, int64_t epoch);

/* The micro-batch at the cursor into *out (valid until the next call), then moves the cursor on to
 * the next, which may be that of the next epoch. STATUS_RANGE for a negative cursor, or one a
 * thousand epochs behind its own. */
enum status packer_next(struct packer *packer, struct packer_cursor *cursor, struct batch *out,
                        struct error *err);

double packer_fill(const struct packer *packer); /* tokens / (batches * batch_tokens), of epoch 0 */

#endif
