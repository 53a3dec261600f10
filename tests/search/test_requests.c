/* Plans that never come are given up, and answers that come late are known as such. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "run/requests.h"

static void add(struct requests *requests, int32_t parent, double now_s)
{
    struct error err = {0};
    assert_int_equal(requests_add(requests, parent, now_s, &err), STATUS_OK);
}

static void test_answers(void **state)
{
    (void)state;
    struct requests requests = {0};
    assert_false(requests_take(&requests, 3, NULL));
    for (int32_t parent = -1; parent < 40; parent++) {
        add(&requests, parent, 0.0);
    }
    assert_true(requests_take(&requests, 7, NULL));
    assert_false(requests_take(&requests, 7, NULL));
    assert_true(requests_take(&requests, -1, NULL));
    assert_true(requests_take(&requests, 39, NULL));
    assert_int_equal(requests.count, 38);
    requests_fini(&requests);
}

static void test_giving_up(void **state)
{
    (void)state;
    struct requests requests = {0};
    int32_t parent = -9;
    add(&requests, 1, 0.0);
    add(&requests, 2, 50.0);
    assert_false(requests_give_up(&requests, 99.0, 100.0, &parent));
    assert_true(requests_give_up(&requests, 100.0, 100.0, &parent));
    assert_int_equal(parent, 1);
    assert_false(requests_give_up(&requests, 100.0, 100.0, &parent)); /* told once */
    add(&requests, 1, 100.0);
    assert_true(requests_take(&requests, 1, NULL)); /* the new one is answered, by whichever came */
    assert_false(requests_take(&requests, 1, NULL)); /* the old one is late */
    assert_false(requests_take(&requests, 1, NULL)); /* and forgotten */
    assert_true(requests_take(&requests, 2, NULL));
    assert_int_equal(requests.count, 0);
    requests_fini(&requests);
}

static void test_hearing(void **state)
{
    (void)state;
    struct requests requests = {0};
    int32_t parent = -9;
    double asked_s = -1.0;
    add(&requests, 1, 10.0);
    requests_hear(&requests, 100.0); /* one of its calls was answered */
    assert_false(requests_give_up(&requests, 199.0, 100.0, &parent));
    add(&requests, 2, 150.0);
    assert_true(requests_take(&requests, 2, &asked_s));
    assert_float_equal(asked_s, 150.0, 1e-9);
    assert_true(requests_give_up(&requests, 200.0, 100.0, &parent));
    assert_int_equal(parent, 1);
    asked_s = -1.0;
    assert_false(requests_take(&requests, 1, &asked_s));
    assert_float_equal(asked_s, -1.0, 1e-9);
    requests_fini(&requests);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct requests requests = {0};
    struct error err = {0};
    mem_fail_nth(1);
    assert_int_equal(requests_add(&requests, 1, 0.0, &err), STATUS_NO_MEMORY);
    mem_fail_nth(0);
    assert_int_equal(requests.count, 0);
    requests_fini(&requests);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_giving_up),
        cmocka_unit_test(test_hearing),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
