/* Greedy generation with a KV cache of random Llama shapes, as one line of JSON a case: generated
 * tokens per second over all sequences, prompts included in the time.
 *
 *     bench_decode [--threads N] [--new N] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/decoder.h"
#include "model/model.h"

enum { VOCABULARY = 32000, PROMPT = 32, SLOTS_MAX = 16 };

struct shape {
    const char *name;
    int64_t hidden, layers, heads, intermediate;
};

static const struct shape shapes[] = {{"15m", 288, 6, 6, 768}, {"125m", 768, 12, 12, 2048}};
static const int64_t slot_counts[] = {1, SLOTS_MAX};

struct options {
    int threads;
    int32_t new_tokens; /* of each sequence */
};

static struct model_config config_of(const struct shape *shape, int64_t positions)
{
    struct model_config config = {
        .family = &model_family_llama,
        .hidden_size = shape->hidden,
        .intermediate_size = shape->intermediate,
        .layers = shape->layers,
        .heads = shape->heads,
        .kv_heads = shape->heads,
        .head_dim = shape->hidden / shape->heads,
        .vocab_size = VOCABULARY,
        .max_positions = positions,
        .norm_epsilon = 1e-5,
        .rope_theta = 10000.0,
        .rope_factor = 1.0,
        .tied_embeddings = true,
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
        ids[i] = (int32_t)rng_below(&rng, VOCABULARY);
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
    enum status status = device_open("cpu", &device_options, &device, err);
    if (status != STATUS_OK) {
        return status;
    }
    TRY_CLEANUP(param_table_build(&config, &table, err));
    TRY_CLEANUP(weights_create(device, &table, dtype, &weights, err));
    model_init_random(&weights, 42);
    struct network network = {.config = &config, .weights = &weights};
    struct decoder_options decoder_options = {
        .slots = slots, .capacity = capacity, .prefill_tokens = slots * PROMPT};
    TRY_CLEANUP(decoder_create(device, &network, &decoder_options, &decoder, err));
    TRY_CLEANUP(generate(decoder, &network, slots, 4, &seconds, err)); /* warm up */
    TRY_CLEANUP(generate(decoder, &network, slots, options->new_tokens, &seconds, err));
    char description[256];
    device->ops->describe(device, description, sizeof(description));
    printf("{\"bench\": \"decode\", \"side\": \"trex\", \"shape\": \"%s\", "
           "\"method\": \"greedy_%lld\", \"precision\": \"%s\", \"tokens_per_s\": %.1f, "
           "\"device\": \"%s\"}\n",
           shape->name, (long long)slots, dtype == DTYPE_F32 ? "f32" : "bf16",
           (double)(slots * options->new_tokens) / seconds, description);

cleanup:
    decoder_destroy(decoder);
    weights_fini(&weights);
    param_table_fini(&table);
    device_close(device);
    return status;
}

static enum status run_all(const struct options *options, struct error *err)
{
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
            for (size_t k = 0; k < sizeof(slot_counts) / sizeof(slot_counts[0]); k++) {
                TRY(run_case(options, &shapes[s], (enum dtype)dtype, slot_counts[k], err));
            }
        }
    }
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    struct options options = {.threads = 0, .new_tokens = 128};
    for (int i = 1; i + 1 < argc; i += 2) {
        long value = strtol(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--threads") == 0 && value >= 0 && value < 4096) {
            options.threads = (int)value;
        } else if (strcmp(argv[i], "--new") == 0 && value >= 1 && value <= 4096) {
            options.new_tokens = (int32_t)value;
        } else {
            fprintf(stderr, "usage: %s [--threads N] [--new N]\n", argv[0]);
            return 2;
        }
    }
    struct error err;
    if (run_all(&options, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    return 0;
}
