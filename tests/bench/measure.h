/* What bench_kernels measures with: buffers of random numbers that take turns, queued operations,
 * and the driver's lines. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdio.h>
#include <string.h>

#include "ceilings.h"
#include "random.h"

struct model_shape {
    const char *name;
    bool large;       /* only when asked for */
    int64_t width;    /* C */
    int64_t heads;    /* H */
    int64_t kv_heads; /* K */
    int64_t dim;      /* D */
    int64_t mlp;      /* F */
    int64_t vocabulary;
    int64_t length;      /* T */
    int64_t batch;       /* sequences */
    int64_t long_length; /* attention with as many tokens in longer sequences too; 0: none */
    bool qk_norm;
};

enum {
    ARRAYS_MAX = 96,
    SETS_MAX = 8, /* of buffers that take turns */
    DIMENSIONS_MAX = 5,
    BATCHES_MIN = 5,
    BATCHES_MAX = 100000,
    QUEUE_MAX = 2000,
};
static const double TURN_BYTES = 512e6; /* all sets together: several times a GPU's L2 cache */
static const double BATCH_S = 0.02;     /* of queued operations; waiting for them then is nothing */
static const double CASE_S = 0.2;

struct options {
    const char *backend;
    const char *op;
    const char *model;
    const char *dtype;
    int threads;
    bool list;
    bool lockstep;
};

struct bench {
    struct options options;
    struct device *device; /* NULL with --list */
    const struct ops *ops;
    bool on_cpu;
    int threads;
    double peak_gflops;
    double copy_gbs;
    struct random_block random;
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

/* -- data -- */

static inline void *make_bytes(struct bench *b, int64_t bytes)
{
    struct error err = {0};
    void *memory = NULL;
    if (b->device == NULL) {
        return NULL;
    }
    if (b->array_count == ARRAYS_MAX) {
        stop("more arrays than there is room for");
    }
    if (b->ops->alloc(b->device, (size_t)bytes, "the benchmark", &memory, &err) != STATUS_OK) {
        stop(err.message);
    }
    b->arrays[b->array_count++] = memory;
    return memory;
}

/* A tensor of random numbers. */
static inline struct tensor make(struct bench *b, enum dtype dtype, int64_t rows, int64_t cols)
{
    struct tensor t =
        tensor_matrix(make_bytes(b, rows * cols * (int64_t)dtype_bytes(dtype)), dtype, rows, cols);
    if (b->device != NULL) {
        random_fill(&b->random, t);
    }
    return t;
}

static inline struct tensor make_filled(struct bench *b, enum dtype dtype, int64_t rows,
                                        int64_t cols, float value)
{
    struct tensor t =
        tensor_matrix(make_bytes(b, rows * cols * (int64_t)dtype_bytes(dtype)), dtype, rows, cols);
    if (b->device != NULL) {
        b->ops->fill(b->device, t, value);
    }
    return t;
}

/* first, first + step, ... below modulus. */
static inline int32_t *make_ints(struct bench *b, int64_t count, int64_t first, int64_t step,
                                 int64_t modulus)
{
    int32_t *device = make_bytes(b, count * (int64_t)sizeof(*device));
    if (b->device == NULL) {
        return NULL;
    }
    int32_t *host = mem_calloc((size_t)count, sizeof(*host));
    if (host == NULL) {
        stop("no memory");
    }
    for (int64_t i = 0; i < count; i++) {
        host[i] = (int32_t)((first + i * step) % modulus);
    }
    b->ops->upload(b->device, device, host, (size_t)count * sizeof(*host));
    free(host);
    return device;
}

static inline void clear(struct bench *b)
{
    while (b->array_count > 0) {
        b->ops->free(b->device, b->arrays[--b->array_count]);
    }
}

/* -- measuring -- */

/* One operation with everything it needs. */
struct job {
    struct tensor t[7];
    float *f[3];
    int32_t *i[3];
    struct tensor changing; /* what the operation changes in place: made anew each time */
    struct attention_shape shape;
    int64_t sequences;
    struct kv_cache cache;
    struct optimizer_slot slot;
    bool transpose_a;
    bool transpose_b;
    float beta;
};

typedef void (*operation)(struct bench *b, const struct job *job);

/* What is measured: floating-point operations (0 where they do not count) and the fewest bytes that
 * memory must move. */
struct test_case {
    const char *op;
    const char *detail;
    double flop;
    double bytes;
    int64_t dimensions[DIMENSIONS_MAX]; /* for a peer; what they are depends on the operation */
    operation run;
};

/* The buffers of a case: as many sets as are several times a cache together. */
struct turns {
    struct job jobs[SETS_MAX];
    int count;
};

static inline int turns_of(const struct bench *b, double set_bytes)
{
    const double sets = b->on_cpu ? 1.0 : ceil(TURN_BYTES / set_bytes);
    return (int)fmin(fmax(sets, 1.0), SETS_MAX);
}

static inline bool wanted(const struct bench *b, const char *op)
{
    return b->options.op == NULL || strcmp(b->options.op, op) == 0;
}

/* Seconds of each of `queue` operations. */
static inline double time_batch(struct bench *b, const struct test_case *test,
                                const struct turns *turns, int queue)
{
    struct error err = {0};
    double start_s = clock_monotonic_s();
    for (int n = 0; n < queue; n++) {
        test->run(b, &turns->jobs[n % turns->count]);
    }
    if (b->ops->check(b->device, &err) != STATUS_OK) {
        stop(err.message);
    }
    return (clock_monotonic_s() - start_s) / queue;
}

static inline void refresh(struct bench *b, const struct turns *turns)
{
    struct error err = {0};
    for (int i = 0; i < turns->count; i++) {
        if (turns->jobs[i].changing.rows > 0) {
            random_fill(&b->random, turns->jobs[i].changing);
        }
    }
    if (b->ops->check(b->device, &err) != STATUS_OK) {
        stop(err.message);
    }
}

static inline int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of an operation over batches that fill `seconds`. */
static inline double time_case(struct bench *b, const struct test_case *test,
                               const struct turns *turns, double seconds)
{
    static double took_s[BATCHES_MAX];
    (void)time_batch(b, test, turns, turns->count); /* warm up */
    const double once_s = time_batch(b, test, turns, turns->count);
    const int queue = b->on_cpu ? 1 : (int)fmin(fmax(ceil(BATCH_S / once_s), 1.0), QUEUE_MAX);
    double spent_s = 0.0;
    int batches = 0;
    while (batches < BATCHES_MIN || (spent_s < seconds && batches < BATCHES_MAX)) {
        refresh(b, turns);
        took_s[batches] = time_batch(b, test, turns, queue);
        spent_s += took_s[batches++] * queue;
    }
    qsort(took_s, (size_t)batches, sizeof(took_s[0]), compare_double);
    return took_s[batches / 2];
}

static inline void print_case(const struct bench *b, const struct test_case *test, double took_s)
{
    printf("{\"bench\": \"kernels\", \"side\": \"trex\", \"op\": \"%s\", \"model\": \"%s\", "
           "\"detail\": \"%s\", \"dtype\": \"%s\", \"flop\": %.0f, \"bytes\": %.0f, "
           "\"dimensions\": [",
           test->op, b->model->name, test->detail, b->dtype == DTYPE_F32 ? "f32" : "bf16",
           test->flop, test->bytes);
    for (int i = 0; i < DIMENSIONS_MAX; i++) {
        printf("%s%lld", i > 0 ? ", " : "", (long long)test->dimensions[i]);
    }
    printf("]");
    if (!b->options.list) {
        const double rate = (test->flop > 0.0 ? test->flop : test->bytes) / took_s * 1e-9;
        const double ceiling = test->flop > 0.0 ? b->peak_gflops : b->copy_gbs;
        printf(", \"us\": %.2f, \"%s\": %.1f", took_s * 1e6, test->flop > 0.0 ? "gflops" : "gbs",
               rate);
        if (ceiling > 0.0) {
            printf(", \"of_ceiling\": %.2f", rate / ceiling);
        }
    }
    printf("}\n");
    (void)fflush(stdout);
}

/* Whether the driver wants this case measured (again); it ends the program by closing its end. */
static inline bool driver_says_again(void)
{
    char line[32];
    if (fgets(line, sizeof(line), stdin) == NULL) {
        exit(0);
    }
    return strcmp(line, "again\n") == 0;
}

static inline void measure(struct bench *b, const struct test_case *test, const struct turns *turns)
{
    if (!wanted(b, test->op)) {
        return;
    }
    if (b->options.list) {
        print_case(b, test, 0.0);
    } else if (b->options.lockstep) {
        while (driver_says_again()) {
            print_case(b, test, time_case(b, test, turns, 0.0));
        }
    } else {
        print_case(b, test, time_case(b, test, turns, CASE_S));
    }
}

#endif
