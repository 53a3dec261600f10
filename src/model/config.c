#include "model/config.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "model/family.h"

/* Bounds of what is read. Far above any model, and low enough that no product of sizes below
 * overflows 63 bits. */
enum {
    CONFIG_MAX_BYTES = 4 * 1024 * 1024,
    WIDTH_MAX = 1 << 20,
    LAYERS_MAX = 1 << 12,
    HEADS_MAX = 1 << 12,
    HEAD_DIM_MAX = 1 << 12,
    VOCAB_MAX = 1 << 24,
    POSITIONS_MAX = 1 << 28,
};

/* What a reading of one file collects: mistakes, and features without code here. */
struct findings {
    struct json_problems mistakes;
    struct json_problems unsupported;
};

static const struct model_family *read_family(struct json_reader *reader,
                                              struct json_problems *unsupported)
{
    char found[128] = "nothing";
    const cJSON *list = json_read_array(reader, "architectures");
    const cJSON *first = cJSON_GetArrayItem(list, 0);
    if (cJSON_IsString(first)) {
        const struct model_family *family = model_family_find(first->valuestring);
        if (family != NULL) {
            return family;
        }
        snprintf(found, sizeof(found), "\"%.100s\"", first->valuestring);
    }
    char known[256];
    model_family_list(known, sizeof(known));
    json_problems_add(unsupported, "/architectures", "found %s, supported are %s", found, known);
    return NULL;
}

static void read_sizes(struct json_reader *reader, const struct model_family *family,
                       struct model_config *config)
{
    static const char *const required[] = {"hidden_size", "intermediate_size", "num_hidden_layers",
                                           "num_attention_heads", "vocab_size"};
    for (size_t i = 0; i < sizeof(required) / sizeof(required[0]); i++) {
        json_require(reader, required[i], "a whole number");
    }
    config->hidden_size = json_read_int(reader, "hidden_size", 1, 1, WIDTH_MAX);
    config->intermediate_size = json_read_int(reader, "intermediate_size", 1, 1, WIDTH_MAX);
    config->layers = json_read_int(reader, "num_hidden_layers", 1, 1, LAYERS_MAX);
    config->heads = json_read_int(reader, "num_attention_heads", 1, 1, HEADS_MAX);
    config->kv_heads = json_read_int(reader, "num_key_value_heads", config->heads, 1, HEADS_MAX);
    int64_t head_dim = family->default_head_dim > 0 ? family->default_head_dim
                                                    : config->hidden_size / config->heads;
    config->head_dim = json_read_int(reader, "head_dim", head_dim, 1, HEAD_DIM_MAX);
    config->vocab_size = json_read_int(reader, "vocab_size", 1, 1, VOCAB_MAX);
    config->max_positions = json_read_int(reader, "max_position_embeddings",
                                          family->default_max_positions, 1, POSITIONS_MAX);
    config->norm_epsilon = json_read_number(reader, "rms_norm_eps", 1e-6, 0.0, 1.0);
    config->tied_embeddings = json_read_bool(reader, "tie_word_embeddings", false);
    config->qk_norm = family->qk_norm;
}

/* Sizes that are each fine, but not together. */
static void check_sizes(const struct json_reader *reader, const struct model_config *config,
                        struct json_problems *mistakes)
{
    if (mistakes->count > 0) {
        return;
    }
    bool derived = cJSON_GetObjectItemCaseSensitive(reader->object, "head_dim") == NULL &&
                   config->family->default_head_dim == 0;
    if (derived && config->hidden_size % config->heads != 0) {
        json_problems_add(
            mistakes, "/hidden_size",
            "found %lld, allowed is a multiple of num_attention_heads %lld, or head_dim "
            "besides",
            (long long)config->hidden_size, (long long)config->heads);
    } else if (config->head_dim % 2 != 0) {
        json_problems_add(mistakes, "/head_dim", "found %lld, allowed is an even number",
                          (long long)config->head_dim);
    }
    if (config->heads % config->kv_heads != 0) {
        json_problems_add(mistakes, "/num_key_value_heads",
                          "found %lld, allowed is a divisor of num_attention_heads %lld",
                          (long long)config->kv_heads, (long long)config->heads);
    }
}

static void read_llama3_scaling(struct json_reader *rope, struct model_config *config)
{
    json_require(rope, "original_max_position_embeddings", "a whole number");
    config->rope_low_frequency_factor = json_read_number(rope, "low_freq_factor", 1.0, 1e-6, 1e6);
    config->rope_high_frequency_factor = json_read_number(rope, "high_freq_factor", 4.0, 1e-6, 1e6);
    config->rope_original_positions =
        json_read_int(rope, "original_max_position_embeddings", 8192, 1, POSITIONS_MAX);
    if (config->rope_high_frequency_factor <= config->rope_low_frequency_factor) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(rope, "high_freq_factor", pointer);
        json_problems_add(rope->problems, pointer,
                          "found %g, allowed is more than low_freq_factor %g",
                          config->rope_high_frequency_factor, config->rope_low_frequency_factor);
    }
}

/* One rope object: "rope_scaling" of older files, "rope_parameters" of newer ones, which holds
 * theta as well. */
static void read_rope_object(struct json_reader *reader, const char *key, struct findings *findings,
                             struct model_config *config)
{
    const cJSON *object = json_read_object(reader, key);
    if (object == NULL) {
        return;
    }
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(reader, key, pointer);
    struct json_reader rope;
    json_reader_init(&rope, object, pointer, &findings->mistakes);
    const char *type =
        json_read_string(&rope, "rope_type", json_read_string(&rope, "type", "default"));
    config->rope_theta = json_read_number(&rope, "rope_theta", config->rope_theta, 1.0, 1e12);
    if (strcmp(type, "default") == 0) {
        config->rope_scaling = ROPE_SCALING_NONE;
        return;
    }
    bool llama3 = strcmp(type, "llama3") == 0;
    if (!llama3 && strcmp(type, "linear") != 0) {
        json_problems_add(&findings->unsupported, pointer,
                          "found rope_type \"%.40s\", supported are default, linear, llama3", type);
        return;
    }
    json_require(&rope, "factor", "a number");
    config->rope_factor = json_read_number(&rope, "factor", 1.0, 1.0, 1e6);
    config->rope_scaling = llama3 ? ROPE_SCALING_LLAMA3 : ROPE_SCALING_LINEAR;
    if (llama3) {
        read_llama3_scaling(&rope, config);
    }
}

static void read_rope(struct json_reader *reader, struct findings *findings,
                      struct model_config *config)
{
    config->rope_scaling = ROPE_SCALING_NONE;
    config->rope_factor = 1.0;
    config->rope_theta = json_read_number(reader, "rope_theta", 10000.0, 1.0, 1e12);
    read_rope_object(reader, "rope_scaling", findings, config);
    read_rope_object(reader, "rope_parameters", findings, config);
}

static void read_features(struct json_reader *reader, struct json_problems *unsupported)
{
    const char *activation = json_read_string(reader, "hidden_act", "silu");
    if (strcmp(activation, "silu") != 0) {
        json_problems_add(unsupported, "/hidden_act", "found \"%.40s\", supported is \"silu\"",
                          activation);
    }
    if (json_read_any(reader, "quantization_config") != NULL) {
        json_problems_add(unsupported, "/quantization_config",
                          "quantised weights, supported are float32, bfloat16 and float16");
    }
}

static void read_dtype(struct json_reader *reader, struct json_problems *unsupported,
                       struct model_config *config)
{
    /* float16 has no dtype on devices here: such tensors are widened when they are read. */
    const char *dtype = json_read_string(reader, "torch_dtype", "float32");
    dtype = json_read_string(reader, "dtype", dtype);
    bool bf16 = strcmp(dtype, "bfloat16") == 0;
    if (!bf16 && strcmp(dtype, "float32") != 0 && strcmp(dtype, "float16") != 0) {
        json_problems_add(unsupported, "/torch_dtype",
                          "found \"%.40s\", supported are float32, bfloat16, float16", dtype);
    }
    config->stored_dtype = bf16 ? DTYPE_BF16 : DTYPE_F32;
}

static void add_eos(const cJSON *value, struct json_problems *mistakes, struct model_config *config)
{
    double id = cJSON_IsNumber(value) ? value->valuedouble : -1.0;
    if (!(id >= 0.0 && id < (double)config->vocab_size) || id != (double)(int32_t)id) {
        json_problems_add(mistakes, "/eos_token_id",
                          "found %g, allowed are token ids from 0 to %lld", id,
                          (long long)config->vocab_size - 1);
        return;
    }
    for (int i = 0; i < config->eos_count; i++) {
        if (config->eos[i] == (int32_t)id) {
            return;
        }
    }
    if (config->eos_count == MODEL_EOS_MAX) {
        json_problems_add(mistakes, "/eos_token_id", "found more than %d ids", MODEL_EOS_MAX);
        return;
    }
    config->eos[config->eos_count++] = (int32_t)id;
}

/* "eos_token_id": one id, a list of them, null or absent. */
static void read_eos(struct json_reader *reader, struct model_config *config)
{
    const cJSON *value = json_read_any(reader, "eos_token_id");
    if (cJSON_IsArray(value)) {
        const cJSON *item = NULL;
        cJSON_ArrayForEach (item, value) {
            add_eos(item, reader->problems, config);
        }
    } else if (value != NULL) {
        add_eos(value, reader->problems, config);
    }
}

static enum status findings_check(const struct findings *findings, const char *path,
                                  struct error *err)
{
    if (findings->unsupported.count > 0) {
        return FAIL(err, STATUS_UNSUPPORTED, "%s: %.800s", path,
                    buffer_text(&findings->unsupported.text));
    }
    return json_problems_check(&findings->mistakes, path, err);
}

static enum status parse_config(const cJSON *json, const char *path, struct model_config *config,
                                struct error *err)
{
    struct findings findings;
    json_problems_init(&findings.mistakes);
    json_problems_init(&findings.unsupported);
    struct json_reader reader;
    json_reader_init(&reader, json, "", &findings.mistakes);
    config->family = read_family(&reader, &findings.unsupported);
    if (config->family != NULL) {
        read_sizes(&reader, config->family, config);
        check_sizes(&reader, config, &findings.mistakes);
        read_rope(&reader, &findings, config);
        read_features(&reader, &findings.unsupported);
        read_dtype(&reader, &findings.unsupported, config);
        read_eos(&reader, config);
        config->family->read_config(&reader, &findings.unsupported);
    }
    enum status status = findings_check(&findings, path, err);
    json_problems_fini(&findings.mistakes);
    json_problems_fini(&findings.unsupported);
    return status;
}

/* generation_config.json may name more tokens that end an answer (Llama 3, Qwen3). It is optional.
 */
static enum status add_generation_eos(const char *folder, struct model_config *config,
                                      struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(file_join(folder, "generation_config.json", path, err));
    if (!file_exists(path)) {
        return STATUS_OK;
    }
    cJSON *json = NULL;
    TRY(json_parse_file(path, CONFIG_MAX_BYTES, &json, err));
    struct json_problems problems;
    json_problems_init(&problems);
    struct json_reader reader;
    json_reader_init(&reader, json, "", &problems);
    read_eos(&reader, config);
    enum status status = json_problems_check(&problems, path, err);
    json_problems_fini(&problems);
    cJSON_Delete(json);
    return status;
}

enum status model_config_load(const char *folder, struct model_config *out, struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(file_join(folder, "config.json", path, err));
    cJSON *json = NULL;
    TRY(json_parse_file(path, CONFIG_MAX_BYTES, &json, err));
    struct model_config config;
    memset(&config, 0, sizeof(config));
    enum status status = parse_config(json, path, &config, err);
    cJSON_Delete(json);
    TRY(status);
    TRY(add_generation_eos(folder, &config, err));
    *out = config;
    return STATUS_OK;
}

/* Elements of the matrices of one layer. */
static int64_t layer_matrix_elements(const struct model_config *config)
{
    int64_t attention =
        config->hidden_size * config->head_dim * 2 * (config->heads + config->kv_heads);
    return attention + 3 * config->hidden_size * config->intermediate_size;
}

int64_t model_config_parameters(const struct model_config *config)
{
    int64_t layer_norms = 2 * config->hidden_size + (config->qk_norm ? 2 * config->head_dim : 0);
    int64_t embeddings =
        (config->tied_embeddings ? 1 : 2) * config->vocab_size * config->hidden_size;
    return embeddings + config->layers * (layer_matrix_elements(config) + layer_norms) +
           config->hidden_size;
}

double model_config_flops_per_token(const struct model_config *config, int64_t sequence_length,
                                    bool frozen)
{
    /* N: the matrices a token is multiplied with, the head included; looking up the embedding costs
     * nothing. */
    double matrices = (double)config->layers * (double)layer_matrix_elements(config) +
                      (double)config->vocab_size * (double)config->hidden_size;
    double attention = 6.0 * (double)config->layers * (double)(config->heads * config->head_dim) *
                       (double)sequence_length;
    return (frozen ? 4.0 : 6.0) * matrices + attention;
}
