/* out = silu(gate) * up. Source: arXiv 2002.05202.
 * Backward: with s = sigmoid(gate),  d_up = d_out * gate * s,  d_gate = d_out * up * s * (1 + gate
 * * (1 - s)). */
#include <assert.h>

#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/simd.h"

SIMD_INLINE vfloat sigmoid(vfloat x)
{
    return 1.0F / (1.0F + simd_exp(-x));
}

SIMD_INLINE void forward_row(void *out, enum dtype out_dtype, const void *gate_up, enum dtype dtype,
                             int64_t width)
{
    for (int64_t i = 0; i < width; i += LANES) {
        vfloat gate = row_load(gate_up, dtype, i, width - i);
        vfloat up = row_load(gate_up, dtype, width + i, width - i);
        row_store(out, out_dtype, i, gate * sigmoid(gate) * up, width - i);
    }
}

void ISA(swiglu_forward)(struct device *device, struct tensor out, struct tensor gate_up)
{
    assert(gate_up.rows == out.rows && gate_up.cols == 2 * out.cols);
    if (cpu_failed(device)) {
        return;
    }
    const bool all_f32 = out.dtype == DTYPE_F32 && gate_up.dtype == DTYPE_F32;
    const int team = cpu_team(device, 2 * out.rows * out.cols);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < out.rows; r++) {
        void *o = row_of(&out, r);
        const void *g = row_at(&gate_up, r);
        if (all_f32) {
            forward_row(o, DTYPE_F32, g, DTYPE_F32, out.cols);
        } else {
            forward_row(o, out.dtype, g, gate_up.dtype, out.cols);
        }
    }
}

SIMD_INLINE void backward_row(void *d_gate_up, enum dtype d_dtype, const void *d_out,
                              enum dtype out_dtype, const void *gate_up, enum dtype dtype,
                              int64_t width)
{
    for (int64_t i = 0; i < width; i += LANES) {
        vfloat gate = row_load(gate_up, dtype, i, width - i);
        vfloat up = row_load(gate_up, dtype, width + i, width - i);
        vfloat d = row_load(d_out, out_dtype, i, width - i);
        vfloat s = sigmoid(gate);
        row_store(d_gate_up, d_dtype, i, d * up * s * (1.0F + gate * (1.0F - s)), width - i);
        row_store(d_gate_up, d_dtype, width + i, d * gate * s, width - i);
    }
}

void ISA(swiglu_backward)(struct device *device, struct tensor d_gate_up, struct tensor d_out,
                          struct tensor gate_up)
{
    assert(gate_up.rows == d_out.rows && gate_up.cols == 2 * d_out.cols);
    assert(d_gate_up.rows == gate_up.rows && d_gate_up.cols == gate_up.cols);
    if (cpu_failed(device)) {
        return;
    }
    const bool all_f32 =
        d_gate_up.dtype == DTYPE_F32 && d_out.dtype == DTYPE_F32 && gate_up.dtype == DTYPE_F32;
    const int team = cpu_team(device, 4 * d_out.rows * d_out.cols);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < d_out.rows; r++) {
        void *to = row_of(&d_gate_up, r);
        const void *d = row_at(&d_out, r);
        const void *g = row_at(&gate_up, r);
        if (all_f32) {
            backward_row(to, DTYPE_F32, d, DTYPE_F32, g, DTYPE_F32, d_out.cols);
        } else {
            backward_row(to, d_gate_up.dtype, d, d_out.dtype, g, gate_up.dtype, d_out.cols);
        }
    }
}
