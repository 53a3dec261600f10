/* The controller: rank 0. Selects, plans, dispatches, records; never trains, never waits.
 *
 *   message from a worker -> event -> journal thread -> on disk -> search_apply -> the next
 * decision
 *
 * Its turn is a few microseconds; it may be called from a worker's step in the same process (one
 * rank). */
#ifndef RUN_CONTROLLER_H
#define RUN_CONTROLLER_H

#include <stdbool.h>

#include "agents/researcher.h"
#include "base/clock.h"
#include "base/log.h"
#include "model/model.h"
#include "run/job.h"
#include "run/machine.h"
#include "run/message.h"
#include "run/workspace.h"

struct controller; /* opaque */

struct controller_options {
    const struct job *job;
    struct mailbox *mailbox;
    struct log *log;
    const struct store_lock *lock; /* of the run folder; NULL: none */
    const int *leaders;            /* ranks that take orders */
    int leader_count;
    int ranks_per_candidate;
    int threads;                 /* of a rank, for core-hours */
    int node_workers;            /* on this node, for memory estimates */
    int ranks, nodes;            /* of the job, rank 0's included */
    struct deadline deadline;    /* when the allocation ends; never: unknown */
    double died_s;               /* wall time of the folder's last sign of life before; 0: none */
    struct workspace *workspace; /* for splits; it needs no device */
    struct machine machine;      /* of the workers */
    bool simulated;              /* the workers train nothing (run/simulated.h) */
    bool measure;                /* for controller_get_times */
    const char *replay_folder;   /* calls are answered as in this run folder; NULL: not */
    bool prefetch;               /* no workers: it ends when the researcher is prepared */
    const struct model *model;   /* inspected */
};

/* Opens or resumes the run folder (locked already). STATUS_INVALID if it holds another search. */
enum status controller_create(const struct controller_options *options, struct controller **out,
                              struct error *err);
void controller_destroy(struct controller *controller);

/* One turn: messages, events, decisions. *done when the search has ended or has stopped on request,
 * and everything is on disk. */
enum status controller_turn(struct controller *controller, bool *done, struct error *err);

/* How it ended, after done: STATUS_OK (finished, or halted on request) or STATUS_INTERRUPTED
 * (resumable). */
enum status controller_outcome(const struct controller *controller);

/* Whether it is done although a worker still has work: that one was not waited for any longer. */
bool controller_leaves_workers(const struct controller *controller);

const struct search *controller_search(const struct controller *controller);

/* Where its time goes: seconds of its own thread for each part of a turn, where options->measure
 * asks for it (each look at the thread's clock costs some 0.2 us). */
enum controller_part {
    CONTROLLER_STOP,     /* control.json, signals, the end */
    CONTROLLER_MESSAGE,  /* from workers, up to the event */
    CONTROLLER_DISPATCH, /* orders */
    CONTROLLER_APPLY,    /* events that are on disk, and what follows from them */
    CONTROLLER_CLOSE,    /* rounds, with their diagnosis */
    CONTROLLER_PLAN,     /* selection, executor, plans */
    CONTROLLER_AGENTS,   /* calls, researcher */
    CONTROLLER_SNAPSHOT, /* the asking for it */
    CONTROLLER_FINISH,   /* budget, goal, report */
    CONTROLLER_PART_COUNT
};
extern const char *const controller_part_names[]; /* NULL at the end */

struct controller_times {
    double seconds[CONTROLLER_PART_COUNT];
    int64_t messages, events;
    double snapshot_s; /* wall time of the last snapshot, on a thread of its own */
};
void controller_get_times(const struct controller *controller, struct controller_times *out);

#endif
