/* A search with a baseline and the rules researcher: what each test of it begins with. */
#ifndef TESTS_AGENTS_RULES_FIXTURE_H
#define TESTS_AGENTS_RULES_FIXTURE_H

#include "agents/simulate.h"

#include "agents/evidence.h"
#include "agents/rules.h"
#include "base/mem.h"

/* The outcome that a test wants of every candidate; scores fall with the candidate's number. */
struct wish {
    struct outcome outcome;
    int diverged_from; /* candidates from this number on diverge; 0: none */
    int best;          /* candidate with the best score */
};

static inline struct outcome grant(void *context, const struct train_config *config,
                                   const cJSON *recipe, int32_t candidate)
{
    const struct wish *wish = context;
    struct outcome outcome = wish->outcome;
    (void)config;
    (void)recipe;
    outcome.score -= 0.01 * abs((int)candidate - wish->best);
    outcome.diverged = wish->diverged_from > 0 && candidate >= wish->diverged_from;
    return outcome;
}

static const struct outcome settled = {
    .score = 0.7,
    .standard_error = 0.015,
    .train = {2.0, 1.5, 1.32, 1.3},
    .validation = {1.9, 1.61, 1.6, 1.6},
    .rows = 872,
};

struct fixture {
    struct researcher_facts facts;
    struct researcher *researcher;
    struct search search;
};

static inline void begin(struct fixture *fixture, const struct researcher_facts *facts)
{
    struct error err;
    fixture->facts = *facts;
    assert_int_equal(open_researcher("rules", &fixture->facts, &fixture->researcher, &err),
                     STATUS_OK);
    begin_search(&fixture->search, true);
    struct wish wish = {.outcome = {.score = 0.48, .standard_error = 0.017, .rows = 872}};
    int32_t root = plan_node(&fixture->search, fixture->researcher, -1);
    run_node(&fixture->search, fixture->researcher, root, grant, &wish);
}

static inline void end(struct fixture *fixture)
{
    search_fini(&fixture->search);
    researcher_close(fixture->researcher);
}

static inline int32_t grow(struct fixture *fixture, int32_t parent, struct wish wish)
{
    int32_t node = plan_node(&fixture->search, fixture->researcher, parent);
    run_node(&fixture->search, fixture->researcher, node, grant, &wish);
    return node;
}

static inline struct train_config config_of(const struct fixture *fixture, int32_t node,
                                            int32_t candidate)
{
    struct train_config config;
    assert_true(
        plan_config_read(fixture->search.nodes[node].candidates[candidate].config, &config));
    return config;
}

static inline void assert_plan(const struct fixture *fixture, int32_t node, const char *title,
                               const char *strategy, const char *reason)
{
    const struct search_node *made = &fixture->search.nodes[node];
    if (strncmp(made->goal, title, strlen(title)) != 0 || strstr(made->rationale, reason) == NULL) {
        fail_msg("expected \"%s\" because \"%s\", found %s: %s", title, reason, made->goal,
                 made->rationale);
    }
    assert_string_equal(made->strategy, strategy);
}

#endif
