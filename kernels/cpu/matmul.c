#include "kernels/cpu/matmul.h"

#include <assert.h>

void cpu_matmul(struct device *device, struct tensor c, struct tensor a, bool transpose_a,
                struct tensor b, bool transpose_b, float alpha, float beta)
{
    const int64_t depth = transpose_a ? a.rows : a.cols;
    assert((transpose_a ? a.cols : a.rows) == c.rows && (transpose_b ? b.rows : b.cols) == c.cols);
    assert((transpose_b ? b.cols : b.rows) == depth && a.dtype == b.dtype);
    assert(a.dtype != DTYPE_I32 && (c.dtype == DTYPE_F32 || c.dtype == a.dtype));
    if (cpu_failed(device) || c.rows == 0 || c.cols == 0) {
        return;
    }
    if (depth == 0 && beta == 0.0F) {
        device->ops->fill(device, c, 0.0F);
        return;
    }
    if (depth == 0) {
        device->ops->scale(device, c, beta);
        return;
    }
    const struct product product = {c, a, b, depth, transpose_a, transpose_b, alpha, beta};
    struct error err = {0};
    const enum status status = matmul_run(device, &product, &err);
    if (status != STATUS_OK) {
        CPU_FAIL(device, status, "%s", err.message);
    }
}

void cpu_low_rank_add(struct device *device, struct tensor y, struct tensor u,
                      const struct low_rank_part *parts, int count, float scale)
{
    assert(count >= 1 && count <= LOW_RANK_PARTS_MAX);
    for (int i = 0; i < count; i++) {
        const struct low_rank_part *part = &parts[i];
        assert(part->first >= 0 && part->first + part->b.rows <= y.cols);
        assert(part->first_inner >= 0 && part->first_inner + part->b.cols <= u.cols);
        cpu_matmul(device, tensor_cols(y, part->first, part->b.rows),
                   tensor_cols(u, part->first_inner, part->b.cols), false, part->b, true, scale,
                   1.0F);
    }
}

bool cpu_fast_bf16(struct device *device)
{
    return matmul_fast_bf16(&cpu_of(device)->features);
}
