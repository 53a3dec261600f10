/* Before the first plan:
 *
 *   brief -> literature: queries -> searches -> reading -> documents
 *         -> data: queries -> searches -> cards -> choice -> downloads -> documents
 *
 * Whatever fails is given up with a line in the record: a search can do without each of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/model_parts.h"
#include "base/file.h"
#include "base/mem.h"
#include "net/source.h"

enum {
    QUERIES_MAX = 6,
    PER_QUERY = 5,
    FOUND_MAX = 24,
    CARDS_MAX = 6,
    CHOICES_MAX = 3,
    ABSTRACT_SHOWN_BYTES = 1200,
    CARD_SHOWN_BYTES = 2500,
    DETAIL_SHOWN_BYTES = 1500,
    TEXT_KEPT_BYTES = 8 * 1024,
    LINE_KEPT_BYTES = 1000
};

/* What was found for one of the two, and how far it has come. */
struct findings {
    int kind;         /* enum source_kind */
    const char *name; /* "literature", "data" */
    cJSON *documents; /* owned array, no document twice */
    bool waits;       /* some answer is missing */
};

/* ---- asking ---- */

static struct model_reply ask(struct model *model, const struct search *search, const char *name,
                              void (*fill)(struct model *, const struct search *, void *,
                                           struct model_values *),
                              void (*check)(struct model *, const struct search *, void *,
                                            const cJSON *, struct json_problems *),
                              void *context)
{
    char repair[SEARCH_CALL_KEY_BYTES];
    snprintf(repair, sizeof(repair), "%s/repair", name);
    const struct model_question question = {
        .key = name,
        .repair = repair,
        .prompt = name,
        .purpose = strcmp(name, "reading") == 0  ? "literature"
                   : strcmp(name, "choice") == 0 ? "data"
                                                 : name,
        .node = -1,
        .fill = fill,
        .check = check,
        .context = context,
    };
    return model_ask(model, search, &question);
}

static void fill_brief(struct model *model, const struct search *search, void *context,
                       struct model_values *values)
{
    (void)context;
    model_add_job(model, search, values);
    model_add_samples(model, values, 3);
}

static void fill_queries(struct model *model, const struct search *search, void *context,
                         struct model_values *values)
{
    const struct findings *findings = context;
    model_add_job(model, search, values);
    model_add_brief(search, values, 3);
    model_add_samples(model, values, 4);
    model_add_sources(values, findings->kind);
}

/* Members that a card has beside those that are shown by name: splits, columns, rows. */
static void append_details(const cJSON *document, struct buffer *out)
{
    static const char *const shown[] = {"kind", "source",  "id",   "title", "url",
                                        "year", "licence", "text", NULL};
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, document) {
        int i = 0;
        while (shown[i] != NULL && strcmp(shown[i], search_text(item->string)) != 0) {
            i++;
        }
        char *line = shown[i] == NULL ? json_print_line(item) : NULL;
        if (line != NULL) {
            buffer_printf(out, "    %.60s: ", search_text(item->string));
            model_append_line(out, line, DETAIL_SHOWN_BYTES);
            buffer_append_char(out, '\n');
        }
        free(line);
    }
}

static void append_document(const cJSON *document, int number, size_t text_bytes,
                            struct buffer *out)
{
    const cJSON *year = cJSON_GetObjectItemCaseSensitive(document, "year");
    buffer_printf(out, "%d. ", number);
    model_append_line(out, model_text(document, "title"), 300);
    buffer_printf(out, " (%s", model_text(document, "source"));
    if (cJSON_IsNumber(year)) {
        buffer_printf(out, ", %.0f", year->valuedouble);
    }
    if (model_text(document, "licence")[0] != '\0') {
        buffer_append_text(out, ", licence ");
        model_append_line(out, model_text(document, "licence"), 60);
    }
    buffer_append_text(out, ")\n    ");
    model_append_line(out, model_text(document, "text"), text_bytes);
    buffer_append_char(out, '\n');
    append_details(document, out);
}

static void fill_found(struct model *model, const struct search *search, void *context,
                       struct model_values *values)
{
    const struct findings *findings = context;
    struct buffer text;
    size_t bytes = findings->kind == SOURCE_DATA ? CARD_SHOWN_BYTES : ABSTRACT_SHOWN_BYTES;
    int number = 1;
    const cJSON *document = NULL;
    model_add_job(model, search, values);
    model_add_brief(search, values, 4);
    model_add_samples(model, values, 3);
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    cJSON_ArrayForEach (document, findings->documents) {
        append_document(document, number++, bytes, &text);
    }
    model_add_value(values, "found", &text, MODEL_QUOTED, 5);
}

/* ---- what a schema cannot say ---- */

static bool is_source(const char *name, int kind)
{
    for (const struct source_info *source = source_list(); source->name != NULL; source++) {
        if ((int)source->kind == kind && strcmp(source->name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void check_queries(struct model *model, const struct search *search, void *context,
                          const cJSON *reply, struct json_problems *problems)
{
    (void)model;
    (void)search;
    const struct findings *findings = context;
    const cJSON *query = NULL;
    int index = 0;
    cJSON_ArrayForEach (query, cJSON_GetObjectItemCaseSensitive(reply, "queries")) {
        char pointer[48];
        snprintf(pointer, sizeof(pointer), "/queries/%d/source", index++);
        if (!is_source(model_text(query, "source"), findings->kind)) {
            json_problems_add(problems, pointer, "found \"%.40s\", allowed are the sources listed",
                              model_text(query, "source"));
        }
    }
}

/* /notes or /choices: each names a document of the list, once. */
static void check_numbers(const struct findings *findings, const cJSON *list, const char *name,
                          struct json_problems *problems)
{
    int count = cJSON_GetArraySize(findings->documents);
    int index = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        char pointer[48];
        const cJSON *number = cJSON_GetObjectItemCaseSensitive(item, "document");
        snprintf(pointer, sizeof(pointer), "/%s/%d/document", name, index++);
        if (!cJSON_IsNumber(number) || number->valuedouble > (double)count) {
            json_problems_add(problems, pointer, "allowed are 1 to %d", count);
            continue;
        }
        for (const cJSON *before = list->child; before != item; before = before->next) {
            const cJSON *other = cJSON_GetObjectItemCaseSensitive(before, "document");
            if (cJSON_IsNumber(other) && cJSON_Compare(other, number, true)) {
                json_problems_add(problems, pointer, "document %.0f is there twice",
                                  number->valuedouble);
                break;
            }
        }
    }
}

static void check_notes(struct model *model, const struct search *search, void *context,
                        const cJSON *reply, struct json_problems *problems)
{
    (void)model;
    (void)search;
    check_numbers(context, cJSON_GetObjectItemCaseSensitive(reply, "notes"), "notes", problems);
}

static void check_choices(struct model *model, const struct search *search, void *context,
                          const cJSON *reply, struct json_problems *problems)
{
    (void)model;
    (void)search;
    const cJSON *choices = cJSON_GetObjectItemCaseSensitive(reply, "choices");
    const cJSON *choice = NULL;
    int index = 0;
    check_numbers(context, choices, "choices", problems);
    cJSON_ArrayForEach (choice, choices) {
        char pointer[48];
        const char *split = model_text(choice, "split");
        snprintf(pointer, sizeof(pointer), "/choices/%d/split", index++);
        if (strstr(split, "test") != NULL || strstr(split, "valid") != NULL) {
            json_problems_add(problems, pointer,
                              "found \"%.60s\", allowed is no split that others test with", split);
        }
    }
}

/* ---- sources ---- */

static bool has_document(const cJSON *documents, const cJSON *one)
{
    const cJSON *document = NULL;
    cJSON_ArrayForEach (document, documents) {
        if (strcmp(model_text(document, "source"), model_text(one, "source")) == 0 &&
            strcmp(model_text(document, "id"), model_text(one, "id")) == 0) {
            return true;
        }
    }
    return false;
}

static void gather(struct findings *findings, cJSON *answer)
{
    cJSON *list = cJSON_GetObjectItemCaseSensitive(answer, "documents");
    cJSON *document = cJSON_IsArray(list) ? list->child : NULL;
    while (document != NULL) {
        cJSON *next = document->next;
        bool good = model_text(document, "id")[0] != '\0' &&
                    model_text(document, "title")[0] != '\0' &&
                    model_text(document, "source")[0] != '\0';
        if (good && cJSON_GetArraySize(findings->documents) < FOUND_MAX &&
            !has_document(findings->documents, document)) {
            cJSON_AddItemToArray(findings->documents, cJSON_DetachItemViaPointer(list, document));
        }
        document = next;
    }
}

static cJSON *new_question(const char *what, const char *source)
{
    cJSON *question = cJSON_CreateObject();
    cJSON_AddStringToObject(question, "do", what);
    cJSON_AddStringToObject(question, "source", source);
    return question;
}

/* Asks, or gathers what was answered. Takes the question. */
static void ask_source(struct model *model, const struct search *search, cJSON *question,
                       struct findings *findings)
{
    char why[MODEL_WHY_BYTES];
    cJSON *answer = NULL;
    enum model_state state = model_ask_source(model, search, question, &answer, why);
    findings->waits = findings->waits || state == MODEL_WAITS;
    if (state == MODEL_READY) {
        gather(findings, answer);
    } else if (state == MODEL_FAILED) {
        log_write(model->options.log, LOG_DEBUG, "agents", "%s: %s gave no answer: %s",
                  findings->name, model_text(question, "source"), why);
    }
    cJSON_Delete(answer);
    cJSON_Delete(question);
}

static void ask_searches(struct model *model, const struct search *search, const cJSON *queries,
                         struct findings *findings)
{
    const cJSON *query = NULL;
    int count = 0;
    cJSON_ArrayForEach (query, queries) {
        if (count++ == QUERIES_MAX) {
            break;
        }
        cJSON *question = new_question("search", model_text(query, "source"));
        cJSON_AddStringToObject(question, "text", model_text(query, "text"));
        cJSON_AddNumberToObject(question, "count", PER_QUERY);
        ask_source(model, search, question, findings);
    }
}

/* The cards of the first that were found, in their place. */
static void ask_cards(struct model *model, const struct search *search, struct findings *findings)
{
    cJSON *found = findings->documents;
    findings->documents = cJSON_CreateArray();
    const cJSON *document = NULL;
    int count = 0;
    cJSON_ArrayForEach (document, found) {
        if (count++ == CARDS_MAX) {
            break;
        }
        cJSON *question = new_question("card", model_text(document, "source"));
        cJSON_AddStringToObject(question, "id", model_text(document, "id"));
        ask_source(model, search, question, findings);
    }
    cJSON_Delete(found);
}

/* ---- documents ---- */

static void add_line(cJSON *object, const char *key, const char *text, size_t max_bytes)
{
    struct buffer line;
    buffer_init(&line, max_bytes + 8);
    model_append_line(&line, text, max_bytes);
    cJSON_AddStringToObject(object, key, buffer_text(&line));
    buffer_fini(&line);
}

static cJSON *new_document(const char *kind, const cJSON *from, const char *note)
{
    cJSON *document = cJSON_CreateObject();
    cJSON_AddStringToObject(document, "kind", kind);
    add_line(document, "source", model_text(from, "source"), LINE_KEPT_BYTES);
    add_line(document, "id", model_text(from, "id"), LINE_KEPT_BYTES);
    add_line(document, "title", model_text(from, "title"), LINE_KEPT_BYTES);
    add_line(document, "url", model_text(from, "url"), LINE_KEPT_BYTES);
    add_line(document, "licence", model_text(from, "licence"), LINE_KEPT_BYTES);
    add_line(document, "text", model_text(from, "text"), TEXT_KEPT_BYTES);
    add_line(document, "note", note, TEXT_KEPT_BYTES);
    return document;
}

static enum status push_documents(struct model *model, cJSON *documents, struct error *err)
{
    cJSON *event = cJSON_CreateObject();
    bool whole = cJSON_AddStringToObject(event, "event", "documents") != NULL &&
                 cJSON_AddItemToObject(event, "documents", documents);
    if (!whole) {
        cJSON_Delete(documents);
        cJSON_Delete(event);
        return mem_fail(err, TEXT_KEPT_BYTES, "documents");
    }
    return model_push_event(model, event, err);
}

static const cJSON *document_at(const struct findings *findings, const cJSON *item)
{
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(item, "document");
    return cJSON_GetArrayItem(findings->documents,
                              cJSON_IsNumber(number) ? (int)number->valuedouble - 1 : -1);
}

/* ---- papers ---- */

static enum status keep_notes(struct model *model, const struct findings *findings,
                              const cJSON *notes, struct error *err)
{
    cJSON *documents = cJSON_CreateArray();
    const cJSON *note = NULL;
    cJSON_ArrayForEach (note, notes) {
        const cJSON *from = document_at(findings, note);
        cJSON_AddItemToArray(documents, new_document("literature", from, model_text(note, "note")));
    }
    if (cJSON_GetArraySize(documents) == 0) {
        cJSON_Delete(documents);
        return STATUS_OK;
    }
    model->literature_sent = true;
    return push_documents(model, documents, err);
}

/* The answers of the first two steps; *over: nothing is waited for. */
static struct model_reply find_documents(struct model *model, const struct search *search,
                                         struct findings *findings)
{
    findings->documents = cJSON_CreateArray();
    struct model_reply queries =
        ask(model, search, findings->name, fill_queries, check_queries, findings);
    if (queries.state == MODEL_READY) {
        ask_searches(model, search, cJSON_GetObjectItemCaseSensitive(queries.json, "queries"),
                     findings);
        if (!findings->waits && findings->kind == SOURCE_DATA) {
            ask_cards(model, search, findings);
        }
    }
    return queries;
}

static void give_up(struct model *model, const char *what, const char *why, bool *over)
{
    *over = true;
    model_note(model, -1, "%s was given up: %s", what, why);
}

static enum status research_literature(struct model *model, const struct search *search,
                                       struct error *err)
{
    enum status status = STATUS_OK;
    struct findings findings = {.kind = SOURCE_LITERATURE, .name = "literature"};
    struct model_reply queries = find_documents(model, search, &findings);
    struct model_reply notes = {.state = MODEL_WAITS};
    bool found = cJSON_GetArraySize(findings.documents) > 0;
    if (queries.state == MODEL_FAILED) {
        give_up(model, "the search for papers", queries.why, &model->literature_over);
    } else if (queries.state == MODEL_READY && !findings.waits && !found) {
        give_up(model, "the search for papers", "no source found any", &model->literature_over);
    } else if (queries.state == MODEL_READY && !findings.waits) {
        notes = ask(model, search, "reading", fill_found, check_notes, &findings);
    }
    if (notes.state == MODEL_FAILED) {
        give_up(model, "the reading of papers", notes.why, &model->literature_over);
    } else if (notes.state == MODEL_READY) {
        model->literature_over = true;
        status = keep_notes(model, &findings, cJSON_GetObjectItemCaseSensitive(notes.json, "notes"),
                            err);
    }
    model_reply_fini(&queries);
    model_reply_fini(&notes);
    cJSON_Delete(findings.documents);
    return status;
}

/* ---- data sets ---- */

/* Where rows are. Those that were fetched lie below the run folder, and are named from there; those
 * of a folder of the job stay there, and the URL says where. */
static void add_path(cJSON *document, const char *path)
{
    if (strcmp(model_text(document, "source"), "local") == 0) {
        cJSON_DeleteItemFromObjectCaseSensitive(document, "url");
        cJSON_AddStringToObject(document, "url", path);
    } else if (search_path_stays_inside(path)) {
        cJSON_AddStringToObject(document, "path", path);
    }
}

static cJSON *download_question(const struct findings *findings, const cJSON *choice)
{
    const cJSON *from = document_at(findings, choice);
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(choice, "rows");
    cJSON *question = new_question("download", model_text(from, "source"));
    cJSON_AddStringToObject(question, "id", model_text(from, "id"));
    cJSON_AddStringToObject(question, "config", model_text(choice, "config"));
    cJSON_AddStringToObject(question, "split", model_text(choice, "split"));
    cJSON_AddNumberToObject(question, "rows", cJSON_IsNumber(rows) ? rows->valuedouble : 1.0);
    return question;
}

static void keep_download(const cJSON *answer, const char *note, cJSON *documents)
{
    const cJSON *from =
        cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(answer, "documents"), 0);
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(from, "rows");
    if (model_text(from, "path")[0] == '\0' || model_text(from, "id")[0] == '\0' ||
        !cJSON_IsNumber(rows) || has_document(documents, from)) {
        return;
    }
    cJSON *document = new_document("data", from, note);
    add_path(document, model_text(from, "path"));
    cJSON_AddNumberToObject(document, "rows",
                            rows->valuedouble >= 0.0 && rows->valuedouble < 1e12
                                ? (double)(int64_t)rows->valuedouble
                                : 0.0);
    cJSON_AddItemToArray(documents, document);
}

/* False: some answer is missing. */
static bool fetch_choices(struct model *model, const struct search *search,
                          const struct findings *findings, const cJSON *choices, cJSON *documents)
{
    bool over = true;
    int count = 0;
    const cJSON *choice = NULL;
    cJSON_ArrayForEach (choice, choices) {
        char why[MODEL_WHY_BYTES] = "";
        cJSON *answer = NULL;
        if (count++ == CHOICES_MAX) {
            break;
        }
        cJSON *question = download_question(findings, choice);
        enum model_state state = model_ask_source(model, search, question, &answer, why);
        over = over && state != MODEL_WAITS;
        if (state == MODEL_READY) {
            keep_download(answer, model_text(choice, "note"), documents);
        } else if (state == MODEL_FAILED) {
            log_write(model->options.log, LOG_WARNING, "agents", "no rows of %s: %s",
                      model_text(question, "id"), why);
        }
        cJSON_Delete(answer);
        cJSON_Delete(question);
    }
    return over;
}

static enum status research_data(struct model *model, const struct search *search,
                                 struct error *err)
{
    enum status status = STATUS_OK;
    struct findings findings = {.kind = SOURCE_DATA, .name = "data"};
    struct model_reply queries = find_documents(model, search, &findings);
    struct model_reply choice = {.state = MODEL_WAITS};
    cJSON *documents = cJSON_CreateArray();
    bool found = cJSON_GetArraySize(findings.documents) > 0;
    if (queries.state == MODEL_FAILED) {
        give_up(model, "the search for data sets", queries.why, &model->data_over);
    } else if (queries.state == MODEL_READY && !findings.waits && !found) {
        model->data_over = true; /* none was wanted, or none was found */
    } else if (queries.state == MODEL_READY && !findings.waits) {
        choice = ask(model, search, "choice", fill_found, check_choices, &findings);
    }
    if (choice.state == MODEL_FAILED) {
        give_up(model, "the choice of data sets", choice.why, &model->data_over);
    } else if (choice.state == MODEL_READY &&
               fetch_choices(model, search, &findings,
                             cJSON_GetObjectItemCaseSensitive(choice.json, "choices"), documents)) {
        model->data_over = true;
        if (cJSON_GetArraySize(documents) > 0) {
            model->data_sent = true;
            status = push_documents(model, documents, err);
            documents = NULL;
        }
    }
    cJSON_Delete(documents);
    model_reply_fini(&queries);
    model_reply_fini(&choice);
    cJSON_Delete(findings.documents);
    return status;
}

/* ---- in order ---- */

static enum status write_brief(struct model *model, const struct search *search, struct error *err)
{
    enum status status = STATUS_OK;
    struct model_reply reply = ask(model, search, "brief", fill_brief, NULL, NULL);
    if (reply.state == MODEL_FAILED) {
        give_up(model, "the brief", reply.why, &model->brief_over);
        if (!reply.answered) {
            model->literature_over = true; /* nobody answers */
            model->data_over = true;
        }
    } else if (reply.state == MODEL_READY) {
        cJSON *event = cJSON_CreateObject();
        cJSON_AddStringToObject(event, "event", "brief");
        cJSON_AddItemToObject(event, "brief", reply.json);
        reply.json = NULL;
        model->brief_sent = true;
        status = model_push_event(model, event, err);
    }
    model_reply_fini(&reply);
    return status;
}

static bool has_documents(const struct search *search, const char *kind)
{
    for (int32_t i = 0; i < search->document_count; i++) {
        if (strcmp(search_text(search->documents[i].kind), kind) == 0) {
            return true;
        }
    }
    return false;
}

enum status model_prepare(struct model *model, const struct search *search, struct error *err)
{
    if (search->brief == NULL && !model->brief_over && !model->brief_sent) {
        TRY(write_brief(model, search, err));
    }
    if (search->brief == NULL && !model->brief_over) {
        return STATUS_OK; /* what follows reads it */
    }
    model->brief_over = true;
    model->literature_over = model->literature_over || has_documents(search, "literature");
    model->data_over = model->data_over || has_documents(search, "data");
    if (!model->literature_over) {
        TRY(research_literature(model, search, err));
    }
    if (!model->data_over) {
        TRY(research_data(model, search, err));
    }
    return STATUS_OK;
}

bool model_is_prepared(const struct model *model, const struct search *search)
{
    return model->brief_over && model->literature_over && model->data_over &&
           (!model->literature_sent || has_documents(search, "literature")) &&
           (!model->data_sent || has_documents(search, "data"));
}
