/* Events with wrong, missing and huge members, in any order: each is applied whole or refused
 * whole, and what was applied gives the same search again. */
#include "tree/life.h"

#include <stdio.h>

#include "base/rng.h"

enum { LIVES = 150, TRIES_AN_EVENT = 3, APPLIED_MAX = LIFE_EVENTS * (TRIES_AN_EVENT + 1) };

static const char *const hostile[] = {
    "null",
    "true",
    "false",
    "-1",
    "0",
    "1",
    "2",
    "3",
    "0.5",
    "-0.0",
    "1e15",
    "1e16",
    "1e300",
    "1e999",
    "-1e300",
    "2147483647",
    "2147483648",
    "9007199254740993",
    "\"\"",
    "\"x\"",
    "\"\\u0001\\n\"",
    "\"STATUS_OK\"",
    "[]",
    "{}",
    "[null]",
    "[[]]",
    "[{}]",
    "{\"value\":1}",
    "[1,2,3,4,5,6,7]",
    "[[1,2,3,4,5,6,7]]",
    "{\"node\":1}",
};
enum { HOSTILE_COUNT = sizeof(hostile) / sizeof(hostile[0]) };

/* Replaces or removes a member somewhere in the event, but not its sequence: that would hide all
 * else. */
static void mutate(cJSON *event, struct rng *rng)
{
    cJSON *parent = event;
    int size = cJSON_GetArraySize(parent);
    cJSON *item = cJSON_GetArrayItem(parent, 1 + (int)rng_below(rng, (uint64_t)size - 1));
    while (item->child != NULL && rng_below(rng, 3) > 0) {
        parent = item;
        size = cJSON_GetArraySize(parent);
        item = cJSON_GetArrayItem(parent, (int)rng_below(rng, (uint64_t)size));
    }
    if (rng_below(rng, 6) == 0) {
        cJSON_Delete(cJSON_DetachItemViaPointer(parent, item));
        return;
    }
    cJSON *value = cJSON_Parse(hostile[rng_below(rng, HOSTILE_COUNT)]);
    assert_non_null(value);
    if (item->string != NULL) {
        char key[64];
        snprintf(key, sizeof(key), "%s", item->string);
        cJSON_ReplaceItemInObjectCaseSensitive(parent, key, value);
    } else {
        cJSON_ReplaceItemViaPointer(parent, item, value);
    }
}

/* Applies it, or sees that a refused one has changed nothing. */
static bool try_event(struct search *search, const cJSON *event)
{
    struct error err = {0};
    char *before = dump_search(search);
    enum status status = search_apply(search, event, &err);
    if (status != STATUS_OK) {
        char *after = dump_search(search);
        assert_true(status == STATUS_INVALID || status == STATUS_LIMIT);
        assert_true(err.message[0] != '\0');
        assert_string_equal(before, after);
        free(after);
    }
    free(before);
    return status == STATUS_OK;
}

static void assert_replay(const struct search *search, cJSON *const *events, int count)
{
    struct search again;
    struct error err;
    search_init(&again);
    for (int i = 0; i < count; i++) {
        assert_int_equal(search_apply(&again, events[i], &err), STATUS_OK);
    }
    char *a = dump_search(search);
    char *b = dump_search(&again);
    assert_string_equal(a, b);
    assert_int_equal(tree_check(&search->tree, &err), STATUS_OK);
    free(a);
    free(b);
    search_fini(&again);
}

static void test_hostile_events(void **state)
{
    (void)state;
    int mutants_applied = 0;
    int mutants_refused = 0;
    for (uint64_t life = 0; life < LIVES; life++) {
        struct search search;
        struct rng rng;
        cJSON *applied[APPLIED_MAX];
        int count = 0;
        rng_init(&rng, 4, life);
        search_init(&search);
        for (int i = 0; i < LIFE_EVENTS * (TRIES_AN_EVENT + 1); i++) {
            bool whole = i % (TRIES_AN_EVENT + 1) == TRIES_AN_EVENT;
            int at = whole || rng_below(&rng, 2) == 0 ? i / (TRIES_AN_EVENT + 1)
                                                      : (int)rng_below(&rng, LIFE_EVENTS);
            cJSON *event = parse_event(search.last_sequence + 1, whole_life[at]);
            for (int n = 0; !whole && n < 1 + (int)rng_below(&rng, 2); n++) {
                mutate(event, &rng);
            }
            bool fits = try_event(&search, event);
            mutants_applied += !whole && fits;
            mutants_refused += !whole && !fits;
            if (fits) {
                applied[count++] = event;
            } else {
                cJSON_Delete(event);
            }
        }
        assert_replay(&search, applied, count);
        for (int i = 0; i < count; i++) {
            cJSON_Delete(applied[i]);
        }
        search_fini(&search);
    }
    /* Both ways were taken often. */
    assert_true(mutants_applied > LIVES && mutants_refused > LIVES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hostile_events)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
