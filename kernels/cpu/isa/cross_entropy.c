/* Cross-entropy of rows of logits, and its gradient in their place.
 *
 * One pass finds log(sum(exp(x))): by blocks that stay in the nearest cache, each rescaling the
 * running sum at most once (arXiv 1805.02867). The gradient is a second pass: factor * (exp(x -
 * lse) - [i is the target]). */
#include <assert.h>
#include <float.h>
#include <math.h>

#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/simd.h"

enum { BLOCK = 1024 };

/* Lanes at or after `count` become minus infinity. */
SIMD_INLINE vfloat load_or_minus_infinity(const void *row, enum dtype dtype, int64_t i,
                                          int64_t count)
{
    vfloat x = row_load(row, dtype, i, count);
    if (count < LANES) {
        x = simd_select(simd_lane_index() < (int32_t)count, x, simd_set(-INFINITY));
    }
    return x;
}

SIMD_INLINE float row_log_sum_exp(const void *row, enum dtype dtype, int64_t cols)
{
    float max = -FLT_MAX; /* finite, so that x - max is never inf - inf for x = -inf */
    vfloat sum = simd_zero();
    for (int64_t first = 0; first < cols; first += BLOCK) {
        int64_t end = first + BLOCK < cols ? first + BLOCK : cols;
        vfloat block_max = simd_set(-INFINITY);
        for (int64_t i = first; i < end; i += LANES) {
            block_max = simd_max(block_max, load_or_minus_infinity(row, dtype, i, end - i));
        }
        float top = simd_max_lane(block_max);
        if (top > max) {
            sum *= expf(max - top); /* 0 at first */
            max = top;
        }
        vfloat block_sum = simd_zero(); /* on its own: a long sum of small numbers loses digits */
        for (int64_t i = first; i < end; i += LANES) {
            block_sum += simd_exp(load_or_minus_infinity(row, dtype, i, end - i) - max);
        }
        sum += block_sum;
    }
    return max + logf(simd_sum(sum));
}

SIMD_INLINE void row_gradient(void *row, enum dtype dtype, int64_t cols, float lse, int32_t target,
                              float factor)
{
    float at_target = row_get(row, dtype, target);
    for (int64_t i = 0; i < cols; i += LANES) {
        vfloat p = simd_exp(row_load(row, dtype, i, cols - i) - lse);
        row_store(row, dtype, i, p * factor, cols - i);
    }
    /* expm1 keeps the digits of p - 1 when the target is nearly certain */
    vfloat minus_rest = simd_set(expm1f(at_target - lse) * factor);
    row_store(row, dtype, target, minus_rest, 1);
}

SIMD_INLINE float row_loss(void *row, enum dtype dtype, int64_t cols, int32_t target, float factor,
                           bool gradient)
{
    float lse = row_log_sum_exp(row, dtype, cols);
    float loss = lse - row_get(row, dtype, target);
    if (gradient) { /* an infinite loss can have a finite gradient: it must not be learned from */
        row_gradient(row, dtype, cols, lse, target, isfinite(loss) ? factor : NAN);
    }
    return loss;
}

static bool check_targets(struct device *device, const int32_t *target, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++) {
        if (target[r] < -1 || target[r] >= cols) {
            CPU_FAIL(device, STATUS_RANGE,
                     "cross_entropy: target %d of row %lld is not in -1..%lld", (int)target[r],
                     (long long)r, (long long)cols - 1);
            return false;
        }
    }
    return true;
}

void ISA(cross_entropy)(struct device *device, float *loss, struct tensor logits,
                        const int32_t *target, float factor, bool gradient)
{
    assert(logits.dtype != DTYPE_I32);
    if (cpu_failed(device) || !check_targets(device, target, logits.rows, logits.cols)) {
        return;
    }
    const int team = cpu_team(device, 4 * logits.rows * logits.cols);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < logits.rows; r++) {
        void *row = row_of(&logits, r);
        if (target[r] < 0) {
            loss[r] = 0.0F;
            if (gradient) {
                memset(row, 0, (size_t)logits.cols * dtype_bytes(logits.dtype));
            }
        } else if (logits.dtype == DTYPE_F32) {
            loss[r] = row_loss(row, DTYPE_F32, logits.cols, target[r], factor, gradient);
        } else {
            loss[r] = row_loss(row, DTYPE_BF16, logits.cols, target[r], factor, gradient);
        }
    }
}
