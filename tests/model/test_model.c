/* Whole folders: loading, refusing, exporting. tests/golden/check_export.py loads exports in
 * transformers and PEFT. */
#include "model/model.h"

#include "support.h"

static char scratch[FILE_PATH_BYTES];

static const char *const copied[] = {
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
};
enum { COPIED_COUNT = sizeof(copied) / sizeof(copied[0]) };

/* A copy of a golden folder that a test may spoil. */
static void copy_golden(const char *name, char folder[FILE_PATH_BYTES])
{
    ASSERT_OK(file_join(scratch, name, folder, err));
    ASSERT_OK(file_make_folders(folder, err));
    for (int i = 0; i < COPIED_COUNT; i++) {
        char from[FILE_PATH_BYTES];
        char to[FILE_PATH_BYTES];
        struct buffer contents;
        snprintf(from, sizeof(from), "%s%s/%s", GOLDEN, name, copied[i]);
        ASSERT_OK(file_join(folder, copied[i], to, err));
        ASSERT_OK(file_remove(to, err));
        if (!file_exists(from)) {
            continue;
        }
        buffer_init(&contents, 1 << 20);
        ASSERT_OK(file_read(from, &contents, err));
        ASSERT_OK(file_write(to, contents.data, contents.len_bytes, err));
        buffer_fini(&contents);
    }
}

static void compare_weights(const struct weights *a, const struct weights *b)
{
    assert_int_equal(a->table->count, b->table->count);
    for (int64_t i = 0; i < a->table->count; i++) {
        const struct param *param = &a->table->items[i];
        size_t count = (size_t)(param->rows * param->cols);
        float *left = mem_calloc(count, sizeof(float));
        float *right = mem_calloc(count, sizeof(float));
        weights_get(a, i, left);
        weights_get(b, i, right);
        assert_memory_equal(left, right, count * sizeof(float));
        free(left);
        free(right);
    }
}

static void test_load(void **state)
{
    (void)state;
    static const char *const names[] = {"llama", "llama_tied", "qwen3", "qwen3_tied"};
    struct device *device = open_device();
    for (int i = 0; i < 4; i++) {
        char folder[FILE_PATH_BYTES];
        struct model *model = NULL;
        struct model *inspected = NULL;
        struct golden golden;
        snprintf(folder, sizeof(folder), "%s%s", GOLDEN, names[i]);
        ASSERT_OK(model_load(folder, device, DTYPE_F32, &model, err));
        golden_open(device, names[i], DTYPE_F32, &golden);
        compare_weights(&model->weights, &golden.weights);
        assert_int_equal(tokenizer_vocab_size(model->tokenizer), 40);
        assert_int_equal(model->chat, CHAT_PLAIN);
        assert_true(model->chat_known);
        assert_string_equal(model->folder, folder);
        assert_int_equal(strlen(model->hash), HASH_TEXT_BYTES - 1);
        ASSERT_OK(model_inspect(folder, &inspected, err));
        assert_null(inspected->weights.data);
        assert_int_equal(inspected->table.elements, model->table.elements);
        assert_string_not_equal(inspected->hash, model->hash);
        model_destroy(inspected);
        model_destroy(model);
        golden_close(&golden);
    }
    model_destroy(NULL);
    device_close(device);
}

/* Reads a folder's file, changes it by `edit`, writes it back. */
static void edit_file(const char *folder, const char *name, void (*edit)(struct buffer *contents))
{
    char path[FILE_PATH_BYTES];
    struct buffer contents;
    ASSERT_OK(file_join(folder, name, path, err));
    buffer_init(&contents, 1 << 20);
    ASSERT_OK(file_read(path, &contents, err));
    edit(&contents);
    ASSERT_OK(file_write(path, contents.data, contents.len_bytes, err));
    buffer_fini(&contents);
}

/* Overwrites text that is there; `to` is as long as `from`. */
static void replace(struct buffer *contents, const char *from, const char *to)
{
    assert_int_equal(strlen(from), strlen(to));
    char *at = memmem(contents->data, contents->len_bytes, from, strlen(from));
    assert_non_null(at);
    memcpy(at, to, strlen(to));
}

static void cut_end(struct buffer *contents)
{
    contents->len_bytes -= 10;
}

static void rename_tensor(struct buffer *contents)
{
    replace(contents, "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.op_proj.weight");
}

static void change_width(struct buffer *contents)
{
    replace(contents, "\"intermediate_size\": 20", "\"intermediate_size\": 21");
}

static void change_vocabulary(struct buffer *contents)
{
    replace(contents, "\"vocab_size\": 40", "\"vocab_size\": 39");
}

static void flip_last_byte(struct buffer *contents)
{
    contents->data[contents->len_bytes - 1] ^= 1;
}

static void add_token_id(struct buffer *contents)
{
    replace(contents, ": 39}", ": 49}");
}

static void add_template(struct buffer *contents)
{
    contents->len_bytes -= 2; /* "}\n" */
    buffer_append_text(contents, ", \"chat_template\": \"{{ unheard_of }}\"}");
}

static void as_integers(struct buffer *contents)
{
    replace(contents, "\"dtype\":\"F32\"", "\"dtype\":\"I32\"");
}

static void test_bad_folders(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct model *model = NULL;
    char folder[FILE_PATH_BYTES];
#define LOAD_FAILS(code, text)                                                                     \
    do {                                                                                           \
        ASSERT_FAILS(model_load(folder, device, DTYPE_F32, &model, err), code, text);              \
        ASSERT_FAILS(model_inspect(folder, &model, err), code, text);                              \
    } while (0)
    copy_golden("llama", folder);
    edit_file(folder, "model.safetensors", cut_end);
    LOAD_FAILS(STATUS_FORMAT, "model.safetensors");
    copy_golden("llama", folder);
    edit_file(folder, "model.safetensors", rename_tensor);
    LOAD_FAILS(STATUS_INVALID, "model.layers.1.mlp.up_proj.weight is missing, expected [20, 16]");
    LOAD_FAILS(STATUS_INVALID,
               "model.layers.1.mlp.op_proj.weight of shape [20, 16] is not part of");
    LOAD_FAILS(STATUS_INVALID, "2 of its tensors");
    copy_golden("llama", folder);
    edit_file(folder, "config.json", change_width);
    LOAD_FAILS(STATUS_INVALID,
               "model.layers.0.mlp.gate_proj.weight has shape [20, 16], expected [21, 16]");
    LOAD_FAILS(STATUS_INVALID, "6 of its tensors");
    copy_golden("llama", folder);
    edit_file(folder, "model.safetensors", as_integers);
    LOAD_FAILS(STATUS_INVALID, "has dtype I32, allowed are F32, BF16, F16");
    copy_golden("llama", folder);
    char path[FILE_PATH_BYTES];
    ASSERT_OK(file_join(folder, "model.safetensors", path, err));
    ASSERT_OK(file_remove(path, err));
    LOAD_FAILS(STATUS_NOT_FOUND, "neither model.safetensors");
    copy_golden("llama", folder);
    ASSERT_OK(file_join(folder, "tokenizer.json", path, err));
    ASSERT_OK(file_remove(path, err));
    LOAD_FAILS(STATUS_NOT_FOUND, "tokenizer.json");
    copy_golden("qwen3_tied", folder);
    edit_file(folder, "config.json", change_vocabulary);
    LOAD_FAILS(STATUS_INVALID, "model.embed_tokens.weight has shape [40, 16], expected [39, 16]");
    copy_golden("llama", folder);
    edit_file(folder, "tokenizer.json", add_token_id);
    LOAD_FAILS(STATUS_INVALID, "the tokenizer has ids up to 49, config.json a vocab_size of 40");
    device_close(device);
}

/* A template that nobody here knows does not keep the weights from being used. */
static void test_unknown_template(void **state)
{
    (void)state;
    struct model *model = NULL;
    char folder[FILE_PATH_BYTES];
    copy_golden("llama", folder);
    edit_file(folder, "tokenizer_config.json", add_template);
    ASSERT_OK(model_inspect(folder, &model, err));
    assert_false(model->chat_known);
    assert_int_equal(model->chat, CHAT_PLAIN);
    model_destroy(model);
}

/* The identity changes with a bit of a tensor; inspect's does not, as it reads no data. */
static void test_hash(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct model *model[2];
    struct model *inspected[2];
    char folder[FILE_PATH_BYTES];
    for (int i = 0; i < 2; i++) {
        copy_golden("llama", folder);
        if (i == 1) {
            edit_file(folder, "model.safetensors", flip_last_byte);
        }
        ASSERT_OK(model_load(folder, device, DTYPE_BF16, &model[i], err));
        ASSERT_OK(model_inspect(folder, &inspected[i], err));
    }
    assert_string_not_equal(model[0]->hash, model[1]->hash);
    assert_string_equal(inspected[0]->hash, inspected[1]->hash);
    for (int i = 0; i < 2; i++) {
        model_destroy(model[i]);
        model_destroy(inspected[i]);
    }
    device_close(device);
}

/* Adds the embedding's copy under the head's name, as some files of tied models have it. */
static void write_with_head(const char *folder, bool same)
{
    char path[FILE_PATH_BYTES];
    struct safetensors *file = NULL;
    struct safetensors_entry entries[64];
    ASSERT_OK(file_join(folder, "model.safetensors", path, err));
    ASSERT_OK(safetensors_open_file(path, &file, err));
    int64_t count = safetensors_count(file);
    for (int64_t i = 0; i < count; i++) {
        entries[i] = *safetensors_at(file, i);
    }
    entries[count] = *safetensors_find(file, "model.embed_tokens.weight");
    strcpy(entries[count].name, "lm_head.weight");
    entries[count].data = same ? entries[count].data : (const char *)entries[count].data + 4;
    struct buffer data;
    struct buffer header;
    buffer_init(&header, 1 << 20);
    buffer_init(&data, 1 << 20);
    for (int64_t i = 0; i <= count; i++) {
        char shape[64];
        safetensors_shape_text(&entries[i], shape, sizeof(shape));
        buffer_printf(&header,
                      "%s\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                      i == 0 ? "{" : ",", entries[i].name, shape, data.len_bytes,
                      data.len_bytes + entries[i].len_bytes);
        buffer_append(&data, entries[i].data, entries[i].len_bytes);
    }
    buffer_append_char(&header, '}');
    struct buffer all;
    buffer_init(&all, 1 << 20);
    for (int i = 0; i < 8; i++) {
        buffer_append_char(&all, (char)(header.len_bytes >> (8 * i)));
    }
    buffer_append(&all, header.data, header.len_bytes);
    buffer_append(&all, data.data, data.len_bytes);
    safetensors_close(file);
    ASSERT_OK(file_write(path, all.data, all.len_bytes, err));
    buffer_fini(&all);
    buffer_fini(&data);
    buffer_fini(&header);
}

static void test_tied_copy(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct model *model = NULL;
    char folder[FILE_PATH_BYTES];
    copy_golden("qwen3_tied", folder);
    write_with_head(folder, true);
    ASSERT_OK(model_load(folder, device, DTYPE_F32, &model, err));
    model_destroy(model);
    copy_golden("qwen3_tied", folder);
    write_with_head(folder, false);
    ASSERT_FAILS(model_load(folder, device, DTYPE_F32, &model, err), STATUS_INVALID,
                 "lm_head.weight");
    device_close(device);
}

/* Out and in again: the same weights; whole and in shards, one after the other in one folder; to
 * bf16 and back. */
static void test_export(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct model *model = NULL;
    struct model *back = NULL;
    char out[FILE_PATH_BYTES];
    char path[FILE_PATH_BYTES];
    ASSERT_OK(file_join(scratch, "export/deep", out, err));
    ASSERT_OK(model_load(GOLDEN "qwen3", device, DTYPE_F32, &model, err));
    const int64_t shard_bytes[] = {INT64_MAX, 4000, 1, INT64_MAX};
    for (int i = 0; i < 4; i++) {
        ASSERT_OK(model_export_sharded(&model->weights, DTYPE_F32, shard_bytes[i], GOLDEN "qwen3",
                                       out, err));
        ASSERT_OK(file_join(out, "model.safetensors", path, err));
        assert_int_equal(file_exists(path), shard_bytes[i] == INT64_MAX);
        ASSERT_OK(model_load(out, device, DTYPE_F32, &back, err));
        compare_weights(&model->weights, &back->weights);
        assert_int_equal(back->config.stored_dtype, DTYPE_F32);
        model_destroy(back);
    }
    ASSERT_OK(model_export(&model->weights, DTYPE_BF16, GOLDEN "qwen3", out, err));
    ASSERT_OK(model_load(out, device, DTYPE_F32, &back, err));
    assert_int_equal(back->config.stored_dtype, DTYPE_BF16);
    float before[640];
    float after[640];
    weights_get(&model->weights, 0, before);
    weights_get(&back->weights, 0, after);
    for (int i = 0; i < 640; i++) {
        assert_true(after[i] == number_from_bf16(number_to_bf16(before[i])));
    }
    model_destroy(back);

    ASSERT_FAILS(model_export(&model->weights, DTYPE_F32, out, out, err), STATUS_INVALID,
                 "base model itself");
    ASSERT_FAILS(model_export(&model->weights, DTYPE_F32, "/nowhere", out, err), STATUS_NOT_FOUND,
                 "/nowhere");
    setenv("TREX_FAULT", "model.safetensors.write_tensor:2=enospc", 1);
    ASSERT_FAILS(model_export(&model->weights, DTYPE_F32, GOLDEN "qwen3", out, err),
                 STATUS_NO_SPACE, "TREX_FAULT");
    unsetenv("TREX_FAULT");
    model_destroy(model);
    device_close(device);
}

static void test_export_adapter(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    struct lora_config lora = {.rank = 3, .alpha = 5.0, .targets = LORA_QUERY | LORA_DOWN};
    struct param_table table;
    struct weights adapter;
    char out[FILE_PATH_BYTES];
    char path[FILE_PATH_BYTES];
    golden_open(device, "llama", DTYPE_F32, &golden);
    ASSERT_OK(lora_table_build(&golden.config, &lora, &table, err));
    ASSERT_OK(weights_create(device, &table, DTYPE_F32, &adapter, err));
    lora_init(&adapter, 1);
    ASSERT_OK(file_join(scratch, "adapter", out, err));
    ASSERT_OK(model_export_adapter(&adapter, &lora, golden.folder, out, err));
    struct safetensors *file = NULL;
    ASSERT_OK(file_join(out, "adapter_model.safetensors", path, err));
    ASSERT_OK(safetensors_open_file(path, &file, err));
    ASSERT_OK(model_tensors_check(file, &golden.config, &table, path, err));
    safetensors_close(file);
    cJSON *json = NULL;
    ASSERT_OK(file_join(out, "adapter_config.json", path, err));
    ASSERT_OK(json_parse_file(path, 4096, &json, err));
    assert_int_equal(cJSON_GetObjectItem(json, "r")->valueint, 3);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "target_modules")), 2);
    cJSON_Delete(json);
    weights_fini(&adapter);
    param_table_fini(&table);
    golden_close(&golden);
    device_close(device);
}

static void test_random(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    float values[640];
    golden_open(device, "llama", DTYPE_F32, &golden);
    model_init_random(&golden.weights, 9);
    weights_get(&golden.weights, 0, values);
    double sum = 0.0;
    double squares = 0.0;
    for (int i = 0; i < 640; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
    }
    ASSERT_CLOSE(sum / 640.0, 0.0, 0.003);
    ASSERT_CLOSE(sqrt(squares / 640.0), 0.02, 0.002);
    weights_get(&golden.weights, param_index(&golden.config, PARAM_FINAL_NORM, 0), values);
    assert_true(values[0] == 1.0f && values[15] == 1.0f);
    golden_close(&golden);
    device_close(device);
}

/* Each allocation of a load fails in turn: an error, and nothing stays on the device. */
static void test_no_memory(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct device_memory before;
    struct device_memory after;
    device->ops->memory(device, &before);
    int64_t failures = 0;
    for (int64_t nth = 1;; nth++) {
        struct model *model = NULL;
        struct error error;
        mem_fail_nth(nth);
        enum status status = model_load(GOLDEN "llama", device, DTYPE_BF16, &model, &error);
        mem_fail_nth(0);
        if (status == STATUS_OK) {
            model_destroy(model);
            break;
        }
        assert_null(model);
        failures++;
    }
    assert_true(failures > 10);
    device->ops->memory(device, &after);
    assert_int_equal(after.used_bytes, before.used_bytes);
    device_close(device);
}

int main(void)
{
    char name[] = "/tmp/trex-test-model-XXXXXX";
    if (mkdtemp(name) == NULL) {
        return 1;
    }
    snprintf(scratch, sizeof(scratch), "%s", name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_bad_folders),
        cmocka_unit_test(test_unknown_template),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_tied_copy),
        cmocka_unit_test(test_export),
        cmocka_unit_test(test_export_adapter),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_no_memory),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[FILE_PATH_BYTES];
    snprintf(command, sizeof(command), "rm -rf '%s'", name);
    return failed + (system(command) != 0);
}
