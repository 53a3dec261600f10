/* Ids and texts against the `tokenizers` library, the published Qwen vectors and the stories260K
 * reference. */
#include <time.h>

#include "model/text_fixture.h"

#include "base/clock.h"
#include "base/rng.h"

struct check {
    const struct tokenizer *tokenizer;
    int flags;
};

static void encode(const struct tokenizer *tokenizer, const char *text, int flags,
                   struct token_list *ids)
{
    struct error err = {0};
    if (tokenizer_encode(tokenizer, text, strlen(text), flags, ids, &err) != STATUS_OK) {
        fail_msg("%s: %s", text, err.message);
    }
}

static void check_decoded(const struct tokenizer *tokenizer, const struct token_list *ids,
                          bool skip_special, const char *expected)
{
    struct buffer text;
    struct error err = {0};
    buffer_init(&text, FIXTURE_FILE_MAX_BYTES);
    assert_int_equal(tokenizer_decode(tokenizer, ids->ids, ids->count, skip_special, &text, &err),
                     STATUS_OK);
    assert_string_equal(buffer_text(&text), expected);
    buffer_fini(&text);
}

static const cJSON *field(const cJSON *line, const char *key, const char *otherwise)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(line, key);
    return value != NULL || otherwise == NULL ? value
                                              : cJSON_GetObjectItemCaseSensitive(line, otherwise);
}

/* ---- the library --------------------------------------------------------------------------- */

static void check_golden_line(void *context, const cJSON *line)
{
    const struct check *check = context;
    const char *text = field(line, "text", NULL)->valuestring;
    struct token_list ids;
    token_list_init(&ids, 1 << 20);
    encode(check->tokenizer, text, TOKENIZER_PARSE_SPECIAL, &ids);
    fixture_check_ids(&ids, field(line, "ids", NULL), text);
    const char *decoded = field(line, "decoded", "text")->valuestring;
    const cJSON *skipped = field(line, "skipped", NULL);
    check_decoded(check->tokenizer, &ids, false, decoded);
    check_decoded(check->tokenizer, &ids, true, skipped != NULL ? skipped->valuestring : decoded);
    ids.count = 0;
    encode(check->tokenizer, text, 0, &ids);
    fixture_check_ids(&ids, field(line, "plain", "ids"), text);
    token_list_fini(&ids);
}

static void check_golden(const char *root, const char *name)
{
    char folder[FILE_PATH_BYTES];
    char vectors[2 * FILE_PATH_BYTES];
    snprintf(folder, sizeof(folder), "%s/%s", root, name);
    snprintf(vectors, sizeof(vectors), "%s/vectors.jsonl", folder);
    struct tokenizer *tokenizer = fixture_load(folder);
    struct check check = {.tokenizer = tokenizer};
    int count = fixture_each_line(vectors, check_golden_line, &check);
    assert_true(count >= 24);
    tokenizer_destroy(tokenizer);
}

static void test_equals_library(void **state)
{
    (void)state;
    static const char *const names[] = {"byte_level", "gpt2", "sentence_piece", "metaspace_first",
                                        "metaspace_always"};
    const char *more = getenv("TOKENIZER_VECTORS"); /* a longer run of tests/golden/tokenizer.py */
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        check_golden(TEST_SOURCE_DIR "/golden/tokenizer", names[i]);
        if (more != NULL) {
            check_golden(more, names[i]);
        }
    }
}

/* ---- Qwen ---------------------------------------------------------------------------------- */

static void check_vector(void *context, const cJSON *line)
{
    const struct check *check = context;
    const char *text = field(line, "text", NULL)->valuestring;
    struct token_list ids;
    token_list_init(&ids, 1 << 20);
    encode(check->tokenizer, text, check->flags, &ids);
    fixture_check_ids(&ids, field(line, "ids", NULL), text);
    check_decoded(check->tokenizer, &ids, true, text);
    token_list_fini(&ids);
}

static void test_qwen_vectors(void **state)
{
    (void)state;
    char folder[FILE_PATH_BYTES];
    char vectors[FILE_PATH_BYTES];
    if (fixture_qwen(folder) == NULL ||
        fixture_shared("TOKENIZERS", "qwen/test_vectors.jsonl", vectors) == NULL) {
        skip();
    }
    double start_s = clock_monotonic_s();
    struct tokenizer *tokenizer = fixture_load(folder);
    printf("loading took %.3f s\n", clock_monotonic_s() - start_s);
    assert_int_equal(tokenizer_vocab_size(tokenizer), 151669);
    assert_int_equal(tokenizer_bos(tokenizer), -1);
    assert_int_equal(tokenizer_eos(tokenizer), 151645);
    assert_false(tokenizer_adds_bos(tokenizer));
    assert_int_equal(tokenizer_find(tokenizer, "<|endoftext|>"), 151643);
    assert_int_equal(tokenizer_find(tokenizer, "Ġthe"), 279);
    struct check check = {.tokenizer = tokenizer};
    assert_int_equal(fixture_each_line(vectors, check_vector, &check), 47);
    tokenizer_destroy(tokenizer);
    fixture_remove(folder);
}

/* ---- stories260K --------------------------------------------------------------------------- */

static void test_stories_examples(void **state)
{
    (void)state;
    char folder[FILE_PATH_BYTES];
    char path[FILE_PATH_BYTES];
    if (fixture_shared("MODELS", "stories260K", folder) == NULL ||
        fixture_shared("MODELS", "stories260K/reference.json", path) == NULL) {
        skip();
    }
    struct tokenizer *tokenizer = fixture_load(folder);
    assert_int_equal(tokenizer_vocab_size(tokenizer), 512);
    assert_int_equal(tokenizer_bos(tokenizer), 1);
    assert_int_equal(tokenizer_eos(tokenizer), 2);
    assert_true(tokenizer_adds_bos(tokenizer));
    cJSON *reference = NULL;
    struct error err = {0};
    assert_int_equal(json_parse_file(path, FIXTURE_FILE_MAX_BYTES, &reference, &err), STATUS_OK);
    struct check check = {.tokenizer = tokenizer, .flags = TOKENIZER_ADD_SPECIAL};
    int count = 0;
    const cJSON *line = NULL;
    cJSON_ArrayForEach (line, cJSON_GetObjectItemCaseSensitive(reference, "tokenizer_examples")) {
        check_vector(&check, line);
        count++;
    }
    assert_int_equal(count, 7);
    cJSON_Delete(reference);
    tokenizer_destroy(tokenizer);
}

/* ---- properties ---------------------------------------------------------------------------- */

/* A text's ids, continued by those of the rest, decode to the text: no prefix appears in the
 * middle. */
static void test_continued_text_decodes_whole(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = fixture_load(TEST_SOURCE_DIR "/golden/tokenizer/sentence_piece");
    static const char text[] = "The answer is: positive 中文 \xF0\x9F\x98\x80  end";
    struct error err = {0};
    for (size_t cut = 0; cut < strlen(text); cut++) {
        if (((unsigned char)text[cut] & 0xC0) == 0x80) {
            continue;
        }
        struct token_list ids;
        token_list_init(&ids, 1000);
        assert_int_equal(tokenizer_encode(tokenizer, text, cut, 0, &ids, &err), STATUS_OK);
        int64_t first = ids.count;
        int flags = cut > 0 ? TOKENIZER_CONTINUE : 0;
        assert_int_equal(
            tokenizer_encode(tokenizer, text + cut, strlen(text) - cut, flags, &ids, &err),
            STATUS_OK);
        check_decoded(tokenizer, &ids, true, text);
        struct buffer rest;
        buffer_init(&rest, 1000);
        if (cut > 0) {
            assert_int_equal(tokenizer_decode_continuation(tokenizer, ids.ids + first,
                                                           ids.count - first, true, &rest, &err),
                             STATUS_OK);
            assert_string_equal(buffer_text(&rest), text + cut);
        }
        buffer_fini(&rest);
        token_list_fini(&ids);
    }
    tokenizer_destroy(tokenizer);
}

static void test_special_only_in_ranges(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = fixture_load(TEST_SOURCE_DIR "/golden/tokenizer/byte_level");
    static const char text[] = "<|im_end|>a<|im_end|>b<|im_end|>";
    int32_t end_id = tokenizer_find(tokenizer, "<|im_end|>");
    assert_true(end_id >= 0);
    /* The second range cuts a token in half: that one is text. */
    const struct text_range ranges[] = {{0, 10}, {11, 20}, {22, sizeof(text) - 1}};
    struct token_list ids;
    struct error err = {0};
    token_list_init(&ids, 1000);
    assert_int_equal(
        tokenizer_encode_ranges(tokenizer, text, sizeof(text) - 1, 0, ranges, 3, &ids, &err),
        STATUS_OK);
    int found = 0;
    for (int64_t i = 0; i < ids.count; i++) {
        found += ids.ids[i] == end_id;
    }
    assert_int_equal(found, 2);
    assert_int_equal(ids.ids[0], end_id);
    assert_int_equal(ids.ids[ids.count - 1], end_id);
    check_decoded(tokenizer, &ids, false, text);
    token_list_fini(&ids);
    tokenizer_destroy(tokenizer);
}

static void test_decode_of_odd_ids(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = fixture_load(TEST_SOURCE_DIR "/golden/tokenizer/byte_level");
    /* Ids outside the vocabulary give nothing; half a character gives U+FFFD. */
    int32_t half = tokenizer_find(tokenizer, "ä"); /* stands for the byte E4, the first of three */
    int32_t space = tokenizer_find(tokenizer, "Ġ");
    assert_true(half >= 0 && space >= 0);
    struct token_list ids;
    struct error err = {0};
    token_list_init(&ids, 10);
    const int32_t odd[] = {-1, INT32_MIN, INT32_MAX, half, space, half};
    assert_int_equal(token_list_append(&ids, odd, 6, &err), STATUS_OK);
    check_decoded(tokenizer, &ids, false, "\xEF\xBF\xBD \xEF\xBF\xBD");
    struct buffer small;
    buffer_init(&small, 3);
    assert_int_equal(tokenizer_decode(tokenizer, odd, 6, false, &small, &err), STATUS_LIMIT);
    buffer_fini(&small);
    token_list_fini(&ids);
    tokenizer_destroy(tokenizer);
}

static void test_refused_texts(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = fixture_load(TEST_SOURCE_DIR "/golden/tokenizer/byte_level");
    static const char *const broken[] = {
        "\xFF", "a\xC3", "\xC0\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\x80"};
    struct token_list ids;
    struct error err = {0};
    token_list_init(&ids, 4);
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        assert_int_equal(tokenizer_encode(tokenizer, broken[i], strlen(broken[i]), 0, &ids, &err),
                         STATUS_FORMAT);
    }
    assert_int_equal(tokenizer_encode(tokenizer, "1 2", 3, 0, &ids, &err), STATUS_OK);
    int64_t count = ids.count;
    assert_int_equal(tokenizer_encode(tokenizer, "3 4 5 6", 7, 0, &ids, &err), STATUS_LIMIT);
    assert_int_equal(ids.count, count);
    token_list_fini(&ids);
    tokenizer_destroy(tokenizer);
}

static void test_text_with_zero_byte(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = fixture_load(TEST_SOURCE_DIR "/golden/tokenizer/byte_level");
    struct token_list ids;
    struct buffer text;
    struct error err = {0};
    token_list_init(&ids, 100);
    buffer_init(&text, 100);
    assert_int_equal(tokenizer_encode(tokenizer, "a\0b", 3, 0, &ids, &err), STATUS_OK);
    assert_int_equal(tokenizer_decode(tokenizer, ids.ids, ids.count, false, &text, &err),
                     STATUS_OK);
    assert_int_equal(text.len_bytes, 3);
    assert_memory_equal(text.data, "a\0b", 3);
    buffer_fini(&text);
    token_list_fini(&ids);
    tokenizer_destroy(tokenizer);
}

/* Time of the processor, not of the clock: other programs may run on the machine. */
static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Long runs: eight times the text must not take much more than eight times the time. The bound is
 * loose, for sanitizers and busy machines; a quadratic step would take minutes. */
static double seconds_for(const struct tokenizer *tokenizer, const char *unit, size_t len_bytes)
{
    size_t unit_len = strlen(unit);
    char *text = malloc(len_bytes + unit_len);
    assert_non_null(text);
    size_t used = 0;
    for (; used < len_bytes; used += unit_len) {
        memcpy(text + used, unit, unit_len);
    }
    struct token_list ids;
    struct error err = {0};
    token_list_init(&ids, 1 << 24);
    double best_s = 1e9;
    for (int repeat = 0; repeat < 2; repeat++) {
        ids.count = 0;
        double start_s = cpu_seconds();
        assert_int_equal(tokenizer_encode(tokenizer, text, used, 0, &ids, &err), STATUS_OK);
        double taken_s = cpu_seconds() - start_s;
        best_s = taken_s < best_s ? taken_s : best_s;
    }
    token_list_fini(&ids);
    free(text);
    return best_s;
}

static void test_long_runs_are_linear(void **state)
{
    (void)state;
    static const char *const folders[] = {"byte_level", "gpt2", "sentence_piece",
                                          "metaspace_first"};
    static const char *const units[] = {"a",         " ", "7",  "中", "\n", "\xCC\x81\xCC\xA7",
                                        "e\xCC\x81", "<", "ab "};
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        char folder[FILE_PATH_BYTES];
        snprintf(folder, sizeof(folder), "%s/golden/tokenizer/%s", TEST_SOURCE_DIR, folders[i]);
        struct tokenizer *tokenizer = fixture_load(folder);
        for (size_t k = 0; k < sizeof(units) / sizeof(units[0]); k++) {
            double small_s = seconds_for(tokenizer, units[k], 64 * 1024);
            double large_s = seconds_for(tokenizer, units[k], 512 * 1024);
            if (large_s > 32 * small_s + 1) {
                fail_msg("%s, \"%s\": 64 KiB in %.4f s, 512 KiB in %.4f s", folders[i], units[k],
                         small_s, large_s);
            }
        }
        tokenizer_destroy(tokenizer);
    }
}

/* Random bytes (half of the rounds: ASCII alone, which no normal form changes): nothing crashes,
 * ASCII comes back. */
static void test_random_texts_come_back(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = fixture_load(TEST_SOURCE_DIR "/golden/tokenizer/byte_level");
    struct rng rng;
    rng_init(&rng, 7, 0);
    struct token_list ids;
    struct error err = {0};
    token_list_init(&ids, 1000);
    for (int round = 0; round < 3000; round++) {
        char text[64];
        size_t len = (size_t)rng_below(&rng, sizeof(text));
        for (size_t i = 0; i < len; i++) {
            text[i] = (char)(unsigned char)(round % 2 == 0 ? rng_below(&rng, 256)
                                                           : rng_below(&rng, 127) + 1);
        }
        ids.count = 0;
        enum status status = tokenizer_encode(tokenizer, text, len, TOKENIZER_CONTINUE, &ids, &err);
        assert_int_equal(status, json_utf8_valid(text, len) ? STATUS_OK : STATUS_FORMAT);
        if (status == STATUS_OK && round % 2 == 1) {
            struct buffer back;
            buffer_init(&back, 1000);
            assert_int_equal(tokenizer_decode(tokenizer, ids.ids, ids.count, false, &back, &err),
                             STATUS_OK);
            assert_int_equal(back.len_bytes, len);
            assert_memory_equal(buffer_text(&back), text, len);
            buffer_fini(&back);
        }
    }
    token_list_fini(&ids);
    tokenizer_destroy(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_library),
        cmocka_unit_test(test_qwen_vectors),
        cmocka_unit_test(test_stories_examples),
        cmocka_unit_test(test_continued_text_decodes_whole),
        cmocka_unit_test(test_special_only_in_ranges),
        cmocka_unit_test(test_decode_of_odd_ids),
        cmocka_unit_test(test_refused_texts),
        cmocka_unit_test(test_text_with_zero_byte),
        cmocka_unit_test(test_long_runs_are_linear),
        cmocka_unit_test(test_random_texts_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
