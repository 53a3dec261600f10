/* Memory of the devices, counted against a limit, and pinned memory of the host. Both are exact
 * blocks of the heap, so that AddressSanitizer sees what is beside them, and full of NaNs at first.
 */
#include <map>
#include <stdlib.h>
#include <string.h>

#include "devices.h"
#include "state.h"

struct block {
    size_t bytes;
    int device; /* or PINNED */
};
enum { PINNED = -1, DEVICES_MAX = 16, ALIGNMENT = 256 };

/* By address. Under the lock. */
static std::map<uintptr_t, block> blocks;
static size_t used_bytes[DEVICES_MAX];

size_t device_memory_limit()
{
    const char *text = getenv("TREX_CUDA_ON_CPU_MEMORY");
    return text == nullptr ? (size_t)4 << 30 : (size_t)strtoull(text, nullptr, 10);
}

/* The block that holds these bytes, or end(). */
static std::map<uintptr_t, block>::iterator block_find(const void *address, size_t bytes)
{
    const uintptr_t at = (uintptr_t)address;
    auto next = blocks.upper_bound(at);
    if (next == blocks.begin()) {
        return blocks.end();
    }
    auto found = std::prev(next);
    const size_t offset = at - found->first;
    const bool inside = offset < found->second.bytes && bytes <= found->second.bytes - offset;
    return inside ? found : blocks.end();
}

enum memory_kind memory_kind_of(const void *address, size_t bytes)
{
    const auto found = block_find(address, bytes);
    if (found == blocks.end()) {
        return MEMORY_PAGEABLE;
    }
    return found->second.device == PINNED ? MEMORY_PINNED : MEMORY_DEVICE;
}

static cudaError_t block_make(void **pointer, size_t bytes, int device)
{
    if (posix_memalign(pointer, ALIGNMENT, bytes) != 0) {
        *pointer = nullptr;
        return cudaErrorMemoryAllocation;
    }
    memset(*pointer, 0xFF, bytes);
    blocks[(uintptr_t)*pointer] = {bytes, device};
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    if (!device_exists(device_current())) {
        return finish(cudaErrorNoDevice);
    }
    *total = device_memory_limit();
    const size_t used = used_bytes[device_current()];
    *available = used < *total ? *total - used : 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    const int device = device_current();
    const cudaError_t forbidden = capture_forbids();
    if (forbidden != cudaSuccess || !device_exists(device)) {
        return finish(forbidden != cudaSuccess ? forbidden : cudaErrorNoDevice);
    }
    *pointer = nullptr;
    if (bytes == 0) {
        return cudaSuccess;
    }
    const size_t limit = device_memory_limit();
    if (used_bytes[device] > limit || bytes > limit - used_bytes[device]) {
        return finish(cudaErrorMemoryAllocation);
    }
    const cudaError_t error = block_make(pointer, bytes, device);
    if (error == cudaSuccess) {
        used_bytes[device] += bytes;
    }
    return finish(error);
}

/* Frees a block of the device or of pinned memory once all work is done, as the runtime does. */
static cudaError_t block_free(void *pointer, bool pinned)
{
    std::unique_lock<std::mutex> lock(shim_lock);
    const cudaError_t forbidden = capture_forbids();
    if (forbidden != cudaSuccess || pointer == nullptr) {
        return finish(forbidden);
    }
    auto found = blocks.find((uintptr_t)pointer);
    if (found == blocks.end() || (found->second.device == PINNED) != pinned) {
        return finish(cudaErrorInvalidValue);
    }
    for (int device = 0; device < device_count(); device++) {
        device_wait(lock, device);
    }
    found = blocks.find((uintptr_t)pointer); /* others may have changed the map meanwhile */
    if (!pinned) {
        used_bytes[found->second.device] -= found->second.bytes;
    }
    blocks.erase(found);
    free(pointer);
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer)
{
    return block_free(pointer, false);
}

cudaError_t cudaFreeHost(void *pointer)
{
    return block_free(pointer, true);
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned flags)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    const cudaError_t forbidden = capture_forbids();
    if (forbidden != cudaSuccess || !device_exists(device_current())) {
        return finish(forbidden != cudaSuccess ? forbidden : cudaErrorNoDevice);
    }
    *pointer = nullptr;
    if ((flags & ~(cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined)) !=
        0) {
        return finish(cudaErrorInvalidValue);
    }
    return finish(bytes == 0 ? cudaSuccess : block_make(pointer, bytes, PINNED));
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes)
{
    return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault);
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    if (flags != 0 || memory_kind_of(host, 1) != MEMORY_PINNED) {
        return finish(cudaErrorInvalidValue);
    }
    *device = host;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *out, const void *pointer)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    const auto found = block_find(pointer, 1);
    *out = {cudaMemoryTypeUnregistered, -1, nullptr, (void *)pointer};
    if (found != blocks.end()) {
        const bool pinned = found->second.device == PINNED;
        out->type = pinned ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
        out->device = pinned ? device_current() : found->second.device;
        out->devicePointer = (void *)pointer;
        out->hostPointer = pinned ? (void *)pointer : nullptr;
    }
    return cudaSuccess;
}

/* -- copies -- */

/* Whether memory may stand on the side of a copy that the kind says. */
static bool side_allowed(enum memory_kind found, bool device)
{
    return device ? found != MEMORY_PAGEABLE : found != MEMORY_DEVICE;
}

/* Checks both sides of a copy; *pageable: the host's side is memory that only the host knows. */
static cudaError_t copy_check(const void *to, const void *from, size_t bytes,
                              enum cudaMemcpyKind kind, bool *pageable)
{
    const enum memory_kind to_kind = memory_kind_of(to, bytes);
    const enum memory_kind from_kind = memory_kind_of(from, bytes);
    *pageable = to_kind == MEMORY_PAGEABLE || from_kind == MEMORY_PAGEABLE;
    switch (kind) {
    case cudaMemcpyDefault:
        return cudaSuccess;
    case cudaMemcpyHostToHost:
    case cudaMemcpyHostToDevice:
    case cudaMemcpyDeviceToHost:
    case cudaMemcpyDeviceToDevice: {
        const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
        const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
        return side_allowed(to_kind, to_device) && side_allowed(from_kind, from_device)
                   ? cudaSuccess
                   : cudaErrorInvalidValue;
    }
    default:
        return cudaErrorInvalidMemcpyDirection;
    }
}

/* Appends a copy of rows. Memory that only the host knows is copied before the call returns. */
static cudaError_t copy_push(std::unique_lock<std::mutex> &lock, void *to, size_t to_pitch,
                             const void *from, size_t from_pitch, size_t width, size_t height,
                             enum cudaMemcpyKind kind, cudaStream_t stream)
{
    if (width == 0 || height == 0) {
        return cudaSuccess;
    }
    if (to_pitch < width || from_pitch < width) {
        return cudaErrorInvalidValue;
    }
    bool pageable = false;
    const size_t to_bytes = (height - 1) * to_pitch + width;
    const size_t from_bytes = (height - 1) * from_pitch + width;
    bool ignored = false;
    cudaError_t error = copy_check(to, from, to_bytes, kind, &pageable);
    if (error == cudaSuccess && to_bytes != from_bytes) {
        error = copy_check(to, from, from_bytes < to_bytes ? from_bytes : to_bytes, kind, &ignored);
    }
    if (error == cudaSuccess && pageable && stream != nullptr && stream->capture != nullptr) {
        error = capture_forbids();
    }
    if (error != cudaSuccess) {
        return error;
    }
    error = stream_push(stream, [=] {
        for (size_t row = 0; row < height; row++) {
            memmove((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
        }
        return true;
    });
    if (error == cudaSuccess && pageable && stream != nullptr) {
        work_wait(lock, stream->work, stream->work->called);
    }
    return error;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    std::unique_lock<std::mutex> lock(shim_lock);
    return finish(copy_push(lock, to, bytes, from, bytes, bytes, 1, kind, stream));
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    std::unique_lock<std::mutex> lock(shim_lock);
    return finish(copy_push(lock, to, to_pitch, from, from_pitch, width, height, kind, stream));
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    std::unique_lock<std::mutex> lock(shim_lock);
    const cudaError_t forbidden = capture_forbids();
    if (forbidden != cudaSuccess) {
        return finish(forbidden);
    }
    return finish(copy_push(lock, to, bytes, from, bytes, bytes, 1, kind, nullptr));
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    std::unique_lock<std::mutex> lock(shim_lock);
    if (bytes == 0) {
        return cudaSuccess;
    }
    if (memory_kind_of(to, bytes) == MEMORY_PAGEABLE) {
        return finish(cudaErrorInvalidValue);
    }
    return finish(stream_push(stream, [=] {
        memset(to, value, bytes);
        return true;
    }));
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    return cudaMemsetAsync(to, value, bytes, nullptr);
}
