/* A worker's hardware as planning needs to know it: measured where it is, then sent to rank 0,
 * which has no accelerator of its own. */
#ifndef RUN_MACHINE_H
#define RUN_MACHINE_H

#include <mpi.h>

#include "run/workspace.h"

struct machine {
    enum train_precision precision; /* that "auto" means there */
    double memory_bytes;            /* of the accelerator that is free; 0: the host's counts */
    double flops_per_s;             /* of matrix products; 0: not measured */
};

/* speed: measures the products as well, which takes about a third of a second. */
enum status machine_measure(const struct workspace *workspace, bool speed, struct machine *out,
                            struct error *err);

/* All ranks get the machine of `root`. Collective. */
enum status machine_share(MPI_Comm comm, int root, struct machine *machine, struct error *err);

/* Bytes of memory that one worker may use: the job's limit, the accelerator's, or the host's over
 * its workers. */
int64_t machine_worker_memory(const struct job *job, const struct machine *machine,
                              int node_workers);

#endif
