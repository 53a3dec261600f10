/* Messages between ranks are parsed as if hostile. */
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
        cmocka_unit_test(test_random_bytes_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
