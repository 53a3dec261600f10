#include "run/answer.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "eval/generate.h"

enum { MESSAGES_MAX = 64, PROMPT_MAX_TOKENS = 1 << 20, ANSWER_MAX_TOKENS = 1 << 17 };

/* A question, read and checked; texts are borrowed from its body. */
struct question {
    struct chat_message messages[MESSAGES_MAX];
    int64_t message_count;
    int64_t max_tokens;
    double temperature;
    int64_t seed;
};

static enum status read_messages(const cJSON *list, struct question *out, struct error *err)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        const char *role = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "role"));
        const char *content =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "content"));
        if (role == NULL || content == NULL || out->message_count == MESSAGES_MAX) {
            return FAIL(err, STATUS_INVALID,
                        "/messages/%lld: allowed are at most %d objects with role and content",
                        (long long)out->message_count, MESSAGES_MAX);
        }
        out->messages[out->message_count++] = (struct chat_message){role, content};
    }
    return out->message_count > 0 ? STATUS_OK
                                  : FAIL(err, STATUS_INVALID, "/messages: there is none");
}

static enum status read_question(const cJSON *body, struct question *out, struct error *err)
{
    struct json_problems problems;
    struct json_reader reader;
    memset(out, 0, sizeof(*out));
    json_problems_init(&problems);
    json_reader_init(&reader, body, "", &problems);
    const cJSON *messages = json_read_array(&reader, "messages");
    out->max_tokens = json_read_int(&reader, "max_tokens", 1024, 1, ANSWER_MAX_TOKENS);
    out->temperature = json_read_number(&reader, "temperature", 0.0, 0.0, 10.0);
    out->seed = json_read_int(&reader, "seed", 0, -1, INT64_C(1) << 53);
    enum status status = json_problems_check(&problems, "question", err);
    json_problems_fini(&problems);
    return status == STATUS_OK ? read_messages(messages, out, err) : status;
}

static enum status encode(const struct model *model, const struct question *question,
                          struct token_list *ids, struct error *err)
{
    return chat_encode(model->tokenizer, model->chat, question->messages, question->message_count,
                       true, false, ids, NULL, err);
}

enum status answer_bound(const struct model *model, const cJSON *body, int64_t *tokens,
                         struct error *err)
{
    struct question question;
    struct token_list ids;
    TRY(read_question(body, &question, err));
    token_list_init(&ids, PROMPT_MAX_TOKENS);
    enum status status = encode(model, &question, &ids, err);
    *tokens = ids.count + question.max_tokens;
    token_list_fini(&ids);
    return status;
}

/* Whoever is told of progress knows the phases of a candidate (run/message.h). An answer has the
 * time that one of a server has. */
struct relay {
    const struct progress *to;
    double allowed_s, began_s;
};

static enum status tick(void *context, const char *phase, int64_t done, int64_t total,
                        struct error *err)
{
    const struct relay *relay = context;
    double taken_s = clock_monotonic_s() - relay->began_s;
    if (relay->allowed_s > 0.0 && taken_s > relay->allowed_s) {
        return FAIL(err, STATUS_TIMEOUT,
                    "no answer within %.0f s (researcher.timeout_seconds); lower reply_tokens or "
                    "prompt_tokens, or allow more",
                    relay->allowed_s);
    }
    const char *known = strcmp(phase, "load") == 0 ? phase : "evaluate";
    return progress_tick(relay->to, known, done, total, err);
}

static enum status generate(const struct model *model, const struct question *question,
                            const struct progress *progress, cJSON *answer, struct error *err)
{
    const struct network network = {.config = &model->config, .weights = &model->weights};
    struct generate_output output = {0};
    struct token_list ids;
    token_list_init(&ids, PROMPT_MAX_TOKENS);
    enum status status = STATUS_OK;
    TRY_CLEANUP(encode(model, question, &ids, err));
    const int64_t room = model->config.max_positions - ids.count;
    if (room < 16) {
        status = FAIL(err, STATUS_RANGE,
                      "the prompt has %lld tokens and the model %lld positions; lower "
                      "researcher.prompt_tokens",
                      (long long)ids.count, (long long)model->config.max_positions);
        goto cleanup;
    }
    const struct generate_options options = {
        .max_new_tokens = question->max_tokens < room ? question->max_tokens : room,
        .sampling = {.temperature = (float)question->temperature, .top_p = 0.95F},
        .seed = question->seed >= 0 ? (uint64_t)question->seed : 0,
        .slots = 1,
    };
    const int64_t start[2] = {0, ids.count};
    TRY_CLEANUP(generate_run(model, &network, ids.ids, start, 1, &options, NULL, NULL, progress,
                             &output, err));
    bool added = cJSON_AddStringToObject(answer, "text", output.text) != NULL &&
                 cJSON_AddBoolToObject(answer, "cut", output.end == GENERATE_LENGTH) != NULL &&
                 cJSON_AddNumberToObject(answer, "tokens_in", (double)ids.count) != NULL &&
                 cJSON_AddNumberToObject(answer, "tokens_out", (double)output.tokens) != NULL;
    status = added ? STATUS_OK : mem_fail(err, strlen(output.text), "an answer");
cleanup:
    free(output.text);
    token_list_fini(&ids);
    return status;
}

enum status answer_question(struct workspace *workspace, const char *model_folder,
                            const cJSON *body, const struct progress *progress, cJSON **answer,
                            struct error *err)
{
    enum status status = STATUS_OK;
    struct question question;
    struct relay relay = {
        .to = progress,
        .allowed_s = workspace->job->researcher.timeout_s,
        .began_s = clock_monotonic_s(),
    };
    const struct progress relayed = {.tick = tick, .context = &relay};
    const struct model *model = NULL;
    const char *slash = strrchr(model_folder, '/');
    const char *name = slash != NULL && slash[1] != '\0' ? slash + 1 : model_folder;
    cJSON *out = cJSON_CreateObject();
    TRY_CLEANUP(read_question(body, &question, err));
    const enum dtype dtype = workspace_precision(workspace) == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32;
    TRY_CLEANUP(workspace_speaker(workspace, model_folder, dtype, &relayed, &model, err));
    TRY_CLEANUP(generate(model, &question, &relayed, out, err));
    if (cJSON_AddStringToObject(out, "model", name) == NULL) {
        status = mem_fail(err, strlen(name), "an answer");
        goto cleanup;
    }
    *answer = out;
    out = NULL;
cleanup:
    cJSON_Delete(out);
    return status;
}
