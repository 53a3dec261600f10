/* Semantic Scholar's Academic Graph (https://api.semanticscholar.org/api-docs/graph): one request a
 * second; S2_API_KEY gives a share of one's own. */
#include <stdio.h>
#include <string.h>

#include "net/source_service.h"

enum { WORDS_MAX = 16 };

static enum status add_paper(const cJSON *paper, int count, cJSON *documents, struct error *err)
{
    char url[128];
    char licence[SOURCE_LICENCE_BYTES];
    const char *id = source_string(paper, "paperId");
    cJSON *added = NULL;
    if (id[0] == '\0' || strlen(id) > 64 ||
        strspn(id, "0123456789abcdefABCDEF") != strlen(id)) { /* a SHA-1 */
        return STATUS_OK;
    }
    snprintf(url, sizeof(url), "https://www.semanticscholar.org/paper/%s", id);
    source_licence(
        source_string(cJSON_GetObjectItemCaseSensitive(paper, "openAccessPdf"), "license"),
        licence);
    struct source_document document = {
        .id = id,
        .title = source_string(paper, "title"),
        .url = url,
        .licence = licence,
        .text = source_string(paper, "abstract"),
        .text_bytes = SOURCE_ABSTRACT_BYTES,
        .year = (int)(source_integer(paper, "year", 0) % 10000),
    };
    TRY(source_add(SOURCE_SEMANTIC_SCHOLAR, &document, count, documents, &added, err));
    source_copy_integer(paper, "citationCount", added, "citations");
    return STATUS_OK;
}

enum status source_semantic_scholar_read(const char *body, size_t len_bytes, int count,
                                         cJSON *documents, struct error *err)
{
    return source_read_list("semantic_scholar", "data", add_paper, body, len_bytes, count,
                            documents, err);
}

static enum status advance(struct source_work *work, const char *body, size_t len_bytes,
                           struct source_step *next, struct error *err)
{
    work->stage++;
    if (work->stage == 2) {
        return source_semantic_scholar_read(body, len_bytes, work->question.count, work->documents,
                                            err);
    }
    struct buffer words;
    buffer_init(&words, SOURCE_URL_BYTES);
    /* A term with a hyphen matches nothing there. */
    source_words(work->question.text, WORDS_MAX, false, "", "", " ", &words);
    next->site = SOURCE_SITE_SEMANTIC_SCHOLAR;
    enum status status = source_set_path(
        next,
        "/graph/v1/paper/search?fields=title,abstract,year,citationCount,openAccessPdf&query=",
        buffer_text(&words), "&limit=", work->question.count, err);
    buffer_fini(&words);
    return status;
}

const struct source_service source_semantic_scholar = {
    .advance = advance,
};
