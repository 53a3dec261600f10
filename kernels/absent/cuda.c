/* What stands in for the CUDA backend in a build without it. */
#include "kernels/ops.h"

enum status device_open_cuda(const struct device_options *options, struct device **out,
                             struct error *err)
{
    (void)options;
    (void)out;
    return FAIL(
        err, STATUS_UNSUPPORTED,
        "this build has no CUDA backend; use backend cpu, or build where nvcc is installed");
}
