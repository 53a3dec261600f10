/* Each row once. Hashes find candidates; texts are compared before anything is removed. */
#include <stdlib.h>
#include <string.h>

#include "data/hash_index.h"
#include "data/operators.h"
#include "data/text.h"

struct dedup_args {
    const cJSON *fields; /* names; NULL: what the model reads and should write */
    bool fold;
};

static struct dedup_args read_args(struct json_reader *args)
{
    struct dedup_args out;
    out.fields = json_read_array(args, "fields");
    out.fold = json_read_bool(args, "fold", false);
    return out;
}

void operator_dedup_check(struct json_reader *args)
{
    struct dedup_args dedup = read_args(args);
    char pointer[JSON_POINTER_BYTES];
    operator_check_fields(args, "fields", dedup.fields);
    json_reader_pointer(args, "fields", pointer);
    if (dedup.fields != NULL && cJSON_GetArraySize(dedup.fields) == 0) {
        json_problems_add(args->problems, pointer,
                          "found an empty list, allowed are names of fields");
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, dedup.fields) {
        if (!cJSON_IsString(item)) {
            json_problems_add(args->problems, pointer, "allowed is a list of names of fields");
            break;
        }
    }
}

/* One field behind the others: its presence, its text, a NUL. Texts hold no NUL, so different rows
 * differ. */
static enum status append_key_part(const struct operator_run *run, const struct dedup_args *dedup,
                                   const struct shared_row *row, const char *field,
                                   struct buffer *key, struct buffer *scratch, struct error *err)
{
    bool found = false;
    buffer_clear(scratch);
    TRY(operator_append_text(run, row, field, scratch, &found, err));
    buffer_append_char(key, found ? '+' : '-');
    if (dedup->fold) {
        TRY(text_fold(buffer_text(scratch), scratch->len_bytes, key, err));
    } else {
        buffer_append(key, buffer_text(scratch), scratch->len_bytes);
    }
    buffer_append_char(key, '\0');
    return buffer_check(key, "the key of a row", err);
}

static enum status make_key(const struct operator_run *run, const struct dedup_args *dedup,
                            const struct shared_row *row, struct buffer *key,
                            struct buffer *scratch, struct error *err)
{
    buffer_clear(key);
    if (dedup->fields == NULL) {
        return append_key_part(run, dedup, row, NULL, key, scratch, err);
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, dedup->fields) {
        TRY(append_key_part(run, dedup, row, item->valuestring, key, scratch, err));
    }
    return STATUS_OK;
}

struct dedup_state {
    struct hash_index index; /* of rows that are kept */
    struct buffer key;
    struct buffer other;
    struct buffer scratch;
};

/* Marks row i unless an earlier kept row has the same key. Keys are made again for a comparison
 * rather than kept: that costs something per duplicate, and no memory per row. */
static enum status mark_row(const struct operator_run *run, const struct dedup_args *dedup,
                            const struct row_list *rows, int64_t i, struct dedup_state *state,
                            uint8_t *marks, struct error *err)
{
    TRY(make_key(run, dedup, rows->rows[i], &state->key, &state->scratch, err));
    uint64_t hash = hash_index_hash(buffer_text(&state->key), state->key.len_bytes);
    int64_t cursor = 0;
    for (int64_t *earlier; (earlier = hash_index_next(&state->index, hash, &cursor)) != NULL;) {
        TRY(make_key(run, dedup, rows->rows[*earlier], &state->other, &state->scratch, err));
        if (state->key.len_bytes == state->other.len_bytes &&
            memcmp(state->key.data, state->other.data, state->key.len_bytes) == 0) {
            return STATUS_OK;
        }
    }
    marks[i] = 1;
    return hash_index_add(&state->index, hash, i, err);
}

enum status operator_dedup_run(struct operator_run *run, struct json_reader *args,
                               struct row_list *rows, struct error *err)
{
    struct dedup_args dedup = read_args(args);
    uint8_t *marks = operator_marks(rows, err);
    if (marks == NULL) {
        return STATUS_NO_MEMORY;
    }
    struct dedup_state state;
    hash_index_init(&state.index);
    buffer_init(&state.key, TEXT_MAX_BYTES);
    buffer_init(&state.other, TEXT_MAX_BYTES);
    buffer_init(&state.scratch, TEXT_MAX_BYTES);
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < rows->count && status == STATUS_OK; i++) {
        status = mark_row(run, &dedup, rows, i, &state, marks, err);
    }
    if (status == STATUS_OK) {
        operator_note(run, "removed %lld duplicates", (long long)row_list_keep(rows, marks));
    }
    buffer_fini(&state.scratch);
    buffer_fini(&state.other);
    buffer_fini(&state.key);
    hash_index_fini(&state.index);
    free(marks);
    return status;
}
