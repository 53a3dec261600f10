/* Memory of the CPU device: counted, limited, and on huge pages where the system gives them. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "kernels/cpu/device.h"

/* Lies before each allocation; as long as a cache line, so that what follows stays aligned. */
struct allocation {
    int64_t bytes; /* of the caller */
    char padding[56];
};
_Static_assert(sizeof(struct allocation) == 64, "the header keeps the alignment of what follows");

enum { HUGE_PAGE_BYTES = 2 << 20 };

/* Asks for huge pages under the whole ones inside a block: sweeps over weights then miss the TLB
 * far less often. */
static void advise_huge_pages(void *block, size_t bytes)
{
    uintptr_t first = ((uintptr_t)block + HUGE_PAGE_BYTES - 1) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    uintptr_t end = ((uintptr_t)block + bytes) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if (end > first) {
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE); /* a refusal costs speed alone */
    }
}

static enum status check_limit(const struct cpu_device *device, int64_t bytes, const char *what,
                               struct error *err)
{
    if (device->limit_bytes > 0 && bytes > device->limit_bytes - device->used_bytes) {
        return FAIL(err, STATUS_NO_MEMORY,
                    "%s needs %lld bytes, but %lld of the limit of %lld bytes are in use", what,
                    (long long)bytes, (long long)device->used_bytes,
                    (long long)device->limit_bytes);
    }
    return STATUS_OK;
}

static void count_bytes(struct cpu_device *device, int64_t bytes)
{
    device->used_bytes += bytes;
    if (device->used_bytes > device->peak_bytes) {
        device->peak_bytes = device->used_bytes;
    }
}

enum status cpu_alloc(struct device *base, size_t bytes, const char *what, void **out,
                      struct error *err)
{
    struct cpu_device *device = cpu_of(base);
    if (bytes > (size_t)INT64_MAX / 2) {
        return mem_fail(err, bytes, what);
    }
    TRY(check_limit(device, (int64_t)bytes, what, err));
    struct allocation *block = mem_aligned(bytes + sizeof(*block), 1);
    if (block == NULL) {
        return mem_fail(err, bytes, what);
    }
    advise_huge_pages(block, bytes + sizeof(*block));
    block->bytes = (int64_t)bytes;
    count_bytes(device, block->bytes);
    *out = block + 1;
    return STATUS_OK;
}

void cpu_free(struct device *base, void *pointer)
{
    if (pointer != NULL) {
        struct allocation *block = (struct allocation *)pointer - 1;
        cpu_of(base)->used_bytes -= block->bytes;
        free(block);
    }
}

void cpu_memory(struct device *base, struct device_memory *out)
{
    out->used_bytes = cpu_of(base)->used_bytes;
    out->peak_bytes = cpu_of(base)->peak_bytes;
    out->free_bytes = -1;
}

void cpu_reset_peak(struct device *base)
{
    cpu_of(base)->peak_bytes = cpu_of(base)->used_bytes;
}

void *cpu_scratch(struct device *base, int64_t count, size_t size, const char *what)
{
    struct cpu_device *device = cpu_of(base);
    if (count < 0 || (size_t)count > (size_t)INT64_MAX / 2 / size) {
        CPU_FAIL(base, STATUS_NO_MEMORY, "%s needs too much working memory", what);
        return NULL;
    }
    size_t bytes = (size_t)count * size;
    if (bytes > device->scratch_bytes) {
        struct error err = {0};
        free(device->scratch);
        device->used_bytes -= (int64_t)device->scratch_bytes;
        device->scratch_bytes = 0;
        device->scratch = NULL;
        if (check_limit(device, (int64_t)bytes, what, &err) == STATUS_OK) {
            device->scratch = mem_aligned(bytes, 1);
        }
        if (device->scratch == NULL) {
            if (err.code == STATUS_OK) {
                (void)mem_fail(&err, bytes, what);
            }
            CPU_FAIL(base, err.code, "%s", err.message);
            return NULL;
        }
        advise_huge_pages(device->scratch, bytes);
        device->scratch_bytes = bytes;
        count_bytes(device, (int64_t)bytes);
    }
    return device->scratch;
}

void cpu_upload(struct device *base, void *to, const void *from_host, size_t bytes)
{
    if (!cpu_failed(base) && bytes > 0) {
        memcpy(to, from_host, bytes);
    }
}

void cpu_download(struct device *base, void *to_host, const void *from, size_t bytes)
{
    if (!cpu_failed(base) && bytes > 0) {
        memcpy(to_host, from, bytes);
    }
}
