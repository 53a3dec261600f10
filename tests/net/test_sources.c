/* Papers and data sets over HTTP: cache, rates, tries, downloads, keys. */
#include "net/source_fixture.h"

#include "base/hash.h"

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
    const cJSON *parts = cJSON_GetArrayItem(columns, 3);
    assert_string_equal(source_string(parts, "type"), "List");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(parts, "labels")), 2);
    const cJSON *samples = cJSON_GetObjectItem(document, "samples");
    assert_int_equal(cJSON_GetArraySize(samples), 3);
    assert_string_equal(text_of(samples, 2, "sentence"), "two hours\nof rain");
    assert_non_null(strstr(world->paths[3], "dataset=example-org%2Fshort-reviews&config=default&"
                                            "split=train&offset=0&length=5"));
    cJSON_Delete(documents);
}

/* The datasets server would not know the old name. */
static void test_a_set_that_moved(void **state)
{
    struct world *world = *state;
    world->moved = true;
    world->options.cache_folder = NULL;
    for (int with_key = 0; with_key < 2; with_key++) {
        if (with_key == 1) {
            setenv("HF_TOKEN", "hf_hunter2", 1);
        }
        close_sources(world);
        open_sources(world);
        world->count = 0;
        cJSON *documents = ask_documents(
            world, "{\"do\": \"card\", \"source\": \"hf_datasets\", \"id\": \"short-reviews\"}",
            NULL);
        assert_string_equal(text_of(documents, 0, "id"), "example-org/short-reviews");
        assert_string_equal(text_of(documents, 0, "title"), "Short Reviews");
        assert_int_equal(world->count, 6);
        assert_non_null(strstr(world->paths[4], "/size?dataset=example-org%2Fshort-reviews"));
        assert_non_null(strstr(world->paths[5], "/rows?dataset=example-org%2Fshort-reviews"));
        assert_int_equal(strstr(world->headers[3], "hf_hunter2") != NULL, with_key);
        cJSON_Delete(documents);
    }
    unsetenv("HF_TOKEN");
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
    assert_true(world->times_s[1] - world->times_s[0] > 0.9 / HASTE);
    assert_true(world->times_s[2] - world->times_s[1] > 1.9 / HASTE);

    world->count = 0;
    world->fail_code = 429;
    world->fail_count = 1;
    world->retry_after_s = 3;
    wait_for(world, ask(world, SEARCH("openalex")), &answer);
    assert_int_equal(answer.status, STATUS_OK);
    assert_true(world->times_s[1] - world->times_s[0] > 2.9 / HASTE);
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
    world->options.cache_s = -1; /* the one of just now is old, too */
    open_sources(world);
    world->fail_code = 500;
    world->fail_count = 100;
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
    assert_true(gap_s > 2.8 / HASTE);
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
    world->fail_count = 0;
    world->options.cache_folder = world->cache;
    close_sources(world);
    open_sources(world);
    world->echo = "s2CANARYcanary"; /* a service that sends back what it was sent */
    const char *other =
        "{\"do\": \"search\", \"source\": \"semantic_scholar\", \"text\": \"other\"}";
    wait_for(world, ask(world, other), &answer);
    assert_int_equal(answer.status, STATUS_OK);
    assert_null(strstr(answer.text, "CANARY"));
    assert_non_null(strstr(answer.text, "**************"));
    source_answer_fini(&answer);
    world->echo = NULL;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        WITH_WORLD(test_searches),
        WITH_WORLD(test_card),
        WITH_WORLD(test_a_set_that_moved),
        WITH_WORLD(test_download),
        WITH_WORLD(test_download_refused),
        WITH_WORLD(test_wrong_questions),
        WITH_WORLD(test_tries),
        WITH_WORLD(test_old_answers),
        WITH_WORLD(test_rates),
        WITH_WORLD(test_fewer_words),
        WITH_WORLD(test_keys),
        WITH_WORLD(test_damaged_cache),
        WITH_WORLD(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
