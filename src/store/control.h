/* control.json in a run folder: what somebody at a login node wants of a running search.
 *
 *   trex-tree halt, set --> control.json (written aside, renamed) --> controller, every few seconds
 *
 * Limits that were set hold until they are set again, over several allocations, and win over the
 * job file's. A wish to halt holds once: the search remembers the id of the last that it obeyed, so
 * that the next sbatch goes on. The one writer is trex-tree; the file is checked as if hostile.
 * What the search has made of it is in its record: search.limits and search.halt_id. */
#ifndef STORE_CONTROL_H
#define STORE_CONTROL_H

#include <stdbool.h>

#include "base/status.h"
#include "tree/search.h"

enum store_halt {
    STORE_HALT_NONE,
    STORE_HALT_NOW,
    STORE_HALT_ROUND, /* no new rounds; open ones end */
    STORE_HALT_AT
};

struct store_control {
    enum store_halt halt;
    double halt_at_s;                   /* wall time, for STORE_HALT_AT */
    char halt_id[SEARCH_HALT_ID_BYTES]; /* unique for each wish */
    double limits[SEARCH_LIMIT_COUNT];  /* NaN: not set. 0 means what it means in the job file. */
    char by[128];                       /* user@host, for the record; printable ASCII */
    double written_s;                   /* wall time */
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

#endif
