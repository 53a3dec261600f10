/* run.h5 and what the agents leave in it: calls, documents, prompts, brief, causes, insights. */
#include <math.h>

#include "store/sample.h"
#include "tree/life.h"

/* What goes in comes out, after each event of a life that has all kinds of them. */
static void test_round_trip_of_all_kinds(void **state)
{
    char path[FILE_PATH_BYTES];
    sample_path(*state, "run.h5", path);
    for (int count = 1; count <= LIFE_EVENTS; count++) {
        struct search wanted;
        struct search found;
        struct error err = {0};
        live(&wanted, count);
        assert_int_equal(store_run_save(*state, &wanted, &err), STATUS_OK);
        if (store_run_read(path, &found, &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        assert_same_search(&wanted, &found);
        for (int32_t i = 0; i < wanted.call_count; i++) {
            const struct search_call *call = search_find_call(&found, wanted.calls[i].key);
            assert_true((call != NULL) == (search_find_call(&wanted, wanted.calls[i].key) != NULL));
        }
        for (int i = count; i < LIFE_EVENTS; i++) {
            must_apply(&wanted, whole_life[i]);
            must_apply(&found, whole_life[i]);
        }
        assert_same_search(&wanted, &found);
        search_fini(&wanted);
        search_fini(&found);
    }
}

/* Loaded from a run.h5 in the middle and the journal behind it. */
static void test_journal_of_all_kinds(void **state)
{
    struct store_lock *lock = NULL;
    struct journal *journal = NULL;
    assert_int_equal(store_folder_lock(*state, &lock, NULL), STATUS_OK);
    assert_int_equal(journal_open(*state, NULL, 0, &journal, NULL), STATUS_OK);
    for (int i = 0; i < LIFE_EVENTS; i++) {
        assert_int_equal(journal_append(journal, parse_event(i + 1, whole_life[i]), NULL),
                         STATUS_OK);
    }
    journal_close(journal);
    store_folder_unlock(lock);
    const int saved[] = {0, 11, 16, LIFE_EVENTS};
    for (size_t i = 0; i < sizeof(saved) / sizeof(saved[0]); i++) {
        struct search wanted;
        struct search found;
        struct error err = {0};
        char note[1024];
        if (saved[i] > 0) {
            live(&wanted, saved[i]);
            assert_int_equal(store_run_save(*state, &wanted, NULL), STATUS_OK);
            search_fini(&wanted);
        }
        live(&wanted, LIFE_EVENTS);
        if (store_run_load(*state, &found, note, sizeof(note), &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        assert_same_search(&wanted, &found);
        search_fini(&wanted);
        search_fini(&found);
    }
}

/* The longest prompt and reply that an event may bring. */
static void test_long_calls(void **state)
{
    enum { BYTES = SEARCH_CALL_TEXT_MAX_BYTES - 64 };
    char path[FILE_PATH_BYTES];
    struct search wanted;
    struct search found;
    struct error err = {0};
    struct buffer text;
    buffer_init(&text, (size_t)4 << 20);
    sample_path(*state, "run.h5", path);
    live(&wanted, 8);
    for (int i = 0; i < 6; i++) {
        char *filler = calloc(1, BYTES + 1);
        memset(filler, 'a' + i, BYTES - (size_t)i);
        buffer_clear(&text);
        if (i % 2 == 0) {
            buffer_printf(&text,
                          "\"event\":\"call_started\",\"call\":%d,\"key\":\"k/%d\",\"purpose\":"
                          "\"plan\",\"kind\":\"chat\",\"node\":-1,\"body\":{\"text\":\"%s\"},"
                          "\"reserved_tokens\":1",
                          i / 2, i, filler);
        } else {
            buffer_printf(&text,
                          "\"event\":\"call_ended\",\"call\":%d,\"seconds\":1,\"reply\":\"%s\"",
                          i / 2, filler);
        }
        must_apply(&wanted, buffer_text(&text));
        free(filler);
    }
    assert_int_equal(store_run_save(*state, &wanted, &err), STATUS_OK);
    if (store_run_read(path, &found, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_same_search(&wanted, &found);
    buffer_fini(&text);
    search_fini(&wanted);
    search_fini(&found);
}

/* ---- rows that make no sense, from a program that seals and sums them rightly ---- */

enum agent_forgery {
    FORGE_KEY,
    FORGE_KEYS,
    FORGE_CALL_NODE,
    FORGE_TOKENS,
    FORGE_TOO_MANY_TOKENS,
    FORGE_CALL_COST,
    FORGE_RESERVED,
    FORGE_CALL_TIME,
    FORGE_CALL_WORK,
    FORGE_ATTEMPTS,
    FORGE_CALL_OUTCOMES,
    FORGE_LEDGER_TOKENS,
    FORGE_LEDGER_USD,
    FORGE_ALL_OUTCOMES,
    FORGE_AHEAD,
    FORGE_AHEADS,
    FORGE_LATE_AHEAD,
    FORGE_REFUSALS,
    FORGE_REQUEST_PARENT,
    FORGE_REQUEST_NODE,
    FORGE_REQUEST_CHILD,
    FORGE_LATE_REQUEST,
    FORGE_LATE_DROP,
    FORGE_EARLY_DROP,
    FORGE_OUTCOME_KIND,
    FORGE_OUTCOME_NODE,
    FORGE_OUTCOME_CANDIDATE,
    FORGE_OUTCOME_CALL,
    FORGE_OUTCOME_PLAN,
    FORGE_MORE_OUTCOMES,
    FORGE_ROWS,
    FORGE_PATH,
    FORGE_AGENT_COUNT
};

static void forge_agents(struct search *search, enum agent_forgery forgery)
{
    struct search_call *call = &search->calls[0];
    switch (forgery) {
    case FORGE_KEY:
        strcpy(call->key, "a b");
        break;
    case FORGE_KEYS:
        strcpy(search->calls[1].key, call->key);
        break;
    case FORGE_CALL_NODE:
        call->node = 1000;
        break;
    case FORGE_TOKENS:
        call->tokens_in = -1;
        break;
    case FORGE_TOO_MANY_TOKENS:
        call->tokens_out = INT64_MAX;
        break;
    case FORGE_CALL_COST:
        call->cost_usd = -0.5;
        break;
    case FORGE_RESERVED:
        call->reserved_usd = INFINITY;
        break;
    case FORGE_CALL_TIME:
        call->seconds = NAN;
        break;
    case FORGE_CALL_WORK:
        call->rank_seconds = -1.0;
        break;
    case FORGE_ATTEMPTS:
        call->attempts = -1;
        break;
    case FORGE_CALL_OUTCOMES:
        call->outcomes = search->outcomes + 1;
        break;
    case FORGE_LEDGER_TOKENS:
        search->agent_tokens--;
        break;
    case FORGE_LEDGER_USD:
        search->agent_usd *= 0.5;
        break;
    case FORGE_ALL_OUTCOMES:
        search->outcomes = -1;
        break;
    case FORGE_AHEAD:
        search->ahead = -1;
        break;
    case FORGE_AHEADS:
        search->aheads[0].candidates = -1;
        break;
    case FORGE_LATE_AHEAD:
        search->aheads[0].outcomes = search->outcomes;
        break;
    case FORGE_REFUSALS:
        search->refusals = -1;
        break;
    case FORGE_REQUEST_PARENT:
        search->requests[0].parent = search->tree.count;
        break;
    case FORGE_REQUEST_NODE:
        search->requests[2].node = search->tree.count;
        break;
    case FORGE_REQUEST_CHILD:
        search->requests[2].node = 1; /* of another parent */
        break;
    case FORGE_LATE_REQUEST:
        search->requests[0].outcomes = search->requests[1].outcomes + 1;
        break;
    case FORGE_LATE_DROP:
        search->requests[0].dropped_outcomes = search->outcomes;
        break;
    case FORGE_OUTCOME_KIND:
        search->order[0].kind = SEARCH_OUTCOME_NONE;
        break;
    case FORGE_OUTCOME_NODE:
        search->order[0].id = search->tree.count;
        break;
    case FORGE_OUTCOME_CANDIDATE:
        search->order[1].candidate = -1; /* of one that finished */
        break;
    case FORGE_OUTCOME_CALL:
        search->order[0] = (struct search_outcome){search->call_count, -1, SEARCH_OUTCOME_CALL};
        break;
    case FORGE_OUTCOME_PLAN:
        search->order[0] = (struct search_outcome){0, -1, SEARCH_OUTCOME_DROPPED};
        break;
    case FORGE_MORE_OUTCOMES:
        search->outcomes = search->order_count - 1;
        search->ahead_count = search->request_count = 0;
        break;
    case FORGE_EARLY_DROP:
        search->requests[0].dropped_outcomes = search->requests[0].outcomes - 1;
        break;
    case FORGE_ROWS:
        search->documents[0].rows = -1;
        break;
    default:
        strcpy(search->documents[1].path, "../c_d.jsonl");
        break;
    }
}

static void test_agents_that_make_no_sense(void **state)
{
    char path[FILE_PATH_BYTES];
    sample_path(*state, "run.h5", path);
    for (int i = 0; i < FORGE_AGENT_COUNT; i++) {
        struct search search;
        struct search found;
        struct error err = {0};
        live(&search, LIFE_EVENTS);
        forge_agents(&search, (enum agent_forgery)i);
        assert_int_equal(store_run_save(*state, &search, NULL), STATUS_OK);
        enum status status = store_run_read(path, &found, &err);
        if (status != STATUS_CORRUPT) {
            fail_msg("forgery %d: %s", i, status_name(status));
        }
        assert_non_null(strstr(err.message, path));
        search_fini(&search);
    }
}

/* A large reserve passes through the sum of what was spent and rounds it: that is no damage. */
static void test_large_reserve(void **state)
{
    char path[FILE_PATH_BYTES];
    struct search search;
    struct search found;
    struct error err = {0};
    sample_path(*state, "run.h5", path);
    live(&search, 1);
    must_apply(&search, ASK("0", "a", "-1", "10", "0.123456789"));
    must_apply(&search, ASK("1", "b", "-1", "10", "1e9"));
    must_apply(&search, ANSWER("1", "\"cost_usd\":0.1,\"reply\":\"{}\""));
    assert_int_equal(store_run_save(*state, &search, &err), STATUS_OK);
    if (store_run_read(path, &found, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    search_fini(&found);
    search_fini(&search);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, sample_setup, sample_teardown)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_round_trip_of_all_kinds),
        IN_FOLDER(test_journal_of_all_kinds),
        IN_FOLDER(test_long_calls),
        IN_FOLDER(test_agents_that_make_no_sense),
        IN_FOLDER(test_large_reserve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
