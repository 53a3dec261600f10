/* A language model that replies well, and searches that ask it: what each test of the researcher
 * `model` begins with. */
#ifndef TESTS_AGENTS_MODEL_FIXTURE_H
#define TESTS_AGENTS_MODEL_FIXTURE_H

#include "agents/scripted.h"

/* ---- replies ---- */

static const char *const good[][2] = {
    {"brief",
     "{\"summary\":\"two classes\",\"scoring\":\"one word\",\"obstacles\":[\"few rows\"],"
     "\"hypotheses\":[{\"claim\":\"longer helps\",\"test\":\"more epochs\",\"refuted_if\":\"loss "
     "rises\"},{\"claim\":\"faster helps\",\"test\":\"3e-3\",\"refuted_if\":\"it diverges\"}]}"},
    {"literature",
     "{\"queries\":[{\"source\":\"arxiv\",\"text\":\"fine-tuning small language models\"}]}"},
    {"reading", "{\"notes\":[{\"document\":1,\"note\":\"warm-up helps by 0.02\"}]}"},
    {"data", "{\"queries\":[{\"source\":\"hf_datasets\",\"text\":\"sentiment\"}]}"},
    {"choice",
     "{\"choices\":[{\"document\":1,\"config\":\"default\",\"split\":\"train\",\"rows\":500,"
     "\"note\":\"text is the prompt, label the answer\"}]}"},
    {"direction",
     "{\"strategy\":\"change training\",\"title\":\"train longer: much\",\"hypothesis\":\"the loss "
     "is still falling\",\"why\":\"curves\",\"evidence\":[\"n0000: 0.5\"]}"},
    {"diagnose",
     "{\"summary\":\"negation is missed\",\"causes\":[{\"cause\":\"negation\",\"share\":0.5,"
     "\"evidence\":\"group A\",\"remedy\":\"more rows with not\"}],\"compared\":\"as before\"}"},
    {"insights", "{\"new\":[{\"text\":\"rates above 1e-2 diverge\",\"nodes\":[0]}],\"merged\":[],"
                 "\"retired\":[]}"},
    {NULL, NULL},
};

static const char search_answer[] =
    "{\"documents\":[{\"kind\":\"x\",\"source\":\"%s\",\"id\":\"a/b\",\"title\":\"A "
    "title\",\"url\":"
    "\"https://example.org\",\"year\":2024,\"licence\":\"mit\",\"text\":\"%s\"}]}";
static const char download_answer[] =
    "{\"documents\":[{\"kind\":\"data\",\"source\":\"hf_datasets\",\"id\":\"a/b\",\"title\":\"A "
    "title\",\"url\":\"https://example.org\",\"licence\":\"mit\",\"text\":\"card\",\"path\":"
    "\"sources/a-b.jsonl\",\"rows\":500}]}";

/* Rates that no other plan of this test has. */
static inline char *plan_reply(const char *key, const char *recipe)
{
    char hash[HASH_TEXT_BYTES];
    struct buffer text;
    buffer_init(&text, 4096);
    hash_bytes(key, strlen(key), hash);
    unsigned long number = strtoul(hash + 24, NULL, 16) % 1000000;
    buffer_printf(&text,
                  "{\"goal\":\"whether more epochs help (%lu)\",\"expectation\":\"0.03 more\","
                  "\"rationale\":\"the curve falls\",%s%s\"configs\":[{\"epochs\":2.5,"
                  "\"learning_rate\":0.00%06lu1},{\"epochs\":4,\"learning_rate\":0.00%06lu1},{"
                  "\"epochs\":6,\"learning_rate\":0.00%06lu1}],\"refuted_if\":\"less than 0.01\"}",
                  number, recipe, recipe[0] != '\0' ? "," : "", number, number, number);
    return buffer_take(&text);
}

static inline const char *question_text(const cJSON *body, const char *key)
{
    return search_text(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, key)));
}

static inline char *source_reply(const cJSON *body, const char *abstract)
{
    const char *source = question_text(body, "source");
    if (strcmp(question_text(body, "do"), "download") == 0) {
        return mem_strdup(download_answer);
    }
    struct buffer text;
    buffer_init(&text, 8192);
    buffer_printf(&text, search_answer, source, abstract);
    return buffer_take(&text);
}

static inline bool is_about(const char *key, const char *step)
{
    char part[64];
    size_t length = (size_t)snprintf(part, sizeof(part), "%s/", step);
    const char *at = strstr(key, part);
    bool repairs_other = strcmp(step, "repair") != 0 && strstr(key, "/repair/") != NULL;
    return at != NULL && (at == key || at[-1] == '/') && length > 1 && !repairs_other;
}

static inline char *good_reply(struct script *script, const char *key, const cJSON *body)
{
    (void)script;
    if (strncmp(key, "source/", 7) == 0) {
        return source_reply(body, "An abstract.");
    }
    bool of_plan = is_about(key, "plan") || (key[0] == 'n' && strstr(key, ".") != NULL &&
                                             strstr(key, "/direction/") == NULL);
    if (of_plan) {
        return plan_reply(key, "");
    }
    for (int i = 0; good[i][0] != NULL; i++) {
        if (strncmp(key, good[i][0], strlen(good[i][0])) == 0 ||
            (strchr(key, '/') != NULL &&
             strncmp(strchr(key, '/') + 1, good[i][0], strlen(good[i][0])) == 0)) {
            return mem_strdup(good[i][1]);
        }
    }
    fail_msg("nothing is known to answer to %s", key);
    return NULL;
}

/* ---- helpers ---- */

static inline struct outcome usual_outcome(void *context, const struct train_config *config,
                                           const cJSON *recipe, int32_t candidate)
{
    (void)recipe;
    double *score = context;
    return (struct outcome){
        .score = *score + 0.01 * candidate + 0.0001 * config->epochs,
        .standard_error = 0.01,
        .rows = 872,
        .train = {2, 1.5, 1.2, 1.0},
        .validation = {2, 1.6, 1.4, 1.3},
        .confusions = "[{\"expected\":\"yes\",\"found\":\"no\",\"count\":40}]",
    };
}

/* The baseline, run and closed. */
static inline void run_baseline(struct play *play)
{
    struct error err = {0};
    struct plan plan;
    memset(&plan, 0, sizeof(plan));
    assert_int_equal(researcher_request(play->researcher, &play->search, -1, 0, &err), STATUS_OK);
    assert_true(researcher_poll(play->researcher, &plan));
    assert_string_equal(plan.researcher, "rules");
    int32_t root = add_plan(&play->search, &plan);
    plan_fini(&plan);
    apply_event(&play->search, new_event("candidate_started", root, 0));
    finish_candidate(&play->search, root, 0,
                     &(struct outcome){.score = 0.5, .standard_error = 0.02, .rows = 872});
    char *diagnosis = NULL;
    cJSON *insights = NULL;
    assert_int_equal(
        researcher_diagnose(play->researcher, &play->search, root, &diagnosis, &insights, &err),
        STATUS_OK);
    cJSON *event = new_event("node_closed", root, -1);
    cJSON_AddStringToObject(event, "diagnosis", diagnosis);
    cJSON_AddItemToObject(event, "insights", insights);
    free(diagnosis);
    apply_event(&play->search, event);
}

static inline struct plan request(struct play *play, int32_t parent)
{
    struct error err = {0};
    struct plan plan;
    memset(&plan, 0, sizeof(plan));
    if (researcher_request(play->researcher, &play->search, parent, ++play->requests, &err) !=
        STATUS_OK) {
        fail_msg("%s", err.message);
    }
    play_settle(play);
    assert_true(researcher_poll(play->researcher, &plan));
    return plan;
}

/* A child of `parent`, planned, trained and closed. */
static inline int32_t grow(struct play *play, int32_t parent, double score)
{
    struct plan plan = request(play, parent);
    int32_t node = add_plan(&play->search, &plan);
    plan_fini(&plan);
    run_node(&play->search, play->researcher, node, usual_outcome, &score);
    play_settle(play);
    return node;
}

static inline const struct search_call *find_call(const struct play *play, const char *key)
{
    const struct search_call *call = calls_find(&play->search, key);
    if (call == NULL) {
        fail_msg("no call %s", key);
    }
    return call;
}

static inline bool has_call(const struct play *play, const char *key)
{
    return calls_find(&play->search, key) != NULL;
}

static inline void assert_says(const char *text, const char *wanted)
{
    if (text == NULL || strstr(text, wanted) == NULL) {
        fail_msg("wanted: %s\nin: %.6000s", wanted, search_text(text));
    }
}

#endif
