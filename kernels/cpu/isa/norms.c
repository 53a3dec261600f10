/* RMSNorm over rows, forward with the residual sum fused in, and backward. Source: arXiv
 * 1910.07467.
 *
 * Backward: with y = x * r * w and g = d_out * w,  d_x = r * (g - x * r^2 * mean(g * x)),  d_w =
 * sum d_out * x * r. */
#include <assert.h>
#include <math.h>

#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/simd.h"

struct norm_dtypes {
    enum dtype x;
    enum dtype other; /* the residual forward, d_x backward */
    enum dtype out;   /* out forward, d_out backward */
    enum dtype weight;
};

SIMD_INLINE float forward_row(struct norm_dtypes d, void *out, void *x, const void *residual,
                              const void *weight, int64_t cols, float epsilon)
{
    vfloat squares = simd_zero();
    for (int64_t i = 0; i < cols; i += LANES) {
        vfloat v = row_load(x, d.x, i, cols - i);
        if (residual != NULL) {
            row_store(x, d.x, i, v + row_load(residual, d.other, i, cols - i), cols - i);
            v = row_load(x, d.x, i, cols - i); /* as rounded: what the backward pass will read */
        }
        squares += v * v;
    }
    float rstd = 1.0F / sqrtf(simd_sum(squares) / (float)cols + epsilon);
    for (int64_t i = 0; i < cols; i += LANES) {
        vfloat v = row_load(x, d.x, i, cols - i);
        vfloat w = row_load(weight, d.weight, i, cols - i);
        row_store(out, d.out, i, v * rstd * w, cols - i);
    }
    return rstd;
}

void ISA(rmsnorm_forward)(struct device *device, struct tensor out, float *rstd, struct tensor x,
                          const struct tensor *residual, struct tensor weight, float epsilon)
{
    assert(out.rows == x.rows && out.cols == x.cols && weight.cols == x.cols);
    assert(residual == NULL || (residual->rows == x.rows && residual->cols == x.cols));
    if (cpu_failed(device)) {
        return;
    }
    const struct tensor added = residual != NULL ? *residual : x;
    const struct norm_dtypes d = {x.dtype, added.dtype, out.dtype, weight.dtype};
    const bool all_f32 =
        d.x == DTYPE_F32 && d.other == DTYPE_F32 && d.out == DTYPE_F32 && d.weight == DTYPE_F32;
    const bool all_bf16 =
        d.x == DTYPE_BF16 && d.other == DTYPE_BF16 && d.out == DTYPE_BF16 && d.weight == DTYPE_BF16;
    const int team = cpu_team(device, x.rows * x.cols);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < x.rows; r++) {
        const struct norm_dtypes f32 = {DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32};
        const struct norm_dtypes bf16 = {DTYPE_BF16, DTYPE_BF16, DTYPE_BF16, DTYPE_BF16};
        void *o = row_of(&out, r);
        void *v = row_of(&x, r);
        const void *a = residual != NULL ? row_at(&added, r) : NULL;
        float row_rstd;
        if (all_f32) {
            row_rstd = forward_row(f32, o, v, a, weight.data, x.cols, epsilon);
        } else if (all_bf16) {
            row_rstd = forward_row(bf16, o, v, a, weight.data, x.cols, epsilon);
        } else {
            row_rstd = forward_row(d, o, v, a, weight.data, x.cols, epsilon);
        }
        if (rstd != NULL) {
            rstd[r] = row_rstd;
        }
    }
}

/* d_weight (cols) f32 += this row's share, or NULL. */
SIMD_INLINE void backward_row(struct norm_dtypes d, void *d_x, float *d_weight, const void *d_out,
                              const void *x, const void *weight, float rstd, int64_t cols)
{
    vfloat dots = simd_zero();
    for (int64_t i = 0; i < cols; i += LANES) {
        vfloat g = row_load(d_out, d.out, i, cols - i);
        vfloat v = row_load(x, d.x, i, cols - i);
        vfloat g_v = g * v;
        dots += g_v * row_load(weight, d.weight, i, cols - i);
        if (d_weight != NULL) {
            vfloat sum = simd_load_part(d_weight + i, cols - i) + g_v * rstd;
            simd_store_part(d_weight + i, sum, cols - i);
        }
    }
    float pull = simd_sum(dots) / (float)cols * rstd * rstd * rstd;
    for (int64_t i = 0; i < cols; i += LANES) {
        vfloat g = row_load(d_out, d.out, i, cols - i) * row_load(weight, d.weight, i, cols - i);
        vfloat v = row_load(x, d.x, i, cols - i);
        vfloat sum = row_load(d_x, d.other, i, cols - i) + (g * rstd - v * pull);
        row_store(d_x, d.other, i, sum, cols - i);
    }
}

/* The rows of one thread, with its own sum for d_weight (or NULL). */
static void backward_rows(int64_t first, int64_t end, struct tensor d_x, float *d_weight,
                          struct tensor d_out, struct tensor x, struct tensor weight,
                          const float *rstd)
{
    const struct norm_dtypes d = {x.dtype, d_x.dtype, d_out.dtype, weight.dtype};
    const bool all_f32 =
        d.x == DTYPE_F32 && d.other == DTYPE_F32 && d.out == DTYPE_F32 && d.weight == DTYPE_F32;
    for (int64_t r = first; r < end; r++) {
        const struct norm_dtypes f32 = {DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32};
        void *to = row_of(&d_x, r);
        const void *g = row_at(&d_out, r);
        const void *v = row_at(&x, r);
        if (all_f32) {
            backward_row(f32, to, d_weight, g, v, weight.data, rstd[r], x.cols);
        } else {
            backward_row(d, to, d_weight, g, v, weight.data, rstd[r], x.cols);
        }
    }
}

void ISA(rmsnorm_backward)(struct device *device, struct tensor d_x, float *d_weight,
                           struct tensor d_out, struct tensor x, struct tensor weight,
                           const float *rstd)
{
    assert(d_x.rows == x.rows && d_x.cols == x.cols && d_out.rows == x.rows);
    assert(d_out.cols == x.cols && weight.cols == x.cols);
    if (cpu_failed(device)) {
        return;
    }
    const int team = cpu_team(device, x.rows * x.cols);
    float *sums = NULL;
    if (d_weight != NULL) {
        sums = cpu_scratch(device, team * x.cols, sizeof(*sums), "rmsnorm_backward");
        if (sums == NULL) {
            return;
        }
        memset(sums, 0, (size_t)(team * x.cols) * sizeof(*sums));
    }
#pragma omp parallel for num_threads(team) schedule(static)
    for (int part = 0; part < team; part++) {
        backward_rows(x.rows * part / team, x.rows * (part + 1) / team, d_x,
                      sums != NULL ? sums + part * x.cols : NULL, d_out, x, weight, rstd);
    }
    for (int part = 0; part < team && sums != NULL; part++) {
        for (int64_t i = 0; i < x.cols; i++) {
            d_weight[i] += sums[part * x.cols + i];
        }
    }
}
