/* A search, its calls, and a transport that does as it is told: what each test of agents/calls.h
 * begins with. */
#ifndef TESTS_AGENTS_CALLS_FIXTURE_H
#define TESTS_AGENTS_CALLS_FIXTURE_H

#include "agents/simulate.h"

#include "agents/call_parts.h"
#include "agents/calls.h"
#include "base/mem.h"

enum { FAKE_STARTS_MAX = 64 };

struct fake {
    int start_count;
    int32_t ids[FAKE_STARTS_MAX];
    char keys[FAKE_STARTS_MAX][SEARCH_CALL_KEY_BYTES];
    char *bodies[FAKE_STARTS_MAX];
    struct call_queue answers;
    int cancel_count, done_count, turn_count;
    int32_t cancelled[FAKE_STARTS_MAX];
    bool idle;      /* as the last turn was told */
    int64_t tokens; /* bounds of each call */
    double usd;
    bool refuse; /* to start */
};

static inline enum status fake_start(void *state, const struct call *call, struct error *err)
{
    struct fake *fake = state;
    if (fake->refuse) {
        return FAIL(err, STATUS_UNSUPPORTED, "this transport starts nothing");
    }
    assert_true(fake->start_count < FAKE_STARTS_MAX);
    fake->ids[fake->start_count] = call->id;
    snprintf(fake->keys[fake->start_count], SEARCH_CALL_KEY_BYTES, "%s", call->key);
    fake->bodies[fake->start_count++] = json_print_line(call->body);
    return STATUS_OK;
}

static inline enum status fake_turn(void *state, int64_t outcomes, bool idle, struct error *err)
{
    struct fake *fake = state;
    (void)outcomes;
    (void)err;
    fake->turn_count++;
    fake->idle = idle;
    return STATUS_OK;
}

static inline bool fake_take(void *state, struct call_answer *out)
{
    struct fake *fake = state;
    return call_queue_take(&fake->answers, out);
}

static inline void fake_cancel(void *state, int32_t id)
{
    struct fake *fake = state;
    fake->cancelled[fake->cancel_count++] = id;
}

static inline void fake_done(void *state, int32_t id)
{
    struct fake *fake = state;
    (void)id;
    fake->done_count++;
}

static inline enum status fake_bound(const void *state, const struct call *call, int64_t *tokens,
                                     double *usd, struct error *err)
{
    const struct fake *fake = state;
    (void)call;
    (void)err;
    *tokens = fake->tokens;
    *usd = fake->usd;
    return STATUS_OK;
}

static inline void fake_close(void *state)
{
    struct fake *fake = state;
    call_queue_fini(&fake->answers);
    for (int i = 0; i < fake->start_count; i++) {
        free(fake->bodies[i]);
    }
    memset(fake, 0, sizeof(*fake));
}

struct world {
    struct search search;
    struct calls *calls;
    struct fake fake;
    double token_cap, usd_cap;
    bool patient, unspent; /* the next calls are; what the ones before left open cost nothing */
    FILE *log_file;
    char *log_text;
    size_t log_bytes;
    struct log log;
};

static inline double world_limit(const void *context, enum search_limit_id id)
{
    const struct world *world = context;
    return id == SEARCH_LIMIT_AGENT_TOKENS ? world->token_cap : world->usd_cap;
}

/* New calls for the same search, as after a restart. */
static inline void world_open(struct world *world, const struct call_transport *transport,
                              int open_max)
{
    struct error err = {0};
    const struct calls_options options = {.transport = *transport,
                                          .open_max = open_max,
                                          .patient = world->patient,
                                          .log = &world->log,
                                          .limit = world_limit,
                                          .context = world};
    calls_destroy(world->calls);
    world->calls = NULL;
    if (calls_create(&options, &world->calls, &err) != STATUS_OK ||
        calls_recover(world->calls, &world->search, world->unspent, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static inline struct call_transport world_fake(struct world *world, bool resumes)
{
    return (struct call_transport){
        .name = "fake",
        .state = &world->fake,
        .resumes = resumes,
        .start = fake_start,
        .turn = fake_turn,
        .take = fake_take,
        .cancel = fake_cancel,
        .done = fake_done,
        .bound = fake_bound,
        .close = fake_close,
    };
}

static inline void world_restart(struct world *world, bool resumes)
{
    calls_destroy(world->calls);
    world->calls = NULL;
    world->fake.tokens = 100;
    world->fake.usd = 0.25;
    struct call_transport transport = world_fake(world, resumes);
    world_open(world, &transport, 8);
}

static inline int world_set_up(void **state)
{
    struct world *world = mem_calloc(1, sizeof(*world));
    world->token_cap = 1e6;
    world->usd_cap = 1e3;
    world->log_file = open_memstream(&world->log_text, &world->log_bytes);
    log_init(&world->log, world->log_file, -1, LOG_DEBUG);
    begin_search(&world->search, true);
    world_restart(world, false);
    *state = world;
    return 0;
}

static inline int world_tear_down(void **state)
{
    struct world *world = *state;
    calls_destroy(world->calls);
    search_fini(&world->search);
    fclose(world->log_file);
    free(world->log_text);
    free(world);
    return 0;
}

static inline cJSON *chat_body(const char *content)
{
    cJSON *body = cJSON_CreateObject();
    cJSON *messages = cJSON_AddArrayToObject(body, "messages");
    cJSON *message = cJSON_CreateObject();
    cJSON_AddStringToObject(message, "role", "user");
    cJSON_AddStringToObject(message, "content", content);
    cJSON_AddItemToArray(messages, message);
    cJSON_AddNumberToObject(body, "max_tokens", 50);
    return body;
}

static inline enum status world_try(struct world *world, const char *key, enum call_kind kind,
                                    cJSON *body, struct error *err)
{
    struct call_question question = {
        .key = key, .purpose = "plan", .node = -1, .kind = kind, .body = body};
    return calls_ask(world->calls, &world->search, &question, err);
}

static inline void world_ask(struct world *world, const char *key)
{
    struct error err = {0};
    if (world_try(world, key, CALL_CHAT, chat_body(key), &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static inline void world_turn(struct world *world)
{
    struct error err = {0};
    if (calls_turn(world->calls, &world->search, world->search.outcomes, false, &err) !=
        STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

/* The next event comes to the disk: false if there is none. */
static inline bool world_apply(struct world *world)
{
    cJSON *event = NULL;
    if (!calls_take_event(world->calls, &event)) {
        return false;
    }
    apply_event(&world->search, event);
    return true;
}

/* Events to the disk and turns, until nothing moves any more. */
static inline void world_settle(struct world *world)
{
    do {
        while (world_apply(world)) {
        }
        world_turn(world);
    } while (world->calls != NULL && world_apply(world));
}

static inline void fake_answer(struct world *world, int32_t id, const char *text, int64_t tokens)
{
    struct error err;
    struct call_answer answer = {.id = id,
                                 .text = mem_strdup(text),
                                 .provider = "openai",
                                 .model = "m1",
                                 .host = "h:1",
                                 .tokens_in = tokens - tokens / 4,
                                 .tokens_out = tokens / 4,
                                 .cost_usd = 0.125,
                                 .seconds = 1.5,
                                 .attempts = 2};
    assert_int_equal(call_queue_push(&world->fake.answers, &answer, &err), STATUS_OK);
}

static inline void fake_fail(struct world *world, int32_t id, enum status code, int64_t tokens)
{
    struct error err;
    struct error failure;
    FAIL(&failure, code, "no route");
    struct call_answer answer = call_answer_failed(id, &failure);
    answer.tokens_in = tokens;
    answer.attempts = 2;
    assert_int_equal(call_queue_push(&world->fake.answers, &answer, &err), STATUS_OK);
}

static inline const char *reply_of(const struct world *world, const char *key)
{
    const struct search_call *call = calls_find(&world->search, key);
    return call != NULL ? search_text(call->reply) : NULL;
}

/* A cap does not allow it: it is answered so, is not sent, costs nothing, and stays refused. */
static inline void expect_refused(struct world *world, const char *key, const char *words)
{
    int sent = world->fake.start_count;
    int64_t outcomes = world->search.outcomes;
    for (int again = 0; again < 2; again++) {
        world_ask(world, key);
        world_settle(world);
    }
    const struct search_call *call = calls_find(&world->search, key);
    assert_non_null(call);
    if (call->error == NULL || strstr(call->error, words) == NULL) {
        fail_msg("\"%s\" without \"%s\"", search_text(call->error), words);
    }
    assert_null(call->reply);
    assert_int_equal(search_call_tokens(call), 0);
    assert_true(search_call_usd(call) == 0.0);
    assert_null(strstr(call->body, "messages"));
    for (int i = sent; i < world->fake.start_count; i++) {
        assert_string_not_equal(world->search.calls[world->fake.ids[i]].key, key);
    }
    assert_true(world->search.outcomes > outcomes); /* what was decided by it came after it */
}

#endif
