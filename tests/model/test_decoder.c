/* Generation against the transformer, and against the 255 tokens of stories260K. */
#include "model/decoder.h"

#include "base/json.h"
#include "support.h"

enum { STORY_TOKENS = 256, UNIT_BYTES = 512 /* a device may count in such */ };
static const struct sampling greedy = {.temperature = 0.0f, .top_k = 0, .top_p = 1.0f};

static int32_t argmax(const float *logits, int64_t count)
{
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t)best;
}

/* What the transformer would say next after each of `count` ids of one sequence. */
static void expected_next(struct device *device, const struct network *network, const int32_t *ids,
                          int32_t count, int32_t *next)
{
    int64_t vocab = network->config->vocab_size;
    struct transformer_options options = {.max_tokens = count, .compute = network->weights->dtype};
    struct transformer *transformer = NULL;
    int32_t *numbers = mem_calloc((size_t)count * 2, sizeof(*numbers));
    float *logits = mem_calloc((size_t)(count * vocab), sizeof(*logits));
    assert_non_null(numbers);
    assert_non_null(logits);
    for (int32_t i = 0; i < count; i++) {
        numbers[i] = i;
        numbers[count + i] = -1;
    }
    const int32_t starts[] = {0, count};
    struct batch batch = {.tokens = count,
                          .sequences = 1,
                          .ids = ids,
                          .positions = numbers,
                          .targets = numbers + count,
                          .starts = starts};
    ASSERT_OK(transformer_create(device, network, &options, &transformer, err));
    ASSERT_OK(transformer_logits(transformer, network, &batch, numbers, count, logits, err));
    for (int32_t i = 0; i < count; i++) {
        next[i] = argmax(logits + i * vocab, vocab);
    }
    transformer_destroy(transformer);
    free(numbers);
    free(logits);
}

/* Three sequences of different lengths in mixed passes, some fed in pieces, one replaced by another
 * half way: each says what the transformer says after the same ids. */
static void check_mixed(struct device *device, const struct network *network, int64_t prefill)
{
    enum { LENGTH = 24 };
    int32_t ids[4][LENGTH];
    int32_t expected[4][LENGTH];
    struct rng rng;
    rng_init(&rng, 3, (uint64_t)prefill);
    for (int s = 0; s < 4; s++) {
        for (int i = 0; i < LENGTH; i++) {
            ids[s][i] = (int32_t)rng_below(&rng, (uint64_t)network->config->vocab_size);
        }
        expected_next(device, network, ids[s], LENGTH, expected[s]);
    }
    struct decoder_options options = {.slots = 3, .capacity = LENGTH, .prefill_tokens = prefill};
    struct decoder *decoder = NULL;
    ASSERT_OK(decoder_create(device, network, &options, &decoder, err));
    int done[4] = {0, 0, 0, 0};
    int in_slot[3] = {0, 1, 2};
    for (int round = 0; done[1] < LENGTH || done[2] < LENGTH || done[3] < LENGTH; round++) {
        int32_t fed[3 * LENGTH];
        int32_t slot[3];
        int32_t position[3];
        int32_t count[3];
        int32_t token[3];
        int64_t entries = 0;
        int64_t used = 0;
        if (round == 3) {
            in_slot[0] = 3; /* sequence 0 is not needed any more: its slot starts anew */
        }
        for (int k = 2; k >= 0; k--) {
            int s = in_slot[k];
            int32_t piece = (int32_t)(rng_below(&rng, 4) == 0 ? 7 : rng_below(&rng, 2));
            piece = piece < LENGTH - done[s] ? piece : LENGTH - done[s];
            if (piece == 0) {
                continue;
            }
            memcpy(fed + used, ids[s] + done[s], (size_t)piece * sizeof(int32_t));
            slot[entries] = k;
            position[entries] = done[s];
            count[entries++] = piece;
            used += piece;
            done[s] += piece;
        }
        if (entries == 0) {
            continue;
        }
        ASSERT_OK(decoder_feed(decoder, network, fed, slot, position, count, entries, &greedy, NULL,
                               token, err));
        for (int64_t e = 0; e < entries; e++) {
            int s = in_slot[slot[e]];
            assert_int_equal(token[e], expected[s][done[s] - 1]);
        }
    }
    decoder_destroy(decoder);
}

static void test_mixed(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "llama_tied", "qwen3", "qwen3_tied"};
    struct device *device = open_device();
    for (int i = 0; i < 4; i++) {
        struct golden golden;
        golden_open(device, names[i], DTYPE_F32, &golden);
        struct network network = {&golden.config, &golden.weights, NULL, NULL};
        check_mixed(device, &network, 1); /* 3 rows a pass: prompts are cut */
        check_mixed(device, &network, 5);
        check_mixed(device, &network, 64);
        golden_close(&golden);
    }
    device_close(device);
}

/* An adapter whose B is not zero, as after training. */
static void adapter_open(struct device *device, const struct golden *golden,
                         const struct lora_config *lora, struct param_table *table,
                         enum dtype dtype, struct weights *adapter)
{
    struct rng rng;
    rng_init(&rng, 5, 0);
    ASSERT_OK(lora_table_build(&golden->config, lora, table, err));
    ASSERT_OK(weights_create(device, table, dtype, adapter, err));
    for (int64_t i = 0; i < table->elements; i++) {
        float value = (float)rng_normal(&rng) * 0.3f;
        weights_set_range(adapter, i, &value, 1);
    }
}

static void test_adapter(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    golden_open(device, "qwen3", DTYPE_F32, &golden);
    struct lora_config lora = {.rank = 5, .alpha = 10.0, .targets = LORA_ALL & ~LORA_KEY};
    struct param_table table;
    struct weights adapter;
    adapter_open(device, &golden, &lora, &table, DTYPE_F32, &adapter);
    struct network network = {&golden.config, &golden.weights, &adapter, &lora};
    check_mixed(device, &network, 9);
    weights_fini(&adapter);
    param_table_fini(&table);
    golden_close(&golden);
    device_close(device);
}

/* Sampling reads the random number of its own entry: with probability spread over all ids, 0 gives
 * the likeliest that are kept and 0.999 another. */
static void test_sampling(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    golden_open(device, "llama", DTYPE_F32, &golden);
    struct network network = {&golden.config, &golden.weights, NULL, NULL};
    struct decoder_options options = {.slots = 4, .capacity = 8, .prefill_tokens = 4};
    struct decoder *decoder = NULL;
    ASSERT_OK(decoder_create(device, &network, &options, &decoder, err));
    const struct sampling hot = {.temperature = 5.0f, .top_k = 0, .top_p = 1.0f};
    const int32_t ids[] = {5, 5, 5, 5};
    const int32_t slot[] = {3, 1, 0, 2};
    const int32_t position[] = {0, 0, 0, 0};
    const int32_t count[] = {1, 1, 1, 1};
    const float uniform[] = {0.1f, 0.9f, 0.1f, 0.9f};
    int32_t token[4];
    ASSERT_OK(
        decoder_feed(decoder, &network, ids, slot, position, count, 4, &hot, uniform, token, err));
    assert_int_equal(token[0], token[2]);
    assert_int_equal(token[1], token[3]);
    assert_int_not_equal(token[0], token[1]);
    decoder_destroy(decoder);
    golden_close(&golden);
    device_close(device);
}

/* Steps of changing numbers of sequences, with networks that take turns, token for token the same
 * whether the device may repeat what it recorded or not: `all` and `top_k` keep the same ids, but a
 * recording made for one does not serve the other, so that taking turns makes every step direct. */
static void check_recorded(struct device *device, const struct network *networks,
                           int64_t vocabulary)
{
    enum { STEPS = 30, SLOTS = 3 };
    const struct sampling all = {.temperature = 3.0f, .top_k = 0, .top_p = 1.0f};
    const struct sampling top_k = {
        .temperature = 3.0f, .top_k = (int32_t)vocabulary, .top_p = 1.0f};
    const int32_t slot[SLOTS] = {2, 0, 1};
    const int32_t count[SLOTS] = {1, 1, 1};
    struct decoder_options options = {.slots = SLOTS, .capacity = STEPS, .prefill_tokens = 4};
    struct decoder *recorded = NULL;
    struct decoder *direct = NULL;
    int32_t ids[SLOTS] = {1, 2, 3};
    int32_t position[SLOTS] = {0, 0, 0};
    struct rng rng;
    rng_init(&rng, 8, 0);
    ASSERT_OK(decoder_create(device, &networks[1], &options, &recorded, err));
    ASSERT_OK(decoder_create(device, &networks[1], &options, &direct, err));
    for (int step = 0; step < STEPS; step++) {
        const struct network *network = &networks[step / 12 % 2];
        const int64_t entries = step % 6 < 4 ? SLOTS : SLOTS - 1;
        float uniform[SLOTS];
        int32_t token[SLOTS];
        int32_t expected[SLOTS];
        for (int s = 0; s < SLOTS; s++) {
            uniform[s] = (float)rng_uniform(&rng) * 0.999f;
        }
        ASSERT_OK(decoder_feed(recorded, network, ids, slot, position, count, entries, &all,
                               uniform, token, err));
        ASSERT_OK(decoder_feed(direct, network, ids, slot, position, count, entries,
                               step % 2 == 0 ? &all : &top_k, uniform, expected, err));
        for (int64_t s = 0; s < entries; s++) {
            assert_int_equal(token[s], expected[s]);
            ids[s] = token[s];
            position[s]++;
        }
    }
    decoder_destroy(recorded);
    decoder_destroy(direct);
}

static void test_recorded(void **state)
{
    (void)state;
    struct device *device = open_device();
    for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        struct golden golden;
        golden_open(device, "qwen3", (enum dtype)dtype, &golden);
        struct lora_config lora = {.rank = 3, .alpha = 6.0, .targets = LORA_ALL};
        struct param_table table;
        struct weights adapter;
        adapter_open(device, &golden, &lora, &table, (enum dtype)dtype, &adapter);
        const struct network networks[] = {{&golden.config, &golden.weights, NULL, NULL},
                                           {&golden.config, &golden.weights, &adapter, &lora}};
        check_recorded(device, networks, golden.config.vocab_size);
        weights_fini(&adapter);
        param_table_fini(&table);
        golden_close(&golden);
    }
    device_close(device);
}

static void test_bytes_and_memory(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        golden_open(device, "qwen3", (enum dtype)dtype, &golden);
        struct network network = {&golden.config, &golden.weights, NULL, NULL};
        struct decoder_options options = {.slots = 3, .capacity = 64, .prefill_tokens = 17};
        struct device_memory before;
        struct device_memory after;
        struct decoder *decoder = NULL;
        device->ops->memory(device, &before);
        ASSERT_OK(decoder_create(device, &network, &options, &decoder, err));
        device->ops->memory(device, &after);
        int64_t predicted = decoder_bytes(&network, &options);
        assert_in_range(after.used_bytes - before.used_bytes, predicted,
                        predicted + UNIT_BYTES - 1);
        decoder_destroy(decoder);
        int64_t failures = 0;
        for (int64_t nth = 1;; nth++) {
            struct error error;
            mem_fail_nth(nth);
            enum status status = decoder_create(device, &network, &options, &decoder, &error);
            mem_fail_nth(0);
            if (status == STATUS_OK) {
                decoder_destroy(decoder);
                break;
            }
            assert_int_equal(status, STATUS_NO_MEMORY);
            failures++;
        }
        assert_true(failures >= 6);
        device->ops->memory(device, &after);
        assert_int_equal(after.used_bytes, before.used_bytes);
        golden_close(&golden);
    }
    decoder_destroy(NULL);
    device_close(device);
}

static void test_errors(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    golden_open(device, "llama", DTYPE_F32, &golden);
    struct network network = {&golden.config, &golden.weights, NULL, NULL};
    struct decoder *decoder = NULL;
    struct decoder_options options = {.slots = 0, .capacity = 8, .prefill_tokens = 4};
    ASSERT_FAILS(decoder_create(device, &network, &options, &decoder, err), STATUS_RANGE,
                 "0 sequences");
    options.slots = 2;
    options.capacity = 65;
    ASSERT_FAILS(decoder_create(device, &network, &options, &decoder, err), STATUS_RANGE,
                 "65 positions, the model has 1 to 64");
    options.capacity = 8;
    options.prefill_tokens = 0;
    ASSERT_FAILS(decoder_create(device, &network, &options, &decoder, err), STATUS_RANGE,
                 "0 prompt tokens");
    options.prefill_tokens = 4;
    ASSERT_OK(decoder_create(device, &network, &options, &decoder, err));

    int32_t ids[16] = {0};
    int32_t slot[3] = {0, 1, 0};
    int32_t position[3] = {0, 0, 0};
    int32_t count[3] = {2, 1, 1};
    int32_t token[3];
#define FEED(entries)                                                                              \
    decoder_feed(decoder, &network, ids, slot, position, count, entries, &greedy, NULL, token, err)
    ASSERT_FAILS(FEED(0), STATUS_RANGE, "0 entries");
    ASSERT_FAILS(FEED(3), STATUS_RANGE, "3 entries");
    slot[1] = 2;
    ASSERT_FAILS(FEED(2), STATUS_RANGE, "entry 1 has slot 2, allowed are 0 to 1");
    slot[1] = 0;
    ASSERT_FAILS(FEED(2), STATUS_RANGE, "each once");
    slot[1] = -1;
    ASSERT_FAILS(FEED(2), STATUS_RANGE, "slot -1");
    slot[1] = 1;
    position[1] = 1; /* slot 1 is empty */
    ASSERT_FAILS(FEED(2), STATUS_RANGE, "starts at position 1, slot 1 has 0");
    position[1] = -1;
    ASSERT_FAILS(FEED(2), STATUS_RANGE, "position -1");
    position[1] = 0;
    count[1] = 9;
    ASSERT_FAILS(FEED(2), STATUS_RANGE, "room for 8");
    count[1] = 0;
    ASSERT_FAILS(FEED(2), STATUS_RANGE, "0 ids");
    count[1] = 1;
    ids[2] = 40;
    ASSERT_FAILS(FEED(2), STATUS_RANGE, "entry 1 has id 40, allowed are 0 to 39");
    ids[2] = 0;
    ASSERT_OK(FEED(2));
    /* One may go back, not beyond what is there. */
    position[0] = 1;
    ASSERT_OK(FEED(1));
    position[0] = 4;
    ASSERT_FAILS(FEED(1), STATUS_RANGE, "slot 0 has 3 positions");
    decoder_destroy(decoder);
    golden_close(&golden);
    device_close(device);
}

/* ---- stories260K
 * --------------------------------------------------------------------------------------------- */

struct story {
    struct model_config config;
    struct param_table table;
    struct weights weights;
    cJSON *reference;
};

static bool story_open(struct device *device, struct story *story)
{
    const char *models = getenv("MODELS");
    if (models == NULL) {
        printf("MODELS is not set: no stories260K to test with\n");
        return false;
    }
    char folder[FILE_PATH_BYTES];
    char path[FILE_PATH_BYTES];
    struct safetensors *file = NULL;
    ASSERT_OK(file_join(models, "stories260K", folder, err));
    ASSERT_OK(model_config_load(folder, &story->config, err));
    ASSERT_OK(param_table_build(&story->config, &story->table, err));
    ASSERT_OK(safetensors_open_folder(folder, &file, err));
    ASSERT_OK(model_tensors_check(file, &story->config, &story->table, folder, err));
    ASSERT_OK(weights_create(device, &story->table, DTYPE_F32, &story->weights, err));
    ASSERT_OK(model_tensors_load(file, &story->weights, NULL, err));
    safetensors_close(file);
    ASSERT_OK(file_join(folder, "reference.json", path, err));
    ASSERT_OK(json_parse_file(path, 1 << 20, &story->reference, err));
    return true;
}

static void story_close(struct story *story)
{
    weights_fini(&story->weights);
    param_table_fini(&story->table);
    cJSON_Delete(story->reference);
}

static int32_t story_ids(const struct story *story, const char *key, int32_t ids[STORY_TOKENS])
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(story->reference, key);
    int32_t count = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        assert_true(count < STORY_TOKENS);
        ids[count++] = item->valueint;
    }
    return count;
}

static void test_story_logits(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct story story;
    if (!story_open(device, &story)) {
        device_close(device);
        skip();
    }
    struct network network = {&story.config, &story.weights, NULL, NULL};
    int32_t ids[STORY_TOKENS];
    int32_t next[STORY_TOKENS];
    int32_t expected[STORY_TOKENS];
    int32_t count = story_ids(&story, "prompt_ids", ids);
    assert_int_equal(story_ids(&story, "argmax_next_id_per_position", expected), count);
    expected_next(device, &network, ids, count, next);
    assert_memory_equal(next, expected, (size_t)count * sizeof(int32_t));

    int32_t positions[STORY_TOKENS];
    int32_t starts[] = {0, count};
    float losses[STORY_TOKENS];
    float logits[512];
    for (int32_t i = 0; i < count; i++) {
        positions[i] = i;
        expected[i] = i + 1 < count ? ids[i + 1] : -1;
    }
    struct batch batch = {.tokens = count,
                          .sequences = 1,
                          .ids = ids,
                          .positions = positions,
                          .targets = expected,
                          .starts = starts};
    struct transformer_options options = {.max_tokens = count, .compute = DTYPE_F32};
    struct transformer *transformer = NULL;
    int32_t last = count - 1;
    ASSERT_OK(transformer_create(device, &network, &options, &transformer, err));
    ASSERT_OK(transformer_logits(transformer, &network, &batch, &last, 1, logits, err));
    ASSERT_OK(transformer_score(transformer, &network, &batch, losses, err));
    const cJSON *values = cJSON_GetObjectItemCaseSensitive(story.reference, "last_position_logits");
    assert_int_equal(cJSON_GetArraySize(values), 512);
    for (int i = 0; i < 512; i++) {
        ASSERT_CLOSE((double)logits[i], cJSON_GetArrayItem(values, i)->valuedouble, 1e-4);
    }
    values = cJSON_GetObjectItemCaseSensitive(story.reference, "logprob_of_next_prompt_id");
    assert_int_equal(cJSON_GetArraySize(values), last);
    for (int i = 0; i < last; i++) {
        ASSERT_CLOSE((double)losses[i], -cJSON_GetArrayItem(values, i)->valuedouble, 1e-4);
    }
    transformer_destroy(transformer);
    story_close(&story);
    device_close(device);
}

/* The 255 greedy tokens after bos: alone; from a prompt fed in pieces; in one of several slots that
 * do other things. */
static void test_story_greedy(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct story story;
    if (!story_open(device, &story)) {
        device_close(device);
        skip();
    }
    struct network network = {&story.config, &story.weights, NULL, NULL};
    int32_t expected[STORY_TOKENS];
    assert_int_equal(story_ids(&story, "greedy_from_bos_ids", expected), STORY_TOKENS);
    const int32_t prompts[] = {1, 50, 200}; /* ids that each slot is given */
    struct decoder_options options = {.slots = 3, .capacity = 512, .prefill_tokens = 32};
    for (int slots = 1; slots <= 3; slots += 2) {
        struct decoder *decoder = NULL;
        ASSERT_OK(decoder_create(device, &network, &options, &decoder, err));
        int32_t ids[3 * STORY_TOKENS];
        int32_t slot[] = {2, 0, 1};
        int32_t position[] = {0, 0, 0};
        int32_t count[3];
        int32_t token[3];
        int64_t used = 0;
        for (int s = 0; s < slots; s++) {
            count[s] = prompts[s];
            memcpy(ids + used, expected, (size_t)count[s] * sizeof(int32_t));
            used += count[s];
        }
        for (int step = 0; step < STORY_TOKENS - 1; step++) {
            ASSERT_OK(decoder_feed(decoder, &network, ids, slot, position, count, slots, &greedy,
                                   NULL, token, err));
            for (int s = 0; s < slots; s++) {
                position[s] += count[s];
                if (position[s] < STORY_TOKENS) {
                    assert_int_equal(token[s], expected[position[s]]);
                }
                count[s] = 1;
                ids[s] = token[s];
            }
        }
        decoder_destroy(decoder);
    }
    story_close(&story);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_adapter),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_bytes_and_memory),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_story_logits),
        cmocka_unit_test(test_story_greedy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
