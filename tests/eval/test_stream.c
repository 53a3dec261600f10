/* Text that comes token by token: whole characters, no stop text, the same as decoding all at once.
 */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/rng.h"
#include "eval/stream.h"

static const char *const folders[] = {TEST_SOURCE_DIR "/golden/tokenizer/sentence_piece",
                                      TEST_SOURCE_DIR "/golden/tokenizer/byte_level"};
enum { FOLDERS = sizeof(folders) / sizeof(folders[0]) };

static struct tokenizer *load(const char *folder)
{
    struct tokenizer *tokenizer = NULL;
    struct error err;
    if (tokenizer_load(folder, &tokenizer, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return tokenizer;
}

static int32_t bytes_token(const struct tokenizer *tokenizer, const char *name)
{
    int32_t id = tokenizer_find(tokenizer, name);
    assert_true(id >= 0);
    return id;
}

static void push(struct stream *stream, int32_t token)
{
    struct error err;
    if (stream_push(stream, token, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static void finish(struct stream *stream)
{
    struct error err;
    assert_int_equal(stream_finish(stream, &err), STATUS_OK);
}

static void begin(struct stream *stream, const struct tokenizer *tokenizer, const int32_t *prompt,
                  int64_t prompt_count, const char *const *stop)
{
    struct error err;
    assert_int_equal(stream_init(stream, tokenizer, prompt, prompt_count, stop, false, &err),
                     STATUS_OK);
}

/* Texts of every kind come out as they went in, in pieces of whole characters. */
static void test_pieces_make_the_text(void **state)
{
    (void)state;
    static const char *const texts[] = {
        " and then", "Caf\xC3\xA9 \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80!", " \n\n  x",
        "<|im_start|>", "\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9"};
    for (int f = 0; f < FOLDERS; f++) {
        struct tokenizer *tokenizer = load(folders[f]);
        for (size_t t = 0; t < sizeof(texts) / sizeof(texts[0]); t++) {
            struct token_list prompt;
            struct token_list ids;
            struct error err;
            struct buffer joined;
            struct stream stream;
            token_list_init(&prompt, 1000);
            token_list_init(&ids, 1000);
            buffer_init(&joined, 10000);
            assert_int_equal(tokenizer_encode(tokenizer, "Say", 3, 0, &prompt, &err), STATUS_OK);
            assert_int_equal(tokenizer_encode(tokenizer, texts[t], strlen(texts[t]),
                                              TOKENIZER_CONTINUE, &ids, &err),
                             STATUS_OK);
            begin(&stream, tokenizer, prompt.ids, prompt.count, NULL);
            for (int64_t i = 0; i < ids.count; i++) {
                size_t before = joined.len_bytes;
                push(&stream, ids.ids[i]);
                stream_release(&stream, false, &joined);
                assert_true(
                    json_utf8_valid(buffer_text(&joined) + before, joined.len_bytes - before));
            }
            finish(&stream);
            stream_release(&stream, true, &joined);
            assert_string_equal(buffer_text(&joined), texts[t]);
            assert_string_equal(buffer_text(&stream.text), texts[t]);
            stream_fini(&stream);
            buffer_fini(&joined);
            token_list_fini(&prompt);
            token_list_fini(&ids);
        }
        tokenizer_destroy(tokenizer);
    }
}

/* A space that begins an output belongs to it, but not at the very beginning of a text. */
static void test_first_space(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = load(folders[0]);
    struct token_list ids;
    struct error err;
    struct stream stream;
    int32_t bos = bytes_token(tokenizer, "<s>");
    token_list_init(&ids, 100);
    assert_int_equal(tokenizer_encode(tokenizer, "a", 1, 0, &ids, &err),
                     STATUS_OK); /* with its dummy prefix */
    begin(&stream, tokenizer, &bos, 1, NULL);
    for (int64_t i = 0; i < ids.count; i++) {
        push(&stream, ids.ids[i]);
    }
    assert_string_equal(buffer_text(&stream.text), "a");
    stream_fini(&stream);
    begin(&stream, tokenizer, ids.ids, ids.count, NULL);
    for (int64_t i = 0; i < ids.count; i++) {
        push(&stream, ids.ids[i]);
    }
    assert_string_equal(buffer_text(&stream.text), " a");
    stream_fini(&stream);
    token_list_fini(&ids);
    tokenizer_destroy(tokenizer);
}

static void test_characters_over_tokens(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = load(folders[0]);
    int32_t a = bytes_token(tokenizer, "<0x61>");
    int32_t bytes[3] = {bytes_token(tokenizer, "<0xE4>"), bytes_token(tokenizer, "<0xBD>"),
                        bytes_token(tokenizer, "<0xA0>")};
    struct stream stream;
    begin(&stream, tokenizer, &a, 1, NULL);
    push(&stream, bytes[0]);
    assert_string_equal(buffer_text(&stream.text), "");
    push(&stream, bytes[1]);
    assert_string_equal(buffer_text(&stream.text), "");
    push(&stream, bytes[2]);
    assert_string_equal(buffer_text(&stream.text), "\xE4\xBD\xA0");
    push(&stream, bytes[0]); /* and one that never ends */
    finish(&stream);
    assert_true(strstr(buffer_text(&stream.text), "\xEF\xBF\xBD") != NULL);
    assert_true(json_utf8_valid(buffer_text(&stream.text), stream.text.len_bytes));
    stream_fini(&stream);
    tokenizer_destroy(tokenizer);
}

/* Any tokens in any order: well-formed text, no NUL, nothing held back for ever. */
static void test_random_tokens(void **state)
{
    (void)state;
    for (int f = 0; f < FOLDERS; f++) {
        struct tokenizer *tokenizer = load(folders[f]);
        uint64_t vocab = (uint64_t)tokenizer_vocab_size(tokenizer);
        static const char *const stop[] = {"\xEF\xBF\xBDzz", "", NULL};
        for (uint64_t round = 0; round < 20; round++) {
            struct rng rng;
            struct stream stream;
            struct buffer joined;
            rng_init(&rng, 3, round);
            buffer_init(&joined, 1 << 20);
            begin(&stream, tokenizer, NULL, 0, stop);
            for (int i = 0; i < 300; i++) {
                /* mostly single bytes, ids 3 .. 258 of sentence_piece */
                push(&stream,
                     (int32_t)(i % 3 == 0 ? rng_below(&rng, vocab) : 3 + rng_below(&rng, 256)));
                assert_true(stream.pending_count < STREAM_PENDING_MAX);
                stream_release(&stream, false, &joined);
            }
            finish(&stream);
            stream_release(&stream, true, &joined);
            assert_string_equal(buffer_text(&joined), buffer_text(&stream.text));
            assert_int_equal(strlen(buffer_text(&joined)), stream.text.len_bytes);
            assert_true(json_utf8_valid(buffer_text(&joined), joined.len_bytes));
            buffer_fini(&joined);
            stream_fini(&stream);
        }
        tokenizer_destroy(tokenizer);
    }
}

/* Pushes the bytes of text one token each, releasing after each; returns what was released in all.
 */
static void push_bytes(struct stream *stream, const struct tokenizer *tokenizer, const char *text,
                       struct buffer *out)
{
    for (const char *byte = text; *byte != '\0' && !stream->stopped; byte++) {
        char name[8];
        snprintf(name, sizeof(name), "<0x%02X>", (unsigned)(unsigned char)*byte);
        push(stream, bytes_token(tokenizer, name));
        stream_release(stream, false, out);
    }
}

static void check_stop(const struct tokenizer *tokenizer, const char *const *stop,
                       const char *written, const char *expected, bool stopped)
{
    struct stream stream;
    struct buffer released;
    int32_t a = bytes_token(tokenizer, "<0x61>");
    buffer_init(&released, 1000);
    begin(&stream, tokenizer, &a, 1, stop);
    push_bytes(&stream, tokenizer, written, &released);
    assert_true(strncmp(expected, buffer_text(&released), released.len_bytes) == 0);
    finish(&stream);
    stream_release(&stream, true, &released);
    assert_string_equal(buffer_text(&stream.text), expected);
    assert_string_equal(buffer_text(&released), expected);
    assert_int_equal(stream.stopped, stopped);
    buffer_fini(&released);
    stream_fini(&stream);
}

static void test_stop_texts(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = load(folders[0]);
    static const char *const stop[] = {"\n\n", "END", "", NULL};
    check_stop(tokenizer, stop, "one\ntwo\n\nthree", "one\ntwo", true);
    check_stop(tokenizer, stop, "the ENEND", "the EN", true);
    check_stop(tokenizer, stop, "the EN", "the EN", false);
    check_stop(tokenizer, stop, "ENDEND", "", true);
    check_stop(tokenizer, NULL, "END", "END", false);
    static const char *const wide[] = {"\xE4\xBD\xA0\xE5\xA5\xBD", NULL};
    check_stop(tokenizer, wide, "a\xE4\xBD\xA0\xE5\xA5\xBD", "a", true);
    check_stop(tokenizer, wide, "a\xE4\xBD\xA0!", "a\xE4\xBD\xA0!", false);
    tokenizer_destroy(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_make_the_text),
        cmocka_unit_test(test_first_space),
        cmocka_unit_test(test_characters_over_tokens),
        cmocka_unit_test(test_random_tokens),
        cmocka_unit_test(test_stop_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
