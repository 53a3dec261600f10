/* Rows whose text is neither too short nor too long. */
#include <stdlib.h>

#include "data/operators.h"
#include "data/text.h"

enum length_unit { UNIT_CHARACTERS, UNIT_WORDS };
static const char *const unit_names[] = {"characters", "words", NULL};

struct length_args {
    const char *field; /* NULL: what the model reads and should write */
    enum length_unit unit;
    int64_t min;
    int64_t max;
};

static struct length_args read_args(struct json_reader *args)
{
    struct length_args out;
    out.field = json_read_string(args, "field", NULL);
    out.unit = (enum length_unit)json_read_choice(args, "unit", unit_names, UNIT_CHARACTERS);
    out.min = json_read_int(args, "min", 0, 0, TEXT_MAX_BYTES);
    out.max = json_read_int(args, "max", TEXT_MAX_BYTES, 0, TEXT_MAX_BYTES);
    return out;
}

void operator_length_check(struct json_reader *args)
{
    struct length_args length = read_args(args);
    if (length.min > length.max) {
        json_problems_add(args->problems, args->pointer, "found min %lld above max %lld",
                          (long long)length.min, (long long)length.max);
    } else if (cJSON_GetObjectItemCaseSensitive(args->object, "min") == NULL &&
               cJSON_GetObjectItemCaseSensitive(args->object, "max") == NULL) {
        json_problems_add(args->problems, args->pointer,
                          "length does nothing; needed is min or max");
    }
}

enum status operator_length_run(struct operator_run *run, struct json_reader *args,
                                struct row_list *rows, struct error *err)
{
    struct length_args length = read_args(args);
    uint8_t *marks = operator_marks(rows, err);
    enum status status = marks != NULL ? STATUS_OK : STATUS_NO_MEMORY;
    int64_t too_short = 0;
    struct buffer text;
    buffer_init(&text, TEXT_MAX_BYTES);
    for (int64_t i = 0; i < rows->count && status == STATUS_OK; i++) {
        buffer_clear(&text);
        status = operator_append_text(run, rows->rows[i], length.field, &text, NULL, err);
        int64_t count = length.unit == UNIT_WORDS
                            ? text_count_words(buffer_text(&text), text.len_bytes)
                            : text_count_characters(buffer_text(&text), text.len_bytes);
        too_short += count < length.min;
        marks[i] = count >= length.min && count <= length.max;
    }
    if (status == STATUS_OK) {
        int64_t removed = row_list_keep(rows, marks);
        operator_note(run, "removed %lld too short, %lld too long", (long long)too_short,
                      (long long)(removed - too_short));
    }
    buffer_fini(&text);
    free(marks);
    return status;
}
