/* The next token of each sequence from its logits.
 *
 * Greedy is the largest logit, the lowest id on ties. Else a token is drawn by inverting the
 * distribution function in the order of the ids: the first id at which the sum of the kept weights
 * exceeds uniform * their total. What is kept: the top_k greatest logits (lower ids first among
 * equals), and of these the fewest that together reach top_p of their total, the greatest first.
 * Sums are f64. */
#include <assert.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/simd.h"

static int32_t find_greatest(const void *row, enum dtype dtype, int64_t cols)
{
    vfloat tops = simd_set(-INFINITY);
    for (int64_t i = 0; i < cols; i += LANES) {
        vfloat x = row_load(row, dtype, i, cols - i);
        if (cols - i < LANES) {
            x = simd_select(simd_lane_index() < (int32_t)(cols - i), x, tops);
        }
        tops = simd_max(x, tops); /* NaN: tops stay */
    }
    const float top = simd_max_lane(tops);
    for (int64_t i = 0; i < cols; i += LANES) {
        if (simd_any(row_load(row, dtype, i, cols - i) == top)) {
            for (int64_t l = i; l < cols && l < i + LANES; l++) {
                if (row_get(row, dtype, l) == top) {
                    return (int32_t)l;
                }
            }
        }
    }
    return 0; /* nothing but NaN */
}

/* -- drawing -- */

struct candidate {
    float logit;
    float weight; /* exp((logit - greatest) / temperature) */
    int32_t id;
};

/* One row in work. */
struct draw {
    const void *row;
    enum dtype dtype;
    int64_t cols;
    float top; /* the greatest logit */
    const struct sampling *sampling;
    struct candidate *candidates; /* (V) */
    float *maxima;                /* (V) */
};

static int compare_floats_down(const void *a, const void *b)
{
    const float x = *(const float *)a;
    const float y = *(const float *)b;
    return (x < y) - (x > y);
}

static int compare_candidates(const void *a,
                              const void *b) /* greater logits first, then lower ids */
{
    const struct candidate *x = a;
    const struct candidate *y = b;
    if (x->logit != y->logit) {
        return x->logit > y->logit ? -1 : 1;
    }
    return (x->id > y->id) - (x->id < y->id);
}

static int compare_ids(const void *a, const void *b)
{
    const struct candidate *x = a;
    const struct candidate *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* A logit that at least `count` logits reach: the count-th greatest of the maxima of twice as many
 * groups. */
static float find_floor(const struct draw *d, int64_t count)
{
    const int64_t vectors = (2 * count + LANES - 1) / LANES; /* each lane of each is a group */
    if (2 * vectors * LANES > d->cols) {
        return -INFINITY; /* hardly fewer groups than logits */
    }
    for (int64_t i = 0; i < vectors * LANES; i++) {
        d->maxima[i] = -INFINITY;
    }
    for (int64_t first = 0; first + LANES <= d->cols; first += vectors * LANES) {
        for (int64_t v = 0; v < vectors && first + (v + 1) * LANES <= d->cols; v++) {
            vfloat x = row_load(d->row, d->dtype, first + v * LANES, LANES);
            float *top = d->maxima + v * LANES;
            simd_store(top, simd_max(x, simd_load(top))); /* NaN: top stays */
        }
    }
    qsort(d->maxima, (size_t)(vectors * LANES), sizeof(float), compare_floats_down);
    return d->maxima[count - 1];
}

/* The logits of at least `floor`, in the order of the ids. */
static int64_t collect(const struct draw *d, float floor)
{
    int64_t count = 0;
    const float inverse = 1.0F / d->sampling->temperature;
    for (int64_t i = 0; i < d->cols; i += LANES) {
        const vfloat x = row_load(d->row, d->dtype, i, d->cols - i);
        const int64_t lanes = d->cols - i < LANES ? d->cols - i : LANES;
        if (lanes == LANES && !simd_any(x >= floor)) {
            continue;
        }
        const vfloat weight = simd_exp((x - d->top) * inverse);
        for (int64_t l = 0; l < lanes; l++) {
            if (x[l] >= floor) {
                d->candidates[count++] = (struct candidate){x[l], weight[l], (int32_t)(i + l)};
            }
        }
    }
    return count;
}

static double sum_weights(const struct candidate *candidates, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)candidates[i].weight;
    }
    return sum;
}

/* How many of the sorted candidates it takes to weigh `wanted`; at least one if there is one. */
static int64_t count_nucleus(const struct candidate *candidates, int64_t count, double wanted)
{
    double sum = 0.0;
    int64_t kept = 0;
    while (kept < count && (kept == 0 || sum < wanted)) {
        sum += (double)candidates[kept++].weight;
    }
    return kept;
}

/* Drops the candidates that weigh less than `least`. */
static int64_t drop_lightest(struct candidate *candidates, int64_t count, double least)
{
    int64_t left = 0;
    for (int64_t i = 0; i < count; i++) {
        if ((double)candidates[i].weight >= least) {
            candidates[left++] = candidates[i];
        }
    }
    return left;
}

/* Fills the candidates with those that top_k and top_p keep, in the order of the ids. */
static int64_t keep_likeliest(const struct draw *d)
{
    const struct sampling *sampling = d->sampling;
    const double top_p = (double)sampling->top_p;
    const bool few = sampling->top_k > 0 && sampling->top_k < d->cols;
    int64_t count = collect(d, few ? find_floor(d, sampling->top_k) : -INFINITY);
    if (!few && top_p >= 1.0) {
        return count;
    }
    double total = 0.0;
    if (!few) { /* what weighs less than the mean of the part to drop is in that part: no need to
                   sort it */
        total = sum_weights(d->candidates, count);
        count =
            drop_lightest(d->candidates, count, 0.999 * (1.0 - top_p) * total / (double)d->cols);
    }
    qsort(d->candidates, (size_t)count, sizeof(*d->candidates), compare_candidates);
    if (few) {
        count = sampling->top_k < count ? sampling->top_k : count;
        total = sum_weights(d->candidates, count);
    }
    if (top_p < 1.0) {
        count = count_nucleus(d->candidates, count, top_p * total);
    }
    qsort(d->candidates, (size_t)count, sizeof(*d->candidates), compare_ids);
    return count;
}

static int32_t draw_token(struct draw *d, float uniform)
{
    int32_t token = find_greatest(d->row, d->dtype, d->cols);
    d->top = row_get(d->row, d->dtype, token);
    const int64_t count = keep_likeliest(d);
    const double wanted = (double)uniform * sum_weights(d->candidates, count);
    double sum = 0.0;
    for (int64_t i = 0; i < count && !(sum > wanted); i++) {
        if (d->candidates[i].weight >
            0.0F) { /* rounding may leave the last one of these for the end */
            sum += (double)d->candidates[i].weight;
            token = d->candidates[i].id;
        }
    }
    return token;
}

static void sample_greedy(struct device *device, int32_t *token, const struct tensor *logits)
{
    const int team = cpu_team(device, logits->rows * logits->cols);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < logits->rows; r++) {
        token[r] = find_greatest(row_at(logits, r), logits->dtype, logits->cols);
    }
}

void ISA(sample)(struct device *device, int32_t *token, struct tensor logits,
                 const struct sampling *sampling, const float *uniform)
{
    assert(logits.cols > 0 && logits.dtype != DTYPE_I32);
    if (cpu_failed(device)) {
        return;
    }
    if (sampling->temperature <= 0.0F) {
        sample_greedy(device, token, &logits);
        return;
    }
    const int64_t cols = logits.cols;
    const size_t row_bytes = (size_t)cols * (sizeof(struct candidate) + sizeof(float));
    const int team = cpu_team(device, 4 * logits.rows * cols);
    char *memory = cpu_scratch(device, team, row_bytes, "sample");
    if (memory == NULL) {
        return;
    }
#pragma omp parallel num_threads(team)
    {
        char *mine = memory + (size_t)omp_get_thread_num() * row_bytes;
        struct draw d = {.dtype = logits.dtype, .cols = cols, .sampling = sampling};
        d.candidates = (struct candidate *)(void *)mine;
        d.maxima = (float *)(void *)(mine + (size_t)cols * sizeof(struct candidate));
#pragma omp for schedule(static)
        for (int64_t r = 0; r < logits.rows; r++) {
            d.row = row_at(&logits, r);
            token[r] = draw_token(&d, uniform[r]);
        }
    }
}
