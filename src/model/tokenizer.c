#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "model/tokenizer_internal.h"

/* ---- lists of ids -------------------------------------------------------------------------- */

void token_list_init(struct token_list *list, int64_t max_count)
{
    memset(list, 0, sizeof(*list));
    list->max_count = max_count;
}

void token_list_fini(struct token_list *list)
{
    free(list->ids);
    token_list_init(list, list->max_count);
}

static enum status token_list_grow(struct token_list *list, int64_t count, struct error *err)
{
    if (count > list->max_count - list->count) {
        return FAIL(err, STATUS_LIMIT, "more than %lld tokens", (long long)list->max_count);
    }
    int64_t capacity = list->capacity > 0 ? list->capacity : 64;
    while (capacity < list->count + count) {
        capacity *= 2;
    }
    int32_t *ids = mem_realloc(list->ids, (size_t)capacity, sizeof(*ids));
    if (ids == NULL) {
        return mem_fail(err, (size_t)capacity * sizeof(*ids), "tokens");
    }
    list->ids = ids;
    list->capacity = capacity;
    return STATUS_OK;
}

enum status token_list_append(struct token_list *list, const int32_t *ids, int64_t count,
                              struct error *err)
{
    if (count > list->capacity - list->count || count > list->max_count - list->count) {
        TRY(token_list_grow(list, count, err));
    }
    for (int64_t i = 0; i < count; i++) {
        list->ids[list->count + i] = ids[i];
    }
    list->count += count;
    return STATUS_OK;
}

/* ---- encoding ------------------------------------------------------------------------------ */

/* What one call needs: memory of the steps, and the list that ids go to. */
struct encoding {
    const struct tokenizer *tokenizer;
    struct normalizer_scratch normalizer;
    struct splitter_run splitter;
    struct bpe_scratch bpe;
    struct token_list *list;
};

static enum status encode_piece(void *context, struct text_slice piece, struct error *err)
{
    struct encoding *encoding = context;
    return bpe_encode_piece(&encoding->tokenizer->bpe, piece.data, piece.len_bytes, &encoding->bpe,
                            encoding->list, err);
}

/* Text between added tokens: normalized, searched for the added tokens that are written in
 * normalized form, split. */
static enum status encode_between(struct encoding *encoding, struct text_slice text,
                                  enum splitter_place place, bool all_allowed, struct error *err)
{
    const struct tokenizer *tokenizer = encoding->tokenizer;
    struct text_slice normal;
    TRY(normalizer_apply(&tokenizer->normalizer, text, place != SPLITTER_CONTINUED,
                         &encoding->normalizer, &normal, err));
    struct text_range whole = {.begin = 0, .end = normal.len_bytes};
    struct added_allowed allowed = {.ranges = &whole, .count = all_allowed ? 1 : 0};
    struct added_match match;
    size_t at = 0;
    while (added_tokens_search(&tokenizer->added_normalized, normal, at, allowed, &match)) {
        struct text_slice before = {.data = normal.data + at, .len_bytes = match.begin - at};
        TRY(splitter_split(&encoding->splitter, before, at == 0 ? place : SPLITTER_INSIDE, err));
        TRY(token_list_append(encoding->list, &match.id, 1, err));
        at = match.end;
    }
    struct text_slice rest = {.data = normal.data + at, .len_bytes = normal.len_bytes - at};
    return splitter_split(&encoding->splitter, rest, at == 0 ? place : SPLITTER_INSIDE, err);
}

static bool is_inside(const struct text_range *ranges, int64_t range_count, size_t begin,
                      size_t end)
{
    for (int64_t i = 0; i < range_count; i++) {
        if (ranges[i].begin <= begin && end <= ranges[i].end) {
            return true;
        }
    }
    return false;
}

static enum status encode_text(struct encoding *encoding, struct text_slice text,
                               enum splitter_place place, struct added_allowed allowed,
                               struct error *err)
{
    const struct tokenizer *tokenizer = encoding->tokenizer;
    bool has_normalized = tokenizer->added_normalized.count > 0;
    struct added_match match = {0};
    for (size_t at = 0; at < text.len_bytes; at = match.end) {
        bool found = added_tokens_search(&tokenizer->added, text, at, allowed, &match);
        if (!found) {
            match.begin = text.len_bytes;
            match.end = text.len_bytes;
        }
        if (match.begin > at) {
            struct text_slice between = {.data = text.data + at, .len_bytes = match.begin - at};
            bool all_allowed =
                has_normalized && is_inside(allowed.ranges, allowed.count, at, match.begin);
            TRY(encode_between(encoding, between, place, all_allowed, err));
        }
        if (found) {
            TRY(token_list_append(encoding->list, &match.id, 1, err));
        }
        place = SPLITTER_INSIDE;
    }
    return STATUS_OK;
}

static enum status encode_all(struct encoding *encoding, struct text_slice text, int flags,
                              struct added_allowed allowed, struct error *err)
{
    const struct tokenizer *tokenizer = encoding->tokenizer;
    enum splitter_place place = (flags & TOKENIZER_CONTINUE) != 0      ? SPLITTER_CONTINUED
                                : (flags & TOKENIZER_AFTER_TOKEN) != 0 ? SPLITTER_INSIDE
                                                                       : SPLITTER_TEXT_START;
    bool add_special = (flags & TOKENIZER_ADD_SPECIAL) != 0;
    if (add_special && tokenizer->first_id >= 0) {
        TRY(token_list_append(encoding->list, &tokenizer->first_id, 1, err));
    }
    TRY(encode_text(encoding, text, place, allowed, err));
    if (add_special && tokenizer->last_id >= 0) {
        TRY(token_list_append(encoding->list, &tokenizer->last_id, 1, err));
    }
    return STATUS_OK;
}

enum status tokenizer_encode_ranges(const struct tokenizer *tokenizer, const char *text,
                                    size_t len_bytes, int flags, const struct text_range *ranges,
                                    int64_t range_count, struct token_list *list, struct error *err)
{
    if (len_bytes > TOKENIZER_TEXT_MAX_BYTES) {
        return FAIL(err, STATUS_LIMIT, "a text of %zu bytes, allowed are %d; cut it into parts",
                    len_bytes, TOKENIZER_TEXT_MAX_BYTES);
    }
    if (!json_utf8_valid(text, len_bytes)) {
        return FAIL(err, STATUS_FORMAT, "a text to encode is not valid UTF-8");
    }
    int64_t count_before = list->count;
    struct encoding encoding = {.tokenizer = tokenizer, .list = list};
    normalizer_scratch_init(&encoding.normalizer);
    enum status status = STATUS_OK;
    TRY_CLEANUP(
        splitter_run_init(&encoding.splitter, &tokenizer->splitter, encode_piece, &encoding, err));
    struct text_slice slice = {.data = text, .len_bytes = len_bytes};
    struct added_allowed allowed = {.ranges = ranges, .count = range_count};
    TRY_CLEANUP(encode_all(&encoding, slice, flags, allowed, err));
cleanup:
    if (status != STATUS_OK) {
        list->count = count_before;
    }
    splitter_run_fini(&encoding.splitter);
    normalizer_scratch_fini(&encoding.normalizer);
    bpe_scratch_fini(&encoding.bpe);
    return status;
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t len_bytes,
                             int flags, struct token_list *list, struct error *err)
{
    struct text_range whole = {.begin = 0, .end = len_bytes};
    int64_t range_count = (flags & TOKENIZER_PARSE_SPECIAL) != 0 ? 1 : 0;
    return tokenizer_encode_ranges(tokenizer, text, len_bytes, flags, &whole, range_count, list,
                                   err);
}

/* ---- decoding and questions ---------------------------------------------------------------- */

static enum status decode(const struct tokenizer *tokenizer, const int32_t *ids, int64_t count,
                          bool skip_special, bool continuation, struct buffer *out,
                          struct error *err)
{
    unsigned left_out = TOKEN_ABSENT | (skip_special ? TOKEN_SPECIAL : 0u);
    return text_decoder_decode(&tokenizer->decoder, &tokenizer->texts, &tokenizer->raws,
                               tokenizer->flags, left_out, ids, count, continuation, out, err);
}

enum status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, int64_t count,
                             bool skip_special, struct buffer *out, struct error *err)
{
    return decode(tokenizer, ids, count, skip_special, false, out, err);
}

enum status tokenizer_decode_continuation(const struct tokenizer *tokenizer, const int32_t *ids,
                                          int64_t count, bool skip_special, struct buffer *out,
                                          struct error *err)
{
    return decode(tokenizer, ids, count, skip_special, true, out, err);
}

int64_t tokenizer_vocab_size(const struct tokenizer *tokenizer)
{
    return tokenizer->texts.id_count;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos_id;
}

int32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return tokenizer->eos_id;
}

bool tokenizer_adds_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos_id >= 0 && tokenizer->first_id == tokenizer->bos_id;
}

int32_t tokenizer_find_text(const struct tokenizer *tokenizer, const char *text, size_t len_bytes)
{
    int32_t id = text_index_find(&tokenizer->vocabulary, text, len_bytes);
    return id >= 0 ? id : text_index_find(&tokenizer->added_names, text, len_bytes);
}

int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *token)
{
    return tokenizer_find_text(tokenizer, token, strlen(token));
}

void tokenizer_destroy(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL) {
        return;
    }
    text_index_fini(&tokenizer->vocabulary);
    text_index_fini(&tokenizer->added_names);
    bpe_fini(&tokenizer->bpe);
    added_tokens_fini(&tokenizer->added);
    added_tokens_fini(&tokenizer->added_normalized);
    splitter_fini(&tokenizer->splitter);
    text_store_fini(&tokenizer->texts);
    text_store_fini(&tokenizer->raws);
    buffer_fini(&tokenizer->added_texts);
    free(tokenizer->flags);
    free(tokenizer);
}
