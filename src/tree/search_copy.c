/* A deep copy whose memory is one arena: chunks of 64 KiB instead of some dozen allocations a node,
 * and one free. */
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "tree/search.h"

struct copy {
    struct arena *arena;
    bool failed; /* an allocation did; pointers of the copy are then NULL or borrowed, and must not
                    be read */
};

static void *copy_bytes(struct copy *copy, const void *from, size_t count, size_t size)
{
    if (from == NULL || count == 0 || copy->failed) {
        return NULL;
    }
    void *to = arena_alloc(copy->arena, count, size);
    if (to == NULL) {
        copy->failed = true;
        return NULL;
    }
    return memcpy(to, from, count * size);
}

static void copy_text(struct copy *copy, char **text)
{
    if (*text != NULL) {
        *text = copy_bytes(copy, *text, strlen(*text) + 1, 1);
    }
}

/* The functions below are given records that are already in the copy, and replace what they point
 * to. */

static void copy_candidate(struct copy *copy, struct candidate *candidate)
{
    copy_text(copy, &candidate->config);
    copy_text(copy, &candidate->end);
    copy_text(copy, &candidate->log_tail);
    candidate->error = copy_bytes(copy, candidate->error, 1, sizeof(*candidate->error));
    candidate->curve = copy_bytes(copy, candidate->curve, (size_t)candidate->curve_count,
                                  sizeof(*candidate->curve));
    candidate->cases = copy_bytes(copy, candidate->cases, (size_t)candidate->case_count,
                                  sizeof(*candidate->cases));
    for (int32_t i = 0; i < candidate->case_count && !copy->failed; i++) {
        copy_text(copy, &candidate->cases[i].prompt);
        copy_text(copy, &candidate->cases[i].answer);
        copy_text(copy, &candidate->cases[i].output);
    }
    candidate->confusions =
        copy_bytes(copy, candidate->confusions, (size_t)candidate->confusion_count,
                   sizeof(*candidate->confusions));
    for (int32_t i = 0; i < candidate->confusion_count && !copy->failed; i++) {
        copy_text(copy, &candidate->confusions[i].expected);
        copy_text(copy, &candidate->confusions[i].found);
    }
}

static void copy_node(struct copy *copy, const struct search_node *from, struct search_node *to)
{
    /* Candidates are most of a node: those that do not exist are not copied (the arena's memory is
     * zero). */
    const size_t head_bytes = offsetof(struct search_node, candidates);
    const size_t tail_offset = head_bytes + sizeof(from->candidates);
    memcpy(to, from, head_bytes);
    memcpy((char *)to + tail_offset, (const char *)from + tail_offset, sizeof(*to) - tail_offset);
    memcpy(to->candidates, from->candidates,
           (size_t)from->candidate_count * sizeof(from->candidates[0]));
    copy_text(copy, &to->strategy);
    copy_text(copy, &to->goal);
    copy_text(copy, &to->rationale);
    copy_text(copy, &to->recipe);
    copy_text(copy, &to->researcher);
    copy_text(copy, &to->diagnosis);
    copy_text(copy, &to->causes);
    copy_text(copy, &to->recipe_report);
    for (int32_t i = 0; i < to->candidate_count; i++) {
        copy_candidate(copy, &to->candidates[i]);
    }
}

static void copy_nodes(struct copy *copy, const struct search *from, struct search *to)
{
    size_t count = (size_t)from->tree.count;
    to->tree.nodes = copy_bytes(copy, from->tree.nodes, count, sizeof(*to->tree.nodes));
    to->tree.capacity = from->tree.count;
    to->tree.ranking = (struct tree_ranking){0}; /* nobody chooses in a copy */
    to->node_capacity = from->tree.count;
    to->nodes = count > 0 ? arena_alloc(copy->arena, count, sizeof(*to->nodes)) : NULL;
    copy->failed = copy->failed || (count > 0 && to->nodes == NULL);
    for (size_t i = 0; i < count && !copy->failed; i++) {
        copy_node(copy, &from->nodes[i], &to->nodes[i]);
    }
}

static void copy_lists(struct copy *copy, const struct search *from, struct search *to)
{
    to->settled = NULL; /* for who decides: a copy is only written */
    to->settled_count = 0;
    to->settled_capacity = 0;
    to->insights =
        copy_bytes(copy, from->insights, (size_t)from->insight_count, sizeof(*to->insights));
    for (int32_t i = 0; i < to->insight_count && !copy->failed; i++) {
        copy_text(copy, &to->insights[i].text);
    }
    to->allocations = copy_bytes(copy, from->allocations, (size_t)from->allocation_count,
                                 sizeof(*to->allocations));
    for (int32_t i = 0; i < to->allocation_count && !copy->failed; i++) {
        copy_text(copy, &to->allocations[i].job);
        copy_text(copy, &to->allocations[i].host);
        copy_text(copy, &to->allocations[i].end);
    }
    to->incidents =
        copy_bytes(copy, from->incidents, (size_t)from->incident_count, sizeof(*to->incidents));
    for (int32_t i = 0; i < to->incident_count && !copy->failed; i++) {
        copy_text(copy, &to->incidents[i].kind);
        copy_text(copy, &to->incidents[i].message);
    }
}

static void copy_call(struct copy *copy, struct search_call *call)
{
    copy_text(copy, &call->key);
    copy_text(copy, &call->purpose);
    copy_text(copy, &call->kind);
    copy_text(copy, &call->body);
    copy_text(copy, &call->reply);
    copy_text(copy, &call->provider);
    copy_text(copy, &call->model);
    copy_text(copy, &call->host);
    copy_text(copy, &call->error);
}

static void copy_document(struct copy *copy, struct search_document *document)
{
    copy_text(copy, &document->kind);
    copy_text(copy, &document->source);
    copy_text(copy, &document->id);
    copy_text(copy, &document->title);
    copy_text(copy, &document->url);
    copy_text(copy, &document->licence);
    copy_text(copy, &document->text);
    copy_text(copy, &document->note);
    copy_text(copy, &document->path);
}

static void copy_agents(struct copy *copy, const struct search *from, struct search *to)
{
    to->call_slots = NULL; /* nobody asks a copy */
    to->call_slot_count = 0;
    to->calls = copy_bytes(copy, from->calls, (size_t)from->call_count, sizeof(*to->calls));
    for (int32_t i = 0; i < to->call_count && !copy->failed; i++) {
        copy_call(copy, &to->calls[i]);
    }
    to->documents =
        copy_bytes(copy, from->documents, (size_t)from->document_count, sizeof(*to->documents));
    for (int32_t i = 0; i < to->document_count && !copy->failed; i++) {
        copy_document(copy, &to->documents[i]);
    }
    to->aheads = copy_bytes(copy, from->aheads, (size_t)from->ahead_count, sizeof(*to->aheads));
    to->prompts = copy_bytes(copy, from->prompts, (size_t)from->prompt_count, sizeof(*to->prompts));
    for (int32_t i = 0; i < to->prompt_count && !copy->failed; i++) {
        copy_text(copy, &to->prompts[i].name);
        copy_text(copy, &to->prompts[i].hash);
        copy_text(copy, &to->prompts[i].text);
    }
    copy_text(copy, &to->brief);
}

enum status search_copy(const struct search *from, struct search *out, struct error *err)
{
    struct arena arena;
    arena_init(&arena, SIZE_MAX);
    struct copy copy = {.arena = &arena};
    struct search to = *from;
    copy_nodes(&copy, from, &to);
    copy_lists(&copy, from, &to);
    copy_agents(&copy, from, &to);
    copy_text(&copy, &to.identity.job);
    copy_text(&copy, &to.identity.model_hash);
    copy_text(&copy, &to.identity.task_hash);
    copy_text(&copy, &to.identity.metric);
    copy_text(&copy, &to.identity.version);
    copy_text(&copy, &to.end_reason);
    if (copy.failed) {
        size_t bytes = arena.used_bytes;
        arena_fini(&arena);
        search_init(out);
        return mem_fail(err, bytes, "a copy of the search");
    }
    to.arena = arena;
    *out = to;
    return STATUS_OK;
}
