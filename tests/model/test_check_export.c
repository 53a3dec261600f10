/* Writes exports beside the logits that this program has for them, for tests/golden/check_export.py
 * to load in transformers and PEFT. Needs EXPORT_FOLDER, an empty folder to write to. */
#include "model/model.h"

#include "support.h"

struct values {
    const int32_t *ids;
    const float *logits;
    int64_t tokens;
    int64_t vocab;
};

static enum status read_values(void *context, int64_t index, void *to, struct error *err)
{
    (void)err;
    const struct values *values = context;
    if (index == 0) {
        memcpy(to, values->ids, (size_t)values->tokens * sizeof(int32_t));
    } else {
        memcpy(to, values->logits, (size_t)(values->tokens * values->vocab) * sizeof(float));
    }
    return STATUS_OK;
}

/* Logits of the first sequence of the golden batch, written to <folder>/trex_logits.safetensors. */
static void write_logits(const struct network *network, const struct golden *golden,
                         const char *folder)
{
    int32_t rows[64];
    const int32_t starts[] = {0, golden->batch.starts[1]};
    struct batch batch = golden->batch;
    batch.tokens = starts[1];
    batch.sequences = 1;
    batch.starts = starts;
    int64_t vocab = network->config->vocab_size;
    float *logits = mem_calloc((size_t)(batch.tokens * vocab), sizeof(*logits));
    assert_non_null(logits);
    for (int32_t i = 0; i < starts[1]; i++) {
        rows[i] = i;
    }
    struct transformer_options options = {.max_tokens = batch.tokens,
                                          .compute = network->weights->dtype};
    struct transformer *transformer = NULL;
    ASSERT_OK(transformer_create(network->weights->device, network, &options, &transformer, err));
    ASSERT_OK(transformer_logits(transformer, network, &batch, rows, batch.tokens, logits, err));
    transformer_destroy(transformer);
    struct values values = {batch.ids, logits, batch.tokens, vocab};
    struct safetensors_entry entries[2] = {
        {.name = "ids", .dtype = SAFETENSORS_I32, .dimensions = 1, .shape = {batch.tokens}},
        {.name = "logits",
         .dtype = SAFETENSORS_F32,
         .dimensions = 2,
         .shape = {batch.tokens, vocab}},
    };
    char path[FILE_PATH_BYTES];
    ASSERT_OK(file_join(folder, "trex_logits.safetensors", path, err));
    ASSERT_OK(safetensors_write(path, entries, 2, read_values, &values, err));
    free(logits);
}

/* Weights that no file has: the export must carry them. */
static void shake(const struct weights *weights, uint64_t seed)
{
    for (int64_t i = 0; i < weights->table->count; i++) {
        const struct param *param = &weights->table->items[i];
        int64_t count = param->rows * param->cols;
        float *values = mem_calloc((size_t)count, sizeof(*values));
        assert_non_null(values);
        struct rng rng;
        rng_init(&rng, seed, (uint64_t)i);
        weights_get(weights, i, values);
        for (int64_t k = 0; k < count; k++) {
            values[k] += (float)rng_normal(&rng) * 0.1f;
        }
        weights_set(weights, i, values);
        free(values);
    }
}

static void export_model(struct device *device, const char *root, const char *name,
                         enum dtype dtype)
{
    struct golden golden;
    char out[FILE_PATH_BYTES];
    char folder[64];
    snprintf(folder, sizeof(folder), "%s_%s", name, dtype == DTYPE_F32 ? "f32" : "bf16");
    ASSERT_OK(file_join(root, folder, out, err));
    golden_open(device, name, dtype, &golden);
    shake(&golden.weights, 1);
    struct network network = {&golden.config, &golden.weights, NULL, NULL};
    ASSERT_OK(model_export_sharded(&golden.weights, dtype, dtype == DTYPE_F32 ? 1 << 30 : 5000,
                                   golden.folder, out, err));
    write_logits(&network, &golden, out);
    golden_close(&golden);
}

/* An adapter on an exported base, and the two merged. */
static void export_adapter(struct device *device, const char *root)
{
    struct golden golden;
    struct param_table table;
    struct weights adapter;
    struct lora_config lora = {.rank = 4, .alpha = 6.0, .targets = LORA_ALL};
    char base[FILE_PATH_BYTES];
    char out[FILE_PATH_BYTES];
    golden_open(device, "llama_tied", DTYPE_F32, &golden);
    ASSERT_OK(lora_table_build(&golden.config, &lora, &table, err));
    ASSERT_OK(weights_create(device, &table, DTYPE_F32, &adapter, err));
    lora_init(&adapter, 3);
    shake(&adapter, 2);
    struct network network = {&golden.config, &golden.weights, &adapter, &lora};
    ASSERT_OK(file_join(root, "base", base, err));
    ASSERT_OK(model_export(&golden.weights, DTYPE_F32, golden.folder, base, err));
    ASSERT_OK(file_join(root, "adapter", out, err));
    ASSERT_OK(model_export_adapter(&adapter, &lora, base, out, err));
    write_logits(&network, &golden, out);
    ASSERT_OK(lora_merge(&golden.config, &lora, &adapter, &golden.weights, err));
    ASSERT_OK(file_join(root, "merged", out, err));
    ASSERT_OK(model_export(&golden.weights, DTYPE_F32, golden.folder, out, err));
    network.adapter = NULL;
    network.lora = NULL;
    write_logits(&network, &golden, out);
    weights_fini(&adapter);
    param_table_fini(&table);
    golden_close(&golden);
}

static void test_write(void **state)
{
    (void)state;
    const char *root = getenv("EXPORT_FOLDER");
    if (root == NULL) {
        printf("EXPORT_FOLDER is not set: nothing is written for tests/golden/check_export.py\n");
        skip();
    }
    struct device *device = open_device();
    static const char *const names[] = {"llama", "llama_tied", "qwen3", "qwen3_tied"};
    for (int i = 0; i < 4; i++) {
        export_model(device, root, names[i], DTYPE_F32);
        export_model(device, root, names[i], DTYPE_BF16);
    }
    export_adapter(device, root);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_write)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
