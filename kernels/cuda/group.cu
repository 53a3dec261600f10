/* Sums over the GPUs of several ranks without the host, by NCCL, where the build found its header
 * and the machine has its library. */
#include <string.h>

#include "kernels/cuda/operations.h"
#include "kernels/cuda/parts.h"

#ifdef TREX_NCCL

#include <nccl.h>
#include <stdlib.h>

#include "base/mem.h"
#include "kernels/cuda/library.h"

static_assert(sizeof(ncclUniqueId) == DEVICE_GROUP_ID_BYTES, "ops.h keeps NCCL's ids as they are");

/* Each has the type that nccl.h declares. */
struct nccl {
    decltype(&ncclGetUniqueId) make_id;
    decltype(&ncclCommInitRank) join;
    decltype(&ncclCommDestroy) leave;
    decltype(&ncclCommAbort) abort;
    decltype(&ncclCommGetAsyncError) check;
    decltype(&ncclAllReduce) sum;
    decltype(&ncclGetErrorString) error_text;
};

struct cuda_group {
    struct nccl library;
    ncclComm_t members;
    bool broken; /* it failed and was left, or the GPU is lost: no sums any more */
};

static enum status nccl_load(struct nccl *out, struct error *err)
{
    static const char *const files[] = {"libnccl.so.2", NULL};
    const struct library_function functions[] = {
        {"ncclGetUniqueId", &out->make_id},       {"ncclCommInitRank", &out->join},
        {"ncclCommDestroy", &out->leave},         {"ncclCommAbort", &out->abort},
        {"ncclCommGetAsyncError", &out->check},   {"ncclAllReduce", &out->sum},
        {"ncclGetErrorString", &out->error_text},
    };
    return library_open(files, functions, sizeof(functions) / sizeof(functions[0]), err);
}

/* Whatever NCCL cannot do leaves the way through the host: so it is no failure of the device. */
static enum status nccl_status(const struct nccl *library, ncclResult_t result, const char *what,
                               struct error *err)
{
    if (result == ncclSuccess) {
        return STATUS_OK;
    }
    (void)cudaGetLastError();
    return FAIL(err, STATUS_UNSUPPORTED, "NCCL cannot %s: %s (NCCL_DEBUG=WARN tells more)", what,
                library->error_text(result));
}

enum status cuda_group_id(struct device *device, unsigned char id[DEVICE_GROUP_ID_BYTES],
                          struct error *err)
{
    struct nccl library = {};
    ncclUniqueId unique;
    (void)device;
    memset(&unique, 0, sizeof(unique));
    TRY(nccl_load(&library, err));
    TRY(nccl_status(&library, library.make_id(&unique), "make a group", err));
    memcpy(id, &unique, sizeof(unique));
    return STATUS_OK;
}

enum status cuda_group_join(struct device *device, const unsigned char id[DEVICE_GROUP_ID_BYTES],
                            int rank, int size, struct error *err)
{
    enum status status = STATUS_OK;
    struct cuda_device *cuda = cuda_of(device);
    ncclUniqueId unique;
    struct cuda_group *group = static_cast<struct cuda_group *>(mem_calloc(1, sizeof(*group)));
    if (group == NULL) {
        return mem_fail(err, sizeof(*group), "a group of GPUs");
    }
    memcpy(&unique, id, sizeof(unique));
    TRY_CLEANUP(nccl_load(&group->library, err));
    TRY_CUDA_CLEANUP(cudaSetDevice(cuda->index), "choosing the GPU", err);
    TRY_CLEANUP(nccl_status(&group->library,
                            group->library.join(&group->members, size, unique, rank),
                            "join the group", err));
    cuda_group_destroy(cuda->group); /* of an earlier candidate */
    cuda->group = group;
    group = NULL;

cleanup:
    free(group);
    return status;
}

/* With a lost GPU there is no way to leave that does not wait for ranks which may wait for this
 * one: that is for the end of the process, which is near. */
void cuda_group_destroy(struct cuda_group *group)
{
    if (group != NULL) {
        if (!group->broken) {
            (void)group->library.leave(group->members);
        }
        free(group);
    }
}

/* Sums under way would wait for the others for ever, and whoever waits for the stream with them: so
 * they are ended at once. */
static void record_failure(struct device *device, ncclResult_t result)
{
    struct cuda_group *group = cuda_of(device)->group;
    CUDA_FAIL(device, STATUS_DEVICE,
              "sum over the group: NCCL says %s (NCCL_DEBUG=WARN tells more)",
              group->library.error_text(result));
    (void)group->library.abort(group->members);
    group->members = NULL;
    group->broken = true;
}

void cuda_group_check(struct device *device)
{
    struct cuda_group *group = cuda_of(device)->group;
    ncclResult_t found = ncclSuccess;
    if (group != NULL && cuda_of(device)->lost) {
        group->broken = true;
    }
    if (group == NULL || group->broken) {
        return;
    }
    const ncclResult_t result = group->library.check(group->members, &found);
    if (result != ncclSuccess || (found != ncclSuccess && found != ncclInProgress)) {
        record_failure(device, result != ncclSuccess ? result : found);
    }
}

/* The others wait for this rank in their sums, so it takes part after a failure too, but with
 * numbers that nobody takes for values (all bits set: NaN). */
static void take_part(struct device *device, float *values, int64_t count)
{
    struct cuda_device *cuda = cuda_of(device);
    struct cuda_group *group = cuda->group;
    const char *what = "side_sum after a failure";
    if (count > 0 && cuda_went_well(device, cudaStreamSynchronize(cuda->stream), what) &&
        cuda_went_well(
            device, cudaMemsetAsync(values, 0xFF, (size_t)count * sizeof(float), cuda->side_stream),
            what)) {
        (void)group->library.sum(values, values, (size_t)count, ncclFloat, ncclSum, group->members,
                                 cuda->side_stream);
    }
}

/* NCCL adds the same numbers in the same order for all ranks, and for every sum of this length. */
int64_t cuda_side_sum(struct device *device, float *values, int64_t count)
{
    struct cuda_device *cuda = cuda_of(device);
    struct cuda_group *group = cuda->group;
    if (group == NULL) {
        CUDA_FAIL(device, STATUS_INTERNAL, "side_sum before a group was joined");
    } else if (group->broken) {
        CUDA_FAIL(device, STATUS_DEVICE, "side_sum over a group that has failed");
    }
    if (!cuda_side_begin(device, "side_sum")) {
        if (group != NULL && !group->broken && !cuda->lost) {
            take_part(device, values, count);
        }
        return cuda_side_last(cuda->side);
    }
    if (count > 0) {
        const ncclResult_t result = group->library.sum(values, values, (size_t)count, ncclFloat,
                                                       ncclSum, group->members, cuda->side_stream);
        if (result != ncclSuccess) {
            record_failure(device, result);
        }
    }
    return cuda_side_end(device);
}

#else

struct cuda_group {
    char none; /* no group can be joined */
};

static enum status fail_without_nccl(struct error *err)
{
    return FAIL(err, STATUS_UNSUPPORTED,
                "this build has no NCCL; build where nccl.h is installed, or let the ranks of a "
                "group add up through the host");
}

enum status cuda_group_id(struct device *device, unsigned char id[DEVICE_GROUP_ID_BYTES],
                          struct error *err)
{
    (void)device;
    (void)id;
    return fail_without_nccl(err);
}

enum status cuda_group_join(struct device *device, const unsigned char id[DEVICE_GROUP_ID_BYTES],
                            int rank, int size, struct error *err)
{
    (void)device;
    (void)id;
    (void)rank;
    (void)size;
    return fail_without_nccl(err);
}

void cuda_group_destroy(struct cuda_group *group)
{
    (void)group;
}

void cuda_group_check(struct device *device)
{
    (void)device;
}

int64_t cuda_side_sum(struct device *device, float *values, int64_t count)
{
    (void)values;
    (void)count;
    CUDA_FAIL(device, STATUS_INTERNAL, "side_sum before a group was joined");
    return cuda_side_last(cuda_of(device)->side);
}

#endif
