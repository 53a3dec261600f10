/* What runs beside the operations on other hardware runs in their order here: everything is done
 * when its call returns, so there is nothing to wait for, and a recording would only repeat what
 * calling does. */
#include <stdlib.h>

#include "base/mem.h"
#include "kernels/cpu/device.h"

enum status cpu_host_alloc(struct device *device, size_t bytes, const char *what, void **out,
                           struct error *err)
{
    (void)device;
    *out = mem_aligned(bytes, 1);
    return *out != NULL ? STATUS_OK : mem_fail(err, bytes, what);
}

void cpu_host_free(struct device *device, void *pointer)
{
    (void)device;
    free(pointer);
}

int64_t cpu_side_download(struct device *device, void *to_host, const void *from, size_t bytes)
{
    cpu_download(device, to_host, from, bytes);
    return cpu_side_mark(device);
}

int64_t cpu_side_upload(struct device *device, void *to, const void *from_host, size_t bytes)
{
    cpu_upload(device, to, from_host, bytes);
    return cpu_side_mark(device);
}

int64_t cpu_side_mark(struct device *device)
{
    return ++cpu_of(device)->tickets;
}

void cpu_side_wait(struct device *device, int64_t ticket)
{
    (void)device;
    (void)ticket;
}

void cpu_side_fence(struct device *device)
{
    (void)device;
}

void cpu_run_recorded(struct device *device, struct recording **recording,
                      void (*enqueue)(void *context), void *context)
{
    (void)device;
    (void)recording;
    enqueue(context);
}

void cpu_recording_free(struct device *device, struct recording *recording)
{
    (void)device;
    (void)recording;
}
