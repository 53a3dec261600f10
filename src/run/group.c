#include "run/group.h"

#include <stdio.h>
#include <string.h>

#if defined(OPEN_MPI) && OPEN_MPI
#include <mpi-ext.h> /* MPIX_Query_cuda_support, where it was built with it */
#endif

#include "base/mem.h"
#include "run/message.h"

enum { SUM_CHUNK = 1 << 20, DEVICE_CHUNK = 1 << 28 };

int group_count(int size, int ranks_per_group)
{
    int workers = size > 1 ? size - 1 : 1;
    return (workers + ranks_per_group - 1) / ranks_per_group;
}

int group_leader(int size, int ranks_per_group, int index)
{
    return size > 1 ? 1 + index * ranks_per_group : 0;
}

/* Counts nodes, the ranks of this one that work, and those of them before this one. */
static enum status find_place(struct group_layout *layout, struct error *err)
{
    MPI_Comm node;
    TRY_MPI(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, layout->rank, MPI_INFO_NULL,
                                &node));
    int works = layout->group >= 0 ? 1 : 0;
    TRY_MPI(MPI_Allreduce(&works, &layout->node_workers, 1, MPI_INT, MPI_SUM, node));
    TRY_MPI(MPI_Scan(&works, &layout->node_place, 1, MPI_INT, MPI_SUM, node));
    layout->node_place -= works;
    int place = 0;
    TRY_MPI(MPI_Comm_rank(node, &place));
    layout->nodes = place == 0 ? 1 : 0;
    TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, &layout->nodes, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD));
    TRY_MPI(MPI_Comm_free(&node));
    return STATUS_OK;
}

enum status group_create(int ranks_per_group, struct group_layout *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    TRY_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &out->rank));
    TRY_MPI(MPI_Comm_size(MPI_COMM_WORLD, &out->size));
    out->groups = group_count(out->size, ranks_per_group);
    bool works = out->size == 1 || out->rank > 0;
    int worker = out->size == 1 ? 0 : out->rank - 1;
    out->group = works ? worker / ranks_per_group : -1;
    out->leader = works ? group_leader(out->size, ranks_per_group, out->group) : -1;
    MPI_Comm comm;
    TRY_MPI(MPI_Comm_split(MPI_COMM_WORLD, works ? out->group : MPI_UNDEFINED, out->rank, &comm));
    if (comm != MPI_COMM_NULL) {
        int members = 0;
        TRY_MPI(MPI_Comm_size(comm, &members));
        if (members > 1) {
            TRY(peers_create(comm, out->leader, 0.0, &out->peers, err));
        } else {
            TRY_MPI(MPI_Comm_free(&comm));
        }
    }
    return find_place(out, err);
}

void group_fini(struct group_layout *layout)
{
    peers_destroy(layout->peers);
    layout->peers = NULL;
}

/* Reduce, then broadcast: every rank gets the very same bits, which an allreduce does not promise.
 */
static enum status sum(struct peers *peers, void *values, int64_t count, MPI_Datatype type,
                       size_t size, struct error *err)
{
    bool first_rank = peers->rank == 0;
    if (peers->lost >= 0) { /* nobody would answer */
        return peers_wait(peers, NULL, PEERS_LIMITED, err);
    }
    for (int64_t first = 0; first < count; first += SUM_CHUNK) {
        int part = (int)(count - first < SUM_CHUNK ? count - first : SUM_CHUNK);
        void *at = (char *)values + (size_t)first * size;
        MPI_Request request;
        TRY_MPI(MPI_Ireduce(first_rank ? MPI_IN_PLACE : at, first_rank ? at : NULL, part, type,
                            MPI_SUM, 0, peers->comm, &request));
        TRY(peers_wait(peers, &request, PEERS_LIMITED, err));
        TRY_MPI(MPI_Ibcast(at, part, type, 0, peers->comm, &request));
        TRY(peers_wait(peers, &request, PEERS_LIMITED, err));
    }
    return STATUS_OK;
}

static enum status sum_f32(void *context, float *values, int64_t count, struct error *err)
{
    return sum(context, values, count, MPI_FLOAT, sizeof(*values), err);
}

static enum status sum_f64(void *context, double *values, int64_t count, struct error *err)
{
    return sum(context, values, count, MPI_DOUBLE, sizeof(*values), err);
}

struct train_group group_trainer(struct peers *peers)
{
    return (struct train_group){
        .rank = peers->rank,
        .size = peers->size,
        .sum_f32 = sum_f32,
        .sum_f64 = sum_f64,
        .context = peers,
    };
}

/* ---- the way of the gradients ---- */

/* Of memory on the devices, for an MPI that can read it: what such MPIs do without waiting does not
 * read it. So a rank that hangs here is found by rank 0's watch over the leader alone. */
static enum status sum_device_f32(void *context, float *values, int64_t count, struct error *err)
{
    const struct peers *peers = context;
    MPI_Comm comm = peers->comm;
    int rank = peers->rank;
    for (int64_t first = 0; first < count; first += DEVICE_CHUNK) {
        int part = (int)(count - first < DEVICE_CHUNK ? count - first : DEVICE_CHUNK);
        float *at = values + first;
        TRY_MPI(MPI_Reduce(rank == 0 ? MPI_IN_PLACE : at, rank == 0 ? at : NULL, part, MPI_FLOAT,
                           MPI_SUM, 0, comm));
        TRY_MPI(MPI_Bcast(at, part, MPI_FLOAT, 0, comm));
    }
    return STATUS_OK;
}

static bool mpi_reads_gpus(const struct device *device)
{
#if defined(MPIX_CUDA_AWARE_SUPPORT)
    return strcmp(device->ops->name, "cuda") == 0 && MPIX_Query_cuda_support() == 1;
#else
    (void)device;
    return false;
#endif
}

/* STATUS_OK if the devices of all ranks are in one group now; else why not, in *why. Each rank asks
 * for an id, although the first one's is used: so a rank that could not join is known before any
 * other waits for it. */
static enum status join_devices(struct device *device, struct peers *peers,
                                const struct train_group *group, bool *joined, struct error *why,
                                struct error *err)
{
    const struct ops *ops = device->ops;
    unsigned char id[DEVICE_GROUP_ID_BYTES] = {0};
    enum status status =
        ops->group_id != NULL && ops->group_join != NULL
            ? ops->group_id(device, id, why)
            : FAIL(why, STATUS_UNSUPPORTED, "backend %s has no sums of its own", ops->name);
    *joined = group_agree(peers, status, why) == STATUS_OK;
    if (!*joined) {
        return STATUS_OK;
    }
    TRY_MPI(MPI_Bcast(id, (int)sizeof(id), MPI_UNSIGNED_CHAR, 0, peers->comm));
    status = ops->group_join(device, id, group->rank, group->size, why);
    *joined = group_agree(peers, status, why) == STATUS_OK;
    return STATUS_OK;
}

enum status group_connect(struct device *device, struct train_group *group, char *how,
                          size_t how_bytes, struct error *err)
{
    struct peers *peers = group->context;
    struct error why = {0};
    struct error ignored = {0};
    TRY(join_devices(device, peers, group, &group->joined, &why, err));
    if (group->joined) {
        (void)snprintf(how, how_bytes, "by the devices themselves");
        return STATUS_OK;
    }
    enum status reads = mpi_reads_gpus(device) ? STATUS_OK : STATUS_UNSUPPORTED;
    if (group_agree(peers, reads, &ignored) == STATUS_OK) {
        group->sum_device_f32 = sum_device_f32;
        (void)snprintf(how, how_bytes, "by MPI on the devices' memory (not by themselves: %.200s)",
                       why.message);
    } else {
        (void)snprintf(how, how_bytes,
                       "over the host (not by the devices: %.200s; MPI does not read their memory)",
                       why.message);
    }
    return STATUS_OK;
}

enum status group_share_int(struct peers *peers, enum peers_patience patience, int *value,
                            struct error *err)
{
    MPI_Request request;
    TRY_MPI(MPI_Ibcast(value, 1, MPI_INT, 0, peers->comm, &request));
    return peers_wait(peers, &request, patience, err);
}

enum status group_share_text(struct peers *peers, char **text, size_t max_bytes, struct error *err)
{
    int rank = peers->rank;
    int length = rank == 0 ? (int)strlen(*text) : 0;
    TRY(group_share_int(peers, PEERS_LIMITED, &length, err));
    if (length < 0 || (size_t)length > max_bytes) {
        return FAIL(err, STATUS_LIMIT, "a text of %d bytes from the group's leader", length);
    }
    if (rank != 0) {
        *text = mem_calloc((size_t)length + 1, 1);
        if (*text == NULL) {
            return mem_fail(err, (size_t)length, "a group's message");
        }
    }
    MPI_Request request;
    TRY_MPI(MPI_Ibcast(*text, length, MPI_CHAR, 0, peers->comm, &request));
    return peers_wait(peers, &request, PEERS_LIMITED, err);
}

enum status group_agree(struct peers *peers, enum status mine, struct error *err)
{
    int worst = (int)mine;
    int own = (int)mine;
    MPI_Request request;
    TRY_MPI(MPI_Iallreduce(&own, &worst, 1, MPI_INT, MPI_MAX, peers->comm, &request));
    TRY(peers_wait(peers, &request, PEERS_LIMITED, err));
    if (mine == STATUS_OK && worst != (int)STATUS_OK) {
        return FAIL(err, (enum status)worst, "another rank of the group failed: %s",
                    status_text((enum status)worst));
    }
    return mine;
}
