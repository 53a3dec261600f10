/* arXiv: an Atom feed (https://info.arxiv.org/help/api/user-manual.html), read by libexpat. One
 * request every three seconds, one connection (terms of use). */
#include <stdio.h>
#include <string.h>

#include <expat.h>

#include "net/source_service.h"

#define ATOM "http://www.w3.org/2005/Atom|"

enum { WORDS_MAX = 8, DEPTH_MAX = 32, FIELD_MAX_BYTES = 65536 };

/* ---- the feed ---- */

enum field { FIELD_ID, FIELD_TITLE, FIELD_SUMMARY, FIELD_PUBLISHED, FIELD_COUNT };
static const char *const field_names[FIELD_COUNT] = {ATOM "id", ATOM "title", ATOM "summary",
                                                     ATOM "published"};

struct feed {
    XML_Parser parser;
    int count;
    cJSON *documents;
    int depth; /* of the element that is open: feed is 1, entry 2, its fields 3 */
    bool is_feed, in_entry;
    int field; /* that is being read; FIELD_COUNT: none */
    struct buffer fields[FIELD_COUNT];
    enum status status; /* why the parser was stopped */
    struct error *err;
};

static void stop(struct feed *feed, enum status status)
{
    if (feed->status == STATUS_OK) {
        feed->status = status;
    }
    XML_StopParser(feed->parser, XML_FALSE);
}

static void refuse_doctype(void *context, const char *name, const char *system_id,
                           const char *public_id, int has_internal_subset)
{
    (void)name, (void)system_id, (void)public_id, (void)has_internal_subset;
    struct feed *feed = context;
    stop(feed, FAIL(feed->err, STATUS_FORMAT,
                    "arxiv sent a document type declaration, which a feed has none of"));
}

static void start_element(void *context, const char *name, const char **attributes)
{
    (void)attributes;
    struct feed *feed = context;
    feed->depth++;
    if (feed->depth > DEPTH_MAX) {
        stop(feed, FAIL(feed->err, STATUS_LIMIT, "arxiv's feed is nested over %d levels deep",
                        DEPTH_MAX));
    } else if (feed->depth == 1) {
        feed->is_feed = strcmp(name, ATOM "feed") == 0;
        if (!feed->is_feed) {
            stop(feed, FAIL(feed->err, STATUS_FORMAT, "arxiv sent XML that is no Atom feed"));
        }
    } else if (feed->depth == 2 && strcmp(name, ATOM "entry") == 0) {
        feed->in_entry = true;
        for (int i = 0; i < FIELD_COUNT; i++) {
            buffer_clear(&feed->fields[i]);
        }
    } else if (feed->depth == 3 && feed->in_entry) {
        for (int i = 0; i < FIELD_COUNT; i++) {
            if (strcmp(name, field_names[i]) == 0 && feed->fields[i].len_bytes == 0) {
                feed->field = i;
            }
        }
    }
}

/* "http://arxiv.org/abs/2106.09685v2" -> "2106.09685"; old ones have a slash, "cs/0112017". */
static bool read_id(const char *text, char out[64])
{
    const char *at = strstr(text, "/abs/");
    if (at == NULL) {
        return false;
    }
    at += 5;
    size_t length = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./-");
    size_t digits = length;
    while (digits > 0 && at[digits - 1] >= '0' && at[digits - 1] <= '9') {
        digits--;
    }
    if (digits > 0 && digits < length && at[digits - 1] == 'v') {
        length = digits - 1;
    }
    if (length == 0 || length >= 64) {
        return false;
    }
    snprintf(out, 64, "%.*s", (int)length, at);
    return true;
}

static enum status add_entry(struct feed *feed)
{
    char id[64];
    char url[128];
    const char *link = buffer_text(&feed->fields[FIELD_ID]);
    if (strstr(link, "api/errors") != NULL) { /* a mistake comes as a hit */
        return FAIL(feed->err, STATUS_EXTERNAL, "arxiv did not take the question");
    }
    if (!read_id(link, id)) {
        return STATUS_OK;
    }
    snprintf(url, sizeof(url), "https://arxiv.org/abs/%s", id);
    struct source_document document = {
        .id = id,
        .title = buffer_text(&feed->fields[FIELD_TITLE]),
        .url = url,
        .licence = "",
        .text = buffer_text(&feed->fields[FIELD_SUMMARY]),
        .text_bytes = SOURCE_ABSTRACT_BYTES,
        .year = source_year(buffer_text(&feed->fields[FIELD_PUBLISHED])),
    };
    return source_add(SOURCE_ARXIV, &document, feed->count, feed->documents, NULL, feed->err);
}

static void end_element(void *context, const char *name)
{
    struct feed *feed = context;
    if (feed->depth == 3) {
        feed->field = FIELD_COUNT;
    } else if (feed->depth == 2 && strcmp(name, ATOM "entry") == 0) {
        feed->in_entry = false;
        enum status status = add_entry(feed);
        if (status != STATUS_OK) {
            stop(feed, status);
        }
    }
    feed->depth--;
}

static void read_text(void *context, const char *text, int length)
{
    struct feed *feed = context;
    if (feed->field < FIELD_COUNT) {
        buffer_append(&feed->fields[feed->field], text,
                      (size_t)length); /* beyond its maximum: cut */
    }
}

static enum status parse_feed(struct feed *feed, const char *body, size_t len_bytes)
{
    XML_SetUserData(feed->parser, feed);
    XML_SetElementHandler(feed->parser, start_element, end_element);
    XML_SetCharacterDataHandler(feed->parser, read_text);
    XML_SetStartDoctypeDeclHandler(feed->parser, refuse_doctype); /* no entities: no bombs */
    bool whole = XML_Parse(feed->parser, body, (int)len_bytes, XML_TRUE) == XML_STATUS_OK;
    if (feed->status != STATUS_OK) {
        return feed->status;
    }
    if (!whole) {
        return FAIL(feed->err, STATUS_FORMAT, "arxiv's feed is broken in line %lu: %s",
                    (unsigned long)XML_GetCurrentLineNumber(feed->parser),
                    XML_ErrorString(XML_GetErrorCode(feed->parser)));
    }
    return STATUS_OK;
}

enum status source_arxiv_read(const char *body, size_t len_bytes, int count, cJSON *documents,
                              struct error *err)
{
    if (len_bytes < 1024 && strstr(body, "Rate exceeded") != NULL) {
        return FAIL(err, STATUS_BUSY, "arxiv said that its rate was exceeded");
    }
    if (len_bytes == 0 || len_bytes > SOURCE_BODY_MAX_BYTES) {
        return FAIL(err, STATUS_FORMAT, "arxiv sent an answer of %zu bytes", len_bytes);
    }
    struct feed feed = {.count = count, .documents = documents, .field = FIELD_COUNT, .err = err};
    feed.parser = XML_ParserCreateNS(NULL, '|');
    if (feed.parser == NULL) {
        return FAIL(err, STATUS_NO_MEMORY, "no memory for an XML parser");
    }
    for (int i = 0; i < FIELD_COUNT; i++) {
        buffer_init(&feed.fields[i], FIELD_MAX_BYTES);
    }
    enum status status = parse_feed(&feed, body, len_bytes);
    for (int i = 0; i < FIELD_COUNT; i++) {
        buffer_fini(&feed.fields[i]);
    }
    XML_ParserFree(feed.parser);
    return status;
}

/* ---- the question ---- */

/* All words first; where nothing has all of them, any. */
static enum status ask(const struct source_work *work, const char *between,
                       struct source_step *next, struct error *err)
{
    struct buffer query;
    buffer_init(&query, SOURCE_URL_BYTES);
    source_words(work->question.text, WORDS_MAX, true, "all:\"", "\"", between, &query);
    next->site = SOURCE_SITE_ARXIV;
    enum status status =
        source_set_path(next, "/api/query?search_query=", buffer_text(&query),
                        "&sortBy=relevance&start=0&max_results=", work->question.count, err);
    buffer_fini(&query);
    return status;
}

static enum status advance(struct source_work *work, const char *body, size_t len_bytes,
                           struct source_step *next, struct error *err)
{
    work->stage++;
    if (work->stage == 1) {
        return ask(work, " AND ", next, err);
    }
    TRY(source_arxiv_read(body, len_bytes, work->question.count, work->documents, err));
    if (work->stage == 2 && cJSON_GetArraySize(work->documents) == 0) {
        return ask(work, " OR ", next, err);
    }
    return STATUS_OK;
}

const struct source_service source_arxiv = {
    .advance = advance,
};
