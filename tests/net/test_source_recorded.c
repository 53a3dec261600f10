/* What the services really sent (golden/README.md), against what another program read from it
 * (golden/documents.py); whole, cut and damaged. TREX_RECORDED names another folder that
 * golden/mask made. */
#include "net/source_fixture.h"
#include "net/source_hf.h"

static char *read_recorded(const char *place)
{
    const char *folder = getenv("TREX_RECORDED");
    char path[FILE_PATH_BYTES];
    struct buffer body;
    struct error err = {0};
    if (folder == NULL || folder[0] == '\0') {
        folder = GOLDEN "recorded";
    }
    buffer_init(&body, SOURCE_BODY_MAX_BYTES);
    if (file_join(folder, place, path, &err) != STATUS_OK ||
        file_read(path, &body, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return buffer_take(&body);
}

static bool begins(const char *text, const char *front)
{
    return strncmp(text, front, strlen(front)) == 0;
}

/* ---- one answer, by the reader of its place ---- */

/* The hub's answer about one data set. */
static enum status read_set(const char *body, size_t len_bytes, int count, cJSON *documents,
                            struct error *err)
{
    struct source_work work = {.documents = documents};
    cJSON *document = NULL;
    (void)count;
    enum status status = source_hf_read_set(&work, body, len_bytes, &document, err);
    if (status == STATUS_OK) {
        assert_string_equal(work.question.id, source_string(document, "id"));
    }
    free(work.question.id);
    return status;
}

/* A card, which is read from any bytes. */
static enum status read_card(const char *body, size_t len_bytes, int count, cJSON *documents,
                             struct error *err)
{
    struct source_card card;
    struct buffer text;
    (void)len_bytes, (void)count, (void)err;
    source_read_card(body, &card);
    buffer_init(&text, SOURCE_CARD_BYTES + 1);
    source_clean(card.text, true, SOURCE_CARD_BYTES, &text);
    assert_false(text.failed);
    cJSON *document = cJSON_CreateObject();
    cJSON_AddStringToObject(document, "title", card.title);
    cJSON_AddStringToObject(document, "licence", card.licence);
    cJSON_AddStringToObject(document, "text", buffer_text(&text));
    cJSON_AddItemToArray(documents, document);
    buffer_fini(&text);
    return STATUS_OK;
}

/* The splits of a data set, and which of them would be taken. */
static enum status read_size(const char *body, size_t len_bytes, int count, cJSON *documents,
                             struct error *err)
{
    char none[] = "";
    struct source_work work = {.question = {.config = none, .split = none}};
    struct source_hf_split split;
    cJSON *document = cJSON_CreateObject();
    (void)count;
    cJSON_AddItemToArray(documents, document);
    enum status status = source_hf_read_size(&work, body, len_bytes, document, &split, err);
    if (status == STATUS_OK) {
        cJSON_AddStringToObject(document, "config", split.config);
        cJSON_AddStringToObject(document, "split", split.split);
    }
    return status;
}

static const struct place {
    const char *front;
    enum status (*read)(const char *body, size_t len_bytes, int count, cJSON *documents,
                        struct error *err);
    enum status cut; /* what an answer is that ends too early */
} places[] = {
    {"arxiv/api/query_error", source_arxiv_read, STATUS_FORMAT},
    {"arxiv/", source_arxiv_read, STATUS_FORMAT},
    {"semantic_scholar/", source_semantic_scholar_read, STATUS_FORMAT},
    {"openalex/", source_openalex_read, STATUS_FORMAT},
    {"hf/api/papers/", source_hf_papers_read, STATUS_FORMAT},
    {"hf/api/datasets/", read_set, STATUS_FORMAT},
    {"hf/api/datasets", source_hf_datasets_read, STATUS_FORMAT},
    {"hf/datasets/", read_card, STATUS_OK},
    {"hf_rows/size", read_size, STATUS_FORMAT},
};

static const struct place *find_place(const char *name)
{
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (begins(name, places[i].front)) {
            return &places[i];
        }
    }
    fail_msg("nothing reads %s", name);
    return NULL;
}

static enum status read_status(const struct place *place, const char *body)
{
    struct error err = {.message = ""};
    cJSON *documents = cJSON_CreateArray();
    enum status status = place->read(body, strlen(body), SOURCE_DOCUMENTS_MAX, documents, &err);
    assert_true(cJSON_GetArraySize(documents) <= SOURCE_DOCUMENTS_MAX);
    assert_true(status == STATUS_OK || err.message[0] != '\0');
    cJSON_Delete(documents);
    return status;
}

/* ---- all of them ---- */

static cJSON *read_expected(void)
{
    char *text = read_recorded("documents.json");
    cJSON *expected = cJSON_Parse(text);
    assert_true(cJSON_GetArraySize(expected) > 0);
    free(text);
    return expected;
}

/* Fails with the first field that is not the same. */
static void compare_document(const char *place, const cJSON *expected, const cJSON *found)
{
    const cJSON *field = NULL;
    cJSON_ArrayForEach (field, expected) {
        const cJSON *other = cJSON_GetObjectItemCaseSensitive(found, field->string);
        if (!cJSON_Compare(field, other, true)) {
            char *one = cJSON_PrintUnformatted(field);
            char *two = other != NULL ? cJSON_PrintUnformatted(other) : strdup("none");
            size_t same = 0;
            while (one[same] != '\0' && one[same] == two[same]) {
                same++;
            }
            fail_msg("%s, %s of %s, from byte %zu: expected %.200s, found %.200s", place,
                     field->string, source_string(expected, "id"), same, one + same, two + same);
        }
    }
    if (cJSON_GetArraySize(found) != cJSON_GetArraySize(expected)) {
        fail_msg("%s: %s has a field too many", place, source_string(expected, "id"));
    }
}

static void compare(const char *place, const cJSON *expected, const cJSON *found)
{
    const cJSON *document = NULL;
    int index = 0;
    cJSON_ArrayForEach (document, expected) {
        compare_document(place, document, cJSON_GetArrayItem(found, index++));
    }
    assert_int_equal(cJSON_GetArraySize(found), index);
}

static void test_documents(void **state)
{
    (void)state;
    cJSON *expected = read_expected();
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, expected) {
        const struct place *place = find_place(item->string);
        char *body = read_recorded(item->string);
        struct error err = {.message = ""};
        cJSON *documents = cJSON_CreateArray();
        enum status status = place->read(body, strlen(body), SOURCE_DOCUMENTS_MAX, documents, &err);
        if (place == &places[0]) { /* a mistake that came as a hit */
            assert_int_equal(status, STATUS_EXTERNAL);
        } else if (status != STATUS_OK) {
            fail_msg("%s: %s", item->string, err.message);
        }
        compare(item->string, item, documents);
        cJSON_Delete(documents);
        free(body);
    }
    cJSON_Delete(expected);
}

/* As many as are asked for, and in the service's order. */
static void test_count(void **state)
{
    (void)state;
    cJSON *expected = read_expected();
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, expected) {
        const struct place *place = find_place(item->string);
        if (cJSON_GetArraySize(item) < 2) {
            continue;
        }
        char *body = read_recorded(item->string);
        cJSON *documents = cJSON_CreateArray();
        assert_int_equal(place->read(body, strlen(body), 1, documents, NULL), STATUS_OK);
        assert_int_equal(cJSON_GetArraySize(documents), 1);
        compare_document(item->string, item->child, documents->child);
        cJSON_Delete(documents);
        free(body);
    }
    cJSON_Delete(expected);
}

/* Cut after each byte: no answer, but for a card, of which each front is one. */
static void test_cut(void **state)
{
    (void)state;
    cJSON *expected = read_expected();
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, expected) {
        const struct place *place = find_place(item->string);
        char *body = read_recorded(item->string);
        size_t end = strlen(body);
        while (end > 0 && strchr(" \r\n", body[end - 1]) != NULL) {
            end--;
        }
        for (size_t length = 0; length < end; length++) {
            char *cut = strndup(body, length); /* so that a sanitizer sees each byte too many */
            enum status status = read_status(place, cut);
            free(cut);
            /* the mistake may be read before the end is missed */
            if (status != place->cut && !(place == &places[0] && status == STATUS_EXTERNAL)) {
                fail_msg("%s cut after %zu bytes: %s", item->string, length, status_name(status));
            }
        }
        free(body);
    }
    cJSON_Delete(expected);
}

/* Each byte with one bit turned round: whatever it is then, it ends, as documents or as a mistake
 * of the service's. */
static void test_flipped(void **state)
{
    (void)state;
    cJSON *expected = read_expected();
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, expected) {
        const struct place *place = find_place(item->string);
        char *body = read_recorded(item->string);
        size_t end = strlen(body);
        for (size_t at = 0; at < end; at++) {
            char old = body[at];
            body[at] = (char)(old ^ (1 << at % 8));
            enum status status = read_status(place, body);
            body[at] = old;
            if (status != STATUS_OK && status != STATUS_FORMAT && status != STATUS_EXTERNAL) {
                fail_msg("%s with byte %zu changed: %s", item->string, at, status_name(status));
            }
        }
        free(body);
    }
    cJSON_Delete(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_count),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_flipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
