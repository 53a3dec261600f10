/* control.json in a run folder: what somebody at a login node wants of a running search.
 *
 *   trex-tree halt, set --> control.json (written aside, renamed) --> controller, every few seconds
 *
 * Limits that were set hold until they are set again, over several allocations, and win over the job file's. A wish to
 * halt holds once: the search remembers the id of the last one it obeyed (incident "halted"), so that the next sbatch
 * goes on. The one writer is trex-tree; the file is checked as if hostile. */
#ifndef STORE_CONTROL_H
#define STORE_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum store_halt { STORE_HALT_NONE, STORE_HALT_NOW, STORE_HALT_ROUND /* no new rounds; open ones end */, STORE_HALT_AT };

struct store_control {
    enum store_halt halt;
    double halt_at_s;  /* wall time, for STORE_HALT_AT */
    char halt_id[40];  /* unique for each wish */
    /* Limits by the names of job.h; NaN: not set. 0 means what it means in the job file. */
    double rounds, core_hours, gpu_hours, goal_score, agent_tokens, agent_money_usd;
    char by[128];      /* user@host, for the record */
    double written_s;  /* wall time */
};

void store_control_init(struct store_control *out);

/* STATUS_NOT_FOUND if there is none; STATUS_FORMAT or STATUS_INVALID names the file, the key and what is allowed. */
enum status store_control_read(const char *folder, struct store_control *out, struct error *err);
enum status store_control_write(const char *folder, const struct store_control *control, struct error *err);

#endif
