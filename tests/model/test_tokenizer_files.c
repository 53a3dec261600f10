/* Tokenizer files that are damaged, hostile or of an unsupported kind; memory that runs out. */
#include "model/text_fixture.h"

#include "base/mem.h"
#include "model/chat.h"

enum { JSON_MAX = 16 * 1024 };

/* A whole tokenizer.json of parts that a test may replace. */
struct parts {
    const char *added;
    const char *normalizer;
    const char *pre_tokenizer;
    const char *post_processor;
    const char *decoder;
    const char *model_extra;
    const char *vocab;
    const char *merges;
    const char *config; /* tokenizer_config.json, NULL: none */
};

static const struct parts good = {
    .added = "[{\"id\": 4, \"content\": \"<s>\", \"special\": true}]",
    .normalizer = "{\"type\": \"NFC\"}",
    .pre_tokenizer = "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\s+|[^\\\\s]+\"}, "
                     "\"behavior\": \"Isolated\"}",
    .post_processor = "null",
    .decoder = "{\"type\": \"Fuse\"}",
    .model_extra =
        "\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"end_of_word_suffix\": \"\"",
    .vocab = "{\"a\": 0, \"b\": 1, \"ab\": 2, \" \": 3}",
    .merges = "[\"a b\"]",
    .config = "{\"bos_token\": \"<s>\"}",
};

static void test_folder(char folder[FILE_PATH_BYTES])
{
    snprintf(folder, FILE_PATH_BYTES, "%s/tokenizer-files-%ld", TEST_BINARY_DIR, (long)getpid());
}

static void write_text(const char *folder, const char *name, const char *text, size_t len_bytes)
{
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    assert_int_equal(file_make_folders(folder, &err), STATUS_OK);
    assert_int_equal(file_join(folder, name, path, &err), STATUS_OK);
    assert_int_equal(file_write(path, text, len_bytes, &err), STATUS_OK);
}

static void write_parts(const char *folder, const struct parts *parts)
{
    char text[JSON_MAX];
    int len = snprintf(
        text, sizeof(text),
        "{\"added_tokens\": %s, \"normalizer\": %s, \"pre_tokenizer\": %s, \"post_processor\": %s, "
        "\"decoder\": %s, \"model\": {%s, \"vocab\": %s, \"merges\": %s}}",
        parts->added, parts->normalizer, parts->pre_tokenizer, parts->post_processor,
        parts->decoder, parts->model_extra, parts->vocab, parts->merges);
    assert_true(len > 0 && len < JSON_MAX);
    write_text(folder, "tokenizer.json", text, (size_t)len);
    if (parts->config != NULL) {
        write_text(folder, "tokenizer_config.json", parts->config, strlen(parts->config));
    }
}

/* Loading gives this status, and a message that has this word in it. */
static void check_load(const struct parts *parts, enum status expected, const char *word)
{
    char folder[FILE_PATH_BYTES];
    struct tokenizer *tokenizer = NULL;
    struct error err = {0};
    test_folder(folder);
    write_parts(folder, parts);
    enum status status = tokenizer_load(folder, &tokenizer, &err);
    if (status != expected) {
        fail_msg("wanted %s with \"%s\", found %s: %s", status_name(expected), word,
                 status_name(status), err.message);
    }
    if (status != STATUS_OK) {
        assert_null(tokenizer);
        assert_non_null(strstr(err.message, "tokenizer"));
        if (strstr(err.message, word) == NULL) {
            fail_msg("\"%s\" is not in: %s", word, err.message);
        }
    }
    tokenizer_destroy(tokenizer);
    fixture_remove(folder);
}

#define CHECK(field, value, expected, word)                                                        \
    do {                                                                                           \
        struct parts parts = good;                                                                 \
        parts.field = (value);                                                                     \
        check_load(&parts, expected, word);                                                        \
    } while (0)

static void test_good_file(void **state)
{
    (void)state;
    check_load(&good, STATUS_OK, "");
    CHECK(merges, "[[\"a\", \"b\"]]", STATUS_OK, "");
    CHECK(config, NULL, STATUS_OK, "");
    CHECK(config, "{\"bos_token\": {\"content\": \"<s>\"}, \"add_bos_token\": true}", STATUS_OK,
          "");
    CHECK(added, "[]", STATUS_FORMAT, "<s>"); /* bos of the configuration is then unknown */
}

static void test_missing_and_cut_files(void **state)
{
    (void)state;
    char folder[FILE_PATH_BYTES];
    char text[JSON_MAX];
    struct tokenizer *tokenizer = NULL;
    struct error err = {0};
    test_folder(folder);
    assert_int_equal(tokenizer_load(folder, &tokenizer, &err), STATUS_NOT_FOUND);
    write_parts(folder, &good);
    struct buffer whole;
    char path[FILE_PATH_BYTES];
    buffer_init(&whole, JSON_MAX);
    assert_int_equal(file_join(folder, "tokenizer.json", path, &err), STATUS_OK);
    assert_int_equal(file_read(path, &whole, &err), STATUS_OK);
    memcpy(text, whole.data, whole.len_bytes);
    for (size_t len = 0; len < whole.len_bytes; len += 7) {
        write_text(folder, "tokenizer.json", text, len);
        assert_int_equal(tokenizer_load(folder, &tokenizer, &err), STATUS_FORMAT);
        assert_null(tokenizer);
    }
    buffer_fini(&whole);
    fixture_remove(folder);
}

static void test_wrong_vocabulary(void **state)
{
    (void)state;
    CHECK(vocab, "[]", STATUS_FORMAT, "/model/vocab");
    CHECK(vocab, "{}", STATUS_FORMAT, "empty");
    CHECK(vocab, "{\"a\": 0, \"b\": 0}", STATUS_FORMAT, "two tokens");
    CHECK(vocab, "{\"a\": 0, \"a\": 1}", STATUS_FORMAT, "twice");
    CHECK(vocab, "{\"a\": -1}", STATUS_RANGE, "\"a\"");
    CHECK(vocab, "{\"a\": 0.5}", STATUS_RANGE, "\"a\"");
    CHECK(vocab, "{\"a\": 1e300}", STATUS_RANGE, "\"a\"");
    CHECK(vocab, "{\"a\": 2097152}", STATUS_RANGE, "2097151");
    CHECK(vocab, "{\"a\": \"0\"}", STATUS_RANGE, "\"a\"");
    CHECK(vocab, "{\"a\": 2097151, \"b\": 1, \"ab\": 2}", STATUS_OK, "");
}

static void test_wrong_merges(void **state)
{
    (void)state;
    CHECK(merges, "{}", STATUS_FORMAT, "/model/merges");
    CHECK(merges, "[\"a c\"]", STATUS_FORMAT, "/model/merges/0");
    CHECK(merges, "[\"b a\"]", STATUS_FORMAT, "/model/merges/0");
    CHECK(merges, "[\"a b\", \"a\"]", STATUS_FORMAT, "/model/merges/1");
    CHECK(merges, "[\"a b b\"]", STATUS_FORMAT, "/model/merges/0");
    CHECK(merges, "[[\"a\"]]", STATUS_FORMAT, "/model/merges/0");
    CHECK(merges, "[[\"a\", \"b\", \"b\"]]", STATUS_FORMAT, "/model/merges/0");
    CHECK(merges, "[[\"a\", 1]]", STATUS_FORMAT, "/model/merges/0");
    CHECK(merges, "[7]", STATUS_FORMAT, "/model/merges/0");
}

static void test_unsupported_models(void **state)
{
    (void)state;
    CHECK(model_extra, "\"type\": \"WordPiece\"", STATUS_UNSUPPORTED, "WordPiece");
    CHECK(model_extra, "\"type\": \"Unigram\"", STATUS_UNSUPPORTED, "BPE");
    CHECK(model_extra, "\"dropout\": 0.1", STATUS_UNSUPPORTED, "dropout");
    CHECK(model_extra, "\"end_of_word_suffix\": \"</w>\"", STATUS_UNSUPPORTED,
          "end_of_word_suffix");
    CHECK(model_extra, "\"continuing_subword_prefix\": \"##\"", STATUS_UNSUPPORTED,
          "continuing_subword_prefix");
    CHECK(model_extra, "\"unk_token\": \"<unk>\"", STATUS_FORMAT, "<unk>");
}

static void test_wrong_added_tokens(void **state)
{
    (void)state;
    CHECK(added, "[{\"id\": 4}]", STATUS_FORMAT, "content");
    CHECK(added, "[{\"id\": -4, \"content\": \"<s>\"}]", STATUS_RANGE, "<s>");
    CHECK(added, "[{\"id\": 1e9, \"content\": \"<s>\"}]", STATUS_RANGE, "<s>");
    CHECK(added, "[{\"id\": 4, \"content\": \"\"}]", STATUS_LIMIT, "4");
    CHECK(added, "[{\"id\": 1, \"content\": \"<s>\"}]", STATUS_FORMAT, "<s>");
    CHECK(added, "[{\"id\": 4, \"content\": \"a\"}]", STATUS_FORMAT, "\"a\"");
    CHECK(added, "[{\"id\": 4, \"content\": \"<s>\"}, {\"id\": 5, \"content\": \"<s>\"}]",
          STATUS_FORMAT, "<s>");
    CHECK(added, "[{\"id\": 4, \"content\": \"<s>\"}, {\"id\": 4, \"content\": \"<t>\"}]",
          STATUS_FORMAT, "<t>");
    CHECK(added, "[{\"id\": 0, \"content\": \"a\"}, {\"id\": 0, \"content\": \"a\"}]",
          STATUS_FORMAT, "twice");
    CHECK(config, "{\"added_tokens_decoder\": {\"x\": {\"content\": \"<t>\"}}}", STATUS_RANGE,
          "added_tokens_decoder");
    CHECK(config,
          "{\"added_tokens_decoder\": {\"9\": {\"content\": \"<t>\"}}, \"eos_token\": \"<t>\"}",
          STATUS_OK, "");
    CHECK(config, "{\"eos_token\": 5}", STATUS_FORMAT, "eos_token");
    CHECK(config, "{\"add_bos_token\": true}", STATUS_FORMAT, "add_bos_token");
}

static void test_unsupported_steps(void **state)
{
    (void)state;
    CHECK(normalizer, "{\"type\": \"Lowercase\"}", STATUS_UNSUPPORTED, "Lowercase");
    CHECK(normalizer, "{}", STATUS_FORMAT, "type");
    CHECK(normalizer, "{\"type\": \"Sequence\"}", STATUS_FORMAT, "normalizers");
    CHECK(normalizer, "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"a\"}, \"content\": \"\"}",
          STATUS_UNSUPPORTED, "Regex");
    CHECK(normalizer, "{\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"\"}",
          STATUS_FORMAT, "empty");
    CHECK(normalizer, "{\"type\": \"Prepend\"}", STATUS_FORMAT, "prepend");
    CHECK(pre_tokenizer, "{\"type\": \"BertPreTokenizer\"}", STATUS_UNSUPPORTED,
          "BertPreTokenizer");
    CHECK(
        pre_tokenizer,
        "{\"type\": \"Split\", \"pattern\": {\"String\": \" \"}, \"behavior\": \"MergedWithNext\"}",
        STATUS_UNSUPPORTED, "MergedWithNext");
    CHECK(pre_tokenizer, "{\"type\": \"Split\"}", STATUS_FORMAT, "pattern");
    CHECK(pre_tokenizer, "{\"type\": \"Metaspace\", \"replacement\": \"_\"}", STATUS_UNSUPPORTED,
          "U+2581");
    CHECK(pre_tokenizer,
          "{\"type\": \"Metaspace\", \"replacement\": \"▁\", \"prepend_scheme\": \"x\"}",
          STATUS_FORMAT, "prepend_scheme");
    CHECK(pre_tokenizer, "{\"type\": \"ByteLevel\"}", STATUS_UNSUPPORTED, "ByteLevel");
    CHECK(pre_tokenizer,
          "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\"}, {\"type\": "
          "\"Digits\"}]}",
          STATUS_UNSUPPORTED, "Digits");
    CHECK(decoder, "{\"type\": \"WordPiece\"}", STATUS_UNSUPPORTED, "WordPiece");
    CHECK(decoder, "null", STATUS_UNSUPPORTED, "decoder");
    CHECK(decoder, "{\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}",
          STATUS_UNSUPPORTED, "Fuse");
    CHECK(decoder, "{\"type\": \"Strip\", \"content\": \"  \", \"start\": 1, \"stop\": 0}",
          STATUS_FORMAT, "Strip");
    CHECK(post_processor, "{\"type\": \"BertProcessing\"}", STATUS_UNSUPPORTED, "BertProcessing");
    CHECK(post_processor,
          "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}]}",
          STATUS_FORMAT, "TemplateProcessing");
}

/* Steps without end must end: more of them than there is room for. */
static void test_too_many_steps(void **state)
{
    (void)state;
    char text[4096] = "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}";
    for (int i = 0; i < 20; i++) {
        strcat(text, ", {\"type\": \"NFC\"}");
    }
    strcat(text, "]}");
    CHECK(normalizer, text, STATUS_LIMIT, "normalizers");
    strcpy(text, "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\"}");
    for (int i = 0; i < 20; i++) {
        strcat(text, ", {\"type\": \"Digits\"}");
    }
    strcat(text, "]}");
    CHECK(pre_tokenizer, text, STATUS_LIMIT, "pre-tokenizers");
}

/* ---- regular expressions ------------------------------------------------------------------- */

static const char *split_by(const char *pattern, char out[JSON_MAX])
{
    snprintf(out, JSON_MAX,
             "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"%s\"}, \"behavior\": \"Isolated\"}",
             pattern);
    return out;
}

static void test_refused_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern; /* as JSON writes it */
        enum status status;
    } cases[] = {
        {"(", STATUS_FORMAT},
        {"[a", STATUS_FORMAT},
        {"a)", STATUS_FORMAT},
        {"\\\\p{Nonsense}", STATUS_FORMAT},
        {"\\\\", STATUS_UNSUPPORTED},
        {"a*", STATUS_UNSUPPORTED},     /* matches nothing at all, everywhere */
        {"\\\\w+", STATUS_UNSUPPORTED}, /* another set of characters than Oniguruma's */
        {"\\\\h", STATUS_UNSUPPORTED},  /* a hexadecimal digit there, a space here */
        {"(a)\\\\1", STATUS_UNSUPPORTED},
        {"^a", STATUS_UNSUPPORTED},
        {"a{1,2}+", STATUS_UNSUPPORTED},
        {"a{1,2}?", STATUS_UNSUPPORTED},
        {"a{,2}", STATUS_UNSUPPORTED},
        {"[a&&b]", STATUS_UNSUPPORTED},
        {"[[:alpha:]]", STATUS_UNSUPPORTED},
        {"[\\\\S]", STATUS_UNSUPPORTED},
        {"(*LIMIT_MATCH=9)a", STATUS_UNSUPPORTED},
        {"(?R)", STATUS_UNSUPPORTED},
        {"a(?i)b", STATUS_UNSUPPORTED},
        {"\\\\p{", STATUS_UNSUPPORTED},
        {"\\\\x{110000000}", STATUS_UNSUPPORTED},
        {"(?<name>a)", STATUS_UNSUPPORTED},
    };
    char split[JSON_MAX];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK(pre_tokenizer, split_by(cases[i].pattern, split), cases[i].status,
              "regular expression");
    }
    static const char *const accepted[] = {"(?i)a",           "\\\\u4e00-\\\\u9fa5",
                                           "[\\\\s\\\\p{L}]", "\\\\p{Han}+|\\\\P{^Lu}",
                                           "a(?<!b)c++",      "(?>a|b){2,3}"};
    for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
        CHECK(pre_tokenizer, split_by(accepted[i], split), STATUS_OK, "");
    }
}

static void test_catastrophic_pattern_is_stopped(void **state)
{
    (void)state;
    char folder[FILE_PATH_BYTES];
    char split[JSON_MAX];
    char text[200];
    struct parts parts = good;
    struct token_list ids;
    struct error err = {0};
    parts.pre_tokenizer = split_by("(a|aa)+(a|aa)+(a|aa)+b|a", split);
    test_folder(folder);
    write_parts(folder, &parts);
    struct tokenizer *tokenizer = fixture_load(folder);
    memset(text, 'a', sizeof(text));
    token_list_init(&ids, 1000);
    assert_int_equal(tokenizer_encode(tokenizer, text, sizeof(text), 0, &ids, &err), STATUS_LIMIT);
    assert_int_equal(ids.count, 0);
    assert_non_null(strstr(err.message, "backtracks"));
    token_list_fini(&ids);
    tokenizer_destroy(tokenizer);
    fixture_remove(folder);
}

/* ---- damage at random ---------------------------------------------------------------------- */

/* One byte of a real file changed at a time: it loads or it is refused, and what loads encodes. */
static void test_changed_bytes(void **state)
{
    (void)state;
    char folder[FILE_PATH_BYTES];
    char path[FILE_PATH_BYTES];
    struct buffer whole;
    struct error err = {0};
    test_folder(folder);
    write_parts(folder, &good);
    buffer_init(&whole, JSON_MAX);
    assert_int_equal(file_join(folder, "tokenizer.json", path, &err), STATUS_OK);
    assert_int_equal(file_read(path, &whole, &err), STATUS_OK);
    static const char changes[] = {'0', '"', '{', ']', ',', 'x', '\\', ' ', '\0', (char)0xC3};
    for (size_t at = 0; at < whole.len_bytes; at++) {
        char before = whole.data[at];
        whole.data[at] = changes[at % sizeof(changes)];
        write_text(folder, "tokenizer.json", whole.data, whole.len_bytes);
        whole.data[at] = before;
        struct tokenizer *tokenizer = NULL;
        if (tokenizer_load(folder, &tokenizer, &err) == STATUS_OK) {
            struct token_list ids;
            token_list_init(&ids, 100);
            (void)tokenizer_encode(tokenizer, "ab a <s> b", 10, TOKENIZER_PARSE_SPECIAL, &ids,
                                   &err);
            token_list_fini(&ids);
        }
        tokenizer_destroy(tokenizer);
    }
    buffer_fini(&whole);
    fixture_remove(folder);
}

/* ---- no memory ----------------------------------------------------------------------------- */

static void test_load_without_memory(void **state)
{
    (void)state;
    static const char *const folders[] = {"byte_level", "sentence_piece", "metaspace_first"};
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        char folder[FILE_PATH_BYTES];
        snprintf(folder, sizeof(folder), "%s/golden/tokenizer/%s", TEST_SOURCE_DIR, folders[i]);
        int64_t before = mem_allocation_count();
        tokenizer_destroy(fixture_load(folder));
        int64_t count = mem_allocation_count() - before;
        int64_t failed = 0;
        for (int64_t nth = 1; nth <= count; nth++) {
            struct tokenizer *tokenizer = NULL;
            struct error err = {0};
            mem_fail_nth(nth);
            enum status status = tokenizer_load(folder, &tokenizer, &err);
            mem_fail_nth(0);
            if (status != STATUS_OK && status != STATUS_NO_MEMORY) {
                fail_msg("allocation %lld: %s: %s", (long long)nth, status_name(status),
                         err.message);
            }
            failed += status != STATUS_OK;
            assert_true((status == STATUS_OK) == (tokenizer != NULL));
            tokenizer_destroy(tokenizer);
        }
        /* A pattern without memory for machine code is interpreted: those may fail. */
        assert_true(failed > count / 2);
    }
}

static void test_encode_without_memory(void **state)
{
    (void)state;
    static const char *const folders[] = {"byte_level", "gpt2", "metaspace_first",
                                          "sentence_piece"};
    /* Enough to need every buffer: a long piece, marks out of order, spaces. */
    char text[1024] = "a <|im_end|> "
                      "e\xCC\x81\xCC\xA7\xCC\x81\xCC\xA7\xCC\x81\xCC\xA7\xCC\x81\xCC\xA7\xCC\x81"
                      "\xCC\xA7\xCC\x81\xCC\xA7"
                      "\xCC\x81\xCC\xA7\xCC\x81\xCC\xA7\xCC\x81\xCC\xA7\xCC\x81\xCC\xA7 <think>";
    memset(text + strlen(text), 'q', 200);
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        char folder[FILE_PATH_BYTES];
        snprintf(folder, sizeof(folder), "%s/golden/tokenizer/%s", TEST_SOURCE_DIR, folders[i]);
        struct tokenizer *tokenizer = fixture_load(folder);
        const struct chat_message message = {"user", text};
        enum status status = STATUS_NO_MEMORY;
        for (int64_t nth = 1; status != STATUS_OK; nth++) {
            struct token_list ids;
            struct buffer out;
            struct error err = {0};
            token_list_init(&ids, 10000);
            buffer_init(&out, 100000);
            mem_fail_nth(nth);
            status = tokenizer_encode(tokenizer, text, strlen(text), TOKENIZER_PARSE_SPECIAL, &ids,
                                      &err);
            if (status == STATUS_OK) {
                status =
                    chat_encode(tokenizer, CHAT_PLAIN, &message, 1, true, true, &ids, NULL, &err);
            }
            if (status == STATUS_OK) {
                status = tokenizer_decode(tokenizer, ids.ids, ids.count, true, &out, &err);
            }
            mem_fail_nth(0);
            /* A caller's buffer that fails reports its cap or the memory: STATUS_LIMIT either way.
             */
            assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY ||
                        status == STATUS_LIMIT);
            buffer_fini(&out);
            token_list_fini(&ids);
        }
        tokenizer_destroy(tokenizer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_file),
        cmocka_unit_test(test_missing_and_cut_files),
        cmocka_unit_test(test_wrong_vocabulary),
        cmocka_unit_test(test_wrong_merges),
        cmocka_unit_test(test_unsupported_models),
        cmocka_unit_test(test_wrong_added_tokens),
        cmocka_unit_test(test_unsupported_steps),
        cmocka_unit_test(test_too_many_steps),
        cmocka_unit_test(test_refused_patterns),
        cmocka_unit_test(test_catastrophic_pattern_is_stopped),
        cmocka_unit_test(test_changed_bytes),
        cmocka_unit_test(test_load_without_memory),
        cmocka_unit_test(test_encode_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
