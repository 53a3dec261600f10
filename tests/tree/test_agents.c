/* Events of agents: calls and what they cost, prompts, brief, documents, causes, planning ahead. */
#include "tree/life.h"

#include <math.h>
#include <stdio.h>

enum { BASE_EVENTS = 8 /* node 0 is closed, node 1 planned */ };

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) < 1e-12)) {
        fail_msg("found %.17g, expected %.17g", found, expected);
    }
}

/* An event with one text that is longer than allowed. */
static char *with_long_text(const char *before, size_t bytes, const char *after)
{
    char *filler = calloc(1, bytes + 1);
    struct buffer text;
    buffer_init(&text, (size_t)8 << 20);
    memset(filler, 'x', bytes);
    buffer_printf(&text, "%s%s%s", before, filler, after);
    free(filler);
    return buffer_take(&text);
}

/* ---- calls ---- */

static void test_call(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASE_EVENTS);
    int64_t outcomes = search.outcomes;
    must_apply(&search, ASK("0", "n0000.0/plan/1", "0", "500", "0.25"));
    const struct search_call *call = search_find_call(&search, "n0000.0/plan/1");
    assert_non_null(call);
    assert_true(!call->ended && !call->lost && call->reply == NULL && call->error == NULL);
    assert_string_equal(call->purpose, "plan");
    assert_string_equal(call->kind, "chat");
    assert_string_equal(call->body, "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}");
    assert_int_equal(call->node, 0);
    assert_true(call->started_s == 100.0 + BASE_EVENTS + 1 && isnan(call->cost_usd));
    assert_int_equal(search.outcomes, outcomes); /* nobody has learned anything yet */
    must_apply(&search, ANSWER("0", "\"cost_usd\":0.01,\"reply\":\"r\""));
    call = search_find_call(&search, "n0000.0/plan/1");
    assert_true(call->ended && !call->lost && call->error == NULL);
    assert_string_equal(call->reply, "r");
    assert_string_equal(call->provider, "openai");
    assert_string_equal(call->model, "m1");
    assert_string_equal(call->host, "h:1");
    assert_true(call->tokens_in == 30 && call->tokens_out == 7 && call->cost_usd == 0.01);
    assert_true(call->seconds == 1.5 && call->attempts == 2);
    assert_int_equal(call->outcomes, outcomes);
    assert_int_equal(search.outcomes, outcomes + 1);
    assert_null(search_find_call(&search, "n0000.0/plan/2"));
    assert_null(search_find_call(&search, ""));
    search_fini(&search);
}

/* Spent plus reserved, at each moment. */
static void test_ledger(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASE_EVENTS);
    must_apply(&search, ASK("0", "a", "-1", "500", "0.25"));
    must_apply(&search, ASK("1", "b", "-1", "400", "null"));
    must_apply(&search, ASK("2", "c", "-1", "300", "0.5"));
    assert_int_equal(search.agent_tokens, 1200);
    assert_near(search.agent_usd, 0.75);
    must_apply(&search, ANSWER("0", "\"cost_usd\":0.01,\"reply\":\"\""));
    assert_int_equal(search.agent_tokens, 37 + 700);
    assert_near(search.agent_usd, 0.51);
    /* A failure costs what it has used; without a price it is free. */
    must_apply(&search, ANSWER("1", "\"error\":\"HTTP 500\""));
    assert_int_equal(search.agent_tokens, 2 * 37 + 300);
    assert_near(search.agent_usd, 0.51);
    /* What was lost keeps its reservation, whatever it says of itself. */
    must_apply(&search, ANSWER("2", "\"cost_usd\":0.1,\"error\":\"its job ended\",\"lost\":true"));
    assert_int_equal(search.agent_tokens, 2 * 37 + 300);
    assert_near(search.agent_usd, 0.51);
    assert_int_equal(search_call_tokens(&search.calls[0]), 37);
    assert_true(search_call_usd(&search.calls[1]) == 0.0);
    assert_true(search_call_usd(&search.calls[2]) == 0.5);
    search_fini(&search);
    /* More than was reserved counts too; what rounding leaves is never below 0. */
    live(&search, BASE_EVENTS);
    must_apply(&search, ASK("0", "a", "-1", "1", "0.1"));
    must_apply(&search, ASK("1", "b", "-1", "1", "0.2"));
    must_apply(&search, ANSWER("0", "\"cost_usd\":0,\"reply\":\"\""));
    must_apply(&search, ANSWER("1", "\"cost_usd\":0,\"reply\":\"\""));
    assert_int_equal(search.agent_tokens, 74);
    assert_true(search.agent_usd >= 0.0 && search.agent_usd < 1e-12);
    search_fini(&search);
}

/* The same key is asked anew after a loss, and only then. */
static void test_keys(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASE_EVENTS);
    must_apply(&search, ASK("0", "k", "-1", "1", "null"));
    refuse(&search, ASK("1", "k", "-1", "1", "null"), "which an earlier call has");
    must_apply(&search, ANSWER("0", "\"error\":\"e\",\"lost\":true"));
    assert_null(search_find_call(&search, "k"));
    must_apply(&search, ASK("1", "k", "-1", "1", "null"));
    assert_ptr_equal(search_find_call(&search, "k"), &search.calls[1]);
    must_apply(&search, ANSWER("1", "\"error\":\"HTTP 500\""));
    assert_ptr_equal(search_find_call(&search, "k"), &search.calls[1]);
    refuse(&search, ASK("2", "k", "-1", "1", "null"), "which an earlier call has");
    search_fini(&search);
}

/* Many calls, each found by its key: in the fold, and after an index was made anew. */
static void test_many_calls(void **state)
{
    enum { CALLS = 5000 };
    struct search search;
    struct error err = {0};
    (void)state;
    live(&search, BASE_EVENTS);
    for (int i = 0; i < CALLS; i++) {
        char body[512];
        snprintf(body, sizeof(body),
                 "\"event\":\"call_started\",\"call\":%d,\"key\":\"n%04d/plan/1\",\"purpose\":"
                 "\"plan\",\"kind\":\"source\",\"node\":-1,\"body\":{},\"reserved_tokens\":0",
                 i, i);
        must_apply(&search, body);
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < CALLS; i++) {
            char key[32];
            snprintf(key, sizeof(key), "n%04d/plan/1", i);
            assert_ptr_equal(search_find_call(&search, key), &search.calls[i]);
        }
        assert_null(search_find_call(&search, "n0000/plan/2"));
        assert_int_equal(search_index_calls(&search, &err), STATUS_OK);
    }
    strcpy(search.calls[1].key, search.calls[0].key);
    assert_int_equal(search_index_calls(&search, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "has the key of call 0"));
    search_fini(&search);
}

static void test_refused_questions(void **state)
{
#define QUESTION(key, kind, node, more)                                                            \
    "\"event\":\"call_started\",\"call\":0,\"key\":" key ",\"purpose\":\"p\",\"kind\":" kind       \
    ",\"node\":" node more
#define REST ",\"body\":{},\"reserved_tokens\":1"
    static const struct {
        const char *body, *expected;
    } refused[] = {
        {ASK("1", "k", "-1", "1", "null"), "allowed is the next, 0"},
        {ASK("-1", "k", "-1", "1", "null"), "/call"},
        {ASK("0", "", "-1", "1", "null"), "printable characters"},
        {ASK("0", "a b", "-1", "1", "null"), "printable characters"},
        {ASK("0", "a\\u00e4", "-1", "1", "null"), "printable characters"},
        {ASK("0", "a\\n", "-1", "1", "null"), "printable characters"},
        {ASK("0",
             "0123456789012345678901234567890012345678901234567890123456789012345678901234567890123"
             "4"
             "5678901234",
             "-1", "1", "null"),
         "/key"},
        {ASK("0", "k", "2", "1", "null"), "node 2 does not exist"},
        {ASK("0", "k", "-2", "1", "null"), "/node"},
        {ASK("0", "k", "0.5", "1", "null"), "/node"},
        {ASK("0", "k", "-1", "-1", "null"), "/reserved_tokens"},
        {ASK("0", "k", "-1", "1e15", "null"), "/reserved_tokens"},
        {ASK("0", "k", "-1", "1", "-0.1"), "/reserved_usd"},
        {ASK("0", "k", "-1", "1", "1e300"), "/reserved_usd"},
        {ASK("0", "k", "-1", "1", "\"1\""), "/reserved_usd"},
        {QUESTION("3", "\"chat\"", "-1", REST), "/key"},
        {QUESTION("\"k\"", "\"telephone\"", "-1", REST), "/kind"},
        {QUESTION("\"k\"", "null", "-1", REST), "/kind"},
        {QUESTION("\"k\"", "\"dry\"", "-1", ",\"body\":[],\"reserved_tokens\":1"), "/body"},
        {QUESTION("\"k\"", "\"dry\"", "-1", ",\"reserved_tokens\":1"), "/body"},
        {QUESTION("\"k\"", "\"dry\"", "-1", ",\"body\":{}"), "/reserved_tokens"},
        {"\"event\":\"call_started\"", "/purpose"},
    };
    struct search search;
    (void)state;
    live(&search, BASE_EVENTS);
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        refuse(&search, refused[i].body, refused[i].expected);
    }
    char *body =
        with_long_text("\"event\":\"call_started\",\"call\":0,\"key\":\"k\",\"purpose\":\"p\","
                       "\"kind\":\"chat\",\"node\":-1,\"reserved_tokens\":1,\"body\":{\"t\":\"",
                       SEARCH_CALL_TEXT_MAX_BYTES, "\"}");
    refuse(&search, body, "/body");
    free(body);
    search_fini(&search);
}

static void test_refused_answers(void **state)
{
    static const struct {
        const char *body, *expected;
    } refused[] = {
        {ANSWER("2", "\"reply\":\"r\""), "a call that is open"},
        {ANSWER("0", "\"reply\":\"r\""), "a call that is open"}, /* it was answered */
        {ANSWER("-1", "\"reply\":\"r\""), "/call"},
        {ANSWER("1", "\"x\":0"), "either a reply or an error"},
        {ANSWER("1", "\"reply\":null,\"error\":null"), "either a reply or an error"},
        {ANSWER("1", "\"reply\":\"r\",\"error\":\"e\""), "either a reply or an error"},
        {ANSWER("1", "\"reply\":\"r\",\"lost\":true"), "of a lost call an error"},
        {ANSWER("1", "\"reply\":\"r\",\"lost\":1"), "/lost"},
        {ANSWER("1", "\"reply\":\"r\",\"cost_usd\":-1"), "/cost_usd"},
        {"\"event\":\"call_ended\",\"call\":1,\"reply\":\"r\"", "/seconds"},
        {"\"event\":\"call_ended\",\"call\":1,\"reply\":\"r\",\"seconds\":-1", "/seconds"},
        {"\"event\":\"call_ended\",\"call\":1,\"reply\":\"r\",\"seconds\":1,\"tokens_in\":-1",
         "/tokens_in"},
        {"\"event\":\"call_ended\",\"call\":1,\"reply\":\"r\",\"seconds\":1,\"tokens_out\":1e13",
         "/tokens_out"},
        {"\"event\":\"call_ended\",\"call\":1,\"reply\":\"r\",\"seconds\":1,\"attempts\":-1",
         "/attempts"},
        {"\"event\":\"call_ended\",\"call\":1,\"reply\":\"r\",\"seconds\":1,\"model\":7", "/model"},
    };
    struct search search;
    (void)state;
    live(&search, BASE_EVENTS);
    must_apply(&search, ASK("0", "a", "-1", "1", "null"));
    must_apply(&search, ANSWER("0", "\"reply\":\"r\""));
    must_apply(&search, ASK("1", "b", "-1", "1", "null"));
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        refuse(&search, refused[i].body, refused[i].expected);
    }
    char *body = with_long_text(ANSWER("1", "\"reply\":\""), SEARCH_CALL_TEXT_MAX_BYTES + 1, "\"");
    refuse(&search, body, "/reply");
    free(body);
    /* An error is for people: too long a one is cut. */
    body = with_long_text(ANSWER("1", "\"error\":\""), SEARCH_LINE_MAX_BYTES + 100, "\"");
    must_apply(&search, body);
    assert_int_equal(strlen(search.calls[1].error), SEARCH_LINE_MAX_BYTES);
    free(body);
    search_fini(&search);
}

/* An answer may come after the end, a question not. */
/* Ranks that answer or try something cost what ranks that train cost. */
static void test_time_of_ranks(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASE_EVENTS); /* in an allocation of 4 threads and a GPU a rank */
    double ranks = search.rank_seconds;
    double cores = search.core_seconds;
    double gpus = search.gpu_seconds;
    must_apply(&search, ASK("0", "a", "0", "0", "0"));
    refuse(&search, ANSWER("0", "\"rank_seconds\":-1,\"reply\":\"{}\""), "/rank_seconds");
    must_apply(&search, ANSWER("0", "\"rank_seconds\":2.5,\"reply\":\"{}\""));
    assert_true(search.calls[0].rank_seconds == 2.5);
    assert_true(search.rank_seconds == ranks + 2.5);
    assert_true(search.core_seconds == cores + 10.0);
    assert_true(search.gpu_seconds == gpus + 2.5);
    search_fini(&search);
}

static void test_after_the_end(void **state)
{
    struct search search;
    (void)state;
    live(&search, LIFE_FINISHED + 1);
    refuse(&search, ASK("4", "k", "-1", "1", "null"), "the search has finished");
    refuse(&search, "\"event\":\"brief\",\"brief\":{}", "the search has finished");
    refuse(&search, "\"event\":\"ahead_set\",\"candidates\":1", "the search has finished");
    must_apply(&search, ANSWER("3", "\"reply\":\"late\""));
    must_apply(&search, DIAGNOSED("1", ""));
    search_fini(&search);
}

/* ---- prompts, brief, documents ---- */

#define PROMPT(name, hash) "{\"name\":\"" name "\",\"hash\":\"" hash "\",\"text\":\"of " hash "\"}"
#define PROMPTS(list) "\"event\":\"prompts\",\"prompts\":[" list "]"

static void test_prompts(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASE_EVENTS);
    must_apply(&search, PROMPTS(PROMPT("plan", "1") "," PROMPT("brief", "2")));
    must_apply(&search, PROMPTS(PROMPT("repair", "3") "," PROMPT("plan", "4")));
    assert_int_equal(search.prompt_count, 3);
    assert_string_equal(search.prompts[0].name, "plan");
    assert_string_equal(search.prompts[0].hash, "4");
    assert_string_equal(search.prompts[0].text, "of 4");
    assert_string_equal(search.prompts[2].name, "repair");
    must_apply(&search, PROMPTS(""));
    refuse(&search, PROMPTS(PROMPT("a", "1") "," PROMPT("a", "2")), "a is there twice");
    refuse(&search, PROMPTS("{\"name\":\"a\",\"hash\":\"1\"}"), "/prompts/0/text");
    refuse(&search, PROMPTS("{\"name\":1,\"hash\":\"1\",\"text\":\"\"}"), "/prompts/0/name");
    refuse(&search, PROMPTS("7"), "/prompts/0");
    refuse(&search, "\"event\":\"prompts\",\"prompts\":{}", "/prompts");
    refuse(&search, "\"event\":\"prompts\"", "/prompts");
    struct buffer body;
    buffer_init(&body, 1 << 20);
    for (int extra = 0; extra < 2; extra++) { /* 64 in all are allowed, one more is not */
        buffer_clear(&body);
        buffer_printf(&body, "\"event\":\"prompts\",\"prompts\":[");
        for (int i = 0; i < SEARCH_PROMPTS_MAX - 3 + (extra == 0); i++) {
            buffer_printf(&body, "%s{\"name\":\"p%d\",\"hash\":\"h\",\"text\":\"\"}",
                          i > 0 ? "," : "", i);
        }
        buffer_printf(&body, "]");
        if (extra == 0) {
            refuse(&search, buffer_text(&body), "at most 64 prompts");
        } else {
            must_apply(&search, buffer_text(&body));
        }
    }
    assert_int_equal(search.prompt_count, SEARCH_PROMPTS_MAX);
    must_apply(&search, PROMPTS(PROMPT("plan", "5"))); /* one that is there still fits */
    buffer_fini(&body);
    search_fini(&search);
}

static void test_brief(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASE_EVENTS);
    int64_t outcomes = search.outcomes;
    must_apply(&search, "\"event\":\"brief\",\"brief\":{\"goal\":\"a\"}");
    must_apply(&search, "\"event\":\"brief\",\"brief\":{\"goal\":\"b\"}");
    assert_string_equal(search.brief, "{\"goal\":\"b\"}");
    assert_int_equal(search.outcomes, outcomes + 2);
    refuse(&search, "\"event\":\"brief\"", "/brief");
    refuse(&search, "\"event\":\"brief\",\"brief\":\"text\"", "/brief");
    char *body =
        with_long_text("\"event\":\"brief\",\"brief\":{\"g\":\"", SEARCH_TEXT_MAX_BYTES, "\"}");
    refuse(&search, body, "/brief");
    free(body);
    search_fini(&search);
}

#define DOCUMENTS(list) "\"event\":\"documents\",\"documents\":[" list "]"

static void test_documents(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASE_EVENTS);
    must_apply(&search, DOCUMENTS(DOCUMENT("a", "") "," DOCUMENT("b", "")));
    /* The rows of one that was known come later. */
    must_apply(&search, DOCUMENTS(DOCUMENT("a", ",\"path\":\"sources/..a/x.jsonl\",\"rows\":9")));
    assert_int_equal(search.document_count, 2);
    assert_string_equal(search.documents[0].path, "sources/..a/x.jsonl");
    assert_true(search.documents[0].rows == 9 && search.documents[1].path == NULL);
    assert_string_equal(search.documents[1].licence, "mit");
    must_apply(&search, DOCUMENTS("")); /* that nothing was found is an outcome too */
    static const char *const paths[] = {"",     "/etc/passwd", "..",     "../x",
                                        "a/..", "a/../b",      "a//../b"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        char body[512];
        snprintf(body, sizeof(body),
                 "\"event\":\"documents\",\"documents\":[{\"kind\":\"data\",\"source\":\"s\","
                 "\"id\":\"i\",\"title\":\"t\",\"path\":\"%s\"}]",
                 paths[i]);
        refuse(&search, body, "below the run folder");
    }
    refuse(&search, DOCUMENTS(DOCUMENT("c", "") "," DOCUMENT("c", "")), "there twice");
    refuse(&search, DOCUMENTS(DOCUMENT("c", ",\"rows\":-1")), "/documents/0/rows");
    refuse(&search, DOCUMENTS("{\"kind\":\"rumour\",\"source\":\"s\",\"id\":\"i\",\"title\":\"\"}"),
           "/documents/0/kind");
    refuse(&search, DOCUMENTS("{\"kind\":\"data\",\"id\":\"i\",\"title\":\"\"}"),
           "/documents/0/source");
    refuse(&search, DOCUMENTS("null"), "/documents/0");
    refuse(&search, "\"event\":\"documents\"", "/documents");
    search_fini(&search);
}

static void test_too_many_documents(void **state)
{
    struct search search;
    struct buffer body;
    (void)state;
    live(&search, BASE_EVENTS);
    buffer_init(&body, 1 << 20);
    for (int count = SEARCH_DOCUMENTS_MAX + 1; count >= SEARCH_DOCUMENTS_MAX; count--) {
        buffer_clear(&body);
        buffer_printf(&body, "\"event\":\"documents\",\"documents\":[");
        for (int i = 0; i < count; i++) {
            buffer_printf(&body,
                          "%s{\"kind\":\"literature\",\"source\":\"s\",\"id\":\"%d\",\"title\":"
                          "\"t\"}",
                          i > 0 ? "," : "", i);
        }
        buffer_printf(&body, "]");
        if (count > SEARCH_DOCUMENTS_MAX) {
            refuse(&search, buffer_text(&body), "found 257 items");
        } else {
            must_apply(&search, buffer_text(&body));
        }
    }
    refuse(&search, DOCUMENTS(DOCUMENT("one more", "")), "at most 256 documents");
    buffer_fini(&body);
    search_fini(&search);
}

/* ---- causes and insights, planning ahead ---- */

static void test_node_diagnosed(void **state)
{
    struct search search;
    (void)state;
    live(&search, BASE_EVENTS);
    assert_int_equal(search.insight_count, 1);
    int64_t outcomes = search.outcomes;
    must_apply(
        &search,
        DIAGNOSED("0", ",\"insights\":[{\"text\":\"new\",\"nodes\":[0,1]}],\"retired\":[0]"));
    assert_string_equal(search.nodes[0].diagnosis, "closer");
    assert_string_equal(search.nodes[0].causes, "[{\"cause\":\"negation\",\"rows\":3}]");
    assert_int_equal(search.insight_count, 2);
    assert_true(search.insights[0].retired && !search.insights[1].retired);
    assert_int_equal(search.insights[1].node_count, 2);
    assert_int_equal(search.outcomes, outcomes + 1);
    must_apply(&search, DIAGNOSED("0", "")); /* again, and nothing new */
    refuse(&search, DIAGNOSED("1", ""), "a node that was closed");
    refuse(&search, DIAGNOSED("7", ""), "a node that was closed");
    refuse(&search, DIAGNOSED("-1", ""), "/node");
    refuse(&search, DIAGNOSED("0", ",\"retired\":[2]"), "indices of the 2 insights");
    refuse(&search, DIAGNOSED("0", ",\"retired\":[1,-1]"), "indices of the 2 insights");
    refuse(&search, DIAGNOSED("0", ",\"retired\":[0.5]"), "indices of the 2 insights");
    refuse(&search, DIAGNOSED("0", ",\"retired\":[\"1\"]"), "indices of the 2 insights");
    refuse(&search, DIAGNOSED("0", ",\"retired\":1"), "/retired");
    /* An insight of the same event cannot be retired by it. */
    refuse(&search, DIAGNOSED("0", ",\"insights\":[{\"text\":\"t\",\"nodes\":[]}],\"retired\":[2]"),
           "indices of the 2 insights");
    refuse(&search, DIAGNOSED("0", ",\"insights\":[{\"text\":\"t\",\"nodes\":[2]}]"),
           "/insights/nodes");
    refuse(&search, "\"event\":\"node_diagnosed\",\"node\":0,\"diagnosis\":\"d\"", "/causes");
    refuse(&search, "\"event\":\"node_diagnosed\",\"node\":0,\"causes\":[]", "/diagnosis");
    refuse(&search, "\"event\":\"node_diagnosed\",\"node\":0,\"diagnosis\":\"d\",\"causes\":{}",
           "/causes");
    search_fini(&search);
}

/* What counts as an outcome, and what does not: a replay goes by their number. */
static void test_outcomes(void **state)
{
    struct search search;
    (void)state;
    search_init(&search);
    for (int i = 0; i < LIFE_EVENTS; i++) {
        static const char *const kinds[] = {"node_planned",     "candidate_finished",
                                            "candidate_failed", "node_closed",
                                            "node_diagnosed",   "brief",
                                            "documents",        "ahead_set",
                                            "call_ended",       "plan_dropped"};
        int64_t before = search.outcomes;
        bool expected = false;
        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
            char start[64];
            snprintf(start, sizeof(start), "\"event\":\"%s\"", kinds[k]);
            expected = expected || strncmp(whole_life[i], start, strlen(start)) == 0;
        }
        expected = expected && strstr(whole_life[i], "\"lost\":true") == NULL;
        must_apply(&search, whole_life[i]);
        assert_int_equal(search.outcomes, before + expected);
        assert_int_equal(search.order_count, search.outcomes);
    }
    const struct search_outcome expected[] = {
        {0, -1, SEARCH_OUTCOME_PLANNED},    {0, 0, SEARCH_OUTCOME_FINISHED},
        {0, -1, SEARCH_OUTCOME_CLOSED},     {1, -1, SEARCH_OUTCOME_PLANNED},
        {0, -1, SEARCH_OUTCOME_CALL},       {-1, -1, SEARCH_OUTCOME_BRIEF},
        {-1, -1, SEARCH_OUTCOME_DOCUMENTS}, {1, -1, SEARCH_OUTCOME_CALL},
        {0, -1, SEARCH_OUTCOME_DIAGNOSED},  {-1, -1, SEARCH_OUTCOME_AHEAD},
        {1, 1, SEARCH_OUTCOME_FINISHED},    {1, 2, SEARCH_OUTCOME_FAILED}};
    for (int i = 0; i < (int)(sizeof(expected) / sizeof(expected[0])); i++) {
        struct search_outcome found = search_outcome_after(&search, i);
        assert_int_equal(found.kind, expected[i].kind);
        assert_int_equal(found.id, expected[i].id);
        assert_int_equal(found.candidate, expected[i].candidate);
    }
    assert_int_equal(search_outcome_after(&search, search.outcomes).kind, SEARCH_OUTCOME_NONE);
    assert_int_equal(search_outcome_after(&search, -1).kind, SEARCH_OUTCOME_NONE);
    search_fini(&search);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call),
        cmocka_unit_test(test_ledger),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_many_calls),
        cmocka_unit_test(test_refused_questions),
        cmocka_unit_test(test_refused_answers),
        cmocka_unit_test(test_after_the_end),
        cmocka_unit_test(test_time_of_ranks),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_brief),
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_too_many_documents),
        cmocka_unit_test(test_node_diagnosed),
        cmocka_unit_test(test_outcomes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
