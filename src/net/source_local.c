/* Data sets on this machine: folders with a card (README.md) and files *.jsonl. A folder that is
 * named is one, and so is each folder in it that has a card. Needs no network. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "net/source_service.h"

enum {
    SETS_MAX = 256,
    ENTRIES_MAX = 4096, /* of a folder that are looked at */
    FILES_MAX = 32,
    CARD_FILE_BYTES = 1 << 20,
    COUNT_MAX_BYTES = 256 << 20, /* of a file whose rows are counted */
    SAMPLE_LINE_BYTES = 1 << 20,
    HEAD_BYTES = 4 << 20, /* of a file, where samples are looked for */
    SAMPLE_ROWS = 5
};

struct local_set {
    char *folder;
    char id[SOURCE_ID_BYTES + 8];
    int rank; /* words of the question in its card */
};

struct local_sets {
    struct local_set sets[SETS_MAX];
    int count;
};

/* ---- folders ---- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

struct names {
    char **names; /* sorted */
    int count;
};

static void free_names(struct names *list)
{
    for (int i = 0; i < list->count; i++) {
        free(list->names[i]);
    }
    free(list->names);
}

/* Names in a folder, without hidden ones, in the order of their bytes. */
static enum status list_names(const char *folder, struct names *out, struct error *err)
{
    *out = (struct names){.names = mem_calloc(ENTRIES_MAX, sizeof(char *))};
    if (out->names == NULL) {
        return mem_fail(err, ENTRIES_MAX * sizeof(char *), "names");
    }
    DIR *handle = opendir(folder);
    const struct dirent *entry = NULL;
    while (handle != NULL && out->count < ENTRIES_MAX && (entry = readdir(handle)) != NULL) {
        if (entry->d_name[0] != '.') {
            char *name = mem_strdup(entry->d_name);
            if (name == NULL) {
                closedir(handle);
                free_names(out);
                return mem_fail(err, sizeof(entry->d_name), "names");
            }
            out->names[out->count++] = name;
        }
    }
    if (handle != NULL) {
        closedir(handle);
    }
    qsort(out->names, (size_t)out->count, sizeof(char *), compare_names);
    return STATUS_OK;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);
    size_t end_length = strlen(end);
    return length > end_length && strcmp(text + length - end_length, end) == 0;
}

static const struct local_set *find_set(const struct local_sets *list, const char *id)
{
    for (int i = 0; i < list->count; i++) {
        if (strcmp(list->sets[i].id, id) == 0) {
            return &list->sets[i];
        }
    }
    return NULL;
}

/* Its id is the folder's name; a second one of that name gets a number. */
static enum status add_set(struct local_sets *list, const char *folder, struct error *err)
{
    char name[SOURCE_ID_BYTES];
    size_t end = strlen(folder);
    while (end > 1 && folder[end - 1] == '/') {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && folder[begin - 1] != '/') {
        begin--;
    }
    struct buffer part;
    buffer_init(&part, sizeof(name));
    char text[SOURCE_ID_BYTES];
    snprintf(text, sizeof(text), "%.*s", (int)(end - begin < 190 ? end - begin : 190),
             folder + begin);
    source_file_part(text, 190, &part);
    snprintf(name, sizeof(name), "%s", buffer_text(&part));
    buffer_fini(&part);
    if (list->count >= SETS_MAX) {
        return STATUS_OK;
    }
    struct local_set *set = &list->sets[list->count];
    snprintf(set->id, sizeof(set->id), "%s", name);
    for (int i = 2; find_set(list, set->id) != NULL; i++) {
        snprintf(set->id, sizeof(set->id), "%.190s-%d", name, i);
    }
    set->folder = mem_strdup(folder);
    if (set->folder == NULL) {
        return mem_fail(err, strlen(folder), "a folder's name");
    }
    list->count++;
    return STATUS_OK;
}

static bool has_card(const char *folder)
{
    char path[FILE_PATH_BYTES];
    return file_join(folder, "README.md", path, NULL) == STATUS_OK && file_exists(path);
}

static enum status add_sets_of(struct local_sets *list, const char *folder, struct error *err)
{
    struct names names;
    TRY(list_names(folder, &names, err));
    bool rows = false;
    for (int i = 0; i < names.count; i++) {
        rows = rows || ends_with(names.names[i], ".jsonl");
    }
    enum status status = STATUS_OK;
    if (rows || has_card(folder)) {
        status = add_set(list, folder, err);
    }
    for (int i = 0; i < names.count && status == STATUS_OK; i++) {
        char path[FILE_PATH_BYTES];
        if (file_join(folder, names.names[i], path, NULL) == STATUS_OK && file_is_folder(path) &&
            has_card(path)) {
            status = add_set(list, path, err);
        }
    }
    free_names(&names);
    return status;
}

static void free_sets(struct local_sets *list)
{
    for (int i = 0; i < list->count; i++) {
        free(list->sets[i].folder);
    }
    free(list);
}

static enum status list_sets(const struct source_options *options, struct local_sets **out,
                             struct error *err)
{
    struct local_sets *list = mem_calloc(1, sizeof(*list));
    if (list == NULL) {
        return mem_fail(err, sizeof(*list), "local data sets");
    }
    for (const char *const *folder = options->folders; folder != NULL && *folder != NULL;
         folder++) {
        enum status status = add_sets_of(list, *folder, err);
        if (status != STATUS_OK) {
            free_sets(list);
            return status;
        }
    }
    *out = list;
    return STATUS_OK;
}

/* ---- cards ---- */

/* Text of the card on the heap, "" if there is none. */
static enum status read_card_file(const char *folder, char **out, struct error *err)
{
    char path[FILE_PATH_BYTES];
    struct buffer text;
    buffer_init(&text, CARD_FILE_BYTES);
    TRY(file_join(folder, "README.md", path, err));
    enum status status = file_read(path, &text, err);
    if (status == STATUS_NO_MEMORY) {
        buffer_fini(&text);
        return status;
    }
    if (status != STATUS_OK) {
        buffer_clear(&text); /* none, or too long to be one */
    }
    *out = mem_strdup(buffer_text(&text));
    buffer_fini(&text);
    return *out != NULL ? STATUS_OK : mem_fail(err, CARD_FILE_BYTES, "a card");
}

static bool contains_word(const char *text, const char *word, size_t length)
{
    for (; *text != '\0'; text++) {
        size_t i = 0;
        while (i < length && tolower((unsigned char)text[i]) == tolower((unsigned char)word[i])) {
            i++;
        }
        if (i == length) {
            return true;
        }
    }
    return false;
}

static int count_words_in(const char *words, const char *card, const char *id)
{
    int count = 0;
    for (const char *at = words; *at != '\0';) {
        size_t length = strcspn(at, " ");
        count += length > 0 && (contains_word(card, at, length) || contains_word(id, at, length));
        at += length + (at[length] == ' ');
    }
    return count;
}

static enum status add_document(const struct local_set *set, int count, cJSON *documents,
                                cJSON **added, struct error *err)
{
    char *text = NULL;
    char url[FILE_PATH_BYTES + 8];
    struct source_card card;
    TRY(read_card_file(set->folder, &text, err));
    source_read_card(text, &card);
    snprintf(url, sizeof(url), "file:%s", set->folder);
    struct source_document document = {
        .id = set->id,
        .title = card.title[0] != '\0' ? card.title : set->id,
        .url = url,
        .licence = card.licence,
        .text = card.text,
        .text_bytes = SOURCE_CARD_BYTES,
        .lines = true,
    };
    enum status status = source_add(SOURCE_LOCAL, &document, count, documents, added, err);
    free(text);
    return status;
}

/* ---- rows ---- */

/* A file of rows while it is read; whoever fills the folder may change it meanwhile. */
struct rows {
    int64_t count;
    bool any;           /* something but white space in the line */
    struct buffer head; /* its first HEAD_BYTES */
};

static enum status take_rows(void *context, const char *data, size_t len_bytes, struct error *err)
{
    struct rows *rows = context;
    (void)err;
    size_t room = rows->head.max_bytes - rows->head.len_bytes;
    buffer_append(&rows->head, data, len_bytes < room ? len_bytes : room);
    for (size_t i = 0; i < len_bytes; i++) {
        if (data[i] == '\n') {
            rows->count += rows->any;
            rows->any = false;
        } else if ((unsigned char)data[i] > ' ') {
            rows->any = true;
        }
    }
    return STATUS_OK;
}

/* Counts the rows of a file, and keeps its first `head_bytes` for rows_fini. */
static enum status read_rows(const char *path, size_t head_bytes, struct rows *out,
                             struct error *err)
{
    memset(out, 0, sizeof(*out));
    buffer_init(&out->head, head_bytes);
    enum status status = file_scan(path, take_rows, out, err);
    out->count += out->any;
    return status == STATUS_OK ? buffer_check(&out->head, path, err) : status;
}

static void rows_fini(struct rows *rows)
{
    buffer_fini(&rows->head);
}

static void take_first_rows(const struct buffer *head, cJSON *rows)
{
    const char *at = buffer_text(head);
    size_t left = head->len_bytes;
    for (int i = 0; i < 4 * SAMPLE_ROWS && left > 0 && cJSON_GetArraySize(rows) < SAMPLE_ROWS;
         i++) {
        const char *end = memchr(at, '\n', left);
        size_t length = end != NULL ? (size_t)(end - at) : left;
        cJSON *row = NULL;
        if (length <= SAMPLE_LINE_BYTES &&
            json_parse(at, length, "sample", &row, NULL) == STATUS_OK) {
            cJSON_AddItemToArray(rows, row);
        }
        size_t step = length + (end != NULL);
        at += step;
        left -= step;
    }
}

/* "splits" of a document: one a file, named as the file without ".jsonl". */
static enum status add_files(const char *folder, cJSON *document, bool samples, struct error *err)
{
    struct names names;
    TRY(list_names(folder, &names, err));
    cJSON *splits = cJSON_AddArrayToObject(document, "splits");
    cJSON *rows = cJSON_CreateArray();
    int best = 0;
    if (splits == NULL || rows == NULL) {
        cJSON_Delete(rows);
        free_names(&names);
        return mem_fail(err, sizeof(*rows), "splits");
    }
    for (int i = 0; i < names.count; i++) {
        const char *name = names.names[i];
        char path[FILE_PATH_BYTES];
        struct rows file = {.count = 0};
        if (!ends_with(name, ".jsonl") || cJSON_GetArraySize(splits) >= FILES_MAX ||
            file_join(folder, name, path, NULL) != STATUS_OK ||
            file_size_bytes(path) > COUNT_MAX_BYTES ||
            read_rows(path, HEAD_BYTES, &file, NULL) != STATUS_OK) {
            rows_fini(&file);
            continue;
        }
        cJSON *split = cJSON_CreateObject();
        char stem[256];
        snprintf(stem, sizeof(stem), "%.*s", (int)(strlen(name) - 6), name);
        cJSON_AddStringToObject(split, "split", stem);
        cJSON_AddNumberToObject(split, "rows", (double)file.count);
        cJSON_AddItemToArray(splits, split);
        if (source_rate_split(stem) > best) { /* samples come from the best file to train on */
            best = source_rate_split(stem);
            cJSON_Delete(rows);
            rows = cJSON_CreateArray();
            take_first_rows(&file.head, rows);
        }
        rows_fini(&file);
    }
    free_names(&names);
    enum status status = samples ? source_add_samples(document, rows, err) : STATUS_OK;
    cJSON_Delete(rows);
    return status;
}

/* ---- questions ---- */

static int compare_ranks(const void *a, const void *b)
{
    const struct local_set *left = *(const struct local_set *const *)a;
    const struct local_set *right = *(const struct local_set *const *)b;
    if (left->rank != right->rank) {
        return left->rank > right->rank ? -1 : 1;
    }
    return left < right ? -1 : 1; /* both stand in one array, in the order they were named in */
}

/* Those whose cards have most of the words first; without any word in common they are still named:
 * there are few. */
static enum status search(struct source_work *work, struct local_sets *list, struct error *err)
{
    const struct local_set *order[SETS_MAX];
    struct buffer words;
    enum status status = STATUS_OK;
    buffer_init(&words, SOURCE_URL_BYTES);
    source_words(work->question.text, 32, true, "", "", " ", &words);
    for (int i = 0; i < list->count && status == STATUS_OK; i++) {
        char *card = NULL;
        status = read_card_file(list->sets[i].folder, &card, err);
        if (status == STATUS_OK) {
            list->sets[i].rank = count_words_in(buffer_text(&words), card, list->sets[i].id);
        }
        order[i] = &list->sets[i];
        free(card);
    }
    buffer_fini(&words);
    if (status == STATUS_OK) {
        qsort(order, (size_t)list->count, sizeof(order[0]), compare_ranks);
    }
    for (int i = 0; i < list->count && i < work->question.count && status == STATUS_OK; i++) {
        cJSON *document = NULL;
        status = add_document(order[i], work->question.count, work->documents, &document, err);
        if (status == STATUS_OK && document != NULL) {
            status = add_files(order[i]->folder, document, false, err);
        }
    }
    return status;
}

/* The file that the question names, or the best to train on. NULL: there is none. */
static const char *choose_split(const cJSON *document, const char *wanted)
{
    const char *best = NULL;
    int best_rating = 0;
    const cJSON *split = NULL;
    cJSON_ArrayForEach (split, cJSON_GetObjectItemCaseSensitive(document, "splits")) {
        const char *name = source_string(split, "split");
        int rating = source_rate_split(name);
        if ((wanted[0] == '\0' || strcmp(wanted, name) == 0) && rating > best_rating) {
            best = name;
            best_rating = rating;
        }
    }
    return best;
}

/* The file stays where it is: its whole path, rows and hash. */
static enum status name_file(const struct source_work *work, const struct local_set *set,
                             cJSON *document, struct error *err)
{
    char path[FILE_PATH_BYTES];
    char full[PATH_MAX];
    char name[300];
    char hash[HASH_TEXT_BYTES];
    struct rows rows;
    const char *licence = source_string(document, "licence");
    if (!source_licence_allowed(licence, work->options->licences)) {
        return FAIL(err, STATUS_PERMISSION,
                    "%s/README.md names the licence \"%s\", which is not among those allowed",
                    set->folder, licence);
    }
    const char *split = choose_split(document, work->question.split);
    if (split == NULL) {
        return FAIL(err, STATUS_NOT_FOUND, "%s has no file \"%s.jsonl\"", set->folder,
                    work->question.split[0] != '\0' ? work->question.split : "*");
    }
    snprintf(name, sizeof(name), "%s.jsonl", split);
    TRY(file_join(set->folder, name, path, err));
    if (realpath(path, full) == NULL) {
        return FAIL_ERRNO(err, "cannot find %s", path);
    }
    TRY(hash_file(full, hash, err));
    enum status status = read_rows(full, 0, &rows, err);
    rows_fini(&rows);
    TRY(status);
    cJSON_AddStringToObject(document, "split", split);
    cJSON_AddStringToObject(document, "path", full);
    cJSON_AddNumberToObject(document, "rows", (double)rows.count);
    cJSON_AddStringToObject(document, "hash", hash);
    cJSON_DeleteItemFromObjectCaseSensitive(document, "splits");
    return STATUS_OK;
}

static enum status advance(struct source_work *work, const char *body, size_t len_bytes,
                           struct source_step *next, struct error *err)
{
    (void)body, (void)len_bytes, (void)next; /* one step, and nothing to fetch */
    struct local_sets *list = NULL;
    enum status status = list_sets(work->options, &list, err);
    if (status != STATUS_OK || work->question.what == SOURCE_SEARCH) {
        status = status == STATUS_OK ? search(work, list, err) : status;
        goto cleanup;
    }
    const struct local_set *set = find_set(list, work->question.id);
    cJSON *document = NULL;
    if (set == NULL) {
        status =
            FAIL(err, STATUS_NOT_FOUND, "there is no local data set \"%s\"", work->question.id);
        goto cleanup;
    }
    TRY_CLEANUP(add_document(set, 1, work->documents, &document, err));
    if (document == NULL) {
        status = FAIL(err, STATUS_NOT_FOUND, "%s is no data set that has a name", set->folder);
        goto cleanup;
    }
    bool card = work->question.what == SOURCE_CARD;
    TRY_CLEANUP(add_files(set->folder, document, card, err));
    if (!card) {
        TRY_CLEANUP(name_file(work, set, document, err));
    }

cleanup:
    if (list != NULL) {
        free_sets(list);
    }
    return status;
}

const struct source_service source_local = {
    .card = true,
    .download = true,
    .advance = advance,
};
