/* Opening and closing a GPU, its errors, and how it describes itself.
 *
 * Three kinds of failure meet in cuda_check: those that the host records when an operation cannot
 * be started, faults that kernels find in their input (fault.h), and CUDA's own, which appear when
 * the streams are waited for. Some of the last destroy the process's state on the GPU (an illegal
 * address, a memory error of the hardware): nothing can be done after them but to start again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/parts.h"
#include "kernels/cuda/table.h"

enum { CAPABILITY_MIN = 80 }; /* bf16 in the tensor cores, asynchronous copies to shared memory */

/* -- errors ------------------------------------------------------------------------------------ */

/* The code and the text of a runtime error. The runtime also keeps it for cudaGetLastError, where
 * the next launch would take it for its own: so it is fetched here. */
enum status cuda_status(cudaError_t result, const char *what, struct error *err)
{
    if (result == cudaSuccess) {
        return STATUS_OK;
    }
    (void)cudaGetLastError();
    if (result == cudaErrorMemoryAllocation) {
        return FAIL(err, STATUS_NO_MEMORY, "%s: the GPU has no memory left for it", what);
    }
    return FAIL(err, STATUS_DEVICE, "%s: %s (%s)", what, cudaGetErrorString(result),
                cudaGetErrorName(result));
}

/* Whether the process's state on the GPU is destroyed: then every later call returns the error.
 * Inside a recording the question itself would be a mistake; the direct run after it asks. */
static bool state_is_lost(struct device *device)
{
    if (cuda_of(device)->recording) {
        return false;
    }
    const cudaError_t later = cudaStreamQuery(cuda_of(device)->side_stream);
    (void)cudaGetLastError();
    return later != cudaSuccess && later != cudaErrorNotReady;
}

/* Records `found` unless there is a failure already; but the loss of the GPU overrules others. */
static void record_failure(struct device *device, const struct error *found)
{
    struct cuda_device *cuda = cuda_of(device);
    if (!cuda->lost && state_is_lost(device)) {
        cuda->lost = true;
        (void)FAIL(&cuda->failure, STATUS_DEVICE,
                   "%.500s; what this process had on the GPU is lost: run it again to go on (with "
                   "CUDA_LAUNCH_BLOCKING=1 the message names the kernel)",
                   found->message);
    } else if (!cuda_failed(device)) {
        cuda->failure = *found;
    }
}

bool cuda_went_well(struct device *device, cudaError_t result, const char *what)
{
    struct error found = {};
    if (cuda_status(result, what, &found) != STATUS_OK) {
        record_failure(device, &found);
    }
    return result == cudaSuccess;
}

void cuda_launch_failed(struct device *device, cudaError_t result, const char *kernel, dim3 grid,
                        unsigned threads, size_t shared_bytes)
{
    char what[256];
    (void)snprintf(what, sizeof(what),
                   "%s with %u x %u x %u blocks of %u threads and %zu bytes of shared memory",
                   kernel, grid.x, grid.y, grid.z, threads, shared_bytes);
    struct error found = {};
    if (result == cudaErrorNoKernelImageForDevice) {
        (void)FAIL(&found, STATUS_DEVICE,
                   "%s: this build has no code for a GPU of compute capability %d.%d; build with "
                   "-DCMAKE_CUDA_ARCHITECTURES=%d",
                   kernel, cuda_of(device)->capability / 10, cuda_of(device)->capability % 10,
                   cuda_of(device)->capability);
        (void)cudaGetLastError();
    } else {
        (void)cuda_status(result, what, &found);
    }
    record_failure(device, &found);
}

bool cuda_not_recording(struct device *device, const char *what)
{
    if (cuda_of(device)->recording) {
        CUDA_FAIL(device, STATUS_INTERNAL, "%s while operations are recorded", what);
    }
    return !cuda_of(device)->recording;
}

/* What a kernel reported, in the words that the CPU's kernels have for it. */
static enum status fault_status(const struct cuda_fault *fault, struct error *err)
{
    const long long row = (long long)fault->row;
    const long long found = (long long)fault->found;
    const long long limit = (long long)fault->limit;
    switch (fault->kind) {
    case CUDA_FAULT_NONE:
        return STATUS_OK;
    case CUDA_FAULT_ROW_INDEX:
        return FAIL(err, STATUS_RANGE,
                    "gather_rows or scatter_add_rows: index %lld of row %lld is not below %lld",
                    found, row, limit);
    case CUDA_FAULT_TARGET:
        return FAIL(err, STATUS_RANGE, "cross_entropy: target %lld of row %lld is not in -1..%lld",
                    found, row, limit - 1);
    case CUDA_FAULT_POSITION:
        return FAIL(err, STATUS_RANGE, "position %lld of row %lld is not in 0..%lld", found, row,
                    limit - 1);
    case CUDA_FAULT_SEQUENCE:
        return FAIL(err, STATUS_RANGE, "sequence %lld of row %lld is outside the cache of %lld",
                    found, row, limit);
    case CUDA_FAULT_STARTS:
        return FAIL(err, STATUS_RANGE,
                    "attention: sequence %lld ends at %lld, but starts must rise from 0 to %lld",
                    row, found, limit);
    default:
        return FAIL(err, STATUS_INTERNAL, "a kernel reported a fault of the unknown kind %d",
                    fault->kind);
    }
}

/* A fault comes before what the host recorded: operations called after that did nothing. */
enum status cuda_check(struct device *device, struct error *err)
{
    struct cuda_device *cuda = cuda_of(device);
    cuda_group_check(device); /* before what would wait for a broken one */
    (void)cuda_went_well(device, cudaStreamSynchronize(cuda->stream), "operations on the GPU");
    (void)cuda_went_well(device, cudaStreamSynchronize(cuda->side_stream), "copies beside them");
    cuda_group_check(device);
    struct error first = cuda->failure;
    if (!cuda->lost) {
        (void)fault_status(cuda->fault, &first);
        memset(cuda->fault, 0, sizeof(*cuda->fault));
        memset(&cuda->failure, 0, sizeof(cuda->failure));
    }
    if (first.code != STATUS_OK && err != NULL) {
        *err = first;
    }
    return first.code;
}

/* -- opening ----------------------------------------------------------------------------------- */

/* How many GPUs this process sees; there is at least one, or the reason why not. */
static enum status count_gpus(int *count, struct error *err)
{
    int driver = 0;
    int runtime = 0;
    *count = 0;
    const cudaError_t result = cudaGetDeviceCount(count);
    (void)cudaGetLastError();
    if (result == cudaSuccess && *count > 0) {
        return STATUS_OK;
    }
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "no NVIDIA driver here (libcuda.so.1); use backend cpu or a node with a GPU");
    }
    if (result == cudaErrorInsufficientDriver && cudaRuntimeGetVersion(&runtime) == cudaSuccess) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "the NVIDIA driver here is for CUDA %d.%d and this build for %d.%d; update the "
                    "driver, or build with an older CUDA",
                    driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (result == cudaSuccess || result == cudaErrorNoDevice) {
        const char *visible = getenv("CUDA_VISIBLE_DEVICES");
        return FAIL(err, STATUS_UNSUPPORTED,
                    "the NVIDIA driver shows no GPU%s%.64s; ask the batch system for one",
                    visible != NULL ? " with CUDA_VISIBLE_DEVICES=" : "",
                    visible != NULL ? visible : "");
    }
    return FAIL(err, STATUS_UNSUPPORTED, "the GPUs cannot be used: %s (%s)",
                cudaGetErrorString(result), cudaGetErrorName(result));
}

static enum status read_attribute(int *out, enum cudaDeviceAttr attribute, int index,
                                  struct error *err)
{
    *out = 0;
    return cuda_status(cudaDeviceGetAttribute(out, attribute, index), "properties of the GPU", err);
}

static enum status read_properties(struct cuda_device *cuda, struct error *err)
{
    struct cudaDeviceProp properties;
    int major = 0;
    int minor = 0;
    int shared = 0;
    int l2 = 0;
    TRY_CUDA(cudaGetDeviceProperties(&properties, cuda->index), "properties of the GPU", err);
    (void)snprintf(cuda->name, sizeof(cuda->name), "%.*s", (int)sizeof(cuda->name) - 1,
                   properties.name);
    TRY(read_attribute(&major, cudaDevAttrComputeCapabilityMajor, cuda->index, err));
    TRY(read_attribute(&minor, cudaDevAttrComputeCapabilityMinor, cuda->index, err));
    TRY(read_attribute(&cuda->multiprocessors, cudaDevAttrMultiProcessorCount, cuda->index, err));
    TRY(read_attribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, cuda->index, err));
    TRY(read_attribute(&l2, cudaDevAttrL2CacheSize, cuda->index, err));
    cuda->capability = 10 * major + minor;
    cuda->shared_max_bytes = (size_t)shared;
    cuda->l2_bytes = (size_t)l2;
    if (cuda->capability < CAPABILITY_MIN) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "GPU %d (%s) has compute capability %d.%d, but %d.%d is needed (A100 or newer)",
                    cuda->index, cuda->name, major, minor, CAPABILITY_MIN / 10,
                    CAPABILITY_MIN % 10);
    }
    return STATUS_OK;
}

/* The first call that needs the GPU itself. */
static enum status enter_gpu(struct cuda_device *cuda, struct error *err)
{
    size_t free_bytes = 0;
    cudaError_t result = cudaSetDevice(cuda->index);
    if (result == cudaSuccess) {
        result = cudaMemGetInfo(&free_bytes, &cuda->memory_bytes);
    }
    if (result == cudaErrorDevicesUnavailable) {
        (void)cudaGetLastError();
        return FAIL(err, STATUS_DEVICE,
                    "GPU %d (%s) is held by another process (compute mode exclusive?); start MPS, "
                    "or one rank a GPU",
                    cuda->index, cuda->name);
    }
    return cuda_status(result, "entering the GPU", err);
}

/* Side work is short and others wait for it: it goes first where the GPU knows priorities. */
static enum status create_streams(struct cuda_device *cuda, struct error *err)
{
    int least = 0;
    int greatest = 0;
    TRY_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest), "priorities of streams", err);
    TRY_CUDA(cudaStreamCreateWithPriority(&cuda->stream, cudaStreamNonBlocking, least),
             "making a stream", err);
    TRY_CUDA(cudaStreamCreateWithPriority(&cuda->side_stream, cudaStreamNonBlocking, greatest),
             "making a stream", err);
    return STATUS_OK;
}

static enum status create_fault(struct cuda_device *cuda, struct error *err)
{
    void *fault = NULL;
    TRY_CUDA(cudaHostAlloc(&fault, sizeof(*cuda->fault), cudaHostAllocMapped),
             "host memory for faults", err);
    cuda->fault = static_cast<struct cuda_fault *>(fault);
    memset(cuda->fault, 0, sizeof(*cuda->fault));
    return STATUS_OK;
}

/* Also of a device that was opened in part. */
static void destroy(struct cuda_device *cuda)
{
    struct device *device = &cuda->base;
    cuda_group_check(device); /* a broken one is left before what would wait for it */
    if (cuda->stream != NULL) {
        (void)cuda_went_well(device, cudaStreamSynchronize(cuda->stream), "operations on the GPU");
    }
    if (cuda->side_stream != NULL) {
        (void)cuda_went_well(device, cudaStreamSynchronize(cuda->side_stream),
                             "copies beside them");
    }
    cuda_group_check(device);
    cuda_group_destroy(cuda->group);
    cuda_matmul_destroy(cuda->matmul);
    cuda_side_destroy(cuda->side);
    cuda_staging_destroy(cuda->staging);
    cuda_pool_destroy(cuda->pool); /* with the scratch memory and the table in it */
    if (cuda->fault != NULL) {
        (void)cudaFreeHost(cuda->fault);
    }
    if (cuda->side_stream != NULL) {
        (void)cudaStreamDestroy(cuda->side_stream);
    }
    if (cuda->stream != NULL) {
        (void)cudaStreamDestroy(cuda->stream);
    }
    (void)cudaGetLastError();
    free(cuda);
}

enum status device_open_cuda(const struct device_options *options, struct device **out,
                             struct error *err)
{
    enum status status = STATUS_OK;
    struct cuda_device *cuda = NULL;
    const char *tf32 = getenv("TREX_TF32");
    int gpus = 0;

    if (options->threads < 0 || options->limit_bytes < 0 || options->index < 0) {
        return FAIL(err, STATUS_RANGE,
                    "threads %d, memory limit %lld and index %d must not be negative",
                    options->threads, (long long)options->limit_bytes, options->index);
    }
    TRY(count_gpus(&gpus, err));
    cuda = static_cast<struct cuda_device *>(mem_calloc(1, sizeof(*cuda)));
    if (cuda == NULL) {
        return mem_fail(err, sizeof(*cuda), "the cuda device");
    }
    cuda->base.ops = &cuda_ops;
    cuda->index = options->index % gpus;
    cuda->tf32 = tf32 != NULL && strcmp(tf32, "1") == 0;
    TRY_CLEANUP(read_properties(cuda, err));
    TRY_CLEANUP(enter_gpu(cuda, err));
    TRY_CLEANUP(cuda_matmul_create(&cuda->matmul, err));
    TRY_CLEANUP(create_streams(cuda, err));
    TRY_CLEANUP(create_fault(cuda, err));
    TRY_CLEANUP(cuda_pool_create(options->limit_bytes, &cuda->pool, err));
    TRY_CLEANUP(cuda_staging_create(&cuda->staging, err));
    TRY_CLEANUP(cuda_side_create(&cuda->side, err));
    *out = &cuda->base;
    cuda = NULL;

cleanup:
    if (cuda != NULL) {
        destroy(cuda);
    }
    return status;
}

void cuda_close(struct device *device)
{
    destroy(cuda_of(device));
}

/* -- what it is -------------------------------------------------------------------------------- */

void cuda_describe(struct device *device, char *out, size_t out_bytes)
{
    const struct cuda_device *cuda = cuda_of(device);
    char products[64];
    char recordings[64] = "";
    cuda_matmul_describe(cuda->matmul, products, sizeof(products));
    if (cuda->recordings_lost > 0) {
        (void)snprintf(recordings, sizeof(recordings), ", %lld recordings could not be kept",
                       (long long)cuda->recordings_lost);
    }
    (void)snprintf(out, out_bytes, "cuda, %s, %d SMs, %.1f GiB, %s, %s%s", cuda->name,
                   cuda->multiprocessors, (double)cuda->memory_bytes / (1 << 30),
                   cuda->tf32 ? "bf16+tf32" : "bf16", products, recordings);
}

bool cuda_fast_bf16(struct device *device)
{
    (void)device;
    return true;
}
