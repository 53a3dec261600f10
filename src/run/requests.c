#include "run/requests.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void requests_fini(struct requests *requests)
{
    free(requests->list);
    memset(requests, 0, sizeof(*requests));
}

enum status requests_add(struct requests *requests, const struct request *request,
                         struct error *err)
{
    if (requests->count == requests->capacity) {
        int capacity = requests->capacity > 0 ? 2 * requests->capacity : 8;
        struct request *grown = mem_realloc(requests->list, (size_t)capacity, sizeof(*grown));
        if (grown == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*grown), "requests for plans");
        }
        requests->list = grown;
        requests->capacity = capacity;
    }
    requests->list[requests->count++] = *request;
    return STATUS_OK;
}

static struct request take(struct requests *requests, int index)
{
    struct request taken = requests->list[index];
    requests->count--;
    memmove(&requests->list[index], &requests->list[index + 1],
            (size_t)(requests->count - index) * sizeof(*requests->list));
    return taken;
}

bool requests_take(struct requests *requests, int32_t number, double *asked_s)
{
    for (int i = 0; i < requests->count; i++) {
        if (requests->list[i].number == number) {
            struct request taken = take(requests, i);
            if (asked_s != NULL) {
                *asked_s = taken.asked_s;
            }
            return true;
        }
    }
    return false;
}

void requests_hear(struct requests *requests, double now_s)
{
    requests->heard_s = now_s;
}

bool requests_give_up(struct requests *requests, double now_s, double patience_s,
                      struct request *out)
{
    for (int i = 0; i < requests->count; i++) {
        const struct request *request = &requests->list[i];
        double since_s =
            request->asked_s > requests->heard_s ? request->asked_s : requests->heard_s;
        if (now_s - since_s >= patience_s) {
            *out = take(requests, i);
            return true;
        }
    }
    return false;
}
