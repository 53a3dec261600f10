/* Data sets of the Hugging Face hub: a search, and a card with licence, splits, columns and sample
 * rows. Rows are taken by source_hf_download.c.
 *
 *   /api/datasets                       the hub: https://huggingface.co/docs/hub/api
 *   /datasets/<id>/resolve/main/README.md
 *   /size, /rows                        its datasets server:
 * https://huggingface.co/docs/dataset-viewer */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/http.h"
#include "net/source_hf.h"

#define EXPAND                                                                                     \
    "expand=description&expand=tags&expand=downloads&expand=gated&expand=private&"                 \
    "expand=disabled&expand=createdAt"

enum { SEARCH_WORDS_MAX = 4, SPLITS_MAX = 32, COLUMNS_MAX = 32, NAMES_MAX = 32, SAMPLE_ROWS = 5 };

/* ---- what the hub says of a data set ---- */

static const char *find_tag(const cJSON *set, const char *front)
{
    const cJSON *tag = NULL;
    cJSON_ArrayForEach (tag, cJSON_GetObjectItemCaseSensitive(set, "tags")) {
        if (cJSON_IsString(tag) && strncmp(tag->valuestring, front, strlen(front)) == 0) {
            return tag->valuestring + strlen(front);
        }
    }
    return "";
}

static void read_licence(const cJSON *set, char out[SOURCE_LICENCE_BYTES])
{
    static const char front[] = "license:";
    cJSON *list = cJSON_CreateArray();
    const cJSON *tag = NULL;
    cJSON_ArrayForEach (tag, cJSON_GetObjectItemCaseSensitive(set, "tags")) {
        if (cJSON_IsString(tag) && strncmp(tag->valuestring, front, sizeof(front) - 1) == 0) {
            cJSON_AddItemToArray(list, cJSON_CreateString(tag->valuestring + sizeof(front) - 1));
        }
    }
    source_licences(list, out);
    cJSON_Delete(list);
}

/* "gated" is false, "auto" or "manual". */
static bool is_gated(const cJSON *set)
{
    const cJSON *gated = cJSON_GetObjectItemCaseSensitive(set, "gated");
    return cJSON_IsString(gated) || cJSON_IsTrue(gated);
}

static enum status add_set(const cJSON *set, int count, cJSON *documents, cJSON **added,
                           struct error *err)
{
    char url[SOURCE_ID_BYTES + 64];
    char licence[SOURCE_LICENCE_BYTES];
    const char *id = source_string(set, "id");
    *added = NULL;
    if (!source_id_valid(id) || cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(set, "disabled"))) {
        return STATUS_OK;
    }
    read_licence(set, licence);
    snprintf(url, sizeof(url), "https://huggingface.co/datasets/%s", id);
    struct source_document document = {
        .id = id,
        .title = id,
        .url = url,
        .licence = licence,
        .text = source_string(set, "description"),
        .text_bytes = SOURCE_ABSTRACT_BYTES,
        .year = source_year(source_string(set, "createdAt")),
    };
    TRY(source_add(SOURCE_HF_DATASETS, &document, count, documents, added, err));
    if (*added == NULL) {
        return STATUS_OK;
    }
    source_copy_integer(set, "downloads", *added, "downloads");
    struct buffer size;
    buffer_init(&size, 64);
    source_clean(find_tag(set, "size_categories:"), false, 40, &size);
    if (size.len_bytes > 0) {
        cJSON_AddStringToObject(*added, "size", buffer_text(&size));
    }
    buffer_fini(&size);
    if (is_gated(set)) {
        cJSON_AddBoolToObject(*added, "gated", true);
    }
    return STATUS_OK;
}

static enum status add_entry(const cJSON *set, int count, cJSON *documents, struct error *err)
{
    cJSON *added = NULL;
    return add_set(set, count, documents, &added, err);
}

enum status source_hf_datasets_read(const char *body, size_t len_bytes, int count, cJSON *documents,
                                    struct error *err)
{
    return source_read_list("hf_datasets", NULL, add_entry, body, len_bytes, count, documents, err);
}

/* The hub knows a data set by its old names too, the datasets server by the last one alone. */
static enum status adopt_name(struct source_work *work, const cJSON *document, struct error *err)
{
    const char *id = source_string(document, "id");
    char *name = mem_strdup(id);
    if (name == NULL) {
        return mem_fail(err, strlen(id) + 1, "a name");
    }
    free(work->question.id);
    work->question.id = name;
    return STATUS_OK;
}

enum status source_hf_read_set(struct source_work *work, const char *body, size_t len_bytes,
                               cJSON **document, struct error *err)
{
    cJSON *json = NULL;
    TRY(source_parse_json("hf_datasets", body, len_bytes, &json, err));
    enum status status = add_set(json, 1, work->documents, document, err);
    cJSON_Delete(json);
    if (status == STATUS_OK && *document == NULL) {
        status = FAIL(err, STATUS_FORMAT, "hf_datasets sent JSON that describes no data set");
    }
    return status == STATUS_OK ? adopt_name(work, *document, err) : status;
}

/* ---- paths ---- */

void source_hf_set_path(const struct source_work *work, struct source_step *next)
{
    next->site = SOURCE_SITE_HF;
    snprintf(next->path, sizeof(next->path), "/api/datasets/%s?" EXPAND, work->question.id);
}

void source_hf_size_path(const struct source_work *work, struct source_step *next)
{
    struct buffer path;
    buffer_init(&path, sizeof(next->path) - 1);
    buffer_append_text(&path, "/size?dataset=");
    http_append_escaped(&path, work->question.id);
    next->site = SOURCE_SITE_HF_ROWS;
    snprintf(next->path, sizeof(next->path), "%s", buffer_text(&path));
    buffer_fini(&path);
}

enum status source_hf_rows_path(const struct source_work *work, const struct source_hf_split *split,
                                int64_t offset, int64_t length, struct source_step *next,
                                struct error *err)
{
    struct buffer path;
    buffer_init(&path, sizeof(next->path) - 1);
    buffer_append_text(&path, "/rows?dataset=");
    http_append_escaped(&path, work->question.id);
    buffer_append_text(&path, "&config=");
    http_append_escaped(&path, split->config);
    buffer_append_text(&path, "&split=");
    http_append_escaped(&path, split->split);
    buffer_printf(&path, "&offset=%lld&length=%lld", (long long)offset, (long long)length);
    enum status status = buffer_check(&path, "address of rows", err);
    next->site = SOURCE_SITE_HF_ROWS;
    snprintf(next->path, sizeof(next->path), "%s", buffer_text(&path));
    buffer_fini(&path);
    return status;
}

/* ---- splits ---- */

static bool same_or_any(const char *wanted, const char *name)
{
    return wanted[0] == '\0' || strcmp(wanted, name) == 0;
}

enum status source_hf_read_size(const struct source_work *work, const char *body, size_t len_bytes,
                                cJSON *document, struct source_hf_split *out, struct error *err)
{
    cJSON *json = NULL;
    TRY(source_parse_json("the datasets server", body, len_bytes, &json, err));
    const cJSON *splits =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(json, "size"), "splits");
    cJSON *list = cJSON_AddArrayToObject(document, "splits");
    int best = 0;
    *out = (struct source_hf_split){.config = ""};
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, splits) {
        const char *config = source_string(item, "config");
        const char *split = source_string(item, "split");
        if (strlen(config) >= sizeof(out->config) || strlen(split) >= sizeof(out->split) ||
            config[0] == '\0' || split[0] == '\0') {
            continue;
        }
        int64_t rows = source_integer(item, "num_rows", -1);
        if (same_or_any(work->question.config, config) &&
            same_or_any(work->question.split, split) && source_rate_split(split) > best) {
            best = source_rate_split(split);
            snprintf(out->config, sizeof(out->config), "%s", config);
            snprintf(out->split, sizeof(out->split), "%s", split);
        }
        if (cJSON_GetArraySize(list) < SPLITS_MAX) {
            cJSON *entry = cJSON_CreateObject();
            cJSON_AddStringToObject(entry, "config", config);
            cJSON_AddStringToObject(entry, "split", split);
            if (rows >= 0) {
                cJSON_AddNumberToObject(entry, "rows", (double)rows);
            }
            cJSON_AddItemToArray(list, entry);
        }
    }
    cJSON_Delete(json);
    return list != NULL ? STATUS_OK : mem_fail(err, sizeof(*list), "splits");
}

/* ---- columns and samples ---- */

/* {"name", "type", "labels": what the numbers of a class label, or of a list of them, mean}. */
static void add_column(const cJSON *feature, cJSON *columns, struct buffer *scratch)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(feature, "type");
    const char *kind = source_string(type, "_type");
    const char *dtype = source_string(type, "dtype");
    cJSON *column = cJSON_CreateObject();
    buffer_clear(scratch);
    source_clean(source_string(feature, "name"), false, 100, scratch);
    cJSON_AddStringToObject(column, "name", buffer_text(scratch));
    buffer_clear(scratch);
    source_clean(strcmp(kind, "Value") == 0 ? dtype : kind, false, 40, scratch);
    cJSON_AddStringToObject(column, "type", buffer_text(scratch));
    const cJSON *listed = cJSON_GetObjectItemCaseSensitive(type, "feature");
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(listed != NULL ? listed : type, "names");
    if (cJSON_GetArraySize(names) > 0) {
        cJSON *labels = cJSON_AddArrayToObject(column, "labels");
        const cJSON *name = NULL;
        cJSON_ArrayForEach (name, names) {
            if (cJSON_IsString(name) && cJSON_GetArraySize(labels) < NAMES_MAX) {
                buffer_clear(scratch);
                source_clean(name->valuestring, false, 60, scratch);
                cJSON_AddItemToArray(labels, cJSON_CreateString(buffer_text(scratch)));
            }
        }
    }
    cJSON_AddItemToArray(columns, column);
}

static enum status read_samples(const char *body, size_t len_bytes, cJSON *document,
                                struct error *err)
{
    cJSON *json = NULL;
    TRY(source_parse_json("the datasets server", body, len_bytes, &json, err));
    struct buffer scratch;
    buffer_init(&scratch, 256);
    cJSON *columns = cJSON_AddArrayToObject(document, "columns");
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(json, "features")) {
        if (cJSON_GetArraySize(columns) < COLUMNS_MAX) {
            add_column(item, columns, &scratch);
        }
    }
    buffer_fini(&scratch);
    cJSON *rows = cJSON_CreateArray();
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(json, "rows")) {
        const cJSON *row = cJSON_GetObjectItemCaseSensitive(item, "row");
        if (cJSON_IsObject(row) && cJSON_GetArraySize(rows) < SAMPLE_ROWS) {
            cJSON_AddItemToArray(rows, cJSON_Duplicate(row, true));
        }
    }
    enum status status = source_add_samples(document, rows, err);
    cJSON_Delete(rows);
    cJSON_Delete(json);
    return status;
}

/* ---- the steps of a card ---- */

static enum status replace_text(cJSON *document, const char *key, const char *text,
                                struct error *err)
{
    cJSON *value = cJSON_CreateString(text);
    if (value == NULL || !cJSON_ReplaceItemInObjectCaseSensitive(document, key, value)) {
        cJSON_Delete(value);
        return mem_fail(err, strlen(text), "a card");
    }
    return STATUS_OK;
}

static enum status read_card(cJSON *document, const char *body, struct error *err)
{
    struct source_card card;
    struct buffer text;
    source_read_card(body, &card);
    buffer_init(&text, SOURCE_CARD_BYTES + 1);
    source_clean(card.text, true, SOURCE_CARD_BYTES, &text);
    enum status status = buffer_check(&text, "card", err);
    if (status == STATUS_OK && text.len_bytes > 0) {
        status = replace_text(document, "text", buffer_text(&text), err);
    }
    if (status == STATUS_OK && source_string(document, "licence")[0] == '\0') {
        status = replace_text(document, "licence", card.licence, err);
    }
    if (status == STATUS_OK && card.title[0] != '\0') {
        status = replace_text(document, "title", card.title, err);
    }
    buffer_fini(&text);
    return status;
}

static enum status advance_card(struct source_work *work, const char *body, size_t len_bytes,
                                struct source_step *next, struct error *err)
{
    cJSON *document = cJSON_GetArrayItem(work->documents, 0);
    struct source_hf_split split;
    next->optional = true;
    switch (work->stage) {
    case 1:
        next->optional = false;
        source_hf_set_path(work, next);
        return STATUS_OK;
    case 2:
        TRY(source_hf_read_set(work, body, len_bytes, &document, err));
        next->site = SOURCE_SITE_HF;
        snprintf(next->path, sizeof(next->path), "/datasets/%s/resolve/main/README.md",
                 work->question.id);
        return STATUS_OK;
    case 3:
        if (body != NULL) {
            TRY(read_card(document, body, err));
        }
        source_hf_size_path(work, next);
        return STATUS_OK;
    case 4:
        if (body == NULL) {
            return STATUS_OK; /* the server does not show it: the card stands without rows */
        }
        TRY(source_hf_read_size(work, body, len_bytes, document, &split, err));
        return split.config[0] != '\0'
                   ? source_hf_rows_path(work, &split, 0, SAMPLE_ROWS, next, err)
                   : STATUS_OK;
    default:
        return body != NULL ? read_samples(body, len_bytes, document, err) : STATUS_OK;
    }
}

/* ---- the steps of a search ---- */

/* The hub looks for the text in names: where all words find nothing, the first ones are tried. */
static enum status advance_search(struct source_work *work, const char *body, size_t len_bytes,
                                  struct source_step *next, struct error *err)
{
    if (body != NULL) {
        TRY(source_hf_datasets_read(body, len_bytes, work->question.count, work->documents, err));
    }
    struct buffer words;
    buffer_init(&words, SOURCE_URL_BYTES);
    int found = source_words(work->question.text, SEARCH_WORDS_MAX, true, "", "", " ", &words);
    int fewer = found + 1 - work->stage;
    buffer_clear(&words);
    source_words(work->question.text, fewer, true, "", "", " ", &words);
    if (cJSON_GetArraySize(work->documents) > 0 || (work->stage > 1 && fewer < 1)) {
        buffer_fini(&words);
        return STATUS_OK;
    }
    next->site = SOURCE_SITE_HF;
    enum status status = source_set_path(next, "/api/datasets?" EXPAND "&sort=downloads&search=",
                                         buffer_text(&words), "&limit=", work->question.count, err);
    buffer_fini(&words);
    return status;
}

static enum status advance(struct source_work *work, const char *body, size_t len_bytes,
                           struct source_step *next, struct error *err)
{
    work->stage++;
    switch (work->question.what) {
    case SOURCE_SEARCH:
        return advance_search(work, body, len_bytes, next, err);
    case SOURCE_CARD:
        return advance_card(work, body, len_bytes, next, err);
    default:
        return source_hf_advance_download(work, body, len_bytes, next, err);
    }
}

const struct source_service source_hf_datasets = {
    .card = true,
    .download = true,
    .advance = advance,
};
