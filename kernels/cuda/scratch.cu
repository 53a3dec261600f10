/* Working memory of operations: one block for what an operation writes and reads again, and one for
 * small tables from the host. Both are kept until the device is closed; the stream's order keeps an
 * operation from touching them while an earlier one does. */
#include <assert.h>

#include "kernels/cuda/device.h"
#include "kernels/cuda/operations.h"

enum { TABLE_BYTES = 64 * 1024 };

/* The old block may still be read by operations under way: what takes its place in memory is
 * written by later ones on the same stream. */
void *cuda_scratch(struct device *device, int64_t count, size_t size, const char *what)
{
    struct cuda_device *cuda = cuda_of(device);
    if (cuda_failed(device)) {
        return NULL;
    }
    if (count < 0 || (size_t)count > (size_t)INT64_MAX / 2 / size) {
        CUDA_FAIL(device, STATUS_NO_MEMORY, "%s needs too much working memory", what);
        return NULL;
    }
    const size_t bytes = count > 0 ? (size_t)count * size : 1;
    if (bytes > cuda->scratch_bytes && cuda_not_recording(device, what)) {
        struct error err = {};
        cuda_free(device, cuda->scratch);
        cuda->scratch = NULL;
        cuda->scratch_bytes = 0;
        if (cuda_alloc(device, bytes, what, &cuda->scratch, &err) == STATUS_OK) {
            cuda->scratch_bytes = bytes;
        } else {
            CUDA_FAIL(device, err.code, "%s", err.message);
        }
    }
    return cuda_failed(device) ? NULL : cuda->scratch;
}

const void *cuda_table(struct device *device, const void *host, size_t bytes, const char *what)
{
    struct cuda_device *cuda = cuda_of(device);
    struct error err = {};
    assert(bytes <= TABLE_BYTES);
    if (cuda_failed(device) || !cuda_not_recording(device, what)) {
        return NULL;
    }
    if (cuda->table == NULL &&
        cuda_alloc(device, TABLE_BYTES, what, &cuda->table, &err) != STATUS_OK) {
        CUDA_FAIL(device, err.code, "%s", err.message);
        return NULL;
    }
    cuda_upload(device, cuda->table, host, bytes);
    return cuda_failed(device) ? NULL : cuda->table;
}
