/* The tables of run.h5: their rows as C structs, and the columns that describe them.
 *
 *   /identity (1)  /search (1)  /nodes  /candidates  /curves  /cases  /confusions  /insights
 *   /allocations  /incidents  /calls  /documents  /prompts  /aheads  /requests
 *   /outcomes
 *
 * Rows are ordered by node, candidate, then as they came: row i of /nodes is node i. FORMATS.md
 * documents them. */
#ifndef STORE_RUN_TABLES_H
#define STORE_RUN_TABLES_H

#include "store/table.h"
#include "tree/search_limit.h"

enum run_table {
    RUN_IDENTITY,
    RUN_SEARCH,
    RUN_NODES,
    RUN_CANDIDATES,
    RUN_CURVES,
    RUN_CASES,
    RUN_CONFUSIONS,
    RUN_INSIGHTS,
    RUN_ALLOCATIONS,
    RUN_INCIDENTS,
    RUN_CALLS,
    RUN_DOCUMENTS,
    RUN_PROMPTS,
    RUN_AHEADS,
    RUN_REQUESTS,
    RUN_OUTCOMES,
    RUN_TABLE_COUNT
};

extern const struct table run_tables[RUN_TABLE_COUNT];

struct identity_row {
    const char *job, *model_hash, *task_hash, *metric, *version;
    uint64_t seed;
    signed char larger_is_better;
};

struct search_row {
    int64_t last_sequence;
    double rank_seconds, allocation_seconds, earlier_seconds, core_seconds, gpu_seconds;
    int64_t incidents;
    const char *end_reason, *halt_id, *brief;
    double limits[SEARCH_LIMIT_COUNT];
    int64_t agent_tokens, outcomes, ahead;
    double agent_usd;
    int32_t allocations, refusals, winner_node, winner_candidate;
    signed char end;
};

struct node_row {
    const char *strategy, *goal, *rationale, *recipe, *researcher, *diagnosis, *recipe_report,
        *causes;
    int64_t visits, successes;
    double reward, reward_sum, planned_at_s, closed_at_s;
    int32_t node, parent, depth, candidates, best;
    signed char state;
};

struct score_columns {
    double value, standard_error, loss, seconds;
    int64_t rows, truncated, unfinished, format_failures;
    signed char present;
};

struct candidate_row {
    const char *name, *config, *end, *log_tail, *error_status, *error_message, *error_file;
    struct score_columns validation, test;
    int64_t steps_done, samples, tokens;
    double rank_seconds, core_seconds, gpu_seconds;
    int32_t node, candidate, attempts, error_rank, error_line, kills;
    signed char state, weights_kept;
};

struct curve_row {
    int64_t step, tokens;
    double train_loss, validation_loss, gradient_norm, learning_rate, seconds;
    int32_t node, candidate;
};

struct case_row {
    int64_t row;
    double score;
    const char *prompt, *answer, *output;
    int32_t node, candidate;
};

struct confusion_row {
    int64_t count;
    const char *expected, *found;
    int32_t node, candidate;
};

struct insight_row {
    const char *text;
    int32_t nodes[TABLE_LIST_LENGTH];
    signed char retired;
};

struct allocation_row {
    const char *job, *host, *end;
    double started_s, seconds, predicted_s, safe_s;
    int32_t allocation, ranks, workers, nodes, threads, gpus, restarts;
};

struct incident_row {
    const char *kind, *message;
    double time_s, lost_s;
    int32_t incident, allocation, node, candidate;
};

enum call_row_state { CALL_ROW_OPEN, CALL_ROW_ANSWERED, CALL_ROW_FAILED, CALL_ROW_LOST };

struct call_row {
    const char *key, *purpose, *kind, *body, *reply, *provider, *model, *host, *error;
    int64_t tokens_in, tokens_out, reserved_tokens, outcomes;
    double cost_usd, reserved_usd, started_s, seconds, rank_seconds;
    int32_t call, node, attempts;
    signed char state;
};

struct document_row {
    const char *kind, *source, *id, *title, *url, *licence, *text, *note, *path;
    int64_t rows;
};

struct prompt_row {
    const char *name, *hash, *text;
};

struct ahead_row {
    int64_t outcomes, candidates;
};

enum request_row_state {
    REQUEST_ROW_OPEN,
    REQUEST_ROW_PLANNED,
    REQUEST_ROW_WITHDRAWN,
    REQUEST_ROW_REFUSED
};
struct outcome_row {
    int32_t id, candidate;
    signed char kind;
};

struct request_row {
    int64_t outcomes, dropped_outcomes;
    const char *dropped;
    int32_t parent, node;
    signed char state;
};

#endif
