/* rouge1, rougeL: F-measure of shared tokens, and of the longest common subsequence of tokens, as
 * in Google's rouge_score without stemming. Source: Lin, "ROUGE: a package for automatic evaluation
 * of summaries", 2004.
 *
 * A token is a run of letters and digits in lower case. Where rouge_score drops everything outside
 * a-z and 0-9, letters of other scripts count here too, and each Han, Hiragana or Katakana
 * character is a token, since no spaces part words there. On ASCII text both are the same. */
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/mem.h"
#include "eval/scorers.h"
#include "eval/utf8.h"

/* A longer text takes part in rougeL with its first tokens, so that no output can hold a search up.
 */
enum { LCS_MAX_TOKENS = 16384 };

struct token {
    const char *text; /* in struct pair's folded */
    int32_t position; /* among the tokens of both texts, the answer's first */
};

/* Answer and output of one row, as numbers: equal tokens have equal numbers. */
struct pair {
    struct buffer folded; /* all tokens' bytes */
    int64_t capacity;
    struct token *tokens; /* sorted by number, then position */
    int32_t *numbers;     /* (answer_count + output_count) of each position */
    int32_t *group;       /* (distinct tokens) index in `tokens` of the first with that number */
    int64_t answer_count;
    int64_t output_count;
};

static void pair_fini(struct pair *pair)
{
    buffer_fini(&pair->folded);
    free(pair->tokens);
    free(pair->numbers);
    free(pair->group);
}

/* ---- tokens ---- */

/* Appends text's tokens to folded, each followed by a zero byte, and returns how many. */
static int64_t fold_tokens(struct buffer *folded, const char *text)
{
    size_t length = strlen(text);
    int64_t count = 0;
    bool inside = false;
    for (size_t i = 0; i < length;) {
        int32_t point = 0;
        i += utf8_next(text + i, length - i, &point);
        bool ideograph = utf8_is_ideograph(point);
        bool word = utf8_is_word(point);
        if (inside && (!word || ideograph)) {
            buffer_append_char(folded, '\0');
            inside = false;
        }
        if (word) {
            count += !inside;
            utf8proc_uint8_t bytes[4];
            utf8proc_ssize_t used = utf8proc_encode_char(utf8proc_tolower(point), bytes);
            buffer_append(folded, bytes, (size_t)used);
            inside = !ideograph;
            if (ideograph) {
                buffer_append_char(folded, '\0');
            }
        }
    }
    if (inside) {
        buffer_append_char(folded, '\0');
    }
    return count;
}

static int compare_tokens(const void *left, const void *right)
{
    const struct token *a = left;
    const struct token *b = right;
    int order = strcmp(a->text, b->text);
    return order != 0 ? order : (a->position > b->position) - (a->position < b->position);
}

static enum status reserve(struct pair *pair, int64_t count, struct error *err)
{
    if (count > INT32_MAX) {
        return FAIL(err, STATUS_LIMIT, "a text has more than %d tokens", INT32_MAX);
    }
    if (count <= pair->capacity) {
        return STATUS_OK;
    }
    struct token *tokens = mem_realloc(pair->tokens, (size_t)count, sizeof(*tokens));
    pair->tokens = tokens != NULL ? tokens : pair->tokens;
    int32_t *numbers = mem_realloc(pair->numbers, (size_t)count, sizeof(*numbers));
    pair->numbers = numbers != NULL ? numbers : pair->numbers;
    int32_t *group = mem_realloc(pair->group, (size_t)count, sizeof(*group));
    pair->group = group != NULL ? group : pair->group;
    if (tokens == NULL || numbers == NULL || group == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*tokens), "tokens of a text");
    }
    pair->capacity = count;
    return STATUS_OK;
}

static enum status pair_read(struct pair *pair, const char *answer, const char *output,
                             struct error *err)
{
    buffer_clear(&pair->folded);
    pair->answer_count = fold_tokens(&pair->folded, answer);
    pair->output_count = fold_tokens(&pair->folded, output);
    TRY(buffer_check(&pair->folded, "text compared by rouge", err));
    int64_t count = pair->answer_count + pair->output_count;
    TRY(reserve(pair, count, err));
    const char *text = buffer_text(&pair->folded);
    for (int64_t i = 0; i < count; i++) {
        pair->tokens[i] = (struct token){text, (int32_t)i};
        text += strlen(text) + 1;
    }
    if (count > 0) {
        qsort(pair->tokens, (size_t)count, sizeof(*pair->tokens), compare_tokens);
    }
    int32_t number = -1;
    for (int64_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(pair->tokens[i - 1].text, pair->tokens[i].text) != 0) {
            pair->group[++number] = (int32_t)i;
        }
        pair->numbers[pair->tokens[i].position] = number;
    }
    return STATUS_OK;
}

/* ---- the two figures ---- */

/* Sum over distinct tokens of the smaller count. Equal tokens are neighbours, the answer's before
 * the output's. */
static int64_t shared_tokens(const struct pair *pair)
{
    int64_t count = pair->answer_count + pair->output_count;
    int64_t shared = 0;
    for (int64_t i = 0; i < count;) {
        int64_t in_answer = 0;
        int64_t in_output = 0;
        int32_t number = pair->numbers[pair->tokens[i].position];
        for (; i < count && pair->numbers[pair->tokens[i].position] == number; i++) {
            if (pair->tokens[i].position < pair->answer_count) {
                in_answer++;
            } else {
                in_output++;
            }
        }
        shared += in_answer < in_output ? in_answer : in_output;
    }
    return shared;
}

/* Sets (or clears) the bits of the answer's first m positions that hold token `number`. */
static void mark_positions(const struct pair *pair, int32_t number, int64_t m, bool set,
                           uint64_t *match)
{
    int64_t count = pair->answer_count + pair->output_count;
    for (int64_t i = pair->group[number]; i < count; i++) {
        int64_t position = pair->tokens[i].position;
        if (position >= m || pair->numbers[position] != number) {
            break;
        }
        uint64_t bit = (uint64_t)1 << (position % 64);
        match[position / 64] = set ? match[position / 64] | bit : match[position / 64] & ~bit;
    }
}

/* Length of the longest common subsequence, 64 positions of the answer at a time: bit i of `row` is
 * zero where the length grows at the answer's token i. Source: Hyyro, "Bit-parallel LCS-length
 * computation revisited", 2004. */
static int64_t common_subsequence(const struct pair *pair)
{
    int64_t m = pair->answer_count < LCS_MAX_TOKENS ? pair->answer_count : LCS_MAX_TOKENS;
    int64_t n = pair->output_count < LCS_MAX_TOKENS ? pair->output_count : LCS_MAX_TOKENS;
    int64_t word_count = (m + 63) / 64;
    uint64_t row[LCS_MAX_TOKENS / 64];
    uint64_t match[LCS_MAX_TOKENS / 64] = {0};
    memset(row, 0xFF, sizeof(row));
    for (int64_t j = 0; j < n; j++) {
        int32_t number = pair->numbers[pair->answer_count + j];
        mark_positions(pair, number, m, true, match);
        uint64_t carry = 0;
        for (int64_t w = 0; w < word_count; w++) {
            uint64_t both = row[w] & match[w];
            uint64_t sum = row[w] + both;
            uint64_t overflow = sum < both;
            sum += carry;
            carry = overflow | (sum < carry);
            row[w] = sum | (row[w] & ~match[w]);
        }
        mark_positions(pair, number, m, false, match);
    }
    int64_t length = 0;
    for (int64_t i = 0; i < m; i++) {
        length += (row[i / 64] >> (i % 64) & 1) == 0;
    }
    return length;
}

static double f_measure(int64_t shared, const struct pair *pair)
{
    if (shared == 0) {
        return 0.0;
    }
    double precision = (double)shared / (double)pair->output_count;
    double recall = (double)shared / (double)pair->answer_count;
    return 2.0 * precision * recall / (precision + recall);
}

typedef int64_t (*shared_fn)(const struct pair *pair);

static enum status score(shared_fn shared, const struct scorer_row *rows, int64_t count,
                         double *row_score, double *score_out, struct error *err)
{
    enum status status = STATUS_OK;
    struct pair pair = {0};
    buffer_init(&pair.folded, SCORER_TEXT_MAX_BYTES);
    for (int64_t i = 0; i < count; i++) {
        TRY_CLEANUP(
            pair_read(&pair, scorer_text(rows[i].answer), scorer_text(rows[i].output), err));
        row_score[i] = f_measure(shared(&pair), &pair);
    }
    *score_out = scorer_mean(row_score, count);
cleanup:
    pair_fini(&pair);
    return status;
}

static enum status score_rouge1(const struct task *task, const struct scorer_row *rows,
                                int64_t count, double *row_score, double *score_out,
                                struct error *err)
{
    (void)task;
    return score(shared_tokens, rows, count, row_score, score_out, err);
}

static enum status score_rouge_l(const struct task *task, const struct scorer_row *rows,
                                 int64_t count, double *row_score, double *score_out,
                                 struct error *err)
{
    (void)task;
    return score(common_subsequence, rows, count, row_score, score_out, err);
}

const struct scorer scorer_rouge1 = {
    .name = "rouge1",
    .summary = "F-measure of the words that answer and output share",
    .worst = 0.0,
    .best = 1.0,
    .mean_of_rows = true,
    .score = score_rouge1,
};

const struct scorer scorer_rouge_l = {
    .name = "rougeL",
    .summary = "F-measure of the longest common subsequence of words of answer and output",
    .worst = 0.0,
    .best = 1.0,
    .mean_of_rows = true,
    .score = score_rouge_l,
};
