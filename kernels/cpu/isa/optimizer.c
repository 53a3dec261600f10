/* Norm of all gradients, and AdamW (arXiv 1711.05101) in one sweep: gradient, moments and weights
 * are read once. */
#include <assert.h>
#include <math.h>

#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/simd.h"

/* Numbers that make one job: small enough to share many small arrays evenly, large enough to
 * stream. The cut does not depend on the team, so neither does the sum. */
enum { PIECE = 16384 };

static int64_t pieces_of(int64_t count)
{
    return (count + PIECE - 1) / PIECE;
}

/* Where job number `job` of all slots lies. */
struct piece {
    const struct optimizer_slot *slot;
    int64_t first;
    int64_t end;
};

static struct piece find_piece(const struct optimizer_slot *slots, int64_t job)
{
    while (job >= pieces_of(slots->count)) {
        job -= pieces_of(slots->count);
        slots++;
    }
    int64_t first = job * PIECE;
    int64_t end = first + PIECE < slots->count ? first + PIECE : slots->count;
    return (struct piece){slots, first, end};
}

static int64_t count_pieces(const struct optimizer_slot *slots, int64_t count)
{
    int64_t jobs = 0;
    for (int64_t s = 0; s < count; s++) {
        jobs += pieces_of(slots[s].count);
    }
    return jobs;
}

typedef double vdouble __attribute__((vector_size(LANES * 4)));
typedef float vhalf_float __attribute__((vector_size(LANES * 2)));
enum { DOUBLE_LANES = LANES / 2 };

static double sum_squares(const float *grad, int64_t count)
{
    vdouble sum = {0};
    int64_t i = 0;
    for (; i + DOUBLE_LANES <= count; i += DOUBLE_LANES) {
        vhalf_float g;
        memcpy(&g, grad + i, sizeof(g));
        vdouble wide = __builtin_convertvector(g, vdouble);
        sum += wide * wide;
    }
    double total = 0.0;
    for (; i < count; i++) {
        total += (double)grad[i] * (double)grad[i];
    }
    for (int lane = 0; lane < DOUBLE_LANES; lane++) {
        total += sum[lane];
    }
    return total;
}

void ISA(gradient_norm)(struct device *device, float *norm, const struct optimizer_slot *slots,
                        int64_t count)
{
    if (cpu_failed(device)) {
        return;
    }
    const int64_t jobs = count_pieces(slots, count);
    double *sums = cpu_scratch(device, jobs, sizeof(*sums), "gradient_norm");
    if (sums == NULL) {
        return;
    }
    const int team = cpu_team(device, jobs * PIECE);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t job = 0; job < jobs; job++) {
        struct piece piece = find_piece(slots, job);
        sums[job] = sum_squares(piece.slot->grad + piece.first, piece.end - piece.first);
    }
    double total = 0.0;
    for (int64_t job = 0; job < jobs; job++) {
        total += sums[job];
    }
    *norm = (float)sqrt(total);
}

/* What of a step is the same for every number. */
struct adamw_factors {
    float grad_scale; /* clipping */
    float beta1;
    float beta2;
    float step_size;       /* learning rate / (1 - beta1^t) */
    float root_correction; /* 1 / sqrt(1 - beta2^t) */
    float epsilon;
    float learning_rate;
};

static struct adamw_factors factors_of(const struct adamw_step *step, float norm)
{
    double correction1 = 1.0 - pow((double)step->beta1, (double)step->step);
    double correction2 = 1.0 - pow((double)step->beta2, (double)step->step);
    bool clip = step->clip_norm > 0.0F && norm > step->clip_norm;
    return (struct adamw_factors){
        .grad_scale = clip ? step->clip_norm / norm : 1.0F,
        .beta1 = step->beta1,
        .beta2 = step->beta2,
        .step_size = (float)((double)step->learning_rate / correction1),
        .root_correction = (float)(1.0 / sqrt(correction2)),
        .epsilon = step->epsilon,
        .learning_rate = step->learning_rate,
    };
}

static void adamw_piece(const struct adamw_factors *f, const struct piece *piece)
{
    const struct optimizer_slot *slot = piece->slot;
    const float keep = 1.0F - f->learning_rate * slot->weight_decay;
    for (int64_t i = piece->first; i < piece->end; i += LANES) {
        int64_t lanes = piece->end - i;
        vfloat g = simd_load_part(slot->grad + i, lanes) * f->grad_scale;
        vfloat m = simd_load_part(slot->first_moment + i, lanes);
        vfloat v = simd_load_part(slot->second_moment + i, lanes);
        vfloat w = simd_load_part(slot->master + i, lanes);
        m = f->beta1 * m + (1.0F - f->beta1) * g;
        v = f->beta2 * v + (1.0F - f->beta2) * (g * g);
        w = w * keep - f->step_size * m / (simd_sqrt(v) * f->root_correction + f->epsilon);
        simd_store_part(slot->first_moment + i, m, lanes);
        simd_store_part(slot->second_moment + i, v, lanes);
        simd_store_part(slot->master + i, w, lanes);
        if (slot->weights_bf16 != NULL) {
            simd_store_bf16_part((uint16_t *)slot->weights_bf16 + i, w, lanes);
        }
    }
}

void ISA(adamw)(struct device *device, const struct optimizer_slot *slots, int64_t count,
                const float *norm, const struct adamw_step *step)
{
    assert(step->step >= 1 && (norm != NULL || step->clip_norm <= 0.0F));
    bool spoiled = norm != NULL && !isfinite(*norm);
    if (cpu_failed(device) || spoiled) {
        return;
    }
    const struct adamw_factors factors = factors_of(step, norm != NULL ? *norm : 0.0F);
    const int64_t jobs = count_pieces(slots, count);
    const int team = cpu_team(device, jobs * PIECE);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t job = 0; job < jobs; job++) {
        struct piece piece = find_piece(slots, job);
        adamw_piece(&factors, &piece);
    }
}
