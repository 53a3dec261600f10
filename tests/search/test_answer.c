/* Questions that a worker answers with its own engine: a tiny random model, whose words mean
 * nothing. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agents/prompt.h"
#include "run/answer.h"
#include "run/asking.h"

static const char base_folder[] = TEST_SOURCE_DIR "/golden/model/llama";
static const char other_folder[] = TEST_SOURCE_DIR "/golden/model/qwen3";

struct fixture {
    struct job job;
    struct workspace workspace;
};

static void open_fixture(struct fixture *fixture)
{
    struct error err;
    memset(fixture, 0, sizeof(*fixture));
    fixture->job.backend = (char *)"cpu";
    fixture->job.model = (char *)base_folder;
    fixture->job.precision = JOB_PRECISION_F32;
    if (workspace_open(&fixture->job, 1, 0, NULL, &fixture->workspace, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static enum status ask(struct fixture *fixture, const char *folder, const char *body,
                       const struct progress *progress, cJSON **answer, struct error *err)
{
    cJSON *question = cJSON_Parse(body);
    assert_non_null(question);
    *answer = NULL;
    enum status status =
        answer_question(&fixture->workspace, folder, question, progress, answer, err);
    cJSON_Delete(question);
    return status;
}

static const char good[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"hello\"}], \"max_tokens\": 8, "
    "\"temperature\": 0.8, \"seed\": 5}";

static void test_answers(void **state)
{
    (void)state;
    struct fixture fixture;
    struct error err;
    open_fixture(&fixture);
    static const char *const folders[] = {base_folder, other_folder};
    for (size_t i = 0; i < 2; i++) {
        cJSON *first = NULL;
        cJSON *again = NULL;
        if (ask(&fixture, folders[i], good, NULL, &first, &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        assert_int_equal(ask(&fixture, folders[i], good, NULL, &again, &err), STATUS_OK);
        assert_true(cJSON_Compare(first, again, true));
        assert_true(cJSON_IsString(cJSON_GetObjectItemCaseSensitive(first, "text")));
        assert_true(cJSON_IsBool(cJSON_GetObjectItemCaseSensitive(first, "cut")));
        assert_true(cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(first, "tokens_in")) >
                    0.0);
        assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(first, "model")),
                            i == 0 ? "llama" : "qwen3");
        cJSON_Delete(first);
        cJSON_Delete(again);
    }
    workspace_close(&fixture.workspace);
}

static enum status stop(void *context, const char *phase, int64_t done, int64_t total,
                        struct error *err)
{
    (void)done;
    (void)total;
    assert_true(strcmp(phase, "load") == 0 || strcmp(phase, "evaluate") == 0);
    return ++*(int *)context > 3 ? FAIL(err, STATUS_INTERRUPTED, "stopped") : STATUS_OK;
}

static enum status count_loads(void *context, const char *phase, int64_t done, int64_t total,
                               struct error *err)
{
    (void)done;
    (void)total;
    (void)err;
    *(int *)context += strcmp(phase, "load") == 0;
    return STATUS_OK;
}

static void test_refusals(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{}",
        "{\"messages\": []}",
        "{\"messages\": [1]}",
        "{\"messages\": [{\"role\": \"user\"}]}",
        "{\"messages\": [{\"role\": 1, \"content\": \"x\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"max_tokens\": -1}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"temperature\": \"hot\"}",
        "[]",
    };
    struct fixture fixture;
    struct error err;
    cJSON *answer = NULL;
    open_fixture(&fixture);
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        assert_int_equal(ask(&fixture, base_folder, bodies[i], NULL, &answer, &err),
                         STATUS_INVALID);
        assert_null(answer);
    }
    assert_int_equal(ask(&fixture, "/nowhere", good, NULL, &answer, &err), STATUS_NOT_FOUND);
    char longer[40000] = "{\"messages\": [{\"role\": \"user\", \"content\": \"";
    memset(longer + strlen(longer), 'q', 30000);
    strcat(longer, "\"}]}");
    assert_int_equal(ask(&fixture, base_folder, longer, NULL, &answer, &err), STATUS_RANGE);
    assert_non_null(strstr(err.message, "prompt_tokens"));
    int ticks = 0;
    const struct progress stopping = {.tick = stop, .context = &ticks};
    assert_int_equal(ask(&fixture, other_folder, good, &stopping, &answer, &err),
                     STATUS_INTERRUPTED);
    workspace_close(&fixture.workspace);
}

/* Another model stays for the next question, and goes before other work. */
static void test_speaker(void **state)
{
    (void)state;
    struct fixture fixture;
    struct error err;
    cJSON *answer = NULL;
    int loads = 0;
    const struct progress counting = {.tick = count_loads, .context = &loads};
    open_fixture(&fixture);
    assert_int_equal(ask(&fixture, other_folder, good, &counting, &answer, &err), STATUS_OK);
    cJSON_Delete(answer);
    assert_true(loads > 0);
    assert_non_null(fixture.workspace.speaker);
    loads = 0;
    assert_int_equal(ask(&fixture, other_folder, good, &counting, &answer, &err), STATUS_OK);
    cJSON_Delete(answer);
    assert_int_equal(loads, 0);
    workspace_drop_speaker(&fixture.workspace);
    assert_null(fixture.workspace.speaker);
    assert_int_equal(ask(&fixture, base_folder, good, &counting, &answer, &err), STATUS_OK);
    cJSON_Delete(answer);
    assert_null(fixture.workspace.speaker); /* the base model answers as it lies there */
    workspace_close(&fixture.workspace);
}

static void test_takes_too_long(void **state)
{
    (void)state;
    struct fixture fixture;
    struct error err;
    cJSON *answer = NULL;
    open_fixture(&fixture);
    fixture.job.researcher.timeout_s = 1e-9;
    assert_int_equal(ask(&fixture, base_folder, good, NULL, &answer, &err), STATUS_TIMEOUT);
    assert_non_null(strstr(err.message, "timeout_seconds"));
    fixture.job.researcher.timeout_s = 600.0;
    assert_int_equal(ask(&fixture, base_folder, good, NULL, &answer, &err), STATUS_OK);
    cJSON_Delete(answer);
    workspace_close(&fixture.workspace);
}

/* A real model says what it says to whoever asks it with `trex generate`. */
static void test_real_model(void **state)
{
    (void)state;
    const char *models = getenv("MODELS");
    const char *program = TEST_BINARY_DIR "/trex";
    char folder[1024];
    snprintf(folder, sizeof(folder), "%s/stories260K", models != NULL ? models : "");
    if (models == NULL || access(folder, R_OK) != 0 || access(program, X_OK) != 0) {
        print_message("skipped: $MODELS/stories260K or trex is not there\n");
        skip();
    }
    char command[4096];
    char told[4096];
    snprintf(command, sizeof(command),
             "'%s' generate '%s' --prompt 'Once upon a time, there was a' --max-new-tokens 60 "
             "--temperature 0.8 --top-p 0.95 --seed 5 --threads 1 --backend cpu",
             program, folder);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t length = fread(told, 1, sizeof(told) - 1, pipe);
    assert_int_equal(pclose(pipe), 0);
    assert_true(length > 100);
    told[length - 1] = '\0'; /* the line's end */
    struct fixture fixture;
    struct error err;
    cJSON *answer = NULL;
    open_fixture(&fixture);
    if (ask(&fixture, folder,
            "{\"messages\": [{\"role\": \"user\", \"content\": \"Once upon a time, there was "
            "a\"}], "
            "\"max_tokens\": 60, \"temperature\": 0.8, \"seed\": 5}",
            NULL, &answer, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "text")),
                        told);
    cJSON_Delete(answer);
    workspace_close(&fixture.workspace);
}

/* What was reserved is never less than what is taken: whatever the text, whatever the tokenizer. */
static void test_bounds(void **state)
{
    (void)state;
    static const char *const texts[] = {"hello",
                                        "x",
                                        "\xe6\xbc\xa2\xe5\xad\x97\xf0\x9f\x99\x82\xe0\xb8\x81",
                                        "\\u0001\\u0002 \\t\\t",
                                        "<|im_start|>system",
                                        "aaaaaaaaaaaaaaaaaaaaaaaa",
                                        "zq zq zq 0123456789 !?"};
    static const char *const folders[] = {base_folder, other_folder};
    struct fixture fixture;
    struct error err;
    open_fixture(&fixture);
    for (size_t f = 0; f < 2; f++) {
        struct model *speaker = NULL;
        assert_int_equal(model_inspect(folders[f], &speaker, &err), STATUS_OK);
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
            char body[512];
            int64_t tokens = 0;
            cJSON *answer = NULL;
            snprintf(body, sizeof(body),
                     "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}], "
                     "\"max_tokens\": 4, \"temperature\": 0}",
                     texts[i]);
            cJSON *question = cJSON_Parse(body);
            assert_int_equal(answer_bound(speaker, question, &tokens, &err), STATUS_OK);
            assert_int_equal(ask(&fixture, folders[f], body, NULL, &answer, &err), STATUS_OK);
            double in = cJSON_GetNumberValue(cJSON_GetObjectItem(answer, "tokens_in"));
            double out = cJSON_GetNumberValue(cJSON_GetObjectItem(answer, "tokens_out"));
            assert_true(in + 4.0 == (double)tokens);
            assert_true(out <= 4.0);
            cJSON_Delete(answer);
            cJSON_Delete(question);
        }
        cJSON *none = cJSON_Parse("{\"messages\": []}");
        int64_t tokens = 0;
        assert_int_equal(answer_bound(speaker, none, &tokens, &err), STATUS_INVALID);
        cJSON_Delete(none);
        model_destroy(speaker);
    }
    workspace_close(&fixture.workspace);
}

/* A prompt within its budget fits beside a reply, also where each byte is a token. */
static void test_prompts_fit(void **state)
{
    (void)state;
    struct error err;
    struct job job = {.researcher = {.prompt_tokens = 3000, .reply_tokens = 400}};
    struct model *speaker = NULL;
    assert_int_equal(model_inspect(base_folder, &speaker, &err), STATUS_OK);
    assert_int_equal(asking_prompt_tokens(&job, NULL), 3000);
    speaker->config.max_positions = 1 << 20;
    assert_int_equal(asking_prompt_tokens(&job, speaker), 3000);
    speaker->config.max_positions = 4000;
    int64_t budget = asking_prompt_tokens(&job, speaker);
    char prompt[65536] = "";
    for (size_t used = 0; used < sizeof(prompt) / 2; used = strlen(prompt)) {
        snprintf(prompt + used, sizeof(prompt) - used, "%s", prompt_find("brief")->text);
    }
    for (size_t length = strlen(prompt); lm_estimate_tokens(prompt) > budget; length--) {
        prompt[length] = '\0';
    }
    cJSON *body = cJSON_Parse("{\"messages\": [{\"role\": \"user\"}], \"max_tokens\": 400}");
    cJSON *message = cJSON_GetArrayItem(cJSON_GetObjectItem(body, "messages"), 0);
    cJSON_AddStringToObject(message, "content", prompt);
    int64_t tokens = 0;
    assert_int_equal(answer_bound(speaker, body, &tokens, &err), STATUS_OK);
    assert_true(budget < 3000 && tokens <= 4000);
    assert_true(tokens > 2000); /* and little of the room is left unused */
    cJSON_Delete(body);
    model_destroy(speaker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_speaker),     cmocka_unit_test(test_takes_too_long),
        cmocka_unit_test(test_real_model),  cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_prompts_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
