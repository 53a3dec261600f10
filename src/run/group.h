/* Ranks that train one candidate together. All functions but group_create are for ranks of one
 * group, and all but group_fini are collective in it. Waiting never spins: the processor belongs to
 * whoever trains; nor is it for ever (peers.h). */
#ifndef RUN_GROUP_H
#define RUN_GROUP_H

#include <mpi.h>

#include "base/status.h"
#include "run/peers.h"
#include "train/trainer.h"

/* How the ranks of a job are shared out:
 *   size 1               rank 0 is controller and worker
 *   size > 1             rank 0 is the controller; ranks 1.. form groups of `ranks_per_group`, the
 * last may be smaller */
struct group_layout {
    int rank, size;      /* in the job */
    int group;           /* this rank's group, -1 for a controller that does not work */
    int groups;          /* number of groups */
    int leader;          /* job rank of this group's leader */
    struct peers *peers; /* the ranks of the group; NULL for a lone rank */
    int nodes;           /* that the job's ranks are on */
    int node_workers;    /* ranks on this node that work */
    int node_place;      /* of this rank among them: they share the node's accelerators in turn */
};

/* Collective over all ranks of the job. */
enum status group_create(int ranks_per_group, struct group_layout *out, struct error *err);
void group_fini(struct group_layout *layout);

/* Job rank of the leader of group `index`. */
int group_leader(int size, int ranks_per_group, int index);
int group_count(int size, int ranks_per_group);

/* The train_group of these ranks, which are its context. */
struct train_group group_trainer(struct peers *peers);

/* Chooses how the group's devices add gradients up: by themselves (NCCL), through an MPI that reads
 * their memory, or over the host. All ranks get the same way, the best one that all of them have;
 * `how` says which and why. To be called once the ranks' devices are open. */
enum status group_connect(struct device *device, struct train_group *group, char *how,
                          size_t how_bytes, struct error *err);

/* Sends the leader's text to all: *text is the leader's on entry, a heap copy for the others on
 * return. At most max_bytes. */
enum status group_share_text(struct peers *peers, char **text, size_t max_bytes, struct error *err);

/* All ranks get the leader's value. PEERS_UNLIMITED where they may wait long for it to do anything
 * at all. */
enum status group_share_int(struct peers *peers, enum peers_patience patience, int *value,
                            struct error *err);

/* All ranks get the worst status of any: OK only if all are. */
enum status group_agree(struct peers *peers, enum status mine, struct error *err);

#endif
