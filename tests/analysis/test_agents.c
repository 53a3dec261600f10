/* What trex-tree says of the agents: calls, prompts, brief, documents, insights, and what they
 * cost. */
#include "analysis/command.h"

#include "tree/life.h"

/* The search after `count` events of the whole life, in the folder "agents". */
static void make_agents(struct fixture *f, int count)
{
    struct search search;
    char folder[FILE_PATH_BYTES];
    sample_path(f->folder, "agents", folder);
    assert_int_equal(file_make_folders(folder, NULL), STATUS_OK);
    live(&search, count);
    assert_int_equal(store_run_save(folder, &search, NULL), STATUS_OK);
    search_fini(&search);
}

/* The texts are there, one after the other. */
static void expect_order(struct fixture *f, const char *arguments, const char *const *texts,
                         int count)
{
    assert_int_equal(tree(f, arguments), 0);
    const char *at = buffer_text(&f->out);
    for (int i = 0; i < count; i++) {
        const char *found = strstr(at, texts[i]);
        if (found == NULL) {
            fail_msg("%s: no \"%s\" (or not in order) in\n%s", arguments, texts[i],
                     buffer_text(&f->out));
        }
        at = found + strlen(texts[i]);
    }
}

static void test_ledger(void **state)
{
    struct fixture *f = *state;
    expect(f, "status run", 0, "spent");
    assert_null(strstr(buffer_text(&f->out), "agents")); /* the rules ask nobody */
    make_agents(f, LIFE_EVENTS);
    expect(f, "status agents", 0,
           "4 calls (1 failed, 1 lost), 411 of 1000 tokens, 0.5300 of 0.00 USD; no price is known "
           "for 1 call");
    expect(f, "status agents", 0, "300 tokens and 0.5000 USD of it are reserved");
    expect(f, "show agents", 0, "; 3 calls (1 failed, 1 lost), 374 tokens, 0.5200 USD");
    expect(f, "show agents n0000", 0, "3 calls (1 failed, 1 lost), 374 tokens, 0.5200 USD; with");
    cJSON *object = parsed(f, "status agents --json");
    assert_true(number_at(object, "agents", "calls") == 4.0);
    assert_true(number_at(object, "agents", "failed") == 1.0);
    assert_true(number_at(object, "agents", "lost") == 1.0);
    assert_true(number_at(object, "agents", "tokens") == 3.0 * 37.0);
    assert_true(number_at(object, "agents", "reserved_tokens") == 300.0);
    assert_true(number_at(object, "agents", "tokens_limit") == 1000.0);
    assert_true(number_at(object, "agents", "unpriced") == 1.0);
    cJSON_Delete(object);
    /* Until it has finished: one call is under way, and set says what was spent. */
    make_agents(f, LIFE_FINISHED);
    expect(f, "status agents", 0, "4 calls (1 under way, 1 failed, 1 lost), 674 of 1000 tokens");
    expect(f, "set agents", 0, "  674\n");
    expect(f, "set agents", 0, "  1.0100\n");
}

static void test_calls(void **state)
{
    static const char *const rows[] = {"brief/1",          "answered", "0.0100", "m1\n",
                                       "n0000/diagnose/1", "failed",   "-",      "m1: HTTP 500",
                                       "n0000.0/plan/1",   "lost",     "0.5000", "its job ended",
                                       "n0000.0/plan/1",   "answered", "0.0200", "4 calls"};
    struct fixture *f = *state;
    expect(f, "show run --calls", 0, "0 calls, 0 tokens, 0.0000 USD");
    make_agents(f, LIFE_EVENTS);
    expect_order(f, "show agents --calls", rows, sizeof(rows) / sizeof(rows[0]));
    expect(f, "show agents n0000 --calls", 0, "3 calls");
    assert_null(strstr(buffer_text(&f->out), "brief/1"));
    expect(f, "show agents n0001 --calls", 0, "0 calls");
    expect(f, "show agents n0077 --calls", 2, "nodes are n0000 to n0002");
    expect(f, "show agents --calls --brief", 2, "give one of them");
    cJSON *object = parsed(f, "show agents --calls --json");
    const cJSON *lost = cJSON_GetArrayItem(cJSON_GetObjectItem(object, "calls"), 2);
    assert_string_equal(cJSON_GetObjectItem(lost, "state")->valuestring, "lost");
    assert_string_equal(cJSON_GetObjectItem(lost, "key")->valuestring, "n0000.0/plan/1");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(lost, "cost_usd")));
    assert_null(cJSON_GetObjectItem(lost, "body"));
    assert_true(number_at(object, "ledger", "reserved_usd") == 0.5);
    const cJSON *nodes = cJSON_GetObjectItem(object, "nodes");
    assert_int_equal(cJSON_GetArraySize(nodes), 3);
    const cJSON *root = cJSON_GetArrayItem(nodes, 0);
    assert_true(cJSON_GetObjectItem(root, "calls")->valuedouble == 3.0);
    assert_true(cJSON_GetObjectItem(root, "lost")->valuedouble == 1.0);
    assert_true(cJSON_GetObjectItem(cJSON_GetArrayItem(nodes, 1), "calls")->valuedouble == 0.0);
    cJSON_Delete(object);
    make_agents(f, LIFE_FINISHED);
    expect(f, "show agents --calls", 0, "open");
}

static void test_prompts(void **state)
{
    static const char *const parts[] = {
        "call 0  brief/1  plan, answered",
        "user\n    q\n  reply\n    {}\n  30 + 7 tokens, 0.0100 USD",
        "2 attempts, openai m1 at h:1",
        "call 1  n0000/diagnose/1  plan, n0000, failed",
        "no reply\n    HTTP 500",
        "no price known",
        "call 2",
        "lost: the 300 tokens",
        "call 3",
        "reply\n    late",
    };
    struct fixture *f = *state;
    make_agents(f, LIFE_EVENTS);
    expect_order(f, "show agents --prompts", parts, sizeof(parts) / sizeof(parts[0]));
    expect(f, "show agents n0000 --prompts", 0, "call 1");
    assert_null(strstr(buffer_text(&f->out), "call 0"));
    cJSON *object = parsed(f, "show agents --prompts --json");
    const cJSON *calls = cJSON_GetObjectItem(object, "calls");
    assert_int_equal(cJSON_GetArraySize(calls), 4);
    const cJSON *first = cJSON_GetArrayItem(calls, 0);
    assert_string_equal(cJSON_GetObjectItem(first, "reply")->valuestring, "{}");
    const cJSON *messages = cJSON_GetObjectItem(cJSON_GetObjectItem(first, "body"), "messages");
    assert_string_equal(
        cJSON_GetObjectItem(cJSON_GetArrayItem(messages, 0), "content")->valuestring, "q");
    cJSON_Delete(object);
    make_agents(f, LIFE_FINISHED);
    expect(f, "show agents --prompts", 0, "under way; it has reserved 300 tokens");
}

/* What a model or a stranger wrote does not reach the terminal as commands to it. */
static void test_hostile_texts(void **state)
{
    struct fixture *f = *state;
    struct search search;
    char folder[FILE_PATH_BYTES];
    static const char escape[] = "a\\u001b[2Jb";
    struct buffer body;
    buffer_init(&body, 1 << 16);
    live(&search, 8);
    buffer_printf(&body,
                  "\"event\":\"call_started\",\"call\":0,\"key\":\"k\",\"purpose\":\"%s\","
                  "\"kind\":\"source\",\"node\":-1,\"body\":{\"messages\":[{\"role\":\"%s\","
                  "\"content\":\"%s\"},{\"role\":3,\"content\":[\"%s\"]},7],\"max\":\"%s\"},"
                  "\"reserved_tokens\":1",
                  escape, escape, escape, escape, escape);
    must_apply(&search, buffer_text(&body));
    buffer_clear(&body);
    buffer_printf(&body,
                  "\"event\":\"call_ended\",\"call\":0,\"seconds\":1,\"model\":\"%s\",\"host\":"
                  "\"%s\",\"error\":\"%s\"",
                  escape, escape, escape);
    must_apply(&search, buffer_text(&body));
    buffer_clear(&body);
    buffer_printf(&body,
                  "\"event\":\"documents\",\"documents\":[{\"kind\":\"data\",\"source\":\"%s\","
                  "\"id\":\"%s\",\"title\":\"%s\",\"url\":\"%s\",\"licence\":\"%s\",\"text\":"
                  "\"%s\",\"path\":\"%s\"}]",
                  escape, escape, escape, escape, escape, escape, escape);
    must_apply(&search, buffer_text(&body));
    buffer_clear(&body);
    buffer_printf(&body,
                  "\"event\":\"brief\",\"brief\":{\"%s\":\"%s\",\"l\":[\"%s\",1,{"
                  "\"claim\":\"c\",\"refuted_if\":\"%s\",\"rows\":3}],\"n\":2}",
                  escape, escape, escape, escape);
    must_apply(&search, buffer_text(&body));
    buffer_clear(&body);
    buffer_printf(&body,
                  "\"event\":\"prompts\",\"prompts\":[{\"name\":\"%s\",\"hash\":\"%s\",\"text\":"
                  "\"\"}]",
                  escape, escape);
    must_apply(&search, buffer_text(&body));
    sample_path(f->folder, "agents", folder);
    assert_int_equal(file_make_folders(folder, NULL), STATUS_OK);
    assert_int_equal(store_run_save(folder, &search, NULL), STATUS_OK);
    static const char *const ways[] = {"--calls", "--prompts", "--brief"};
    for (int i = 0; i < 3; i++) {
        char arguments[64];
        snprintf(arguments, sizeof(arguments), "show agents %s", ways[i]);
        expect(f, arguments, 0, "a·[2Jb");
        assert_null(strchr(buffer_text(&f->out), '\033'));
    }
    expect(f, "show agents --brief", 0,
           "    1\n    claim: c\n      refuted if: a·[2Jb\n      rows: 3\n");
    buffer_fini(&body);
    search_fini(&search);
}

static void test_brief(void **state)
{
    static const char *const parts[] = {
        "brief\n  goal\n    g\n  hypotheses\n    h\n",
        "documents\n  T\n    data, hf_datasets a/b, licence mit\n",
        "data, hf_datasets c/d, licence mit, 40 rows in sources/c_d.jsonl",
        "insights\n  retired, seen in n0000\n    insight\n",
        "holds, seen in n0000\n    merged",
        "plan             h1",
    };
    struct fixture *f = *state;
    expect(f, "show run --brief", 0, "No brief was written.");
    make_agents(f, LIFE_EVENTS);
    expect_order(f, "show agents --brief", parts, sizeof(parts) / sizeof(parts[0]));
    expect(f, "show agents n0000", 0, "causes\n  {\"cause\":\"negation\",\"rows\":3}");
    expect(f, "show agents n0000", 0, "insight (retired");
    const char *const ways[] = {"show agents --brief --json", "show agents --json"};
    for (int i = 0; i < 2; i++) {
        cJSON *object = parsed(f, ways[i]);
        assert_string_equal(
            cJSON_GetObjectItem(cJSON_GetObjectItem(object, "brief"), "goal")->valuestring, "g");
        const cJSON *documents = cJSON_GetObjectItem(object, "documents");
        assert_int_equal(cJSON_GetArraySize(documents), 2);
        assert_true(cJSON_GetObjectItem(cJSON_GetArrayItem(documents, 1), "rows")->valuedouble ==
                    40.0);
        const cJSON *insights = cJSON_GetObjectItem(object, "insight_list");
        assert_true(cJSON_IsTrue(cJSON_GetObjectItem(cJSON_GetArrayItem(insights, 0), "retired")));
        assert_true(cJSON_IsFalse(cJSON_GetObjectItem(cJSON_GetArrayItem(insights, 1), "retired")));
        assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(object, "prompts")), 2);
        cJSON_Delete(object);
    }
    cJSON *object = parsed(f, "show agents --json");
    const cJSON *node = cJSON_GetArrayItem(cJSON_GetObjectItem(object, "nodes"), 0);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(node, "causes")), 1);
    cJSON_Delete(object);
}

/* Rows that were downloaded are part of the run folder. */
static void test_verify(void **state)
{
    struct fixture *f = *state;
    char path[FILE_PATH_BYTES];
    struct search search;
    live(&search, 20);
    must_apply(&search, "\"event\":\"weights_dropped\",\"node\":0,\"candidate\":0");
    sample_path(f->folder, "agents", path);
    assert_int_equal(file_make_folders(path, NULL), STATUS_OK);
    assert_int_equal(store_run_save(path, &search, NULL), STATUS_OK);
    search_fini(&search);
    expect(f, "verify agents", 1,
           "agents/sources/c_d.jsonl: the tree says that these downloaded rows");
    sample_path(f->folder, "agents/sources", path);
    assert_int_equal(file_make_folders(path, NULL), STATUS_OK);
    sample_path(f->folder, "agents/sources/c_d.jsonl", path);
    sample_write(path, "{}\n", 3);
    expect(f, "verify agents", 0, "nothing is damaged");
}

int main(void)
{
#define WITH_RUN(test) cmocka_unit_test_setup_teardown(test, make_fixture, remove_fixture)
    const struct CMUnitTest tests[] = {
        WITH_RUN(test_ledger),        WITH_RUN(test_calls), WITH_RUN(test_prompts),
        WITH_RUN(test_hostile_texts), WITH_RUN(test_brief), WITH_RUN(test_verify),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
