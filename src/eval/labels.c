#include "eval/labels.h"

#include <string.h>

#include "eval/scorer.h"
#include "eval/utf8.h"

static const char *const letters[] = {"A", "B", "C", "D", "E", "F", "G", "H", "I",
                                      "J", "K", "L", "M", "N", "O", "P", "Q", "R",
                                      "S", "T", "U", "V", "W", "X", "Y", "Z"};
enum { LETTER_COUNT = sizeof(letters) / sizeof(letters[0]) };

static enum status normalise(struct buffer *out, const char *text, int flags, struct error *err)
{
    buffer_init(out, SCORER_TEXT_MAX_BYTES);
    utf8_normalise(out, text, strlen(text), flags);
    return buffer_check(out, "text compared with labels", err);
}

enum status label_find(const struct label_set *set, const char *text, int *out, struct error *err)
{
    struct buffer wanted;
    struct buffer name;
    buffer_init(&name, SCORER_TEXT_MAX_BYTES);
    int found = -1;
    enum status status = STATUS_OK;
    TRY_CLEANUP(normalise(&wanted, text, UTF8_FOLD_CASE, err));
    for (int i = 0; i < set->count && found < 0; i++) {
        buffer_clear(&name);
        utf8_normalise(&name, set->names[i], strlen(set->names[i]), UTF8_FOLD_CASE);
        TRY_CLEANUP(buffer_check(&name, "label", err));
        if (strcmp(buffer_text(&name), buffer_text(&wanted)) == 0) {
            found = i;
        }
    }
    *out = found;
cleanup:
    buffer_fini(&wanted);
    buffer_fini(&name);
    return status;
}

static void collect_choices(const struct data_row *row, struct label_set *set)
{
    const cJSON *choices = cJSON_GetObjectItemCaseSensitive(row->object, "choices");
    const cJSON *choice = NULL;
    set->count = 0;
    cJSON_ArrayForEach (choice, choices) {
        if (cJSON_IsString(choice) && set->count < TASK_LABELS_MAX) {
            set->names[set->count++] = choice->valuestring;
        }
    }
}

enum status label_set_of_row(const struct task *task, const struct data_row *row,
                             const char *answer, struct label_set *out, struct error *err)
{
    int found = -1;
    collect_choices(row, out);
    int choice_count = out->count > 0 ? out->count : task->label_count;
    TRY(label_find(out, answer, &found, err));
    if (found >= 0) {
        return STATUS_OK;
    }
    out->count = task->label_count;
    for (int i = 0; i < task->label_count; i++) {
        out->names[i] = task->labels[i];
    }
    TRY(label_find(out, answer, &found, err));
    if (found >= 0) {
        return STATUS_OK;
    }
    out->count = choice_count < LETTER_COUNT ? choice_count : LETTER_COUNT;
    memcpy(out->names, letters, (size_t)out->count * sizeof(letters[0]));
    TRY(label_find(out, answer, &found, err));
    if (found < 0) {
        out->count = 0;
    }
    return STATUS_OK;
}

/* True if a word that begins with `next` may follow `previous` without being a part of it. */
static bool is_boundary(int32_t previous, int32_t next)
{
    return !utf8_is_word(previous) || !utf8_is_word(next) || utf8_is_ideograph(previous) ||
           utf8_is_ideograph(next);
}

static int32_t point_before(const char *text, size_t at)
{
    size_t begin = at - 1;
    while (begin > 0 && ((unsigned char)text[begin] & 0xC0) == 0x80) {
        begin--;
    }
    int32_t point = 0;
    utf8_next(text + begin, at - begin, &point);
    return point;
}

static bool stands_alone(const char *text, size_t len_bytes, size_t at, size_t name_bytes)
{
    int32_t point = 0;
    if (at > 0) {
        utf8_next(text + at, len_bytes - at, &point);
        if (!is_boundary(point_before(text, at), point)) {
            return false;
        }
    }
    size_t end = at + name_bytes;
    if (end < len_bytes) {
        utf8_next(text + end, len_bytes - end, &point);
        return is_boundary(point_before(text, end), point);
    }
    return true;
}

/* Bytes before the first mention of `name` in text, SIZE_MAX without one. */
static size_t find_words(const struct buffer *text, const struct buffer *name)
{
    const char *data = buffer_text(text);
    size_t at = 0;
    while (name->len_bytes > 0 && at < text->len_bytes) {
        const char *hit = memmem(data + at, text->len_bytes - at, name->data, name->len_bytes);
        if (hit == NULL) {
            break;
        }
        at = (size_t)(hit - data);
        if (stands_alone(data, text->len_bytes, at, name->len_bytes)) {
            return at;
        }
        at++;
    }
    return SIZE_MAX;
}

/* Folding may change how many bytes a character takes, never how many characters there are. */
static int64_t count_characters(const char *text, size_t len_bytes)
{
    int64_t count = 0;
    for (size_t i = 0; i < len_bytes; i++) {
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    }
    return count;
}

/* Characters before the first mention of a label, INT64_MAX without one, and the characters of the
 * label. */
static enum status locate(const char *label, const struct buffer *plain,
                          const struct buffer *folded, int64_t *position, int64_t *length,
                          struct error *err)
{
    struct buffer name;
    enum status status = normalise(&name, label, 0, err);
    if (status == STATUS_OK) {
        *length = count_characters(buffer_text(&name), name.len_bytes);
        bool own_case = *length == 1;
        if (!own_case) {
            buffer_clear(&name);
            utf8_normalise(&name, label, strlen(label), UTF8_FOLD_CASE);
            status = buffer_check(&name, "label", err);
        }
        const struct buffer *text = own_case ? plain : folded;
        size_t at = find_words(text, &name);
        *position = at == SIZE_MAX ? INT64_MAX : count_characters(buffer_text(text), at);
    }
    buffer_fini(&name);
    return status;
}

enum status label_find_mention(const struct label_set *set, const char *output, int *out,
                               struct error *err)
{
    int found = -1;
    int64_t best_position = INT64_MAX;
    int64_t best_length = 0;
    enum status status = STATUS_OK;
    struct buffer folded;
    struct buffer plain;
    buffer_init(&folded, SCORER_TEXT_MAX_BYTES);
    buffer_init(&plain, SCORER_TEXT_MAX_BYTES);
    TRY_CLEANUP(label_find(set, output, &found, err));
    if (found < 0) {
        TRY_CLEANUP(normalise(&folded, output, UTF8_FOLD_CASE, err));
        TRY_CLEANUP(normalise(&plain, output, 0, err));
    }
    bool is_label = found >= 0;
    for (int i = 0; i < set->count && !is_label; i++) {
        int64_t position = INT64_MAX;
        int64_t length = 0;
        TRY_CLEANUP(locate(set->names[i], &plain, &folded, &position, &length, err));
        if (position < best_position ||
            (position == best_position && position != INT64_MAX && length > best_length)) {
            found = i;
            best_position = position;
            best_length = length;
        }
    }
    *out = found;
cleanup:
    buffer_fini(&folded);
    buffer_fini(&plain);
    return status;
}
