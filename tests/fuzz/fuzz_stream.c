/* Answers of language models: whatever the bytes and wherever they are cut into pieces, the same is
 * read, and it is text. The first byte is the provider, the second where it is cut. */
#include "fuzz/fuzz.h"

#include "base/rng.h"
#include "net/lm_samples.h"
#include "net/lm_stream.h"

static const struct lm_provider *provider_at(uint8_t number)
{
    const char *const *names = lm_providers();
    uint8_t count = 0;
    while (names[count] != NULL) {
        count++;
    }
    return lm_provider_find(names[number % count]);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    for (size_t i = 0; i < SAMPLES; i++) {
        char head[2] = {0, (char)i};
        while (provider_at((uint8_t)head[0]) != samples[i].provider) {
            head[0]++;
        }
        fuzz_write_seed((int)i, head, sizeof(head), samples[i].wire);
    }
    return 0;
}

/* piece_max 0: all at once. Each piece has memory of its own, so that no read passes its end. */
static enum status read_wire(const struct lm_provider *provider, const uint8_t *wire, size_t size,
                             size_t piece_max, struct lm_reading *reading)
{
    struct lm_stream stream;
    struct rng rng;
    enum status status = STATUS_OK;
    memset(reading, 0, sizeof(*reading));
    buffer_init(&reading->text, LM_REPLY_MAX_BYTES);
    lm_stream_init(&stream, provider, reading);
    rng_init(&rng, piece_max, 0);
    for (size_t at = 0; at < size && status == STATUS_OK;) {
        size_t length = piece_max > 0 ? 1 + rng_below(&rng, piece_max) : size;
        length = length < size - at ? length : size - at;
        char *piece = fuzz_text(wire + at, length);
        status = lm_stream_feed(&stream, piece, length, NULL);
        free(piece);
        at += length;
    }
    if (status == STATUS_OK) {
        status = lm_stream_end(&stream, NULL);
    }
    lm_stream_fini(&stream);
    return status;
}

static void check_text(const struct lm_reading *reading)
{
    FUZZ_HOLDS(strlen(buffer_text(&reading->text)) == reading->text.len_bytes);
    FUZZ_HOLDS(fuzz_is_utf8(buffer_text(&reading->text)));
    FUZZ_HOLDS(fuzz_is_utf8(reading->model) && fuzz_is_utf8(reading->problem));
    FUZZ_HOLDS(reading->tokens_in >= 0 && reading->tokens_out >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lm_reading whole;
    struct lm_reading parts;
    if (size < 2) {
        return 0;
    }
    const struct lm_provider *provider = provider_at(data[0]);
    size_t piece_max = 1 + data[1] % 32;
    enum status status = read_wire(provider, data + 2, size - 2, 0, &whole);
    FUZZ_HOLDS(read_wire(provider, data + 2, size - 2, piece_max, &parts) == status);
    check_text(&whole);
    FUZZ_HOLDS(strcmp(buffer_text(&whole.text), buffer_text(&parts.text)) == 0);
    FUZZ_HOLDS(strcmp(whole.model, parts.model) == 0);
    FUZZ_HOLDS(strcmp(whole.problem, parts.problem) == 0);
    FUZZ_HOLDS(whole.began == parts.began && whole.ended == parts.ended);
    FUZZ_HOLDS(whole.cut == parts.cut && whole.refused == parts.refused);
    FUZZ_HOLDS(whole.tokens_in == parts.tokens_in && whole.tokens_out == parts.tokens_out);
    buffer_fini(&whole.text);
    buffer_fini(&parts.text);
    return 0;
}
