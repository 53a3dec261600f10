/* Errors and devices of the runtime. TREX_CUDA_ON_CPU_DEVICES says how many there are, 1 if unset.
 */
#include <algorithm>
#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices.h"
#include "grid.h"
#include "shared.h"
#include "state.h"

std::mutex shim_lock;
std::condition_variable shim_progress;

static thread_local cudaError_t last_error = cudaSuccess;
static thread_local int current = 0;

enum { DEVICES_MAX = 16, SHARED_DEFAULT = 48 * 1024, SHARED_MAX = 227 * 1024 };

/* -- errors -- */

cudaError_t finish(cudaError_t error)
{
    if (error != cudaSuccess) {
        last_error = error;
    }
    return error;
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

const char *cudaGetErrorString(cudaError_t error)
{
#define TEXT(name, number, text)                                                                   \
    if (error == name) {                                                                           \
        return text;                                                                               \
    }
    ON_CPU_ERRORS(TEXT)
#undef TEXT
    return "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t error)
{
#define NAME(name, number, text)                                                                   \
    if (error == name) {                                                                           \
        return #name;                                                                              \
    }
    ON_CPU_ERRORS(NAME)
#undef NAME
    return "unrecognized error code";
}

/* -- devices -- */

int device_count()
{
    const char *text = getenv("TREX_CUDA_ON_CPU_DEVICES");
    return text == nullptr ? 1 : std::clamp(atoi(text), 0, (int)DEVICES_MAX);
}

int device_current()
{
    return current;
}

bool device_exists(int device)
{
    return device >= 0 && device < device_count();
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = device_count() > 0 ? CUDART_VERSION : 0;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = device_count();
    return finish(*count > 0 ? cudaSuccess : cudaErrorNoDevice);
}

/* What an invalid device number is an error of. */
static cudaError_t device_error(int device)
{
    if (device_exists(device)) {
        return cudaSuccess;
    }
    return device_count() > 0 ? cudaErrorInvalidDevice : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device)
{
    const cudaError_t error = device_error(device);
    if (error == cudaSuccess) {
        current = device;
    }
    return finish(error);
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current;
    return finish(device_error(current));
}

cudaError_t cudaSetDeviceFlags(unsigned flags)
{
    (void)flags;
    return finish(device_error(current));
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    const cudaError_t error = device_error(device);
    if (error != cudaSuccess) {
        return finish(error);
    }
    *properties = {};
    snprintf(properties->name, sizeof(properties->name), "CUDA on CPU");
    properties->uuid.bytes[0] = (char)device;
    properties->totalGlobalMem = device_memory_limit();
    properties->sharedMemPerBlock = SHARED_DEFAULT;
    properties->regsPerBlock = 65536;
    properties->warpSize = 32;
    properties->memPitch = 0x7FFFFFFF;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsDim[0] = 1024;
    properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = 0x7FFFFFFF;
    properties->maxGridSize[1] = 65535;
    properties->maxGridSize[2] = 65535;
    properties->totalConstMem = 65536;
    properties->major = 9;
    properties->multiProcessorCount = 132;
    properties->canMapHostMemory = 1;
    properties->concurrentKernels = 1;
    properties->pciBusID = device + 1;
    properties->asyncEngineCount = 3;
    properties->unifiedAddressing = 1;
    properties->memoryBusWidth = 5120;
    properties->l2CacheSize = 50 << 20;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->streamPrioritiesSupported = 1;
    properties->sharedMemPerMultiprocessor = 228 * 1024;
    properties->regsPerMultiprocessor = 65536;
    properties->canUseHostPointerForRegisteredMem = 1;
    properties->sharedMemPerBlockOptin = SHARED_MAX;
    properties->reservedSharedMemPerBlock = 1024;
    properties->maxBlocksPerMultiProcessor = 32;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    cudaDeviceProp properties;
    const cudaError_t error = cudaGetDeviceProperties(&properties, device);
    if (error != cudaSuccess) {
        return error;
    }
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = properties.maxThreadsPerBlock;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = (int)properties.sharedMemPerBlock;
        break;
    case cudaDevAttrWarpSize:
        *value = properties.warpSize;
        break;
    case cudaDevAttrClockRate:
        *value = 1980000; /* kHz */
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = properties.multiProcessorCount;
        break;
    case cudaDevAttrIntegrated:
    case cudaDevAttrComputeMode:
    case cudaDevAttrPciDeviceId:
    case cudaDevAttrPciDomainId:
    case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        break;
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
        *value = 1;
        break;
    case cudaDevAttrPciBusId:
        *value = properties.pciBusID;
        break;
    case cudaDevAttrMemoryClockRate:
        *value = 2619000; /* kHz */
        break;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = properties.memoryBusWidth;
        break;
    case cudaDevAttrL2CacheSize:
        *value = properties.l2CacheSize;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = properties.maxThreadsPerMultiProcessor;
        break;
    case cudaDevAttrAsyncEngineCount:
        *value = properties.asyncEngineCount;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = properties.major;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)properties.sharedMemPerMultiprocessor;
        break;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
        *value = properties.regsPerMultiprocessor;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)properties.sharedMemPerBlockOptin;
        break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
        *value = properties.maxBlocksPerMultiProcessor;
        break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
        *value = (int)properties.reservedSharedMemPerBlock;
        break;
    default:
        return finish(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int bytes, int device)
{
    const cudaError_t error = device_error(device);
    if (error == cudaSuccess) {
        snprintf(id, (size_t)bytes, "0000:%02x:00.0", device + 1);
    }
    return finish(error);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return finish(device_error(current));
}

/* -- what a launch may ask for -- */

/* Dynamic shared memory that kernels were allowed beyond the default. Under the lock. */
static std::map<const void *, int> shared_allowed;

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    if (kernel == nullptr) {
        return finish(cudaErrorInvalidDeviceFunction);
    }
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value < 0 || value > SHARED_MAX) {
            return finish(cudaErrorInvalidValue);
        }
        shared_allowed[kernel] = value;
        return cudaSuccess;
    }
    return finish(attribute == cudaFuncAttributePreferredSharedMemoryCarveout && value >= -1 &&
                          value <= 100
                      ? cudaSuccess
                      : cudaErrorInvalidValue);
}

static cudaError_t launch_error(cudaStream_t stream, const on_cpu_grid &grid)
{
    const dim3 b = grid.blocks;
    const dim3 t = grid.threads;
    if (b.x == 0 || b.y == 0 || b.z == 0 || b.x > 0x7FFFFFFF || b.y > 65535 || b.z > 65535) {
        return cudaErrorInvalidConfiguration;
    }
    if (t.x == 0 || t.y == 0 || t.z == 0 || t.x > 1024 || t.y > 1024 || t.z > 64 ||
        (uint64_t)t.x * t.y * t.z > 1024) {
        return cudaErrorInvalidConfiguration;
    }
    const auto allowed = shared_allowed.find(grid.kernel);
    const size_t asked = allowed == shared_allowed.end() ? 0 : (size_t)allowed->second;
    const size_t declared = shared_static_bytes(grid.kernel);
    if (declared > SHARED_DEFAULT || declared + grid.shared_bytes > SHARED_MAX ||
        grid.shared_bytes > std::max(asked, SHARED_DEFAULT - declared)) {
        return cudaErrorInvalidValue;
    }
    if (stream != nullptr && stream->device != current) {
        return cudaErrorInvalidResourceHandle;
    }
    return device_error(current);
}

cudaError_t on_cpu_enqueue(cudaStream_t stream, on_cpu_grid &&grid)
{
    std::unique_lock<std::mutex> lock(shim_lock);
    const cudaError_t error = launch_error(stream, grid);
    if (error != cudaSuccess) {
        return error; /* what cudaGetLastError says after a launch, which takes it away */
    }
    auto kept = std::make_shared<on_cpu_grid>(std::move(grid));
    const cudaError_t pushed = stream_push(stream, [kept] {
        grid_run(*kept);
        return true;
    });
    return pushed;
}
