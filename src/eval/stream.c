#include "eval/stream.h"

#include <string.h>

#include "eval/utf8.h"

static const char replacement_text[] = "\xEF\xBF\xBD";
enum { REPLACEMENT_BYTES = sizeof(replacement_text) - 1 };

enum status stream_init(struct stream *stream, const struct tokenizer *tokenizer,
                        const int32_t *prompt, int64_t prompt_count, const char *const *stop,
                        bool keep_special, struct error *err)
{
    memset(stream, 0, sizeof(*stream));
    stream->tokenizer = tokenizer;
    stream->stop = stop;
    stream->keep_special = keep_special;
    buffer_init(&stream->text, STREAM_TEXT_MAX_BYTES);
    buffer_init(&stream->scratch, STREAM_TEXT_MAX_BYTES);
    TRY(tokenizer_decode(tokenizer, prompt, prompt_count, true, &stream->scratch, err));
    stream->at_start = stream->scratch.len_bytes == 0;
    return STATUS_OK;
}

void stream_fini(struct stream *stream)
{
    buffer_fini(&stream->text);
    buffer_fini(&stream->scratch);
}

static enum status decode_pending(struct stream *stream, struct error *err)
{
    buffer_clear(&stream->scratch);
    if (stream->at_start) {
        return tokenizer_decode(stream->tokenizer, stream->pending, stream->pending_count,
                                !stream->keep_special, &stream->scratch, err);
    }
    return tokenizer_decode_continuation(stream->tokenizer, stream->pending, stream->pending_count,
                                         !stream->keep_special, &stream->scratch, err);
}

static bool ends_open(const struct buffer *text)
{
    return text->len_bytes >= REPLACEMENT_BYTES &&
           memcmp(text->data + text->len_bytes - REPLACEMENT_BYTES, replacement_text,
                  REPLACEMENT_BYTES) == 0;
}

/* Cuts the text before the first stop text that ends after its byte `old_bytes`. */
static void find_stop(struct stream *stream, size_t old_bytes)
{
    const char *text = buffer_text(&stream->text);
    size_t length = stream->text.len_bytes;
    size_t cut = length;
    for (const char *const *stop = stream->stop; stop != NULL && *stop != NULL; stop++) {
        size_t stop_bytes = strlen(*stop);
        if (stop_bytes == 0) {
            continue;
        }
        size_t from = old_bytes >= stop_bytes ? old_bytes - stop_bytes + 1 : 0;
        const char *hit = memmem(text + from, length - from, *stop, stop_bytes);
        if (hit != NULL) {
            size_t at = (size_t)(hit - text);
            cut = at < cut ? at : cut;
            stream->stopped = true;
        }
    }
    if (cut < length) {
        stream->text.len_bytes = cut;
        stream->text.data[cut] = '\0';
    }
}

/* Moves the decoded piece into the text. */
static enum status take_scratch(struct stream *stream, struct error *err)
{
    size_t old_bytes = stream->text.len_bytes;
    utf8_append_valid(&stream->text, buffer_text(&stream->scratch), stream->scratch.len_bytes);
    TRY(buffer_check(&stream->text, "a generated text", err));
    stream->at_start = stream->at_start && stream->scratch.len_bytes == 0;
    stream->pending_count = 0;
    find_stop(stream, old_bytes);
    return STATUS_OK;
}

enum status stream_push(struct stream *stream, int32_t token, struct error *err)
{
    if (stream->stopped) {
        return STATUS_OK;
    }
    stream->pending[stream->pending_count++] = token;
    TRY(decode_pending(stream, err));
    if (ends_open(&stream->scratch) && stream->pending_count < STREAM_PENDING_MAX) {
        return STATUS_OK;
    }
    return take_scratch(stream, err);
}

enum status stream_finish(struct stream *stream, struct error *err)
{
    if (stream->pending_count == 0 || stream->stopped) {
        return STATUS_OK;
    }
    TRY(decode_pending(stream, err));
    return take_scratch(stream, err);
}

/* Bytes at the end of the text that are the beginning of a stop text. */
static size_t held_back(const struct stream *stream)
{
    const char *end = buffer_text(&stream->text) + stream->text.len_bytes;
    size_t available = stream->text.len_bytes - stream->released_bytes;
    size_t held = 0;
    for (const char *const *stop = stream->stop; stop != NULL && *stop != NULL; stop++) {
        size_t stop_bytes = strlen(*stop);
        size_t longest = stop_bytes > 0 ? stop_bytes - 1 : 0;
        longest = longest < available ? longest : available;
        for (size_t length = longest; length > held; length--) {
            if (memcmp(end - length, *stop, length) == 0) {
                held = length;
            }
        }
    }
    return held;
}

void stream_release(struct stream *stream, bool finished, struct buffer *piece)
{
    size_t held = finished || stream->stopped ? 0 : held_back(stream);
    size_t end = stream->text.len_bytes - held;
    if (end > stream->released_bytes) {
        buffer_append(piece, buffer_text(&stream->text) + stream->released_bytes,
                      end - stream->released_bytes);
        stream->released_bytes = end;
    }
}
