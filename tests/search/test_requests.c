/* Plans that never come are given up, and those that come late are known as such. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "run/requests.h"

static void add(struct requests *requests, int32_t number, double now_s)
{
    struct error err = {0};
    const struct request request = {number - 1, number, now_s};
    assert_int_equal(requests_add(requests, &request, &err), STATUS_OK);
}

static void test_answers(void **state)
{
    (void)state;
    struct requests requests = {0};
    assert_false(requests_take(&requests, 3, NULL));
    for (int32_t number = 0; number <= 40; number++) {
        add(&requests, number, 0.0);
    }
    assert_true(requests_take(&requests, 7, NULL));
    assert_false(requests_take(&requests, 7, NULL));
    assert_true(requests_take(&requests, 0, NULL));
    assert_true(requests_take(&requests, 40, NULL));
    assert_int_equal(requests.count, 38);
    requests_fini(&requests);
}

static void test_giving_up(void **state)
{
    (void)state;
    struct requests requests = {0};
    struct request late = {0};
    add(&requests, 1, 0.0);
    add(&requests, 2, 50.0);
    assert_false(requests_give_up(&requests, 99.0, 100.0, &late));
    assert_true(requests_give_up(&requests, 100.0, 100.0, &late));
    assert_int_equal(late.number, 1);
    assert_int_equal(late.parent, 0);
    assert_false(requests_give_up(&requests, 100.0, 100.0, &late)); /* told once */
    assert_false(requests_take(&requests, 1, NULL));                /* its answer is late */
    assert_true(requests_take(&requests, 2, NULL));
    assert_int_equal(requests.count, 0);
    requests_fini(&requests);
}

static void test_hearing(void **state)
{
    (void)state;
    struct requests requests = {0};
    struct request late = {0};
    double asked_s = -1.0;
    add(&requests, 1, 10.0);
    requests_hear(&requests, 100.0); /* one of its calls was answered */
    assert_false(requests_give_up(&requests, 199.0, 100.0, &late));
    add(&requests, 2, 150.0);
    assert_true(requests_take(&requests, 2, &asked_s));
    assert_float_equal(asked_s, 150.0, 1e-9);
    assert_true(requests_give_up(&requests, 200.0, 100.0, &late));
    assert_int_equal(late.number, 1);
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
    assert_int_equal(requests_add(&requests, &(struct request){0}, &err), STATUS_NO_MEMORY);
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
