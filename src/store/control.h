/* control.json in a run folder: what somebody at a login node wants of a running search.
 *
 *   trex-tree halt, set --> control.json (written aside, renamed) --> controller, every few seconds
 *
 * Limits that were set hold until they are set again, over several allocations, and win over the
 * job file's. A wish to halt holds once: the search remembers the id of each that it obeyed
 * (incident "halted", end of the allocation), so that the next sbatch goes on. The one writer is
 * trex-tree; the file is checked as if hostile. */
#ifndef STORE_CONTROL_H
#define STORE_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "tree/search.h"

enum store_halt {
    STORE_HALT_NONE,
    STORE_HALT_NOW,
    STORE_HALT_ROUND, /* no new rounds; open ones end */
    STORE_HALT_AT
};

/* Limits of the job file that can be set for a search that has begun. */
enum store_limit_id {
    STORE_LIMIT_ROUNDS,
    STORE_LIMIT_CORE_HOURS,
    STORE_LIMIT_GPU_HOURS,
    STORE_LIMIT_GOAL_SCORE,
    STORE_LIMIT_AGENT_TOKENS,
    STORE_LIMIT_AGENT_MONEY,
    STORE_LIMIT_COUNT
};

struct store_limit {
    const char *name;    /* in the job file and in control.json */
    const char *section; /* of the job file */
    bool whole;          /* a whole number, not below 0 */
    double fallback;     /* of a job file that does not say */
    double min, max;
};
extern const struct store_limit store_limits[STORE_LIMIT_COUNT];

/* Reads the limit from its section of the job file, or from control.json. */
double store_limit_read(struct json_reader *reader, enum store_limit_id id, double fallback);

struct store_control {
    enum store_halt halt;
    double halt_at_s;                 /* wall time, for STORE_HALT_AT */
    char halt_id[40];                 /* unique for each wish: small letters and digits */
    double limits[STORE_LIMIT_COUNT]; /* NaN: not set. 0 means what it means in the job file. */
    char by[128];                     /* user@host, for the record; printable ASCII */
    double written_s;                 /* wall time */
};

/* Times are below this (the year 5138), so that they can be printed. */
#define STORE_CONTROL_TIME_MAX_S 1e11

/* No halt, no limits. */
void store_control_init(struct store_control *out);

/* STATUS_NOT_FOUND if there is none; STATUS_FORMAT, STATUS_LIMIT or STATUS_INVALID names the file,
 * the key and what is allowed; *out is then unchanged. */
enum status store_control_read(const char *folder, struct store_control *out, struct error *err);

/* Refuses (STATUS_INVALID) what store_control_read would. */
enum status store_control_write(const char *folder, const struct store_control *control,
                                struct error *err);

/* Whether the search has halted because of the wish with this id, as it has recorded: in its
 * incidents, and in the ends of its allocations, because it keeps no more than so many incidents.
 */
bool store_control_obeyed(const struct search *search, const char *id);

#endif
