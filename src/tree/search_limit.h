/* Limits of the job file that can be set for a search that has begun: their names, and what they
 * may be. The job file, control.json, the events and run.h5 all read them here. */
#ifndef TREE_SEARCH_LIMIT_H
#define TREE_SEARCH_LIMIT_H

#include <stdbool.h>

#include "base/json.h"

enum search_limit_id {
    SEARCH_LIMIT_ROUNDS,
    SEARCH_LIMIT_CORE_HOURS,
    SEARCH_LIMIT_GPU_HOURS,
    SEARCH_LIMIT_GOAL_SCORE,
    SEARCH_LIMIT_AGENT_TOKENS,
    SEARCH_LIMIT_AGENT_MONEY,
    SEARCH_LIMIT_COUNT
};

struct search_limit {
    const char *name;    /* wherever it is written */
    const char *section; /* of the job file */
    bool whole;          /* a whole number, not below 0 */
    double fallback;     /* of a job file that does not say */
    double min, max;
};
extern const struct search_limit search_limits[SEARCH_LIMIT_COUNT];

/* Reads a limit from an object: a section of the job file, or what somebody has set. */
double search_limit_read(struct json_reader *reader, enum search_limit_id id, double fallback);

/* Whether the limit may have this value. NaN is none. */
bool search_limit_fits(enum search_limit_id id, double value);

/* Whether two values, each perhaps NaN for "not set", are the same. */
bool search_limit_same(double a, double b);

#endif
