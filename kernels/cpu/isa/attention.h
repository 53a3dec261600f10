/* What attention forward and backward share: small matrix products whose lanes are queries (or head
 * elements), and the staging of rows of either dtype as f32 panels.
 *
 *   "transposed panel" of a block of QUERIES queries: (D, QUERIES), so that one vector holds one
 * element of several queries. Scores of a tile of keys are then (KEYS, QUERIES): maxima and sums
 * over the keys are plain vector operations, and no lane ever meets its neighbour.
 */
#ifndef KERNELS_CPU_ISA_ATTENTION_H
#define KERNELS_CPU_ISA_ATTENTION_H

#include <assert.h>
#include <omp.h>

#include "kernels/cpu/isa/simd.h"
#include "kernels/ops.h"

enum {
    QUERY_VECTORS = 2,
    QUERIES = QUERY_VECTORS * LANES, /* of one block */
    KEYS = 48,                       /* of one tile; a multiple of the rows below */
    /* rows x vectors of accumulators that fit in the registers: 24 of 32, or 12 of 16 */
    ACCUMULATORS = LANES == 16 ? 24 : 12,
    CACHE_LINE_BYTES = 64,
    PREFETCH_ROWS = KEYS, /* the next tile's, while this one is staged */
};

/* c (rows, lanes) = a b, + c if `add`, + c * scale lane by lane if that is given. a (rows, depth)
 * is read number by number, b (depth, lanes) and c by vectors. */
struct panel_product {
    float *c;
    const float *a;
    const float *b;
    const float *scale; /* (lanes), or NULL */
    bool add;
    int64_t c_stride;
    int64_t a_row;  /* from one row of a to the next */
    int64_t a_step; /* from one column of a to the next */
    int64_t b_stride;
    int64_t depth;
};

SIMD_INLINE void panel_multiply_rows(const struct panel_product *p, int64_t first, const int rows,
                                     const int vectors)
{
    vfloat sum[ACCUMULATORS];
    float *c = p->c + first * p->c_stride;
    const float *a = p->a + first * p->a_row;
    const float *b = p->b;
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++) {
            const float *before = c + r * p->c_stride + v * LANES;
            sum[r * vectors + v] = simd_zero();
            if (p->scale != NULL) {
                sum[r * vectors + v] = simd_load(before) * simd_load(p->scale + v * LANES);
            } else if (p->add) {
                sum[r * vectors + v] = simd_load(before);
            }
        }
    }
    for (int64_t k = 0; k < p->depth; k++) {
        vfloat column[4];
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++) {
            column[v] = simd_load(b + v * LANES);
        }
        SIMD_UNROLL
        for (int r = 0; r < rows; r++) {
            vfloat one = simd_set(a[r * p->a_row]);
            SIMD_UNROLL
            for (int v = 0; v < vectors; v++) {
                sum[r * vectors + v] += one * column[v];
            }
        }
        a += p->a_step;
        b += p->b_stride;
    }
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++) {
            simd_store(c + r * p->c_stride + v * LANES, sum[r * vectors + v]);
        }
    }
}

/* All rows: as many at a time as the registers hold, then the rest by fewer. */
SIMD_INLINE void panel_multiply(const struct panel_product *p, int64_t rows, const int vectors)
{
    const int most = ACCUMULATORS / vectors;
    int64_t r = 0;
    for (; r + most <= rows; r += most) {
        panel_multiply_rows(p, r, most, vectors);
    }
    for (; 8 < most && r + 8 <= rows; r += 8) {
        panel_multiply_rows(p, r, 8, vectors);
    }
    for (; r + 4 <= rows; r += 4) {
        panel_multiply_rows(p, r, 4, vectors);
    }
    for (; r < rows; r++) {
        panel_multiply_rows(p, r, 1, vectors);
    }
}

/* Rows lie far apart, where no hardware prefetcher follows: asks for the columns of a row that is
 * needed soon. */
SIMD_INLINE void prefetch_row(const struct tensor *from, int64_t row, int64_t column, int64_t dim)
{
    const int64_t size = (int64_t)dtype_bytes(from->dtype);
    const char *data = (const char *)row_at(from, row) + column * size;
    for (int64_t byte = 0; byte < dim * size; byte += CACHE_LINE_BYTES) {
        __builtin_prefetch(data + byte);
    }
}

SIMD_INLINE void stage_rows_of(float *to, int64_t stride, const struct tensor *from,
                               enum dtype dtype, int64_t first, int64_t count, int64_t column,
                               int64_t dim)
{
    for (int64_t r = 0; r < count; r++) {
        const void *row = row_at(from, first + r);
        if (first + r + PREFETCH_ROWS < from->rows) {
            prefetch_row(from, first + r + PREFETCH_ROWS, column, dim);
        }
        for (int64_t i = 0; i < stride; i += LANES) {
            simd_store(to + r * stride + i, row_load(row, dtype, column + i, dim - i));
        }
    }
}

/* `count` rows of `dim` numbers from column `column` on, as f32; stride is dim rounded up to whole
 * vectors, and the rest of each row becomes 0. */
static inline void stage_rows(float *to, int64_t stride, const struct tensor *from, int64_t first,
                              int64_t count, int64_t column, int64_t dim)
{
    if (from->dtype == DTYPE_F32) {
        stage_rows_of(to, stride, from, DTYPE_F32, first, count, column, dim);
    } else {
        stage_rows_of(to, stride, from, DTYPE_BF16, first, count, column, dim);
    }
}

/* QUERIES staged rows turned into a transposed panel, times `factor`: to (padded dim, QUERIES). */
static inline void transpose_rows(float *to, const float *rows, int64_t stride, float factor)
{
    for (int64_t q = 0; q < QUERIES; q += LANES) {
        for (int64_t i = 0; i < stride; i += LANES) {
            vfloat square[LANES];
            SIMD_UNROLL
            for (int l = 0; l < LANES; l++) {
                square[l] = simd_load(rows + (q + l) * stride + i) * factor;
            }
            simd_transpose(square);
            SIMD_UNROLL
            for (int l = 0; l < LANES; l++) {
                simd_store(to + (i + l) * QUERIES + q, square[l]);
            }
        }
    }
}

/* The way back: columns `column`.. of row `first` + q get panel (padded dim, QUERIES) times
 * factor[q], q < count. */
static inline void store_transposed(const struct tensor *to, int64_t first, int64_t count,
                                    int64_t column, const float *panel, int64_t dim,
                                    const float factor[QUERIES])
{
    for (int64_t q = 0; q < count; q += LANES) {
        for (int64_t i = 0; i < dim; i += LANES) {
            vfloat square[LANES];
            SIMD_UNROLL
            for (int l = 0; l < LANES; l++) {
                square[l] = simd_load(panel + (i + l) * QUERIES + q) * simd_load(factor + q);
            }
            simd_transpose(square);
            for (int64_t l = 0; l < LANES && q + l < count; l++) {
                row_store(row_of(to, first + q + l), to->dtype, column + i, square[l], dim - i);
            }
        }
    }
}

static inline int64_t round_to_lanes(int64_t count)
{
    return (count + LANES - 1) / LANES * LANES;
}

/* -- jobs over packed sequences -- */

#define LOG2_E 1.44269504F
#define LN_2 0.69314718F

static inline void attention_check(const struct tensor *out, const struct tensor *qkv,
                                   const struct attention_shape *shape, const int32_t *starts,
                                   int64_t sequences)
{
    assert(shape->kv_heads > 0 && shape->heads % shape->kv_heads == 0 && shape->head_dim > 0);
    assert(qkv->cols == (shape->heads + 2 * shape->kv_heads) * shape->head_dim);
    assert(out->rows == qkv->rows && out->cols == shape->heads * shape->head_dim);
    assert(sequences == 0 ? qkv->rows == 0 : starts[0] == 0 && starts[sequences] == qkv->rows);
    for (int64_t s = 0; s < sequences; s++) {
        assert(starts[s] <= starts[s + 1]);
    }
    (void)out;
    (void)qkv;
    (void)shape;
    (void)starts;
    (void)sequences;
}

/* Cuts every sequence into pieces of `length` rows: first (S+1) gets the number of pieces before
 * each. Returns all. */
static inline int64_t attention_cut(int64_t *first, const int32_t *starts, int64_t sequences,
                                    int64_t length)
{
    int64_t pieces = 0;
    for (int64_t s = 0; s < sequences; s++) {
        first[s] = pieces;
        pieces += (starts[s + 1] - starts[s] + length - 1) / length;
    }
    first[sequences] = pieces;
    return pieces;
}

/* The sequence that a piece lies in: the last one with first[s] <= piece (empty ones have none). */
static inline int64_t attention_find(const int64_t *first, int64_t sequences, int64_t piece)
{
    int64_t low = 0;
    int64_t high = sequences;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (first[middle] <= piece) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

#endif
