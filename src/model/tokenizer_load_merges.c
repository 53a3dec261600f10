/* The byte-pair encoding of a tokenizer.json: its settings, its merges, its single bytes. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "model/tokenizer_load.h"

struct merge_reader {
    const struct tokenizer *tokenizer;
    char *joined;     /* text of a pair; room for the two longest tokens */
    bool words_apart; /* no merge so far puts U+2581 behind another character */
};

/* ---- settings ------------------------------------------------------------------------------ */

static bool is_absent_or_empty(const cJSON *value)
{
    return value == NULL || cJSON_IsNull(value) ||
           (cJSON_IsString(value) && value->valuestring[0] == '\0');
}

static enum status check_model(const cJSON *model, struct error *err)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(model, "type");
    const cJSON *dropout = cJSON_GetObjectItemCaseSensitive(model, "dropout");
    if (type != NULL && (!cJSON_IsString(type) || strcmp(type->valuestring, "BPE") != 0)) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "/model/type \"%.60s\" is not supported; supported is BPE",
                    cJSON_IsString(type) ? type->valuestring : "?");
    }
    if (cJSON_IsNumber(dropout) && dropout->valuedouble != 0) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "/model/dropout is not supported; allowed are null and 0");
    }
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < sizeof(affixes) / sizeof(affixes[0]); i++) {
        if (!is_absent_or_empty(cJSON_GetObjectItemCaseSensitive(model, affixes[i]))) {
            return FAIL(err, STATUS_UNSUPPORTED,
                        "/model/%s is not supported; allowed are null and \"\"", affixes[i]);
        }
    }
    return STATUS_OK;
}

static enum status set_unknown(struct tokenizer *tokenizer, const cJSON *model, struct error *err)
{
    const cJSON *unknown = cJSON_GetObjectItemCaseSensitive(model, "unk_token");
    if (!cJSON_IsString(unknown)) {
        return STATUS_OK;
    }
    int32_t id =
        text_index_find(&tokenizer->vocabulary, unknown->valuestring, strlen(unknown->valuestring));
    if (id < 0) {
        return FAIL(err, STATUS_FORMAT, "/model/unk_token \"%.60s\" is not in /model/vocab",
                    unknown->valuestring);
    }
    tokenizer->bpe.unknown_id = id;
    return STATUS_OK;
}

/* Ids of the 256 bytes as characters of GPT-2's alphabet. Returns how many there are. */
static int set_alphabet_ids(struct tokenizer *tokenizer, const struct byte_alphabet *alphabet)
{
    int count = 0;
    for (int point = 0; point < BYTE_ALPHABET_POINTS; point++) {
        if (alphabet->bytes[point] < 0) {
            continue;
        }
        char text[2] = {(char)point, '\0'};
        if (point >= 0x80) {
            text[0] = (char)(unsigned char)(0xC0 | point >> 6);
            text[1] = (char)(unsigned char)(0x80 | (point & 0x3F));
        }
        int32_t id = text_index_find(&tokenizer->vocabulary, text, point >= 0x80 ? 2 : 1);
        tokenizer->bpe.byte_ids[alphabet->bytes[point]] = id;
        count += id >= 0;
    }
    return count;
}

static void set_fallback_ids(struct tokenizer *tokenizer)
{
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        int len = snprintf(text, sizeof(text), "<0x%02X>", (unsigned)byte);
        tokenizer->bpe.byte_ids[byte] = text_index_find(&tokenizer->vocabulary, text, (size_t)len);
    }
}

static enum status set_symbols(struct tokenizer *tokenizer, const cJSON *model,
                               const struct byte_alphabet *alphabet, struct error *err)
{
    struct bpe *bpe = &tokenizer->bpe;
    bpe->characters = &tokenizer->vocabulary;
    bpe->byte_level = tokenizer->splitter.byte_level;
    bpe->byte_fallback = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(model, "byte_fallback"));
    bpe->fuse_unknown = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(model, "fuse_unk"));
    TRY(set_unknown(tokenizer, model, err));
    if (!bpe->byte_level) {
        set_fallback_ids(tokenizer);
        return STATUS_OK;
    }
    if (set_alphabet_ids(tokenizer, alphabet) < 256 && bpe->byte_fallback) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "byte_fallback with a byte-level vocabulary that lacks bytes is not supported");
    }
    return STATUS_OK;
}

/* ---- merges -------------------------------------------------------------------------------- */

/* The two sides of a merge: ["a", "b"] or "a b". */
static bool read_sides(const cJSON *item, struct text_slice *left, struct text_slice *right)
{
    if (cJSON_IsString(item)) {
        const char *space = strchr(item->valuestring, ' ');
        if (space == NULL || strchr(space + 1, ' ') != NULL) {
            return false;
        }
        *left = (struct text_slice){item->valuestring, (size_t)(space - item->valuestring)};
        *right = (struct text_slice){space + 1, strlen(space + 1)};
        return true;
    }
    const cJSON *first = cJSON_IsArray(item) ? item->child : NULL;
    const cJSON *second = first != NULL ? first->next : NULL;
    if (!cJSON_IsString(first) || !cJSON_IsString(second) || second->next != NULL) {
        return false;
    }
    *left = (struct text_slice){first->valuestring, strlen(first->valuestring)};
    *right = (struct text_slice){second->valuestring, strlen(second->valuestring)};
    return true;
}

static bool ends_with_metaspace(struct text_slice text)
{
    return text.len_bytes >= TEXT_METASPACE_BYTES &&
           memcmp(text.data + text.len_bytes - TEXT_METASPACE_BYTES, TEXT_METASPACE,
                  TEXT_METASPACE_BYTES) == 0;
}

static enum status add_merge(struct merge_reader *reader, struct bpe *bpe, const cJSON *item,
                             int32_t rank, struct error *err)
{
    const struct text_index *vocabulary = &reader->tokenizer->vocabulary;
    struct text_slice left;
    struct text_slice right;
    if (!read_sides(item, &left, &right)) {
        return FAIL(err, STATUS_FORMAT,
                    "/model/merges/%d must be [\"left\", \"right\"] or \"left right\"", (int)rank);
    }
    int32_t left_id = text_index_find(vocabulary, left.data, left.len_bytes);
    int32_t right_id = text_index_find(vocabulary, right.data, right.len_bytes);
    int32_t joined_id = -1;
    if (left_id >= 0 && right_id >= 0) {
        memcpy(reader->joined, left.data, left.len_bytes);
        memcpy(reader->joined + left.len_bytes, right.data, right.len_bytes);
        joined_id = text_index_find(vocabulary, reader->joined, left.len_bytes + right.len_bytes);
    }
    if (joined_id < 0) {
        return FAIL(
            err, STATUS_FORMAT,
            "/model/merges/%d: \"%.40s\", \"%.40s\" or both together are not in /model/vocab",
            (int)rank, left.data, cJSON_IsString(item) ? "" : right.data);
    }
    if (text_starts_with(right, TEXT_METASPACE, TEXT_METASPACE_BYTES) &&
        !ends_with_metaspace(left)) {
        reader->words_apart = false;
    }
    bpe_add_merge(bpe, left_id, right_id, rank, joined_id);
    return STATUS_OK;
}

static enum status add_merges(struct merge_reader *reader, struct bpe *bpe, const cJSON *merges,
                              struct error *err)
{
    uint32_t longest = 0;
    for (int32_t id = 0; id < reader->tokenizer->texts.id_count; id++) {
        uint32_t len = reader->tokenizer->texts.spans[id].len;
        longest = len > longest ? len : longest;
    }
    reader->joined = mem_calloc(longest, 2);
    if (reader->joined == NULL) {
        return mem_fail(err, 2 * (size_t)longest, "merges");
    }
    int32_t rank = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, merges) {
        enum status status = add_merge(reader, bpe, item, rank, err);
        if (status != STATUS_OK) {
            free(reader->joined);
            return status;
        }
        rank++;
    }
    free(reader->joined);
    return STATUS_OK;
}

enum status tokenizer_load_merges(struct tokenizer *tokenizer,
                                  const struct tokenizer_source *source, struct error *err)
{
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(source->root, "model");
    const cJSON *merges = cJSON_GetObjectItemCaseSensitive(model, "merges");
    TRY(check_model(model, err));
    if (!cJSON_IsArray(merges)) {
        return FAIL(err, STATUS_FORMAT, "/model/merges must be an array");
    }
    int merge_count = cJSON_GetArraySize(merges);
    if (merge_count > BPE_MERGES_MAX) {
        return FAIL(err, STATUS_LIMIT, "/model/merges has %d entries, allowed are %d", merge_count,
                    BPE_MERGES_MAX);
    }
    TRY(bpe_init(&tokenizer->bpe, merge_count, err));
    TRY(set_symbols(tokenizer, model, &source->alphabet, err));
    struct merge_reader reader = {.tokenizer = tokenizer, .words_apart = true};
    TRY(add_merges(&reader, &tokenizer->bpe, merges, err));
    bool ignore_merges = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(model, "ignore_merges"));
    bool has_metaspace =
        text_index_find(&tokenizer->vocabulary, TEXT_METASPACE, TEXT_METASPACE_BYTES) >= 0;
    if (!tokenizer->bpe.byte_level && has_metaspace && reader.words_apart && !ignore_merges) {
        splitter_add_word_starts(&tokenizer->splitter);
    }
    const struct text_store *words =
        tokenizer->bpe.byte_level ? &tokenizer->raws : &tokenizer->texts;
    return bpe_index_words(&tokenizer->bpe, words, tokenizer->flags, TOKEN_IN_MODEL, ignore_merges,
                           err);
}
