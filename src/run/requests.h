/* Plans that were asked for and have not come yet, so that one that never comes is given up: what a
 * researcher waits for (a network, a model) may never answer. */
#ifndef RUN_REQUESTS_H
#define RUN_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct request {
    int32_t parent, number; /* as the researcher knows it; the baseline: -1, 0 */
    double asked_s;         /* monotonic */
};

struct requests {
    struct request *list; /* in the order in which they were asked */
    int count, capacity;
    double heard_s; /* monotonic: last sign of life of whatever the researcher waits for */
};

/* All zero is an empty list. */
void requests_fini(struct requests *requests);

enum status requests_add(struct requests *requests, const struct request *request,
                         struct error *err);

/* Nobody waits for it any more: it has come, or is not wanted. False if nobody did; *asked_s (may
 * be NULL): since when. */
bool requests_take(struct requests *requests, int32_t number, double *asked_s);

/* Not the answer, but a part of it: nobody is given up for patience_s from now. */
void requests_hear(struct requests *requests, double now_s);

/* Takes one that was asked patience_s ago or longer, if nothing was heard since then either; false
 * if there is none. */
bool requests_give_up(struct requests *requests, double now_s, double patience_s,
                      struct request *out);

#endif
