/* A search as text, all of it: two searches are equal if their texts are. */
#ifndef TESTS_TREE_DUMP_H
#define TESTS_TREE_DUMP_H

#include <inttypes.h>

#include "base/buffer.h"
#include "tree/search.h"

static inline void dump_score(struct buffer *out, const char *name,
                              const struct search_score *score)
{
    buffer_printf(out, " %s=%d/%a/%a/%a/%" PRId64 "/%" PRId64 "/%" PRId64 "/%" PRId64 "/%a", name,
                  score->present, score->value, score->standard_error, score->loss, score->rows,
                  score->truncated, score->unfinished, score->format_failures, score->seconds);
}

static inline void dump_candidate(struct buffer *out, const struct candidate *c)
{
    static const struct error none = {.code = STATUS_OK};
    const struct error *error = c->error != NULL ? c->error : &none;
    buffer_printf(out, "  %s config=%s attempts=%d steps=%" PRId64 " samples=%" PRId64, //
                  candidate_state_name(c->state), search_text(c->config), (int)c->attempts,
                  c->steps_done, c->samples);
    buffer_printf(out, " tokens=%" PRId64 " end=%s cost=%a kept=%d error=%d/%d/%d/%s/%s log=%s",
                  c->tokens, search_text(c->end), c->rank_seconds, c->weights_kept, error->code,
                  error->rank, error->line, error->file, error->message, search_text(c->log_tail));
    buffer_printf(out, " kills=%d cores=%a gpus=%a", (int)c->kills, c->core_seconds,
                  c->gpu_seconds);
    dump_score(out, "validation", &c->validation);
    dump_score(out, "test", &c->test);
    for (int32_t i = 0; i < c->curve_count; i++) {
        const struct search_curve_point *p = &c->curve[i];
        buffer_printf(out, " [%" PRId64 " %" PRId64 " %a %a %a %a %a]", p->step, p->tokens,
                      p->train_loss, p->validation_loss, p->gradient_norm, p->learning_rate,
                      p->seconds);
    }
    for (int32_t i = 0; i < c->case_count; i++) {
        buffer_printf(out, " {%" PRId64 " %a %s|%s|%s}", c->cases[i].row, c->cases[i].score,
                      c->cases[i].prompt, c->cases[i].answer, c->cases[i].output);
    }
    for (int32_t i = 0; i < c->confusion_count; i++) {
        buffer_printf(out, " <%s %s %" PRId64 ">", c->confusions[i].expected,
                      c->confusions[i].found, c->confusions[i].count);
    }
    buffer_append_char(out, '\n');
}

static inline void dump_node(struct buffer *out, const struct search *search, int32_t id)
{
    const struct search_node *node = &search->nodes[id];
    const struct tree_node *at = &search->tree.nodes[id];
    buffer_printf(out, " node %d <- %d %d %a %" PRId64 " %" PRId64 " %a %" PRId64 "\n", (int)id,
                  (int)at->parent, (int)at->state, at->reward, at->visits, at->successes,
                  at->reward_sum, at->in_flight);
    buffer_printf(out, "  %s|%s|%s|%s|%s|%s|%s|%d|%a|%a\n", search_text(node->strategy),
                  search_text(node->goal), search_text(node->rationale), search_text(node->recipe),
                  search_text(node->researcher), search_text(node->diagnosis),
                  search_text(node->recipe_report), (int)node->best, node->planned_at_s,
                  node->closed_at_s);
    buffer_printf(out, "  causes %s\n", search_text(node->causes));
    for (int32_t i = 0; i < node->candidate_count; i++) {
        dump_candidate(out, &node->candidates[i]);
    }
}

static inline void dump_steering(struct buffer *out, const struct search *search)
{
    buffer_printf(out, " halted=%s", search->halt_id);
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        buffer_printf(out, " %s=%a", search_limits[id].name, search->limits[id]);
    }
    buffer_append_char(out, '\n');
}

static inline void dump_allocations(struct buffer *out, const struct search *search)
{
    for (int32_t i = 0; i < search->allocation_count; i++) {
        const struct search_allocation *a = &search->allocations[i];
        buffer_printf(out, " allocation %a %a %d %d %d %d %d %d %s|%s|%s %a %a\n", a->started_s,
                      a->seconds, (int)a->ranks, (int)a->workers, (int)a->nodes, (int)a->threads,
                      (int)a->gpus, (int)a->restarts, a->job, a->host, a->end, a->predicted_s,
                      a->safe_s);
    }
    for (int32_t i = 0; i < search->incident_count; i++) {
        const struct search_incident *one = &search->incidents[i];
        buffer_printf(out, " incident %a %d %s|%s %d %d %a\n", one->time_s, (int)one->allocation,
                      one->kind, one->message, (int)one->node, (int)one->candidate, one->lost_s);
    }
}

static inline void dump_call(struct buffer *out, const struct search_call *call)
{
    buffer_printf(out, " call %s|%s|%s|%s|%d %d %d %s|%s|%s|%s|%s", call->key, call->purpose,
                  call->kind, call->body, (int)call->node, call->ended, call->lost,
                  call->reply != NULL ? call->reply : "NULL", search_text(call->provider),
                  search_text(call->model), search_text(call->host), search_text(call->error));
    buffer_printf(out, " %" PRId64 " %" PRId64 " %" PRId64 " %a %a %a %a %a %d %" PRId64 "\n",
                  call->tokens_in, call->tokens_out, call->reserved_tokens, call->cost_usd,
                  call->reserved_usd, call->started_s, call->seconds, call->rank_seconds,
                  (int)call->attempts, call->outcomes);
}

static inline void dump_agents(struct buffer *out, const struct search *search)
{
    buffer_printf(out, " agents %" PRId64 " %a %" PRId64 " %" PRId64 " brief %s\n",
                  search->agent_tokens, search->agent_usd, search->outcomes, search->ahead,
                  search_text(search->brief));
    for (int32_t i = 0; i < search->ahead_count; i++) {
        buffer_printf(out, " ahead %" PRId64 " at %" PRId64 "\n", search->aheads[i].candidates,
                      search->aheads[i].outcomes);
    }
    buffer_printf(out, " refusals %d\n", (int)search->refusals);
    for (int64_t i = 0; i < search->outcomes; i++) {
        struct search_outcome one = search_outcome_after(search, i);
        buffer_printf(out, " outcome %d %d %d\n", one.kind, (int)one.id, one.candidate);
    }
    for (int32_t i = 0; i < search->request_count; i++) {
        const struct search_request *one = &search->requests[i];
        buffer_printf(out, " request %d %d %s %d %" PRId64 " %" PRId64 "\n", (int)one->parent,
                      (int)one->node, one->dropped != NULL ? one->dropped : "NULL", one->refused,
                      one->outcomes, one->dropped_outcomes);
    }
    for (int32_t i = 0; i < search->call_count; i++) {
        dump_call(out, &search->calls[i]);
    }
    for (int32_t i = 0; i < search->document_count; i++) {
        const struct search_document *one = &search->documents[i];
        buffer_printf(out, " document %s|%s|%s|%s|%s|%s|%s|%s|%s %" PRId64 "\n", one->kind,
                      one->source, one->id, one->title, search_text(one->url),
                      search_text(one->licence), search_text(one->text), search_text(one->note),
                      one->path != NULL ? one->path : "NULL", one->rows);
    }
    for (int32_t i = 0; i < search->prompt_count; i++) {
        const struct search_prompt *one = &search->prompts[i];
        buffer_printf(out, " prompt %s|%s|%s\n", one->name, one->hash, one->text);
    }
}

/* On the heap; the caller frees it. */
static inline char *dump_search(const struct search *search)
{
    struct buffer out;
    buffer_init(&out, (size_t)64 << 20);
    const struct search_identity *identity = &search->identity;
    buffer_printf(&out, "%s|%s|%s|%s|%d|%s|%" PRIu64 "\n", search_text(identity->job),
                  search_text(identity->model_hash), search_text(identity->task_hash),
                  search_text(identity->metric), identity->larger_is_better,
                  search_text(identity->version), identity->seed);
    buffer_printf(&out, "%" PRId64 " %a %a %a %d %d %s %d %d\n", search->last_sequence,
                  search->rank_seconds, search->allocation_seconds, search->earlier_seconds,
                  (int)search->allocation_count, (int)search->end, search_text(search->end_reason),
                  (int)search->winner_node, (int)search->winner_candidate);
    buffer_printf(&out, "%a %a %" PRId64 " %d\n", search->core_seconds, search->gpu_seconds,
                  search->incidents_seen, (int)search->incident_count);
    dump_steering(&out, search);
    dump_allocations(&out, search);
    dump_agents(&out, search);
    for (int32_t i = 0; i < search->tree.count; i++) {
        dump_node(&out, search, i);
    }
    for (int32_t i = 0; i < search->insight_count; i++) {
        buffer_printf(&out, " insight %s%s", search->insights[i].text,
                      search->insights[i].retired ? " (retired)" : "");
        for (int32_t k = 0; k < search->insights[i].node_count; k++) {
            buffer_printf(&out, " %d", (int)search->insights[i].nodes[k]);
        }
        buffer_append_char(&out, '\n');
    }
    return buffer_take(&out);
}

#endif
