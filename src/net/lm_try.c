#include "net/lm_try.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

enum {
    REQUEST_MAX_BYTES = 64 << 20,
    SECRET_MAX_BYTES = 8192,
    /* A stream repeats itself in every event, and thoughts that are not kept count too. */
    ANSWER_MAX_BYTES = 256 << 20,
    IMPLAUSIBLE = 16, /* times what can be: a count that nobody has to believe */
};

/* ---- start ---- */

static enum status on_bytes(void *context, const char *bytes, size_t len_bytes, struct error *err)
{
    struct lm_try *attempt = context;
    return lm_stream_feed(&attempt->stream, bytes, len_bytes, err);
}

struct request_text {
    struct buffer url, headers, secret, body;
};

static void init_request(struct request_text *text)
{
    buffer_init(&text->url, HTTP_URL_MAX_BYTES);
    buffer_init(&text->headers, SECRET_MAX_BYTES);
    buffer_init(&text->secret, SECRET_MAX_BYTES);
    buffer_init(&text->body, REQUEST_MAX_BYTES);
}

static void fini_request(struct request_text *text)
{
    if (text->secret.data != NULL) {
        explicit_bzero(text->secret.data, text->secret.capacity_bytes);
    }
    buffer_fini(&text->url);
    buffer_fini(&text->headers);
    buffer_fini(&text->secret);
    buffer_fini(&text->body);
}

static enum status check_request(const struct request_text *text, struct error *err)
{
    TRY(buffer_check(&text->url, "a URL", err));
    TRY(buffer_check(&text->headers, "headers of a request", err));
    TRY(buffer_check(&text->secret, "a key", err));
    return buffer_check(&text->body, "a request", err);
}

static void split_lines(char *text, const char *lines[HTTP_HEADERS_MAX + 1])
{
    int count = 0;
    char *rest = text;
    for (char *line = NULL; count < HTTP_HEADERS_MAX && (line = strsep(&rest, "\n")) != NULL;) {
        if (line[0] != '\0') {
            lines[count++] = line;
        }
    }
    lines[count] = NULL;
}

enum status lm_try_start(struct lm_try *attempt, struct http *http, const struct lm_site *site,
                         const struct lm_question *question, const struct lm_options *options,
                         struct error *err)
{
    enum status status = STATUS_OK;
    memset(attempt, 0, sizeof(*attempt));
    attempt->form = site->form;
    attempt->thinks = site->endpoint.thinks;
    buffer_init(&attempt->reading.text, LM_REPLY_MAX_BYTES);
    lm_stream_init(&attempt->stream, site->provider, &attempt->reading);
    struct request_text text;
    init_request(&text);
    site->provider->write(&site->endpoint, question, site->form, site->key, &text.url,
                          &text.headers, &text.secret, &text.body);
    TRY_CLEANUP(check_request(&text, err));
    attempt->sent_bytes = text.body.len_bytes;
    const char *headers[HTTP_HEADERS_MAX + 1] = {NULL};
    if (text.headers.data != NULL) {
        split_lines(text.headers.data, headers);
    }
    const struct http_request request = {
        .url = buffer_text(&text.url),
        .headers = headers,
        .secret_header = text.secret.len_bytes > 0 ? buffer_text(&text.secret) : NULL,
        .body = buffer_text(&text.body),
        .body_bytes = text.body.len_bytes,
        .connect_s = options->connect_s,
        .stall_s = options->stall_s,
        .total_s = options->total_s,
        .max_bytes = ANSWER_MAX_BYTES,
        .on_bytes = on_bytes,
        .context = attempt,
    };
    TRY_CLEANUP(http_start(http, &request, &attempt->http_id, err));
cleanup:
    fini_request(&text);
    if (status != STATUS_OK) {
        lm_try_fini(attempt);
    }
    return status;
}

void lm_try_fini(struct lm_try *attempt)
{
    lm_stream_fini(&attempt->stream);
    buffer_fini(&attempt->reading.text);
}

/* ---- what came of it ---- */

static const char *const about_schema[] = {
    "output_config", "response_format",  "schema", "structured",       "grammar", "guided",
    "tool_choice",   "function_calling", "tools",  "responseMimeType", NULL,
};
static const char *const about_extras[] = {"seed", "temperature", "stream_options", NULL};

/* What the endpoint said tells of the schema or of the extras, which may be left out. */
static bool complains_of_form(const struct lm_try *attempt)
{
    const char *words = attempt->reading.problem;
    return ((attempt->form & (LM_FORM_SCHEMA | LM_FORM_JSON)) != 0 &&
            lm_holds_one_of(words, about_schema)) ||
           ((attempt->form & LM_FORM_EXTRAS) != 0 && lm_holds_one_of(words, about_extras));
}

unsigned lm_try_simpler(const struct lm_try *attempt, const char **left_out)
{
    const char *words = attempt->reading.problem;
    unsigned form = attempt->form;
    bool extras = (form & LM_FORM_EXTRAS) != 0 && lm_holds_one_of(words, about_extras) &&
                  !lm_holds_one_of(words, about_schema);
    if (!extras && (form & LM_FORM_BOUNDS) != 0) {
        *left_out = "bounds of texts in the schema";
        return form & ~(unsigned)LM_FORM_BOUNDS;
    }
    if (!extras && (form & LM_FORM_SCHEMA) != 0) {
        *left_out = "the schema";
        return form & ~(unsigned)LM_FORM_SCHEMA;
    }
    if (!extras && (form & LM_FORM_JSON) != 0) {
        *left_out = "asking for JSON";
        return form & ~(unsigned)LM_FORM_JSON;
    }
    *left_out = "seed, temperature and a count of tokens";
    return form & ~(unsigned)LM_FORM_EXTRAS;
}

/* {"detail": ...} or {"message": ...}: a text, or a list of what was found where. */
static void read_detail(const cJSON *event, struct lm_reading *reading)
{
    const cJSON *detail = lm_get(event, "detail");
    const char *text = cJSON_GetStringValue(detail);
    char *line = text == NULL && detail != NULL ? json_print_line(detail) : NULL;
    text = text != NULL ? text : line;
    text = text != NULL ? text : lm_get_text(event, "message");
    lm_put_problem("", text != NULL ? text : "", reading);
    free(line);
}

/* An answer with another code than 2xx: its own words, on one line. */
static void read_words(struct lm_try *attempt, const struct http_response *response)
{
    struct lm_reading *reading = &attempt->reading;
    cJSON *body = NULL;
    reading->problem[0] = '\0';
    if (lm_parse_foreign(response->body, response->body_bytes, &body, NULL) == STATUS_OK) {
        const cJSON *event = cJSON_IsArray(body) ? body->child : body;
        if (!lm_read_problem(event, reading)) {
            read_detail(event, reading);
        }
    } else if (strstr(response->content_type, "html") == NULL) {
        lm_put_problem("", response->body, reading);
    }
    cJSON_Delete(body);
}

struct code_rule {
    int code;
    enum lm_verdict verdict;
    enum status status;
    const char *advice;
};

#define LONGER_CONTEXT "; lower prompt_tokens, or serve the model with a longer context"

/* The first row that fits; code 0 ends it and stands for every other one. */
static const struct code_rule code_rules[] = {
    {400, LM_LASTING, STATUS_INVALID, ""},
    {413, LM_LASTING, STATUS_LIMIT, LONGER_CONTEXT},
    {422, LM_LASTING, STATUS_INVALID, ""},
    {401, LM_LASTING, STATUS_PERMISSION, "; check the key"},
    {403, LM_LASTING, STATUS_PERMISSION, "; check what the key may do"},
    {404, LM_LASTING, STATUS_NOT_FOUND, "; check URL and model"},
    {408, LM_PASSING, STATUS_TIMEOUT, ""},
    {425, LM_PASSING, STATUS_EXTERNAL, ""},
    {429, LM_PASSING, STATUS_EXTERNAL, ""},
    {0, LM_LASTING, STATUS_EXTERNAL, ""},
};

/* Each server has its own words for a prompt and a reply that are longer than its context. */
static bool is_too_long(const char *words)
{
    static const char *const known[] = {
        "context size",    "context length", "context window", "context_length",
        "context_size",    "model length",   "too long",       "token count",
        "too many tokens", "max_tokens",     "prompt length",  NULL,
    };
    return lm_holds_one_of(words, known);
}

static bool is_about_model(const char *words)
{
    static const char *const known[] = {
        "model name", "model_not_found", "model not found", "unknown model", "no such model", NULL,
    };
    return lm_holds_one_of(words, known) ||
           (strcasestr(words, "model") != NULL && strstr(words, "does not exist") != NULL);
}

static enum lm_verdict judge_code(struct lm_try *attempt, const struct lm_site *site,
                                  const struct http_response *response, struct error *problem)
{
    static const char *const about_key[] = {"API_KEY_INVALID", "API key not valid", NULL};
    static const char *const about_thinking[] = {"max_completion_tokens", NULL};
    static const char *const about_account[] = {"insufficient_quota", "billing", NULL};
    const struct code_rule *rule = code_rules;
    while (rule->code != 0 && rule->code != response->code) {
        rule++;
    }
    bool is_own_fault = response->code == 400 || response->code == 422;
    enum lm_verdict verdict = response->code >= 500 ? LM_PASSING : rule->verdict;
    enum status status = rule->status;
    const char *advice = rule->advice;
    read_words(attempt, response);
    const char *words = attempt->reading.problem;
    if (response->code == 400 && lm_holds_one_of(words, about_key)) {
        advice = "; check the key";
    } else if (response->code == 429 && lm_holds_one_of(words, about_account)) {
        verdict = LM_LASTING;
    } else if (is_own_fault && !attempt->thinks && lm_holds_one_of(words, about_thinking)) {
        verdict = LM_THINKING;
    } else if (is_own_fault && is_about_model(words)) {
        advice = "; check URL and model";
    } else if (is_own_fault && is_too_long(words)) {
        status = STATUS_LIMIT;
        advice = LONGER_CONTEXT;
    } else if ((is_own_fault && attempt->form != LM_FORM_PLAIN) ||
               (response->code >= 500 && complains_of_form(attempt))) {
        /* Few say plainly what they did not like; some call it a fault of their own. */
        verdict = LM_SIMPLER;
    } else if (response->code >= 300 && response->code < 400) {
        advice = "; a key is not sent on to where it points: name the right URL";
    }
    FAIL(problem, status, "%s: HTTP %d%s%s%s", site->host, response->code,
         words[0] != '\0' ? ": " : "", words, advice);
    return verdict;
}

/* The transfer itself failed, or what came could not be read. */
static enum lm_verdict judge_failure(const struct http_response *response, struct error *problem)
{
    *problem = response->error;
    switch (response->status) {
    case STATUS_TIMEOUT:
        FAIL(problem, STATUS_TIMEOUT,
             "%.400s (connect_seconds, stall_seconds and timeout_seconds "
             "of the researcher say how long a model is waited for)",
             response->error.message);
        return LM_PASSING;
    case STATUS_LIMIT:
    case STATUS_NO_MEMORY:
        return LM_REFUSED;
    case STATUS_EXTERNAL:
        return response->lasting ? LM_LASTING : LM_PASSING;
    default:
        return LM_PASSING;
    }
}

static enum lm_verdict judge_reading(struct lm_try *attempt, const struct lm_site *site,
                                     const struct http_response *response, struct error *problem)
{
    struct lm_reading *reading = &attempt->reading;
    if (reading->problem[0] != '\0') {
        FAIL(problem, STATUS_EXTERNAL, "%s: %s", site->host, reading->problem);
        if (reading->text.len_bytes == 0 && complains_of_form(attempt)) {
            return LM_SIMPLER;
        }
        return reading->passing ? LM_PASSING : LM_LASTING;
    }
    if (reading->refused) {
        FAIL(problem, STATUS_EXTERNAL, "%s: the model, or a filter, declined to answer",
             site->host);
        return LM_LASTING;
    }
    if (reading->ended) {
        return LM_ANSWERED;
    }
    if (response->status != STATUS_OK) {
        return judge_failure(response, problem);
    }
    if (reading->began) {
        FAIL(problem, STATUS_EXTERNAL, "%s: the answer ended in the middle", site->host);
    } else {
        FAIL(problem, STATUS_FORMAT, "%s: an answer without a reply in it (%s)", site->host,
             response->content_type[0] != '\0' ? response->content_type : "no content type");
    }
    return LM_PASSING;
}

static enum lm_verdict judge(struct lm_try *attempt, const struct lm_site *site,
                             const struct http_response *response, struct error *problem)
{
    bool is_good = response->code >= 200 && response->code < 300;
    if (response->status == STATUS_OK && !is_good) {
        return judge_code(attempt, site, response, problem);
    }
    if (response->status == STATUS_LIMIT || response->status == STATUS_NO_MEMORY) {
        return judge_failure(response, problem);
    }
    if (response->status == STATUS_OK) {
        struct error err = {0};
        enum status status = lm_stream_end(&attempt->stream, &err);
        if (status != STATUS_OK && !attempt->reading.ended) {
            *problem = err;
            error_context(problem, "%s", site->host);
            return status == STATUS_FORMAT ? LM_PASSING : LM_REFUSED;
        }
    }
    /* A connection that breaks after the end of the answer does no harm. */
    return judge_reading(attempt, site, response, problem);
}

enum lm_verdict lm_try_judge(struct lm_try *attempt, const struct lm_site *site,
                             const struct http_response *response, struct error *problem)
{
    enum lm_verdict verdict = judge(attempt, site, response, problem);
    lm_hide_key(site->key, LM_KEY_PART_BYTES, problem->message);
    return verdict;
}

/* ---- what it cost ---- */

static int64_t believe(int64_t said, int64_t can_be, int64_t otherwise)
{
    return said > 0 && said / IMPLAUSIBLE <= can_be ? said : otherwise;
}

bool lm_try_tokens(const struct lm_try *attempt, const struct lm_question *question,
                   const struct http_response *response, int64_t *tokens_in, int64_t *tokens_out)
{
    bool is_served = response->code >= 200 && response->code < 300;
    bool may_be_served =
        response->code == 0 && response->connected && response->status == STATUS_TIMEOUT;
    *tokens_in = *tokens_out = 0;
    if (!is_served && !may_be_served) {
        return false;
    }
    const struct lm_reading *reading = &attempt->reading;
    int64_t text_bytes = (int64_t)reading->text.len_bytes;
    *tokens_in =
        believe(reading->tokens_in, (int64_t)attempt->sent_bytes, lm_question_tokens(question));
    *tokens_out = believe(reading->tokens_out, question->max_tokens + text_bytes,
                          lm_estimate_tokens(buffer_text(&reading->text)));
    return true;
}

void lm_hide_key(const char *key, size_t part_bytes, char *text)
{
    enum { SECRET_BYTES = 8 }; /* shorter ones ("EMPTY") are there because a client wants one */
    size_t length = strlen(key);
    size_t part = length < part_bytes ? length : part_bytes;
    bool firsts[256] = {false};
    if (length < SECRET_BYTES) {
        return;
    }
    for (size_t at = 0; at + part <= length; at++) {
        firsts[(unsigned char)key[at]] = true;
    }
    size_t text_length = strlen(text);
    size_t hidden = 0; /* up to here it is part of a key */
    for (size_t at = 0; at < text_length; at++) {
        bool may_begin = firsts[(unsigned char)text[at]] && at + part <= text_length;
        for (size_t i = 0; may_begin && i + part <= length; i++) {
            if (memcmp(text + at, key + i, part) == 0) {
                hidden = at + part;
                break;
            }
        }
        if (at < hidden) {
            text[at] = '*';
        }
    }
}
