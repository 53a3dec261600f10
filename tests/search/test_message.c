/* Messages between ranks are parsed as if hostile. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "run/message.h"

static const char payload[] = "{\"host\": \"n1\"}";

struct framed {
    struct message_header header;
    char payload[sizeof(payload)];
};

static struct framed good_message(void)
{
    struct framed framed = {
        .header = {.magic = MESSAGE_MAGIC,
                   .version = MESSAGE_VERSION,
                   .kind = MESSAGE_HELLO,
                   .node = 3,
                   .candidate = 1,
                   .payload_bytes = sizeof(payload) - 1},
    };
    memcpy(framed.payload, payload, sizeof(payload));
    return framed;
}

static enum status parse(const struct framed *framed, size_t len_bytes)
{
    struct message message;
    struct error err = {0};
    memset(&message, 0, sizeof(message));
    enum status status = message_parse(framed, len_bytes, &message, &err);
    if (status == STATUS_OK) {
        message_fini(&message);
    } else {
        assert_null(message.payload);
        assert_true(err.message[0] != '\0');
    }
    return status;
}

static const size_t whole = sizeof(struct message_header) + sizeof(payload) - 1;

static void test_a_good_message(void **state)
{
    (void)state;
    struct framed framed = good_message();
    struct message message;
    struct error err = {0};
    assert_int_equal(message_parse(&framed, whole, &message, &err), STATUS_OK);
    assert_int_equal(message.header.node, 3);
    assert_string_equal(cJSON_GetObjectItem(message.payload, "host")->valuestring, "n1");
    message_fini(&message);
}

static void test_wrong_headers_are_refused(void **state)
{
    (void)state;
    struct framed framed = good_message();
    for (size_t length = 0; length < whole; length++) {
        assert_int_equal(parse(&framed, length), STATUS_FORMAT);
    }
    framed.header.magic++;
    assert_int_equal(parse(&framed, whole), STATUS_FORMAT);
    framed = good_message();
    framed.header.version = 99;
    assert_int_equal(parse(&framed, whole), STATUS_FORMAT);
    framed = good_message();
    framed.header.kind = MESSAGE_KIND_COUNT;
    assert_int_equal(parse(&framed, whole), STATUS_FORMAT);
    framed = good_message();
    framed.header.payload_bytes = UINT64_MAX;
    assert_int_equal(parse(&framed, whole), STATUS_FORMAT);
    framed = good_message();
    framed.header.phase = -1;
    assert_int_equal(parse(&framed, whole), STATUS_FORMAT);
    framed = good_message();
    framed.payload[0] = '[';
    assert_int_equal(parse(&framed, whole), STATUS_FORMAT);
}

/* What a controller would compute a margin from. */
static void test_wrong_progress_is_refused(void **state)
{
    (void)state;
    static const double wrong[] = {-1e-9, NAN, INFINITY, -INFINITY, 2.0 * MESSAGE_MAX_S};
    static const size_t times[] = {offsetof(struct message_header, step_s),
                                   offsetof(struct message_header, save_s),
                                   offsetof(struct message_header, gap_s)};
    struct framed framed = good_message();
    framed.header.kind = MESSAGE_PROGRESS;
    framed.header.phase = MESSAGE_SAVE;
    framed.header.step_s = MESSAGE_MAX_S;
    framed.header.save_s = 0.5;
    assert_int_equal(parse(&framed, whole), STATUS_OK);
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        for (size_t k = 0; k < sizeof(wrong) / sizeof(wrong[0]); k++) {
            struct framed bad = framed;
            memcpy((char *)&bad.header + times[i], &wrong[k], sizeof(wrong[k]));
            assert_int_equal(parse(&bad, whole), STATUS_FORMAT);
        }
    }
    framed.header.phase = MESSAGE_PHASE_COUNT;
    assert_int_equal(parse(&framed, whole), STATUS_FORMAT);
    framed.header.phase = MESSAGE_TRAIN;
    framed.header.done = -1;
    assert_int_equal(parse(&framed, whole), STATUS_FORMAT);
    framed.header.done = 1;
    framed.header.total = -1;
    assert_int_equal(parse(&framed, whole), STATUS_FORMAT);
}

static void test_phases_have_names(void **state)
{
    (void)state;
    for (int i = MESSAGE_NO_PHASE; i < MESSAGE_PHASE_COUNT; i++) {
        assert_non_null(message_phases[i]);
        assert_int_equal(message_find_phase(message_phases[i]), i);
    }
    assert_null(message_phases[MESSAGE_PHASE_COUNT]);
    assert_int_equal(message_find_phase("train"), MESSAGE_TRAIN);
    assert_int_equal(message_find_phase("save"), MESSAGE_SAVE);
    assert_int_equal(message_find_phase("sleep"), MESSAGE_NO_PHASE);
}

static void test_random_bytes_never_crash(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 5, 0);
    for (int round = 0; round < 20000; round++) {
        struct framed framed = good_message();
        int flips = 1 + (int)rng_below(&rng, 8);
        for (int i = 0; i < flips; i++) {
            ((unsigned char *)&framed)[rng_below(&rng, whole)] ^=
                (unsigned char)rng_below(&rng, 256);
        }
        parse(&framed, whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_message),
        cmocka_unit_test(test_wrong_headers_are_refused),
        cmocka_unit_test(test_wrong_progress_is_refused),
        cmocka_unit_test(test_phases_have_names),
        cmocka_unit_test(test_random_bytes_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
