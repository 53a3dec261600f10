/* Sources: bodies to documents, on goldens and on what hostile services send; licences, cards,
 * local folders; then the whole way over HTTP, with a scripted server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "net/server.h"
#include "net/source_service.h"

#define GOLDEN TEST_SOURCE_DIR "/net/golden/"

typedef enum status (*reader)(const char *body, size_t len_bytes, int count, cJSON *documents,
                              struct error *err);

/* ---- helpers ---- */

static char *read_golden(const char *name)
{
    char path[FILE_PATH_BYTES];
    struct buffer text;
    struct error err;
    buffer_init(&text, 1 << 20);
    snprintf(path, sizeof(path), GOLDEN "%s", name);
    if (file_read(path, &text, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return buffer_take(&text);
}

static cJSON *read_documents(reader read, const char *body, int count)
{
    struct error err = {0};
    cJSON *documents = cJSON_CreateArray();
    if (read(body, strlen(body), count, documents, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return documents;
}

static cJSON *read_golden_documents(reader read, const char *name, int count)
{
    char *body = read_golden(name);
    cJSON *documents = read_documents(read, body, count);
    free(body);
    return documents;
}

static enum status read_status(reader read, const char *body, char message[960])
{
    struct error err = {.message = ""};
    cJSON *documents = cJSON_CreateArray();
    enum status status = read(body, strlen(body), SOURCE_DOCUMENTS_MAX, documents, &err);
    snprintf(message, 960, "%s", err.message);
    assert_true(cJSON_GetArraySize(documents) <= SOURCE_DOCUMENTS_MAX);
    cJSON_Delete(documents);
    return status;
}

static const char *text_of(const cJSON *documents, int index, const char *key)
{
    return source_string(cJSON_GetArrayItem(documents, index), key);
}

static int number_of(const cJSON *documents, int index, const char *key)
{
    return (int)source_integer(cJSON_GetArrayItem(documents, index), key, -1);
}

/* ---- goldens ---- */

static void test_arxiv(void **state)
{
    (void)state;
    cJSON *documents = read_golden_documents(source_arxiv_read, "arxiv/api/query.xml", 25);
    assert_int_equal(cJSON_GetArraySize(documents), 3);
    assert_string_equal(text_of(documents, 0, "kind"), "literature");
    assert_string_equal(text_of(documents, 0, "source"), "arxiv");
    assert_string_equal(text_of(documents, 0, "id"), "2409.01234");
    assert_string_equal(text_of(documents, 0, "title"),
                        "Small Ranks Suffice: Low-Rank Adapters for Sentiment Classification");
    assert_string_equal(text_of(documents, 0, "url"), "https://arxiv.org/abs/2409.01234");
    assert_string_equal(
        text_of(documents, 0, "text"),
        "We compare adapters of rank 1 to 64 on five sentiment data sets. Rank 8 with a learning "
        "rate of 2e-4 is within one standard error of the best on all & a larger rank helps only "
        "where labels < 5% are noisy.");
    assert_int_equal(number_of(documents, 0, "year"), 2024);
    assert_string_equal(text_of(documents, 1, "id"), "cs/0205070");
    assert_string_equal(text_of(documents, 1, "text"),
                        "Short reviews are rated with three classifiers.");
    assert_string_equal(text_of(documents, 2, "title"), "$\\ell_2$ Penalties on Adapters");
    cJSON_Delete(documents);

    documents = read_golden_documents(source_arxiv_read, "arxiv/api/query.xml", 2);
    assert_int_equal(cJSON_GetArraySize(documents), 2);
    cJSON_Delete(documents);
    documents = read_golden_documents(source_arxiv_read, "arxiv/api/query_empty.xml", 25);
    assert_int_equal(cJSON_GetArraySize(documents), 0);
    cJSON_Delete(documents);
}

static void test_semantic_scholar(void **state)
{
    (void)state;
    cJSON *documents = read_golden_documents(source_semantic_scholar_read,
                                             "semantic_scholar/graph/v1/paper/search.json", 25);
    assert_int_equal(cJSON_GetArraySize(documents), 3);
    assert_string_equal(text_of(documents, 0, "id"), "0f1e2d3c4b5a69788796a5b4c3d2e1f001122334");
    assert_string_equal(
        text_of(documents, 0, "url"),
        "https://www.semanticscholar.org/paper/0f1e2d3c4b5a69788796a5b4c3d2e1f001122334");
    assert_string_equal(text_of(documents, 0, "licence"), "cc-by");
    assert_int_equal(number_of(documents, 0, "citations"), 57);
    assert_int_equal(number_of(documents, 0, "year"), 2023);
    assert_string_equal(text_of(documents, 1, "text"), "");
    assert_int_equal(number_of(documents, 1, "year"), -1);
    assert_string_equal(text_of(documents, 2, "licence"), "");
    cJSON_Delete(documents);
    documents = read_golden_documents(source_semantic_scholar_read,
                                      "semantic_scholar/graph/v1/paper/search_empty.json", 25);
    assert_int_equal(cJSON_GetArraySize(documents), 0);
    cJSON_Delete(documents);
}

static void test_openalex(void **state)
{
    (void)state;
    cJSON *documents = read_golden_documents(source_openalex_read, "openalex/works.json", 25);
    assert_int_equal(cJSON_GetArraySize(documents), 2);
    assert_string_equal(text_of(documents, 0, "id"), "W4391234567");
    assert_string_equal(text_of(documents, 0, "url"), "https://openalex.org/W4391234567");
    assert_string_equal(text_of(documents, 0, "text"),
                        "Near duplicates in the training set: the fewer duplicates "
                        "the\u2019better.");
    assert_string_equal(text_of(documents, 0, "licence"), "cc-by");
    assert_int_equal(number_of(documents, 1, "citations"), 1203);
    assert_string_equal(text_of(documents, 1, "text"), "");
    cJSON_Delete(documents);
    documents = read_golden_documents(source_openalex_read, "openalex/works_empty.json", 25);
    assert_int_equal(cJSON_GetArraySize(documents), 0);
    cJSON_Delete(documents);
}

static void test_hugging_face(void **state)
{
    (void)state;
    cJSON *documents =
        read_golden_documents(source_hf_papers_read, "hf/api/papers/search.json", 25);
    assert_int_equal(cJSON_GetArraySize(documents), 2);
    assert_string_equal(text_of(documents, 0, "url"), "https://huggingface.co/papers/2405.00001");
    assert_string_equal(text_of(documents, 0, "text"),
                        "Batches that go from short to long converge in fewer steps on three of "
                        "four tasks.");
    assert_int_equal(number_of(documents, 0, "votes"), 23);
    assert_int_equal(number_of(documents, 1, "year"), 2023);
    cJSON_Delete(documents);

    documents = read_golden_documents(source_hf_datasets_read, "hf/api/datasets.json", 25);
    assert_int_equal(cJSON_GetArraySize(documents), 3);
    assert_string_equal(text_of(documents, 0, "kind"), "data");
    assert_string_equal(text_of(documents, 0, "id"), "example-org/short-reviews");
    assert_string_equal(text_of(documents, 0, "licence"), "cc-by-4.0");
    assert_string_equal(text_of(documents, 0, "size"), "10K<n<100K");
    assert_int_equal(number_of(documents, 0, "downloads"), 48211);
    assert_string_equal(text_of(documents, 1, "licence"), "");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(cJSON_GetArrayItem(documents, 1), "gated")));
    assert_string_equal(text_of(documents, 2, "licence"), "mit and apache-2.0");
    cJSON_Delete(documents);
}

/* What record_sources fetched, in the folder that TREX_RECORDED names: each has documents. */
static void test_recorded(void **state)
{
    (void)state;
    static const struct {
        reader read;
        const char *name;
    } recorded[] = {
        {source_arxiv_read, "arxiv/api/query.xml"},
        {source_semantic_scholar_read, "semantic_scholar/graph/v1/paper/search.json"},
        {source_openalex_read, "openalex/works.json"},
        {source_hf_papers_read, "hf/api/papers/search.json"},
        {source_hf_datasets_read, "hf/api/datasets.json"},
    };
    const char *folder = getenv("TREX_RECORDED");
    if (folder == NULL) {
        skip();
    }
    for (int i = 0; i < 5; i++) {
        char path[FILE_PATH_BYTES];
        struct buffer body;
        struct error err = {0};
        buffer_init(&body, SOURCE_BODY_MAX_BYTES);
        assert_int_equal(file_join(folder, recorded[i].name, path, &err), STATUS_OK);
        if (file_read(path, &body, &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        cJSON *documents = read_documents(recorded[i].read, buffer_text(&body), 25);
        assert_true(cJSON_GetArraySize(documents) > 0);
        assert_true(text_of(documents, 0, "title")[0] != '\0');
        cJSON_Delete(documents);
        buffer_fini(&body);
    }
}

/* ---- hostile bodies ---- */

static const struct {
    reader read;
    const char *golden;
} readers[] = {
    {source_arxiv_read, "arxiv/api/query.xml"},
    {source_semantic_scholar_read, "semantic_scholar/graph/v1/paper/search.json"},
    {source_openalex_read, "openalex/works.json"},
    {source_hf_papers_read, "hf/api/papers/search.json"},
    {source_hf_datasets_read, "hf/api/datasets.json"},
};
enum { READER_COUNT = sizeof(readers) / sizeof(readers[0]) };

static void test_cut_bodies(void **state)
{
    (void)state;
    char message[960];
    for (int i = 0; i < READER_COUNT; i++) {
        char *body = read_golden(readers[i].golden);
        size_t end = strlen(body);
        while (body[end - 1] == '\n') {
            end--;
        }
        for (size_t length = 0; length < end; length++) {
            char *cut = strndup(body, length); /* so that a sanitizer sees each byte too many */
            assert_int_equal(read_status(readers[i].read, cut, message), STATUS_FORMAT);
            free(cut);
        }
        free(body);
    }
}

static void test_changed_bodies(void **state)
{
    (void)state;
    static const char bytes[] = {'\0' + 1, '"', '{', '<', '&', '\x80', '\xFF', '9'};
    char message[960];
    for (int i = 0; i < READER_COUNT; i++) {
        char *body = read_golden(readers[i].golden);
        for (size_t at = 0; body[at] != '\0'; at++) {
            char old = body[at];
            body[at] = bytes[at % sizeof(bytes)];
            read_status(readers[i].read, body, message); /* whatever it is, it ends */
            body[at] = old;
        }
        free(body);
    }
}

static void test_wrong_bodies(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "",
        " \n",
        "<!DOCTYPE html><html><body>Sign in to the guest network</body></html>",
        "<html><head></head><body>502 Bad Gateway</body></html>",
        "Service Unavailable",
        "null",
        "7",
        "\"text\"",
        "{\"error\": \"no\"}",
        "{\"data\": 7, \"results\": {}}",
        "{\"data\": null, \"results\": null}",
        "[",
    };
    char message[960];
    for (int i = 0; i < READER_COUNT; i++) {
        for (size_t k = 0; k < sizeof(bodies) / sizeof(bodies[0]); k++) {
            assert_int_equal(read_status(readers[i].read, bodies[k], message), STATUS_FORMAT);
            assert_true(message[0] != '\0');
        }
    }
    assert_int_equal(read_status(source_openalex_read, bodies[2], message), STATUS_FORMAT);
    assert_string_equal(message, "openalex sent a web page and not JSON");
}

/* Of the right shape, with wrong things in it: nothing comes of them, and nothing fails. */
static void test_wrong_types(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"total\": 9, \"data\": [7, null, [], {}, {\"paperId\": 7}, {\"paperId\": \"../x\"},"
        "{\"paperId\": \"ab\", \"title\": []}, {\"paperId\": \"ab\", \"title\": \"\"}],"
        "\"results\": [7, null, [], {}, {\"id\": 7}, {\"id\": \"https://openalex.org/../W1\"},"
        "{\"id\": \"W1\", \"display_name\": {}}, {\"id\": \"Wx\", \"display_name\": \"x\"}]}",
        "[7, null, [], {}, {\"id\": 7}, {\"id\": \"../../etc\", \"title\": \"x\"},"
        "{\"paper\": {\"id\": \"a/../b\", \"title\": \"x\"}}, {\"id\": \"/abs\"},"
        "{\"id\": \"a/b/c\"}, {\"id\": \"a b\"}, {\"id\": \"x\", \"disabled\": true}]",
    };
    static const reader json_readers[][2] = {
        {source_semantic_scholar_read, source_openalex_read},
        {source_hf_papers_read, source_hf_datasets_read},
    };
    for (int i = 0; i < 4; i++) {
        cJSON *documents = read_documents(json_readers[i / 2][i % 2], bodies[i / 2], 25);
        assert_int_equal(cJSON_GetArraySize(documents), 0);
        cJSON_Delete(documents);
    }
    cJSON *documents = read_documents(
        source_openalex_read,
        "{\"results\": [{\"id\": \"W1\", \"display_name\": \"x\", \"publication_year\": 1e300,"
        "\"cited_by_count\": -5, \"primary_location\": 3, \"abstract_inverted_index\":"
        "{\"a\": [1e99, -1, \"x\", null, 3999, 4000], \"b\": 7, \"c\": [0]}}]}",
        25);
    assert_string_equal(text_of(documents, 0, "text"), "c a");
    assert_int_equal(number_of(documents, 0, "citations"), -1);
    assert_int_equal(number_of(documents, 0, "year"), -1);
    cJSON_Delete(documents);
}

static void test_xml_bombs(void **state)
{
    (void)state;
    static const char feed[] = "<feed xmlns=\"http://www.w3.org/2005/Atom\">";
    char message[960];
    struct buffer body;
    buffer_init(&body, 32 << 20);
    buffer_append_text(&body, "<?xml version=\"1.0\"?><!DOCTYPE feed [<!ENTITY a \"aaaaaaaaaa\">");
    for (char c = 'b'; c <= 'k'; c++) {
        buffer_printf(&body, "<!ENTITY %c \"", c);
        for (int i = 0; i < 10; i++) {
            buffer_printf(&body, "&%c;", c - 1);
        }
        buffer_append_text(&body, "\">");
    }
    buffer_printf(&body, "]>%s<title>&k;</title></feed>", feed);
    assert_int_equal(read_status(source_arxiv_read, buffer_text(&body), message), STATUS_FORMAT);
    assert_non_null(strstr(message, "document type"));

    buffer_clear(&body);
    buffer_printf(&body, "<!DOCTYPE feed [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>%s&x;</feed>",
                  feed);
    assert_int_equal(read_status(source_arxiv_read, buffer_text(&body), message), STATUS_FORMAT);

    buffer_clear(&body);
    buffer_append_text(&body, feed);
    for (int i = 0; i < 100000; i++) {
        buffer_append_text(&body, "<a>");
    }
    assert_int_equal(read_status(source_arxiv_read, buffer_text(&body), message), STATUS_LIMIT);

    buffer_clear(&body); /* five thousand entries, with texts of a kilobyte: 25 are read */
    buffer_append_text(&body, feed);
    for (int i = 0; i < 5000; i++) {
        buffer_printf(&body,
                      "<entry><id>http://arxiv.org/abs/%d.1v1</id><title>T%d</title>"
                      "<summary>%01000d</summary></entry>",
                      i, i, i);
    }
    buffer_append_text(&body, "</feed>");
    cJSON *documents = read_documents(source_arxiv_read, buffer_text(&body), 25);
    assert_int_equal(cJSON_GetArraySize(documents), 25);
    cJSON_Delete(documents);

    buffer_clear(&body); /* one title of a megabyte */
    buffer_printf(&body,
                  "%s<entry><id>http://arxiv.org/abs/1.1v1</id><title>%01048576d</title>"
                  "</entry></feed>",
                  feed, 7);
    documents = read_documents(source_arxiv_read, buffer_text(&body), 25);
    assert_true(strlen(text_of(documents, 0, "title")) <= 300);
    cJSON_Delete(documents);
    buffer_fini(&body);
}

static void test_arxiv_says_no(void **state)
{
    (void)state;
    char message[960];
    char *body = read_golden("arxiv/api/query_error.xml");
    assert_int_equal(read_status(source_arxiv_read, body, message), STATUS_EXTERNAL);
    assert_int_equal(read_status(source_arxiv_read, "Rate exceeded.", message), STATUS_BUSY);
    assert_int_equal(read_status(source_arxiv_read, "<rss version=\"2.0\"/>", message),
                     STATUS_FORMAT);
    free(body);
}

static void test_deep_json(void **state)
{
    (void)state;
    char message[960];
    char body[4001];
    memset(body, '[', 4000);
    body[4000] = '\0';
    for (int i = 1; i < READER_COUNT; i++) {
        assert_int_equal(read_status(readers[i].read, body, message), STATUS_FORMAT);
    }
}

/* An answer is never longer than it may be: the last documents are left out. */
static void test_long_answers(void **state)
{
    (void)state;
    struct buffer body;
    buffer_init(&body, 8 << 20);
    buffer_append_text(&body, "[");
    for (int i = 0; i < 40; i++) {
        buffer_printf(&body, "%s{\"id\": \"p%d\", \"title\": \"t\", \"summary\": \"", i ? "," : "",
                      i);
        for (int k = 0; k < 20000; k++) {
            buffer_append_text(&body, "\\\\\\\""); /* each takes twice its bytes when printed */
        }
        buffer_append_text(&body, "\"}");
    }
    buffer_append_text(&body, "]");
    cJSON *documents = read_documents(source_hf_papers_read, buffer_text(&body), 25);
    struct error err;
    char *text = NULL;
    cJSON *json = NULL;
    assert_int_equal(source_print(documents, &text, &err), STATUS_OK);
    assert_true(strlen(text) < SOURCE_ANSWER_MAX_BYTES);
    assert_int_equal(json_parse(text, strlen(text), "answer", &json, &err), STATUS_OK);
    int kept = cJSON_GetArraySize(cJSON_GetObjectItem(json, "documents"));
    assert_true(kept > 10 && kept < 25);
    cJSON_Delete(json);
    free(text);
    cJSON_Delete(documents);
    buffer_fini(&body);
}

/* ---- texts ---- */

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

/* ---- questions and answers ---- */

enum { PATHS_MAX = 64 };

/* What a test's server does, and what it saw. */
struct world {
    char folder[64], cache[96], rows[96], base_url[64];
    struct server *server;
    struct http *http;
    struct source_options options;
    struct sources *sources;
    /* the script */
    int fail_code, fail_count; /* the first answers */
    double retry_after_s;
    bool web_page, empty_hub;
    int bad_offset; /* of rows: that page answers 400; -1: none */
    const char *licence_tag, *gated;
    /* what came */
    int count;
    char paths[PATHS_MAX][512];
    double times_s[PATHS_MAX];
    char headers[PATHS_MAX][1024];
};

static char *print_rows(const char *query)
{
    struct buffer body;
    int offset = 0;
    int length = 0;
    const char *at = strstr(query, "offset=");
    sscanf(at != NULL ? at : "", "offset=%d&length=%d", &offset, &length);
    buffer_init(&body, 1 << 20);
    buffer_append_text(&body, "{\"features\": [], \"rows\": [");
    for (int i = offset; i < offset + length && i < 250; i++) {
        buffer_printf(&body,
                      "%s{\"row_idx\": %d, \"row\": {\"sentence\": \"row %d\", \"label\": %d},"
                      "\"truncated_cells\": [%s]}",
                      i > offset ? "," : "", i, i, i % 2, i == 5 ? "\"sentence\"" : "");
    }
    buffer_append_text(&body, "], \"num_rows_total\": 250, \"num_rows_per_page\": 100}");
    return buffer_take(&body);
}

static char *print_set(const struct world *world)
{
    char *body = NULL;
    assert_true(asprintf(&body,
                         "{\"id\": \"example-org/short-reviews\", \"gated\": %s, \"tags\":"
                         "[\"region:us\"%s%s%s], \"description\": \"d\"}",
                         world->gated != NULL ? world->gated : "false",
                         world->licence_tag != NULL ? ", \"license:" : "",
                         world->licence_tag != NULL ? world->licence_tag : "",
                         world->licence_tag != NULL ? "\"" : "") > 0);
    return body;
}

/* The goldens lie where the services have them. */
static char *choose_body(const struct world *world, const struct server_request *request,
                         struct server_answer *answer)
{
    static const char *const ends[] = {"", ".json", ".xml"};
    char path[FILE_PATH_BYTES];
    if (strcmp(request->path, "/hf/api/datasets") == 0 && world->empty_hub) {
        return strdup("[]");
    }
    if (strcmp(request->path, "/hf/api/datasets/example-org/short-reviews") == 0) {
        return print_set(world);
    }
    if (strcmp(request->path, "/hf_rows/rows") == 0 && strstr(request->query, "length=5") == NULL) {
        return print_rows(request->query);
    }
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s%s", request->path + 1, ends[i]);
        char whole[FILE_PATH_BYTES];
        snprintf(whole, sizeof(whole), GOLDEN "%.2000s", path);
        if (file_exists(whole) && !file_is_folder(whole)) {
            return read_golden(path);
        }
    }
    answer->code = 404;
    return strdup("{\"error\": \"not found\"}");
}

static void answer_request(void *context, const struct server_request *request,
                           struct server_answer *answer)
{
    struct world *world = context;
    int index = world->count++;
    if (index < PATHS_MAX) {
        snprintf(world->paths[index], sizeof(world->paths[index]), "%s?%s", request->path,
                 request->query);
        snprintf(world->headers[index], sizeof(world->headers[index]), "%s", request->headers);
        world->times_s[index] = clock_monotonic_s();
    }
    char bad[32];
    snprintf(bad, sizeof(bad), "offset=%d&", world->bad_offset);
    if (index < world->fail_count || strstr(request->query, bad) != NULL) {
        answer->code = index < world->fail_count ? world->fail_code : 400;
        if (world->retry_after_s > 0) {
            snprintf(answer->headers, sizeof(answer->headers), "Retry-After: %.0f\r\n",
                     world->retry_after_s);
        }
        return;
    }
    if (world->web_page) {
        answer->content_type = "text/html";
        answer->body = strdup("<html>Please log in</html>");
        return;
    }
    answer->body = choose_body(world, request, answer);
}

static void open_sources(struct world *world)
{
    struct error err;
    assert_int_equal(http_create(&world->http, &err), STATUS_OK);
    assert_int_equal(sources_create(&world->options, world->http, &world->sources, &err),
                     STATUS_OK);
}

static void close_sources(struct world *world)
{
    sources_destroy(world->sources);
    http_destroy(world->http);
    world->sources = NULL;
    world->http = NULL;
}

static int setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    snprintf(world->folder, sizeof(world->folder), "/tmp/trex-test-sources-XXXXXX");
    if (mkdtemp(world->folder) == NULL) {
        return -1;
    }
    unsetenv("HF_TOKEN");
    unsetenv("S2_API_KEY");
    unsetenv("OPENALEX_API_KEY");
    setenv("no_proxy", "127.0.0.1", 1);
    world->bad_offset = -1;
    world->licence_tag = "cc-by-4.0";
    world->server = server_start(answer_request, world);
    snprintf(world->base_url, sizeof(world->base_url), "http://127.0.0.1:%d",
             server_port(world->server));
    snprintf(world->cache, sizeof(world->cache), "%s/cache", world->folder);
    snprintf(world->rows, sizeof(world->rows), "%s/rows", world->folder);
    world->options = (struct source_options){
        .cache_folder = world->cache,
        .cache_s = 3600,
        .download_folder = world->rows,
        .rows_max = 230,
        .base_url = world->base_url,
    };
    open_sources(world);
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    char command[128];
    close_sources(world);
    server_stop(world->server);
    snprintf(command, sizeof(command), "rm -rf '%s'", world->folder);
    int result = system(command);
    free(world);
    return result;
}

static int64_t ask(struct world *world, const char *question)
{
    struct error err = {0};
    int64_t id = 0;
    cJSON *json = cJSON_Parse(question);
    assert_non_null(json);
    enum status status = sources_ask(world->sources, json, &id, &err);
    cJSON_Delete(json);
    if (status != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return id;
}

static void wait_for(struct world *world, int64_t id, struct source_answer *answer)
{
    struct error err = {0};
    struct deadline deadline = deadline_after(120);
    while (true) {
        if (sources_turn(world->sources, &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        if (sources_take(world->sources, id, answer)) {
            return;
        }
        assert_false(deadline_passed(deadline));
        http_wait(world->http, 0.05);
    }
}

/* Documents of an answer that must be one. */
static cJSON *ask_documents(struct world *world, const char *question, bool *cached)
{
    struct source_answer answer;
    cJSON *json = NULL;
    wait_for(world, ask(world, question), &answer);
    if (answer.status != STATUS_OK) {
        fail_msg("%s", answer.error.message);
    }
    assert_int_equal(json_parse(answer.text, strlen(answer.text), "answer", &json, NULL),
                     STATUS_OK);
    if (cached != NULL) {
        *cached = answer.cached;
    }
    source_answer_fini(&answer);
    cJSON *documents = cJSON_DetachItemFromObject(json, "documents");
    cJSON_Delete(json);
    return documents;
}

static void expect_failure(struct world *world, const char *question, enum status expected,
                           const char *part)
{
    struct source_answer answer;
    wait_for(world, ask(world, question), &answer);
    assert_int_equal(answer.status, expected);
    assert_int_equal(answer.error.code, expected);
    assert_null(answer.text);
    if (strstr(answer.error.message, part) == NULL) {
        fail_msg("\"%s\" is not in \"%s\"", part, answer.error.message);
    }
    source_answer_fini(&answer);
}

#define SEARCH(source)                                                                             \
    "{\"do\": \"search\", \"source\": \"" source                                                   \
    "\", \"text\": \"low-rank \\\"sentiment\\\"\", \"count\": 2}"
#define SET(what)                                                                                  \
    "{\"do\": \"" what "\", \"source\": \"hf_datasets\", \"id\": \"example-org/short-reviews\"}"

static void test_searches(void **state)
{
    struct world *world = *state;
    static const char *const questions[] = {SEARCH("arxiv"), SEARCH("semantic_scholar"),
                                            SEARCH("openalex"), SEARCH("hf_papers"),
                                            SEARCH("hf_datasets")};
    for (int i = 0; i < 5; i++) {
        bool cached = true;
        cJSON *documents = ask_documents(world, questions[i], &cached);
        assert_false(cached);
        assert_int_equal(cJSON_GetArraySize(documents), 2);
        cJSON_Delete(documents);
    }
    assert_int_equal(world->count, 5);
    assert_non_null(strstr(world->paths[0], "search_query=all%3A%22low-rank%22%20AND%20all%3A%22"
                                            "sentiment%22&"));
    assert_non_null(strstr(world->paths[1], "query=low%20rank%20sentiment&limit=2"));
    assert_non_null(strstr(world->paths[2], "search=low-rank%20%22sentiment%22&per_page=2"));
    assert_non_null(strstr(world->paths[4], "search=low-rank%20sentiment&limit=2"));
    for (int i = 0; i < 5; i++) { /* again: from the cache, the same documents */
        bool cached = false;
        cJSON_Delete(ask_documents(world, questions[i], &cached));
        assert_true(cached);
    }
    assert_int_equal(world->count, 5);

    close_sources(world); /* and without a network */
    server_stop(world->server);
    world->server = NULL;
    world->options.offline = true;
    world->options.cache_s = 0;
    open_sources(world);
    for (int i = 0; i < 5; i++) {
        cJSON_Delete(ask_documents(world, questions[i], NULL));
    }
    expect_failure(world, "{\"do\": \"search\", \"source\": \"arxiv\", \"text\": \"else\"}",
                   STATUS_NOT_FOUND, "offline");
}

static void test_card(void **state)
{
    struct world *world = *state;
    cJSON *documents = ask_documents(world, SET("card"), NULL);
    const cJSON *document = cJSON_GetArrayItem(documents, 0);
    assert_string_equal(source_string(document, "title"), "Short Reviews");
    assert_string_equal(source_string(document, "licence"), "cc-by-4.0");
    assert_ptr_equal(strstr(source_string(document, "text"),
                            "# Dataset Card for short-reviews\n\n## Dataset Description\n\nTwelve"),
                     source_string(document, "text"));
    const cJSON *splits = cJSON_GetObjectItem(document, "splits");
    assert_int_equal(cJSON_GetArraySize(splits), 3);
    assert_string_equal(text_of(splits, 2, "split"), "train");
    assert_int_equal(number_of(splits, 2, "rows"), 3);
    const cJSON *columns = cJSON_GetObjectItem(document, "columns");
    assert_string_equal(text_of(columns, 1, "name"), "label");
    assert_int_equal(
        cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetArrayItem(columns, 1), "labels")), 2);
    const cJSON *samples = cJSON_GetObjectItem(document, "samples");
    assert_int_equal(cJSON_GetArraySize(samples), 3);
    assert_string_equal(text_of(samples, 2, "sentence"), "two hours\nof rain");
    assert_non_null(strstr(world->paths[3], "dataset=example-org%2Fshort-reviews&config=default&"
                                            "split=train&offset=0&length=5"));
    cJSON_Delete(documents);
}

static int count_lines(const char *path, char **text)
{
    struct buffer file;
    struct error err;
    int lines = 0;
    buffer_init(&file, 1 << 20);
    if (file_read(path, &file, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    for (size_t i = 0; i < file.len_bytes; i++) {
        lines += file.data[i] == '\n';
    }
    *text = buffer_take(&file);
    return lines;
}

static void test_download(void **state)
{
    struct world *world = *state;
    char *text = NULL;
    char hash[HASH_TEXT_BYTES];
    world->bad_offset = 200;
    expect_failure(world, SET("download"), STATUS_EXTERNAL, "400");
    assert_false(file_exists(world->rows)); /* all or nothing */
    int before = world->count;
    world->bad_offset = -1;
    cJSON *documents = ask_documents(world, SET("download"), NULL);
    assert_int_equal(world->count, before + 1); /* what came before was kept */
    const cJSON *document = cJSON_GetArrayItem(documents, 0);
    const char *path = source_string(document, "path");
    assert_int_equal(count_lines(path, &text), 230);
    assert_int_equal(number_of(documents, 0, "rows"), 230);
    assert_memory_equal(text, "{\"sentence\":\"row 0\",\"label\":0}\n", 31);
    assert_null(strstr(text, "\"row 5\"")); /* the server had cut it */
    assert_non_null(strstr(text, "\"row 230\""));
    assert_null(strstr(text, "\"row 231\""));
    hash_bytes(text, strlen(text), hash);
    assert_string_equal(source_string(document, "hash"), hash);
    assert_memory_equal(path, world->rows, strlen(world->rows));
    assert_null(strchr(path + strlen(world->rows) + 1, '/'));
    free(text);
    cJSON_Delete(documents);

    documents = ask_documents(world,
                              "{\"do\": \"download\", \"source\": \"hf_datasets\", \"id\":"
                              "\"example-org/short-reviews\", \"config\": \"../../../x\","
                              "\"split\": \"/etc/&offset=7\", \"rows\": 3}",
                              NULL);
    path = text_of(documents, 0, "path");
    assert_int_equal(count_lines(path, &text), 3);
    assert_memory_equal(path, world->rows, strlen(world->rows));
    assert_null(strchr(path + strlen(world->rows) + 1, '/'));
    assert_non_null(strstr(world->paths[world->count - 1],
                           "config=..%2F..%2F..%2Fx&split=%2Fetc%2F%26offset%3D7&offset=0"));
    free(text);
    cJSON_Delete(documents);
}

static void test_download_refused(void **state)
{
    struct world *world = *state;
    static const char *const mit[] = {"mit", NULL};
    world->options.cache_folder = NULL;
    world->licence_tag = "other";
    close_sources(world);
    open_sources(world);
    expect_failure(world, SET("download"), STATUS_PERMISSION, "no licence");
    world->licence_tag = "cc-by-4.0";
    world->gated = "\"manual\"";
    expect_failure(world, SET("download"), STATUS_PERMISSION, "HF_TOKEN");
    world->gated = NULL;
    world->options.licences = mit;
    close_sources(world);
    open_sources(world);
    expect_failure(world, SET("download"), STATUS_PERMISSION, "cc-by-4.0");
    assert_false(file_exists(world->rows));
    for (int i = 0; i < world->count; i++) {
        assert_null(strstr(world->paths[i], "hf_rows")); /* no row was even asked for */
    }
}

static void test_wrong_questions(void **state)
{
    struct world *world = *state;
    static const char *const questions[] = {
        "7",
        "{}",
        "{\"do\": \"search\", \"source\": \"arxiv\"}",
        "{\"do\": \"search\", \"source\": \"arxiv\", \"text\": \"\"}",
        "{\"do\": \"search\", \"source\": \"arxiv\", \"text\": \"x\", \"count\": 0}",
        "{\"do\": \"search\", \"source\": \"arxiv\", \"text\": \"x\", \"count\": 26}",
        "{\"do\": \"search\", \"source\": \"arxiv\", \"text\": \"x\", \"key\": \"y\"}",
        "{\"do\": \"search\", \"source\": \"google\", \"text\": \"x\"}",
        "{\"do\": \"find\", \"source\": \"arxiv\", \"text\": \"x\"}",
        "{\"do\": \"card\", \"source\": \"arxiv\", \"id\": \"x\"}",
        "{\"do\": \"download\", \"source\": \"openalex\", \"id\": \"x\"}",
        "{\"do\": \"card\", \"source\": \"hf_datasets\"}",
        "{\"do\": \"card\", \"source\": \"hf_datasets\", \"id\": \"../x\"}",
        "{\"do\": \"card\", \"source\": \"hf_datasets\", \"id\": \"a/b?x=\"}",
        "{\"do\": \"download\", \"source\": \"hf_datasets\", \"id\": \"a/b\", \"rows\": -1}",
        "{\"do\": \"download\", \"source\": \"hf_datasets\", \"id\": \"a/b\", \"split\": \"test\"}",
        "{\"do\": \"download\", \"source\": \"local\", \"id\": \"a\", \"split\": \"test_hard\"}",
    };
    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
        struct error err = {0};
        int64_t id = 0;
        cJSON *json = cJSON_Parse(questions[i]);
        assert_int_equal(sources_ask(world->sources, json, &id, &err), STATUS_INVALID);
        assert_true(err.message[0] != '\0');
        cJSON_Delete(json);
    }
    expect_failure(world, "{\"do\": \"search\", \"source\": \"arxiv\", \"text\": \"?!\"}",
                   STATUS_INVALID, "no words");
    assert_int_equal(world->count, 0);
}

static void test_tries(void **state)
{
    struct world *world = *state;
    world->fail_code = 503;
    world->fail_count = 2;
    struct source_answer answer;
    wait_for(world, ask(world, SEARCH("hf_papers")), &answer);
    assert_int_equal(answer.status, STATUS_OK);
    assert_int_equal(answer.attempts, 3);
    assert_true(strncmp(answer.host, "127.0.0.1:", 10) == 0);
    source_answer_fini(&answer);
    assert_true(world->times_s[1] - world->times_s[0] > 0.9);
    assert_true(world->times_s[2] - world->times_s[1] > 1.9);

    world->count = 0;
    world->fail_code = 429;
    world->fail_count = 1;
    world->retry_after_s = 3;
    wait_for(world, ask(world, SEARCH("openalex")), &answer);
    assert_int_equal(answer.status, STATUS_OK);
    assert_true(world->times_s[1] - world->times_s[0] > 2.9);
    source_answer_fini(&answer);

    world->count = 0;
    world->fail_code = 403; /* no second try */
    expect_failure(world, SEARCH("semantic_scholar"), STATUS_PERMISSION, "S2_API_KEY");
    assert_int_equal(world->count, 1);
    world->count = 0;
    world->fail_count = 0;
    world->web_page = true;
    expect_failure(world, SEARCH("semantic_scholar"), STATUS_FORMAT, "web page");
    world->web_page = false; /* it was not kept */
    cJSON_Delete(ask_documents(world, SEARCH("semantic_scholar"), NULL));
    expect_failure(world, "{\"do\": \"card\", \"source\": \"hf_datasets\", \"id\": \"a/none\"}",
                   STATUS_NOT_FOUND, "404");
}

/* Old answers are used where there is no new one. */
static void test_old_answers(void **state)
{
    struct world *world = *state;
    cJSON_Delete(ask_documents(world, SEARCH("hf_papers"), NULL));
    close_sources(world);
    world->options.cache_s = 0;
    open_sources(world);
    world->fail_code = 500;
    world->fail_count = 100;
    clock_sleep_s(1.1);
    cJSON_Delete(ask_documents(world, SEARCH("hf_papers"), NULL));
    assert_int_equal(world->count, 5);
}

static void test_rates(void **state)
{
    struct world *world = *state;
    struct source_answer answer;
    int64_t first = ask(world, SEARCH("arxiv"));
    int64_t second = ask(world, "{\"do\": \"search\", \"source\": \"arxiv\", \"text\": \"b\"}");
    int64_t third = ask(world, SEARCH("hf_papers"));
    wait_for(world, third, &answer); /* does not wait for arXiv */
    source_answer_fini(&answer);
    wait_for(world, first, &answer);
    source_answer_fini(&answer);
    wait_for(world, second, &answer);
    source_answer_fini(&answer);
    assert_int_equal(world->count, 3);
    double gap_s = 0;
    for (int i = 1; i < 3; i++) {
        if (strstr(world->paths[i], "%22b%22") != NULL) {
            gap_s = world->times_s[i] - world->times_s[0];
        }
    }
    assert_true(gap_s > 2.8);
}

static void test_fewer_words(void **state)
{
    struct world *world = *state;
    world->empty_hub = true;
    cJSON *documents = ask_documents(
        world, "{\"do\": \"search\", \"source\": \"hf_datasets\", \"text\": \"film review tone\"}",
        NULL);
    assert_int_equal(cJSON_GetArraySize(documents), 0);
    assert_int_equal(world->count, 3);
    assert_non_null(strstr(world->paths[0], "search=film%20review%20tone&"));
    assert_non_null(strstr(world->paths[1], "search=film%20review&"));
    assert_non_null(strstr(world->paths[2], "search=film&"));
    cJSON_Delete(documents);
}

/* A key is in the header or query of its own request, and nowhere else. */
static void test_keys(void **state)
{
    struct world *world = *state;
    char command[256];
    setenv("HF_TOKEN", "hf_CANARYcanary", 1);
    setenv("S2_API_KEY", "s2CANARYcanary", 1);
    setenv("OPENALEX_API_KEY", "oaCANARYcanary", 1);
    close_sources(world);
    open_sources(world);
    cJSON_Delete(ask_documents(world, SEARCH("hf_papers"), NULL));
    cJSON_Delete(ask_documents(world, SEARCH("semantic_scholar"), NULL));
    cJSON_Delete(ask_documents(world, SEARCH("openalex"), NULL));
    cJSON_Delete(ask_documents(world, SEARCH("arxiv"), NULL));
    assert_non_null(strstr(world->headers[0], "Bearer hf_CANARYcanary"));
    assert_non_null(strstr(world->headers[1], "x-api-key: s2CANARYcanary"));
    assert_non_null(strstr(world->paths[2], "api_key=oaCANARYcanary"));
    assert_null(strstr(world->headers[3], "CANARY"));
    assert_null(strstr(world->paths[3], "CANARY"));
    world->fail_code = 401;
    world->fail_count = 100;
    world->options.cache_folder = NULL;
    close_sources(world);
    open_sources(world);
    struct source_answer answer;
    wait_for(world, ask(world, SEARCH("openalex")), &answer);
    assert_int_equal(answer.status, STATUS_PERMISSION);
    assert_null(strstr(answer.error.message, "CANARY"));
    source_answer_fini(&answer);
    snprintf(command, sizeof(command), "grep -rq canary '%s'", world->folder);
    assert_int_not_equal(system(command), 0);

    struct sources *none = NULL;
    struct error err;
    setenv("HF_TOKEN", "two\nlines", 1);
    assert_int_equal(sources_create(&world->options, world->http, &none, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "HF_TOKEN"));
    assert_null(strstr(err.message, "two"));
}

static void test_damaged_cache(void **state)
{
    struct world *world = *state;
    char command[256];
    cJSON_Delete(ask_documents(world, SEARCH("hf_papers"), NULL));
    snprintf(command, sizeof(command),
             "for f in '%s'/hf/*; do sed -i s/Curricula/curricula/ $f; "
             "done",
             world->cache);
    assert_int_equal(system(command), 0);
    cJSON *documents = ask_documents(world, SEARCH("hf_papers"), NULL);
    assert_int_equal(world->count, 2);
    assert_memory_equal(text_of(documents, 0, "title"), "Curricula", 9);
    cJSON_Delete(documents);
    snprintf(command, sizeof(command), "for f in '%s'/hf/*; do : > $f; done", world->cache);
    assert_int_equal(system(command), 0);
    cJSON_Delete(ask_documents(world, SEARCH("hf_papers"), NULL));
    assert_int_equal(world->count, 3);
}

static void test_cancel(void **state)
{
    struct world *world = *state;
    struct error err;
    struct source_answer answer;
    int64_t id = ask(world, SEARCH("hf_papers"));
    assert_int_equal(sources_turn(world->sources, &err), STATUS_OK);
    assert_int_equal(sources_turn(world->sources, &err), STATUS_OK);
    sources_cancel(world->sources, id);
    assert_false(sources_take(world->sources, id, &answer));
    sources_cancel(world->sources, id);
    cJSON_Delete(ask_documents(world, SEARCH("hf_papers"), NULL)); /* the site is free again */
    ask(world, SEARCH("arxiv"));
    assert_int_equal(sources_turn(world->sources, &err), STATUS_OK); /* ended by the teardown */
}

/* ---- local folders ---- */

static void open_local(struct world *world, const char *const *folders, const char *const *licences)
{
    close_sources(world);
    world->options.folders = folders;
    world->options.licences = licences;
    world->options.offline = true;
    open_sources(world);
}

static void test_local(void **state)
{
    struct world *world = *state;
    static const char *const folders[] = {GOLDEN "local", NULL};
    open_local(world, folders, NULL);
    cJSON *documents = ask_documents(
        world, "{\"do\": \"search\", \"source\": \"local\", \"text\": \"Help DESK department\"}",
        NULL);
    assert_int_equal(cJSON_GetArraySize(documents), 2);
    assert_string_equal(text_of(documents, 0, "id"), "tickets");
    assert_string_equal(text_of(documents, 0, "licence"), "");
    assert_string_equal(text_of(documents, 0, "text"),
                        "Tickets of the help desk, sorted by department.");
    assert_string_equal(text_of(documents, 1, "title"), "House Reviews");
    cJSON_Delete(documents);

    documents = ask_documents(
        world, "{\"do\": \"card\", \"source\": \"local\", \"id\": \"reviews\"}", NULL);
    char *line = json_print_line(documents);
    assert_null(strstr(line, "this row is of a test split"));
    free(line);
    const cJSON *document = cJSON_GetArrayItem(documents, 0);
    assert_string_equal(source_string(document, "licence"), "apache-2.0");
    const cJSON *splits = cJSON_GetObjectItem(document, "splits");
    assert_string_equal(text_of(splits, 1, "split"), "train");
    assert_int_equal(number_of(splits, 1, "rows"), 3);
    assert_string_equal(text_of(cJSON_GetObjectItem(document, "samples"), 0, "sentence"),
                        "warm and quick");
    cJSON_Delete(documents);

    char hash[HASH_TEXT_BYTES];
    struct error err;
    documents = ask_documents(
        world, "{\"do\": \"download\", \"source\": \"local\", \"id\": \"reviews\"}", NULL);
    assert_string_equal(text_of(documents, 0, "path"), GOLDEN "local/reviews/train.jsonl");
    assert_int_equal(number_of(documents, 0, "rows"), 3);
    assert_int_equal(hash_file(GOLDEN "local/reviews/train.jsonl", hash, &err), STATUS_OK);
    assert_string_equal(text_of(documents, 0, "hash"), hash);
    cJSON_Delete(documents);
    expect_failure(world, "{\"do\": \"download\", \"source\": \"local\", \"id\": \"tickets\"}",
                   STATUS_PERMISSION, "tickets/README.md");
    expect_failure(world, "{\"do\": \"card\", \"source\": \"local\", \"id\": \"../local\"}",
                   STATUS_NOT_FOUND, "../local");
    expect_failure(world,
                   "{\"do\": \"download\", \"source\": \"local\", \"id\": \"reviews\","
                   "\"split\": \"../tickets/all\"}",
                   STATUS_NOT_FOUND, "no file");
    assert_int_equal(world->count, 0);
}

/* Folders that are not there, empty, or of one name. */
static void test_odd_folders(void **state)
{
    struct world *world = *state;
    static const char *const none[] = {"/nonexistent/folder", NULL};
    static const char *const twice[] = {GOLDEN "local/reviews/", GOLDEN "local/reviews", NULL};
    static const char *const mit[] = {"mit", NULL};
    open_local(world, none, NULL);
    cJSON *documents =
        ask_documents(world, "{\"do\": \"search\", \"source\": \"local\", \"text\": \"x\"}", NULL);
    assert_int_equal(cJSON_GetArraySize(documents), 0);
    cJSON_Delete(documents);
    open_local(world, twice, mit);
    documents =
        ask_documents(world, "{\"do\": \"search\", \"source\": \"local\", \"text\": \"x\"}", NULL);
    assert_string_equal(text_of(documents, 0, "id"), "reviews");
    assert_string_equal(text_of(documents, 1, "id"), "reviews-2");
    cJSON_Delete(documents);
    expect_failure(world, "{\"do\": \"download\", \"source\": \"local\", \"id\": \"reviews\"}",
                   STATUS_PERMISSION, "apache-2.0");
}

/* Each allocation fails in turn: the question fails, or is answered whole. */
static void test_no_memory(void **state)
{
    struct world *world = *state;
    static const char *const folders[] = {GOLDEN "local", NULL};
    static const char *const questions[] = {
        "{\"do\": \"search\", \"source\": \"local\", \"text\": \"review of a house\"}",
        "{\"do\": \"card\", \"source\": \"local\", \"id\": \"reviews\"}",
        "{\"do\": \"download\", \"source\": \"local\", \"id\": \"reviews\"}",
        SET("download"),
    };
    cJSON_Delete(ask_documents(world, SET("download"), NULL)); /* into the cache */
    open_local(world, folders, NULL);
    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
        int failed = 0;
        int64_t used = INT64_MAX - 1; /* of a whole run */
        for (int64_t n = 1; n <= used + 1; n++) {
            struct error err = {0};
            struct source_answer answer = {.status = STATUS_OK};
            int64_t id = 0;
            int64_t before = mem_allocation_count();
            cJSON *json = cJSON_Parse(questions[i]);
            mem_fail_nth(n);
            enum status status = sources_ask(world->sources, json, &id, &err);
            if (status == STATUS_OK) {
                wait_for(world, id, &answer);
                status = answer.status;
            }
            mem_fail_nth(0);
            if (status == STATUS_OK) {
                assert_non_null(answer.text);
                used = mem_allocation_count() - before;
            } else { /* a cache that cannot be read is no cache */
                if (status != STATUS_NO_MEMORY && status != STATUS_NOT_FOUND) {
                    fail_msg("question %zu, allocation %lld: %s %s", i, (long long)n, err.message,
                             answer.error.message);
                }
                failed++;
            }
            source_answer_fini(&answer);
            cJSON_Delete(json);
        }
        assert_true(failed > 3);
    }
}

static void test_list(void **state)
{
    (void)state;
    static const char *const names[] = {"arxiv",     "semantic_scholar", "openalex",
                                        "hf_papers", "hf_datasets",      "local"};
    const struct source_info *list = source_list();
    for (int i = 0; i < 6; i++) {
        assert_string_equal(list[i].name, names[i]);
        assert_int_equal(list[i].kind, i < 4 ? SOURCE_LITERATURE : SOURCE_DATA);
        assert_int_equal(list[i].network, i < 5);
    }
    assert_null(list[6].name);
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_arxiv),
        cmocka_unit_test(test_semantic_scholar),
        cmocka_unit_test(test_openalex),
        cmocka_unit_test(test_hugging_face),
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_cut_bodies),
        cmocka_unit_test(test_changed_bodies),
        cmocka_unit_test(test_wrong_bodies),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_xml_bombs),
        cmocka_unit_test(test_arxiv_says_no),
        cmocka_unit_test(test_deep_json),
        cmocka_unit_test(test_long_answers),
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_licences),
        cmocka_unit_test(test_cards),
        WORLD(test_searches),
        WORLD(test_card),
        WORLD(test_download),
        WORLD(test_download_refused),
        WORLD(test_wrong_questions),
        WORLD(test_tries),
        WORLD(test_old_answers),
        WORLD(test_rates),
        WORLD(test_fewer_words),
        WORLD(test_keys),
        WORLD(test_damaged_cache),
        WORLD(test_cancel),
        WORLD(test_local),
        WORLD(test_odd_folders),
        WORLD(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
