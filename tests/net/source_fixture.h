/* Sources and a scripted server in place of the services: what each test of net/source.h begins
 * with. */
#ifndef TESTS_NET_SOURCE_FIXTURE_H
#define TESTS_NET_SOURCE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "net/server.h"
#include "net/source_service.h"

#define GOLDEN TEST_SOURCE_DIR "/net/golden/"

/* ---- goldens ---- */

static inline char *read_golden(const char *name)
{
    char path[FILE_PATH_BYTES];
    struct buffer text;
    struct error err;
    buffer_init(&text, 1 << 20);
    snprintf(path, sizeof(path), GOLDEN "%.2000s", name);
    if (file_read(path, &text, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return buffer_take(&text);
}

static inline const char *text_of(const cJSON *documents, int index, const char *key)
{
    return source_string(cJSON_GetArrayItem(documents, index), key);
}

static inline int number_of(const cJSON *documents, int index, const char *key)
{
    return (int)source_integer(cJSON_GetArrayItem(documents, index), key, -1);
}

/* ---- a server, and what it saw ---- */

enum { PATHS_MAX = 64, HASTE = 20 /* rates and pauses are so much shorter */ };

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
    bool moved;     /* the hub has another name for the data set, and its card in another place */
    int bad_offset; /* of rows: that page answers 400; -1: none */
    const char *licence_tag, *gated;
    const char *echo; /* stands in an answer; NULL: nothing does */
    /* what came */
    int count;
    char paths[PATHS_MAX][512];
    double times_s[PATHS_MAX];
    char headers[PATHS_MAX][1024];
};

static inline char *print_rows(const char *query)
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

static inline char *print_set(const struct world *world)
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
static inline char *choose_body(const struct world *world, const struct server_request *request,
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
    static const char *const moves[][2] = {
        {"/hf/api/datasets/short-reviews", "/hf/api/datasets/example-org/short-reviews"},
        {"/hf/datasets/example-org/short-reviews/resolve/main/README.md", "/hf/api/card"},
    };
    for (int i = 0; i < 2 && world->moved; i++) {
        if (strcmp(request->path, moves[i][0]) == 0) {
            answer->code = 307;
            snprintf(answer->headers, sizeof(answer->headers), "Location: %s\r\n", moves[i][1]);
            return strdup("Temporary Redirect");
        }
    }
    if (strcmp(request->path, "/hf/api/card") == 0) {
        return read_golden(moves[1][0] + 1);
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

static inline void answer_request(void *context, const struct server_request *request,
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
    if (world->echo != NULL) { /* as a part of a text of the golden */
        char *place = strstr(answer->body, "Labels Does Sentiment");
        assert_non_null(place);
        memcpy(place, world->echo, strlen(world->echo));
    }
}

static inline void open_sources(struct world *world)
{
    struct error err;
    assert_int_equal(http_create(&world->http, &err), STATUS_OK);
    assert_int_equal(sources_create(&world->options, world->http, &world->sources, &err),
                     STATUS_OK);
}

static inline void close_sources(struct world *world)
{
    sources_destroy(world->sources);
    http_destroy(world->http);
    world->sources = NULL;
    world->http = NULL;
}

static inline int setup(void **state)
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
        .haste = HASTE,
    };
    open_sources(world);
    *state = world;
    return 0;
}

static inline int teardown(void **state)
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

static inline int64_t ask(struct world *world, const char *question)
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

static inline void wait_for(struct world *world, int64_t id, struct source_answer *answer)
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
static inline cJSON *ask_documents(struct world *world, const char *question, bool *cached)
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

static inline void expect_failure(struct world *world, const char *question, enum status expected,
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

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
