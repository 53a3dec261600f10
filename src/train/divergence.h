/* When a training is going nowhere. Pure: a function of the losses so far, so that a restored
 * training replays it.
 *
 * Single steps are noisy (a step may hold a handful of answer tokens), hence three layers of
 * patience: the start is the mean of the first DIVERGENCE_START losses; what is watched is a
 * bias-corrected moving average over about DIVERGENCE_MEMORY steps; and it has to be above the
 * ceiling for DIVERGENCE_PATIENCE steps in a row.
 *
 * The ceiling is the lower of
 *   2 * start + 1 nat                     far above where it was, also for a start near 0
 *   max(start, ln V) + 1 nat              worse than guessing uniformly among V tokens, and than
 * the start */
#ifndef TRAIN_DIVERGENCE_H
#define TRAIN_DIVERGENCE_H

#include <stdbool.h>
#include <stdint.h>

enum { DIVERGENCE_START = 4, DIVERGENCE_MEMORY = 16, DIVERGENCE_PATIENCE = 25 };

struct divergence {
    double uniform; /* ln V, nats */
    double start;   /* mean of the first losses, nats */
    double average; /* moving average, not yet corrected for its start at 0 */
    double weight;  /* sum of the weights in it: the correction */
    int64_t steps;  /* seen */
    int64_t above;  /* in a row with the average above the ceiling */
};

void divergence_init(struct divergence *divergence, int64_t vocab_size);

/* One more step's loss (finite). True once the training has diverged. */
bool divergence_update(struct divergence *divergence, double loss);

/* For messages: the moving average and its ceiling, nats. */
double divergence_average(const struct divergence *divergence);
double divergence_ceiling(const struct divergence *divergence);

#endif
