/* The researcher of a language model that replies badly at each step, or plans what cannot run. */
#include "agents/model_fixture.h"

struct bad {
    const char *step;  /* of which all replies but the last `good_after` are bad */
    const char *reply; /* NULL: the call fails */
    int bad_count;     /* so many first ones are bad */
    int seen;
};

static char *bad_reply(struct script *script, const char *key, const cJSON *body)
{
    struct bad *bad = script->context;
    bool of_step = strstr(key, bad->step) == key ||
                   (strstr(key, bad->step) != NULL && strstr(key, bad->step)[-1] == '/');
    bool repair = strcmp(bad->step, "plan") == 0 && strstr(key, ".1/repair/") != NULL;
    if ((of_step || repair) && bad->seen < bad->bad_count) {
        bad->seen++;
        return bad->reply != NULL ? mem_strdup(bad->reply) : NULL;
    }
    return good_reply(script, key, body);
}

static const char *const nonsense[] = {
    NULL,
    "",
    "I am sorry, I cannot do that.",
    "<think>hmm",
    "{\"goal\":",
    "{}",
    "[1,2,3]",
    "{\"summary\":7,\"queries\":{},\"notes\":\"x\",\"choices\":[7],\"strategy\":\"win\"}",
    "{\"rounds\":1000,\"limits\":{\"rounds\":1000},\"budget\":1e9,\"agent_tokens\":1e12}",
    "{\"goal\":\"x\",\"expectation\":\"x\",\"rationale\":\"x\",\"refuted_if\":\"x\",\"configs\":[{"
    "\"learning_rate\":1e9},{},{\"epochs\":-1}]}",
};
enum { NONSENSE_COUNT = sizeof(nonsense) / sizeof(nonsense[0]) };

/* Whatever each step is answered, for once or for ever: there is a plan at the end. */
static void test_bad_replies(void **state)
{
    (void)state;
    static const char *const steps[] = {"brief",    "literature", "reading", "data",
                                        "choice",   "direction",  "plan",    "diagnose",
                                        "insights", "source"};
    int conversations = 0;
    for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++) {
        for (int n = 0; n < NONSENSE_COUNT; n++) {
            for (int times = 1; times <= 100; times += 99) {
                struct bad bad = {.step = steps[s], .reply = nonsense[n], .bad_count = times};
                struct script script = {.reply = bad_reply, .context = &bad};
                struct play play;
                play_begin(&play, &script);
                play_close(&play);
                play.options.literature = true;
                play.options.data = true;
                play_open(&play, &script);
                play_settle(&play);
                assert_true(researcher_is_prepared(play.researcher, &play.search));
                run_baseline(&play);
                struct plan plan = request(&play, 0);
                bool of_plan = s == 5 || s == 6;
                bool lost = of_plan && (times > 1 || nonsense[n] == NULL);
                assert_true(plan.by_model == !lost);
                assert_true(plan.config_count > 0);
                if (lost) {
                    assert_string_equal(plan.researcher, "rules");
                    assert_says(plan.rationale, "no plan of the language model could be used");
                }
                assert_true(bad.seen > 0);
                assert_int_equal(researcher_pending(play.researcher), 0);
                plan_fini(&plan);
                play_end(&play);
                conversations++;
            }
        }
    }
    print_message("%d conversations\n", conversations);
}

/* A plan that is JSON of the schema, and cannot be used all the same. */
static const struct {
    const char *plan, *complaint;
} unusable[] = {
    {"\"configs\":[{\"epochs\":2}]", "/configs: found 1, needed are 3"},
    {"\"configs\":[{\"epochs\":2},{\"epochs\":2},{\"epochs\":4}]", "the same as /configs/0"},
    {"\"configs\":[{},{\"epochs\":2},{\"epochs\":3}],\"recipe\":[{\"op\":\"magic\"}]", "magic"},
    {"\"configs\":[{},{\"epochs\":2},{\"epochs\":3}],\"recipe\":[{\"op\":\"load\",\"path\":"
     "\"/etc/passwd\"}]",
     "/etc/passwd"},
    {"\"configs\":[{},{\"epochs\":2},{\"epochs\":3}],\"recipe\":[{\"op\":\"mix\",\"sources\":[{"
     "\"path\":\"../test.jsonl\"}]}]",
     "../test.jsonl"},
    {"\"configs\":[{},{\"epochs\":2},{\"epochs\":3}],\"recipe\":[{\"op\":\"code\",\"program\":"
     "\"import os\"}]",
     "not allowed in this job"},
    {"\"configs\":[{},{\"epochs\":2},{\"precision\":\"bf16\"}]", "/configs/2/precision"},
    {"\"configs\":[{},{\"epochs\":2},{\"command\":\"rm -rf /\"}]", "/configs/2/command"},
};

static char *unusable_reply(struct script *script, const char *key, const cJSON *body)
{
    const char *end = script->context;
    if (strcmp(key, "n0000.1/plan/1") != 0) {
        return good_reply(script, key, body);
    }
    struct buffer text;
    buffer_init(&text, 4096);
    buffer_printf(
        &text, "{\"goal\":\"g\",\"expectation\":\"e\",\"rationale\":\"r\",\"refuted_if\":\"f\",%s}",
        end);
    return buffer_take(&text);
}

static void test_unusable_plans(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(unusable) / sizeof(unusable[0]); i++) {
        char end[1024];
        snprintf(end, sizeof(end), "%s", unusable[i].plan);
        struct script script = {.reply = unusable_reply, .context = end};
        struct play play;
        play_begin(&play, &script);
        play_settle(&play);
        run_baseline(&play);
        struct plan plan = request(&play, 0);
        assert_true(plan.by_model);
        assert_int_equal(plan.revision, 1);
        assert_says(find_call(&play, "n0000.1/repair/1")->body, unusable[i].complaint);
        plan_fini(&plan);
        play_end(&play);
    }
}

/* A plan that comes back is repaired as often as allowed; then it is the rules' turn. */
static void test_revise(void **state)
{
    (void)state;
    struct script script = {.reply = good_reply};
    struct play play;
    struct error err = {0};
    play_begin(&play, &script);
    play_settle(&play);
    run_baseline(&play);
    struct plan plan = request(&play, 0);
    for (int i = 1; i <= play.options.repairs; i++) {
        char key[64];
        assert_int_equal(researcher_revise(play.researcher, &play.search, &plan,
                                           "dry run: field \"text\" is not there", &err),
                         STATUS_OK);
        play_settle(&play);
        assert_true(researcher_poll(play.researcher, &plan));
        assert_true(plan.by_model);
        assert_int_equal(plan.revision, i);
        assert_string_equal(plan.subject, "n0000.1");
        snprintf(key, sizeof(key), "n0000.1/repair/%d", i);
        assert_says(find_call(&play, key)->body, "is not there");
    }
    assert_int_equal(
        researcher_revise(play.researcher, &play.search, &plan, "it still fails", &err), STATUS_OK);
    assert_true(researcher_poll(play.researcher, &plan));
    assert_false(plan.by_model);
    assert_says(plan.rationale, "it still fails");
    assert_int_equal(researcher_revise(play.researcher, &play.search, &plan, "no", &err),
                     STATUS_UNSUPPORTED);
    play_end(&play);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_replies),
        cmocka_unit_test(test_unusable_plans),
        cmocka_unit_test(test_revise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
