/* Rows of a data set, page by page from the datasets server, as a file of JSON Lines. Nothing is
 * written before all rows are there; whoever is interrupted finds the pages in the cache. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "net/source_hf.h"

enum { PAGE_ROWS = 100 /* the server's maximum */, FILE_MAX_BYTES = 64 << 20 };

struct download {
    struct source_hf_split split;
    int64_t offset;      /* of the next page */
    int64_t rows;        /* in `lines` */
    bool cut;            /* the file is as large as it may be */
    struct buffer lines; /* the file */
};

static void free_download(void *state)
{
    struct download *download = state;
    buffer_fini(&download->lines);
    free(download);
}

static enum status begin(struct source_work *work, struct error *err)
{
    struct download *download = mem_calloc(1, sizeof(*download));
    if (download == NULL) {
        return mem_fail(err, sizeof(*download), "a download");
    }
    buffer_init(&download->lines, FILE_MAX_BYTES);
    snprintf(download->split.config, sizeof(download->split.config), "%s", work->question.config);
    snprintf(download->split.split, sizeof(download->split.split), "%s", work->question.split);
    work->state = download;
    work->free_state = free_download;
    return STATUS_OK;
}

/* Nothing is taken that its owner did not allow. */
static enum status check_terms(const struct source_work *work, const cJSON *document,
                               struct error *err)
{
    const char *licence = source_string(document, "licence");
    if (licence[0] == '\0') {
        return FAIL(err, STATUS_PERMISSION, "%s names no licence that is known: not downloaded",
                    work->question.id);
    }
    if (!source_licence_allowed(licence, work->options->licences)) {
        return FAIL(err, STATUS_PERMISSION,
                    "%s has the licence \"%s\", which is not among those allowed: not downloaded",
                    work->question.id, licence);
    }
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(document, "gated")) && !work->has_hub_key) {
        return FAIL(err, STATUS_PERMISSION,
                    "%s is given to those alone whom its owner admits (HF_TOKEN): not downloaded",
                    work->question.id);
    }
    return STATUS_OK;
}

/* One line a row. Rows with cells that the server cut are left out: they would teach the cut. */
static enum status add_rows(const cJSON *rows, int64_t rows_max, struct download *download,
                            struct error *err)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, rows) {
        const cJSON *row = cJSON_GetObjectItemCaseSensitive(item, "row");
        const cJSON *cut = cJSON_GetObjectItemCaseSensitive(item, "truncated_cells");
        if (!cJSON_IsObject(row) || cJSON_GetArraySize(cut) > 0 || download->rows >= rows_max) {
            continue;
        }
        char *line = json_print_line(row);
        if (line == NULL) {
            return mem_fail(err, FILE_MAX_BYTES, "a row");
        }
        if (download->lines.len_bytes + strlen(line) + 1 > FILE_MAX_BYTES) {
            download->cut = true;
        } else if (!download->cut) {
            buffer_append_text(&download->lines, line);
            buffer_append_char(&download->lines, '\n');
            download->rows++;
        }
        free(line);
    }
    return buffer_check(&download->lines, "rows", err);
}

/* *more: another page is wanted. */
static enum status read_page(struct source_work *work, const char *body, size_t len_bytes,
                             bool *more, struct error *err)
{
    struct download *download = work->state;
    cJSON *json = NULL;
    TRY(source_parse_json("the datasets server", body, len_bytes, &json, err));
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(json, "rows");
    enum status status = STATUS_OK;
    if (!cJSON_IsArray(rows)) {
        status = FAIL(err, STATUS_FORMAT, "the datasets server sent JSON without a list \"rows\"");
    } else {
        status = add_rows(rows, work->question.rows, download, err);
    }
    int64_t total = source_integer(json, "num_rows_total", INT64_MAX);
    int count = cJSON_GetArraySize(rows);
    cJSON_Delete(json);
    download->offset += PAGE_ROWS;
    *more = count > 0 && download->offset < total && download->rows < work->question.rows &&
            !download->cut;
    return status;
}

/* Name of the file: readable, and another one for another question. */
static enum status file_path(const struct source_work *work, const char *folder,
                             char out[FILE_PATH_BYTES], struct error *err)
{
    const struct source_hf_split *split = &((struct download *)work->state)->split;
    char identity[SOURCE_ID_BYTES + 300];
    char hash[HASH_TEXT_BYTES];
    snprintf(identity, sizeof(identity), "%s\n%s\n%s\n%lld", work->question.id, split->config,
             split->split, (long long)work->question.rows);
    hash_bytes(identity, strlen(identity), hash);
    struct buffer name;
    buffer_init(&name, 255);
    source_file_part(work->question.id, 80, &name);
    buffer_append_char(&name, '-');
    source_file_part(split->config, 40, &name);
    buffer_append_char(&name, '-');
    source_file_part(split->split, 40, &name);
    buffer_printf(&name, "-%.12s.jsonl", hash);
    enum status status = buffer_check(&name, "name of a file", err);
    if (status == STATUS_OK) {
        status = file_join(folder, buffer_text(&name), out, err);
    }
    buffer_fini(&name);
    return status;
}

static enum status finish(struct source_work *work, cJSON *document, struct error *err)
{
    struct download *download = work->state;
    char path[FILE_PATH_BYTES];
    char answered[FILE_PATH_BYTES];
    char hash[HASH_TEXT_BYTES];
    if (download->rows == 0) {
        return FAIL(err, STATUS_NOT_FOUND, "%s has no rows in config \"%s\", split \"%s\"",
                    work->question.id, download->split.config, download->split.split);
    }
    const struct source_options *options = work->options;
    const char *named =
        options->download_name != NULL ? options->download_name : options->download_folder;
    TRY(file_path(work, options->download_folder, path, err));
    TRY(file_path(work, named, answered, err));
    TRY(file_make_folders(options->download_folder, err));
    TRY(file_write(path, download->lines.data, download->lines.len_bytes, err));
    hash_bytes(download->lines.data, download->lines.len_bytes, hash);
    cJSON_DeleteItemFromObjectCaseSensitive(document, "splits");
    cJSON_AddStringToObject(document, "config", download->split.config);
    cJSON_AddStringToObject(document, "split", download->split.split);
    cJSON_AddStringToObject(document, "path", answered);
    cJSON_AddNumberToObject(document, "rows", (double)download->rows);
    return cJSON_AddStringToObject(document, "hash", hash) != NULL
               ? STATUS_OK
               : mem_fail(err, sizeof(hash), "a document");
}

enum status source_hf_advance_download(struct source_work *work, const char *body, size_t len_bytes,
                                       struct source_step *next, struct error *err)
{
    cJSON *document = cJSON_GetArrayItem(work->documents, 0);
    struct download *download = work->state;
    bool more = true;
    if (work->stage == 1) {
        source_hf_set_path(work, next);
        return STATUS_OK;
    }
    if (work->stage == 2) {
        TRY(source_hf_read_set(work, body, len_bytes, &document, err));
        TRY(check_terms(work, document, err));
        TRY(begin(work, err));
        download = work->state;
        if (download->split.config[0] == '\0' || download->split.split[0] == '\0') {
            source_hf_size_path(work, next);
            return STATUS_OK;
        }
        work->stage++; /* the split is known: no step to find it */
    } else if (work->stage == 3) {
        TRY(source_hf_read_size(work, body, len_bytes, document, &download->split, err));
        if (download->split.config[0] == '\0') {
            return FAIL(err, STATUS_NOT_FOUND,
                        "%s has no split to train on (config \"%s\", split \"%s\")",
                        work->question.id, work->question.config, work->question.split);
        }
    } else {
        TRY(read_page(work, body, len_bytes, &more, err));
    }
    return more
               ? source_hf_rows_path(work, &download->split, download->offset, PAGE_ROWS, next, err)
               : finish(work, document, err);
}
