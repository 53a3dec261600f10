/* OpenAlex works (https://developers.openalex.org): abstracts come as an inverted index, word ->
 * positions. OPENALEX_API_KEY gives a larger daily share. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/source_service.h"

enum { ABSTRACT_WORDS_MAX = 4000 };

/* Each word at each of its positions; positions that nothing stands at are passed over. */
static enum status rebuild_abstract(const cJSON *index, struct buffer *out, struct error *err)
{
    const char **words = mem_calloc(ABSTRACT_WORDS_MAX, sizeof(*words));
    if (words == NULL) {
        return mem_fail(err, ABSTRACT_WORDS_MAX * sizeof(*words), "an abstract");
    }
    const cJSON *word = NULL;
    cJSON_ArrayForEach (word, index) {
        const cJSON *position = NULL;
        cJSON_ArrayForEach (position, word) {
            if (cJSON_IsNumber(position) && position->valuedouble >= 0 &&
                position->valuedouble < ABSTRACT_WORDS_MAX) {
                words[(size_t)position->valuedouble] = word->string;
            }
        }
    }
    for (size_t i = 0; i < ABSTRACT_WORDS_MAX; i++) {
        if (words[i] != NULL) {
            buffer_append_text(out, out->len_bytes > 0 ? " " : "");
            buffer_append_text(out, words[i]); /* beyond its maximum: cut */
        }
    }
    free(words);
    return STATUS_OK;
}

/* "https://openalex.org/W2741809807" -> "W2741809807". */
static bool read_id(const char *text, char out[32])
{
    const char *at = strrchr(text, '/');
    at = at != NULL ? at + 1 : text;
    size_t length = strlen(at);
    if (length < 2 || length > 24 || at[0] != 'W' || strspn(at + 1, "0123456789") != length - 1) {
        return false;
    }
    snprintf(out, 32, "%s", at);
    return true;
}

static enum status add_work(const cJSON *work, int count, cJSON *documents, struct error *err)
{
    char id[32];
    char url[64];
    char licence[SOURCE_LICENCE_BYTES];
    struct buffer abstract;
    cJSON *added = NULL;
    if (!read_id(source_string(work, "id"), id)) {
        return STATUS_OK;
    }
    snprintf(url, sizeof(url), "https://openalex.org/%s", id);
    source_licence(
        source_string(cJSON_GetObjectItemCaseSensitive(work, "primary_location"), "license"),
        licence);
    buffer_init(&abstract, (size_t)4 * SOURCE_ABSTRACT_BYTES);
    enum status status = rebuild_abstract(
        cJSON_GetObjectItemCaseSensitive(work, "abstract_inverted_index"), &abstract, err);
    struct source_document document = {
        .id = id,
        .title = source_string(work, "display_name"),
        .url = url,
        .licence = licence,
        .text = buffer_text(&abstract),
        .text_bytes = SOURCE_ABSTRACT_BYTES,
        .year = (int)(source_integer(work, "publication_year", 0) % 10000),
    };
    if (status == STATUS_OK) {
        status = source_add(SOURCE_OPENALEX, &document, count, documents, &added, err);
    }
    source_copy_integer(work, "cited_by_count", added, "citations");
    buffer_fini(&abstract);
    return status;
}

enum status source_openalex_read(const char *body, size_t len_bytes, int count, cJSON *documents,
                                 struct error *err)
{
    return source_read_list("openalex", "results", add_work, body, len_bytes, count, documents,
                            err);
}

static enum status advance(struct source_work *work, const char *body, size_t len_bytes,
                           struct source_step *next, struct error *err)
{
    work->stage++;
    if (work->stage == 2) {
        return source_openalex_read(body, len_bytes, work->question.count, work->documents, err);
    }
    next->site = SOURCE_SITE_OPENALEX;
    return source_set_path(next,
                           "/works?select=id,display_name,publication_year,primary_location,"
                           "cited_by_count,abstract_inverted_index&search=",
                           work->question.text, "&per_page=", work->question.count, err);
}

const struct source_service source_openalex = {
    .advance = advance,
};
