/* Causal attention over packed sequences without a T x T matrix. Source: arXiv 2307.08691.
 *
 * A job is one head of some hundred queries of one sequence. It walks over the keys by tiles that
 * fit in the nearest cache, and keeps for each query the largest score so far, the sum of the
 * weights and the weighted values. */
#include <assert.h>
#include <math.h>

#include "kernels/cpu/isa/attention.h"
#include "kernels/cpu/isa/isa.h"

enum { JOB_QUERIES = 128, JOB_BLOCKS = JOB_QUERIES / QUERIES };

struct forward {
    struct tensor out;
    float *log_sum_exp; /* (H,N) or NULL */
    struct tensor qkv;
    const struct attention_shape *shape;
    const int32_t *starts;
    int64_t padded_dim; /* D rounded up to whole vectors */
};

/* One thread's working memory. Scores are in units of log 2. */
struct forward_memory {
    float *keys;    /* (KEYS, padded D), of the tile */
    float *values;  /* (KEYS, padded D) */
    float *weights; /* (KEYS, QUERIES), scores and then exp2 of them */
    float *rows;    /* (QUERIES, padded D) */
    float *query;   /* (JOB_BLOCKS, D, QUERIES) */
    float *sum;     /* (JOB_BLOCKS, D, QUERIES), of the weighted values */
    float *top;     /* (JOB_BLOCKS, QUERIES), largest score */
    float *total;   /* (JOB_BLOCKS, QUERIES), of the weights */
};

static int64_t forward_memory_floats(int64_t padded_dim)
{
    return 2 * KEYS * padded_dim + KEYS * QUERIES + QUERIES * padded_dim +
           2 * JOB_BLOCKS * padded_dim * QUERIES + 2 * JOB_BLOCKS * QUERIES;
}

static struct forward_memory forward_memory_at(float *memory, int64_t padded_dim)
{
    struct forward_memory m;
    m.keys = memory;
    m.values = m.keys + KEYS * padded_dim;
    m.weights = m.values + KEYS * padded_dim;
    m.rows = m.weights + KEYS * QUERIES;
    m.query = m.rows + QUERIES * padded_dim;
    m.sum = m.query + JOB_BLOCKS * padded_dim * QUERIES;
    m.top = m.sum + JOB_BLOCKS * padded_dim * QUERIES;
    m.total = m.top + JOB_BLOCKS * QUERIES;
    return m;
}

/* The part of a job that is one block: up to QUERIES queries. */
struct block {
    int64_t first;      /* query, counted from the start of the sequence */
    const float *query; /* (D, QUERIES), scaled */
    float *sum;         /* (D, QUERIES) */
    float *top;         /* (QUERIES) */
    float *total;       /* (QUERIES) */
};

/* Scores of `keys` staged keys, the first of which is number first_key; minus infinity where a key
 * lies ahead. */
static void score_tile(const struct forward_memory *m, const struct block *block, int64_t dim,
                       int64_t padded_dim, int64_t first_key, int64_t keys)
{
    const struct panel_product scores = {
        .c = m->weights,
        .a = m->keys,
        .b = block->query,
        .c_stride = QUERIES,
        .a_row = padded_dim,
        .a_step = 1,
        .b_stride = QUERIES,
        .depth = dim,
    };
    panel_multiply(&scores, keys, QUERY_VECTORS);
    int64_t first_masked = block->first + 1 > first_key ? block->first + 1 - first_key : 0;
    for (int64_t j = first_masked; j < keys; j++) {
        float *row = m->weights + j * QUERIES;
        int32_t ahead = (int32_t)(first_key + j - block->first); /* queries below it do not see j */
        for (int v = 0; v < QUERY_VECTORS; v++) {
            vint seen = simd_lane_index() + v * LANES >= ahead;
            simd_store(row + v * LANES,
                       simd_select(seen, simd_load(row + v * LANES), simd_set(-INFINITY)));
        }
    }
}

/* Scores become weights relative to the new top; `shrink` (QUERIES) is what earlier sums must be
 * multiplied by. */
static void weigh_tile(const struct forward_memory *m, const struct block *block, int64_t keys,
                       float shrink[QUERIES])
{
    for (int v = 0; v < QUERY_VECTORS; v++) {
        float *column = m->weights + v * LANES;
        vfloat before = simd_load(block->top + v * LANES);
        vfloat top = before;
        for (int64_t j = 0; j < keys; j++) {
            top = simd_max(top, simd_load(column + j * QUERIES));
        }
        vfloat total = simd_zero();
        for (int64_t j = 0; j < keys; j++) {
            vfloat weight = simd_exp2_score(simd_load(column + j * QUERIES) - top);
            simd_store(column + j * QUERIES, weight);
            total += weight;
        }
        vfloat factor =
            simd_exp2_score(before - top); /* 0 for the first tile, where before is -infinity */
        simd_store(shrink + v * LANES, factor);
        simd_store(block->top + v * LANES, top);
        simd_store(block->total + v * LANES, simd_load(block->total + v * LANES) * factor + total);
    }
}

static void attend_tile(const struct forward_memory *m, const struct block *block, int64_t dim,
                        int64_t padded_dim, int64_t first_key, int64_t keys)
{
    float shrink[QUERIES];
    score_tile(m, block, dim, padded_dim, first_key, keys);
    weigh_tile(m, block, keys, shrink);
    const struct panel_product weighted = {
        .c = block->sum,
        .a = m->values,
        .b = m->weights,
        .scale = shrink,
        .c_stride = QUERIES,
        .a_row = 1,
        .a_step = padded_dim,
        .b_stride = QUERIES,
        .depth = keys,
    };
    panel_multiply(&weighted, dim, QUERY_VECTORS);
}

static struct block block_of(const struct forward_memory *m, int64_t number, int64_t first_query,
                             int64_t padded_dim)
{
    return (struct block){
        .first = first_query + number * QUERIES,
        .query = m->query + number * padded_dim * QUERIES,
        .sum = m->sum + number * padded_dim * QUERIES,
        .top = m->top + number * QUERIES,
        .total = m->total + number * QUERIES,
    };
}

static void begin_blocks(const struct forward *f, const struct forward_memory *m, int64_t head,
                         int64_t start, int64_t first_query, int64_t count)
{
    const int64_t dim = f->shape->head_dim;
    for (int64_t done = 0; done < count; done += QUERIES) {
        int64_t number = done / QUERIES;
        int64_t rows = count - done < QUERIES ? count - done : QUERIES;
        memset(m->rows, 0, (size_t)(QUERIES * f->padded_dim) * sizeof(float));
        stage_rows(m->rows, f->padded_dim, &f->qkv, start + first_query + done, rows, head * dim,
                   dim);
        transpose_rows(m->query + number * f->padded_dim * QUERIES, m->rows, f->padded_dim,
                       f->shape->scale * LOG2_E);
        memset(m->sum + number * f->padded_dim * QUERIES, 0,
               (size_t)(f->padded_dim * QUERIES) * sizeof(float));
        for (int64_t q = 0; q < QUERIES; q++) {
            m->top[number * QUERIES + q] = -INFINITY;
            m->total[number * QUERIES + q] = 0.0F;
        }
    }
}

static void finish_blocks(const struct forward *f, const struct forward_memory *m, int64_t head,
                          int64_t start, int64_t first_query, int64_t count)
{
    const int64_t dim = f->shape->head_dim;
    for (int64_t done = 0; done < count; done += QUERIES) {
        struct block block = block_of(m, done / QUERIES, first_query, f->padded_dim);
        int64_t rows = count - done < QUERIES ? count - done : QUERIES;
        int64_t row = start + first_query + done;
        float inverse[QUERIES];
        for (int64_t q = 0; q < QUERIES; q++) {
            inverse[q] = 1.0F / block.total[q];
        }
        store_transposed(&f->out, row, rows, head * dim, block.sum, dim, inverse);
        for (int64_t q = 0; q < rows && f->log_sum_exp != NULL; q++) {
            f->log_sum_exp[head * f->qkv.rows + row + q] =
                block.top[q] * LN_2 + logf(block.total[q]);
        }
    }
}

/* `count` queries of a sequence that starts at row `start`. */
static void forward_job(const struct forward *f, const struct forward_memory *m, int64_t head,
                        int64_t start, int64_t first_query, int64_t count)
{
    const struct attention_shape *shape = f->shape;
    const int64_t dim = shape->head_dim;
    const int64_t kv_head = head / (shape->heads / shape->kv_heads);
    const int64_t key_column = (shape->heads + kv_head) * dim;
    const int64_t value_column = key_column + shape->kv_heads * dim;

    begin_blocks(f, m, head, start, first_query, count);
    for (int64_t key = 0; key < first_query + count; key += KEYS) {
        int64_t left = first_query + count - key;
        int64_t keys = left < KEYS ? left : KEYS;
        stage_rows(m->keys, f->padded_dim, &f->qkv, start + key, keys, key_column, dim);
        stage_rows(m->values, f->padded_dim, &f->qkv, start + key, keys, value_column, dim);
        for (int64_t done = 0; done < count; done += QUERIES) {
            struct block block = block_of(m, done / QUERIES, first_query, f->padded_dim);
            int64_t seen = block.first + QUERIES - key; /* keys that any query of the block sees */
            if (seen > 0) {
                attend_tile(m, &block, dim, f->padded_dim, key, seen < keys ? seen : keys);
            }
        }
    }
    finish_blocks(f, m, head, start, first_query, count);
}

void ISA(attention_forward)(struct device *device, struct tensor out, float *log_sum_exp,
                            struct tensor qkv, const struct attention_shape *shape,
                            const int32_t *starts, int64_t sequences)
{
    const struct forward f = {out,   log_sum_exp, qkv,
                              shape, starts,      round_to_lanes(shape->head_dim)};
    attention_check(&out, &qkv, shape, starts, sequences);
    if (cpu_failed(device) || qkv.rows == 0) {
        return;
    }
    const int64_t memory_floats = round_to_lanes(forward_memory_floats(f.padded_dim));
    const int team = cpu_team(device, qkv.rows * qkv.cols);
    float *memory = cpu_scratch(device, team * memory_floats + 2 * (sequences + 1), sizeof(*memory),
                                "attention_forward");
    if (memory == NULL) {
        return;
    }
    int64_t *first_job = (int64_t *)(void *)(memory + team * memory_floats);
    const int64_t jobs = attention_cut(first_job, starts, sequences, JOB_QUERIES) * shape->heads;
#pragma omp parallel num_threads(team)
    {
        const struct forward_memory m =
            forward_memory_at(memory + omp_get_thread_num() * memory_floats, f.padded_dim);
#pragma omp for schedule(dynamic, 1)
        for (int64_t job = jobs - 1; job >= 0; job--) { /* the longest first */
            int64_t piece = job / shape->heads;
            int64_t sequence = attention_find(first_job, sequences, piece);
            int64_t first_query = (piece - first_job[sequence]) * JOB_QUERIES;
            int64_t left = starts[sequence + 1] - starts[sequence] - first_query;
            forward_job(&f, &m, job % shape->heads, starts[sequence], first_query,
                        left < JOB_QUERIES ? left : JOB_QUERIES);
        }
    }
}
