#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "model/byte_alphabet.h"
#include "model/model.h"

enum { BYTE_COUNT = 256, END_OF_TEXT = BYTE_COUNT, VOCAB_SIZE = BYTE_COUNT + 1 };

struct init_choices {
    int64_t hidden, layers, heads, intermediate, positions, seed;
};

/* ---- config.json ---- */

static cJSON *make_config(const struct init_choices *choices)
{
    cJSON *config = cJSON_CreateObject();
    cJSON *architectures = cJSON_AddArrayToObject(config, "architectures");
    cJSON_AddItemToArray(architectures, cJSON_CreateString("LlamaForCausalLM"));
    cJSON_AddStringToObject(config, "model_type", "llama");
    cJSON_AddNumberToObject(config, "hidden_size", (double)choices->hidden);
    cJSON_AddNumberToObject(config, "intermediate_size", (double)choices->intermediate);
    cJSON_AddNumberToObject(config, "num_hidden_layers", (double)choices->layers);
    cJSON_AddNumberToObject(config, "num_attention_heads", (double)choices->heads);
    cJSON_AddNumberToObject(config, "num_key_value_heads", (double)choices->heads);
    cJSON_AddNumberToObject(config, "vocab_size", VOCAB_SIZE);
    cJSON_AddNumberToObject(config, "max_position_embeddings", (double)choices->positions);
    cJSON_AddNumberToObject(config, "rms_norm_eps", 1e-5);
    cJSON_AddNumberToObject(config, "rope_theta", 10000.0);
    cJSON_AddStringToObject(config, "hidden_act", "silu");
    cJSON_AddBoolToObject(config, "tie_word_embeddings", true);
    cJSON_AddBoolToObject(config, "attention_bias", false);
    cJSON_AddBoolToObject(config, "mlp_bias", false);
    cJSON_AddNumberToObject(config, "eos_token_id", END_OF_TEXT);
    cJSON_AddStringToObject(config, "torch_dtype", "float32");
    return config;
}

/* ---- tokenizer.json: one token a byte, and an end of text ---- */

/* The visible character of each byte, in UTF-8: the inverse of byte_alphabet's table. */
static void byte_characters(char out[BYTE_COUNT][4])
{
    struct byte_alphabet alphabet;
    byte_alphabet_init(&alphabet);
    memset(out, 0, sizeof(char[BYTE_COUNT][4]));
    for (unsigned point = 0; point < BYTE_ALPHABET_POINTS; point++) {
        int byte = alphabet.bytes[point];
        if (byte < 0) {
            continue;
        }
        if (point < 0x80) {
            out[byte][0] = (char)point;
        } else {
            out[byte][0] = (char)(0xC0 | point >> 6);
            out[byte][1] = (char)(0x80 | (point & 0x3F));
        }
    }
}

static cJSON *byte_level(void)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "type", "ByteLevel");
    cJSON_AddBoolToObject(object, "add_prefix_space", false);
    cJSON_AddBoolToObject(object, "trim_offsets", true);
    cJSON_AddBoolToObject(object, "use_regex", true);
    return object;
}

static cJSON *make_tokenizer(void)
{
    char characters[BYTE_COUNT][4];
    byte_characters(characters);
    cJSON *tokenizer = cJSON_CreateObject();
    cJSON_AddStringToObject(tokenizer, "version", "1.0");
    cJSON *added = cJSON_AddArrayToObject(tokenizer, "added_tokens");
    cJSON *end = cJSON_CreateObject();
    cJSON_AddNumberToObject(end, "id", END_OF_TEXT);
    cJSON_AddStringToObject(end, "content", "<|endoftext|>");
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        cJSON_AddBoolToObject(end, flags[i], false);
    }
    cJSON_AddBoolToObject(end, "special", true);
    cJSON_AddItemToArray(added, end);
    cJSON_AddNullToObject(tokenizer, "normalizer");
    cJSON_AddItemToObject(tokenizer, "pre_tokenizer", byte_level());
    cJSON_AddNullToObject(tokenizer, "post_processor");
    cJSON_AddItemToObject(tokenizer, "decoder", byte_level());
    cJSON *model = cJSON_AddObjectToObject(tokenizer, "model");
    cJSON_AddStringToObject(model, "type", "BPE");
    cJSON *vocab = cJSON_AddObjectToObject(model, "vocab");
    for (int byte = 0; byte < BYTE_COUNT; byte++) {
        cJSON_AddNumberToObject(vocab, characters[byte], byte);
    }
    cJSON_AddArrayToObject(model, "merges");
    return tokenizer;
}

static cJSON *make_tokenizer_config(void)
{
    cJSON *config = cJSON_CreateObject();
    cJSON_AddStringToObject(config, "tokenizer_class", "PreTrainedTokenizerFast");
    cJSON_AddStringToObject(config, "eos_token", "<|endoftext|>");
    return config;
}

/* ---- the folder ---- */

static enum status write_json(const char *folder, const char *name, cJSON *value, struct error *err)
{
    char path[FILE_PATH_BYTES];
    char *text = cJSON_Print(value);
    cJSON_Delete(value);
    enum status status = file_join(folder, name, path, err);
    if (status == STATUS_OK) {
        status = text != NULL ? file_write(path, text, strlen(text), err)
                              : FAIL(err, STATUS_NO_MEMORY, "no memory for %s", name);
    }
    cJSON_free(text);
    return status;
}

static enum status write_weights(const char *folder, uint64_t seed, struct error *err)
{
    struct model_config config;
    struct param_table table;
    struct weights weights;
    struct device *device = NULL;
    const struct device_options options = {0};
    memset(&table, 0, sizeof(table));
    memset(&weights, 0, sizeof(weights));
    enum status status = STATUS_OK;
    TRY_CLEANUP(model_config_load(folder, &config, err));
    TRY_CLEANUP(param_table_build(&config, &table, err));
    TRY_CLEANUP(device_open_cpu(&options, &device, err));
    TRY_CLEANUP(weights_create(device, &table, DTYPE_F32, &weights, err));
    model_init_random(&weights, seed);
    TRY_CLEANUP(model_export(&weights, DTYPE_F32, NULL, folder, err));
    printf("%s: %lld parameters, untrained\n", folder, (long long)model_config_parameters(&config));
cleanup:
    if (weights.device != NULL) {
        weights_fini(&weights);
    }
    device_close(device);
    param_table_fini(&table);
    return status;
}

static enum status init_folder(const char *folder, const struct init_choices *choices,
                               struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(file_join(folder, "config.json", path, err));
    if (file_exists(path)) {
        return FAIL(err, STATUS_INVALID, "%s holds a model already; give another folder", folder);
    }
    TRY(file_make_folders(folder, err));
    TRY(write_json(folder, "tokenizer.json", make_tokenizer(), err));
    TRY(write_json(folder, "tokenizer_config.json", make_tokenizer_config(), err));
    TRY(write_json(folder, "config.json", make_config(choices), err));
    return write_weights(folder, (uint64_t)choices->seed, err);
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct init_choices choices = {
        .hidden = 96, .layers = 3, .heads = 4, .positions = 256, .seed = 1};
    const struct cli_option options[] = {
        {"hidden", CLI_INTEGER, &choices.hidden},
        {"layers", CLI_INTEGER, &choices.layers},
        {"heads", CLI_INTEGER, &choices.heads},
        {"intermediate", CLI_INTEGER, &choices.intermediate},
        {"positions", CLI_INTEGER, &choices.positions},
        {"seed", CLI_INTEGER, &choices.seed},
        {NULL, CLI_FLAG, NULL},
    };
    char **arguments = NULL;
    int exit_code = 0;
    if (!cli_parse(command, argc, argv, options, 1, 1, &arguments, &exit_code)) {
        return exit_code;
    }
    if (choices.intermediate == 0) {
        choices.intermediate = choices.hidden * 8 / 3 / 16 * 16 + 16;
    }
    struct error err = {0};
    enum status status = init_folder(arguments[0], &choices, &err);
    return status == STATUS_OK ? CLI_DONE : cli_fail(&err, NULL);
}

const struct cli_command cli_init = {
    .name = "init",
    .summary = "make a small untrained model folder, to try things with",
    .usage = "usage: trex init DIR [options]\n\n"
             "Writes a Hugging Face folder with a small Llama of random weights and a byte-level\n"
             "tokenizer. jobs/quickstart trains its base model from one.\n\n"
             "  --hidden N --layers N --heads N --intermediate N --positions N --seed N\n\n"
             "example: trex init models/tiny --hidden 96 --layers 3\n",
    .run = run,
};
