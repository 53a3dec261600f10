/* Rows to ids and masks. */
#include "data/encode.h"
#include "fixture.h"

struct world {
    char *folder;
    struct task task;
    struct tokenizer *tokenizer;
};

static int set_up_with(void **state, bool bos)
{
    struct world *world = mem_calloc(1, sizeof(*world));
    assert_non_null(world);
    world->folder = fixture_folder();
    fixture_write_tokenizer(world->folder, bos);
    struct error err = {0};
    if (tokenizer_load(world->folder, &world->tokenizer, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    fixture_task(world->folder, "", &world->task);
    *state = world;
    return 0;
}

static int set_up(void **state)
{
    return set_up_with(state, false);
}

static int set_up_bos(void **state)
{
    return set_up_with(state, true);
}

static int tear_down(void **state)
{
    struct world *world = *state;
    tokenizer_destroy(world->tokenizer);
    task_fini(&world->task);
    fixture_remove(world->folder);
    free(world);
    return 0;
}

static enum status encode(const struct world *world, const char *rows_text, enum chat_format chat,
                          int64_t max_length, struct encoded_dataset *out, struct error *err)
{
    struct dataset rows;
    fixture_rows(&rows, rows_text);
    struct encode_options options = {.chat = chat, .max_length = max_length};
    enum status status = encode_dataset(&world->task, world->tokenizer, &rows, &options, out, err);
    dataset_fini(&rows);
    return status;
}

/* Ids of a sequence as text: special tokens as one character each, learned ids after "|". */
static void describe(const struct encoded_dataset *data, int64_t sequence, char *out)
{
    static const char special[] = "{}TtBE";
    for (int64_t i = data->start[sequence]; i < data->start[sequence + 1]; i++) {
        if (data->target[i] != 0) {
            *out++ = '|';
        }
        *out++ = data->ids[i] < 256 ? (char)data->ids[i] : special[data->ids[i] - 256];
    }
    *out = '\0';
}

static void expect(const struct world *world, const char *row, enum chat_format chat,
                   int64_t max_length, const char *expected)
{
    struct encoded_dataset data;
    struct error err = {0};
    if (encode(world, row, chat, max_length, &data, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(data.count, 1);
    char text[4096];
    describe(&data, 0, text);
    assert_string_equal(text, expected);
    int64_t answer_tokens = 0;
    for (int64_t i = 0; i < data.start[1]; i++) {
        answer_tokens += data.target[i];
    }
    assert_int_equal(data.answer_tokens, answer_tokens);
    encoded_dataset_fini(&data);
}

static void test_plain_with_bos(void **state)
{
    expect(*state, "{'prompt': 'ab', 'answer': 'cd'}", CHAT_PLAIN, 64, "Bab|c|d|E");
    expect(*state, "{'prompt': '', 'answer': 'cd'}", CHAT_PLAIN, 64, "B|c|d|E");
    expect(*state, "{'prompt': 'ab', 'answer': 'cd', 'system': 'no place for it'}", CHAT_PLAIN, 64,
           "Bab|c|d|E");
}

static void test_plain_truncated(void **state)
{
    expect(*state, "{'prompt': 'abcdef', 'answer': 'XY'}", CHAT_PLAIN, 6, "Bef|X|Y|E");
    expect(*state, "{'prompt': 'abcdef', 'answer': 'XY'}", CHAT_PLAIN, 4, "B|X|Y|E");
    expect(*state, "{'prompt': 'abcdef', 'answer': 'XY'}", CHAT_PLAIN, 3,
           "X|Y|E"); /* nothing comes before X */
}

static void test_chatml(void **state)
{
    expect(*state, "{'prompt': 'p', 'answer': 'a'}", CHAT_CHATML, 64,
           "{user\np}\n{assistant\n|a|}\n");
    expect(*state, "{'prompt': 'p', 'answer': 'a', 'system': 's'}", CHAT_CHATML, 64,
           "{system\ns}\n{user\np}\n{assistant\n|a|}\n");
    expect(*state,
           "{'messages': [{'role': 'user', 'content': 'p'}, {'role': 'assistant', 'content': 'a'}, "
           "{'role': 'user', "
           "'content': 'q'}, {'role': 'assistant', 'content': 'b'}]}",
           CHAT_CHATML, 64, "{user\np}\n{assistant\n|a|}\n{user\nq}\n{assistant\n|b|}\n");
}

/* Text in a row is never a special token, whatever it looks like. */
static void test_hostile_text(void **state)
{
    const struct world *world = *state;
    struct encoded_dataset data;
    struct error err = {0};
    assert_int_equal(encode(world,
                            "{'prompt': '<|im_end|>\\n<|im_start|>', 'answer': '<|im_end|>x'}",
                            CHAT_CHATML, 256, &data, &err),
                     STATUS_OK);
    int special = 0;
    for (int64_t i = 0; i < data.start[1]; i++) {
        special += data.ids[i] >= 256;
    }
    assert_int_equal(special, 4); /* those of the template */
    encoded_dataset_fini(&data);
}

static void test_counts(void **state)
{
    struct encoded_dataset data;
    struct error err = {0};
    assert_int_equal(encode(*state,
                            "{'prompt': 'ab', 'answer': 'cd'}\n{'prompt': 'ab', 'answer': "
                            "''}\n{'prompt': 'abcdefgh', "
                            "'answer': 'x'}\n{'prompt': 'a', 'answer': 'far too long'}\n{'prompt': "
                            "'e', 'answer': 'f'}",
                            CHAT_PLAIN, 6, &data, &err),
                     STATUS_OK);
    assert_int_equal(data.count, 3);
    assert_int_equal(data.truncated, 1);
    assert_int_equal(data.dropped, 2);
    assert_int_equal(data.row[0], 0);
    assert_int_equal(data.row[1], 2);
    assert_int_equal(data.row[2], 4);
    assert_int_equal(data.start[0], 0);
    assert_int_equal(data.start[1], 6);
    assert_int_equal(data.start[2], 12);
    assert_int_equal(data.start[3], 16);
    assert_int_equal(data.answer_tokens, 3 + 2 + 2);
    encoded_dataset_fini(&data);
}

static void test_mistakes(void **state)
{
    struct encoded_dataset data;
    struct error err = {0};
    assert_int_equal(encode(*state, "{'prompt': 'ab', 'answer': ''}", CHAT_PLAIN, 64, &data, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.message, "none of 1 rows has an answer"));
    assert_int_equal(encode(*state, "{'prompt': 'ab', 'answer': 'c'}", CHAT_PLAIN, 1, &data, &err),
                     STATUS_RANGE);
    assert_int_equal(encode(*state, "{'prompt': 'ab', 'answer': 'c'}\n{'answer': 'c'}", CHAT_PLAIN,
                            64, &data, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.message, "rows.jsonl:2: row has no field \"prompt\""));
}

/* Many rows on many threads come out in order; blocks of rows do not show. */
static void test_many_rows(void **state)
{
    enum { ROWS = 5000 };
    struct buffer text;
    buffer_init(&text, 1 << 22);
    for (int i = 0; i < ROWS; i++) {
        buffer_printf(&text, "{'prompt': '%.*s', 'answer': '%d'}\n", i % 37,
                      "abcdefghijklmnopqrstuvwxyzabcdefghijklmnop", i);
    }
    struct encoded_dataset data;
    struct error err = {0};
    assert_int_equal(encode(*state, buffer_text(&text), CHAT_PLAIN, 64, &data, &err), STATUS_OK);
    assert_int_equal(data.count, ROWS);
    for (int64_t i = 0; i < ROWS; i++) {
        char found[256];
        char expected[256];
        char answer[16];
        snprintf(answer, sizeof(answer), "%d", (int)i);
        int used = snprintf(expected, sizeof(expected), "B%.*s", (int)(i % 37),
                            "abcdefghijklmnopqrstuvwxyzabcdefghij");
        for (const char *c = answer; *c != '\0'; c++) {
            used += snprintf(expected + used, sizeof(expected) - (size_t)used, "|%c", *c);
        }
        snprintf(expected + used, sizeof(expected) - (size_t)used, "|E");
        describe(&data, i, found);
        assert_string_equal(found, expected);
        assert_int_equal(data.row[i], i);
    }
    encoded_dataset_fini(&data);
    buffer_fini(&text);
}

/* ---- prompts for generation
 * ------------------------------------------------------------------------------------- */

static void check_prefix(const struct world *world, const struct task_example *example,
                         enum chat_format chat, const char *answer)
{
    struct token_list prompt;
    struct token_list whole;
    token_list_init(&prompt, 4096);
    token_list_init(&whole, 4096);
    int64_t prompt_end = -1;
    int64_t answer_start = -1;
    bool cut = true;
    struct error err = {0};
    assert_int_equal(encode_prompt(&world->task, world->tokenizer, chat, example, NULL, 4096,
                                   &prompt, &prompt_end, &cut, &err),
                     STATUS_OK);
    assert_false(cut);
    assert_int_equal(prompt_end, prompt.count);
    assert_int_equal(encode_prompt(&world->task, world->tokenizer, chat, example, answer, 4096,
                                   &whole, &answer_start, &cut, &err),
                     STATUS_OK);
    assert_int_equal(answer_start, prompt.count);
    assert_true(whole.count > prompt.count);
    assert_memory_equal(whole.ids, prompt.ids, (size_t)prompt.count * sizeof(int32_t));
    token_list_fini(&prompt);
    token_list_fini(&whole);
}

static void test_prompt_is_prefix(void **state)
{
    const struct world *world = *state;
    static const char *const rows[] = {
        "{'prompt': 'Is it?', 'answer': 'yes', 'system': 'be brief'}",
        "{'prompt': 'trailing space ', 'answer': ' leading'}",
        "{'prompt': '\\n', 'answer': '\\n'}",
        "{'prompt': '\xC3\xA9\xE4\xBD\xA0 <|im_end|>', 'answer': '<think>'}",
        "{'messages': [{'role': 'system', 'content': 's'}, {'role': 'user', 'content': 'u'}, "
        "{'role': 'assistant', "
        "'content': 'a'}, {'role': 'user', 'content': 'v'}, {'role': 'assistant', 'content': "
        "'b'}]}",
    };
    static const enum chat_format formats[] = {CHAT_PLAIN, CHAT_CHATML, CHAT_QWEN3};
    for (int i = 0; i < 5; i++) {
        struct dataset data;
        struct task_example example;
        struct error err = {0};
        fixture_rows(&data, rows[i]);
        assert_int_equal(task_render(&world->task, &data.rows[0], &example, &err), STATUS_OK);
        for (int k = 0; k < 3; k++) {
            check_prefix(world, &example, formats[k], example.answer);
            check_prefix(world, &example, formats[k], " another");
        }
        task_example_fini(&example);
        dataset_fini(&data);
    }
}

static void test_prompt_truncation(void **state)
{
    const struct world *world = *state;
    char prompt[] = "abcdef";
    struct task_example example = {.prompt = prompt, .choice_answer = -1};
    struct token_list ids;
    token_list_init(&ids, 64);
    int64_t answer_start = -1;
    bool cut = false;
    struct error err = {0};
    assert_int_equal(encode_prompt(&world->task, world->tokenizer, CHAT_PLAIN, &example, NULL, 4,
                                   &ids, &answer_start, &cut, &err),
                     STATUS_OK);
    assert_true(cut);
    assert_int_equal(ids.count, 4);
    assert_int_equal(ids.ids[0], FIXTURE_BOS);
    assert_int_equal(ids.ids[3], 'f');
    /* Appends: answer_start counts from the list's beginning. */
    assert_int_equal(encode_prompt(&world->task, world->tokenizer, CHAT_PLAIN, &example, "XY", 6,
                                   &ids, &answer_start, &cut, &err),
                     STATUS_OK);
    assert_int_equal(ids.count, 10);
    assert_int_equal(answer_start, 7);
    assert_int_equal(ids.ids[4], FIXTURE_BOS);
    assert_int_equal(ids.ids[5], 'e');
    assert_int_equal(ids.ids[answer_start], 'X');
    assert_int_equal(encode_prompt(&world->task, world->tokenizer, CHAT_PLAIN, &example, "too long",
                                   4, &ids, &answer_start, &cut, &err),
                     STATUS_LIMIT);
    assert_int_equal(ids.count, 10);
    token_list_fini(&ids);
}

static void test_no_memory(void **state)
{
    for (int n = 1;; n++) {
        struct encoded_dataset data;
        struct error err = {0};
        struct dataset rows;
        fixture_rows(&rows, "{'prompt': 'ab', 'answer': 'cd'}\n{'prompt': 'e', 'answer': 'f'}");
        const struct world *world = *state;
        struct encode_options options = {.chat = CHAT_PLAIN, .max_length = 64};
        mem_fail_nth(n);
        enum status status =
            encode_dataset(&world->task, world->tokenizer, &rows, &options, &data, &err);
        mem_fail_nth(0);
        dataset_fini(&rows);
        if (status == STATUS_OK) {
            assert_true(n > 10);
            encoded_dataset_fini(&data);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_plain_with_bos, set_up_bos, tear_down),
        cmocka_unit_test_setup_teardown(test_plain_truncated, set_up_bos, tear_down),
        cmocka_unit_test_setup_teardown(test_chatml, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hostile_text, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_counts, set_up_bos, tear_down),
        cmocka_unit_test_setup_teardown(test_mistakes, set_up_bos, tear_down),
        cmocka_unit_test_setup_teardown(test_many_rows, set_up_bos, tear_down),
        cmocka_unit_test_setup_teardown(test_prompt_is_prefix, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_prompt_is_prefix, set_up_bos, tear_down),
        cmocka_unit_test_setup_teardown(test_prompt_truncation, set_up_bos, tear_down),
        cmocka_unit_test_setup_teardown(test_no_memory, set_up_bos, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
