/* How many candidates to plan ahead of the free workers, so that none waits for an agent. Pure.
 *
 * While a plan is on its way (latency: from its request until it is a node), `workers` busy with
 * candidates of candidate_s each begin workers x latency / candidate_s new ones on average, and now
 * and then more, by about half the root of it: so many must be planned already. They are planned
 * with less known, so as few as will do, in whole rounds. */
#ifndef RUN_AHEAD_H
#define RUN_AHEAD_H

#include <stdint.h>

/* All zero: nothing was measured. */
struct ahead {
    double latency_s;   /* slow plans count at once, quick ones little by little */
    double candidate_s; /* mean, of late */
    int64_t candidates; /* that the mean is of */
};

/* Times that are no times are ignored. */
void ahead_learn_latency(struct ahead *ahead, double seconds);
void ahead_learn_candidate(struct ahead *ahead, double seconds);

/* Candidates, a multiple of `round` (configurations of one): `current` where nothing was measured,
 * or where so few more or less are needed that a change would only be one of measurement; 0 where a
 * plan takes less than 1 percent of a round's time. */
int64_t ahead_wanted(const struct ahead *ahead, int workers, int round, int64_t current);

#endif
