/* Candidates that are not trained: a worker of `trex search --simulate SECONDS` sleeps as long and
 * answers with a result drawn from the seed, the candidate's name and its configuration. For trying
 * batch scripts, queue settings and scale without a device; in all else such a worker is a real
 * one. */
#ifndef RUN_SIMULATED_H
#define RUN_SIMULATED_H

#include "run/candidate.h"

/* A candidate is cut into so many steps, each the end of a nap: a stop, a checkpoint and progress
 * are possible at each. */
enum { SIMULATED_STEPS = 40 };

/* How long a candidate takes if nothing holds it up: 0.8 to 1.2 times `seconds`. The baseline,
 * which trains nothing, takes as long. */
double simulated_duration_s(double seconds, uint64_t seed, const char *name);

/* candidate_train without a workspace's device. The score follows the configuration: there are a
 * learning rate, a number of epochs and a size of step that are best, hidden in the seed, and
 * whoever comes nearer scores higher, up to the noise of a validation split. */
enum status simulated_train(const struct job *job, double seconds,
                            const struct candidate_order *order, const struct train_group *group,
                            const struct progress *progress, cJSON **result, struct error *err);

/* candidate_score likewise: on the test split, in a tenth of the time. */
enum status simulated_score(const struct job *job, double seconds,
                            const struct candidate_order *order, const struct progress *progress,
                            cJSON **score, struct error *err);

#endif
