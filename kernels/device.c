/* Opening a device by the name that a job file or a flag gives. */
#include <stdio.h>
#include <string.h>

#include "kernels/ops.h"

static enum status open_auto(const struct device_options *options, struct device **out,
                             struct error *err)
{
    struct error absent = {0};
    enum status status = device_open_cuda(options, out, &absent);
    if (status == STATUS_OK) {
        (void)snprintf((*out)->choice, DEVICE_CHOICE_BYTES,
                       "cuda: auto takes it where there is one");
    } else if (status == STATUS_UNSUPPORTED) {
        TRY(device_open_cpu(options, out, err));
        (void)snprintf((*out)->choice, DEVICE_CHOICE_BYTES,
                       "cpu: auto found no CUDA device (%.200s)", absent.message);
    } else if (err != NULL) {
        *err = absent;
    }
    return status == STATUS_UNSUPPORTED ? STATUS_OK : status;
}

enum status device_open(const char *backend, const struct device_options *options,
                        struct device **out, struct error *err)
{
    if (strcmp(backend, "auto") == 0) {
        return open_auto(options, out, err);
    }
    if (strcmp(backend, "cpu") == 0) {
        TRY(device_open_cpu(options, out, err));
    } else if (strcmp(backend, "cuda") == 0) {
        TRY(device_open_cuda(options, out, err));
    } else {
        return FAIL(err, STATUS_INVALID, "backend \"%.64s\" is unknown; use cpu, cuda or auto",
                    backend);
    }
    (void)snprintf((*out)->choice, DEVICE_CHOICE_BYTES, "%s: asked for", backend);
    return STATUS_OK;
}

void device_close(struct device *device)
{
    if (device != NULL) {
        device->ops->close(device);
    }
}
