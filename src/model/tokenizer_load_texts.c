/* Ids and their texts: the vocabulary, and the tokens that were added to it. */
#include <stdlib.h>

#include "base/mem.h"
#include "model/tokenizer_load.h"

static const cJSON *model_vocabulary(const struct tokenizer_source *source)
{
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(source->root, "model");
    return cJSON_GetObjectItemCaseSensitive(model, "vocab");
}

/* ---- the added tokens, wherever they are written ------------------------------------------- */

static enum status check_added(const cJSON *item, int32_t id, const char *place, struct error *err)
{
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(item, "content");
    if (!cJSON_IsString(content)) {
        return FAIL(err, STATUS_FORMAT, "%s: an added token without a \"content\"", place);
    }
    if (id < 0) {
        return FAIL(err, STATUS_RANGE, "%s: added token \"%.60s\" has no id from 0 to %d", place,
                    content->valuestring, BPE_VOCAB_MAX - 1);
    }
    if (content->valuestring[0] == '\0' || strlen(content->valuestring) > ADDED_TOKEN_MAX_BYTES) {
        return FAIL(err, STATUS_LIMIT,
                    "%s: the text of added token %d is empty or longer than %d bytes", place,
                    (int)id, ADDED_TOKEN_MAX_BYTES);
    }
    return STATUS_OK;
}

/* "151643" -> 151643, -1 if it is not an id. */
static int32_t id_of_key(const char *key)
{
    char *end = NULL;
    long value = key[0] >= '0' && key[0] <= '9' ? strtol(key, &end, 10) : -1;
    return value >= 0 && value < BPE_VOCAB_MAX && *end == '\0' ? (int32_t)value : -1;
}

enum status tokenizer_each_added(const struct tokenizer_source *source, tokenizer_visit_added visit,
                                 void *context, struct error *err)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(source->root, "added_tokens")) {
        int32_t id = tokenizer_read_id(cJSON_GetObjectItemCaseSensitive(item, "id"));
        TRY(check_added(item, id, "/added_tokens", err));
        TRY(visit(context, id, item, false, err));
    }
    cJSON_ArrayForEach (item,
                        cJSON_GetObjectItemCaseSensitive(source->config, "added_tokens_decoder")) {
        int32_t id = id_of_key(item->string);
        TRY(check_added(item, id, "/added_tokens_decoder of tokenizer_config.json", err));
        TRY(visit(context, id, item, true, err));
    }
    return STATUS_OK;
}

/* ---- sizes --------------------------------------------------------------------------------- */

struct sizes {
    int32_t id_count; /* largest id + 1 */
    int64_t model_count;
    int64_t added_count;
    size_t text_bytes;
};

static enum status measure_added(void *context, int32_t id, const cJSON *item, bool from_config,
                                 struct error *err)
{
    (void)from_config;
    struct sizes *sizes = context;
    sizes->id_count = id >= sizes->id_count ? id + 1 : sizes->id_count;
    sizes->text_bytes += strlen(cJSON_GetObjectItemCaseSensitive(item, "content")->valuestring);
    sizes->added_count++;
    if (sizes->added_count > ADDED_TOKENS_MAX) {
        return FAIL(err, STATUS_LIMIT, "more than %d added tokens", ADDED_TOKENS_MAX);
    }
    return STATUS_OK;
}

static enum status measure(const struct tokenizer_source *source, struct sizes *sizes,
                           struct error *err)
{
    const cJSON *vocabulary = model_vocabulary(source);
    if (!cJSON_IsObject(vocabulary)) {
        return FAIL(err, STATUS_FORMAT, "/model/vocab must be an object of token: id");
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, vocabulary) {
        int32_t id = tokenizer_read_id(item);
        if (id < 0) {
            return FAIL(err, STATUS_RANGE, "/model/vocab: token \"%.60s\" has no id from 0 to %d",
                        item->string, BPE_VOCAB_MAX - 1);
        }
        sizes->id_count = id >= sizes->id_count ? id + 1 : sizes->id_count;
        sizes->text_bytes += strlen(item->string);
        sizes->model_count++;
    }
    if (sizes->model_count == 0) {
        return FAIL(err, STATUS_FORMAT, "/model/vocab is empty");
    }
    TRY(tokenizer_each_added(source, measure_added, sizes, err));
    if (sizes->text_bytes > UINT32_MAX) {
        return FAIL(err, STATUS_LIMIT, "tokens of more than %u bytes in all", UINT32_MAX);
    }
    return STATUS_OK;
}

/* ---- filling ------------------------------------------------------------------------------- */

static enum status fill_vocabulary(struct tokenizer *tokenizer, const cJSON *vocabulary,
                                   struct error *err)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, vocabulary) {
        int32_t id = tokenizer_read_id(item);
        size_t len = strlen(item->string);
        if (tokenizer->flags[id] != TOKEN_ABSENT) {
            return FAIL(err, STATUS_FORMAT,
                        "/model/vocab: id %d is given to two tokens, one is \"%.60s\"", (int)id,
                        item->string);
        }
        if (text_index_find(&tokenizer->vocabulary, item->string, len) >= 0) {
            return FAIL(err, STATUS_FORMAT, "/model/vocab: token \"%.60s\" is there twice",
                        item->string);
        }
        tokenizer->flags[id] = TOKEN_IN_MODEL;
        text_store_set(&tokenizer->texts, id, item->string, len);
        text_index_add(&tokenizer->vocabulary, id);
    }
    return STATUS_OK;
}

static enum status fill_added(void *context, int32_t id, const cJSON *item, bool from_config,
                              struct error *err)
{
    struct tokenizer *tokenizer = context;
    const char *text = cJSON_GetObjectItemCaseSensitive(item, "content")->valuestring;
    size_t len = strlen(text);
    int32_t known = tokenizer_find_text(tokenizer, text, len);
    bool repeated = known == id && (from_config || (tokenizer->flags[id] & TOKEN_IN_MODEL) != 0);
    if (!repeated && (known >= 0 || tokenizer->flags[id] != TOKEN_ABSENT)) {
        return FAIL(err, STATUS_FORMAT,
                    "added token \"%.60s\" with id %d: text or id belong to another token", text,
                    (int)id);
    }
    if (!repeated) {
        tokenizer->flags[id] = 0;
        text_store_set(&tokenizer->texts, id, text, len);
        text_index_add(&tokenizer->added_names, id);
    }
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "special"))) {
        tokenizer->flags[id] |= TOKEN_SPECIAL;
    }
    return STATUS_OK;
}

/* raws[id] is what the decoder makes of texts[id]. */
static enum status fill_raws(struct tokenizer *tokenizer, const struct byte_alphabet *alphabet,
                             struct error *err)
{
    enum status status = STATUS_OK;
    struct text_store *raws = &tokenizer->raws;
    struct buffer bytes;
    buffer_init(&bytes, SIZE_MAX / 2);
    int32_t id_count = tokenizer->texts.id_count;
    raws->spans = mem_calloc((size_t)id_count, sizeof(*raws->spans));
    if (raws->spans == NULL) {
        status = mem_fail(err, (size_t)id_count * sizeof(*raws->spans), "a vocabulary");
        goto cleanup;
    }
    raws->id_count = id_count;
    for (int32_t id = 0; id < id_count; id++) {
        struct text_span span = tokenizer->texts.spans[id];
        struct text_slice text = {.data = tokenizer->texts.bytes + span.at, .len_bytes = span.len};
        size_t at = bytes.len_bytes;
        TRY_CLEANUP(text_decoder_token(&tokenizer->decoder, alphabet, text, &bytes, err));
        if (bytes.len_bytes > UINT32_MAX / 4) {
            status = FAIL(err, STATUS_LIMIT, "tokens of more than %u decoded bytes in all",
                          UINT32_MAX / 4);
            goto cleanup;
        }
        raws->spans[id] =
            (struct text_span){.at = (uint32_t)at, .len = (uint32_t)(bytes.len_bytes - at)};
    }
    raws->used_bytes = (uint32_t)bytes.len_bytes;
    raws->bytes = buffer_take(&bytes);
    if (raws->bytes == NULL) {
        status = mem_fail(err, 1, "a vocabulary");
    }
cleanup:
    buffer_fini(&bytes);
    return status;
}

enum status tokenizer_load_texts(struct tokenizer *tokenizer, const struct tokenizer_source *source,
                                 struct error *err)
{
    struct sizes sizes = {0};
    TRY(measure(source, &sizes, err));
    TRY(text_store_init(&tokenizer->texts, sizes.id_count, (uint32_t)sizes.text_bytes, err));
    TRY(text_index_init(&tokenizer->vocabulary, &tokenizer->texts, sizes.model_count, err));
    TRY(text_index_init(&tokenizer->added_names, &tokenizer->texts, sizes.added_count, err));
    tokenizer->flags = mem_calloc((size_t)sizes.id_count, 1);
    if (tokenizer->flags == NULL) {
        return mem_fail(err, (size_t)sizes.id_count, "a vocabulary");
    }
    memset(tokenizer->flags, TOKEN_ABSENT, (size_t)sizes.id_count);
    TRY(fill_vocabulary(tokenizer, model_vocabulary(source), err));
    TRY(tokenizer_each_added(source, fill_added, tokenizer, err));
    return fill_raws(tokenizer, &source->alphabet, err);
}

/* ---- searching for added tokens ------------------------------------------------------------ */

struct added_filler {
    struct tokenizer *tokenizer;
    struct normalizer_scratch scratch;
    uint8_t *seen; /* (id_count) */
};

static bool read_flag(const cJSON *item, const char *key)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, key));
}

static enum status collect_added(void *context, int32_t id, const cJSON *item, bool from_config,
                                 struct error *err)
{
    struct added_filler *filler = context;
    struct tokenizer *tokenizer = filler->tokenizer;
    if (filler->seen[id] != 0) {
        if (from_config) {
            return STATUS_OK;
        }
        return FAIL(err, STATUS_FORMAT, "/added_tokens: id %d is there twice", (int)id);
    }
    filler->seen[id] = 1;
    struct text_span span = tokenizer->texts.spans[id];
    struct added_token token = {.text = tokenizer->texts.bytes + span.at,
                                .len = span.len,
                                .id = id,
                                .special = read_flag(item, "special"),
                                .left_strip = read_flag(item, "lstrip"),
                                .right_strip = read_flag(item, "rstrip"),
                                .single_word = read_flag(item, "single_word")};
    if (!read_flag(item, "normalized")) {
        tokenizer->added.items[tokenizer->added.count++] = token;
        return STATUS_OK;
    }
    struct text_slice normal = {.data = token.text, .len_bytes = token.len};
    TRY(normalizer_apply(&tokenizer->normalizer, normal, true, &filler->scratch, &normal, err));
    buffer_append(&tokenizer->added_texts, normal.data, normal.len_bytes);
    if (tokenizer->added_texts.failed) {
        return mem_fail(err, normal.len_bytes, "added tokens");
    }
    token.text = NULL; /* the buffer may still move */
    token.len = (uint32_t)normal.len_bytes;
    tokenizer->added_normalized.items[tokenizer->added_normalized.count++] = token;
    return STATUS_OK;
}

static enum status prepare_added(struct tokenizer *tokenizer, struct error *err)
{
    const char *text = buffer_text(&tokenizer->added_texts);
    for (int64_t i = 0; i < tokenizer->added_normalized.count; i++) {
        tokenizer->added_normalized.items[i].text = text;
        text += tokenizer->added_normalized.items[i].len;
    }
    TRY(added_tokens_prepare(&tokenizer->added, err));
    return added_tokens_prepare(&tokenizer->added_normalized, err);
}

enum status tokenizer_load_added(struct tokenizer *tokenizer, const struct tokenizer_source *source,
                                 struct error *err)
{
    enum status status = STATUS_OK;
    struct added_filler filler = {.tokenizer = tokenizer};
    normalizer_scratch_init(&filler.scratch);
    struct sizes sizes = {0};
    TRY_CLEANUP(tokenizer_each_added(source, measure_added, &sizes, err));
    size_t count = (size_t)sizes.added_count;
    tokenizer->added.items = mem_calloc(count, sizeof(struct added_token));
    tokenizer->added_normalized.items = mem_calloc(count, sizeof(struct added_token));
    filler.seen = mem_calloc((size_t)tokenizer->texts.id_count, 1);
    if (tokenizer->added.items == NULL || tokenizer->added_normalized.items == NULL ||
        filler.seen == NULL) {
        status = mem_fail(err, count * sizeof(struct added_token), "added tokens");
        goto cleanup;
    }
    TRY_CLEANUP(tokenizer_each_added(source, collect_added, &filler, err));
    status = prepare_added(tokenizer, err);
cleanup:
    free(filler.seen);
    normalizer_scratch_fini(&filler.scratch);
    return status;
}
