#include "data/overlap.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/hash_index.h"
#include "data/text.h"

#define KEYS_MAX_BYTES ((size_t)16 << 30)
#define COMMON_SHARE                                                                               \
    100 /* a run in more than one of so many held-out rows is the task's own wording */
enum { COMMON_ROWS_MIN = 2 };

/* How many rows have a run of words, and the last one that had it: each row counts once. */
struct ngram_count {
    int64_t rows;
    int64_t last_row;
};

struct words {
    uint64_t *hashes;
    uint8_t *common; /* lies in a run that is common */
    int64_t count;
    int64_t capacity;
};

struct held_out {
    const struct task *task;
    const char *field;
    int64_t ngram;
    int64_t count;
    struct hash_index prompts; /* to offsets in keys */
    struct buffer keys;        /* folded prompts, each with its NUL */
    struct hash_index ngrams;  /* to indices of counts */
    struct ngram_count *counts;
    int64_t counts_capacity;
    struct words words;   /* of the text at hand */
    struct buffer text;   /* as it is rendered */
    struct buffer folded; /* the same, folded */
};

void held_out_destroy(struct held_out *held_out)
{
    if (held_out == NULL) {
        return;
    }
    hash_index_fini(&held_out->prompts);
    buffer_fini(&held_out->keys);
    hash_index_fini(&held_out->ngrams);
    free(held_out->counts);
    free(held_out->words.hashes);
    free(held_out->words.common);
    buffer_fini(&held_out->text);
    buffer_fini(&held_out->folded);
    free(held_out);
}

int64_t held_out_count(const struct held_out *held_out)
{
    return held_out->count;
}

/* ---- equal prompts
 * ---------------------------------------------------------------------------------------------- */

static enum status fold_prompt(struct held_out *held_out, const struct data_row *row,
                               struct error *err)
{
    buffer_clear(&held_out->text);
    buffer_clear(&held_out->folded);
    TRY(task_render_prompt(held_out->task, row, &held_out->text, err));
    return text_fold(buffer_text(&held_out->text), held_out->text.len_bytes, &held_out->folded,
                     err);
}

static bool has_prompt(const struct held_out *held_out, uint64_t hash)
{
    int64_t cursor = 0;
    for (int64_t *offset; (offset = hash_index_next(&held_out->prompts, hash, &cursor)) != NULL;) {
        if (strcmp(held_out->keys.data + *offset, buffer_text(&held_out->folded)) == 0) {
            return true;
        }
    }
    return false;
}

static enum status add_prompt(struct held_out *held_out, const struct data_row *row,
                              struct error *err)
{
    TRY(fold_prompt(held_out, row, err));
    uint64_t hash = hash_index_hash(buffer_text(&held_out->folded), held_out->folded.len_bytes);
    if (has_prompt(held_out, hash)) {
        return STATUS_OK;
    }
    int64_t offset = (int64_t)held_out->keys.len_bytes;
    buffer_append(&held_out->keys, buffer_text(&held_out->folded), held_out->folded.len_bytes);
    buffer_append_char(&held_out->keys, '\0');
    TRY(buffer_check(&held_out->keys, "prompts of validation and test", err));
    return hash_index_add(&held_out->prompts, hash, offset, err);
}

/* ---- shared runs of words
 * --------------------------------------------------------------------------------------- */

static enum status append_word(struct words *words, uint64_t hash, struct error *err)
{
    if (words->count == words->capacity) {
        int64_t capacity = words->capacity > 0 ? words->capacity * 2 : 256;
        uint64_t *hashes = mem_realloc(words->hashes, (size_t)capacity, sizeof(*hashes));
        if (hashes == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*hashes), "words");
        }
        words->hashes = hashes;
        uint8_t *common = mem_realloc(words->common, (size_t)capacity, 1);
        if (common == NULL) {
            return mem_fail(err, (size_t)capacity, "words");
        }
        words->common = common;
        words->capacity = capacity;
    }
    words->common[words->count] = 0;
    words->hashes[words->count++] = hash;
    return STATUS_OK;
}

/* Words of the row's text into held_out->words. */
static enum status split_words(struct held_out *held_out, const struct data_row *row,
                               struct error *err)
{
    if (held_out->field == NULL) {
        TRY(fold_prompt(held_out, row, err));
    } else {
        bool found = false;
        buffer_clear(&held_out->text);
        buffer_clear(&held_out->folded);
        TRY(text_append_field(row->object, held_out->field, held_out->task->separator,
                              &held_out->text, &found, err));
        TRY(text_fold(buffer_text(&held_out->text), held_out->text.len_bytes, &held_out->folded,
                      err));
    }
    const char *text = buffer_text(&held_out->folded);
    size_t at = 0;
    size_t start = 0;
    size_t length = 0;
    held_out->words.count = 0;
    while (text_next_word(text, held_out->folded.len_bytes, &at, &start, &length)) {
        TRY(append_word(&held_out->words, hash_index_hash(text + start, length), err));
    }
    return STATUS_OK;
}

/* The counter of the run of words that begins at word i, or NULL. 64-bit hashes stand for the runs
 * here: a collision (one in 10^9 for a billion pairs of runs) would cost one training row. */
static struct ngram_count *find_ngram(const struct held_out *held_out, int64_t i, uint64_t *hash)
{
    *hash =
        hash_index_hash(held_out->words.hashes + i, (uint64_t)held_out->ngram * sizeof(uint64_t));
    int64_t cursor = 0;
    const int64_t *index = hash_index_next(&held_out->ngrams, *hash, &cursor);
    return index != NULL ? &held_out->counts[*index] : NULL;
}

static enum status add_ngrams(struct held_out *held_out, const struct data_row *row, int64_t number,
                              struct error *err)
{
    TRY(split_words(held_out, row, err));
    for (int64_t i = 0; i + held_out->ngram <= held_out->words.count; i++) {
        uint64_t hash = 0;
        struct ngram_count *count = find_ngram(held_out, i, &hash);
        if (count == NULL) {
            int64_t index = held_out->ngrams.count;
            if (index == held_out->counts_capacity) {
                int64_t capacity = index > 0 ? index * 2 : 1024;
                struct ngram_count *counts =
                    mem_realloc(held_out->counts, (size_t)capacity, sizeof(*counts));
                if (counts == NULL) {
                    return mem_fail(err, (size_t)capacity * sizeof(*counts), "runs of words");
                }
                held_out->counts = counts;
                held_out->counts_capacity = capacity;
            }
            count = &held_out->counts[index];
            *count = (struct ngram_count){0, -1};
            TRY(hash_index_add(&held_out->ngrams, hash, index, err));
        }
        if (count->last_row != number) {
            count->last_row = number;
            count->rows++;
        }
    }
    return STATUS_OK;
}

/* Marks the words in common runs, then looks for a run of other words that is held out. */
static bool shares_words(struct held_out *held_out)
{
    int64_t common_rows = held_out->count / COMMON_SHARE;
    common_rows = common_rows > COMMON_ROWS_MIN ? common_rows : COMMON_ROWS_MIN;
    struct words *words = &held_out->words;
    uint64_t hash = 0;
    for (int64_t i = 0; i + held_out->ngram <= words->count; i++) {
        const struct ngram_count *count = find_ngram(held_out, i, &hash);
        if (count != NULL && count->rows > common_rows) {
            memset(words->common + i, 1, (size_t)held_out->ngram);
        }
    }
    int64_t free_run = 0; /* words up to here that are not common */
    for (int64_t i = 0; i < words->count; i++) {
        free_run = words->common[i] ? 0 : free_run + 1;
        if (free_run >= held_out->ngram &&
            find_ngram(held_out, i + 1 - held_out->ngram, &hash) != NULL) {
            return true;
        }
    }
    return false;
}

/* ---- both ---- */

static enum status add_rows(struct held_out *held_out, const struct dataset *rows,
                            struct error *err)
{
    for (int64_t i = 0; rows != NULL && i < rows->count; i++) {
        enum status status = add_prompt(held_out, &rows->rows[i], err);
        if (status == STATUS_OK && held_out->ngram > 0) {
            status = add_ngrams(held_out, &rows->rows[i], held_out->count, err);
        }
        if (status != STATUS_OK) {
            error_context(err, "%s:%lld", rows->sources[rows->rows[i].source],
                          (long long)rows->rows[i].line);
            return status;
        }
        held_out->count++;
    }
    return STATUS_OK;
}

enum status held_out_create(const struct task *task, const struct dataset *validation,
                            const struct dataset *test, int64_t ngram, const char *field,
                            struct held_out **out, struct error *err)
{
    struct held_out *held_out = mem_calloc(1, sizeof(*held_out));
    if (held_out == NULL) {
        return mem_fail(err, sizeof(*held_out), "held-out rows");
    }
    held_out->task = task;
    held_out->field = field;
    held_out->ngram = ngram;
    hash_index_init(&held_out->prompts);
    hash_index_init(&held_out->ngrams);
    buffer_init(&held_out->keys, KEYS_MAX_BYTES);
    buffer_init(&held_out->text, TEXT_MAX_BYTES);
    buffer_init(&held_out->folded, (size_t)TEXT_MAX_BYTES * 4);
    enum status status = add_rows(held_out, validation, err);
    if (status == STATUS_OK) {
        status = add_rows(held_out, test, err);
    }
    if (status != STATUS_OK) {
        held_out_destroy(held_out);
        return status;
    }
    *out = held_out;
    return STATUS_OK;
}

enum status held_out_compare(struct held_out *held_out, const struct data_row *row,
                             enum held_out_match *match, struct error *err)
{
    TRY(fold_prompt(held_out, row, err));
    uint64_t hash = hash_index_hash(buffer_text(&held_out->folded), held_out->folded.len_bytes);
    *match = has_prompt(held_out, hash) ? HELD_OUT_SAME_PROMPT : HELD_OUT_NEW;
    if (*match == HELD_OUT_NEW && held_out->ngram > 0) {
        TRY(split_words(held_out, row, err));
        *match = shares_words(held_out) ? HELD_OUT_SHARED_WORDS : HELD_OUT_NEW;
    }
    return STATUS_OK;
}
