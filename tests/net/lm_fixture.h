/* Questions to scripted endpoints: what each test of net/lm.h begins with. */
#ifndef TESTS_NET_LM_FIXTURE_H
#define TESTS_NET_LM_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/lm.h"
#include "net/server.h"
#include "net/wire.h"

enum { STEPS_MAX = 16 };

/* What the n-th request gets; the last step stays. */
struct step {
    struct wire wire;            /* its text NULL: the rest says it all */
    struct server_answer answer; /* laid over it; its body is `body`, copied */
    const char *body;
};

struct site {
    struct server *server;
    struct step steps[STEPS_MAX];
    int step_count;
    double times_s[STEPS_MAX]; /* of the requests */
    char path[256], query[256], authorization[256], api_key[256], google_key[256], azure_key[256],
        version[64];
    char *bodies[STEPS_MAX];
    char url[128];
    int64_t count;
};

struct lm_fixture {
    struct http *http;
    struct lm *lm;
    struct site sites[2];
    struct lm_options options;
    cJSON *messages, *schema;
    struct lm_question question;
    FILE *log_file;
    char *log_text;
    size_t log_bytes;
    struct log log;
};

#define CANARY "sk-canary-4b1d9e7f2a6c8035"

static inline void lm_fixture_handle(void *context, const struct server_request *request,
                                     struct server_answer *answer)
{
    struct site *site = context;
    int last = site->step_count - 1;
    int index = site->count < last ? (int)site->count : last;
    const struct step *step = &site->steps[index];
    if (site->count < STEPS_MAX) {
        site->times_s[site->count] = clock_monotonic_s();
        site->bodies[site->count] = mem_strdup(request->body);
    }
    site->count++;
    snprintf(site->path, sizeof(site->path), "%s", request->path);
    snprintf(site->query, sizeof(site->query), "%s", request->query);
    server_header(request, "Authorization", site->authorization, sizeof(site->authorization));
    server_header(request, "x-api-key", site->api_key, sizeof(site->api_key));
    server_header(request, "x-goog-api-key", site->google_key, sizeof(site->google_key));
    server_header(request, "api-key", site->azure_key, sizeof(site->azure_key));
    server_header(request, "anthropic-version", site->version, sizeof(site->version));
    if (step->wire.text == NULL) {
        *answer = step->answer;
        answer->body = step->body != NULL ? mem_strdup(step->body) : NULL;
        return;
    }
    wire_answer(&step->wire, answer);
    answer->delay_s = step->answer.delay_s;
    answer->cut = step->answer.cut;
    answer->stall = step->answer.stall;
    answer->end_bytes = step->answer.end_bytes;
    answer->bad_chunks = step->answer.bad_chunks;
    memcpy(answer->headers, step->answer.headers, sizeof(answer->headers));
}

static inline int lm_fixture_set_up(void **state)
{
    struct lm_fixture *fixture = mem_calloc(1, sizeof(*fixture));
    struct error err = {0};
    setenv("LM_TEST_KEY", CANARY, 1);
    unsetenv("http_proxy");
    assert_int_equal(http_create(&fixture->http, &err), STATUS_OK);
    fixture->log_file = open_memstream(&fixture->log_text, &fixture->log_bytes);
    log_init(&fixture->log, fixture->log_file, -1, LOG_DEBUG);
    fixture->options = (struct lm_options){
        .concurrency = 4,
        .tries = 4,
        .connect_s = 60,
        .stall_s = 60,
        .total_s = 120,
        .pause_s = 0.01,
        .pause_max_s = 0.05,
        .log = &fixture->log,
    };
    for (int i = 0; i < 2; i++) {
        struct site *site = &fixture->sites[i];
        site->server = server_start(lm_fixture_handle, site);
        assert_non_null(site->server);
        snprintf(site->url, sizeof(site->url), "http://127.0.0.1:%d/v1", server_port(site->server));
        site->steps[0].wire = (struct wire){.text = "fine", .tokens_in = 100, .tokens_out = 10};
        site->step_count = 1;
        fixture->options.endpoints[i] = (struct lm_endpoint){
            .provider = "openai",
            .model = i == 0 ? "first" : "second",
            .url = site->url,
            .key_env = "LM_TEST_KEY",
            .structured = true,
            .input_usd = 2,
            .output_usd = 8,
        };
    }
    fixture->options.endpoint_count = 1;
    fixture->messages = cJSON_Parse("[{\"role\": \"system\", \"content\": \"You plan.\"},"
                                    " {\"role\": \"user\", \"content\": \"Plan.\"}]");
    fixture->schema = cJSON_Parse("{\"type\": \"object\", \"properties\": {\"goal\": {\"type\": "
                                  "\"string\", \"maxLength\": 200}},"
                                  " \"required\": [\"goal\"], \"additionalProperties\": false}");
    fixture->question = (struct lm_question){
        .messages = fixture->messages,
        .schema = fixture->schema,
        .schema_name = "plan",
        .max_tokens = 500,
        .temperature = 0.5,
        .seed = 7,
    };
    *state = fixture;
    return 0;
}

static inline int lm_fixture_tear_down(void **state)
{
    struct lm_fixture *fixture = *state;
    lm_destroy(fixture->lm);
    http_destroy(fixture->http);
    for (int i = 0; i < 2; i++) {
        server_stop(fixture->sites[i].server);
        for (int k = 0; k < STEPS_MAX; k++) {
            free(fixture->sites[i].bodies[k]);
        }
    }
    fclose(fixture->log_file);
    free(fixture->log_text);
    cJSON_Delete(fixture->messages);
    cJSON_Delete(fixture->schema);
    free(fixture);
    return 0;
}

static inline void lm_fixture_open(struct lm_fixture *fixture)
{
    struct error err = {0};
    if (lm_create(&fixture->options, fixture->http, &fixture->lm, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static inline int64_t lm_fixture_start(struct lm_fixture *fixture)
{
    int64_t id = 0;
    struct error err = {0};
    if (fixture->lm == NULL) {
        lm_fixture_open(fixture);
    }
    if (lm_ask(fixture->lm, &fixture->question, &id, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return id;
}

static inline struct lm_answer lm_fixture_wait(struct lm_fixture *fixture, int64_t id)
{
    struct lm_answer answer;
    struct error err = {0};
    double end_s = clock_monotonic_s() + 240;
    while (!lm_take(fixture->lm, id, &answer)) {
        assert_true(clock_monotonic_s() < end_s);
        assert_int_equal(lm_turn(fixture->lm, &err), STATUS_OK);
        http_wait(fixture->http, 0.01);
    }
    return answer;
}

/* The key has not come out anywhere, nor a longer part of it. */
static inline void lm_fixture_check_secret(struct lm_fixture *fixture,
                                           const struct lm_answer *answer)
{
    static const char part[] = "canary-4b1d";
    fflush(fixture->log_file);
    assert_null(strstr(answer->error.message, part));
    assert_null(strstr(answer->model, part));
    assert_null(strstr(fixture->log_text, part));
    assert_true(answer->text == NULL || strstr(answer->text, part) == NULL);
}

static inline struct lm_answer lm_fixture_ask(struct lm_fixture *fixture)
{
    struct lm_answer answer = lm_fixture_wait(fixture, lm_fixture_start(fixture));
    assert_int_equal(answer.status, answer.error.code);
    assert_true((answer.status == STATUS_OK) == (answer.text != NULL));
    lm_fixture_check_secret(fixture, &answer);
    return answer;
}

/* ---- what is expected ---- */

/* (CMocka's own is of float.) */
static inline void lm_fixture_near(double value, double expected)
{
    assert_true(fabs(value - expected) <= 1e-12);
}

static inline void lm_fixture_check(const struct lm_answer *answer, enum status status,
                                    int attempts, const char *words)
{
    const char *text = answer->status == STATUS_OK ? answer->text : answer->error.message;
    if (answer->status != status || answer->attempts != attempts || strstr(text, words) == NULL) {
        fail_msg("%s after %d attempts: \"%.300s\", not %s after %d with \"%s\"",
                 status_name(answer->status), answer->attempts, text, status_name(status), attempts,
                 words);
    }
}

/* Asks once, and expects this. */
static inline void lm_fixture_expect(struct lm_fixture *fixture, enum status status, int attempts,
                                     const char *words)
{
    struct lm_answer answer = lm_fixture_ask(fixture);
    lm_fixture_check(&answer, status, attempts, words);
    lm_answer_fini(&answer);
}

/* The first request of a site gets this, the others what it had. */
static inline struct step *lm_fixture_fail_first(struct site *site)
{
    site->steps[1] = site->steps[0];
    site->step_count = 2;
    memset(&site->steps[0], 0, sizeof(site->steps[0]));
    return &site->steps[0];
}

static inline void lm_fixture_restart(struct lm_fixture *fixture)
{
    lm_destroy(fixture->lm);
    fixture->lm = NULL;
    for (int i = 0; i < 2; i++) {
        struct site *site = &fixture->sites[i];
        (void)server_count(site->server); /* its lock: what a stalled request wrote is seen */
        memset(site->steps, 0, sizeof(site->steps));
        site->steps[0].wire = (struct wire){.text = "fine", .tokens_in = 100, .tokens_out = 10};
        site->step_count = 1;
        site->count = 0;
        for (int k = 0; k < STEPS_MAX; k++) {
            free(site->bodies[k]);
            site->bodies[k] = NULL;
        }
    }
}

#endif
