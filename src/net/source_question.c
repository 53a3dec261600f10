/* Questions, read as if from a stranger: a language model writes some of them. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "net/source_service.h"

enum { TEXT_MAX_BYTES = 1024, NAME_MAX_BYTES = 127, ROWS_MAX = 1 << 30 };

static enum source_index find_source(const char *name)
{
    int found = 0;
    while (found < SOURCE_COUNT && strcmp(source_list()[found].name, name) != 0) {
        found++;
    }
    return (enum source_index)found;
}

/* `allowed`: what it must be; NULL: it may be left out. */
static void read_text(struct json_reader *reader, const char *key, const char *allowed,
                      size_t max_bytes, char **out)
{
    const char *text = json_read_string(reader, key, "");
    size_t length = strlen(text);
    if (length > max_bytes || (length == 0 && allowed != NULL)) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, key, pointer);
        json_problems_add(reader->problems, pointer,
                          "found %zu bytes, allowed %s, at most %zu bytes", length,
                          allowed != NULL ? allowed : "a name", max_bytes);
    }
    *out = mem_strdup(length <= max_bytes ? text : "");
}

static enum status read_search(struct json_reader *reader, struct source_question *out,
                               struct error *err)
{
    read_text(reader, "text", "what to look for", TEXT_MAX_BYTES, &out->text);
    out->count = (int)json_read_int(reader, "count", 5, 1, SOURCE_DOCUMENTS_MAX);
    return out->text != NULL ? STATUS_OK : mem_fail(err, TEXT_MAX_BYTES, "a question");
}

static enum status read_set(struct json_reader *reader, const struct source_options *options,
                            bool network, struct source_question *out, struct error *err)
{
    read_text(reader, "id", "the id of a data set", SOURCE_ID_BYTES, &out->id);
    read_text(reader, "config", NULL, NAME_MAX_BYTES, &out->config);
    read_text(reader, "split", NULL, NAME_MAX_BYTES, &out->split);
    if (out->id == NULL || out->config == NULL || out->split == NULL) {
        return mem_fail(err, SOURCE_ID_BYTES, "a question");
    }
    if (network && out->id[0] != '\0' && !source_id_valid(out->id)) {
        json_problems_add(reader->problems, "/id",
                          "found \"%.60s\", allowed \"name\" or \"org/name\"", out->id);
    }
    if (out->split[0] != '\0' && source_rate_split(out->split) == 0) {
        json_problems_add(reader->problems, "/split",
                          "found \"%.60s\", allowed all but splits for tests", out->split);
    }
    if (out->what == SOURCE_DOWNLOAD) {
        int64_t most = options->rows_max < ROWS_MAX ? options->rows_max : ROWS_MAX;
        int64_t rows = json_read_int(reader, "rows", most, 1, ROWS_MAX);
        out->rows = rows < most ? rows : most;
    }
    return STATUS_OK;
}

static enum status read_fields(struct json_reader *reader, const struct source_options *options,
                               enum source_index *source, struct source_question *out,
                               struct error *err)
{
    static const char *const whats[] = {"search", "card", "download", NULL};
    json_require(reader, "do", "search, card, download");
    json_require(reader, "source", "the name of a source");
    out->what = (enum source_do)json_read_choice(reader, "do", whats, SOURCE_SEARCH);
    const char *name = json_read_string(reader, "source", "");
    *source = find_source(name);
    bool network = false;
    if (*source == SOURCE_COUNT) {
        json_problems_add(reader->problems, "/source",
                          "found \"%.60s\", allowed a name that `trex sources` lists", name);
    } else {
        const struct source_service *service = source_service_at(*source);
        network = source_list()[*source].network;
        if ((out->what == SOURCE_CARD && !service->card) ||
            (out->what == SOURCE_DOWNLOAD && !service->download)) {
            json_problems_add(reader->problems, "/do",
                              "found \"%s\", allowed \"search\" alone for %s", whats[out->what],
                              name);
        }
    }
    return out->what == SOURCE_SEARCH ? read_search(reader, out, err)
                                      : read_set(reader, options, network, out, err);
}

enum status source_read_question(const cJSON *json, const struct source_options *options,
                                 enum source_index *source, struct source_question *out,
                                 struct error *err)
{
    struct json_problems problems;
    struct json_reader reader;
    json_problems_init(&problems);
    json_reader_init(&reader, json, "", &problems);
    enum status status = read_fields(&reader, options, source, out, err);
    json_reader_finish(&reader);
    if (status == STATUS_OK) {
        status = json_problems_check(&problems, "question", err);
    }
    json_problems_fini(&problems);
    if (status == STATUS_OK && out->what == SOURCE_DOWNLOAD && source_list()[*source].network &&
        (options->download_folder == NULL || options->rows_max <= 0)) {
        status = FAIL(err, STATUS_LIMIT, "no rows may be downloaded here (download_rows is 0)");
    }
    return status;
}

void source_question_fini(struct source_question *question)
{
    free(question->text);
    free(question->id);
    free(question->config);
    free(question->split);
    memset(question, 0, sizeof(*question));
}
