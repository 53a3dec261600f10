/* Copy, fill, add, scale, gather, scatter: limited by memory alone. */
#include <assert.h>

#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/simd.h"

enum { SPAN = 4096 }; /* numbers that a thread takes at a time */

/* How a matrix is cut for the threads: pieces of rows; one long row if nothing lies between the
 * rows. */
struct cut {
    int64_t rows;
    int64_t cols;
    int64_t pieces; /* a row */
};

static struct cut cut_matrix(const struct tensor *to, const struct tensor *from)
{
    struct cut cut = {to->rows, to->cols, 0};
    if (to->stride == to->cols && (from == NULL || from->stride == from->cols)) {
        cut.rows = 1;
        cut.cols = to->rows * to->cols;
    }
    cut.pieces = (cut.cols + SPAN - 1) / SPAN;
    return cut;
}

enum change { CHANGE_COPY, CHANGE_ADD, CHANGE_SCALE, CHANGE_FILL };

SIMD_INLINE void change_span(enum change change, void *to, enum dtype to_dtype, const void *from,
                             enum dtype from_dtype, int64_t first, int64_t end, float factor)
{
    for (int64_t i = first; i < end; i += LANES) {
        int64_t lanes = end - i;
        vfloat x = simd_set(factor);
        if (change == CHANGE_COPY) {
            x = row_load(from, from_dtype, i, lanes);
        } else if (change == CHANGE_ADD) {
            x = row_load(to, to_dtype, i, lanes) + row_load(from, from_dtype, i, lanes);
        } else if (change == CHANGE_SCALE) {
            x = row_load(to, to_dtype, i, lanes) * factor;
        }
        row_store(to, to_dtype, i, x, lanes);
    }
}

/* from may be NULL for the changes that read none. */
SIMD_INLINE void change_matrix(enum change change, struct device *device, struct tensor to,
                               const struct tensor *from, float factor)
{
    if (cpu_failed(device)) {
        return;
    }
    const struct tensor source = from != NULL ? *from : to;
    const struct cut cut = cut_matrix(&to, from);
    const int64_t jobs = cut.rows * cut.pieces;
    const int team = cpu_team(device, cut.rows * cut.cols);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t job = 0; job < jobs; job++) {
        int64_t row = job / cut.pieces;
        int64_t first = job % cut.pieces * SPAN;
        int64_t end = first + SPAN < cut.cols ? first + SPAN : cut.cols;
        void *t = row_of(&to, row);
        const void *s = row_at(&source, row);
        if (to.dtype == DTYPE_F32 && source.dtype == DTYPE_F32) {
            change_span(change, t, DTYPE_F32, s, DTYPE_F32, first, end, factor);
        } else {
            change_span(change, t, to.dtype, s, source.dtype, first, end, factor);
        }
    }
}

void ISA(copy)(struct device *device, struct tensor to, struct tensor from)
{
    assert(to.rows == from.rows && to.cols == from.cols);
    assert((to.dtype == DTYPE_I32) == (from.dtype == DTYPE_I32));
    if (to.dtype == DTYPE_I32) { /* the same bytes; no operation looks at them as numbers */
        to.dtype = DTYPE_F32;
        from.dtype = DTYPE_F32;
    }
    change_matrix(CHANGE_COPY, device, to, &from, 0.0F);
}

void ISA(fill)(struct device *device, struct tensor to, float value)
{
    assert(to.dtype != DTYPE_I32);
    change_matrix(CHANGE_FILL, device, to, NULL, value);
}

void ISA(add)(struct device *device, struct tensor to, struct tensor from)
{
    assert(to.rows == from.rows && to.cols == from.cols);
    assert(to.dtype != DTYPE_I32 && from.dtype != DTYPE_I32);
    change_matrix(CHANGE_ADD, device, to, &from, 0.0F);
}

void ISA(scale)(struct device *device, struct tensor to, float factor)
{
    assert(to.dtype != DTYPE_I32);
    change_matrix(CHANGE_SCALE, device, to, NULL, factor);
}

/* One after the other: a few thousand losses a batch are not worth a team. */
void ISA(accumulate)(struct device *device, double *total, const float *values, int64_t count)
{
    if (cpu_failed(device)) {
        return;
    }
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)values[i];
    }
    *total += sum;
}

/* Whether all indices are below `rows`; if not, the failure is recorded and nothing may be touched.
 */
static bool check_indices(struct device *device, const char *what, const int32_t *index,
                          int64_t count, int64_t rows)
{
    for (int64_t r = 0; r < count; r++) {
        if (index[r] >= rows) {
            CPU_FAIL(device, STATUS_RANGE, "%s: index %d of row %lld is not below %lld", what,
                     (int)index[r], (long long)r, (long long)rows);
            return false;
        }
    }
    return true;
}

void ISA(gather_rows)(struct device *device, struct tensor to, struct tensor table,
                      const int32_t *index)
{
    assert(to.cols == table.cols && to.dtype != DTYPE_I32 && table.dtype != DTYPE_I32);
    if (cpu_failed(device) || !check_indices(device, "gather_rows", index, to.rows, table.rows)) {
        return;
    }
    const int team = cpu_team(device, to.rows * to.cols);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < to.rows; r++) {
        void *t = row_of(&to, r);
        if (index[r] < 0) {
            memset(t, 0, (size_t)to.cols * dtype_bytes(to.dtype));
        } else if (to.dtype == table.dtype) {
            memcpy(t, row_at(&table, index[r]), (size_t)to.cols * dtype_bytes(to.dtype));
        } else {
            change_span(CHANGE_COPY, t, to.dtype, row_at(&table, index[r]), table.dtype, 0, to.cols,
                        0.0F);
        }
    }
}

/* Each thread owns the table rows that leave its number when divided by the team: a table row is
 * summed by one thread, in the order of `from`, whatever the team. */
void ISA(scatter_add_rows)(struct device *device, struct tensor table, struct tensor from,
                           const int32_t *index)
{
    assert(from.cols == table.cols && table.dtype == DTYPE_F32 && from.dtype != DTYPE_I32);
    if (cpu_failed(device) ||
        !check_indices(device, "scatter_add_rows", index, from.rows, table.rows)) {
        return;
    }
    const int team = cpu_team(device, from.rows * from.cols);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int part = 0; part < team; part++) {
        for (int64_t r = 0; r < from.rows; r++) {
            if (index[r] >= 0 && index[r] % team == part) {
                change_span(CHANGE_ADD, row_of(&table, index[r]), DTYPE_F32, row_at(&from, r),
                            from.dtype, 0, from.cols, 0.0F);
            }
        }
    }
}
