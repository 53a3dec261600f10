/* The ranks of one group: waiting for each other without spinning and without waiting for ever.
 *
 * A rank that works or waits within a training says so to the others every few seconds (a beat: an
 * empty message). Who waits within a training and hears nothing of one rank for the limit gives up:
 * that rank has died or hangs. Waiting for the next order has no limit: the leader evaluates
 * meanwhile, and rank 0 watches the leader. */
#ifndef RUN_PEERS_H
#define RUN_PEERS_H

#include <stdbool.h>

#include <mpi.h>

#include "base/status.h"

struct peers {
    MPI_Comm comm; /* of the group, owned */
    int rank, size;
    int first;       /* job rank of the first one; the others follow it */
    double limit_s;  /* of silence */
    double *heard_s; /* (size) when each was last heard of, monotonic */
    double beaten_s; /* when this rank last said that it lives */
    int lost;        /* rank that was given up; -1: none. From then on every limited wait fails */
    double silent_s; /* with lost: for how long */
};

/* Takes the communicator, also on failure. limit_s 0: the usual ten minutes, or what TREX_PATIENCE
 * says (seconds, 1 to 86400). */
enum status peers_create(MPI_Comm comm, int first, double limit_s, struct peers **out,
                         struct error *err);
void peers_destroy(struct peers *peers); /* NULL allowed */

/* This rank lives. To be called often; says so now and then. NULL allowed. */
enum status peers_beat(struct peers *peers, struct error *err);

enum peers_patience {
    PEERS_LIMITED,   /* within a training */
    PEERS_UNLIMITED, /* for the next order */
};

/* Waits for a collective operation. STATUS_MPI "rank N of the group has not answered for S s": its
 * buffers still belong to MPI, and the rank has to end. */
enum status peers_wait(struct peers *peers, MPI_Request *request, enum peers_patience patience,
                       struct error *err);

#endif
