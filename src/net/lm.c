/* Questions: which endpoint, when, how often. What one try is, lm_try.h says. */
#include "net/lm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"
#include "net/lm_try.h"

enum {
    TRIES_AT_ONE = 2, /* before the next endpoint has its turn */
    PROMPT_MAX_BYTES = 32 << 20,
};

enum asking_state { WAITING, OPEN, OVER };

struct asking {
    int64_t id;
    struct lm_question question; /* own copies */
    cJSON *messages, *schema;
    char *schema_name;

    enum asking_state state;
    double asked_s, not_before_s;
    int site; /* where the next try goes, or is */
    int tries_there;
    int tries;                        /* in all, that may have to be paid for */
    unsigned given_up;                /* bits of sites that failed for good */
    unsigned forms[LM_ENDPOINTS_MAX]; /* of enum lm_form */
    unsigned thinking;     /* bits of sites whose model wants to be asked as one that thinks */
    struct lm_try attempt; /* while OPEN */
    struct lm_answer answer;
    struct asking *next;
};

struct lm {
    struct lm_options options;
    struct http *http;
    struct lm_site sites[LM_ENDPOINTS_MAX];
    int site_count;
    struct asking *askings; /* in the order of their ids */
    int open;
    int64_t last_id;
};

/* ---- lifetime ---- */

static void check_options(const struct lm_options *options, struct json_problems *problems)
{
    const struct {
        const char *name;
        double value;
    } times[] = {
        {"connect_s", options->connect_s},     {"stall_s", options->stall_s},
        {"total_s", options->total_s},         {"pause_s", options->pause_s},
        {"pause_max_s", options->pause_max_s},
    };
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        if (!isfinite(times[i].value) || times[i].value <= 0) {
            json_problems_add(problems, "", "%s is %g; it must be more than 0", times[i].name,
                              times[i].value);
        }
    }
    if (options->endpoint_count < 1 || options->endpoint_count > LM_ENDPOINTS_MAX) {
        json_problems_add(problems, "", "%d endpoints; there may be 1 to %d",
                          options->endpoint_count, LM_ENDPOINTS_MAX);
    }
    if (options->concurrency < 1 || options->tries < 1) {
        json_problems_add(problems, "", "concurrency and tries must be at least 1");
    }
}

enum status lm_create(const struct lm_options *options, struct http *http, struct lm **out,
                      struct error *err)
{
    struct json_problems problems;
    json_problems_init(&problems);
    enum status status = STATUS_OK;
    struct lm *lm = mem_calloc(1, sizeof(*lm));
    if (lm == NULL) {
        status = mem_fail(err, sizeof(*lm), "a client of language models");
        goto cleanup;
    }
    lm->options = *options;
    lm->http = http;
    check_options(options, &problems);
    for (int i = 0; i < options->endpoint_count && i < LM_ENDPOINTS_MAX; i++) {
        lm->site_count = i + 1;
        TRY_CLEANUP(lm_site_open(&options->endpoints[i], i + 1, &lm->sites[i], &problems,
                                 options->log, err));
    }
    TRY_CLEANUP(json_problems_check(&problems, "language models", err));
    *out = lm;
    lm = NULL;
cleanup:
    lm_destroy(lm);
    json_problems_fini(&problems);
    return status;
}

static void hide_keys(const struct lm *lm, size_t part_bytes, char *text)
{
    for (int i = 0; i < lm->site_count; i++) {
        lm_hide_key(lm->sites[i].key, part_bytes, text);
    }
}

void lm_hide_keys(const struct lm *lm, char *text)
{
    hide_keys(lm, LM_KEY_PART_BYTES, text);
}

/* ---- one question's life ---- */

void lm_answer_fini(struct lm_answer *answer)
{
    free(answer->text);
    answer->text = NULL;
}

static void close_asking(struct lm *lm, struct asking *asking)
{
    if (asking->state == OPEN) {
        http_cancel(lm->http, asking->attempt.http_id);
        lm_try_fini(&asking->attempt);
        lm->open--;
    }
    cJSON_Delete(asking->messages);
    cJSON_Delete(asking->schema);
    free(asking->schema_name);
    lm_answer_fini(&asking->answer);
    free(asking);
}

void lm_destroy(struct lm *lm)
{
    if (lm == NULL) {
        return;
    }
    while (lm->askings != NULL) {
        struct asking *next = lm->askings->next;
        close_asking(lm, lm->askings);
        lm->askings = next;
    }
    for (int i = 0; i < lm->site_count; i++) {
        lm_site_close(&lm->sites[i]);
    }
    free(lm);
}

static bool is_role(const char *role)
{
    return role != NULL && (strcmp(role, "system") == 0 || strcmp(role, "user") == 0 ||
                            strcmp(role, "assistant") == 0);
}

static enum status copy_message(const cJSON *message, cJSON *messages, struct error *err)
{
    const char *role = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, "role"));
    const char *content =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, "content"));
    if (!is_role(role) || content == NULL || strlen(content) > PROMPT_MAX_BYTES) {
        return FAIL(err, STATUS_INVALID,
                    "message %d is not {role: system, user or assistant, content: a text of at "
                    "most %d bytes}",
                    cJSON_GetArraySize(messages) + 1, PROMPT_MAX_BYTES);
    }
    size_t length = strlen(content);
    char *repaired = mem_calloc(3 * length + 1, 1);
    if (repaired == NULL) {
        return mem_fail(err, 3 * length, "a message");
    }
    text_repair(content, length, repaired);
    cJSON *copy = cJSON_CreateObject();
    bool is_copied = cJSON_AddStringToObject(copy, "role", role) != NULL &&
                     cJSON_AddStringToObject(copy, "content", repaired) != NULL &&
                     cJSON_AddItemToArray(messages, copy);
    free(repaired);
    if (!is_copied) {
        cJSON_Delete(copy);
        return mem_fail(err, length, "a message");
    }
    return STATUS_OK;
}

static enum status copy_question(const struct lm_question *question, struct asking *asking,
                                 struct error *err)
{
    bool is_good = cJSON_IsArray(question->messages) && question->messages->child != NULL &&
                   (question->schema == NULL || cJSON_IsObject(question->schema)) &&
                   question->max_tokens > 0 && isfinite(question->temperature) &&
                   question->temperature >= 0;
    if (!is_good) {
        return FAIL(err, STATUS_INVALID,
                    "a question needs messages, max_tokens above 0, a temperature, and a schema "
                    "that is an object, if any");
    }
    asking->messages = cJSON_CreateArray();
    if (asking->messages == NULL) {
        return mem_fail(err, sizeof(cJSON), "messages");
    }
    const cJSON *message = NULL;
    cJSON_ArrayForEach (message, question->messages) {
        TRY(copy_message(message, asking->messages, err));
    }
    asking->schema = cJSON_Duplicate(question->schema, true);
    asking->schema_name = mem_strdup(question->schema_name != NULL ? question->schema_name : "");
    if ((asking->schema == NULL && question->schema != NULL) || asking->schema_name == NULL) {
        return mem_fail(err, sizeof(cJSON), "a schema");
    }
    asking->question = *question;
    asking->question.messages = asking->messages;
    asking->question.schema = asking->schema;
    asking->question.schema_name = asking->schema_name;
    return STATUS_OK;
}

/* The first endpoint that did not just fail or close; all did: the first. */
static int first_site(const struct lm *lm, double now_s)
{
    for (int i = 0; i < lm->site_count; i++) {
        const struct lm_site *site = &lm->sites[i];
        if (site->poor_until_s <= now_s && site->closed_until_s <= now_s) {
            return i;
        }
    }
    return 0;
}

/* The next one after `site` that has not failed this question for good, itself the last; -1: none.
 */
static int next_site(const struct lm *lm, const struct asking *asking)
{
    for (int step = 1; step <= lm->site_count; step++) {
        int site = (asking->site + step) % lm->site_count;
        if ((asking->given_up & 1u << site) == 0) {
            return site;
        }
    }
    return -1;
}

enum status lm_ask(struct lm *lm, const struct lm_question *question, int64_t *id,
                   struct error *err)
{
    struct asking *asking = mem_calloc(1, sizeof(*asking));
    if (asking == NULL) {
        return mem_fail(err, sizeof(*asking), "a question");
    }
    enum status status = STATUS_OK;
    TRY_CLEANUP(copy_question(question, asking, err));
    asking->asked_s = clock_monotonic_s();
    asking->site = first_site(lm, asking->asked_s);
    for (int i = 0; i < lm->site_count; i++) {
        asking->forms[i] = lm->sites[i].form;
        asking->thinking |= lm->sites[i].endpoint.thinks ? 1u << i : 0u;
    }
    asking->id = ++lm->last_id;
    struct asking **end = &lm->askings;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = asking;
    *id = asking->id;
    return STATUS_OK;
cleanup:
    close_asking(lm, asking);
    return status;
}

/* ---- the end of a question ---- */

static void name_answer(const struct lm_site *site, const char *model, struct lm_answer *answer)
{
    snprintf(answer->model, sizeof(answer->model), "%s", model);
    snprintf(answer->provider, sizeof(answer->provider), "%s", site->provider->name);
    snprintf(answer->host, sizeof(answer->host), "%s", site->host);
}

static void end_asking(struct lm *lm, struct asking *asking, const struct error *problem)
{
    struct lm_answer *answer = &asking->answer;
    asking->state = OVER;
    answer->seconds = clock_monotonic_s() - asking->asked_s;
    if (problem != NULL) {
        answer->status = problem->code;
        answer->error = *problem;
        lm_hide_keys(lm, answer->error.message);
        name_answer(&lm->sites[asking->site], lm->sites[asking->site].endpoint.model, answer);
        if (answer->attempts > 1) {
            error_context(&answer->error, "after %d attempts", answer->attempts);
        }
    }
}

static void take_text(struct lm *lm, struct asking *asking)
{
    struct lm_site *site = &lm->sites[asking->site];
    struct lm_reading *reading = &asking->attempt.reading;
    struct lm_answer *answer = &asking->answer;
    name_answer(site, reading->model[0] != '\0' ? reading->model : site->endpoint.model, answer);
    hide_keys(lm, SIZE_MAX, answer->model);
    answer->cut = reading->cut;
    answer->text = buffer_take(&reading->text);
    if (answer->text == NULL) {
        struct error problem = {0};
        FAIL(&problem, STATUS_NO_MEMORY, "no memory for a reply");
        end_asking(lm, asking, &problem);
        return;
    }
    /* An endpoint that sends back what it was sent does not get a key into a file. (Whole keys: a
     * part of "sk-no-key-required" is a word that a reply may need.) */
    hide_keys(lm, SIZE_MAX, answer->text);
    site->form = asking->forms[asking->site];
    site->endpoint.thinks = (asking->thinking & 1u << asking->site) != 0;
    site->poor_until_s = 0;
    end_asking(lm, asking, NULL);
}

static void pay(struct lm *lm, struct asking *asking, const struct http_response *response)
{
    const struct lm_site *site = &lm->sites[asking->site];
    int64_t tokens_in = 0;
    int64_t tokens_out = 0;
    if (lm_try_tokens(&asking->attempt, &asking->question, response, &tokens_in, &tokens_out)) {
        asking->answer.tokens_in += tokens_in;
        asking->answer.tokens_out += tokens_out;
        asking->answer.cost_usd +=
            ((double)tokens_in * site->input_usd + (double)tokens_out * site->output_usd) / 1e6;
    }
}

/* ---- after a try that failed ---- */

static double pause_after(const struct lm *lm, int tries)
{
    double pause_s = lm->options.pause_s * pow(2.0, tries - 1);
    return fmin(pause_s, lm->options.pause_max_s);
}

static void try_again(struct lm *lm, struct asking *asking, double retry_after_s,
                      const struct error *problem)
{
    struct lm_site *site = &lm->sites[asking->site];
    double now_s = clock_monotonic_s();
    if (isfinite(retry_after_s)) {
        site->closed_until_s = now_s + fmin(retry_after_s, lm->options.pause_max_s);
    }
    asking->tries_there++;
    bool goes_on = asking->tries_there >= TRIES_AT_ONE;
    if (goes_on) {
        site->poor_until_s = now_s + lm->options.pause_max_s;
    }
    if (asking->tries >= lm->options.tries) {
        end_asking(lm, asking, problem);
        return;
    }
    double pause_s = pause_after(lm, asking->tries);
    asking->not_before_s = now_s + pause_s;
    if (goes_on) {
        asking->site = next_site(lm, asking);
        asking->tries_there = 0;
    }
    log_write(lm->options.log, LOG_WARNING, "net", "%s; again after %.1f s at %s", problem->message,
              pause_s, lm->sites[asking->site].host);
}

static void go_elsewhere(struct lm *lm, struct asking *asking, const struct error *problem)
{
    lm->sites[asking->site].poor_until_s = clock_monotonic_s() + lm->options.pause_max_s;
    asking->given_up |= 1u << asking->site;
    int site = next_site(lm, asking);
    if (site < 0 || asking->tries >= lm->options.tries) {
        end_asking(lm, asking, problem);
        return;
    }
    asking->site = site;
    asking->tries_there = 0;
    log_write(lm->options.log, LOG_WARNING, "net", "%s; now %s", problem->message,
              lm->sites[site].host);
}

static void ask_simpler(struct lm *lm, struct asking *asking, const struct error *problem)
{
    const char *left_out = "";
    if (asking->tries >= lm->options.tries) {
        end_asking(lm, asking, problem);
        return;
    }
    asking->forms[asking->site] = lm_try_simpler(&asking->attempt, &left_out);
    log_write(lm->options.log, LOG_WARNING, "net", "%s; again without %s", problem->message,
              left_out);
}

static void ask_thinking(struct lm *lm, struct asking *asking, const struct error *problem)
{
    asking->thinking |= 1u << asking->site;
    log_write(lm->options.log, LOG_INFO, "net", "%s; again as a model that thinks",
              problem->message);
}

static void settle(struct lm *lm, struct asking *asking, const struct http_response *response)
{
    struct error problem = {0};
    const struct lm_site *site = &lm->sites[asking->site];
    enum lm_verdict verdict = lm_try_judge(&asking->attempt, site, response, &problem);
    asking->state = WAITING;
    lm->open--;
    pay(lm, asking, response);
    bool served = response->code >= 200 && response->code < 300; /* and put down: see pay() */
    asking->tries += verdict == LM_PASSING || served;
    switch (verdict) {
    case LM_ANSWERED:
        take_text(lm, asking);
        break;
    case LM_PASSING:
        try_again(lm, asking, response->retry_after_s, &problem);
        break;
    case LM_LASTING:
        go_elsewhere(lm, asking, &problem);
        break;
    case LM_SIMPLER:
        ask_simpler(lm, asking, &problem);
        break;
    case LM_THINKING:
        ask_thinking(lm, asking, &problem);
        break;
    case LM_REFUSED:
        end_asking(lm, asking, &problem);
        break;
    }
    lm_try_fini(&asking->attempt);
}

/* ---- turn ---- */

static void start_try(struct lm *lm, struct asking *asking)
{
    struct error problem = {0};
    struct lm_site site = lm->sites[asking->site];
    site.form = asking->forms[asking->site];
    site.endpoint.thinks = (asking->thinking & 1u << asking->site) != 0;
    asking->answer.attempts++;
    /* A server that gives the same for the same seed would fail in the same way again. */
    struct lm_question question = asking->question;
    bool seeded = question.seed >= 0 && question.seed < INT64_MAX - asking->tries;
    question.seed += seeded ? asking->tries : 0;
    if (lm_try_start(&asking->attempt, lm->http, &site, &question, &lm->options, &problem) ==
        STATUS_OK) {
        asking->state = OPEN;
        lm->open++;
    } else {
        lm_hide_keys(lm, problem.message);
        end_asking(lm, asking, &problem);
    }
}

enum status lm_turn(struct lm *lm, struct error *err)
{
    TRY(http_turn(lm->http, err));
    for (struct asking *asking = lm->askings; asking != NULL; asking = asking->next) {
        struct http_response response;
        if (asking->state == OPEN && http_take(lm->http, asking->attempt.http_id, &response)) {
            settle(lm, asking, &response);
            http_response_fini(&response);
        }
    }
    double now_s = clock_monotonic_s();
    for (struct asking *asking = lm->askings; asking != NULL; asking = asking->next) {
        bool is_due = asking->state == WAITING && asking->not_before_s <= now_s &&
                      lm->sites[asking->site].closed_until_s <= now_s;
        if (is_due && lm->open < lm->options.concurrency) {
            start_try(lm, asking);
        }
    }
    return STATUS_OK;
}

bool lm_take(struct lm *lm, int64_t id, struct lm_answer *out)
{
    for (struct asking **place = &lm->askings; *place != NULL; place = &(*place)->next) {
        struct asking *asking = *place;
        if (asking->id == id && asking->state == OVER) {
            *out = asking->answer;
            asking->answer.text = NULL;
            *place = asking->next;
            close_asking(lm, asking);
            return true;
        }
    }
    return false;
}

void lm_cancel(struct lm *lm, int64_t id)
{
    for (struct asking **place = &lm->askings; *place != NULL; place = &(*place)->next) {
        struct asking *asking = *place;
        if (asking->id == id) {
            *place = asking->next;
            close_asking(lm, asking);
            return;
        }
    }
}
