/* Generation: the same texts however the slots are shared, every way in which an output ends, every
 * error. */
#include "models.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "eval/generate.h"

enum { PROMPTS = 17, FIRST_LETTER = 3 };

/* Prompts of 1 .. 20 letters. */
struct prompts {
    int32_t ids[PROMPTS * 20];
    int64_t start[PROMPTS + 1];
};

static void make_prompts(struct prompts *prompts, int64_t vocab)
{
    struct rng rng;
    rng_init(&rng, 11, 0);
    prompts->start[0] = 0;
    for (int i = 0; i < PROMPTS; i++) {
        int64_t length = 1 + (int64_t)rng_below(&rng, 20);
        for (int64_t k = 0; k < length; k++) {
            uint64_t letters = (uint64_t)vocab - FIRST_LETTER;
            prompts->ids[prompts->start[i] + k] =
                (int32_t)(FIRST_LETTER + rng_below(&rng, letters));
        }
        prompts->start[i + 1] = prompts->start[i] + length;
    }
}

static void release(struct generate_output *outputs, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        free(outputs[i].text);
    }
    memset(outputs, 0, (size_t)count * sizeof(*outputs));
}

static void generate(const struct loaded *loaded, const struct prompts *prompts, int64_t count,
                     const struct generate_options *options, struct generate_output *outputs)
{
    struct error err;
    memset(outputs, 0, (size_t)count * sizeof(*outputs));
    enum status status = generate_run(loaded->model, &loaded->network, prompts->ids, prompts->start,
                                      count, options, NULL, NULL, NULL, outputs, &err);
    if (status != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static void check_slots(const struct loaded *loaded, float temperature)
{
    static const int64_t slots[] = {7, 17, 40, 0};
    struct prompts prompts;
    struct generate_output expected[PROMPTS];
    struct generate_output found[PROMPTS];
    struct generate_options options = {
        .max_new_tokens = 30, .sampling = {temperature, 0, 1.0f}, .seed = 5, .slots = 1};
    make_prompts(&prompts, loaded->model->config.vocab_size);
    generate(loaded, &prompts, PROMPTS, &options, expected);
    for (size_t s = 0; s < sizeof(slots) / sizeof(slots[0]); s++) {
        options.slots = slots[s];
        generate(loaded, &prompts, PROMPTS, &options, found);
        for (int i = 0; i < PROMPTS; i++) {
            assert_string_equal(found[i].text, expected[i].text);
            assert_int_equal(found[i].tokens, expected[i].tokens);
            assert_int_equal(found[i].end, expected[i].end);
        }
        release(found, PROMPTS);
    }
    release(expected, PROMPTS);
}

static void test_slots_do_not_matter(void **state)
{
    (void)state;
    struct loaded loaded;
    load_tiny(&loaded);
    check_slots(&loaded, 0.0f);
    check_slots(&loaded, 1.0f);
    unload(&loaded);
}

static void test_slots_do_not_matter_to_stories(void **state)
{
    (void)state;
    struct loaded loaded;
    load_stories(&loaded);
    check_slots(&loaded, 0.0f);
    check_slots(&loaded, 0.8f);
    unload(&loaded);
}

/* With the streams given, a prompt's sample does not depend on where it stands. */
static void test_order_does_not_matter(void **state)
{
    (void)state;
    struct loaded loaded;
    struct prompts prompts;
    struct prompts turned = {0};
    uint64_t streams[PROMPTS];
    struct generate_output expected[PROMPTS];
    struct generate_output found[PROMPTS];
    struct generate_options options = {
        .max_new_tokens = 20, .sampling = {1.0f, 0, 1.0f}, .seed = 5};
    load_tiny(&loaded);
    make_prompts(&prompts, loaded.model->config.vocab_size);
    for (int i = 0; i < PROMPTS; i++) {
        int from = PROMPTS - 1 - i;
        int64_t length = prompts.start[from + 1] - prompts.start[from];
        memcpy(turned.ids + turned.start[i], prompts.ids + prompts.start[from],
               (size_t)length * sizeof(int32_t));
        turned.start[i + 1] = turned.start[i] + length;
        streams[i] = (uint64_t)from;
    }
    generate(&loaded, &prompts, PROMPTS, &options, expected);
    options.streams = streams;
    options.slots = 3;
    generate(&loaded, &turned, PROMPTS, &options, found);
    bool differ = false;
    for (int i = 0; i < PROMPTS; i++) {
        assert_string_equal(found[i].text, expected[PROMPTS - 1 - i].text);
    }
    release(found, PROMPTS);
    options.streams = NULL;
    options.seed = 6;
    generate(&loaded, &prompts, PROMPTS, &options, found);
    for (int i = 0; i < PROMPTS; i++) {
        differ = differ || strcmp(found[i].text, expected[i].text) != 0;
    }
    assert_true(differ);
    release(found, PROMPTS);
    release(expected, PROMPTS);
    unload(&loaded);
}

/* Rows with one prompt go different ways, and each of their tokens is a draw of its own. */
static void test_draws_are_independent(void **state)
{
    (void)state;
    struct loaded loaded;
    struct prompts prompts = {0};
    struct generate_output outputs[PROMPTS];
    struct generate_options options = {.max_new_tokens = 40,
                                       .sampling = {1e6f, 0, 1.0f},
                                       .seed = 5}; /* so hot that all are equal */
    load_tiny(&loaded);
    for (int i = 0; i < PROMPTS; i++) {
        prompts.ids[i] = FIRST_LETTER;
        prompts.start[i + 1] = i + 1;
    }
    generate(&loaded, &prompts, PROMPTS, &options, outputs);
    int64_t tokens = 0;
    for (int i = 0; i < PROMPTS; i++) {
        tokens += outputs[i].tokens;
        bool seen[256] = {false};
        size_t different = 0;
        size_t length = strlen(outputs[i].text);
        for (size_t k = 0; k < length; k++) {
            different += !seen[(unsigned char)outputs[i].text[k]];
            seen[(unsigned char)outputs[i].text[k]] = true;
        }
        assert_true(length < 10 || different > 4);
        for (int j = 0; j < i; j++) {
            assert_true(length < 4 || strcmp(outputs[i].text, outputs[j].text) != 0);
        }
    }
    assert_true(tokens > PROMPTS * 10); /* one in 40 ends an output: 25 tokens on average */
    release(outputs, PROMPTS);
    unload(&loaded);
}

/* A random model of 40 tokens writes its end token before long; one of 64 positions runs out of
 * them. */
static void test_how_outputs_end(void **state)
{
    (void)state;
    struct loaded loaded;
    struct prompts prompts;
    struct generate_output outputs[PROMPTS];
    struct generate_options options = {
        .max_new_tokens = 1000, .sampling = {1.5f, 0, 1.0f}, .seed = 5};
    int stopped = 0;
    int ran_out = 0;
    load_tiny(&loaded);
    make_prompts(&prompts, loaded.model->config.vocab_size);
    int64_t positions = loaded.model->config.max_positions;
    generate(&loaded, &prompts, PROMPTS, &options, outputs);
    for (int i = 0; i < PROMPTS; i++) {
        int64_t length = prompts.start[i + 1] - prompts.start[i];
        int64_t room = positions - length + 1;
        assert_true(outputs[i].tokens <= room);
        assert_null(strstr(outputs[i].text, "</s>"));
        if (outputs[i].end == GENERATE_LENGTH) {
            assert_int_equal(outputs[i].tokens, room);
            ran_out++;
        } else {
            stopped++;
        }
    }
    assert_true(stopped > 0);
    assert_true(ran_out > 0);
    release(outputs, PROMPTS);
    options.max_new_tokens = 4;
    generate(&loaded, &prompts, PROMPTS, &options, outputs);
    for (int i = 0; i < PROMPTS; i++) {
        assert_true(outputs[i].tokens <= 4);
        assert_true(outputs[i].end == GENERATE_STOPPED || outputs[i].tokens == 4);
    }
    release(outputs, PROMPTS);
    unload(&loaded);
}

struct collected {
    struct buffer text[PROMPTS];
    int pieces;
};

static void collect(void *context, int64_t index, const char *piece)
{
    struct collected *collected = context;
    assert_true(piece[0] != '\0');
    buffer_append_text(&collected->text[index], piece);
    collected->pieces++;
}

static void test_stop_and_pieces(void **state)
{
    (void)state;
    struct loaded loaded;
    struct prompts prompts;
    struct collected collected = {0};
    struct error err;
    struct generate_output plain[PROMPTS];
    struct generate_output cut[PROMPTS] = {0};
    struct generate_options options = {
        .max_new_tokens = 20, .sampling = {1.0f, 0, 1.0f}, .seed = 5};
    load_tiny(&loaded);
    make_prompts(&prompts, loaded.model->config.vocab_size);
    generate(&loaded, &prompts, PROMPTS, &options, plain);
    int longest = 0;
    for (int i = 0; i < PROMPTS; i++) {
        buffer_init(&collected.text[i], 4096);
        longest = strlen(plain[i].text) > strlen(plain[longest].text) ? i : longest;
    }
    assert_true(strlen(plain[longest].text) >= 8);
    char stop_text[4] = {0};
    memcpy(stop_text, plain[longest].text + 4, 3);
    const char *stop[] = {stop_text, NULL};
    options.stop = stop;
    enum status status = generate_run(loaded.model, &loaded.network, prompts.ids, prompts.start,
                                      PROMPTS, &options, collect, &collected, NULL, cut, &err);
    assert_int_equal(status, STATUS_OK);
    for (int i = 0; i < PROMPTS; i++) {
        const char *hit = strstr(plain[i].text, stop_text);
        size_t length = hit != NULL ? (size_t)(hit - plain[i].text) : strlen(plain[i].text);
        assert_int_equal(strlen(cut[i].text), length);
        assert_memory_equal(cut[i].text, plain[i].text, length);
        assert_true(hit == NULL || cut[i].end == GENERATE_STOPPED);
        assert_string_equal(buffer_text(&collected.text[i]), cut[i].text);
        buffer_fini(&collected.text[i]);
    }
    assert_true(collected.pieces > PROMPTS);
    release(cut, PROMPTS);
    release(plain, PROMPTS);
    unload(&loaded);
}

static void test_full_prompt(void **state)
{
    (void)state;
    struct loaded loaded;
    struct error err;
    struct generate_output output = {0};
    struct generate_options options = {.max_new_tokens = 5};
    load_tiny(&loaded);
    int64_t positions = loaded.model->config.max_positions;
    int32_t ids[128];
    for (int i = 0; i < 128; i++) {
        ids[i] = FIRST_LETTER + i % 30;
    }
    int64_t full[] = {0, positions};
    assert_int_equal(generate_run(loaded.model, &loaded.network, ids, full, 1, &options, NULL, NULL,
                                  NULL, &output, &err),
                     STATUS_OK);
    assert_int_equal(output.tokens, 1);
    free(output.text);
    memset(&output, 0, sizeof(output));
    int64_t over[] = {0, positions, 2 * positions};
    over[1] = positions - 1; /* the second is one too long */
    struct generate_output two[2] = {0};
    assert_int_equal(generate_run(loaded.model, &loaded.network, ids, over, 2, &options, NULL, NULL,
                                  NULL, two, &err),
                     STATUS_RANGE);
    assert_non_null(strstr(err.message, "prompt 1"));
    assert_null(two[0].text);
    unload(&loaded);
}

static void test_wrong_input(void **state)
{
    (void)state;
    struct loaded loaded;
    struct error err;
    struct generate_output outputs[2] = {0};
    struct generate_options options = {.max_new_tokens = 5};
    int32_t ids[] = {4, 5};
    int64_t empty[] = {0, 2, 2};
    load_tiny(&loaded);
    const struct model *model = loaded.model;
    const struct network *network = &loaded.network;
    assert_int_equal(
        generate_run(model, network, ids, empty, 2, &options, NULL, NULL, NULL, outputs, &err),
        STATUS_INVALID);
    assert_non_null(strstr(err.message, "prompt 1"));
    assert_int_equal(
        generate_run(model, network, ids, empty, 0, &options, NULL, NULL, NULL, outputs, &err),
        STATUS_OK);
    options.max_new_tokens = 0;
    assert_int_equal(
        generate_run(model, network, ids, empty, 1, &options, NULL, NULL, NULL, outputs, &err),
        STATUS_RANGE);
    options.max_new_tokens = 5;
    options.slots = -1;
    assert_int_equal(
        generate_run(model, network, ids, empty, 1, &options, NULL, NULL, NULL, outputs, &err),
        STATUS_RANGE);
    options.slots = 1;
    ids[1] = 4000; /* not in the vocabulary */
    assert_int_equal(
        generate_run(model, network, ids, empty, 1, &options, NULL, NULL, NULL, outputs, &err),
        STATUS_RANGE);
    unload(&loaded);
}

static enum status stop_after(void *context, const char *phase, int64_t done, int64_t total,
                              struct error *err)
{
    int *left = context;
    assert_string_equal(phase, "generate");
    assert_true(done <= total);
    return (*left)-- > 0 ? STATUS_OK : FAIL(err, STATUS_INTERRUPTED, "stopped");
}

static void test_interrupted(void **state)
{
    (void)state;
    struct loaded loaded;
    struct prompts prompts;
    struct error err;
    struct generate_output outputs[PROMPTS] = {0};
    struct generate_options options = {.max_new_tokens = 20, .slots = 2};
    int left = 30;
    struct progress progress = {stop_after, &left};
    load_tiny(&loaded);
    make_prompts(&prompts, loaded.model->config.vocab_size);
    assert_int_equal(generate_run(loaded.model, &loaded.network, prompts.ids, prompts.start,
                                  PROMPTS, &options, NULL, NULL, &progress, outputs, &err),
                     STATUS_INTERRUPTED);
    for (int i = 0; i < PROMPTS; i++) {
        assert_null(outputs[i].text);
    }
    unload(&loaded);
}

/* Each allocation in turn fails: an error or the right texts, and nothing leaks (the sanitizer sees
 * to that). */
static enum status count_ticks(void *context, const char *phase, int64_t done, int64_t total,
                               struct error *err)
{
    (void)phase;
    (void)done;
    (void)total;
    (void)err;
    ++*(int *)context;
    return STATUS_OK;
}

/* A prompt of three passes: told of between them, and continued as if it had been fed at once. */
static void test_long_prompt(void **state)
{
    (void)state;
    enum { LENGTH = 5000, PIECES = 3, SPOKEN = 4 };
    struct loaded loaded;
    struct error err;
    load_tiny(&loaded);
    loaded.model->config.max_positions = 8192;
    int32_t *ids = mem_calloc(LENGTH, sizeof(*ids));
    struct rng rng;
    rng_init(&rng, 17, 0);
    uint64_t letters = (uint64_t)loaded.model->config.vocab_size - FIRST_LETTER;
    for (int i = 0; i < LENGTH; i++) {
        ids[i] = (int32_t)(FIRST_LETTER + rng_below(&rng, letters));
    }
    int32_t spoken[SPOKEN];
    struct decoder *decoder = NULL;
    const struct decoder_options shape = {.slots = 1, .capacity = 8192, .prefill_tokens = 8192};
    const struct sampling greedy = {0};
    assert_int_equal(decoder_create(loaded.device, &loaded.network, &shape, &decoder, &err),
                     STATUS_OK);
    for (int32_t i = 0; i < SPOKEN; i++) {
        const int32_t slot = 0;
        const int32_t position = i == 0 ? 0 : LENGTH + i - 1;
        const int32_t count = i == 0 ? LENGTH : 1;
        const float uniform = 0.0f;
        assert_int_equal(decoder_feed(decoder, &loaded.network, i == 0 ? ids : &spoken[i - 1],
                                      &slot, &position, &count, 1, &greedy, &uniform, &spoken[i],
                                      &err),
                         STATUS_OK);
    }
    decoder_destroy(decoder);
    struct buffer text;
    buffer_init(&text, 4096);
    assert_int_equal(
        tokenizer_decode_continuation(loaded.model->tokenizer, spoken, SPOKEN, true, &text, &err),
        STATUS_OK);
    int ticks = 0;
    const struct progress progress = {count_ticks, &ticks};
    const int64_t start[] = {0, LENGTH};
    const struct generate_options options = {.max_new_tokens = SPOKEN};
    struct generate_output output = {0};
    assert_int_equal(generate_run(loaded.model, &loaded.network, ids, start, 1, &options, NULL,
                                  NULL, &progress, &output, &err),
                     STATUS_OK);
    assert_int_equal(output.tokens, SPOKEN); /* no end token among them */
    assert_string_equal(output.text, buffer_text(&text));
    assert_int_equal(ticks, PIECES - 1 + SPOKEN + 1);
    free(output.text);
    buffer_fini(&text);
    free(ids);
    unload(&loaded);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct loaded loaded;
    struct prompts prompts;
    struct generate_options options = {.max_new_tokens = 3, .slots = 2};
    load_tiny(&loaded);
    make_prompts(&prompts, loaded.model->config.vocab_size);
    enum status status = STATUS_NO_MEMORY;
    for (int64_t n = 1; status != STATUS_OK && n < 300; n++) {
        struct error err;
        struct generate_output outputs[4] = {0};
        mem_fail_nth(n);
        status = generate_run(loaded.model, &loaded.network, prompts.ids, prompts.start, 4,
                              &options, NULL, NULL, NULL, outputs, &err);
        mem_fail_nth(0);
        release(outputs, 4);
    }
    assert_int_equal(status, STATUS_OK);
    unload(&loaded);
}

/* The story that stories260K tells of itself. */
static void test_reference_story(void **state)
{
    (void)state;
    struct loaded loaded;
    struct error err;
    load_stories(&loaded);
    char path[FILE_PATH_BYTES];
    cJSON *reference = NULL;
    assert_int_equal(file_join(loaded.model->folder, "reference.json", path, &err), STATUS_OK);
    assert_int_equal(json_parse_file(path, 1 << 20, &reference, &err), STATUS_OK);
    const char *text = cJSON_GetObjectItem(reference, "greedy_from_bos_text")->valuestring;
    int32_t bos = tokenizer_bos(loaded.model->tokenizer);
    int64_t start[] = {0, 1};
    struct generate_output output = {0};
    struct generate_options options = {.max_new_tokens = 255};
    assert_int_equal(generate_run(loaded.model, &loaded.network, &bos, start, 1, &options, NULL,
                                  NULL, NULL, &output, &err),
                     STATUS_OK);
    assert_int_equal(output.tokens, 255);
    assert_string_equal(output.text, text);
    free(output.text);
    cJSON_Delete(reference);
    unload(&loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_do_not_matter),
        cmocka_unit_test(test_slots_do_not_matter_to_stories),
        cmocka_unit_test(test_order_does_not_matter),
        cmocka_unit_test(test_draws_are_independent),
        cmocka_unit_test(test_how_outputs_end),
        cmocka_unit_test(test_stop_and_pieces),
        cmocka_unit_test(test_full_prompt),
        cmocka_unit_test(test_wrong_input),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_long_prompt),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_reference_story),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
