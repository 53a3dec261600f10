/* The way out: a search to rows. */
#include "store/run_image.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"

void run_image_fini(struct run_image *image)
{
    for (int i = 0; i < RUN_TABLE_COUNT; i++) {
        free(image->rows[i]);
    }
    arena_fini(&image->texts);
    memset(image, 0, sizeof(*image));
}

static void count_rows(const struct search *search, int64_t counts[RUN_TABLE_COUNT])
{
    memset(counts, 0, RUN_TABLE_COUNT * sizeof(counts[0]));
    counts[RUN_IDENTITY] = 1;
    counts[RUN_SEARCH] = 1;
    counts[RUN_NODES] = search->tree.count;
    counts[RUN_INSIGHTS] = search->insight_count;
    counts[RUN_ALLOCATIONS] = search->allocation_count;
    counts[RUN_INCIDENTS] = search->incident_count;
    counts[RUN_CALLS] = search->call_count;
    counts[RUN_DOCUMENTS] = search->document_count;
    counts[RUN_PROMPTS] = search->prompt_count;
    counts[RUN_AHEADS] = search->ahead_count;
    counts[RUN_REQUESTS] = search->request_count;
    counts[RUN_OUTCOMES] = search->order_count;
    for (int32_t n = 0; n < search->tree.count; n++) {
        const struct search_node *node = &search->nodes[n];
        counts[RUN_CANDIDATES] += node->candidate_count;
        for (int32_t c = 0; c < node->candidate_count; c++) {
            counts[RUN_CURVES] += node->candidates[c].curve_count;
            counts[RUN_CASES] += node->candidates[c].case_count;
            counts[RUN_CONFUSIONS] += node->candidates[c].confusion_count;
        }
    }
}

static void take_identity(const struct search *search, struct run_image *image)
{
    const struct search_identity *identity = &search->identity;
    *(struct identity_row *)image->rows[RUN_IDENTITY] = (struct identity_row){
        .job = search_text(identity->job),
        .model_hash = search_text(identity->model_hash),
        .task_hash = search_text(identity->task_hash),
        .metric = search_text(identity->metric),
        .version = search_text(identity->version),
        .seed = identity->seed,
        .larger_is_better = identity->larger_is_better,
    };
    struct search_row *totals = image->rows[RUN_SEARCH];
    *totals = (struct search_row){
        .last_sequence = search->last_sequence,
        .rank_seconds = search->rank_seconds,
        .allocation_seconds = search->allocation_seconds,
        .earlier_seconds = search->earlier_seconds,
        .core_seconds = search->core_seconds,
        .gpu_seconds = search->gpu_seconds,
        .incidents = search->incidents_seen,
        .end_reason = search_text(search->end_reason),
        .halt_id = search->halt_id,
        .brief = search_text(search->brief),
        .agent_tokens = search->agent_tokens,
        .agent_usd = search->agent_usd,
        .outcomes = search->outcomes,
        .ahead = search->ahead,
        .allocations = search->allocation_count,
        .refusals = search->refusals,
        .winner_node = search->winner_node,
        .winner_candidate = search->winner_candidate,
        .end = (signed char)search->end,
    };
    memcpy(totals->limits, search->limits, sizeof(totals->limits));
}

static void take_node(const struct search *search, int32_t id, struct node_row *row)
{
    const struct tree_node *place = &search->tree.nodes[id];
    const struct search_node *node = &search->nodes[id];
    *row = (struct node_row){
        .strategy = search_text(node->strategy),
        .goal = search_text(node->goal),
        .rationale = search_text(node->rationale),
        .recipe = search_text(node->recipe),
        .researcher = search_text(node->researcher),
        .diagnosis = search_text(node->diagnosis),
        .recipe_report = search_text(node->recipe_report),
        .causes = search_text(node->causes),
        .visits = place->visits,
        .successes = place->successes,
        .reward = place->reward,
        .reward_sum = place->reward_sum,
        .planned_at_s = node->planned_at_s,
        .closed_at_s = node->closed_at_s,
        .node = id,
        .parent = place->parent,
        .depth = place->depth,
        .candidates = node->candidate_count,
        .best = node->best,
        .state = (signed char)place->state,
    };
}

static void take_score(const struct search_score *score, struct score_columns *columns)
{
    *columns = (struct score_columns){
        .value = score->value,
        .standard_error = score->standard_error,
        .loss = score->loss,
        .seconds = score->seconds,
        .rows = score->rows,
        .truncated = score->truncated,
        .unfinished = score->unfinished,
        .format_failures = score->format_failures,
        .present = score->present,
    };
}

/* `name` is where the candidate's name is put: the image keeps it. */
static void take_candidate(const struct candidate *from, int32_t node, int32_t number, char *name,
                           struct candidate_row *row)
{
    static const struct error none = {.code = STATUS_OK, .rank = -1};
    const struct error *error = from->error != NULL ? from->error : &none;
    search_candidate_name(node, number, name);
    *row = (struct candidate_row){
        .name = name,
        .config = search_text(from->config),
        .end = search_text(from->end),
        .log_tail = search_text(from->log_tail),
        .error_status = status_name(error->code),
        .error_message = error->message,
        .error_file = error->file,
        .steps_done = from->steps_done,
        .samples = from->samples,
        .tokens = from->tokens,
        .rank_seconds = from->rank_seconds,
        .core_seconds = from->core_seconds,
        .gpu_seconds = from->gpu_seconds,
        .node = node,
        .candidate = number,
        .attempts = from->attempts,
        .kills = from->kills,
        .error_rank = error->rank,
        .error_line = error->line,
        .state = (signed char)from->state,
        .weights_kept = from->weights_kept,
    };
    take_score(&from->validation, &row->validation);
    take_score(&from->test, &row->test);
}

/* Where the next row of each table goes. */
struct writer {
    struct candidate_row *candidate;
    struct curve_row *curve;
    struct case_row *failed;
    struct confusion_row *confusion;
    char *name;
};

static void take_lists(const struct candidate *from, int32_t node, int32_t number,
                       struct writer *to)
{
    for (int32_t i = 0; i < from->curve_count; i++) {
        const struct search_curve_point *point = &from->curve[i];
        *to->curve++ = (struct curve_row){point->step,
                                          point->tokens,
                                          point->train_loss,
                                          point->validation_loss,
                                          point->gradient_norm,
                                          point->learning_rate,
                                          point->seconds,
                                          node,
                                          number};
    }
    for (int32_t i = 0; i < from->case_count; i++) {
        const struct search_case *one = &from->cases[i];
        *to->failed++ = (struct case_row){one->row,
                                          one->score,
                                          search_text(one->prompt),
                                          search_text(one->answer),
                                          search_text(one->output),
                                          node,
                                          number};
    }
    for (int32_t i = 0; i < from->confusion_count; i++) {
        const struct search_confusion *one = &from->confusions[i];
        *to->confusion++ = (struct confusion_row){one->count, search_text(one->expected),
                                                  search_text(one->found), node, number};
    }
}

static void take_nodes(const struct search *search, struct run_image *image, char *names)
{
    struct node_row *nodes = image->rows[RUN_NODES];
    struct writer to = {image->rows[RUN_CANDIDATES], image->rows[RUN_CURVES],
                        image->rows[RUN_CASES], image->rows[RUN_CONFUSIONS], names};
    for (int32_t n = 0; n < search->tree.count; n++) {
        const struct search_node *node = &search->nodes[n];
        take_node(search, n, &nodes[n]);
        for (int32_t c = 0; c < node->candidate_count; c++) {
            take_candidate(&node->candidates[c], n, c, to.name, to.candidate);
            take_lists(&node->candidates[c], n, c, &to);
            to.candidate++;
            to.name += SEARCH_NAME_BYTES;
        }
    }
}

static void take_insights(const struct search *search, struct insight_row *rows)
{
    for (int32_t i = 0; i < search->insight_count; i++) {
        const struct search_insight *insight = &search->insights[i];
        rows[i].text = search_text(insight->text);
        rows[i].retired = insight->retired;
        for (int32_t k = 0; k < TABLE_LIST_LENGTH; k++) {
            rows[i].nodes[k] = k < insight->node_count ? insight->nodes[k] : -1;
        }
    }
}

static void take_allocations(const struct search *search, struct allocation_row *rows)
{
    for (int32_t i = 0; i < search->allocation_count; i++) {
        const struct search_allocation *from = &search->allocations[i];
        rows[i] = (struct allocation_row){
            .job = search_text(from->job),
            .host = search_text(from->host),
            .end = search_text(from->end),
            .started_s = from->started_s,
            .seconds = from->seconds,
            .predicted_s = from->predicted_s,
            .safe_s = from->safe_s,
            .allocation = i,
            .ranks = from->ranks,
            .workers = from->workers,
            .nodes = from->nodes,
            .threads = from->threads,
            .gpus = from->gpus,
            .restarts = from->restarts,
        };
    }
}

static void take_incidents(const struct search *search, struct incident_row *rows)
{
    for (int32_t i = 0; i < search->incident_count; i++) {
        const struct search_incident *from = &search->incidents[i];
        rows[i] = (struct incident_row){
            .kind = search_text(from->kind),
            .message = search_text(from->message),
            .time_s = from->time_s,
            .lost_s = from->lost_s,
            .incident = i,
            .allocation = from->allocation,
            .node = from->node,
            .candidate = from->candidate,
        };
    }
}

static enum call_row_state call_state(const struct search_call *call)
{
    if (!call->ended) {
        return CALL_ROW_OPEN;
    }
    return call->lost ? CALL_ROW_LOST : call->reply != NULL ? CALL_ROW_ANSWERED : CALL_ROW_FAILED;
}

static void take_calls(const struct search *search, struct call_row *rows)
{
    for (int32_t i = 0; i < search->call_count; i++) {
        const struct search_call *from = &search->calls[i];
        rows[i] = (struct call_row){
            .key = search_text(from->key),
            .purpose = search_text(from->purpose),
            .kind = search_text(from->kind),
            .body = search_text(from->body),
            .reply = search_text(from->reply),
            .provider = search_text(from->provider),
            .model = search_text(from->model),
            .host = search_text(from->host),
            .error = search_text(from->error),
            .tokens_in = from->tokens_in,
            .tokens_out = from->tokens_out,
            .reserved_tokens = from->reserved_tokens,
            .outcomes = from->outcomes,
            .cost_usd = from->cost_usd,
            .reserved_usd = from->reserved_usd,
            .started_s = from->started_s,
            .seconds = from->seconds,
            .rank_seconds = from->rank_seconds,
            .call = i,
            .node = from->node,
            .attempts = from->attempts,
            .state = (signed char)call_state(from),
        };
    }
}

static void take_documents(const struct search *search, struct document_row *rows)
{
    for (int32_t i = 0; i < search->document_count; i++) {
        const struct search_document *from = &search->documents[i];
        rows[i] = (struct document_row){
            .kind = search_text(from->kind),
            .source = search_text(from->source),
            .id = search_text(from->id),
            .title = search_text(from->title),
            .url = search_text(from->url),
            .licence = search_text(from->licence),
            .text = search_text(from->text),
            .note = search_text(from->note),
            .path = search_text(from->path),
            .rows = from->rows,
        };
    }
}

static void take_prompts(const struct search *search, struct prompt_row *rows)
{
    for (int32_t i = 0; i < search->prompt_count; i++) {
        const struct search_prompt *from = &search->prompts[i];
        rows[i] = (struct prompt_row){search_text(from->name), search_text(from->hash),
                                      search_text(from->text)};
    }
}

static void take_aheads(const struct search *search, struct ahead_row *rows)
{
    for (int32_t i = 0; i < search->ahead_count; i++) {
        rows[i] = (struct ahead_row){search->aheads[i].outcomes, search->aheads[i].candidates};
    }
}

static enum request_row_state request_state(const struct search_request *request)
{
    if (request->dropped != NULL) {
        return request->refused ? REQUEST_ROW_REFUSED : REQUEST_ROW_WITHDRAWN;
    }
    return request->node >= 0 ? REQUEST_ROW_PLANNED : REQUEST_ROW_OPEN;
}

static void take_requests(const struct search *search, struct request_row *rows)
{
    for (int32_t i = 0; i < search->request_count; i++) {
        const struct search_request *from = &search->requests[i];
        rows[i] = (struct request_row){
            .outcomes = from->outcomes,
            .dropped_outcomes = from->dropped_outcomes,
            .dropped = search_text(from->dropped),
            .parent = from->parent,
            .node = from->node,
            .state = (signed char)request_state(from),
        };
    }
}

static void take_outcomes(const struct search *search, struct outcome_row *rows)
{
    for (int32_t i = 0; i < search->order_count; i++) {
        const struct search_outcome *from = &search->order[i];
        rows[i] = (struct outcome_row){from->id, from->candidate, (signed char)from->kind};
    }
}

/* A text that is not valid UTF-8 is replaced by a repaired copy. */
static enum status repair_text(const char **text, struct arena *texts, struct error *err)
{
    size_t length = strlen(*text);
    if (json_utf8_valid(*text, length)) {
        return STATUS_OK;
    }
    char *repaired = arena_alloc(texts, 3 * length + 1, 1);
    if (repaired == NULL) {
        return mem_fail(err, 3 * length + 1, "a text");
    }
    text_repair(*text, length, repaired);
    *text = repaired;
    return STATUS_OK;
}

static enum status repair_texts(struct run_image *image, enum run_table index, struct error *err)
{
    const struct table *table = &run_tables[index];
    for (int64_t i = 0; i < image->counts[index]; i++) {
        unsigned char *row = (unsigned char *)image->rows[index] + (size_t)i * table->row_bytes;
        for (int k = 0; k < table->column_count; k++) {
            if (table->columns[k].kind == TABLE_TEXT) {
                const char **text = (const char **)(void *)(row + table->columns[k].offset);
                TRY(repair_text(text, &image->texts, err));
            }
        }
    }
    return STATUS_OK;
}

static enum status take_all(const struct search *search, struct run_image *image, struct error *err)
{
    count_rows(search, image->counts);
    for (int i = 0; i < RUN_TABLE_COUNT; i++) {
        image->rows[i] = mem_calloc((size_t)image->counts[i], run_tables[i].row_bytes);
        if (image->rows[i] == NULL) {
            return mem_fail(err, (size_t)image->counts[i] * run_tables[i].row_bytes,
                            "rows of a run file");
        }
    }
    char *names =
        arena_alloc(&image->texts, (size_t)image->counts[RUN_CANDIDATES] + 1, SEARCH_NAME_BYTES);
    if (names == NULL) {
        return mem_fail(err, (size_t)image->counts[RUN_CANDIDATES] * SEARCH_NAME_BYTES,
                        "names of candidates");
    }
    take_identity(search, image);
    take_nodes(search, image, names);
    take_insights(search, image->rows[RUN_INSIGHTS]);
    take_allocations(search, image->rows[RUN_ALLOCATIONS]);
    take_incidents(search, image->rows[RUN_INCIDENTS]);
    take_calls(search, image->rows[RUN_CALLS]);
    take_documents(search, image->rows[RUN_DOCUMENTS]);
    take_prompts(search, image->rows[RUN_PROMPTS]);
    take_aheads(search, image->rows[RUN_AHEADS]);
    take_requests(search, image->rows[RUN_REQUESTS]);
    take_outcomes(search, image->rows[RUN_OUTCOMES]);
    for (int i = 0; i < RUN_TABLE_COUNT; i++) {
        TRY(repair_texts(image, (enum run_table)i, err));
    }
    return STATUS_OK;
}

enum status run_image_take(const struct search *search, struct run_image *out, struct error *err)
{
    struct run_image image;
    memset(&image, 0, sizeof(image));
    arena_init(&image.texts, SIZE_MAX / 2);
    enum status status = take_all(search, &image, err);
    if (status != STATUS_OK) {
        run_image_fini(&image);
        return status;
    }
    *out = image;
    return STATUS_OK;
}
