/* Gradient norm and AdamW against f64. */
#include "harness.h"

static const int64_t counts[] = {1, 7, 0, 16384, 16385, 40000, 64};
enum { SLOTS = sizeof(counts) / sizeof(counts[0]) };

struct setup {
    struct matrix master[SLOTS];
    struct matrix grad[SLOTS];
    struct matrix first[SLOTS];
    struct matrix second[SLOTS];
    struct matrix rounded[SLOTS]; /* bf16 copies */
    struct optimizer_slot slots[SLOTS];
    struct matrix norm;
};

static struct matrix bf16_vector(struct bench *bench, int64_t count)
{
    const int64_t gap = bench->gap;
    bench->gap = 0;
    struct matrix matrix = matrix_make(bench, DTYPE_BF16, 1, count, 1.0);
    bench->gap = gap;
    return matrix;
}

static void setup_make(struct bench *bench, struct setup *s)
{
    for (int n = 0; n < SLOTS; n++) {
        s->master[n] = vector_make(bench, counts[n], 1.0);
        s->grad[n] = vector_make(bench, counts[n], 0.3);
        s->first[n] = vector_make(bench, counts[n], 0.0);
        s->second[n] = vector_make(bench, counts[n], 0.0);
        s->rounded[n] = bf16_vector(bench, counts[n]);
        s->slots[n] = (struct optimizer_slot){
            .master = vector_data(&s->master[n]),
            .weights_bf16 = bench->dtype == DTYPE_BF16 ? s->rounded[n].tensor.data : NULL,
            .grad = vector_data(&s->grad[n]),
            .first_moment = vector_data(&s->first[n]),
            .second_moment = vector_data(&s->second[n]),
            .count = counts[n],
            .weight_decay = n % 2 == 0 ? 0.1F : 0.0F,
        };
    }
    s->norm = vector_make(bench, 1, 0.0);
}

static double norm_of(const struct setup *s)
{
    double squares = 0.0;
    for (int n = 0; n < SLOTS; n++) {
        for (int64_t i = 0; i < counts[n]; i++) {
            squares += s->grad[n].value[i] * s->grad[n].value[i];
        }
    }
    return sqrt(squares);
}

static void test_gradient_norm(struct bench *bench)
{
    struct setup s;
    setup_make(bench, &s);
    double expected = norm_of(&s);
    bench->ops->gradient_norm(bench->device, vector_data(&s.norm), s.slots, SLOTS);
    matrix_check(bench, "norm", &s.norm, &expected, 1e-7, 0.0);
    expected = 0.0;
    bench->ops->gradient_norm(bench->device, vector_data(&s.norm), s.slots, 0);
    matrix_check(bench, "norm of nothing", &s.norm, &expected, 0.0, 0.0);
}

/* Squares that overflow or vanish in f32 */
static void test_gradient_norm_range(struct bench *bench)
{
    static const double sizes[] = {1e25, 1e-25};
    for (int n = 0; n < 2; n++) {
        struct matrix grad = vector_make(bench, 100, sizes[n]);
        struct matrix norm = vector_make(bench, 1, 0.0);
        struct optimizer_slot slot = {.grad = vector_data(&grad), .count = 100};
        double expected = 0.0;
        for (int64_t i = 0; i < 100; i++) {
            expected += grad.value[i] * grad.value[i];
        }
        expected = sqrt(expected);
        bench->ops->gradient_norm(bench->device, vector_data(&norm), &slot, 1);
        matrix_check(bench, "norm", &norm, &expected, 1e-6, 0.0);
    }
}

static void reference_step(const struct setup *s, int slot, const struct adamw_step *step,
                           double norm, double *master, double *first, double *second)
{
    double clip = 1.0;
    if (step->clip_norm > 0.0F && norm > (double)step->clip_norm) {
        clip = (double)step->clip_norm / norm;
    }
    const double correction1 = 1.0 - pow((double)step->beta1, (double)step->step);
    const double correction2 = 1.0 - pow((double)step->beta2, (double)step->step);
    for (int64_t i = 0; i < counts[slot]; i++) {
        double g = s->grad[slot].value[i] * clip;
        first[i] = (double)step->beta1 * first[i] + (1.0 - (double)step->beta1) * g;
        second[i] = (double)step->beta2 * second[i] + (1.0 - (double)step->beta2) * g * g;
        master[i] *= 1.0 - (double)step->learning_rate * (double)s->slots[slot].weight_decay;
        master[i] -= (double)step->learning_rate * (first[i] / correction1) /
                     (sqrt(second[i] / correction2) + (double)step->epsilon);
    }
}

static void test_adamw(struct bench *bench)
{
    struct setup s;
    double *master[SLOTS];
    double *first[SLOTS];
    double *second[SLOTS];
    setup_make(bench, &s);
    const double norm = norm_of(&s);
    for (int n = 0; n < SLOTS; n++) {
        master[n] = values_copy(bench, &s.master[n]);
        first[n] = values_copy(bench, &s.first[n]);
        second[n] = values_copy(bench, &s.second[n]);
    }
    bench->ops->gradient_norm(bench->device, vector_data(&s.norm), s.slots, SLOTS);
    for (int64_t t = 1; t <= 3; t++) {
        const struct adamw_step step = {
            .learning_rate = 1e-2F,
            .beta1 = 0.9F,
            .beta2 = 0.95F,
            .epsilon = 1e-8F,
            .step = t,
            .clip_norm = t == 1 ? 0.0F : (t == 2 ? 1.0F : 1e9F),
        };
        bench->ops->adamw(bench->device, s.slots, SLOTS, t == 1 ? NULL : vector_data(&s.norm),
                          &step);
        for (int n = 0; n < SLOTS; n++) {
            reference_step(&s, n, &step, norm, master[n], first[n], second[n]);
        }
    }
    for (int n = 0; n < SLOTS; n++) {
        matrix_check(bench, "master", &s.master[n], master[n], 3e-6, 0.1);
        matrix_check(bench, "first moment", &s.first[n], first[n], 3e-6, 0.1);
        matrix_check(bench, "second moment", &s.second[n], second[n], 3e-6, 0.1);
        matrix_download(bench, &s.rounded[n]);
        for (int64_t i = 0; i < counts[n] && bench->dtype == DTYPE_BF16; i++) {
            double expected = round_to(DTYPE_BF16, s.master[n].value[i]);
            check_close("weights_bf16", s.rounded[n].value + i, &expected, 1, 0.0, 0.0);
        }
    }
}

/* A step that diverged must leave everything as it was, with and without clipping. */
static void test_adamw_without_norm(struct bench *bench)
{
    static const float wrong[] = {NAN, INFINITY, -INFINITY};
    struct setup s;
    setup_make(bench, &s);
    for (int n = 0; n < 6; n++) {
        const struct adamw_step step = {.learning_rate = 1e-2F,
                                        .beta1 = 0.9F,
                                        .beta2 = 0.95F,
                                        .epsilon = 1e-8F,
                                        .step = 1,
                                        .clip_norm = n < 3 ? 1.0F : 0.0F};
        bench->ops->upload(bench->device, vector_data(&s.norm), &wrong[n % 3], sizeof(wrong[0]));
        bench->ops->adamw(bench->device, s.slots, SLOTS, vector_data(&s.norm), &step);
    }
    for (int n = 0; n < SLOTS; n++) {
        double *before = mem_calloc((size_t)counts[n] + 1, sizeof(*before));
        const struct matrix *all[] = {&s.master[n], &s.first[n], &s.second[n], &s.rounded[n]};
        assert_non_null(before);
        for (int m = 0; m < 4; m++) {
            memcpy(before, all[m]->value, (size_t)counts[n] * sizeof(*before));
            matrix_check(bench, "untouched", all[m], before, 0.0, 0.0);
        }
        free(before);
    }
}

/* More slots than one table of a backend may take, none of them on a boundary of 16 bytes. */
static void test_many_slots(struct bench *bench)
{
    enum { MANY = 1100, EACH = 3 };
    struct matrix master = vector_make(bench, MANY * EACH, 1.0);
    struct matrix grad = vector_make(bench, MANY * EACH, 1.0);
    struct matrix first = vector_make(bench, MANY * EACH, 0.0);
    struct matrix second = vector_make(bench, MANY * EACH, 0.0);
    struct matrix norm = vector_make(bench, 1, 0.0);
    struct optimizer_slot *slots = bench_host(bench, MANY, sizeof(*slots));
    double *expected = values_copy(bench, &master);
    double squares = 0.0;
    for (int n = 0; n < MANY; n++) {
        slots[n] = (struct optimizer_slot){.master = vector_data(&master) + n * EACH,
                                           .grad = vector_data(&grad) + n * EACH,
                                           .first_moment = vector_data(&first) + n * EACH,
                                           .second_moment = vector_data(&second) + n * EACH,
                                           .count = n % 2 == 0 ? EACH : 1};
        for (int i = n * EACH; i < n * EACH + slots[n].count; i++) {
            const double g = grad.value[i];
            squares += g * g;
            expected[i] -= 0.5 * g / (fabs(g) + 1e-6); /* the first step: m / sqrt(v) is g / |g| */
        }
    }
    const struct adamw_step step = {
        .learning_rate = 0.5F, .beta1 = 0.9F, .beta2 = 0.99F, .epsilon = 1e-6F, .step = 1};
    const double expected_norm = sqrt(squares);
    bench->ops->gradient_norm(bench->device, vector_data(&norm), slots, MANY);
    matrix_check(bench, "norm", &norm, &expected_norm, 1e-7, 0.0);
    bench->ops->adamw(bench->device, slots, MANY, vector_data(&norm), &step);
    matrix_check(bench, "master", &master, expected, 3e-6, 1.0);
}

static void test_same_bits(struct bench *bench)
{
    struct setup s;
    setup_make(bench, &s);
    bench->ops->gradient_norm(bench->device, vector_data(&s.norm), s.slots, SLOTS);
    matrix_download(bench, &s.norm);
    const double first = s.norm.value[0];
    for (int run = 0; run < 10; run++) {
        bench->ops->gradient_norm(bench->device, vector_data(&s.norm), s.slots, SLOTS);
        matrix_check(bench, "norm again", &s.norm, &first, 0.0, 0.0);
    }
}

int main(void)
{
    static const struct kernel_test tests[] = {
        {"gradient_norm", test_gradient_norm},
        {"gradient_norm of extremes", test_gradient_norm_range},
        {"adamw", test_adamw},
        {"adamw without a norm", test_adamw_without_norm},
        {"many slots", test_many_slots},
        {"gradient_norm twice", test_same_bits},
    };
    return kernel_tests_run("optimizer", tests, sizeof(tests) / sizeof(tests[0]));
}
