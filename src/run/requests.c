#include "run/requests.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void requests_fini(struct requests *requests)
{
    free(requests->list);
    memset(requests, 0, sizeof(*requests));
}

enum status requests_add(struct requests *requests, int32_t parent, double now_s, struct error *err)
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
    requests->list[requests->count++] = (struct request){.parent = parent, .asked_s = now_s};
    return STATUS_OK;
}

/* The first one below a parent, given up or not; -1 if there is none. */
static int find(const struct requests *requests, int32_t parent, bool given_up)
{
    for (int i = 0; i < requests->count; i++) {
        const struct request *request = &requests->list[i];
        if (request->parent == parent && request->given_up == given_up) {
            return i;
        }
    }
    return -1;
}

void requests_hear(struct requests *requests, double now_s)
{
    requests->heard_s = now_s;
}

bool requests_take(struct requests *requests, int32_t parent, double *asked_s)
{
    int found = find(requests, parent, false);
    bool awaited = found >= 0;
    if (awaited && asked_s != NULL) {
        *asked_s = requests->list[found].asked_s;
    }
    found = awaited ? found : find(requests, parent, true);
    if (found >= 0) {
        requests->count--;
        memmove(&requests->list[found], &requests->list[found + 1],
                (size_t)(requests->count - found) * sizeof(*requests->list));
    }
    return awaited;
}

bool requests_give_up(struct requests *requests, double now_s, double patience_s, int32_t *parent)
{
    for (int i = 0; i < requests->count; i++) {
        struct request *request = &requests->list[i];
        double since_s =
            request->asked_s > requests->heard_s ? request->asked_s : requests->heard_s;
        if (!request->given_up && now_s - since_s >= patience_s) {
            request->given_up = true;
            *parent = request->parent;
            return true;
        }
    }
    return false;
}
