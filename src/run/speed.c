#include "run/speed.h"

#include "base/clock.h"

/* A training step reaches about this share of a plain matrix product (tests/bench measures it). */
static const double step_share_of_matmul = 0.4;
static const double measure_s = 0.3;
/* A product that takes less is over before the next one is under way: what is measured then is how
 * fast products can be called. */
static const double product_s = 1e-3;

enum { SIZE_LEAST = 512, SIZE_MOST = 8192 };

/* Seconds of one product; many are called before the device is waited for. */
static enum status time_product(struct device *device, const struct tensor operands[3],
                                double least_s, double *out, struct error *err)
{
    const struct ops *ops = device->ops;
    int64_t products = 0;
    int64_t at_once = 1;
    double begun_s = 0.0;
    double now_s = 0.0;
    for (;;) {
        for (int64_t i = 0; i < at_once; i++) {
            ops->matmul(device, operands[0], operands[1], false, operands[2], true, 1.0f, 0.0f);
        }
        TRY(ops->check(device, err));
        now_s = clock_monotonic_s();
        if (begun_s == 0.0) { /* the first one is not counted */
            begun_s = now_s;
            continue;
        }
        products += at_once;
        if (now_s - begun_s >= least_s) {
            break;
        }
        at_once = at_once < 16 ? 2 * at_once : at_once;
    }
    *out = (now_s - begun_s) / (double)products;
    return STATUS_OK;
}

static enum status measure(struct device *device, enum dtype dtype, int64_t size, double least_s,
                           double *seconds, struct error *err)
{
    const struct ops *ops = device->ops;
    size_t bytes = (size_t)size * (size_t)size * dtype_bytes(dtype);
    struct tensor operands[3];
    void *data[3] = {NULL, NULL, NULL};
    enum status status = STATUS_OK;
    for (int i = 0; i < 3; i++) {
        TRY_CLEANUP(ops->alloc(device, bytes, "a measurement", &data[i], err));
        operands[i] = tensor_matrix(data[i], dtype, size, size);
        ops->fill(device, operands[i], 0.01f);
    }
    status = time_product(device, operands, least_s, seconds, err);
cleanup:
    for (int i = 0; i < 3; i++) {
        ops->free(device, data[i]);
    }
    return status;
}

enum status speed_measure(struct device *device, enum dtype dtype, double *flops_per_s,
                          struct error *err)
{
    int64_t size = SIZE_LEAST;
    double seconds = 0.0;
    TRY(measure(device, dtype, size, product_s, &seconds, err));
    while (seconds < product_s && size < SIZE_MOST) {
        size *= 2;
        TRY(measure(device, dtype, size, product_s, &seconds, err));
    }
    TRY(measure(device, dtype, size, measure_s, &seconds, err));
    *flops_per_s = 2.0 * (double)size * (double)size * (double)size / seconds;
    return STATUS_OK;
}

double speed_tokens_per_second(const struct model_config *model,
                               const struct researcher_facts *facts, bool frozen,
                               double flops_per_s)
{
    int64_t length = (int64_t)(facts->prompt_tokens_mean + facts->answer_tokens_mean) + 1;
    double per_token = model_config_flops_per_token(model, length, frozen);
    return flops_per_s * step_share_of_matmul / per_token;
}
