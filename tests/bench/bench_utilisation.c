/* How busy the workers of a simulated search were, from its run folder.
 *
 *   bench_utilisation RUN SECONDS      of a search with one configuration a round, --simulate
 * SECONDS
 *
 *   utilisation = busy worker-seconds / (workers x elapsed), between the start of as many
 * candidates as there are workers and the start of the last one
 *
 * A candidate was busy up to the moment at which the controller closed its round, for as long as a
 * worker that nothing holds up would have taken: known from the seed. Whatever a worker or a
 * message was late counts as idle. `claimed` takes the workers' own figures instead. One line of
 * JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/mem.h"
#include "run/simulated.h"
#include "store/store.h"

struct span {
    double start_s, end_s;      /* wall time */
    double wanted_s, claimed_s; /* what it had to take; what its worker says it took */
};

static int compare_starts(const void *a, const void *b)
{
    double x = ((const struct span *)a)->start_s;
    double y = ((const struct span *)b)->start_s;
    return (x > y) - (x < y);
}

/* Spans of all finished trainings. Returns their number. */
static int32_t read_spans(const struct search *search, double seconds, struct span *out)
{
    int32_t count = 0;
    for (int32_t id = 1; id < search->tree.count; id++) {
        const struct search_node *node = &search->nodes[id];
        const struct candidate *candidate = &node->candidates[0];
        char name[SEARCH_NAME_BYTES];
        search_candidate_name(id, 0, name);
        if (search->tree.nodes[id].state != TREE_NODE_CLOSED || node->candidate_count != 1) {
            continue;
        }
        out[count++] = (struct span){
            .start_s = node->closed_at_s - candidate->rank_seconds,
            .end_s = node->closed_at_s,
            .wanted_s = simulated_duration_s(seconds, search->identity.seed, name),
            .claimed_s = candidate->rank_seconds,
        };
    }
    qsort(out, (size_t)count, sizeof(*out), compare_starts);
    return count;
}

static void print(const struct span *spans, int32_t count, int32_t workers)
{
    double from_s = spans[workers - 1].start_s;
    double to_s = spans[count - 1].start_s;
    double claimed_s = 0.0;
    double wanted_s = 0.0;
    for (int32_t i = 0; i < count; i++) {
        double inside_s = fmin(spans[i].end_s, to_s) - fmax(spans[i].start_s, from_s);
        if (inside_s > 0.0 && spans[i].claimed_s > 0.0) {
            claimed_s += inside_s;
            wanted_s += inside_s * fmin(spans[i].wanted_s / spans[i].claimed_s, 1.0);
        }
    }
    double all_s = (double)workers * (to_s - from_s);
    printf("{\"bench\":\"utilisation\",\"workers\":%d,\"candidates\":%d,\"elapsed_s\":%.1f,"
           "\"utilisation\":%.4f,\"claimed\":%.4f}\n",
           workers, count, to_s - from_s, wanted_s / all_s, claimed_s / all_s);
}

int main(int argc, char **argv)
{
    struct search search;
    struct error err = {0};
    char note[1024];
    double seconds = argc == 4 ? atof(argv[2]) : 0.0;
    int32_t workers = argc == 4 ? atoi(argv[3]) : 0;
    if (!(seconds > 0.0) || workers <= 0) {
        fputs("usage: bench_utilisation RUN SECONDS WORKERS\n", stderr);
        return 2;
    }
    if (store_run_load(argv[1], &search, note, sizeof(note), &err) != STATUS_OK) {
        fprintf(stderr, "bench_utilisation: %s\n", err.message);
        return 1;
    }
    struct span *spans = mem_calloc((size_t)search.tree.count + 1, sizeof(*spans));
    int32_t count = spans != NULL ? read_spans(&search, seconds, spans) : 0;
    int code = 0;
    if (search_is_simulated(&search) && search.allocation_count == 1 && count > 2 * workers) {
        print(spans, count, workers);
    } else {
        fprintf(stderr,
                "bench_utilisation: %s: needed is a simulated search of one allocation, in which "
                "each of %d workers had several candidates; found %d candidates\n",
                argv[1], workers, count);
        code = 1;
    }
    free(spans);
    search_fini(&search);
    return code;
}
