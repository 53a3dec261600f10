/* Who is free or busy, kept as it changes: no turn looks through all workers. */
#include <assert.h>
#include <stdlib.h>

#include "base/mem.h"
#include "run/controller_state.h"

static int last_rank(const struct controller_options *options)
{
    int last = 0;
    for (int i = 0; i < options->leader_count; i++) {
        last = options->leaders[i] > last ? options->leaders[i] : last;
    }
    return last;
}

enum status controller_open_workers(struct controller *c, struct error *err)
{
    size_t count = (size_t)c->options.leader_count;
    c->rank_count = last_rank(&c->options) + 1;
    c->workers = mem_calloc(count, sizeof(*c->workers));
    c->free_workers = mem_calloc(count, sizeof(*c->free_workers));
    c->index_of_rank = mem_calloc((size_t)c->rank_count, sizeof(*c->index_of_rank));
    if (c->workers == NULL || c->free_workers == NULL || c->index_of_rank == NULL) {
        return mem_fail(err, count * sizeof(*c->workers), "workers");
    }
    for (int rank = 0; rank < c->rank_count; rank++) {
        c->index_of_rank[rank] = -1;
    }
    for (int i = 0; i < c->options.leader_count; i++) {
        c->workers[i].rank = c->options.leaders[i];
        c->workers[i].heard_s = c->started_s;
        c->index_of_rank[c->options.leaders[i]] = i;
    }
    return STATUS_OK;
}

void controller_close_workers(struct controller *c)
{
    free(c->workers);
    free(c->free_workers);
    free(c->index_of_rank);
}

int controller_find_worker(const struct controller *c, int rank)
{
    return rank >= 0 && rank < c->rank_count ? c->index_of_rank[rank] : -1;
}

void controller_welcome_worker(struct controller *c, int index)
{
    struct controller_worker *worker = &c->workers[index];
    if (!worker->present) {
        worker->present = true;
        c->free_workers[c->free_count++] = index;
    }
}

int controller_free_worker(const struct controller *c)
{
    return c->free_count > 0 ? c->free_workers[c->free_count - 1] : -1;
}

void controller_begin_work(struct controller *c, enum work work, int32_t node, int32_t candidate)
{
    assert(c->free_count > 0);
    struct controller_worker *worker = &c->workers[c->free_workers[--c->free_count]];
    c->busy_count++;
    worker->work = work;
    worker->node = node;
    worker->candidate = candidate;
}

void controller_end_work(struct controller *c, int index)
{
    struct controller_worker *worker = &c->workers[index];
    if (worker->work == WORK_NONE) {
        return;
    }
    worker->work = WORK_NONE;
    c->free_workers[c->free_count++] = index;
    c->busy_count--;
}
