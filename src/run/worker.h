/* A worker: waits for orders, carries them out, answers. One a group of ranks. */
#ifndef RUN_WORKER_H
#define RUN_WORKER_H

#include <stdbool.h>

#include "base/log.h"
#include "run/job.h"
#include "run/machine.h"
#include "run/message.h"
#include "run/peers.h"

struct worker; /* opaque */

struct worker_options {
    const struct job *job; /* borrowed */
    struct mailbox *mailbox;
    struct log *log;
    int threads;
    int place;   /* of this rank among those of its node that work */
    int workers; /* of the whole job: the more, the less often each tells of its progress */
    struct peers
        *peers;        /* ranks that train one candidate together, this one of them; NULL: alone */
    double simulate_s; /* a candidate takes about so long and trains nothing (run/simulated.h); 0:
                          it is trained */
};

/* Opens the device, unless candidates are simulated. */
enum status worker_create(const struct worker_options *options, struct worker **out,
                          struct error *err);
void worker_destroy(struct worker *worker);

/* What is called at every step boundary: when one rank is controller and worker at once, the
 * controller's turn. */
void worker_set_turn(struct worker *worker, enum status (*turn)(void *context, struct error *err),
                     void *context);

/* Agrees with the other ranks of the group on how gradients are added up. Collective in the group,
 * once the devices of all are open; nothing to do alone. */
enum status worker_connect(struct worker *worker, struct error *err);

/* What the controller has to know of this worker's hardware. speed: measured as well. */
enum status worker_machine(const struct worker *worker, bool speed, struct machine *out,
                           struct error *err);

/* Says HELLO to the controller: only the group's leader does. */
enum status worker_hello(struct worker *worker, struct error *err);

/* Carries out one order if one has come; returns at once if none has. *done is set when the
 * controller said QUIT. STATUS_DEVICE: the device is lost, which the controller has been told.
 * STATUS_MPI: another rank of the group does not answer. The rank has to end, at once if it is in a
 * group, whose other ranks may wait for it. */
enum status worker_step(struct worker *worker, bool *done, struct error *err);

/* Steps until QUIT, sleeping briefly between messages. */
enum status worker_run(struct worker *worker, struct error *err);

#endif
