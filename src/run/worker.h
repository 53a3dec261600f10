/* A worker: waits for orders, carries them out, answers. One a group of ranks. */
#ifndef RUN_WORKER_H
#define RUN_WORKER_H

#include <stdbool.h>

#include "base/log.h"
#include "run/job.h"
#include "run/message.h"

struct worker; /* opaque */

struct worker_options {
    const struct job *job; /* borrowed */
    struct mailbox *mailbox;
    struct log *log;
    int threads;
    MPI_Comm group; /* ranks that train one candidate together; this rank is in it. MPI_COMM_NULL:
                       alone */
    /* Called at every step boundary and while idle: when one rank is controller and worker at once,
     * this is the controller's turn. May be NULL. */
    enum status (*turn)(void *context, struct error *err);
    void *turn_context;
};

enum status worker_create(const struct worker_options *options, struct worker **out,
                          struct error *err);
void worker_destroy(struct worker *worker);

/* Says HELLO to the controller: only the group's leader does. */
enum status worker_hello(struct worker *worker, struct error *err);

/* Carries out one order if one has come; returns at once if none has. *done is set when the
 * controller said QUIT. */
enum status worker_step(struct worker *worker, bool *done, struct error *err);

/* Steps until QUIT, sleeping briefly between messages. */
enum status worker_run(struct worker *worker, struct error *err);

#endif
