/* Opening a device by the name that a job file or a flag gives. */
#include <string.h>

#include "kernels/ops.h"

enum status device_open(const char *backend, const struct device_options *options,
                        struct device **out, struct error *err)
{
    if (strcmp(backend, "cpu") == 0) {
        return device_open_cpu(options, out, err);
    }
    if (strcmp(backend, "cuda") == 0) {
        return device_open_cuda(options, out, err);
    }
    if (strcmp(backend, "auto") == 0) {
        enum status status = device_open_cuda(options, out, err);
        return status == STATUS_UNSUPPORTED ? device_open_cpu(options, out, err) : status;
    }
    return FAIL(err, STATUS_INVALID, "backend \"%.64s\" is unknown; use cpu, cuda or auto",
                backend);
}

void device_close(struct device *device)
{
    if (device != NULL) {
        device->ops->close(device);
    }
}
