#include "run/speed.h"

#include "base/clock.h"

/* A training step reaches about this share of a plain matrix product (tests/bench measures it). */
static const double step_share_of_matmul = 0.4;
static const double measure_s = 0.3;

static enum status measure(struct device *device, const struct tensor operands[3],
                           double *flops_per_s, struct error *err)
{
    const struct ops *ops = device->ops;
    int64_t size = operands[0].rows;
    int64_t products = -1; /* the first one is not counted */
    double begun_s = 0.0;
    do {
        ops->matmul(device, operands[0], operands[1], false, operands[2], true, 1.0f, 0.0f);
        TRY(ops->check(device, err));
        begun_s = products < 0 ? clock_monotonic_s() : begun_s;
        products++;
    } while (clock_monotonic_s() - begun_s < measure_s);
    double work = 2.0 * (double)size * (double)size * (double)size * (double)products;
    *flops_per_s = work / (clock_monotonic_s() - begun_s);
    return STATUS_OK;
}

enum status speed_measure(struct device *device, enum dtype dtype, double *flops_per_s,
                          struct error *err)
{
    enum { SIZE = 512 };
    const struct ops *ops = device->ops;
    struct tensor operands[3];
    void *data[3] = {NULL, NULL, NULL};
    enum status status = STATUS_OK;
    for (int i = 0; i < 3; i++) {
        TRY_CLEANUP(
            ops->alloc(device, SIZE * SIZE * dtype_bytes(dtype), "a measurement", &data[i], err));
        operands[i] = tensor_matrix(data[i], dtype, SIZE, SIZE);
        ops->fill(device, operands[i], 0.01f);
    }
    status = measure(device, operands, flops_per_s, err);
cleanup:
    for (int i = 0; i < 3; i++) {
        ops->free(device, data[i]);
    }
    return status;
}

double speed_tokens_per_second(const struct model_config *model,
                               const struct researcher_facts *facts, bool frozen,
                               double flops_per_s)
{
    int64_t length = (int64_t)(facts->prompt_tokens_mean + facts->answer_tokens_mean) + 1;
    double per_token = model_config_flops_per_token(model, length, frozen);
    return flops_per_s * step_share_of_matmul / per_token;
}
