/* Greedy generation with a KV cache of models with random weights, as one line of JSON a case:
 * generated tokens per second over all sequences, prompts included in the time.
 *
 *     bench_decode [--backend cpu|cuda|auto] [--shape NAME] [--precision f32|bf16] [--slots N]
 *                  [--threads N] [--new N] [--repeats N] [--list]
 *
 * The time is the median of the repeats. --list runs nothing and prints the cases with the bytes
 * that each generated token moves at least: the weights once a step, and the keys and values so
 * far. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/decoder.h"
#include "model/family.h"
#include "random_weights.h"

enum { PROMPT = 32, SLOTS_MAX = 64, REPEATS_MAX = 100, WARMUP_TOKENS = 4 };

struct shape {
    const char *name;
    bool large; /* only when asked for */
    const struct model_family *family;
    int64_t hidden, layers, heads, kv_heads, head_dim, intermediate, vocabulary;
};

static const struct shape shapes[] = {
    {"15m", false, &model_family_llama, 288, 6, 6, 6, 48, 768, 32000},
    {"125m", false, &model_family_llama, 768, 12, 12, 12, 64, 2048, 32000},
    {"qwen3-tiny", true, &model_family_qwen3, 256, 2, 4, 2, 128, 512, 2048},
    {"qwen3-1.7b", true, &model_family_qwen3, 2048, 28, 16, 8, 128, 6144, 151936},
};
enum { SHAPE_COUNT = sizeof(shapes) / sizeof(shapes[0]) };
static const int64_t slot_counts[] = {1, 16};

struct options {
    const char *backend;
    const char *shape;
    const char *precision;
    int64_t slots; /* 0: those of slot_counts */
    int threads;
    int32_t new_tokens; /* of each sequence */
    int repeats;
    bool list;
};

static struct model_config config_of(const struct shape *shape, int64_t positions)
{
    struct model_config config = {
        .family = shape->family,
        .hidden_size = shape->hidden,
        .intermediate_size = shape->intermediate,
        .layers = shape->layers,
        .heads = shape->heads,
        .kv_heads = shape->kv_heads,
        .head_dim = shape->head_dim,
        .vocab_size = shape->vocabulary,
        .max_positions = positions,
        .norm_epsilon = 1e-5,
        .rope_theta = 10000.0,
        .rope_factor = 1.0,
        .tied_embeddings = true,
        .qk_norm = shape->family->qk_norm,
    };
    return config;
}

/* All prompts in one call, then a token a call for each slot. */
static enum status generate(struct decoder *decoder, const struct network *network, int64_t slots,
                            int32_t new_tokens, double *seconds, struct error *err)
{
    static const struct sampling greedy = {.temperature = 0.0F, .top_k = 0, .top_p = 1.0F};
    int32_t ids[SLOTS_MAX * PROMPT];
    int32_t slot[SLOTS_MAX];
    int32_t position[SLOTS_MAX];
    int32_t count[SLOTS_MAX];
    struct rng rng;
    rng_init(&rng, 7, 0);
    for (int64_t i = 0; i < slots * PROMPT; i++) {
        ids[i] = (int32_t)rng_below(&rng, (uint64_t)network->config->vocab_size);
    }
    for (int32_t s = 0; s < slots; s++) {
        slot[s] = s;
        position[s] = 0;
        count[s] = PROMPT;
    }
    double begin_s = clock_monotonic_s();
    for (int32_t step = 0; step < new_tokens; step++) {
        int32_t token[SLOTS_MAX];
        TRY(decoder_feed(decoder, network, ids, slot, position, count, slots, &greedy, NULL, token,
                         err));
        for (int64_t s = 0; s < slots; s++) {
            position[s] += count[s];
            count[s] = 1;
            ids[s] = token[s];
        }
    }
    *seconds = clock_monotonic_s() - begin_s;
    return STATUS_OK;
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median over the repeats. */
static enum status measure(struct decoder *decoder, const struct network *network, int64_t slots,
                           const struct options *options, double *seconds, struct error *err)
{
    double times[REPEATS_MAX];
    TRY(generate(decoder, network, slots, WARMUP_TOKENS, &times[0], err));
    for (int i = 0; i < options->repeats; i++) {
        TRY(generate(decoder, network, slots, options->new_tokens, &times[i], err));
    }
    qsort(times, (size_t)options->repeats, sizeof(times[0]), compare_double);
    *seconds = times[options->repeats / 2];
    return STATUS_OK;
}

/* The beginning of a line: the case, and the bytes of all steps together. */
static void print_case(const struct options *options, const struct shape *shape, enum dtype dtype,
                       int64_t slots)
{
    const struct model_config config = config_of(shape, PROMPT + options->new_tokens);
    const double size = (double)dtype_bytes(dtype);
    const double steps = (double)options->new_tokens;
    const double kv = 2.0 * (double)(config.layers * config.kv_heads * config.head_dim);
    const double lengths = steps * (PROMPT + steps / 2.0);
    printf("{\"bench\": \"decode\", \"side\": \"trex\", \"shape\": \"%s\", "
           "\"method\": \"greedy_%lld\", \"precision\": \"%s\", \"prompt\": %d, "
           "\"new\": %d, \"bytes\": %.0f",
           shape->name, (long long)slots, dtype == DTYPE_F32 ? "f32" : "bf16", PROMPT,
           options->new_tokens,
           size *
               (steps * (double)model_config_parameters(&config) + kv * lengths * (double)slots));
    printf(", \"slots\": %lld, \"dimensions\": {\"hidden\": %lld, \"layers\": %lld, "
           "\"heads\": %lld, \"kv_heads\": %lld, \"head_dim\": %lld, \"intermediate\": %lld, "
           "\"vocabulary\": %lld}",
           (long long)slots, (long long)shape->hidden, (long long)shape->layers,
           (long long)shape->heads, (long long)shape->kv_heads, (long long)shape->head_dim,
           (long long)shape->intermediate, (long long)shape->vocabulary);
}

static enum status run_case(const struct options *options, const struct shape *shape,
                            enum dtype dtype, int64_t slots, struct error *err)
{
    struct device_options device_options = {.threads = options->threads};
    struct device *device = NULL;
    struct param_table table = {0};
    struct weights weights = {0};
    struct decoder *decoder = NULL;
    int64_t capacity = PROMPT + options->new_tokens;
    struct model_config config = config_of(shape, capacity);
    double seconds = 0.0;
    enum status status = device_open(options->backend, &device_options, &device, err);
    if (status != STATUS_OK) {
        return status;
    }
    TRY_CLEANUP(param_table_build(&config, &table, err));
    TRY_CLEANUP(weights_create(device, &table, dtype, &weights, err));
    TRY_CLEANUP(random_weights(&weights, err));
    struct network network = {.config = &config, .weights = &weights};
    struct decoder_options decoder_options = {
        .slots = slots, .capacity = capacity, .prefill_tokens = slots * PROMPT};
    TRY_CLEANUP(decoder_create(device, &network, &decoder_options, &decoder, err));
    TRY_CLEANUP(measure(decoder, &network, slots, options, &seconds, err));
    char description[256];
    device->ops->describe(device, description, sizeof(description));
    print_case(options, shape, dtype, slots);
    printf(", \"tokens_per_s\": %.1f, \"device\": \"%s\"}\n",
           (double)(slots * options->new_tokens) / seconds, description);

cleanup:
    decoder_destroy(decoder);
    weights_fini(&weights);
    param_table_fini(&table);
    device_close(device);
    return status;
}

static enum status run_or_list(const struct options *options, const struct shape *shape,
                               enum dtype dtype, int64_t slots, struct error *err)
{
    if (!options->list) {
        return run_case(options, shape, dtype, slots, err);
    }
    print_case(options, shape, dtype, slots);
    printf("}\n");
    return STATUS_OK;
}

static bool wanted(const char *asked, const char *name)
{
    return asked == NULL || strcmp(asked, name) == 0;
}

static enum status run_shape(const struct options *options, const struct shape *shape,
                             struct error *err)
{
    static const char *const names[] = {"f32", "bf16"};
    for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        if (!wanted(options->precision, names[dtype])) {
            continue;
        }
        if (options->slots > 0) {
            TRY(run_or_list(options, shape, (enum dtype)dtype, options->slots, err));
            continue;
        }
        for (size_t k = 0; k < sizeof(slot_counts) / sizeof(slot_counts[0]); k++) {
            TRY(run_or_list(options, shape, (enum dtype)dtype, slot_counts[k], err));
        }
    }
    return STATUS_OK;
}

static bool read_option(struct options *options, const char *key, const char *text)
{
    long value = strtol(text, NULL, 10);
    if (strcmp(key, "--backend") == 0) {
        options->backend = text;
    } else if (strcmp(key, "--shape") == 0) {
        options->shape = text;
    } else if (strcmp(key, "--precision") == 0) {
        options->precision = text;
    } else if (strcmp(key, "--slots") == 0 && value >= 1 && value <= SLOTS_MAX) {
        options->slots = value;
    } else if (strcmp(key, "--threads") == 0 && value >= 0 && value < 4096) {
        options->threads = (int)value;
    } else if (strcmp(key, "--new") == 0 && value >= 1 && value <= 4096) {
        options->new_tokens = (int32_t)value;
    } else if (strcmp(key, "--repeats") == 0 && value >= 1 && value <= REPEATS_MAX) {
        options->repeats = (int)value;
    } else {
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct options options = {.backend = "cpu", .new_tokens = 128, .repeats = 1};
    struct error err;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            options.list = true;
        } else if (i + 1 < argc && read_option(&options, argv[i], argv[i + 1])) {
            i++;
        } else {
            fprintf(stderr,
                    "usage: %s [--backend cpu|cuda|auto] [--shape 15m|125m|qwen3-tiny|qwen3-1.7b] "
                    "[--precision f32|bf16] [--slots N] [--threads N] [--new N] [--repeats N] "
                    "[--list]\n",
                    argv[0]);
            return 2;
        }
    }
    for (size_t s = 0; s < SHAPE_COUNT; s++) {
        if (options.shape != NULL ? !wanted(options.shape, shapes[s].name) : shapes[s].large) {
            continue;
        }
        if (run_shape(&options, &shapes[s], &err) != STATUS_OK) {
            fprintf(stderr, "%s\n", err.message);
            return 1;
        }
    }
    return 0;
}
