/* The next token of each sequence from its logits.
 *
 * Greedy is the largest logit, the lowest id on ties. Else a token is drawn by inverting the
 * distribution function in the order of the ids: the first id at which the sum of the kept weights
 * exceeds uniform * their total. What is kept (top_k first, then top_p of what that leaves) is
 * found without sorting, by descending through the bytes of the logits' ordered bit patterns; ties
 * at the edge go to the lowest ids. Sums are f64 in the order of the ids. */
#include <assert.h>
#include <math.h>

#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/simd.h"

/* -- greedy
 * ----------------------------------------------------------------------------------------------------
 */

static int32_t find_greatest(const void *row, enum dtype dtype, int64_t cols)
{
    float top = row_get(row, dtype, 0);
    int32_t best = 0;
    for (int64_t i = 0; i < cols; i += LANES) {
        vfloat x = row_load(row, dtype, i, cols - i);
        int64_t lanes = cols - i < LANES ? cols - i : LANES;
        if (lanes == LANES && !(simd_max_lane(x) > top)) {
            continue;
        }
        for (int64_t l = 0; l < lanes; l++) {
            if (x[l] > top) {
                top = x[l];
                best = (int32_t)(i + l);
            }
        }
    }
    return best;
}

/* -- keeping the likeliest
 * -------------------------------------------------------------------------------------- */

enum { DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS, KEY_BITS = 32 };

/* A number that orders as the logit does; NaN below everything. */
static uint32_t order_key(float logit)
{
    uint32_t bits;
    if (isnan(logit)) {
        return 0;
    }
    logit += 0.0F; /* -0 becomes 0: they are ties */
    memcpy(&bits, &logit, sizeof(bits));
    return bits & 0x80000000U ? ~bits : bits | 0x80000000U;
}

struct candidates {
    float *weight; /* (V), exp(logit / temperature - largest); 0: not kept */
    uint32_t *key; /* (V) */
    int64_t count; /* V */
};

/* Keeps the greatest keys until their amounts (1 each, or their weights) reach `wanted`. */
static void keep_greatest(const struct candidates *c, bool by_weight, double wanted)
{
    uint32_t prefix = 0; /* the digits of the last key kept, found so far */
    uint32_t prefix_mask = 0;
    double above = 0.0; /* amount of the keys beyond the prefix */
    for (int shift = KEY_BITS - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        double amount[DIGITS] = {0};
        for (int64_t i = 0; i < c->count; i++) {
            if ((c->key[i] & prefix_mask) == prefix && c->weight[i] > 0.0F) {
                amount[(c->key[i] >> shift) % DIGITS] += by_weight ? (double)c->weight[i] : 1.0;
            }
        }
        int digit = DIGITS - 1;
        int last =
            -1; /* the least digit in use so far, in case rounding leaves `wanted` out of reach */
        for (; digit >= 0; digit--) {
            last = amount[digit] > 0.0 ? digit : last;
            if (amount[digit] > 0.0 && above + amount[digit] >= wanted) {
                break;
            }
            above += amount[digit];
        }
        if (digit < 0) {
            digit = last >= 0 ? last : 0;
            above -= amount[digit];
        }
        prefix |= (uint32_t)digit << shift;
        prefix_mask |= (uint32_t)(DIGITS - 1) << shift;
    }
    for (int64_t i = 0; i < c->count;
         i++) { /* ties at the edge: the lowest ids until it is enough */
        if (c->key[i] == prefix && above < wanted) {
            above += by_weight ? (double)c->weight[i] : 1.0;
        } else if (c->key[i] <= prefix) {
            c->weight[i] = 0.0F;
        }
    }
}

static double sum_weights(const struct candidates *c)
{
    double sum = 0.0;
    for (int64_t i = 0; i < c->count; i++) {
        sum += (double)c->weight[i];
    }
    return sum;
}

static int32_t draw_token(const struct candidates *c, const void *row, enum dtype dtype,
                          const struct sampling *sampling, float uniform)
{
    const int32_t greatest = find_greatest(row, dtype, c->count);
    const float top = row_get(row, dtype, greatest);
    const float inverse = 1.0F / sampling->temperature;
    for (int64_t i = 0; i < c->count; i += LANES) {
        vfloat x = row_load(row, dtype, i, c->count - i);
        simd_store_part(c->weight + i, simd_exp((x - top) * inverse), c->count - i);
    }
    for (int64_t i = 0; i < c->count; i++) {
        c->key[i] = order_key(row_get(row, dtype, i));
    }
    if (sampling->top_k > 0 && sampling->top_k < c->count) {
        keep_greatest(c, false, (double)sampling->top_k);
    }
    if (sampling->top_p < 1.0F) {
        keep_greatest(c, true, (double)sampling->top_p * sum_weights(c));
    }
    const double wanted = (double)uniform * sum_weights(c);
    double sum = 0.0;
    int32_t last = greatest;
    for (int64_t i = 0; i < c->count; i++) {
        if (c->weight[i] > 0.0F) {
            sum += (double)c->weight[i];
            last = (int32_t)i;
            if (sum > wanted) {
                break;
            }
        }
    }
    return last;
}

void ISA(sample)(struct device *device, int32_t *token, struct tensor logits,
                 const struct sampling *sampling, const float *uniform)
{
    assert(logits.cols > 0 && logits.dtype != DTYPE_I32);
    if (cpu_failed(device)) {
        return;
    }
    const bool greedy = sampling->temperature <= 0.0F;
    const int64_t cols = logits.cols;
    const int team = cpu_team(device, logits.rows * cols);
    float *memory = NULL;
    if (!greedy) {
        memory = cpu_scratch(device, 2 * logits.rows * cols, sizeof(*memory), "sample");
        if (memory == NULL) {
            return;
        }
    }
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < logits.rows; r++) {
        const void *row = row_at(&logits, r);
        if (greedy) {
            token[r] = find_greatest(row, logits.dtype, cols);
        } else {
            const struct candidates c = {memory + 2 * r * cols,
                                         (uint32_t *)(void *)(memory + (2 * r + 1) * cols), cols};
            token[r] = draw_token(&c, row, logits.dtype, sampling, uniform[r]);
        }
    }
}
