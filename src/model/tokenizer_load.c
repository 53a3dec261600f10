#include "model/tokenizer_load.h"

#include <stdlib.h>

#include "base/file.h"
#include "base/mem.h"

enum { TOKENIZER_FILE_MAX_BYTES = 128 * 1024 * 1024, CONFIG_FILE_MAX_BYTES = 16 * 1024 * 1024 };

/* ---- bos and eos --------------------------------------------------------------------------- */

/* What the post-processor puts around a text; -1: nothing. */
struct template
{
    int32_t before;
    int32_t after;
};

static int32_t template_token_id(const cJSON *processor, const cJSON *special)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(special, "id");
    const cJSON *table = cJSON_GetObjectItemCaseSensitive(processor, "special_tokens");
    if (!cJSON_IsString(name)) {
        return -1;
    }
    const cJSON *entry = cJSON_GetObjectItemCaseSensitive(table, name->valuestring);
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(entry, "ids");
    return cJSON_GetArraySize(ids) == 1 ? tokenizer_read_id(cJSON_GetArrayItem(ids, 0)) : -1;
}

static enum status read_template(const cJSON *processor, int32_t id_count,
                                 struct template *template, struct error *err)
{
    const cJSON *single = cJSON_GetObjectItemCaseSensitive(processor, "single");
    bool text_seen = false;
    const cJSON *piece = NULL;
    cJSON_ArrayForEach (piece, single) {
        const cJSON *special = cJSON_GetObjectItemCaseSensitive(piece, "SpecialToken");
        if (special == NULL) {
            text_seen = true;
            continue;
        }
        int32_t *place = text_seen ? &template->after : &template->before;
        int32_t id = template_token_id(processor, special);
        if (id < 0 || id >= id_count) {
            return FAIL(err, STATUS_FORMAT,
                        "TemplateProcessing names a special token without one known id");
        }
        if (*place >= 0) {
            return FAIL(err, STATUS_UNSUPPORTED,
                        "TemplateProcessing with two special tokens side by side is not "
                        "supported; supported are one before and one after the text");
        }
        *place = id;
    }
    return STATUS_OK;
}

static enum status read_post_processor(const cJSON *processor, int32_t id_count,
                                       struct template *template, struct error *err)
{
    if (processor == NULL || cJSON_IsNull(processor)) {
        return STATUS_OK;
    }
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(processor, "type");
    const char *name = cJSON_IsString(type) ? type->valuestring : "";
    if (strcmp(name, "ByteLevel") == 0) { /* only trims offsets, which nobody asks for here */
        return STATUS_OK;
    }
    if (strcmp(name, "TemplateProcessing") == 0) {
        return read_template(processor, id_count, template, err);
    }
    if (strcmp(name, "Sequence") == 0) {
        const cJSON *item = NULL;
        cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(processor, "processors")) {
            TRY(read_post_processor(item, id_count, template, err));
        }
        return STATUS_OK;
    }
    return FAIL(err, STATUS_UNSUPPORTED,
                "post-processor \"%.60s\" is not supported; supported are TemplateProcessing, "
                "ByteLevel, Sequence",
                name);
}

/* A token of tokenizer_config.json: "text", {"content": "text"} or null. *id stays as it is if
 * there is none. */
static enum status read_config_token(const struct tokenizer *tokenizer, const cJSON *config,
                                     const char *key, int32_t *id, struct error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(config, key);
    if (cJSON_IsObject(value)) {
        value = cJSON_GetObjectItemCaseSensitive(value, "content");
    }
    if (value == NULL || cJSON_IsNull(value)) {
        return STATUS_OK;
    }
    if (!cJSON_IsString(value)) {
        return FAIL(err, STATUS_FORMAT,
                    "/%s of tokenizer_config.json must be a string, an object or null", key);
    }
    int32_t found = tokenizer_find_text(tokenizer, value->valuestring, strlen(value->valuestring));
    if (found < 0) {
        return FAIL(err, STATUS_FORMAT,
                    "/%s of tokenizer_config.json is \"%.60s\", which is no token", key,
                    value->valuestring);
    }
    *id = found;
    return STATUS_OK;
}

/* add_bos_token and add_eos_token, if there, overrule the post-processor. */
static enum status read_config_switch(const cJSON *config, const char *key, int32_t id,
                                      int32_t *placed, struct error *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(config, key);
    if (cJSON_IsTrue(value) && id < 0) {
        return FAIL(err, STATUS_FORMAT,
                    "/%s of tokenizer_config.json is true, but there is no such token", key);
    }
    if (cJSON_IsBool(value)) {
        *placed = cJSON_IsTrue(value) ? id : -1;
    }
    return STATUS_OK;
}

static enum status load_special(struct tokenizer *tokenizer, const struct tokenizer_source *source,
                                struct error *err)
{
    struct template template = {.before = -1, .after = -1};
    TRY(read_post_processor(cJSON_GetObjectItemCaseSensitive(source->root, "post_processor"),
                            tokenizer->texts.id_count, &template, err));
    tokenizer->bos_id = template.before;
    tokenizer->eos_id = template.after;
    TRY(read_config_token(tokenizer, source->config, "bos_token", &tokenizer->bos_id, err));
    TRY(read_config_token(tokenizer, source->config, "eos_token", &tokenizer->eos_id, err));
    tokenizer->first_id = template.before;
    tokenizer->last_id = template.after;
    TRY(read_config_switch(source->config, "add_bos_token", tokenizer->bos_id, &tokenizer->first_id,
                           err));
    return read_config_switch(source->config, "add_eos_token", tokenizer->eos_id,
                              &tokenizer->last_id, err);
}

/* ---- the whole ----------------------------------------------------------------------------- */

int32_t tokenizer_read_id(const cJSON *value)
{
    if (!cJSON_IsNumber(value) ||
        !(value->valuedouble >= 0 && value->valuedouble < BPE_VOCAB_MAX)) {
        return -1;
    }
    int32_t id = (int32_t)value->valuedouble;
    return (double)id == value->valuedouble ? id : -1;
}

static enum status load_parts(struct tokenizer *tokenizer, struct tokenizer_source *source,
                              struct error *err)
{
    byte_alphabet_init(&source->alphabet);
    TRY(splitter_read(&tokenizer->splitter,
                      cJSON_GetObjectItemCaseSensitive(source->root, "pre_tokenizer"), err));
    TRY(text_decoder_read(&tokenizer->decoder,
                          cJSON_GetObjectItemCaseSensitive(source->root, "decoder"), err));
    if (tokenizer->splitter.byte_level != tokenizer->decoder.byte_level) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "ByteLevel is supported as pre-tokenizer and decoder, not as one of them");
    }
    TRY(tokenizer_load_texts(tokenizer, source, err));
    TRY(tokenizer_load_merges(tokenizer, source, err));
    TRY(normalizer_read(&tokenizer->normalizer,
                        cJSON_GetObjectItemCaseSensitive(source->root, "normalizer"), err));
    TRY(tokenizer_load_added(tokenizer, source, err));
    return load_special(tokenizer, source, err);
}

static enum status load_json(const cJSON *root, const cJSON *config, struct tokenizer **out,
                             struct error *err)
{
    struct tokenizer *tokenizer = mem_calloc(1, sizeof(*tokenizer));
    if (tokenizer == NULL) {
        return mem_fail(err, sizeof(*tokenizer), "a tokenizer");
    }
    buffer_init(&tokenizer->added_texts, SIZE_MAX / 2);
    struct tokenizer_source source = {.root = root, .config = config};
    enum status status = load_parts(tokenizer, &source, err);
    if (status != STATUS_OK) {
        tokenizer_destroy(tokenizer);
        return status;
    }
    *out = tokenizer;
    return STATUS_OK;
}

enum status tokenizer_load(const char *folder, struct tokenizer **out, struct error *err)
{
    char path[FILE_PATH_BYTES];
    char config_path[FILE_PATH_BYTES];
    TRY(file_join(folder, "tokenizer.json", path, err));
    TRY(file_join(folder, "tokenizer_config.json", config_path, err));
    cJSON *root = NULL;
    cJSON *config = NULL;
    enum status status = STATUS_OK;
    TRY_CLEANUP(json_parse_file(path, TOKENIZER_FILE_MAX_BYTES, &root, err));
    if (file_exists(config_path)) {
        TRY_CLEANUP(json_parse_file(config_path, CONFIG_FILE_MAX_BYTES, &config, err));
    }
    status = load_json(root, config, out, err);
    if (status != STATUS_OK) {
        error_context(err, "%.400s", path);
    }
cleanup:
    cJSON_Delete(root);
    cJSON_Delete(config);
    return status;
}
