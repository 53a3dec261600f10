#include "eval/label_parser.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/utf8.h"

enum { ITEM_FLAGS = UTF8_FOLD_CASE | UTF8_STRIP_PUNCTUATION };

/* Calls `item` with each part of text between separators, normalised; parts that are empty or
 * "none" are left out. */
typedef enum status (*item_fn)(void *context, const char *name, struct error *err);

static enum status split(const char *separator, const char *text, item_fn item, void *context,
                         struct error *err)
{
    enum status status = STATUS_OK;
    size_t separator_bytes = strlen(separator);
    struct buffer name;
    buffer_init(&name, SCORER_TEXT_MAX_BYTES);
    const char *part = text;
    while (part != NULL) {
        const char *end = separator_bytes > 0 ? strstr(part, separator) : NULL;
        size_t length = end != NULL ? (size_t)(end - part) : strlen(part);
        buffer_clear(&name);
        utf8_normalise(&name, part, length, ITEM_FLAGS);
        TRY_CLEANUP(buffer_check(&name, "label", err));
        if (name.len_bytes > 0 && strcmp(buffer_text(&name), "none") != 0) {
            TRY_CLEANUP(item(context, buffer_text(&name), err));
        }
        part = end != NULL ? end + separator_bytes : NULL;
    }
cleanup:
    buffer_fini(&name);
    return status;
}

static int find(const struct label_parser *parser, const char *name)
{
    for (int i = 0; i < parser->count; i++) {
        if (strcmp(parser->names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

static enum status add_label(void *context, const char *name, struct error *err)
{
    struct label_parser *parser = context;
    if (find(parser, name) >= 0) {
        return STATUS_OK;
    }
    if (parser->count == TASK_LABELS_MAX) {
        return FAIL(err, STATUS_LIMIT,
                    "the answers name more than %d labels, for example \"%.80s\"; give the task "
                    "its \"labels\", "
                    "and the \"separator\" that stands between them",
                    TASK_LABELS_MAX, name);
    }
    char *copy = mem_strdup(name);
    if (copy == NULL) {
        return mem_fail(err, strlen(name) + 1, "label");
    }
    parser->names[parser->count++] = copy;
    return STATUS_OK;
}

/* The separator without the spaces around it, which a model may leave out; itself if it is nothing
 * but space. */
static char *copy_separator(const char *separator)
{
    size_t length = strlen(separator);
    size_t begin = strspn(separator, " \t\r\n");
    while (length > begin && strchr(" \t\r\n", separator[length - 1]) != NULL) {
        length--;
    }
    return begin == length ? mem_strdup(separator) : mem_strndup(separator + begin, length - begin);
}

enum status label_parser_init(struct label_parser *parser, const struct task *task,
                              const struct scorer_row *rows, int64_t count, struct error *err)
{
    enum status status = STATUS_OK;
    memset(parser, 0, sizeof(*parser));
    parser->separator = copy_separator(scorer_text(task->separator));
    if (parser->separator == NULL) {
        return mem_fail(err, strlen(scorer_text(task->separator)) + 1, "separator");
    }
    for (int i = 0; i < task->label_count; i++) {
        TRY_CLEANUP(split("", task->labels[i], add_label, parser, err));
    }
    for (int64_t i = 0; i < count && task->label_count == 0; i++) {
        TRY_CLEANUP(split(parser->separator, scorer_text(rows[i].answer), add_label, parser, err));
    }
cleanup:
    if (status != STATUS_OK) {
        label_parser_fini(parser);
    }
    return status;
}

void label_parser_fini(struct label_parser *parser)
{
    for (int i = 0; i < parser->count; i++) {
        free(parser->names[i]);
    }
    free(parser->separator);
    memset(parser, 0, sizeof(*parser));
}

struct reading {
    const struct label_parser *parser;
    struct label_bits *bits;
    bool unknown;
};

static enum status mark_label(void *context, const char *name, struct error *err)
{
    (void)err;
    struct reading *reading = context;
    int label = find(reading->parser, name);
    if (label < 0) {
        reading->unknown = true;
    } else {
        reading->bits->words[label / 64] |= (uint64_t)1 << (label % 64);
    }
    return STATUS_OK;
}

enum status label_parser_read(const struct label_parser *parser, const char *text,
                              struct label_bits *out, bool *unknown, struct error *err)
{
    struct reading reading = {parser, out, false};
    memset(out, 0, sizeof(*out));
    TRY(split(parser->separator, text, mark_label, &reading, err));
    *unknown = reading.unknown;
    return STATUS_OK;
}
