/* Texts of strangers made clean: words, names, licences, cards. */
#include "net/source_fixture.h"

static void check_clean(const char *text, bool lines, size_t max_bytes, const char *expected)
{
    struct buffer out;
    buffer_init(&out, 4096);
    buffer_append_text(&out, "#");
    source_clean(text, lines, max_bytes, &out);
    assert_string_equal(buffer_text(&out) + 1, expected);
    assert_true(strlen(expected) <= max_bytes);
    buffer_fini(&out);
}

static void test_clean(void **state)
{
    (void)state;
    check_clean(" a \t\n\n b\r\n", false, 100, "a b");
    check_clean("a \n b\n\n\n\nc\n", true, 100, "a\nb\n\nc");
    check_clean("x\x01\x7F\x1B[31my", false, 100, "x [31my");
    check_clean("e\u200Bvi\u202El\uFEFF \U000E0041\U000E0042.", false, 100, "evil .");
    check_clean("\xFFz", false, 100, "\uFFFDz");
    check_clean("cut", false, 3, "cut");
    check_clean("cut it", false, 5, "cu...");
    check_clean("äöüß", false, 7, "äö...");
    check_clean("äöüß", false, 8, "äöüß");
    check_clean("word word word", false, 9, "word w...");
    check_clean("", false, 10, "");
}

static void test_words(void **state)
{
    (void)state;
    struct buffer out;
    buffer_init(&out, 4096);
    assert_int_equal(
        source_words("Low-rank, \"x) OR (y\": ünder - z", 8, true, "all:\"", "\"", " AND ", &out),
        6);
    assert_string_equal(buffer_text(&out), "all:\"Low-rank\" AND all:\"x\" AND all:\"OR\" AND "
                                           "all:\"y\" AND all:\"ünder\" AND all:\"z\"");
    buffer_clear(&out);
    assert_int_equal(source_words("low-rank a b c", 3, false, "", "", " ", &out), 3);
    assert_string_equal(buffer_text(&out), "low rank a");
    buffer_clear(&out);
    source_file_part("../.x/ä b.json", 100, &out);
    assert_string_equal(buffer_text(&out), "_._.x____b.json");
    buffer_fini(&out);
    assert_true(source_id_valid("org/na-me_1.0") && source_id_valid("glue"));
    static const char *const bad[] = {"",     "/",    "a/",    "/a",  "a//b", "..",   "a/..",
                                      "a..b", "-a",   "a/b/c", "a b", "a?b",  "a%2e", "a\\b",
                                      "ä",    ".git", "a/.b",  "a#b", "a\nb"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(source_id_valid(bad[i]));
    }
}

/* Whatever a data set calls its split for tests. */
static void test_splits(void **state)
{
    (void)state;
    static const char *const tests[] = {"test",     "Test",    "TEST",     "test_matched",
                                        "dev-test", "my.test", "evalTest", "devtest"};
    static const char *const others[] = {"validation", "latest", "contest", "trainer", "tes", ""};
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        assert_int_equal(source_rate_split(tests[i]), 0);
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_int_equal(source_rate_split(others[i]), 1);
    }
    assert_int_equal(source_rate_split("train"), 2);
}

static void test_licences(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"MIT", "mit"},
        {"MIT License", "mit"},
        {"The MIT License", "mit"},
        {"Apache License 2.0", "apache-2.0"},
        {"Apache License, Version 2.0", "apache-2.0"},
        {"apache-2.0", "apache-2.0"},
        {"APACHE 2.0 licence", "apache-2.0"},
        {"CC BY 4.0", "cc-by-4.0"},
        {"CCBYNCSA", "cc-by-nc-sa"},
        {"CCBY", "cc-by"},
        {"cc-by-nc-sa-3.0", "cc-by-nc-sa-3.0"},
        {"CC_BY_SA_4.0", "cc-by-sa-4.0"},
        {"https://creativecommons.org/licenses/by-nc/4.0/legalcode", "cc-by-nc-4.0"},
        {"http://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"},
        {"Creative Commons Attribution-ShareAlike 4.0 International", "cc-by-sa-4.0"},
        {"CC0", "cc0-1.0"},
        {"BSD 3-Clause License", "bsd-3-clause"},
        {"unknown", ""},
        {"Other", ""},
        {"", ""},
        {"n/a", ""},
        {"publisher-specific-oa", ""},
        {"unspecified-oa", ""},
        {"see <a href=x>", ""},
        {"ask\\us; rm -rf", ""},
    };
    char out[SOURCE_LICENCE_BYTES];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        source_licence(cases[i][0], out);
        assert_string_equal(out, cases[i][1]);
    }
    char *lengthy = calloc(1, 100001);
    memset(lengthy, 'a', 100000);
    source_licence(lengthy, out);
    assert_string_equal(out, "");
    free(lengthy);

    static const char *const own[] = {"MIT", "house-rules", NULL};
    assert_true(source_licence_allowed("mit", NULL));
    assert_true(source_licence_allowed("cc-by-nc-4.0", NULL));
    assert_true(source_licence_allowed("mit and cc-by", NULL));
    assert_false(source_licence_allowed("", NULL));
    assert_false(source_licence_allowed("house-rules", NULL));
    assert_false(source_licence_allowed("cc-bycycle", NULL));
    assert_false(source_licence_allowed("cc-by-4.00", NULL));
    assert_false(source_licence_allowed("mit and house-rules", NULL));
    assert_true(source_licence_allowed("house-rules and mit", own));
    assert_false(source_licence_allowed("mit and apache-2.0", own));
    assert_false(source_licence_allowed("apache-2.0", own));
    assert_false(source_licence_allowed("", own));
}

static void test_cards(void **state)
{
    (void)state;
    struct source_card card;
    char *text = read_golden("hf/datasets/example-org/short-reviews/resolve/main/README.md");
    source_read_card(text, &card);
    assert_string_equal(card.licence, "cc-by-4.0");
    assert_string_equal(card.title, "Short Reviews");
    assert_memory_equal(card.text, "\n# Dataset Card", 15);
    free(text);
    static const char *const cases[][3] = {
        /* card, licence, title */
        {"# Name\ntext", "", "Name"},
        {"---\nlicense: [mit, 'cc-by-4.0']\n---\n", "mit and cc-by-4.0", ""},
        {"---\r\nlicense: \"MIT\"\r\n---\r\n# T\r\n", "mit", "T"},
        {"---\nlicence: mit\n---", "mit", ""},
        {"---\nlicense:\n  - mit\n  - other\n---\n", "", ""},
        {"---\nlicense: mit\n", "", ""},
        {"---\nlicense: mit\n# never ends", "", "never ends"},
        {"---\nx:\n  license: mit\n---\n", "", ""},
        {"---\nlicense:\n---\n", "", ""},
        {"---\nlicense: []\n---\n", "", ""},
        {"---\nlicense: [\n---\n", "", ""},
        {"---", "", ""},
        {"", "", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *copy = strdup(cases[i][0]);
        source_read_card(copy, &card);
        assert_string_equal(card.licence, cases[i][1]);
        assert_string_equal(card.title, cases[i][2]);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),  cmocka_unit_test(test_words),
        cmocka_unit_test(test_splits), cmocka_unit_test(test_licences),
        cmocka_unit_test(test_cards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
