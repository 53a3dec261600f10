/* Speed of each operation at the shapes of models, one JSON object a line:
 *
 *   bench_kernels [--backend cpu|cuda|auto] [--threads N] [--op NAME] [--model NAME]
 *                 [--dtype f32|bf16] [--list | --lockstep]
 *
 * Each figure is the median of batches of operations that are queued one after the other, each on
 * buffers of its own turn, so that the numbers of the last one are not in the cache of the next:
 * "us" an operation. Attention counts the scores that the mask leaves.
 *
 * On the CPU a batch is one operation and the ceilings are measured here: of an operation that
 * computes what a loop of nothing but fused multiply-adds reaches in f32, of one that moves what a
 * plain copy does; "of_ceiling" may pass 1 where there is bf16 hardware or where the numbers stay
 * in a cache. On other devices the operation "copy" is the ceiling.
 *
 * --list runs nothing and prints the cases, with their operations, bytes and dimensions. --lockstep
 * reads a line before each measurement, "again" or "next" (case), so that a driver can let this
 * program and a peer take turns (tests/gpu/bench.py). */
#include "measure.h"

static const struct model_shape models[] = {
    {"stories260K", false, 64, 8, 4, 8, 172, 512, 256, 8, 0, false},
    {"15M", false, 288, 6, 6, 48, 768, 32000, 256, 8, 0, false},
    {"125M", false, 768, 12, 12, 64, 2048, 32000, 512, 2, 0, false},
    {"tiny", true, 64, 4, 2, 16, 128, 512, 64, 2, 128, true}, /* whether the scripts work */
    {"qwen3-1.7b", true, 2048, 16, 8, 128, 6144, 151936, 2048, 8, 8192, true},
};
enum { MODELS = sizeof(models) / sizeof(models[0]) };

/* -- matrix products -- */

static void run_matmul(struct bench *b, const struct job *j)
{
    b->ops->matmul(b->device, j->t[0], j->t[1], j->transpose_a, j->t[2], j->transpose_b, 1.0F,
                   j->beta);
}

/* The product that the jobs of `turns` say. */
static void bench_product(struct bench *b, const char *detail, const struct turns *turns)
{
    const struct job *job = &turns->jobs[0];
    const struct tensor c = job->t[0];
    const int64_t depth = job->transpose_a ? job->t[1].rows : job->t[1].cols;
    const double bytes = (double)(c.rows * c.cols) * (double)dtype_bytes(c.dtype);
    const struct test_case test = {
        .op = "matmul",
        .detail = detail,
        .flop = 2.0 * (double)c.rows * (double)c.cols * (double)depth,
        .bytes = (double)dtype_bytes(b->dtype) * (double)((c.rows + c.cols) * depth) +
                 (job->beta > 0.0F ? 2.0 * bytes : bytes),
        .dimensions = {c.rows, c.cols, depth, job->transpose_a, job->transpose_b},
        .run = run_matmul,
    };
    measure(b, &test, turns);
}

enum { PRODUCTS = 3 };

/* y = x W' of one linear layer, and with all PRODUCTS dx = dy W and dW += dy' x. */
static void bench_linear(struct bench *b, const char *detail, int64_t rows, int64_t in, int64_t out,
                         int products)
{
    static const char *const names[PRODUCTS] = {"forward", "input gradient", "weight gradient"};
    char text[64];
    struct turns turns[PRODUCTS];
    if (!wanted(b, "matmul")) {
        return;
    }
    const double size = (double)dtype_bytes(b->dtype);
    const int sets = turns_of(b, size * (double)(rows * (in + out) + in * out));
    for (int i = 0; i < sets; i++) {
        struct tensor x = make(b, b->dtype, rows, in);
        struct tensor w = make(b, b->dtype, out, in);
        struct tensor y = make(b, b->dtype, rows, out);
        struct tensor dx = make(b, b->dtype, rows, in);
        struct tensor dw = make(b, DTYPE_F32, out, in);
        struct tensor to = make(b, b->dtype, rows, out);
        turns[0].jobs[i] = (struct job){.t = {to, x, w}, .transpose_b = true};
        turns[1].jobs[i] = (struct job){.t = {dx, y, w}};
        turns[2].jobs[i] = (struct job){.t = {dw, y, x}, .transpose_a = true, .beta = 1.0F};
    }
    for (int i = 0; i < products; i++) {
        turns[i].count = sets;
        (void)snprintf(text, sizeof(text), "%s %s", detail, names[i]);
        bench_product(b, text, &turns[i]);
    }
    clear(b);
}

static void bench_matmuls(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch;
    bench_linear(b, "qkv", rows, m->width, (m->heads + 2 * m->kv_heads) * m->dim, PRODUCTS);
    bench_linear(b, "attention out", rows, m->heads * m->dim, m->width, PRODUCTS);
    bench_linear(b, "gate and up", rows, m->width, 2 * m->mlp, PRODUCTS);
    bench_linear(b, "down", rows, m->mlp, m->width, PRODUCTS);
    bench_linear(b, "head", rows / 4, m->width, m->vocabulary, PRODUCTS);
    bench_linear(b, "decode", 1, m->width, 2 * m->mlp, 1);
    bench_linear(b, "lora down", rows, m->width, 8, PRODUCTS);
}

/* -- adapters -- */

enum { LOW_RANK_PARTS = 3 };

/* y += u B' for query, key and value. */
static void run_low_rank_add(struct bench *b, const struct job *j)
{
    struct low_rank_part parts[LOW_RANK_PARTS];
    int64_t first = 0;
    int64_t first_inner = 0;
    for (int i = 0; i < LOW_RANK_PARTS; i++) {
        parts[i] = (struct low_rank_part){first, first_inner, j->t[2 + i]};
        first += j->t[2 + i].rows;
        first_inner += j->t[2 + i].cols;
    }
    b->ops->low_rank_add(b->device, j->t[0], j->t[1], parts, LOW_RANK_PARTS, 1.0F);
}

static void bench_low_rank(struct bench *b, const char *detail, int64_t rank)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch;
    const int64_t query = m->heads * m->dim;
    const int64_t key = m->kv_heads * m->dim;
    const int64_t width = query + 2 * key;
    const double bytes = (double)dtype_bytes(b->dtype) *
                         (double)(2 * rows * width + rows * LOW_RANK_PARTS * rank + width * rank);
    struct turns turns;
    if (!wanted(b, "low_rank_add")) {
        return;
    }
    turns.count = turns_of(b, bytes);
    for (int i = 0; i < turns.count; i++) {
        struct tensor y = make(b, b->dtype, rows, width);
        turns.jobs[i] = (struct job){
            .t = {y, make(b, b->dtype, rows, LOW_RANK_PARTS * rank), make(b, b->dtype, query, rank),
                  make(b, b->dtype, key, rank), make(b, b->dtype, key, rank)},
            .changing = y,
        };
    }
    const struct test_case test = {
        .op = "low_rank_add",
        .detail = detail,
        .flop = 2.0 * (double)(rows * width * rank),
        .bytes = bytes,
        .dimensions = {rows, query, key, key, rank},
        .run = run_low_rank_add,
    };
    measure(b, &test, &turns);
    clear(b);
}

/* -- attention -- */

static void run_attention_forward(struct bench *b, const struct job *j)
{
    b->ops->attention_forward(b->device, j->t[1], j->f[0], j->t[0], &j->shape, j->i[0],
                              j->sequences);
}

static void run_attention_backward(struct bench *b, const struct job *j)
{
    b->ops->attention_backward(b->device, j->t[2], j->t[3], j->t[0], j->t[1], j->f[0], &j->shape,
                               j->i[0], j->sequences);
}

static struct attention_shape attention_of(const struct model_shape *m)
{
    return (struct attention_shape){m->heads, m->kv_heads, m->dim, 1.0F / sqrtf((float)m->dim)};
}

static void bench_attention(struct bench *b, int64_t length, int64_t sequences)
{
    const struct model_shape *m = b->model;
    const int64_t rows = length * sequences;
    const int64_t width = (m->heads + 2 * m->kv_heads) * m->dim;
    const double scores = (double)(length * (length + 1) / 2 * sequences * m->heads);
    const double size = (double)dtype_bytes(b->dtype);
    const double in_bytes = size * (double)(rows * width);
    const double out_bytes = size * (double)(rows * m->heads * m->dim);
    char detail[64];
    struct turns turns = {.count = 1};
    if (!wanted(b, "attention_forward") && !wanted(b, "attention_backward")) {
        return;
    }
    turns.count = turns_of(b, in_bytes);
    for (int i = 0; i < turns.count; i++) {
        turns.jobs[i] = (struct job){
            .t = {make(b, b->dtype, rows, width), make(b, b->dtype, rows, m->heads * m->dim),
                  make(b, b->dtype, rows, width), make(b, b->dtype, rows, m->heads * m->dim)},
            .f = {make_bytes(b, rows * m->heads * 4)},
            .i = {make_ints(b, sequences + 1, 0, length, rows + 1)},
            .shape = attention_of(m),
            .sequences = sequences,
        };
        if (b->device != NULL) {
            run_attention_forward(b, &turns.jobs[i]); /* what the backward pass reads */
        }
    }
    (void)snprintf(detail, sizeof(detail), "%lld x %lld", (long long)sequences, (long long)length);
    struct test_case test = {
        .op = "attention_forward",
        .detail = detail,
        .flop = 4.0 * scores * (double)m->dim,
        .bytes = in_bytes + out_bytes,
        .dimensions = {sequences, length, m->heads, m->kv_heads, m->dim},
        .run = run_attention_forward,
    };
    measure(b, &test, &turns);
    test.op = "attention_backward";
    test.flop = 10.0 * scores * (double)m->dim;
    test.bytes = 2.0 * in_bytes + 2.0 * out_bytes;
    test.run = run_attention_backward;
    measure(b, &test, &turns);
    clear(b);
}

/* -- what moves more than it computes -- */

static void run_rope_forward(struct bench *b, const struct job *j)
{
    const bool norm = b->model->qk_norm;
    b->ops->qk_norm_rope_forward(b->device, j->t[2], norm ? j->f[0] : NULL, j->t[0], &j->shape,
                                 norm ? &j->t[3] : NULL, norm ? &j->t[3] : NULL, 1e-5F, j->t[4],
                                 j->i[1]);
}

static void run_rope_backward(struct bench *b, const struct job *j)
{
    const bool norm = b->model->qk_norm;
    b->ops->qk_norm_rope_backward(b->device, j->t[2], norm ? j->f[1] : NULL, norm ? j->f[2] : NULL,
                                  j->t[0], norm ? j->f[0] : NULL, &j->shape, norm ? &j->t[3] : NULL,
                                  norm ? &j->t[3] : NULL, j->t[4], j->i[1]);
}

static void bench_rope(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch;
    const int64_t width = (m->heads + 2 * m->kv_heads) * m->dim;
    const double size = (double)dtype_bytes(b->dtype);
    const double turned = size * (double)(rows * (m->heads + m->kv_heads) * m->dim);
    struct turns turns;
    if (!wanted(b, "qk_norm_rope_forward") && !wanted(b, "qk_norm_rope_backward")) {
        return;
    }
    turns.count = turns_of(b, 2.0 * size * (double)(rows * width));
    for (int i = 0; i < turns.count; i++) {
        struct tensor to = make(b, b->dtype, rows, width);
        turns.jobs[i] = (struct job){
            /* Norm weights of 1/2 let gradients that go around in place neither grow nor vanish. */
            .t = {make(b, b->dtype, rows, width), to, to, make_filled(b, b->dtype, 1, m->dim, 0.5F),
                  make(b, DTYPE_F32, m->length, m->dim)},
            .f = {make(b, DTYPE_F32, rows, m->heads + m->kv_heads).data,
                  make(b, DTYPE_F32, 1, m->dim).data, make(b, DTYPE_F32, 1, m->dim).data},
            .i = {NULL, make_ints(b, rows, 0, 1, m->length)},
            .changing = to,
            .shape = attention_of(m),
        };
        if (b->device != NULL) {
            run_rope_forward(b, &turns.jobs[i]); /* the statistics that the backward pass reads */
        }
    }
    struct test_case test = {
        .op = "qk_norm_rope_forward",
        .detail = "",
        .bytes = 2.0 * size * (double)(rows * width),
        .run = run_rope_forward,
    };
    measure(b, &test, &turns);
    test.op = "qk_norm_rope_backward";
    test.bytes = (m->qk_norm ? 3.0 : 2.0) * turned;
    test.run = run_rope_backward;
    measure(b, &test, &turns);
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

static void bench_norm(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch;
    const double row_bytes = (double)dtype_bytes(b->dtype) * (double)(rows * m->width);
    struct turns turns;
    if (!wanted(b, "rmsnorm_forward") && !wanted(b, "rmsnorm_backward")) {
        return;
    }
    turns.count = turns_of(b, 3.0 * row_bytes);
    for (int i = 0; i < turns.count; i++) {
        struct tensor x = make(b, b->dtype, rows, m->width);
        turns.jobs[i] = (struct job){
            .t = {make(b, b->dtype, rows, m->width), x, make(b, b->dtype, rows, m->width),
                  make(b, b->dtype, 1, m->width)},
            .f = {make_bytes(b, rows * 4), make(b, DTYPE_F32, 1, m->width).data},
            .changing = x,
        };
    }
    struct test_case test = {
        .op = "rmsnorm_forward",
        .detail = "with residual",
        .bytes = 4.0 * row_bytes,
        .run = run_norm_forward,
    };
    if (b->device != NULL) {
        for (int i = 0; i < turns.count; i++) {
            run_norm_forward(b, &turns.jobs[i]);
        }
    }
    measure(b, &test, &turns);
    test = (struct test_case){"rmsnorm_backward", "", 0.0, 4.0 * row_bytes, {0}, run_norm_backward};
    measure(b, &test, &turns);
    clear(b);
}

static void run_swiglu_forward(struct bench *b, const struct job *j)
{
    b->ops->swiglu_forward(b->device, j->t[0], j->t[1]);
}

static void run_swiglu_backward(struct bench *b, const struct job *j)
{
    b->ops->swiglu_backward(b->device, j->t[2], j->t[0], j->t[1]);
}

static void bench_swiglu(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch;
    const double bytes = (double)dtype_bytes(b->dtype) * (double)(rows * m->mlp);
    struct turns turns;
    if (!wanted(b, "swiglu_forward") && !wanted(b, "swiglu_backward")) {
        return;
    }
    turns.count = turns_of(b, 3.0 * bytes);
    for (int i = 0; i < turns.count; i++) {
        turns.jobs[i] =
            (struct job){.t = {make(b, b->dtype, rows, m->mlp), make(b, b->dtype, rows, 2 * m->mlp),
                               make(b, b->dtype, rows, 2 * m->mlp)}};
    }
    const struct test_case forward = {"swiglu_forward", "",  0.0,
                                      3.0 * bytes,      {0}, run_swiglu_forward};
    const struct test_case backward = {"swiglu_backward", "",  0.0,
                                       5.0 * bytes,       {0}, run_swiglu_backward};
    measure(b, &forward, &turns);
    measure(b, &backward, &turns);
    clear(b);
}

static void run_cross_entropy(struct bench *b, const struct job *j)
{
    b->ops->cross_entropy(b->device, j->f[0], j->t[0], j->i[0], 0.1F, true);
}

static void bench_cross_entropy(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch / 4;
    const double bytes = (double)dtype_bytes(b->dtype) * (double)(rows * m->vocabulary);
    struct turns turns;
    if (!wanted(b, "cross_entropy")) {
        return;
    }
    turns.count = turns_of(b, bytes);
    for (int i = 0; i < turns.count; i++) {
        struct tensor logits = make(b, b->dtype, rows, m->vocabulary);
        turns.jobs[i] = (struct job){.t = {logits},
                                     .f = {make_bytes(b, rows * 4)},
                                     .i = {make_ints(b, rows, 0, 7919, m->vocabulary)},
                                     .changing = logits};
    }
    const struct test_case test = {"cross_entropy",  "with gradient", 0.0, 2.0 * bytes, {0},
                                   run_cross_entropy};
    measure(b, &test, &turns);
    clear(b);
}

static void run_gather(struct bench *b, const struct job *j)
{
    b->ops->gather_rows(b->device, j->t[0], j->t[1], j->i[0]);
}

static void run_scatter(struct bench *b, const struct job *j)
{
    b->ops->scatter_add_rows(b->device, j->t[2], j->t[0], j->i[0]);
}

static void bench_embedding(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch;
    const double size = (double)dtype_bytes(b->dtype);
    struct turns turns;
    if (!wanted(b, "gather_rows") && !wanted(b, "scatter_add_rows")) {
        return;
    }
    turns.count = turns_of(b, 2.0 * size * (double)(rows * m->width));
    for (int i = 0; i < turns.count; i++) {
        turns.jobs[i] = (struct job){.t = {make(b, b->dtype, rows, m->width),
                                           make(b, b->dtype, m->vocabulary, m->width),
                                           make(b, DTYPE_F32, m->vocabulary, m->width)},
                                     .i = {make_ints(b, rows, i, 7919, m->vocabulary)}};
    }
    const double numbers = (double)(rows * m->width);
    const struct test_case gather = {"gather_rows", "", 0.0, 2.0 * size * numbers, {0}, run_gather};
    const struct test_case scatter = {"scatter_add_rows",     "",  0.0,
                                      (size + 8.0) * numbers, {0}, run_scatter};
    measure(b, &gather, &turns);
    measure(b, &scatter, &turns);
    clear(b);
}

static void run_copy(struct bench *b, const struct job *j)
{
    b->ops->copy(b->device, j->t[0], j->t[1]);
}

static void run_add(struct bench *b, const struct job *j)
{
    b->ops->add(b->device, j->t[2], j->t[1]);
}

/* A copy to the same dtype is the ceiling of all that moves. */
static void bench_moving(struct bench *b)
{
    const struct model_shape *m = b->model;
    const int64_t rows = m->length * m->batch * 4;
    const double numbers = (double)(rows * m->width);
    const double size = (double)dtype_bytes(b->dtype);
    struct turns turns;
    if (!wanted(b, "copy") && !wanted(b, "add")) {
        return;
    }
    turns.count = turns_of(b, 2.0 * size * numbers);
    for (int i = 0; i < turns.count; i++) {
        turns.jobs[i] =
            (struct job){.t = {make(b, b->dtype, rows, m->width), make(b, b->dtype, rows, m->width),
                               make(b, DTYPE_F32, rows, m->width)}};
    }
    const struct test_case copy = {"copy",           "",      0.0, 2.0 * size * numbers,
                                   {rows, m->width}, run_copy};
    const struct test_case add = {"add", "to f32", 0.0, (size + 8.0) * numbers, {0}, run_add};
    measure(b, &copy, &turns);
    measure(b, &add, &turns);
    clear(b);
}

/* -- optimizer -- */

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
    if (!wanted(b, "gradient_norm") && !wanted(b, "adamw")) {
        return;
    }
    const struct job job = {
        .f = {make_bytes(b, 64)},
        .slot = {.master = make(b, DTYPE_F32, 1, count).data,
                 .weights_bf16 = bf16 ? make_bytes(b, count * 2) : NULL,
                 .grad = make(b, DTYPE_F32, 1, count).data,
                 .first_moment = make(b, DTYPE_F32, 1, count).data,
                 .second_moment = make_filled(b, DTYPE_F32, 1, count, 1e-3F).data,
                 .count = count,
                 .weight_decay = 0.1F},
    };
    if (b->device != NULL) {
        run_norm_of_gradients(b, &job); /* adamw reads the norm */
    }
    const struct turns turns = {.jobs = {job}, .count = 1};
    const struct test_case norm = {"gradient_norm",     "",  0.0,
                                   4.0 * (double)count, {0}, run_norm_of_gradients};
    const struct test_case adamw = {"adamw", "",       0.0, (bf16 ? 30.0 : 28.0) * (double)count,
                                    {0},     run_adamw};
    measure(b, &norm, &turns);
    measure(b, &adamw, &turns);
    clear(b);
}

/* -- generation -- */

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
    const double cache_bytes = 2.0 * size * (double)(m->batch * m->length * kv);
    const double logit_bytes = size * (double)(m->batch * m->vocabulary);
    struct turns turns;
    if (!wanted(b, "attention_decode") && !wanted(b, "sample")) {
        return;
    }
    turns.count = turns_of(b, cache_bytes);
    for (int i = 0; i < turns.count; i++) {
        turns.jobs[i] = (struct job){
            .t = {make(b, b->dtype, m->batch, m->heads * m->dim + 2 * kv),
                  make(b, b->dtype, m->batch, m->heads * m->dim),
                  make(b, b->dtype, m->batch, m->vocabulary)},
            .f = {make_filled(b, DTYPE_F32, 1, m->batch, 0.5F).data},
            .i = {make_ints(b, m->batch, 0, 1, m->batch),
                  make_ints(b, m->batch, m->length - 1, 0, m->length),
                  make_ints(b, m->batch, 0, 0, 1)},
            .shape = attention_of(m),
            .cache = {make(b, b->dtype, m->batch * m->length, kv),
                      make(b, b->dtype, m->batch * m->length, kv), m->length},
        };
    }
    struct test_case test = {"attention_decode", "", 0.0, cache_bytes, {0}, run_decode};
    measure(b, &test, &turns);
    test = (struct test_case){"sample", "greedy", 0.0, logit_bytes, {0}, run_sample};
    measure(b, &test, &turns);
    for (int i = 0; i < turns.count; i++) {
        turns.jobs[i].beta = 0.8F;
    }
    test.detail = "top_k and top_p";
    measure(b, &test, &turns);
    clear(b);
}

/* -- all of it -- */

static void bench_model(struct bench *b)
{
    const struct model_shape *m = b->model;
    bench_moving(b);
    bench_matmuls(b);
    bench_low_rank(b, "qkv, rank 16", 16);
    bench_low_rank(b, "qkv, rank 64", 64);
    bench_attention(b, m->length, m->batch);
    if (m->long_length > 0) {
        bench_attention(b, m->long_length, m->length * m->batch / m->long_length);
    }
    bench_rope(b);
    bench_norm(b);
    bench_swiglu(b);
    bench_cross_entropy(b);
    bench_embedding(b);
    bench_optimizer(b);
    bench_generation(b);
}

static void open_device(struct bench *b)
{
    struct error err = {0};
    struct device_options options = {.threads = b->options.threads};
    char text[256];
    if (device_open(b->options.backend, &options, &b->device, &err) != STATUS_OK) {
        stop(err.message);
    }
    b->ops = b->device->ops;
    b->on_cpu = strcmp(b->ops->name, "cpu") == 0;
    b->threads = options.threads > 0 ? options.threads : omp_get_max_threads();
    if (random_block_make(&b->random, b->device, RANDOM_BLOCK_MAX, 1.0F, &err) != STATUS_OK) {
        stop(err.message);
    }
    if (b->on_cpu && !b->options.lockstep) {
        b->peak_gflops = measure_peak_gflops(b->threads);
        b->copy_gbs = measure_copy_gbs(b->threads);
    }
    b->ops->describe(b->device, text, sizeof(text));
    printf("{\"device\": \"%s\", \"fma_gflops\": %.0f, \"copy_gbs\": %.1f}\n", text, b->peak_gflops,
           b->copy_gbs);
    (void)fflush(stdout);
}

static _Noreturn void usage(void)
{
    (void)fprintf(stderr,
                  "usage: bench_kernels [--backend cpu|cuda|auto] [--threads N] [--op NAME] "
                  "[--model NAME] [--dtype f32|bf16] [--list | --lockstep]\nmodels:");
    for (int i = 0; i < MODELS; i++) {
        (void)fprintf(stderr, " %s", models[i].name);
    }
    (void)fprintf(stderr, "\n");
    exit(2);
}

static struct options read_options(int argc, char **argv)
{
    struct options options = {.backend = "cpu"};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--list") == 0) {
            options.list = true;
            continue;
        }
        if (strcmp(argv[i], "--lockstep") == 0) {
            options.lockstep = true;
            continue;
        }
        if (value == NULL) {
            usage();
        }
        if (strcmp(argv[i], "--backend") == 0) {
            options.backend = value;
        } else if (strcmp(argv[i], "--threads") == 0) {
            options.threads = atoi(value);
        } else if (strcmp(argv[i], "--op") == 0) {
            options.op = value;
        } else if (strcmp(argv[i], "--model") == 0) {
            options.model = value;
        } else if (strcmp(argv[i], "--dtype") == 0) {
            options.dtype = value;
        } else {
            usage();
        }
        i++;
    }
    return options;
}

int main(int argc, char **argv)
{
    static const char *const dtypes[] = {"f32", "bf16"};
    struct bench b = {.options = read_options(argc, argv)};
    if (!b.options.list) {
        open_device(&b);
    }
    for (int m = 0; m < MODELS; m++) {
        b.model = &models[m];
        if (b.options.model != NULL ? strcmp(b.options.model, b.model->name) != 0
                                    : b.model->large) {
            continue;
        }
        for (int d = 0; d < 2; d++) {
            b.dtype = d == 0 ? DTYPE_F32 : DTYPE_BF16;
            if (b.options.dtype == NULL || strcmp(b.options.dtype, dtypes[d]) == 0) {
                bench_model(&b);
            }
        }
    }
    random_block_free(&b.random);
    device_close(b.device);
    return 0;
}
