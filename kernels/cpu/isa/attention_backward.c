/* Gradient of causal attention over packed sequences, recomputing the weights tile by tile. Source:
 * arXiv 2307.08691.
 *
 *   P = exp(scale Q K' - log_sum_exp)     dV = P' dO
 *   dS = P (dO V' - delta) scale          dK = dS' Q          dQ = dS K          delta = sum over D
 * of dO * O
 *
 * A job is a range of keys and a range of queries of one sequence and one key/value head, with all
 * of its query heads; it owns the rows of d_qkv that it writes, so nothing depends on the order in
 * which jobs run. Where there are heads enough for every thread, one job takes the whole sequence.
 * Else the keys and the queries are cut into separate jobs, at the price of computing P twice. */
#include <math.h>

#include "kernels/cpu/isa/attention.h"
#include "kernels/cpu/isa/isa.h"

enum {
    CUT_ROWS = 192
}; /* rows of a job where sequences are cut; a multiple of KEYS and of QUERIES */

struct backward {
    struct tensor d_qkv;
    struct tensor d_out;
    struct tensor qkv;
    struct tensor out;
    const float *log_sum_exp; /* (H,N) */
    const struct attention_shape *shape;
    const int32_t *starts;
    int64_t padded_dim; /* D rounded up to whole vectors */
};

/* One thread's working memory. */
struct backward_memory {
    float *query_rows;  /* (QUERIES, padded D) */
    float *d_out_rows;  /* (QUERIES, padded D) */
    float *query;       /* (D, QUERIES), scaled to units of log 2 */
    float *d_out;       /* (D, QUERIES) */
    float *d_query;     /* (D, QUERIES) */
    float *weights;     /* (KEYS, QUERIES), P */
    float *d_scores;    /* (KEYS, QUERIES), dP and then dS */
    float *log_sum_exp; /* (QUERIES), in units of log 2; infinite for lanes without a query: their P
                           is 0 */
    float *delta;       /* (QUERIES) */
    float *keys;        /* (keys of the longest job, padded D) and the next three likewise */
    float *values;
    float *d_keys;
    float *d_values;
};

static int64_t backward_memory_floats(int64_t padded_dim, int64_t most_keys)
{
    return 5 * QUERIES * padded_dim + 2 * KEYS * QUERIES + 2 * QUERIES + 4 * most_keys * padded_dim;
}

static struct backward_memory backward_memory_at(float *memory, int64_t padded_dim,
                                                 int64_t most_keys)
{
    struct backward_memory m;
    m.query_rows = memory;
    m.d_out_rows = m.query_rows + QUERIES * padded_dim;
    m.query = m.d_out_rows + QUERIES * padded_dim;
    m.d_out = m.query + QUERIES * padded_dim;
    m.d_query = m.d_out + QUERIES * padded_dim;
    m.weights = m.d_query + QUERIES * padded_dim;
    m.d_scores = m.weights + KEYS * QUERIES;
    m.log_sum_exp = m.d_scores + KEYS * QUERIES;
    m.delta = m.log_sum_exp + QUERIES;
    m.keys = m.delta + QUERIES;
    m.values = m.keys + most_keys * padded_dim;
    m.d_keys = m.values + most_keys * padded_dim;
    m.d_values = m.d_keys + most_keys * padded_dim;
    return m;
}

struct backward_job {
    int64_t start; /* row of the sequence */
    int64_t kv_head;
    int64_t first_key; /* positions in the sequence */
    int64_t end_key;
    int64_t first_query;
    int64_t end_query;
    bool want_keys;    /* writes the gradients of its keys and values */
    bool want_queries; /* writes the gradients of its queries */
};

/* Queries of one head that are in work, at most QUERIES. */
struct query_block {
    int64_t head;
    int64_t first; /* position in the sequence */
    int64_t count;
};

static void begin_block(const struct backward *b, const struct backward_memory *m,
                        const struct backward_job *job, const struct query_block *block)
{
    const int64_t dim = b->shape->head_dim;
    const int64_t column = block->head * dim;
    const int64_t row = job->start + block->first;
    memset(m->query_rows, 0, (size_t)(2 * QUERIES * b->padded_dim) * sizeof(float));
    stage_rows(m->query_rows, b->padded_dim, &b->qkv, row, block->count, column, dim);
    stage_rows(m->d_out_rows, b->padded_dim, &b->d_out, row, block->count, column, dim);
    transpose_rows(m->query, m->query_rows, b->padded_dim, b->shape->scale * LOG2_E);
    transpose_rows(m->d_out, m->d_out_rows, b->padded_dim, 1.0F);
    memset(m->d_query, 0, (size_t)(b->padded_dim * QUERIES) * sizeof(float));
    for (int64_t q = 0; q < QUERIES; q++) {
        m->log_sum_exp[q] = INFINITY;
        m->delta[q] = 0.0F;
    }
    for (int64_t q = 0; q < block->count; q++) {
        const void *out = row_at(&b->out, row + q);
        vfloat sum = simd_zero();
        for (int64_t i = 0; i < dim; i += LANES) {
            sum += row_load(out, b->out.dtype, column + i, dim - i) *
                   simd_load(m->d_out_rows + q * b->padded_dim + i);
        }
        m->delta[q] = simd_sum(sum);
        m->log_sum_exp[q] = b->log_sum_exp[block->head * b->qkv.rows + row + q] * LOG2_E;
    }
}

/* P and dS of `keys` keys, the first of which is number first_key; 0 where a key lies ahead of the
 * query. */
static void weigh_tile(const struct backward *b, const struct backward_memory *m,
                       const struct query_block *block, int64_t first_key, int64_t keys)
{
    for (int64_t j = 0; j < keys; j++) {
        const int32_t ahead = (int32_t)(first_key + j - block->first);
        for (int v = 0; v < QUERY_VECTORS; v++) {
            float *p = m->weights + j * QUERIES + v * LANES;
            float *d = m->d_scores + j * QUERIES + v * LANES;
            vfloat weight = simd_exp2_score(simd_load(p) - simd_load(m->log_sum_exp + v * LANES));
            if (ahead > 0) {
                weight = simd_select(simd_lane_index() + v * LANES >= ahead, weight, simd_zero());
            }
            simd_store(p, weight);
            simd_store(d,
                       weight * (simd_load(d) - simd_load(m->delta + v * LANES)) * b->shape->scale);
        }
    }
}

/* c (rows, padded D) += a (rows, QUERIES) b (QUERIES, padded D), by column panels of up to three
 * vectors. */
static void add_over_queries(float *c, const float *a, const float *b, int64_t rows,
                             int64_t padded_dim)
{
    struct panel_product product = {
        .c = c,
        .a = a,
        .b = b,
        .add = true,
        .c_stride = padded_dim,
        .a_row = QUERIES,
        .a_step = 1,
        .b_stride = padded_dim,
        .depth = QUERIES,
    };
    int64_t left = padded_dim / LANES;
    while (left > 0) {
        int64_t vectors = left == 4 || left == 2 ? 2 : left == 1 ? 1 : 3;
        if (vectors == 3) {
            panel_multiply(&product, rows, 3);
        } else if (vectors == 2) {
            panel_multiply(&product, rows, 2);
        } else {
            panel_multiply(&product, rows, 1);
        }
        product.c += vectors * LANES;
        product.b += vectors * LANES;
        left -= vectors;
    }
}

/* One tile of keys against the block in work. */
static void backward_tile(const struct backward *b, const struct backward_memory *m,
                          const struct backward_job *job, const struct query_block *block,
                          int64_t first_key, int64_t keys)
{
    const int64_t dim = b->shape->head_dim;
    const int64_t offset = (first_key - job->first_key) * b->padded_dim;
    struct panel_product product = {
        .c = m->weights,
        .a = m->keys + offset,
        .b = m->query,
        .c_stride = QUERIES,
        .a_row = b->padded_dim,
        .a_step = 1,
        .b_stride = QUERIES,
        .depth = dim,
    };
    panel_multiply(&product, keys, QUERY_VECTORS);
    product.c = m->d_scores;
    product.a = m->values + offset;
    product.b = m->d_out;
    panel_multiply(&product, keys, QUERY_VECTORS);
    weigh_tile(b, m, block, first_key, keys);
    if (job->want_keys) {
        add_over_queries(m->d_values + offset, m->weights, m->d_out_rows, keys, b->padded_dim);
        add_over_queries(m->d_keys + offset, m->d_scores, m->query_rows, keys, b->padded_dim);
    }
    if (job->want_queries) {
        product.c = m->d_query;
        product.a = m->keys + offset;
        product.b = m->d_scores;
        product.add = true;
        product.a_row = 1;
        product.a_step = b->padded_dim;
        product.depth = keys;
        panel_multiply(&product, dim, QUERY_VECTORS);
    }
}

static void finish_block(const struct backward *b, const struct backward_memory *m,
                         const struct backward_job *job, const struct query_block *block)
{
    float ones[QUERIES];
    for (int64_t q = 0; q < QUERIES; q++) {
        ones[q] = 1.0F;
    }
    store_transposed(&b->d_qkv, job->start + block->first, block->count,
                     block->head * b->shape->head_dim, m->d_query, b->shape->head_dim, ones);
}

/* Gradients of the job's keys or values: rows (keys, padded D) to column `column` of d_qkv. */
static void store_rows(const struct backward *b, const struct backward_job *job, const float *rows,
                       int64_t column)
{
    const int64_t dim = b->shape->head_dim;
    for (int64_t key = job->first_key; key < job->end_key; key++) {
        void *to = row_of(&b->d_qkv, job->start + key);
        const float *from = rows + (key - job->first_key) * b->padded_dim;
        for (int64_t i = 0; i < dim; i += LANES) {
            row_store(to, b->d_qkv.dtype, column + i, simd_load(from + i), dim - i);
        }
    }
}

static void backward_block(const struct backward *b, const struct backward_memory *m,
                           const struct backward_job *job, const struct query_block *block)
{
    int64_t end = block->first + block->count; /* later keys are seen by no query of the block */
    end = end < job->end_key ? end : job->end_key;
    begin_block(b, m, job, block);
    for (int64_t key = job->first_key; key < end; key += KEYS) {
        backward_tile(b, m, job, block, key, end - key < KEYS ? end - key : KEYS);
    }
    if (job->want_queries) {
        finish_block(b, m, job, block);
    }
}

static void run_job(const struct backward *b, const struct backward_memory *m,
                    const struct backward_job *job)
{
    const struct attention_shape *shape = b->shape;
    const int64_t dim = shape->head_dim;
    const int64_t group = shape->heads / shape->kv_heads;
    const int64_t key_column = (shape->heads + job->kv_head) * dim;
    const int64_t value_column = key_column + shape->kv_heads * dim;
    const int64_t keys = job->end_key - job->first_key;
    const int64_t row = job->start + job->first_key;

    stage_rows(m->keys, b->padded_dim, &b->qkv, row, keys, key_column, dim);
    stage_rows(m->values, b->padded_dim, &b->qkv, row, keys, value_column, dim);
    if (job->want_keys) {
        memset(m->d_keys, 0, (size_t)(keys * b->padded_dim) * sizeof(float));
        memset(m->d_values, 0, (size_t)(keys * b->padded_dim) * sizeof(float));
    }
    for (int64_t h = 0; h < group; h++) {
        for (int64_t query = job->first_query; query < job->end_query; query += QUERIES) {
            int64_t left = job->end_query - query;
            const struct query_block block = {job->kv_head * group + h, query,
                                              left < QUERIES ? left : QUERIES};
            backward_block(b, m, job, &block);
        }
    }
    if (job->want_keys) {
        store_rows(b, job, m->d_keys, key_column);
        store_rows(b, job, m->d_values, value_column);
    }
}

/* Job number `number` of those that compute whole sequences at once, or of a pass over pieces of
 * them. */
static struct backward_job job_of(const struct backward *b, const int64_t *first_piece,
                                  int64_t sequences, int64_t number, bool cut, bool want_keys)
{
    const int64_t piece = number / b->shape->kv_heads;
    const int64_t sequence = attention_find(first_piece, sequences, piece);
    const int64_t length = b->starts[sequence + 1] - b->starts[sequence];
    const int64_t first = cut ? (piece - first_piece[sequence]) * CUT_ROWS : 0;
    const int64_t end = cut && first + CUT_ROWS < length ? first + CUT_ROWS : length;
    struct backward_job job = {
        .start = b->starts[sequence],
        .kv_head = number % b->shape->kv_heads,
        .end_key = end,
        .end_query = end,
        .want_keys = want_keys,
        .want_queries = !cut || !want_keys,
    };
    if (cut && want_keys) { /* these keys, and every query that sees them */
        job.first_key = first;
        job.first_query = first;
        job.end_query = length;
    } else if (cut) { /* these queries, and every key that they see */
        job.first_query = first;
    }
    return job;
}

static int64_t longest_sequence(const int32_t *starts, int64_t sequences)
{
    int64_t longest = 0;
    for (int64_t s = 0; s < sequences; s++) {
        longest = starts[s + 1] - starts[s] > longest ? starts[s + 1] - starts[s] : longest;
    }
    return longest;
}

void ISA(attention_backward)(struct device *device, struct tensor d_qkv, struct tensor d_out,
                             struct tensor qkv, struct tensor out, const float *log_sum_exp,
                             const struct attention_shape *shape, const int32_t *starts,
                             int64_t sequences)
{
    const struct backward b = {d_qkv,       d_out, qkv,    out,
                               log_sum_exp, shape, starts, round_to_lanes(shape->head_dim)};
    attention_check(&out, &qkv, shape, starts, sequences);
    attention_check(&d_out, &d_qkv, shape, starts, sequences);
    if (cpu_failed(device) || qkv.rows == 0) {
        return;
    }
    const int team = cpu_team(device, qkv.rows * qkv.cols);
    const int64_t most_keys = longest_sequence(starts, sequences);
    const int64_t memory_floats = round_to_lanes(backward_memory_floats(b.padded_dim, most_keys));
    float *memory = cpu_scratch(device, team * memory_floats + 2 * (sequences + 1), sizeof(*memory),
                                "attention_backward");
    if (memory == NULL) {
        return;
    }
    int64_t *first_piece = (int64_t *)(void *)(memory + team * memory_floats);
    const bool cut = team > 1 && sequences * shape->kv_heads < 2 * team && most_keys > CUT_ROWS;
    const int64_t pieces =
        attention_cut(first_piece, starts, sequences, cut ? CUT_ROWS : most_keys);
    const int64_t jobs = pieces * shape->kv_heads;
#pragma omp parallel num_threads(team)
    {
        const struct backward_memory m = backward_memory_at(
            memory + omp_get_thread_num() * memory_floats, b.padded_dim, most_keys);
#pragma omp for schedule(dynamic, 1)
        for (int64_t number = 0; number < (cut ? 2 * jobs : jobs); number++) {
            const bool want_keys = !cut || number < jobs;
            const struct backward_job job = job_of(
                &b, first_piece, sequences, want_keys ? number : number - jobs, cut, want_keys);
            run_job(&b, &m, &job);
        }
    }
}
