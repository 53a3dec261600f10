/* What the agents asked, were told and found out: calls, prompts, brief, documents, insights. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/show.h"
#include "base/buffer.h"
#include "base/clock.h"

enum { INDENT = 2, KEY_WIDTH = 30, NAME_WIDTH = 40, ERROR_WIDTH = 60, BRIEF_LINE_BYTES = 8192 };

static const char *state_of(const struct search_call *call)
{
    if (!call->ended) {
        return "open";
    }
    return call->lost ? "lost" : call->reply != NULL ? "answered" : "failed";
}

static bool is_wanted(const struct search_call *call, int32_t node)
{
    return node < 0 || call->node == node;
}

static enum paint colour_of(const struct search_call *call)
{
    return !call->ended ? PAINT_BUSY : call->reply == NULL ? PAINT_BAD : PAINT_PLAIN;
}

static void print_usd(const struct search_call *call)
{
    double usd = call->ended && !call->lost ? call->cost_usd : call->reserved_usd;
    if (isnan(usd)) {
        printf("%9s", "-");
    } else {
        printf("%9.4f", usd);
    }
}

static void print_padded(const char *text, int width)
{
    int used = paint_width(text);
    paint_line(text, width);
    printf("%*s", used < width ? width - used : 0, "");
}

/* ---- --calls ---- */

static void print_row(int32_t index, const struct search_call *call)
{
    char seconds[PAINT_TIME_BYTES] = "";
    if (call->ended) {
        snprintf(seconds, sizeof(seconds), "%.1f s", call->seconds);
    }
    printf("%4d  ", (int)index);
    print_padded(call->key, KEY_WIDTH);
    printf("  ");
    print_padded(call->purpose, 10);
    printf("  %s%-8s%s  %9" PRId64 " ", paint(colour_of(call)), state_of(call), paint(PAINT_PLAIN),
           search_call_tokens(call));
    print_usd(call);
    printf(" %9s  ", seconds);
    paint_line(search_text(call->model), NAME_WIDTH);
    if (call->error != NULL) {
        printf("%s", call->model[0] != '\0' ? ": " : "");
        paint_line(call->error, ERROR_WIDTH);
    }
    putchar('\n');
}

void show_calls(const struct view *view, int32_t node)
{
    struct ledger ledger = {0};
    printf("%scall  %-*s  %-10s  %-8s  %9s %9s %9s  model%s\n", paint(PAINT_FAINT), KEY_WIDTH,
           "key", "purpose", "state", "tokens", "USD", "time", paint(PAINT_PLAIN));
    for (int32_t i = 0; i < view->search.call_count; i++) {
        const struct search_call *call = &view->search.calls[i];
        if (is_wanted(call, node)) {
            print_row(i, call);
            ledger_add_call(&ledger, call);
        }
    }
    ledger_print(&ledger);
    putchar('\n');
}

/* ---- --prompts ---- */

static void print_heading(const char *text)
{
    printf("  %s", paint(PAINT_BOLD));
    paint_line(text, NAME_WIDTH);
    printf("%s\n", paint(PAINT_PLAIN));
}

static void print_part(const char *heading, const char *text)
{
    print_heading(heading);
    paint_block(text, 2 * INDENT, paint_columns());
}

static void print_json_part(const char *heading, const cJSON *value)
{
    char *line = json_print_line(value);
    if (line != NULL) {
        print_part(heading, line);
    }
    cJSON_free(line);
}

/* Messages one after the other, whatever else was asked for behind them. */
static void print_body(const char *text)
{
    cJSON *body = NULL;
    if (json_parse(text, strlen(text), "question", &body, NULL) != STATUS_OK) {
        print_part("question", text);
        return;
    }
    cJSON *messages = cJSON_DetachItemFromObjectCaseSensitive(body, "messages");
    const cJSON *message = NULL;
    cJSON_ArrayForEach (message, messages) {
        const cJSON *role = cJSON_GetObjectItemCaseSensitive(message, "role");
        const cJSON *content = cJSON_GetObjectItemCaseSensitive(message, "content");
        const char *heading = cJSON_IsString(role) ? role->valuestring : "message";
        if (cJSON_IsString(content)) {
            print_part(heading, content->valuestring);
        } else {
            print_json_part(heading, message);
        }
    }
    if (body->child != NULL) {
        print_json_part(messages != NULL ? "and with it" : "question", body);
    }
    cJSON_Delete(messages);
    cJSON_Delete(body);
}

static void print_end(const struct search_call *call)
{
    if (!call->ended) {
        printf("  under way; it has reserved %" PRId64 " tokens\n", call->reserved_tokens);
        return;
    }
    if (call->reply != NULL) {
        print_part("reply", call->reply);
    } else {
        print_part("no reply", search_text(call->error));
    }
    if (call->lost) {
        printf("  lost: the %" PRId64 " tokens that it had reserved count as spent\n",
               call->reserved_tokens);
        return;
    }
    printf("  %" PRId64 " + %" PRId64 " tokens, ", call->tokens_in, call->tokens_out);
    if (isnan(call->cost_usd)) {
        printf("no price known");
    } else {
        printf("%.4f USD", call->cost_usd);
    }
    printf(", %.1f s, %d attempt%s", call->seconds, (int)call->attempts,
           call->attempts == 1 ? "" : "s");
    if (search_text(call->model)[0] != '\0') {
        printf(", ");
        paint_line(call->provider, NAME_WIDTH);
        putchar(' ');
        paint_line(call->model, NAME_WIDTH);
    }
    if (search_text(call->host)[0] != '\0') {
        printf(" at ");
        paint_line(call->host, NAME_WIDTH);
    }
    putchar('\n');
}

void show_prompts(const struct view *view, int32_t node)
{
    struct ledger ledger = {0};
    for (int32_t i = 0; i < view->search.call_count; i++) {
        const struct search_call *call = &view->search.calls[i];
        char when[32];
        if (!is_wanted(call, node)) {
            continue;
        }
        clock_format_utc(call->started_s, when, sizeof(when));
        printf("%scall %d%s  ", paint(PAINT_BOLD), (int)i, paint(PAINT_PLAIN));
        paint_line(call->key, SEARCH_CALL_KEY_BYTES);
        printf("  ");
        paint_line(call->purpose, NAME_WIDTH);
        if (call->node >= 0) {
            printf(", n%04d", (int)call->node);
        }
        printf(", %s%s%s, asked %s\n", paint(colour_of(call)), state_of(call), paint(PAINT_PLAIN),
               when);
        print_body(search_text(call->body));
        print_end(call);
        putchar('\n');
        ledger_add_call(&ledger, call);
    }
    ledger_print(&ledger);
    putchar('\n');
}

/* ---- --brief ---- */

/* A text, or an object of texts as a line each, those after the first further in. */
static void print_entry(const cJSON *entry)
{
    if (!cJSON_IsObject(entry)) {
        char *printed = cJSON_IsString(entry) ? NULL : json_print_line(entry);
        paint_block(printed != NULL ? printed : search_text(entry->valuestring), 2 * INDENT,
                    paint_columns());
        cJSON_free(printed);
        return;
    }
    const cJSON *member = NULL;
    cJSON_ArrayForEach (member, entry) {
        struct buffer line;
        buffer_init(&line, BRIEF_LINE_BYTES);
        for (const char *c = search_text(member->string); *c != '\0'; c++) {
            buffer_append_char(&line, *c == '_' ? ' ' : *c);
        }
        char *printed = cJSON_IsString(member) ? NULL : json_print_line(member);
        buffer_append_text(&line, ": ");
        buffer_append_text(&line, printed != NULL ? printed : search_text(member->valuestring));
        paint_block(buffer_text(&line), (member == entry->child ? 2 : 3) * INDENT, paint_columns());
        cJSON_free(printed);
        buffer_fini(&line);
    }
}

static void print_brief(const char *text)
{
    cJSON *brief = NULL;
    if (text[0] == '\0') {
        printf("No brief was written.\n");
        return;
    }
    if (json_parse(text, strlen(text), "brief", &brief, NULL) != STATUS_OK) {
        print_part("brief", text);
        return;
    }
    printf("%sbrief%s\n", paint(PAINT_BOLD), paint(PAINT_PLAIN));
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, brief) {
        if (cJSON_IsString(item)) {
            print_part(item->string, item->valuestring);
            continue;
        }
        if (!cJSON_IsArray(item)) {
            print_json_part(item->string, item);
            continue;
        }
        print_heading(item->string);
        const cJSON *line = NULL;
        cJSON_ArrayForEach (line, item) {
            print_entry(line);
        }
    }
    cJSON_Delete(brief);
}

static void print_line(const char *text)
{
    printf("%*s", 2 * INDENT, "");
    paint_line(text, paint_columns() - 2 * INDENT);
    putchar('\n');
}

static void print_document(const struct search_document *one)
{
    print_heading(one->title);
    printf("    %s, ", one->kind);
    paint_line(one->source, NAME_WIDTH);
    putchar(' ');
    paint_line(one->id, NAME_WIDTH);
    if (one->licence[0] != '\0') {
        printf(", licence ");
        paint_line(one->licence, NAME_WIDTH);
    }
    if (one->path != NULL) {
        printf(", %" PRId64 " rows in ", one->rows);
        paint_line(one->path, 2 * NAME_WIDTH);
    }
    putchar('\n');
    print_line(one->url);
    if (one->note[0] != '\0') {
        paint_block(one->note, 2 * INDENT, paint_columns());
    } else {
        print_line(one->text);
    }
}

static void print_insight(const struct search_insight *insight)
{
    printf("  %s", insight->retired ? "retired" : "holds");
    for (int32_t i = 0; i < insight->node_count; i++) {
        printf("%s n%04d", i == 0 ? ", seen in" : ",", (int)insight->nodes[i]);
    }
    putchar('\n');
    paint_block(search_text(insight->text), 2 * INDENT, paint_columns());
}

void show_brief(const struct view *view)
{
    const struct search *search = &view->search;
    print_brief(search_text(search->brief));
    if (search->document_count > 0) {
        printf("\n%sdocuments%s\n", paint(PAINT_BOLD), paint(PAINT_PLAIN));
    }
    for (int32_t i = 0; i < search->document_count; i++) {
        print_document(&search->documents[i]);
    }
    if (search->insight_count > 0) {
        printf("\n%sinsights%s\n", paint(PAINT_BOLD), paint(PAINT_PLAIN));
    }
    for (int32_t i = 0; i < search->insight_count; i++) {
        print_insight(&search->insights[i]);
    }
    if (search->prompt_count > 0) {
        printf("\n%sprompts of this search%s\n", paint(PAINT_BOLD), paint(PAINT_PLAIN));
    }
    for (int32_t i = 0; i < search->prompt_count; i++) {
        printf("  ");
        print_padded(search->prompts[i].name, 16);
        putchar(' ');
        paint_line(search->prompts[i].hash, NAME_WIDTH);
        putchar('\n');
    }
}

/* ---- JSON ---- */

static void add_usd(cJSON *object, const char *key, double usd)
{
    if (isnan(usd)) {
        cJSON_AddNullToObject(object, key);
    } else {
        cJSON_AddNumberToObject(object, key, usd);
    }
}

static void add_text_or_null(cJSON *object, const char *key, const char *text)
{
    cJSON_AddItemToObject(object, key,
                          text != NULL ? cJSON_CreateString(text) : cJSON_CreateNull());
}

static cJSON *call_json(int32_t index, const struct search_call *call, bool texts)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "call", index);
    cJSON_AddStringToObject(object, "key", call->key);
    cJSON_AddStringToObject(object, "purpose", call->purpose);
    cJSON_AddStringToObject(object, "kind", call->kind);
    cJSON_AddNumberToObject(object, "node", call->node);
    cJSON_AddStringToObject(object, "state", state_of(call));
    cJSON_AddStringToObject(object, "provider", search_text(call->provider));
    cJSON_AddStringToObject(object, "model", search_text(call->model));
    cJSON_AddStringToObject(object, "host", search_text(call->host));
    add_text_or_null(object, "error", call->error);
    cJSON_AddNumberToObject(object, "tokens_in", (double)call->tokens_in);
    cJSON_AddNumberToObject(object, "tokens_out", (double)call->tokens_out);
    cJSON_AddNumberToObject(object, "reserved_tokens", (double)call->reserved_tokens);
    add_usd(object, "cost_usd", call->cost_usd);
    add_usd(object, "reserved_usd", call->reserved_usd);
    cJSON_AddNumberToObject(object, "started_s", call->started_s);
    cJSON_AddNumberToObject(object, "seconds", call->seconds);
    cJSON_AddNumberToObject(object, "attempts", call->attempts);
    if (texts) {
        cJSON_AddItemToObject(object, "body", show_parsed(call->body));
        add_text_or_null(object, "reply", call->reply);
    }
    return object;
}

/* What each node has cost; not in the tree itself, which is the same after an interruption. */
static void add_nodes(const struct view *view, int32_t node, cJSON *object)
{
    struct ledger *ledgers = ledger_of_nodes(&view->search);
    cJSON *nodes = cJSON_AddArrayToObject(object, "nodes");
    for (int32_t id = 0; ledgers != NULL && id < view->search.tree.count; id++) {
        if (node < 0 || node == id) {
            cJSON *item = ledger_json(&ledgers[id]);
            cJSON_AddNumberToObject(item, "node", id);
            cJSON_AddItemToArray(nodes, item);
        }
    }
    free(ledgers);
}

cJSON *show_calls_json(const struct view *view, int32_t node, bool texts)
{
    struct ledger ledger = {0};
    cJSON *object = cJSON_CreateObject();
    cJSON *calls = cJSON_AddArrayToObject(object, "calls");
    for (int32_t i = 0; i < view->search.call_count; i++) {
        const struct search_call *call = &view->search.calls[i];
        if (is_wanted(call, node)) {
            cJSON_AddItemToArray(calls, call_json(i, call, texts));
            ledger_add_call(&ledger, call);
        }
    }
    cJSON_AddItemToObject(object, "ledger", ledger_json(&ledger));
    add_nodes(view, node, object);
    return object;
}

static cJSON *document_json(const struct search_document *one)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "kind", one->kind);
    cJSON_AddStringToObject(object, "source", one->source);
    cJSON_AddStringToObject(object, "id", one->id);
    cJSON_AddStringToObject(object, "title", one->title);
    cJSON_AddStringToObject(object, "url", search_text(one->url));
    cJSON_AddStringToObject(object, "licence", search_text(one->licence));
    cJSON_AddStringToObject(object, "text", search_text(one->text));
    cJSON_AddStringToObject(object, "note", search_text(one->note));
    add_text_or_null(object, "path", one->path);
    cJSON_AddNumberToObject(object, "rows", (double)one->rows);
    return object;
}

static cJSON *insight_json(const struct search_insight *insight)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "text", search_text(insight->text));
    cJSON_AddItemToObject(object, "nodes",
                          cJSON_CreateIntArray(insight->nodes, insight->node_count));
    cJSON_AddBoolToObject(object, "retired", insight->retired);
    return object;
}

void show_add_brief_json(const struct search *search, cJSON *object)
{
    cJSON_AddItemToObject(object, "brief", show_parsed(search->brief));
    cJSON *documents = cJSON_AddArrayToObject(object, "documents");
    for (int32_t i = 0; i < search->document_count; i++) {
        cJSON_AddItemToArray(documents, document_json(&search->documents[i]));
    }
    cJSON *insights = cJSON_AddArrayToObject(object, "insight_list");
    for (int32_t i = 0; i < search->insight_count; i++) {
        cJSON_AddItemToArray(insights, insight_json(&search->insights[i]));
    }
    cJSON *prompts = cJSON_AddArrayToObject(object, "prompts");
    for (int32_t i = 0; i < search->prompt_count; i++) {
        cJSON *prompt = cJSON_CreateObject();
        cJSON_AddStringToObject(prompt, "name", search->prompts[i].name);
        cJSON_AddStringToObject(prompt, "hash", search->prompts[i].hash);
        cJSON_AddStringToObject(prompt, "text", search->prompts[i].text);
        cJSON_AddItemToArray(prompts, prompt);
    }
}
