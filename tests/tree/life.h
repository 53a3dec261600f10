/* The events of a whole search, and how tests apply them and see them refused. */
#ifndef TESTS_TREE_LIFE_H
#define TESTS_TREE_LIFE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tree/dump.h"
#include "tree/search.h"

/* Bodies of events, in an order in which a search could write them. */
#define STARTED                                                                                    \
    "\"event\":\"started\",\"job\":{\"goal\":\"g\"},\"model_hash\":\"m\",\"task_hash\":\"t\","     \
    "\"metric\":\"accuracy\",\"larger_is_better\":true,\"version\":\"0.1\",\"seed\":7"
#define ALLOCATION                                                                                 \
    "\"event\":\"allocation_started\",\"ranks\":3,\"host\":\"node1\",\"workers\":2,\"nodes\":1,"   \
    "\"threads\":4,\"gpus\":1,\"job\":\"77\",\"restarts\":2"
#define BLAME(node, candidate)                                                                     \
    "\"event\":\"incident\",\"kind\":\"rank lost\",\"message\":\"rank 2 died\",\"node\":" node     \
    ",\"candidate\":" candidate ",\"lost_s\":4.5,\"blames\":true"
#define LIMITS(limits)                                                                             \
    "\"event\":\"limits_set\",\"limits\":" limits ",\"what\":\"rounds 20 -> 40\","                 \
    "\"by\":\"a@b\""
#define HALTED(id) "\"event\":\"halted\",\"id\":\"" id "\",\"how\":\"at once\",\"by\":\"a@b\""
#define PLAN(node, parent, configs)                                                                \
    "\"event\":\"node_planned\",\"node\":" node ",\"parent\":" parent ",\"strategy\":\"s\","       \
    "\"goal\":\"g\",\"rationale\":\"why\",\"recipe\":[{\"op\":\"dedup\"}],\"researcher\":"         \
    "\"rules\","                                                                                   \
    "\"configs\":" configs
#define REQUEST(number, parent)                                                                    \
    "\"event\":\"plan_requested\",\"number\":" number ",\"parent\":" parent
#define DROP(number, refused)                                                                      \
    "\"event\":\"plan_dropped\",\"number\":" number ",\"why\":\"tried\",\"refused\":" refused
#define START(node, candidate)                                                                     \
    "\"event\":\"candidate_started\",\"node\":" node ",\"candidate\":" candidate ",\"rank\":1"
#define SCORE(value)                                                                               \
    "{\"value\":" value ",\"standard_error\":0.02,\"loss\":1.5,\"rows\":100,\"truncated\":1,"      \
    "\"unfinished\":2,\"format_failures\":3,\"seconds\":4.5}"
#define RESULT(value, more)                                                                        \
    "{\"validation\":" SCORE(value) ",\"curve\":[[1,64,2.5,null,1.0,0.001,0.5],[2,128,2.0,1.9,"    \
                                    "null,0.001,1.0]],\"cases\":[{\"row\":4,\"score\":0,"          \
                                    "\"prompt\":\"p\",\"answer\":\"a\","                           \
                                    "\"output\":\"o\"}],\"confusions\":[{\"expected\":\"yes\","    \
                                    "\"found\":\"no\",\"count\":9}],"                              \
                                    "\"steps_done\":2,\"samples\":64,\"tokens\":128,\"end\":"      \
                                    "\"finished\",\"rank_seconds\":10" more "}"
#define FINISH(node, candidate, value)                                                             \
    "\"event\":\"candidate_finished\",\"node\":" node ",\"candidate\":" candidate                  \
    ",\"weights_kept\":true,\"result\":" RESULT(value, ",\"recipe_report\":[{\"op\":\"dedup\"}]")
#define FAILED(node, candidate)                                                                    \
    "\"event\":\"candidate_failed\",\"node\":" node ",\"candidate\":" candidate                    \
    ",\"error\":{\"code\":\"STATUS_DIVERGED\",\"message\":\"loss\",\"file\":\"f.c\",\"line\":3,"   \
    "\"rank\":2},\"log_tail\":\"tail\",\"rank_seconds\":2"
#define CLOSE(node)                                                                                \
    "\"event\":\"node_closed\",\"node\":" node ",\"diagnosis\":\"d\",\"insights\":[{\"text\":"     \
    "\"insight\",\"nodes\":[0]}]"

/* reserved: tokens, dollars; cost: dollars or null */
#define ASK(call, key, node, tokens, dollars)                                                      \
    "\"event\":\"call_started\",\"call\":" call ",\"key\":\"" key                                  \
    "\",\"purpose\":\"plan\",\"kind\":\"chat\",\"node\":" node                                     \
    ",\"body\":{\"messages\":[{\"role\":"                                                          \
    "\"user\",\"content\":\"q\"}]},\"reserved_tokens\":" tokens ",\"reserved_usd\":" dollars
#define ANSWER(call, more)                                                                         \
    "\"event\":\"call_ended\",\"call\":" call                                                      \
    ",\"provider\":\"openai\",\"model\":\"m1\",\"host\":"                                          \
    "\"h:1\",\"tokens_in\":30,\"tokens_out\":7,\"seconds\":1.5,\"attempts\":2," more
#define DOCUMENT(id, more)                                                                         \
    "{\"kind\":\"data\",\"source\":\"hf_datasets\",\"id\":\"" id                                   \
    "\",\"title\":\"T\",\"url\":\"u\",\"licence\":\"mit\",\"text\":\"card\",\"note\":\"n\"" more   \
    "}"
#define DIAGNOSED(node, more)                                                                      \
    "\"event\":\"node_diagnosed\",\"node\":" node                                                  \
    ",\"diagnosis\":\"closer\",\"causes\":[{\"cause\":\"negation\",\"rows\":3}]" more

static const char *const whole_life[] = {
    STARTED,
    ALLOCATION,
    PLAN("0", "-1", "[{}]"),
    START("0", "0"),
    "\"event\":\"allocation_progress\",\"seconds\":10",
    FINISH("0", "0", "0.5"),
    CLOSE("0"),
    PLAN("1", "0", "[{\"learning_rate\":0.001},{\"learning_rate\":0.003},{\"epochs\":2}]"),
    "\"event\":\"prompts\",\"prompts\":[{\"name\":\"plan\",\"hash\":\"h1\",\"text\":\"t1\"},"
    "{\"name\":\"brief\",\"hash\":\"h2\",\"text\":\"t2\"}]",
    ASK("0", "brief/1", "-1", "500", "0.25"),
    ANSWER("0", "\"cost_usd\":0.01,\"reply\":\"{}\""),
    "\"event\":\"brief\",\"brief\":{\"goal\":\"g\",\"hypotheses\":[\"h\"]}",
    "\"event\":\"documents\",\"documents\":[" DOCUMENT("a/b", "") "," DOCUMENT(
        "c/d", ",\"path\":\"sources/c_d.jsonl\",\"rows\":40") "]",
    ASK("1", "n0000/diagnose/1", "0", "400", "null"),
    ASK("2", "n0000.0/plan/1", "0", "300", "0.5"),
    ANSWER("1", "\"cost_usd\":null,\"error\":\"HTTP 500\""),
    ANSWER("2", "\"cost_usd\":null,\"error\":\"its job ended\",\"lost\":true"),
    ASK("3", "n0000.0/plan/1", "0", "300", "0.5"),
    DIAGNOSED("0", ",\"insights\":[{\"text\":\"merged\",\"nodes\":[0]}],\"retired\":[0]"),
    "\"event\":\"ahead_set\",\"candidates\":6",
    START("1", "0"),
    START("1", "1"),
    START("1", "2"),
    "\"event\":\"candidate_suspended\",\"node\":1,\"candidate\":0,\"steps_done\":5,"
    "\"rank_seconds\":3",
    FINISH("1", "1", "0.7"),
    "\"event\":\"allocation_progress\",\"seconds\":20",
    "\"event\":\"allocation_started\",\"ranks\":3,\"host\":\"node2\"",
    BLAME("1", "2"),
    "\"event\":\"allocation_progress\",\"seconds\":5",
    START("1", "0"),
    START("1", "2"), /* it was running when the job died */
    FAILED("1", "2"),
    FINISH("1", "0", "0.7"),
    CLOSE("1"),
    REQUEST("1", "0"),
    REQUEST("2", "1"),
    DROP("1", "true"),
    REQUEST("3", "1"),
    LIMITS("{\"rounds\":40,\"core_hours\":2.5,\"gpu_hours\":0,\"goal_score\":-0.5,"
           "\"agent_tokens\":1000,\"agent_money_usd\":null}"),
    HALTED("0123456789abcdef"),
    "\"event\":\"weights_dropped\",\"node\":1,\"candidate\":1",
    PLAN("2", "1", "[{}],\"number\":3"),
    REQUEST("4", "0"),
    DROP("2", "false"),
    FAILED("2", "0"),
    CLOSE("2"),
    "\"event\":\"finished\",\"reason\":\"rounds\",\"winner_node\":1,\"winner_candidate\":0",
    "\"event\":\"test_scored\",\"node\":1,\"candidate\":0,\"score\":" SCORE("0.68"),
    ANSWER("3", "\"cost_usd\":0.02,\"reply\":\"late\""),
    "\"event\":\"allocation_ended\",\"reason\":\"finished\",\"predicted_s\":4,\"safe_s\":1.5",
};
enum { LIFE_EVENTS = sizeof(whole_life) / sizeof(whole_life[0]), LIFE_FINISHED = LIFE_EVENTS - 4 };

static inline cJSON *parse_event(int64_t sequence, const char *body)
{
    struct buffer text;
    struct error err;
    cJSON *event = NULL;
    buffer_init(&text, (size_t)64 << 20);
    buffer_printf(&text, "{\"sequence\":%" PRId64 ",\"time_s\":%" PRId64 ",%s}", sequence,
                  100 + sequence, body);
    enum status status = json_parse(buffer_text(&text), text.len_bytes, "event", &event, &err);
    if (status != STATUS_OK) {
        fail_msg("%s: %s", err.message, body);
    }
    buffer_fini(&text);
    return event;
}

static inline enum status apply(struct search *search, const char *body, struct error *err)
{
    cJSON *event = parse_event(search->last_sequence + 1, body);
    enum status status = search_apply(search, event, err);
    cJSON_Delete(event);
    return status;
}

static inline void must_apply(struct search *search, const char *body)
{
    struct error err;
    if (apply(search, body, &err) != STATUS_OK) {
        fail_msg("%s\n%s", body, err.message);
    }
}

/* The search after the first `count` events of the whole life. */
static inline void live(struct search *search, int count)
{
    search_init(search);
    for (int i = 0; i < count; i++) {
        must_apply(search, whole_life[i]);
    }
}

/* The event is refused for the reason that is expected, and leaves the search as it was. */
static inline void refuse(struct search *search, const char *body, const char *expected)
{
    struct error err = {0};
    char *before = dump_search(search);
    enum status status = apply(search, body, &err);
    char *after = dump_search(search);
    if (status != STATUS_INVALID || strstr(err.message, expected) == NULL) {
        fail_msg("%.200s\ngave %s: %s\nexpected %s", body, status_name(status), err.message,
                 expected);
    }
    assert_string_equal(before, after);
    assert_int_equal(tree_check(&search->tree, &err), STATUS_OK);
    free(before);
    free(after);
}

#endif
