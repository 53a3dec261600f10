/* Device memory, cached: getting it from the driver, and giving it back, makes the whole GPU wait.
 *
 *   segment  what one cudaMalloc gave
 *   block    a piece of a segment, free or held by a caller; the blocks of a segment lie in order
 *
 * A request takes the smallest free block that is large enough, split if much would be left over;
 * a block that becomes free is joined with its free neighbours. Small requests (up to 1 MiB) live
 * in segments of their own, so that they do not cut the large ones into pieces. Freed memory may be
 * handed out at once, while operations that use it are under way: whoever gets it uses it by later
 * operations on the same stream. Free segments go back to the driver when it has no memory left, or
 * when keeping them would take more than the limit.
 *
 * The limit and the counts are about what callers hold, in units of 512 bytes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/parts.h"
#include "kernels/cuda/poison.h"

enum {
    UNIT_BYTES = 512,
    SMALL_MAX_BYTES = 1 << 20,
    SEGMENT_UNIT_BYTES = 2 << 20,
    LARGE_REST_BYTES = 1 << 20, /* less than this left over of a large block is not split off */
    BUCKETS = 4096,             /* a power of two */
};

enum kind { KIND_SMALL, KIND_LARGE, KINDS };

struct block {
    char *memory;
    size_t bytes;
    size_t held_bytes; /* counted; 0: the block is free */
    enum kind kind;
    struct block *before; /* in the segment */
    struct block *after;
    struct block *previous; /* if free: in the list of its kind, by size, then address */
    struct block *next;     /* if held: in its bucket */
};

struct cuda_pool {
    struct block *free_list[KINDS];
    struct block *held[BUCKETS]; /* by address */
    size_t limit_bytes;          /* 0: none */
    size_t used_bytes;           /* held by callers */
    size_t peak_bytes;
    size_t segment_bytes; /* taken from the driver */
};

static size_t round_up(size_t bytes, size_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

/* -- lists ------------------------------------------------------------------------------------- */

static bool comes_before(const struct block *a, const struct block *b)
{
    return a->bytes != b->bytes ? a->bytes < b->bytes : (uintptr_t)a->memory < (uintptr_t)b->memory;
}

static void list_insert(struct cuda_pool *pool, struct block *block)
{
    struct block *previous = NULL;
    struct block *next = pool->free_list[block->kind];
    while (next != NULL && comes_before(next, block)) {
        previous = next;
        next = next->next;
    }
    block->previous = previous;
    block->next = next;
    if (previous != NULL) {
        previous->next = block;
    } else {
        pool->free_list[block->kind] = block;
    }
    if (next != NULL) {
        next->previous = block;
    }
}

static void list_remove(struct cuda_pool *pool, struct block *block)
{
    if (block->previous != NULL) {
        block->previous->next = block->next;
    } else {
        pool->free_list[block->kind] = block->next;
    }
    if (block->next != NULL) {
        block->next->previous = block->previous;
    }
    block->previous = NULL;
    block->next = NULL;
}

static struct block **bucket_of(struct cuda_pool *pool, const void *memory)
{
    const uintptr_t unit = (uintptr_t)memory / UNIT_BYTES;
    return &pool->held[(unit ^ unit >> 12) % BUCKETS];
}

static void held_insert(struct cuda_pool *pool, struct block *block)
{
    struct block **bucket = bucket_of(pool, block->memory);
    block->next = *bucket;
    *bucket = block;
}

/* NULL if the pool did not hand out this address. */
static struct block *held_take(struct cuda_pool *pool, const void *memory)
{
    struct block **link = bucket_of(pool, memory);
    while (*link != NULL && (*link)->memory != memory) {
        link = &(*link)->next;
    }
    struct block *block = *link;
    if (block != NULL) {
        *link = block->next;
        block->next = NULL;
    }
    return block;
}

/* -- segments ---------------------------------------------------------------------------------- */

/* A new segment as one free block, in the list. cudaErrorMemoryAllocation if the GPU or the host
 * has no memory for it. */
static cudaError_t segment_create(struct cuda_pool *pool, enum kind kind, size_t bytes)
{
    struct block *block = static_cast<struct block *>(mem_calloc(1, sizeof(*block)));
    void *memory = NULL;
    if (block == NULL) {
        return cudaErrorMemoryAllocation;
    }
    const cudaError_t result = cudaMalloc(&memory, bytes);
    if (result != cudaSuccess) {
        free(block);
        return result;
    }
    block->memory = static_cast<char *>(memory);
    block->bytes = bytes;
    block->kind = kind;
    pool->segment_bytes += bytes;
    poison_now(block->memory, block->bytes, true);
    list_insert(pool, block);
    return cudaSuccess;
}

static void segment_destroy(struct cuda_pool *pool, struct block *block)
{
    list_remove(pool, block);
    pool->segment_bytes -= block->bytes;
    poison_now(block->memory, block->bytes, false);
    (void)cudaFree(block->memory);
    free(block);
}

/* Gives the free segments back; operations that use them may be under way. */
static void segments_trim(struct device *device)
{
    struct cuda_pool *pool = cuda_of(device)->pool;
    (void)cuda_went_well(device, cudaStreamSynchronize(cuda_of(device)->stream),
                         "operations on the GPU");
    (void)cuda_went_well(device, cudaStreamSynchronize(cuda_of(device)->side_stream),
                         "copies beside them");
    for (int kind = 0; kind < KINDS; kind++) {
        struct block *next = NULL;
        for (struct block *block = pool->free_list[kind]; block != NULL; block = next) {
            next = block->next;
            if (block->before == NULL && block->after == NULL) {
                segment_destroy(pool, block);
            }
        }
    }
}

/* -- blocks ------------------------------------------------------------------------------------ */

static struct block *block_find(const struct cuda_pool *pool, enum kind kind, size_t bytes)
{
    struct block *block = pool->free_list[kind];
    while (block != NULL && block->bytes < bytes) {
        block = block->next;
    }
    return block;
}

/* Leaves `bytes` in the block and makes the rest a free one; without host memory for it, or if it
 * is not worth it, the block keeps all. */
static void block_split(struct cuda_pool *pool, struct block *block, size_t bytes)
{
    const size_t rest_min = block->kind == KIND_SMALL ? UNIT_BYTES : LARGE_REST_BYTES;
    if (block->bytes - bytes < rest_min) {
        return;
    }
    struct block *rest = static_cast<struct block *>(mem_calloc(1, sizeof(*rest)));
    if (rest == NULL) {
        return;
    }
    rest->memory = block->memory + bytes;
    rest->bytes = block->bytes - bytes;
    rest->kind = block->kind;
    rest->before = block;
    rest->after = block->after;
    if (rest->after != NULL) {
        rest->after->before = rest;
    }
    block->after = rest;
    block->bytes = bytes;
    list_insert(pool, rest);
}

/* Makes one block of two neighbours that are in no list. */
static void block_join(struct block *block, struct block *after)
{
    block->bytes += after->bytes;
    block->after = after->after;
    if (block->after != NULL) {
        block->after->before = block;
    }
    free(after);
}

static void block_release(struct cuda_pool *pool, struct block *block)
{
    struct block *before = block->before;
    struct block *after = block->after;
    block->held_bytes = 0;
    if (after != NULL && after->held_bytes == 0) {
        list_remove(pool, after);
        block_join(block, after);
    }
    if (before != NULL && before->held_bytes == 0) {
        list_remove(pool, before);
        block_join(before, block);
        block = before;
    }
    list_insert(pool, block);
}

/* A block of at least so many bytes, out of the list; NULL and the runtime's error if there is
 * none. */
static struct block *block_acquire(struct device *device, size_t bytes, cudaError_t *result)
{
    struct cuda_pool *pool = cuda_of(device)->pool;
    const enum kind kind = bytes <= SMALL_MAX_BYTES ? KIND_SMALL : KIND_LARGE;
    struct block *block = block_find(pool, kind, bytes);
    *result = cudaSuccess;
    if (block == NULL) {
        const size_t segment = round_up(bytes, SEGMENT_UNIT_BYTES); /* a small block fits in one */
        if (pool->limit_bytes > 0 && pool->segment_bytes + segment > pool->limit_bytes) {
            segments_trim(device);
        }
        *result = segment_create(pool, kind, segment);
        if (*result == cudaErrorMemoryAllocation) {
            (void)cudaGetLastError();
            segments_trim(device);
            *result = segment_create(pool, kind, segment);
        }
        block = *result == cudaSuccess ? block_find(pool, kind, bytes) : NULL;
    }
    if (block != NULL) {
        list_remove(pool, block);
        block_split(pool, block, bytes);
    }
    return block;
}

/* -- the pool ---------------------------------------------------------------------------------- */

enum status cuda_pool_create(int64_t limit_bytes, struct cuda_pool **out, struct error *err)
{
    struct cuda_pool *pool = static_cast<struct cuda_pool *>(mem_calloc(1, sizeof(*pool)));
    if (pool == NULL) {
        return mem_fail(err, sizeof(*pool), "the memory pool of the GPU");
    }
    pool->limit_bytes = (size_t)limit_bytes;
    *out = pool;
    return STATUS_OK;
}

void cuda_pool_destroy(struct cuda_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    for (int i = 0; i < BUCKETS; i++) {
        while (pool->held[i] != NULL) {
            block_release(pool, held_take(pool, pool->held[i]->memory));
        }
    }
    for (int kind = 0; kind < KINDS; kind++) {
        while (pool->free_list[kind] != NULL) {
            segment_destroy(pool, pool->free_list[kind]);
        }
    }
    free(pool);
}

static enum status fail_without_memory(const struct cuda_pool *pool, size_t bytes, const char *what,
                                       struct error *err)
{
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) {
        (void)cudaGetLastError();
    }
    return FAIL(err, STATUS_NO_MEMORY,
                "%s needs %zu bytes, but of the GPU's %zu bytes %zu are free and %zu are in use by "
                "this process",
                what, bytes, total_bytes, free_bytes, pool->used_bytes);
}

enum status cuda_alloc(struct device *device, size_t bytes, const char *what, void **out,
                       struct error *err)
{
    struct cuda_pool *pool = cuda_of(device)->pool;
    cudaError_t result = cudaSuccess;
    if (bytes > (size_t)INT64_MAX / 2) {
        return fail_without_memory(pool, bytes, what, err);
    }
    if (cuda_of(device)->recording) {
        return FAIL(err, STATUS_INTERNAL, "%s asks for memory while operations are recorded", what);
    }
    const size_t held = round_up(bytes > 0 ? bytes : 1, UNIT_BYTES);
    if (pool->limit_bytes > 0 &&
        (pool->used_bytes > pool->limit_bytes || held > pool->limit_bytes - pool->used_bytes)) {
        return FAIL(err, STATUS_NO_MEMORY,
                    "%s needs %zu bytes, but %zu of the limit of %zu bytes are in use", what, bytes,
                    pool->used_bytes, pool->limit_bytes);
    }
    struct block *block = block_acquire(device, held + POISON_FENCE_BYTES, &result);
    if (result == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return fail_without_memory(pool, bytes, what, err);
    }
    TRY_CUDA(result, what, err);
    block->held_bytes = held;
    held_insert(pool, block);
    poison_in_order(cuda_of(device)->stream, block->memory, bytes, false);
    pool->used_bytes += held;
    pool->peak_bytes = pool->used_bytes > pool->peak_bytes ? pool->used_bytes : pool->peak_bytes;
    *out = block->memory;
    return STATUS_OK;
}

void cuda_free(struct device *device, void *pointer)
{
    if (pointer != NULL) {
        struct cuda_pool *pool = cuda_of(device)->pool;
        struct block *block = held_take(pool, pointer);
        assert(block != NULL);
        pool->used_bytes -= block->held_bytes;
        poison_in_order(cuda_of(device)->stream, block->memory, block->bytes, true);
        block_release(pool, block);
    }
}

void cuda_memory(struct device *device, struct device_memory *out)
{
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    const bool known = cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess;
    out->free_bytes = known ? (int64_t)free_bytes : -1;
    out->used_bytes = (int64_t)cuda_of(device)->pool->used_bytes;
    out->peak_bytes = (int64_t)cuda_of(device)->pool->peak_bytes;
}

void cuda_reset_peak(struct device *device)
{
    cuda_of(device)->pool->peak_bytes = cuda_of(device)->pool->used_bytes;
}

/* -- host memory that the GPU reads and writes itself ------------------------------------------ */

enum status cuda_host_alloc(struct device *device, size_t bytes, const char *what, void **out,
                            struct error *err)
{
    void *memory = NULL;
    (void)device;
    const cudaError_t result = cudaHostAlloc(&memory, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
    if (result == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return FAIL(err, STATUS_NO_MEMORY,
                    "%s needs %zu bytes of host memory that cannot be swapped out, and there are "
                    "not so many",
                    what, bytes);
    }
    TRY_CUDA(result, what, err);
    *out = memory;
    return STATUS_OK;
}

void cuda_host_free(struct device *device, void *pointer)
{
    if (pointer != NULL) {
        (void)cuda_went_well(device, cudaFreeHost(pointer), "giving host memory back");
    }
}
