/* The controller's own work: selection in a tree of 100,000 nodes, events a second. Prints one line
 * of JSON; times are medians. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "tree/search.h"

enum { TREE_NODES = 100000, EVENT_NODES = 10000, SELECTIONS = 301, CURVE_POINTS = 20 };

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), compare);
    return values[count / 2];
}

static _Noreturn void stop(const struct error *err)
{
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

static const struct tree_policy_options usual = {
    .exploration = 0.35, .max_children = 5, .noise = 0.01};

/* A tree as a search would grow it: each node a little better or worse than its parent, some
 * failed, some open. */
static void grow(struct tree *tree, const struct tree_policy *policy, struct rng *rng)
{
    struct error err;
    tree_init(tree);
    for (int32_t i = 0; i < TREE_NODES; i++) {
        int32_t parent = i == 0 ? -1 : policy->select(tree, &usual, rng);
        int32_t id = -1;
        if (tree_add(tree, parent, &id, &err) != STATUS_OK) {
            stop(&err);
        }
        if (i > 0 && rng_below(rng, 20) == 0) {
            tree_fail(tree, id);
        } else {
            double start = i == 0 ? 0.5 : tree->nodes[parent].reward;
            tree_close(tree, id, start + 0.02 * rng_normal(rng));
        }
    }
}

static double select_seconds(const struct tree *tree, const struct tree_policy *policy,
                             struct rng *rng)
{
    double times[SELECTIONS];
    for (int i = 0; i < SELECTIONS; i++) {
        double start_s = clock_monotonic_s();
        volatile int32_t id = policy->select(tree, &usual, rng);
        times[i] = clock_monotonic_s() - start_s;
        (void)id;
    }
    return median(times, SELECTIONS);
}

static void bench_selection(void)
{
    struct tree tree;
    struct rng rng;
    rng_init(&rng, 1, 0);
    grow(&tree, tree_policy_find("uct"), &rng);
    int32_t depth = 0;
    for (int32_t i = 0; i < tree.count; i++) {
        depth = tree.nodes[i].depth > depth ? tree.nodes[i].depth : depth;
    }
    printf("\"nodes\": %d, \"depth\": %d", TREE_NODES, (int)depth);
    for (const struct tree_policy *const *policy = tree_policy_list(); *policy != NULL; policy++) {
        printf(", \"select_%s_us\": %.2f", (*policy)->name,
               1e6 * select_seconds(&tree, *policy, &rng));
    }
    tree_fini(&tree);
}

/* The event's text with its number and ids; parsed before the clock starts. */
static cJSON *event_of(int64_t sequence, const char *body)
{
    struct error err;
    struct buffer text;
    cJSON *event = NULL;
    buffer_init(&text, 1 << 20);
    buffer_printf(&text, "{\"sequence\": %" PRId64 ", \"time_s\": 1.5, %s}", sequence, body);
    if (json_parse(buffer_text(&text), text.len_bytes, "event", &event, &err) != STATUS_OK) {
        stop(&err);
    }
    buffer_fini(&text);
    return event;
}

static void result_body(struct buffer *body, int node, double value)
{
    buffer_printf(body,
                  "\"event\": \"candidate_finished\", \"node\": %d, \"candidate\": 0, "
                  "\"weights_kept\": false, \"result\": {\"validation\": {\"value\": %.6f, "
                  "\"standard_error\": 0.01, \"loss\": 1.2, \"rows\": 872}, \"curve\": [",
                  node, value);
    for (int i = 1; i <= CURVE_POINTS; i++) {
        buffer_printf(body, "%s[%d, %d, 1.25, null, 0.5, 0.001, 0.25]", i > 1 ? "," : "", i,
                      i * 4096);
    }
    buffer_printf(body, "], \"cases\": [{\"row\": 3, \"score\": 0, \"prompt\": \"a sentence of "
                        "ordinary length, about forty characters\", \"answer\": \"yes\", "
                        "\"output\": \"no\"}], \"confusions\": [{\"expected\": \"yes\", "
                        "\"found\": \"no\", \"count\": 9}], \"steps_done\": 20, "
                        "\"rank_seconds\": 5.0, \"end\": \"finished\"}");
}

/* Body of event number `i` in the life of nodes: planned, started, finished, closed. */
static void node_body(struct buffer *body, int64_t i, struct rng *rng)
{
    int node = (int)(i / 4);
    int parent = node == 0 ? -1 : (int)rng_below(rng, (uint64_t)node);
    switch (i % 4) {
    case 0:
        buffer_printf(body,
                      "\"event\": \"node_planned\", \"node\": %d, \"parent\": %d, \"strategy\": "
                      "\"refine best\", \"goal\": \"a goal in one line\", \"rationale\": \"why, in "
                      "a few words with figures\", \"researcher\": \"rules\", \"recipe\": "
                      "[{\"op\": \"dedup\"}], \"configs\": [{\"learning_rate\": 0.001}]",
                      node, parent);
        break;
    case 1:
        buffer_printf(body,
                      "\"event\": \"candidate_started\", \"node\": %d, \"candidate\": 0, "
                      "\"rank\": 1",
                      node);
        break;
    case 2:
        result_body(body, node, rng_uniform(rng));
        break;
    default:
        buffer_printf(body,
                      "\"event\": \"node_closed\", \"node\": %d, \"diagnosis\": \"what it "
                      "means\", \"insights\": []",
                      node);
    }
}

static void bench_events(void)
{
    struct search search;
    struct error err;
    struct rng rng;
    const int64_t count = 4 * EVENT_NODES;
    cJSON **events = mem_calloc((size_t)count + 1, sizeof(*events));
    if (events == NULL) {
        exit(1);
    }
    rng_init(&rng, 2, 0);
    events[0] = event_of(1, "\"event\": \"started\", \"job\": {}, \"model_hash\": \"\", "
                            "\"task_hash\": \"\", \"metric\": \"accuracy\", \"larger_is_better\": "
                            "true, \"version\": \"0\", \"seed\": 1");
    for (int64_t i = 0; i < count; i++) {
        struct buffer body;
        buffer_init(&body, 1 << 20);
        node_body(&body, i, &rng);
        events[i + 1] = event_of(i + 2, buffer_text(&body));
        buffer_fini(&body);
    }
    search_init(&search);
    double start_s = clock_monotonic_s();
    for (int64_t i = 0; i <= count; i++) {
        if (search_apply(&search, events[i], &err) != STATUS_OK) {
            stop(&err);
        }
    }
    double apply_s = clock_monotonic_s() - start_s;
    printf(", \"events_per_second\": %.0f", (double)(count + 1) / apply_s);
    for (int64_t i = 0; i <= count; i++) {
        cJSON_Delete(events[i]);
    }
    free(events);
    search_fini(&search);
}

int main(void)
{
    printf("{\"bench\": \"tree\", ");
    bench_selection();
    bench_events();
    printf("}\n");
    return 0;
}
