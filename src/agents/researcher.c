/* The registry of researchers. Strategies that plans name: "baseline", "first recipe", "refine
 * data", "more data", "change training", "refine best". */
#include "agents/researcher.h"

#include <stdlib.h>
#include <string.h>

#include "agents/researcher_provider.h"
#include "base/mem.h"

struct researcher {
    const struct researcher_provider *provider;
    void *state;
};

/* X(name): a file researcher_<name>.c that defines struct researcher_provider researcher_<name>. */
#define RESEARCHER_LIST(X) X(rules) X(model)

static const struct researcher_provider *const providers[] = {
#define RESEARCHER_ROW(name) &researcher_##name,
    RESEARCHER_LIST(RESEARCHER_ROW)
#undef RESEARCHER_ROW
};
enum { PROVIDER_COUNT = sizeof(providers) / sizeof(providers[0]) };

static const char *const provider_names[] = {
#define RESEARCHER_NAME(name) #name,
    RESEARCHER_LIST(RESEARCHER_NAME)
#undef RESEARCHER_NAME
        NULL,
};

const char *const *researcher_providers(void)
{
    return provider_names;
}

enum status researcher_open(const struct researcher_options *options, struct researcher **out,
                            struct error *err)
{
    const struct researcher_provider *found = NULL;
    for (size_t i = 0; i < PROVIDER_COUNT; i++) {
        if (strcmp(providers[i]->name, options->provider) == 0) {
            found = providers[i];
        }
    }
    if (found == NULL) {
        return FAIL(err, STATUS_INVALID,
                    "researcher: found provider \"%.40s\", allowed are \"rules\" and \"model\"",
                    options->provider);
    }
    struct researcher *researcher = mem_calloc(1, sizeof(*researcher));
    if (researcher == NULL) {
        return mem_fail(err, sizeof(*researcher), "a researcher");
    }
    researcher->provider = found;
    enum status status = found->open(options, &researcher->state, err);
    if (status != STATUS_OK) {
        free(researcher);
        return status;
    }
    *out = researcher;
    return STATUS_OK;
}

void researcher_close(struct researcher *researcher)
{
    if (researcher != NULL) {
        researcher->provider->close(researcher->state);
        free(researcher);
    }
}

enum status researcher_request(struct researcher *researcher, const struct search *search,
                               int32_t parent, int32_t number, struct error *err)
{
    bool fits = parent == -1 ? search->tree.count == 0
                             : parent >= 0 && parent < search->tree.count &&
                                   search->tree.nodes[parent].state == TREE_NODE_CLOSED;
    if (!fits) {
        return FAIL(err, STATUS_INVALID, "node %d cannot be refined: it is not closed",
                    (int)parent);
    }
    return researcher->provider->request(researcher->state, search, parent, number, err);
}

bool researcher_poll(struct researcher *researcher, struct plan *out)
{
    return researcher->provider->poll(researcher->state, out);
}

int researcher_pending(const struct researcher *researcher)
{
    return researcher->provider->pending(researcher->state);
}

enum status researcher_diagnose(struct researcher *researcher, const struct search *search,
                                int32_t node, char **diagnosis, cJSON **insights, struct error *err)
{
    if (node < 0 || node >= search->tree.count) {
        return FAIL(err, STATUS_INVALID, "node %d does not exist", (int)node);
    }
    return researcher->provider->diagnose(researcher->state, search, node, diagnosis, insights,
                                          err);
}

enum status researcher_turn(struct researcher *researcher, const struct search *search,
                            struct error *err)
{
    const struct researcher_provider *provider = researcher->provider;
    return provider->turn != NULL ? provider->turn(researcher->state, search, err) : STATUS_OK;
}

bool researcher_is_prepared(const struct researcher *researcher, const struct search *search)
{
    const struct researcher_provider *provider = researcher->provider;
    return provider->is_prepared == NULL || provider->is_prepared(researcher->state, search);
}

enum status researcher_revise(struct researcher *researcher, const struct search *search,
                              struct plan *plan, const char *problem, struct error *err)
{
    const struct researcher_provider *provider = researcher->provider;
    if (provider->revise == NULL) {
        plan_fini(plan);
        return FAIL(err, STATUS_UNSUPPORTED, "%s repairs no plans", provider->name);
    }
    return provider->revise(researcher->state, search, plan, problem, err);
}

void researcher_forget(struct researcher *researcher, int32_t number)
{
    if (researcher->provider->forget != NULL) {
        researcher->provider->forget(researcher->state, number);
    }
}

bool researcher_take_event(struct researcher *researcher, cJSON **event)
{
    const struct researcher_provider *provider = researcher->provider;
    return provider->take_event != NULL && provider->take_event(researcher->state, event);
}
