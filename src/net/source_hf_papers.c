/* Papers with a page on the Hugging Face hub: those that its models and data sets cite. */
#include <stdio.h>
#include <string.h>

#include "net/source_service.h"

/* The paper stands under "paper", or by itself. */
static enum status add_paper(const cJSON *item, int count, cJSON *documents, struct error *err)
{
    char url[SOURCE_ID_BYTES + 64];
    const cJSON *paper = cJSON_GetObjectItemCaseSensitive(item, "paper");
    paper = cJSON_IsObject(paper) ? paper : item;
    const char *id = source_string(paper, "id");
    cJSON *added = NULL;
    if (!source_id_valid(id)) {
        return STATUS_OK;
    }
    snprintf(url, sizeof(url), "https://huggingface.co/papers/%s", id);
    struct source_document document = {
        .id = id,
        .title = source_string(paper, "title"),
        .url = url,
        .licence = "",
        .text = source_string(paper, "summary"),
        .text_bytes = SOURCE_ABSTRACT_BYTES,
        .year = source_year(source_string(paper, "publishedAt")),
    };
    TRY(source_add(SOURCE_HF_PAPERS, &document, count, documents, &added, err));
    source_copy_integer(paper, "upvotes", added, "votes");
    return STATUS_OK;
}

enum status source_hf_papers_read(const char *body, size_t len_bytes, int count, cJSON *documents,
                                  struct error *err)
{
    return source_read_list("hf_papers", NULL, add_paper, body, len_bytes, count, documents, err);
}

static enum status advance(struct source_work *work, const char *body, size_t len_bytes,
                           struct source_step *next, struct error *err)
{
    work->stage++;
    if (work->stage == 2) {
        return source_hf_papers_read(body, len_bytes, work->question.count, work->documents, err);
    }
    next->site = SOURCE_SITE_HF;
    return source_set_path(next, "/api/papers/search?q=", work->question.text,
                           "&limit=", work->question.count, err);
}

const struct source_service source_hf_papers = {
    .advance = advance,
};
