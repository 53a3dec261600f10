/* The parts of `trex check`. */
#ifndef CLI_CHECK_H
#define CLI_CHECK_H

#include "run/job.h"

/* Who plans, whom it asks, with which keys (whether they are there, never what they are), what it
 * may look up, and what that costs at most. */
void check_print_researcher(const struct job *job);

#endif
