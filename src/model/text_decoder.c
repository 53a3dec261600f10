#include "model/text_decoder.h"

#include <stdint.h>

#include "base/mem.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* ---- reading ------------------------------------------------------------------------------- */

static enum status read_metaspace(struct text_decoder *decoder, const cJSON *node,
                                  struct error *err)
{
    const cJSON *replacement = cJSON_GetObjectItemCaseSensitive(node, "replacement");
    const cJSON *scheme = cJSON_GetObjectItemCaseSensitive(node, "prepend_scheme");
    const cJSON *prefix = cJSON_GetObjectItemCaseSensitive(node, "add_prefix_space");
    if (!cJSON_IsString(replacement) || strcmp(replacement->valuestring, TEXT_METASPACE) != 0) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "Metaspace with a replacement other than U+2581 is not supported");
    }
    if (decoder->replace_count == TEXT_DECODER_REPLACES_MAX) {
        return FAIL(err, STATUS_LIMIT, "more than %d Replace decoders", TEXT_DECODER_REPLACES_MAX);
    }
    struct normalizer_step *step = &decoder->replaces[decoder->replace_count++];
    *step = (struct normalizer_step){
        .kind = NORMALIZER_REPLACE, .pattern = TEXT_METASPACE, .content = " "};
    bool never = cJSON_IsString(scheme) ? strcmp(scheme->valuestring, "never") == 0
                                        : cJSON_IsFalse(prefix) != 0;
    decoder->drop_first_space = !never;
    return STATUS_OK;
}

static enum status read_strip(struct text_decoder *decoder, const cJSON *node, struct error *err)
{
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(node, "content");
    const cJSON *start = cJSON_GetObjectItemCaseSensitive(node, "start");
    const cJSON *stop = cJSON_GetObjectItemCaseSensitive(node, "stop");
    if (!cJSON_IsString(content) || content->valuestring[0] == '\0' ||
        strlen(content->valuestring) !=
            text_character_bytes((unsigned char)content->valuestring[0]) ||
        !cJSON_IsNumber(start) || !cJSON_IsNumber(stop) || start->valueint < 0 ||
        stop->valueint < 0) {
        return FAIL(err, STATUS_FORMAT,
                    "Strip needs \"content\" (one character), \"start\" and \"stop\" (numbers)");
    }
    if (!decoder->fuse || decoder->strip[0] != '\0') {
        return FAIL(err, STATUS_UNSUPPORTED, "Strip is supported once, after Fuse");
    }
    memcpy(decoder->strip, content->valuestring, strlen(content->valuestring) + 1);
    decoder->strip_start = start->valueint;
    decoder->strip_stop = stop->valueint;
    return STATUS_OK;
}

static enum status read_replace(struct text_decoder *decoder, const cJSON *node, struct error *err)
{
    if (decoder->byte_fallback || decoder->fuse) {
        return FAIL(err, STATUS_UNSUPPORTED, "Replace after ByteFallback or Fuse is not supported");
    }
    if (decoder->replace_count == TEXT_DECODER_REPLACES_MAX) {
        return FAIL(err, STATUS_LIMIT, "more than %d Replace decoders", TEXT_DECODER_REPLACES_MAX);
    }
    return normalizer_read_replace(&decoder->replaces[decoder->replace_count++], node, err);
}

static enum status read_step(struct text_decoder *decoder, const cJSON *node, struct error *err);

static enum status read_sequence(struct text_decoder *decoder, const cJSON *node, struct error *err)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(node, "decoders");
    if (!cJSON_IsArray(list)) {
        return FAIL(err, STATUS_FORMAT, "Sequence without an array \"decoders\"");
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        TRY(read_step(decoder, item, err));
    }
    return STATUS_OK;
}

static enum status read_step(struct text_decoder *decoder, const cJSON *node, struct error *err)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(node, "type");
    if (!cJSON_IsString(type)) {
        return FAIL(err, STATUS_FORMAT, "a decoder without a \"type\"");
    }
    const char *name = type->valuestring;
    if (decoder->byte_level) {
        return FAIL(err, STATUS_UNSUPPORTED, "decoder \"%.60s\" after ByteLevel is not supported",
                    name);
    }
    if (strcmp(name, "Sequence") == 0) {
        return read_sequence(decoder, node, err);
    }
    if (strcmp(name, "ByteLevel") == 0) {
        if (decoder->replace_count > 0 || decoder->byte_fallback || decoder->fuse) {
            return FAIL(err, STATUS_UNSUPPORTED,
                        "ByteLevel after another decoder is not supported");
        }
        decoder->byte_level = true;
        return STATUS_OK;
    }
    if (strcmp(name, "ByteFallback") == 0) {
        decoder->byte_fallback = true;
        return STATUS_OK;
    }
    if (strcmp(name, "Fuse") == 0) {
        decoder->fuse = true;
        return STATUS_OK;
    }
    if (strcmp(name, "Replace") == 0) {
        return read_replace(decoder, node, err);
    }
    if (strcmp(name, "Strip") == 0) {
        return read_strip(decoder, node, err);
    }
    if (strcmp(name, "Metaspace") == 0) {
        return read_metaspace(decoder, node, err);
    }
    return FAIL(err, STATUS_UNSUPPORTED,
                "decoder \"%.60s\" is not supported; supported are ByteLevel, Metaspace, Replace, "
                "ByteFallback, Fuse, "
                "Strip, Sequence",
                name);
}

enum status text_decoder_read(struct text_decoder *decoder, const cJSON *node, struct error *err)
{
    memset(decoder, 0, sizeof(*decoder));
    if (node == NULL || cJSON_IsNull(node)) {
        return FAIL(err, STATUS_UNSUPPORTED, "a tokenizer without a decoder is not supported");
    }
    return read_step(decoder, node, err);
}

/* ---- one token ----------------------------------------------------------------------------- */

/* Applies the Replace steps from `first` on; each but the last needs a buffer of its own. */
static enum status replace_all(const struct text_decoder *decoder, int first,
                               struct text_slice token, struct buffer *out, struct error *err)
{
    if (first == decoder->replace_count) {
        buffer_append(out, token.data, token.len_bytes);
        return out->failed ? mem_fail(err, token.len_bytes, "a token's text") : STATUS_OK;
    }
    struct buffer replaced;
    buffer_init(&replaced, SIZE_MAX / 2);
    enum status status = normalizer_replace(&decoder->replaces[first], token, &replaced, err);
    if (status == STATUS_OK) {
        struct text_slice next = {.data = buffer_text(&replaced), .len_bytes = replaced.len_bytes};
        status = replace_all(decoder, first + 1, next, out, err);
    }
    buffer_fini(&replaced);
    return status;
}

enum status text_decoder_token(const struct text_decoder *decoder,
                               const struct byte_alphabet *alphabet, struct text_slice token,
                               struct buffer *out, struct error *err)
{
    if (!decoder->byte_level) {
        return replace_all(decoder, 0, token, out, err);
    }
    size_t before = out->len_bytes;
    buffer_append(out, token.data, token.len_bytes);
    if (out->failed) {
        return mem_fail(err, token.len_bytes, "a token's text");
    }
    /* In place: the bytes that a text stands for are never more than its own. */
    ptrdiff_t count =
        byte_alphabet_decode(alphabet, token.data, token.len_bytes, out->data + before);
    if (count >= 0) {
        out->len_bytes = before + (size_t)count;
    } else if (token.len_bytes > 0) {
        memcpy(out->data + before, token.data, token.len_bytes);
    }
    return STATUS_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

int text_decoder_byte(const struct text_decoder *decoder, struct text_slice token)
{
    if (!decoder->byte_fallback || token.len_bytes != 6 || memcmp(token.data, "<0x", 3) != 0 ||
        token.data[5] != '>') {
        return -1;
    }
    int high = hex_digit(token.data[3]);
    int low = hex_digit(token.data[4]);
    return high >= 0 && low >= 0 ? high * 16 + low : -1;
}

/* ---- many tokens --------------------------------------------------------------------------- */

/* A run of byte tokens is a text if it is valid as a whole; else each byte is a mistake of its own.
 */
static void flush_bytes(struct buffer *run, struct buffer *text)
{
    if (json_utf8_valid(buffer_text(run), run->len_bytes)) {
        buffer_append(text, buffer_text(run), run->len_bytes);
    } else {
        for (size_t i = 0; i < run->len_bytes; i++) {
            buffer_append_text(text, REPLACEMENT);
        }
    }
    buffer_clear(run);
}

static void append_without_metaspaces(struct text_slice token, struct buffer *text)
{
    while (token.len_bytes > 0) {
        const char *hit = memmem(token.data, token.len_bytes, TEXT_METASPACE, TEXT_METASPACE_BYTES);
        size_t before = hit != NULL ? (size_t)(hit - token.data) : token.len_bytes;
        buffer_append(text, token.data, before);
        before += hit != NULL ? TEXT_METASPACE_BYTES : 0;
        token =
            (struct text_slice){.data = token.data + before, .len_bytes = token.len_bytes - before};
    }
}

/* Length of the longest beginning of a valid character at `text` (1 if there is none), as Unicode
 * advises for U+FFFD. */
static size_t broken_bytes(const unsigned char *text, size_t len_bytes)
{
    unsigned char lead = text[0];
    if (lead < 0xC2 || lead > 0xF4) {
        return 1;
    }
    size_t wanted = text_character_bytes(lead);
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    size_t len = 1;
    while (len < wanted && len < len_bytes && text[len] >= low && text[len] <= high) {
        low = 0x80;
        high = 0xBF;
        len++;
    }
    return len;
}

static void append_valid(struct text_slice text, struct buffer *out)
{
    if (json_utf8_valid(text.data, text.len_bytes)) {
        buffer_append(out, text.data, text.len_bytes);
        return;
    }
    for (size_t at = 0; at < text.len_bytes;) {
        const unsigned char *bytes = (const unsigned char *)text.data + at;
        size_t len = broken_bytes(bytes, text.len_bytes - at);
        if (json_utf8_valid(text.data + at, len)) {
            buffer_append(out, bytes, len);
        } else {
            buffer_append_text(out, REPLACEMENT);
        }
        at += len;
    }
}

static struct text_slice strip_ends(const struct text_decoder *decoder, struct text_slice text,
                                    bool continuation)
{
    size_t len = strlen(decoder->strip);
    if (len == 0) {
        return text;
    }
    for (int64_t i = 0;
         i < decoder->strip_start && !continuation && text_starts_with(text, decoder->strip, len);
         i++) {
        text = (struct text_slice){.data = text.data + len, .len_bytes = text.len_bytes - len};
    }
    for (int64_t i = 0; i < decoder->strip_stop && text.len_bytes >= len &&
                        memcmp(text.data + text.len_bytes - len, decoder->strip, len) == 0;
         i++) {
        text.len_bytes -= len;
    }
    return text;
}

static struct text_slice stored(const struct text_store *store, int32_t id)
{
    return (struct text_slice){.data = store->bytes + store->spans[id].at,
                               .len_bytes = store->spans[id].len};
}

enum status text_decoder_decode(const struct text_decoder *decoder, const struct text_store *texts,
                                const struct text_store *raws, const uint8_t *flags,
                                unsigned left_out, const int32_t *ids, int64_t count,
                                bool continuation, struct buffer *out, struct error *err)
{
    enum status status = STATUS_OK;
    struct buffer text;
    struct buffer run;
    buffer_init(&text, SIZE_MAX / 2);
    buffer_init(&run, SIZE_MAX / 2);
    bool first = !continuation;
    for (int64_t i = 0; i < count; i++) {
        int32_t id = ids[i];
        if (id < 0 || id >= texts->id_count || (flags[id] & left_out) != 0) {
            continue;
        }
        int byte = text_decoder_byte(decoder, stored(texts, id));
        if (byte >= 0) {
            buffer_append_char(&run, (char)(unsigned char)byte);
            first = false;
            continue;
        }
        flush_bytes(&run, &text);
        if (first && decoder->drop_first_space) {
            append_without_metaspaces(stored(texts, id), &text);
        } else {
            buffer_append(&text, stored(raws, id).data, stored(raws, id).len_bytes);
        }
        first = false;
        if (text.len_bytes > NORMALIZER_OUT_MAX_BYTES) {
            status = FAIL(err, STATUS_LIMIT, "decoded text is longer than %d bytes",
                          NORMALIZER_OUT_MAX_BYTES);
            goto cleanup;
        }
    }
    flush_bytes(&run, &text);
    if (text.failed || run.failed) {
        status = mem_fail(err, text.len_bytes, "a decoded text");
        goto cleanup;
    }
    struct text_slice whole = {.data = buffer_text(&text), .len_bytes = text.len_bytes};
    append_valid(strip_ends(decoder, whole, continuation), out);
    status = buffer_check(out, "decoded text", err);
cleanup:
    buffer_fini(&text);
    buffer_fini(&run);
    return status;
}
