#include "store/run_tables.h"

#define LATER(version, row, field, kind, meaning)                                                  \
    {                                                                                              \
#field, kind, offsetof(struct row, field), meaning, NULL, version                          \
    }
#define COLUMN(row, field, kind, meaning) LATER(0, row, field, kind, meaning)
#define CHOICE(row, field, names, meaning)                                                         \
    {                                                                                              \
#field, TABLE_ENUM, offsetof(struct row, field), meaning, names, 0                         \
    }
#define SCORE(split, field, kind, meaning)                                                         \
    {                                                                                              \
#split "_" #field, kind, offsetof(struct candidate_row, split.field), meaning, NULL, 0     \
    }
#define LIMIT(name, id, unit)                                                                      \
    {                                                                                              \
        "limit_" #name, TABLE_F64, offsetof(struct search_row, limits[id]),                        \
            unit " that somebody set as a limit, NaN if the job file's holds", NULL, 2             \
    }
#define COUNT(columns) ((int)(sizeof(columns) / sizeof((columns)[0])))

static const char *const end_names[] = {"RUNNING", "FINISHED", NULL};
static const char *const node_state_names[] = {"OPEN", "CLOSED", "FAILED", NULL};
static const char *const call_state_names[] = {"OPEN", "ANSWERED", "FAILED", "LOST", NULL};
static const char *const request_state_names[] = {"OPEN", "PLANNED", "WITHDRAWN", "REFUSED", NULL};
static const char *const outcome_names[] = {"NONE",      "PLANNED", "DROPPED",   "FINISHED",
                                            "FAILED",    "CLOSED",  "DIAGNOSED", "BRIEF",
                                            "DOCUMENTS", "AHEAD",   "CALL",      NULL};
static const char *const candidate_state_names[] = {"PLANNED",  "RUNNING", "SUSPENDED",
                                                    "FINISHED", "FAILED",  NULL};

static const struct table_column identity_columns[] = {
    COLUMN(identity_row, job, TABLE_TEXT, "the job file as it was read, JSON, without secrets"),
    COLUMN(identity_row, model_hash, TABLE_TEXT,
           "XXH3-128 of the base model: config.json and all tensors"),
    COLUMN(identity_row, task_hash, TABLE_TEXT,
           "XXH3-128 of validation split, test split and metric"),
    COLUMN(identity_row, metric, TABLE_TEXT,
           "metric of the task; scores and rewards are in its unit"),
    COLUMN(identity_row, larger_is_better, TABLE_BOOL,
           "whether a larger value of the metric is better"),
    COLUMN(identity_row, version, TABLE_TEXT, "version of the program that began the search"),
    COLUMN(identity_row, seed, TABLE_U64, "seed of all random numbers of the search"),
};

static const struct table_column search_columns[] = {
    COLUMN(search_row, last_sequence, TABLE_I64,
           "number of the last event in this file; the journal goes on from it"),
    COLUMN(search_row, rank_seconds, TABLE_F64,
           "seconds times ranks spent by candidates, failed ones included"),
    COLUMN(search_row, allocation_seconds, TABLE_F64, "wall seconds of all allocations"),
    COLUMN(search_row, earlier_seconds, TABLE_F64, "of them, before the last allocation"),
    COLUMN(search_row, allocations, TABLE_I32, "number of allocations so far"),
    CHOICE(search_row, end, end_names, "whether the search is over"),
    COLUMN(search_row, end_reason, TABLE_TEXT, "why it ended; empty while it runs"),
    COLUMN(search_row, winner_node, TABLE_I32, "node of the winner, -1 until the end"),
    COLUMN(search_row, winner_candidate, TABLE_I32, "candidate of the winner, -1 until the end"),
    LATER(2, search_row, core_seconds, TABLE_F64, "seconds times cores spent by candidates"),
    LATER(2, search_row, gpu_seconds, TABLE_F64, "seconds times GPUs spent by candidates"),
    LATER(2, search_row, incidents, TABLE_I64,
          "number of incidents so far, also those that /incidents has no room for"),
    LIMIT(rounds, SEARCH_LIMIT_ROUNDS, "rounds"),
    LIMIT(core_hours, SEARCH_LIMIT_CORE_HOURS, "core-hours"),
    LIMIT(gpu_hours, SEARCH_LIMIT_GPU_HOURS, "GPU-hours"),
    LIMIT(goal_score, SEARCH_LIMIT_GOAL_SCORE, "validation score"),
    LIMIT(agent_tokens, SEARCH_LIMIT_AGENT_TOKENS, "tokens of the researcher"),
    LIMIT(agent_money_usd, SEARCH_LIMIT_AGENT_MONEY, "dollars of the researcher"),
    LATER(2, search_row, halt_id, TABLE_TEXT,
          "id of the last wish to halt that it has obeyed, empty if none"),
    LATER(3, search_row, agent_tokens, TABLE_I64,
          "tokens of all calls: spent, and reserved by those that are open or were lost"),
    LATER(3, search_row, agent_usd, TABLE_F64,
          "dollars of all calls likewise; a call without a price counts 0"),
    LATER(3, search_row, outcomes, TABLE_I64,
          "events so far that a decision can rest on: plans, results, what was found"),
    LATER(3, search_row, ahead, TABLE_I64, "candidates that are planned ahead of the free workers"),
    LATER(3, search_row, brief, TABLE_TEXT,
          "what the task wants, and hypotheses, JSON; empty if none was written"),
    LATER(4, search_row, refusals, TABLE_I32,
          "plans that could not run since the last one became a node"),
};

static const struct table_column node_columns[] = {
    COLUMN(node_row, node, TABLE_I32,
           "number of the node, also the number of the row; 0 is the root (baseline)"),
    COLUMN(node_row, parent, TABLE_I32, "node that this one refines, -1 for the root"),
    COLUMN(node_row, depth, TABLE_I32, "edges from the root"),
    CHOICE(node_row, state, node_state_names, "OPEN until its last candidate is back"),
    COLUMN(node_row, reward, TABLE_F64,
           "best validation score of its candidates, negated if smaller is better; 0 until closed"),
    COLUMN(node_row, visits, TABLE_I64, "closed and failed nodes in this subtree, itself included"),
    COLUMN(node_row, successes, TABLE_I64, "closed nodes in this subtree"),
    COLUMN(node_row, reward_sum, TABLE_F64,
           "sum of the rewards of the closed nodes in this subtree"),
    COLUMN(node_row, candidates, TABLE_I32, "number of its candidates"),
    COLUMN(node_row, best, TABLE_I32,
           "candidate with the best validation score, -1 if there is none"),
    COLUMN(node_row, strategy, TABLE_TEXT, "kind of plan"),
    COLUMN(node_row, goal, TABLE_TEXT, "what this round is to find out, one line"),
    COLUMN(node_row, rationale, TABLE_TEXT, "why, in words"),
    COLUMN(node_row, recipe, TABLE_TEXT, "data recipe, JSON list of operators"),
    COLUMN(node_row, recipe_report, TABLE_TEXT, "what each step of the recipe did, JSON"),
    COLUMN(node_row, researcher, TABLE_TEXT, "who planned it: rules, or provider and model"),
    COLUMN(node_row, diagnosis, TABLE_TEXT, "what was learned, set when the node closes"),
    COLUMN(node_row, planned_at_s, TABLE_F64, "wall time of the plan, seconds since 1970"),
    COLUMN(node_row, closed_at_s, TABLE_F64, "wall time of closing, seconds since 1970"),
    LATER(3, node_row, causes, TABLE_TEXT,
          "why cases failed as an agent sees it, JSON; empty if none has looked"),
};

#define SCORE_COLUMNS(split, text)                                                                 \
    SCORE(split, present, TABLE_BOOL, "whether there is a score on the " text),                    \
        SCORE(split, value, TABLE_F64, "metric on the " text),                                     \
        SCORE(split, standard_error, TABLE_F64, "standard error of the metric on the " text),      \
        SCORE(split, loss, TABLE_F64,                                                              \
              "nats per answer token on the " text ", NaN if not measured"),                       \
        SCORE(split, rows, TABLE_I64, "rows of the " text),                                        \
        SCORE(split, truncated, TABLE_I64, "prompts of the " text " that were cut to fit"),        \
        SCORE(split, unfinished, TABLE_I64,                                                        \
              "outputs on the " text " that ran into the length limit"),                           \
        SCORE(split, format_failures, TABLE_I64,                                                   \
              "outputs on the " text " that are no possible answer"),                              \
        SCORE(split, seconds, TABLE_F64, "wall seconds of the evaluation on the " text)

static const struct table_column candidate_columns[] = {
    COLUMN(candidate_row, node, TABLE_I32, "node it belongs to"),
    COLUMN(candidate_row, candidate, TABLE_I32, "number in its node, from 0"),
    COLUMN(candidate_row, name, TABLE_TEXT, "node and number as in file names: n0007-c2"),
    CHOICE(candidate_row, state, candidate_state_names, "what became of it"),
    COLUMN(candidate_row, config, TABLE_TEXT, "training configuration, JSON"),
    COLUMN(candidate_row, attempts, TABLE_I32, "times it was started and has not come back"),
    COLUMN(candidate_row, steps_done, TABLE_I64,
           "training steps done when it was suspended or finished"),
    COLUMN(candidate_row, samples, TABLE_I64, "rows trained on"),
    COLUMN(candidate_row, tokens, TABLE_I64, "tokens trained on"),
    COLUMN(candidate_row, end, TABLE_TEXT, "why its training ended"),
    SCORE_COLUMNS(validation, "validation split"),
    SCORE_COLUMNS(test, "test split"),
    COLUMN(candidate_row, rank_seconds, TABLE_F64, "cost: seconds times ranks"),
    COLUMN(candidate_row, weights_kept, TABLE_BOOL, "whether weights/<name>.h5 is there"),
    COLUMN(candidate_row, error_status, TABLE_TEXT,
           "kind of its failure, STATUS_OK if it did not fail"),
    COLUMN(candidate_row, error_message, TABLE_TEXT, "what went wrong"),
    COLUMN(candidate_row, error_file, TABLE_TEXT, "source file that saw the failure"),
    COLUMN(candidate_row, error_line, TABLE_I32, "line in that file"),
    COLUMN(candidate_row, error_rank, TABLE_I32, "rank that saw the failure, -1 if unknown"),
    COLUMN(candidate_row, log_tail, TABLE_TEXT, "what its rank said last before it failed"),
    LATER(2, candidate_row, kills, TABLE_I32, "incidents that blame it for the end of its rank"),
    LATER(2, candidate_row, core_seconds, TABLE_F64,
          "cost: seconds times cores, as its ranks had them"),
    LATER(2, candidate_row, gpu_seconds, TABLE_F64,
          "cost: seconds times GPUs, as its ranks had them"),
};

static const struct table_column curve_columns[] = {
    COLUMN(curve_row, node, TABLE_I32, "node of the candidate"),
    COLUMN(curve_row, candidate, TABLE_I32, "number of the candidate in its node"),
    COLUMN(curve_row, step, TABLE_I64, "training step, from 1"),
    COLUMN(curve_row, tokens, TABLE_I64, "tokens trained on so far"),
    COLUMN(curve_row, train_loss, TABLE_F64, "loss of this step, nats per answer token"),
    COLUMN(curve_row, validation_loss, TABLE_F64,
           "nats per answer token, NaN where it was not measured"),
    COLUMN(curve_row, gradient_norm, TABLE_F64, "Euclidean norm of the gradient before clipping"),
    COLUMN(curve_row, learning_rate, TABLE_F64, "learning rate of this step"),
    COLUMN(curve_row, seconds, TABLE_F64, "seconds spent training so far"),
};

static const struct table_column case_columns[] = {
    COLUMN(case_row, node, TABLE_I32, "node of the candidate"),
    COLUMN(case_row, candidate, TABLE_I32, "number of the candidate in its node"),
    COLUMN(case_row, row, TABLE_I64, "row of the validation split, from 0"),
    COLUMN(case_row, score, TABLE_F64, "score of this row"),
    COLUMN(case_row, prompt, TABLE_TEXT, "what the model was asked"),
    COLUMN(case_row, answer, TABLE_TEXT, "what it should have said"),
    COLUMN(case_row, output, TABLE_TEXT, "what it said"),
};

static const struct table_column confusion_columns[] = {
    COLUMN(confusion_row, node, TABLE_I32, "node of the candidate"),
    COLUMN(confusion_row, candidate, TABLE_I32, "number of the candidate in its node"),
    COLUMN(confusion_row, expected, TABLE_TEXT, "right answer"),
    COLUMN(confusion_row, found, TABLE_TEXT, "answer that was given"),
    COLUMN(confusion_row, count, TABLE_I64, "rows of the validation split"),
};

static const struct table_column insight_columns[] = {
    COLUMN(insight_row, text, TABLE_TEXT, "what was learned, in words"),
    COLUMN(insight_row, nodes, TABLE_I32_LIST, "nodes that support it, -1 where there is none"),
    LATER(3, insight_row, retired, TABLE_BOOL,
          "whether later evidence contradicts it, or it went into a later one"),
};

static const struct table_column allocation_columns[] = {
    COLUMN(allocation_row, allocation, TABLE_I32, "number of the allocation, also of the row"),
    COLUMN(allocation_row, started_s, TABLE_F64,
           "wall time of its start, seconds since 1970; 0 if it was not recorded"),
    COLUMN(allocation_row, seconds, TABLE_F64, "wall seconds that it lasted, as far as recorded"),
    COLUMN(allocation_row, ranks, TABLE_I32, "ranks, rank 0 included"),
    COLUMN(allocation_row, workers, TABLE_I32, "groups of ranks that train"),
    COLUMN(allocation_row, nodes, TABLE_I32, "machines, 0 if it was not recorded"),
    COLUMN(allocation_row, threads, TABLE_I32, "cores of a rank"),
    COLUMN(allocation_row, gpus, TABLE_I32, "GPUs of a rank that trains"),
    COLUMN(allocation_row, job, TABLE_TEXT, "Slurm's number of the job, empty without Slurm"),
    COLUMN(allocation_row, restarts, TABLE_I32, "how often Slurm had requeued that job"),
    COLUMN(allocation_row, host, TABLE_TEXT, "machine of rank 0"),
    COLUMN(allocation_row, end, TABLE_TEXT, "why it ended; empty while it runs, or if it died"),
    COLUMN(allocation_row, predicted_s, TABLE_F64,
           "seconds from the wish to stop until all is safe, as predicted; NaN if it did not end"),
    COLUMN(allocation_row, safe_s, TABLE_F64, "the same as measured; NaN if it did not end"),
};

static const struct table_column incident_columns[] = {
    COLUMN(incident_row, incident, TABLE_I32, "number of the incident, also of the row"),
    COLUMN(incident_row, time_s, TABLE_F64, "wall time, seconds since 1970"),
    COLUMN(incident_row, allocation, TABLE_I32, "allocation it was seen in, -1: before the first"),
    COLUMN(incident_row, kind, TABLE_TEXT, "kind of incident"),
    COLUMN(incident_row, message, TABLE_TEXT, "what happened"),
    COLUMN(incident_row, node, TABLE_I32, "node it is about, -1 if none"),
    COLUMN(incident_row, candidate, TABLE_I32, "candidate of that node, -1 if none"),
    COLUMN(incident_row, lost_s, TABLE_F64,
           "seconds times ranks of work to be done again, NaN if unknown"),
};

static const struct table_column call_columns[] = {
    COLUMN(call_row, call, TABLE_I32, "number of the call, also of the row"),
    COLUMN(call_row, key, TABLE_TEXT, "what it is known by; asked anew where it was lost"),
    COLUMN(call_row, purpose, TABLE_TEXT, "what it is for"),
    COLUMN(call_row, kind, TABLE_TEXT,
           "chat: a language model; source: literature or data; dry: a dry run"),
    COLUMN(call_row, node, TABLE_I32, "node it is about, -1: the whole search"),
    CHOICE(call_row, state, call_state_names, "LOST: its job ended before its answer came"),
    COLUMN(call_row, provider, TABLE_TEXT, "that answered, or failed last"),
    COLUMN(call_row, model, TABLE_TEXT, "language model that answered, or failed last"),
    COLUMN(call_row, host, TABLE_TEXT, "machine that answered, or failed last"),
    COLUMN(call_row, attempts, TABLE_I32, "tries until its end"),
    COLUMN(call_row, started_s, TABLE_F64, "wall time of the question, seconds since 1970"),
    COLUMN(call_row, seconds, TABLE_F64, "seconds from the question to the end"),
    COLUMN(call_row, tokens_in, TABLE_I64, "tokens of the question"),
    COLUMN(call_row, tokens_out, TABLE_I64, "tokens of the reply"),
    COLUMN(call_row, cost_usd, TABLE_F64, "dollars it has cost, NaN if no price is known"),
    COLUMN(call_row, reserved_tokens, TABLE_I64,
           "most tokens it could take; they count while it is OPEN, or LOST"),
    COLUMN(call_row, reserved_usd, TABLE_F64, "most dollars likewise, NaN if no price is known"),
    COLUMN(call_row, outcomes, TABLE_I64, "outcomes of the search when it ended"),
    COLUMN(call_row, error, TABLE_TEXT, "why there is no reply"),
    COLUMN(call_row, body, TABLE_TEXT, "question, JSON: messages and schema, or to a source"),
    COLUMN(call_row, reply, TABLE_TEXT, "reply as it came"),
    LATER(4, call_row, rank_seconds, TABLE_F64,
          "seconds times ranks of this job that worked on it"),
};

static const struct table_column document_columns[] = {
    COLUMN(document_row, kind, TABLE_TEXT, "literature or data"),
    COLUMN(document_row, source, TABLE_TEXT, "where it was found"),
    COLUMN(document_row, id, TABLE_TEXT, "what the source calls it"),
    COLUMN(document_row, title, TABLE_TEXT, "title or name"),
    COLUMN(document_row, url, TABLE_TEXT, "where to read it"),
    COLUMN(document_row, licence, TABLE_TEXT, "licence as the source names it"),
    COLUMN(document_row, text, TABLE_TEXT, "abstract or card, cut"),
    COLUMN(document_row, note, TABLE_TEXT, "what the researcher takes from it"),
    COLUMN(document_row, path, TABLE_TEXT,
           "downloaded rows, relative to the run folder; empty if there are none"),
    COLUMN(document_row, rows, TABLE_I64, "number of rows"),
};

static const struct table_column prompt_columns[] = {
    COLUMN(prompt_row, name, TABLE_TEXT, "name of the prompt"),
    COLUMN(prompt_row, hash, TABLE_TEXT, "XXH3-128 of its text"),
    COLUMN(prompt_row, text, TABLE_TEXT, "text with {{places}} to be filled"),
};

static const struct table_column ahead_columns[] = {
    COLUMN(ahead_row, outcomes, TABLE_I64, "outcomes of the search when it was set"),
    COLUMN(ahead_row, candidates, TABLE_I64, "candidates planned ahead from then on"),
};

static const struct table_column request_columns[] = {
    COLUMN(request_row, parent, TABLE_I32, "node below which a plan was asked for"),
    CHOICE(request_row, state, request_state_names,
           "WITHDRAWN: nobody wanted it any more, REFUSED: it cannot run"),
    COLUMN(request_row, node, TABLE_I32, "node that it became, -1 if none"),
    COLUMN(request_row, dropped, TABLE_TEXT, "why no node came of it"),
    COLUMN(request_row, outcomes, TABLE_I64, "outcomes of the search when it was asked for"),
    COLUMN(request_row, dropped_outcomes, TABLE_I64, "likewise when it was dropped, else 0"),
};

static const struct table_column outcome_columns[] = {
    CHOICE(outcome_row, kind, outcome_names, "what came to be known"),
    COLUMN(outcome_row, id, TABLE_I32, "its node, call, or number of a dropped plan; else -1"),
    COLUMN(outcome_row, candidate, TABLE_I32, "its candidate, -1 if none"),
};

#define TABLE_SINCE(version, index, name, row, columns, meaning)                                   \
    [index] = {name, meaning, sizeof(struct row), columns, COUNT(columns), version}
#define TABLE(index, name, row, columns, meaning) TABLE_SINCE(0, index, name, row, columns, meaning)

const struct table run_tables[RUN_TABLE_COUNT] = {
    TABLE(RUN_IDENTITY, "identity", identity_row, identity_columns,
          "what this search is of; one row"),
    TABLE(RUN_SEARCH, "search", search_row, search_columns, "where the search stands; one row"),
    TABLE(RUN_NODES, "nodes", node_row, node_columns,
          "the tree: one row a node, a node is one round"),
    TABLE(RUN_CANDIDATES, "candidates", candidate_row, candidate_columns,
          "one row a training configuration"),
    TABLE(RUN_CURVES, "curves", curve_row, curve_columns,
          "training curves: one row a recorded step"),
    TABLE(RUN_CASES, "cases", case_row, case_columns,
          "failed rows of the validation split, a sample a candidate"),
    TABLE(RUN_CONFUSIONS, "confusions", confusion_row, confusion_columns,
          "most frequent wrong answers"),
    TABLE(RUN_INSIGHTS, "insights", insight_row, insight_columns, "what was learned across nodes"),
    TABLE_SINCE(2, RUN_ALLOCATIONS, "allocations", allocation_row, allocation_columns,
                "one row a start of the ranks, in order"),
    TABLE_SINCE(2, RUN_INCIDENTS, "incidents", incident_row, incident_columns,
                "what went wrong or was changed, in order"),
    TABLE_SINCE(3, RUN_CALLS, "calls", call_row, call_columns,
                "questions to language models and sources with their replies, in order"),
    TABLE_SINCE(3, RUN_DOCUMENTS, "documents", document_row, document_columns,
                "papers and data sets that were found and kept"),
    TABLE_SINCE(3, RUN_PROMPTS, "prompts", prompt_row, prompt_columns,
                "prompts that the search uses"),
    TABLE_SINCE(3, RUN_AHEADS, "aheads", ahead_row, ahead_columns,
                "how far it was planned ahead of the free workers, in order"),
    TABLE_SINCE(4, RUN_REQUESTS, "requests", request_row, request_columns,
                "plans that were asked for, in order; the first has number 1"),
    TABLE_SINCE(4, RUN_OUTCOMES, "outcomes", outcome_row, outcome_columns,
                "all that decisions rest on, in the order in which it came to be known"),
};
