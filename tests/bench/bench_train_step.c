/* Training steps of models with random weights, as one line of JSON: tokens per second, memory,
 * losses.
 *
 *     bench_train_step --shape 125m --method full --precision bf16 [--backend cpu|cuda|auto]
 *                      [--steps 6] [--each 1] [--threads N] [--save FILE | --list]
 *
 * Every step is one micro-batch of the same random tokens, all of them targets. The time is the
 * median over --steps groups of --each steps. --save writes the initial weights and the tokens as
 * safetensors for the peer (peer_train_step.py), so that its losses can be compared first. --list
 * runs nothing and prints the case with its operations and bytes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/family.h"
#include "model/safetensors.h"
#include "random_weights.h"
#include "train/trainer.h"

enum { STEPS_MAX = 1000, WARMUP_STEPS = 2, CEILING_RUNS = 4, LORA_RANK = 8 };
static const double OPTIMIZER_BYTES = 30.0; /* of each trained parameter: AdamW reads f32 weight,
                                             * gradient and moments, writes them and bf16 */

struct shape {
    const char *name;
    const struct model_family *family;
    int64_t hidden, layers, heads, kv_heads, head_dim, intermediate, vocabulary;
    int64_t length;    /* T */
    int64_t sequences; /* B */
};

static const struct shape shapes[] = {
    /* what a step costs beside its products */
    {"260k", &model_family_llama, 64, 5, 8, 8, 8, 172, 512, 64, 16},
    {"15m", &model_family_llama, 288, 6, 6, 6, 48, 768, 32000, 256, 8},
    {"125m", &model_family_llama, 768, 12, 12, 12, 64, 2048, 32000, 512, 2},
    /* whether two backends agree */
    {"qwen3-tiny", &model_family_qwen3, 256, 2, 4, 2, 128, 512, 2048, 256, 4},
    {"qwen3-1.7b", &model_family_qwen3, 2048, 28, 16, 8, 128, 6144, 151936, 2048, 8},
};
enum { SHAPE_COUNT = sizeof(shapes) / sizeof(shapes[0]) };

struct options {
    const struct shape *shape;
    enum train_method method;
    enum train_precision precision;
    const char *backend;
    int64_t steps;
    int64_t each;
    int threads;
    const char *save;
    bool list;
};

/* ---- the case
 * -------------------------------------------------------------------------------------------------
 */

static struct model_config model_config_of(const struct shape *shape)
{
    return (struct model_config){
        .family = shape->family,
        .hidden_size = shape->hidden,
        .intermediate_size = shape->intermediate,
        .layers = shape->layers,
        .heads = shape->heads,
        .kv_heads = shape->kv_heads,
        .head_dim = shape->head_dim,
        .vocab_size = shape->vocabulary,
        .max_positions = shape->length,
        .norm_epsilon = 1e-5,
        .rope_theta = 10000.0,
        .rope_factor = 1.0,
        .tied_embeddings = true,
        .qk_norm = shape->family->qk_norm,
    };
}

static enum status build_model(const struct shape *shape, struct device *device, enum dtype dtype,
                               struct model *model, struct error *err)
{
    memset(model, 0, sizeof(*model));
    model->config = model_config_of(shape);
    TRY(param_table_build(&model->config, &model->table, err));
    TRY(weights_create(device, &model->table, dtype, &model->weights, err));
    return random_weights(&model->weights, err);
}

static enum status build_dataset(const struct shape *shape, struct encoded_dataset *dataset,
                                 struct error *err)
{
    size_t tokens = (size_t)(shape->length * shape->sequences);
    struct rng rng;
    rng_init(&rng, 7, 0);
    memset(dataset, 0, sizeof(*dataset));
    dataset->ids = mem_calloc(tokens, sizeof(*dataset->ids));
    dataset->target = mem_calloc(tokens, sizeof(*dataset->target));
    dataset->start = mem_calloc((size_t)shape->sequences + 1, sizeof(*dataset->start));
    dataset->row = mem_calloc((size_t)shape->sequences, sizeof(*dataset->row));
    if (dataset->ids == NULL || dataset->target == NULL || dataset->start == NULL ||
        dataset->row == NULL) {
        return mem_fail(err, tokens * sizeof(*dataset->ids), "tokens");
    }
    for (size_t i = 0; i < tokens; i++) {
        dataset->ids[i] = (int32_t)rng_below(&rng, (uint64_t)shape->vocabulary);
        dataset->target[i] = 1;
    }
    for (int64_t s = 0; s < shape->sequences; s++) {
        dataset->start[s + 1] = (s + 1) * shape->length;
        dataset->row[s] = s;
    }
    dataset->count = shape->sequences;
    dataset->answer_tokens = (shape->length - 1) * shape->sequences;
    return STATUS_OK;
}

static struct train_config build_config(const struct options *options)
{
    struct train_config config = train_config_default();
    config.method = options->method;
    config.lora =
        (struct lora_config){.rank = LORA_RANK, .alpha = 2.0 * LORA_RANK, .targets = LORA_ALL};
    config.learning_rate = 1e-4;
    config.schedule = TRAIN_CONSTANT;
    config.warmup_ratio = 0.0;
    config.epochs = STEPS_MAX;
    config.batch_tokens = options->shape->length * options->shape->sequences;
    config.precision = options->precision;
    config.validations = 0;
    return config;
}

/* ---- what the peer starts from
 * -------------------------------------------------------------------------------- */

struct tensors {
    const struct weights *weights;
    const struct weights *adapter; /* NULL: none */
    const struct encoded_dataset *dataset;
};

/* Entries in order: the model's parameters, the adapter's, the ids (f32 holds them exactly). */
static enum status read_tensor(void *context, int64_t index, void *to, struct error *err)
{
    (void)err;
    const struct tensors *tensors = context;
    int64_t base = tensors->weights->table->count;
    int64_t adapter = tensors->adapter != NULL ? tensors->adapter->table->count : 0;
    if (index < base) {
        weights_get(tensors->weights, index, to);
    } else if (index < base + adapter) {
        weights_get(tensors->adapter, index - base, to);
    } else {
        const struct encoded_dataset *dataset = tensors->dataset;
        for (int64_t i = 0; i < dataset->start[dataset->count]; i++) {
            ((float *)to)[i] = (float)dataset->ids[i];
        }
    }
    return STATUS_OK;
}

static void fill_entries(const struct param_table *table, struct safetensors_entry *entries)
{
    for (int64_t i = 0; i < table->count; i++) {
        const struct param *param = &table->items[i];
        snprintf(entries[i].name, sizeof(entries[i].name), "%s", param->name);
        entries[i].dtype = SAFETENSORS_F32;
        entries[i].dimensions = param->vector ? 1 : 2;
        entries[i].shape[0] = param->vector ? param->cols : param->rows;
        entries[i].shape[1] = param->cols;
    }
}

static enum status save_start(const char *path, const struct trainer *trainer,
                              const struct weights *base, const struct encoded_dataset *dataset,
                              struct error *err)
{
    struct network network;
    trainer_network(trainer, &network);
    struct tensors tensors = {base, network.adapter, dataset};
    int64_t base_count = base->table->count;
    int64_t count = base_count + (network.adapter != NULL ? network.adapter->table->count : 0) + 1;
    struct safetensors_entry *entries = mem_calloc((size_t)count, sizeof(*entries));
    if (entries == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*entries), "names of tensors");
    }
    fill_entries(base->table, entries);
    if (network.adapter != NULL) {
        fill_entries(network.adapter->table, entries + base_count);
    }
    struct safetensors_entry *ids = &entries[count - 1];
    snprintf(ids->name, sizeof(ids->name), "ids");
    ids->dtype = SAFETENSORS_F32;
    ids->dimensions = 2;
    ids->shape[0] = dataset->count;
    ids->shape[1] = dataset->start[1];
    enum status status = safetensors_write(path, entries, count, read_tensor, &tensors, err);
    free(entries);
    return status;
}

/* ---- measuring
 * ------------------------------------------------------------------------------------------------
 */

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Floating-point operations per second of a square product in the precision: what the matrix
 * library reaches. */
static enum status measure_ceiling(struct device *device, enum dtype dtype, double *flops,
                                   struct error *err)
{
    const int64_t n = strcmp(device->ops->name, "cpu") == 0 ? 2048 : 8192;
    void *data[3] = {NULL, NULL, NULL};
    struct tensor tensors[3];
    enum status status = STATUS_OK;
    double best_s = INFINITY;
    struct random_block random = {0};
    TRY(random_block_make(&random, device, n * n, 1.0F, err));
    for (int i = 0; i < 3; i++) {
        TRY_CLEANUP(device->ops->alloc(device, (size_t)(n * n) * dtype_bytes(dtype), "ceiling",
                                       &data[i], err));
        tensors[i] = tensor_matrix(data[i], dtype, n, n);
        random_fill(&random, tensors[i]);
    }
    for (int run = 0; run < CEILING_RUNS; run++) {
        double begin_s = clock_monotonic_s();
        device->ops->matmul(device, tensors[2], tensors[0], false, tensors[1], true, 1.0F, 0.0F);
        TRY_CLEANUP(device->ops->check(device, err));
        best_s = fmin(best_s, clock_monotonic_s() - begin_s);
    }
    *flops = 2.0 * (double)(n * n * n) / best_s;
cleanup:
    for (int i = 0; i < 3; i++) {
        device->ops->free(device, data[i]);
    }
    random_block_free(&random);
    return status;
}

/* Median seconds of a step. What the first steps need once does not count, nor in the peak. */
static enum status measure_steps(struct trainer *trainer, struct device *device,
                                 const struct options *options, double *median_s, struct error *err)
{
    double *times = mem_calloc((size_t)options->steps, sizeof(*times));
    if (times == NULL) {
        return mem_fail(err, (size_t)options->steps * sizeof(*times), "step times");
    }
    enum status status = trainer_run_steps(trainer, WARMUP_STEPS, NULL, err);
    device->ops->reset_peak(device);
    for (int64_t i = 0; i < options->steps && status == STATUS_OK; i++) {
        double begin_s = clock_monotonic_s();
        status = trainer_run_steps(trainer, options->each, NULL, err);
        times[i] = (clock_monotonic_s() - begin_s) / (double)options->each;
    }
    qsort(times, (size_t)options->steps, sizeof(*times), compare_double);
    *median_s = times[options->steps / 2];
    free(times);
    return status;
}

/* The beginning of a line: the case, what a step must compute and move at least, and how many
 * numbers it trains. */
static enum status print_case(const struct options *options, struct error *err)
{
    const struct shape *shape = options->shape;
    const struct model_config config = model_config_of(shape);
    const bool lora = options->method == TRAIN_LORA;
    const struct lora_config adapter = build_config(options).lora;
    const double tokens = (double)(shape->length * shape->sequences);
    double trained = (double)model_config_parameters(&config);
    if (lora) {
        struct param_table table = {0};
        TRY(lora_table_build(&config, &adapter, &table, err));
        trained = (double)table.elements;
        param_table_fini(&table);
    }
    printf("{\"bench\": \"train_step\", \"side\": \"trex\", \"shape\": \"%s\", "
           "\"method\": \"%s\", \"precision\": \"%s\", \"tokens\": %.0f, \"flop\": %.0f, "
           "\"bytes\": %.0f, \"trained\": %.0f",
           shape->name, train_method_names[options->method],
           train_precision_names[options->precision], tokens,
           tokens * model_config_flops_per_token(&config, shape->length, lora),
           OPTIMIZER_BYTES * trained, trained);
    printf(", \"lora_rank\": %d, \"dimensions\": {\"hidden\": %lld, \"layers\": %lld, "
           "\"heads\": %lld, \"kv_heads\": %lld, \"head_dim\": %lld, \"intermediate\": %lld, "
           "\"vocabulary\": %lld, \"length\": %lld, \"sequences\": %lld}",
           lora ? LORA_RANK : 0, (long long)shape->hidden, (long long)shape->layers,
           (long long)shape->heads, (long long)shape->kv_heads, (long long)shape->head_dim,
           (long long)shape->intermediate, (long long)shape->vocabulary, (long long)shape->length,
           (long long)shape->sequences);
    return STATUS_OK;
}

static void print_result(const struct options *options, const struct trainer *trainer,
                         struct device *device, double step_s, double ceiling,
                         const struct device_memory *memory)
{
    const struct shape *shape = options->shape;
    struct rusage usage;
    struct network network;
    char description[256];
    getrusage(RUSAGE_SELF, &usage);
    trainer_network(trainer, &network);
    device->ops->describe(device, description, sizeof(description));
    double tokens = (double)(shape->length * shape->sequences);
    double flops =
        model_config_flops_per_token(network.config, shape->length, options->method == TRAIN_LORA);
    printf(", \"tokens_per_s\": %.1f, \"step_s\": %.5f, \"peak_rss_mb\": %.1f, "
           "\"device_peak_mb\": %.1f, \"device\": \"%s\", \"matmul_ceiling_gflops\": %.1f, "
           "\"flop_share_of_ceiling\": %.3f, \"losses\": [",
           tokens / step_s, step_s, (double)usage.ru_maxrss / 1024.0,
           (double)memory->peak_bytes / 1048576.0, description, ceiling / 1e9,
           flops * tokens / step_s / ceiling);
    int64_t count = 0;
    const struct train_point *curve = trainer_curve(trainer, &count);
    for (int64_t i = 0; i < count; i++) {
        printf("%s%.6f", i > 0 ? ", " : "", curve[i].train_loss);
    }
    printf("]}\n");
}

static enum status run_case(const struct options *options, struct error *err)
{
    struct device_options device_options = {.threads = options->threads};
    struct device *device = NULL;
    struct model model = {0};
    struct encoded_dataset train = {0};
    struct encoded_dataset validation = {0};
    struct trainer *trainer = NULL;
    struct train_config config = build_config(options);
    enum dtype dtype = options->precision == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32;
    double step_s = 0.0;
    double ceiling = 0.0;
    enum status status = device_open(options->backend, &device_options, &device, err);
    if (status != STATUS_OK) {
        return status;
    }
    TRY_CLEANUP(build_model(options->shape, device, dtype, &model, err));
    TRY_CLEANUP(build_dataset(options->shape, &train, err));
    struct trainer_inputs inputs = {
        .model = &model, .config = &config, .train = &train, .validation = &validation};
    TRY_CLEANUP(trainer_create(device, &inputs, &trainer, err));
    if (options->save != NULL) {
        status = save_start(options->save, trainer, &model.weights, &train, err);
        goto cleanup;
    }
    if (options->method == TRAIN_FULL) {
        weights_fini(&model.weights); /* full fine-tuning has its own copy */
    }
    TRY_CLEANUP(measure_steps(trainer, device, options, &step_s, err));
    struct device_memory memory;
    device->ops->memory(device, &memory);
    TRY_CLEANUP(measure_ceiling(device, dtype, &ceiling, err));
    TRY_CLEANUP(print_case(options, err));
    print_result(options, trainer, device, step_s, ceiling, &memory);
cleanup:
    trainer_destroy(trainer);
    free(train.ids);
    free(train.target);
    free(train.start);
    free(train.row);
    weights_fini(&model.weights);
    param_table_fini(&model.table);
    device_close(device);
    return status;
}

/* ---- the command line
 * ----------------------------------------------------------------------------------------- */

static int find_name(const char *const *names, const char *name)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

static bool read_option(struct options *options, const char *key, const char *value)
{
    if (strcmp(key, "--shape") == 0) {
        for (size_t i = 0; i < SHAPE_COUNT; i++) {
            if (strcmp(shapes[i].name, value) == 0) {
                options->shape = &shapes[i];
                return true;
            }
        }
        return false;
    }
    if (strcmp(key, "--method") == 0) {
        options->method = (enum train_method)find_name(train_method_names, value);
        return (int)options->method >= 0;
    }
    if (strcmp(key, "--precision") == 0) {
        options->precision = (enum train_precision)find_name(train_precision_names, value);
        return (int)options->precision >= 0;
    }
    if (strcmp(key, "--steps") == 0) {
        options->steps = strtol(value, NULL, 10);
        return options->steps >= 1 && options->steps <= STEPS_MAX - WARMUP_STEPS;
    }
    if (strcmp(key, "--each") == 0) {
        options->each = strtol(value, NULL, 10);
        return options->each >= 1 && options->each <= STEPS_MAX / 10;
    }
    if (strcmp(key, "--backend") == 0) {
        options->backend = value;
        return true;
    }
    if (strcmp(key, "--threads") == 0) {
        options->threads = (int)strtol(value, NULL, 10);
        return options->threads >= 0;
    }
    options->save = value;
    return strcmp(key, "--save") == 0;
}

int main(int argc, char **argv)
{
    struct options options = {.shape = &shapes[1],
                              .method = TRAIN_FULL,
                              .precision = TRAIN_F32,
                              .backend = "cpu",
                              .steps = 6,
                              .each = 1};
    struct error err;
    for (int i = 1; i < argc; i += 2) {
        if (strcmp(argv[i], "--list") == 0) {
            options.list = true;
            i--;
        } else if (i + 1 >= argc || !read_option(&options, argv[i], argv[i + 1])) {
            fprintf(stderr,
                    "usage: %s [--shape 260k|15m|125m|qwen3-tiny|qwen3-1.7b] [--method full|lora] "
                    "[--precision f32|bf16] [--backend cpu|cuda|auto] [--steps N] [--each N] "
                    "[--threads N] [--save FILE | --list]\n",
                    argv[0]);
            return 2;
        }
    }
    if (options.steps * options.each > STEPS_MAX - WARMUP_STEPS) {
        fprintf(stderr, "at most %d steps\n", STEPS_MAX - WARMUP_STEPS);
        return 2;
    }
    enum status status = options.list ? print_case(&options, &err) : run_case(&options, &err);
    if (status != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    if (options.list) {
        printf("}\n");
    }
    return 0;
}
