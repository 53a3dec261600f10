/* The cache of keys and values, decoding attention, and sampling. */
#include "harness.h"

/* -- cache and decoding -- */

struct decode_case {
    int64_t heads;
    int64_t kv_heads;
    int64_t dim;
    int64_t sequences;
    int64_t capacity;
};

static const struct decode_case decode_cases[] = {
    {1, 1, 2, 1, 1},    {8, 4, 8, 3, 40},  {6, 6, 48, 2, 33},  {4, 1, 64, 1, 300},
    {2, 1, 20, 5, 17},  {4, 2, 128, 1, 1}, {2, 1, 128, 1, 67}, {7, 1, 24, 3, 70},
    {16, 2, 64, 2, 65}, {3, 1, 256, 1, 9}, {3, 3, 130, 8, 5},
};
enum { DECODE_CASES = sizeof(decode_cases) / sizeof(decode_cases[0]), ROWS_MAX = 16 };

static void reference_decode(const struct decode_case *c, const double *q, const double *key,
                             const double *value, int64_t count, int64_t kv, float scale,
                             double *out)
{
    const int64_t width = c->kv_heads * c->dim;
    double score[512];
    double top = -INFINITY;
    double total = 0.0;
    memset(out, 0, (size_t)c->dim * sizeof(*out));
    for (int64_t t = 0; t < count; t++) {
        score[t] = 0.0;
        for (int64_t d = 0; d < c->dim; d++) {
            score[t] += (double)scale * q[d] * key[t * width + kv * c->dim + d];
        }
        top = fmax(top, score[t]);
    }
    for (int64_t t = 0; t < count; t++) {
        double weight = exp(score[t] - top);
        total += weight;
        for (int64_t d = 0; d < c->dim; d++) {
            out[d] += weight * value[t * width + kv * c->dim + d];
        }
    }
    for (int64_t d = 0; d < c->dim; d++) {
        out[d] /= total;
    }
}

/* Row r of a pass is at place[r] of the cache: sequence and position. */
static void check_places(struct bench *bench, const struct decode_case *c,
                         const int32_t (*place)[2], int64_t rows)
{
    const int64_t width = (c->heads + 2 * c->kv_heads) * c->dim;
    const int64_t kv_width = c->kv_heads * c->dim;
    const struct attention_shape shape = {c->heads, c->kv_heads, c->dim, 0.4F};
    struct matrix key = matrix_make(bench, bench->dtype, c->sequences * c->capacity, kv_width, 1.0);
    struct matrix value =
        matrix_make(bench, bench->dtype, c->sequences * c->capacity, kv_width, 1.0);
    struct matrix qkv = matrix_make(bench, bench->dtype, rows, width, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, rows, c->heads * c->dim, 0.0);
    const struct kv_cache cache = {key.tensor, value.tensor, c->capacity};
    int32_t sequence[ROWS_MAX];
    int32_t position[ROWS_MAX];
    for (int64_t r = 0; r < rows; r++) {
        sequence[r] = place[r][0];
        position[r] = place[r][1];
        const int64_t at = sequence[r] * c->capacity + position[r];
        const double *from = qkv.value + r * width + c->heads * c->dim;
        memcpy(key.value + at * kv_width, from, (size_t)kv_width * sizeof(double));
        memcpy(value.value + at * kv_width, from + kv_width, (size_t)kv_width * sizeof(double));
    }
    double *expected = values_copy(bench, &out);
    double *expected_key = values_copy(bench, &key);
    double *expected_value = values_copy(bench, &value);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t h = 0; h < c->heads; h++) {
            reference_decode(c, qkv.value + r * width + h * c->dim,
                             key.value + sequence[r] * c->capacity * kv_width,
                             value.value + sequence[r] * c->capacity * kv_width, position[r] + 1,
                             h / (c->heads / c->kv_heads), shape.scale,
                             expected + (r * c->heads + h) * c->dim);
        }
    }
    int32_t *device_sequence = ints_upload(bench, sequence, rows);
    int32_t *device_position = ints_upload(bench, position, rows);
    bench->ops->kv_append(bench->device, &cache, qkv.tensor, &shape, device_sequence,
                          device_position);
    matrix_check(bench, "key cache", &key, expected_key, 0.0, 0.0);
    matrix_check(bench, "value cache", &value, expected_value, 0.0, 0.0);
    bench->ops->attention_decode(bench->device, out.tensor, qkv.tensor, &cache, &shape,
                                 device_sequence, device_position);
    matrix_check(bench, "out", &out, expected, 2.0 * dtype_tolerance(bench->dtype), 1.0);
    bench_clear(bench);
}

/* The sequences in reverse, each at a place of its own. */
static void check_decode(struct bench *bench, const struct decode_case *c, int64_t filled)
{
    int32_t place[ROWS_MAX][2];
    for (int64_t r = 0; r < c->sequences; r++) {
        place[r][0] = (int32_t)(c->sequences - 1 - r);
        place[r][1] = (int32_t)(filled > r ? filled - 1 - r : 0);
    }
    check_places(bench, c, (const int32_t(*)[2])place, c->sequences);
}

static void test_decode(struct bench *bench)
{
    for (int n = 0; n < DECODE_CASES; n++) {
        check_decode(bench, &decode_cases[n], decode_cases[n].capacity);
        check_decode(bench, &decode_cases[n], (decode_cases[n].capacity + 1) / 2);
    }
}

/* Many rows of one sequence beside single ones of others, at both ends of the cache and at the
 * borders of whatever it is cut into. */
static void test_decode_mixed(struct bench *bench)
{
    static const struct decode_case c = {4, 2, 16, 3, 150};
    static const int32_t place[][2] = {{1, 149}, {0, 0},  {2, 64}, {1, 3},  {2, 63}, {0, 1},
                                       {1, 0},   {2, 65}, {1, 31}, {1, 32}, {2, 127}};
    check_places(bench, &c, place, sizeof(place) / sizeof(place[0]));
}

/* No rows: nothing is touched. */
static void test_no_rows(struct bench *bench)
{
    const struct attention_shape shape = {1, 1, 4, 1.0F};
    const struct sampling greedy = {.temperature = 0.0F, .top_p = 1.0F};
    struct matrix key = matrix_make(bench, bench->dtype, 4, 4, 1.0);
    struct matrix qkv = matrix_make(bench, bench->dtype, 1, 12, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, 1, 4, 1.0);
    double *expected_key = values_copy(bench, &key);
    double *expected = values_copy(bench, &out);
    const struct kv_cache cache = {key.tensor, key.tensor, 2};
    struct tensor none = tensor_rows(qkv.tensor, 0, 0);
    bench->ops->kv_append(bench->device, &cache, none, &shape, NULL, NULL);
    bench->ops->attention_decode(bench->device, tensor_rows(out.tensor, 0, 0), none, &cache, &shape,
                                 NULL, NULL);
    bench->ops->sample(bench->device, NULL, none, &greedy, NULL);
    matrix_check(bench, "key cache", &key, expected_key, 0.0, 0.0);
    matrix_check(bench, "out", &out, expected, 0.0, 0.0);
}

static void test_cache_range(struct bench *bench)
{
    static const int32_t wrong[][2] = {{2, 0}, {-1, 0}, {0, 5}, {0, -1}};
    const struct attention_shape shape = {1, 1, 4, 1.0F};
    struct matrix key = matrix_make(bench, bench->dtype, 10, 4, 1.0);
    struct matrix qkv = matrix_make(bench, bench->dtype, 1, 12, 1.0);
    struct matrix out = matrix_make(bench, bench->dtype, 1, 4, 1.0);
    const struct kv_cache cache = {key.tensor, key.tensor, 5};
    for (int n = 0; n < 4; n++) {
        struct error err = {0};
        int32_t *sequence = ints_upload(bench, &wrong[n][0], 1);
        int32_t *position = ints_upload(bench, &wrong[n][1], 1);
        bench->ops->kv_append(bench->device, &cache, qkv.tensor, &shape, sequence, position);
        assert_int_equal(bench->ops->check(bench->device, &err), STATUS_RANGE);
        bench->ops->attention_decode(bench->device, out.tensor, qkv.tensor, &cache, &shape,
                                     sequence, position);
        assert_int_equal(bench->ops->check(bench->device, &err), STATUS_RANGE);
    }
}

/* -- sampling -- */

static int32_t sample_one(struct bench *bench, const struct matrix *logits,
                          const struct sampling *sampling, float uniform)
{
    int32_t token = -5;
    int32_t *device_token = bench_device(bench, sizeof(token));
    float *device_uniform = bench_device(bench, sizeof(uniform));
    bench->ops->upload(bench->device, device_uniform, &uniform, sizeof(uniform));
    bench->ops->sample(bench->device, device_token, logits->tensor, sampling, device_uniform);
    bench->ops->download(bench->device, &token, device_token, sizeof(token));
    bench->ops->free(bench->device, device_uniform);
    bench->ops->free(bench->device, device_token);
    bench->device_count -= 2;
    return token;
}

static void test_greedy(struct bench *bench)
{
    static const struct sampling greedy = {.temperature = 0.0F, .top_p = 1.0F};
    static const int64_t sizes[] = {1, 5, 16, 33, 1000};
    for (int n = 0; n < 5; n++) {
        struct matrix logits = matrix_make(bench, bench->dtype, 3, sizes[n], 1.0);
        int32_t token[3];
        for (int64_t at = 0; at < sizes[n]; at += 1 + sizes[n] / 20) {
            for (int64_t r = 0; r < 3; r++) { /* the greatest twice: the first one wins */
                logits.value[r * sizes[n] + at] = 50.0;
                logits.value[r * sizes[n] + sizes[n] - 1] = 50.0;
            }
            matrix_upload(bench, &logits);
            int32_t *device_token = bench_device(bench, sizeof(token));
            bench->ops->sample(bench->device, device_token, logits.tensor, &greedy, NULL);
            bench->ops->download(bench->device, token, device_token, sizeof(token));
            for (int64_t r = 0; r < 3; r++) {
                assert_int_equal(token[r], at);
                logits.value[r * sizes[n] + at] = -50.0;
            }
        }
        bench_clear(bench);
    }
}

struct ranked {
    double logit;
    double weight;
    int64_t id;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a;
    const struct ranked *y = b;
    if (x->logit != y->logit) {
        return x->logit > y->logit ? -1 : 1;
    }
    return (x->id > y->id) - (x->id < y->id);
}

/* The kept weights (V) by sorting; returns their sum. */
static double reference_kept(const double *logits, int64_t count, const struct sampling *sampling,
                             double *kept)
{
    struct ranked *ranked = mem_calloc((size_t)count, sizeof(*ranked));
    double total = 0.0;
    assert_non_null(ranked);
    for (int64_t i = 0; i < count; i++) {
        ranked[i] = (struct ranked){logits[i], exp(logits[i] / (double)sampling->temperature), i};
        kept[i] = 0.0;
    }
    qsort(ranked, (size_t)count, sizeof(*ranked), compare_ranked);
    int64_t most = sampling->top_k > 0 && sampling->top_k < count ? sampling->top_k : count;
    for (int64_t i = 0; i < most; i++) {
        total += ranked[i].weight;
    }
    double sum = 0.0;
    for (int64_t i = 0; i < most && (i == 0 || sum < (double)sampling->top_p * total); i++) {
        kept[ranked[i].id] = ranked[i].weight;
        sum += ranked[i].weight;
    }
    free(ranked);
    return sum;
}

static void check_sampling(struct bench *bench, const struct matrix *logits,
                           const struct sampling *sampling)
{
    const int64_t count = logits->tensor.cols;
    double *kept = bench_host(bench, count, sizeof(double));
    const double total = reference_kept(logits->value, count, sampling, kept);
    for (int draw = 0; draw < 40; draw++) {
        const float uniform = draw == 0   ? 0.0F
                              : draw == 1 ? 0.99999994F
                                          : (float)rng_uniform(&bench->rng) * 0.999F;
        double wanted = (double)uniform * total;
        double sum = 0.0;
        const int32_t token = sample_one(bench, logits, sampling, uniform);
        assert_in_range(token, 0, count - 1);
        if (!(kept[token] > 0.0)) {
            fail_msg("token %d is not among the kept ones", (int)token);
        }
        for (int64_t i = 0; i < token; i++) {
            sum += kept[i];
        }
        /* the token's interval of the distribution holds `uniform`, but for rounding */
        if (wanted < sum - 1e-5 * total || wanted > sum + kept[token] + 1e-5 * total) {
            fail_msg("token %d spans %.7f to %.7f, uniform is %.7f", (int)token, sum / total,
                     (sum + kept[token]) / total, (double)uniform);
        }
    }
}

static void test_sample(struct bench *bench)
{
    static const struct sampling samplings[] = {
        {1.0F, 0, 1.0F}, {0.5F, 0, 1.0F}, {2.0F, 5, 1.0F},   {1.0F, 1, 1.0F},
        {1.0F, 0, 0.5F}, {1.0F, 7, 0.8F}, {1.0F, 0, 0.001F}, {1.0F, 5000, 0.95F},
    };
    static const int64_t sizes[] = {1, 9, 64, 1001};
    for (int n = 0; n < 4; n++) {
        struct matrix logits = matrix_make(bench, bench->dtype, 1, sizes[n], 2.0);
        for (size_t s = 0; s < sizeof(samplings) / sizeof(samplings[0]); s++) {
            check_sampling(bench, &logits, &samplings[s]);
        }
        bench_clear(bench);
    }
}

/* All logits equal: top_k keeps the lowest ids. */
static void test_sample_ties(struct bench *bench)
{
    struct matrix logits = matrix_make(bench, bench->dtype, 1, 100, 0.0);
    const struct sampling top_k = {1.0F, 10, 1.0F};
    const struct sampling top_p = {1.0F, 0, 0.2F};
    for (int i = 0; i < 100; i++) {
        const float uniform = (float)i / 100.0F;
        assert_in_range(sample_one(bench, &logits, &top_k, uniform), 0, 9);
        assert_in_range(sample_one(bench, &logits, &top_p, uniform), 0, 20);
    }
}

/* No token number may leave the vocabulary, whatever the logits hold. */
static void test_sample_of_nan(struct bench *bench)
{
    static const struct sampling samplings[] = {
        {0.0F, 0, 1.0F}, {1.0F, 0, 1.0F}, {1.0F, 3, 0.9F}, {1e-30F, 3, 0.9F}};
    static const float values[] = {NAN, INFINITY, -INFINITY, 3e38F};
    for (int n = 0; n < 4; n++) {
        struct matrix logits = matrix_make(bench, bench->dtype, 1, 50, 1.0);
        bench->ops->fill(bench->device, logits.tensor, values[n]);
        for (int s = 0; s < 4; s++) {
            assert_in_range(sample_one(bench, &logits, &samplings[s], 0.5F), 0, 49);
        }
    }
}

/* ---- the same tokens as on the CPU ---- */

/* On a device that holds a copy of the logits, dense. */
static void sample_rows(struct bench *bench, const struct matrix *logits,
                        const struct sampling *sampling, const float *uniform, int32_t *token)
{
    const size_t rows = (size_t)logits->tensor.rows;
    int32_t *device_token = bench_device(bench, rows * sizeof(*token));
    float *device_uniform = bench_device(bench, rows * sizeof(*uniform));
    bench->ops->upload(bench->device, device_uniform, uniform, rows * sizeof(*uniform));
    bench->ops->sample(bench->device, device_token, logits->tensor, sampling, device_uniform);
    bench->ops->download(bench->device, token, device_token, rows * sizeof(*token));
    bench->ops->free(bench->device, device_uniform);
    bench->ops->free(bench->device, device_token);
    bench->device_count -= 2;
}

static void check_same(struct bench *bench, struct bench *cpu, const struct matrix *logits,
                       const struct sampling *samplings, size_t count)
{
    static const float uniform[] = {0.0F, 0.371F, 0.99999994F};
    struct matrix twin = matrix_make(cpu, bench->dtype, 3, logits->tensor.cols, 0.0);
    memcpy(twin.value, logits->value, (size_t)(3 * logits->tensor.cols) * sizeof(double));
    matrix_upload(cpu, &twin);
    matrix_upload(bench, logits);
    for (size_t s = 0; s < count; s++) {
        int32_t found[3] = {-5, -5, -5};
        int32_t expected[3] = {-6, -6, -6};
        sample_rows(bench, logits, &samplings[s], uniform, found);
        sample_rows(cpu, &twin, &samplings[s], uniform, expected);
        for (int r = 0; r < 3; r++) {
            if (found[r] != expected[r]) {
                fail_msg("%lld ids, temperature %g, top_k %d, top_p %g, uniform %.8f: token %d, "
                         "on the CPU %d",
                         (long long)logits->tensor.cols, (double)samplings[s].temperature,
                         (int)samplings[s].top_k, (double)samplings[s].top_p, (double)uniform[r],
                         (int)found[r], (int)expected[r]);
            }
        }
    }
    bench_clear(cpu);
}

static struct bench cpu_bench(const struct bench *bench)
{
    struct bench cpu = {.dtype = bench->dtype};
    struct device_options options = {.threads = 1};
    struct error err = {0};
    assert_int_equal(device_open("cpu", &options, &cpu.device, &err), STATUS_OK);
    cpu.ops = cpu.device->ops;
    rng_init(&cpu.rng, 1, 0);
    return cpu;
}

/* Logits as models never should give them. */
static void spoil(struct bench *bench, const struct matrix *logits, int kind)
{
    const double zeros[] = {0.0, -0.0};
    for (int64_t i = 0; i < logits->tensor.rows * logits->tensor.cols; i++) {
        const uint64_t chance = rng_below(&bench->rng, 4);
        switch (kind) {
        case 1: /* all equal */
            logits->value[i] = zeros[i % 2];
            break;
        case 2: /* ids that must not come */
            logits->value[i] = chance > 0 ? -INFINITY : logits->value[i];
            break;
        case 3:
            logits->value[i] = chance > 0 ? NAN : logits->value[i];
            break;
        case 4:
            logits->value[i] = chance > 2 ? INFINITY : logits->value[i];
            break;
        case 5:
            logits->value[i] = -INFINITY;
            break;
        case 6: /* two levels: ties at the cut, whatever it is */
            logits->value[i] = chance > 0 ? 1.0 : 2.0;
            break;
        default:
            break;
        }
    }
}

static void test_sample_as_cpu(struct bench *bench)
{
    static const struct sampling samplings[] = {
        {0.0F, 0, 1.0F}, {1.0F, 0, 1.0F},  {0.7F, 1, 1.0F}, {1.5F, 6, 0.9F},
        {1.0F, 0, 0.6F}, {1.0F, 0, 1e-6F}, {1.0F, 0, 0.0F}, {0.9F, 300, 0.99F},
    };
    static const int64_t sizes[] = {1, 33, 300, 1000};
    struct bench cpu = cpu_bench(bench);
    for (int n = 0; n < 4; n++) {
        for (int kind = 0; kind <= 6; kind++) {
            struct matrix logits = matrix_make(bench, bench->dtype, 3, sizes[n], 3.0);
            spoil(bench, &logits, kind);
            check_same(bench, &cpu, &logits, samplings, sizeof(samplings) / sizeof(samplings[0]));
            bench_clear(bench);
        }
    }
    device_close(cpu.device);
}

/* The vocabulary of Qwen3, once a dtype. bf16 logits have thousands of equals. */
static void test_sample_large(struct bench *bench)
{
    static const struct sampling samplings[] = {
        {0.0F, 0, 1.0F}, {1.0F, 0, 1.0F}, {0.8F, 50, 0.95F}, {1.0F, 0, 0.9F}};
    if (bench->gap != 0) {
        return;
    }
    struct bench cpu = cpu_bench(bench);
    struct matrix logits = matrix_make(bench, bench->dtype, 3, 151936, 3.0);
    check_same(bench, &cpu, &logits, samplings, sizeof(samplings) / sizeof(samplings[0]));
    device_close(cpu.device);
}

int main(void)
{
    static const struct kernel_test tests[] = {
        {"kv_append and attention_decode", test_decode},
        {"attention_decode of mixed rows", test_decode_mixed},
        {"no rows", test_no_rows},
        {"cache out of range", test_cache_range},
        {"sample greedily", test_greedy},
        {"sample", test_sample},
        {"sample among ties", test_sample_ties},
        {"sample of NaN", test_sample_of_nan},
        {"sample as on the CPU", test_sample_as_cpu},
        {"sample from 151,936 ids", test_sample_large},
    };
    return kernel_tests_run("generation", tests, sizeof(tests) / sizeof(tests[0]));
}
