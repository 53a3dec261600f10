/* Speed of each operation at the shapes of three models, one JSON object a line:
 *
 *   bench_kernels [threads [operation [model]]]
 *
 * The ceiling of an operation that computes is what a loop of nothing but fused multiply-adds
 * reaches in f32; of one that moves, what a plain copy reaches. Both are measured here, with the
 * same threads; "of_ceiling" may pass 1 where there is bf16 hardware or where the numbers stay in a
 * cache. Each figure is the best of the runs of a fifth of a second. Attention counts the scores
 * that the mask leaves. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernels/ops.h"

struct model_shape {
    const char *name;
    int64_t width;    /* C */
    int64_t heads;    /* H */
    int64_t kv_heads; /* K */
    int64_t dim;      /* D */
    int64_t mlp;      /* F */
    int64_t vocabulary;
    int64_t length; /* T */
    int64_t batch;  /* sequences */
};

static const struct model_shape models[] = {
    {"stories260K", 64, 8, 4, 8, 172, 512, 256, 8},
    {"15M", 288, 6, 6, 48, 768, 32000, 256, 8},
    {"125M", 768, 12, 12, 64, 2048, 32000, 512, 2},
};
enum { MODELS = sizeof(models) / sizeof(models[0]), ARRAYS_MAX = 16 };

struct bench {
    struct device *device;
    const struct ops *ops;
    const char *only; /* operation, or NULL */
    int threads;
    double peak_gflops;
    double copy_gbs;
    const struct model_shape *model;
    enum dtype dtype;
    void *arrays[ARRAYS_MAX];
    int array_count;
};

static _Noreturn void stop(const char *what)
{
    (void)fprintf(stderr, "bench_kernels: %s\n", what);
    exit(1);
}

/* -- ceilings -- */

enum { FMA_CHAINS = 12, FMA_ROUNDS = 1 << 19 };

#if defined(__x86_64__)
/* The chains are written out so that no compiler keeps them in memory. */
#define FMA_LOOP(type, set, fma)                                                                   \
    type a = set(1.0F), b = set(2.0F), c = set(3.0F), d = set(4.0F), e = set(5.0F), f = set(6.0F); \
    type g = set(7.0F), h = set(8.0F), i = set(9.0F), j = set(10.F), k = set(11.F), l = set(12.F); \
    const type x = set(factor);                                                                    \
    for (int round = 0; round < FMA_ROUNDS; round++) {                                             \
        a = fma(a, x, x), b = fma(b, x, x), c = fma(c, x, x), d = fma(d, x, x);                    \
        e = fma(e, x, x), f = fma(f, x, x), g = fma(g, x, x), h = fma(h, x, x);                    \
        i = fma(i, x, x), j = fma(j, x, x), k = fma(k, x, x), l = fma(l, x, x);                    \
    }                                                                                              \
    const type sum = (a + b + c + d) + (e + f + g + h) + (i + j + k + l);                          \
    return sum[0]

__attribute__((target("avx512f"))) static float chain_wide(float factor)
{
    FMA_LOOP(__m512, _mm512_set1_ps, _mm512_fmadd_ps);
}

__attribute__((target("avx2,fma"))) static float chain_narrow(float factor)
{
    FMA_LOOP(__m256, _mm256_set1_ps, _mm256_fmadd_ps);
}

static double chains_flop(float *sum)
{
    if (__builtin_cpu_supports("avx512f") != 0) {
        *sum += chain_wide(0.5F);
        return 2.0 * 16.0 * FMA_CHAINS * FMA_ROUNDS;
    }
    if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0) {
        *sum += chain_narrow(0.5F);
        return 2.0 * 8.0 * FMA_CHAINS * FMA_ROUNDS;
    }
    return 0.0;
}
#else
static double chains_flop(float *sum)
{
    *sum += 1.0F;
    return 0.0; /* no loop for this processor: fractions are printed as 0 */
}
#endif

static double measure_peak_gflops(int threads)
{
    double best = 0.0;
    float sum = 0.0F;
    for (int run = 0; run < 5; run++) {
        double flop = 0.0;
        double start_s = clock_monotonic_s();
#pragma omp parallel num_threads(threads) reduction(+ : flop, sum)
        flop += chains_flop(&sum);
        best = fmax(best, flop / (clock_monotonic_s() - start_s) * 1e-9);
    }
    return sum == 0.0F ? 0.0 : best;
}

static double measure_copy_gbs(int threads)
{
    const size_t bytes = (size_t)256 << 20;
    char *from = mem_aligned(bytes, 1);
    char *to = mem_aligned(bytes, 1);
    double best = 0.0;
    if (from == NULL || to == NULL) {
        stop("no memory");
    }
    memset(from, 1, bytes);
    memset(to, 2, bytes);
    for (int run = 0; run < 5; run++) {
        double start_s = clock_monotonic_s();
#pragma omp parallel for num_threads(threads) schedule(static)
        for (size_t piece = 0; piece < 256; piece++) {
            memcpy(to + piece * (bytes / 256), from + piece * (bytes / 256), bytes / 256);
        }
        best = fmax(best, 2.0 * (double)bytes / (clock_monotonic_s() - start_s) * 1e-9);
    }
    free(from);
    free(to);
    return best;
}

/* -- data -- */

static void *make_bytes(struct bench *b, int64_t bytes)
{
    struct error err = {0};
    void *memory = NULL;
    if (b->array_count == ARRAYS_MAX ||
        b->ops->alloc(b->device, (size_t)bytes, "the benchmark", &memory, &err) != STATUS_OK) {
        stop("no memory");
    }
    b->arrays[b->array_count++] = memory;
    return memory;
}

static struct tensor make(struct bench *b, enum dtype dtype, int64_t rows, int64_t cols)
{
    struct tensor t =
        tensor_matrix(make_bytes(b, rows * cols * (int64_t)dtype_bytes(dtype)), dtype, rows, cols);
    float *host = mem_aligned((size_t)(rows * cols), sizeof(*host));
    uint32_t state = 12345;
    if (host == NULL) {
        stop("no memory");
    }
    for (int64_t i = 0; i < rows * cols; i++) {
        state = state * 1664525U + 1013904223U;
        host[i] = (float)(state >> 8) / 8388608.0F - 1.0F;
    }
    void *staged = NULL;
    struct error err = {0};
    if (b->ops->alloc(b->device, (size_t)(rows * cols) * sizeof(*host), "the benchmark", &staged,
                      &err) != STATUS_OK) {
        stop("no memory");
    }
    b->ops->upload(b->device, staged, host, (size_t)(rows * cols) * sizeof(*host));
    b->ops->copy(b->device, t, tensor_matrix(staged, DTYPE_F32, rows, cols));
    b->ops->free(b->device, staged);
    free(host);
    return t;
}

static int32_t *make_ints(struct bench *b, int64_t count, int64_t step, int64_t modulus)
{
    int32_t *device = make_bytes(b, count * (int64_t)sizeof(*device));
    int32_t *host = mem_calloc((size_t)count, sizeof(*host));
    if (host == NULL) {
        stop("no memory");
    }
    for (int64_t i = 0; i < count; i++) {
        host[i] = (int32_t)(i * step % modulus);
    }
    b->ops->upload(b->device, device, host, (size_t)count * sizeof(*host));
    free(host);
    return device;
}

static void clear(struct bench *b)
{
    while (b->array_count > 0) {
        b->ops->free(b->device, b->arrays[--b->array_count]);
    }
}

/* -- measuring -- */

/* One operation with everything it needs. */
struct job {
    struct tensor t[6];
    float *f[3];
    int32_t *i[3];
    struct attention_shape shape;
    struct kv_cache cache;
    struct optimizer_slot slot;
    bool transpose_a;
    bool transpose_b;
    float beta;
};

typedef void (*operation)(struct bench *b, const struct job *job);

static void measure(struct bench *b, const char *name, const char *detail, double flop,
                    double bytes, operation run, const struct job *job)
{
    struct error err = {0};
    double best_s = INFINITY;
    double spent_s = 0.0;
    if (b->only != NULL && strcmp(b->only, name) != 0) {
        return;
    }
    for (int n = 0; n < 3 || (spent_s < 0.2 && n < 100000); n++) {
        double start_s = clock_monotonic_s();
        run(b, job);
        if (b->ops->check(b->device, &err) != STATUS_OK) {
            stop(err.message);
        }
        double took_s = clock_monotonic_s() - start_s;
        best_s = fmin(best_s, took_s);
        spent_s += took_s;
    }
    const double rate = (flop > 0.0 ? flop : bytes) / best_s * 1e-9;
    const double ceiling = flop > 0.0 ? b->peak_gflops : b->copy_gbs;
    printf("{\"op\": \"%s\", \"model\": \"%s\", \"detail\": \"%s\", \"dtype\": \"%s\", "
           "\"threads\": %d, \"us\": %.2f, \"%s\": %.1f, \"of_ceiling\": %.2f}\n",
           name, b->model->name, detail, b->dtype == DTYPE_F32 ? "f32" : "bf16", b->threads,
           best_s * 1e6, flop > 0.0 ? "gflops" : "gbs", rate, ceiling > 0.0 ? rate / ceiling : 0.0);
    (void)fflush(stdout);
}

static void run_matmul(struct bench *b, const struct job *j)
{
    b->ops->matmul(b->device, j->t[0], j->t[1], j->transpose_a, j->t[2], j->transpose_b, 1.0F,
                   j->beta);
}

/* y = x W', dx = dy W and dW += dy' x of one linear layer. */
static void bench_linear(struct bench *b, const char *detail, int64_t rows, int64_t in, int64_t out)
{
    const double flop = 2.0 * (double)rows * (double)in * (double)out;
    struct tensor x = make(b, b->dtype, rows, in);
    struct tensor w = make(b, b->dtype, out, in);
    struct tensor y = make(b, b->dtype, rows, out);
    struct tensor dw = make(b, DTYPE_F32, out, in);
    char text[64];
    (void)snprintf(text, sizeof(text), "%s forward", detail);
    measure(b, "matmul", text, flop, 0.0, run_matmul,
            &(struct job){.t = {y, x, w}, .transpose_b = true});
    (void)snprintf(text, sizeof(text), "%s input gradient", detail);
    measure(b, "matmul", text, flop, 0.0, run_matmul, &(struct job){.t = {x, y, w}});
    (void)snprintf(text, sizeof(text), "%s weight gradient", detail);
    measure(b, "matmul", text, flop, 0.0, run_matmul,
            &(struct job){.t = {dw, y, x}, .transpose_a = true, .beta = 1.0F});
    clear(b);
}

static void bench_matmuls(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch;
    bench_linear(b, "qkv", rows, m->width, (m->heads + 2 * m->kv_heads) * m->dim);
    bench_linear(b, "attention out", rows, m->heads * m->dim, m->width);
    bench_linear(b, "gate and up", rows, m->width, 2 * m->mlp);
    bench_linear(b, "down", rows, m->mlp, m->width);
    bench_linear(b, "head", rows / 4, m->width, m->vocabulary);
    bench_linear(b, "decode", 1, m->width, 2 * m->mlp);
    bench_linear(b, "lora down", rows, m->width, 8);
}

static void run_attention_forward(struct bench *b, const struct job *j)
{
    b->ops->attention_forward(b->device, j->t[1], j->f[0], j->t[0], &j->shape, j->i[0],
                              b->model->batch);
}

static void run_attention_backward(struct bench *b, const struct job *j)
{
    b->ops->attention_backward(b->device, j->t[2], j->t[3], j->t[0], j->t[1], j->f[0], &j->shape,
                               j->i[0], b->model->batch);
}

static void run_rope_forward(struct bench *b, const struct job *j)
{
    b->ops->qk_norm_rope_forward(b->device, j->t[2], NULL, j->t[0], &j->shape, NULL, NULL, 1e-5F,
                                 j->t[4], j->i[1]);
}

static void run_rope_backward(struct bench *b, const struct job *j)
{
    b->ops->qk_norm_rope_backward(b->device, j->t[2], NULL, NULL, j->t[0], NULL, &j->shape, NULL,
                                  NULL, j->t[4], j->i[1]);
}

static void bench_attention(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch;
    const int64_t width = (m->heads + 2 * m->kv_heads) * m->dim;
    const double size = (double)dtype_bytes(b->dtype);
    const double scores = (double)(m->length * (m->length + 1) / 2 * m->batch * m->heads);
    struct job job = {
        .t = {make(b, b->dtype, rows, width), make(b, b->dtype, rows, m->heads * m->dim),
              make(b, b->dtype, rows, width), make(b, b->dtype, rows, m->heads * m->dim),
              make(b, DTYPE_F32, m->length, m->dim)},
        .f = {make_bytes(b, rows * m->heads * 4)},
        .i = {make_ints(b, m->batch + 1, m->length, rows + 1), make_ints(b, rows, 1, m->length)},
        .shape = {m->heads, m->kv_heads, m->dim, 1.0F / sqrtf((float)m->dim)},
    };
    measure(b, "attention_forward", "", 4.0 * scores * (double)m->dim, 0.0, run_attention_forward,
            &job);
    run_attention_forward(b, &job);
    measure(b, "attention_backward", "", 10.0 * scores * (double)m->dim, 0.0,
            run_attention_backward, &job);
    measure(b, "qk_norm_rope_forward", "", 0.0, 2.0 * size * (double)(rows * width),
            run_rope_forward, &job);
    measure(b, "qk_norm_rope_backward", "", 0.0,
            2.0 * size * (double)(rows * (m->heads + m->kv_heads) * m->dim), run_rope_backward,
            &job);
    clear(b);
}

static void run_norm_forward(struct bench *b, const struct job *j)
{
    b->ops->rmsnorm_forward(b->device, j->t[0], j->f[0], j->t[1], &j->t[2], j->t[3], 1e-5F);
}

static void run_norm_backward(struct bench *b, const struct job *j)
{
    b->ops->rmsnorm_backward(b->device, j->t[0], j->f[1], j->t[2], j->t[1], j->t[3], j->f[0]);
}

static void run_swiglu_forward(struct bench *b, const struct job *j)
{
    b->ops->swiglu_forward(b->device, j->t[4], j->t[5]);
}

static void run_swiglu_backward(struct bench *b, const struct job *j)
{
    b->ops->swiglu_backward(b->device, j->t[5], j->t[4], j->t[5]);
}

static void bench_layers(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch;
    const double size = (double)dtype_bytes(b->dtype);
    const double row_bytes = size * (double)(rows * m->width);
    struct job job = {
        .t = {make(b, b->dtype, rows, m->width), make(b, b->dtype, rows, m->width),
              make(b, b->dtype, rows, m->width), make(b, b->dtype, 1, m->width),
              make(b, b->dtype, rows, m->mlp), make(b, b->dtype, rows, 2 * m->mlp)},
        .f = {make_bytes(b, rows * 4), make(b, DTYPE_F32, 1, m->width).data},
    };
    b->ops->fill(b->device, job.t[2], 0.0F); /* adding it again and again changes nothing */
    measure(b, "rmsnorm_forward", "with residual", 0.0, 4.0 * row_bytes, run_norm_forward, &job);
    measure(b, "rmsnorm_backward", "", 0.0, 4.0 * row_bytes, run_norm_backward, &job);
    measure(b, "swiglu_forward", "", 0.0, 3.0 * size * (double)(rows * m->mlp), run_swiglu_forward,
            &job);
    measure(b, "swiglu_backward", "", 0.0, 5.0 * size * (double)(rows * m->mlp),
            run_swiglu_backward, &job);
    clear(b);
}

static void run_cross_entropy(struct bench *b, const struct job *j)
{
    b->ops->cross_entropy(b->device, j->f[0], j->t[0], j->i[0], 0.1F, true);
}

static void run_gather(struct bench *b, const struct job *j)
{
    b->ops->gather_rows(b->device, j->t[2], j->t[1], j->i[0]);
}

static void run_scatter(struct bench *b, const struct job *j)
{
    b->ops->scatter_add_rows(b->device, j->t[3], j->t[2], j->i[0]);
}

static void bench_head(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch;
    const double size = (double)dtype_bytes(b->dtype);
    const int64_t loss_rows = rows / 4;
    struct job job = {
        .t = {make(b, b->dtype, loss_rows, m->vocabulary),
              make(b, b->dtype, m->vocabulary, m->width), make(b, b->dtype, rows, m->width),
              make(b, DTYPE_F32, m->vocabulary, m->width)},
        .f = {make_bytes(b, rows * 4)},
        .i = {make_ints(b, rows, 7919, m->vocabulary)},
    };
    measure(b, "cross_entropy", "with gradient", 0.0,
            2.0 * size * (double)(loss_rows * m->vocabulary), run_cross_entropy, &job);
    measure(b, "gather_rows", "", 0.0, 2.0 * size * (double)(rows * m->width), run_gather, &job);
    measure(b, "scatter_add_rows", "", 0.0, (size + 8.0) * (double)(rows * m->width), run_scatter,
            &job);
    clear(b);
}

static void run_norm_of_gradients(struct bench *b, const struct job *j)
{
    b->ops->gradient_norm(b->device, j->f[0], &j->slot, 1);
}

static void run_adamw(struct bench *b, const struct job *j)
{
    const struct adamw_step step = {1e-4F, 0.9F, 0.95F, 1e-8F, 10, 1.0F};
    b->ops->adamw(b->device, &j->slot, 1, j->f[0], &step);
}

static void bench_optimizer(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t qkv = (m->heads + 2 * m->kv_heads) * m->dim;
    const int64_t layer = m->width * (qkv + m->heads * m->dim + 3 * m->mlp);
    const int64_t count = 2 * layer + m->vocabulary * m->width;
    const bool bf16 = b->dtype == DTYPE_BF16;
    struct job job = {
        .f = {make_bytes(b, 64)},
        .slot = {.master = make(b, DTYPE_F32, 1, count).data,
                 .weights_bf16 = bf16 ? make_bytes(b, count * 2) : NULL,
                 .grad = make(b, DTYPE_F32, 1, count).data,
                 .first_moment = make(b, DTYPE_F32, 1, count).data,
                 .second_moment = make_bytes(b, count * 4),
                 .count = count,
                 .weight_decay = 0.1F},
    };
    b->ops->fill(b->device, tensor_matrix(job.slot.second_moment, DTYPE_F32, 1, count), 1e-3F);
    measure(b, "gradient_norm", "", 0.0, 4.0 * (double)count, run_norm_of_gradients, &job);
    measure(b, "adamw", "", 0.0, (bf16 ? 30.0 : 28.0) * (double)count, run_adamw, &job);
    clear(b);
}

static void run_decode(struct bench *b, const struct job *j)
{
    b->ops->attention_decode(b->device, j->t[1], j->t[0], &j->cache, &j->shape, j->i[0], j->i[1]);
}

static void run_sample(struct bench *b, const struct job *j)
{
    const struct sampling sampling = {j->beta, 40, 0.95F};
    b->ops->sample(b->device, j->i[2], j->t[2], &sampling, j->f[0]);
}

static void bench_generation(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t kv = m->kv_heads * m->dim;
    const double size = (double)dtype_bytes(b->dtype);
    struct job job = {
        .t = {make(b, b->dtype, m->batch, m->heads * m->dim + 2 * kv),
              make(b, b->dtype, m->batch, m->heads * m->dim),
              make(b, b->dtype, m->batch, m->vocabulary)},
        .f = {make(b, DTYPE_F32, 1, m->batch).data},
        .i = {make_ints(b, m->batch, 1, m->batch), make_ints(b, m->batch, 0, 1),
              make_ints(b, m->batch, 0, 1)},
        .shape = {m->heads, m->kv_heads, m->dim, 1.0F / sqrtf((float)m->dim)},
        .cache = {make(b, b->dtype, m->batch * m->length, kv),
                  make(b, b->dtype, m->batch * m->length, kv), m->length},
    };
    int32_t *last = mem_calloc((size_t)m->batch, sizeof(*last));
    if (last == NULL) {
        stop("no memory");
    }
    for (int64_t i = 0; i < m->batch; i++) {
        last[i] = (int32_t)m->length - 1;
    }
    b->ops->upload(b->device, job.i[1], last, (size_t)m->batch * sizeof(*last));
    free(last);
    b->ops->fill(b->device, tensor_matrix(job.f[0], DTYPE_F32, 1, m->batch), 0.5F);
    measure(b, "attention_decode", "", 0.0, 2.0 * size * (double)(m->batch * m->length * kv),
            run_decode, &job);
    measure(b, "sample", "greedy", 0.0, size * (double)(m->batch * m->vocabulary), run_sample,
            &job);
    job.beta = 0.8F;
    measure(b, "sample", "top_k and top_p", 0.0, size * (double)(m->batch * m->vocabulary),
            run_sample, &job);
    clear(b);
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    struct error err = {0};
    struct device_options options = {.threads = argc > 1 ? atoi(argv[1]) : 0};
    char text[128];
    if (device_open("cpu", &options, &b.device, &err) != STATUS_OK) {
        stop(err.message);
    }
    b.ops = b.device->ops;
    b.threads = options.threads > 0 ? options.threads : omp_get_max_threads();
    b.only = argc > 2 && argv[2][0] != '\0' ? argv[2] : NULL;
    b.peak_gflops = measure_peak_gflops(b.threads);
    b.copy_gbs = measure_copy_gbs(b.threads);
    b.ops->describe(b.device, text, sizeof(text));
    printf("{\"device\": \"%s\", \"fma_gflops\": %.0f, \"copy_gbs\": %.1f}\n", text, b.peak_gflops,
           b.copy_gbs);
    for (int m = 0; m < MODELS; m++) {
        if (argc > 3 && strcmp(argv[3], models[m].name) != 0) {
            continue;
        }
        for (int d = 0; d < 2; d++) {
            b.model = &models[m];
            b.dtype = d == 0 ? DTYPE_F32 : DTYPE_BF16;
            bench_matmuls(&b);
            bench_attention(&b);
            bench_layers(&b);
            bench_head(&b);
            bench_optimizer(&b);
            bench_generation(&b);
        }
    }
    device_close(b.device);
    return 0;
}
