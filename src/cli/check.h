/* The parts of `trex check`. */
#ifndef CLI_CHECK_H
#define CLI_CHECK_H

#include "model/model.h"
#include "run/job.h"

/* Who plans, whom it asks, with which keys (whether they are there, never what they are), what it
 * may look up, and what that costs at most. */
/* speaker: the local model, inspected; NULL: another one. */
void check_print_researcher(const struct job *job, const struct model *speaker);

#endif
