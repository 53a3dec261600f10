/* Events of what the agents work with and found out: prompts, the brief, documents, why cases of a
 * round failed. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tree/search_event.h"

/* The array of the event, of at most `max` items; NULL with a problem otherwise. */
static const cJSON *require_list(struct event *event, const char *key, int max)
{
    char pointer[EVENT_NAME_BYTES];
    json_require(&event->reader, key, "an array of objects");
    const cJSON *list = json_read_array(&event->reader, key);
    int count = cJSON_GetArraySize(list);
    if (count > max) {
        snprintf(pointer, sizeof(pointer), "/%s", key);
        json_problems_add(&event->problems, pointer, "found %d items, allowed are %d", count, max);
        return NULL;
    }
    return list;
}

static void item_reader(struct event *event, const char *key, int index, const cJSON *item,
                        struct json_reader *out)
{
    char pointer[EVENT_NAME_BYTES];
    snprintf(pointer, sizeof(pointer), "/%s/%d", key, index);
    json_reader_init(out, item, pointer, &event->problems);
}

/* ---- prompts ---- */

static int32_t find_prompt(const struct search_prompt *prompts, int32_t count, const char *name)
{
    for (int32_t i = 0; i < count; i++) {
        if (strcmp(prompts[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static enum status read_prompts(struct search *search, struct event *event,
                                struct search_prompt out[SEARCH_PROMPTS_MAX], int32_t *count,
                                struct error *err)
{
    const size_t max = SEARCH_TEXT_MAX_BYTES;
    struct arena *arena = &search->arena;
    const cJSON *list = require_list(event, "prompts", SEARCH_PROMPTS_MAX);
    const cJSON *item = NULL;
    int32_t added = 0;
    cJSON_ArrayForEach (item, list) {
        struct json_reader reader;
        struct search_prompt *to = &out[*count];
        item_reader(event, "prompts", *count, item, &reader);
        (*count)++;
        TRY(search_read_text(&reader, "name", true, SEARCH_LINE_MAX_BYTES, arena, &to->name, err));
        TRY(search_read_text(&reader, "hash", true, SEARCH_LINE_MAX_BYTES, arena, &to->hash, err));
        TRY(search_read_text(&reader, "text", true, max, arena, &to->text, err));
        TRY(event_check(event, err)); /* the names are then there */
        if (find_prompt(out, *count - 1, to->name) >= 0) {
            json_problems_add(&event->problems, "/prompts", "%s is there twice", to->name);
        }
        added += find_prompt(search->prompts, search->prompt_count, to->name) < 0;
    }
    if (search->prompt_count + added > SEARCH_PROMPTS_MAX) {
        json_problems_add(&event->problems, "/prompts", "a search has at most %d prompts",
                          SEARCH_PROMPTS_MAX);
    }
    return event_check(event, err);
}

enum status search_apply_prompts(struct search *search, struct event *event, struct error *err)
{
    struct search_prompt read[SEARCH_PROMPTS_MAX] = {0};
    int32_t count = 0;
    void *list = search->prompts;
    TRY(read_prompts(search, event, read, &count, err));
    TRY(event_reserve(&list, search->prompt_count, count, &search->prompt_capacity, sizeof(read[0]),
                      "prompts", err));
    search->prompts = list;
    for (int32_t i = 0; i < count; i++) {
        int32_t at = find_prompt(search->prompts, search->prompt_count, read[i].name);
        at = at >= 0 ? at : search->prompt_count++;
        search->prompts[at] = read[i];
    }
    return STATUS_OK;
}

/* ---- the brief ---- */

enum status search_apply_brief(struct search *search, struct event *event, struct error *err)
{
    char *brief = NULL;
    TRY(search_read_json(&event->reader, "brief", false, SEARCH_TEXT_MAX_BYTES, &search->arena,
                         &brief, err));
    TRY(event_check(event, err));
    search->brief = brief;
    return STATUS_OK;
}

/* ---- documents ---- */

static bool is_same_document(const struct search_document *a, const struct search_document *b)
{
    return strcmp(a->kind, b->kind) == 0 && strcmp(a->source, b->source) == 0 &&
           strcmp(a->id, b->id) == 0;
}

static int32_t find_document(const struct search_document *documents, int32_t count,
                             const struct search_document *one)
{
    for (int32_t i = 0; i < count; i++) {
        if (is_same_document(&documents[i], one)) {
            return i;
        }
    }
    return -1;
}

bool search_path_stays_inside(const char *path)
{
    if (path[0] == '\0' || path[0] == '/') {
        return false;
    }
    for (const char *part = path; part != NULL; part = strchr(part, '/')) {
        part += part[0] == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0')) {
            return false;
        }
    }
    return true;
}

static enum status read_document(struct event *event, const cJSON *item, int32_t index,
                                 struct arena *arena, struct search_document *out,
                                 struct error *err)
{
    static const char *const kinds[] = {"literature", "data", NULL};
    const size_t line = SEARCH_LINE_MAX_BYTES;
    const size_t text = SEARCH_TEXT_MAX_BYTES;
    struct json_reader reader;
    item_reader(event, "documents", index, item, &reader);
    json_require(&reader, "kind", "\"literature\" or \"data\"");
    out->kind = arena_strdup(arena, kinds[json_read_choice(&reader, "kind", kinds, 0)]);
    if (out->kind == NULL) {
        return mem_fail(err, 16, "the kind of a document");
    }
    TRY(search_read_text(&reader, "source", true, line, arena, &out->source, err));
    TRY(search_read_text(&reader, "id", true, line, arena, &out->id, err));
    TRY(search_read_text(&reader, "title", true, line, arena, &out->title, err));
    TRY(search_read_text(&reader, "url", false, line, arena, &out->url, err));
    TRY(search_read_text(&reader, "licence", false, line, arena, &out->licence, err));
    TRY(search_read_text(&reader, "text", false, text, arena, &out->text, err));
    TRY(search_read_text(&reader, "note", false, text, arena, &out->note, err));
    out->rows = json_read_int(&reader, "rows", 0, 0, INT64_C(1) << 53);
    if (json_read_any(&reader, "path") == NULL) {
        return STATUS_OK;
    }
    TRY(search_read_text(&reader, "path", true, line, arena, &out->path, err));
    if (out->path != NULL && !search_path_stays_inside(out->path)) {
        json_problems_add(&event->problems, "/documents",
                          "found the path %s, allowed is one below "
                          "the run folder",
                          out->path);
    }
    return STATUS_OK;
}

static enum status read_documents(struct search *search, struct event *event,
                                  struct search_document out[SEARCH_DOCUMENTS_MAX], int32_t *count,
                                  struct error *err)
{
    const cJSON *list = require_list(event, "documents", SEARCH_DOCUMENTS_MAX);
    const cJSON *item = NULL;
    int32_t added = 0;
    cJSON_ArrayForEach (item, list) {
        struct search_document *to = &out[*count];
        TRY(read_document(event, item, (*count)++, &search->arena, to, err));
        TRY(event_check(event, err)); /* the texts are then there */
        if (find_document(out, *count - 1, to) >= 0) {
            json_problems_add(&event->problems, "/documents", "%s %s is there twice", to->source,
                              to->id);
        }
        added += find_document(search->documents, search->document_count, to) < 0;
    }
    if (search->document_count + added > SEARCH_DOCUMENTS_MAX) {
        json_problems_add(&event->problems, "/documents", "a search keeps at most %d documents",
                          SEARCH_DOCUMENTS_MAX);
    }
    return event_check(event, err);
}

enum status search_apply_documents(struct search *search, struct event *event, struct error *err)
{
    struct search_document read[SEARCH_DOCUMENTS_MAX] = {0};
    int32_t count = 0;
    void *list = search->documents;
    TRY(read_documents(search, event, read, &count, err));
    TRY(event_reserve(&list, search->document_count, count, &search->document_capacity,
                      sizeof(read[0]), "documents", err));
    search->documents = list;
    for (int32_t i = 0; i < count; i++) {
        int32_t at = find_document(search->documents, search->document_count, &read[i]);
        at = at >= 0 ? at : search->document_count++;
        search->documents[at] = read[i];
    }
    return STATUS_OK;
}

/* ---- why cases failed ---- */

/* A node whose round is over; -1 with a problem otherwise. */
static int32_t read_ended_node(const struct search *search, struct event *event)
{
    int32_t id = (int32_t)event_require_int(event, "node", 0, TREE_NODES_MAX);
    if (event->problems.count > 0) {
        return -1;
    }
    if (id >= search->tree.count || search->tree.nodes[id].state == TREE_NODE_OPEN) {
        json_problems_add(&event->problems, "/node", "found %d, allowed is a node that was closed",
                          (int)id);
        return -1;
    }
    return id;
}

/* Checks, or with `apply` does, what the event says of earlier insights. */
static void read_retired(struct search *search, struct event *event, bool apply)
{
    const cJSON *list = json_read_array(&event->reader, "retired");
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        double value = cJSON_IsNumber(item) ? item->valuedouble : -1.0;
        bool fits = value >= 0.0 && value < (double)search->insight_count &&
                    value == (double)(int32_t)value;
        if (!fits) {
            json_problems_add(&event->problems, "/retired",
                              "allowed are indices of the %d insights", (int)search->insight_count);
            return;
        }
        if (apply) {
            search->insights[(int32_t)value].retired = true;
        }
    }
}

enum status search_apply_node_diagnosed(struct search *search, struct event *event,
                                        struct error *err)
{
    struct event_insights insights = {.count = 0};
    char *diagnosis = NULL;
    char *causes = NULL;
    int32_t id = read_ended_node(search, event);
    TRY(search_read_text(&event->reader, "diagnosis", true, SEARCH_TEXT_MAX_BYTES, &search->arena,
                         &diagnosis, err));
    TRY(search_read_json(&event->reader, "causes", true, SEARCH_TEXT_MAX_BYTES, &search->arena,
                         &causes, err));
    TRY(event_read_insights(search, event, &insights, err));
    read_retired(search, event, false);
    TRY(event_check(event, err));
    TRY(event_reserve_insights(search, &insights, err));

    read_retired(search, event, true);
    event_take_insights(search, &insights);
    search->nodes[id].diagnosis = diagnosis;
    search->nodes[id].causes = causes;
    return STATUS_OK;
}
