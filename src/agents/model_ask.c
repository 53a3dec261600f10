/* A question until a reply fits.
 *
 *   <key>/1 -> does not fit -> <repair>/1 -> does not fit -> <repair>/2 -> ...
 *
 * Nothing is kept between turns: each walks from the first key over the answers that the search
 * has. A repair shows the reply, what is wrong with it, and the request. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/memory.h"
#include "agents/model_parts.h"
#include "agents/reply.h"
#include "base/mem.h"
#include "base/text.h"

enum { KEY_BYTES = SEARCH_CALL_KEY_BYTES, COMPLAINTS_SHOWN_BYTES = 6000, MEMORY_TRIES = 12 };

/* ---- values ---- */

void model_add_text(struct model_values *values, const char *name, const char *text, int quoted,
                    int trim)
{
    size_t length = strnlen(text, MODEL_TEXT_MAX_BYTES);
    char *copy = mem_strndup(text, length);
    if (values->count == MODEL_VALUES_MAX || copy == NULL) {
        values->failed = true;
        free(copy);
        return;
    }
    values->items[values->count] = (struct prompt_value){name, copy, quoted == MODEL_QUOTED, trim};
    values->owned[values->count++] = copy;
}

void model_add_value(struct model_values *values, const char *name, struct buffer *text, int quoted,
                     int trim)
{
    values->failed = values->failed || text->out_of_memory; /* a text that is too long is cut */
    model_add_text(values, name, buffer_text(text), quoted, trim);
    buffer_fini(text);
}

void model_values_fini(struct model_values *values)
{
    for (int i = 0; i < values->count; i++) {
        free(values->owned[i]);
    }
    values->count = 0;
}

/* ---- memory in what is left ---- */

/* The longest text of the node's memory that, quoted, fits in so many tokens: memory.h decides what
 * goes first. */
static enum status render_memory(const struct search *search, int32_t node, int64_t tokens,
                                 struct buffer *out, struct error *err)
{
    struct memory memory;
    size_t bytes = (size_t)(tokens > 0 ? tokens : 0) * 4;
    memory_select(search, node, &memory);
    for (int i = 0; i < MEMORY_TRIES && bytes >= 64; i++) {
        buffer_clear(out);
        TRY(memory_render(search, &memory, bytes, out, err));
        const struct prompt probe = {"memory", "{{memory}}", NULL};
        const struct prompt_value value = {"memory", buffer_text(out), true, 0};
        cJSON *body = NULL;
        enum status status = prompt_fill(&probe, &value, 1, tokens, &body, err);
        cJSON_Delete(body);
        if (status != STATUS_LIMIT) {
            return status;
        }
        bytes = bytes * 4 / 5;
    }
    buffer_clear(out);
    return STATUS_OK;
}

static enum status fill_prompt(const struct model *model, const struct search *search,
                               const struct prompt *prompt, struct model_values *values,
                               cJSON **body, struct error *err)
{
    enum status status = STATUS_OK;
    int64_t budget = model->options.prompt_tokens;
    struct buffer memory;
    buffer_init(&memory, MODEL_TEXT_MAX_BYTES * 8);
    if (values->memory_node >= 0) {
        cJSON *without = NULL;
        int at = values->count;
        model_add_text(values, "memory", "", MODEL_QUOTED, 1);
        TRY_CLEANUP(prompt_fill(prompt, values->items, values->count, budget, &without, err));
        int64_t left = budget - prompt_tokens(without);
        cJSON_Delete(without);
        /* The other values give way down to half of the budget: memory is what a plan rests on. */
        TRY_CLEANUP(render_memory(search, values->memory_node,
                                  left > budget / 2 ? left : budget / 2, &memory, err));
        values->items[at].text = buffer_text(&memory);
    }
    status = values->failed ? mem_fail(err, MODEL_TEXT_MAX_BYTES, "a prompt")
                            : prompt_fill(prompt, values->items, values->count, budget, body, err);
cleanup:
    buffer_fini(&memory);
    return status;
}

/* ---- the body ---- */

/* What the first attempt was told, as the record has it; not the schema, which a repair has itself.
 */
static void add_request(const struct search *search, const char *key, struct model_values *values)
{
    const struct search_call *first = calls_find(search, key);
    cJSON *body = cJSON_Parse(first != NULL ? search_text(first->body) : "");
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    const cJSON *message = NULL;
    cJSON_ArrayForEach (message, cJSON_GetObjectItemCaseSensitive(body, "messages")) {
        const char *content =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, "content"));
        const char *role = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, "role"));
        bool ours = role != NULL && strcmp(role, "system") == 0 && content != NULL;
        const char *schema = ours ? strstr(content, PROMPT_ASKS) : NULL;
        size_t length = content != NULL ? strnlen(content, MODEL_TEXT_MAX_BYTES / 2) : 0;
        length = schema != NULL && (size_t)(schema - content) < length ? (size_t)(schema - content)
                                                                       : length;
        buffer_append(&text, content, length);
        buffer_append_text(&text, "\n\n");
    }
    cJSON_Delete(body);
    model_add_value(values, "request", &text, MODEL_QUOTED, 2);
}

struct attempt {
    const struct model_question *question;
    int number;             /* 0: the first; n: the n-th repair */
    const char *reply;      /* of the attempt before */
    const char *complaints; /* about it */
};

static void attempt_key(const struct model_question *question, int number, char out[KEY_BYTES])
{
    snprintf(out, KEY_BYTES, "%s/%d", number == 0 ? question->key : question->repair,
             number == 0 ? 1 : number);
}

static enum status make_body(struct model *model, const struct search *search,
                             const struct attempt *attempt, cJSON **body, struct error *err)
{
    const struct model_question *question = attempt->question;
    const struct prompt *prompt = prompt_find(question->prompt);
    const struct prompt *repair = prompt_find("repair");
    struct model_values values = {.memory_node = -1};
    if (prompt == NULL || repair == NULL) {
        return FAIL(err, STATUS_INTERNAL, "there is no prompt \"%s\"", question->prompt);
    }
    struct prompt used = *prompt;
    if (attempt->number == 0) {
        question->fill(model, search, question->context, &values);
    } else {
        char key[KEY_BYTES];
        attempt_key(question, 0, key);
        used = (struct prompt){repair->name, repair->text, prompt->schema};
        model_add_text(&values, "complaints", attempt->complaints, MODEL_QUOTED, 1);
        model_add_text(&values, "reply", attempt->reply, MODEL_QUOTED, 3);
        add_request(search, key, &values);
    }
    enum status status = fill_prompt(model, search, &used, &values, body, err);
    model_values_fini(&values);
    TRY(status);
    /* Another one each time: a reply that is wrong as the one before has the same complaints. */
    double seed = (double)((model->facts->seed + (uint64_t)attempt->number) & 0x7fffffff);
    bool whole =
        cJSON_AddNumberToObject(*body, "max_tokens", (double)model->options.reply_tokens) != NULL &&
        cJSON_AddNumberToObject(*body, "temperature", model->options.temperature) != NULL &&
        cJSON_AddNumberToObject(*body, "seed", seed) != NULL;
    if (!whole) {
        cJSON_Delete(*body);
        *body = NULL;
        return mem_fail(err, 64, "a prompt");
    }
    return STATUS_OK;
}

/* ---- asking ---- */

static enum status ask(struct model *model, const struct search *search,
                       const struct attempt *attempt, const char *key, struct error *err)
{
    const struct model_question *question = attempt->question;
    cJSON *body = NULL;
    TRY(make_body(model, search, attempt, &body, err));
    struct call_question asked = {
        .key = key,
        .purpose = attempt->number == 0 ? question->purpose : "repair",
        .node = question->node,
        .kind = CALL_CHAT,
        .body = body,
    };
    return calls_ask(model->options.calls, search, &asked, err);
}

/* A text that may have been cut in the middle of a character, whole again, its lines as one. */
static void set_why(char why[MODEL_WHY_BYTES], const char *format, const char *text)
{
    char cut[MODEL_WHY_BYTES / 3];
    char formatted[MODEL_WHY_BYTES];
    size_t used = 0;
    for (const char *at = text; *at != '\0' && used + 3 < sizeof(cut); at++) {
        if (*at != '\n') {
            cut[used++] = *at;
        } else if (at[1] != '\0') {
            cut[used++] = ';';
            cut[used++] = ' ';
        }
    }
    cut[used] = '\0';
    snprintf(formatted, sizeof(formatted), format, cut);
    formatted[(sizeof(formatted) - 1) / 3] = '\0';
    text_repair(formatted, strlen(formatted), why);
}

/* The reply as JSON that fits, or NULL with what is wrong in `problems`. */
static cJSON *read_attempt(struct model *model, const struct search *search,
                           const struct model_question *question, const struct search_call *call,
                           struct json_problems *problems)
{
    const struct prompt *prompt = prompt_find(question->prompt);
    cJSON *schema = prompt != NULL ? cJSON_Parse(prompt->schema) : NULL;
    cJSON *json = NULL;
    struct error ignored;
    if (schema == NULL || reply_read(call->reply, schema, problems, &json, &ignored) != STATUS_OK) {
        cJSON_Delete(schema);
        return NULL;
    }
    cJSON_Delete(schema);
    if (question->check != NULL) {
        question->check(model, search, question->context, json, problems);
    }
    if (problems->count > 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

cJSON *model_read_reply(const char *prompt, const char *text)
{
    struct model_question question = {.prompt = prompt};
    struct search_call call = {.reply = (char *)text};
    struct json_problems problems;
    json_problems_init(&problems);
    cJSON *json = read_attempt(NULL, NULL, &question, &call, &problems);
    json_problems_fini(&problems);
    return json;
}

/* What is wrong, as it is shown to the model: not without end. */
static char *copy_complaints(const char *text)
{
    char *copy = mem_strndup(text, strlen(text) < COMPLAINTS_SHOWN_BYTES ? strlen(text)
                                                                         : COMPLAINTS_SHOWN_BYTES);
    return copy;
}

struct model_reply model_ask(struct model *model, const struct search *search,
                             const struct model_question *question)
{
    struct model_reply out = {.state = MODEL_WAITS};
    char *complaints = copy_complaints(question->complaint != NULL ? question->complaint : "");
    const char *reply = "";
    char key[KEY_BYTES];
    if (question->attempt > 0) {
        attempt_key(question, question->attempt - 1, key);
        const struct search_call *before = calls_find(search, key);
        reply = before != NULL && before->reply != NULL ? before->reply : "";
    }
    for (int number = question->attempt;; number++) {
        struct error err = {0};
        out.attempt = number;
        if (number > model->options.repairs || complaints == NULL) {
            out.state = MODEL_FAILED;
            set_why(out.why, "no reply could be used: %s", complaints != NULL ? complaints : "");
            break;
        }
        attempt_key(question, number, key);
        out.call = calls_find(search, key);
        if (out.call == NULL) {
            const struct attempt attempt = {question, number, reply, complaints};
            bool open = calls_is_open(model->options.calls, key);
            if (!open && ask(model, search, &attempt, key, &err) != STATUS_OK) {
                out.state = MODEL_FAILED;
                set_why(out.why, "it was not asked: %s", err.message);
            } else {
                memcpy(out.waits_for, key, sizeof(out.waits_for));
            }
            break;
        }
        if (out.call->reply == NULL) {
            out.state = MODEL_FAILED;
            set_why(out.why, out.call->attempts > 0 ? "no answer came: %s" : "it was not asked: %s",
                    search_text(out.call->error));
            break;
        }
        struct json_problems problems;
        json_problems_init(&problems);
        out.answered = true;
        out.json = read_attempt(model, search, question, out.call, &problems);
        free(complaints);
        complaints = copy_complaints(buffer_text(&problems.text));
        json_problems_fini(&problems);
        reply = out.call->reply;
        if (out.json != NULL) {
            out.state = MODEL_READY;
            break;
        }
    }
    free(complaints);
    return out;
}

void model_reply_fini(struct model_reply *reply)
{
    cJSON_Delete(reply->json);
    reply->json = NULL;
}

/* ---- sources ---- */

enum model_state model_ask_source(struct model *model, const struct search *search,
                                  const cJSON *question, cJSON **answer, char why[MODEL_WHY_BYTES])
{
    char hash[HASH_TEXT_BYTES];
    char key[KEY_BYTES];
    struct error err = {0};
    const char *source = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(question, "source"));
    char *line = json_print_line(question);
    if (line == NULL || source == NULL) {
        free(line);
        set_why(why, "%s", "no memory");
        return MODEL_FAILED;
    }
    hash_bytes(line, strlen(line), hash);
    free(line);
    snprintf(key, sizeof(key), "source/%.40s/%s", source, hash);
    const struct search_call *call = calls_find(search, key);
    if (call == NULL) {
        struct call_question asked = {.key = key,
                                      .purpose = "source",
                                      .node = -1,
                                      .kind = CALL_SOURCE,
                                      .body = cJSON_Duplicate(question, true)};
        if (calls_is_open(model->options.calls, key)) {
            cJSON_Delete(asked.body);
            return MODEL_WAITS;
        }
        if (calls_ask(model->options.calls, search, &asked, &err) != STATUS_OK) {
            set_why(why, "%s", err.message);
            return MODEL_FAILED;
        }
        return MODEL_WAITS;
    }
    if (call->reply == NULL ||
        json_parse(call->reply, strlen(call->reply), source, answer, &err) != STATUS_OK) {
        set_why(why, "%s", call->reply == NULL ? search_text(call->error) : err.message);
        return MODEL_FAILED;
    }
    return MODEL_READY;
}
