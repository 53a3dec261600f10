/* Bodies of services to documents: goldens of our own, and what hostile services send. What real
 * ones sent: test_source_recorded.c. */
#include "net/source_fixture.h"

typedef enum status (*reader)(const char *body, size_t len_bytes, int count, cJSON *documents,
                              struct error *err);

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
    assert_int_equal(read_status(source_arxiv_read, "Rate exceeded.", message), STATUS_BUSY);
    assert_int_equal(read_status(source_arxiv_read, "<rss version=\"2.0\"/>", message),
                     STATUS_FORMAT);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arxiv),        cmocka_unit_test(test_semantic_scholar),
        cmocka_unit_test(test_openalex),     cmocka_unit_test(test_hugging_face),
        cmocka_unit_test(test_cut_bodies),   cmocka_unit_test(test_changed_bodies),
        cmocka_unit_test(test_wrong_bodies), cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_xml_bombs),    cmocka_unit_test(test_arxiv_says_no),
        cmocka_unit_test(test_deep_json),    cmocka_unit_test(test_long_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
