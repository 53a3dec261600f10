/* NCCL for ranks that are threads of one process: sums in the order of the ranks, the same bits for
 * all. A sum is done when the last rank's stream comes to it; until then the streams of the others
 * wait. */
#include <map>
#include <nccl.h>
#include <random>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state.h"

enum { PATIENCE_S = 120 };

/* One sum over all ranks. */
struct reduction {
    struct part {
        const float *from = nullptr;
        float *to = nullptr;
        std::shared_ptr<struct work> work; /* of the stream; NULL until the rank called */
        uint64_t place = 0;
        bool arrived = false; /* its stream has come to it */
    };
    size_t count = 0;
    std::vector<part> parts;
    int called = 0;
    bool done = false;
};

struct group {
    int size;
    int joined = 0;
    int left = 0;
    bool broken = false;
    std::map<uint64_t, std::shared_ptr<reduction>> reductions; /* that not all ranks called yet */
};

struct ncclComm {
    std::string id;
    std::shared_ptr<group> members;
    int rank;
    uint64_t called = 0;
};

/* By their ids, until all ranks have joined. Under the lock. */
static std::map<std::string, std::shared_ptr<group>> groups;

ncclResult_t ncclGetVersion(int *version)
{
    *version = 22000;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclUnhandledCudaError:
        return "unhandled cuda error";
    case ncclSystemError:
        return "unhandled system error";
    case ncclInternalError:
        return "internal error";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclInvalidUsage:
        return "invalid usage";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    default:
        return "unknown result code";
    }
}

/* Ranks in other processes are out of reach here: then there is no group, and they add up through
 * the host. */
static bool one_process()
{
    const char *ranks = getenv("OMPI_COMM_WORLD_SIZE");
    return ranks == nullptr || atoi(ranks) == 1;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    if (!one_process()) {
        return ncclSystemError;
    }
    std::random_device random;
    memset(id, 0, sizeof(*id));
    snprintf(id->internal, sizeof(id->internal), "on cpu, process %ld, %08x%08x", (long)getpid(),
             random(), random());
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank)
{
    char own[NCCL_UNIQUE_ID_BYTES];
    snprintf(own, sizeof(own), "on cpu, process %ld, ", (long)getpid());
    if (size < 1 || rank < 0 || rank >= size || id.internal[sizeof(id.internal) - 1] != '\0') {
        return ncclInvalidArgument;
    }
    if (strncmp(id.internal, own, strlen(own)) != 0) {
        return ncclSystemError;
    }
    std::unique_lock<std::mutex> lock(shim_lock);
    std::shared_ptr<group> &place = groups[id.internal];
    if (place == nullptr) {
        place = std::make_shared<group>();
        place->size = size;
    }
    std::shared_ptr<group> joined = place;
    if (joined->size != size || joined->joined == size) {
        return ncclInvalidUsage;
    }
    joined->joined++;
    shim_progress.notify_all();
    const bool all = shim_progress.wait_for(lock, std::chrono::seconds(PATIENCE_S),
                                            [&] { return joined->joined == size; });
    if (!all) {
        return ncclSystemError;
    }
    groups.erase(id.internal);
    *comm = new ncclComm{id.internal, joined, rank};
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    comm->members->left++;
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    comm->members->broken = true;
    delete comm;
    shim_progress.notify_all();
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    *error = comm->members->broken ? ncclRemoteError : ncclSuccess;
    return ncclSuccess;
}

static void reduce(const reduction &sum)
{
    std::vector<float> total(sum.parts[0].from, sum.parts[0].from + sum.count);
    for (size_t rank = 1; rank < sum.parts.size(); rank++) {
        for (size_t i = 0; i < sum.count; i++) {
            total[i] += sum.parts[rank].from[i];
        }
    }
    for (const reduction::part &part : sum.parts) {
        memcpy(part.to, total.data(), sum.count * sizeof(float));
    }
}

/* The stream of a rank has come to the sum. Takes along those of other ranks as far as they have
 * called. */
static bool arrive(reduction &sum, int rank)
{
    sum.parts[(size_t)rank].arrived = true;
    bool all = sum.called == (int)sum.parts.size();
    for (reduction::part &part : sum.parts) {
        if (part.work != nullptr && !part.arrived) {
            (void)work_advance(*part.work, part.place);
        }
        all = all && part.arrived;
    }
    if (all && !sum.done) {
        reduce(sum);
        sum.done = true;
    }
    return sum.done;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream)
{
    if (type != ncclFloat32 || operation != ncclSum || stream == nullptr) {
        return ncclInvalidArgument;
    }
    std::lock_guard<std::mutex> guard(shim_lock);
    group &members = *comm->members;
    if (memory_kind_of(from, count * sizeof(float)) != MEMORY_DEVICE ||
        memory_kind_of(to, count * sizeof(float)) != MEMORY_DEVICE || stream->capture != nullptr) {
        return ncclInvalidUsage;
    }
    const uint64_t number = comm->called++;
    std::shared_ptr<reduction> &place = members.reductions[number];
    if (place == nullptr) {
        place = std::make_shared<reduction>();
        place->count = count;
        place->parts.resize((size_t)members.size);
    }
    std::shared_ptr<reduction> sum = place;
    if (sum->count != count) {
        fprintf(stderr, "cuda_on_cpu: rank %d adds %zu numbers, another rank %zu\n", comm->rank,
                count, sum->count);
        return ncclInvalidUsage;
    }
    sum->parts[(size_t)comm->rank] = {(const float *)from, (float *)to, stream->work,
                                      stream->work->called + 1, false};
    if (++sum->called == members.size) {
        members.reductions.erase(number);
    }
    (void)stream_push(stream, [sum, rank = comm->rank, members = comm->members] {
        return arrive(*sum, rank) || members->broken; /* an abort ends what is under way */
    });
    shim_progress.notify_all();
    return ncclSuccess;
}
