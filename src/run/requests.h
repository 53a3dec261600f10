/* Plans that were asked for and have not come yet, so that one that never comes is given up: what a
 * researcher waits for (a network, a model) may never answer. */
#ifndef RUN_REQUESTS_H
#define RUN_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct request {
    int32_t parent;
    double asked_s; /* monotonic */
    bool given_up;  /* its answer, should it come, is late */
};

struct requests {
    struct request *list; /* in the order in which they were asked */
    int count, capacity;
};

/* All zero is an empty list. */
void requests_fini(struct requests *requests);

enum status requests_add(struct requests *requests, int32_t parent, double now_s,
                         struct error *err);

/* An answer has come: true if somebody still waits for it. */
bool requests_take(struct requests *requests, int32_t parent);

/* Gives up one that was asked patience_s ago or longer; false if there is none. */
bool requests_give_up(struct requests *requests, double now_s, double patience_s, int32_t *parent);

#endif
